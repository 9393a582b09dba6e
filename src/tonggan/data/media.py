"""Pictures out of handles: one function that turns whatever people send into plain RGB, or says in a clause why it cannot.
What is common to all media is here too; `data.resolve` follows addresses, `data.audio` and `data.video` decode sounds and clips.

What is done to every picture, in this order: decode the first frame, turn it upright (EXIF), bring it to 8 bits, lay
transparency on white, convert to RGB. Colour profiles are not applied and CMYK is converted plainly, as the original CLIP
preprocessing does: the models to be matched have seen pictures so.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias
from xml.parsers import expat

import numpy as np
import PIL.Image
import PIL.ImageOps

from tonggan.data.drawing import draw
from tonggan.data.resolve import MAX_BYTES, parse_data_uri
from tonggan.types import Image, Media, MediaError, MissingExtra, Video

Decode = Literal["exact", "fast"]
Transparency: TypeAlias = Literal["white", "ignore"]

MAX_PIXELS = 89_478_485
"""More pixels than this (a 9,000 x 9,900 picture) is taken for a decompression bomb. Pillow itself refuses twice as many."""
SVG_SIZE = 512
"""Drawings have no pixels of their own: they are rendered with their longer side this long."""

PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".svgz",
    ".ppm", ".pgm", ".jp2", ".ico",
})  # fmt: skip

_EXIF_ORIENTATION = 0x0112
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What Pillow's parsers raise on damaged files, found by fuzzing them: they trust lengths and offsets.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError, RuntimeError,
    AttributeError, MemoryError, zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip

# Pillow warns about large pictures on standard error; here they are an error of their own, with the limit in it.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged metadata of pictures that are whole


def load_image(
    image: Image | PIL.Image.Image,
    *,
    decode: Decode = "exact",
    size_hint: int | None = None,
    max_pixels: int = MAX_PIXELS,
    transparency: Transparency = "white",
) -> PIL.Image.Image:
    """The first frame of a picture, upright, 8-bit RGB. Transparent parts become white, or, with `transparency="ignore"`,
    whatever colour is stored beneath them (what `convert("RGB")` does in others' preprocessing).

    `decode="fast"` lets the JPEG decoder shrink by 2, 4 or 8 as long as both sides stay at least `size_hint` pixels:
    three to six times quicker for photographs, not bit-exact. Raises `MediaError` with a short reason; never warns.
    """
    where = image.where if isinstance(image, Media) else "<picture>"
    try:
        with _opened(image, where, max_pixels) as picture:
            check_size(picture.size, where, max_pixels)
            if decode == "fast" and size_hint:
                picture.draft(None, (size_hint, size_hint))  # None leaves the mode alone
            picture.load()
            result = to_rgb(_upright(picture), transparency)
            # An animation would go on reading from the file that is closed here.
            return result.copy() if result is picture and getattr(picture, "fp", None) is not None else result
    except BROKEN as error:
        raise MediaError(where, reason_of(error)) from None


def check_image(image: Image, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) as stored, from the header alone: finds what is no picture at all, but not damage further on."""
    try:
        with _opened(image, image.where, max_pixels) as picture:
            check_size(picture.size, image.where, max_pixels)
            return picture.size
    except BROKEN as error:
        raise MediaError(image.where, reason_of(error)) from None


def encode_png(array: Any) -> bytes:
    """A PIL image or uint8 array [height, width(, 3 or 4)] as a PNG file."""
    picture = array if isinstance(array, PIL.Image.Image) else _from_array(array, "<array>")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def read_bytes(media: Media) -> bytes:
    """The encoded file behind a handle: its bytes, its file's, its data URI's, or an array as PNG. Nothing is downloaded."""
    if media.data is not None:
        return media.data
    if media.path is not None:
        try:
            return media.path.read_bytes()
        except OSError as error:
            raise MediaError(media.where, reason_of(error)) from None
    if media.url is not None:
        return _local_url(media.url, media.where)
    return encode_png(media.array)


def content_bytes(media: Media) -> bytes:
    """What tells it from any other: the encoded file or, of a sound or a clip given as an array, its values and its rate; of a moment its
    seconds."""
    if media.array is None or isinstance(media, Image):
        return read_bytes(media) + moment_bytes(media)
    values, rate = np.ascontiguousarray(media.array), media.fps if isinstance(media, Video) else getattr(media, "rate", None)
    return f"{values.dtype}{values.shape}{rate}".encode() + values.tobytes() + moment_bytes(media)


def moment_bytes(media: Media) -> bytes:
    """What tells a moment of a clip from the whole, and from other moments; nothing for anything else."""
    if not isinstance(media, Video) or media.stretch is None:
        return b""
    return f"\0{media.stretch} {media.fps if media.array is not None else None}".encode()


def moves(file: Path) -> bool:
    """Whether a picture's file has several frames; one that cannot be opened has none."""
    try:
        with PIL.Image.open(file) as picture:
            return int(getattr(picture, "n_frames", 1)) > 1
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):  # what is wrong with it is said where it is decoded
        return False


