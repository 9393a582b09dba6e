"""A comparison written down: models, tasks, prices and limits in one YAML file, so that it can be run again by anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tonggan.compare.tasks import TaskConfig
from tonggan.config import Config
from tonggan.types import UsageError


class SuiteConfig(Config):
    """What `tonggan compare` is given by options otherwise."""

    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    """Each a name, or a record with `data` and settings."""
    models: tuple[str, ...] = ()
    circular: bool = False
    way: Literal["chat", "logprob", "embed"] | None = None
    judge: str | None = None
    scorer: str | None = None
    prices: dict[str, str] = Field(default_factory=dict)
    """By endpoint: `INPUT,OUTPUT,CURRENCY[,PICTURE_TOKENS]` for a million tokens."""
    releases: dict[str, str] = Field(default_factory=dict)
    """By model: its id in the registry of facts, where its name does not say it."""
    max_requests: int | None = Field(default=None, ge=1)
    max_cost: str | None = None
    """`20 CNY`"""

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        return [{"data": one} if isinstance(one, str) else one for one in value] if isinstance(value, list | tuple) else value


def suite(file: str | Path) -> SuiteConfig:
    """Read a suite; files that it names are looked for beside it. Raises `UsageError` where it is not there or not one."""
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{path}: no such suite file")
    read = SuiteConfig.read(path)

    def beside(name: str) -> str:
        return str(path.parent / name) if (path.parent / name).exists() else name

    return read.model_copy(update={"tasks": tuple(one.model_copy(update={"data": beside(one.data)}) for one in read.tasks)})
