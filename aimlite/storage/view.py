"""What one read sees: the tree at a generation plus the journals not yet merged, each up to an offset. And the Reader that makes views.

A view never changes. While one is in use its tree is not caught up: the reader opens another. Making a view when nothing changed costs a
directory listing, a stat of `generation` and a look at each live journal.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgpack

from aimlite._ext import blocks as ext
from aimlite._ext.keys import pack, unpack
from aimlite.errors import CorruptionError
from aimlite.storage import keys, params
from aimlite.storage.blobs import BLOB_BYTES, blob_path, get_blob
from aimlite.storage.generation import wanted_generation
from aimlite.storage.layout import Layout
from aimlite.storage.loading import load
from aimlite.storage.locks import is_lease_taken, is_mine
from aimlite.storage.media import finish
from aimlite.storage.objects import Item, ObjectRecord, checked_content, decode_items, read_content
from aimlite.storage.params import ParamTree
from aimlite.storage.points import (
    INTS,
    Points,
    Summary,
    concatenate,
    decode_block,
    decode_summary,
    empty_points,
    resolve,
    span,
    split_blocks,
    summarize,
    within,
)
from aimlite.storage.runs import TRASHED, RunState, WriterEntry, decode_run, decode_writer_entry, derive_state, index_properties, is_hidden
from aimlite.storage.segments import Segment, SegmentRun, SegmentView, SequenceRecord, count_of_damage
from aimlite.storage.tombstones import Tombstones, written_after
from aimlite.storage.tree import EmptyTree, Tree, TreeMoved, TreeReader, tree_generation

METRIC = "metric"
_TRIES = 100
_RESTED_NS = 3_000_000_000  # more than a tick of any file system's clock: FAT's are two seconds
_MANY_PARAM_BYTES = 4096
_MANY_OBJECTS = 16  # from here on one scan of a sequence's objects costs less than a look-up each
_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})
T = TypeVar("T")


@dataclass(frozen=True)
class SequenceId:
    """A sequence of a run: name, context, what it holds, and what tells it apart from the others of its run packed as one key tuple."""

    run: str
    name: str
    context: dict[str, Any]
    packed: bytes
    kind: str = METRIC  # or of the objects that it holds

    @property
    def key_name(self) -> keys.Name:
        return self.name if self.kind == METRIC else (self.kind, self.name)

    def blocks(self, space: bytes, first: int | None = None, end: int | None = None) -> keys.Range:
        return keys.blocks_between(space, self.run, self.key_name, self.context, first, end)


def sequence_id(run_hash: str, name: keys.Name, context: dict[str, Any], packed: bytes = b"") -> SequenceId:
    """name: as it stands in keys."""
    packed = packed or pack((name, context))
    if isinstance(name, str):
        return SequenceId(run_hash, name, context, packed)
    return SequenceId(run_hash, name[1], context, packed, name[0])


class SegmentsByRun:
    """Which segments mention a run: a reader keeps it for all its views, so that a view need not look through all segments for each run."""

    def __init__(self) -> None:
        self._segments: dict[str, list[Segment]] = {}
        self._taken: dict[Segment, int] = {}  # how many of its runs are taken in

    def add(self, segment: Segment) -> None:
        """Takes in what a segment has come to mention since."""
        taken = self._taken.get(segment, 0)
        if len(segment.mentioned) > taken:
            for run_hash in segment.mentioned[taken:]:
                self._segments.setdefault(run_hash, []).append(segment)
            self._taken[segment] = len(segment.mentioned)

    def of(self, run_hash: str) -> list[Segment]:
        return self._segments.get(run_hash, [])


class View:
    """The tree at a generation and the journals not yet merged. Every method raises CorruptionError where what it reads is damaged."""

    def __init__(self, layout: Layout, tree: Tree, segments: list[SegmentView], by_run: SegmentsByRun | None = None) -> None:
        """by_run: knows which segments mention a run, perhaps of more segments than these."""
        self.layout = layout
        self.tree = tree
        self.segments = segments
        self._view_of = {view.segment: view for view in segments}
        self._by_run = by_run or SegmentsByRun()
        for view in segments:
            self._by_run.add(view.segment)
        self._damaged: tuple[int, list[SegmentView]] = (-1, [])
        self.tombstones = Tombstones(tree)
        self._mentioned: dict[str, int] | None = None
        self._moving_trash: set[str] = set()  # those of the mentioned runs that the journals may put into the trash, or take out of it
        self._any_trashed: bool | None = None
        self._whole_params: tuple[str, params.ParamTree] | None = None  # of the run whose params were read last
        self._params_read = ""
        self._state: tuple[str, RunState] | None = None  # of the run looked at last: its properties are asked for one by one
        self._properties: tuple[str, dict[str, Any]] | None = None

    # -- runs ----

    def has_run(self, run_hash: str) -> bool:
        """Whether there is such a run outside of the trash. Raises CorruptionError when it is not found but a damaged journal may hold
        it, or damage hides whether it left the trash."""
        if not self.holds_run(run_hash):
            return False
        if not self.is_trashed(run_hash):
            return True
        if self._may_move_trash(run_hash):
            self.properties(run_hash)
        return False

    def holds_run(self, run_hash: str) -> bool:
        """Whether there is such a run, be it in the trash. Raises as `has_run`."""
        if is_hidden(run_hash):
            return False
        if self._touching(run_hash) or self.tree.get(keys.run(run_hash)) is not None:
            return True
        for segment in self._damaged_segments():
            if segment.segment.orphans or segment.segment.may_have_lost(run_hash):
                segment.demand_intact()
        return False

    def is_trashed(self, run_hash: str) -> bool:
        """Whether a run that there is lies in the trash. Where a damaged journal keeps that from being known, what the tree says counts."""
        if self._may_move_trash(run_hash):
            with contextlib.suppress(CorruptionError):
                return self.properties(run_hash).get(TRASHED) is not None
        return self._is_trashed_in_tree(run_hash)

    def _may_move_trash(self, run_hash: str) -> bool:
        """Whether a journal may put a run into the trash, or take it out of it."""
        try:
            self.mentioned_runs()
        except CorruptionError:  # in the tree, of another run perhaps
            return any(run.moves_trash for _, run in self._touching(run_hash))
        return run_hash in self._moving_trash

    def _is_trashed_in_tree(self, run_hash: str) -> bool:
        return self._tree_has_trash() and "trashed" in (self._tree_run(run_hash) or ())

    def _tree_has_trash(self) -> bool:
        """False spares looking at each run: so it is True when the index, which says it, cannot be read."""
        if self._any_trashed is None:
            try:
                self._any_trashed = next(self.tree.scan_keys(keys.property_index_of(TRASHED), limit=1), None) is not None
            except CorruptionError:
                self._any_trashed = True
        return self._any_trashed

    def trashed_runs(self) -> list[str]:
        """The hashes of the runs in the trash, the last one put there first."""
        merged = {unpack(key, 1)[2]: unpack(key, 1)[1] for key, _ in self.tree.scan(keys.property_index_of(TRASHED))}
        for run_hash in self.mentioned_runs():
            since = merged.pop(run_hash, None)
            if self.is_trashed(run_hash):
                try:
                    merged[run_hash] = self.properties(run_hash)[TRASHED]
                except CorruptionError:  # of a journal that holds a part of the run: what the tree says counts
                    merged[run_hash] = since
        return sorted(merged, key=lambda run_hash: (merged[run_hash], run_hash), reverse=True)

    def run_count(self) -> int:
        value = self.tree.get(keys.run_count())
        merged = 0 if value is None else int(msgpack.unpackb(value))
        return merged + sum((not self.is_trashed(run_hash)) - self._is_in_tree(run_hash) for run_hash in self.mentioned_runs())

    def _is_in_tree(self, run_hash: str) -> bool:
        """Whether the tree holds a run and has it outside of the trash."""
        merged = self._tree_run(run_hash)
        return merged is not None and "trashed" not in merged

    def run_hashes(self) -> Iterator[str]:
        """The hashes of all runs, newest first (by creation, then hash)."""
        fresh = []
        hidden = set()
        for run_hash, created in self.mentioned_runs().items():
            merged = self._tree_run(run_hash)
            if self.is_trashed(run_hash):
                hidden.add(run_hash)
            elif merged is None or "trashed" in merged or created < merged["created"]:  # the index does not have it, or not at its place
                hidden.add(run_hash)
                fresh.append((min(created, created if merged is None else merged["created"]), run_hash))
        fresh.sort(reverse=True)
        position = 0
        for key, _ in self.tree.scan(keys.property_index_of("created"), reverse=True):
            _, created, run_hash = unpack(key, 1)
            if run_hash in hidden:
                continue
            while position < len(fresh) and fresh[position] > (created, run_hash):
                yield fresh[position][1]
                position += 1
            yield run_hash
        yield from (run_hash for _, run_hash in fresh[position:])

    def running(self) -> list[str]:
        """The hashes of the runs that a writer has open, newest first."""
        running = [(state.created, run_hash) for run_hash, state in self.of_each_live_run(self.run_state) if state.status == "running"]
        return [run_hash for _, run_hash in sorted(running, reverse=True)]

    def hashes_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """The hashes that begin with prefix, ascending, at most `limit`; where one is the prefix itself, that one alone. Raises
        CorruptionError as `has_run`."""
        fresh = {run_hash for run_hash in self.unmerged_runs() if run_hash.startswith(prefix)}
        known = ((unpack(key, 1)[0], decode_run(data)) for key, data in self.tree.scan(keys.runs_with_prefix(prefix)))
        merged = (run_hash for run_hash, held in known if "trashed" not in held and not is_hidden(run_hash))
        shown = (run_hash for run_hash in merged if run_hash in fresh or run_hash not in self.mentioned_runs())
        found = sorted({*islice(shown, limit), *fresh})[:limit]
        if found[:1] == [prefix] or (not found and self.has_run(prefix)):
            return [prefix]
        return found

    def damaged_journals(self) -> list[Path]:
        """Those in which runs may begin that neither the count nor the list has."""
        return [segment.segment.path for segment in self._damaged_segments()]

    def of_each_live_run(self, task: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        """(run, what `task` makes of it) of the runs that the journals mention, but for those in the trash and those of which a damaged
        journal holds a part: `damaged_journals` tells that some may be missing."""
        for run_hash in self.unmerged_runs():
            try:
                found = task(run_hash)
            except CorruptionError as error:
                if not self.is_of_journal(error):
                    raise
            else:
                yield run_hash, found

    def is_of_journal(self, error: CorruptionError) -> bool:
        """Whether it tells of a journal."""
        return error.path is not None and os.path.dirname(error.path) == str(self.layout.journals)

    def corrupted_runs(self, among: Iterable[str] | None = None) -> set[str]:
        """The runs of which a damaged journal holds a part, or may. Takes time in the unmerged journals, and in all runs only when one is
        damaged. among: what to look at where the tree cannot list its runs."""
        for segment in self.segments:
            with contextlib.suppress(FileNotFoundError):  # it was merged meanwhile
                segment.segment.inspect()
        damaged = self._damaged_segments()
        if not damaged:
            return set()
        lost = {run_hash for segment in damaged for run_hash in segment.segment.lost_runs()}
        return lost.union(run_hash for run_hash in (self.run_hashes() if among is None else among) if not self._is_intact(run_hash))

    def run_state(self, run_hash: str) -> RunState:
        """Raises KeyError when there is no such run."""
        known = self._state
        if known is None or known[0] != run_hash:
            known = self._state = (run_hash, self._derive_state(run_hash))
        return known[1]

    def _derive_state(self, run_hash: str) -> RunState:
        (entries, order), merged = self._entries(run_hash), self._tree_run(run_hash)
        created = min((entry.opened for entry in entries.values()), default=0)
        if merged is not None:
            created, order = min(created or merged["created"], merged["created"]), max(order, merged["order"])
        return derive_state(created, order, entries.values())

    def writer_entries(self, run_hash: str) -> dict[int, WriterEntry]:
        """writer → what it did to a run. Raises KeyError when there is no such run."""
        return self._entries(run_hash)[0]

    def _entries(self, run_hash: str) -> tuple[dict[int, WriterEntry], int]:
        """(writer → what it did to a run, the newest order of all that)."""
        touching, is_merged = self._intact(run_hash), self._tree_run(run_hash) is not None
        if not is_merged and not touching:
            raise KeyError(run_hash)
        entries: dict[int, WriterEntry] = {}
        if is_merged:
            for key, value in self.tree.scan(keys.writers_of_run(run_hash)):
                entries[unpack(key, 1)[1]] = decode_writer_entry(value)
        newest = max((entry.last for entry in entries.values()), default=0)
        for segment, run in touching:
            later = segment.writer_entry(run)
            newest = max(newest, later.last)
            earlier = entries.get(segment.segment.writer)
            entries[segment.segment.writer] = later if earlier is None else earlier.followed_by(later)
        return entries, newest

    def runs_by_property(self, name: str) -> dict[str, list[str]]:
        """value → the runs that have it, of a property that the index holds whole: 'experiment' or 'tag'."""
        mentioned, found = self.mentioned_runs(), dict[str, list[str]]()
        begin = len(keys.property_index_of(name)[0])
        for key, _ in self.tree.scan(keys.property_index_of(name)):
            value, run_hash = keys.rest(key, begin)
            if run_hash not in mentioned:
                if len(value.encode()) >= 250:  # it may be cut
                    value = self.properties(run_hash).get(name, value)
                found.setdefault(value, []).append(run_hash)
        for run_hash, indexed in self.of_each_live_run(lambda each: index_properties(self.properties(each), self.run_state(each))):
            for held, value in indexed:
                if held == name:
                    found.setdefault(value, []).append(run_hash)
        return found

    def newest_order(self, run_hash: str) -> int:
        """Of all that is known of a run and of its deletions, without what damaged journals lost."""
        merged = self._tree_run(run_hash)
        fresh = (segment.segment.last_order(run, segment.limit) for segment, run in self._mentioning(run_hash))
        deleted = (self.tombstones.of_run(run_hash), *self.tombstones.of_sequences(run_hash).values())
        return max(0 if merged is None else merged["order"], *deleted, *fresh)

    def properties(self, run_hash: str) -> dict[str, Any]:
        """The caller's own."""
        known = self._properties
        if known is None or known[0] != run_hash:
            found = self.stamped_properties(run_hash)
            known = self._properties = (run_hash, {name: content for name, (_, content) in found.items()})
        return known[1].copy()

    def stamped_properties(self, run_hash: str) -> dict[str, tuple[params.Stamp, Any]]:
        held: dict[str, tuple[params.Stamp, Any]] = {}
        for key, value in self.tree.scan(keys.properties_of_run(run_hash)):
            held[unpack(key, 1)[1]] = params.decode_entry(value)
        writes = [write for segment, run in self._intact(run_hash) for write in segment.property_writes(run)]
        for stamp, _, name, content in sorted(writes, key=lambda write: write[:2]):
            if name not in held or held[name][0] <= stamp:
                held[name] = (stamp, content)
        return held

    def stamped_params(self, run_hash: str) -> tuple[dict[keys.Path, tuple[params.Stamp, Any]], dict[keys.Path, params.Stamp]]:
        """(leaves, covers) of a run."""
        held = self._params_for(run_hash, ())
        return held.leaves(), held.covers()

    def params(self, run_hash: str, path: keys.Path = ()) -> Any:
        """The value at a path: a leaf or nested dicts, the caller's own. Raises KeyError when nothing is there."""
        return params.nest(self.contents(self.param_leaves(run_hash, path)))

    def param_leaves(self, run_hash: str, path: keys.Path = ()) -> Iterable[tuple[keys.Path, Any]]:
        """(path below `path`, value) of each leaf, those in blobs as Blob. They are the view's own."""
        return self._params_for(run_hash, path).leaves_under(path)

    def _params_for(self, run_hash: str, path: keys.Path) -> ParamTree:
        """Params of a run, whole or as far as they bear on a path. Many unmerged ones are put together once for all further reads."""
        known = self._whole_params
        if known is not None and known[0] == run_hash:
            return known[1]
        touching = self._intact(run_hash)
        again, self._params_read = self._params_read == run_hash, run_hash
        is_whole = not path or (again and sum(len(payload) for _, run in touching for _, _, payload, _ in run.params) > _MANY_PARAM_BYTES)
        path = () if is_whole else path
        merged = load_params(self.tree, run_hash, path)
        operations = [operation for segment, run in touching for operation in segment.param_operations(run, path)]
        for stamp, _, kind, at, leaves in sorted(operations, key=lambda operation: operation[:2]):
            merged.apply(stamp, kind, at, leaves)
        if is_whole:
            self._whole_params = (run_hash, merged)
        return merged

    def contents(self, leaves: Iterable[tuple[keys.Path, Any]]) -> Iterator[tuple[keys.Path, Any]]:
        """(path, value) as users see them: what lies in blobs is read, what only names blobs is left out."""
        for path, value in leaves:
            if isinstance(value, params.Blobs):
                continue
            if not isinstance(value, params.Blob):
                yield path, value if type(value) in _IMMUTABLE else copy.deepcopy(value)
            elif (content := get_blob(self.layout.blobs, value.digest)) is not None:
                yield path, self._unpacked(content, value.digest)

    def _unpacked(self, content: bytes, digest: bytes) -> Any:
        try:
            return params.unpackb(content)
        except CorruptionError as error:
            raise CorruptionError(error.message, blob_path(self.layout.blobs, digest), error.offset) from None

    # -- sequences ----

    def sequences(self, run_hash: str, kind: str | None = METRIC) -> list[SequenceId]:
        """The sequences of a run that have points, by name and context: its metrics, those of a kind of objects, or (None) all."""
        found: dict[bytes, SequenceId] = {}
        if kind is None:
            bounds = keys.sequences_of_run(run_hash)
        else:
            bounds = keys.metrics_of_run(run_hash) if kind == METRIC else keys.objects_of_run(run_hash, kind)
        for key, _ in self.tree.scan(bounds):
            _, name, context = unpack(key, 1)
            sequence = sequence_id(run_hash, name, context)
            found[sequence.packed] = sequence
        for segment, run in self._intact(run_hash):
            for packed, record in self._sequences(segment, run_hash, run).items():
                if packed not in found and kind in (None, METRIC if isinstance(record.name, str) else record.name[0]):
                    found[packed] = sequence_id(run_hash, record.name, record.context, packed)
        return [found[packed] for packed in sorted(found)]

    def sequence(self, run_hash: str, name: str, context: dict[str, Any], kind: str = METRIC) -> SequenceId | None:
        """The sequence if it has points."""
        sequence = sequence_id(run_hash, name if kind == METRIC else (kind, name), context)
        return sequence if self.has_points(sequence) else None

    def has_points(self, sequence: SequenceId) -> bool:
        if self.tree.get(keys.of_run(sequence.run, sequence.key_name, sequence.context)) is not None:
            return True
        return any(sequence.packed in self._sequences(segment, sequence.run, run) for segment, run in self._intact(sequence.run))

    def _sequences(self, segment: SegmentView, run_hash: str, run: SegmentRun) -> dict[bytes, SequenceRecord]:
        """packed (name, context) → a record of it, of what has points in a segment that no tombstone hides."""
        found = segment.sequences(run)
        for packed, order in self.tombstones.of_sequences(run_hash).items():
            if packed in found and not len(written_after(segment.points(run, packed), order)):
                del found[packed]
        return found

    def merged_summary(self, sequence: SequenceId) -> Summary | None:
        """What the tree says of a sequence."""
        data = self.tree.get(keys.sequence(sequence.key_name, sequence.context, sequence.run))
        if data is None and self._is_trashed_in_tree(sequence.run):  # read through a Run that was there before, or just taken out again
            data = self.tree.get(keys.trashed_sequence(sequence.key_name, sequence.context, sequence.run))
        return None if data is None else decode_summary(data)

    def summary(self, sequence: SequenceId) -> Summary | None:
        """The summary of all points of a sequence; None when there are none."""
        merged, fresh = self.merged_summary(sequence), resolve(self.unmerged_points(sequence))
        if not len(fresh):
            return merged
        if merged is None:
            return summarize(fresh)
        if int(fresh["step"][0]) > merged.last_step:
            return merged.followed_by(summarize(fresh))
        return summarize(self.points(sequence))

    def last_step(self, sequence: SequenceId) -> int | None:
        """The greatest step of a sequence; None when it has no point. Unmerged points are neither put together nor resolved for it."""
        if sequence.packed in self.tombstones.of_sequences(sequence.run):
            summary = self.summary(sequence)
            return None if summary is None else summary.last_step
        merged = self.merged_summary(sequence)
        found = [segment.greatest_step(run, sequence.packed) for segment, run in self._intact(sequence.run)]
        if merged is not None:
            found.append(merged.last_step)
        return max((step for step in found if step is not None), default=None)

    def holds_lists(self, sequence: SequenceId) -> bool:
        """Whether the objects of a sequence were given as lists."""
        summary = self.summary(sequence)
        return summary is not None and bool(summary.flags & INTS)

    def unmerged_points(self, sequence: SequenceId) -> Points:
        """The points in the journals, in no order."""
        fresh = concatenate([segment.points(run, sequence.packed) for segment, run in self._intact(sequence.run)])
        return written_after(fresh, self.tombstones.of_sequences(sequence.run).get(sequence.packed, 0)) if len(fresh) else fresh

    def points(self, sequence: SequenceId, begin: int | None = None, end: int | None = None) -> Points:
        """The points of a sequence at begin ≤ step < end (None: no bound), resolved. Only blocks that may hold such steps are read."""
        fresh = within(self.unmerged_points(sequence), begin, end)
        merged = self._merged_points(sequence, begin, end)
        if not len(merged):
            return resolve(fresh)
        if not len(fresh):
            return merged
        resolved = resolve(fresh)
        if resolved["step"][0] > merged["step"][-1]:
            return concatenate([merged, resolved])
        return resolve(concatenate([merged, fresh]))

    def _merged_points(self, sequence: SequenceId, begin: int | None, end: int | None) -> Points:
        summary = self.merged_summary(sequence)
        if summary is None:
            return empty_points()
        first, expected = self._covering(sequence, summary, begin, end)
        values = (value for _, value in self.tree.scan(sequence.blocks(keys.VALUES, first, end)))
        times = (value for _, value in self.tree.scan(sequence.blocks(keys.TIMES, first, end)))
        blocks = [decode_block(*pair, summary.flags) for pair in zip(values, times, strict=True)]
        self._demand_count(sequence, expected, sum(len(block) for block in blocks))
        return within(concatenate(blocks), begin, end)

    def pieces(self, sequence: SequenceId) -> Iterator[Points]:
        """All points of a sequence, resolved, block by block where the unmerged ones come after the merged ones. A step lies in one
        piece."""
        summary = self.merged_summary(sequence)
        fresh = resolve(self.unmerged_points(sequence))
        if summary is not None and len(fresh) and int(fresh["step"][0]) <= summary.last_step:
            yield from split_blocks(self.points(sequence))
            return
        if summary is not None:
            values = (value for _, value in self.tree.scan(sequence.blocks(keys.VALUES)))
            times = (value for _, value in self.tree.scan(sequence.blocks(keys.TIMES)))
            count = 0
            for pair in zip(values, times, strict=True):
                block = decode_block(*pair, summary.flags)
                count += len(block)
                yield block
            self._demand_count(sequence, summary.count, count)
        yield from split_blocks(fresh)

    def steps_and_values(self, sequence: SequenceId, begin: int | None = None, end: int | None = None) -> tuple[Any, Any]:
        """(steps int64[n], values float64[n]) at begin ≤ step < end, without reading times where that can be avoided."""
        load("numpy")
        import numpy as np

        summary = self.merged_summary(sequence)
        fresh = self.unmerged_points(sequence)
        if summary is not None and not len(fresh) and begin is None and end is None:
            steps, values = np.empty(summary.count, np.int64), np.empty(summary.count)
            self._read_merged(sequence, summary, steps, values)
            return steps, values
        fresh = within(fresh, begin, end)
        if summary is None or (len(fresh) and int(fresh["step"].min()) <= summary.last_step):
            whole = self.points(sequence, begin, end)
            return whole["step"], whole["value"]
        fresh = resolve(fresh)
        first, expected = self._covering(sequence, summary, begin, end)
        steps, values = np.empty(expected + len(fresh), np.int64), np.empty(expected + len(fresh))
        into_steps, into_values = steps[:expected], values[:expected]
        at = 0
        for _, data in self.tree.scan(sequence.blocks(keys.VALUES, first, end)):
            at += ext.decode_values_into(data, into_steps, into_values, at)
        self._demand_count(sequence, expected, at)
        if len(fresh):
            steps[at:], values[at:] = fresh["step"], fresh["value"]
        if begin is None and end is None:
            return steps, values
        chosen = span(steps, begin, end)
        return steps[chosen], values[chosen]

    def read_into(self, wanted: list[tuple[SequenceId, Summary | None]], offsets: Any, steps: Any, values: Any) -> None:
        """Steps and values of many sequences, each into its place of two arrays: offsets[k] to offsets[k + 1]. The summary is that of a
        sequence of which the tree holds all; None where journals may hold some."""
        for number, (sequence, summary) in enumerate(wanted):
            begin, end = int(offsets[number]), int(offsets[number + 1])
            if summary is None:
                steps[begin:end], values[begin:end] = self.steps_and_values(sequence)
            else:
                self._read_merged(sequence, summary, steps[begin:end], values[begin:end])

    def _read_merged(self, sequence: SequenceId, summary: Summary, steps: Any, values: Any) -> None:
        """Fills two arrays of `summary.count` with what the tree holds."""
        pieces: Iterable[bytes]
        if summary.blocks == 1:
            data = self.tree.get(keys.block(keys.VALUES, sequence.run, sequence.key_name, sequence.context, summary.first_step))
            pieces = () if data is None else (data,)
        else:
            pieces = (data for _, data in self.tree.scan(sequence.blocks(keys.VALUES)))
        at = 0
        for data in pieces:
            at += ext.decode_values_into(data, steps, values, at)
        self._demand_count(sequence, summary.count, at)

    def _covering(self, sequence: SequenceId, summary: Summary, begin: int | None, end: int | None) -> tuple[int | None, int]:
        """Of the merged blocks that may hold points at begin ≤ step < end: the first step of the first, and how many points they hold."""
        if begin is None and end is None:
            return None, summary.count
        first = begin
        if begin is not None:
            before = self.tree.scan(sequence.blocks(keys.HEAD, None, begin), reverse=True)
            for key, value in before:
                if decode_summary(value).last_step >= begin:
                    first = keys.first_step(key)
                break
        return first, sum(decode_summary(value).count for _, value in self.tree.scan(sequence.blocks(keys.HEAD, first, end)))

    def heads(self, sequence: SequenceId) -> list[Summary]:
        """The summaries of the merged blocks, in order."""
        return [decode_summary(value) for _, value in self.tree.scan(sequence.blocks(keys.HEAD))]

    # -- objects ----

    def objects(self, sequence: SequenceId, points: Points) -> list[list[Item]]:
        """The items of each of some resolved points of a sequence of objects. Contents are not read."""
        stamps = list(zip(points["order"].tolist(), points["writer"].tolist(), strict=True))
        merged: dict[tuple[int, int], bytes] = {}
        fresh: dict[tuple[int, int], list[ObjectRecord]] = {}
        many = len(stamps) > _MANY_OBJECTS
        if many:
            for segment, run in self._intact(sequence.run):
                for record in segment.objects(run, sequence.packed):
                    fresh.setdefault((record.order, segment.segment.writer), []).append(record)
            for key, value in self.tree.scan(keys.objects_of(sequence.run, sequence.key_name, sequence.context)):
                order, writer = unpack(key, 1)[3:]
                merged[order, writer] = value
        found = []
        for order, writer in stamps:
            records = fresh.get((order, writer)) if many else self._unmerged_records(sequence, order, writer)[1]
            if records:
                found.append([item for record in records for item in record.items()])
            else:
                found.append(self._merged_items(sequence, order, writer, merged))
        return found

    def _merged_items(self, sequence: SequenceId, order: int, writer: int, known: dict[tuple[int, int], bytes]) -> list[Item]:
        data = known.get((order, writer)) or self.tree.get(keys.object_at(sequence.run, sequence.key_name, sequence.context, order, writer))
        if data is None:
            raise CorruptionError(f"an object of {sequence.name!r} of run {sequence.run} is missing", self.layout.tree)
        return decode_items(data)

    def _unmerged_records(self, sequence: SequenceId, order: int, writer: int) -> tuple[SegmentView | None, list[ObjectRecord]]:
        """(segment, records) of the objects of one point; no records where the journals do not hold them."""
        for segment, run in self._intact(sequence.run):
            if segment.segment.writer == writer and (records := segment.objects_at(run, sequence.packed, order)):
                return segment, records
        return None, []

    def object(self, sequence: SequenceId, order: int, writer: int, index: int, finished: bool = True) -> tuple[dict[str, Any], bytes]:
        """(header, content) of one object; order and writer are those of its point. finished: in its final form, else as it is kept by now.
        Raises CorruptionError where the content is not what was stored, KeyError when another has replaced it."""
        header, content = self._object(sequence, order, writer, index)
        return finish(header, content) if finished else (header, content)

    def _object(self, sequence: SequenceId, order: int, writer: int, index: int) -> tuple[dict[str, Any], bytes]:
        segment, records = self._unmerged_records(sequence, order, writer)
        if segment is not None:
            item, place = [found for record in records for found in record.places()][index]
            if not place:
                return item.header, self._content(item)
            assert isinstance(item.content, params.Blob)
            try:
                return item.header, read_content(segment.segment.path, place, item.content)
            except FileNotFoundError as error:  # merged since
                raise TreeMoved(str(error)) from None
        data = self.tree.get(keys.object_at(sequence.run, sequence.key_name, sequence.context, order, writer))
        if data is None:
            raise KeyError(f"an object of {sequence.name!r} of run {sequence.run}: another was tracked in its place")
        item = decode_items(data)[index]
        return item.header, self._content(item)

    def is_blob(self, digest: bytes) -> bool:
        """Whether a content lies in a blob by now, and not in a journal."""
        return blob_path(self.layout.blobs, digest).exists()

    def _content(self, item: Item) -> bytes:
        held = item.content
        if isinstance(held, bytes):
            return held
        if held.size >= BLOB_BYTES:
            content = get_blob(self.layout.blobs, held.digest)
        else:
            content = self.tree.get(keys.content(held.digest))
        if content is None:
            raise CorruptionError("the content of an object is lost", self.layout.tree)
        return checked_content(content, held, self.layout.tree)

    def _demand_count(self, sequence: SequenceId, expected: int, count: int) -> None:
        if count != expected:
            raise CorruptionError(
                f"{sequence.name!r} of run {sequence.run} has {count} points in the tree, its summary says {expected}",
                self.layout.tree,
            )

    # -- journals ----

    def _intact(self, run_hash: str) -> list[tuple[SegmentView, SegmentRun]]:
        """What the journals hold of a run. Raises CorruptionError when one of them, or one that may be, is damaged."""
        touching = self._touching(run_hash)
        damaged = self._damaged_segments()
        if damaged:
            named = {segment.segment for segment, _ in touching}
            for segment in damaged:
                if segment.segment in named or self._may_have_lost(segment.segment, run_hash):
                    segment.demand_intact()
        return touching

    def _damaged_segments(self) -> list[SegmentView]:
        """Those of which a part is known to be damaged. It is looked for anew only when damage was found somewhere since."""
        found, damaged = self._damaged
        if found != count_of_damage():
            found = count_of_damage()
            damaged = [segment for segment in self.segments if segment.is_damaged]
            self._damaged = (found, damaged)
        return damaged

    def _is_intact(self, run_hash: str) -> bool:
        try:
            self._intact(run_hash)
        except CorruptionError:
            return False
        return True

    def _may_have_lost(self, damaged: Segment, run_hash: str) -> bool:
        """Whether records of a segment whose OPEN was lost may be the run's: the lost bytes tell, or that its writer wrote to the run
        elsewhere."""
        if damaged.may_have_lost(run_hash):
            return True
        return damaged.orphans and (
            any(segment.segment.writer == damaged.writer for segment, _ in self._touching(run_hash))
            or self.tree.get(keys.writer_of_run(run_hash, damaged.writer)) is not None
        )

    def _mentioning(self, run_hash: str) -> list[tuple[SegmentView, SegmentRun]]:
        """What the segments say of a run, in their order."""
        views = (self._view_of.get(segment) for segment in self._by_run.of(run_hash))
        found = [(view, run) for view in views if view is not None and (run := view.run(run_hash)) is not None]
        return sorted(found, key=lambda entry: (entry[0].segment.writer, entry[0].segment.number)) if len(found) > 1 else found

    def _touching(self, run_hash: str) -> list[tuple[SegmentView, SegmentRun]]:
        """As `_mentioning`, but for what was written by those that opened the run before it was deleted."""
        found = []
        for segment, mentioned in self._mentioning(run_hash):
            run = mentioned.opened_after(self.tombstones.of_run(run_hash))
            if run is not None and run.offset < segment.limit:
                found.append((segment, run))
        return found

    def unmerged_runs(self) -> dict[str, int]:
        """hash → creation (µs) of the runs that the journals mention, but for those in the trash."""
        return {run_hash: created for run_hash, created in self.mentioned_runs().items() if not self.is_trashed(run_hash)}

    def hidden_runs(self) -> set[str]:
        """Those that lie in the trash, while the indexes of the tree may still have them."""
        return {run_hash for run_hash in self.mentioned_runs() if self.is_trashed(run_hash)}

    def mentioned_runs(self) -> dict[str, int]:
        """hash → creation (µs) of the runs that the journals mention, those in the trash too. The view's own."""
        if self._mentioned is None:
            named = dict.fromkeys(run_hash for segment in self.segments for run_hash in segment.run_hashes())
            runs: dict[str, int] = {}
            for run_hash in named:
                if is_hidden(run_hash) or not (touching := self._touching(run_hash)):
                    continue
                if any(run.moves_trash for _, run in touching):
                    self._moving_trash.add(run_hash)
                runs[run_hash] = min(run.opens[0][1] for _, run in touching)
            self._mentioned = runs
        return self._mentioned

    def _tree_run(self, run_hash: str) -> dict[str, int] | None:
        value = self.tree.get(keys.run(run_hash))
        return None if value is None else decode_run(value)


