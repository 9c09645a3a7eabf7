from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]
VALUES = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.nan, math.inf, -math.inf, 1e16]


@pytest.fixture
def run(repo: Repo) -> Run:
    run = Run("run", repo=repo)
    for step, value in enumerate(VALUES):
        run.track(value, name='quote " and, comma', step=step - 3, epoch=None if step % 2 else 0.5, context={"subset": "träin", "n": [1]})
    run.track_columns("long", range(10_000))
    run.close()
    return run


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("merged", [False, True])
def test_csv_reads_back_as_it_was(aimlite: Command, repo: Repo, run: Run, merged: bool) -> None:
    if merged:
        repo.merge()
    rows = rows_of(aimlite("export", "run").stdout)
    assert list(rows[0]) == ["name", "context", "step", "value", "epoch", "time"]
    short = [row for row in rows if row["name"] != "long"]
    metric = run.get_metric('quote " and, comma', {"subset": "träin", "n": [1]})
    assert metric is not None
    assert {row["context"] for row in short} == {'{"n": [1], "subset": "träin"}'}
    assert [int(row["step"]) for row in short] == metric.indices.tolist()
    assert list(map(repr, (float(row["value"]) for row in short))) == list(map(repr, VALUES))
    assert [row["value"] for row in short][5:8] == ["nan", "inf", "-inf"]
    assert [row["epoch"] for row in short] == ["0.5", "", "0.5", "", "0.5", "", "0.5", "", "0.5"]
    assert [datetime.fromisoformat(row["time"]).timestamp() for row in short] == metric.timestamps.tolist()
    assert [float(row["value"]) for row in rows if row["name"] == "long"] == list(map(float, range(10_000)))


def test_points_not_yet_merged_come_with_the_merged(aimlite: Command, repo: Repo, run: Run) -> None:
    repo.merge()
    with Run("run", repo=repo) as again:
        again.track_columns("long", [1.0, 2.0], steps=[10_000, 10_001])
    later = [(row["step"], row["value"]) for row in rows_of(aimlite("export", "run", "--metric", "long").stdout)]
    assert later[-3:] == [("9999", "9999.0"), ("10000", "1.0"), ("10001", "2.0")]
    with Run("run", repo=repo) as again:
        again.track(-1, name="long", step=5)
    among = [(row["step"], row["value"]) for row in rows_of(aimlite("export", "run", "--metric", "long").stdout)]
    assert (len(among), among[5]) == (10_002, ("5", "-1.0"))


def test_metrics_are_chosen_by_name(aimlite: Command, run: Run) -> None:
    assert {row["name"] for row in rows_of(aimlite("export", "run", "--metric", "long").stdout)} == {"long"}
    missing = aimlite("export", "run", "--metric", "nope")
    assert (missing.exit_code, missing.stdout) == (3, "")


def test_a_file_is_replaced_when_it_is_whole(aimlite: Command, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    assert aimlite("export", "run", "-o", str(target)).output == ""
    assert target.read_text("utf-8") == aimlite("export", "run").stdout
    target.write_text("old")
    monkeypatch.setattr("aimlite.sdk.pieces.pieces", lambda metric: 1 / 0)
    failed = aimlite("export", "run", "-o", str(target))
    assert (failed.exit_code, target.read_text(), list(tmp_path.glob(".out*"))) == (1, "old", [])


def test_a_device_is_written_to(aimlite: Command, run: Run) -> None:
    assert aimlite("export", "run", "-o", "/dev/null").exit_code == 0
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("merged", [False, True])
def test_parquet(aimlite: Command, repo: Repo, run: Run, tmp_path: Path, merged: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    if merged:
        repo.merge()
    target = tmp_path / "out.parquet"
    assert aimlite("export", "run", "--parquet", "-o", str(target)).output == ""
    table: Any = parquet.read_table(target)
    assert table.column_names == ["name", "context", "step", "value", "epoch", "time"]
    rows = [row for row in table.to_pylist() if row["name"] != "long"]
    assert len(table) == 10_000 + len(VALUES)
    assert [row["step"] for row in rows] == list(range(-3, 6))
    assert [repr(row["value"]) for row in rows] == list(map(repr, VALUES))
    assert [row["epoch"] for row in rows] == [0.5, None, 0.5, None, 0.5, None, 0.5, None, 0.5]
    lines = rows_of(aimlite("export", "run").stdout)
    assert [row["time"] for row in table.to_pylist()] == [datetime.fromisoformat(row["time"]) for row in lines]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parquet"], "name a file with -o FILE"),
        (["--parquet", "-o", "-"], "name a file with -o FILE"),
        (["--parquet", "--csv", "-o", "x"], "exclude each other"),
        (["-o", "/nowhere/at/all.csv"], "there is no directory '/nowhere/at'"),
    ],
)
def test_wrong_usage(aimlite: Command, run: Run, arguments: list[str], message: str) -> None:
    result = aimlite("export", "run", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_without_pyarrow_it_says_what_to_install(aimlite: Command, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    result = aimlite("export", "run", "--parquet", "-o", str(tmp_path / "x"))
    assert (result.exit_code, result.stderr) == (1, "error: Parquet needs pyarrow, which is not installed: pip install pyarrow\n")


def test_memory_does_not_grow_with_the_points(repo: Repo, repo_path: str) -> None:
    def peak(run_hash: str) -> int:
        """KiB at most, while it was exported."""
        script = (
            "import resource, sys\nfrom aimlite.cli.__main__ import cli\n"
            "try:\n    cli.main(sys.argv[1:])\n"
            "except SystemExit:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        command = [sys.executable, "-c", script, "export", run_hash, "-o", "/dev/null", "--repo", repo_path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stderr) // (1024 if sys.platform == "darwin" else 1)

    for run_hash, points in (("small", 10_000), ("large", 1_000_000)):
        with Run(run_hash, repo=repo) as run:
            run.track_columns("m", range(points))
    repo.merge()
    assert peak("large") - peak("small") < 30_000