def is_picture_name(name: str | Path) -> bool:
    """Whether a file's name says that it is a picture; hidden files and macOS's `._` doubles are not."""
    path = Path(name)
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def sniff(head: bytes) -> str | None:
    """The usual file suffix for the first bytes of a picture (`.jpg`, `.png`, ...), None when they are no picture."""
    if head[4:8] == b"ftyp":
        return ".avif" if head[8:12] in (b"avif", b"avis") else ".heic" if head[8:12] in _HEIF_BRANDS else None
    if head[:4] == b"RIFF":
        return ".webp" if head[8:12] == b"WEBP" else None
    if _is_svg(head):
        return ".svg"
    known = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif"}
    return next((suffix for magic, suffix in known.items() if head.startswith(magic)), None)


@contextlib.contextmanager
def _opened(image: Image | PIL.Image.Image, where: str, max_pixels: int) -> Iterator[PIL.Image.Image]:
    """Header read, pixels not yet decoded (but for drawings and arrays); the file is closed in the end."""
    if isinstance(image, PIL.Image.Image):
        yield image.copy()  # the caller's own stays as it is
    elif image.array is not None:
        yield image.array.copy() if isinstance(image.array, PIL.Image.Image) else _from_array(image.array, where)
    else:
        with open_stream(image, where) as stream:
            yield _parse(stream, where, max_pixels)


def open_stream(media: Media, where: str) -> IO[bytes]:
    """The encoded file behind a handle, to be closed by who asked; nothing is downloaded. Raises `OSError` or `MediaError`."""
    if media.path is not None:
        return media.path.open("rb")
    return io.BytesIO(media.data if media.data is not None else _local_url(str(media.url), where))


def _local_url(url: str, where: str) -> bytes:
    if url[:5].lower() != "data:":
        raise MediaError(where, "an address on the network; download it first")
    return parse_data_uri(url)


def _parse(stream: IO[bytes], where: str, max_pixels: int) -> PIL.Image.Image:
    head = stream.read(1024)
    stream.seek(0)
    if not head:
        raise MediaError(where, "empty file")
    suffix = sniff(head)
    if suffix == ".svg" or head[:2] == b"\x1f\x8b":
        return _render_svg(stream.read(), where, max_pixels)
    if suffix == ".heic" and not _heif_ready():
        raise MediaError(where, str(MissingExtra("HEIC", "files")))
    try:
        return PIL.Image.open(stream)
    except PIL.UnidentifiedImageError:
        raise MediaError(where, what_else(head, "picture")) from None


