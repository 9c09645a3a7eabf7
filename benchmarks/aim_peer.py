"""What the interpreter that has Aim runs for `peer query`: fill a repo, or time queries. Input and output are JSON."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

METRICS = (("loss", {"subset": "train"}), ("loss", {"subset": "val"}), ("accuracy", {"subset": "val"}), ("lr", {}))


def fill(path, runs):
    from aim import Repo, Run

    if not Repo.exists(path):
        Repo.from_path(path, init=True)
    for number, params in enumerate(runs):
        run = Run(repo=path, system_tracking_interval=None, capture_terminal_logs=False)
        for key, value in params.items():
            run[key] = value
        for name, context in METRICS:
            for step in range(10):
                run.track(0.1 + number % 7 / 5 + math.exp(-step / 3), name=name, step=step, context=context)
        run.close()
    subprocess.run(
        [str(Path(sys.executable).with_name("aim")), "storage", "--repo", path, "reindex", "-y"], check=True, capture_output=True
    )


def timed(path, queries):
    from aim import Repo
    from aim.sdk.types import QueryReportMode

    repo = Repo(path)
    times_ms = []
    for kind, query in queries:
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            if kind == "runs":
                found = [each.run.hash for each in repo.query_runs(query, report_mode=QueryReportMode.DISABLED).iter_runs()]
            else:
                found = [each.name for each in repo.query_metrics(query, report_mode=QueryReportMode.DISABLED).iter()]
            best = min(best, time.perf_counter() - start)
        print(kind, query, len(found), file=sys.stderr)
        times_ms.append(1e3 * best)
    return times_ms


def images(path, file):
    import numpy as np
    from aim import Image, Repo, Run
    from aim.sdk.types import QueryReportMode

    given = np.load(file)
    Repo.from_path(path, init=True)
    run = Run(repo=path, system_tracking_interval=None, capture_terminal_logs=False)
    start = time.perf_counter()
    for step in range(len(given)):
        run.track(Image(given[step], caption="of a benchmark"), name="seen", step=step)
    track = time.perf_counter() - start
    run.close()
    subprocess.run(
        [str(Path(sys.executable).with_name("aim")), "storage", "--repo", path, "reindex", "-y"], check=True, capture_output=True
    )
    start = time.perf_counter()
    found = [image.caption for each in Repo(path).query_images("", QueryReportMode.DISABLED).iter() for image in each.values.values_list()]
    return {"track_us": 1e6 * track / len(given), "list_ms": 1e3 * (time.perf_counter() - start), "count": len(given), "found": len(found)}


task, path = sys.argv[1:]
given = json.load(sys.stdin)
print(json.dumps({"fill": fill, "time": timed, "images": images}[task](path, given)))
