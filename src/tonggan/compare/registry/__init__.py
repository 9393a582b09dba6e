"""The registry of facts: models and published results, each with its source. What a source does not say stays unknown.

    from tonggan.compare import registry
    known = registry.load()
    known.find("qwen2.5-vl").sizes
    registry.side_by_side(known, ["qwen2.5-vl/72b", "gpt-4o"])

The tables are `models.tsv` (one line per release) and `benchmarks.tsv` (one line per published value), read without quoting.
"""

from tonggan.compare.registry.columns import Column, Medians, Shown, medians, released, side_by_side
from tonggan.compare.registry.facts import ModelFacts
from tonggan.compare.registry.html import facts_page
from tonggan.compare.registry.loading import AS_OF, load
from tonggan.compare.registry.published import Published
from tonggan.compare.registry.reading import RegistryError
from tonggan.compare.registry.store import Filters, Registry, Selection

__all__ = [
    "AS_OF",
    "Column",
    "Filters",
    "Medians",
    "ModelFacts",
    "Published",
    "Registry",
    "RegistryError",
    "Selection",
    "Shown",
    "facts_page",
    "load",
    "medians",
    "released",
    "side_by_side",
]
