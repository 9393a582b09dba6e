"""Any OpenAI-compatible endpoint as a `Model` that chats.

Failures are outcomes, never wrong answers: what a provider refuses, filters, cuts or fails to answer is told apart. Only 429 and 5xx
are tried again; a request that timed out may have been answered and billed, so it is not, and counts at its maximum. Answers that
arrived are kept and not asked for twice.
"""

from __future__ import annotations

import email.utils
import json
import logging
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tonggan.backends.api.answers import Answers, request_key
from tonggan.backends.api.budget import UNBOUNDED, Bound, Budget, BudgetReached, Pace
from tonggan.backends.api.content import SIDE, Request, request
from tonggan.backends.api.presets import EXTRA, OWN, Preset, Price, fits, key_of
from tonggan.backends.api.replies import assembled, filtered_or_error, read, whole
from tonggan.types import Answer, Audio, CannotError, ChatOptions, Identity, Image, MediaError, Message, MissingExtra, Model, UsageError

log = logging.getLogger("tonggan")
TRIES = 6
LONGEST_WAIT = 60.0
_NEEDS_OTHER_FIELD = "max_completion_tokens"
_NEEDS_STREAM = ("only support stream", "only supports stream", "enable the stream parameter", "does not support http call")
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""The transport's errors (of httpx and its successors) after which nothing can have been billed."""
_NO_MONEY = ("insufficient_quota", "exceeded_current_quota", "余额不足", "欠费")
"""Some say with 429 that the account is empty; waiting does not fill it."""
_MAY_BE_BILLED = (504, 524)
"""A gateway gave up waiting; what is behind it may have answered."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be sent for some conversations, and the most that it can cost; a retry costs no more, for only errors are repeated."""

    requests: int
    kept: int
    """Not sent, because the answer is here already or the same is asked before."""
    unsent: int
    """That cannot be sent: an unreadable picture, a part that the provider does not take."""
    bytes: int
    pictures: int
    pixels: int
    sounds: int
    input_tokens: int | None
    """None where nobody says how pictures or sounds are counted."""
    output_tokens: int
    cost: float | None
    """None without a price, and where `input_tokens` is None."""
    currency: str | None


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
        price: Price | None = None,
        concurrency: int | None = None,
        timeout: float = 120.0,
        side: int = SIDE,
    ) -> None:
        """`price` is what the model costs, None for the preset's; a budget in money refuses a model without one (`UsageError`).

        `timeout` is for the whole of an answer, in seconds; `side` is the longer side in pixels that pictures are brought to.
        """
        try:
            import openai
        except ImportError:
            raise MissingExtra("an endpoint", "api") from None
        self.name, self.preset, self.model = name, preset, model
        self.price = price or (None if preset.price == "unknown" else preset.price)
        self.budget = budget or Budget()
        self.budget.admit(name, self.price)
        self.can = frozenset({"chat"})
        # What is not known is tried on a server of one's own; a provider's refusal might cost.
        listens = preset.listens(model)
        self._hears = (provider == OWN or preset.data == "local") if listens == "unknown" else listens
        self.modalities = frozenset({"text", "image"} | ({"audio"} if self._hears else set()))
        # What stands behind a name may change any day: the name and how pictures are sent is all that can be known.
        self.identity = Identity({"endpoint": preset.base_url, "model": model, "picture.side": side}, "", verified=False)
        self.concurrency = concurrency or preset.concurrency
        self._side, self._timeout = side, timeout
        self._answers = Answers(answers) if answers is not None else None
        self._turns: dict[str, threading.Lock] = {}
        self._pace = Pace(preset.per_minute)
        self._openai = openai
        self._key = key_of(provider, preset)
        self._client = openai.OpenAI(
            base_url=preset.base_url,
            api_key=self._key,
            timeout=timeout,
            max_retries=0,
            default_headers={"X-Title": "tonggan"},
        )
        # OpenAI's client reads these from the environment, for OpenAI; no other provider is told them.
        self._client.organization = self._client.organization if provider == "openai" else None
        self._client.project = self._client.project if provider == "openai" else None
        self._token_field = "max_tokens"
        self._takes_temperature = True
        self._streams = fits(model, preset.stream)

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        """An answer per conversation, in order; `concurrency` requests are under way at a time.

        When the budget is reached, or an answer cannot be kept, nothing further is sent and that is raised; what has arrived is kept.
        """
        chosen = options or ChatOptions()
        self._admit(conversations)
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [pool.submit(self._one, conversation, chosen) for conversation in conversations]
            try:
                wait(waiting, return_when=FIRST_EXCEPTION)
            finally:
                for future in waiting:
                    future.cancel()  # all are done, or one failed: what has not begun is not sent
        for future in waiting:
            if not future.cancelled():
                future.result()  # raises what failed
        return [future.result() for future in waiting]

    def preview(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> Preview:
        """What `chat` would send for these, and the most that it can cost. Nothing is sent."""
        chosen = options or ChatOptions()
        with ThreadPoolExecutor(self.concurrency) as pool:
            plans = [plan for plan in pool.map(lambda one: self._plan(one, chosen), conversations) if plan is not None]
        asked = {plan.key: plan for plan in plans if not plan.kept} if self._answers is not None else dict(enumerate(plans))
        sent = list(asked.values())
        inputs = [plan.bound.input for plan in sent]
        costs = [plan.bound.cost(self.price) for plan in sent] if self.price is not None else [None]
        return Preview(
            requests=len(sent),
            kept=len(plans) - len(sent),
            unsent=len(conversations) - len(plans),
            bytes=sum(plan.bytes for plan in sent),
            pictures=sum(plan.pictures for plan in sent),
            pixels=sum(plan.pixels for plan in sent),
            sounds=sum(plan.sounds for plan in sent),
            input_tokens=None if None in inputs else sum(count for count in inputs if count is not None),
            output_tokens=sum(plan.bound.output for plan in sent),
            cost=None if None in costs else sum(cost for cost in costs if cost is not None),
            currency=self.price.currency if self.price is not None else None,
        )

    def cost(self, answer: Answer) -> float | None:
        """What an answer cost by its token counts, in the price's currency; None when a count or the price is not known.

        Tokens are taken at their full price: what providers take off for cached input is not known here.
        """
        used = answer.usage
        if self.price is None or used.input_tokens is None or used.output_tokens is None:
            return None
        return self.price.cost(used.input_tokens, used.output_tokens)

    def body(self, conversation: Sequence[Message], options: ChatOptions) -> tuple[dict[str, Any], Request]:
        """What would be sent for a conversation, without sending it."""
        if not self._hears and any(isinstance(part, Audio) for message in conversation for part in message.parts):
            raise CannotError(
                f"{self.name} takes no sounds"
                if self.preset.listens(self.model) is False
                else f"whether {self.name} takes sounds is not known, so none is sent; if it does, ask it by its address: "
                f"openai+{self.preset.base_url}#{self.model}, with its key in TONGGAN_API_KEY"
            )
        made = request(conversation, self.preset.picture, self._side, self.preset.audio)
        return {"model": self.model, "messages": made.messages, **self._settings(options)}, made

    def _settings(self, options: ChatOptions) -> dict[str, Any]:
        """Settings as they are sent. Raises `CannotError` for one that is not known to be taken: a provider may drop it without a word."""
        if options.beams not in (None, 1):
            raise CannotError(f"{self.name}: an endpoint has no beams; samples with a temperature give several answers")
        if options.length_penalty is not None:
            raise CannotError(f"{self.name}: a length penalty compares beams, and an endpoint has none; leave it out")
        settings: dict[str, Any] = {"max_tokens": options.max_tokens}
        if options.temperature is not None:
            limits = self.preset.temperature
            if limits and options.temperature > limits.max:
                raise CannotError(f"{self.name} takes a temperature of at most {limits.max:g}, not {options.temperature:g}")
            settings["temperature"] = max(options.temperature, limits.min) if limits else options.temperature
        settings |= {name: value for name, value in (("top_p", options.top_p), ("seed", options.seed)) if value is not None}
        if options.stop:
            settings["stop"] = list(options.stop)
        if options.samples > 1:
            settings["n"] = options.samples
        if options.logprobs:
            settings["logprobs"] = True
        own = {name: value for name in EXTRA if (value := getattr(options, name)) is not None}
        if unknown := next((name for name in own if name not in self.preset.extra), None):
            raise CannotError(
                f"{self.name}: whether it takes {unknown} is not known, so it is not sent; if it does, ask it by its address: "
                f"openai+{self.preset.base_url}#{self.model}, with its key in TONGGAN_API_KEY"
            )
        # The client takes what is not OpenAI's in a field of its own, and sends it beside the others.
        return settings | ({"extra_body": own} if own else {})

    def bound(self, made: Request, options: ChatOptions) -> Bound:
        """The most tokens that it can be billed: a token is at least a byte of text, and price or preset say what a picture is."""
        each = self._picture_tokens
        media = None if made.sounds or (made.pictures and each is None) else (each or 0) * len(made.pictures)
        frame = 16 * len(made.messages) + 16  # roles and separators
        return Bound(None if media is None else made.text_bytes + media + frame, options.max_tokens * options.samples)

    @property
    def _where(self) -> str:
        return f"{self.preset.base_url}#{self.model}"

    @property
    def _picture_tokens(self) -> int | None:
        """The most that one picture is billed as: as given with the price, else as the preset says."""
        given = self.price.picture_tokens if self.price is not None else None
        return given if given is not None else self.preset.picture.max_tokens

    def _admit(self, conversations: Sequence[Sequence[Message]]) -> None:
        """Refuse before anything is sent what a budget in money could not count."""
        if self.budget.money is None:
            return
        kinds = {type(part) for conversation in conversations for message in conversation for part in message.parts}
        if (Image in kinds and self._picture_tokens is None) or (Audio in kinds and self._hears):
            raise UsageError(f"{self.name}: {UNBOUNDED}")

    def _plan(self, conversation: Sequence[Message], options: ChatOptions) -> _Plan | None:
        """A request in numbers, None when it cannot be sent."""
        prepared = self._prepared(conversation, options)
        if isinstance(prepared, Answer):
            return None
        body, made = prepared
        key = request_key(self._where, body)
        kept = self._answers is not None and self._answers.get(key) is not None
        pixels = sum(picture.width * picture.height for picture in made.pictures)
        sent = len(json.dumps(self._adapted(body), ensure_ascii=False, separators=(",", ":")).encode())
        return _Plan(key, kept, self.bound(made, options), sent, len(made.pictures), pixels, len(made.sounds))

    def _prepared(self, conversation: Sequence[Message], options: ChatOptions) -> tuple[dict[str, Any], Request] | Answer:
        """What is sent for a conversation, or the answer that says why it cannot be."""
        try:
            body, made = self.body(conversation, options)
        except (MediaError, CannotError) as error:
            return Answer(outcome="error", finish_reason="unsent", error=str(error))
        except UnicodeEncodeError as error:
            return Answer(outcome="error", finish_reason="unsent", error=f"its text holds half a character ({error.reason})")
        if self.preset.request_bytes is not None and made.bytes > self.preset.request_bytes:
            return Answer(
                outcome="error",
                finish_reason="unsent",
                error=f"{made.bytes} bytes; the provider takes {self.preset.request_bytes} in one request",
            )
        return body, made

    def _one(self, conversation: Sequence[Message], options: ChatOptions) -> Answer:
        prepared = self._prepared(conversation, options)
        if isinstance(prepared, Answer):
            return prepared
        body, made = prepared
        bound = self.bound(made, options)
        if self._answers is None:
            return self._asked(body, bound)
        key = request_key(self._where, body)
        # The same request twice at the same time: the second waits for the first one's answer.
        with self._turns.setdefault(key, threading.Lock()):
            if (known := self._answers.get(key)) is not None:
                return known
            answer = self._asked(body, bound)
            if answer.outcome != "error":
                self._answers.put(key, answer)
            return answer

    def _asked(self, body: dict[str, Any], bound: Bound) -> Answer:
        """Send until there is an answer or an error that a repetition would not mend."""
        openai = self._openai
        failed = Answer(outcome="error")
        for attempt in range(TRIES):
            held = self.budget.reserve(bound, self.price, wait=True)
            cost: float | None = None  # what was sent and not answered as promised may have been billed
            try:
                self._pace.wait()
                sent = self._adapted(body)
                answer = self._sent(sent)
                cost = self.cost(answer)
                if (got := 1 + len(answer.others)) < (asked := body.get("n", 1)) and answer.outcome != "error":
                    log.warning("%s gave %d of the %d answers that it was asked for", self.name, got, asked)
                if body.get("logprobs") and answer.tokens is None and answer.outcome != "error":
                    log.warning("%s gave no log-probabilities, which it was asked for", self.name)
                if (answer.usage.output_tokens or 0) > bound.output:
                    log.warning("%s was billed for more output tokens than max_tokens: thinking may not count there", self.name)
                return answer
            except openai.APIStatusError as error:
                cost = None if error.status_code in _MAY_BE_BILLED else 0.0
                failed = Answer(outcome=_outcome_of(error), error=self._told(error), request_id=error.request_id)
                if self._learnt(error, sent):
                    continue
                if (error.status_code != 429 and error.status_code < 500) or any(words in str(error.body) for words in _NO_MONEY):
                    return failed
                self._pace.pause(_wait(error, attempt))
            except (openai.APITimeoutError, TimeoutError) as error:
                cost = 0.0 if type(error.__cause__).__name__ in _NOT_SENT else None
                told = "no connection" if cost == 0.0 else "no answer"
                return Answer(outcome="error", error=f"{told} within {self._timeout:g} s{'; it may have been billed' * (cost is None)}")
            except (openai.APIConnectionError, ConnectionError) as error:
                cost = 0.0 if type(error.__cause__).__name__ in _NOT_SENT else None
                return Answer(outcome="error", error=f"the connection failed: {self._masked(str(error.__cause__ or error))[:200]}")
            except (openai.OpenAIError, ValueError) as error:
                return Answer(outcome="error", error=f"the reply is not what the API promises: {self._masked(str(error))[:200]}")
            finally:
                self.budget.settle(held, cost)
        return replace(failed, outcome="error", error=f"{failed.error}; tried {TRIES} times")

    def _sent(self, body: dict[str, Any]) -> Answer:
        """One request, one answer. Raises as the client does, `TimeoutError` when the whole takes too long, and `ValueError` for a reply
        of another form than promised."""
        begun = time.monotonic()
        try:
            with self._client.chat.completions.with_streaming_response.create(**body) as reply:
                pieces = _pieces(reply, begun + self._timeout)
                plain = assembled(pieces) if body.get("stream") else whole(pieces)
                header = reply.headers.get("x-request-id")
        except Exception as error:
            # While a body is read the client hands on the transport's own errors, of one package or another by its version.
            if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):
                raise
            raise (TimeoutError if "Timeout" in type(error).__name__ else ConnectionError)(str(error)) from error
        answer = read(self._without_key(plain))
        told = self._masked(answer.error) if answer.error else None
        return replace(answer, error=told, request_id=header or answer.request_id, seconds=time.monotonic() - begun)

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as this model turned out to want it."""
        plain = dict(body)
        if self._token_field != "max_tokens":
            plain[self._token_field] = plain.pop("max_tokens")
        if not self._takes_temperature:
            plain.pop("temperature", None)
        if self._streams:
            plain |= {"stream": True, "stream_options": {"include_usage": True}}
        return plain

    def _learnt(self, error: Any, sent: dict[str, Any]) -> bool:
        """Some models refuse settings by name; that is learnt once per model. Whether what was `sent` is to be sent again, otherwise."""
        text = str(error) if error.status_code == 400 else ""
        # Asked of what was sent, not of what is known: several requests under way may fail for the same reason.
        if _NEEDS_OTHER_FIELD in text and "max_tokens" in sent:
            self._token_field = _NEEDS_OTHER_FIELD
        elif any(words in text for words in _NEEDS_STREAM) and "stream" not in sent:
            self._streams = True
        elif "temperature" in text and "upport" in text and "temperature" in sent:
            if self._takes_temperature:
                log.warning("%s takes no temperature: its answers are sampled as the provider likes", self.name)
            self._takes_temperature = False
        else:
            return False
        return True

    def _told(self, error: Any) -> str:
        """An error in one line; keys that a provider repeats are masked."""
        body = error.body if isinstance(error.body, dict) else {}
        text = str(body.get("message") or body.get("error") or error)
        return f"HTTP {error.status_code}: {self._masked(text)[:300]}"

    def _masked(self, text: str) -> str:
        """A text without our key, nor anything that looks like one."""
        return mask(self._without_key(text))

    def _without_key(self, found: Any) -> Any:
        """A reply in which the key, should a provider repeat it, is left out: replies are kept on disk."""
        if len(self._key) < 8:
            return found  # `none` of a server of one's own
        if isinstance(found, str):
            return found.replace(self._key, "…")
        if isinstance(found, list):
            return [self._without_key(one) for one in found]
        if isinstance(found, dict):
            return {self._without_key(name): self._without_key(value) for name, value in found.items()}
        return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """One request in numbers."""

    key: str
    kept: bool
    bound: Bound
    bytes: int
    pictures: int
    pixels: int
    sounds: int


def _pieces(reply: Any, deadline: float) -> Iterator[bytes]:
    """A reply's bytes as they come. A server that sends a little now and then would never time out by itself."""
    for piece in reply.iter_bytes():
        if time.monotonic() > deadline:
            raise TimeoutError
        yield piece


def _outcome_of(error: Any) -> Any:
    """Errors about what was asked (400, 403, 422, 451) may be a filter's; others never are."""
    return filtered_or_error(str(error.body)) if error.status_code in (400, 403, 422, 451) else "error"


def mask(text: str) -> str:
    """A text without anything that looks like a key."""
    return re.sub(r"\b(sk|ak|bce-v3|AIza|xai)[-_/A-Za-z0-9.]{12,}", r"\1…", text)


def _wait(error: Any, attempt: int) -> float:
    """As long as the provider says, in seconds or as a date, else twice as long each time, with some chance in it so that not all come
    back at once."""
    said = error.response.headers.get("retry-after", "")
    try:
        return min(LONGEST_WAIT, max(0.0, float(said)))
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(said).timestamp()
    except (ValueError, TypeError, OverflowError):
        return min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
    return min(LONGEST_WAIT, max(0.0, until - time.time()))


__all__ = ["BudgetReached", "Endpoint", "Preview", "mask"]
