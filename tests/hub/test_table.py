"""The key-table machinery: both ways from one list, and errors that name the keys."""

from __future__ import annotations

import pytest
import torch

from tonggan.hub.convert.table import SCALAR_TO_VECTOR, KeyTable, Stacked, prefixed
from tonggan.types import TongganError

TABLE = KeyTable(
    "toy",
    {
        "scale": ("log_scale", SCALAR_TO_VECTOR),
        "ids": None,
        **prefixed("enc.", "tower.", {"layers.{i}.fc.{p}": "blocks.{i}.up.{p}"}),
    },
)
THEIRS = {
    "scale": torch.tensor(2.5),
    "ids": torch.arange(3),
    "enc.layers.0.fc.weight": torch.randn(3, 2),
    "enc.layers.11.fc.bias": torch.randn(3),
}
NAMES = ["log_scale", "tower.blocks.0.up.weight", "tower.blocks.11.up.bias"]


def test_there_and_back_bit_for_bit() -> None:
    ours = TABLE.import_(THEIRS, NAMES)
    assert sorted(ours) == NAMES and ours["log_scale"].shape == (1,)
    back = TABLE.export(ours)
    assert sorted(back) == sorted(set(THEIRS) - {"ids"})
    assert all(torch.equal(back[key], THEIRS[key]) and back[key].shape == THEIRS[key].shape for key in back)
    again = TABLE.import_(back, NAMES)
    assert all(torch.equal(again[name], ours[name]) for name in NAMES)


def test_unknown_and_missing_keys_are_named() -> None:
    changed = {**THEIRS, "enc.layers.0.gate.weight": torch.zeros(1)}
    del changed["scale"]
    with pytest.raises(TongganError, match=r"unknown: enc\.layers\.0\.gate\.weight; missing: scale"):
        TABLE.import_(changed, NAMES)


def test_a_layer_more_than_the_configuration_has_is_unknown() -> None:
    with pytest.raises(TongganError, match=r"unknown: enc\.layers\.11\.fc\.bias"):
        TABLE.import_(THEIRS, NAMES[:2])


def test_what_the_format_has_no_place_for_is_named() -> None:
    with pytest.raises(TongganError, match="no place for bias"):
        TABLE.export({"bias": torch.zeros(1)})


def test_two_of_theirs_for_one_of_ours_must_be_the_same() -> None:
    twice = KeyTable("twice", {"head.{p}": "out.{p}", "tied.{p}": "out.{p}"})
    first, second = torch.randn(3), torch.randn(3)
    ours = twice.import_({"tied.bias": first, "head.bias": first.clone()}, ["out.bias"])
    assert torch.equal(ours["out.bias"], first) and list(twice.export(ours)) == ["head.bias"]
    for other in (second, first[:2], first.double() + 1e-12):
        with pytest.raises(TongganError, match=r"different values for one and the same tensor: tied\.bias and head\.bias; leave out"):
            twice.import_({"tied.bias": first, "head.bias": other}, ["out.bias"])


STACKED = KeyTable("stacked", prefixed("head.", "pool.", {"in_proj_{p}": Stacked(("q.{p}", "k.{p}", "v.{p}")), "out.{p}": "out.{p}"}))
FUSED = {"head.in_proj_weight": torch.randn(6, 2), "head.in_proj_bias": torch.randn(6), "head.out.weight": torch.randn(2, 2)}
PARTS = [f"pool.{part}.{kind}" for part in "qkv" for kind in ("weight", "bias")] + ["pool.out.weight"]


def test_one_of_theirs_is_three_of_ours_and_back_bit_for_bit() -> None:
    ours = STACKED.import_(FUSED, PARTS)
    assert torch.equal(ours["pool.k.weight"], FUSED["head.in_proj_weight"][2:4])
    back = STACKED.export(ours)
    assert list(back) == list(FUSED) and all(torch.equal(back[key], FUSED[key]) for key in FUSED)


def test_a_missing_stack_is_named_once() -> None:
    fewer = {key: tensor for key, tensor in FUSED.items() if not key.endswith("bias")}
    with pytest.raises(TongganError, match=r"missing: head\.in_proj_bias$"):
        STACKED.import_(fewer, PARTS)
