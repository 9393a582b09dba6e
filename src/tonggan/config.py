"""The strict base of every configuration: YAML in and out, dotted overrides, and errors that help.

A wrong recipe names the field, the value, what is allowed, and the nearest spelling.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import pydantic
import yaml
from pydantic_core import ErrorDetails

from tonggan.types import UsageError


class ConfigError(UsageError):
    """A configuration that cannot be used; the message lists every wrong field."""


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, no unknown fields, no silent conversion of strings to numbers."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, data: Any, where: str = "") -> Self:
        """Validate plain data (as YAML or JSON gives it); raises `ConfigError` that names each wrong field."""
        try:
            return cls.model_validate(data, strict=False)
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(error, cls, where)) from None

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply dotted overrides such as `train.lr=1e-3`."""
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"{file}: no such file")
        try:
            data = yaml.load(file.read_text("utf-8-sig"), Loader=_Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not readable as YAML: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{file}: expected fields and values, found {type(data).__name__}")
        return cls.parse(override(data, overrides), str(file))

    def to_yaml(self) -> str:
        """The configuration as YAML; `parse` of it gives an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), allow_unicode=True, sort_keys=False, width=110)


def _square(size: int | tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if isinstance(size, tuple) and size[0] == size[1] else size


PictureSize: TypeAlias = Annotated[int | tuple[int, int], pydantic.AfterValidator(_square)]
"""In pixels: the side of a square, or (height, width). A square has one form only, so that sizes can be compared."""


def height_width(size: PictureSize) -> tuple[int, int]:
    """Both sides of a picture's size."""
    return (size, size) if isinstance(size, int) else size


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML alone reads `1e-3` as a string."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def override(data: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with dotted assignments applied: `a.b=2`, list items by number: `stages.0.steps=5`."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(data)) if data else {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"override {text!r}: expected field=value, for example train.lr=1e-3")
        here: Any = result
        *path, last = name.split(".")
        for key in path:
            here = _descend(here, key, name)
        try:
            parsed = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError:
            raise ConfigError(f"override {text!r}: {value!r} is not a YAML value") from None
        if isinstance(here, list):
            here[_index(here, last, name)] = parsed
        else:
            here[last] = parsed
    return result


def _descend(here: Any, key: str, name: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, key, name)]
    inner = here.setdefault(key, {})
    if inner is None:
        inner = here[key] = {}
    if not isinstance(inner, dict | list):
        raise ConfigError(f"override {name!r}: {key!r} is {inner!r}, it has no fields")
    return inner


def _index(items: list[Any], key: str, name: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        raise ConfigError(f"override {name!r}: {key!r} is not one of 0..{len(items) - 1}")
    return int(key)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def one_of(word: str, known: Iterable[str], what: str) -> str:
    """`word` if known, else a `UsageError` that names what is allowed and the nearest spelling."""
    names = sorted(known)
    if word in names:
        return word
    raise UsageError(f"{what} {word!r} is not known{did_you_mean(word, names)}; there are: {', '.join(names)}")


def _explain(error: pydantic.ValidationError, cls: type[pydantic.BaseModel], where: str) -> str:
    lines = []
    problems = _united(error.errors(include_url=False))
    for problem in problems:
        if problem["type"] == "too_short" and any(_inside(other["loc"], problem["loc"]) for other in problems):
            continue  # pydantic does not count items that are wrong themselves
        path = _written_path(cls, problem["loc"])
        field = ".".join(str(part) for part in path) or "(whole)"
        value = problem.get("input")
        if problem["type"] == "extra_forbidden":
            known = _fields_at(cls, problem["loc"][:-1])
            deeper = _deeper(cls, problem["loc"])
            hint = f" (did you mean {deeper!r}?)" if deeper else did_you_mean(str(path[-1]), known)
            lines.append(f"{field}: no such field{hint}; allowed: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"{field}: missing")
        else:
            allowed = problem.get("ctx", {}).get("expected") or problem.get("ctx", {}).get("expected_tags")
            hint = did_you_mean(str(value), str(allowed).replace("'", "").replace(" or ", ", ").split(", ")) if allowed else ""
            lines.append(f"{field}: {_short(value)}: {problem['msg']}{hint}")
    head = f"{where}: " if where else ""
    return f"{head}{len(lines)} wrong field{'s' * (len(lines) > 1)}\n" + "\n".join(f"  {line}" for line in lines)


def _united(problems: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """A wrong value of a union with literals as one problem of its field: pydantic tells one for each member, named after the member."""
    unions = {problem["loc"][:-1] for problem in problems if _is_literal(problem)}
    found: list[ErrorDetails] = []
    for problem in problems:
        field = problem["loc"][:-1]
        if field not in unions:
            found.append(problem)
        elif _is_literal(problem) and any(_inside(other["loc"][:-1], field) for other in problems):
            continue  # the fields of another member were given, and what is wrong with them is told
        elif not any(one["loc"] == field for one in found):
            found.append(_united_at(field, [other for other in problems if other["loc"][:-1] == field]))
    return found


def _united_at(field: tuple[int | str, ...], members: Sequence[ErrorDetails]) -> ErrorDetails:
    allowed = ", ".join(problem["ctx"]["expected"].replace(" or ", ", ") for problem in members if _is_literal(problem))
    others = [problem["msg"] for problem in members if not _is_literal(problem)]
    told = f"{'; '.join(others)}; or one of: {allowed}" if others else f"Input should be one of: {allowed}"
    return {"type": "literal_error", "loc": field, "msg": told, "input": members[0]["input"], "ctx": {"expected": allowed}}


def _is_literal(problem: ErrorDetails) -> bool:
    """Whether this is about a literal as one member of a union; pydantic then puts `literal['a','b']` after the field's name."""
    return problem["type"] == "literal_error" and str(problem["loc"][-1]).startswith("literal[")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _written_path(cls: type[pydantic.BaseModel], loc: Sequence[int | str]) -> list[int | str]:
    """The path as the user wrote it: pydantic also puts the tag of a discriminated union there, which is no field."""
    path: list[int | str] = []
    for i, part in enumerate(loc):
        is_field = isinstance(part, int) or part in _fields_at(cls, loc[:i])
        if is_field or i == len(loc) - 1:
            path.append(part)
    return path


def _inside(inner: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(inner) > len(outer) and tuple(inner[: len(outer)]) == tuple(outer)


def _deeper(cls: type[pydantic.BaseModel], path: Sequence[int | str]) -> str | None:
    """Where the last word of a path is a field one level further down: `train.steps` for a stage's `steps`."""
    return next((f"{name}.{path[-1]}" for name in _fields_at(cls, path[:-1]) if path[-1] in _fields_at(cls, [*path[:-1], name])), None)


def _fields_at(cls: type[pydantic.BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields allowed at a path through nested configurations and unions of them."""
    here: list[type[pydantic.BaseModel]] = [cls]
    for part in path:
        deeper: list[type[pydantic.BaseModel]] = []
        for model in here:
            if part in model.model_fields:
                deeper += _models_in(model.model_fields[str(part)].annotation)
        tagged = [m for m in here if part in _tags(m)]
        here = deeper or tagged or here
    return list(dict.fromkeys(name for model in here for name in model.model_fields))


def _tags(model: type[pydantic.BaseModel]) -> set[Any]:
    return {value for f in model.model_fields.values() for value in typing.get_args(f.annotation) if isinstance(value, str)}


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if inner := typing.get_args(annotation):
        return [model for part in inner for model in _models_in(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel) else []
