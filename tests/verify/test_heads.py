"""A copy is compared in everything that it answers, heads too, and admitted for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hub.references_bert import wordpiece
from hub.references_sound_sight import data2vec_audio, save_data2vec_audio
from tonggan import hub, models
from tonggan.backends import LocalModel, load
from tonggan.data.audio import AudioProcessing, AudioProcessor, canonical_sound
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.answers import VERBS, offers
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.export_int8 import export_int8
from tonggan.models import BertConfig, ClassifierConfig, Data2VecConfig, ModelConfig, SingleStreamConfig, adapt, base
from tonggan.models.adapt import LoraConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import BertTextConfig, ViTConfig, WaveformConfig
from tonggan.types import Audio, TongganError
from tonggan.verify import verify
from tonggan.verify.copies import against_model
from tonggan.verify.inputs import write_items

SMALL = {"width": 21, "layers": 1, "heads": 3, "mlp_width": 34}
STREAM = SingleStreamConfig(image=PatchesConfig(image_size=24, patch_size=8), text=WordsConfig(vocab_size=270, context=40), **SMALL)
BERT = BertConfig(text=BertTextConfig(vocab_size=270, context=40, **SMALL))
CLASSES = ClassifierConfig(image=ViTConfig(image_size=24, patch_size=8, **SMALL), classes=5)
WAVES = Data2VecConfig(
    audio=WaveformConfig(channels=(6, 7), kernels=(20, 16), strides=(20, 16), position_groups=3, position_layers=1, **SMALL)
)
HEADS = {
    "match": (STREAM, "match_head"),
    "words": (BERT, "head.dense"),
    "classes": (CLASSES, "head"),
    "states": (WAVES, "audio.projection"),
}


def saved(place: Path, config: ModelConfig) -> hub.Checkpoint:
    """A random model of this configuration, written and read again."""
    torch.manual_seed(0)
    image, text, audio = (getattr(config, kind, None) is not None for kind in ("image", "text", "audio"))
    wordpiece(place / "words")
    processor = Processor(
        ImageProcessor(ImageProcessing(mode="squash", size=24)) if image else None,
        read_tokenizer(place / "words", max_length=None, context=40, pad="[PAD]") if text else None,
        AudioProcessor(AudioProcessing(kind="waveform", seconds=None)) if audio else None,
    )
    hub.save(place / "model", models.build(config).eval(), config, processor, format="tonggan")
    return hub.read(place / "model")


@pytest.mark.parametrize("verb", HEADS)
def test_a_copy_with_a_wrong_head_is_not_admitted(tmp_path: Path, verb: str) -> None:
    config, head = HEADS[verb]
    original = saved(tmp_path, config)
    export_int8(original, tmp_path / "right")
    report = verify(tmp_path / "model", "int8", copy=tmp_path / "right", count=3)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert verb in report.verbs and any(one.name.startswith(f"{verb} of") for one in report.differences)
    load(tmp_path / "right")
    with torch.no_grad():
        for parameter in original.module.get_submodule(head).parameters():
            parameter.copy_(torch.randn_like(parameter))
    export_int8(original, tmp_path / "wrong")
    report = verify(tmp_path / "model", "int8", copy=tmp_path / "wrong", count=3)
    assert [one for one in report.differences if one.name.startswith(f"{verb} of") and not one.passed], report.differences
    with pytest.raises(TongganError, match="never verified"):
        load(tmp_path / "wrong")


class Says(nn.Module):
    """Answers with the given numbers: scores of words, or pooled features of texts."""

    modalities = frozenset({"text"})

    def __init__(self, **given: torch.Tensor) -> None:
        super().__init__()
        self.given = given

    def features(self, kind: Any, inputs: Any) -> torch.Tensor:
        return self.given["features"]

    def words(self, tokens: Any, pixels: Any = None, *, where: Any = None) -> torch.Tensor:
        return self.given["words"]


def test_scores_and_features_that_only_look_alike_are_not_admitted(tmp_path: Path) -> None:
    """Logits of two models have their mean in common, and a cosine knows no length."""
    mine, other = (LocalModel(saved(tmp_path, BERT), "cpu") for _ in range(2))
    random = torch.Generator().manual_seed(0)
    words, unrelated = (torch.randn(64, 500, generator=random) - 8 for _ in range(2))
    features = torch.randn(3, 21, generator=random)
    assert torch.cosine_similarity(words, unrelated, dim=1).min() > 0.98
    mine.module = Says(words=words, features=features)

    def off(**given: torch.Tensor) -> set[str]:
        other.module = Says(**given)
        report = against_model(mine, other, "int8", count=3, seed=0, versions={})
        return {one.name for one in report.differences if not one.passed}

    assert off(words=words + 5, features=1.01 * features) == set()
    assert off(words=unrelated, features=features) == {"words of text"}
    assert off(words=words, features=3 * features) == {"features of text"}


def test_a_check_that_did_not_compare_an_answer_admits_nothing(tmp_path: Path) -> None:
    export_int8(saved(tmp_path, STREAM), tmp_path / "copy")
    verify(tmp_path / "model", "int8", copy=tmp_path / "copy", count=2)
    file = tmp_path / "copy" / "tonggan.json"
    record = json.loads(file.read_text())
    record["verified"][0]["verbs"].remove("match")
    file.write_text(json.dumps(record))
    with pytest.raises(TongganError, match=r"did not compare: match.*tonggan verify .* --against int8 --copy"):
        load(tmp_path / "copy")


def test_what_only_the_copy_answers_is_no_pass(tmp_path: Path) -> None:
    original = saved(tmp_path, BERT)

    class More(nn.Module):
        modalities = frozenset({"text"})

        def features(self, kind: Any, inputs: Any) -> torch.Tensor:
            return original.module.features(kind, inputs)  # type: ignore[operator, no-any-return]

        def match(self, pixels: torch.Tensor, tokens: Any) -> torch.Tensor:
            return torch.zeros(len(pixels), 2)

    mine, other = LocalModel(original, "cpu"), LocalModel(original, "cpu")
    other.module = More()
    report = against_model(mine, other, "int8", count=2, seed=0, versions={})
    assert [one.name for one in report.differences if one.problem] == ["match"]
    assert any("does not answer: words of text" in note for note in report.notes)


def test_a_merged_adapter_of_a_classifier_is_compared_in_its_classes(tmp_path: Path) -> None:
    original, config = saved(tmp_path, CLASSES), LoraConfig(parts=("image",))
    view = adapt.attach(original.module, config)
    with torch.no_grad():
        for parameter in view.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    hub.adapters.save(tmp_path / "adapter", view.eval(), original, config)
    report = verify(tmp_path / "adapter", "merged", count=3)
    assert report.passed, report.plain()
    classes = next(one for one in report.differences if one.name == "classes of image")
    assert classes.argmax == 1.0


def test_every_protocol_is_asked() -> None:
    """A new one in `models.base` has to be compared too."""
    protocols = {one for one in vars(base).values() if getattr(one, "_is_protocol", False) and one.__module__ == base.__name__}
    assert protocols == {protocol for protocol, _ in VERBS.values()}
    assert offers(models.build(CLASSES)) == {"features", "classes"}


@pytest.mark.parametrize("mask", [True, False])
def test_the_library_prepares_sounds_as_their_file_says(tmp_path: Path, mask: bool) -> None:
    model = data2vec_audio(conv_kernel=(24, 17), conv_stride=(20, 16), num_hidden_layers=1)
    save_data2vec_audio(tmp_path, model, return_attention_mask=mask)
    report = verify(tmp_path, "transformers", count=3)
    assert report.passed, [one for one in report.differences if not one.passed]
    made = {one.name for section in report.sections if section.name == "from files and strings" for one in section.differences}
    assert ("attention_mask" in made) == mask
    assert any("no attention mask of sounds" in note for note in report.notes) != mask


def test_the_first_sound_is_the_canonical_one(tmp_path: Path) -> None:
    processor = Processor(audio=AudioProcessor(AudioProcessing(kind="waveform", seconds=None, rate=8000)))
    items = write_items(tmp_path, processor, count=2, seed=0)
    assert processor.audio is not None
    heard = [processor.audio(Audio.open(file)) for file in items.sounds]
    assert np.array_equal(heard[0], canonical_sound(8000))
    assert len(heard[1]) != len(heard[0]) and 0.5 < abs(heard[1]).max() < 1
