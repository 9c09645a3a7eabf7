"""The objects of a sequence over its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aimlite._ext.recorder import plain_step
from aimlite.sdk.arrays import ArrayView, Column, Steps
from aimlite.storage.points import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aimlite.sdk.object_sequences import ObjectSequence
    from aimlite.storage.points import Points
    from aimlite.storage.view import SequenceId, View


class ObjectView(ArrayView):
    """As ArrayView, of objects: its columns are arrays of dtype object. Headers are read, payloads are not."""

    _sequence: ObjectSequence

    def sample(self, k: int) -> tuple[Steps, Column]:
        """At most k points, evenly spread, the first and the last among them.

        k: at least 2. Returns: (steps, column) as sparse_numpy.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 2:
            raise ValueError(f"sample() of objects takes at least 2 points, not {k!r}")
        if self._loaded is None:
            return self._take(None, None, k)
        steps, column = self._loaded
        chosen = evenly("k", len(steps), k)
        return steps[chosen], column[chosen]

    def _one(self, column: Column, at: int) -> Any:
        return column[at]

    def _read(self, begin: int | None = None, end: int | None = None) -> tuple[Steps, Column]:
        return self._take(begin, end, None)

    def _take(self, begin: int | None, end: int | None, most: int | None) -> tuple[Steps, Column]:
        sequence = self._sequence

        def read(view: View) -> tuple[Points, list[Any], bool]:
            points = steps_between(view, sequence._id, begin, end)
            points = points.take(evenly("k", len(points), most))
            in_lists = sequence._in_lists() if len(points) else False
            return points, view.objects(sequence._id, points), in_lists

        if sequence._points is not None and sequence._stored is not None:
            inside = range(len(sequence._points))[span(sequence._points["step"], begin, end)]
            places = [inside[at] for at in evenly("k", len(inside), most)]
            points = sequence._points.take(np.array(places, np.intp))
            found = [sequence._stored[at] for at in places]
            in_lists = sequence._in_lists() if places else False
        else:
            points, found, in_lists = sequence._read(read)
        column = np.empty(len(points), object)
        for place, value in enumerate(sequence._values_at(points, found, in_lists)):
            column[place] = value
        return points["step"].copy(), column


def steps_between(view: View, sequence: SequenceId, begin: int | None, end: int | None) -> Points:
    if begin is not None and end is not None and begin >= end:
        begin = end = 0
    return view.points(sequence, begin, end)


def bounds(what: str, given: Any) -> tuple[int | None, int | None]:
    """(begin, end) of a pair or slice. Raises TypeError, ValueError."""
    if given is None:
        return None, None
    if isinstance(given, slice):
        if given.step is not None:
            raise ValueError(f"{what} has no stride; use a density")
        given = (given.start, given.stop)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"{what} is a pair (begin, end) or a slice, not {given!r:.100}")
    begin, end = (None if bound is None else plain_step(bound) for bound in given)
    if what == "index_range" and ((begin or 0) < 0 or (end or 0) < 0):
        raise ValueError(f"{what} counts from 0: {given!r:.100}")
    return begin, end


def evenly(what: str, n: int, most: int | None) -> NDArray[np.intp]:
    """Which of n to take for at most so many, the first and the last among them. Raises ValueError."""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"{what} is an integer of at least 1, not {most!r:.100}")
    if most is None or n <= most:
        return np.arange(n)
    return np.arange(most) * (n - 1) // max(1, most - 1)
