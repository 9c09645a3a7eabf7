"""Archives as files again. Every byte is checked against its SHA-256 before a file takes its name; nothing is written outside of the
destination, through symlinks neither."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aimlite.archive.manifest import File, Manifest, decode_manifest
from aimlite.errors import CorruptionError
from aimlite.storage.blobs import blob_path, copy_blob, get_blob

_NAMED = 5


def read_manifest(blobs: Path, digest: bytes) -> Manifest:
    """Raises CorruptionError when it is damaged or gone."""
    data = get_blob(blobs, digest)
    if data is None:
        raise CorruptionError("the manifest of an archive was lost", blob_path(blobs, digest))
    return decode_manifest(data)


def restore(blobs: Path, digest: bytes, destination: Path, overwrite: bool = False) -> Manifest:
    """Writes the files of an archive below a directory, which is made if need be; returns what was restored.

    overwrite: files and symlinks that are in the way are replaced; without it FileExistsError is raised and nothing written.
    Raises CorruptionError when something of it is damaged: what is intact is there then. OSError.
    """
    manifest = read_manifest(blobs, digest)
    destination.mkdir(parents=True, exist_ok=True)
    root = Path(os.path.realpath(destination))
    folders = _folders(manifest)
    demand_no_links(root, folders)
    if not overwrite:
        _demand_free(root, manifest)
    for folder in folders:
        (root / folder).mkdir(exist_ok=True)
    damaged = []
    for file in manifest.files:
        try:
            restore_file(blobs, file, root / file.path)
        except CorruptionError as error:
            damaged.append((file.path, error))
    for path, target in manifest.links:
        _make_link(root / path, target)
    if damaged:
        named = ", ".join(path for path, _ in damaged[:_NAMED]) + (" …" if len(damaged) > _NAMED else "")
        first = damaged[0][1]
        raise CorruptionError(
            f"{len(damaged)} of {len(manifest.files)} files could not be restored, the others are in {root}: {named}; {first.message}",
            first.path,
            first.offset,
        )
    return manifest


def restore_file(blobs: Path, file: File, target: Path) -> None:
    """Writes one file, whole or not at all. Raises CorruptionError, OSError."""
    part = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as written:
            copy_blob(blobs, file.digest, written)
            os.fchmod(written.fileno(), file.mode | stat.S_IRUSR)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _folders(manifest: Manifest) -> list[str]:
    """Every directory that is needed, those above first."""
    found = set(manifest.directories)
    for path in [*(file.path for file in manifest.files), *(path for path, _ in manifest.links), *manifest.directories]:
        above = path.rpartition("/")[0]
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return sorted(found)


def demand_no_links(root: Path, folders: list[str]) -> None:
    """That none of these directories below a root is a symlink or a file. Raises FileExistsError."""
    for folder in folders:
        path = root / folder
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            what = "a symlink" if path.is_symlink() else "a file"
            raise FileExistsError(f"{path} is {what} where a directory is to be restored")


def _demand_free(root: Path, manifest: Manifest) -> None:
    taken = [
        path for path in [*(file.path for file in manifest.files), *(path for path, _ in manifest.links)] if os.path.lexists(root / path)
    ]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise FileExistsError(f"{root / taken[0]}{more} would be overwritten: restore elsewhere, or ask for overwriting")


def _make_link(path: Path, target: str) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.symlink_to(target)
