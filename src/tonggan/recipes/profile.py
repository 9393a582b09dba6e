"""`tonggan train --profile`: the training step of a recipe, measured."""

from __future__ import annotations

from tonggan.recipes.run import Run
from tonggan.train.profile import Profile, profile


def profile_run(run: Run, steps: int = 10) -> Profile:
    """Measure the first stage's step (see `train.profile`). The run is not changed on disk; the model in memory is trained a little."""
    stage = run.config.stages[0]
    run.prepare(stage)
    return profile(run.trainer(0, stage), steps)
