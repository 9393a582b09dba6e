"""What a run would fail by is said before its first update; an adapter on an adapted model; streams of any name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from tonggan import hub, load
from tonggan.config import ConfigError
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.rows import Dataset
from tonggan.data.sources import scenes
from tonggan.data.text import train_bpe
from tonggan.models import DualEncoderConfig, build, parse
from tonggan.recipes.checks import check, check_apart
from tonggan.recipes.config import RunConfig
from tonggan.recipes.rows import RunRows
from tonggan.recipes.run import Run
from tonggan.types import Audio, Row, Text, TongganError, UsageError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))


IMAGE = {"kind": "vit", "image_size": 32, "patch_size": 16, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
TEXT = {"kind": "transformer", "vocab_size": 300, "context": 48, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
TWO = {"kind": "dual_encoder", "image": IMAGE, "text": TEXT, "dim": 8}
BERT = {"kind": "bert", "text": {**TEXT, "kind": "bert"}}
VLMO = {
    "kind": "vlmo", "image": {"image_size": 32, "patch_size": 16}, "text": {"vocab_size": 300, "context": 48},
    "width": 24, "layers": 2, "heads": 2, "mlp_width": 32, "fused_layers": 1, "dim": 8,
}  # fmt: skip
VILT = {
    "kind": "single_stream", "image": {"image_size": 32, "patch_size": 16}, "text": {"vocab_size": 300, "context": 48},
    "width": 24, "layers": 1, "heads": 2, "mlp_width": 32,
}  # fmt: skip
DATA2VEC = {"kind": "data2vec", "image": {**IMAGE, "kind": "beit", "layers": 2, "mask_token": True}}
SCENES = {"source": "scenes", "options": {"n": 24, "size": 32}, "split": None, "langs": ["en"]}
BOTH = {**SCENES, "langs": None}
MASKED = {"step": {"kind": "masked_language"}}
LATENT = {"kind": "latent", "modality": "image", "top_layers": 2, "smallest_block": 1}
MATCHING = {"step": {"kind": "matching"}}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("start") / "model"
    tokenizer = train_bpe(["a red circle", "a blue square"], 300, max_length=48)
    shape = DualEncoderConfig.parse({**TWO, "text": {**TEXT, "vocab_size": tokenizer.vocab_size}})
    hub.save(directory, build(shape).eval(), shape, Processor(ImageProcessor(ImageProcessing(size=32)), tokenizer))
    return directory


def config(model: dict[str, Any], stream: dict[str, Any] | None = None, *, whole: dict[str, Any] | None = None, **stage: Any) -> RunConfig:
    one = {"data": SCENES, "loader": {"batch_size": 8}} | (stream or {})
    settings = {"streams": [one], "train": {"steps": 2, "log_every": 1}, "optim": {"lr": 1e-2, "warmup": 1}} | stage
    return RunConfig.parse({"name": "tiny", "model": model, "stages": [settings], **(whole or {})})


def shape(of: dict[str, Any]) -> dict[str, Any]:
    return {"config": of, "vocab_size": 300}


def lora(*parts: str, **more: Any) -> dict[str, Any]:
    return {"kind": "lora", "rank": 2, "parts": list(parts), **more}


def test_an_adapter_beside_an_adapted_start_is_loaded_as_it_was_trained(start: Path, tmp_path: Path) -> None:
    Run(config({"start": str(start)}, adapt=lora("text")), tmp_path / "a", quiet=True).train()
    second = Run(config({"start": str(tmp_path / "a")}, adapt=lora("image", alpha=8.0)), tmp_path / "b", quiet=True)
    second.train()
    picture = second.rows(second.config.stages[0].streams[0].data)[0].images[0]
    plain, one, two = (load(where).embed([picture, "a red circle"]).vectors for where in (start, tmp_path / "a", tmp_path / "b"))
    assert np.array_equal(two, second.local().embed([picture, "a red circle"]).vectors)
    assert np.array_equal(two[1], one[1]) and not np.allclose(two[1], plain[1]), "the first adapter is still there"
    assert not np.allclose(two[0], one[0]), "and so is the second"


def test_an_adapted_start_is_not_trained_without_an_adapter(start: Path, tmp_path: Path) -> None:
    Run(config({"start": str(start)}, adapt=lora("text")), tmp_path / "a", quiet=True).train()
    with pytest.raises(UsageError, match=r"has an adapter.*tonggan merge .*/a DIRECTORY"):
        Run(config({"start": str(tmp_path / "a")}), tmp_path / "b", quiet=True).train()
    assert not (tmp_path / "b" / "last").exists()


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"freeze": ["image"], "adapt": lora()}, "image is frozen, but the adapter goes into it"),
        ({"freeze": ["text.transformer"], "adapt": lora("text")}, r"text\.transformer is frozen, but the adapter goes into it"),
        ({"freeze": ["text.*"], "adapt": lora("text", whole=["image_head"])}, "is frozen, but the adapter goes into it"),
        ({"freeze": ["image_head"], "adapt": lora("text", whole=["image_head"])}, "image_head is frozen, but the adapter"),
        ({"adapt": lora("txt")}, "adapt: no part 'txt'"),
        ({"freeze": ["image"], "stream": {"augment": {}}}, "augment changes nothing where a frozen picture tower .* use views"),
    ],
    ids=str,
)
def test_what_a_stage_freezes_and_adapts_is_held_against_the_model(start: Path, tmp_path: Path, stage: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Run(config({"start": str(start)}, **stage), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "last").exists()


def test_a_model_that_is_frozen_whole_has_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to train: .*; take parts out of freeze \(text, head\)"):
        Run(config(shape(BERT), MASKED, freeze=["text", "head"]), tmp_path, quiet=True).train()


def test_a_stage_of_adapters_is_checked_before_the_one_before_it_is_trained(tmp_path: Path) -> None:
    first = json.loads(config(shape(TWO)).model_dump_json())["stages"][0]
    second = first | {"name": "second", "freeze": ["text.transformer"], "adapt": lora("text")}
    two = config(shape(TWO), whole={"stages": [first, second]})
    with pytest.raises(UsageError, match=r"stage second: text\.transformer is frozen"):
        Run(two, tmp_path, quiet=True).train()
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize("step", ["adapter", "teacher and head", "teacher"])
def test_looking_at_a_stage_beforehand_draws_nothing_and_changes_nothing(start: Path, tmp_path: Path, step: str) -> None:
    settings = {
        "adapter": config({"start": str(start)}, freeze=["image"], adapt=lora("text")),
        "teacher and head": config(shape(DATA2VEC), {"step": LATENT}),
        "teacher": config({"start": str(start)}, {"data": BOTH, "step": {"kind": "transfer"}}),
    }[step]
    run = Run(settings, tmp_path, quiet=True)
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in run.model.state_dict().items()}
    check(settings, run.parts, RunRows(settings), None)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def later(model: dict[str, Any], first: dict[str, Any], second: dict[str, Any], **whole: Any) -> RunConfig:
    """Two stages; what the second says in `stream` is its only stream's."""
    stream = second.pop("stream", {})
    one = json.loads(config(shape(model), first).model_dump_json())["stages"][0]
    settings = {name: {**one[name], **value} if isinstance(value, dict) else value for name, value in second.items()}
    two = {**one, "name": "second", **settings, "streams": [{**one["streams"][0], **stream}]}
    return config(shape(model), whole={"stages": [one, two], **whole})


