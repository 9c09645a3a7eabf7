"""Operations around recording: opening, closing, merging, and what recording takes in bytes, memory and descriptors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from table import CONTEXT, Bench, Line, Run, Samples, child_environment, in_fresh_interpreter, jittered_times, losses, operation, stopwatch
from writing import size_of

import aimlite
from aimlite import Repo


@operation("open", Line("ms", 5.0, of="first"), Line("ms", 1.0, of="later"), Line("ms", of="new process"), Line("ms", of="defaults"))
def open_(bench: Bench) -> list[Samples]:
    """`Run()` where no repo is yet; in a repo this process has open; in a repo that is new to the process; and as by default, with system
    metrics and the terminal recorded. Modules are imported before."""
    path = bench.path()
    first = bench.time(lambda: Run(repo=bench.path()), 10 * bench.repeats, per=1e-3)
    runs = [Run(repo=path)]
    later = bench.time(lambda: runs.append(Run(repo=path)), 10 * bench.repeats, per=1e-3)
    default = [in_fresh_interpreter(open_ms, str(path), True) for _ in range(bench.repeats)]
    return [first, later, [in_fresh_interpreter(open_ms, str(path), False) for _ in range(bench.repeats)], default]


def open_ms(path: str, default: bool) -> float:
    """In a process that has opened nothing."""
    make = aimlite.Run if default else Run
    return 1e3 * stopwatch(lambda: make(repo=path))


@operation("close", Line("ms", 1.0), Line("ms", 2.0, of="merge due"), Line("ms", of="exit"))
def close(bench: Bench) -> list[Samples]:
    """`close()` of a run of 10 metrics.

    Then of a script in whose repo so many ended segments wait that a merge helper is due: what `close()` takes, and what the end of the
    process takes, which starts the helper.
    """
    runs = [Run(repo=bench.path()) for _ in range(10 * bench.repeats)]
    for run in runs:
        run.track({f"metric_{number}": 0.5 for number in range(10)}, step=0, context=CONTEXT)
    scripts = [in_fresh_interpreter(close_ms, str(with_ended_segments(bench.path()))) for _ in range(min(5, bench.repeats))]
    return [[1e3 * stopwatch(run.close) for run in runs], *(list(samples) for samples in zip(*scripts, strict=True))]


def with_ended_segments(path: Path, segments: int = 80) -> Path:
    """A repo in which so many ended segments wait to be merged: more than a helper lets be."""
    for number in range(segments):
        with Run(repo=path) as run:
            run.track(0.5, name="loss", step=number, context=CONTEXT)
        run.repo._writer().end_segment()
    return path


def close_ms(path: str) -> tuple[float, float]:
    """(what `close()` takes, what the end of the process takes beyond it), helpers allowed."""
    from aimlite.storage import writer

    os.environ.pop("AIMLITE_MERGE", None)
    run = Run(repo=path)
    run.track({f"metric_{number}": 0.5 for number in range(10)}, step=0, context=CONTEXT)
    closing, ending = stopwatch(run.close), stopwatch(writer._close_writers)
    os.environ["AIMLITE_MERGE"] = "off"
    Repo(path).merge()  # waits for the helper: what it makes is removed next
    return 1e3 * closing, 1e3 * ending


@operation("resume", Line("ms"), Line("ms", of="new process"))
def resume(bench: Bench) -> list[Samples]:
    """`Run(hash)` of a merged run of 10 metrics and the first `track` of one, which counts on from its last step.

    Where the repo is open for reading, and where the process has read nothing yet.
    """
    path = bench.path()
    with Run(repo=path) as run:
        for name in range(10):
            run.track_columns(f"metric_{name}", losses(bench.scaled(10_000)), context=CONTEXT)
    with Repo(path) as repo:
        repo.merge()
        warm = [resume_ms(str(path), run.hash) for _ in range(2 * bench.repeats)]
    return [warm, [in_fresh_interpreter(resume_ms, str(path), run.hash) for _ in range(bench.repeats)]]


def resume_ms(path: str, run_hash: str) -> float:
    start = time.perf_counter()
    run = Run(run_hash, repo=path)
    run.track(0.5, name="metric_0", context=CONTEXT)
    spent = time.perf_counter() - start
    run.close()
    return 1e3 * spent


@operation(
    "merge",
    Line("points/s", 5e6, more_is_better=True),
    Line("points/s", of="whole", more_is_better=True),
    Line("points/s", of="columns", more_is_better=True),
    Line("ms", of="nothing"),
)
def merge(bench: Bench) -> list[Samples]:
    """1M points of 10 metrics from `track`: the work alone, and as `repo.merge()` takes, which starts a helper for it.

    Then 1M points of one metric from `track_columns`, the work alone; and `repo.merge()` with nothing to merge.
    """
    n, tracked, columns = bench.scaled(1_000_000), bench.path(), bench.path()
    with Run(repo=tracked) as run:
        for step, value in enumerate(losses(n // 10).tolist()):
            for name in range(10):
                run.track(value, name=f"metric_{name}", step=step, context=CONTEXT)
    with Run(repo=columns) as run:
        run.track_columns("loss", losses(n), np.arange(n), np.arange(n) // 1000, jittered_times(n), CONTEXT)
    times = range(min(3, bench.repeats))
    whole, nothing = [], []
    for _ in times:
        with Repo(copied(bench, tracked)) as repo:
            whole.append(n / stopwatch(repo.merge))
            nothing.append(1e3 * stopwatch(repo.merge))
    inside = [[n / in_fresh_interpreter(merge_s, str(copied(bench, path))) for _ in times] for path in (tracked, columns)]
    return [inside[0], whole, inside[1], nothing]


def copied(bench: Bench, path: Path) -> Path:
    """A copy of a repo, whose journals nobody holds."""
    return Path(shutil.copytree(path, bench.path()))


def merge_s(path: str) -> float:
    """What the merge helper does, less starting its interpreter and imports."""
    from aimlite.storage.layout import Layout
    from aimlite.storage.merge import merge

    return stopwatch(lambda: merge(Layout(Path(path) / ".aimlite"), wait=True))


@operation("bytes_per_point", Line("B", 6.0), Line("B", 6.0, of="tracked"), Line("B", of="journal"))
def bytes_per_point(bench: Bench) -> list[Samples]:
    """The whole repo after a merge, per point of step, epoch, time and value: 1M with jittered times; and as `track` writes.

    Then the second of the two before the merge.
    """
    n, columns, tracked = bench.scaled(1_000_000), bench.path(), bench.path()
    with Run(repo=columns) as run:
        run.track_columns("loss", losses(n), np.arange(n), np.arange(n) // 1000, jittered_times(n), CONTEXT)
    with Run(repo=tracked) as run:
        for step, value in enumerate(losses(n).tolist()):
            run.track(value, name="loss", step=step, epoch=step // 1000, context=CONTEXT)
    journal = size_of(tracked) / n
    for path in (columns, tracked):
        Repo(path).merge()
    return [[size_of(columns) / n], [size_of(tracked) / n], [journal]]


@operation("import", Line("ms", 100.0), Line("ms", 100.0, of="Run"))
def import_(bench: Bench) -> list[Samples]:
    """`import aimlite` in a fresh interpreter; and with the names it imports when they are first used."""
    statements = ("import aimlite", "from aimlite import Repo, Run")
    import_ms(statements[1])  # compiles
    return [[import_ms(statement) for _ in range(bench.repeats)] for statement in statements]


def import_ms(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), stdout=subprocess.PIPE, check=True)
    return 1e3 * float(done.stdout)


@operation("descriptors", Line("files", 64.0))
def descriptors(bench: Bench) -> list[Samples]:
    """Open files of a process that writes 10,000 metrics of 100 runs and reads one of each back."""
    return [[in_fresh_interpreter(count_descriptors, str(bench.path()), bench.scaled(100))]]


def count_descriptors(path: str, runs: int) -> int:
    held = [Run(repo=path) for _ in range(runs)]
    for run in held:
        for number in range(100):
            run.track(0.5, name=f"metric_{number}", step=0, context=CONTEXT)
    with Repo(path) as repo:
        repo.merge()
        metrics = [next(iter(run.metrics())) for run in held]
        assert [metric.count for metric in metrics] == [1] * runs
        return len(os.listdir("/proc/self/fd")) - 1 if os.path.isdir("/proc/self/fd") else psutil.Process().num_fds()


@operation("rss per sequence", Line("B", 1024.0))
def rss(bench: Bench) -> list[Samples]:
    """Memory that a writer keeps for each sequence it has written to."""
    return [[in_fresh_interpreter(rss_per_sequence, str(bench.path()), bench.scaled(50_000, least=1000))]]


def rss_per_sequence(path: str, sequences: int) -> float:
    process = psutil.Process()
    with Run(repo=path) as run:
        run.track(0.5, name="loss", step=0, context=CONTEXT)
        before = process.memory_info().rss
        for number in range(sequences):
            run.track(0.5, name=f"metric_{number}", step=0, context=CONTEXT)
        return (process.memory_info().rss - before) / sequences
