"""Long runs and many of them: what a month of logging costs to read, and what does not grow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from aimlite import Repo
from aimlite.storage.tree import L0_FILES_TO_COMPACT
from aimlite.storage.view import Reader, View

if TYPE_CHECKING:
    from stress.conftest import Count, Start


def test_a_month_of_logging_reads_as_one_burst_does(repo: Repo, start: Start, count: Count) -> None:
    points = count(30_000, 30 * 24 * 3600)
    start("soak.py", repo.path, points, count(20, 300)).join()
    slow, fast = (repo.get_run(run_hash).get_metric("loss") for run_hash in ("month", "once"))
    blocks = [len(repo._view().heads(metric._id)) for metric in (slow, fast)]
    print("blocks", blocks)
    assert blocks[0] <= 1.1 * blocks[1] + 15
    for column in ("values", "timestamps"):
        for one, other in zip(getattr(slow, column).sparse_numpy(), getattr(fast, column).sparse_numpy(), strict=True):
            assert np.array_equal(one, other)
    assert slow.count == points
    assert slow.timestamps.last() == (points - 1, 1.7e9 + points - 1)
    assert (slow.min, slow.max, slow.last) == (fast.min, fast.max, fast.last)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that decode blocks, as they come."""
    from aimlite.storage import view

    calls: list[str] = []
    for module, name in ((view.ext, "decode_values"), (view.ext, "decode_values_into"), (view, "decode_block")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments, name=name, original=original: (calls.append(name), original(*arguments))[1])
    return calls


def test_a_long_metric_is_sampled_from_heads_and_loaded_once(repo: Repo, start: Start, count: Count, decoded: list[str]) -> None:
    points, k = count(300_000, 10_000_000), count(100, 1000)
    start("long_run.py", repo.path, points).join()
    metric = repo.get_run("long").get_metric("loss")
    steps, values = metric.values.sample(k)
    assert decoded == []
    assert len(steps) <= k
    assert (steps[0], steps[-1]) == (0, points - 1)
    assert values.max() == metric.max == 100
    assert steps[values.argmax()] == points // 3
    assert metric.count == points
    assert decoded == []

    tracemalloc.start()
    try:
        steps, values = metric.values.sparse_numpy()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print("peak", peak / (steps.nbytes + values.nbytes))
    assert peak <= 2.2 * (steps.nbytes + values.nbytes)
    assert np.array_equal(steps, np.arange(points))
    assert values[points // 3] == 100
    assert len(decoded) == len(repo._view().heads(metric._id))


def test_listing_many_runs_takes_no_more_descriptors_or_memory(repo: Repo, tmp_path: Path, start: Start, count: Count) -> None:
    start("bulk_runs.py", repo.path, count(200, 10_000)).join()
    few = tmp_path / "few"
    start("bulk_runs.py", few, 20).join()
    found = [[int(number) for number in start("listing.py", path).join()[-1].split()] for path in (few, repo.path)]
    print("runs, descriptors, MiB:", found)
    (few_runs, few_descriptors, few_mib), (runs, descriptors, mib) = found
    assert (few_runs, runs) == (20, count(200, 10_000))
    assert descriptors <= few_descriptors + 4
    assert mib <= few_mib + 16


def test_a_reader_lets_go_of_the_trees_it_looked_at(repo: Repo, start: Start, count: Count) -> None:
    """Looking again and again beside merges holds the tree of the views that are kept, not one for each look."""
    process, reader, seen = psutil.Process(), Reader(repo._layout), []
    kept: list[View] = []
    for _ in range(count(4, 25)):
        child = start("ended_segments.py", repo.path, 5)
        child.join()
        child.close()
        repo.merge()
        kept = [*kept[-1:], reader.view()]
        assert kept[-1].run_count() == 6
        seen.append(process.num_fds())
    assert max(seen) <= seen[1] + 2 * L0_FILES_TO_COMPACT, seen
