"""What readers that were killed leave in the temporary directory goes with the next reader; that of living ones stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from aimlite import Repo, Run
from aimlite.storage.layout import Layout
from aimlite.storage.scratch import scratch_directory
from aimlite.storage.view import Reader


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of the test's own, for its children too."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def merged(repo: Repo) -> Repo:
    with Run("r", repo=repo) as run:
        run["p"] = 1
    repo.merge()
    return repo


def left(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.name.startswith("aimlite-reader-")]


def killed_child(script: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *arguments], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL


KILLED_WHILE_IT_OPENS = """
    import os, signal, sys
    from aimlite import Repo
    from aimlite.storage import tree
    opened, tree.Rdict = tree.Rdict, lambda *arguments, **named: (opened(*arguments, **named), os.kill(os.getpid(), signal.SIGKILL))
    Repo(sys.argv[1]).list_all_runs()
"""

KILLED_WHEN_IT_HAS_CAUGHT_UP = """
    import os, signal, sys
    from aimlite import Repo, Run
    repo = Repo(sys.argv[1])
    before = repo.get_run("r")["p"]
    tree = repo._reader._handle.tree
    with Run("r", repo=repo) as run:
        run["p"] = before + 1
    repo.merge()
    if sys.argv[2] == "while":
        tree._db = type("Killed", (), {"try_catch_up_with_primary": lambda self: os.kill(os.getpid(), signal.SIGKILL)})()
    assert repo.get_run("r")["p"] == before + 1
    assert repo._reader._handle.tree is tree
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_reader_leaves_goes_with_the_next(merged: Repo, repo_path: str, place: Path) -> None:
    for k in range(2):
        killed_child(KILLED_WHILE_IT_OPENS, repo_path)
        assert len(left(place)) == k + 1
    assert Reader(Layout(Path(merged.path))).view().run_count() == 1
    assert left(place) == []
    killed_child(KILLED_WHEN_IT_HAS_CAUGHT_UP, repo_path, "while")
    assert len(left(place)) == 1
    killed_child(KILLED_WHEN_IT_HAS_CAUGHT_UP, repo_path, "after")
    assert left(place) == []


def test_a_reader_catches_up_when_its_directory_cannot_be_made_again(merged: Repo, place: Path) -> None:
    """Where somebody took its name it opens anew; a temporary directory that was emptied is no hindrance."""
    reader = Reader(Layout(Path(merged.path)))
    for k in range(2):
        reader.view()
        handle = reader._handle
        assert handle is not None
        scratch = handle.tree._scratch
        with Run(f"next{k}", repo=merged):
            pass
        merged.merge()
        if k == 0:
            scratch.mkdir()
        else:
            shutil.rmtree(place)
            place.mkdir()
        assert reader.view().run_count() == 2 + k
        assert (reader._handle is handle) == (k == 1)
    assert left(place) == []


def test_that_of_a_living_process_stays(place: Path) -> None:
    with scratch_directory() as mine:
        script = "from aimlite.storage.scratch import scratch_directory\nwith scratch_directory() as other: print(other)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
        assert Path(done.stdout.strip()).parent == mine.parent
        assert left(place) == [mine]
    assert left(place) == []


def test_a_child_forked_meanwhile_does_not_keep_what_others_leave(place: Path) -> None:
    with scratch_directory() as mine:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        (mine.parent / "aimlite-reader-of-a-dead-process").mkdir()
        with scratch_directory():
            pass
        assert left(place) == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_place_that_is_not_ours_is_not_used(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / f"aimlite-readers-{os.getuid()}").symlink_to(elsewhere)
    (elsewhere / "aimlite-reader-of-somebody").mkdir()
    with scratch_directory() as mine:
        assert mine.parent == place
    assert left(place) == [elsewhere / "aimlite-reader-of-somebody"]
