"""CoCa as open_clip publishes it: open_clip_config.json for shape and pictures, and CLIP's vocabulary, which its library brings along."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import END, START, TextProcessing, Tokenizer
from tonggan.hub.convert.fields import need
from tonggan.hub.convert.table import SCALAR_TO_VECTOR, TRANSPOSED, KeyTable, Rules, Stacked, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import CONFIGS, write_json
from tonggan.models import Coca, CocaConfig, ModelConfig
from tonggan.models.towers import CLIP_MEAN, CLIP_STD, ViTConfig
from tonggan.tensors import Batch
from tonggan.types import TongganError, UsageError

FILE = CONFIGS[1]
MODEL_TYPES = ("open_clip-coca",)
"""The file itself names none: `hub.families.described` says what it is."""
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
"""What the library looks for, by preference."""
VOCABULARY = 49408

ATTENTION: Rules = {
    "attn.in_proj_{p}": Stacked(("attention.q.{p}", "attention.k.{p}", "attention.v.{p}")),
    "attn.out_proj.{p}": "attention.out.{p}",
}
LAYER: Rules = {
    "ln_1.{p}": "norm1.{p}",
    **ATTENTION,
    "ln_2.{p}": "norm2.{p}",
    "mlp.c_fc.{p}": "feed_forward.up.{p}",
    "mlp.c_proj.{p}": "feed_forward.down.{p}",
}
RULES: Rules = {
    "visual.class_embedding": "image.class_token",
    "visual.positional_embedding": "image.positions.weight",
    "visual.conv1.weight": "image.patches.weight",
    "visual.ln_pre.{p}": "image.pre_norm.{p}",
    **prefixed("visual.transformer.resblocks.{i}.", "image.transformer.blocks.{i}.", LAYER),
    "visual.attn_pool.ln_k.{p}": "image.post_norm.{p}",
    "visual.attn_pool.query": "pooler.queries",
    "visual.attn_pool.ln_q.{p}": "pooler.norm.{p}",
    "visual.ln_post.{p}": "pooler_norm.{p}",
    "visual.proj": ("image_head.weight", TRANSPOSED),
    "text.cls_emb": "text.class_token",
    "text.token_embedding.weight": "text.embedding.weight",
    "text.positional_embedding": "text.positions.weight",
    **prefixed("text.transformer.resblocks.{i}.", "text.transformer.blocks.{i}.", LAYER),
    "text.ln_final.{p}": "text.post_norm.{p}",
    "text.text_projection": ("text_head.weight", TRANSPOSED),
    **prefixed("text_decoder.resblocks.{i}.", "decoder.blocks.{i}.", LAYER),
    **prefixed("text_decoder.cross_attn.{i}.", "decoder.looks.{i}.", {**LAYER, "ln_1.{p}": "norm.{p}", "ln_1_kv.{p}": "norm_source.{p}"}),
    "text_decoder.ln_final.{p}": "decoder_norm.{p}",
    "text_decoder.text_projection": ("head.weight", TRANSPOSED),
    "logit_scale": ("log_scale", SCALAR_TO_VECTOR),
}
APART: Rules = {
    "attn.q_proj_weight": "attention.q.weight",
    "attn.k_proj_weight": "attention.k.weight",
    "attn.v_proj_weight": "attention.v.weight",
    "attn.in_proj_bias": Stacked(("attention.q.bias", "attention.k.bias", "attention.v.bias")),
    "attn.out_proj.{p}": "attention.out.{p}",
}
"""How torch names an attention to states of another width."""

PICTURES: dict[str, Any] = {
    "image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0, "attn_pooler_queries": 256,
    "attn_pooler_heads": 8, "no_ln_pre": False,
}  # fmt: skip
WORDS: dict[str, Any] = {
    "context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0, "pad_id": 0,
}  # fmt: skip
SAYS: dict[str, Any] = {"context_length": 77, "width": 512, "heads": 8, "layers": 12}
WHOLE: dict[str, Any] = {"embed_dim": None, "quick_gelu": False, "init_logit_scale": math.log(1 / 0.07)}
"""What each part of the file has where it is silent."""
PLAIN: dict[str, Any] = {
    "ls_init_value": None, "act_kwargs": None, "norm_kwargs": None, "block_type": None, "qk_norm": False, "scaled_cosine_attn": False,
    "scale_heads": False, "scale_attn_inner": False, "scale_attn": False, "scale_fc": False,
}  # fmt: skip
ONLY: dict[str, dict[str, Any]] = {
    "vision_cfg": PLAIN | {"attentional_pool": True, "output_tokens": True, "pool_type": "tok", "pos_embed_type": "learnable"},
    "text_cfg": PLAIN | {
        "embed_cls": True, "output_tokens": True, "no_causal_mask": False, "proj_type": "linear", "proj_bias": False, "hf_model_name": None,
        "hf_tokenizer_name": None, "tokenizer_kwargs": None,
    },
    "multimodal_cfg": {"ls_init_value": None},
    "model_cfg": {"init_logit_bias": None, "nonscalar_logit_scale": False},
}  # fmt: skip
"""Settings that would change the computation, and that we have at one value."""
INERT: dict[str, frozenset[str]] = {
    "vision_cfg": frozenset({"final_ln_after_pool", "patch_dropout"}),
    "text_cfg": frozenset({"final_ln_after_pool", "pool_type", "eos_id", "tokenizer_mode"}),
    "multimodal_cfg": frozenset({"vocab_size", "n_queries", "attn_pooler_heads", "dim_head", "mlp_ratio"}),
    "model_cfg": frozenset({"custom_text", "vision_cfg", "text_cfg", "multimodal_cfg", "pad_id"}),
}
"""Settings that the library's CoCa does not look at, or that matter in training only."""


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours. The queries' attention is stored otherwise where pictures are as wide as words."""
    alike = isinstance(config, CocaConfig) and config.image.width == config.text.width
    return KeyTable("CoCa", {**RULES, **prefixed("visual.attn_pool.", "pooler.", ATTENTION if alike else APART)})


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory. Its vocabulary is in the files of CLIP's tokenizer that are published beside it."""
    where = str(directory / FILE)
    shape = raw.get("model_cfg")
    if not isinstance(shape, dict):
        raise TongganError(f"{where}: has no model_cfg, so it describes no model")
    image = image_in(raw.get("preprocess_cfg") or {}, _part(shape, "vision_cfg", PICTURES, where)["image_size"], f"{where}: preprocess_cfg")
    config = config_in(shape, where, image)
    text = _tokenizer(directory, config)
    ids = {name: text.id_of(token) for name, token in (("start", START), ("ends", END))}
    found = {name: (number,) for name, number in ids.items() if number is not None}
    return config.model_copy(update=found), Processor(ImageProcessor(image), text)


