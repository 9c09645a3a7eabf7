"""Many processes, kills, forks and long loops, in real child processes (children/).

Every scenario runs in `make test` at a small size and in `make stress` (AIMLITE_STRESS=1) at its full counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aimlite

CHILDREN = Path(__file__).parent / "children"
FULL = os.environ.get("AIMLITE_STRESS") == "1"
HANG_S = 900 if FULL else 300  # a child that takes longer hangs; nothing else is told by the clock

Count = Callable[[int, int], int]
Start = Callable[..., "Child"]


class Child:
    """A script of children/ in a process of its own; what it prints is collected. One that waits for `go` reads its stdin to the end."""

    def __init__(self, script: str, *arguments: Any) -> None:
        paths = [str(Path(aimlite.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, str(CHILDREN / script), *map(str, arguments)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the child
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.lines: list[str] = []
        self._drain = threading.Thread(target=self._collect, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, line: str) -> None:
        """Until it has printed a line that begins so."""
        deadline = time.monotonic() + HANG_S
        while not any(text.startswith(line) for text in self.lines):
            assert self.process.poll() is None, f"ended before it printed {line!r}:\n{self.report()}"
            assert time.monotonic() < deadline, f"never printed {line!r}:\n{self.report()}"
            time.sleep(0.001)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> list[str]:
        """SIGKILL; returns what it had printed."""
        self.process.kill()
        return self._end()

    def join(self) -> list[str]:
        """Waits for its end, which must be a good one; returns what it printed."""
        try:
            self.process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"hangs:\n{self.report()}") from None
        assert self.process.returncode == 0, f"exit status {self.process.returncode}:\n{self.report()}"
        return self._end()

    def report(self) -> str:
        self._errors.seek(0)
        return "\n".join(["-- stdout:", *self.lines[-20:], "-- stderr:", self._errors.read()[-4000:]])

    def close(self) -> None:
        """Kills it if it lives, and gives up what the test holds of it."""
        self.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self._errors.close()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def _end(self) -> list[str]:
        self.process.wait()
        self._drain.join(10)  # a grandchild may keep the pipe open
        return self.lines


@pytest.fixture
def count() -> Count:
    """count(small, full): which of the two sizes this is."""
    return lambda small, full: full if FULL else small


@pytest.fixture
def start() -> Iterator[Start]:
    """start(script, argument, …) -> Child. What is still alive when the test ends is killed."""
    children: list[Child] = []

    def start(script: str, *arguments: Any) -> Child:
        children.append(Child(script, *arguments))
        return children[-1]

    yield start
    for child in children:
        child.close()
