"""VQA accuracy against the official programs' golden values; ANLS and relaxed accuracy by hand and by their published formulas."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.golden.vqa import FILE, questions
from tonggan.evaluate.metrics.answers import anls, normalised, normalised_evalai, relaxed_accuracy, vqa_accuracy, vqa_accuracy_evalai
from tonggan.evaluate.metrics.speech import edit_distance
from tonggan.types import UsageError

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


def test_normalisation_is_that_of_both_programs() -> None:
    for text, official, evalai in GOLDEN["normal"]:
        assert normalised(text) == official
        assert normalised_evalai(text) == evalai


def test_accuracy_is_that_of_both_programs() -> None:
    for (said, given_), (official, evalai) in zip(questions(), GOLDEN["scores"], strict=True):
        assert vqa_accuracy(said, given_) == pytest.approx(official, abs=1e-9), (said, given_)
        assert vqa_accuracy_evalai(said, given_) == pytest.approx(evalai, abs=1e-9), (said, given_)


@pytest.mark.parametrize(("agreeing", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_agreement_of_ten(agreeing: int, score: float) -> None:
    assert vqa_accuracy("yes", ["yes"] * agreeing + ["no"] * (10 - agreeing)) == pytest.approx(score)


def test_the_official_program_normalises_only_disagreement() -> None:
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0
    assert vqa_accuracy_evalai("Yes", ["yes"] * 10) == 1
    assert vqa_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1


def test_only_32_periods_go() -> None:
    assert normalised("." * 40) == "." * 8


@settings(deadline=None)
@given(answers=st.lists(st.sampled_from(["yes", "no", "a dog", "2"]), min_size=1, max_size=12), said=st.text(max_size=8))
def test_vqa_accuracy_is_between_0_and_1_and_order_is_nothing(answers: list[str], said: str) -> None:
    for score in (vqa_accuracy, vqa_accuracy_evalai):
        assert 0 <= score(said, answers) <= 1
        assert score(said, answers) == pytest.approx(score(said, answers[::-1]))


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("hello", ["hello"], 1),
        ("  Hello  World", ["hello world"], 1),
        ("helo", ["hello"], 0.8),
        ("ab", ["abcd"], 0.5),  # at the threshold it stays
        ("a", ["abc"], 0),
        ("helo", ["x", "hello"], 0.8),
        ("", [""], 1),
        ("", ["a"], 0),
        ("红色汽车", ["红色气车"], 0.75),
    ],
)
def test_anls(said: str, answers: list[str], score: float) -> None:
    assert anls(said, answers) == pytest.approx(score)


@settings(deadline=None)
@given(a=st.text(max_size=12), b=st.text(max_size=12))
def test_anls_is_symmetric_and_in_range(a: str, b: str) -> None:
    assert anls(a, [b]) == anls(b, [a])
    assert anls(a, [b]) == 0 or 0.5 <= anls(a, [b]) <= 1


@settings(deadline=None)
@given(a=st.text("abc", max_size=8), b=st.text("abc", max_size=8))
def test_edit_distance_equals_the_recursion(a: str, b: str) -> None:
    def by_definition(i: int, j: int) -> int:
        if (i, j) not in known:
            known[i, j] = (
                i + j
                if i * j == 0
                else min(by_definition(i - 1, j) + 1, by_definition(i, j - 1) + 1, by_definition(i - 1, j - 1) + (a[i - 1] != b[j - 1]))
            )
        return known[i, j]

    known: dict[tuple[int, int], int] = {}
    assert edit_distance(a, b) == by_definition(len(a), len(b))


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("105", "100", 1),
        ("105.1", "100", 0),
        ("-95", "-100", 1),
        ("5%", "0.05", 1),
        ("5", "5%", 0),
        ("0.0", "0", 0),  # a right answer of 0 is compared as text
        ("0", "0", 1),
        ("1,000", "1000", 0),  # not a number as Python reads it
        (" Yes ", "yes", 1),
        ("nan", "100", 0),
        ("红", "红", 1),
    ],
)
def test_relaxed_accuracy(said: str, right: str, score: float) -> None:
    assert relaxed_accuracy(said, [right]) == score
    assert relaxed_accuracy(said, ["another answer", right]) == score


def test_a_question_without_answers() -> None:
    for score in (vqa_accuracy, vqa_accuracy_evalai, anls, relaxed_accuracy):
        with pytest.raises(UsageError, match="at least one"):
            score("yes", [])
        with pytest.raises(UsageError, match="list of right answers"):
            score("yes", "yes")
