"""BERT, RoBERTa, XLM-RoBERTa and data2vec's text model with their heads, against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    Data2VecTextForMaskedLM,
    Data2VecTextModel,
    PreTrainedModel,
    RobertaForMaskedLM,
    RobertaModel,
    XLMRobertaForMaskedLM,
)

from awkward import awkward
from hub.references import close
from hub.references_bert import CONFIGS, byte_level, tiny, unigram, wordpiece
from tonggan import hub
from tonggan.backends import load
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.hub.convert import bert, roberta
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.gradients import gradients
from tonggan.models import BertConfig, MaskedBert
from tonggan.models.towers import BertTextConfig
from tonggan.types import TongganError, UsageError

MASKED: dict[str, type[PreTrainedModel]] = {
    "bert": BertForMaskedLM, "roberta": RobertaForMaskedLM, "xlm-roberta": XLMRobertaForMaskedLM, "data2vec-text": Data2VecTextForMaskedLM,
}  # fmt: skip
TEXTS = ["a red bird", "", "一只红色的鸟!", "<mask> birds and <pad> [MASK] don't", "x " * 50]


SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "##ing", "Ġ"]


def strings(count: int) -> list[str]:
    """Awkward ones, every other with a literal special token in its midst."""
    return [f"{t[: i % 7]}{SPECIAL[i % 12]}{' ' * (i % 3)}{t[i % 7 :]}" if i % 2 and i > 6 else t for i, t in enumerate(awkward(count))]


def given(vocab: int, pad: int, side: str) -> dict[str, torch.Tensor]:
    """Four rows of different length, padded on one side; one has padding's own id among its words."""
    generator = torch.Generator().manual_seed(1)
    ids, mask = torch.randint(0, vocab, (4, 11), generator=generator), torch.ones(4, 11, dtype=torch.long)
    ids[0, 5] = pad
    for row, count in enumerate((0, 3, 7, 10)):
        where = slice(0, count) if side == "left" else slice(11 - count, 11)
        ids[row, where], mask[row, where] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def loss_of(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Something whose gradient reaches every logit of a real token, and no other."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    return (logits * weights)[mask.bool()].square().mean()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", MASKED)
def test_outputs_and_gradients(tmp_path: Path, kind: str, side: str) -> None:
    theirs = tiny(tmp_path, kind, MASKED[kind])
    ours = hub.read(tmp_path).module
    inputs = given(theirs.config.vocab_size, theirs.config.pad_token_id, side)
    seen = inputs["attention_mask"].bool()
    expected = theirs(**inputs, output_hidden_states=True)
    found = hub.outputs(ours, inputs)
    close(found["logits"][seen], expected.logits[seen])
    close(found["last_hidden_state"][seen], expected.hidden_states[-1][seen])
    loss_of(expected.logits, seen).backward()
    same_gradients(gradients(ours, inputs, lambda named: loss_of(named["logits"], seen)), theirs)


def same_gradients(found: dict[str, torch.Tensor], theirs: PreTrainedModel) -> None:
    """Every tensor's gradient to 1e-4; a key's bias has none but rounding, so it is measured against the largest."""
    under_every_name = theirs.named_parameters(remove_duplicate=False)
    reference = {name: p.grad for name, p in under_every_name if p.grad is not None and ".decoder." not in name}  # tied: once is enough
    assert set(found) == set(reference)
    largest = max(float(gradient.abs().max()) for gradient in reference.values())
    for name, gradient in found.items():
        limit = 1e-4 * (largest if name.endswith("key.bias") else float(reference[name].abs().max()))
        assert float((gradient - reference[name]).abs().max()) <= limit, name


@pytest.mark.parametrize("kind", MASKED)
def test_from_strings(tmp_path: Path, kind: str) -> None:
    """Their tokenizer and model, ours: the same logits for the same text."""
    theirs = tiny(tmp_path, kind, MASKED[kind])
    model = load(tmp_path, device="cpu")
    assert model.can == {"features"} and model.modalities == {"text"}
    texts = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, return_tensors="pt", padding=True, truncation=True)
    tokens = model.processor.tokens(TEXTS)
    assert torch.equal(tokens.ids, texts["input_ids"]) and torch.equal(tokens.lengths, texts["attention_mask"].sum(dim=1))
    seen = texts["attention_mask"].bool()
    with torch.no_grad():
        close(model.module.words(tokens)[seen], theirs(**texts).logits[seen])
        close(model.module.words(tokens, where=seen), theirs(**texts).logits[seen])


