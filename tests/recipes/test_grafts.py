"""Systems that have no whole tower of a kind start from one all the same: what was taken computes what it did."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from hub import references_pairs as references
from hub.references import close, picture, save_clip, tiny_clip
from hub.references_bert import byte_level, wordpiece
from tonggan import hub
from tonggan.models import GPT, ChatConfig, DualEncoder, FlamingoConfig, GPTConfig, build, presets
from tonggan.models.gpt import DecoderConfig
from tonggan.recipes.adapt import adapt_config
from tonggan.recipes.begin import Parts, begin
from tonggan.recipes.config import ModelSource
from tonggan.recipes.grafts import Tower, fill, fitted
from tonggan.types import TongganError, UsageError

CAPTIONS = ["a red bird", "一只红色的小鸟", "two cats"]
BOTH = frozenset({"image", "text"})
SHAPE = {"hidden_size": 21, "intermediate_size": 31, "num_hidden_layers": 3, "num_attention_heads": 3}
STREAM = {"kind": "single_stream", "image": {}, "text": {}}
VLMO = {"kind": "vlmo", "image": {}, "text": {}, "fused_layers": 1, "dim": 5}
CROSSED = {"kind": "co_attention", "image": {"kind": "vit"}, "text": {"cross_from": 1}, "dim": 5}
CLIPS = {
    "kind": "dual_encoder", "dim": 5, "text": {"kind": "recurrent"},
    "video": {"kind": "frames", "image": {"kind": "vit"}, "frames": 3},
}  # fmt: skip


def start_of(shape: dict[str, Any], needs: frozenset[Any] = BOTH, /, clips: Any = None, **towers: Path) -> Parts:
    torch.manual_seed(0)
    named = {kind: str(where) for kind, where in towers.items()}
    words = {} if "text" in towers else {"vocab_size": 320}
    parts = begin(ModelSource.parse({"config": shape, "towers": named, "clips": clips or {}, **words}), CAPTIONS, needs)
    parts.module.eval()
    return parts


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT (three blocks of width 21, pictures of 24 pixels), a BERT of that width and a narrower RoBERTa, and others that do not fit."""
    here = tmp_path_factory.mktemp("towers")
    references.save(here / "vit", references.vit(image_size=24, patch_size=8), size={"height": 24, "width": 24})
    references.save(here / "oblong", references.vit(classes=3))
    references.save(here / "net", references.efficientnet())
    save_clip(here / "clip", tiny_clip())
    vocab = len(wordpiece(here / "bert"))
    bert = BertModel(BertConfig(vocab_size=vocab, max_position_embeddings=40, **SHAPE))
    references.shaken(bert).save_pretrained(here / "bert")
    return here


def pixels_of(parts: Parts) -> Tensor:
    return parts.processor.pixels([picture(), picture(30, 80, 1)])


