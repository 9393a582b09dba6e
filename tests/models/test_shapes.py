"""The shapes in the signatures are true: everything runs under a checker, and a wrong shape fails there.

In a process of its own, because the checker must see the modules when they are first imported.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECKED = """
import jaxtyping
import torch

with jaxtyping.install_import_hook(["tonggan.nn", "tonggan.models"], "beartype.beartype"):
    from tonggan.models import DualEncoderConfig, build, presets
    from tonggan.models.towers import EfficientNetConfig, ResNetConfig, ViTConfig, build_image
    from tonggan.nn.attention import Attention
    from tonggan.nn.resampler import attention_pool, perceiver
    from tonggan.nn.transformer import Trace, Transformer, encoder_block
from tonggan.tensors import Batch, Mask, Pieces, Sounds, pad

pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
tokens = pad([[1, 5, 2], [1, 3, 4, 2]])
for name, config in presets().items():
    if name.startswith("mini") and isinstance(config, DualEncoderConfig) and config.image and config.text:
        model = build(config)
        assert model.encode("image", pixels).shape == model.encode("text", tokens).shape
        model.image.tokens(pixels), model.text.tokens(tokens)
masked = build(presets()["mini-bert"])
assert masked.features("text", tokens).shape == (2, 128)
assert masked.words(tokens).shape == (2, 4, 4096)
assert masked.words(tokens, where=tokens.ids == 2).shape == (2, 4096)
sounds = Sounds(torch.randn(2, 80, 50), torch.tensor([50, 31]))
clips = torch.randint(0, 256, (2, 8, 3, 64, 64), dtype=torch.uint8)
for name, kind, inputs in (("audio", "audio", sounds), ("video", "video", clips), ("frames", "video", clips)):
    model = build(presets()[f"mini-{name}-text"])
    assert model.encode(kind, inputs).shape == model.encode("text", tokens).shape
    model.tower(kind).tokens(inputs)
waves = Sounds(torch.randn(2, 1600), torch.tensor([1600, 900]))
small = pixels[..., :48, :48]
for kind, inputs, hidden in (("image", small, torch.rand(2, 36) < 0.5), ("audio", waves, torch.rand(2, 4) < 0.5), ("text", tokens, None)):
    student, trace = build(presets()[f"mini-data2vec-{kind}"]), Trace()
    assert student.features(kind, inputs).shape == (2, student.width)
    assert student.fill(kind, inputs, hidden, trace=trace).states.shape == trace.blocks[0].shape == trace.feed_forwards[-1].shape
for name in ("vlmo", "vilt", "albef", "late"):
    both = build(presets()[f"mini-{name}"])
    assert both.match(pixels, tokens).shape == (2, 2)
    if name != "late":
        assert both.words(tokens, pixels).shape == (2, 4, 4096)
        assert both.words(tokens, pixels, where=tokens.ids == 2).shape == (2, 4096)
assert build(presets()["mini-vlmo"]).encode("image", pixels).shape == (2, 128)
build(presets()["mini-vilt"]).pooled(tokens, pixels[..., :40], torch.ones(2, 64, 40, dtype=torch.bool))
flamingo, said = build(presets()["mini-flamingo"]), pad([[1, 4096, 5], [1, 4096, 4096, 6]])
seen, cache = flamingo.read(Batch(("a", "b"), pictures=Pieces(pixels[[0, 1, 1]], (1, 2)))), flamingo.cache(9)
assert flamingo.say(said, seen).shape == flamingo.say(said, seen, cache=cache).shape == (2, 4, 128)
assert flamingo.output[0].shape == (4097, 128)
chat, said = build(presets()["mini-chat-audio"]), pad([[1, *[4096] * 16, 4097, 5], [1, *[4096] * 32, 6]])
heard = Sounds(torch.randn(1, 64, 9), torch.tensor([9]), (1, 0))
seen, cache = chat.read(Batch(("a", "b"), tokens=said, pictures=Pieces(pixels[[0, 1, 1]], (1, 2)), sounds=heard)), chat.cache(40)
assert chat.say(said, seen).shape == chat.say(said, seen, cache=cache).shape == (2, 34, 128)
sizes = dict(image_size=64, patch_size=16, width=16, layers=1, heads=2, mlp_width=16)
build_image(ViTConfig(**sizes, pooling="attention", positions="sinusoids", patch_keep=0.5))(pixels)
build_image(ResNetConfig(image_size=64, layers=(1, 1), base=8, heads=4, out_width=12))(pixels)
build_image(EfficientNetConfig(variant="b0", image_size=64))(pixels)
attention = Attention(12, 3, context_width=8, bias=lambda q, k: torch.zeros(3, len(q), len(k)))
attention(torch.randn(2, 4, 12), context=torch.randn(2, 6, 8), mask=Mask(lengths=torch.tensor([6, 2])))
Transformer([encoder_block(12, 3, 20)])(torch.randn(2, 4, 12), positions=torch.zeros(2, 4, dtype=torch.long))
perceiver(12, 3, queries=2)(torch.randn(2, 4, 12))
attention_pool(12, 3, 8)(torch.randn(2, 4, 12))

wrong = {
    "four channels": lambda: build(presets()["mini"]).encode("image", torch.zeros(2, 4, 64, 64, dtype=torch.uint8)),
    "integers that are not bytes": lambda: build(presets()["mini"]).encode("image", torch.zeros(2, 3, 64, 64, dtype=torch.int32)),
    "no batch": lambda: Attention(12, 3)(torch.randn(4, 12)),
    "another batch": lambda: Attention(12, 3)(torch.randn(2, 4, 12), context=torch.randn(3, 4, 12)),
    "positions of other tokens": lambda: encoder_block(12, 3, 20)(torch.randn(2, 4, 12), positions=torch.zeros(2, 5, dtype=torch.long)),
    "fractional positions": lambda: encoder_block(12, 3, 20)(torch.randn(2, 4, 12), positions=torch.zeros(2, 4)),
}
for name, call in wrong.items():
    try:
        call()
    except jaxtyping.TypeCheckError:
        print(name)
"""


@pytest.mark.slow
def test_shapes_are_checked() -> None:
    run = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines() == [
        "four channels",
        "integers that are not bytes",
        "no batch",
        "another batch",
        "positions of other tokens",
        "fractional positions",
    ]
