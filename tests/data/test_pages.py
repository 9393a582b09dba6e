"""The suite of pages: its arithmetic, its calendars, and every answer against the pixels by a second route."""

from __future__ import annotations

import datetime
import io
import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from tonggan.data.sources import pages
from tonggan.data.sources.pages import fonts
from tonggan.data.sources.pages.asking import Ask, Asks, value_of
from tonggan.data.sources.pages.boards import _ahead
from tonggan.data.sources.pages.canvas import Mark, Type
from tonggan.data.sources.pages.chinese.table import _week
from tonggan.data.sources.pages.chinese.timetable import _HANT_THERE, _trains_hant
from tonggan.data.sources.pages.english.calendar import holiday
from tonggan.data.sources.pages.lunar import lunar, term
from tonggan.data.sources.pages.near import around, consecutive, figures_around, lookalike, misread, near_dates, near_places
from tonggan.data.sources.pages.numerals import amount, counted, spelled
from tonggan.data.sources.pages.spoil import occluded
from tonggan.types import TongganError

needs_fonts = pytest.mark.source("pages-zh-en")
ROUND = 48
"""Pages in which every kind is there at every difficulty in both languages."""


@cache
def page(number: int) -> pages.Page:
    return pages.page(number, seed=1)


# ------------------------------------------------------------------------------------- amounts, calendars


@pytest.mark.parametrize(
    ("yuan", "written"),
    [
        # the examples of 《支付结算办法》附一, then what its rules say of gaps
        ("1409.50", "壹仟肆佰零玖元伍角整"),
        ("6007.14", "陆仟零柒元壹角肆分"),
        ("1680.32", "壹仟陆佰捌拾元叁角贰分"),
        ("107000.53", "壹拾万柒仟元伍角叁分"),
        ("16409.02", "壹万陆仟肆佰零玖元零贰分"),
        ("325.04", "叁佰贰拾伍元零肆分"),
        ("0.00", "零元整"),
        ("0.05", "伍分"),
        ("0.50", "伍角整"),
        ("10.00", "壹拾元整"),
        ("100500.00", "壹拾万零伍佰元整"),
        ("10020.00", "壹万零贰拾元整"),
        ("100005000.00", "壹亿零伍仟元整"),
        ("100000000.00", "壹亿元整"),
        ("1000000050.00", "壹拾亿零伍拾元整"),
        ("20030000.10", "贰仟零叁万元壹角整"),
    ],
)
def test_amounts_in_formal_characters(yuan: str, written: str) -> None:
    assert amount(int(yuan.replace(".", ""))) == written


def test_amounts_for_an_invoice_and_in_traditional_characters() -> None:
    assert amount(30000, "圆") == "叁佰圆整"
    assert amount(1640902, hant=True) == "壹萬陸仟肆佰零玖元零貳分"


@pytest.mark.parametrize("fen", [-1, 10**14])
def test_amounts_that_cannot_be_written_are_refused(fen: int) -> None:
    with pytest.raises(ValueError, match="up to a trillion"):
        amount(fen)


def test_amounts_are_read_back() -> None:
    rng = random.Random(0)
    for fen in [*range(1, 3000, 7), *(rng.randrange(10 ** rng.randint(3, 14)) for _ in range(2000))]:
        assert fen_of(amount(fen)) == fen, amount(fen)


def fen_of(written: str) -> int:
    """Formal characters back to fen, by a reading of its own: units multiply what was summed since a greater unit."""
    yuan, _, rest = written.rpartition("元") if "元" in written else written.rpartition("圆")
    digits = {character: value for value, character in enumerate("零壹贰叁肆伍陆柒捌玖")}

    def whole(text: str) -> int:
        for unit, size in (("亿", 10**8), ("万", 10**4)):
            if unit in text:
                high, _, low = text.rpartition(unit)
                return whole(high) * size + whole(low)
        return sum(digits[d] * 10 ** " 拾佰仟".index(u or " ") for d, u in re.findall("([壹贰叁肆伍陆柒捌玖])([拾佰仟]?)", text))

    jiao, fen = re.search("(.)角", rest), re.search("(.)分", rest)
    return whole(yuan) * 100 + (digits[jiao[1]] * 10 if jiao else 0) + (digits[fen[1]] if fen else 0)


