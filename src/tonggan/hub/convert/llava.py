"""LLaVA (Liu et al. 2023; 1.5: Liu et al. 2024) as Hugging Face publishes it (`LlavaForConditionalGeneration`): CLIP's or SigLIP's picture
tower under a Llama or Qwen decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.chat import ChatProcessing, ChatProcessor
from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.hub.convert import clip, siglip
from tonggan.hub.convert.conversations import PROCESSOR, TEMPLATE, conversations_in, placeholder_in
from tonggan.hub.convert.decoder import DECODER, GENERATION, decoder_in, decoder_misfit, decoder_out, ends_in, ends_out
from tonggan.hub.convert.fields import activation_in, activation_out, need
from tonggan.hub.convert.preprocessor import image_in, image_misfit, image_out, read_settings
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import read_json, write_json
from tonggan.models import Chat, ChatConfig, ModelConfig
from tonggan.models.projectors import MLPConfig
from tonggan.models.towers import Colour, ViTConfig
from tonggan.tensors import Batch, Pieces, Tokens
from tonggan.types import TongganError, UsageError

MODEL_TYPES = ("llava",)
HEADS = ("LlavaForConditionalGeneration",)
TOWERS = {"clip_vision_model": "CLIP", "siglip_vision_model": "Siglip"}
"""Kinds of picture tower, and their processors'."""


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    return KeyTable("LLaVA", rules(config))


def rules(config: ModelConfig) -> Rules:
    """As published, and as other releases of the library have them."""
    assert isinstance(config, ChatConfig) and isinstance(config.image, ViTConfig)
    vision = clip.VISION if _kind(config.image) == "clip_vision_model" else siglip.VISION
    projector = {"linear_1.{p}": "first.{p}", "linear_2.{p}": "second.{p}"}
    head = "text.embedding.weight" if config.text.tied else "text.head.weight"
    found: dict[str, Any] = {}
    for outer in ("", "model."):
        found |= prefixed(f"{outer}vision_tower.vision_model.", "image.", vision)
        found |= prefixed(f"{outer}vision_tower.", "image.", vision)
        found |= prefixed(f"{outer}multi_modal_projector.", "image_projector.", projector)
    for inner in ("language_model.model.", "model.language_model."):
        found |= prefixed(inner, "text.", DECODER)
    return found | {"language_model.lm_head.weight": head, "lm_head.weight": head}


