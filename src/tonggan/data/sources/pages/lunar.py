"""The Chinese calendar (农历), 1900-2100, and the solar terms (节气), 2001-2099.

Months and terms follow the sun and the moon over Beijing; they were computed with the Shouxing astronomical calendar (寿星万年历) and
agree on every day of 1901-2099 with the tables that the Hong Kong Observatory publishes.
"""

from __future__ import annotations

import bisect
import datetime
import itertools
from dataclasses import dataclass
from functools import cache

_FIRST = datetime.date(1900, 1, 31)
"""The first day of the year that `_YEARS` starts with."""
_YEARS = (
    0x04BD8, 0x04AE0, 0x0A570, 0x054D5, 0x0D260, 0x0D950, 0x16554, 0x056A0, 0x09AD0, 0x055D2,
    0x04AE0, 0x0A5B6, 0x0A4D0, 0x0D250, 0x1D255, 0x0B540, 0x0D6A0, 0x0ADA2, 0x095B0, 0x14977,
    0x04970, 0x0A4B0, 0x0B4B5, 0x06A50, 0x06D40, 0x1AB54, 0x02B60, 0x09570, 0x052F2, 0x04970,
    0x06566, 0x0D4A0, 0x0EA50, 0x16A95, 0x05AD0, 0x02B60, 0x186E3, 0x092E0, 0x1C8D7, 0x0C950,
    0x0D4A0, 0x1D8A6, 0x0B550, 0x056A0, 0x1A5B4, 0x025D0, 0x092D0, 0x0D2B2, 0x0A950, 0x0B557,
    0x06CA0, 0x0B550, 0x15355, 0x04DA0, 0x0A5B0, 0x14573, 0x052B0, 0x0A9A8, 0x0E950, 0x06AA0,
    0x0AEA6, 0x0AB50, 0x04B60, 0x0AAE4, 0x0A570, 0x05260, 0x0F263, 0x0D950, 0x05B57, 0x056A0,
    0x096D0, 0x04DD5, 0x04AD0, 0x0A4D0, 0x0D4D4, 0x0D250, 0x0D558, 0x0B540, 0x0B6A0, 0x195A6,
    0x095B0, 0x049B0, 0x0A974, 0x0A4B0, 0x0B27A, 0x06A50, 0x06D40, 0x0AF46, 0x0AB60, 0x09570,
    0x04AF5, 0x04970, 0x064B0, 0x074A3, 0x0EA50, 0x06B58, 0x05AC0, 0x0AB60, 0x096D5, 0x092E0,
    0x0C960, 0x0D954, 0x0D4A0, 0x0DA50, 0x07552, 0x056A0, 0x0ABB7, 0x025D0, 0x092D0, 0x0CAB5,
    0x0A950, 0x0B4A0, 0x0BAA4, 0x0AD50, 0x055D9, 0x04BA0, 0x0A5B0, 0x15176, 0x052B0, 0x0A930,
    0x07954, 0x06AA0, 0x0AD50, 0x05B52, 0x04B60, 0x0A6E6, 0x0A4E0, 0x0D260, 0x0EA65, 0x0D530,
    0x05AA0, 0x076A3, 0x096D0, 0x04AFB, 0x04AD0, 0x0A4D0, 0x1D0B6, 0x0D250, 0x0D520, 0x0DD45,
    0x0B5A0, 0x056D0, 0x055B2, 0x049B0, 0x0A577, 0x0A4B0, 0x0AA50, 0x1B255, 0x06D20, 0x0ADA0,
    0x14B63, 0x09370, 0x049F8, 0x04970, 0x064B0, 0x168A6, 0x0EA50, 0x06AA0, 0x1A6C4, 0x0AAE0,
    0x092E0, 0x0D2E3, 0x0C960, 0x0D557, 0x0D4A0, 0x0DA50, 0x05D55, 0x056A0, 0x0A6D0, 0x055D4,
    0x052D0, 0x0A9B8, 0x0A950, 0x0B4A0, 0x0B6A6, 0x0AD50, 0x055A0, 0x0ABA4, 0x0A5B0, 0x052B0,
    0x0B273, 0x06930, 0x07337, 0x06AA0, 0x0AD50, 0x14B55, 0x04B60, 0x0A570, 0x054E4, 0x0D160,
    0x0E968, 0x0D520, 0x0DAA0, 0x16AA6, 0x056D0, 0x04AE0, 0x0A9D4, 0x0A2D0, 0x0D150, 0x0F252,
    0x0D520,
)  # fmt: skip
"""One number a year. Bits 15..4: months 1..12 have 30 days (1) or 29; bits 3..0: which month is followed by a leap month of its
own number (0: none); bit 16: the leap month has 30 days."""

