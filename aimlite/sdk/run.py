"""A run as users write and read it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from aimlite._ext import journal
from aimlite._ext.recorder import Recorder, SequenceWriter, sequence_key
from aimlite.errors import ReadOnlyError, RunClosedError, RunNotFound
from aimlite.sdk.params import ParamsView, delete_payload, plain, plain_path, set_payloads
from aimlite.sdk.repo import Repo, as_repo
from aimlite.storage import params
from aimlite.storage.runs import STATUS_CODES

if TYPE_CHECKING:
    from aimlite.sdk.metric import Metric
    from aimlite.storage.runs import RunState

_HASH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_DURABILITIES = ("process", "power")


class Run(MutableMapping[Any, Any]):
    """One execution: its params, metrics and properties. A mapping over its params.

    run_hash: None makes a new run with a hash of 24 hex characters. A hash that a run has resumes it; any other names a new run: 1 to 128
    characters of `A-Z a-z 0-9 _ . -`, not beginning with a dot. Any number of processes may write one run.
    repo: where; as `Repo(path)` takes it, or a Repo. read_only: only read; RunNotFound if there is no such run.
    experiment: 'default' for a new run when not given, unchanged for an old one.
    durability: 'process' (what a call wrote survives the process, however it is killed) or 'power' (it survives a power failure too);
    None: AIMLITE_DURABILITY, else 'process'. sync_interval: force everything to the disk at least every so many seconds.

    Raises TypeError, ValueError, RunNotFound, RepoFormatError, OSError.
    """

    def __init__(
        self,
        run_hash: str | None = None,
        *,
        repo: Repo | str | os.PathLike[str] | None = None,
        read_only: bool = False,
        experiment: str | None = None,
        durability: str | None = None,
        sync_interval: float | None = None,
    ) -> None:
        self._recorder: Recorder | None = None
        self._closed = False
        self.read_only = bool(read_only)
        if run_hash is not None:
            check_hash(run_hash)
        elif read_only:
            raise ValueError("read_only=True needs the hash of the run to read")
        if experiment is not None and not isinstance(experiment, str):
            raise TypeError(f"an experiment is named by a string, not {type(experiment).__name__} {experiment!r:.100}")
        power = _is_power(durability)
        interval = _interval(sync_interval)
        self.repo = as_repo(repo)
        self.hash = run_hash or new_hash()
        known = run_hash is not None and self.repo._reader.read(lambda view: view.has_run(self.hash))
        if read_only:
            if not known:
                raise RunNotFound(f"no run {run_hash!r} in {self.repo.path}")
            return
        self._open(known, power)
        if experiment is not None:
            self._set_property("experiment", experiment)
        if interval is not None:
            self.repo._writer().sync_every(interval)

    @classmethod
    def _existing(cls, run_hash: str, repo: Repo) -> Run:
        """A run known to exist, read-only, without looking it up again."""
        run = cls.__new__(cls)
        run._recorder, run._closed, run.read_only, run.repo, run.hash = None, False, True, repo, run_hash
        return run

    def _open(self, known: bool, power: bool) -> None:
        writer = self.repo._writer()
        if not known:
            self._recorder = writer.open_run(self.hash, power=power)
            return
        reader, run_hash = self.repo._reader, self.hash
        last_steps: dict[bytes, int] = {}
        looked = False

        def last_step(_: str, packed: bytes) -> int | None:
            nonlocal looked
            if not looked:
                view = reader.view()
                for sequence in view.sequences(run_hash):
                    summary = view.summary(sequence)
                    if summary is not None:
                        last_steps[sequence.packed] = summary.last_step
                looked = True
            return last_steps.get(packed)

        order = self._state().order
        self._recorder = writer.open_run(run_hash, order, last_step, power)

    # -- tracking ----

    def track(
        self,
        value: Any,
        name: str | None = None,
        step: int | None = None,
        epoch: float | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Records one point, or one of each metric of a dict, all at once.

        value: a number (Python, numpy scalar, array or tensor of one element), or {name: number} with `name` left out. step: an integer;
        None counts on from the greatest step of this metric. epoch: a number. context: a dict that tells metrics of one name apart. When
        it has returned the data survives the process.
        Raises TypeError, ValueError, RunClosedError, ReadOnlyError, OSError (full disk: nothing of the call was kept, all before it was).
        """
        recorder = self._recorder
        if recorder is None:
            raise self._not_writable()
        recorder.track(value, name, step, epoch, context)

    def track_columns(
        self, name: str, values: Any, steps: Any = None, epochs: Any = None, times: Any = None, context: Mapping[str, Any] | None = None
    ) -> None:
        """Records n points of one metric, all or none.

        values: numbers[n]. steps: integers[n], None counts on. epochs: numbers[n] or one number. times: seconds since 1970 [n], None is
        now.
        Raises as `track`.
        """
        from aimlite.sdk.columns import as_epochs, as_steps, as_times, as_values

        recorder = self._writable()
        sequence = recorder.sequence(name, context)
        column, are_ints = as_values(values)
        n = len(column)
        recorder.track_columns(sequence, column, are_ints, as_steps(steps, n), as_epochs(epochs, n), as_times(times, n))

    def sequence(self, name: str, context: Mapping[str, Any] | None = None) -> SequenceWriter:
        """A handle whose `track(value, step=None, epoch=None)` skips looking up name and context."""
        return self._writable().sequence(name, context)

    def sync(self) -> None:
        """Forces all that this process recorded to the disk: when it returns, that survives a power failure. Raises OSError."""
        self._writable()
        self.repo._writer().sync()

    # -- params ----

    def __getitem__(self, key: Any) -> Any:
        return self._get_param(plain_path(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._set_param(plain_path(key), value)

    def __delitem__(self, key: Any) -> None:
        self._delete_param(plain_path(key))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __bool__(self) -> bool:
        return True

    @property
    def params(self) -> ParamsView:
        """The params as a mapping."""
        return ParamsView(self)

    def _get_param(self, path: tuple[str | int, ...]) -> Any:
        try:
            return self.repo._reader.read(lambda view: view.params(self.hash, path))
        except KeyError:
            if not path:
                return {}
            raise KeyError(f"run {self.hash} has no param {'.'.join(map(str, path))!r}") from None

    def _set_param(self, path: tuple[str | int, ...], value: Any) -> None:
        recorder = self._writable()
        value = plain(value, path)
        if not path and not isinstance(value, dict):
            raise TypeError(f"run[...] takes a dict, not {type(value).__name__}")
        number = recorder.number.to_bytes(4, "little")
        recorder.append([(journal.PARAMS, number + payload) for payload in set_payloads(path, value, self.repo._layout.blobs)])

    def _delete_param(self, path: tuple[str | int, ...]) -> None:
        recorder = self._writable()
        if path:
            self._get_param(path)  # KeyError when nothing is there
        recorder.append([(journal.PARAMS, recorder.number.to_bytes(4, "little") + delete_payload(path))])

    # -- metrics ----

    def metrics(self) -> Iterator[Metric]:
        """Its metrics, by name and context."""
        from aimlite.sdk.metric import Metric

        sequences = self.repo._reader.read(lambda view: view.sequences(self.hash))
        return (Metric(self, sequence) for sequence in sequences)

    def get_metric(self, name: str, context: Mapping[str, Any] | None = None) -> Metric | None:
        """The metric of this name and context (None is {}), or None when there is none."""
        from aimlite.sdk.metric import Metric

        plain_name, plain_context, _ = sequence_key(name, context)
        sequence = self.repo._reader.read(lambda view: view.sequence(self.hash, plain_name, plain_context))
        return None if sequence is None else Metric(self, sequence)

    # -- properties ----

    @property
    def name(self) -> str:
        """A name for people; 'Run: <hash>' until set."""
        return str(self._property("name", f"Run: {self.hash}"))

    @name.setter
    def name(self, name: str) -> None:
        self._set_property("name", _text("name", name))

    @property
    def description(self) -> str | None:
        return cast("str | None", self._property("description", None))

    @description.setter
    def description(self, description: str | None) -> None:
        self._set_property("description", None if description is None else _text("description", description))

    @property
    def experiment(self) -> str:
        return str(self._property("experiment", "default"))

    @experiment.setter
    def experiment(self, experiment: str) -> None:
        self._set_property("experiment", _text("experiment", experiment))

    @property
    def archived(self) -> bool:
        return bool(self._property("archived", False))

    @archived.setter
    def archived(self, archived: bool) -> None:
        if not isinstance(archived, bool):
            raise TypeError(f"archived is True or False, not {archived!r:.100}")
        self._set_property("archived", archived)

    @property
    def status(self) -> str:
        """'running', 'finished', 'failed' or 'interrupted' (its process vanished)."""
        return self._state().status

    @property
    def active(self) -> bool:
        """Whether a process is writing it."""
        return self.status == "running"

    @property
    def creation_time(self) -> float:
        """Seconds since 1970."""
        return self._state().created / 1e6

    @property
    def created_at(self) -> datetime:
        """A naive datetime in UTC."""
        return _utc(self.creation_time)

    @property
    def end_time(self) -> float | None:
        """Seconds since 1970; None while it runs."""
        end = self._state().end_time
        return None if end is None else end / 1e6

    @property
    def finalized_at(self) -> datetime | None:
        """`end_time` as a naive datetime in UTC."""
        end = self.end_time
        return None if end is None else _utc(end)

    @property
    def duration(self) -> float:
        """Seconds from creation to end, or to now."""
        state = self._state()
        return (time.time() if state.end_time is None else state.end_time / 1e6) - state.created / 1e6

    def _state(self) -> RunState:
        try:
            return self.repo._reader.read(lambda view: view.run_state(self.hash))
        except KeyError:
            raise RunNotFound(f"no run {self.hash!r} in {self.repo.path}") from None

    def _property(self, name: str, default: Any) -> Any:
        return self.repo._reader.read(lambda view: view.properties(self.hash)).get(name, default)

    def _set_property(self, name: str, value: Any) -> None:
        recorder = self._writable()
        recorder.append([(journal.PROPERTY, recorder.number.to_bytes(4, "little") + params.packb([name, value]))])

    # -- the end ----

    def finish(self, status: str = "finished") -> None:
        """Ends the run: 'finished', 'failed' or 'interrupted'. It takes no more; ending it again does nothing."""
        if status not in STATUS_CODES:
            raise ValueError(f"a run ends as {', '.join(STATUS_CODES)}, not {status!r}")
        if self._recorder is not None and not self._closed:
            self.repo._writer().end_run(self._recorder, status)
        self._closed = True

    def close(self) -> None:
        """Ends the run as 'finished', unless it ended already."""
        self.finish()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.hash, self.repo) == (other.hash, other.repo)

    def __hash__(self) -> int:
        return hash((self.hash, self.repo))

    def __repr__(self) -> str:
        return f"<Run {self.hash} in {self.repo.path}>"

    def _writable(self) -> Recorder:
        recorder = self._recorder
        if recorder is None:
            raise self._not_writable()
        if recorder.closed:
            raise RunClosedError(f"run {self.hash} is closed; open it again with Run({self.hash!r})")
        return recorder

    def _not_writable(self) -> Exception:
        return ReadOnlyError(f"run {self.hash} was opened read-only; open it with Run({self.hash!r}) to write")


def new_hash() -> str:
    """24 hex characters: four bytes of time, so that neighbours in time are neighbours in the tree, and eight random ones."""
    return (int(time.time()) & 0xFFFFFFFF).to_bytes(4, "big").hex() + os.urandom(8).hex()


def check_hash(run_hash: object) -> None:
    if not isinstance(run_hash, str):
        raise TypeError(f"a run hash is a string, not {type(run_hash).__name__} {run_hash!r:.100}")
    if not _HASH.fullmatch(run_hash):
        raise ValueError(f"a run hash has 1 to 128 characters of A-Z a-z 0-9 _ . - and does not begin with a dot: {run_hash!r:.200}")


def _is_power(durability: str | None) -> bool:
    chosen = durability if durability is not None else os.environ.get("AIMLITE_DURABILITY") or "process"
    if chosen not in _DURABILITIES:
        raise ValueError(f"durability is 'process' or 'power', not {chosen!r}")
    return chosen == "power"


def _interval(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 86400:
        raise ValueError(f"sync_interval is a number of seconds from 0 to a day, not {seconds!r}")
    return float(seconds)


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a string, not {type(value).__name__} {value!r:.100}")
    return str(plain(value, (what,)))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
