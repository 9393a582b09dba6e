"""What a protocol makes of one reply, and the rules by which protocols read, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tonggan.report import Words

Left: TypeAlias = Literal["", "random", "judge", "unread"]
"""What is left open where no option was read: nothing (it counts as wrong); the program draws an option at random; it asks a judge, a
model, and counts the reply as wrong where there is none; or it is left unread (ours)."""


@dataclass(frozen=True, slots=True)
class Read:
    """The rule that fired (a key of `RULES`), the option's number, the part of the reply that it was read from, and what is left open."""

    rule: str
    choice: int | None = None
    seen: str = ""
    left: Left = ""

    def marks(self, right: int, options: int) -> tuple[float, float, float]:
        """(score, lowest, highest) of a reply to a question with so many options. We never draw: a random choice has its expected value."""
        if self.choice is not None or not self.left:
            hit = float(self.choice == right)
            return hit, hit, hit
        return (1 / options if self.left == "random" else 0.0), 0.0, 1.0


RULES: dict[str, Words] = {
    # ours
    "exact": Words("the reply is nothing but an option's letter or text", "回答只有一个选项的字母或原文"),
    "letter": Words("a longer reply that names one option by its letter", "较长的回答，用字母指明了一个选项"),
    "text": Words("the text of one option is in the reply", "回答中出现了某一个选项的原文"),
    "unread": Words("nothing, or several options that contradict each other: not read", "没有指明选项，或指明的选项互相矛盾：不读取"),
    "unanswered": Words("refused, filtered, cut or failed: an outcome of its own", "拒答、被过滤、被截断或请求失败：单独计数"),
    # VLMEvalKit
    "refusal": Words("a phrase on its list of refusals: wrong", "命中拒答语列表：算错"),
    "none": Words("the letter Z, for none of the options: wrong", "字母 Z，表示都不是：算错"),
    "token": Words("the only option letter among the words, and near the end", "词语中唯一的选项字母，且靠近末尾"),
    "perhaps-article": Words(
        "the letter A or I before a small word (it may be the article or the pronoun)", "字母 A 或 I 后接小写单词（可能是冠词或代词）"
    ),
    "answer-is": Words('the letter after "answer is"', "“answer is” 之后的字母"),
    "answer-is-inside": Words('the first letter of the word after "answer is"', "“answer is” 之后那个单词的首字母"),
    "answer-is-article": Words('the small letter a after "answer is", before a word', "“answer is” 之后、另一个单词之前的小写字母 a"),
    "text-inside": Words(
        "the text of one option is in the reply, but inside a longer word", "某一个选项的原文出现在回答中，但只是更长单词的一部分"
    ),
    "judge": Words("nothing read: a judge is asked; without one it counts as wrong", "读不出选项：交给评判模型；没有评判模型时算错"),
    # MMMU's program, and lmms-eval after it
    "bracket": Words("a letter in brackets", "括号中的字母"),
    "bracket-last": Words("several letters in brackets: the last one", "括号中的字母有多个：取最后一个"),
    "alone": Words("a letter between spaces", "两侧都是空格的字母"),
    "alone-last": Words("several letters between spaces: the last one", "两侧都是空格的字母有多个：取最后一个"),
    "word-end": Words("a capital at the end of a longer word", "更长单词末尾的大写字母"),
    "tail": Words("a letter before a space, after a mark or text without spaces", "空格之前的字母，其前是标点或没有空格的文字"),
    "period": Words("a letter before a period", "句点之前的字母"),
    "period-first": Words("several letters before a period: the first in the alphabet", "句点之前的字母有多个：取字母表中最靠前的"),
    "content": Words("the text of one option in a reply of more than five words", "超过五个词的回答中出现了某一个选项的原文"),
    "content-last": Words(
        "texts of several options in a reply of more than five words: the last one", "超过五个词的回答中出现了多个选项的原文：取最后一个"
    ),
    "random": Words(
        "nothing read: an option is drawn at random there; here it counts as 1 / options",
        "读不出选项：该程序会随机抽取一个；这里按期望值（选项数的倒数）计",
    ),
    # free answers
    "as-is": Words("compared to the letter, because all annotators agree", "标注者答案完全一致，因此逐字比较"),
    "normalised": Words("compared without marks and articles, numbers as digits", "去掉标点和冠词、数词改为数字后比较"),
    "normalised-evalai": Words(
        "compared as EvalAI does: also without commas and with 's apart", "按 EvalAI 的方式比较：另外去掉逗号，并把 's 分开"
    ),
    "normalised-periods": Words(
        "compared without marks and articles, numbers as digits; a period after a digit stays",
        "去掉标点和冠词、数词改为数字后比较；数字后的句点保留",
    ),
}
