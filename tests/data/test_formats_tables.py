"""Tables as people send them: encodings, separators, columns, paths from other computers, and every dropped row on the list."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from draw import encoded, saved
from openpyxl.drawing.image import Image as Laid

from tonggan.data import formats
from tonggan.data.language import language_of
from tonggan.types import TongganError, UsageError


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(["图片/猫 1.jpg", "图片/狗.png", "图片/深/鸟.webp"]):
        saved(tmp_path / name, number)
    return tmp_path


def table(folder, lines, *, encoding="utf-8", by=",", name="表格.csv"):
    path = folder / name
    path.write_bytes("\r\n".join(by.join(cells) for cells in lines).encode(encoding))
    return path


def names(dataset):
    return [row.images[0].path.name for row in dataset]


LINES = [("图片", "标题"), ("图片\\猫 1.jpg", "一只猫"), ("图片\\狗.png", "一条狗"), ("图片\\深\\鸟.webp", "一只鸟")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("by", [",", "\t", ";", "|"])
def test_encoding_and_separator_are_found(folder, encoding, by):
    dataset = formats.read(table(folder, LINES, encoding=encoding, by=by))
    assert [row.texts[0].text for row in dataset] == ["一只猫", "一条狗", "一只鸟"]
    assert {row.texts[0].lang for row in dataset} == {"zh"}
    assert names(dataset) == ["猫 1.jpg", "狗.png", "鸟.webp"] and dataset.dropped == ()
    assert dataset[0].id == "图片/猫 1.jpg"


def test_western_text_is_not_taken_for_chinese(folder):
    path = folder / "fr.csv"
    saved(folder / "ete.jpg", 5)
    path.write_bytes("filepath;title\nete.jpg;Un été à Pâques, déjà".encode("cp1252"))
    dataset = formats.read(path)
    assert dataset[0].texts[0].text == "Un été à Pâques, déjà"


NEIGHBOURS = {
    "cp950": ["一隻在樹上唱歌的鳥", "這條狗很乖", "鐘面", "貓"],
    "cp932": ["木の上で歌っている鳥", "おとなしい犬です①", "時計", "猫"],
    "cp949": ["나무 위에서 노래하는 새", "아주 얌전한 개입니다", "시계", "고양이", "안녕하세요 여러분", "똠얌꿍"],
}


@pytest.mark.parametrize("encoding", NEIGHBOURS)
def test_tables_from_taiwan_japan_and_korea_are_read(folder, encoding):
    for number in range(len(NEIGHBOURS[encoding])):
        saved(folder / f"{number}.jpg", number)
    lines = [("filepath", "title"), *((f"{number}.jpg", said) for number, said in enumerate(NEIGHBOURS[encoding]))]
    dataset = formats.read(table(folder, lines, encoding=encoding))
    assert [row.texts[0].text for row in dataset] == NEIGHBOURS[encoding]
    assert f"encoding: {encoding}" in dataset.notes


@pytest.mark.parametrize("said", [[*"狗猫马鸡鸟草花车床杯果瓜虎"], ["爸爸抱着孩子"], ["陶喆的镕炉"]])
def test_chinese_words_are_not_taken_for_a_neighbours(folder, said):
    lines = [("filepath", "title"), *(("图片/狗.png" if n % 2 else "图片/猫 1.jpg", word) for n, word in enumerate(said))]
    dataset = formats.read(table(folder, lines, encoding="gb18030"))
    assert [text.text for row in dataset for text in row.texts] == said


@pytest.mark.parametrize("said", ["Álbum", "it’s the dog’s", "“Hello” she said", "Ål og Ærø", "Über Öl"])
def test_western_accents_are_not_taken_for_asian_letters(folder, said):
    saved(folder / "1.jpg", 1)
    dataset = formats.read(table(folder, [("filepath", "title"), ("1.jpg", said)], encoding="cp1252"))
    assert dataset[0].texts[0].text == said and "encoding: cp1252" in dataset.notes


def test_text_with_more_accents_than_any_western_language_is_doubtful(folder):
    saved(folder / "1.jpg", 1)
    path = table(folder, [("filepath", "title"), ("1.jpg", "貓頭鷹" * 9)], encoding="gbk")
    assert any("encoding: cp1252; doubtful" in note for note in formats.read(path).notes)
    assert formats.read(path, encoding="gbk")[0].texts[0].text == "貓頭鷹" * 9


@pytest.mark.parametrize("said", ["25° été, déjà vu", "α é", "кот и 猫", "一只猫", "联通", "über naïve Ωmega"])
def test_short_texts_keep_their_encoding(folder, said):
    for encoding in ("utf-8", "gb18030") if said in ("一只猫", "联通") else ("utf-8",):
        saved(folder / "1.jpg", 3)
        (folder / "短.csv").write_bytes(f'path,text\n1.jpg,"{said}"\n'.encode(encoding))
        assert formats.read(folder / "短.csv")[0].texts[0].text == said


def test_a_damaged_line_of_utf8_costs_that_line_only(folder):
    lines = "图片,标题\n图片/猫 1.jpg,一只猫，很乖，很安静，在睡觉\n图片/狗.png,一条".encode() + b"\xff\xfe\xe7" + "狗\n".encode()
    (folder / "t.csv").write_bytes(lines + "图片/深/鸟.webp,一只鸟在树上唱歌，天气很好，阳光明媚\n".encode())
    dataset = formats.read(folder / "t.csv")
    assert names(dataset) == ["猫 1.jpg", "鸟.webp"]
    assert [(d.where, d.reason) for d in dataset.dropped] == [("t.csv:3", "its caption is damaged (bytes that are no text)")]


def test_quotes_line_breaks_and_surplus_cells(folder):
    (folder / "t.csv").write_text(
        'filepath,title\n图片/猫 1.jpg,"two\nlines, and a comma"\n图片/狗.png,a dog, running\n图片/深/鸟.webp,"she said ""hi""",\n', "utf-8"
    )
    dataset = formats.read(folder / "t.csv")
    assert [row.texts[0].text for row in dataset] == ["two\nlines, and a comma", 'she said "hi"']
    assert [d.where for d in dataset.dropped] == ["t.csv:4"] and "3 cells, but 2 columns" in dataset.dropped[0].reason


