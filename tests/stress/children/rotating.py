"""rotating.py REPO RUNS ROUNDS SEGMENT_BYTES: writes to its runs in turn and begins new segments all the time, from `go` on."""

import sys
import time

from aimlite import Run
from aimlite.storage import writer

repo, runs, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
writer.SEGMENT_BYTES = int(sys.argv[4])
open_runs = [Run(f"run-{number}", repo=repo) for number in range(runs)]
print("ready", flush=True)
sys.stdin.read()
for k in range(rounds):
    for run in open_runs:
        run.track(k, name="x")
        run.track({"y": k, "z": -k}, step=3 * k)
    if k % 5 == 0:
        open_runs[k % runs]["k"] = k
        time.sleep(0.001)
print("written", open_runs[0]._recorder.journal.segment, flush=True)
while not any(run.active for run in open_runs[:1]):
    pass
for run in open_runs[: runs // 2]:
    run.finish("failed")
print("failed", flush=True)
for run in open_runs[runs // 2 :]:
    run.close()
