"""Several labels per picture: what a cell holds, and mAP against scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tonggan.evaluate import Result, paired
from tonggan.evaluate.metrics.classification import average_precision_11
from tonggan.evaluate.tasks.labelled import labels_in
from tonggan.evaluate.tasks.labels import labels, labels_paired
from tonggan.types import CannotError, Embeddings, EmbedOptions, Identity, Image, Item, Model, Row, Text, TongganError, UsageError, as_part

CLASSES = ("cat", "dog", "bird", "fish")


class Fake(Model):
    """Embeds pictures by their array, texts by a table; a picture of one number is unreadable."""

    def __init__(self, table: dict[str, np.ndarray], name: str = "fake") -> None:
        self.table, self.name, self.identity = table, name, Identity({}, name)
        self.can, self.modalities = frozenset({"embed"}), frozenset({"text", "image"})

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        found, errors = [], {}
        for i, part in enumerate(map(as_part, items)):
            vector = self.table[part.text] if isinstance(part, Text) else np.asarray(part.array, dtype=float)
            if len(vector) == 1:
                errors[i] = "too small"
            found.append(vector / np.linalg.norm(vector) if len(vector) > 1 else np.zeros(5))
        return Embeddings(np.stack(found).astype(np.float32), errors)


def knowing(seed: int, name: str = "fake") -> Fake:
    return Fake(dict(zip(CLASSES, np.random.default_rng(seed).normal(size=(4, 5)), strict=True)), name)


def rows(n: int = 40, seed: int = 0) -> list[Row]:
    """Each picture has some of the classes, or none; a class's vector is a part of the picture's."""
    rng = np.random.default_rng(seed)
    heads = np.stack(list(knowing(1).table.values()))
    has = rng.random((n, 4)) < 0.35
    return [
        Row(
            f"p{i}",
            images=(Image(array=has[i] @ heads + rng.normal(size=5)),),
            meta={"tags": "|".join(c for c, is_there in zip(CLASSES, has[i], strict=True) if is_there) or "[]"},
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("猫|狗", ("猫", "狗")),
        ("cat; dog", ("cat", "dog")),
        ("猫；狗、鸟", ("猫", "狗", "鸟")),
        ('["cat", "a dog; wet", 3]', ("cat", "a dog; wet", "3")),
        ("cat\ndog\n", ("cat", "dog")),
        ("cat|cat| |dog", ("cat", "dog")),
        ("cat, domestic", ("cat, domestic",)),
        ("[]", ()),
        ("[cat", ("[cat",)),
        ('{"cat": 1}', ('{"cat": 1}',)),
    ],
)
def test_labels_of_a_cell(cell: str, expected: tuple[str, ...]) -> None:
    assert labels_in(cell) == expected


@given(st.lists(st.text("猫狗ab ", min_size=1).map(str.strip).filter(bool), unique=True))
def test_what_was_joined_is_divided_again(names: list[str]) -> None:
    assert labels_in("|".join(names)) == labels_in("；".join(names)) == tuple(names)


def test_map_is_scikit_learns() -> None:
    some = rows()
    result = labels(knowing(1), some, label="tags", templates=["{}"], data="drawn")
    truth = np.array([[c in item["truth"] for c in sorted(CLASSES)] for item in result.items])
    heads = np.stack([knowing(1).embed([c]).vectors[0] for c in sorted(CLASSES)])
    scores = knowing(1).embed([row.images[0] for row in some]).vectors @ heads.T
    found = result.metrics["labels en mAP"]
    assert found.value == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-9)
    assert found.n == 40 and found.low < found.value < found.high
    eleven = [average_precision_11(np.stack([scores[:, c], truth[:, c]], axis=1), np.ones((1, 40)))[0] for c in range(4)]
    assert result.metrics["labels en mAP-11"].value == pytest.approx(np.mean(eleven))
    assert result.primary == "labels en mAP" and result.metrics.keys() == {"labels en mAP", "labels en mAP-11"}
    assert {name: one["frequency"] for name, one in result.extra["classes"].items()} == dict(
        zip(sorted(CLASSES), truth.mean(axis=0), strict=True)
    )
    assert result.extra["classes"]["dog"]["average precision"] == pytest.approx(average_precision_score(truth[:, 2], scores[:, 2]))


def test_chance_is_what_models_reach_that_know_nothing() -> None:
    some = rows(20)
    found = [labels(knowing(seed), [blank(row, seed) for row in some], label="tags", templates=["{}"]) for seed in range(40)]
    values = [result.score for result in found]
    chance = found[0].metrics["labels en mAP"].chance
    assert chance is not None and abs(np.mean(values) - chance) < 4 * np.std(values) / 40**0.5
    assert chance > np.mean([one["frequency"] for one in found[0].extra["classes"].values()])


def blank(row: Row, seed: int) -> Row:
    """The same labels under a picture of something else."""
    return row.with_(images=(Image(array=np.random.default_rng([seed, int(row.id[1:])]).normal(size=5)),))


def test_the_order_of_rows_and_the_way_of_writing_change_nothing() -> None:
    some = rows()
    written = [row.with_(meta={"tags": row.meta["tags"].replace("|", "； ")}) for row in some[::-1]]
    one, other = (labels(knowing(1), told, label="tags", templates=["{}"]) for told in (some, written))
    assert {k: v.value for k, v in one.metrics.items()} == pytest.approx({k: v.value for k, v in other.metrics.items()})
    assert all(d.value == pytest.approx(0) for d in labels_paired(one, other).values())


def test_classes_may_have_words_of_another_language() -> None:
    names = dict(zip(CLASSES, ("猫", "狗", "鸟", "鱼"), strict=True))
    table = {names[c]: v for c, v in knowing(1).table.items()}
    result = labels(Fake(table), rows(), label="tags", lang="zh", names=names, templates=["{}"])
    same = labels(knowing(1), rows(), label="tags", templates=["{}"])
    assert result.metrics["labels zh mAP"] == same.metrics["labels en mAP"]
    assert result.protocol != same.protocol
    with pytest.raises(UsageError, match="2 classes are all called '猫'"):
        labels(Fake(table), rows(), label="tags", names=names | {"dog": "猫"}, templates=["{}"])


def test_difference_of_two_models() -> None:
    some = rows()
    good, bad = (labels(knowing(seed, str(seed)), some, label="tags", templates=["{}"]) for seed in (1, 2))
    ab, ba = labels_paired(good, bad), labels_paired(bad, good)
    for name, difference in ab.items():
        assert difference.value == pytest.approx(good.metrics[name].value - bad.metrics[name].value) == -ba[name].value
        assert difference.low <= difference.value <= difference.high
    assert all(d.value == d.low == d.high == 0 for d in labels_paired(good, good).values())
    with pytest.raises(UsageError, match="in one result only"):
        labels_paired(good, labels(knowing(1), some[1:], label="tags", templates=["{}"]))
    other = [some[0].with_(meta={"tags": "cat|dog|fish"}), *some[1:]]
    with pytest.raises(UsageError, match="truth"):
        paired(good, labels(knowing(1), other, label="tags", templates=["{}"]))


def test_it_reads_back(tmp_path: Path) -> None:
    result = labels(knowing(1), rows(), label="tags", templates=["{}"])
    again = Result.read(result.write(tmp_path, "labels"))
    assert again.metrics == result.metrics and list(again.items) == list(result.items)
    assert all(d.value == 0 for d in labels_paired(again, result).values())


def test_rows_that_take_no_part_are_listed_and_pictures_of_nothing_do() -> None:
    some = rows()
    extra = [
        Row("empty", images=some[0].images, meta={"tags": ""}),
        Row("bare", meta={"tags": "cat"}),
        Row("small", images=(Image(array=np.ones(1)),), meta={"tags": "cat"}),
    ]
    result = labels(knowing(1), [*some, *extra], label="tags", templates=["{}"])
    assert {d.where: d.reason for d in result.dropped} == {"empty": "column 'tags' is empty", "bare": "no picture", "small": "too small"}
    assert any(item["truth"] == [] for item in result.items) and len(result.items) == 40


def test_a_class_whose_only_picture_is_unreadable_is_left_out() -> None:
    some = [row.with_(meta={"tags": row.meta["tags"].replace("fish", "bird")}) for row in rows()]
    small = Row("small", images=(Image(array=np.ones(1)),), meta={"tags": "fish"})
    result = labels(knowing(1), [*some, small], label="tags", templates=["{}"])
    assert np.isfinite(result.score) and "fish" not in result.extra["classes"]
    with pytest.raises(TongganError, match="none of the 2 labelled pictures can be read; the first: small: too small"):
        labels(knowing(1), [small, small.with_(meta={"tags": "cat"})], label="tags", templates=["{}"])


def test_cells_that_hold_commas_are_noted() -> None:
    one = {"cat, dog": np.ones(5), "bird": np.arange(5.0)}
    some = [row.with_(meta={"tags": "cat, dog" if i % 2 else "bird"}) for i, row in enumerate(rows())]
    (note,) = labels(Fake(one), some, label="tags", templates=["{}"]).notes
    assert note == "every cell of column 'tags' was taken for one label, for example 'cat, dog'; labels are divided by |, ; or 、"
    single = [row.with_(meta={"tags": "cat" if i % 2 else "dog"}) for i, row in enumerate(rows())]
    assert "zero-shot classification" in labels(knowing(1), single, label="tags", templates=["{}"]).notes[0]
    assert labels(knowing(1), rows(), label="tags", templates=["{}"]).notes == []


def test_what_cannot_be_measured_is_told() -> None:
    with pytest.raises(UsageError, match="no picture has a label in column 'label'; columns: group, tags"):
        labels(knowing(1), rows())
    with pytest.raises(UsageError, match=r"has 1 classes \(cat\)"):
        labels(knowing(1), [row.with_(meta={"tags": "cat"}) for row in rows()], label="tags")
    blind = knowing(1)
    blind.modalities = frozenset({"text"})
    with pytest.raises(CannotError, match="a model of text and image"):
        labels(blind, rows(), label="tags")
