"""A chat model that hears: several sounds in one message, beside pictures, and several questions about one sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import square
from tonggan import hub
from tonggan.backends.local import LocalModel
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import train_bpe
from tonggan.models import build
from tonggan.models.chat import Chat, ChatConfig
from tonggan.recipes.talking import conversing, worded
from tonggan.tensors import Sounds
from tonggan.types import Answer, Audio, ChatOptions, Message, Part, Text

SHORT = ChatOptions(max_tokens=6, logprobs=True)


def tone(pitch: float, seconds: float = 0.4) -> Audio:
    return Audio(array=np.sin(np.arange(int(16_000 * seconds)) * pitch).astype(np.float32), rate=16_000)


def asking(words: str, *media: Part) -> list[Message]:
    return [Message("user", (*media, Text(words)))]


def likely(answer: Answer) -> list[float]:
    assert answer.logprobs is not None
    return list(answer.logprobs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    tokenizer = train_bpe(["which sounds first, 哪个先响"], 300, exact=True)
    shape = ChatConfig.parse(
        {
            "image": {"kind": "vit", "image_size": 8, "patch_size": 4, "width": 12, "layers": 1, "heads": 2, "mlp_width": 12},
            "image_token": 300,
            "audio": {"kind": "log_mel", "bins": 20, "context": 100, "width": 12, "layers": 1, "heads": 2, "mlp_width": 12},
            "audio_token": 301,
            "text": {"vocab_size": 300, "context": 400, "width": 12, "layers": 2, "heads": 2, "mlp_width": 12},
        },
        "chat",
    )
    config = worded(shape, tokenizer)
    torch.manual_seed(0)
    module = build(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    sounds = AudioProcessor(AudioProcessing(bins=20, seconds=2))
    processor = Processor(ImageProcessor(ImageProcessing(size=8)), tokenizer, sounds)
    where = tmp_path_factory.mktemp("hearing")
    hub.save(Path(where), module.eval(), config, conversing(config, module, processor, None, {}))
    return LocalModel(hub.read(where), "cpu")


def test_several_sounds_in_one_message_and_none_in_the_next(model: LocalModel) -> None:
    """Each answer is what it is alone; which sound comes first matters."""
    high, low = tone(0.9), tone(0.05, 0.9)
    conversations = [asking("a", high, low), asking("a", low, high), asking("a"), asking("a", square(5, 90, 200, size=8), high)]
    alone = [model.chat([one], SHORT)[0] for one in conversations]
    assert all(one.outcome != "error" for one in alone), [one.error for one in alone]
    together = model.chat(conversations, SHORT)
    assert [one.text for one in together] == [one.text for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert likely(one) == pytest.approx(likely(other), abs=1e-4)
    assert likely(alone[0]) != pytest.approx(likely(alone[1]), abs=1e-3)


def test_several_questions_about_one_sound_hear_it_once(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [asking(words, tone(0.3)) for words in ("a", "which", "哪个")]
    apart = [model.chat([question], SHORT)[0].text for question in questions]
    heard: list[int] = []
    hear = Chat.sounds

    def hearing(self: Chat, sounds: Sounds) -> list[torch.Tensor]:
        heard.append(len(sounds.values))
        return hear(self, sounds)

    monkeypatch.setattr(Chat, "sounds", hearing)
    fresh = LocalModel(model.checkpoint, "cpu")
    assert [one.text for one in fresh.chat(questions, SHORT)] == apart and heard == [1]
    fresh.chat([asking("a", tone(0.31))], SHORT)
    assert heard == [1, 1], "another sound"
