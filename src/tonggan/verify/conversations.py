"""What chat models are compared on: conversations with pictures and clips among the words, as our processor and the library's write them.

Shape letters: N pictures, M clips, T tiles or frames, H W pixels.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image
import torch
from torch import Tensor, nn

from tonggan.data.chat import ChatProcessor
from tonggan.data.processor import Processor
from tonggan.data.video import load_frames
from tonggan.hub.convert.conversations import OLDER, TEMPLATE
from tonggan.hub.families import family_of
from tonggan.hub.read import Checkpoint
from tonggan.hub.weights import read_json
from tonggan.tensors import Frames, Pieces, Tiles
from tonggan.types import Image, Message, Part, Text, TongganError, Video

Conversation: TypeAlias = tuple[Message, ...]

LONGEST = 32
"""Letters of what is said in one go: how texts over the maximum length are cut is no matter of conversations, which are refused."""
PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<' + part['type'] + '>' }} {% endfor %}{% endfor %}"
)
"""Of a directory without a template. It cannot begin with a start token, so tokenizers that put one first do."""
NO_TEMPLATE = "its files have no chat template: both sides wrote pictures and words one after the other"


def with_template(checkpoint: Checkpoint, directory: Path) -> Processor:
    """The processor of a model whose directory has no template, as it would be read with a plain one."""
    with tempfile.TemporaryDirectory() as place:
        for file in directory.iterdir():
            if file.suffix in (".json", ".txt", ".model") and file.name != OLDER:
                (Path(place) / file.name).symlink_to(file.absolute())
        (Path(place) / TEMPLATE).write_text(PLAIN, "utf-8")
        raw = read_json(directory / "config.json")
        _, made = family_of(raw, str(directory)).read(raw, Path(place))
    assert made.chat is not None, "it has a template now"
    return checkpoint.processor.with_chat(made.chat.config)


def of(texts: Sequence[str], images: Sequence[Path], clips: Sequence[Path]) -> tuple[Conversation, ...]:
    """One for each picture: with one, with two and an answer between, with none, with one behind the words; clips in every other."""
    said = [text[:LONGEST].strip() for text in texts]
    found = []
    for i, picture in enumerate(images):
        own, before = Image.open(picture), Image.open(images[i - 1])
        words, more = Text(said[i]), Text(said[i - 1])
        clip: tuple[Part, ...] = (Video.open(clips[i]),) if clips and i % 2 else ()
        ways: tuple[Conversation, ...] = (
            (Message("user", (own, words)),),
            (Message("user", (words, own, before)), Message("assistant", (more,)), Message("user", (*clip, Text("？")))),
            (Message("user", (words,)),),
            (Message("user", (words, *clip, own)),),
        )
        found.append(ways[i % len(ways)])
    return tuple(found)


def named(chat: ChatProcessor, given: Sequence[Conversation], dtype: torch.dtype) -> dict[str, Tensor]:
    """What our processor makes of conversations, under the names and in the form of the reference's forward."""
    batch = chat.collate([chat.prompt(one, id=f"conversation {i}") for i, one in enumerate(given, 1)])
    assert batch.tokens is not None
    places = torch.arange(batch.tokens.ids.shape[1])
    found = {"input_ids": batch.tokens.ids, "attention_mask": (places < batch.tokens.lengths[:, None]).long()}
    if batch.pictures is None or chat.image is None:
        return found
    # The arithmetic of `nn.patches.Normalize`, which keeps mean and deviation in single precision.
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (chat.image.config.mean, chat.image.config.std))
    pictures = replace(batch.pictures, values=(batch.pictures.values.to(dtype) / 255 - mean) / std)
    return found | ({"pixel_values": pictures.values} if pictures.cuts is None else _cut(pictures))


def _cut(pictures: Pieces) -> dict[str, Tensor]:
    """Pictures in tiles [N, T, 3, H, W], those with fewer filled with zeros, the sizes they came with, how many each row has that has
    any; and clips [M, T, 3, H, W]."""
    assert pictures.cuts is not None
    every = [cut for row in pictures.cuts for cut in row]
    parts = list(zip(every, torch.split(pictures.values, [cut.pieces for cut in every]), strict=True))
    tiles, clips = ([(cut, own) for cut, own in parts if isinstance(cut, kind)] for kind in (Tiles, Frames))
    found: dict[str, Tensor] = {}
    if tiles:
        found["pixel_values"] = together([own for _, own in tiles])
        found["image_sizes"] = torch.tensor([cut.size for cut, _ in tiles if isinstance(cut, Tiles)])
        counts = [sum(isinstance(cut, Tiles) for cut in row) for row in pictures.cuts]
        found["batch_num_images"] = torch.tensor([count for count in counts if count])
    if clips:
        found["pixel_values_videos"] = torch.stack([own for _, own in clips])
    return found


