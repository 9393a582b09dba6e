"""Replies read as options and as yes or no: what is read, how, and what is left unread rather than guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.evaluate.metrics.reading import (
    NO,
    UNPARSED,
    YES,
    Reading,
    all_right,
    audit,
    bounds,
    read_choice,
    read_yes_no,
    without_thoughts,
)
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


BOTH_TONGUES = [  # Chinese, its English twin, what both are read as
    ("正确选项是B", "The correct option is B", 1),
    ("因此正确选项为 B", "Therefore the correct option is B", 1),
    ("正确的选项应该是B。", "The correct option should be B.", 1),
    ("正确的是B。", "The correct one is B.", 1),
    ("最佳选择是B", "The best choice is B", 1),
    ("B选项", "Option B", 1),
    ("B 选项描述了图中的内容", "Option B describes what is shown", 1),
    ("我认为是B", "I think it is B", 1),
    ("我认为答案是B", "I believe the answer is B", 1),
    ("我认为B是正确的", "I think B is correct", 1),
    ("我觉得 B", "I'd say B", 1),
    ("应该是B", "It should be B", 1),
    ("应为B。", "It must be B.", 1),
    ("是B。", "It's B.", 1),
    ("所以是B", "So it is B", 1),
    ("因此，B。", "Therefore, B.", 1),
    ("综上所述，B。", "In conclusion, B.", 1),
    ("只有B对", "Only B is right", 1),
    ("只有B符合", "Only B fits", 1),
    ("B对，A错", "B is right, A is wrong", 1),
    ("答案应为B", "The answer should be B", 1),
    ("答案显然是B", "The answer is clearly B", 1),
    ("答案是“B”。", "The answer is 'B'.", 1),
    ("这道题的答案是B", "The answer to this question is B", 1),
    ("【答案】B", "[Answer] B", 1),
    ("我选B项", "I choose option B", 1),
    ("我会选B", "I would choose B", 1),
    ("选B", "Choose B", 1),
    ("选项B正确", "Option B is correct", 1),
    ("B是正确答案", "B is the correct answer", 1),
    ("选项B最合适。", "Option B is the most appropriate.", 1),
    ("故本题选B", "So we pick B", 1),
    ("综上，B正确", "In conclusion, B is correct", 1),
    ("正确答案是选项B：狗", "The correct answer is option B: dog", 1),
    ("A：错误\nB：正确", "A: incorrect\nB: correct", 1),
    ("B\n\n选项A是一只猫，选项C是一只鸟。", "B\n\nOption A is a cat, option C is a bird.", 1),
    ("A正确，B错误，C正确，D正确，故选B", "A is right, B is wrong, C is right, D is right, so the answer is B", 1),
    ("选B，A错误", "I choose B, A is wrong", 1),
    ("答：B", "Ans: B", 1),
    ('{"答案": "B"}', '{"answer": "B"}', 1),
    ("B更合适", "B is better", 1),
    ("选项A似乎不对，选项B似乎正确", "Option A seems wrong, option B seems right", 1),
    ("A错误所以选B", "A is wrong so the answer is B", 1),
    ("A选项正确吗？不，B选项正确。", "Is option A correct? No, option B is correct.", 1),
    ("答案是B，不是A", "The answer is B, not A", 1),
    ("选B不选A", "Choose B rather than A", 1),
    # what is denied is not the answer
    ("不是A，而是B", "Not A, but B", 1),
    ("答案不是A，而是B", "The answer is not A but B", 1),
    ("不是A而是B", "It is not A but B", 1),
    ("A 是错的，B 是对的", "A is wrong, B is right", 1),
    ("A：猫是错的。B：狗是对的。", "A: cat is wrong. B: dog is right", 1),
    ("排除A和C，选B", "Rule out A and C, choose B", 1),
    ("A、C可以排除，所以选B", "A and C can be ruled out, so the answer is B", 1),
    ("A和C都不对，B正确", "A and C are both wrong, B is correct", 1),
    ("答案是A吗？不，答案是B。", "Is the answer A? No, the answer is B.", 1),
    ("如果答案是A，就会有尾巴。所以选B。", "If the answer is A, there is a tail. So choose B.", 1),
    ("我不认为答案是A。答案是B。", "I don't think the answer is A. The answer is B.", 1),
    ("A：那只猫不对。B：那只小犬……", "A: that kitten is wrong. B: that puppy ...", None),
    ("猫是错的", "cat is wrong", None),
    ("A：猫是错的", "A: cat is wrong", None),
    ("不选A", "Do not choose A", None),
    ("我不认为是A", "I don't think it is A", None),
    ("排除A", "Rule out A", None),
    ("错误的选项是A", "The wrong option is A", None),
    ("错误选项A", "wrong option A", None),
    ("A和B都正确", "A and B are both correct", None),
    ("选A还是B", "Choose A or B", None),
    ("选A，B正确", "I choose A, B is correct", None),
    ("不确定是不是B", "I am not sure whether it is B", None),
    ("是B吗？是C吗？", "Is it B? Is it C?", None),
    # letters that answer nothing
    ("图中的A是一只老虎", "A in the picture is a tiger", None),
    ("B对应的是老虎", "B is right of the tiger", None),
    ("回答：A：B", "A: B", None),
]


@pytest.mark.parametrize(("chinese", "english", "choice"), BOTH_TONGUES)
def test_a_reply_is_read_alike_in_chinese_and_in_english(chinese: str, english: str, choice: int | None) -> None:
    wanted = UNPARSED if choice is None else Reading(choice, "letter")
    assert read_choice(chinese, 宠物) == wanted
    assert read_choice(english, PETS) == wanted


@pytest.mark.parametrize(
    "reply", ["<|begin_of_box|>B<|end_of_box|>", r"\boxed{B}", r"$\boxed{\text{B}}$", "<think>A?</think><answer>B</answer>"]
)
def test_a_box_around_the_whole_reply_is_no_word_of_it(reply: str) -> None:
    assert read_choice(reply, PETS) == Reading(1, "exact")
    assert read_choice(f"It barks. {reply}", PETS) == Reading(1, "letter")


def test_options_that_are_words_of_denial() -> None:
    assert read_choice("B. 错误", ["正确", "错误"]) == read_choice("B. Wrong", ["Right", "Wrong"]) == Reading(1, "letter")
    assert read_choice("A. 错误", ["正确", "错误"]) == read_choice("A. Wrong", ["Right", "Wrong"]) == UNPARSED


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


@pytest.mark.parametrize(
    ("chinese", "english", "choice"),
    [
        ("并没有", "There is not.", NO),
        ("不，不是", "No, it isn't", NO),
        ("不是的", "It isn't", NO),
        ("它不是。", "It is not.", NO),
        ("图中没有。", "There isn't.", NO),
        ("不存在", "It does not exist", NO),
        ("不可以", "It cannot", NO),
        ("我不认为是这样。不是。", "I don't think so.", NO),
        ("当然不是", "of course not", NO),
        ("不正确", "not correct", NO),
        ("不，图中没有狗", "No, there is no dog", NO),
        ("不是的图中没有", "No there isn't", NO),
        ("答案应为否", "The answer should be no", NO),
        ("确实是", "It is.", YES),
        ("图中有。", "There is.", YES),
        ("我认为是的", "I think so", YES),
        ("当然", "of course", YES),
        ("是的图中有狗", "Yes there is a dog", YES),
        ("存在", "It exists", YES),
        # what is there instead, or is not there, is said inside a sentence: unread in both languages
        ("没有红色", "There is no red", None),
        ("有红色", "There is red", None),
        ("是红色的", "It is red", None),
        ("不是红色的", "It is not red", None),
        ("有：一只猫", "There is: a cat", None),
        ("图中是：一只猫", "It is, however, a cat", None),
        ("有吗？", "Is there?", None),
        ("是的士", "It is a taxi", None),
        ("是的。不，不是。", "Yes. No, it isn't.", None),
    ],
)
def test_yes_and_no_are_read_alike_in_chinese_and_in_english(chinese: str, english: str, choice: int | None) -> None:
    assert read_yes_no(chinese).choice == read_yes_no(english).choice == choice


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("**Ｂ**", "**Ｂ**"),
        ("<think>A?</think>\n**Ｂ**", "\n**Ｂ**"),
        ("A?</think>B", "B"),
        ("<think>a<think>b</think>c</think>B", "B"),
        ("B <think>hm</think>", "B "),
        (" <think>The answer is B", ""),
        ("<think>a</think>\n<think>b", ""),
        ("the tag <think> opens a thought", "the tag <think> opens a thought"),
    ],
)
def test_thoughts_are_taken_out_and_nothing_else(reply: str, said: str) -> None:
    assert without_thoughts(reply) == said


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
