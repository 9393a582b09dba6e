"""Word and character error rate against jiwer and torchmetrics where they are installed, and by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.evaluate.metrics.speech import characters, error_rate, errors, words, zh_characters
from tonggan.evaluate.resample import statistic_interval
from tonggan.types import UsageError

REFERENCES = ["the cat sat on the mat", "hello  world", "一只 猫", "good morning"]
HYPOTHESES = ["the cat sit on mat", "hello brave new world", "一只 狗", ""]
GOLDEN_WER, GOLDEN_CER = 7 / 12, 27 / 50
"""What jiwer 4.0 gives for these."""


def rate(references: list[str], hypotheses: list[str], units: object = words) -> float:
    values = errors(references, hypotheses, units)  # type: ignore[arg-type]
    return float(error_rate(values, np.ones((1, len(values))))[0])


def random_texts(seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    vocabulary = ["the", "a", "cat", "dog", "sat", "on", "mat", "猫", "狗", "hello"]
    references = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 12))) for _ in range(20)]
    hypotheses = [
        " ".join(w if rng.random() < 0.7 else rng.choice(vocabulary) for w in r.split() if rng.random() < 0.9) for r in references
    ]
    return references, hypotheses


def test_by_hand() -> None:
    values = errors(REFERENCES, HYPOTHESES)
    assert values.tolist() == [[2, 6], [2, 2], [1, 2], [2, 2]]
    assert rate(REFERENCES, HYPOTHESES) == pytest.approx(GOLDEN_WER)
    assert rate(REFERENCES, HYPOTHESES, characters) == pytest.approx(GOLDEN_CER)


@pytest.mark.parametrize("seed", range(6))
def test_jiwer(seed: int) -> None:
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed: the rates are tested by hand only")
    references, hypotheses = random_texts(seed)
    assert rate(references, hypotheses) == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-9)
    assert rate(references, hypotheses, characters) == pytest.approx(jiwer.cer(references, hypotheses), abs=1e-9)
    assert jiwer.wer(REFERENCES, HYPOTHESES) == pytest.approx(GOLDEN_WER, abs=1e-9)
    assert jiwer.cer(REFERENCES, HYPOTHESES) == pytest.approx(GOLDEN_CER, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_torchmetrics(seed: int) -> None:
    text = pytest.importorskip("torchmetrics.functional.text", reason="torchmetrics is not installed: the rates are tested by hand only")
    references, hypotheses = random_texts(seed)
    # It computes in single precision.
    assert rate(references, hypotheses) == pytest.approx(text.word_error_rate(hypotheses, references).item(), rel=1e-6)
    assert rate(references, hypotheses, characters) == pytest.approx(text.char_error_rate(hypotheses, references).item(), rel=1e-6)


def test_chinese_without_full_width_forms_and_punctuation() -> None:
    assert zh_characters("今天，有１２ 个ＡＰＰ！") == list("今天有12个app")
    assert rate(["今天，天气好。"], ["今天天气好"], zh_characters) == 0
    assert rate(["今天天气好"], ["明天天气好"], zh_characters) == pytest.approx(1 / 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab ", max_size=8), st.text("ab ", max_size=8)), min_size=1, max_size=5))
def test_invariants(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    values = errors(references, hypotheses)
    assert errors(hypotheses, references)[:, 0].tolist() == values[:, 0].tolist()
    assert (values[:, 0] <= np.maximum([len(h.split()) for h in hypotheses], values[:, 1])).all()
    assert errors(references, references)[:, 0].tolist() == [0] * len(pairs)
    if values[:, 1].sum():
        assert rate(references, hypotheses) == pytest.approx(rate(references[::-1], hypotheses[::-1]))
        assert rate(references * 2, hypotheses * 2) == pytest.approx(rate(references, hypotheses))


def test_nothing_to_recognise_has_no_rate() -> None:
    assert np.isnan(rate([""], ["noise"]))
    assert rate(["", "a"], ["noise", "a"]) == 1  # said into silence, but counted


def test_the_rate_is_resampled_as_a_ratio() -> None:
    estimate = statistic_interval(errors(*random_texts(0)), list(range(20)), error_rate)
    assert estimate.low < estimate.value < estimate.high


def test_texts_must_pair() -> None:
    with pytest.raises(UsageError, match="one to each utterance"):
        errors(["a"], [])
