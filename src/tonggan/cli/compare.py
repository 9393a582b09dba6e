"""`tonggan compare`: several models on the same items."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonggan.cli.shared import Json, Limit, print_dropped, print_json, print_notes
from tonggan.types import UsageError

if TYPE_CHECKING:
    from tonggan.compare import About, Compared, SuiteConfig, TaskConfig


def compare(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models: runs, directories, names, or endpoints such as dashscope:qwen-vl-max.")
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="A suite (pages-zh-en, stamps-zh-en, …), a file of yours, or a suite.yaml; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of the report, of every answer, and of what was measured already.")] = Path(
        "runs/compared"
    ),
    kind: Annotated[str, typer.Option(help="auto, choice, answers, captions, retrieval or classification.")] = "auto",
    metric: Annotated[
        str, typer.Option(help="Of free answers: auto, match, yes-no, vqa, vqa-evalai, anls, relaxed, wer, cer, cer-zh.")
    ] = "auto",
    circular: Annotated[bool, typer.Option("--circular", help="Ask chat models every rotation of the choices; all must be right.")] = False,
    way: Annotated[str | None, typer.Option(help="Ask choices by chat, logprob or embed only. Default: the best that a model can.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Give scores by the values of this column as well; may be repeated.")] = None,
    judge: Annotated[str | None, typer.Option(help="A chat model that reads replies which rules do not; named in every score.")] = None,
    scorer: Annotated[str | None, typer.Option(help="A two-tower model that gives captions their CLIPScore.")] = None,
    limit: Limit = None,
    split: Annotated[str | None, typer.Option(help="Use one split of a file only, e.g. test.")] = None,
    label: Annotated[str, typer.Option(help="Column with the class, for --kind classification.")] = "label",
    lang: Annotated[list[str] | None, typer.Option(help="Languages of captions, or of a classification's prompts.")] = None,
    chinese: Annotated[str, typer.Option(help="How Chinese captions are cut: zh-char or zh-jieba.")] = "zh-char",
    image_col: Annotated[str | None, typer.Option(help="Column with the pictures, e.g. 图片. Default: found by its name.")] = None,
    question_col: Annotated[str | None, typer.Option(help="Column with the questions, e.g. 问题. Default: found by its name.")] = None,
    answer_col: Annotated[str | None, typer.Option(help="Column with the right answers, e.g. 答案. Default: found by its name.")] = None,
    choices_col: Annotated[str | None, typer.Option(help="Column with the choices, e.g. 选项. Default: that name, or A, B, C, ….")] = None,
    price: Annotated[list[str] | None, typer.Option(help="MODEL=INPUT,OUTPUT,CURRENCY[,PICTURE_TOKENS] per million tokens.")] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Send at most so many requests to endpoints.")] = None,
    max_cost: Annotated[str | None, typer.Option(help="Spend at most so much, e.g. '20 CNY'; needs a price for every endpoint.")] = None,
    is_: Annotated[list[str] | None, typer.Option("--is", help="MODEL=ID: which release of `tonggan models ls` a model is.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent to endpoints: requests, bytes, cost.")] = False,
    json: Json = False,
) -> None:
    """Compare models on the same items: intervals, paired tests, the gap between Chinese and English, and every answer on file.

    Example: `tonggan compare runs/demo runs/mini --on stamps-zh-en --on openmoji-zh-en --out runs/compared`
    """
    from tonggan.compare import TaskConfig

    settings: dict[str, Any] = {
        "kind": kind, "metric": metric, "limit": limit, "split": split, "label": label, "langs": lang, "chinese": chinese,
        "image_col": image_col, "question_col": question_col, "answer_col": answer_col, "choices_col": choices_col, "by": by or (),
    }  # fmt: skip
    written, named_tasks = _suites(on or [])
    asked = TaskConfig.parse({"data": ""} | settings)
    told = {name: getattr(asked, name) for name in asked.model_dump(exclude_defaults=True, exclude={"data"})}
    chosen = [task.model_copy(update=told) for suite in written for task in suite.tasks]  # what is said here holds for all
    chosen += [asked.model_copy(update={"data": name}) for name in named_tasks]
    if not chosen:
        raise UsageError("compare on what? Give --on with a suite, a file of yours, or a suite.yaml; suites: tonggan compare --help")
    first = written[0] if written else None
    names = list(models or (first.models if first else ()))
    if not names:
        raise UsageError("compare which models? Name at least one, for example runs/demo or dashscope:qwen-vl-max")
    if len(set(names)) < len(names):
        raise UsageError("a model is named twice")
    _run(
        names,
        chosen,
        out,
        circular=circular or bool(first and first.circular),
        way=way or (first.way if first else None),
        judge=judge or (first.judge if first else None),
        scorer=scorer or (first.scorer if first else None),
        prices=[*(f"{name}={value}" for name, value in (first.prices if first else {}).items()), *(price or [])],
        releases=dict(first.releases if first else {}) | dict(_two(one) for one in is_ or []),
        max_requests=max_requests or (first.max_requests if first else None),
        max_cost=max_cost or (first.max_cost if first else None),
        dry_run=dry_run,
        json=json,
    )


def _run(
    names: list[str],
    chosen: list[TaskConfig],
    out: Path,
    *,
    circular: bool,
    way: str | None,
    judge: str | None,
    scorer: str | None,
    prices: list[str],
    releases: dict[str, str],
    max_requests: int | None,
    max_cost: str | None,
    dry_run: bool,
    json: bool,
) -> None:
    from tonggan.backends import load
    from tonggan.backends.api import Budget, Endpoint, named, near, parse_price
    from tonggan.compare import How, conversations, distinct, tasks
    from tonggan.compare import compare as run
    from tonggan.config import one_of
    from tonggan.evaluate.judge import Judge
    from tonggan.types import ChatOptions, Model

    for model in names:  # before anything is opened, measured or paid for
        if named(model) is None and (hint := near(model)):
            raise UsageError(f"no model {model!r}{hint}")
    about = _about(names, releases)
    made = distinct([task for config in chosen for task in tasks(config)])
    if judge and not any(one.kind == "choice" or (one.kind == "answers" and one.config.metric in ("auto", "match")) for one in made):
        raise UsageError(f"--judge {judge}: nothing here is left to a judge; it reads choices, and free answers marked by match")
    for task in made:
        print_notes(task.notes)
        print_dropped(task.dropped)
    price_of = dict(parse_price(one) for one in prices)
    amount, currency = _amount(max_cost) if max_cost is not None else (None, None)
    budget = Budget(requests=max_requests, money=amount, currency=currency)

    def opened(name: str) -> Model:
        endpoint = named(name)
        if endpoint is None:
            return load(name)
        return Endpoint(name, *endpoint, answers=out / "answers.db", budget=budget, price=price_of.get(name))

    for model in (*names, *([judge] if judge else [])):  # what a budget cannot count is told before anything is measured
        if (endpoint := named(model)) is not None:
            budget.admit(model, price_of.get(model) or (endpoint[1].price if endpoint[1].price != "unknown" else None))
    chosen_way: Any = None if way is None else one_of(way, ("chat", "logprob", "embed"), "--way")
    how = How(circular, chosen_way, Judge(opened(judge)) if judge else None, opened(scorer) if scorer else None)
    if dry_run:
        _preview([name for name in names if named(name) is not None], made, how, opened, conversations, ChatOptions(max_tokens=512), json)
        return
    told = run(names, made, out, load=opened, how=how, say=lambda text: typer.echo(text, err=json))
    _report(told, out, about, price_of, json)


def _preview(names: list[str], tasks: Any, how: Any, opened: Any, conversations: Any, options: Any, json: bool) -> None:
    """What would be sent to each endpoint for each task; the judge's questions depend on the answers, so they are not in it."""
    from dataclasses import asdict

    planned = []
    for name in names:
        model = opened(name)
        planned += [{"model": name, "task": task.name} | asdict(model.preview(conversations(task, how), options)) for task in tasks]
    if json:
        print_json(planned)
        return
    for line in planned:
        most = "cost unknown (--price, PICTURE_TOKENS)" if line["cost"] is None else f"at most {line['cost']:.4g} {line['currency']}"
        kept = f" ({line['kept']} kept)" if line["kept"] else ""
        typer.echo(
            f"{line['model']} on {line['task']}: {line['requests']} requests{kept}, {line['bytes']:,} bytes, "
            f"{line['pictures']} pictures of {line['pixels']:,} pixels, {most}"
        )
    if not planned:
        typer.echo("no endpoint among the models: nothing would be sent")


