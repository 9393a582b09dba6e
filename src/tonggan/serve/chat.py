"""OpenAI's chat API (`/v1/chat/completions`): a request as a conversation, answers as a completion, whole or in pieces.

Settings that OpenAI has no word for are named as vLLM and `transformers` name them.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Annotated, Any, Literal

import pydantic

from tonggan.serve.parts import ContentPart, Strict, Words, item_of
from tonggan.types import Answer, ChatOptions, Message, Part, Text, TongganError, UsageError

log = logging.getLogger("tonggan")
REASONS = {"truncated": "length", "refused": "stop", "filtered": "content_filter", "answered": "stop", "error": "stop"}


def _asking_nothing(*values: Any) -> pydantic.AfterValidator:
    """For a field that is not here: clients send some unasked, with a value that asks for nothing; any other is refused."""

    def check(given: Any) -> Any:
        if given is not None and given not in values:
            raise ValueError("this is not here; leave it out")
        return given

    return pydantic.AfterValidator(check)


Stop = Annotated[str, pydantic.Field(min_length=1)]


class Turn(Strict):
    """One message; `developer` is OpenAI's newer word for `system`. A client's reply, sent back whole, has fields that are null."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[ContentPart]
    name: str | None = None
    refusal: Annotated[Any, _asking_nothing()] = None
    audio: Annotated[Any, _asking_nothing()] = None
    tool_calls: Annotated[Any, _asking_nothing([])] = None
    function_call: Annotated[Any, _asking_nothing()] = None
    annotations: Annotated[Any, _asking_nothing([])] = None


class StreamOptions(Strict):
    """Whether a last piece says how many tokens were read and written."""

    include_usage: bool = False


class ChatRequest(Strict):
    """What a client asks. Greedy unless a temperature is given."""

    messages: list[Turn] = pydantic.Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = pydantic.Field(default=None, ge=1)
    max_completion_tokens: int | None = pydantic.Field(default=None, ge=1)
    temperature: float | None = pydantic.Field(default=None, ge=0, allow_inf_nan=False)
    top_p: float | None = pydantic.Field(default=None, gt=0, le=1)
    top_k: int | None = pydantic.Field(default=None, ge=-1)
    """0 and -1: all words."""
    min_p: float | None = pydantic.Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)
    num_beams: int = pydantic.Field(default=1, ge=1)
    length_penalty: float | None = pydantic.Field(default=None, allow_inf_nan=False)
    seed: int | None = None
    stop: Stop | list[Stop] | None = None
    n: int | None = pydantic.Field(default=None, ge=1)
    logprobs: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_logprobs: Annotated[Any, _asking_nothing(0)] = None
    frequency_penalty: Annotated[Any, _asking_nothing(0)] = None
    presence_penalty: Annotated[Any, _asking_nothing(0)] = None
    logit_bias: Annotated[Any, _asking_nothing({})] = None
    tools: Annotated[Any, _asking_nothing([])] = None
    tool_choice: Annotated[Any, _asking_nothing("none", "auto")] = None
    response_format: Annotated[Any, _asking_nothing({"type": "text"})] = None
    modalities: Annotated[Any, _asking_nothing(["text"])] = None
    store: Annotated[Any, _asking_nothing(False)] = None

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
        """How to answer; raises `UsageError` for settings that would make no difference, or two that differ."""
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise UsageError(f"max_tokens is {self.max_tokens}, max_completion_tokens {self.max_completion_tokens}: give one of them")
        if self.stream_options is not None and not self.stream:
            raise UsageError("stream_options: they go with stream; give both, or neither")
        top_k, min_p = self.top_k if self.top_k and self.top_k > 0 else None, self.min_p or None
        drawn = {"top_p": self.top_p != 1 and self.top_p, "top_k": top_k, "min_p": min_p}
        if self.temperature is None and (name := next((name for name, value in drawn.items() if value), None)):
            raise UsageError(f"{name}: it is about what is drawn, and without a temperature nothing is; give one")
        return ChatOptions(
            max_tokens=self.max_completion_tokens or self.max_tokens or ChatOptions().max_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=self.repetition_penalty,
            beams=self.num_beams,
            length_penalty=self.length_penalty,
            samples=self.n or 1,
            logprobs=bool(self.logprobs),
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
        )


