"""What a peer's own interpreter runs: python child.py PEER TASK, with JSON on stdin. It prints a line RESULT and JSON.

A result has for each figure a number, or {"not offered": why} or {"failed": what}. Nothing but the standard library and the peer is
imported.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from contract import NotOffered

DICT_10 = {f"metric_{number}": 0.5 + number / 8 for number in range(10)}
DICT_1000 = {f"metric_{number}": 0.5 + number / 1024 for number in range(1000)}
POINTS_PER_RUN = 100
_FIRST = 10  # points of the run before, so that what a repo costs in itself does not count
_LEAST = 300  # of the long metric: fewer would fit into the pages that a database has already
DISTINCT_LR = 10  # so a query finds a tenth of the runs


class Measured:
    """Figures by name, and how much was done for each."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}

    def take(self, name: str, task: Callable[[], float]) -> None:
        """Keeps what a task measured, or why it could not."""
        try:
            self.figures[name] = task()
        except NotOffered as reason:
            self.figures[name] = {"not offered": str(reason)}
        except Exception as error:  # a peer's own failure is a result, shown in the table
            self.figures[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}

    def result(self) -> dict[str, Any]:
        return {"figures": self.figures, "sizes": self.sizes}


class Sizes:
    """How much of each operation: at most `most[name]`, and as much as fits into its share of time; exactly `most[name]` without one."""

    def __init__(self, most: dict[str, int], budget_s: float | None) -> None:
        self.most = most
        self.budget_s = math.inf if budget_s is None else budget_s

    def loop(self, name: str, body: Callable[[int, int], object], least: int = 1, share: float = 1.0) -> tuple[int, float]:
        """body(start, stop) until enough was done; returns how much, and the seconds it took."""
        done, spent, limit = 0, 0.0, self.budget_s * share
        while done < self.most[name] and (spent < limit or done < least):
            if limit == math.inf:
                stop = self.most[name]
            elif done == 0:
                stop = min(self.most[name], max(1, least))
            else:  # no more than doubles, and no more than what fits
                stop = min(self.most[name], 2 * done, done + max(1, int((limit - spent) / (spent / done))))
            start = time.perf_counter()
            body(done, stop)
            spent += time.perf_counter() - start
            done = stop
        return done, spent


def elapsed(task: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = task()
    return result, time.perf_counter() - start


def losses(n: int) -> list[float]:
    """A falling, noisy curve born as float32, the same each time."""
    state, values = 1, []
    for step in range(n):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        values.append(0.1 + 2.2 * math.exp(-4.0 * step / n) * (1.0 + 0.1 * (state / 0x40000000 - 1.0)))
    return list(struct.unpack(f"{n}f", struct.pack(f"{n}f", *values)))


def size_of(path: str) -> int:
    """Bytes in all files below a path."""
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(path) for name in names)


# -- the tasks -----------------------------------------------------------------------------------------------------------------------------


