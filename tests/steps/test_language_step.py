"""Learning to say what follows: the plain definition, packed = padded, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tonggan.data.chat import ChatProcessing, ChatProcessor, Lesson, Placeholder
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.lessons import pack
from tonggan.data.text import train_bpe
from tonggan.models import Chat, ChatConfig, DualEncoder, presets
from tonggan.models.gpt import GPT, DecoderConfig, GPTConfig
from tonggan.models.towers import ViTConfig
from tonggan.nn.talking import Talker, standing, words
from tonggan.steps import build as build_step
from tonggan.steps.language import LanguageConfig, LanguageStep
from tonggan.tensors import IGNORE, Batch, Tokens, pad
from tonggan.types import Image, Message, Text, UsageError

IMAGE = Placeholder(text="<image>", id=400, count=4)
LLAMA: dict[str, Any] = {"vocab_size": 400, "context": 48, "width": 18, "layers": 2, "heads": 3, "kv_heads": 1, "mlp_width": 22}
GPT2: dict[str, Any] = {"style": "gpt2", "activation": "gelu_tanh"} | {k: v for k, v in LLAMA.items() if k != "kv_heads"}


@pytest.fixture(scope="module")
def lessons() -> tuple[ChatProcessor, list[Lesson]]:
    """Conversations of none, one and two pictures and of several lengths."""
    tokenizer = train_bpe(["a red bird sings", "user assistant", "what is it?"] * 3, 400)
    chat = ChatProcessor(ChatProcessing(image=IMAGE), tokenizer, ImageProcessor(ImageProcessing(size=12)))
    generator = torch.Generator().manual_seed(0)
    pictures = [Image(array=torch.randint(256, (12, 12, 3), generator=generator, dtype=torch.uint8).numpy()) for _ in range(4)]
    seen: list[tuple[Image, ...]] = [(), (pictures[0],), (), (pictures[1], pictures[2]), (pictures[3],)]
    talks = [
        (Message("user", (*some, Text("it?" * (n % 3)))), Message("assistant", (Text("a red " * n + "bird"),)))
        for n, some in enumerate(seen)
    ]
    return chat, [chat.lesson(talk, id=str(n)) for n, talk in enumerate(talks)]


def tiny(kind: str, *, std: float = 0.3) -> nn.Module:
    """In double precision, with weights large enough that nothing passes unnoticed."""
    torch.manual_seed(0)
    text = DecoderConfig(**(GPT2 if kind == "gpt2" else LLAMA))
    if kind == "chat":
        eyes = ViTConfig(image_size=12, patch_size=6, width=15, layers=1, heads=3, mlp_width=20)
        made: nn.Module = Chat(ChatConfig(image=eyes, image_token=400, text=text))
    else:
        made = GPT(GPTConfig(text=text))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=std)
    return made.double()


def of(kind: str, lessons: list[Lesson]) -> list[Lesson]:
    return lessons if kind == "chat" else [one for one in lessons if not one.pictures]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "chat"])
def test_packed_is_padded(kind: str, lessons: tuple[ChatProcessor, list[Lesson]]) -> None:
    """The same loss and the same gradients, in other rows, though a row of several is longer than the context."""
    chat, given = lessons[0], of(kind, lessons[1])
    model = tiny(kind)
    assert isinstance(model, Talker)
    rows = pack(given, 2 * max(len(one.ids) for one in given))
    packed, padded = chat.collate_packed(rows), chat.collate(given)
    assert packed.tokens is not None and len(packed) < len(padded) and packed.tokens.ids.shape[1] > model.context
    step = build_step(model, LanguageConfig())
    found = []
    for batch in (padded, packed):
        model.zero_grad()
        output = step(batch)
        output.loss.backward()
        found.append((output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (one, grads), (other, others) = found
    assert torch.allclose(one.loss, other.loss, rtol=1e-12) and one.report["words"] == other.report["words"]
    largest = max(float(grad.abs().max()) for grad in grads.values())
    for name, grad in grads.items():
        assert torch.allclose(others[name], grad, rtol=1e-9, atol=1e-12 * largest), name
    told = dataclasses.replace(packed, tokens=dataclasses.replace(packed.tokens, segments=torch.zeros_like(packed.tokens.ids)))
    if kind != "gpt2":  # which has no positions for so long a text
        assert not torch.allclose(step(told).loss, one.loss, rtol=1e-4), "as one text they would see each other"


def test_places_of_packed_texts_start_at_zero_each() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 3, 3]])
    mask, at = standing(Tokens(segments, torch.tensor([6, 4]), segments=segments), None, packs=True)
    assert at is not None and at.tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1]]
    assert mask is not None and mask.causal and mask.segments is not None
    moved = Tokens(segments, torch.tensor([6, 4]), segments=segments).to("cpu")
    assert moved.segments is not None, "a batch that moves stays packed"


def test_the_plain_definition(lessons: tuple[ChatProcessor, list[Lesson]]) -> None:
    batch, model = lessons[0].collate(lessons[1]), tiny("chat")
    assert isinstance(model, Chat) and batch.tokens is not None and batch.targets is not None
    output = build_step(model, LanguageConfig())(batch)
    logits = words(model, model.say(batch.tokens, model.read(batch)))
    expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
    asked = batch.targets != IGNORE
    assert output.report["loss"] == pytest.approx(float(expected.detach()), rel=1e-10)
    assert output.report["words"] == int(asked.sum()) > 0 and output.report["floor"] == 0
    assert output.report["chance"] == pytest.approx(math.log(400))
    assert output.report["word_top1"] == pytest.approx(float((logits.argmax(2) == batch.targets)[asked].double().mean()))


def test_it_learns_the_answers_of_one_batch(lessons: tuple[ChatProcessor, list[Lesson]]) -> None:
    model = tiny("chat", std=0.1).float()
    step, batch = build_step(model, LanguageConfig()), lessons[0].collate(lessons[1][:3])
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        output = step(batch)
        if output.report["loss"] < 0.05:
            break
        adam.zero_grad()
        output.loss.backward()
        adam.step()
    assert output.report["loss"] < 0.05 and output.report["word_top1"] == 1


def test_what_cannot_be_taught_is_said(lessons: tuple[ChatProcessor, list[Lesson]]) -> None:
    with pytest.raises(UsageError, match="step language: DualEncoder says nothing word by word"):
        build_step(DualEncoder(presets()["mini"]), LanguageConfig())  # type: ignore[arg-type]
    model = tiny("llama")
    assert isinstance(model, GPT)
    step = LanguageStep(model, LanguageConfig())
    tokens = pad([[1, 2, 3]])
    with pytest.raises(UsageError, match="needs tokens, and targets"):
        step(Batch(("a",), tokens=tokens))
    with pytest.raises(UsageError, match=r"targets are \[1, 2\], tokens \[1, 3\]"):
        step(Batch(("a",), tokens=tokens, targets=torch.zeros(1, 2, dtype=torch.long)))
    segmented = dataclasses.replace(tokens, segments=torch.tensor([[0, 0, 1]]))
    with pytest.raises(UsageError, match="packed into a row, but a cache has one text per row"):
        model.say(segmented, cache=model.cache(8))
    with pytest.raises(UsageError, match="packed into a row, but this system looks at what was read"):
        standing(segmented, None)
    assert LanguageConfig().modalities == frozenset()
