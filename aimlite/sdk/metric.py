"""Metrics as users read them, one by one and all of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from aimlite.sdk.sequence import Sequence
from aimlite.storage.loading import load
from aimlite.storage.points import FLOATS, INTS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from aimlite.sdk.run import Run
    from aimlite.storage.view import SequenceId


class Metric(Sequence):
    """A sequence of float64."""

    @property
    def first(self) -> float:
        """The value at the first step. Raises KeyError when there is no point, as do the others."""
        return self._summary().first

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self._summary().last

    @property
    def min(self) -> float:
        """The least value; NaN only when every value is NaN."""
        return self._summary().minimum

    @property
    def max(self) -> float:
        return self._summary().maximum

    @property
    def dtype(self) -> str:
        """'int' or 'float', or 'number' when both were tracked."""
        return {INTS: "int", FLOATS: "float"}.get(self._summary().flags & (INTS | FLOATS), "number")

    def dataframe(
        self, include_name: bool = False, include_context: bool = False, include_run: bool = False, only_last: bool = False
    ) -> pd.DataFrame:
        """A row for each point: idx, step, value, epoch, time (seconds since 1970), then `run.*`, `metric.name`, `metric.context.*` as
        asked for. only_last: just the point at the last step. Needs pandas."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metrics_frame

        return metrics_frame([self], only_last, include_name=include_name, include_context=include_context, run=include_run)

    def arrow(self) -> pa.Table:
        """A row for each point: step int64, value float64, epoch float64 (null where none was given), time timestamp[us, UTC]. Needs
        pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metric_table

        return metric_table(self)

    def polars(self) -> pl.DataFrame:
        """The columns of `arrow()` as a Polars frame. Needs polars and pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import polars_frame

        return polars_frame(self.arrow())


class MetricCollection:
    """The metrics of one run, by name and context, as they are when it is iterated."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def iter(self) -> Iterator[Metric]:
        """The metrics, one by one."""
        return iter(self)

    def iter_runs(self) -> Iterator[MetricCollection]:
        """Itself: the collection of its one run."""
        yield self

    def __iter__(self) -> Iterator[Metric]:
        sequences: list[SequenceId] = self.run.repo._run_reader.read(lambda view: view.sequences(self.run.hash))
        return (cast("Metric", Metric._of(self.run, sequence)) for sequence in sequences)

    def __len__(self) -> int:
        return len(self.run.repo._run_reader.read(lambda view: view.sequences(self.run.hash)))

    def dataframe(
        self,
        only_last: bool = False,
        include_run: bool = True,
        include_name: bool = True,
        include_context: bool = True,
        include_props: bool = True,
        include_params: bool = True,
    ) -> pd.DataFrame | None:
        """A row for each point of each metric; None when there is no metric. Columns: idx, step, value, epoch, time (seconds since 1970),
        then `run.hash`, `run.<property>`, `run.<param>`, `metric.name`, `metric.context.<key>` as asked for. only_last: just the point at
        the last step of each. Needs pandas."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metrics_frame

        metrics = list(self)
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
        """A row for each point of each metric: run, name, context (JSON; these three dictionary-encoded strings), then the columns of
        `Metric.arrow`. Needs pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import metrics_table

        return metrics_table(list(self))

    def polars(self) -> pl.DataFrame:
        """The columns of `arrow()` as a Polars frame. Needs polars and pyarrow."""
        load("aimlite.sdk.frames")
        from aimlite.sdk.frames import polars_frame

        return polars_frame(self.arrow())

    def __repr__(self) -> str:
        return f"<metrics of run {self.run.hash}>"


def summary_info(metric: Metric, skip_last_value: bool) -> dict[str, Any]:
    """What `collect_sequence_info` tells of a metric."""
    summary = metric._summary()
    values = {
        "dtype": metric.dtype,
        "first": summary.first,
        "first_step": summary.first_step,
        "last": summary.last,
        "last_step": summary.last_step,
        "min": summary.minimum,
        "max": summary.maximum,
        "count": summary.count,
    }
    if skip_last_value:
        del values["last"], values["last_step"]
    return {"name": metric.name, "context": metric.context.to_dict(), "values": values}
