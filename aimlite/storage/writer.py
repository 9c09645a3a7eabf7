"""The writer of a process on a repo: its journal, the segments it goes through, and the runs it has open.

All open runs of a process share one journal, so descriptors do not grow with runs. A segment is created under a dot name, locked, given
its header, then
renamed: created under its name and then locked, it could be taken for a dead writer's. A forked child starts a journal of its own on first
use.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import errno
import fcntl
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aimlite._ext import journal as ext
from aimlite._ext.recorder import Recorder
from aimlite.storage import ending, heartbeat, helper
from aimlite.storage.files import sync_directory
from aimlite.storage.layout import Layout, journal_name, open_layout
from aimlite.storage.params import packb
from aimlite.storage.runs import ERROR, STATUS_CODES

SEGMENT_BYTES = 8 << 20
SEGMENT_AGE_S = 600.0
_MAX_UNSYNCED = 256
_EXIT_PATIENCE_S = 5.0

_writers: dict[str, Writer] = {}
_writers_lock = threading.RLock()


def writer_for(layout: Layout) -> Writer:
    """The one writer of this process on a repo."""
    key = os.path.realpath(layout.base)
    with _writers_lock:
        writer = _writers.get(key)
        if writer is None:
            writer = _writers[key] = Writer(layout)
        return writer


def end_segment(layout: Layout) -> None:
    """Ends the present segment of this process's writer on a repo, if there is one, so that it can be merged."""
    writer = _writers.get(os.path.realpath(layout.base))
    if writer is not None:
        writer.end_segment()


