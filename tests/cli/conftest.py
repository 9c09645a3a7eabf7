"""Commands in this process (`aimlite`), as a process of their own (`process`), and in a terminal of so many columns (`terminal`)."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from aimlite.cli.__main__ import cli


@pytest.fixture
def aimlite(repo_path: str) -> Callable[..., Result]:
    """Runs a command on the test's repo."""
    return lambda *arguments, **settings: CliRunner().invoke(cli, ["--repo", repo_path, *arguments], **settings)


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aimlite", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **settings)

    return run


@pytest.fixture
def terminal() -> Callable[..., str]:
    """What a command shows in a terminal, its colours and movements taken out."""

    def run(columns: int, *arguments: str, keys: str = "") -> str:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
        child = subprocess.Popen([sys.executable, "-m", "aimlite", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        os.write(ours, keys.encode())
        shown = b""
        while piece := _read(ours):
            shown += piece
        os.close(ours)
        child.wait(60)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().replace("\r\n", "\n").rpartition("\x1b[?25h\r\x1b[1A\x1b[2K")[2])

    return run


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""
