"""ViLT directories: outputs and gradients of the reference, pictures of any shape, the whole way from file and string, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    ViltForImageAndTextRetrieval,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltModel,
    ViltProcessor,
)

from hub.references import TEXTS, close, picture
from hub.references_bert import wordpiece
from hub.references_fusion import vilt
from tonggan import hub
from tonggan.backends import load
from tonggan.backends.foreign import is_foreign
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.models import build, presets
from tonggan.models.base import Matcher, WordPredictor
from tonggan.types import Image, TongganError, UsageError

CLASSES = {"stream": ViltModel, "words": ViltForMaskedLM, "retrieval": ViltForImageAndTextRetrieval}
MASKS = {
    "one shape": None,
    "several shapes": [(12, 24), (8, 8), (24, 12)],
    "one fills all": [(24, 24), (4, 20), (12, 12)],
}


def inputs(size: tuple[int, int], shapes: list[tuple[int, int]] | None, *, left: bool = False, rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(6, 150, (rows, 7), generator=generator)
    lengths = torch.tensor([7, 4, 1])[:rows]
    mask = (torch.arange(7) < lengths[:, None]).long()
    given = {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}
    given["pixel_values"] = torch.randn(rows, 3, *size, generator=generator)
    if shapes is not None:
        given["pixel_mask"] = torch.zeros(rows, *size, dtype=torch.long)
        for row, (height, width) in enumerate(shapes[:rows]):
            given["pixel_mask"][row, :height, :width] = 1
    return given


def text_and_class(states: Tensor, given: dict[str, Tensor]) -> Tensor:
    """The states whose place the reference does not draw by lot: those of the tokens and of the class token."""
    own = torch.cat([given["attention_mask"], torch.ones(len(states), 1, dtype=torch.long)], dim=1).bool()
    return states[:, : own.shape[1]][own]


@pytest.mark.parametrize("shapes", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("kind", CLASSES)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, kind: str, shapes: Any) -> None:
    theirs = vilt(tmp_path, CLASSES[kind], **({"hidden_act": "relu", "modality_type_vocab_size": 3} if kind == "stream" else {}))
    given = inputs((12, 24) if shapes is None else (24, 24), shapes)
    checkpoint = hub.read(tmp_path)
    base = theirs if kind == "stream" else theirs.vilt
    expected, ours = base(**given), hub.outputs(checkpoint.module, given)
    close(ours["pooler_output"], expected.pooler_output)
    close(text_and_class(ours["last_hidden_state"], given), text_and_class(expected.last_hidden_state, given))
    seen = given["attention_mask"].bool()
    if kind == "stream":
        mine, reference = ours["pooler_output"], expected.pooler_output
    else:
        mine, reference = ours["logits"], theirs(**given).logits
        if kind == "words":
            mine, reference = mine[seen], reference[seen]
        close(mine, reference)

    goal = torch.randn_like(reference)
    (reference * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    name = "pooler_output" if kind == "stream" else "logits"
    found = hub.gradients(checkpoint.module, given, lambda out: ((out[name][seen] if kind == "words" else out[name]) * goal).sum())
    assert sorted(found) == sorted(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("key.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_a_batch_of_one_and_padding_on_either_side(tmp_path: Path, left: bool) -> None:
    theirs = vilt(tmp_path, ViltForImageAndTextRetrieval)
    module = hub.read(tmp_path).module
    for rows in (1, 3):
        given = inputs((20, 20), None, left=left, rows=rows)
        close(hub.outputs(module, given)["logits"], theirs(**given).logits)


def test_patches_are_the_references_in_another_order(tmp_path: Path) -> None:
    theirs, given = vilt(tmp_path, ViltModel), inputs((12, 24), None, rows=1)
    expected = theirs(**given).last_hidden_state[0, 8:]
    ours = hub.outputs(tmp_path, given)["last_hidden_state"][0, 8:]
    nearest = torch.cdist(ours, expected).argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(18))
    close(ours, expected[nearest])


def test_from_file_and_string(tmp_path: Path) -> None:
    """Pictures of four shapes with texts of different length, as one padded batch there and as they are here."""
    theirs = vilt(tmp_path, ViltForImageAndTextRetrieval)
    processor = ViltProcessor.from_pretrained(tmp_path, backend="pil")
    pictures = [picture(*size, seed=i) for i, size in enumerate([(61, 47), (30, 80), (24, 24), (300, 33), (64, 50)])]
    given = processor(images=pictures, text=TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert given["pixel_mask"].sum(dim=(1, 2)).unique().numel() > 1
    with torch.no_grad():
        expected = theirs(**given).logits[:, 0].sigmoid()
    model = load(tmp_path, device="cpu")
    assert model.can == {"match"}
    found = model.match([(Image(array=np.asarray(p)), text) for p, text in zip(pictures, TEXTS, strict=True)])
    close(torch.from_numpy(found), expected)


@pytest.mark.parametrize("kind", CLASSES)
def test_saved_back_transformers_loads_the_same_weights(tmp_path: Path, kind: str) -> None:
    theirs = vilt(tmp_path / "theirs", CLASSES[kind])
    checkpoint = hub.read(tmp_path / "theirs")
    assert isinstance(checkpoint.module, WordPredictor) == (kind == "words")
    assert isinstance(checkpoint.module, Matcher) == (kind == "retrieval")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = CLASSES[kind].from_pretrained(tmp_path / "ours")
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    same = ViltProcessor.from_pretrained(tmp_path / "ours", backend="pil")(images=picture(), text=TEXTS[:1], return_tensors="pt")
    for name, tensor in ViltProcessor.from_pretrained(tmp_path / "theirs", backend="pil")(
        images=picture(), text=TEXTS[:1], return_tensors="pt"
    ).items():
        assert torch.equal(same[name], tensor), name
    assert hub.read(tmp_path / "ours").identity.verified


def test_older_files_name_the_bias_otherwise(tmp_path: Path) -> None:
    vilt(tmp_path, ViltForMaskedLM)
    plain = hub.read(tmp_path).identity.weights
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    state["mlm_score.bias"] = state.pop("mlm_score.decoder.bias")
    state["mlm_score.decoder.weight"] = state["vilt.embeddings.text_embeddings.word_embeddings.weight"].clone()
    state["vilt.embeddings.text_embeddings.position_ids"] = torch.arange(40)[None]
    save_file(state, file, metadata={"format": "pt"})
    assert hub.read(tmp_path).identity.weights == plain


@pytest.mark.parametrize("name", ["mini-vlmo", "mini-vilt", "mini-albef", "mini-late"])
def test_what_has_no_published_format_is_saved_in_ours(tmp_path: Path, name: str) -> None:
    half = (0.5, 0.5, 0.5)
    wordpiece(tmp_path / "words")
    text = read_tokenizer(tmp_path / "words", max_length=None, context=40, pad="[PAD]")
    processor = Processor(ImageProcessor(ImageProcessing(mode="squash", size=64, mean=half, std=half)), text)
    config = presets()[name]
    module: Any = build(config).eval()
    hub.save(tmp_path / "saved", module, config, processor)
    again = load(tmp_path / "saved", device="cpu")
    assert again.identity.verified and again.can >= {"match"}
    pair = (Image(array=np.asarray(picture())), "a red bird")
    with torch.no_grad():
        expected = module.match(processor.pixels([pair[0]]), processor.tokens([pair[1]])).softmax(dim=1)[:, 1]
    assert torch.equal(torch.from_numpy(again.match([pair])), expected)
    with pytest.raises(TongganError, match="no published format has a place"):
        hub.save(tmp_path / "theirs", module, config, processor, format="transformers")


FLIPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("config.json", {"hidden_act": "quick_gelu"}, "activation"),
    "heads": ("config.json", {"num_attention_heads": 7}, "heads"),
    "multiple": ("preprocessor_config.json", {"size_divisor": 8}, "multiple: 8 != 4"),
    "resampling": ("preprocessor_config.json", {"resample": 2}, "interpolation.*'bilinear' != 'bicubic'"),
    "patches by lot": ("config.json", {"max_image_length": 9}, "max_image_length 9 is not supported"),
    "no padding": ("preprocessor_config.json", {"do_pad": False}, "do_center_crop"),
}


@pytest.mark.parametrize("what", FLIPS)
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, what: str) -> None:
    vilt(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor)
    name, change, message = FLIPS[what]
    file = tmp_path / "ours" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path / "ours")


def test_other_heads_are_left_to_transformers(tmp_path: Path) -> None:
    vilt(tmp_path, ViltForQuestionAnswering, num_labels=5)
    assert is_foreign(tmp_path)
    with pytest.raises(TongganError, match=r"of vilt only .*ViltForMaskedLM.* is supported, not ViltForQuestionAnswering"):
        hub.read(tmp_path)


def test_a_mask_of_another_size_names_both(tmp_path: Path) -> None:
    vilt(tmp_path)
    given = inputs((12, 24), None) | {"pixel_mask": torch.ones(3, 8, 8)}
    with pytest.raises(UsageError, match=r"\(8, 8\) pixels, pixel_values have \(12, 24\)"):
        hub.outputs(tmp_path, given)


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (300, 60), (60, 300), (20, 20), (33, 20), (799, 480)])
def test_pictures_keep_their_shape_as_the_reference_has_it(size: tuple[int, int]) -> None:
    from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

    expected = ViltImageProcessorPil(size={"shortest_edge": 48}, size_divisor=8, do_normalize=False, do_rescale=False)(
        picture(*size), return_tensors="np"
    )["pixel_values"][0]
    ours = ImageProcessor(ImageProcessing(mode="keep", size=48, multiple=8))(picture(*size))
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1


def test_of_very_thin_pictures_one_row_of_patches_stays() -> None:
    """The reference asks for a picture without pixels, and fails."""
    assert ImageProcessor(ImageProcessing(mode="keep", size=48, multiple=8))(picture(30, 1000)).shape == (3, 72, 8)


def test_shapes_that_are_kept_are_not_stacked() -> None:
    processor = Processor(ImageProcessor(ImageProcessing(mode="keep", size=48, multiple=8)))
    assert processor.pixels([picture(61, 47), picture(61, 47, 1)]).shape == (2, 3, 48, 56)
    with pytest.raises(UsageError, match=r"48 x 56 and 56 x 48 pixels cannot share a batch.*mode: squash"):
        processor.pixels([picture(61, 47), picture(47, 61)])
