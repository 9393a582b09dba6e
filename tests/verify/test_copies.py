"""Copies in another form: as near as is said, admitted only once verified, refused when a file or a setting changes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from hub.references import TEXTS, close, picture, save_clip, tiny_clip
from hub.test_clip import edit
from listening import listening
from senses import model_of
from tonggan import hub
from tonggan.backends import LocalModel, load
from tonggan.backends.directories import open_directory
from tonggan.backends.names import find
from tonggan.cli import app
from tonggan.hub import adapters
from tonggan.hub.copies import copy_in
from tonggan.hub.export_int8 import export_int8
from tonggan.hub.export_onnx import export_onnx
from tonggan.models import adapt
from tonggan.models.adapt import LoraConfig, ProbeConfig
from tonggan.models.int8 import Int8Embedding, Int8Linear, integer_product, quantized, to_int8
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.types import Image, Row, TongganError, UsageError
from tonggan.verify import verify
from tonggan.verify.copies import against_model

ITEMS = [*TEXTS, Image(array=np.asarray(picture())), Image(array=np.asarray(picture(30, 80, 1)))]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with a record, and an unverified copy of either form beside it."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("copies")
    found = hub.read(save_clip(place / "published", tiny_clip(num_hidden_layers=1)))
    hub.save(place / "clip", found.module, found.config, found.processor)
    export_int8(hub.read(place / "clip"), place / "int8")
    export_onnx(hub.read(place / "clip"), place / "onnx")
    return place


@pytest.fixture(params=["int8", "onnx"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals, tmp_path / "here")


def test_a_copy_is_loaded_only_after_a_passed_check(place: Path, form: str) -> None:
    with pytest.raises(TongganError, match=rf"{form} copy of .* never verified.*tonggan verify .* --against {form} --copy"):
        load(place / form)
    report = verify(place / "clip", form, copy=place / form)
    assert report.passed, report.plain()
    original, copy = load(place / "clip", device="cpu"), load(place / form, device="cpu")
    assert copy.identity.verified and not original.identity.difference(copy.identity)
    assert copy.can == original.can and copy.modalities == original.modalities
    mine, theirs = copy.embed(ITEMS), original.embed(ITEMS)
    assert mine.truncated == theirs.truncated == (4,)
    cosines = (mine.vectors * theirs.vectors).sum(axis=1)
    assert cosines.min() >= (0.98 if form == "int8" else 1 - 1e-6)
    kept = json.loads((place / form / "tonggan.json").read_text())["verified"]
    assert [one["against"] for one in kept] == [form] and kept[0]["worst"]["by"] == ("cosine" if form == "int8" else "relative")


def test_a_copy_speaks_for_its_original_in_an_index_and_a_server(place: Path, form: str) -> None:
    verify(place / "clip", form, copy=place / form)
    index = Index.create(place / "index", load(place / "clip"))
    index.add(load(place / "clip"), [Row(id=str(i), images=(Image(array=np.asarray(picture(40, 40, i))),)) for i in range(3)])
    copy = load(place / form)
    assert index.search(copy, Image(array=np.asarray(picture(40, 40, 1))), 1)[0].id == "1"
    with Engine(copy, index) as engine:
        assert engine.search(Image(array=np.asarray(picture(40, 40, 2))), 1)[0].id == "2"


def test_a_file_that_changed_after_the_check_is_refused_by_name(place: Path, form: str) -> None:
    verify(place / "clip", form, copy=place / form)
    file = place / form / ("model.safetensors" if form == "int8" else "text.onnx")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(TongganError, match=rf"{file.name} is not the file that was exported"):
        load(place / form)
    with pytest.raises(TongganError, match=rf"{file.name} is not the file that was exported"):
        verify(place / "clip", form, copy=place / form)
    file.unlink()
    with pytest.raises(TongganError, match=f"{file.name} is missing"):
        load(place / form)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("processor.image.interpolation", "bilinear", "image.interpolation: 'bilinear' != 'bicubic'"),
        ("processor.text.max_length", 10, "10 != 20"),
    ],
)
def test_a_setting_that_changed_is_refused_by_name(place: Path, form: str, setting: str, value: object, says: str) -> None:
    verify(place / "clip", form, copy=place / form)
    edit(place / form / "tonggan.json", {setting: value})
    with pytest.raises(TongganError, match=says):
        load(place / form)


@pytest.mark.parametrize(
    ("only", "detail", "value"),
    [("onnx", "bias", [-10.0]), ("onnx", "log_scale", [4.6]), ("onnx", "dim", 12), ("onnx", "spare", 1), ("int8", "max_scale", 50.0)],
)
def test_a_detail_that_changed_is_refused_by_name(place: Path, only: Any, detail: str, value: object) -> None:
    """Also when it is to be checked: what a check compares are a few answers."""
    edit(place / only / "tonggan.json", {f"copy.details.{detail}": value})
    with pytest.raises(TongganError, match=rf"{only} copy of .*copy\.details\.{detail} in tonggan\.json is .* not exported"):
        load(place / only)
    with pytest.raises(TongganError, match=rf"copy\.details\.{detail} in tonggan\.json"):
        verify(place / "clip", only, copy=place / only)


def test_a_detail_that_is_gone_and_a_ceiling_beside_the_weights_are_refused_by_name(place: Path) -> None:
    verify(place / "clip", "int8", copy=place / "int8")
    edit(place / "int8" / "config.json", {"max_scale": 50.0})
    with pytest.raises(TongganError, match=r"config\.json: max_scale 50\.0 != 100\.0, which was exported"):
        load(place / "int8")
    edit(place / "int8" / "tonggan.json", {"copy.details": {}})
    with pytest.raises(TongganError, match=r"copy\.details\.max_scale in tonggan\.json is missing"):
        load(place / "int8")


def test_a_copy_is_checked_against_its_own_original_only(place: Path, form: str, tmp_path: Path) -> None:
    other = hub.read(place / "clip")
    with torch.no_grad():
        other.module.get_parameter("log_scale").add_(1e-3)
    hub.save(tmp_path / "other", other.module, other.config, other.processor)
    with pytest.raises(TongganError, match="weights: "):
        verify(tmp_path / "other", form, copy=place / form)
    with pytest.raises(TongganError, match=r"not an .* copy"):
        verify(place / "clip", form, copy=tmp_path / "other")


def test_a_copy_that_is_too_far_off_is_not_admitted(place: Path) -> None:
    """Its weights are wrong, but its record, as of an exporter with a fault, is of these."""
    original = hub.read(place / "clip")
    original.module.get_parameter("text_head.weight").data.add_(0.5 * torch.randn(11, 21))
    export_int8(original, place / "int8")
    done = CliRunner().invoke(app, ["verify", str(place / "clip"), "--against", "int8", "--copy", str(place / "int8")])
    assert done.exit_code == 1
    assert "vectors of text" in done.stdout and "OFF" in done.stdout
    with pytest.raises(TongganError, match="never verified"):
        load(place / "int8")


def test_a_copy_is_no_model_to_read_or_to_copy(place: Path, form: str) -> None:
    verify(place / "clip", form, copy=place / form)
    with pytest.raises(TongganError, match=r"open it with tonggan\.load"):
        hub.read(place / form)
    with pytest.raises(TongganError, match=f"is itself an {form} copy"):
        export_int8(find(place / form), place / "again")


def test_without_a_directory_a_copy_is_made_checked_and_dropped(originals: Path) -> None:
    assert verify(originals / "clip", "int8").passed
    assert "verified" not in json.loads((originals / "clip" / "tonggan.json").read_text())


# ----------------------------------------------------------------------------------------------- ONNX


def test_graphs_take_any_number_and_length_and_equal_the_model(originals: Path) -> None:
    import onnxruntime

    checkpoint = hub.read(originals / "clip")
    text, image = (onnxruntime.InferenceSession(originals / "onnx" / f"{kind}.onnx") for kind in ("text", "image"))
    for texts in (TEXTS, TEXTS[:1], ["a"] * 7):
        tokens = checkpoint.processor.tokens(texts)
        vectors, features = text.run(["vectors", "features"], {"ids": tokens.ids.numpy(), "lengths": tokens.lengths.numpy()})
        close(torch.from_numpy(vectors), checkpoint.module.encode("text", tokens), 1e-4)  # type: ignore[operator]
        close(torch.from_numpy(features), checkpoint.module.features("text", tokens), 1e-4)  # type: ignore[operator]
    for count in (1, 3):
        pixels = checkpoint.processor.pixels([picture(40, 50, i) for i in range(count)])
        vectors, _ = image.run(["vectors", "features"], {"pixels": pixels.numpy()})
        close(torch.from_numpy(vectors), checkpoint.module.encode("image", pixels), 1e-4)  # type: ignore[operator]


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph_and_are_watched_too(place: Path) -> None:
    export_onnx(hub.read(place / "clip"), place / "beside", one_file=0)
    copy = copy_in(place / "beside")
    assert copy is not None and set(copy.files) == {"image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data"}
    assert verify(place / "clip", "onnx", copy=place / "beside").passed
    file = place / "beside" / "text.onnx.data"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\x80?")
    with pytest.raises(TongganError, match=r"text\.onnx\.data is not the file"):
        load(place / "beside")


def test_without_the_packages_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(TongganError, match=r"pip install 'tonggan\[onnx\]'"):
        export_onnx(hub.read(place / "clip"), place / "none")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TongganError, match=r"pip install 'tonggan\[onnx\]'"):
        open_directory(place / "onnx", unverified=True)
    assert not (place / "none").exists()


# ----------------------------------------------------------------------------------------------- int8


def test_products_of_whole_numbers_are_exact() -> None:
    a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((5, 77), (3, 77)))
    assert torch.equal(integer_product(a, b), a.float() @ b.float().T)


def test_each_weight_is_off_by_half_a_step_at_most() -> None:
    x = torch.randn(9, 31)
    x[4] = 0
    values, scale = quantized(x)
    assert float(((values * scale[:, None] - x).abs() / scale[:, None]).max()) <= 0.5 + 1e-5
    assert values.abs().amax(dim=1).tolist() == [127, 127, 127, 127, 0, 127, 127, 127, 127]
    linear, table = nn.Linear(31, 9), nn.Embedding(9, 31)
    for small, large in ((Int8Linear(linear), linear), (Int8Embedding(table), table)):
        off = (small.weight - large.weight).abs().amax(dim=1)
        assert bool((off <= large.weight.abs().amax(dim=1) / 127 * 0.501).all())


def test_a_linear_layer_is_near_and_takes_any_leading_sizes() -> None:
    linear = nn.Linear(64, 48)
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        small, large = Int8Linear(linear).eval()(x), linear(x)
    assert small.shape == large.shape
    assert float(torch.nn.functional.cosine_similarity(small, large, dim=-1).min()) > 0.999
    with pytest.raises(TongganError, match="does not learn"):
        Int8Linear(linear).train()(x)


def test_a_real_model_is_a_quarter_of_the_size() -> None:
    model = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

    def size(module: nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())

    before = size(model)
    assert size(to_int8(model)) < 0.3 * before


# ------------------------------------------------------------------------------------- merged, served


def adapter(place: Path) -> Path:
    base, config = hub.read(place / "clip"), LoraConfig()
    view = adapt.attach(base.module, config)
    with torch.no_grad():
        for parameter in view.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapters.save(place / "adapter", view.eval(), base, config)
    return place / "adapter"


@pytest.mark.parametrize("what", ["onnx", "int8", "merged"])
@pytest.mark.parametrize("changed", ["log_scale", "max_scale", "bias"])
def test_the_numbers_of_the_cosines_are_each_held_in_every_form(tmp_path: Path, what: Any, changed: str) -> None:
    """Next to SigLIP's bias of -16.5 a scale that is wrong by a factor of 27 is hardly to be seen."""
    torch.manual_seed(0)
    place = model_of(tmp_path / "model", "text")
    mine, other = (LocalModel(hub.read(place), "cpu") for _ in range(2))
    for model in (mine, other):
        model.module.bias = nn.Parameter(torch.tensor([-16.5]))
    assert against_model(mine, other, what, count=2, seed=0, versions={}).passed
    module: Any = other.module
    if changed == "max_scale":
        module.max_scale *= 1.01
    else:
        getattr(module, changed).data.add_(1e-3)
    report = against_model(mine, other, what, count=2, seed=0, versions={})
    assert [one.name for one in report.differences if not one.passed] == [changed]