def test_a_quote_that_never_closes_does_not_swallow_the_file(folder):
    lines = ["filepath\ttitle", '图片/猫 1.jpg\t"open', *["图片/狗.png\ta dog"] * 30, "图片/深/鸟.webp\ta bird"]
    (folder / "t.tsv").write_text("\n".join(lines), "utf-8")
    dataset = formats.read(folder / "t.tsv")
    assert names(dataset) == ["猫 1.jpg", "狗.png", "鸟.webp"] and dataset[0].texts[0].text == '"open'


def test_every_unusable_row_is_listed_with_line_and_reason(folder):
    (folder / "图片/网页.jpg").write_text("<html>404</html>")
    (folder / "图片/半张.jpg").write_bytes(encoded(9)[:400])
    (folder / "图片/空.png").write_bytes(b"")
    bad = [
        ("图片\\没有.jpg", "甲"),
        ("图片\\网页.jpg", "乙"),
        ("图片\\半张.jpg", "丙"),
        ("图片\\空.png", "丁"),
        ("图片\\狗.png", " "),
        ("", "戊"),
    ]
    dataset = formats.read(table(folder, [*LINES[:2], *bad]), check="decode")
    assert names(dataset) == ["猫 1.jpg"]
    assert {d.where: d.reason for d in dataset.dropped} == {
        "表格.csv:3": "图片\\没有.jpg: no such file",
        "表格.csv:4": "图片/网页.jpg: a web page, not a picture",
        "表格.csv:5": "图片/半张.jpg: truncated",
        "表格.csv:6": "图片/空.png: empty file",
        "表格.csv:7": "图片\\狗.png: empty caption",
        "表格.csv:8": "no picture named",
    }


