"""Tiny random reference models, built with the libraries whose formats we read: no download, a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

MERGES = ["t h", "th e</w>", "b i", "r d</w>", "bi rd</w>", "r e", "re d</w>", "ä ¸", "c a", "ca t</w>"]
TEXTS = ["a red bird", "The cat, the BIRD!", "一只红色的鸟", "", "x " * 40]


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-level vocabulary with ten merges; the end token has the highest id, as in the published one."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in MERGES)]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[tuple(merge.split()) for merge in MERGES], model_max_length=20)


def tiny_clip(act: str = "quick_gelu", *, heads: int = 3, image_size: int = 24, legacy_eos: bool = False, **vision: Any) -> CLIPModel:
    """A random CLIP with odd sizes: three heads of seven, different towers, a width that no power of two divides."""
    torch.manual_seed(0)
    end = 2 if legacy_eos else len(clip_tokenizer()) - 1
    config = CLIPConfig(
        text_config={
            "vocab_size": len(clip_tokenizer()), "hidden_size": 7 * heads, "intermediate_size": 50, "num_hidden_layers": 2,
            "num_attention_heads": heads, "max_position_embeddings": 20, "hidden_act": act, "eos_token_id": end,
            "bos_token_id": len(clip_tokenizer()) - 2, "pad_token_id": 1, "projection_dim": 11,
        },
        vision_config={
            "hidden_size": 9 * heads, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": heads,
            "image_size": image_size, "patch_size": 8, "hidden_act": act, "projection_dim": 11, **vision,
        },
        projection_dim=11,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    with torch.no_grad():  # far enough from zero for the two GELUs to differ, and no norm at a value that does nothing
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=0.3)
            elif parameter.dim() == 1:  # all but the scale
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def clip_processor(size: int = 24, **settings: Any) -> CLIPProcessor:
    image = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **settings)
    return CLIPProcessor(image_processor=image, tokenizer=clip_tokenizer())


def save_clip(directory: Path, model: CLIPModel, processor: CLIPProcessor | None = None) -> Path:
    """A directory as published ones are: config, weights, tokenizer files, preprocessor_config.json."""
    model.save_pretrained(directory)
    processor = processor or clip_processor(model.config.vision_config.image_size)
    processor.tokenizer.save_pretrained(directory)
    processor.image_processor.save_pretrained(directory)
    return directory


def picture(width: int = 61, height: int = 47, seed: int = 0) -> PILImage.Image:
    """Random coloured tiles, enlarged: edges and flat parts, so that resampling filters differ."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8).numpy()
    return PILImage.fromarray(tiles).resize((width, height), PILImage.Resampling.BILINEAR)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> float:
    """Assert |a - b| <= tolerance * max|b|, the house's parity; returns the worst ratio."""
    assert ours.shape == theirs.shape, (tuple(ours.shape), tuple(theirs.shape))
    ours, theirs = ours.detach(), theirs.detach()
    ratio = float((ours - theirs).abs().max() / theirs.abs().max())
    assert ratio <= tolerance, f"off by {ratio:.2e} of the largest value"
    return ratio
