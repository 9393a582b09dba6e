"""Directories from ModelScope, by its two HTTP addresses: the list of a model's files, and one file.

Files grow in a directory of their own, are checked, and only when all are there is that directory renamed to the place from which
models are opened. What was fetched is named after its listing, so a model that did not change is not fetched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlencode

from rich.console import Console
from rich.progress import Progress

from tonggan.hub.listing import sha256, wanted
from tonggan.types import TongganError

log = logging.getLogger("tonggan")

TIMEOUT = 30.0
"""Seconds without a byte."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    sha256: str | None


def fetch(model: str, revision: str) -> Path:
    """The directory of one revision; see `download.fetch`."""
    where, cache = f"ms:{model}@{revision}", _cache() / model.replace("/", "--")
    ref = cache / "refs" / quote(revision, safe="")
    try:
        files = _listing(model, revision, where)
        snapshot = cache / "snapshots" / hashlib.sha256(repr(files).encode()).hexdigest()[:40]
        if not snapshot.is_dir():
            with _alone(cache):
                _download(model, revision, files, snapshot, where)
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(snapshot.name)
        return snapshot
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise TongganError(f"{where}: {_refusal(error)}. {_ways()}") from None
        why = f"the hub failed (HTTP {error.code})"
    except (OSError, http.client.HTTPException) as error:  # no network, no such host, a cut connection
        why = f"the download failed ({getattr(error, 'reason', None) or error})"
    if ref.is_file() and (snapshot := cache / "snapshots" / ref.read_text()).is_dir():
        log.warning("%s: %s; taken from the cache", where, why)
        return snapshot
    raise TongganError(f"{where}: {why}, and {cache.parent} has no copy. {_ways()}")


def _listing(model: str, revision: str, where: str) -> list[_File]:
    """The files that are wanted, with what the hub says of them."""
    with _open(f"{_address(model)}/files?{urlencode({'Revision': revision, 'Recursive': 'true'})}") as reply:
        try:
            found = [entry for entry in json.load(reply)["Data"]["Files"] if entry["Type"] == "blob"]
            files = {entry["Path"]: _File(entry["Path"], int(entry["Size"]), entry.get("Sha256") or None) for entry in found}
        except (ValueError, KeyError, TypeError):
            raise TongganError(f"{where}: the reply is not ModelScope's list of files. {_ways()}") from None
    return [files[name] for name in wanted(files, where)]


def _download(model: str, revision: str, files: list[_File], snapshot: Path, where: str) -> None:
    """Fetch what is missing, then move all of it to its place at once."""
    if snapshot.is_dir():  # another process was faster
        return
    growing = snapshot.parent.with_name("growing") / snapshot.name
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as progress:
        task = progress.add_task(where, total=sum(file.size for file in files))
        for file in files:
            target = growing / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            url = f"{_address(model)}?{urlencode({'Revision': revision, 'FilePath': file.name})}"
            for count in _grow(url, target, file.size):
                progress.advance(task, count)
            _check(target, file, where)
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    growing.rename(snapshot)


def _grow(url: str, target: Path, size: int) -> Iterator[int]:
    """Append to a file until it is whole, asking again for the rest as long as every answer brings some of it."""
    have = target.stat().st_size if target.exists() else 0
    yield have
    while have < size or not target.exists():
        before = have
        with _open(url, start=have) as reply, target.open("ab") as out:
            if reply.status != http.HTTPStatus.PARTIAL_CONTENT:  # it sends the file from its beginning
                out.truncate(0)
                yield -have
                have = 0
            for chunk in _chunks(reply):
                out.write(chunk)
                have += len(chunk)
                yield len(chunk)
        if have <= before and have < size:
            raise ConnectionError(f"{target.name} was cut off after {have:,} of {size:,} bytes")


def _chunks(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := reply.read(CHUNK):
            yield chunk
    except (http.client.IncompleteRead, ConnectionError):
        return  # what came is kept


def _check(target: Path, file: _File, where: str) -> None:
    """Remove what is damaged, so that the next call fetches it again."""
    if target.stat().st_size != file.size:
        found, expected = f"it has {target.stat().st_size:,} bytes", f"{file.size:,}"
    elif file.sha256 and (actual := sha256(target)) != file.sha256:
        found, expected = f"its sha256 is {actual}", file.sha256
    else:
        return
    target.unlink()
    raise TongganError(f"{where}: {file.name} arrived damaged: {found}, the hub's {expected}; it was removed. {_ways()}")


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
    headers = {"User-Agent": "tonggan", **({"Range": f"bytes={start}-"} if start else {})}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


@contextmanager
def _alone(cache: Path) -> Iterator[IO[str]]:
    """Two processes that fetch one model would write into the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403):
        return f"access is refused (HTTP {error.code}): gated or private. Fetch it with ModelScope's own client and give the directory"
    return "no such model or revision there" if error.code == 404 else f"the hub refuses (HTTP {error.code} {error.reason})"


def _address(model: str) -> str:
    return f"{_endpoint()}/api/v1/models/{model}/repo"


def _endpoint() -> str:
    given = os.environ.get("MODELSCOPE_ENDPOINT") or "https://www.modelscope.cn"
    return (given if "://" in given else f"https://{given}").rstrip("/")


def _cache() -> Path:
    """A room of our own in ModelScope's cache: its client writes file by file into the directory that it gives out."""
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser().absolute() / "tonggan"


def _ways() -> str:
    return f"The hub is {_endpoint()}; for another set MODELSCOPE_ENDPOINT. Or download the files elsewhere and give their directory"
