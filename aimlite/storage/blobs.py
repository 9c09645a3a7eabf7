"""Content-addressed files: a blob's name is the SHA-256 of what it holds, so it is stored once, and its content can be checked when it is
read.

A blob is durable before any record names it. Files are written under other names in `new/` and take their places whole.

Who deletes one that no run names any more first renames it away, then looks whether a
journal names it, and if so puts it back; a writer writes its record, then looks whether the blob is there, and if not stores it again. So
one of the two sees the other.

One that repair() gave up has an empty file beside its place: params that lie in it are then read as not there, from the tree and from
journals alike, until the same content is stored again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from aimlite.errors import CorruptionError
from aimlite.storage.files import open_regular, read_regular, sync_directory, sync_file_system, write_file
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from hashlib import _Hash

BLOB_BYTES = 1 << 20  # smaller values lie in the journal and the tree
NEW = "new"  # the directory of what is being written
PIECE_BYTES = 1 << 20  # files are read and written in pieces of it
_WHOLE_BYTES = 8 << 20  # files up to this size are read in one piece
_BATCH_FILES = 8192
_BATCH_BYTES = 256 << 20
_MANY = 64  # so many files are forced to disk together with all that is on its way there: one by one takes a second for a thousand
LEAVING = ".leaving"  # how the name of a blob that is being deleted ends


def blob_path(blobs: Path, digest: bytes) -> Path:
    name = digest.hex()
    return blobs / name[:2] / name[2:]


def _loss_path(blobs: Path, digest: bytes) -> Path:
    path = blob_path(blobs, digest)
    return path.with_name(f".{path.name}.lost")


def put_blob(blobs: Path, content: bytes) -> bytes:
    """Stores content, if it is not there already; returns its SHA-256. Raises OSError."""
    digest = sha256(content)
    path = blob_path(blobs, digest)
    if not _holds(path, content):  # a damaged one is put right
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            sync_directory(blobs)
        write_file(path, content)
    _loss_path(blobs, digest).unlink(missing_ok=True)
    return digest


def keep_blobs(blobs: Path, contents: dict[bytes, bytes]) -> None:
    """Stores again what was deleted since it was stored, after a record that names it was written. contents: by SHA-256. Raises OSError."""
    for digest, content in contents.items():
        if not blob_path(blobs, digest).exists():
            put_blob(blobs, content)


def leaving_path(path: Path) -> Path:
    """Where a blob lies while it is being deleted."""
    return path.with_name(f".{path.name}{LEAVING}")


def take_away(path: Path) -> bool:
    """Begins to delete a blob; returns whether there was one."""
    try:
        os.rename(path, leaving_path(path))
    except FileNotFoundError:
        return leaving_path(path).exists()
    return True


def end_leaving(path: Path, keep: bool) -> int:
    """Puts a blob back that was taken away, or deletes it; returns how many bytes were given back."""
    left = leaving_path(path)
    try:
        if keep:
            os.rename(left, path)
            return 0
        size = left.stat().st_size
        left.unlink()
    except FileNotFoundError:
        return 0
    return size


def restore_leaving(left: Path) -> None:
    """Puts a blob back that somebody was killed while deleting, unless it was stored again since. Raises OSError."""
    path = left.with_name(left.name[1 : -len(LEAVING)])
    if path.exists():
        left.unlink()
    else:
        os.rename(left, path)


def _holds(path: str | Path, content: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return os.fstat(file.fileno()).st_size == len(content) and file.read() == content
    except FileNotFoundError:
        return False


class UnreadableError(OSError):
    """Raised when a file that is to be stored cannot be read; an OSError of the blobs themselves is none of these."""


class BlobFiles:
    """Stores many contents: those that are there already cost reading them, the others are forced to disk many at a time. What was added is
    stored when `flush` has returned."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = os.fspath(blobs)
        self._new = os.path.join(self._blobs, NEW)
        self._waiting: dict[bytes, str] = {}  # digest → the file that is to take its place
        self._bytes = 0

    def __enter__(self) -> BlobFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            self._discard()

    def add_file(self, file: BinaryIO) -> tuple[bytes, int]:
        """(SHA-256, size) of a file just opened. A large one is read twice if it is new, and takes no more memory than a small one.
        Raises UnreadableError, OSError of what is written."""
        whole = min(os.fstat(file.fileno()).st_size, _WHOLE_BYTES)
        content = _read(file, whole + 1)
        if len(content) <= whole:
            return self.add(content), len(content)
        hasher, size = _hasher(content), len(content)
        while content := _read(file, PIECE_BYTES):
            hasher.update(content)
            size += len(content)
        digest = hasher.digest()
        if digest in self._waiting or _is_intact(self._place(digest), digest, size):
            self._found(digest)
            return digest, size
        file.seek(0)
        return self._copy(file)

    def add(self, content: bytes) -> bytes:
        """Its SHA-256. Raises OSError."""
        digest = sha256(content)
        if digest in self._waiting:
            return digest
        if _holds(self._place(digest), content):
            self._found(digest)
            return digest
        path = self._new_file()
        with open(path, "xb", buffering=0) as file:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._wait(digest, path, len(content))
        return digest

    def _copy(self, file: BinaryIO) -> tuple[bytes, int]:
        """What is copied counts, should the file have changed since it was hashed."""
        hasher, size, path = _hasher(), 0, self._new_file()
        try:
            with open(path, "xb") as copy:
                while piece := _read(file, PIECE_BYTES):
                    hasher.update(piece)
                    copy.write(piece)
                    size += len(piece)
        except BaseException:
            _unlink(path)
            raise
        digest = hasher.digest()
        if digest in self._waiting:
            os.unlink(path)
        else:
            self._wait(digest, path, size)
        return digest, size

    def _place(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self._blobs}/{name[:2]}/{name[2:]}"

    def _new_file(self) -> str:
        if not self._waiting:
            os.makedirs(self._new, exist_ok=True)
        return f"{self._new}/{os.getpid()}.{os.urandom(8).hex()}"

    def _found(self, digest: bytes) -> None:
        _unlink(_loss_path(Path(self._blobs), digest))

    def _wait(self, digest: bytes, path: str, size: int) -> None:
        self._waiting[digest] = path
        self._bytes += size
        if len(self._waiting) >= _BATCH_FILES or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Stores what was added, durably. Raises OSError: then a part may be stored, and the rest is not."""
        try:
            places = {path: self._place(digest) for digest, path in self._waiting.items()}
            folders = {os.path.dirname(place) for place in places.values()}
            if len(places) < _MANY or not sync_file_system(self._blobs):
                for path in places:
                    _sync_file(path)
            for folder in folders:
                os.makedirs(folder, exist_ok=True)
            for digest, path in self._waiting.items():
                os.replace(path, places[path])
                self._found(digest)
            if len(places) < _MANY or not sync_file_system(self._blobs):
                for folder in [*folders, self._blobs] if folders else []:
                    sync_directory(Path(folder))
        except BaseException:
            self._discard()
            raise
        self._waiting.clear()
        self._bytes = 0

    def _discard(self) -> None:
        for path in self._waiting.values():
            _unlink(path)
        self._waiting.clear()
        self._bytes = 0


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise UnreadableError(error.errno, error.strerror) from error


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(path: str | Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is_intact(path: str | Path, digest: bytes, size: int) -> bool:
    try:
        if os.stat(path).st_size != size:
            return False
        verify_blob(path, digest)
    except (FileNotFoundError, CorruptionError):
        return False
    return True


def copy_blob(blobs: Path, digest: bytes, target: BinaryIO) -> int:
    """Writes the content of a blob to a file, piece by piece; returns its size. Raises CorruptionError when it is gone or is not what was
    stored: what was written then is worth nothing. OSError."""
    path = blob_path(blobs, digest)
    for place in (path, leaving_path(path), path):  # it may be put back meanwhile
        with contextlib.suppress(FileNotFoundError):
            return _read_through(place, digest, target)
    raise CorruptionError("a blob is missing", path)


def verify_blob(path: str | Path, digest: bytes) -> None:
    """Raises CorruptionError when the file at a path is not the blob's, FileNotFoundError; as `read_blob`, but holds none of it."""
    _read_through(path, digest, None)


