"""Runs and sequences as queries see them, read from one view.

A run that no journal mentions is read from the tree alone. Where many runs are asked for the same thing it is read as a column, in one
scan.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from aimlite._ext.recorder import canonical_context
from aimlite.query.names import SEQUENCE_NUMBERS
from aimlite.storage import keys, params
from aimlite.storage.points import FLOATS, INTS, Summary, decode_summary
from aimlite.storage.runs import (
    RunState,
    WriterEntry,
    decode_run,
    decode_writer_entry,
    derive_state,
    error_in,
    is_stalled,
    notes_in,
    tags_in,
)
from aimlite.storage.view import METRIC, SequenceId, View, sequence_id

_EPOCH = dt.datetime(1970, 1, 1)
_INDEXED = {"experiment": "experiment", "path": "experiment", "status": "status", "archived": "archived"}


class Source:
    """What the rows of one query are read from. many: whether so many runs will be looked at that columns are worth their scans."""

    def __init__(self, view: View, many: bool = False) -> None:
        self.view = view
        self.many = many
        self.live = view.unmerged_runs()
        self.mentioned = view.mentioned_runs()  # of which the index may say what is not so any more
        self._columns: dict[keys.Path, dict[str, tuple[Any, bytes]]] = {}
        self._deeper: dict[keys.Path, bool] = {}
        self._properties: dict[str, dict[str, Any]] = {}
        self._states: dict[str, RunState] | None = None
        self._held: dict[str, dict[str, Any]] | None = None
        self._summaries: dict[tuple[str, bytes], dict[str, bytes]] = {}

    def run(self, run_hash: str) -> RunRow:
        return LiveRun(self, run_hash) if run_hash in self.live else RunRow(self, run_hash)

    def column(self, path: keys.Path) -> dict[str, tuple[Any, bytes]]:
        """run → (value in the index, content) of the leaves at a path."""
        held = self._columns.get(path)
        if held is None:
            begin = len(keys.param_index_of(path)[0])
            held = self._columns[path] = {}
            for key, content in self.view.tree.scan(keys.param_index_of(path)):
                value, run_hash = keys.rest(key, begin)
                held[run_hash] = (value, content)
        return held

    def is_deeper(self, path: keys.Path) -> bool:
        """Whether some run has a map at a path."""
        found = self._deeper.get(path)
        if found is None:
            found = self._deeper[path] = next(iter(self.view.tree.scan(keys.param_index_below(path))), None) is not None
        return found

    def property_column(self, name: str) -> dict[str, Any]:
        """run → value of an indexed property."""
        held = self._properties.get(name)
        if held is None:
            begin = len(keys.property_index_of(name)[0])
            held = self._properties[name] = {}
            for key, _ in self.view.tree.scan(keys.property_index_of(name)):
                value, run_hash = keys.rest(key, begin)
                held[run_hash] = value
        return held

    def states(self) -> dict[str, RunState]:
        """run → how it stands, of all merged runs."""
        if self._states is None:
            writers: dict[str, list[WriterEntry]] = {}
            tree = self.view.tree
            for key, entry in tree.scan(keys.prefix_range(keys.WRITER)):
                writers.setdefault(keys.rest(key, 1)[0], []).append(decode_writer_entry(entry))
            self._states = {}
            for key, data in tree.scan(keys.prefix_range(keys.RUN)):
                run_hash, held = keys.index_run(key), decode_run(data)
                self._states[run_hash] = derive_state(held["created"], held["order"], writers.pop(run_hash, []))
        return self._states

    def held_properties(self) -> dict[str, dict[str, Any]]:
        """run → its properties, of all merged runs."""
        if self._held is None:
            self._held = {}
            for key, data in self.view.tree.scan(keys.prefix_range(keys.PROPERTY)):
                run_hash, name = keys.rest(key, 1)
                self._held.setdefault(run_hash, {})[name] = params.decode_entry(data)[1]
        return self._held

    def summary_column(self, name: str, context: dict[str, Any]) -> dict[str, bytes]:
        """run → summary of the sequences of a name and context."""
        place = (name, keys.packed_context(context))
        held = self._summaries.get(place)
        if held is None:
            scan = self.view.tree.scan(keys.sequences_of(name, context))
            held = self._summaries[place] = {keys.index_run(key): value for key, value in scan}
        return held


class RunRow:
    """A run of which the tree holds all."""

    __slots__ = ("_held", "_source", "_state", "hash")

    def __init__(self, source: Source, run_hash: str) -> None:
        self.hash = run_hash
        self._source = source
        self._held: dict[str, Any] | None = None
        self._state: RunState | None = None

    def __str__(self) -> str:
        return self.hash

    __repr__ = __str__

    def property(self, name: str) -> Any:
        if name == "hash":
            return self.hash
        if self._source.many and name in _INDEXED and self._held is None:
            value = self._source.property_column(_INDEXED[name]).get(self.hash)
            if not isinstance(value, str) or len(value.encode()) < 250:  # else it may be cut
                return bool(value) if name == "archived" else value
        if name in _OF_STATE:
            if self._state is None:
                self._state = self._read_state()
            return _OF_STATE[name](self._state)
        if self._held is None:
            self._held = self._read_properties()
        if name in _OF_BOTH:
            self._state = self._state or self._read_state()
            return _OF_BOTH[name](self._held, self._state)
        return _OF_PROPERTIES[name](self._held, self.hash)

    def param(self, path: keys.Path) -> Any:
        source = self._source
        if source.many and path:
            entry = source.column(path).get(self.hash)
            if entry is not None:
                try:
                    return _plain(params.index_content(*entry))
                except LookupError:
                    pass  # too long for the index
            elif not source.is_deeper(path):
                return None
        return self._read_param(path)

    def metric(self, name: str, context: Any) -> SequenceRow | None:
        if context is ...:
            return next((row for row in self.sequences() if row.attribute("name") == name), None)
        try:
            plain = canonical_context(context)
        except (TypeError, ValueError):
            return None
        summary = self._read_summary(name, plain)
        return None if summary is None else SequenceRow(self, name, plain, summary)

    def sequences(self, kind: str = METRIC) -> list[SequenceRow]:
        view, found = self._source.view, []
        for sequence in view.sequences(self.hash, kind):
            summary = view.summary(sequence)
            if summary is not None:
                found.append(SequenceRow(self, sequence.key_name, sequence.context, summary))
        return found

    def _read_summary(self, name: str, context: dict[str, Any]) -> Summary | bytes | None:
        source = self._source
        if source.many:
            return source.summary_column(name, context).get(self.hash)
        return source.view.tree.get(keys.sequence(name, context, self.hash))

    def _read_state(self) -> RunState:
        if self._source.many:
            return self._source.states()[self.hash]
        tree = self._source.view.tree
        data = tree.get(keys.run(self.hash))
        held = {"created": 0, "order": 0} if data is None else decode_run(data)
        entries = [decode_writer_entry(entry) for _, entry in tree.scan(keys.writers_of_run(self.hash))]
        return derive_state(held["created"], held["order"], entries)

    def _read_properties(self) -> dict[str, Any]:
        if self._source.many:
            return self._source.held_properties().get(self.hash, {})
        scan = self._source.view.tree.scan(keys.properties_of_run(self.hash))
        return {keys.rest(key, 1)[1]: params.decode_entry(data)[1] for key, data in scan}

    def _read_param(self, path: keys.Path) -> Any:
        tree = self._source.view.tree
        data = tree.get(keys.param(self.hash, path)) if path else None
        if data is None:
            leaves = [
                (keys.rest(key, 1)[1 + len(path) :], params.decode_entry(value)[1])
                for key, value in tree.scan(keys.params_under(self.hash, path))
            ]
        else:
            leaves = [((), params.decode_entry(data)[1])]
        try:
            return _plain(params.nest(self._source.view.contents(leaves)))
        except KeyError:
            return None


class LiveRun(RunRow):
    """A run that unmerged journals mention."""

    __slots__ = ()

    def property(self, name: str) -> Any:
        if name == "hash":
            return self.hash
        if name in _OF_STATE:
            if self._state is None:
                self._state = self._source.view.run_state(self.hash)
            return _OF_STATE[name](self._state)
        if self._held is None:
            self._held = self._source.view.properties(self.hash)
        if name in _OF_BOTH:
            self._state = self._state or self._source.view.run_state(self.hash)
            return _OF_BOTH[name](self._held, self._state)
        return _OF_PROPERTIES[name](self._held, self.hash)

    def param(self, path: keys.Path) -> Any:
        return self._read_param(path)

    def _read_param(self, path: keys.Path) -> Any:
        try:
            return _plain(self._source.view.params(self.hash, path))
        except KeyError:
            return None

    def _read_summary(self, name: str, context: dict[str, Any]) -> Summary | bytes | None:
        view = self._source.view
        return view.summary(SequenceId(self.hash, name, context, keys.packed_sequence(name, context)))


class SequenceRow:
    """A sequence with its summary, which is decoded when it is asked for. name: as it stands in keys."""

    __slots__ = ("_context", "_data", "_name", "run")

    def __init__(self, run: RunRow, name: keys.Name, context: dict[str, Any], summary: Summary | bytes) -> None:
        self.run = run
        self._data = summary
        self._name = name
        self._context = context

    @property
    def summary(self) -> Summary:
        if isinstance(self._data, bytes):
            self._data = decode_summary(self._data)
        return self._data

    def attribute(self, name: str) -> Any:
        if name in SEQUENCE_NUMBERS:
            return getattr(self.summary, _FIELDS.get(name, name))
        if name == "name":
            return self._name if isinstance(self._name, str) else self._name[1]
        if name == "context":
            return _listed(self._context)
        if name == "run":
            return self.run
        if name == "dtype":
            return {INTS: "int", FLOATS: "float"}.get(self.summary.flags & (INTS | FLOATS), "number")
        return None

    @property
    def identity(self) -> SequenceId:
        return sequence_id(self.run.hash, self._name, self._context)


_FIELDS = {"min": "minimum", "max": "maximum"}


def _moment(time_us: int | None) -> dt.datetime | None:
    return None if time_us is None else _EPOCH + dt.timedelta(microseconds=time_us)


_OF_STATE: dict[str, Any] = {
    "status": lambda state: state.status,
    "active": lambda state: state.status == "running",
    "creation_time": lambda state: state.created / 1e6,
    "created_at": lambda state: _moment(state.created),
    "updated_at": lambda state: _moment(state.order),
    "end_time": lambda state: None if state.end_time is None else state.end_time / 1e6,
    "finalized_at": lambda state: _moment(state.end_time),
    "duration": lambda state: (time.time() if state.end_time is None else state.end_time / 1e6) - state.created / 1e6,
}


def _name_of(held: dict[str, Any], run_hash: str) -> Any:
    name = held.get("name")
    return f"Run: {run_hash}" if name is None else name


_OF_PROPERTIES: dict[str, Any] = {
    "name": _name_of,
    "alias": lambda held, _: held.get("name"),
    "description": lambda held, _: held.get("description"),
    "experiment": lambda held, _: held.get("experiment", "default"),
    "path": lambda held, _: held.get("experiment", "default"),
    "archived": lambda held, _: held.get("archived", False),
    "tags": lambda held, _: tags_in(held),
    "notes": lambda held, _: notes_in(held),
}


_OF_BOTH: dict[str, Any] = {
    "stalled": lambda held, state: is_stalled(held, state, time.time_ns() // 1000),
    "error": error_in,
}


def _listed(value: Any) -> Any:
    """A context, whose sequences are stored as tuples, with lists."""
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    """A param as a query has it: an array is a list."""
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if type(value) in (list, tuple) and any(hasattr(each, "shape") or isinstance(each, list | tuple | dict) for each in value):
        return type(value)(map(_plain, value))
    return value
