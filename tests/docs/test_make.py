"""What stands behind `make`: set-up on machines unlike ours, and what is said of tests that could not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PATH = "/usr/bin:/bin"
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] && mkdir -p "$4/bin" && cp "$HERE/python" "$4/bin/python" && cp "$HERE/pip" "$4/bin/pip" && touch "$4/pyvenv.cfg"
[ "$2" = "import torch" ] && exit 1
echo "python $*" >>"$HERE/calls"
"""
PIP = """#!/bin/sh
echo "pip $*" >>"$HERE/calls"
case "$*" in
*+cpu*) [ -n "$CPU_BUILD" ] || { echo "WARNING: first" >&2; echo "ERROR: No matching distribution found" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of set-up with a Python and a pip that only write down what they are asked for."""
    if shutil.which("nvidia-smi", path=PATH):
        pytest.skip("set-up takes another path where there is an NVIDIA device")
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints/cpu.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, script in (("python", PYTHON), ("pip", PIP)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def set_up(machine: Path, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and what Python and pip were asked for in this call."""
    calls = machine / "calls"
    calls.write_text("")
    done = subprocess.run(
        [machine / "scripts" / "setup.sh", "core", "core"],
        env={"PATH": PATH, "PYTHON": str(machine / "python"), "HERE": str(machine), **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


def test_the_cpu_build_is_looked_for_before_the_large_one(machine: Path) -> None:
    code, said, calls = set_up(machine, CPU_BUILD="here")
    asked = [call for call in calls if call.startswith("pip install") and "torch" in call]
    assert code == 0 and len(asked) == 1 and asked[0].endswith("+cpu"), said
    assert "several GB" not in said
    shutil.rmtree(machine / "core")
    code, said, calls = set_up(machine)
    asked = [call for call in calls if call.startswith("pip install") and "torch" in call]
    assert code == 0 and len(asked) == 2 and not asked[1].endswith("+cpu"), said
    assert "(ERROR: No matching distribution found)" in said and "several GB" in said
    assert "No matching distribution" in (machine / "core" / "torch.log").read_text()


def test_a_half_made_environment_is_made_anew_and_a_whole_one_is_kept(machine: Path) -> None:
    broken = machine / "core" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    code, said, _ = set_up(machine)
    assert code == 1 and "something else than a virtual environment" in said, "nobody's folder is cleared"
    (machine / "core" / "pyvenv.cfg").touch()
    code, said, calls = set_up(machine)
    assert code == 0 and "python -m venv --clear core" in calls, said
    code, said, calls = set_up(machine)
    assert code == 0 and not [call for call in calls if "install" in call or "venv" in call], "a second run needs no network"


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_what_could_not_be_tested_is_said(tmp_path: Path, workers: str) -> None:
    """Also under xdist, whose printing process collects nothing."""
    (tmp_path / "test_one.py").write_text("import pytest\n\npytest.importorskip('nowhere_to_be_found', reason='no module here')\n")
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\n@pytest.mark.skip(reason='no browser')\n@pytest.mark.parametrize('n', [1, 2])\ndef test(n): ...\n"
    )
    options = f"-q -n {workers} -p conftest -p no:cacheprovider -c {os.devnull} --rootdir {tmp_path}".split()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert "NOT TESTED (1 skipped): no module here" in done.stdout, done.stdout + done.stderr
    assert "NOT TESTED (2 skipped): no browser" in done.stdout
