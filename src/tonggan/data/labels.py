"""Names of the classes that published classifiers know."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple


class Label(NamedTuple):
    """A class: its WordNet synset, its words (several, separated by commas), and what it means."""

    synset: str
    words: str
    gloss: str

    @property
    def name(self) -> str:
        """The first of its words."""
        return self.words.split(",")[0].strip()


@cache
def imagenet() -> tuple[Label, ...]:
    """The 1000 classes of ILSVRC 2012, in the order of every published classifier's outputs (WordNet 3.0's words and glosses)."""
    lines = (Path(__file__).parent / "imagenet.tsv").read_text("utf-8").splitlines()
    return tuple(Label(*line.split("\t")) for line in lines if not line.startswith("#"))
