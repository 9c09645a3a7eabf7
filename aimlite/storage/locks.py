"""OS file locks: who holds a journal, and the lease on merging.

A journal is locked exclusively by its writer alone. Everybody else probes with a shared, non-blocking lock: two exclusive probes at once
would take each other for a writer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aimlite.storage import heartbeat


def is_mine(lock: Any) -> bool:
    """Whether this very thread holds a threading.RLock, as a Condition asks it. One that does has been interrupted within: what the lock
    guards may be half changed."""
    mine: bool = lock._is_owned()
    return mine


def is_held(fd: int) -> bool:
    """Whether another open file holds the lock of the file at fd; where locks may not reach other hosts, whether its heart beats."""
    return _is_locked(fd) or heartbeat.beats(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_path_held(path: Path) -> bool:
    """Whether the file at a path is held; False when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return is_held(fd)
    finally:
        os.close(fd)


def is_lease_taken(path: Path) -> bool:
    """Whether somebody merges; False when nobody ever did."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def lease(path: Path, wait: bool) -> Iterator[bool]:
    """Holds the right to merge; yields whether it was got. Without `wait` a few tries are made: a probe may hold the lock for an
    instant."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _take(fd, wait)
    finally:
        os.close(fd)


@contextlib.contextmanager
def no_merge(path: Path) -> Iterator[None]:
    """Nobody merges within. Where nothing may be written, on a read-only medium or in somebody else's repo, a share of the lock does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lease(path, wait=True))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            stack.enter_context(_lease_shared(path))
        yield


@contextlib.contextmanager
def _lease_shared(path: Path) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # nobody ever merged
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def _take(fd: int, wait: bool) -> bool:
    if wait:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return True
    for _ in range(5):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False
