"""Any OpenAI-compatible endpoint as a `Model` that chats.

Failures are outcomes, never wrong answers: what a provider refuses, filters, cuts or fails to answer is told apart. Only 429 and 5xx
are tried again; a request that timed out may have been answered and billed, so it is not. Answers that arrived are kept and
not asked for twice.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tonggan.backends.api.answers import Answers, request_key
from tonggan.backends.api.budget import Bound, Budget, BudgetReached, Pace
from tonggan.backends.api.content import SIDE, Request, request
from tonggan.backends.api.presets import Preset, key_of
from tonggan.types import Answer, CannotError, ChatOptions, Identity, MediaError, Message, MissingExtra, Model, TongganError, Usage

log = logging.getLogger("tonggan")
TRIES = 6
LONGEST_WAIT = 60.0
_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_NEEDS_OTHER_FIELD = "max_completion_tokens"


class Endpoint(Model):
    """A provider's model, or one on a server of your own."""

    def __init__(
        self,
        name: str,
        provider: str,
        preset: Preset,
        model: str,
        *,
        answers: str | Path | None = None,
        budget: Budget | None = None,
        concurrency: int | None = None,
        timeout: float = 120.0,
        side: int = SIDE,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingExtra("an endpoint", "api") from None
        self.name, self.preset, self.model = name, preset, model
        self.can = frozenset({"chat"})
        self.modalities = frozenset({"text", "image"})
        # What stands behind a name may change any day: the name and how pictures are sent is all that can be known.
        self.identity = Identity({"endpoint": preset.base_url, "model": model, "picture.side": side}, "", verified=False)
        self.budget = budget or Budget()
        self.concurrency = concurrency or preset.concurrency
        self._side = side
        self._answers = Answers(answers) if answers is not None else None
        self._pace = Pace(preset.per_minute)
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=preset.base_url,
            api_key=key_of(provider, preset),
            timeout=timeout,
            max_retries=0,
            default_headers={"X-Title": "tonggan"},
        )
        self._token_field = "max_tokens"
        self._takes_temperature = True

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        """An answer per conversation, in order; `concurrency` requests are under way at a time.

        When the budget is reached, or an answer cannot be kept, nothing further is sent and that is raised; what has arrived is kept.
        """
        chosen = options or ChatOptions()
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [pool.submit(self._one, conversation, chosen) for conversation in conversations]
            try:
                return [future.result() for future in waiting]
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise

    def body(self, conversation: Sequence[Message], options: ChatOptions) -> tuple[dict[str, Any], Request]:
        """What would be sent for a conversation, without sending it."""
        made = request(conversation, self.preset.picture, self._side)
        settings: dict[str, Any] = {"max_tokens": options.max_tokens}
        if options.temperature is not None:
            limits = self.preset.temperature
            settings["temperature"] = min(max(options.temperature, limits.min), limits.max) if limits else options.temperature
        settings |= {name: value for name, value in (("top_p", options.top_p), ("seed", options.seed)) if value is not None}
        if options.stop:
            settings["stop"] = list(options.stop)
        return {"model": self.model, "messages": made.messages, **settings}, made

    def bound(self, made: Request, options: ChatOptions) -> Bound:
        """The most tokens that it can be billed: a token is at least a byte of text, and the provider says what a picture is."""
        each = self.preset.picture.max_tokens
        pictures = 0 if not made.pictures else None if each is None else each * len(made.pictures)
        frame = 16 * len(made.messages) + 16  # roles and separators
        return Bound(None if pictures is None else made.text_bytes + pictures + frame, options.max_tokens)

    def size(self, conversation: Sequence[Message], options: ChatOptions) -> tuple[bool, int]:
        """Whether the answer is here already, and how many bytes would be sent for it; nothing is sent."""
        body, made = self.body(conversation, options)
        return self._answers is not None and self._answers.get(request_key(self._where, body)) is not None, made.bytes

    @property
    def _where(self) -> str:
        return f"{self.preset.base_url}#{self.model}"

    def _one(self, conversation: Sequence[Message], options: ChatOptions) -> Answer:
        try:
            body, made = self.body(conversation, options)
        except (MediaError, CannotError) as error:
            return Answer(outcome="error", error=str(error))
        if self.preset.request_bytes is not None and made.bytes > self.preset.request_bytes:
            return Answer(outcome="error", error=f"{made.bytes} bytes; the provider takes {self.preset.request_bytes} in one request")
        key = request_key(self._where, body)
        if self._answers is not None and (known := self._answers.get(key)) is not None:
            return known
        answer = self._asked(body, self.bound(made, options))
        if self._answers is not None and answer.outcome != "error":
            self._answers.put(key, answer)
        return answer

    def _asked(self, body: dict[str, Any], bound: Bound) -> Answer:
        """Send until there is an answer or an error that a repetition would not mend."""
        openai = self._openai
        for attempt in range(TRIES):
            held = self.budget.reserve(bound)
            self._pace.wait()
            begun = time.monotonic()
            used: tuple[int | None, int | None] | None = (None, None)
            try:
                answer = self._read(self._client.chat.completions.with_raw_response.create(**self._adapted(body)), begun)
                used = (answer.usage.input_tokens, answer.usage.output_tokens)
                return answer
            except openai.APIStatusError as error:
                used = None  # an error is not billed
                if self._learnt(error):
                    continue
                if error.status_code != 429 and error.status_code < 500:
                    return Answer(outcome=_outcome_of(error), error=_told(error), request_id=error.request_id)
                if attempt == TRIES - 1:
                    return Answer(outcome="error", error=f"{_told(error)}; tried {TRIES} times", request_id=error.request_id)
                self._pace.pause(_wait(error, attempt))
            except openai.APITimeoutError:
                return Answer(outcome="error", error=f"no answer within {self._client.timeout} s; it may have been billed")
            except openai.APIConnectionError as error:
                return Answer(outcome="error", error=f"the connection failed ({error.__cause__ or error})")
            except (openai.OpenAIError, json.JSONDecodeError, ValueError) as error:
                return Answer(outcome="error", error=f"the reply is not what the API promises ({error})")
            finally:
                self.budget.settle(held, used)
        raise AssertionError("unreachable")

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as this model turned out to want it."""
        plain = dict(body)
        if self._token_field != "max_tokens":
            plain[self._token_field] = plain.pop("max_tokens")
        if not self._takes_temperature:
            plain.pop("temperature", None)
        return plain

    def _learnt(self, error: Any) -> bool:
        """Reasoning models refuse two settings by name; that is learnt once per model."""
        text = str(error) if error.status_code == 400 else ""
        if _NEEDS_OTHER_FIELD in text and self._token_field == "max_tokens":
            self._token_field = _NEEDS_OTHER_FIELD
        elif "temperature" in text and "upport" in text and self._takes_temperature:
            self._takes_temperature = False
            log.warning("%s takes no temperature: its answers are sampled as the provider likes", self.name)
        else:
            return False
        return True

    def _read(self, reply: Any, begun: float) -> Answer:
        """One answer out of a reply of the promised form; anything else is a ValueError that says what is missing."""
        plain = json.loads(reply.text)
        choices = plain.get("choices") if isinstance(plain, dict) else None
        if not choices or not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
            raise ValueError(f"no choices[0].message in {reply.text[:80]!r}")
        message, finish = choices[0]["message"], choices[0].get("finish_reason")
        refusal, text = message.get("refusal"), message.get("content")
        if not isinstance(text, str) and not refusal and finish not in ("content_filter", "length"):
            raise ValueError(f"an answer without text: {str(message)[:80]}")
        usage = plain.get("usage") or {}
        outcome = {"content_filter": "filtered", "length": "truncated"}.get(str(finish), "refused" if refusal else "answered")
        return Answer(
            text=_THINKING.sub("", text or refusal or ""),
            outcome=outcome,  # type: ignore[arg-type]
            finish_reason=finish,
            usage=Usage(usage.get("prompt_tokens"), usage.get("completion_tokens")),
            raw=plain,
            model=plain.get("model"),
            request_id=reply.headers.get("x-request-id") or plain.get("id"),
            seconds=time.monotonic() - begun,
        )


def _outcome_of(error: Any) -> Any:
    """Some providers filter with an error instead of an answer."""
    body = str(error.body).lower()
    return (
        "filtered" if any(word in body for word in ("content_filter", "contentfilter", "data_inspection_failed", "sensitive")) else "error"
    )


def _told(error: Any) -> str:
    """An error in one line; keys that a provider repeats are masked."""
    body = error.body if isinstance(error.body, dict) else {}
    text = str(body.get("message") or (body.get("error") or {}) or error)
    return f"HTTP {error.status_code}: {mask(text)[:300]}"


def mask(text: str) -> str:
    """A text without anything that looks like a key."""
    return re.sub(r"\b(sk|ak|bce-v3|AIza|xai)[-_/A-Za-z0-9.]{12,}", r"\1…", text)


def _wait(error: Any, attempt: int) -> float:
    """As long as the provider says, else twice as long each time, with some chance in it so that not all come back at once."""
    said = error.response.headers.get("retry-after", "")
    try:
        return min(LONGEST_WAIT, max(0.0, float(said)))
    except ValueError:
        return min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)


__all__ = ["BudgetReached", "Endpoint", "TongganError", "mask"]
