"""What an evaluation leaves behind: numbers with intervals, the protocol they were measured by, and every item's outcome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tonggan.evaluate.metrics.summary import summary
from tonggan.evaluate.resample import Estimate
from tonggan.types import Dropped, UsageError

ASKED = ("task", "cluster", "truth", "candidates", "right")
"""What of an item is the question, not the model's answer: equal in results that can be compared."""


@dataclass(frozen=True, slots=True)
class Result:
    """One task on one model.

    `protocol` names exactly how the numbers came about; results of different protocols are never compared.
    `items` are per-query records, each with `id`, `cluster` (the picture), `task` (its table row) and the per-item values from which
    `metrics.summary` makes the metrics.
    """

    protocol: str
    model: str
    weights: str
    data: str
    primary: str
    metrics: Mapping[str, Estimate]
    items: Sequence[Mapping[str, Any]] = ()
    dropped: Sequence[Dropped] = ()
    notes: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The primary metric; larger is better."""
        return self.metrics[self.primary].value

    def to_dict(self) -> dict[str, Any]:
        """Everything but the items, as plain data."""
        return {
            "protocol": self.protocol,
            "model": self.model,
            "weights": self.weights,
            "data": self.data,
            "primary": self.primary,
            "metrics": {name: asdict(estimate) for name, estimate in self.metrics.items()},
            "dropped": [asdict(d) for d in self.dropped],
            "notes": list(self.notes),
            **({"extra": dict(self.extra)} if self.extra else {}),
        }

    def write(self, directory: str | Path, name: str) -> Path:
        """`NAME.json` with the numbers and `NAME.items.jsonl` with every item; gives the path of the first."""
        where = Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in self.items)
        path = where / f"{name}.json"
        # The numbers name the items that they are of: a process that is killed between the two files leaves what is known to be torn.
        digest = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        whole = json.dumps(self.to_dict() | {"items": digest}, ensure_ascii=False, indent=1)
        for file, text in ((where / f"{name}.items.jsonl", lines), (path, whole)):
            fresh = file.with_name(f".{file.name}.new")
            fresh.write_bytes(text.encode("utf-8", "surrogatepass"))
            fresh.replace(file)
        return path

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """A result written by `write`, items included."""
        file = Path(path)
        if not file.is_file():
            raise UsageError(f"{file}: no such result; expected the JSON file that `tonggan eval --out DIR` writes")
        try:
            return cls._read(file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{file}: not a result that `tonggan eval --out DIR` has written ({error!r})") from None

    @classmethod
    def _read(cls, file: Path) -> Result:
        data = json.loads(file.read_text(encoding="utf-8"))
        items_file = file.with_name(file.stem + ".items.jsonl")
        # Not by splitlines: a caption may hold characters that it takes for the end of a line (U+2028, U+0085).
        text = items_file.read_bytes() if items_file.is_file() else b""
        if items_file.is_file() and data.get("items") not in (None, hashlib.sha256(text).hexdigest()[:16]):
            raise UsageError(f"{items_file}: not the items that {file.name} was worked out from (a run was stopped while it wrote?)")
        lines = text.decode("utf-8", "surrogatepass").split("\n")
        return cls(
            protocol=data["protocol"],
            model=data["model"],
            weights=data["weights"],
            data=data["data"],
            primary=data["primary"],
            metrics={name: Estimate(**values) for name, values in data["metrics"].items()},
            items=[json.loads(line) for line in lines if line],
            dropped=[Dropped(**d) for d in data["dropped"]],
            notes=data["notes"],
            extra=data.get("extra", {}),
        )


def paired(result: Result, baseline: Result) -> dict[str, Estimate]:
    """`result` minus `baseline` for each metric, on the same items, with clustered 95 % intervals.

    Both must have been measured by one protocol on one item set; anything else is refused, because the difference would
    mean nothing. For ranks, smaller is better: a negative difference speaks for `result`.
    """
    if result.protocol != baseline.protocol:
        raise UsageError(f"not comparable: protocol {result.protocol!r} against {baseline.protocol!r}")
    mine = {item["id"]: item for item in result.items}
    theirs = {item["id"]: item for item in baseline.items}
    for side, items in ((result, mine), (baseline, theirs)):
        if len(items) != len(side.items):
            raise UsageError(f"not comparable: an item id occurs twice in the result of {side.model}")
        if not items:
            raise UsageError(f"not comparable: the result of {side.model} has no items; keep NAME.items.jsonl beside NAME.json")
    if mine.keys() != theirs.keys():
        only = sorted(mine.keys() ^ theirs.keys())
        raise UsageError(f"not comparable: {len(only)} items are in one result only, for example {only[0]!r}")
    for name, item in mine.items():
        for fact in ASKED:
            one, other = item.get(fact), theirs[name].get(fact)
            if one != other:
                raise UsageError(f"not comparable: {name!r} has {fact} {one!r} in one result and {other!r} in the other")
    return summary(list(mine.values()), minus=[theirs[name] for name in mine])
