"""Finding runs by the beginning of their hashes, a repo at one moment, and what it counts."""

from __future__ import annotations

import pytest

from aimlite import Repo, Run
from aimlite.storage.tree import TreeReader
from aimlite.storage.view import View


@pytest.mark.parametrize("merged", ["none", "some", "all"])
def test_match_hashes(repo: Repo, merged: str) -> None:
    for number, run_hash in enumerate(["ab", "abc", "abd", "b", "abc-1"]):
        Run(run_hash, repo=repo).close()
        if merged == "some" and number == 2:
            repo.merge()
    if merged == "all":
        repo.merge()
    assert repo.match_hashes("") == ["ab", "abc", "abc-1", "abd", "b"]
    assert repo.match_hashes("a") == ["ab", "abc", "abc-1", "abd"]
    assert repo.match_hashes("a", limit=2) == ["ab", "abc"]
    assert repo.match_hashes("abc") == ["abc"]
    assert repo.match_hashes("abc-") == ["abc-1"]
    assert repo.match_hashes("abc-12") == repo.match_hashes("c") == repo.match_hashes("ä") == repo.match_hashes("\udc80") == []
    assert repo.match_hashes("a\0") == []


def test_match_hashes_reads_no_more_than_it_gives(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        Run(f"a{number:02}", repo=repo).close()
    repo.merge()
    taken = []
    whole = TreeReader.scan

    def scan(tree: TreeReader, *arguments: object) -> object:
        for entry in whole(tree, *arguments):
            taken.append(entry)
            yield entry

    monkeypatch.setattr(TreeReader, "scan", scan)
    assert repo.match_hashes("a", 3) == ["a00", "a01", "a02"]
    assert len(taken) <= 3


def test_match_hashes_refuses(repo: Repo) -> None:
    with pytest.raises(TypeError, match="prefix"):
        repo.match_hashes(5)  # type: ignore[arg-type]
    for limit in (0, True, 1.5):
        with pytest.raises(ValueError, match="limit"):
            repo.match_hashes("a", limit)  # type: ignore[arg-type]


def test_a_frozen_repo_stays_as_it_was(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track(1, name="m")
    frozen = repo.frozen()
    run.track(2, name="m")
    run.finish("failed")
    Run("later", repo=repo).close()
    repo.merge()
    then, now = frozen.get_run("r"), repo.get_run("r")
    assert then is not None
    assert now is not None
    assert (then.status, now.status) == ("running", "failed")
    assert [metric.count for metric in then.metrics()] == [1]
    assert [metric.count for metric in now.metrics()] == [2]
    assert (frozen.list_all_runs(), repo.list_all_runs()) == (["r"], ["later", "r"])
    assert frozen.frozen().list_all_runs() == ["r"]


def test_stats_are_the_same_before_and_after_a_merge(repo: Repo) -> None:
    assert repo.stats() == {
        "runs": 0,
        "status": {"running": 0, "finished": 0, "failed": 0, "interrupted": 0},
        "trash": 0,
        "sequences": 0,
        "points": 0,
        "bytes": {"journals": 0, "tree": 0, "blobs": 0, "total": 0},
        "bytes_per_point": None,
        "journals": {"held": 0, "waiting": 0},
        "levels": [],
        "generation": 0,
    }
    for status in ("finished", "failed", "failed"):
        run = Run(repo=repo)
        run.track({"a": 1, "b": 2})
        run["blob"] = "x" * (2 << 20)
        run.finish(status)
    before = repo.stats()
    assert before["status"] == {"running": 0, "finished": 1, "failed": 2, "interrupted": 0}
    assert (before["runs"], before["sequences"], before["points"]) == (3, 6, 6)
    assert before["journals"] == {"held": 1, "waiting": 0}
    assert before["bytes"]["blobs"] > 2 << 20
    assert before["bytes"]["journals"] > before["bytes"]["tree"] == 0
    repo.merge()
    after = repo.stats()
    counted = ("runs", "status", "sequences", "points")
    assert {name: after[name] for name in counted} == {name: before[name] for name in counted}
    assert (after["journals"], after["generation"]) == ({"held": 0, "waiting": 0}, 1)
    [level] = after["levels"]
    assert (level["level"], level["files"]) == (0, 1)
    assert 0 < level["bytes"] <= after["bytes"]["tree"]
    assert after["bytes_per_point"] == level["bytes"] / 6
    assert after["bytes"]["total"] == sum(after["bytes"][part] for part in ("journals", "tree", "blobs"))


def test_stats_count_what_lies_in_journal_and_tree_once(repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        run.track({"a": 1, "b": 2}, step=0)
    repo.merge()
    run = Run("r", repo=repo)
    run.track({"a": 3, "c": 4}, step=0)
    run.track({"a": 3}, step=1)
    counted = repo.stats()
    assert (counted["runs"], counted["sequences"], counted["points"]) == (1, 3, 4)
    assert counted["status"]["running"] == 1
    run.close()


@pytest.mark.parametrize("merged", [False, True])
def test_the_properties_of_a_run_are_looked_up_once(repo: Repo, monkeypatch: pytest.MonkeyPatch, merged: bool) -> None:
    for run_hash in ("one", "two"):
        with Run(run_hash, repo=repo, experiment=f"e {run_hash}") as run:
            run.name = f"n {run_hash}"
    if merged:
        repo.merge()
    looked = []
    for method in ("_derive_state", "stamped_properties"):
        whole = getattr(View, method)
        monkeypatch.setattr(View, method, lambda view, run_hash, whole=whole: (looked.append(run_hash), whole(view, run_hash))[1])
    asked = []
    for method in ("get", "scan", "scan_keys"):
        whole = getattr(TreeReader, method)
        monkeypatch.setattr(
            TreeReader, method, lambda tree, *given, whole=whole, **options: (asked.append(given), whole(tree, *given, **options))[1]
        )
    frozen = repo.frozen()
    told = [(run.name, run.experiment, run.archived, run.status, run.end_time == run.creation_time) for run in frozen.iter_runs()]
    assert told == [(f"n {run_hash}", f"e {run_hash}", False, "finished", False) for run_hash in ("two", "one")]
    assert looked == ["two", "two", "one", "one"]
    assert len(asked) <= 4 * len(told) + 3  # of a run its entry (twice), writers, properties; once the list and whether there is a trash
    view = frozen._view()
    view.properties("one").clear()  # the caller's own
    assert view.properties("one")["name"] == "n one"
