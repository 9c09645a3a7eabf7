"""Where artifacts go besides the repo: a directory (`file://`), or what fsspec knows (`s3://`, `gs://`, `memory://`, …).

A place is told by a URI, and holds files under names below it. fsspec's exceptions leave this module as OSError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from aimlite.storage.blobs import PIECE_BYTES
from aimlite.storage.loading import load
from aimlite.storage.runs import check_hash

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Place(Protocol):
    """Holds files under names with slashes. All raise OSError; FileNotFoundError where there is no such file."""

    def put(self, source: Path, name: str) -> None:
        """Copies a file there, in place of what is there. Nobody sees half of it, where the place can do that."""

    def get(self, name: str, target: BinaryIO) -> None:
        """Writes the file to another one, in pieces."""

    def size(self, name: str) -> int:
        """In bytes."""

    def remove(self, name: str) -> None:
        """Takes the file away."""


def check_uri(uri: object) -> str:
    """A URI that a place can be opened by, without a slash at its end. Raises TypeError, ValueError, ImportError (what its scheme needs is
    not installed)."""
    if not isinstance(uri, str):
        raise TypeError(f"an artifacts URI is a string, not {type(uri).__name__} {uri!r:.100}")
    match = _SCHEME.match(uri)
    if match is None or "\0" in uri:
        raise ValueError(f"an artifacts URI begins with a scheme, as file:///data or s3://bucket/path do, not {uri!r:.200}")
    scheme, rest = match[1].lower(), uri[match.end() :]
    if scheme == "file":
        if not rest.removeprefix("localhost").startswith("/"):
            raise ValueError(f"a file:// URI has an absolute path behind it, file:///data say, not {uri!r:.200}")
    else:
        _file_system_class(scheme)
    return uri.rstrip("/") if rest.strip("/") else uri


def open_place(uri: str, folder: str) -> Place:
    """The place of a folder below a URI, called by the hash of a run. Raises as `check_uri`, ValueError where it is no such hash, and
    OSError when it cannot be reached."""
    base = check_uri(uri)
    check_hash(folder)
    if base.lower().startswith("file://"):
        return Directory(Path(base[len("file://") :].removeprefix("localhost")), folder)
    return Remote(base, folder)


class Directory:
    """A folder of a directory. What lies in it is reached without following symlinks, and only regular files are read and removed."""

    def __init__(self, base: Path, folder: str) -> None:
        self._base = base
        self._folder = folder

    def put(self, source: Path, name: str) -> None:
        with self._above(name, make=True) as (above, last):
            part = f".{os.urandom(8).hex()}.part"
            try:
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=above)
                with open(source, "rb") as file, os.fdopen(fd, "wb") as copy:
                    while piece := file.read(PIECE_BYTES):
                        copy.write(piece)
                    copy.flush()
                    os.fsync(copy.fileno())
                os.replace(part, last, src_dir_fd=above, dst_dir_fd=above)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=above)
                raise
            os.fsync(above)

    def get(self, name: str, target: BinaryIO) -> None:
        with self._above(name) as (above, last):
            self._size(name, last, above)
            fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
            with os.fdopen(fd, "rb") as file:
                while piece := file.read(PIECE_BYTES):
                    target.write(piece)

    def size(self, name: str) -> int:
        with self._above(name) as (above, last):
            return self._size(name, last, above)

    def remove(self, name: str) -> None:
        with self._above(name) as (above, last):
            self._size(name, last, above)
            os.unlink(last, dir_fd=above)
        with contextlib.suppress(OSError):  # something else is in it
            for folder in Path(name).parents:
                (self._base / self._folder / folder).rmdir()

    def _size(self, name: str, last: str, above: int) -> int:
        found = os.stat(last, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EPERM, "this is no regular file, so it is left alone", str(self._base / self._folder / name))
        return found.st_size

    @contextlib.contextmanager
    def _above(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that holds the file of a name, and what the file is called there."""
        *folders, last = (self._folder, *name.split("/"))
        if make:
            self._base.mkdir(parents=True, exist_ok=True)
        at, fd = self._base, os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                at = at / folder
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=fd)
                try:
                    below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    raise NotADirectoryError(errno.ENOTDIR, "this is no directory; symlinks are not followed", str(at)) from None
                os.close(fd)
                fd = below
            yield fd, last
        finally:
            os.close(fd)


class Remote:
    """What fsspec reaches. Credentials and endpoints are its own: its config files and the environment."""

    def __init__(self, uri: str, folder: str) -> None:
        load("fsspec.core")
        from fsspec.core import url_to_fs

        with _translated(uri):
            self._fs, base = url_to_fs(uri)
        self._base = f"{base.rstrip('/')}/{folder}"

    def put(self, source: Path, name: str) -> None:
        path = f"{self._base}/{name}"
        with _translated(path):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(source), path)

    def get(self, name: str, target: BinaryIO) -> None:
        with _translated(f"{self._base}/{name}"), self._fs.open(f"{self._base}/{name}", "rb") as file:
            while piece := file.read(PIECE_BYTES):
                target.write(piece)

    def size(self, name: str) -> int:
        with _translated(f"{self._base}/{name}"):
            self._fs.invalidate_cache()
            return int(self._fs.info(f"{self._base}/{name}")["size"])

    def remove(self, name: str) -> None:
        with _translated(f"{self._base}/{name}"):
            self._fs.rm_file(f"{self._base}/{name}")


def _file_system_class(scheme: str) -> Any:
    try:
        load("fsspec")
        from fsspec import get_filesystem_class
    except ImportError:
        raise ImportError(f"artifacts at {scheme}:// need fsspec: pip install 'aimlite-store[artifacts]'") from None
    try:
        return get_filesystem_class(scheme)
    except ValueError:
        raise ValueError(f"fsspec knows no scheme {scheme}://, so artifacts cannot go there") from None
    except ImportError as error:
        raise ImportError(f"artifacts at {scheme}:// need what is not installed: {error}") from None


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Backends raise what their libraries do: all of it as OSError, so that one kind tells that a place failed."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise OSError(f"{what}: {type(error).__name__}: {error}") from error


def hash_file(path: Path) -> tuple[str, int]:
    """(SHA-256 in hex, size) of a file. Raises OSError."""
    hasher, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
    return hasher.hexdigest(), size
