"""LLaVA-OneVision: pictures of any resolution, several to a row, clips; outputs and gradients of the reference, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from hub.references import close, picture
from hub.references_sound_sight import shaken
from hub.test_llava import TEMPLATE, TEXT, VISION, in_memory, tokenizer
from tonggan import hub
from tonggan.data.tiles import TileProcessor, best_grid
from tonggan.generate import Sampling, generate
from tonggan.models import Chat, ChatConfig, build, presets
from tonggan.nn.talking import words
from tonggan.tensors import Batch, Frames, Pieces, Tiles, Tokens
from tonggan.types import Image, Message, Text, TongganError, UsageError, Video

IMAGE, VIDEO, SIDE = 30, 31, 3
GRIDS = [[12, 12], [12, 24], [24, 12], [24, 36], [36, 24]]
"""In pixels: tiles of 12, three patches high and wide."""
SIZES = [(30, 41), (50, 11), (12, 12), (20, 20), (9, 31)]


def onevision(directory: Path, **settings: Any) -> Any:
    """SigLIP's tower without a head, of three heads of nine; a decoder of three heads of six that share one of keys and values."""
    torch.manual_seed(0)
    shape = {"image_token_index": IMAGE, "video_token_index": VIDEO, "image_grid_pinpoints": GRIDS, "vision_aspect_ratio": "anyres_max_2"}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(vision_use_head=False, **VISION),
        text_config=Qwen2Config(**{**TEXT, "max_position_embeddings": 300}),
        **{**shape, **settings},
    )
    model = shaken(LlavaOnevisionForConditionalGeneration(config))
    model.save_pretrained(directory)
    pictures().save_pretrained(directory)
    saved = tokenizer()
    saved.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    saved.save_pretrained(directory)
    return model


def pictures() -> Any:
    return LlavaOnevisionImageProcessorPil(size={"height": 12, "width": 12}, image_grid_pinpoints=GRIDS)


def counts_of(sizes: list[tuple[int, int]], most: int = 2) -> list[int]:
    """How many placeholders the library's processor gives pictures of these heights and widths."""
    counter = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    counter.image_processor, counter.num_image_tokens, counter.vision_aspect_ratio = pictures(), SIDE**2, f"anyres_max_{most}"
    return [counter._get_number_of_features(height, width, 12, 12) for height, width in sizes]


def inputs(*, left: bool = False, most: int = 2) -> dict[str, Tensor]:
    """Five pictures of their own shapes, each alone in a row but for the third and fourth, and a clip of three frames behind the last."""
    generator = torch.Generator().manual_seed(2)
    tall, wide, _, _, thin = counts_of(SIZES, most)
    each, clip = SIDE**2 + 1, 3 * 2 * 2 + 1
    texts = [
        [1, *[IMAGE] * tall, 5, 6],
        [*[IMAGE] * wide, 9, 8, 7, 4],
        [4, 7, *[IMAGE] * each, 8, *[IMAGE] * each, 9],
        [11, 12, 13],
        [3, *[IMAGE] * thin, 5, *[VIDEO] * clip, 6],
    ]
    length = max(map(len, texts))
    ids, mask = torch.full((5, length), 3), torch.zeros(5, length, dtype=torch.long)
    for row, text in enumerate(texts):
        at = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = torch.tensor(text), 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(5, 7, 3, 12, 12, generator=generator),
        "image_sizes": torch.tensor(SIZES),
        "batch_num_images": torch.tensor([1, 1, 2, 1]),
        "pixel_values_videos": torch.randn(1, 3, 3, 12, 12, generator=generator),
    }


