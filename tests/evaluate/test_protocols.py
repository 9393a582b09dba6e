"""Protocols against what the published programs themselves read, and the rule that each names."""

from __future__ import annotations

import json
import re
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.golden.protocols import FILE, choice_cases, free_cases
from tonggan.evaluate.metrics.answers import vqa_accuracy, vqa_accuracy_evalai
from tonggan.evaluate.metrics.reading import read_choice
from tonggan.evaluate.protocols import CHOICES, FREE, NAMES, RULES, Read

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
PETS = ["cat", "dog", "bird", "horse"]


def as_the_programs_say(read: Read) -> str | None:
    """A letter, `?` for a random one, null for a judge's, Z for none."""
    if read.choice is not None:
        return ascii_uppercase[read.choice]
    return {"random": "?", "judge": None, "": "Z"}[read.left]


@pytest.mark.parametrize(("name", "column"), [("vlmevalkit", 0), ("official", 1), ("lmms-eval", 2)])
def test_replies_are_read_as_the_programs_read_them(name: str, column: int) -> None:
    for (reply, options), golden in zip(choice_cases(), GOLDEN["choices"], strict=True):
        assert as_the_programs_say(CHOICES[name].read(reply, options)) == golden[column], (reply, options)


@pytest.mark.parametrize(("name", "column"), [("vlmevalkit", 0), ("lmms-eval", 1)])
def test_free_answers_are_marked_as_the_programs_mark_them(name: str, column: int) -> None:
    for (reply, answers), golden in zip(free_cases(), GOLDEN["free"], strict=True):
        assert FREE[name].read(reply, answers)[0] == pytest.approx(golden[column], abs=1e-5), (reply, answers)


def test_the_golden_cases_tell_the_programs_apart() -> None:
    """Or a protocol that is another one by mistake would pass."""
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert sum(row[a] != row[b] for row in GOLDEN["choices"]) > 50
    assert sum(abs(a - b) > 0.01 for a, b in GOLDEN["free"]) > 3


def test_official_and_evalai_marks_are_the_metrics() -> None:
    for reply, answers in free_cases():
        assert FREE["official"].read(reply, answers)[0] == vqa_accuracy(reply, answers)
        assert FREE["evalai"].read(reply, answers)[0] == vqa_accuracy_evalai(reply, answers)


def test_ours_is_our_reader() -> None:
    for reply, options in choice_cases():
        read, reading = CHOICES["ours"].read(reply, options), read_choice(reply, options)
        assert read.choice == reading.choice
        assert (read.left == "unread") == (reading.how == "unparsed")


FIRED = [
    ("ours", "B", "B", "exact"),
    ("ours", "答案是B", "B", "letter"),
    ("ours", "The answer is dog", "B", "text"),
    ("ours", "A and B", None, "unread"),
    ("vlmevalkit", "Cannot determine the answer", "Z", "refusal"),
    ("vlmevalkit", "It is Z", "Z", "none"),
    ("vlmevalkit", "I say (B).", "B", "token"),
    ("vlmevalkit", "A dog sits", "A", "perhaps-article"),
    ("vlmevalkit", "The answer is B, as one can see from all of its many legs", "B", "answer-is"),
    ("vlmevalkit", "The answer is dog", "D", "answer-is-inside"),
    ("vlmevalkit", "the answer is Beijing", "B", "answer-is-inside"),
    ("vlmevalkit", "The answer is a dog", "A", "answer-is-article"),
    ("vlmevalkit", "It's a dog.", "B", "text"),
    ("vlmevalkit", "hotdogs", "B", "text-inside"),
    ("vlmevalkit", "答案是B", None, "judge"),
    ("official", "(A) no, (B)", "B", "bracket-last"),
    ("official", "It is (B)", "B", "bracket"),
    ("official", "So B it is", "B", "alone"),
    ("official", "So B and not C !", "C", "alone-last"),
    ("official", "A dog sits", "A", "perhaps-article"),
    ("official", "It seems to be a dog", "B", "content"),
    ("official", "It is a dog, not a cat", "A", "content-last"),
    ("official", "答案是B", "?", "random"),
    ("official", "The answer is dog", "?", "random"),  # five words are too few
    ("lmms-eval", "NASA has it", "A", "word-end"),
    ("lmms-eval", "答案是B", "B", "tail"),
    ("lmms-eval", "A.\nBecause it is small", "A", "period"),
    ("lmms-eval", "C.\nNot B.\nok", "B", "period-first"),
]


@pytest.mark.parametrize(("name", "reply", "said", "rule"), FIRED)
def test_the_rule_that_fired_is_named(name: str, reply: str, said: str | None, rule: str) -> None:
    read = CHOICES[name].read(reply, PETS)
    assert read.rule == rule
    if said is None:
        assert read.choice is None and read.left in ("unread", "judge")
    else:
        assert as_the_programs_say(read) == said


def test_every_rule_is_known_in_both_languages_and_fires_somewhere() -> None:
    free = {marker.read(reply, answers)[1].rule for marker in FREE.values() for reply, answers in free_cases()}
    assert {rule for *_, rule in FIRED} | free | {"unanswered"} == set(RULES)
    for rule, words in RULES.items():
        assert re.search(r"[一-鿿]", words.zh) and not re.search(r"[一-鿿]", words.en), rule
        assert not re.search(r"[,;:](?!\w)", words.zh), f"{rule}: half-width punctuation"


@pytest.mark.parametrize(("reply", "seen"), [("The answer is dog", "answer is dog"), ("I think (B).", "I think B")])
def test_what_a_letter_was_read_from_is_kept(reply: str, seen: str) -> None:
    assert CHOICES["vlmevalkit"].read(reply, PETS).seen == seen


def test_an_empty_reply_is_the_word_nan_to_a_table_reader() -> None:
    assert CHOICES["vlmevalkit"].read("", ["nan", "dog"]).choice == 0
    assert FREE["vlmevalkit"].read("", ["nan"] * 10)[0] == 1.0
    assert FREE["official"].read("", ["nan"] * 10)[0] == 0.0


def test_an_option_without_text_is_none_to_vlmevalkit_only() -> None:
    assert CHOICES["vlmevalkit"].read("A", ["", "dog"]).left == "judge"
    assert CHOICES["official"].read("A", ["", "dog"]).choice == 0


def test_marks() -> None:
    assert Read("token", 1).marks(1, 4) == (1, 1, 1)
    assert Read("token", 0).marks(1, 4) == (0, 0, 0)
    assert Read("refusal").marks(1, 4) == (0, 0, 0)
    assert Read("random", left="random").marks(1, 4) == (0.25, 0, 1)
    assert Read("judge", left="judge").marks(1, 4) == (0, 0, 1)


def test_names_are_those_of_the_command() -> None:
    assert set(NAMES) == {"ours", "official", "vlmevalkit", "lmms-eval", "evalai"}
    assert len({protocol.id for protocol in (*CHOICES.values(), *FREE.values())}) == len(CHOICES) + len(FREE)


@settings(deadline=None)
@given(reply=st.text(max_size=60), options=st.lists(st.text(max_size=10), min_size=2, max_size=12))
def test_any_reply_is_read_somehow_and_always_the_same(reply: str, options: list[str]) -> None:
    for protocol in CHOICES.values():
        read = protocol.read(reply, options)
        assert read == protocol.read(reply, options)
        assert read.rule in RULES
        assert read.choice is None or (read.choice < len(options) and not read.left)
