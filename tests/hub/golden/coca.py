"""What open_clip's CoCa makes of pictures and texts, with gradients and captions, for `test_coca.py`.

Made once with `open_clip_torch` 3.3.0 and `transformers` 4.56.2 (`constraints/open_clip.txt`): `python tests/hub/golden/coca.py`. Weights
are computed from their names, so only the results are kept. Where open_clip's beam search is not what it is written after, it is set
right here: it adds up logits, not log-probabilities, and counts the start token in a caption's length; its beams are in one group.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE, PUBLISHED = Path(__file__).with_suffix(".npz"), Path(__file__).with_suffix(".json")
START, PAD, WORDS, BEAMS = 59, 0, 10, 6
"""Ids, most words of a caption, and beams."""
END = {"odd": 14, "pictures as wide as words": 40}
"""Words that some captions come to and others do not, and that come early in some."""
CONTEXT = 13
CONFIGS: dict[str, dict[str, Any]] = {
    "odd": {
        "embed_dim": 15,
        "vision_cfg": {
            "image_size": [20, 30], "patch_size": 10, "width": 21, "layers": 2, "head_width": 7, "mlp_ratio": 3.0, "attentional_pool": True,
            "attn_pooler_queries": 6, "attn_pooler_heads": 5, "output_tokens": True,
        },
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": 61, "width": 15, "heads": 3, "layers": 1, "embed_cls": True, "output_tokens": True,
        },
        "multimodal_cfg": {"context_length": CONTEXT, "vocab_size": 61, "width": 15, "heads": 5, "layers": 2},
        "custom_text": True,
    },
    "pictures as wide as words": {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 14, "patch_size": 7, "width": 12, "layers": 1, "head_width": 12, "mlp_ratio": 2.0, "attentional_pool": True,
            "attn_pooler_queries": 3, "attn_pooler_heads": 1, "output_tokens": True, "no_ln_pre": True,
        },
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": 61, "width": 12, "heads": 2, "layers": 1, "mlp_ratio": 3.0, "embed_cls": True,
            "output_tokens": True,
        },
        "multimodal_cfg": {"context_length": CONTEXT, "vocab_size": 61, "width": 12, "heads": 1, "layers": 1},
        "custom_text": True,
        "quick_gelu": True,
    },
}  # fmt: skip
TEXTS = [
    [59, 7, 0, 12, 60],  # a word with padding's id
    [59, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 60],  # no padding
    [59, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 60],  # one
    [59, 60],
]


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor's values by its name: the same on every machine, far enough from zero for the two GELUs to differ."""
    values = 0.3 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return np.asarray(values + (1 if ".ln_" in name and name.endswith("weight") else 0), np.float32)


def ids() -> np.ndarray:
    """`TEXTS`, padded to the whole context."""
    return np.array([row + [PAD] * (CONTEXT - len(row)) for row in TEXTS])


def pixels(name: str) -> np.ndarray:
    """Pictures of noise, as many as texts, already normalised."""
    size = CONFIGS[name]["vision_cfg"]["image_size"]
    return fill(f"{name} pixels", (len(TEXTS), 3, *(size if isinstance(size, list) else (size, size)))) / 0.3


def goal(what: str, shape: tuple[int, ...]) -> np.ndarray:
    """By what the outputs are weighed in the sum whose gradients are kept."""
    return fill(f"goal of {what}", shape)


def shapes(state: dict[str, Any]) -> dict[str, Any]:
    """Of all tensors; of those that each layer has, once, with how many."""
    found: dict[str, Any] = {}
    for name, tensor in state.items():
        one = found.setdefault(re.sub(r"\.\d+\.", ".*.", name), [0, list(tensor.shape)])
        assert one[1] == list(tensor.shape), name
        one[0] += 1
    return dict(sorted(found.items()))


def publish(library: Any) -> None:
    """What the published configurations say, and the tensors of models of these sizes."""
    import torch

    published = {}
    for file in sorted((Path(library.__file__).parent / "model_configs").glob("coca_ViT-*.json")):
        config = json.loads(file.read_text())
        with torch.device("meta"):
            state = library.CoCa(**{key: value for key, value in config.items() if key != "custom_text"}).state_dict()
        published[file.stem] = {"model_cfg": config, "shapes": shapes(state)}
    PUBLISHED.write_text(json.dumps(published, separators=(",", ":")) + "\n")


def make() -> None:
    import sys

    import torch

    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    from caption_beams import by_open_clip, set_right
    from peers import open_clip_coca

    library = open_clip_coca()
    set_right(library)
    publish(library)
    golden: dict[str, np.ndarray] = {}
    for name, config in CONFIGS.items():
        model = library.CoCa(**{key: value for key, value in config.items() if key != "custom_text"}).eval()
        model.load_state_dict({key: torch.from_numpy(fill(key, tuple(value.shape))) for key, value in model.state_dict().items()})
        pictures, text = torch.from_numpy(pixels(name)), torch.from_numpy(ids())
        found = model(pictures, text, output_labels=False)
        total = torch.zeros(())
        for what in ("image_features", "text_features", "logits"):
            golden[f"{name} {what}"] = found[what].detach().numpy()
            # Where no word with padding's id is in the text: see the test.
            rows = slice(1, None) if what == "logits" else slice(None)
            own = found[what][rows] if what != "logits" else found[what][rows] * (text[rows] != PAD)[:, :, None]
            total = total + (own * torch.from_numpy(goal(what, tuple(own.shape)))).sum()
        total.backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                golden[f"{name} gradient {key}"] = parameter.grad.numpy()
        model.double()
        with torch.no_grad():
            for beams in (1, BEAMS):
                said = by_open_clip(library, model, pictures.double(), WORDS, beams, START, END[name])
                assert not any(PAD in row for row in said), "a word with padding's id"
                golden[f"{name} captions {beams}"] = np.array([row + [-1] * (WORDS - len(row)) for row in said])
                print(name, beams, said)
    np.savez_compressed(FILE, **golden)


if __name__ == "__main__":
    make()
