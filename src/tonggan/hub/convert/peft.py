"""LoRA and DoRA as the library `peft` keeps them: `adapter_config.json`, and tensors under the names of the base's published format.

What stands beside a linear layer of ours stands beside the same layer of theirs, so the base's own key table says every name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tonggan.hub.convert.table import KeyTable
from tonggan.models.adapt import DoraConfig, LoraConfig
from tonggan.types import TongganError

PREFIX = "base_model.model."
ENDS = {"lora.a": "lora_A.weight", "lora.b": "lora_B.weight", "lora.magnitude": "lora_magnitude_vector"}
"""What our names and theirs end in, behind a layer's name."""
READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules", "modules_to_save"}
NO_MATTER = {
    "peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "exclude_modules",
    "layers_to_transform", "layers_pattern", "peft_version", "runtime_config", "megatron_core", "qalora_group_size",
}  # fmt: skip
"""Settings that do not change what saved tensors compute: which layers are meant, the tensors say themselves."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Of `init_lora_weights`: others change the base's own weights too, and those are not in the file."""


@dataclass(frozen=True)
class Names:
    """The tensors of a base under our names, and the table that says theirs."""

    base: Mapping[str, Tensor]
    table: KeyTable

    @cached_property
    def ours(self) -> Mapping[str, list[str]]:
        """Those of ours that each of theirs is made of."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.base:
            if (key := self.table.theirs(name)) is not None:
                found[key].append(name)
        return dict(found)

    @cached_property
    def _exported(self) -> Mapping[str, Tensor]:
        return self.table.export(self.base)

    def layer(self, place: str) -> str | None:
        """Their name of a linear layer of ours; None when they have none, or keep its weight in another form."""
        weight, key = self.base[f"{place}.weight"], self.table.theirs(f"{place}.weight")
        if key is None or self._exported[key].shape != weight.shape or not torch.equal(self._exported[key], weight):
            return None
        return key.removesuffix(".weight")

    def place(self, layer: str) -> str | None:
        """Our name of a linear layer of theirs; None when there is none."""
        places = [name.removesuffix(".weight") for name in self.ours.get(f"{layer}.weight", [])]
        return next((place for place in places if self.layer(place) == layer), None)

    def have(self, own: Collection[str]) -> bool:
        """Whether they have a name for everything of an adapter."""
        places = (_place(name) for name in own)
        return all(self.table.theirs(name) if place is None else self.layer(place) for name, place in zip(own, places, strict=True))


def config_in(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], names: Names, where: str) -> LoraConfig | DoraConfig:
    """Our configuration of adapter_config.json; layers are named one by one, as the tensors are.

    Raises `TongganError` naming settings that we have no place for, and tensors that the base has none for.
    """
    if raw.get("peft_type") != "LORA":
        raise TongganError(f"{where}: peft_type {raw.get('peft_type')!r} is not supported; supported is LORA (also with use_dora)")
    rest = {name: value for name, value in raw.items() if name not in READ | NO_MATTER}
    start = rest.pop("init_lora_weights", True)
    strange = [f"{name}={value!r}" for name, value in rest.items() if value not in (None, False, "none", {}, [])]
    strange += [] if start in PLAIN_STARTS else [f"init_lora_weights={start!r}"]
    if strange:
        raise TongganError(f"{where}: not supported: {', '.join(sorted(strange))}")
    ours = import_(tensors, names, where)
    targets = sorted(name.removesuffix(".lora.a") for name in ours if name.endswith(".lora.a"))
    whole = sorted({name.rpartition(".")[0] for name in ours if _place(name) is None})
    kind = DoraConfig if raw.get("use_dora") else LoraConfig
    said = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora"}
    settings = {mine: raw[theirs] for mine, theirs in said.items() if theirs in raw}
    return kind.parse({**settings, "targets": targets, "whole": whole}, where)


def config_out(config: LoraConfig | DoraConfig, tensors: Mapping[str, Tensor], base: str) -> dict[str, Any]:
    """adapter_config.json of an adapter whose tensors have been exported."""
    keys = [key.removeprefix(PREFIX) for key in tensors]
    end = f".{ENDS['lora.a']}"
    low_rank = tuple(f".{theirs}" for theirs in ENDS.values())
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": isinstance(config, DoraConfig),
        "target_modules": sorted(key.removesuffix(end) for key in keys if key.endswith(end)),
        "modules_to_save": sorted({key.rpartition(".")[0] for key in keys if not key.endswith(low_rank)}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def export(own: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """An adapter's tensors under their names, of which they must `have` one for each."""
    whole = names.table.export({name: tensor for name, tensor in own.items() if _place(name) is None})
    theirs = {PREFIX + key: tensor for key, tensor in whole.items()}
    for name, tensor in own.items():
        for ours, end in ENDS.items():
            if name.endswith(f".{ours}"):
                theirs[f"{PREFIX}{names.layer(name.removesuffix(f'.{ours}'))}.{end}"] = tensor
    return theirs


def import_(tensors: Mapping[str, Tensor], names: Names, where: str) -> dict[str, Tensor]:
    """Their tensors under our names; raises `TongganError` naming keys that the base's format does not know."""
    ours: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in tensors.items():
        plain = key.removeprefix(PREFIX)
        mine, end = next(((mine, f".{end}") for mine, end in ENDS.items() if plain.endswith(f".{end}")), ("", ""))
        if mine and (place := names.place(plain.removesuffix(end))) is not None:
            ours[f"{place}.{mine}"] = tensor
        elif not mine and plain in names.ours:
            whole[plain] = tensor
        else:
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise TongganError(
            f"{where}: the base's {names.table.family} format has no {', '.join(unknown[:5])}{more}; the adapter is for another model"
        )
    return ours | names.table.import_(whole, [name for key in whole for name in names.ours[key]])


def _place(name: str) -> str | None:
    """The linear layer that a narrow matrix or a magnitude of ours stands beside; None for any other tensor."""
    return next((name.removesuffix(f".{end}") for end in ENDS if name.endswith(f".{end}")), None)
