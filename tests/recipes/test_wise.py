"""`tonggan wise` and `tonggan merge` end to end, on a tiny CLIP and an adapter of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fakes import colour_rows
from hub.references import save_clip, tiny_clip
from tonggan import hub
from tonggan.backends import load_local
from tonggan.cli import app
from tonggan.data.rows import Dataset
from tonggan.hub import Checkpoint, adapters
from tonggan.models import adapt
from tonggan.types import UsageError


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def base(directory: Path) -> Checkpoint:
    found = hub.read(save_clip(directory / "published", tiny_clip()))
    hub.save(directory / "base", found.module, found.config, found.processor)
    return hub.read(directory / "base")


def tuned(checkpoint: Checkpoint, directory: Path, **settings: Any) -> Path:
    """An adapter on the base, moved at random."""
    config = adapt.LoraConfig(rank=2, **settings)
    view = adapt.attach(checkpoint.module, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in view.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapters.save(directory, view, checkpoint, config)
    return directory


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    Dataset.from_rows(colour_rows()).write(tmp_path / "rows")
    return tmp_path / "rows"


def test_the_line_between_a_model_and_its_adapter(tmp_path: Path, rows: Path) -> None:
    before = base(tmp_path)
    adapter = tuned(before, tmp_path / "adapter")
    words = ("wise", tmp_path / "base", adapter, tmp_path / "out", "--new", rows, "--old", rows, "--new-lang", "zh", "--points", 3)
    code, out, err = call(*words, "--keep", 100, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [point["alpha"] for point in told["points"]] == [0, 0.5, 1]
    assert told["new"]["metric"] == told["old"]["metric"] == "mean recall"
    assert told["model"] == str(tmp_path / "out" / "model") and Path(told["report"]).is_file()
    assert json.loads((tmp_path / "out" / "wise.json").read_text())["chosen"] == told["chosen"]
    kept = hub.read(tmp_path / "out" / "model")
    assert kept.identity.verified
    assert kept.provenance["interpolated"]["alpha"] == told["chosen"]
    assert kept.provenance["interpolated"]["untuned"]["weights"] == before.identity.weights
    merged = adapt.merge(load_local(adapter, device="cpu").module).state_dict()
    first = before.module.state_dict()
    for name, tensor in kept.module.state_dict().items():
        assert torch.equal(tensor, torch.lerp(first[name], merged[name], told["chosen"])), name
    code, out, _ = call(*words, "--keep", 0)
    assert code == 0
    assert "α" in out and "*" in out and "report.html" in out
    assert "旧能力" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_point_is_chosen_on_rows_that_were_not_learnt_from(tmp_path: Path, rows: Path) -> None:
    """Each skill on its own split and by its own column of classes."""
    before = base(tmp_path)
    adapter = tuned(before, tmp_path / "adapter")
    sides = {"new": ("train", "val", "test"), "old": ("train", "test", "test"), "seen": ("train", "train", "train")}
    for name, splits in sides.items():
        column = f"{name} kind"
        some = [row.with_(split=split, meta={column: row.id}) for row, split in zip(colour_rows() * 2, splits * 2, strict=True)]
        some = [row.with_(id=f"{i}") for i, row in enumerate(some)]
        Dataset.from_rows(some).write(tmp_path / name)
    words = ("wise", tmp_path / "base", adapter, tmp_path / "out", "--points", 2, "--new", tmp_path / "new", "--old", tmp_path / "old")
    code, _, err = call(*words, "--old-task", "classification", "--old-label", "old kind", "--json")
    assert code == 0, err
    assert f"new skill: 2 rows of {tmp_path / 'new'}, split val" in err and f"old skill: 4 rows of {tmp_path / 'old'}, split test" in err
    code, _, err = call(*words[:-1], tmp_path / "seen")
    assert code == 2 and "has no split val or test, only train; name one that was not learnt from: --old-split" in err
    code, _, err = call(*words[:-1], rows, "--old-split", "tset")
    assert code == 2 and "no split 'tset'" in err
    both = ("--new-task", "classification", "--new-label", "new kind", "--new-split", "test", "--old-task", "labels")
    code, _, err = call(*words, *both, "--old-label", "old kind", "--limit", 3)
    assert code == 2 and "column 'new kind' has one class only" in err, "of the new skill, whose column was found"


def test_models_that_do_not_compute_alike_are_refused(tmp_path: Path, rows: Path) -> None:
    base(tmp_path)
    other = hub.read(save_clip(tmp_path / "other", tiny_clip("gelu")))
    hub.save(tmp_path / "other-base", other.module, other.config, other.processor)
    code, _, err = call("wise", tmp_path / "base", tmp_path / "other-base", tmp_path / "out", "--new", rows, "--old", rows)
    assert code == 2
    assert "do not compute alike" in err and "model.image.activation: 'quick_gelu' != 'gelu'" in err
    code, _, err = call("wise", tmp_path / "base", "x", tmp_path / "out", "--new", rows, "--old", rows, "--new-task", "retrival")
    assert code == 2
    assert "did you mean 'retrieval'" in err


def test_merge_writes_a_model_as_any_other(tmp_path: Path) -> None:
    before = base(tmp_path)
    adapter = tuned(before, tmp_path / "adapter", whole=("text_head",))
    code, out, err = call("merge", adapter, tmp_path / "merged", "--json")
    assert code == 0, err
    found = load_local(tmp_path / "merged", device="cpu")
    assert json.loads(out)["weights"] == found.identity.weights != before.identity.weights
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "clip"
    texts = ["a red square", "红色的方块"]
    assert abs(load_local(adapter, device="cpu").embed(texts).vectors - found.embed(texts).vectors).max() < 1e-5
    code, _, err = call("merge", tmp_path / "base", tmp_path / "again")
    assert code == 2
    assert "has no adapter to merge" in err


def test_a_skill_is_measured_by_a_task_that_exists(tmp_path: Path) -> None:
    from tonggan.recipes.wise import Skill

    model = load_local(save_clip(tmp_path / "clip", tiny_clip()), device="cpu")
    with pytest.raises(UsageError, match="task 'captions': a skill is measured by one of retrieval, classification, labels"):
        Skill(colour_rows(), "rows", "captions").measure(model)
    rows = [row.with_(meta={"kind": "red" if row.id == "r" else "other"}) for row in colour_rows()]
    assert Skill(rows, "rows", "classification", "kind").measure(model).primary == "zero-shot en acc1"
    assert Skill(rows, "rows", "labels", "kind").measure(model).primary == "labels en mAP"
