"""A journal whose file is removed, renamed or replaced under its living writer: it is told, and recording goes on in a new one."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aimlite import Repo, Run
from aimlite.storage import writer as module
from aimlite.storage.writer import Writer, writer_for

LOST = (
    r"the journal .*\.journal was removed, renamed or replaced while this process wrote to it: what was recorded there since 20.* is lost"
)


def present(repo: Repo) -> Path:
    journal = writer_for(repo._layout).journal
    return repo._layout.journal(journal.writer, journal.segment)


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    os.replace(copy, path)


REMOVALS: list[Callable[[Path], None]] = [Path.unlink, replace, lambda path: path.rename(path.with_suffix(".away"))]


@pytest.fixture(params=REMOVALS, ids=["removed", "replaced", "renamed"])
def removed(request: pytest.FixtureRequest, repo: Repo) -> Iterator[Run]:
    """A run with a point, whose journal was then removed; and a second run open beside it."""
    beside = Run("beside", repo=repo)
    run = Run("r", repo=repo)
    run.track(1.0, name="m")
    request.param(present(repo))
    beside.track(1.0, name="before")
    yield run
    for path in repo._layout.journals.glob("*.away"):
        path.unlink()


def values(repo: Repo, name: str = "m") -> list[float]:
    found = repo.get_run("r")
    metric = None if found is None else found.get_metric(name)
    return [] if metric is None else metric.values.tolist()


def test_sync_tells_and_the_next_call_begins_a_new_journal(repo: Repo, removed: Run) -> None:
    with pytest.raises(OSError, match=LOST):
        removed.sync()
    removed.sync()  # nothing was recorded since
    removed.track(2.0, name="m")
    removed["p"] = 5
    removed.sync()
    assert values(repo)[-1:] == [2.0]
    assert repo.get_run("r")["p"] == 5
    assert repo.get_run("r").status == "running"
    assert repo.get_run("beside").status == "running"
    removed.close()
    assert repo.get_run("r").status == "finished"


def test_opening_a_run_tells(repo: Repo, removed: Run) -> None:
    with pytest.warns(RuntimeWarning, match=LOST):
        Run("another", repo=repo).close()
    removed.track(2.0, name="m")
    assert values(repo)[-1:] == [2.0]
    assert {"another", "r"} <= set(repo.list_all_runs())
    removed.close()


def test_editing_a_run_tells(repo: Repo, removed: Run) -> None:
    with pytest.warns(RuntimeWarning, match=LOST):
        writer_for(repo._layout).edit_run("another", 0, 1, [])
    removed.close()


def test_ending_a_run_tells_and_its_end_is_kept(repo: Repo, removed: Run) -> None:
    with pytest.warns(RuntimeWarning, match=LOST):
        removed.close()
    assert repo.get_run("r").status == "finished"
    assert repo.get_run("beside").status == "running"


@pytest.mark.parametrize("task", ["_rotate", "beat"])
def test_rotation_and_a_heartbeat_tell(repo: Repo, removed: Run, task: str) -> None:
    with pytest.warns(RuntimeWarning, match=LOST):
        getattr(writer_for(repo._layout), task)()
    removed.track(2.0, name="m")
    assert values(repo)[-1:] == [2.0]
    removed.close()


def test_syncing_at_an_interval_tells(repo: Repo, removed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told, messages = threading.Event(), []

    def warn(message: str, stacklevel: int = 1) -> None:
        messages.append(message)
        told.set()

    monkeypatch.setattr(module, "warn", warn)
    writer_for(repo._layout).sync_every(0.01)
    assert told.wait(30)
    assert "is lost" in messages[0]
    removed.track(2.0, name="m")
    assert values(repo)[-1:] == [2.0]
    removed.close()


def test_tracking_costs_nothing_for_it(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run("r", repo=repo) as run:
        run.track(1.0, name="m")
        asked: list[object] = []
        monkeypatch.setattr(Writer, "_is_orphaned", lambda self: asked.append(self))
        for _ in range(100):
            run.track(1.0, name="m")
        assert asked == []
        monkeypatch.undo()


def test_a_repo_that_was_removed(repo_path: str) -> None:
    """What is recorded after it was told lies in one that is made anew; the end of the process makes none."""
    run = Run("r", repo=repo_path)
    run.track(1.0, name="m")
    shutil.rmtree(repo_path)
    with pytest.raises(OSError, match=LOST):
        run.sync()
    run.track(2.0, name="m")
    run.close()
    with Repo(repo_path) as repo:
        assert values(repo) == [2.0]
        assert repo.check() == []
    run = Run("s", repo=repo_path)
    shutil.rmtree(repo_path)
    with pytest.warns(RuntimeWarning, match=LOST):
        writer_for(run.repo._layout).close()  # as at the end of the process
    assert not Path(repo_path).exists()
