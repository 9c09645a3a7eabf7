"""Mending a damaged repo: every intact record and block is kept, damaged files are set aside, what is derived is built anew.

Runs in the merge helper, under the lease. Nothing is changed in place: the mended file or tree is made beside the damaged one and takes
its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from aimlite._ext import journal as ext
from aimlite._ext.blocks import decode_values, encode_times
from aimlite._ext.keys import unpack
from aimlite.errors import AimliteError, CorruptionError
from aimlite.storage import generation, keys, params
from aimlite.storage.blobs import BLOB_BYTES, blob_digest, give_up_blob, list_blobs, sha256, verify_blob
from aimlite.storage.check import check_files, check_tree, missing_blobs
from aimlite.storage.files import write_file
from aimlite.storage.layout import Layout
from aimlite.storage.locks import is_path_held, lease
from aimlite.storage.merge import BatchBuilder
from aimlite.storage.objects import decode_items
from aimlite.storage.params import Blob
from aimlite.storage.points import Points, concatenate, decode_block, resolve
from aimlite.storage.runs import TRASHED, WriterEntry, decode_run, decode_writer_entry, encode_run, is_hidden
from aimlite.storage.salvage import named_runs, readable_entries
from aimlite.storage.segments import Segment
from aimlite.storage.tree import (
    EmptyTree,
    Tree,
    TreeReader,
    TreeWriter,
    ended_if_it_spins,
    rebuild_manifest,
    tree_generation,
)

_COMMIT_BYTES = 32 << 20


def repair(layout: Layout) -> list[str]:
    """What was done, a line each; nothing for a sound repo. Raises OSError, CorruptionError when the tree is beyond RocksDB's own
    repair."""
    with lease(layout.lease, wait=True):
        done = [line for name in layout.list_journals() for line in _repair_journal(layout, *name)]
        if check_files(layout) or (layout.tree.exists() and check_tree(layout, full=True)):
            done += _rebuild_tree(layout)
        done += _repair_blobs(layout)
    return done


def _set_aside(layout: Layout, path: Path) -> Path:
    layout.damaged.mkdir(exist_ok=True)
    target = layout.damaged / f"{path.name}-{time.time_ns()}"
    os.rename(path, target)
    return target


def _repair_journal(layout: Layout, writer: int, number: int) -> Iterator[str]:
    path = layout.journal(writer, number)
    segment = Segment(path, writer, number)
    segment.inspect()
    if not segment.damage:
        return
    if is_path_held(path):
        yield f"{path.name}: damaged, but its writer is alive; repair again when it has ended"
        return
    mended = ext.salvage(path.read_bytes(), writer, number, {offset for offset, length, _ in segment.damage if length})
    lost = sum(length for _, length, _ in segment.damage)
    layout.damaged.mkdir(exist_ok=True)
    aside = layout.damaged / f"{path.name}-{time.time_ns()}"
    os.link(path, aside)
    write_file(path, mended)
    yield f"{path.name}: {lost} damaged bytes left out, the rest kept; the damaged file is {aside}"


def _repair_blobs(layout: Layout) -> Iterator[str]:
    """Nothing is left to rebuild a damaged blob from: it is set aside, and what is missing given up, for the params in the tree and in
    journals alike."""
    for path in list(list_blobs(layout.blobs)):
        if not _is_intact(path, path):
            aside = _set_aside(layout, path)
            if _is_intact(aside, path):  # a writer put it right just now
                os.rename(aside, path)
                continue
            yield f"blob {path.parent.name}{path.name}: damaged and cannot be rebuilt, set aside as {aside}"
    for digest, run_hash, what in missing_blobs(layout):
        if give_up_blob(layout.blobs, digest):
            yield f"{what} of run {run_hash}: lost with blob {digest.hex()}; until it is stored again it is not there"


def _is_intact(path: Path, name: Path) -> bool:
    """Whether the file at `path` holds what the blob's path `name` says."""
    try:
        verify_blob(path, blob_digest(name))
    except (CorruptionError, ValueError):
        return False
    return True


# -- the tree ----------------------------------------------------------------------------------------------------------------


