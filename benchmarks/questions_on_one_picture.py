"""Eight questions on one picture, beside the same weights in transformers' `LlavaForConditionalGeneration.generate`, in one run.

    python benchmarks/questions_on_one_picture.py

A CLIP tower under a Llama decoder: small ones, but a picture is as many tokens as in LLaVA-1.5 (576), which is most of a prompt. Both are
greedy and have all questions at once. transformers is given them as one batch, padded on the left, and the picture with each of them, as
it asks for; ours reads the picture and all that stands before it once (`Shared`), and the questions behind it together. Nothing is kept
from run to run. In double precision both must say the same before anything is timed. Runs are interleaved; the median of several counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from tonggan.generate import Sampling, Shared, generate
from tonggan.hub.convert.llava import config_in, table
from tonggan.hub.read import build_with
from tonggan.models import Chat
from tonggan.models.towers import CLIP_MEAN, CLIP_STD
from tonggan.tensors import Batch, Pieces, pad

TEXT = {
    "model_type": "llama", "vocab_size": 8003, "hidden_size": 264, "intermediate_size": 716, "num_hidden_layers": 6,
    "num_attention_heads": 11, "num_key_value_heads": 11, "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 132, "intermediate_size": 524, "num_hidden_layers": 5, "num_attention_heads": 11,
    "image_size": 336, "patch_size": 14, "projection_dim": 66,
}  # fmt: skip
IMAGE, PADDING = 8002, 0
PICTURE = (VISION["image_size"] // VISION["patch_size"]) ** 2
"""Tokens that a picture takes, all of its patches."""
BEFORE, QUESTIONS = 7, (6, 20)
"""Tokens before the picture, and fewest and most of a question behind it."""


def theirs_and_ours() -> tuple[LlavaForConditionalGeneration, Chat]:
    """The same random weights on both sides, large enough that what is said depends on the picture and the question."""
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config={**TEXT, "initializer_range": 0.1}, vision_config={**VISION, "initializer_range": 0.1}, image_token_index=IMAGE,
        vision_feature_layer=-2, vision_feature_select_strategy="default", initializer_range=0.1,
    )  # fmt: skip
    theirs = LlavaForConditionalGeneration(config).eval()
    theirs.generation_config.update(eos_token_id=None, bos_token_id=None, pad_token_id=PADDING)
    made = config_in(config.to_dict(), Path("benchmark"), CLIP_MEAN, CLIP_STD, LlavaConfig().to_dict())
    ours = build_with(made, table(made), theirs.state_dict(), "benchmark")
    assert isinstance(ours, Chat)
    return theirs, ours


def questions(count: int) -> list[list[int]]:
    """The same words and picture first, then a question of its own."""
    generator = torch.Generator().manual_seed(1)

    def words(length: int) -> list[int]:
        return torch.randint(1, IMAGE, (length,), generator=generator).tolist()

    first = [*words(BEFORE), *[IMAGE] * PICTURE]
    return [[*first, *words(int(length))] for length in torch.linspace(*QUESTIONS, count).round()]


@torch.inference_mode()
def by_transformers(model: LlavaForConditionalGeneration, prompts: list[list[int]], pixels: Tensor, new: int) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[PADDING] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    shown = pixels.to(model.dtype).expand(len(prompts), -1, -1, -1)
    said = model.generate(input_ids=ids, attention_mask=mask, pixel_values=shown, max_new_tokens=new, do_sample=False)
    return [row[width:] for row in said.tolist()]


def by_tonggan(model: Chat, prompts: list[list[int]], pixels: Tensor, new: int) -> list[list[int]]:
    rows = len(prompts)
    shown = Pieces(pixels.to(model.output[0].dtype).expand(rows, -1, -1, -1), (1,) * rows)
    batch = Batch(tuple(map(str, range(rows))), tokens=pad(prompts, PADDING), pictures=shown)
    shared = [Shared("picture", BEFORE + PICTURE)] * rows
    return [list(said.ids) for (said,) in generate(model, batch, [Sampling(max_tokens=new)] * rows, ends=(), shared=shared)]


def measured(count: int, new: int, repeats: int) -> list[dict[str, object]]:
    """Seconds for all questions, of both sides."""
    theirs, ours = theirs_and_ours()
    prompts = questions(count)
    side = VISION["image_size"]
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "transformers": lambda: by_transformers(theirs, prompts, pixels, new),
        "tonggan": lambda: by_tonggan(ours, prompts, pixels, new),
    }
    theirs.double(), ours.double()
    said = sides["tonggan"]()
    assert said == sides["transformers"](), "the two do not say the same"
    assert said != by_tonggan(ours, prompts, -pixels, new), "what is said does not depend on the picture"
    assert len(set(map(tuple, said))) == count, "what is said does not depend on the question"
    theirs.float(), ours.float()
    alike = sum(a == b for a, b in zip(sides["tonggan"](), sides["transformers"](), strict=True))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(some) for name, some in times.items()}
    print(f"the same {count} of {count} answers in float64, {alike} in float32")
    for name, seconds in middle.items():
        print(f"{name:13} {seconds:6.2f} s", flush=True)
    print(f"    tonggan is faster by {middle['transformers'] / middle['tonggan']:.2f} times")
    return [{"side": name, "questions": count, "new": new, "alike": alike, "seconds": some} for name, some in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--new", type=int, default=12, help="words of each answer")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    prompts = questions(options.questions)
    print(f"text {TEXT}\npicture {VISION}\n{options.questions} prompts of {len(prompts[0])} to {len(prompts[-1])} tokens, {PICTURE} are "
          f"the picture; answers of {options.new}\n{torch.get_num_threads()} threads, float32")  # fmt: skip
    print(json.dumps(measured(options.questions, options.new, options.repeats)))


if __name__ == "__main__":
    main()
