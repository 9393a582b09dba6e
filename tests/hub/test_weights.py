"""Weights files: whole, sharded, older `.bin`; damage and code are refused with the file's name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from tonggan.hub.weights import read_weights, write_weights
from tonggan.types import TongganError

STATE = {"a.weight": torch.randn(4, 3), "b": torch.tensor(2.0), "c": torch.arange(3), "h": torch.randn(2).bfloat16()}


def same(found: dict[str, torch.Tensor]) -> bool:
    return sorted(found) == sorted(STATE) and all(torch.equal(found[k], STATE[k]) and found[k].dtype == STATE[k].dtype for k in STATE)


def test_round_trip(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", STATE)
    assert same(read_weights(tmp_path))


def test_tied_tensors_are_both_there(tmp_path: Path) -> None:
    shared = torch.randn(3)
    write_weights(tmp_path / "model.safetensors", {"x": shared, "y": shared[:]})
    assert torch.equal(read_weights(tmp_path)["y"], shared)


def shards(directory: Path) -> None:
    names = sorted(STATE)
    save_file({n: STATE[n] for n in names[:2]}, directory / "model-00001-of-00002.safetensors")
    save_file({n: STATE[n] for n in names[2:]}, directory / "model-00002-of-00002.safetensors")
    where = {n: f"model-0000{1 if n in names[:2] else 2}-of-00002.safetensors" for n in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    assert same(read_weights(tmp_path))


BIG = {f"layer.{i}.weight": torch.randn(3 + i, 7) for i in range(5)} | {"large": torch.randn(300), "half": torch.randn(9).bfloat16()}


@pytest.mark.parametrize(("limit", "count"), [(10**9, 1), (1700, 2), (300, 6), (1, 7)])
def test_large_weights_are_written_in_shards(tmp_path: Path, limit: int, count: int) -> None:
    """Named as transformers names them, and read back bit for bit; no shard is above the limit unless it is one tensor."""
    write_weights(tmp_path / "model.safetensors", BIG, max_shard_bytes=limit)
    files = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert files == (["model.safetensors"] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)])
    for file in files:
        shard = load_file(tmp_path / file)
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= limit
    found = read_weights(tmp_path)
    assert sorted(found) == sorted(BIG)
    assert all(torch.equal(found[name], BIG[name]) and found[name].dtype == BIG[name].dtype for name in BIG)
    if count > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in BIG.values())


def test_transformers_reads_our_shards(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=23, hidden_size=15, num_hidden_layers=3, num_attention_heads=5, intermediate_size=17)
    theirs = BertModel(config)
    config.save_pretrained(tmp_path)
    write_weights(tmp_path / "model.safetensors", theirs.state_dict(), max_shard_bytes=5000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    again = BertModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_cut_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    file = tmp_path / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(TongganError, match=r"model-00002-of-00002\.safetensors: damaged or incomplete"):
        read_weights(tmp_path)


def test_a_tensor_that_no_shard_has_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    save_file({"c": STATE["c"]}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(TongganError, match="the shards lack h"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 3}}])
def test_an_index_without_a_map(tmp_path: Path, content: dict[str, object]) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(TongganError, match="no weight_map"):
        read_weights(tmp_path)


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(TongganError, match=r"model-00002-of-00002\.safetensors: no such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "..", "/etc/secret.safetensors", "deeper/secret.safetensors"])
def test_an_index_cannot_point_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(TongganError, match="outside"):
        read_weights(tmp_path)


def test_older_files_as_plain_tensors_only(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert same(read_weights(tmp_path))


def test_a_file_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").mkdir, (str(tmp_path / "ran"),))

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(TongganError, match=r"pytorch_model\.bin.*refused"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TongganError, match=r"pytorch_model\.bin"):
        read_weights(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 5, 60, -3])
def test_damage_names_the_file(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "model.safetensors"
    write_weights(file, STATE)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(TongganError, match=r"model\.safetensors: damaged or incomplete"):
        read_weights(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(TongganError, match="no weights here"):
        read_weights(tmp_path)
