"""Directories from the Hugging Face hub or a mirror of it, in the cache that its own library keeps and other programs share.

The library writes file by file into the directory that it gives out. So what was wanted of a commit is noted beside it, with
checksums: that note tells a whole directory from an interrupted one, and it can be asked without a network.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tonggan.hub.listing import sha256, some, wanted
from tonggan.hub.weights import read_json, write_json
from tonggan.types import MissingExtra, TongganError

log = logging.getLogger("tonggan")


def fetch(model: str, revision: str) -> Path:
    """The directory of one commit; see `download.fetch`."""
    where, cache = f"hf:{model}@{revision}", _cache() / f"models--{model.replace('/', '--')}"
    if _is_true("HF_HUB_OFFLINE") or _is_true("TRANSFORMERS_OFFLINE"):
        return _cached(cache, where, revision, "HF_HUB_OFFLINE is set")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtra(f"fetching {where}", "hf") from None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        info = huggingface_hub.HfApi(endpoint=endpoint).model_info(model, revision=revision, files_metadata=True)
        sums = {item.rfilename: item.lfs.sha256 if item.lfs else None for item in info.siblings or ()}
        names = wanted(sums, where)
        note = cache / "tonggan" / f"{info.sha}.json"
        if not note.is_file():
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"files": {name: sums[name] for name in names}, "checked": False})
        found = huggingface_hub.snapshot_download(model, revision=revision, cache_dir=cache.parent, endpoint=endpoint, allow_patterns=names)
    except TongganError:
        raise
    except errors.GatedRepoError:
        raise TongganError(f"{where}: access is gated: ask for it on the model's page, then set HF_TOKEN. {_ways()}") from None
    except errors.RepositoryNotFoundError:
        raise TongganError(f"{where}: no such model there, or a private one (then set HF_TOKEN). {_ways()}") from None
    except errors.RevisionNotFoundError:
        raise TongganError(f"{where}: the model has no such revision. {_ways()}") from None
    except Exception as error:  # of the library, or of whichever HTTP client its version uses
        return _cached(cache, where, revision, f"the download failed ({_first_line(error)})")
    return _whole(Path(found), cache, where)


def _cached(cache: Path, where: str, revision: str, why: str) -> Path:
    """The directory of an earlier download."""
    ref = cache / "refs" / revision
    snapshot = cache / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    if not snapshot.is_dir():
        raise TongganError(f"{where}: {why}, and {cache.parent} has no copy. {_ways()}")
    found = _whole(snapshot, cache, where, f"{why}, and ")
    log.warning("%s: %s; taken from the cache, commit %s", where, why, snapshot.name[:12])
    return found


def _whole(snapshot: Path, cache: Path, where: str, why: str = "") -> Path:
    """`snapshot` if every file that was wanted is there with its checksum; those are compared once, after the download."""
    note = cache / "tonggan" / f"{snapshot.name}.json"
    if not note.is_file():
        log.warning("%s: fetched by another program; whether it is complete cannot be told", where)
        return snapshot
    said = read_json(note)
    missing = [name for name in said["files"] if not (snapshot / name).is_file()]
    if missing:
        raise TongganError(f"{where}: {why}the download was interrupted: the copy in the cache lacks {some(missing)}. {_ways()}")
    if not said["checked"]:
        for name, expected in said["files"].items():
            _check(snapshot / name, expected, where)
        write_json(note, {**said, "checked": True})
    return snapshot


def _check(file: Path, expected: str | None, where: str) -> None:
    """Remove what is damaged, so that the next call fetches it again."""
    if expected is None or (found := sha256(file)) == expected:
        return
    file.resolve().unlink()  # the link's target, which the library keeps apart
    file.unlink(missing_ok=True)
    raise TongganError(f"{where}: {file.name} arrived damaged: its sha256 is {found}, the hub's {expected}; it was removed. {_ways()}")


def _cache() -> Path:
    """Where the library keeps its files, by the environment at the time of the call."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub").expanduser().absolute()


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _ways() -> str:
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"The hub is {address}; for a mirror set HF_ENDPOINT. Or download the files elsewhere and give their directory"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}".rstrip(": ")
