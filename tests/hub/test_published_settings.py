"""Settings of published files that change what comes out: honoured as transformers does, or refused by name, never passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedModel, RobertaForMaskedLM, RobertaModel
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil

from awkward import awkward
from hub import references_pairs
from hub.references import clip_processor, clip_tokenizer, close, picture, save_clip, tiny_clip
from hub.references_bert import byte_level, tiny, unigram, wordpiece
from hub.test_clip import edit
from hub.test_two_towers import gemma_like, siglip
from tonggan import hub
from tonggan.backends import load
from tonggan.data.images import ImageProcessor
from tonggan.hub.convert.preprocessor import image_in
from tonggan.hub.convert.siglip import tokenizer_in
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.types import TongganError

TEXTS = ["a red bird", "", "The cat, the BIRD!", "x " * 40]


def clip_words(directory: Path) -> None:
    clip_tokenizer().save_pretrained(directory)


WORDS = {"bert": wordpiece, "roberta": byte_level, "xlm-roberta": unigram, "clip": clip_words}


def drop(file: Path, *names: str) -> None:
    said = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in said.items() if name not in names}))


# Attention to padding, cutting and padding by side


@pytest.mark.parametrize("names", [None, ["input_ids"], ["input_ids", "attention_mask"]], ids=str)
def test_siglip_attends_to_padding_where_the_librarys_tokenizer_gives_no_mask(tmp_path: Path, names: list[str] | None) -> None:
    theirs = siglip(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    drop(file, "model_input_names")
    if names is not None:
        edit(file, {"model_input_names": names})
    given = AutoTokenizer.from_pretrained(tmp_path / "model")(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    assert ("attention_mask" in given) == (names != ["input_ids"])
    pixels = references_pairs.image_processor("siglip")([picture()], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = theirs(**given, pixel_values=torch.as_tensor(pixels))["text_embeds"]
    close(torch.from_numpy(load(tmp_path / "model", device="cpu").embed(TEXTS).vectors), expected)


@pytest.mark.parametrize("said_by", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("kind", WORDS)
def test_texts_are_cut_on_the_side_that_is_said(tmp_path: Path, kind: str, said_by: str) -> None:
    WORDS[kind](tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    drop(config, "truncation_side")
    if said_by == config.name:
        edit(config, {"truncation_side": "left", "model_max_length": 9})
    else:
        edit(config, {"model_max_length": 9})
        edit(tmp_path / "model" / said_by, {"truncation": {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}})
    texts = awkward(200)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model", model_type=kind)
    assert theirs.truncation_side == "left"
    ours = read_tokenizer(tmp_path / "model", max_length=None, context=40, pad="[PAD]")
    found, cut = ours.encode(texts)
    assert found == theirs(texts, truncation=True)["input_ids"]
    assert found != ours.with_settings(truncation_side="right").encode(texts)[0] and len(cut) > 50
    (tmp_path / "saved").mkdir()
    write_tokenizer(tmp_path / "saved", ours, str(type(theirs).__name__), {}, **({"do_lower_case": True} if kind == "bert" else {}))
    again = read_tokenizer(tmp_path / "saved", max_length=None, context=40, pad="[PAD]")
    assert again.config == ours.config and again.encode(texts)[0] == found
    assert AutoTokenizer.from_pretrained(tmp_path / "saved", model_type=kind).truncation_side == "left"


def test_siglip_texts_are_cut_on_the_side_that_is_said(tmp_path: Path) -> None:
    siglip(tmp_path / "model")
    edit(tmp_path / "model" / "tokenizer_config.json", {"truncation_side": "left"})
    theirs, texts = AutoTokenizer.from_pretrained(tmp_path / "model"), [text for text in awkward(200) if "</s>" not in text]
    checkpoint = hub.read(tmp_path / "model")
    assert checkpoint.processor.text is not None
    found = checkpoint.processor.text.encode(texts)[0]
    assert found == theirs(texts, truncation=True)["input_ids"]
    hub.save(tmp_path / "saved", checkpoint.module, checkpoint.config, checkpoint.processor)
    assert hub.read(tmp_path / "saved").processor.text.encode(texts)[0] == found  # type: ignore[union-attr]
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(texts, truncation=True)["input_ids"] == found


@pytest.mark.parametrize("kind", WORDS)
def test_padding_on_the_left_is_refused(tmp_path: Path, kind: str) -> None:
    WORDS[kind](tmp_path)
    edit(tmp_path / "tokenizer_config.json", {"padding_side": "left"})
    with pytest.raises(TongganError, match=r"tokenizer_config.json: padding_side='left' is not supported.*set padding_side to 'right'"):
        read_tokenizer(tmp_path, max_length=None, context=40, pad="[PAD]")


def test_a_class_that_pads_on_the_left_unless_told_otherwise_is_refused(tmp_path: Path) -> None:
    gemma_like(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    assert tokenizer_in(tmp_path, 13).pad_id == 0
    drop(file, "padding_side")
    assert AutoTokenizer.from_pretrained(tmp_path, model_type="siglip").padding_side == "left"
    with pytest.raises(TongganError, match="padding_side='left', which is what a GemmaTokenizer does where no file says otherwise"):
        tokenizer_in(tmp_path, 13)
    said = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    edit(tmp_path / "tokenizer.json", {"padding": said})
    assert AutoTokenizer.from_pretrained(tmp_path, model_type="siglip").padding_side == "right"
    assert tokenizer_in(tmp_path, 13).pad_id == 0


# Special and added tokens


def test_a_padding_token_that_the_vocabulary_lacks_is_refused(tmp_path: Path) -> None:
    wordpiece(tmp_path)
    edit(tmp_path / "tokenizer_config.json", {"pad_token": "<empty>"})
    with pytest.raises(TongganError, match=r"pad_token '<empty>' is not among the .* tokens of the vocabulary; name one that is"):
        read_tokenizer(tmp_path, max_length=None, context=40, pad="[PAD]")
    drop(tmp_path / "tokenizer_config.json", "pad_token")
    with pytest.raises(TongganError, match="no pad_token is named, and the usual '<pad>' is not among"):
        read_tokenizer(tmp_path, max_length=None, context=40, pad="<pad>")
    # Older releases name it in a file of its own.
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[unused0]"}))
    found = read_tokenizer(tmp_path, max_length=None, context=40, pad="[PAD]").pad_id
    assert found == AutoTokenizer.from_pretrained(tmp_path, model_type="bert").pad_token_id == 1


@pytest.mark.parametrize("form", ["added_tokens.json", "added_tokens_decoder"])
def test_an_added_token_that_the_vocabulary_lacks_is_refused(tmp_path: Path, form: str) -> None:
    size = len(wordpiece(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    if form == "added_tokens.json":
        (tmp_path / form).write_text(json.dumps({"<new>": size}))
    else:
        edit(tmp_path / "tokenizer_config.json", {form: {str(size): {"content": "<new>", "special": False}}})
    assert len(AutoTokenizer.from_pretrained(tmp_path, model_type="bert")("<new>")["input_ids"]) == 3
    with pytest.raises(TongganError, match=f"add token '<new>' at {size}, the vocabulary lacks it"):
        read_tokenizer(tmp_path, max_length=None, context=40, pad="[PAD]")


def test_ends_are_those_of_tokenizer_json(tmp_path: Path) -> None:
    """Where there is one, the library does not hear what the settings say of them."""
    gemma_like(tmp_path, eos_token="<eos>", bos_token="<bos>", add_eos_token=False, add_bos_token=True)
    assert tokenizer_in(tmp_path, 13).encode(["red"])[0] == [AutoTokenizer.from_pretrained(tmp_path)("red")["input_ids"]]


def test_a_vocabulary_of_another_class_is_not_taken_for_berts(tmp_path: Path) -> None:
    tiny(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    hub.read(tmp_path)
    edit(tmp_path / "tokenizer_config.json", {"tokenizer_class": None})
    edit(tmp_path / "config.json", {"tokenizer_class": "BertJapaneseTokenizer"})
    with pytest.raises(TongganError, match="tokenizer_class 'BertJapaneseTokenizer' is not supported where there is no"):
        hub.read(tmp_path)
    edit(tmp_path / "config.json", {"tokenizer_class": "BertTokenizerFast"})
    edit(tmp_path / "tokenizer_config.json", {"cls_token": "[unused0]"})
    with pytest.raises(TongganError, match=r"not supported: cls_token='\[unused0\]'"):
        hub.read(tmp_path)


def test_clip_looks_for_the_text_where_the_library_does(tmp_path: Path) -> None:
    theirs = tiny_clip()
    save_clip(tmp_path, theirs)
    end = theirs.config.text_config.eos_token_id
    hub.read(tmp_path)
    edit(tmp_path / "config.json", {"text_config.eos_token_id": end - 5})
    with pytest.raises(TongganError, match=f"eos_token_id={end - 5}, but the tokenizer closes a text with {end}"):
        hub.read(tmp_path)
    edit(tmp_path / "config.json", {"text_config.eos_token_id": 2})  # the highest id of a row, which is the end token's
    hub.read(tmp_path)
    words = clip_processor()
    words.tokenizer.add_tokens(["<higher>"])
    words.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TongganError, match=f"closes it with {end}, and its ids go up to {end + 1}"):
        hub.read(tmp_path)


@pytest.mark.parametrize("legacy", [False, True], ids=["the end token", "the highest id"])
def test_a_caption_that_spells_out_the_end_is_read_up_to_there(tmp_path: Path, legacy: bool) -> None:
    theirs = tiny_clip(legacy_eos=legacy)
    save_clip(tmp_path, theirs)
    texts = [
        "a <|endoftext|> red bird",
        "<|endoftext|>",
        "<|endoftext|> the cat",
        "the<|endoftext|>cat<|endoftext|><|endoftext|>, the bird <|endoftext|>",
        "x " * 30 + "<|endoftext|> bird",
        "x <|endoftext|> " + "bird " * 30,
        "the cat and the bird",
    ]
    given = dict(clip_tokenizer()(texts, padding=True, truncation=True, return_tensors="pt"))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(theirs.get_text_features(**given).pooler_output)
    close(hub.outputs(tmp_path, given)["text_embeds"], expected)
    close(torch.from_numpy(load(tmp_path, device="cpu").embed(texts).vectors), expected)


# Pictures


@pytest.mark.parametrize("name", ["image_processor_type", "feature_extractor_type"])
def test_an_unknown_picture_processor_is_refused(name: str) -> None:
    with pytest.raises(TongganError, match=f"here: {name} 'LevitImageProcessor' is not supported; supported are: CLIPImageProcessor, "):
        image_in({name: "LevitImageProcessor"}, "here")
    assert image_in({}, "here", "ViT").mode == "squash", "only a file that names none is taken for the family's"


@pytest.mark.parametrize("kind", [BeitImageProcessorPil, DeiTImageProcessorPil])
@pytest.mark.parametrize("said", [{}, {"size": 200, "do_center_crop": True, "crop_size": 190}], ids=["silent", "numbers"])
def test_where_a_file_is_silent_each_class_has_its_own_habits(kind: Any, said: Mapping[str, Any]) -> None:
    theirs = kind(**said)
    ours = ImageProcessor(image_in({"image_processor_type": kind.__name__.removesuffix("Pil"), **said}, "here"))
    shown = picture(300, 270)
    expected = torch.as_tensor(theirs(shown, return_tensors="pt")["pixel_values"])[0]
    pixels = torch.from_numpy(ours(shown).astype(np.float32) / 255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ours.config.mean, ours.config.std))
    assert float(((pixels - mean) / std - expected).abs().max()) <= 1.01 / 255 / 0.5


def test_the_newer_picture_settings_count_where_both_are_there(tmp_path: Path) -> None:
    save_clip(tmp_path, tiny_clip())
    old = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {**old, "resample": 2}}))
    from transformers import AutoImageProcessor

    assert AutoImageProcessor.from_pretrained(tmp_path).resample == 2
    image = hub.read(tmp_path).processor.image
    assert image is not None and image.config.interpolation == "bilinear"


# Weights and config.json


HEADS: dict[str, tuple[type[PreTrainedModel], str, str]] = {
    "bert": (BertForMaskedLM, "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    "roberta": (RobertaForMaskedLM, "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_is_not_the_word_embeddings_is_refused(tmp_path: Path, kind: str) -> None:
    """The library does not tie what a file has twice with different values; the same values twice are one tensor."""
    cls, words, again = HEADS[kind]
    tiny(tmp_path, kind, cls)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, again: tensors[words].clone()}, file, {"format": "pt"})
    assert hub.read(tmp_path).dropped == ()
    other = {**tensors, again: tensors[words] + 1}
    save_file(other, file, {"format": "pt"})
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        assert not torch.allclose(cls.from_pretrained(tmp_path)(**inputs).logits, _tied(tensors, file, cls, inputs))
    save_file(other, file, {"format": "pt"})
    with pytest.raises(TongganError, match=f"different values for one and the same tensor: .*{again}"):
        hub.read(tmp_path)


def _tied(tensors: dict[str, torch.Tensor], file: Path, cls: type[PreTrainedModel], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    save_file(tensors, file, {"format": "pt"})
    logits: torch.Tensor = cls.from_pretrained(file.parent)(**inputs).logits
    return logits


def test_two_names_for_one_layer_norm_with_different_values_are_refused(tmp_path: Path) -> None:
    tiny(tmp_path, "bert")
    file = tmp_path / "model.safetensors"
    tensors, name = load_file(file), "bert.embeddings.LayerNorm"
    save_file({**tensors, f"{name}.gamma": tensors[f"{name}.weight"] * 2}, file, {"format": "pt"})
    with pytest.raises(TongganError, match=rf"one and the same tensor: {name}.(gamma|weight) and {name}.(gamma|weight); leave out"):
        hub.read(tmp_path)


def test_robertas_tokenizer_pads_with_the_id_that_its_positions_pass_over(tmp_path: Path) -> None:
    tiny(tmp_path, "roberta", RobertaModel)
    hub.read(tmp_path)
    edit(tmp_path / "tokenizer_config.json", {"pad_token": "<unk>"})
    with pytest.raises(TongganError, match=r"padding: id 3 by the tokenizer, 1 by the model.*\(set the tokenizer's pad_id to 1,"):
        hub.read(tmp_path)


def test_bert_pads_with_any_id(tmp_path: Path) -> None:
    """Its padding is told by its place."""
    theirs = tiny(tmp_path, "bert")
    edit(tmp_path / "tokenizer_config.json", {"pad_token": "[unused0]"})
    model = hub.read(tmp_path)
    tokens = model.processor.tokens(["a red bird", "a"])
    assert int(tokens.ids[1, -1]) == 1
    given = AutoTokenizer.from_pretrained(tmp_path, model_type="bert")(["a red bird", "a"], padding=True, return_tensors="pt")
    assert torch.equal(given["input_ids"], tokens.ids)
    with torch.no_grad():
        expected, ours = theirs(**given).logits, hub.outputs(model.module, dict(given))["logits"]
    close(ours[given["attention_mask"].bool()], expected[given["attention_mask"].bool()])


def test_a_prompt_before_every_text_is_refused(tmp_path: Path) -> None:
    tiny(tmp_path, "bert")
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None}))
    hub.read(tmp_path)
    edit(file, {"default_prompt_name": "document"})
    hub.read(tmp_path)
    edit(file, {"default_prompt_name": "query"})
    with pytest.raises(TongganError, match="default_prompt_name='query' puts 'query: ' before every text"):
        hub.read(tmp_path)


@pytest.mark.parametrize("family", ["vit", "efficientnet"])
def test_classes_of_which_several_are_right_are_refused(tmp_path: Path, family: str) -> None:
    make = {"vit": references_pairs.vit, "efficientnet": references_pairs.efficientnet}[family]
    references_pairs.save(tmp_path, make(classes=3))
    edit(tmp_path / "config.json", {"problem_type": "single_label_classification"})
    hub.read(tmp_path)
    edit(tmp_path / "config.json", {"problem_type": "multi_label_classification"})
    with pytest.raises(TongganError, match="problem_type='multi_label_classification'"):
        hub.read(tmp_path)
