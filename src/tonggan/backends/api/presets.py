"""Providers as data: where they are, which key they want, what their pictures may be, where requests go.

tonggan.load("dashscope:qwen-vl-max")
tonggan.load("openai+http://127.0.0.1:8000/v1#my-model")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import Field

from tonggan.config import Config, did_you_mean
from tonggan.types import UsageError

Known = bool | Literal["unknown"]
OWN = "openai+"
"""The provider's name of addresses that are given themselves."""
Extra = Literal["top_k", "min_p", "repetition_penalty"]
EXTRA: tuple[Extra, ...] = get_args(Extra)
"""Settings of `ChatOptions` that OpenAI's API has not, as vLLM and others name them."""


class Title(Config):
    """A provider's name in both languages."""

    en: str
    zh: str


class PictureLimits(Config):
    """What a provider takes for a picture; what is not set was on no page that was read."""

    urls: Known = "unknown"
    data_uris: Known = "unknown"
    formats: tuple[Literal["jpeg", "png", "webp", "gif"], ...] = ("jpeg", "png")
    max_bytes: int | None = None
    """Of the encoded picture; its base64 is a third longer, and some providers mean that: see `room`."""
    max_side: int | None = None
    min_side: int | None = None
    max_ratio: float | None = None
    max_tokens: int | None = None
    """The most tokens that one picture is billed as; needed for a budget in money."""
    detail: Literal["low", "high", "auto"] | None = None

    @property
    def room(self) -> int | None:
        """Bytes that the encoded picture may have when base64 counts."""
        return None if self.max_bytes is None else self.max_bytes * 3 // 4


class AudioLimits(Config):
    """What a provider takes for a sound; what is not set was on no page that was read."""

    input_audio: Known = "unknown"
    """Whether it takes the content part `input_audio`."""
    models: tuple[str, ...] = ("*",)
    """Patterns of the models that listen."""
    formats: tuple[Literal["wav", "mp3"], ...] = ("wav", "mp3")
    data_uris: bool = False
    """`data` is a data URI instead of plain base64."""


class VideoLimits(Config):
    """How clips are sent."""

    frames: Known = "unknown"
    urls: Known = "unknown"
    note: str = ""


class Range(Config):
    """Allowed values, both ends included."""

    min: float
    max: float


class Price(Config):
    """What a million tokens cost, in `currency`."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    currency: str = Field(pattern="^[A-Z]{3}$")
    picture_tokens: int | None = Field(default=None, ge=1)
    """The most tokens that one picture can be billed as; None: as the provider's preset says."""

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost, in `currency`."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class Preset(Config):
    """One provider."""

    title: Title
    base_url: str
    keys: tuple[str, ...]
    """Environment variables that may hold the key; the first that is set is taken."""
    data: Literal["mainland", "abroad", "local", "unknown"] = "unknown"
    """Where requests go: 境内, 境外, or nowhere."""
    models: tuple[str, ...] = ()
    """Some that take pictures; others work as well."""
    picture: PictureLimits = PictureLimits()
    audio: AudioLimits = AudioLimits()
    video: VideoLimits = VideoLimits()
    stream: tuple[str, ...] = ()
    """Patterns of the models that answer only as a stream."""
    temperature: Range | None = None
    extra: tuple[Extra, ...] = ()
    """Settings beyond OpenAI's that it is known to take."""
    concurrency: int = Field(default=4, ge=1)
    per_minute: int | None = Field(default=None, ge=1)
    """Requests a minute that the account allows."""
    request_bytes: int | None = None
    price: Price | Literal["unknown"] = "unknown"
    checked: str = "never"
    """The date on which it was last called by us, or never."""
    note: str = ""

    def listens(self, model: str) -> Known:
        """Whether a model takes sounds, as far as is known."""
        return self.audio.input_audio if fits(model, self.audio.models) else False


def fits(model: str, patterns: Sequence[str]) -> bool:
    """Whether a model's name is of one of the patterns (`*omni*`)."""
    return any(fnmatchcase(model.lower(), pattern) for pattern in patterns)


@cache
def presets() -> Mapping[str, Preset]:
    """Every provider by its short name."""
    text = resources.files(__package__).joinpath("presets.yaml").read_text("utf-8")
    return {name: Preset.parse(data, f"presets.yaml: {name}") for name, data in yaml.safe_load(text).items()}


def named(name: str) -> tuple[str, Preset, str] | None:
    """(provider, preset, model) of `PROVIDER:MODEL` or `openai+URL#MODEL`; None when the name has neither form."""
    if name.startswith(("openai+http://", "openai+https://")):
        url, _, model = name.removeprefix("openai+").partition("#")
        if not model:
            raise UsageError(f"{name}: which model? Write it behind a #, for example openai+http://127.0.0.1:8000/v1#qwen2-vl")
        return OWN, _own(url), model
    provider, colon, model = name.partition(":")
    if not colon or provider not in presets():
        return None
    if not model:
        some = ", ".join(f"{provider}:{one}" for one in presets()[provider].models[:2]) or f"{provider}:MODEL"
        raise UsageError(f"{name}: which model? For example {some}")
    return provider, presets()[provider], model


def _own(url: str) -> Preset:
    """The preset of an address: nothing is known about it but where it is."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"openai+{parts.scheme}://…@{parts.hostname}: an address is shown in reports, so it holds no password; set TONGGAN_API_KEY"
        )
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return Preset(
        title=Title(en=url, zh=url), base_url=url, keys=("TONGGAN_API_KEY",), data="local" if local else "unknown", extra=EXTRA
    )  # fmt: skip


def near(name: str) -> str:
    """` (did you mean 'dashscope'?)` for a misspelt provider, else nothing."""
    provider, colon, _ = name.partition(":")
    return did_you_mean(provider, presets()) if colon else ""


def key_of(provider: str, preset: Preset) -> str:
    """The key from the environment; a server of one's own needs none. Raises `UsageError` that names the variables."""
    for variable in preset.keys:
        if value := os.environ.get(variable, "").strip():
            return value
    if preset.data == "local":
        return "none"
    raise UsageError(f"{provider}: no key; set {' or '.join(preset.keys)} in the environment (keys are never read from files or options)")


PRICE_FORM = "MODEL=INPUT,OUTPUT,CURRENCY[,PICTURE_TOKENS], for a million tokens, for example dashscope:qwen-vl-max=3,9,CNY,1280"


def parse_price(text: str) -> tuple[str, Price]:
    """A model's name and its price out of `MODEL=INPUT,OUTPUT,CURRENCY[,PICTURE_TOKENS]`; the last `=` divides, an address may hold others.

    Raises `UsageError` that shows the form.
    """
    name, equals, rest = text.rpartition("=")
    fields = [field.strip() for field in rest.split(",")]
    if not equals or not name.strip() or len(fields) not in (3, 4):
        raise UsageError(f"price {text!r}: expected {PRICE_FORM}")
    if named(name.strip()) is None:
        raise UsageError(f"price {text!r}: {name.strip()!r} is no endpoint{near(name.strip())}; expected {PRICE_FORM}")
    try:
        price = Price(
            input=float(fields[0]),
            output=float(fields[1]),
            currency=fields[2].upper(),
            picture_tokens=int(fields[3]) if len(fields) == 4 else None,
        )
    except ValueError:
        raise UsageError(f"price {text!r}: {rest.strip()!r} is not what is expected: {PRICE_FORM}") from None
    return name.strip(), price
