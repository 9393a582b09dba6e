"""Adapters: a model that learns little, beside a base that does not change.

An adapted model is a *view*: modules of its own over the very tensors of the base, with the adapter's layers in the places of some.
Several adapters on one base are several views; which one answers is which one is called. Nothing is switched on or off, so threads
cannot disturb each other, and the base is what it was to the last bit.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from tonggan.config import did_you_mean
from tonggan.models.adapt.config import AdaptConfig, BottleneckConfig, DoraConfig, LoraConfig, ProbeConfig, PromptConfig
from tonggan.models.adapt.layers import BottleneckFeedForward, BottleneckLinear, LoraLinear, PromptedTransformer
from tonggan.nn.attention import Attention
from tonggan.nn.transformer import Block, FeedForward, Transformer
from tonggan.types import UsageError

__all__ = [
    "AdaptConfig", "BottleneckConfig", "DoraConfig", "LoraConfig", "ProbeConfig", "PromptConfig", "attach", "is_adapted", "merge", "own",
    "still",
]  # fmt: skip

ADDED = (LoraLinear, BottleneckLinear, BottleneckFeedForward, PromptedTransformer)
M = TypeVar("M", bound=nn.Module)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def attach(module: nn.Module, config: AdaptConfig) -> nn.Module:
    """A view of `module` with a new adapter, whose parameters alone are trainable; `module` itself is frozen, and shares its weights.

    At the start the view computes what `module` does (but for prompts, which are seen from the start). It may be put on a view
    that has an adapter elsewhere: one for the image tower, another for the text tower. Raises `UsageError` that names a part or a
    layer that is not there, or has an adapter already.
    """
    for name in (*config.parts, *config.whole):
        _part(module, name)
    module.requires_grad_(False)
    view = _share(module, config.whole)
    match config:
        case LoraConfig() | DoraConfig():
            for name, linear in _linears(view, config.targets, config.parts):
                view.set_submodule(name, LoraLinear(linear, config))
        case BottleneckConfig(form="serial"):
            for name, linear in _ends(view, config.parts):
                view.set_submodule(name, BottleneckLinear(linear, config))
        case BottleneckConfig():
            for name, feed_forward in _found(view, FeedForward, config.parts, "feed-forward"):
                view.set_submodule(name, BottleneckFeedForward(feed_forward, config))
        case PromptConfig():
            for name, transformer in _found(view, Transformer, config.parts, "Transformer"):
                if any(isinstance(inner, Attention) and inner.bias is not None for inner in transformer.modules()):
                    raise UsageError(f"adapt: {name} has an attention bias by position, in which prompts have no place")
                if type(transformer) is not Transformer:
                    raise UsageError(
                        f"adapt: not all input goes through all blocks of {name}, so prompts have no place there; name other parts"
                    )
                view.set_submodule(name, PromptedTransformer(transformer, config.length, deep=config.deep))
        case ProbeConfig():
            pass
    for name in config.whole:
        _part(view, name).requires_grad_(True)
    return view


def own(view: nn.Module, base: nn.Module, config: AdaptConfig) -> dict[str, Tensor]:
    """What `attach` gave a view beside its base's tensors, by name: all that has to be kept of an adapter."""
    known = base.state_dict().keys()
    return {name: tensor for name, tensor in view.state_dict().items() if name not in known or _inside(name, config.whole)}


def still(view: nn.Module, config: AdaptConfig) -> list[nn.Module]:
    """Modules that must stay in evaluation mode in training: batch norms of the base, whose statistics would move."""
    return [module for name, module in view.named_modules() if isinstance(module, BATCH_NORMS) and not _inside(name, config.whole)]


def is_adapted(module: nn.Module) -> bool:
    """Whether it has an adapter's layers."""
    return any(isinstance(inner, ADDED) for inner in module.modules())


def merge(view: nn.Module) -> nn.Module:
    """A plain module with weights of its own, under the base's names, that computes what the view does.

    Raises `UsageError` for adapters that no weight of the base could take up (prompts, bottlenecks). The base is still there,
    unchanged: there is nothing to take back.
    """
    plain = copy.deepcopy(view)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, LoraLinear):
            plain.set_submodule(name, layer.merged())
        elif isinstance(layer, ADDED):
            raise UsageError(f"{name} has {type(layer).__name__}: only LoRA and DoRA can be merged into the weights")
    return plain.requires_grad_(True)


# ------------------------------------------------------------------------------------------ finding places


def _share(module: nn.Module, whole: tuple[str, ...]) -> nn.Module:
    """A copy of the modules over the same parameters, but for those of the `whole` parts, which are copied.

    Buffers are copied too: in training they are written to.
    """
    shared = {id(parameter): parameter for name, parameter in module.named_parameters() if not _inside(name, whole)}
    return copy.deepcopy(module, shared)


def _linears(view: nn.Module, targets: tuple[str, ...], parts: tuple[str, ...]) -> list[tuple[str, nn.Linear]]:
    """Linear layers whose names end in one of `targets`, or that one which is named in full; every target must be met with."""
    found: dict[str, nn.Linear] = {}
    known = [name for name, inner in view.named_modules() if isinstance(inner, nn.Linear) and _chosen(name, parts)]
    for target in targets:
        names = [target] if target in known else [name for name in known if f".{name}".endswith(f".{target}")]
        if not names:
            ends = sorted({".".join(name.split(".")[-2:]) for name in known})
            raise UsageError(
                f"adapt.targets: no linear layer {target!r}{did_you_mean(target, ends)}; there are: {', '.join(ends) or 'none'}"
            )
        for name in names:
            linear = view.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            found[name] = _free(name, linear)
    return list(found.items())


def _ends(view: nn.Module, parts: tuple[str, ...]) -> list[tuple[str, nn.Linear]]:
    """The last layer of every attention and every feed-forward in the blocks."""
    ends: dict[str, nn.Linear] = {}
    for place, block in _found(view, Block, parts, "block"):
        for name, inner in block.named_modules(prefix=place):
            if isinstance(inner, Attention | FeedForward):
                end, linear = ("out", inner.out) if isinstance(inner, Attention) else ("down", inner.down)
                ends[f"{name}.{end}"] = _free(f"{name}.{end}", linear)
    return list(ends.items())


def _found(view: nn.Module, kind: type[M], parts: tuple[str, ...], what: str) -> list[tuple[str, M]]:
    """Every module of a kind in the parts."""
    found = [(name, inner) for name, inner in view.named_modules() if isinstance(inner, kind) and _chosen(name, parts)]
    if not found:
        raise UsageError(f"adapt: there is no {what} in {' and '.join(parts) or 'this model'}")
    return [(name, _free(name, inner)) for name, inner in found]


def _free(name: str, layer: M) -> M:
    """The layer, if it has no adapter yet."""
    if isinstance(layer, ADDED):
        raise UsageError(f"adapt: {name} has an adapter already; merge that first, or choose other parts")
    return layer


def _part(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        known = [known for known, _ in module.named_modules() if known and known.count(".") <= 1]
        there = ", ".join(part for part in known if "." not in part)
        raise UsageError(f"adapt: no part {name!r}{did_you_mean(name, known)}; there are: {there}, and parts of these") from None


def _chosen(name: str, parts: tuple[str, ...]) -> bool:
    return not parts or _inside(name, parts)


def _inside(name: str, parts: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)
