"""How a process may end, and what its open run then is: a table, each row a process of its own. What the process says, and its exit
status, are those it would have without us."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from aimlite import ReadOnlyError, Repo, Run, RunClosedError

TERM, INT, KILL = -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL


class Ending(NamedTuple):
    how: str
    code: int
    status: str
    error: tuple[str, str] | None = None
    out: str = ""


ENDINGS = [
    # -- by itself
    Ending("pass", 0, "finished"),
    Ending("run.close()", 0, "finished"),
    Ending("run.finish('failed')", 0, "failed"),
    Ending("del run", 0, "finished"),
    Ending("atexit.register(print, 'last')", 0, "finished", out="last\n"),
    # -- by an exception
    Ending("raise ValueError('no such thing')", 1, "failed", ("ValueError", "no such thing")),
    Ending("raise Odd", 1, "failed", ("Odd", "<its text could not be had: RuntimeError>")),
    Ending("try: 1 / 0\nexcept ZeroDivisionError: print('caught')", 0, "finished", out="caught\n"),
    Ending("run.finish('interrupted'); 1 / 0", 1, "interrupted"),
    Ending("sys.excepthook = lambda *_: print('theirs'); {}['k']", 1, "failed", ("KeyError", "'k'"), "theirs\n"),
    Ending("with run: raise OSError('gone')", 1, "failed", ("OSError", "gone")),
    Ending("with contextlib.suppress(OSError):\n with run: raise OSError('gone')", 0, "failed", ("OSError", "gone")),
    Ending("with run: sys.exit(0)", 0, "finished"),
    Ending("with run: sys.exit(4)", 4, "failed", ("SystemExit", "4")),
    Ending("with run: raise KeyboardInterrupt", INT, "interrupted"),
    Ending("sys.ps1 = '> '; sys.excepthook(ValueError, ValueError('typed'), None)", 0, "finished"),  # at a prompt one goes on
    # -- by sys.exit
    Ending("sys.exit()", 0, "finished"),
    Ending("sys.exit(0)", 0, "finished"),
    Ending("sys.exit(3)", 3, "failed"),
    Ending("sys.exit('why')", 1, "failed"),
    Ending("with contextlib.suppress(SystemExit): sys.exit(3)", 0, "finished"),
    Ending("atexit.register(print, 'last'); sys.exit(2)", 2, "failed", out="last\n"),
    # -- by os._exit and what cannot be caught
    Ending("os._exit(0)", 0, "interrupted"),
    Ending("os._exit(5)", 5, "interrupted"),
    Ending("os.abort()", -signal.SIGABRT, "interrupted"),
    Ending("kill(signal.SIGKILL)", KILL, "interrupted"),
    # -- by signals, with the user's handlers and without
    Ending("kill(signal.SIGTERM)", TERM, "interrupted"),
    Ending("kill(signal.SIGINT); time.sleep(9)", INT, "interrupted"),
    Ending("merge_at_exit(); kill(signal.SIGINT); time.sleep(9)", INT, "interrupted"),
    Ending("on(signal.SIGTERM, lambda *_: print('theirs')); kill(signal.SIGTERM)", 0, "finished", out="theirs\n"),
    Ending("on(signal.SIGTERM, lambda s, _: sys.exit(128 + s)); kill(signal.SIGTERM); time.sleep(9)", 143, "interrupted"),
    Ending("on(signal.SIGINT, lambda s, _: sys.exit(128 + s)); kill(signal.SIGINT); time.sleep(9)", 130, "interrupted"),
    Ending("on(signal.SIGTERM, lambda *_: run.finish('failed') or sys.exit(9)); kill(signal.SIGTERM); time.sleep(9)", 9, "failed"),
    Ending("on(signal.SIGUSR1, lambda *_: print('theirs')); kill(signal.SIGUSR1)", 0, "finished", out="theirs\n"),
    # -- threads
    Ending("threading.excepthook = lambda *_: print('theirs'); thread(lambda: 1 / 0)", 0, "finished", out="theirs\n"),
    Ending("thread(lambda: sys.exit(3))", 0, "finished"),
    Ending("thread(lambda: os._exit(6))", 6, "interrupted"),
    Ending("thread(lambda: run.finish('failed'))", 0, "failed"),
    # -- forks: the child's end is not the run's
    Ending("forked(lambda: sys.exit(3))", 0, "finished"),
    Ending("forked(lambda: os._exit(3))", 0, "finished"),
    Ending("forked(lambda: kill(signal.SIGKILL))", 0, "finished"),
    Ending("forked(lambda: 1 / 0)", 0, "finished"),
    Ending("forked(lambda: run.track(1, name='m')); raise ValueError('parent')", 1, "failed", ("ValueError", "parent")),
    Ending("forked(lambda: None); kill(signal.SIGKILL)", KILL, "interrupted"),
    # -- an error in our own exit path: one warning, the user's exit status, no waiting
    Ending("break_the_end(OSError(28, 'full'))", 0, "interrupted"),
    Ending("break_the_end(RuntimeError('odd')); sys.exit(7)", 7, "interrupted"),
    Ending("break_the_end(MemoryError()); 1 / 0", 1, "interrupted"),
    Ending("keep_locked()", 0, "interrupted"),
]
SCRIPT = """
import atexit, contextlib, os, signal, sys, threading, time
from aimlite import Run
from aimlite.storage import writer
on, kill = signal.signal, lambda number: os.kill(os.getpid(), number)

