"""Tiny random models that read a picture and a text together, saved as published ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    GitConfig,
    GitForCausalLM,
    PreTrainedModel,
    ViltConfig,
    ViltForMaskedLM,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

from hub.references_bert import wordpiece
from hub.references_sound_sight import shaken

SIZES = {"hidden_size": 21, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 34}


def vilt(directory: Path, cls: type[PreTrainedModel] = ViltForMaskedLM, **settings: Any) -> Any:
    """Three heads of seven, a grid of five, pictures of any shape in steps of four pixels."""
    words = wordpiece(directory, do_lower_case=True)
    torch.manual_seed(0)
    shape = {
        **SIZES,
        "vocab_size": len(words) + 3,
        "max_position_embeddings": 40,
        "image_size": 20,
        "patch_size": 4,
        "layer_norm_eps": 1e-5,
    }
    model = shaken(cls(ViltConfig(**{**shape, **settings})))
    model.save_pretrained(directory)
    ViltImageProcessorPil(size={"shortest_edge": 20}, size_divisor=4).save_pretrained(directory)
    return model


def blip(
    directory: Path,
    cls: type[PreTrainedModel] = BlipForImageTextRetrieval,
    *,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
) -> Any:
    """Two widths, three and five heads, more ids than words, as the published ones have."""
    words = wordpiece(directory, do_lower_case=True)
    torch.manual_seed(0)
    end = words.sep_token_id
    config = BlipConfig(
        text_config={
            **SIZES, "vocab_size": len(words) + 2, "max_position_embeddings": 40, "bos_token_id": len(words), "sep_token_id": end,
            "eos_token_id": end, "pad_token_id": 0, "layer_norm_eps": 1e-5, **(text or {}),
        },
        vision_config={
            "hidden_size": 35, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 44, "image_size": 20, "patch_size": 4,
            **(vision or {}),
        },
        image_text_hidden_size=11,
    )  # fmt: skip
    model = shaken(cls(config))
    model.save_pretrained(directory)
    BlipImageProcessorPil(size={"height": 20, "width": 20}).save_pretrained(directory)
    return model


def git(directory: Path, *, vision: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Two widths, three and five heads, a grid of five, more ids than words."""
    words = wordpiece(directory, do_lower_case=True)
    torch.manual_seed(0)
    config = GitConfig(
        vision_config={
            "hidden_size": 35, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 44, "image_size": 20, "patch_size": 4,
            **(vision or {}),
        },
        **{
            **SIZES, "vocab_size": len(words) + 2, "max_position_embeddings": 40, "bos_token_id": words.cls_token_id,
            "eos_token_id": words.sep_token_id, **settings,
        },
    )  # fmt: skip
    model = shaken(GitForCausalLM(config))
    model.save_pretrained(directory)
    CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20}).save_pretrained(directory)
    return model
