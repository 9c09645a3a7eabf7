"""Taking runs from an archive into the tree, each wholly or not at all. Runs in the merge helper, under the lease.

Blocks and objects are committed as they come, under a mark that the run is being imported; nothing refers to them, so no reader sees
them. The last commit puts all that does, and takes the mark away. Who next has the lease removes what bears a mark.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack

from aimlite._ext.keys import pack
from aimlite.errors import ArchiveError, CorruptionError, RunExistsError
from aimlite.storage import generation, keys, params
from aimlite.storage.archive_file import ArchivedRun, ArchiveReader
from aimlite.storage.blobs import BLOB_BYTES, NEW, blob_path, sha256, verify_blob
from aimlite.storage.files import sync_directory
from aimlite.storage.layout import Layout
from aimlite.storage.locks import lease
from aimlite.storage.merge import BatchBuilder, encode_run, writing_tree
from aimlite.storage.objects import decode_items, encode_items
from aimlite.storage.points import Summary, decode_block, summarize
from aimlite.storage.recovery import complete_marked
from aimlite.storage.runs import TRASHED, WriterEntry, check_hash, decode_writer_entry
from aimlite.storage.sweep import view_of_holder
from aimlite.storage.tree import TreeWriter, tree_generation

_COMMIT_BYTES = 32 << 20
_STEP = 1 << 63
_UNDECODABLE = (ValueError, TypeError, LookupError, OverflowError, AttributeError, msgpack.UnpackException)


def import_archive(layout: Layout, path: Path, skip_existing: bool) -> list[str]:
    """The hashes of the runs that were taken. Raises ArchiveError, RunExistsError (none is taken then, unless skip_existing), OSError,
    CorruptionError of the repo."""
    with ArchiveReader(path) as archive, lease(layout.lease, wait=True), writing_tree(layout) as tree:
        wanted = _absent(layout, tree, archive, skip_existing)
        archive.demand_room(layout.base)
        try:
            for run in wanted:
                _RunImport(layout, tree, archive, run).perform()
        except ArchiveError:
            complete_marked(layout, tree)
            raise
        return [run.hash for run in wanted]


def _absent(layout: Layout, tree: TreeWriter, archive: ArchiveReader, skip_existing: bool) -> list[ArchivedRun]:
    view = view_of_holder(layout, tree)
    wanted = []
    for run in archive.runs:
        try:
            check_hash(run.hash)
        except (TypeError, ValueError) as error:
            raise ArchiveError(f"{archive.path}: {error}") from None
        if not view.holds_run(run.hash):
            wanted.append(run)
        elif not skip_existing:
            where = " in the trash" if view.is_trashed(run.hash) else ""
            raise RunExistsError(f"there is a run {run.hash!r} in {layout.base} already{where}; it is not written over")
    return wanted


class _RunImport:
    def __init__(self, layout: Layout, tree: TreeWriter, archive: ArchiveReader, run: ArchivedRun) -> None:
        self._layout = layout
        self._tree = tree
        self._archive = archive
        self._hash = run.hash
        self._run = run
        self._early: dict[bytes, bytes | None] = {}
        self._size = 0
        self._late = BatchBuilder(tree, [], layout.blobs)
        self._writers: list[WriterEntry] = []
        self._properties: dict[str, Any] = {}
        self._leaves: list[tuple[keys.Path, Any]] = []
        self._digests: set[bytes] = set()
        self._blobs: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._created = self._order = 0
        self._sequence: tuple[keys.Name, dict[str, Any], int] | None = None
        self._summary: Summary | None = None
        self._stamps: dict[tuple[int, int], int] = {}
        self._ended = False

    def perform(self) -> None:
        self._early[keys.importing(self._hash)] = b""
        self._commit_early()
        for kind, *fields in self._archive.entries(self._run):
            take = getattr(self, f"_take_{kind}", None) if isinstance(kind, str) and kind.isalpha() else None
            if take is None or self._ended:
                raise self._bad(f"an entry {kind!r:.50} that has no place there")
            try:
                take(*fields)
            except ArchiveError:
                raise
            except _UNDECODABLE as error:
                raise self._bad(f"an entry {kind!r} that does not decode ({type(error).__name__}: {error})") from None
            if self._size >= _COMMIT_BYTES:
                self._commit_early()
        self._commit_early()
        self._finish()

    def _bad(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._archive.path}: run {self._hash} has {what}")

    def _put_early(self, key: bytes, value: bytes) -> None:
        self._early[key] = value
        self._size += len(key) + len(value)

    def _commit_early(self) -> None:
        self._commit(self._early)
        self._early, self._size = {}, 0

    def _commit(self, writes: dict[bytes, bytes | None]) -> None:
        if writes:
            writes[keys.generation()] = msgpack.packb(tree_generation(self._tree) + 1)
            self._tree.commit(writes)
            generation.write_generation(self._layout, self._tree)

    # -- entries ----

    def _take_run(self, run_hash: str, created: int, order: int) -> None:
        if run_hash != self._hash or self._created or not 0 < created < _STEP or not 0 < order < _STEP:
            raise self._bad("a beginning that is another's")
        self._created, self._order = created, order

    def _take_writer(self, writer: int, data: bytes) -> None:
        entry = decode_writer_entry(data)
        self._writers.append(entry)
        self._late.writes[keys.writer_of_run(self._hash, writer)] = entry.encode()

    def _take_property(self, name: str, order: int, writer: int, packed: bytes) -> None:
        value = params.unpackb(packed)
        if not isinstance(name, str):
            raise self._bad("a property without a name")
        if name == TRASHED:
            value = None
        self._properties[name] = value
        self._late.writes[keys.property_of_run(self._hash, name)] = params.packb([order, writer, value])

    def _take_param(self, path: list[Any], order: int, writer: int, packed: bytes) -> None:
        value, place = params.unpackb(packed), _path(path)
        self._leaves.append((place, value))
        self._blobs.update(params.blob_digests(value))
        self._late.writes[keys.param(self._hash, place)] = params.packb([order, writer, value])

    def _take_cover(self, path: list[Any], order: int, writer: int) -> None:
        self._late.writes[keys.cover(self._hash, _path(path))] = params.packb([int(order), int(writer)])

    def _take_sequence(self, name: Any, context: dict[str, Any], flags: int) -> None:
        self._end_sequence()
        if not isinstance(name, str):
            kind, plain = name
            if not (isinstance(kind, str) and isinstance(plain, str)):
                raise self._bad("a sequence without a name")
            name = (kind, plain)
        if not isinstance(context, dict) or not name or keys.of_run(self._hash, name, context) in self._late.writes:
            raise self._bad("a sequence twice, or without a name")
        pack((context,))
        self._sequence = name, context, int(flags)

    def _take_block(self, values: bytes, times: bytes) -> None:
        if self._sequence is None:
            raise self._bad("points of no sequence")
        name, context, flags = self._sequence
        points = decode_block(values, times, flags)
        head = summarize(points)
        if self._summary is not None and head.first_step <= self._summary.last_step:
            raise self._bad(f"points of {name!r} that are not in order")
        self._summary = head if self._summary is None else self._summary.followed_by(head)
        for space, data in ((keys.HEAD, head.encode()), (keys.VALUES, values), (keys.TIMES, times)):
            self._put_early(keys.block(space, self._hash, name, context, head.first_step), data)
        if not isinstance(name, str):
            counts = points["value"].astype("<i8").tolist()
            self._stamps.update(zip(zip(points["order"].tolist(), points["writer"].tolist(), strict=True), counts, strict=True))

    def _take_content(self, digest: bytes, content: bytes) -> None:
        if sha256(content) != digest:
            raise self._bad("a content that is not what was stored")
        self._contents.add(digest)
        if len(content) < BLOB_BYTES:
            self._put_early(keys.content(digest), content)
        else:
            self._store_blob(digest, content)

    def _take_object(self, order: int, writer: int, packed: bytes) -> None:
        if self._sequence is None or isinstance(self._sequence[0], str):
            raise self._bad("objects of no sequence of objects")
        name, context, _ = self._sequence
        items = decode_items(packed)
        if self._stamps.pop((order, writer), None) != len(items):
            raise self._bad(f"objects of {name[1]!r} that belong to no point")
        for item in items:
            if isinstance(item.content, params.Blob):
                digest = item.content.digest
                self._digests.add(digest)
                if digest not in self._contents:
                    if item.size < BLOB_BYTES:
                        raise self._bad("an object without its content")
                    self._blobs.add(digest)
        self._put_early(keys.object_at(self._hash, name, context, order, writer), encode_items(items))

    def _take_end(self) -> None:
        self._end_sequence()
        self._ended = True

    def _end_sequence(self) -> None:
        if self._sequence is None:
            return
        name, context, _ = self._sequence
        if self._summary is None or self._stamps:
            raise self._bad(f"a sequence {name!r} without points or objects")
        self._late.writes[keys.of_run(self._hash, name, context)] = b""
        self._late.writes[keys.sequence(name, context, self._hash)] = self._summary.encode()
        self._sequence = self._summary = None

    # -- the end ----

    def _finish(self) -> None:
        if not self._ended or not self._writers or not self._created:
            raise self._bad("no end, or no beginning")
        for digest in self._blobs:
            self._store_blob(digest, None)
        late = self._late
        late.writes[keys.run(self._hash)] = encode_run(self._created, self._order, False)
        late.index_properties(self._hash, self._properties, self._created, self._order, self._writers)
        for path, value in self._leaves:
            late.index_param(path, value, self._hash, False)
        for digest in self._digests:
            late.writes[keys.reference(digest, self._hash)] = b""
        count = self._tree.get(keys.run_count())
        late.writes[keys.run_count()] = msgpack.packb((0 if count is None else msgpack.unpackb(count)) + 1)
        late.writes[keys.importing(self._hash)] = None
        self._commit(late.writes)

    def _store_blob(self, digest: bytes, content: bytes | None) -> None:
        """Puts a blob in place, from the archive where its content is not given."""
        blobs, path = self._layout.blobs, blob_path(self._layout.blobs, digest)
        try:
            verify_blob(path, digest)
            return
        except (FileNotFoundError, CorruptionError):
            pass  # it is stored below
        new = blobs / NEW
        new.mkdir(exist_ok=True)
        part = new / f"{os.getpid()}.{os.urandom(8).hex()}"
        try:
            with open(part, "xb") as target:
                if content is None:
                    self._archive.copy_blob(digest, target)
                else:
                    target.write(content)
                target.flush()
                os.fsync(target.fileno())
            path.parent.mkdir(exist_ok=True)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        for folder in (path.parent, blobs):
            sync_directory(folder)


def _path(path: list[Any]) -> keys.Path:
    if not isinstance(path, list) or not all(isinstance(key, str | int) and not isinstance(key, bool) for key in path):
        raise ValueError(f"{path!r:.100} is no path of a param")
    return tuple(path)
