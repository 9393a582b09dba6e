"""OpenAI's chat API (`/v1/chat/completions`): a request as a conversation, an answer as a completion, whole or in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Generator, Sequence
from typing import Any, Literal

import pydantic

from tonggan.serve.parts import ContentPart, Strict, Words, item_of
from tonggan.types import Answer, ChatOptions, Message, Part, Text, UsageError

REASONS = {"truncated": "length", "refused": "stop", "filtered": "content_filter", "answered": "stop"}


class Turn(Strict):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[ContentPart]
    name: str | None = None


class StreamOptions(Strict):
    """Whether a last piece says how many tokens were read and written."""

    include_usage: bool = False


class ChatRequest(Strict):
    """What a client asks. Greedy unless a temperature is given."""

    messages: list[Turn] = pydantic.Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = pydantic.Field(default=None, ge=1)
    max_completion_tokens: int | None = pydantic.Field(default=None, ge=1)
    temperature: float | None = pydantic.Field(default=None, ge=0)
    top_p: float | None = pydantic.Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: str | None = None

    @property
    def conversation(self) -> list[Message]:
        """The messages as ours; raises `UsageError` for one without content, or where the last is not the user's."""
        if self.messages[-1].role != "user":
            raise UsageError(f"messages: the last is the {self.messages[-1].role}'s; an answer goes to the user's")
        return [
            Message("system" if turn.role == "developer" else turn.role, _parts(turn, number)) for number, turn in enumerate(self.messages)
        ]

    @property
    def options(self) -> ChatOptions:
        """How to answer."""
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise UsageError(f"max_tokens is {self.max_tokens}, max_completion_tokens {self.max_completion_tokens}: give one of them")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return ChatOptions(
            max_tokens=self.max_completion_tokens or self.max_tokens or ChatOptions().max_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p,
            seed=self.seed,
            stop=stop,
        )


def _parts(turn: Turn, number: int) -> tuple[Part, ...]:
    # A whole text is words, also where it looks like a data URI: only a part of type image_url is a picture.
    given: Sequence[ContentPart] = [ContentPart(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content
    if not given:
        raise UsageError(f"messages.{number}: it has no content")
    if turn.role != "user" and any(part.type != "text" for part in given):
        raise UsageError(f"messages.{number}: the {turn.role}'s message may hold text alone; pictures, sounds and clips are the user's")
    # What an assistant once said may be empty; what is asked may not.
    return tuple(Text(part.text) if turn.role == "assistant" and part.text is not None else item_of(part) for part in given)


def completion(answer: Answer, name: str) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": REASONS[answer.outcome], "logprobs": None}
    return {**_head("chat.completion", name), "choices": [choice], "usage": _usage(answer)}


def events(pieces: Generator[str, None, Answer], name: str, *, usage: bool) -> Generator[str]:
    """An answer in pieces, as server-sent events. Closing this closes `pieces`, which stops the model."""
    head = _head("chat.completion.chunk", name)

    def event(delta: dict[str, str], reason: str | None = None) -> str:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    try:
        yield event({"role": "assistant", "content": ""})
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                break
            yield event({"content": piece})
        if answer.outcome == "error":
            yield _event({"error": {"message": answer.error, "type": "invalid_request_error", "param": None, "code": None}})
        else:
            yield event({}, REASONS[answer.outcome])
            if usage:
                yield _event({**head, "choices": [], "usage": _usage(answer)})
        yield "data: [DONE]\n\n"
    finally:
        pieces.close()


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _head(what: str, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": what, "created": int(time.time()), "model": name}


def _usage(answer: Answer) -> dict[str, int] | None:
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    if read is None or written is None:
        return None
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
