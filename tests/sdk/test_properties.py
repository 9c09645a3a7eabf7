"""Properties and tags: from any process, on runs that live and runs that have ended."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from aimlite import ReadOnlyError, Repo, Run, RunClosedError, RunNotFound
from aimlite.storage.helper import run_helper


def elsewhere(repo: Repo, code: str) -> str:
    """Runs code in a process of its own, with `repo` open; what it prints."""
    script = f"import sys; from aimlite import Repo, Run; repo = Repo(sys.argv[1])\n{code}"
    done = subprocess.run([sys.executable, "-c", script, repo.path], check=True, timeout=300, capture_output=True, text=True)
    return done.stdout.strip()


def test_an_ended_run_is_edited_without_resuming_it(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track(1, name="m")
    run.finish("failed")
    before = (run.status, run.end_time, run.creation_time)
    updated = run.updated_at
    run.name, run.description, run.experiment, run.archived = "n", "d", "e", True
    run.add_tag("best")
    for _ in range(2):
        assert (run.name, run.description, run.experiment, run.archived, run.tags) == ("n", "d", "e", True, ["best"])
        assert (run.status, run.end_time, run.creation_time, run.active) == (*before, False)
        assert run.updated_at > updated
        repo.merge()
    with pytest.raises(RunClosedError):
        run["a"] = 1
    with pytest.raises(RunClosedError):
        run.track(1, name="m")


def test_an_edit_after_anothers_end_does_not_undo_it(repo: Repo) -> None:
    """The writer that edits ended the run once, too: the later end still counts, merged or not."""
    run = Run("r", repo=repo)
    run.finish("failed")
    elsewhere(repo, "Run('r', repo=repo).close()")
    end = run.end_time
    for _ in range(2):
        run.name = "edited"
        repo._writer().end_segment()
        run.add_tag(f"again{time.time_ns()}")
        assert (run.status, run.end_time) == ("finished", end)
        repo.merge()
        assert (run.status, run.end_time) == ("finished", end)


def test_edits_of_other_processes(repo: Repo) -> None:
    run = Run("r", repo=repo)
    code = "run = repo.edit_run('r'); run.name = 'theirs'; run.add_tag('b'); run.add_tag('a'); print(run.status)"
    assert elsewhere(repo, code) == "running"
    assert (run.name, run.tags, run.status) == ("theirs", ["b", "a"], "running")
    run.name = "mine"
    run.add_tag("c")
    run.remove_tag("b")
    assert elsewhere(repo, "run = repo.get_run('r'); print(run.name, run.tags)") == "mine ['a', 'c']"
    run.close()
    elsewhere(repo, "run = repo.edit_run('r'); run.tags = ['z', 'c']")
    repo.merge()
    assert (run.tags, run.status) == (["c", "z"], "finished")


def test_an_interrupted_run_stays_so_when_it_is_edited(repo: Repo) -> None:
    code = "import os, signal; run = Run('r', repo=repo); run.track(1, name='m'); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(subprocess.CalledProcessError):
        elsewhere(repo, code)
    run = repo.edit_run("r")
    end = run.end_time
    run.description = "killed"
    for _ in range(2):
        assert (run.status, run.end_time, run.description) == ("interrupted", end, "killed")
        repo.merge()
    elsewhere(repo, "repo.edit_run('r').name = 'again'")
    assert (run.status, run.name) == ("interrupted", "again")


def test_who_only_edits_takes_nothing_else(repo: Repo) -> None:
    Run("r", repo=repo).close()
    run = repo.edit_run("r")
    with pytest.raises(RunClosedError):
        run.track(1, name="m")
    with pytest.raises(RunClosedError):
        run["a"] = 1
    run.close()
    assert run.status == "finished"
    with pytest.raises(RunNotFound):
        repo.edit_run("none")
    read = repo.get_run("r")
    assert read is not None
    for edit in (
        lambda: setattr(read, "name", "x"),
        lambda: setattr(read, "archived", True),
        lambda: read.add_tag("x"),
        lambda: setattr(read, "tags", []),
    ):
        with pytest.raises(ReadOnlyError):
            edit()


def test_tags(repo: Repo) -> None:
    run = Run("r", repo=repo)
    assert run.tags == []
    for tag in ("b", "a", "b", "ünï cødé"):
        run.add_tag(tag)
    assert run.tags == ["b", "a", "ünï cødé"]
    assert (run.remove_tag("a"), run.remove_tag("a"), run.remove_tag("none")) == (True, False, False)
    run.add_tag("a")
    assert run.tags == ["b", "ünï cødé", "a"]
    run.tags = ["a", "n", "a"]
    assert run.tags == ["a", "n"]
    run.tags = []
    assert run.tags == []
    for bad, error in (("", ValueError), ("x" * 51, ValueError), (5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="tag"):
            run.add_tag(bad)
        with pytest.raises(error, match="tag"):
            run.tags = ["ok", bad]
    with pytest.raises(TypeError, match="several"):
        run.tags = "one"
    assert run.tags == []


def test_tags_in_the_index_follow(repo: Repo) -> None:
    """`check` compares the index with the tags: each merge here leaves both in step."""
    run = Run("r", repo=repo)
    for change in (["a", "b"], ["b"], ["b", "c"], []):
        run.tags = change
        repo._writer().end_segment()
        run_helper(repo._layout, "merge")
        assert repo.check() == []
        assert run.tags == change


def test_none_gives_the_default_back(repo: Repo) -> None:
    run = Run("r", repo=repo, experiment="e")
    run.name = "n"
    run.name = run.experiment = run.description = None
    assert (run.name, run.experiment, run.description) == ("Run: r", "default", None)
