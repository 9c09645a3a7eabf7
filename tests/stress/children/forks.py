"""forks.py REPO SCENARIO HOW ENDING: a process that has tracked, read and merged forks.

HOW: os, multiprocessing or c (the C library's fork, of which Python is not told). ENDING: how the forked child ends: exit (sys.exit) or
_exit; multiprocessing has its own way.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from aimlite import Repo, Run

HANG_S = 250
path, scenario, how, ending = sys.argv[1:5]
pid_of_parent = os.getpid()
processes = {}


def fork(task: Callable[[], None]) -> int:
    """The child does the task and ends."""
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=task)
        process.start()
        assert process.pid is not None
        processes[process.pid] = process
        return process.pid
    pid = ctypes.CDLL(None).fork() if how == "c" else os.fork()
    if pid == 0:
        try:
            task()
        except SystemExit:  # of a grandchild
            raise
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if ending == "_exit":
            os._exit(0)
        sys.exit(0)
    return int(pid)


def join(pid: int) -> None:
    deadline = time.monotonic() + HANG_S
    if how == "multiprocessing":
        processes[pid].join(HANG_S)
        assert processes[pid].exitcode == 0, processes[pid].exitcode
        return
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            assert status == 0, f"the child ended with status {status}"
            return
        time.sleep(0.001)
    os.kill(pid, signal.SIGABRT)
    raise AssertionError("the child hangs")


def losses(of: Run) -> list[float]:
    metric = of.get_metric("loss")
    return [] if metric is None else metric.values.values_list()


def detach() -> None:
    """The child lives on: it must not keep the pipes of the test."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


repo = Repo(path)
run = Run("parent", repo=repo)
for step in range(10):
    run.track(float(step), name="loss")
run["p"] = {"by": "parent"}
assert losses(run) == list(range(10))
repo.merge()
assert losses(run) == list(range(10))
run.track(10.0, name="loss")  # in the journal, after what is in the tree
view_before = repo._view()


def use_everything() -> None:
    assert losses(run) == list(range(11))
    assert run["p", "by"] == "parent"
    run.track(100.0, name="loss")
    run["child"] = {"by": os.getpid()}
    assert losses(run) == [*range(11), 100]
    assert run.status == "running"
    own = Run("child", repo=repo)
    own.track({"loss": 1.0, "other": 2})
    repo.merge()
    own.track_columns("loss", [2.0, 3.0])
    own.close()
    assert losses(own) == [1, 2, 3]
    assert own.status == "finished"
    with Repo(path) as again:
        assert set(again.list_all_runs()) == {"parent", "child"}


def use() -> None:
    join(fork(lambda: None))
    join(fork(use_everything))
    assert losses(run) == [*range(11), 100]
    assert repo.get_run("child").status == "finished"
    assert run.status == "running"
    run.track(11.0, name="loss")
    assert sorted(losses(run)) == [*range(12), 100]
    repo.merge()
    run.close()
    assert run.status == "finished"
    assert run["child", "by"] != os.getpid()
    assert sorted(losses(run)) == [*range(12), 100]


def grandchildren() -> None:
    def grandchild() -> None:
        use_everything()

    def child() -> None:
        assert losses(run) == list(range(11))
        join(fork(grandchild))
        assert losses(run) == [*range(11), 100]

    join(fork(child))
    run.close()
    assert run.status == "finished"
    assert losses(run) == [*range(11), 100]


def many() -> None:
    """As a data loader does: several children at once, again and again."""

    def child() -> None:
        run.track(os.getpid(), name="pid")
        assert losses(run) == list(range(11))

    for _ in range(3):
        pids = [fork(child) for _ in range(4)]
        run.track(0, name="pid")
        for pid in pids:
            join(pid)
    assert run.get_metric("pid").count == 15
    assert run.status == "running"
    run.close()
    assert run.status == "finished"


def vanish() -> None:
    """The child tracks and vanishes: it had the run from its parent, so the run is not interrupted."""

    def child() -> None:
        run.track(100.0, name="loss")
        os._exit(0)

    join(fork(child))
    assert run.status == "running"
    assert losses(run) == [*range(11), 100]
    repo.merge()
    assert run.status == "running"
    run.finish("failed")
    assert run.status == "failed"
    repo.merge()
    assert run.status == "failed"


def outlive() -> None:
    """The test kills this process while its children live on: one that does nothing and one that has a run of its own."""

    def sleep() -> None:
        detach()
        time.sleep(HANG_S)

    def work() -> None:
        detach()
        own = Run("child", repo=repo)
        own.track(1, name="loss")
        time.sleep(HANG_S)

    print("children", fork(sleep), fork(work), flush=True)
    while repo.get_run("child") is None or repo.get_run("child").get_metric("loss") is None:
        time.sleep(0.001)
    assert run.status == "running"
    print("ready", flush=True)
    time.sleep(HANG_S)


{name: task for name, task in list(globals().items()) if callable(task)}[scenario]()
assert os.getpid() == pid_of_parent
run.close()