def config_in(raw: Mapping[str, Any], directory: Path, mean: Colour, std: Colour, defaults: Mapping[str, Any]) -> ChatConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json."""
    where = str(directory / "config.json")
    given = {**defaults, **{name: value for name, value in raw.items() if value is not None}}
    text = {"model_type": defaults["text_config"]["model_type"], **given["text_config"]}
    image = tower_in(given["vision_config"], defaults["vision_config"]["model_type"], where, mean, std)
    layers, cut = given["vision_feature_layer"], given["vision_feature_select_strategy"] == "default"
    need(given, {"vision_feature_select_strategy": "default" if cut else "full"}, where)
    if cut and image.pooling != "class":
        raise TongganError(
            f"{where}: vision_feature_select_strategy 'default' leaves out the first state, which in a SigLIP tower is no class token but "
            "a patch; set it to 'full' if that is how the model was trained"
        )
    decoder = decoder_in(text, f"{where}: text_config")
    return ChatConfig(
        image=image,
        image_layers=(layers,) if isinstance(layers, int) else tuple(layers),
        class_token=image.pooling == "class" and not cut,
        image_projector=MLPConfig(activation=activation_in(given["projector_hidden_act"], where), bias=given["multimodal_projector_bias"]),
        image_token=given.get("image_token_id", given["image_token_index"]),
        text=decoder.model_copy(update={"tied": bool(given["tie_word_embeddings"] or text.get("tie_word_embeddings", False))}),
        ends=ends_in(text | {name: given[name] for name in ("eos_token_id",) if name in given}, directory),
    )


def tower_in(vision: Mapping[str, Any], plain: str, where: str, mean: Colour, std: Colour) -> ViTConfig:
    """Our picture tower of their vision_config; what it is where it does not say is `plain`."""
    kind, where = vision.get("model_type", plain), f"{where}: vision_config"
    if kind not in TOWERS:
        raise TongganError(f"{where}: model_type {kind!r} is not supported; supported are: {', '.join(TOWERS)}")
    if kind == "clip_vision_model":
        return clip.vision_in({**clip.VISION_DEFAULTS, **vision}, where, mean, std)
    tower = clip.vision_in({**siglip.VISION_DEFAULTS, **vision}, where, mean, std)
    head = "attention" if vision.get("vision_use_head", True) else "mean"
    return tower.model_copy(update={"pre_norm": False, "patch_bias": True, "pooling": head})


def config_out(config: ChatConfig, pad: int) -> dict[str, Any]:
    """Their config.json of ours."""
    image, projector = config.image, config.image_projector
    assert isinstance(image, ViTConfig) and isinstance(projector, MLPConfig)
    kind = _kind(image)
    head = {} if kind == "clip_vision_model" else {"vision_use_head": image.pooling == "attention"}
    layers = config.image_layers
    return {
        "architectures": list(HEADS),
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        "image_token_index": config.image_token,
        "image_seq_length": features_of(config),
        "projector_hidden_act": activation_out(projector.activation),
        "multimodal_projector_bias": projector.bias,
        "vision_feature_layer": layers[0] if len(layers) == 1 else list(layers),
        "vision_feature_select_strategy": "default" if kind == "clip_vision_model" and not config.class_token else "full",
        "tie_word_embeddings": config.text.tied,
        "pad_token_id": pad,
        "text_config": decoder_out(config.text) | {"eos_token_id": ends_out(config.ends)},
        "vision_config": {"model_type": kind, **clip.vision_out(image), **head},
    }


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    kind = (raw.get("vision_config") or {}).get("model_type", "clip_vision_model")
    image = image_in(*read_settings(directory), TOWERS.get(kind, "CLIP"))
    config = config_in(raw, directory, image.mean, image.std, DEFAULTS)
    text = read_tokenizer(directory, max_length=config.text.context, context=config.text.context, pad="<pad>", decoder=True)
    return config, Processor(ImageProcessor(image), text).with_chat(chat_in(directory, config, text))


def chat_in(directory: Path, config: ChatConfig, text: Tokenizer) -> ChatProcessing | None:
    """How conversations are written out, in which a picture takes one id per feature; None where the directory has no template.

    Raises `TongganError` where processor_config.json counts otherwise.
    """
    assert isinstance(config.image, ViTConfig) and config.image_token is not None
    count, file = features_of(config), directory / PROCESSOR
    said = read_json(file) if file.is_file() else {}
    if said.get("patch_size") is not None:
        side = config.image.image_size
        assert isinstance(side, int)
        theirs = (side // said["patch_size"]) ** 2 + said.get("num_additional_image_tokens", 0)
        theirs -= said.get("vision_feature_select_strategy") == "default"
        if theirs != count:
            raise TongganError(
                f"{file}: {theirs} placeholders for a picture (patch_size, num_additional_image_tokens, vision_feature_select_strategy), "
                f"but the model of config.json has {count} features of one"
            )
    image = placeholder_in(directory, text, config.image_token, count)
    return conversations_in(directory, text, ends=config.ends, context=config.text.context, image=image, framed=True)


def features_of(config: ChatConfig) -> int:
    """Of a picture: its patches and, where it is one, the class token."""
    assert isinstance(config.image, ViTConfig)
    rows, columns = config.image.grid
    return rows * columns + config.class_token


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, ChatConfig) and isinstance(config.image, ViTConfig)
    assert processor.image is not None and processor.text is not None
    write_json(directory / "config.json", config_out(config, processor.text.pad_id))
    write_json(directory / GENERATION, {"eos_token_id": ends_out(config.ends), "pad_token_id": processor.text.pad_id})
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, TOWERS[_kind(config.image)]))
    chat = processor.chat
    special = {} if chat is None else {"bos_token": chat.config.bos_token, "eos_token": chat.config.eos_token}
    special = {name: token for name, token in special.items() if token}
    write_tokenizer(directory, processor.text, "PreTrainedTokenizerFast", special, padding_side="left")
    if chat is not None and chat.config.image is not None:
        (directory / TEMPLATE).write_text(chat.config.template, "utf-8")
        classes = config.image.pooling == "class"
        settings = {
            "processor_class": "LlavaProcessor",
            "image_token": chat.config.image.text,
            "patch_size": config.image.patch_size,
            "num_additional_image_tokens": int(classes),
            "vision_feature_select_strategy": "default" if classes and not config.class_token else "full",
        }
        write_json(directory / PROCESSOR, settings)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, ChatConfig) or config.audio is not None:
        return "it is no chat model of pictures and words alone"
    if config.tiles is not None:
        return "it reads pictures of any resolution in tiles"
    image, projector = config.image, config.image_projector
    if not isinstance(image, ViTConfig) or (clip.vision_misfit(image) is not None and not _siglip(image)):
        return "its picture tower is neither CLIP's ViT nor SigLIP's"
    if not isinstance(projector, MLPConfig) or (projector.layers, projector.norm, projector.stack) != (2, False, 1):
        return "its projector is not two linear maps of each state"
    if config.vocab_size > config.text.vocab_size:
        return f"its placeholder {config.image_token} is not among the {config.text.vocab_size} words of its decoder"
    if reason := decoder_misfit(config.text):
        return reason
    if processor is None:
        return None
    if processor.image is None or processor.text is None:
        return "it has not both processors"
    if processor.chat is not None and (reason := _chat_misfit(processor.chat, config)):
        return reason
    return image_misfit(processor.image.config, TOWERS[_kind(image)])


def _chat_misfit(chat: ChatProcessor, config: ChatConfig) -> str | None:
    """Why the files cannot say how conversations are written out; None when they can."""
    place = chat.config.image
    if place is None or (place.id, place.count) != (config.image_token, features_of(config)):
        return f"its conversations do not have {features_of(config)} times the word {config.image_token} where a picture is"
    if chat.tokenizer.id_of(place.text) != place.id:
        return f"its placeholder {place.text} is not in its tokenizer"
    if chat.ends != config.ends:
        return f"its conversations end turns with {chat.ends}, the model with {config.ends}"
    return None


def outputs(module: Chat, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`logits` [B, L, V] and `last_hidden_state` [B, L, D] of `input_ids`, `attention_mask` and `pixel_values` [N, 3, H, W], the pictures
    of all rows in reading order; whose they are, the placeholders tell. With pictures `image_hidden_states` [N, P, D] too."""
    only(inputs, ("input_ids", "attention_mask", "pixel_values"))
    tokens, pixels = tokens_in(inputs), inputs.get("pixel_values")
    seen, found = None, {}
    if pixels is not None:
        each = features_of(module.config)
        pictures = Pieces(pixels, _pictures_of(tokens, module.config.image_token, each, len(pixels)))
        seen = module.read(Batch(tuple(map(str, range(len(tokens.ids)))), tokens=tokens, pictures=pictures))
        assert seen is not None
        found["image_hidden_states"] = seen.kinds[0].values.view(len(pixels), each, -1)
    states = module.say(tokens, seen)
    weight, _ = module.output
    return {"logits": states @ weight.T, "last_hidden_state": states, **found}


