"""The decoders of Llama (Touvron et al. 2023), Qwen2 and Qwen3 as Hugging Face publishes them: names of tensors, settings both ways, and
the words that end what is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.table import Rules, prefixed
from tonggan.hub.weights import read_json
from tonggan.models.gpt import DecoderConfig, StretchConfig
from tonggan.types import TongganError

LAYER: Rules = {
    "input_layernorm.weight": "norm1.weight",
    "self_attn.q_proj.{p}": "attention.q.{p}",
    "self_attn.k_proj.{p}": "attention.k.{p}",
    "self_attn.v_proj.{p}": "attention.v.{p}",
    "self_attn.o_proj.{p}": "attention.out.{p}",
    "self_attn.q_norm.weight": "attention.q_norm.weight",
    "self_attn.k_norm.weight": "attention.k_norm.weight",
    "self_attn.rotary_emb.inv_freq": None,  # computed; older versions stored it
    "post_attention_layernorm.weight": "norm2.weight",
    "mlp.gate_proj.{p}": "feed_forward.gate.{p}",
    "mlp.up_proj.{p}": "feed_forward.up.{p}",
    "mlp.down_proj.{p}": "feed_forward.down.{p}",
}
DECODER: Rules = {
    "embed_tokens.weight": "embedding.weight",
    **prefixed("layers.{i}.", "transformer.blocks.{i}.", LAYER),
    "norm.weight": "norm.weight",
}
GENERATION = "generation_config.json"


def decoder_in(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """Our decoder of their settings; which of the three it is, `model_type` says."""
    kind = raw.get("model_type", "llama")
    if kind not in KINDS:
        raise TongganError(f"{where}: model_type {kind!r} is not supported; supported are: {', '.join(KINDS)}")
    given = DEFAULTS | KINDS[kind] | {name: value for name, value in raw.items() if value is not None}
    need(given, {"use_sliding_window": False}, where)
    if others := sorted(set(given["layer_types"]) - {"full_attention"}):
        raise TongganError(f"{where}: not supported: layer_types {others[0]!r}; supported is 'full_attention'")
    base, stretch = rotary_in(raw, given["max_position_embeddings"], where)
    width, heads, of_head, biases = given["hidden_size"], given["num_attention_heads"], given["head_dim"], given["attention_bias"]
    # Said to be null, it is as many as there are heads; left out, it is the library's number.
    shared = raw.get("num_key_value_heads", given["num_key_value_heads"]) or heads
    return DecoderConfig(
        vocab_size=given["vocab_size"],
        context=given["max_position_embeddings"],
        width=width,
        layers=given["num_hidden_layers"],
        heads=heads,
        kv_heads=None if shared == heads else shared,
        head_width=None if of_head is None or of_head * heads == width else of_head,
        mlp_width=given["intermediate_size"],
        activation=activation_in(given["hidden_act"], where),
        eps=given["rms_norm_eps"],
        rotary_base=base,
        rotary_stretch=stretch,
        qkv_bias=kind == "qwen2" or biases,
        out_bias=kind != "qwen2" and biases,
        mlp_bias=kind == "llama" and given["mlp_bias"],
        qk_norm=kind == "qwen3",
        tied=given["tie_word_embeddings"],
    )


def decoder_out(config: DecoderConfig) -> dict[str, Any]:
    """Their settings of our decoder; `decoder_misfit` must have found nothing."""
    kind = _kind(config)
    biases = {"llama": {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}, "qwen3": {"attention_bias": config.qkv_bias}}
    return {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_width or config.width // config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": activation_out(config.activation),
        "rms_norm_eps": config.eps,
        "rope_parameters": rotary_out(config),
        "tie_word_embeddings": config.tied,
        **biases.get(kind, {}),
    }


def decoder_misfit(config: DecoderConfig) -> str | None:
    """Why a decoder is none of the three; None when it is."""
    if config.style != "llama":
        return "its decoder is not Llama's or Qwen's"
    if _kind(config) == "llama" and config.width % config.heads:
        return f"its decoder's width {config.width} is not a multiple of its {config.heads} heads, as Llama's must be"
    if config.out_bias and not config.qkv_bias:
        return "its decoder has biases behind its attention alone, as none of Llama and Qwen has"
    if config.mlp_bias and _kind(config) != "llama":
        return "its decoder has biases in its feed-forward, as Qwen's has not"
    if config.qk_norm and config.qkv_bias != config.out_bias:
        return "its decoder has norms of queries and keys, and biases before or behind its attention alone, as Qwen3's has not"
    return None


def ends_in(raw: Mapping[str, Any], directory: Path) -> tuple[int, ...]:
    """The words that end what is said, of generation_config.json, else of config.json's settings."""
    return ends_said(raw.get("eos_token_id", KINDS[raw.get("model_type", "llama")]["eos_token_id"]), directory)


