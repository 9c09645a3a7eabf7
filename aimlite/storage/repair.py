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
from aimlite.storage.blobs import (
    BLOB_BYTES,
    blob_digest,
    end_leaving,
    give_up_blob,
    leaving_path,
    list_blobs,
    sha256,
    take_away,
    verify_blob,
)
from aimlite.storage.check import check_files, check_tree, missing_blobs
from aimlite.storage.files import sync_directory, write_file
from aimlite.storage.layout import Layout, version_damage, write_version
from aimlite.storage.locks import is_path_held, lease
from aimlite.storage.merge import BatchBuilder
from aimlite.storage.objects import decode_items
from aimlite.storage.params import Blob
from aimlite.storage.points import FLOATS, INTS, Points, concatenate, decode_block, decode_summary, resolve
from aimlite.storage.recovery import install_mended, recover_files
from aimlite.storage.runs import TRASHED, WriterEntry, decode_run, decode_writer_entry, encode_run, is_hidden
from aimlite.storage.salvage import named_runs, readable_entries
from aimlite.storage.segments import Segment
from aimlite.storage.tombstones import run_tombstone, sequence_tombstones, written_after
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
LOGS, LOG_RECORDS, LOG_EDITS = "logs", "log_records", "edits"  # docs/format.md, "Objects"
_HELD = {
    keys.META: "which runs were deleted, which journals were merged",
    keys.RUN: "when runs were created",
    keys.WRITER: "how and when runs ended",
    keys.PROPERTY: "names, experiments, tags, notes and other properties of runs",
    keys.PARAM: "params",
    keys.COVER: "which params were deleted, should a journal that is not merged yet have older values of them",
    keys.CONTENT: "contents of objects",
    keys.OBJECT: "objects",
    keys.VALUES: "steps and values",
    keys.TIMES: "times and epochs",
}


def repair(layout: Layout) -> list[str]:
    """What was done, a line each; nothing for a sound repo. Raises OSError, CorruptionError when the tree is beyond RocksDB's own
    repair."""
    with lease(layout.lease, wait=True):
        done = []
        if layout.mended.exists() and not layout.tree.exists():
            done.append("tree: an earlier repair that was interrupted is completed; it had set the damaged tree aside")
        recover_files(layout)
        done += _repair_version(layout)
        for path in layout.list_odd_journals():
            done.append(f"{path.name}: this is no file; it was set aside as {_set_aside(layout, path, path.name)}")
        done += [line for name in layout.list_journals() for line in _repair_journal(layout, *name)]
        if check_files(layout) or (layout.tree.exists() and check_tree(layout, full=True)):
            done += _rebuild_tree(layout)
        done += _repair_blobs(layout)
    return done


def _set_aside(layout: Layout, path: Path, name: str) -> Path:
    """Moves a damaged file or directory away."""
    target = _aside(layout, name)
    os.rename(path, target)
    return target


def _aside(layout: Layout, name: str) -> Path:
    layout.damaged.mkdir(exist_ok=True)
    return layout.damaged / f"{name}-{time.time_ns()}"


def _link_aside(layout: Layout, path: Path) -> Path:
    """Keeps a damaged file that is about to be replaced; once, also where an earlier repair was killed before it replaced it."""
    for kept in layout.damaged.glob(f"{path.name}-*"):
        if kept.samefile(path):
            return kept
    target = _aside(layout, path.name)
    os.link(path, target)
    return target


def _repair_version(layout: Layout) -> Iterator[str]:
    damage = version_damage(layout)
    if damage is not None:
        kept = f"; the damaged file is {_link_aside(layout, layout.version)}" if layout.version.exists() else ""
        write_version(layout, durable=True)
        yield f"VERSION: written anew: {damage}{kept}"


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
    aside = _link_aside(layout, path)
    write_file(path, mended)
    yield f"{path.name}: {lost} damaged bytes left out, the rest kept; the damaged file is {aside}"