def config_in(shape: Mapping[str, Any], where: str, image: ImageProcessing) -> CocaConfig:
    """Our configuration of their model_cfg."""
    pictures, words, says = (
        _part(shape, name, known, where) for name, known in (("vision_cfg", PICTURES), ("text_cfg", WORDS), ("multimodal_cfg", SAYS))
    )
    whole = _part({"model_cfg": shape}, "model_cfg", WHOLE, where)
    widths = {"embed_dim": whole["embed_dim"], "text_cfg.width": words["width"], "multimodal_cfg.width": says["width"]}
    if len(set(widths.values())) > 1 or words["context_length"] != says["context_length"]:
        given = ", ".join(f"{name} {value}" for name, value in widths.items())
        lengths = f"{words['context_length']} and {says['context_length']}"
        raise TongganError(f"{where}: text and words that look at pictures are of one width and length, not {given}; {lengths} positions")
    if pictures["width"] % pictures["head_width"]:
        raise TongganError(f"{where}: vision_cfg: heads of {pictures['head_width']} do not divide width {pictures['width']}")
    activation = "quick_gelu" if whole["quick_gelu"] else "gelu"
    return CocaConfig.parse(
        {
            "image": {
                "image_size": pictures["image_size"],
                "mean": image.mean,
                "std": image.std,
                "patch_size": pictures["patch_size"],
                "width": pictures["width"],
                "layers": pictures["layers"],
                "heads": pictures["width"] // pictures["head_width"],
                "mlp_width": int(pictures["width"] * pictures["mlp_ratio"]),
                "activation": activation,
                "pre_norm": not pictures["no_ln_pre"],
            },
            "queries": pictures["attn_pooler_queries"],
            "pooler_heads": pictures["attn_pooler_heads"],
            "text": {
                "vocab_size": words["vocab_size"],
                "context": words["context_length"],
                "width": words["width"],
                "layers": words["layers"],
                "heads": words["heads"],
                "mlp_width": int(words["width"] * words["mlp_ratio"]),
                "activation": activation,
                "padding_id": words["pad_id"],
            },
            "decoder_layers": says["layers"],
            "decoder_heads": says["heads"],
            "decoder_mlp_width": 4 * says["width"],  # whatever mlp_ratio says
            "scale_init": whole["init_logit_scale"],
        },
        where,
    )


