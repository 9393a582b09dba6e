"""Adapters on one base, served: each a model by its own name, over one copy of the base, with an index of its own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as Pil
from typer.testing import CliRunner

from fakes import ColourModel, colour_rows
from hub.test_adapters import clip, trained
from tonggan import hub
from tonggan.backends import load_local
from tonggan.cli import app
from tonggan.hub import adapters
from tonggan.models import adapt
from tonggan.models.adapt import AdaptConfig, LoraConfig, PromptConfig
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.types import UsageError

CONFIGS: dict[str, AdaptConfig] = {"zh": LoraConfig(rank=3, parts=("text",)), "pictures": PromptConfig(length=3, parts=("image",))}
WORDS = ["a cat", "红色的圆"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` and `zh`, each with an index of its own, `pictures` without, and `other`, which differs from `base` in one number."""
    where = tmp_path_factory.mktemp("served")
    base = clip(where)
    for name, config in CONFIGS.items():
        adapters.save(where / name / "best", trained(adapt.attach(base.module, config)), base, config)
    for name in ("base", "zh"):
        model = load_local(where / name, device="cpu")
        Index.create(where / name / "index", model).add(model, colour_rows())
    with torch.no_grad():
        base.module.get_parameter("log_scale").add_(1e-3)
    hub.save(where / "other", base.module, base.config, base.processor)
    return where


def serve(monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[Any, list[FastAPI]]:
    """What `tonggan serve` says, and the application that it would run, which is closed by then."""
    reached: list[FastAPI] = []
    monkeypatch.setattr("tonggan.serve.http.run", lambda http, bound: (reached.append(http), bound.close()))
    return CliRunner().invoke(app, ["serve", *map(str, words), "--port", "0", "--no-page"]), reached


@pytest.fixture(scope="module")
def opened(runs: Path) -> Iterator[tuple[TestClient, dict[str, Engine]]]:
    from tonggan.cli.serve import _open

    models = _open(str(runs / "base"), [(name, str(runs / name)) for name in CONFIGS])
    index = Index.open(runs / "zh/index")
    named = zip(("base", *CONFIGS), models.values(), strict=True)
    engines = {name: Engine(model, index if name == "zh" else None) for name, model in named}
    http = create_app(engines["base"], name="base", others={name: engines[name] for name in CONFIGS})
    yield TestClient(http, base_url="http://127.0.0.1:8000"), engines
    for engine in engines.values():
        engine.close()


def test_models_are_listed_and_chosen_by_name(opened: tuple[TestClient, dict[str, Engine]]) -> None:
    http, engines = opened
    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused", max_retries=0, http_client=http)
    listed = {card.id: card.model_dump() for card in client.models.list()}
    assert list(listed) == ["base", "zh", "pictures"]
    assert [card["weights"] for card in listed.values()] == [engine.model.identity.weights for engine in engines.values()]
    assert len({card["weights"] for card in listed.values()}) == 3
    assert client.models.retrieve("zh").id == "zh" and client.models.retrieve("default").id == "base"
    vectors = {}
    for name in ("base", "zh", "pictures", "default"):
        reply = client.embeddings.create(model=name, input=WORDS)
        assert reply.model == ("base" if name == "default" else name)
        vectors[name] = np.array([one.embedding for one in reply.data])
    for name, engine in engines.items():
        assert np.abs(vectors[name] - engine.model.embed(WORDS).vectors).max() < 1e-5
    assert np.array_equal(vectors["default"], vectors["base"]) and np.array_equal(vectors["pictures"], vectors["base"])
    assert np.abs(vectors["zh"] - vectors["base"]).max() > 1e-3
    with pytest.raises(openai.NotFoundError, match=r"'en' is not served here; this server has .*'base' or 'pictures' or 'zh'"):
        client.embeddings.create(model="en", input=WORDS)


def test_the_base_is_in_memory_once(opened: tuple[TestClient, dict[str, Engine]]) -> None:
    base, *others = (engine.model.module for engine in opened[1].values())  # type: ignore[attr-defined]
    for name, parameter in base.named_parameters():
        assert all(other.get_parameter(name).data_ptr() == parameter.data_ptr() for other in others), name


def test_search_and_classification_are_the_chosen_models(opened: tuple[TestClient, dict[str, Engine]]) -> None:
    http, engines = opened
    found = http.post("/v1/search", json={"query": "a cat", "limit": 3, "model": "zh"}).json()
    assert found["model"] == "zh"
    expected = engines["zh"].search("a cat", 3)
    assert [(one["id"], pytest.approx(one["score"], abs=1e-5)) for one in found["data"]] == [(hit.id, hit.score) for hit in expected]
    none = http.post("/v1/search", json={"query": "a cat", "model": "pictures"})
    assert none.status_code == 400 and "no index made with" in none.json()["error"]["message"] and "DIR/index" in none.text

    out = io.BytesIO()
    Pil.new("RGB", (16, 19), (9, 200, 9)).save(out, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    given = {"input": picture, "labels": ["a cat", "a dog"], "templates": ["{}"]}
    answers = {name: http.post("/v1/classify", json={**given, "model": name}).json() for name in engines}
    assert [answer["model"] for answer in answers.values()] == list(engines)
    assert len({json.dumps(answer["data"]) for answer in answers.values()}) == 3
    for path, body in (("/v1/search", {"query": "x"}), ("/v1/classify", given)):
        assert http.post(path, json={**body, "model": "en"}).status_code == 404


def test_the_verb_tells_what_it_serves(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (runs / "base", "--adapter", f"zh={runs / 'zh'}", "--adapter", f"pictures={runs / 'pictures'}")
    done, reached = serve(monkeypatch, *words, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["model"], told["indexed"]) == (str(runs / "base"), 3)
    assert told["adapters"] == [
        {"name": "zh", "model": str(runs / "zh/best"), "indexed": 3},
        {"name": "pictures", "model": str(runs / "pictures/best"), "indexed": 0},
    ]
    cards = TestClient(reached[0], base_url="http://127.0.0.1:8000").get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == [str(runs / "base"), "zh", "pictures"]
    done, _ = serve(monkeypatch, *words)
    assert f"zh ({runs / 'zh/best'}): 3 items can be searched" in done.stdout
    assert f"tonggan index {runs / 'pictures'} DATA --to {runs / 'pictures/index'}" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["zh=RUNS/zh", "zh=RUNS/pictures"], 2, "two models are to be served by the name 'zh'"),
        (["RUNS/base=RUNS/zh"], 2, "two models are to be served by the name"),
        (["default=RUNS/zh"], 2, "'default' always means the first model"),
        (["RUNS/zh"], 2, "write NAME=DIR"),
        (["=RUNS/zh"], 2, "write NAME=DIR"),
        (["zh=RUNS/zhh"], 2, "no adapter"),
        (["other=RUNS/base"], 2, "is a model by itself, not an adapter for"),
    ],
)
def test_names_and_directories_that_do_not_fit(runs: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str) -> None:
    given = [word.replace("RUNS", str(runs)) for word in words]
    done, reached = serve(monkeypatch, runs / "base", *(word for one in given for word in ("--adapter", one)))
    assert (done.exit_code, reached) == (code, [])
    assert says in done.stderr


