"""Captions by beam search, beside the same weights in open_clip's CoCa, in one run.

    python benchmarks/caption_beams.py          # in the environment of constraints/open_clip.txt

Both have all pictures at once, and say captions of one length, which no end token cuts short. open_clip encodes each picture once for
each of its beams, and then at every word looks at it anew from every word so far; ours encodes a picture once, keeps what its blocks
look at, and keeps keys and values of the words. open_clip's options are those that favour it: its beams are in one group (by default
three, each with a choice of its own), and no words are forbidden or punished. Where its search is not what it is written after, it is
set right, or it would say other things: it adds up logits, not log-probabilities, and counts the start token in a caption's length.
In double precision both must say the same before anything is timed. Runs are interleaved; the median of several counts, by the clock and
by the processor's time, which tells more where others work on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peers import open_clip_coca
from torch import Tensor

from tonggan.data.images import ImageProcessing
from tonggan.generate import Sampling, generate
from tonggan.hub.convert.coca import config_in, table
from tonggan.hub.read import build_with
from tonggan.models import Coca
from tonggan.tensors import Batch, pad

SHAPE: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {
        "image_size": 224, "layers": 12, "width": 768, "patch_size": 32, "attentional_pool": True, "attn_pooler_heads": 8,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "embed_cls": True, "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "attn_pooler_heads": 8},
}  # fmt: skip
"""As published: `coca_ViT-B-32`."""
START, PADDING = 49406, 0
NEVER = 10**9
"""An end token that no vocabulary has."""


def set_right(library: Any) -> None:
    """Make open_clip count a caption's length as transformers' own `generate` does: without the start token."""

    class Scorer(library.BeamSearchScorer):  # type: ignore[misc, name-defined]
        def process(self, *args: Any, **settings: Any) -> Any:
            return super().process(*args, **settings, decoder_prompt_len=1)

        def finalize(self, *args: Any, **settings: Any) -> Any:
            return super().finalize(*args, **settings, decoder_prompt_len=1)

    library.BeamSearchScorer = Scorer


@torch.inference_mode()
def by_open_clip(library: Any, model: Any, pictures: Tensor, words: int, beams: int, start: int, end: int) -> list[list[int]]:
    """Captions of at most so many words, without start and end; with one beam greedy."""
    from transformers import LogitNormalization, LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList

    if beams == 1:  # its last word is always the end
        found = model.generate(
            pictures, generation_type="top_k", top_k=1, seq_len=words + 2, min_seq_len=0, sot_token_id=start, eos_token_id=end,
            pad_token_id=PADDING,
        )  # fmt: skip
    else:
        found = model._generate_beamsearch(
            image_inputs=pictures,
            pad_token_id=PADDING,
            eos_token_id=torch.tensor([end]),
            sot_token_id=torch.tensor([start]),
            num_beams=beams,
            num_beam_groups=1,
            stopping_criteria=StoppingCriteriaList([MaxLengthCriteria(max_length=words + 1)]),
            # It keeps scores in single precision, whatever the model computes in.
            logit_processor=LogitsProcessorList([LogitNormalization(), lambda ids, scores: scores.float()]),
        )
    rows = [row[1 : words + 1] for row in found.tolist()]
    return [row[: row.index(end)] if end in row else row for row in rows]


def by_tonggan(model: Coca, pictures: Tensor, words: int, beams: int, start: int, ends: tuple[int, ...] = ()) -> list[list[int]]:
    batch = Batch(tuple(str(number) for number in range(len(pictures))), pixels=pictures, tokens=pad([[start]] * len(pictures)))
    return [list(said.ids) for (said,) in generate(model, batch, [Sampling(max_tokens=words, beams=beams)] * len(pictures), ends=ends)]


def theirs_and_ours(library: Any, shape: dict[str, Any]) -> tuple[Any, Coca]:
    """The same random weights on both sides, large enough that words depend on the picture and on each other."""
    torch.manual_seed(0)
    theirs = library.CoCa(**shape).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            elif "ln_" not in name and parameter.dim():
                parameter.normal_(std=0.1)
    made = config_in(shape, "benchmark", ImageProcessing())
    ours = build_with(made, table(made), theirs.state_dict(), "benchmark")
    assert isinstance(ours, Coca)
    return theirs, ours


def measured(shape: dict[str, Any], count: int, words: int, beams: int, repeats: int) -> list[dict[str, object]]:
    """Seconds for all captions, of both sides."""
    library = open_clip_coca()
    set_right(library)
    theirs, ours = theirs_and_ours(library, shape)
    side = shape["vision_cfg"]["image_size"]
    pictures = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    sides: dict[str, Callable[[Tensor], list[list[int]]]] = {
        "open_clip": lambda some: by_open_clip(library, theirs, some, words, beams, START, NEVER),
        "tonggan": lambda some: by_tonggan(ours, some, words, beams, START),
    }
    theirs.double(), ours.double()
    said = sides["tonggan"](pictures.double())
    assert said == sides["open_clip"](pictures.double()), "the two do not say the same"
    kinds = len({word for caption in said for word in caption})
    assert kinds > count, "captions that repeat themselves compare nothing"
    theirs.float(), ours.float()
    # In single precision another order of summing may turn a close choice, and with it all that follows: told, not hidden.
    alike = sum(a == b for a, b in zip(sides["tonggan"](pictures), sides["open_clip"](pictures), strict=True))
    print(f"the same {count} of {count} captions in float64, {alike} in float32; {kinds} different words in them")
    clocks = {"seconds": time.perf_counter, "of the processor": time.process_time}
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in clocks} for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            begun = {kind: clock() for kind, clock in clocks.items()}
            run(pictures)
            for kind, clock in clocks.items():
                times[name][kind].append(clock() - begun[kind])
    for kind in clocks:
        theirs_took, ours_took = (statistics.median(times[name][kind]) for name in sides)
        print(
            f"{kind:16} open_clip {theirs_took:7.2f}, tonggan {ours_took:6.2f}: faster by {theirs_took / ours_took:.2f} times", flush=True
        )
    about = {"pictures": count, "words": words, "beams": beams, "alike": alike}
    return [{"side": name, **about, **some} for name, some in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--beams", type=int, default=6)
    parser.add_argument("--layers", type=int, default=12, help="of each of the three stacks; published: 12")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    shape = {name: {**part, "layers": options.layers} if isinstance(part, dict) else part for name, part in SHAPE.items()}
    print(f"{shape}\n{options.pictures} pictures at once, captions of {options.words} words, {options.beams} beams, no picture's features "
          f"kept between runs\n{torch.get_num_threads()} threads, float32")  # fmt: skip
    print(json.dumps(measured(shape, options.pictures, options.words, options.beams, options.repeats)))


if __name__ == "__main__":
    main()
