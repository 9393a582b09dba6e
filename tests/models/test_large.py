"""Published sizes: their tensors on `meta`, and one forward of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    Data2VecTextConfig,
    Data2VecTextModel,
    Data2VecVisionConfig,
    Data2VecVisionModel,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    VideoMAEConfig,
    VideoMAEModel,
    ViltConfig,
    ViltForMaskedLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from tonggan.config import height_width
from tonggan.hub.families import family_of_module
from tonggan.models import Captioner, Coca, EncoderDecoder, Git, build, presets
from tonggan.models.base import Embedder, Featurizer, Matcher, WordPredictor
from tonggan.nn.talking import Talker
from tonggan.tensors import Batch, Modality, Sounds, Tokens

TOO_LARGE = {"idefics-9b", "llama-3.2-1b", "llava-1.5-7b"}
"""For the memory and the patience of a small machine: these are held to the library's on `meta` alone."""
LARGE = [name for name in presets() if not name.startswith("mini") and name not in TOO_LARGE]
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
IDEFICS = {
    "additional_vocab_size": 2, "cross_layer_interval": 4, "qk_layer_norms": True, "use_resampler": True,
    "perceiver_config": {"qk_layer_norms_perceiver": True}, "vision_config": {"embed_dim": 1280},
}  # fmt: skip
LLAMA = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
QWEN = {
    "vocab_size": 152000, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA32 = {
    "vocab_size": 128256, "max_position_embeddings": 131072, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3 = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "max_position_embeddings": 40960, "tie_word_embeddings": True,
}  # fmt: skip
WHISPER = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_attention_heads": 8}
BART = {
    "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
}  # fmt: skip
REFERENCES: dict[str, Callable[[], nn.Module]] = {
    "bert-base": lambda: BertForMaskedLM(BertConfig()),
    "roberta-base": lambda: RobertaForMaskedLM(RobertaConfig(**ROBERTA)),
    "data2vec-image-base": lambda: Data2VecVisionModel(
        Data2VecVisionConfig(use_mask_token=True, use_shared_relative_position_bias=True), add_pooling_layer=False
    ),
    "data2vec-audio-base": lambda: Data2VecAudioModel(Data2VecAudioConfig()),
    "data2vec-text-base": lambda: Data2VecTextModel(Data2VecTextConfig(**ROBERTA), add_pooling_layer=False),
    "whisper-base": lambda: WhisperModel(WhisperConfig(**WHISPER)),
    "videomae-base": lambda: VideoMAEModel(VideoMAEConfig()),
    "blip-retrieval-base": lambda: BlipForImageTextRetrieval(BlipConfig()),
    "blip-caption-base": lambda: BlipForConditionalGeneration(BlipConfig()),
    "blip-vqa-base": lambda: BlipForQuestionAnswering(BlipConfig()),
    "git-base": lambda: GitForCausalLM(GitConfig()),
    "vilt-b-32": lambda: ViltForMaskedLM(ViltConfig()),
    "t5-small": lambda: T5ForConditionalGeneration(T5Config()),
    "bart-base": lambda: BartForConditionalGeneration(BartConfig(**BART)),
    "whisper-tiny": lambda: WhisperForConditionalGeneration(WhisperConfig()),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config()),
    "llama-3.2-1b": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA32)),
    "qwen2.5-0.5b": lambda: Qwen2ForCausalLM(Qwen2Config(**(QWEN | {"vocab_size": 151936}))),
    "qwen3-0.6b": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN3)),
    "idefics-9b": lambda: IdeficsForVisionText2Text(IdeficsConfig(**IDEFICS)),
    "llava-1.5-7b": lambda: LlavaForConditionalGeneration(LlavaConfig(text_config=LlamaConfig(**LLAMA))),
    "llava-onevision-0.5b": lambda: LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(text_config=Qwen2Config(**QWEN))),
}
"""The library's classes in the sizes of google-bert/bert-base-uncased, FacebookAI/roberta-base, facebook/data2vec-*-base,
openai/whisper-base, MCG-NJU/videomae-base, Salesforce/blip-itm-base-coco,
Salesforce/blip-image-captioning-base, Salesforce/blip-vqa-base, microsoft/git-base, dandelin/vilt-b32-mlm, google-t5/t5-small,
facebook/bart-base, openai/whisper-tiny, openai-community/gpt2, meta-llama/Llama-3.2-1B, Qwen/Qwen2.5-0.5B, Qwen/Qwen3-0.6B,
HuggingFaceM4/idefics-9b,
llava-hf/llava-1.5-7b-hf and llava-hf/llava-onevision-qwen2-0.5b-ov-hf."""