def test_plain_numbers() -> None:
    said = {0: "零", 9: "九", 10: "十", 12: "十二", 20: "二十", 105: "一百零五", 110: "一百一十", 1010: "一千零一十", 21005: "二万一千零五"}
    assert {number: counted(number) for number in said} == said
    assert spelled("2026") == "二〇二六"


NEW_YEARS = {  # the first day of the Chinese year, as the Hong Kong Observatory lists it
    1900: "01-31", 1911: "01-30", 1924: "02-05", 1949: "01-29", 1968: "01-30", 1976: "01-31", 1985: "02-20", 1996: "02-19", 2000: "02-05",
    2005: "02-09", 2012: "01-23", 2015: "02-19", 2020: "01-25", 2021: "02-12", 2023: "01-22", 2024: "02-10", 2025: "01-29", 2026: "02-17",
    2033: "01-31", 2034: "02-19", 2044: "01-30", 2050: "01-23", 2100: "02-09",
}  # fmt: skip


def test_chinese_years_begin_when_they_do() -> None:
    for year, date in NEW_YEARS.items():
        there = lunar(datetime.date.fromisoformat(f"{year}-{date}"))
        assert (there.year, there.month, there.day, there.leap) == (year, 1, 1, False)


def test_days_of_the_chinese_calendar() -> None:
    said = {
        "2023-03-22": "癸卯兔闰二月初一",
        "2023-04-19": "癸卯兔闰二月廿九",
        "2024-09-17": "甲辰龙八月十五",
        "2025-07-25": "乙巳蛇闰六月初一",
        "2026-02-16": "乙巳蛇腊月廿九",
        "2033-12-22": "癸丑牛闰冬月初一",
        "1949-10-01": "己丑牛八月初十",
    }
    for date, name in said.items():
        there = lunar(datetime.date.fromisoformat(date))
        assert f"{there.year_name}{there.animal}{there.month_name}{there.day_name}" == name


def test_the_chinese_calendar_has_no_gap() -> None:
    days = [datetime.date(1900, 1, 31) + datetime.timedelta(i) for i in range(73412)]
    for before, now in itertools.pairwise(map(lunar, days)):
        if now.day != 1:
            assert (now.year, now.month, now.leap, now.day) == (before.year, before.month, before.leap, before.day + 1)
        else:
            assert before.day in (29, 30)
            follows = [(before.year, before.month, True), (before.year, before.month + 1, False), (before.year + 1, 1, False)]
            assert (now.year, now.month, now.leap) in follows[before.leap :]
    for outside in (days[0] - datetime.timedelta(1), days[-1] + datetime.timedelta(1)):
        with pytest.raises(ValueError, match="1900-01-31"):
            lunar(outside)


def test_solar_terms() -> None:
    year = {  # 2026, as the Purple Mountain Observatory has it
        "01-05": "小寒", "01-20": "大寒", "02-04": "立春", "02-18": "雨水", "03-05": "惊蛰", "03-20": "春分",
        "04-05": "清明", "04-20": "谷雨", "05-05": "立夏", "05-21": "小满", "06-05": "芒种", "06-21": "夏至",
        "07-07": "小暑", "07-23": "大暑", "08-07": "立秋", "08-23": "处暑", "09-07": "白露", "09-23": "秋分",
        "10-08": "寒露", "10-23": "霜降", "11-07": "立冬", "11-22": "小雪", "12-07": "大雪", "12-22": "冬至",
    }  # fmt: skip
    days = [datetime.date(2026, 1, 1) + datetime.timedelta(i) for i in range(365)]
    assert {f"{day:%m-%d}": name for day in days if (name := term(day))} == year
    assert term(datetime.date(2021, 12, 21)) == "冬至"
    assert term(datetime.date(2025, 2, 3)) == "立春"
    with pytest.raises(ValueError, match="2001 to 2099"):
        term(datetime.date(2000, 3, 20))


