"""From a table's record to a row: which column is the picture, which are captions, and what the others mean.

The same for CSV, Excel, JSONL, Parquet and Hugging Face's tables, so that a user learns it once. The user's own choice comes
first, then the name of a column (English and Chinese), then what its cells look like.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tonggan.config import did_you_mean
from tonggan.data.formats.base import EMPTY_CAPTION, Finder, Located, Reading, normal_split
from tonggan.data.language import language_of
from tonggan.data.media import decode_base64, is_picture_name, sniff
from tonggan.types import Image, Row, Text, UsageError

Record = tuple[str, Mapping[str, Any]]
"""Where a record stands (file and line), and its cells by column."""

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
LANG_NAMES = ("lang", "language", "语言")

_LANGS = dict.fromkeys(("zh", "cn", "chinese", "中文", "汉语"), "zh") | dict.fromkeys(("en", "eng", "english", "英文", "英语"), "en")
_LANG_WORD = r"zh(?:[-_](?:cn|tw|hk|hans|hant))?|cn|chinese|中文|汉语|en(?:[-_](?:us|gb))?|eng|english|英文|英语"
_VARIANT = re.compile(
    rf"^(?:(?P<before>{_LANG_WORD})[-_. ]?)?(?P<word>.+?)(?:[-_. (（]*(?P<after>{_LANG_WORD})[)）]?)?(?:[-_. ]?(?P<number>\d+))?$"
)
_EMPTY = frozenset({"", "nan", "null", "#n/a", "\\n", "<na>"})
"""Words by which other programs write emptiness."""
_RESERVED = {*IMAGE_NAMES, *TEXT_NAMES, *LABEL_NAMES, *LANG_NAMES, *(word for words in PLAIN_NAMES.values() for word in words)}
META = "meta."
"""Prefix that our writers give to a column whose plain name would be taken for something else."""
_OWN = ("id", "split", "group")
"""Columns that stand side by side in every table of ours, between captions and meta."""


def plain_name(name: str) -> str:
    """A column's name as it is compared: no BOM, no surrounding space, one width and case."""
    return unicodedata.normalize("NFKC", name.replace("\ufeff", "")).strip().strip("'\"").lower()


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
    empty: frozenset[str] = _EMPTY
    """Words that mean an empty cell."""

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
    rows = (row for record in chain(first, stream) if (row := _row(record, columns, finder, job)) is not None)
    yield from _joined(rows, {*map(_meta_name, columns.labels)}, job)
    finder.report(job)


