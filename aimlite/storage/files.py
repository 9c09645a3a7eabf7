"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aimlite.storage.loading import load


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
