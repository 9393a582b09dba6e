"""Idefics: outputs and gradients of the reference, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsProcessor
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

from hub.references import close, picture
from hub.references_sound_sight import shaken
from tonggan import hub
from tonggan.models import Flamingo, FlamingoConfig
from tonggan.nn.talking import words
from tonggan.tensors import Batch, Pieces, Tokens
from tonggan.types import Image, TongganError, UsageError

WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
IMAGE = len(WORDS) - 2
PUBLISHED: dict[str, Any] = {"additional_vocab_size": 3, "cross_layer_interval": 2, "qk_layer_norms": True, "use_resampler": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "without a resampler": {"use_resampler": False, "additional_vocab_size": 0, "vocab_size": 37, "cross_layer_interval": 1},
    "without norms of queries and keys": {"qk_layer_norms": False, "perceiver_config": {"qk_layer_norms_perceiver": False}},
    "gates by channel, tied words": {"alpha_type": "vector", "tie_word_embeddings": True, "cross_layer_interval": 4},
    "one head": {"num_attention_heads": 1, "hidden_act": "gelu", "vision_config": {"num_attention_heads": 1, "hidden_act": "relu"}},
}


def idefics(directory: Path, **settings: Any) -> Any:
    """Three heads of six, a tower of three heads of nine, a resampler of five heads of seven; the placeholder is an added word."""
    torch.manual_seed(0)
    vision = {"embed_dim": 27, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 34, "image_size": 20, "patch_size": 4}
    reader = {
        "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 5, "resampler_head_dim": 7, "qk_layer_norms_perceiver": True,
    }  # fmt: skip
    shape = {
        "vocab_size": len(WORDS) - 3, "hidden_size": 18, "intermediate_size": 31, "num_hidden_layers": 4, "num_attention_heads": 3,
        "max_position_embeddings": 40, "freeze_text_layers": False, "freeze_vision_layers": False, **PUBLISHED,
    }  # fmt: skip
    parts = {"vision_config": vision, "perceiver_config": reader}
    parts = {name: value | settings.pop(name, {}) for name, value in parts.items()}
    model = shaken(IdeficsForVisionText2Text(IdeficsConfig(**{**shape, **parts, **settings})))
    model.save_pretrained(directory)
    IdeficsImageProcessorPil(image_size=20).save_pretrained(directory)
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=40,
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": WORDS[-3:]})
    tokenizer.save_pretrained(directory)
    return model


def inputs(rows: int = 4, *, left: bool = False) -> dict[str, Tensor]:
    """Rows of 3, 1, 0 and 2 pictures, each word seeing the last before it, as the library's processor has it; the rest is padding."""
    texts = [[1, IMAGE, 5, 6, IMAGE, IMAGE, 7, 8, 9], [4, 7, IMAGE, 8, 9], [9, 8, 7], [IMAGE, IMAGE, 5]][:rows]
    length = max(map(len, texts))
    generator = torch.Generator().manual_seed(2)
    ids, mask = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length, dtype=torch.long)
    for row, text in enumerate(texts):
        at = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = torch.tensor(text), 1
    number = (ids == IMAGE).cumsum(dim=1)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(rows, 3, 3, 20, 20, generator=generator),
        "image_attention_mask": (number[:, :, None] == torch.arange(1, 4)).long(),
    }


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_outputs_and_gradients_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, given = idefics(tmp_path, **settings), inputs()
    if settings.get("additional_vocab_size") == 0:
        assert int(given["input_ids"].max()) < theirs.config.vocab_size
    module = hub.read(tmp_path).module
    ours, expected, seen = hub.outputs(module, given), theirs(**given), given["attention_mask"].bool()
    close(ours["logits"][seen], expected.logits[seen])
    close(ours["last_hidden_state"][seen], theirs.model(**given).last_hidden_state[seen])

    goal = torch.randn_like(expected.logits) * seen[:, :, None]
    (expected.logits * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = hub.gradients(module, given, lambda out: (out["logits"] * goal).sum())
    tied = {"lm_head.weight", "lm_head.additional_fc.weight"} if settings.get("tie_word_embeddings") else set()
    assert set(found) - tied == set(gradients) - tied
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith(("k_proj.bias", "k_layer_norm.bias")) else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_any_row_and_padding_on_either_side(tmp_path: Path, left: bool) -> None:
    """Also where a word sees any of the pictures, in no order."""
    theirs, module = idefics(tmp_path), hub.read(tmp_path).module
    given = inputs(left=left)
    wild = given | {"image_attention_mask": torch.randint(0, 2, (4, 9, 3), generator=torch.Generator().manual_seed(3))}
    for batch in (given, wild, {name: tensor[:1] for name, tensor in wild.items()}, {name: tensor[2:3] for name, tensor in given.items()}):
        seen = batch["attention_mask"].bool()
        with torch.no_grad():
            close(hub.outputs(module, batch)["logits"][seen], theirs(**batch).logits[seen])


def test_what_is_said_sees_what_the_library_would_let_it_see(tmp_path: Path) -> None:
    """`read` and `say` of pictures in any number are the reference's forward with its mask; a text alone too."""
    theirs, module = idefics(tmp_path), hub.read(tmp_path).module
    assert isinstance(module, Flamingo)
    given = inputs()
    counts = (3, 1, 0, 2)
    pixels = torch.cat([row[:count] for row, count in zip(given["pixel_values"], counts, strict=True)])
    tokens = Tokens(given["input_ids"], given["attention_mask"].sum(dim=1))
    with torch.no_grad():
        seen = module.read(Batch(("a", "b", "c", "d"), tokens=tokens, pictures=Pieces(pixels, counts)))
        ours = words(module, module.say(tokens, seen))
        there = given["attention_mask"].bool()
        close(ours[there], theirs(**given).logits[there])
        row = {name: tensor[2:3, :3] for name, tensor in given.items()}
        alone = Tokens(row["input_ids"], torch.tensor([3]))
        close(words(module, module.say(alone)), theirs(**row).logits)


def test_cached_steps_are_the_librarys_generation(tmp_path: Path) -> None:
    """Greedy, with three pictures and with one: token for token."""
    theirs, module = idefics(tmp_path).double(), hub.read(tmp_path).module.double()
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0)
    for row, pictures in ((0, 3), (1, 1)):
        given = {name: tensor[row : row + 1] for name, tensor in inputs().items()}
        length = int(given["attention_mask"].sum())
        given = {name: tensor if name == "pixel_values" else tensor[:, :length] for name, tensor in given.items()}
        expected = theirs.generate(**given, max_new_tokens=8, do_sample=False)
        ids, cache = given["input_ids"], module.cache(length + 8)
        with torch.no_grad():
            seen = module.read(Batch(("a",), pictures=Pieces(given["pixel_values"][0, :pictures].double(), (pictures,))))
            said = ids
            for _ in range(8):
                states = module.say(Tokens(said, torch.tensor([said.shape[1]])), seen, cache=cache)
                cache.advance([said.shape[1]])
                logits = words(module, states[:, -1])
                top = logits.topk(2).values[0]
                assert float(top[0] - top[1]) > 1e-8, "a tie would tell nothing"
                said = logits.argmax(dim=-1, keepdim=True)
                ids = torch.cat([ids, said], dim=1)
        assert ids.tolist() == expected.tolist()


