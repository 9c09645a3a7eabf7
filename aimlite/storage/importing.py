"""Taking runs from an archive into the tree, each wholly or not at all. Runs in the merge helper, under the lease.

Blocks and objects are committed as they come, under a mark that the run is being imported; nothing refers to them, so no reader sees
them. The last commit puts all that does, and takes the mark away. Who next has the lease removes what bears a mark.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack

from aimlite._ext.recorder import canonical_context, sequence_key
from aimlite.errors import ArchiveError, CorruptionError, RunExistsError
from aimlite.storage import generation, keys, params
from aimlite.storage.archive_file import ArchivedRun, ArchiveReader
from aimlite.storage.blobs import BLOB_BYTES, NEW, blob_path, sha256, verify_blob
from aimlite.storage.files import sync_directory
from aimlite.storage.layout import Layout
from aimlite.storage.locks import lease
from aimlite.storage.merge import BatchBuilder, writing_tree
from aimlite.storage.objects import decode_items, encode_items
from aimlite.storage.points import BLOCK_POINTS, FLOATS, INTS, Summary, decode_block, summarize
from aimlite.storage.recovery import complete_marked
from aimlite.storage.runs import MAX_ORDER, TRASHED, WriterEntry, check_hash, check_property, decode_writer_entry, encode_run
from aimlite.storage.sweep import view_of_holder
from aimlite.storage.tree import TreeWriter, tree_generation

_COMMIT_BYTES = 32 << 20
_MAX_WRITER = 1 << 64
_MOST_AT_A_STEP = 65_535  # points of one step: each is of another writer, and a block has no more
_COUNT = slice(4, 8)  # where in the columns of a block the number of points stands
_UNDECODABLE = (ValueError, TypeError, LookupError, OverflowError)  # a CorruptionError is a ValueError


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
        self._late = BatchBuilder(tree, layout.blobs)
        self._writers: list[WriterEntry] = []
        self._properties: dict[str, Any] = {}
        self._params = params.ParamTree()
        self._digests: set[bytes] = set()
        self._blobs: dict[bytes, int] = {}  # SHA-256 → size, of those that lie in the archive as members
        self._contents: dict[bytes, int] = {}  # and of those that it gives as entries
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
        if run_hash != self._hash or self._created or not _number(created, MAX_ORDER) or not _number(order, MAX_ORDER):
            raise self._bad("a beginning that is another's")
        self._created, self._order = created, order

    def _take_writer(self, writer: int, data: bytes) -> None:
        entry = decode_writer_entry(data)
        self._put_once(keys.writer_of_run(self._hash, _stamp(entry.opened, writer)[1]), entry.encode())
        self._writers.append(entry)

    def _take_property(self, name: str, order: int, writer: int, packed: bytes) -> None:
        value = None if name == TRASHED else params.unpackb(packed)
        check_property(name, value)
        self._put_once(keys.property_of_run(self._hash, name), params.packb([*_stamp(order, writer), value]))
        self._properties[name] = value

    def _take_param(self, path: list[Any], order: int, writer: int, packed: bytes) -> None:
        if len(packed) >= BLOB_BYTES:
            raise self._bad(f"a param of {len(packed)} bytes, which would be a blob")
        value, place = params.unpackb(packed), params.checked_path(path)
        params.check_leaf(place, value)
        self._put_once(keys.param(self._hash, place), params.packb([*_stamp(order, writer), value]))
        self._params.load_leaf(place, _stamp(order, writer), None)
        self._late.index_param(place, value, self._hash, False)
        for digest in params.blob_digests(value):
            self._name_blob(digest, value.size if isinstance(value, params.Blob) else None)

    def _take_cover(self, path: list[Any], order: int, writer: int) -> None:
        place = params.checked_path(path)
        self._put_once(keys.cover(self._hash, place), params.packb([*_stamp(order, writer)]))
        self._params.load_cover(place, _stamp(order, writer))

    def _put_once(self, key: bytes, value: bytes) -> None:
        if key in self._late.writes:
            raise self._bad("an entry twice")
        self._late.writes[key] = value

    def _take_sequence(self, name: Any, context: dict[str, Any], flags: int) -> None:
        self._end_sequence()
        kind, plain = (None, name) if isinstance(name, str) else name
        if not (kind is None or (isinstance(kind, str) and kind)) or canonical_context(context) != context:
            raise self._bad("a sequence without a name, or with a context that none has")
        sequence_key(plain, context, kind)
        if not isinstance(flags, int) or flags not in ((INTS, FLOATS, INTS | FLOATS) if kind is None else (INTS, FLOATS)):
            raise self._bad(f"a sequence {plain!r} with the flags {flags!r}")
        held: keys.Name = plain if kind is None else (kind, plain)
        if keys.of_run(self._hash, held, context) in self._late.writes:
            raise self._bad(f"a sequence {plain!r} twice")
        self._sequence = held, context, flags

    def _take_block(self, values: bytes, times: bytes) -> None:
        if self._sequence is None or self._stamps:
            raise self._bad("points of no sequence, or points without objects")
        name, context, flags = self._sequence
        count = int.from_bytes(values[_COUNT], "little")
        if count >= BLOCK_POINTS + _MOST_AT_A_STEP:
            raise self._bad(f"a block of {count} points")
        points = decode_block(values, times, flags)
        if count > BLOCK_POINTS and points["step"][BLOCK_POINTS - 1] != points["step"][-1]:
            raise self._bad(f"a block of {count} points, which are not of one step")
        if int(points["order"].max()) > MAX_ORDER:
            raise self._bad("a point that was written later than any clock shows")
        head = summarize(points)
        if self._summary is not None and head.first_step <= self._summary.last_step:
            raise self._bad(f"points of {name!r} that are not in order")
        self._summary = head if self._summary is None else self._summary.followed_by(head)
        for space, data in ((keys.HEAD, head.encode()), (keys.VALUES, values), (keys.TIMES, times)):
            self._put_early(keys.block(space, self._hash, name, context, head.first_step), data)
        if not isinstance(name, str):
            counts = points["value"].astype("<i8").tolist()
            self._stamps = dict(zip(zip(points["order"].tolist(), points["writer"].tolist(), strict=True), counts, strict=True))
            if len(self._stamps) != len(points):
                raise self._bad(f"two points of {name[1]!r} with the same order and writer")

    def _take_content(self, digest: bytes, content: bytes) -> None:
        if sha256(content) != digest:
            raise self._bad("a content that is not what was stored")
        self._contents[digest] = len(content)
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
                if digest in self._contents:
                    self._demand_size(digest, self._contents[digest], item.size)
                elif item.size < BLOB_BYTES:
                    raise self._bad("an object without its content")
                else:
                    self._name_blob(digest, item.size)
        key = keys.object_at(self._hash, name, context, order, writer)
        if key in self._early or self._tree.get(key) is not None:
            raise self._bad(f"objects of {name[1]!r} twice")
        self._put_early(key, encode_items(items))

    def _name_blob(self, digest: bytes, size: int | None) -> None:
        """size: None where what names it does not tell."""
        known = self._blobs.get(digest, -1)
        if size is not None and known >= 0:
            self._demand_size(digest, known, size)
        self._blobs[digest] = known if size is None else size

    def _demand_size(self, digest: bytes, size: int, told: int) -> None:
        if size != told:
            raise self._bad(f"a content {digest.hex()} of {size} bytes that is said to have {told}")

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
        if not self._params.is_consistent():
            raise self._bad("a param below another one, or one that was deleted later")
        if unnamed := self._contents.keys() - self._digests:
            raise self._bad(f"a content {min(unnamed).hex()} that none of its objects names")
        for digest, size in self._blobs.items():
            self._store_blob(digest, None)
            if size >= 0:
                self._demand_size(digest, blob_path(self._layout.blobs, digest).stat().st_size, size)
        late = self._late
        late.writes[keys.run(self._hash)] = encode_run(self._created, self._order, False)
        late.index_properties(self._hash, self._properties, self._created, self._order, self._writers)
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


def _number(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value <= limit


def _stamp(order: object, writer: object) -> params.Stamp:
    """Raises ValueError for what is not the stamp of an entry."""
    if not _number(order, MAX_ORDER) or not _number(writer, _MAX_WRITER - 1):
        raise ValueError(f"the order {order!r:.50} and the writer {writer!r:.50} are none that a writer has")
    return order, writer  # type: ignore[return-value]