def test_american_holidays() -> None:
    said = {
        "2026-01-19": "MLK Day",
        "2026-05-25": "Memorial Day",
        "2026-11-26": "Thanksgiving",
        "2026-07-04": "July 4th",
        "2026-09-07": "Labor Day",
    }
    assert {date: holiday(datetime.date.fromisoformat(date)) for date in said} == said
    assert holiday(datetime.date(2026, 5, 18)) is None


# ------------------------------------------------------------------------------------------- near misses


def test_near_misses_are_of_the_same_kind_and_never_the_answer() -> None:
    rng = random.Random(0)
    for figure in ("¥1280.50", "12:48", "7:59 PM", "G1024", "$9.99", "3"):
        slips = misread(figure, rng)
        assert len(slips) >= 3
        assert all(figure in misread(slip, rng) for slip in slips), figure
        assert figure not in slips
        assert {len(slip) for slip in slips} == {len(figure)}
    assert not [slip for slip in misread("23:58", rng) if not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", slip)]
    assert all(not slip.startswith("0") for slip in misread("10", rng))
    assert "陈刚" not in lookalike("陈刚", rng)
    assert "阵刚" in lookalike("陈刚", rng)
    for day in (datetime.date(2024, 2, 29), datetime.date(2023, 12, 31), datetime.date(2024, 1, 1)):
        near = near_dates(day, rng)
        assert day not in near
        assert len(set(near)) == len(near) >= 3


def test_each_of_four_figures_could_be_the_one_the_others_were_made_of() -> None:
    rng = random.Random(0)
    for figure in ("¥1280.50", "12:48", "G1024", "8:05 AM", "12:05 AM", "1:04 PM", "3", "5A", "110元", "20"):
        for others in ([], ["¥96.21", "21:17", "D307", "11:52 PM", "7", "11B", "98元"]):
            same = [other for other in others if re.sub("[0-9]", "", other) == re.sub("[0-9]", "", figure)]
            four = {figure, *figures_around(figure, same, rng)}
            assert len(four) == 4, (figure, four)
            assert not [one for one in four if re.match("(0|1[3-9]|2)[0-9]?:.*M", one)], four
            near = [sum(one in misread(other, rng) for other in four) for one in four]
            assert len(set(near)) == 1 or len(re.findall("[1-9]", figure)) < 3, (figure, four)
    four = around("李建国", ["王勇"], lookalike, rng)
    assert {"季建国", "王勇"} < set(four)
    assert set(four) & {"玉勇", "主勇"}
    assert around("陈刚", ["赵勇"], misread, rng) == []


@pytest.mark.parametrize("n", range(1, 12))
def test_numbers_in_a_row_have_the_right_one_anywhere(n: int) -> None:
    rng = random.Random(0)
    places = Counter(sorted([n, *rest]).index(n) for rest in (consecutive(n, rng, 1, 11) for _ in range(200)))
    assert set(places) == {place for place in range(4) if n - place >= 1 and n - place + 3 <= 11}


def test_wrong_dates_and_results_lie_on_either_side() -> None:
    rng = random.Random(0)
    day = datetime.date(2024, 5, 15)
    for other in (None, day + datetime.timedelta(30)):
        found = [near_dates(day, rng, other) for _ in range(200)]
        assert {sorted([day, *near]).index(day) for near in found} == {0, 1, 2, 3}
        assert all(len({day, *near}) == 4 for near in found)
    for at, days in itertools.product(range(28), (28, 31)):
        near = near_places(at, days, rng)
        assert len({at, *near}) == 4
        assert all(0 <= other < days for other in near)


def test_a_number_is_read_out_of_its_string() -> None:
    said = {
        "¥1,280.50": 1280.5,
        "38元": 38,
        "12 km": 12,
        "-4℃": -4,
        "14:25": 865,
        "2:25 PM": 865,
        "12:05 AM": 5,
        "12:05 PM": 725,
        "31%": 31,
    }
    assert {text: value_of(text) for text in said} == said


def test_what_lacks_three_wrong_choices_is_not_asked() -> None:
    asks = Asks(random.Random(0))
    mark = Mark("甲", (0, 0, 9, 9), Type("sans", 9), (0, 0))
    asks.read("?", mark, ["乙", "乙", "甲", "丙"])
    assert asks.found == []
    asks.read("?", mark, ["乙", "丁", "甲", "丙"])
    assert set(asks.found[0].choices(random.Random(1))) == set("甲乙丙丁")


# ---------------------------------------------------------------------------------------- the sequence


@needs_fonts
def test_item_i_is_the_same_whatever_n_is() -> None:
    short, long = pages.generate(6, seed=3), pages.generate(10, seed=3)
    for a, b in zip(short, long, strict=False):
        assert (a.id, a.question, a.choices, a.answers, a.meta) == (b.id, b.question, b.choices, b.answers, b.meta)
        assert a.images[0].data == b.images[0].data
    assert len(short) == 6
    assert pages.generate(1, seed=4)[0].question != short[0].question or pages.generate(1, seed=4)[0].choices != short[0].choices


@needs_fonts
def test_another_process_asks_the_same() -> None:
    """Nothing hangs on the order of a set, which differs from process to process."""
    code = "from tonggan.data.sources import pages; print([(a.question, a.wrong) for i in range(48) for a in pages.page(i, seed=1).asks])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([(ask.question, ask.wrong) for one in map(page, range(ROUND)) for ask in one.asks])


@needs_fonts
def test_rows_have_what_an_evaluation_needs() -> None:
    rows = pages.generate(32)
    for row in rows:
        assert row.split == "test"
        assert row.question
        assert len(row.choices) == len(set(row.choices)) == 4
        assert row.answers[0] in row.choices
        assert len(row.answers) == 1
        assert row.meta["synthetic"] == "yes"
        assert row.images[0].data is not None
        assert PIL.Image.open(io.BytesIO(row.images[0].data)).format == "PNG"
    assert sorted(Counter(row.group for row in rows).values()) == [4] * 8
    places = Counter(row.choices.index(row.answers[0]) for row in rows)
    assert set(places) == {0, 1, 2, 3}


@needs_fonts
def test_every_kind_is_there_at_every_difficulty_in_both_languages() -> None:
    combinations = Counter((one.lang, one.kind, one.difficulty) for one in map(page, range(ROUND)))
    assert set(combinations.values()) == {1}
    assert len(combinations) == ROUND
    styles = {one.style for one in map(page, range(2 * ROUND)) if one.difficulty == 3}
    assert styles == {"handwritten", "traditional", "occluded", "blurred"}


@needs_fonts
def test_without_handwriting_pip_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "handwritten", lambda: False)
    with pytest.raises(TongganError, match=r"npm pack .*handwriting=False"):
        pages.generate(1)
    printed = [pages.page(number, handwriting=False) for number in range(4, 2 * ROUND, 6)]
    assert not {mark.type.face for one in printed for mark in one.draft.canvas.marks} & {"pen", "brush"}


