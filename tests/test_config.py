"""A wrong recipe names the field, the value, what is allowed, and the nearest spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from tonggan.config import Config, ConfigError, did_you_mean, one_of, override
from tonggan.types import UsageError


class Small(Config):
    kind: Literal["small"] = "small"
    width: int = 3
    activation: Literal["gelu", "quick_gelu"] = "gelu"


class Large(Config):
    kind: Literal["large"] = "large"
    lr: float = 1e-3


class Price(Config):
    input: float
    output: float


class Recipe(Config):
    model: Annotated[Small | Large, pydantic.Field(discriminator="kind")]
    name: str
    sizes: tuple[int, ...] = ()
    stages: tuple[Large, ...] = ()
    task: Literal["choice", "classification"] | Literal["auto"] = "auto"
    tile: pydantic.PositiveInt | Literal["auto"] | None = None
    price: Price | Literal["unknown"] = "unknown"
    tasks: tuple[Literal["choice"] | Literal["auto"], ...] = ()


def message(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(data, "recipe.yaml")
    return str(caught.value)


def test_unknown_field_names_the_near_one_and_all_allowed() -> None:
    text = message({"model": {"kind": "small", "widht": 2}, "name": "x"})
    assert "recipe.yaml" in text
    assert "model.widht: no such field (did you mean 'width'?); allowed: kind, width, activation" in text


def test_wrong_value_names_what_is_allowed() -> None:
    text = message({"model": {"kind": "small", "activation": "gelo"}, "name": "x"})
    assert "model.activation: 'gelo'" in text
    assert "'quick_gelu'" in text
    assert "did you mean 'gelu'?" in text


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (
            {"task": "clasification"},
            "task: 'clasification': Input should be one of: 'choice', 'classification', 'auto' (did you mean 'classification'?)",
        ),
        ({"tasks": ["auto", "chioce"]}, "tasks.1: 'chioce': Input should be one of: 'choice', 'auto' (did you mean 'choice'?)"),
        (
            {"tile": "atuo"},
            "tile: 'atuo': Input should be a valid integer, unable to parse string as an integer; or one of: 'auto' (did you mean 'auto'?)",
        ),
        ({"tile": -1}, "tile: -1: Input should be greater than 0; or one of: 'auto'"),
        (
            {"price": {"input": 1, "output": "dear"}},
            "price.output: 'dear': Input should be a valid number, unable to parse string as a number",
        ),
    ],
)
def test_a_wrong_value_of_a_union_with_literals_is_one_line(field: dict[str, object], line: str) -> None:
    text = message({"model": {"kind": "small"}, "name": "x"} | field)
    assert text == f"recipe.yaml: 1 wrong field\n  {line}"


def test_wrong_kind_missing_field_and_wrong_type_are_all_listed() -> None:
    text = message({"model": {"kind": "smal"}, "stages": [{"lr": "fast"}]})
    assert "3 wrong fields" in text
    assert "'small', 'large'" in text
    assert "name: missing" in text
    assert "stages.0.lr: 'fast'" in text


def test_yaml_round_trip_and_scientific_floats(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: {kind: large, lr: 5e-4}\nname: 中文\nsizes: [1, 2]\n", encoding="utf-8-sig")
    recipe = Recipe.read(file, ["name=新名字", "stages=[{lr: 1e-2}]", "stages.0.lr=3e-5"])
    assert recipe.model == Large(lr=5e-4)
    assert recipe.name == "新名字"
    assert recipe.stages == (Large(lr=3e-5),)
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.read(file) == recipe


@pytest.mark.parametrize("text", ["nothing", "=3", "sizes.7=1", "name.x=1"])
def test_bad_override_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        override({"name": "x", "sizes": [1]}, [text])


@pytest.mark.parametrize(("content", "what"), [("a: [", "YAML"), ("- 1", "expected fields"), ("\xff", "fields")])
def test_a_file_that_is_no_recipe(tmp_path: Path, content: str, what: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=what):
        Recipe.read(file)


def test_no_such_file() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Recipe.read("nowhere.yaml")


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        Small().width = 4  # type: ignore[misc]


def test_one_of() -> None:
    assert one_of("mini", ["mini", "rn50"], "preset") == "mini"
    with pytest.raises(UsageError, match=r"preset 'min' is not known \(did you mean 'mini'\?\); there are: mini, rn50"):
        one_of("min", ["mini", "rn50"], "preset")
    assert did_you_mean("zzz", ["mini"]) == ""
