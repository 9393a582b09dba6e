"""Predictions as evaluators leave them behind, read into one shape: the raw reply, what could be chosen, and what is right.

- our own `*.items.jsonl`: of choices (`shown` holds them in the order of their letters, one list per reply in `said`), and of free
  answers (`answers` holds every right one, duplicates kept, because they are counted);
- VLMEvalKit's table (xlsx, tsv, csv, json): `index, question, A, B, …, answer, prediction`; rows whose index is equal modulo 1,000,000
  are rotations of one question;
- lmms-eval's samples (jsonl): `resps` or `filtered_resps`, `target`, and the options in `doc`, else in the prompt, which is in `input`;
- VQA results (json): `[{"question_id", "answer"}]`, with the annotations' file.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeAlias

from tonggan.data.formats.delimited import read_text
from tonggan.evaluate.metrics.reading import without_thoughts
from tonggan.evaluate.records import Located, parse_json, read_records
from tonggan.types import Dropped, UsageError

ROTATION = 1_000_000
"""VLMEvalKit numbers rotation k of question q as q + k * ROTATION."""


ENOUGH = 4
"""Annotators whom VQA accuracy needs for a full score: three others who agree with each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply to a question with choices: their texts in the order of their letters, and the number of the right one."""

    reply: str
    options: tuple[str, ...]
    right: int
    answered: bool = True
    """False for refusals, filtered, cut and failed answers, where that is on file."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with choices and every reply to it: one, or one to each rotation of the choices. `cluster` is its picture, or itself."""

    id: str
    cluster: str
    question: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Free:
    """A question with a free answer, and what the annotators answered."""

    id: str
    cluster: str
    question: str
    reply: str
    answers: tuple[str, ...]


Item: TypeAlias = Choice | Free


@dataclass
class Predictions:
    """A file of predictions: its form, the questions that can be scored (all with choices, or all free), and what could not be used."""

    path: Path
    form: str
    items: Sequence[Item] = ()
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def circular(self) -> bool:
        """Whether some question was asked with its choices rotated."""
        return any(isinstance(item, Choice) and len(item.turns) > 1 for item in self.items)


OURS, TABLE, SAMPLES, VQA_RESULTS = "Tonggan's items", "VLMEvalKit's rows", "lmms-eval's samples", "VQA results"
FORMS = {
    OURS: ("said", "right"),
    TABLE: ("index", "prediction"),
    SAMPLES: ("resps|filtered_resps", "target"),
    VQA_RESULTS: ("question_id", "answer"),
}
"""Forms by name, with the fields by which each is known (one of those divided by |)."""


class _Unusable(Exception):
    """Why a record cannot be scored."""


