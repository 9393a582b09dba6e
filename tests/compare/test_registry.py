"""The registry of facts: every shipped cell passes, each kind of damage is named, filters leave unknown unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tonggan.compare import registry
from tonggan.compare.registry import Filters, Registry, RegistryError
from tonggan.compare.registry.facts import CAPABILITIES, PARADIGMS, ModelFacts, is_date, sizes_in
from tonggan.compare.registry.loading import Table, build
from tonggan.compare.registry.own import add
from tonggan.compare.registry.published import EVIDENCE, UNITS
from tonggan.types import UsageError

MODEL = {
    "id": "new-model",
    "display_name_en": "New Model",
    "country_region": "CN",
    "release_date": "2026-02",
    "family_paradigm": "projector+LLM",
    "modalities_in": "image,text",
    "modalities_out": "text",
    "source": "example.org/new",
}
RESULT = {
    "model_id": "gpt-4o",
    "benchmark": "MMMU val",
    "value": "69.1",
    "unit": "%",
    "setting": "zero-shot; a test",
    "source": "example.org/table",
    "evidence": "other-vendor-table",
}


def written(path: Path, *rows: dict[str, str], by: str = "\t", encoding: str = "utf-8") -> Path:
    lines = [by.join(rows[0]), *(by.join(row.values()) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@pytest.fixture(scope="module")
def known() -> Registry:
    return registry.load()


# ------------------------------------------------------------------------------------ the shipped tables


def test_every_shipped_cell_passes(known: Registry) -> None:
    assert (len(known.models), len(known.results)) == (214, 4462)
    assert {model.origin for model in known.models.values()} == {"CN", "foreign", "unknown"}
    assert sum(model.origin == "CN" for model in known.models.values()) == 114
    assert all(result.source and result.evidence in EVIDENCE and result.unit in UNITS for result in known.results)
    assert all(model.source and model.family in PARADIGMS for model in known.models.values())
    assert not [model.id for model in known.models.values() if model.family == "other"], "a shipped paradigm has no class"


def test_a_row_of_hyperparameters_is_no_result(known: Registry) -> None:
    """ShareGPT4V's README has a second table under the same row name: epochs 1, maximum length 2048, weight decay 0."""
    values = {(r.benchmark, r.value) for r in known.results if r.model == "sharegpt4v/7b" and r.evidence == "self-reported"}
    assert {("MME perception", 1567.4), ("MME cognition", 376.4), ("LLaVA-Bench-Wild", 72.6)} <= values
    assert not {("MME perception", 2048), ("MME cognition", 0), ("LLaVA-Bench-Wild", 1)} & values


# ------------------------------------------------------------------------------------------- what follows


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("RN50 77M; ViT-B/16 188M; L/14@336 407M", (0.077, 0.188, 0.407)),
        ("2B/4B/8B/32B dense; 30B-A3B; 235B-A22B (Instruct and Thinking)", (2, 4, 8, 30, 32, 235)),
        ("1T total / 32B active", (1000,)),
        ("17B (10B vision + 7B language)", (17,)),
        ("L2-Large 307M+117M; B7-Base 66M+110M", (0.176, 0.424)),
        ("EVA-CLIP-8B 8.1B; 18B 18.1B", (8.1, 18.1)),
        ("20B active MoE + 532M vision encoder", ()),
        ("tiny 1.0B / small 2.8B / base 4.5B activated", ()),
        ("B/16 203M; SO400M/14 878M", (0.203, 0.878)),
        ("Large / Huge", ()),
        ("2B / 5B / 1.5-5B", (2, 5)),
        ("70亿", (7,)),
        ("", ()),
    ],
)
def test_sizes_are_read_but_not_guessed(text: str, sizes: tuple[float, ...]) -> None:
    assert sizes_in(text) == pytest.approx(sizes)