@pytest.mark.parametrize("kind", MASKED)
def test_saved_back(tmp_path: Path, kind: str) -> None:
    """transformers loads what we wrote: every weight bit for bit, every id alike; read again it is the same model to us."""
    theirs = tiny(tmp_path / "theirs", kind, MASKED[kind])
    first = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", first.module, first.config, first.processor, format="transformers")
    again, report = MASKED[kind].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    before, after = theirs.state_dict(), again.state_dict()
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)
    for name in ("vocab_size", "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "type_vocab_size"):
        assert getattr(again.config, name) == getattr(theirs.config, name)
    texts = strings(300)
    wanted = AutoTokenizer.from_pretrained(tmp_path / "theirs")(texts, truncation=True)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")(texts, truncation=True)["input_ids"] == wanted
    second = hub.read(tmp_path / "ours")
    assert second.config == first.config
    assert second.identity.verified and second.identity.difference(first.identity) == []


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_pairs_of_sentences(tmp_path: Path, kind: str) -> None:
    theirs = tiny(tmp_path, kind, MASKED[kind])
    inputs = given(theirs.config.vocab_size, theirs.config.pad_token_id, "right")
    types = torch.zeros_like(inputs["input_ids"])
    types[:, 4:] = 1
    ours = hub.read(tmp_path).module
    if kind == "roberta":
        with pytest.raises(UsageError, match="go up to 1; this model tells 1 apart"):
            hub.outputs(ours, {**inputs, "token_type_ids": types})
        return
    seen = inputs["attention_mask"].bool()
    expected = theirs(**inputs, token_type_ids=types).logits[seen]
    close(hub.outputs(ours, {**inputs, "token_type_ids": types})["logits"][seen], expected)
    assert not torch.allclose(hub.outputs(ours, inputs)["logits"][seen], expected)


@pytest.mark.parametrize("settings", [{"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-2}], ids=str)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_settings_reach_tower_and_head(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    theirs = tiny(tmp_path, kind, MASKED[kind], **settings)
    inputs = given(theirs.config.vocab_size, theirs.config.pad_token_id, "right")
    seen = inputs["attention_mask"].bool()
    close(hub.outputs(tmp_path, inputs)["logits"][seen], theirs(**inputs).logits[seen])


def test_another_padding_moves_robertas_positions(tmp_path: Path) -> None:
    theirs = tiny(tmp_path, "roberta", RobertaForMaskedLM, pad_token_id=3, max_position_embeddings=44)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": "<unk>"}))  # whose id is 3
    inputs = given(theirs.config.vocab_size, 3, "left")
    seen = inputs["attention_mask"].bool()
    close(hub.outputs(tmp_path, inputs)["logits"][seen], theirs(**inputs).logits[seen])


@pytest.mark.parametrize(("kind", "cls"), [("roberta", RobertaModel), ("data2vec-text", Data2VecTextModel), ("bert", BertModel)])
def test_encoders_alone(tmp_path: Path, kind: str, cls: type[PreTrainedModel]) -> None:
    """States and gradients; saved back, transformers finds all but the pooler, which is dropped on purpose."""
    theirs = tiny(tmp_path / "theirs", kind, cls)
    first = hub.read(tmp_path / "theirs")
    inputs = given(theirs.config.vocab_size, theirs.config.pad_token_id, "left")
    seen = inputs["attention_mask"].bool()
    expected, found = theirs(**inputs).last_hidden_state, hub.outputs(first.module, inputs)["last_hidden_state"]
    close(found[seen], expected[seen])
    loss_of(expected, seen).backward()
    same_gradients(gradients(first.module, inputs, lambda named: loss_of(named["last_hidden_state"], seen)), theirs)
    hub.save(tmp_path / "ours", first.module, first.config, first.processor, format="transformers")
    again, report = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"} and not report["unexpected_keys"]
    after = again.state_dict()
    assert all(torch.equal(after[name], value) for name, value in theirs.state_dict().items() if "pooler" not in name)


def test_a_masked_model_made_a_sentence_encoder(tmp_path: Path) -> None:
    """Weights of a masked model under a sentence encoder's layout: its tower is read, its head dropped; RoBERTa's is one too."""
    tiny(tmp_path / "masked", "roberta", RobertaForMaskedLM)
    checkpoint = hub.read(tmp_path / "masked")
    assert isinstance(checkpoint.module, MaskedBert)
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])]  # fmt: skip
    (tmp_path / "masked" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "masked" / "1_Pooling").mkdir()
    (tmp_path / "masked" / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 33, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))  # fmt: skip
    encoder = load(tmp_path / "masked", device="cpu")
    theirs = SentenceTransformer(str(tmp_path / "masked"), device="cpu")
    expected = theirs.encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True)
    close(torch.from_numpy(encoder.embed(TEXTS).vectors), expected)
    for name, value in encoder.module.text.state_dict().items():
        assert torch.equal(value, checkpoint.module.text.state_dict()[name])
    hub.save(tmp_path / "saved", encoder.module, encoder.config, encoder.processor, format="transformers")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS, convert_to_tensor=True)
    close(again, expected)


