"""Directories of families that we have no code for, through `load`: equal to `transformers` called by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from tonggan import load
from tonggan.types import CannotError, ChatOptions, Image, Message, Text, TongganError, UsageError

transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
import tiny  # noqa: E402


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llava(tmp_path_factory.mktemp("llava"))


def picture(seed: int = 0) -> Image:
    return Image(array=np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8))


def asking(words: str, seed: int = 0) -> list[Message]:
    return [Message("user", (picture(seed), Text(words)))]


def by_hand(directory: Path, words: str, seed: int = 0) -> tuple[Any, Any, Any]:
    model = transformers.AutoModelForImageTextToText.from_pretrained(directory).eval()
    processor = transformers.AutoProcessor.from_pretrained(directory)
    inputs = processor(images=PIL.Image.fromarray(picture(seed).array), text=f"USER: <image> {words} ASSISTANT: ", return_tensors="pt")
    return model, processor, inputs


def test_a_chat_model_answers_as_generate_does(llava: Path) -> None:
    model = load(str(llava))
    assert model.can == {"chat", "logprob"}
    answers = model.chat([asking("what is this ?"), asking("a red bird", 1)], ChatOptions(max_tokens=6))
    for answer, (words, seed) in zip(answers, [("what is this ?", 0), ("a red bird", 1)], strict=True):
        theirs, processor, inputs = by_hand(llava, words, seed)
        with torch.inference_mode():
            made = theirs.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answer.text == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
        assert answer.usage.output_tokens == len(made)
        assert answer.outcome == ("answered" if made[-1] == 2 else "truncated")


def test_log_probabilities_are_those_of_the_forward_pass(llava: Path) -> None:
    model = load(str(llava))
    ((a, bird),) = model.logprob([asking("what is this ?")], [["A", "a red bird"]])
    theirs, _, inputs = by_hand(llava, "what is this ?")
    ids = torch.tensor([[11, 12, 13]])
    joined = torch.cat([inputs["input_ids"], ids], dim=1)
    with torch.inference_mode():
        logits = theirs(input_ids=joined, pixel_values=inputs["pixel_values"], attention_mask=torch.ones_like(joined)).logits[0]
    odds = logits.log_softmax(-1)
    assert bird == pytest.approx(sum(float(odds[-4 + k, ids[0, k]]) for k in range(3)), abs=1e-4)
    assert a == pytest.approx(float(odds[-4, 7]), abs=1e-4)


def test_an_unreadable_picture_fails_alone(llava: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken = [Message("user", (Image.open(tmp_path / "broken.png"), Text("what ?")))]
    first, second = load(str(llava)).chat([broken, asking("what ?")], ChatOptions(max_tokens=2))
    assert first.outcome == "error" and "broken.png" in str(first.error)
    assert second.outcome in ("answered", "truncated")


def test_a_foreign_two_tower_model_embeds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**shape, "vocab_size": len(tiny.WORDS), "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**shape, "image_size": 28, "patch_size": 14}
    config = transformers.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=32)
    transformers.MetaClip2Model(config).save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = load(str(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = model.embed(["a red bird", picture(), Image.open(tmp_path / "broken.png"), "what"])
    assert found.vectors.shape == (4, 32)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), [1, 1, 0, 1], atol=1e-5)
    assert list(found.errors) == [2]
    theirs = transformers.MetaClip2Model.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        ids = tiny.tokenizer()(["a red bird"], return_tensors="pt")["input_ids"]
        vector = theirs(input_ids=ids, pixel_values=torch.zeros(1, 3, 28, 28)).text_embeds[0]
    assert np.allclose(found.vectors[0], torch.nn.functional.normalize(vector, dim=0).numpy(), atol=1e-5)
    with pytest.raises(CannotError, match="it can: embed"):
        model.chat([asking("what ?")])


def test_what_transformers_cannot_open_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "metaclip_2", "architectures": ["MetaClip2Model"]}')
    with pytest.raises(TongganError, match="transformers cannot open it"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}')
    with pytest.raises((TongganError, UsageError), match="never-heard-of"):
        load(str(tmp_path))


@pytest.mark.parametrize("kept", [0, 5, 0.5])
def test_weights_that_broke_off_are_named(llava: Path, tmp_path: Path, kept: float) -> None:
    broken = shutil.copytree(llava, tmp_path / "broken")
    file = broken / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept if kept != 0.5 else len(whole) * kept)])
    with pytest.raises(TongganError, match=r"model\.safetensors: damaged or incomplete, fetch it again") as caught:
        load(str(broken))
    assert "\n" not in str(caught.value)


def test_a_processor_that_does_not_work_is_said_in_a_line(llava: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(llava, tmp_path / "broken")
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (broken / name).is_file():
            said = json.loads((broken / name).read_text("utf-8"))
            said.get("image_processor", said)["image_mean"] = "grey"
            (broken / name).write_text(json.dumps(said), "utf-8")
    with pytest.raises(TongganError, match="broken: transformers"):
        load(str(broken))


@pytest.fixture(scope="module")
def strict(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its chat template refuses what begins with "bird", as published templates refuse an order of roles."""
    directory = shutil.copytree(llava, tmp_path_factory.mktemp("strict") / "model")
    refusing = "{% if messages[0]['content'][1]['text'].startswith('bird') %}{{ raise_exception('no birds here') }}{% endif %}"
    (directory / "chat_template.jinja").write_text(refusing + tiny.TEMPLATE, "utf-8")
    return directory