@pytest.mark.parametrize(
    ("model", "first", "second", "says"),
    [
        (VILT, MATCHING, {"stream": {"step": {"kind": "matching", "negatives": "hard"}}}, r"step\.negatives: .* embeds nothing"),
        (DATA2VEC, {"step": LATENT}, {"stream": {"step": {**LATENT, "top_layers": 9}}}, r"step\.top_layers: 9 of 2 blocks"),
        (TWO, {}, {"stream": MASKED}, "step masked_language: needs a model that says words"),
        (TWO, {}, {"stream": {"step": {"objective": "sigmoid"}}}, "sigmoid needs a bias"),
        (BERT, MASKED, {"centre": True}, "centre, bilingual and ridge are for two-tower models"),
        (TWO, {}, {"bilingual": True}, "bilingual needs a model whose text tower is a BERT"),
        (TWO, {}, {"ridge": 0.1}, "ridge needs a transfer stream"),
        (TWO, {"data": BOTH}, {"stream": {"step": {"kind": "transfer"}}, "ridge": 0.1}, "ridge needs bilingual"),
        (VILT, MATCHING, {"stream": {"loader": {"batch_size": 1}}}, "stream pairs: matching tells rows apart, but batch_size is 1"),
        (BERT, MASKED, {"train": {"micro_batch": 2}}, r"stream pairs: train\.micro_batch .* loader\.batch_size \(2\)"),
        (TWO, {}, {"stream": {"loader": {"batch_size": 1}}}, "stream pairs: contrastive learning tells rows apart, but batch_size is 1"),
        (TWO, {}, {"stream": {"loader": {"batch_size": 8, "streams": 3}}}, r"loader\.streams=3 must"),
    ],
    ids=[
        "negatives", "layers", "step", "bias", "centre", "bilingual", "ridge", "ridge alone", "matching one", "micro-batch", "batch of one",
        "streams",
    ],
)  # fmt: skip
def test_a_later_stage_that_cannot_be_trained_is_found_before_the_first(
    tmp_path: Path, model: dict[str, Any], first: dict[str, Any], second: dict[str, Any], says: str
) -> None:
    with pytest.raises(TongganError, match=f"stage second: .*{says}"):
        Run(later(model, first, {**second}), tmp_path, quiet=True).train()
    assert not (tmp_path / "stages").exists()


