"""Content-addressed files: a blob's name is the SHA-256 of what it holds, so it is stored once, and its content can be checked when it is
read.

A blob is durable before any record names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from aimlite.errors import CorruptionError
from aimlite.storage.layout import sync_directory, write_file

BLOB_BYTES = 1 << 20  # smaller content lies in the journal and the tree


def blob_path(blobs: Path, digest: bytes) -> Path:
    name = digest.hex()
    return blobs / name[:2] / name[2:]


def put_blob(blobs: Path, content: bytes) -> bytes:
    """Stores content, if it is not there already; returns its SHA-256. Raises OSError."""
    digest = _sha256(content)
    path = blob_path(blobs, digest)
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:  # a damaged one is put right
            return digest
    except FileNotFoundError:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            sync_directory(blobs)
    write_file(path, content)
    return digest


def get_blob(blobs: Path, digest: bytes) -> bytes:
    """The content of a blob. Raises CorruptionError when it is not what was stored, or gone."""
    path = blob_path(blobs, digest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorruptionError("a blob is missing", path) from None
    if _sha256(content) != digest:
        raise CorruptionError("a blob's content does not match its name", path, 0)
    return content


def _sha256(content: bytes) -> bytes:
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