def _repair_blobs(layout: Layout) -> Iterator[str]:
    """Nothing is left to rebuild a damaged blob from: it is set aside, and what is missing given up, for the params in the tree and in
    journals alike."""
    for path in list(list_blobs(layout.blobs)):
        if not _is_intact(path, path) and take_away(path):  # so that it is put back should this be killed
            if _is_intact(leaving_path(path), path):  # a writer put it right just now
                end_leaving(path, keep=True)
                continue
            aside = _set_aside(layout, leaving_path(path), path.name)
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
    scratch, new = layout.base / "tree.salvage", layout.base / "tree.mending"
    source, sound, notes = _open_salvage(layout, scratch)
    yield from notes
    rebuilt = TreeWriter(new)
    try:
        losses = _Rebuild(source, sound, rebuilt).run()
        wanted = 0
        with contextlib.suppress(CorruptionError, FileNotFoundError):
            wanted = generation.read_generation(layout)[0]
        reached = max(wanted, tree_generation(source) if not losses else wanted) + 1
        rebuilt.commit({keys.generation(): msgpack.packb(reached)})
    finally:
        rebuilt.close()
        for tree in (source, sound):
            if isinstance(tree, TreeReader):
                tree.close()
    os.rename(new, layout.mended)  # complete: should this be killed from here on, who next has the lease goes on
    sync_directory(layout.base)
    if layout.tree.exists():
        yield f"tree: rebuilt from what could be read, the damaged one is {_set_aside(layout, layout.tree, layout.tree.name)}"
    install_mended(layout)
    shutil.rmtree(scratch, ignore_errors=True)
    yield from losses


def _open_salvage(layout: Layout, scratch: Path) -> tuple[Tree, Tree | None, list[str]]:
    """(the damaged tree as far as it opens, a tree of its intact files where some are bad, notes).

    Where its MANIFEST is damaged or does not lead to the newest generation: links to its SSTs with a MANIFEST of RocksDB's own
    repair, which leaves out every file that has a bad block.
    """
    wanted, live = 0, generation.Files()
    with contextlib.suppress(CorruptionError, FileNotFoundError):
        wanted, live = generation.read_generation(layout)
    opened = _open_as_is(layout, wanted)
    if opened is not None:
        names = [name for name in live if not generation.is_manifest(name)]
        intact = [layout.tree / name for name in names if _is_as_listed(layout, name, live[name])]
        are_bad = len(intact) < len(names)
        return opened, _open_files(intact, scratch) if are_bad and intact else None, []
    files = sorted(layout.tree.glob("*.sst"))
    notes = [
        f"tree: {name} is missing; all that it held is lost, which may be whole runs"
        for name in live
        if not generation.is_manifest(name) and not (layout.tree / name).exists()
    ]
    files = [path for path in files if path.name in live] or files
    if not files:
        return EmptyTree(), None, notes
    tree = _open_files(files, scratch)
    left_out = sorted(path.name for path in (scratch / "lost").glob("*.sst"))
    notes += [
        f"tree: {name} has a bad block, or is not what was written; all that it held is lost, which may be whole runs" for name in left_out
    ]
    return tree, None, notes


def _is_as_listed(layout: Layout, name: str, listed: tuple[int, int]) -> bool:
    try:
        return generation.file_checksum(layout.tree / name) == listed
    except FileNotFoundError:
        return False


