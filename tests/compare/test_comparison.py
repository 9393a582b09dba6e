"""What is made of several models' results: pairs, slices, coverage, costs, and the files that are left behind."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fakes import ColourModel, square
from tonggan.compare import (
    About,
    How,
    Price,
    Task,
    TaskConfig,
    compare,
    distinct,
    gap,
    plain,
    registry,
    releases,
    slices,
    suite,
    task,
    tasks,
    together,
    write,
)
from tonggan.compare.about import spent
from tonggan.compare.measure import measure
from tonggan.compare.pairs import answered_only, pair_up
from tonggan.compare.report import page
from tonggan.data.rows import Dataset
from tonggan.evaluate.judge import Judge
from tonggan.evaluate.tasks.answers import answers
from tonggan.types import Answer, ChatOptions, Identity, Message, Model, Row, Text, TongganError, Usage, UsageError


class Talker(Model):
    """Answers by a rule of the question's number."""

    can, modalities = frozenset({"chat"}), frozenset({"text", "image"})

    def __init__(self, name: str, rule: Callable[[int], Answer | str]) -> None:
        self.name, self.rule, self.identity = name, rule, Identity({}, name)

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        given = []
        for (message,) in conversations:
            words = next(part.text for part in message.parts if isinstance(part, Text))
            said = self.rule(int("".join(c for c in words.splitlines()[0] if c.isdigit())))
            given.append(said if isinstance(said, Answer) else Answer(said, usage=Usage(100, 10), seconds=0.1, model="snapshot-1"))
        return given


def asked(n: int = 24, **config: object) -> Task:
    """Free questions, half of each language, about pictures of two kinds."""
    rows = []
    for i in range(n):
        question = f"第{i}张是什么？" if i % 2 else f"What is number {i}?"
        kind = "menu" if i < n // 3 else "sign"
        rows.append(Row(f"q{i}", images=(square(i, 0, 0),), question=question, answers=(f"thing {i}",), group=f"p{i}", meta={"kind": kind}))
    return Task("things", "answers", tuple(rows), ("things", "东西"), config=TaskConfig.parse({"data": "things", **config}))


def good(i: int) -> str:
    return f"thing {i}"


# ------------------------------------------------------------------------------------------------ pairs


def test_free_answers_are_compared_like_any_other(tmp_path: Path) -> None:
    models = {"all": Talker("all", good), "odd": Talker("odd", lambda i: good(i) if i % 2 else "no idea")}
    told = compare(list(models), [asked()], tmp_path, load=models.__getitem__, say=lambda _: None)
    (pair,) = told.pairs
    assert pair.difference.value == 0.5 and pair.adjusted < 0.01
    found = gap(told.results("things")["odd"])
    assert found is not None and found.value == 1.0
    assert told.cells["things", "all"].blind is not None


def test_an_error_rate_is_compared_as_a_rate_of_all_items(tmp_path: Path) -> None:
    models = {"all": Talker("all", good), "none": Talker("none", lambda i: "thing")}
    told = compare(list(models), [asked(metric="wer")], tmp_path, load=models.__getitem__, say=lambda _: None)
    (pair,) = told.pairs
    assert pair.difference.value == pytest.approx(-0.5) and pair.exact is None and pair.detectable is None
    assert told.smaller_is_better("things")
    assert "越低越好" in page(told).html()


def test_what_failed_is_left_out_of_the_comparison(tmp_path: Path) -> None:
    """A model that is right on all that it answered is no worse for its provider's errors."""
    fails = Answer(outcome="error", error="HTTP 400")
    models = {"steady": Talker("steady", good), "flaky": Talker("flaky", lambda i: fails if i % 3 == 0 else good(i))}
    told = compare(list(models), [asked()], tmp_path, load=models.__getitem__, say=lambda _: None)
    (pair,) = told.pairs
    assert (pair.difference.value, pair.p, pair.left_out) == (0.0, 1.0, 8)
    told_page = page(told).html()
    assert "8 次请求失败" in told_page and "8 failed items left out" in told_page
    write(told, tmp_path, {})
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "failed 8" in markdown and "8 failed items left out" in markdown and "Chinese minus English" in markdown


