"""Idefics (Laurençon et al. 2023, OBELICS, appendix B) as Hugging Face publishes it (`IdeficsForVisionText2Text`): Flamingo over CLIP
and Llama.

What its dropout and freezing settings say concerns training alone, and is not read; nor is how its gates begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tonggan.data.chat import ChatProcessing, ChatProcessor, Placeholder
from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.hub.convert.clip import VISION, vision_in, vision_misfit
from tonggan.hub.convert.conversations import TEMPLATE, conversations_in
from tonggan.hub.convert.decoder import ends_out, ends_said, rotary_in, rotary_out
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import Change, KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import Flamingo, FlamingoConfig, ModelConfig
from tonggan.models.flamingo import ResamplerConfig
from tonggan.models.gpt import DecoderConfig
from tonggan.models.towers import Colour, ViTConfig
from tonggan.tensors import Batch, Pieces
from tonggan.types import TongganError, UsageError

MODEL_TYPES = ("idefics",)
HEADS = ("IdeficsForVisionText2Text",)
PLACEHOLDER = "<image>"
"""The library's word for a picture; its config.json does not say which id that is."""

ATTENTION: Rules = {
    "q_proj.weight": "q.weight",
    "k_proj.weight": "k.weight",
    "v_proj.weight": "v.weight",
    "q_layer_norm.{p}": "q_norm.{p}",
    "k_layer_norm.{p}": "k_norm.{p}",
}
AROUND: Rules = {
    "input_layernorm.weight": "norm1.weight",
    "post_attention_layernorm.weight": "norm2.weight",
    "mlp.gate_proj.weight": "feed_forward.gate.weight",
    "mlp.up_proj.weight": "feed_forward.up.weight",
    "mlp.down_proj.weight": "feed_forward.down.weight",
}
BLOCK: Rules = {
    **prefixed("self_attn.", "attention.", {**ATTENTION, "o_proj.weight": "out.weight"}),
    "self_attn.rotary_emb.inv_freq": None,  # computed; older versions stored it
    **AROUND,
}
GATED: Rules = {
    **prefixed("cross_attn.", "cross.", {**ATTENTION, "o_proj.weight": "out.weight"}),
    "cross_attn.rotary_emb.inv_freq": None,  # of no use to attention between text and pictures
    **AROUND,
}
READING: Rules = {
    "0.context_layer_norm.{p}": "norm_source.{p}",
    "0.latents_layer_norm.{p}": "norm.{p}",
    **prefixed("0.", "attention.", {**ATTENTION, "output_proj.weight": "out.weight"}),
    "1.ln.{p}": "norm2.{p}",
    "1.fc.weight": "feed_forward.up.weight",
    "1.c_proj.weight": "feed_forward.down.weight",
}
CHANNELS = Change(lambda t: t.reshape(-1), lambda t: t.reshape(1, 1, -1))


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    assert isinstance(config, FlamingoConfig)
    head, added = ("embedding", "added") if config.text.tied else ("head", "added_head")
    gates: Rules = {"alpha_cross_attn": "gate1", "alpha_dense": "gate2"}
    if config.gate == "channel":
        gates = {"alpha_cross_attn": ("gate1", CHANNELS), "alpha_dense": ("gate2", CHANNELS)}
    return KeyTable(
        "Idefics",
        {
            "model.embed_tokens.weight": "text.embedding.weight",
            "model.embed_tokens.additional_embedding.weight": "added.weight",
            **prefixed("model.vision_model.", "image.", VISION),
            "model.perceiver_resampler.latents": "resampler.queries",
            **prefixed("model.perceiver_resampler.blocks.{i}.", "resampler.layers.{i}.", READING),
            "model.perceiver_resampler.layer_norm.{p}": "resampler.norm_out.{p}",
            **prefixed("model.layers.{i}.", "text.transformer.blocks.{i}.", BLOCK),
            **prefixed("model.gated_cross_attn_layers.{i}.", "gated.{i}.", {**GATED, **gates}),
            "model.norm.weight": "text.norm.weight",
            "lm_head.weight": f"text.{head}.weight",
            "lm_head.additional_fc.weight": f"{added}.weight",
        },
    )


