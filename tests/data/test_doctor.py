"""The doctor on a healthy data set, on one with planted faults, and on one as people send it."""

from __future__ import annotations

import json
import time

import numpy as np
import openpyxl
import PIL.Image
import pytest
from draw import encoded, picture, saved

from tonggan.data.doctor import doctor
from tonggan.data.rows import Dataset
from tonggan.types import Image, Row, Text, TongganError, UsageError


def healthy(n: int = 40) -> list[Row]:
    return [
        Row(
            id=f"r{i}",
            images=(Image(data=encoded(i)),),
            texts=(Text(f"picture number {i}", "en"), Text(f"第{i}张图片", "zh")),
            split=["train", "train", "val", "test"][i % 4],
        )
        for i in range(n)
    ]


def codes(diagnosis, severity):
    return {one.code: one.count for one in diagnosis.findings if one.severity == severity}


def test_a_healthy_data_set_is_left_in_peace():
    diagnosis = doctor(Dataset.from_rows(healthy()), strict=True)
    assert diagnosis.ok and diagnosis.findings == () and diagnosis.proposal is None
    assert diagnosis.facts["languages"] == {"en": 40, "zh": 40} and diagnosis.facts["splits"] == {"train": 20, "val": 10, "test": 10}
    assert diagnosis.facts["shorter side"] == {"least": 40, "median": 40, "most": 40}


class Ten:
    """A tokenizer that reads ten characters."""

    def encode(self, texts):
        return [list(range(min(len(t), 10))) for t in texts], [n for n, t in enumerate(texts) if len(t) > 10]


def test_planted_faults_are_found_exactly(monkeypatch):
    monkeypatch.setattr("tonggan.data.examine.GIANT_PIXELS", 500_000)
    rows = [row.with_(texts=(Text(f"no. {i}", "en"),)) for i, row in enumerate(healthy())]
    large = PIL.Image.effect_noise((1000, 600), 50).convert("RGB")
    rows[0] = rows[0].with_(images=(Image(data=encoded(0)[:500]),))  # unreadable
    rows[1] = rows[1].with_(group="g", texts=(Text("more than ten letters", "en"),))  # leak by group with 2; truncated
    rows[2] = rows[2].with_(group="g")
    rows[4] = rows[4].with_(images=(Image(data=encoded(7, "PNG")),))  # near duplicate of 7, which is in test
    rows[8] = rows[8].with_(images=(Image(array=large),))  # giant
    rows[9] = rows[9].with_(images=(Image(array=np.asarray(picture(99, (9, 9)))),))  # tiny
    rows[12] = rows[12].with_(texts=(Text("No. 13", "en"), Text("只有一条中文", "zh")))  # repeated caption; a rare language
    rows[16] = rows[16].with_(texts=())  # no caption
    rows[20] = rows[20].with_(split=None)  # on no side
    rows.append(Row(id="hollow", split="train"))
    diagnosis = doctor(Dataset.from_rows(rows), tokenizer=Ten())
    assert codes(diagnosis, "error") == {"unreadable": 1, "hollow": 1, "no-side": 1, "leak-group": 1, "leak-picture": 1}
    assert codes(diagnosis, "warning") == {
        "giant": 1, "tiny": 1, "near-duplicate": 2, "no-caption": 1, "repeated-caption": 1, "rare-language": 1, "truncated": 1,
    }  # fmt: skip
    assert not diagnosis.ok
    examples = {one.code: [e.where for e in one.examples] for one in diagnosis.findings}
    assert examples["unreadable"] == ["r0"] and examples["leak-picture"] == ["r4", "r7"] and examples["leak-group"] == ["r1", "r2"]
    assert examples["giant"] == ["r8"] and examples["truncated"] == ["r1"] and examples["hollow"] == ["hollow"]
    cured = diagnosis.cured()
    assert (
        len(cured) == 40 and "r0" not in cured.column("id") and cured.dropped[-1].where == "r0" and "truncated" in cured.dropped[-1].reason
    )


