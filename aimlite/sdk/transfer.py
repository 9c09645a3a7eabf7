"""Taking runs from one repo to another, through archives or directly, and backups of whole repos."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlite.errors import AimliteError, RepoNotFound, RunActiveError, RunExistsError, RunNotFound, RunTrashed
from aimlite.sdk.artifacts import copy_staged
from aimlite.sdk.trash import RepoTrash, listed_hashes
from aimlite.storage import helper
from aimlite.storage.layout import INCOMING, REPO_DIR, Layout, is_repo, repo_root
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from typing_extensions import Self

    from aimlite.sdk.repo import Repo
    from aimlite.storage.view import FrozenReader, Reader, View


class RepoTransfer(RepoTrash):
    """What a Repo can give to others and take from them. A run that was copied is the same in all it holds: times, types, tags, objects,
    how it ended. One that a process is writing is copied as it stands, and shows as `interrupted` there."""

    read_only: bool

    @property
    @abstractmethod
    def _reader(self) -> Reader | FrozenReader: ...

    def copy_runs(self, run_hashes: Iterable[str], dest: Repo | str | os.PathLike[str]) -> tuple[bool, list[str]]:
        """Copies runs into another repo, which is made if need be; returns (True, []): Aim's success, and the runs that remain.

        Each run is there wholly or not at all. Raises RunNotFound, RunTrashed, RunExistsError (then none is copied), ValueError (the same
        repo), CorruptionError, OSError.
        """
        self._copy(listed_hashes(run_hashes), dest)
        return True, []

    def move_runs(self, run_hashes: Iterable[str], dest: Repo | str | os.PathLike[str], *, force: bool = False) -> tuple[bool, list[str]]:
        """As `copy_runs`, then compares what is there with what is here, and deletes the runs here for good. force: also runs that a
        process is writing; what it writes from then on is lost. Raises RunActiveError and ReadOnlyError, too."""
        self._demand_writable()
        wanted = listed_hashes(run_hashes)
        self._reader.read(lambda view: _demand_movable(view, wanted, force))
        prints = self._copy(wanted, dest, with_prints=True)
        there = _as_repo(dest)
        for run_hash in wanted:
            if _fingerprint(there, run_hash) != prints[run_hash]:
                raise AimliteError(
                    f"run {run_hash!r} in {there.path} is not what it is here: it was copied, and not deleted in {self.path}"
                )
        self._reader.read(lambda view: _demand_movable(view, wanted, force))
        self._delete_for_good(wanted, moved=True)
        return True, []

    def _copy(self, wanted: list[str], dest: Repo | str | os.PathLike[str], with_prints: bool = False) -> dict[str, str]:
        there = _as_repo(dest)
        there._demand_writable()
        if os.path.realpath(there.path) == os.path.realpath(self.path):
            raise ValueError(f"the runs are in {self.path} already: name another repo")
        if not wanted:
            return {}
        taken = there._reader.read(lambda view: [run_hash for run_hash in wanted if view.holds_run(run_hash)])
        if taken:
            raise RunExistsError(f"there is a run {taken[0]!r} in {there.path} already, or in its trash; it is not written over")
        path = there._layout.base / f"{INCOMING}{os.getpid()}-{os.urandom(4).hex()}.zip"
        try:
            prints = self._export(wanted, path, with_prints)
            helper.run_helper(there._layout, "import", [str(path), False])
            for run_hash in wanted:
                copy_staged(self._layout.upload_dir(run_hash), there._layout.upload_dir(run_hash))
        finally:
            path.unlink(missing_ok=True)
        return prints

    def export_runs(self, path: str | os.PathLike[str], run_hashes: Iterable[str] | None = None) -> list[str]:
        """Writes runs (None: all) into one file, an archive that `import_runs` reads; returns their hashes. The file takes its name when it
        is whole, and replaces what was there. Raises RunNotFound, RunTrashed, CorruptionError, OSError."""
        if run_hashes is None:
            wanted = self._reader.read(lambda view: list(view.run_hashes()))
        else:
            wanted = listed_hashes(run_hashes)
        self._export(wanted, Path(os.path.abspath(os.path.expanduser(path))))
        return wanted

    def _export(self, wanted: list[str], path: Path, with_prints: bool = False) -> dict[str, str]:
        load("aimlite.storage.archive_file")
        from aimlite.storage.archive_file import fingerprint, write_archive

        def write(view: View) -> dict[str, str]:
            for run_hash in wanted:
                _demand_there(view, run_hash, self.path)
            write_archive(path, view, wanted)
            return {run_hash: fingerprint(view, run_hash) for run_hash in wanted} if with_prints else {}

        return self._reader.read(write)

    def import_runs(self, path: str | os.PathLike[str], *, skip_existing: bool = False) -> list[str]:
        """Takes the runs of an archive; returns their hashes. skip_existing: passes over those that are here already.

        Each run is there wholly or not at all. Raises ArchiveError (no archive, a damaged one, one of a newer aimlite), RunExistsError
        (then none is taken), ReadOnlyError, FileNotFoundError, OSError.
        """
        self._demand_writable()
        if not isinstance(skip_existing, bool):
            raise TypeError(f"skip_existing is True or False, not {skip_existing!r:.100}")
        archive = Path(os.path.abspath(os.path.expanduser(path)))
        with open(archive, "rb"):
            pass  # says itself what is wrong
        result: list[str] = helper.run_helper(self._layout, "import", [str(archive), skip_existing])
        return result

    def backup(self, path: str | os.PathLike[str]) -> str:
        """Makes a copy of the whole repo in a directory, which may not hold one; returns its `.aimlite`. Others may write meanwhile: what
        was acknowledged before the call is in it. It is a repo, too. Raises RepoExistsError, OSError."""
        load("aimlite.storage.backup")
        from aimlite.storage.backup import back_up

        root = repo_root(path)
        back_up(self._layout, root)
        return str(root / REPO_DIR)

    @classmethod
    def restore_backup(cls, backup: str | os.PathLike[str], path: str | os.PathLike[str]) -> Self:
        """Makes the repo of a backup anew at a path, which may not hold one, and opens it. Raises RepoNotFound, RepoExistsError,
        RepoFormatError, CorruptionError (the backup is damaged: nothing is made), OSError."""
        load("aimlite.errors", "aimlite.storage.backup", "aimlite.storage.check")
        from aimlite.errors import CorruptionError
        from aimlite.storage.backup import restore
        from aimlite.storage.check import check

        layout = Layout(repo_root(backup) / REPO_DIR)
        if not is_repo(layout):
            raise RepoNotFound(f"there is no backup at {layout.base.parent}: {layout.version} does not exist")
        problems = check(layout)
        if problems:
            raise CorruptionError(f"the backup is damaged: {problems[0]}", layout.base)
        restore(layout, repo_root(path))
        opened: Any = cls
        return opened(path)  # type: ignore[no-any-return]


def _as_repo(dest: Repo | str | os.PathLike[str]) -> Repo:
    load("aimlite.sdk.repo")
    from aimlite.sdk.repo import as_repo

    return as_repo(dest)


def _fingerprint(repo: Repo, run_hash: str) -> str:
    load("aimlite.storage.archive_file")
    from aimlite.storage.archive_file import fingerprint

    return repo._reader.read(lambda view: fingerprint(view, run_hash))


def _demand_there(view: View, run_hash: str, path: str) -> None:
    if not view.holds_run(run_hash):
        raise RunNotFound(f"no run {run_hash!r} in {path}")
    if view.is_trashed(run_hash):
        raise RunTrashed(f"run {run_hash!r} is in the trash of {path}; restore_runs([{run_hash!r}]) takes it out")


def _demand_movable(view: View, run_hashes: list[str], force: bool) -> None:
    for run_hash in run_hashes:
        _demand_there(view, run_hash, str(view.layout.base))
        if not force and view.run_state(run_hash).status == "running":
            raise RunActiveError(f"a process is writing run {run_hash!r}: end it first, or move it all the same with force=True")
