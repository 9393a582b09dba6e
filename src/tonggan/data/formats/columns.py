"""From a table's record to a row: which column is the picture, which are captions, and what the others mean.

The same for CSV, Excel, JSONL, Parquet and Hugging Face's tables, so that a user learns it once. The user's own choice comes
first, then the name of a column (English and Chinese), then what its cells look like.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tonggan.config import did_you_mean
from tonggan.data.formats.base import EMPTY_CAPTION, Finder, Located, Reading, normal_split
from tonggan.data.formats.cells import EMPTY, META, Record, as_text, meta_name, plain_name
from tonggan.data.formats.mmbench import first_pass, with_held
from tonggan.data.formats.pictures import digest, is_stored, is_stored_picture, named_pictures, pictures
from tonggan.data.formats.questions import Asking, answers_in, asking, by_letter, choices_in, divided_at, hinted, options_in
from tonggan.data.language import language_of
from tonggan.data.media import is_picture_name
from tonggan.types import Image, Row, Text, UsageError

IMAGE_NAMES = (
    *("filepath", "file_path", "filename", "file_name", "image", "images", "image_path", "image_file", "img", "img_path", "path"),
    *("file", "picture", "photo", "image_url", "url"),
    *("image_name", "图", "图片", "图像", "照片", "图片路径", "图像路径", "图片地址", "文件", "文件名", "文件路径", "路径"),
)
TEXT_NAMES = (
    *("title", "caption", "captions", "text", "texts", "description", "sentence", "sentences", "alt", "alt_text", "prompt", "comment"),
    *("标题", "描述", "文本", "文字", "说明", "图说", "图注", "题目", "内容", "图片描述", "商品名称", "商品标题"),
)
LABEL_NAMES = ("label", "class", "name", "keywords", "tags", "类别", "标签", "名称", "名字", "关键词")
"""Taken for captions only when no column of `TEXT_NAMES` is there; they stay in `meta` too."""
PLAIN_NAMES = {
    "id": ("id", "uid", "image_id", "row_id", "编号", "序号"),
    "split": ("split", "subset", "划分", "数据集划分"),
    "group": ("group", "group_id", "concept", "组", "组别", "分组", "概念"),
    "artist": ("artist", "author", "photographer", "作者", "画家", "摄影", "摄影师"),
}
PICTURE_IDS = ("image_id", "imageid", "img_id", "图片编号")
ASKED_NAMES = PLAIN_NAMES | {
    "id": ("question_id", "questionid", "qid", "index", "题号", "id", "uid", "row_id", "编号", "序号"),
    "group": (*PLAIN_NAMES["group"], *PICTURE_IDS),
}
"""The same in a table of questions, of which several may be about one picture."""
REMARKS = ("comment", "prompt", "说明", "题目", "内容")
"""No captions in a table of questions."""
LANG_NAMES = ("lang", "language", "语言")

_LANGS = dict.fromkeys(("zh", "cn", "chinese", "中文", "汉语"), "zh") | dict.fromkeys(("en", "eng", "english", "英文", "英语"), "en")
_LANG_WORD = r"zh(?:[-_](?:cn|tw|hk|hans|hant))?|cn|chinese|中文|汉语|en(?:[-_](?:us|gb))?|eng|english|英文|英语"
_VARIANT = re.compile(
    rf"^(?:(?P<before>{_LANG_WORD})[-_. ]?)?(?P<word>.+?)(?:[-_. (（]*(?P<after>{_LANG_WORD})[)）]?)?(?:[-_. ]?(?P<number>\d+))?$"
)
_RESERVED = {*IMAGE_NAMES, *TEXT_NAMES, *LABEL_NAMES, *LANG_NAMES, *(word for words in PLAIN_NAMES.values() for word in words)}
_OWN = ("id", "split", "group")
"""Columns that stand side by side in every table of ours, between captions and meta."""


def numbered(word: str, number: int) -> str:
    """`title`, `title_2`, `title_3`, …"""
    return word if number == 1 else f"{word}_{number}"


def meta_column(name: str) -> str:
    """A meta key as a column; one that would be read as something else gets a prefix."""
    word = plain_name(name).rstrip("0123456789").rstrip("_-. ")
    taken = word in _RESERVED or _variants([name], TEXT_NAMES + LABEL_NAMES) or name.startswith(META)
    return f"{META}{name}" if taken and name != "artist" else name


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption column; its language is fixed (`lang`), given row by row in a column, or found from the letters."""

    column: str
    lang: str | None = None
    lang_column: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """What each column of a table is for; those not named here become `meta`."""

    image: str | None
    captions: tuple[Caption, ...]
    plain: Mapping[str, str] = field(default_factory=dict)
    """Column of `id`, `split`, `group`, `artist`, where there is one."""
    further: tuple[str, ...] = ()
    """Columns of further pictures of the same row."""
    empty: frozenset[str] = EMPTY
    """Words that mean an empty cell."""
    asking: Asking | None = None
    """The columns of questions, where there are any."""

    @property
    def labels(self) -> set[str]:
        """Caption columns that name a class: `meta` has them too, for classification to find."""
        return {caption.column for caption in self.captions if _variants([caption.column], LABEL_NAMES)}

    @property
    def used(self) -> set[str]:
        """Columns that do not go into `meta`. The artist and the labels do."""
        texts = {name for c in self.captions for name in (c.column, c.lang_column) if name} - self.labels
        pictures = {*self.further, *([self.image] if self.image else [])}
        return texts | pictures | {column for kind, column in self.plain.items() if kind != "artist"}


