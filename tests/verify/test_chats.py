"""`tonggan verify` of chat models: conversations with pictures among the words are compared, and what is changed is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hub.references_chat import llava_that_chats, onevision_that_chats
from hub.test_llava import IMAGE
from tonggan import hub
from tonggan.hub.read import Checkpoint
from tonggan.types import TongganError
from tonggan.verify import verify
from tonggan.verify.conversations import NO_TEMPLATE
from tonggan.verify.inputs import named, write_items
from tonggan.verify.published import against_transformers
from tonggan.verify.report import Report

TENSORS, FILES = "from the same tensors", "from files and strings"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("chats")
    llava_that_chats(place / "llava")
    onevision_that_chats(place / "onevision")
    return place


def edit(directory: Path, name: str, changes: dict[str, Any]) -> None:
    """Change fields of a file; of the pictures' settings, wherever releases of the library keep them."""
    file = directory / name
    raw = json.loads(file.read_text())
    file.write_text(json.dumps(raw | changes))
    whole = directory / "processor_config.json"
    if name == "preprocessor_config.json" and "image_processor" in (raw := json.loads(whole.read_text())):
        whole.write_text(json.dumps(raw | {"image_processor": raw["image_processor"] | changes}))


def one_weight(directory: Path) -> None:
    file = directory / "model.safetensors"
    state = load_file(file)
    state["multi_modal_projector.linear_1.weight"][0, 0] += 0.5
    save_file(state, file, metadata={"format": "pt"})


def another_template(directory: Path) -> None:
    file = directory / "chat_template.jinja"
    file.write_text(file.read_text().replace("add_generation_prompt %}", "add_generation_prompt %}{{ 'a ' }}"))


Flip = tuple[Callable[[Path], None], str, set[str], str]
FLIPS: dict[str, Flip] = {
    "one weight": (one_weight, TENSORS, {"logits", "last_hidden_state"}, ""),
    "bilinear": (lambda d: edit(d, "preprocessor_config.json", {"resample": 2}), FILES, {"pixel_values", "logits"}, ""),
    "layer": (lambda d: edit(d, "config.json", {"vision_feature_layer": -3}), TENSORS, {"logits", "last_hidden_state"}, ""),
    "placeholder": (
        lambda d: edit(d, "config.json", {"image_token_index": 5, "image_token_id": 5}), TENSORS, {"outputs"}, "do not match",
    ),
    "template": (another_template, FILES, {"input_ids"}, "shapes"),
}  # fmt: skip
OF_LLAVA: dict[str, Flip] = {
    "strategy": (
        lambda d: edit(d, "config.json", {"vision_feature_select_strategy": "full"}), TENSORS, {"outputs"}, "do not match",
    ),
    "what the processor leaves out": (
        lambda d: edit(d, "processor_config.json", {"vision_feature_select_strategy": "full"}), FILES, {"input_ids"}, "shapes",
    ),
    "size": (
        lambda d: edit(d, "preprocessor_config.json", {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}),
        FILES, {"input_ids", "pixel_values"}, "shapes",
    ),
}  # fmt: skip
OF_ONEVISION: dict[str, Flip] = {
    "size": (
        lambda d: edit(d, "preprocessor_config.json", {"size": {"height": 16, "width": 16}, "image_grid_pinpoints": [[16, 16]]}),
        FILES, {"pixel_values", "pixel_values_videos"}, "shapes",
    ),
    "grids": (
        lambda d: edit(d, "preprocessor_config.json", {"image_grid_pinpoints": [[12, 12], [12, 24]]}), FILES, {"pixel_values"}, "",
    ),
    "kept features": (
        lambda d: edit(d, "processor_config.json", {"vision_aspect_ratio": "anyres_max_1"}), FILES, {"input_ids"}, "",
    ),
}  # fmt: skip
EVERY = [("llava", name, flip) for name, flip in (FLIPS | OF_LLAVA).items()]
EVERY += [("onevision", name, flip) for name, flip in (FLIPS | OF_ONEVISION).items()]


def check(checkpoint: Checkpoint, directory: Path) -> Report:
    return against_transformers(checkpoint, directory, count=2, seed=0, backward=False)


@pytest.mark.parametrize(("which", "name", "flip"), EVERY, ids=[f"{which}: {name}" for which, name, _ in EVERY])
def test_a_reading_that_is_not_the_directorys_is_found_and_named(saved: Path, tmp_path: Path, which: str, name: str, flip: Flip) -> None:
    """What the directory said before it was changed stands for a reading of ours that is wrong."""
    directory = shutil.copytree(saved / which, tmp_path / which)
    checkpoint = hub.read(directory)
    change, where, names, why = flip
    change(directory)
    report = check(checkpoint, directory)
    off = {one.name: one.problem or "" for part in report.sections if part.name == where for one in part.differences if not one.passed}
    assert not report.passed and names <= set(off), [one for one in report.differences if not one.passed]
    assert all(why in off[one] for one in names), off
    if where == FILES:
        assert all(one.passed for one in report.sections[0].differences)


STRINGS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"


def no_template(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()


def strings_only(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(STRINGS)


def says_little(directory: Path) -> None:
    (directory / "processor_config.json").unlink()


@pytest.mark.parametrize("change", [no_template, strings_only, says_little])
@pytest.mark.parametrize("which", ["llava", "onevision"])
def test_files_that_say_less_or_as_they_did_earlier_pass(saved: Path, tmp_path: Path, which: str, change: Callable[[Path], None]) -> None:
    directory = shutil.copytree(saved / which, tmp_path / which)
    change(directory)
    report = check(hub.read(directory), directory)
    assert report.passed, [one for one in report.differences if not one.passed]
    assert (NO_TEMPLATE in report.notes) == (change is no_template)
    assert {"input_ids", "pixel_values", "logits"} <= {one.name for one in report.sections[-1].differences}


@pytest.mark.parametrize(("which", "layers"), [("llava", 4), ("onevision", 2)])
def test_conversations_have_pictures_in_other_numbers_and_clips(saved: Path, tmp_path: Path, which: str, layers: int) -> None:
    """Of OneVision's layers the decoder's alone: ours looks at clips and pictures at once, the library at either by itself."""
    checkpoint = hub.read(saved / which)
    items = write_items(tmp_path, checkpoint.processor, count=4, seed=0).conversing()
    given = named(checkpoint.processor, items)
    assert checkpoint.processor.chat is not None
    each = [len(checkpoint.processor.chat.prompt(one).pictures) for one in items.conversations]
    if which == "llava":
        assert each == [1, 2, 0, 1] and given["pixel_values"].shape == (4, 3, 12, 12)
        assert (given["input_ids"] == IMAGE).sum(dim=1).tolist() == [9, 18, 0, 9]
    else:
        assert given["batch_num_images"].tolist() == [1, 2, 1] and given["pixel_values_videos"].shape == (2, 8, 3, 12, 12)
    assert check(checkpoint, saved / which).layers == layers


def test_a_template_that_refuses_the_conversation_is_named(saved: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(saved / "llava", tmp_path / "llava")
    checkpoint = hub.read(directory)
    (directory / "chat_template.jinja").write_text("{{ raise_exception('no pictures today') }}")
    with pytest.raises(TongganError, match="the library's LlavaProcessor refuses a conversation: no pictures today"):
        check(checkpoint, directory)


def test_what_passed_is_kept_and_refused_once_it_changes(saved: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(saved / "llava", tmp_path / "llava")
    assert verify(directory, "transformers", count=2).passed and hub.read(directory).identity.verified
    another_template(directory)
    with pytest.raises(TongganError, match=r"chat\.template: "):
        hub.read(directory)