def test_a_bias_that_is_lost_is_told(tmp_path: Path) -> None:
    place = model_of(tmp_path / "model", "text")
    mine, other = (LocalModel(hub.read(place), "cpu") for _ in range(2))
    mine.module.bias = nn.Parameter(torch.tensor([-16.5]))
    report = against_model(mine, other, "int8", count=2, seed=0, versions={})
    assert [one.name for one in report.differences if not one.passed] == ["bias"]


def test_a_merged_adapter_is_its_base_and_adapter(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = adapter(place)
    assert verify(directory, "merged").passed
    export_int8(find(directory), place / "small")
    assert verify(directory, "int8", copy=place / "small").passed
    assert not load(place / "small").identity.difference(load(directory).identity)
    base = hub.read(place / "clip")
    monkeypatch.setattr("tonggan.verify.merged", lambda _: base)
    assert not verify(directory, "merged").passed, "a merge that forgets the adapter"


@pytest.fixture
def server(place: Path) -> Iterator[str]:
    with Engine(load(place / "clip", device="cpu")) as engine, listening(create_app(engine)) as address:
        yield f"{address}/v1"


def test_a_server_gives_the_vectors_of_its_model_and_no_others(place: Path, server: str) -> None:
    report = verify(place / "clip", server)
    assert report.passed, report.plain()
    assert {one.name for one in report.differences} == {"vectors of text", "vectors of image"}
    other = hub.read(place / "clip")
    with torch.no_grad():
        other.module.get_parameter("text_head.weight")[0] += 0.01
    hub.save(place / "other", other.module, other.config, other.processor)
    report = verify(place / "other", server)
    wrong = {one.name for one in report.differences if not one.passed}
    assert wrong == {"vectors of text", "weights"}


def test_a_server_is_asked_for_sounds_and_clips_too(tmp_path: Path) -> None:
    place = model_of(tmp_path / "model", "text", "audio", "video")
    with Engine(load(place, device="cpu")) as engine, listening(create_app(engine)) as address:
        url = f"{address}/v1"
        report = verify(place, url, count=3)
        assert report.passed, report.plain()
        assert {one.name for one in report.differences} == {f"vectors of {kind}" for kind in ("text", "audio", "video")}
        other = hub.read(place)
        with torch.no_grad():
            other.module.get_parameter("audio_head.weight")[0] *= 1.1
        hub.save(tmp_path / "other", other.module, other.config, other.processor)
        wrong = {one.name for one in verify(tmp_path / "other", url, count=3).differences if not one.passed}
        assert wrong == {"vectors of audio", "weights"}


def test_an_adapter_is_no_model_that_transformers_opens(place: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(adapter(place))])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "is an adapter" in said and "adapter --against merged" in said and "tonggan merge" in said