def test_when_all_rows_are_lost_it_is_an_error_that_says_why(folder):
    with pytest.raises(TongganError, match=r"no row can be used, all 2 were dropped: 表格.csv:2: a.jpg: no such file"):
        formats.read(table(folder, [("图片", "标题"), ("a.jpg", "x"), ("b.jpg", "y")]))


def test_a_wrong_column_names_those_there_are(folder):
    path = table(folder, LINES)
    with pytest.raises(UsageError, match=r"no column '标提' \(did you mean '标题'\?\); the columns are: 图片, 标题"):
        formats.read(path, text_col="标提")
    with pytest.raises(UsageError, match="the columns are: 图片, 标题"):
        formats.read(path, image_col="picture")
    with pytest.raises(UsageError, match=r"no column of pictures or captions.*The columns are: a, b"):
        formats.read(table(folder, [("a", "b"), ("1", "2")], name="n.csv"))


def test_columns_are_recognised_in_both_languages_and_by_their_cells(folder):
    header = ("编号", "照片内容链接", "中文标题", "caption_en", "作者", "划分", "组", "价格")
    path = table(folder, [header, ("7", "图片/狗.png", "一条狗", "a dog", "张三", "训练集", "犬", "12")])
    row = formats.read(path)[0]
    assert (row.id, row.group, row.split) == ("7", "犬", "train")
    assert [(t.text, t.lang) for t in row.texts] == [("一条狗", "zh"), ("a dog", "en")]
    assert dict(row.meta) == {"价格": "12", "artist": "张三", "作者": "张三"}


def test_columns_taken_for_id_split_group_and_artist_are_named(folder):
    path = table(folder, [("image_id", "图片", "标题", "作者", "subset", "分组"), ("7", "图片/狗.png", "一条狗", "张三", "test", "犬")])
    expected = "columns: pictures from 图片, captions from 标题, id from image_id, split from subset, group from 分组, artist from 作者"
    assert expected in formats.read(path).notes


@pytest.mark.parametrize("label", ["label", "类别", "class"])
def test_a_label_is_the_caption_and_stays_for_classification(folder, label):
    lines = [("filepath", label), ("图片/狗.png", "狗"), ("图片/猫 1.jpg", "猫"), ("图片/猫 1.jpg", "黑猫")]
    dataset = formats.read(table(folder, lines))
    assert [[text.text for text in row.texts] for row in dataset] == [["狗"], ["猫", "黑猫"]]
    assert [dict(row.meta) for row in dataset] == [{label: "狗"}, {label: "猫"}]
    formats.write(dataset, folder / "again.csv")
    assert [dict(row.meta) for row in formats.read(folder / "again.csv")] == [{label: "狗"}, {label: "猫"}]
    said = formats.read(table(folder, [(*line, "一句话") for line in lines], name="b.csv"), text_col=label)
    assert said[0].texts[0].text == "狗" and said[0].meta[label] == "狗"


def test_several_caption_columns_and_languages_can_be_chosen(folder):
    path = table(folder, [("path", "法文", "德文"), ("图片/狗.png", "un chien", "ein Hund")])
    for chosen in (["法文", "德文"], "法文,德文", "法文，德文"):
        row = formats.read(path, text_col=chosen, text_lang={"法文": "fr", "德文": "de"})[0]
        assert [(t.text, t.lang) for t in row.texts] == [("un chien", "fr"), ("ein Hund", "de")]
    assert [t.text for t in formats.read(path, text_col="德文", text_lang="de")[0].texts] == ["ein Hund"]


def test_languages_are_told_by_their_letters():
    said = {
        "一只猫": "zh",
        "a cat": "en",
        "一只 Labrador 犬在草地上": "zh",
        "the sign says 出口": "en",
        "ねこです": "ja",
        "123": None,
        "кот": None,
    }
    assert {text: language_of(text) for text in said} == said


