"""What open_clip makes of pictures and captions, for `test_open_clip.py`.

Made once with `open_clip_torch` 3.3.0, its vocabulary and `torchvision` 0.29.2: `python tests/data/golden/open_clip_inputs.py`. Of the
49,408 entries of the vocabulary only those are kept that any step over these captions could ask for: with them the ids come out the
same, and a test needs no download.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

PIXELS, TOKENS = Path(__file__).with_suffix(".npz"), Path(__file__).with_suffix(".json")
SIDE, CONTEXT = 32, 77
# (width, height): both ways round, long sides that do not divide, an odd and an even number of pixels to cut off, small pictures.
SIZES = [(75, 50), (50, 75), (97, 41), (41, 97), (64, 61), (61, 64), (33, 32), (32, 35), (32, 32), (9, 20), (250, 33), (40, 39)]
WORDS = [
    "a photo of a cat", "It's GREAT, isn't it?", "we're they've I'm I'll he'd", "don't STOP",
    "café naïve façade", "ﬁne ﬂow", "ＡＢＣ１２３", "一只红色的鸟", "日本語テスト", "한국어", "🐱🐶", "👨‍👩‍👧", "🇨🇳",
    "&amp;lt;b&amp;gt;", "&lt;p&gt;", "<b>bold</b>", "3.14159", "1,000,000", "x²+y²", "tab\there", "new\nline",
    "\u00a0nbsp", "\u200bzero", "\u3000全角", "schÃ¶n", "â€œquotedâ€\x9d", "...", "!!!???", "#hash @at",
    "snake_case", "CamelCase", "don’t", "“curly”", "—dash—", "Ω≈ç√", "مرحبا", "привет", "हिन्दी", "\u0301",
    "A\u030a", "İstanbul", "Straße", "\x00\x07\x1b", "\ufeff", "\x1cfile\x1dgroup", "\x85", "'S 'LL", "½ Ⅷ ٣",
    "&nbsp;&#39;&eacute;",
]  # fmt: skip


def picture(width: int, height: int) -> PIL.Image.Image:
    """Noise over a gradient: every pixel that lands one step aside shows."""
    noise = np.random.default_rng([width, height]).integers(0, 160, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    return PIL.Image.fromarray((noise + (95 * (x + y) // (width + height))[..., None]).astype(np.uint8))


def captions() -> list[str]:
    """Every awkward piece alone, and two hundred mixtures."""
    rng = random.Random(0)
    return [
        "",
        " ",
        *WORDS,
        *(rng.choice([" ", "", "  "]).join(rng.choices(WORDS, k=rng.randint(2, 4))) for _ in range(200)),
        "so long " * 80,
    ]


def pixels() -> dict[str, np.ndarray]:
    """uint8 [3, side, side] by picture size, for the two ways of resizing."""
    from open_clip.transform import image_transform

    made = {}
    for mode in ("shortest", "squash"):
        transform = image_transform(SIDE, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode)
        for size in SIZES:
            made[f"{mode} {size[0]}x{size[1]}"] = (transform(picture(*size)) * 255).round().byte().numpy()
    return made


def tokens() -> dict[str, Any]:
    """Ids of each caption, uncut and cut to the context, and the part of the vocabulary that decides them."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    asked: set[tuple[str, str]] = set()

    class Watched(dict[tuple[str, str], int]):
        def get(self, pair: Any, default: Any = None) -> Any:
            asked.add(pair)
            return super().get(pair, default)

    tokenizer.bpe_ranks = Watched(tokenizer.bpe_ranks)
    texts = captions()
    ids = [tokenizer.encode(text) for text in texts]
    merges = sorted((pair for pair in asked if pair in tokenizer.bpe_ranks), key=tokenizer.bpe_ranks.__getitem__)
    letters = [*tokenizer.byte_encoder.values(), *(letter + "</w>" for letter in tokenizer.byte_encoder.values())]
    pieces = dict.fromkeys([*letters, *itertools.chain.from_iterable((a, b, a + b) for a, b in merges)])
    return {
        "vocab": {piece: tokenizer.encoder[piece] for piece in pieces},
        "start": tokenizer.sot_token_id,
        "end": tokenizer.eot_token_id,
        "merges": merges,
        "ids": list(zip(texts, ids, strict=True)),
        "cut": tokenizer([texts[-1]], CONTEXT)[0].tolist(),
    }


if __name__ == "__main__":
    np.savez_compressed(PIXELS, **pixels())
    TOKENS.write_text(json.dumps(tokens(), ensure_ascii=True, separators=(",", ":")) + "\n", "utf-8")
