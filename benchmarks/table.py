"""The table of operations: what each prints, and what an operation is given to work with."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import aimlite

SEED = 0
CONTEXT = {"subset": "train"}

Run = functools.partial(aimlite.Run, system_tracking_interval=None, capture_terminal_logs=False)  # what a script records, and nothing else

Samples = list[float]


@dataclass(frozen=True)
class Line:
    """One figure of an operation.

    target: an upper bound, of a rate a lower one. of: what tells it from the operation's other figures. more_is_better: it is a rate.
    """

    unit: str
    target: float | None = None
    of: str = ""
    more_is_better: bool = False

    def best(self, samples: Samples) -> float:
        return max(samples) if self.more_is_better else min(samples)

    def missed(self, figure: float) -> float | None:
        """How many times the figure is beyond the target; at most 1 where it is reached, None without one."""
        if self.target is None:
            return None
        return self.target / figure if self.more_is_better else figure / self.target


@dataclass(frozen=True)
class Operation:
    """A function that measures, and the lines it gives samples for, in their order. No samples: it cannot be measured here."""

    name: str
    lines: tuple[Line, ...]
    measure: Callable[[Bench], list[Samples]]

    def line_name(self, line: Line) -> str:
        return f"{self.name} {line.of}".rstrip()


def operation(name: str, *lines: Line) -> Callable[[Callable[[Bench], list[Samples]]], Operation]:
    """Makes an operation of a function."""
    return lambda measure: Operation(name, lines, measure)


class Bench:
    """What an operation works with: a directory of its own, how large and how often."""

    def __init__(self, directory: Path, scale: float, repeats: int) -> None:
        self.directory = directory
        self.repeats = repeats
        self._scale = scale
        self._numbers = itertools.count()

    def scaled(self, n: int, least: int = 10) -> int:
        """n at scale 1."""
        return max(least, round(n * self._scale))

    def path(self) -> Path:
        """A path of its own where nothing is yet."""
        return self.directory / f"{next(self._numbers)}"

    def time(self, task: Callable[[], object], repeats: int = 0, per: float = 1.0) -> Samples:
        """How long each of the repeats took, in seconds / per."""
        return [stopwatch(task) / per for _ in range(repeats or self.repeats)]


def stopwatch(task: Callable[[], object]) -> float:
    """Seconds that a call takes. Garbage is collected before; the collector stays on, as it is for users."""
    gc.collect()
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def in_fresh_interpreter(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of this folder returns in an interpreter of its own. Arguments and result go through JSON."""
    code = f"import json, sys; import {function.__module__} as m; print(json.dumps(m.{function.__name__}(*json.loads(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], env=child_environment(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def child_environment() -> dict[str, str]:
    """That of this process, in which an interpreter finds this folder and the same aimlite."""
    here = [str(Path(__file__).parent), str(Path(aimlite.__file__).parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])}


# -- what is recorded: the same numbers every time ------------------------------------------------------------------------


def losses(n: int) -> NDArray[np.float64]:
    """A noisy, falling loss curve as a model gives it: born as float32."""
    noise = np.random.default_rng(SEED).standard_normal(n)
    curve = 0.1 + 2.2 * np.exp(-4.0 * np.arange(n) / n) * (1.0 + 0.1 * noise)
    return curve.astype(np.float32).astype(np.float64)


def full_entropy(n: int) -> NDArray[np.float64]:
    """Values all of whose 52 bits of mantissa are random."""
    return np.random.default_rng(SEED).random(n)


def jittered_times(n: int) -> NDArray[np.float64]:
    """Seconds since 1970: a step of 50 ms, give or take 1."""
    steps_s = 0.05 + 0.001 * np.random.default_rng(SEED).standard_normal(n)
    return 1.76e9 + np.cumsum(steps_s)
