"""What runs record by themselves leaves nothing behind, however often."""

from __future__ import annotations

from collections.abc import Callable

from aimlite import Repo
from aimlite.capture.environment import PARTS


def test_capture_leaves_nothing_behind(repo: Repo, repo_path: str, start: Callable, count: Callable[[int, int], int]) -> None:
    cycles = count(10, 1500)
    lines = start("capture.py", repo_path, cycles).join()
    (threads, descriptors, children, memory), end = (list(map(int, line.split()[1:])) for line in lines)
    assert end[0] <= threads
    assert end[1] <= descriptors
    assert end[2] == children == 0
    assert end[3] < memory + 8
    runs = list(repo.iter_runs())
    assert len(runs) == 3 * cycles + len(range(0, cycles, 5))
    assert {run.status for run in runs} == {"finished"}
    for run in runs:
        if "cycle" in run:
            assert run.get_metric("x").count == 200
            assert (run["cycle"] % 4 and run["cycle"] % 3) or run["__system_params"].keys() == {*PARTS}
