"""A backup: a directory that is a repo, of one moment, taken while others write.

The tree stands still while the lease is held, and blobs are never deleted then; a repo on a read-only medium need not be written to for
that. Journals only grow: what was acknowledged before the backup began lies in the part that is copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from aimlite.errors import RepoExistsError, RepoNotFound
from aimlite.storage.blobs import list_blobs
from aimlite.storage.files import remove_stale_parts, sync_directory
from aimlite.storage.layout import REPO_DIR, Layout, read_format
from aimlite.storage.locks import lease, no_merge

_OF_A_PROCESS = ("LOCK", "LOG")  # files of RocksDB that mean nothing elsewhere


def back_up(layout: Layout, root: Path) -> None:
    """Makes the repo `root`/.aimlite, a copy of another one, that takes its name when it is whole. Raises RepoExistsError, OSError."""
    _finish_repair(layout)
    with _new_repo(root) as copy, no_merge(layout.lease):
        _copy_tree(layout, copy)
        copy.journals.mkdir()
        _copy_journals(layout, copy)
        copy.blobs.mkdir()
        for blob in list_blobs(layout.blobs):  # after the journals: a blob is there before what names it
            _copy(blob, copy.blobs / blob.parent.name / blob.name)


def _finish_repair(layout: Layout) -> None:
    """An interrupted repair has a tree that only needs its name."""
    if layout.mended.exists() and not layout.tree.exists():
        from aimlite.storage.recovery import finish_repair  # which brings numpy and RocksDB

        with lease(layout.lease, wait=True):
            finish_repair(layout)


def restore(backup: Layout, root: Path) -> None:
    """As `back_up`, of a backup that nobody writes to. Raises RepoNotFound too."""
    read_format(backup)
    if not backup.journals.is_dir():
        raise RepoNotFound(f"there is no backup at {backup.base.parent}: it has no journals/")
    back_up(backup, root)


@contextlib.contextmanager
def _new_repo(root: Path) -> Iterator[Layout]:
    final = Layout(root / REPO_DIR)
    if final.base.exists() or final.base.is_symlink():
        raise RepoExistsError(f"there is {final.base} already, which is not written over: name another place, or remove it")
    root.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(final.base)
    part = Layout(root / f"{REPO_DIR}.{os.getpid()}.part")
    shutil.rmtree(part.base, ignore_errors=True)
    part.base.mkdir()
    try:
        yield part
        _sync_all(part.base)
        os.rename(part.base, final.base)
        sync_directory(root)
    except BaseException:
        shutil.rmtree(part.base, ignore_errors=True)
        raise


def _copy_tree(layout: Layout, copy: Layout) -> None:
    if layout.tree.is_dir():
        for entry in sorted(os.listdir(layout.tree)):
            if not entry.startswith(_OF_A_PROCESS):
                _copy(layout.tree / entry, copy.tree / entry)
    for path, target in ((layout.version, copy.version), (layout.generation, copy.generation)):
        with contextlib.suppress(FileNotFoundError):  # nothing was ever merged
            _copy(path, target)


def _copy_journals(layout: Layout, copy: Layout) -> None:
    """Of each writer the last segment first: what it holds was written when those before it were complete, so nothing lacks between."""
    for name in reversed(layout.list_journals()):
        _copy(layout.journal(*name), copy.journal(*name))


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, target)


def _sync_all(base: Path) -> None:
    for folder, _, names in os.walk(base):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_directory(Path(folder))