def test_a_later_stage_that_hides_words_without_a_mask_token_is_found_before_the_first(tmp_path: Path) -> None:
    tokenizer = train_bpe(["a red circle", "a blue square"], 300, max_length=48)
    model = parse({**VLMO, "text": {"vocab_size": tokenizer.vocab_size, "context": 48}}, "model")
    hub.save(tmp_path / "start", build(model).eval(), model, Processor(ImageProcessor(ImageProcessing(size=32)), tokenizer))
    first = json.loads(config({"start": str(tmp_path / "start")}).model_dump_json())["stages"][0]
    second = {**first, "name": "second", "streams": [{**first["streams"][0], **MASKED}]}
    two = config({"start": str(tmp_path / "start")}, whole={"stages": [first, second]})
    with pytest.raises(UsageError, match=r"stage second: this tokenizer has no mask token"):
        Run(two, tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "stages").exists()


ALIKE: dict[str, Callable[[Row, Row], Row]] = {
    "the same caption": lambda row, _: row.with_(texts=(Text(f"A bird{' ' * len(row.id)}", "en"),)),
    "the same picture": lambda row, first: row.with_(images=first.images),
    r"of one group \(pond\)": lambda row, _: row.with_(group="pond"),
}


@pytest.mark.parametrize("step", ["matching", "contrastive"])
@pytest.mark.parametrize("says", ALIKE)
def test_rows_that_nothing_tells_apart_are_found_whatever_they_share(step: str, says: str) -> None:
    rows = scenes.generate(3, seed=1, size=32)
    alike = [ALIKE[says](row, rows[0]) for row in rows]
    stage = config(shape(VLMO), {"step": {"kind": step}}).stages[0]
    with pytest.raises(TongganError, match=f"stage train: stream pairs: all 3 rows .*{says}"):
        check_apart(stage, stage.streams[0], Dataset.from_rows(alike))
    check_apart(stage, stage.streams[0], Dataset.from_rows([*alike[:2], rows[2].with_(group=None)]))


def test_a_later_stage_without_a_wrong_pair_is_found_before_the_first(tmp_path: Path) -> None:
    rows = scenes.generate(3, seed=1, size=32)
    Dataset.from_rows([row.with_(split=None, texts=(Text("a bird", "en"),)) for row in rows]).write(tmp_path / "data")
    second = {"stream": {"step": {"kind": "matching"}, "data": {"source": str(tmp_path / "data"), "split": None}}}
    with pytest.raises(TongganError, match="stage second: stream pairs: all 3 rows have the same caption"):
        Run(later(VILT, MATCHING, second), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "stages").exists()


def test_patience_and_rates_of_a_later_stage_are_held_against_the_run(tmp_path: Path) -> None:
    looking = {"data": SCENES, "choose": False}
    with pytest.raises(UsageError, match=r"train\.patience: stops by the evaluation's score"):
        Run(later(TWO, {}, {"train": {"patience": 1}}, evaluation=looking), tmp_path / "patience", quiet=True).train()
    with pytest.raises(UsageError, match=r"optim\.parts: no part 'imgae'"):
        Run(later(TWO, {}, {"optim": {"parts": {"imgae": 0.1}}}), tmp_path / "rates", quiet=True).train()
    assert not any((tmp_path / name / "stages").exists() for name in ("patience", "rates"))