def _open_files(files: list[Path], scratch: Path) -> TreeReader:
    """A tree of some SSTs, linked into a directory where RocksDB makes a MANIFEST of them."""
    scratch.mkdir()
    for path in files:
        os.symlink(path, scratch / path.name)  # who may read a file need not be allowed to link it
    rebuild_manifest(scratch)
    with ended_if_it_spins():
        return TreeReader(scratch)


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

    def __init__(self, source: Tree, sound: Tree | None, target: TreeWriter) -> None:
        """sound: what of the source lies in intact files."""
        self._source = source
        self._sound = sound
        self._target = target
        self._losses: list[str] = []
        self._trashed: set[str] = set()
        self._trashed_at: dict[str, Any] = {}
        self._importing: set[str] = set()  # what is half there of them is left out, as whoever next has the lease would do
        self._writes: dict[bytes, bytes | None] = {}
        self._size = 0

    def run(self) -> list[str]:
        for key, value in self._entries(keys.META):
            if unpack(key, 1)[0] == "importing":
                self._importing.add(unpack(key, 1)[1])
            else:
                self._put(key, value)
        self._commit()
        for space in (keys.RUN, keys.WRITER, keys.PROPERTY, keys.PARAM, keys.COVER):
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
        for entry in readable_entries(self._source, space, self._sound, self._is_of_no_deleted_run):
            if entry is None:
                kept = "; what intact files have in their place is kept, though it may be older" if self._sound is not None else ""
                self._losses.append(f"tree: some entries of space {space.hex()} could not be read and are lost: {_HELD[space]}{kept}")
            elif not self._importing or unpack(entry[0], 1)[0] not in self._importing:
                yield entry

    def _is_of_no_deleted_run(self, key: bytes) -> bool:
        """Whether what an intact file has is not of a run whose deletion the bad file told."""
        if key[:1] in (keys.META, keys.CONTENT) or self._sound is None:
            return True
        run_hash = unpack(key, 1)[-1 if key[:1] == keys.PROPERTY_INDEX else 0]
        deleted = run_tombstone(self._target, run_hash)
        if not deleted:
            return True
        data = self._sound.get(keys.run(run_hash))
        return data is not None and decode_run(data)["created"] > deleted

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
        left = named_runs(self._source, keys.OF_RUN, keys.VALUES, keys.OBJECT, sound=self._sound) - self._importing
        runs |= {run_hash for run_hash in left if self._is_of_no_deleted_run(keys.run(run_hash))}
        self._find_trashed()
        for run_hash in sorted(runs):
            if self._complete_run(run_hash):
                self._trashed.add(run_hash)
        self._commit()
        return runs

    def _find_trashed(self) -> None:
        entries = (entry for entry in readable_entries(self._source, keys.PROPERTY_INDEX, self._sound) if entry is not None)
        found = (unpack(key, 1) for key, _ in entries)
        self._trashed_at = {run_hash: value for name, value, run_hash in found if name == TRASHED}

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
        if trashed is None and ("trashed" in held if data is not None else run_hash in self._trashed_at):
            trashed = params.packb([order, 0, self._trashed_at.get(run_hash, order)])  # the property is lost
            self._put(keys.property_of_run(run_hash, TRASHED), trashed)
            self._commit()
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
        flags = self._flags_of_blocks()
        sequence: tuple[Any, ...] | None = None
        parts: list[Points] = []
        for key, values in self._entries(keys.VALUES):
            run_hash, name, context, _ = unpack(key, 1)
            if sequence != (run_hash, name, context):
                self._put_sequence(sequence, parts)
                sequence, parts = (run_hash, name, context), []
            time_columns = times.pop(key[1:], None)
            try:
                parts.append(decode_block(values, time_columns or _unknown_times(values), flags.get(key[1:], 0)))
            except CorruptionError as error:
                self._losses.append(f"tree: a block of {name!r} of run {run_hash} is lost: {error.message}")
                continue
            if time_columns is None:
                self._losses.append(f"tree: times and epochs of {len(parts[-1])} points of {name!r} of run {run_hash} are lost")
        self._put_sequence(sequence, parts)
        self._commit()
        if times:
            self._losses.append(f"tree: the values of {len(times)} blocks are lost")
        self._drop_objects_without_points()

    def _flags_of_blocks(self) -> dict[bytes, int]:
        """Key of a block without its space → the flags that its head tells."""
        found = {}
        for entry in readable_entries(self._source, keys.HEAD, self._sound):
            if entry is not None:
                with contextlib.suppress(CorruptionError):
                    found[entry[0][1:]] = decode_summary(entry[1]).flags & (INTS | FLOATS)
        return found

    def _put_sequence(self, sequence: tuple[Any, ...] | None, parts: list[Points]) -> None:
        if sequence is None or not parts:
            return
        run_hash, name, context = sequence
        flags = self._flags(sequence, parts)
        deleted = sequence_tombstones(self._target, run_hash).get(keys.packed_sequence(name, context), 0)
        points = written_after(concatenate(parts), deleted)
        if not len(points):
            return
        if not isinstance(name, str):
            points = self._with_objects(run_hash, name, context, points)
            if not len(points):
                return
        points.flags = flags
        builder = BatchBuilder(EmptyTree())
        builder.add_points(run_hash, name, context, resolve(points), known=False, is_trashed=run_hash in self._trashed)
        for key, value in builder.writes.items():
            self._put(key, value or b"")

    def _flags(self, sequence: tuple[Any, ...], parts: list[Points]) -> int:
        """Whether ints or floats were tracked, lists of objects or single ones: as the summary of the sequence tells, else the heads of its
        blocks, else the values."""
        run_hash, name, context = sequence
        try:
            place = keys.trashed_sequence if run_hash in self._trashed else keys.sequence
            data = self._source.get(place(name, context, run_hash))
            if data is not None:
                return decode_summary(data).flags & (INTS | FLOATS)
        except CorruptionError:
            with contextlib.suppress(CorruptionError):
                data = None if self._sound is None else self._sound.get(place(name, context, run_hash))
                if data is not None:
                    return decode_summary(data).flags & (INTS | FLOATS)
        told = concatenate(parts).flags
        untold = [part["value"] for part in parts if not part.flags]
        if not untold:
            return told
        what = f"of {name!r} {context!r} of run {run_hash}"
        if isinstance(name, str):
            if any(bool(np.any(values != np.floor(values))) or not bool(np.all(np.isfinite(values))) for values in untold):
                told |= FLOATS
            if told != INTS | FLOATS:
                told = told or FLOATS
                taken = "ints" if told == INTS else "floats"
                self._losses.append(f"tree: it is not known any more which values {what} were ints: {taken} is what they are taken for")
        elif any(bool(np.any(values != 1)) for values in untold):
            told = INTS
        elif not told:
            told = INTS if name[0] == LOGS and LOG_EDITS not in context else FLOATS
            if name[0] not in (LOGS, LOG_RECORDS):
                self._losses.append(f"tree: it is not known any more whether objects {what} were in lists: they are taken for single ones")
        return told

    def _with_objects(self, run_hash: str, name: keys.Name, context: dict[str, Any], points: Points) -> Points:
        """The points whose objects are left. Objects whose points are lost go."""
        held = {unpack(key, 1)[3:] for key, _ in self._target.scan(keys.objects_of(run_hash, name, context))}
        stamps = list(zip(points["order"].tolist(), points["writer"].tolist(), strict=True))
        self._drop_objects(run_hash, name, context, held.difference(stamps))
        return points.take(np.fromiter((stamp in held for stamp in stamps), bool, len(points)))

    def _drop_objects_without_points(self) -> None:
        """Of sequences none of whose blocks is left."""
        lost: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for chunk in self._target.scan_keys(keys.prefix_range(keys.OBJECT)):
            for key in chunk:
                run_hash, name, context, *stamp = unpack(key, 1)
                if self._target.get(keys.of_run(run_hash, name, context)) is None:
                    known = lost.setdefault((run_hash, keys.packed_sequence(name, context)), (name, context, set()))
                    known[2].add(tuple(stamp))
        for (run_hash, _), (name, context, stamps) in lost.items():
            self._drop_objects(run_hash, name, context, stamps)
        self._commit()

    def _drop_objects(self, run_hash: str, name: keys.Name, context: dict[str, Any], stamps: set[Any]) -> None:
        if stamps:
            self._losses.append(f"tree: the steps of {len(stamps)} objects of {name[1]!r} of run {run_hash} are lost, and they with them")
            self._writes.update({keys.object_at(run_hash, name, context, *stamp): None for stamp in stamps})


def _unknown_times(values: bytes) -> bytes:
    """Time columns for points of which only steps and values are left: time and order 0, every step given."""
    n = decode_values(values)[0]
    return encode_times(np.zeros(n, "<i8"), np.zeros(n, "<u8"), np.zeros(n, "<u8"), np.ones(n, "u1"), np.full(n, np.nan))
