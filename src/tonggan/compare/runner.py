"""The same items, a named protocol, every answer on file: models measured one after another, and held against each other in pairs.

    out/results/TASK/MODEL.json, MODEL.items.jsonl     every number and every answer
    out/answers.db                                     replies of endpoints, not asked for twice
    out/manifest.json                                  what was compared, by which versions

What is there already is not measured again; a model that fails costs its own cells only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonggan.compare.measure import WITHOUT, Cell, How, asking, goes_blind, identity_of, measure
from tonggan.compare.pairs import Apart, Pair, pair_up, score_of
from tonggan.compare.tasks import Kind, Task
from tonggan.evaluate.metrics.summary import failed, smaller_is_better
from tonggan.evaluate.result import Result
from tonggan.types import Model, TongganError, UsageError

Say = Callable[[str], None]


@dataclass
class Compared:
    """All that came out."""

    tasks: list[Task]
    models: list[str]
    how: How = field(default_factory=How)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    apart: list[Apart] = field(default_factory=list)
    pictures: dict[str, dict[str, object]] = field(default_factory=dict)
    """By model: how it is given pictures, as its identity says."""

    def results(self, task: str) -> dict[str, Result]:
        """Each model's result on a task, of those that have one."""
        return {model: cell.result for (name, model), cell in self.cells.items() if name == task and cell.result is not None}

    def label(self, model: str) -> str:
        """A short name: the end of the full one, as long as no other model's ends so."""
        parts = [part for part in re.split(r"(?<=[/#:])", model) if part]
        ends = ["".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        return next((end for end in ends if sum(other.endswith(end) for other in self.models) == 1), model)

    def smaller_is_better(self, task: str) -> bool:
        """Whether a low score is a good one on this task."""
        return any(smaller_is_better(result.primary) for result in self.results(task).values())


def compare(
    models: Sequence[str], tasks: Sequence[Task], out: str | Path, *, load: Callable[[str], Model], how: How | None = None, say: Say = print
) -> Compared:
    """Measure every model on every task, and test every pair; `load` opens a model by its name."""
    where = Path(out)
    where.mkdir(parents=True, exist_ok=True)
    if len({one.name for one in tasks}) < len(tasks):
        raise UsageError("two tasks have one name; give them names of their own: compare.distinct")
    told = Compared(list(tasks), list(models), how or How())
    data = {one.name: f"{one.name}: {len(one.rows)} items, {one.fingerprint()}" for one in tasks}
    for name in models:
        opened: Model | TongganError
        try:
            opened = load(name)
            told.pictures[name] = {k: v for k, v in opened.identity.preprocessing.items() if "picture" in k or "image" in k}
        except TongganError as error:
            opened = error
        except Exception as error:  # whatever a model runs into while it is opened, the others are still measured
            opened = TongganError(f"{type(error).__name__}: {error}"[:300])
        for one in tasks:
            place = where / "results" / _slug(one.name)
            known = _known(place, name, data[one.name], told.how, one, None if isinstance(opened, TongganError) else opened)
            if known is not None:
                told.cells[one.name, name] = known
                say(f"{name} on {one.name}: measured before" + (f"; now: {opened}" if isinstance(opened, TongganError) else ""))
                continue
            cell = measure(opened, one, told.how, data[one.name]) if not isinstance(opened, TongganError) else Cell(why=str(opened))
            told.cells[one.name, name] = cell
            stem = f"{_slug(name)}{_suffix(told.how, one.kind)}"
            for stale in (f"{stem}.blind.json", f"{stem}.blind.items.jsonl"):  # of other weights, perhaps
                (place / stale).unlink(missing_ok=True)
            # The result itself last: where it is, everything is.
            for kind, result in ((".blind", cell.blind), ("", cell.result)):
                if result is not None:
                    result.write(place, f"{stem}{kind}")
            say(f"{name} on {one.name}: {_line(cell)}")
    told.pairs, told.apart = pair_up({one.name: told.results(one.name) for one in tasks})
    return told


def together(results: Mapping[str, Mapping[str, Result]], tasks: Sequence[Task]) -> Compared:
    """A comparison of results that were measured elsewhere, by task and model."""
    models = list(dict.fromkeys(model for of in results.values() for model in of))
    told = Compared(list(tasks), models)
    for one in tasks:
        for model in models:
            found = results.get(one.name, {}).get(model)
            told.cells[one.name, model] = Cell(found) if found is not None else Cell(why="not measured on this", cannot=True)
    told.pairs, told.apart = pair_up({one.name: told.results(one.name) for one in tasks})
    return told


def _known(place: Path, name: str, data: str, how: How, task: Task, model: Model | None) -> Cell | None:
    """What was measured on these very items before, by this very model (where it can be opened) and in the same way; None where it was
    not, or where requests failed: those are made again."""
    whole, without = (place / f"{_slug(name)}{_suffix(how, task.kind)}{end}.json" for end in ("", ".blind"))
    if not whole.is_file():
        return None
    try:
        result = Result.read(whole)
        blind = Result.read(without) if without.is_file() else None
    except TongganError:
        return None
    told = [result, *([blind] if blind is not None else [])]
    same = all(r.data == data and r.items and (model is None or r.extra.get("identity") == identity_of(model)) for r in told)
    # Of a model on this machine an item that cannot be asked today cannot be asked tomorrow; requests to others are made again.
    remote = result.extra.get("footprint", {}).get("device") is None
    explained = any(note.startswith(WITHOUT) for note in result.notes)
    again = any(_again(item, remote) for r in told for item in r.items)
    again |= blind is None and goes_blind(task) and (remote or not explained)
    return Cell(result, blind=blind) if same and not again else None


def _again(item: Mapping[str, Any], remote: bool) -> bool:
    """Whether an item is asked again: its request failed, or the judge's; not what could not even be sent."""
    return bool(item.get("judge failed")) or (remote and "error" in item.get("outcome", ()) and not item.get("unsent"))


def _line(cell: Cell) -> str:
    if cell.result is None:
        return cell.why
    score = score_of(cell.result)
    lost = sum(failed(item) for item in cell.result.items)
    left = f", {lost} of {len(cell.result.items)} items left out, whose requests failed" if lost else ""
    left += "".join(f"; {note}" for note in cell.result.notes if note.startswith(WITHOUT))
    return f"{cell.result.primary} {score.told()}{left} in {cell.footprint['seconds']:.0f} s"


def _suffix(how: How, kind: Kind) -> str:
    """Results that were got in another way, or by other prompts, are other files."""
    return f".{hashlib.sha256(f'{how.key}; {asking(kind)}'.encode()).hexdigest()[:6]}"


def _slug(name: str) -> str:
    """A file name for a model or a file: readable, and different for different names."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[-60:]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
