"""A repo as users open it: the runs in it, and its upkeep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aimlite.errors import AimliteError
from aimlite.storage import helper
from aimlite.storage.layout import open_layout, repo_root
from aimlite.storage.writer import Writer, end_segment, writer_for

if TYPE_CHECKING:
    from aimlite.sdk.run import Run
    from aimlite.storage.check import Problem
    from aimlite.storage.view import Reader, View


class Repo:
    """A directory of runs.

    path: the directory that holds `.aimlite`, or `.aimlite` itself; str or Path, `~` is expanded, missing directories are made. None:
    AIMLITE_REPO, else the nearest directory upwards that has one, else the working directory.

    Raises RepoFormatError (written by a newer aimlite), OSError (cannot be made or read).
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._root = repo_root(path)
        self._layout = open_layout(self._root)
        self._reader_: Reader | None = None
        self._closed = False

    @property
    def path(self) -> str:
        """The `.aimlite` directory."""
        return str(self._layout.base)

    def get_run(self, run_hash: str) -> Run | None:
        """The run with this hash, read-only; None when there is none."""
        from aimlite.sdk.run import Run

        if not isinstance(run_hash, str):
            raise TypeError(f"a run hash is a string, not {type(run_hash).__name__} {run_hash!r:.100}")
        return Run(run_hash, repo=self, read_only=True) if self._reader.read(lambda view: view.has_run(run_hash)) else None

    def iter_runs(self) -> Iterator[Run]:
        """All runs, read-only, newest first, as of the call."""
        from aimlite.sdk.run import Run

        view = self._view()
        return (Run._existing(run_hash, self) for run_hash in view.run_hashes())

    def list_all_runs(self) -> list[str]:
        """The hashes of all runs, newest first."""
        return self._reader.read(lambda view: list(view.run_hashes()))

    def total_runs_count(self) -> int:
        """How many runs there are; takes time in the unmerged ones only."""
        return self._reader.read(lambda view: view.run_count())

    def merge(self) -> dict[str, Any]:
        """Moves all ended journals into the tree and waits for it. Reading never needs it; it makes files smaller and the first read of a
        process faster.

        Returns: {'segments', 'bytes', 'points', 'commits', 'compacted', 'busy', 'damaged'}: what was done, and the damaged journals left
        alone.
        Raises CorruptionError, OSError (full disk), MergeError; nothing is lost then.
        """
        end_segment(self._layout)
        result: dict[str, Any] = helper.run_helper(self._layout, "merge")
        return result

    def check(self, full: bool = True) -> list[Problem]:
        """Everything that is wrong in the repo; empty when it is sound. full: also read every file's bytes and compare every summary, head
        and index with what it stands for."""
        from aimlite.storage.check import check

        return check(self._layout, full)

    def repair(self) -> list[str]:
        """Mends what `check` reports: keeps every intact record, sets damaged files aside under `.aimlite/damaged/`, rebuilds what can be
        rebuilt. Returns what it did, a line each.

        Raises MergeError, OSError. Journals that a living process holds are left to it.
        """
        end_segment(self._layout)
        done: list[str] = helper.run_helper(self._layout, "repair")
        return done

    def close(self) -> None:
        """Gives up what the repo holds open. Runs opened through it go on."""
        self._reader_ = None
        self._closed = True

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Repo) and self._layout == other._layout

    def __hash__(self) -> int:
        return hash(self._layout)

    def __repr__(self) -> str:
        return f"<Repo {str(self._root)!r}>"

    @property
    def _reader(self) -> Reader:
        if self._reader_ is None:
            if self._closed:
                raise AimliteError(f"the repo {self._root} was closed; open it again with Repo({str(self._root)!r})")
            from aimlite.storage.view import reader_for

            self._reader_ = reader_for(self._layout)
        return self._reader_

    def _view(self) -> View:
        return self._reader.view()

    def _writer(self) -> Writer:
        if not self._layout.version.exists():
            self._layout = open_layout(self._root)  # removed since: made anew
        return writer_for(self._layout)


def as_repo(repo: Repo | str | os.PathLike[str] | None) -> Repo:
    """The repo that a `repo=` argument names."""
    return repo if isinstance(repo, Repo) else Repo(repo)
