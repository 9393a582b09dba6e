"""Tiny random reference models of pictures and text, and of pictures alone, with odd sizes, saved as published ones are."""

from __future__ import annotations

import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AlignConfig,
    AlignModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from awkward import PIECES
from hub.references_bert import wordpiece

B = {"width_coefficient": 0.5, "depth_coefficient": 0.2, "hidden_dim": 640, "image_size": 33, "depthwise_padding": [1, 3]}
"""A seventh of B0: a block a stage, half of the channels, and two of the blocks that shrink the picture pad as for an odd size."""


def shaken(model: PreTrainedModel) -> Any:
    """Weights far enough from zero for the two GELUs to differ, none at a value that does nothing, running statistics not 0 and 1."""
    model.eval()
    generator = torch.Generator().manual_seed(1)

    def noise(like: Tensor, std: float) -> Tensor:
        return std * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                # Large enough for a picture to be seen through seven blocks that each weight their channels down.
                module.weight.copy_(1.3 * nn.init.kaiming_normal_(torch.empty_like(module.weight), generator=generator))
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1 + noise(module.weight, 0.2))
                module.bias.copy_(noise(module.bias, 0.1))
                module.running_mean.copy_(noise(module.running_mean, 0.2))  # type: ignore[union-attr, arg-type]
                module.running_var.copy_(1 + noise(module.running_var, 0.2).abs())  # type: ignore[union-attr, arg-type]
            else:
                for name, parameter in module.named_parameters(recurse=False):
                    if name not in ("temperature", "logit_scale", "logit_bias"):
                        parameter.copy_(noise(parameter, 0.3) if parameter.dim() >= 2 else parameter + noise(parameter, 0.3))
    return model


def siglip(*, vocab: int = 90, act: str = "gelu_pytorch_tanh", heads: int = 3, **vision: Any) -> SiglipModel:
    """Heads of seven; pictures of 27 pixels, of which patches of 8 leave three over."""
    torch.manual_seed(0)
    shape = {"num_attention_heads": heads, "hidden_act": act}
    model = shaken(
        SiglipModel(
            SiglipConfig(
                text_config={
                    **shape, "vocab_size": vocab, "hidden_size": 5 * heads, "intermediate_size": 23, "num_hidden_layers": 2,
                    "max_position_embeddings": 13, "projection_size": 7 * heads, "bos_token_id": None, "eos_token_id": None,
                },
                vision_config={
                    **shape, "hidden_size": 7 * heads, "intermediate_size": 31, "num_hidden_layers": 3, "image_size": 27, "patch_size": 8,
                    **vision,
                },
            )
        )
    )  # fmt: skip
    with torch.no_grad():
        model.logit_scale.fill_(1.7)
        model.logit_bias.fill_(-3.1)
    return model


def chinese_clip(vocab: int, *, act: str = "quick_gelu", text_act: str = "gelu", heads: int = 3) -> ChineseCLIPModel:
    torch.manual_seed(0)
    return shaken(
        ChineseCLIPModel(
            ChineseCLIPConfig(
                text_config={
                    "vocab_size": vocab, "hidden_size": 5 * heads, "intermediate_size": 23, "num_hidden_layers": 2,
                    "num_attention_heads": heads, "max_position_embeddings": 40, "hidden_act": text_act,
                },
                vision_config={
                    "hidden_size": 7 * heads, "intermediate_size": 31, "num_hidden_layers": 3, "num_attention_heads": heads,
                    "image_size": 24, "patch_size": 8, "hidden_act": act,
                },
                projection_dim=11,
            )
        )
    )  # fmt: skip


def align(vocab: int, **vision: Any) -> AlignModel:
    torch.manual_seed(0)
    return shaken(
        AlignModel(
            AlignConfig(
                text_config={
                    "vocab_size": vocab, "hidden_size": 15, "intermediate_size": 23, "num_hidden_layers": 2, "num_attention_heads": 3,
                    "max_position_embeddings": 40,
                },
                vision_config=B | vision,
                projection_dim=160,
                temperature_init_value=0.0157,
            )
        )
    )  # fmt: skip


