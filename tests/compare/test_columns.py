"""Published values side by side: settings and evidence are never mixed, and medians by origin have a rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.compare import registry
from tonggan.compare.registry import Medians, Published, Registry, released, side_by_side
from tonggan.compare.registry.columns import columns, medians
from tonggan.compare.registry.pages import page, write
from tonggan.report import Words
from tonggan.types import UsageError

DOCS = Path(__file__).parents[2] / "docs"
KNOWN = registry.load()
A_VALUE = KNOWN.results[0]

values = st.builds(
    Published,
    model=st.sampled_from(["gpt-4o", "gpt-4o/mini", "qwen2.5-vl/7b", "wukong"]),
    benchmark=st.sampled_from(["A", "B"]),
    value=st.floats(0, 100),
    written=st.just(""),
    unit=st.sampled_from(["%", "% (lower better)"]),
    setting=st.sampled_from([None, "zero-shot", "8 shots"]),
    evidence=st.sampled_from(["self-reported", "uniform-harness"]),
    source=st.sampled_from(["one", "two"]),
    interval=st.none(),
    note=st.none(),
    file=st.just("t"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, max_size=30))
def test_no_column_mixes_anything(results: list[Published]) -> None:
    found = columns(results, KNOWN.models)
    assert sum(len(one.results) for one in found) == len(results), "nothing is lost, nothing counted twice"
    assert len({one.column for one in found}) == len(found)
    for one in found:
        assert len({(r.benchmark, r.unit, r.setting, r.evidence) for r in one.results}) == 1
        if one.column.setting is None:
            assert len({r.source for r in one.results}) == 1, "two unstated settings are not known to be the same"
        ordered = [r.value for r in one.results]
        assert ordered == sorted(ordered, reverse=one.results[0].higher_is_better)


def test_no_shipped_column_mixes_anything() -> None:
    for one in columns(KNOWN.results, KNOWN.models):
        assert len({(r.benchmark, r.unit, r.setting, r.evidence) for r in one.results}) == 1


def test_two_models_meet_only_in_their_common_columns() -> None:
    found = side_by_side(KNOWN, ["qwen2.5-vl", "gpt-4o"], ["MMMU val"])
    assert found
    for one in found:
        assert {r.release for r in one.results} == {"qwen2.5-vl", "gpt-4o"}
    alone = side_by_side(KNOWN, ["gpt-4o"], ["mmmu VAL"])
    assert len(alone) > len(found), "one model is shown with all that stand beside it"
    assert any(len(one.models) > 2 for one in alone)
    domestic = [model for model in KNOWN.models.values() if model.origin == "CN"]
    assert {KNOWN.models[r.release].origin for one in side_by_side(KNOWN, [], ["MMMU val"], domestic) for r in one.results} == {"CN"}


def test_comparing_nothing_or_strangers_is_refused() -> None:
    with pytest.raises(UsageError, match="name models or a benchmark"):
        side_by_side(KNOWN)
    with pytest.raises(UsageError, match="did you mean 'gpt-4o'"):
        side_by_side(KNOWN, ["gpt4o"])
    with pytest.raises(UsageError, match="has no published values"):
        side_by_side(KNOWN, ["sd-1.5/none"])
    silent = next(name for name in KNOWN.models if all(r.release != name for r in KNOWN.results))
    with pytest.raises(UsageError, match="no published values in the registry"):
        side_by_side(KNOWN, [silent])


# ------------------------------------------------------------------------------------------ medians


def made(*models: tuple[str, str | None, str | None, float]) -> tuple[list[Published], Registry]:
    """Values of one column, and a registry of their models: (id, country, release date, value)."""
    clip = KNOWN.models["openai-clip"]
    facts = {name: replace(clip, id=name, country=country, released=date) for name, country, date, _ in models}
    return [replace(A_VALUE, model=f"{name}/v", value=value) for name, _, _, value in models], Registry(facts, [])


def test_medians_when_each_side_has_three_of_near_dates() -> None:
    three = [("a", "CN", "2025-01", 1.0), ("b", "CN", "2025-01-31", 5.0), ("c", "CN", "2025-03", 3.0)]
    results, made_up = made(*three, ("d", "US", "2025-07", 2.0), ("e", "EU", "2025-07", 9.0), ("f", "UK", "2024-01", 4.0))
    assert medians(results, made_up.models) == Medians(3.0, 4.0, (3, 3), -6.0)


def test_no_medians_when_dates_differ_by_more_than_six_months() -> None:
    three = [("a", "CN", "2025-01", 1.0), ("b", "CN", "2025-01", 5.0), ("c", "CN", "2025-01", 3.0)]
    results, made_up = made(*three, *[(name, "US", "2025-08", 2.0) for name in "def"])
    why = medians(results, made_up.models)
    assert isinstance(why, Words)
    assert "the foreign models are 7 months newer" in why.en
    assert "国外模型晚 7 个月" in why.zh


@pytest.mark.parametrize("last", [("f", None, "2025-01", 2.0), ("f", "US", None, 2.0)], ids=["of unknown origin", "undated"])
def test_models_of_unknown_origin_or_date_do_not_count(last: tuple[str, str | None, str | None, float]) -> None:
    results, made_up = made(*[(name, "CN", "2025-01", 1.0) for name in "abc"], *[(name, "US", "2025-01", 2.0) for name in "de"], last)
    why = medians(results, made_up.models)
    assert isinstance(why, Words)
    assert "3 domestic and 2 foreign" in why.en


def test_sizes_of_one_release_are_not_three_models() -> None:
    results, made_up = made(*[(name, "CN", "2025-01", 1.0) for name in "abc"], ("d", "US", "2025-01", 2.0))
    results += [replace(results[-1], model=f"d/{size}") for size in ("7b", "13b", "70b")]
    assert isinstance(medians(results, made_up.models), Words)


def test_a_snapshot_named_by_its_date_has_that_date() -> None:
    """An alias such as qwen-vl-max points to newer models: by the date of its first, time would seem to explain nothing."""
    dates = {
        "qwen-vl-max/2025-08-13": "2025-08-13",
        "claude-3.5-sonnet/20241022": "2024-10-22",
        "gpt-4o/chatgpt-latest-20250326": "2025-03-26",
        "gpt-4o/2024-08": "2024-08",
        "qwen-vl-max/1119": "2024-01",
        "mistral-medium/2508": "2025-08",
        "qwen2.5-vl/72b": "2025-01",
        "gpt-4o": "2024-05",
        "wukong/20259999": None,
    }
    assert {name: released(name, KNOWN.models) for name in dates} == dates


# --------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(("language", "name"), [("en", "comparison.md"), ("zh", "zh/comparison.md")])
def test_the_pages_are_what_is_generated(language: str, name: str) -> None:
    made_now = page(language, KNOWN)  # type: ignore[arg-type]
    assert (DOCS / name).read_text("utf-8") == made_now, "run: python -m tonggan.compare.registry.pages docs"
    assert len(made_now.splitlines()) < 400


def test_every_model_is_on_the_pages_once_by_paradigm(tmp_path: Path) -> None:
    english, chinese = (file.read_text("utf-8") for file in write(tmp_path))
    for text, head in ((english, "| Model |"), (chinese, "| 模型 |")):
        tables = text[text.index(head) : text.index("MMMU val ·")]
        rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.startswith(head)]
        assert len(rows) == len(KNOWN.models)
    assert registry.AS_OF in english
    assert registry.AS_OF in chinese
    assert "None" not in english + chinese
