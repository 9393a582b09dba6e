"""Menus: a restaurant at home, or a small eatery in Taiwan (繁體)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tonggan.data.sources.pages.asking import Asks, Draft, Style
from tonggan.data.sources.pages.canvas import INK, WHITE, Canvas, Mark, Type
from tonggan.data.sources.pages.pools import words

STYLES = ("handwritten", "traditional", "traditional", "occluded", "blurred")


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the menu: its measure word, its lowest and highest price in yuan, its dishes (`dish/measure word` for another)."""

    measure: str
    low: int
    high: int
    dishes: tuple[str, ...]


_SECTIONS = {
    "凉菜": _Section(
        "份", 12, 36, words("拍黄瓜 凉拌木耳 夫妻肺片 口水鸡 皮蛋豆腐 老醋花生 蒜泥白肉 糖拌西红柿 五香牛肉 凉拌海带丝 捞汁秋葵 香菜拌豆干")
    ),
    "热菜": _Section(
        "份",
        22,
        98,
        words(
            "红烧肉 宫保鸡丁 鱼香肉丝 麻婆豆腐 回锅肉 西红柿炒鸡蛋 地三鲜 水煮鱼 糖醋里脊 清炒时蔬 干煸豆角 京酱肉丝 清蒸鲈鱼 "
            "梅菜扣肉 小炒黄牛肉 剁椒鱼头 蚝油生菜 尖椒炒肉 虾仁滑蛋 酸辣土豆丝 蒜蓉粉丝虾 红烧茄子"
        ),
    ),
    "汤羹": _Section("碗", 12, 46, words("酸辣汤 紫菜蛋花汤 西湖牛肉羹 冬瓜排骨汤 番茄牛腩汤 萝卜老鸭汤 鲫鱼豆腐汤 银耳莲子羹 玉米排骨汤")),
    "面点": _Section(
        "碗",
        10,
        32,
        words("扬州炒饭/份 牛肉面 葱油拌面 猪肉水饺/份 小笼包/笼 鲜肉馄饨 担担面 雪菜肉丝面 蛋炒饭/份 红烧排骨面 刀削面 生煎包/份"),
    ),
    "饮品": _Section(
        "杯", 6, 28, words("酸梅汤 现磨豆浆 鲜榨橙汁 菊花茶/壶 冰镇啤酒/瓶 椰汁/瓶 老酸奶 柠檬水 普洱茶/壶 桂花米酒/壶 山楂汁 玉米汁")
    ),
}
_HANT_SECTIONS = {
    "飯類": _Section("碗", 35, 110, words("滷肉飯 雞肉飯 排骨飯 蝦仁炒飯 焢肉飯 咖哩飯 蛋炒飯 鴨肉飯 豬腳飯")),
    "麵類": _Section("碗", 45, 180, words("紅燒牛肉麵 擔仔麵 陽春麵 麻醬麵 餛飩麵 炸醬麵 鍋燒意麵 炒米粉 蚵仔麵線 榨菜肉絲麵")),
    "湯類": _Section("碗", 25, 90, words("貢丸湯 魚丸湯 酸辣湯 蛤蜊湯 蘿蔔排骨湯 味噌湯 餛飩湯 虱目魚湯 豬血湯 玉米濃湯")),
    "小菜": _Section("份", 10, 90, words("燙青菜 滷蛋 皮蛋豆腐 涼拌黃瓜 海帶 豆乾 油豆腐 嘴邊肉 臭豆腐 蚵仔煎 鹹酥雞")),
    "飲料": _Section("杯", 20, 70, words("珍珠奶茶 冬瓜茶 豆漿 米漿 紅茶 檸檬綠茶 楊桃汁 酸梅湯 烏龍茶")),
}
_NAMES = words("老街坊家常菜 湘里人家 江南小馆 蜀香阁 东北一家人 巷子口饭店 聚福楼 好味道餐厅 南北小厨 运河边食堂 小城故事 外婆的灶台")
_HANT_NAMES = words("阿財小吃店 老王牛肉麵 巷口小吃 阿嬤的廚房 圓環邊小吃 廟口老店 福來飯館 鄉味小館")
_LOOKS = (
    # paper, ink, accent
    ((255, 252, 245), INK, (170, 40, 32)),
    ((247, 241, 226), (62, 40, 28), (140, 52, 24)),
    ((255, 255, 255), INK, (20, 104, 92)),
    ((38, 58, 50), (244, 242, 230), (250, 214, 120)),
    ((122, 24, 24), (255, 244, 214), (255, 214, 110)),
)