def config_in(raw: Mapping[str, Any], directory: Path, mean: Colour, std: Colour, image_token: int) -> FlamingoConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json, the placeholder's id from the
    tokenizer."""
    given, where = {**DEFAULTS, **raw}, str(directory / "config.json")
    base, stretch = rotary_in(raw, given["max_position_embeddings"], where)
    layers, every, gate = given["num_hidden_layers"], given["cross_layer_interval"], given["alpha_type"]
    if layers % every:
        raise TongganError(f"{where}: cross_layer_interval {every} does not divide num_hidden_layers {layers}")
    if gate not in GATES:
        raise TongganError(f"{where}: alpha_type {gate!r} is not supported; supported are: {', '.join(GATES)}")
    vision, reader = given["vision_config"] or {}, given["perceiver_config"] or {}
    return FlamingoConfig(
        image=vision_in(VISION_DEFAULTS | {"hidden_size": vision.get("embed_dim", 768)} | vision, f"{where}: vision_config", mean, std),
        resampler=ResamplerConfig(
            queries=reader.get("resampler_n_latents", 64),
            layers=reader.get("resampler_depth", 6),
            heads=reader.get("resampler_n_heads", 16),
            head_width=reader.get("resampler_head_dim", 96),
            qk_norm=reader.get("qk_layer_norms_perceiver", False),
        )
        if given["use_resampler"]
        else None,
        text=DecoderConfig(
            vocab_size=given["vocab_size"],
            context=given["max_position_embeddings"],
            width=given["hidden_size"],
            layers=layers,
            heads=given["num_attention_heads"],
            mlp_width=given["intermediate_size"],
            activation=activation_in(given["hidden_act"], where),
            eps=given["rms_norm_eps"],
            rotary_base=base,
            rotary_stretch=stretch,
            tied=given["tie_word_embeddings"],
        ),
        image_token=image_token,
        added_words=given["additional_vocab_size"],
        every=every,
        gate=GATES[gate],
        qk_norm=given["qk_layer_norms"],
        ends=ends_said(given["eos_token_id"], directory),
    )


def config_out(config: FlamingoConfig, *, start: int | None, pad: int) -> dict[str, Any]:
    """Their config.json of ours. The two ids are the tokenizer's."""
    image, text, reader = config.image, config.text, config.resampler
    assert isinstance(image, ViTConfig)
    perceiver = {} if reader is None else {
        "resampler_n_latents": reader.queries,
        "resampler_depth": reader.layers,
        "resampler_n_heads": reader.heads,
        "resampler_head_dim": reader.head_width or image.width // reader.heads,
        "qk_layer_norms_perceiver": reader.qk_norm,
    }  # fmt: skip
    return {
        "architectures": list(HEADS),
        "model_type": "idefics",
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "additional_vocab_size": config.added_words,
        "max_position_embeddings": text.context,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": activation_out(text.activation),
        "rms_norm_eps": text.eps,
        "rope_parameters": rotary_out(text),
        "tie_word_embeddings": text.tied,
        "cross_layer_interval": config.every,
        "qk_layer_norms": config.qk_norm,
        "alpha_type": next(theirs for theirs, ours in GATES.items() if ours == config.gate),
        "alpha_initializer": "zeros",
        "use_resampler": reader is not None,
        "perceiver_config": {"model_type": "idefics_perciever", "use_resampler": reader is not None, **perceiver},  # sic
        "vision_config": {
            "model_type": "idefics_vision",
            "embed_dim": image.width,
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "num_channels": 3,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "intermediate_size": image.mlp_width,
            "hidden_act": activation_out(image.activation),
            "layer_norm_eps": image.eps,
        },
        "bos_token_id": start,
        "eos_token_id": ends_out(config.ends),
        "pad_token_id": pad,
    }


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    settings, where = read_settings(directory)
    need(settings, {"image_num_channels": 3, "transform": None}, where)
    size = settings.get("image_size") or 224  # which earlier versions wrote; newer ones have `size`
    known = {name: value for name, value in settings.items() if name not in ("image_num_channels", "image_size", "transform")}
    image = image_in({"size": {"height": size, "width": size}} | known, where, "Idefics")
    text = read_tokenizer(directory, max_length=None, context=raw.get("max_position_embeddings", 2048), pad="<unk>", decoder=True)
    if (placeholder := text.id_of(PLACEHOLDER)) is None:
        raise TongganError(f"{directory}: its tokenizer has no {PLACEHOLDER}, the word for a picture")
    config = config_in(raw, directory, image.mean, image.std, placeholder)
    return config, Processor(ImageProcessor(image), text).with_chat(chat_in(directory, config, text))


