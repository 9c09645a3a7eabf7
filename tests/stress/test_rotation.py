"""Segments: rotated while they are written, read and merged; footers; and the helper that starts by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from aimlite import Repo, Run
from aimlite._ext import journal
from aimlite.storage import writer
from aimlite.storage.segments import Segment
from aimlite.storage.view import Reader

if TYPE_CHECKING:
    from stress.conftest import Count, Start


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 1 << 14)


def write(run: Run, rounds: int) -> None:
    for k in range(rounds):
        run.track(k, name="x")
        run.track({"y": k, "z": -k}, step=3 * k)
        if k % 100 == 0:
            run["p", str(k)] = {"k": k}


def demand_all(run: Run, rounds: int) -> None:
    everything = list(range(rounds))
    assert run.get_metric("x").values.sparse_list() == (everything, everything)
    assert run.get_metric("y").values.sparse_list() == ([3 * k for k in everything], everything)
    assert run.get_metric("z").last == 1 - rounds
    assert run["p"] == {str(k): {"k": k} for k in range(0, rounds, 100)}


def segments_of(repo: Repo) -> list[Segment]:
    return [Segment(repo._layout.journal(*name), *name) for name in repo._layout.list_journals()]


@pytest.mark.usefixtures("short_segments")
def test_points_are_read_across_segments(repo: Repo, count: Count) -> None:
    rounds = count(2000, 100_000)
    with Run(repo=repo) as run:
        write(run, rounds)
        assert len(repo._layout.list_journals()) > rounds // 200
        demand_all(run, rounds)
        assert run.status == "running"
        with Repo(repo.path) as other:
            other._reader_ = Reader(other._layout)
            demand_all(other.get_run(run.hash), rounds)
    repo.merge()
    demand_all(run, rounds)
    assert run.status == "finished"


@pytest.mark.usefixtures("short_segments")
def test_a_new_reader_of_rotated_segments_reads_no_points_until_asked(repo: Repo) -> None:
    with Run(repo=repo) as run:
        write(run, 2000)
        *rotated, last = segments_of(repo)
        assert 10 < len(rotated) <= 32  # a reader keeps descriptors of so many
        assert all(segment._points is None and segment.complete and segment.rotated for segment in rotated)
        assert last._points is not None
        reader = Reader(repo._layout)
        view = reader.view()
        assert view.run_state(run.hash).status == "running"
        assert view.run_count() == 1
        assert view.params(run.hash, ("p",)).keys() == {str(k) for k in range(0, 2000, 100)}
        x, y, z = view.sequences(run.hash)
        assert [sequence.name for sequence in (x, y, z)] == ["x", "y", "z"]
        assert all(view_of.segment._points is None for view_of in view.segments[:-1])
        assert len(view.points(x)) == 2000
        assert all(view_of.segment._points is not None for view_of in view.segments)
        assert reader.view().summary(y).count == 2000


@pytest.mark.usefixtures("short_segments")
def test_threads_share_a_reader_of_rotated_segments(repo: Repo, count: Count) -> None:
    """Whoever asks first reads a segment's points and closes its file; the others must not read from the closed descriptor."""
    from concurrent.futures import ThreadPoolExecutor

    rounds = 1500
    with Run(repo=repo) as run, ThreadPoolExecutor(8) as pool:
        write(run, rounds)
        for _ in range(count(10, 100)):
            repo._reader_ = Reader(repo._layout)
            assert list(pool.map(lambda name: run.get_metric(name).count, "xyzxyzxy")) == [rounds] * 8


def test_records_that_wait_while_a_segment_begins_are_declared_in_it(repo: Repo) -> None:
    """What was to be written when another thread began a segment belongs to its run all the same."""
    run = Run(repo=repo)
    recorder, held = run._recorder, repo._writer()
    assert recorder is not None

    def begin_segment():
        order = held.journal.order + 1
        fd = held._create(held.journal.writer, 1, order)
        journal.close(held.journal.rotate(fd, 1, order))
        yield from ()

    number = recorder.number.to_bytes(4, "little")
    records = [(journal.PROPERTY, number + b"\x92\xa4name\xa4mine")]

    class Records(list):
        def __iter__(self):
            yield from begin_segment()
            yield from records

    recorder.append(Records())
    assert run.name == "mine"
    run.close()


