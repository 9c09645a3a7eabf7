"""What a run was started with and on: collected by a process of its own (`probe`) while training goes on, written part by part."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aimlite.capture import LIMIT_S, SYSTEM_PARAMS, log

Write = Callable[[tuple[str | int, ...], Any], None]

PARTS = ("arguments", "executable", "env_variables", "python", "os", "host", "cpu", "memory", "git_info", "packages", "gpus")
_START = (
    "import json, sys; request = json.loads(sys.stdin.buffer.readline()); sys.path[:] = request['path'];"
    " from aimlite.capture.probe import main; main(request)"
)

_AT_ONCE = 4  # many runs opened together would start as many processes
_places = threading.Semaphore(_AT_ONCE)
_collections: set[Collection] = set()
_ends_at_exit = False


def wanted(option: object) -> dict[str, bool] | None:
    """What `log_system_params` asks for: None is nothing, else {'git_diff' or a part: whether}. Raises TypeError, ValueError."""
    if option is True or option is False:
        return {"git_diff": False, **dict.fromkeys(PARTS, True)} if option else None
    if not isinstance(option, Mapping):
        raise TypeError(f"log_system_params is True, False or a dict of parts, not {type(option).__name__} {option!r:.100}")
    parts = {"git_diff": False, **dict.fromkeys(PARTS, True)}
    for name, value in option.items():
        if name not in parts:
            raise ValueError(f"log_system_params has no part {name!r:.100}; it has {', '.join(parts)}")
        if not isinstance(value, bool):
            raise TypeError(f"log_system_params[{name!r}] is True or False, not {type(value).__name__} {value!r:.100}")
        parts[name] = value
    return parts


def collect(write: Write, parts: Mapping[str, bool]) -> Collection:
    """Begins to collect the environment as it is now; `write(path, value)` is called for each part as soon as it is known. Nothing of it
    raises: what fails is logged."""
    global _ends_at_exit
    if not _ends_at_exit:
        _ends_at_exit = True
        atexit.register(_wait_for_all)  # here, so that it comes before the runs are ended
    collection = Collection(write, _request(parts))
    _collections.add(collection)
    try:
        collection.start()
    except RuntimeError as error:  # no thread is to be had
        _collections.discard(collection)
        _complain(error)
    return collection


def _request(parts: Mapping[str, bool]) -> dict[str, Any]:
    """All that only this process knows, as it is now."""
    try:
        directory = os.getcwd()
    except OSError:  # somebody removed it
        directory = ""
    return {
        "path": [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
        + [entry for entry in sys.path if isinstance(entry, str)],
        "environment": _variables(),
        "arguments": [str(argument) for argument in getattr(sys, "argv", ())],  # an embedded interpreter may have none
        "executable": sys.executable or "",
        "directory": directory,
        "pid": os.getpid(),
        "parts": [part for part in PARTS if parts[part]],
        "git_diff": parts["git_diff"],
    }


def _variables() -> dict[str, str]:
    while True:
        try:
            return dict(os.environ)
        except RuntimeError:  # another thread has just set one
            continue


class Collection(threading.Thread):
    """One run's environment while it is being collected."""

    def __init__(self, write: Write, request: dict[str, Any]) -> None:
        super().__init__(name="aimlite-environment", daemon=True)
        self._write = write
        self._request = request
        self._pid = os.getpid()

    def wait(self) -> None:
        """Until all is written, or it will not come any more: some `LIMIT_S` seconds at most."""
        if self._pid == os.getpid() and self.ident is not None and threading.current_thread() is not self:
            self.join(LIMIT_S + 2)

    def run(self) -> None:
        try:
            with _places:
                self._collect()
        except Exception as error:
            _complain(error)
        finally:
            _collections.discard(self)

    def _collect(self) -> None:
        if not sys.executable or getattr(sys, "frozen", False):  # a frozen program's executable would begin the program anew
            raise OSError("no Python interpreter is known (sys.executable)")
        process = _Process([sys.executable, "-I", "-S", "-c", _START])
        is_whole = False
        try:
            for said in process.ask(self._request):
                if said is None:
                    is_whole = True
                    break
                path, value = said
                if path is None:
                    _complain(value)
                else:
                    self._write((SYSTEM_PARAMS, *path), value)
        finally:
            status = process.end(at_once=not is_whole)
        if not is_whole:
            raise OSError(f"the process that collects them ended early (exit status {status})")


class _Process:
    """A child that reads one line and writes lines. `subprocess` would do, but importing it takes many times as long as all that is done
    here."""

    def __init__(self, command: list[str]) -> None:
        theirs_in, self._to = _pipe()
        self._of, theirs_out = _pipe()
        try:
            files = [
                (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                (os.POSIX_SPAWN_DUP2, theirs_out, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=files, setpgroup=0)  # Ctrl-C leaves it alone
        except OSError:
            os.close(self._to)
            os.close(self._of)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def ask(self, request: Any) -> Iterator[Any]:
        """What it says, line by line. Not up to the end of the pipe: a child forked meanwhile may hold that open."""
        with os.fdopen(self._to, "wb") as to, os.fdopen(self._of, "rb") as of:
            to.write(json.dumps(request).encode() + b"\n")
            to.flush()
            for line in of:
                yield json.loads(line)

    def end(self, at_once: bool) -> int | None:
        """Its exit status; None when somebody else was told of it. at_once: it is killed."""
        if at_once:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        except ChildProcessError:  # the program ignores SIGCHLD, or waits for any child
            return None


def _pipe() -> tuple[int, int]:
    """Never with the numbers of stdin, stdout and stderr, which are free where a daemon closed them."""
    found = []
    for fd in os.pipe():
        found.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        os.close(fd)
    return found[0], found[1]


def _complain(error: object) -> None:
    """Logs what goes wrong."""
    log("warning", "system params: %s", error)


def _wait_for_all() -> None:
    for collection in list(_collections):
        collection.wait()


def _forget() -> None:
    """In a forked child: the threads stayed in the parent."""
    global _places
    _places = threading.Semaphore(_AT_ONCE)
    _collections.clear()


os.register_at_fork(after_in_child=_forget)
