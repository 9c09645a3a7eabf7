"""soak.py REPO POINTS MERGES: one point a second, merged MERGES times in pieces of all sizes; and the same points merged at once."""

import random
import sys

import numpy as np

from aimlite import Repo, Run
from aimlite.storage.merge import merge
from aimlite.storage.tree import L0_FILES_TO_COMPACT

n, merges = int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(n)
values = np.random.default_rng(1).normal(size=n).cumsum()
times = 1.7e9 + np.arange(n)
ends = [*sorted(chance.sample(range(1, n), merges - 1)), n]
tables = 0
with Repo(sys.argv[1]) as repo:
    with Run("month", repo=repo) as run:
        begin = 0
        for end in ends:
            run.track_columns("loss", values[begin:end], times=times[begin:end])
            repo._writer().end_segment()
            merge(repo._layout, wait=True)
            tables = max(tables, len(list(repo._layout.tree.glob("*.sst"))))
            begin = end
    with Run("once", repo=repo) as run:
        run.track_columns("loss", values, times=times)
    repo._writer().end_segment()
    merge(repo._layout, wait=True)
assert tables < L0_FILES_TO_COMPACT + 12, tables