def load_params(tree: Tree, run_hash: str, path: keys.Path, into: params.ParamTree | None = None) -> ParamTree:
    """What the tree holds of a run's params at and under a path, with the leaves and covers above it."""
    loaded = params.ParamTree() if into is None else into
    for depth in range(len(path)):
        above = tree.get(keys.param(run_hash, path[:depth]))
        if above is not None:
            loaded.load_leaf(path[:depth], *params.decode_entry(above))
        cover = tree.get(keys.cover(run_hash, path[:depth]))
        if cover is not None:
            loaded.load_cover(path[:depth], params.decode_cover(cover))
    for key, data in tree.scan(keys.params_under(run_hash, path)):
        loaded.load_leaf(unpack(key, 1)[1:], *params.decode_entry(data))
    for key, data in tree.scan(keys.covers_under(run_hash, path)):
        loaded.load_cover(unpack(key, 1)[1:], params.decode_cover(data))
    return loaded


class _Handle:
    """An open tree and the views that use it."""

    def __init__(self, tree: TreeReader, signature: tuple[int, ...], place: int) -> None:
        self.tree = tree
        self.signature = signature
        self.place = place  # the inode of its directory
        self.retired = False
        self._views: weakref.WeakSet[View] = weakref.WeakSet()

    def add(self, view: View) -> None:
        self._views.add(view)
        weakref.finalize(view, self.close_if_unused).atexit = False

    def is_used(self) -> bool:
        return next(iter(self._views), None) is not None

    def close_if_unused(self) -> None:
        if self.retired and not self.is_used():
            self.tree.close()


