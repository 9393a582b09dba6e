"""An adapter through the trainer: cut short and resumed bit for bit, evaluated, saved, opened; the base is what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hub.references import clip_processor, save_clip, tiny_clip
from tonggan import hub
from tonggan.backends import load_local
from tonggan.hub import Checkpoint, adapters
from tonggan.models import adapt
from tonggan.models.adapt import AdaptConfig
from tonggan.steps.contrastive import ContrastiveConfig, ContrastiveStep
from tonggan.tensors import Batch, pad
from tonggan.train.optim import OptimConfig
from tonggan.train.trainer import Stream, TrainConfig, Trainer


class Pairs:
    """Random pictures, each with a text of its own; what comes next depends on a counter."""

    batches_per_epoch = 4.0

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.at += 1
        generator = torch.Generator().manual_seed(self.at % 2)
        pixels = torch.randint(0, 256, (4, 3, 24, 24), generator=generator, dtype=torch.uint8)
        end = len(clip_processor().tokenizer) - 1
        tokens = pad([[end - 1, 7 + i + 4 * (self.at % 2), end] for i in range(4)])
        return Batch(tuple(map(str, range(4))), pixels, tokens)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def trainer(run: Path, base: Checkpoint, config: AdaptConfig, steps: int) -> tuple[Trainer, nn.Module]:
    torch.manual_seed(5)
    view = adapt.attach(base.module, config)
    step = ContrastiveStep(view, ContrastiveConfig())
    made = Trainer(
        view,
        [Stream("pairs", step, Pairs())],
        TrainConfig(steps=steps, log_every=1, eval_every=3),
        OptimConfig(lr=1e-2, warmup=0, schedule="constant", ema=0.5, layer_decay=0.9),
        run=run,
        save=lambda directory: adapters.save(directory, view, base, config),
        evaluate=lambda: {"score": float(made.step)},
        score="score",
        frozen=adapt.still(view, config),
        quiet=True,
    )
    return made, view


@pytest.mark.parametrize(
    "config", [adapt.DoraConfig(rank=2, dropout=0.2, whole=("image_head",)), adapt.PromptConfig(length=2)], ids=["dora", "prompt"]
)
def test_trained_resumed_saved_and_opened(tmp_path: Path, config: AdaptConfig) -> None:
    base = hub.read(save_clip(tmp_path / "clip", tiny_clip()))
    before = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    whole, view = trainer(tmp_path / "whole", base, config, 6)
    whole.fit()
    trainer(tmp_path / "cut", base, config, 3)[0].fit()
    cut, resumed = trainer(tmp_path / "cut", base, config, 6)
    cut.fit(resume=True)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in view.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.module.state_dict().items())
    files = [load_file(tmp_path / run / "best" / "adapter_model.safetensors") for run in ("whole", "cut")]
    assert files[0].keys() == files[1].keys() and all(torch.equal(files[1][name], tensor) for name, tensor in files[0].items())

    model = load_local(tmp_path / "whole", device="cpu")  # best/ is the average, on the base that it names
    average = dict(whole.average.state()) if whole.average is not None else {}
    assert set(average) == set(adapt.own(view, base.module, config))
    opened = model.module.state_dict()
    assert all(torch.equal(opened[name], tensor) for name, tensor in average.items())
    assert all(torch.equal(opened[name], tensor) for name, tensor in before.items() if name not in average)
    assert not torch.equal(opened[next(iter(average))], view.state_dict()[next(iter(average))])
