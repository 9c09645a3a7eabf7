from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]


@pytest.fixture
def runs(repo: Repo) -> Repo:
    for run_hash in ("alpha", "alpine", "beta"):
        Run(run_hash, repo=repo).close()
    return repo


def test_runs_go_into_the_trash_and_come_out_again(aimlite: Command, runs: Repo) -> None:
    assert aimlite("rm", "alph", "beta", "--yes").stdout == ("put 2 runs (alpha, beta) into the trash; 'aimlite restore' takes runs out\n")
    assert [line.split("\t")[0] for line in aimlite("ls").stdout.splitlines()] == ["alpine"]
    assert [line.split("\t")[0] for line in aimlite("ls", "--trash").stdout.splitlines()] == ["beta", "alpha"]
    listed = json.loads(aimlite("ls", "--trash", "--json", "--limit", "1", "--reverse").stdout)
    assert [sorted(row) for row in listed] == [["created_at", "experiment", "hash", "name", "trashed_at"]]
    assert listed[0]["hash"] == "alpha"
    assert json.loads(aimlite("restore", "a", "--json").stdout) == {"restored": ["alpha"]}
    assert json.loads(aimlite("purge", "--yes", "--json").stdout) == {"deleted": ["beta"]}
    assert runs.list_all_runs() == ["alpine", "alpha"]


def test_deleting_for_good(aimlite: Command, runs: Repo) -> None:
    assert aimlite("rm", "beta", "--yes", "--json").exit_code == 0
    assert json.loads(aimlite("rm", "b", "alpi", "--permanent", "--yes", "--json").stdout) == {"deleted": ["beta", "alpine"]}
    assert runs.trash() == []
    assert aimlite("rm", "alpha", "--yes").exit_code == 0
    assert aimlite("purge", "--older-than", "1", "--yes").stdout == "there was nothing to delete\n"
    assert aimlite("purge", "alp", "--yes").stdout == "deleted run alpha\n"
    assert aimlite("prune").stdout.startswith("removed 0 files; the repo is ")
    assert sorted(json.loads(aimlite("prune", "--json").stdout)) == ["blobs", "freed_bytes", "references"]


def test_it_asks_once(terminal: Callable[..., str], runs: Repo) -> None:
    root = runs.path
    assert "Put run beta into the trash? [y/N]" in terminal(80, "rm", "beta", "--repo", root, keys="n\n")
    assert runs.run_exists("beta")
    terminal(80, "rm", "beta", "--repo", root, keys="y\n")
    assert not runs.run_exists("beta")
    assert "in the trash since" in terminal(120, "ls", "--trash", "--repo", root)
    assert "deleted run beta" in terminal(80, "purge", "--repo", root, keys="y\n")
    assert runs.trash() == []
    assert "is empty" in terminal(200, "ls", "--trash", "--repo", root)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rm", "beta"], 2, "pass --yes"),
        (["rm", "nobody", "--yes"], 3, "begins with 'nobody'"),
        (["rm", "nobody", "--permanent", "--yes"], 3, "begins with 'nobody'"),
        (["rm", "al", "--yes"], 2, "several runs"),
        (["rm", "live", "--yes"], 1, "a process is writing"),
        (["restore", "beta"], 3, "in the trash"),
        (["purge", "beta", "--yes"], 3, "in the trash"),
        (["purge", "beta", "--older-than", "2", "--yes"], 2, "exclude each other"),
        (["ls", "--trash", "--archived"], 2, "alone"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_cannot_be_done_is_said(aimlite: Command, runs: Repo, arguments: list[str], code: int, message: str) -> None:
    with Run("live", repo=runs):
        done = aimlite(*arguments)
        assert (done.exit_code, message in done.stderr) == (code, True)
        assert runs.total_runs_count() == 4
