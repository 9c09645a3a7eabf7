from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aimlite import Repo

STEPS = {16: 90, 128: 12}  # ⌈1437 / batch⌉


def demo(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "aimlite.demo", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_eight_runs_land_in_one_repo(repo: Repo, repo_path: str, tmp_path: Path) -> None:
    picture = tmp_path / "made" / "curves.png"
    shown = demo("--repo", repo_path, "--out", str(picture), "--epochs", "2", "--processes", "2")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in shown
    runs = list(repo.iter_runs())
    assert len(runs) == 8
    for run in runs:
        assert run.hash[:12] in shown
        assert run.status == "finished"
        loss = run.get_metric("loss", {"subset": "train"})
        assert loss is not None
        assert loss.count == 2 * STEPS[run["hparams", "batch"]]
        accuracy = run.get_metric("accuracy", {"subset": "val"})
        assert accuracy is not None
        assert accuracy.epochs.sparse_numpy()[1].tolist() == [1, 2]
        assert 0.1 < accuracy.max <= 1


def test_the_same_settings_learn_the_same(repo: Repo, repo_path: str) -> None:
    demo("--repo", repo_path, "--epochs", "1")
    demo("--repo", repo_path, "--epochs", "1")
    curves: dict[str, list[list[float]]] = {}
    for run in repo.iter_runs():
        loss = run.get_metric("loss", {"subset": "val"})
        assert loss is not None
        curves.setdefault(run.name, []).append(loss.values.values_list())
    assert len(curves) == 8
    assert all(first == second for first, second in curves.values())
