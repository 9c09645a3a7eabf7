"""Resources do not grow with the number of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlite import Repo

if TYPE_CHECKING:
    from stress.conftest import Count, Start


def test_many_runs_open_in_one_process(repo: Repo, start: Start, count: Count) -> None:
    runs = count(100, 1000)
    lines = start("many_runs.py", repo.path, runs).join()
    descriptors = {name: int(number) for name, number in map(str.split, lines)}
    assert descriptors.keys() == {"begin", "open", "written", "read", "merged"}
    assert max(descriptors.values()) <= 64, descriptors
    assert repo.total_runs_count() == runs
