"""VLMo (Bao et al. 2022): one Transformer that reads pictures, texts, or both, with feed-forward experts by modality.

Self-attention and norms are shared; of each block's feed-forwards a token takes the one of its modality, and in the upper blocks a
picture with its text takes a third (sections 3.1 and 3.2). So the same weights are a dual encoder (pictures and texts apart) and a fusion
encoder (together). Norms are shared as in the paper's equations; the authors' code gives each expert a norm of its own.

Staged pre-training (section 3.3) freezes by names: in `transformer.blocks.*`, `attention`, `norm[12]` and `scale[12]` are shared, as is
`norm` after them; `feed_forward.image`, `.text` and `.fused` are the experts, `image` and `text` the embeddings. What was learnt from
pictures is kept while text is learnt with all those frozen but the text's own.

Shape letters: B rows, L tokens, N places, P patches, T positions, D width, E dim of the common space, V words, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from tonggan.config import Config
from tonggan.models.streams import PatchesConfig, PictureStem, WordEmbed, WordsConfig, init_reader, real, seen
from tonggan.models.towers import Pixels
from tonggan.nn.activations import Activation
from tonggan.nn.attention import Attention
from tonggan.nn.experts import FUSED, Experts, Route
from tonggan.nn.transformer import Block, FeedForward, LayerScale, Transformer
from tonggan.nn.words import WordHead
from tonggan.tensors import Modality, Tokens
from tonggan.types import UsageError


class VLMoConfig(Config):
    """Sizes are those of VLMo-Base (section 4.1)."""

    kind: Literal["vlmo"] = "vlmo"
    image: PatchesConfig = PatchesConfig()
    text: WordsConfig = WordsConfig()
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    fused_layers: NonNegativeInt = 2
    """So many of the upper blocks have a third expert, for a picture with its text. 0: none, and together each keeps its own."""
    activation: Activation = "gelu"
    order: Literal["pre", "post"] = "pre"
    """Where norms stand: before each branch, and once at the end (the paper's), or after each sum (BERT's)."""
    eps: float = 1e-6
    layer_scale: float | None = None
    """Start of a learned factor per channel on both branches, as the authors' code has it (0.1 base, 1e-5 large); None: without."""
    dropout: float = 0.0
    dim: PositiveInt = 768
    scale_init: float = math.log(1 / 0.07)
    max_scale: float = 100.0
    classes: PositiveInt | None = None
    """Of pictures, for learning from labels before there is any text; None: no classifier."""

    @model_validator(mode="after")
    def _has_so_many(self) -> VLMoConfig:
        if self.fused_layers > self.layers:
            raise ValueError(f"fused_layers {self.fused_layers} of {self.layers} layers; set it to {self.layers} at most, or more layers")
        return self


class SquarePictures(PictureStem):
    """Pictures of the one size that the table of positions is for."""

    def forward(self, pixels: Pixels) -> Float[Tensor, "B T D"]:
        """Class token and patches in row-major order; another size raises `ValueError`."""
        if pixels.shape[2:] != torch.Size((self.side, self.side)):
            raise ValueError(f"pictures of {tuple(pixels.shape[2:])} pixels; this model reads {self.side} x {self.side}")
        return self.join(self.cut(pixels) + self.positions.weight[1:])


