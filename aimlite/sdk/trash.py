"""Deleting runs and sequences, and taking runs back out of the trash."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from aimlite._ext import journal
from aimlite._ext.recorder import sequence_key
from aimlite.errors import RunActiveError, RunNotFound, RunTrashed
from aimlite.sdk.sequence_types import checked_types
from aimlite.storage import helper, params
from aimlite.storage.layout import Layout
from aimlite.storage.loading import load
from aimlite.storage.runs import TRASHED
from aimlite.storage.writer import Writer, end_segment

if TYPE_CHECKING:
    from aimlite.sdk.repo import Repo
    from aimlite.storage.view import FrozenReader, Reader, View


@dataclass(frozen=True)
class TrashedRun:
    """A run in the trash. name, experiment: as the run had them. created_at, trashed_at: naive datetimes in UTC."""

    hash: str
    name: str
    experiment: str
    created_at: datetime
    trashed_at: datetime


class RepoTrash:
    """What a Repo can delete. A run in the trash is whole, and no listing, count, query or look-up has it; a run deleted for good is gone,
    and its hash is free again."""

    _layout: Layout

    @property
    @abstractmethod
    def path(self) -> str: ...

    @property
    @abstractmethod
    def _reader(self) -> Reader | FrozenReader: ...

    @abstractmethod
    def _demand_writable(self) -> None: ...

    @abstractmethod
    def _writer(self) -> Writer: ...

    def delete_run(self, run_hash: str, *, permanent: bool = False, force: bool = False) -> bool:
        """Puts a run into the trash, or deletes it for good; returns True.

        permanent: for good, from the trash too. force: also when a process is writing it. In the trash it goes on recording; what it writes
        after it was deleted for good is lost, and it is not told.
        Raises RunNotFound, RunTrashed (it is in the trash already), RunActiveError, ReadOnlyError; permanent: as `merge`.
        """
        return self.delete_runs([run_hash], permanent=permanent, force=force)[0]

    def delete_runs(self, run_hashes: Iterable[str], *, permanent: bool = False, force: bool = False) -> tuple[bool, list[str]]:
        """As `delete_run`, of several; nothing is deleted when it raises one of those errors. Returns (True, []): Aim's success, and the
        runs that remain."""
        self._demand_writable()
        wanted = listed_hashes(run_hashes)
        self._reader.read(lambda view: _demand_deletable(view, wanted, self.path, permanent, force))
        if permanent:
            self._delete_for_good(wanted)
        else:
            self._set_trashed(wanted, time.time_ns() // 1000)
        return True, []

    def delete_experiment(self, name: str, *, permanent: bool = False, force: bool = False) -> bool:
        """As `delete_run`, of all runs of an experiment, those in the trash not counted. Raises RunNotFound when it has none."""
        self._demand_writable()
        if not isinstance(name, str):
            raise TypeError(f"the name of an experiment is a string, not {type(name).__name__} {name!r:.100}")
        found = self._reader.read(lambda view: [held for held in view.run_hashes() if _experiment(view, held) == name])
        if not found:
            raise RunNotFound(f"no run in {self.path} is of the experiment {name!r}")
        return self.delete_runs(found, permanent=permanent, force=force)[0]

    def delete_sequence(
        self, run_hash: str, name: str, context: Mapping[str, Any] | None = None, *, kind: str = "metric", force: bool = False
    ) -> bool:
        """Deletes a metric of a run for good, or another sequence, with all its points; returns True. kind: of `available_sequence_types`.
        force: also when a process is writing the run; what it tracks afterwards counts. Raises RunNotFound, RunTrashed, KeyError when the
        run has no such sequence, ValueError for a kind that there is not, RunActiveError, ReadOnlyError; as `merge`."""
        self._demand_writable()
        (kind,) = checked_types(kind)
        name, plain, _ = sequence_key(name, context)

        def look(view: View) -> None:
            _demand_deletable(view, [run_hash], self.path, False, force)
            if view.sequence(run_hash, name, plain, kind) is None:
                raise KeyError(f"run {run_hash} has no {kind} {name!r} with context {plain!r}")

        self._reader.read(look)
        self._delete([], [(run_hash, name if kind == "metric" else (kind, name), plain)])
        return True

    def trash(self) -> list[TrashedRun]:
        """The runs in the trash, the last one put there first."""
        return self._reader.read(_trash)

    def restore_runs(self, run_hashes: Iterable[str]) -> list[str]:
        """Takes runs out of the trash: they are as they would be had they never been there. Returns their hashes. Raises RunNotFound when
        one is not in the trash; then none is taken out."""
        self._demand_writable()
        wanted = listed_hashes(run_hashes)
        self._demand_trashed(wanted)
        self._set_trashed(wanted, None)
        return wanted

    def purge(self, run_hashes: Iterable[str] | None = None, *, older_than: timedelta | None = None, force: bool = False) -> list[str]:
        """Deletes for good what is in the trash: these runs, or all, or what has been there for longer than `older_than`. Returns their
        hashes. force: as `delete_run`. Raises RunNotFound when one is not in the trash, RunActiveError, ReadOnlyError; as `merge`."""
        self._demand_writable()
        if older_than is not None and not isinstance(older_than, timedelta):
            raise TypeError(f"older_than is a timedelta or None, not {type(older_than).__name__} {older_than!r:.100}")
        if run_hashes is None:
            latest = None if older_than is None else _utc(time.time_ns() // 1000) - older_than
            wanted = [run.hash for run in self.trash() if latest is None or run.trashed_at <= latest]
        elif older_than is not None:
            raise ValueError("run_hashes and older_than exclude each other: older_than picks from all of the trash")
        else:
            wanted = listed_hashes(run_hashes)
            self._demand_trashed(wanted)
        self._reader.read(lambda view: _demand_deletable(view, wanted, self.path, True, force))
        if wanted:
            self._delete_for_good(wanted)
        return wanted

    def prune(self) -> dict[str, int]:
        """Merges, and removes what nothing needs any more: the content of large params that were replaced, and what killed processes
        left. Returns {'blobs', 'references', 'freed_bytes'}: files deleted, mentions of them dropped, and how much smaller the repo became.
        Raises as `merge`."""
        self._demand_writable()
        end_segment(self._layout)
        result: dict[str, int] = helper.run_helper(self._layout, "prune")
        return result

    def _delete_for_good(self, runs: list[str], moved: bool = False) -> None:
        """With what their artifacts have elsewhere, unless they were moved; that goes last: a run that is still there has all of it."""
        load("aimlite.sdk.artifacts", "aimlite.sdk.run")
        from aimlite.sdk.artifacts import remove_uploaded, uploaded_by
        from aimlite.sdk.run import Run

        repo = cast("Repo", self)
        uploaded = [artifact for run_hash in runs for artifact in uploaded_by(Run._existing(run_hash, repo)) if not moved]
        self._delete(runs)
        remove_uploaded(uploaded)

    def _delete(self, runs: list[str], sequences: list[tuple[str, str | tuple[str, str], dict[str, Any]]] | None = None) -> None:
        end_segment(self._layout)
        helper.run_helper(self._layout, "delete", [runs, [list(sequence) for sequence in sequences or []]])

    def _set_trashed(self, run_hashes: list[str], time_us: int | None) -> None:
        writer = self._writer()
        states = self._reader.read(lambda view: [view.run_state(run_hash) for run_hash in run_hashes])
        for run_hash, state in zip(run_hashes, states, strict=True):
            writer.edit_run(run_hash, state.order, state.created, [(journal.PROPERTY, params.packb([TRASHED, time_us]))])

    def _demand_trashed(self, run_hashes: list[str]) -> None:
        trashed = set(self._reader.read(lambda view: view.trashed_runs()))
        for run_hash in run_hashes:
            if run_hash not in trashed:
                raise RunNotFound(f"no run {run_hash!r} in the trash of {self.path}; repo.trash() lists what is there")


def _trash(view: View) -> list[TrashedRun]:
    found = []
    for run_hash in view.trashed_runs():
        properties, state = view.properties(run_hash), view.run_state(run_hash)
        name = properties.get("name") or f"Run: {run_hash}"
        created, trashed = _utc(state.created), _utc(properties[TRASHED])
        found.append(TrashedRun(run_hash, name, properties.get("experiment", "default"), created, trashed))
    return found


def _experiment(view: View, run_hash: str) -> Any:
    return view.properties(run_hash).get("experiment", "default")


def _demand_deletable(view: View, run_hashes: list[str], path: str, permanent: bool, force: bool) -> None:
    for run_hash in run_hashes:
        if not view.holds_run(run_hash):
            raise RunNotFound(f"no run {run_hash!r} in {path}")
        if not permanent and view.is_trashed(run_hash):
            raise RunTrashed(f"run {run_hash!r} is in the trash of {path} already; permanent=True deletes it for good")
        if not force and view.run_state(run_hash).status == "running":
            raise RunActiveError(f"a process is writing run {run_hash!r}: end it first, or delete it all the same with force=True")


def listed_hashes(run_hashes: Iterable[str]) -> list[str]:
    """Each once. Raises TypeError."""
    if isinstance(run_hashes, str):
        raise TypeError(f"several run hashes are asked for, not the one string {run_hashes!r:.100}")
    wanted = list(dict.fromkeys(run_hashes))
    for run_hash in wanted:
        if not isinstance(run_hash, str):
            raise TypeError(f"a run hash is a string, not {type(run_hash).__name__} {run_hash!r:.100}")
    return wanted


def _utc(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, timezone.utc).replace(tzinfo=None)
