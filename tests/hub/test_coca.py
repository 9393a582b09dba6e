"""CoCa: outputs, gradients and captions of open_clip's, as they once were (`golden/coca.py`); its directories, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hub.golden.coca import BEAMS, CONFIGS, CONTEXT, END, FILE, PAD, PUBLISHED, START, TEXTS, WORDS, fill, goal, ids, pixels, shapes
from hub.references import MERGES, clip_tokenizer, close, picture
from tonggan import hub, load
from tonggan.backends.names import directory_of
from tonggan.data.images import ImageProcessing
from tonggan.data.text import END as LAST
from tonggan.data.text import START as FIRST
from tonggan.data.text import TextProcessing, Tokenizer
from tonggan.generate import Sampling, generate
from tonggan.hub.convert import coca
from tonggan.hub.listing import wanted
from tonggan.hub.read import build_with
from tonggan.models import Coca, presets
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import Image, Message, Text, TongganError, UsageError

NAMES = tuple(CONFIGS)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FILE) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def ours(name: str) -> Coca:
    """With the weights that the golden results were made with."""
    config = coca.config_in(CONFIGS[name], name, ImageProcessing())
    with torch.device("meta"):
        state = coca.table(config).export(Coca(config).state_dict())
    theirs = {key: torch.from_numpy(fill(key, tuple(value.shape))) for key, value in state.items()}
    module = build_with(config, coca.table(config), theirs, name)
    assert isinstance(module, Coca)
    return module


def given(name: str) -> dict[str, Tensor]:
    text = torch.from_numpy(ids())
    own = torch.arange(CONTEXT) < torch.tensor([len(row) for row in TEXTS])[:, None]
    return {"pixel_values": torch.from_numpy(pixels(name)), "input_ids": text, "attention_mask": own.long()}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_open_clips(golden: dict[str, Tensor], name: str) -> None:
    """Texts with a word that has padding's id, with no padding, with one, and with nothing. Of the first, which open_clip also hides from
    the words behind it, the class token sees the same here; for words it is a word."""
    module, inputs = ours(name), given(name)
    own = inputs["attention_mask"].bool()
    found = hub.outputs(module, inputs)
    for what in ("image_features", "text_features"):
        close(found[what], golden[f"{name} {what}"])
    said = golden[f"{name} logits"]
    close(found["logits"][1:][own[1:]], said[1:][own[1:]])
    close(found["logits"][0, :3], said[0, :3])
    assert not torch.allclose(found["logits"][0, 3], said[0, 3], atol=1e-3)

    def total(out: dict[str, Tensor]) -> Tensor:
        said = out["logits"][1:] * own[1:, :, None]
        parts = {"image_features": out["image_features"], "text_features": out["text_features"], "logits": said}
        return torch.stack([(part * torch.from_numpy(goal(what, tuple(part.shape)))).sum() for what, part in parts.items()]).sum()

    gradients = hub.gradients(module, inputs, total)
    expected = {key.removeprefix(f"{name} gradient "): value for key, value in golden.items() if key.startswith(f"{name} gradient ")}
    assert sorted(gradients) == sorted(expected)
    largest = max(float(value.abs().max()) for value in expected.values())
    for key, value in expected.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        parts = ("q", "k", "v") if key.endswith("in_proj_bias") else ("",)
        for part, a, b in zip(parts, gradients[key].chunk(len(parts)), value.chunk(len(parts)), strict=True):
            scale = 0.1 * largest if part == "k" else float(b.abs().max())
            assert float((a - b).abs().max()) <= 1e-4 * scale, f"{key} {part}"


@pytest.mark.parametrize("beams", [1, BEAMS])
@pytest.mark.parametrize("name", NAMES)
def test_captions_are_open_clips(golden: dict[str, Tensor], name: str, beams: int) -> None:
    """All together, and each alone."""
    module, pictures = ours(name).double(), torch.from_numpy(pixels(name)).double()
    expected = [[word for word in row if word >= 0] for row in golden[f"{name} captions {beams}"].tolist()]

    def captions(some: Tensor) -> list[list[int]]:
        batch = Batch(("",) * len(some), pixels=some, tokens=pad([[START]] * len(some)))
        settings = [Sampling(max_tokens=WORDS, beams=beams)] * len(some)
        return [list(said.ids) for (said,) in generate(module, batch, settings, ends=(END[name],))]

    assert captions(pictures) == expected
    assert [caption for one in pictures for caption in captions(one[None])] == expected


@pytest.mark.parametrize(("published", "preset"), [("coca_ViT-B-32", "coca-vit-b-32"), ("coca_ViT-L-14", "coca-vit-l-14")])
def test_published_sizes_have_open_clips_tensors(published: str, preset: str) -> None:
    """On `meta`, from its own configuration."""
    said = json.loads(PUBLISHED.read_text())[published]
    config = coca.config_in(said["model_cfg"], published, ImageProcessing())
    assert config == presets()[preset]
    with torch.device("meta"):
        module = Coca(config)
    assert shapes(coca.table(config).export(module.state_dict())) == said["shapes"]


def test_a_texts_vector_depends_on_nothing_that_stands_beside_it() -> None:
    """Alone as in a batch, whatever its padding is written with; and by its own length, which tells whether padding is seen."""
    module = ours("odd").double()
    rows = [row for row in TEXTS if len(row) < CONTEXT - 1]
    whole = module.encode("text", pad(TEXTS, PAD))
    for row, vector in zip(TEXTS, whole, strict=True):
        close(module.encode("text", pad([row], PAD))[0], vector, 1e-12)
        close(module.encode("text", pad([row], 17, multiple=CONTEXT))[0], vector, 1e-12)
    assert len(rows) == 2
    with pytest.raises(UsageError, match="padded on the right only"):
        module.encode("text", Tokens(torch.tensor([[0, START, 60]]), torch.tensor([3]), torch.tensor([1])))


# ------------------------------------------------------------------------------------------------ directories


def vocabulary() -> dict[str, int]:
    """Of as many words as open_clip's, of which all but a few are never met."""
    few = [word for word in clip_tokenizer().get_vocab() if word not in (FIRST, LAST)]
    others = [f"<{number}>" for number in range(coca.VOCABULARY - 2 - len(few))]
    return {word: number for number, word in enumerate([*sorted(few), *others, FIRST, LAST])}