class Reader:
    """Makes views of a repo. Any number of threads may use one."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._reset()
        _readers.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._nested: Reader | None = None
        self._handle: _Handle | None = None
        self._segments: dict[tuple[int, int], Segment] = {}
        self._by_run = SegmentsByRun()
        self._merged: dict[int, tuple[int, list[int]]] = {}
        self._listed: tuple[tuple[int, int], list[tuple[int, int]]] | None = None
        self._last: View | None = None

    def read(self, task: Callable[[View], T]) -> T:
        """What `task` makes of a view; once more with a new view when a compaction took a file from under it."""
        try:
            return task(self.view())
        except TreeMoved:
            return task(self.view())

    def view(self) -> View:
        """What is on disk now. Raises CorruptionError, OSError."""
        if is_mine(self._lock):  # this thread was interrupted in here, by a signal's handler or a finalizer, and left things half done
            nested = self._nested = self._nested or Reader(self.layout)
            return nested.view()
        with self._lock:
            try:
                for attempt in range(_TRIES):
                    view = self._try_view(attempt)
                    if view is not None:
                        return view
                    time.sleep(0.001 * min(attempt, 50))
            except BaseException:  # it may come from a handler, and leave a segment half taken in
                self._segments, self._listed = {}, None
                self._retire()
                raise
            finally:
                self._nested = None
        raise CorruptionError("a journal that was listed is neither there nor merged, again and again", self.layout.journals)

    def view_without_tree(self) -> View:
        """The journals alone, merged ones too: for looking at a repo whose tree cannot be read."""
        segments = [Segment(self.layout.journal(*name), *name) for name in self.layout.list_journals()]
        return View(self.layout, EmptyTree(), [SegmentView(segment, segment.end, segment.held) for segment in segments])

    def after_fork(self) -> None:
        """In the child: begins anew; the tree's own hook gave up the parent's handle."""
        self._reset()

    def __del__(self) -> None:
        self._retire()

    def _try_view(self, attempt: int) -> View | None:
        names = self._list_journals()  # before the tree: a segment merged in between is found in one of the two
        moved = self._refresh_tree()
        tree: Tree = EmptyTree() if self._handle is None else self._handle.tree
        try:
            waiting = [name for name in names if not self._is_merged(tree, *name)]
            for gone in self._segments.keys() - set(waiting):
                del self._segments[gone]
                self._by_run = SegmentsByRun()  # older views go on with theirs
            segments = [self._segment(*name) for name in waiting]
            if not self._note_rotations(segments, tree) and attempt < 5:
                return None
        except FileNotFoundError:
            return None  # merged since it was listed
        except TreeMoved:
            self._retire()
            return None
        if self._last is not None and not moved and self._last.segments == segments:
            return self._last
        self._last = view = View(self.layout, tree, segments, self._by_run)
        if self._handle is not None:
            self._handle.add(view)
        return view

    def _list_journals(self) -> list[tuple[int, int]]:
        """As the layout does, or what that gave last when the directory has not changed since. A change within the same tick of the file
        system's clock would not show, so only a list of a directory at rest is kept."""
        try:
            found = os.stat(self.layout.journals)
        except FileNotFoundError:
            return []
        changed = (found.st_mtime_ns, found.st_ino)
        if self._listed is None or self._listed[0] != changed:
            names = self.layout.list_journals()
            if abs(time.time_ns() - found.st_mtime_ns) < _RESTED_NS:
                self._listed = None
                return names
            self._listed = (changed, names)
        return self._listed[1]

    def _segment(self, writer: int, number: int) -> SegmentView:
        """The segment as it is now."""
        segment = self._segments.get((writer, number))
        if segment is None or segment.is_replaced():
            self._by_run = SegmentsByRun() if segment is not None else self._by_run
            segment = self._segments[writer, number] = Segment(self.layout.journal(writer, number), writer, number)
        else:
            segment.refresh()
        return SegmentView(segment, segment.end, segment.held)

    def _note_rotations(self, segments: list[SegmentView], tree: Tree) -> bool:
        """Marks the segments whose writers went on, after the listing, in another: without that one a run would seem to have no writer. It
        is not read, nor is the directory listed again: a writer may rotate faster than that. Returns False when it is neither there nor
        merged."""
        for index, view in enumerate(segments):
            segment = view.segment
            following = (segment.writer, segment.number + 1)
            if segment.rotated and following not in self._segments and not self._is_merged(tree, *following):
                if not self.layout.journal(*following).exists():
                    return False
                segments[index] = replace(view, held=True)
        return True

    def _is_merged(self, tree: Tree, writer: int, segment: int) -> bool:
        if writer not in self._merged:
            data = tree.get(keys.merged(writer))
            self._merged[writer] = (0, []) if data is None else tuple(msgpack.unpackb(data))
        below, others = self._merged[writer]
        return segment < below or segment in others

    def _refresh_tree(self) -> bool:
        """Brings the tree up to the file `generation`; returns whether it moved."""
        signature = self._signature()
        if signature is None:  # nothing was ever merged, or the repo was removed
            moved = self._handle is not None
            if moved:
                self._retire()
            return moved
        if self._handle is not None and self._handle.signature == signature:
            return False
        self._last = None  # it would count as a user of the tree
        self._merged.clear()
        reason = ""
        for attempt in range(20):
            signature = self._signature() or signature
            wanted, listed = wanted_generation(self.layout)
            try:
                place = self._place()
                if self._handle is not None and (self._handle.is_used() or self._handle.place != place or attempt % 4 == 3):
                    self._retire()
                if self._handle is None:
                    self._handle = _Handle(TreeReader(self.layout.tree, listed), signature, place)
                else:
                    self._handle.tree.catch_up(listed)
                reached = tree_generation(self._handle.tree)
            except TreeMoved as error:
                self._retire()
                reason = f": {error}"
                time.sleep(0.001 * attempt)
                continue
            except CorruptionError:
                self._retire()
                if attempt == 19 or (self._signature() == signature and not self._is_merging()):
                    raise
                time.sleep(0.001 * attempt)  # the tree may have been replaced between the reading of two files
                continue
            except OSError:
                self._retire()  # who knows what a tree shows that caught up with a half
                raise
            if reached >= wanted:
                self._handle.signature = signature
                return True
            time.sleep(0.001 * attempt)
        self._retire()
        raise CorruptionError(
            f"the tree cannot be brought to generation {wanted}, which the file `generation` names{reason}", self.layout.tree
        )

    def _place(self) -> int:
        """The inode of the tree, which is another one after a repair."""
        try:
            return os.stat(self.layout.tree).st_ino
        except FileNotFoundError:
            raise TreeMoved(f"{self.layout.tree} is missing") from None

    def _is_merging(self) -> bool:
        try:
            return is_lease_taken(self.layout.lease)
        except OSError:  # where there are no locks, or the lease is somebody else's, nobody can tell
            return False

    def _signature(self) -> tuple[int, ...] | None:
        """What changes whenever the tree does; None when there is none."""
        for path in (
            self.layout.generation,
            self.layout.tree,
        ):  # the first merge was killed before it wrote `generation`, or that was removed
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            return found.st_mtime_ns, found.st_ino, found.st_size
        return None

    def _retire(self) -> None:
        handle, self._handle, self._last = self._handle, None, None
        self._merged.clear()
        if handle is not None:
            handle.retired = True
            handle.close_if_unused()


class FrozenReader:
    """Shows a repo as it was when this was made. Once more with a new view when a compaction took a file from under it."""

    def __init__(self, reader: Reader | FrozenReader) -> None:
        self._reader = reader
        self._view = reader.view()

    def read(self, task: Callable[[View], T]) -> T:
        try:
            return task(self._view)
        except TreeMoved:
            self._view = self._reader.view()
            return task(self._view)

    def view(self) -> View:
        return self._view


_readers: weakref.WeakSet[Reader] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[str, Reader] = weakref.WeakValueDictionary()


def reader_for(layout: Layout) -> Reader:
    """The one reader of this process on a repo; it closes when its last user has gone."""
    return _shared.setdefault(os.path.realpath(layout.base), Reader(layout))


def _after_fork_in_child() -> None:
    for reader in list(_readers):
        reader.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
