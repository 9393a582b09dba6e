"""Prompts: templates for zero-shot classification, in which `{}` is where the class name goes, and how captions and answers are asked for,
by whoever measures a model and by whoever teaches one: it is measured in words that it may have learnt.

English: the seven that CLIP's authors found to carry most of the gain of their eighty ("7 best" in their notebook) are
about photographs; ours are for pictures of any kind. The Chinese ones are written, not translated.
"""

from __future__ import annotations

TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": ("a picture of a {}.", "a photo of a {}.", "a drawing of a {}.", "an illustration of a {}.", "{}"),
    "zh": ("一张{}的图片。", "一张{}的照片。", "一幅画着{}的画。", "图中是{}。", "{}"),
}

SENTENCE = {"zh": "请用一句话描述这张图片。", "en": "Describe this picture in one sentence."}
"""Of a caption, where one is measured."""
SHORT = {
    "zh": "{question}\n请用一个词或短语回答。",
    "en": "{question}\nAnswer the question using a single word or phrase.",
}
"""Of an answer that is compared with the right ones."""
LETTER = {
    "zh": "{question}\n{choices}\n请只回答正确选项的字母。",
    "en": "{question}\n{choices}\nAnswer with the letter of the right option only.",
}
"""Of one of several choices, which have letters."""

CAPTIONING: dict[str, dict[str, tuple[str, ...]]] = {
    "image": {
        "en": (SENTENCE["en"], "Describe this picture.", "What does the picture show?", "Write a caption for this picture."),
        "zh": (SENTENCE["zh"], "描述一下这张图片。", "图片里有什么？", "请为这张图片写一句说明。"),
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