class Writer:
    """Opens runs for writing, rotates segments, forces them to disk, and ends everything when the process ends."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._lock = threading.RLock()
        self._rotating = False
        self._created = self._names_synced = 0  # segments, and those whose names are on the disk
        self._next_run = 0
        self._open: dict[int, Recorder] = {}
        self._times_open: collections.Counter[int] = collections.Counter()  # by the identity of their counters
        self._known: dict[
            str, tuple[dict[bytes, Any], dict[bytes, Any]]
        ] = {}  # by run hash, of the runs that are open: counters and kinds of sequences
        self._unended: list[tuple[int, Recorder, list[tuple[int, bytes]]]] = []  # ends that could not be written, by which writer
        self._unsynced: list[Path] = []
        self._syncer: _Syncer | None = None
        self._heart: _Heart | None = None
        self._pid = os.getpid()
        self._told_of = 0  # the epoch of the journal of whose removal was told
        self.journal = ext.JournalWriter(self._before_write, self._restart, SEGMENT_BYTES, int(SEGMENT_AGE_S * 1e6))
        self._start()

    def open_run(
        self, run_hash: str, newest_order: int = 0, last_steps: Callable[[str, bytes], int | None] | None = None, power: bool = False
    ) -> Recorder:
        """A recorder for a run, which is then running. newest_order: of what is known of the run; what is written comes after it.
        last_steps: None for a new run."""
        with self._lock:
            if (self.journal.closed and not self.journal.forked) or self._is_orphaned():
                self._warn_of_removal()
                self._start()
            recorder = Recorder(self.journal, self._next_run, run_hash, power)
            recorder.last_steps = last_steps
            self._next_run += 1
            self.journal.raise_order(newest_order)
            recorder.append([])
            self._open[recorder.number] = recorder
            if last_steps is None:  # what has it open here is of one that was deleted
                self._known[run_hash] = recorder.counters, recorder.kinds
            recorder.counters, recorder.kinds = self._known.setdefault(run_hash, (recorder.counters, recorder.kinds))
            self._times_open[id(recorder.counters)] += 1
            if power:
                self._sync_directory()
            return recorder

    def edit_run(self, run_hash: str, newest_order: int, created: int, records: list[tuple[int, bytes]]) -> None:
        """Writes records (their payloads without the run's number) of a run that stays as it is: neither opened nor ended by it. Should the
        run that was created at this order be deleted meanwhile, they mean nothing."""
        with self._lock:
            if (self.journal.closed and not self.journal.forked) or self._is_orphaned():
                self._warn_of_removal()
                self._start()
            recorder = Recorder(self.journal, self._next_run, run_hash, edits_since=max(created, 1))
            self._next_run += 1
            self.journal.raise_order(newest_order)
            number = recorder.number.to_bytes(4, "little")
            recorder.append([(kind, number + payload) for kind, payload in records])

    def end_run(self, recorder: Recorder, status: str, error: ending.Error | None = None) -> None:
        """Writes END, with the error that was the end. The recorder takes no more, also when this raises OSError: then END is written
        before the next write of this process, or at its exit, if that can be done."""
        with self._lock:
            if recorder.closed:
                return
            self._warn_of_removal()
            records = _end_records(recorder, status, error)
            try:
                if self._ends_here(recorder):
                    recorder.append(records)
            except BaseException:
                self._unended.append((self.journal.writer, recorder, records))
                self.journal.is_due(True)
                raise
            finally:
                recorder.closed = True
                self._let_go_of(recorder)

    def _let_go_of(self, recorder: Recorder) -> None:
        if self._open.pop(recorder.number, None) is not None:
            counters = recorder.counters
            self._times_open[id(counters)] -= 1
            if not self._times_open[id(counters)]:
                del self._times_open[id(counters)]
                if self._known.get(recorder.run_hash, (None,))[0] is counters:
                    del self._known[recorder.run_hash]

    def _write_ends(self) -> None:
        """Writes the ends that could not be written. Raises OSError."""
        with self._lock:
            if self._rotating:
                return
            self._rotating = True
            try:
                while self._unended and not self.journal.poisoned:
                    writer, recorder, records = self._unended[0]
                    epoch = self.journal.epoch
                    opening = [] if recorder.is_open_here else [(ext.OPEN, recorder.open_payload(True))]
                    if writer != self.journal.writer or self.journal.append(opening + records, recorder.power, epoch):
                        self._unended.pop(0)
            finally:
                self._rotating = False
                self.journal.is_due(bool(self._unended))

    def _ends_here(self, recorder: Recorder) -> bool:
        """Whether its end is to be written: a forked child ends only what it wrote to, and of a repo that was removed nothing is left."""
        if self._is_orphaned() and not self.layout.journals.is_dir():
            return False
        return not recorder.is_inherited or (recorder.is_open_here and not self.journal.closed)

    def sync(self) -> None:
        """Forces all that was written to the disk. Raises OSError: then a new segment is begun, and what came before may be lost in a
        power failure, or is lost where the message says that the journal was removed. No lock is held meanwhile: others write and fork."""
        with self._lock:
            lost = self._notice_removal()
        self._sync_ended()
        self._sync_directory()
        if lost:
            raise OSError(errno.ENOENT, lost)
        self.journal.sync()
        self._sync_ended()  # what ended just now, before the journal was looked at

    def _sync_ended(self) -> None:
        for path in list(self._unsynced):
            _sync_file(path)
            with self._lock, contextlib.suppress(ValueError):  # another thread was faster
                self._unsynced.remove(path)

    def sync_every(self, interval_s: float) -> None:
        """Forces what was written to the disk at least every `interval_s` seconds from now on."""
        with self._lock:
            if self._syncer is None or self._syncer.pid != os.getpid() or not self._syncer.is_alive():
                self._syncer = _Syncer(self, interval_s)
                _start_thread(self._syncer, "what is recorded is not forced to disk at an interval")
            self._syncer.interval_s = min(self._syncer.interval_s, interval_s)

    def end_segment(self) -> None:
        """Ends the present segment so that it can be merged, if anything is in it."""
        with self._lock:
            if self.journal.closed or self.journal.offset == ext.FILE_HEADER_SIZE:
                return
            if self._open or self._unended:
                self._rotate()
                self._try_ends()
            else:
                self._release(self.journal.detach())

    def close(self, status: str | None = None, error: ending.Error | None = None) -> None:
        """Ends every open run and lets go of the journal. status None: they are finished, unless the process exits with a status other
        than 0."""
        if not self._lock.acquire(timeout=_EXIT_PATIENCE_S):
            raise TimeoutError("another thread has been writing for too long")
        try:
            for thread in (self._syncer, self._heart):
                if thread is not None:
                    thread.stop()
            self._syncer = self._heart = None
            if self.journal.closed:
                return
            left = list(self._open.values())
            here = [recorder for recorder in left if self._ends_here(recorder)]
            failed: Exception | None = None
            for recorder in left:
                try:
                    self.end_run(recorder, status or "finished", error)
                except Exception as problem:
                    failed = problem
            try:
                self._write_ends()
            except Exception as problem:
                failed = problem
            self._unended = []
            if status is not None or not here or not self._leave_last_words(here):
                self._release(self.journal.detach())
            if failed is not None:
                raise failed
        finally:
            self._lock.release()
        if status != "interrupted":  # CPython forgets that a process ends by Ctrl-C when it imports a module that evaluates text
            helper.merge_if_due(self.layout)

    def _leave_last_words(self, ended: list[Recorder]) -> bool:
        failed = [record for recorder in ended for record in _end_records(recorder, "failed", ending.last_error())]
        interrupted = [record for recorder in ended for record in _end_records(recorder, "interrupted", None)]
        with contextlib.suppress(OSError):
            heartbeat.let_go(self.journal.fileno())
        return self.journal.detach_at_exit(failed, interrupted)

    def beat(self) -> None:
        """Touches the journal, so that other hosts see that this process lives."""
        with self._lock:
            self._warn_of_removal()
            if not self.journal.closed:
                os.utime(self.journal.fileno())

    def after_fork(self) -> None:
        """In the child: locks held by threads that the child does not have are replaced; runs open in the parent count as inherited."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._rotating = False
        self._syncer = self._heart = None
        self._unsynced, self._unended = [], []
        for recorder in self._open.values():
            recorder.was_inherited()

    # -- segments ----

    def _is_orphaned(self) -> bool:
        """Whether somebody removed, renamed or replaced the journal's file, or removed the whole repo: what is written there nobody would
        find."""
        if self.journal.closed:
            return False
        try:
            named = os.stat(self.layout.journal(self.journal.writer, self.journal.segment))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it cannot be told
            return False
        return not os.path.samestat(named, os.fstat(self.journal.fileno()))

    def _notice_removal(self) -> str:
        """Has the next write begin another journal when this one was removed; what is to be said of that, once, or ''."""
        journal = self.journal
        if not self._is_orphaned():
            return ""
        journal.give_up()
        if self._told_of == journal.epoch:
            return ""
        self._told_of = journal.epoch
        begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._begun_s))
        path = self.layout.journal(journal.writer, journal.segment)
        return (
            f"the journal {path} was removed, renamed or replaced while this process wrote to it: what was recorded there since {begun} is"
            " lost; recording goes on in a new journal"
        )

    def _warn_of_removal(self) -> None:
        if self._open and (lost := self._notice_removal()):
            warn(lost, stacklevel=3)

    def _start(self) -> None:
        writer, order = int.from_bytes(os.urandom(8), "little"), max(ext.now_us(), self.journal.order + 1)
        if not self.journal.closed:
            self._release(self.journal.detach())
        self.journal.attach(self._create(writer, 0, order), writer, 0, order)
        self._sync_directory_for_power()
        if self._heart is None and heartbeat.is_shared(os.fstat(self.journal.fileno()).st_dev):
            self._heart = _Heart(self)
            _start_thread(self._heart, "other hosts may take the runs of this process for dead")
        helper.merge_if_due(self.layout, names_only=True)

    def _restart(self) -> None:
        """A fork closed the journal: this process goes on as a writer of its own."""
        if self._pid != os.getpid():
            self.after_fork()  # a C library's fork does not pass through Python
        with self._lock:
            if self.journal.closed:
                self._start()

    def _try_ends(self) -> None:
        if self._unended:
            with contextlib.suppress(OSError):  # it is tried again before the next write
                self._write_ends()

    def _before_write(self) -> None:
        """What the journal calls when the segment is full or old, or when ends are still to be written."""
        if self.journal.is_due(bool(self._unended)):
            self._rotate()
        self._try_ends()

    def _rotate(self) -> None:
        with self._lock:
            if self._rotating:
                return
            self._rotating = True
            try:
                journal, segment = self.journal, self.journal.segment + 1
                self._warn_of_removal()
                if journal.poisoned and not self.layout.journals.is_dir():  # the repo was removed, and is made anew
                    open_layout(self.layout.base.parent)
                    self.layout.journals.mkdir(exist_ok=True)
                order = max(ext.now_us(), journal.order + 1)
                left = [*self._open.values(), *(recorder for _, recorder, _ in self._unended)]
                here = [recorder for recorder in left if recorder.is_open_here]
                try:
                    fd = self._create(journal.writer, segment, order)
                except OSError as error:
                    if journal.poisoned:
                        raise
                    journal.postpone_rotation()
                    warn(f"no new journal could be begun, the old one goes on: {error}", stacklevel=2)
                    return
                ended = self.layout.journal(journal.writer, journal.segment)
                old = journal.rotate(fd, segment, order)
                for recorder in here:
                    journal.append([(ext.OPEN, recorder.open_payload(True))])
                    recorder.opened()
                self._sync_directory_for_power()
                if len(self._unsynced) >= _MAX_UNSYNCED:  # nobody syncs: forget what was merged, which is durable
                    self._unsynced = [path for path in self._unsynced if path.exists()]
                self._unsynced.append(ended)
                self._release(old)
            finally:
                self._rotating = False
        helper.merge_if_due(self.layout)

    def _create(self, writer: int, segment: int, order: int) -> int:
        path = self.layout.journal(writer, segment)
        hidden = path.with_name("." + journal_name(writer, segment))
        fd = ext.create(hidden)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OSError(
                    error.errno, f"file locks do not work in {self.layout.journals} ({error.strerror}): a repo cannot be kept there"
                ) from None
            header = ext.encode_file_header(writer, segment, order, os.getpid() & 0xFFFFFFFF)
            if os.write(fd, header) != len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.rename(hidden, path)
        except BaseException:
            ext.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden)
            raise
        self._created += 1
        self._begun_s = time.time()
        return fd

    def _release(self, fd: int) -> None:
        if fd >= 0:
            with contextlib.suppress(OSError):  # then it is found out by its silence
                heartbeat.let_go(fd)
            ext.close(fd)

    def _sync_directory_for_power(self) -> None:
        if any(recorder.power for recorder in self._open.values()):
            self._sync_directory()

    def _sync_directory(self) -> None:
        created = self._created
        if self._names_synced < created:
            _sync_file(self.layout.version)
            for directory in (self.layout.journals, self.layout.base, self.layout.base.parent):
                sync_directory(directory)
            self._names_synced = max(self._names_synced, created)


