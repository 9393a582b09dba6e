"""Questions with choices: what is asked, in every way, and what becomes of every reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fakes import ColourModel, square
from tonggan.evaluate import paired
from tonggan.evaluate.tasks.choice import choice, prompt, ways
from tonggan.evaluate.tasks.questions import questions
from tonggan.types import Answer, CannotError, ChatOptions, Identity, Message, Model, Row, Text, TongganError, UsageError


class Talker(Model):
    """Answers by a rule of the question's text; notes what it was asked."""

    name, can, modalities, identity = "talker", frozenset({"chat", "logprob"}), frozenset({"text", "image"}), Identity({}, "talker")

    def __init__(self, rule: Callable[[str], Answer | str]) -> None:
        self.rule, self.asked = rule, list[str]()
        self.pictures = 0

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        answers = []
        for (message,) in conversations:
            words = next(part.text for part in message.parts if isinstance(part, Text))
            self.asked.append(words)
            self.pictures += len(message.parts) - 1
            said = self.rule(words)
            answers.append(said if isinstance(said, Answer) else Answer(said))
        return answers

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[-float(len(text)) * (1.0 if text == "红色" else 2.0) for text in some] for some in continuations]


COLOURS = ("红色", "绿色", "蓝色", "黄色")


def rows(n: int = 12) -> list[Row]:
    return [
        Row(
            f"q{i}",
            images=(square(255, 0, 0),),
            question=f"第{i}张图是什么颜色？",
            choices=("红色", "绿色", "蓝色", "黄色"),
            answers=("红色",),
        )
        for i in range(n)
    ]


def letter_of(words: str, text: str) -> str:
    return next(line[0] for line in words.splitlines() if line[1:3] == ". " and line[3:] == text)


def test_a_model_that_knows_is_right_however_choices_are_turned() -> None:
    knows = Talker(lambda words: f"答案是 {letter_of(words, '红色')}")
    for circular in (False, True):
        result = choice(knows, rows(), circular=circular)
        assert result.metrics["choice zh acc"].value == 1.0
        assert result.metrics["choice zh acc"].chance == pytest.approx(0.25 ** (4 if circular else 1))
    assert len(knows.asked) == 12 + 48
    assert knows.asked[0].endswith("请只回答正确选项的字母。")
    assert result.extra["read"] == {"letter": 48}
    assert "circular" in result.protocol


def test_always_the_first_letter_is_chance_and_circular_is_nothing() -> None:
    first = Talker(lambda words: "A")
    assert 0 < choice(first, rows(200)).metrics["choice zh acc"].value < 0.4, "the order of choices is drawn, not the file's"
    assert choice(first, rows(), circular=True).metrics["choice zh acc"].value == 0.0


@pytest.mark.parametrize(
    ("reply", "strict", "lenient", "outcome", "how"),
    [
        (Answer("不知道"), 0, 1, "answered", "unparsed"),
        (Answer("", outcome="refused"), 0, 1, "refused", "unparsed"),
        (Answer("红色", outcome="truncated"), 0, 1, "truncated", "unparsed"),
        (Answer("红色"), 1, 1, "answered", "exact"),
        (Answer("绿色"), 0, 0, "answered", "exact"),
    ],
    ids=["unsure", "refused", "cut", "right", "wrong"],
)
def test_every_outcome_is_counted_for_itself(reply: Answer, strict: int, lenient: int, outcome: str, how: str) -> None:
    result = choice(Talker(lambda _: reply), rows(3))
    assert result.metrics["choice zh acc"].value == strict
    assert result.metrics["choice zh acc lenient"].value == lenient
    assert result.extra["outcomes"] == {outcome: 3} and result.extra["read"] == {how: 3}


def test_failed_requests_are_in_no_number() -> None:
    fails = Answer(outcome="error", error="HTTP 500")
    result = choice(Talker(lambda words: fails if "第1张" in words or "第2张" in words else letter_of(words, "红色")), rows(6))
    assert (result.metrics["acc"].value, result.metrics["acc"].n, len(result.items)) == (1.0, 4, 6)
    assert result.metrics["acc"].chance == pytest.approx(0.25) and result.extra["outcomes"] == {"answered": 4, "error": 2}
    with pytest.raises(TongganError, match="none of 6 questions was answered; the first: HTTP 500"):
        choice(Talker(lambda _: fails), rows(6))


def test_without_pictures_none_is_sent_and_results_are_not_compared_with_those_that_had_them() -> None:
    talker = Talker(lambda words: "A")
    blind = choice(talker, rows(), blind=True)
    assert talker.pictures == 0
    with pytest.raises(UsageError, match="not comparable: protocol"):
        paired(choice(talker, rows()), blind)


def test_log_probabilities_are_per_character() -> None:
    result = choice(Talker(lambda _: ""), rows(), way="logprob")
    assert result.metrics["choice zh acc"].value == 1.0
    assert "logprob" in result.protocol


