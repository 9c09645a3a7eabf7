"""Metrics and runs as pandas frames, Arrow tables and Polars frames. The libraries are extras, imported when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from aimlite.sdk.params import as_json
from aimlite.storage.loading import load

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from aimlite.sdk.metric import Metric
    from aimlite.sdk.run import Run
    from aimlite.storage.points import Points


def run_frame(run: Run, include_props: bool, include_params: bool) -> pd.DataFrame:
    """One row: hash, properties, params."""
    return runs_frame([run], include_props, include_params)


def runs_frame(runs: Sequence[Run], include_props: bool, include_params: bool) -> pd.DataFrame:
    """A row for each run, a column for what any of them has."""
    rows = [{"hash": run.hash, **(_properties(run) if include_props else {}), **(_params(run) if include_params else {})} for run in runs]
    frame: pd.DataFrame = _pandas().DataFrame(rows, columns=None if rows else ["hash"])
    return frame


def metrics_frame(
    metrics: Sequence[Metric],
    only_last: bool,
    *,
    include_name: bool,
    include_context: bool,
    run: bool,
    props: bool = False,
    params: bool = False,
) -> pd.DataFrame:
    """A row for each point, a block of rows for each metric; what is told of a run or metric stands in each of its rows."""
    pandas = _pandas()
    told: dict[str, dict[str, Any]] = {}  # by run
    frames = []
    for metric in metrics:
        points = _points(metric)
        if only_last:
            points = points.take(slice(-1, None))
        columns: dict[str, Any] = {
            "idx": np.arange(len(points)),
            "step": points["step"],
            "value": points["value"],
            "epoch": points["epoch"],
            "time": points["time"] / 1e6,
        }
        constant: dict[str, Any] = {}
        if run:
            if metric.run.hash not in told:
                told[metric.run.hash] = _told_of(metric.run, props, params)
            constant.update(told[metric.run.hash])
        if include_name:
            constant["metric.name"] = metric.name
        if include_context:
            constant.update({f"metric.context.{key}": _cell(value) for key, value in _flat(metric.context.to_dict())})
        frame = pandas.DataFrame(columns)
        for name, value in constant.items():
            frame[name] = pandas.Series([value] * len(frame), index=frame.index, dtype=None if len(frame) else object)
        frames.append(frame)
    frame = frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)
    return frame


def metric_table(metric: Metric) -> pa.Table:
    arrow = _arrow()
    points = _points(metric)
    epochs = points["epoch"]
    columns = {
        "step": arrow.array(points["step"]),
        "value": arrow.array(points["value"]),
        "epoch": arrow.array(epochs, mask=np.isnan(epochs)),
        "time": arrow.array(points["time"].astype("datetime64[us]"), arrow.timestamp("us", "UTC")),
    }
    return arrow.table(columns)


def metrics_table(metrics: Sequence[Metric]) -> pa.Table:
    arrow = _arrow()
    labels = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema(
        [(name, labels) for name in ("run", "name", "context")]
        + [("step", arrow.int64()), ("value", arrow.float64()), ("epoch", arrow.float64()), ("time", arrow.timestamp("us", "UTC"))]
    )
    tables = []
    for metric in metrics:
        table = metric_table(metric)
        told = (metric.run.hash, metric.name, json.dumps(metric.context.to_dict(), sort_keys=True))
        constant = [arrow.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [text]) for text in told]
        tables.append(arrow.table([*constant, *table.columns], schema=schema))
    table = arrow.concat_tables([schema.empty_table(), *tables])
    return table.unify_dictionaries()


def polars_frame(table: pa.Table) -> pl.DataFrame:
    """The same columns; their memory is shared where both keep it alike."""
    frame: pl.DataFrame = _extra("polars", "polars()").from_arrow(table)
    return frame


def _points(metric: Metric) -> Points:
    points: Points = metric._read(lambda view: view.points(metric._id))
    return points


def _told_of(run: Run, props: bool, params: bool) -> dict[str, Any]:
    told = {"hash": run.hash, **(_properties(run) if props else {}), **(_params(run) if params else {})}
    return {f"run.{name}": value for name, value in told.items()}


def _properties(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "description": run.description,
        "archived": run.archived,
        "creation_time": run.creation_time,
        "end_time": run.end_time,
        "active": run.active,
        "status": run.status,
        "experiment": run.experiment,
        "tags": json.dumps(run.tags),
    }


def _params(run: Run) -> dict[str, Any]:
    return {name: _cell(value) for name, value in _flat(run[...])}


def _flat(params: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of every leaf."""
    leaves: list[tuple[str, Any]] = []
    for key, value in params.items():
        if isinstance(value, dict) and value:
            leaves += _flat(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves


def _cell(value: Any) -> Any:
    """Scalars as they are, everything else as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(as_json(value))


def _pandas() -> Any:
    return _extra("pandas", "dataframe()")


def _arrow() -> Any:
    return _extra("pyarrow", "arrow()")


def _extra(module: str, what: str) -> Any:
    try:
        load(module)
        return import_module(module)
    except ImportError as error:
        extra = {"pandas": "pandas", "pyarrow": "arrow", "polars": "polars"}[module]
        raise ImportError(f"{what} needs {module}: pip install 'aimlite-store[{extra}]'") from error
