"""A repo as users open it: the runs in it, and its upkeep."""

from __future__ import annotations

import enum
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aimlite.errors import AimliteError, ReadOnlyError, RepoNotFound, RunNotFound, RunTrashed
from aimlite.sdk.report import QueryReportMode
from aimlite.sdk.sequence_types import SEQUENCE_TYPES, checked_types
from aimlite.sdk.transfer import RepoTransfer
from aimlite.storage import helper
from aimlite.storage.layout import FORMAT, REPO_DIR, Layout, is_repo, open_layout, read_format, repo_root
from aimlite.storage.loading import load
from aimlite.storage.writer import Writer, end_segment, writer_for

if TYPE_CHECKING:
    from aimlite.sdk.catalog import Experiment, Tag
    from aimlite.sdk.queries import Options, QueryMetricCollection, QueryObjectCollection, QueryRunCollection
    from aimlite.sdk.run import Run
    from aimlite.storage.check import Problem
    from aimlite.storage.view import FrozenReader, Reader, View


class RepoStatus(enum.Enum):
    """What `Repo.check_repo_status` finds. PATCH_REQUIRED is Aim's; no repo of aimlite is ever in that state."""

    MISSING = "missing"
    UPDATE_REQUIRED = "update required"
    PATCH_REQUIRED = "patch required"
    UPDATED = "updated"


