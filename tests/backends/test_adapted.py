"""Adapters on one base in memory, as users name them: from a document, from a moved folder, by a verb of the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hub.test_adapters import clip, edit, trained
from tonggan import hub
from tonggan.backends import LocalModel, adapted, load_local
from tonggan.cli import app
from tonggan.hub import adapters
from tonggan.models import adapt
from tonggan.models.adapt import AdaptConfig, BottleneckConfig, LoraConfig, PromptConfig
from tonggan.types import Image, TongganError, UsageError

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = ["a cat", "红色的圆"]
PICTURE = Image(array=np.full((30, 41, 3), (200, 30, 99), np.uint8))
CONFIGS: dict[str, AdaptConfig] = {
    "chinese": LoraConfig(rank=3, parts=("text",), whole=("text.embedding",)),
    "eyes": BottleneckConfig(width=5, form="parallel", parts=("image",)),
}


def learn(base: Path, directory: Path, config: AdaptConfig) -> None:
    """An adapter for `base`, as training would leave it."""
    checkpoint = load_local(base, device="cpu").checkpoint
    adapters.save(directory, trained(adapt.attach(checkpoint.module, config)), checkpoint, config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` with a base, and two runs that learnt an adapter for it."""
    where = tmp_path_factory.mktemp("adapted")
    clip(where)
    (where / "runs").mkdir()
    (where / "base").rename(where / "runs" / "base")
    for name, config in CONFIGS.items():
        learn(where / "runs" / "base", where / "runs" / name / "best", config)
    return where


def changed_base(directory: Path) -> None:
    """Another model in the place of a base."""
    found = hub.read(directory)
    with torch.no_grad():
        found.module.get_parameter("log_scale").add_(1e-3)
    hub.save(directory, found.module, found.config, found.processor)


@pytest.mark.parametrize("page", ["adapting.md", "zh/adapting.md"])
def test_the_documents_code_ends_with_a_model_for_each_adapter(made: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S) if "adapted(" in block]
    monkeypatch.chdir(made)
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    base, models, both = names["base"], names["models"], names["both"]
    assert all(isinstance(model, LocalModel) for model in (base, both, *models.values()))
    assert len({model.identity.weights for model in (base, both, *models.values())}) == 4
    zh, pictures = models["zh"], models["pictures"]
    plain, spoken, seen, together = (model.embed([*TEXTS, PICTURE]).vectors for model in (base, zh, pictures, both))
    assert np.array_equal(names["vectors"], zh.embed(TEXTS[1:]).vectors)
    assert np.array_equal(spoken[2], plain[2]) and np.abs(spoken[:2] - plain[:2]).max() > 1e-3
    assert np.array_equal(seen[:2], plain[:2]) and np.abs(seen[2] - plain[2]).max() > 1e-3
    assert np.array_equal(together, np.concatenate([spoken[:2], seen[2:]]))


def test_the_weights_of_the_base_are_in_memory_once(made: Path) -> None:
    base = load_local(made / "runs/base", device="cpu")
    for name, config in CONFIGS.items():
        model = adapted(base, made / "runs" / name)
        own = adapt.own(model.module, base.module, config)
        places = {name: parameter.data_ptr() for name, parameter in base.module.named_parameters() if name not in own}
        assert len(places) >= len(list(base.module.parameters())) - 1
        assert all(model.module.get_parameter(name).data_ptr() == place for name, place in places.items())
        assert model.identity == load_local(made / "runs" / name, device="cpu").identity


def test_what_is_not_an_adapter_of_this_base_is_refused(made: Path, tmp_path: Path) -> None:
    base = load_local(made / "runs/base", device="cpu")
    with pytest.raises(UsageError, match=r"no adapter .*chinesse.*did you mean .*chinese"):
        adapted(base, made / "runs/chinesse")
    with pytest.raises(UsageError, match=r"is a model by itself, not an adapter for .*runs/base"):
        adapted(base, made / "runs/base")
    shutil.copytree(made / "runs/base", tmp_path / "other")
    changed_base(tmp_path / "other")
    other = load_local(tmp_path / "other", device="cpu")
    hashes = f"weights: {other.identity.short} != {base.identity.short}"
    with pytest.raises(TongganError, match=rf"made for the base .*runs/base; .*other is another.*\n.*{hashes}"):
        adapted(other, made / "runs/chinese")


@pytest.mark.parametrize("config", [CONFIGS["chinese"], PromptConfig(length=3)], ids=lambda config: config.kind)
def test_a_run_of_two_stages_may_be_moved(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: AdaptConfig) -> None:
    """The base is the first stage's; the run is written, moved and opened from three different places."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(made / "runs/base", "run/stages/first/best")
    learn(Path("run/stages/first/best"), Path("run/best"), config)
    before = load_local("run", device="cpu").identity
    (tmp_path / "there").mkdir()
    shutil.move("run", tmp_path / "there/moved")
    monkeypatch.chdir(tmp_path)
    assert load_local("there/moved", device="cpu").identity == before
    assert adapters.base_of(Path("there/moved/best")) == str(tmp_path / "there/moved/stages/first/best")

    shutil.copytree("there/moved", "here/run")  # what is in the old place now is another run
    changed_base(tmp_path / "here/run/stages/first/best")
    assert load_local("there/moved", device="cpu").identity == before
    with pytest.raises(TongganError, match=r"here/run/stages/first/best is another"):
        load_local("here/run", device="cpu")


def test_an_adapter_that_moves_alone_finds_its_base_where_it_was(made: Path, tmp_path: Path) -> None:
    before = load_local(made / "runs/eyes", device="cpu").identity
    shutil.copytree(made / "runs/eyes", tmp_path / "eyes")
    assert load_local(tmp_path / "eyes", device="cpu").identity == before


def test_a_base_that_moves_alone_is_written_into_the_adapter(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "runs/base", tmp_path / "runs/base")
    for name, config in CONFIGS.items():
        learn(tmp_path / "runs/base", tmp_path / "runs" / name / "best", config)
    before = {name: load_local(tmp_path / "runs" / name, device="cpu").identity for name in CONFIGS}
    (tmp_path / "runs/base").rename(tmp_path / "elsewhere")
    for name in CONFIGS:
        with pytest.raises(UsageError, match="its base cannot be opened"):
            load_local(tmp_path / "runs" / name, device="cpu")
    edit(tmp_path / "runs/chinese/best/adapter_config.json", base_model_name_or_path=str(tmp_path / "elsewhere"))
    record = tmp_path / "runs/eyes/best/tonggan.json"
    kept = json.loads(record.read_text())["base"]
    edit(record, base={**kept, "name": str(tmp_path / "elsewhere")})
    assert {name: load_local(tmp_path / "runs" / name, device="cpu").identity for name in CONFIGS} == before


def test_a_verb_takes_a_run_that_learnt_an_adapter(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    done = CliRunner().invoke(app, ["embed", "runs/chinese", *TEXTS, "--json"])
    assert done.exit_code == 0, done.output
    found = np.array([item["vector"] for item in json.loads(done.stdout)["items"]])
    assert np.abs(found - load_local("runs/chinese").embed(TEXTS).vectors).max() < 1e-5
    assert np.abs(found - load_local("runs/base").embed(TEXTS).vectors).max() > 1e-3
