"""Deleting for good: runs and sequences go from the tree at once and from the journals as these are merged, and their space is given back.

Runs in the merge helper, under the lease. One commit removes all keys of a run and sets its tombstone; a reader sees the run as it was, or
gone. What writers that have it open write from then on means nothing, and they are not told.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack

from aimlite._ext.journal import now_us
from aimlite._ext.keys import unpack
from aimlite.storage import generation, keys, params
from aimlite.storage.blobs import blob_digest, blob_path, end_leaving, leaving_path, list_blobs, list_leaving, take_away
from aimlite.storage.layout import Layout
from aimlite.storage.locks import lease
from aimlite.storage.merge import Batch, MergeReport, merge_ended, writing_tree
from aimlite.storage.objects import decode_items
from aimlite.storage.runs import decode_run
from aimlite.storage.segments import Segment, SegmentView
from aimlite.storage.tombstones import encode_tombstone
from aimlite.storage.tree import Tree, TreeWriter, tree_generation
from aimlite.storage.view import View
from aimlite.storage.whole_run import keys_of_run

_SEQUENCE_SPACES = (keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT)
_LARGE_SPACES = (keys.PARAM, keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT)
_BATCH_KEYS = 200_000
_MANY_RUNS = 16
_STALE_S = 86400.0
INCOMING = ".incoming-"  # how the archives begin through which runs are copied, in the directory of the repo that gets them
_DIGEST_BYTES = 32
_NAMED = re.compile(rb"(?=\xc7(.)[\x02\x0c]|\xc8(..)\x0c|\xc9(.{4})\x0c)", re.DOTALL)  # as msgpack has ext types 2 and 12, which name blobs

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
    CorruptionError, OSError (full disk): what was committed until then is deleted."""
    report = DeletionReport()
    with lease(layout.lease, wait=True), writing_tree(layout) as tree:
        before = disk_bytes(layout)
        deletion = _Deletion(layout, tree, report)
        deletion.find_references(set(runs))
        for run_hash in runs:
            deletion.add_run(run_hash)
        for sequence in sequences:
            deletion.add_sequence(*sequence)
        deletion.commit()
        if sequences:
            deletion.drop_references({run_hash for run_hash, *_ in sequences})
        if merging:
            deletion.unnamed.update(named_in_journals(layout))  # in those that go now
            merge_ended(layout, tree, MergeReport())
        deletion.free_blobs()
        for run_hash in runs:
            shutil.rmtree(layout.run_dir(run_hash), ignore_errors=True)
        deletion.compact()
        report.freed_bytes = before - disk_bytes(layout)
    return report


def prune(layout: Layout) -> dict[str, Any]:
    """Removes what nothing needs: references of runs to blobs that they do not name any more, blobs that nobody names, what processes
    killed while they wrote a file have left. Raises as `delete`."""
    report = DeletionReport()
    with lease(layout.lease, wait=True), writing_tree(layout) as tree:
        before = disk_bytes(layout)
        merge_ended(layout, tree, MergeReport())
        for path in layout.base.glob(f"{INCOMING}*"):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()  # who copied runs through it was killed
        deletion = _Deletion(layout, tree, report)
        deletion.drop_references(None)
        deletion.unnamed.update(_digests(layout))
        deletion.free_blobs()
        deletion.compact()
        report.freed_bytes = before - disk_bytes(layout)
    return {name: value for name, value in asdict(report).items() if name not in ("runs", "sequences")}


def _digests(layout: Layout) -> Iterator[bytes]:
    for path in chain(list_blobs(layout.blobs), list_leaving(layout.blobs)):
        with contextlib.suppress(ValueError):  # check() reports what has no blob's name
            yield blob_digest(path)


def disk_bytes(layout: Layout) -> int:
    """What the tree's files, the journals and the blobs take."""
    paths = chain(layout.tree.glob("*.sst"), (layout.journal(*name) for name in layout.list_journals()), list_blobs(layout.blobs))
    size = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its writer has just ended, and left it empty
            size += path.stat().st_size
    return size


