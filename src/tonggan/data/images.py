"""A picture becomes the pixels that a tower reads, by settings that are all named; nothing depends on a library's default.

The pixels stay bytes; (x/255 - mean)/std happens on the device (`nn.patches.Normalize`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
import PIL.Image
from pydantic import Field, model_validator

from tonggan.config import Config, PictureSize, height_width
from tonggan.data.media import Decode, load_image
from tonggan.types import Image, UsageError

Filter: TypeAlias = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
FILTERS: dict[str, PIL.Image.Resampling] = {name: PIL.Image.Resampling[name.upper()] for name in Filter.__args__}  # type: ignore[attr-defined]
THIN = 32
"""Pictures more than so many times longer than wide would become gigabytes on their way to a crop; of them only the crop is scaled."""
LONGEST = 1333 / 800
"""Of the long side to the short one, where pictures keep their shape."""

Spread: TypeAlias = Annotated[float, Field(gt=0)]


class ImageProcessing(Config):
    """How pictures are cut and scaled.

    `crop`: the short side becomes `size`, then the centre `crop` x `crop` is cut out (CLIP). `squash`: both sides become
    `size`, whatever the picture's shape (ViT, SigLIP), and where there is a `crop`, that centre is cut out (ALIGN). `pad`: the picture
    is fitted into `size`, and white fills the rest. `keep`: the short side becomes `size`, the long one what it then is, but at most
    1333/800 of that, both cut down to `multiple`s (ViLT). Sizes may be (height, width), but where the short side counts.
    """

    mode: Literal["crop", "squash", "pad", "keep"] = "crop"
    size: PictureSize = 224
    crop: PictureSize | None = None
    """Of the centre that is cut out; None: `size`."""
    multiple: int | None = Field(default=None, ge=1)
    """Of pixels, that both sides are with `keep`."""
    interpolation: Filter = "bicubic"
    rounding: Literal["openai", "transformers"] = "transformers"
    """Where a centre crop falls when an odd number of pixels is cut off: to the nearest even (torchvision, so OpenAI and
    open_clip), or up and left (transformers). One pixel, but another picture."""
    transparency: Literal["white", "ignore"] = "white"
    """What shows through: white, or the colour that happens to be stored there (what `convert("RGB")` does in others' code)."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[Spread, Spread, Spread] = (0.26862954, 0.26130258, 0.27577711)
    decode: Decode = "exact"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if min(height_width(self.size) + height_width(self.side)) < 1:
            raise ValueError(f"size {self.size}, crop {self.crop}: a picture has at least one pixel")
        if self.mode in ("crop", "keep") and not isinstance(self.size, int):
            raise ValueError(f"size {list(self.size)}: mode {self.mode} takes one number, the short side's; give the crop its two")
        if (self.mode == "keep") != (self.multiple is not None):
            raise ValueError(f"multiple {self.multiple}: mode keep needs one, and mode {self.mode} has none")
        if self.mode in ("pad", "keep") and self.crop is not None:
            raise ValueError(f"crop {self.crop}: mode {self.mode} cuts nothing off")
        return self

    @property
    def side(self) -> PictureSize:
        """Of the result; with `keep` its short side, before it is cut down."""
        return self.size if self.crop is None else self.crop


class ImageProcessor:
    """Calls give uint8 [3, height, width], of one size but with mode `keep`; raises `MediaError` for what cannot be read."""

    def __init__(self, config: ImageProcessing) -> None:
        self.config = config

    def __call__(self, image: Image | PIL.Image.Image, *, decode: Decode | None = None) -> np.ndarray:
        """One picture. `decode` overrides the setting."""
        return np.ascontiguousarray(np.asarray(self.fit(self.open(image, decode=decode))).transpose(2, 0, 1))

    def open(self, image: Image | PIL.Image.Image, *, decode: Decode | None = None) -> PIL.Image.Image:
        """The picture as the settings decode it, before it is resized and cut."""
        # Twice the size leaves the antialiasing filter something to work on.
        hint = 2 * max(height_width(self.config.size))
        return load_image(image, decode=decode or self.config.decode, size_hint=hint, transparency=self.config.transparency)

    def fit(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """The resized and cut picture."""
        config, (width, height) = self.config, picture.size
        resample = FILTERS[config.interpolation]
        high, wide = height_width(config.size)
        if config.mode == "pad":
            factor = min(wide / width, high / height)
            inner = (max(1, round(width * factor)), max(1, round(height * factor)))
            whole = PIL.Image.new("RGB", (wide, high), (255, 255, 255))
            whole.paste(picture.resize(inner, resample), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
            return whole
        if config.mode == "keep":
            return picture.resize(self._kept(width, height), resample)
        if config.mode == "squash":
            scaled = (wide, high)
        else:
            # The long side is cut down to a whole number of pixels, as both libraries do.
            scaled = (wide, int(wide * height / width)) if width <= height else (int(high * width / height), high)
        down, across = height_width(config.side)
        left, top = self._offset(scaled[0] - across), self._offset(scaled[1] - down)
        box = (left, top, left + across, top + down)
        if config.mode == "crop" and max(scaled) > THIN * min(scaled):
            return _scaled_crop(picture, scaled, box, resample)
        resized = picture if scaled == picture.size else picture.resize(scaled, resample)
        # Pillow fills what lies outside with black, as both libraries do where a picture is smaller than its crop.
        return resized.crop(box)

    def _kept(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture that keeps its shape."""
        config = self.config
        assert isinstance(config.size, int) and config.multiple is not None
        factor = config.size / min(width, height)
        # The longest that ViLT allows for: COCO's 1333 of 800, in whole pixels.
        factor *= min(1.0, int(LONGEST * config.size) / (factor * max(width, height)))
        sides = (int(length * factor + 0.5) // config.multiple * config.multiple for length in (width, height))
        across, down = (max(config.multiple, side) for side in sides)
        return across, down

    def _offset(self, rest: int) -> int:
        """Pixels cut off before the crop, of `rest` in all. Negative: black is added, the odd one behind (torchvision) or before
        (transformers)."""
        if self.config.rounding == "transformers":
            return rest // 2
        return round(rest / 2) if rest >= 0 else -(-rest // 2)


def _scaled_crop(
    picture: PIL.Image.Image, scaled: tuple[int, int], crop: tuple[int, int, int, int], resample: PIL.Image.Resampling
) -> PIL.Image.Image:
    """`picture.resize(scaled).crop(crop)`, but the rest of the resized picture never exists.

    Equal within 1 of 255 for the smooth filters; `nearest` and `box` may take the other of two pixels where they fall just between.
    """
    left, top = max(crop[0], 0), max(crop[1], 0)
    right, bottom = min(crop[2], scaled[0]), min(crop[3], scaled[1])
    wide, high = picture.width / scaled[0], picture.height / scaled[1]
    # First whole pixels, with room for the widest filter: inside Pillow the exact box is in single precision, too coarse for long pictures.
    room_x, room_y = 4 * max(1.0, wide) + 1, 4 * max(1.0, high) + 1
    x, y = max(0, int(left * wide - room_x)), max(0, int(top * high - room_y))
    end = min(picture.width, math.ceil(right * wide + room_x)), min(picture.height, math.ceil(bottom * high + room_y))
    near = picture.crop((x, y, *end))
    box = left * wide - x, top * high - y, right * wide - x, bottom * high - y
    square = PIL.Image.new("RGB", (crop[2] - crop[0], crop[3] - crop[1]))
    square.paste(near.resize((right - left, bottom - top), resample, box=box), (left - crop[0], top - crop[1]))
    return square


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [3, H, W] as one batch; raises `UsageError` when their processing has kept different shapes."""
    shapes = sorted({picture.shape[1:] for picture in pictures})
    if len(shapes) > 1:
        first, last = (" x ".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
        raise UsageError(
            f"pictures of {first} and {last} pixels cannot share a batch: this model's processing keeps their shape. To train, bring "
            "them to one: pictures: {mode: squash, multiple: null} beside where the model starts from"
        )
    return np.stack(pictures)


def canonical_picture() -> PIL.Image.Image:
    """A picture whose processing tells every setting apart: odd sizes, gradients, edges, one-pixel lines, four corners."""
    height, width = 211, 303
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / (width - 1)
    green = 127.5 + 127.5 * np.sin(x * y / 900.0)
    blue = np.where((x // 7 + y // 5) % 2 == 0, 230.0, 20.0)
    pixels = np.stack([red, green, blue], axis=-1)
    pixels[::16] = 255 - pixels[::16]
    pixels[: height // 3, : width // 4] = (250, 10, 60)
    return PIL.Image.fromarray(pixels.astype(np.uint8))
