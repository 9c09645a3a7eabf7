"""A reader lists the journals again only when their directory may have changed."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from aimlite import Repo, Run
from aimlite.storage.layout import Layout
from aimlite.storage.writer import end_segment


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
