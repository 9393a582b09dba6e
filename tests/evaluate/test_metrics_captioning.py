"""BLEU, ROUGE-L and CIDEr-D against pycocoevalcap's golden values (and pycocoevalcap itself where it is installed); tokens by hand."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.golden.captioning import FILE, cases, measured, sentence
from tonggan.evaluate.metrics.captioning import BLEU, CIDER_D, Frequencies, bleu, bleu_counts, cider_d, protocol, rouge_l
from tonggan.evaluate.metrics.tokens import tokenizer
from tonggan.evaluate.resample import Measure, intervals, mean_interval
from tonggan.types import MissingExtra, UsageError

GOLDEN = {case["name"]: case for case in json.loads(FILE.read_text())}
CASES = cases()
CAPTION = st.lists(st.sampled_from(["a", "dog", "cat", "runs", "猫"]), max_size=7)
PICTURES = st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3)), min_size=1, max_size=5)


def check(candidates: list[list[str]], references: list[list[list[str]]], expected: dict[str, Any]) -> None:
    counts, all_pictures = bleu_counts(candidates, references), np.ones((1, len(candidates)))
    for order in range(1, 5):
        assert bleu(order)(counts, all_pictures)[0] == pytest.approx(expected["bleu"][order - 1], abs=1e-9)
        assert bleu(order)(counts, np.eye(len(counts))) == pytest.approx(expected["bleu_each"][order - 1], abs=1e-9)
    for each, name in ((rouge_l(candidates, references), "rouge"), (cider_d(candidates, references), "cider")):
        assert each == pytest.approx(expected[f"{name}_each"], abs=1e-9)
        assert each.mean() == pytest.approx(expected[name], abs=1e-9)


def test_every_case_has_its_golden_values() -> None:
    assert list(GOLDEN) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    check(*CASES[name], GOLDEN[name])


@pytest.mark.parametrize("seed", range(100, 108))
def test_pycocoevalcap_itself(seed: int) -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed: only its golden values are tested")
    rng = random.Random(seed)
    references = [[sentence(rng, 20) for _ in range(rng.randint(1, 6))] for _ in range(25)]
    candidates = [sentence(rng, 20) if rng.random() < 0.3 else [*rng.choice(refs)[:-2], "ball"] for refs in references]
    check(candidates, references, measured(candidates, references))


@settings(deadline=None)
@given(pictures=PICTURES, seed=st.integers(0, 1000))
def test_order_of_pictures_and_references_changes_nothing(pictures: list[tuple[list[str], list[list[str]]]], seed: int) -> None:
    rng = random.Random(seed)
    order = rng.sample(range(len(pictures)), len(pictures))
    candidates, references = [p[0] for p in pictures], [p[1] for p in pictures]
    shuffled = [candidates[i] for i in order], [rng.sample(references[i], len(references[i])) for i in order]
    assert bleu_counts(*shuffled) == pytest.approx(bleu_counts(candidates, references)[order])
    assert rouge_l(*shuffled) == pytest.approx(rouge_l(candidates, references)[order])
    assert cider_d(*shuffled) == pytest.approx(cider_d(candidates, references)[order])


@settings(deadline=None)
@given(pictures=PICTURES)
def test_scores_stay_in_their_range_and_a_reference_is_best(pictures: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates, references = [p[0] for p in pictures], [p[1] for p in pictures]
    for scores, most in ((rouge_l(candidates, references), 1), (cider_d(candidates, references), 10)):
        assert ((scores >= 0) & (scores <= most + 1e-9)).all()
    alone = [[refs[0]] for refs in references]
    assert rouge_l([refs[0] for refs in references], alone) == pytest.approx(np.ones(len(references)))
    assert (cider_d([refs[0] for refs in references], alone) >= cider_d(candidates, alone) - 1e-9).all()


@settings(deadline=None)
@given(pictures=PICTURES)
def test_each_picture_twice_changes_no_mean_but_cider(pictures: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates, references = [p[0] for p in pictures], [p[1] for p in pictures]
    counts, twice = bleu_counts(candidates, references), bleu_counts(candidates * 2, references * 2)
    assert bleu()(twice, np.ones((1, len(twice)))) == pytest.approx(bleu()(counts, np.full((1, len(counts)), 2)), abs=1e-9)
    assert rouge_l(candidates * 2, references * 2).mean() == pytest.approx(rouge_l(candidates, references).mean())
    known = Frequencies.count(references)
    assert cider_d(candidates * 2, references * 2, known).mean() == pytest.approx(cider_d(candidates, references).mean())


def test_a_subset_keeps_its_scores_under_the_frequencies_of_the_full_set() -> None:
    candidates, references = CASES["random 3"]
    every = cider_d(candidates, references)
    assert cider_d(candidates[:4], references[:4], Frequencies.count(references)) == pytest.approx(every[:4])
    assert cider_d(candidates[:4], references[:4]) != pytest.approx(every[:4])
    assert "frequencies are those of the full set" in CIDER_D


def test_bleu_is_resampled_as_a_corpus() -> None:
    """Each resample is what BLEU of that many copies of the pictures gives; a mean of the pictures' own BLEU is something else."""
    candidates, references = CASES["random 2"]
    counts = bleu_counts(candidates, references)
    times = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=3)
    for row in times:
        drawn = [i for i, count in enumerate(row) for _ in range(count)]
        copies = bleu_counts([candidates[i] for i in drawn], [references[i] for i in drawn])
        assert bleu()(counts, row[None]) == pytest.approx(bleu()(copies, np.ones((1, len(copies)))))
    [estimate] = intervals([Measure(bleu(2), counts)], range(len(counts)))
    assert estimate.value == pytest.approx(GOLDEN["random 2"]["bleu"][1])
    assert estimate.low < estimate.value < estimate.high
    assert mean_interval(cider_d(candidates, references), range(len(counts))).value == pytest.approx(GOLDEN["random 2"]["cider"])


