"""Rounding is told from what is wrong: what is beyond its tolerance in single precision is computed again in double."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hub import references_pairs
from hub.references import save_clip, tiny_clip
from tonggan import hub
from tonggan.backends import LocalModel
from tonggan.hub.read import Checkpoint
from tonggan.verify import Report
from tonggan.verify.measure import EXACT, WORSE, compare, repeated
from tonggan.verify.precision import in_double
from tonggan.verify.published import VERB, against_transformers
from verify.test_families import MODELS

TENSORS = ("from the same tensors", "from random tensors")
FILES, VERBS = "from files and strings", "verbs, against each item alone"
DOUBLED = {
    "AlignModel": {"embed(text)", "embed(image)", "features(text)", "features(image)"},
    "SentenceTransformer": {"embed(text)", "features(text)"},
    "Data2VecAudioModel": {"features(audio)"},
    "WhisperModel": {"features(audio)"},
    "ViTForImageClassification": {"features(image)", "features(image, logits)"},
    "ViltForImageAndTextRetrieval": {"match"},
    "BlipForImageTextRetrieval": {"match", "embed(image) · embed(text)", "features(text)", "features(image)"},
}
"""Verbs that two orders of the same operations give other last digits."""


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rounding at all is tolerated in single precision, as if every network were deep."""
    monkeypatch.setattr("tonggan.verify.published.OUTPUTS", 0.0)
    monkeypatch.setattr("tonggan.verify.published.GRADIENTS", 0.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_clip(tmp_path / "clip", tiny_clip())


def check(checkpoint: Checkpoint, directory: Path) -> Report:
    return against_transformers(checkpoint, directory, count=3, seed=0, backward=True)


def again(report: Report, *names: str) -> dict[str, Any]:
    return {f"{s.name}: {one.name}": one for s in report.sections if s.name in names for one in s.differences if one.double is not None}


def test_what_agrees_in_double_precision_was_rounding(strict: None, directory: Path) -> None:
    report = check(hub.read(directory), directory)
    found = again(report, *TENSORS, "gradients")
    assert found, "two orders of the same operations, and not one digit differs?"
    assert all(one.relative > 0 and one.passed and one.double < 1e-12 for one in found.values())
    assert report.diverged is None and not any("differs by" in note for note in report.notes)


@pytest.mark.parametrize("name", DOUBLED)
def test_a_right_model_passes_in_all_that_is_compared_however_it_rounds(strict: None, tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    MODELS[name](tmp_path / "model")
    report = against_transformers(hub.read(tmp_path / "model"), tmp_path / "model", count=2, seed=0, backward=False)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert DOUBLED[name] <= {key.split(": ")[1] for key in again(report, FILES, VERBS)}


def test_a_verb_that_is_a_little_wrong_is_no_rounding(strict: None, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LocalModel.embed

    def wrong(model: LocalModel, items: Any, options: Any = None) -> Any:
        found = right(model, items, options)
        return replace(found, vectors=found.vectors * (1 + 1e-5))

    monkeypatch.setattr(LocalModel, "embed", wrong)
    report = against_transformers(hub.read(directory), directory, count=2, seed=0, backward=False)
    assert {one.name for one in report.differences if not one.passed} == {"embed(text)", "embed(image)"}
    assert all(VERB < one.double < 2e-5 for one in again(report, FILES).values() if not one.passed)


@pytest.mark.parametrize("factor", [1 + 1e-4, 1 + 1e-5])
def test_a_weight_that_is_a_little_wrong_is_no_rounding(strict: None, directory: Path, factor: float) -> None:
    checkpoint = hub.read(directory)
    with torch.no_grad():
        checkpoint.module.get_parameter("image.transformer.blocks.1.feed_forward.up.weight")[0, 0] *= factor
    report = check(checkpoint, directory)
    found = again(report, *TENSORS, "gradients")
    wrong = {name for name, one in found.items() if not one.passed}
    assert {f"{section}: image_embeds" for section in TENSORS} <= wrong
    assert all(found[name].double > EXACT for name in wrong)
    assert "from the same tensors: text_embeds" not in wrong
    assert report.diverged is not None and report.diverged.ours == "image.transformer.blocks.1"


def test_a_gradient_that_is_a_little_wrong_is_no_rounding(strict: None, directory: Path) -> None:
    checkpoint = hub.read(directory)
    checkpoint.module.get_parameter("text.embedding.weight").register_hook(lambda gradient: gradient * (1 + 1e-5))
    found = again(check(checkpoint, directory), *TENSORS, "gradients")
    assert [name for name, one in found.items() if not one.passed] == ["gradients: of text_model.embeddings.token_embedding.weight"]


def test_a_deep_network_from_a_file_computes_what_it_does_from_memory(tmp_path: Path) -> None:
    """Kernels depend on where weights lie; both must lie alike, or each network of convolutions differs in the last digits."""
    place = references_pairs.save(tmp_path / "model", references_pairs.efficientnet())
    report = against_transformers(hub.read(place), place, count=2, seed=0, backward=False)
    assert {one.relative for s in report.sections if s.name in TENSORS for one in s.differences} == {0.0}


def test_a_formula_that_rounds_badly_is_not_excused_by_double_precision() -> None:
    x = torch.linspace(1, 2, 50)[None] + 3e2

    def variance(x: torch.Tensor) -> torch.Tensor:
        return x.var(dim=1, correction=0)

    def unstable(x: torch.Tensor) -> torch.Tensor:
        return (x * x).mean(dim=1) - x.mean(dim=1) ** 2

    single, double = (unstable(x), variance(x)), (unstable(x.double()), variance(x.double()))
    one = repeated(compare("variance", *single, 1e-5), single, double)
    assert one.double is not None and one.double <= EXACT
    assert one.worse is not None and one.worse > WORSE and not one.passed


def test_weights_are_the_same_tensors_behind_it() -> None:
    linear, norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
    kept = [t.data_ptr() for t in (*linear.parameters(), *norm.buffers())]
    both = nn.Sequential(linear, norm, linear).eval()
    with pytest.raises(RuntimeError, match="on the way"), in_double(both, linear):
        assert both(torch.ones(2, 3, dtype=torch.float64)).dtype == torch.float64
        raise RuntimeError("on the way")
    assert [t.data_ptr() for t in (*linear.parameters(), *norm.buffers())] == kept
    assert both(torch.ones(2, 3)).dtype == torch.float32
