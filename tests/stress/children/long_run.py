"""long_run.py REPO POINTS: one run with a long metric, merged."""

import sys

import numpy as np

from aimlite import Repo, Run
from aimlite.storage.merge import merge

n = int(sys.argv[2])
with Repo(sys.argv[1]) as repo:
    with Run("long", repo=repo) as run:
        values = np.sin(np.arange(n) / 1000)
        values[n // 3] = 100
        run.track_columns("loss", values)
    repo._writer().end_segment()
    merge(repo._layout, wait=True)
