"""Answers that were paid for are kept: one row per (model, request) in a small database that survives `kill -9`."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tonggan.types import Answer, TongganError, Usage


def request_key(model: str, body: dict[str, Any]) -> str:
    """Names a request: the endpoint and model, and every byte that would be sent."""
    return hashlib.sha256(f"{model}\0{json.dumps(body, sort_keys=True, ensure_ascii=False)}".encode()).hexdigest()


class Answers:
    """Whole answers by request. Errors are not kept: they are asked again.

    An answer is on the disk before `put` returns. Several processes may use one file; `patience` is for how many seconds one waits
    for another's lock.
    """

    def __init__(self, file: str | Path, *, patience: float = 30.0) -> None:
        self.file = Path(file)
        self._lock = threading.Lock()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.file, timeout=patience, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise TongganError(f"{self.file}: kept answers cannot be opened ({error}); move the file away or name another") from None

    def get(self, key: str) -> Answer | None:
        """The kept answer, None when there is none. Raises `TongganError` when the file is damaged or another process holds it."""
        try:
            with self._lock:
                row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise TongganError(f"{self.file}: kept answers cannot be read ({error}); move the file away or name another") from None
        if row is None:
            return None
        try:
            return _answer(json.loads(row[0]))
        except (ValueError, TypeError, KeyError):
            return None  # written by another version: ask again

    def put(self, key: str, answer: Answer) -> None:
        """Keep a whole answer."""
        text = json.dumps(asdict(answer), ensure_ascii=False)
        try:
            with self._lock:
                self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise TongganError(f"{self.file}: an answer could not be kept ({error}); stopped before more is paid for") from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _answer(plain: dict[str, Any]) -> Answer:
    """As `asdict` wrote it."""
    lists = {name: tuple(plain[name]) for name in ("logprobs", "tokens") if plain.get(name) is not None}
    others = tuple(_answer(one) for one in plain.get("others") or ())
    return Answer(**{**plain, **lists, "usage": Usage(**plain["usage"]), "others": others})