def with_facts(known: Registry, **facts: str | None) -> ModelFacts:
    return replace(known.models["chinese-clip"], **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("licence", "terms", "commercial"),
    [
        ("Apache-2.0", "permissive", "yes"),
        ("Apache-2.0 code", "unknown", "unknown"),
        ("MIT (repo)", "unknown", "unknown"),
        ("MIT code + DeepSeek model licence", "conditions", "conditions"),
        ("Modified MIT", "conditions", "conditions"),
        ("Llama 4 Community License", "conditions", "conditions"),
        ("CC-BY-NC-SA 4.0", "non-commercial", "no"),
        ("schnell Apache-2.0; dev FLUX.1-dev Non-Commercial", "conditions", "conditions"),
        ("proprietary weights (repo Apache-2.0)", "proprietary", "unknown"),
        ("gated on HF", "unknown", "unknown"),
        (None, "unknown", "unknown"),
    ],
)
def test_a_doubtful_licence_is_unknown(known: Registry, licence: str | None, terms: str, commercial: str) -> None:
    model = with_facts(known, licence=licence)
    assert (model.terms, model.commercial) == (terms, commercial)


def test_where_data_goes(known: Registry) -> None:
    goes = {name: known.models[name].data_goes for name in ("qwen-vl-max", "gpt-4o", "qwen2.5-vl", "kosmos-1", "wukong")}
    assert goes == {
        "qwen-vl-max": "in mainland China",
        "gpt-4o": "abroad",
        "qwen2.5-vl": "stays with you",
        "kosmos-1": "unknown",  # closed, but nothing says that it was ever offered
        "wukong": "unknown",
    }
    assert with_facts(known, country=None, weights="closed", licence="proprietary").data_goes == "unknown"


def test_capabilities_come_from_the_modalities(known: Registry) -> None:
    assert known.models["qwen2.5-omni"].can == ("chat", "speak", "see", "watch", "hear")
    assert known.models["openai-clip"].can == ("embed", "see")
    assert known.models["ofa"].can == ("chat", "locate", "see"), "image tokens are no picture"


def test_what_holds_for_one_value_makes_no_setting(known: Registry) -> None:
    rated = [r for r in known.results if r.benchmark == "LMArena Vision rating (zh)"]
    assert {r.setting for r in rated} == {"human preference, Chinese prompts; snapshot 2025-12-17"}
    assert all(r.interval and r.interval[0] <= r.value <= r.interval[1] for r in rated)
    assert all((r.note or "").startswith("arena name ") for r in rated)


@pytest.mark.parametrize(
    ("text", "right"), [("2024-02", True), ("2024-02-29", True), ("2025-02-29", False), ("2024-13", False), ("2024", False)]
)
def test_dates_are_in_the_calendar(text: str, right: bool) -> None:
    assert is_date(text) is right


# ----------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("cell", "value", "said"),
    [
        ("value", "101", r"value: '101'; expected 0 to 100 \(unit '%'\)"),
        ("value", "-1", "expected 0 to 100"),
        ("value", "63,5", "a number with a decimal point"),
        ("value", "nan", "a number with a decimal point"),
        ("value", "", "value: empty"),
        ("unit", "percent", "unit: 'percent'; expected one of %"),
        ("unit", "points", "unit: 'points'; expected %"),
        ("evidence", "self-report", "did you mean 'self-reported'"),
        ("model_id", "gpt4o/2024-08-06", r"did you mean 'gpt-4o'"),
        ("model_id", "gpt 4o", "ID/VARIANT"),
        ("source", "", "a value without a source is not kept"),
        ("benchmark", "", "the benchmark's name"),
    ],
)
def test_a_wrong_result_is_named(tmp_path: Path, cell: str, value: str, said: str) -> None:
    file = written(tmp_path / "mine.tsv", RESULT, RESULT | {"setting": "another"} | {cell: value})
    with pytest.raises(RegistryError, match=said) as caught:
        add(file, tmp_path / "kept")
    assert str(file) in str(caught.value)
    assert not (tmp_path / "kept").exists(), "nothing is kept when a cell is wrong"


