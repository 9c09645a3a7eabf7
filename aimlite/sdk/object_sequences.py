"""Sequences whose values are objects. Headers are read with the points; a payload when its object is asked for it, from a view of that
moment."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from aimlite.objects.audio import Audio
from aimlite.objects.distribution import Distribution
from aimlite.objects.figure import Figure
from aimlite.objects.image import Image
from aimlite.objects.text import Text
from aimlite.objects.tracked import TrackedObject
from aimlite.sdk.sequence import Sequence
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from aimlite.sdk.object_arrays import ObjectView
    from aimlite.sdk.run import Run
    from aimlite.storage.media import Item
    from aimlite.storage.objects import Item as StoredItem
    from aimlite.storage.points import Points
    from aimlite.storage.view import SequenceId, View

_Found = TypeVar("_Found", bound="ObjectSequence")


class Record(NamedTuple):
    """One step of a sequence of objects. time: seconds since 1970, UTC. indices: where in the list of the step the objects stand, [0] of a
    single one."""

    step: int
    epoch: float
    time: float
    indices: list[int]
    objects: list[Any]


class ObjectSequence(Sequence):
    """All points of one (run, name, context) whose values are objects: one at each step, or a list of them."""

    _object: ClassVar[type[TrackedObject]]
    _stored: list[list[StoredItem]] | None = None  # of the points preloaded

    @property
    def values(self) -> ObjectView:
        """The objects; lists of them where they were tracked as lists."""
        load("aimlite.sdk.object_arrays")
        from aimlite.sdk.object_arrays import ObjectView

        return ObjectView(self, "object")

    def record_length(self) -> int:
        """The most objects that one step has; 1 where they were not tracked as lists."""
        return int(self._summary().maximum)

    def preload(self) -> None:
        """Reads all steps and headers at once; what is read later comes from memory, but for payloads."""

        def read(view: View) -> tuple[Points, list[list[StoredItem]]]:
            points = view.points(self._id)
            return points, view.objects(self._id, points)

        self._points, self._stored = self._read(read)

    def records(
        self,
        record_range: Any = None,
        index_range: Any = None,
        record_density: int | None = None,
        index_density: int | None = None,
    ) -> Iterator[Record]:
        """The steps, ascending, with their objects. Only the headers of what is chosen are read.

        record_range: (begin, end) of steps or a slice, begin ≤ step < end, None is no bound. record_density: at most so many of these
        steps, evenly spread, the first and the last among them. index_range, index_density: the same of the places in the lists of each
        step. Raises TypeError, ValueError.
        """
        load("aimlite.sdk.object_arrays")
        from aimlite.sdk.object_arrays import bounds, evenly, steps_between

        begin, end = bounds("record_range", record_range)
        first, last = bounds("index_range", index_range)
        evenly("record_density", 0, record_density)
        evenly("index_density", 0, index_density)

        def read(view: View) -> tuple[Points, list[list[StoredItem]]]:
            points = steps_between(view, self._id, begin, end)
            points = points.take(evenly("record_density", len(points), record_density))
            return points, view.objects(self._id, points)

        points, found = self._read(read)
        for place, stored in enumerate(found):
            inside = range(len(stored))[slice(first, last)]
            indices = [inside[at] for at in evenly("index_density", len(inside), index_density)]
            if indices:
                objects = [self._made(points, place, index, stored[index]) for index in indices]
                epoch, time = float(points["epoch"][place]), int(points["time"][place]) / 1e6
                yield Record(int(points["step"][place]), epoch, time, indices, objects)

    def _values_at(self, points: Points, found: list[list[StoredItem]], in_lists: bool) -> list[Any]:
        """The value of each point. One that counts no object is an empty list, also where the others are single objects."""
        values: list[Any] = []
        for place, stored in enumerate(found):
            objects = [self._made(points, place, index, item) for index, item in enumerate(stored)]
            values.append(objects if in_lists or not objects else objects[0])
        return values

    def _made(self, points: Points, place: int, index: int, item: StoredItem) -> TrackedObject:
        stamp = int(points["order"][place]), int(points["writer"][place])
        return self._object._from_item(item.header, partial(_load, self, *stamp, index))

    def _in_lists(self) -> bool:
        load("aimlite.storage.points")
        from aimlite.storage.points import INTS

        return bool(self._summary().flags & INTS)


def _load(sequence: ObjectSequence, order: int, writer: int, index: int) -> Item:
    found: Item = sequence._read(lambda view: view.object(sequence._id, order, writer, index, finished=False))
    return found


class Images(ObjectSequence):
    """A sequence of `Image`."""

    _kind = Image.kind
    _object = Image


class Audios(ObjectSequence):
    """A sequence of `Audio`."""

    _kind = Audio.kind
    _object = Audio


class Texts(ObjectSequence):
    """A sequence of `Text`."""

    _kind = Text.kind
    _object = Text


class Distributions(ObjectSequence):
    """A sequence of `Distribution`."""

    _kind = Distribution.kind
    _object = Distribution


class Figures(ObjectSequence):
    """A sequence of `Figure`."""

    _kind = Figure.kind
    _object = Figure


CLASSES: dict[str, type[ObjectSequence]] = {found._kind: found for found in (Audios, Distributions, Figures, Images, Texts)}


class ObjectCollection:
    """The sequences of objects of one run that a query matched."""

    def __init__(self, run: Run, sequences: list[ObjectSequence]) -> None:
        self.run = run
        self._sequences = sequences

    def iter(self) -> Iterator[ObjectSequence]:
        """The sequences, one by one."""
        return iter(self)

    def iter_runs(self) -> Iterator[ObjectCollection]:
        """Itself: the collection of its one run."""
        yield self

    def __iter__(self) -> Iterator[ObjectSequence]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    def __repr__(self) -> str:
        return f"<{len(self)} sequences of objects of run {self.run.hash}>"


def existing(kind: type[_Found], name: str, context: Any, run: Run) -> _Found | None:
    """The sequence if it has points."""
    sequence = kind(name, context, run)
    found = sequence._read(lambda view: view.sequence(run.hash, sequence._id.name, sequence._id.context, kind._kind))
    return None if found is None else sequence


def sequences_of(run: Run, kind: str | None = None) -> list[ObjectSequence]:
    """The sequences of objects of a run: of a kind of `CLASSES`, or of all of these."""
    ids: list[SequenceId] = run.repo._run_reader.read(lambda view: view.sequences(run.hash, kind))
    return [of_id(run, found) for found in ids if found.kind in CLASSES]


def of_id(run: Run, sequence: SequenceId) -> ObjectSequence:
    found = CLASSES[sequence.kind]._of(run, sequence)
    assert isinstance(found, ObjectSequence)
    return found


def info(sequence: ObjectSequence, skip_last_value: bool) -> dict[str, Any]:
    """What `collect_sequence_info` tells of a sequence of objects."""
    summary = sequence._summary()
    one = sequence._object.__name__.lower()
    values = {
        "dtype": f"list({one})" if sequence._in_lists() else one,
        "first_step": summary.first_step,
        "last_step": summary.last_step,
        "count": summary.count,
        "record_length": int(summary.maximum),
    }
    if skip_last_value:
        del values["last_step"]
    return {"name": sequence.name, "context": sequence.context.to_dict(), "values": values}
