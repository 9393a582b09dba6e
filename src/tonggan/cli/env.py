"""`tonggan env`: what this machine has."""

from __future__ import annotations

from typing import Any

import typer

from tonggan.cli.shared import Json, print_json

PACKAGES = ("numpy", "pillow", "pyarrow", "tokenizers", "safetensors", "transformers", "lancedb", "fastapi", "gradio", "matplotlib")


def env(json: Json = False) -> None:
    """What this machine has: versions, processors, sources. Put it into a bug report.

    Example: `tonggan env --json`
    """
    import platform
    from importlib import metadata

    import torch

    from tonggan import __version__
    from tonggan.data.sources import SOURCES

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    facts: dict[str, Any] = {
        "tonggan": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpus": gpus or "none",
        **{name: version(name) for name in PACKAGES},
        "sources": {name: "available" if source.available() else f"absent: {source.how}" for name, source in SOURCES.items()},
    }
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            lines = [f"{k}: {v}" for k, v in value.items()]
        else:
            lines = value if isinstance(value, list) else [str(value)]
        for line in lines:
            typer.echo(f"{name:14}{line}")
