"""Reading delimited text as it comes out of spreadsheets: unknown encoding, unknown separator, quotes that do not close."""

from __future__ import annotations

import csv
import io
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tonggan.types import TongganError

SEPARATORS = ("\t", ",", ";", "|")
_RUNAWAY = 20
"""A quoted cell with more line breaks than this may be a quotation mark that was never closed."""
_NEIGHBOURS = (("cp949", 0xB0, 0xC8, 12), ("cp932", 0x81, 0x98, 4), ("cp950", 0xA1, 0xC6, 4))
"""EUC-KR, Shift-JIS and Big5 as Windows has them; first bytes of their common characters; how many different ones are needed to tell."""


def read_text(path: Path, encoding: str | None = None) -> tuple[str, str]:
    """(text, encoding) of a file: UTF-8 with or without BOM, UTF-16, GB18030, what Windows writes in Taiwan, Japan and Korea, else
    cp1252 (Western Windows).

    A UTF-8 file with a few damaged bytes stays UTF-8; the damage shows as U+FFFD, so that only its lines are lost.
    """
    try:
        data = path.read_bytes()
        if encoding:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
    except OSError as error:
        raise TongganError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, LookupError) as error:
        raise TongganError(f"{path}: not readable as {encoding}: {error}") from None
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(name, errors="replace"), name
    if b"\0" in data[:4000]:  # text has no zero bytes but in UTF-16, where every Latin letter has one
        name = "utf-16-le" if data[1:4000:2].count(0) >= data[0:4000:2].count(0) else "utf-16-be"
        return data.decode(name, errors="replace"), name
    return _guess(data)


def _guess(data: bytes) -> tuple[str, str]:
    try:
        text = data.decode("utf-8")
        return (data.decode("gb18030"), "gb18030") if _accidental(text, data) else (text, "utf-8")
    except UnicodeDecodeError:
        lenient = data.decode("utf-8", errors="replace")
    foreign = sum(character > "\x7f" for character in lenient)
    if lenient.count("\ufffd") * 4 < foreign:  # any other encoding read as UTF-8 is damaged almost everywhere
        return lenient, "utf-8"
    chinese = data.decode("gb18030", errors="replace")  # a damaged byte costs its own line, not the file
    # Western text decodes as GB18030 by accident, into rare characters; Chinese text is mostly of the 6,763 common ones.
    letters = [character for character in chinese if character > "\x7f"]
    common = sum(_in_gb2312(character) for character in letters) / len(letters)
    if found := _neighbour(data, common):
        return found
    return (chinese, "gb18030") if common >= 0.5 else (data.decode("cp1252", errors="replace"), "cp1252")


def _neighbour(data: bytes, chinese: float) -> tuple[str, str] | None:
    """The text in an encoding of China's neighbours, if it is made of their common characters, and more so than of China's.

    `chinese` is the share of those. Korean syllables are all common Chinese characters, but Chinese text of some length is never all
    Korean.
    """
    for encoding, low, high, distinct in _NEIGHBOURS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        letters = Counter(character for character in text if character > "\x7f")
        # A Western accent takes the letter after it along, and so stands among letters: Álbum would be 牓bum.
        alone = Counter("".join(re.findall(r"(?<![A-Za-z])[^\x00-\x7f]+(?![A-Za-z])", text)))
        known = [letter for letter in alone if len(packed := letter.encode(encoding, "ignore")) == 2 and low <= packed[0] <= high]
        common = sum(alone[letter] for letter in known) / letters.total()
        # Big5 and Shift-JIS read as GB18030 are common Chinese characters to two thirds at most, in their own encoding nearly all are.
        if len(letters) >= distinct and common >= (0.95 if encoding == "cp949" else max(0.8, chinese + 0.1)):
            return text, encoding
    return None


def doubtful(text: str, encoding: str) -> bool:
    """Whether text was taken for Western although it has more accents than any Western language: in truth it may be anything."""
    letters = [character for character in text if character.isalpha()]
    return encoding == "cp1252" and sum(character > "\x7f" for character in letters) > 0.3 * len(letters)


def _accidental(text: str, data: bytes) -> bool:
    """Whether short Chinese text is UTF-8 by accident: `一只猫` in GB18030 reads as a Cyrillic, a Hebrew and a Latin letter.

    Real words are of one script.
    """
    words = re.findall(r"[^\x00-\x7f]+", text)
    if not any(len({_script(letter) for letter in word if letter.isalpha() or unicodedata.combining(letter)}) > 1 for word in words):
        return False
    try:
        data.decode("gb2312")
    except UnicodeDecodeError:
        return False
    return True


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0]


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def separator(text: str) -> str:
    """The separator that cuts the first records into the same number of cells, the most of them."""
    head = "".join(text.splitlines(keepends=True)[:50])
    best, best_score = ",", (0.0, 0)
    for candidate in SEPARATORS:
        records = list(_parse(head, candidate, csv.QUOTE_MINIMAL))
        widths = Counter(len(cells) for _, cells in records)
        if not records or len(records[0][1]) < 2:
            continue
        width = len(records[0][1])
        score = (widths[width] / len(records), width)
        if score[0] >= 0.5 and (score[0] > best_score[0] + 0.2 or (score > best_score and score[0] >= best_score[0] - 0.2)):
            best, best_score = candidate, score
    return best


def records(text: str, by: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each record; blank lines are left out.

    Cells may hold line breaks in quotes. A quotation mark that swallows the lines after it is read as a plain character.
    """
    quoting = csv.QUOTE_MINIMAL
    width = 0
    for _, cells in _parse(text, by, quoting):
        width = width or len(cells)
        if any(_swallows(cell, by, width) for cell in cells):
            quoting = csv.QUOTE_NONE
            break
    return _parse(text, by, quoting)


def _swallows(cell: str, by: str, width: int) -> bool:
    """Whether a long cell is made of further records: most of its lines have as many separators as the table has."""
    inside = cell.split("\n")[1:]
    return len(inside) > _RUNAWAY and 2 * sum(line.count(by) >= width - 1 for line in inside if line.strip()) > len(inside)


def _parse(text: str, by: str, quoting: int) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(sys.maxsize)  # pictures may be cells, in base64
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=by, quoting=quoting)  # type: ignore[arg-type]
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise TongganError(f"line {start}: not readable as a table: {error}") from None
