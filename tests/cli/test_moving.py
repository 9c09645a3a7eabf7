from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]


@pytest.fixture
def runs(repo: Repo) -> Repo:
    for run_hash in ("alpha", "beta"):
        with Run(run_hash, repo=repo) as run:
            run.track(1.0, name="m")
    return repo


def test_runs_are_taken_elsewhere(aimlite: Command, runs: Repo, tmp_path: Path) -> None:
    there, file = tmp_path / "there", tmp_path / "runs.zip"
    assert json.loads(aimlite("cp", "al", "--to", str(there), "--json").stdout) == {"copied": ["alpha"]}
    assert json.loads(aimlite("mv", "be", "--to", str(there), "--yes", "--json").stdout) == {"moved": ["beta"]}
    assert (runs.list_all_runs(), Repo(there).list_all_runs()) == (["alpha"], ["beta", "alpha"])
    assert aimlite("export", "--archive", "--all", "-o", str(file), "--repo", str(there)).exit_code == 0
    refused = aimlite("import", str(file))
    assert (refused.exit_code, "'alpha'" in refused.stderr) == (1, True)
    assert json.loads(aimlite("import", str(file), "--skip-existing", "--json").stdout) == {"imported": ["beta"]}
    assert aimlite("import", str(file), "--skip-existing").stdout == "there was nothing to import\n"


def test_a_repo_is_backed_up_and_restored(aimlite: Command, runs: Repo, tmp_path: Path) -> None:
    saved, again = str(tmp_path / "saved"), str(tmp_path / "again")
    assert json.loads(aimlite("backup", saved, "--json").stdout) == {"path": f"{saved}/.aimlite"}
    assert json.loads(aimlite("restore-backup", saved, "--repo", again, "--json").stdout) == {"path": f"{again}/.aimlite"}
    assert Repo(again).list_all_runs() == runs.list_all_runs()
    for command in (("backup", saved), ("restore-backup", saved, "--repo", again)):
        refused = aimlite(*command)
        assert (refused.exit_code, "not written over" in refused.stderr) == (1, True)


def test_a_vanished_run_is_closed(aimlite: Command, runs: Repo) -> None:
    script = "import os, sys\nfrom aimlite import Run\nRun('gone', repo=sys.argv[1], system_tracking_interval=None)\nos._exit(0)"
    subprocess.run([sys.executable, "-c", script, runs.path], check=True)
    gone = runs.get_run("gone")
    assert gone is not None
    assert gone.status == "interrupted"
    assert json.loads(aimlite("close", "gone", "--json").stdout) == {"hash": "gone", "status": "finished"}
    assert gone.status == "finished"
    with Run("live", repo=runs):
        refused = aimlite("close", "live")
        assert (refused.exit_code, "a process is writing" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["export", "--archive", "alpha"], 2, "-o FILE"),
        (["export", "--archive", "-o", "x.zip"], 2, "--all"),
        (["export", "--archive", "--all", "alpha", "-o", "x.zip"], 2, "--all"),
        (["export", "--archive", "--csv", "alpha", "-o", "x.zip"], 2, "alone"),
        (["export", "--archive", "alpha", "-o", "nowhere/x.zip"], 2, "no directory"),
        (["export", "alpha", "beta"], 2, "one HASH"),
        (["export"], 2, "one HASH"),
        (["cp", "nobody", "--to", "x"], 3, "'nobody'"),
        (["mv", "alpha", "--to", "x"], 2, "pass --yes"),
        (["restore-backup", "nowhere", "--repo", "x"], 1, "no backup"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_cannot_be_done_is_said(
    aimlite: Command, runs: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = aimlite(*arguments)
    assert (done.exit_code, message in done.stderr) == (code, True)
    assert os.listdir(tmp_path) == ["repo"]
    assert runs.total_runs_count() == 2
