"""Parts of a column: what is read for them, and that they are what the whole says."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite import Metric, Repo, Run
from aimlite.storage import keys, tree
from aimlite.storage.points import BLOCK_POINTS, span

POINTS = 20 * BLOCK_POINTS


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How many values were read of each space."""
    counts: Counter[bytes] = Counter()
    scan, get = tree.TreeReader.scan, tree.TreeReader.get

    def counting_scan(self: Any, bounds: keys.Range, reverse: bool = False) -> Any:
        for key, value in scan(self, bounds, reverse):
            counts[key[:1]] += 1
            yield key, value

    def counting_get(self: Any, key: bytes) -> Any:
        counts[key[:1]] += 1
        return get(self, key)

    monkeypatch.setattr(tree.TreeReader, "scan", counting_scan)
    monkeypatch.setattr(tree.TreeReader, "get", counting_get)
    return counts


@pytest.fixture
def long(repo: Repo) -> Metric:
    """20 blocks: step 2k, value k, epoch k / 2, time 1000 + k."""
    run = Run("long", repo=repo)
    k = np.arange(POINTS)
    run.track_columns("m", k.astype(float), 2 * k, k / 2, 1000.0 + k)
    repo.merge()
    metric = run.get_metric("m")
    assert metric is not None
    return metric


def test_a_range_reads_the_blocks_that_hold_it(long: Metric, reads: Counter[bytes]) -> None:
    begin = 2 * (5 * BLOCK_POINTS + 7)
    steps, values = long.values[begin : begin + 6]
    assert (steps.tolist(), values.tolist()) == ([begin, begin + 2, begin + 4], [begin / 2, begin / 2 + 1, begin / 2 + 2])
    assert (reads[keys.VALUES], reads[keys.TIMES]) == (1, 0)
    assert reads[keys.HEAD] <= 3
    steps, _ = long.values[begin : begin + 2 * BLOCK_POINTS]
    assert len(steps) == BLOCK_POINTS
    assert (reads[keys.VALUES], reads[keys.TIMES]) == (1 + 2, 0)
    assert long.values[begin] == begin / 2
    assert reads[keys.VALUES] == 1 + 2 + 1
    with pytest.raises(KeyError, match=f"no point at step {begin + 1}"):
        long.values[begin + 1]
    assert reads[keys.VALUES] <= 1 + 2 + 1 + 1
    epochs = long.epochs[begin : begin + 2]
    assert (epochs[0].tolist(), epochs[1].tolist()) == ([begin], [begin / 4])
    assert reads[keys.TIMES] == 1


def test_ends_and_length_read_no_block(long: Metric, reads: Counter[bytes]) -> None:
    last = POINTS - 1
    for column, first_value, last_value in ((long.values, 0, last), (long.indices, 0, 2 * last), (long.timestamps, 1000, 1000 + last)):
        assert (column.first(), column.last(), len(column)) == ((0, first_value), (2 * last, last_value), POINTS)
        assert (column.first_idx(), column.first_value(), column.last_idx(), column.last_value()) == (0, first_value, 2 * last, last_value)
    assert (long.first_step(), long.last_step, long.count, len(long), bool(long)) == (0, 2 * last, POINTS, POINTS, True)
    assert reads[keys.VALUES] == reads[keys.TIMES] == reads[keys.HEAD] == 0
    assert (long.epochs.first(), long.epochs.last()) == ((0, 0), (2 * last, last / 2))
    assert (reads[keys.VALUES], reads[keys.TIMES]) == (2, 2)


def test_many_looks_at_one_view_read_it_once(long: Metric, reads: Counter[bytes]) -> None:
    view = long.values
    assert [view[2 * k] for k in range(500)] == list(range(500))
    assert reads[keys.VALUES] < 20 + 20


def test_a_sample_reads_heads(long: Metric, reads: Counter[bytes]) -> None:
    steps, _ = long.values.sample(30)
    assert steps[0] == 0
    assert steps[-1] == 2 * (POINTS - 1)
    assert (reads[keys.VALUES], reads[keys.HEAD]) == (0, 20)


def test_preloaded(long: Metric, reads: Counter[bytes]) -> None:
    long.preload()
    count = reads[keys.VALUES]
    long.run.track(5, name="m", step=10**6)
    last = POINTS - 1
    assert [column.last_value() for column in (long.values, long.epochs, long.timestamps)] == [last, last / 2, 1000 + last]
    assert [len(column) for column in (long.values.tolist(), long.values, long.epochs)] == [POINTS] * 3
    assert long.values.sample(10)[0][-1] == long.indices.last_idx() == 2 * last
    assert (long.count, long.last_step, long.last) == (POINTS + 1, 10**6, 5)
    assert long.timestamps[0:4][1].tolist() == [1000, 1001]
    assert long.epochs.values_numpy()[:2].tolist() == [0, 0.5]
    assert reads[keys.VALUES] == count


