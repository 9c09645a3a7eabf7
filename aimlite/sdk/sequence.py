"""All points of one (run, name, context) as users read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aimlite._ext.recorder import sequence_key
from aimlite.sdk.context import Context
from aimlite.storage.loading import load
from aimlite.storage.view import METRIC, SequenceId

if TYPE_CHECKING:
    from aimlite.sdk.arrays import ArrayView
    from aimlite.sdk.run import Run
    from aimlite.storage.points import Points, Summary


class Step(int):
    """A step. Calling it gives the same: Aim documents `first_step()` and `last_step()` as methods."""

    def __call__(self) -> int:
        return int(self)


class Sequence:
    """All points of one (run, name, context); none if nothing was tracked there. Each read sees what is recorded at that moment.

    context: a mapping or None, which is {}. Raises TypeError and ValueError for a name or context that no sequence can have.
    """

    _kind = METRIC

    def __init__(self, name: str, context: Mapping[str, Any] | None, run: Run) -> None:
        self._run = run
        self._id = SequenceId(run.hash, *sequence_key(name, context, None if self._kind == METRIC else self._kind), self._kind)
        self._points: Points | None = None

    @classmethod
    def _of(cls, run: Run, sequence: SequenceId) -> Sequence:
        """A sequence that is known to be there."""
        found = cls.__new__(cls)
        found._run, found._id, found._points = run, sequence, None
        return found

    @property
    def run(self) -> Run:
        return self._run

    @property
    def name(self) -> str:
        return self._id.name

    @cached_property
    def context(self) -> Context:
        """A mapping that compares with its types: it is equal to the dict that was tracked with."""
        return Context(self._id.context)

    @property
    def values(self) -> ArrayView:
        """Values: float64."""
        return self._array("value")

    @property
    def epochs(self) -> ArrayView:
        """Epochs: float64, NaN where none was given."""
        return self._array("epoch")

    @property
    def timestamps(self) -> ArrayView:
        """Wall-clock times: float64, seconds since 1970, UTC."""
        return self._array("time")

    @property
    def indices(self) -> ArrayView:
        """Steps: int64."""
        return self._array("step")

    @property
    def count(self) -> int:
        """How many points there are."""
        return len(self)

    @property
    def first_step(self) -> Step:
        return Step(self._summary().first_step)

    @property
    def last_step(self) -> Step:
        return Step(self._summary().last_step)

    def preload(self) -> None:
        """Reads all columns at once; `values` and its siblings then take them from memory, and do not see what is recorded later."""
        self._points = self._read(lambda view: view.points(self._id))

    def __len__(self) -> int:
        summary: Summary | None = self._read(lambda view: view.summary(self._id))
        return 0 if summary is None else summary.count

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return self._run == other._run and self._id.packed == other._id.packed

    def __hash__(self) -> int:
        return hash((self._run, self._id.packed))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.context.to_dict()!r} of run {self._run.hash}>"

    def _array(self, column: str) -> ArrayView:
        load("aimlite.sdk.arrays")
        from aimlite.sdk.arrays import ArrayView

        return ArrayView(self, column)

    def _summary(self) -> Summary:
        summary: Summary | None = self._read(lambda view: view.summary(self._id))
        if summary is None:
            raise KeyError(f"{self.name!r} {self.context.to_dict()!r} of run {self._run.hash} has no points")
        return summary

    def _read(self, task: Any) -> Any:
        return self._run.repo._run_reader.read(task)
