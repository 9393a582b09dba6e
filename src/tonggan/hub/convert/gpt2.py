"""GPT-2 (Radford et al. 2019) language models (`GPT2LMHeadModel`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.hub.convert.decoder import ends_out, ends_said
from tonggan.hub.convert.fields import activation_in, need
from tonggan.hub.convert.llama import said_out, talking_in, talking_misfit, talking_out
from tonggan.hub.convert.table import TRANSPOSED, KeyTable, Rules, Stacked, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.weights import write_json
from tonggan.models import GPT, GPTConfig, ModelConfig
from tonggan.models.gpt import DecoderConfig
from tonggan.types import UsageError

MODEL_TYPES = ("gpt2",)
HEADS = ("GPT2LMHeadModel",)
THREE = ("attention.q", "attention.k", "attention.v")
LAYER: Rules = {
    "ln_1.{p}": "norm1.{p}",
    "attn.c_attn.weight": Stacked(tuple(f"{name}.weight" for name in THREE), TRANSPOSED),
    "attn.c_attn.bias": Stacked(tuple(f"{name}.bias" for name in THREE)),
    "attn.c_proj.weight": ("attention.out.weight", TRANSPOSED),
    "attn.c_proj.bias": "attention.out.bias",
    "attn.bias": None,  # the causal mask, which older versions stored
    "attn.masked_bias": None,
    "ln_2.{p}": "norm2.{p}",
    "mlp.c_fc.weight": ("feed_forward.up.weight", TRANSPOSED),
    "mlp.c_fc.bias": "feed_forward.up.bias",
    "mlp.c_proj.weight": ("feed_forward.down.weight", TRANSPOSED),
    "mlp.c_proj.bias": "feed_forward.down.bias",
}
DECODER: Rules = {
    "wte.weight": "embedding.weight",
    "wpe.weight": "positions.weight",
    **prefixed("h.{i}.", "transformer.blocks.{i}.", LAYER),
    "ln_f.{p}": "norm.{p}",
}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours; the first files have no prefix."""
    assert isinstance(config, GPTConfig)
    head = "text.embedding.weight" if config.text.tied else "text.head.weight"
    names = {**prefixed("transformer.", "text.", DECODER), **prefixed("", "text.", DECODER)}
    return KeyTable("GPT-2", {**names, "lm_head.weight": head})


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    given, where = {**DEFAULTS, **raw}, str(directory / "config.json")
    need(given, {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}, where)
    text = DecoderConfig(
        style="gpt2",
        vocab_size=given["vocab_size"],
        context=given["n_positions"],
        width=given["n_embd"],
        layers=given["n_layer"],
        heads=given["n_head"],
        mlp_width=4 * given["n_embd"] if given["n_inner"] is None else given["n_inner"],
        activation=activation_in(given["activation_function"], where),
        eps=given["layer_norm_epsilon"],
        tied=given["tie_word_embeddings"],
    )
    return talking_in(directory, GPTConfig(text=text, ends=ends_said(given["eos_token_id"], directory)))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json and the tokenizer's files, the template of conversations among them."""
    assert isinstance(config, GPTConfig)
    text = config.text
    raw = {
        "architectures": [HEADS[0]],
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "n_positions": text.context,
        "n_embd": text.width,
        "n_layer": text.layers,
        "n_head": text.heads,
        "n_inner": text.mlp_width,
        "activation_function": "gelu_new" if text.activation == "gelu_tanh" else text.activation,
        "layer_norm_epsilon": text.eps,
        "tie_word_embeddings": text.tied,
        "eos_token_id": ends_out(config.ends),
        "bos_token_id": None,  # what begins texts, the tokenizer says
    }
    write_json(directory / "config.json", raw)
    talking_out(directory, config, processor)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, GPTConfig):
        return "it is no language model"
    if config.text.style != "gpt2":
        return "its decoder is not GPT-2's"
    return talking_misfit(config, processor)


def outputs(module: GPT, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`logits` [B, L, V] and `last_hidden_state` [B, L, D] of `input_ids` and `attention_mask`.

    With padding on the left `position_ids` must be given and count from each row's first token, as the library's `generate` does it: its
    forward would count the padding. Others raise `UsageError`.
    """
    only(inputs, ("input_ids", "attention_mask", "position_ids"))
    tokens, given = tokens_in(inputs), inputs.get("position_ids")
    at = torch.arange(tokens.ids.shape[1], device=tokens.ids.device).expand_as(tokens.ids)
    starts = tokens.starts if tokens.starts is not None else torch.zeros_like(tokens.lengths)
    own = (at >= starts[:, None]) & (at < tokens.lengths[:, None])
    if not torch.equal((at if given is None else given.expand_as(at))[own], (at - starts[:, None])[own]):
        raise UsageError("position_ids must count each row from 0 at its first token: give them so, or pad on the right")
    return said_out(module, tokens)


DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None, "eos_token_id": 50256,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip
