"""What scoring leaves behind: numbers, every question with what each protocol read, and one page in both languages."""

from __future__ import annotations

import json
from pathlib import Path

from tonggan.evaluate.predictions import Free
from tonggan.evaluate.protocols import RULES
from tonggan.evaluate.resample import Estimate
from tonggan.evaluate.scoring import Pair, Scored, differ, plain, records
from tonggan.report import Page, Words, interval
from tonggan.report.page import Said

SHOWN = 100
"""Questions read differently that the page lists; `items.jsonl` has all."""
LEFT = {
    "random": Words("drawn at random", "随机抽取"),
    "judge": Words("given to a judge", "交给评判模型"),
    "unread": Words("left unread", "不读取"),
}


def write(scored: Scored, out: str | Path) -> Path:
    """Write score.json, items.jsonl and report.html; gives the page's path."""
    where = Path(out)
    where.mkdir(parents=True, exist_ok=True)
    (where / "score.json").write_text(json.dumps(plain(scored), ensure_ascii=False, indent=1), encoding="utf-8")
    with (where / "items.jsonl").open("w", encoding="utf-8") as file:
        for record in records(scored):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return page(scored).write(where / "report.html")


def page(scored: Scored) -> Page:
    """Scores, how replies were read, and the questions that make the difference."""
    found = scored.predictions
    made = Page(
        Words("The same answers under other rules", "同样的回答，换一套规则"),
        Words(
            f"{found.path.name}: {len(found.items)} questions. Nothing is drawn at random: where a program would draw, the expected value "
            "stands, with the lowest and highest score that it could give.",
            f"{found.path.name}：{len(found.items)} 题。这里从不随机抽取：原程序会随机抽取之处按期望值计分，并给出可能的最低分和最高分。",
        ),
    )
    _scores(made, scored)
    _rules(made, scored)
    for pair in scored.pairs:
        _pair(made, pair)
    _questions(made, scored)
    if found.dropped or found.notes:
        made.part(Words("Not scored", "未计分"))
        told = [f"{one.where}: {one.reason}" for one in found.dropped]
        for text in (*found.notes, *told[:SHOWN], *([f"… {len(told) - SHOWN}"] if len(told) > SHOWN else [])):
            made.text(text, quiet=True)
    return made


def _scores(made: Page, scored: Scored) -> None:
    made.part(Words("Scores", "得分"))
    circular = scored.predictions.circular
    head: list[Said] = [
        Words("protocol", "协议"),
        Words("score, % (95 %)", "得分，%（95 %）"),
        Words("lowest possible", "可能的最低分"),
        Words("highest possible", "可能的最高分"),
        Words("replies left open", "悬而未决的回答"),
        *([Words("vanilla, %", "不轮换，%")] if circular else []),
    ]
    rows: list[list[Said]] = [
        [
            one.protocol,
            told(one.estimate),
            f"{100 * one.lowest:.1f}",
            f"{100 * one.highest:.1f}",
            Words(
                ", ".join(f"{count} {LEFT[left].en}" for left, count in one.left.items()) or "–",
                "，".join(f"{LEFT[left].zh} {count} 个" for left, count in one.left.items()) or "–",
            ),
            *([f"{100 * one.vanilla.value:.1f}"] if circular else []),
        ]
        for one in scored.scores
    ]
    made.table(head, rows)
    if circular:
        made.text(
            Words(
                "Score: every rotation of the choices must be right (circular). Vanilla: the first order alone.",
                "得分：选项的每种轮换都答对才算对（circular）。不轮换：只看第一种顺序。",
            ),
            quiet=True,
        )
    for one in scored.scores:
        made.text(f"{one.protocol}: {one.id}", quiet=True)


def _rules(made: Page, scored: Scored) -> None:
    made.part(Words("How replies were read", "回答是怎样读取的"))
    rows: list[list[Said]] = [[one.protocol, RULES[rule], str(count)] for one in scored.scores for rule, count in one.rules.items()]
    made.table([Words("protocol", "协议"), Words("rule", "规则"), Words("replies", "回答数")], rows)


def _pair(made: Page, pair: Pair) -> None:
    if not pair.groups:
        return
    made.part(Words(f"{pair.one} − {pair.other}", f"{pair.one} − {pair.other}"))
    made.text(
        Words(
            f"{told(pair.difference, sign=True)} points; {pair.count} questions are read differently. The groups add up to the difference.",
            f"{told(pair.difference, sign=True)} 个百分点；{pair.count} 题读法不同。各组之和即总差异。",
        )
    )
    head: list[Said] = [pair.one, pair.other, Words("questions", "题数"), Words("points", "百分点"), Words("for example", "例如")]
    rows: list[list[Said]] = [
        [RULES[group.rule], RULES[group.other_rule], str(len(group.ids)), f"{100 * group.points:+.1f}", ", ".join(group.ids[:3])]
        for group in pair.groups
    ]
    made.table(head, rows)


def _questions(made: Page, scored: Scored) -> None:
    """Questions that some two protocols read differently, with the reply and what each read."""
    names = list(scored.marked)
    first = scored.marked[names[0]]
    rows: list[list[Said]] = []
    for i, item in enumerate(scored.predictions.items):
        turn = next((t for name in names[1:] if (t := differ(first[i], scored.marked[name][i])) is not None), None)
        if turn is None:
            continue
        if isinstance(item, Free):
            reply, right, cells = item.reply, " | ".join(dict.fromkeys(item.answers)), [f"{scored.marked[n][i].score:.2f}" for n in names]
        else:
            reply, right = item.turns[turn].reply, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[item.turns[turn].right]
            reads = [scored.marked[n][i].reads[turn] for n in names]
            cells = ["–" if read.choice is None else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[read.choice] for read in reads]
            cells = [f"{cell} ({read.seen})" if read.seen and read.seen != cell else cell for cell, read in zip(cells, reads, strict=True)]
        rows.append([item.id, reply if len(reply) <= 160 else f"{reply[:80]} … {reply[-80:]}", right[:80], *cells])
    if not rows:
        return
    made.part(Words("Questions read differently", "读法不同的题目"))
    head: list[Said] = [Words("question", "题目"), Words("reply", "回答"), Words("right", "正确答案"), *names]
    more = Words(
        f"The first {SHOWN} of {len(rows)}; all are in items.jsonl.", f"共 {len(rows)} 题，此处列出前 {SHOWN} 题，全部见 items.jsonl。"
    )
    made.table(head, rows[:SHOWN], caption=more if len(rows) > SHOWN else "")


def told(e: Estimate, *, sign: bool = False) -> str:
    """A share as per cent with its interval, unbroken."""
    return interval(e.value, e.low, e.high, sign=sign)