@torch.no_grad()
def test_the_picture_route_of_vlmo_is_the_vit(where: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parts = start_of(VLMO, image=where / "vit")
    assert "a vlmo has no use for these parts of" in caplog.text and caplog.text.strip().endswith(": pooler")
    model: Any = parts.module
    pixels = pixels_of(parts)
    vit: Any = hub.read(where / "vit").module.image
    close(model.features("image", pixels), vit.post_norm(vit.tokens(pixels).states[:, 0]))
    assert parts.config.order == "pre" and model.config.layers == 3  # type: ignore[union-attr]
    tokens = parts.processor.tokens(CAPTIONS[:2])
    assert model.match(pixels, tokens).shape == (2, 2) and model.encode("text", tokens).shape == (2, 5)


@torch.no_grad()
@pytest.mark.parametrize("shape", [VLMO, STREAM])
def test_one_transformer_takes_the_blocks_of_a_vit_and_the_words_of_a_bert(where: Path, shape: dict[str, Any], tmp_path: Path) -> None:
    parts = start_of(shape, image=where / "vit", text=where / "bert")
    model: Any = parts.module
    bert, tokens = hub.read(where / "bert"), parts.processor.tokens(CAPTIONS)
    assert torch.equal(tokens.ids, bert.processor.tokens(CAPTIONS).ids)
    close(model.text(tokens), bert.module.text.embed(tokens), 1e-6)  # type: ignore[operator, union-attr]
    assert model.match(pixels_of(parts), parts.processor.tokens(CAPTIONS[:2])).shape == (2, 2)
    hub.save(tmp_path / "saved", parts.module, parts.config, parts.processor, format="tonggan")
    assert hub.read(tmp_path / "saved").identity.verified


@torch.no_grad()
def test_the_stream_of_vilt_is_the_vit(where: Path) -> None:
    parts = start_of(STREAM, image=where / "vit")
    model: Any = parts.module
    pixels = pixels_of(parts)
    vit: Any = hub.read(where / "vit").module.image
    states, _ = model.image(pixels)
    close(model.norm(model.transformer(states)), vit.post_norm(vit.tokens(pixels).states))


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 1, 2])
def test_co_attention_takes_a_vit_and_all_of_a_bert(where: Path, first: int) -> None:
    """A text alone is read by the blocks before the first that looks at pictures, or by all where every one does."""
    parts = start_of({**CROSSED, "text": {"cross_from": first}}, image=where / "vit", text=where / "bert")
    model: Any = parts.module
    pixels, tokens = pixels_of(parts), parts.processor.tokens(CAPTIONS)
    vit: Any = hub.read(where / "vit").module.image
    close(model.pictures(pixels), vit.post_norm(vit.tokens(pixels).states))
    theirs = BertModel.from_pretrained(where / "bert")
    own = torch.arange(tokens.ids.shape[1]) < tokens.lengths[:, None]
    states = theirs(input_ids=tokens.ids, attention_mask=own.long(), output_hidden_states=True).hidden_states[first or 3]
    close(model.texts(tokens)[own], states[own])
    assert model.match(pixels, parts.processor.tokens(CAPTIONS[:2])).shape == (2, 2)


@torch.no_grad()
def test_positions_of_roberta_begin_behind_those_of_its_padding(where: Path) -> None:
    vocab = len(byte_level(where / "roberta"))
    config = RobertaConfig(vocab_size=vocab, max_position_embeddings=42, pad_token_id=1, type_vocab_size=1, **SHAPE)
    references.shaken(RobertaModel(config)).save_pretrained(where / "roberta")
    parts = start_of({**CROSSED, "text": {"cross_from": 0}}, image=where / "vit", text=where / "roberta")
    whole: Any = hub.read(where / "roberta")
    tokens = parts.processor.tokens(CAPTIONS)
    own = torch.arange(tokens.ids.shape[1]) < tokens.lengths[:, None]
    model: Any = parts.module
    close(model.texts(tokens)[own], whole.module.text.tokens(tokens).states[own])
    assert parts.config.text.context == 40  # type: ignore[union-attr]


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "net"])
def test_frames_are_seen_by_a_picture_tower(where: Path, family: str) -> None:
    parts = start_of(CLIPS, frozenset({"video", "text"}), video=where / family)
    whole: Any = hub.read(where / family)
    shown = [picture(), picture(30, 80, 1)]
    pixels = whole.processor.pixels(shown)
    assert parts.processor.video is not None
    config = parts.processor.video.config
    assert config.frames == 3 and config.image == whole.processor.image.config
    model: Any = parts.module
    close(model.features("video", pixels[None]), whole.module.image(pixels).mean(dim=0, keepdim=True), 1e-6)


def test_frames_of_another_size_stretch_positions_on_request_only(where: Path) -> None:
    with pytest.raises(UsageError, match=r"positions for 3 x 3 patches .* model\.clips\.image asks for 5 x 5 \(40 x 40 pixels\)"):
        start_of(CLIPS, frozenset({"video", "text"}), clips={"image": {"size": 40}}, video=where / "vit")
    parts = start_of(CLIPS, frozenset({"video", "text"}), clips={"image": {"size": 65}}, video=where / "net")
    assert parts.config.video.image.image_size == 65  # type: ignore[union-attr]


