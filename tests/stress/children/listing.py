"""listing.py REPO: opens a repo, counts and lists its runs and reads the newest; prints how many runs, descriptors and MiB that took."""

import os
import sys
from itertools import islice
from pathlib import Path

import psutil

from aimlite import Repo

with Repo(sys.argv[1]) as repo:
    runs = repo.total_runs_count()
    for _ in range(3):
        assert sum(1 for _ in repo.iter_runs()) == runs
    newest = [(run.hash, run.status, run["lr"], run.get_metric("loss").last) for run in islice(repo.iter_runs(), 50)]
    assert len(newest) == min(50, runs)
    proc = Path("/proc/self/fd")
    descriptors = len(os.listdir(proc)) if proc.exists() else psutil.Process().num_fds()
    print(runs, descriptors, psutil.Process().memory_info().rss >> 20)
