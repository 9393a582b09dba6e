"""Which language a caption is in, from its letters alone: enough to tell Chinese from English, and honest about the rest."""

from __future__ import annotations

_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_KANA = ((0x3041, 0x30FF), (0x31F0, 0x31FF))
_HANGUL = ((0xAC00, 0xD7AF), (0x1100, 0x11FF))
_LATIN = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F))


def language_of(text: str) -> str | None:
    """`zh`, `ja`, `ko`, or `en` for any Latin script; None when the letters are another script's or there are none.

    A han character says about as much as a short word, so a caption is Chinese when han characters are a quarter of its letters:
    `一只 Labrador 犬` is Chinese, `the sign says 出口` is English.
    """
    han, kana, hangul, latin = (_count(text, ranges) for ranges in (_HAN, _KANA, _HANGUL, _LATIN))
    letters = sum(character.isalpha() for character in text)
    if not letters:
        return None
    if kana * 8 >= letters and kana + han > latin:
        return "ja"
    if hangul * 4 >= letters:
        return "ko"
    if han * 4 >= letters:
        return "zh"
    return "en" if latin * 2 > letters else None


def _count(text: str, ranges: tuple[tuple[int, int], ...]) -> int:
    return sum(any(low <= ord(character) <= high for low, high in ranges) for character in text)