def test_without_its_typefaces_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fonts, "printed", lambda: False)
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path))
    assert not pages.Pages().available()
    with pytest.raises(TongganError, match=r"pip install pylopdf-fonts-zh-cn .* && mkdir -p .* && npm pack"):
        pages.generate(1)


def test_fetching_gets_what_is_missing_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path))
    monkeypatch.setattr(fonts, "printed", lambda: True)
    asked = []

    def pack(packages: tuple[str, ...], directory: Path) -> None:
        asked.append(packages)
        directory.mkdir(parents=True)
        for package in packages:
            name, version = package.removeprefix("@").replace("/", "-").split("@")
            (directory / f"{name}-{version}.tgz").write_bytes(b"")

    monkeypatch.setattr(pages.clients, "npm_pack", pack)
    monkeypatch.setattr(pages.clients, "pip_install", lambda packages: pytest.fail(f"{packages} are here already"))
    pages.Pages().fetch()
    assert asked == [fonts.NPM]
    assert pages.Pages().available()


def test_a_damaged_archive_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path))
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "fontsource-long-cang-5.3.0.tgz").write_bytes(b"not an archive")
    fonts._unpacked.cache_clear()
    try:
        with pytest.raises(TongganError, match="delete it and get it again"):
            fonts.font("pen", 7)
    finally:
        fonts._unpacked.cache_clear()


