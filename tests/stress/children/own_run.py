"""own_run.py REPO N: waits for `go`, then makes a run of its own with N points."""

import sys

from aimlite import Run

print("ready", flush=True)
sys.stdin.read()
with Run(repo=sys.argv[1]) as run:
    run["process"] = {"id": run.hash}
    for step in range(int(sys.argv[2])):
        run.track(step / 2, name="loss")
        run.track({"a": step, "b": -step}, step=step)
print(run.hash)
