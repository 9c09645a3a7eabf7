"""many_runs.py REPO RUNS: has all the runs open at once, writes to them in turn, reads them back before and after a merge.

Prints the most descriptors it had open in each part, a line each; a fresh process has some 5.
"""

import os
import sys
from pathlib import Path

import psutil

from aimlite import Repo, Run

ROUNDS = 10
most = 0


def look() -> None:
    global most
    proc = Path("/proc/self/fd")
    most = max(most, len(os.listdir(proc)) if proc.exists() else psutil.Process().num_fds())


def part(name: str) -> None:
    global most
    look()
    print(name, most, flush=True)
    most = 0


def read_all() -> None:
    assert repo.total_runs_count() == len(runs)
    assert repo.list_all_runs() == [run.hash for run in reversed(runs)]
    for number, run in enumerate(runs):
        values = run.get_metric("x", {"run": number}).values
        assert values.sparse_list() == (list(range(ROUNDS)), [number + k / 4 for k in range(ROUNDS)])
        assert run["p", "number"] == number
        if number % 50 == 0:
            look()


repo = Repo(sys.argv[1])
part("begin")
runs = [Run(repo=repo) for _ in range(int(sys.argv[2]))]
part("open")
for k in range(ROUNDS):
    for number, run in enumerate(runs):
        run.track(number + k / 4, name="x", context={"run": number})
        if k == 0:
            run["p"] = {"number": number}
    look()
part("written")
read_all()
assert {run.status for run in runs} == {"running"}
part("read")
for run in runs[::2]:
    run.close()
repo.merge()
read_all()
assert [run.status for run in runs] == ["finished", "running"] * (len(runs) // 2)
for run in runs[1::2]:
    run.track(-1.0, name="late")
    run.close()
repo.merge()
read_all()
assert {run.status for run in repo.iter_runs()} == {"finished"}
assert all(run.get_metric("late").last == -1 for run in runs[1::2])
part("merged")
