"""A directory is whole or not there: failures at every moment leave the previous one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tonggan.hub.atomic import RECORD, new_directory, settle
from tonggan.types import TongganError, UsageError


def write(directory: Path, text: str) -> None:
    with new_directory(directory) as new:
        (new / RECORD).write_text("{}")
        (new / "value").write_text(text)


def test_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "a" / "model", "1")
    write(tmp_path / "a" / "model", "2")
    assert (tmp_path / "a" / "model" / "value").read_text() == "2"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_previous(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "model"
    write(target, "1")
    expected = TongganError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught, new_directory(target) as new:
        (new / "value").write_text("half")
        raise failure
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value) and "intact" in str(caught.value)
    assert (target / "value").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_crash_between_the_two_renames_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    write(target, "1")
    real, calls = Path.rename, []

    def rename(self: Path, to: Path) -> Path:
        calls.append(self.name)
        if len(calls) == 2:
            raise KeyboardInterrupt  # the process dies with the old aside and the new not yet in place
        return real(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            write(target, "2")
        assert not target.exists()
    settle(target)
    assert (target / "value").read_text() == "1"
    write(target, "3")
    assert (target / "value").read_text() == "3"


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "half").write_text("x")
    write(tmp_path / "model", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "half").exists()


def test_never_overwrites_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("dear")
    with pytest.raises(UsageError, match="not a checkpoint of ours"):
        write(tmp_path / "holiday", "1")
    assert (tmp_path / "holiday" / "photo.jpg").read_text() == "dear"