def _end_records(recorder: Recorder, status: str, error: ending.Error | None) -> list[tuple[int, bytes]]:
    """END, after the error, which names by its time the end it belongs to."""
    number, time = recorder.number.to_bytes(4, "little"), ext.now_us()
    end = (ext.END, number + bytes([STATUS_CODES[status]]) + time.to_bytes(8, "little", signed=True))
    return [end] if error is None else [(ext.PROPERTY, number + packb([ERROR, [time, *error]])), end]


class _Syncer(threading.Thread):
    """Calls `sync` of a writer at an interval, while the writer lives."""

    def __init__(self, writer: Writer, interval_s: float) -> None:
        super().__init__(name="aimlite-sync", daemon=True)
        self.interval_s = interval_s
        self.pid = os.getpid()
        self._writer = weakref.ref(writer)
        self._stopped = threading.Event()
        self._synced = (0, 0)  # epoch and offset of the journal

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(self.interval_s):
            writer = self._writer()
            if writer is None:
                return
            position = (writer.journal.epoch, writer.journal.offset)
            if position != self._synced and not writer.journal.closed:
                try:
                    writer.sync()
                except OSError as error:
                    warn(f"what was recorded could not be forced to disk: {error}")
                    continue
                self._synced = position


class _Heart(threading.Thread):
    """Has a writer touch its journal at an interval, while it lives."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(name="aimlite-heart", daemon=True)
        self._writer = weakref.ref(writer)
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(heartbeat.INTERVAL_S):
            writer = self._writer()
            if writer is None:
                return
            with contextlib.suppress(OSError):  # the next beat may get through
                writer.beat()


def _start_thread(thread: threading.Thread, lost: str) -> None:
    """Starts a thread. Where none is to be had the run goes on, and a warning says what is missing then."""
    try:
        thread.start()
    except RuntimeError as error:
        warn(f"{lost}: {error}", 4)


def warn(message: str, stacklevel: int = 1) -> None:
    """Warns and never raises: an error made of it by the user's filter would fail a write that nothing is wrong with. It goes to stderr
    then."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=stacklevel + 1)
    except Exception:  # a RuntimeWarning, or whatever a showwarning of the user's raises
        with contextlib.suppress(Exception):  # there may be no stderr
            sys.stderr.write(f"aimlite: {message}\n")


def _sync_file(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # merged meanwhile, and the tree is durable
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- the end of the process ---------------------------------------------------------------------------------------------


def _close_writers() -> None:
    status, error = ending.ending()
    for writer in list(_writers.values()):
        try:
            writer.close(status, error)
        except Exception as problem:  # whatever it is: the process is to end, and with its own exit status
            warn(f"a run could not be ended at exit and will show as interrupted: {type(problem).__name__}: {problem}")


def _after_fork_in_child() -> None:
    global _writers_lock
    _writers_lock = threading.RLock()
    for writer in _writers.values():
        writer.after_fork()


atexit.register(_close_writers)
# A fork waits for no lock here: whoever holds it may wait for a disk. The child begins anew, and what it must not keep is closed by _ext.
os.register_at_fork(after_in_child=_after_fork_in_child)
