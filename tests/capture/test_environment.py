"""What `log_system_params` records, when it is there, and what happens when it cannot be had."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from aimlite import Repo, Run
from aimlite.capture import LIMIT_S, environment, git, probe
from aimlite.capture.redaction import REDACTED

HANG_S = 300
TOKEN = "ghp" + "_" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2"


def recorded(repo: Repo, asked: Any = True) -> dict[str, Any]:
    with Run(repo=repo, log_system_params=asked, system_tracking_interval=None) as run:
        pass
    found = run["__system_params"]
    assert isinstance(found, dict)
    return found


def script(code: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments]  # of forks with threads
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False, **settings)


def git_in(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ann Example", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree with one commit, which is the working directory."""
    directory = tmp_path / "tree"
    directory.mkdir()
    git_in(directory, "init", "-q", "-b", "feature/testing")
    (directory / "train.py").write_text("lr = 0.1\n", "utf-8")
    git_in(directory, "add", ".")
    git_in(directory, "commit", "-qm", "first")
    monkeypatch.chdir(directory)
    return directory


def test_everything_at_once(repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("HF_TOKEN", "not-for-you-1")
    monkeypatch.setenv("DATABASE_URL", "postgres://me:hunter2@db/x")
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", "--token", "not-for-you-2", f"x={TOKEN}"])
    found = recorded(repo)
    assert sorted(found) == sorted(environment.PARTS)
    assert found["arguments"] == ["train.py", "--lr", "0.1", "--token", REDACTED, f"x={REDACTED}"]
    variables = found["env_variables"]
    assert (variables["OMP_NUM_THREADS"], variables["HF_TOKEN"]) == ("8", REDACTED)
    assert variables["DATABASE_URL"] == f"postgres://{REDACTED}@db/x"
    assert variables.keys() == os.environ.keys()
    assert found["executable"] == sys.executable
    assert found["python"] == {"version": platform.python_version(), "implementation": platform.python_implementation()}
    assert found["packages"]["psutil"] == metadata.version("psutil")
    assert {name.lower() for name in found["packages"]} == set(found["packages"])
    assert len(found["packages"]) > 10
    assert (found["host"]["pid"], found["host"]["directory"], found["host"]["name"]) == (os.getpid(), str(tree), platform.node())
    assert found["os"].keys() == {"name", "system", "release", "version"}
    assert (found["cpu"]["threads"], found["cpu"]["architecture"]) == (os.cpu_count(), platform.machine())
    assert found["memory"]["total_bytes"] > 1 << 28
    assert isinstance(found["gpus"], dict)
    assert found["git_info"] == {
        "branch": "feature/testing",
        "remote_origin_url": None,
        "commit": {
            "hash": git_in(tree, "rev-parse", "HEAD"),
            "timestamp": int(git_in(tree, "log", "-1", "--format=%ct")),
            "author": "Ann Example",
        },
        "dirty": False,
    }
    for query in (
        "run.__system_params.git_info.branch == 'feature/testing'",
        "run.__system_params.env_variables.OMP_NUM_THREADS == '8' and not run.__system_params.git_info.dirty",
        f"run.__system_params.packages.psutil == {metadata.version('psutil')!r}",
        "'--lr' in run.__system_params.arguments",
    ):
        assert len(repo.query_runs(query)) == 1
    stored = b"".join(file.read_bytes() for file in Path(repo.path).rglob("*") if file.is_file())
    assert b"feature/testing" in stored
    for secret in (b"not-for-you", b"hunter2"):
        assert secret not in stored


def test_parts_are_chosen(repo: Repo, tree: Path) -> None:
    found = recorded(repo, {"git_diff": True, "env_variables": False, "packages": False, "gpus": False})
    assert sorted(found) == sorted({*environment.PARTS} - {"env_variables", "packages", "gpus"})
    assert found["git_info"]["diff"] == ""
    assert "diff" not in recorded(repo, {})["git_info"]
    with Run(repo=repo, log_system_params=False) as run:
        pass
    assert "__system_params" not in run


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (1, TypeError, "log_system_params is True, False or a dict of parts, not int 1"),
        (None, TypeError, "not NoneType None"),
        ({"pakages": True}, ValueError, "no part 'pakages'; it has git_diff, arguments"),
        ({"packages": 1}, TypeError, r"log_system_params\['packages'\] is True or False, not int 1"),
    ],
)
def test_what_cannot_be_asked_for(repo_path: str, asked: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Run(repo=repo_path, log_system_params=asked)
    assert not Path(repo_path).exists()


def test_a_resumed_run_gets_them_anew(repo: Repo, tree: Path) -> None:
    with Run("r", repo=repo, log_system_params={"git_diff": True}) as run:
        run["__system_params", "mine"] = 1
    git_in(tree, "checkout", "-qb", "other")
    with Run("r", repo=repo, log_system_params=True):
        pass
    found = run["__system_params"]
    assert (found["git_info"]["branch"], "diff" in found["git_info"], found["mine"]) == ("other", False, 1)


def test_the_process_that_trains_imports_nothing_for_it(tmp_path: Path) -> None:
    code = """
import sys
from aimlite import Run
before = set(sys.modules)
run = Run(repo=sys.argv[1], log_system_params=True)
run._environment.wait()
new = set(sys.modules) - before
run.close()
print(sorted({name.partition(".")[0] for name in new} & {"subprocess", "importlib", "psutil", "pynvml", "email", "platform", "logging"}))
"""
    done = script(code, str(tmp_path))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_they_are_there_when_the_process_just_ends(repo: Repo, repo_path: str) -> None:
    done = script("import sys; from aimlite import Run; run = Run('r', repo=sys.argv[1], log_system_params=True)", repo_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = repo.get_run("r")
    assert (run.status, sorted(run["__system_params"])) == ("finished", sorted(environment.PARTS))


def test_a_process_killed_keeps_what_was_known(repo: Repo, repo_path: str) -> None:
    code = """
import os, signal, sys, time
from aimlite import Run
run = Run("r", repo=sys.argv[1], log_system_params=True)
while run.get(("__system_params", "env_variables")) is None:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert script(code, repo_path).returncode == -signal.SIGKILL
    assert {"arguments", "executable", "env_variables"} <= repo.get_run("r")["__system_params"].keys()


def test_many_at_once(repo: Repo) -> None:
    runs = [Run(repo=repo, log_system_params={"packages": False, "gpus": False, "git_info": False}) for _ in range(8)]
    for run in runs:
        run.close()
        assert run["__system_params", "executable"] == sys.executable
        assert "memory" in run["__system_params"]


def test_a_fork_while_they_are_collected(repo: Repo, repo_path: str) -> None:
    """The child neither waits for what the parent collects nor keeps it from ending, and collects for a run of its own."""
    code = """
import os, sys, time
from aimlite import Run
run = Run("parent", repo=sys.argv[1], log_system_params=True)
children = []
for k in range(4):
    pid = os.fork()
    if not pid:
        run.close()
        with Run(f"child{k}", repo=sys.argv[1], log_system_params={"packages": False}):
            pass
        os._exit(0)
    children.append(pid)
    time.sleep(0.02)
run.close()
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""
    done = script(code, repo_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(repo.get_run("parent")["__system_params"]) == sorted(environment.PARTS)
    for k in range(4):
        assert sorted(repo.get_run(f"child{k}")["__system_params"]) == sorted({*environment.PARTS} - {"packages"})


def test_nothing_is_left_behind(repo: Repo) -> None:
    recorded(repo)
    before = len(os.listdir("/dev/fd")), psutil.Process().children()
    recorded(repo)
    assert (len(os.listdir("/dev/fd")), psutil.Process().children()) == before


@pytest.mark.parametrize(
    ("executable", "said"),
    [
        (None, "no Python interpreter is known"),
        ("/nowhere/python", "No such file or directory"),
        (shutil.which("true"), "ended early (exit status 0)"),
        (shutil.which("false"), "ended early (exit status 1)"),
    ],
)
def test_without_a_process_there_is_a_warning_and_the_run_goes_on(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, executable: str | None, said: str
) -> None:
    with caplog.at_level(logging.INFO, "aimlite"), Run(repo=repo, system_tracking_interval=None) as run:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", executable)
            environment.collect(run._record_environment, dict.fromkeys([*environment.PARTS, "git_diff"], True)).wait()
        run.track(1, name="loss")
    [record] = caplog.records
    assert (record.levelname, said in record.getMessage() or "Broken pipe" in record.getMessage()) == ("WARNING", True)
    assert run.get_metric("loss").last == 1
    assert "__system_params" not in run


def test_a_frozen_program_is_not_started_anew(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n", "utf-8")
    program.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(program))
        patched.setattr(sys, "frozen", True, raising=False)
        with caplog.at_level(logging.WARNING, "aimlite"), Run(repo=repo, log_system_params=True):
            pass
    assert not (tmp_path / "started").exists()
    assert caplog.messages == ["system params: no Python interpreter is known (sys.executable)"]


def test_a_closed_stdin_and_a_deleted_directory(repo: Repo, repo_path: str, tmp_path: Path) -> None:
    code = """
import os, sys
from aimlite import Run
os.close(0)
os.rmdir(os.getcwd())
Run("r", repo=sys.argv[1], log_system_params=True).close()
"""
    (tmp_path / "gone").mkdir()
    done = script(code, repo_path, cwd=tmp_path / "gone")
    assert (done.returncode, done.stderr) == (0, "")
    assert {*environment.PARTS} == repo.get_run("r")["__system_params"].keys()


def test_a_program_that_ignores_its_children(repo: Repo, repo_path: str) -> None:
    code = """
import signal, sys
from aimlite import Run
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
Run("r", repo=sys.argv[1], log_system_params=True).close()
"""
    done = script(code, repo_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {*environment.PARTS} == repo.get_run("r")["__system_params"].keys()


def test_bytes_that_are_no_text(repo: Repo, repo_path: str) -> None:
    code = "import sys; from aimlite import Run; Run('r', repo=sys.argv[1], log_system_params=True).close()"
    done = script(code, repo_path, "a\udcffb", env={**os.environ, "ODD": "x\udcfey", "LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")
    found = repo.get_run("r")["__system_params"]
    assert (found["arguments"][-1], found["env_variables"]["ODD"]) == (r"a\udcffb", r"x\udcfey")


def test_the_probe_says_what_it_could_not_find_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: Any, redactor: Any) -> Any:
        raise RuntimeError(f"no: {TOKEN}")

    monkeypatch.setattr(probe.faulthandler, "dump_traceback_later", lambda seconds, exit: None)
    monkeypatch.setitem(probe.PARTS, "memory", broken)
    request = {"environment": {}, "arguments": [], "executable": "/x", "directory": "/", "pid": 1, "parts": ["memory", "executable"]}
    probe.main({**request, "git_diff": False})
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [[None, f"memory: RuntimeError: no: {REDACTED}"], [["executable"], "/x"], None]
    assert list(probe.PARTS) == list(environment.PARTS)
    assert LIMIT_S > git._DIFF_TIMEOUT_S


# -- git ----


def described(tree: Path, with_diff: bool = False) -> dict[str, Any]:
    return git.describe([str(tree)], with_diff, lambda text: text)


def test_no_tree_and_no_git(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert git.describe([str(tmp_path / "elsewhere")], True, str) == {}
    assert git.describe([str(tmp_path / "missing"), str(tmp_path / "elsewhere"), str(tree)], False, str)["branch"] == "feature/testing"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert described(tree) == {}


def test_a_tree_without_a_commit_and_one_without_a_branch(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "new").mkdir()
    git_in(tmp_path / "new", "init", "-q", "-b", "main")
    assert described(tmp_path / "new", True) == {"branch": "main", "remote_origin_url": None, "commit": {}}
    git_in(tree, "checkout", "-q", "--detach")
    assert described(tree)["branch"] == "HEAD"


def test_dirty_is_what_git_tracks(tree: Path) -> None:
    (tree / "new.txt").write_text("untracked", "utf-8")
    assert described(tree)["dirty"] is False
    (tree / "train.py").write_text("lr = 0.2\n", "utf-8")
    assert described(tree)["dirty"] is True
    git_in(tree, "add", "train.py")
    assert described(tree)["dirty"] is True


def test_the_diff_is_of_the_whole_tree_and_redacted(repo: Repo, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git_in(tree, "config", "diff.noprefix", "true")
    git_in(tree, "config", "color.ui", "always")
    (tree / "below").mkdir()
    (tree / "train.py").write_text(f"lr = 0.2\npassword = 'hunter2'\nclient = login('{TOKEN}')\n", "utf-8")
    monkeypatch.chdir(tree / "below")
    diff = recorded(repo, {"git_diff": True})["git_info"]["diff"]
    assert diff.splitlines()[0] == "diff --git a/train.py b/train.py"
    added = [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert added == ["+lr = 0.2", f"+password = '{REDACTED}'", f"+client = login('{REDACTED}')"]


def test_a_diff_too_large_is_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "MAX_DIFF_BYTES", 100)
    (tree / "train.py").write_text("x\n" * 200, "utf-8")
    assert described(tree, True)["diff"] is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://me:{TOKEN}@github.com/a/b.git", "https://github.com/a/b.git"),
        (f"https://{TOKEN}@github.com/a/b.git", "https://github.com/a/b.git"),
        (f"https://oauth2:{TOKEN}@gitlab.com/a/b.git", "https://gitlab.com/a/b.git"),
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("ssh://git@github.com:22/a/b.git", "ssh://git@github.com:22/a/b.git"),
        ("ssh://me:hunter2@example.com/a", "ssh://me@example.com/a"),
        ("/srv/git/a@b.git", "/srv/git/a@b.git"),
        (f"https://example.com/a.git?private_token={TOKEN}", f"https://example.com/a.git?private_token={REDACTED}"),
    ],
)
def test_the_remote_has_no_credentials(repo: Repo, tree: Path, url: str, shown: str) -> None:
    git_in(tree, "remote", "add", "origin", url)
    assert recorded(repo, {part: part == "git_info" for part in environment.PARTS})["git_info"]["remote_origin_url"] == shown


def test_no_program_of_the_repository_is_run_and_no_lock_taken(tree: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n", "utf-8")
    trap.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "diff.x.textconv", "core.pager", "gpg.program", "core.sshCommand"):
        git_in(tree, "config", name, str(trap))
    git_in(tree, "config", "log.showSignature", "true")
    (tree / ".gitattributes").write_text("*.py diff=x\n", "utf-8")
    (tree / "train.py").write_text("lr = 0.2\n", "utf-8")
    (tree / ".git" / "index.lock").write_text("", "utf-8")
    before = (tree / ".git" / "index").read_bytes()
    found = described(tree, True)
    assert (found["dirty"], "+lr = 0.2" in found["diff"], found["commit"]["author"]) == (True, True, "Ann Example")
    assert not (tmp_path / "sprung").exists()
    assert (tree / ".git" / "index").read_bytes() == before


def test_a_git_that_hangs(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "git"
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *status*) exec sleep 60;; *) exec {real} "$@";; esac\n', "utf-8")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_TIMEOUT_S", 1)
    found = git.describe([str(tree)], False, str)
    assert (found["dirty"], found["branch"]) == (None, "feature/testing")
