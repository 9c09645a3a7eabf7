"""The benchmark runs, and says the same on paper and in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME_COLUMNS = 32
OPERATIONS = {
    *("track", "track_merging", "track_during_merge", "track_power", "track_epoch", "sequence_track", "track_dict", "track_dict_1000"),
    *("track_columns", "track_columns_f64", "write", "peer track"),
    *("read_metric", "read_many_runs", "sample", "list_runs"),
    *("query", "peer query"),
    *("images", "peer images"),
    *("open", "close", "resume", "merge", "bytes_per_point", "import", "descriptors", "rss per sequence"),
}


def bench(*arguments: str, interpreter: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *interpreter, str(ROOT / "benchmarks" / "bench.py"), "--repeats", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def printed_and_json(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, dict[str, object]]]:
    """The lines of figures that were printed, and name → result of the JSON."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench("--scale", "0.001", "--dir", str(folder), "--json", str(folder / "figures.json"))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["figures.json"], "a directory was left behind"
    environment, _, figures = done.stdout.partition("\n\noperation ")
    assert environment.startswith("aimlite ")
    report = json.loads((folder / "figures.json").read_text("utf-8"))
    return figures.splitlines()[1:], {result["name"]: result for result in report["results"]}


def test_prints_what_the_json_says(printed_and_json: tuple[list[str], dict[str, dict[str, object]]]) -> None:
    lines, results = printed_and_json
    assert [line[:NAME_COLUMNS].rstrip() for line in lines] == list(results)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_operation_is_measured(operation: str, printed_and_json: tuple[list[str], dict[str, dict[str, object]]]) -> None:
    _, results = printed_and_json
    own = [result for name, result in results.items() if name == operation or name.startswith(f"{operation} ")]
    assert own
    for result in own:
        best = result["best"]
        assert isinstance(best, float | int) or operation in ("peer track", "peer query", "peer images")


def test_every_operation_is_documented() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert [name for name in sorted(OPERATIONS) if f"`{name}`" not in page] == []


def test_only_takes_names_of_operations() -> None:
    done = bench("--only", "track,fly")
    assert done.returncode == 2
    assert "no operation is called fly; there are track," in done.stderr


def test_warns_when_figures_would_be_worthless() -> None:
    done = bench("--only", "write", "--scale", "0.001", interpreter=("-X", "dev"))
    assert done.returncode == 0, done.stderr
    assert "WARNING: Python's development mode" in done.stdout