def test_log_probabilities_that_are_not_numbers_are_no_answer() -> None:
    class Burst(Talker):
        def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
            found = super().logprob(conversations, continuations)
            return [[float("nan")] * len(found[0]), *found[1:]]

    result = choice(Burst(lambda _: ""), rows(4), way="logprob")
    assert (result.metrics["acc"].value, result.metrics["acc"].n) == (1.0, 3) and result.extra["outcomes"]["error"] == 1


def test_a_two_tower_model_takes_the_nearest_choice() -> None:
    some = [
        Row("r", images=(square(255, 0, 0),), question="What colour?", choices=("red", "green", "blue"), answers=("red",)),
        Row("g", images=(square(0, 255, 0),), question="What colour?", choices=("red", "green", "blue"), answers=("green",)),
        Row("none", question="What colour?", choices=("red", "green"), answers=("green",)),
    ]
    result = choice(ColourModel(), some)
    assert result.metrics["choice en acc"].value == 1.0
    assert [d.reason for d in result.dropped] == ["no picture"]
    # Without the picture it takes the choice nearest to the question's words, also where there never was a picture.
    asked = [row.with_(question="something red") for row in some]
    blind = choice(ColourModel(), asked, blind=True)
    assert len(blind.items) == 3 and "cosine of question and choice" in blind.protocol and "without pictures" in blind.protocol
    with pytest.raises(UsageError, match="no order of choices to turn"):
        choice(ColourModel(), some, circular=True)


def test_a_model_that_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = Talker(lambda _: "")
    mute.can = frozenset({"features"})
    assert ways(mute) == []
    with pytest.raises(CannotError, match="it can: features"):
        choice(mute, rows())
    with pytest.raises(CannotError, match="by embed"):
        choice(Talker(lambda _: ""), rows(), way="embed")


def test_the_same_model_twice_differs_by_nothing() -> None:
    result = choice(Talker(lambda words: "AB"[len(words) % 2]), rows(30))
    assert {(d.value, d.low, d.high) for d in paired(result, result).values()} == {(0.0, 0.0, 0.0)}


def test_a_prompt_names_every_choice_once() -> None:
    (message,) = prompt(rows(1)[0], (2, 0, 3, 1))
    text = message.parts[-1]
    assert isinstance(text, Text)
    assert text.text.splitlines()[1:5] == ["A. 蓝色", "B. 红色", "C. 黄色", "D. 绿色"]


# ------------------------------------------------------------------------------------ a user's table


def table(**columns: Any) -> list[Row]:
    n = len(next(iter(columns.values())))
    return [
        Row(
            f"t{i}", images=(square(9, 9, 9),), texts=(Text(columns["题目"][i]),), meta={k: v[i] for k, v in columns.items() if k != "题目"}
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "cells",
    [
        {"选项": ["红|绿|蓝"], "答案": ["绿"]},
        {"选项": ['["红", "绿", "蓝"]'], "答案": ["B"]},
        {"A": ["红"], "B": ["绿"], "C": ["蓝"], "正确答案": ["（Ｂ）"]},
        {"a": ["红"], "b": ["绿"], "answer": ["b"], "c": ["蓝"]},
        {"options": ["红；绿；蓝"], "Answer": ["绿"]},
    ],
    ids=str,
)
def test_columns_as_people_name_them(cells: dict[str, list[str]]) -> None:
    (row,), dropped = questions(table(题目=["什么颜色？"], **cells))
    assert (row.question, row.choices, row.answers) == ("什么颜色？", ("红", "绿", "蓝"), ("绿",))
    assert not dropped


def test_what_cannot_be_marked_is_listed_with_its_reason() -> None:
    cells = {"选项": ["红|绿", "红|绿", "红", "红|红", "红|绿"], "答案": ["绿", "黄", "红", "红", ""]}
    kept, dropped = questions(table(题目=["一", "二", "三", "四", "五"], **cells))
    assert [row.id for row in kept] == ["t0"]
    reasons = ["the answer '黄' is not one of the choices", "one choice only", "two choices are the same", "no answer to mark by"]
    assert [one.reason for one in dropped] == reasons
    with pytest.raises(UsageError, match=r"no column 'anwser' \(did you mean '答案'|no column 'anwser'"):
        questions(table(题目=["一"], 答案=["1"]), answer_col="anwser")
    with pytest.raises(UsageError, match="no row asks a question"):
        questions([Row("x", images=(square(1, 1, 1),))])


def test_ties_count_against_the_model() -> None:
    class Same(ColourModel):
        def embed(self, items: Sequence[Any], options: Any = None) -> Any:
            found = super().embed(["red"] * len(items), options)
            assert np.allclose(found.vectors[0], found.vectors[-1])
            return found

    some = [Row("r", images=(square(255, 0, 0),), question="What?", choices=("red", "green"), answers=("red",))]
    assert choice(Same(), some).metrics["choice en acc"].value == 0.0
