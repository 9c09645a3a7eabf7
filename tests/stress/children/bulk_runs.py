"""bulk_runs.py REPO RUNS: makes short runs, one after the other, and merges them."""

import sys

from aimlite import Repo, Run
from aimlite.storage.merge import merge

with Repo(sys.argv[1]) as repo:
    for number in range(int(sys.argv[2])):
        with Run(repo=repo) as run:
            run["lr"] = number / 7
            run.track({"loss": 1 / (number + 1), "accuracy": number})
    repo._writer().end_segment()
    merge(repo._layout, wait=True)
