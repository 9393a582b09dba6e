"""Folders, archives and the benchmarks' files: read as published, and written back to what they can hold."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from draw import encoded, saved

from tonggan.data import formats
from tonggan.data.media import read_bytes
from tonggan.data.rows import Dataset
from tonggan.types import Audio, Image, Message, Row, Text, TongganError

# ------------------------------------------------------------------------------------------ round trips


def rich_rows(folder: Path) -> list[Row]:
    """Rows that use every field, pictures as files, as bytes, and (one) two of them."""
    files = [saved(folder / name, n) for n, name in enumerate(["图 片/猫.jpg", "dog.png", "鸟.webp"])]
    return [
        Row(
            id="1",
            images=(Image(path=files[0]),),
            texts=(Text('一只猫, "坐着"\n第二行', "zh"), Text("a cat", "en"), Text("un chat", "fr")),
            group="cat",
            split="train",
            meta={"artist": "张三", "title": "reserved word", "价格": "12"},
        ),
        Row(id="2", images=(Image(path=files[1]),), texts=(Text("=1+1 is no formula", "en"),), split="val"),
        Row(id="3", images=(Image(data=encoded(7)),), texts=(Text("bytes", "en"),), split="test", meta={"licence": "CC0"}),
        Row(
            id="4",
            images=(Image(path=files[2]), Image(data=encoded(8, "PNG"))),
            texts=(Text("两张", "zh"),),
            audios=(Audio(data=b"RIFFxx", rate=16000),),
            messages=(Message("user", (Text("看", "zh"), Image(data=encoded(9)))), Message("assistant", (Text("好"),))),
            question="几只？",
            choices=("一", "二"),
            answers=("二",),
            split="train",
        ),
    ]


def content(row: Row, holds: frozenset[str]) -> dict[str, object]:
    """What of a row a format promises to keep; pictures by their bytes."""
    texts = [(text.text, text.lang if "lang" in holds else None) for text in row.texts]
    return {
        "images": [read_bytes(image) for image in (row.images if "images" in holds else row.images[:1])],
        "texts": texts if "captions" in holds else texts[:1],
        "group": row.group if "group" in holds else None,
        "split": row.split if "split" in holds else None,
        "meta": dict(row.meta) if "meta" in holds else {},
        "audios": [(audio.rate, read_bytes(audio)) for audio in row.audios] if "media" in holds else [],
        "dialogue": (row.question, row.choices, row.answers, [len(m.parts) for m in row.messages]) if "dialogue" in holds else None,
    }


PLACES = {
    "rows": "out", "folder": "out", "csv": "out.csv", "excel": "out.xlsx", "jsonl": "out.jsonl", "parquet": "out.parquet",
    "webdataset": "out.tar", "coco": "out.json", "karpathy": "out.json", "flickr": "out.token", "chinese-clip": "out", "hf": "out",
}  # fmt: skip


@pytest.mark.parametrize("name", formats.FORMATS)
def test_what_a_format_holds_comes_back(tmp_path, name):
    rows = rich_rows(tmp_path / "here")
    place = tmp_path / "there" / PLACES[name]
    if name in ("coco", "karpathy", "flickr"):
        place = tmp_path / "here" / PLACES[name]
        rows = [row.with_(texts=tuple(Text(" ".join(t.text.split()), t.lang) for t in row.texts)) for row in rows]
    lost = formats.write(Dataset.from_rows(rows), place, name)
    again = formats.read(place, check="decode")
    assert again.dropped == ()
    format = formats.FORMATS[name]
    order = sorted(again, key=lambda row: row.texts[0].text)  # formats of a file per split bring their rows in that order
    assert [content(row, format.holds) for row in order] == [content(r, format.holds) for r in sorted(rows, key=lambda r: r.texts[0].text)]
    kept = [row for row in rows if format.keeps_id(row, place)]
    assert {row.id for row in kept} <= set(again.column("id"))
    everything = {"images", "captions", "lang", "group", "split", "meta", "media", "dialogue"}
    used = everything - ({"captions"} if "captions" in format.holds else set())
    assert {line.split(":")[0] for line in lost} - {"id"} == used - format.holds, "what is lost is said, and nothing else"


def test_detection_needs_no_help(tmp_path):
    data = Dataset.from_rows(rich_rows(tmp_path / "here"))
    for name, place in PLACES.items():
        where = tmp_path / "here" / f"{name}-{place}"
        formats.write(data, where, name)
        assert formats.detect(where) == name


def test_open_clips_columns_are_first(tmp_path):
    formats.write(Dataset.from_rows(rich_rows(tmp_path)), tmp_path / "t.tsv")
    header, first, *_ = (tmp_path / "t.tsv").read_text("utf-8").split("\n")
    assert header.split("\t")[:2] == ["filepath", "title"] and first.split("\t")[0] == "图 片/猫.jpg"


# ------------------------------------------------------------------------------- what a format cannot hold


def place_of(tmp_path: Path, name: str) -> Path:
    return tmp_path / ("here" if name in ("coco", "karpathy", "flickr") else "there") / PLACES[name]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_rows_that_a_format_cannot_hold_are_listed(tmp_path, name):
    file = saved(tmp_path / "here" / "a.jpg", 1)
    rows = [
        Row(id="good", images=(Image(path=file),), texts=(Text("a cat", "en"),)),
        Row(id="wordless", images=(Image(path=saved(tmp_path / "here" / "b.jpg", 2)),), texts=(Text(" "),)),
        Row(id="blind", texts=(Text("a dog", "en"),)),
        Row(id="far", images=(Image(url="https://example.org/c.jpg"),), texts=(Text("a bird", "en"),)),
    ]
    dropped = {one.where: one.reason for one in formats.write(Dataset.from_rows(rows), place_of(tmp_path, name), name).dropped}
    pairs, cells = ("coco", "karpathy", "flickr", "chinese-clip", "hf"), ("csv", "excel")
    expected = {"wordless": "no caption"} if name in pairs + cells else {}
    if name in (*pairs, *cells, "webdataset"):
        expected["blind"] = "no picture"
    if name in (*pairs, "webdataset"):
        expected["far"] = "https://example.org/c.jpg: a picture on the network; save it to a file first"
    assert dropped == expected
    again = formats.read(place_of(tmp_path, name))
    assert again.dropped == () and len(again) == len(rows) - len(dropped)


def test_when_no_row_can_be_held_it_is_an_error_and_nothing_is_written(tmp_path):
    rows = [Row(id="blind", texts=(Text("a dog", "en"),))]
    with pytest.raises(TongganError, match="no row can be written as coco, all 1 were dropped: blind: no picture"):
        formats.write(Dataset.from_rows(rows), tmp_path / "there" / "x.json", "coco")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["csv", "excel", "hf"])
def test_a_table_of_texts_or_of_pictures_alone_comes_back(tmp_path, name):
    texts = [
        Row(id="1", texts=(Text("a cat", "en"), Text("一只猫", "zh")), meta={"original": "a.png"}),
        Row(id="2", texts=(Text("a dog"),)),
    ]
    pictures = [Row(id=str(n), images=(Image(path=saved(tmp_path / f"{n}.jpg", n)),), meta={"class": "x"}) for n in (1, 2)]
    for rows in (texts, pictures):
        where = tmp_path / str(len(rows[0].texts)) / PLACES[name]
        assert formats.write(Dataset.from_rows(rows), where, name).dropped == ()
        again = formats.read(where)
        assert [(row.id, len(row.images), len(row.texts), dict(row.meta)) for row in again] == [
            (row.id, len(row.images), len(row.texts), dict(row.meta)) for row in rows
        ]


@pytest.mark.parametrize("name", [name for name in formats.FORMATS if name != "rows"])  # tests/data/test_rows.py looks at that one
def test_a_writing_that_fails_leaves_nothing_half_made(tmp_path, monkeypatch, name):
    data = Dataset.from_rows(rich_rows(tmp_path / "here")[:3])
    place = tmp_path / "there" / PLACES[name]
    format = formats.FORMATS[name]

    def broken(dataset, job):
        format.write(dataset, job)
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(formats.FORMATS, name, replace(format, write=broken))
    with pytest.raises(OSError, match="No space"):
        formats.write(data, place, name)
    assert list(place.parent.iterdir()) == []


def test_a_folder_that_holds_the_pictures_takes_its_table_in(tmp_path):
    rows = rich_rows(tmp_path / "here")[:3]
    formats.write(Dataset.from_rows(rows), tmp_path / "here", "folder")
    again = formats.read(tmp_path / "here")
    assert again[0].images[0].path == rows[0].images[0].path and again[2].images[0].path == tmp_path / "here" / "pictures" / "3.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("name", ["karpathy", "hf", "csv", "chinese-clip"])
def test_a_row_without_a_split_stays_without(tmp_path, name):
    rows = [row.with_(split=split) for row, split in zip(rich_rows(tmp_path / "here"), (None, "test", None), strict=False)]
    for some in (rows, [row.with_(split=None) for row in rows]):
        where = tmp_path / f"{len({row.split for row in some})}" / PLACES[name]
        lost = formats.write(Dataset.from_rows(some), where, name)
        found = {row.texts[0].text: row.split for row in formats.read(where)}
        if name == "chinese-clip":
            assert set(found.values()) == {row.split or "train" for row in some}
            assert [line for line in lost if line.startswith("split")] == [
                f"split: none becomes 'train': {sum(row.split is None for row in some)} rows"
            ]
        else:
            assert found == {row.texts[0].text: row.split for row in some}


@pytest.mark.parametrize("name", ["csv", "excel", "parquet", "hf", "jsonl"])
def test_words_that_look_like_emptiness_or_like_a_caption_column_come_back(tmp_path, name):
    words = ["null", "nan", "NA", "#N/A", "\\N", "<NA>", "=1+1"]
    rows = [
        Row(
            id=f"{n}",
            images=(Image(path=saved(tmp_path / f"{n}.jpg", n)),),
            texts=(Text(word, "en"), Text("第二条", "zh")),
            group="nan",
            meta={"caption_zh": "no caption", "keywords_en": "null", "meta.x": "1", "language": "zh"},
        )
        for n, word in enumerate(words)
    ]
    place = tmp_path / "there" / PLACES[name]
    assert formats.write(Dataset.from_rows(rows), place, name).dropped == ()
    again = formats.read(place)
    assert [row.texts[0].text for row in again] == words
    assert all(len(row.texts) == 2 and dict(row.meta) == dict(rows[0].meta) and row.group == "nan" for row in again)


def test_a_caption_too_long_for_a_cell_is_listed(tmp_path):
    rows = rich_rows(tmp_path)[:2]
    rows[0] = rows[0].with_(texts=(Text("猫" * 32_768, "zh"),))
    rows[1] = rows[1].with_(texts=(Text("猫" * 32_767, "zh"),))
    lost = formats.write(Dataset.from_rows(rows), tmp_path / "t.xlsx")
    assert [(one.where, one.reason) for one in lost.dropped] == [("1", "a text of 32,768 characters; a cell holds 32,767")]
    assert len(formats.read(tmp_path / "t.xlsx")[0].texts[0].text) == 32_767


def test_two_folders_may_have_pictures_of_one_name(tmp_path):
    files = [saved(tmp_path / folder / "1.jpg", n) for n, folder in enumerate(("a", "b"))]
    rows = [Row(id=f"{file.parent.name}/1.jpg", images=(Image(path=file),), texts=(Text("x", "en"),)) for file in files]
    assert formats.write(Dataset.from_rows(rows), tmp_path / "t.token") == []
    assert [(row.id, row.images[0].path) for row in formats.read(tmp_path / "t.token")] == [("a/1.jpg", files[0]), ("b/1.jpg", files[1])]


# ----------------------------------------------------------------------------------------------- folders


def test_imagefolder_with_metadata_in_each_split(tmp_path):
    for split in ("train", "test"):
        saved(tmp_path / split / "a.png", len(split))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\na.png,a {split} picture\ngone.png,x\n")
    dataset = formats.read(tmp_path)
    assert [(row.split, row.texts[0].text) for row in dataset] == [("test", "a test picture"), ("train", "a train picture")]
    assert dataset.column("id") == ["test/a.png", "train/a.png"]
    assert [d.where for d in dataset.dropped] == ["test/metadata.csv:3", "train/metadata.csv:3"]


def test_texts_beside_pictures(tmp_path):
    for number, name in enumerate(["a", "b", "c"]):
        saved(tmp_path / f"{name}.jpg", number)
    (tmp_path / "a.txt").write_text("一只猫\n\na cat\n", "gb18030")
    (tmp_path / "b.txt").write_text(" \n")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._a.jpg").write_bytes(b"junk")
    (tmp_path / "._a.jpg").write_bytes(b"junk")
    dataset = formats.read(tmp_path)
    assert [(t.text, t.lang) for t in dataset[0].texts] == [("一只猫", "zh"), ("a cat", "en")]
    assert {d.where: d.reason for d in dataset.dropped} == {"b.jpg": "empty caption in b.txt", "c.jpg": "no c.txt beside it"}


def test_folders_as_classes(tmp_path):
    for split in ("train", "val"):
        for number, label in enumerate(["fire_truck", "猫"]):
            saved(tmp_path / split / label / "1.png", number + len(split))
    dataset = formats.read(tmp_path)
    assert [(row.split, row.group, row.texts[0].text) for row in dataset][:2] == [
        ("train", "fire_truck", "fire truck"),
        ("train", "猫", "猫"),
    ]
    assert dataset.splits == ("train", "val")


def test_one_table_among_the_pictures_is_read(tmp_path):
    saved(tmp_path / "images" / "a.png", 1)
    (tmp_path / "captions.csv").write_text("file,caption\na.png,hello\n")
    assert formats.read(tmp_path)[0].texts[0].text == "hello"
    (tmp_path / "more.csv").write_text("file,caption\na.png,hello\n")
    with pytest.raises(TongganError, match="several tables"):
        formats.read(tmp_path)


def test_tables_named_after_their_splits_are_all_read(tmp_path):
    for number, split in enumerate(("train", "test")):
        saved(tmp_path / "images" / f"{number}.png", number)
        (tmp_path / f"{split}.csv").write_text(f"file,caption\n{number}.png,hello\n")
    assert [(row.id, row.split) for row in formats.read(tmp_path)] == [("images/1.png", "test"), ("images/0.png", "train")]


@pytest.mark.parametrize(
    "said",
    [
        {"images/a.png": "hello", "b.png": ["good", "bye"], "gone.png": "x"},
        {"a.png": {"caption": "hello"}, "b.png": {"caption": ["good", "bye"]}, "gone.png": {"caption": "x"}},
        [
            {"file_name": "a.png", "caption": "hello"},
            {"file_name": "b.png", "caption": ["good", "bye"]},
            {"file_name": "gone.png", "caption": "x"},
        ],
    ],
    ids=["texts", "records by name", "records"],
)
def test_captions_in_a_json_file_beside_the_pictures(tmp_path, said):
    for number, name in enumerate("ab"):
        saved(tmp_path / "images" / f"{name}.png", number)
    (tmp_path / "captions.json").write_text(json.dumps(said))
    (tmp_path / "config.json").write_text('{"model": "x", "images": []}')
    for place in (tmp_path, tmp_path / "captions.json"):
        dataset = formats.read(place)
        assert [(row.id, [t.text for t in row.texts]) for row in dataset] == [
            ("images/a.png", ["hello"]),
            ("images/b.png", ["good", "bye"]),
        ]
        assert [(one.where, one.reason) for one in dataset.dropped] == [("captions.json:3", "gone.png: no such file")]


def test_cocos_captions_in_the_folder_are_read_and_its_boxes_are_not(tmp_path):
    saved(tmp_path / "dog" / "1.jpg", 1)
    saved(tmp_path / "cat" / "2.jpg", 2)
    coco = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 1, 1]}]}
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    assert [row.texts[0].text for row in formats.read(tmp_path)] == ["cat", "dog"]
    coco["annotations"][0]["caption"] = "a dog"
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    assert [row.texts[0].text for row in formats.read(tmp_path)] == ["a dog"]


def test_bare_pictures_have_no_captions_but_are_rows(tmp_path):
    for number in (10, 9):
        saved(tmp_path / "相册" / f"{number}.png", number)
    (tmp_path / "相册" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    dataset = formats.read(tmp_path)
    assert dataset.column("id") == ["相册/9.png", "相册/10.png"] and all(row.texts == () for row in dataset)
    assert [d.where for d in dataset.dropped] == ["相册/broken.jpg"]


# ------------------------------------------------------------------------------------------- webdataset


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, seed: int) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", encoded(seed)), (f"{key}.txt", f"text {seed}".encode())]


def test_shards_by_braces_and_colons(tmp_path):
    for n in range(3):
        tar_of(tmp_path / f"{n:05d}.tar", sample("000", n))
    tar_of(tmp_path / "more" / "x.tar", sample("000", 9))
    spec = f"{tmp_path}/{{00000..00002}}.tar::{tmp_path}/more/x.tar"
    dataset = formats.read(spec)
    assert [row.texts[0].text for row in dataset] == ["text 0", "text 1", "text 2", "text 9"]
    assert len(set(dataset.column("id"))) == 4
    with pytest.raises(TongganError, match=r"2 of 5 shards are not there: .*00003\.tar"):
        formats.read(f"{tmp_path}/{{00000..00004}}.tar")


def test_names_that_point_out_of_the_archive_are_refused(tmp_path):
    evil = [("../../etc/evil.jpg", encoded(1)), ("/abs.jpg", encoded(2)), ("C:\\x.jpg", encoded(3)), ("a/../../b.jpg", encoded(4))]
    path = tar_of(tmp_path / "e.tar", [*evil, *sample("good", 5)])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    dataset = formats.read(path)
    assert dataset.column("id") == ["good"]
    assert [d.reason for d in dataset.dropped] == ["refused: its name points out of the archive"] * 4 + [
        "refused: a link or device, not a file"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_cut_archive_the_rows_before_the_cut_are_kept(tmp_path, packed):
    members = [member for n in range(20) for member in sample(f"{n:03d}", n)]
    path = tar_of(tmp_path / "c.tar", members)
    data = path.read_bytes()
    if packed:
        path = tmp_path / "c.tar.gz"
        data = gzip.compress(data)
    path.write_bytes(data[: len(data) // 2])
    dataset = formats.read(path)
    assert 5 <= len(dataset) < 20
    assert [row.texts[0].text for row in dataset] == [f"text {n}" for n in range(len(dataset))]
    assert any("damaged or cut off" in d.reason and d.where == path.name for d in dataset.dropped)


@pytest.mark.parametrize("packing", [gzip, bz2, lzma], ids=lambda module: module.__name__)
def test_a_packed_archive_with_damage_inside_harms_no_other(tmp_path, packing):
    members = [member for n in range(6) for member in sample(f"{n:03d}", n)]
    data = bytearray(packing.compress(tar_of(tmp_path / "d", members).read_bytes()))
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    (tmp_path / "d.tar").write_bytes(data)
    tar_of(tmp_path / "e.tar", sample("e", 9))
    dataset = formats.read(f"{tmp_path}/d.tar::{tmp_path}/e.tar")
    assert dataset[-1].id == "e" and dataset.dropped[-1].where == "d.tar" and "damaged or cut off" in dataset.dropped[-1].reason


def test_a_damaged_header_in_the_middle_is_noticed(tmp_path):
    members = [member for n in range(6) for member in sample(f"{n:03d}", n)]
    path = tar_of(tmp_path / "d.tar", members)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        at = tar.getmembers()[6].offset
    data[at : at + 512] = b"\x07" * 512
    path.write_bytes(data)
    dataset = formats.read(path)
    assert len(dataset) == 3 and [d.where for d in dataset.dropped] == ["d.tar"]


def test_what_a_sample_may_lack(tmp_path):
    members = [
        *sample("ok", 1),
        ("notext.jpg", encoded(2)),
        ("empty.jpg", encoded(3)),
        ("empty.txt", b" "),
        ("nopicture.txt", b"words"),
        ("badjson.jpg", encoded(4)),
        ("badjson.json", b"{"),
        ("two.jpg", encoded(5)),
        ("two.en.txt", b"english"),
        ("two.zh.txt", "中文".encode()),
        ("img2dataset.jpg", encoded(6)),
        ("img2dataset.json", json.dumps({"caption": "from json", "url": "https://x/y.jpg", "key": "1", "width": 9}).encode()),
        ("other.jpg", encoded(7)),
        ("other.json", json.dumps({"id": 12, "caption": "of another tool", "split": "train", "artist": "A"}).encode()),
    ]
    dataset = formats.read(tar_of(tmp_path / "s.tar", members))
    rows = {row.id: row for row in dataset}
    assert set(rows) == {"ok", "notext", "two", "img2dataset", "other"}
    assert rows["other"].meta == {"id": "12", "split": "train", "artist": "A"}, "a json with an id is not therefore ours"
    assert [(t.text, t.lang) for t in rows["two"].texts] == [("english", "en"), ("中文", "zh")]
    assert rows["img2dataset"].texts[0].text == "from json" and rows["img2dataset"].meta["width"] == "9"
    assert {d.where: d.reason for d in dataset.dropped} == {
        "s.tar: empty": "empty caption",
        "s.tar: nopicture": "no picture",
        "s.tar: badjson": "its json is damaged",
    }


def test_clip_benchmarks_layout(tmp_path):
    for split in ("train", "test"):
        tar_of(tmp_path / split / "0.tar", [("s0.jpg", encoded(len(split))), ("s0.cls", b"1")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    dataset = formats.read(tmp_path)
    assert [(row.split, row.group, row.texts[0].text) for row in dataset] == [("test", "dog", "dog"), ("train", "dog", "dog")]


# ------------------------------------------------------------------------------------------- benchmarks


def test_coco_with_an_orphan_and_a_missing_file(tmp_path):
    saved(tmp_path / "val2014" / "COCO_1.jpg", 1)
    data = {
        "images": [{"id": 1, "file_name": "COCO_1.jpg"}, {"id": 2, "file_name": "COCO_2.jpg"}],
        "annotations": [
            {"id": 10, "image_id": 1, "caption": " A cat. "},
            {"id": 11, "image_id": 1, "caption": "Cat"},
            {"id": 12, "image_id": 2, "caption": "x"},
            {"id": 13, "image_id": 99, "caption": "y"},
        ],
    }
    (tmp_path / "captions_val2014.json").write_text(json.dumps(data))
    dataset = formats.read(tmp_path / "captions_val2014.json")
    assert dataset.column("id") == ["1"] and [t.text for t in dataset[0].texts] == ["A cat.", "Cat"]
    assert [d.where for d in dataset.dropped] == ["captions_val2014.json: annotation 13", "captions_val2014.json: image 2"]
    (tmp_path / "captions_val2014.json").write_text('{"images": [{"file_name": "x"}], "annotations": []}')
    with pytest.raises(TongganError, match="not COCO captions: KeyError"):
        formats.read(tmp_path / "captions_val2014.json", format="coco")


def test_karpathys_restval_is_training_data_unless_kept(tmp_path):
    images = []
    for number, split in enumerate(["train", "restval", "val", "test"]):
        saved(tmp_path / "val2014" / f"{number}.jpg", number)
        sentence = {"raw": f"text {number}", "tokens": ["text"]}
        images.append(
            {
                "filepath": "val2014",
                "filename": f"{number}.jpg",
                "imgid": number,
                "split": split,
                "sentences": [sentence],
                "cocoid": 7 + number,
            }
        )
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    assert formats.read(tmp_path / "dataset_coco.json").column("split") == ["train", "train", "val", "test"]
    kept = formats.read(tmp_path / "dataset_coco.json", restval="keep")
    assert kept.column("split") == ["train", "restval", "val", "test"] and kept.column("id") == ["7", "8", "9", "10"]


def test_flickrs_token_file(tmp_path):
    saved(tmp_path / "images" / "1000.jpg", 1)
    lines = ["1000.jpg#0\tTwo men .", "1000.jpg#1\tTwo friends .", "2000.jpg#0\tgone", "nonsense"]
    (tmp_path / "results.token").write_text("\n".join(lines))
    dataset = formats.read(tmp_path / "results.token")
    assert [t.text for t in dataset[0].texts] == ["Two men .", "Two friends ."]
    assert [d.where for d in dataset.dropped] == ["results.token:4", "results.token:3"]


def test_chinese_clips_tables(tmp_path):
    pictures = {"11": encoded(1), "12": encoded(2), "13": encoded(3)}
    lines = [f"{name}\t{base64.urlsafe_b64encode(data).decode()}" for name, data in pictures.items()] + ["14\t@@@", "15", ""]
    (tmp_path / "train_imgs.tsv").write_text("\n".join(lines))
    texts = [{"text_id": 1, "text": "高腰阔腿裤", "image_ids": [11, 12]}, {"text_id": 2, "text": "红裙", "image_ids": [12]}]
    texts += [{"text_id": 3, "text": "没有图", "image_ids": [99]}]
    (tmp_path / "train_texts.jsonl").write_text("\n".join(json.dumps(t, ensure_ascii=False) for t in texts) + "\n{broken\n", "utf-8")
    dataset = formats.read(tmp_path)
    assert [(row.id, [t.text for t in row.texts], row.split) for row in dataset] == [
        ("11", ["高腰阔腿裤"], "train"),
        ("12", ["高腰阔腿裤", "红裙"], "train"),
    ]
    assert dataset[1].images[0].data == pictures["12"]
    assert {d.where for d in dataset.dropped} == {
        "train_texts.jsonl:4",
        "train_imgs.tsv:3",
        "train_imgs.tsv:4",
        "train_imgs.tsv:5",
        "train_texts.jsonl",
    }


def test_a_hugging_face_data_set_with_class_labels(tmp_path):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(n), "path": None} for n in range(2)], "label": [1, 0]}, features=features
    )
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "hf"))
    dataset = formats.read(tmp_path / "hf")
    assert [(row.texts[0].text, row.meta["label"], row.split) for row in dataset] == [("dog", "dog", "train"), ("cat", "cat", "train")]
    assert dataset[1].images[0].data == encoded(1)


def test_a_hugging_face_data_set_with_several_pictures(tmp_path):
    import datasets

    stored = [{"bytes": encoded(n), "path": None} for n in range(4)]
    listed = {"images": datasets.List(datasets.Image()), "caption": datasets.Value("string")}
    made = datasets.Dataset.from_dict({"images": [stored[:2], stored[2:3]], "caption": ["two", "one"]}, features=datasets.Features(listed))
    made.save_to_disk(str(tmp_path / "listed"))
    rows = formats.read(tmp_path / "listed", check="decode")
    assert [[image.data for image in row.images] for row in rows] == [[encoded(0), encoded(1)], [encoded(2)]]
    paired = {"text": datasets.Value("string"), "before": datasets.Image(), "after": datasets.Image()}
    columns = {"text": ["make it red", "leave it"], "before": stored[:2], "after": [stored[2], None]}
    datasets.Dataset.from_dict(columns, features=datasets.Features(paired)).save_to_disk(str(tmp_path / "paired"))
    rows = formats.read(tmp_path / "paired")
    assert [[image.data for image in row.images] for row in rows] == [[encoded(0), encoded(2)], [encoded(1)]]
    assert rows.dropped == () and all(not row.meta for row in rows)
    assert any("pictures from before, after" in note for note in rows.notes)


def test_names_of_splits_do_not_lead_out_of_the_folder(tmp_path: Path):
    rows = [row.with_(split="../../evil") for row in rich_rows(tmp_path)[:3]]
    for name in ("chinese-clip", "hf"):
        formats.write(Dataset.from_rows(rows), tmp_path / "a" / "b" / name, name)
    assert not [path for path in tmp_path.rglob("*evil*") if tmp_path / "a" / "b" not in path.parents]


def test_coco_as_it_is_unpacked(tmp_path: Path):
    saved(tmp_path / "val2017" / "1.jpg", 1)
    (tmp_path / "annotations").mkdir()
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2}]
    captions = [{"id": n, "image_id": n, "caption": "a dog"} for n in (1, 2)]
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    dataset = formats.read(file)
    assert [row.id for row in dataset] == ["1"] and dataset.dropped[0].reason == "no file_name"


@pytest.mark.parametrize("text", ['{"images": [1]}', '{"images": [null]}', "[" * 100_000])
def test_json_of_no_known_kind_is_an_error(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TongganError):
        formats.read(tmp_path / "x.json")


@pytest.mark.parametrize("record", [{"meta": [1]}, {"id": "1", "split": 3}, {"id": "1", "group": 5}, {"texts": [{"text": 5}]}])
def test_a_samples_json_of_the_wrong_kind_harms_no_other(tmp_path: Path, record: dict[str, object]):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key, said in (("a", record), ("b", {"caption": "good"})):
            for name, data in ((f"{key}.jpg", encoded(1)), (f"{key}.json", json.dumps(said).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    found = formats.read(tmp_path / "0.tar")
    assert "b" in [row.id for row in found]
    assert len(found) + len(found.dropped) == 2
