"""shared_run.py REPO RUN WHO WRITERS N OUT: waits for `go`, then is one of WRITERS processes that write one run.

Every step of `overlapping` is written by all of them; OUT keeps step, value and order of each of these points, and the writer. Segments are
short, so that there is something to merge while the run goes on.
"""

import random
import sys
import time

import numpy as np

from aimlite import Run
from aimlite.storage import writer

writer.SEGMENT_BYTES = 1 << 14 << int(sys.argv[3])  # other sizes for each
repo, run_hash = sys.argv[1:3]
who, writers, n = map(int, sys.argv[3:6])
chance = random.Random(who)
print("ready", flush=True)
sys.stdin.read()
run = Run(run_hash, repo=repo)
journal = run._recorder.journal
overlapping = []
steps = list(range(n))
chance.shuffle(steps)
for k, step in enumerate(steps):
    run.track(k * writers + who, name="automatic")
    run.track({"disjoint": who * n + k, "also disjoint": -step}, step=step * writers + who)
    run.track(who * n + k, name="overlapping", step=step)
    overlapping.append((step, who * n + k, journal.order))
    if k % 10 == 0:
        time.sleep(0.002)
    if k % 100 == 0:
        several = np.arange(step, min(step + 20, n))
        run.track_columns("overlapping", several + 0.5 + who * n, steps=several)
        overlapping += [(s, s + 0.5 + who * n, journal.order) for s in several.tolist()]
        run["written", str(who)] = {"k": k, "step": step}
np.savez(sys.argv[6], points=np.array(overlapping, dtype=object), writer=np.array([journal.writer], np.uint64))
run.close()
