"""The ordered key-value store of everything merged: a small protocol, and RocksDB (through rocksdict) behind it.

Only this module knows RocksDB. Iteration goes through the iterator API with its status checked: the convenience iterators end early,
without an error, on a bad block. A reader is a secondary instance: it never locks, and sees what it caught up with. In a process whose
ancestor opened RocksDB, opening it read-write hangs on close and the threads that open files crash at exit; hence `TreeWriter` is used in
the merge helper alone and a reader opens files with one thread.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import re
import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgpack
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from aimlite._ext.journal import note_foreign_threads
from aimlite._ext.keys import take_entries
from aimlite.errors import AimliteError, CorruptionError
from aimlite.storage import keys
from aimlite.storage.scratch import scratch_directory

CHUNK = 8192  # entries taken at once
L0_FILES_TO_COMPACT = 12
_CACHE_BYTES = 32 << 20
_SCHEDULING_S = 5.0
Entry = tuple[bytes, bytes]


class TreeMoved(AimliteError):
    """Raised inside storage when a file of the tree has gone since it was opened: refresh and run the read again."""


class Tree(Protocol):
    """What storage asks of an ordered key-value engine when it reads."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, bounds: keys.Range, reverse: bool = False) -> Iterator[Entry]:
        """Entries with begin ≤ key < end in the order of their keys, or the reverse."""
        ...

    def scan_keys(self, bounds: keys.Range, reverse: bool = False, limit: int = CHUNK) -> Iterator[list[bytes]]:
        """The keys that `scan` gives, in lists of `limit`; the last may be shorter, none is empty."""
        ...

    def scan_chunks(self, bounds: keys.Range) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """(keys, values) of many entries at once."""
        ...

    def levels(self) -> dict[int, tuple[int, int]]:
        """level → (files, bytes) of the levels of a log-structured tree that hold any."""
        ...


