"""Content-addressed files: a blob's name is the SHA-256 of what it holds, so it is stored once, and its content can be checked when it is
read.

A blob is durable before any record names it. One that repair() gave up has an empty file beside its place: params that lie in it are then
read as not there, from the tree and from journals alike, until the same content is stored again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from aimlite.errors import CorruptionError
from aimlite.storage.files import sync_directory, write_file

BLOB_BYTES = 1 << 20  # smaller content lies in the journal and the tree


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


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return False


def get_blob(blobs: Path, digest: bytes) -> bytes | None:
    """The content of a blob; None when it was given up. Raises CorruptionError when it is not what was stored, or gone."""
    path = blob_path(blobs, digest)
    try:
        return read_blob(path, digest)
    except FileNotFoundError:
        if _loss_path(blobs, digest).exists():
            return None
        raise CorruptionError("a blob is missing", path) from None


def read_blob(path: Path, digest: bytes) -> bytes:
    """The content of the file at a path. Raises CorruptionError when it is not the blob's, FileNotFoundError."""
    content = path.read_bytes()
    if sha256(content) != digest:
        raise CorruptionError("a blob's content does not match its name", path, 0)
    return content


def is_blob_missing(blobs: Path, digest: bytes) -> bool:
    """Whether a blob is not there and was not given up."""
    return not (blob_path(blobs, digest).exists() or _loss_path(blobs, digest).exists())


def give_up_blob(blobs: Path, digest: bytes) -> bool:
    """Notes that a missing blob is lost; returns False, and notes nothing, when somebody has stored it again."""
    path, loss = blob_path(blobs, digest), _loss_path(blobs, digest)
    path.parent.mkdir(exist_ok=True)
    write_file(loss, b"")
    if path.exists():  # looked at after the note is there: put_blob takes it away after the blob is there
        loss.unlink(missing_ok=True)
        return False
    return True


def sha256(content: bytes) -> bytes:
    import hashlib  # 5 ms that most runs do not need

    return hashlib.sha256(content).digest()


def list_blobs(blobs: Path) -> Iterator[Path]:
    """Every blob there is, in no particular order."""
    for folder in os.scandir(blobs):
        if folder.is_dir() and len(folder.name) == 2:
            for entry in os.scandir(folder.path):
                if not entry.name.startswith("."):
                    yield Path(entry.path)


def blob_digest(path: Path) -> bytes:
    """The SHA-256 that a blob's path stands for."""
    return bytes.fromhex(path.parent.name + path.name)
