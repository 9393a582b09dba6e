"""Published sizes: one forward of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tonggan.models import build, presets
from tonggan.models.base import Embedder, Matcher
from tonggan.tensors import Tokens

LARGE = [name for name in presets() if not name.startswith("mini")]


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_published_sizes_run(name: str) -> None:
    """On one picture, and one text of the full length."""
    config: Any = presets()[name]
    torch.manual_seed(0)
    module = build(config).eval()
    size = config.image.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    length = config.text.context
    tokens = Tokens(torch.randint(1, config.text.vocab_size, (1, length)), torch.tensor([length]))
    with torch.inference_mode():
        if isinstance(module, Embedder):
            for vectors in (module.encode("image", pixels), module.encode("text", tokens)):
                # Of finite length, at most 1: what random weights make of a picture may vanish in the 55 blocks of EfficientNet-B7.
                assert vectors.shape == (1, module.dim)
                assert 0 < vectors.norm(dim=1).item() < 1 + 1e-4
        if isinstance(module, Matcher):
            assert bool(module.match(pixels, tokens).isfinite().all())
        assert isinstance(module, Embedder | Matcher)