def ends_said(default: int | list[int] | None, directory: Path) -> tuple[int, ...]:
    """Those of generation_config.json, and where it names none, the default."""
    file = directory / GENERATION
    found = read_json(file).get("eos_token_id") if file.is_file() else None
    found = default if found is None else found
    return () if found is None else (found,) if isinstance(found, int) else tuple(found)


def ends_out(ends: tuple[int, ...]) -> int | list[int] | None:
    """The same as the files have it."""
    return None if not ends else ends[0] if len(ends) == 1 else list(ends)


def rotary_in(raw: Mapping[str, Any], context: int, where: str) -> tuple[float, StretchConfig | None]:
    """Base and stretch of rotary positions. Older releases had `rope_scaling`, and the base beside it; where a file has both names, the
    library follows the older, and forgets the base: they must say the same."""
    older, newer = (_named(raw.get(name) or {}) for name in ("rope_scaling", "rope_parameters"))
    if newer and (other := [name for name, value in older.items() if newer.get(name) != value]):
        which = f"{other[0]} ({older[other[0]]!r} and {newer.get(other[0])!r})"
        raise TongganError(f"{where}: rope_scaling and rope_parameters differ in {which}: leave one out")
    beside = {name: raw[name] for name in ("rope_theta", "partial_rotary_factor") if raw.get(name) is not None}
    rope = beside | (newer or older)
    if nested := [name for name, value in rope.items() if isinstance(value, Mapping)]:
        raise TongganError(f"{where}: rotary positions by kinds of layers ({nested[0]}) are not supported")
    if raw.get("original_max_position_embeddings") is not None:  # which goes before what stands among the others
        rope |= {"original_max_position_embeddings": raw["original_max_position_embeddings"]}
    return rope.get("rope_theta", 10_000.0), _stretch_in(rope, context, where)


def _named(rope: Mapping[str, Any]) -> dict[str, Any]:
    """With the type under its later name."""
    return {"rope_type": rope.get("type", "default"), **{name: value for name, value in rope.items() if name != "type"}} if rope else {}


def rotary_out(config: DecoderConfig) -> dict[str, Any]:
    """`rope_parameters` of our decoder."""
    return {**_stretch_out(config.rotary_stretch), "rope_theta": config.rotary_base}


def _stretch_in(rope: Mapping[str, Any], context: int, where: str) -> StretchConfig | None:
    need(rope, {"partial_rotary_factor": 1}, where)
    match rope.get("rope_type", "default"):
        case "default":
            return None
        case "linear":
            return StretchConfig(factor=rope["factor"])
        case "llama3":
            original = rope.get("original_max_position_embeddings", context)
            return StretchConfig(factor=rope["factor"], original=original, low=rope["low_freq_factor"], high=rope["high_freq_factor"])
        case other:
            raise TongganError(
                f"{where}: not supported: rotary positions of type {other!r}; supported are 'default', 'linear' and 'llama3'"
            )


def _stretch_out(stretch: StretchConfig | None) -> dict[str, Any]:
    if stretch is None:
        return {"rope_type": "default"}
    if stretch.original is None:
        return {"rope_type": "linear", "factor": stretch.factor}
    borders = {"low_freq_factor": stretch.low, "high_freq_factor": stretch.high}
    return {"rope_type": "llama3", "factor": stretch.factor, "original_max_position_embeddings": stretch.original, **borders}


def _kind(config: DecoderConfig) -> str:
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.qkv_bias and not config.out_bias else "llama"


DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "layer_types": (),
}  # fmt: skip
QWEN = {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768, "num_key_value_heads": 32, "eos_token_id": None}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048, "eos_token_id": 2},
    "qwen2": QWEN,
    "qwen3": QWEN | {"head_dim": 128},
}
"""What the library has where a file is silent, by `model_type`."""