def test_arrays_are_the_readers_own(long: Metric) -> None:
    for column in (long.values, long.epochs, long.timestamps, long.indices):
        for steps, found in (column[0:10], column.sparse_numpy(), column.sample(10)):
            steps[:], found[:] = -1, -1
        assert column[0:3][0].tolist() == [0, 2]


bounds = st.none() | st.integers(-20, 60) | st.sampled_from([-(2**63), 2**63 - 1, 2**80, -(2**80)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(bounds, bounds, st.none() | st.integers(1, 5))
def test_ranges_are_what_the_whole_says(spread: Run, begin: int | None, end: int | None, stride: int | None) -> None:
    for name in ("journal", "tree", "both", "overlapping", "twice"):
        metric = spread.get_metric(name)
        assert metric is not None
        for view in (metric.values, metric.epochs, metric.timestamps, metric.indices):
            whole = list(zip(*view.sparse_list(), strict=True))
            inside = [(s, v) for s, v in whole if (begin is None or s >= begin) and (end is None or s < end)]
            start = begin if begin is not None else inside[0][0] if inside else 0
            expected = [(s, v) for s, v in inside if (s - start) % (stride or 1) == 0]
            for one in (view, type(view)(metric, view._column)):  # read whole before, and not
                steps, column = one[begin:end:stride]
                assert repr(list(zip(steps.tolist(), column.tolist(), strict=True))) == repr(expected)


@pytest.fixture
def spread(repo: Repo) -> Run:
    """Metrics whose points lie in the journal, in the tree, or in both."""
    run = Run("spread", repo=repo)
    for step in (-7, 3, 5, 6, 21, 40):
        for name in ("tree", "both", "overlapping", "twice"):
            run.track(step / 2, name=name, step=step, epoch=step)
    repo.merge()
    for step in (41, 50):
        run.track(step, name="both", step=step)
    for step in (-7, 4, 6, 22, 50):
        run.track(step, name="overlapping", step=step)
        run.track(step, name="journal", step=step)
    script = "import sys; from aimlite import Run; run = Run('spread', repo=sys.argv[1]); run.track(1, name='twice'); run.close()"
    subprocess.run([sys.executable, "-c", script, repo.path], check=True, timeout=300)
    run.track(1, name="twice")  # the other process counted to the same step
    run.track(2, name="overlapping", step=2**63 - 1)
    return run


def test_odd_indexes(spread: Run) -> None:
    assert spread.get_metric("twice").values.sparse_list()[0][-2:] == [41, 41]
    metric = spread.get_metric("tree")
    assert metric is not None
    assert metric.values[3.0] == metric.values[np.int32(3)] == 1.5
    for bad in ("a", 1.5, True, math.nan):
        with pytest.raises((TypeError, ValueError)):
            metric.values[bad]
        with pytest.raises((TypeError, ValueError)):
            metric.values[bad:]
    with pytest.raises(ValueError, match="stride"):
        metric.values[::-1]
    for outside in (2**70, -(2**70)):
        with pytest.raises(KeyError):
            metric.values[outside]
    assert metric.values[5:2][0].tolist() == metric.values[7:7][0].tolist() == []


def test_spans_at_the_ends_of_64_bits() -> None:
    steps = np.array([-(2**63), 0, 2**63 - 1])
    assert steps[span(steps, None, 2**63 - 1)].tolist() == steps[:2].tolist()
    assert steps[span(steps, 2**63 - 1, None)].tolist() == steps[span(steps, 2**63 - 1, 2**63)].tolist() == steps[2:].tolist()
    assert steps[span(steps, 2**63, None)].tolist() == []
    assert steps[span(steps, -(2**70), -(2**63))].tolist() == []


def test_a_metric_without_points(repo: Repo) -> None:
    run = Run("r", repo=repo)
    metric = Metric("none", {"a": 1}, run)
    assert (len(metric), bool(metric), metric.count, metric.values.tolist(), len(metric.values)) == (0, False, 0, [], 0)
    assert metric.values[0:5][0].tolist() == []
    with pytest.raises(KeyError, match=r"'none' \{'a': 1\} of run r has no points"):
        _ = metric.last
    with pytest.raises(IndexError, match="'none' has no points"):
        metric.values.last()
    with pytest.raises(IndexError):
        metric.epochs.first()
    run.track(1, name="none", context={"a": 1})
    assert metric == run.get_metric("none", {"a": 1})
    assert metric != run.get_metric("none", {"a": 1.0})
    assert len({metric, Metric("none", {"a": 1}, run), Metric("none", {"a": True}, run)}) == 2
    with pytest.raises(ValueError, match="empty"):
        Metric("", None, run)
