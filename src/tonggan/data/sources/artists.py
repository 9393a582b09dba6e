"""Emoji by three artists with Unicode's names and keywords: does a model know the thing, or one artist's hand?

OpenMoji's drawings come by pip; Google's and Twitter's by npm, 64 pixels wide. Apple's, in the same family of packages, are
left out: their licence does not let anyone but Apple's own devices use them. Debian's Noto Color Emoji is Google's hand again.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source, cache_home
from tonggan.data.sources.emoji_names import Emoji, all_emoji, code_of
from tonggan.data.sources.openmoji import OpenMoji, code_of_file, draw_openmoji, emoji_row
from tonggan.data.sources.render import Rendered, render
from tonggan.data.sources.splits import by_artist, by_concept, look_alikes
from tonggan.types import Row, Text, TongganError

_SHEETS = {"google": "emoji-datasource-google@16.0.0", "twitter": "emoji-datasource-twitter@16.0.0"}
_NAMES = "emojibase-data@17.0.0"
ARTISTS = {"openmoji": "CC BY-SA 4.0", "google": "Apache-2.0", "twitter": "CC BY 4.0"}
"""Each artist with the licence of their pictures."""


class EmojiArtists(Source):
    """One row per emoji and artist, for the emoji that every artist has drawn."""

    name = "emoji"
    about = "1,600 emoji by three artists, with names and keywords"
    about_zh = "1600 个表情符号，三位画师各画一遍，附名称和关键词"
    licence = "CC BY-SA 4.0 (OpenMoji), Apache-2.0 (Google), CC BY 4.0 (Twitter), Unicode-3.0 (names)"
    attribution = "Emoji by OpenMoji (CC BY-SA 4.0), Google Noto Emoji (Apache-2.0) and Twemoji (CC BY 4.0); names by Unicode CLDR"
    megabytes = 174

    @property
    def home(self) -> Path:
        """Where the pictures and words taken out of the archives are kept."""
        return cache_home() / "emoji"

    @property
    def how(self) -> str:
        line = clients.npm_line([*_SHEETS.values(), _NAMES], self.home)
        return line if OpenMoji().available() else f"{OpenMoji().how} && {line}"

    def available(self) -> bool:
        parts = {"emoji-datasource-google": "google", "emoji-datasource-twitter": "twitter", "emojibase-data": "words"}
        here = all((self.home / kept).is_dir() or self._archives(package) for package, kept in parts.items())
        return here and OpenMoji().available()

    def _install(self) -> None:
        OpenMoji().fetch()
        clients.npm_pack([*_SHEETS.values(), _NAMES], self.home)
        self._unpack()

    def rows(self, *, size: int = 128, keywords: bool = False, flags: bool = False, held_out: str | None = None) -> Dataset:
        """Emoji without skin tones that all three artists have drawn; flags only if asked for.

        Split 8:1:1 by concept, or with `held_out="openmoji"` by artist: that artist is the test side, the others train.
        `keywords=True` adds Unicode's keywords as a further caption per language; they are in `meta["keywords_zh"]` anyway.
        """
        self.require()
        self._unpack()
        known = [e for e in all_emoji() if not e.skin_tone and (flags or not e.flag)]
        pictures = {"openmoji": draw_openmoji(known, size)} | {artist: self._pictures(artist, known, size) for artist in _SHEETS}
        shared = [e for e in known if all(e.code in drawn.paths for drawn in pictures.values())]
        words = {lang: self._keywords(lang) for lang in ("en", "zh")}
        rows = [
            _with_keywords(emoji_row(e, pictures[artist].paths[e.code], self.name, artist, licence), e, words, keywords)
            for artist, licence in ARTISTS.items()
            for e in shared
        ]
        rows = by_artist(rows, held_out) if held_out else by_concept(rows, alike=look_alikes(rows))
        return Dataset.from_rows(rows, dropped=[one for drawn in pictures.values() for one in drawn.dropped])

    def _pictures(self, artist: str, known: Sequence[Emoji], size: int) -> Rendered:
        files = {code_of_file(path): path for path in (self.home / artist).glob("*.png")}
        return render({e.code: files[e.code] for e in known if e.code in files}, artist, size)

    def _words(self, lang: str) -> Path:
        return self.home / "words" / f"{lang}.json"

    def _keywords(self, lang: str) -> Mapping[str, list[str]]:
        """Unicode's keywords by emoji code."""
        entries = json.loads(self._words(lang).read_text("utf-8"))
        return {code_of(entry["emoji"]): entry.get("tags", []) for entry in entries}

    def _archives(self, package: str) -> list[Path]:
        return sorted(self.home.glob(f"{package}-*.tgz"))

    def _unpack(self) -> None:
        """Take what is needed out of archives that `npm pack` left here (run by us or by the user), then delete them."""
        for artist in _SHEETS:
            for archive in self._archives(f"emoji-datasource-{artist}"):
                _extract(archive, {f"package/img/{artist}/64/*.png": "*"}, self.home / artist)
        for archive in self._archives("emojibase-data"):
            _extract(archive, {f"package/{lang}/data.json": self._words(lang).name for lang in ("en", "zh")}, self._words("en").parent)


def _with_keywords(row: Row, emoji: Emoji, words: Mapping[str, Mapping[str, list[str]]], spoken: bool) -> Row:
    """The row with its keywords in `meta`, and as captions when `spoken`."""
    found = {lang: list(dict.fromkeys(words[lang].get(emoji.code, []))) for lang in words}
    joined = {lang: ("、" if lang == "zh" else ", ").join(tags) for lang, tags in found.items() if tags}
    meta = {**row.meta, **{f"keywords_{lang}": text for lang, text in joined.items()}}
    captions = tuple(Text(text, lang) for lang, text in joined.items()) if spoken else ()
    return row.with_(meta=meta, texts=row.texts + captions)


def _extract(archive: Path, wanted: Mapping[str, str], folder: Path) -> None:
    """Replace `folder` by the files of an archive that match a pattern, under the given name (`*`: their own); delete the archive.

    No path out of the archive is followed, and the folder appears whole or not at all.
    """
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                name = next((name for pattern, name in wanted.items() if path.match(pattern)), None)
                content = tar.extractfile(member) if name else None
                if name and content is not None:
                    (unfinished / (path.name if name == "*" else name)).write_bytes(content.read())
        if not any(unfinished.iterdir()):
            raise tarfile.TarError(f"no {' or '.join(wanted)} in it")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise TongganError(f"{archive} cannot be unpacked ({error}); delete it and get it again") from None
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    archive.unlink()
