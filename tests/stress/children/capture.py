"""Runs that record their environment and the machine, opened and closed over and over, with threads and forks between them.

Usage: capture.py REPO CYCLES. Prints what the process holds when it has warmed up and at the end: threads, descriptors, children, MiB;
each the least after one of three cycles, since what is just being closed is held for a moment.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import psutil

from aimlite import Run

path, cycles = sys.argv[1], int(sys.argv[2])
process = psutil.Process()


def held() -> list[int]:
    while any(thread.name.startswith("aimlite") for thread in threading.enumerate()):
        time.sleep(0.01)
    gc.collect()
    return [threading.active_count(), process.num_fds(), len(process.children()), process.memory_info().rss >> 20]


def note(run: Run, values: dict[str, float], context: object) -> None:
    record(run, values, context)
    sampled.add(run.hash)


record, Run._record_usage = Run._record_usage, note  # nothing is read here: a reader keeps the unmerged journals in memory
sampled: set[str] = set()


def in_child(number: int) -> None:
    with Run(repo=path, system_tracking_interval=0.1, log_system_params={"packages": False}) as own:
        while own.hash not in sampled:
            time.sleep(0.005)


def cycle(number: int) -> None:
    asks = {} if number % 4 else {"git_diff": True}
    runs = [Run(repo=path, system_tracking_interval=0.1, log_system_params=asks or number % 3 == 0) for k in range(3)]
    for run in runs:
        run["cycle"] = number
    writers = [threading.Thread(target=lambda run=run: [run.track(k, name="x") for k in range(200)]) for run in runs]
    for writer in writers:
        writer.start()
    if number % 5 == 0:
        pid = os.fork()
        if not pid:
            in_child(number)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    for writer in writers:
        writer.join()
    if number % 2:
        while runs[0].hash not in sampled:
            time.sleep(0.005)
    for run in runs:
        run.close()


def cycles_of(numbers: range) -> None:
    """Prints what is held after the last three."""
    found = []
    for number in numbers:
        cycle(number)
        if number >= numbers.stop - 3:
            found.append(held())
    print("held", *map(min, zip(*found, strict=True)), flush=True)


warm = max(cycles // 4, 6)
cycles_of(range(warm))
cycles_of(range(warm, cycles))
