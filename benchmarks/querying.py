"""Operations that query."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from generate import generate, params_of, run_hash
from table import Bench, Line, Samples, in_fresh_interpreter, operation

from aimlite import Repo

SELECTIVE = "run.hparams.optimizer == 'adam' and run.hparams.seed < 100"
UNSELECTIVE = "run.hparams.lr > 0.001"
LAST = "metric.last < 0.2"
AIM_RUNS = (400, 1000)
_AIM_BATCH = 200


def generated(bench: Bench, runs: int) -> Path:
    """A repo of so many runs, made in a process of its own."""
    path = bench.path()
    in_fresh_interpreter(fill, str(path), runs)
    return path


def fill(path: str, runs: int) -> None:
    generate(Path(path), runs)


@operation(
    "query",
    Line("ms", 5.0, of="selective"),
    Line("ms", 300.0, of="unselective"),
    Line("ms", of="arithmetic"),
    Line("ms", 300.0, of="metrics"),
    Line("ms", 20.0, of="400 metrics"),
    Line("MiB", of="memory"),
)
def query(bench: Bench) -> list[Samples]:
    """Over 100,000 runs of 20 params and 4 metrics: 18 runs by two params; half of the runs by one; the same by an expression that no
    index answers; `metric.last` of all 400,000 metrics; one metric of 10 points of each of 400 runs as arrays. And by how much the
    process grows when all metrics are compared."""
    runs = bench.scaled(100_000, least=400)
    path = generated(bench, runs)
    with Repo(path) as repo:
        assert len(repo.query_runs(f"run.hparams.seed == {runs - 1}").hashes()) == 1
        few = f"metric.name == 'loss' and metric.context.subset == 'val' and run.hparams.seed >= {runs - 400}"
        samples = [
            [1e3 * sample for sample in bench.time(task)]
            for task in (
                lambda: repo.query_runs(SELECTIVE).hashes(),
                lambda: repo.query_runs(UNSELECTIVE, timeout=None).hashes(),
                lambda: repo.query_runs("run.hparams.lr * 1000 > 1", timeout=None).hashes(),
                lambda: len(repo.query_metrics(LAST, timeout=None)),
                lambda: repo.query_metrics(few).numpy(),
            )
        ]
    return [*samples, [in_fresh_interpreter(growth, str(path))]]


def growth(path: str) -> float:
    """MiB by which this process grows through a query over all metrics, after a first, small one."""
    import resource

    with Repo(path) as repo:
        len(repo.query_metrics(f"run.hash == '{run_hash(0)}'"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        len(repo.query_metrics("metric.last > 1e9", timeout=None))
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@operation("peer query", *(Line("times", of=f"{what} {runs}") for runs in AIM_RUNS for what in ("selective", "unselective", "metrics")))
def peer_query(bench: Bench) -> list[Samples]:
    """How many times longer Aim takes for the same queries on 400 and 1,000 runs. AIMLITE_AIM_PYTHON: an interpreter that has Aim."""
    python = os.environ.get("AIMLITE_AIM_PYTHON")
    if not python:
        return [[] for _ in range(3 * len(AIM_RUNS))]
    ratios = []
    for runs in AIM_RUNS:
        theirs_ms = aim_ms(python, bench.path(), runs)
        with Repo(generated(bench, runs)) as repo:
            ours = [
                min(bench.time(lambda: repo.query_runs(SELECTIVE).hashes())),
                min(bench.time(lambda: repo.query_runs(UNSELECTIVE).hashes())),
                min(bench.time(lambda: len(repo.query_metrics(LAST)))),
            ]
        ratios += [[their_ms / 1e3 / our_s] for their_ms, our_s in zip(theirs_ms, ours, strict=True)]
    return ratios


def aim_ms(python: str, path: Path, runs: int) -> list[float]:
    """Aim's times for the three queries, on the runs that `generate` makes. Its repo is filled by processes of 200 runs each."""
    import random

    path.mkdir()
    script = str(Path(__file__).with_name("aim_peer.py"))
    chance = random.Random(7)
    for first in range(0, runs, _AIM_BATCH):
        batch = [params_of(number, chance) for number in range(first, min(first + _AIM_BATCH, runs))]
        subprocess.run([python, script, "fill", str(path)], input=json.dumps(batch), text=True, check=True, stdout=subprocess.DEVNULL)
    queries = json.dumps([["runs", SELECTIVE], ["runs", UNSELECTIVE], ["metrics", LAST]])
    done = subprocess.run([python, script, "query", str(path)], input=queries, text=True, check=True, stdout=subprocess.PIPE)
    times_ms: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times_ms
