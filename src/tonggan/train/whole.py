"""A model and its steps as the one thing that is trained and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tonggan.train.optim import OptimConfig, groups, optimizer


class Whole(nn.Module):
    """The model and its steps: what steps have beside the model (heads, teachers) is trained and kept too.

    The model's own parameters go by the names that they have in the model alone.
    """

    def __init__(self, module: nn.Module, steps: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.module = module
        # A step that several streams share is kept once, under the name that comes last. The names stand in a list of their own: in a
        # ModuleDict a stream could not be called `train` or `type`.
        names = {step: name for name, step in steps.items()}
        self.names, self.steps = list(names.values()), nn.ModuleList(names)

    def optimizer(self, config: OptimConfig) -> torch.optim.AdamW:
        """Of everything that is to be trained."""
        made = optimizer(self.module, config)
        known = {id(parameter) for parameter in self.module.parameters()}
        for group in groups(self.steps, config.weight_decay):
            if own := [parameter for parameter in group["params"] if id(parameter) not in known]:
                made.add_param_group({**group, "params": own})
        return made

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter once, the model's first."""
        yield from self.module.named_parameters(prefix, recurse)
        known = {id(parameter) for parameter in self.module.parameters()}
        for stream, step in zip(self.names, self.steps, strict=True):
            for name, parameter in step.named_parameters(f"{prefix}steps.{stream}", recurse):
                if id(parameter) not in known:
                    known.add(id(parameter))
                    yield name, parameter

    def of_steps(self) -> dict[str, Tensor]:
        """Parameters and buffers that steps have beside the model."""
        known = {id(value) for value in self.module.state_dict(keep_vars=True).values()}
        kept: dict[str, Tensor] = {}
        for stream, step in zip(self.names, self.steps, strict=True):
            own = step.state_dict(prefix=f"{stream}.", keep_vars=True)
            kept |= {name: value for name, value in own.items() if id(value) not in known}
        return kept
