"""Tiny random reference models that hear, watch clips, or fill in their own states, saved as published ones are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    Data2VecVisionConfig,
    Data2VecVisionModel,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEModel,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from tonggan.config import height_width

HALF = [0.5, 0.5, 0.5]


def shaken(model: PreTrainedModel) -> Any:
    """Weights far enough from zero for the two GELUs to differ, and no weight at a value that does nothing (norms, layer scales)."""
    model.eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(spread if parameter.dim() >= 2 else parameter + spread)
    return model


def whisper(*, head: bool = False, heads: int = 3, act: str = "gelu", bins: int = 7, positions: int = 1500) -> Any:
    """Three heads of six; a position is 20 ms, so 1500 of them are Whisper's 30 s."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=53, d_model=6 * heads, encoder_layers=2, decoder_layers=1, encoder_attention_heads=heads, decoder_attention_heads=1,
        encoder_ffn_dim=25, decoder_ffn_dim=13, num_mel_bins=bins, max_source_positions=positions, max_target_positions=9,
        activation_function=act, pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1, suppress_tokens=[],
        begin_suppress_tokens=[],
    )  # fmt: skip
    return shaken((WhisperForConditionalGeneration if head else WhisperModel)(config))


def save_whisper(directory: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(directory)
    seconds = model.config.max_source_positions // 50
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=seconds).save_pretrained(directory)
    return directory


def data2vec_audio(**settings: Any) -> Data2VecAudioModel:
    """Strides of six samples in all; positions of an even kernel unless told otherwise."""
    torch.manual_seed(0)
    config = {
        "hidden_size": 21, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 29, "conv_dim": (9, 11),
        "conv_kernel": (5, 3), "conv_stride": (3, 2), "num_conv_pos_embedding_groups": 7, "num_conv_pos_embeddings": 2,
        "conv_pos_kernel_size": 4,
    } | settings  # fmt: skip
    return shaken(Data2VecAudioModel(Data2VecAudioConfig(**config)))


def save_data2vec_audio(directory: Path, model: PreTrainedModel, **settings: Any) -> Path:
    model.save_pretrained(directory)
    Wav2Vec2FeatureExtractor(**{"return_attention_mask": True, **settings}).save_pretrained(directory)
    return directory


def data2vec_vision(**settings: Any) -> Data2VecVisionModel:
    torch.manual_seed(0)
    config = {
        "image_size": 24, "patch_size": 8, "hidden_size": 21, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 29,
        "use_mask_token": True, "use_relative_position_bias": True, "drop_path_rate": 0.0,
    } | settings  # fmt: skip
    return shaken(Data2VecVisionModel(Data2VecVisionConfig(**config)))


def save_data2vec_vision(directory: Path, model: PreTrainedModel, **settings: Any) -> Path:
    model.save_pretrained(directory)
    size = {"height": model.config.image_size, "width": model.config.image_size}
    given = {"size": size, "do_center_crop": False, "crop_size": size, "image_mean": HALF, "image_std": HALF, **settings}
    BeitImageProcessorPil(**given).save_pretrained(directory)
    return directory


def videomae(*, whole: bool = False, **settings: Any) -> Any:
    """Widths that sinusoids fit (even), heads of ten; `whole` with the decoder it is pre-trained with."""
    torch.manual_seed(0)
    config = {
        "image_size": 24, "patch_size": 8, "num_frames": 6, "tubelet_size": 2, "hidden_size": 30, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 41, "decoder_hidden_size": 12, "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 3, "decoder_intermediate_size": 12,
    } | settings  # fmt: skip
    return shaken((VideoMAEForPreTraining if whole else VideoMAEModel)(VideoMAEConfig(**config)))


def save_videomae(directory: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(directory)
    height, width = height_width(model.config.image_size)
    crop = {"height": height, "width": width}
    VideoMAEImageProcessorPil(size={"shortest_edge": max(height, width)}, crop_size=crop).save_pretrained(directory)
    return directory


def same_gradients(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], rootless: str = "k_proj.bias") -> None:
    """Assert each |a - b| <= 1e-4 max|b| under the same names. A gradient that is zero but for rounding (a key's bias: softmax does not
    see it) is related to the largest of all."""
    assert sorted(ours) == sorted(theirs)
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, expected in theirs.items():
        scale = 0.1 * largest if name.endswith(rootless) else float(expected.abs().max())
        off = float((ours[name] - expected).abs().max())
        assert off <= 1e-4 * scale, f"{name}: off by {off:.1e} of {scale:.1e}"


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Those that a backward pass has left."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
