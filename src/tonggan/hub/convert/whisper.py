"""Whisper (Radford et al. 2023): the whole of it (`WhisperForConditionalGeneration`), or the encoder of a `WhisperModel`.

An encoder alone hears but says nothing: it cannot be saved as Whisper again, and is saved in our own format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tonggan.data.audio import AudioProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import read_settings
from tonggan.hub.convert.preprocessor_audio import audio_in, audio_misfit, audio_out
from tonggan.hub.convert.saying import Saying, ends_out, said_in, scores
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import DualEncoder, DualEncoderConfig, EncoderDecoder, EncoderDecoderConfig, ModelConfig
from tonggan.models.encoder_decoder import SpeakerConfig
from tonggan.models.towers import LogMel, LogMelConfig
from tonggan.tensors import Batch, Sounds

MODEL_TYPES = ("whisper",)
WHOLE = "WhisperForConditionalGeneration"
END = "<|endoftext|>"
EPS = 1e-5
"""Of every norm; the format has no word for another."""
ENCODER_ALONE = "it is the encoder alone, and the format wants a decoder"

LAYER: Rules = {
    "self_attn.q_proj.{p}": "attention.q.{p}",
    "self_attn.k_proj.{p}": "attention.k.{p}",
    "self_attn.v_proj.{p}": "attention.v.{p}",
    "self_attn.out_proj.{p}": "attention.out.{p}",
    "self_attn_layer_norm.{p}": "norm1.{p}",
    "fc1.{p}": "feed_forward.up.{p}",
    "fc2.{p}": "feed_forward.down.{p}",
    "final_layer_norm.{p}": "norm2.{p}",
}
CROSS: Rules = {
    "encoder_attn.q_proj.{p}": "cross.q.{p}",
    "encoder_attn.k_proj.{p}": "cross.k.{p}",
    "encoder_attn.v_proj.{p}": "cross.v.{p}",
    "encoder_attn.out_proj.{p}": "cross.out.{p}",
    "encoder_attn_layer_norm.{p}": "cross_norm.{p}",
}
ENCODER: Rules = {
    "conv1.{p}": "stem.conv1.{p}",
    "conv2.{p}": "stem.conv2.{p}",
    "embed_positions.weight": "positions.weight",
    **prefixed("layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "layer_norm.{p}": "post_norm.{p}",
}
DECODER: Rules = {
    "embed_tokens.weight": "embedding.weight",
    "embed_positions.weight": "speaker.positions.weight",
    **prefixed("layers.{i}.", "speaker.transformer.blocks.{i}.", {**LAYER, **CROSS}),
    "layer_norm.{p}": "speaker.norm.{p}",
}
TABLE = KeyTable(
    "Whisper",
    {
        **prefixed("encoder.", "audio.", ENCODER),
        **dict.fromkeys(f"decoder.{name}" for name in DECODER),
        # The same under the prefix of a whole model.
        **prefixed("model.encoder.", "audio.", ENCODER),
        **dict.fromkeys(f"model.decoder.{name}" for name in DECODER),
        "proj_out.weight": None,
    },
    ours_only=frozenset({"log_scale"}),  # one tower alone compares nothing
)
WHOLE_TABLE = KeyTable(
    "Whisper",
    {
        **prefixed("model.encoder.", "audio.", ENCODER),
        **prefixed("model.decoder.", "", DECODER),
        "proj_out.weight": "embedding.weight",  # the words once more
    },
)


def table(config: ModelConfig) -> KeyTable:
    """Whisper's names."""
    return WHOLE_TABLE if isinstance(config, EncoderDecoderConfig) else TABLE


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    width = raw.get("d_model", 384)
    audio = LogMelConfig(
        bins=raw.get("num_mel_bins", 80),
        context=raw.get("max_source_positions", 1500),
        width=width,
        layers=raw.get("encoder_layers", 4),
        heads=raw.get("encoder_attention_heads", 6),
        mlp_width=raw.get("encoder_ffn_dim", 1536),
        activation=activation_in(raw.get("activation_function", "gelu"), where),
        padding="seen",
    )
    hears = AudioProcessor(audio_in(*read_settings(directory, "feature_extractor")))
    if WHOLE not in (raw.get("architectures") or ()):
        return DualEncoderConfig(audio=audio, dim=width, audio_projection="none"), Processor(audio=hears)
    need(raw, {"tie_word_embeddings": True, "scale_embedding": False}, where)
    context = raw.get("max_target_positions", 448)
    text = SpeakerConfig(
        style="whisper",
        vocab_size=raw.get("vocab_size", 51865),
        context=context,
        width=width,
        layers=raw.get("decoder_layers", 4),
        heads=raw.get("decoder_attention_heads", 6),
        mlp_width=raw.get("decoder_ffn_dim", 1536),
        activation=audio.activation,
        padding_id=raw.get("pad_token_id", 50256),
        eps=EPS,
    )
    saying = Saying.read(raw, directory, start=50257, end=50256)
    config = EncoderDecoderConfig(source=audio, text=text, **saying.fields)
    return config, Processor(audio=hears, text=read_tokenizer(directory, max_length=None, context=context, pad=END, decoder=True))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json, preprocessor_config.json and the tokenizer's files, of a whole model."""
    assert isinstance(config, EncoderDecoderConfig) and config.audio is not None
    assert processor.audio is not None and processor.text is not None
    audio, text, tokenizer = config.audio, config.text, processor.text
    raw = {
        "architectures": [WHOLE],
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        "is_encoder_decoder": True,
        "vocab_size": text.vocab_size,
        "num_mel_bins": audio.bins,
        "d_model": audio.width,
        "max_source_positions": audio.context,
        "encoder_layers": audio.layers,
        "encoder_attention_heads": audio.heads,
        "encoder_ffn_dim": audio.mlp_width,
        "max_target_positions": text.context,
        "decoder_layers": text.layers,
        "decoder_attention_heads": text.heads,
        "decoder_ffn_dim": text.mlp_width,
        "activation_function": activation_out(audio.activation),
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "pad_token_id": text.padding_id,
        "bos_token_id": next(iter(config.ends), None),
        "eos_token_id": ends_out(config.ends),
        "decoder_start_token_id": config.start[0],
        # Which are the format's own where nothing is said.
        "suppress_tokens": list(config.suppressed),
        "begin_suppress_tokens": list(config.suppressed_first),
    }
    write_json(directory / "config.json", raw)
    said = Saying.of(config).written(forced=True)
    write_json(directory / "generation_config.json", said | {"pad_token_id": text.padding_id, "max_length": text.context})
    write_json(directory / "preprocessor_config.json", audio_out(processor.audio.config))
    special = {"bos_token": END, "eos_token": END, "unk_token": END} if tokenizer.id_of(END) is not None else {}
    kind = "WhisperTokenizer" if special and tokenizer.spec["model"]["type"] == "BPE" else "PreTrainedTokenizerFast"
    write_tokenizer(directory, tokenizer, kind, special)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has. An encoder alone has one only as long as it is not to be written."""
    if isinstance(config, EncoderDecoderConfig):
        return _misfit_of_whole(config, processor)
    if (
        not isinstance(config, DualEncoderConfig)
        or not isinstance(config.audio, LogMelConfig)
        or config.image
        or config.text
        or config.video
    ):
        return "it is not a Whisper"
    if config.audio_projection != "none" or config.audio.padding != "seen":
        return "its encoder has a projection, or hears a sound without the silence behind it"
    return None if processor is None else ENCODER_ALONE


def _misfit_of_whole(config: EncoderDecoderConfig, processor: Processor | None) -> str | None:
    audio, text = config.audio, config.text
    if audio is None or text.style != "whisper" or not config.tied or config.scaled_output or config.word_bias or text.scaled_words:
        return "it is not a Whisper"
    if audio.padding != "seen" or audio.mask_token:
        return "it hears a sound without the silence behind it, or has a mask token"
    if (audio.width, audio.activation) != (text.width, text.activation):
        return "its encoder's width or activation is not its decoder's"
    if (audio.eps, text.eps) != (EPS, EPS) or text.padding_id is None:
        return f"its norms have another eps than {EPS}, or it has no id for padding"
    if processor is None:
        return None
    if processor.audio is None or processor.text is None:
        return "it has not both processors"
    return audio_misfit(processor.audio.config)


def outputs(module: DualEncoder | EncoderDecoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `input_features` [B, M, F]: of an encoder alone `last_hidden_state`; of a whole model `encoder_last_hidden_state`, and with
    `decoder_input_ids` the `logits` [B, L, V]. As in the reference, an `attention_mask` hides nothing."""
    whole = isinstance(module, EncoderDecoder)
    only(inputs, ("input_features", "attention_mask", *(("decoder_input_ids", "decoder_attention_mask") if whole else ())))
    assert isinstance(module.audio, LogMel)
    mels = inputs["input_features"]
    frames = torch.full((len(mels),), mels.shape[2], device=mels.device)
    if not isinstance(module, EncoderDecoder):
        return {"last_hidden_state": module.audio.tokens(Sounds(mels, frames)).states}
    hidden, said = module.encode(Batch(("",) * len(mels), sounds=Sounds(mels, frames))), said_in(inputs)
    found = {"encoder_last_hidden_state": hidden.states}
    return found if said is None else found | {"logits": scores(module, said, hidden)}