class Repo(RepoTransfer):
    """A directory of runs.

    path: the directory that holds `.aimlite`, or `.aimlite` itself; str or Path, `~` is expanded, missing directories are made. None:
    AIMLITE_REPO, else `repo` in the user's config, else the nearest directory upwards that has one, else the working directory.
    read_only: True makes nothing and refuses every write. init: taken for scripts written for Aim; a repo is made wherever none is.

    Raises RepoNotFound (read_only), RepoFormatError (written by a newer aimlite), OSError (cannot be made or read).
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, read_only: bool | None = None, init: bool = False) -> None:
        self.read_only = bool(read_only)
        self._root = repo_root(path)
        self._layout = open_layout(self._root, create=not self.read_only)
        self._reader_: Reader | FrozenReader | None = None
        self._closed = self._is_frozen = False

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], read_only: bool | None = None, init: bool = False) -> Repo:
        """The repo at a path. Raises RepoNotFound when there is none, unless `init` asks for one to be made."""
        if not init and not cls.exists(path):
            raise RepoNotFound(f"there is no repo at {repo_root(path)}; make one with init=True or `aimlite init`")
        return cls(path, read_only=read_only)

    @classmethod
    def default_repo(cls, init: bool = False) -> Repo:
        """The repo that `Repo()` means. Raises RepoNotFound when there is none, unless `init` asks for one to be made."""
        return cls.from_path(cls.default_repo_path(), init=init)

    @classmethod
    def default_repo_path(cls) -> str:
        """The directory that `Repo()` would hold its `.aimlite` in."""
        return str(repo_root())

    @classmethod
    def exists(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a repo is there. Nothing is made."""
        return is_repo(Layout(repo_root(path) / REPO_DIR))

    @classmethod
    def rm(cls, path: str | os.PathLike[str]) -> None:
        """Deletes a repo with everything in it. Raises RepoNotFound, OSError."""
        if not cls.exists(path):
            raise RepoNotFound(f"there is no repo at {repo_root(path)}")
        shutil.rmtree(repo_root(path) / REPO_DIR)

    @classmethod
    def check_repo_status(cls, path: str | os.PathLike[str]) -> RepoStatus:
        """MISSING, UPDATED, or UPDATE_REQUIRED where a newer aimlite wrote it. Raises RepoFormatError when it is no repo."""
        if not cls.exists(path):
            return RepoStatus.MISSING
        return RepoStatus.UPDATED if cls.get_version(path)[0] <= FORMAT else RepoStatus.UPDATE_REQUIRED

    @classmethod
    def get_version(cls, path: str | os.PathLike[str]) -> tuple[int, int]:
        """(format, 0) of a repo. Raises RepoNotFound, RepoFormatError."""
        return read_format(Layout(repo_root(path) / REPO_DIR)), 0

    @property
    def path(self) -> str:
        """The `.aimlite` directory."""
        return str(self._layout.base)

    def get_run(self, run_hash: str) -> Run | None:
        """The run with this hash, read-only; None when there is none, or it is in the trash."""
        load("aimlite.sdk.run")
        from aimlite.sdk.run import Run

        if not isinstance(run_hash, str):
            raise TypeError(f"a run hash is a string, not {type(run_hash).__name__} {run_hash!r:.100}")
        return Run(run_hash, repo=self, read_only=True) if self._reader.read(lambda view: view.has_run(run_hash)) else None

    def edit_run(self, run_hash: str) -> Run:
        """A run whose properties and tags may be set without resuming it: it stays as it ended, or goes on where it runs. It takes no
        params and points. Raises RunNotFound, RunTrashed."""
        load("aimlite.sdk.run")
        from aimlite.sdk.run import Run

        self._demand_writable()
        if not self.run_exists(run_hash):
            if self._reader.read(lambda view: view.holds_run(run_hash)):
                raise RunTrashed(f"run {run_hash!r} is in the trash of {self.path}; restore_runs([{run_hash!r}]) takes it out")
            raise RunNotFound(f"no run {run_hash!r} in {self.path}")
        return Run._ended(run_hash, self)

    def run_exists(self, run_hash: str) -> bool:
        return self.get_run(run_hash) is not None

    def iter_runs(self) -> Iterator[Run]:
        """All runs, read-only, newest first, as of the call. Warns as `list_all_runs`."""
        load("aimlite.sdk.run")
        from aimlite.sdk.run import Run

        view = self._view()
        warn_of_damage(view.damaged_journals())
        return (Run._existing(run_hash, self) for run_hash in view.run_hashes())

    def list_all_runs(self) -> list[str]:
        """The hashes of all runs, newest first. Emits a RuntimeWarning when some may be missing because a journal is damaged."""
        hashes, damaged = self._reader.read(lambda view: (list(view.run_hashes()), view.damaged_journals()))
        warn_of_damage(damaged)
        return hashes

    def list_corrupted_runs(self) -> list[str]:
        """The hashes of the runs that damage keeps from being read completely, as far as they can be named.

        Reads the unmerged journals and the checksums of the tree's files, and the runs themselves only where those fail. Blobs are not
        looked at: `check` does that. Raises CorruptionError when the tree cannot be opened: then no run in it can be read.
        """
        load("aimlite.storage.salvage")
        from aimlite.storage.salvage import corrupted_runs

        return self._reader.read(corrupted_runs)

    def query_runs(
        self,
        query: str = "",
        paginated: bool = False,
        offset: str | None = None,
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryRunCollection:
        """The runs that an AimQL query matches; docs/aimql.md tells what one may say.

        paginated, offset: the hash after which to go on; paginated alone changes nothing. order_by: an AimQL expression, what is missing
        sorts last. limit: at most so many. timeout: seconds, None is no limit.
        Raises QuerySyntaxError at once; QueryTimeoutError and QueryLimitError when it is read.
        """
        load("aimlite.sdk.queries")
        from aimlite.sdk.queries import QueryRunCollection

        if offset is not None and not isinstance(offset, str):
            raise TypeError(f"offset is the hash of a run, not {type(offset).__name__} {offset!r:.100}")
        return QueryRunCollection(self, query, _options(order_by, descending, limit, timeout, report_mode), offset)

    def query_metrics(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryMetricCollection:
        """The metrics that an AimQL query matches. Arguments and errors as those of `query_runs`."""
        load("aimlite.sdk.queries")
        from aimlite.sdk.queries import QueryMetricCollection

        return QueryMetricCollection(self, query, _options(order_by, descending, limit, timeout, report_mode))

    def query_images(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryObjectCollection:
        """The sequences of images that an AimQL query matches. Arguments and errors as those of `query_runs`."""
        return self._query_objects("images", query, _options(order_by, descending, limit, timeout, report_mode))

    def query_audios(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryObjectCollection:
        """The sequences of audios, as `query_images`."""
        return self._query_objects("audios", query, _options(order_by, descending, limit, timeout, report_mode))

    def query_texts(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryObjectCollection:
        """The sequences of texts, as `query_images`."""
        return self._query_objects("texts", query, _options(order_by, descending, limit, timeout, report_mode))

    def query_figure_objects(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryObjectCollection:
        """The sequences of figures, as `query_images`."""
        return self._query_objects("figures", query, _options(order_by, descending, limit, timeout, report_mode))

    def query_distributions(
        self,
        query: str = "",
        report_mode: QueryReportMode = QueryReportMode.PROGRESS_BAR,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        timeout: float | None = 10.0,
    ) -> QueryObjectCollection:
        """The sequences of distributions, as `query_images`."""
        return self._query_objects("distributions", query, _options(order_by, descending, limit, timeout, report_mode))

    def _query_objects(self, kind: str, query: str, options: Options) -> QueryObjectCollection:
        load("aimlite.sdk.queries")
        from aimlite.sdk.queries import QueryObjectCollection

        return QueryObjectCollection(self, query, options, kind)

    def explain(self, query: str = "", kind: str = "runs", timeout: float | None = 10.0) -> str:
        """Runs a query and tells how: the ranges of the index, estimated and actual rows, times, what was left to evaluate. kind: 'runs'
        or 'metrics'."""
        if kind not in ("runs", "metrics"):
            raise ValueError(f"kind is 'runs' or 'metrics', not {kind!r:.100}")
        asked = self.query_runs if kind == "runs" else self.query_metrics
        return asked(query, report_mode=QueryReportMode.DISABLED, timeout=timeout).explain()

    def collect_params_info(self) -> dict[str, Any]:
        """Every param of any run, nested as params are; each leaf is {'__example_type__': the type of one value}. Warns as
        `list_all_runs`."""
        load("aimlite.query.explain")
        from aimlite.query.explain import params_info

        found, damaged = self._reader.read(lambda view: (params_info(view), view.damaged_journals()))
        warn_of_damage(damaged)
        return found

    def collect_sequence_info(self, sequence_types: str | Iterable[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """{type: {name: [context, …]}} of all runs, for each type named. Raises ValueError for a type that there is not. Warns as
        `list_all_runs`."""
        load("aimlite.query.explain", "aimlite.sdk.context")
        from aimlite.query.explain import sequence_names
        from aimlite.sdk.context import Context

        wanted = checked_types(sequence_types)
        found: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in wanted}
        for kind, contexts in found.items():
            for name, context in self._reader.read(partial(sequence_names, kind=kind)):
                contexts.setdefault(name, []).append(Context(context).to_dict())
        warn_of_damage(self._reader.read(lambda view: view.damaged_journals()))
        return found

    def tags(self) -> list[Tag]:
        """The tags of its runs, and those that only have a color or comment, by name."""
        load("aimlite.sdk.catalog")
        from aimlite.sdk import catalog

        return catalog.tags(self)

    def set_tag(self, name: str, *, color: str | None = None, comment: str | None = None) -> None:
        """Gives a tag a color (any string of up to 50 characters: a page shows CSS colors) and a comment (up to 200). None leaves as it
        is, '' takes away. Raises TypeError, ValueError, ReadOnlyError."""
        load("aimlite.sdk.catalog")
        from aimlite.sdk import catalog

        catalog.set_tag(self, name, color, comment)

    def rename_tag(self, name: str, new_name: str) -> int:
        """Renames a tag on every run that has it, its color and comment included, unless the new name has some; returns how many runs.
        Each run changes whole, one after the other: do it again should it be broken off. Raises TypeError, ValueError, ReadOnlyError.
        """
        load("aimlite.sdk.catalog")
        from aimlite.sdk import catalog

        return catalog.rename_tag(self, name, new_name)

    def delete_tag(self, name: str) -> int:
        """Takes a tag from every run that has it, and its color and comment; returns how many runs. Raises as `rename_tag`."""
        load("aimlite.sdk.catalog")
        from aimlite.sdk import catalog

        return catalog.delete_tag(self, name)

    def experiments(self) -> list[Experiment]:
        """The experiments of its runs, and those that only have a description or notes, by name."""
        load("aimlite.sdk.catalog")
        from aimlite.sdk import catalog

        return catalog.experiments(self)

    def experiment(self, name: str) -> Experiment:
        """The experiment of a name, with its description and notes; it need not have runs."""
        load("aimlite.sdk.catalog")
        from aimlite.sdk.catalog import Experiment

        return Experiment(self, name)

    def list_active_runs(self) -> list[str]:
        """The hashes of the runs that a process is writing, newest first. Looks at those alone that the journals name.
        Warns as `list_all_runs`."""
        hashes, damaged = self._reader.read(lambda view: (view.running(), view.damaged_journals()))
        warn_of_damage(damaged)
        return hashes

    @staticmethod
    def available_sequence_types() -> list[str]:
        """What `collect_sequence_info` takes."""
        return list(SEQUENCE_TYPES)

    @staticmethod
    def validate_sequence_types(sequence_types: str | Iterable[str]) -> None:
        """Raises ValueError for a type of sequence that there is not."""
        checked_types(sequence_types)

    def total_runs_count(self) -> int:
        """How many runs there are; takes time in the unmerged ones only. Warns as `list_all_runs`."""
        count, damaged = self._reader.read(lambda view: (view.run_count(), view.damaged_journals()))
        warn_of_damage(damaged)
        return count

    def frozen(self) -> Repo:
        """This repo as it is now: all that is read through it, and through its runs, is of one view. Reading many runs is faster so."""
        load("aimlite.storage.view")
        from aimlite.storage.view import FrozenReader

        frozen = copy(self)
        frozen._reader_, frozen._is_frozen = FrozenReader(self._reader), True
        return frozen

    def match_hashes(self, prefix: str, limit: int = 10) -> list[str]:
        """The hashes of runs that begin with prefix, ascending, at most `limit`; a run whose hash is the prefix itself is the only match.
        Takes time in the matches and the unmerged runs only."""
        if not isinstance(prefix, str):
            raise TypeError(f"the prefix of a run hash is a string, not {type(prefix).__name__} {prefix!r:.100}")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit is an integer of at least 1, not {limit!r}")
        if not prefix.isascii():  # no hash has other characters
            return []
        return self._reader.read(lambda view: view.hashes_with_prefix(prefix, limit))

    def stats(self) -> dict[str, Any]:
        """What the repo holds and takes on disk, as of one view.

        Returns: {'runs', 'status', 'sequences', 'points', 'bytes', 'bytes_per_point', 'journals', 'levels', 'generation'}; docs/api.md says
        what each is. Takes time in runs and sequences, not in points. Warns as `list_all_runs`.
        """
        load("aimlite.storage.stats")
        from aimlite.storage.stats import stats

        found, damaged = self._reader.read(lambda view: (stats(view), view.damaged_journals()))
        warn_of_damage(damaged)
        return found

    def merge(self) -> dict[str, Any]:
        """Moves all ended journals into the tree and waits for it. Reading never needs it; it makes files smaller and the first read of a
        process faster.

        Returns: {'segments', 'bytes', 'points', 'commits', 'compacted', 'busy', 'damaged'}: what was done, and the damaged journals left
        alone.
        Raises CorruptionError, OSError (full disk), MergeError; nothing is lost then.
        """
        self._demand_writable()
        end_segment(self._layout)
        result: dict[str, Any] = helper.run_helper(self._layout, "merge")
        return result

    def check(self, full: bool = True) -> list[Problem]:
        """Everything that is wrong in the repo; empty when it is sound. full: also read every file's bytes and compare every summary, head
        and index with what it stands for."""
        load("aimlite.storage.check")
        from aimlite.storage.check import check

        return check(self._layout, full)

    def repair(self) -> list[str]:
        """Mends what `check` reports: keeps every intact record, sets damaged files aside under `.aimlite/damaged/`, rebuilds what can be
        rebuilt. Returns what it did, a line each.

        Raises MergeError, OSError. Journals that a living process holds are left to it.
        """
        self._demand_writable()
        end_segment(self._layout)
        done: list[str] = helper.run_helper(self._layout, "repair")
        return done

    def close(self) -> None:
        """Gives up what the repo holds open. Runs opened through it go on, and are read and written as before."""
        if not self._is_frozen:
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
    def _reader(self) -> Reader | FrozenReader:
        if self._closed:
            raise AimliteError(f"the repo {self._root} was closed; open it again with Repo({str(self._root)!r})")
        return self._run_reader

    @property
    def _run_reader(self) -> Reader | FrozenReader:
        """For what a run of it reads, which goes on when the repo was closed."""
        if self._reader_ is None:
            load("aimlite.storage.view")
            from aimlite.storage.view import reader_for

            self._reader_ = reader_for(self._layout)
        return self._reader_

    def _view(self) -> View:
        return self._reader.view()

    def _demand_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"the repo {self._root} was opened read-only; open it with Repo({str(self._root)!r}) to write")

    def _writer(self) -> Writer:
        self._demand_writable()
        if not self._layout.version.exists():
            self._layout = open_layout(self._root)  # removed since: made anew
        return writer_for(self._layout)


def warn_of_damage(journals: list[Path]) -> None:
    if journals:
        more = f" and {len(journals) - 1} more" if len(journals) > 1 else ""
        message = f"runs may be missing here: a journal is damaged; what is intact can be kept with repair() ({journals[0]}{more})"
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _options(order_by: object, descending: object, limit: object, timeout: object, report_mode: int) -> Options:
    load("aimlite.sdk.queries")
    from aimlite.sdk.queries import Options

    if order_by is not None and not isinstance(order_by, str):
        raise TypeError(f"order_by is an AimQL expression, not {type(order_by).__name__} {order_by!r:.100}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ValueError(f"limit is a number of rows or None, not {limit!r:.100}")
    if timeout is not None and (not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout > 0):
        raise ValueError(f"timeout is a number of seconds or None, not {timeout!r:.100}")
    return Options(order_by, bool(descending), limit, timeout, QueryReportMode(report_mode))


def as_repo(repo: Repo | str | os.PathLike[str] | None) -> Repo:
    """The repo that a `repo=` argument names."""
    return repo if isinstance(repo, Repo) else Repo(repo)
