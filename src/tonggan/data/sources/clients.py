"""The machine's own package clients: pip, apt-get, npm. Each either works or raises with the line for the user to run."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tonggan.types import TongganError

TIMEOUT = 1800.0
"""Seconds for one download and installation."""


def pip_install(packages: Sequence[str]) -> None:
    """Install into the running environment, and make the packages importable at once."""
    line = f"pip install {' '.join(packages)}"
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], line)
    importlib.invalidate_caches()


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages; needs root. An unknown package is tried again once the package lists are fresh."""
    line = f"sudo apt-get install {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise TongganError(f"there is no apt-get here (it is Debian's and Ubuntu's); on such a machine: {line}")
    if os.geteuid() != 0:
        raise TongganError(f"installing system packages needs root; run: {line}")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    try:
        _run(install, line)
    except TongganError:
        _run(["apt-get", "update", "-qq"], line)
        _run(install, line)


def npm_pack(packages: Sequence[str], directory: Path) -> list[Path]:
    """Download package archives (nothing is installed or run) into `directory`; their paths, in order."""
    line = npm_line(packages, directory)
    if shutil.which("npm") is None:
        raise TongganError(f"there is no npm here (it comes with Node.js); once it is: {line}")
    directory.mkdir(parents=True, exist_ok=True)
    # --ignore-scripts: an archive is data to us, none of its code is run.
    output = _run(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(directory), *packages], line)
    archives = [directory / name for name in output.split() if name.endswith(".tgz")]
    if len(archives) != len(packages) or not all(archive.is_file() for archive in archives):
        raise TongganError(f"npm reported success, but the archives are not in {directory}; try: {line}")
    return archives


def npm_line(packages: Sequence[str], directory: Path) -> str:
    """What a user types instead of `npm_pack`."""
    return f"mkdir -p {directory} && npm pack --pack-destination {directory} {' '.join(packages)}"


def _run(command: Sequence[str], line: str) -> str:
    """Standard output of a command; any failure becomes one message that ends in the line for the user."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise TongganError(f"{command[0]} took longer than {TIMEOUT / 60:.0f} minutes; run it yourself: {line}") from None
    except OSError as error:
        raise TongganError(f"{command[0]} cannot be run ({error.strerror}); run: {line}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise TongganError(f"{Path(command[0]).name} failed ({said}); run it yourself to see why: {line}")
    return done.stdout
