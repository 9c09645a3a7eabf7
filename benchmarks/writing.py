"""Operations that write: tracking, and what the kernel alone would take for the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from table import CONTEXT, Bench, Line, Run, Samples, child_environment, full_entropy, in_fresh_interpreter, losses, operation

from aimlite import Repo

BLOCK = 1 << 20


@operation("track", Line("µs", 1.0), Line("µs", of="p50"), Line("µs", of="p99"), Line("µs", of="p99.9"))
def track(bench: Bench) -> list[Samples]:
    """One value with name, step and context; the percentiles are of single calls, less the clock's own cost."""
    values = losses(bench.scaled(200_000)).tolist()
    with Run(repo=bench.path()) as run:

        def body() -> None:
            for step, value in enumerate(values):
                run.track(value, name="loss", step=step, context={"subset": "train"})

        def call(step: int) -> None:
            run.track(0.5, name="single", step=step, context={"subset": "train"})

        body()
        whole = bench.time(body, per=len(values) / 1e6)
        single = [percentiles(call, len(values)) for _ in range(bench.repeats)]
    return [whole, *(list(samples) for samples in zip(*single, strict=True))]


def percentiles(call: Callable[[int], None], n: int) -> tuple[float, float, float]:
    """p50, p99 and p99.9 of n calls, in µs."""
    spent = laps(call, n) - np.median(laps(lambda step: None, n))
    p50, p99, p999 = np.percentile(spent, (50, 99, 99.9)) / 1e3
    return float(p50), float(p99), float(p999)


def laps(call: Callable[[int], None], n: int) -> NDArray[np.int64]:
    """How long each of n calls took, in ns; one look at the clock between two of them."""
    clock = time.perf_counter_ns
    stamps = [0] * (n + 1)
    stamps[0] = clock()
    for step in range(n):
        call(step)
        stamps[step + 1] = clock()
    return np.diff(stamps)


@operation("track_merging", Line("µs", 1.0))
def track_merging(bench: Bench) -> list[Samples]:
    """As `track`, for so long that merge helpers start beside it; the time until they are done is not counted."""
    path, values = bench.path(), losses(bench.scaled(2_000_000)).tolist()
    os.environ.pop("AIMLITE_MERGE")
    try:
        with Run(repo=path) as run:

            def body() -> None:
                for step, value in enumerate(values):
                    run.track(value, name="loss", step=step, context={"subset": "train"})

            return [bench.time(body, repeats=min(2, bench.repeats), per=len(values) / 1e6)]
    finally:
        os.environ["AIMLITE_MERGE"] = "off"
        Repo(path).merge()


@operation("track_during_merge", *(Line("µs", of=of) for of in ("p50", "p99", "p99.9", "p50 alone", "p99 alone", "p99.9 alone")))
def track_during_merge(bench: Bench) -> list[Samples]:
    """Single calls as in `track`, for as long as another process merges what an earlier writer has left in the same repo.

    And right after, as many with no merge beside them.
    """
    path, n = bench.path(), bench.scaled(2_000_000, least=20_000)
    in_fresh_interpreter(leave_points, str(path), n)
    with Run(repo=path) as run:

        def call(step: int) -> None:
            run.track(0.5, name="single", step=step, context={"subset": "train"})

        laps(call, 1000)
        code = f"import sys; from aimlite import Repo; Repo({str(path)!r}).merge()"
        with subprocess.Popen([sys.executable, "-c", code], env=child_environment()) as merging:
            spent = [laps(call, 1000)]
            while merging.poll() is None:
                spent.append(laps(call, 1000))
        assert merging.returncode == 0
        alone = [laps(call, 1000) for _ in spent]
    clock = np.median(laps(lambda step: None, 1000))
    during, after = (np.percentile(np.concatenate(found) - clock, (50, 99, 99.9)) / 1e3 for found in (spent, alone))
    return [[float(figure)] for figure in (*during, *after)]


def leave_points(path: str, n: int) -> None:
    """n points in ended segments."""
    with Run(repo=path) as run:
        for step, value in enumerate(losses(n).tolist()):
            run.track(value, name="loss", step=step, context=CONTEXT)


@operation("track_power", Line("µs"))
def track_power(bench: Bench) -> list[Samples]:
    """As `track`, each call forced to the disk."""
    calls = bench.scaled(500)
    with Run(repo=bench.path(), durability="power") as run:

        def body() -> None:
            for step in range(calls):
                run.track(0.5, name="loss", step=step, context={"subset": "train"})

        return [bench.time(body, per=calls / 1e6)]