def test_pictures_are_prepared_as_the_library_does(tmp_path: Path) -> None:
    idefics(tmp_path)
    shown = [picture(*size, seed=i) for i, size in enumerate([(61, 47), (30, 80), (20, 20)])]
    expected = IdeficsImageProcessorPil.from_pretrained(tmp_path)(shown, return_tensors="pt")
    checkpoint = hub.read(tmp_path)
    pixels = checkpoint.processor.pixels([Image(array=np.asarray(p)) for p in shown])
    assert isinstance(checkpoint.module, Flamingo)
    close(checkpoint.module.image.normalize(pixels), expected)
    older = {"image_processor_type": "IdeficsImageProcessor", "image_size": 20, "image_num_channels": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    assert hub.read(tmp_path).processor.settings() == checkpoint.processor.settings()


def processor_of(directory: Path) -> IdeficsProcessor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    return IdeficsProcessor(IdeficsImageProcessorPil.from_pretrained(directory), tokenizer)


def test_prompts_of_the_librarys_processor_are_read_alike(tmp_path: Path) -> None:
    """Words and pictures in turn, padded on the left; a directory of ours gives its processor the same."""
    theirs, checkpoint = idefics(tmp_path / "theirs"), hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor)
    prompts = [[" a b ", picture(), picture(30, 20), " c "], [picture(), " d ", " e "], [" f g "]]
    given, ours = (dict(processor_of(tmp_path / name)(text=prompts)) for name in ("theirs", "ours"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in given.items())
    assert not given["attention_mask"].all() and given["image_attention_mask"].sum(dim=(0, 1)).tolist() == [5, 3]
    seen = given["attention_mask"].bool()
    with torch.no_grad():
        close(hub.outputs(checkpoint.module, given)["logits"][seen], theirs(**given).logits[seen])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_saved_back_the_library_loads_the_same_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = idefics(tmp_path / "theirs", **settings)
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = IdeficsForVisionText2Text.from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    given = inputs()
    with torch.no_grad():
        assert torch.equal(again(**given).logits, theirs(**given).logits)
    back = hub.read(tmp_path / "ours")
    assert back.identity.verified and back.config == checkpoint.config
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer("<s> a <image> b", add_special_tokens=False).input_ids == [1, 3, IMAGE, 4]
    close(
        IdeficsImageProcessorPil.from_pretrained(tmp_path / "ours")([picture()], return_tensors="pt"),
        IdeficsImageProcessorPil.from_pretrained(tmp_path / "theirs")([picture()], return_tensors="pt"),
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gates of another kind": ({"alpha_type": "matrix"}, "alpha_type 'matrix' is not supported; supported are: float, vector"),
    "blocks that do not come out even": ({"cross_layer_interval": 3}, "cross_layer_interval 3 does not divide num_hidden_layers 4"),
    "other rotation": ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, "rotary positions of type 'yarn'"),
    "other activation": ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
    "fewer words": ({"additional_vocab_size": 1}, "image_token 30 is not among the 30 words; set added_words to 2"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, what: str) -> None:
    idefics(tmp_path)
    changes, message = REFUSED[what]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {"rope_parameters": None, "rope_theta": 50.0},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0}},
    ],
)
def test_rotation_and_ends_are_those_of_the_files(tmp_path: Path, said: dict[str, Any]) -> None:
    """In the names of any release, and back; what ends an answer generation_config.json says."""
    idefics(tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    (tmp_path / "theirs" / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5]}))
    checkpoint, given = hub.read(tmp_path / "theirs"), inputs()
    assert isinstance(checkpoint.config, FlamingoConfig) and checkpoint.config.ends == (2, 5)
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    seen = given["attention_mask"].bool()
    for place in ("theirs", "ours"):
        theirs = IdeficsForVisionText2Text.from_pretrained(tmp_path / place).eval()
        with torch.no_grad():
            close(hub.outputs(tmp_path / place, given)["logits"][seen], theirs(**given).logits[seen])


def test_a_changed_setting_is_seen_in_the_record(tmp_path: Path) -> None:
    idefics(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor)
    file = tmp_path / "ours" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 1e-5}))
    with pytest.raises(TongganError, match=r"text.*eps"):
        hub.read(tmp_path / "ours")


def test_a_flamingo_that_sees_all_pictures_is_saved_as_ours(tmp_path: Path) -> None:
    idefics(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    config = FlamingoConfig.model_validate(checkpoint.config.model_dump() | {"sees": "all"})
    with pytest.raises(TongganError, match="idefics: it reads clips, or its words see all pictures before them"):
        hub.save(tmp_path / "ours", checkpoint.module, config, checkpoint.processor, format="transformers")
    hub.save(tmp_path / "ours", checkpoint.module, config, checkpoint.processor)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "tonggan-flamingo"
    assert hub.read(tmp_path / "ours").config == config


def test_pixels_without_their_mask_are_refused(tmp_path: Path) -> None:
    idefics(tmp_path)
    given = inputs()
    del given["image_attention_mask"]
    with pytest.raises(UsageError, match="pixel_values and image_attention_mask are given together"):
        hub.outputs(tmp_path, given)