MONTHS = ("正月", "二月", "三月", "四月", "五月", "六月", "七月", "八月", "九月", "十月", "冬月", "腊月")
ANIMALS = "鼠牛虎兔龙蛇马羊猴鸡狗猪"
TERMS = (
    "小寒", "大寒", "立春", "雨水", "惊蛰", "春分", "清明", "谷雨", "立夏", "小满", "芒种", "夏至",
    "小暑", "大暑", "立秋", "处暑", "白露", "秋分", "寒露", "霜降", "立冬", "小雪", "大雪", "冬至",
)  # fmt: skip
"""Two in each month of the Gregorian year, from January."""
_TERM_DAYS = (
    5.4055, 20.12, 3.87, 18.73, 5.63, 20.646, 4.81, 20.1, 5.52, 21.04, 5.678, 21.37,
    7.108, 22.83, 7.5, 23.13, 7.646, 23.042, 8.318, 23.438, 7.438, 22.36, 7.18, 21.94,
)  # fmt: skip
"""Where in its month each term falls on average, counted for the year 2000."""
_TERM_SHIFTS = {
    (2002, "立秋"): 1, (2008, "小满"): 1, (2016, "小暑"): 1, (2019, "小寒"): -1, (2021, "冬至"): -1,
    (2026, "雨水"): -1, (2082, "大寒"): 1, (2089, "霜降"): 1, (2089, "立冬"): 1,
}  # fmt: skip
"""Terms so close to midnight that the rule of thumb misses them by a day."""


@dataclass(frozen=True, slots=True)
class LunarDate:
    """A day of the Chinese calendar; `leap` when its month is the second of that number."""

    year: int
    month: int
    day: int
    leap: bool = False

    @property
    def month_name(self) -> str:
        """正月 … 腊月, 闰六月 for a leap month."""
        return ("闰" if self.leap else "") + MONTHS[self.month - 1]

    @property
    def day_name(self) -> str:
        """初一 … 三十."""
        if self.day in (10, 20, 30):
            return ("初十", "二十", "三十")[self.day // 10 - 1]
        return "初十廿"[(self.day - 1) // 10] + "一二三四五六七八九"[(self.day - 1) % 10]

    @property
    def year_name(self) -> str:
        """The year in the cycle of sixty: 2024 is 甲辰."""
        return "甲乙丙丁戊己庚辛壬癸"[(self.year - 4) % 10] + "子丑寅卯辰巳午未申酉戌亥"[(self.year - 4) % 12]

    @property
    def animal(self) -> str:
        """The animal of the year: 2024 is 龙."""
        return ANIMALS[(self.year - 4) % 12]


def lunar(day: datetime.date) -> LunarDate:
    """The Chinese date of a day. Raises `ValueError` outside 1900-01-31 … 2101-01-28."""
    since = (day - _FIRST).days
    if not 0 <= since < _starts()[-1]:
        raise ValueError(f"{day}: the table of Chinese years runs from 1900-01-31 to 2101-01-28")
    at = bisect.bisect_right(_starts(), since) - 1
    left = since - _starts()[at]
    for month, leap, length in _months(_YEARS[at]):
        if left < length:
            return LunarDate(_FIRST.year + at, month, left + 1, leap)
        left -= length
    raise AssertionError("the days of a year's months add up to the year")


@cache
def _starts() -> list[int]:
    """Days from the first year's beginning to each year's, and to the end of the last."""
    return list(itertools.accumulate((sum(length for _, _, length in _months(code)) for code in _YEARS), initial=0))


def _months(code: int) -> list[tuple[int, bool, int]]:
    """Number, whether leap, and days of each month of a year."""
    leap, months = code & 0xF, []
    for month in range(1, 13):
        months.append((month, False, 29 + (code >> (16 - month) & 1)))
        if month == leap:
            months.append((month, True, 29 + (code >> 16)))
    return months


def term(day: datetime.date) -> str | None:
    """The solar term that falls on a day, if any. Raises `ValueError` outside 2001-2099."""
    if not 2001 <= day.year <= 2099:
        raise ValueError(f"{day}: solar terms are known here from 2001 to 2099")
    for number in (2 * day.month - 2, 2 * day.month - 1):
        name, year = TERMS[number], day.year - 2000
        leap_days = (year - 1 if number < 4 else year) // 4  # the 29th of February comes after the first four terms
        if day.day == int(year * 0.2422 + _TERM_DAYS[number]) - leap_days + _TERM_SHIFTS.get((day.year, name), 0):
            return name
    return None