def described(place: Path, **changes: Any) -> Path:
    """What open_clip says of a CoCa."""
    shape = {name: {**part, **changes.get(name, {})} if isinstance(part, dict) else part for name, part in CONFIGS["odd"].items()}
    shape["text_cfg"]["vocab_size"] = coca.VOCABULARY
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (place / coca.FILE).write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": preprocess | changes.get("preprocess_cfg", {})}))
    return place


def directory(place: Path) -> Path:
    """A CoCa as open_clip publishes it, with the files of CLIP's tokenizer."""
    place.mkdir()
    described(place)
    (place / "vocab.json").write_text(json.dumps(vocabulary()))
    (place / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    with torch.device("meta"):
        words = {"text_cfg": {**CONFIGS["odd"]["text_cfg"], "vocab_size": coca.VOCABULARY}}
        config = coca.config_in({**CONFIGS["odd"], **words}, "", ImageProcessing())
        state = coca.table(config).export(Coca(config).state_dict())
    theirs = {key: torch.from_numpy(fill(key, tuple(value.shape))) for key, value in state.items()}
    torch.save(theirs, place / "open_clip_pytorch_model.bin")
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("coca") / "theirs")


def test_a_directory_is_read_and_written_back_bit_for_bit(tmp_path: Path, place: Path) -> None:
    checkpoint = hub.read(place)
    config = checkpoint.config
    assert config.kind == "coca" and (config.start, config.ends) == ((49406,), (49407,)) and not checkpoint.identity.verified
    assert checkpoint.processor.text is not None and checkpoint.processor.text.config.cleaning == "openai"
    hub.save(tmp_path / "ours", checkpoint.module, config, checkpoint.processor, format="transformers")
    theirs = torch.load(place / "open_clip_pytorch_model.bin", weights_only=True)
    written = hub.read(tmp_path / "ours")
    assert written.identity.verified and written.config == config
    back = load_file(tmp_path / "ours" / coca.WEIGHTS[0])
    assert sorted(back) == sorted(theirs) and all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    before, after = (json.loads((some / coca.FILE).read_text()) for some in (place, tmp_path / "ours"))
    assert after["preprocess_cfg"] == before["preprocess_cfg"]
    assert coca.config_in(after["model_cfg"], "", ImageProcessing()) == coca.config_in(before["model_cfg"], "", ImageProcessing())