@pytest.mark.parametrize(
    ("cell", "value", "said"),
    [
        ("id", "New Model", "small letters"),
        ("id", "gpt-4o", r"an id of its own; models\.tsv:\d+ has this one"),
        ("release_date", "2026-13", "YYYY-MM or YYYY-MM-DD"),
        ("release_date", "2099-01", "after today"),
        ("country_region", "China", "another code of two letters"),
        ("modalities_in", "picture", "separated by commas"),
        ("display_name_en", "", "the model's name"),
        ("source", "", "a fact without a source is not kept"),
    ],
)
def test_a_wrong_fact_is_named(tmp_path: Path, cell: str, value: str, said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        add(written(tmp_path / "mine.tsv", MODEL | {cell: value}), tmp_path / "kept")


def test_benchmarks_have_bounds_of_their_own(tmp_path: Path) -> None:
    row = RESULT | {"benchmark": "MME perception", "unit": "points", "value": "2048"}
    with pytest.raises(RegistryError, match=r"mine\.tsv:2: value: '2048'; expected 0 to 2000"):
        add(written(tmp_path / "mine.tsv", row), tmp_path / "kept")


def test_a_duplicate_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"mine\.tsv:3: value: '70\.3'; expected one value of gpt-4o on 'MMMU val' .*mine\.tsv:2 says 69\.1"
    ):
        add(written(tmp_path / "mine.tsv", RESULT, RESULT | {"value": "70.3"}), tmp_path / "kept")
    with pytest.raises(RegistryError, match="says the same"):
        add(written(tmp_path / "mine.tsv", RESULT, RESULT), tmp_path / "kept")


def test_all_wrong_cells_are_listed_at_once(tmp_path: Path) -> None:
    bad = RESULT | {"value": "x", "unit": "y", "evidence": "z"}
    with pytest.raises(RegistryError) as caught:
        add(written(tmp_path / "mine.tsv", bad, *[bad | {"setting": str(n)} for n in range(30)]), tmp_path / "kept")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("93 problems")
    assert lines[-1] == "  … and 73 more"


def test_a_wrong_header_and_a_torn_line_are_named() -> None:
    header = ["model_id", "benchmark", "value", "unit", "setting", "source", "evidense"]
    with pytest.raises(RegistryError, match=r"t:1: no such column 'evidense' \(did you mean 'evidence'\?\)"):
        build(Table("t", [(1, header)], False))
    with pytest.raises(RegistryError, match="t:1: column 'evidence' is missing"):
        build(Table("t", [(1, header[:6])], False))
    with pytest.raises(RegistryError, match="t:2: 8 cells, but 7 columns"):
        build(Table("t", [(1, list(RESULT)), (2, [*RESULT.values(), "more"])], False))


# ------------------------------------------------------------------------------------------ a user's rows


@pytest.mark.parametrize(("name", "by", "encoding"), [("甲.csv", ",", "gb18030"), ("b.csv", ";", "utf-8-sig"), ("c.tsv", "\t", "utf-16")])
def test_own_rows_in_usual_encodings(tmp_path: Path, name: str, by: str, encoding: str) -> None:
    kept = tmp_path / "kept"
    model = add(
        written(tmp_path / f"模型-{name}", MODEL | {"modalities_in": "image", "display_name_en": "新模型"}, by=by, encoding=encoding), kept
    )
    added = add(written(tmp_path / name, RESULT | {"model_id": "new-model/7b", "setting": "零样本"}, by=by, encoding=encoding), kept)
    assert (model.kind, added.kind, added.rows) == ("models", "results", 1)
    known = registry.load(kept)
    assert known.find("新模型").file == model.file.name
    mine = [r for r in known.results if r.release == "new-model"]
    assert [(r.setting, r.value, r.file) for r in mine] == [("零样本", 69.1, added.file.name)]
    assert len(registry.load().results) == len(known.results) - 1, "the shipped tables are as they were"


