"""A run that is written while it is asked for: params and points, told on stdout once they are; a line on stdin goes on."""

from __future__ import annotations

import sys

from aimlite import Run

run = Run("written", repo=sys.argv[1])
run["lr"] = 0.5
run.track(1.0, name="loss", context={"subset": "val"})
print("first", flush=True)
sys.stdin.readline()
run["lr"] = 0.25
run.track(0.125, name="loss", context={"subset": "val"})
print("second", flush=True)
sys.stdin.readline()
