"""Moving ended segments into the tree, atomically.

One commit holds points as blocks, summaries, params, properties, indexes, the ids of the segments and the new generation; `generation` is
renamed into place after it and the journals go last. Killed at any point, the next merge finds either the journals or their ids. Merging
twice changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from aimlite._ext.keys import unpack
from aimlite.errors import CorruptionError
from aimlite.storage import generation, keys, params
from aimlite.storage.blobs import BLOB_BYTES, get_blob
from aimlite.storage.layout import Layout
from aimlite.storage.locks import is_path_held, lease
from aimlite.storage.media import finish, is_finished
from aimlite.storage.objects import Item, ObjectRecord, encode_items, read_content, stored_item
from aimlite.storage.points import (
    BLOCK_POINTS,
    Points,
    Summary,
    concatenate,
    decode_block,
    decode_summary,
    encode_block,
    resolve,
    split_blocks,
    summarize,
)
from aimlite.storage.recovery import complete_marked, demand_tree, recover_files
from aimlite.storage.runs import (
    TRASHED,
    WriterEntry,
    decode_run,
    decode_writer_entry,
    derive_state,
    encode_run,
    index_properties,
    is_hidden,
)
from aimlite.storage.segments import Segment, SegmentRun, SegmentView
from aimlite.storage.tombstones import run_tombstone, sequence_tombstones, written_after
from aimlite.storage.tree import Tree, TreeMoved, TreeReader, TreeWriter, ended_if_it_spins, tree_generation
from aimlite.storage.view import load_params

_BATCH_BYTES = 48 << 20
_REWRITE_BLOCKS = 64

Batch = dict[bytes, bytes | None]
Touching = list[tuple[SegmentView, SegmentRun]]
Sequence = tuple[str, keys.Name, dict[str, Any]]  # run, name, context


@dataclass
class MergeReport:
    """What a merge did. damaged: paths of segments left alone because a part of them is damaged; busy: another process holds the lease."""

    segments: int = 0
    bytes: int = 0
    points: int = 0
    commits: int = 0
    compacted: bool = False
    busy: bool = False
    damaged: list[str] = field(default_factory=list)


def merge(layout: Layout, wait: bool) -> MergeReport:
    """Merges all ended segments, under the lease. Raises CorruptionError (the tree is damaged), OSError (full disk); the journals then
    stay as they are."""
    report = MergeReport()
    with lease(layout.lease, wait) as got:
        if not got:
            report.busy = True
            return report
        if not layout.list_journals() and not any(path.exists() for path in (layout.tree, layout.mended, layout.generation)):
            recover_files(layout)
            return report
        with writing_tree(layout) as tree:
            merge_ended(layout, tree, report)
            _compact(layout, tree, report)
    return report


def merge_ended(layout: Layout, tree: TreeWriter, report: MergeReport) -> None:
    """Merges all segments that have ended by now. The caller has the lease."""
    live: set[tuple[int, int]] = set()
    known = frozenset(layout.list_journals())  # not those that come later: beside busy writers it would not end
    while _merge_batch(layout, tree, report, live, known):
        _compact(layout, tree, report)


@contextlib.contextmanager
def writing_tree(layout: Layout) -> Iterator[TreeWriter]:
    """The tree, opened for writing by the holder of the lease, with `generation` in place and without what those before it left undone."""
    recover_files(layout)
    demand_tree(layout)
    _catch_up_generation(layout)
    tree = TreeWriter(layout.tree, generation.listed_manifest(layout))
    try:
        generation.write_generation(layout, tree)
        complete_marked(layout, tree)
        yield tree
    finally:
        tree.close()


def _catch_up_generation(layout: Layout) -> None:
    """Before the tree is opened for writing, which removes the files that it does not know: a merger killed after its commit or compaction
    may have left an old `generation`; and a damaged MANIFEST may open as an old tree, whose newer files must not go. Raises
    CorruptionError."""
    if layout.tree.exists():
        try:
            with ended_if_it_spins():
                tree = TreeReader(layout.tree, generation.listed_manifest(layout))
        except TreeMoved as error:
            raise CorruptionError(f"the tree cannot be read: {error}", layout.tree) from None
        try:
            generation.write_generation(layout, tree)
        finally:
            tree.close()


def _compact(layout: Layout, tree: TreeWriter, report: MergeReport) -> None:
    with tree.keeping_files():
        if tree.compact():
            generation.write_generation(layout, tree)
            report.compacted = True


def _merge_batch(
    layout: Layout, tree: TreeWriter, report: MergeReport, live: set[tuple[int, int]], known: frozenset[tuple[int, int]]
) -> bool:
    """One commit; returns whether anything was merged. live: the segments that were found held. known: those that may be merged."""
    chosen: list[Segment] = []
    size = 0
    for name in layout.list_journals():
        path = layout.journal(*name)
        if is_merged(tree, *name):
            path.unlink(missing_ok=True)
            continue
        if name not in known or size >= _BATCH_BYTES or (name in live and is_path_held(path)):
            continue
        try:
            segment = Segment(path, *name)
        except FileNotFoundError:
            continue  # somebody removed it
        if segment.held:
            live.add(name)
        if not segment.complete:
            continue
        segment.inspect()
        if not segment.damage:
            chosen.append(segment)
            size += segment.end
        elif str(path) not in report.damaged:
            report.damaged.append(str(path))
    if not chosen:
        return False
    batch = BatchBuilder(tree, layout.blobs)
    for run_hash in dict.fromkeys(run_hash for segment in chosen for run_hash in segment.runs):
        deleted = run_tombstone(tree, run_hash)
        found = [(s, run) for s in chosen if run_hash in s.runs and (run := s.runs[run_hash].opened_after(deleted))]
        if found:
            batch.add_run(run_hash, [(SegmentView(s, s.end, False), run) for s, run in found])
    batch.add_merged(chosen)
    tree.commit(batch.writes)
    generation.write_generation(layout, tree)
    for segment in chosen:
        segment.path.unlink(missing_ok=True)
    report.segments += len(chosen)
    report.bytes += size
    report.points += batch.points
    report.commits += 1
    return True


def is_merged(tree: Tree, writer: int, segment: int) -> bool:
    """Whether the tree holds what a segment held."""
    data = tree.get(keys.merged(writer))
    if data is None:
        return False
    below, others = msgpack.unpackb(data)
    return segment < below or segment in others


class BatchBuilder:
    """Collects what one commit writes. blobs: where contents go that are too large for the tree."""

    def __init__(self, tree: Tree, blobs: Path = Path()) -> None:
        self.writes: Batch = {}
        self.points = 0
        self._blobs = blobs
        self._taken: list[Points] = []  # of the sequence put last: what was there and what came
        self._put: list[Points] = []  # and what is there now of it
        self._tree = tree
        self._new_runs = 0

    def add_merged(self, segments: Iterable[Segment]) -> None:
        """Records the ids, the count of runs and the next generation."""
        for segment in segments:
            key = keys.merged(segment.writer)
            data = self.writes.get(key) or self._tree.get(key)
            below, others = (0, []) if data is None else msgpack.unpackb(data)
            numbers = {*others, segment.number}
            while below in numbers:
                numbers.remove(below)
                below += 1
            self.writes[key] = msgpack.packb([below, sorted(numbers)])
        if self._new_runs:
            count = self._tree.get(keys.run_count())
            self.writes[keys.run_count()] = msgpack.packb((0 if count is None else msgpack.unpackb(count)) + self._new_runs)
        self.writes[keys.generation()] = msgpack.packb(tree_generation(self._tree) + 1)

    def add_run(self, run_hash: str, touching: Touching) -> None:
        """All that the chosen segments say of a run."""
        known = self._tree.get(keys.run(run_hash))
        held = None if known is None else decode_run(known)
        was_trashed = held is not None and "trashed" in held
        is_trashed = self._add_state(run_hash, touching, held)
        if not is_hidden(run_hash):
            self._new_runs += (not is_trashed) - (held is not None and not was_trashed)
        if held is not None and is_trashed != was_trashed:
            self._move_trash(run_hash, is_trashed)
        self._add_params(run_hash, touching, known is not None, is_trashed)
        deleted = sequence_tombstones(self._tree, run_hash)
        sequences: dict[bytes, list[Points]] = {}
        named: dict[bytes, tuple[keys.Name, dict[str, Any]]] = {}
        for segment, run in touching:
            for packed, record in segment.sequences(run).items():
                named[packed] = (record.name, record.context)
                sequences.setdefault(packed, []).append(segment.points(run, packed))
        for packed, parts in sequences.items():
            name, context = named[packed]
            fresh = resolve(written_after(concatenate(parts), deleted.get(packed, 0)))
            if not len(fresh):
                continue
            self.add_points(run_hash, name, context, fresh, known is not None, is_trashed, was_trashed)
            if not isinstance(name, str):
                self._add_objects((run_hash, name, context), [(segment, segment.objects(run, packed)) for segment, run in touching])

    def _move_trash(self, run_hash: str, into: bool) -> None:
        """Takes what the tree says of a run out of the indexes, or puts it back."""
        for key, _ in self._tree.scan(keys.sequences_of_run(run_hash)):
            _, name, context = unpack(key, 1)
            shown, hidden = keys.sequence(name, context, run_hash), keys.trashed_sequence(name, context, run_hash)
            summary = self._tree.get(shown if into else hidden)
            if summary is None:
                raise CorruptionError(f"the summary of {name!r} of run {run_hash} is missing")
            self.writes[shown], self.writes[hidden] = (None, summary) if into else (summary, None)
        for key, data in self._tree.scan(keys.params_under(run_hash, ())):
            _, value = params.decode_entry(data)
            if not isinstance(value, params.Blobs):
                indexed, content = params.index_entry(value)
                self.writes[keys.param_index(unpack(key, 1)[1:], indexed, run_hash)] = None if into else content

    def _add_state(self, run_hash: str, touching: Touching, known: dict[str, int] | None) -> bool:
        """Returns whether the run is in the trash now."""
        entries: dict[int, WriterEntry] = {}
        properties: dict[str, tuple[params.Stamp, Any]] = {}
        old_index: list[tuple[str, Any]] = []
        created = newest = 0
        if known is not None:
            created, newest = known["created"], known["order"]
            entries = {unpack(key, 1)[1]: decode_writer_entry(data) for key, data in self._tree.scan(keys.writers_of_run(run_hash))}
            for key, data in self._tree.scan(keys.properties_of_run(run_hash)):
                properties[unpack(key, 1)[1]] = params.decode_entry(data)
            old_index = index_properties(_values(properties), derive_state(created, newest, entries.values()))
        for segment, run in touching:
            later = segment.writer_entry(run)
            earlier = entries.get(segment.segment.writer)
            entry = later if earlier is None else earlier.followed_by(later)
            entries[segment.segment.writer] = entry
            self.writes[keys.writer_of_run(run_hash, segment.segment.writer)] = entry.encode()
            created = min(created or entry.opened, entry.opened)
            newest = max(newest, later.last)
        writes = [write for segment, run in touching for write in segment.property_writes(run)]
        for stamp, _, name, value in sorted(writes, key=lambda write: write[:2]):
            if name not in properties or properties[name][0] <= stamp:
                properties[name] = (stamp, value)
                self.writes[keys.property_of_run(run_hash, name)] = params.packb([*stamp, value])
        is_trashed = _values(properties).get(TRASHED) is not None
        self.writes[keys.run(run_hash)] = encode_run(created, newest, is_trashed)
        new_index = index_properties(_values(properties), derive_state(created, newest, entries.values()))
        self._move_index(run_hash, old_index, new_index)
        return is_trashed

    def index_run(self, run_hash: str, created: int, order: int, entries: list[WriterEntry]) -> None:
        """Index entries of all that the tree holds of a run's properties and params."""
        properties = {unpack(key, 1)[1]: params.decode_entry(data)[1] for key, data in self._tree.scan(keys.properties_of_run(run_hash))}
        self.index_properties(run_hash, properties, created, order, entries)
        is_trashed = properties.get(TRASHED) is not None
        for key, data in self._tree.scan(keys.params_under(run_hash, ())):
            self.index_param(unpack(key, 1)[1:], params.decode_entry(data)[1], run_hash, is_trashed)

    def index_properties(self, run_hash: str, properties: dict[str, Any], created: int, order: int, entries: list[WriterEntry]) -> None:
        """The index entries of the properties of a run that had none."""
        self._move_index(run_hash, [], index_properties(properties, derive_state(created, order, entries)))

    def _move_index(self, run_hash: str, old: list[tuple[str, Any]], new: list[tuple[str, Any]]) -> None:
        if is_hidden(run_hash):
            return
        for values, entry in ((old, None), (new, b"")):
            for name, value in values:
                with contextlib.suppress(LookupError):
                    self.writes[keys.indexed_property(name, value, run_hash)] = entry

    def _add_params(self, run_hash: str, touching: Touching, known: bool, is_trashed: bool) -> None:
        operations = [operation for segment, run in touching for operation in segment.param_operations(run)]
        if not operations:
            return
        held = params.ParamTree()
        if known:
            tops = {path[:1] for _, _, _, path, _ in operations}
            for top in [()] if () in tops else sorted(tops, key=str):
                load_params(self._tree, run_hash, top, held)
        old_leaves, old_covers = held.leaves(), held.all_covers()
        for stamp, _, kind, path, fresh in sorted(operations, key=lambda operation: operation[:2]):
            held.apply(stamp, kind, path, fresh)
        leaves, covers = held.leaves(), held.covers()
        for path, leaf in old_leaves.items():
            if leaves.get(path) is not leaf:  # told apart by identity: arrays and NaN are not equal to themselves
                self.writes[keys.param(run_hash, path)] = None
                self.writes[keys.param_index(path, params.index_entry(leaf[1])[0], run_hash)] = None
        for path, leaf in leaves.items():
            if old_leaves.get(path) is not leaf:
                stamp, value = leaf
                self.writes[keys.param(run_hash, path)] = params.packb([*stamp, value])
                self.index_param(path, value, run_hash, is_trashed)
        for path in old_covers.keys() - covers.keys():
            self.writes[keys.cover(run_hash, path)] = None
        for path, stamp in covers.items():
            if old_covers.get(path) != stamp:
                self.writes[keys.cover(run_hash, path)] = params.packb([*stamp])

    def index_param(self, path: keys.Path, value: Any, run_hash: str, is_trashed: bool) -> None:
        """The index entry of a param, where its run has one (what only names blobs has none), and that its run names the blobs it needs."""
        if not is_trashed and not isinstance(value, params.Blobs):
            indexed, content = params.index_entry(value)
            self.writes[keys.param_index(path, indexed, run_hash)] = content
        for digest in params.blob_digests(value):
            self.writes[keys.reference(digest, run_hash)] = b""

    # -- objects ----

    def _add_objects(self, sequence: Sequence, found: list[tuple[SegmentView, list[ObjectRecord]]]) -> None:
        """The objects of the points that were just put, and away with those of points that these replaced."""
        stay = _stamps(self._put)
        for order, writer in _stamps(self._taken) - stay:
            self.writes[keys.object_at(*sequence, order, writer)] = None
        for segment, records in found:
            writer = segment.segment.writer
            for order, group in groupby(records, key=lambda record: record.order):
                if (order, writer) in stay:
                    places = [place for record in group for place in record.places()]
                    items = [self._add_content(segment.segment.path, item, place, sequence[0]) for item, place in places]
                    self.writes[keys.object_at(*sequence, order, writer)] = encode_items(items)

    def _add_content(self, path: Path, item: Item, place: int, run_hash: str) -> Item:
        """The item in its final form, when its content has been put where it is kept."""
        held, beside = item.content, b""
        if isinstance(held, params.Blob) and place:
            beside = read_content(path, place, held)
        if not is_finished(item.header):
            raw = held if isinstance(held, bytes) else beside or self._blob(held)
            if raw is not None:
                header, content = finish(item.header, raw)
                item, beside = stored_item(header, content, self._blobs, len(content) < BLOB_BYTES)
        if isinstance(item.content, params.Blob):
            if beside:
                self.writes[keys.content(item.content.digest)] = beside
            self.writes[keys.reference(item.content.digest, run_hash)] = b""
        return item

    def _blob(self, held: params.Blob) -> bytes | None:
        """The content of a blob; None of one that is damaged or gone, which is no reason not to merge: `check` tells of it."""
        try:
            return get_blob(self._blobs, held.digest)
        except CorruptionError:
            return None

    # -- points ----

    def add_points(
        self,
        run_hash: str,
        name: keys.Name,
        context: dict[str, Any],
        fresh: Points,
        known: bool,
        is_trashed: bool = False,
        was_trashed: bool = False,
    ) -> None:
        """Puts resolved points of one sequence among its blocks."""
        self.points += len(fresh)
        self._taken, self._put = [fresh], []
        sequence = (run_hash, name, context)
        before = keys.trashed_sequence if was_trashed else keys.sequence
        data = self._tree.get(before(name, context, run_hash)) if known else None
        if data is None:
            summary = _combined(self._put_blocks(sequence, split_blocks(fresh)))
            self.writes[keys.of_run(run_hash, name, context)] = b""
        else:
            old = decode_summary(data)
            if int(fresh["step"][0]) > old.last_step:
                summary = self._append(sequence, old, fresh)
            else:
                summary = self._insert(sequence, old, fresh)
        place = keys.trashed_sequence if is_trashed else keys.sequence
        self.writes[place(name, context, run_hash)] = summary.encode()

    def _append(self, sequence: Sequence, old: Summary, fresh: Points) -> Summary:
        """Points after all others. Small blocks at the end are rewritten with them, once they are not much larger than what comes: so a
        slow run's many small pieces are each rewritten a logarithmic number of times."""
        parts, size, removed = [fresh], len(fresh), 0
        for key, data in self._tree.scan(keys.blocks(keys.HEAD, *sequence), reverse=True):
            head = decode_summary(data)
            if head.count >= BLOCK_POINTS or head.count > 2 * size:
                break
            parts.append(self._take_block(sequence, keys.first_step(key), old.flags))
            size += head.count
            removed += 1
        blocks = self._put_blocks(sequence, split_blocks(concatenate(parts[::-1])))
        return replace(old.followed_by(summarize(fresh)), blocks=old.blocks - removed + len(blocks))

    def _insert(self, sequence: Sequence, old: Summary, fresh: Points) -> Summary:
        """Points among others: the blocks they fall into are rewritten."""
        heads = {keys.first_step(key): decode_summary(data) for key, data in self._tree.scan(keys.blocks(keys.HEAD, *sequence))}
        starts = np.fromiter(heads, "<i8", len(heads))
        target = np.clip(np.searchsorted(starts, fresh["step"], "right") - 1, 0, None)
        touched = np.unique(target)
        groups = np.split(touched, np.flatnonzero(np.diff(touched) > 1) + 1)
        for group in groups:
            for piece in np.split(group, range(_REWRITE_BLOCKS, len(group), _REWRITE_BLOCKS)):
                parts = [fresh.take((target >= piece[0]) & (target <= piece[-1]))]
                for block in piece:
                    step = int(starts[block])
                    parts.append(self._take_block(sequence, step, old.flags))
                    del heads[step]
                heads.update({head.first_step: head for head in self._put_blocks(sequence, _even_blocks(resolve(concatenate(parts))))})
        return _combined([heads[step] for step in sorted(heads)])

    def _take_block(self, sequence: Sequence, first_step: int, flags: int) -> Points:
        """A block's points; it is deleted, unless another is put at the same step."""
        found = []
        for space in (keys.VALUES, keys.TIMES):
            key = keys.block(space, *sequence, first_step)
            data = self._tree.get(key)
            if data is None:
                raise CorruptionError(f"a block of {sequence[1]!r} of run {sequence[0]} is missing: its head is there")
            found.append(data)
            self.writes[key] = None
        self.writes[keys.block(keys.HEAD, *sequence, first_step)] = None
        self._taken.append(decode_block(found[0], found[1], flags))
        return self._taken[-1]

    def _put_blocks(self, sequence: Sequence, blocks: list[Points]) -> list[Summary]:
        heads = []
        self._put += blocks
        for block in blocks:
            head = summarize(block)
            values, times = encode_block(block)
            self.writes[keys.block(keys.HEAD, *sequence, head.first_step)] = head.encode()
            self.writes[keys.block(keys.VALUES, *sequence, head.first_step)] = values
            self.writes[keys.block(keys.TIMES, *sequence, head.first_step)] = times
            heads.append(head)
        return heads


def _even_blocks(points: Points) -> list[Points]:
    """Blocks of about equal size, so that insertions do not leave slivers."""
    pieces = -(-len(points) // BLOCK_POINTS)
    blocks, start, step = [], 0, points["step"]
    for piece in range(1, pieces + 1):
        end = len(points) * piece // pieces
        while start < end < len(points) and step[end] == step[end - 1]:
            end += 1
        if end > start:
            blocks.append(points.take(slice(start, end)))
            start = end
    return blocks


def _stamps(points: list[Points]) -> set[tuple[int, int]]:
    return {stamp for part in points for stamp in zip(part["order"].tolist(), part["writer"].tolist(), strict=True)}


def _combined(heads: list[Summary]) -> Summary:
    summary = heads[0]
    for head in heads[1:]:
        summary = summary.followed_by(head)
    return summary


def _values(properties: dict[str, tuple[params.Stamp, Any]]) -> dict[str, Any]:
    return {name: value for name, (_, value) in properties.items()}