def test_a_directory_embeds_and_says_what_pictures_show(place: Path) -> None:
    """By the same name for both: the words of a caption come back as text."""
    model = load(place, device="cpu")
    assert {"embed", "chat", "logprob"} <= set(model.can)
    pictures = [Image(array=np.asarray(picture(40, 33, seed))) for seed in range(2)]
    found = model.embed([*pictures, Text("a red bird")]).vectors
    assert found.shape == (3, 15) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    (answer,) = model.chat([[Message("user", (pictures[0],))]])
    assert answer.error is None and "</w>" not in answer.text


def test_words_end_in_a_blank() -> None:
    """As the library has them; with `</w>` in a text that is no end of a word."""
    library = clip_tokenizer()
    tokenizer = Tokenizer.clip(library.get_vocab(), [(a, b) for a, b in map(str.split, MERGES)], TextProcessing())
    for text in ("the red bird", "cat 一只 café.", "x</w>y", "a", ""):
        (mine,) = tokenizer.pieces([text])
        assert tokenizer.decode(mine) == library.decode(library(text)["input_ids"], skip_special_tokens=True)


def test_a_hubs_directory_without_config_json_is_a_model(tmp_path: Path) -> None:
    files = ["README.md", "open_clip_config.json", "open_clip_pytorch_model.bin", "vocab.json", "merges.txt"]
    assert sorted(wanted(files, "x")) == sorted(files[1:])
    assert directory_of(tmp_path) == tmp_path
    both = [*files, "open_clip_model.safetensors"]
    assert "open_clip_pytorch_model.bin" not in wanted(both, "x")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "poolers in a row": ({"vision_cfg": {"attentional_pool": "cascade"}}, "attentional_pool='cascade'"),
    "no pooler": ({"vision_cfg": {"attentional_pool": False}}, "attentional_pool=False"),
    "another text tower": ({"text_cfg": {"hf_model_name": "roberta-base", "hf_proj_type": "linear"}}, "hf_model_name='roberta-base'"),
    "a text tower without a class token": ({"text_cfg": {"embed_cls": False}}, "embed_cls=False"),
    "other widths": ({"multimodal_cfg": {"width": 20}}, "embed_dim 15, text_cfg.width 15, multimodal_cfg.width 20"),
    "a setting of a later version": ({"vision_cfg": {"rope": True}}, "vision_cfg: unknown: rope"),
    "heads that do not fit": ({"vision_cfg": {"head_width": 8}}, "heads of 8 do not divide width 21"),
    "pictures in a frame": ({"preprocess_cfg": {"resize_mode": "longest"}}, "resize_mode='longest'"),
    "pictures cut out of another shape": ({"preprocess_cfg": {"resize_mode": "shortest"}}, "only those that are squashed"),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_ours_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TongganError, match=said):
        hub.read(described(tmp_path, **changes))


def test_settings_that_change_nothing_are_read_over() -> None:
    """And the scale that a new model starts with is kept."""
    plain = CONFIGS["odd"]
    changed = {
        **plain,
        "init_logit_scale": 2.5,
        "text_cfg": {**plain["text_cfg"], "hf_tokenizer_name": "", "tokenizer_kwargs": {}, "eos_id": 9},
    }
    config = coca.config_in(changed, "", ImageProcessing())
    assert config == coca.config_in(plain, "", ImageProcessing()).model_copy(update={"scale_init": 2.5})
    assert coca.config_in(coca.config_out(config), "", ImageProcessing()) == config


def test_an_open_clip_that_is_no_coca_is_told(tmp_path: Path) -> None:
    (tmp_path / coca.FILE).write_text(json.dumps({"model_cfg": {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}}))
    with pytest.raises(TongganError, match="of open_clip only CoCa is read"):
        hub.read(tmp_path)
    with pytest.raises(UsageError, match="give one with every row"):
        ours("odd").read(Batch(("a",)))
    with pytest.raises(UsageError, match="does not read audio"):
        ours("odd").features("audio", None)