def test_a_template_that_raises_fails_one_conversation(strict: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(str(strict))
    asked = [asking("bird ?"), asking("what ?")]
    refused, answered = model.chat(asked, ChatOptions(max_tokens=2))
    assert refused.outcome == "error" and "no birds here" in str(refused.error)
    assert answered.outcome in ("answered", "truncated")
    (first, second) = model.logprob(asked, [["A", "B"], ["A", "B"]])
    assert [math.isnan(value) for value in first + second] == [True, True, False, False]
    assert "no birds here" in caplog.text


def test_a_template_that_does_not_parse_is_said(llava: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(llava, tmp_path / "broken")
    (broken / "chat_template.jinja").write_text("{% for m in messages %}", "utf-8")
    (answer,) = load(str(broken)).chat([asking("what ?")])
    assert answer.outcome == "error" and "endfor" in str(answer.error)


def test_an_unreadable_picture_is_scored_as_nan(llava: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = [Message("user", (Image.open(tmp_path / "broken.png"), Text("what ?")))]
    (none, some) = load(str(llava)).logprob([broken, asking("what ?")], [["A"], ["A"]])
    assert math.isnan(none[0]) and math.isfinite(some[0])


def test_a_continuation_without_tokens_is_refused(llava: Path) -> None:
    with pytest.raises(TongganError, match="has no tokens"):
        load(str(llava)).logprob([asking("what ?")], [["A", " "]])


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"beams": 3, "length_penalty": -1.0}, {"num_beams": 3, "length_penalty": -1.0}),
        ({"beams": 3, "samples": 2}, {"num_beams": 3, "num_return_sequences": 2}),
        ({"repetition_penalty": 3.0}, {"repetition_penalty": 3.0}),
        (
            {"temperature": 2.0, "seed": 3, "top_k": 6, "min_p": 0.05, "samples": 3},
            {"do_sample": True, "temperature": 2.0, "top_k": 6, "min_p": 0.05, "num_return_sequences": 3},
        ),
    ],
)
def test_settings_are_generates_own(llava: Path, options: dict[str, Any], theirs: dict[str, Any]) -> None:
    (answer,) = load(str(llava)).chat([asking("what is this ?")], ChatOptions(max_tokens=6, **options))
    model, processor, inputs = by_hand(llava, "what is this ?")
    torch.manual_seed(3)
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=6, **{"do_sample": False, **theirs})[:, inputs["input_ids"].shape[1] :]
    assert [one.text for one in (answer, *answer.others)] == [
        text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)
    ]
    for one, row in zip((answer, *answer.others), made.tolist(), strict=True):
        assert one.usage.output_tokens == (row.index(2) + 1 if 2 in row else 6), "what fills a row up is not counted"


def test_beams_are_the_directorys_where_they_are_left_open(llava: Path, tmp_path: Path) -> None:
    own = shutil.copytree(llava, tmp_path / "own")
    said = json.loads((own / "generation_config.json").read_text("utf-8"))
    (own / "generation_config.json").write_text(json.dumps({**said, "num_beams": 3}))
    asked: list[Any] = []
    model = load(str(own))
    generate = model.module.generate  # type: ignore[attr-defined]
    model.module.generate = lambda **given: asked.append(given.get("num_beams")) or generate(**given)  # type: ignore[attr-defined]
    texts = [model.chat([asking("what ?")], ChatOptions(max_tokens=6, beams=beams))[0].text for beams in (None, 3, 1)]
    assert asked == [None, 3, 1] and texts[0] == texts[1]


def test_an_answer_ends_at_the_first_stop_and_is_not_called_cut(llava: Path) -> None:
    model = load(str(llava))
    asked, short = [asking("what is this ?")], ChatOptions(max_tokens=3)
    (whole,) = model.chat(asked, short)
    first, last = whole.text.split()
    (answer,) = model.chat(asked, replace(short, stop=("never", last, first)))
    assert whole.outcome == "truncated"
    assert (answer.text, answer.outcome, answer.finish_reason) == ("", "answered", "stop")


def test_what_is_not_passed_on_is_refused_by_name(llava: Path) -> None:
    (answer,) = load(str(llava)).chat([asking("what ?")], ChatOptions(logprobs=True))
    assert answer.outcome == "error" and "leave logprobs out" in str(answer.error)
