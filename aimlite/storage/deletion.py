"""Deleting for good: runs and sequences go from the tree at once and from the journals as these are merged, and their space is given back.

Runs in the merge helper, under the lease. One commit removes all keys of a run and sets its tombstone; a reader sees the run as it was, or
gone. The commit sets a mark, too, which the last one takes away: who was killed in between leaves the rest (contents, blobs, files) to
whoever next has the lease. What writers that have it open write from then on means nothing, and they are not told.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgpack

from aimlite._ext.journal import now_us
from aimlite.storage import generation, keys
from aimlite.storage.blobs import list_blobs
from aimlite.storage.layout import Layout
from aimlite.storage.locks import lease
from aimlite.storage.merge import MergeReport, merge_ended, writing_tree
from aimlite.storage.recovery import remove_directories
from aimlite.storage.runs import decode_run
from aimlite.storage.sweep import Sweep, named_in_journals, view_of_holder
from aimlite.storage.tombstones import encode_tombstone
from aimlite.storage.tree import TreeWriter
from aimlite.storage.whole_run import keys_of_run

_SEQUENCE_SPACES = (keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT)
_LARGE_SPACES = (keys.PARAM, keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT)
_MANY_RUNS = 16

Sequence = tuple[str, keys.Name, dict[str, Any]]  # run, name, context


@dataclass
class DeletionReport:
    """What a deletion did. freed_bytes: how much smaller tree, journals and blobs became."""

    runs: int = 0
    sequences: int = 0
    blobs: int = 0
    references: int = 0
    freed_bytes: int = 0


def delete(layout: Layout, runs: list[str], sequences: list[Sequence], merging: bool = True) -> DeletionReport:
    """Deletes runs, and sequences of others. merging: also moves ended journals into the tree, which leaves out what was deleted. Raises
    CorruptionError, OSError (full disk): what was committed until then is deleted, and who next has the lease does the rest."""
    with lease(layout.lease, wait=True), writing_tree(layout) as tree:
        before, sweep = disk_bytes(layout), Sweep(layout, tree)
        deletion = _Deletion(layout, tree, sweep)
        deletion.find_references(set(runs))
        for run_hash in runs:
            deletion.add_run(run_hash)
        for sequence in sequences:
            deletion.add_sequence(*sequence)
        sweep.commit()
        marked = {*runs, *(run_hash for run_hash, *_ in sequences)}
        sweep.drop_references(marked.difference(runs))
        if merging:
            sweep.unnamed.update(named_in_journals(layout))  # in those that go now
            merge_ended(layout, tree, MergeReport())
        left = {run_hash for run_hash in runs if not remove_directories(layout, run_hash)}
        sweep.unmark([keys.deleting(run_hash) for run_hash in marked - left])
        sweep.free()
        _compact(layout, tree, deletion.emptied(), sweep.freed_contents)
        freed = before - disk_bytes(layout)
    return DeletionReport(len(runs), len(sequences), sweep.blobs, sweep.references, freed)


def prune(layout: Layout) -> dict[str, Any]:
    """Removes what nothing needs: references of runs to blobs that they do not name any more, contents and blobs that nobody names, what
    processes killed while they wrote a file have left. Raises as `delete`."""
    with lease(layout.lease, wait=True), writing_tree(layout) as tree:
        before, sweep = disk_bytes(layout), Sweep(layout, tree)
        merge_ended(layout, tree, MergeReport())
        sweep.drop_references(None)
        sweep.suspect_all()
        sweep.free()
        _compact(layout, tree, [], sweep.freed_contents)
        freed = before - disk_bytes(layout)
    return {"blobs": sweep.blobs, "references": sweep.references, "freed_bytes": freed}


def disk_bytes(layout: Layout) -> int:
    """What the tree's files, the journals and the blobs take."""
    paths = chain(layout.tree.glob("*.sst"), (layout.journal(*name) for name in layout.list_journals()), list_blobs(layout.blobs))
    size = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its writer has just ended, and left it empty
            size += path.stat().st_size
    return size


class _Deletion:
    def __init__(self, layout: Layout, tree: TreeWriter, sweep: Sweep) -> None:
        self._tree = tree
        self._sweep = sweep
        self._view = view_of_holder(layout, tree)
        self._emptied: list[keys.Range] = []
        self._whole = 0
        self._references: dict[str, list[bytes]] = {}

    def find_references(self, runs: set[str]) -> None:
        """Looks for those of the runs that are to be deleted."""
        for digest, run_hash in self._sweep.all_references():
            if run_hash in runs:
                self._references.setdefault(run_hash, []).append(digest)

    def add_run(self, run_hash: str) -> None:
        writes = self._sweep.writes
        held = self._tree.get(keys.run(run_hash))
        if held is not None:
            if "trashed" not in decode_run(held):
                count = writes.get(keys.run_count()) or self._tree.get(keys.run_count())
                writes[keys.run_count()] = msgpack.packb((0 if count is None else msgpack.unpackb(count)) - 1)
            for key in keys_of_run(self._tree, run_hash):
                writes[key] = None
            self._emptied += [keys.of_whole_run(space, run_hash) for space in _LARGE_SPACES]
        for digest in self._references.get(run_hash, ()):
            self._sweep.drop_reference(digest, run_hash)
        for key, _ in self._tree.scan(keys.tombstones_of_run(run_hash)):
            writes[key] = None  # that of the run tells of its sequences, too
        writes[keys.tombstone(run_hash)] = encode_tombstone(self._now(run_hash))
        writes[keys.deleting(run_hash)] = b""
        self._whole += 1
        self._sweep.commit_if_large()

    def add_sequence(self, run_hash: str, name: keys.Name, context: dict[str, Any]) -> None:
        writes = self._sweep.writes
        for space in _SEQUENCE_SPACES:
            bounds = keys.of_sequence(space, run_hash, name, context)
            for chunk in self._tree.scan_keys(bounds):
                writes.update(dict.fromkeys(chunk))
            self._emptied.append(bounds)
        writes[keys.of_run(run_hash, name, context)] = None
        for place in (keys.sequence, keys.trashed_sequence):
            writes[place(name, context, run_hash)] = None
        writes[keys.sequence_tombstone(run_hash, name, context)] = encode_tombstone(self._now(run_hash))
        writes[keys.deleting(run_hash)] = b""
        self._sweep.commit_if_large()

    def _now(self, run_hash: str) -> int:
        """An order after all that is known of a run."""
        return max(now_us(), self._view.newest_order(run_hash) + 1)

    def emptied(self) -> list[keys.Range]:
        """The ranges of keys from which much went."""
        return [keys.prefix_range(space) for space in _LARGE_SPACES] if self._whole > _MANY_RUNS else self._emptied


def _compact(layout: Layout, tree: TreeWriter, ranges: list[keys.Range], freed_contents: bool) -> None:
    ranges = [*ranges, *([keys.prefix_range(keys.CONTENT)] if freed_contents else [])]
    if not ranges:
        return
    with tree.keeping_files():
        tree.compact_ranges(ranges)
        generation.write_generation(layout, tree)
