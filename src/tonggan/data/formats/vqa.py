"""VQAv2's files: questions in one, ten people's answers to each in another, pictures in COCO's folders. OK-VQA has the same; TextVQA has
questions and answers in one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonggan.data.formats.base import Finder, Located, Reading, normal_split
from tonggan.data.formats.captions import read_json
from tonggan.data.formats.cells import as_text
from tonggan.data.formats.delimited import read_text
from tonggan.data.formats.questions import answers_in, by_letter, choices_in
from tonggan.types import Image, Row, TongganError, UsageError

Record = Mapping[str, Any]

_META = ("question_type", "answer_type", "multiple_choice_answer")
_PART = re.compile(r"(?<![a-z])(?P<split>train|validation|val|test)(?![a-z])(?:-dev|-challenge)?(?P<year>20\d\d)?")


def read_vqa(job: Reading) -> Iterator[Located]:
    """`{"questions": [{question_id, image_id, question}]}`; a row for each, its group the picture. Answers stand in the question itself or
    in the file of annotations beside it, all ten in their order; without one, rows have no answers, and a note says so.
    """
    data = read_json(job)
    asked = _records(data, "questions") or _records(data, "data")
    if not asked:
        raise UsageError(f"{job.path}: answers without their questions; give the file of questions{_beside(job.path)}")
    answered = {} if any("answers" in one for one in asked) else _annotations(asked, job)
    pictures = _Pictures.of(job, data)
    seen: set[str] = set()
    for number, one in enumerate(asked, 1):
        name = as_text(one.get("question_id")) or str(number)
        where = f"{job.label}: question {name}"
        question = as_text(one.get("question"))
        if question is None:
            job.drop(where, "no question")
        elif name in seen:
            job.drop(where, "its id occurs a second time")
        else:
            seen.add(name)
            picture = pictures.find(one)
            if isinstance(picture, str):
                job.drop(where, picture)
            else:
                yield where, _row(name, question, picture, {**one, **answered.get(name, {})}, pictures.split)


def _row(name: str, question: str, picture: Path | None, record: Record, split: str | None) -> Row:
    choices = choices_in(record.get("choices"))
    said = next((record[key] for key in ("answers", "answer", "multiple_choice_answer") if record.get(key)), None)
    return Row(
        id=name,
        images=() if picture is None else (Image(path=picture),),
        question=question,
        choices=choices,
        answers=answers_in(said, by_letter(choices)),
        group=as_text(record.get("image_id")),
        split=normal_split(record.get("set_name")) or split,
        meta={key: text for key in _META if (text := as_text(record.get(key)))},
    )


def _records(data: Any, name: str) -> list[Record]:
    found = data.get(name) if isinstance(data, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


# ---------------------------------------------------------------------------------------------- answers


def _annotations(asked: Sequence[Record], job: Reading) -> dict[str, Record]:
    """The annotations by question id: of the file that is named like this one, else of any that covers every question."""
    ids = {as_text(one.get("question_id")) for one in asked}
    named = _named(job.path)
    foreign = [file for file in _near(job.path) if file != job.path and file not in named and _speaks_of_questions(file)]
    for file in (*named, *foreign):
        found = _by_question(file)
        if found is None:
            if file in named:
                job.note(f"{file.name}: not readable as JSON, so no answers are taken from it")
            continue
        missing = ids - found.keys()
        if not missing or (file in named and len(missing) < len(ids)):
            job.note(f"answers from {file.name}" + (f"; {len(missing):,} of {len(ids):,} questions have none there" if missing else ""))
            return found
        if file in named:
            job.note(f"{file.name} answers other questions (another split?): none of its ids is among these")
    job.note(f"{job.label}: no file of annotations that covers its questions was found beside it: questions without answers")
    return {}


def _named(path: Path) -> list[Path]:
    """`v2_mscoco_val2014_annotations.json` for `v2_OpenEnded_mscoco_val2014_questions.json`, in the same folder or its neighbour."""
    stem = re.sub(r"(?i)(openended|multiplechoice)_", "", path.name)
    name = re.sub(r"(?i)questions", "annotations", stem).lower()
    return [file for file in _near(path) if file.name.lower() == name and file != path]


def _near(path: Path) -> list[Path]:
    """Files beside a file, and in the folder `annotations` or `questions` beside its own."""
    folder = path.absolute().parent
    beside = sorted(folder.parent.glob("*")) if _is_part(folder) else []
    places = [folder, *(place for place in beside if place != folder and place.is_dir() and _is_part(place))]
    return [file for place in places for file in sorted(place.glob("*.json"))]


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in ("annotations", "questions")


def _speaks_of_questions(file: Path) -> bool:
    """Whether a file begins like one of annotations; COCO's own are beside it as well, and take long to read."""
    try:
        with file.open("rb") as opened:
            return b'"question_id"' in opened.read(65_536)
    except OSError:
        return False


def _by_question(file: Path) -> dict[str, Record] | None:
    try:
        data = json.loads(read_text(file)[0])
    except (ValueError, RecursionError, TongganError):
        return None
    return {name: one for one in _records(data, "annotations") if (name := as_text(one.get("question_id")))}


def _beside(path: Path) -> str:
    names = [file.name for file in _near(path) if file != path and "question" in file.name.lower()]
    return f": {', '.join(names[:3])}" if names else ""


# --------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Where pictures are: as COCO is unpacked (`val2014/COCO_val2014_000000262148.jpg`), in another folder, or under their bare id."""

    finder: Finder
    part: str | None
    """`val2014`; None where the file does not say."""
    found: dict[str, Path | str] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Reading, data: Record) -> _Pictures:
        match = _PART.search(str(data.get("data_subtype") or "")) or _PART.search(job.path.name)
        part = f"{match['split']}{match['year'] or ''}" if match else None
        folder = job.path.absolute().parent
        return cls(Finder(folder.parent if _is_part(folder) else folder), part)

    @property
    def split(self) -> str | None:
        """The split by the name of the part."""
        return normal_split(self.part.rstrip("0123456789")) if self.part else None

    def find(self, record: Record) -> Path | str | None:
        """The picture of a question, None where it is about none, or the reason why there is none."""
        key = as_text(record.get("image_id") if record.get("image_id") is not None else record.get("image"))
        if key is None:
            return None
        if key not in self.found:
            self.found[key] = self._find(key)
        return self.found[key]

    def _find(self, key: str) -> Path | str:
        names = [key]
        if key.isascii() and key.isdigit():
            coco = f"COCO_{self.part}_{int(key):012d}.jpg"
            names = [*([f"{self.part}/{coco}", coco] if self.part else []), f"{int(key):012d}.jpg", key]
        for name in names:
            if isinstance(found := self.finder.find(name), Path):
                return found
        return f"{names[0]}: no such file"