def read_predictions(path: str | Path, *, annotations: str | Path | None = None, limit: int | None = None) -> Predictions:
    """The first `limit` questions of a file of predictions, whatever its form.

    Raises `UsageError` for a form that is not known, for ids that occur twice, and where nothing can be scored.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    held = list(read_records(file))
    if not held:
        raise UsageError(f"{file}: no predictions in it")
    form = _form(file, {str(name) for _, record in held for name in record})
    if (form == VQA_RESULTS) != (annotations is not None):
        raise UsageError(
            f"{file}: VQA results hold no right answers: give the annotations' file with --annotations"
            if annotations is None
            else f"{file}: --annotations goes with VQA results; {form} hold the right answers themselves"
        )
    found = Predictions(file, form)
    if annotations is not None:
        found.items = _vqa(found, held, Path(annotations).expanduser())
    else:
        found.items = {OURS: _ours, TABLE: _table, SAMPLES: _samples}[form](found, held)
    _check(found)
    found.items = found.items[:limit]
    return found


def _form(file: Path, names: set[str]) -> str:
    for form, needed in FORMS.items():
        if all(names & set(one.split("|")) for one in needed):
            return form
    expected = "; ".join(f"{form}: {', '.join(needed).replace('|', ' or ')}" for form, needed in FORMS.items())
    raise UsageError(
        f"{file}: a form of predictions that is not known. Found: {', '.join(sorted(names)[:20])}. Expected one of: {expected}"
    )


def _check(found: Predictions) -> None:
    if not found.items:
        first = f"; the first: {found.dropped[0].where}: {found.dropped[0].reason}" if found.dropped else ""
        raise UsageError(f"{found.path}: none of its {found.form} can be scored{first}")
    _unique(found.path, [item.id for item in found.items])
    kinds = Counter(type(item) for item in found.items)
    if len(kinds) > 1:
        (most, _), *_ = kinds.most_common(1)
        odd = "a free answer among questions with choices" if most is Choice else "a question with choices among free answers"
        found.dropped += [Dropped(item.id, odd) for item in found.items if type(item) is not most]
        found.items = [item for item in found.items if type(item) is most]
    replies = [reply for item in found.items for reply in _replies(item)]
    if empty := sum(not reply.strip() for reply in replies):
        found.notes.append(f"{empty} empty replies: they are scored, as nothing said")
    if few := sum(isinstance(item, Free) and len(item.answers) < ENOUGH for item in found.items):
        found.notes.append(
            f"{few} questions have fewer than {ENOUGH} annotators' answers: VQA accuracy is by how many others agree, so that "
            "the best reply gets at most 67 % with three answers, 33 % with two and 0 with one"
        )


def _replies(item: Item) -> list[str]:
    return [item.reply] if isinstance(item, Free) else [turn.reply for turn in item.turns]


def _unique(path: Path, ids: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise UsageError(f"{path}: ids that occur more than once: {len(twice)}, for example {twice[0]!r}; keep one reply for each")


# ----------------------------------------------------------------------------------------------- records


def _text(value: Any) -> str:
    """A cell or field as text: whole numbers without a fraction, nothing as an empty text."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _each(found: Predictions, held: Iterable[Located], make: Callable[[Mapping[str, Any]], Item]) -> Iterator[Item]:
    for where, record in held:
        try:
            yield make(record)
        except _Unusable as reason:
            found.dropped.append(Dropped(where, str(reason)))


# -------------------------------------------------------------------------------------------------- ours


def _ours(found: Predictions, held: Sequence[Located]) -> list[Item]:
    result = found.path.with_name(found.path.name.removesuffix(".items.jsonl") + ".json")
    if result != found.path and result.is_file():
        told = parse_json(read_text(result)[0], str(result))
        way = told.get("extra", {}).get("way", "chat") if isinstance(told, Mapping) else "chat"
        if way != "chat":
            raise UsageError(f"{found.path}: its choices were made by numbers ({way}), not in words: there are no replies to read")
    items = list(_each(found, held, _our_item))
    free = {item.id for item in items if isinstance(item, Free)}
    ended = Counter(str(one) for _, record in held if str(record.get("id")) in free for one in record.get("outcome", ()))
    if unanswered := ", ".join(f"{outcome} {count}" for outcome, count in ended.items() if outcome != "answered"):
        found.notes.append(f"how asking ended, where not with an answer: {unanswered}; these programs read such text like any other")
    return items


def _our_item(record: Mapping[str, Any]) -> Item:
    said, shown, right = record.get("said"), record.get("shown"), record.get("right")
    if not isinstance(said, list) or not said or right is None or "id" not in record:
        raise _Unusable("no reply (`said`), no right answer (`right`), or no `id`")
    outcomes = record.get("outcome", ["answered"] * len(said))
    if not isinstance(outcomes, list) or len(outcomes) != len(said):
        raise _Unusable("its outcomes (`outcome`) are not one for each reply (`said`)")
    if "error" in outcomes:  # then `said` holds why, which is no reply
        raise _Unusable(f"the request failed: {said[outcomes.index('error')]}")
    if isinstance(record.get("answers"), list):
        return _our_free(record, str(said[0]))
    if not isinstance(shown, list) or len(shown) != len(said):
        raise _Unusable("the order of its choices is not on file (`shown`, one list per reply): a free answer, or an older result")
    if any(right not in options for options in shown):
        raise _Unusable(f"the right answer {right!r} is not among its choices")
    turns = tuple(
        Turn(str(reply), tuple(map(str, options)), options.index(right), outcome == "answered")
        for reply, options, outcome in zip(said, shown, outcomes, strict=True)
    )
    return Choice(*_asked(record), turns)


