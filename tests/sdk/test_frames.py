"""Metrics and runs as pandas frames and Arrow tables."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from aimlite import Repo, Run


@pytest.fixture
def run(repo: Repo) -> Run:
    run = Run("r", repo=repo, experiment="e")
    run["hparams"] = {"lr": 0.1, "dims": [1, 2], "deep": {"er": {"est": None}}, "empty": {}}
    run["n"] = 3
    run.add_tag("t")
    run.track(0.5, name="loss", step=1, epoch=0, context={"subset": "train", "x": {"y": 1}})
    run.track(0.25, name="loss", step=5, context={"subset": "train", "x": {"y": 1}})
    run.track(1, name="acc", step=2)
    return run


def test_a_metric(run: Run) -> None:
    metric = run.get_metric("loss", {"subset": "train", "x": {"y": 1}})
    frame = metric.dataframe()
    assert list(frame.columns) == ["idx", "step", "value", "epoch", "time"]
    assert frame.dtypes.astype(str).tolist() == ["int64", "int64", "float64", "float64", "float64"]
    assert frame["idx"].tolist() == [0, 1]
    assert frame["step"].tolist() == [1, 5]
    assert frame["value"].tolist() == [0.5, 0.25]
    assert frame["epoch"].isna().tolist() == [False, True]
    assert frame["time"].tolist() == metric.timestamps.tolist()
    whole = metric.dataframe(include_name=True, include_context=True, include_run=True, only_last=True)
    assert list(whole.columns[5:]) == ["run.hash", "metric.name", "metric.context.subset", "metric.context.x.y"]
    assert whole.iloc[0].tolist()[:3] == [0, 5, 0.25]
    assert whole.iloc[0].tolist()[5:] == ["r", "loss", "train", 1]


def test_the_metrics_of_a_run(run: Run, repo: Repo) -> None:
    frame = run.metrics().dataframe()
    assert frame["metric.name"].tolist() == ["acc", "loss", "loss"]
    assert frame["idx"].tolist() == [0, 0, 1]
    assert frame["metric.context.subset"].isna().tolist() == [True, False, False]
    assert frame["run.hparams.lr"].tolist() == [0.1] * 3
    assert frame["run.hparams.dims"].tolist() == ["[1, 2]"] * 3
    assert frame["run.hparams.deep.er.est"].isna().all()
    assert frame["run.hparams.empty"].tolist() == ["{}"] * 3
    assert frame["run.experiment"].tolist() == ["e"] * 3
    assert frame["run.tags"].tolist() == ['["t"]'] * 3
    bare = run.metrics().dataframe(only_last=True, include_run=False, include_name=False, include_context=False)
    assert list(bare.columns) == ["idx", "step", "value", "epoch", "time"]
    assert bare["step"].tolist() == [2, 5]
    some = run.metrics().dataframe(include_props=False, include_params=False)
    assert [name for name in some.columns if name.startswith("run.")] == ["run.hash"]
    assert Run("none", repo=repo).metrics().dataframe() is None
    assert len(Run("noparams", repo=repo).metrics()) == 0


def test_a_run(run: Run) -> None:
    frame = run.dataframe()
    assert list(frame.columns) == [
        *["hash", "name", "description", "archived", "creation_time", "end_time", "active", "status", "experiment", "tags"],
        *["hparams.deep.er.est", "hparams.dims", "hparams.empty", "hparams.lr", "n"],
    ]
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row["hash"], row["active"], row["tags"], row["n"], row["hparams.lr"]) == ("r", True, '["t"]', 3, 0.1)
    assert list(run.dataframe(include_props=False, include_params=False).columns) == ["hash"]


def test_arrow(run: Run, repo: Repo) -> None:
    table = run.metrics().arrow()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("run", "dictionary<values=string, indices=int32, ordered=0>"),
        ("name", "dictionary<values=string, indices=int32, ordered=0>"),
        ("context", "dictionary<values=string, indices=int32, ordered=0>"),
        ("step", "int64"),
        ("value", "double"),
        ("epoch", "double"),
        ("time", "timestamp[us, tz=UTC]"),
    ]
    frame = run.metrics().polars()
    assert [(name, kind.base_type()) for name, kind in frame.schema.items()] == [
        *((name, pl.Categorical) for name in ("run", "name", "context")),
        ("step", pl.Int64),
        ("value", pl.Float64),
        ("epoch", pl.Float64),
        ("time", pl.Datetime),
    ]
    assert frame.to_dicts() == table.to_pylist()
    assert repo.query_metrics("metric.name == 'loss'").polars()["value"].to_list() == [0.5, 0.25]
    assert repo.query_metrics("metric.name == 'none'").polars().height == 0
    loss = run.get_metric("loss", {"subset": "train", "x": {"y": 1}})
    assert loss is not None
    assert loss.polars()["step"].to_list() == [1, 5]
    rows = table.to_pylist()
    assert [(row["run"], row["name"], row["step"], row["value"], row["epoch"]) for row in rows] == [
        ("r", "acc", 2, 1.0, None),
        ("r", "loss", 1, 0.5, 0.0),
        ("r", "loss", 5, 0.25, None),
    ]
    assert rows[1]["context"] == '{"subset": "train", "x": {"y": 1}}'
    assert rows[0]["time"].timestamp() == pytest.approx(run.get_metric("acc").timestamps.last_value())
    empty = Run("none", repo=repo).metrics().arrow()
    assert (len(empty), empty.schema) == (0, table.schema)
    run.track_columns("many", np.array([math.nan, math.inf, -0.0]))
    many = run.get_metric("many").arrow()
    assert many.column("value").null_count == 0
    assert [str(value) for value in many.column("value").to_pylist()] == ["nan", "inf", "-0.0"]
    assert pd.api.types.is_float_dtype(many.to_pandas()["value"])
    assert isinstance(many, pa.Table)


@pytest.mark.parametrize(("module", "read"), [("pandas", "dataframe"), ("pyarrow", "arrow")])
def test_an_extra_that_is_not_there_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, module: str, read: str) -> None:
    import importlib

    def without(name: str, *args: Any) -> Any:
        if name == module:
            raise ImportError(f"No module named {module!r}")
        return builtins.__import__(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setattr("aimlite.sdk.frames.import_module", without)
    with pytest.raises(ImportError, match=rf"{module}: pip install 'aimlite-store\["):
        getattr(run.get_metric("acc"), read)()