def vit(*, classes: int | None = None, pooler: bool = True, **settings: Any) -> ViTModel | ViTForImageClassification:
    """Three heads of seven, pictures of 16 x 24 pixels in patches of 8 x 4."""
    torch.manual_seed(0)
    shape = {"hidden_size": 21, "intermediate_size": 31, "num_hidden_layers": 3, "num_attention_heads": 3}
    config = ViTConfig(**{**shape, "image_size": [16, 24], "patch_size": [8, 4], **settings})
    if classes is None:
        return shaken(ViTModel(config, add_pooling_layer=pooler))
    config.num_labels = classes
    return shaken(ViTForImageClassification(config))


def efficientnet(*, classes: int | None = None, **settings: Any) -> EfficientNetModel | EfficientNetForImageClassification:
    torch.manual_seed(0)
    config = EfficientNetConfig(**(B | settings))
    if classes is None:
        return shaken(EfficientNetModel(config))
    config.num_labels = classes
    return shaken(EfficientNetForImageClassification(config))


def spiece(directory: Path, *, length: int = 13, byte_fallback: bool = False) -> SiglipTokenizer:
    """A Unigram vocabulary learnt from what the awkward strings are made of, as `spiece.model`; padded with `</s>` like SigLIP's."""
    draw, made = random.Random(0), io.BytesIO()
    words = [piece for piece in PIECES if "\x00" not in piece]
    sentences = [" ".join(draw.choices(words, k=6)) for _ in range(600)] + ["a < b > c <unk> d"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=made, vocab_size=600 if byte_fallback else 330, model_type="unigram",
        normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98,
        byte_fallback=byte_fallback, minloglevel=2, num_threads=1,
    )  # fmt: skip
    directory.mkdir(exist_ok=True)
    (directory / "spiece.model").write_bytes(made.getvalue())
    said = {"tokenizer_class": "SiglipTokenizer", "model_max_length": length, "do_lower_case": True, "model_input_names": ["input_ids"]}
    (directory / "tokenizer_config.json").write_text(json.dumps(said))
    return SiglipTokenizer.from_pretrained(directory)


IMAGE_PROCESSORS = {
    "siglip": (SiglipImageProcessorPil, {"size": {"height": 27, "width": 27}}),
    "chinese_clip": (ChineseCLIPImageProcessorPil, {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}),
    "align": (
        EfficientNetImageProcessorPil,
        {
            "size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": 33, "width": 33}, "resample": 2,
            "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "include_top": False,
        },
    ),
    "vit": (ViTImageProcessorPil, {"size": {"height": 16, "width": 24}}),
    "efficientnet": (
        EfficientNetImageProcessorPil,
        {"size": {"height": 33, "width": 33}, "resample": 0, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    ),
}  # fmt: skip
"""As each family's published files have them, in small."""


def image_processor(family: str, **settings: Any) -> Any:
    kind, own = IMAGE_PROCESSORS[family]
    return kind(**{**own, **settings})


def save(directory: Path, model: PreTrainedModel, **settings: Any) -> Path:
    """config.json, weights and preprocessor_config.json; the tokenizer is there already, or there is none."""
    model.save_pretrained(directory)
    image_processor(model.config.model_type, **settings).save_pretrained(directory)
    return directory


def with_wordpiece(directory: Path) -> int:
    """BERT's tokenizer in a new directory; gives the size of its vocabulary."""
    return len(wordpiece(directory))


def published_gradients(model: PreTrainedModel, directory: Path) -> dict[str, Tensor]:
    """The gradients under the names that the weights have on disk, which the library may change on the way."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for mine, its in zip(twin.parameters(), model.parameters(), strict=True):
            mine.copy_(torch.full_like(its, torch.nan) if its.grad is None else its.grad)
    twin.save_pretrained(directory)
    learnt = {name for name, value in load_file(directory / "model.safetensors").items() if value.is_floating_point()}
    found = {name: value for name, value in load_file(directory / "model.safetensors").items() if name in learnt and "running_" not in name}
    return {name: value for name, value in found.items() if not bool(value.isnan().any())}


def same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, flat: tuple[str, ...]) -> None:
    """The house's parity, tensor by tensor; names with one of `flat` in them have a true gradient of zero but for rounding."""
    assert sorted(ours) == sorted(theirs)
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        off = float((ours[name] - gradient).abs().max())
        scale = 0.1 * largest if any(part in name for part in flat) else float(gradient.abs().max())
        assert off <= 1e-4 * scale, f"{name}: off by {off:.1e} of {scale:.1e}"
