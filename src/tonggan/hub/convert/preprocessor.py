"""preprocessor_config.json, both ways. Every setting is honoured or refused; none is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonggan.config import PictureSize, height_width
from tonggan.data.images import ImageProcessing
from tonggan.hub.weights import read_json
from tonggan.types import TongganError

# Pillow's numbers for its filters, which the format stores.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
CLIP: dict[str, Any] = {
    "do_resize": True, "size": {"shortest_edge": 224}, "default_to_square": False, "resample": 3, "do_center_crop": True, "crop_size": 224,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711), "do_convert_rgb": True,
}  # fmt: skip
HALF = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": CLIP,
    "ChineseCLIP": CLIP,
    "Blip": CLIP | {"size": {"height": 384, "width": 384}, "do_center_crop": False},
    "Vilt": CLIP | HALF | {"size": {"shortest_edge": 384}, "do_center_crop": False, "size_divisor": 32, "do_pad": True},
    "Idefics": CLIP | {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "Siglip": CLIP | HALF | {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "ViT": CLIP | HALF | {"size": 224, "default_to_square": True, "resample": 2, "do_center_crop": False},
    "DeiT": CLIP | HALF | {"size": 256, "default_to_square": True},
    "Beit": CLIP | HALF | {"size": 224, "default_to_square": True, "do_center_crop": False},
    "VideoMAE": CLIP | HALF | {"resample": 2},
    "EfficientNet": CLIP | HALF | {
        "size": 346, "default_to_square": True, "do_center_crop": False, "crop_size": 289, "rescale_offset": False, "include_top": True,
    },
}  # fmt: skip
"""What each of the library's picture processors does where the file is silent."""
SUFFIXES = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
NAMED = {f"{kind}{suffix}": kind for kind in DEFAULTS for suffix in SUFFIXES}
ONLY: dict[str, tuple[Any, ...]] = {
    "do_pad": (False, None), "pad_size": (None,), "size_divisor": (None,), "use_square_size": (False, None),
    "do_reduce_labels": (False, None), "reduce_labels": (False, None),
}  # fmt: skip
"""Settings that are understood only at the values at which they do nothing."""
BOOKKEEPING = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "auto_map", "transformers_version",
    "return_tensors", "data_format", "input_data_format", "device", "disable_grouping", "image_seq_length",
})  # fmt: skip
"""Names and habits of the library that wrote the file; they say nothing about pixels."""


def read_settings(directory: Path, part: str = "image_processor") -> tuple[Mapping[str, Any], str]:
    """The settings of a directory's processor of pictures, or of sounds (`feature_extractor`), and the file that they are from.

    The newer processor_config.json has both, and counts where there is a file of their own as well, as in the library.
    """
    newer, older = directory / "processor_config.json", directory / "preprocessor_config.json"
    inner = read_json(newer).get(part) if newer.is_file() else None
    return (inner, str(newer)) if isinstance(inner, dict) else (read_json(older), str(older))


def image_in(settings: Mapping[str, Any], where: str, kind: str = "CLIP") -> ImageProcessing:
    """Their settings as ours; raises `TongganError` naming each setting that we cannot do.

    The file says which processor it is for; `kind` is the family's own, for older files that do not.
    """
    named = next((name for name in ("image_processor_type", "feature_extractor_type") if settings.get(name)), None)
    if named is not None and settings[named] not in NAMED:
        read = ", ".join(f"{kind}ImageProcessor" for kind in DEFAULTS)
        raise TongganError(f"{where}: {named} {settings[named]!r} is not supported; supported are: {read}, and their older names")
    known = DEFAULTS[NAMED[settings[named]] if named is not None else kind]
    given = known | {name: value for name, value in settings.items() if name in known and value is not None}
    fixed = {name: values for name, values in ONLY.items() if name not in known}
    refused = [f"{name}={value!r}" for name, value in settings.items() if name in fixed and value not in fixed[name]]
    refused += [f"{name}={value!r} (unknown)" for name, value in settings.items() if name not in {*known, *ONLY, *BOOKKEEPING}]
    refused += [f"{name}={given[name]!r}" for name in ("do_resize", "do_rescale", "do_convert_rgb") if not given[name]]
    if "rescale_offset" not in known and abs(float(given["rescale_factor"]) * 255 - 1) > 1e-9:
        refused.append(f"rescale_factor={given['rescale_factor']!r}")
    if given["resample"] not in RESAMPLE:
        refused.append(f"resample={given['resample']!r}")
    shape = _shape_in(given)
    if shape is None:
        refused.append(", ".join(f"{name}={given[name]!r}" for name in ("size", "crop_size", "do_center_crop")))
    if refused or shape is None:
        raise TongganError(f"{where}: preprocessing that is not supported: {'; '.join(refused)}")
    mean, std = _normalisation_in(given)
    interpolation = RESAMPLE[given["resample"]]
    # As the library does it: the crop rounds up and left, what is stored under transparency shows.
    settled = {"interpolation": interpolation, "rounding": "transformers", "transparency": "ignore", "mean": mean, "std": std}
    return ImageProcessing.parse(shape | settled, where)


