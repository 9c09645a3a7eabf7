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
import signal
import stat
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
    DBPath,
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
from aimlite.storage.manifest import CURRENT, Listed, Manifest, read_manifest
from aimlite.storage.scratch import scratch_directory

CHUNK = 8192  # entries taken at once
L0_FILES_TO_COMPACT = 12
OPENING_CPU_S = 120.0
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

    RocksDB finds its database in a directory of ours, where rocksdict may write its small file and the MANIFEST is a copy of what was
    verified; the SSTs it reads where they lie. So reading writes nothing to the repo, and RocksDB reads no byte before it was checked.
    """

    def __init__(self, path: Path, listed: Listed | None = None) -> None:
        """listed: what `generation` says of the MANIFEST. Raises TreeMoved, CorruptionError, OSError."""
        manifest = _verified(path, listed)
        options = _options()
        options.set_db_paths([DBPath(str(path), 1 << 62)])
        with scratch_directory() as self._scratch:  # a log and copies that are read by its end: nothing that reading needs later
            self._copies = 0
            self._put(manifest)
            try:
                # Its options are named for the column family too: else rocksdict looks for a file of them.
                place = str(self._scratch)
                db = Rdict(place, options, column_families={"default": options}, access_type=AccessType.secondary(place))
            except Exception as error:
                raise _translated(error, path, beside=self._scratch) from None
        self._manifest = manifest
        super().__init__(db, path)
        _open_readers.add(self)
        note_foreign_threads()  # RocksDB's

    def _put(self, manifest: Manifest) -> None:
        """Lays out a copy under a name of its own, so that RocksDB reads it from its beginning."""
        self._copies += 1
        name = f"MANIFEST-{self._copies:06}"
        try:
            (self._scratch / name).write_bytes(manifest.records)
            (self._scratch / CURRENT).write_text(f"{name}\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or str(self._scratch)) from None

    def catch_up(self, listed: Listed | None = None) -> None:
        """listed: as when it was made. Raises as that."""
        manifest = _verified(self.path, listed)
        if manifest == self._manifest:
            return
        with _scratch_again(self._scratch):
            self._put(manifest)
            try:
                self._db.try_catch_up_with_primary()
            except Exception as error:
                raise _translated(error, self.path, beside=self._scratch) from None
        self._manifest = manifest

    def close(self) -> None:
        if isinstance(self._db, _Abandoned):
            return
        with contextlib.suppress(Exception):  # nothing was written through it, so there is nothing to lose
            self._db.close()

    def abandon(self) -> None:
        """Gives up the handle in a forked child, where closing or freeing it would wait for threads that the child does not have."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        self._db = _Abandoned()


def _verified(path: Path, listed: Listed | None) -> Manifest:
    try:
        return read_manifest(path, listed)
    except FileNotFoundError as error:
        raise TreeMoved(f"{error.filename} is missing") from None


