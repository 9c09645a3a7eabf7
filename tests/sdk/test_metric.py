"""Metrics as users read them: true steps, every reader of a column, slices and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aimlite import Repo, Run
from aimlite.sdk.arrays import decimate


@pytest.fixture(params=["journal", "tree", "both"])
def metric(request: pytest.FixtureRequest, repo: Repo):
    """Steps 10, 12, … 28 with values 0.5, 1.5, …, in the journal, in the tree, or half in each."""
    with Run("r", repo=repo) as run:
        for i in range(10):
            if i == 5 and request.param == "both":
                repo.merge()
            run.track(i + 0.5, name="m", step=10 + 2 * i, epoch=i // 5, context={"s": "x"})
    if request.param == "tree":
        repo.merge()
    return repo.get_run("r").get_metric("m", {"s": "x"})


def test_columns(metric) -> None:
    steps, values = metric.values.sparse_numpy()
    assert steps.dtype == np.int64
    assert values.dtype == np.float64
    assert steps.tolist() == list(range(10, 30, 2)) == metric.indices.tolist() == metric.values.keys() == metric.values.indices_list()
    assert values.tolist() == [i + 0.5 for i in range(10)] == metric.values.values_list() == list(metric.values)
    assert metric.values.sparse_list() == (steps.tolist(), values.tolist())
    assert metric.values.indices_numpy().tolist() == steps.tolist()
    assert metric.values.values_numpy().tolist() == values.tolist()
    assert list(metric.values.items()) == list(zip(steps.tolist(), values.tolist(), strict=True))
    assert metric.epochs.tolist() == [0.0] * 5 + [1.0] * 5
    times = metric.timestamps.values_numpy()
    assert times.dtype == np.float64
    assert np.all(np.diff(times) >= 0)
    assert abs(times[0] - metric.run.creation_time) < 60
    assert len(metric.values) == len(metric) == metric.count == 10


def test_ends(metric) -> None:
    assert metric.values.first() == (10, 0.5)
    assert metric.values.last() == (28, 9.5)
    assert (metric.values.first_idx(), metric.values.first_value(), metric.values.last_idx(), metric.values.last_value()) == (
        10,
        0.5,
        28,
        9.5,
    )
    assert (metric.first_step, metric.last_step, metric.first, metric.last, metric.min, metric.max) == (10, 28, 0.5, 9.5, 0.5, 9.5)


def test_items_and_slices_go_by_step(metric) -> None:
    assert metric.values[12] == 1.5
    for missing in (11, 9, 30):
        with pytest.raises(KeyError, match=str(missing)):
            metric.values[missing]
    steps, values = metric.values[12:17]
    assert (steps.tolist(), values.tolist()) == ([12, 14, 16], [1.5, 2.5, 3.5])
    assert metric.values[:12][0].tolist() == [10]
    assert metric.values[26:][0].tolist() == [26, 28]
    assert metric.values[100:][0].tolist() == []
    assert metric.values[20:10][0].tolist() == []
    assert metric.values[10:30:4][0].tolist() == [10, 14, 18, 22, 26]


def test_what_is_read_is_the_readers_own(metric) -> None:
    view = metric.values
    for _ in range(2):
        steps, values = view.sparse_numpy()
        values[:] = 0
        steps[:] = 0
        assert view.tolist()[1] == 1.5


def test_a_view_that_was_read_whole_stays_as_it_was(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track(1, name="m")
    metric = run.get_metric("m")
    view = metric.values
    assert view.tolist() == [1]
    run.track(2, name="m")
    assert (len(view), view.last(), view[0:9][1].tolist()) == (1, (0, 1), [1])
    assert len(metric.values) == 2


def test_dtypes(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track({"i": 1, "f": 1.0, "n": 1})
    run.track(0.5, name="n")
    for _ in range(2):
        assert {metric.name: metric.dtype for metric in run.metrics()} == {"f": "float", "i": "int", "n": "number"}
        repo.merge()


def test_late_steps_are_put_in_order_and_repeated_ones_replaced(repo: Repo) -> None:
    run = Run("r", repo=repo)
    expected: dict[int, float] = {}
    generator = np.random.default_rng(5)
    for turn in range(6):
        steps = generator.integers(-300, 300, 200)
        for step in steps.tolist():
            expected[step] = turn + step / 1000
            run.track(expected[step], name="m", step=step)
        if turn % 2:
            repo.merge()
        found = run.get_metric("m").values.sparse_list()
        assert found == (sorted(expected), [expected[step] for step in sorted(expected)])
        assert (run.get_metric("m").count, run.get_metric("m").max) == (len(expected), max(expected.values()))


def test_track_columns(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track_columns("c", [1, 2, 3])
    run.track_columns("c", np.array([4.5, 5.5], "f4"), epochs=7)
    run.track_columns("c", [0.0, 1.0], steps=[10, 9], epochs=[1.0, 2.0], times=[100.25, 200.5])
    run.track_columns("c", [])
    run.track_columns("c", (value for value in [6.0]))
    for _ in range(2):
        metric = run.get_metric("c")
        assert metric.values.sparse_list() == ([0, 1, 2, 3, 4, 9, 10, 11], [1.0, 2.0, 3.0, 4.5, 5.5, 1.0, 0.0, 6.0])
        assert np.array_equal(metric.epochs.values_numpy(), [math.nan] * 3 + [7.0] * 2 + [2.0, 1.0, math.nan], equal_nan=True)
        assert metric.timestamps[10] == 100.25
        assert metric.timestamps[9] == 200.5
        assert metric.dtype == "number"
        repo.merge()


def test_large_columns_are_one_group(repo: Repo) -> None:
    values = np.random.default_rng(1).normal(size=500_000)
    run = Run("r", repo=repo)
    run.track_columns("c", values)
    for _ in range(2):
        steps, found = run.get_metric("c").values.sparse_numpy()
        assert np.array_equal(found, values)
        assert np.array_equal(steps, np.arange(len(values)))
        repo.merge()


@pytest.mark.parametrize("merged", [False, True])
def test_a_sample_keeps_the_ends_and_the_spikes(repo: Repo, merged: bool) -> None:
    n = 100_000
    values = np.sin(np.arange(n) / 5000)
    values[54_321], values[77_777] = 50.0, -50.0
    values[100] = math.nan
    run = Run("r", repo=repo)
    run.track_columns("c", values)
    if merged:
        repo.merge()
    for k in (4, 5, 20, 47, 1000):
        steps, found = run.get_metric("c").values.sample(k)
        assert len(steps) == len(found) <= k
        assert {0, n - 1, 54_321, 77_777} <= set(steps.tolist())
        assert np.array_equal(found, values[steps], equal_nan=True)
        assert np.all(np.diff(steps) > 0)
    assert len(run.get_metric("c").values.sample(n)[0]) == n
    for bad in (3, 0, -1, 2.5, True, "9"):
        with pytest.raises(ValueError, match="at least 4"):
            run.get_metric("c").values.sample(bad)


def test_decimate_of_nan_alone() -> None:
    steps, values = decimate(np.arange(100), np.full(100, math.nan), 10)
    assert len(steps) <= 10
    assert steps[0] == 0
    assert steps[-1] == 99
    assert np.isnan(values).all()


def test_handles_and_calls_mix(repo: Repo) -> None:
    run = Run("r", repo=repo)
    handle = run.sequence("m", {"s": 1})
    handle.track(1.0)
    run.track(2.0, name="m", context={"s": 1})
    handle.track(3.0, 10, 0.5)
    run.track({"m": 4.0}, context={"s": 1})
    assert run.get_metric("m", {"s": 1}).values.sparse_list() == ([0, 1, 10, 11], [1.0, 2.0, 3.0, 4.0])
    assert (handle.name, handle.context) == ("m", {"s": 1})


def test_metrics_are_listed_by_name_and_context(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track({"b": 1, "a": 1})
    repo.merge()
    run.track({"a": 1}, context={"s": 2})
    run.track({"a": 1}, context={"s": 1})
    assert [(metric.name, metric.context) for metric in run.metrics()] == [("a", {}), ("a", {"s": 1}), ("a", {"s": 2}), ("b", {})]
    assert run.get_metric("a", {"s": 3}) is None
    assert run.get_metric("zz") is None
    metric = run.get_metric("a", {"s": 1})
    with pytest.raises(TypeError, match="item assignment"):
        metric.context["s"] = 5
    assert metric.context == {"s": 1}
