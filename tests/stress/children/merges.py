"""merges.py REPO N: makes N runs and merges after each, here and not in a helper, which would take longest to start."""

import sys

import numpy as np

from aimlite import Repo, Run
from aimlite.storage.merge import merge

with Repo(sys.argv[1]) as repo:
    for number in range(int(sys.argv[2])):
        with Run(f"run-{number}", repo=repo) as run:
            run.track_columns("value", np.arange(1000.0) * number)
        repo._writer().end_segment()
        assert merge(repo._layout, wait=True).segments == 1
