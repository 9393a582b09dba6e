"""Tiny models of `transformers` with random weights, written as directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:", *"ABCD", "a", "red", "bird", "what", "is", "this", "?"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{{ '<image>' if c['type'] == 'image' else c['text'] }} {% endfor %}{% endfor %}ASSISTANT: "
)


def tokenizer() -> Any:
    """Words of `WORDS`, divided by blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


def llava(directory: Path, seed: int = 0, *, brief: bool = False) -> Path:
    """A ViP-LLaVA, an image-text-to-text model that we have no code for, with a chat template; `brief`: it says one word."""
    torch.manual_seed(seed)
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=128
    )
    config = transformers.VipLlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    model = transformers.VipLlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = list(range(len(WORDS))) if brief else 2
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def blip(directory: Path) -> Path:
    """A picture-to-text encoder-decoder that answers questions; no chat template."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BlipConfig(
        text_config={**shape, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
        vision_config={**shape, "image_size": 28, "patch_size": 14},
        projection_dim=16,
    )
    model = transformers.BlipForQuestionAnswering(config)
    pictures = transformers.BlipImageProcessor(size={"height": 28, "width": 28})
    model.save_pretrained(directory)
    transformers.BlipProcessor(image_processor=pictures, tokenizer=tokenizer()).save_pretrained(directory)
    return directory
