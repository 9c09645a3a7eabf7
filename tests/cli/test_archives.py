"""`aimlite restore-code`."""

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
