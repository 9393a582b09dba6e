"""`tonggan verify DIR` passes for a tiny random model of every family that we read, and `docs/verified.md` says exactly this."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from hub import references, references_bert, references_fusion, references_pairs, references_saying, references_sound_sight
from hub.references_chat import llava_that_chats, onevision_that_chats
from hub.test_bert import tiny_sentence_encoder
from hub.test_idefics import idefics
from hub.test_language_models import language_model, qwen2
from tonggan import hub
from tonggan.hub.families import PUBLISHED
from tonggan.types import TongganError
from tonggan.verify import verify
from tonggan.verify.published import CLASSES, MADE, PRODUCTS, SCORES, against_transformers

DOCS = Path(__file__).parents[2] / "docs"


def pair(make: Callable[[int], Any]) -> Callable[[Path], object]:
    return lambda place: references_pairs.save(place, make(references_pairs.with_wordpiece(place)))


def words(kind: str, cls: str) -> Callable[[Path], object]:
    return lambda place: references_bert.tiny(place, kind, getattr(transformers, cls))


def siglip(place: Path) -> object:
    return references_pairs.save(place, references_pairs.siglip(vocab=len(references_pairs.spiece(place))))


sounds, pairs = references_sound_sight, references_pairs
MODELS: dict[str, Callable[[Path], object]] = {
    "CLIPModel": lambda place: references.save_clip(place, references.tiny_clip()),
    "SiglipModel": siglip,
    "ChineseCLIPModel": pair(pairs.chinese_clip),
    "AlignModel": pair(pairs.align),
    "ViTModel": lambda place: pairs.save(place, pairs.vit()),
    "ViTForImageClassification": lambda place: pairs.save(place, pairs.vit(classes=5)),
    "EfficientNetModel": lambda place: pairs.save(place, pairs.efficientnet()),
    "EfficientNetForImageClassification": lambda place: pairs.save(place, pairs.efficientnet(classes=5)),
    "SentenceTransformer": tiny_sentence_encoder,
    "BertModel": words("bert", "BertModel"),
    "BertForPreTraining": words("bert", "BertForPreTraining"),
    "BertForMaskedLM": words("bert", "BertForMaskedLM"),
    "RobertaModel": words("roberta", "RobertaModel"),
    "RobertaForMaskedLM": words("roberta", "RobertaForMaskedLM"),
    "XLMRobertaModel": words("xlm-roberta", "XLMRobertaModel"),
    "XLMRobertaForMaskedLM": words("xlm-roberta", "XLMRobertaForMaskedLM"),
    "Data2VecTextModel": words("data2vec-text", "Data2VecTextModel"),
    "Data2VecTextForMaskedLM": words("data2vec-text", "Data2VecTextForMaskedLM"),
    "Data2VecVisionModel": lambda place: sounds.save_data2vec_vision(place, sounds.data2vec_vision()),
    # A frame per 20 ms, as in the published ones: seconds of the usual tiny strides would be thousands of frames.
    "Data2VecAudioModel": lambda place: sounds.save_data2vec_audio(
        place, sounds.data2vec_audio(conv_kernel=(24, 17), conv_stride=(20, 16))
    ),
    "WhisperModel": lambda place: sounds.save_whisper(place, sounds.whisper(head=False, positions=100)),
    "WhisperForConditionalGeneration": references_saying.whisper_whole,
    "T5ForConditionalGeneration": references_saying.t5,
    "BartForConditionalGeneration": references_saying.bart,
    "VideoMAEModel": lambda place: sounds.save_videomae(place, sounds.videomae()),
    "VideoMAEForPreTraining": lambda place: sounds.save_videomae(place, sounds.videomae(whole=True)),
    "ViltModel": lambda place: references_fusion.vilt(place, transformers.ViltModel),
    "ViltForMaskedLM": references_fusion.vilt,
    "ViltForImageAndTextRetrieval": lambda place: references_fusion.vilt(place, transformers.ViltForImageAndTextRetrieval),
    "BlipForImageTextRetrieval": references_fusion.blip,
    "BlipForConditionalGeneration": lambda place: references_fusion.blip(place, transformers.BlipForConditionalGeneration),
    "GitForCausalLM": references_fusion.git,
    "GPT2LMHeadModel": lambda place: language_model(place, "GPT-2"),
    "LlamaForCausalLM": lambda place: language_model(place, "Llama whose heads are wider than its width, and slowed"),
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": lambda place: language_model(place, "Qwen3"),
    "IdeficsForVisionText2Text": idefics,
    "LlavaForConditionalGeneration": llava_that_chats,
    "LlavaOnevisionForConditionalGeneration": onevision_that_chats,
}
"""A model of each family, under the name of its class in the library."""
STATES, POOLED = {"last_hidden_state"}, {"last_hidden_state", "pooler_output"}
WORDS = STATES | {"logits", "features(text)"}
LABELS = {"logits", "features(image)", CLASSES}
TWO = {"text_embeds", "image_embeds", "logits_per_image", "logits_per_text", "embed(text)", "embed(image)", "features(text)"}
TWO |= {"text_last_hidden_state", "vision_last_hidden_state", "features(image)"}
TELLS = ("GPT2LMHeadModel", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
CHATS = ("LlavaForConditionalGeneration", "LlavaOnevisionForConditionalGeneration")
HEARD, SEEN, READ = (STATES | {f"features({kind})"} for kind in ("audio", "image", "text"))
SAYS = {"encoder_last_hidden_state", "logits"}
ANSWERS: dict[str, set[str]] = {
    **dict.fromkeys(("CLIPModel", "SiglipModel", "ChineseCLIPModel", "AlignModel"), TWO),
    **dict.fromkeys(("ViTModel", "EfficientNetModel"), SEEN | POOLED),
    "ViTForImageClassification": STATES | LABELS,
    "EfficientNetForImageClassification": POOLED | LABELS,
    "SentenceTransformer": READ | {"sentence_embedding", "embed(text)"},
    **dict.fromkeys(("BertModel", "RobertaModel", "XLMRobertaModel", "Data2VecTextModel"), READ),
    **dict.fromkeys(("BertForPreTraining", "BertForMaskedLM", "RobertaForMaskedLM", "XLMRobertaForMaskedLM"), WORDS),
    "Data2VecTextForMaskedLM": WORDS,
    "Data2VecVisionModel": SEEN,
    "Data2VecAudioModel": HEARD | {"extract_features"},
    "WhisperModel": HEARD,
    **dict.fromkeys(("WhisperForConditionalGeneration", "T5ForConditionalGeneration", "BartForConditionalGeneration"), SAYS),
    **dict.fromkeys(("VideoMAEModel", "VideoMAEForPreTraining"), STATES | {"features(video)"}),
    "ViltModel": POOLED,
    "ViltForMaskedLM": POOLED | {"logits"},
    "ViltForImageAndTextRetrieval": POOLED | {"logits", "match"},
    "BlipForImageTextRetrieval": STATES | {"itm_score", "itc_score", "question_embeds", "text_last_hidden_state"}
    | {"match", PRODUCTS, "features(text)", "features(image)"},
    **dict.fromkeys(("BlipForConditionalGeneration", "GitForCausalLM"), STATES | {"logits"}),
    **dict.fromkeys(TELLS, STATES | {"logits"}),
    "IdeficsForVisionText2Text": STATES | {"logits", "image_last_hidden_state"},
    "LlavaForConditionalGeneration": STATES | {"logits", "image_hidden_states"},
    "LlavaOnevisionForConditionalGeneration": STATES | {"logits"},
}  # fmt: skip
"""Outputs and verbs that are compared, all of them."""
PHRASES: dict[str, tuple[str, set[str]]] = {
    "states": ("状态", {"last_hidden_state"} | {f"{part}_last_hidden_state" for part in ("encoder", "text", "vision", "image")}),
    "states after fusion": ("融合后的状态", {"question_embeds"}),
    "frames of the waveform": ("波形的帧", {"extract_features"}),
    "pooled output": ("池化输出", {"pooler_output"}),
    "features of pictures among the words": ("词间的图片特征", {"image_hidden_states"}),
    "features": ("特征", {f"features({kind})" for kind in ("text", "image", "audio", "video")}),
    "vectors": ("向量", {"text_embeds", "image_embeds", "sentence_embedding", "embed(text)", "embed(image)"}),
    "similarities": ("相似度", {"logits_per_image", "logits_per_text", "itc_score", PRODUCTS}),
    "scores of classes": ("类别的分数", {CLASSES}),
    "scores and probabilities of matching": ("图文匹配的分数与概率", {"itm_score", "match"}),
    "scores of words": ("词的分数", {"logits"}),
}
"""What the page calls them, in either language. The `logits` of a model with classes or a match are the scores of these."""
WHOLE = {"CLIPModel", "SiglipModel", "BertModel", "RobertaModel", "XLMRobertaModel"}
"""One with each kind of tokenizer: of these, texts that mix scripts, are too long or random are compared too."""
TOWER, POOLER, FIRST, LAST, MEAN = "tower_output", "pooler_output", "first state", "last state", "mean of the states"
POOLINGS: dict[str, dict[str, str]] = {
    "CLIPModel": {"image": TOWER, "text": TOWER},
    "SiglipModel": {"image": TOWER, "text": LAST},
    **{key: {"image": TOWER, "text": FIRST} for key in ("ChineseCLIPModel", "AlignModel")},
    **{key: {"image": POOLER} for key in ("ViTModel", "EfficientNetModel", "EfficientNetForImageClassification")},
    "ViTForImageClassification": {"image": FIRST},
    "Data2VecVisionModel": {"image": "mean of the states but the first"},
    **{key: {"audio": MEAN} for key in ("Data2VecAudioModel", "WhisperModel")},
    **{key: {"video": MEAN} for key in ("VideoMAEModel", "VideoMAEForPreTraining")},
    **{key: {} for key in ("ViltModel", "ViltForMaskedLM", "ViltForImageAndTextRetrieval")},
    "BlipForImageTextRetrieval": {"image": FIRST, "text": FIRST},
    **{key: {} for key in ("WhisperForConditionalGeneration", "T5ForConditionalGeneration", "BartForConditionalGeneration")},
    **{key: {} for key in ("BlipForConditionalGeneration", "GitForCausalLM", *TELLS, "IdeficsForVisionText2Text", *CHATS)},
}
"""What our features of each kind are in the reference; of sentence encoders the mean of the states, which is what ours declare."""
BESIDE = {"text_pooler_output", "vision_pooler_output"}
UNUSED: dict[str, set[str]] = {
    **{key: {"last_hidden_state"} for key in ("WhisperForConditionalGeneration", "BartForConditionalGeneration")},
    **dict.fromkeys(("CLIPModel", "ChineseCLIPModel"), BESIDE),  # before they are made to have length 1
    **dict.fromkeys(("SiglipModel", "AlignModel"), BESIDE | {"text_tower_output"}),
    **{key: {"pooler_output"} for key in ("SentenceTransformer", "BertModel", "RobertaModel", "XLMRobertaModel", "Data2VecTextModel")},
    "BertForPreTraining": {"pooler_output", "seq_relationship_logits"},
    "BlipForImageTextRetrieval": {"vision_tower_output"},
    "BlipForConditionalGeneration": {"image_embeds", "vision_tower_output"},  # the picture's states once more, and pooled
    "IdeficsForVisionText2Text": {"image_pooler_output"},
    "LlavaForConditionalGeneration": {"image_last_hidden_state"},  # behind the blocks that are read
    "LlavaOnevisionForConditionalGeneration": {"image_last_hidden_state", "video_last_hidden_state", "video_pooler_output"},
}
"""Outputs that only the reference has: layers that nothing of ours reads, left out on purpose."""
HEADLESS = {"BertModel", "RobertaModel", "XLMRobertaModel"}
"""Their files say no pooling, so our vector of a sentence has no counterpart."""


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_family_passes(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    MODELS[name](tmp_path / "model")
    report = verify(tmp_path / "model", "transformers", count=6 if name in WHOLE else 2, backward=True)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert [section.name for section in report.sections][:3] == ["from the same tensors", "from random tensors", "from files and strings"]
    assert all(section.differences for section in report.sections)
    assert report.layers and report.diverged is None
    assert report.sections[-1].name == "gradients"
    compared = {one.name.partition(":")[0] for section in report.sections[:-1] for one in section.differences}
    assert compared - MADE.keys() == ANSWERS[name]
    one_number = {"logits"} if name == "ViltForImageAndTextRetrieval" else set()
    assert {one.name for one in report.differences if one.argmax is not None} == (ANSWERS[name] & SCORES) - one_number
    pooled = dict(re.findall(r"features\((\w+)\): (.+)", "\n".join(one.name for one in report.differences)))
    assert pooled == POOLINGS.get(name, {"text": MEAN})
    notes = [f"not compared, only the reference gives it: {', '.join(sorted(UNUSED[name]))}"] if name in UNUSED else []
    notes += ["not compared, the reference has no such output: sentence_embedding"] if name in HEADLESS else []
    assert sorted(note for note in report.notes if "not compared" in note) == sorted(notes)


NOT_THEIRS = {"coca"}
"""Published for open_clip alone, by whose numbers tests/hub/test_coca.py holds it."""


def test_a_directory_that_the_library_cannot_know_is_refused(tmp_path: Path) -> None:
    checkpoint = hub.read(references.save_clip(tmp_path, references.tiny_clip()))
    (tmp_path / "config.json").unlink()
    with pytest.raises(TongganError, match=r"there is no config\.json, so transformers does not know what it is"):
        against_transformers(checkpoint, tmp_path, count=2, seed=0, backward=False)


def test_every_family_is_among_them(tmp_path: Path) -> None:
    covered = set()
    for name, make in MODELS.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name)
        config = transformers.AutoConfig.from_pretrained(tmp_path / name)
        covered |= {family.name for family in PUBLISHED if config.model_type in family.model_types}
    assert {family.name for family in PUBLISHED} - covered == NOT_THEIRS


def phrases(name: str) -> list[str]:
    answers = ANSWERS[name] - ({"logits"} if ANSWERS[name] & {CLASSES, "match"} else set())
    assert answers <= set().union(*(names for _, names in PHRASES.values())), "the page has no word for it"
    return [phrase for phrase, (_, names) in PHRASES.items() if names & answers]


@pytest.mark.parametrize("page", ["verified.md", "zh/verified.md"])
def test_the_page_names_what_is_tested_here_and_nothing_else(page: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (\S+) \|$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    if page.startswith("zh/"):
        expected = [(name, "、".join(PHRASES[phrase][0] for phrase in phrases(name)), "有") for name in MODELS]
    else:
        expected = [(name, ", ".join(phrases(name)), "yes") for name in MODELS]
    assert rows == expected
