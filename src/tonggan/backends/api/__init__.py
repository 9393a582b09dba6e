"""OpenAI-compatible endpoints: providers as data, one client, budgets, answers that are kept."""

from tonggan.backends.api.budget import Budget, BudgetReached
from tonggan.backends.api.endpoint import Endpoint
from tonggan.backends.api.presets import Preset, Price, key_of, named, near, presets

__all__ = ["Budget", "BudgetReached", "Endpoint", "Preset", "Price", "key_of", "named", "near", "presets"]
