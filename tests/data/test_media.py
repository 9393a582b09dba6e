"""Pictures as people send them: the right pixels, or one clause that says why not."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
from draw import encoded, picture, saved

from tonggan.data import media
from tonggan.data.media import check_image, load_image, sniff
from tonggan.data.resolve import LOADER, SERVER, Policy, decode_base64, parse_data_uri, resolve
from tonggan.types import Image, MediaError

RED = (220, 30, 30)


def plain(colour, mode="RGB", size=(40, 30)) -> PIL.Image.Image:
    return PIL.Image.new(mode, size, colour)


def through(image: PIL.Image.Image, kind: str, **how) -> np.ndarray:
    """Saved as a file of that kind and loaded again."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    loaded = load_image(Image(data=buffer.getvalue()))
    assert loaded.mode == "RGB"
    return np.asarray(loaded)


def reason(data: bytes | None = None, **handle) -> str:
    with pytest.raises(MediaError) as error:
        load_image(Image(data=data) if data is not None else Image(**handle))
    assert len(error.value.reason) < 200 and "\n" not in error.value.reason
    return error.value.reason


@pytest.mark.parametrize(("kind", "how"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})])
def test_common_files_give_their_pixels(kind, how):
    original = picture(1)
    difference = np.abs(through(original, kind, **how).astype(int) - np.asarray(original))
    assert difference.max() <= (30 if kind == "JPEG" else 0)


def test_exif_turns_the_picture_upright():
    top_red = plain((255, 255, 255))
    top_red.paste(RED, (0, 0, 40, 10))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    found = through(top_red.rotate(90, expand=True), "JPEG", exif=exif, quality=95)
    assert found.shape == (30, 40, 3)
    assert np.abs(found[3, 20].astype(int) - RED).max() < 12 and found[25, 20].min() > 240


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(1, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert load_image(Image(data=data)).size == (48, 40)


def test_cmyk_becomes_the_colour_it_looks_like():
    found = through(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95)
    assert found[5, 5, 0] > 230 and found[5, 5, 1:].max() < 25


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode):
    clear = (10, 20, 30, 0) if mode == "RGBA" else (10, 0)
    assert (through(plain(clear, mode), "PNG") == 255).all()


