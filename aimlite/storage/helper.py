"""Starting the merge helper: a short-lived process that moves ended segments into the tree.

It is a process of its own because a RocksDB opened read-write after a fork hangs, and training scripts fork. Where none can be started the
journals wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aimlite.errors import ArchiveError, CorruptionError, MergeError, RunExistsError
from aimlite.storage.layout import Layout
from aimlite.storage.loading import load
from aimlite.storage.locks import is_held, is_lease_taken

SEGMENTS_DUE = 64
BYTES_DUE = 16 << 20
_TOLD: dict[str, type[Exception]] = {"ArchiveError": ArchiveError, "RunExistsError": RunExistsError}
_MODULE = "aimlite.storage.merge_helper"


def merge_if_due(layout: Layout, names_only: bool = False) -> bool:
    """Starts a helper when enough ended segments wait and nobody merges; returns whether it did. names_only: ask only when their number
    alone calls for it."""
    if os.environ.get("AIMLITE_MERGE", "").lower() == "off" or not sys.executable:
        return False
    names = layout.list_journals()
    if names_only and len(names) <= SEGMENTS_DUE:
        return False
    if not _is_due(layout, names) or is_lease_taken(layout.lease):
        return False
    load("subprocess")
    import subprocess

    # The shell forks and leaves at once, so that the helper is nobody's child and no zombie stays behind.
    command = ["/bin/sh", "-c", '"$@" >/dev/null 2>&1 </dev/null &', "sh", *_command(layout, "merge")]
    try:
        subprocess.run(command, env=_environment(), cwd="/", start_new_session=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False  # the journals wait for the next occasion: reading needs no merge
    return True


def run_helper(layout: Layout, task: str, request: Any = None) -> Any:
    """Runs the helper's task to its end, waiting for the lease; returns what it reports. request: what the task needs to know, as msgpack
    can say it. Raises CorruptionError, OSError, MergeError."""
    if not sys.executable:
        raise MergeError("no Python interpreter is known (sys.executable is empty), so the merge helper cannot be started")
    load("subprocess", "aimlite.storage.params")
    import subprocess

    from aimlite.storage.params import packb

    command, asked = _command(layout, task, "--wait"), b"" if request is None else packb(request)
    done = subprocess.run(command, env=_environment(), cwd="/", capture_output=True, input=asked, check=False)
    if done.returncode == -signal.SIGPROF:
        raise CorruptionError("the merge helper was ended, because opening the tree took too much time: run repair", layout.tree)
    try:
        report = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode(errors="replace").strip()[-2000:]
        raise MergeError(f"the merge helper failed (exit status {done.returncode}): {words}") from None
    error = report.get("error")
    if error is None:
        return report["result"]
    if error["kind"] == "CorruptionError":
        raise CorruptionError(error["message"], error["path"], error["offset"])
    if error["kind"] == "OSError":
        raise OSError(error["errno"], error["message"], *([error["path"]] if error["path"] else []))
    raise _TOLD.get(error["kind"], MergeError)(error["message"])


def _command(layout: Layout, *arguments: str) -> list[str]:
    return [sys.executable, "-m", _MODULE, str(layout.base), *arguments]


def _environment() -> dict[str, str]:
    """That of this process, in which the helper finds this very aimlite."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _is_due(layout: Layout, names: list[tuple[int, int]]) -> bool:
    ended = size = 0
    for writer, segment in names:
        try:
            fd = os.open(layout.journal(writer, segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not is_held(fd):
                ended += 1
                size += os.fstat(fd).st_size
        finally:
            os.close(fd)
        if ended > SEGMENTS_DUE or size >= BYTES_DUE:
            return True
    return False
