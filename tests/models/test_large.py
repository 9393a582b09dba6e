"""Published sizes: their tensors on `meta`, and one forward of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BlipConfig,
    BlipForImageTextRetrieval,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    Data2VecTextConfig,
    Data2VecTextModel,
    Data2VecVisionConfig,
    Data2VecVisionModel,
    RobertaConfig,
    RobertaForMaskedLM,
    VideoMAEConfig,
    VideoMAEModel,
    ViltConfig,
    ViltForMaskedLM,
    WhisperConfig,
    WhisperModel,
)

from tonggan.config import height_width
from tonggan.hub.families import family_of_module
from tonggan.models import build, presets
from tonggan.models.base import Embedder, Featurizer, Matcher, WordPredictor
from tonggan.tensors import Modality, Sounds, Tokens

LARGE = [name for name in presets() if not name.startswith("mini")]
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
WHISPER = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_attention_heads": 8}
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
    "vilt-b-32": lambda: ViltForMaskedLM(ViltConfig()),
}
"""The library's classes in the sizes of google-bert/bert-base-uncased, FacebookAI/roberta-base, facebook/data2vec-*-base,
openai/whisper-base, MCG-NJU/videomae-base, Salesforce/blip-itm-base-coco and dandelin/vilt-b32-mlm."""

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
    copies: Any = theirs._tied_weights_keys or ()
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
    assert found and all(bool(one.isfinite().all()) for one in found)
