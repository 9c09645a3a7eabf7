"""Train eight networks in parallel, read the repo back, show what it holds."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np

from aimlite import Repo, Run
from aimlite.demo.picture import Panel, save
from aimlite.demo.training import grid, train
from aimlite.sdk.metric import Metric
from aimlite.terminal.chart import Curve, chart

TRAIN, VAL = {"subset": "train"}, {"subset": "val"}


def main(arguments: Sequence[str] | None = None, program: str = "python -m aimlite.demo") -> None:
    options = parser(program).parse_args(arguments)
    started = time.perf_counter()
    with Repo(options.repo) as repo:
        hashes = _train_all(repo, options.repo, options.epochs, options.processes)
        runs = [run for run in map(repo.get_run, hashes) if run is not None]
        seconds = time.perf_counter() - started
        print(f"{len(runs)} runs, {_points(runs):,} points, written by {options.processes} processes in {seconds:.1f} s\n")
        print(_table(runs), end="\n\n")
        print(chart(_curves(runs, "loss", TRAIN), title="training loss", x_label="epoch", log=True, colour=sys.stdout.isatty()), end="\n\n")
        _save_picture(options.out or Path(options.repo, "curves.png"), runs)
    print(f"repo     {options.repo}")


def parser(program: str = "python -m aimlite.demo") -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(program, description=__doc__)
    options.add_argument("--repo", default="aimlite-demo", metavar="PATH", help="where the repo is or will be made (default: %(default)s)")
    options.add_argument("--out", type=Path, metavar="PNG", help="where the picture goes (default: curves.png beside the repo)")
    options.add_argument("--epochs", type=_positive, default=40, metavar="N", help="(default: %(default)s)")
    options.add_argument(
        "--processes", type=_positive, default=max(2, min(4, os.cpu_count() or 1)), metavar="N", help="(default: %(default)s)"
    )
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _train_all(repo: Repo, path: str, epochs: int, processes: int) -> list[str]:
    """Hashes of the runs, in the order of the grid. The progress line reads what the other processes are writing."""
    # Matrices this small gain nothing from threads, and the processes would fight over the cores.
    for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    earlier = _points(repo.iter_runs())
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, settings, path, epochs) for settings in grid()]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.3)
            if sys.stdout.isatty():
                points = _points(repo.iter_runs()) - earlier
                print(f"\r{len(futures) - len(pending)} of {len(futures)} runs done, {points:,} points so far", end="", flush=True)
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        return [future.result() for future in futures]


def _points(runs: Iterable[Run]) -> int:
    return sum(metric.count for run in runs for metric in run.metrics())


def _metric(run: Run, name: str, context: dict[str, str]) -> Metric:
    metric = run.get_metric(name, context)
    assert metric is not None, f"{run.hash} has no {name} in {context}"
    return metric


def _table(runs: Sequence[Run]) -> str:
    rows: list[tuple[str, ...]] = [("", "run", "status", "lr", "hidden", "batch", "train loss", "best val acc", "points", "time")]
    for number, run in enumerate(runs):
        hparams = run["hparams"]
        settings = [f"{hparams[name]:g}" for name in ("learning_rate", "hidden", "batch")]
        scores = [f"{_by_epoch(_metric(run, 'loss', TRAIN)).y[-1]:.4f}", f"{_metric(run, 'accuracy', VAL).max:.2%}"]
        letter = chr(ord("a") + number)
        rows.append((letter, run.hash[:12], run.status, *settings, *scores, f"{_points([run]):,}", f"{run.duration:.1f} s"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in rows
    )


def _by_epoch(metric: Metric) -> Curve:
    """The mean value in each epoch."""
    epochs, places = np.unique(metric.epochs.sparse_numpy()[1], return_inverse=True)
    means = np.bincount(places, metric.values.sparse_numpy()[1]) / np.bincount(places)
    return Curve(metric.run.name, epochs.tolist(), means.tolist())


def _curves(runs: Iterable[Run], name: str, context: dict[str, str]) -> list[Curve]:
    return [_by_epoch(_metric(run, name, context)) for run in runs]


def _save_picture(path: Path, runs: Sequence[Run]) -> None:
    panels = [
        Panel("training loss", "epoch", _curves(runs, "loss", TRAIN), log=True),
        Panel("validation accuracy", "epoch", _curves(runs, "accuracy", VAL)),
    ]
    try:
        save(path, panels)
    except ModuleNotFoundError as error:
        print(f"picture  not drawn: {error}; install the extra: pip install '.[plot]'")
    else:
        print(f"picture  {path}")


if __name__ == "__main__":
    main()
