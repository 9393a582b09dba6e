"""data2vec's targets and loss against the paper's formulas, written out plainly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tonggan.objectives.latent import average_top, normalised, regression


def layers(count: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 7, 5, dtype=torch.float64) * (i + 1) + i for i in range(count)]


@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
def test_targets_are_the_mean_of_the_top_layers_each_normalised(norm: str) -> None:
    """Section 3.3: y_t = 1/K Σ â_t^l over the top K of L layers."""
    given, expected = layers(), torch.zeros(3, 7, 5, dtype=torch.float64)
    for layer in given[-2:]:
        for b in range(3):
            for t in range(7):
                for d in range(5):
                    over = {"instance": layer[b, :, d], "layer": layer[b, t, :], "none": torch.tensor([0.0])}[norm]
                    mean = float(over.mean())
                    deviation = math.sqrt(float(((over - mean) ** 2).mean()) + 1e-5) if norm != "none" else 1.0
                    expected[b, t, d] += (float(layer[b, t, d]) - mean) / deviation / 2
    assert torch.allclose(average_top(given, 2, norm), expected, atol=1e-12)  # type: ignore[arg-type]


def test_instance_norm_is_torchs_and_sees_no_padding() -> None:
    (layer, *_) = layers(1)
    assert torch.allclose(normalised(layer, "instance"), F.instance_norm(layer.transpose(1, 2)).transpose(1, 2), atol=1e-12)
    lengths = torch.tensor([7, 4, 2])
    found = normalised(layer, "instance", lengths)
    for row, (values, length) in enumerate(zip(layer, lengths.tolist(), strict=True)):
        assert torch.allclose(found[row, :length], normalised(values[None, :length], "instance")[0], atol=1e-12)
        assert not found[row, length:].any()


def test_the_norm_by_places_takes_away_what_rows_have_in_common_there() -> None:
    lengths = torch.tensor([7, 4, 2])
    (layer, *_) = layers(1)
    found = normalised(layer, "place", lengths)
    for place in range(7):
        own = [row for row in range(3) if place < int(lengths[row])]
        assert torch.allclose(found[own, place].mean(dim=0), torch.zeros(5, dtype=torch.float64), atol=1e-12)
        assert not found[[row for row in range(3) if row not in own], place].any()
    rows = torch.cat([found[row, : int(length)] for row, length in enumerate(lengths)])
    assert torch.allclose((rows**2).mean(dim=0), torch.ones(5, dtype=torch.float64), atol=1e-4)
    # States that tell of the place alone pass for something under the paper's norms, and are nothing here.
    placed = torch.randn(1, 7, 5, dtype=torch.float64).expand(3, 7, 5)
    assert float(normalised(placed, "instance").var()) > 0.9 and float(normalised(placed, "layer").var()) > 0.9
    assert float(normalised(placed, "place").abs().max()) < 1e-9


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="top 5 of 4 layers"):
        average_top(layers(), 5, "none")


@pytest.mark.parametrize(("beta", "scale"), [(2.0, None), (0.25, None), (0.0, None), (1.0, 0.3)])
def test_the_loss_is_smooth_l1(beta: float, scale: float | None) -> None:
    """Section 3.4: ½(y-f)²/β where |y-f| ≤ β, |y-f| - ½β otherwise; the squared error for β = 0."""
    torch.manual_seed(1)
    guess, aim = torch.randn(6, 5, dtype=torch.float64) * 2, torch.randn(6, 5, dtype=torch.float64)

    def cost(told: torch.Tensor) -> float:
        total = 0.0
        for f, y in zip(told.flatten().tolist(), aim.flatten().tolist(), strict=True):
            off = abs(y - f)
            total += off**2 if beta == 0 else off**2 / (2 * beta) if off <= beta else off - beta / 2
        return total / 6 * (5**-0.5 if scale is None else scale)

    found, spread = regression(guess, aim, beta=beta, scale=scale)
    assert float(found.loss) == pytest.approx(cost(guess), rel=1e-12)
    assert found.chance == pytest.approx(cost(aim.mean(dim=0).expand(6, 5)), rel=1e-12)
    assert found.floor == 0
    assert float(regression(aim, aim, beta=beta, scale=scale)[0].loss) == 0
    assert spread.targets == pytest.approx(float(aim.var(dim=0, correction=0).mean()))
    assert spread.predictions == pytest.approx(float(guess.var(dim=0, correction=0).mean()))


def test_with_squared_error_chance_is_the_variance_of_the_targets() -> None:
    aim = torch.randn(50, 9, generator=torch.Generator().manual_seed(2))
    found, spread = regression(aim * 0, aim, beta=0, scale=1.0)
    assert found.chance == pytest.approx(9 * spread.targets, rel=1e-5)


def test_a_collapsed_teacher_shows() -> None:
    """Every place told the same: the loss may be small, and chance and the spread of targets say why."""
    found, spread = regression(torch.randn(8, 4) * 0.01, torch.ones(8, 4), beta=1.0)
    assert found.chance == pytest.approx(0, abs=1e-12) and spread.targets == pytest.approx(0, abs=1e-12)
    assert spread.predictions > 0


def test_nothing_hidden_costs_nothing_and_can_be_differentiated() -> None:
    guess = torch.zeros(0, 4, requires_grad=True)
    found, _ = regression(guess, torch.zeros(0, 4), beta=1.0)
    found.loss.backward()
    assert float(found.loss.detach()) == 0


def test_halves_are_computed_in_single_precision() -> None:
    torch.manual_seed(3)
    guess, aim = torch.randn(4, 6).bfloat16(), torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = regression(guess, aim, beta=1.0)
    assert found.loss.dtype == torch.float32
    assert float(found.loss) == pytest.approx(float(regression(guess.float(), aim.float(), beta=1.0)[0].loss))
