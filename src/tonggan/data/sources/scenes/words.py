"""What a scene is called, in English and Chinese; both say the same, and nothing that is not so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tonggan.data.sources.scenes.world import Scene, Size, Thing, place_name

Look = tuple[Size, str, str]

EN_NUMBERS = ("no", "a", "two", "three", "four", "five", "six")
ZH_NUMBERS = ("零", "一", "两", "三", "四", "五", "六")
ZH_SIZES = {"small": "小", "large": "大"}
ZH_COLORS = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色",
    "purple": "紫色", "pink": "粉色", "brown": "棕色", "gray": "灰色", "black": "黑色",
}  # fmt: skip
ZH_SHAPES = {
    # measure word, noun
    "circle": ("个", "圆形"),
    "square": ("个", "正方形"),
    "triangle": ("个", "三角形"),
    "diamond": ("个", "菱形"),
    "star": ("颗", "五角星"),
    "heart": ("颗", "爱心"),
    "cross": ("个", "十字"),
    "ring": ("个", "圆环"),
    "moon": ("弯", "月牙"),
}
_EN_PLURALS = {"cross": "crosses"}
EN_PLACES = {
    (-1, -1): "in the upper left corner", (0, -1): "at the top", (1, -1): "in the upper right corner",
    (-1, 0): "on the left", (0, 0): "in the middle", (1, 0): "on the right",
    (-1, 1): "in the lower left corner", (0, 1): "at the bottom", (1, 1): "in the lower right corner",
}  # fmt: skip
ZH_PLACES = {
    (-1, -1): "左上角", (0, -1): "上边", (1, -1): "右上角",
    (-1, 0): "左边", (0, 0): "中间", (1, 0): "右边",
    (-1, 1): "左下角", (0, 1): "下边", (1, 1): "右下角",
}  # fmt: skip
RELATIONS = {
    "left": ("to the left of", "左边"),
    "right": ("to the right of", "右边"),
    "above": ("above", "上面"),
    "below": ("below", "下面"),
}


@dataclass(frozen=True, slots=True)
class Said:
    """One thing said in both languages."""

    en: str
    zh: str

    def in_(self, lang: str) -> str:
        """In one of them, `en` or `zh`."""
        return self.zh if lang == "zh" else self.en


def english(scene: Scene) -> str:
    """For example `two small red stars and a large blue circle`."""
    first = scene.things[0]
    if scene.kind == "one":
        return f"{english_look(first.look)} {EN_PLACES[place_name(first)]}"
    if scene.kind == "relation":
        second = scene.things[1]
        return f"{english_look(first.look)} {RELATIONS[relation(first, second)][0]} {english_look(second.look)}"
    *most, last = (english_look(look, n) for look, n in _tally(scene))
    return f"{', '.join(most)} and {last}" if most else last


def chinese(scene: Scene) -> str:
    """For example `两颗红色的小五角星和一个蓝色的大圆形`."""
    first = scene.things[0]
    if scene.kind == "one":
        return f"{ZH_PLACES[place_name(first)]}有{chinese_look(first.look)}"
    if scene.kind == "relation":
        second = scene.things[1]
        return f"{chinese_look(first.look)}在{chinese_look(second.look)}的{RELATIONS[relation(first, second)][1]}"
    *most, last = (chinese_look(look, n) for look, n in _tally(scene))
    return f"{'、'.join(most)}和{last}" if most else last


def relation(a: Thing, b: Thing) -> str:
    """Where `a` is, seen from `b`: left, right, above or below, by the greater distance."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _tally(scene: Scene) -> list[tuple[Look, int]]:
    return list(Counter(thing.look for thing in scene.things).items())


def english_look(look: Look, n: int = 1) -> str:
    """For example `two small red stars`."""
    size, color, shape = look
    return f"{EN_NUMBERS[n]} {size} {color} {shape if n == 1 else plural(shape)}"


def chinese_look(look: Look, n: int = 1) -> str:
    """For example `两颗红色的小五角星`. The size stands by the noun: 大红色 would be a colour of its own."""
    size, color, shape = look
    measure, noun = ZH_SHAPES[shape]
    return f"{ZH_NUMBERS[n]}{measure}{ZH_COLORS[color]}的{ZH_SIZES[size]}{noun}"


def plural(shape: str) -> str:
    """`stars`, `crosses`."""
    return _EN_PLURALS.get(shape, shape + "s")


def name(color: str, shape: str) -> Said:
    """`red star`, `红色的五角星`: what tells a thing apart, as no scene has two that differ in size alone."""
    return Said(f"{color} {shape}", f"{ZH_COLORS[color]}的{ZH_SHAPES[shape][1]}")


def the(thing: Thing) -> Said:
    """`the red star`, `红色的五角星`."""
    called = name(thing.color, thing.shape)
    return Said(f"the {called.en}", called.zh)


def number(n: int, measure: str = "个") -> Said:
    """`two`, `两颗`."""
    return Said("one" if n == 1 else EN_NUMBERS[n], f"{ZH_NUMBERS[n]}{measure}")
