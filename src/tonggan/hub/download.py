"""Models by their name on a hub, fetched into the user's cache: `hf:ID[@REVISION]` (Hugging Face), `ms:ID[@REVISION]` (ModelScope).

A directory is given out only when every file of it is there and fits the checksum that the hub states: an interrupted download
is continued or refused, never opened.
"""

from __future__ import annotations

import re
from pathlib import Path

from tonggan.hub import hugging_face, modelscope
from tonggan.types import UsageError

PREFIXES = ("hf:", "ms:")


def is_remote(name: str | Path) -> bool:
    """Whether a name is that of a model on a hub."""
    return isinstance(name, str) and name.startswith(PREFIXES)


def fetch(name: str) -> Path:
    """The directory of `hf:ID[@REVISION]` or `ms:ID[@REVISION]`, downloaded unless it is in the cache already.

    Honours `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, and `MODELSCOPE_ENDPOINT`, `MODELSCOPE_CACHE`. Where
    the hub cannot be reached the cached directory is taken, with a warning. Raises `TongganError` that says what failed and the
    ways round it: a mirror, or a directory downloaded elsewhere.
    """
    match = re.fullmatch(r"(hf|ms):(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(\w[\w./-]*))?", name)
    if not match or ".." in name or (match[1] == "ms" and "/" not in match[2]):
        raise UsageError(f"{name!r}: a model on a hub is written hf:OWNER/NAME or ms:OWNER/NAME, perhaps with @REVISION behind it")
    hub, model, revision = match.groups()
    return hugging_face.fetch(model, revision or "main") if hub == "hf" else modelscope.fetch(model, revision or "master")
