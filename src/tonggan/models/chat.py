"""Chat models: what a tower makes of pictures and sounds stands among the words of a decoder (Liu et al. 2023, LLaVA, section 4.1).

Shape letters: B rows, L tokens, N pictures or sounds of a batch, P states or features of one, D width of the decoder,
S features of a batch, K kinds of placeholder, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.gpt import Decoder, DecoderConfig
from tonggan.models.projectors import MLPConfig, ProjectorConfig, TilesConfig, Tiling, build_projector, looked
from tonggan.models.streams import among_words, real
from tonggan.models.towers import AudioTowerConfig, ImageTowerConfig, Pixels, ViTConfig, build_audio, build_image
from tonggan.nn.cache import KVCache
from tonggan.nn.memo import Memo, seen_once
from tonggan.nn.talking import standing
from tonggan.tensors import Batch, Frames, Modality, Pieces, Sounds, Tiles, Tokens
from tonggan.types import UsageError


class ChatConfig(Config):
    """A decoder, and towers whose states are projected to where its words are."""

    kind: Literal["chat"] = "chat"
    image: ImageTowerConfig | None = None
    image_layers: tuple[int, ...] = Field(default=(-1,), min_length=1)
    """After which blocks of the tower its states are taken, side by side where there are several: 0 is what enters the first block, -1
    what leaves the last, without the norm behind it; LLaVA takes -2."""
    class_token: bool = False
    """Whether the class token's state is a feature as well."""
    image_projector: ProjectorConfig = Field(default_factory=MLPConfig)
    image_token: NonNegativeInt | None = None
    """The word that stands where a feature of a picture is to be. It need not be in the decoder's vocabulary."""
    audio: AudioTowerConfig | None = None
    audio_projector: ProjectorConfig = Field(default_factory=lambda: MLPConfig(stack=4))
    audio_token: NonNegativeInt | None = None
    """The same for sounds."""
    text: DecoderConfig
    tiles: TilesConfig | None = None
    """How pictures of any resolution are put together; None: each is one piece."""
    video_token: NonNegativeInt | None = None
    """The word that stands where a feature of a clip is to be, where clips are more than single pictures (with `tiles` only)."""
    ends: tuple[int, ...] = ()
    """Words that end what is said."""

    @property
    def vocab_size(self) -> int:
        """The decoder's words and the placeholders behind them."""
        return max([self.text.vocab_size, *(token + 1 for token in self.placeholders)])

    @property
    def placeholders(self) -> dict[int, str]:
        """The words that features stand for, and what these are of."""
        every = {"pictures": self.image_token, "clips": self.video_token, "sounds": self.audio_token}
        return {token: what for what, token in every.items() if token is not None}

    @model_validator(mode="after")
    def _fits(self) -> ChatConfig:
        among_words(self.text.vocab_size, ends=self.ends)
        for kind in ("image", "audio"):
            if (getattr(self, kind) is None) != (getattr(self, f"{kind}_token") is None):
                raise ValueError(f"{kind} and {kind}_token go together: a tower needs a word that stands where its features are to be")
        if isinstance(self.audio_projector, MLPConfig) and self.audio_projector.square > 1:
            raise ValueError("audio_projector.square is for pictures; sounds have stack")
        named = {name: token for name in ("image_token", "video_token", "audio_token") if (token := getattr(self, name)) is not None}
        if len(self.placeholders) < len(named):
            alike = " and ".join(name for name, token in named.items() if list(named.values()).count(token) > 1)
            raise ValueError(f"{alike} are the same word: the text must tell them apart")
        if self.tiles is None and self.video_token is not None:
            raise ValueError("video_token goes with tiles; without them frames are pictures")
        if self.tiles is not None:
            if not isinstance(self.image, ViTConfig) or not isinstance(self.image_projector, MLPConfig):
                raise ValueError("tiles need a ViT and a projector that leaves its patches where they are")
            several = self.image_projector.stack > 1 or self.image_projector.square > 1
            if self.class_token or several or len(set(self.image.grid)) > 1:
                raise ValueError("tiles are put together of square pictures' patches, each by itself: no class_token, no stack, no square")
        if isinstance(self.image, ViTConfig):
            if wrong := [layer for layer in self.image_layers if not -self.image.layers - 1 <= layer <= self.image.layers]:
                raise ValueError(f"image_layers {wrong[0]}: the tower has {self.image.layers} blocks")
        elif self.image_layers != (-1,):
            raise ValueError("image_layers are those of a ViT; leave them out for another tower")
        if self.class_token and not (isinstance(self.image, ViTConfig) and self.image.pooling == "class"):
            raise ValueError("class_token: the tower has none")
        return self


@dataclass(frozen=True, slots=True)
class Features:
    """What is to stand at one kind of placeholder: all features of a batch, and which are each row's."""

    token: int
    values: Float[Tensor, "S D"]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    """Row i has the `counts[i]` features from `starts[i]` on, in reading order."""


