"""Answers that were paid for: kept by several processes at once, and a file that cannot be used is named, never a traceback."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tonggan.backends.api import answers
from tonggan.backends.api.answers import Answers, request_key
from tonggan.types import Answer, TongganError, Usage

ANSWER = Answer("猫", usage=Usage(3, 1), raw={"choices": []}, model="m", request_id="r", seconds=0.5, logprobs=(-0.5,))


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    Answers(tmp_path / "deep" / "answers.db").put("k", ANSWER)
    kept = Answers(tmp_path / "deep" / "answers.db")
    assert kept.get("k") == ANSWER and kept.get("other") is None
    kept.put("k", replace(ANSWER, text="狗"))
    assert kept.get("k") == replace(ANSWER, text="狗")
    several = replace(ANSWER, tokens=("猫",), others=(replace(ANSWER, text="狗", tokens=("狗",)), Answer("")))
    kept.put("k", several)
    assert kept.get("k") == several


def test_every_byte_of_a_request_names_it() -> None:
    names = {
        request_key(model, body)
        for model in ("a", "b")
        for body in ({"x": 1}, {"x": "1"}, {"x": 1, "y": None}, {"x": [{"text": "是"}]}, {"x": [{"text": "否"}]})
    }
    assert len(names) == 10 and request_key("a", {"x": 1, "y": 2}) == request_key("a", {"y": 2, "x": 1})


# The module alone, without the package around it (which imports torch): the processes begin at the same moment.
CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("answers", sys.argv[3])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
answers = module.Answers(sys.argv[1])
for i in range(30):
    answers.put(f"{sys.argv[2]}-{i}", module.Answer(f"{sys.argv[2]} {i}" * 200))
    assert answers.get(f"{sys.argv[2]}-{i}") is not None
"""


def test_comparisons_at_once_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "answers.db"
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(file), name, answers.__file__]) for name in "abcd"]
    assert [child.wait() for child in children] == [0] * 4
    kept = Answers(file)
    assert all(kept.get(f"{name}-{i}") is not None for name in "abcd" for i in range(30))


def test_a_file_that_another_process_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    kept = Answers(tmp_path / "answers.db", patience=0.1)
    kept.put("k", ANSWER)
    other = sqlite3.connect(tmp_path / "answers.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert kept.get("k") == ANSWER, "reading goes on while another writes"
    with pytest.raises(TongganError, match=r"answers\.db: an answer could not be kept \(database is locked\)"):
        kept.put("l", ANSWER)
    other.execute("COMMIT")
    kept.put("l", ANSWER)
    other.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "none.db").write_bytes(b"no database" * 100)
    with pytest.raises(TongganError, match=r"none\.db: kept answers cannot be opened"):
        Answers(tmp_path / "none.db")
    file = tmp_path / "answers.db"
    whole = Answers(file)
    for i in range(200):
        whole.put(f"k{i}", ANSWER)
    whole.close()
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)  # the first page, with the schema, is whole: it opens
    file.write_bytes(data)
    damaged = Answers(file)
    with pytest.raises(TongganError, match=r"answers\.db: kept answers cannot be read .*move the file away"):
        damaged.get("k7")
    with pytest.raises(TongganError, match=r"answers\.db: an answer could not be kept"):
        damaged.put("new", ANSWER)


def test_a_row_of_another_version_is_asked_again(tmp_path: Path) -> None:
    kept = Answers(tmp_path / "answers.db")
    kept.put("k", ANSWER)
    kept._database.execute("""UPDATE answers SET answer = '{"text": "x", "unknown": 1}'""")
    assert kept.get("k") is None


def test_a_full_disk_stops_before_more_is_paid_for(tmp_path: Path) -> None:
    kept = Answers(tmp_path / "answers.db")
    kept.put("k", ANSWER)
    kept._database.execute("PRAGMA max_page_count = 6")
    with pytest.raises(TongganError, match=r"could not be kept .*full.*stopped before more is paid for"):
        kept.put("big", replace(ANSWER, text="x" * 100_000))
    assert kept.get("k") == ANSWER, "what was kept before is whole"
