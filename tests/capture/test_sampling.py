"""The sampler: what runs get from it, when it is there, and that it never stands in the way."""

from __future__ import annotations

import gc
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aimlite import Repo, Run
from aimlite.capture import SYSTEM_METRICS as PREFIX
from aimlite.capture import sampling, usage
from aimlite.capture.usage import Machine, Reading

HANG_S = 300  # what takes longer hangs; nothing else is told by the clock
GAUGES = {"memory_percent", "memory_bytes", "p_memory_percent", "p_memory_bytes", "p_threads", "disk_percent"}
ALWAYS = {PREFIX + name for name in GAUGES | {"cpu", "host_cpu"}}
OF_GPU = {"gpu", "gpu_memory_percent", "gpu_temp", "gpu_power_watts", "gpu_memory_bytes", "gpu_p_memory_bytes"}
RATES = {PREFIX + name for name, _ in usage.RATES.values()}


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + HANG_S
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aimlite-sampler"]


def until_none_samples() -> None:
    gc.collect()  # runs that earlier tests left open
    until(lambda: not samplers())


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test complains for itself, begins without a sampler and leaves none behind."""
    monkeypatch.setattr(sampling, "_said", set())
    sampler = sampling._sampler
    if sampler is not None:  # of a run in another test's traceback, say
        sampler.end()
    until_none_samples()
    yield
    until_none_samples()


def count(run: Run, name: str = "cpu") -> int:
    metric = run.get_metric(PREFIX + name)
    return 0 if metric is None else metric.count


def script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_a_run_tells_how_busy_the_machine_is(repo: Repo) -> None:
    run = Run(repo=repo, system_tracking_interval=0.1)
    until(lambda: count(run) >= 3)
    run.close()
    found = {metric.name: metric for metric in run.metrics() if metric.context == {}}
    assert found.keys() >= ALWAYS
    assert found.keys() <= ALWAYS | RATES
    for metric in found.values():
        steps, values = metric.values.sparse_list()
        assert steps == list(range(metric.count))
        assert all(math.isfinite(value) and value >= 0 for value in values)
    for percent in ("memory_percent", "p_memory_percent", "disk_percent", "host_cpu"):
        assert found[PREFIX + percent].max <= 100
    mine = psutil.Process().memory_info().rss
    assert mine / 4 < found["__system__p_memory_bytes"].last < mine * 4
    assert found["__system__memory_bytes"].last <= psutil.virtual_memory().total
    assert found["__system__p_threads"].min >= 2


def test_nothing_before_one_interval_and_nothing_imported(tmp_path: Path) -> None:
    done = script(
        "import sys; from aimlite import Run; run = Run(repo=sys.argv[1]); run.track(1, name='loss')\n"
        "print([metric.name for metric in run.metrics()], [name for name in ('psutil', 'pynvml', 'logging') if name in sys.modules])",
        str(tmp_path),
    )
    assert done.stdout == "['loss'] []\n", done.stderr


def test_none_turns_it_off(repo: Repo) -> None:
    run = Run(repo=repo, system_tracking_interval=None)
    assert samplers() == []
    run.close()


def test_readers_have_none(repo: Repo) -> None:
    Run("r", repo=repo, system_tracking_interval=None).close()
    assert Run("r", repo=repo, read_only=True).status == "finished"
    assert samplers() == []


def test_one_thread_serves_all_runs_at_their_intervals(repo: Repo) -> None:
    runs = [Run(repo=repo, system_tracking_interval=interval) for interval in (0.1, 0.15, 0.2, 3600)]
    until(lambda: all(count(run) >= 2 for run in runs[:3]))
    assert len(samplers()) == 1
    assert samplers()[0].daemon
    assert count(runs[3]) == 0
    runs[0].close()
    seen = count(runs[1])
    until(lambda: count(runs[1]) > seen)
    for run in runs:
        run.close()
    until(lambda: not samplers())


def test_after_the_end_nothing_comes(repo: Repo) -> None:
    for _ in range(4):
        run = Run(repo=repo, system_tracking_interval=0.1)
        until(lambda: count(run))  # noqa: B023
        run.close()
        seen = [(metric.name, metric.count) for metric in run.metrics()]
        other = Run(repo=repo, system_tracking_interval=0.1)
        until(lambda: count(other))  # noqa: B023
        other.close()
        assert [(metric.name, metric.count) for metric in run.metrics()] == seen
        assert run.status == "finished"


def test_a_run_that_goes_is_not_held(repo: Repo) -> None:
    runs = [Run(repo=repo, system_tracking_interval=0.1)]
    until(lambda: count(runs[0]))
    runs.clear()
    gc.collect()
    until(lambda: not samplers())


def test_an_open_run_ends_with_the_process(repo: Repo, repo_path: str) -> None:
    code = """
import sys, time
from aimlite import Run
run = Run("at-exit", repo=sys.argv[1], system_tracking_interval=0.1)
while run.get_metric("__system__cpu") is None:
    time.sleep(0.01)
"""
    done = script(code, repo_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert repo.get_run("at-exit").status == "finished"


def test_a_process_killed_keeps_its_samples(repo: Repo, repo_path: str) -> None:
    code = """
