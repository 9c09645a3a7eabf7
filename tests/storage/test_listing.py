"""A reader lists the journals again only when their directory may have changed, and looks at each of them no more often than it must."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from aimlite import Repo, Run
from aimlite.storage import params
from aimlite.storage.layout import Layout
from aimlite.storage.segments import SegmentView
from aimlite.storage.writer import end_segment
from reference import journal as reference


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each listing."""
    seen: list[str] = []
    listed = Layout.list_journals

    def noted(layout: Layout) -> Any:
        seen.append("listed")
        return listed(layout)

    monkeypatch.setattr(Layout, "list_journals", noted)
    return seen


def changed_at(repo: Repo, time_ns: int) -> None:
    """Sets when the directory of journals changed last."""
    os.utime(repo._layout.journals, ns=(time_ns, time_ns))


def write(repo: Repo, run_hash: str) -> None:
    """A run in a journal of its own."""
    with Run(run_hash, repo=repo) as run:
        run.track(1.0, name="m")
    end_segment(repo._layout)


def test_a_directory_at_rest_is_listed_once(repo: Repo, listings: list[str]) -> None:
    write(repo, "a")
    changed_at(repo, time.time_ns() - 10**11)
    reader = repo._reader
    reader.view()
    listings.clear()
    assert [list(reader.view().run_hashes()) for _ in range(5)] == [["a"]] * 5
    assert listings == []
    write(repo, "b")
    assert list(reader.view().run_hashes()) == ["b", "a"]
    assert listings == ["listed"]
    repo.merge()
    assert list(reader.view().run_hashes()) == ["b", "a"]


@pytest.mark.parametrize("age_ns", [0, 10**9, -(10**9)])
def test_a_change_in_the_same_tick_of_the_clock_is_seen(repo: Repo, listings: list[str], age_ns: int) -> None:
    """The directory has changed, and its time is as before: one tick of the clock holds both changes."""
    reader = repo._reader
    for run_hash in "abc":
        stamp = time.time_ns() - age_ns
        changed_at(repo, stamp)
        before = list(reader.view().run_hashes())
        write(repo, run_hash)
        changed_at(repo, stamp)
        assert list(reader.view().run_hashes()) == [run_hash, *before]
    assert len(listings) >= 6


def test_a_time_that_goes_back_is_a_change(repo: Repo) -> None:
    """The clock was set back between two changes."""
    reader, now = repo._reader, time.time_ns()
    write(repo, "a")
    changed_at(repo, now - 10**11)
    assert list(reader.view().run_hashes()) == ["a"]
    write(repo, "b")
    changed_at(repo, now - 10**12)
    assert list(reader.view().run_hashes()) == ["b", "a"]


def one_run_each(layout: Layout, count: int) -> None:
    """Journals of so many writers, each with a run of its own."""
    for number in range(count):
        opened = (reference.OPEN, reference.encode_open(0, f"r{number}"))
        named = (reference.PROPERTY, bytes(4) + params.packb(["name", f"run {number}"]))
        order = 1_700_000_000_000_000 + number
        content = reference.encode_journal(1000 + number, 0, order, [(order + 1, [opened, named])])
        layout.journal(1000 + number, 0).write_bytes(content)


def test_looking_at_all_live_runs_looks_at_each_segment_a_few_times(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every segment for every run: listing the runs of 4,000 writers would take 16 million looks."""
    looks: dict[str, int] = {"run": 0, "damage": 0}
    run, is_damaged = SegmentView.run, SegmentView.is_damaged

    def counted_run(view: SegmentView, run_hash: str) -> Any:
        looks["run"] += 1
        return run(view, run_hash)

    def counted_damage(view: SegmentView) -> Any:
        looks["damage"] += 1
        return is_damaged.__get__(view)

    monkeypatch.setattr(SegmentView, "run", counted_run)
    monkeypatch.setattr(SegmentView, "is_damaged", property(counted_damage))
    counts = []
    for count in (50, 200):
        one_run_each(repo._layout, count)
        looks.update(run=0, damage=0)
        assert repo.list_active_runs() == []
        assert {run.name for run in repo.iter_runs()} == {f"run {number}" for number in range(count)}
        assert repo.get_run("missing") is None
        counts.append(sum(looks.values()))
    assert counts[1] < 6 * counts[0], (counts, looks)


def test_a_view_that_is_older_than_a_merge_goes_on(repo: Repo) -> None:
    """Its runs are found by a map that the reader begins anew when segments go."""
    write(repo, "a")
    before = repo._reader.view()
    write(repo, "b")
    between = repo._reader.view()
    repo.merge()
    write(repo, "c")
    after = repo._reader.view()
    assert [list(view.run_hashes()) for view in (before, between, after)] == [["a"], ["b", "a"], ["c", "b", "a"]]
    for view, hashes in ((before, "a"), (between, "ab"), (after, "abc")):
        for run_hash in "abc":
            assert view.holds_run(run_hash) == (run_hash in hashes)
        assert all(view.run_state(run_hash).status == "finished" for run_hash in hashes)
