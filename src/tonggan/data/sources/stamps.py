"""Tux Paint stamps: 952 photographs and drawings for children, each described in up to 77 languages, often spoken aloud."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tonggan.config import one_of
from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source
from tonggan.data.sources.render import holds_text, picture_hash, render
from tonggan.data.sources.splits import by_concept, caption_key, look_alikes
from tonggan.types import Audio, Dropped, Image, Row, Text, UsageError

ROOT = Path("/usr/share/tuxpaint/stamps")
SPOKEN = ("be", "bg", "ca", "da", "el", "es", "fr", "lt", "nl", "ro", "ru")
"""Languages in which descriptions are read aloud, beside English: nearly all stamps in most of them, fewer than a hundred in lt and nl."""
_PACKAGE = "tuxpaint-stamps-default"
_CREATOR = re.compile(r"<dc:creator>.*?<dc:title>\s*([^<]+?)\s*</dc:title>", re.DOTALL)
_HALF_WIDTH = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}


class Stamps(Source):
    """One row per described stamp: `bird.png` or `bird.svg`, `bird.txt`, `bird_desc_fr.ogg`."""

    name = "stamps"
    about = "952 described photographs and drawings, many spoken aloud"
    about_zh = "952 张带描述的照片和图画，许多配有朗读"
    licence = "GPL-2.0-or-later"
    attribution = "Tux Paint stamps, copyright 2002-2022 by Bill Kendrick and contributors. Licence: GPL-2.0-or-later"
    megabytes = 161

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root

    @property
    def how(self) -> str:
        return f"sudo apt-get install {_PACKAGE}"

    def available(self) -> bool:
        return next(self.root.rglob("*.txt"), None) is not None

    def _install(self) -> None:
        clients.apt_install([_PACKAGE])

    def rows(
        self,
        *,
        size: int = 256,
        languages: Sequence[str] | None = None,
        spoken: bool = False,
        stamps: int | None = None,
        held_out: str | None = None,
    ) -> Dataset:
        """Split 8:1:1 by concept; `held_out_captions` makes the repeated splits by which results on stamps are reported.

        `languages` are BCP-47 tags (`zh` simplified Chinese, `zh-TW`, `pt-BR`), of texts and of what is spoken; None: en and zh, with
        `spoken` also those of `SPOKEN`. `meta` has the category (the folder), the artist where a drawing names one, and a hash of the
        pixels; `audios` are the effect sound and the spoken descriptions, with the role `effect` or the language.

        With `spoken` a row is one spoken description (see `spoken_rows`), of so many `stamps`, those read in most languages; one
        language may be `held_out`.
        """
        if not spoken and (stamps is not None or held_out is not None):
            raise UsageError("stamps and held_out choose among spoken descriptions; set spoken as well")
        self.require()
        if languages is None:
            languages = ("en", "zh", *SPOKEN) if spoken else ("en", "zh")
        described = {str(path.relative_to(self.root).with_suffix("")): path for path in sorted(self.root.rglob("*.txt"))}
        originals = {name: picture for name, path in described.items() if (picture := _picture_of(path)) is not None}
        pictures = render(originals, "stamps", size)
        rows = [self._row(name, described[name], originals[name], drawn, languages) for name, drawn in pictures.paths.items()]
        missing = tuple(Dropped(str(path), "a description without a picture") for name, path in described.items() if name not in originals)
        titled = [row for row in rows if row.texts]
        silent = tuple(Dropped(row.id, f"no description in {', '.join(languages)}") for row in rows if not row.texts)
        split = by_concept(titled, alike=look_alikes(titled))
        return Dataset.from_rows(spoken_rows(split, stamps, held_out) if spoken else split, dropped=pictures.dropped + missing + silent)

    def _row(self, name: str, description: Path, original: Path, drawn: Path, languages: Sequence[str]) -> Row:
        texts = [text for text in read_description(description) if text.lang in languages]
        english = next((text.text for text in texts if text.lang == "en"), "")
        meta = {
            "source": self.name,
            "licence": self.licence,
            "category": str(Path(name).parent),
            "picture": picture_hash(drawn),
            "original": str(original),
        }
        if artist := _artist_of(original):
            meta["artist"] = artist
        return Row(
            id=f"stamps/{name}",
            images=(Image(path=drawn),),
            audios=tuple(Audio(path=sound, role=role) for sound, role in _sounds_of(description, languages)),
            texts=tuple(texts),
            group=f"stamps:{caption_key(english)}" if english else None,
            meta=meta,
        )


def spoken_rows(rows: Sequence[Row], stamps: int | None = None, held_out: str | None = None) -> list[Row]:
    """One row for each spoken description: its sound, the picture, the texts; `meta` has the `stamp` and the `lang`.

    Rows of a stamp keep its group and its split, so that sides share no stamp. With a language `held_out` they share all stamps and no
    speakers instead: its descriptions are `test`, a tenth of the others `val`. `stamps` keeps those that most languages speak of, the one
    held out among them.
    """

    def fewest(row: Row) -> tuple[bool, int, str]:
        spoken = {sound.role for sound in row.audios} - {"effect"}
        return held_out is not None and held_out not in spoken, -len(spoken), row.id

    found = [
        row.with_(
            id=f"{row.id}/{sound.role}", audios=(sound,), meta={**row.meta, "stamp": row.id.removeprefix("stamps/"), "lang": sound.role}
        )
        for row in sorted(rows, key=fewest)[:stamps]
        for sound in row.audios
        if sound.role is not None and sound.role != "effect"
    ]
    if held_out is None:
        return found
    one_of(held_out, {row.meta["lang"] for row in found}, "held_out language")
    return [row.with_(split=_side_of(row, held_out)) for row in found]


def _side_of(row: Row, held_out: str) -> str:
    if row.meta["lang"] == held_out:
        return "test"
    return "val" if hashlib.sha256(row.id.encode()).digest()[0] < 26 else "train"


def read_description(path: Path) -> Iterator[Text]:
    """The texts of a stamp: English on the first line, then `xx_YY.utf8=...`. Repeated English (en_GB) is left out."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    if lines and lines[0].strip():
        yield Text(lines[0].strip(), "en")
    for line in lines[1:]:
        locale, equals, text = line.partition("=")
        if equals and text.strip() and not locale.startswith("en"):
            lang = _tag(locale)
            # Chinese files write Latin letters and digits full-width (字母Ｉ): nobody types a query so.
            yield Text(text.strip().translate(_HALF_WIDTH) if lang.startswith("zh") else text.strip(), lang)


