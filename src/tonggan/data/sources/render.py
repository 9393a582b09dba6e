"""Pictures of a source, decoded or rendered once and kept in the cache as small PNG files.

Drawings go through resvg (no scripts, no network), everything else through `data.media`; both end on white, in RGB,
with their proportions kept. A file's name carries a fingerprint of its original, so a newer package is rendered anew.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from rich.console import Console
from rich.progress import track

from tonggan.data.drawing import draw
from tonggan.data.media import load_image
from tonggan.data.sources.base import cache_home
from tonggan.types import Dropped, Image, MediaError


@dataclass(frozen=True, slots=True)
class Rendered:
    """Where each picture is now, and which could not be drawn."""

    paths: Mapping[str, Path]
    dropped: tuple[Dropped, ...]


def render(originals: Mapping[str, Path], folder: str, size: int) -> Rendered:
    """PNG files that fit into `size` x `size` pixels, in `<cache>/pictures/<folder>/<size>/`, by key of `originals`.

    Only what is not there yet is drawn, on all processors (both decoders let Python's lock go). Safe to interrupt and to
    run twice at once: a file appears whole or not at all.
    """
    directory = cache_home() / "pictures" / folder / str(size)
    directory.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in os.scandir(directory)}
    targets = {key: directory / f"{key.replace('/', '_')}.{_fingerprint(path)}.png" for key, path in originals.items()}
    todo = [key for key, target in targets.items() if target.name not in present]
    dropped: list[Dropped] = []

    def keep(key: str) -> None:
        try:
            picture = draw_svg(originals[key], size) if originals[key].suffix in (".svg", ".svgz") else _shrink(originals[key], size)
            _check_visible(picture, originals[key])
        except MediaError as error:
            dropped.append(Dropped(str(originals[key]), error.reason))
            return
        _write_whole(picture, targets[key])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        _watch(pool.map(keep, todo), len(todo), f"drawing {folder}")
    failed = {one.where for one in dropped}
    paths = {key: target for key, target in targets.items() if str(originals[key]) not in failed}
    return Rendered(paths, tuple(sorted(dropped, key=lambda one: one.where)))


def draw_svg(path: Path, size: int) -> PIL.Image.Image:
    """A drawing on white, its longer side `size` pixels; raises `MediaError` when it is damaged, `MissingExtra` without resvg-py."""
    try:
        # Finding the system's fonts takes longer than drawing; few drawings hold text.
        fontless = path.suffix == ".svg" and not holds_text(path)
    except OSError as error:
        raise MediaError(str(path), error.strerror or "cannot be read") from None
    # Without dpi, a drawing measured in points or millimetres would have no size at all.
    file = str(path.absolute())
    png = draw(str(path), svg_path=file, width=size, height=size, dpi=96, background="white", skip_system_fonts=fontless)
    return PIL.Image.open(io.BytesIO(png)).convert("RGB")


def holds_text(path: Path) -> bool:
    """Whether an uncompressed drawing has letters to be set in some font."""
    return b"<text" in path.read_bytes()


def picture_hash(path: Path) -> str:
    """Sixteen characters that name the pixels of a rendered picture: equal for equal pictures."""
    with PIL.Image.open(path) as picture:
        return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()[:16]


def _shrink(path: Path, size: int) -> PIL.Image.Image:
    picture = load_image(Image(path=path))
    picture.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    return picture


def _check_visible(picture: PIL.Image.Image, path: Path) -> None:
    """A white drawing without a ground is nothing but white here."""
    if picture.getcolors(maxcolors=1) == [(picture.width * picture.height, (255, 255, 255))]:
        raise MediaError(str(path), "nothing to be seen on white")


def _fingerprint(path: Path) -> str:
    found = path.stat()
    return hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:8]


def _write_whole(picture: PIL.Image.Image, target: Path) -> None:
    """Under another name first: an interrupted run leaves no half picture behind."""
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    picture.save(unfinished, "PNG")
    unfinished.replace(target)


def _watch(work: Iterable[None], total: int, what: str) -> None:
    """Run through `work`; a bar on standard error when a person is looking and it takes a while."""
    console = Console(stderr=True)
    bar = console.is_terminal and total >= 100
    for _ in track(work, what, total=total, console=console, transient=True) if bar else work:
        pass
