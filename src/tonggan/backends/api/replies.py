"""What comes back: a reply's bytes, whole or as a stream of deltas, as an `Answer`.

Nothing here trusts a provider: a reply of another form than the API promises is a `ValueError` that says what was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tonggan.types import Answer, Outcome, Usage

_BLOCK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_ENDINGS: dict[str, Outcome] = {
    "content_filter": "filtered",
    "sensitive": "filtered",
    "length": "truncated",
    "refusal": "refused",
    "error": "error",
    "network_error": "error",
}
"""Reasons to finish that are no ordinary end; `sensitive` and `network_error` are Zhipu's, `error` is OpenRouter's."""
_FILTERS = (
    "content_filter", "contentfilter", "content filter", "content_policy", "data_inspection_failed", "datainspectionfailed",
    "sensitivecontent", "sensitive content", "sensitive information", "new_sensitive", "敏感",
)  # fmt: skip


def whole(pieces: Iterable[bytes]) -> Any:
    """The JSON of an ordinary reply."""
    data = b"".join(pieces)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON: {_head(data)}") from None


def assembled(pieces: Iterable[bytes]) -> Any:
    """The reply that a stream of deltas (`data: {…}` by line, in the end `data: [DONE]`) adds up to, in the form of an ordinary one.

    A stream that ends before it says why it finished is a `ValueError`: half an answer is none.
    """
    told: dict[str, Any] = {}
    parts: dict[int, _Growing] = {0: _Growing()}
    other = b""
    for line in _lines(pieces):
        if not line.startswith(b"data:"):
            other += line  # comments that keep the connection open, or an answer that is no stream at all
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            break
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError(f"no JSON in the stream: {_head(data)}") from None
        if not isinstance(chunk, dict):
            raise ValueError(f"no object in the stream: {_head(data)}")
        told |= {name: chunk[name] for name in ("id", "model", "usage", "error") if chunk.get(name) is not None}
        for choice in _list(chunk.get("choices")):
            if isinstance(choice, dict):
                index = choice.get("index")
                parts.setdefault(index if isinstance(index, int) else 0, _Growing()).add(choice)
    if not told and other.lstrip()[:1] in (b"{", b"<"):
        return whole([other])  # not every server streams when it is asked to; and pages are no answers
    if any(part.finish is None for part in parts.values()) and "error" not in told:
        raise ValueError("the stream ended before it said why it finished")
    return told | {"choices": [parts[index].choice(index) for index in sorted(parts)]}


@dataclass(slots=True)
class _Growing:
    """One choice of a stream, as far as it has come."""

    message: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": None})
    finish: Any = None
    logprobs: list[Any] = field(default_factory=list)

    def add(self, choice: dict[str, Any]) -> None:
        """Its next piece."""
        delta = choice.get("delta")
        for name in ("content", "refusal", "reasoning_content"):
            piece = _text(delta.get(name)) if isinstance(delta, dict) else None
            self.message[name] = (self.message.get(name) or "") + piece if piece is not None else self.message.get(name)
        self.finish = choice.get("finish_reason") or self.finish
        self.logprobs += _list(found.get("content")) if isinstance(found := choice.get("logprobs"), dict) else []

    def choice(self, index: int) -> dict[str, Any]:
        """As an ordinary reply has it."""
        whole = {"index": index, "message": self.message, "finish_reason": self.finish}
        return whole | ({"logprobs": {"content": self.logprobs}} if self.logprobs else {})


def read(plain: Any) -> Answer:
    """The answer of a reply, with further choices as its `others`; the usage is that of all, and the first one's."""
    if not isinstance(plain, dict):
        raise ValueError(f"no object: {_head(plain)}")
    plain = _clean(plain)
    if plain.get("error"):  # some providers report errors with status 200
        problem = plain["error"]
        said = problem.get("message") if isinstance(problem, dict) else problem
        why = filtered_or_error(json.dumps(problem, ensure_ascii=False))
        return Answer(outcome=why, usage=_usage(plain.get("usage")), raw=plain, error=f"the provider reports: {str(said)[:300]}")
    answers = [_chosen(choice, plain) for choice in _list(plain.get("choices")) or [{}]]
    return replace(answers[0], usage=_usage(plain.get("usage")), raw=plain, others=tuple(answers[1:]))


def _chosen(choice: Any, plain: dict[str, Any]) -> Answer:
    message, finish = (choice.get("message"), choice.get("finish_reason")) if isinstance(choice, dict) else (None, None)
    if not isinstance(message, dict):
        raise ValueError(f"no message in a choice of {_head(plain)}")
    text, refusal = _text(message.get("content")), _text(message.get("refusal"))
    outcome: Outcome = _ENDINGS.get(str(finish), "refused" if refusal else "answered")
    if outcome == "answered" and text is None:
        raise ValueError(f"an answer without text: {_head(message)}")
    tokens, logprobs = _logprobs(choice.get("logprobs"))
    return Answer(
        text=without_thinking(text or refusal or ""),
        outcome=outcome,
        finish_reason=str(finish) if finish is not None else None,
        logprobs=logprobs,
        tokens=tokens,
        model=_string(plain.get("model")),
        request_id=_string(plain.get("id")),
        error=f"the provider broke off ({finish})" if outcome == "error" else None,
    )


def without_thinking(text: str) -> str:
    """An answer without what was thought aloud; some servers send the end mark alone, because the prompt held the beginning."""
    plain = _BLOCK.sub("", text)
    return plain.rpartition("</think>")[2].lstrip() if "</think>" in plain else plain


def filtered_or_error(body: str) -> Outcome:
    """Some providers filter with an error instead of an answer."""
    return "filtered" if any(word in body.lower() for word in _FILTERS) else "error"


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines by `\\n` alone: text may hold other characters that Python would also divide at."""
    rest = b""
    for piece in pieces:
        *done, rest = (rest + piece).split(b"\n")
        yield from done
    yield rest


def _text(content: Any) -> str | None:
    """Content as a string; a list of parts is joined, anything else is no text."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None
    return _string(content)


def _logprobs(found: Any) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Tokens and their log-probabilities; none where one of them is not what the API promises."""
    content = _list(found.get("content")) if isinstance(found, dict) else []
    pairs = [(one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None) for one in content]
    right = [(token, float(value)) for token, value in pairs if isinstance(token, str) and isinstance(value, int | float)]
    if not right or len(right) < len(pairs):
        return None, None
    return tuple(token for token, _ in right), tuple(value for _, value in right)


def _usage(usage: Any) -> Usage:
    """Token counts; what is no count is not known."""
    found = usage if isinstance(usage, dict) else {}

    def count(name: str) -> int | None:
        value = found.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    return Usage(count("prompt_tokens"), count("completion_tokens"))


def _clean(plain: Any) -> Any:
    """Half of a surrogate pair is no text and cannot be written to a file: it becomes a question mark."""
    written = json.dumps(plain, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        return json.loads(written.encode("utf-8", "replace"))
    return plain


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _head(value: Any) -> str:
    """The beginning of what came, for a message; who shows it cuts it further, once keys are masked."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    return repr(" ".join(text.split())[:2000])
