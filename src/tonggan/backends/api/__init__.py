"""OpenAI-compatible endpoints: providers as data, one client, budgets, answers that are kept."""

from tonggan.backends.api.budget import Budget, BudgetReached
from tonggan.backends.api.endpoint import Endpoint, Preview
from tonggan.backends.api.presets import Preset, Price, key_of, named, near, parse_price, presets

__all__ = ["Budget", "BudgetReached", "Endpoint", "Preset", "Preview", "Price", "key_of", "named", "near", "parse_price", "presets"]