def test_the_next_sentence_and_older_names(tmp_path: Path) -> None:
    """A file as Google's were first converted: gamma and beta, positions, the head for the next sentence, the tied decoder once more."""
    theirs = tiny(tmp_path, "bert", BertForPreTraining)
    file = tmp_path / "model.safetensors"
    older = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
             for name, value in load_file(file).items()}  # fmt: skip
    older |= {
        "bert.embeddings.position_ids": torch.arange(40)[None],
        "cls.predictions.decoder.weight": theirs.state_dict()["bert.embeddings.word_embeddings.weight"].clone(),
    }
    assert any(name.startswith("cls.seq_relationship") for name in older)
    save_file(older, file)
    inputs = given(theirs.config.vocab_size, 0, "right")
    seen = inputs["attention_mask"].bool()
    close(hub.outputs(tmp_path, inputs)["logits"][seen], theirs(**inputs).prediction_logits[seen])


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"tokenize_chinese_chars": False, "strip_accents": False}], ids=str)
def test_wordpiece_ids(tmp_path: Path, settings: dict[str, bool]) -> None:
    wordpiece(tmp_path, **settings)
    same_ids(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    same_ids(tmp_path, "bert")


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}], ids=str)
def test_byte_level_ids(tmp_path: Path, settings: dict[str, bool]) -> None:
    byte_level(tmp_path, **settings)
    same_ids(tmp_path, "roberta")
    (tmp_path / "tokenizer.json").unlink()
    same_ids(tmp_path, "roberta")


def test_unigram_ids(tmp_path: Path) -> None:
    unigram(tmp_path)
    same_ids(tmp_path, "xlm-roberta")


def test_settings_beside_a_tokenizer_file_are_heard(tmp_path: Path) -> None:
    """As transformers has it: tokenizer_config.json goes before what tokenizer.json says."""
    for directory, kind, change in (
        (tmp_path / "a", "bert", {"do_lower_case": False}),
        (tmp_path / "b", "roberta", {"add_prefix_space": True}),
    ):
        (wordpiece if kind == "bert" else byte_level)(directory)
        file = directory / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        same_ids(directory, kind, 300)


def same_ids(directory: Path, model_type: str, count: int = 2000) -> None:
    """Token ids of the awkward strings, cut to 40, equal theirs."""
    texts = strings(count)
    expected = AutoTokenizer.from_pretrained(directory, model_type=model_type)(texts, truncation=True)["input_ids"]
    found, cut = read_tokenizer(directory, max_length=None, context=512, pad="[PAD]").encode(texts)
    differing = [text for text, a, b in zip(texts, found, expected, strict=True) if a != b]
    assert not differing, differing[:3]
    assert cut, "some are longer than the limit"


