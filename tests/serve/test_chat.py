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


def test_a_question_that_cannot_be_asked_is_an_error_before_a_reply_begins(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no answer came"):
        client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": "boom"}], stream=True)


class Breaking(Parrot):
    """Says a word, then fails: as it may, or as it must not."""

    def stream(self, conversation: Sequence[Message], options: ChatOptions | None = None) -> Generator[str, None, Answer]:
        yield "word"
        if conversation[-1].parts == (Text("badly"),):
            raise RuntimeError("a secret")
        return Answer(text="word", outcome="error", error="the picture broke off")


@pytest.mark.parametrize(
    ("words", "told", "kind"), [("so", "the picture broke off", "invalid_request"), ("badly", "its log says", "server")]
)
def test_what_fails_under_way_is_an_event_and_the_stream_ends_well(words: str, told: str, kind: str) -> None:
    ask = {"messages": [{"role": "user", "content": words}], "stream": True}
    with Engine(Breaking()) as engine, listening(create_app(engine)) as address:
        for _ in range(2):  # nor does the first one's failure keep the model
            reply = httpx.post(f"{address}/v1/chat/completions", json=ask, timeout=10).text
            *_, piece, error, done = [line.removeprefix("data: ") for line in reply.strip().split("\n\n")]
            assert json.loads(piece)["choices"][0]["delta"] == {"content": "word"} and done == "[DONE]" and "secret" not in reply
            assert told in json.loads(error)["error"]["message"] and json.loads(error)["error"]["type"] == f"{kind}_error"


def test_several_answers_with_their_log_probabilities_whole_and_in_pieces(client: openai.OpenAI, parrot: Parrot) -> None:
    asked = {"model": "parrot", "messages": [{"role": "user", "content": "你好 a"}], "n": 3, "temperature": 0.5, "logprobs": True}
    more = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    whole = client.chat.completions.create(**asked, extra_body=more)  # type: ignore[call-overload]
    assert parrot.options[-1] == ChatOptions(temperature=0.5, samples=3, logprobs=True, **more)  # type: ignore[arg-type]
    said = [choice.message.content for choice in whole.choices]
    assert said == ["你好 a (0)", "你好 a (0) 1", "你好 a (0) 2"] and [choice.index for choice in whole.choices] == [0, 1, 2]
    assert whole.usage.completion_tokens == sum(map(len, said)) and whole.usage.prompt_tokens == 1, "the prompt is read once"
    for choice in whole.choices:
        assert "".join(one.token for one in choice.logprobs.content) == choice.message.content
        assert bytes(choice.logprobs.content[0].bytes).decode() == "你" and choice.logprobs.content[0].logprob == -0.5
    pieces = list(client.chat.completions.create(**asked, extra_body=more, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    choices = [piece.choices[0] for piece in pieces if piece.choices]
    for index, text in enumerate(said):
        own = [choice for choice in choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in own) == text and own[-1].finish_reason == "stop"
        assert own[-1].logprobs.content[-1].token == text[-1]
    assert pieces[-1].usage == whole.usage


def test_what_asks_for_nothing_is_taken_and_a_reply_can_be_sent_back_whole(client: openai.OpenAI, parrot: Parrot) -> None:
    asked = {"role": "user", "content": "a"}
    nothing = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "frequency_penalty": 0.0, "logit_bias": {}}
    first = client.chat.completions.create(model="parrot", messages=[{"role": "system", "content": ""}, asked], n=None, **nothing)  # type: ignore[call-overload]
    said = first.choices[0].message
    client.chat.completions.create(model="parrot", messages=[asked, said, said.model_dump(), asked], extra_body={"top_k": -1, "min_p": 0})
    assert [message.role for message in parrot.heard[-1]] == ["user", "assistant", "assistant", "user"]
    assert parrot.options[-1] == ChatOptions(), "-1 and 0 are what they are to vLLM: off"


def test_a_picture_needs_no_words(client: openai.OpenAI, parrot: Parrot) -> None:
    parts = [{"type": "text", "text": ""}, {"type": "image_url", "image_url": {"url": picture()}}]
    client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": parts}])  # type: ignore[list-item,misc]
    assert [part.kind for part in parrot.heard[-1][0].parts] == ["text", "image"]


def test_a_data_uri_as_plain_words_stays_words(client: openai.OpenAI, parrot: Parrot) -> None:
    client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": picture()}])
    assert isinstance(parrot.heard[-1][0].parts[0], Text)


def asking(content: object, **settings: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **settings}


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
    "several answers": (asking("a", n=2), "2 answers at temperature 0 are all the same"),
    "many answers": (asking("a", n=17, temperature=1), "n: 17, expected 1 to 16"),
    "many beams": (asking("a", num_beams=17), "num_beams: 17, expected 1 to 16"),
    "beams and draws": (asking("a", num_beams=2, temperature=1), "leave one of them out"),
    "a draw without a temperature": (asking("a", top_k=3), "top_k: it is about what is drawn"),
    "a share without a temperature": (asking("a", top_p=0.9), "top_p: it is about what is drawn"),
    "no beams to compare": (asking("a", length_penalty=2.0), "a length penalty compares beams"),
    "other likely tokens": (asking("a", logprobs=True, top_logprobs=2), "top_logprobs: this is not here; leave it out"),
    "tools": (asking("a", tools=[{"type": "function"}]), "tools: this is not here"),
    "a form": (asking("a", response_format={"type": "json_object"}), "response_format: this is not here"),
    "a penalty": (asking("a", frequency_penalty=0.5), "frequency_penalty: this is not here"),
    "no number": (asking("a", temperature="NaN"), "temperature: Input should be a finite number"),
    "usage of no stream": (asking("a", stream_options={"include_usage": True}), "stream_options: they go with stream"),
    "an empty stop": (asking("a", stop=["x", ""]), "stop.1: String should have at least 1 character"),
    "a tool's turn": ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: Input should be"),
    "no words": (asking(" "), "messages.0: the user's message says nothing"),
    "no content": (asking(None), "messages.0.content: Input should be a valid string"),
    "no address": (asking([{"type": "image_url", "image_url": {}}]), "messages.0.content.0.image_url.url: Field required"),
    "no picture": (asking([{"type": "image_url"}]), "a content part of type image_url needs its field 'image_url'"),
    "half a letter": (asking("\ud83d"), "messages.0.content: not valid Unicode"),
    "unknown": ({"messages": [{"role": "user", "content": "a"}], "top_q": 2}, "top_q: Extra inputs are not permitted"),
    "two lengths": ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "max_completion_tokens": 3}, "give one of them"),
    "another model": ({"messages": [{"role": "user", "content": "a"}], "model": "colours"}, "colours cannot chat; it can: embed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_answered_is_said(url: str, what: str) -> None:
    ask, told = WRONG[what]
    reply = httpx.post(f"{url}/v1/chat/completions", content=json.dumps(ask), headers={"content-type": "application/json"})
    assert reply.status_code == 400 and told in reply.json()["error"]["message"], reply.text


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b'{"messages": [', "application/json", "the body is no JSON: Expecting value, at character 14"),
        (
            b'{"messages": [{"role": "user", "content": "a"}]}',
            "application/x-www-form-urlencoded",
            "with the header content-type: application/json",
        ),
    ],
)
def test_a_body_that_is_no_json_is_said(url: str, body: bytes, kind: str, told: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": kind})
    assert reply.status_code == 400 and told in reply.json()["error"]["message"] and reply.json()["error"]["param"] is None


def test_an_answer_without_log_probabilities_is_not_thrown_away(url: str, parrot: Parrot) -> None:
    parrot.counts = False
    reply = httpx.post(f"{url}/v1/chat/completions", json=asking("a", logprobs=True))
    parrot.counts = True
    (choice,) = reply.json()["choices"]
    assert reply.status_code == 200 and choice["message"]["content"] and choice["logprobs"] is None and "logprobs" in choice


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
        model.stopped.clear()
        with pytest.raises(httpx.ReadTimeout):  # nor is a whole answer made for nobody
            httpx.post(f"{address}/v1/chat/completions", json={"messages": ask["messages"]}, timeout=0.5)
        assert model.stopped.wait(5)
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=ask, timeout=5) as reply:
            assert any("word" in piece for piece, _ in zip(reply.iter_text(), range(4), strict=False))
