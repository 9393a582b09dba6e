"""Towers against other implementations with copied weights: transformers' BERT and EfficientNet, torch's attention, formulas.

CLIP's two Transformers are held against `CLIPModel`, gradients too, in tests/hub.
"""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EfficientNetModel
from transformers import EfficientNetConfig as TheirEfficientNetConfig
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer

from hub.references import close
from tonggan.models import presets
from tonggan.models.dual_encoder import DualEncoder
from tonggan.models.towers import BertTextConfig, EfficientNetConfig, ResNetConfig, build_image, build_text
from tonggan.nn.conv import AttentionPool2d, BasicBlock, Bottleneck
from tonggan.tensors import pad


def renamed(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Every name rewritten by the rules in turn."""
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def unsettle(net: nn.Module) -> None:
    """Norms and running statistics away from 0 and 1, so that a swapped or forgotten one shows; convolutions large enough to matter.

    As transformers starts EfficientNet, two pictures' outputs differ by 2e-8 of the largest value: anything would agree with it.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for name, value in net.state_dict().items():
        if value.dim() == 1 and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "weight" in name or "var" in name else torch.randn_like(value) * 0.2)


BERT = [
    (r"^embeddings\.word_embeddings\.", "embedding."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "types."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^encoder\.layer\.", "transformer.blocks."),
    (r"attention\.self\.(.)\w+\.", r"attention.\1."),
    (r"attention\.output\.dense\.", "attention.out."),
    (r"attention\.output\.LayerNorm\.", "norm1."),
    (r"intermediate\.dense\.", "feed_forward.up."),
    (r"(\d)\.output\.dense\.", r"\1.feed_forward.down."),
    (r"(\d)\.output\.LayerNorm\.", r"\1.norm2."),
]


def test_bert_and_its_gradients_are_those_of_transformers() -> None:
    """Three heads of seven, five types of which the first is used, rows of unequal length."""
    sizes = {"vocab_size": 37, "max_position_embeddings": 19, "type_vocab_size": 5, "layer_norm_eps": 1e-3}
    theirs = BertModel(
        BertConfig(
            hidden_size=21, num_hidden_layers=3, num_attention_heads=3, intermediate_size=33,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    config = BertTextConfig(vocab_size=37, context=19, width=21, layers=3, heads=3, mlp_width=33, type_vocab=5, eps=1e-3)
    ours = build_text(config)
    names = renamed({name: torch.tensor(i) for i, name in enumerate(dict(theirs.named_parameters()))}, BERT)
    ours.load_state_dict(renamed(dict(theirs.named_parameters()), BERT))

    tokens = pad([[1, 5, 9, 30, 2], [1, 2], [1, *range(3, 18), 2]])
    own = torch.arange(tokens.ids.shape[1]) < tokens.lengths[:, None]
    expected = theirs(input_ids=tokens.ids, attention_mask=own.long()).last_hidden_state
    states = ours.tokens(tokens).states
    close(states[own], expected[own])
    mean = (expected * own[..., None]).sum(1) / tokens.lengths[:, None]
    close(ours(tokens), mean)
    first = build_text(config.model_copy(update={"pooling": "first"}))
    first.load_state_dict(ours.state_dict())
    close(first(tokens), expected[:, 0])

    goal = torch.randn_like(mean)
    (mean * goal).sum().backward()
    (ours(tokens) * goal).sum().backward()
    theirs_grad = [p.grad for p in theirs.parameters()]
    for name, parameter in ours.named_parameters():
        expected_grad = theirs_grad[int(names[name])]
        assert parameter.grad is not None and expected_grad is not None, name
        if name.endswith("attention.k.bias"):
            # Softmax does not see what shifts all keys alike: the true gradient is 0, what is there is rounding.
            assert float(parameter.grad.abs().max()) < 1e-4 * max(float(g.abs().max()) for g in theirs_grad if g is not None)
        else:
            close(parameter.grad, expected_grad, 1e-4)


EFFICIENTNET = [
    (r"^embeddings\.convolution\.", "net.stem."),
    (r"^embeddings\.batchnorm\.", "net.norm0."),
    (r"^encoder\.top_conv\.", "net.head."),
    (r"^encoder\.top_bn\.", "net.norm1."),
    (r"^encoder\.blocks\.", "net.blocks."),
    (r"expansion\.expand_conv\.", "expand."),
    (r"expansion\.expand_bn\.", "norm0."),
    (r"depthwise_conv\.depthwise_conv\.", "depthwise."),
    (r"depthwise_conv\.depthwise_norm\.", "norm1."),
    (r"squeeze_excite\.", "squeeze."),
    (r"projection\.project_conv\.", "project."),
    (r"projection\.project_bn\.", "norm2."),
]


def test_efficientnet_b0_is_that_of_transformers() -> None:
    """At a size whose halves are even down to the last: elsewhere theirs does not pad as TensorFlow does."""
    theirs = EfficientNetModel(TheirEfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=64)).eval()
    unsettle(theirs)
    ours = build_image(EfficientNetConfig(variant="b0", image_size=64)).eval()
    ours.load_state_dict(renamed(theirs.state_dict(), EFFICIENTNET))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(pixels)
        first, second = expected.pooler_output
        assert float((first - second).abs().max()) > 0.01 * float(first.abs().max()), "the reference must see its input"
        close(ours(pixels), expected.pooler_output)
        close(ours.tokens(pixels).states, expected.last_hidden_state.flatten(2).transpose(1, 2))


def test_basic_block_is_that_of_transformers() -> None:
    for into, out, stride in ((6, 6, 1), (6, 10, 2)):
        theirs = ResNetBasicLayer(into, out, stride=stride).eval()
        unsettle(theirs)
        rules = [
            (r"layer\.0\.convolution", "conv1.0"), (r"layer\.0\.normalization", "conv1.1"),
            (r"layer\.1\.convolution", "conv2.0"), (r"layer\.1\.normalization", "conv2.1"),
            (r"shortcut\.convolution", "shortcut.0"), (r"shortcut\.normalization", "shortcut.1"),
        ]  # fmt: skip
        ours = BasicBlock(into, out, stride).eval()
        ours.load_state_dict(renamed(theirs.state_dict(), rules))
        x = torch.randn(2, into, 8, 8)
        close(ours(x), theirs(x))


def test_bottleneck_shrinks_by_averaging_where_others_stride() -> None:
    """CLIP's own, written out: 1x1, 3x3 with stride 1, average, 1x1; the shortcut averages before its 1x1."""
    block = Bottleneck(6, 4, stride=2).eval()
    unsettle(block)
    x = torch.randn(2, 6, 8, 8)

    def conv(part: nn.Module, x: Tensor, padding: int = 0) -> Tensor:
        weight, norm = part[0].weight, part[1]  # type: ignore[index]
        h = F.conv2d(x, weight, padding=padding)
        return F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)

    h = F.relu(conv(block.conv2, F.relu(conv(block.conv1, x)), padding=1))
    expected = F.relu(conv(block.conv3, F.avg_pool2d(h, 2)) + conv(block.shortcut[1], F.avg_pool2d(x, 2)))  # type: ignore[index]
    close(block(x), expected)


def test_attention_pooling_is_the_call_that_clip_makes() -> None:
    pool = AttentionPool2d(cells=6, width=12, heads=3, out_width=5).double()
    x = torch.randn(2, 12, 2, 3, dtype=torch.float64)
    cells = x.flatten(2).permute(2, 0, 1)  # [cells, B, width]
    cells = torch.cat([cells.mean(0, keepdim=True), cells]) + pool.positions.weight[:, None]
    part = pool.attention
    expected, _ = F.multi_head_attention_forward(
        cells[:1], cells, cells, 12, 3, None, torch.cat([part.q.bias, part.k.bias, part.v.bias]), None, None, False, 0.0,
        part.out.weight, part.out.bias, use_separate_proj_weight=True,
        q_proj_weight=part.q.weight, k_proj_weight=part.k.weight, v_proj_weight=part.v.weight,
    )  # fmt: skip
    assert torch.allclose(pool(x), expected[0], atol=1e-12)


def clip_resnet(layers: tuple[int, ...], width: int, out: int, image_size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a picture tower as CLIP and open_clip store it (`ModifiedResNet`), by its rules."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_norm(conv: str, norm: str, into: int, out: int, kernel: int) -> None:
        shapes[f"{conv}.weight"] = (out, into, kernel, kernel)
        shapes.update({f"{norm}.{name}": (out,) for name in ("weight", "bias", "running_mean", "running_var")})

    for i, (into, to) in enumerate([(3, width // 2), (width // 2, width // 2), (width // 2, width)], start=1):
        conv_norm(f"conv{i}", f"bn{i}", into, to, 3)
    into = width
    for i, count in enumerate(layers):
        inner = width * 2**i
        for j in range(count):
            at = f"layer{i + 1}.{j}."
            conv_norm(at + "conv1", at + "bn1", into, inner, 1)
            conv_norm(at + "conv2", at + "bn2", inner, inner, 3)
            conv_norm(at + "conv3", at + "bn3", inner, 4 * inner, 1)
            if j == 0:
                conv_norm(at + "downsample.0", at + "downsample.1", into, 4 * inner, 1)
            into = 4 * inner
    shapes["attnpool.positional_embedding"] = ((image_size // 32) ** 2 + 1, into)
    for name in ("q", "k", "v", "c"):
        to = out if name == "c" else into
        shapes[f"attnpool.{name}_proj.weight"], shapes[f"attnpool.{name}_proj.bias"] = (to, into), (to,)
    return shapes


CLIP_RESNET = [
    (r"^conv(\d)\.", lambda m: f"net.stem.{2 * int(m[1]) - 2}.0."),
    (r"^bn(\d)\.", lambda m: f"net.stem.{2 * int(m[1]) - 2}.1."),
    (r"^layer(\d)\.", lambda m: f"net.stages.{int(m[1]) - 1}."),
    (r"^(net\.stages\.\d\.\d+)\.conv(\d)\.", r"\1.conv\2.0."),
    (r"^(net\.stages\.\d\.\d+)\.bn(\d)\.", r"\1.conv\2.1."),
    (r"downsample\.", "shortcut.1."),
    (r"attnpool\.positional_embedding", "pool.positions.weight"),
    (r"attnpool\.c_proj", "pool.attention.out"),
    (r"attnpool\.(.)_proj", r"pool.attention.\1"),
]


@pytest.mark.parametrize(
    ("layers", "width", "out", "heads"), [((3, 4, 6, 3), 64, 1024, 32), ((3, 4, 23, 3), 64, 512, 32)], ids=["RN50", "RN101"]
)
def test_every_tensor_of_clips_resnet_has_its_place(layers: tuple[int, ...], width: int, out: int, heads: int) -> None:
    with torch.device("meta"):
        state = build_image(ResNetConfig(layers=layers, base=width, heads=heads, out_width=out)).state_dict()
    expected = renamed(clip_resnet(layers, width, out, 224), CLIP_RESNET)  # type: ignore[arg-type]
    ours = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert ours == expected


def test_rn50_preset_is_clips() -> None:
    with torch.device("meta"):
        model = DualEncoder(presets()["rn50"])
    assert model.image is not None
    ours = {name: tuple(v.shape) for name, v in model.image.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert ours == renamed(clip_resnet((3, 4, 6, 3), 64, 1024, 224), CLIP_RESNET)  # type: ignore[arg-type]
