"""One column of a sequence over its steps: what `metric.values` and its siblings give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aimlite._ext.recorder import plain_step
from aimlite.storage.points import Points, Summary, resolve, span
from aimlite.storage.view import SequenceId, View

if TYPE_CHECKING:
    from aimlite.sdk.sequence import Sequence

Steps = NDArray[np.int64]
Column = NDArray[Any]
_SINGLE_READS = 8  # so many looks at single points or ranges read just their blocks; one more, and the column is read whole


class ArrayView:
    """One column of a metric over its steps, ascending.

    Read whole at the first use that needs all of it, it stays as it was then. Before that the ends, the length, single steps and ranges of
    steps are looked up on their own, in the summaries or the blocks that hold them. `sparse_numpy` hands over what it read and keeps
    nothing.

    A step occurs twice only where several writers counted steps on their own.
    """

    def __init__(self, sequence: Sequence, column: str) -> None:
        self._sequence = sequence
        self._column = column
        self._loaded: tuple[Steps, Column] | None = None
        self._single_reads = 0

    def sparse_numpy(self) -> tuple[Steps, Column]:
        """Returns: (steps, column): int64[n] ascending and float64[n] (int64[n] for `indices`); n may be 0."""
        if self._loaded is None:
            return self._read()  # the caller's own, not kept here: no copy
        steps, column = self._loaded
        return steps.copy(), column.copy()

    def indices_numpy(self) -> Steps:
        """The steps: int64[n]."""
        return self._load()[0].copy()

    def values_numpy(self) -> Column:
        """The column: float64[n]."""
        return self._load()[1].copy()

    def sparse_list(self) -> tuple[list[int], list[Any]]:
        """(steps, column) as lists."""
        steps, column = self._load()
        return steps.tolist(), column.tolist()

    def indices_list(self) -> list[int]:
        steps: list[int] = self._load()[0].tolist()
        return steps

    def values_list(self) -> list[Any]:
        column: list[Any] = self._load()[1].tolist()
        return column

    tolist = values_list
    values = values_list

    def keys(self) -> list[int]:
        """The steps."""
        return self.indices_list()

    indices = keys

    def items(self) -> Iterator[tuple[int, Any]]:
        """(step, value) pairs."""
        return zip(*self.sparse_list(), strict=True)

    def first(self) -> tuple[int, Any]:
        """(step, value) of the first point. Raises IndexError when there is none."""
        return self._end(0)

    def first_idx(self) -> int:
        return self._end(0)[0]

    def first_value(self) -> Any:
        return self._end(0)[1]

    def last(self) -> tuple[int, Any]:
        """(step, value) of the last point. Raises IndexError when there is none."""
        return self._end(-1)

    def last_idx(self) -> int:
        return self._end(-1)[0]

    def last_value(self) -> Any:
        return self._end(-1)[1]

    def sample(self, k: int) -> tuple[Steps, Column]:
        """At most k points that keep the shape: the first, the last, the minimum and the maximum of the whole, and of each of some k / 2
        stretches.

        k: at least 4. Of a long metric only the summaries of its blocks are read. Returns: (steps, column) as sparse_numpy.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 4:
            raise ValueError(f"sample() takes at least 4 points, not {k!r}")
        if self._column == "value" and not self._in_memory():
            found = self._sequence._read(lambda view: _sample_heads(view, self._sequence._id, k))
            if found is not None:
                steps, values = found
                return decimate(steps, values, k)
        return decimate(*self._load(), k)

    def __getitem__(self, index: Any) -> Any:
        """[step]: the value at a step (KeyError if none; the last of them where the step occurs twice). [a:b]: (steps, column) of the
        steps a ≤ step < b, negative ones too; with a stride every n-th step from a on. Only the blocks that hold the steps are read."""
        if not isinstance(index, slice):
            step = plain_step(index)
            steps, column = self._range(step, step + 1)
            if not len(steps):
                raise KeyError(f"{self._sequence.name!r} has no point at step {step}")
            return self._one(column, -1)
        stride = 1 if index.step is None else plain_step(index.step)
        if stride < 1:
            raise ValueError(f"a slice of steps has a positive stride, not {stride}")
        begin, end = (None if bound is None else plain_step(bound) for bound in (index.start, index.stop))
        steps, column = self._range(begin, end)
        if stride == 1 or not len(steps):
            return steps, column
        start = int(steps[0]) if begin is None else begin
        far = max(abs(start), abs(int(steps[0])), abs(int(steps[-1]))) > 2**62  # differences would pass 64 bits
        chosen = ((steps.astype(object) if far else steps) - start) % stride == 0
        return steps[chosen], column[chosen]

    def __len__(self) -> int:
        if self._in_memory():
            return len(self._load()[0])
        summary = self._summary()
        return 0 if summary is None else summary.count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values_list())

    def __repr__(self) -> str:
        return f"<{self._column}s of {self._sequence!r}>"

    def _end(self, at: int) -> tuple[int, Any]:
        summary = None if self._in_memory() else self._summary()
        if summary is not None and self._column not in ("epoch", "object"):
            step = summary.first_step if at == 0 else summary.last_step
            time_us = summary.first_time if at == 0 else summary.last_time
            value = summary.first if at == 0 else summary.last
            return step, {"step": step, "value": value, "time": time_us / 1e6}[self._column]
        if summary is not None:
            step = summary.first_step if at == 0 else summary.last_step
            steps, column = self._read(step, step + 1)
        else:
            steps, column = self._load()
        if not len(steps):
            raise IndexError(f"{self._sequence.name!r} has no points")
        return int(steps[at]), self._one(column, at)

    def _one(self, column: Column, at: int) -> Any:
        return column[at].item()

    def _in_memory(self) -> bool:
        return self._loaded is not None or self._sequence._points is not None

    def _summary(self) -> Summary | None:
        summary: Summary | None = self._sequence._read(lambda view: view.summary(self._sequence._id))
        return summary

    def _range(self, begin: int | None, end: int | None) -> tuple[Steps, Column]:
        if begin is not None and end is not None and begin >= end:
            begin = end = 0
        self._single_reads += 1
        if self._loaded is None and self._single_reads <= _SINGLE_READS:
            return self._read(begin, end)
        steps, column = self._load()
        chosen = span(steps, begin, end)
        return steps[chosen].copy(), column[chosen].copy()

    def _load(self) -> tuple[Steps, Column]:
        if self._loaded is None:
            self._loaded = self._read()
        return self._loaded

    def _read(self, begin: int | None = None, end: int | None = None) -> tuple[Steps, Column]:
        sequence = self._sequence._id
        preloaded = self._sequence._points
        if self._column == "value" and preloaded is None:
            found: tuple[Steps, Column] = self._sequence._read(lambda view: view.steps_and_values(sequence, begin, end))
            return _own(found[0]), _own(found[1])
        if preloaded is None:
            points: Points = self._sequence._read(lambda view: view.points(sequence, begin, end))
        else:
            points = preloaded.take(span(preloaded["step"], begin, end))
        column = points["time"] / 1e6 if self._column == "time" else points[self._column]
        return points["step"].copy(), _own(column) if preloaded is None else column.copy()