def chat_in(directory: Path, config: FlamingoConfig, text: Tokenizer) -> ChatProcessing | None:
    """How conversations are written out: by the directory's template or, as published ones have none, as the model's authors did.

    An answer ends where the model's do, and with the token for it where the tokenizer has one.
    """
    over = text.id_of(OVER)
    return conversations_in(
        directory,
        text,
        ends=tuple(dict.fromkeys((*config.ends, *(() if over is None else (over,))))),
        context=config.text.context,
        image=Placeholder(text=PLACEHOLDER, id=config.image_token),
        default=DIALOGUE.replace("END", "" if over is None else OVER),
    )


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json, the tokenizer's files and the template of conversations."""
    assert isinstance(config, FlamingoConfig) and processor.image is not None and processor.text is not None
    text = processor.text
    special = {name: token for name, token in SPECIAL.items() if text.id_of(token) is not None}
    if (chat := processor.chat) is not None:
        special |= {name: token for name in ("bos_token", "eos_token") if (token := getattr(chat.config, name))}
        (directory / TEMPLATE).write_text(chat.config.template, "utf-8")
    write_json(directory / "config.json", config_out(config, start=text.id_of(SPECIAL["bos_token"]), pad=text.pad_id))
    pictures = image_out(processor.image.config, "Idefics") | {"image_num_channels": 3, "image_size": processor.image.config.side}
    write_json(directory / "preprocessor_config.json", pictures)
    around = [word for word in AROUND_PICTURES if text.id_of(word) is not None]
    write_tokenizer(directory, text, "PreTrainedTokenizerFast", special, padding_side="left", additional_special_tokens=around)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, FlamingoConfig):
        return "it is no Flamingo"
    image, text, reader = config.image, config.text, config.resampler
    if not isinstance(image, ViTConfig) or vision_misfit(image) is not None:
        return "its picture tower is not CLIP's ViT"
    if config.frames is not None or config.sees != "last":
        return "it reads clips, or its words see all pictures before them"
    plain = DecoderConfig()
    if any(getattr(text, name) != getattr(plain, name) for name in PLAIN):
        return f"its language model is not Llama's of 2023 ({', '.join(PLAIN)})"
    if reader is not None and reader.head_width is None and image.width % reader.heads:
        return "the width of its resampler's heads is not whole"
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.text.id_of(PLACEHOLDER) != config.image_token:
        return f"its word for a picture is not {PLACEHOLDER}"
    if processor.text.config.cleaning != "none" or processor.text.config.pad_to is not None:
        return "its text is cleaned or padded as the library does not"
    if processor.chat is not None and (reason := _chat_misfit(processor.chat, config)):
        return reason
    size = processor.image.config
    if size.mode != "squash" or size.crop is not None or not isinstance(size.side, int):
        return "its pictures are not squeezed into a square"
    return image_misfit(size, "Idefics")


