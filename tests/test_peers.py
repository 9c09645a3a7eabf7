"""The comparison with peers, of codecs, of sizes and of commits: at small sizes, and without installing any peer."""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


def script(name: str) -> ModuleType:
    """A module of benchmarks/, which are scripts beside each other."""
    places = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
    sys.path[:0] = places
    try:
        return importlib.import_module(name)
    finally:
        for place in places:
            sys.path.remove(place)


def run(file: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


# -- the table of peers --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """aimlite and the floors, which need no environment: (page with the table, JSON, folder)."""
    folder = tmp_path_factory.mktemp("peers")
    page = folder / "page.md"
    page.write_text("Before.\n\n<!-- peers -->\nold\n<!-- end of peers -->\n\nAfter.\n", "utf-8")
    arguments = ["--only", "write(2),numpy", "--rounds", "1", "--scale", "0.002", "--dir", str(folder)]
    done = run("peers/peers.py", *arguments, "--json", str(folder / "figures.json"), "--write", str(page))
    assert done.returncode == 0, done.stderr
    return page.read_text("utf-8"), json.loads((folder / "figures.json").read_text("utf-8")), folder


def test_the_table_goes_between_the_markers(measured: tuple[str, dict[str, Any], Path]) -> None:
    page, _, folder = measured
    assert page.startswith("Before.\n\n<!-- peers -->\n")
    assert page.endswith("<!-- end of peers -->\n\nAfter.\n")
    assert "\nold\n" not in page
    assert "|  | aimlite | write(2) | numpy |" in page
    assert sorted(file.name for file in folder.iterdir()) == ["benchmarks-peers.png", "figures.json", "page.md"], (
        "a directory was left behind"
    )
    assert (folder / "benchmarks-peers.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_what_the_json_says(measured: tuple[str, dict[str, Any], Path]) -> None:
    page, report, _ = measured
    shown = script("report").shown
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for line in page.splitlines() if len(cells := line.split("|")) == 6}
    for figure in script("report").FIGURES:
        cells = rows[f"{figure.label}, {figure.unit}"]
        for cell, peer in zip(cells, ("aimlite", "write(2)", "numpy"), strict=True):
            found = report["peers"][peer]["figures"].get(figure.name)
            if isinstance(found, dict):
                assert cell.startswith(("not offered [", "failed ["))
            else:
                assert cell.split(" ")[0] == ("–" if found is None else shown(found))
                assert found is None or found > 0 or figure.name == "bytes"


def test_aimlite_does_all_of_it(measured: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = measured
    own = report["peers"]["aimlite"]
    assert all(isinstance(own["figures"][figure.name], float | int) for figure in script("report").FIGURES)
    assert own["survival"]["kept"] == own["survival"]["points"]
    assert own["survival"]["synced"] in (0, None)


def test_only_takes_names_of_peers() -> None:
    done = run("peers/peers.py", "--only", "aimlite,Fly")
    assert done.returncode == 2
    assert "no peer is called Fly; there are aimlite, aimlite power, Aim, Runicorn, TensorBoard, MLflow, W&B offline" in done.stderr


def test_every_peer_has_an_adapter_that_offers_everything_or_says_why_not() -> None:
    peers, contract = script("peers"), script("contract")
    offered = [name for name in vars(contract.Peer) if not name.startswith("_")]
    for adapter, _ in peers.PEERS.values():
        text = (BENCHMARKS / "peers" / "adapters" / f"{adapter}.py").read_text("utf-8")
        assert [name for name in offered if f"def {name}(" not in text] == [], adapter


def test_a_write_that_may_be_lost_is_marked_beside_a_safe_one() -> None:
    report, survival = script("report"), script("durability").Survival
    columns = [
        report.Column("aimlite", "1", survival(1000, 1000, 20, 0), {"scalar": 1.0, "read": 1.0}),
        report.Column("hasty", "2", survival(1000, 990, 20, 0), {"scalar": 50.0, "read": 3.0}, {"scalar": 50.0}),
        report.Column("careful", "3", survival(1000, 1000, 20, 41), {"scalar": 9000.0}, {"scalar": 100.0}, against_power=True),
        report.Column("poor", "4", None, {"scalar": {"not offered": "it cannot"}}),
        report.Column("absent", "", None, missing="cannot be installed: no wheel"),
    ]
    text = report.markdown(columns, {"rounds": 3, "date": "today", "CPU": "some; load 9", "warnings": []})
    lines = text.splitlines()
    assert "| a value with name, step and context, µs | 1.00 | 50.0 (50×)† | 9,000 (100×)‡ | not offered [1] |" in lines
    assert "| reading one metric, µs/point | 1.00 | 3.00 | – | – |" in lines
    assert "| **survives SIGKILL** | yes (1,000 of 1,000) | **no** (990 of 1,000 kept) | yes (1,000 of 1,000) | – |" in lines
    assert "| **survives power loss** | no (0 syncs in 20 calls) | no (0 syncs in 20 calls) | yes (41 syncs in 20 calls) | – |" in lines
    assert any(line.startswith("† An unsafe write beside a safe one: what hasty took") for line in lines)
    assert any(line.startswith("‡ A write that is on the disk when it returns") for line in lines)
    assert "- absent is not in the table: cannot be installed: no wheel." in lines
    assert "1. poor: it cannot" in lines
    assert "load" not in text


def test_syncs_count_between_the_marks_only() -> None:
    trace = (
        "11 fsync(3) = 0\n11 getsid(0) = 11\n11 fdatasync(4) = 0\n12 fsync(5 <unfinished ...>\n11 msync(0x7f, 4096, MS_SYNC) = 0\n"
        "12 <... fsync resumed>) = 0\n11 getsid(0) = 11\n11 fsync(3) = 0\n"
    )
    durability = script("durability")
    assert durability.count_syncs(trace) == 3
    with pytest.raises(script("processes").ChildFailed, match="1 marks in its trace"):
        durability.count_syncs("11 getsid(0) = 11\n")


def test_what_cannot_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venvs = script("venvs")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found' >&2\nexit 1\n", "utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(venvs.sys, "executable", str(python))
    with pytest.raises(venvs.Unavailable, match=r"^cannot be installed: ERROR: No matching distribution found$"):
        venvs.interpreter(tmp_path, "nothing", ("nothing",))


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- end of peers --> <!-- peers -->", "utf-8")
    with pytest.raises(ValueError, match="has no <!-- peers -->"):
        script("report").replace_between_markers(page, "peers", "text")
    assert page.read_text("utf-8") == "<!-- end of peers --> <!-- peers -->"


def test_the_page_has_a_place_for_each_table() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for name in ("peers", "codecs", "scaling"):
        assert page.count(f"<!-- {name} -->\n") == page.count(f"<!-- end of {name} -->\n") == 1


# -- codecs --------------------------------------------------------------------------------------------------------------------------


def test_codecs_are_measured_on_every_curve() -> None:
    codecs = script("block_codecs")
    raw = codecs.Codec(
        lambda steps, values: (steps.tobytes(), values.tobytes()), lambda both: (np.frombuffer(both[0], np.int64), np.frombuffer(both[1]))
    )
    results = codecs.measure({"aimlite": raw, "raw": raw}, 128, 1)
    assert results.keys() == script("curves").curves(128).keys()
    assert all(found["raw"]["bytes"] == 16 for found in results.values())
    table = codecs.markdown(results).splitlines()
    assert len(table) == len(results) + 3
    assert table[-1].startswith("| **median ratio to aimlite** | **1.00×; 1.0× / 1.0×** | **1.00×;")


def test_a_codec_that_loses_bits_is_not_measured() -> None:
    codecs = script("block_codecs")
    lossy = codecs.Codec(lambda steps, values: (steps, values.astype(np.float32)), lambda both: (both[0], both[1].astype(np.float64)))
    with pytest.raises(AssertionError, match="lossy changed values of training loss, float64"):
        codecs.measure({"lossy": lossy}, 128, 1)


# -- growth --------------------------------------------------------------------------------------------------------------------------


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    done = run(
        "scaling.py",
        "--scale",
        "1e-9",
        "--repeats",
        "1",
        "--dir",
        str(tmp_path),
        "--plots",
        str(tmp_path),
        "--json",
        str(tmp_path / "it.json"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "it.json").read_text("utf-8"))["results"]
    assert {name: list(rows) for name, rows in results.items()} == {"writers": ["1"], "runs": ["10"], "points": ["1000"]}
    flat = {name: axis.flat for name, axis in script("scaling").AXES.items()}
    for name, rows in results.items():
        [figures] = rows.values()
        assert set(flat[name]) <= figures.keys()
        assert all(cost > 0 for cost in figures.values())
        assert all(f"| {figure} | " in done.stdout for figure in figures)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("benchmarks-points.png", "benchmarks-runs.png", "benchmarks-writers.png", "it.json")
    ]  # fmt: skip


# -- commits -------------------------------------------------------------------------------------------------------------------------


def test_two_trees_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    compare = script("compare")
    order: list[Path] = []
    other = tmp_path / "other"
    other.symlink_to(ROOT)  # what would be built from the commit

    @contextlib.contextmanager
    def checked_out(ref: str, parent: str) -> Iterator[Path]:
        yield other

    def measured(operation: str, package: Path, *arguments: Any) -> Any:
        order.append(package)
        return really(operation, package, *arguments)

    really = compare.measured
    monkeypatch.setattr(compare, "checked_out", checked_out)
    monkeypatch.setattr(compare, "measured", measured)
    monkeypatch.setattr(compare, "git", lambda *arguments: "abc1234")
    assert compare.main(["main", "--only", "write", "--rounds", "2", "--scale", "0.001", "--json", str(tmp_path / "it.json")]) == 0
    assert order == [ROOT, other, other, ROOT]
    lines = capsys.readouterr().out.splitlines()
    results = json.loads((tmp_path / "it.json").read_text("utf-8"))["results"]
    assert [result["name"] for result in results] == ["write", "write columns", "write columns_f64"]
    assert [line.split("  ")[0] for line in lines[-3:]] == ["write", "write columns", "write columns_f64"]
    for result in results:
        assert result["ratio"] == pytest.approx(sum(result["ratios"]) / 2)


def test_an_operation_that_a_commit_has_not_is_said() -> None:
    compare = script("compare")
    assert compare.row({"name": "query", "failed": "there: ImportError"}).split() == ["query", "there:", "ImportError"]
    names = compare.operations()
    assert "track" in names
    assert "peer track" not in names


def test_a_commit_that_there_is_not() -> None:
    done = run("compare.py", "no-such-commit", "--only", "write")
    assert done.returncode == 1
    assert "git worktree add" in done.stderr
    assert "no-such-commit" in done.stderr
