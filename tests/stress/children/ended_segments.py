"""ended_segments.py REPO N: leaves N ended segments behind, as N short-lived processes would, with a point each."""

import sys

from aimlite import Repo, Run

with Repo(sys.argv[1]) as repo:
    for number in range(int(sys.argv[2])):
        with Run(f"run-{number}", repo=repo) as run:
            run.track(number, name="x")
        repo._writer().end_segment()
    with Run("last", repo=repo) as run:
        run.track(-1, name="x")
