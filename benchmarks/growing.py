"""What scaling.py measures at one size of what grows: writer processes, runs, points."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from generate import run_hash
from querying import generated
from table import CONTEXT, Bench, Run, child_environment, in_fresh_interpreter, losses

from aimlite import Repo

CALLS = 20_000  # of each writer

Row = dict[str, float]


def ms(task: Callable[[], object], repeats: int) -> float:
    """Median of the processor time of this process: what else the machine does counts less than in elapsed time."""
    return 1e3 * statistics.median(processor_s(task) for _ in range(repeats))


def processor_s(task: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    task()
    return time.process_time() - start


# -- 1 to 64 writer processes ------------------------------------------------------------------------------------------------------------


def writers(bench: Bench, processes: int) -> Row:
    """So many processes, each with a run of its own, track as fast as they can, all at the same time."""
    path, begin = bench.path(), time.time() + 1.0 + 0.15 * processes
    code = "import growing, json, sys; print(json.dumps(growing.one_writer(*json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", code, json.dumps([str(path), begin, CALLS])]
    started = [subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [json.loads(process.communicate()[0]) for process in started]
    assert all(process.returncode == 0 for process in started)
    cpu, opening, walls = zip(*found, strict=True)
    with Repo(path) as repo:
        reading = processor_s(lambda: sum(run.get_metric("loss", CONTEXT).count for run in repo.iter_runs()))  # type: ignore[union-attr]
    whole = max(end for _, end in walls) - min(start for start, _ in walls)
    return {
        "processor time of a track, µs": 1e6 * statistics.median(cpu),
        "elapsed time of all, a track, µs": 1e6 * whole / (processes * CALLS),
        "first run, ms": 1e3 * statistics.median(opening),
        "first look of a reader, a writer, ms": 1e3 * reading / processes,
    }


def one_writer(path: str, begin: float, calls: int) -> tuple[float, float, tuple[float, float]]:
    """(processor seconds of a call, seconds of `Run()`, when the calls began and ended)."""
    values = losses(calls).tolist()
    time.sleep(max(0.0, begin - time.time()))
    start = time.perf_counter()
    run = Run(repo=path)
    opening = time.perf_counter() - start
    wall, processor = time.time(), time.process_time()
    for step, value in enumerate(values):
        run.track(value, name="loss", step=step, context={"subset": "train"})
    spent, end = time.process_time() - processor, time.time()
    run.close()
    return spent / calls, opening, (wall, end)


# -- 10 to 100,000 runs ------------------------------------------------------------------------------------------------------------------


def runs(bench: Bench, number: int) -> Row:
    """A merged repo of so many runs of 20 params and 4 metrics."""
    path = generated(bench, number)
    figures: Row = {}
    with Repo(path) as repo:
        middle = run_hash(number // 2)
        repo.get_run(middle)
        made = [Run(repo=repo)]

        def one_run() -> None:
            made.append(Run(repo=repo))

        def small_merge_ms() -> float:
            with Run(repo=repo) as run:
                run["hparams"] = {"lr": 0.1}
                run.track(0.5, name="loss", step=0, context=CONTEXT)
            repo._writer().end_segment()
            return float(in_fresh_interpreter(merge_ms, str(path)))

        figures["opening a run, ms"] = ms(one_run, 10 * bench.repeats)
        run = made[-1]
        calls = 5000

        def tracks() -> None:
            for step in range(calls):
                run.track(0.5, name="loss", step=step, context={"subset": "train"})

        figures["track, µs"] = 1e3 * ms(tracks, bench.repeats) / calls
        for run in made:
            run.close()
        repo.merge()
        figures["one metric by hash, ms"] = ms(
            lambda: repo.get_run(middle).get_metric("loss", {"subset": "train"}).values.sparse_numpy(), 20
        )  # type: ignore[union-attr]
        figures["params of a run, ms"] = ms(lambda: repo.get_run(middle)["hparams"], 20)  # type: ignore[index]
        figures["resume, ms"] = ms(lambda: Run(middle, repo=repo).close(), bench.repeats)
        repo.merge()
        query = f"run.hparams.seed == {number // 2}"
        repo.query_runs(query).hashes()
        figures["query that finds 1 run, ms"] = ms(lambda: repo.query_runs(query).hashes(), 20)
        figures["query of half of the runs, a run, µs"] = (
            1e3 * ms(lambda: repo.query_runs("run.hparams.lr > 0.001", timeout=None).hashes(), 3) / number
        )
        figures["list of all runs, a run, µs"] = 1e3 * ms(repo.list_all_runs, 3) / number
        figures["merge of a small run, ms"] = statistics.median(small_merge_ms() for _ in range(bench.repeats))
    figures["open and read in a new process, ms"] = statistics.median(
        in_fresh_interpreter(first_read_ms, str(path), middle) for _ in range(bench.repeats)
    )
    return figures


def first_read_ms(path: str, name: str) -> float:
    return 1e3 * processor_s(lambda: Repo(path).get_run(name)["hparams"])  # type: ignore[index]


# -- 1,000 to 10,000,000 points of a metric ----------------------------------------------------------------------------------------------


def points(bench: Bench, number: int) -> Row:
    """One metric of so many points, by columns and merged."""
    path, values = bench.path(), losses(number)
    figures: Row = {}
    with Run(repo=path) as run:
        recording = processor_s(lambda: run.track_columns("loss", values, np.arange(number), context=CONTEXT))
    figures["columns, ns a point"] = 1e9 * recording / number
    with Repo(path) as repo:
        figures["resume and track before a merge, ms"] = statistics.median(resume_ms(repo, run.hash) for _ in range(bench.repeats))
        repo._writer().end_segment()
        figures["merge, ns a point"] = 1e6 * in_fresh_interpreter(merge_ms, str(path)) / number
        metric = repo.get_run(run.hash).get_metric("loss", CONTEXT)  # type: ignore[union-attr]
        assert metric is not None
        assert metric.count == number + bench.repeats
        figures["all points, ns a point"] = 1e6 * ms(metric.values.sparse_numpy, bench.repeats) / number
        figures["last value, ms"] = ms(lambda: metric.last, 20)
        figures["400 points that keep the shape, ms"] = ms(lambda: metric.values.sample(400), bench.repeats)
        figures["100 steps in the middle, ms"] = ms(lambda: metric.values[number // 2 : number // 2 + 100], 20)
        figures["resume and track, ms"] = statistics.median(resume_ms(repo, run.hash) for _ in range(bench.repeats))
        figures["bytes a point"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / number
        repo.merge()

        def small_merge_ms() -> float:
            with Run(run.hash, repo=repo) as more:
                more.track(0.5, name="loss", context=CONTEXT)
            repo._writer().end_segment()
            return float(in_fresh_interpreter(merge_ms, str(path)))

        figures["merge of one more point, ms"] = statistics.median(small_merge_ms() for _ in range(bench.repeats))
    return figures


def merge_ms(path: str) -> float:
    """Processor time of what the merge helper does, less starting its interpreter and imports."""
    from aimlite.storage.layout import Layout
    from aimlite.storage.merge import merge

    return 1e3 * processor_s(lambda: merge(Layout(Path(path) / ".aimlite"), wait=True))


def resume_ms(repo: Repo, name: str) -> float:
    start = time.process_time()
    run = Run(name, repo=repo)
    run.track(0.5, name="loss", context=CONTEXT)
    spent = time.process_time() - start
    run.close()
    return 1e3 * spent