def _rebuild_tree(layout: Layout) -> Iterator[str]:
    """A new tree from every entry that can be read of the old one."""
    scratch = layout.base / "tree.salvage"
    new = layout.base / "tree.mended"
    for path in (scratch, new):
        shutil.rmtree(path, ignore_errors=True)
    source, notes = _open_salvage(layout, scratch)
    yield from notes
    rebuilt = TreeWriter(new)
    try:
        losses = _Rebuild(source, rebuilt).run()
        wanted = 0
        with contextlib.suppress(CorruptionError, FileNotFoundError):
            wanted = generation.read_generation(layout)[0]
        reached = max(wanted, tree_generation(source) if not losses else wanted) + 1
        rebuilt.commit({keys.generation(): msgpack.packb(reached)})
        names = rebuilt.files()
    finally:
        rebuilt.close()
        if isinstance(source, TreeReader):
            source.close()
    files = generation.list_files(new, names)  # before the trees are exchanged: it takes time
    if layout.tree.exists():
        yield f"tree: rebuilt from what could be read, the damaged one is {_set_aside(layout, layout.tree)}"
    os.rename(new, layout.tree)
    write_file(layout.generation, generation.encode_generation(reached, files))
    shutil.rmtree(scratch, ignore_errors=True)
    yield from losses


def _open_salvage(layout: Layout, scratch: Path) -> tuple[Tree, list[str]]:
    """The damaged tree as far as it opens. Where its MANIFEST is damaged or does not lead to the newest generation: links to its SSTs with
    a MANIFEST of RocksDB's own repair, which leaves out every file that has a bad block."""
    wanted, live = 0, None
    with contextlib.suppress(CorruptionError, FileNotFoundError):
        wanted, live = generation.read_generation(layout)
    opened = _open_as_is(layout, wanted)
    if opened is not None:
        return opened, []
    files = sorted(layout.tree.glob("*.sst"))
    notes = [f"tree: {name} is missing" for name in live or () if not (layout.tree / name).exists()]
    files = [path for path in files if live and path.name in live] or files
    if not files:
        return EmptyTree(), notes
    scratch.mkdir()
    for path in files:
        os.symlink(path, scratch / path.name)  # who may read a file need not be allowed to link it
    rebuild_manifest(scratch)
    with ended_if_it_spins():
        return TreeReader(scratch), notes


def _open_as_is(layout: Layout, wanted: int) -> TreeReader | None:
    try:
        with ended_if_it_spins():
            tree = TreeReader(layout.tree, generation.listed_manifest(layout))
    except AimliteError:
        return None
    try:
        if tree_generation(tree) >= wanted:
            return tree
    except CorruptionError:
        return tree  # it opened; the block that holds the generation is one of the bad ones
    tree.close()
    return None