class EmptyTree:
    """The tree of a repo into which nothing was merged yet."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, bounds: keys.Range, reverse: bool = False) -> Iterator[Entry]:
        return iter(())

    def scan_keys(self, bounds: keys.Range, reverse: bool = False, limit: int = CHUNK) -> Iterator[list[bytes]]:
        return iter(())

    def scan_chunks(self, bounds: keys.Range) -> Iterator[tuple[list[bytes], list[bytes]]]:
        return iter(())

    def levels(self) -> dict[int, tuple[int, int]]:
        return {}


class _RocksTree:
    _writes = False

    def __init__(self, db: Any, path: Path) -> None:
        self._db = db
        self.path = path

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise _translated(error, self.path, writing=self._writes) from None
        return value

    def scan(self, bounds: keys.Range, reverse: bool = False) -> Iterator[Entry]:
        begin, _ = bounds
        try:
            it, step = self._begun(bounds, reverse)
            while (key := it.key()) is not None:
                if key < begin:  # only backwards: a lower bound set in the read options is not kept to
                    break
                yield key, it.value()
                step()
            it.status()
        except (GeneratorExit, AimliteError):
            raise
        except Exception as error:
            raise _translated(error, self.path, writing=self._writes) from None

    def scan_keys(self, bounds: keys.Range, reverse: bool = False, limit: int = CHUNK) -> Iterator[list[bytes]]:
        return (found for found, _ in self._chunks(bounds, reverse, limit, with_values=False))

    def scan_chunks(self, bounds: keys.Range) -> Iterator[tuple[list[bytes], list[bytes]]]:
        return self._chunks(bounds, False, CHUNK, with_values=True)

    def _chunks(self, bounds: keys.Range, reverse: bool, limit: int, with_values: bool) -> Iterator[tuple[list[bytes], list[bytes]]]:
        try:
            it, step = self._begun(bounds, reverse)
            while True:
                found, values = take_entries(it.key, it.value if with_values else None, step, bounds[0], limit)
                if len(found) < limit:
                    it.status()
                if found:
                    yield found, values
                if len(found) < limit:
                    return
        except (GeneratorExit, AimliteError):
            raise
        except Exception as error:
            raise _translated(error, self.path, writing=self._writes) from None

    def _begun(self, bounds: keys.Range, reverse: bool) -> tuple[Any, Callable[[], None]]:
        begin, end = bounds
        options = ReadOptions()
        if end is not None:
            options.set_iterate_upper_bound(end)
        it = self._db.iter(options)
        if not reverse:
            it.seek(begin)
        elif end is not None:
            it.seek_for_prev(end)
        else:
            it.seek_to_last()
        return it, it.prev if reverse else it.next

    def files(self) -> list[str]:
        """The names of the live SST files."""
        return sorted(entry["name"].lstrip("/") for entry in self._db.live_files())

    def levels(self) -> dict[int, tuple[int, int]]:
        """level → (files, bytes) of the levels that hold any."""
        held: dict[int, tuple[int, int]] = {}
        for entry in self._db.live_files():
            files, size = held.get(entry["level"], (0, 0))
            held[entry["level"]] = files + 1, size + entry["size"]
        return dict(sorted(held.items()))


class TreeReader(_RocksTree):
    """A secondary instance: the tree as of the last `catch_up`.

    rocksdict writes a small file of its own into any database it opens. Where it may not (a read-only medium, somebody else's repo), the
    files are linked into a directory of ours, which stays as it is: catching up then means opening anew.
    """

    def __init__(self, path: Path) -> None:
        self._follows = True
        try:
            with scratch_directory() as scratch:  # a log or links to files that are open by its end: nothing that reading needs later
                try:
                    db = Rdict(str(path), _options(), access_type=AccessType.secondary(str(scratch)))
                except Exception as error:
                    if not isinstance(_translated(error, path, opening=True), PermissionError):
                        raise
                    self._follows = False
                    db = _open_links(path, scratch)
        except Exception as error:
            raise _translated(error, path, opening=True) from None
        super().__init__(db, path)
        _open_readers.add(self)
        note_foreign_threads()  # RocksDB's

    def catch_up(self) -> None:
        if not self._follows:
            raise TreeMoved("a tree opened by links does not follow")
        try:
            self._db.try_catch_up_with_primary()
        except Exception as error:
            raise _translated(error, self.path, opening=True) from None

    def close(self) -> None:
        if isinstance(self._db, _Abandoned):
            return
        with contextlib.suppress(Exception):  # nothing was written through it, so there is nothing to lose
            self._db.close()

    def abandon(self) -> None:
        """Gives up the handle in a forked child, where closing or freeing it would wait for threads that the child does not have."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        self._db = _Abandoned()


def _open_links(path: Path, scratch: Path) -> Rdict:
    links = scratch / "tree"
    links.mkdir()
    for entry in os.scandir(path):
        if entry.name.endswith(".sst") or entry.name.startswith(("CURRENT", "MANIFEST", "OPTIONS", "IDENTITY")):
            os.symlink(entry.path, links / entry.name)
    options = _options()
    options.set_db_log_dir(str(scratch))
    return Rdict(str(links), options, access_type=AccessType.read_only(False))


class _Abandoned:
    """Stands for a database opened before a fork."""

    def __getattr__(self, name: str) -> Any:
        raise AimliteError("this was read before the process forked and cannot be read further in the child: get it from the Repo again")


_open_readers: weakref.WeakSet[TreeReader] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for reader in list(_open_readers):
        reader.abandon()


def _close_readers() -> None:
    for reader in list(_open_readers):
        reader.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_readers)


class TreeWriter(_RocksTree):
    """The read-write instance, for the holder of the lease, in a process of its own."""

    _writes = True
    _stays_open = False

    def __init__(self, path: Path) -> None:
        if not path.exists():
            _make_tree(path)
        super().__init__(_open_for_writing(path), path)

    def commit(self, batch: Mapping[bytes, bytes | None]) -> None:
        """Puts (value) and deletes (None) all keys at once and makes them durable. Raises OSError; then nothing of it is kept once the
        tree is closed."""
        writes = WriteBatch(raw_mode=True)
        for key, value in batch.items():
            if value is None:
                writes.delete(key)
            else:
                writes.put(key, value)
        try:
            self._db.write(writes, _without_wal())
            self._db.flush()
        except Exception as error:
            raise _translated(error, self.path, writing=True) from None

    @contextlib.contextmanager
    def keeping_files(self) -> Iterator[None]:
        """Files that are compacted away within stay on disk until its end. When it ends by an exception they stay further: `generation` may
        still list them. RocksDB removes them when the tree is closed, so it is left open then, until the process ends."""
        pin = self._db.iter(ReadOptions())
        try:
            yield
        except BaseException:
            for kept in (pin, self._db):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
            self._stays_open = True
            raise
        del pin

    def compact(self, at_files: int = L0_FILES_TO_COMPACT, timeout_s: float = 3600.0) -> bool:
        """Lets RocksDB compact what has piled up when level 0 holds `at_files` or more; returns whether it did. None is under way when it
        has returned: its files must not go while they are still listed."""
        if self._property("num-files-at-level0") < at_files:
            return False
        try:
            self._db.set_options({"disable_auto_compactions": "false"})
            deadline = time.monotonic() + timeout_s
            scheduled = time.monotonic() + _SCHEDULING_S  # it is not pending at once
            while time.monotonic() < deadline:
                waiting = self._property("num-files-at-level0") >= at_files and time.monotonic() < scheduled
                if not (waiting or self._property("compaction-pending") or self._property("num-running-compactions")):
                    break
                time.sleep(0.01)
            self._db.set_options({"disable_auto_compactions": "true"})
            while self._property("num-running-compactions"):
                time.sleep(0.01)
        except Exception as error:
            raise _translated(error, self.path, writing=True) from None
        return True

    def compact_ranges(self, ranges: Iterable[keys.Range]) -> None:
        """Rewrites the files that hold keys of these ranges, so that what was deleted takes no space any more."""
        how = CompactOptions()
        how.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        try:
            for begin, end in ranges:
                self._db.compact_range(begin, end, how)
        except Exception as error:
            raise _translated(error, self.path, writing=True) from None

    def _property(self, name: str) -> int:
        return self._db.property_int_value(f"rocksdb.{name}") or 0

    def close(self) -> None:
        if self._stays_open:
            return
        try:
            self._db.close()
        except Exception as error:
            raise _translated(error, self.path, writing=True) from None


