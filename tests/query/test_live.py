"""What another process writes is found at once, and what is merged meanwhile stays found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from query.crafted import CraftedRun, write_runs

import aimlite
from aimlite import Repo

CHILD = Path(__file__).parent / "children" / "writes.py"


@contextmanager
def writer(repo: Repo) -> Iterator[subprocess.Popen[str]]:
    paths = [str(Path(aimlite.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, str(CHILD), repo.path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate("\n\n", timeout=300)


def hashes(repo: Repo, query: str) -> list[str]:
    return repo.query_runs(query).hashes()


def lasts(repo: Repo, query: str) -> list[float]:
    return [metric.values.last()[1] for metric in repo.query_metrics(query)]


@pytest.mark.parametrize("merges", [False, True])
def test_a_run_that_another_process_writes_is_found_at_once(repo: Repo, merges: bool) -> None:
    write_runs(repo._layout.base, [CraftedRun(f"old{k}", k, k + 1, {"lr": 0.125}) for k in range(5)])
    repo.merge()
    assert hashes(repo, "run.lr == 0.5") == []
    with writer(repo) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "first\n"
        assert hashes(repo, "run.lr == 0.5") == ["written"]
        assert hashes(repo, "run.active and run.metrics['loss', {'subset': 'val'}].last == 1") == ["written"]
        assert lasts(repo, "metric.last > 0.5") == [1.0]
        if merges:
            repo.merge()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "second\n"
        assert hashes(repo, "run.lr == 0.5") == []
        assert hashes(repo, "run.lr <= 0.25") == ["written", "old4", "old3", "old2", "old1", "old0"]
        assert lasts(repo, "metric.name == 'loss' and metric.last < 0.5") == [0.125]
        assert lasts(repo, "metric.last > 0.5") == []


def test_answers_beside_a_merge_are_stable(repo_path: str) -> None:
    """Other readers of other processes' merges: each answer is that of a whole view."""
    repo = Repo(repo_path)
    write_runs(repo._layout.base, [CraftedRun(f"r{k:02}", k, k + 1, {"a": k % 2}, metrics=[("loss", {}, [float(k)])]) for k in range(40)])
    odd = [f"r{k:02}" for k in range(39, 0, -2)]
    answers: list[object] = []
    ended = threading.Event()

    def read() -> None:
        while True:
            is_last = ended.is_set()
            answers.append(hashes(repo, "run.a == 1") == odd)
            answers.append(sorted(lasts(repo, "run.a == 1 and metric.last > 20")) == [float(k) for k in range(21, 40, 2)])
            answers.append(hashes(repo, "not run.a == 1 and run.a < 1")[-1] == "r00")
            if is_last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for k in range(3):
            subprocess.run([sys.executable, "-c", "import sys, aimlite; aimlite.Repo(sys.argv[1]).merge()", repo_path], check=True)
            write_runs(repo._layout.base, [CraftedRun("r00", 0, 1, {"a": 0})], first=100 + k)
    finally:
        ended.set()
        reader.join()
    assert len(answers) >= 6
    assert all(answers)
    assert repo.check() == []