def detect(names: Sequence[str], sample: Sequence[Mapping[str, Any]], job: Reading) -> Columns:
    """Find the columns; raises `UsageError` naming those there are when a chosen one is absent or nothing can be found."""
    if not (job.image_col or job.text_col) and (columns := _own(names, job)):
        return columns
    stored = [] if job.image_col else [name for name in names if _mostly(_is_stored_picture, name, sample)]
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
    for kind, known in PLAIN_NAMES.items():
        found = _first([name for name in free if name not in texts], known)
        if found:
            plain[kind] = found
    free = [name for name in free if name not in plain.values()]
    texts = texts or _variants(free, TEXT_NAMES) or _variants(free, LABEL_NAMES)
    if image is None and not texts:
        raise UsageError(
            f"{job.path}: no column of pictures or captions was recognised; say which with the image and text column options. "
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
    return Columns(picture, captions, {name: name for name in _OWN}, empty=frozenset({""}))


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


def _is_stored_picture(cell: Any) -> bool:
    """Hugging Face's `{"bytes", "path"}`, or a list of them; its sounds are kept in the same way."""
    if isinstance(cell, list):
        return bool(cell) and all(map(_is_stored_picture, cell))
    if not _is_stored(cell):
        return False
    return sniff(cell["bytes"][:1024]) is not None if cell["bytes"] else is_picture_name(cell.get("path") or "")


def _is_stored(cell: Any) -> bool:
    return isinstance(cell, dict) and "bytes" in cell and cell.keys() <= {"bytes", "path"}


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
    job.note(f"columns: pictures from {pictures}, captions from {captions}{plain}")
    others = [name for name in names if name not in columns.used]
    if not columns.captions and others:
        job.note(f"no column of captions was recognised; if it is one of {', '.join(others)}, name it with --text-col")


# ------------------------------------------------------------------------------------------------ cells


def _row(record: Record, columns: Columns, finder: Finder, job: Reading) -> Located | None:
    where, cells = record
    images = _pictures(_picture_cells(cells, columns), finder, where, job) if columns.image else ()
    if images is None:
        return None
    texts = tuple(text for caption in columns.captions for text in _texts(cells, caption, columns.empty))
    if columns.captions and not texts:
        named = _named(cells.get(columns.image)) if columns.image else ""
        job.drop(where, f"{named}{EMPTY_CAPTION}")
        return None
    if any("\ufffd" in text.text for text in texts):
        job.drop(where, "its caption is damaged (bytes that are no text)")
        return None
    plain = {kind: _word(cells.get(column), columns.empty) for kind, column in columns.plain.items()}
    others = {name: cell for name, cell in cells.items() if name not in columns.used and not _binary(cell)}
    meta = {_meta_name(name): word for name, cell in others.items() if (word := _word(cell, columns.empty))}
    if plain.get("artist"):
        meta["artist"] = str(plain["artist"])
    row = Row(
        id=plain.get("id") or _default_id(images, job.root or job.base, where),
        images=images,
        texts=texts,
        group=plain.get("group"),
        split=normal_split(plain.get("split")),
        meta=meta,
    )
    return where, row


def _picture_cells(cells: Mapping[str, Any], columns: Columns) -> list[Any]:
    """The pictures that a record names, one after the other; a further column may be empty."""
    named = [cells.get(name) for name in (columns.image, *columns.further) if name]
    flat = [one for cell in named for one in (cell if isinstance(cell, list | tuple) else [cell])]
    return [one for one in flat if one is not None] or [None]


def _pictures(cells: Sequence[Any], finder: Finder, where: str, job: Reading) -> tuple[Image, ...] | None:
    """The pictures of a record; a missing one is reported, and a row that loses all of them is None."""
    found: list[Image] = []
    reasons: list[str] = []
    for one in cells:
        image = picture_of(one, finder)
        if isinstance(image, Image):
            found.append(image)
        else:
            reasons.append(image)
    for reason in reasons:
        job.drop(where, reason if not found else f"one of {len(cells)} pictures: {reason}")
    return tuple(found) if found else None


def picture_of(cell: Any, finder: Finder) -> Image | str:
    """A cell as a picture, or the reason why it is none. Paths, addresses, data URIs, base64, bytes, `{"bytes", "path"}`."""
    if isinstance(cell, Mapping):
        data, path = cell.get("bytes"), cell.get("path") or cell.get("url")
        return Image(data=bytes(data)) if data else picture_of(path, finder)
    if isinstance(cell, bytes):
        return Image(data=cell) if cell else "empty picture"
    word = _word(cell)
    if not word:
        return "no picture named"
    if word[:5].lower() == "data:" or re.match(r"https?://", word, re.IGNORECASE):
        return Image(url=word)
    if len(word) > 200 and (data := _base64_picture(word)):
        return Image(data=data)
    found = finder.find(word)
    return Image(path=found) if isinstance(found, Path) else f"{word[:200]}: {found}"


def _base64_picture(word: str) -> bytes | None:
    try:
        data = decode_base64(word)
    except ValueError:
        return None
    return data if sniff(data[:1024]) else None


def _texts(cells: Mapping[str, Any], caption: Caption, empty: Collection[str]) -> Iterator[Text]:
    cell = cells.get(caption.column)
    given = caption.lang or (_word(cells.get(caption.lang_column)) if caption.lang_column else None)
    for one in cell if isinstance(cell, list | tuple) else [cell]:
        lang = given
        if isinstance(one, Mapping):
            lang = _word(one.get("lang")) or given
            one = next((one[key] for key in ("text", "raw", "caption", "title", "value") if one.get(key)), None)
        word = _word(one, empty)
        if word:
            yield Text(word, lang or language_of(word))


def _word(cell: Any, empty: Collection[str] = _EMPTY) -> str | None:
    """A cell as text: spreadsheets make numbers of ids, Parquet's plain columns are bytes, and other programs write emptiness as a word."""
    if cell is None:
        return None
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", errors="replace")
    if isinstance(cell, float):
        if cell != cell:
            return None
        cell = int(cell) if cell.is_integer() else cell
    word = str(cell).strip()
    return None if word.lower() in empty else word


def _binary(cell: Any) -> bool:
    """Whether a cell holds a file, which is nothing for `meta`."""
    return isinstance(cell, bytes) or _is_stored(cell) or (isinstance(cell, list) and any(map(_binary, cell)))


def _named(cell: Any) -> str:
    word = cell if isinstance(cell, str) else ""
    return f"{word[:200]}: " if word else ""


def _meta_name(name: str) -> str:
    clean = name.replace("\ufeff", "").strip()
    return clean.removeprefix(META)


def _default_id(images: Sequence[Image], base: Path, where: str) -> str:
    path = images[0].path if images else None
    if path is None:
        return where
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


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
    if not (a.images and b.images) or a.images[0].path is None or len(a.images) + len(b.images) > 2:
        return False
    meta = [{name: word for name, word in row.meta.items() if name not in labels} for row in (a, b)]
    return a.images[0].path == b.images[0].path and (a.id, a.split, a.group, meta[0]) == (b.id, b.split, b.group, meta[1])