def test_frames_of_one_group_may_look_alike():
    rows = healthy()
    for n in (4, 5):  # both in train
        rows[n] = rows[n].with_(images=(Image(data=encoded(4, quality=60 + n)),))
    assert codes(doctor(Dataset.from_rows(rows)), "warning") == {"near-duplicate": 2}
    grouped = [row.with_(group="clip") if row.id in ("r4", "r5") else row for row in rows]
    assert doctor(Dataset.from_rows(grouped), strict=True).ok


def test_one_artist_and_one_caption_on_both_sides_are_worth_a_warning():
    rows = healthy()
    rows[1] = rows[1].with_(meta={"artist": "张三"}, texts=(Text("a sunset", "en"), Text("日落", "zh")))
    rows[2] = rows[2].with_(meta={"artist": "张三"}, texts=(Text("A sunset.", "en"), Text("黄昏", "zh")))
    diagnosis = doctor(Dataset.from_rows(rows))
    assert diagnosis.ok and codes(diagnosis, "warning") == {"leak-artist": 1, "leak-caption": 1, "repeated-caption": 1}


def test_the_same_thing_by_another_artist_is_no_error():
    rows = [row.with_(group=f"thing {i % 20}", meta={"artist": "甲" if i < 20 else "乙"}) for i, row in enumerate(healthy())]
    rows[20] = rows[20].with_(images=rows[0].images)
    split = [row.with_(split="train" if row.meta["artist"] == "甲" else "test") for row in rows]
    diagnosis = doctor(Dataset.from_rows(split))
    assert diagnosis.ok and codes(diagnosis, "warning") == {"leak-group": 20, "leak-picture": 1}
    assert "on both sides of a split by artist: 20 sets of one meaning" in diagnosis.text()
    # An artist on both sides, or so few works of each that it may be chance: no split by artist.
    moved = [row.with_(split="test") if row.id == "r1" else row for row in split]
    signed = [row.with_(meta={"artist": row.id}) for row in split]
    for other in (moved, signed):
        assert codes(doctor(Dataset.from_rows(other)), "error")["leak-group"] > 15


def test_spare_rows_are_on_no_side():
    rows = healthy()
    rows[0] = rows[0].with_(split="spare", group="g")
    rows[1] = rows[1].with_(group="g")
    rows[2] = rows[2].with_(images=rows[0].images)
    diagnosis = doctor(Dataset.from_rows(rows))
    assert codes(diagnosis, "error") == {} and codes(diagnosis, "warning") == {"near-duplicate": 2}


def test_warnings_fail_only_when_strict():
    rows = healthy()
    rows[5] = rows[5].with_(split="dev")
    dataset = Dataset.from_rows(rows)
    assert doctor(dataset).ok and not doctor(dataset, strict=True).ok
    assert codes(doctor(dataset), "warning") == {"small-split": 1}