def _our_free(record: Mapping[str, Any], said: str) -> Free:
    """A reply without thoughts: these programs are handed answers, and do not look for thoughts in them."""
    answers = _annotators(record["answers"])
    if not {"vqa", "vqa-evalai"} & set(record):
        raise _Unusable("not marked by VQA accuracy: its right answers are wordings that are all accepted, not annotators who may agree")
    if len(answers) < 2:
        few = "a single right answer" if answers else "no right answer"
        raise _Unusable(f"{few}: VQA accuracy, which all protocols for free answers are, counts how many annotators agree with each other")
    return Free(*_asked(record), without_thoughts(said).strip(), answers)


def _asked(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Id, cluster and question of one of our items."""
    return str(record["id"]), str(record.get("cluster", record["id"])), str(record.get("question") or "")


# -------------------------------------------------------------------------------------------- VLMEvalKit


def _table(found: Predictions, held: Sequence[Located]) -> list[Item]:
    """One item for each question; further rotations of its choices are further turns of it."""
    rotations: dict[int, dict[int, Choice]] = {}
    items: dict[str, Item] = {}
    single = list(_each(found, held, _table_item))
    _unique(found.path, [item.id for item in single])
    for item in single:
        if isinstance(item, Free) or not item.id.isdecimal():
            items[item.id] = item
        else:
            rotations.setdefault(int(item.id) % ROTATION, {})[int(item.id)] = item
    for first, group in rotations.items():
        if first in group:
            turns = tuple(turn for index in sorted(group) for turn in group[index].turns)
            items[str(first)] = Choice(str(first), group[first].cluster, group[first].question, turns)
        else:
            found.dropped += [Dropped(str(index), f"a rotation of question {first}, which is not in the table") for index in group]
    return list(items.values())


def _table_item(record: Mapping[str, Any]) -> Item:
    name, question = _text(record.get("index")).strip(), _text(record.get("question"))
    if not name or "prediction" not in record:
        raise _Unusable("no index" if not name else "no prediction")
    reply, answer = _text(record["prediction"]), _text(record.get("answer")).strip()
    cluster = _text(record.get("image_path")) or (str(int(name) % ROTATION) if name.isdecimal() else name)
    options = [_text(record.get(letter)) for letter in ascii_uppercase]
    while options and not options[-1].strip():
        options.pop()
    if not options and (several := _literal_list(answer)):
        return Free(name, cluster, question, reply, tuple(map(str, several)))
    if len(options) < 2:
        raise _Unusable("fewer than two options: an open question")
    if answer not in ascii_uppercase[: len(options)] or not answer:
        raise _Unusable(f"the answer {answer!r} is not the letter of an option" if answer else "no answer to mark by")
    return Choice(name, cluster, question, (Turn(reply, tuple(options), ascii_uppercase.index(answer)),))


def _literal_list(text: Any) -> list[Any]:
    """A list, or a list that was written as text; empty for anything else."""
    if isinstance(text, list):
        return text
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return []
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return value if isinstance(value, list) else []


# --------------------------------------------------------------------------------------------- lmms-eval

_OPTION_LINE = re.compile(r"^[ \t]*\(?([A-Z])[.):、．：][ \t]*(.+?)[ \t]*$", re.MULTILINE)


def _samples(found: Predictions, held: Sequence[Located]) -> list[Item]:
    others = 0

    def made(record: Mapping[str, Any]) -> Item:
        nonlocal others
        reply, filtered = _reply(record)
        others += filtered
        return _sample(record, reply)

    items = list(_each(found, held, made))
    if others:
        found.notes.append(f"{others} replies were filtered by lmms-eval before it scored them; here the raw replies are read")
    return items


def _reply(record: Mapping[str, Any]) -> tuple[str, bool]:
    """The raw reply, without thoughts if lmms-eval has cut them off; and whether lmms-eval scored something else."""
    raw, used = _first(record.get("resps")), _first(record.get("filtered_resps"))
    if raw is None or used is None:
        reply = used if raw is None else raw
        if reply is None:
            raise _Unusable("no reply")
        return reply, False
    thoughts = raw.strip().removesuffix(used.strip()).rstrip().endswith(">")
    return (used, False) if raw.strip() == used.strip() or (used.strip() and thoughts) else (raw, True)


def _first(value: Any) -> str | None:
    """The reply out of lists that lmms-eval may wrap it in; of several samples the first, as its score takes it."""
    while isinstance(value, list):
        value = value[0] if value else None
    return None if value is None else str(value)


def _sample(record: Mapping[str, Any], reply: str) -> Item:
    held = record.get("doc")
    doc: Mapping[str, Any] = held if isinstance(held, Mapping) else {}
    name, prompt = str(record.get("doc_id", doc.get("id", ""))), record.get("input")
    question = str(doc.get("question") or (prompt if isinstance(prompt, str) else ""))
    cluster = str(doc.get("image_id", name))
    options = _options(doc) or _options_in(prompt)
    if len(options) < 2:
        if several := _literal_list(doc.get("answers")):
            return Free(name, cluster, question, reply, _annotators(several))
        raise _Unusable("no options, neither in `doc` nor in the prompt (`input`)")
    return Choice(name, cluster, question, (Turn(reply, options, _right(_text(record.get("target")).strip(), options)),))


def _options(doc: Mapping[str, Any]) -> tuple[str, ...]:
    for key in ("options", "choices"):
        if listed := _literal_list(doc.get(key)):
            return tuple(map(_text, listed))
    lettered = [_text(doc.get(letter)) for letter in ascii_uppercase]
    return tuple(lettered[: next((i for i, text in enumerate(lettered) if not text), len(lettered))])


def _options_in(prompt: Any) -> tuple[str, ...]:
    """The options that a prompt lists, one a line ("A. cat"); of several lists the last."""
    options: list[str] = []
    for letter, text in _OPTION_LINE.findall(prompt) if isinstance(prompt, str) else ():
        if letter == "A":
            options = [text]
        elif options and letter == ascii_uppercase[len(options)]:
            options.append(text)
    return tuple(options)


def _right(target: str, options: Sequence[str]) -> int:
    bare = target.strip("(). ")
    if len(bare) == 1 and bare.upper() in ascii_uppercase[: len(options)]:
        return ascii_uppercase.index(bare.upper())
    if target in options:
        return options.index(target)
    if bare.isdecimal() and int(bare) < len(options):
        return int(bare)
    raise _Unusable(f"the target {target!r} is neither a letter nor the text of an option" if target else "no target to mark by")


# --------------------------------------------------------------------------------------------------- VQA


def _vqa(found: Predictions, held: Sequence[Located], annotations: Path) -> list[Item]:
    if not annotations.is_file():
        raise UsageError(f"{annotations}: no such file")
    data = parse_json(read_text(annotations)[0], str(annotations))
    listed = data.get("annotations") if isinstance(data, Mapping) else data
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) and {"question_id", "answers"} <= set(one) for one in listed):
        raise UsageError(f'{annotations}: expected {{"annotations": [{{"question_id", "answers", …}}, …]}}, as VQA publishes them')
    said = [(str(record.get("question_id")), record.get("answer")) for _, record in held]
    _unique(found.path, [name for name, _ in said])
    _unique(annotations, [str(one["question_id"]) for one in listed])
    replies = dict(said)
    items: list[Item] = []
    for one in listed:
        name, reply = str(one["question_id"]), replies.pop(str(one["question_id"]), None)
        answers = _annotators(one["answers"])
        if reply is None or not answers:
            found.dropped.append(Dropped(name, "no answer in the results" if reply is None else "no annotators' answers"))
        else:
            items.append(Free(name, str(one.get("image_id", name)), str(one.get("question", "")), str(reply), answers))
    found.dropped += [Dropped(name, f"not in {annotations.name}") for name in replies]
    return items


def _annotators(answers: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(one["answer"]) if isinstance(one, Mapping) else str(one) for one in answers)
