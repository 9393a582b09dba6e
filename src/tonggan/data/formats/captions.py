"""Caption files of the classic benchmarks: COCO, Karpathy's splits, Flickr's token file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tonggan.data.formats.base import EMPTY_CAPTION, Finder, Located, Reading, normal_split
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.writing import Writing
from tonggan.data.language import language_of
from tonggan.data.rows import Dataset
from tonggan.types import Image, Row, Text, TongganError

TOKEN_LINE = re.compile(r"^(?P<picture>.+?)#(?P<number>\d+)\w*[\t ]+(?P<caption>.*)$")


def read_json(job: Reading) -> Any:
    """The parsed file; raises `TongganError` when it is no JSON."""
    try:
        return json.loads(read_text(job.path, job.encoding)[0])
    except (ValueError, RecursionError) as error:
        raise TongganError(f"{job.path}: not readable as JSON: {error}") from None


def json_kind(path: Path) -> Literal["coco", "karpathy", "vqa", "jsonl"]:
    """Which benchmark's object a JSON file holds, if it holds one."""
    try:
        data = json.loads(read_text(path)[0])
    except (ValueError, RecursionError):
        return "jsonl"
    if isinstance(data, dict) and asks(data):
        return "vqa"
    pictures = data.get("images") if isinstance(data, dict) else None
    if not isinstance(pictures, list) or not all(isinstance(one, dict) for one in pictures):
        return "jsonl"
    return "karpathy" if pictures and "sentences" in pictures[0] else "coco"


def asks(data: dict[str, Any]) -> bool:
    """Whether a JSON object holds questions as VQAv2 has them (TextVQA in `data`), with ids of pictures, or the answers to them."""
    first = {name: part[0] for name, part in data.items() if isinstance(part, list) and part and isinstance(part[0], dict)}
    return any({"question", "image_id"} <= first.get(name, {}).keys() for name in ("questions", "data")) or (
        "question_id" in first.get("annotations", ())
    )


def _texts(captions: Sequence[Any], job: Reading) -> tuple[Text, ...]:
    words = [caption.strip() for caption in captions if isinstance(caption, str) and caption.strip()]
    return tuple(Text(word, job.text_lang if isinstance(job.text_lang, str) else language_of(word)) for word in words)


def is_number(name: str) -> bool:
    """Whether an id is a whole number as COCO writes them."""
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _located(where: str, name: str, picture: Path | str, captions: Sequence[Any], job: Reading, **fields: Any) -> Iterator[Located]:
    """The row, or its reason in the list of those dropped."""
    texts = _texts(captions, job)
    if not isinstance(picture, Path):
        job.drop(where, f"{name}: {picture}")
    elif not texts:
        job.drop(where, f"{name}: {EMPTY_CAPTION}")
    else:
        yield where, Row(images=(Image(path=picture),), texts=texts, **fields)


# ----------------------------------------------------------------------------------------------- COCO


def read_coco(job: Reading) -> Iterator[Located]:
    """`{"images": [{id, file_name}], "annotations": [{image_id, caption}]}`; a row for each picture."""
    data = read_json(job)
    try:
        captions: dict[Any, list[str]] = {image["id"]: [] for image in data["images"]}
        for annotation in data["annotations"]:
            if annotation["image_id"] in captions:
                captions[annotation["image_id"]].append(annotation["caption"])
            else:
                job.drop(f"{job.path.name}: annotation {annotation.get('id')}", f"no picture has the id {annotation['image_id']}")
        # COCO as it is unpacked: annotations/captions_val2017.json beside val2017/.
        finder = Finder(job.base.parent if job.base.name == "annotations" else job.base)
        for image in data["images"]:
            where = f"{job.path.name}: image {image['id']}"
            name = image.get("file_name")
            if not isinstance(name, str):
                job.drop(where, "no file_name")
                continue
            yield from _located(where, name, finder.find(name), captions[image["id"]], job, id=str(image["id"]))
        finder.report(job)
    except (KeyError, TypeError) as error:
        raise TongganError(f"{job.path}: not COCO captions: {error!r} is missing or of another kind") from None