def rows_of(records: Iterable[Record], names: Sequence[str], job: Reading, base: Path | None = None) -> Iterator[Located]:
    """Rows of a table. What cannot be used goes to `job.dropped` with its line and reason; wrong columns raise `UsageError`."""
    stream = iter(records)
    first = list(islice(stream, 50))
    columns = detect(names, [cells for _, cells in first], job)
    _tell(columns, names, job)
    finder = Finder(base or job.base)
    every: Iterable[Record] = chain(first, stream)
    held: Mapping[str, str] = {}
    if columns.asking is not None:
        every, held = with_held(first_pass(every, columns.asking, columns.plain.get("id"), job), columns.plain.get("id"), columns.image)
    rows: Iterator[Located] = (row for record in every if (row := _row(record, columns, finder, job, held)) is not None)
    if columns.asking is not None and columns.asking.answer is not None:
        rows = _divided(rows, meta_name(columns.asking.answer), job)
    yield from _joined(rows, {*map(meta_name, columns.labels)}, job)
    finder.report(job)


def detect(names: Sequence[str], sample: Sequence[Mapping[str, Any]], job: Reading) -> Columns:
    """Find the columns; raises `UsageError` naming those there are when a chosen one is absent or nothing can be found."""
    if not (job.image_col or job.text_col) and (columns := _own(names, job)):
        return columns
    stored = [] if job.image_col else [name for name in names if _mostly(is_stored_picture, name, sample)]
    if job.image_col:
        image: str | None = _chosen(job.image_col, names, job)
    elif stored:
        image = _first(stored, IMAGE_NAMES) or stored[0]
    else:
        image = _first(names, IMAGE_NAMES) or next((name for name in names if _mostly(_is_picture_cell, name, sample)), None)
    further = tuple(name for name in stored if name != image)
    free = [name for name in names if name != image and name not in further]
    plain: dict[str, str] = {}
    texts = [_chosen(word, names, job) for word in _words(job.text_col, names)]
    asked = asking(free, texts[0] if len(texts) == 1 else None, _variants(free, TEXT_NAMES))
    if asked is not None:
        free = [name for name in free if name not in asked.columns]
        image = image or _first(free, PICTURE_IDS)  # pictures named by their id
    for kind, known in (PLAIN_NAMES if asked is None else ASKED_NAMES).items():
        found = _first([name for name in free if name not in texts], known)
        if found:
            plain[kind] = found
    free = [name for name in free if name not in plain.values()]
    if asked is not None:
        texts = texts or _variants([name for name in free if plain_name(name) not in REMARKS], TEXT_NAMES)
        return Columns(image, tuple(_caption(name, names, job) for name in texts), plain, further, asking=asked)
    texts = texts or _variants(free, TEXT_NAMES) or _variants(free, LABEL_NAMES)
    if image is None and not texts:
        raise UsageError(
            f"{job.path}: no column of pictures or captions was recognised (nor of questions); say which with the image and text column "
            f"options. "
            f"The columns are: {', '.join(names)}"
        )
    return Columns(image, tuple(_caption(name, names, job) for name in texts), plain, further)


def own_header(picture: str | None, captions: int, spoken: int) -> list[str]:
    """The columns with which our tables begin; meta follows. The first `spoken` captions have a column for their language."""
    texts = [numbered(word, n) for n in range(1, captions + 1) for word in (("title", "lang") if n <= spoken else ("title",))]
    return [*([picture] if picture else []), *texts, *_OWN]


def _own(names: Sequence[str], job: Reading) -> Columns | None:
    """The columns of a table that one of our writers made: nothing is guessed, and only an empty cell is empty. None for others."""
    picture = names[0] if names and names[0] in ("filepath", "image") else None
    before = names[: names.index(_OWN[0])] if _OWN[0] in names else []
    titles = [name for name in before if name.startswith("title")]
    header = own_header(picture, len(titles), len(before) - len(titles) - bool(picture))
    if not (picture or titles) or list(names[: len(header)]) != header:
        return None
    captions = tuple(_caption(name, names, job) for name in titles)
    asked = asking(names[len(header) :])
    return Columns(picture, captions, {name: name for name in _OWN}, empty=frozenset({""}), asking=asked)


