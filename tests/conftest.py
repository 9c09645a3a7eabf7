"""What every test stands on: a repo of its own, checked when the test ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from aimlite import Repo

# The same examples each time, so that a change is judged by what it does; `make stress` draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("stress", deadline=None)
settings.load_profile("stress" if os.environ.get("AIMLITE_STRESS") == "1" else "repeatable")


@pytest.fixture(autouse=True)
def _no_helper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No merge helper starts by itself, so that a test says when a merge happens; the marker `helper` lets it."""
    if request.node.get_closest_marker("helper"):
        monkeypatch.delenv("AIMLITE_MERGE", raising=False)
    else:
        monkeypatch.setenv("AIMLITE_MERGE", "off")


@pytest.fixture(autouse=True)
def _no_samples_unasked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of tests are sampled only where the test asks for it: else metrics of the machine would appear in a test that takes ten seconds,
    on a slow machine. Tests of what the documents say, and of sampling itself, have the default."""
    if not {"spec", "capture", "demo"}.intersection(request.path.parts) and request.path.name != "test_docs.py":
        from aimlite import Run

        monkeypatch.setitem(Run.__init__.__wrapped__.__kwdefaults__, "system_tracking_interval", None)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the config or the repo of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.delenv("AIMLITE_REPO", raising=False)


@pytest.fixture
def repo_path(tmp_path: Path) -> str:
    """Where a repo may be made; nothing is there yet."""
    return str(tmp_path / "repo")


@pytest.fixture
def repo(repo_path: str) -> Iterator[Repo]:
    """An empty repo. What the test leaves in it has to pass a full check."""
    from aimlite import Repo

    with Repo(repo_path) as repo:
        yield repo
        assert repo.check() == []