def _tag(locale: str) -> str:
    """`zh_CN.utf8` as `zh`, `pt_BR.utf8` as `pt-BR`, `sr@latin.utf8` as `sr-Latn`."""
    name = locale.strip().removesuffix(".utf8").replace("@latin", "-Latn").replace("@", "-").replace("_", "-")
    return "zh" if name == "zh-CN" else name


def _picture_of(description: Path) -> Path | None:
    """The stamp's picture; where it comes both as PNG and as a drawing, the drawing is the newer one. A drawing that holds text
    is taken only where there is no PNG: what it shows depends on the fonts of the machine."""
    drawing, photograph = description.with_suffix(".svg"), description.with_suffix(".png")
    if drawing.is_file() and not (photograph.is_file() and holds_text(drawing)):
        return drawing
    return photograph if photograph.is_file() else None


def _sounds_of(description: Path, languages: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Sound files with their roles: `effect` (a dog barks), or the language in which the description is read aloud."""
    stem = description.with_suffix("")
    for suffix in (".ogg", ".wav"):
        if (effect := stem.with_suffix(suffix)).is_file():
            yield effect, "effect"
            break
    for lang in languages:
        spoken = stem.with_name(f"{stem.name}_desc{'' if lang == 'en' else '_' + lang.replace('-', '_')}.ogg")
        if spoken.is_file():
            yield spoken, lang


def _artist_of(original: Path) -> str | None:
    """Whom a drawing's own metadata names as its creator; photographs name nobody."""
    if original.suffix != ".svg":
        return None
    found = _CREATOR.search(original.read_text("utf-8", errors="replace"))
    return found[1] if found else None
