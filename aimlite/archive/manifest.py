"""What an archive holds, as a blob of its own: a stream of msgpack, the same for the same files wherever and whenever they were archived.

`["aimlite manifest", 1]`, then for each file `[path, size, mode, SHA-256]`, for each symlink `[path, target]`, for each empty directory
`[path]`, sorted by kind and path. Paths are below the root, with slashes; bytes that are no UTF-8 are kept as Python's surrogateescape
has them. Whoever reads one takes it for hostile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from aimlite.archive.listing import stays_inside
from aimlite.errors import CorruptionError

_HEAD = ["aimlite manifest", 1]
_DIGEST_BYTES = 32
_MODE_BITS = 0o777
_MAX_PATH, _MAX_DEPTH, _MAX_PART = 4096, 200, 255  # characters, directories, bytes


@dataclass(frozen=True)
class File:
    """size in bytes; mode: the permission bits; digest: its SHA-256."""

    path: str
    size: int
    mode: int
    digest: bytes


@dataclass
class Manifest:
    files: list[File] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        rows: list[Any] = [_HEAD]
        rows += ([file.path, file.size, file.mode, file.digest] for file in sorted(self.files, key=lambda file: file.path))
        rows += (list(link) for link in sorted(self.links))
        rows += ([path] for path in sorted(self.directories))
        return b"".join(msgpack.packb(row, unicode_errors="surrogateescape") for row in rows)


def decode_manifest(data: bytes) -> Manifest:
    """Raises CorruptionError when it is none, or when something in it would lie outside of where it is restored to."""
    unpacker = msgpack.Unpacker(unicode_errors="surrogateescape", max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    manifest = Manifest()
    try:
        if next(unpacker, None) != _HEAD:
            raise CorruptionError("these bytes are no manifest of this version")
        for row in unpacker:
            _take_row(manifest, row)
        if unpacker.tell() != len(data):
            raise CorruptionError("a manifest is cut short", None, unpacker.tell())
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        if isinstance(error, CorruptionError):
            raise
        raise CorruptionError(f"a manifest does not decode: {error}") from None
    _demand_tree(manifest)
    return manifest


def _take_row(manifest: Manifest, row: Any) -> None:
    if not isinstance(row, list) or not is_safe_path(row[0] if row else None) or not _is_possible_path(row[0]):
        raise CorruptionError(f"a manifest names what cannot be restored: {row!r:.200}")
    match row:
        case [str(path), int(size), int(mode), bytes(digest)] if len(digest) == _DIGEST_BYTES and size >= 0:
            manifest.files.append(File(path, size, mode & _MODE_BITS, digest))
        case [str(path), str(target)] if stays_inside(path, target):
            manifest.links.append((path, target))
        case [str(path)]:
            manifest.directories.append(path)
        case _:
            raise CorruptionError(f"a manifest names what cannot be restored: {row!r:.200}")


def is_safe_path(path: object) -> bool:
    """Whether it names something below a directory, and nothing else, wherever that directory is."""
    return isinstance(path, str) and "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def _is_possible_path(path: str) -> bool:
    """Whether a file system can have it. Each directory above it is remembered, so a path of some hundred thousand would take gigabytes."""
    parts = path.split("/")
    return len(path) <= _MAX_PATH and len(parts) <= _MAX_DEPTH and all(len(os.fsencode(part)) <= _MAX_PART for part in parts)


def _demand_tree(manifest: Manifest) -> None:
    """That nothing is named twice and nothing lies below a file or a symlink."""
    leaves: Iterable[str] = [*(file.path for file in manifest.files), *(path for path, _ in manifest.links), *manifest.directories]
    held = set(leaves)
    if len(held) != len(manifest.files) + len(manifest.links) + len(manifest.directories):
        raise CorruptionError("a manifest names something twice")
    for path in held:
        above = path.rpartition("/")[0]
        while above:
            if above in held:
                raise CorruptionError(f"a manifest has {path!r:.200} below {above!r:.200}, which is no directory")
            above = above.rpartition("/")[0]
