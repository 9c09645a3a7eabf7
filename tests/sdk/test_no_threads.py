"""Where no thread can be started a run goes on, is told what is not recorded, and ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from aimlite import ArtifactError, Repo, Run
from aimlite.artifacts import uploads
from aimlite.capture import sampling, terminal
from aimlite.storage import heartbeat


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def quiet(repo: Repo) -> Run:
    return Run(repo=repo, system_tracking_interval=None, capture_terminal_logs=False)


@pytest.mark.usefixtures("no_threads")
def test_everything_that_has_a_thread(
    repo: Repo, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal._close_all()  # what another test left open has its threads already
    monkeypatch.setattr(sampling, "_sampler", None)
    monkeypatch.setattr(sampling, "_said", set())
    monkeypatch.setattr(heartbeat, "is_shared", lambda device: True)
    before = [os.fstat(fd).st_ino for fd in (1, 2)]
    with pytest.warns(RuntimeWarning) as told:
        run = Run(repo=repo, system_tracking_interval=1, log_system_params=True, capture_terminal_logs=True, sync_interval=60)
    messages = sorted(str(warning.message).partition(":")[0] for warning in told)
    assert messages == [
        "other hosts may take the runs of this process for dead",
        "the terminal's output is not recorded",
        "what is recorded is not forced to disk at an interval",
    ]
    assert [record.getMessage() for record in caplog.records if "can't start new thread" in record.getMessage()] == [
        "system params: can't start new thread",
        "system metrics: no sampler could be started: can't start new thread",
    ]
    assert [os.fstat(fd).st_ino for fd in (1, 2)] == before
    run.track(1.0, name="loss")
    run.set_artifacts_uri(f"file://{tmp_path}/place")
    run.log_artifact(model)
    run.log_artifact(model, "again", block=True)
    run.finish()
    assert {name: artifact.pending for name, artifact in run.artifacts.items()} == {"model.pt": False, "again": False}
    assert repo.get_run(run.hash).status == "finished"


@pytest.mark.usefixtures("no_threads")
def test_what_fails_to_be_uploaded_is_told(repo: Repo, model: Path, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("no directory")
    run = quiet(repo)
    run.set_artifacts_uri(f"file://{tmp_path}/place")
    run.log_artifact(model)
    with pytest.raises(ArtifactError, match=r"model\.pt \(FileExistsError|NotADirectoryError"):
        run.finish()
    assert repo.get_run(run.hash).status == "finished"


@pytest.mark.usefixtures("no_threads")
def test_an_interrupted_wait_can_be_waited_for_again(repo: Repo, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = quiet(repo)
    run.set_artifacts_uri(f"file://{tmp_path}/place")
    run.log_artifact(model)
    uploader: Any = run._uploader

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "upload", interrupt)
        with pytest.raises(KeyboardInterrupt):
            uploader.wait()
    assert uploader.wait() == []
    run.finish()
    assert run.artifacts["model.pt"].pending
    with Run(run.hash, repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as again:
        pass
    assert not again.artifacts["model.pt"].pending


def test_one_thread_of_several(repo: Repo, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], threading.Thread.start

    def once(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self.name)
        start(self)

    with quiet(repo) as run:
        run.set_artifacts_uri(f"file://{tmp_path}/place")
        monkeypatch.setattr(threading.Thread, "start", once)
        for number in range(10):
            run.log_artifact(model, f"model {number}")
    assert started == ["aimlite-upload"]
    assert {artifact.pending for artifact in run.artifacts.values()} == {False}
