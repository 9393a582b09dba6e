"""Ranks against a brute-force sort, retrieval against hand-worked cases, intervals against their promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from tonggan.evaluate import Result, class_vectors, classification, mean_interval, paired, retrieval
from tonggan.evaluate.metrics.ranks import chance_at, median_rank, ranks
from tonggan.types import CannotError, Embeddings, EmbedOptions, Identity, Image, Item, Model, Row, Text, UsageError, as_part


class Fake(Model):
    """Embeds pictures by their array, texts by a table; anything else is unreadable."""

    def __init__(self, table: dict[str, list[float]], name: str = "fake") -> None:
        self.table, self.name = table, name
        self.can, self.modalities = frozenset({"embed"}), frozenset({"text", "image"})
        self.identity = Identity({}, name)

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        rows, errors = [], {}
        for i, part in enumerate(map(as_part, items)):
            vector = self.table.get(part.text) if isinstance(part, Text) else part.array
            if vector is None:
                errors[i] = "unreadable"
            rows.append(np.asarray(vector if vector is not None else [0, 0, 0], dtype=np.float32))
        return Embeddings(np.stack(rows), errors)


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), m=st.integers(2, 30), tile=st.integers(1, 50))
def test_ranks_equal_a_sort(seed: int, n: int, m: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    q, c = unit(rng, n, 4), unit(rng, m, 4)
    c[rng.integers(m)] = c[rng.integers(m)]  # a duplicate, so that ties happen
    positives = [sorted(rng.choice(m, size=rng.integers(1, 3), replace=False).tolist()) for _ in range(n)]
    got = ranks(q, c, positives, tile=tile)
    for i in range(n):
        # The tie with a duplicate depends on the last bit of a matrix product, so the reference uses the same product.
        scores = (q[i // tile * tile : (i // tile + 1) * tile] @ c.T)[i % tile]
        best = max(scores[p] for p in positives[i])
        wrong = sorted((s for j, s in enumerate(scores) if j not in positives[i]), reverse=True)
        assert got[i] == 1 + sum(s >= best for s in wrong)


def test_collapsed_embeddings_get_the_worst_rank_not_the_best() -> None:
    same = np.ones((20, 3), np.float32)
    assert (ranks(same, same, [[i] for i in range(20)]) == 20).all()


def test_not_a_number_never_helps() -> None:
    q = np.eye(3, dtype=np.float32)
    c = q.copy()
    c[1] = np.nan
    assert ranks(q, c, [[0], [1], [2]]).tolist() == [2, 1, 2]


def test_chance_is_hypergeometric() -> None:
    assert chance_at(1, 10, 1) == pytest.approx(0.1)
    assert chance_at(2, 4, 2) == pytest.approx(1 - (2 / 4) * (1 / 3))
    assert chance_at(10, 5, 1) == 1.0


def test_median_rank_is_open_clips() -> None:
    assert median_rank(np.array([1, 2, 3, 4])) == 2  # floor(1.5) + 1


def picture(*v: float) -> Image:
    return Image(array=np.array(v, dtype=np.float32))


ROWS = [
    Row(id="a", images=(picture(1, 0, 0),), texts=(Text("a cat", "en"), Text("one cat", "en"), Text("一只猫", "zh"))),
    Row(id="b", images=(picture(0, 1, 0),), texts=(Text("a dog", "en"), Text("一条狗", "zh"))),
    Row(id="c", images=(picture(0, 0, 1),), texts=(Text("a bird", "en"),)),
]
TABLE: dict[str, list[float]] = {
    "a cat": [1, 0, 0],
    "one cat": [0, 1, 0],
    "a dog": [0, 1, 0],
    "a bird": [0, 0.8, 0.6],
    "一只猫": [0, 1, 0],
    "一条狗": [0, 1, 0],
}


def test_retrieval_by_hand() -> None:
    result = retrieval(Fake(TABLE), ROWS)
    m = {k: v.value for k, v in result.metrics.items()}
    # Texts to pictures, English: cat 1, one cat (scores 0 0: tie with c, beaten by b) 3, dog 1, bird (b beats) 2.
    assert m["t2i en R@1"] == 0.5
    assert m["t2i en mean rank"] == pytest.approx((1 + 3 + 1 + 2) / 4)
    # Pictures to texts: a finds "a cat" first; b ties with "one cat" so 2; c finds bird first.
    assert m["i2t en R@1"] == pytest.approx(2 / 3)
    assert m["i2t zh R@1"] == pytest.approx(0.0)  # a scores 0 for both; b scores 1 for both: ties count against
    assert result.metrics["t2i en R@1"].chance == pytest.approx(1 / 3)
    assert len(result.items) == 4 + 3 + 2 + 2


def test_same_group_and_same_caption_are_right_answers() -> None:
    rows = [
        Row(id="a", images=(picture(1, 0, 0),), texts=(Text("cat", "en"),), group="cat"),
        Row(id="b", images=(picture(0, 1, 0),), texts=(Text("kitty", "en"),), group="cat"),
        Row(id="c", images=(picture(0, 0, 1),), texts=(Text("bird", "en"),)),
        Row(id="d", images=(picture(0, 0.6, 0.8),), texts=(Text("bird", "en"),)),
    ]
    table: dict[str, list[float]] = {"cat": [0, 1, 0], "kitty": [1, 0, 0], "bird": [0, 0.6, 0.8]}
    result = retrieval(Fake(table), rows)
    assert result.metrics["t2i en R@1"].value == 1.0
    assert result.metrics["i2t en R@1"].value == 1.0


def test_unreadable_picture_is_listed_and_leaves_the_gallery() -> None:
    broken = Row(id="x", images=(Image(url="data:,"),), texts=(Text("a dog", "en"),))
    result = retrieval(Fake(TABLE), [*ROWS, broken], langs=["en"])
    assert [d.where for d in result.dropped] == ["x"]
    assert not any(item["cluster"] == "x" for item in result.items)


def test_missing_language_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="there are: en, zh"):
        retrieval(Fake(TABLE), ROWS, langs=["ja"])


def test_a_text_model_cannot() -> None:
    model = Fake(TABLE)
    model.modalities = frozenset({"text"})
    with pytest.raises(CannotError, match="needs text and image"):
        retrieval(model, ROWS)


def test_order_of_rows_changes_nothing() -> None:
    forward, backward = retrieval(Fake(TABLE), ROWS), retrieval(Fake(TABLE), ROWS[::-1])
    assert {k: v.value for k, v in forward.metrics.items()} == pytest.approx({k: v.value for k, v in backward.metrics.items()})
    assert all(e.value == 0 for e in paired(forward, backward).values())


def test_paired_difference_with_oneself_is_zero_and_swaps_sign() -> None:
    good = Fake({k: [float(x) for x in v] for k, v in TABLE.items()}, "good")
    bad = Fake({k: [1.0, 0, 0] for k in TABLE}, "bad")
    a, b = retrieval(good, ROWS), retrieval(bad, ROWS)
    assert all(e.value == e.low == e.high == 0 for e in paired(a, a).values())
    ab, ba = paired(a, b), paired(b, a)
    assert all(ab[k].value == -ba[k].value for k in ab)


def test_mean_recall_weighs_directions_and_languages_equally() -> None:
    m = retrieval(Fake(TABLE), ROWS).metrics
    parts = [m[f"{d} {lang} R@{k}"].value for d in ("t2i", "i2t") for lang in ("en", "zh") for k in (1, 5, 10)]
    assert m["mean recall"].value == pytest.approx(np.mean(parts))
    assert m["mean recall"].low <= m["mean recall"].value <= m["mean recall"].high


def test_paired_refuses_other_items_and_protocols() -> None:
    a, b = retrieval(Fake(TABLE), ROWS), retrieval(Fake(TABLE), ROWS[:2])
    with pytest.raises(UsageError, match="in one result only"):
        paired(a, b)
    with pytest.raises(UsageError, match="protocol"):
        paired(a, Result("other/v1", "m", "", "", "x", {}))


def test_written_result_reads_back(tmp_path: object) -> None:
    result = retrieval(Fake(TABLE), ROWS)
    again = Result.read(result.write(str(tmp_path), "r"))
    assert again.metrics == dict(result.metrics)
    assert list(again.items) == list(result.items)


def test_interval_covers_at_its_rate_and_clusters_widen_it() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        per_cluster = rng.random(60) < 0.4
        values = np.repeat(per_cluster, 5).astype(float)
        clusters = np.repeat(np.arange(60), 5).tolist()
        estimate = mean_interval(values, clusters, resamples=400, seed=trial)
        covered += estimate.low <= 0.4 <= estimate.high
        if trial == 0:
            naive = mean_interval(values, list(range(300)), resamples=400)
            assert estimate.high - estimate.low > 1.6 * (naive.high - naive.low)
    assert 178 <= covered <= 198  # 95 % of 200 is 190; a percentile interval of 60 clusters is a little narrow


def test_classification_against_sklearn() -> None:
    rng = np.random.default_rng(3)
    names = [f"k{i}" for i in range(7)]
    heads = unit(rng, 7, 3)
    table = {t.replace("{}", n): heads[i].tolist() for i, n in enumerate(names) for t in ("a {}", "{}")}
    rows = [
        Row(id=str(i), images=(Image(array=unit(rng, 1, 3)[0]),), meta={"label": names[int(rng.integers(7)) if i > 6 else i]})
        for i in range(80)
    ]
    result = classification(Fake(table), rows, templates=["a {}", "{}"])
    truth, guess = [it["truth"] for it in result.items], [it["guess"] for it in result.items]
    assert result.metrics["zero-shot en acc1"].value == pytest.approx(np.mean(np.array(truth) == np.array(guess)))
    assert result.metrics["zero-shot en balanced accuracy"].value == pytest.approx(balanced_accuracy_score(truth, guess))
    assert result.metrics["zero-shot en acc5"].value > result.metrics["zero-shot en acc1"].value


def test_prompts_are_averaged_and_renormalised() -> None:
    model = Fake({"a x": [1, 0, 0], "x": [0, 1, 0]})
    assert class_vectors(model, ["x"], templates=["a {}", "{}"])[0] == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_template_without_a_place_for_the_name() -> None:
    with pytest.raises(UsageError, match="needs"):
        class_vectors(Fake({}), ["x"], templates=["a picture"])


def test_wrong_label_column_names_the_columns() -> None:
    rows = [Row(id="1", images=(picture(1, 0, 0),), meta={"类别": "猫"})]
    with pytest.raises(UsageError, match="类别"):
        classification(Fake({}), rows)
