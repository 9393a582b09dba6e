"""Our module on the named tensors of the reference's forward: how parity is measured, and how to look inside.

Shape letters: B rows, L tokens, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tonggan.hub.read import read
from tonggan.models import Classifier, DualEncoder
from tonggan.models.towers import TransformerText
from tonggan.tensors import Tokens
from tonggan.types import TongganError, UsageError

KNOWN = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")


def outputs(model: nn.Module | str | Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run a module (or a directory's) on `input_ids` [B, L], `attention_mask` and `pixel_values` [B, 3, H, W], already normalised.

    Gives what the reference calls: CLIP `text_embeds`, `image_embeds`, `logits_per_image`, `logits_per_text`,
    `text_last_hidden_state`, `vision_last_hidden_state`; a sentence encoder `last_hidden_state`, `sentence_embedding`; a classifier
    `logits`. Only what the inputs allow is there. Differentiable for a module; states come from a pass of their own.
    """
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            return outputs(read(model).module, inputs)
    unknown = sorted(set(inputs) - set(KNOWN))
    if unknown:
        raise UsageError(f"inputs {', '.join(unknown)} are not known; there are: {', '.join(KNOWN)}")
    if isinstance(model, Classifier):
        return {"logits": model(inputs["pixel_values"])}
    if not isinstance(model, DualEncoder):
        raise TongganError(f"{type(model).__name__} has no reference whose outputs could be named")
    if model.image is None and model.text is not None:
        tokens = _tokens(inputs)
        return {"last_hidden_state": model.text.tokens(tokens).states, "sentence_embedding": model.encode_text(tokens)}
    return _clip(model, inputs)


def _clip(model: DualEncoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if "input_ids" in inputs and model.text is not None:
        tokens = _tokens(inputs, ends=isinstance(model.text, TransformerText))
        found["text_last_hidden_state"] = model.text.tokens(tokens).states
        found["text_embeds"] = model.encode_text(tokens)
    if "pixel_values" in inputs and model.image is not None:
        found["vision_last_hidden_state"] = model.image.tokens(inputs["pixel_values"]).states
        found["image_embeds"] = model.encode_image(inputs["pixel_values"])
    if "text_embeds" in found and "image_embeds" in found:
        found["logits_per_text"] = found["text_embeds"] @ found["image_embeds"].T * model.log_scale.exp()
        found["logits_per_image"] = found["logits_per_text"].T
    return found


def _tokens(inputs: Mapping[str, Tensor], *, ends: bool = False) -> Tokens:
    """Ids and true lengths. Without a mask nothing is padding; with `ends` a row ends at its highest id, CLIP's end token."""
    ids = inputs["input_ids"]
    if inputs.get("token_type_ids") is not None and bool(inputs["token_type_ids"].any()):
        raise UsageError("token_type_ids other than 0 (pairs of sentences) are not supported")
    mask = inputs.get("attention_mask")
    if mask is None:
        return Tokens(ids, ids.argmax(dim=1) + 1 if ends else torch.full((len(ids),), ids.shape[1], device=ids.device))
    if bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise UsageError("attention_mask: padding must be on the right")
    return Tokens(ids, mask.sum(dim=1))
