"""What `query_runs` and `query_metrics` give: collections that run their query when they are read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from aimlite.errors import AimliteError, CorruptionError
from aimlite.query.evaluate import FAILURES, Row, compiled
from aimlite.query.execute import Query
from aimlite.query.explain import lines, unknown_params
from aimlite.query.parse import parse
from aimlite.query.rows import LiveRun, RunRow, SequenceRow
from aimlite.sdk.metric import Metric, MetricCollection
from aimlite.sdk.object_sequences import ObjectCollection, ObjectSequence, of_id
from aimlite.sdk.report import QueryReportMode
from aimlite.sdk.run import Run
from aimlite.storage.loading import load
from aimlite.storage.points import Summary
from aimlite.storage.view import METRIC, SequenceId, View

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from aimlite.sdk.repo import Repo

_BAR_AFTER_S = 0.5


class Ragged(NamedTuple):
    """Metrics end to end. offsets: int64[n + 1]; the points of metrics[k] are steps[offsets[k]:offsets[k + 1]], int64, and values, float64,
    likewise."""

    metrics: list[Metric]
    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class Padded(NamedTuple):
    """Metrics as rows of a matrix. counts: int64[n], how many points each has; steps: int64[n, m] and values: float64[n, m], beyond the
    count 0 and NaN."""

    metrics: list[Metric]
    counts: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]


class Options(NamedTuple):
    order_by: str | None
    descending: bool
    limit: int | None
    timeout: float | None
    report_mode: QueryReportMode


class _Collection:
    """A query, checked already. Each reading runs it anew, on what is recorded then.

    warnings: sentences of the last reading: rows that could not be evaluated, params that no run has.
    damaged: of the last reading, the runs that were left out, since a damaged journal holds a part of them, and what is wrong.
    """

    _kind = "runs"

    def __init__(self, repo: Repo, query: str, options: Options) -> None:
        self._repo = repo
        self.query = query
        self._options = options
        self._node = parse(query, self._kind)
        self._order = None if options.order_by is None else parse(options.order_by, self._kind)
        self.warnings: list[str] = []
        self.damaged: dict[str, CorruptionError] = {}

    def _rows(self, view: View) -> tuple[Query, list[Any]]:
        """The execution, and the rows that match, in their order. Warns as `Repo.list_all_runs`."""
        load("aimlite.sdk.repo")
        from aimlite.sdk.repo import warn_of_damage

        options = self._options
        with _Bar(options.report_mode) as progress:
            execution = Query(view, self._node, options.timeout, progress, METRIC if self._kind in ("runs", "metrics") else self._kind)
            rows: Iterator[Any] = self._matching(execution)
            if self._order is None:
                found = list(islice(rows, options.limit))
            else:
                found = _sorted(list(rows), compiled(self._order), execution, options.descending)[: options.limit]
        self.damaged = execution.damaged
        self.warnings = [*unknown_params(view, self._node), *_failure_warnings(execution)]
        warn_of_damage(view.damaged_journals())
        return execution, found

    def _matching(self, execution: Query) -> Iterator[Any]:
        return execution.runs()

    def _found(self) -> list[Any]:
        found: list[Any] = self._repo._reader.read(lambda view: self._rows(view)[1])
        return found

    def _reported(self, items: Sequence[Any]) -> Iterator[Any]:
        if self._options.report_mode == QueryReportMode.PROGRESS_TUPLE:
            return ((item, (number, len(items))) for number, item in enumerate(items, 1))
        return iter(items)

    def explain(self) -> str:
        """Runs the query and tells how: ranges, estimated and actual rows, what was left to evaluate."""

        def told(view: View) -> str:
            start = time.perf_counter()
            execution, rows = self._rows(view)
            text = lines(execution, len(rows), self.query, self._kind)
            return "\n".join([*text, f"{(time.perf_counter() - start) * 1000:.1f} ms in all", *self.warnings])

        return self._repo._reader.read(told)

    def __len__(self) -> int:
        return len(self._found())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.query!r:.200} of {self._repo!r}>"


class QueryRunCollection(_Collection):
    """The runs that a query matches, newest first unless ordered otherwise. `iter()`, `iter_runs()` and direct iteration give a
    MetricCollection for each, with `.run`."""

    def __init__(self, repo: Repo, query: str, options: Options, offset: str | None) -> None:
        super().__init__(repo, query, options)
        self._offset = offset

    def _matching(self, execution: Query) -> Iterator[RunRow]:
        rows = execution.runs()
        if self._offset is not None:
            for row in rows:
                if row.hash == self._offset:
                    break
        return rows

    def iter_runs(self) -> Iterator[Any]:
        return self._reported([MetricCollection(Run._existing(row.hash, self._repo)) for row in self._found()])

    def iter(self) -> Iterator[Any]:
        return self.iter_runs()

    def __iter__(self) -> Iterator[Any]:
        return self.iter_runs()

    def hashes(self) -> list[str]:
        """The hashes of the runs."""
        return [row.hash for row in self._found()]

    def dataframe(self, include_props: bool = True, include_params: bool = True) -> pd.DataFrame:
        """A row for each run, as `Run.dataframe`. Needs pandas."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import runs_frame

        return runs_frame([Run._existing(row.hash, self._repo) for row in self._found()], include_props, include_params)