def _parts(turn: Turn, number: int) -> tuple[Part, ...]:
    # A whole text is words, also where it looks like a data URI: only a part of type image_url is a picture.
    given: Sequence[ContentPart] = [ContentPart(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content
    if not given:
        raise UsageError(f"messages.{number}: it has no content")
    if turn.role != "user" and any(part.type != "text" for part in given):
        raise UsageError(f"messages.{number}: the {turn.role}'s message may hold text alone; pictures, sounds and clips are the user's")
    # Texts may be empty, beside a picture or as a system's message; what is asked may not be nothing.
    parts = tuple(Text(part.text) if part.type == "text" and part.text is not None else item_of(part) for part in given)
    if turn.role == "user" and not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        raise UsageError(f"messages.{number}: the user's message says nothing")
    return parts


def completion(answer: Answer, name: str, *, logprobs: bool = False) -> dict[str, Any]:
    """Whole answers."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": one.text},
            "finish_reason": REASONS[one.outcome],
            "logprobs": _logprobs(one) if logprobs else None,
        }
        for index, one in enumerate((answer, *answer.others))
    ]
    return {**_head("chat.completion", name), "choices": choices, "usage": _usage(answer)}


def underway(pieces: Generator[str, None, Answer]) -> Generator[str, None, Answer]:
    """The same, once its first piece is there: a question that cannot be asked is an error (`UsageError`), not the beginning of a reply."""
    ahead: list[str] = []
    answer: Answer | None = None
    try:
        ahead.append(next(pieces))
    except StopIteration as end:
        answer = end.value
        if end.value.outcome == "error":
            raise UsageError(end.value.error or "no answer") from None
    return _going_on(ahead, pieces, answer)


def _going_on(ahead: list[str], pieces: Generator[str, None, Answer], answer: Answer | None) -> Generator[str, None, Answer]:
    yield from ahead
    return answer if answer is not None else (yield from pieces)


def events(pieces: Generator[str, None, Answer], name: str, *, usage: bool, logprobs: bool = False) -> Generator[str]:
    """An answer in pieces, as server-sent events; further ones follow whole. Closing this closes `pieces`, which stops the model.

    Log-probabilities come with an answer's last piece.
    """
    head = _head("chat.completion.chunk", name)

    def event(delta: dict[str, str], reason: str | None = None, index: int = 0, logprobs: dict[str, Any] | None = None) -> str:
        return _event({**head, "choices": [{"index": index, "delta": delta, "finish_reason": reason, "logprobs": logprobs}]})

    try:
        try:
            yield event({"role": "assistant", "content": ""})
            answer = yield from _pieces(pieces, lambda piece: event({"content": piece}))
            if answer.outcome == "error":
                raise UsageError(answer.error or "no answer")
            told = [_logprobs(one) if logprobs else None for one in (answer, *answer.others)]
            yield event({}, REASONS[answer.outcome], logprobs=told[0])
            for index, one in enumerate(answer.others, 1):
                yield event({"role": "assistant", "content": one.text}, index=index)
                yield event({}, REASONS[one.outcome], index, told[index])
            if usage:
                yield _event({**head, "choices": [], "usage": _usage(answer)})
        except TongganError as error:
            yield _failed(str(error), "invalid_request_error")
        except Exception:  # the reply has begun: its status can say nothing any more, and a cut connection would say less
            log.exception("an answer of %s failed", name)
            yield _failed("the server failed at this request; its log says why", "server_error")
        yield "data: [DONE]\n\n"
    finally:
        pieces.close()


def _pieces(pieces: Generator[str, None, Answer], event: Callable[[str], str]) -> Generator[str, None, Answer]:
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
        yield event(piece)


def _failed(message: str, kind: str) -> str:
    return _event({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _head(what: str, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": what, "created": int(time.time()), "model": name}


def _logprobs(answer: Answer) -> dict[str, Any] | None:
    """Each token with its log-probability; joined they are the text, but for blanks at its ends. A token of half a character adds nothing.
    None where there are none: an endpoint may give an answer, which was paid for, without."""
    if answer.tokens is None or answer.logprobs is None:
        return None
    content = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in zip(answer.tokens, answer.logprobs, strict=False)  # there may be one more, of the end
    ]
    return {"content": content, "refusal": None}


def _usage(answer: Answer) -> dict[str, int] | None:
    """The prompt is read once, however many answers there are; of an endpoint the first one counts the others' tokens too."""
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    if read is None or written is None:
        return None
    written += sum(one.usage.output_tokens or 0 for one in answer.others)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
