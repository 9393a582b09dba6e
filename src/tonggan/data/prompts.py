"""Prompt templates for zero-shot classification; `{}` is where the class name goes.

English: the seven that CLIP's authors found to carry most of the gain of their eighty ("7 best" in their notebook) are
about photographs; ours are for pictures of any kind. The Chinese ones are written, not translated.
"""

from __future__ import annotations

TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": ("a picture of a {}.", "a photo of a {}.", "a drawing of a {}.", "an illustration of a {}.", "{}"),
    "zh": ("一张{}的图片。", "一张{}的照片。", "一幅画着{}的画。", "图中是{}。", "{}"),
}
