"""Numbers as Chinese writes them: amounts in formal characters (大写金额), and plain ones (二十三, 二〇二六)."""

from __future__ import annotations

_FORMAL = "零壹贰叁肆伍陆柒捌玖"
_FORMAL_HANT = "零壹貳參肆伍陸柒捌玖"
_PLAIN = "零一二三四五六七八九"
_MYRIADS = ("", "万", "亿")


def amount(fen: int, unit: str = "元", *, hant: bool = False) -> str:
    """An amount of money in formal characters: `amount(1640902)` is 壹万陆仟肆佰零玖元零贰分.

    As banks want it (《支付结算办法》附一): 整 after 元 and 角, never after 分; several zeros in a row are read as one 零, and none
    stands before 元 or before 角. `hant` writes traditional characters. Raises `ValueError` below zero and from a trillion yuan on.
    """
    if not 0 <= fen < 10**14:
        raise ValueError(f"{fen} fen: amounts from 0 up to a trillion yuan can be written")
    yuan, jiao, rest = fen // 100, fen // 10 % 10, fen % 10
    written = _whole(yuan, _FORMAL, ("", "拾", "佰", "仟")) + unit if yuan or not fen else ""
    if jiao:
        written += _FORMAL[jiao] + "角"
    elif rest and yuan:
        written += "零"
    written += _FORMAL[rest] + "分" if rest else "整"
    return written.translate(_HANT) if hant else written


def counted(number: int) -> str:
    """A plain number: 12 is 十二, 105 is 一百零五, 0 is 零. Raises `ValueError` outside 0..99,999,999."""
    if not 0 <= number < 10**8:
        raise ValueError(f"{number} is not between 0 and 99,999,999")
    written = _whole(number, _PLAIN, ("", "十", "百", "千"))
    return written.removeprefix("一") if written.startswith("一十") else written


def spelled(digits: str) -> str:
    """Digit by digit, as years are read: 2026 is 二〇二六."""
    return "".join("〇一二三四五六七八九"[int(digit)] for digit in digits)


def _whole(number: int, digits: str, places: tuple[str, ...]) -> str:
    """A number below 10^12, in groups of four digits; a gap between groups, or inside one, is read as one zero."""
    if number == 0:
        return digits[0]
    written, gap = "", False
    for group in (2, 1, 0):
        part = number // 10000**group % 10000
        if part and written and (gap or part < 1000):
            written += digits[0]
        written += _group(part, digits, places) + (_MYRIADS[group] if part else "")
        gap = not part
    return written


def _group(part: int, digits: str, places: tuple[str, ...]) -> str:
    written, gap = "", False
    for place in (3, 2, 1, 0):
        digit = part // 10**place % 10
        if digit:
            written += (digits[0] if gap else "") + digits[digit] + places[place]
        gap = not digit and bool(written)
    return written


_HANT = str.maketrans(_FORMAL + "万亿", _FORMAL_HANT + "萬億")
