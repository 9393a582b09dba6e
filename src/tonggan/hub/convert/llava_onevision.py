"""LLaVA-OneVision (Li et al. 2024) as Hugging Face publishes it (`LlavaOnevisionForConditionalGeneration`): LLaVA that reads pictures of
any resolution in tiles, and clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, cat

from tonggan.data.chat import ChatProcessing, TileProcessing
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.processor import Processor
from tonggan.data.text import Tokenizer
from tonggan.data.tiles import best_grid
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.hub.convert import llava
from tonggan.hub.convert.conversations import PROCESSOR as PROCESSOR_FILE
from tonggan.hub.convert.conversations import conversations_in, placeholder_in
from tonggan.hub.convert.fields import need
from tonggan.hub.convert.preprocessor import RESAMPLE, image_in, read_settings
from tonggan.hub.convert.table import KeyTable
from tonggan.hub.convert.tensors_in import only, tokens_in
from tonggan.hub.convert.tokenizer import read_tokenizer
from tonggan.hub.weights import read_json, write_json
from tonggan.models import Chat, ChatConfig, ModelConfig
from tonggan.models.projectors import TilesConfig
from tonggan.models.towers import Colour, ViTConfig
from tonggan.tensors import Batch, Frames, Pieces, Tiles, Tokens
from tonggan.types import TongganError, UsageError

MODEL_TYPES = ("llava_onevision",)
HEADS = ("LlavaOnevisionForConditionalGeneration",)
ASPECT = "anyres_max_"
"""What stands before the number of tiles of which a picture may keep the features."""


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    newline = {"image_newline": "tiles.newline", "model.image_newline": "tiles.newline"}
    return KeyTable("LLaVA-OneVision", {**llava.rules(config), **newline})


def config_in(raw: Mapping[str, Any], directory: Path, mean: Colour, std: Colour) -> ChatConfig:
    """Our configuration of their config.json; mean and deviation come from preprocessor_config.json."""
    where, given = str(directory / "config.json"), DEFAULTS | {name: value for name, value in raw.items() if value is not None}
    plain = llava.config_in(raw, directory, mean, std, DEFAULTS)
    assert isinstance(plain.image, ViTConfig) and isinstance(plain.image.image_size, int)
    aspect = given["vision_aspect_ratio"]
    if not aspect.startswith(ASPECT) or not aspect.removeprefix(ASPECT).isdecimal():
        raise TongganError(f"{where}: vision_aspect_ratio {aspect!r} is not supported; supported is {ASPECT} and a number")
    grids = grids_in(given["image_grid_pinpoints"], plain.image.image_size, where)
    added = {
        "tiles": TilesConfig(grids=grids, most=int(aspect.removeprefix(ASPECT))),
        "video_token": given.get("video_token_id", given["video_token_index"]),
    }
    return ChatConfig.model_validate(plain.model_dump() | added)


def grids_in(sizes: list[list[int]], side: int, where: str) -> tuple[tuple[int, int], ...]:
    """Rows and columns of tiles, of heights and widths in pixels."""
    if odd := [size for size in sizes if size[0] % side or size[1] % side]:
        raise TongganError(f"{where}: image_grid_pinpoints {odd[0]} are no whole number of tiles of {side} pixels, which the tower reads")
    return tuple((high // side, wide // side) for high, wide in sizes)


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    settings, where = read_settings(directory)
    kind = settings.get("image_processor_type", PROCESSOR)
    if kind.removesuffix("Fast").removesuffix("Pil") != PROCESSOR:
        raise TongganError(f"{where}: image_processor_type {kind!r} is not supported; supported is {PROCESSOR}")
    need(settings, {"do_pad": True}, where)
    rest = {name: value for name, value in settings.items() if name not in ("image_processor_type", "image_grid_pinpoints", "do_pad")}
    image = image_in({**PICTURES, **rest}, where, "Siglip")
    config = config_in(raw, directory, image.mean, image.std)
    assert config.tiles is not None and isinstance(image.size, int)
    grids = grids_in(settings.get("image_grid_pinpoints", DEFAULTS["image_grid_pinpoints"]), image.size, where)
    if grids != config.tiles.grids:
        raise TongganError(f"{where}: image_grid_pinpoints are not those of config.json; the model's are what it was trained with")
    text = read_tokenizer(directory, max_length=config.text.context, context=config.text.context, pad="<|endoftext|>", decoder=True)
    video = VideoProcessor(VideoProcessing(frames=_frames_in(directory, settings), sampling="uniform", image=image))
    return config, Processor(ImageProcessor(image), text, None, video).with_chat(chat_in(directory, config, text))


def chat_in(directory: Path, config: ChatConfig, text: Tokenizer) -> ChatProcessing | None:
    """How conversations are written out; None where the directory has no template. Raises `TongganError` where processor_config.json
    counts a tile's features otherwise."""
    assert isinstance(config.image, ViTConfig) and config.tiles is not None
    assert config.image_token is not None and config.video_token is not None
    side, file = config.image.grid[0], directory / PROCESSOR_FILE
    said = read_json(file) if file.is_file() else {}
    if (theirs := said.get("num_image_tokens") or side**2) != side**2:
        raise TongganError(f"{file}: num_image_tokens {theirs}, but the model of config.json has {side**2} features of a tile")
    return conversations_in(
        directory,
        text,
        ends=config.ends,
        context=config.text.context,
        image=placeholder_in(directory, text, config.image_token, side**2 + 1),
        video=placeholder_in(directory, text, config.video_token, 1, "video"),
        tiles=TileProcessing(grids=config.tiles.grids, most=config.tiles.most, side=side),
        framed=True,
    )


