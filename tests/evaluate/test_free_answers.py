"""Free answers and captions: what is asked, how replies are marked, what a judge may change, and what is never counted as wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import ColourModel, square
from tonggan.evaluate.judge import Judge
from tonggan.evaluate.metrics.captioning import bleu_counts, cider_d, rouge_l
from tonggan.evaluate.metrics.tokens import tokenizer
from tonggan.evaluate.tasks.answers import METRICS, answers, choose_metric, matches, questions_of
from tonggan.evaluate.tasks.captions import captions
from tonggan.evaluate.tasks.choice import choice
from tonggan.types import Answer, CannotError, ChatOptions, Identity, Image, Message, Model, Row, Text, TongganError, Usage, UsageError


class Talker(Model):
    """Answers by a rule of the words it is asked; notes them."""

    can, modalities, identity = frozenset({"chat"}), frozenset({"text", "image"}), Identity({}, "talker")

    def __init__(self, rule: Callable[[str], Answer | str], name: str = "talker") -> None:
        self.rule, self.name = rule, name
        self.asked: list[str] = []
        self.pictures = 0

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        given = []
        for (message,) in conversations:
            words = next(part.text for part in message.parts if isinstance(part, Text))
            self.asked.append(words)
            self.pictures += sum(isinstance(part, Image) for part in message.parts)
            said = self.rule(words)
            given.append(said if isinstance(said, Answer) else Answer(said, usage=Usage(len(words), 1), seconds=0.5))
        return given


def row(number: int, question: str = "What is it?", *right: str) -> Row:
    return Row(f"q{number}", images=(square(255, 0, 0),), question=question, answers=right or ("a red square",))


@pytest.mark.parametrize(
    ("reply", "strict", "lenient", "how"),
    [
        ("A red square.", 1, 1, "exact"),
        ("Red Square", 1, 1, "exact"),
        ("It is a red square, I think.", 0, 1, "text"),
        ("a red squareness", 0, 0, "whole"),
        ("<think>red square</think>", 0, 1, "unparsed"),
        ("a circle", 0, 0, "whole"),
    ],
)
def test_a_match_is_equal_and_its_lenient_bound_stands_in_the_reply(reply: str, strict: int, lenient: int, how: str) -> None:
    result = answers(Talker(lambda _: reply), [row(1), row(2)])
    assert result.metrics["acc"].value == strict
    assert result.metrics["acc lenient"].value == lenient
    assert result.extra["read"] == {how: 2}
    assert "match/v1" in result.protocol


@given(st.text(min_size=1, max_size=20))
def test_the_right_answer_itself_always_matches(text: str) -> None:
    equal, among = matches(text, [text])
    assert equal is among
    assert equal or not any(c.isalnum() for c in text) or set(text.casefold().split()) <= {"a", "an", "the"}


def test_chinese_answers_match_in_full_width_too() -> None:
    asked = [row(1, "车牌号是多少？", "京A12345")]
    assert answers(Talker(lambda _: "京Ａ１２３４５。"), asked).metrics["acc"].value == 1
    assert answers(Talker(lambda _: "车牌号是京A12345"), asked).metrics["acc lenient"].value == 1
    talker = Talker(lambda _: "")
    answers(talker, asked)
    assert talker.asked == ["车牌号是多少？\n请用一个词或短语回答。"]


def test_short_and_odd_answers_can_be_right() -> None:
    """An article, a mark: where nothing else is there, it is the answer."""
    for right in ("A", "the", "!", "__init__", "`x`", "你好，世界！（第１层）"):
        for metric in ("match", "anls", "cer", "relaxed"):
            result = answers(Talker(lambda _, right=right: right), [row(1, "?", right)], metric=metric)
            assert result.score == (0 if metric == "cer" else 1), (right, metric)
    assert answers(Talker(lambda _: "The grade is A."), [row(1, "?", "A")]).metrics["acc lenient"].value == 1


def test_several_accepted_answers_are_no_annotators() -> None:
    assert choose_metric([row(1, "?", "猫", "猫咪", "小猫")]) == "match"
    few = answers(Talker(lambda _: "猫"), [row(1, "?", "猫")], metric="vqa")
    assert "fewer than 4 answers" in few.notes[0]


def test_a_transcript_is_one_text() -> None:
    text = "第一行；第二行\n第三行 | 完"
    said = Row("q", images=(square(1, 1, 1),), question="读出来", answers=("第一行", "第二行\n第三行 | 完"), meta={"answer": text})
    for metric in ("cer", "cer-zh", "wer"):
        assert answers(Talker(lambda _: text), [said], metric=metric).metrics["error rate"].value == 0
    bare = answers(Talker(lambda _: "x"), [row(1, "?", "。。。"), row(2, "?", "x")], metric="cer-zh")
    assert bare.metrics["error rate"].value == 0 and "nothing is left" in bare.dropped[0].reason


def test_failed_requests_are_in_no_number() -> None:
    fails = Answer(outcome="error", error="HTTP 400")
    asked = [row(i, f"What is {i}?") for i in range(6)]
    result = answers(Talker(lambda words: fails if " 3?" in words else "a red square"), asked)
    assert (result.metrics["acc"].value, result.metrics["acc"].n, len(result.items)) == (1.0, 5, 6)
    with pytest.raises(TongganError, match="none of 6 questions was answered; the first: HTTP 400"):
        answers(Talker(lambda _: fails), asked)


def test_what_suits_the_right_answers_is_chosen() -> None:
    assert choose_metric([row(1, "?", *["yes"] * 10)]) == "vqa"
    assert choose_metric([row(1, "?", "yes"), row(2, "有狗吗？", "没有")]) == "yes-no"
    assert choose_metric([row(1, "?", "yes"), row(2, "?", "a dog")]) == "match"
    result = answers(Talker(lambda _: "yes"), [row(1, "?", *["yes"] * 2, *["no"] * 8)])
    assert result.primary == "vqa" and result.metrics["vqa"].value == pytest.approx(0.6)


def test_yes_and_no_come_with_chance_and_f1() -> None:
    asked = [row(i, "有狗吗？", "有" if i % 4 == 0 else "没有") for i in range(20)]
    result = answers(Talker(lambda _: "有的。"), asked)
    assert result.metrics["acc"].value == 0.25 and result.metrics["acc"].chance == 0.5
    assert result.extra["f1 of yes"]["value"] == pytest.approx(0.4) and result.extra["f1 of yes"]["said yes"] == 1
    with pytest.raises(UsageError, match="q9 is 'a dog', neither yes nor no"):
        answers(Talker(lambda _: ""), [row(9, "?", "a dog")], metric="yes-no")


def test_an_error_rate_is_of_all_items_together() -> None:
    asked = [row(1, "Read it.", "one two three four"), row(2, "Read it.", "five")]
    talker = Talker(lambda _: "one two three four")
    result = answers(talker, asked, metric="wer")
    assert result.primary == "error rate" and result.metrics["error rate"].value == pytest.approx(4 / 5)
    assert talker.asked[0] == "Read it.", "what is to be read is asked for as it stands"
    assert (
        answers(Talker(lambda _: "发票，金额：１００元"), [row(1, "读出来", "发票金额:100元")], metric="cer-zh").metrics["error rate"].value
        == 0
    )


@pytest.mark.parametrize("outcome", ["refused", "filtered", "truncated"])
def test_what_is_no_answer_is_an_outcome_of_its_own(outcome: str) -> None:
    said = Answer("a red square", outcome=outcome)  # type: ignore[arg-type]
    result = answers(Talker(lambda _: said), [row(1)])
    assert result.extra["outcomes"] == {outcome: 1} and result.extra["read"] == {"unparsed": 1}
    assert (result.metrics["acc"].value, result.metrics["acc lenient"].value) == (0, 1)


def test_an_unknown_metric_and_a_model_without_the_verb_are_told() -> None:
    with pytest.raises(UsageError, match="did you mean 'relaxed'"):
        answers(Talker(lambda _: ""), [row(1)], metric="relaxd")
    with pytest.raises(CannotError, match="free answers; it can: embed"):
        answers(ColourModel(), [row(1)])
    with pytest.raises(UsageError, match="no row has a question"):
        answers(Talker(lambda _: ""), [Row("x", question="?")])
    assert {"match", "vqa", "anls", "relaxed", "wer", "cer", "yes-no"} <= set(METRICS)


def test_without_pictures_none_is_sent_and_tokens_are_counted() -> None:
    talker = Talker(lambda _: "no idea")
    result = answers(talker, [row(1), row(2, "这是什么？", "红方块")], blind=True)
    assert talker.pictures == 0 and "without pictures" in result.protocol
    assert result.extra["text"]["zh"]["characters"] == result.extra["text"]["zh"]["tokens"] > 5
    assert [len(one) for one in questions_of([row(1)], blind=True)] == [1]


# ---------------------------------------------------------------------------------------------- the judge


def test_a_judge_decides_where_rules_find_nothing_and_is_named() -> None:
    asked = [row(1), row(2, "What is it?", "a crimson box")]
    replies = iter(["the red square", "a scarlet cube"])
    judge = Talker(lambda words: "Yes." if "scarlet" in words else "no", "strict judge")
    result = answers(Talker(lambda _: next(replies)), asked, judge=Judge(judge))
    assert result.metrics["acc"].value == 1.0
    assert result.extra["read"] == {"exact": 1, "judge": 1}
    assert len(judge.asked) == 1, "what matches needs no judge"
    assert "strict judge" in result.protocol
    assert "a crimson box" in judge.asked[0]


def test_a_judge_reads_the_letter_that_rules_do_not() -> None:
    asked = [Row("q", images=(square(255, 0, 0),), question="What colour?", choices=("red", "blue"), answers=("red",))]
    rambling = Talker(
        lambda words: "either, but rather " + next(line for line in words.splitlines() if line.endswith(". red"))[0] + " than none"
    )
    asked = [asked[0].with_(id=f"q{i}") for i in range(8)]
    assert choice(rambling, asked).metrics["acc"].value == 0

    def verdict(words: str) -> str:
        reply = next(line for line in words.splitlines() if "rather" in line)
        return reply.split("rather ")[1][0]  # the letter in the reply, which must be a letter of the list that it is shown

    judge = Talker(verdict)
    judged = choice(rambling, asked, judge=Judge(judge))
    assert judged.metrics["acc"].value == 1 and judged.extra["read"] == {"judge": 8}
    shown = [line for line in judge.asked[0].splitlines() if line[1:3] == ". "]
    assert shown == [line for line in rambling.asked[0].splitlines() if line[1:3] == ". "], "it sees the letters that the model saw"
    none = choice(rambling, asked, judge=Judge(Talker(lambda _: "none")))
    assert none.metrics["acc"].value == 0 and none.metrics["acc lenient"].value == 1, "no verdict: still not read"


def test_a_judge_that_fails_now_and_then_is_told_and_asked_again() -> None:
    replies = iter(["a cube", "a crimson box", "a box"])
    failing = Talker(lambda words: Answer(outcome="error", error="HTTP 429") if "cube" in words else "no")
    result = answers(Talker(lambda _: next(replies)), [row(1), row(2), row(3)], judge=Judge(failing))
    assert result.metrics["acc"].n == 2 and "the judge failed on 1 of 3" in result.notes[0]
    assert [item.get("judge failed") for item in result.items] == [1, None, None]


def test_an_absent_judge_is_loud() -> None:
    away = Talker(lambda _: Answer(outcome="error", error="HTTP 401"))
    with pytest.raises(TongganError, match="judge talker answers nothing: HTTP 401"):
        answers(Talker(lambda _: "a cube"), [row(1)], judge=Judge(away))
    with pytest.raises(CannotError, match="cannot be the judge"):
        Judge(ColourModel())


# ------------------------------------------------------------------------------------------------ captions

SAID = {
    "en": [("a red square", "a square that is red"), ("a green circle", "the circle is green"), ("blue",)],
    "zh": [("红色的方块", "一个红方块"), ("绿色的圆",), ("蓝色",)],
}


def pictured() -> list[Row]:
    return [
        Row(f"p{i}", images=(square(255, i, 0),), texts=tuple(Text(t, lang) for lang in ("en", "zh") for t in SAID[lang][i]))
        for i in range(3)
    ]


def test_captions_are_scored_against_those_of_their_language() -> None:
    said = {"Describe": "a red square", "请用": "红色的方块"}
    model = Talker(lambda words: next(text for start, text in said.items() if words.startswith(start)))
    result = captions(model, [*pictured(), Row("bare", images=(square(1, 1, 1),))])
    assert model.pictures == 6
    assert [d.reason for d in result.dropped] == ["no caption"]
    for lang, cut, text in (("en", tokenizer("ptb").cut, "a red square"), ("zh", tokenizer("zh-char").cut, "红色的方块")):
        given, wanted = [cut(text)] * 3, [[cut(t) for t in some] for some in SAID[lang]]
        assert result.metrics[f"captions {lang} cider-d"].value == pytest.approx(cider_d(given, wanted).mean())
        assert result.metrics[f"captions {lang} rouge-l"].value == pytest.approx(rouge_l(given, wanted).mean())
        counts = [item["bleu"] for item in result.items if item["task"] == f"captions {lang}"]
        assert counts == bleu_counts(given, wanted).tolist()
    assert result.primary == "cider-d" and "zh-char" in result.protocol and "ptb" in result.protocol
    assert 0 < result.metrics["bleu-4"].value < 1


def test_clipscore_is_named_after_what_gives_it() -> None:
    plain = captions(Talker(lambda _: "red"), pictured()[:2], langs=["en"])
    scored = captions(Talker(lambda _: "red"), pictured()[:2], langs=["en"], scorer=ColourModel())
    assert "clipscore" not in plain.metrics and plain.protocol != scored.protocol
    assert 0 <= scored.metrics["clipscore"].value <= 2.5


def test_a_refusal_has_no_clipscore_and_every_language_is_asked() -> None:
    refused = captions(Talker(lambda _: Answer("no", outcome="refused")), pictured()[:2], langs=["en"], scorer=ColourModel())
    assert refused.metrics["clipscore"].value == 0
    spoken = [*pictured(), Row("ja", images=(square(3, 3, 3),), texts=(Text("あおい", "ja"), Text("12345")))]
    assert {item["task"] for item in captions(Talker(lambda _: "x"), spoken).items} == {f"captions {x}" for x in ("en", "zh", "ja", "und")}


def test_one_picture_has_no_cider() -> None:
    result = captions(Talker(lambda _: "a red square"), pictured()[:1], langs=["en"])
    assert result.metrics["cider-d"].value == 0 and "single picture" in result.notes[0]
    with pytest.raises(UsageError, match="no captions in 'fr'"):
        captions(Talker(lambda _: ""), pictured(), langs=["fr"])
    with pytest.raises(CannotError, match="for captions"):
        captions(ColourModel(), pictured())
