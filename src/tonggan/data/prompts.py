"""Prompts: templates for zero-shot classification, in which `{}` is where the class name goes, and ways to ask for a caption.

English: the seven that CLIP's authors found to carry most of the gain of their eighty ("7 best" in their notebook) are
about photographs; ours are for pictures of any kind. The Chinese ones are written, not translated.
"""

from __future__ import annotations

TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": ("a picture of a {}.", "a photo of a {}.", "a drawing of a {}.", "an illustration of a {}.", "{}"),
    "zh": ("一张{}的图片。", "一张{}的照片。", "一幅画着{}的画。", "图中是{}。", "{}"),
}

CAPTIONING: dict[str, dict[str, tuple[str, ...]]] = {
    "image": {
        "en": ("Describe this picture.", "What does the picture show?", "Write a caption for this picture.", "What can you see here?"),
        "zh": ("描述一下这张图片。", "图片里有什么？", "请为这张图片写一句说明。", "你在图中看到了什么？"),
    },
    "audio": {
        "en": ("What do you hear?", "Describe this sound.", "Write down what can be heard."),
        "zh": ("你听到了什么？", "描述一下这段声音。", "请写下你听到的内容。"),
    },
    "video": {
        "en": ("Describe this video.", "What happens in the video?", "Write a caption for this video."),
        "zh": ("描述一下这段视频。", "视频里发生了什么？", "请为这段视频写一句说明。"),
    },
}
"""How a caption is asked for, by the kind of what it is of and by its own language."""