@pytest.mark.parametrize("most", [1, 2, 9])
def test_outputs_and_gradients_of_onevision_are_those_of_transformers(tmp_path: Path, most: int) -> None:
    """With features of tiles brought to as many as one tile, two, and nine have: of all, of some, and of none of the pictures."""
    theirs, given = onevision(tmp_path, vision_aspect_ratio=f"anyres_max_{most}"), inputs(most=most)
    module = hub.read(tmp_path).module
    ours, expected, there = hub.outputs(module, given), theirs(**given), given["attention_mask"].bool()
    close(ours["logits"][there], expected.logits[there])
    close(ours["last_hidden_state"][there], theirs.model(**given).last_hidden_state[there])

    goal = torch.randn_like(expected.logits) * there[:, :, None]
    (expected.logits * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = {in_memory(name): g for name, g in hub.gradients(module, given, lambda out: (out["logits"] * goal).sum()).items()}
    assert set(found) == set(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        scale = 0.1 * largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_any_row_of_onevision_and_padding_on_either_side(tmp_path: Path, left: bool) -> None:
    """Each row by itself too; several pictures to a row are cut where nothing says how many there are, as in the library."""
    theirs, module = onevision(tmp_path), hub.read(tmp_path).module
    given = inputs(left=left)
    rows: list[dict[str, Any]] = [given]
    for row, (start, stop, clips) in enumerate([(0, 1, 0), (1, 2, 0), (2, 4, 0), (4, 4, 0), (4, 5, 1)]):
        one = {name: given[name][row : row + 1] for name in ("input_ids", "attention_mask")}
        if stop > start:
            one |= {"pixel_values": given["pixel_values"][start:stop], "image_sizes": given["image_sizes"][start:stop]}
            one |= {"batch_num_images": torch.tensor([stop - start])}
        rows.append(one | ({"pixel_values_videos": given["pixel_values_videos"]} if clips else {}))
    cut = dict(rows[3])
    third, fourth = counts_of(SIZES[2:4])
    cut["input_ids"] = torch.tensor([[4, *[IMAGE] * third, 8, *[IMAGE] * fourth, 9]])
    cut["attention_mask"] = torch.ones_like(cut["input_ids"])
    del cut["batch_num_images"]
    for batch in (*rows, cut):
        there = batch["attention_mask"].bool()
        with torch.no_grad():
            close(hub.outputs(module, batch)["logits"][there], theirs(**batch).logits[there])


def test_pictures_for_onevision_are_cut_as_the_library_does(tmp_path: Path) -> None:
    """Wide, tall, square and thin ones, cut when alone; with margins when among others."""
    onevision(tmp_path)
    checkpoint = hub.read(tmp_path)
    config, module = checkpoint.config, checkpoint.module
    assert isinstance(config, ChatConfig) and config.tiles is not None and isinstance(module, Chat) and module.image is not None
    assert checkpoint.processor.image is not None and module.tiles is not None
    cutter = TileProcessor(checkpoint.processor.image, config.tiles.grids)
    for i, (height, width) in enumerate([*SIZES, (47, 61), (80, 30)]):
        shown = picture(width, height, seed=i)
        expected = pictures()([[shown]], return_tensors="pt")
        pieces, cut = cutter(Image(array=np.asarray(shown)))
        close(module.image.normalize(torch.from_numpy(pieces)), expected["pixel_values"][0])
        assert cut.size == (height, width)
        assert module.tiles.count(cut) == counts_of([(height, width)])[0]
        expected = pictures()([[shown, shown]], return_tensors="pt")
        pieces, cut = cutter.among_others(Image(array=np.asarray(shown)))
        close(module.image.normalize(torch.from_numpy(pieces)), expected["pixel_values"][0])
        assert cut == Tiles(size=(height, width))


def test_the_grid_is_that_of_the_library() -> None:
    from transformers.image_processing_utils import select_best_resolution

    grids = tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7))
    pixels = [[384 * rows, 384 * columns] for rows, columns in grids]
    generator = torch.Generator().manual_seed(0)
    for height, width in (torch.rand(300, 2, generator=generator) * 3000 + 1).int().tolist():
        cut = best_grid((height, width), grids, 384)
        assert [384 * cut.rows, 384 * cut.columns] == list(select_best_resolution((height, width), pixels)), (height, width)


