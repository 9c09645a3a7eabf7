"""Stops a task of the merge helper before its k-th operation on the file system or the tree, for every k, and prints what is found then.

Arguments: the repo to begin from, a directory to work in, the task, what it is asked for as JSON, what follows it, how it is stopped (kill
or full), by how much k grows.
Prints a JSON line for each k: what stopped it, what check() reports then and after what follows, the runs and all else that is left. The
last line is of the task that ran to its end. Each turn is a fork of a process that has imported everything and opened nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aimlite._ext.keys import unpack
from aimlite.errors import CorruptionError
from aimlite.storage import check, deletion, importing, keys, merge, repair, tree
from aimlite.storage.archive_file import fingerprint
from aimlite.storage.blobs import list_blobs
from aimlite.storage.layout import Layout
from aimlite.storage.view import Reader, View

KILLED = 9
OPERATIONS: list[tuple[Any, str]] = [
    *((os, name) for name in ("rename", "replace", "unlink", "rmdir", "link", "fsync")),
    (shutil, "rmtree"),
    (tree.TreeWriter, "commit"),
    (tree.TreeWriter, "compact_ranges"),
]


def main(template: Path, work: Path, task: str, request: str, follow: str, how: str, stride: int) -> None:
    number = 0
    while True:
        shutil.rmtree(work / "repo", ignore_errors=True)
        shutil.copytree(template, work / "repo", symlinks=True)
        layout = Layout(work / "repo" / ".aimlite")
        stopped = forked(partial(stop, layout, task, request, how, number))
        found = forked(partial(look, layout, task, request, follow))
        print(json.dumps({"number": number, "stopped": stopped, **found}), flush=True)
        if stopped.get("finished"):
            return
        number += stride


def forked(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an action returns in a forked child; {} when it was killed."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = action()
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writable, json.dumps(answer).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {}


def stop(layout: Layout, task: str, request: str, how: str, number: int) -> dict[str, Any]:
    left = number

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                if how == "kill":
                    os._exit(KILLED)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            return original(*arguments, **named)

        return call

    for owner, name in OPERATIONS:
        setattr(owner, name, counted(name, getattr(owner, name)))
    try:
        perform(layout, task, request)
    except OSError as error:
        return {"failed": error.filename}
    return {"finished": left >= 0}


def perform(layout: Layout, task: str, request: str) -> None:
    if task == "delete":
        deletion.delete(layout, *json.loads(request))
    elif task == "prune":
        deletion.prune(layout)
    elif task == "merge":
        merge.merge(layout, wait=True)
    elif task == "repair":
        repair.repair(layout)
    elif task == "import":
        importing.import_archive(layout, Path(json.loads(request)), skip_existing=True)
    else:
        raise ValueError(task)


def look(layout: Layout, task: str, request: str, follow: str) -> dict[str, Any]:
    at_once = [str(problem) for problem in check.check(layout)]
    for step in follow.split("+"):
        with contextlib.suppress(CorruptionError if task == "repair" and step != "again" else ()):  # it is not mended yet
            perform(layout, task if step == "again" else step, request)
    problems = [str(problem) for problem in check.check(layout)]
    return {"at_once": at_once, "problems": problems, **left_in(layout)}


def left_in(layout: Layout) -> dict[str, Any]:
    view = Reader(layout).view()
    marks = [key.hex() for space in (keys.importing_runs(), keys.deleting_runs()) for chunk in view.tree.scan_keys(space) for key in chunk]
    contents = [unpack(key, 1)[0].hex() for chunk in view.tree.scan_keys(keys.prefix_range(keys.CONTENT)) for key in chunk]
    blobs = sorted(path.parent.name + path.name for path in list_blobs(layout.blobs))
    files = sorted(str(path.relative_to(layout.base)) for path in layout.base.rglob("*") if not path.is_dir())
    others = [name for name in files if not name.startswith(("tree/", "journals/", "blobs/", "damaged/")) or "/." in name]
    runs = {run_hash: print_of(view, run_hash) for run_hash in view.run_hashes()}
    damaged = sorted(path.name.rsplit("-", 1)[0] for path in layout.damaged.glob("*"))
    return {"runs": runs, "contents": contents, "blobs": blobs, "others": others, "marks": marks, "damaged": damaged}


def print_of(view: View, run_hash: str) -> str:
    try:
        return fingerprint(view, run_hash)
    except CorruptionError as error:
        return error.message


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:7], int(sys.argv[7]))
