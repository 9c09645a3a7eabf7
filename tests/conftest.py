"""What every test stands on: a repo of its own, checked when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aimlite import Repo


@pytest.fixture(autouse=True)
def _no_helper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No merge helper starts by itself, so that a test says when a merge happens; the marker `helper` lets it."""
    if request.node.get_closest_marker("helper"):
        monkeypatch.delenv("AIMLITE_MERGE", raising=False)
    else:
        monkeypatch.setenv("AIMLITE_MERGE", "off")


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