HEADS = {"vilt-b-32": {"matching": "none"}}
"""Ours has the heads of pre-training, of which the published model kept the one for words."""


SINUSOIDS = "videomae-base"
"""Whose table the library computes number by number, also on `meta`."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == SINUSOIDS else name for name in REFERENCES])
def test_every_tensor_is_that_of_transformers(name: str) -> None:
    """Each has its place among ours, in our shape, and ours are all there; nothing in memory."""
    with torch.device("meta"):
        theirs, ours = REFERENCES[name](), build(presets()[name].model_copy(update=HEADS.get(name, {})))
    family: Any = family_of_module(ours)
    table, state = family.table(ours.config), ours.state_dict()
    # Without the tied copies of the word embeddings: tables compare those, which nothing on `meta` can be.
    copies: Any = (theirs._tied_weights_keys or ()) if getattr(theirs.config, "tie_word_embeddings", True) else ()
    copies = {*copies, *getattr(theirs, "all_tied_weights_keys", ())}  # those of parts as well
    found = table.import_({key: value for key, value in theirs.state_dict().items() if key not in copies}, state)
    expected = {key: value.shape for key, value in state.items() if key not in table.ours_only}
    assert {key: value.shape for key, value in found.items()} == expected


def test_albef_is_as_large_as_published() -> None:
    """Li et al. 2021, section 4.2: a BERT of 123.7 million, with its head for words, and a ViT of 85.8."""
    with torch.device("meta"):
        model = build(presets()["albef-base"])
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert round(counts["image"] / 1e6, 1) == 85.8
    assert round(sum(counts[name] for name in ("text", "transformer", "word_head")) / 1e6, 1) == 123.7


def given(kind: Modality, config: Any) -> Any:
    """One row of input, as large as the tower reads; texts of up to 128 tokens."""
    match kind:
        case "image":
            return torch.randint(0, 256, (1, 3, *height_width(config.image_size)), dtype=torch.uint8)
        case "text":
            length = min(config.context, 128)
            return Tokens(torch.randint(2, config.vocab_size, (1, length)), torch.tensor([length]))
        case "video":
            return torch.randint(0, 256, (1, config.frames, 3, *height_width(config.image_size)), dtype=torch.uint8)
        case "audio" if config.kind == "waveform":
            return Sounds(torch.randn(1, 16_000), torch.tensor([16_000]))
        case "audio":
            frames = 2 * config.context
            return Sounds(torch.randn(1, config.bins, frames), torch.tensor([frames]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_published_sizes_run(name: str) -> None:
    """All that each can, on one row of each kind of input that it reads."""
    config: Any = presets()[name]
    torch.manual_seed(0)
    module: Any = build(config).eval()
    inputs = {kind: given(kind, getattr(config, kind)) for kind in module.modalities}
    found: list[Tensor] = []
    with torch.inference_mode():
        if isinstance(module, Embedder):
            for kind, row in inputs.items():
                vectors = module.encode(kind, row)
                # Of finite length, at most 1: what random weights make of a picture may vanish in the 55 blocks of EfficientNet-B7.
                assert vectors.shape == (1, module.dim)
                assert 0 < vectors.norm(dim=1).item() < 1 + 1e-4
                found.append(vectors)
        elif isinstance(module, Featurizer):
            found += [module.features(kind, row) for kind, row in inputs.items()]
        if isinstance(module, Matcher):
            found.append(module.match(inputs["image"], inputs["text"]))
        if isinstance(module, WordPredictor):
            where = torch.zeros_like(inputs["text"].ids, dtype=torch.bool)
            where[0, 1] = True
            found.append(module.words(inputs["text"], inputs.get("image"), where=where))
            assert found[-1].shape == (1, config.text.vocab_size)
        if isinstance(module, Captioner | Coca | Git):
            seen = module.read(Batch(("",), pixels=inputs["image"], source=inputs["text"] if module.reads_prompt else None))
            found.append(module.say(inputs["text"], seen))
        elif isinstance(module, Talker) and not module.reads_prompt:
            found.append(module.say(inputs["text"]))
        if isinstance(module, EncoderDecoder):
            seen = module.read(Batch(("",), source=inputs["text"], sounds=inputs.get("audio")))
            found.append(module.say(inputs["text"], seen))
    assert found and all(bool(one.isfinite().all()) for one in found)