def _frames_in(directory: Path, pictures: Mapping[str, Any]) -> int:
    """How many frames of a clip are looked at; raises `TongganError` where they are prepared otherwise than pictures.

    As with pictures the newer processor_config.json counts before the file of their own.
    """
    file = directory / PROCESSOR_FILE
    found = read_json(file).get("video_processor") if file.is_file() else None
    if not isinstance(found, dict):
        file = directory / CLIPS_FILE
        found = read_json(file) if file.is_file() else {}
    said, whole = {name: value for name, value in found.items() if value is not None}, {**AS_PICTURES, **pictures}
    if other := [name for name in AS_PICTURES if name in said and whole[name] is not None and said[name] != whole[name]]:
        raise TongganError(f"{file}: {other[0]}={said[other[0]]!r} for clips, {whole[other[0]]!r} for pictures, is not supported")
    if said.get("do_sample_frames") and "fps" in said:
        raise TongganError(f"{file}: fps={said['fps']!r}: frames at a rate are not supported; give num_frames")
    return int(said.get("num_frames", FRAMES))


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json, preprocessor_config.json and the tokenizer's files."""
    assert isinstance(config, ChatConfig) and config.tiles is not None and processor.image is not None
    llava.write(directory, config, processor)
    side = processor.image.config.side
    assert isinstance(side, int)
    pinpoints = [[rows * side, columns * side] for rows, columns in config.tiles.grids]
    raw = read_json(directory / "config.json") | {
        "architectures": list(HEADS),
        "model_type": MODEL_TYPES[0],
        "video_token_index": config.video_token,
        "image_grid_pinpoints": pinpoints,
        "vision_aspect_ratio": f"{ASPECT}{config.tiles.most}",
    }
    write_json(directory / "config.json", {name: value for name, value in raw.items() if name != "image_seq_length"})
    settings = _pictures_out(processor.image.config)
    write_json(directory / "preprocessor_config.json", settings | {"image_grid_pinpoints": pinpoints})
    if processor.video is not None:
        named = {"video_processor_type": "LlavaOnevisionVideoProcessor", "num_frames": processor.video.config.frames}
        write_json(directory / CLIPS_FILE, {name: settings[name] for name in CLIPS} | named)
    chat = processor.chat
    if chat is not None and chat.config.image is not None and chat.config.video is not None and chat.config.tiles is not None:
        said = {
            "processor_class": "LlavaOnevisionProcessor",
            "image_token": chat.config.image.text,
            "video_token": chat.config.video.text,
            "num_image_tokens": chat.config.tiles.side**2,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": f"{ASPECT}{config.tiles.most}",
        }
        write_json(directory / PROCESSOR_FILE, said)


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, ChatConfig) or config.tiles is None or config.video_token is None:
        return "it does not read pictures of any resolution in tiles, and clips"
    plain = None if processor is None else Processor(processor.image, processor.text)
    reason = llava.misfit(config.model_copy(update={"tiles": None, "video_token": None}), plain)
    if reason is None and config.vocab_size > config.text.vocab_size:
        return f"its placeholder {config.video_token} is not among the {config.text.vocab_size} words of its decoder"
    if reason is None and processor is not None and processor.image is not None:
        return _processor_misfit(config, processor, processor.image.config)
    return reason


def _processor_misfit(config: ChatConfig, processor: Processor, pictures: ImageProcessing) -> str | None:
    if pictures.mode != "squash" or pictures.crop is not None:
        return "its pictures are not squeezed into a square"
    clips, chat = processor.video, processor.chat
    if clips is not None and (clips.config.image != pictures or clips.config.sampling != "uniform"):
        return "its clips are not pictures at even distances, prepared as others are"
    if chat is None:
        return None
    places, tiles = {kind: place.id for kind, place in chat.config.placeholders.items()}, chat.config.tiles
    if places != {"image": config.image_token, "video": config.video_token} or chat.ends != config.ends:
        return f"its conversations have other words for pictures, clips and ends of turns than the model ({places}, {chat.ends})"
    if tiles is None or config.tiles is None or (tiles.grids, tiles.most) != (config.tiles.grids, config.tiles.most):
        return "its conversations have pictures in other tiles than the model"
    return None