def test_empty_columns_of_a_spreadsheet_are_no_columns(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(",".join(RESULT) + ",,\n" + ",".join(RESULT.values()) + ",,\n,,,,,,,,\n")
    assert add(file, tmp_path / "kept").rows == 1
    assert len(registry.load(tmp_path / "kept").results) == 4463


def test_other_rows_of_the_same_name_are_not_overwritten(tmp_path: Path) -> None:
    kept, file = tmp_path / "kept", tmp_path / "mine.tsv"
    add(written(file, RESULT), kept)
    add(file, kept)  # the same again is no change
    with pytest.raises(UsageError, match="--replace"):
        add(written(file, RESULT | {"value": "70.0"}), kept)
    add(file, kept, replace=True)
    assert [r.value for r in registry.load(kept).results if r.source == RESULT["source"]] == [70.0]


def test_a_new_benchmark_deserves_a_look(tmp_path: Path) -> None:
    added = add(written(tmp_path / "mine.tsv", RESULT | {"benchmark": "MMMU Val"}), tmp_path / "kept")
    assert added.notes == ["'MMMU Val' is a new benchmark (did you mean 'MMMU val'?)"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("no.tsv", None, "no such file"),
        ("a.xlsx", "x", "save it as CSV"),
        ("b.csv", "name,score\na,1\n", "its first line names neither"),
        ("c.tsv", "\t".join(RESULT) + "\n", "no rows below"),
        ("d.tsv", "", "its first line names neither"),
    ],
)
def test_files_that_are_no_table_of_the_registry(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        add(tmp_path / name, tmp_path / "kept")


# ---------------------------------------------------------------------------------------------- questions


def chosen(known: Registry, **filters: object) -> set[str]:
    return {model.id for model in known.select(Filters(**filters)).models}  # type: ignore[arg-type]


def test_filters(known: Registry) -> None:
    assert len(chosen(known)) == 214
    assert len(chosen(known, origin="cn")) == 114
    assert len(chosen(known, origin="foreign")) == 91
    assert chosen(known, origin="UK") == {"flamingo", "sd-2.1", "sdxl", "sd3-medium"}
    assert {"qwen2.5-vl", "minicpm-o-2.6"} <= chosen(known, smallest=7, largest=9)
    assert "qwen3-vl" in chosen(known, smallest=200), "one size of several is enough"
    assert "cogvlm" not in chosen(known, largest=10), "7B of language is a part of 17B"
    assert chosen(known, licence="non-commercial") == {"imagebind", "chameleon"} == chosen(known, commercial="no")
    assert chosen(known, capability=("speak", "watch"), origin="CN") >= {"qwen2.5-omni", "minicpm-o-4.5"}
    assert chosen(known, benchmark="vcr zh EASY") >= {"gpt-4o", "qwen2-vl"}
    assert chosen(known, since="2026-01", until="2026-01-31") == {"kimi-k2.5", "step3-vl-10b"}
    assert "openai-clip" in chosen(known, paradigm="two-tower")
    for capability in CAPABILITIES:
        assert chosen(known, capability=(capability,)), capability


def test_unknown_facts_fit_no_filter_and_are_told(known: Registry) -> None:
    found = known.select(Filters(origin="CN", since="2020-01"))
    assert all(model.released for model in found.models)
    undated = {model.id for model in known.models.values() if model.origin != "foreign" and not model.released}
    assert {model.id for model in found.unknown["release date"]} == undated
    assert all(model.origin == "unknown" for model in known.select(Filters(origin="unknown")).models)
    assert known.select(Filters(licence="unknown")).unknown == {}


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"origin": "foriegn"}, "did you mean 'foreign'"),
        ({"licence": "permisive"}, "did you mean 'permissive'"),
        ({"capability": ("drawing",)}, "did you mean 'draw'"),
        ({"paradigm": "two tower"}, "did you mean 'two-tower'"),
        ({"benchmark": "MathVista"}, "names with it: MathVista testmini"),
        ({"benchmark": "MathVisto testmini"}, "did you mean 'MathVista testmini'"),
        ({"since": "2025"}, "write YYYY-MM"),
        ({"smallest": 9.0, "largest": 7.0}, "at least 9 and at most 7"),
    ],
)
def test_filters_that_cannot_be_meant(known: Registry, filters: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(known, **filters)


def test_models_are_found_by_id_and_by_name_in_both_languages(known: Registry) -> None:
    assert known.find("gpt-4o").name == "GPT-4o"
    assert known.find("qwen2.5-VL").id == known.find("通义千问2.5-VL").id == "qwen2.5-vl"
    with pytest.raises(UsageError, match=r"several models: .*hunyuanvideo"):
        known.find("混元")
    with pytest.raises(UsageError, match=r"did you mean 'qwen2\.5-vl'"):
        known.find("qwen25-vl")
    assert known.variants("qwen2.5-vl/72b") == ["qwen2.5-vl/72b"]
    assert {"qwen2.5-vl/7b", "qwen2.5-vl/72b"} <= set(known.variants("qwen2.5-vl"))
    with pytest.raises(UsageError, match=r"'qwen2\.5-vl/70b' has no published values \(did you mean 'qwen2\.5-vl/7"):
        known.variants("qwen2.5-vl/70b")
