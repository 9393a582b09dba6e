"""The chat API as its users meet it: the openai client over real HTTP, in pieces and whole, with pictures, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Generator, Iterator, Sequence

import httpx
import openai
import pytest
from PIL import Image as Pil

from fakes import ColourModel, Parrot
from listening import listening
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.types import Answer, ChatOptions, Image, Message, Text


@pytest.fixture(scope="module")
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture(scope="module")
def url(parrot: Parrot) -> Iterator[str]:
    with Engine(parrot) as engine, Engine(ColourModel()) as other, listening(create_app(engine, others={"colours": other})) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


def picture() -> str:
    out = io.BytesIO()
    Pil.new("RGB", (8, 8), (9, 9, 9)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def shown(words: str) -> list[dict[str, object]]:
    parts = [{"type": "image_url", "image_url": {"url": picture(), "detail": "low"}}, {"type": "text", "text": words}]
    return [{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}]


def test_a_question_about_a_picture(client: openai.OpenAI, parrot: Parrot) -> None:
    reply = client.chat.completions.create(model="parrot", messages=shown("图中有什么？"), max_tokens=7, temperature=0.5, seed=3, stop="。")  # type: ignore[arg-type]
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("图中有什么？ (1)", "stop")
    assert reply.usage is not None and reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert parrot.options[-1] == ChatOptions(max_tokens=7, temperature=0.5, seed=3, stop=("。",))
    assert [message.role for message in parrot.heard[-1]] == ["system", "user"]
    assert isinstance(parrot.heard[-1][1].parts[0], Image)


def test_in_pieces_it_is_the_same(client: openai.OpenAI) -> None:
    pieces = list(
        client.chat.completions.create(model="default", messages=shown("long ago"), stream=True, stream_options={"include_usage": True})
    )  # type: ignore[call-overload]
    told = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert told == "long ago (1)" and len(pieces) > 8
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "length"
    assert pieces[-1].usage.completion_tokens == len(told) and len({piece.id for piece in pieces}) == 1


def test_events_end_with_done_and_hold_errors(url: str) -> None:
    ask = {"messages": [{"role": "user", "content": "boom"}], "stream": True}
    lines = httpx.post(f"{url}/v1/chat/completions", json=ask).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]" and json.loads(lines[-2].removeprefix("data: "))["error"]["message"] == "no answer came"


def test_a_data_uri_as_plain_words_stays_words(client: openai.OpenAI, parrot: Parrot) -> None:
    client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": picture()}])
    assert isinstance(parrot.heard[-1][0].parts[0], Text)


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no answer": ({"messages": [{"role": "user", "content": "boom"}]}, "no answer came"),
    "the assistant's turn": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "the last is the assistant's",
    ),
    "no messages": ({"messages": []}, "messages: List should have at least 1 item"),
    "nothing said": ({"messages": [{"role": "user", "content": []}]}, "messages.0: it has no content"),
    "a path": ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]}, "data URI"),
    "a system's picture": (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {"role": "user", "content": "a"}]},
        "the system's message may hold text alone",
    ),
    "a sound": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}]},
        "parrot takes image, text, not audio",
    ),
    "several answers": ({"messages": [{"role": "user", "content": "a"}], "n": 2}, "n: Input should be 1"),
    "unknown": ({"messages": [{"role": "user", "content": "a"}], "top_q": 2}, "top_q: Extra inputs are not permitted"),
    "two lengths": ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "max_completion_tokens": 3}, "give one of them"),
    "another model": ({"messages": [{"role": "user", "content": "a"}], "model": "colours"}, "colours cannot chat; it can: embed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_answered_is_said(url: str, what: str) -> None:
    ask, told = WRONG[what]
    reply = httpx.post(f"{url}/v1/chat/completions", json=ask)
    assert reply.status_code == 400 and told in reply.json()["error"]["message"], reply.text


def test_a_model_that_chats_need_not_embed(url: str) -> None:
    reply = httpx.post(f"{url}/v1/embeddings", json={"input": "red"})
    assert reply.status_code == 400 and "parrot cannot embed; it can: chat" in reply.json()["error"]["message"]


class Endless(Parrot):
    """Speaks until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = threading.Event()

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        try:
            while True:
                yield "word "
                time.sleep(0.005)
        finally:
            self.stopped.set()


def test_who_goes_away_stops_the_model_and_lets_others_speak() -> None:
    model = Endless()
    with Engine(model) as engine, listening(create_app(engine)) as address:
        ask = {"messages": [{"role": "user", "content": "go on"}], "stream": True}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=ask) as reply:
            next(reply.iter_text())
        assert model.stopped.wait(5)
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=ask, timeout=5) as reply:
            assert any("word" in piece for piece, _ in zip(reply.iter_text(), range(4), strict=False))
