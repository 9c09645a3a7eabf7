"""Scripts that print while a Log is open, run as processes of their own: on pipes, or on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

PRELUDE = """
import os, sys, time, threading, subprocess, json
from aimlite.capture.terminal import Log, catch_up

class Sink:
    def __init__(self, name):
        self.out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    def __call__(self, lines):
        for line in lines:
            os.write(self.out, (json.dumps(line) + "\\n").encode())

def open_log(name="log", mode="smart"):
    return Log(Sink(name), mode)

def until_logged(text):
    while text not in open("log").read():
        time.sleep(0.01)

"""


class Printed(NamedTuple):
    """What a script did: exit status, what arrived at stdout and stderr (of a terminal: all of it in `out`)."""

    status: int
    out: str
    err: str


def script(code: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]


def run(code: str, cwd: Path, **settings: object) -> Printed:
    """On pipes."""
    done = subprocess.run(script(code), cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **settings)  # type: ignore[call-overload]
    return Printed(done.returncode, done.stdout, done.stderr)


def run_on_terminal(code: str, cwd: Path, rows: int = 24, columns: int = 80) -> Printed:
    """On a pseudo-terminal of that size, which shows what was written as it is."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(script(code), cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    out = read_all(master, 60)
    os.close(master)
    return Printed(process.wait(10), out, "")


def read_all(fd: int, timeout_s: float) -> str:
    """Until nobody can write any more."""
    data, until = b"", time.monotonic() + timeout_s
    with contextlib.suppress(OSError):  # of a terminal that nobody has open
        while select.select([fd], [], [], max(until - time.monotonic(), 0))[0]:
            piece = os.read(fd, 65536)
            if not piece:
                break
            data += piece
        else:
            raise AssertionError(f"still open after {timeout_s} s, having read {data!r}")
    return data.decode("utf-8", "replace")


def logged(cwd: Path, name: str = "log") -> list[str]:
    """The lines of a log as they stand in the end."""
    return [text for _, text in logged_with_source(cwd, name)]


def logged_with_source(cwd: Path, name: str = "log") -> list[tuple[str, str]]:
    lines: dict[int, tuple[float, int, str, str | None]] = {}
    for line in (cwd / name).read_text().splitlines():
        number, begun, source, text = json.loads(line)
        lines[number] = (begun, number, source, text)
    return [(source, text) for _, _, source, text in sorted(lines.values()) if text is not None]


def wait_until(met: object, timeout_s: float = 30) -> None:
    """met: a function; polled until it is true."""
    until = time.monotonic() + timeout_s
    while not met():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
