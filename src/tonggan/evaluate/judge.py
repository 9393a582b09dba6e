"""A model that reads what rules cannot: which option a rambling reply chose, or whether a free answer means the same as the right one.

Optional, and never silent: the judge's name and prompts stand in the protocol of every result that it took part in, each answer that it
read is marked `judge`, and where it gives no verdict an answer stays unread. It sees the words only, never the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tonggan.evaluate.metrics.reading import NO, YES, read_choice, read_yes_no
from tonggan.evaluate.tasks.asking import digest, in_language
from tonggan.evaluate.tasks.questions import LETTERS
from tonggan.types import Answer, CannotError, ChatOptions, Message, Model, Text, TongganError

CHOSEN = {
    "zh": "问题：{question}\n选项：\n{choices}\n某人的回答：{reply}\n这个回答选的是哪个选项？只回答字母；如果哪个都没选，回答“无”。",
    "en": "Question: {question}\nOptions:\n{choices}\nSomebody's reply: {reply}\nWhich option does the reply choose? Answer with its "
    "letter only, or with 'none' if it chooses none.",
}
SAME = {
    "zh": "问题：{question}\n标准答案：{answers}\n某人的回答：{reply}\n这个回答与标准答案的意思是否相同？只回答“是”或“否”。",
    "en": "Question: {question}\nRight answer: {answers}\nSomebody's reply: {reply}\nDoes the reply mean the same as the right answer? "
    "Answer yes or no only.",
}
LONGEST = 2000
"""Characters of a reply that the judge sees."""


class Case(NamedTuple):
    """A reply to be judged, with its question and the options or right answers."""

    question: str
    options: Sequence[str]
    reply: str
    lang: str


class Verdict(NamedTuple):
    """What the judge says: the option chosen, or whether the meaning is the same; None for no verdict. `failed`: it was not reached."""

    choice: int | None = None
    same: bool | None = None
    failed: bool = False


class Judge:
    """Asks `model`, which must chat; its answers are kept where the model keeps them."""

    def __init__(self, model: Model) -> None:
        if "chat" not in model.can:
            raise CannotError(f"{model.name} cannot be the judge: it does not chat; it can: {', '.join(sorted(model.can)) or 'nothing'}")
        self.model = model
        weights = f" {model.identity.short}" if model.identity.weights else ""
        self.id = f"judge/v1 {model.name}{weights}, prompts {digest(CHOSEN, SAME)}"

    def chosen(self, cases: Sequence[Case]) -> list[Verdict]:
        """The option that each reply chooses, by its number; no verdict where the judge says none or cannot be read."""
        asked = [
            in_language(CHOSEN, case.lang).format(
                question=case.question,
                choices="\n".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(case.options)),
                reply=case.reply[:LONGEST],
            )
            for case in cases
        ]
        return [
            Verdict(failed=True)
            if answer.outcome == "error"
            else Verdict(choice=read_choice(answer.text, case.options).choice if answer.outcome == "answered" else None)
            for case, answer in zip(cases, self._asked(asked), strict=True)
        ]

    def same(self, cases: Sequence[Case]) -> list[Verdict]:
        """Whether each reply means one of the right answers."""
        joined = {"zh": "；或：", "en": "; or: "}
        asked = [
            in_language(SAME, case.lang).format(
                question=case.question, answers=in_language(joined, case.lang).join(dict.fromkeys(case.options)), reply=case.reply[:LONGEST]
            )
            for case in cases
        ]
        means = {YES: True, NO: False, None: None}
        return [
            Verdict(failed=True)
            if answer.outcome == "error"
            else Verdict(same=means[read_yes_no(answer.text).choice] if answer.outcome == "answered" else None)
            for answer in self._asked(asked)
        ]

    def _asked(self, words: Sequence[str]) -> list[Answer]:
        answers = self.model.chat([[Message("user", (Text(one),))] for one in words], ChatOptions())
        if answers and all(answer.outcome == "error" for answer in answers):
            # Never a score that is quietly another because the judge was away.
            raise TongganError(f"the judge {self.model.name} answers nothing: {answers[0].error}; run again later, or without a judge")
        return answers
