"""Data as people send it: a table from a spreadsheet, pictures from telephones and the web, and the usual damage."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = {"circle": "圆形", "square": "方形", "triangle": "三角形"}
COLOURS = {
    "red": ("红色", (220, 40, 40)),
    "green": ("绿色", (40, 180, 60)),
    "blue": ("蓝色", (40, 70, 220)),
    "yellow": ("黄色", (240, 210, 40)),
}


def draw(shape: str, colour: tuple[int, int, int], seed: int, size: int = 96) -> Image.Image:
    """A shape somewhere on a light ground, so that no two pictures are near duplicates."""
    rng = np.random.default_rng(seed)
    ground = tuple(int(v) for v in rng.integers(200, 255, 3))
    picture = Image.new("RGB", (size, size + int(rng.integers(0, 40))), ground)
    pen = ImageDraw.Draw(picture)
    for _ in range(6):  # a little clutter: real photographs are never plain
        x, y = rng.integers(0, size, 2)
        pen.line(
            [int(x), int(y), int(x + rng.integers(-30, 30)), int(y + rng.integers(-30, 30))],
            fill=tuple(int(v) for v in rng.integers(120, 200, 3)),
        )
    r = int(rng.integers(size // 6, size // 3))
    x, y = (int(v) for v in rng.integers(r, size - r, 2))
    box = [x - r, y - r, x + r, y + r]
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    return picture


def save_jpeg(picture: Image.Image, path: Path) -> None:
    picture.save(path, quality=92)


def save_rotated(picture: Image.Image, path: Path) -> None:
    """As a telephone held upright writes it: sideways, with the EXIF orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(path, "JPEG", exif=exif, quality=92)


def save_cmyk(picture: Image.Image, path: Path) -> None:
    picture.convert("CMYK").save(path, "JPEG", quality=92)


def save_webp(picture: Image.Image, path: Path) -> None:
    picture.save(path, "WEBP", quality=90)


def save_animated(picture: Image.Image, path: Path) -> None:
    other = Image.new("RGB", picture.size, (9, 9, 9))
    picture.save(path, "GIF", save_all=True, append_images=[other], duration=100)


def save_heic(picture: Image.Image, path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(picture).save(path, quality=90)


def save_transparent(picture: Image.Image, path: Path) -> None:
    picture.convert("RGBA").save(path, "PNG")


SAVE: list[tuple[str, Callable[[Image.Image, Path], None]]] = [
    (".jpg", save_jpeg),
    (".webp", save_webp),
    (".jpg", save_rotated),
    (".jpg", save_cmyk),
    (".gif", save_animated),
    (".heic", save_heic),
    (".png", save_transparent),
]


def make(folder: Path, per_kind: int = 8) -> tuple[list[tuple[str, str]], list[str]]:
    """Pictures under `folder/图片`, rows (Windows path, Chinese title), and the names of those that are damaged on purpose."""
    pictures = folder / "图片"
    pictures.mkdir(parents=True)
    rows: list[tuple[str, str]] = []
    n = 0
    for shape, zh_shape in SHAPES.items():
        for zh_colour, rgb in COLOURS.values():
            for k in range(per_kind):
                ending, save = SAVE[n % len(SAVE)]
                name = f"照片 {n:03d}{ending}"
                save(draw(shape, rgb, n), pictures / name)
                rows.append((f"图片\\{name}", f"一个{zh_colour}的{zh_shape}，第{k + 1}张"))
                n += 1
    # Frames of one clip: all but the same picture, with captions that differ.
    frame = draw("circle", (220, 40, 40), 9999)
    for k in range(3):
        array = np.asarray(frame, dtype=np.int16) + k
        Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)).save(pictures / f"帧{k}.png")
        rows.append((f"图片\\帧{k}.png", f"红色圆形的第{k + 1}帧"))
    bad = []
    rows.append(("图片\\不存在.jpg", "文件不见了"))
    bad.append("不存在.jpg")
    out = io.BytesIO()
    draw("square", (40, 70, 220), 5000, size=200).save(out, "JPEG")
    (pictures / "截断.jpg").write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    rows.append(("图片\\截断.jpg", "只有一半的文件"))
    bad.append("截断.jpg")
    (pictures / "其实是网页.jpg").write_bytes("<html><body>404 未找到</body></html>".encode())
    rows.append(("图片\\其实是网页.jpg", "下载失败的文件"))
    bad.append("其实是网页.jpg")
    (pictures / "空.png").write_bytes(b"")
    rows.append(("图片\\空.png", "空文件"))
    bad.append("空.png")
    rows.append((f"图片\\照片 000{SAVE[0][0]}", ""))
    bad.append("照片 000")
    return rows, bad


def as_excel(rows: list[tuple[str, str]], path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["编号", "图片", "标题", "备注"])
    for number, (picture, title) in enumerate(rows, 1):
        sheet.append([number, picture, title or None, None])
    book.save(path)


def as_csv(rows: list[tuple[str, str]], path: Path, encoding: str) -> None:
    lines = ["编号,图片,标题"] + [f'{n},"{p}","{t}"' for n, (p, t) in enumerate(rows, 1)]
    path.write_bytes("\r\n".join(lines).encode(encoding))