def test_data_as_people_send_it(tmp_path):
    folder = tmp_path / "数据"
    book = openpyxl.Workbook()
    book.active.append(["编号", "图片", "标题"])
    for n in range(30):
        saved(folder / "图片" / f"照片 {n}.jpg", n)
        book.active.append([n, f"图片\\照片 {n}.jpg", f"第{n}张照片"])
    frame = picture(500, (120, 90))
    for k in range(3):
        frame.point(lambda v, k=k: min(255, v + 2 * k)).save(folder / "图片" / f"帧{k}.png")
        book.active.append([100 + k, f"图片\\帧{k}.png", f"第{k}帧"])
    book.active.append([200, "图片\\没有.jpg", "不见了"])
    book.active.append([201, "图片\\照片 1.jpg", None])
    (folder / "图片" / "坏.jpg").write_bytes(encoded(77)[:300])
    book.active.append([202, "图片\\坏.jpg", "坏的"])
    book.save(folder / "表格.xlsx")

    diagnosis = doctor(folder / "表格.xlsx", image_col="图片", text_col="标题")
    assert codes(diagnosis, "error") == {"dropped": 2} and codes(diagnosis, "warning") == {"empty-caption": 1, "near-duplicate": 3}
    lost = {e.where: e.detail for one in diagnosis.findings if one.code in ("dropped", "empty-caption") for e in one.examples}
    assert lost == {
        "表格.xlsx:35": "图片\\没有.jpg: no such file",
        "表格.xlsx:36": "图片\\照片 1.jpg: empty caption",
        "表格.xlsx:37": "图片/坏.jpg: truncated",
    }
    cured = diagnosis.cured()
    sides = {row.split for row in cured if row.images[0].path.name.startswith("帧")}
    assert len(sides) == 1 and set(cured.splits) == {"train", "val", "test"}
    for again in (doctor(Dataset.read(cured.write(tmp_path / "run"))), doctor(tmp_path / "run")):
        assert again.ok and not again.facts["splits"].get("")
        assert codes(again, "info") == {"dropped-before": 3, "note": 1}, "what was left out is known, and no fault any more"
        assert "写入这份数据之前已略去 3 行" in again.text("zh")

    told = json.loads(json.dumps(diagnosis.to_dict(), ensure_ascii=False))
    assert told["ok"] is False and told["rows"] == 33 and sum(told["proposal"]["counts"].values()) == 33
    for one in told["findings"]:
        assert set(one) == {"code", "severity", "count", "message", "examples"} and one["message"]["en"] and one["message"]["zh"]
        assert all(set(e) == {"row", "where", "detail"} for e in one["examples"])
    assert "有 2 行无法使用" in diagnosis.text("zh") and "✗ 2 rows cannot be used" in diagnosis.text()


def test_data_that_hang_together_cannot_be_split_and_a_wrong_column_is_an_error(tmp_path):
    rows = [row.with_(split=None, group="one") for row in healthy(12)]
    diagnosis = doctor(Dataset.from_rows(rows))
    assert codes(diagnosis, "warning") == {"no-split": 12, "dominant-group": 12} and diagnosis.proposal is None
    (tmp_path / "t.csv").write_text("图片,标题\na.jpg,x\n", "utf-8")
    with pytest.raises(UsageError, match="did you mean '标题'"):
        doctor(tmp_path / "t.csv", text_col="标")


def test_pictures_that_are_addresses_must_be_downloaded(tmp_path):
    lines = [f"https://example.org/{n}.jpg,picture {n}" for n in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["图片,标题", *lines]), "utf-8")
    diagnosis = doctor(tmp_path / "t.csv")
    assert not diagnosis.ok and codes(diagnosis, "error") == {"remote": 12}
    assert "12 pictures are addresses on the network; download them first" in diagnosis.text() and "只是网址" in diagnosis.text("zh")
    assert "https://example.org/0.jpg" in diagnosis.text()
    with pytest.raises(TongganError, match=r"none of the 12 rows can be used; the first: t.csv:2: an address on the network"):
        diagnosis.cured()
    rows = [*healthy(), Row(id="far", images=(Image(url="https://example.org/1.jpg"),), texts=(Text("far"),), split="train")]
    mixed = doctor(Dataset.from_rows(rows))
    assert codes(mixed, "error") == {"remote": 1} and "1 picture is an address" in mixed.text()
    assert len(mixed.cured()) == 40 and mixed.cured().dropped[-1].where == "far"


def test_a_thousand_small_pictures_take_seconds():
    dataset = Dataset.from_rows(Row(id=str(n), images=(Image(data=encoded(n)),), texts=(Text(f"n {n}"),)) for n in range(1000))
    start = time.process_time()
    assert doctor(dataset).facts["pictures"] == 1000
    assert time.process_time() - start < 5