# ----------------------------------------------------------------- choices that do not give the answer away


Scores = Callable[[tuple[str, ...]], list[float]]


@cache
def similar(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def like_the_others(choices: tuple[str, ...]) -> list[float]:
    return [sum(similar(*sorted((one, other))) for other in choices if other != one) for one in choices]


def ranks(choices: tuple[str, ...]) -> list[int]:
    """The place of each number, the least is 0; nothing unless all are numbers. Strings decide where a float cannot (20 digits)."""
    try:
        row = sorted(choices, key=lambda choice: (value_of(choice), choice))
    except ValueError:
        return []
    return [row.index(choice) for choice in choices]


ATTACKS: dict[str, Scores] = {
    "the one most like the others": like_the_others,
    "the one least like the others": lambda choices: [-one for one in like_the_others(choices)],
    "the median number": lambda choices: [-abs(rank - 1.5) for rank in ranks(choices)],
    "the smallest number": lambda choices: [-float(rank) for rank in ranks(choices)],
    "the greatest number": lambda choices: [float(rank) for rank in ranks(choices)],
    "the shortest": lambda choices: [-float(len(choice)) for choice in choices],
    "the longest": lambda choices: [float(len(choice)) for choice in choices],
}


def hit(scores: list[float], right: int) -> float:
    """How often the choice of the highest score is the right one, with a draw among equals."""
    best = [i for i, score in enumerate(scores) if score > max(scores) - 1e-9]
    return (right in best) / len(best)


@cache
def asked() -> list[tuple[str, str, int, dict[str, list[float]]]]:
    """Language, rule, place of the answer and scores by attack, of 1,500 questions in each language."""
    found = []
    for number in range(750):
        one = pages.page(number, seed=0)
        for i, ask in enumerate(one.asks):
            choices = ask.choices(random.Random(f"choices/0/{4 * number + i}"))
            found.append((one.lang, ask.rule, choices.index(ask.answer), {name: attack(choices) for name, attack in ATTACKS.items()}))
    return found


@needs_fonts
@pytest.mark.parametrize("attack", ATTACKS)
def test_choices_alone_do_not_give_the_answer_away(attack: str) -> None:
    for lang in ("zh", "en"):
        rules: dict[str, list[float]] = {}
        for its, rule, right, scores in asked():
            if its == lang and scores[attack]:
                rules.setdefault(rule, []).append(hit(scores[attack], right))
        every = [one for hits in rules.values() for one in hits]
        assert len(every) == 1500 or "number" in attack
        assert abs(np.mean(every) - 0.25) < 0.05, (lang, np.mean(every))
        for rule, hits in rules.items():
            assert len(hits) < 60 or np.mean(hits) < 0.4, (lang, rule, np.mean(hits))


@needs_fonts
def test_times_are_of_the_clock_and_money_is_written_alike() -> None:
    for number in range(2 * ROUND):
        for ask in page(number).asks:
            for choice in (ask.answer, *ask.wrong):
                if time := re.fullmatch(r"(\d+):(\d\d)( [AP]M)?", choice):
                    assert (1 <= int(time[1]) <= 12) if time[3] else int(time[1]) < 24
                    assert int(time[2]) < 60
            assert len({choice[0] in "¥$" for choice in (ask.answer, *ask.wrong)}) == 1, (ask.question, ask.wrong)


# ------------------------------------------------------------------------------- what people would object to


def test_a_week_of_lessons_is_one_of_a_school() -> None:
    for seed, lower in itertools.product(range(20), (True, False)):
        week = _week(random.Random(seed), lower)
        lessons = Counter(lesson for day in week for lesson in day)
        assert [len(day) for day in week] == [6] * 5
        assert lessons["语文"] > lessons["数学"] > lessons["英语"]
        assert (lessons["英语"] == 0) == lower == (lessons["信息科技"] == 0)
        assert all("语文" in day and max(Counter(day).values()) <= 2 for day in week)


def test_places_on_a_road_come_in_its_order() -> None:
    for seed in range(50):
        ahead = _ahead(random.Random(seed), "松江25 嘉善72 嘉兴90 桐乡118 杭州172 诸暨245 义乌288", ())
        order = [["松江", "嘉善", "嘉兴", "桐乡", "杭州", "诸暨", "义乌"].index(place) for place, _ in ahead]
        assert order == list(range(order[0], order[0] + len(ahead)))
        assert 0 < ahead[0][1] < ahead[1][1] < ahead[-1][1]


def test_trains_in_taiwan_go_where_they_go() -> None:
    for seed, (here, (far, near)) in itertools.product(range(20), _HANT_THERE.items()):
        rows = _trains_hant(random.Random(seed), here)
        assert all(there in (near if kind.startswith("區間") else far) for _, kind, there, *_ in rows)
        assert len({there for _, _, there, *_ in rows}) == len({number for number, *_ in rows}) == len(rows)
    assert not [here for here, (far, _) in _HANT_THERE.items() if "沙崙" in far]


# ------------------------------------------------------------------------------------------- the layout


@needs_fonts
def test_nothing_overlaps_and_nothing_is_cut_off() -> None:
    for one in map(page, range(2 * ROUND)):
        canvas = one.draft.canvas
        for mark in canvas.marks:
            left, top, right, bottom = mark.box
            assert left >= 0 and top >= 0 and right <= canvas.width and bottom <= canvas.picture.height, (one.name, one.kind, mark.text)
        for a, b in itertools.combinations(canvas.marks, 2):
            across = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
            down = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
            assert across <= 1 or down <= 1, (one.name, one.kind, a.text, b.text)


@needs_fonts
def test_no_character_is_missing_from_its_typeface() -> None:
    for one in map(page, range(2 * ROUND)):
        for mark in one.draft.canvas.marks:
            assert fonts.covers(mark.type.face, mark.text), (one.name, mark.text, mark.type.face)


# --------------------------------------------------------------------- every answer, by a second route


def seen(one: pages.Page, mark: Mark) -> np.ndarray:
    """Where a mark's box differs from its paper, [0, 1], [height, width]; the paper is the commonest colour of the box's surroundings."""
    window = window_of(mark)
    crop = np.asarray(one.draft.canvas.picture.crop(window), np.float32)
    colors, counts = np.unique(crop.reshape(-1, 3), axis=0, return_counts=True)
    paper, ink = colors[counts.argmax()], np.array(mark.type.color, np.float32)
    along = ink - paper
    return np.clip((crop - paper) @ along / (along @ along), 0, 1)


def window_of(mark: Mark) -> tuple[int, int, int, int]:
    return int(mark.box[0]) - 12, int(mark.box[1]) - 4, int(mark.box[2]) + 13, int(mark.box[3]) + 5


def set_anew(text: str, mark: Mark) -> np.ndarray:
    """A string set by itself where the mark is, by Pillow alone and not by the page's own pen."""
    left, top, right, bottom = window_of(mark)
    sheet = PIL.Image.new("L", (right - left, bottom - top))
    pen, face = PIL.ImageDraw.Draw(sheet), fonts.font(mark.type.face, mark.type.size)
    x, y = mark.origin[0] - left, mark.origin[1] - top
    lines = [(c, y + 1.12 * mark.type.size * i) for i, c in enumerate(text)] if mark.vertical else [(text, y)]
    for part, at in lines:
        pen.text((x, at), part, 255, face, mark.anchor, stroke_width=(1 if mark.type.size < 56 else 2) if mark.type.bold else 0)
    return np.asarray(sheet, np.float32) / 255


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-9))


