"""Linear probe: against scikit-learn on the same features, its draws, its sides, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tonggan.evaluate import Result, paired
from tonggan.evaluate.tasks.probe import _hold_out, _sides, probe
from tonggan.types import CannotError, Embeddings, EmbedOptions, Identity, Image, Item, Model, Row, TongganError, UsageError

WIDTH = 6


class Seer(Model):
    """Its features are the numbers of the picture; a picture of one number is unreadable to it."""

    def __init__(self, *can: str, name: str = "seer", scale: float = 1.0) -> None:
        self.name, self.scale, self.calls = name, scale, 0
        self.can, self.modalities, self.identity = frozenset(can or ("features",)), frozenset({"image"}), Identity({}, name)

    def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
        self.calls += 1
        rows = [item.array if isinstance(item, Image) and len(item.array) > 1 else np.full(WIDTH, np.nan) for item in items]
        return (self.scale * np.stack(rows)).astype(np.float32)

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        found = self.features(items)
        errors = dict.fromkeys(np.flatnonzero(np.isnan(found[:, 0])).tolist(), "too small")
        return Embeddings(np.nan_to_num(found / np.linalg.norm(found, axis=1, keepdims=True)), errors)


def picture(vector: Sequence[float] | np.ndarray) -> Image:
    return Image(array=np.asarray(vector, dtype=np.float32))


def rows(train: int = 30, val: int = 12, test: int = 60, *, classes: int = 3, noise: float = 1.0, seed: int = 0) -> list[Row]:
    """Pictures around a point for each class; the classes take turns."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(classes, WIDTH))
    return [
        Row(
            f"{split}-{i:03}",
            images=(picture(middle[i % classes] + noise * rng.normal(size=WIDTH)),),
            split=split,
            meta={"label": "猫狗鸟鱼"[i % classes]},
        )
        for split, n in (("train", train), ("val", val), ("test", test))
        for i in range(n)
    ]


def of(some: Sequence[Row], *splits: str) -> tuple[np.ndarray, list[str]]:
    chosen = [row for row in some if row.split in splits]
    return np.stack([row.images[0].array for row in chosen]).astype(float), [row.meta["label"] for row in chosen]


def test_accuracy_is_that_of_scikit_learns_classifier_with_the_chosen_c() -> None:
    some = rows()
    result = probe(Seer(), some, data="drawn")
    (c,) = result.extra["probe"]["C"]
    x, y = of(some, "train", "val")
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
    said = theirs.predict(of(some, "test")[0])
    assert [item["guess"] for item in result.items] == [[one] for one in said]
    found = result.metrics["probe acc1"]
    assert found.value == pytest.approx(np.mean(said == of(some, "test")[1])) and found.n == 60
    assert found.low < found.value < found.high and 0.5 < found.value < 1
    assert found.chance == result.metrics["probe balanced accuracy"].chance == pytest.approx(1 / 3)
    assert result.primary == "probe acc1" and result.score == found.value
    assert result.extra["majority"]["share"] == pytest.approx(1 / 3)
    assert result.protocol.startswith("probe/v1: features pooled, not standardised; logistic regression")
    assert "chosen on val" in result.protocol and "fitted on train and val" in result.protocol


def test_few_shots_are_the_mean_over_draws() -> None:
    result = probe(Seer(), rows(), shots=[4, 1], seeds=[3, 4])
    assert {item["task"] for item in result.items} == {"probe 1-shot", "probe 4-shot"} and len(result.items) == 120
    assert result.primary == "probe 4-shot acc1"
    for task in ("probe 1-shot", "probe 4-shot"):
        items = [item for item in result.items if item["task"] == task]
        draws = result.extra[task]["accuracy"]
        assert len(draws) == len(result.extra[task]["C"]) == 2
        assert result.metrics[f"{task} acc1"].value == pytest.approx(np.mean(draws))
        assert [item["acc1"] for item in items] == [np.mean([said == item["truth"] for said in item["guess"]]) for item in items]
    assert "shots 1,4, draws 3,4, val shots min(k, 4)" in result.protocol
    assert set(result.extra["probe 1-shot"]["accuracy"]) != set(result.extra["probe 4-shot"]["accuracy"])


def test_the_interval_of_few_shots_is_over_pictures_not_draws() -> None:
    """Twice the same draw: the same value, and the same interval."""
    once, twice = (probe(Seer(), rows(), shots=2, seeds=seeds).metrics["probe 2-shot acc1"] for seeds in ([7], [7, 7]))
    assert once == twice


def test_a_single_seed_draws_the_same_and_others_differ() -> None:
    one, again, other = (probe(Seer(), rows(), shots=1, seeds=[seed]).items for seed in (0, 0, 5))
    assert one == again
    assert [item["guess"] for item in one] != [item["guess"] for item in other]


def test_the_order_of_rows_changes_nothing() -> None:
    some = rows()
    for shots in (None, 2):
        forward, backward = probe(Seer(), some, shots=shots), probe(Seer(), some[::-1], shots=shots)
        assert forward == backward


