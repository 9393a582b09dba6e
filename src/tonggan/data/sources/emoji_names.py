"""Emoji as concepts: which there are, what they are called in Chinese, English and twelve more languages, which are alike.

Names are Unicode CLDR's short names, carried by the PyPI package `emoji` in a spelling for chat programs
(`:woman_curly_hair:`, `:女人_卷发:`); here they become what a person would write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tonggan.types import TongganError, UsageError

SKIN_TONES = range(0x1F3FB, 0x1F3FF + 1)
_VARIATION_SELECTOR, _JOINER, _ARROW_RIGHT = 0xFE0F, 0x200D, 0x27A1
_GENDER_SIGNS = (0x2640, 0x2642)
# Woman and man as person, girl and boy as child, mother and father Christmas as themselves.
_NEUTRAL = {0x1F468: 0x1F9D1, 0x1F469: 0x1F9D1, 0x1F466: 0x1F9D2, 0x1F467: 0x1F9D2}
_CJK = "\u3400-\u9fff"


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji. `code` is its code points as in file names, without the invisible variation selector (`1F34E`)."""

    characters: str
    code: str
    names: dict[str, str]
    """By language: what it shows, in plain words."""

    @property
    def skin_tone(self) -> bool:
        """Whether it is a skin-tone variant of another emoji."""
        return any(ord(c) in SKIN_TONES for c in self.characters)

    @property
    def flag(self) -> bool:
        """Whether it is a country's or region's flag, which one can only know by heart."""
        return 0x1F1E6 <= ord(self.characters[0]) <= 0x1F1FF or "\U000e007f" in self.characters

    @property
    def category(self) -> str | None:
        """Unicode's group: animals-nature, food-drink, …; None for flags and for emoji newer than the table."""
        return categories().get(code_of("".join(c for c in self.characters if ord(c) not in SKIN_TONES)))

    @property
    def concept(self) -> str:
        """What splits keep together: the code with gender, skin tone and direction taken away.

        A man, a woman and a person running are different words for nearly the same picture; all 25 families are one concept.
        """
        visible = [p for p in map(ord, self.characters) if p not in (_VARIATION_SELECTOR, _JOINER) and p not in SKIN_TONES]
        # The signs and the arrow are emoji themselves: alone they are not taken away.
        bare = [_NEUTRAL.get(p, p) for p in visible if p not in (_ARROW_RIGHT, *_GENDER_SIGNS)] or visible
        return "-".join(f"{p:04X}" for p in dict.fromkeys(bare))


def code_of(characters: str) -> str:
    """Code points in hexadecimal, joined by dashes, without variation selectors: how artists name their files."""
    return "-".join(f"{ord(c):04X}" for c in characters if ord(c) != _VARIATION_SELECTOR)


@cache
def categories() -> dict[str, str]:
    """Unicode's group of each emoji by its code."""
    lines = (Path(__file__).parent / "emoji_groups.tsv").read_text("utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def all_emoji(languages: Sequence[str] = ("en", "zh")) -> list[Emoji]:
    """Every fully qualified emoji of Unicode, in Unicode's own spelling order, with names in `languages`."""
    try:
        import emoji
    except ImportError:
        raise TongganError("names of emoji are not on this machine; get them with: pip install emoji") from None
    if unknown := sorted(set(languages) - set(emoji.LANGUAGES)):
        raise UsageError(f"emoji have no names in {', '.join(unknown)}; there are: {', '.join(sorted(emoji.LANGUAGES))}")
    emoji.config.load_language(list(languages))
    qualified = ((c, entry) for c, entry in emoji.EMOJI_DATA.items() if entry["status"] == emoji.STATUS["fully_qualified"])
    found = [Emoji(c, code_of(c), {lang: plain_name(entry[lang], lang) for lang in languages if lang in entry}) for c, entry in qualified]
    return sorted(found, key=lambda e: e.code)


def plain_name(chat_name: str, lang: str) -> str:
    """`:family_man_woman_boy:` as `family: man, woman, boy`; `:女人_卷发:` as `卷发女人`; `:按键_6:` as `按键6`."""
    name = chat_name.strip(":").strip()
    if lang == "zh":
        return _plain_chinese(name)
    name = name.replace("_", " ").replace("“", '"').replace("”", '"')
    return _plain_english(name) if lang == "en" else name


def _plain_english(name: str) -> str:
    if found := re.fullmatch(r"(family|kiss|couple with heart) ((?:(?:man|woman|boy|girl) ?)+)", name):
        return f"{found[1]}: {', '.join(found[2].split())}"
    if found := re.fullmatch(r"(man|woman|person) (bald|(?:curly|red|white) hair)", name):
        return f"bald {found[1]}" if found[2] == "bald" else f"{found[1]} with {found[2]}"
    return name


def _plain_chinese(name: str) -> str:
    head, _, tail = name.replace("(", "（").replace(")", "）").partition("_")
    if not tail:
        return head
    if people := re.fullmatch(r"((?:男人|女人|男孩|女孩)+)", tail):
        return f"{head}（{'、'.join(re.findall(r'[男女][人孩]', people[1]))}）"
    if tail in ("秃顶", "卷发", "红发", "白发"):
        return f"{tail}的{head}" if tail == "秃顶" else f"{tail}{head}"
    return f"{head}（{tail}）" if re.search(f"[{_CJK}]", tail) else f"{head}{tail}"