def tree_generation(tree: Tree) -> int:
    """The generation a tree is at; 0 when nothing was committed yet."""
    value = tree.get(keys.generation())
    return 0 if value is None else int(msgpack.unpackb(value))


def rebuild_manifest(path: Path) -> None:
    """RocksDB's own repair: a new MANIFEST from the SST files at `path`, a copy. Raises CorruptionError."""
    try:
        Rdict.repair(str(path), _options())
    except Exception as error:
        raise _translated(error, path, opening=True) from None


def _make_tree(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    tree = _RocksTree(_open_for_writing(new), new)
    tree._db.flush()
    tree._db.close()
    os.rename(new, path)


def _open_for_writing(path: Path) -> Rdict:
    options = _options()
    options.create_if_missing(True)
    options.set_write_buffer_size(256 << 20)
    options.set_compression_type(DBCompressionType.zstd())
    options.set_target_file_size_base(256 << 20)
    options.set_target_file_size_multiplier(2)
    options.set_max_bytes_for_level_base(1 << 30)
    options.set_disable_auto_compactions(True)
    options.set_level_zero_slowdown_writes_trigger(1 << 20)
    options.set_level_zero_stop_writes_trigger(1 << 20)
    options.set_max_background_jobs(2)
    try:
        # Named for the column family too: else rocksdict takes its options from the file that the last writer left, with automatic
        # compaction on if that was killed while it compacted.
        return Rdict(str(path), options, column_families={"default": options})
    except Exception as error:
        raise _translated(error, path, opening=True, writing=True) from None


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_block_size(16 << 10)
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_max_open_files(-1)  # bounded, a secondary's gets fail after a compaction
    options.set_max_file_opening_threads(1)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _without_wal() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment,method-assign] # rocksdict's stub has a method where there is a property
    return options


_BAD_FILE = re.compile(r"in (?P<path>/\S+\.sst) offset (?P<offset>\d+)")
_ANY_FILE = re.compile(r"(/\S*?\d{6}\.(?:sst|log)|/\S*?(?:MANIFEST-\d+|CURRENT|OPTIONS-\d+))")


def _translated(error: Exception, path: Path, opening: bool = False, writing: bool = False) -> Exception:
    """RocksDB's exceptions, all of which are a bare Exception with a text, as ours. writing: nobody else removes files, so one that is
    missing is damage."""
    if isinstance(error, OSError | AimliteError):
        return error
    text = str(error)
    bad = _BAD_FILE.search(text)
    named = _ANY_FILE.search(text)
    if "No space left" in text:
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text}", str(path))
    if "File too large" in text:
        return OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: {text}", str(path))
    if "Permission denied" in text or "Read-only file system" in text:
        return PermissionError(errno.EACCES, text, str(path))
    if "No such file" in text and not writing:
        return TreeMoved(text)
    if bad:
        return CorruptionError(text, bad["path"], int(bad["offset"]))
    if "Corruption" in text or "No such file" in text or (opening and "lock" not in text.lower()):
        return CorruptionError(f"the tree cannot be read: {text}", named[1] if named else path)
    return AimliteError(f"the tree at {path}: {text}")