def image_in(settings: Mapping[str, Any], size: Any, where: str) -> ImageProcessing:
    """Their settings of pictures as ours."""
    known = {"mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    _known(settings, {*known, "size", "mode", "fill_color"}, where)
    need(settings, {"mode": "RGB"}, where)
    given = known | {name: value for name, value in settings.items() if value is not None}
    mode, filters = {"shortest": "crop", "squash": "squash"}, {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
    if given["resize_mode"] not in mode or given["interpolation"] not in filters:
        raise TongganError(f"{where}: not supported: resize_mode={given['resize_mode']!r}, interpolation={given['interpolation']!r}")
    if mode[given["resize_mode"]] == "crop" and not isinstance(size, int):
        raise TongganError(f"{where}: pictures of {size} that are cut out are not supported, only those that are squashed")
    settled = {"rounding": "openai", "transparency": "ignore", "mean": given["mean"], "std": given["std"], "size": size}
    return ImageProcessing.parse({"mode": mode[given["resize_mode"]], "interpolation": filters[given["interpolation"]], **settled}, where)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """open_clip_config.json, and the tokenizer's files for readers other than the library."""
    assert isinstance(config, CocaConfig) and processor.image is not None and processor.text is not None
    image = processor.image.config
    pictures = {"mean": list(image.mean), "std": list(image.std), "interpolation": image.interpolation}
    resize = {"resize_mode": "shortest" if image.mode == "crop" else "squash"}
    write_json(directory / FILE, {"model_cfg": config_out(config), "preprocess_cfg": pictures | resize})
    special = {"bos_token": START, "eos_token": END, "unk_token": END}
    write_tokenizer(directory, processor.text, "CLIPTokenizer", special)


def config_out(config: CocaConfig) -> dict[str, Any]:
    """Their model_cfg of ours; `misfit` must have found nothing."""
    image, text = config.image, config.text
    size, patch = (list(some) if isinstance(some, tuple) else some for some in (image.image_size, image.patch_size))
    pictures = {
        "image_size": size,
        "patch_size": patch,
        "width": image.width,
        "layers": image.layers,
        "head_width": image.width // image.heads,
        "mlp_ratio": image.mlp_width / image.width,
        "attentional_pool": True,
        "attn_pooler_queries": config.queries,
        "attn_pooler_heads": config.pooler_heads,
        "output_tokens": True,
    }
    words = {
        "context_length": text.context,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": text.mlp_width / text.width,
        "embed_cls": True,
        "output_tokens": True,
    }
    says = {"context_length": text.context, "vocab_size": text.vocab_size, "width": text.width}
    return {
        "embed_dim": text.width,
        "vision_cfg": pictures | ({} if image.pre_norm else {"no_ln_pre": True}),
        "text_cfg": words | ({"pad_id": text.padding_id} if text.padding_id else {}),
        "multimodal_cfg": says | {"heads": config.decoder_heads, "layers": config.decoder_layers},
        "custom_text": True,
        **({"quick_gelu": True} if text.activation == "quick_gelu" else {}),
        **({} if config.scale_init == WHOLE["init_logit_scale"] else {"init_logit_scale": config.scale_init}),
    }


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, CocaConfig):
        return "it is not CoCa"
    if reason := _shape_misfit(config.image, config):
        return reason
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    image, text = processor.image.config, processor.text
    if (image.rounding, image.transparency, image.decode, image.crop) != ("openai", "ignore", "exact", None):
        return "its pictures are not processed as open_clip does it (rounding, transparency, decode, crop)"
    if image.mode not in ("crop", "squash") or image.interpolation not in ("bicubic", "bilinear"):
        return "its pictures are neither cut out nor squashed, or with another filter"
    given = text.config.cleaning, text.config.pad_id, text.config.pad_to, text.config.max_length, text.config.truncation_side
    if text.end is None or given != ("openai", config.text.padding_id, None, config.text.context, "right"):
        return "its text is not cleaned, cut and padded as open_clip does it"
    if (text.vocab_size, config.start, config.ends) != (VOCABULARY, (VOCABULARY - 2,), (VOCABULARY - 1,)):
        return f"its words are not the {VOCABULARY} that open_clip brings along"
    return None


def outputs(module: Coca, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`image_features` and `text_features`, normalised, and, of both, `logits` of the word after each. `pixel_values` are the library's
    `image`, `input_ids` its `text`, whose padding stands behind them and has an id of its own; features are those of texts that are padded
    to the whole context, as the library's tokenizer does it."""
    only(inputs, ("input_ids", "attention_mask", "pixel_values"))
    found: dict[str, Tensor] = {}
    if "pixel_values" in inputs:
        found["image_features"] = module.encode("image", inputs["pixel_values"])
    if "input_ids" in inputs:
        tokens = tokens_in(inputs)
        if tokens.starts is not None:
            raise UsageError("attention_mask: the library's texts are padded on the right")
        found["text_features"] = module.encode("text", tokens)
        if "pixel_values" in inputs:
            seen = module.read(Batch(("",) * len(tokens.ids), pixels=inputs["pixel_values"]))
            found["logits"] = F.linear(module.say(tokens, seen), *module.output)
    return found


def _part(shape: Mapping[str, Any], name: str, known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of a part of the file, those of `known` with their defaults; raises `TongganError` for any that we do not have."""
    given = shape.get(name)
    if not isinstance(given, dict):
        raise TongganError(f"{where}: has no {name}: it is not a CoCa")
    said = {one: None if value in ("", {}) else value for one, value in given.items()}
    need({**{one: None for one in ONLY[name] if one in MUST}, **said}, ONLY[name], f"{where}: {name}")
    _known(given, {*known, *ONLY[name], *INERT[name]}, f"{where}: {name}")
    return {one: given.get(one, default) for one, default in known.items()}


MUST = frozenset({"attentional_pool", "embed_cls", "output_tokens"})
"""Of what there is only one value of, that which is not the library's own default."""


def _known(given: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(given) - known):
        raise TongganError(f"{where}: unknown: {', '.join(unknown)}")


def _tokenizer(directory: Path, config: CocaConfig) -> Tokenizer:
    """CLIP's rules over the vocabulary of the directory's files."""
    spec = read_tokenizer(directory, max_length=None, context=config.text.context, pad=END).spec["model"]
    if spec["type"] != "BPE" or spec.get("end_of_word_suffix") != "</w>":
        raise TongganError(f"{directory}: its tokenizer is not CLIP's, which is the one that open_clip reads a CoCa's words by")
    merges = [(left, right) for left, right in (one.split(" ") if isinstance(one, str) else one for one in spec["merges"])]
    settings = TextProcessing(cleaning="openai", max_length=config.text.context, pad_id=config.text.padding_id)
    return Tokenizer.clip(spec["vocab"], merges, settings)


def _shape_misfit(image: ViTConfig, config: CocaConfig) -> str | None:
    text = config.text
    if image.patch_bias or image.positions != "learned":
        return "its ViT is not CLIP's (learned positions, patches without bias)"
    if {image.eps, text.eps} != {1e-5} or image.activation != text.activation or text.activation not in ("gelu", "quick_gelu"):
        return "its norms or activations are not those of the format, the same in all parts"
    if config.decoder_mlp_width != 4 * text.width:
        return "its feed-forwards behind the pictures are not four times as wide as the words"
    named = all(int(one.mlp_width / one.width * one.width) == one.mlp_width for one in (image, text))
    if image.width % image.heads or not named:
        return "its widths are no multiples that the format could name"
    return None