def test_palette_with_a_transparent_colour_lies_on_white():
    image = plain(0, "P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (0, 0, 20, 30))
    found = through(image, "PNG", transparency=0)
    assert (found[5, 30] == 255).all() and (found[5, 5] == (0, 0, 200)).all()


def test_sixteen_bits_keep_their_grey_levels():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    found = through(PIL.Image.fromarray(ramp), "PNG")
    assert np.abs(found[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_of_an_animation_the_first_frame_is_taken():
    frames = [plain(colour) for colour in (RED, (0, 0, 0), (9, 9, 200))]
    for kind in ("GIF", "WEBP"):
        found = through(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
        assert np.abs(found.astype(int) - RED).max() <= 3


def test_heic_is_read_and_its_absence_named(monkeypatch):
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(plain(RED, size=(64, 64))).save(buffer, quality=90)
    assert np.abs(np.asarray(load_image(Image(data=buffer.getvalue()))).astype(int) - RED).max() < 15
    monkeypatch.setattr(media, "_heif_ready", lambda: False)
    assert "pip install 'tonggan[files]'" in reason(buffer.getvalue())


def test_drawings_are_rendered_but_read_no_files(tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect width="20" height="10" fill="#dc1e1e"/>{}</svg>'
    found = load_image(Image(data=svg.format("").encode()))
    assert found.size == (512, 256) and found.getpixel((9, 9)) == RED
    secret = saved(tmp_path / "secret.png", 1)
    inner = f'<image xmlns:xlink="http://www.w3.org/1999/xlink" width="20" height="10" xlink:href="{secret}"/>'
    assert "other files" in reason(svg.format(inner).encode())
    for encoding in ("gbk", "no-such-encoding"):
        assert "corrupt drawing" in reason(f'<?xml version="1.0" encoding="{encoding}"?>{svg.format("")}'.encode())
    for sly in (f'<s:image xmlns:s="http://www.w3.org/2000/svg" href="{secret}"/>', f'<filter><feImage href="{secret}"/></filter>'):
        assert "other files" in reason(svg.format(sly).encode())
    assert "corrupt drawing" in reason(b"<svg xmlns='http://www.w3.org/2000/svg'><rect")


def test_every_kind_of_damage_has_a_short_reason(tmp_path):
    whole = encoded(1)
    assert reason(whole[: len(whole) // 2]) == "truncated"
    assert reason(b"") == "empty file"
    assert reason(b"\0" * 500) == "a file of zeros, not a picture (an interrupted copy?)"
    assert reason(b"<!DOCTYPE html><html>404</html>") == "a web page, not a picture"
    assert reason(b"version https://git-lfs.github.com/spec/v1\noid 1") == "a Git LFS pointer, not a picture (run `git lfs pull`)"
    assert reason(b"hello, world") == "not a picture that can be read"
    assert reason(path=tmp_path / "gone.jpg") == "no such file"
    assert reason(path=tmp_path) == "a folder, not a file"
    assert "float64" in reason(array=np.zeros((4, 4, 3)))
    png = bytearray(encoded(2, "PNG"))
    png[60:90] = b"x" * 30
    assert reason(bytes(png)).startswith(("corrupt", "truncated"))


def test_random_damage_never_gets_past_as_another_error():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = np.frombuffer(encoded(1, kind), np.uint8)
        for _ in range(40):
            broken = data.copy()
            broken[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(MediaError):
                assert load_image(Image(data=broken.tobytes())).mode == "RGB"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_an_error(side):
    assert "too many pixels" in reason(bomb(side, side))
    with pytest.raises(MediaError, match="the limit is 1,000"):
        load_image(Image(data=encoded(1)), max_pixels=1000)
    with pytest.raises(MediaError, match="too many pixels"):
        check_image(Image(data=bomb(side, side)))


def test_nothing_is_printed_beside_the_error(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(10_000, 10_000))
    (tmp_path / "exif.jpg").write_bytes(encoded(1, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    code = (
        "from pathlib import Path; from tonggan.data.media import load_image; from tonggan.types import Image, MediaError\n"
        "load_image(Image(path=Path('exif.jpg')))\n"
        "try: load_image(Image(path=Path('bomb.png')))\n"
        "except MediaError as error: print(error.reason)"
    )
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "too many pixels" in done.stdout and done.stderr == ""


def test_fast_decoding_shrinks_no_further_than_asked_and_looks_the_same():
    large = picture(5, (800, 600))
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=95)
    image = Image(data=buffer.getvalue())
    fast = load_image(image, decode="fast", size_hint=140)
    assert fast.size == (200, 150) and load_image(image).size == (800, 600)
    small = np.asarray(large.resize((40, 30), PIL.Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(fast.resize((40, 30), PIL.Image.Resampling.BOX)) - small).mean() < 3
    assert load_image(image, decode="exact", size_hint=140).size == (800, 600)


def test_a_callers_picture_is_not_changed():
    mine = plain((1, 2, 3, 0), "RGBA")
    load_image(Image(array=mine))
    load_image(mine)
    assert mine.mode == "RGBA" and mine.getpixel((0, 0)) == (1, 2, 3, 0)


def test_the_server_follows_nothing_but_what_it_was_sent(tmp_path):
    file = saved(tmp_path / "a.png", 1)
    uri = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    assert resolve(Image(url=uri), SERVER).data == file.read_bytes()
    assert resolve(Image(path=file), LOADER).path == file
    with pytest.raises(MediaError, match="paths are not read here"):
        resolve(Image(path=file), SERVER)
    for policy in (LOADER, SERVER):
        with pytest.raises(MediaError, match="addresses are not followed"):
            resolve(Image(url="https://example.com/a.png"), policy)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]/x", "http://169.254.169.254/x", "http://10.0.0.1/x"]
)
def test_allowed_addresses_still_do_not_reach_our_own_network(url):
    with pytest.raises(MediaError, match="private network"):
        resolve(Image(url=url), Policy(urls=True))


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(MediaError, match="only http and https"):
        resolve(Image(url=f"file://{tmp_path}/a.png"), Policy(urls=True, private_hosts=True))


def test_data_uris_are_measured_before_they_are_decoded():
    with pytest.raises(MediaError, match="larger than"):
        parse_data_uri("data:;base64," + "A" * 2000, max_bytes=1000)
    with pytest.raises(MediaError, match="base64 is damaged"):
        parse_data_uri("data:image/png;base64,@@@@")
    with pytest.raises(MediaError, match="not a data URI"):
        parse_data_uri("data:image/png;base64")
    assert parse_data_uri("data:image/svg+xml,%3Csvg%3E") == b"<svg>"
    assert parse_data_uri("DATA:;BASE64,YWJj") == b"abc"
    assert decode_base64("-_-_\n") == decode_base64("+/+/") and decode_base64("YQ") == b"a"


def test_the_kind_of_a_file_is_seen_in_its_first_bytes():
    assert [sniff(encoded(1, kind)) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")] == [
        ".jpg", ".png", ".gif", ".webp", ".bmp", ".tif",
    ]  # fmt: skip
    assert sniff(b"no picture") is None
