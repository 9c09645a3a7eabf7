"""The directory in which RocksDB finds its database when it opens a tree for reading, or catches up. It is needed only meanwhile.

A process killed meanwhile leaves its own behind, and the next one that opens a tree removes it. The directories of one user lie in one
place, in whose lock everybody who opens has a share: who gets it alone knows that what is there belongs to nobody alive. No process ids are
kept, so none can be taken for another's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")  # writable where a container's own file system is read-only

with contextlib.suppress(OSError):  # whoever needs one is told then
    tempfile.gettempdir()  # The first call holds a lock, for which a signal's handler would wait; this one nobody interrupts.


def temporary_directory(prefix: str, parent: Path | None = None) -> Path:
    """A new directory for this user alone. `tempfile.mkdtemp` holds a lock when it is first called. Raises OSError."""
    path = Path(parent or tempfile.gettempdir(), prefix + os.urandom(8).hex())
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def scratch_directory(again: Path | None = None) -> Iterator[Path]:
    """An empty directory, removed at the end. again: the path that it had before. Raises OSError."""
    temporary = _temporary_directory() if again is None else again.parent
    name = f"aimlite-readers-{os.getuid()}"
    place = temporary if temporary.name == name else temporary / name
    with _share(place) as fd:
        if again is None:
            scratch = temporary_directory("aimlite-reader-", temporary if fd is None else place)
        else:
            scratch = again
            scratch.mkdir(mode=0o700)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if fd is not None and (left := os.listdir(fd)):
            _remove(place, left, fd)


def _temporary_directory() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it looked for one that can be written to, and names where
        if os.access(_MEMORY, os.W_OK | os.X_OK):
            return _MEMORY
        reason = f"reading what was merged takes a temporary directory: {error.strerror}; let TMPDIR name one that can be written to"
        raise OSError(errno.ENOENT, reason) from None


@contextlib.contextmanager
def _share(place: Path) -> Iterator[int | None]:
    """A share in the lock of the place; None where it cannot be had: the place is not ours, or somebody is removing what is left there."""
    try:
        fd = _open_place(place)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do if the process forked since
        os.close(fd)


def _open_place(place: Path) -> int:
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.getuid():
            raise PermissionError(f"{place} is somebody else's")
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _remove(place: Path, names: list[str], fd: int) -> None:
    """Removes directories seen in the place, if nobody else has a share in its lock."""
    with contextlib.suppress(OSError):  # somebody opens a tree just now, or the file system has no such lock
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in names:
            shutil.rmtree(place / name, ignore_errors=True)
