"""Starts a peer's interpreter on a task, with nothing it could reach or leave behind, and takes its result."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

CHILD = Path(__file__).with_name("child.py")
TIMEOUT_S = 150.0
SETTLE_S = 5.0  # that other processes of a peer get, after its script was killed, to store what they were sent
_NOWHERE = "http://127.0.0.1:9"  # the discard port: whoever wants the network is refused at once


class ChildFailed(Exception):
    """A task gave no result; the text says how it ended."""


def child_environment(home: str) -> dict[str, str]:
    """No network, no telemetry, no settings of the user's; aimlite from where this process has it."""
    import aimlite

    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")}
    return {
        **kept,
        "HOME": home,
        "PYTHONHASHSEED": "0",
        "AIMLITE_PACKAGE": str(Path(aimlite.__file__).parents[1]),
        "AIMLITE_MERGE": "off",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": home,
        "WANDB_CACHE_DIR": home,
        "WANDB_CONFIG_DIR": home,
        "WANDB_DATA_DIR": home,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "RUNICORN_DISABLE_UPDATE_CHECK": "1",
    }


class Done:
    def __init__(self, stdout: str, stderr: str, memory_mib: float | None) -> None:
        self.stdout, self.stderr, self.memory_mib = stdout, stderr, memory_mib


def child_json(python: str, peer: str, task: str, given: dict[str, Any]) -> dict[str, Any]:
    """A task's result. Its key `memory` is what its processes held in MiB when it asked for that. Raises ChildFailed."""
    done = run_child(python, peer, task, given)
    return {**first_json(done, task), "memory": done.memory_mib}


def first_json(done: Done, task: str) -> dict[str, Any]:
    """What a task printed as its first result; peers print what they like besides. Raises ChildFailed."""
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    raise ChildFailed(f"{task} ended without a result: {last_line(done.stderr)}")


def run_child(python: str, peer: str, task: str, given: dict[str, Any], *, may_die: bool = False, wrapper: list[str] | None = None) -> Done:
    """Runs a task in a session of its own; whatever of it still runs when it has ended is ended, too."""
    with tempfile.TemporaryDirectory(prefix="aimlite-peer-home-") as home, tempfile.TemporaryFile("w+") as errors:
        command = [*(wrapper or []), python, str(CHILD), peer, task]
        process = subprocess.Popen(
            command, env=_environment(peer, home), cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            start_new_session=True,
        )  # fmt: skip
        talk = _Talk(process, given)
        try:
            code, late = process.wait(TIMEOUT_S), False
        except subprocess.TimeoutExpired:
            code, late = None, True
        finally:
            if may_die:
                _await_session(process.pid)
            _end_session(process.pid)
        talk.join()  # ends with the last process that has the pipe
        errors.seek(0)
        stderr = errors.read()
    if late or code is None:
        raise ChildFailed(f"{task} took longer than {TIMEOUT_S:.0f} s")
    if code and not (may_die and code_is_kill(code)):
        raise ChildFailed(f"{task} ended with {code}: {last_line(stderr)}")
    return Done("".join(talk.printed), stderr, talk.memory_mib)


def code_is_kill(code: int | None) -> bool:
    return code in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _environment(peer: str, home: str) -> dict[str, str]:
    environment = child_environment(home)
    package = environment.pop("AIMLITE_PACKAGE")
    return {**environment, "PYTHONPATH": package} if peer == "aimlite" else environment


class _Talk(threading.Thread):
    """Hands over what is given, keeps what is printed, and looks at the memory of the processes when it is told to."""

    def __init__(self, process: subprocess.Popen[str], given: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._process, self._given = process, given
        self.printed: list[str] = []
        self.memory_mib: float | None = None
        self.start()

    def run(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died: its exit status tells
            stdin.write(json.dumps(self._given) + "\n")
            stdin.flush()
            for line in stdout:
                if line == "MEMORY\n":
                    self.memory_mib = sum(each.memory_info().rss for each in _session(self._process.pid)) / 2**20
                    stdin.write("\n")
                    stdin.flush()
                else:
                    self.printed.append(line)
            stdin.close()


def _session(leader: int) -> Iterator[psutil.Process]:
    """The processes that a child started, itself among them; those too that began a session of their own while it lives."""
    below = set()
    with contextlib.suppress(psutil.Error):
        below = {process.pid for process in psutil.Process(leader).children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid in below or os.getsid(process.pid) == leader:
                yield process


def _await_session(leader: int) -> None:
    give_up = time.monotonic() + SETTLE_S
    while any(_session(leader)) and time.monotonic() < give_up:
        time.sleep(0.1)


def _end_session(leader: int) -> None:
    for process in _session(leader):
        with contextlib.suppress(psutil.Error):
            process.kill()


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing on its standard error"