@operation("track_epoch", Line("µs", 1.0))
def track_epoch(bench: Bench) -> list[Samples]:
    """As `track`, with an epoch."""
    values = losses(bench.scaled(200_000)).tolist()
    with Run(repo=bench.path()) as run:

        def body() -> None:
            for step, value in enumerate(values):
                run.track(value, name="loss", step=step, epoch=1, context={"subset": "train"})

        body()
        return [bench.time(body, per=len(values) / 1e6)]


@operation("sequence_track", Line("µs"))
def sequence_track(bench: Bench) -> list[Samples]:
    """Through the handle of `run.sequence`."""
    values = losses(bench.scaled(200_000)).tolist()
    with Run(repo=bench.path()) as run:
        sequence = run.sequence("loss", CONTEXT)

        def body() -> None:
            for step, value in enumerate(values):
                sequence.track(value, step)

        body()
        return [bench.time(body, per=len(values) / 1e6)]


@operation("track_dict", Line("µs/value", 0.15))
def track_dict(bench: Bench) -> list[Samples]:
    """A dict of 10 values."""
    return [time_dict(bench, 10, bench.scaled(20_000))]


@operation("track_dict_1000", Line("µs/value", 0.15))
def track_dict_1000(bench: Bench) -> list[Samples]:
    """A dict of 1,000 values."""
    return [time_dict(bench, 1000, bench.scaled(300))]


def time_dict(bench: Bench, size: int, calls: int) -> Samples:
    values = {f"metric_{k}": value for k, value in enumerate(losses(size).tolist())}
    with Run(repo=bench.path()) as run:

        def body() -> None:
            for step in range(calls):
                run.track(values, step=step, context={"subset": "train"})

        body()
        return bench.time(body, per=size * calls / 1e6)


@operation("track_columns", Line("µs/point", 0.02))
def track_columns(bench: Bench) -> list[Samples]:
    """Arrays of float32-born values, regular steps."""
    n = bench.scaled(1_000_000)
    return [time_columns(bench, losses(n))]


@operation("track_columns_f64", Line("µs/point", 0.04))
def track_columns_f64(bench: Bench) -> list[Samples]:
    """Arrays of full-entropy float64, regular steps."""
    return [time_columns(bench, full_entropy(bench.scaled(1_000_000)))]


def time_columns(bench: Bench, values: NDArray[np.float64]) -> Samples:
    steps = np.arange(len(values))
    with Run(repo=bench.path()) as run:
        run.track_columns("loss", values, steps, context=CONTEXT)
        return bench.time(lambda: run.track_columns("loss", values, steps, context=CONTEXT), per=len(values) / 1e6)


@operation("write", Line("µs"), Line("µs/point", of="columns"), Line("µs/point", of="columns_f64"))
def write(bench: Bench) -> list[Samples]:
    """The floor: `os.write` of the bytes that `track` and `track_columns` write for a point."""
    n = bench.scaled(200_000)
    point, columns = bytes(bytes_per_track(bench)), bytes(BLOCK)
    fd = os.open(bench.path(), os.O_WRONLY | os.O_CREAT)
    try:

        def write_points() -> None:
            for _ in range(n):
                os.write(fd, point)

        singles = bench.time(write_points, per=n / 1e6)
        pieces = max(1, 4 * n // BLOCK)
        blocks = bench.time(lambda: [os.write(fd, columns) for _ in range(pieces)], per=pieces * BLOCK / 1e6)
    finally:
        os.close(fd)
    return [singles, [4 * sample for sample in blocks], [8 * sample for sample in blocks]]


def bytes_per_track(bench: Bench) -> int:
    """What one call of `track` adds to the journal once its names are declared."""
    path = bench.path()
    with Run(repo=path) as run:
        run.track(0.5, name="loss", step=0, context=CONTEXT)
        before = size_of(path)
        run.track(0.5, name="loss", step=1, context=CONTEXT)
        return size_of(path) - before


def size_of(path: Path) -> int:
    """Bytes in all files below a path."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@operation("peer track", Line("µs"))
def peer_track(bench: Bench) -> list[Samples]:
    """tensorboardX's add_scalar for as many points as it takes to fill its files, closing included; only where it is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return [[]]
    values = losses(bench.scaled(20_000)).tolist()

    def body() -> None:
        with SummaryWriter(str(bench.path())) as writer:
            for step, value in enumerate(values):
                writer.add_scalar("loss", value, step)

    return [bench.time(body, per=len(values) / 1e6)]