def together(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures of unequal numbers of tiles [T, 3, H, W] as one tensor [N, T, 3, H, W], zeros behind the last of each."""
    most = max(map(len, pictures))
    return torch.stack([torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])]) for own in pictures])


class LibrarysProcessor:
    """The library's processor of a model's conversations, of the directory's own files.

    What these leave unsaid is the model's. Of clips it reads each frame as its processor of pictures makes one small: the one of clips
    needs torchvision, whose resizing is not Pillow's.
    """

    def __init__(self, directory: Path, model: nn.Module, pictures: Any, tokenizer: Any) -> None:
        import transformers
        from transformers.models.auto import processing_auto

        config: Any = model.config
        named: Mapping[str, str] = getattr(processing_auto, "PROCESSOR_MAPPING_NAMES")  # noqa: B009 - not in its types
        kind = getattr(transformers, named[config.model_type])
        # The library would have each part be of a class of its own.
        made: Any = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda *_: None})
        settings, _ = made.get_processor_dict(directory, local_files_only=True)
        vision = config.vision_config
        unsaid = {
            "patch_size": vision.patch_size,
            "num_image_tokens": (vision.image_size // vision.patch_size) ** 2,
            "num_additional_image_tokens": int(vision.model_type == "clip_vision_model"),
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
            "vision_aspect_ratio": getattr(config, "vision_aspect_ratio", None),
            "chat_template": tokenizer.chat_template or PLAIN,
        }
        settings |= {name: value for name, value in unsaid.items() if settings.get(name) is None}
        parts = {"image_processor": pictures, "tokenizer": tokenizer, "video_processor": _Frames(pictures)}
        known = inspect.signature(kind.__init__).parameters
        self._made = made(**{name: value for name, value in {**settings, **parts}.items() if name in known})

    def __call__(self, given: Sequence[Conversation], chat: ChatProcessor) -> dict[str, Tensor]:
        """Conversations as a batch that is padded on the right. Ours says only whether the template takes parts or strings, and which
        frames of a clip are looked at: this is the caller's matter there."""
        rows = [self._row(one, chat) for one in given]
        found: dict[str, Tensor] = {}
        for name, fill in (("input_ids", self._made.tokenizer.pad_token_id), ("attention_mask", 0)):
            found[name] = nn.utils.rnn.pad_sequence([row[name][0] for row in rows], batch_first=True, padding_value=fill)
        for name in ("pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos"):
            of_rows = [row[name] for row in rows if name in row]
            if name == "pixel_values" and of_rows and of_rows[0].dim() == 5:
                found[name] = together([own for some in of_rows for own in some])
            elif of_rows:
                found[name] = torch.cat(of_rows)
        return found

    def _row(self, conversation: Conversation, chat: ChatProcessor) -> dict[str, Tensor]:
        images, clips, plain = [], [], []
        for message in conversation:
            content: list[dict[str, str]] = []
            for part in message.parts:
                content.append({"type": part.kind, "text": part.text} if isinstance(part, Text) else {"type": part.kind})
                if isinstance(part, Image):
                    assert part.path is not None, "they were written as files"
                    images.append(PIL.Image.open(part.path).convert("RGB"))
                elif isinstance(part, Video):
                    assert chat.video is not None, "it has a placeholder for clips"
                    clips.append(list(load_frames(part, chat.video.config.frames, chat.video.config.sampling)))
            plain.append({"role": message.role, "content": content if chat.template.takes_parts else self._joined(content)})
        try:
            text = self._made.apply_chat_template(plain, add_generation_prompt=True)
            start = self._made.tokenizer.bos_token
            settings = {"add_special_tokens": False} if start is not None and text.startswith(start) else {}
            media = ({"images": [images]} if images else {}) | ({"videos": clips} if clips else {})
            found: dict[str, Tensor] = self._made(text=[text], return_tensors="pt", **media, **settings)
        except Exception as error:  # templates and the library raise whatever they do
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TongganError(f"the library's {type(self._made).__name__} refuses a conversation: {reason}") from None
        return found

    def _joined(self, content: Sequence[dict[str, str]]) -> str:
        """For templates that take strings: as LLaVA's first users wrote them."""
        return "".join(part.get("text", f"{getattr(self._made, part['type'] + '_token', '')}\n") for part in content)


class _Frames:
    """In place of the library's processor of clips."""

    model_input_names = ("pixel_values_videos",)

    def __init__(self, pictures: Any) -> None:
        self._pictures = pictures

    def __call__(self, videos: Sequence[Sequence[Any]], **_: Any) -> dict[str, Tensor]:
        clips = [torch.stack([self._pictures([[frame]], return_tensors="pt")["pixel_values"][0][0] for frame in clip]) for clip in videos]
        return {"pixel_values_videos": torch.stack(clips)}
