"""What runs record by themselves leaves nothing behind, however often."""

from __future__ import annotations

from collections.abc import Callable

from aimlite import Repo
from aimlite.capture.environment import PARTS


def test_capture_leaves_nothing_behind(repo: Repo, repo_path: str, start: Callable, count: Callable[[int, int], int]) -> None:
    cycles = count(10, 1500)
    lines = start("capture.py", repo_path, cycles).join()
    (threads, descriptors, children, memory), end = (list(map(int, line.split()[1:])) for line in lines)
    assert end[:3] == [threads, descriptors, children]
    assert children == 0
    assert end[3] < memory + 24
    runs = {run.hash: run for run in repo.iter_runs()}
    assert len(runs) == 3 * cycles + len(range(0, cycles, 5))
    for name, run in runs.items():
        assert run.status == "finished"
        if not name.startswith("child"):
            assert run.get_metric("x").count == 200
    for number in range(0, cycles, 4):
        assert runs[f"{number}-1"]["__system_params"].keys() == {*PARTS}
