"""Runs that learn to classify: classes are numbered once, keep their names, and are not numbered anew where they are measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import square
from tonggan import hub
from tonggan.backends import load_local
from tonggan.data import open_data
from tonggan.data.rows import Dataset
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run
from tonggan.types import Row, UsageError

COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "black": (5, 5, 5)}
VIT = {"kind": "vit", "image_size": 8, "patch_size": 4, "width": 15, "layers": 1, "heads": 3, "mlp_width": 22}


def rows(where: Path, *names: str, column: str = "colour") -> dict[str, Any]:
    """Squares of these colours, as the data of a stream."""
    made = [
        Row(id=f"{name}{i}", images=(square(*(abs(c - 3 * i) for c in COLOURS[name]), size=8),), meta={column: name})
        for name in names
        for i in range(3)
    ]
    Dataset.from_rows(made).write(where)
    return {"source": str(where), "split": None, "label": column}


def config(*streams: dict[str, Any], classes: int = 3, steps: int = 30, **more: Any) -> RunConfig:
    made = [
        {"name": f"s{i}", "data": data, "step": {"kind": "classification"}, "loader": {"batch_size": 6}} for i, data in enumerate(streams)
    ]
    stage = {"streams": made, "train": {"steps": steps, "log_every": 20}, "optim": {"lr": 1e-2, "warmup": 1}}
    model = more.pop("model", {"config": {"kind": "classifier", "image": VIT, "classes": classes}})
    return RunConfig.parse({"name": "colours", "model": model, "stages": [stage], **more})


def said(model: Any, *names: str) -> list[str]:
    logits = model.features([square(*COLOURS[name], size=8) for name in names], "logits")
    assert model.labels is not None
    return [model.labels[i] for i in np.asarray(logits).argmax(axis=1)]


def test_streams_that_share_a_head_share_its_numbers_and_a_loaded_model_answers_by_name(tmp_path: Path) -> None:
    """The second stream's first class is not the first stream's."""
    streams = rows(tmp_path / "a", "red", "green"), rows(tmp_path / "b", "red", "blue", column="tint")
    Run(config(*streams), tmp_path / "run", quiet=True).train()
    model = load_local(tmp_path / "run", device="cpu")
    assert model.labels == ("blue", "green", "red")
    assert said(model, "red", "green", "blue") == ["red", "green", "blue"]
    kept = json.loads((next((tmp_path / "run").glob("last")) / "config.json").read_text("utf-8"))
    assert kept.get("id2label", {"2": "red"})["2"] == "red"


def test_a_model_that_knows_the_classes_keeps_their_order(tmp_path: Path) -> None:
    Run(config(rows(tmp_path / "a", "red", "green", "blue"), steps=1), tmp_path / "first", quiet=True).train()
    last = tmp_path / "first" / "last"
    found = hub.read(last)
    hub.save(tmp_path / "turned", found.module, found.config, found.processor, labels=("red", "green", "blue"))
    for names, expected in ((("red", "blue"), ("red", "green", "blue")), (("red", "black"), ("black", "red", "unused 2"))):
        model = {"start": str(tmp_path / "turned")}
        run = Run(config(rows(tmp_path / names[1], *names), steps=1, model=model), tmp_path / "-".join(names), quiet=True)
        run.train()
        assert load_local(tmp_path / "-".join(names), device="cpu").labels == expected


def test_classes_of_a_column_compete_among_themselves_where_that_is_asked(tmp_path: Path) -> None:
    """The same squares are red and warm: two answers, where one softmax over all of them could be sure of neither."""
    streams = rows(tmp_path / "a", "red", "blue"), rows(tmp_path / "b", "red", "blue", column="warmth")
    named = {"red": "warm", "blue": "cold"}
    Dataset.from_rows(row.with_(meta={"warmth": named[row.meta["warmth"]]}) for row in open_data(streams[1]["source"])).write(
        tmp_path / "c"
    )
    streams[1]["source"] = str(tmp_path / "c")
    losses, chances = {}, {}
    for among in ("column", "all"):
        made = config(*streams, classes=5, steps=60).model_dump(mode="json")
        for stream in made["stages"][0]["streams"]:
            stream["step"]["among"] = among
        Run(RunConfig.parse(made), tmp_path / among, quiet=True).train()
        last = json.loads((tmp_path / among / "metrics.jsonl").read_text().splitlines()[-1])
        losses[among], chances[among] = ([last[f"s{i}/{what}"] for i in (0, 1)] for what in ("loss", "chance"))
    assert max(losses["column"]) < 0.1
    assert min(losses["all"]) > 0.5
    assert chances == {"column": pytest.approx([math.log(2)] * 2), "all": pytest.approx([math.log(5)] * 2)}
    model = load_local(tmp_path / "column", device="cpu")
    assert model.labels is not None
    for name, warmth in named.items():
        (logits,) = np.asarray(model.features([square(*COLOURS[name], size=8)], "logits"))
        best = {of: max(of, key=lambda one: logits[model.labels.index(one)]) for of in (("red", "blue"), ("warm", "cold"))}
        assert list(best.values()) == [name, warmth]


def test_more_classes_than_the_head_has_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    data = rows(tmp_path / "a", "red", "green"), rows(tmp_path / "b", "blue", "black")
    with pytest.raises(UsageError, match=r"have 4 classes \(black, blue, green, red.*\), the model 3; set model.config.classes to 4"):
        Run(config(*data), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_held_out_rows_are_counted_by_the_numbers_of_training(tmp_path: Path) -> None:
    """Blue is class 0 of what is held out by itself, and class 0 of training only by chance of the alphabet: green is not."""
    held = {"kind": "loss", "data": rows(tmp_path / "held", "green", "red")}
    run = Run(config(rows(tmp_path / "a", "red", "green", "blue"), evaluation=held), tmp_path / "run", quiet=True)
    run.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/accuracy"] for line in lines if "eval/accuracy" in line][-1] == 1


def test_a_class_that_no_stream_learns_is_refused_before_training(tmp_path: Path) -> None:
    held = {"kind": "loss", "data": rows(tmp_path / "held", "green", "black")}
    run = Run(config(rows(tmp_path / "a", "red", "green", "blue"), evaluation=held), tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match=r"of class 'black' \(meta.colour\), which no stream learns; the classes are: blue, green, red"):
        run.train()


def test_other_classes_are_no_continuation(tmp_path: Path) -> None:
    data = rows(tmp_path / "a", "red", "green")
    Run(config(data, steps=1), tmp_path / "run", quiet=True).train()
    rows(tmp_path / "a2", "red", "blue")
    (tmp_path / "a").rename(tmp_path / "before")
    (tmp_path / "a2").rename(tmp_path / "a")
    with pytest.raises(UsageError, match="the classes are not those that this run was begun with"):
        Run(config(data, steps=1), tmp_path / "run", quiet=True).train(resume=True)


def test_rows_without_a_class_are_left_out_and_listed(tmp_path: Path) -> None:
    data = rows(tmp_path / "a", "red", "green")
    Dataset.from_rows([*open_data(data["source"]), Row(id="flag", images=(square(1, 2, 3, size=8),))]).write(tmp_path / "b")
    run = Run(config(data | {"source": str(tmp_path / "b")}, classes=2, steps=1), tmp_path / "run", quiet=True)
    run.train()
    assert [(one.where, one.reason) for one in run.dropped_rows()] == [("flag", "no class (meta.colour)")]
