"""Commands as processes of their own: exit codes, pipes, signals, completion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import aimlite
from aimlite import Repo, Run

Process = Callable[..., "subprocess.CompletedProcess[str]"]
READING = [["ls"], ["show", "x"], ["export", "x"], ["check"], ["repair", "--yes"], ["merge"], ["stats"]]


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_without_a_repo_nothing_is_made(process: Process, tmp_path: Path, command: list[str]) -> None:
    done = process(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    above = f"neither {tmp_path} nor a directory above has .aimlite"
    assert done.stderr == f"error: no repo here: {above}; --repo PATH names another, 'aimlite init' makes one\n"
    named = process(*command, "--repo", "elsewhere", cwd=tmp_path)
    assert (named.returncode, named.stdout) == (3, "")
    assert named.stderr.startswith(f"error: no repo at {tmp_path}/elsewhere; ")
    assert list(tmp_path.iterdir()) == []


def test_repo_may_stand_before_the_command_or_after_it(process: Process, repo: Repo, repo_path: str, tmp_path: Path) -> None:
    Run("r", repo=repo).close()
    for arguments in (["--repo", repo_path, "ls"], ["ls", "--repo", repo_path], ["--repo", "nowhere", "ls", "--repo", repo_path]):
        assert process(*arguments, cwd=tmp_path).stdout.startswith("r\t")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zzzzzz"], "error: No such command 'zzzzzz'. (see 'aimlite --help')\n"),  # like no other: click suggests those
        (["nope"], "error: No such command 'nope'."),
        (["ls", "--nope"], "error: No such option"),
        (["ls", "--limit", "0"], "error: Invalid value for '--limit'"),
        (["show"], "error: Missing argument 'HASH'. (see 'aimlite show --help')\n"),
        (["ls", "--repo", ""], "error: Invalid value for '--repo': a path is not empty"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line(process: Process, arguments: list[str], message: str) -> None:
    done = process(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(message)


def test_without_a_command_it_shows_its_help(process: Process) -> None:
    done = process()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == process("--help").stdout
    assert "  ls " in done.stderr


def test_errors_are_json_with_json(process: Process, tmp_path: Path) -> None:
    error = json.loads(process("ls", "--json", cwd=tmp_path).stderr)["error"]
    assert (error["kind"], error["exit_code"]) == ("NotFound", 3)
    assert error["message"].startswith("no repo here")
    assert json.loads(process("ls", "--json", "--nope").stderr)["error"]["exit_code"] == 2


def test_other_errors_are_one_line_and_a_traceback_only_with_debug(process: Process, tmp_path: Path) -> None:
    (tmp_path / ".aimlite").mkdir()
    (tmp_path / ".aimlite" / "VERSION").write_text('{"format": 99}')
    done = process("ls", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "format 99" in done.stderr
    assert "Traceback" in process("ls", "--debug", cwd=tmp_path).stderr


def test_a_message_of_a_system_error_names_the_file(process: Process, repo: Repo, repo_path: str) -> None:
    Run("r", repo=repo).close()
    done = process("export", "r", "-o", repo_path, "--repo", repo_path)
    assert (done.returncode, done.stderr) == (1, f"error: Is a directory: {repo_path}\n")


@pytest.mark.parametrize("command", [["ls"], ["export", "r"], ["--help"]], ids=lambda command: command[0])
def test_a_broken_pipe_ends_it_silently(repo: Repo, repo_path: str, command: list[str]) -> None:
    with Run("r", repo=repo) as run:
        run.track_columns("m", range(50_000))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        arguments = [sys.executable, "-m", "aimlite", "--repo", repo_path, *command]
        done = subprocess.run(arguments, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_told_once(repo: Repo, repo_path: str) -> None:
    Run("r", repo=repo).close()
    with open("/dev/full", "wb") as full:
        arguments = [sys.executable, "-m", "aimlite", "--repo", repo_path, "ls"]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_closed_output_is_no_error(repo: Repo, repo_path: str) -> None:
    Run("r", repo=repo).close()
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "aimlite", "--repo", repo_path, "ls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def wait_until_it_opens_a_pipe(child: subprocess.Popen[str]) -> None:
    """Until a process is in the middle of opening a pipe that nobody reads, by the kernel's word; where it gives none, for a while."""
    told = Path(f"/proc/{child.pid}/wchan")
    for _ in range(1500 if told.exists() else 50):
        assert child.poll() is None
        if told.exists() and told.read_text("utf-8") == "wait_for_partner":
            break
        time.sleep(0.1)