class Odd(Exception):
    def __str__(self): raise RuntimeError("odd")

def thread(work):
    one = threading.Thread(target=work); one.start(); one.join()

def forked(work):
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, 'w')
        work(); os._exit(0)
    os.waitpid(child, 0)

def merge_at_exit():
    writer.helper.merge_if_due = lambda *_, **__: exec("import subprocess")

def break_the_end(error):
    def fail(*_): raise error
    writer._end_records = fail

def keep_locked():
    writer._EXIT_PATIENCE_S = 0.05
    held = threading.Event()
    def hold():
        [w] = writer._writers.values(); w._lock.acquire(); held.set(); time.sleep(60)
    threading.Thread(target=hold, daemon=True).start(); held.wait()

run = Run(sys.argv[2], repo=sys.argv[1])
run.track(1, name='loss')
"""
WATCHED = """
from aimlite._ext import journal
journal.TELLS_EXIT_STATUS = False
from aimlite.storage import ending, writer
writer.Writer._leave_last_words = lambda *_: False
"""


WHERE_NOT_TOLD = [each for each in ENDINGS if "sys.exit" in each.how or "excepthook" in each.how]


def in_child(script: str, repo: Repo, run_hash: str = "r") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, repo.path, run_hash]
    return subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repo, dict[str, subprocess.CompletedProcess[str]]]]:
    """A repo to which one process for each row wrote its run and ended."""
    with Repo(tmp_path_factory.mktemp("ended")) as repo, ThreadPoolExecutor(4) as pool:
        rows = [(f"told-{number}", SCRIPT + ending.how) for number, ending in enumerate(ENDINGS)]
        rows += [(f"watched-{number}", WATCHED + SCRIPT + ending.how) for number, ending in enumerate(WHERE_NOT_TOLD)]
        done = pool.map(lambda row: in_child(row[1], repo, row[0]), rows)
        yield repo, dict(zip([run_hash for run_hash, _ in rows], done, strict=True))
        assert repo.check() == []


def demand(repo: Repo, run_hash: str, ending: Ending, done: subprocess.CompletedProcess[str]) -> None:
    run = repo.get_run(run_hash)
    assert run is not None
    error = None if run.error is None else (run.error["type"], run.error["message"])
    assert (done.returncode, run.status, error, done.stdout) == (ending.code, ending.status, ending.error, ending.out), done.stderr
    assert run.end_time is not None
    assert run.get_metric("loss").values.tolist()[:1] == [1.0]


@pytest.mark.parametrize("number", range(len(ENDINGS)), ids=lambda number: ENDINGS[number].how)
def test_every_end_has_its_status(ended: tuple[Repo, dict[str, subprocess.CompletedProcess[str]]], number: int) -> None:
    (repo, done), ending, run_hash = ended, ENDINGS[number], f"told-{number}"
    demand(repo, run_hash, ending, done[run_hash])
    warnings = done[run_hash].stderr.count("RuntimeWarning: a run could not be ended at exit")
    assert warnings == ("break_the_end" in ending.how or "keep_locked" in ending.how)


@pytest.mark.parametrize("number", range(len(WHERE_NOT_TOLD)), ids=lambda number: WHERE_NOT_TOLD[number].how)
def test_it_is_the_same_where_the_c_library_does_not_tell_the_exit_status(
    ended: tuple[Repo, dict[str, subprocess.CompletedProcess[str]]], number: int
) -> None:
    (repo, done), run_hash = ended, f"watched-{number}"
    demand(repo, run_hash, WHERE_NOT_TOLD[number], done[run_hash])


def test_it_stays_so_when_merged(ended: tuple[Repo, dict[str, subprocess.CompletedProcess[str]]]) -> None:
    repo, done = ended
    repo.merge()
    for prefix, endings in (("told", ENDINGS), ("watched", WHERE_NOT_TOLD)):
        for number, ending in enumerate(endings):
            demand(repo, f"{prefix}-{number}", ending, done[f"{prefix}-{number}"])


def test_the_traceback_is_kept(repo: Repo) -> None:
    in_child(SCRIPT + "def deep(): return [1][2]\ndeep()", repo)
    error = repo.get_run("r").error
    assert error["traceback"].splitlines()[0].startswith("Traceback")
    assert "in deep" in error["traceback"]
    assert error["traceback"].endswith("IndexError: list index out of range\n")
    assert [match.run.hash for match in repo.query_runs("run.error.type == 'IndexError' and 'range' in run.error.message")] == ["r"]


def test_an_error_belongs_to_one_end(repo: Repo) -> None:
    """A run that goes on has none, nor has one that then ended otherwise."""
    with pytest.raises(ZeroDivisionError), Run("r", repo=repo) as run:
        raise ZeroDivisionError("first")
    assert run.error["message"] == "first"
    with Run("r", repo=repo) as again:
        assert (again.status, again.error) == ("running", None)
        assert list(repo.query_runs("run.error.type == 'ZeroDivisionError'")) == []
        again.finish("failed")
    assert (run.status, run.error) == ("failed", None)


def test_a_run_stalls_when_a_report_is_overdue(repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        assert not run.stalled
        run.report_progress(expect_next_in=3600)
        assert not run.stalled
        run.report_progress(expect_next_in=1e-6, block=True)
        time.sleep(0.001)
        assert (run.stalled, run.status) == (True, "running")
        assert [match.run.hash for match in repo.query_runs("run.stalled")] == ["r"]
        run.report_progress()
        assert not run.stalled
        run.report_progress(expect_next_in=1e-6)
        time.sleep(0.001)
        run.report_successful_finish()
        assert (run.stalled, run.status) == (False, "running")
        run.report_progress(expect_next_in=1e-6)
        time.sleep(0.001)
    assert (run.stalled, run.status) == (False, "finished")
    assert list(repo.query_runs("run.stalled")) == []
    with pytest.raises(RunClosedError):
        run.report_progress()
    with pytest.raises(ReadOnlyError):
        repo.get_run("r").report_successful_finish()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e9])
def test_a_promise_is_a_time_one_can_wait(repo: Repo, seconds: float) -> None:
    with Run(repo=repo) as run, pytest.raises(ValueError, match="expect_next_in"):
        run.report_progress(expect_next_in=seconds)
    with pytest.raises(TypeError, match="expect_next_in"):
        run.report_progress(expect_next_in="60")  # type: ignore[arg-type]


def test_secrets_do_not_get_into_errors(repo: Repo) -> None:
    in_child(SCRIPT + "raise ConnectionError('postgresql://me:hunter2secret@db/x is down')", repo)
    assert repo.get_run("r").error["message"].endswith("[redacted]@db/x is down")
    assert "hunter2secret" not in str(repo.get_run("r").error)