def test_features_are_computed_once_for_all_shots() -> None:
    model = Seer()
    probe(model, rows(), shots=[1, 2])
    assert model.calls == 1


def test_without_val_a_part_of_train_chooses() -> None:
    some = [row for row in rows() if row.split != "val"]
    result = probe(Seer(), some)
    assert result.extra["pictures"] == {"train": 24, "val": 6, "test": 60}
    assert "chosen on 0.2 of train drawn by group, seed 0" in result.protocol
    (c,) = result.extra["probe"]["C"]
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(*of(some, "train"))  # of the whole of train again
    assert [item["guess"] for item in result.items] == [[one] for one in theirs.predict(of(some, "test")[0])]


def test_a_group_is_held_out_as_a_whole() -> None:
    """Were one of a pair learnt from, the other would choose a classifier that knows it by heart."""
    some = [row.with_(group=f"{row.meta['label']} {int(row.id[-3:]) // 6}") for row in rows(val=0) if row.split == "train"]
    result = probe(Seer(), [*some, *(row for row in rows() if row.split == "test")])
    assert result.extra["pictures"] == {"train": 24, "val": 6, "test": 60}
    for seed in range(5):
        sides = _sides([*some, *(row for row in rows() if row.split == "test")], "label", "image")
        sides.features["train"] = np.zeros((30, WIDTH))
        _hold_out(sides, seed)
        groups = [{p.row.group for p in sides.pictures[side]} for side in ("train", "val")]
        assert len(groups[1]) == 3 and not groups[0] & groups[1]
        assert set(sides.labels("train")) == set(sides.labels("val")) == set("猫狗鸟")


def test_with_nothing_to_spare_c_is_1_and_it_is_said() -> None:
    some = [row for row in rows(train=3, val=0) if row.split]
    result = probe(Seer(), some)
    assert result.extra["probe"]["C"] == [1.0]
    assert result.notes == ["too few pictures to choose C by; C is 1"]


def test_nothing_stands_on_two_sides() -> None:
    some = rows()
    by_id = {row.id: row for row in some}
    by_id["train-000"] = by_id["train-000"].with_(group="g")
    by_id["test-005"] = by_id["test-005"].with_(group="g")
    by_id["val-001"] = by_id["val-001"].with_(images=by_id["test-006"].images)
    by_id["train-003"] = by_id["train-003"].with_(images=by_id["val-002"].images)
    result = probe(Seer(), by_id.values())
    assert {(d.where, d.reason) for d in result.dropped} == {
        ("train-000", "its group or picture is in split test too"),
        ("val-001", "its group or picture is in split test too"),
        ("train-003", "its group or picture is in split val too"),
    }
    assert result.extra["pictures"] == {"train": 28, "val": 11, "test": 60}
    assert any(note.startswith("2 rows left split train") for note in result.notes)


def test_a_chain_of_group_and_picture_ties_too() -> None:
    """Train and test share nothing themselves, but a row between them shares with both."""
    by_id = {row.id: row for row in rows()}
    by_id["train-000"] = by_id["train-000"].with_(group="g")
    between = Row("between", images=by_id["test-000"].images, group="g", split="spare", meta={"label": "猫"})
    result = probe(Seer(), [*by_id.values(), between])
    assert [d.where for d in result.dropped] == ["train-000"]
    assert "1 labelled pictures of split spare take no part" in result.notes


def test_a_group_that_is_the_class_ties_nothing() -> None:
    """Folders by class: the folder is the group of its pictures."""
    some = [row.with_(group=row.meta["label"]) for row in rows()]
    result = probe(Seer(), some)
    assert not result.dropped and len({item["cluster"] for item in result.items}) == 60
    assert probe(Seer(), some, label="group").metrics == result.metrics


def test_pictures_of_one_group_are_one_cluster() -> None:
    some = [row.with_(group=f"g{int(row.id[-3:]) // 10}") if row.split == "test" else row for row in rows()]
    assert len({item["cluster"] for item in probe(Seer(), some).items}) == 6


def test_rows_that_take_no_part_are_listed() -> None:
    some = rows()
    twice = some[0].with_(id="train-zzz")
    strange = some[-1].with_(id="test-zzz", images=(picture(np.ones(WIDTH)),), meta={"label": "象"})
    small = Row("train-small", images=(picture(np.ones(1)),), split="train", meta={"label": "猫"})
    empty = Row("train-empty", images=some[0].images, split="train", meta={"label": ""})
    bare = Row("train-bare", split="train", meta={"label": "猫"})
    for model, reason in ((Seer(), "the model's features of it are not numbers"), (Seer("embed"), "too small")):
        result = probe(model, [*some, twice, strange, small.with_(images=(tiny(),)), empty, bare])
        assert {d.where: d.reason for d in result.dropped} == {
            "train-empty": "column 'label' is empty",
            "train-bare": "no picture",
            "train-zzz": "the same picture and label as train-000",
            "train-small": reason,
            "test-zzz": "class '象' has no picture in split train",
        }
        assert "象" not in result.extra["classes"]


