"""preprocessor_config.json, both ways. Every setting is honoured or refused; none is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tonggan.data.images import ImageProcessing
from tonggan.types import TongganError

# Pillow's numbers for its filters, which the format stores.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

# Names and bookkeeping of the library that wrote the file; they say nothing about pixels.
BOOKKEEPING = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "auto_map", "_processor_class",
    "transformers_version", "return_tensors", "data_format", "input_data_format", "device", "disable_grouping",
})  # fmt: skip
# Settings that are understood only at the value at which they do nothing.
ONLY = {
    "do_pad": (False, None),
    "pad_size": (None,),
    "default_to_square": (False, None),
    "size_divisor": (None,),
    "do_reduce_labels": (False,),
}

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def image_processing(settings: Mapping[str, Any], where: str) -> ImageProcessing:
    """Their settings as ours; raises `TongganError` naming each setting that we cannot do."""
    known = {"do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
             "image_mean", "image_std", "do_convert_rgb"}  # fmt: skip
    refused = [f"{name}={value!r}" for name, value in settings.items() if name in ONLY and value not in ONLY[name]]
    refused += [f"{name}={value!r} (unknown)" for name, value in settings.items() if name not in known | BOOKKEEPING | set(ONLY)]
    given = {"do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": 224, "do_rescale": True,
             "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
             "do_convert_rgb": True} | {name: settings[name] for name in known & set(settings)}  # fmt: skip
    refused += [f"{name}={given[name]!r}" for name in ("do_resize", "do_rescale") if not given[name]]
    if abs(float(given["rescale_factor"]) * 255 - 1) > 1e-9:
        refused.append(f"rescale_factor={given['rescale_factor']!r}")
    if given["resample"] not in RESAMPLE:
        refused.append(f"resample={given['resample']!r}")
    shape = _shape(given["size"], given["crop_size"], bool(given["do_center_crop"]))
    if shape is None:
        refused.append(f"size={given['size']!r} with crop_size={given['crop_size']!r}, do_center_crop={given['do_center_crop']!r}")
    if refused or shape is None:
        raise TongganError(f"{where}: preprocessing that is not supported: {'; '.join(refused)}")
    normal = given["do_normalize"]
    return ImageProcessing.parse({
        **shape,
        "interpolation": RESAMPLE[given["resample"]],
        "mean": tuple(given["image_mean"]) if normal else (0.0, 0.0, 0.0),
        "std": tuple(given["image_std"]) if normal else (1.0, 1.0, 1.0),
    }, where)  # fmt: skip
