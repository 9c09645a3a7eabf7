"""Distributions: as numpy's histograms where numpy has one, and something sensible where it has not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aimlite import CorruptionError, Distribution
from aimlite.objects import distribution
from objects.again import few, finished, unfinished
from objects.tensors import EagerTensor, TorchTensor

GREATEST = 1.7976931348623157e308
EXTREMES = st.sampled_from([GREATEST, -GREATEST, GREATEST / 2, math.nextafter(GREATEST, 0), 2.3e-308, 5e-324, -5e-324, 0.0, -0.0])
ANY_FLOATS = arrays.arrays("f8", st.integers(0, 50), elements=st.floats() | EXTREMES)
USUAL = arrays.arrays(st.sampled_from(["f4", "f8"]), st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32)) | arrays.arrays(
    st.sampled_from(["i1", "u1", "i8", "u2"]), st.integers(1, 200), elements=st.integers(0, 100)
)


@few
@given(USUAL, st.integers(1, 512))
def test_samples_are_counted_as_numpy_counts_them(samples: Any, bins: int) -> None:
    found = Distribution(samples, bins)
    low, high = float(samples.min()), float(samples.max())
    if low == high or (high - low) / bins > 1e-9:
        weights, edges = np.histogram(samples.astype("f8"), bins)
        assert found.weights.tolist() == weights.tolist()
        assert found.ranges.tolist() == edges.tolist()
    assert found.weights.sum() == len(samples)


@few
@given(ANY_FLOATS, st.integers(1, 512))
@example(np.array([GREATEST, 0.0]), 3)  # three thirds of it, each rounded, are beyond float64
@example(np.array([-GREATEST, GREATEST]), 1)
def test_any_samples_are_counted(samples: Any, bins: int) -> None:
    found = Distribution.from_samples(samples, bins)
    low, high = found.range
    finite = samples[np.isfinite(samples)]
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    assert found.non_finite == len(samples) - len(finite)
    assert found.weights.sum() == len(finite)
    assert found.bin_count == bins == len(found.weights)
    assert len(found.ranges) == bins + 1
    assert (found.ranges[1:] > found.ranges[:-1]).all()
    assert (found.ranges[0], found.ranges[-1]) == (low, high)
    if len(finite):
        assert low <= finite.min()
        assert finite.max() <= high
    for read in (unfinished(found), finished(found)):
        assert read == found
        assert read.json() == found.json()


@few
@given(
    arrays.arrays("f8", st.integers(1, 512), elements=st.floats(0, 1e300))
    | arrays.arrays("i8", st.integers(1, 512), elements=st.integers(0, 2**62)),
    st.floats(-GREATEST, 0),
    st.floats(1e-300, GREATEST),
)
@example(np.ones(3), 0.0, GREATEST)
def test_histograms_come_back(weights: Any, low: float, high: float) -> None:
    found = unfinished(Distribution.from_histogram(weights, (low, high)))
    assert found.weights.dtype == weights.dtype
    assert found.weights.tolist() == weights.tolist()
    assert found.range == [low, high]
    assert found.to_np_histogram()[0].tolist() == weights.tolist()
    assert found == Distribution(hist=weights.tolist(), bin_range=[low, high])
    assert found.json()["bin_count"] == len(weights)


def test_the_edges() -> None:
    assert Distribution([]).range == [0.0, 1.0]
    assert Distribution([], 4).weights.tolist() == [0, 0, 0, 0]
    assert Distribution([3.0] * 5, 4).range == [2.5, 3.5]
    assert Distribution([1e300], 4).weights.sum() == 1
    assert Distribution([math.nan, math.inf, 1.0]).non_finite == 2
    assert Distribution([math.nan, -math.inf]).range == [0.0, 1.0]
    assert Distribution([0, 5e-324], 512).weights.sum() == 2
    assert Distribution([-1.7e308, 1.7e308], 2).weights.tolist() == [1, 1]
    assert Distribution([True, False, True], 2).weights.tolist() == [1, 2]
    assert Distribution(range(10), 10).weights.tolist() == [1] * 10
    assert Distribution(np.ones((2, 3, 4))).weights.sum() == 24
    assert Distribution(5.0 for _ in range(3)).weights.sum() == 3


def test_tensors() -> None:
    samples = np.random.default_rng(0).normal(size=(20, 30)).astype("f4")
    expected = Distribution(samples)
    assert Distribution(EagerTensor(samples)) == Distribution(TorchTensor(samples)) == expected
    assert Distribution(TorchTensor(samples, dtype="torch.bfloat16")) == expected
    assert Distribution(hist=TorchTensor(np.arange(4)), bin_range=(0, 1)).weights.tolist() == [0, 1, 2, 3]


def test_samples_are_looked_at_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(size=5000)
    samples[::7] = math.nan
    whole = Distribution(samples)
    monkeypatch.setattr(distribution, "_PIECE", 100)
    sizes: list[int] = []
    as_array = distribution.as_array
    monkeypatch.setattr(distribution, "as_array", lambda value: (sizes.append(len(value)), as_array(value))[1])
    assert Distribution(TorchTensor(samples)) == whole
    assert set(sizes) == {100}


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, ValueError, "one of the two"),
        ({"samples": [1], "hist": [1]}, ValueError, "one of the two"),
        ({"samples": [1], "bin_range": (0, 1)}, ValueError, "goes with hist"),
        ({"samples": [1], "bin_count": 0}, ValueError, "1 to 512, not 0"),
        ({"samples": [1], "bin_count": 513}, ValueError, "not 513"),
        ({"samples": [1], "bin_count": 2.5}, TypeError, "float 2.5"),
        ({"samples": [1], "bin_count": True}, TypeError, "bool"),
        ({"samples": ["a"]}, TypeError, "real numbers"),
        ({"samples": "abc"}, TypeError, "not str"),
        ({"samples": 5}, TypeError, "not int"),
        ({"samples": [1j]}, TypeError, "complex"),
        ({"samples": np.array([None])}, TypeError, "object"),
        ({"samples": TorchTensor(np.array([1j]))}, TypeError, "complex"),
        ({"hist": [1, 2]}, TypeError, "bin_range=(low, high)"),
        ({"hist": [1, 2], "bin_range": (1, 1)}, ValueError, "low < high"),
        ({"hist": [1, 2], "bin_range": (0, math.inf)}, ValueError, "finite"),
        ({"hist": [1, 2], "bin_range": (0, 1, 2)}, TypeError, "two numbers"),
        ({"hist": [1, -2], "bin_range": (0, 1)}, ValueError, "-2"),
        ({"hist": [1, math.nan], "bin_range": (0, 1)}, ValueError, "not finite"),
        ({"hist": [], "bin_range": (0, 1)}, ValueError, "1 to 512"),
        ({"hist": [0] * 513, "bin_range": (0, 1)}, ValueError, "(513,)"),
        ({"hist": [[1]], "bin_range": (0, 1)}, ValueError, "(1, 1)"),
        ({"hist": ["a"], "bin_range": (0, 1)}, TypeError, "numbers"),
    ],
)
def test_wrong_input_is_told(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        Distribution(**options)
    assert told in str(caught.value)


def test_weights_take_as_few_bytes_as_they_can() -> None:
    assert len(Distribution(np.zeros(200), 64)._to_item()[1]) == 64
    assert len(Distribution(np.zeros(300), 64)._to_item()[1]) == 128


@pytest.mark.parametrize("change", [{"dtype": "O"}, {"bin_count": 10**12}, {"bin_count": 3}, {"dtype": "<f8"}])
def test_items_that_do_not_fit_are_corrupt(change: dict[str, Any]) -> None:
    header, payload = Distribution([1, 2])._to_item()
    with pytest.raises(CorruptionError):
        _ = Distribution._from_item({**header, **change}, lambda: ({**header, **change}, payload)).weights


@pytest.mark.parametrize("bin_count", [1 << 28, 1 << 70, True, 3])
def test_edges_are_as_many_as_there_are_weights(bin_count: Any) -> None:
    header, payload = Distribution([1, 2])._to_item()
    lying = {**header, "bin_count": bin_count}
    with pytest.raises(CorruptionError):
        _ = Distribution._from_item(lying, lambda: (lying, payload)).ranges


def test_equality() -> None:
    assert Distribution([1, 2]) != Distribution([1, 3])
    assert Distribution([1, 2]) != Distribution([1, 2, math.nan])
    assert Distribution([1, 2]) != [1, 2]
    assert repr(Distribution([1, 2, math.nan])) == "<Distribution of 64 bins from 1 to 2, 1 not finite>"
