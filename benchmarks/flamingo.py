"""Flamingo saying words after 16 pictures, beside the same weights in transformers' Idefics: prompt and words timed apart, in one run.

    python benchmarks/flamingo.py

Both are greedy, from one prompt in which words follow each picture. Ours reads pictures once and keeps the keys and values that each
gated block makes of them; Idefics keeps the tower's states, and resamples and projects them again for each word, as its `generate` does.
Runs are interleaved; the fastest of several counts. What both say is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from tonggan.hub.convert.idefics import config_in, table
from tonggan.hub.read import build_with
from tonggan.models import Flamingo
from tonggan.models.towers import CLIP_MEAN, CLIP_STD
from tonggan.tensors import Batch, Pieces, Tokens

SHAPE = {
    "vocab_size": 8192, "additional_vocab_size": 2, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
    "num_attention_heads": 8, "max_position_embeddings": 1024, "cross_layer_interval": 4, "qk_layer_norms": True,
}  # fmt: skip
VISION = {
    "embed_dim": 384, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 6, "image_size": 112, "patch_size": 14,
}  # fmt: skip
RESAMPLER = {
    "resampler_n_latents": 64,
    "resampler_depth": 3,
    "resampler_n_heads": 6,
    "resampler_head_dim": 64,
    "qk_layer_norms_perceiver": True,
}
IMAGE = SHAPE["vocab_size"] + 1
BETWEEN = 8
"""Words after each picture."""


def theirs_and_ours(resampler: bool) -> tuple[IdeficsForVisionText2Text, Flamingo]:
    """The same random weights on both sides, with open gates."""
    torch.manual_seed(0)
    config = IdeficsConfig(**SHAPE, use_resampler=resampler, vision_config=VISION, perceiver_config=RESAMPLER)
    theirs = IdeficsForVisionText2Text(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "alpha" in name:
                parameter.fill_(0.5)
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0)
    made = config_in(config.to_dict(), "benchmark", CLIP_MEAN, CLIP_STD, IMAGE)
    ours = build_with(made, table(made), theirs.state_dict(), "benchmark")
    assert isinstance(ours, Flamingo)
    return theirs, ours


def prompt(pictures: int) -> tuple[Tensor, Tensor]:
    """Ids [1, L] and pixels [1, M, 3, H, W]."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(3, SHAPE["vocab_size"], (pictures, BETWEEN), generator=generator)
    ids = torch.cat([torch.tensor([1]), torch.cat([torch.full((pictures, 1), IMAGE), words], dim=1).flatten()])
    side = VISION["image_size"]
    return ids[None], torch.randn(1, pictures, 3, side, side, generator=generator)


@torch.inference_mode()
def by_transformers(model: IdeficsForVisionText2Text, ids: Tensor, pixels: Tensor, new: int) -> list[int]:
    number = (ids == IMAGE).cumsum(dim=1)
    sight = (number[:, :, None] == torch.arange(1, pixels.shape[1] + 1)).long()
    said = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_attention_mask=sight,
        max_new_tokens=new, min_new_tokens=new, do_sample=False,
    )  # fmt: skip
    return [int(word) for word in said[0, ids.shape[1] :]]


@torch.inference_mode()
def by_tonggan(model: Flamingo, ids: Tensor, pixels: Tensor, new: int) -> list[int]:
    seen = model.read(Batch(("",), pictures=Pieces(pixels[0], (pixels.shape[1],))))
    cache, (weight, _) = model.cache(ids.shape[1] + new), model.output
    said: list[int] = []
    while len(said) < new:
        states = model.say(Tokens(ids, torch.tensor([ids.shape[1]])), seen, cache=cache)
        cache.advance([ids.shape[1]])
        said.append(int((states[0, -1] @ weight.T).argmax()))
        ids = torch.tensor([[said[-1]]])
    return said


def measured(pictures: int, new: int, repeats: int, resampler: bool) -> list[dict[str, object]]:
    """Seconds to the first word, and for each word after it, of both sides."""
    theirs, ours = theirs_and_ours(resampler)
    ids, pixels = prompt(pictures)
    sides: dict[str, Callable[[int], list[int]]] = {
        "transformers": lambda n: by_transformers(theirs, ids, pixels, n),
        "tonggan": lambda n: by_tonggan(ours, ids, pixels, n),
    }
    said = {name: side(new) for name, side in sides.items()}
    assert said["tonggan"] == said["transformers"], "the two do not say the same"
    times: dict[tuple[str, int], list[float]] = {(name, n): [] for name in sides for n in (1, new)}
    for _ in range(repeats):
        for name, n in times:
            start = time.perf_counter()
            sides[name](n)
            times[name, n].append(time.perf_counter() - start)
    rows: list[dict[str, object]] = []
    for name in sides:
        first, whole = min(times[name, 1]), min(times[name, new])
        each = (whole - first) / (new - 1)
        rows.append({"side": name, "pictures": pictures, "resampler": resampler, "prompt": ids.shape[1], "new": new,
                     "first_seconds": first, "each_seconds": each, "whole_seconds": whole})  # fmt: skip
        reads = "64 latents each" if resampler else "65 states each"
        print(f"{pictures:3} pictures of {reads}, {ids.shape[1]:4} + {new} words  {name:13} first word {first * 1e3:7.1f} ms, "
              f"each other {each * 1e3:7.2f} ms, all {whole:6.2f} s", flush=True)  # fmt: skip
    print(f"    tonggan is faster by: first word {rows[0]['first_seconds'] / rows[1]['first_seconds']:.2f}, "  # type: ignore[operator]
          f"each other {rows[0]['each_seconds'] / rows[1]['each_seconds']:.2f}, "  # type: ignore[operator]
          f"all {rows[0]['whole_seconds'] / rows[1]['whole_seconds']:.2f} times")  # type: ignore[operator]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--new", type=int, default=64, help="words to say")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"text {SHAPE}\npictures {VISION}\nresampler {RESAMPLER}\n{torch.get_num_threads()} threads, float32, batch of one")
    rows = [
        row
        for resampler in (True, False)
        for pictures in options.pictures
        for row in measured(pictures, options.new, options.repeats, resampler)
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
