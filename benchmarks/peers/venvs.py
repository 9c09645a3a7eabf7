"""A throw-away virtual environment for each peer, so that none of them meets another's dependencies or ours."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VENVS = Path(__file__).parents[2] / "build" / "peers"  # `make clean` removes it


class Unavailable(Exception):
    """A peer cannot be installed here; the text says why."""


def interpreter(parent: Path, name: str, packages: Sequence[str]) -> str:
    """The Python of the environment of these packages, which is made where it is missing. Raises Unavailable."""
    key = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:8]
    directory = parent / f"{name}-{key}"
    python = directory / "bin" / "python"
    complete = directory / "complete"
    if not complete.exists():
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)])
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])
        complete.touch()
    return str(python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Unavailable(f"cannot be installed: {lines[-1][:200] if lines else f'exit status {done.returncode}'}")
