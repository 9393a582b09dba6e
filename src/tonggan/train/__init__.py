"""Trainer, optimiser, checkpoints, GradCache, planner. Steps, loaders, evaluators and savers arrive as arguments."""
