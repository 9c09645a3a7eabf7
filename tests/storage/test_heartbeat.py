"""Shared file systems, where another machine's lock may not be seen: here locks are made invisible, and this one is taken for shared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlite import Repo
from aimlite.storage import heartbeat, locks
from aimlite.storage.merge import merge

WRITER = """
import sys, time
from aimlite.storage import heartbeat
heartbeat.INTERVAL_S = float(sys.argv[2])
from aimlite import Run
run = Run("r", repo=sys.argv[1], system_tracking_interval=None)
run.track(1, name="loss")
print("open", flush=True)
sys.stdin.readline()
run.close()
"""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process sees files as another machine does."""
    monkeypatch.setenv("AIMLITE_HEARTBEAT", "1")
    monkeypatch.setattr(locks, "_is_locked", lambda fd: False)


@pytest.fixture
def writer(repo: Repo) -> Iterator[object]:
    started = []

    def start(interval_s: float) -> subprocess.Popen[str]:
        environment = {**os.environ, "AIMLITE_HEARTBEAT": "1", "AIMLITE_MERGE": "off"}
        command = [sys.executable, "-c", WRITER, repo.path, str(interval_s)]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def age(repo: Repo, seconds: float) -> None:
    """As if the last beat had been so long ago."""
    for name in repo._layout.list_journals():
        then = time.time() - seconds
        os.utime(repo._layout.journal(*name), (then, then))


def test_a_beating_heart_is_a_running_run(repo: Repo, elsewhere: None, writer: object) -> None:
    child = writer(0.05)  # type: ignore[operator]
    run = repo.get_run("r")
    age(repo, heartbeat.PATIENCE_S + 1)
    while not run.active:  # the next beat comes soon
        time.sleep(0.01)
    assert run.end_time is None
    child.communicate("\n")
    assert (child.returncode, run.status) == (0, "finished")


def test_a_silent_one_is_interrupted_until_it_beats_again(repo: Repo, elsewhere: None, writer: object) -> None:
    child = writer(1000)  # type: ignore[operator]
    run = repo.get_run("r")
    assert run.status == "running"
    age(repo, heartbeat.PATIENCE_S + 1)
    assert run.status == "interrupted"
    child.communicate("\n")
    assert run.status == "finished"


def test_nobody_merges_what_may_still_be_written(repo: Repo, elsewhere: None, writer: object) -> None:
    child = writer(1000)  # type: ignore[operator]
    age(repo, heartbeat.PATIENCE_S + 1)
    assert merge(repo._layout, wait=True).segments == 0
    assert len(repo._layout.list_journals()) == 1
    child.kill()
    child.communicate()
    age(repo, heartbeat.MERGE_PATIENCE_S + 1)
    assert merge(repo._layout, wait=True).segments == 1
    assert repo.get_run("r").status == "interrupted"


def test_what_was_let_go_of_is_merged_at_once(repo: Repo, elsewhere: None, writer: object) -> None:
    writer(1000).communicate("\n")  # type: ignore[operator]
    assert merge(repo._layout, wait=True).segments == 1
    assert repo.get_run("r").status == "finished"


def test_file_systems_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIMLITE_HEARTBEAT", raising=False)
    (tmp_path / "mounts").write_text(
        "22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
        "29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n"
        "60 29 0:52 / /data rw,relatime shared:30 - nfs4 server:/data rw\n"
        "61 29 0:53 / /home/me/far rw,nosuid - fuse.sshfs me@far: rw\n"
        "62 29 0:54 / /mnt/a\\040b rw - lustre mds:/scratch rw\n"
    )
    monkeypatch.setattr(heartbeat, "_MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(heartbeat, "_known", {})
    devices = {
        os.makedev(0, 52): True,
        os.makedev(0, 53): True,
        os.makedev(0, 54): True,
        os.makedev(259, 2): False,
        os.makedev(9, 9): False,
    }
    for _ in range(2):
        assert {device: heartbeat.is_shared(device) for device in devices} == devices
        monkeypatch.setattr(heartbeat, "_MOUNTS", str(tmp_path / "not there"))
    monkeypatch.setenv("AIMLITE_HEARTBEAT", "0")
    assert not any(map(heartbeat.is_shared, devices))


def test_on_a_disk_of_this_machine_nothing_beats(repo: Repo) -> None:
    run = repo._writer().open_run("r")
    assert repo._writer()._heart is None
    repo._writer().end_run(run, "finished")