@contextlib.contextmanager
def _scratch_again(scratch: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(scratch_directory(scratch))
        except (FileExistsError, FileNotFoundError):  # somebody took the name, or removed the temporary directory
            raise TreeMoved(f"there is no {scratch} to catch up in") from None
        yield


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


@contextlib.contextmanager
def ended_if_it_spins() -> Iterator[None]:
    """A process that opens a tree within takes so much CPU time for it at most and is then ended by SIGPROF. For those of ours alone, where
    whoever waits for the process is told: it would else keep the lease for as long as RocksDB loops."""
    signal.setitimer(signal.ITIMER_PROF, OPENING_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class TreeWriter(_RocksTree):
    """The read-write instance, for the holder of the lease, in a process of its own."""

    _writes = True
    _stays_open = False

    def __init__(self, path: Path, listed: Listed | None = None) -> None:
        """listed: what `generation` says of the MANIFEST. Raises CorruptionError, OSError."""
        self._mode = _FileMode()
        with ended_if_it_spins():
            if not path.exists():
                _make_tree(path, self._mode)
            try:
                read_manifest(path, listed)
            except FileNotFoundError as error:
                raise CorruptionError("a file of the tree is missing", error.filename) from None
            super().__init__(_open_for_writing(path), path)
        self._mode.give(path)

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
        self._mode.give(self.path)

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
        self._mode.give(self.path)
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
        self._mode.give(self.path)

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
    """RocksDB's own repair: a new MANIFEST from the SST files at `path`, links or a copy. Raises CorruptionError, OSError."""
    try:
        with ended_if_it_spins():
            Rdict.repair(str(path), _options())
    except Exception as error:
        raise _translated(error, path, writing=True) from None


class _FileMode:
    """The mode that the umask leaves to files. RocksDB makes its own no more than 0644: in the repo of a group the others must be able to
    do with them what their owner can."""

    def __init__(self) -> None:
        umask = os.umask(0o077)
        os.umask(umask)
        self._wanted, self._made = 0o666 & ~umask, 0o644 & ~umask

    def give(self, path: Path) -> None:
        """Gives it to the files in a directory that are ours and as RocksDB made them."""
        if self._wanted == self._made:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # RocksDB removes what has become useless
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == self._made and found.st_uid == os.geteuid():
                        os.chmod(entry.path, self._wanted)


def _make_tree(path: Path, mode: _FileMode) -> None:
    new = path.with_name(path.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    tree = _RocksTree(_open_for_writing(new), new)
    tree._db.flush()
    tree._db.close()
    mode.give(new)
    os.rename(new, path)


def _open_for_writing(path: Path) -> Rdict:
    _lay_out(path)
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
        raise _translated(error, path, writing=True) from None


def _lay_out(path: Path) -> None:
    """Removes what RocksDB and rocksdict would read though nothing of ours is in it: all options are given, batches are committed without
    the log. And makes the files that whoever opens a tree must be able to write to, also when a process is killed right after."""
    for name in os.listdir(path):
        if name.startswith("OPTIONS-") or name.endswith(".log"):
            os.unlink(path / name)
    for name in ("LOCK", "rocksdict-config.json"):
        file = path / name
        if file.exists() and not os.access(file, os.W_OK):  # somebody else's; the holder of the lease alone opens the tree
            file.unlink()
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))


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


_OFFSET = re.compile(r" offset (\d+)")
_IO_ERROR = "IO error: "
_OS_ERROR = re.compile(r"\(os error (\d+)\)\s*\Z")  # of rocksdict itself
_SUBCODES = {
    "No space left on device": errno.ENOSPC,
    "Stale file handle": errno.ESTALE,
    "Memory limit reached": errno.ENOMEM,
    "Space limit reached": errno.ENOSPC,
    "No such file or directory": errno.ENOENT,
}


def _translated(error: Exception, path: Path, writing: bool = False, beside: Path | None = None) -> Exception:
    """RocksDB's exceptions, all of which are a bare Exception with the text of a status, as ours. What the system refused is an OSError,
    damage a CorruptionError, all else an AimliteError. writing: nobody else removes files, so one that is missing is damage. beside: the
    directory of a reader, to which alone rocksdict itself writes."""
    if isinstance(error, AimliteError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    if type(error) is not Exception and type(error).__module__ not in ("builtins", "rocksdict"):
        return error  # of a signal's handler that interrupted this
    text = str(error)
    number = _errno_of(text)
    file = _named_in(text, path)
    if number == errno.ENOENT:
        return CorruptionError(f"the tree cannot be read: {text}", file or path) if writing else TreeMoved(text)
    if number is not None:
        return OSError(number, text, file or (_named_in(text, beside) or str(beside) if beside else str(path)))
    if text.startswith("Corruption"):
        offset = _OFFSET.search(text) if file else None
        return CorruptionError(f"the tree cannot be read: {text}", file or path, int(offset[1]) if offset else None)
    return AimliteError(f"the tree at {path}: {text}")


def _named_in(text: str, directory: Path) -> str | None:
    """The file of a directory that a text names."""
    found = re.search(rf"{re.escape(str(directory))}/[\w.-]+", text)
    return found[0] if found else None


def _errno_of(text: str) -> int | None:
    """The number of the error of the operating system that a text tells of; None when it tells of none. RocksDB writes `IO error: `, for
    some of them words of its own, what it did with which file, and last what strerror says, in the language of the process."""
    if of_rocksdict := _OS_ERROR.search(text):
        return int(of_rocksdict[1])
    _, is_there, told = text.partition(_IO_ERROR)
    if not is_there:
        return None
    told = told.rstrip(": \n")
    for number in errno.errorcode:
        if told.endswith(f": {os.strerror(number)}"):
            return number
    return _SUBCODES.get(told.split(": ")[0], errno.EIO)
