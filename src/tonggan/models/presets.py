"""Configurations by name: mini ones that train on two cores, and CLIP's published sizes (Radford et al. 2021, tables 19 and 20)."""

from __future__ import annotations

from tonggan.models.bert import BertConfig
from tonggan.models.dual_encoder import DualEncoderConfig
from tonggan.models.towers import (
    BertTextConfig,
    EfficientNetConfig,
    RecurrentTextConfig,
    ResNetConfig,
    TransformerTextConfig,
    ViTConfig,
)

PLAIN = (0.5, 0.5, 0.5)
"""Mean and deviation that map pixels to -1..1, for towers that are trained from scratch."""


def presets() -> dict[str, DualEncoderConfig | BertConfig]:
    """Every preset by name. The minis read pictures of 64 pixels and a vocabulary of their own."""
    mini_text = TransformerTextConfig(vocab_size=4096, context=64, width=128, layers=2, heads=2, mlp_width=512)
    mini_vit = ViTConfig(image_size=64, patch_size=8, width=192, layers=3, heads=3, mlp_width=768, mean=PLAIN, std=PLAIN)
    mini_rn = ResNetConfig(image_size=64, layers=(1, 1, 1, 1), base=32, block="basic", stem="small", pooling="mean", mean=PLAIN, std=PLAIN)
    mini_bert = BertTextConfig(vocab_size=4096, context=64, width=128, layers=2, heads=4, mlp_width=512)
    return {
        "mini": DualEncoderConfig(image=mini_vit, text=mini_text, dim=128),
        "mini-rn": DualEncoderConfig(image=mini_rn, text=mini_text, dim=128),
        "mini-effnet": DualEncoderConfig(
            image=EfficientNetConfig(variant="lite0", image_size=64, mean=PLAIN, std=PLAIN),
            text=mini_bert,
            dim=128,
        ),
        "mini-recurrent": DualEncoderConfig(image=mini_vit, text=RecurrentTextConfig(vocab_size=4096, width=128), dim=128),
        "mini-bert": BertConfig(text=mini_bert),
        "vit-b-32": _clip(ViTConfig(patch_size=32, activation="quick_gelu"), 512, 512, 8),
        "vit-b-16": _clip(ViTConfig(patch_size=16, activation="quick_gelu"), 512, 512, 8),
        "vit-l-14": _clip(ViTConfig(patch_size=14, width=1024, layers=24, heads=16, mlp_width=4096, activation="quick_gelu"), 768, 768, 12),
        "rn50": _clip_resnet(),
    }


def _text(width: int, heads: int) -> TransformerTextConfig:
    return TransformerTextConfig(width=width, heads=heads, mlp_width=4 * width, activation="quick_gelu")


def _clip(image: ViTConfig, dim: int, text_width: int, text_heads: int) -> DualEncoderConfig:
    return DualEncoderConfig(image=image, text=_text(text_width, text_heads), dim=dim)


def _clip_resnet() -> DualEncoderConfig:
    """CLIP's RN50: its attention pooling projects into the common space by itself."""
    return DualEncoderConfig(image=ResNetConfig(out_width=1024), image_projection="none", text=_text(512, 8), dim=1024)
