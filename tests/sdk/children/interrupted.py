"""Reads interrupted at one of their lines by another read, as a signal's handler or a finalizer would: for each line in a forked child.

interrupted.py <repo> <count> <first>: of each read so many lines, evenly spread, the first at this part of the distance. Prints those at
which something else came out than undisturbed, and how many were tried. The parent imports what every script with a Run does and no more,
so each child's read is the first one of its process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from aimlite import Repo, Run

PATH, COUNT, FIRST = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
HASH = "read"


def metric(repo: Repo) -> Any:
    found = repo.get_run(HASH).get_metric("loss", {"subset": "train"})
    return found.values.sparse_list(), found.last, found.count


def metrics(repo: Repo) -> Any:
    return [(each.name, each.context.to_dict(), each.min) for each in repo.get_run(HASH).metrics()]


def params(repo: Repo) -> Any:
    run = repo.get_run(HASH)
    return run[...], run["hparams", "lr"], repo.collect_params_info()


def query(repo: Repo) -> Any:
    found = repo.query_runs("run.hparams.lr > 0.01 and run.hash.startswith('r')").hashes()
    return found, [len(each) for each in repo.query_metrics("metric.name == 'loss'")]


def images(repo: Repo) -> Any:
    sequence = repo.get_run(HASH).get_image_sequence("picture")
    return [[each.caption for each in step] for step in sequence.values.values_list()], len(sequence.values.values_list()[0][0].data)


def listing(repo: Repo) -> Any:
    return repo.list_all_runs(), repo.total_runs_count(), [run.hash for run in repo.iter_runs()]


def status(repo: Repo) -> Any:
    run = repo.get_run(HASH)
    return run.status, run.name, sorted(run.tags), [note.text for note in run.notes], [tag.name for tag in repo.tags()]


def logs(repo: Repo) -> Any:
    run = repo.get_run(HASH)
    return [record.message for record in run.get_log_records()], [line.text for line in run.get_terminal_logs()]


def artifact(repo: Repo) -> Any:
    with open(repo.get_run(HASH).artifacts["note.txt"].download()) as file:
        return file.read()


READS = {each.__name__: each for each in (metric, metrics, params, query, images, listing, status, logs, artifact)}


def told(read: Callable[[Repo], Any], repo: Repo) -> str:
    try:
        return json.dumps(read(repo), default=str)
    except BaseException:
        return traceback.format_exc()


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` gives in a forked child."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(60, exit=True)  # it hangs
        os.close(reads)
        try:
            with open(writes, "w") as file:
                json.dump(work(), file)
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


def interrupted(outer: str, at: int | None, inner: str) -> tuple[int, str, str | None]:
    """(lines, what the outer read gave, what the inner one did)."""
    repo, lines, found = Repo(PATH), 0, None

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines, found
        if event == "line":
            if lines == at:
                sys.settrace(None)
                found = told(READS[inner], repo)
            lines += 1
        return trace

    def traced(repo: Repo) -> Any:
        sys.settrace(trace)
        try:
            return READS[outer](repo)
        finally:
            sys.settrace(None)

    result = told(traced, repo)
    return lines, result, found


def imports(name: str) -> list[str]:
    """What a read imports in the thread that reads."""
    found, thread = [], threading.get_ident()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and threading.get_ident() == thread and arguments[0] not in sys.builtin_module_names:
            found.append(arguments[0])

    sys.addaudithook(note)
    told(READS[name], Repo(PATH))
    return found


def main() -> None:
    assert Run.__init__  # as every script that writes has it
    expected = in_child(lambda: {name: told(read, Repo(PATH)) for name, read in READS.items()})
    wrong = [text for text in expected.values() if text.startswith("Traceback")]
    names, tried = [*READS], 0
    for place, outer in enumerate(names):
        if imported := in_child(lambda outer=outer: imports(outer)):
            wrong.append(f"{outer} imports in the thread that reads: {imported}")
        lines = in_child(lambda outer=outer: interrupted(outer, None, outer))[0]
        for number, at in enumerate(range(int(FIRST * lines / COUNT), lines, max(1, lines // COUNT))):
            inner = names[(place + number) % len(names)] if number % 2 else outer
            result = in_child(lambda outer=outer, at=at, inner=inner: interrupted(outer, at, inner))
            tried += 1
            if result is None:
                wrong.append(f"{outer}, line {at}, {inner}: the child died")
            elif result[1] != expected[outer] or result[2] != (expected[inner] if at < result[0] else None):
                wrong.append(f"{outer}, line {at}, {inner}: {result}")
    print(json.dumps({"wrong": wrong[:5], "count": len(wrong), "tried": tried}))


main()
