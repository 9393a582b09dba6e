"""The typefaces of the pages: printed Chinese and English by pip, Chinese handwriting by npm, all under the SIL Open Font License."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zlib
from functools import cache
from pathlib import Path

from PIL import ImageFont

from tonggan.data.sources import clients
from tonggan.data.sources.base import cache_home
from tonggan.types import TongganError

PIP = ("pylopdf-fonts-zh-cn", "pylopdf-fonts-zh-tw", "fontpkg-caveat", "fontpkg-kalam")
NPM = ("@fontsource/ma-shan-zheng@5.3.1", "@fontsource/long-cang@5.3.0")

_FILES = {
    "sans": ("pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf"),
    "serif": ("pylopdf_fonts_zh_cn", "NotoSerifSC-Regular.otf"),
    "sans-hant": ("pylopdf_fonts_zh_tw", "NotoSansTC-Regular.otf"),
    "serif-hant": ("pylopdf_fonts_zh_tw", "NotoSerifTC-Regular.otf"),
    "caveat": ("fontpkg_caveat", "files/Caveat[wght].ttf"),
    "kalam": ("fontpkg_kalam", "files/Kalam-Regular.ttf"),
}
_ARCHIVES = {
    "brush": ("fontsource-ma-shan-zheng-5.3.1.tgz", "package/files/ma-shan-zheng-chinese-simplified-400-normal.woff2"),
    "pen": ("fontsource-long-cang-5.3.0.tgz", "package/files/long-cang-chinese-simplified-400-normal.woff2"),
}
FACES = (*_FILES, *_ARCHIVES)
"""Names of all typefaces: four printed, two English hands (`caveat`, `kalam`), two Chinese ones (`brush`, `pen`)."""

_FALLBACK = {"pen": "brush", "brush": "serif", "caveat": "kalam", "kalam": "sans"}
_MISSING = "\U000fffff"
"""A code point without a character: what a typeface shows for it is what it shows for a character it does not have."""


def home() -> Path:
    """Where npm's archives are kept, as `npm pack` leaves them."""
    return cache_home() / "pages"


def printed() -> bool:
    """Whether the typefaces that come by pip are here."""
    return all(importlib.util.find_spec(package) for package, _ in _FILES.values())


def handwritten() -> bool:
    """Whether the Chinese hands that come by npm are here."""
    return all((home() / archive).is_file() for archive, _ in _ARCHIVES.values())


def pip_line() -> str:
    """What gets the printed typefaces."""
    return f"pip install {' '.join(PIP)}"


def npm_line() -> str:
    """What gets the Chinese hands."""
    return clients.npm_line(NPM, home())


@cache
def font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """A typeface at a size in pixels. Raises `TongganError` when its file is damaged or this Pillow cannot read it."""
    try:
        if face in _FILES:
            package, name = _FILES[face]
            found = importlib.util.find_spec(package)
            assert found is not None and found.submodule_search_locations
            file: str | io.BytesIO = str(Path(found.submodule_search_locations[0]) / name)
        else:
            file = io.BytesIO(_unpacked(face))
        # The basic layout needs no further library, so that a page is the same on every machine.
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise TongganError(f"the typeface {face} cannot be read ({error}); get it again: {_line(face)}") from None


@cache
def _unpacked(face: str) -> bytes:
    archive, member = _ARCHIVES[face]
    try:
        with tarfile.open(home() / archive) as tar:
            content = tar.extractfile(member)
            assert content is not None
            return content.read()
    except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        raise TongganError(f"{home() / archive} cannot be unpacked ({error}); delete it and get it again: {_line(face)}") from None


def _line(face: str) -> str:
    return pip_line() if face in _FILES else npm_line()


def covers(face: str, text: str) -> bool:
    """Whether a typeface has every character of a text."""
    return all(character.isspace() or _has(face, character) for character in text)


@cache
def _has(face: str, character: str) -> bool:
    shape, missing = (font(face, 24).getmask(one) for one in (character, _MISSING))
    return shape.getbbox() is not None and (shape.size, bytes(shape)) != (missing.size, bytes(missing))


def fitting(face: str, text: str) -> str:
    """This typeface, or the next like it that has every character of the text."""
    while face in _FALLBACK and not covers(face, text):
        face = _FALLBACK[face]
    return face
