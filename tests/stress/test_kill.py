"""Acknowledged means kept: writers and mergers are killed with SIGKILL at random moments."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from stress.children.operations import COLUMN_SIZES, DICT_NAMES, column, dict_values, is_heavy, kind_of, nested

from aimlite import Repo, Run
from aimlite.storage import helper
from aimlite.storage.tree import L0_FILES_TO_COMPACT
from aimlite.storage.view import Reader

if TYPE_CHECKING:
    from stress.conftest import Count, Start


def test_a_killed_writer_leaves_every_acknowledged_call_whole(repo: Repo, start: Start, count: Count) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # shown when the test fails
    chance = random.Random(seed)
    left: list[tuple[Run, int, list[int]]] = []
    for number in range(count(4, 50)):
        child_seed = chance.randrange(1 << 20)
        child = start("killed_writer.py", repo.path, f"run-{number}", child_seed)
        child.wait_for("open")
        time.sleep(chance.uniform(0, 0.03 if is_heavy(child_seed) else 0.15))
        acknowledged = [int(line) for line in child.kill()[1:]]
        assert acknowledged == list(range(len(acknowledged)))
        run = repo.get_run(f"run-{number}")
        assert run is not None
        kept = kept_calls(run, child_seed, len(acknowledged))
        assert run.status == "interrupted"
        assert run.end_time is not None
        assert run.creation_time <= run.end_time <= time.time()
        left.append((run, child_seed, kept))
        if chance.random() < 0.2:
            repo.merge()
        if chance.random() < 0.7:
            resume(repo, run)
    repo.merge()
    for run, child_seed, kept in left:
        assert kept_calls(run, child_seed, len(kept)) == kept
    assert repo.total_runs_count() == len(left)


def kept_calls(run: Run, seed: int, acknowledged: int) -> list[int]:
    """The indices of the calls that left something: all that were acknowledged and perhaps the one after them. Each is whole."""
    for done in (acknowledged, acknowledged + 1):
        kinds = [kind_of(seed, index) for index in range(done)]
        if holds(run, kinds):
            return list(range(done))
    raise AssertionError(f"{run} does not hold what calls 0 to {acknowledged - 1} of seed {seed} wrote")


def holds(run: Run, kinds: list[str]) -> bool:
    by_kind = {kind: [index for index, other in enumerate(kinds) if other == kind] for kind in set(kinds)}
    dicts = by_kind.get("dict", [])
    expected = {"loss": np.array(by_kind.get("scalar", []), float)}
    expected |= {name: np.array([dict_values(index)[name] for index in dicts]) for name in DICT_NAMES}
    expected["column"] = np.concatenate([np.empty(0), *(column(kind, index) for index, kind in enumerate(kinds) if kind in COLUMN_SIZES)])
    for name, values in expected.items():
        metric = run.get_metric(name, {"subset": "train"} if name in DICT_NAMES else None)
        steps, found = metric.values.sparse_numpy() if metric is not None else (np.empty(0), np.empty(0))
        resumed = len(found) > len(values) and name == "loss" and found[len(values)] == -1  # see resume()
        if not np.array_equal(found[:-1] if resumed else found, values) or not np.array_equal(steps, np.arange(len(found))):
            return False
    state = by_kind.get("state", [])
    return run.get("params", {}) == {str(index): nested(index) for index in by_kind.get("params", [])} and run.get("state") == (
        nested(state[-1]) if state else None
    )


def resume(repo: Repo, run: Run) -> None:
    """Another process goes on with the run: steps count on, and it is running, then finished."""
    metric = run.get_metric("loss")
    before = metric.last_step if metric is not None else -1
    with Run(run.hash, repo=repo) as resumed:
        assert run.status == "running"
        assert run.end_time is None
        resumed.track(-1, name="loss")
    assert run.get_metric("loss").last_step == before + 1
    assert run.status == "finished"


def test_a_killed_merge_loses_nothing(repo: Repo, count: Count) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    expected: dict[str, float] = {}
    duration = 0.4
    for _ in range(count(6, 100)):
        for _ in range(20):
            write_segment(repo, chance, expected)
        began = time.monotonic()
        killed = merge_and_kill(repo, chance, duration)
        if not killed:
            duration = time.monotonic() - began
        assert sums(repo) == expected
        assert repo.check() == []
    report = repo.merge()
    assert report["damaged"] == []
    assert repo._layout.list_journals() == []
    assert sums(repo) == expected


def write_segment(repo: Repo, chance: random.Random, expected: dict[str, float]) -> None:
    """A journal of its own, ended, of a new run or an old one."""
    run_hash = chance.choice(list(expected)) if expected and chance.random() < 0.5 else f"run-{len(expected)}"
    values = np.array([chance.randrange(1000) for _ in range(chance.choice([1, 30, 3000]))])
    with Run(run_hash, repo=repo) as run:
        run.track_columns("value", values)
        run["last"] = {"sum": int(values.sum()), "size": len(values)}
    expected[run_hash] = expected.get(run_hash, 0) + float(values.sum())
    repo._writer().end_segment()


def sums(repo: Repo) -> dict[str, float]:
    view = Reader(repo._layout).view()
    found = {}
    for run_hash in view.run_hashes():
        (sequence,) = view.sequences(run_hash)
        found[run_hash] = float(view.steps_and_values(sequence)[1].sum())
    return found


def merge_and_kill(repo: Repo, chance: random.Random, duration: float) -> bool:
    """Whether the helper was killed before it was through: at some time, or a little after its first write to the tree or its commit."""
    watched = chance.choice([None, repo._layout.lease, repo._layout.tree, repo._layout.generation, repo._layout.journals])
    before = changed(watched)
    merging = start_helper(repo)
    if watched is None:
        time.sleep(chance.uniform(0, duration))
    else:
        while changed(watched) == before and merging.poll() is None:
            time.sleep(0)
        time.sleep(chance.choice([0, chance.uniform(0, 0.03)]))
    merging.kill()
    return merging.wait() != 0


def start_helper(repo: Repo) -> subprocess.Popen[bytes]:
    command = helper._command(repo._layout, "merge", "--wait")
    return subprocess.Popen(command, env=helper._environment(), stdout=subprocess.DEVNULL)


def changed(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_a_merge_killed_while_it_compacts_loses_nothing(repo: Repo, tmp_path: Path, start: Start, count: Count) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    start("merges.py", repo.path, L0_FILES_TO_COMPACT - 1).join()
    expected = {f"run-{number}": number * sum(range(1000)) for number in range(L0_FILES_TO_COMPACT - 1)}
    write_segment(repo, chance, expected)
    for number in range(count(3, 40)):
        shutil.copytree(tmp_path / "repo", tmp_path / f"copy-{number}")
        with Repo(tmp_path / f"copy-{number}") as copy:
            before = tables(copy)
            merging = start_helper(copy)
            while before <= tables(copy) and merging.poll() is None:
                time.sleep(0)
            time.sleep(chance.choice([0, chance.uniform(0, 0.01)]))
            merging.kill()
            merging.wait()
            assert sums(copy) == expected
            assert copy.check() == []
            copy.merge()
            assert sums(copy) == expected
            assert copy.check() == []


def tables(repo: Repo) -> set[str]:
    return {path.name for path in repo._layout.tree.glob("*.sst")}


def test_a_killed_compaction_does_not_leave_compactions_on(repo: Repo, start: Start) -> None:
    """RocksDB writes its options down when they are changed, and compacts four files by itself: files would go that are still listed."""
    start("merges.py", repo.path, 3).join()
    start("stopped_compaction.py", repo.path).join()
    start("merges.py", repo.path, 3).join()
    assert len(tables(repo)) == 6
