"""Ends of runs of which a part fails: every part is tried, the run is closed, and the exception of the user's is the one that is raised."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import aimlite
from aimlite import Repo, Run
from aimlite.storage.writer import Writer, _end_records

PARTS = {  # what fails, and by what
    "uploads": (Run, "_finish_uploads"),
    "environment": (Run, "_end_environment"),
    "sampler": (Run, "_end_watch"),
    "capture": (Run, "_end_capture"),
    "end": (Writer, "end_run"),
}


class Failure(OSError): ...


def fail(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
    """Does its part, and then fails."""

    def failing(*arguments: Any) -> Any:
        whole(*arguments)
        raise Failure(f"{name} failed")

    return failing


@pytest.mark.parametrize("how", ["exception", "interrupt", "exit", "block", "finish", "close"])
@pytest.mark.parametrize("broken", [*([part] for part in PARTS), list(PARTS)], ids="-".join)
@pytest.mark.parametrize("safe", [False, True], ids=["strict", "safe"])
def test_parts_of_the_end_that_fail(how: str, broken: list[str], safe: bool, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(repo=repo, safe_mode=safe)
    run.track(1.0, name="loss")
    for name in broken:
        owner, method = PARTS[name]
        monkeypatch.setattr(owner, method, fail(name, getattr(owner, method)))
    users = {"exception": KeyError("theirs"), "interrupt": KeyboardInterrupt(), "exit": SystemExit(3)}.get(how)
    raised: BaseException | None = None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            if how in ("finish", "close"):
                getattr(run, how)()
            else:
                with run:
                    if users is not None:
                        raise users
        except BaseException as error:
            raised = error
    messages = [str(warning.message) for warning in told if "failed" in str(warning.message)]
    if users is not None:
        assert raised is users
    elif safe:
        assert raised is None
    else:
        assert str(raised) == f"{broken[0]} failed"
    assert len(messages) == (len(broken) if safe or users is not None else len(broken) - 1)
    assert run._closed
    assert repo.get_run(run.hash).status == {"exception": "failed", "interrupt": "interrupted", "exit": "failed"}.get(how, "finished")
    monkeypatch.undo()
    run.finish()  # does nothing


def test_a_fluent_run_whose_end_fails_is_active_no_more(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = aimlite.init(storage=repo.path)
    monkeypatch.setattr(Writer, "end_run", fail("end", Writer.end_run))
    with pytest.raises(Failure):
        run.finish()
    assert aimlite.get_active_run() is None
    assert run.is_finished


SCRIPT = """
    import resource, sys, warnings
    from aimlite import Repo, Run
    repo = Repo(sys.argv[1])
    options = {"system_tracking_interval": None, "capture_terminal_logs": False}
    other = Run("other", repo=repo, **options)
    run = Run("full", repo=repo, **options)
    def fill():
        try:
            while True:
                run.track(1.0, name="loss")
        except OSError:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (repo._writer().journal.offset, resource.RLIM_INFINITY))
    def make_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    def closed():
        try:
            run.track(1.0, name="loss")
        except Exception as error:
            return type(error).__name__ == "RunClosedError"
    warnings.simplefilter("always")
"""


def full_disk(code: str, repo_path: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A script whose journal can grow to 100,000 bytes, before it makes room."""
    import resource

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + textwrap.dedent(code), repo_path],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


RAISED = """
    fill()
    try:
        with run:
            raise KeyError("theirs")
    except KeyError as error:
        print(error, closed())
"""
ENDED = """
    fill()
    try:
        run.finish()
    except OSError as error:
        print("OSError", closed())
    run.finish()
"""
PENDING = [(RAISED, "'theirs' True\n", "failed"), (ENDED, "OSError True\n", "finished")]


@pytest.mark.parametrize(("end", "out", "status"), PENDING, ids=["raised", "ended"])
@pytest.mark.parametrize(
    "later",
    ["make_room(); other.track(1.0, name='a')\nimport os; os._exit(0)", "make_room()", "make_room(); other['a'] = 1\nother.finish()"],
    ids=["the next write", "the exit", "the end of another"],
)
def test_an_end_is_written_when_there_is_room(end: str, out: str, status: str, later: str, repo: Repo, repo_path: str) -> None:
    done = full_disk(textwrap.dedent(end) + later, repo_path)
    assert done.stdout == out
    assert ("the next write tries it again" in done.stderr) == ("theirs" in out)
    assert repo.get_run("full").status == status
    assert repo.get_run("full").get_metric("loss").count > 1000


@pytest.mark.parametrize(("end", "out", "status"), PENDING, ids=["raised", "ended"])
def test_an_end_for_which_there_was_never_room(end: str, out: str, status: str, repo: Repo, repo_path: str) -> None:
    done = full_disk(end, repo_path)
    assert done.stdout == out
    assert "will show as interrupted" in done.stderr
    assert repo.get_run("full").status == "interrupted"


def test_a_forked_child_does_not_write_the_ends_of_its_parent(repo: Repo, repo_path: str) -> None:
    code = (
        ENDED
        + """
    import os
    if os.fork() == 0:
        make_room()
        Run("child", repo=repo, **options).finish()
        os._exit(0)
    os.wait()
    print(repo.get_run("full").status)
    make_room()
    other.track(1.0, name="a")
    print(repo.get_run("full").status)
    """
    )
    assert full_disk(code, repo_path).stdout == "OSError True\nrunning\nfinished\n"


def test_an_end_waits_for_the_segment_that_can_be_written(repo: Repo) -> None:
    run = Run("r", repo=repo, system_tracking_interval=None, capture_terminal_logs=False)
    writer = repo._writer()
    recorder = run._recorder
    assert recorder is not None
    writer._unended.append((writer.journal.writer, recorder, _end_records(recorder, "finished", None)))
    recorder.closed = True
    writer._let_go_of(recorder)
    writer.end_segment()  # in which the end is not
    with Run("s", repo=repo, system_tracking_interval=None, capture_terminal_logs=False):
        pass
    assert writer._unended == []
    assert repo.get_run("r").status == "finished"