@torch.no_grad()
def test_cached_chunks_of_onevision_are_the_whole(tmp_path: Path) -> None:
    """Pictures and a clip, in chunks that begin in their midst; rows chosen in between."""
    onevision(tmp_path)
    module, given = hub.read(tmp_path).module.double(), inputs()
    assert isinstance(module, Chat)
    cuts: tuple[tuple[Tiles | Frames, ...], ...] = ((), (best_grid(SIZES[4], [(h // 12, w // 12) for h, w in GRIDS], 12), Frames(3)))
    clip = given["pixel_values_videos"][0]
    values = torch.cat([given["pixel_values"][4][: cuts[1][0].pieces], clip]).double()
    ids = given["input_ids"][3:]
    lengths = given["attention_mask"][3:].sum(dim=1)
    tokens = Tokens(ids, lengths)
    seen = module.read(Batch(("a", "b"), tokens=tokens, pictures=Pieces(values, (0, len(values)), cuts)))
    assert seen is not None
    whole = words(module, module.say(tokens, seen))
    length = int(lengths[1])
    cache, chosen, states = module.cache(length), seen.select([1]), []
    for start, stop in ((0, 5), (5, 6), (6, 20), (20, length)):
        states.append(module.say(Tokens(ids[1:, start:stop], torch.tensor([stop - start])), chosen, cache=cache))
        cache.advance([stop - start])
    assert torch.allclose(words(module, torch.cat(states, dim=1)), whole[1:, :length], atol=1e-12)


@pytest.mark.parametrize("beams", [1, 4])
def test_what_onevision_says_is_what_the_library_generates(tmp_path: Path, beams: int) -> None:
    """A row of words, and one with a tiled picture and a clip, together here and each alone there; in double precision."""
    theirs, module, given = onevision(tmp_path).double(), hub.read(tmp_path).module.double(), inputs()
    theirs.generation_config.update(eos_token_id=None, pad_token_id=3)
    assert isinstance(module, Chat)
    cut = best_grid(SIZES[4], [(h // 12, w // 12) for h, w in GRIDS], 12)
    values = torch.cat([given["pixel_values"][4][: cut.pieces], given["pixel_values_videos"][0]]).double()
    lengths = given["attention_mask"][3:].sum(dim=1)
    pictures = Pieces(values, (0, len(values)), ((), (cut, Frames(3))))
    batch = Batch(("a", "b"), tokens=Tokens(given["input_ids"][3:], lengths), pictures=pictures)
    found = generate(module, batch, [Sampling(max_tokens=8, beams=beams)] * 2, ends=())
    seen = {"pixel_values": given["pixel_values"][4:].double(), "image_sizes": given["image_sizes"][4:]}
    seen |= {"pixel_values_videos": given["pixel_values_videos"].double()}
    for row, more in ((0, {}), (1, seen)):
        ids = given["input_ids"][3 + row : 4 + row, : int(lengths[row])]
        said = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, num_beams=beams, **more
        )
        assert list(found[row][0].ids) == said[0, ids.shape[1] :].tolist()
    assert len(set(found[1][0].ids)) > 2, "words that do not change would tell nothing"


def test_onevision_saved_back_the_library_loads_the_same_weights(tmp_path: Path) -> None:
    theirs = onevision(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with torch.no_grad():
        assert torch.equal(again(**inputs()).logits, theirs(**inputs()).logits)
    back = hub.read(tmp_path / "ours")
    assert back.identity.verified and back.config == checkpoint.config
    ours = LlavaOnevisionImageProcessorPil.from_pretrained(tmp_path / "ours")([[picture()]], return_tensors="pt")
    assert torch.equal(ours["pixel_values"], pictures()([[picture()]], return_tensors="pt")["pixel_values"])


def test_conversations_of_onevision_have_the_placeholders_of_the_models_features(tmp_path: Path) -> None:
    """One picture, two, and a clip: as many ids as the library counts, and as the model makes features; saved back, the same."""
    onevision(tmp_path / "theirs")
    (tmp_path / "theirs" / "chat_template.jinja").write_text(
        TEMPLATE.replace("'<image>\\n'", "' <image> '").replace(
            "{% for content in message['content'] | selectattr('type', 'equalto', 'text')",
            "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ ' <video> ' }}{% endfor %}"
            "{% for content in message['content'] | selectattr('type', 'equalto', 'text')",
        )
    )
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    shown = [Image(array=np.asarray(picture(width, height))) for height, width in SIZES[:2]]
    clip = Video(array=np.random.default_rng(0).integers(0, 256, (11, 20, 30, 3), dtype=np.uint8), fps=5.0)
    for found in (checkpoint, hub.read(tmp_path / "ours")):
        chat, module = found.processor.chat, found.module
        assert chat is not None and isinstance(module, Chat)
        asked = [(shown[0], Text("a")), (*shown, Text("b")), (clip, Text("c")), (shown[1], clip, Text("d"))]
        batch = chat.collate([chat.prompt([Message("user", parts)]) for parts in asked])
        assert batch.tokens is not None
        one, two, each, eight = *counts_of(SIZES[:2]), SIDE**2 + 1, 8 * 2 * 2 + 1
        assert (batch.tokens.ids == IMAGE).sum(dim=1).tolist() == [one, 2 * each, 0, two]
        assert (batch.tokens.ids == VIDEO).sum(dim=1).tolist() == [0, 0, eight, eight]
        assert module.read(batch) is not None
    assert hub.read(tmp_path / "ours").processor.record() == checkpoint.processor.record()


def test_clips_are_prepared_as_their_settings_say_or_refused(tmp_path: Path) -> None:
    """The newer processor_config.json counts before the file of their own, as in the library."""
    onevision(tmp_path)
    older, newer = tmp_path / "video_preprocessor_config.json", tmp_path / "processor_config.json"

    def frames() -> int:
        video = hub.read(tmp_path).processor.video
        assert video is not None
        return video.config.frames

    assert frames() == 8
    older.write_text(json.dumps({"num_frames": 4, "do_normalize": True, "size": {"height": 12, "width": 12}}))
    assert frames() == 4
    newer.write_text(json.dumps({"video_processor": {"num_frames": 32, "do_sample_frames": False, "fps": 2}}))
    assert frames() == 32
    for wrong in ({"do_normalize": False}, {"size": {"height": 10, "width": 10}}, {"fps": 2, "do_sample_frames": True}):
        newer.write_text(json.dumps({"video_processor": wrong}))
        with pytest.raises(TongganError, match=rf"processor_config\.json: {next(iter(wrong))}=.* not supported"):
            hub.read(tmp_path)


def test_parts_of_onevision_that_do_not_say_what_they_are(tmp_path: Path) -> None:
    """SigLIP's and Qwen2's; grids that are null are the published ones."""
    onevision(tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    for part in ("vision_config", "text_config"):
        del said[part]["model_type"]
    file.write_text(json.dumps(said))
    theirs, given = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path).eval(), inputs()
    there = given["attention_mask"].bool()
    with torch.no_grad():
        close(hub.outputs(tmp_path, given)["logits"][there], theirs(**given).logits[there])
    file.write_text(json.dumps(said | {"image_grid_pinpoints": None}))
    with pytest.raises(TongganError, match=r"image_grid_pinpoints are not those of config\.json"):
        hub.read(tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tiles of another size": ({"image_grid_pinpoints": [[12, 20]]}, r"\[12, 20\] are no whole number of tiles of 12 pixels"),
    "another processor": ({"image_grid_pinpoints": GRIDS[:2]}, "image_grid_pinpoints are not those of config.json"),
    "another way to keep the shape": ({"vision_aspect_ratio": "square"}, "vision_aspect_ratio 'square' is not supported"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_onevision_has_that_is_not_supported_is_refused_by_name(tmp_path: Path, what: str) -> None:
    onevision(tmp_path)
    changes, message = REFUSED[what]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path)


def test_pieces_and_placeholders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    onevision(tmp_path)
    module, given = hub.read(tmp_path).module, inputs()
    assert isinstance(module, Chat)
    given["input_ids"][0, 1] = 4
    with pytest.raises(UsageError, match=r"features, but .* of its placeholders are left; give one placeholder for each"):
        hub.outputs(module, given)
    with pytest.raises(UsageError, match="row 1: 2 pieces, but its pictures and clips are cut into 3"):
        module.read(Batch(("a", "b"), pictures=Pieces(given["pixel_values"][0, :3], (1, 2), ((Tiles(),), (Frames(3),)))))
    whole = build(presets()["mini-chat"])
    assert isinstance(whole, Chat)
    with pytest.raises(UsageError, match="pictures in tiles; this model reads each in one piece"):
        whole.read(Batch(("a",), pictures=Pieces(torch.zeros(3, 3, 64, 64, dtype=torch.uint8), (3,), ((Frames(3),),))))
