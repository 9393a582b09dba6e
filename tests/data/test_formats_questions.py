"""Files of questions, official and people's own, in the very form in which they are published or saved, and broken as they really are."""

from __future__ import annotations

import base64
import csv
import json

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from draw import encoded, saved

from tonggan.data import formats, open_data
from tonggan.data.media import encode_png
from tonggan.evaluate.tasks.questions import questions
from tonggan.types import TongganError, UsageError


def packed(seed, kind="JPEG"):
    return base64.b64encode(encoded(seed, kind)).decode()


def asked(dataset):
    return [(row.id, row.question, row.choices, row.answers) for row in dataset]


def reasons(dataset):
    return {one.where: one.reason for one in dataset.dropped}


# ------------------------------------------------------------------------------------------------- VQAv2

TEN = ["yes", "yes", "no", "yes", "yes", "yes", "no", "yes", "yes", "maybe"]


def vqa_questions(ids=(262148000, 262148001, 393225000), subset="val2014"):
    return {
        "info": {"description": "This is v2.0 of the VQA dataset.", "version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": {"url": "http://creativecommons.org/licenses/by/4.0/"},
        "data_subtype": subset,
        "questions": [{"image_id": n // 1000, "question": f"Is it {n}?", "question_id": n} for n in ids],
    }


def vqa_annotations(ids=(262148000, 262148001, 393225000), subset="val2014"):
    answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n, answer in enumerate(TEN, 1)]
    return {
        "info": {"description": "This is v2.0 of the VQA dataset."},
        "data_type": "mscoco",
        "data_subtype": subset,
        "annotations": [
            {
                "question_type": "is it",
                "multiple_choice_answer": "yes",
                "answers": answers,
                "image_id": n // 1000,
                "answer_type": "yes/no",
                "question_id": n,
            }
            for n in ids
        ],
    }


QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def vqa(folder, *, pictures="val2014/COCO_val2014_{:012d}.jpg", questions=QUESTIONS, annotations=ANNOTATIONS, ids=(262148, 393225)):
    for number in ids:
        saved(folder / pictures.format(number), number)
    for name, data in ((questions, vqa_questions()), (annotations, vqa_annotations())):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(data))
    return folder / questions


@pytest.mark.parametrize(
    ("pictures", "asks", "answers"),
    [
        ("val2014/COCO_val2014_{:012d}.jpg", QUESTIONS, ANNOTATIONS),
        ("images/COCO_val2014_{:012d}.jpg", QUESTIONS, ANNOTATIONS),
        ("COCO_val2014_{:012d}.jpg", QUESTIONS, ANNOTATIONS),
        ("val2017/{:012d}.jpg", QUESTIONS, ANNOTATIONS),
        ("Images/mscoco/val2014/COCO_val2014_{:012d}.jpg", f"Questions/{QUESTIONS}", f"Annotations/{ANNOTATIONS}"),
        ("val2014/COCO_val2014_{:012d}.jpg", f"annotations/{QUESTIONS}", f"annotations/{ANNOTATIONS}"),
        ("val2014/COCO_val2014_{:012d}.jpg", "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
        ("val2014/COCO_val2014_{:012d}.jpg", "my_questions_val2014.json", "whatever.json"),
    ],
    ids=["as unpacked", "images", "beside", "2017", "the official tree", "annotations", "OK-VQA", "other names"],
)
def test_vqa_with_its_annotations_and_pictures_wherever_they_were_unpacked(tmp_path, pictures, asks, answers):
    dataset = open_data(str(vqa(tmp_path, pictures=pictures, questions=asks, annotations=answers)))
    assert dataset.dropped == () and dataset.column("id") == ["262148000", "262148001", "393225000"]
    row = dataset[1]
    assert row.question == "Is it 262148001?" and row.answers == tuple(TEN), "all ten, repeated ones too, in their order"
    assert (row.group, row.split) == ("262148", "val") and row.images[0].path.stem.endswith("000000262148")
    assert dict(row.meta) == {"question_type": "is it", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
    kept, dropped = questions(dataset)
    assert len(kept) == 3 and not dropped


def test_vqa_without_annotations_is_questions_without_answers(tmp_path):
    dataset = formats.read(vqa(tmp_path, annotations=""))
    assert [row.answers for row in dataset] == [()] * 3
    assert any("questions without answers" in note for note in dataset.notes)
    with pytest.raises(UsageError, match="no answer to mark by"):
        questions(dataset)
    assert len(questions(dataset, answered=False)[0]) == 3


def test_annotations_of_another_split_give_no_answers_and_it_is_said(tmp_path):
    path = vqa(tmp_path)
    (tmp_path / ANNOTATIONS).write_text(json.dumps(vqa_annotations((1000, 2000, 3000), "train2014")))
    dataset = formats.read(path)
    assert [row.answers for row in dataset] == [()] * 3
    assert any("answers other questions (another split?)" in note for note in dataset.notes)
    (tmp_path / "right.json").write_text(json.dumps(vqa_annotations()))
    assert all(row.answers == tuple(TEN) for row in formats.read(path)), "another file that covers every question is taken"
    (tmp_path / "right.json").unlink()
    (tmp_path / ANNOTATIONS).write_text(json.dumps(vqa_annotations((262148000, 5000))))
    dataset = formats.read(path)
    assert [len(row.answers) for row in dataset] == [10, 0, 0]
    assert any("2 of 3 questions have none there" in note for note in dataset.notes)
    assert [one.where for one in questions(dataset)[1]] == ["262148001", "393225000"]
    (tmp_path / ANNOTATIONS).write_text(json.dumps(vqa_annotations())[:-40])
    assert any("not readable as JSON" in note for note in formats.read(path).notes)


def test_vqa_with_what_is_missing_or_repeated(tmp_path):
    path = vqa(tmp_path, ids=(262148,))
    data = vqa_questions((262148000, 262148000, 393225000))
    data["questions"].append({"image_id": 262148, "question_id": 5})
    path.write_text(json.dumps(data))
    dataset = formats.read(path)
    assert dataset.column("id") == ["262148000"]
    assert reasons(dataset) == {
        f"{QUESTIONS}: question 262148000": "its id occurs a second time",
        f"{QUESTIONS}: question 393225000": "val2014/COCO_val2014_000000393225.jpg: no such file",
        f"{QUESTIONS}: question 5": "no question",
    }
    with pytest.raises(UsageError, match=f"give the file of questions: {QUESTIONS}"):
        formats.read(tmp_path / ANNOTATIONS)


def test_vqa_for_the_server_has_test_pictures(tmp_path):
    saved(tmp_path / "test2015" / "COCO_test2015_000000262144.jpg", 1)
    data = vqa_questions((262144000,), "test-dev2015")
    (tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json").write_text(json.dumps(data))
    (row,) = formats.read(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json")
    assert (row.id, row.split, row.answers) == ("262144000", "test", ())


def test_textvqa_has_questions_and_answers_in_one(tmp_path):
    saved(tmp_path / "train_images" / "003a8ae2ef43b901.jpg", 1)
    record = {
        "question": "what is the brand of this camera?",
        "image_id": "003a8ae2ef43b901",
        "image_classes": ["Cassette deck"],
        "flickr_original_url": "https://example.org/a.jpg",
        "image_width": 1024,
        "answers": ["dakota", "dakota digital", "dakota"],
        "question_tokens": ["what", "is"],
        "question_id": 34602,
        "set_name": "val",
    }
    data = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": [record]}
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps(data))
    (row,) = formats.read(tmp_path / "TextVQA_0.5.1_val.json")
    assert (row.id, row.answers, row.split) == ("34602", ("dakota", "dakota digital", "dakota"), "val")
    assert row.images[0].path.parent.name == "train_images"


def test_a_folder_as_vqa_is_unpacked_is_read_but_captions_come_first(tmp_path):
    vqa(tmp_path)
    assert formats.read(tmp_path).column("id") == ["262148000", "262148001", "393225000"]
    coco = {
        "images": [{"id": 262148, "file_name": "COCO_val2014_000000262148.jpg"}],
        "annotations": [{"id": 1, "image_id": 262148, "caption": "A man."}],
    }
    (tmp_path / "captions_val2014.json").write_text(json.dumps(coco))
    assert [row.texts[0].text for row in formats.read(tmp_path)] == ["A man."]


# ----------------------------------------------------------------------------------------------- MCQ TSV


def tsv(path, names, lines):
    """As pandas writes it: tabs, quotes where they are needed."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([names, *lines])
    return path


MMBENCH = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "comment", "split"]


def mmbench_lines():
    first = ["241", "Identify the question.", "Tia\ttested.\nThe end.", "Does x?", "Does y?", "", "", "B", "identity", packed(1), "sqa"]
    second = ["252", "Which is longer?", "", "this", "that", "both", "none", "D", "attribute", "241", "sqa"]
    third = ["300", "Which shape?", "nan", "circle", "square", "nan", "nan", "A", "attribute", packed(2), "sqa"]
    rest = [["logic", "c", "dev"], ["fine", "c", "dev"], ["fine", "c", "test"]]
    lines = [one + more for one, more in zip((first, second, third), rest, strict=True)]
    turned = [
        ["1000241", *lines[0][1:3], "Does y?", "Does x?", "", "", "A", *lines[0][8:9], "241", *lines[0][10:]],
        ["1000252", *lines[1][1:3], "that", "both", "none", "this", "C", *lines[1][8:9], "241", *lines[1][10:]],
        ["2000252", *lines[1][1:3], "both", "none", "this", "that", "B", *lines[1][8:9], "241", *lines[1][10:]],
    ]
    return lines, turned


def test_mmbench_as_its_harness_exports_it(tmp_path):
    lines, turned = mmbench_lines()
    dataset = open_data(str(tsv(tmp_path / "MMBench_DEV_EN.tsv", MMBENCH, [*lines, *turned])))
    assert dataset.dropped == ()
    assert asked(dataset) == [
        ("241", "Hint: Tia\ttested.\nThe end.\nQuestion: Identify the question.", ("Does x?", "Does y?"), ("Does y?",)),
        ("252", "Which is longer?", ("this", "that", "both", "none"), ("none",)),
        ("300", "Which shape?", ("circle", "square"), ("circle",)),
    ]
    assert any("3 rows are rotations of others" in note for note in dataset.notes)
    assert dataset[1].images[0].data == dataset[0].images[0].data == encoded(1) and dataset[2].images[0].data == encoded(2)
    first, second, third = (row.group for row in dataset)
    assert first == second != third, "questions about one picture belong together"
    assert [row.split for row in dataset] == ["val", "val", "test"] and dataset[0].meta["split"] == "dev"
    assert [(row.meta["category"], row.meta["l2-category"]) for row in dataset[:2]] == [("identity", "logic"), ("attribute", "fine")]
    assert dataset[0].meta["hint"] == "Tia\ttested.\nThe end." and not any(row.texts for row in dataset)
    kept, dropped = questions(dataset)
    assert asked(kept) == asked(dataset) and not dropped


def test_an_index_beyond_a_million_that_asks_something_else_is_a_question_of_its_own(tmp_path):
    lines, turned = mmbench_lines()
    turned[0][1] = "Something else?"
    dataset = formats.read(tsv(tmp_path / "m.tsv", MMBENCH, [*lines, turned[0]]))
    assert dataset.column("id") == ["241", "252", "300", "1000241"]


def test_a_picture_of_a_later_row_and_of_none(tmp_path):
    lines, _ = mmbench_lines()
    lines[0][9], lines[2][9] = "300", "77"
    lines[1][9] = packed(5)
    dataset = formats.read(tsv(tmp_path / "m.tsv", MMBENCH, [*lines, ["301", *lines[2][1:9], packed(6), *lines[2][10:]]]))
    assert dataset.column("id") == ["252", "301"]
    assert reasons(dataset) == {
        "m.tsv:2": "300: no such file, and no row of this id holds a picture",
        "m.tsv:5": "77: no such file, and no row of this id holds a picture",
    }
    lines[0][9] = "301"
    dataset = formats.read(tsv(tmp_path / "m.tsv", MMBENCH, [lines[0], ["301", *lines[2][1:9], packed(6), *lines[2][10:]]]))
    assert dataset[0].images[0].data == encoded(6), "the row that holds the picture may come later"


@pytest.mark.parametrize("cut", [20, 21, 22, 23, 400])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_base64_is_found_without_decoding_every_picture(tmp_path, cut, kind):
    lines, _ = mmbench_lines()
    lines[0][9] = packed(1, kind).rstrip("=")[: -40 - cut]
    dataset = formats.read(tsv(tmp_path / "m.tsv", MMBENCH, [lines[0], lines[2]]))
    assert dataset.column("id") == ["300"]
    (one,) = dataset.dropped
    assert "base64 is" in one.reason and "cut off" in one.reason


def test_what_excel_cut_off_is_said_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    whole = base64.b64encode(encode_png(noise)).decode()
    lines, _ = mmbench_lines()
    for cell, reason in [
        (whole[:32_767], "32,767 characters"),
        (f"['{whole}"[:32_767], "32,767 characters"),
        ("?" * 5000, "neither a path"),
    ]:
        lines[0][9] = cell
        dataset = formats.read(tsv(tmp_path / "m.tsv", MMBENCH, [lines[0], lines[2]]))
        (one,) = dataset.dropped
        assert reason in one.reason


def test_a_picture_with_something_after_its_end_is_whole(tmp_path):
    lines, _ = mmbench_lines()
    lines[0][9] = base64.b64encode(encoded(1) + bytes(5000)).decode()
    assert len(formats.read(tsv(tmp_path / "m.tsv", MMBENCH, lines))) == 3


def test_ccbench_in_chinese(tmp_path):
    names = ["index", "question", "A", "B", "C", "D", "answer", "category", "image"]
    line = ["0", "图中所示建筑名称为？", "天坛", "故宫", "黄鹤楼", "少林寺", "A", "sketch_reasoning", packed(1)]
    (row,) = formats.read(tsv(tmp_path / "CCBench.tsv", names, [line]))
    assert asked([row]) == [("0", "图中所示建筑名称为？", ("天坛", "故宫", "黄鹤楼", "少林寺"), ("天坛",))]
    hinted = formats.read(tsv(tmp_path / "cn.tsv", [*names, "hint"], [[*line, "在北京"]]))
    assert hinted[0].question == "提示：在北京\n问题：图中所示建筑名称为？"


@pytest.mark.parametrize("written", [json.dumps, str], ids=["JSON", "Python"])
def test_mmmu_has_several_pictures_in_one_cell(tmp_path, written):
    names = ["index", "id", "image", "question", "A", "B", "C", "answer", "split", "category", "image_path"]
    lines = [
        [
            "1",
            "val_Art_1",
            written([packed(1), packed(2)]),
            "<image 1> or <image 2>?",
            "one",
            "two",
            "nan",
            "A",
            "validation",
            "Art",
            "['x']",
        ],
        ["2", "dev_Art_1", packed(3), "What is <image 1>?", "one", "two", "three", "C", "dev", "Art", "y"],
        ["3", "val_Art_2", written([packed(4), packed(5)[:-60]]), "<image 2>?", "one", "two", "nan", "A", "validation", "Art", "['x']"],
    ]
    dataset = formats.read(tsv(tmp_path / "MMMU_DEV_VAL.tsv", names, lines))
    assert [[image.data for image in row.images] for row in dataset] == [[encoded(1), encoded(2)], [encoded(3)]]
    assert dataset[0].question == "<image 1> or <image 2>?" and dataset[0].answers == ("one",)
    assert [(row.split, row.meta["split"]) for row in dataset] == [("val", "validation"), ("val", "dev")], "both are val, and told apart"
    assert [one.where for one in dataset.dropped] == ["MMMU_DEV_VAL.tsv:4"], "without one of its pictures it is another question"


def test_pictures_as_paths_and_a_test_set_without_answers(tmp_path):
    saved(tmp_path / "images" / "1.jpg", 1)
    lines = [["0", "What?", "cat", "dog", "images/1.jpg"], ["1", "What?", "cat", "dog", "images/2.jpg"]]
    dataset = formats.read(tsv(tmp_path / "t.tsv", ["index", "question", "A", "B", "image_path"], lines))
    assert dataset.column("id") == ["0"] and dataset[0].group == "images/1.jpg"
    assert reasons(dataset) == {"t.tsv:3": "images/2.jpg: no such file"}
    with pytest.raises(UsageError, match="0: no answer to mark by"):
        questions(dataset)


def test_a_picture_that_is_found_bad_later_takes_its_question_along(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    saved(tmp_path / "good.jpg", 1)
    records = [{"question": "Which?", "image": ["good.jpg", "page.jpg"], "answer": "one"}, {"question": "Is it?", "image": "good.jpg"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    dataset = formats.read(tmp_path / "q.jsonl")
    assert [row.question for row in dataset] == ["Is it?"] and "a web page" in dataset.dropped[0].reason


# ----------------------------------------------------------------------------------- captions, as published


def test_coco_captions_as_unpacked(tmp_path):
    ids = (391895, 522418)
    for number in ids:
        saved(tmp_path / "val2014" / f"COCO_val2014_{number:012d}.jpg", number)
    data = {
        "info": {"description": "COCO 2014 Dataset", "year": 2014},
        "images": [
            {"license": 3, "file_name": f"COCO_val2014_{n:012d}.jpg", "coco_url": "http://x", "height": 360, "width": 640, "id": n}
            for n in ids
        ],
        "licenses": [{"url": "http://x", "id": 1, "name": "x"}],
        "annotations": [{"image_id": n, "id": n * 10 + i, "caption": f"Caption {i} of {n}."} for i in range(5) for n in ids],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2014.json").write_text(json.dumps(data))
    dataset = open_data(str(tmp_path / "annotations" / "captions_val2014.json"))
    assert dataset.column("id") == [str(n) for n in ids] and [len(row.texts) for row in dataset] == [5, 5] and dataset.dropped == ()


def karpathy(dataset, images):
    made = []
    for n, (folder, name, split, count) in enumerate(images):
        sentences = [{"tokens": ["a"], "raw": f"A picture {i}.", "imgid": n, "sentid": 10 * n + i} for i in range(count)]
        record = {"sentids": [one["sentid"] for one in sentences], "imgid": n, "sentences": sentences, "split": split, "filename": name}
        made.append(record | ({"filepath": folder, "cocoid": 100 + n} if folder else {}))
    return {"images": made, "dataset": dataset}


def test_karpathys_coco_and_flickr30k(tmp_path):
    coco = [
        ("val2014", "COCO_val2014_000000000100.jpg", "test", 5),
        ("train2014", "COCO_train2014_000000000101.jpg", "train", 5),
        ("val2014", "COCO_val2014_000000000102.jpg", "restval", 6),
        ("val2014", "COCO_val2014_000000000103.jpg", "val", 5),
    ]
    for n, (folder, name, *_) in enumerate(coco):
        saved(tmp_path / folder / name, n)
    (tmp_path / "dataset_coco.json").write_text(json.dumps(karpathy("coco", coco)))
    dataset = open_data(str(tmp_path / "dataset_coco.json"))
    assert [(row.id, row.split, len(row.texts)) for row in dataset] == [
        ("100", "test", 5), ("101", "train", 5), ("102", "train", 6), ("103", "val", 5),
    ]  # fmt: skip
    assert open_data(str(tmp_path / "dataset_coco.json"), split="test").column("id") == ["100"]
    flickr = [("", "1007129816.jpg", "test", 5), ("", "1009434119.jpg", "train", 5)]
    for n, (_, name, *_) in enumerate(flickr):
        saved(tmp_path / "flickr30k" / "flickr30k-images" / name, n)
    (tmp_path / "flickr30k" / "dataset_flickr30k.json").write_text(json.dumps(karpathy("flickr30k", flickr)))
    dataset = open_data(str(tmp_path / "flickr30k" / "dataset_flickr30k.json"))
    assert [(row.split, len(row.texts)) for row in dataset] == [("test", 5), ("train", 5)] and dataset.dropped == ()


@pytest.mark.parametrize("name", ["results_20130124.token", "Flickr8k.token.txt"])
def test_flickrs_tokens_as_published(tmp_path, name):
    files = ["1000092795.jpg", "10002456.jpg"]
    for n, file in enumerate(files):
        saved(tmp_path / "flickr30k-images" / file, n)
    (tmp_path / name).write_text("".join(f"{file}#{i}\tTwo men , one {i} .\n" for file in files for i in range(5)))
    dataset = open_data(str(tmp_path / name))
    assert [(row.id, len(row.texts)) for row in dataset] == [(file, 5) for file in files] and dataset.dropped == ()


def chinese_clip(folder, split, pictures, texts):
    lines = [f"{name}\t{base64.urlsafe_b64encode(encoded(name)).decode()}\n" for name in pictures]
    (folder / f"{split}_imgs.tsv").write_text("".join(lines))
    records = [{"text_id": n, "text": text, "image_ids": ids} for n, (text, ids) in enumerate(texts)]
    (folder / f"{split}_texts.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")


def test_flickr30k_cn_and_muge_in_chinese_clips_files(tmp_path):
    flickr, muge = tmp_path / "Flickr30k-CN", tmp_path / "MUGE"
    flickr.mkdir()
    muge.mkdir()
    for split, first in (("train", 10), ("valid", 20), ("test", 30)):
        texts = [(f"第{i}句，关于{n}", [n]) for n in (first, first + 1) for i in range(5)]
        chinese_clip(flickr, split, (first, first + 1), texts)
    dataset = open_data(str(flickr))
    assert {(row.split, len(row.texts)) for row in dataset} == {("train", 5), ("val", 5), ("test", 5)} and len(dataset) == 6
    assert dataset.dropped == () and {text.lang for row in dataset for text in row.texts} == {"zh"}
    assert open_data(str(flickr / "test_texts.jsonl")).splits == ("test",)
    chinese_clip(muge, "valid", (1, 2), [("高跟鞋", [1, 2]), ("红裙", [2])])
    chinese_clip(muge, "test", (3,), [("连衣裙", [])])
    dataset = open_data(str(muge))
    assert [(row.id, [text.text for text in row.texts], row.split) for row in dataset] == [
        ("1", ["高跟鞋"], "val"),
        ("2", ["高跟鞋", "红裙"], "val"),
    ]
    assert reasons(dataset) == {
        "test_texts.jsonl:1": "it names no picture (a test set whose answers are not published?)",
        "test_imgs.tsv:1": "3: empty caption (no text names this picture)",
    }


# -------------------------------------------------------------------------------------- a file of one's own

OWN = [
    {"图片": "1.jpg", "问题": "这是什么颜色？", "A": "红", "B": "绿", "C": "蓝", "答案": "B"},
    {"图片": "1.jpg", "问题": "有几只？", "A": "1", "B": "2", "C": "3", "答案": "B"},
    {"图片": "", "问题": "一加一等于几？", "A": "1", "B": "2", "C": "", "答案": 2},
]
EXPECTED = [
    ("这是什么颜色？", ("红", "绿", "蓝"), ("绿",)),
    ("有几只？", ("1", "2", "3"), ("2",)),
    ("一加一等于几？", ("1", "2"), ("2",)),
]


def write(path, records):
    """The records as a file of the kind that its name says."""
    names = list(records[0])
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for line in [names, *([record[name] if record[name] != "" else None for name in names] for record in records)]:
            book.active.append(line)
        book.save(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: [str(record[name]) for record in records] for name in names}), path)
    else:
        encoding = path.stem.rpartition(" ")[2]
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([names, *([record[name] for name in names] for record in records)])
    return path


FILES = ["题目 utf-8.csv", "题目 utf-8-sig.csv", "题目 gb18030.csv", "题目.xlsx", "题目.jsonl", "题目.json", "题目.parquet"]


@pytest.mark.parametrize("name", FILES)
def test_a_table_of_questions_needs_no_options(tmp_path, name):
    saved(tmp_path / "1.jpg", 1)
    dataset = open_data(str(write(tmp_path / name, OWN)))
    assert [(row.question, row.choices, row.answers) for row in dataset] == EXPECTED
    assert [len(row.images) for row in dataset] == [1, 1, 0] and dataset.dropped == (), "a question needs no picture"
    assert [row.group for row in dataset] == ["1.jpg", "1.jpg", None]
    assert any("questions from 问题, choices from A, B, C, answers from 答案" in note for note in dataset.notes)
    kept, dropped = questions(dataset)
    assert [(row.question, row.choices, row.answers) for row in kept] == EXPECTED and not dropped
    named = open_data(str(tmp_path / name), image_col="图片", text_col="问题")
    assert asked(questions(named)[0]) == asked(kept), "with its columns named it is the same"


@pytest.mark.parametrize(
    ("question", "choices", "answer", "hint"),
    [
        ("question", "choices", "answer", "hint"),
        ("问题", "选项", "答案", "提示"),
        ("提问", "候选", "标准答案", "提示"),
        ("题目", "options", "正确答案", "hint"),
        (" Question ", "Options", "Answer", "Hint"),
        ("内文", "选项", "答案", "提示"),
    ],
)
def test_columns_by_the_names_that_people_give(tmp_path, question, choices, answer, hint):
    saved(tmp_path / "a.jpg", 1)
    record = {"image": "a.jpg", question: "它是什么？", hint: "看左边", choices: "猫|狗", answer: "狗"}
    path = write(tmp_path / "q utf-8.csv", [record])
    (row,) = open_data(str(path), text_col="内文" if question == "内文" else None)
    assert (row.question, row.choices, row.answers) == ("提示：看左边\n问题：它是什么？", ("猫", "狗"), ("狗",))
    assert row.meta[hint.strip()] == "看左边"


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (("选项A", "选项B", "选项C"), ("猫", "狗", "鸟")),
        (("option_a", "option_b", "option_c"), ("猫", "狗", "鸟")),
        (("Option A", "Option B", "Option C"), ("A. 猫", "B. 狗", "C. 鸟")),
        (("选项",), ("A. 猫\nB. 狗\nC. 鸟",)),
        (("选项",), ("A、猫 B、狗 C、鸟",)),
        (("选项",), ("（A）猫；（B）狗；（C）鸟",)),
        (("选项",), ("猫；狗；鸟",)),
        (("选项",), ("猫、狗、鸟",)),
        (("选项",), ("猫, 狗, 鸟",)),
        (("选项",), ("['猫', '狗', '鸟']",)),
        (("选项",), ('{"A": "猫", "B": "狗", "C": "鸟"}',)),
    ],
    ids=str,
)
def test_choices_as_people_write_them(tmp_path, header, line):
    path = write(tmp_path / "q utf-8.csv", [{"问题": "哪个？"} | dict(zip(header, line, strict=True)) | {"答案": "B"}])
    (row,) = formats.read(path)
    assert (row.choices, row.answers) == (("猫", "狗", "鸟"), ("狗",))


def test_lists_in_json(tmp_path):
    saved(tmp_path / "a.jpg", 1)
    records = [
        {"question": "Which?", "image": "a.jpg", "answer": "dog", "choices": ["cat; asleep", "dog"]},
        {"question": "Who?", "image": "a.jpg", "answers": ["me", "me", "you|all"]},
        {"question": "Three?", "image": None, "answer": 3.0},
        {"question": "Which?", "options": {"B": "dog", "A": "cat"}, "answer": "A"},
        {"question": "Is it?", "answer": True, "choices": [True, False]},
        {"question": "Where?", "answers": [{"answer": "here", "answer_confidence": "yes"}, {"answer": "there"}]},
    ]
    dataset = formats.read(write_lines(tmp_path / "q.jsonl", records))
    assert [(row.choices, row.answers) for row in dataset] == [
        (("cat; asleep", "dog"), ("dog",)),
        ((), ()),
        ((), ("3",)),
        ((), ("A",)),
        (("True", "False"), ("True",)),
        ((), ()),
    ], "one column asks and one answers; the others are meta"
    alone = [formats.read(write_lines(tmp_path / "one.jsonl", [record]))[0] for record in records]
    assert [(row.choices, row.answers) for row in alone][1] == ((), ("me", "me", "you|all"))
    assert (alone[3].choices, alone[3].answers) == (("cat", "dog"), ("cat",)) and alone[5].answers == ("here", "there")
    again, _ = questions([alone[0].with_(choices=(), answers=())])
    assert again[0].choices == ("cat; asleep", "dog"), "lists stay lists in meta"


def test_an_object_around_the_questions(tmp_path):
    saved(tmp_path / "a.jpg", 1)
    records = [{"question": "Which?", "image": "a.jpg", "answer": "B", "choices": ["cat", "dog"]}]
    for data in ({"name": "mine", "questions": records}, {"data": records, "split": "test"}):
        (tmp_path / "own.json").write_text(json.dumps(data, indent=1))
        (row,) = open_data(str(tmp_path / "own.json"))
        assert (row.choices, row.answers, len(row.images)) == (("cat", "dog"), ("dog",), 1)
    data = {"questions": [{"question_id": 1, "image_id": "a", "question": "Which?", "choices": ["cat", "dog"], "answer": "B"}]}
    (tmp_path / "own.json").write_text(json.dumps(data))
    (row,) = open_data(str(tmp_path / "own.json"))
    assert (row.choices, row.answers, row.group) == (("cat", "dog"), ("dog",), "a")


def write_lines(path, records):
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), "utf-8")
    return path


def test_llavas_questions_and_dialogues_of_one_turn(tmp_path):
    saved(tmp_path / "001.jpg", 1)
    bench = [{"question_id": 0, "image": "001.jpg", "text": "What is it?", "category": "conv"}]
    (row,) = formats.read(write_lines(tmp_path / "questions.jsonl", bench))
    assert (row.id, row.question, row.meta["category"]) == ("0", "What is it?", "conv")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat; asleep."}]
    train = [{"id": "7", "image": "001.jpg", "conversations": turns}, {"id": "8", "image": "001.jpg", "conversations": turns * 2}]
    (tmp_path / "llava.json").write_text(json.dumps(train))
    dataset = formats.read(tmp_path / "llava.json")
    assert asked(dataset) == [("7", "What is it?", (), ("A cat; asleep.",))]
    assert reasons(dataset) == {"llava.json:2": "<image> stands 2 times in the text, the record names 1: each needs its own"}


def test_a_named_picture_that_is_missing_drops_its_question_and_an_empty_cell_does_not(tmp_path):
    records = [
        {"图片": "gone.jpg", "问题": "几？", "答案": "1"},
        {"图片": "nan", "问题": "几？", "答案": "1"},
        {"图片": "", "问题": " ", "答案": "1"},
    ]
    dataset = formats.read(write(tmp_path / "q gb18030.csv", records))
    assert [(row.question, row.images) for row in dataset] == [("几？", ())]
    assert reasons(dataset) == {"q gb18030.csv:2": "gone.jpg: no such file", "q gb18030.csv:4": "no question"}


def test_two_questions_with_one_answer_about_one_picture_are_two(tmp_path):
    saved(tmp_path / "a.jpg", 1)
    records = [{"图片": "a.jpg", "问题": f"是{n}吗？", "答案": "是"} for n in range(3)]
    path = write(tmp_path / "q utf-8.csv", records)
    for columns in ({}, {"text_col": "问题"}):
        dataset = formats.read(path, **columns)
        assert [row.question for row in dataset] == ["是0吗？", "是1吗？", "是2吗？"] and len(set(dataset.column("id"))) == 3


def test_pictures_by_their_id_and_several_questions_about_each(tmp_path):
    saved(tmp_path / "pictures" / "p1.jpg", 1)
    records = [{"question_id": n, "image_id": "p1", "question": "What?", "answer": "x|y"} for n in (7, 8)]
    dataset = formats.read(write(tmp_path / "q utf-8.csv", records))
    assert [(row.id, row.group, row.answers, row.images[0].path.name) for row in dataset] == [
        ("7", "p1", ("x", "y"), "p1.jpg"),
        ("8", "p1", ("x", "y"), "p1.jpg"),
    ]


def as_parquet(path, records):
    asks = pa.array([one["question"] for one in records])
    images = pa.array([{"bytes": encoded(one["seed"]), "path": None} for one in records])
    pq.write_table(pa.table({"question": asks, "answer": pa.array([one["answer"] for one in records]), "image": images}), path)
    return path


def as_jsonl(path, records):
    lines = [{**one, "image": f"data:image/jpeg;base64,{packed(one['seed'])}"} for one in records]
    return write_lines(path, [{name: cell for name, cell in one.items() if name != "seed"} for one in lines])


def as_tsv(path, records):
    lines = [[str(n), one["question"], one["answer"], packed(one["seed"])] for n, one in enumerate(records)]
    return tsv(path, ["index", "question", "answer", "image"], lines)


@pytest.mark.parametrize(("name", "made"), [("q.parquet", as_parquet), ("q.jsonl", as_jsonl), ("q.tsv", as_tsv)])
def test_questions_about_one_embedded_picture_are_one_group(tmp_path, name, made):
    seeds = [1, 2, 3, 4] * 5
    records = [{"question": f"Which is {n}?", "answer": "yes", "seed": seed} for n, seed in enumerate(seeds)]
    dataset = formats.read(made(tmp_path / name, records))
    groups = [row.group for row in dataset]
    assert len(dataset) == 20 and len(set(groups)) == 4 and None not in groups
    assert groups == groups[:4] * 5, "as rows that name one file"
    again = formats.read(made(tmp_path / f"part {name}", records[7:9]))
    assert [row.group for row in again] == groups[7:9], "the same name in every file"


TRANSCRIPT = "今天天气很好；我们去公园散步吧。\n你去不去？我想去；也许还要带上小狗一起去"


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("三", ("三",)),
        ("三|3", ("三", "3")),
        ("三；3", ("三", "3")),
        ("3|三; 叁", ("3", "三", "叁")),
        ("3：30；三点半", ("3：30", "三点半")),
        ("3.5; 3,5", ("3.5", "3,5")),
        ("Paris, France; Paris", ("Paris, France", "Paris")),
        ("白；" + "黑" * 20, ("白", "黑" * 20)),
        ("白；" + "黑" * 21, ("白；" + "黑" * 21,)),
        (TRANSCRIPT, (TRANSCRIPT,)),
        ("it sleeps; it eats.", ("it sleeps; it eats.",)),
        ("白日依山尽，黄河入海流；欲穷千里目，更上一层楼", ("白日依山尽，黄河入海流；欲穷千里目，更上一层楼",)),
        ("姓名：张三；电话：110", ("姓名：张三；电话：110",)),
        ("line one\nline two", ("line one\nline two",)),
        ("x = 1;\ny = 2;", ("x = 1;\ny = 2;",)),
        ("It is so; I think.|yes", ("It is so; I think.", "yes")),
        ('["a; b", "c|d"]', ("a; b", "c|d")),
        ("['a; b']", ("a; b",)),
    ],
    ids=str,
)
def test_an_answer_is_divided_only_where_it_lists_short_ones(tmp_path, cell, answers):
    for name in ("q utf-8.csv", "q.xlsx", "q.jsonl"):
        dataset = formats.read(write(tmp_path / name, [{"问题": "是什么？", "答案": cell}]))
        (row,) = dataset
        assert row.answers == answers and row.meta["答案"] == cell
        assert questions(dataset)[0][0].answers == answers == questions([row.with_(answers=())])[0][0].answers


def test_answers_divided_at_semicolons_are_counted_in_a_note(tmp_path):
    cells = ["三；3", "四；4", "5; 五", "六|6", "七", TRANSCRIPT, '["八；8"]']
    dataset = formats.read(write(tmp_path / "q utf-8.csv", [{"问题": f"是{n}？", "答案": cell} for n, cell in enumerate(cells)]))
    assert [note.partition(" (")[0] for note in dataset.notes if "divided" in note] == [
        "the answers of 2 rows were divided at ；",
        "the answers of 1 row were divided at ;",
    ]
    whole = formats.read(write(tmp_path / "w utf-8.csv", [{"问题": "是？", "答案": TRANSCRIPT}, {"问题": "否？", "答案": "是|对"}]))
    assert not any("divided" in note for note in whole.notes)
    chosen = [{"问题": "哪个？", "选项": "猫；狗|鸟", "答案": "狗"}, {"问题": "哪些？", "选项": "猫|狗", "答案": "猫；狗"}]
    dataset = formats.read(write(tmp_path / "c utf-8.csv", chosen))
    assert [row.choices for row in dataset] == [("猫", "狗", "鸟"), ("猫", "狗")]
    assert not any("divided" in note for note in dataset.notes), "among choices it is clear"


@pytest.mark.parametrize(
    ("records", "texts"),
    [
        ([{"图片": "1.jpg", "题目": "红裙"}, {"图片": "1.jpg", "题目": "长裙"}], [["红裙", "长裙"]]),
        ([{"图片": "1.jpg", "题目": "红裙", "label": "裙"}, {"图片": "2.jpg", "题目": "长裤", "label": "裤"}], [["红裙"], ["长裤"]]),
        ([{"image": "1.jpg", "caption": "a dress", "question": "What?", "answer": "a dress"}], [["a dress"]]),
        ([{"image": "1.jpg", "title": "a dress", "A": "x", "B": "y"}], [["a dress"]]),
    ],
    ids=["title", "title and class", "caption and question", "columns A and B"],
)
def test_files_of_captions_are_read_as_before(tmp_path, records, texts):
    for n in (1, 2):
        saved(tmp_path / f"{n}.jpg", n)
    path = write(tmp_path / "c utf-8.csv", records)
    for chosen in (None, next(name for name in records[0] if name in ("题目", "caption", "title"))):
        dataset = formats.read(path, text_col=chosen)
        assert [[text.text for text in row.texts] for row in dataset] == texts
        assert {row.question for row in dataset} <= {None, "What?"}


def test_a_table_of_questions_written_as_a_table_asks_again(tmp_path):
    saved(tmp_path / "1.jpg", 1)
    dataset = formats.read(write(tmp_path / "q utf-8.csv", OWN))
    for name in ("again.csv", "again.xlsx", "again.jsonl", "again.parquet"):
        formats.write(dataset, tmp_path / name)
        again = formats.read(tmp_path / name)
        assert [(row.question, row.choices, row.answers, len(row.images)) for row in again] == [
            (*row, n) for row, n in zip(EXPECTED[: len(again)], (1, 1, 0), strict=False)
        ]
        assert len(again) == (2 if name in ("again.csv", "again.xlsx") else 3), "our tables need a picture where others have one"


def test_damaged_questions_are_named(tmp_path):
    lines = "问题,答案\n这是什么东西，在桌子上放着的那个,杯子\n这是什么".encode() + b"\xff\xfe\xe7" + "颜色的\uff1f,红\n".encode()
    (tmp_path / "q.csv").write_bytes(lines + "一共有多少个人站在那里,三个\n".encode())
    dataset = formats.read(tmp_path / "q.csv")
    assert len(dataset) == 2 and reasons(dataset) == {"q.csv:3": "its question is damaged (bytes that are no text)"}
    (tmp_path / "n.csv").write_text("问题,答案\n,1\n", "utf-8")
    with pytest.raises(TongganError, match=r"n\.csv:2: no question"):
        formats.read(tmp_path / "n.csv")