def test_a_frozen_part_of_one_transformer_is_not_encoded_once(tmp_path: Path) -> None:
    Run(config(shape(VLMO), {"augment": {}}, freeze=["image"]), tmp_path / "augmented", quiet=True).train()
    with pytest.raises(UsageError, match="only those of two-tower models do, and this is none: leave views out"):
        Run(config(shape(VLMO), freeze=["image"], views=4), tmp_path / "views", quiet=True).train()


@pytest.mark.parametrize(
    ("model", "stream", "whole", "says"),
    [
        (BERT, MASKED, {"evaluation": {"data": SCENES}}, "stage train: evaluation: retrieval needs a model that embeds"),
        (BERT, MASKED, {"evaluation": {"kind": "matching", "data": SCENES}}, "matching needs a model that reads a picture and a text"),
        (BERT, MASKED, {"evaluation": {"kind": "probe", "label": "look", "data": SCENES}}, "the model reads: text"),
        (TWO, {}, {"evaluation": {"data": SCENES, "between": ["video", "text"]}}, "it reads: image, text|no row of split"),
        (
            TWO,
            {},
            {"evaluation": {"data": SCENES}, "looks": [{"kind": "retrieval", "data": SCENES, "langs": ["xx"]}]},
            "looks.0: no .*'xx'",
        ),
        (TWO, {"data": BOTH, "step": {"kind": "transfer"}}, {"evaluation": {"kind": "loss", "data": BOTH}}, "take kind: retrieval"),
        (
            TWO,
            {},
            {"evaluation": {"kind": "probe", "label": "look", "data": {**SCENES, "split": "train"}}},
            r"no row of split test has a class in column 'look'; set data\.split: null",
        ),
    ],
    ids=["retrieval of a bert", "matching of a bert", "probe of a bert", "clips", "looks", "transfer", "probe of one split"],
)
def test_evaluations_that_cannot_work_are_found_first(
    tmp_path: Path, model: dict[str, Any], stream: dict[str, Any], whole: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        Run(config(shape(model), stream, whole=whole), tmp_path, quiet=True).train()
    assert not (tmp_path / "last").exists()


def test_matching_among_one_row_is_found_first(tmp_path: Path) -> None:
    Pil.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "one.csv").write_text("image,text,lang\na.png,a red circle,en\n", "utf-8")
    evaluation = {"kind": "matching", "data": {"source": str(tmp_path / "one.csv"), "split": None}}
    with pytest.raises(UsageError, match=r"stage train: evaluation: matching takes a caption of another row .* and 1 of the rows"):
        Run(config(shape(VLMO), {"step": {"kind": "matching"}}, whole={"evaluation": evaluation}), tmp_path / "run", quiet=True).train()
    assert not (tmp_path / "run" / "last").exists()


def kept(where: Path, *, lang: str | None = "en", sound: str | None = None) -> dict[str, Any]:
    """Six scenes with a caption in English, or in no known language, and one in Chinese, the last without it, each with a sound."""
    audios = (Audio(path=where / "pop.ogg", role=sound),) if sound else ()
    rows = [row.with_(split=None, audios=audios) for row in scenes.generate(6, seed=1, size=32)]
    said = [tuple(text if text.lang == "zh" else Text(text.text, lang) for text in row.texts) for row in rows]
    said[-1] = tuple(text for text in said[-1] if text.lang != "zh")
    Dataset.from_rows([row.with_(texts=texts) for row, texts in zip(rows, said, strict=True)]).write(where)
    return {"source": str(where), "split": None}


def measured(settings: RunConfig, where: Path) -> tuple[Run, dict[str, float]]:
    """A run that has been trained, and its last evaluation."""
    run = Run(settings, where, quiet=True)
    run.train()
    lines = [json.loads(line) for line in (where / "metrics.jsonl").read_text("utf-8").splitlines()]
    return run, next(line for line in reversed(lines) if any(name.startswith("eval/") for name in line))


