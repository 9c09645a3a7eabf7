"""Files that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import BinaryIO

from aimlite.errors import CorruptionError
from aimlite.storage.loading import load

STALE_PART_S = 86400.0


def write_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Replaces `path` by a file holding `data`, whole or not at all; durable: with fsync of the file and its directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def remove_stale_parts(path: Path) -> None:
    """Removes what processes that were killed while writing a file or directory of this name left beside it: `<name>.<process id>.part`,
    with or without a dot before it. Young ones may be somebody's, and what cannot be removed hinders nobody."""
    name = re.compile(rf"\.?{re.escape(path.name)}\.\d+\.part")
    with contextlib.suppress(OSError):
        for found in [path.parent / entry for entry in os.listdir(path.parent) if name.fullmatch(entry)]:
            with contextlib.suppress(OSError):
                if time.time() - found.lstat().st_mtime > STALE_PART_S:
                    shutil.rmtree(found) if found.is_dir() else found.unlink()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file open for reading, unbuffered. Raises CorruptionError for a pipe, a device or a directory, which somebody put in its place: to
    open a pipe would wait for ever. FileNotFoundError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CorruptionError("this is no regular file", path)
    return os.fdopen(fd, "rb", buffering=0)


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(directory: str) -> bool:
    """Forces all that was written to the file system of a directory to the disk, where that can be done; returns whether it was. Raises
    OSError."""
    if sys.platform != "linux":  # elsewhere sync() does not wait
        return False
    load("ctypes")
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), directory)
    finally:
        os.close(fd)
    return True