def test_an_adapter_of_another_base_and_an_index_of_another_model_are_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index made by the base is not searched with an adapter, nor the other way round."""
    done, reached = serve(monkeypatch, runs / "base", "--index", runs / "zh/index", "--adapter", f"zh={runs / 'zh'}")
    assert done.exit_code == 1 and not reached
    assert f"made with ../best, not with {runs / 'base'}" in done.stderr and "weights" in done.stderr
    taken = tmp_path / "copy"
    taken.mkdir()
    (taken / "best").symlink_to(runs / "zh/best")
    (taken / "index").symlink_to(runs / "base/index")
    done, reached = serve(monkeypatch, runs / "base", "--adapter", f"zh={taken}")
    assert done.exit_code == 1 and not reached
    assert f"not with {taken / 'best'}; their vectors are not comparable" in done.stderr
    done, reached = serve(monkeypatch, runs / "other", "--adapter", f"zh={runs / 'zh'}")
    assert done.exit_code == 1 and not reached
    assert f"made for the base {runs / 'base'}; {runs / 'other'} is another" in done.stderr and "weights: " in done.stderr


def test_two_served_models_cannot_share_a_name() -> None:
    with Engine(ColourModel()) as first, Engine(ColourModel("x" * 64)) as second:
        with pytest.raises(UsageError, match="two models are to be served by the name 'colours'"):
            create_app(first, others={"colours": second})
        with pytest.raises(UsageError, match="'tonggan' always means the first model, 'colours'"):
            create_app(first, others={"tonggan": second})