def read_back(one: pages.Page, mark: Mark, others: list[str]) -> str:
    """Which of the strings the pixels show where a mark is."""
    pixels = seen(one, mark)
    found = {text: likeness(pixels, set_anew(text, mark)) for text in dict.fromkeys([mark.text, *others])}
    best = max(found, key=lambda text: found[text])
    assert found[best] > 0.8, (one.name, mark.text, found)
    return best


def answer_from(one: pages.Page, ask: Ask) -> str:
    """The answer once more: strings are read out of the pixels, then its rule is followed anew."""
    others = [mark.text for mark in one.draft.canvas.marks][::4]
    texts = [read_back(one, mark, [*map(ask.printed, ask.wrong), *others] if mark is ask.evidence[0] else []) for mark in ask.evidence]
    numbers = [value_of(text) for text in texts] if ask.rule in ("sum", "difference") else []
    match ask.rule:
        case "read":
            for by in ask.evidence[1:]:
                assert by.text.lower() in ask.question.lower(), (ask.question, by.text)
                assert aligned(ask.evidence[0], by), (one.name, ask.question, by.text)
            return ask.form.format(texts[0])
        case "count":
            counted_anew = recount(one, ask.question)
            return ask.form.format(len(set(ask.evidence)) if counted_anew is None else counted_anew)
        case "sum":
            return the_choice(ask, sum(numbers))
        case "difference":
            return the_choice(ask, abs(numbers[0] - numbers[1]))
        case "most" | "least":
            assert aligned(ask.evidence[0], ask.evidence[1]) or one.kind == "chart"
            value, *rest = (value_of(text) for text in texts[1:])
            assert value > max(rest) if ask.rule == "most" else value < min(rest)
            return texts[0]
        case "amount":
            return ask.form.format(f"{fen_of(texts[0]) / 100:.2f}")
        case "absent":
            there = {mark.text for mark in one.draft.canvas.marks}
            assert set(ask.wrong) <= there
            assert ask.answer not in there
            return ask.answer
    return measured(one, ask)


