"""rotating.py REPO RUNS PAUSE_MS: writes to its runs in turn, in very short segments, until stdin ends. Prints how many rounds it made."""

import sys
import threading
import time

from aimlite import Run
from aimlite.storage import writer

writer.SEGMENT_BYTES = 1 << 13
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
runs = [Run(f"run-{number}", repo=sys.argv[1]) for number in range(int(sys.argv[2]))]
print("ready", flush=True)
k = 0
while not ended.is_set():
    for run in runs:
        run.track(k, name="x")
        run.track({"y": k, "z": -k}, step=3 * k)
    runs[k % len(runs)]["k"] = k
    time.sleep(float(sys.argv[3]) / 1000)
    k += 1
for run in runs[::2]:
    run.finish("failed")
for run in runs[1::2]:
    run.close()
print(k)