@dataclass(frozen=True, slots=True)
class Sights:
    """What is kept of a batch's pictures and sounds (`nn.talking.Seen`). Rows share features, so that choosing rows copies none."""

    kinds: tuple[Features, ...]

    def select(self, rows: Sequence[int]) -> Sights:
        """Of these rows, in this order; a row may come more than once."""
        return Sights(
            tuple(
                replace(one, starts=tuple(one.starts[row] for row in rows), counts=tuple(one.counts[row] for row in rows))
                for one in self.kinds
            )
        )

    def join(self, others: Sequence[Sights]) -> Sights:
        """Of these rows and those of others; each row's own features are copied, and no others."""
        some = [self, *others]
        tokens = dict.fromkeys(kind.token for one in some for kind in one.kinds)
        return Sights(tuple(_of_rows(token, [row for one in some for row in one.rows(token)]) for token in tokens))

    def rows(self, token: int) -> list[list[Float[Tensor, "P D"]]]:
        """What each row has of one kind."""
        if (kind := next((kind for kind in self.kinds if kind.token == token), None)) is None:
            return [[] for _ in self.kinds[0].counts]
        return [[kind.values[start : start + count]] for start, count in zip(kind.starts, kind.counts, strict=True)]


class Chat(nn.Module):
    """Says words after texts with pictures, frames of clips and sounds among them."""

    reads_prompt = False

    def __init__(self, config: ChatConfig) -> None:
        super().__init__()
        self.config, self.context = config, config.text.context
        width = config.text.width
        self.image = self.image_projector = self.audio = self.audio_projector = None
        self.memo: Memo | None = None
        """Keeps what the tower makes of pictures, while it is frozen and others learn."""
        modalities: set[Modality] = {"text"}
        if config.image is not None:
            self.image = build_image(config.image)
            self.image_projector = build_projector(config.image_projector, self.image.width * len(config.image_layers), width)
            modalities.add("image")
        if config.audio is not None:
            self.audio = build_audio(config.audio)
            self.audio_projector = build_projector(config.audio_projector, self.audio.width, width)
            modalities.add("audio")
        self.tiles = None
        if config.tiles is not None and isinstance(config.image, ViTConfig):
            self.tiles = Tiling(config.tiles, config.image.grid[0], width)
        self.text = Decoder(config.text)
        self.modalities: frozenset[Modality] = frozenset(modalities)

    def read(self, batch: Batch) -> Sights | None:
        """Features of `batch.pictures`, uint8 [N, 3, H, W], any number per row (frames of a clip are pictures), and of `batch.sounds`,
        any number per row as well; None where no row has anything.

        Raises `UsageError` for a batch whose text has other than its number of placeholders, naming the row and both numbers.
        """
        kinds: list[Features] = []
        if batch.pictures is not None and len(batch.pictures.values):
            kinds += self._seen(batch.pictures)
        if batch.sounds is not None and len(batch.sounds.values):
            counts = batch.sounds.counts or (1,) * len(batch.sounds.values)
            per_sound = iter(self.sounds(batch.sounds))
            kinds.append(_of_rows(self.config.audio_token, [[next(per_sound) for _ in range(count)] for count in counts]))
        seen = Sights(tuple(kinds)) if kinds else None
        if batch.tokens is not None:
            self._check(self._marks(batch.tokens).sum(dim=2), seen, whole=True)
        return seen

    def pictures(self, pixels: Pixels) -> list[Float[Tensor, "P D"]]:
        """Features of each picture."""
        if self.image is None or self.image_projector is None:
            raise UsageError("this model looks at no pictures; give it none, or take one with `image` in its configuration")
        tower, config = self.image, self.config
        states = seen_once(self.memo, lambda some: looked(tower, some, config.image_layers, config.class_token), pixels)
        found: list[Tensor] = self.image_projector(states)
        return found

    def _seen(self, pictures: Pieces) -> list[Features]:
        """Features of pictures, and of clips where these have a placeholder of their own."""
        pieces = iter(self.pictures(pictures.values))
        if self.tiles is None:
            if pictures.cuts is not None:
                raise UsageError("pictures in tiles; this model reads each in one piece, having no `tiles` in its configuration")
            return [_of_rows(self.config.image_token, [[next(pieces) for _ in range(count)] for count in pictures.counts])]
        cuts = pictures.cuts or tuple((Tiles(),) * count for count in pictures.counts)
        if wrong := [row for row, of_row in enumerate(cuts) if sum(cut.pieces for cut in of_row) != pictures.counts[row]]:
            pieces_of = sum(cut.pieces for cut in cuts[wrong[0]])
            raise UsageError(f"row {wrong[0]}: {pictures.counts[wrong[0]]} pieces, but its pictures and clips are cut into {pieces_of}")
        whole: dict[type, list[list[Tensor]]] = {Tiles: [], Frames: []}
        for of_row in cuts:
            for kind in whole.values():
                kind.append([])
            for cut in of_row:
                whole[type(cut)][-1].append(self.tiles(torch.stack([next(pieces) for _ in range(cut.pieces)]), cut))
        tokens = {Tiles: self.config.image_token, Frames: self.config.video_token}
        return [_of_rows(tokens[kind], rows) for kind, rows in whole.items() if any(rows)]

    def sounds(self, sounds: Sounds) -> list[Float[Tensor, "P D"]]:
        """Features of each sound; longer ones have more, but where queries read them."""
        if self.audio is None or self.audio_projector is None:
            raise UsageError("this model hears no sounds; give it none, or take one with `audio` in its configuration")
        heard = self.audio.tokens(sounds)
        found: list[Tensor] = self.audio_projector(heard.states, lengths=heard.lengths)
        return found

    def say(self, tokens: Tokens, seen: Sights | None = None, *, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """States of the tokens, each of which tells the next word. At placeholders stand a row's features in reading order.

        Raises `UsageError` naming the row where there are other than its number of placeholders; a chunk of a cache may lack some yet.
        """
        mask, positions = standing(tokens, cache, packs=True, places=self.text.places)
        return self.text(self.embed(tokens, seen, cache), mask=mask, positions=positions, cache=cache)

    def embed(self, tokens: Tokens, seen: Sights | None, cache: KVCache | None = None) -> Float[Tensor, "B L D"]:
        """What the decoder reads: words, and features at their placeholders."""
        ids = tokens.ids
        x = self.text.embed(ids.clamp(max=self.config.text.vocab_size - 1))
        if not self.config.placeholders:
            return x
        marks = self._marks(tokens)
        numbers = self._numbers(marks, cache)
        # A single token that goes on may be the model's own word: behind the last feature a placeholder is a word like others.
        if cache is None or not cache.most or ids.shape[1] > 1:
            self._check(numbers.amax(dim=2), seen, whole=cache is None)
        for one in () if seen is None else seen.kinds:
            kind = list(self.config.placeholders).index(one.token)
            counts, starts = (torch.tensor(some, device=ids.device)[:, None] for some in (one.counts, one.starts))
            here = marks[:, kind] & (numbers[:, kind] <= counts)
            place = torch.where(here, starts + numbers[:, kind] - 1, 0)
            x = torch.where(here[:, :, None], one.values[place].to(x.dtype), x)
        return x

    @property
    def output(self) -> tuple[Float[Tensor, "V D"], None]:
        """The map to words."""
        return self.text.output

    def cache(self, room: int) -> KVCache:
        """An empty cache, with one layer more than the decoder has: where the placeholders stood."""
        return KVCache(self.config.text.layers + 1, room)

    def _marks(self, tokens: Tokens) -> Bool[Tensor, "B K L"]:
        """Where each kind of placeholder stands."""
        kinds = torch.tensor(list(self.config.placeholders), dtype=tokens.ids.dtype, device=tokens.ids.device)
        return (tokens.ids[:, None] == kinds[:, None]) & real(tokens)[:, None]

    def _numbers(self, marks: Bool[Tensor, "B K L"], cache: KVCache | None) -> Int[Tensor, "B K L"]:
        """How many of its kind each row has had up to each token. Where they stood is kept behind the layers of the cache."""
        if cache is None:
            return marks.cumsum(dim=2)
        rows, kinds, new = marks.shape
        one_wide = marks[..., None].float()
        marked, _ = cache.layers[-1].extend(one_wide, one_wide)
        at = cache.positions(rows, new, marks.device)[:, None].expand(-1, kinds, -1)
        return marked[..., 0].long().cumsum(dim=2).gather(2, at)

    def _check(self, found: Int[Tensor, "B K"], seen: Sights | None, *, whole: bool) -> None:
        """Raise `UsageError` for a row with other than its number of placeholders, or with more where it is not the whole text."""
        there = {} if seen is None else {one.token: one.counts for one in seen.kinds}
        for row, of_row in enumerate(found.tolist()):
            for (token, what), placeholders in zip(self.config.placeholders.items(), of_row, strict=True):
                features = there[token][row] if token in there else 0
                if placeholders > features or (whole and placeholders < features):
                    raise UsageError(
                        f"row {row}: {placeholders} placeholders (id {token}) in the text, but {features} features of its {what}; "
                        "give one placeholder for each"
                    )


def _of_rows(token: int | None, rows: Sequence[Sequence[Tensor]]) -> Features:
    """Features of what each row has, in reading order."""
    assert token is not None, "a tower comes with its placeholder"
    counts = tuple(sum(map(len, row)) for row in rows)
    starts = tuple(sum(counts[:row]) for row in range(len(rows)))
    return Features(token, torch.cat([one for row in rows for one in row]), starts, counts)