def outputs(module: Chat, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`logits` [B, L, V] and `last_hidden_state` [B, L, D] of `input_ids`, `attention_mask`; `pixel_values` [N, T, 3, H, W], tiles of the
    pictures of all rows in reading order, with `image_sizes` [N, 2] and, where pictures that share a row are whole, `batch_num_images`;
    `pixel_values_videos` [M, F, 3, H, W]. Whose they are, the placeholders tell."""
    only(inputs, INPUTS)
    tokens = tokens_in(inputs)
    pieces = [*_pictures(module, inputs), *_clips(inputs)]
    seen = None
    if pieces:
        pictures = _by_rows(module, tokens, pieces)
        seen = module.read(Batch(tuple(map(str, range(len(tokens.ids)))), tokens=tokens, pictures=pictures))
    states = module.say(tokens, seen)
    weight, _ = module.output
    return {"logits": states @ weight.T, "last_hidden_state": states}


def _pictures(module: Chat, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tiles | Frames]]:
    """Each picture's pieces, without those that fill the batch, and how it is cut."""
    config = module.config
    assert config.tiles is not None and isinstance(config.image, ViTConfig) and isinstance(config.image.image_size, int)
    pixels, sizes, counts = (inputs.get(name) for name in ("pixel_values", "image_sizes", "batch_num_images"))
    if pixels is None:
        return []
    if sizes is None:
        raise UsageError("pixel_values need image_sizes: they tell which of the tiles are padding")
    alone = [True] * len(sizes) if counts is None else [count == 1 for count in counts.tolist() for _ in range(count)]
    found: list[tuple[Tensor, Tiles | Frames]] = []
    for own, (height, width), cuts in zip(pixels, sizes.tolist(), alone, strict=True):
        cut = best_grid((height, width), config.tiles.grids, config.image.image_size) if cuts else Tiles(size=(height, width))
        found.append((own[: cut.pieces], cut))
    return found


def _clips(inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tiles | Frames]]:
    clips = inputs.get("pixel_values_videos")
    return [] if clips is None else [(clip, Frames(len(clip))) for clip in clips]


def _by_rows(module: Chat, tokens: Tokens, pieces: list[tuple[Tensor, Tiles | Frames]]) -> Pieces:
    """Pictures and clips under the rows whose placeholders they fill; raises `UsageError` where there are none for one of them."""
    pictures, clips = module.config.image_token, module.config.video_token
    assert module.tiles is not None and pictures is not None and clips is not None
    waiting = {kind: tokens.ids.eq(word).sum(dim=1).tolist() for kind, word in ((Tiles, pictures), (Frames, clips))}
    rows: list[list[tuple[Tensor, Tiles | Frames]]] = [[] for _ in tokens.ids]
    for own, cut in pieces:
        left, count = waiting[type(cut)], module.tiles.count(cut)
        row = next((row for row, some in enumerate(left) if some), None)
        if row is None or left[row] < count:
            rest = 0 if row is None else left[row]
            raise UsageError(f"{cut} has {count} features, but {rest} of its placeholders are left; give one placeholder for each")
        left[row] -= count
        rows[row].append((own, cut))
    values = cat([own for row in rows for own, _ in row])
    cuts = tuple(tuple(cut for _, cut in row) for row in rows)
    return Pieces(values, tuple(sum(cut.pieces for cut in row) for row in cuts), cuts)


def _pictures_out(config: ImageProcessing) -> dict[str, Any]:
    return {
        "image_processor_type": PROCESSOR,
        "do_resize": True,
        "size": {"height": config.side, "width": config.side},
        "resample": next(number for number, name in RESAMPLE.items() if name == config.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
        "do_pad": True,
    }


INPUTS = (
    "input_ids", "attention_mask", "pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos", "image_sizes_videos",
)  # fmt: skip
CLIPS_FILE = "video_preprocessor_config.json"
AS_PICTURES: Mapping[str, Any] = {
    **dict.fromkeys(("size", "image_mean", "image_std", "resample", "rescale_factor")),
    "do_normalize": True,
    "do_resize": True,
    "do_rescale": True,
    "do_center_crop": False,
}
"""What is done to a clip's frames, as to pictures: what these do when they do not say (None: no matter)."""
FRAMES = 8
"""Of a clip, where no file says how many: the library leaves that to whoever asks."""
CLIPS = (
    "do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip
PROCESSOR = "LlavaOnevisionImageProcessor"
PICTURES: dict[str, Any] = {
    "size": {"height": 384, "width": 384}, "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711), "do_center_crop": None,
}  # fmt: skip
"""Where the library's processor is not as SigLIP's where the file is silent."""
DEFAULTS: dict[str, Any] = llava.DEFAULTS | {
    "vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_token_index": 151646, "video_token_index": 151647,
    "vision_aspect_ratio": "anyres_max_9", "text_config": {"model_type": "qwen2"},
    "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14, "image_size": 384,
        "num_hidden_layers": 26, "num_attention_heads": 16, "vision_use_head": False,
    },
}  # fmt: skip