def draw(rng: random.Random, style: Style) -> Draft:
    paper, ink, accent = rng.choice(_LOOKS[3:] if style.hand else _LOOKS)
    canvas, asks = Canvas(760, 1400, paper), Asks(rng)
    face = rng.choice(["pen", "brush"]) if style.hand else rng.choice(["serif", "sans"]) + ("-hant" if style.hant else "")
    dish, small = Type(face, 38 if style.hand else 27, ink), Type(face, 27 if style.hand else 20, ink)
    sections = _HANT_SECTIONS if style.hant else _SECTIONS
    canvas.text(380, 36, rng.choice(_HANT_NAMES if style.hant else _NAMES), Type(face, 54, accent), "ma")
    canvas.text(380, 116, "菜　單" if style.hant else "菜　单", small.but(color=accent), "ma")

    y = 176.0
    written: dict[str, tuple[Mark, list[tuple[Mark, Mark, str]]]] = {}
    for section in rng.sample(list(sections), rng.randint(2, 3)):
        part = sections[section]
        title = canvas.text(60, y, section, dish.but(color=accent, bold=not style.hand))
        canvas.rule(y + 48, 60, 700, accent, 2)
        y += 66
        step = 5 if style.hant else rng.choice([1, 2])
        prices = rng.sample(range(part.low, part.high + 1, step), 6)
        written[section] = (title, [])
        for name, price in zip(rng.sample(part.dishes, rng.randint(4, 6)), prices, strict=False):
            name, _, own = name.partition("/")
            left = canvas.text(70, y + dish.size, name, dish, "ls")
            unit = canvas.text(690, y + dish.size, f"/{own or part.measure}", small, "rs")
            right = canvas.text(unit.box[0] - 5, y + dish.size, f"{price}元", dish, "rs")
            _dots(canvas, left, right, ink, paper)
            written[section][1].append((left, right, own or part.measure))
            y += 48
        y += 26
    canvas.rect((24, 20, 736, y + 6), outline=accent, width=3)
    canvas.cut(y + 30)
    _ask(asks, written, style)
    return Draft(canvas, asks)


def _dots(canvas: Canvas, left: Mark, right: Mark, ink: tuple[int, int, int], paper: tuple[int, int, int]) -> None:
    """The dotted line from a dish to its price."""
    pale = tuple((2 * b + a) // 3 for a, b in zip(ink, paper, strict=True))
    for x in range(round(left.right) + 14, round(right.box[0]) - 10, 9):
        canvas.pen.point([(x, right.bottom - 3), (x + 1, right.bottom - 3)], fill=pale or WHITE)


def _near_fives(price: str, rng: random.Random) -> list[str]:
    """Prices in Taiwan are multiples of five, and so is what is one slip away: 30元, 55元 of 35元."""
    number = int(price.removesuffix("元"))
    other = [number + step for step in (-20, -10, 10, 20)] + [number + (5 if number % 10 == 0 else -5)]
    # Only the tens and the ones change, each by itself.
    near = [f"{one}元" for one in other if one > 0 and one // 100 == number // 100 and len(str(one)) == len(str(number))]
    rng.shuffle(near)
    return near


def _ask(asks: Asks, written: dict[str, tuple[Mark, list[tuple[Mark, Mark, str]]]], style: Style) -> None:
    rng, hant = asks.rng, style.hant
    every = [dish for _, dishes in written.values() for dish in dishes]
    prices = [price.text for _, price, _ in every]
    for name, price, measure in rng.sample(every, 3):
        one = f"一{measure}" if hant or measure != "份" else "一份"
        question = f"“{name.text}”{one}多少錢？" if hant else f"“{name.text}”多少钱{one}？"
        others = [other for _, other, _ in every if other is not price]
        asks.figure(question, price, others, [name], slips=_near_fives if hant else None)
        if prices.count(price.text) == 1:
            question = f"菜單上哪一樣賣{price.text}？" if hant else f"菜单上哪一样卖{price.text}？"
            asks.read(question, name, [other for other, _, _ in every if other is not name], [price])
    for section, (_, dishes) in written.items():
        names = [name for name, _, _ in dishes]
        values = [price for _, price, _ in dishes]
        asks.count(f"“{section}”一共有幾樣？" if hant else f"“{section}”一共有几样？", names, "{}樣" if hant else "{}样")
        asks.extreme(f"“{section}”裡最貴的是哪一樣？" if hant else f"“{section}”里最贵的是哪一样？", names, values, "most")
        asks.extreme(f"“{section}”裡最便宜的是哪一樣？" if hant else f"“{section}”里最便宜的是哪一样？", names, values, "least")
    (a, pa, ma), (b, pb, mb) = rng.sample(every, 2)
    question = f"點一{ma}{a.text}和一{mb}{b.text}，一共多少錢？" if hant else f"点一{ma}{a.text}和一{mb}{b.text}，一共多少钱？"
    asks.total(question, [pa, pb], lambda value: f"{value:.0f}元", _near_fives if hant else None)
    there = {name.text for name, _, _ in every}
    sections = _HANT_SECTIONS if hant else _SECTIONS
    gone = [name.partition("/")[0] for section in written for name in sections[section].dishes]
    missing = rng.choice([name for name in gone if name not in there])
    asks.add("下面哪一樣菜單上沒有？" if hant else "下面哪一样菜单上没有？", missing, rng.sample(sorted(there), 3), rule="absent")
