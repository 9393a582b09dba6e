"""Models by their name on a hub, fetched into the user's cache: `hf:ID[@REVISION]` (Hugging Face), `ms:ID[@REVISION]` (ModelScope).

Only the files that are read are fetched: configuration, tokenizer, weights; never a pickle where there are safetensors, never code.
A directory is given out only when every file of it is there and fits the checksum that the hub states: an interrupted download
is continued or refused, it is never opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tonggan.hub import modelscope
from tonggan.hub.weights import read_json, write_json
from tonggan.types import MissingExtra, TongganError, UsageError

log = logging.getLogger("tonggan")

PREFIXES = ("hf:", "ms:")
WEIGHTS = (
    ("model.safetensors", r"model-\d+-of-\d+\.safetensors"),
    ("adapter_model.safetensors", None),
    ("pytorch_model.bin", r"pytorch_model-\d+-of-\d+\.bin"),
)
"""Weights by preference, as one file or as shards beside an `.index.json`: the first that a directory has is fetched, no other."""
BESIDE = re.compile(r"(?!.*\.index\.json$).+\.(json|jinja|model)|vocab\.txt|merges\.txt")
"""Configuration, templates, sentencepiece models and vocabularies."""
MODULE = re.compile(r"\d+_\w+")
"""Directories inside one that belong to the model: `1_Pooling`."""
HF_ENDPOINT = "https://huggingface.co"


def is_remote(name: str | Path) -> bool:
    """Whether a name is that of a model on a hub."""
    return isinstance(name, str) and name.startswith(PREFIXES)


def fetch(name: str) -> Path:
    """The directory of `hf:ID[@REVISION]` or `ms:ID[@REVISION]`, downloaded unless it is in the cache already.

    Honours `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, and `MODELSCOPE_ENDPOINT`, `MODELSCOPE_CACHE`. Where
    the hub cannot be reached the cached directory is taken, with a warning. Raises `TongganError` that says what failed and the ways round.
    """
    match = re.fullmatch(r"(hf|ms):([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", name)
    if not match or ".." in name:
        raise UsageError(f"{name!r}: a model on a hub is written hf:OWNER/NAME or ms:OWNER/NAME, perhaps with @REVISION behind it")
    hub, model, revision = match.groups()
    if hub == "hf":
        return _hugging_face(model, revision or "main")
    return modelscope.fetch(model, revision or "master", wanted)


def wanted(files: Iterable[str], where: str) -> list[str]:
    """Those of a repository's files that are read; raises `TongganError` when they are no model."""
    names = sorted(files)
    if not {"config.json", "adapter_config.json"} & set(names):
        raise TongganError(f"{where}: not a model's directory, it has no config.json; it has: {_some(names)}")
    chosen: list[str] = []
    for directory in ["", *sorted({f"{name.split('/')[0]}/" for name in names if "/" in name and MODULE.fullmatch(name.split("/")[0])})]:
        here = [name.removeprefix(directory) for name in names if name.startswith(directory)]
        chosen += [directory + name for name in here if "/" not in name and BESIDE.fullmatch(name)]
        chosen += [directory + name for name in _weights(here)]
    if not _weights(names):
        raise TongganError(f"{where}: no weights that are read here ({', '.join(whole for whole, _ in WEIGHTS)}); it has: {_some(names)}")
    return chosen


def _weights(names: list[str]) -> list[str]:
    for whole, shard in WEIGHTS:
        if whole in names:
            return [whole]
        if shard and f"{whole}.index.json" in names:
            return [f"{whole}.index.json", *(name for name in names if re.fullmatch(shard, name))]
    return []


# ---------------------------------------------------------------------------------------- Hugging Face


def _hugging_face(model: str, revision: str) -> Path:
    """Through the library's own cache, which other programs share; what was wanted of a commit is noted in it, with checksums."""
    cache = _hf_cache() / f"models--{model.replace('/', '--')}"
    if _is_true("HF_HUB_OFFLINE") or _is_true("TRANSFORMERS_OFFLINE"):
        return _cached(cache, model, revision, "HF_HUB_OFFLINE is set")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtra(f"fetching hf:{model}", "hf") from None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        info = huggingface_hub.HfApi(endpoint=endpoint).model_info(model, revision=revision, files_metadata=True)
        files = {item.rfilename: item.lfs.sha256 if item.lfs else None for item in info.siblings or ()}
        names = wanted(files, f"hf:{model}")
        note = cache / "tonggan" / f"{info.sha}.json"
        if not note.is_file():
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"files": {name: files[name] for name in names}, "checked": False})
        found = huggingface_hub.snapshot_download(
            model, revision=revision, cache_dir=str(cache.parent), endpoint=endpoint, allow_patterns=names
        )
    except (TongganError, KeyboardInterrupt):
        raise
    except errors.GatedRepoError:
        raise TongganError(f"hf:{model}: access is gated: ask for it on the model's page, then set HF_TOKEN. {_ways()}") from None
    except errors.RepositoryNotFoundError:
        raise TongganError(f"hf:{model}: no such model there, or a private one (then set HF_TOKEN). {_ways()}") from None
    except errors.RevisionNotFoundError:
        raise TongganError(f"hf:{model}: it has no revision {revision!r}. {_ways()}") from None
    except Exception as error:  # of the library, or of whichever HTTP client its version uses
        return _cached(cache, model, revision, f"the download failed: {_first_line(error)}")
    return _whole(Path(found), cache, f"hf:{model}", revision)


def _cached(cache: Path, model: str, revision: str, why: str) -> Path:
    """The directory of an earlier download."""
    ref = cache / "refs" / revision
    snapshot = cache / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    if not snapshot.is_dir():
        raise TongganError(f"hf:{model}@{revision}: {why}, and it is not in the cache ({cache.parent}). {_ways()}")
    found = _whole(snapshot, cache, f"hf:{model}", revision, why)
    log.warning("hf:%s: %s; taken from the cache (commit %s)", model, why, snapshot.name[:12])
    return found


def _whole(snapshot: Path, cache: Path, where: str, revision: str, why: str = "") -> Path:
    """`snapshot` if every file that was wanted is there with its checksum; those are compared once, after the download."""
    note = cache / "tonggan" / f"{snapshot.name}.json"
    if not note.is_file():
        log.warning("%s: fetched by another program; that it is complete cannot be told", where)
        return snapshot
    said = read_json(note)
    files: Mapping[str, Any] = said["files"]
    missing = [name for name in files if not (snapshot / name).is_file()]
    if missing:
        begun = f"{why}, and the" if why else "the"
        raise TongganError(f"{where}@{revision}: {begun} copy in the cache lacks {_some(missing)}: it was interrupted. {_ways()}")
    if not said["checked"]:
        for name, expected in files.items():
            if expected and (found := modelscope.sha256(snapshot / name)) != expected:
                (snapshot / name).resolve().unlink()
                (snapshot / name).unlink(missing_ok=True)
                raise TongganError(f"{where}: {name} arrived damaged (sha256 {found[:12]}…, the hub says {expected[:12]}…). {_ways()}")
        write_json(note, {**said, "checked": True})
    return snapshot


def _hf_cache() -> Path:
    """As the library finds it, but at the time of the call."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")).expanduser()


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _ways() -> str:
    address = os.environ.get("HF_ENDPOINT") or HF_ENDPOINT
    return f"Another hub or a mirror of one's own: set HF_ENDPOINT (now {address}). Without a network: fetch the files elsewhere, give their directory"
