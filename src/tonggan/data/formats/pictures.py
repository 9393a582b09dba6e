"""Cells that hold or name pictures: paths, addresses, data URIs, base64, bytes, and Hugging Face's `{"bytes", "path"}`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tonggan.data.formats.base import Finder, Reading
from tonggan.data.formats.cells import EXCEL_CELL, as_text
from tonggan.data.formats.questions import listed
from tonggan.data.media import is_picture_name, load_image, sniff
from tonggan.data.resolve import decode_base64
from tonggan.types import Image, MediaError

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_CUT = f"its base64 is cut off at {EXCEL_CELL:,} characters, which is all that a cell of Excel holds"


def is_stored_picture(cell: Any) -> bool:
    """Hugging Face's `{"bytes", "path"}`, or a list of them; its sounds are kept in the same way."""
    if isinstance(cell, list):
        return bool(cell) and all(map(is_stored_picture, cell))
    if not is_stored(cell):
        return False
    return sniff(cell["bytes"][:1024]) is not None if cell["bytes"] else is_picture_name(cell.get("path") or "")


def is_stored(cell: Any) -> bool:
    return isinstance(cell, dict) and "bytes" in cell and cell.keys() <= {"bytes", "path"}


def named_pictures(cells: Mapping[str, Any], columns: Sequence[str], *, optional: bool) -> list[Any]:
    """The pictures that a record names, one after the other; a further column may be empty. `optional`: the record asks a question, which
    needs none, and may list several in one cell of text."""
    named = [cells.get(name) for name in columns]
    if optional:
        named = [_listed(cell) for cell in named]
    flat = [one for cell in named for one in (cell if isinstance(cell, list | tuple) else [cell])]
    if optional:
        return [one for one in flat if not _is_empty(one)]
    return [one for one in flat if one is not None] or ([None] if columns else [])


def _listed(cell: Any) -> Any:
    """Several pictures in one cell of text, as VLMEvalKit writes them: `['/9j/…', '/9j/…']`."""
    if isinstance(cell, str):
        text = cell.strip()
        return listed(text) if text[:1] == "[" and text[-1:] == "]" else text
    return cell


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return not (cell.get("bytes") or cell.get("path") or cell.get("url"))
    return not cell if isinstance(cell, bytes) else as_text(cell) is None


def pictures(cells: Sequence[Any], finder: Finder, where: str, job: Reading, *, whole: bool) -> tuple[Image, ...] | None:
    """The pictures of a record; a missing one is reported, and a row that loses all of them is None. `whole`: so is one that loses any,
    for a question without its second picture is another question."""
    found: list[Image] = []
    reasons: list[str] = []
    for one in cells:
        image = picture_of(one, finder)
        if isinstance(image, Image):
            found.append(image)
        else:
            by_id = whole and isinstance(one, str) and one.isdigit()
            reasons.append(f"{image}, and no row of this id holds a picture" if by_id else image)
    for reason in reasons:
        job.drop(where, reason if not found else f"one of {len(cells)} pictures: {reason}")
    return None if reasons and (whole or not found) else tuple(found)


def picture_of(cell: Any, finder: Finder) -> Image | str:
    """A cell as a picture, or the reason why it is none. Paths, addresses, data URIs, base64, bytes, `{"bytes", "path"}`."""
    if isinstance(cell, Mapping):
        data, path = cell.get("bytes"), cell.get("path") or cell.get("url")
        return Image(data=bytes(data)) if data else picture_of(path, finder)
    if isinstance(cell, bytes):
        return Image(data=cell) if cell else "empty picture"
    word = as_text(cell)
    if not word:
        return "no picture named"
    if word[:5].lower() == "data:" or re.match(r"https?://", word, re.IGNORECASE):
        return Image(url=word)
    held = _base64_picture(word) if len(word) > 200 and _BASE64.fullmatch(word) else None
    if isinstance(held, Image):
        return held
    if len(word) > 4000:
        return held or (_CUT if len(word) == EXCEL_CELL else "neither a path nor a picture in base64")
    found = finder.find(word)  # a path may be long, too
    return Image(path=found) if isinstance(found, Path) else held or f"{word[:200]}: {found}"


def digest(image: Image) -> str | None:
    """Equal for rows that embed the same picture, as bytes or as the same text of a data URI; None for a file or an address, which has a
    name. All of it counts: drawings on white begin alike."""
    held = image.data
    if image.url is not None and image.url[:5].lower() == "data:":
        held = image.url.encode(errors="replace")
    return None if held is None else f"picture-{hashlib.blake2b(held, digest_size=8).hexdigest()}"


def _base64_picture(word: str) -> Image | str:
    """The picture, or what is wrong with it: a cell of Excel cuts base64 off, and what is left often still begins as a picture."""
    try:
        data = decode_base64(word)
    except ValueError:
        return _CUT if len(word) == EXCEL_CELL else "its base64 is damaged (cut off?)"
    if sniff(data[:1024]) is None:
        return "its base64 holds no picture"
    image = Image(data=data)
    if (data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-1024:]) or (data[:4] == b"\x89PNG" and b"IEND" not in data[-1024:]):
        try:
            load_image(image)  # its end is not there, or is followed by something else
        except MediaError as error:
            return _CUT if len(word) == EXCEL_CELL else f"{error.reason} (its base64 is cut off?)"
    return image