def what_else(head: bytes, kind: str) -> str:
    """What people have under the name of a picture or another `kind` of media: pages that say 404, pointers that Git never followed."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return f"a web page, not a {kind}"
    if start.startswith(b"version https://git-lfs"):
        return f"a Git LFS pointer, not a {kind} (run `git lfs pull`)"
    if not head.strip(b"\0"):
        return f"a file of zeros, not a {kind} (an interrupted copy?)"
    return f"not a {kind} that can be read"


def reason_of(error: BaseException) -> str:
    """One short clause for lists of dropped rows."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file"
    if isinstance(error, PIL.Image.DecompressionBombError):
        return f"too many pixels (the limit is {MAX_PIXELS:,})"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated"
    return f"corrupt ({text[:60]})" if text else f"corrupt ({type(error).__name__})"


def check_size(size: tuple[int, int], where: str, max_pixels: int) -> None:
    """Raise `MediaError` for a width and height of nothing, or of a decompression bomb."""
    width, height = size
    if width * height == 0:
        raise MediaError(where, "has no pixels")
    if width * height > max_pixels:
        raise MediaError(where, f"too many pixels ({width} x {height}; the limit is {max_pixels:,})")


def _from_array(array: Any, where: str) -> PIL.Image.Image:
    pixels = np.asarray(array)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise MediaError(
            where, f"an array of {pixels.dtype} {list(pixels.shape)}; a picture is uint8 [height, width] or [height, width, 3]"
        )
    if pixels.size == 0:
        raise MediaError(where, "has no pixels")
    return PIL.Image.fromarray(pixels)


@functools.cache
def _heif_ready() -> bool:
    """Teach Pillow HEIC, once, if the optional decoder is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_svg(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in head


def _render_svg(data: bytes, where: str, max_pixels: int) -> PIL.Image.Image:
    """A drawing, by resvg (no scripts, no network) in a process of its own, longer side `SVG_SIZE`."""
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as packed:
            data = packed.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise MediaError(where, f"unpacks to more than {MAX_BYTES // 1_000_000} MB")
        if not _is_svg(data[:1024]):
            raise MediaError(where, "not a picture that can be read")
    _check_drawing(data, where)
    try:
        return PIL.Image.open(io.BytesIO(draw(where, svg_string=data.decode("utf-8-sig"), width=SVG_SIZE, height=SVG_SIZE)))
    except UnicodeDecodeError as error:
        raise MediaError(where, f"corrupt drawing ({str(error)[:60]})") from None
    except MissingExtra as error:
        raise MediaError(where, str(error)) from None


def _check_drawing(data: bytes, where: str) -> None:
    """Refuse a stranger's drawing that would have our files drawn into it."""

    def begin(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2].lower() in ("image", "feimage"):
            for key, value in attributes.items():
                if key.rpartition(":")[2].lower() == "href" and not value.strip().lower().startswith(("data:", "#")):
                    raise MediaError(where, "a drawing that refers to other files")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: an encoding that expat does not know
        raise MediaError(where, f"corrupt drawing ({str(error)[:60]})") from None


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        if picture.getexif().get(_EXIF_ORIENTATION, 1) in (None, 1):
            return picture
        return PIL.ImageOps.exif_transpose(picture)
    except BROKEN:
        return picture  # damaged EXIF says nothing; the pixels are whole


def to_rgb(picture: PIL.Image.Image, transparency: Transparency = "white") -> PIL.Image.Image:
    """A decoded picture of any mode as 8-bit RGB."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if transparency == "ignore":
        return picture.convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Grey levels of 16 or 32 bits, or floats, as 8 bits. Pillow's own conversion clips at 255: a white square."""
    grey = np.asarray(picture).astype(np.float64)
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    if picture.mode.startswith("I;16"):
        full = 65535.0
    else:
        top = float(grey.max())
        full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top) if picture.mode == "F" else max(top, 255.0)
        full = 65535.0 if 255.0 < full <= 65535.0 else full
    return PIL.Image.fromarray(np.clip(grey * (255.0 / full) + 0.5, 0, 255).astype(np.uint8))