class _Rebuild:
    """Copies what is primary, derives the rest."""

    def __init__(self, source: Tree, target: TreeWriter) -> None:
        self._source = source
        self._target = target
        self._losses: list[str] = []
        self._trashed: set[str] = set()
        self._writes: dict[bytes, bytes | None] = {}
        self._size = 0

    def run(self) -> list[str]:
        for space in (keys.META, keys.RUN, keys.WRITER, keys.PROPERTY, keys.PARAM, keys.COVER):
            for key, value in self._entries(space):
                self._put(key, value)
        self._commit()
        runs = self._complete_runs()
        self._rebuild_objects()
        self._rebuild_blocks(runs)
        self._put(keys.run_count(), msgpack.packb(sum(not is_hidden(run_hash) for run_hash in runs - self._trashed)))
        self._commit()
        return self._losses

    def _entries(self, space: bytes) -> Iterator[tuple[bytes, bytes]]:
        for entry in readable_entries(self._source, space):
            if entry is None:
                self._losses.append(f"tree: some entries of space {space.hex()} could not be read and are lost")
            else:
                yield entry

    def _put(self, key: bytes, value: bytes) -> None:
        self._writes[key] = value
        self._size += len(key) + len(value)
        if self._size >= _COMMIT_BYTES:
            self._commit()

    def _commit(self) -> None:
        self._target.commit(self._writes)
        self._writes, self._size = {}, 0

    def _complete_runs(self) -> set[str]:
        """Gives every run that something is left of its run and writer entries, and the indexes."""
        runs = named_runs(self._target, keys.RUN, keys.WRITER, keys.PROPERTY, keys.PARAM)
        runs |= named_runs(self._source, keys.OF_RUN, keys.VALUES, keys.OBJECT)
        for run_hash in sorted(runs):
            if self._complete_run(run_hash):
                self._trashed.add(run_hash)
        self._commit()
        return runs

    def _complete_run(self, run_hash: str) -> bool:
        """Returns whether the run is in the trash."""
        entries = [decode_writer_entry(data) for _, data in self._target.scan(keys.writers_of_run(run_hash))]
        data = self._target.get(keys.run(run_hash))
        held = {"created": 0, "order": 0} if data is None else decode_run(data)
        if not entries:
            entries = [WriterEntry(held["created"], held["order"], held["order"])]
            self._put(keys.writer_of_run(run_hash, 0), entries[0].encode())
        created = held["created"] or min(entry.opened for entry in entries)
        order = max(held["order"], *(entry.last for entry in entries))
        trashed = self._target.get(keys.property_of_run(run_hash, TRASHED))
        is_trashed = trashed is not None and params.decode_entry(trashed)[1] is not None
        self._put(keys.run(run_hash), encode_run(created, order, is_trashed))
        builder = BatchBuilder(self._target)
        builder.index_run(run_hash, created, order, entries)
        for key, value in builder.writes.items():
            self._put(key, value or b"")
        return is_trashed

    def _rebuild_objects(self) -> None:
        """The objects all of whose contents are left, and references to these. Their points are put only where they are."""
        for key, content in self._entries(keys.CONTENT):
            if sha256(content) == unpack(key, 1)[0]:
                self._put(key, content)
        self._commit()
        named: set[bytes] = set()
        for key, data in self._entries(keys.OBJECT):
            run_hash, name, *_ = unpack(key, 1)
            held = [item.content for item in decode_items(data) if isinstance(item.content, Blob)]
            if any(blob.size < BLOB_BYTES and self._target.get(keys.content(blob.digest)) is None for blob in held):
                self._losses.append(f"tree: an object of {name[1]!r} of run {run_hash} is lost")
                continue
            self._put(key, data)
            for blob in held:
                named.add(blob.digest)
                self._put(keys.reference(blob.digest, run_hash), b"")
        self._commit()
        for chunk in self._target.scan_keys(keys.prefix_range(keys.CONTENT)):
            self._writes.update({key: None for key in chunk if unpack(key, 1)[0] not in named})
        self._commit()

    def _rebuild_blocks(self, runs: set[str]) -> None:
        times = {unpacked: data for key, data in self._entries(keys.TIMES) if (unpacked := key[1:])}
        sequence: tuple[Any, ...] | None = None
        parts: list[Points] = []
        for key, values in self._entries(keys.VALUES):
            run_hash, name, context, _ = unpack(key, 1)
            if sequence != (run_hash, name, context):
                self._put_sequence(sequence, parts)
                sequence, parts = (run_hash, name, context), []
            time_columns = times.pop(key[1:], None)
            try:
                parts.append(decode_block(values, time_columns or _unknown_times(values), 2))
            except CorruptionError as error:
                self._losses.append(f"tree: a block of {name!r} of run {run_hash} is lost: {error.message}")
                continue
            if time_columns is None:
                self._losses.append(f"tree: times and epochs of {len(parts[-1])} points of {name!r} of run {run_hash} are lost")
        self._put_sequence(sequence, parts)
        if times:
            self._losses.append(f"tree: the values of {len(times)} blocks are lost")

    def _put_sequence(self, sequence: tuple[Any, ...] | None, parts: list[Points]) -> None:
        if sequence is None or not parts:
            return
        run_hash, name, context = sequence
        points = concatenate(parts)
        if not isinstance(name, str):
            points = self._with_objects(run_hash, name, context, points)
            if not len(points):
                return
        old = self._source_flags(sequence)
        points.flags = old or points.flags
        builder = BatchBuilder(EmptyTree())
        builder.add_points(run_hash, name, context, resolve(points), known=False, is_trashed=run_hash in self._trashed)
        for key, value in builder.writes.items():
            self._put(key, value or b"")

    def _with_objects(self, run_hash: str, name: keys.Name, context: dict[str, Any], points: Points) -> Points:
        """The points whose objects are left."""
        held = {unpack(key, 1)[3:] for key, _ in self._target.scan(keys.objects_of(run_hash, name, context))}
        stamps = zip(points["order"].tolist(), points["writer"].tolist(), strict=True)
        return points.take(np.fromiter((stamp in held for stamp in stamps), bool, len(points)))

    def _source_flags(self, sequence: tuple[Any, ...]) -> int:
        from aimlite.storage.points import FLOATS, INTS, decode_summary

        run_hash, name, context = sequence
        try:
            place = keys.trashed_sequence if run_hash in self._trashed else keys.sequence
            data = self._source.get(place(name, context, run_hash))
            return 0 if data is None else decode_summary(data).flags & (INTS | FLOATS)
        except CorruptionError:
            return 0


def _unknown_times(values: bytes) -> bytes:
    """Time columns for points of which only steps and values are left: time and order 0, every step given."""
    n = decode_values(values)[0]
    return encode_times(np.zeros(n, "<i8"), np.zeros(n, "<u8"), np.zeros(n, "<u8"), np.ones(n, "u1"), np.full(n, np.nan))
