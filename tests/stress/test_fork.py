"""Forks and threads: a child never keeps its parent's run alive, ends it or hangs; threads lose nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aimlite import Repo

if TYPE_CHECKING:
    from stress.conftest import Count, Start

CASES = [
    *(("use", how, ending) for how in ("os", "c") for ending in ("exit", "_exit")),
    ("use", "multiprocessing", "own"),
    ("vanish", "os", "_exit"),
    ("vanish", "c", "_exit"),
    ("grandchildren", "os", "exit"),
    ("grandchildren", "c", "_exit"),
    ("many", "os", "_exit"),
    ("many", "multiprocessing", "own"),
]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where child processes make temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


@pytest.mark.parametrize(("scenario", "how", "ending"), CASES, ids=map("-".join, CASES))
def test_a_forked_child(repo: Repo, temporary: Path, start: Start, scenario: str, how: str, ending: str) -> None:
    start("forks.py", repo.path, scenario, how, ending).join()
    run = repo.get_run("parent")
    assert run is not None
    assert run.status == ("failed" if scenario == "vanish" else "finished")
    assert [path.name for path in temporary.rglob("*")] == [f"aimlite-readers-{os.getuid()}"]


@pytest.mark.parametrize("how", ["os", "multiprocessing", "c"])
def test_a_dead_parent_s_run_is_interrupted_while_its_children_live(repo: Repo, start: Start, how: str) -> None:
    parent = start("forks.py", repo.path, "outlive", how, "_exit")
    parent.wait_for("ready")
    pids = [int(pid) for pid in parent.lines[0].split()[1:]]
    try:
        run, own = repo.get_run("parent"), repo.get_run("child")
        assert run is not None
        assert own is not None
        assert (run.status, own.status) == ("running", "running")
        parent.kill()
        assert (run.status, own.status) == ("interrupted", "running")
        assert run.end_time is not None
        repo.merge()
        assert (run.status, own.status) == ("interrupted", "running")
    finally:
        kill(pids)
    deadline = time.monotonic() + 20
    while own.status == "running" and time.monotonic() < deadline:  # its threads may let go of the journal a moment after it is a zombie
        pass
    assert own.status == "interrupted"
    assert not is_alive(pids[1])


def test_threads_lose_nothing(repo: Repo, start: Start, count: Count) -> None:
    start("threads.py", repo.path, count(300, 3000)).join()
    run = repo.get_run("threads")
    assert run is not None
    assert run.status == "finished"


@pytest.mark.parametrize("durability", ["process", "power"])
def test_threads_that_write_while_the_process_forks(repo: Repo, start: Start, count: Count, durability: str) -> None:
    parent = start("threads_and_forks.py", repo.path, count(20, 300), durability)
    try:
        parent.wait_for("ready")
        run = repo.get_run("parent")
        assert run is not None
        assert run.status == "running"
        parent.kill()
        assert run.status == "interrupted"
        assert repo.merge()["damaged"] == []
        assert repo._layout.list_journals() == []  # no child holds any of them
        assert run.status == "interrupted"
    finally:
        parent.kill()
        kill([int(line.split()[1]) for line in parent.lines if line.startswith("child")])


def kill(pids: list[int]) -> None:
    """Orphans of a child that was killed."""
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait as a zombie for whoever adopted it."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.exists():
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return Path("/proc/self").exists() is False