def test_an_adapter_is_exported_merged(place: Path) -> None:
    directory = adapter(place)
    done = CliRunner().invoke(app, ["export", str(directory), str(place / "out"), "--to", "transformers"])
    assert done.exit_code == 0, done.output
    assert verify(place / "out", "transformers", count=2).passed
    texts = ["a red bird", "two cats"]
    out, tuned, plain = (load(place / name, device="cpu").embed(texts).vectors for name in ("out", "adapter", "clip"))
    assert np.abs(out - tuned).max() < 1e-5 < 1e-2 < np.abs(out - plain).max()


def test_a_copy_takes_no_adapter_to_serve(place: Path) -> None:
    verify(place / "clip", "int8", copy=place / "int8")
    done = CliRunner().invoke(app, ["serve", str(place / "int8"), "--adapter", f"a={adapter(place)}", "--port", "0"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "an int8 copy, whose weights" in said and "take no adapter; serve its original: tonggan serve" in said and "made for" not in said


def test_a_probe_has_nothing_to_merge(place: Path) -> None:
    base, config = hub.read(place / "clip"), ProbeConfig()
    adapters.save(place / "probe", adapt.attach(base.module, config), base, config)
    with pytest.raises(UsageError, match=r"probe is an adapter that learnt whole parts .* nothing to merge"):
        verify(place / "probe", "merged")


def test_of_several_served_models_the_one_is_asked_that_is_meant(place: Path) -> None:
    directory = adapter(place)
    first, second = (Engine(load(where, device="cpu")) for where in (place / "clip", directory))
    with first, second, listening(create_app(first, name="base", others={"other": second})) as address:
        url = f"{address}/v1"
        for name in ("clip", "adapter"):
            assert verify(place / name, url).passed, name
        wrong = hub.read(place / "clip")
        with torch.no_grad():
            wrong.module.get_parameter("text_head.weight")[0] += 0.01
        hub.save(place / "wrong", wrong.module, wrong.config, wrong.processor)
        with pytest.raises(TongganError, match=r"serves base \(\w+\), other \(\w+\); none has the weights of .*wrong"):
            verify(place / "wrong", url)
        # By its name it is found too, and then it is the weights that differ.
        hub.save(place / "other", wrong.module, wrong.config, wrong.processor)
        report = verify(place / "other", url)
        assert {"weights", "vectors of text"} <= {one.name for one in report.differences if not one.passed}


def test_a_server_that_is_not_there_says_so(place: Path) -> None:
    with pytest.raises(TongganError, match=r"127\.0\.0\.1:9/v1/models: no answer"):
        verify(place / "clip", "http://127.0.0.1:9/v1")


def test_an_exported_copy_is_a_local_model(originals: Path, form: str) -> None:
    assert isinstance(LocalModel(open_directory(originals / form, unverified=True), "cpu"), LocalModel)


def test_a_copy_is_no_model_to_save(place: Path, tmp_path: Path) -> None:
    copy = open_directory(place / "int8", unverified=True)
    with pytest.raises(UsageError, match="a copy in another form"):
        hub.save(tmp_path / "out", copy.module, copy.config, copy.processor, provenance=copy.provenance)
    assert not (tmp_path / "out").exists()


def test_a_tower_that_was_not_compared_is_no_pass(place: Path) -> None:
    original = LocalModel(hub.read(place / "clip"), "cpu")
    original.modalities = original.modalities | {"video"}
    report = against_model(original, original, "int8", count=1, seed=0, versions={})
    assert not report.passed
    assert [one.name for one in report.sections[0].differences if one.problem] == ["video"]
