"""`tonggan import` and `tonggan export`: what was recognised, what was left out, what has no place, and the line that verifies it."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, CLIPModel
from typer.testing import CliRunner

from hub.fixtures.make import HERE
from hub.hubs import HuggingFace, serve
from hub.references import clip_processor, save_clip, tiny_clip
from tiny import llava
from tonggan import hub
from tonggan.cli import app
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.models import DualEncoder, DualEncoderConfig
from tonggan.models.towers import TransformerTextConfig, ViTConfig


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny", tiny_clip(), clip_processor())


def test_import_says_what_was_recognised_and_left_out(tmp_path: Path) -> None:
    code, out, _ = call("import", HERE / "clip-4.6.1", tmp_path / "new")
    assert code == 0
    assert "clip, 10,597 parameters" in out
    assert "image: kind vit, image_size 16, patch_size 8, width 15" in out and "pooling class" in out and "pooling end" in out
    assert "left out on purpose: 2 tensors (text_model.embeddings.position_ids, vision_model.embeddings.position_ids)" in out
    assert f"not verified against a reference yet; do it: tonggan verify {HERE / 'clip-4.6.1'} --against transformers" in out
    record = json.loads((tmp_path / "new" / "tonggan.json").read_text())
    assert record["identity"]["weights"] == hub.read(HERE / "clip-4.6.1").identity.weights
    assert record["provenance"]["imported"] == {"from": str(HERE / "clip-4.6.1")}
    # Files of 2021 that the installed transformers no longer opens become ones that it does.
    again = CLIPModel.from_pretrained(tmp_path / "new").state_dict()
    old = torch.load(HERE / "clip-4.6.1" / "pytorch_model.bin", weights_only=True)
    assert set(old) - set(again) <= {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
    assert all(torch.equal(again[name], tensor) for name, tensor in old.items() if name in again)


def test_import_as_json_names_a_verify_line_that_can_be_typed(tmp_path: Path) -> None:
    code, out, _ = call("import", HERE / "bert-4.26.1", tmp_path / "new", "--json")
    told = json.loads(out)
    assert code == 0 and told["family"] == "bert" and told["verified"] is False
    assert told["sizes"]["text"] | {"width": 9, "layers": 2, "heads": 3, "pooling": "mean"} == told["sizes"]["text"]
    assert set(told["dropped"]) == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    words = shlex.split(told["verify"])
    assert words[:2] == ["tonggan", "verify"] and "--against" in words
    assert call(words[1], "--help")[0] == 0
    assert BertModel.from_pretrained(tmp_path / "new", add_pooling_layer=False).config.hidden_size == 9


def test_import_from_a_hub_records_the_commit(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(HuggingFace, {"someone/clip": {file.name: file.read_bytes() for file in clip.iterdir()}}) as there:
        monkeypatch.setenv("HF_ENDPOINT", there.address)
        code, out, _ = call("import", "hf:someone/clip", tmp_path / "new")
        assert code == 0 and "tonggan verify hf:someone/clip --against transformers" in out
        assert "left out" not in out
        code, _, err = call("import", "hf:someone/nothing", tmp_path / "other")
        assert code == 1 and "no such model there" in err and "HF_ENDPOINT" in err
    record = json.loads((tmp_path / "new" / "tonggan.json").read_text())
    assert record["provenance"]["fetched"] == {"name": "hf:someone/clip", "snapshot": there.commit}
    assert not (tmp_path / "other").exists()


def test_import_refuses_what_it_does_not_know(clip: Path, tmp_path: Path) -> None:
    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(load_file(clip / "model.safetensors") | {"text_model.extra.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    code, _, err = call("import", tmp_path, tmp_path / "new")
    assert code == 1 and "unknown: text_model.extra.weight" in err and not (tmp_path / "new").exists()
    code, _, err = call("import", llava(tmp_path / "llava"), tmp_path / "new")
    assert code == 1 and "model_type 'vipllava' is not supported" in err and "clip" in err


def test_import_does_not_overwrite(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, err = call("import", clip, tmp_path / "mine")
    assert code == 2 and "not overwritten" in err and (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_export_to_transformers(clip: Path, tmp_path: Path) -> None:
    call("import", clip, tmp_path / "ours")
    code, out, _ = call("export", tmp_path / "ours", tmp_path / "theirs", "--to", "transformers")
    assert code == 0 and f"tonggan verify {tmp_path / 'theirs'} --against transformers" in out
    before, after = CLIPModel.from_pretrained(clip).state_dict(), CLIPModel.from_pretrained(tmp_path / "theirs").state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_export_names_what_has_no_place(tmp_path: Path) -> None:
    """Padded pictures and a vocabulary of one's own are in no published format."""
    tokenizer = train_bpe(["一只红色的鸟", "a red bird"] * 2, 320, max_length=20)
    image = ViTConfig(image_size=16, patch_size=8, width=15, layers=1, heads=3, mlp_width=22)
    text = TransformerTextConfig(vocab_size=tokenizer.vocab_size, context=20, width=9, layers=1, heads=3, mlp_width=14)
    config = DualEncoderConfig(image=image, text=text, dim=11)
    looking = ImageProcessor(ImageProcessing(size=16, mode="pad"))
    hub.save(tmp_path / "mine", DualEncoder(config), config, Processor(looking, tokenizer))
    code, _, err = call("export", tmp_path / "mine", tmp_path / "theirs", "--to", "transformers")
    assert code == 1 and "no published format has a place for this model" in err
    assert "clip: its pictures are padded" in err and "bert: it is not a BERT alone" in err
    assert not (tmp_path / "theirs").exists()


def test_export_to_weights_of_one_byte(clip: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", clip, tmp_path / "small", "--to", "int8", "--json")
    told = json.loads(out)
    assert code == 0 and told["verify"] == f"tonggan verify {clip} --against int8 --copy {tmp_path / 'small'}"
    assert any(tensor.dtype == torch.int8 for tensor in load_file(tmp_path / "small" / "model.safetensors").values())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed: pip install 'tonggan[onnx]'")
def test_export_to_onnx(clip: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", clip, tmp_path / "graphs", "--to", "onnx")
    assert code == 0 and (tmp_path / "graphs" / "image.onnx").is_file()
    assert f"not opened before it is: tonggan verify {clip} --against onnx --copy {tmp_path / 'graphs'}" in out


def test_an_unknown_form_is_a_wrong_call(clip: Path, tmp_path: Path) -> None:
    assert call("export", clip, tmp_path / "x", "--to", "gguf")[0] == 2
    assert call("export", clip, tmp_path / "x")[0] == 2