def test_what_cannot_be_put_in_is_refused_with_a_reason(where: Path) -> None:
    narrow = where / "narrow"
    vocab = len(wordpiece(narrow))
    references.shaken(BertModel(BertConfig(vocab_size=vocab, max_position_embeddings=40, **{**SHAPE, "hidden_size": 15}))).save_pretrained(
        narrow
    )
    cases = (
        (VLMO, {"image": "net"}, r"a vlmo starts from a ViT .*net cannot be put in: its tower is of kind efficientnet"),
        (VLMO, {"image": "clip"}, "it has a norm before its first block"),
        (STREAM, {"image": "oblong"}, r"its pictures are not square, \(16, 24\)"),
        (STREAM, {"text": "clip"}, "a single_stream starts from a BERT or RoBERTa; .*its tower is of kind transformer"),
        (CROSSED, {"text": "clip"}, "a co_attention starts from a BERT or RoBERTa"),
        (CROSSED, {"image": "net"}, "its tower is of kind efficientnet. Two-tower and late-fusion shapes take any tower"),
        ({**CROSSED, "text": {"cross_from": 6}}, {"text": "bert"}, r"has 3 blocks, .*from block 6 on .*set .*cross_from below 3"),
        (STREAM, {"image": "vit", "text": "narrow"}, "width is 21 in .*vit and 15 in .*narrow"),
        (VLMO, {"audio": "vit"}, "has no such tower"),
    )
    for shape, towers, message in cases:
        with pytest.raises(TongganError, match=message):
            start_of(shape, **{kind: where / name for kind, name in towers.items()})


