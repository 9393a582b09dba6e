"""How what an encoder-decoder says begins and ends: generation_config.json, and config.json of older releases, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from tonggan.hub.convert.tensors_in import tokens_in
from tonggan.hub.weights import read_json
from tonggan.models import EncoderDecoder, EncoderDecoderConfig
from tonggan.models.encoder_decoder import ListeningConfig
from tonggan.tensors import Hidden, Tokens
from tonggan.types import TongganError

FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Saying:
    """The fields of that name of an `EncoderDecoderConfig`."""

    start: tuple[int, ...]
    ends: tuple[int, ...]
    last: int | None = None
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    listening: ListeningConfig | None = None

    @classmethod
    def of(cls, config: EncoderDecoderConfig) -> Self:
        """Those of a configuration."""
        return cls(config.start, config.ends, config.last, config.suppressed, config.suppressed_first, config.listening)

    @classmethod
    def read(cls, raw: Mapping[str, Any], directory: Path, *, start: int, end: int) -> Self:
        """Of a directory; what generation_config.json says goes before what config.json says. `start` and `end` are the format's own.

        What is forced behind the first token is said first as well, up to where the library would look for the language. Where there is
        none to look for, it puts behind them that no times are wanted.
        """
        file = directory / FILE
        given = {**raw, **(read_json(file) if file.is_file() else {})}
        where = str(file if file.is_file() else directory / "config.json")
        first = given.get("decoder_start_token_id")
        if isinstance(first, list):
            raise TongganError(f"{where}: decoder_start_token_id {first} is not supported: all rows begin with one token")
        listening = _listening(given)
        forced = given.get("forced_bos_token_id")
        begins = [[1, forced]] if forced is not None else given.get("forced_decoder_ids") or []
        if [place for place, _ in begins] != list(range(1, len(begins) + 1)):
            raise TongganError(f"{where}: forced_decoder_ids {begins} is not supported: places must be 1, 2, 3, ...")
        ids = [number for _, number in begins]
        known = ids.index(None) if None in ids else len(ids)
        behind = {} if listening is None else {listening.tasks.get("transcribe"), listening.no_times}
        if odd := [number for number in ids[known + 1 :] if number not in behind]:
            raise TongganError(f"{where}: forced_decoder_ids {odd} behind a language that is not named are not supported")
        last, begun = given.get("forced_eos_token_id"), [start if first is None else first, *ids[:known]]
        if listening is not None and listening.no_times not in (None, begun[-1]) and (known or not listening.languages):
            begun.append(listening.no_times)
        return cls(
            start=tuple(begun),
            ends=_ids(given.get("eos_token_id"), (end,)),
            last=last[0] if isinstance(last, list) else last,
            suppressed=_ids(given.get("suppress_tokens")),
            suppressed_first=_ids(given.get("begin_suppress_tokens")),
            listening=listening,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """By their names."""
        return asdict(self) | {"listening": self.listening}

    def misfit(self, *, forced: bool = False) -> str | None:
        """Why the format cannot say it; None when it can. `forced`: any number of tokens may stand behind the first."""
        if len(self.start) > 2 and not forced:
            return f"it begins with {len(self.start)} tokens, the format has one, and one that is forced behind it"
        return None

    def written(self, *, forced: bool = False) -> dict[str, Any]:
        """The content of generation_config.json."""
        first, *behind = self.start
        said: dict[str, Any] = {"decoder_start_token_id": first, "eos_token_id": ends_out(self.ends)}
        if behind:
            said |= (
                {"forced_decoder_ids": [[i, number] for i, number in enumerate(behind, 1)]}
                if forced
                else {"forced_bos_token_id": behind[0]}
            )
        optional = {
            "forced_eos_token_id": self.last,
            "suppress_tokens": list(self.suppressed) or None,
            "begin_suppress_tokens": list(self.suppressed_first) or None,
        }
        said |= {name: value for name, value in optional.items() if value is not None}
        if self.listening is not None:
            said["is_multilingual"] = bool(self.listening.languages)
            if self.listening.languages:
                said["lang_to_id"] = {f"<|{code}|>": number for code, number in self.listening.languages.items()}
                said["task_to_id"] = dict(self.listening.tasks)
            if self.listening.no_times is not None:
                said["no_timestamps_token_id"] = self.listening.no_times
        return said


def ends_out(ends: tuple[int, ...]) -> int | list[int] | None:
    """As `eos_token_id` is written."""
    return list(ends) if len(ends) > 1 else next(iter(ends), None)


def said_and_source(inputs: Mapping[str, Tensor]) -> tuple[Tokens, Tokens | None]:
    """`input_ids` with `attention_mask`, and `decoder_input_ids` with `decoder_attention_mask`, where there are any."""
    return tokens_in(inputs), said_in(inputs)


def said_in(inputs: Mapping[str, Tensor]) -> Tokens | None:
    """`decoder_input_ids` with `decoder_attention_mask`, where there are any."""
    of_decoder = {name.removeprefix("decoder_"): tensor for name, tensor in inputs.items() if name.startswith("decoder_")}
    return tokens_in(of_decoder) if "input_ids" in of_decoder else None


def scores(module: EncoderDecoder, said: Tokens, source: Hidden) -> Tensor:
    """Logits [B, L, V] of what is said about a source's states."""
    weight, bias = module.output
    return F.linear(module.say(said, module.remember(source)), weight, bias)


def _listening(given: Mapping[str, Any]) -> ListeningConfig | None:
    languages = {str(name).strip("<|>"): number for name, number in (given.get("lang_to_id") or {}).items()}
    tasks, silent = given.get("task_to_id") or {}, given.get("no_timestamps_token_id")
    return ListeningConfig(languages=languages, tasks=tasks, no_times=silent) if languages or silent is not None else None


def _ids(given: Any, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    if given is None:
        return default
    return (given,) if isinstance(given, int) else tuple(given)