def test_five_thousand_pictures_take_seconds() -> None:
    """A fifth of them here: 1,000 pictures with 5 references each."""
    rng = random.Random(0)
    words = [f"w{int(rng.paretovariate(0.7))}" for _ in range(20_000)]
    references = [[rng.choices(words, k=rng.randint(8, 13)) for _ in range(5)] for _ in range(1000)]
    start = time.process_time()
    cider_d([refs[0][::-1] for refs in references], references)
    assert time.process_time() - start < 2


def test_errors_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="one caption to each picture"):
        rouge_l([["a"]], [])
    with pytest.raises(UsageError, match=r"picture 1 .* has no reference"):
        cider_d([["a"], ["a"]], [[["a"]], []])
    with pytest.raises(UsageError, match="cut into tokens first"):
        bleu_counts(["a dog"], [["a dog"]])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="did you mean 'zh-char'"):
        tokenizer("zh-chars")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog doesn't like the U.S. flag, can't it?", "a man 's dog does n't like the u.s. flag ca n't it"),
        ("Black/white T-shirts... 1,000 people at 12:30 a.m.!", r"black\/white t-shirts 1,000 people at 12:30 a.m."),
        ("She cannot; it's o'clock: \"quoted\" -- the dogs' bowl", "she can not it 's o'clock quoted the dogs bowl"),
        ("a colourful four-hour tour of the grey theatre & harbour", "a colorful four-hour tour of the gray theater & harbor"),
        ("Grey is kept; a glamour detour", "grey is kept a glamour detour"),
        ("St. Paul lives on Main St.", "st. paul lives on main st"),
        ("They’re gonna wanna pay $5.50 (50%)", "they 're gon na wan na pay $ 5.50 -lrb- 50 % -rrb-"),
        ("\n\t", ""),
    ],
)
def test_penn_treebank_rules(text: str, tokens: str) -> None:
    assert " ".join(tokenizer("ptb").cut(text)) == tokens


def test_chinese_is_cut_into_characters() -> None:
    assert tokenizer("zh-char").cut("一只ＡＢ猫，在 iPhone15 上。") == ["一", "只", "ab", "猫", "在", "iphone15", "上"]


def test_the_way_of_cutting_is_in_the_protocol() -> None:
    assert protocol(BLEU, tokenizer("zh-char")).endswith(tokenizer("zh-char").id)
    assert len({protocol(BLEU, tokenizer(name)) for name in ("ptb", "zh-char", "given")}) == 3


def test_jieba() -> None:
    pytest.importorskip("jieba", reason="jieba is not installed: pip install 'tonggan[metrics]'")
    words = tokenizer("zh-jieba")
    assert words.cut("一只小狗在草地上奔跑。") == ["一只", "小狗", "在", "草地", "上", "奔跑"]
    assert words.id.startswith("zh-jieba/v1 (jieba 0.4")


def test_absent_jieba_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tonggan\[metrics\]'"):
        tokenizer("zh-jieba")
