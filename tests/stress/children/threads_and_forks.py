"""threads_and_forks.py REPO N DURABILITY: threads write, segments rotate, and the process forks N times meanwhile.

The children write to the same run and live on; then the test kills this process.
"""

import os
import sys
import threading
import time

import numpy as np

from aimlite import Repo, Run
from aimlite.storage import writer

writer.SEGMENT_BYTES = 1 << 16
repo = Repo(sys.argv[1])
run = Run("parent", repo=repo, durability=sys.argv[3])
forks = int(sys.argv[2])
counts = [0] * 4
stopped = threading.Event()


def write(who: int) -> None:
    column = np.arange(30_000) / 3
    while not stopped.is_set():
        run.track(counts[who], name="scalar", context={"who": who})
        counts[who] += 1
        if who % 2:
            run.track_columns("columns", column, context={"who": who})  # written without the GIL
        else:
            run["p", str(who)] = counts[who]


threads = [threading.Thread(target=write, args=(who,), daemon=True) for who in range(4)]
for thread in threads:
    thread.start()
pids = []
for number in range(forks):
    pid = os.fork()
    if pid == 0:
        if number % 2:  # lives on until the test ends
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            time.sleep(50)
            os._exit(0)
        run.track(number, name="child")
        os._exit(0)
    if number % 2:
        print("child", pid, flush=True)
    else:
        pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
stopped.set()
for thread in threads:
    thread.join()
for who in range(4):
    assert run.get_metric("scalar", {"who": who}).values.values_list() == list(range(counts[who]))
    if not who % 2:
        assert run["p", str(who)] == counts[who]
assert run.get_metric("child").count == len(pids)
assert run.status == "running"
print("ready", flush=True)
time.sleep(50)