def test_training_is_as_the_recipe_says_and_the_rest_is_the_towers(where: Path) -> None:
    """What acts in training alone is no measure of a tower: it stays, also where a system has no such tower whole."""
    late = {"kind": "late_fusion", "image": {"kind": "vit", "patch_keep": 0.5, "dropout": 0.1}, "text": {"kind": "bert", "dropout": 0.2}}
    parts: Any = start_of(late, image=where / "vit", text=where / "bert")
    assert (parts.config.image.patch_keep, parts.config.image.dropout, parts.config.text.dropout) == (0.5, 0.1, 0.2)
    assert (parts.config.image.image_size, parts.config.image.width, parts.config.text.layers) == (24, 21, 3)
    assert parts.module.image.config.patch_keep == 0.5

    net: Any = start_of({**late, "image": {"kind": "efficientnet", "norm_momentum": 0.1}}, image=where / "net")
    assert net.config.image.norm_momentum == 0.1 != hub.read(where / "net").config.image.norm_momentum  # type: ignore[union-attr]
    momenta = {part.momentum for part in net.module.image.modules() if isinstance(part, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}

    crossed = {**CROSSED, "image": {"kind": "vit", "patch_keep": 0.7}, "text": {"cross_from": 1, "dropout": 0.3}}
    parts = start_of(crossed, image=where / "vit", text=where / "bert")
    assert (parts.config.image.patch_keep, parts.config.text.dropout, parts.config.text.layers) == (0.7, 0.3, 3)
    frames = {**CLIPS["video"], "dropout": 0.4, "image": {"kind": "vit", "dropout": 0.1}}  # type: ignore[dict-item]
    parts = start_of({**CLIPS, "video": frames}, frozenset({"video", "text"}), video=where / "vit")
    assert (parts.config.video.dropout, parts.config.video.image.dropout, parts.config.video.image.width) == (0.4, 0.1, 21)
    parts = start_of({**STREAM, "dropout": 0.2}, image=where / "vit")
    assert (parts.config.dropout, parts.config.width) == (0.2, 21)


def test_measures_that_are_not_the_towers_are_refused_with_both_numbers(where: Path) -> None:
    late = {"kind": "late_fusion", "text": {"kind": "bert"}}
    clips = {**CLIPS, "video": {**CLIPS["video"], "image": {"kind": "vit", "width": 22}}}  # type: ignore[dict-item]
    cases: tuple[tuple[dict[str, Any], str, str, str], ...] = (
        (
            {**late, "image": {"kind": "vit", "image_size": 64}},
            "image",
            "vit",
            r"image\.image_size is 64, the tower's is 24\. .* model\.pictures",
        ),
        (
            {**late, "image": {"kind": "vit", "patch_keep": 0.5}},
            "image",
            "net",
            r"image\.patch_keep is 0\.5, and the tower has no such setting",
        ),
        ({**late, "image": {"kind": "vit"}, "text": {"kind": "bert", "layers": 6}}, "text", "bert", r"text\.layers is 6, the tower's is 3"),
        ({**CROSSED, "text": {"cross_from": 1, "eps": 1e-3}}, "text", "bert", r"text\.eps is 0\.001, the tower's is 1e-12"),
        ({**CROSSED, "image": {"kind": "vit", "heads": 7}}, "image", "vit", r"image\.heads is 7, the tower's is 3"),
        (clips, "video", "vit", r"video\.image\.width is 22, the tower's is 21"),
        ({**VLMO, "order": "post"}, "image", "vit", r"model\.config\.order is 'post', but 'pre' is what the tower needs"),
        ({**STREAM, "width": 12}, "text", "bert", r"model\.config\.width is 12, but 21"),
        ({**STREAM, "image": {"patch_size": 16}}, "image", "vit", r"image\.patch_size is 16, the tower's is 8"),
    )
    for shape, kind, name, message in cases:
        with pytest.raises(UsageError, match=rf"model\.towers\.{kind}: .*{name} comes with its measures.*{message}"):
            start_of(shape, frozenset(), **{kind: where / name})
    agreed = start_of({**late, "image": {"kind": "vit", "image_size": 24, "width": 21}}, image=where / "vit")
    assert agreed.config.image.image_size == 24  # type: ignore[union-attr]


def test_a_recipe_with_towers_is_the_same_when_it_is_written_down_and_read_again(where: Path) -> None:
    late = {"kind": "late_fusion", "image": {"kind": "vit", "dropout": 0.1}, "text": {"kind": "bert"}}
    source = ModelSource.parse({"config": late, "towers": {"image": str(where / "vit")}, "vocab_size": 320})
    again = ModelSource.parse(yaml.safe_load(source.to_yaml()))
    assert again == source
    assert begin(again, CAPTIONS, BOTH).config == begin(source, CAPTIONS, BOTH).config
    alone = ModelSource(config=presets()["mini-late"])
    assert yaml.safe_load(alone.to_yaml())["config"] == alone.config.model_dump(mode="json"), "without towers the shape is whole"  # type: ignore[union-attr]


def test_from_says_how_a_model_that_is_not_two_towers_goes_on(where: Path, tmp_path: Path) -> None:
    parts = start_of(STREAM, image=where / "vit")
    hub.save(tmp_path / "saved", parts.module, parts.config, parts.processor, format="tonggan")
    with pytest.raises(UsageError, match=r"this is a single_stream, which goes on by a recipe .*model: \{start: .*saved\}"):
        adapt_config(str(tmp_path / "saved"), "scenes", tmp_path / "run")


@pytest.mark.parametrize("name", ["mini-chat", "mini-flamingo"])
def test_a_siglip_tower_and_a_qwen_decoder_become_one_that_talks(name: str) -> None:
    """Whole, under its names; the placeholder goes on standing behind the words, of which there are more now."""
    torch.manual_seed(0)
    pictures, words = build(presets()["mini-siglip"]), GPT(GPTConfig(text=DecoderConfig(vocab_size=5001, width=96, heads=3, qkv_bias=True)))
    assert isinstance(pictures, DualEncoder) and pictures.image is not None
    towers: dict[Any, Tower] = {
        "image": Tower("siglip", pictures.image.config, pictures.image.state_dict(), None),
        "text": Tower("qwen", words.text.config, words.text.state_dict(), None),
    }
    shape = fitted(presets()[name], towers, written=False)
    assert isinstance(shape, ChatConfig | FlamingoConfig) and shape.image_token == 5001 and shape.vocab_size == 5002
    module = build(shape)
    fill(module, shape, towers)
    state = module.state_dict()
    for kind, tower in towers.items():
        assert all(torch.equal(state[f"{kind}.{key}"], value) for key, value in tower.state.items())