def test_a_single_picture_is_reported_and_not_tested(tmp_path: Path) -> None:
    models = {"a": Talker("a", good), "b": Talker("b", good)}
    told = compare(list(models), [asked(1)], tmp_path, load=models.__getitem__, say=lambda _: None)
    assert not told.pairs and "two clusters" in told.apart[0].why
    assert write(told, tmp_path, {}).is_file()


def test_whatever_a_model_runs_into_costs_its_own_cell(tmp_path: Path) -> None:
    def burst(_: int) -> str:
        raise RuntimeError("CUDA out of memory")

    models = {"burst": Talker("burst", burst), "well": Talker("well", good)}
    told = compare(list(models), [asked()], tmp_path, load=models.__getitem__, say=lambda _: None)
    assert told.cells["things", "burst"].why == "RuntimeError: CUDA out of memory"
    assert told.results("things")["well"].metrics["acc"].value == 1


def test_a_budget_that_ends_without_pictures_keeps_what_was_asked_with_them(tmp_path: Path) -> None:
    calls: list[int] = []

    class Tight(Talker):
        def chat(self, conversations: Any, options: Any = None) -> list[Answer]:
            calls.append(len(conversations))
            if len(calls) > (2 if "endpoint" in self.identity.preprocessing else 1):  # the first question is asked alone there
                raise TongganError("the budget is used up")
            return super().chat(conversations, options)

    told = compare(["t"], [asked()], tmp_path, load=lambda _: Tight("t", good), say=lambda _: None)
    cell = told.cells["things", "t"]
    assert cell.result is not None and cell.blind is None and "without pictures: the budget is used up" in cell.result.notes
    # A model on this machine would not answer tomorrow either; of an endpoint the rest is asked next time.
    assert cell.footprint["device"] == "cpu"
    remote = Talker("t", good)
    remote.identity = Identity({"endpoint": "http://x"}, "t")
    calls.clear()
    tight = Tight("t", good)
    tight.identity = remote.identity
    compare(["t"], [asked()], tmp_path / "far", load=lambda _: tight, say=lambda _: None)
    again = compare(["t"], [asked()], tmp_path / "far", load=lambda _: remote, say=lambda _: None)
    assert again.cells["things", "t"].blind is not None


def test_a_torn_result_is_measured_again(tmp_path: Path) -> None:
    load = {"m": Talker("m", good)}.__getitem__
    compare(["m"], [asked()], tmp_path, load=load, say=lambda _: None)
    (items,) = [f for f in (tmp_path / "results").rglob("m*.items.jsonl") if ".blind" not in f.name]
    for damage in (lambda: items.write_text(items.read_text("utf-8").splitlines()[0] + "\n", "utf-8"), items.unlink):
        damage()
        said: list[str] = []
        compare(["m"], [asked()], tmp_path, load=load, say=said.append)
        assert "measured before" not in said[0]


def test_a_run_without_pictures_is_of_the_same_weights(tmp_path: Path) -> None:
    """Other weights that fail without pictures do not inherit what the former ones scored."""

    class Needs(Talker):
        def chat(self, conversations: Any, options: Any = None) -> list[Answer]:
            if len(conversations[0][0].parts) == 1:
                raise TongganError("needs a picture")
            return super().chat(conversations, options)

    for name, model in (("first", Talker("m", good)), ("second", Needs("m", good)), ("second again", Needs("m", good))):
        model.identity = Identity({}, name.split()[0])
        told = compare(["m"], [asked()], tmp_path, load=lambda _, model=model: model, say=lambda _: None)
        assert (told.cells["things", "m"].blind is None) == (name != "first"), name


def test_items_of_failed_requests_have_no_marks(tmp_path: Path) -> None:
    fails = Answer(outcome="error", error="HTTP 400")
    flaky = Talker("flaky", lambda i: fails if i % 3 == 0 else good(i))
    told = compare(["flaky"], [asked()], tmp_path, load=lambda _: flaky, say=lambda _: None)
    write(told, tmp_path, {})
    rows = [row for row in pq.read_table(tmp_path / "items.parquet").to_pylist() if not row["blind"]]
    assert all(not row["scores"] for row in rows if row["outcome"] == ["error"])
    marked = [dict(row["scores"])["acc"] for row in rows if dict(row["scores"]).get("acc") is not None]
    plainly = json.loads((tmp_path / "results.json").read_text("utf-8"))["scores"]["things"]["flaky"]
    assert (len(rows), len(marked), plainly["n"], plainly["failed"]) == (24, 16, 16, 8)
    assert np.mean(marked) == plainly["value"] == 1.0 and plainly["read"] == {"exact": 16}


