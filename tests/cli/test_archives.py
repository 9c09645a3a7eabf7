"""`aimlite restore-code` and `aimlite artifacts`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]


@pytest.fixture
def run(repo: Repo, tmp_path: Path) -> Run:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/train.py").write_text("print(1)")
    with Run("archived", repo=repo) as run:
        run.log_code(tmp_path / "project")
    return run


def test_restore_code(aimlite: Command, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert aimlite("restore-code", "arch", str(target)).stdout == f"restored 1 file to {target}\n"
    assert (target / "train.py").read_text() == "print(1)"
    again = aimlite("restore-code", "arch", str(target))
    told = f"error: {target}/train.py would be overwritten: restore elsewhere, or ask for overwriting\n"
    assert (again.exit_code, again.stderr) == (1, told)
    done = aimlite("restore-code", "arch", str(target), "--overwrite", "--json")
    assert json.loads(done.stdout) == {"run": "archived", "path": str(target), "files": 1}


def test_a_run_without_code(aimlite: Command, repo: Repo, tmp_path: Path) -> None:
    Run("bare", repo=repo).close()
    done = aimlite("restore-code", "bare", str(tmp_path / "out"))
    assert (done.exit_code, done.stderr) == (3, "error: run bare has no code\n")
    assert not (tmp_path / "out").exists()


def test_damaged_code(aimlite: Command, repo_path: str, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/train.py").write_text("print(1)")
    with Repo(repo_path) as repo, Run("archived", repo=repo) as run:
        run.log_code(tmp_path / "project")
    for path in Path(repo.path, "blobs").rglob("*"):
        if path.is_file() and path.read_bytes() == b"print(1)":
            path.write_bytes(b"print(2)")
    done = aimlite("restore-code", "archived", str(tmp_path / "out"))
    assert done.exit_code == 4
    assert "1 of 1 files could not be restored" in done.stderr


@pytest.fixture
def made(repo: Repo, tmp_path: Path) -> Run:
    (tmp_path / "model.pt").write_text("weights")
    with Run("made", repo=repo) as run:
        run.log_artifact(tmp_path / "model.pt")
        run.set_artifacts_uri(f"file://{tmp_path}/elsewhere")
        run.log_artifact(tmp_path / "model.pt", "best/model.pt")
    return run


def test_listing_artifacts(aimlite: Command, made: Run, tmp_path: Path, terminal: Callable[..., str], repo_path: str) -> None:
    local = made.artifacts["model.pt"]
    remote = f"file://{tmp_path}/elsewhere/made/best/model.pt"
    assert aimlite("artifacts", "made").stdout.splitlines() == [
        f"best/model.pt\t7\tstored\t{remote}\t{local.hash}",
        f"model.pt\t7\tstored\t{local.uri}\t{local.hash}",
    ]
    told = json.loads(aimlite("artifacts", "made", "--json").stdout)
    assert told[0] == {
        "name": "best/model.pt",
        "path": str(tmp_path / "model.pt"),
        "uri": remote,
        "size": 7,
        "hash": local.hash,
        "pending": False,
    }
    shown = terminal(60, "artifacts", "made", "--repo", repo_path)
    assert "artifact" in shown.splitlines()[0]
    assert "best/model.pt" in shown


def test_downloading_an_artifact(aimlite: Command, made: Run, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert aimlite("artifacts", "made", "download", "best/model.pt", str(target)).stdout == f"{target}/best/model.pt\n"
    assert (target / "best/model.pt").read_text() == "weights"
    (target / "best/model.pt").write_text("mine")
    done = aimlite("artifacts", "made", "download", "best/model.pt", str(target))
    assert (done.exit_code, "would be overwritten" in done.stderr) == (1, True)
    done = aimlite("artifacts", "made", "download", "best/model.pt", str(target), "--overwrite", "--json")
    assert json.loads(done.stdout)["path"] == f"{target}/best/model.pt"
    (tmp_path / "elsewhere/made/best/model.pt").write_text("changed")
    assert aimlite("artifacts", "made", "download", "best/model.pt", str(tmp_path / "again")).exit_code == 4


def test_wrong_usage_of_artifacts(aimlite: Command, made: Run, tmp_path: Path) -> None:
    assert aimlite("artifacts", "made", "download", "nobody", str(tmp_path)).exit_code == 3
    assert aimlite("artifacts", "made", "download", "model.pt").exit_code == 2
    assert aimlite("artifacts", "made", "upload", "a", "b").exit_code == 2
    assert aimlite("artifacts", "nobody").exit_code == 3