def _own(column: Column) -> Column:
    """An array that its receiver may write to, with no larger one behind it: what comes straight from a journal lies in immutable
    bytes."""
    return column if column.flags.writeable and column.base is None else column.copy()


def _sample_heads(view: View, sequence: SequenceId, k: int) -> tuple[Steps, Column] | None:
    """What the heads of a long metric's blocks tell, with the points not yet merged; None where they do not tell enough."""
    merged = view.merged_summary(sequence)
    if merged is None or 2 * merged.blocks < k:
        return None
    fresh = resolve(view.unmerged_points(sequence))
    if len(fresh) and int(fresh["step"][0]) <= merged.last_step:
        return None
    points: dict[int, float] = {}
    for head in view.heads(sequence):
        points[head.first_step] = head.first
        if head.minimum == head.minimum:
            points[head.min_step], points[head.max_step] = head.minimum, head.maximum
        points[head.last_step] = head.last
    steps = np.array(sorted(points), "<i8")
    values = np.array([points[step] for step in steps.tolist()], "<f8")
    return np.concatenate([steps, fresh["step"]]), np.concatenate([values, fresh["value"]])


def decimate(steps: Steps, column: Column, k: int) -> tuple[Steps, Column]:
    """At most k of the points: the ends, the extremes, and the extremes of stretches of equal length."""
    n = len(steps)
    if n <= k:
        return steps.copy(), column.copy()
    low, high = np.where(np.isnan(column), np.inf, column), np.where(np.isnan(column), -np.inf, column)
    chosen = {0, n - 1, int(np.argmin(low)), int(np.argmax(high))}
    stretches = (k - 4) // 2
    edges = [n * i // stretches for i in range(stretches + 1)] if stretches else []
    for begin, end in pairwise(edges):
        chosen.add(begin + int(np.argmin(low[begin:end])))
        chosen.add(begin + int(np.argmax(high[begin:end])))
    at = np.array(sorted(chosen))
    return steps[at], column[at]