def write_coco(dataset: Dataset, job: Writing) -> None:
    """COCO captions. Ids are whole numbers there: a row whose id is none is counted on from the largest."""
    free = 1 + max((int(name) for name in dataset.column("id") if is_number(name)), default=0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in dataset:
        number = int(row.id) if is_number(row.id) else free
        free += not is_number(row.id)
        images.append({"id": number, "file_name": job.picture(row.images[0], row.id)})
        annotations += [{"id": len(annotations) + n, "image_id": number, "caption": text.text} for n, text in enumerate(row.texts, 1)]
    job.place.write_text(json.dumps({"images": images, "annotations": annotations}, ensure_ascii=False), "utf-8")


# ------------------------------------------------------------------------------------------- Karpathy


def read_karpathy(job: Reading) -> Iterator[Located]:
    """`{"images": [{filename, filepath, split, sentences: [{raw}]}]}` with its published splits; `restval` as the job says."""
    data = read_json(job)
    finder = Finder(job.base)
    try:
        for number, image in enumerate(data["images"]):
            name = "/".join(part for part in (image.get("filepath", ""), image["filename"]) if part)
            split = "train" if image.get("split") == "restval" and job.restval == "train" else normal_split(image.get("split"))
            captions = [sentence["raw"] for sentence in image["sentences"]]
            where = f"{job.path.name}: image {image.get('imgid', number)}"
            key = image.get("cocoid", image.get("imgid", number))
            yield from _located(where, name, finder.find(name), captions, job, id=str(key), split=split)
        finder.report(job)
    except (KeyError, TypeError, AttributeError) as error:
        raise TongganError(f"{job.path}: not Karpathy's format: {error!r}") from None


def write_karpathy(dataset: Dataset, job: Writing) -> None:
    """Karpathy's JSON; `imgid` counts the pictures, `cocoid` is the row's id. A row without a split has `null` there."""
    images: list[dict[str, Any]] = []
    sentence = 0
    for row in dataset:
        name = Path(job.picture(row.images[0], row.id))
        ids = list(range(sentence, sentence + len(row.texts)))
        sentence += len(ids)
        sentences = [
            {"raw": text.text, "tokens": re.findall(r"\w+", text.text.lower()), "imgid": len(images), "sentid": number}
            for text, number in zip(row.texts, ids, strict=True)
        ]
        folder = "" if name.parent == Path() else name.parent.as_posix()
        key = int(row.id) if is_number(row.id) else row.id
        record = {"filepath": folder, "filename": name.name, "imgid": len(images), "cocoid": key, "split": row.split}
        images.append(record | {"sentids": ids, "sentences": sentences})
    job.place.write_text(json.dumps({"dataset": job.path.stem, "images": images}, ensure_ascii=False), "utf-8")


# --------------------------------------------------------------------------------------------- Flickr


def read_flickr(job: Reading) -> Iterator[Located]:
    """`PICTURE#NUMBER<TAB>CAPTION` lines; a row for each picture, its id the picture's name."""
    captions: dict[str, list[str]] = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(read_text(job.path, job.encoding)[0].splitlines(), 1):
        match = TOKEN_LINE.match(line)
        if match:
            captions.setdefault(match["picture"], []).append(match["caption"])
            first_line.setdefault(match["picture"], number)
        elif line.strip():
            job.drop(f"{job.path.name}:{number}", "not PICTURE#NUMBER, a tab and a caption")
    finder = Finder(job.base)
    for name, words in captions.items():
        yield from _located(f"{job.path.name}:{first_line[name]}", name, finder.find(name), words, job, id=name)
    finder.report(job)


def write_flickr(dataset: Dataset, job: Writing) -> None:
    """Flickr's token file. A picture is named by its path from the file's folder, so that two folders may each have a `1.jpg`."""
    named = [(job.picture(row.images[0], row.id), row.texts) for row in dataset]
    lines = [f"{name}#{n}\t{' '.join(text.text.split())}\n" for name, texts in named for n, text in enumerate(texts)]
    job.place.write_text("".join(lines), "utf-8")
