"""Ragged requests answered in one batch, beside the same weights in transformers' `generate`, in one run.

    python benchmarks/generation.py

Prompts and answers are of many lengths; each answer ends where it is told to, on both sides. Both are greedy, and have all requests at
once: transformers pads on the left, attends by sdpa, keeps its default cache, and stops when the last row has ended. Ours pads on the
right, and rows that have ended leave the batch. In double precision both must say the same before anything is timed. Runs are
interleaved; the fastest of several counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from tonggan.generate import Sampling, generate
from tonggan.hub.convert.decoder import decoder_in
from tonggan.hub.convert.llama import table
from tonggan.hub.read import build_with
from tonggan.models import GPT, GPTConfig
from tonggan.tensors import Batch, pad

SHAPE = {
    "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
PADDING = 0
PROMPTS, ANSWERS = (16, 128), (8, 64)
"""Fewest and most tokens."""


class Lengths(StoppingCriteria):  # type: ignore[misc]
    """Each row ends at a length of its own."""

    def __init__(self, prompt: int, answers: list[int]) -> None:
        self._ends = torch.tensor([prompt + length for length in answers])

    def __call__(self, input_ids: Tensor, scores: Tensor, **rest: Any) -> Tensor:
        return self._ends <= input_ids.shape[1]


def theirs_and_ours() -> tuple[LlamaForCausalLM, GPT]:
    """The same random weights on both sides, large enough that words depend on what came before: with the usual ones a model says a
    single word over and over, and any mistake would."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, initializer_range=0.1, attn_implementation="sdpa")
    theirs = LlamaForCausalLM(config).eval()
    theirs.generation_config.update(eos_token_id=None, bos_token_id=None, pad_token_id=PADDING)
    made = GPTConfig(text=decoder_in(config.to_dict(), "benchmark"))
    ours = build_with(made, table(made), theirs.state_dict(), "benchmark")
    assert isinstance(ours, GPT)
    return theirs, ours


def requests(count: int) -> tuple[list[list[int]], list[int]]:
    """Prompts, and how long each answer is: both evenly from the fewest to the most, each in an order of its own."""
    generator = torch.Generator().manual_seed(1)

    def spread(least: int, most: int) -> list[int]:
        return torch.linspace(least, most, count).round().long()[torch.randperm(count, generator=generator)].tolist()

    prompts = [torch.randint(1, SHAPE["vocab_size"], (length,), generator=generator).tolist() for length in spread(*PROMPTS)]
    return prompts, spread(*ANSWERS)


@torch.inference_mode()
def by_transformers(model: LlamaForCausalLM, prompts: list[list[int]], answers: list[int]) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[PADDING] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ending = StoppingCriteriaList([Lengths(width, answers)])
    said = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max(answers), do_sample=False, stopping_criteria=ending)
    return [row[:length] for row, length in zip(said[:, width:].tolist(), answers, strict=True)]


def by_tonggan(model: GPT, prompts: list[list[int]], answers: list[int]) -> list[list[int]]:
    batch = Batch(tuple(str(number) for number in range(len(prompts))), tokens=pad(prompts, PADDING))
    return [list(said.ids) for (said,) in generate(model, batch, [Sampling(max_tokens=length) for length in answers], ends=())]


def measured(count: int, repeats: int) -> list[dict[str, object]]:
    """Seconds for all requests, of both sides."""
    theirs, ours = theirs_and_ours()
    prompts, answers = requests(count)
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "transformers": lambda: by_transformers(theirs, prompts, answers),
        "tonggan": lambda: by_tonggan(ours, prompts, answers),
    }
    theirs.double(), ours.double()
    said = sides["tonggan"]()
    assert said == sides["transformers"](), "the two do not say the same"
    kinds = len({word for answer in said for word in answer})
    assert kinds > sum(answers) // 2, "answers that repeat themselves compare nothing"
    theirs.float(), ours.float()
    # In single precision another order of summing may turn a close choice, and with it all that follows: told, not hidden.
    alike = sum(a == b for a, b in zip(sides["tonggan"](), sides["transformers"](), strict=True))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    fastest = {name: min(some) for name, some in times.items()}
    print(f"the same {count} of {count} answers in float64, {alike} in float32; {kinds} different words in them")
    for name, seconds in fastest.items():
        print(f"{name:13} {seconds:6.2f} s, {sum(answers) / seconds:7.0f} words a second", flush=True)
    print(f"    tonggan is faster by {fastest['transformers'] / fastest['tonggan']:.2f} times")
    return [{"side": name, "requests": count, "alike": alike, "words": sum(answers), "seconds": some} for name, some in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    prompts, answers = requests(options.requests)
    print(f"{SHAPE}\n{options.requests} requests: prompts of {PROMPTS[0]} to {PROMPTS[1]} tokens, {sum(map(len, prompts))} in all; "
          f"answers of {ANSWERS[0]} to {ANSWERS[1]}, {sum(answers)} in all\n{torch.get_num_threads()} threads, float32")  # fmt: skip
    print(json.dumps(measured(options.requests, options.repeats)))


if __name__ == "__main__":
    main()