def _read_through(path: str | Path, digest: bytes, target: BinaryIO | None) -> int:
    hasher, size = _hasher(), 0
    with open_regular(path) as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
            if target is not None:
                target.write(piece)
    if hasher.digest() != digest:
        raise CorruptionError("a blob's content does not match its name", path, 0)
    return size


def get_blob(blobs: Path, digest: bytes) -> bytes | None:
    """The content of a blob; None when it was given up. Raises CorruptionError when it is not what was stored, or gone."""
    path = blob_path(blobs, digest)
    for place in (path, leaving_path(path), path):  # it may be put back meanwhile
        with contextlib.suppress(FileNotFoundError):
            return read_blob(place, digest)
    if _loss_path(blobs, digest).exists():
        return None
    raise CorruptionError("a blob is missing", path)


def read_blob(path: Path, digest: bytes) -> bytes:
    """The content of the file at a path. Raises CorruptionError when it is not the blob's, FileNotFoundError."""
    content = read_regular(path)
    if sha256(content) != digest:
        raise CorruptionError("a blob's content does not match its name", path, 0)
    return content


def is_blob_missing(blobs: Path, digest: bytes) -> bool:
    """Whether a blob is not there and was not given up."""
    path = blob_path(blobs, digest)
    return not any(place.exists() for place in (path, leaving_path(path), path, _loss_path(blobs, digest)))


def give_up_blob(blobs: Path, digest: bytes) -> bool:
    """Notes that a missing blob is lost; returns False, and notes nothing, when somebody has stored it again."""
    path, loss = blob_path(blobs, digest), _loss_path(blobs, digest)
    path.parent.mkdir(exist_ok=True)
    write_file(loss, b"")
    if path.exists():  # looked at after the note is there: put_blob takes it away after the blob is there
        loss.unlink(missing_ok=True)
        return False
    return True


def _hasher(content: bytes = b"") -> _Hash:
    load("hashlib")
    import hashlib  # 5 ms that most runs do not need

    return hashlib.sha256(content)


def sha256(content: bytes) -> bytes:
    return _hasher(content).digest()


def list_blobs(blobs: Path) -> Iterator[Path]:
    """Every blob there is, in no particular order."""
    return (path for path in list_files(blobs) if not path.name.startswith("."))


def list_files(blobs: Path) -> Iterator[Path]:
    """All that lies where blobs do, those under other names too."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for folder in os.scandir(blobs):
            if folder.is_dir(follow_symlinks=False) and len(folder.name) == 2:  # a link may lead out of the repo
                for name in os.listdir(folder.path):
                    yield Path(folder.path, name)


def blob_digest(path: Path) -> bytes:
    """The SHA-256 that a blob's path stands for."""
    return bytes.fromhex(path.parent.name + path.name)
