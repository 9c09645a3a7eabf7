"""Forcing to the disk: it is done where it was promised, and neither writers nor forks wait for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from aimlite import Repo, Run, Text
from aimlite._ext import journal

OPTIONS: dict[str, Any] = {"system_tracking_interval": None, "capture_terminal_logs": False}
SHIM = r"""
/* fdatasync and fsync that tell that they began, and end when somebody says so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int wait_for_leave(int fd, const char *name) {
    char one;
    const char *tell = getenv("SYNC_TELL"), *leave = getenv("SYNC_LEAVE");
    if (tell && leave && write(atoi(tell), "s", 1) == 1 && read(atoi(leave), &one, 1) < 0) return -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fdatasync(int fd) { return wait_for_leave(fd, "fdatasync"); }
int fsync(int fd) { return wait_for_leave(fd, "fsync"); }
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_durability_is_what_was_asked_for(durability: str, repo: Repo) -> None:
    run = Run(repo=repo, durability=durability, **OPTIONS)
    for write in (
        lambda: run.track(1.0, name="loss"),
        lambda: run.track({"a": 1.0, "b": 2.0}),
        lambda: run.track_columns("columns", [1.0] * 10),
        lambda: run.sequence("handle").track(1.0),
        lambda: run.track(Text("words"), name="text"),
        lambda: run.track([Text("words")], name="texts"),
        lambda: run.set("a", 1),
        lambda: run.update({"b": {"c": 2}}),
        lambda: run.__delitem__("a"),
        lambda: run.add_tag("a tag"),
        lambda: setattr(run, "name", "a name"),
        lambda: run.log_info("a message"),
        lambda: run.log_text("a line"),
        lambda: run.report_progress(expect_next_in=5),
        run.finish,
    ):
        before = journal.sync_count()
        write()
        assert (journal.sync_count() > before) == (durability == "power")


def test_sync_forces_once(repo: Repo) -> None:
    run = Run(repo=repo, **OPTIONS)
    run.track(1.0, name="loss")
    before = journal.sync_count()
    run.sync()
    assert journal.sync_count() == before + 1


def test_what_ends_while_it_is_forced_is_forced_too(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from aimlite.storage import writer as module

    synced: list[str] = []
    sync_file = module._sync_file
    monkeypatch.setattr(module, "_sync_file", lambda path: (synced.append(path.name), sync_file(path)))
    run = Run(repo=repo, **OPTIONS)
    writer = repo._writer()
    first = writer.layout.journal(writer.journal.writer, 0).name

    class Rotating:
        """A journal in whose segment another begins when it is to be forced."""

        def __init__(self, whole: Any) -> None:
            self._whole = whole

        def __getattr__(self, name: str) -> Any:
            return getattr(self._whole, name)

        def sync(self) -> None:
            writer.journal = self._whole
            writer.end_segment()
            self._whole.sync()

    run.track(1.0, name="loss")
    monkeypatch.setattr(writer, "journal", Rotating(writer.journal))
    writer.sync()
    assert first in synced
    assert writer._unsynced == []


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


SLOW = """
    import ctypes, os, signal, sys, threading
    told, tell = os.pipe()
    leave, give = os.pipe()
    from aimlite import Repo, Run
    repo = Repo(sys.argv[1])
    run = Run("r", repo=repo, durability=sys.argv[2], system_tracking_interval=None, capture_terminal_logs=False)
    run.track(1.0, name="loss")
    run.sync()
    writer = repo._writer()
    os.environ["SYNC_TELL"], os.environ["SYNC_LEAVE"] = str(tell), str(leave)
    putenv = ctypes.CDLL(None).setenv
    def in_sync(work):
        thread = threading.Thread(target=work)
        thread.start()
        assert os.read(told, 1) == b"s"
        return thread
    def end(thread):
        del os.environ["SYNC_TELL"]
        os.write(give, b"g" * 100)
        thread.join()
    def locked(pid):
        \"\"\"Whether a process has open files that lie in journals/.\"\"\"
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        return [link for link in links if "/journals/" in link]
    def forked(fork):
        \"\"\"A child that stays until it is asked to leave.\"\"\"
        stay, gone = os.pipe()
        there, here = os.pipe()
        pid = fork()
        if pid == 0:
            os.close(gone)
            os.write(here, b"h")
            os.read(stay, 1)
            os._exit(0)
        os.close(stay)
        os.read(there, 1)
        found = locked(pid)
        os.close(gone)
        os.waitpid(pid, 0)
        return found
"""
WORK = {  # what forces something to the disk, beside which a fork comes
    "sync": "run.sync",
    "write": "lambda: run.track(2.0, name='loss')",
    "end": "run.finish",
    "open": "lambda: Run('s', repo=repo, durability='power', system_tracking_interval=None, capture_terminal_logs=False)",
    "rotate": "writer.end_segment",
}


@pytest.mark.parametrize("meanwhile", ["pass", "writer.end_segment()", "run.finish()"], ids=["nothing", "rotated", "ended"])
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.CDLL(None).fork"], ids=["os", "libc"])
@pytest.mark.parametrize("work", list(WORK))
def test_a_fork_waits_for_no_disk_and_keeps_no_journal(work: str, fork: str, meanwhile: str, shim: Path, repo_path: str) -> None:
    if meanwhile != "pass" and work != "sync":
        pytest.skip("what is under way holds the writer")
    durability = "process" if work == "sync" else "power"
    code = f"""
    thread = in_sync({WORK[work]})
    found = forked({fork})  # would never return if it waited
    {meanwhile}
    found += forked({fork})
    end(thread)
    print(found)
    """
    script = textwrap.dedent(SLOW) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, repo_path, durability],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    with Repo(repo_path) as repo:
        assert repo.get_run("r").status == "finished"
        assert repo.check() == []
