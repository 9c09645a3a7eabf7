"""The merge helper: `python -m aimlite.storage.merge_helper <.aimlite> (merge | repair | delete | prune | import)`.

Prints a JSON report as its last line. What is to be deleted comes as msgpack on stdin: [[run hash, …], [[run hash, name, context], …]],
and what is to be imported: [path of the archive, whether runs that are there already are passed over].
A process of its own, because only here RocksDB is opened read-write.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

from aimlite.errors import AimliteError, CorruptionError
from aimlite.storage.deletion import delete, prune
from aimlite.storage.helper import SEGMENTS_DUE
from aimlite.storage.importing import import_archive
from aimlite.storage.layout import Layout
from aimlite.storage.merge import merge
from aimlite.storage.params import unpackb
from aimlite.storage.repair import repair


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m aimlite.storage.merge_helper", description="Moves ended journals into the tree.")
    parser.add_argument("base", type=Path, help="the .aimlite directory")
    parser.add_argument("task", choices=["merge", "repair", "delete", "prune", "import"])
    parser.add_argument("--wait", action="store_true", help="wait for the lease instead of leaving it to its holder")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process where RocksDB spins, whatever whoever started this one made of it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    try:
        answer: dict[str, Any] = {"result": _perform(Layout(options.base), options.task, options.wait)}
    except CorruptionError as error:
        answer = {"error": {"kind": "CorruptionError", "message": error.message, "path": error.path, "offset": error.offset}}
    except OSError as error:
        answer = {"error": {"kind": "OSError", "errno": error.errno, "message": str(error.strerror or error), "path": error.filename}}
    except AimliteError as error:
        answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
    print(json.dumps(answer))
    return "error" in answer


def _perform(layout: Layout, task: str, wait: bool) -> Any:
    if task == "repair":
        return repair(layout)
    if task == "prune":
        return prune(layout)
    if task == "import":
        path, skip_existing = unpackb(sys.stdin.buffer.read())
        return import_archive(layout, Path(path), skip_existing)
    if task == "delete":
        runs, sequences = unpackb(sys.stdin.buffer.read())
        return dataclasses.asdict(delete(layout, runs, sequences))
    report = merge(layout, wait)
    if not wait and len(layout.list_journals()) > SEGMENTS_DUE:  # some may have ended while the last commit was under way
        merge(layout, wait)
    return dataclasses.asdict(report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
