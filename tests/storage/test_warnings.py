"""A warning tells; it fails nothing, whatever filter the user has set. The whole suite runs with every warning as an error."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aimlite import Repo, Run

HALF_A_SEGMENT = [0.1] * 600_000


def full_disk(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_rotation_that_fails_loses_no_point(repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run("r", repo=repo)
    run.track_columns("m", HALF_A_SEGMENT)
    run.track_columns("m", HALF_A_SEGMENT)
    with monkeypatch.context() as patch:
        patch.setattr(repo._writer(), "_create", full_disk)
        run.track(0.5, name="m")
        run["p"] = 1
    assert "aimlite: no new journal could be begun, the old one goes on" in capsys.readouterr().err
    run.close()
    assert run.get_metric("m").values.tolist() == [*HALF_A_SEGMENT, *HALF_A_SEGMENT, 0.5]
    assert run["p"] == 1


def test_a_rotation_that_fails_is_shown_where_the_point_was_tracked(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("r", repo=repo)
    run.track_columns("m", HALF_A_SEGMENT)
    run.track_columns("m", HALF_A_SEGMENT)
    with monkeypatch.context() as patch:
        patch.setattr(repo._writer(), "_create", full_disk)
        with pytest.warns(RuntimeWarning, match="no new journal"):
            run.track(0.5, name="m")
    run.close()


def test_a_failed_sync_does_not_end_the_thread_that_syncs(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run("r", repo=repo, sync_interval=0.01)
    synced = threading.Event()
    calls = iter([full_disk, synced.set])
    monkeypatch.setattr(repo._writer(), "sync", lambda: next(calls, synced.set)())
    run.track(1, name="m")
    assert synced.wait(20)
    time.sleep(0.05)
    assert "could not be forced to disk" in capsys.readouterr().err
    run.close()


def test_a_run_that_cannot_be_ended_at_exit_lets_the_others_end(tmp_path: Path) -> None:
    script = f"""
import errno
from aimlite import Run
def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
a, b = (Run(name, repo={str(tmp_path)!r} + "/" + name) for name in "ab")
a.repo._writer().close = full_disk
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "a run could not be ended at exit" in done.stderr
    assert [Repo(tmp_path / name).get_run(name).status for name in "ab"] == ["interrupted", "finished"]