import os, signal, sys, time
from aimlite import Run
run = Run("killed", repo=sys.argv[1], system_tracking_interval=0.1)
while run.get_metric("__system__cpu") is None:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert script(code, repo_path).returncode == -signal.SIGKILL
    run = repo.get_run("killed")
    assert run.status == "interrupted"
    assert count(run) >= 1


FORKS = """
import os, sys, threading, time
from aimlite import Run
from aimlite.capture import sampling
from aimlite.storage import loading

def wait(run, more):
    begun = run.get_metric("__system__cpu")
    begun = begun.count if begun else 0
    while (metric := run.get_metric("__system__cpu")) is None or metric.count < begun + more:
        time.sleep(0.01)

parent = Run("parent", repo=sys.argv[1], system_tracking_interval=0.1)
wait(parent, 1)
for child in range(3):
    pid = os.fork()
    if not pid:
        assert sampling._sampler is None and loading._importing.acquire(blocking=False)
        loading._importing.release()
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        parent.track(child, name="seen")
        own = Run(f"child{child}", repo=sys.argv[1], system_tracking_interval=0.1)
        wait(own, 2)
        own.close()
        parent.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
wait(parent, 2)
parent.close()
"""


def test_a_forked_child_has_its_own_or_none(repo: Repo, repo_path: str) -> None:
    done = script(FORKS, repo_path)
    assert done.returncode == 0, done.stderr
    for child in range(3):
        run = repo.get_run(f"child{child}")
        assert (run.status, count(run) >= 2) == ("finished", True)
    assert repo.get_run("parent").get_metric("seen").count == 3


def test_forks_at_any_moment(repo: Repo, repo_path: str) -> None:
    """Also while the sampler imports what it needs: the child has to be able to."""
    code = """
import os, sys, time
from aimlite import Run
run = Run(repo=sys.argv[1], system_tracking_interval=0.1)
for k in range(40):
    pid = os.fork()
    if not pid:
        import logging, psutil, pynvml
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
run.close()
assert "logging" not in sys.modules  # it has hooks of its own for forks, which may not come in the middle of one
"""
    done = script(code, repo_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_be_read_is_said_once_and_the_rest_goes_on(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise psutil.AccessDenied(os.getpid())

    monkeypatch.setattr(psutil, "disk_usage", broken)
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: None)
    with caplog.at_level(logging.WARNING, "aimlite"), Run(repo=repo, system_tracking_interval=0.1) as run:
        until(lambda: count(run) >= 3)
    said = [record.getMessage() for record in caplog.records if "GPU" not in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("system metrics: disk cannot be read: ")
    names = {metric.name for metric in run.metrics()}
    assert names >= ALWAYS - {"__system__disk_percent"}
    assert not names & {"__system__disk_percent", "__system__network_sent_bytes_per_s"}


def test_what_cannot_be_written_is_said_once_and_tried_again(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def full(run: Run, values: dict[str, float], context: Any) -> None:
        calls.append(context)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "aimlite"):
        patched.setattr(Run, "_record_usage", full)
        with Run(repo=repo, system_tracking_interval=0.1) as run:
            until(lambda: len(calls) >= 3)
            run.track(1, name="loss")
    said = [record.getMessage() for record in caplog.records if "GPU" not in record.getMessage()]
    assert said == ["system metrics: a sample could not be recorded: [Errno 28] No space left on device"]
    assert [metric.name for metric in run.metrics()] == ["loss"]


def test_without_a_thread_runs_go_on(repo: Repo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with caplog.at_level(logging.WARNING, "aimlite"):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none)
            for _ in range(2):
                with Run(repo=repo) as run:
                    run.track(1, name="loss")
        assert caplog.messages == ["system metrics: no sampler could be started: can't start new thread"]
        with Run(repo=repo, system_tracking_interval=0.1) as run:
            until(lambda: count(run))


def test_the_page_names_every_metric_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "system.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(__system__\w+)` \|", page, re.MULTILINE)) == ALWAYS | RATES | {PREFIX + name for name in OF_GPU}


def test_readings() -> None:
    """Rates are what counters grew by in a second since this run's last sample; gauges are as they are."""
    before = Reading(100.0, {"process_s": 5.0, "busy_s": 10.0, "total_s": 40.0, "read_bytes": 1000, "bytes_sent": 9})
    after = Reading(
        104.0,
        {"process_s": 11.0, "busy_s": 13.0, "total_s": 52.0, "read_bytes": 5000, "write_bytes": 7, "bytes_sent": 3},
        {"p_threads": 4.0},
        {0: {"gpu": 50.0}, 1: {}},
    )
    expected = {"p_threads": 4.0, "cpu": 150.0, "disk_read_bytes_per_s": 1000.0, "host_cpu": 25.0}
    assert after.since(before) == [
        ({PREFIX + name: value for name, value in expected.items()}, {}),
        ({"__system__gpu": 50.0}, {"gpu": 0}),
    ]
    assert Reading(1.0).since(Reading(1.0)) == []


def test_the_processor_time_is_this_process_s() -> None:
    machine = Machine(lambda kind, error: None)
    before = machine.read()
    begun = time.process_time()
    while time.process_time() < begun + 0.3:
        pass
    after = machine.read()
    machine.close()
    [(values, context)] = [sample for sample in after.since(before) if sample[1] == {}]
    spent = values["__system__cpu"] / 100 * (after.time_s - before.time_s)
    assert context == {}
    assert 0.2 < spent < after.time_s - before.time_s + 0.1
