"""Replies read as options and as yes or no: what is read, how, and what is left unread rather than guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.evaluate.metrics.reading import NO, UNPARSED, YES, Reading, all_right, audit, bounds, read_choice, read_yes_no
from tonggan.types import UsageError

PETS = ["cat", "dog", "bird", "horse"]
宠物 = ["猫", "狗", "鸟", "马"]


@pytest.mark.parametrize(
    ("reply", "choices", "choice", "how"),
    [
        ("B", PETS, 1, "exact"),
        (" (b). ", PETS, 1, "exact"),
        ("Ｂ", 宠物, 1, "exact"),
        ("Dog.", PETS, 1, "exact"),
        ("“狗”。", 宠物, 1, "exact"),
        ("**B**", PETS, 1, "exact"),
        ("<think>Is it A? No.</think>\nB", PETS, 1, "exact"),
        ("The answer is B.", PETS, 1, "letter"),
        ("The correct answer is (B) dog", PETS, 1, "letter"),
        ("Answer: B\nExplanation: a cat would be smaller.", PETS, 1, "letter"),
        ("Option A is wrong because it has no ears, so (B).", PETS, 1, "letter"),
        ("B. dog", PETS, 1, "letter"),
        ("B, I think", PETS, 1, "letter"),
        ("B. cat", ["cat", "cat", "dog"], 1, "letter"),
        ("B，不是A", 宠物, 1, "letter"),
        ("Answer: *B*", PETS, 1, "letter"),
        ("C#", ["C", "C#"], 1, "exact"),
        ("B\n\nThe picture shows a dog", PETS, 1, "letter"),
        (r"So we get \boxed{B}", PETS, 1, "letter"),
        ("答案是B", 宠物, 1, "letter"),
        ("故选：Ｂ。", 宠物, 1, "letter"),
        ("不选A，选B", 宠物, 1, "letter"),
        ("选项A错误，选项B正确", 宠物, 1, "letter"),
        ("答案：B。狗", 宠物, 1, "letter"),
        ("The answer is dog", PETS, 1, "text"),
        ("A dog is there", PETS, 1, "text"),
        ("It is not a cat but a dog", PETS, 1, "text"),
        ("这不是一只猫，是狗", 宠物, 1, "text"),
        ("It is a black cat", ["cat", "black cat"], 1, "text"),
        ("是熊猫", ["猫", "熊猫"], 1, "text"),
        ("The answer is Beijing", ["Shanghai", "Beijing"], 1, "text"),
        ("There are 4 of them", ["3", "4"], 1, "text"),
    ],
)
def test_read_choice(reply: str, choices: list[str], choice: int, how: str) -> None:
    assert read_choice(reply, choices) == Reading(choice, how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "choices"),
    [
        ("The answer is dog", ["cat", "bird", "fish", "horse"]),  # not D
        ("The answer is Beijing", ["Shanghai", "Tianjin"]),  # not B
        ("I think it's a zebra", PETS),  # neither A nor I
        ("A picture of animals", PETS),
        ("Both A and B", PETS),
        ("The answer is A and B", PETS),
        ("A, B", PETS),
        ("答案是A和B", 宠物),
        ("答案：AB", 宠物),
        ("选B是错的", 宠物),
        ("A. black cat", ["black", "black cat"]),
        ("The answer is A. No, the answer is B.", PETS),
        ("The answer is not A", PETS),
        ("The answer is E", PETS),
        ("B. cat", PETS),  # cat is A
        ("A. cat\nB. dog\nC. bird\nD. horse", PETS),
        ("a cat and a dog", PETS),
        ("not a dog", PETS),
        ("cats", PETS),
        ("There are 3.5 of them", ["3", "4"]),
        ("-3", ["3", "4"]),
        ("A", ["B", "A"]),  # option A, or the text of option B?
        ("cat", ["cat", "cat"]),
        ("图中没有狗", 宠物),
        ("<think>The answer is B", PETS),  # cut off while thinking
        ("Failed to obtain answer via API.", PETS),
        ("", PETS),
    ],
)
def test_what_cannot_be_read_is_not_guessed(reply: str, choices: list[str]) -> None:
    assert read_choice(reply, choices) == UNPARSED


def test_pictures_as_options_have_letters_only() -> None:
    assert read_choice("(C)", ["", "", ""]) == Reading(2, "exact")
    assert read_choice("the second one", ["", "", ""]) == UNPARSED


def test_a_question_needs_options() -> None:
    with pytest.raises(UsageError, match="2 to 26 options"):
        read_choice("A", ["only one"])


@pytest.mark.parametrize("reply", ["Yes", "yes.", "是", "是的。", "对", "有", "正确", "没错", "**True**"])
def test_plain_yes(reply: str) -> None:
    assert read_yes_no(reply) == Reading(YES, "exact")


@pytest.mark.parametrize("reply", ["No", "no!", "否", "错", "没有", "不是", "错误", "<think>yes?</think>No", "Ｎｏ"])
def test_plain_no(reply: str) -> None:
    assert read_yes_no(reply) == Reading(NO, "exact")


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("Yes, there is a dog, not a cat.", YES),
        ("Yes there is", YES),
        ("The answer is yes", YES),
        ("There is a dog in it. Yes.", YES),
        ("是的，有一只狗。", YES),
        ("有，在左边", YES),
        ("对啊，是一只狗", YES),
        ("是不是狗？是的", YES),
        ("答案是“有”。", YES),
        ("No, there is no dog", NO),
        ("no it is not", NO),
        ("没有，只有猫", NO),
        ("因此，没有。", NO),
        ("否。图中是一只猫", NO),
        ("答案：错", NO),
    ],
)
def test_yes_and_no_in_so_many_words(reply: str, choice: int) -> None:
    assert read_yes_no(reply) == Reading(choice, "text")


@pytest.mark.parametrize(
    "reply",
    [
        *(
            "There is a dog",
            "There is no dog",
            "图中有狗",
            "图中没有狗",
            "是一只猫",
            "Yes and no",
            "Yes or no?",
            "No idea",
            "No dogs are visible",
        ),
        *("I'm not sure", "I know", "不清楚", "不确定", "有猫，没有狗", "Yes. No.", "nothing", "<think>yes", ""),
    ],
)
def test_neither_yes_nor_no(reply: str) -> None:
    assert read_yes_no(reply) == UNPARSED


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_somehow_and_always_the_same(reply: str) -> None:
    for read in (read_yes_no, lambda text: read_choice(text, PETS)):
        reading = read(reply)
        assert reading == read(reply)
        assert (reading.choice is None) == (reading.how == "unparsed")


@settings(deadline=None)
@given(
    letter=st.sampled_from("ABCD"),
    before=st.sampled_from(["", "The answer is ", "答案：", "选", "("]),
    after=st.sampled_from(["", ".", ")", "\n"]),
)
def test_a_letter_is_read_alike_however_it_is_dressed(letter: str, before: str, after: str) -> None:
    assert read_choice(before + letter + after, PETS).choice == "ABCD".index(letter)


def test_bounds_and_audit() -> None:
    readings = [read_choice(reply, PETS) for reply in ("A", "The answer is B", "the bird", "hm", "D")]
    strict, lenient = bounds(readings, [0, 1, 0, 2, 3])
    assert strict.tolist() == [1, 1, 0, 0, 1]
    assert lenient.tolist() == [1, 1, 0, 1, 1]
    assert audit(readings) == {"exact": 2, "letter": 1, "text": 1, "judge": 0, "unparsed": 1}
    with pytest.raises(UsageError, match="one to each question"):
        bounds(readings, [0])


def test_rotations_of_a_question_count_together() -> None:
    questions, right = all_right([1, 1, 1, 0, 1], ["q1", "q2", "q1", "q2", "q3"])
    assert questions == ["q1", "q2", "q3"]
    assert np.array_equal(right, [1, 0, 1])