@pytest.mark.parametrize("merging", [False, True], ids=["alone", "beside merges"])
def test_readers_beside_a_writer_that_rotates(repo: Repo, start: Start, count: Count, merging: bool) -> None:
    """Every view, also of a reader that has just begun, shows every run as running and never fewer points than the one before."""
    runs = 10
    child = start("rotating.py", repo.path, runs, 2 if merging else 20)  # unmerged segments are read by every new reader: not too many
    child.wait_for("ready")
    others = [start("watcher.py", repo.path, "run-0"), *([start("merger.py", repo.path)] if merging else [])]
    reader, seen = Reader(repo._layout), 0
    for number in range(count(40, 400)):
        view = (reader if number % 2 else Reader(repo._layout)).view()
        assert [view.run_state(f"run-{number}").status for number in range(runs)] == ["running"] * runs
        sequences = view.sequences("run-0")
        points = view.summary(sequences[0]).count if sequences else 0
        assert points >= seen
        seen = points
    for other in [*others, child]:
        other.wait_for("ready")
        other.go()
        other.join()
    rounds = list(range(int(child.lines[-1])))
    for _ in range(2):
        for number in range(runs):
            run = repo.get_run(f"run-{number}")
            assert run is not None
            assert run.status == ("finished" if number % 2 else "failed")
            assert run.get_metric("x").values.values_list() == rounds
            assert run.get_metric("z").values.sparse_list() == ([3 * k for k in rounds], [-k for k in rounds])
        repo.merge()


def test_a_merge_ends_beside_a_writer_that_never_stops(repo: Repo, start: Start, count: Count) -> None:
    """It takes in what was there when it began: a writer that rotates faster than it commits cannot hold it up."""
    child = start("rotating.py", repo.path, 10, 1)
    child.wait_for("ready")
    for _ in range(count(2, 10)):
        wait_until(lambda: len(repo._layout.list_journals()) > 1)
        assert repo.merge()["segments"] > 0
    assert child.process.poll() is None


@pytest.mark.helper
def test_the_helper_starts_by_itself_and_leaves_nothing(repo: Repo, start: Start) -> None:
    zombies = children_of_this()
    start("ended_segments.py", repo.path, 66).join()
    wait_until(lambda: not repo._layout.list_journals() and not helpers_on(repo))
    with Run("here", repo=repo) as run:
        run.track(1, name="x")
    assert [run.get_metric("x").values.values_list() for run in repo.iter_runs()] == [[1], [-1], *([k] for k in reversed(range(66)))]
    for number in range(66):
        repo._writer().end_segment()
        Run(f"again-{number}", repo=repo).close()
    repo._writer().end_segment()
    Run("enough", repo=repo).close()  # whoever begins a journal looks how many wait
    wait_until(lambda: len(repo._layout.list_journals()) < 10)
    wait_until(lambda: not helpers_on(repo))
    assert children_of_this() == zombies
    assert repo.total_runs_count() == 2 * 66 + 3


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.01)


def children_of_this() -> int:
    return len(psutil.Process().children())


def helpers_on(repo: Repo) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if repo.path in command and "aimlite.storage.merge_helper" in command:
            found.append(process.pid)
    return found


def test_without_the_helper_journals_wait_and_everything_reads(repo: Repo, start: Start) -> None:
    start("ended_segments.py", repo.path, 66).join()
    assert len(repo._layout.list_journals()) == 67
    assert not Path(repo.path, "tree").exists()
    assert not helpers_on(repo)
    assert repo.total_runs_count() == 67
    values = {run.hash: run.get_metric("x").last for run in repo.iter_runs()}
    assert values == {"last": -1, **{f"run-{k}": k for k in range(66)}}
    assert np.isclose(sum(values.values()), sum(range(66)) - 1)