def recount(one: pages.Page, question: str) -> int | None:
    """What is counted, found once more among all strings of the page and not by what the question was made of; None: not known how."""
    marks = one.draft.canvas.marks
    texts = [mark.text for mark in marks]

    def column(head: str) -> list[str]:
        top = next(mark for mark in marks if mark.text == head)
        return [mark.text for mark in marks if mark is not top and abs(mark.origin[0] - top.origin[0]) < 2 and mark.text.isdigit()]

    if found := re.search(r"^(.+)90分以上|90 or above in (\w+)", question):
        return sum(int(text) >= 90 for text in column(found[1] or found[2]))
    if found := re.search(r"几节(..)课", question):
        return texts.count(found[1])
    patterns = {
        "晚点|誤點|running late": r"晚.*分|.* late",
        "几趟列车？$|幾班車？$|departures are listed": r"\d+:\d\d( [AP]M)?",
        "几项商品": r"\*.*",
        "预报有雨": ".*雨",
        "几家店": ".{2,}店",
        "[几幾][块塊]牌子": "[一二三四五六七八九十]+元",
    }
    for asked, pattern in patterns.items():
        if re.search(asked, question):
            return sum(re.fullmatch(pattern, text) is not None for text in texts)
    return None


def the_choice(ask: Ask, value: float) -> str:
    (found,) = (choice for choice in (ask.answer, *ask.wrong) if abs(value_of(choice) - value) < 1e-6)
    return found


