"""What each family makes of awkward pictures, byte by byte, against the library's own processor; and texts of every kind, id by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoTokenizer

from awkward import awkward
from hub import references_pairs as references
from hub.references import clip_tokenizer, close, picture
from tonggan.config import height_width
from tonggan.data.images import ImageProcessor
from tonggan.hub.convert.preprocessor import NAMED, image_in, image_out
from tonggan.hub.convert.tokenizer import read_tokenizer

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "siglip": ("siglip", {}),
    "siglip large": ("siglip", {"size": {"height": 97, "width": 97}}),
    "chinese-clip": ("chinese_clip", {}),
    "chinese-clip larger than its crop": ("chinese_clip", {"size": {"shortest_edge": 61}, "crop_size": {"height": 40, "width": 40}}),
    "align": ("align", {}),
    "align, crop not square": ("align", {"crop_size": {"height": 21, "width": 39}}),
    "vit, not square": ("vit", {}),
    "vit, one number": ("vit", {"size": 30}),
    "efficientnet": ("efficientnet", {}),
    "efficientnet, crop": ("efficientnet", {"do_center_crop": True, "crop_size": {"height": 30, "width": 30}, "resample": 3}),
}


def awkward_pictures() -> dict[str, PIL.Image.Image]:
    """Thin, tiny, huge, and of every mode that files have."""
    plain = picture(90, 70)
    clear = plain.convert("RGBA")
    clear.putalpha(PIL.Image.linear_gradient("L").resize(plain.size))
    return {
        "plain": plain,
        "one pixel": picture(1, 1),
        "one line": picture(700, 1),
        "one column": picture(1, 640),
        "thin": picture(900, 11, 1),
        "tiny": picture(5, 3, 2),
        "huge": picture(2600, 1900, 3),
        "grey": plain.convert("L"),
        "grey with alpha": clear.convert("LA"),
        "palette": plain.quantize(17),
        "transparent": clear,
        "CMYK": plain.convert("CMYK"),
        "bilevel": plain.convert("1"),
    }


def saved(family: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The library's processor and what it writes of itself."""
    theirs = references.image_processor(family, **settings)
    return theirs, theirs.to_dict()


@pytest.mark.parametrize("what", SETTINGS)
def test_pixels_are_the_librarys_within_one(what: str) -> None:
    family, settings = SETTINGS[what]
    theirs, written = saved(family, settings)
    ours = ImageProcessor(image_in(written, "here"))
    bare = {"do_rescale": False, "do_normalize": False, **({"include_top": False} if "include_top" in written else {})}
    for name, shown in awkward_pictures().items():
        # ViT's and EfficientNet's take pictures in colour only.
        expected = np.asarray(theirs(shown.convert("RGB"), **bare)["pixel_values"][0])
        found = ours(shown)
        assert found.shape == expected.shape == (3, *height_width(ours.config.side))
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1, name


@pytest.mark.parametrize("what", SETTINGS)
def test_normalised_they_are_equal_also_after_writing_the_settings_back(what: str) -> None:
    """Rescaling with an offset and dividing twice are one mean and one deviation to us."""
    family, settings = SETTINGS[what]
    theirs, written = saved(family, settings)
    config = image_in(written, "here")
    kind = NAMED[written["image_processor_type"]]
    again = type(theirs)(**{name: value for name, value in image_out(config, kind).items() if name != "image_processor_type"})
    shown = picture(90, 70)
    expected = torch.as_tensor(theirs(shown, return_tensors="pt")["pixel_values"])
    pixels = torch.from_numpy(ImageProcessor(config)(shown)).double() / 255
    ours = (pixels - torch.tensor(config.mean).view(3, 1, 1)) / torch.tensor(config.std).view(3, 1, 1)
    close(ours[None].float(), expected, 2e-6)
    close(torch.as_tensor(again(shown, return_tensors="pt")["pixel_values"]), expected, 2e-6)


@pytest.mark.parametrize("published", [True, False], ids=["twice", "once"])
def test_efficientnets_defaults_are_the_librarys(published: bool) -> None:
    """A file that is silent: 346 pixels squared, divided twice by the deviation."""
    written = {"image_processor_type": "EfficientNetImageProcessor", **({} if published else {"include_top": False})}
    config = image_in(written, "here")
    assert config.side == 346 and config.std == ((0.25,) * 3 if published else (0.5,) * 3)


def test_ids_of_two_thousand_awkward_strings_bert(tmp_path: Path) -> None:
    references.with_wordpiece(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path, max_length=None, context=40, pad="[PAD]")
    texts = awkward(2000)
    found, cut = ours.encode(texts)
    assert found == theirs(texts, truncation=True)["input_ids"]
    assert cut == [i for i, ids in enumerate(theirs(texts)["input_ids"]) if len(ids) > 40]


def test_ids_of_two_thousand_awkward_strings_clip(tmp_path: Path) -> None:
    theirs = clip_tokenizer()
    theirs.save_pretrained(tmp_path)
    ours = read_tokenizer(tmp_path, max_length=None, context=20, pad="<|endoftext|>")
    texts = awkward(2000)
    found, cut = ours.encode(texts)
    assert found == theirs(texts, truncation=True)["input_ids"]
    assert len(cut) > 1000