def image_out(config: ImageProcessing, kind: str = "CLIP") -> dict[str, Any]:
    """Our settings as theirs, for the library's processor of that kind; `image_misfit` must have found nothing."""
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.size} if config.mode in ("crop", "keep") else _dict(config.size),
        "resample": next(number for number, name in RESAMPLE.items() if name == config.interpolation),
        "do_center_crop": config.mode == "crop" or config.crop is not None,
        "crop_size": _dict(config.side),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
        **({"rescale_offset": False, "include_top": False} if kind == "EfficientNet" else {}),
        **({"size_divisor": config.multiple, "do_pad": True} if kind == "Vilt" else {}),
    }


def image_misfit(config: ImageProcessing, kind: str = "CLIP") -> str | None:
    """Why the file of the library's processor of that kind cannot say these settings; None when it can."""
    if config.mode == "pad":
        return "its pictures are padded"
    if (config.mode == "keep") != (kind == "Vilt"):
        return "its pictures keep their shape" if config.mode == "keep" else "its pictures do not keep their shape"
    if (config.rounding, config.transparency, config.decode) != ("transformers", "ignore", "exact"):
        return "its pictures are processed in our way (rounding, transparency, decode), not in the library's"
    return None


def _normalisation_in(given: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and deviation for pixels/255, of theirs for pixels·rescale_factor - 1 or so.

    With `include_top` their EfficientNet divides by the deviation once more, as Keras' weights for ImageNet want it.
    """
    mean, std = (given["image_mean"], given["image_std"]) if given["do_normalize"] else ((0.0,) * 3, (1.0,) * 3)
    scale, offset = float(given["rescale_factor"]) * 255, float(given.get("rescale_offset", False))
    twice = given["image_std"] if given.get("include_top") else (1.0,) * 3
    return [(m + offset) / scale for m in mean], [s * t / scale for s, t in zip(std, twice, strict=True)]


def _shape_in(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mode, size and crop; None for what is not cut out of a resized picture."""
    size = given["size"]
    if "size_divisor" in given:
        plain = given["do_pad"] and not given["do_center_crop"] and set(size) == {"shortest_edge"}
        return {"mode": "keep", "size": size["shortest_edge"], "multiple": given["size_divisor"]} if plain else None
    if isinstance(size, int):
        size = {"height": size, "width": size} if given["default_to_square"] else {"shortest_edge": size}
    crop = _size(given["crop_size"]) if given["do_center_crop"] else None
    if set(size) == {"shortest_edge"}:
        return {"mode": "crop", "size": size["shortest_edge"], "crop": crop if crop != size["shortest_edge"] else None} if crop else None
    whole = _size(size)
    if whole is None or (crop is None and given["do_center_crop"]):
        return None
    return {"mode": "squash", "size": whole, "crop": crop if crop != whole else None}


def _size(size: Any) -> PictureSize | None:
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        return int(size["height"]) if size["height"] == size["width"] else (int(size["height"]), int(size["width"]))
    return size if isinstance(size, int) else None


def _dict(size: PictureSize) -> dict[str, int]:
    height, width = height_width(size)
    return {"height": height, "width": width}