def test_the_effect_of_a_stamp_is_no_language(tmp_path: Path) -> None:
    evaluation = {"kind": "matching", "data": kept(tmp_path / "data", sound="effect")}
    _, found = measured(config(shape(VLMO), MATCHING, whole={"evaluation": evaluation}), tmp_path / "run")
    assert {"eval/match en acc", "eval/match zh acc"} <= set(found)
    with pytest.raises(UsageError, match=r"no caption in 'fr' among what it is evaluated on; there are: en, zh$"):
        Run(config(shape(VLMO), MATCHING, whole={"evaluation": {**evaluation, "langs": ["fr"]}}), tmp_path / "fr", quiet=True).train()
    spoken = {"kind": "retrieval", "between": ["image", "audio"], "data": evaluation["data"], "langs": ["zh"]}
    hears = {**TWO, "audio": {"kind": "log_mel", "bins": 8, "context": 50, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}}
    with pytest.raises(UsageError, match=r"no sound in 'zh' among what it is evaluated on; there are: effect$"):
        Run(config(shape(hears), whole={"evaluation": spoken}), tmp_path / "spoken", quiet=True).train()


@pytest.mark.parametrize("kind", ["retrieval", "matching", "loss"])
def test_captions_of_no_known_language_are_measured_as_such(tmp_path: Path, kind: str) -> None:
    evaluation = {"kind": kind, "langs": ["und"], "data": kept(tmp_path / "data", lang=None)}
    run, found = measured(config(shape(VLMO), whole={"evaluation": evaluation}), tmp_path / "run")
    assert {"retrieval": "eval/t2i und R@1", "matching": "eval/match und acc", "loss": "eval/loss"}[kind] in found
    assert not run.dropped


def test_a_loss_is_of_its_languages_and_of_rows_that_have_one(tmp_path: Path) -> None:
    data, losses = kept(tmp_path / "data"), {}
    asked = {"zh": {"langs": ["zh"]}, "en": {"langs": ["en"]}, "zh of the data": {}, "zh of the stage": {"langs": ["en"]}}
    for name, langs in asked.items():
        evaluation = {"kind": "loss", "data": data | ({"langs": ["zh"]} if name == "zh of the data" else {}), **langs}
        stage = {"langs": ["zh"]} if name == "zh of the stage" else {}
        settings = config(shape(BERT), {**MASKED, "data": BOTH}, whole={"evaluation": evaluation}, optim={"lr": 0.0}, **stage)
        run, found = measured(settings, tmp_path / name)
        losses[name] = found["eval/loss"]
        assert [one.reason for one in run.dropped] == ([] if name == "en" else ["no caption in zh"])
    assert losses["zh"] == losses["zh of the data"] == losses["zh of the stage"] != losses["en"]


@pytest.mark.parametrize(
    ("model", "whole", "says"),
    [
        (shape(TWO), {"looks": [{"kind": "retrieval", "data": SCENES}]}, "looks are taken when the evaluation is, which is not set"),
        ({"start": "runs/a", "resize_positions": True}, {}, "start keeps its size: .*take towers: {image: runs/a"),
        ({"start": "runs/a", "vocab_size": 300}, {}, "start brings its own: leave it out"),
        ({"preset": "mini", "towers": {"text": "runs/a"}, "vocab_size": 300}, {}, "towers.text brings its own: leave it out"),
        (shape(TWO), {"evaluation": {"kind": "probe", "label": "look", "of": "text", "data": SCENES}}, r"evaluation.*of"),
        (shape(TWO), {"evaluation": {"kind": "probe", "label": "look", "langs": ["en"], "data": SCENES}}, r"whatever its language"),
    ],
    ids=["looks", "positions", "vocabulary", "vocabulary beside a tower", "probe of text", "probe in a language"],
)
def test_settings_that_would_do_nothing_are_refused(model: dict[str, Any], whole: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(model, whole=whole)


def test_a_stage_has_no_languages_for_a_probe_and_classes_have_a_column() -> None:
    with pytest.raises(ConfigError, match="stage train: langs are those of the evaluation, and a probe is of none"):
        config(shape(TWO), whole={"evaluation": {"kind": "probe", "label": "look", "data": SCENES}}, langs=["en"])
    with pytest.raises(ConfigError, match=r"classification learns the classes of a column: set data\.label"):
        config(shape(VLMO), {"step": {"kind": "classification"}})


def test_streams_may_be_called_as_modules_call_their_own(tmp_path: Path) -> None:
    names = ("train", "type", "语 料")
    streams = [{"name": name, "data": SCENES, "loader": {"batch_size": 8}} for name in names]
    Run(config(shape(TWO), streams=streams), tmp_path, quiet=True).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(f"{name}/loss" in lines[-1] for name in names)
