"""A comparison from end to end with models that need no training: what is measured, what is set apart, what is done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fakes import COLOURS, ColourModel, square
from tonggan.compare import Task, compare, gap, score_of, task, write
from tonggan.compare.report import page
from tonggan.data.rows import Dataset
from tonggan.types import Answer, ChatOptions, Identity, Message, Model, Row, Text, UsageError

NAMES = {"en": ("red", "green", "blue"), "zh": ("红", "绿", "蓝")}


def questions(n: int = 40) -> Task:
    """Half in Chinese, half in English; the picture has the colour that is right."""
    rows = []
    for i in range(n):
        lang = ("zh", "en")[i % 2]
        right = NAMES[lang][i % 3]
        colour = [round(255 * part) for part in COLOURS[right]]
        asked = {"zh": f"第{i}张是什么颜色？", "en": f"What colour is number {i}?"}[lang]
        rows.append(Row(f"q{i}", images=(square(*colour),), question=asked, choices=NAMES[lang], answers=(right,), group=f"page{i // 2}"))
    return Task("colours", "choice", tuple(rows), ("colours", "颜色"))


class Talker(Model):
    """Answers every question by a rule of the number in it."""

    can, modalities = frozenset({"chat"}), frozenset({"text", "image"})

    def __init__(self, name: str, rule: Callable[[int, str], str]) -> None:
        self.name, self.rule, self.asked = name, rule, 0
        self.identity = Identity({}, name)

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        self.asked += len(conversations)
        return [Answer(self._say(next(p.text for p in message.parts if isinstance(p, Text)))) for (message,) in conversations]

    def _say(self, words: str) -> str:
        number = int("".join(c for c in words.splitlines()[0] if c.isdigit()))
        return self.rule(number, NAMES["zh" if "颜色" in words else "en"][number % 3])


def models() -> dict[str, Model]:
    return {
        "knows": Talker("knows", lambda i, right: right),
        "chinese only": Talker("chinese only", lambda i, right: right if i % 2 == 0 else "I do not know"),
        "colours": ColourModel(),
    }


def test_scores_pairs_and_what_is_not_compared(tmp_path: Path) -> None:
    known = models()
    told = compare(list(known), [questions()], tmp_path, load=known.__getitem__, say=lambda _: None)
    scores = {model: score_of(result).value for model, result in told.results("colours").items()}
    assert scores == {"knows": 1.0, "chinese only": 0.5, "colours": 1.0}
    assert score_of(told.results("colours")["knows"]).chance == pytest.approx(1 / 3)
    (pair,) = told.pairs
    assert (pair.one, pair.other, pair.difference.value) == ("knows", "chinese only", 0.5)
    assert pair.adjusted < 0.01 and pair.exact is not None and pair.exact < 0.01
    assert {frozenset((one.one, one.other)) for one in told.apart} == {
        frozenset({"knows", "colours"}),
        frozenset({"chinese only", "colours"}),
    }
    found = gap(told.results("colours")["chinese only"])
    assert found is not None and found.value == 1.0
    blind = told.cells["colours", "knows"].blind
    assert blind is not None and "without pictures" in blind.protocol


def test_a_model_against_itself_differs_by_nothing_and_swapping_turns_the_sign(tmp_path: Path) -> None:
    def load(name: str) -> Model:
        return Talker("any", lambda i, right: right if i % 3 else "I do not know") if name != "other" else models()["knows"]

    one = compare(["a", "b", "other"], [questions()], tmp_path / "1", load=load, say=lambda _: None)
    same = next(p for p in one.pairs if {p.one, p.other} == {"a", "b"})
    assert (same.difference.value, same.difference.low, same.difference.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    two = compare(["other", "a"], [questions()], tmp_path / "2", load=load, say=lambda _: None)
    forth = next(p for p in one.pairs if (p.one, p.other) == ("a", "other"))
    assert two.pairs[0].difference.value == -forth.difference.value
    assert two.pairs[0].p == forth.p


def test_what_is_there_is_not_measured_again_and_other_items_are(tmp_path: Path) -> None:
    known = models()
    for _ in range(2):
        compare(["knows"], [questions()], tmp_path, load=known.__getitem__, say=lambda _: None)
    talker = known["knows"]
    assert isinstance(talker, Talker) and talker.asked == 80, "with and without pictures, once"
    compare(["knows"], [questions(38)], tmp_path, load=known.__getitem__, say=lambda _: None)
    assert talker.asked == 80 + 76


def test_a_model_that_fails_costs_its_own_cells_only(tmp_path: Path) -> None:
    known = models()

    def load(name: str) -> Model:
        if name not in known:
            raise UsageError(f"no model {name!r}")
        return known[name]

    retrieval = Task("captions", "retrieval", tuple(colour_captions()), ("captions", "描述"))
    told = compare(["nobody", "knows", "colours"], [questions(), retrieval], tmp_path, load=load, say=lambda _: None)
    assert told.cells["colours", "nobody"].why == "no model 'nobody'"
    assert told.cells["captions", "knows"].cannot
    assert score_of(told.results("captions")["colours"]).value == 1.0
    made = write(told, tmp_path, {"tonggan": "0"}).read_text("utf-8")
    assert "cannot be asked this" in made and "不具备这种能力" in made and "no model" in made
    assert made.count("<h2") == 4
    plain = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert {one["model"] for one in plain["missing"]} == {"nobody", "knows"}
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8"))["tasks"]["colours"]["items"] == 40
    assert "| knows | chat | 100.0" in (tmp_path / "report.md").read_text("utf-8")


def colour_captions() -> list[Row]:
    return [
        Row(f"c{i}", images=(square(*(round(255 * v) for v in COLOURS[en])),), texts=(Text(en, "en"), Text(zh, "zh")))
        for i, (en, zh) in enumerate(zip(NAMES["en"], NAMES["zh"], strict=True))
    ]


# ---------------------------------------------------------------------------------------------- tasks


def test_a_table_of_ones_own_questions(tmp_path: Path) -> None:
    square(255, 0, 0)
    Dataset.from_rows([row.with_(texts=(Text(row.question or ""),)) for row in questions(4).rows]).write(tmp_path / "own")
    mine = task(str(tmp_path / "own"))
    assert mine.kind == "choice" and len(mine.rows) == 4
    assert mine.fingerprint() == task(str(tmp_path / "own")).fingerprint()
    Dataset.from_rows(colour_captions()).write(tmp_path / "captions")
    assert task(str(tmp_path / "captions")).kind == "retrieval"
    assert task(str(tmp_path / "captions")).langs == ["en", "zh"]


def test_an_unknown_suite_is_told_the_right_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'stamps-zh-en'"):
        task("stamp-zh-en")


def test_a_fingerprint_changes_with_every_item() -> None:
    one = questions(6)
    changed = [
        [row.with_(answers=(row.choices[0],)) if i == 2 else row for i, row in enumerate(one.rows)],
        [row.with_(images=(square(1, 2, 3),)) if i == 3 else row for i, row in enumerate(one.rows)],
        list(one.rows[:-1]),
    ]
    prints = {Task(one.name, one.kind, tuple(rows), one.about).fingerprint() for rows in changed}
    assert len(prints | {one.fingerprint()}) == 4


@pytest.mark.slow
def test_scenes_are_called_a_synthetic_check(tmp_path: Path) -> None:
    scenes = task("scenes-zh-en", limit=12)
    assert scenes.synthetic and len(scenes.rows) == 12
    told = compare(["colours"], [scenes], tmp_path, load=lambda _: ColourModel(), say=lambda _: None)
    assert "合成检验" in page(told).html()


def test_another_model_under_the_same_name_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that was trained on: what its former weights scored is not theirs any more."""
    first, second = Talker("runs/mine", lambda i, right: right), Talker("runs/mine", lambda i, right: "I do not know")
    second.identity = Identity({}, "other weights")
    compare(["runs/mine"], [questions()], tmp_path, load=lambda _: first, say=lambda _: None)
    told = compare(["runs/mine"], [questions()], tmp_path, load=lambda _: second, say=lambda _: None)
    assert score_of(told.results("colours")["runs/mine"]).value == 0
    second.identity = Identity({"image.size": 9}, "other weights")
    asked = second.asked
    compare(["runs/mine"], [questions()], tmp_path, load=lambda _: second, say=lambda _: None)
    assert second.asked > asked, "seen in another way"
    monkeypatch.setattr("tonggan.evaluate.tasks.choice.PROMPTS", {"zh": "{question}{choices}", "en": "{question}{choices}"})
    asked = second.asked
    compare(["runs/mine"], [questions()], tmp_path, load=lambda _: second, say=lambda _: None)
    assert second.asked > asked, "asked in other words"