def test_ctrl_c(repo: Repo, repo_path: str) -> None:
    fifo = Path(repo_path, "fifo")
    os.mkfifo(fifo)  # opening it waits for a reader that never comes
    Run("r", repo=repo).close()
    arguments = [sys.executable, "-m", "aimlite", "export", "r", "-o", str(fifo), "--repo", repo_path]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_it_opens_a_pipe(child)
    child.send_signal(signal.SIGINT)
    assert child.communicate() == ("", "error: interrupted\n")
    assert child.returncode == 130


def test_a_locale_without_the_character(process: Process, repo: Repo, repo_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run("r", repo=repo, experiment="損失") as run:
        run.track(1, name="損失")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    assert process("ls", "--repo", repo_path).stdout.split("\t")[2] == r"\u640d\u5931"
    assert process("export", "r", "--repo", repo_path).stdout.splitlines()[1].startswith(r"\u640d\u5931,")
    assert json.loads(process("ls", "--repo", repo_path, "--json").stdout)[0]["experiment"] == "損失"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_repo_that_may_not_be_written_can_be_read(process: Process, repo_path: str) -> None:
    with Repo(repo_path) as repo:
        Run("r", repo=repo).close()
    paths = [Path(repo_path, ".aimlite"), *Path(repo_path, ".aimlite").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert process("ls", "--repo", repo_path).stdout.startswith("r\t")
        assert process("stats", "--repo", repo_path).returncode == 0
    finally:
        for path in paths:
            path.chmod(0o755)


def test_version(process: Process) -> None:
    assert process("version").stdout == process("--version").stdout == f"aimlite {aimlite.__version__}\n"
    told = json.loads(process("version", "--json").stdout)
    assert (told["aimlite"], told["rocksdict"]) == (aimlite.__version__, version("rocksdict"))
    assert told["python"] in sys.version


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["completion", "zsh"]], ids=" ".join)
def test_what_prints_a_line_imports_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "aimlite", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"numpy", "rocksdict", "rich", "msgpack", "aimlite.sdk.repo", "aimlite.storage.view"}


def test_importing_aimlite_imports_nothing_of_the_command_line() -> None:
    script = (
        "import aimlite, sys; aimlite.Repo, aimlite.Run; print([name for name in ('click', 'rich', 'aimlite.cli') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(process: Process, shell: str) -> None:
    done = process("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_AIMLITE_COMPLETE" in done.stdout


def complete(*words: str, **settings: object) -> list[str]:
    """What bash would offer for the last of the words."""
    line = {"_AIMLITE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["aimlite", *words]), "COMP_CWORD": str(len(words))}
    command = [sys.executable, "-m", "aimlite"]
    done = subprocess.run(command, env={**os.environ, **line}, capture_output=True, text=True, timeout=300, check=False, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return [offer.partition(",")[2] for offer in done.stdout.split()]


def test_commands_options_and_hashes_complete(repo: Repo, repo_path: str) -> None:
    for run_hash in ("abc1", "abc2", "xyz"):
        Run(run_hash, repo=repo).close()
    assert complete("sh") == ["show"]
    assert complete("ls", "--sor") == ["--sort"]
    assert complete("--repo", repo_path, "show", "abc") == ["abc1", "abc2"]
    assert complete("export", "--repo", repo_path, "x") == ["xyz"]


def test_words_of_queries_complete(repo: Repo, repo_path: str) -> None:
    with Run(repo=repo) as run:
        run["hparams"] = {"lr": 0.1, "lr_decay": 0.5, "momentum": 0.9, "not a word": 1}
    query = ["--repo", repo_path, "query"]
    assert complete(*query, "run.hparams.l") == ["run.hparams.lr", "run.hparams.lr_decay"]
    assert complete(*query, "--order-by", "run.cre") == ["run.creation_time", "run.created_at"]
    assert complete(*query, "--order-by", "(metric.last_") == ["(metric.last_step"]
    assert complete(*query, "run.hparams.n") == complete(*query, "nothing") == []


def test_completing_is_never_noisy(tmp_path: Path, damaged_config: None) -> None:
    assert complete("show", "a", cwd=tmp_path) == []
    assert complete("show", "--repo", str(tmp_path / "nowhere"), "a", cwd=tmp_path) == []
    assert complete("query", "--repo", str(tmp_path / "nowhere"), "run.", cwd=tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damaged_config() -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"], "aimlite", "config.json")
    path.parent.mkdir()
    path.write_text("{")


def test_demo_takes_its_options(process: Process, repo: Repo, repo_path: str) -> None:
    assert process("demo", "--help").stdout.startswith("usage: aimlite demo ")
    assert process("demo", "--epochs", "0").returncode == 2
    done = process("--repo", repo_path, "demo", "--epochs", "1", "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert repo.total_runs_count() == 8
