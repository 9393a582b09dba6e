"""People and companies, all made up."""

from __future__ import annotations

import random

from tonggan.data.sources.pages.pools import words

_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段钱汤"
)
_GIVEN = words(
    "伟 芳 敏 静 磊 洋 艳 勇 杰 娟 涛 明 超 秀英 秀兰 建国 建华 文博 子轩 雨桐 思远 欣怡 浩然 梓涵 佳琪 志强 海燕 晓东 晓梅 春生 "
    "玉兰 国平 家豪 雅婷 俊杰 诗涵 一鸣 宇航 美玲 立新 红梅 永康 丽华 振东 嘉怡 天佑 淑珍 小龙 大伟 晴 清 宁"
)
_CITIES = ("北京", "上海", "广州", "深圳", "杭州", "南京", "成都", "武汉", "西安", "苏州", "天津", "重庆", "长沙", "青岛", "宁波", "合肥")
_HOUSES = words("清禾 锦程 博远 晨曦 瑞丰 嘉和 鸿运 星海 恒信 华源 明德 百川 绿洲 佳美 云帆 天成 永安 同心 金桥 宏达 东升 远航 新月 长青")
_TRADES = ("商贸", "科技", "文化传媒", "办公用品", "贸易", "信息技术", "实业", "百货", "教育咨询", "物资")


def person(rng: random.Random) -> str:
    return rng.choice(_SURNAMES) + rng.choice(_GIVEN)


def people(rng: random.Random, n: int) -> list[str]:
    """`n` people with `n` names."""
    names: dict[str, None] = {}
    while len(names) < n:
        names[person(rng)] = None
    return list(names)


def company(rng: random.Random) -> str:
    return rng.choice(_CITIES) + rng.choice(_HOUSES) + rng.choice(_TRADES) + "有限公司"
