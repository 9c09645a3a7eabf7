from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aimlite
from aimlite import FluentRun, Repo

Init = Callable[..., FluentRun]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from aimlite.fluent import enabling

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIMLITE_ENABLED", raising=False)
    yield
    enabling._enabled = None
    active = aimlite.get_active_run()
    if active is not None:
        active.finish()


@pytest.fixture
def init(repo: Repo) -> Init:
    """`aimlite.init` on the test's repo."""
    return lambda *args, **settings: aimlite.init(*args, **{"storage": repo, **settings})  # type: ignore[return-value]


@pytest.fixture
def warned() -> Callable[[Callable[[], Any]], list[str]]:
    def run(work: Callable[[], Any]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
        return [str(each.message) for each in caught]

    return run
