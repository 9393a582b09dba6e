"""Llama (Touvron et al. 2023), Qwen2 and Qwen3 language models (`LlamaForCausalLM`, `Qwen2ForCausalLM`, `Qwen3ForCausalLM`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.hub.convert.conversations import TEMPLATE, conversations_in
from tonggan.hub.convert.decoder import DECODER, GENERATION, decoder_in, decoder_misfit, decoder_out, ends_in, ends_out
from tonggan.hub.convert.table import KeyTable, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import content_of, read_said, read_tokenizer, write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import GPT, GPTConfig, ModelConfig
from tonggan.tensors import Tokens

HEADS_OF = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
MODEL_TYPES, HEADS = tuple(HEADS_OF), tuple(HEADS_OF.values())


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    assert isinstance(config, GPTConfig)
    head = "text.embedding.weight" if config.text.tied else "text.head.weight"
    return KeyTable("Llama", {**prefixed("model.", "text.", DECODER), "lm_head.weight": head})


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    return talking_in(directory, GPTConfig(text=decoder_in(raw, str(directory / "config.json")), ends=ends_in(raw, directory)))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json and the tokenizer's files, the template of conversations among them."""
    assert isinstance(config, GPTConfig)
    raw = decoder_out(config.text) | {"dtype": "float32", "eos_token_id": ends_out(config.ends)}
    write_json(directory / "config.json", raw | {"architectures": [HEADS_OF[raw["model_type"]]]})
    talking_out(directory, config, processor)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, GPTConfig):
        return "it is no language model"
    return decoder_misfit(config.text) or talking_misfit(config, processor)


def outputs(module: GPT, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`logits` [B, L, V] and `last_hidden_state` [B, L, D] of `input_ids` and `attention_mask`."""
    only(inputs, ("input_ids", "attention_mask"))
    return said_out(module, tokens_in(inputs))


def said_out(module: GPT, tokens: Tokens) -> dict[str, Tensor]:
    """States and scores under the library's names."""
    states = module.say(tokens)
    return {"logits": F.linear(states, *module.output), "last_hidden_state": states}


def talking_in(directory: Path, config: GPTConfig) -> tuple[GPTConfig, Processor]:
    """The configuration with what its tokenizer puts before texts; tokenizer and conversations.

    Padding is told by its place, so where no file names a token for it, the one that ends texts will do.
    """
    context = config.text.context
    end = content_of(read_said(directory).get("eos_token")) or "</s>"
    text = read_tokenizer(directory, max_length=None, context=context, pad=end, decoder=True)
    chat = conversations_in(directory, text, ends=config.ends, context=context)
    return config.model_copy(update={"start": begins(text)}), Processor(text=text).with_chat(chat)


def begins(text: Tokenizer) -> tuple[int, ...]:
    """What a tokenizer puts before every text."""
    (whole,), (own,) = text.encode(["a"])[0], text.pieces(["a"])
    found = next((at for at in range(len(whole)) if own and whole[at : at + len(own)] == own), 0)
    return tuple(whole[:found])


def talking_out(directory: Path, config: GPTConfig, processor: Processor) -> None:
    """generation_config.json, the tokenizer's files and the template of conversations."""
    text, chat = processor.text, processor.chat
    assert text is not None
    # In config.json the library would take padding's id for a word that is never learnt, though it may end texts too.
    write_json(directory / GENERATION, {"eos_token_id": ends_out(config.ends), "pad_token_id": text.pad_id})
    special = {} if chat is None else {"bos_token": chat.config.bos_token, "eos_token": chat.config.eos_token}
    special = {name: token for name, token in special.items() if token}
    write_tokenizer(directory, text, "PreTrainedTokenizerFast", special, padding_side="left")
    if chat is not None:
        (directory / TEMPLATE).write_text(chat.config.template, "utf-8")


def talking_misfit(config: GPTConfig, processor: Processor | None) -> str | None:
    """Why the files beside a language model cannot say what belongs to it; None when they can."""
    if processor is None:
        return None
    if processor.text is None:
        return "it has no tokenizer"
    if (begun := begins(processor.text)) != config.start:
        return f"its texts begin with {config.start}, those of its tokenizer with {begun}"
    if processor.chat is not None and processor.chat.config.placeholders:
        return "its conversations have more than words"
    if processor.chat is not None and processor.chat.ends != config.ends:
        return f"its conversations end turns with {processor.chat.ends}, the model with {config.ends}"
    return None
