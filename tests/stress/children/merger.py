"""merger.py REPO: merges again and again until stdin ends."""

import sys
import threading

from aimlite import Repo

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
merges = segments = 0
print("ready", flush=True)
with Repo(sys.argv[1]) as repo:
    while not ended.is_set() or not merges:
        report = repo.merge()
        assert not report["damaged"], report
        merges += 1
        segments += report["segments"]
print(f"merges {merges} segments {segments}")