class QueryMetricCollection(_Collection):
    """The metrics that a query matches, by run, newest first unless ordered otherwise. `iter()` and direct iteration give a Metric each,
    `iter_runs()` a collection for each run."""

    _kind = "metrics"

    def _matching(self, execution: Query) -> Iterator[SequenceRow]:
        return execution.sequences()

    def iter(self) -> Iterator[Any]:
        return self._reported(self._metrics())

    def __iter__(self) -> Iterator[Any]:
        return self.iter()

    def iter_runs(self) -> Iterator[Any]:
        by_run: dict[str, list[Metric]] = {}
        for metric in self._metrics():
            by_run.setdefault(metric.run.hash, []).append(metric)
        return self._reported([MatchedMetrics(metrics[0].run, metrics) for metrics in by_run.values()])

    def _metrics(self) -> list[Metric]:
        return _as_metrics(self._found(), self._repo)

    def dataframe(
        self,
        only_last: bool = False,
        include_run: bool = True,
        include_name: bool = True,
        include_context: bool = True,
        include_props: bool = True,
        include_params: bool = True,
    ) -> pd.DataFrame | None:
        """As `MetricCollection.dataframe`, of all metrics that match. Needs pandas."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metrics_frame

        metrics = self._metrics()
        if not metrics:
            return None
        return metrics_frame(
            metrics,
            only_last,
            include_name=include_name,
            include_context=include_context,
            run=include_run,
            props=include_run and include_props,
            params=include_run and include_params,
        )

    def arrow(self) -> pa.Table:
        """As `MetricCollection.arrow`, of all metrics that match. Needs pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metrics_table

        return metrics_table(self._metrics())

    def polars(self) -> pl.DataFrame:
        """The columns of `arrow()` as a Polars frame. Needs polars and pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import polars_frame

        return polars_frame(self.arrow())

    def numpy(self, padded: bool = False) -> Ragged | Padded:
        """Steps and values of all metrics that match, read in one pass: end to end, or as the rows of a matrix."""
        return self._repo._reader.read(lambda view: self._arrays(view, padded))

    def _arrays(self, view: View, padded: bool) -> Ragged | Padded:
        _, rows = self._rows(view)
        counts = np.array([row.summary.count for row in rows], np.int64)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        steps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
        wanted: list[tuple[SequenceId, Summary | None]] = [
            (row.identity, None if isinstance(row.run, LiveRun) else row.summary) for row in rows
        ]
        view.read_into(wanted, offsets, steps, values)
        metrics = _as_metrics(rows, self._repo)
        if not padded:
            return Ragged(metrics, offsets, steps, values)
        wide = (len(rows), int(counts.max(initial=0)))
        inside = np.arange(wide[1]) < counts[:, None]
        all_steps, all_values = np.zeros(wide, np.int64), np.full(wide, np.nan)
        all_steps[inside], all_values[inside] = steps, values
        return Padded(metrics, counts, all_steps, all_values)


class QueryObjectCollection(_Collection):
    """The sequences of objects of a kind that a query matches, by run, newest first unless ordered otherwise. `iter()` and direct iteration
    give a sequence each (`Images`, `Audios`, …), `iter_runs()` a collection for each run."""

    def __init__(self, repo: Repo, query: str, options: Options, kind: str) -> None:
        self._kind = kind
        super().__init__(repo, query, options)

    def _matching(self, execution: Query) -> Iterator[SequenceRow]:
        return execution.sequences()

    def iter(self) -> Iterator[Any]:
        return self._reported(self._sequences())

    def __iter__(self) -> Iterator[Any]:
        return self.iter()

    def iter_runs(self) -> Iterator[Any]:
        by_run: dict[str, list[ObjectSequence]] = {}
        for sequence in self._sequences():
            by_run.setdefault(sequence.run.hash, []).append(sequence)
        return self._reported([ObjectCollection(found[0].run, found) for found in by_run.values()])

    def _sequences(self) -> list[ObjectSequence]:
        runs: dict[str, Run] = {}
        rows = self._found()
        return [of_id(runs.setdefault(row.run.hash, Run._existing(row.run.hash, self._repo)), row.identity) for row in rows]


class MatchedMetrics(MetricCollection):
    """The metrics of one run that a query matched."""

    def __init__(self, run: Run, metrics: list[Metric]) -> None:
        super().__init__(run)
        self._metrics = metrics

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


def _as_metrics(rows: list[SequenceRow], repo: Repo) -> list[Metric]:
    runs: dict[str, Run] = {}
    metrics = []
    for row in rows:
        run = runs.setdefault(row.run.hash, Run._existing(row.run.hash, repo))
        metrics.append(cast("Metric", Metric._of(run, row.identity)))
    return metrics


def _failure_warnings(execution: Query) -> list[str]:
    failures = execution.trace.failures
    return [f"{failures} row{'s' if failures > 1 else ''} could not be evaluated and did not match"] if failures else []


def _sorted(rows: list[Any], order: Callable[[Row], Any], execution: Query, descending: bool) -> list[Any]:
    """By what `order` says of each row; what is missing or fails comes last."""
    keyed, missing = [], []
    for row in rows:
        execution.budget.spend()
        sequence = row if isinstance(row, SequenceRow) else None
        run = row if sequence is None else sequence.run
        with execution.leaving_out_damaged(run):
            try:
                value = order(Row(execution.budget, run, sequence))
            except AimliteError:
                raise
            except FAILURES:
                value = None
            if value is None or value != value:
                missing.append(row)
            else:
                keyed.append((_sort_key(value), row))
    keyed.sort(key=lambda pair: pair[0], reverse=descending)
    return [*(row for _, row in keyed), *missing]


def _sort_key(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool | int | float):
        return 0, value
    if isinstance(value, str):
        return 1, value
    return (2, value.isoformat()) if hasattr(value, "isoformat") else (3, repr(value))


class _Bar:
    """A progress bar on stderr, where that is a terminal and the query takes its time."""

    def __init__(self, mode: QueryReportMode) -> None:
        self._shown = mode == QueryReportMode.PROGRESS_BAR and sys.stderr is not None and sys.stderr.isatty()
        self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Callable[[int, int | None], None] | None:
        return self._advance if self._shown else None

    def _advance(self, done: int, total: int | None) -> None:
        if time.monotonic() - self._begun < _BAR_AFTER_S:
            return
        if self._bar is None:
            load("rich.console", "rich.progress")
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("looking at runs", total=total)
        self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