def outputs(module: Flamingo, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`logits` [B, L, V], `last_hidden_state` [B, L, D] and `image_last_hidden_state` [B·M, P, W] (the tower's, what the library gives as
    `image_outputs.last_hidden_state`), of `input_ids`, `attention_mask`, `pixel_values` [B, M, 3, H, W] and `image_attention_mask`
    [B, L, M], which may let a token see any of its row's pictures. Without pixels the text is read alone. The tower's states come from a
    pass of their own."""
    only(inputs, ("input_ids", "attention_mask", "pixel_values", "image_attention_mask"))
    tokens, pixels, sight = tokens_in(inputs), inputs.get("pixel_values"), inputs.get("image_attention_mask")
    if (pixels is None) != (sight is None):
        raise UsageError("pixel_values and image_attention_mask are given together, or neither")
    seen = None
    if pixels is not None:
        rows, most = pixels.shape[:2]
        pictures = Pieces(pixels.flatten(0, 1), (most,) * rows)
        seen = module.read(Batch(tuple(map(str, range(rows))), pictures=pictures))
    states = module.states(tokens, seen, None if sight is None else sight.bool())
    weight, _ = module.output
    found = {"logits": states @ weight.T, "last_hidden_state": states}
    return found if pixels is None else {**found, "image_last_hidden_state": module.image.tokens(pixels.flatten(0, 1)).states}


def _chat_misfit(chat: ChatProcessor, config: FlamingoConfig) -> str | None:
    """Why the files cannot say how conversations are written out; None when they can."""
    over, place = chat.tokenizer.id_of(OVER), chat.config.image
    if {*chat.config.placeholders} != {"image"} or place != Placeholder(text=PLACEHOLDER, id=config.image_token):
        return f"its conversations do not have the word {PLACEHOLDER} once where a picture is, or have sounds or clips"
    if chat.ends != (ends := tuple(dict.fromkeys((*config.ends, *(() if over is None else (over,)))))):
        return f"its conversations end turns with {chat.ends}, where the files say {ends}"
    return None


GATES: dict[str, Literal["scalar", "channel"]] = {"float": "scalar", "vector": "channel"}
BESIDE, OVER = "<fake_token_around_image>", "<end_of_utterance>"
AROUND_PICTURES = (BESIDE, PLACEHOLDER, OVER)
"""The library's processor puts the last between turns where its tokenizer names it."""
DIALOGUE = (
    "{{- bos_token -}}{%- for message in messages -%}{{- ('' if loop.first else '\\n') ~ (message.role | capitalize) ~ ':' -}}"
    "{%- if message.content is string -%}{{- ' ' ~ message.content.strip(' ') -}}"
    "{%- else -%}{%- for part in message.content -%}{%- if part.type == 'image' -%}"
    "{{- '<image>AROUND' if loop.previtem is defined and loop.previtem.type == 'image' else 'AROUND<image>AROUND' -}}"
    "{%- else -%}{{- (' ' if loop.first else '') ~ part.text.strip(' ') -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- 'END' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '\\nAssistant:' -}}{%- endif -%}"
).replace("AROUND", BESIDE)
"""As the model cards of HuggingFaceM4/idefics-9b-instruct (END: its token) and idefics-9b (none) write what the library's processor is
given: `User: …`, a new line before each further turn, blanks around a piece of text taken off."""
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
PLAIN = ("style", "kv_heads", "head_width", "qkv_bias", "out_bias", "mlp_bias", "qk_norm")
"""What Llama 7B has as our decoder has by default."""
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000, "additional_vocab_size": 0, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "alpha_type": "float",
    "eos_token_id": 2, "tie_word_embeddings": False, "cross_layer_interval": 1, "qk_layer_norms": False, "use_resampler": False,
    "vision_config": None, "perceiver_config": None,
}  # fmt: skip
VISION_DEFAULTS: dict[str, Any] = {
    "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "num_channels": 3, "image_size": 224,
    "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
