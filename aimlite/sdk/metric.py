"""A metric of one run as users read it: columns over steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aimlite.storage.points import FLOATS, INTS, Points, Summary, resolve
from aimlite.storage.view import SequenceId, View

if TYPE_CHECKING:
    from aimlite.sdk.run import Run

Steps = NDArray[np.int64]
Column = NDArray[Any]


class Metric:
    """All points of one (run, name, context). Each read sees what is recorded at that moment."""

    def __init__(self, run: Run, sequence: SequenceId) -> None:
        self._run = run
        self._sequence = sequence

    @property
    def run(self) -> Run:
        return self._run

    @property
    def name(self) -> str:
        return self._sequence.name

    @property
    def context(self) -> dict[str, Any]:
        """A copy of the context; lists in it come back as tuples."""
        return copy.deepcopy(self._sequence.context)

    @property
    def values(self) -> ArrayView:
        """Values: float64."""
        return ArrayView(self, "value")

    @property
    def epochs(self) -> ArrayView:
        """Epochs: float64, NaN where none was given."""
        return ArrayView(self, "epoch")

    @property
    def timestamps(self) -> ArrayView:
        """Wall-clock times: float64, seconds since 1970, UTC."""
        return ArrayView(self, "time")

    @property
    def indices(self) -> ArrayView:
        """Steps: int64."""
        return ArrayView(self, "step")

    @property
    def count(self) -> int:
        """How many points there are."""
        return self._summary().count

    @property
    def first_step(self) -> int:
        return self._summary().first_step

    @property
    def last_step(self) -> int:
        return self._summary().last_step

    @property
    def first(self) -> float:
        """The value at the first step."""
        return self._summary().first

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self._summary().last

    @property
    def min(self) -> float:
        """The least value; NaN only when every value is NaN."""
        return self._summary().minimum

    @property
    def max(self) -> float:
        return self._summary().maximum

    @property
    def dtype(self) -> str:
        """'int' or 'float', or 'number' when both were tracked."""
        return {INTS: "int", FLOATS: "float"}.get(self._summary().flags & (INTS | FLOATS), "number")

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Metric {self.name!r} {self._sequence.context!r} of run {self._run.hash}>"

    def _summary(self) -> Summary:
        summary: Summary | None = self._read(lambda view: view.summary(self._sequence))
        if summary is None:
            raise KeyError(f"metric {self.name!r} of run {self._run.hash} has no points any more")
        return summary

    def _read(self, task: Any) -> Any:
        return self._run.repo._reader.read(task)


class ArrayView:
    """One column of a metric over its steps, ascending. It is read once, at first use, and stays as it was then; `sparse_numpy` alone, as
    the first use, hands over what it read and keeps nothing.

    A step occurs twice only where several writers counted steps on their own.
    """

    def __init__(self, metric: Metric, column: str) -> None:
        self._metric = metric
        self._column = column
        self._loaded: tuple[Steps, Column] | None = None

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

    def keys(self) -> list[int]:
        """The steps."""
        return self.indices_list()

    def items(self) -> Iterator[tuple[int, Any]]:
        """(step, value) pairs."""
        return zip(*self.sparse_list(), strict=True)

    def first(self) -> tuple[int, Any]:
        """(step, value) of the first point. Raises IndexError when there is none."""
        return self.first_idx(), self.first_value()

    def first_idx(self) -> int:
        return int(self._end(0)[0])

    def first_value(self) -> Any:
        return self._end(0)[1].item()

    def last(self) -> tuple[int, Any]:
        """(step, value) of the last point. Raises IndexError when there is none."""
        return self.last_idx(), self.last_value()

    def last_idx(self) -> int:
        return int(self._end(-1)[0])

    def last_value(self) -> Any:
        return self._end(-1)[1].item()

    def sample(self, k: int) -> tuple[Steps, Column]:
        """At most k points that keep the shape: the first, the last, the minimum and the maximum of the whole, and of each of some k / 2
        stretches.

        k: at least 4. Of a long metric only the summaries of its blocks are read. Returns: (steps, column) as sparse_numpy.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 4:
            raise ValueError(f"sample() takes at least 4 points, not {k!r}")
        sequence = self._metric._sequence
        if self._column == "value" and self._loaded is None:
            found = self._metric._read(lambda view: _sample_heads(view, sequence, k))
            if found is not None:
                steps, values = found
                return decimate(steps, values, k)
        return decimate(*self._load(), k)

    def __getitem__(self, index: Any) -> Any:
        """[step]: the value at a step (KeyError if none). [a:b]: (steps, column) of the steps a ≤ step < b; with a stride every n-th step
        from a on."""
        steps, column = self._load()
        if isinstance(index, slice):
            begin = 0 if index.start is None else int(np.searchsorted(steps, index.start))
            end = len(steps) if index.stop is None else int(np.searchsorted(steps, index.stop))
            chosen = slice(begin, max(begin, end))
            if index.step not in (None, 1):
                if index.step < 1:
                    raise ValueError(f"a slice of steps has a positive stride, not {index.step}")
                from_step = steps[begin] if index.start is None and begin < len(steps) else index.start or 0
                mask = (steps[chosen] - from_step) % index.step == 0
                return steps[chosen][mask], column[chosen][mask]
            return steps[chosen].copy(), column[chosen].copy()
        at = int(np.searchsorted(steps, index, "right")) - 1
        if at < 0 or steps[at] != index:
            raise KeyError(f"metric {self._metric.name!r} has no point at step {index!r}")
        return column[at].item()

    def __len__(self) -> int:
        return len(self._load()[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values_list())

    def __repr__(self) -> str:
        return f"<{self._column}s of {self._metric!r}>"

    def _end(self, at: int) -> tuple[Any, Any]:
        steps, column = self._load()
        if not len(steps):
            raise IndexError(f"metric {self._metric.name!r} has no points")
        return steps[at], column[at]

    def _load(self) -> tuple[Steps, Column]:
        if self._loaded is None:
            self._loaded = self._read()
        return self._loaded

    def _read(self) -> tuple[Steps, Column]:
        sequence = self._metric._sequence
        found: tuple[Steps, Column]
        if self._column == "value":
            found = self._metric._read(lambda view: view.steps_and_values(sequence))
            return _own(found[0]), _own(found[1])
        points: Points = self._metric._read(lambda view: view.points(sequence))
        column = points["time"] / 1e6 if self._column == "time" else points[self._column]
        return _own(points["step"]), _own(column)


def _own(column: Column) -> Column:
    """An array that its receiver may write to: what comes straight from a journal lies in immutable bytes."""
    return column if column.flags.writeable else column.copy()


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
