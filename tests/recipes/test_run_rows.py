"""Which rows a run learns from: none that gives away what it is measured on, of whatever kind that is and wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import square
from tonggan.data.rows import Dataset
from tonggan.recipes.config import RunConfig
from tonggan.recipes.rows import RunRows
from tonggan.types import Audio, Row, Text

LEARNT = {
    "a dog": "en",
    "金色的锚": "zh",
    "the golden anchor of a ship": "en",
    "a boat and a red buoy": "en",
    "an anchor": "en",
    "Buoy, Red!": "en",
}


@pytest.fixture
def learnt(tmp_path: Path) -> dict[str, Any]:
    rows = [Row(id=said, images=(square(5, 5, 5, size=8),), texts=(Text(said, lang),)) for said, lang in LEARNT.items()]
    Dataset.from_rows(rows).write(tmp_path / "learnt")
    return {"source": str(tmp_path / "learnt"), "split": None}


def held(where: Path, *, sounds: bool = False) -> dict[str, Any]:
    """Rows to learn from, as many as the other data has, then one of each held-out split."""
    captions = [(f"a dog and {number} cats", "en", "train") for number in range(len(LEARNT))]
    captions += [("a golden anchor", "en", "test"), ("金色的锚", "zh", "test"), ("a red buoy", "en", "val")]
    shown: dict[str, Any] = {"audios": (Audio(path=where / "pop.ogg"),)} if sounds else {"images": (square(9, 9, 9, size=8),)}
    rows = [Row(id=f"r{i}", texts=(Text(said, lang),), split=split, **shown) for i, (said, lang, split) in enumerate(captions)]
    Dataset.from_rows(rows).write(where)
    return {"source": str(where), "split": "val"}


@pytest.mark.parametrize("how", ["limit", "look", "sounds"])
def test_nothing_that_is_learnt_gives_away_what_is_measured(tmp_path: Path, learnt: dict[str, Any], how: str) -> None:
    measured: dict[str, Any] = {"kind": "retrieval", "data": held(tmp_path / "held", sounds=how == "sounds")}
    if how == "sounds":
        measured["between"] = ["audio", "text"]
    whole: dict[str, Any] = {"evaluation": measured}
    if how == "look":
        other = [Row(id="o", images=(square(7, 7, 7, size=8),), texts=(Text("a cow", "en"),), split="val")]
        Dataset.from_rows(other).write(tmp_path / "other")
        whole = {"evaluation": {"data": {"source": str(tmp_path / "other"), "split": "val"}}, "looks": [measured]}
    stage = {"streams": [{"data": learnt, "exclude_heldout": True}], "train": {"steps": 1}}
    config = RunConfig.parse({"name": "r", "model": {"preset": "mini"}, "stages": [stage], **whole})
    rows = RunRows(config, limit=len(LEARNT) if how == "limit" else None)
    assert [row.id for row in rows.stream(config.stages[0].streams[0])] == ["a dog", "an anchor"]
