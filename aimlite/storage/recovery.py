"""What a holder of the lease who was killed, or met a full disk, left undone: the next one completes it or takes it back.

A deletion and an import set a mark in the tree with their first commit and take it away with their last. A repair gives the tree that it
built the name `tree.mended` when that is complete. Files under temporary names are removed: at once where only a holder of the lease makes
them, else when they are old.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aimlite._ext.keys import unpack
from aimlite.errors import CorruptionError
from aimlite.storage import generation, keys
from aimlite.storage.blobs import LEAVING, NEW, list_files, restore_leaving
from aimlite.storage.files import sync_directory, write_file
from aimlite.storage.layout import INCOMING, Layout
from aimlite.storage.sweep import Sweep, view_of_holder
from aimlite.storage.tree import TreeMoved, TreeReader, TreeWriter, tree_generation
from aimlite.storage.view import View
from aimlite.storage.whole_run import keys_of_run

_STALE_S = 3600.0
_STALE_ARCHIVE_S = 86400.0  # whose import may wait for the lease
_TEMPORARY = r"\.\d+\.[0-9a-f]{8}"  # as write_file ends the names of its temporary files
_OF_HOLDER = re.compile(rf"\.generation{_TEMPORARY}|tree\.(new|salvage|(mending|mended)(\.new)?)")
_OF_ANYBODY = re.compile(rf"\.VERSION{_TEMPORARY}")
_ARCHIVE = re.compile(rf"\.?{re.escape(INCOMING)}.*")
_MENDED_JOURNAL = re.compile(rf"\..*\.journal{_TEMPORARY}")
_LOST_BLOB = re.compile(rf"\.\.[0-9a-f]{{62}}\.lost{_TEMPORARY}")
_NEW_BLOB = re.compile(rf"\.[0-9a-f]{{62}}{_TEMPORARY}")


def recover_files(layout: Layout) -> None:
    """Finishes a repair that was interrupted and removes what killed processes left of files. The caller has the lease, and has not opened
    the tree. Raises OSError."""
    finish_repair(layout)
    for path, is_stale in _temporary_files(layout):
        with contextlib.suppress(OSError):  # what cannot be removed, since it is somebody else's say, hinders nobody
            if is_stale(path):
                _remove(path)


def demand_tree(layout: Layout) -> None:
    """Raises CorruptionError when the tree is gone although it was there: an empty one must not take its place."""
    if layout.generation.exists() and not layout.tree.exists():
        raise CorruptionError("the tree is gone, though the file `generation` tells of it", layout.tree)


# -- repair ----------------------------------------------------------------------------------------------------------------


def finish_repair(layout: Layout) -> None:
    """Puts a tree that repair() built in its place, if it was killed after the damaged one was set aside. Raises OSError."""
    if layout.mended.exists() and not layout.tree.exists():
        install_mended(layout)


def install_mended(layout: Layout) -> None:
    """Gives `tree.mended` the name of the tree, which nothing has. The file `generation` comes first: it has to tell of these very files,
    and a tree of this name would be taken for the one that it tells of."""
    with contextlib.suppress(CorruptionError, TreeMoved):  # damaged since: who opens it as the tree says so
        tree = TreeReader(layout.mended)
        try:
            reached, names = tree_generation(tree), tree.files()
        finally:
            tree.close()
        write_file(layout.generation, generation.encode_generation(reached, generation.list_files(layout.mended, names)))
    os.rename(layout.mended, layout.tree)
    sync_directory(layout.base)


# -- files under temporary names -------------------------------------------------------------------------------------------


def _temporary_files(layout: Layout) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    """(path, whether it may go) of all that may be somebody's who was killed."""
    old = lambda path: _is_older(path, _STALE_S)  # noqa: E731
    for path in _entries(layout.base.resolve()):
        if _OF_HOLDER.fullmatch(path.name):
            yield path, _always
        elif _OF_ANYBODY.fullmatch(path.name):
            yield path, old
        elif _ARCHIVE.fullmatch(path.name):
            yield path, lambda path: _is_older(path, _STALE_ARCHIVE_S)
    for path in _entries(layout.journals):
        if path.name.startswith("."):
            yield path, _always if _MENDED_JOURNAL.fullmatch(path.name) else old
    for path in _entries(layout.blobs / NEW):
        yield path, old
    for path in list_files(layout.blobs):
        if path.name.startswith(".") and path.name.endswith(LEAVING):
            with contextlib.suppress(OSError):  # it is read where it is, too
                restore_leaving(path)
        elif _LOST_BLOB.fullmatch(path.name):
            yield path, _always
        elif _NEW_BLOB.fullmatch(path.name):
            yield path, old
    for folder in _entries(layout.uploads):
        for path in _entries(folder):
            if path.name.startswith("."):
                yield path, old


def _entries(directory: Path) -> list[Path]:
    if directory.is_symlink():  # it may lead out of the repo
        return []
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _always(path: Path) -> bool:
    return True


def _is_older(path: Path, age_s: float) -> bool:
    """Young ones may be somebody's who is about to rename them."""
    return time.time() - path.stat().st_mtime > age_s


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


# -- what bears a mark in the tree -----------------------------------------------------------------------------------------


def complete_marked(layout: Layout, tree: TreeWriter) -> None:
    """Completes the deletions and takes back the imports that were interrupted. The caller has the lease. Raises OSError, CorruptionError:
    then the marks stay."""
    imported, deleted = _marked(tree, keys.importing_runs()), _marked(tree, keys.deleting_runs())
    if not imported and not deleted:
        return
    view, sweep = view_of_holder(layout, tree), Sweep(layout, tree)
    for run_hash in imported:
        for key in keys_of_run(tree, run_hash):
            sweep.writes[key] = None
        sweep.commit_if_large()
    sweep.commit()
    sweep.drop_references(set(deleted))
    emptied = [run_hash for run_hash in deleted if _is_there(view, run_hash) or remove_directories(layout, run_hash)]
    sweep.unmark([keys.importing(run_hash) for run_hash in imported] + [keys.deleting(run_hash) for run_hash in emptied])
    sweep.suspect_all()
    sweep.free()


def _marked(tree: TreeWriter, bounds: keys.Range) -> list[str]:
    return [unpack(key, 1)[1] for chunk in tree.scan_keys(bounds) for key in chunk]


def _is_there(view: View, run_hash: str) -> bool:
    """Whether a run may be there, one of the same name as a deleted one say, whose files are its own then."""
    try:
        return view.holds_run(run_hash)
    except CorruptionError:  # a damaged journal may hold it
        return True


def remove_directories(layout: Layout, run_hash: str) -> bool:
    """Removes the files that belong to a run that is gone; returns whether all went. Somebody may be uploading them still, or they are
    another user's: then the mark stays, and who next has the lease tries again."""
    try:
        directories = [layout.run_dir(run_hash), layout.upload_dir(run_hash)]
    except ValueError:  # who wrote the mark was none of ours: no run is called like that, so no files are its own
        return True
    directories = [directory for directory in directories if not directory.parent.is_symlink()]  # which may lead out of the repo
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    return not any(directory.exists() for directory in directories)