def test_pictures_are_found_although_the_table_is_from_another_computer(folder):
    cells = ["C:\\Users\\me\\图片\\猫 1.jpg", "D:/old/狗.PNG", ".\\图片\\深\\鸟.webp", "鸟", "\\\\server\\share\\狗.png"]
    dataset = formats.read(table(folder, [("图片", "标题"), *[(cell, f"第{n}") for n, cell in enumerate(cells)]]))
    assert names(dataset) == ["猫 1.jpg", "狗.png", "鸟.webp", "狗.png"] and len(dataset[2].texts) == 2
    saved(folder / "别处" / "狗.png", 8)
    dataset = formats.read(table(folder, [("图片", "标题"), ("D:/old/狗.png", "x"), ("图片/狗.png", "y")]))
    assert [d.reason for d in dataset.dropped] == ["D:/old/狗.png: no such file there, and 2 of this name elsewhere"]


@pytest.mark.parametrize("cell", ["cats/1.jpg", "C:\\old\\Cats\\1.jpg", "cats\\1", "../cats/1.jpg", "empty/1.jpg", "inner/1.jpg"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_picture_missing_from_its_folder_is_not_taken_from_another(tmp_path, cell, name):
    for file in ("dogs/1.jpg", "dogs/2.jpg", "cats/2.jpg", "deep/inner/2.jpg"):
        saved(tmp_path / file, 1)
    (tmp_path / "empty").mkdir()
    cells = [(cell, "a cat"), ("dogs/2.jpg", "a dog"), ("CATS/2.JPG", "in its folder"), ("inner/2.jpg", "in its folder")]
    if name == "t.csv":
        table(tmp_path, [("图片", "标题"), *cells], name=name)
    else:
        (tmp_path / name).write_text("\n".join(json.dumps({"id": one, "images": [one], "texts": [said]}) for one, said in cells))
    dataset = formats.read(tmp_path / name)
    assert [row.images[0].path.relative_to(tmp_path).as_posix() for row in dataset] == ["dogs/2.jpg", "cats/2.jpg", "deep/inner/2.jpg"]
    assert [one.reason for one in dataset.dropped] == [f"{cell}: no such file"]
    assert "1 picture was found by the name alone or the end of the path, for example 'inner/2.jpg' as deep/inner/2.jpg" in dataset.notes


def test_pictures_found_in_another_folder_than_the_one_named_are_noted(folder):
    dataset = formats.read(table(folder, [("图片", "标题"), ("D:/old/狗.PNG", "x"), ("图片\\猫 1.JPG", "y"), ("鸟", "z")]))
    assert names(dataset) == ["狗.png", "猫 1.jpg", "鸟.webp"]
    assert "2 pictures were found by the name alone or the end of the path, for example 'D:/old/狗.PNG' as 图片/狗.png" in dataset.notes


def test_lines_of_one_picture_are_joined_and_equal_ids_made_unique(folder):
    path = table(folder, [("filepath", "title"), ("图片/狗.png", "a dog"), ("图片/狗.png", "a hound"), ("图片/猫 1.jpg", "cat")])
    dataset = formats.read(path)
    assert [[t.text for t in row.texts] for row in dataset] == [["a dog", "a hound"], ["cat"]]
    path = table(folder, [("id", "filepath", "title"), ("1", "图片/狗.png", "a"), ("1", "图片/猫 1.jpg", "b"), ("1", "图片/狗.png", "c")])
    dataset = formats.read(path)
    assert dataset.column("id") == ["1", "1~2", "1~3"] and any("2 repeated ids" in note for note in dataset.notes)


def test_a_file_without_column_names_and_text_alone(folder):
    assert names(formats.read(table(folder, [(p, t) for p, t in LINES[1:]], by="\t", name="t.tsv"))) == ["猫 1.jpg", "狗.png", "鸟.webp"]
    pairs = formats.read(table(folder, [("zh", "en"), ("猫", "cat")], name="p.csv"), text_col="zh,en", text_lang={"zh": "zh", "en": "en"})
    assert pairs[0].images == () and [t.lang for t in pairs[0].texts] == ["zh", "en"]


def test_pictures_inside_cells(folder):
    data = encoded(4)
    packed = base64.b64encode(data).decode()
    with (folder / "b.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(
            [["index", "image", "caption"], ["0", packed, "plain"], ["1", f"data:image/jpeg;base64,{packed}", "uri"]]
        )
    dataset = formats.read(folder / "b.tsv")
    assert dataset[0].images[0].data == data and dataset[1].images[0].url.startswith("data:image/jpeg")


def workbook(folder, lines, name="表.xlsx"):
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    return book, folder / name


def test_excel_with_numbers_blank_lines_and_a_second_sheet(folder):
    book, path = workbook(
        folder,
        [[None], ["编号", "图片", "标题", None], [1, "图片\\猫 1.jpg", "一只猫"], [None], [2.0, "图片\\狗.png", 42], [3, "没有.png", "无"]],
    )
    book.create_sheet("其他").append(["x"])
    book["其他"].append(["y"])
    book.save(path)
    dataset = formats.read(path)
    assert dataset.column("id") == ["1", "2"] and dataset[1].texts[0].text == "42"
    assert [(d.where, d.reason) for d in dataset.dropped] == [("表.xlsx:6", "没有.png: no such file")]
    assert any("not read: 其他" in note for note in dataset.notes)


def test_pictures_laid_on_an_excel_sheet(folder):
    book, path = workbook(folder, [["标题", "图片"], ["一条狗", None], ["一只猫", None], ["没有图", None]])
    for line, name in ((2, "狗.png"), (3, "猫 1.jpg")):
        book.active.add_image(Laid(folder / "图片" / name), f"B{line}")
    book.save(path)
    dataset = formats.read(path)
    assert [row.texts[0].text for row in dataset] == ["一条狗", "一只猫"]
    assert dataset[0].images[0].data[:4] == b"\x89PNG"
    assert [d.where for d in dataset.dropped] == ["表.xlsx:4"]


@pytest.mark.parametrize("name", ["表.csv", "表.tsv", "表.xls"])
def test_an_excel_file_with_another_ending_is_read_as_one(folder, name):
    book, path = workbook(folder, LINES)
    book.save(path)
    path = path.rename(folder / name)
    dataset = formats.read(path)
    assert [row.texts[0].text for row in dataset] == ["一只猫", "一条狗", "一只鸟"]
    assert name == "表.xls" or any("an Excel file, although its name ends in" in note for note in dataset.notes)


def test_emptiness_written_as_a_word_is_empty_in_a_table_of_others(folder):
    dataset = formats.read(table(folder, [("图片", "标题"), ("图片/狗.png", "null"), ("图片/猫 1.jpg", "NaN"), ("图片/深/鸟.webp", "鸟")]))
    assert [row.texts[0].text for row in dataset] == ["鸟"] and {one.reason[-13:] for one in dataset.dropped} == {"empty caption"}


def test_a_record_without_pictures_is_listed(folder):
    lines = [json.dumps({"image": pictures, "caption": "a dog"}) for pictures in (["图片/狗.png"], [])]
    (folder / "r.jsonl").write_text("\n".join(lines), "utf-8")
    assert [(d.where, d.reason) for d in formats.read(folder / "r.jsonl").dropped] == [("r.jsonl:2", "no picture named")]


def test_broken_excel_files_are_named(folder):
    (folder / "x.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TongganError, match="not readable as Excel"):
        formats.read(folder / "x.xlsx")
    (folder / "y.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(TongganError, match=r"save it as \.xlsx"):
        formats.read(folder / "y.xls")


def test_jsonl_keeps_what_is_whole(folder):
    lines = [
        json.dumps({"image": "图片/狗.png", "caption": ["a dog", {"text": "一条狗", "lang": "zh"}], "licence": "CC0"}),
        '{"image": "图片/猫 1.jpg", "capt',
        json.dumps(["not", "an", "object"]),
        json.dumps({"image": ["图片/猫 1.jpg", "没有.jpg"], "caption": "cat"}),
    ]
    (folder / "r.jsonl").write_text("\n".join(lines), "utf-8")
    dataset = formats.read(folder / "r.jsonl")
    assert [t.lang for t in dataset[0].texts] == ["en", "zh"] and dataset[0].meta["licence"] == "CC0"
    assert len(dataset) == 2 and len(dataset[1].images) == 1
    assert [(d.where, d.reason.split(":")[0]) for d in dataset.dropped] == [
        ("r.jsonl:2", "not JSON (cut off?)"),
        ("r.jsonl:3", "not an object but list"),
        ("r.jsonl:4", "one of 2 pictures"),
    ]


def test_parquet_with_hugging_faces_pictures(folder):
    images = [{"bytes": encoded(1), "path": "a.jpg"}, {"bytes": None, "path": "图片/狗.png"}, {"bytes": b"", "path": None}]
    pq.write_table(pa.table({"image": images, "text": ["one", "two", "three"]}), folder / "test-00000-of-00001.parquet")
    dataset = formats.read(folder / "test-00000-of-00001.parquet")
    assert dataset[0].images[0].data == encoded(1) and dataset[1].images[0].path.name == "狗.png"
    assert dataset.splits == ("test",)
    assert [(d.where, d.reason) for d in dataset.dropped] == [("test-00000-of-00001.parquet:3", "no picture named")]
    (folder / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(TongganError, match="not readable as Parquet"):
        formats.read(folder / "broken.parquet")


def test_parquet_with_captions_in_plain_bytes(folder):
    said = ["一条狗".encode(), b"\xff\xfe", None]
    pq.write_table(pa.table({"id": [b"a", b"b", b"c"], "image": ["图片/狗.png"] * 3, "text": said}), folder / "b.parquet")
    dataset = formats.read(folder / "b.parquet")
    assert [(row.id, row.texts[0].text, row.texts[0].lang) for row in dataset] == [("a", "一条狗", "zh")]
    assert [one.reason for one in dataset.dropped] == ["its caption is damaged (bytes that are no text)", "图片/狗.png: empty caption"]


def test_unknown_files_and_formats(folder):
    with pytest.raises(TongganError, match="no such file or folder"):
        formats.read(folder / "no.csv")
    (folder / "a.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="unpack the archive"):
        formats.read(folder / "a.zip")
    with pytest.raises(UsageError, match="did you mean 'parquet'"):
        formats.read(table(folder, LINES), format="parket")
    (folder / "empty.csv").write_bytes(b"")
    with pytest.raises(TongganError, match="empty table"):
        formats.read(folder / "empty.csv")


# ------------------------------------------------------------------- damage that once cost more than its own row


def test_a_cut_byte_costs_its_own_line_of_a_chinese_table(folder):
    path = table(folder, [("filepath", "title"), *LINES[1:]], encoding="gb18030")
    path.write_bytes(path.read_bytes()[:-1])
    dataset = formats.read(path)
    assert [row.texts[0].text for row in dataset] == ["一只猫", "一条狗"]
    assert "damaged" in dataset.dropped[0].reason


def test_a_long_caption_in_quotes_is_one_caption(folder):
    poem = "\n".join(f"第{n}行，很长" for n in range(30))
    dataset = formats.read(table(folder, [LINES[0], ("图片\\猫 1.jpg", f'"{poem}"'), *LINES[2:]]))
    assert [row.texts[0].text for row in dataset] == [poem, "一条狗", "一只鸟"]


def test_captions_that_are_not_recognised_are_asked_for(folder):
    dataset = formats.read(table(folder, [("图片", "随便什么", "价格"), *((*line, "3") for line in LINES[1:])]))
    assert not any(row.texts for row in dataset)
    assert any("随便什么, 价格, name it with --text-col" in note for note in dataset.notes)
    found = formats.read(table(folder, [("图", "商品名称", "价格"), *((*line, "3") for line in LINES[1:])], name="b.csv"))
    assert [row.texts[0].text for row in found] == ["一只猫", "一条狗", "一只鸟"]


def test_a_table_without_names_may_have_any_columns(folder):
    dataset = formats.read(table(folder, [("1", *line) for line in LINES[1:]]))
    assert names(dataset) == ["猫 1.jpg", "狗.png", "鸟.webp"]
    swapped = formats.read(table(folder, [(words, picture) for picture, words in LINES[1:]], name="b.csv"))
    assert next((row.images[0].path.name, row.texts[0].text) for row in swapped) == ("猫 1.jpg", "一只猫")


def test_a_heading_and_a_logo_above_an_excel_table(folder):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["第三季度商品表"])
    for line in LINES:
        sheet.append(line)
    sheet.add_image(Laid(io.BytesIO(encoded(3))), "D1")
    book.save(folder / "表.xlsx")
    dataset = formats.read(folder / "表.xlsx")
    assert [row.texts[0].text for row in dataset] == ["一只猫", "一条狗", "一只鸟"] and dataset.dropped == ()


def test_damaged_sheets_and_columns_are_errors_or_dropped(folder):
    book = openpyxl.Workbook()
    book.active.append(["图片"])
    book.save(folder / "x.xlsx")
    with zipfile.ZipFile(folder / "x.xlsx") as old, zipfile.ZipFile(folder / "cut.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:-40] if "sheet1" in name else old.read(name))
    with pytest.raises(TongganError, match="not readable as Excel"):
        formats.read(folder / "cut.xlsx")
    data = bytearray((folder / "x.xlsx").read_bytes())
    with zipfile.ZipFile(folder / "x.xlsx") as old:
        part = old.getinfo("xl/worksheets/sheet1.xml")
    data[part.header_offset + 30 + len(part.filename)] = 0x07  # no block of packed data begins so
    (folder / "bent.xlsx").write_bytes(data)
    with pytest.raises(TongganError, match=r"not readable as Excel: .*invalid block type"):
        formats.read(folder / "bent.xlsx")


def test_several_captions_under_one_id_are_one_row(folder):
    lines = (
        [("image_id", "filepath", "caption")]
        + [("1", "图片/狗.png", word) for word in ("一条狗", "a dog")]
        + [("2", "图片/猫 1.jpg", "猫")]
    )
    dataset = formats.read(table(folder, lines))
    assert [(row.id, len(row.texts)) for row in dataset] == [("1", 2), ("2", 1)]


@pytest.mark.parametrize("said", [{"images": ["图片/狗.png"], "caption": "一条狗"}, {"image": "图片/狗.png", "texts": ["一条狗"]}])
def test_records_of_others_with_an_id_keep_their_captions_and_columns(folder, said):
    (folder / "a.jsonl").write_text(json.dumps({"id": 7, **said, "licence": "CC0"}), "utf-8")
    row = formats.read(folder / "a.jsonl")[0]
    assert (row.id, row.images[0].path.name, [text.text for text in row.texts]) == ("7", "狗.png", ["一条狗"])
    assert dict(row.meta) == {"licence": "CC0"}


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "x", "images": ["图片/狗.png"], "texts": [{"text": 5}]}',
        '{"id": "x", "images": ["图片/狗.png"], "texts": ["a"], "group": 5}',
        '{"id": "x", "images": ["图片/狗.png"], "texts": ["a"], "answers": [1]}',
        '{"id": "x", "images": ["图片/狗.png"], "texts": ["\\ud83d"]}',
        "[" * 100_000,
    ],
    ids=["number as text", "number as group", "number as answer", "half an emoji", "nested"],
)
def test_a_json_line_that_is_no_row_is_dropped(folder, line):
    path = folder / "a.jsonl"
    path.write_text('{"id": "good", "images": ["图片/狗.png"], "texts": ["一条狗"]}\n' + line + "\n", encoding="utf-8")
    dataset = formats.read(path)
    assert [row.id for row in dataset] == ["good"] and len(dataset.dropped) == 1
    dataset.dropped[0].reason.encode()
