"""What a row's cells mean as a question: choices, the right one however it is written, and why a row cannot be marked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonggan.data.formats.questions import by_letter, choice_meant, several_letters
from tonggan.evaluate.tasks.questions import LETTERS, asked_in, questions, whole_answer
from tonggan.types import Row, Text, UsageError


def row(name: str = "1", **cells: str) -> Row:
    return Row(name, texts=(Text("哪个？"),), meta=cells)


def answer(row: Row, **how: Any) -> str:
    (found,), dropped = questions([row], **how)
    assert not dropped
    return found.answers[0]


def reason(row: Row) -> str:
    fine = Row("fine", question="?", answers=("yes",))
    found, dropped = questions([fine, row])
    assert [one.id for one in found] == ["fine"]
    return dropped[0].reason


@pytest.mark.parametrize(
    ("written", "choices"),
    [
        *(
            (text, "猫|狗|鸟")
            for text in ("B", "b", "（B）", "Ｂ", "B.", "[B]", "选B", "选项B", "答案：B", "Answer: B", "Option B", "狗", " 狗。")
        ),
        *((text, "猫|狗|鸟") for text in ("B. 狗", "B、狗", "B：狗", "（B）狗", "Ｂ．狗", "(B) 狗")),
        ("3.0", "2|3|4"),
        ("3", "2.0|3.0|4.0"),
        ("TRUE", "False|True"),
        ("True", "否|是"),
        ("对", "错误|正确"),
        ("是", "no|yes"),
        ("DOG", "cat|dog"),
        ("ＡＢＣ", "XYZ|ABC"),
        ("dog; asleep", '["cat", "dog; asleep"]'),
        ('["狗"]', "猫|狗"),
    ],
    ids=str,
)
def test_the_right_choice_however_it_is_written(written: str, choices: str) -> None:
    (found,), _ = questions([row(选项=choices, 答案=written)])
    assert found.answers == (found.choices[1],)


@pytest.mark.parametrize("choices", ["B|A", '["B", "A"]'])
def test_a_choice_is_itself_before_it_is_a_letter_and_a_column_the_other_way_round(choices: str) -> None:
    assert answer(row(选项=choices, 答案="A")) == "A"
    assert answer(row(A="B", B="A", 答案="A")) == "B"


def test_an_empty_column_between_others_moves_no_letter() -> None:
    assert answer(row(A="红", B="", C="蓝", D="黄", 答案="D")) == "黄"
    assert answer(row(A="红", B="nan", C="蓝", 答案="C")) == "蓝"
    assert reason(row(A="红", B="", C="蓝", 答案="B")) == "the answer B is the letter of no choice: there are 2"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"答案": "E"}, "the answer E is the letter of no choice: there are 3"),
        ({"答案": "AC"}, "several right choices (A, C) are not supported"),
        ({"答案": "A, C"}, "several right choices (A, C) are not supported"),
        ({"答案": "A和C"}, "several right choices (A, C) are not supported"),
        ({"答案": "ABC"}, "several right choices (A, B, C) are not supported"),
        ({"答案": "A|C"}, "several right choices (猫; 鸟) are not supported"),
        ({"答案": '["猫", "鸟"]'}, "several right choices (猫; 鸟) are not supported"),
        ({"答案": "B. 猫"}, "the answer says B and '猫', but B is '狗'"),
        ({"答案": "2"}, "the answer '2' is not one of the choices"),
        ({"答案": ""}, "no answer to mark by"),
        ({}, "no answer to mark by"),
    ],
    ids=str,
)
def test_why_an_answer_cannot_be_marked(cells: dict[str, str], expected: str) -> None:
    assert reason(row(选项="猫|狗|鸟", **cells)) == expected


def test_a_word_of_letters_is_a_choice_or_a_mistake() -> None:
    assert answer(row(选项="AC|DC|BC", 答案="AC")) == "AC"
    assert reason(row(选项="x|y|z|w", 答案="BAD")).startswith("the answer 'BAD' is not one of the choices")


def test_of_rows_with_one_id_the_first_is_asked() -> None:
    rows = [Row("a", question="?", answers=("1",)), Row("a", question="!", answers=("2",)), Row("b", question="?", answers=("3",))]
    found, dropped = questions(rows)
    assert [(one.id, one.question) for one in found] == [("a", "?"), ("b", "?")]
    assert [(one.where, one.reason) for one in dropped] == [("a", "its id occurs a second time")]


def test_a_named_column_is_taken_instead_of_what_the_row_holds() -> None:
    held = Row(
        "1", question="?", choices=("红", "绿"), answers=("红",), meta={"答案": "红", "复核": "B", "英文": "red|green", "key": "green"}
    )
    assert answer(held) == "红"
    assert answer(held, answer_col="复核") == "绿"
    assert answer(held, answer_col="key", choices_col="英文") == "green"
    with pytest.raises(UsageError, match=r"no column '复盘'.*columns: key, 复核, 答案, 英文"):
        questions([held], answer_col="复盘")


def test_columns_that_only_the_last_rows_have_are_found() -> None:
    rows = [row(str(n)) for n in range(300)] + [row("last", 答案="A", 选项="x|y")]
    found, dropped = questions(rows)
    assert [one.id for one in found] == ["last"] and len(dropped) == 300
    assert questions(rows, answer_col="答案")[0] == found


def test_answers_that_are_free_stay_as_they_are() -> None:
    ten = ("yes", "yes", "no", "yes", "yes", "yes", "no", "yes", "yes", "maybe")
    (found,), _ = questions([Row("1", question="Is it?", answers=ten)])
    assert found.answers == ten
    (found,), _ = questions([row(答案="3|三; 叁")])
    assert found.answers == ("3", "三", "叁")
    (found,), _ = questions([row(答案="是")])
    assert (found.answers, found.choices) == (("是",), ())


SPOKEN = "他说：“你好；再见。”\n然后|就走了"


@pytest.mark.parametrize(
    ("cell", "whole"),
    [
        ("三", "三"),
        ("三；3", "三；3"),
        ("三| 3", "三| 3"),
        (SPOKEN, SPOKEN),
        ("a;\nb", "a;\nb"),
        ('["A cat; asleep."]', "A cat; asleep."),
        ('["colour", "color"]', "colour"),
        ("['colour', 'color']", "colour"),
        ("", ""),
    ],
    ids=str,
)
def test_the_whole_answer_is_the_cell_as_it_was_written(cell: str, whole: str) -> None:
    asked = row(答案=cell, keywords="colour; color")
    assert whole_answer(asked) == whole, "before `questions`"
    if cell:
        (found,), _ = questions([asked])
        assert whole_answer(found) == whole, "and after"


def test_the_whole_answer_of_rows_without_their_cell_and_with_another() -> None:
    assert whole_answer(Row("1")) == ""
    assert whole_answer(Row("1", answers=("yes", "yes", "no"))) == "yes", "any of several answers is right"
    held = Row("1", question="?", answers=("是",), meta={"答案": "是", "transcript": "甲|乙; 丙", "list": '["x", "y"]', "lines": "一\n二"})
    for column, whole in (("transcript", "甲|乙; 丙"), ("list", "x"), ("lines", "一\n二"), (None, "是")):
        (found,), _ = questions([held], answer_col=column)
        assert whole_answer(found) == whole
    divided_before = Row("1", answers=("一", "二"), meta={"答案": "一\n二"})
    assert whole_answer(divided_before) == "一\n二", "rows that were kept when line ends divided answers"
    (found,), _ = questions([row(选项="猫|狗", 答案="B")])
    assert whole_answer(found) == "狗"


@given(st.text(st.sampled_from("甲a1 |;；。，.\n"), max_size=30))
def test_no_letter_of_an_answer_is_lost(cell: str) -> None:
    asked = row(答案=cell)
    found = questions([asked], answered=False)[0][0]
    bare = "".join(letter for letter in cell if letter not in " |;；\n")
    assert "".join(letter for letter in "".join(found.answers) if letter not in " ;；\n") == bare
    if len(found.answers) > 1:
        assert whole_answer(found) == cell


def test_why_lines_and_long_choices_cannot_be_marked() -> None:
    assert reason(row(选项="猫|狗|鸟", 答案="A. 猫\nC. 鸟")) == "several right choices (猫; 鸟) are not supported"
    long = "它先在院子里的大树底下睡了整整一个上午的觉；然后就出门去找隔壁的狗玩"
    assert reason(row(选项="猫|狗|鸟", 答案=long)).startswith("the answer '它先在院子里")


def test_a_hint_stands_before_its_question() -> None:
    (found,), _ = questions([row(答案="猫", 提示="看左边")])
    assert found.question == "提示：看左边\n问题：哪个？" and asked_in(found) == "zh"
    (found,), _ = questions([Row("1", texts=(Text("Which?"),), meta={"hint": "On the left.", "answer": "cat"})])
    assert found.question == "Hint: On the left.\nQuestion: Which?"


def test_questions_without_answers_may_be_asked_all_the_same() -> None:
    found, dropped = questions([row(选项="猫|狗"), Row("none")], answered=False)
    assert [one.choices for one in found] == [("猫", "狗")] and [one.reason for one in dropped] == ["no question"]


CHOICES = st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=2, max_size=len(LETTERS), unique=True)


@given(CHOICES, st.data())
def test_every_choice_means_itself_and_every_letter_its_column(choices: list[str], data: st.DataObject) -> None:
    options = by_letter(choices)
    letter = data.draw(st.sampled_from(sorted(options)))
    assert choice_meant(options[letter], options) == options[letter]
    assert choice_meant(letter, options, by_column=True) == options[letter]
    assert choice_meant(f"{letter}. {options[letter]}", options, by_column=True) in (options[letter], None)


@given(st.text(max_size=20), CHOICES)
def test_whatever_stands_in_a_cell_means_a_choice_or_nothing(cell: str, choices: list[str]) -> None:
    options = by_letter(choices)
    assert choice_meant(cell, options) in {*choices, None}
    assert set(several_letters(cell, options)) <= options.keys()
    found, dropped = questions(
        [Row("1", question="?", choices=tuple(choices), meta={"answer": cell}), Row("2", question="?", answers=("x",))]
    )
    assert len(found) + len(dropped) == 2 and all(one.answers[0] in one.choices for one in found if one.choices)
