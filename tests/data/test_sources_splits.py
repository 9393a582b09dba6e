"""Nothing that means, looks or is called the same stands on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from draw import encoded, saved

from tonggan.data.rows import Dataset
from tonggan.data.sources.splits import by_artist, by_concept, caption_key, concepts, held_out_captions, look_alikes
from tonggan.data.sources.stamps import Stamps
from tonggan.data.splits import leaks
from tonggan.types import Image, Row, Text, UsageError


def row(name: str, caption: str = "", **fields: str) -> Row:
    group = fields.pop("group", None)
    return Row(id=name, texts=(Text(caption, "en"),) if caption else (), group=group, meta=fields)


def many(n: int = 300) -> list[Row]:
    return [row(str(i), f"thing {i}", group=f"g{i // 2}", picture=f"p{i % 250}") for i in range(n)]


@pytest.mark.parametrize("text", ["A duck.", "duck", "The Duck!", "a  DUCK"])
def test_caption_key_is_blind_to_case_article_and_punctuation(text: str):
    assert caption_key(text) == "duck"


def test_concepts_are_transitive():
    rows = [
        row("0", "A duck."), row("1", "Duck!", picture="p"), row("2", "mallard", picture="p", group="g"),
        row("3", "drake", group="g"), row("4", "goose"),
    ]  # fmt: skip
    assert concepts(rows) == [0, 0, 0, 0, 4]


def test_keywords_after_the_name_join_nothing():
    a = Row(id="a", texts=(Text("cup", "en"), Text("thing", "en")))
    b = Row(id="b", texts=(Text("hat", "en"), Text("thing", "en")))
    assert concepts([a, b]) == [0, 1]
    zh = [Row(id=str(i), texts=(Text(en, "en"), Text("墓碑。", "zh"))) for i, en in enumerate(("A gravestone.", "A tombstone."))]
    assert concepts(zh) == [0, 0]


def test_by_concept_has_no_leak_and_about_the_wanted_shares():
    split = by_concept(many(3000))
    for key in ("picture",):
        sides: dict[str, set[str | None]] = {}
        for one in split:
            sides.setdefault(one.meta[key], set()).add(one.split)
        assert all(len(side) == 1 for side in sides.values())
    by_group: dict[str | None, set[str | None]] = {}
    for one in split:
        by_group.setdefault(one.group, set()).add(one.split)
    assert all(len(side) == 1 for side in by_group.values())


def test_pictures_that_look_alike_are_one_concept():
    rows = [row(str(i), f"thing {i}", group=f"g{i}").with_(images=(Image(data=encoded(i)),)) for i in range(60)]
    rows += [row(f"again {i}", f"other {i}", group=f"o{i}").with_(images=(Image(data=encoded(i, quality=60)),)) for i in range(20)]
    assert leaks(Dataset.from_rows(by_concept(rows)), by=("picture",))
    split = by_concept(rows, alike=look_alikes(rows))
    assert leaks(Dataset.from_rows(split), by=("picture",)) == []
    alone = by_concept(rows)
    assert [one.split for one in split[:60]] == [one.split for one in alone[:60]], "only what is joined may move"


def test_by_concept_shares_seed_and_stability():
    rows = [row(str(i), f"thing {i}", group=f"g{i}") for i in range(3000)]
    split = by_concept(rows)
    count = Counter(one.split for one in split)
    assert 240 < count["test"] < 360 and 240 < count["val"] < 360
    assert [one.split for one in by_concept(rows[:1000])] == [one.split for one in split[:1000]]
    assert [one.split for one in by_concept(rows, seed=1)] != [one.split for one in split]


def test_a_huge_concept_is_for_training():
    for seed in range(20):
        rows = by_concept([row(str(i), group="stars") for i in range(40)], seed=seed)
        assert {one.split for one in rows} == {"train"}


def test_by_artist_never_puts_one_artist_on_both_sides():
    rows = [row(f"{a}{i}", artist=a) for a in ("x", "y", "z") for i in range(3)] + [row("unsigned")]
    split = by_artist(rows, "y")
    assert {(one.meta["artist"], one.split) for one in split} == {("x", "train"), ("y", "test"), ("z", "train")}
    with pytest.raises(UsageError, match="did you mean"):
        by_artist([row("a", artist="google")], "gogle")


def test_held_out_captions_are_unique_unseen_and_as_many_as_asked():
    rows = many()
    split = held_out_captions(rows, seed=3, test=40, val=10)
    by_side = {side: [one for one in split if one.split == side] for side in ("train", "val", "test", "spare")}
    assert (len(by_side["test"]), len(by_side["val"])) == (40, 10)
    assert len({caption_key(one.texts[0].text) for one in by_side["test"]}) == 40
    number = dict(zip((one.id for one in rows), concepts(rows), strict=True))
    seen = {number[one.id] for one in by_side["train"]}
    assert not seen & {number[one.id] for side in ("val", "test", "spare") for one in by_side[side]}
    assert sum(map(len, by_side.values())) == len(rows)


def test_held_out_captions_follow_the_seed():
    rows = many()
    sides = [[one.split for one in held_out_captions(rows, seed=seed, test=40, val=10)] for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]
    with pytest.raises(UsageError, match="1050 concepts to hold out, but there are only 125 with a caption in 'en'"):
        held_out_captions(rows, seed=0, test=1000)


def test_stamps_without_a_description_in_the_languages_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))
    for number, (name, said) in enumerate({"duck": "A duck.\nzh_CN.utf8=一只鸭子。", "goose": "A goose."}.items()):
        saved(tmp_path / f"{name}.png", number)
        (tmp_path / f"{name}.txt").write_text(said, "utf-8")
    stamps = Stamps(tmp_path).rows(size=16, languages=("zh", "zh-TW"))
    assert [one.id for one in stamps] == ["stamps/duck"]
    assert [(one.where, one.reason) for one in stamps.dropped] == [("stamps/goose", "no description in zh, zh-TW")]
