"""preprocessor_config.json, both ways. Every setting is honoured or refused; none is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.data.images import ImageProcessing
from tonggan.hub.weights import read_json
from tonggan.types import TongganError

# Pillow's numbers for its filters, which the format stores.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
DEFAULTS: dict[str, Any] = {
    "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": 224, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711), "do_convert_rgb": True,
}  # fmt: skip
"""What the library's `CLIPImageProcessor` does where the file is silent."""
ONLY: dict[str, tuple[Any, ...]] = {
    "do_pad": (False, None), "pad_size": (None,), "default_to_square": (False, None), "size_divisor": (None,),
    "use_square_size": (False, None),
}  # fmt: skip
"""Settings that are understood only at the values at which they do nothing."""
BOOKKEEPING = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "auto_map", "transformers_version",
    "return_tensors", "data_format", "input_data_format", "device", "disable_grouping", "image_seq_length",
})  # fmt: skip
"""Names and habits of the library that wrote the file; they say nothing about pixels."""


def read_settings(directory: Path) -> Mapping[str, Any]:
    """The picture settings of a directory, in the file of their own or in the newer processor_config.json."""
    newer = directory / "processor_config.json"
    if not (directory / "preprocessor_config.json").is_file() and newer.is_file():
        inner = read_json(newer).get("image_processor")
        if isinstance(inner, dict):
            return inner
    return read_json(directory / "preprocessor_config.json")


def image_in(settings: Mapping[str, Any], where: str) -> ImageProcessing:
    """Their settings as ours; raises `TongganError` naming each setting that we cannot do."""
    given = DEFAULTS | {name: value for name, value in settings.items() if name in DEFAULTS and value is not None}
    refused = [f"{name}={value!r}" for name, value in settings.items() if name in ONLY and value not in ONLY[name]]
    refused += [f"{name}={value!r} (unknown)" for name, value in settings.items() if name not in {*DEFAULTS, *ONLY, *BOOKKEEPING}]
    refused += [f"{name}={given[name]!r}" for name in ("do_resize", "do_rescale", "do_convert_rgb") if not given[name]]
    if abs(float(given["rescale_factor"]) * 255 - 1) > 1e-9:
        refused.append(f"rescale_factor={given['rescale_factor']!r}")
    if given["resample"] not in RESAMPLE:
        refused.append(f"resample={given['resample']!r}")
    shape = _shape_in(given)
    if shape is None:
        refused.append(", ".join(f"{name}={given[name]!r}" for name in ("size", "crop_size", "do_center_crop")))
    if refused or shape is None:
        raise TongganError(f"{where}: preprocessing that is not supported: {'; '.join(refused)}")
    mean, std = (given["image_mean"], given["image_std"]) if given["do_normalize"] else ((0.0,) * 3, (1.0,) * 3)
    interpolation = RESAMPLE[given["resample"]]
    # As the library does it: the crop rounds up and left, what is stored under transparency shows.
    settled = {"interpolation": interpolation, "rounding": "transformers", "transparency": "ignore", "mean": mean, "std": std}
    return ImageProcessing.parse(shape | settled, where)


def image_out(config: ImageProcessing) -> dict[str, Any]:
    """Our settings as theirs; `image_misfit` must have found nothing."""
    side = {"height": config.side, "width": config.side}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": side if config.mode == "squash" else {"shortest_edge": config.size},
        "resample": next(number for number, name in RESAMPLE.items() if name == config.interpolation),
        "do_center_crop": config.mode == "crop",
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }


def image_misfit(config: ImageProcessing) -> str | None:
    """Why their file cannot say these settings; None when it can."""
    if config.mode == "pad":
        return "its pictures are padded"
    if (config.rounding, config.transparency, config.decode) != ("transformers", "ignore", "exact"):
        return "its pictures are processed in our way (rounding, transparency, decode), not in the library's"
    return None


def _shape_in(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mode, size and crop; None for what is not a square out of a resized picture."""
    size, crop = given["size"], _square(given["crop_size"])
    short = size if isinstance(size, int) else size.get("shortest_edge") if isinstance(size, dict) and len(size) == 1 else None
    if given["do_center_crop"]:
        return {"mode": "crop", "size": short, "crop": crop if crop != short else None} if short and crop else None
    side = _square(size) if isinstance(size, dict) else None
    return {"mode": "squash", "size": side} if side else None


def _square(size: Any) -> int | None:
    if isinstance(size, int):
        return size
    if isinstance(size, dict) and set(size) == {"height", "width"} and size["height"] == size["width"]:
        return int(size["height"])
    return None
