"""The measures: each number by hand, and what must never pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tonggan.cli.verify import _print
from tonggan.verify.measure import EXACT, ROUNDING, WORSE, Difference, compare
from tonggan.verify.report import Report, Section

NAN = float("nan")


def test_numbers_by_hand() -> None:
    theirs = torch.tensor([[3.0, 4.0], [0.0, -8.0]])
    found = compare("x", theirs + torch.tensor([[0.0, 0.0], [0.2, 0.0]]), theirs, 0.025)
    assert found.absolute == pytest.approx(0.2)
    assert found.relative == pytest.approx(0.2 / 8)
    assert found.cosine == pytest.approx(8 / (8**2 + 0.2**2) ** 0.5)
    assert found.argmax is None
    assert not compare("x", theirs + 0.21, theirs, 0.025).passed


def test_only_places_that_are_seen_count() -> None:
    theirs = torch.ones(2, 3, 4)
    ours = theirs.clone()
    ours[1, 2] = 99
    seen = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert compare("x", ours, theirs, 0.0, seen=seen).passed
    assert not compare("x", ours, theirs, 0.0).passed
    # A table of pairs has no places, though it may have as many rows and columns as there are texts and places.
    assert not compare("x", ours[:, 2], theirs[:, 2], 0.0, seen=torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])).passed


def test_scores_agree_in_their_first_and_first_five() -> None:
    theirs = torch.arange(10.0).repeat(4, 1)
    ours = theirs.clone()
    ours[0, 0] = 100.0  # another first, and one of the first five pushes the fifth out
    found = compare("x", ours, theirs, 1.0, scores=True)
    assert found.argmax == 3 / 4
    assert found.top == (4 + 5 * 3) / 20


@pytest.mark.parametrize("by", ["relative", "cosine"])
@pytest.mark.parametrize(
    "ours", [torch.tensor([[NAN, 1.0]]), torch.tensor([[1.0, 1.0, 1.0]]), torch.zeros(0, 2)], ids=["nan", "shape", "empty"]
)
def test_what_cannot_be_compared_never_passes(ours: torch.Tensor, by: str) -> None:
    theirs = torch.ones(len(ours), 2)
    assert not compare("x", ours, theirs, 1e9 if by == "relative" else -1.0, by=by).passed  # type: ignore[arg-type]


def test_zero_is_only_like_zero() -> None:
    zero = torch.zeros(2, 2)
    assert compare("x", zero, zero, 0.0).passed
    assert not compare("x", zero + 1e-12, zero, 1.0).passed
    assert compare("x", zero + 1e-12, zero, 1e-5, floor=1e-6).passed


def test_rows_that_are_short_have_a_cosine_too() -> None:
    tiny = torch.tensor([[3e-9, 4e-9], [0.0, 0.0]])
    assert compare("x", tiny, tiny, 0.98, by="cosine").cosine == 1
    assert not compare("x", -tiny, tiny, 0.98, by="cosine").passed


def test_a_length_that_is_off_is_not_near_whatever_the_cosine() -> None:
    theirs = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    assert compare("x", theirs, theirs, 0.98, by="cosine").passed
    ours = theirs.clone()
    ours[2] *= 3
    found = compare("x", ours, theirs, 0.98, by="cosine")
    assert found.cosine == pytest.approx(1) and found.length == pytest.approx(3)
    assert not found.passed and found.reason == "3 times as long"
    assert not compare("x", theirs / 3, theirs, 0.98, by="cosine").passed
    assert not compare("x", theirs, torch.zeros_like(theirs), 0.98, by="cosine").passed


def test_a_clear_first_place_may_not_be_lost_among_many_numbers() -> None:
    random = torch.Generator().manual_seed(0)
    common = torch.randn(1, 2000, generator=random)
    theirs = common.repeat(8, 1)
    theirs[:, :8] += 8 * torch.eye(8)
    ours = theirs.clone()
    ours[0, 0] -= 8
    found = compare("x", ours, theirs, 0.98, by="cosine", scores=True)
    assert found.cosine is not None and found.cosine > 0.98
    assert found.clear == 7 / 8 and not found.passed and found.reason is not None and "88 %" in found.reason
    # Who is first by a hair may be second in a copy: 0.01 between the two, and 0.02 of rounding.
    close = common.repeat(8, 1)
    close[:, 3], close[:, 4] = 9.0, 8.99
    turned = close.clone()
    turned[:, 4] += 0.02
    found = compare("x", turned, close, 0.98, by="cosine", scores=True)
    assert found.argmax == 0 and found.clear is None and found.passed


def doubled(**changed: Any) -> Difference:
    one = Difference("x", absolute=1.0, relative=1e-4, tolerance=1e-5, double=1e-13, worse=3.0)
    return replace(one, **changed)


def test_rounding_has_a_ceiling_of_its_own_and_one_by_the_reference() -> None:
    assert doubled().passed and doubled().reason is None
    assert doubled(relative=ROUNDING, worse=WORSE).passed
    assert not doubled(relative=1.01 * ROUNDING, worse=1.0).passed, "however far the reference is off"
    assert not doubled(worse=1.01 * WORSE).passed
    assert not doubled(relative=NAN).passed and not doubled(worse=NAN).passed and not doubled(double=NAN).passed
    wrong = doubled(double=1.01 * EXACT, worse=9e9, relative=1.0)
    assert not wrong.passed and wrong.reason is None, "what differs in double precision is no rounding"
    for one in (doubled(worse=340.0), doubled(relative=0.02), wrong):
        assert Report("m", "x", {}, [Section("s", [doubled(), one, doubled(worse=99.0)])]).worst is one


def test_the_line_says_how_far_it_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    _print(Report("m", "x", {}, [Section("s", [doubled(worse=340.0), doubled(relative=0.1), doubled()])]))
    said = " ".join(capsys.readouterr().out.split())
    assert "OFF: 1.0e-13 in double, rounds 340 times as far as the reference" in said
    assert "OFF: 1.0e-13 in double, rounds by more than 0.01" in said
    assert "ok: 1.0e-13 in double" in said


def test_a_report_of_nothing_has_not_passed() -> None:
    assert not Report("m", "x", {}).passed
    report = Report("m", "x", {}, [Section("s", [Difference("a", relative=1e-6, tolerance=1e-5), Difference("b", problem="shapes")])])
    assert not report.passed
    assert report.worst.name == "b"
    near = Difference("near", cosine=0.985, tolerance=0.98, by="cosine")
    assert Report("m", "x", {}, [Section("s", [Difference("a", relative=1e-6, tolerance=1e-5), near])]).worst is near