class VLMo(nn.Module):
    """Features, unit vectors, words, matches and classes out of one Transformer."""

    bias = None
    """The contrastive objective has none."""

    def __init__(self, config: VLMoConfig) -> None:
        super().__init__()
        width, eps = config.width, config.eps
        self.config, self.dim, self.max_scale, self.classes = config, config.dim, config.max_scale, config.classes
        self.modalities: frozenset[Modality] = frozenset({"image", "text"})
        self.image = SquarePictures(config.image, width, dropout=config.dropout)
        self.text = WordEmbed(config.text, width, eps=eps, dropout=config.dropout)
        self.kinds = nn.ParameterDict({kind: torch.zeros(width) for kind in ("text", "image")})
        lower = config.layers - config.fused_layers
        self.transformer = Transformer([_block(config, fused=number >= lower) for number in range(config.layers)])
        self.norm = nn.LayerNorm(width, eps=eps) if config.order == "pre" else nn.Identity()
        self.image_head = nn.Linear(width, config.dim, bias=False)
        self.text_head = nn.Linear(width, config.dim, bias=False)
        self.match_head = nn.Linear(width, 2)
        self.word_head = WordHead(width, config.text.vocab_size, config.activation, eps)
        self.class_head = nn.Linear(width, config.classes) if config.classes is not None else None
        init_reader(self, self.transformer, width)
        self.log_scale = nn.Parameter(torch.tensor([config.scale_init]))

    # ------------------------------------------------------------------------------------------ the three routes

    def states(self, tokens: Tokens | None, pixels: Pixels | None) -> Float[Tensor, "B T D"]:
        """States of the tokens, then of the class token and the patches; of what is None there are none."""
        parts = [] if tokens is None else [("text", self.text(tokens))]
        parts += [] if pixels is None else [("image", self.image(pixels))]
        if not parts:
            raise UsageError("give pictures, text, or both")
        x = torch.cat([states + self.kinds[kind] for kind, states in parts], dim=1)
        route: Route = tuple((kind, states.shape[1]) for kind, states in parts)
        mask = None if tokens is None else seen(F.pad(real(tokens), (0, x.shape[1] - tokens.ids.shape[1]), value=True))
        return self.norm(self.transformer(x, mask=mask, route=route))

    # ------------------------------------------------------------------------------------------ what it offers

    def features(self, kind: Modality, inputs: Any) -> Float[Tensor, "B D"]:
        """State of the first token: the picture's class token, the text's start."""
        if kind not in self.modalities:
            raise UsageError(f"this model does not read {kind}; it reads: {', '.join(sorted(self.modalities))}")
        return (self.states(None, inputs) if kind == "image" else self.states(inputs, None))[:, 0]

    def encode(self, kind: Modality, inputs: Any = None, *, features: Float[Tensor, "B D"] | None = None) -> Float[Tensor, "B E"]:
        """Unit vectors of pictures or texts, each read alone."""
        found = self.features(kind, inputs) if features is None else features
        return F.normalize((self.image_head if kind == "image" else self.text_head)(found), dim=-1)

    def match(self, pixels: Pixels, tokens: Tokens) -> Float[Tensor, "B 2"]:
        """No and yes, from the first token's state after reading both."""
        return self.match_head(self.states(tokens, pixels)[:, 0])

    def words(
        self, tokens: Tokens, pixels: Pixels | None = None, *, where: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Logits over the vocabulary, from the text alone or with its picture in view."""
        states = self.states(tokens, pixels)[:, : tokens.ids.shape[1]]
        return self.word_head(states if where is None else states[where], self.text.embedding.weight)

    def classify(self, inputs: Mapping[Modality, Any]) -> Float[Tensor, "B C"]:
        """Logits of a picture's classes."""
        if self.class_head is None or set(inputs) != {"image"}:
            raise UsageError("this model classifies pictures alone, and only when model.config.classes says how many classes there are")
        return self.class_head(self.features("image", inputs["image"]))


def _block(config: VLMoConfig, *, fused: bool) -> Block:
    width = config.width
    names = ["image", "text", FUSED] if fused else ["image", "text"]
    start = config.layer_scale
    return Block(
        Attention(width, config.heads, dropout=config.dropout),
        Experts({name: FeedForward(width, config.mlp_width, config.activation) for name in names}),
        (nn.LayerNorm(width, eps=config.eps), nn.LayerNorm(width, eps=config.eps)),
        order=config.order,
        scales=None if start is None else (LayerScale(width, start), LayerScale(width, start)),
        dropout=config.dropout,
    )
