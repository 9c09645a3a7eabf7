"""Operations that read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from table import CONTEXT, Bench, Line, Run, Samples, jittered_times, losses, operation

from aimlite import Repo
from aimlite.sdk.metric import Metric


@operation("read_metric", Line("ms", 10.0), Line("ms", of="journals first"), Line("ms", of="journals"))
def read_metric(bench: Bench) -> list[Samples]:
    """One metric of 1M tracked points as arrays: merged; and unmerged, for a reader that has read nothing yet, then for one that has."""
    path = bench.path()
    run_hash = record_points(path, bench.scaled(1_000_000))

    def read(repo: Repo) -> None:
        metric_of(repo, run_hash).values.sparse_numpy()

    first = bench.time(lambda: read(Repo(path)))
    with Repo(path) as repo:
        read(repo)
        again = bench.time(lambda: read(repo))
        repo.merge()
        read(repo)
        merged = bench.time(lambda: read(repo), 2 * bench.repeats)
    return [in_ms(samples) for samples in (merged, first, again)]


def record_points(path: Path, n: int) -> str:
    """n points of one metric by `track`, in journals that nobody holds any more."""
    with Run(repo=path) as run:
        for step, value in enumerate(losses(n).tolist()):
            run.track(value, name="loss", step=step, context=CONTEXT)
    return run.hash


def metric_of(repo: Repo, run_hash: str) -> Metric:
    run = repo.get_run(run_hash)
    assert run is not None
    metric = run.get_metric("loss", CONTEXT)
    assert metric is not None
    return metric


def in_ms(samples: Samples) -> Samples:
    return [1e3 * sample for sample in samples]


@operation("read_many_runs", Line("ms", 20.0), Line("ms", of="journals"))
def read_many_runs(bench: Bench) -> list[Samples]:
    """One metric of 100 points from each of 400 runs, which hold 5 metrics each: merged, and unmerged."""
    path = bench.path()
    values = losses(100)
    for _ in range(bench.scaled(400)):
        with Run(repo=path) as run:
            for name in ("loss", "accuracy", "recall", "precision", "speed"):
                run.track_columns(name, values, context=CONTEXT)

    def read(repo: Repo) -> None:
        for run in repo.iter_runs():
            metric = run.get_metric("loss", CONTEXT)
            assert metric is not None
            metric.values.sparse_numpy()

    with Repo(path) as repo:
        read(repo)
        unmerged = bench.time(lambda: read(repo))
        repo.merge()
        read(repo)
        return [in_ms(bench.time(lambda: read(repo), 2 * bench.repeats)), in_ms(unmerged)]


@operation("sample", Line("ms"), Line("ms", of="epochs"))
def sample(bench: Bench) -> list[Samples]:
    """400 of 1M merged points, for drawing: of the values, which reads summaries, and of the epochs, which reads points."""
    n, path = bench.scaled(1_000_000), bench.path()
    with Run(repo=path) as run:
        run.track_columns("loss", losses(n), np.arange(n), np.arange(n) // 1000, jittered_times(n), CONTEXT)
    with Repo(path) as repo:
        repo.merge()
        metric = metric_of(repo, run.hash)
        metric.values.sample(400)
        heads = bench.time(lambda: metric.values.sample(400), 2 * bench.repeats)
        return [in_ms(heads), in_ms(bench.time(lambda: metric.epochs.sample(400)))]


@operation("list_runs", Line("ms", of="1000"), Line("ms", of="1000 journals"), Line("ms", of="10000"))
def list_runs(bench: Bench) -> list[Samples]:
    """The hashes of all runs, newest first: of 1,000 merged and unmerged, of 10,000 merged."""
    path = bench.path()
    few, many = bench.scaled(1000), bench.scaled(10_000)
    with Repo(path) as repo:
        make_runs(repo, few)
        repo.list_all_runs()
        unmerged = bench.time(repo.list_all_runs)
        repo.merge()
        repo.list_all_runs()
        merged = bench.time(repo.list_all_runs, 2 * bench.repeats)
        make_runs(repo, many - few)
        repo.merge()
        repo.list_all_runs()
        return [in_ms(merged), in_ms(unmerged), in_ms(bench.time(repo.list_all_runs))]


def make_runs(repo: Repo, n: int) -> None:
    for number in range(n):
        with Run(repo=repo, experiment=f"experiment {number % 10}") as run:
            run["hparams"] = {"learning_rate": 0.1 / (1 + number % 7), "layers": number % 5}
            run.track(0.5, name="loss", step=0, context=CONTEXT)
