"""Open Clip Art Library 0.18: some 6,900 drawings in the public domain, with titles and keywords by their artists."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source
from tonggan.data.sources.render import picture_hash, render
from tonggan.data.sources.splits import by_concept, caption_key, look_alikes
from tonggan.types import Dropped, Image, Row, Text

ROOT = Path("/usr/share/openclipart")
_PACKAGES = ("openclipart-png", "openclipart-svg")
_MOST_SHARED = 5
"""A title on more drawings than this names a collection (`Lemon SVG theme`), not what is to be seen."""
_DULL = frozenset({"unsorted", "hash", "icon", "icons", "clip_art", "clipart", "vectorized"})


@dataclass(frozen=True, slots=True)
class Description:
    """What a drawing's own metadata say; empty where they say nothing."""

    title: str = ""
    artist: str = ""
    keywords: tuple[str, ...] = ()


class OpenClipart(Source):
    """One row per drawing: PNG from one package; title, keywords and artist from the drawing in the other."""

    name = "openclipart"
    about = "6,900 drawings with titles and keywords in English"
    about_zh = "6900 幅剪贴画，附英文标题和关键词"
    licence = "public domain"
    attribution = "Open Clip Art Library, placed in the public domain by its artists"
    megabytes = 156

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root

    @property
    def how(self) -> str:
        return f"sudo apt-get install {' '.join(_PACKAGES)}"

    def available(self) -> bool:
        return next((self.root / "png").rglob("*.png"), None) is not None

    @property
    def has_titles(self) -> bool:
        """Whether the drawings are here too: without them captions are made of file names."""
        return next((self.root / "svg").rglob("*.svg"), None) is not None

    def _install(self) -> None:
        clients.apt_install(_PACKAGES)

    def rows(self, *, size: int = 224, keywords: bool = False, titled: bool = False) -> Dataset:
        """Split 8:1:1 by concept; collections (1,375 stars and some 1,900 theme icons, several of which look alike) are one concept,
        for training.

        Captions are titles; where a drawing has none of its own, or the package with the titles is absent, words of the file
        name (`meta["caption_from"]` says which; `titled=True` leaves these out). `keywords=True` adds a second caption.
        """
        self.require()
        files = {str(p.relative_to(self.root / "png").with_suffix("")): p for p in _originals(self.root / "png")}
        pictures = render(files, "openclipart", size)
        described = {name: read_description(self.root / "svg" / f"{name}.svg") for name in pictures.paths}
        shared = Counter(caption_key(d.title) for d in described.values())
        rows = [_row(name, pictures.paths[name], d, shared[caption_key(d.title)] > _MOST_SHARED, keywords) for name, d in described.items()]
        wordless = tuple(Dropped(row.id, "neither its title nor its file name has words") for row in rows if not row.texts)
        kept = [row for row in rows if row.texts]
        kept = by_concept(kept, alike=look_alikes(kept))
        if titled:
            kept = [row for row in kept if row.meta["caption_from"] == "title"]
        return Dataset.from_rows(kept, dropped=pictures.dropped + wordless)


def read_description(svg: Path) -> Description:
    """Title, creator and keywords of a drawing (Dublin Core in its metadata element)."""
    if not svg.is_file():
        return Description()
    text = svg.read_text("utf-8", errors="replace")
    found = re.search(r"<metadata.*?</metadata>", text, re.DOTALL)
    metadata = found[0] if found else ""
    title = re.search(r"<dc:title>([^<]*)</dc:title>", metadata)
    artist = re.search(r"<dc:creator>.*?<dc:title>([^<]*)</dc:title>", metadata, re.DOTALL)
    words = (_clean(word) for word in re.findall(r"<rdf:li[^>]*>([^<]*)</rdf:li>", metadata))
    kept = tuple(dict.fromkeys(word.replace("_", " ") for word in words if word and word not in _DULL))
    return Description(_clean(title[1]) if title else "", _clean(artist[1]) if artist else "", kept)


def words_of_file(name: str, artist: str = "") -> str:
    """A file name as words: `az-lizard_benji_park_01` by Benji Park is `az lizard`."""
    words = re.sub(r"[^a-z]+", " ", Path(name).name.lower()).split()
    tail = re.sub(r"[^a-z]+", " ", artist.lower()).split()
    # Names are cut at 20 letters or so, often within the artist's: `armadillo_architetto_fra_01`.
    start = next((i for i in range(1, len(words)) if tail and _cut_short(words[i:], tail)), len(words))
    return " ".join(word for word in words[:start] if len(word) > 1)


def _cut_short(words: list[str], whole: list[str]) -> bool:
    return len(words) <= len(whole) and words[:-1] == whole[: len(words) - 1] and whole[len(words) - 1].startswith(words[-1])


def _clean(text: str) -> str:
    return " ".join(html.unescape(text).split())


def _originals(folder: Path) -> list[Path]:
    """Every picture once: the package files many under several folders by links."""
    return sorted(path for path in folder.rglob("*.png") if not path.is_symlink())


def _row(name: str, drawn: Path, described: Description, collection: bool, keywords: bool) -> Row:
    titled = bool(described.title) and not collection
    caption = described.title if titled else words_of_file(name, described.artist)
    texts = [Text(caption, "en")] if caption else []
    if keywords and described.keywords:
        texts.append(Text(", ".join(described.keywords), "en"))
    meta = {
        "source": "openclipart",
        "licence": OpenClipart.licence,
        "category": str(Path(name).parent),
        "caption_from": "title" if titled else "file name",
        "keywords_en": ", ".join(described.keywords),
        "artist": described.artist,
        "concept": f"openclipart:{caption_key(described.title)}" if collection and described.title else "",
        "picture": picture_hash(drawn),
    }
    return Row(
        id=f"openclipart/{name}",
        images=(Image(path=drawn),),
        texts=tuple(texts),
        group=f"openclipart:{caption_key(caption)}" if caption else None,
        meta={key: value for key, value in meta.items() if value},
    )
