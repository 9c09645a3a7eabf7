"""watcher.py REPO RUN: reads the run again and again until stdin ends; what was seen once has to stay."""

import sys
import threading

import numpy as np

from aimlite import Repo
from aimlite.storage.view import Reader

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
seen: dict[str, np.ndarray] = {}
counts: dict[str, int] = {}
rounds = 0
print("ready", flush=True)
with Repo(sys.argv[1]) as repo:
    while not ended.is_set() or not rounds:
        rounds += 1
        if rounds % 2:
            repo._reader_ = Reader(repo._layout)  # half of the time as a process sees it that has just begun
        run = repo.get_run(sys.argv[2])
        if run is None:
            assert not seen, "the run disappeared"
            continue
        for metric in run.metrics():
            steps, values = metric.values.sparse_numpy()
            assert len(steps) == len(values)
            assert len(steps) >= counts.get(metric.name, 0), f"{metric.name}: {counts[metric.name]} points, then {len(steps)}"
            assert (np.diff(steps) >= (0 if metric.name == "automatic" else 1)).all(), f"steps of {metric.name} are out of order"
            assert metric.count >= len(steps)
            if metric.name in seen:
                assert np.isin(seen[metric.name], steps).all(), f"steps of {metric.name} disappeared"
            seen[metric.name], counts[metric.name] = steps, len(steps)
print(f"rounds {rounds}")
