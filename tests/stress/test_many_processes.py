"""Writers never meet: many processes begin at once, write one run at once, and are read and merged meanwhile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aimlite import Repo, Run
from aimlite.storage.view import Reader

if TYPE_CHECKING:
    from stress.conftest import Count, Start


def test_many_processes_begin_where_nothing_exists(tmp_path: Path, start: Start, count: Count) -> None:
    path, points = tmp_path / "not" / "yet" / "there", 200
    children = [start("own_run.py", path, points) for _ in range(count(8, 64))]
    for child in children:
        child.wait_for("ready")
    assert not path.parent.exists()
    for child in children:
        child.go()
    hashes = {child.join()[-1] for child in children}
    assert len(hashes) == len(children)
    with Repo(path) as repo:
        for _ in range(2):
            assert repo.total_runs_count() == len(children)
            assert set(repo.list_all_runs()) == hashes
            for run in repo.iter_runs():
                assert run.status == "finished"
                assert run["process"] == {"id": run.hash}
                assert run.get_metric("loss").values.values_list() == [step / 2 for step in range(points)]
                assert run.get_metric("a").values.sparse_list() == (list(range(points)), list(range(points)))
                assert run.get_metric("b").last == 1 - points
            repo.merge()
        assert repo.check() == []


@pytest.mark.parametrize("merging", [False, True], ids=["alone", "beside merges"])
def test_many_processes_write_one_new_run(repo_path: str, tmp_path: Path, start: Start, count: Count, merging: bool) -> None:
    writers, points = count(3, 8), count(2000, 20_000)
    children = [start("shared_run.py", repo_path, "shared", who, writers, points, tmp_path / f"{who}.npz") for who in range(writers)]
    others = [start("watcher.py", repo_path, "shared"), *([start("merger.py", repo_path)] if merging else [])]
    for child in [*children, *others]:
        child.wait_for("ready")
    for child in children:
        child.go()
    for child in children:
        child.join()
    for other in others:
        other.go()
        last = other.join()[-1]
        assert int(re.findall(r"\d+", last)[0]) > 1, last
    winners = latest(load(tmp_path / f"{who}.npz") for who in range(writers))
    with Repo(repo_path) as repo:
        for _ in range(2):
            run = repo.get_run("shared")
            assert run is not None
            demand_all(run, writers, points, winners)
            repo.merge()
            repo._reader_ = Reader(repo._layout)
        assert repo.check() == []


def demand_all(run: Run, writers: int, points: int, winners: dict[int, float]) -> None:
    assert run.status == "finished"
    assert sorted(run.get_metric("automatic").values.values_list()) == list(range(writers * points))
    steps, values = run.get_metric("disjoint").values.sparse_numpy()
    assert np.array_equal(steps, np.arange(writers * points))
    assert sorted(values.tolist()) == list(range(writers * points))
    steps, values = run.get_metric("also disjoint").values.sparse_numpy()
    assert np.array_equal(steps, np.arange(writers * points))
    assert np.array_equal(values, -(steps // writers))
    assert dict(run.get_metric("overlapping").values.items()) == winners
    assert run.get_metric("overlapping").count == points
    last = (points - 1) // 100 * 100
    assert {who: written["k"] for who, written in run["written"].items()} == {str(who): last for who in range(writers)}


def load(path: Path) -> list[tuple[int, float, tuple[int, int]]]:
    """(step, value, stamp) of every point of `overlapping` that one process wrote, in its order."""
    with np.load(path, allow_pickle=True) as found:
        writer = int(found["writer"][0])
        return [(step, value, (order, writer)) for step, value, order in found["points"].tolist()]


def latest(parts: Any) -> dict[int, float]:
    """The value at each step whose order is the latest; ties go to the writer, then to the later call."""
    newest: dict[int, tuple[tuple[int, int], float]] = {}
    for part in parts:
        for step, value, stamp in part:
            if step not in newest or newest[step][0] <= stamp:
                newest[step] = (stamp, value)
    return {step: value for step, (_, value) in sorted(newest.items())}