def import_(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    measured = Measured()
    measured.take("import", lambda: 1e3 * elapsed(lambda: exec(peer_class.IMPORT, {}))[1])
    return measured.result()


def write(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Opening, single calls, dicts, closing and resuming, each in a run of its own."""
    peer = peer_class(given["path"], given)
    exec(peer.IMPORT, {})
    measured, sizes = Measured(), Sizes(given["most"], given["budget_s"])
    values = losses(given["most"]["scalar"])
    peer.finish(elapsed_into(measured, "open_first", peer.start))

    def opened_later() -> float:
        took = []
        for _ in range(3):
            run, spent = elapsed(peer.start)
            took.append(spent)
            peer.finish(run)
        return 1e3 * statistics.median(took)

    def scalar() -> float:
        run = peer.start()
        peer.scalars(run, values[:1], 0)
        n, spent = sizes.loop("scalar", lambda start, stop: peer.scalars(run, values[start:stop], start + 1), least=20)
        measured.sizes["scalar"] = n
        finished.append(peer.finish(run))
        return 1e6 * spent / n

    def dicts(name: str, values: dict[str, float]) -> float:
        run = peer.start()
        peer.dicts(run, values, range(1))
        n, spent = sizes.loop(
            name, lambda start, stop: peer.dicts(run, values, range(start + 1, stop + 1)), least=5 if len(values) == 10 else 1
        )
        measured.sizes[name] = n
        peer.finish(run)
        return 1e6 * spent / n / len(values)

    def close() -> float:
        took = []
        for _ in range(3):
            run = peer.start()
            peer.dicts(run, DICT_10, range(1))
            took.append(elapsed(lambda: peer.finish(run))[1])  # noqa: B023
        return 1e3 * statistics.median(took)

    def resume() -> float:
        def again() -> Any:
            run = peer.resume(finished[-1])
            peer.scalars(run, values[:1], measured.sizes["scalar"] + 1)
            return run

        took = []
        for _ in range(3):
            run, spent = elapsed(again)
            took.append(spent)
            peer.finish(run)
        return 1e3 * statistics.median(took)

    finished: list[str] = []
    measured.take("open_later", opened_later)
    for name, task in (
        ("scalar", scalar),
        ("dict_10", lambda: dicts("dict_10", DICT_10)),
        ("dict_1000", lambda: dicts("dict_1000", DICT_1000)),
    ):
        measured.take(name, task)
    measured.take("close", close)
    measured.take("resume", resume)
    return measured.result()


def elapsed_into(measured: Measured, name: str, task: Callable[[], Any]) -> Any:
    result, spent = elapsed(task)
    measured.figures[name] = 1e3 * spent
    return result


def fill(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """One long metric, then many runs of ten metrics, then many small ones, in a place of their own each; all stay for `read`."""
    measured, sizes = Measured(), Sizes(given["most"], given["budget_s"])
    values = losses(given["most"]["long"])
    path = os.path.join(given["path"], "long")
    peer = peer_class(path, given)
    exec(peer.IMPORT, {})
    path = getattr(peer, "stored", path)
    run = peer.start()
    peer.scalars(run, values[:_FIRST], 0)
    peer.finish(run)
    before = size_of(path)
    run = peer.start()
    n, spent = sizes.loop("long", lambda start, stop: peer.scalars(run, values[start:stop], start), least=_LEAST, share=4.0)
    sys.stdout.write("MEMORY\n")
    sys.stdout.flush()
    sys.stdin.readline()  # meanwhile the parent looks at the memory of this process and its children
    long_hash, closing = elapsed(lambda: peer.finish(run))
    measured.figures["long"] = 1e6 * (spent + closing) / n
    measured.sizes["long"] = n
    peer.settle()
    measured.figures["bytes"] = (size_of(path) - before) / n

    peer = peer_class(os.path.join(given["path"], "many"), given)

    def many(start: int, stop: int) -> None:
        for number in range(start, stop):
            run = peer.start({"lr": lr_of(number)})
            peer.dicts(run, DICT_10, range(POINTS_PER_RUN))
            peer.finish(run)

    def many_runs() -> float:
        runs, spent = sizes.loop("runs", many, share=4.0, least=2)
        measured.sizes["runs"] = runs
        return 1e6 * spent / (runs * len(DICT_10) * POINTS_PER_RUN)

    measured.take("runs", many_runs)
    peer.settle()
    small = peer_class(os.path.join(given["path"], "small"), given)

    def some_small(start: int, stop: int) -> None:
        for number in range(start, stop):
            run = small.start({"lr": lr_of(number)})
            small.scalars(run, values[:_FIRST], 0)
            small.finish(run)

    def small_runs() -> float:
        runs, spent = sizes.loop("small_runs", some_small, share=4.0, least=DISTINCT_LR)
        measured.sizes["small_runs"] = runs
        return 1e3 * spent / runs

    measured.take("small_runs", small_runs)
    small.settle()
    return {**measured.result(), "long_hash": long_hash}


def lr_of(number: int) -> float:
    return (1 + number % DISTINCT_LR) / 1000


def read(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What `fill` left behind, by a process that has recorded nothing."""
    measured, n, runs = Measured(), given["sizes"]["long"], given["sizes"].get("runs", 0)

    def checked(task: Callable[[], int], expected: int) -> float:
        """Median of three, in seconds."""
        took = []
        for _ in range(3):
            found, spent = elapsed(task)
            if found != expected:
                raise AssertionError(f"{found} came back of {expected}")
            took.append(spent)
            if sum(took) > 10:
                break
        return statistics.median(took)

    long = peer_class(os.path.join(given["path"], "long"), given)
    exec(long.IMPORT, {})
    many = peer_class(os.path.join(given["path"], "many"), given)
    small = peer_class(os.path.join(given["path"], "small"), given)
    matching = sum(lr_of(number) == lr_of(0) for number in range(given["sizes"].get("small_runs", 0)))
    measured.take("read", lambda: 1e6 * checked(lambda: long.read(given["long_hash"]), n) / n)
    measured.take("read_all", lambda: 1e3 * checked(many.read_all, runs * POINTS_PER_RUN) / runs)
    measured.take("query", lambda: 1e3 * checked(lambda: small.query("lr", lr_of(0)), matching))
    return measured.result()


def acknowledge(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Records points and is killed with SIGKILL at the next instruction but one. The marks show its calls among the system calls."""
    peer = peer_class(given["path"], given)
    values = losses(given["points"])
    run = peer.start()
    try:
        run_id = peer.identify(run)
    except NotOffered as reason:
        return {"not offered": str(reason)}
    sys.stdout.write(f"\nRESULT {json.dumps({'run_id': run_id})}\n")
    sys.stdout.flush()
    os.getsid(0)
    peer.scalars(run, values, 0)
    os.getsid(0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


def count(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """How many points of a run whose process was killed are there for the next reader: at once, after the peer's upkeep, or once the run is
    resumed. What comes later is tried only if nothing could be read before."""
    peer, run_id = peer_class(given["path"], given), given["run_id"]
    measured = Measured()

    def after(task: Callable[[], Any]) -> int:
        task()
        return int(peer.read(run_id))

    for when, task in (
        ("", lambda: None),
        ("after its upkeep", peer.settle),
        ("once it is resumed", lambda: peer.finish(peer.resume(run_id))),
    ):
        measured.take(when, lambda: after(task))  # noqa: B023
        if isinstance(measured.figures[when], int):
            break
    return measured.result()


def record_bytes(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What a call of 1, 10 and 1000 values adds to the files, once names are known."""
    peer = peer_class(given["path"], given)
    run = peer.start()

    def added(record: Callable[[int], None]) -> int:
        record(1)
        before = size_of(given["path"])
        record(2)
        return size_of(given["path"]) - before

    return {
        "record_bytes": {
            "1": added(lambda step: peer.scalars(run, [0.5], step)),
            "10": added(lambda step: peer.dicts(run, DICT_10, range(step, step + 1))),
            "1000": added(lambda step: peer.dicts(run, DICT_1000, range(step, step + 1))),
        }
    }


def version(peer_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    return {"version": version(peer_class.DISTRIBUTION) if peer_class.DISTRIBUTION else ""}


TASKS = {
    **{"import": import_, "write": write, "fill": fill, "read": read, "acknowledge": acknowledge, "count": count},
    **{"record_bytes": record_bytes, "version": version},
}


def main(peer: str, task: str) -> None:
    given = json.loads(sys.stdin.readline())
    result = TASKS[task](importlib.import_module(f"adapters.{peer}").Peer, given)
    sys.stdout.write(f"\nRESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