def test_what_could_not_be_sent_is_not_asked_for_again(tmp_path: Path) -> None:
    for reason, again in (("unsent", False), (None, True)):
        lost = Answer(outcome="error", finish_reason=reason, error="cannot be read" if reason else "HTTP 500")
        model = Talker("far", lambda i, lost=lost: lost if i == 5 else good(i))
        model.identity = Identity({"endpoint": "http://x"}, "")
        said: list[str] = []
        for _ in range(2):
            compare(["far"], [asked()], tmp_path / str(reason), load=lambda _, model=model: model, say=said.append)
        assert ("measured before" not in said[1]) == again, said


def test_a_model_that_bursts_while_it_is_opened_costs_its_own_cells(tmp_path: Path) -> None:
    def load(name: str) -> Model:
        if name == "odd":
            raise ValueError("strange")
        return Talker(name, good)

    told = compare(["odd", "well"], [asked()], tmp_path, load=load, say=lambda _: None)
    assert told.cells["things", "odd"].why == "ValueError: strange" and told.results("things")["well"].metrics["acc"].value == 1


def test_the_gap_is_not_pulled_to_zero_by_resamples_without_a_language() -> None:
    rows = [row for row in asked().rows if row.id in ("q1", "q3") or int(row.id[1:]) % 2 == 0]
    result = answers(Talker("m", lambda i: good(i) if i % 2 else "no"), rows)
    found = gap(result)
    assert found is not None and (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_unequal_item_sets_are_set_apart_and_said() -> None:
    whole, part = (answers(Talker("m", good), asked(n).rows) for n in (24, 12))
    pairs, apart = pair_up({"things": {"whole": whole, "part": part}})
    assert not pairs and "12 items are in one result only" in apart[0].why
    told = together({"things": {"whole": whole, "part": part}}, [asked()])
    assert "12 items are in one result only" in page(told).html()


def test_a_corpus_score_has_no_mcnemar_and_no_detectable_difference(tmp_path: Path) -> None:
    rows = tuple(Row(f"p{i}", images=(square(i, 9, 9),), texts=(Text(f"thing {i} on a table", "en"),)) for i in range(12))
    pictured = Task("pictures", "captions", rows, ("pictures", "图片"))
    models = {"a": Talker("a", lambda i: "x"), "b": Talker("b", lambda i: "y")}
    for name, model in models.items():
        said = {"a": "thing 3 on a table", "b": "a chair"}[name]
        model.chat = lambda conversations, options=None, said=said: [Answer(said, usage=Usage(5, 5)) for _ in conversations]  # type: ignore[method-assign, misc]
    told = compare(list(models), [pictured], tmp_path, load=models.__getitem__, say=lambda _: None)
    (pair,) = told.pairs
    assert pair.difference.value > 0 and pair.exact is None and pair.detectable is not None
    assert told.results("pictures")["a"].metrics["bleu-4"].value > told.results("pictures")["b"].metrics["bleu-4"].value


# ------------------------------------------------------------------------------------ slices, coverage, cost


def test_slices_add_up_to_the_whole() -> None:
    result = answers(Talker("m", lambda i: good(i) if i < 10 else "no"), asked().rows)
    found = slices(result, asked(), "kind")
    assert {name: (one.score.n, one.pictures) for name, one in found.items()} == {"menu": (8, 8), "sign": (16, 16)}
    total = sum(one.score.value * one.score.n for one in found.values()) / 24
    assert total == pytest.approx(result.metrics["acc"].value)


def test_a_slice_of_few_pictures_has_no_interval(tmp_path: Path) -> None:
    models = {"m": Talker("m", good)}
    told = compare(["m"], [asked(by=["kind"])], tmp_path, load=models.__getitem__, say=lambda _: None)
    text = page(told).html()
    row = text[text.index(">菜单</span>") : text.index(">标识</span>")]
    assert "100.0" in row and "(" not in row, "8 pictures"


def test_refusals_are_left_out_of_the_answered() -> None:
    result = answers(Talker("m", lambda i: Answer("", outcome="refused") if i < 12 else good(i)), asked().rows)
    assert result.metrics["acc"].value == 0.5
    only = answered_only(result)
    assert only is not None and only.value == 1.0 and only.n == 12
    assert answered_only(answers(Talker("m", good), asked().rows)) is None, "then it would be the score itself"


def test_cost_latency_and_tokens_come_from_the_answers() -> None:
    cell = measure(Talker("m", good), asked(), How(), "data")
    took = spent(cell, Price(2.0, 5.0, "CNY"))
    assert took.tokens == (100, 10) and took.seconds == pytest.approx(0.1)
    assert took.cost == pytest.approx(2 * 24 * (100 * 2 + 10 * 5) / 1e6), "with and without pictures"
    assert spent(cell, None).cost is None
    silent = measure(Talker("m", lambda i: Answer(good(i))), asked(), How(), "data")
    assert spent(silent, Price(2.0, 5.0, "CNY")).cost is None, "a bill that nobody knows is not made up"


def test_the_statistics_are_no_part_of_a_models_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Talker("m", good)
    original = slow.chat

    def chat(conversations: Any, options: Any = None) -> list[Answer]:
        time.sleep(0.05)
        return original(conversations, options)

    monkeypatch.setattr(slow, "chat", chat)
    summary = importlib.import_module("tonggan.evaluate.tasks.answers").summary
    monkeypatch.setattr("tonggan.evaluate.tasks.answers.summary", lambda *a, **k: (time.sleep(0.5), summary(*a, **k))[1])
    assert 0.05 <= measure(slow, asked(), How(), "data").footprint["seconds"] < 0.5


# ------------------------------------------------------------------------------------------------- files


def test_every_item_of_every_run_is_in_the_table(tmp_path: Path) -> None:
    models = {"all": Talker("all", good), "none": Talker("none", lambda i: "no")}
    told = compare(list(models), [asked(by=["kind"])], tmp_path, load=models.__getitem__, say=lambda _: None)
    known = registry.load()
    about = {"all": About(known.find("gpt-4o"), "abroad", Price(1, 2, "USD")), "none": About(known.find("qwen2.5-vl"), "local")}
    text = write(told, tmp_path, {"tonggan": "0"}, about).read_text("utf-8")
    rows = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 24 and sum(row["blind"] for row in rows) == 48
    first = next(row for row in rows if row["model"] == "all" and row["row"] == "q3" and not row["blind"])
    assert (first["said"], first["read"], first["outcome"], first["lang"]) == (["thing 3"], ["exact"], ["answered"], "zh")
    assert dict(first["scores"])["acc"] == 1.0 and first["input_tokens"] == [100]
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert manifest["models"]["all"]["answered_as"] == ["snapshot-1"] and manifest["judge"] is None
    told_plain = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert told_plain["models"]["none"]["origin"] == "CN" and told_plain["models"]["all"]["price"] == [1, 2, "USD"]
    assert told_plain["scores"]["things"]["all"]["slices"]["kind"]["menu"]["n"] == 8
    assert "国内" in text and "境外" in text and "不出本机" in text and "USD" in text
    assert "median release dates are" in text, "origins are grouped, not averaged"


def test_names_are_short_where_they_can_be(tmp_path: Path) -> None:
    names = ["runs/a/best", "runs/b/best", "dashscope:qwen-vl-max"]
    told = together({"things": {name: answers(Talker(name, good), asked().rows) for name in names}}, [asked()])
    assert [told.label(name) for name in names] == ["a/best", "b/best", "qwen-vl-max"]


def test_errors_and_their_units_are_in_the_table(tmp_path: Path) -> None:
    told = compare(["m"], [asked(metric="wer")], tmp_path, load=lambda _: Talker("m", lambda i: "thing"), say=lambda _: None)
    write(told, tmp_path, {})
    first = pq.read_table(tmp_path / "items.parquet").to_pylist()[0]
    assert dict(first["scores"]) == {"errors": 1.0, "units": 2.0}


def test_an_alias_is_of_its_first_release_or_later() -> None:
    release = registry.load().find("gpt-4o")
    told = together({"things": {"openai:gpt-4o": answers(Talker("m", good), asked().rows)}}, [asked()])
    assert f"{release.released} 或更晚" in page(told, {"openai:gpt-4o": About(release, "abroad", moving=True)}).html()


def test_a_release_is_named_or_just_so_and_never_guessed() -> None:
    known = registry.load()
    found = releases(
        {"openai:gpt-4o": None, "gpt-4o": None, "runs/gpt-4o": None, "openai+http://host/v1#gpt-4o": None, "x": "qwen2.5-vl"}, known
    )
    assert found["openai:gpt-4o"] is not None and found["openai:gpt-4o"].id == "gpt-4o"
    assert found["x"] is not None and found["x"].id == "qwen2.5-vl"
    assert [found[name] for name in ("gpt-4o", "runs/gpt-4o", "openai+http://host/v1#gpt-4o")] == [None] * 3
    with pytest.raises(UsageError, match="did you mean"):
        releases({"x": "qwen2.5-vll"}, known)


# ------------------------------------------------------------------------------------------ tasks, suites


def test_a_file_of_both_kinds_of_question_is_two_tasks(tmp_path: Path) -> None:
    mixed = [row.with_(choices=(row.answers[0], "another")) if i % 3 == 0 else row for i, row in enumerate(asked().rows)]
    Dataset.from_rows(mixed).write(tmp_path / "own")
    one, two = tasks(TaskConfig(data=str(tmp_path / "own")))
    assert (one.kind, len(one.rows), two.kind, len(two.rows)) == ("choice", 8, "answers", 16)
    assert one.name != two.name
    (free,) = tasks(TaskConfig(data=str(tmp_path / "own"), kind="answers"))
    assert len(free.rows) == 24


def test_one_file_under_two_settings_is_two_tasks(tmp_path: Path) -> None:
    one, two = distinct([asked(metric="anls"), asked(metric="match")])
    assert (one.name, two.name) == ("things (metric anls)", "things (metric match)")
    told = compare(["m"], [one, two], tmp_path, load=lambda _: Talker("m", good), say=lambda _: None)
    assert {task: cell.result.primary for (task, _), cell in told.cells.items() if cell.result} == {one.name: "anls", two.name: "acc"}
    with pytest.raises(UsageError, match="twice with the same settings"):
        distinct([asked(), asked()])
    with pytest.raises(UsageError, match="two tasks have one name"):
        compare(["m"], [asked(), asked()], tmp_path, load=lambda _: Talker("m", good), say=lambda _: None)


def test_chinese_classes_are_asked_for_in_chinese(tmp_path: Path) -> None:
    colours = {"红": (255, 0, 0), "绿": (0, 255, 0), "蓝": (0, 0, 255)}
    rows = tuple(Row(f"{name}{i}", images=(square(*of),), meta={"label": name}) for name, of in colours.items() for i in range(2))
    told = compare(
        ["c"], [Task("classes", "classification", rows, ("c", "类"))], tmp_path, load=lambda _: ColourModel(), say=lambda _: None
    )
    result = told.results("classes")["c"]
    assert result.metrics[result.primary].value == 1.0 and "templates zh" in result.protocol


def test_no_row_that_is_used_is_called_unusable(tmp_path: Path) -> None:
    rows = [Row(f"p{i}", images=(square(i, 1, 1),), texts=(Text(f"thing {i}", "en"),)) for i in range(5)]
    Dataset.from_rows([*rows, Row("bare", images=(square(9, 9, 9),))]).write(tmp_path / "own")
    (found,) = tasks(TaskConfig(data=str(tmp_path / "own")))
    assert len(found.rows) == 5 and [one.where for one in found.dropped] == ["bare"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"metric": "anlz"}, "did you mean 'anls'"),
        ({"by": ["knd"]}, "did you mean 'kind'"),
        ({"kind": "choice"}, "no question has choices"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_measured(tmp_path: Path, config: dict[str, object], says: str) -> None:
    Dataset.from_rows(list(asked().rows)).write(tmp_path / "own")
    with pytest.raises(UsageError, match=says):
        tasks(TaskConfig.parse({"data": str(tmp_path / "own"), **config}))


def test_the_metric_is_part_of_the_fingerprint() -> None:
    assert asked().fingerprint() != asked(metric="wer").fingerprint()


def test_a_suite_is_read_and_its_files_are_found_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dataset.from_rows(list(asked().rows)).write(tmp_path / "own")
    (tmp_path / "suite.yaml").write_text(
        "models: [runs/a]\ntasks:\n  - pages-zh-en\n  - {data: own, by: [kind]}\nmax_cost: 20 CNY\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path.parent)
    read = suite(tmp_path / "suite.yaml")
    assert [Path(one.data).name for one in read.tasks] == ["pages-zh-en", "own"] and Path(read.tasks[1].data).exists()
    assert read.models == ("runs/a",) and read.max_cost == "20 CNY"
    (tmp_path / "wrong.yaml").write_text("tasks: [pages-zh-en]\nmodel: x\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"did you mean 'models'|models"):
        suite(tmp_path / "wrong.yaml")
    with pytest.raises(UsageError, match="no such suite"):
        suite(tmp_path / "none.yaml")


def test_results_of_another_judge_are_other_files(tmp_path: Path) -> None:
    models = {"m": Talker("m", lambda i: f"the {i}th thing")}
    plainly = compare(["m"], [asked()], tmp_path, load=models.__getitem__, say=lambda _: None)
    judge = Talker("judge", lambda i: "yes")
    judged = compare(["m"], [asked()], tmp_path, load=models.__getitem__, how=How(judge=Judge(judge)), say=lambda _: None)
    assert plainly.results("things")["m"].metrics["acc"].value == 0
    assert judged.results("things")["m"].metrics["acc"].value == 1
    again = compare(["m"], [asked()], tmp_path, load=models.__getitem__, say=lambda _: None)
    assert again.results("things")["m"].metrics["acc"].value == 0
    assert plain(judged)["scores"]["things"]["m"]["read"] == {"judge": 24}


def test_one_way_of_asking_makes_unlike_models_comparable(tmp_path: Path) -> None:
    rows = [
        Row(f"q{i}", images=(square(255, 0, 0),), question=f"What is {i}?", choices=("red", "blue"), answers=("red",)) for i in range(8)
    ]
    choices = Task("colours", "choice", tuple(rows), ("colours", "颜色"))

    class Both(Talker):
        can = frozenset({"chat", "logprob"})

        def logprob(self, conversations: Any, continuations: Any) -> list[list[float]]:
            return [[-1.0 * len(text) if text == "red" else -9.0 * len(text) for text in some] for some in continuations]

    models = {"both": Both("both", lambda i: "A"), "also": Both("also", lambda i: "B")}
    told = compare(list(models), [choices], tmp_path, load=models.__getitem__, how=How(way="logprob"), say=lambda _: None)
    assert [result.metrics["acc"].value for result in told.results("colours").values()] == [1.0, 1.0]
    assert all("logprob" in result.protocol for result in told.results("colours").values())
    nearest = compare(["both"], [choices], tmp_path, load=models.__getitem__, how=How(way="embed"), say=lambda _: None)
    assert nearest.cells["colours", "both"].cannot


def test_an_id_that_occurs_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("tonggan.compare.tasks")

    twice = [*asked(2).rows, asked(2).rows[0]]
    monkeypatch.setattr(module.sources, "load", lambda name, **_: Dataset.from_rows(list(twice)))
    monkeypatch.setattr(module, "_both", lambda rows: list(twice))
    with pytest.raises(UsageError, match="'q0' occurs twice"):
        task("scenes-zh-en")


@pytest.mark.source("pages-zh-en")
def test_native_and_translated_items_are_told_apart() -> None:
    assert not task("scenes-zh-en", limit=4).native
    assert np.mean([row.meta.get("lang") == "zh" for row in task("pages-zh-en", limit=8).rows]) == 0.5
