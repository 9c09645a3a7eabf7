"""Resources do not grow with the number of runs."""

from __future__ import annotations

from aimlite import Repo


def test_many_runs_open_in_one_process(repo: Repo, start, count) -> None:
    runs = count(100, 1000)
    lines = start("many_runs.py", repo.path, runs).join()
    descriptors = {name: int(number) for name, number in map(str.split, lines)}
    assert descriptors.keys() == {"begin", "open", "written", "read", "merged"}
    assert max(descriptors.values()) <= 64, descriptors
    assert repo.total_runs_count() == runs