def _about(names: list[str], releases: dict[str, str]) -> dict[str, About]:
    """What the registry, one's own rows included, knows of each model."""
    from tonggan.backends.api import named
    from tonggan.compare import About, registry
    from tonggan.compare import releases as find
    from tonggan.compare.registry.own import home

    for name in releases:
        if name not in names:
            raise UsageError(f"--is {name}: no such model in this comparison; there are: {', '.join(names)}")
    found = find({name: releases.get(name) for name in names}, registry.load(home()))
    about = {}
    for name in names:
        endpoint = named(name)
        about[name] = About(
            found[name], "local" if endpoint is None else endpoint[1].data, moving=endpoint is not None and name not in releases
        )
    return about


def _report(told: Compared, out: Path, about: dict[str, About], prices: dict[str, Any], json: bool) -> None:
    import importlib.metadata as metadata
    import sys
    from dataclasses import replace

    from tonggan.compare import Price, plain, write

    for name, price in prices.items():
        if name in about:
            about[name] = replace(about[name], price=Price(price.input, price.output, price.currency))
    versions = {"python": sys.version.split()[0], **{name: metadata.version(name) for name in ("tonggan", "torch", "numpy")}}
    page = write(told, out, versions, about)
    failed = any(cell.result is None and not cell.cannot for cell in told.cells.values())
    if json:
        print_json(plain(told, about) | {"report": str(page)})
        raise typer.Exit(int(failed))
    for pair in told.pairs:
        left = f"; {pair.left_out} items left out, whose requests failed" if pair.left_out else ""
        typer.echo(f"{pair.one} − {pair.other} on {pair.task}: {pair.difference.told(sign=True)}, p {pair.adjusted:.3f} (Holm){left}")
    for one in told.apart:
        typer.echo(f"{one.one} and {one.other} on {one.task}: not compared ({one.why})")
    typer.echo(f"written: {page}")
    raise typer.Exit(int(failed))  # what failed is named above; the rest is on file


def _suites(names: list[str]) -> tuple[list[SuiteConfig], list[str]]:
    from tonggan.compare import suite

    files = [name for name in names if name.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise UsageError("one suite.yaml at a time: it may name models, prices and limits")
    return [suite(name) for name in files], [name for name in names if name not in files]


def _amount(text: str) -> tuple[float, str]:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)[\s,]*([A-Za-z]{3})\s*", text)
    if not found:
        raise UsageError(f"--max-cost {text!r}: expected an amount and a currency, for example '20 CNY'")
    return float(found[1]), found[2].upper()


def _two(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise UsageError(f"--is {text!r}: expected MODEL=ID, for example dashscope:qwen-vl-max=qwen-vl-max")
    return name, value
