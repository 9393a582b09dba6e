"""BLIP's models that say words (Li et al. 2022) as Hugging Face publishes them: captions (`BlipForConditionalGeneration`) and answers
(`BlipForQuestionAnswering`).

Where questions of a batch differ in length, the library's answers attend to the padding of shorter ones, against the original code: ours do
not, and are the same in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonggan.data.images import ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert import bert, blip_retrieval
from tonggan.hub.convert.preprocessor import image_in, image_out, read_settings
from tonggan.hub.convert.table import KeyTable, Rules
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.weights import write_json
from tonggan.models import Captioner, CaptionerConfig, ModelConfig
from tonggan.tensors import Batch
from tonggan.types import TongganError

MODEL_TYPES = ("blip",)
CAPTIONS, ANSWERS = "BlipForConditionalGeneration", "BlipForQuestionAnswering"
HEADS = (CAPTIONS, ANSWERS)

HEAD: Rules = {
    "text_decoder.cls.predictions.transform.dense.{p}": "word_head.dense.{p}",
    "text_decoder.cls.predictions.transform.LayerNorm.{p}": "word_head.norm.{p}",
    "text_decoder.cls.predictions.bias": "word_head.bias",
    "text_decoder.cls.predictions.decoder.weight": "text.embedding.weight",  # the word embeddings and the bias once more
    "text_decoder.cls.predictions.decoder.bias": "word_head.bias",
}


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    speaks = {**blip_retrieval.SEES, **blip_retrieval.reads("text_decoder.bert.", "text.", "transformer."), **HEAD}
    asks = blip_retrieval.reads("text_encoder.", "question.", "reader.")
    return KeyTable("BLIP", {**speaks, **asks} if isinstance(config, CaptionerConfig) and config.question else speaks)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    where = str(directory / "config.json")
    image = image_in(*read_settings(directory), "Blip")
    said = raw.get("text_config") or {}
    if not said.get("tie_word_embeddings", True):
        raise TongganError(
            f"{where}: text_config.tie_word_embeddings=false is not supported: BLIP tells words by the table they are read with"
        )
    text = blip_retrieval.text_in(raw, where)
    config = CaptionerConfig(
        image=blip_retrieval.vision_in(raw, where, image.mean, image.std),
        text=text,
        question=ANSWERS in (raw.get("architectures") or ()),
        start=(said.get("bos_token_id", 30522),),
        ends=(said.get("sep_token_id", 102),),
    )
    return config, Processor(ImageProcessor(image), read_tokenizer(directory, max_length=None, context=text.context, pad="[PAD]"))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, CaptionerConfig) and processor.image is not None and processor.text is not None
    ids = {
        "bos_token_id": config.start[0],
        "sep_token_id": config.ends[0],
        "eos_token_id": config.ends[0],
        "pad_token_id": processor.text.pad_id,
    }
    raw = {
        "architectures": [ANSWERS if config.question else CAPTIONS],
        "model_type": "blip",
        "dtype": "float32",
        "text_config": blip_retrieval.text_out(config.text, config.image.width) | ids,
        "vision_config": blip_retrieval.vision_out(config.image),
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "preprocessor_config.json", image_out(processor.image.config, "Blip"))
    bert.write_words(directory, processor.text)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, CaptionerConfig):
        return "it is no captioner"
    if config.text.type_vocab or len(config.start) != 1 or len(config.ends) != 1:
        return "its text is not BLIP's (no types, one token to begin with and one that ends)"
    if config.question and config.text.width != config.image.width:
        return "its question is as wide as its text, not as its pictures, which is what BLIP's answers attend to"
    return blip_retrieval.misfit_of_parts(config.image, processor)


def outputs(module: Captioner, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`last_hidden_state` of the picture, and `logits` of what is said: `input_ids`, or, where a question is asked, `decoder_input_ids`,
    which in the reference's forward stand under a mask of their own."""
    names = ("pixel_values", "input_ids", "attention_mask")
    asks = module.config.question
    only(inputs, (*names, "decoder_input_ids", "decoder_attention_mask") if asks else names)
    first = tokens_in(inputs)
    batch = Batch(("",) * len(first.ids), pixels=inputs["pixel_values"], source=first if asks else None)
    said = tokens_in({name.removeprefix("decoder_"): x for name, x in inputs.items() if name.startswith("decoder_")}) if asks else first
    states = module.say(said, module.read(batch))
    return {"last_hidden_state": module.pictures(batch), "logits": F.linear(states, *module.output)}