def aligned(a: Mark, b: Mark) -> bool:
    """In one row or in one column."""
    return any(min(a.box[i + 2], b.box[i + 2]) > max(a.box[i], b.box[i]) for i in (0, 1))


def measured(one: pages.Page, ask: Ask) -> str:
    """A bar by its height against the axis, a slice by its share of the pie's coloured pixels."""
    assert ask.shape is not None
    pixels = np.asarray(one.draft.canvas.picture, np.int16)
    left, top, right, bottom = (round(edge) for edge in ask.shape.box)
    if ask.shape.kind == "bar":
        column = (pixels[:, (left + right) // 2] == ask.shape.color).all(-1)
        ticks = sorted((mark for mark in one.draft.canvas.marks if mark.anchor == "rm"), key=lambda mark: mark.origin[1])
        per_pixel = (value_of(ticks[0].text) - value_of(ticks[-1].text)) / (ticks[-1].origin[1] - ticks[0].origin[1])
        value = column.sum() * per_pixel
    else:
        pie = pixels[top : bottom + 1, left : right + 1]
        areas = {s.name: (abs(pie - np.array(s.color)).sum(-1) < 12).sum() for s in one.draft.canvas.shapes}
        value = 100 * areas[ask.shape.name] / sum(areas.values())
    tolerance = 1.2 if ask.shape.kind == "slice" else ask.shape.value * 0.02 + 0.5
    assert abs(value - ask.shape.value) < tolerance, (one.name, ask.question, value)
    return ask.answer if ask.answer == ask.shape.name else ask.form.format(f"{ask.shape.value:.0f}")


@needs_fonts
def test_every_answer_is_read_out_of_the_pixels_again() -> None:
    for one in map(page, range(ROUND)):
        for ask in one.asks:
            assert answer_from(one, ask) == ask.answer, (one.name, ask.question)


@needs_fonts
def test_what_lies_on_a_page_leaves_its_answers_readable() -> None:
    touched = 0
    for one in [one for one in map(page, range(2 * ROUND)) if one.style == "occluded"]:
        draft = one.draft.canvas.picture
        stained = occluded(draft, one.draft.canvas.marks, one.asks, random.Random(0))
        bare = PIL.Image.fromarray((np.asarray(draft) == np.asarray(stained)).all(-1).astype(np.uint8))
        for ask in one.asks:
            if ask.rule != "read":
                continue
            mark = ask.evidence[0]
            shown = np.asarray(bare.crop(window_of(mark)), np.float32)
            touched += shown.mean() < 0.98
            left = {
                text: likeness(seen(one, mark) * shown, set_anew(text, mark) * shown) for text in map(ask.printed, (ask.answer, *ask.wrong))
            }
            assert max(left, key=lambda text: left[text]) == mark.text, (one.name, ask.question, left)
    assert touched >= 10


@needs_fonts
def test_hard_pages_differ_from_their_drafts() -> None:
    for one in map(page, range(2, 20, 3)):
        draft, shown = one.draft.canvas.picture, one.picture
        assert (shown.size == draft.size) == (one.difficulty == 1)
        assert np.asarray(shown).std() > 5


@needs_fonts
@pytest.mark.parametrize("face", ["pen", "brush", "sans", "caveat"])
def test_typefaces_say_what_they_lack(face: str) -> None:
    assert fonts.covers(face, "Abc 123")
    assert not fonts.covers(face, "\U000fffff")
    assert fonts.covers(fonts.fitting(face, "Fruit 12"), "Fruit 12")
