"""Tiny random LLaVA and LLaVA-OneVision directories with a chat template, as published ones have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hub.test_llava import conversing, llava
from hub.test_llava_onevision import SIDE, onevision

TEMPLATE = (
    "{% for message in messages %}{{ '<s> ' + message['role'] + ' ' }}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<' + part['type'] + '>' }}{{ ' ' }}{% endfor %}{{ '</s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant ' }}{% endif %}"
)
"""Begins with the start token; pictures and clips stand where they are said."""


def llava_that_chats(directory: Path) -> Any:
    """The start token is put by the tokenizer, the template is that of llava-hf/llava-1.5-7b-hf."""
    model = llava(directory)
    conversing(directory, starts=True)
    return model


def onevision_that_chats(directory: Path) -> Any:
    """With the settings that llava-hf/llava-onevision-qwen2-0.5b-ov-hf has of its conversations."""
    model = onevision(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    settings = {
        "processor_class": "LlavaOnevisionProcessor", "image_token": "<image>", "video_token": "<video>", "num_image_tokens": SIDE**2,
        "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2",
    }  # fmt: skip
    (directory / "processor_config.json").write_text(json.dumps(settings))
    return model