def _chosen(word: str, names: Sequence[str], job: Reading) -> str:
    exact = [name for name in names if name == word] or [name for name in names if plain_name(name) == plain_name(word)]
    if exact:
        return exact[0]
    hint = did_you_mean(word, names)
    raise UsageError(f"{job.path}: no column {word!r}{hint}; the columns are: {', '.join(names)}")


def _words(chosen: Sequence[str], names: Sequence[str]) -> list[str]:
    """Several columns may be named in one option, separated by commas."""
    known = {plain_name(name) for name in names}
    return [part for word in chosen for part in ([word] if plain_name(word) in known else re.split(r"\s*[,，]\s*", word.strip()))]


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_plain = {plain_name(name): name for name in reversed(names)}
    return next((by_plain[word] for word in known if word in by_plain), None)


def _variants(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Columns named like a caption, also with a language or number: `caption_zh`, `中文标题`, `title_2`. In the table's order."""
    return [name for name in names if plain_name(name) in known or ((m := _VARIANT.match(plain_name(name))) and m["word"] in known)]


def _mostly(like: Callable[[Any], bool], name: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Whether most cells of a column that are filled are of a kind."""
    cells = [cells[name] for cells in sample if cells.get(name)]
    return sum(map(like, cells)) * 2 > len(cells)


def _is_picture_cell(cell: Any) -> bool:
    return isinstance(cell, str) and len(cell) < 500 and is_picture_name(cell.strip())


def _caption(name: str, names: Sequence[str], job: Reading) -> Caption:
    if isinstance(job.text_lang, str):
        return Caption(name, job.text_lang)
    if job.text_lang and name in job.text_lang:
        return Caption(name, job.text_lang[name])
    match = _VARIANT.match(plain_name(name))
    word = match and (match["before"] or match["after"])
    if word:
        return Caption(name, _LANGS[re.split("[-_]", word)[0]])
    number = match and match["number"]
    return Caption(name, None, _first(names, [f"{lang}_{number}" if number else lang for lang in LANG_NAMES]))


def _tell(columns: Columns, names: Sequence[str], job: Reading) -> None:
    captions = ", ".join(caption.column for caption in columns.captions) or "none"
    pictures = ", ".join([columns.image or "none", *columns.further])
    plain = "".join(f", {kind} from {column}" for kind, column in columns.plain.items())
    asked = f"{_told(columns.asking)}, " if columns.asking else ""
    job.note(f"columns: {asked}pictures from {pictures}, captions from {captions}{plain}")
    others = [name for name in names if name not in columns.used]
    if not columns.captions and others and not columns.asking:
        job.note(f"no column of captions was recognised; if it is one of {', '.join(others)}, name it with --text-col")


def _told(asked: Asking) -> str:
    kinds = {
        "questions": asked.question,
        "hints": asked.hint,
        "choices": asked.choices or ", ".join(asked.lettered.values()),
        "answers": asked.answer,
    }
    return ", ".join(f"{kind} from {column}" for kind, column in kinds.items() if column)


# ------------------------------------------------------------------------------------------------ cells


def _row(record: Record, columns: Columns, finder: Finder, job: Reading, held: Mapping[str, str]) -> Located | None:
    where, cells = record
    asks = columns.asking is not None
    named = named_pictures(cells, [*([columns.image] if columns.image else []), *columns.further], optional=asks)
    images = pictures([held.get(one, one) if isinstance(one, str) else one for one in named], finder, where, job, whole=asks)
    if images is None:
        return None
    texts = tuple(text for caption in columns.captions for text in _texts(cells, caption, columns.empty))
    question, choices, answers = _asked(cells, columns) if columns.asking else (None, (), ())
    if columns.asking and question is None and not texts:
        job.drop(where, "no question")
        return None
    if columns.captions and not texts and question is None:
        picture = _named(cells.get(columns.image)) if columns.image else ""
        job.drop(where, f"{picture}{EMPTY_CAPTION}")
        return None
    if any("\ufffd" in text.text for text in texts):
        job.drop(where, "its caption is damaged (bytes that are no text)")
        return None
    if any("\ufffd" in said for said in (question or "", *choices, *answers)):
        job.drop(where, "its question is damaged (bytes that are no text)")
        return None
    plain = {kind: as_text(cells.get(column), columns.empty) for kind, column in columns.plain.items()}
    others = {name: cell for name, cell in cells.items() if name not in columns.used and not _binary(cell)}
    meta = {meta_name(name): word for name, cell in others.items() if (word := as_text(cell, columns.empty))}
    if plain.get("artist"):
        meta["artist"] = str(plain["artist"])
    split = normal_split(plain.get("split"))
    if columns.asking and split != plain.get("split"):
        meta["split"] = str(plain["split"])  # MMMU's dev and validation are both val, and still two sets
    row = Row(
        id=plain.get("id") or _default_id(images, job.root or job.base, where),
        images=images,
        texts=texts,
        question=question,
        choices=choices,
        answers=answers,
        group=plain.get("group") or (_picture_key(images, job) if columns.asking else None),
        split=split,
        meta=meta,
    )
    return where, row


def _asked(cells: Mapping[str, Any], columns: Columns) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """The question with its hint, its choices, and its answers as far as they are known to mean a choice."""
    assert columns.asking is not None
    asked = columns.asking
    question = as_text(cells.get(asked.question), columns.empty)
    if question is None:
        return None, (), ()
    if asked.hint:
        question = hinted(question, as_text(cells.get(asked.hint), columns.empty))
    listed_choices = choices_in(cells.get(asked.choices)) if asked.choices else ()
    options = by_letter(listed_choices) if listed_choices else options_in(cells, asked.lettered, columns.empty)
    answers = answers_in(cells.get(asked.answer), options, by_column=not listed_choices) if asked.answer else ()
    return question, listed_choices or tuple(options.values()), answers


def _picture_key(images: Sequence[Image], job: Reading) -> str | None:
    """What questions about one picture have in common: its path, its address, or a digest of it where the cells hold it themselves."""
    if not images:
        return None
    if images[0].path is not None:
        return _default_id(images, job.root or job.base, "")
    return digest(images[0]) or images[0].url


def _texts(cells: Mapping[str, Any], caption: Caption, empty: Collection[str]) -> Iterator[Text]:
    cell = cells.get(caption.column)
    given = caption.lang or (as_text(cells.get(caption.lang_column)) if caption.lang_column else None)
    for one in cell if isinstance(cell, list | tuple) else [cell]:
        lang = given
        if isinstance(one, Mapping):
            lang = as_text(one.get("lang")) or given
            one = next((one[key] for key in ("text", "raw", "caption", "title", "value") if one.get(key)), None)
        word = as_text(one, empty)
        if word:
            yield Text(word, lang or language_of(word))


def _binary(cell: Any) -> bool:
    """Whether a cell holds a file, which is nothing for `meta`."""
    return isinstance(cell, bytes) or is_stored(cell) or (isinstance(cell, list) and any(map(_binary, cell)))


def _named(cell: Any) -> str:
    word = cell if isinstance(cell, str) else ""
    return f"{word[:200]}: " if word else ""


def _default_id(images: Sequence[Image], base: Path, where: str) -> str:
    path = images[0].path if images else None
    if path is None:
        return where
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _divided(rows: Iterable[Located], answer: str, job: Reading) -> Iterator[Located]:
    """The same rows; how many answers were divided at a semicolon is noted, for a semicolon may also belong to an answer."""
    counts: Counter[str] = Counter()
    for where, row in rows:
        if not row.choices and len(row.answers) > 1:  # among choices it is clear what an answer is
            counts.update(divided_at(row.meta.get(answer)))
        yield where, row
    for mark, n in counts.items():
        job.note(f"the answers of {n:,} row{'s' * (n > 1)} were divided at {mark} (an answer written as a JSON list stays whole)")


def _joined(rows: Iterable[Located], labels: Collection[str], job: Reading) -> Iterator[Located]:
    """Lines that follow each other and name the same picture become one row with several captions (open_clip writes such files).
    Of `labels`, the captions that `meta` has too, the first stays there."""
    held: Located | None = None
    joined = 0
    for where, row in rows:
        if held is not None and _same_picture(held[1], row, labels):
            held = (held[0], held[1].with_(texts=held[1].texts + row.texts))
            joined += 1
            continue
        if held is not None:
            yield held
        held = (where, row)
    if held is not None:
        yield held
    if joined:
        job.note(f"{joined} lines name the picture of the line before them: joined into rows with several captions")


def _same_picture(a: Row, b: Row, labels: Collection[str]) -> bool:
    if a.question is not None or b.question is not None:
        return False  # two questions about one picture are two
    if not (a.images and b.images) or a.images[0].path is None or len(a.images) + len(b.images) > 2:
        return False
    meta = [{name: word for name, word in row.meta.items() if name not in labels} for row in (a, b)]
    return a.images[0].path == b.images[0].path and (a.id, a.split, a.group, meta[0]) == (b.id, b.split, b.group, meta[1])
