"""Ranks against a brute-force sort, retrieval against hand-worked cases, intervals against their promises."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, ndcg_score

from tonggan.evaluate import Result, class_vectors, classification, mean_interval, paired, retrieval
from tonggan.evaluate.metrics.ranks import chance_at, expected_rank, median_rank, ranks
from tonggan.evaluate.resample import Estimate, Measure, Statistic, intervals, mean, mean_of_groups, statistic_interval
from tonggan.types import CannotError, Embeddings, EmbedOptions, Identity, Image, Item, Model, Row, Text, TongganError, UsageError, as_part


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
    assert ranks(q, c, [[0], [1], [2]]).tolist() == [2, 3, 2]
    assert ranks(q, c, [[0, 1], [1, 2], [2]]).tolist() == [1, 2, 2]
    assert ranks(q * np.nan, q, [[0], [1], [2]]).tolist() == [3, 3, 3]


def test_a_model_of_not_a_number_recognises_nothing() -> None:
    rows = [Row(id=str(i), images=(picture(*np.eye(3)[i]),), meta={"label": f"k{i}"}) for i in range(3)]
    for table in ({f"k{i}": [np.nan] * 3 for i in range(3)}, {"k0": [np.nan] * 3, "k1": [0, 1, 0], "k2": [0, 0, 1]}):
        result = classification(Fake(table), rows, templates=["{}"])
        assert result.metrics["zero-shot en acc1"].value == 0
        assert not any(item["guess"] == item["truth"] for item in result.items)


def test_chance_is_hypergeometric() -> None:
    assert chance_at(1, 10, 1) == pytest.approx(0.1)
    assert chance_at(2, 4, 2) == pytest.approx(1 - (2 / 4) * (1 / 3))
    assert chance_at(10, 5, 1) == 1.0


def test_expected_rank_is_the_mean_over_all_orders() -> None:
    orders = list(itertools.permutations(range(5)))
    for right in (1, 2, 4):
        found = np.mean([1 + min(order.index(i) for i in range(right)) for order in orders])
        assert expected_rank(5, right) == pytest.approx(found)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_median_rank_is_open_clips_of_what_is_drawn(seed: int, n: int) -> None:
    """floor(median of zero-based ranks) + 1, of each rank repeated as often as a resample counts it."""
    rng = np.random.default_rng(seed)
    values, times = rng.integers(1, 9, size=n).astype(float), rng.integers(0, 4, size=(5, n)).astype(float)
    times[:, 0] += 1
    expected = [np.floor(np.median(np.repeat(values, t.astype(int)) - 1)) + 1 for t in times]
    assert median_rank(values, times).tolist() == expected


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_mean_of_groups_leaves_out_what_is_not_drawn(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    group, value, times = rng.integers(4, size=n), rng.random(n), rng.integers(0, 2, size=(5, n)).astype(float)
    times[:, 0] += 1
    drawn = [(np.repeat(group, t.astype(int)), np.repeat(value, t.astype(int))) for t in times]
    expected = [np.mean([v[g == one].mean() for one in np.unique(g)]) for g, v in drawn]
    assert mean_of_groups(np.stack([group, value], axis=1), times) == pytest.approx(expected)


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


def test_retrieval_gives_the_metrics_of_whole_rankings_too() -> None:
    """Each query's average precision, nDCG of ten and reciprocal rank by the scores and the right candidates themselves."""
    rng = np.random.default_rng(4)
    words = [(f"t{i}", *([f"u{i}"] if i % 3 == 0 else [])) for i in range(25)]
    seen, table = unit(rng, 25, 4), {t: unit(rng, 1, 4)[0] for texts in words for t in texts}
    groups = [i // 4 if i < 12 else i for i in range(25)]
    rows = [
        Row(id=str(i), images=(picture(*seen[i]),), texts=tuple(Text(t, "en") for t in words[i]), group=str(groups[i])) for i in range(25)
    ]
    result = retrieval(Fake({t: v.tolist() for t, v in table.items()}), rows)
    told = [(i, t) for i, texts in enumerate(words) for t in texts]
    scores = np.stack([table[t] for _, t in told]) @ seen.T
    right = np.array([[groups[i] == groups[j] for j in range(25)] for i, _ in told])
    for task, s, r in (("t2i en", scores, right), ("i2t en", scores.T, right.T)):
        items = [item for item in result.items if item["task"] == task]
        assert [item["ap"] for item in items] == pytest.approx([average_precision_score(b, a) for a, b in zip(s, r, strict=True)], abs=1e-9)
        assert [item["ndcg"] for item in items] == pytest.approx([ndcg_score(b[None], a[None], k=10) for a, b in zip(s, r, strict=True)])
        assert [item["rr"] for item in items] == pytest.approx([1 / item["rank"] for item in items])
        for key in ("ap", "ndcg", "rr"):
            assert result.metrics[f"{task} {key}"].value == pytest.approx(np.mean([item[key] for item in items]))
    assert result.extra["metrics"]["ndcg"].endswith("first 10, binary")


def test_rsum_is_the_sum_of_both_directions_recalls_per_language() -> None:
    result = retrieval(Fake(TABLE), ROWS)
    assert result.extra["rsum"].keys() == {"en", "zh"}
    for lang, told in result.extra["rsum"].items():
        parts = [result.metrics[f"{way} {lang} R@{k}"] for way in ("t2i", "i2t") for k in (1, 5, 10)]
        assert told["value"] == pytest.approx(100 * sum(part.value for part in parts))
        assert told["chance"] == pytest.approx(100 * sum(part.chance or 0 for part in parts))
        assert told["low"] <= told["value"] <= told["high"] <= 600
    plain = retrieval(Fake(TABLE), ROWS, intervals=False).extra["rsum"]["en"]
    assert plain["value"] == result.extra["rsum"]["en"]["value"] and np.isnan(plain["low"])


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


def test_rows_of_one_picture_are_one_picture(tmp_path: Path) -> None:
    """A table with one caption per line: a model that finds everything scores 1, in either way of holding pictures."""
    where = {name: np.eye(3)[i] for i, name in enumerate("abc")}
    files = {name: tmp_path / f"{name}.png" for name in where}
    for file in files.values():
        file.touch()
    lines = [(f"{name}{n}", name, f"{name} {n}") for name in where for n in range(3)]

    class Files(Fake):
        def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
            seen.append(len(items))
            return super().embed([picture(*where[p.path.stem]) if isinstance(p, Image) and p.path else p for p in items], options)

    for held in (lambda name: picture(*where[name]), lambda name: Image.open(files[name])):
        seen: list[int] = []
        rows = [Row(id=i, images=(held(name),), texts=(Text(words, "en"),)) for i, name, words in lines]
        result = retrieval(Files({words: where[name].tolist() for _, name, words in lines}), rows)
        assert result.metrics["t2i en R@1"].value == result.metrics["i2t en R@1"].value == 1
        assert seen == [3, 9], "each picture is encoded once"
        tasks = {task: [item for item in result.items if item["task"] == task] for task in ("t2i en", "i2t en")}
        assert [(item["candidates"], item["right"], item["cluster"]) for item in tasks["t2i en"]] == [(3, 1, f"{n}0") for n in "aaabbbccc"]
        assert [(item["candidates"], item["right"], item["query"]) for item in tasks["i2t en"]] == [(9, 3, f"{n}0") for n in "abc"]
        assert "6 rows show a picture that another row shows too" in result.notes[0]
        again = retrieval(Files({words: where[name].tolist() for _, name, words in lines}), rows[::-1])
        assert all(e.value == 0 for e in paired(result, again).values())


def test_a_picture_belongs_to_the_groups_of_all_its_rows() -> None:
    rows = [
        Row(id="a", images=(picture(1, 0, 0),), texts=(Text("cat", "en"),), group="cat"),
        Row(id="b", images=(picture(1, 0, 0),), texts=(Text("cat", "en"), Text("pet", "en")), group="pet"),
        Row(id="c", images=(picture(0, 1, 0),), texts=(Text("dog", "en"),), group="pet"),
        Row(id="d", images=(picture(0, 0, 1),), texts=(Text("bird", "en"),)),
    ]
    table: dict[str, list[float]] = {"cat": [0, 1, 0], "pet": [1, 0, 0], "dog": [0, 1, 0], "bird": [0, 0, 1]}
    result = retrieval(Fake(table), rows)
    assert {item["id"]: item["right"] for item in result.items} == {
        "t2i en a cat": 2, "t2i en a pet": 2, "t2i en c dog": 2, "t2i en d bird": 1, "i2t en a": 3, "i2t en c": 3, "i2t en d": 1,
    }  # fmt: skip
    assert result.metrics["t2i en R@1"].value == 1


def test_rows_that_take_no_part_are_listed() -> None:
    bare, wordless = Row(id="x", texts=(Text("a dog", "en"),)), Row(id="y", images=(picture(0, 0, 1),), meta={"label": ""})
    result = retrieval(Fake(TABLE), [bare, *ROWS, wordless], langs=["en"])
    assert [(d.where, d.reason) for d in result.dropped] == [("x", "no picture"), ("y", "no caption")]
    named = [row.with_(meta={"label": f"k{i}"}) for i, row in enumerate(ROWS)]
    found = classification(Fake({f"k{i}": np.eye(3)[i].tolist() for i in range(3)}), [bare, *named, wordless], templates=["{}"])
    assert [(d.where, d.reason) for d in found.dropped] == [("x", "no picture"), ("y", "column 'label' is empty")]


def test_unreadable_picture_is_listed_and_leaves_the_gallery() -> None:
    broken = Row(id="x", images=(Image(url="data:,"),), texts=(Text("a dog", "en"),))
    result = retrieval(Fake(TABLE), [*ROWS, broken], langs=["en"])
    assert [d.where for d in result.dropped] == ["x"]
    assert not any(item["cluster"] == "x" for item in result.items)


def test_unreadable_caption_is_listed_and_leaves_the_gallery() -> None:
    broken = Row(id="x", images=(picture(0, 0.6, 0.8),), texts=(Text("no such word", "en"), Text("a bird", "en")))
    result = retrieval(Fake(TABLE), [*ROWS, broken], langs=["en", "en"])
    assert [(d.where, d.reason) for d in result.dropped] == [("x", "unreadable")]
    assert {item["candidates"] for item in result.items if item["task"] == "i2t en"} == {5}
    assert not any(item["query"] == "no such word" for item in result.items)
    with pytest.raises(UsageError, match="none of 1 captions in 'en' could be read"):
        retrieval(Fake(TABLE), [broken.with_(texts=broken.texts[:1])])


def test_a_picture_without_the_language_is_a_candidate_but_no_query() -> None:
    result = retrieval(Fake(TABLE), ROWS, langs=["zh"])
    tasks = {task: [item for item in result.items if item["task"] == task] for task in ("t2i zh", "i2t zh")}
    assert {item["candidates"] for item in tasks["t2i zh"]} == {3}
    assert [item["cluster"] for item in tasks["i2t zh"]] == ["a", "b"]
    assert {item["candidates"] for item in tasks["i2t zh"]} == {2}
    # Of its group another row has the words: then it is a query.
    grouped = [row.with_(group="g") if row.id in "bc" else row for row in ROWS]
    again = retrieval(Fake(TABLE), grouped, langs=["zh"])
    assert [item["cluster"] for item in again.items if item["task"] == "i2t zh"] == ["a", "b", "c"]


def test_chance_of_every_metric_is_what_random_vectors_reach() -> None:
    """Several captions and groups: 60 models that know nothing, on average."""
    rng = np.random.default_rng(11)
    words = [(f"t{i}", *([f"u{i}"] if i % 3 == 0 else [])) for i in range(20)]
    groups = [f"g{i // 2}" if i < 6 else None for i in range(20)]

    def measured() -> dict[str, Estimate]:
        seen = [(picture(*v),) for v in unit(rng, 20, 30).tolist()]
        rows = [Row(id=str(i), images=seen[i], texts=tuple(Text(t, "en") for t in words[i]), group=groups[i]) for i in range(20)]
        table = {t: unit(rng, 1, 30)[0].tolist() for texts in words for t in texts}
        return dict(retrieval(Fake(table), rows, intervals=False).metrics)

    results = [measured() for _ in range(60)]
    known = {name: metric.chance for name, metric in results[0].items() if metric.chance is not None}
    assert results[0].keys() - known.keys() == {"t2i en median rank", "i2t en median rank"}
    for name, chance in known.items():
        values = [result[name].value for result in results]
        assert abs(np.mean(values) - chance) < 4 * np.std(values) / 60**0.5, name


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


def test_every_metric_has_its_paired_difference() -> None:
    """Mean recall, median and mean rank, accuracy and balanced accuracy too: the difference of both models' numbers."""
    rng = np.random.default_rng(5)
    rows = [
        Row(id=str(i), images=(picture(*unit(rng, 1, 3)[0]),), texts=(Text(f"t{i % 25}", "en"),), meta={"label": f"t{i % 7}"})
        for i in range(30)
    ]
    models = [Fake({f"t{i}": v.tolist() for i, v in enumerate(unit(rng, 25, 3))}, name) for name in "ab"]
    for task in (retrieval, lambda model, rows: classification(model, rows, templates=["{}"])):
        mine, theirs = (task(model, rows) for model in models)
        differences = paired(mine, theirs)
        assert differences.keys() == mine.metrics.keys()
        for name, difference in differences.items():
            assert difference.value == pytest.approx(mine.metrics[name].value - theirs.metrics[name].value)
            assert difference.low <= difference.value <= difference.high
            assert difference.low < difference.high


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
    with pytest.raises(UsageError, match="has no items"):
        paired(a, Result(a.protocol, "m", "", "", "x", {}))


def test_paired_refuses_the_same_questions_over_other_candidates() -> None:
    """English captions over three pictures and over four are not one task, nor are prompts in other words."""
    wordless = Row(id="d", images=(picture(0, 0.6, 0.8),), texts=(Text("一只鸟", "zh"),))
    a, b = (retrieval(Fake(TABLE | {"一只鸟": [0, 0, 1]}), rows, langs=["en"]) for rows in (ROWS, [*ROWS, wordless]))
    with pytest.raises(UsageError, match="candidates 3 in one result and 4"):
        paired(a, b)
    rows = [Row(id=str(i), images=(picture(*np.eye(3)[i]),), meta={"label": "xyz"[i]}) for i in range(3)]
    table: dict[str, list[float]] = {c: np.eye(3)[i].tolist() for i, c in enumerate("xyz")}
    table |= {f"a {c}": v for c, v in table.items()}
    a, b = (classification(Fake(table), rows, templates=[template]) for template in ("{}", "a {}"))
    with pytest.raises(UsageError, match="prompts"):
        paired(a, b)


def test_written_result_reads_back(tmp_path: object) -> None:
    result = retrieval(Fake(TABLE), ROWS)
    again = Result.read(result.write(str(tmp_path), "r"))
    assert again.metrics == dict(result.metrics)
    assert list(again.items) == list(result.items)


def test_a_caption_with_a_line_separator_reads_back(tmp_path: object) -> None:
    odd = "two\u2028lines\x85"
    rows = [*ROWS, Row(id="d", images=(picture(0, 0.6, 0.8),), texts=(Text(odd, "en"),))]
    result = retrieval(Fake(TABLE | {odd: [0, 0, 1]}), rows)
    assert list(Result.read(result.write(str(tmp_path), "r")).items) == list(result.items)


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


@pytest.mark.parametrize("statistic", [mean, mean_of_groups, median_rank], ids=lambda f: f.__name__)
def test_paired_intervals_cover_at_their_rate(statistic: Statistic) -> None:
    """Two models measured on the same 80 pictures, three queries each; both share what makes a picture hard, and one is a little better."""
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(80), 3).tolist()

    def outcomes(pictures: int) -> tuple[np.ndarray, np.ndarray]:
        hard = np.repeat(rng.gamma(2.0, size=pictures), 3)
        ranked = [1 + np.floor(10 * hard * rng.exponential(size=3 * pictures) * better) for better in (0.7, 1.0)]
        if statistic is median_rank:
            return ranked[0], ranked[1]
        kind = np.repeat(np.minimum(np.arange(pictures) % 8, 3), 3)  # groups of different size
        hits = [(r <= 5 + kind).astype(float) for r in ranked]
        if statistic is mean_of_groups:
            return np.stack([kind, hits[0]], axis=1), np.stack([kind, hits[1]], axis=1)
        return hits[0], hits[1]

    mine, theirs = outcomes(40_000)
    once = np.ones((1, 120_000))
    true = float(statistic(mine, once)[0] - statistic(theirs, once)[0])
    covered = 0
    for trial in range(200):
        (estimate,) = intervals([Measure(statistic, *outcomes(80))], clusters, resamples=300, seed=trial)
        covered += estimate.low <= true <= estimate.high
    assert 178 <= covered <= 199  # 95 % of 200 is 190; whole ranks make a median's interval a little wide