def test_what_cannot_be_opened_any_more_is_reported_from_file(tmp_path: Path) -> None:
    compare(["knows"], [questions()], tmp_path, load=models().__getitem__, say=lambda _: None)

    def load(name: str) -> Model:
        raise UsageError("no key")

    said: list[str] = []
    told = compare(["knows"], [questions()], tmp_path, load=load, say=said.append)
    assert score_of(told.results("colours")["knows"]).value == 1.0 and "measured before; now: no key" in said[0]


def test_a_damaged_result_is_measured_again(tmp_path: Path) -> None:
    known = models()
    compare(["knows"], [questions()], tmp_path, load=known.__getitem__, say=lambda _: None)
    (file,) = [f for f in (tmp_path / "results").rglob("knows*.json") if ".blind" not in f.name]
    file.write_text("{", encoding="utf-8")
    told = compare(["knows"], [questions()], tmp_path, load=known.__getitem__, say=lambda _: None)
    assert score_of(told.results("colours")["knows"]).value == 1.0


def test_nothing_is_raised_for_what_a_model_says(tmp_path: Path) -> None:
    strange = Talker("strange", lambda i, right: ["", "A and B", "\ud800"[:0], "<think>hm", "答案是 Z"][i % 5])
    told = compare(["strange"], [questions()], tmp_path, load=lambda _: strange, say=lambda _: None)
    assert told.results("colours")["strange"].extra["read"]["unparsed"] == 40