def _pictures_of(tokens: Tokens, placeholder: int | None, each: int, pictures: int) -> tuple[int, ...]:
    """How many pictures are each row's; raises `UsageError` where the placeholders are not those of whole pictures, or of others."""
    assert placeholder is not None
    found = tokens.ids.eq(placeholder).sum(dim=1).tolist()
    if any(count % each for count in found) or sum(found) != each * pictures:
        what = f"{pictures} pictures of {each} features each"
        raise UsageError(f"rows of {found} placeholders for {what}; give one placeholder for each feature")
    return tuple(count // each for count in found)


def _siglip(image: ViTConfig) -> bool:
    square = isinstance(image.image_size, int) and isinstance(image.patch_size, int)
    plain = not image.pre_norm and image.patch_bias and not image.pooler and image.positions == "learned"
    return square and plain and image.pooling in ("attention", "mean")


def _kind(image: ViTConfig) -> str:
    return "siglip_vision_model" if _siglip(image) else "clip_vision_model"


DEFAULTS: dict[str, Any] = {
    "projector_hidden_act": "gelu", "multimodal_projector_bias": True, "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default", "tie_word_embeddings": False, "image_token_index": 32000,
    "text_config": {"model_type": "llama"},
    "vision_config": {
        "model_type": "clip_vision_model", "intermediate_size": 4096, "hidden_size": 1024, "patch_size": 14, "image_size": 336,
        "num_hidden_layers": 24, "num_attention_heads": 16,
    },
}  # fmt: skip
