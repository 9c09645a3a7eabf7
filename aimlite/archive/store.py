"""Putting listed files into the blobs, each content once, and a manifest of them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from aimlite.archive.listing import Listing
from aimlite.archive.manifest import File, Manifest
from aimlite.storage.blobs import BlobFiles, UnreadableError, blob_path


@dataclass(frozen=True)
class Archive:
    """What was stored. manifest: its SHA-256. digests: of every blob that it needs, the manifest first. left_out: (path, why), of the
    listing and of what could not be read then."""

    manifest: bytes
    files: int
    size_bytes: int
    digests: tuple[bytes, ...]
    left_out: list[tuple[str, str]]


def store(blobs: Path, listing: Listing) -> Archive:
    """Stores all that a listing has; it is durable when this returns. What cannot be read is left out. Raises OSError (full disk)."""
    manifest, left_out = Manifest(links=listing.links, directories=listing.directories), list(listing.left_out)
    with BlobFiles(blobs) as stored:
        for path, _, _ in listing.files:
            try:
                fd = os.open(os.path.join(listing.root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:  # the file's, not that of the disk that is written to
                left_out.append((path, f"cannot be read: {error.strerror}"))
                continue
            with open(fd, "rb") as file:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    left_out.append((path, "is no file any more"))
                    continue
                try:
                    digest, size = stored.add_file(file)
                except UnreadableError as error:
                    left_out.append((path, f"cannot be read: {error.strerror}"))
                    continue
            manifest.files.append(File(path, size, stat.S_IMODE(status.st_mode) & 0o777, digest))
        encoded = stored.add(manifest.encode())
    digests = tuple(dict.fromkeys([encoded, *(file.digest for file in manifest.files)]))
    return Archive(encoded, len(manifest.files), manifest.size_bytes, digests, sorted(left_out))


def are_stored(blobs: Path, digests: tuple[bytes, ...]) -> bool:
    """Whether all of these blobs are there. Somebody who deletes runs may have removed one that no run named yet."""
    return all(blob_path(blobs, digest).exists() for digest in digests)