def test_a_small_language_does_not_pull_the_mean_recall_down() -> None:
    """Everything is found first, in English for 40 pictures and in Chinese for one: no resample may say otherwise."""
    rows = [
        Row(id=str(i), images=(picture(*v),), texts=(Text(f"e{i}", "en"), *([Text("z0", "zh")] if i == 0 else [])))
        for i, v in enumerate(np.eye(40).tolist())
    ]
    table = {f"e{i}": v for i, v in enumerate(np.eye(40).tolist())} | {"z0": np.eye(40)[0].tolist()}
    found = retrieval(Fake(table), rows).metrics["mean recall"]
    assert found.value == found.low == found.high == 1


def test_thousands_of_resamples_of_a_median_are_quick() -> None:
    rng = np.random.default_rng(0)
    found = rng.integers(1, 500, size=3000).astype(float)
    start = time.process_time()
    estimate = statistic_interval(found, np.repeat(np.arange(1000), 3).tolist(), median_rank)
    assert estimate.low <= estimate.value <= estimate.high
    assert time.process_time() - start < 5, "in numpy it takes a fraction of a second"


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


def test_two_classes_of_one_name_cannot_be_told_apart() -> None:
    rows = [Row(id=str(i), images=(picture(*np.eye(3)[i]),), meta={"label": "xyz"[i]}) for i in range(3)]
    with pytest.raises(UsageError, match="'x', 'z' are all called '猫'"):
        classification(Fake({}), rows, names={"x": "猫", "z": "猫"})


def test_a_prompt_that_cannot_be_embedded_is_told() -> None:
    with pytest.raises(TongganError, match="'a x' cannot be embedded: unreadable"):
        class_vectors(Fake({}), ["x"], templates=["a {}"])


def test_template_without_a_place_for_the_name() -> None:
    with pytest.raises(UsageError, match="needs"):
        class_vectors(Fake({}), ["x"], templates=["a picture"])


def test_wrong_label_column_names_the_columns() -> None:
    rows = [Row(id="1", images=(picture(1, 0, 0),), meta={"类别": "猫"})]
    with pytest.raises(UsageError, match="类别"):
        classification(Fake({}), rows)
