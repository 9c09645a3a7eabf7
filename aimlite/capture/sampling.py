"""The sampler: one thread of a process that records at intervals, for each run that asked, how busy the machine is.

It starts with the first run that asks and ends when none is left. It waits for half a second first, so that a loop over short runs does not
start a thread for each. It holds no run alive. A forked child has none until it asks for itself.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aimlite.capture import log
from aimlite.errors import RunClosedError
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from aimlite.capture.usage import Machine, Reading

Write = Callable[[dict[str, float], Mapping[str, Any]], None]

_LINGER_S = 0.5
_BASELINE_S = 1.0  # before the first sample, counters are read once: psutil is imported then, which no short script pays for

_sampler: _Sampler | None = None
_sampler_lock = threading.RLock()  # a signal's handler may open a run in the middle of it
_ends_at_exit = False
_said: set[str] = set()


def watch(write: Write, interval_s: float) -> Watch:
    """Has `write(values by name, context)` called every `interval_s` seconds, first after one interval, until `stop()`.

    write: a method; its object is not held alive. It may raise what it likes: the first error of each kind is logged.
    """
    global _sampler, _ends_at_exit
    watched = Watch(write, interval_s)
    with _sampler_lock:
        if not _ends_at_exit:
            _ends_at_exit = True
            atexit.register(_end_at_exit)  # here, so that it comes before the runs are ended: those who open one imported the writer
        try:
            if _sampler is None or _sampler.pid != os.getpid() or not _sampler.add(watched):
                _sampler = _Sampler(watched)
                _sampler.start()
        except RuntimeError as error:  # no thread is to be had
            _sampler = None
            complain("no sampler could be started", error)
    return watched


def complain(kind: str, error: object) -> None:
    """Logs what goes wrong, once for each kind in a process."""
    if kind not in _said:
        _said.add(kind)
        log("warning", "system metrics: %s: %s", kind, error)


class Watch:
    """One run's place in the sampler."""

    def __init__(self, write: Write, interval_s: float) -> None:
        self._write: weakref.ref[Write] = weakref.WeakMethod(write)
        self._interval_s = interval_s
        self._begin_s = time.monotonic()
        self.due_s = self._begin_s + interval_s - min(_BASELINE_S, interval_s / 2)
        self._before: Reading | None = None
        self._writing = threading.RLock()  # a signal's handler may call stop() in the middle of it
        self._pid = os.getpid()
        self.stopped = False

    def stop(self) -> None:
        """When it returns nothing more is written."""
        if self._pid != os.getpid():
            return  # the thread that might hold the lock stayed in the parent
        with self._writing:
            self.stopped = True
        sampler = _sampler
        if sampler is not None:
            sampler.remove(self)

    @property
    def is_over(self) -> bool:
        return self.stopped or self._write() is None

    def take(self, reading: Reading) -> None:
        """Writes what changed since the last reading; the first one is only remembered."""
        before, self._before = self._before, reading
        if before is None:
            self.due_s = self._begin_s + self._interval_s
            return
        self.due_s += self._interval_s
        if self.due_s < reading.time_s:  # it comes late: what was missed stays so
            self.due_s = reading.time_s + self._interval_s
        samples = reading.since(before)
        with self._writing:
            write = self._write()
            if self.stopped or write is None:
                return
            try:
                for values, context in samples:
                    write(values, context)
            except RunClosedError:
                self.stopped = True
            except Exception as error:
                complain("a sample could not be recorded", error)


class _Sampler(threading.Thread):
    def __init__(self, first: Watch) -> None:
        super().__init__(name="aimlite-sampler", daemon=True)
        self.pid = os.getpid()
        self._changed = threading.Condition()
        self._watches = [first]
        self._over = False
        self._machine: Machine | None = None

    def add(self, watched: Watch) -> bool:
        """False when it is over."""
        with self._changed:
            if self._over:
                return False
            self._watches.append(watched)
            self._changed.notify()
            return True

    def remove(self, watched: Watch) -> None:
        with self._changed:
            if watched in self._watches:
                self._watches.remove(watched)
                self._changed.notify()

    def run(self) -> None:
        try:
            while (due := self._wait()) is not None:
                self._sample(due)
        finally:
            if self._machine is not None:
                self._machine.close()

    def _wait(self) -> list[Watch] | None:
        """Those whose time has come; None when nobody is left."""
        with self._changed:
            while True:
                self._watches = [watched for watched in self._watches if not watched.is_over]
                if not self._watches and not self._over:
                    self._changed.wait(_LINGER_S)
                if self._over or not self._watches:
                    self._over = True
                    return None
                now = time.monotonic()
                if due := [watched for watched in self._watches if watched.due_s <= now]:
                    return due
                self._changed.wait(min(watched.due_s for watched in self._watches) - now)

    def _sample(self, due: list[Watch]) -> None:
        try:
            if self._machine is None:
                self._machine = _open_machine()
            reading = self._machine.read()
        except Exception as error:
            complain("the machine could not be looked at", error)
            for watched in due:
                watched.due_s = time.monotonic() + 60
            return
        for watched in due:
            watched.take(reading)

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self.join(1)


def _open_machine() -> Machine:
    load("aimlite.capture.usage")
    from aimlite.capture.usage import Machine

    return Machine(complain)


def _end_at_exit() -> None:
    """No thread should be in the middle of a call into a library while the interpreter goes down, if that can be had soon."""
    sampler = _sampler
    if sampler is not None and sampler.pid == os.getpid() and sampler.is_alive():
        sampler.end()


def _forget() -> None:
    """In a forked child: the thread stayed in the parent, and what it held stays held."""
    global _sampler, _sampler_lock
    _sampler, _sampler_lock = None, threading.RLock()


os.register_at_fork(after_in_child=_forget)
