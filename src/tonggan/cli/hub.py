"""`tonggan import` and `tonggan export`: models as directories of ours, and in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from tonggan.cli.shared import Json, plural, print_json

SHOWN = (
    "image_size", "patch_size", "frames", "context", "vocab_size", "dim", "width", "layers", "heads", "mlp_width", "activation", "pooling",
)  # fmt: skip
"""What tells one model of a family from another at a glance."""


def import_(
    source: Annotated[str, typer.Argument(help="A directory, or hf:OWNER/NAME, ms:OWNER/NAME, perhaps with @REVISION.")],
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    json: Json = False,
) -> None:
    """Read a published model, check that nothing of it is unknown, and write it with a record of exactly what it is.

    Downloads go through the cache of the hub's own client; HF_ENDPOINT and MODELSCOPE_ENDPOINT name another hub.

    Example: `tonggan import hf:openai/clip-vit-base-patch32 models/clip`
    """
    from tonggan import hub
    from tonggan.backends.names import find
    from tonggan.hub.families import OURS

    found = find(source)
    provenance = {**found.provenance, "imported": {"from": source}}
    hub.save(out, found.module, found.config, found.processor, provenance=provenance, labels=found.labels)
    family = hub.family_for(found.config, found.processor, insist=False)
    sizes = dict(_sizes(found.config.model_dump(mode="json")))
    count = sum(parameter.numel() for parameter in found.module.parameters())
    # The source, not what was written: a setting that was misread would be written as it was read.
    check = None if family is OURS else f"tonggan verify {quote(source)} --against transformers"
    if json:
        print_json({"directory": str(out), "family": family.name, "parameters": count, "sizes": sizes, "dropped": list(found.dropped),
                    "weights": found.identity.weights, "verified": False, "verify": check})  # fmt: skip
        return
    typer.echo(f"{source}: {family.name}, {count:,} parameters")
    for name, said in sizes.items():
        typer.echo(f"  {name}: {', '.join(f'{key} {value}' for key, value in said.items())}")
    if found.dropped:
        listed = ", ".join(found.dropped[:6]) + (", …" if len(found.dropped) > 6 else "")
        typer.echo(f"left out on purpose: {plural(len(found.dropped), 'tensor')} ({listed})")
    typer.echo(f"{out}: written {'in our own format' if family is OURS else 'as it is published'}; weights {found.identity.weights[:16]}")
    if check is None:
        typer.echo("not verified: there is no reference that reads this format")
    else:
        typer.echo(f"not verified against a reference yet; do it: {check}")


def export(
    model: Annotated[str, typer.Argument(help="The model to export.")],
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    to: Annotated[
        Literal["transformers", "onnx", "int8"],
        typer.Option(help="transformers (its published format), onnx (graphs for programs without torch), int8 (weights of one byte)."),
    ],
    json: Json = False,
) -> None:
    """Write a model in a form that other programs read; what the form has no place for is an error that names it. An adapter is merged.

    Example: `tonggan export runs/demo models/demo --to transformers`
    """
    from tonggan import hub
    from tonggan.backends.names import find
    from tonggan.hub.merged import merged
    from tonggan.models.adapt import is_adapted

    found = find(model)
    check = f"tonggan verify {quote(model)} --against {to}"
    if to == "transformers":
        provenance = {**found.provenance, "exported": {"from": model}}
        plain = merged(found) if is_adapted(found.module) else found  # an adapter is merged, as the other forms do
        hub.save(out, plain.module, plain.config, plain.processor, format=to, provenance=provenance, labels=plain.labels)
        check = f"tonggan verify {quote(str(out))} --against transformers"
    elif to == "onnx":
        from tonggan.hub.export_onnx import export_onnx

        export_onnx(found, out)
        check += f" --copy {quote(str(out))}"
    else:
        from tonggan.hub.export_int8 import export_int8

        export_int8(found, out)
        check += f" --copy {quote(str(out))}"
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if json:
        print_json({"directory": str(out), "format": to, "bytes": size, "verified": False, "verify": check})
        return
    typer.echo(f"{out}: {to}, {size / 1e6:,.1f} MB, with tokenizer and picture settings")
    needed = "not verified yet" if to == "transformers" else "not verified yet, and not opened before it is"
    typer.echo(f"{needed}: {check}")


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(part, what tells it from others) of a configuration: of the model as a whole, and of each part that is one."""
    whole = {name: config[name] for name in SHOWN if config.get(name) is not None}
    if whole:
        yield "model", whole
    for name, part in config.items():
        if isinstance(part, Mapping) and (said := {key: part[key] for key in ("kind", *SHOWN) if part.get(key) is not None}):
            yield name, said