def tiny() -> Image:
    """A picture that can be read, of which the model makes no numbers."""
    return Image(array=np.zeros((1, 1, 3), np.uint8))


def test_why_a_picture_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(b"no picture")

    class Files(Seer):
        def features(self, items: Sequence[Item], layer: str = "pooled") -> np.ndarray:
            return super().features([picture(np.ones(1)) if isinstance(i, Image) and i.path else i for i in items])

    broken = Row("train-broken", images=(Image.open(file),), split="train", meta={"label": "猫"})
    (dropped,) = probe(Files(), [*rows(), broken]).dropped
    assert dropped.where == "train-broken" and "not a picture" in dropped.reason
    none = [
        broken.with_(id=f"{split}-{name}", split=split, meta={"label": name}, images=(picture([ord(letter)]),))
        for split, names in (("train", "ab"), ("test", "cd"))
        for name, letter in zip("ab", names, strict=True)
    ]
    with pytest.raises(TongganError, match="none of the 4 pictures can be read; the first: train-a"):
        probe(Files(), none)


def test_a_model_without_features_is_measured_by_its_vectors_and_says_so() -> None:
    assert probe(Seer("embed"), rows()).protocol.startswith("probe/v1: embed, not standardised")
    assert probe(Seer("embed", "features"), rows()).protocol.startswith("probe/v1: features pooled")
    with pytest.raises(CannotError, match="has no features of pictures; it can: chat"):
        probe(Seer("chat"), rows())


def test_classes_of_unequal_size_have_balanced_accuracy() -> None:
    some = rows(test=30)
    some += [
        row.with_(id=f"{row.id}+", images=(picture(row.images[0].array + 0.01),))
        for row in some
        if row.id.startswith("test") and row.meta["label"] == "猫"
    ]
    result = probe(Seer(), some)
    hits: dict[str, list[float]] = {}
    for item in result.items:
        hits.setdefault(item["truth"], []).append(item["acc1"])
    assert result.metrics["probe balanced accuracy"].value == pytest.approx(np.mean([np.mean(h) for h in hits.values()]))
    assert result.extra["majority"] == {"class": "猫", "share": 0.5}


def test_two_models_are_compared_on_the_same_pictures() -> None:
    some = rows(noise=2.0)
    good, blind = probe(Seer(), some, shots=[2]), probe(Seer(name="blind", scale=0.0), some, shots=[2])
    assert blind.metrics["probe 2-shot acc1"].value == 0, "equal scores are a mistake"
    difference = paired(good, blind)["probe 2-shot acc1"]
    assert difference.value == pytest.approx(good.score) and difference.low > 0
    with pytest.raises(UsageError, match="protocol"):
        paired(good, probe(Seer(), some[1:], shots=[2]))


def test_it_reads_back(tmp_path: Path) -> None:
    result = probe(Seer(), rows(), shots=1)
    again = Result.read(result.write(tmp_path, "probe"))
    assert again.metrics == result.metrics and list(again.items) == list(result.items) and again.extra == result.extra


def test_features_that_know_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    some = [row.with_(images=(picture(rng.normal(size=WIDTH)),)) for row in rows(60, 30, 600)]
    for shots in (None, 3):
        result = probe(Seer(), some, shots=shots)
        assert abs(result.score - 1 / 3) < 0.08
    assert Counter(item["truth"] for item in result.items).most_common(1)[0][1] == 200


def test_what_cannot_be_measured_is_told() -> None:
    some = rows()
    train, test = ([row for row in some if row.split == split] for split in ("train", "test"))
    with pytest.raises(UsageError, match=r"no labelled picture is in 'test' \(splits: train\).*doctor DATA --cured"):
        probe(Seer(), train)
    with pytest.raises(UsageError, match=r"in 'train' or 'test' \(splits: none\)"):
        probe(Seer(), [row.with_(split=None) for row in some])
    with pytest.raises(UsageError, match=r"split train has one class only \('猫'\)"):
        probe(Seer(), [*(row for row in train if row.meta["label"] == "猫"), *test])
    with pytest.raises(UsageError, match=r"11 pictures of each class .* class '狗' has 10, '猫' has 10, '鸟' has 10"):
        probe(Seer(), some, shots=11)
    with pytest.raises(UsageError, match=r"9 pictures of each class .*0\.2 of each class is kept .* '狗' has 8"):
        probe(Seer(), [*train, *test], shots=9)
    with pytest.raises(UsageError, match=r"split test has no picture left .* class '象'"):
        probe(Seer(), [*train, *(row.with_(meta={"label": "象"}) for row in test)])
    with pytest.raises(UsageError, match="no picture has a label in column 'klass'; columns: group, label"):
        probe(Seer(), some, label="klass")
    for shots, seeds in ((0, [0]), ([], [0]), (1, [])):
        with pytest.raises(UsageError, match="at least 1"):
            probe(Seer(), some, shots=shots, seeds=seeds)


def test_what_cannot_be_measured_is_told_before_anything_slow() -> None:
    model = Seer()
    with pytest.raises(UsageError):
        probe(model, rows(), shots=11)
    assert model.calls == 0
