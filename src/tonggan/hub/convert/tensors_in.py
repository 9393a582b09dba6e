"""Named tensors of a reference's forward as our input."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tonggan.tensors import Sounds, Tokens
from tonggan.types import UsageError


def only(inputs: Mapping[str, Tensor], known: tuple[str, ...]) -> None:
    """Raise `UsageError` naming inputs that a family's forward does not have."""
    if unknown := sorted(set(inputs) - set(known)):
        raise UsageError(f"inputs {', '.join(unknown)} are not known; there are: {', '.join(known)}")


def tokens_in(inputs: Mapping[str, Tensor], *, ends: bool = False) -> Tokens:
    """`input_ids` [B, L] and `attention_mask`, padded on either side. Without a mask nothing is padding; with `ends` a row ends at its
    first highest id, CLIP's end token, also where a caption spells one out in its midst. The reference looks for that token without the
    mask, so padding before it that has its id, or a higher one, raises `UsageError`."""
    ids = inputs["input_ids"]
    if inputs.get("token_type_ids") is not None and bool(inputs["token_type_ids"].any()):
        raise UsageError("token_type_ids other than 0 (pairs of sentences) are not supported")
    mask = inputs.get("attention_mask")
    if mask is None:
        return Tokens(ids, ids.argmax(dim=1) + 1 if ends else torch.full((len(ids),), ids.shape[1], device=ids.device))
    own = mask.bool()
    starts = own.int().argmax(dim=1)
    lengths = starts + own.sum(dim=1)
    at = torch.arange(ids.shape[1], device=ids.device)
    if not torch.equal(own, (at >= starts[:, None]) & (at < lengths[:, None])):
        raise UsageError("attention_mask: padding in the middle of a row is not supported; pad on one side")
    if ends:
        lengths = torch.minimum(lengths, _ends(ids, starts))
    return Tokens(ids, lengths, starts if bool(starts.any()) else None)


def _ends(ids: Tensor, starts: Tensor) -> Tensor:
    """Positions [B] behind each row's first highest id."""
    found = ids.argmax(dim=1)
    if bool((early := found < starts).any()):
        row = int(early.int().argmax())
        at, start = int(found[row]), int(starts[row])
        raise UsageError(
            f"input_ids, row {row}: the first highest id, {int(ids[row, at])}, where the text is read, stands at {at}, in the padding "
            f"before the row's own first token at {start}; pad on the right, or with an id below the end token's"
        )
    return found + 1


def sounds_in(inputs: Mapping[str, Tensor], name: str) -> Sounds:
    """`input_values` [B, S] or `input_features` [B, M, F], and `attention_mask` over their last axis, padded on the right."""
    values, mask = inputs[name], inputs.get("attention_mask")
    if mask is None:
        return Sounds(values, torch.full((len(values),), values.shape[-1], device=values.device))
    lengths = mask.sum(dim=1)
    if not torch.equal(mask.bool(), torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
        raise UsageError("attention_mask: sounds are padded on the right only")
    return Sounds(values, lengths)