def test_what_is_changed_or_not_supported_is_named(tmp_path: Path) -> None:
    tiny(tmp_path / "theirs", "roberta", RobertaForMaskedLM)
    first = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", first.module, first.config, first.processor)
    file = tmp_path / "ours" / "config.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "layer_norm_eps": 1e-3}))
    with pytest.raises(TongganError, match=r"model\.text\.eps: 0\.001 != 1e-05"):
        hub.read(tmp_path / "ours")
    file.write_text(json.dumps({**plain, "pad_token_id": 0, "max_position_embeddings": 41}))
    with pytest.raises(TongganError, match="padding: id 1 by the tokenizer, 0 by the model"):
        hub.read(tmp_path / "ours")
    file.write_text(json.dumps({**plain, "max_position_embeddings": 41}))
    with pytest.raises(TongganError, match=r"position_embeddings.*\[42, 33\] in the file, \[41, 33\] by config.json"):
        hub.read(tmp_path / "ours")
    file.write_text(json.dumps({**plain, "tie_word_embeddings": False}))
    with pytest.raises(TongganError, match="tie_word_embeddings=False"):
        hub.read(tmp_path / "ours")
    assert isinstance(first.config, BertConfig)
    other = first.config.model_copy(update={"head_activation": "relu"})
    with pytest.raises(TongganError, match="its head is another's"):
        hub.save(tmp_path / "no", MaskedBert(other), other, first.processor, format="transformers")


def test_words_at_some_places_are_those_of_all(tmp_path: Path) -> None:
    tiny(tmp_path, "bert")
    model = load(tmp_path, device="cpu")
    tokens = model.processor.tokens(TEXTS)
    where = torch.rand(tokens.ids.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    with torch.no_grad():
        assert torch.allclose(model.module.words(tokens, where=where), model.module.words(tokens)[where], atol=1e-6)
        pooled = model.features(TEXTS)
        assert torch.allclose(F.normalize(torch.from_numpy(pooled)), F.normalize(model.module.features("text", tokens)), atol=1e-6)
    with pytest.raises(UsageError, match="reads no pictures"):
        model.module.words(tokens, torch.zeros(5, 3, 8, 8))


def test_one_of_ones_own_is_bert_to_others(tmp_path: Path) -> None:
    """A vocabulary learnt here: transformers finds ids, the mask's name, and the same logits."""
    tokenizer = train_bpe(["a red bird", "一只红色的小鸟"] * 3, 320, max_length=30, mask=True)
    torch.manual_seed(0)
    shape = BertTextConfig(vocab_size=tokenizer.vocab_size, context=30, width=33, layers=2, heads=3, mlp_width=47)
    model = MaskedBert(BertConfig(text=shape)).eval()
    hub.save(tmp_path / "own", model, model.config, Processor(text=tokenizer), format="transformers")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "own")
    assert theirs.mask_token_id == tokenizer.vocabulary().mask and theirs.mask_token == "<|mask|>"
    texts = theirs([*TEXTS, "a <|mask|> bird"], return_tensors="pt", padding=True, truncation=True)
    tokens = Processor(text=tokenizer).tokens([*TEXTS, "a <|mask|> bird"])
    assert torch.equal(texts["input_ids"], tokens.ids)
    seen = texts["attention_mask"].bool()
    close(model.words(tokens)[seen], BertForMaskedLM.from_pretrained(tmp_path / "own").eval()(**texts).logits[seen])


@pytest.mark.parametrize(
    ("kind", "cls", "sizes"),
    [
        ("bert", BertForMaskedLM, {"vocab_size": 21128}),
        ("roberta", RobertaForMaskedLM, {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}),
        ("xlm-roberta", XLMRobertaForMaskedLM, {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}),
    ],
)
def test_published_sizes(tmp_path: Path, kind: str, cls: type[PreTrainedModel], sizes: dict[str, int]) -> None:
    """The base models on `meta`: as many weights as theirs, each of the same shape."""
    with torch.device("meta"):
        theirs = cls(CONFIGS[kind](**sizes))
        text = (bert if kind == "bert" else roberta).tower_in(theirs.config.to_dict(), tmp_path)
        config = BertConfig(text=text, published_as="bert" if kind == "bert" else "roberta")
        ours = MaskedBert(config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    table = (bert if kind == "bert" else roberta).table(config)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert all(shapes[str(table.theirs(name))] == tensor.shape for name, tensor in ours.state_dict().items())
