"""Matching accuracy, and retrieval and probes of sounds and clips, on models whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tonggan.evaluate import retrieval
from tonggan.evaluate.tasks.matching import matching
from tonggan.evaluate.tasks.probe import probe
from tonggan.types import Audio, CannotError, Embeddings, EmbedOptions, Identity, Image, Item, Model, Row, Text, UsageError, Video, as_part


def pixels(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def rows(n: int = 6) -> list[Row]:
    """Row i shows i, says i in two languages, and is spoken of in one."""
    return [
        Row(
            id=f"r{i}",
            images=(Image(array=pixels(i)),),
            audios=(Audio(array=np.full(5, i, np.float32), rate=10, role="fr"),),
            videos=(Video(array=pixels(i)[None], fps=1.0),),
            texts=(Text(f"number {i}", "en"), Text(f"第{i}个", "zh")),
            split="train" if i % 3 else "test",
            meta={"parity": "odd" if i % 2 else "even"},
        )
        for i in range(n)
    ]


def value_of(item: Item) -> int:
    part = as_part(item)
    if isinstance(part, Text):
        return int("".join(c for c in part.text if c.isdigit()))
    assert not isinstance(part, str)
    return int(np.asarray(part.array).reshape(-1)[0])


class Knows(Model):
    """Reads the number off everything; `wrong` are numbers that it takes for the next one."""

    name, identity = "knows", Identity({}, "0" * 64)
    can = frozenset({"embed", "features", "match"})
    modalities = frozenset({"image", "text", "audio", "video"})

    def __init__(self, wrong: Sequence[int] = (), score: tuple[float, float] = (0.9, 0.1)) -> None:
        self.wrong, self.score = set(wrong), score

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        return Embeddings(np.eye(16, dtype=np.float32)[[value_of(item) for item in items]])

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        return np.array([[value_of(item) % 2, 1.0] for item in items], np.float32)

    def match(self, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
        same = [value_of(a) + (value_of(a) in self.wrong) == value_of(b) for a, b in pairs]
        return np.array([self.score[0] if one else self.score[1] for one in same], np.float32)


def test_a_model_that_knows_matches_all() -> None:
    found = matching(Knows(), rows(), langs=["en", "zh"])
    assert found.metrics["acc"].value == found.metrics["match zh ranked"].value == 1.0
    assert found.metrics["acc"].chance == 0.5
    assert len(found.items) == 12


def test_one_that_answers_always_alike_is_at_chance_and_a_tie_is_a_mistake() -> None:
    yes = matching(Knows(score=(0.7, 0.7)), rows(), langs=["en"])
    assert yes.metrics["acc"].value == 0.5
    assert yes.metrics["match en ranked"].value == 0.0
    half = matching(Knows(score=(0.5, 0.5)), rows(), langs=["en"])
    assert half.metrics["acc"].value == 0.0


def test_wrong_pairs_share_nothing_with_the_right_one() -> None:
    alike = [row.with_(group="all") for row in rows()]
    with pytest.raises(UsageError, match="no wrong pair to compare with"):
        matching(Knows(), alike)
    two = [row.with_(group=f"g{i // 3}") for i, row in enumerate(rows())]
    asked: list[tuple[int, int]] = []

    class Notes(Knows):
        def match(self, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
            asked.extend((value_of(a), value_of(b)) for a, b in pairs)
            return super().match(pairs)

    matching(Notes(), two, langs=["en"])
    assert all(a // 3 != b // 3 for a, b in asked[6:])


def test_a_wrong_caption_is_none_of_the_pictures_own() -> None:
    """Row 0 also says, in another case, what rows 1 to 3 say first; row 4 shows row 5's picture."""
    some = rows()
    some[0] = some[0].with_(texts=(*some[0].texts, *(Text(f"NUMBER {i}.", "en") for i in (1, 2, 3))))
    some[4] = some[4].with_(images=some[5].images)
    asked: list[tuple[int, int]] = []

    class Notes(Knows):
        def match(self, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
            asked.extend((value_of(a), value_of(b)) for a, b in pairs)
            return super().match(pairs)

    found = matching(Notes(), some, langs=["en"])
    wrong = dict(asked[6:])
    assert wrong[0] in (4, 5) and wrong[5] not in (4, 5)
    assert [item["cluster"] for item in found.items] == ["r0", "r1", "r2", "r3", "r4", "r4"], (
        "two rows of one picture are resampled together"
    )
    assert found.protocol.startswith("matching/v2")


def test_pictures_are_needed_and_said() -> None:
    class Towers(Knows):
        can = frozenset({"embed"})

    with pytest.raises(CannotError, match="does not read a picture and a text together"):
        matching(Towers(), rows())
    mute = matching(Knows(), [*rows(), Row(id="mute", images=(Image(array=pixels(9)),))], langs=["en"])
    assert [(one.where, one.reason) for one in mute.dropped] == [("mute", "no caption")]


@pytest.mark.parametrize(("between", "ways"), [(("image", "audio"), ("a2i fr", "i2a fr")), (("video", "text"), ("t2v en", "v2t en"))])
def test_sounds_and_clips_are_found(between: tuple[str, str], ways: tuple[str, str]) -> None:
    found = retrieval(Knows(), rows(), between=between, langs=["fr" if "audio" in between else "en"])  # type: ignore[arg-type]
    assert all(found.metrics[f"{way} R@1"].value == 1.0 for way in ways)
    assert "sounds" in found.protocol or "clips" in found.protocol


def test_retrieval_of_pictures_by_text_keeps_its_protocol() -> None:
    assert retrieval(Knows(), rows()).protocol.endswith("bootstrap 2000 seed 0")


@pytest.mark.parametrize("kind", ["audio", "video", "image"])
def test_a_probe_looks_at_sounds_and_clips(kind: str) -> None:
    found = probe(Knows(), rows(12), label="parity", kind=kind)  # type: ignore[arg-type]
    assert found.metrics["probe acc1"].value == 1.0
    with pytest.raises(UsageError, match="no sound has a label"):
        probe(Knows(), [row.with_(audios=()) for row in rows()], label="parity", kind="audio")