class _Deletion:
    def __init__(self, layout: Layout, tree: TreeWriter, report: DeletionReport) -> None:
        self._layout = layout
        self._tree = tree
        self._report = report
        self._view = view_of_holder(layout, tree)
        self._writes: Batch = {}
        self._visible = 0  # how many of the runs deleted since the last commit were not in the trash
        self._emptied: list[keys.Range] = []
        self._whole = 0
        self._references: dict[str, list[bytes]] = {}
        self.unnamed: set[bytes] = set()  # the blobs that may have lost their last reference

    def find_references(self, runs: set[str]) -> None:
        """Looks for those of the runs that are to be deleted."""
        for digest, run_hash in self._all_references():
            if run_hash in runs:
                self._references.setdefault(run_hash, []).append(digest)

    def _all_references(self) -> Iterator[tuple[bytes, str]]:
        for key in chain.from_iterable(self._tree.scan_keys(keys.prefix_range(keys.REFERENCE))):
            digest, run_hash = unpack(key, 1)
            yield digest, run_hash

    def add_run(self, run_hash: str) -> None:
        held = self._tree.get(keys.run(run_hash))
        if held is not None:
            self._visible += "trashed" not in decode_run(held)
            for key in keys_of_run(self._tree, run_hash):
                self._writes[key] = None
            self._emptied += [keys.of_whole_run(space, run_hash) for space in _LARGE_SPACES]
        for digest in self._references.get(run_hash, ()):
            self._drop_reference(digest, run_hash)
        for key, _ in self._tree.scan(keys.tombstones_of_run(run_hash)):
            self._writes[key] = None  # that of the run tells of its sequences, too
        self._writes[keys.tombstone(run_hash)] = encode_tombstone(self._now(run_hash))
        self._report.runs += 1
        self._whole += 1
        self._commit_if_large()

    def add_sequence(self, run_hash: str, name: keys.Name, context: dict[str, Any]) -> None:
        for space in _SEQUENCE_SPACES:
            bounds = keys.of_sequence(space, run_hash, name, context)
            for chunk in self._tree.scan_keys(bounds):
                self._writes.update(dict.fromkeys(chunk))
            self._emptied.append(bounds)
        self._writes[keys.of_run(run_hash, name, context)] = None
        for place in (keys.sequence, keys.trashed_sequence):
            self._writes[place(name, context, run_hash)] = None
        self._writes[keys.sequence_tombstone(run_hash, name, context)] = encode_tombstone(self._now(run_hash))
        self._report.sequences += 1
        self._commit_if_large()

    def _now(self, run_hash: str) -> int:
        """An order after all that is known of a run."""
        return max(now_us(), self._view.newest_order(run_hash) + 1)

    def _commit_if_large(self) -> None:
        if len(self._writes) >= _BATCH_KEYS:
            self.commit()

    def commit(self) -> None:
        if not self._writes:
            return
        if self._visible:
            count = self._tree.get(keys.run_count())
            self._writes[keys.run_count()] = msgpack.packb((0 if count is None else msgpack.unpackb(count)) - self._visible)
        self._writes[keys.generation()] = msgpack.packb(tree_generation(self._tree) + 1)
        self._tree.commit(self._writes)
        generation.write_generation(self._layout, self._tree)
        self._writes, self._visible = {}, 0

    def drop_references(self, runs: set[str] | None) -> None:
        """Removes the references of runs (None: of all) to what they do not name any more."""
        named: dict[str, set[bytes]] = {}
        for digest, run_hash in self._all_references():
            if runs is not None and run_hash not in runs:
                continue
            if run_hash not in named:
                named[run_hash] = named_digests(self._tree, run_hash)
            if digest not in named[run_hash]:
                self._drop_reference(digest, run_hash)
        self.commit()

    def _drop_reference(self, digest: bytes, run_hash: str) -> None:
        self._writes[keys.reference(digest, run_hash)] = None
        self._report.references += 1
        self.unnamed.add(digest)

    def free_blobs(self) -> None:
        """Deletes of the blobs that lost a reference those to which none is left and that no journal names."""
        freed = [digest for digest in self.unnamed if next(self._tree.scan_keys(keys.references_of(digest), limit=1), None) is None]
        away = [path for digest in freed if take_away(path := blob_path(self._layout.blobs, digest))]
        named = named_in_journals(self._layout)  # after they are away: who names one later looks whether it is there
        for path in away:
            self._report.blobs += end_leaving(path, keep=blob_digest(path) in named) > 0
        for digest in self.unnamed.difference(freed):  # somebody was killed while deleting it
            if leaving_path(path := blob_path(self._layout.blobs, digest)).exists():
                end_leaving(path, keep=True)
        for digest in freed:
            if digest not in named and self._tree.get(keys.content(digest)) is not None:
                self._writes[keys.content(digest)] = None
        if self._writes:
            self._emptied.append(keys.prefix_range(keys.CONTENT))
        self.commit()

    def compact(self) -> None:
        if not self._emptied:
            return
        ranges = [keys.prefix_range(space) for space in _LARGE_SPACES] if self._whole > _MANY_RUNS else self._emptied
        with self._tree.keeping_files():
            self._tree.compact_ranges(ranges)
            generation.write_generation(self._layout, self._tree)


def view_of_holder(layout: Layout, tree: Tree) -> View:
    """What the holder of the lease sees."""
    segments = []
    for name in layout.list_journals():
        segment = Segment(layout.journal(*name), *name)
        segments.append(SegmentView(segment, segment.end, segment.held))
    return View(layout, tree, segments)


def named_digests(tree: Tree, run_hash: str) -> set[bytes]:
    """The SHA-256 of all contents that what the tree has of a run names."""
    leaves = (params.decode_entry(data)[1] for _, data in tree.scan(keys.params_under(run_hash, ())))
    items = (item.content for _, data in tree.scan(keys.of_whole_run(keys.OBJECT, run_hash)) for item in decode_items(data))
    return {digest for held in chain(leaves, items) for digest in params.blob_digests(held)}


def named_in_journals(layout: Layout) -> set[bytes]:
    """The SHA-256 of all blobs that journals may name."""
    found: set[bytes] = set()
    for name in layout.list_journals():
        with contextlib.suppress(FileNotFoundError):
            found.update(_named_in(layout.journal(*name)))
    return found


def _named_in(path: Path) -> Iterable[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.fstat(fd).st_size:
            return ()
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
            return [digest for match in _NAMED.finditer(data) for digest in _digests_at(data, match)]
    finally:
        os.close(fd)


def _digests_at(data: mmap.mmap, match: re.Match[bytes]) -> Iterable[bytes]:
    """What seems to be named at a place; chance may make it up, which keeps nothing but a blob."""
    size = next(part for part in match.groups() if part is not None)
    begin, length = match.start() + 2 + len(size), int.from_bytes(size, "big")
    if length % _DIGEST_BYTES not in (0, 8) or begin + length > len(data):
        return ()
    return [data[at : at + _DIGEST_BYTES] for at in range(begin, begin + length - 8, _DIGEST_BYTES)]
