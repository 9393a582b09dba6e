"""Captions asked of models that chat, against the captions that people wrote: CIDEr-D, BLEU-4, ROUGE-L, and CLIPScore where a judge of
pictures is given.

English is cut as the Penn Treebank does, Chinese into characters or by jieba; the way stands in the protocol, because it moves every
score. Document frequencies are those of all pictures, also while pictures are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tonggan.data.prompts import SENTENCE
from tonggan.evaluate.metrics import captioning
from tonggan.evaluate.metrics.reading import without_thoughts
from tonggan.evaluate.metrics.summary import failed, summary
from tonggan.evaluate.metrics.tokens import tokenizer
from tonggan.evaluate.result import Result
from tonggan.evaluate.tasks.asking import (
    MAX_TOKENS,
    Turn,
    conversation,
    counts,
    digest,
    in_language,
    none_answered,
    record,
    said,
    without_marks,
)
from tonggan.types import Answer, CannotError, ChatOptions, Dropped, Message, Model, Row, UsageError

PROMPTS = SENTENCE
CLIPSCORE = "clipscore/v1: 2.5 max(cosine, 0) of picture and 'A photo depicts ' + caption"
"""Hessel et al. 2021, section 3; their numbers are of CLIP ViT-B/32, others are not comparable with them."""


def captions(
    model: Model,
    rows: Sequence[Row],
    *,
    langs: Sequence[str] | None = None,
    chinese: str = "zh-char",
    scorer: Model | None = None,
    blind: bool = False,
    data: str = "",
) -> Result:
    """One caption per picture and language, scored against the row's captions in that language.

    `chinese` is `zh-char` or `zh-jieba`; `scorer`, a two-tower model, adds CLIPScore. `blind` asks without the picture: what a model
    says of pictures in general is the floor. Rows without a picture or caption are listed in `dropped`.
    """
    if "chat" not in model.can:
        raise CannotError(f"{model.name} cannot be asked for captions; it can: {', '.join(sorted(model.can))}")
    # The captions are of the pictures: other media of a row are not shown.
    shown = [row.with_(audios=(), videos=()) for row in rows if row.images and row.texts]
    dropped = [Dropped(row.id, "no caption" if row.images else "no picture") for row in rows if not (row.images and row.texts)]
    if not shown:
        raise UsageError("captions need rows with a picture and a caption; there are none")
    spoken = sorted({text.lang or "und" for row in shown for text in row.texts})
    ids: list[str] = []
    items: list[dict[str, Any]] = []
    for lang in langs or spoken:
        here = [row for row in shown if any((text.lang or "und") == lang for text in row.texts)]
        if not here:
            raise UsageError(f"no captions in {lang!r}; there are: {', '.join(spoken)}")
        cutter = tokenizer(chinese if lang == "zh" else "ptb")
        ids.append(f"{lang} {cutter.id}")
        words = in_language(PROMPTS, lang) if model.instructed else ""
        given = model.chat([conversation(row, words, blind=blind) for row in here], ChatOptions(max_tokens=MAX_TOKENS))
        replies = [without_thoughts(answer.text).strip() if answer.outcome == "answered" else "" for answer in given]
        said_ = [cutter.cut(reply) for reply in replies]
        wanted = [[cutter.cut(text.text) for text in row.texts if (text.lang or "und") == lang] for row in here]
        values = zip(
            captioning.cider_d(said_, wanted),
            captioning.rouge_l(said_, wanted),
            captioning.bleu_counts(said_, wanted),
            _clipscore(scorer, here, replies) if scorer is not None else [None] * len(here),
            strict=True,
        )
        for row, answer, reply, (cider, rouge, bleu, clip) in zip(here, given, replies, values, strict=True):
            scores = {"cider-d": float(cider), "rouge-l": float(rouge), "bleu": bleu.tolist()}
            items.append(_item(row, lang, answer, reply, scores | ({} if clip is None else {"clipscore": clip})))
    items = without_marks(items)
    if all(failed(item) for item in items):
        raise none_answered(items)
    metrics = [
        captioning.CIDER_D,
        captioning.BLEU,
        captioning.ROUGE_L,
        *([f"{CLIPSCORE}, of {scorer.name} {scorer.identity.short}"] if scorer else []),
    ]
    prompted = f"prompts {digest(PROMPTS)}" if model.instructed else "no prompt"
    return Result(
        protocol=f"captions/v1 chat: {prompted}; tokens {', '.join(ids)}; {'; '.join(metrics)}"
        f"{'; without pictures' if blind else ''}; clusters picture, bootstrap 2000 seed 0",
        model=model.name,
        weights=model.identity.weights,
        data=data,
        primary="cider-d",
        metrics=summary(items),
        items=items,
        dropped=dropped,
        notes=["CIDEr-D of a single picture is 0: every word is in all documents"] if len(shown) == 1 else [],
        extra={"way": "chat"} | counts(items),
    )


def questions_of(rows: Sequence[Row], *, langs: Sequence[str] | None = None, blind: bool = False) -> list[list[Message]]:
    """The conversations that `captions` would have."""
    return [
        conversation(row.with_(audios=(), videos=()), in_language(PROMPTS, lang), blind=blind)
        for lang in langs or sorted({text.lang or "und" for row in rows for text in row.texts})
        for row in rows
        if row.images and any((text.lang or "und") == lang for text in row.texts)
    ]


def _item(row: Row, lang: str, answer: Answer, reply: str, scores: dict[str, Any]) -> dict[str, Any]:
    right = " | ".join(text.text for text in row.texts if (text.lang or "und") == lang)
    turn = Turn(said(answer), "exact" if reply else "unparsed", answer)
    return record(row.with_(group=None, question=None), f"captions {lang}", [turn], right=right, **scores)


def _clipscore(scorer: Model, rows: Sequence[Row], replies: Sequence[str]) -> list[float]:
    pictures = scorer.embed([row.images[0] for row in rows])
    words = scorer.embed([f"A photo depicts {reply}" for reply in replies])
    return [2.5 * max(0.0, float(pictures[i] @ words[i])) if reply else 0.0 for i, reply in enumerate(replies)]
