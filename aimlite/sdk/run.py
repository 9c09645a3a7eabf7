"""A run as users write and read it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aimlite._ext import journal
from aimlite._ext.recorder import Recorder, SequenceWriter, Tracking
from aimlite.capture import environment, sampling
from aimlite.errors import ReadOnlyError, RunClosedError, RunNotFound, RunTrashed
from aimlite.sdk.archives import RunArchives
from aimlite.sdk.artifacts import RunArtifacts
from aimlite.sdk.params import ParamsMapping, ParamsView, delete_payload, plain, set_payloads
from aimlite.sdk.properties import RunProperties, text
from aimlite.sdk.repo import Repo, as_repo
from aimlite.sdk.run_logs import RunLogs
from aimlite.sdk.safe import openable_safely
from aimlite.sdk.sequence_types import checked_types
from aimlite.storage import ending, params
from aimlite.storage.keys import packed_sequence
from aimlite.storage.loading import load
from aimlite.storage.objects import object_records
from aimlite.storage.runs import PROGRESS, STATUS_CODES, check_hash
from aimlite.storage.writer import warn

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from aimlite.sdk.metric import Metric, MetricCollection
    from aimlite.sdk.object_sequences import Audios, Distributions, Figures, Images, Texts
    from aimlite.storage.runs import RunState
    from aimlite.storage.view import View


def _redact(text: str) -> str:
    load("aimlite.capture.redaction")
    from aimlite.capture.redaction import redact_text

    return redact_text(text)


ending.redact = _redact
_DURABILITIES = ("process", "power")
_UNCLAIMED = ("logs", "log_records")  # kinds that a run writes by itself: metrics may have the names of their sequences
_LONGEST_PROMISE_S = 366 * 86400


class Run(ParamsMapping, RunProperties, RunArchives, RunArtifacts, RunLogs, Tracking):
    """One execution: its params, metrics and properties. A mapping over its params.

    run_hash: None makes a new run with a hash of 24 hex characters. A hash that a run has resumes it; any other names a new run: 1 to 128
    characters of `A-Z a-z 0-9 _ . -`, not beginning with a dot. Any number of processes may write one run.
    repo: where; as `Repo(path)` takes it, or a Repo. read_only: only read; RunNotFound if there is no such run.
    experiment: 'default' for a new run when not given, unchanged for an old one.
    force_resume: taken for scripts written for Aim; there are no locks that it could drop.
    system_tracking_interval: every so many seconds (0.1 to 86,400) `__system__…` metrics tell how busy the machine is, first after one
    interval; None: never.
    log_system_params: record under `__system_params` what the run was started with and on, secrets redacted; True, or a dict that asks for
    the diff to git's commit or leaves parts out: {'git_diff': True, 'env_variables': False}.
    capture_terminal_logs: record what this process and its children print while the run is open; `get_terminal_logs()` has it.
    durability: 'process' (what a call wrote survives the process, however it is killed) or 'power' (it survives a power failure too);
    None: AIMLITE_DURABILITY, else 'process'. sync_interval: force everything to the disk at least every so many seconds.
    safe_mode: True: what fails while the run is opened or written is one warning, never an exception; None: as `set_safe_mode` says.

    Raises TypeError, ValueError, RunNotFound, RunTrashed (it lies in the trash), RepoFormatError, OSError.
    """

    _environment: environment.Collection | None = None
    _watch: sampling.Watch | None = None

    @openable_safely
    def __init__(
        self,
        run_hash: str | None = None,
        *,
        repo: Repo | str | os.PathLike[str] | None = None,
        read_only: bool = False,
        experiment: str | None = None,
        force_resume: bool = False,
        system_tracking_interval: float | None = 10,
        log_system_params: bool | Mapping[str, bool] = False,
        capture_terminal_logs: bool = True,
        durability: str | None = None,
        sync_interval: float | None = None,
        safe_mode: bool | None = None,
    ) -> None:
        self._closed = False
        self.read_only = _flag("read_only", read_only)
        if safe_mode is not None:
            _flag("safe_mode", safe_mode)
        for name, flag in (
            ("force_resume", force_resume),
            ("capture_terminal_logs", capture_terminal_logs),
        ):
            _flag(name, flag)
        parts = environment.wanted(log_system_params)
        sampling_s = _interval("system_tracking_interval", system_tracking_interval, 0.1)
        if run_hash is not None:
            check_hash(run_hash)
        elif read_only:
            raise ValueError("read_only=True needs the hash of the run to read")
        if experiment is not None:
            text("experiment", experiment)
        power = _is_power(durability)
        interval = _interval("sync_interval", sync_interval, 0.0)
        if read_only and not isinstance(repo, Repo):
            path = Repo.default_repo_path() if repo is None else repo
            if not Repo.exists(path):  # nor is it made to be read
                raise RunNotFound(f"no run {run_hash!r}: there is no repo at {path}")
        self.repo = as_repo(repo)
        self.hash = run_hash or new_hash()
        known, deleted = (False, 0) if run_hash is None else self.repo._reader.read(self._look_up)
        if read_only:
            if not known:
                raise RunNotFound(f"no run {run_hash!r} in {self.repo.path}")
            return
        self._open(known, power, deleted)
        if experiment is not None:
            self._set_properties({"experiment": experiment})
        if interval is not None:
            self.repo._writer().sync_every(interval)
        if parts is not None:
            self._environment = environment.collect(self._record_environment, parts)
        if sampling_s is not None:
            self._watch = sampling.watch(self._record_usage, sampling_s)
        if capture_terminal_logs:
            self._capture_terminal()

    @classmethod
    def _existing(cls, run_hash: str, repo: Repo) -> Run:
        """A run known to exist, read-only, without looking it up again."""
        run = cls.__new__(cls)
        run._recorder, run._closed, run.read_only, run.repo, run.hash = None, False, True, repo, run_hash
        return run

    @classmethod
    def _ended(cls, run_hash: str, repo: Repo) -> Run:
        """A run known to exist, as its own `close()` would leave it: its properties may be set."""
        run = cls._existing(run_hash, repo)
        run._closed, run.read_only = True, False
        return run

    def _look_up(self, view: View) -> tuple[bool, int]:
        """(whether the run is there, the order at which one of its hash was deleted)."""
        known = view.holds_run(self.hash)
        if known and view.is_trashed(self.hash):
            raise RunTrashed(f"run {self.hash!r} is in the trash; repo.restore_runs([{self.hash!r}]) takes it out, or use another hash")
        return known, view.tombstones.of_run(self.hash)

    def _open(self, known: bool, power: bool, deleted: int) -> None:
        """deleted: the order at which a run of this hash was deleted for good; what is written comes after it."""
        writer = self.repo._writer()
        if not known:
            self._recorder = writer.open_run(self.hash, deleted, power=power)
            return
        reader, run_hash = self.repo._run_reader, self.hash
        last_steps: dict[bytes, int] = {}
        looked = False

        def last_step(_: str, packed: bytes) -> int | None:
            nonlocal looked
            if not looked:
                load("aimlite.storage.view")
                from aimlite.storage.view import METRIC

                view, recorder = reader.view(), self._recorder
                assert recorder is not None
                for sequence in view.sequences(run_hash, None):
                    last = view.last_step(sequence)
                    if last is not None:
                        last_steps[sequence.packed] = last
                    if last is not None and sequence.kind not in _UNCLAIMED:
                        held = None if sequence.kind == METRIC else (sequence.kind, view.holds_lists(sequence))
                        recorder.kinds.setdefault(packed_sequence(sequence.name, sequence.context), (held, None))
                looked = True
            return last_steps.get(packed)

        order = self._state().order
        self._recorder = writer.open_run(run_hash, order, last_step, power)
        self._take_up_uploads()

    def _record_environment(self, path: tuple[str | int, ...], value: Any) -> None:
        self._set_params([(path, value)])

    def _record_usage(self, values: dict[str, float], context: Mapping[str, Any]) -> None:
        if self._recorder is not None:
            self._recorder.track(values, None, None, None, context)

    # -- tracking ----

    def _track_other(
        self, value: Any, name: str | None, step: Any, epoch: Any, context: Mapping[str, Any] | None, error: TypeError
    ) -> None:
        """What `track` calls for a value that is no number, or a dict with such a value; nothing has been written. error: says which."""
        load("aimlite.sdk.tracking")
        from aimlite.sdk import tracking

        recorder = self._writable()
        if not tracking.track(recorder, self.repo._layout.blobs, value, name, step, epoch, context):
            raise error

    def track_columns(
        self, name: str, values: Any, steps: Any = None, epochs: Any = None, times: Any = None, context: Mapping[str, Any] | None = None
    ) -> None:
        """Records n points of one metric, all or none.

        values: numbers[n]. steps: integers[n], None counts on. epochs: numbers[n] or one number. times: seconds since 1970 [n], None is
        now.
        Raises as `track`.
        """
        load("aimlite.sdk.columns")
        from aimlite.sdk.columns import as_epochs, as_steps, as_times, as_values

        recorder = self._writable()
        sequence = recorder.sequence(name, context)
        column, are_ints = as_values(values)
        n = len(column)
        recorder.track_columns(sequence, column, are_ints, as_steps(steps, n), as_epochs(epochs, n), as_times(times, n))

    def sequence(self, name: str, context: Mapping[str, Any] | None = None) -> SequenceWriter:
        """A handle whose `track(value, step=None, epoch=None)` skips looking up name and context."""
        return self._writable().sequence(name, context)

    def report_progress(self, *, expect_next_in: float = 0, block: bool = False) -> None:
        """Says that the run goes on, and will say so again within `expect_next_in` seconds; after that it is `stalled`. 0: no promise.

        block: also force it to the disk, as `sync`. Raises TypeError, ValueError, RunClosedError, ReadOnlyError, OSError.
        """
        if isinstance(expect_next_in, bool) or not isinstance(expect_next_in, int | float):
            raise TypeError(f"expect_next_in is a number of seconds, not {type(expect_next_in).__name__} {expect_next_in!r:.100}")
        if not 0 <= expect_next_in <= _LONGEST_PROMISE_S:
            raise ValueError(f"expect_next_in is a number of seconds from 0 to {_LONGEST_PROMISE_S:,}, not {expect_next_in!r}")
        self._writable()
        self._set_properties({PROGRESS: [time.time_ns() // 1000, float(expect_next_in)]})
        if _flag("block", block):
            self.sync()

    def report_successful_finish(self, *, block: bool = True) -> None:
        """Says that no more reports are to come: the run does not stall any more. It stays open. block and errors: as `report_progress`."""
        self.report_progress(block=block)

    def _track_items(
        self,
        kind: str,
        name: str | None,
        items: list[tuple[dict[str, Any], bytes]],
        in_list: bool = False,
        step: int | None = None,
        epoch: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Records the objects of one step: (header, content) of each. kind: the type of the sequence ('images', …). in_list: whether they
        were given as a list. Raises as `track`, and TypeError where numbers, objects of another kind, or single ones and lists, are."""
        recorder = self._writable()
        blobs, stored = self.repo._layout.blobs, dict[bytes, bytes]()
        recorder.track_objects(kind, name, object_records(items, blobs, stored), len(items), in_list, step, epoch, context)
        _keep(blobs, stored)

    def sync(self) -> None:
        """Forces all that this process recorded to the disk: when it returns, that survives a power failure. Raises OSError."""
        self._writable()
        self.repo._writer().sync()

    # -- params ----

    def _place(self) -> tuple[Run, tuple[str | int, ...]]:
        return self, ()

    def __bool__(self) -> bool:
        return True

    @property
    def params(self) -> ParamsView:
        """The params as a mapping of their own."""
        return ParamsView(self)

    def _get_param(self, path: tuple[str | int, ...]) -> Any:
        try:
            return self.repo._run_reader.read(lambda view: view.params(self.hash, path))
        except KeyError:
            if not path:
                return {}
            raise KeyError(f"run {self.hash} has no param {'.'.join(map(str, path))!r}") from None

    def _set_params(self, items: list[tuple[tuple[str | int, ...], Any]], strict: bool = True) -> None:
        recorder = self._writable()
        values = [(path, plain(value, path, strict)) for path, value in items]
        for path, value in values:
            if not path and not isinstance(value, dict):
                raise TypeError(f"run[...] takes a dict, not {type(value).__name__}")
        number, blobs = recorder.number.to_bytes(4, "little"), self.repo._layout.blobs
        stored: dict[bytes, bytes] = {}
        payloads = [payload for path, value in values for payload in set_payloads(path, value, blobs, stored)]
        recorder.append([(journal.PARAMS, number + payload) for payload in payloads])
        _keep(blobs, stored)

    def _delete_param(self, path: tuple[str | int, ...]) -> None:
        recorder = self._writable()
        if path:
            self._get_param(path)  # KeyError when nothing is there
        recorder.append([(journal.PARAMS, recorder.number.to_bytes(4, "little") + delete_payload(path))])

    # -- reading what was tracked ----

    def metrics(self) -> MetricCollection:
        """Its metrics, by name and context."""
        load("aimlite.sdk.metric")
        from aimlite.sdk.metric import MetricCollection

        return MetricCollection(self)

    def get_metric(self, name: str, context: Mapping[str, Any] | None = None) -> Metric | None:
        """The metric of this name and context (None is {}), or None when there is none."""
        load("aimlite.sdk.metric")
        from aimlite.sdk.metric import Metric

        metric = Metric(name, context, self)
        return metric if self.repo._run_reader.read(lambda view: view.has_points(metric._id)) else None

    def get_image_sequence(self, name: str, context: Mapping[str, Any] | None = None) -> Images | None:
        """The images of this name and context (None is {}), or None when there are none."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import Images, existing

        return existing(Images, name, context, self)

    def get_audio_sequence(self, name: str, context: Mapping[str, Any] | None = None) -> Audios | None:
        """As `get_image_sequence`."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import Audios, existing

        return existing(Audios, name, context, self)

    def get_text_sequence(self, name: str, context: Mapping[str, Any] | None = None) -> Texts | None:
        """As `get_image_sequence`."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import Texts, existing

        return existing(Texts, name, context, self)

    def get_distribution_sequence(self, name: str, context: Mapping[str, Any] | None = None) -> Distributions | None:
        """As `get_image_sequence`."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import Distributions, existing

        return existing(Distributions, name, context, self)

    def get_figure_sequence(self, name: str, context: Mapping[str, Any] | None = None) -> Figures | None:
        """As `get_image_sequence`."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import Figures, existing

        return existing(Figures, name, context, self)

    def iter_metrics_info(self) -> Iterator[tuple[str, dict[str, Any], Run]]:
        """(name, context, this run) of each metric."""
        return ((metric.name, metric.context.to_dict(), self) for metric in self.metrics())

    def iter_sequence_info_by_type(self, dtypes: str | Iterable[str]) -> Iterator[tuple[str, dict[str, Any], Run]]:
        """(name, context, this run) of each sequence of the types named. Raises ValueError for a type that there is not."""
        load("aimlite.sdk.object_sequences")
        from aimlite.sdk.object_sequences import sequences_of

        kinds = checked_types(dtypes)
        found = (sequence for kind in kinds for sequence in (self.metrics() if kind == "metric" else sequences_of(self, kind)))
        return ((sequence.name, sequence.context.to_dict(), self) for sequence in found)

    def collect_sequence_info(self, sequence_types: str | Iterable[str], skip_last_value: bool = False) -> dict[str, list[dict[str, Any]]]:
        """{type: [{'name', 'context', 'values': {'dtype', 'first', 'first_step', 'last', 'last_step', 'min', 'max', 'count'}}]} for each
        type named; of objects 'values' is {'dtype', 'first_step', 'last_step', 'count', 'record_length'}. Raises ValueError for a type that
        there is not."""
        load("aimlite.sdk.metric", "aimlite.sdk.object_sequences")
        from aimlite.sdk.metric import summary_info
        from aimlite.sdk.object_sequences import info, sequences_of

        return {
            kind: [summary_info(metric, skip_last_value) for metric in self.metrics()]
            if kind == "metric"
            else [info(sequence, skip_last_value) for sequence in sequences_of(self, kind)]
            for kind in checked_types(sequence_types)
        }

    def dataframe(self, include_props: bool = True, include_params: bool = True) -> pd.DataFrame:
        """One row: hash, properties, and a column for each param, its path joined by dots. Needs pandas."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import run_frame

        return run_frame(self, include_props, include_params)

    # -- what properties.py needs ----

    def _state(self) -> RunState:
        try:
            return self.repo._run_reader.read(lambda view: view.run_state(self.hash))
        except KeyError:
            raise RunNotFound(f"no run {self.hash!r} in {self.repo.path}") from None

    def _properties(self) -> dict[str, Any]:
        return self.repo._run_reader.read(lambda view: view.properties(self.hash))

    def _set_properties(self, properties: dict[str, Any]) -> None:
        if self.read_only:
            raise self._not_writable()
        payloads = [params.packb([name, value]) for name, value in properties.items()]
        if self._recorder is None or self._recorder.closed:  # the run has ended, and stays as it ended
            state = self._state()
            self.repo._writer().edit_run(self.hash, state.order, state.created, [(journal.PROPERTY, payload) for payload in payloads])
            return
        number = self._recorder.number.to_bytes(4, "little")
        self._recorder.append([(journal.PROPERTY, number + payload) for payload in payloads])

    # -- the end ----

    def finish(self, status: str = "finished") -> None:
        """Ends the run: 'finished', 'failed' or 'interrupted'. It takes no more; ending it again does nothing.

        Waits for artifacts that are being uploaded. Raises, after the end, ArtifactError if some did not arrive, and OSError if the end
        could not be written: the process tries that again at its next write and when it exits.
        """
        if status not in STATUS_CODES:
            raise ValueError(f"a run ends as {', '.join(STATUS_CODES)}, not {status!r}")
        self._end(status)

    def _end(self, status: str, error: BaseException | None = None, is_raising: bool = False) -> None:
        """Every part of the end is tried. error: the one that ended the run. is_raising: an exception of the user's is on its way: what
        fails here is told, else the first failure is raised and the others are told."""
        failures: list[tuple[str, BaseException]] = []  # what of it failed, and how
        for what, part in (
            ("an upload failed", self._finish_uploads),
            ("the environment is not recorded", self._end_environment),
            ("the sampler failed", self._end_watch),
            ("the end of the terminal's log is not recorded", lambda: self._end_capture(error)),
            (
                "its end could not be written; the next write tries it again, and so does the exit",
                lambda: self._write_end(status, error),
            ),
        ):
            try:
                part()
            except BaseException as error_of_part:
                failures.append((what, error_of_part))
        self._closed = True
        raised = next((failure for _, failure in failures if not is_raising or not isinstance(failure, Exception)), None)
        for what, failure in failures:
            if failure is not raised:
                warn(f"run {self.hash}: {what}: {type(failure).__name__}: {failure}", 3)
        if raised is not None:
            raise raised

    def _end_environment(self) -> None:
        if self._environment is not None:
            self._environment.wait()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _write_end(self, status: str, error: BaseException | None) -> None:
        if self._recorder is not None and not self._closed:
            self.repo._writer().end_run(self._recorder, status, None if error is None else ending.describe_error(error))

    def close(self) -> None:
        """Ends the run as 'finished', unless it ended already."""
        self.finish()

    finalize = close

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._end("finished")
        elif isinstance(error, KeyboardInterrupt):
            self._end("interrupted", is_raising=True)
        elif isinstance(error, SystemExit):
            status = ending.status_of_exit(error.code)
            self._end(status, error if status == "failed" else None, is_raising=True)
        else:
            self._end("failed", error, is_raising=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.hash, self.repo) == (other.hash, other.repo)

    def __hash__(self) -> int:
        return hash((self.hash, self.repo))

    def __repr__(self) -> str:
        return f"<Run {self.hash} in {self.repo.path}>"

    def _writable(self) -> Recorder:
        recorder = self._recorder
        if recorder is None or recorder.closed:
            raise self._not_writable()
        return recorder

    def _not_writable(self) -> Exception:
        if self.read_only:
            return ReadOnlyError(f"run {self.hash} was opened read-only; open it with Run({self.hash!r}) to write")
        return RunClosedError(f"run {self.hash} is closed; open it again with Run({self.hash!r})")


def _keep(blobs: Path, stored: dict[bytes, bytes]) -> None:
    """Stores again what somebody deleted before the record that names it was there."""
    if stored:
        load("aimlite.storage.blobs")
        from aimlite.storage.blobs import keep_blobs

        keep_blobs(blobs, stored)


def new_hash() -> str:
    """24 hex characters: four bytes of time, so that neighbours in time are neighbours in the tree, and eight random ones."""
    return (int(time.time()) & 0xFFFFFFFF).to_bytes(4, "big").hex() + os.urandom(8).hex()


def _is_power(durability: str | None) -> bool:
    chosen = durability if durability is not None else os.environ.get("AIMLITE_DURABILITY") or "process"
    if chosen not in _DURABILITIES:
        raise ValueError(f"durability is 'process' or 'power', not {chosen!r}")
    return chosen == "power"


def _interval(name: str, seconds: float | None, least: float) -> float | None:
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not max(least, 1e-9) <= seconds <= 86400:
        range_s = f"from {least:g} to 86,400" if least else "above 0 and at most 86,400"
        raise ValueError(f"{name} is None or a number of seconds {range_s} (a day), not {seconds!r:.100}")
    return float(seconds)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {type(value).__name__} {value!r:.100}")
    return value
