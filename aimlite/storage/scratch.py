"""The directory that RocksDB demands when it opens a tree for reading. It is needed only meanwhile.

A process killed meanwhile leaves its own behind, and the next one that opens a tree removes it. The directories of one user lie in one
place, in whose lock everybody who opens has a share: who gets it alone knows that what is there belongs to nobody alive. No process ids are
kept, so none can be taken for another's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

with contextlib.suppress(OSError):  # whoever needs one is told then
    tempfile.gettempdir()  # The first call holds a lock, for which a signal's handler would wait; this one nobody interrupts.


def temporary_directory(prefix: str, parent: Path | None = None) -> Path:
    """A new directory for this user alone. `tempfile.mkdtemp` holds a lock when it is first called. Raises OSError."""
    path = Path(parent or tempfile.gettempdir(), prefix + os.urandom(8).hex())
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty directory, removed at the end. Raises OSError."""
    place = Path(tempfile.gettempdir(), f"aimlite-readers-{os.getuid()}")
    with _share(place) as fd:
        scratch = temporary_directory("aimlite-reader-", None if fd is None else place)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if fd is not None and (left := os.listdir(fd)):
            _remove(place, left, fd)


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
