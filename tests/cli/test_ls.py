from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import pytest
from click.testing import Result

from aimlite import Repo, Run
from aimlite.storage.view import View

Command = Callable[..., Result]


@pytest.fixture
def runs(repo: Repo) -> list[str]:
    """Three runs, oldest first, and one that is archived."""
    for number, (name, experiment, status) in enumerate([("b", "one", "finished"), ("C", "two", "failed"), ("a", "two", "interrupted")]):
        run = Run(f"run{number}", repo=repo, experiment=experiment)
        run.name = name
        for metric in range(number):
            run.track(1, name=f"m{metric}")
        run.finish(status)
    with Run("old", repo=repo) as run:
        run.archived = True
    return ["run0", "run1", "run2"]


def hashes(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "run2 run1 run0"),
        (["--reverse"], "run0 run1 run2"),
        (["--limit", "2"], "run2 run1"),
        (["--limit", "2", "--reverse"], "run0 run1"),
        (["--archived"], "old run2 run1 run0"),
        (["--sort", "name"], "run2 run0 run1"),
        (["--sort", "name", "--reverse", "--limit", "1"], "run1"),
        (["--sort", "metrics"], "run0 run1 run2"),
        (["--sort", "experiment"], "run0 run2 run1"),
        (["--status", "failed"], "run1"),
        (["--status", "failed", "--status", "interrupted"], "run2 run1"),
        (["--experiment", "two"], "run2 run1"),
        (["--experiment", "two", "--status", "finished"], ""),
        (["--experiment", "one", "--experiment", "two", "--limit", "1", "--sort", "created"], "run2"),
    ],
    ids=" ".join,
)
def test_order_and_choice(aimlite: Command, repo: Repo, runs: list[str], arguments: list[str], expected: str, merged: bool) -> None:
    if merged:
        repo.merge()
    assert hashes(aimlite("ls", *arguments)) == expected.split()
    documents = json.loads(aimlite("ls", *arguments, "--json").stdout)
    assert [document["hash"] for document in documents] == expected.split()


def test_lines_and_documents_say_the_same(aimlite: Command, repo: Repo, runs: list[str]) -> None:
    cells = aimlite("ls", "--limit", "1").stdout.rstrip("\n").split("\t")
    [document] = json.loads(aimlite("ls", "--limit", "1", "--json").stdout)
    run = repo.get_run("run2")
    assert run is not None
    assert cells[:4] == ["run2", "a", "two", "interrupted"]
    assert cells[4] == document["created_at"]
    assert datetime.fromisoformat(cells[4]).timestamp() == document["creation_time"] == run.creation_time
    assert float(cells[5]) == document["duration"] == round(run.duration, 6)
    assert int(cells[7]) == document["metric_count"] == 2


def test_tags(aimlite: Command, repo: Repo) -> None:
    for run_hash, tags in (("one", ["a"]), ("two", ["b", "a"]), ("none", [])):
        with Run(run_hash, repo=repo) as run:
            run.tags = tags
    assert hashes(aimlite("ls", "--tag", "a")) == ["two", "one"]
    assert hashes(aimlite("ls", "--tag", "a", "--tag", "b")) == ["two"]
    assert aimlite("ls", "--tag", "b").stdout.split("\t")[6] == "b,a"
    assert json.loads(aimlite("ls", "--tag", "b", "--json").stdout)[0]["tags"] == ["b", "a"]
    assert hashes(aimlite("ls", "--sort", "tags")) == ["none", "one", "two"]


def test_a_running_run_has_no_end(aimlite: Command, repo: Repo) -> None:
    with Run("now", repo=repo):
        [document] = json.loads(aimlite("ls", "--json").stdout)
    assert (document["status"], document["finalized_at"], document["end_time"]) == ("running", None, None)


def test_no_more_runs_are_read_than_are_shown(aimlite: Command, repo: Repo, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    repo.merge()
    looked_at = set()
    whole = View.properties

    def properties(view: View, run_hash: str) -> dict[str, object]:
        looked_at.add(run_hash)
        return whole(view, run_hash)

    monkeypatch.setattr(View, "properties", properties)
    assert hashes(aimlite("ls", "--limit", "1")) == ["run2"]
    assert looked_at == {"old", "run2"}


def test_an_empty_repo_has_no_lines(aimlite: Command, repo: Repo) -> None:
    assert (aimlite("ls").exit_code, aimlite("ls").output) == (0, "")
    assert json.loads(aimlite("ls", "--json").stdout) == []


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_the_terminal(terminal: Callable[..., str], repo: Repo, repo_path: str, columns: int) -> None:
    from rich.cells import cell_len

    for number in range(3):
        with Run(repo=repo, experiment="an experiment of a rather long name") as run:
            run.name = f"{number} 日本語の名前がとても長い実験 " * 3
    lines = terminal(columns, "ls", "--repo", repo_path).splitlines()
    assert max(map(cell_len, lines)) <= columns
    head, rows = lines[0].split(), lines[2:]
    assert {"hash", "name", "status"} <= set(head)
    assert ("tags" in head, "metrics" in head) == (columns == 200, columns >= 80)
    assert [row[:12] for row in rows] == [run_hash[:12] for run_hash in repo.list_all_runs()]
    assert all("finished" in row and ("…" in row or columns == 200) for row in rows)


def test_a_short_hash_is_as_long_as_it_takes_to_tell_it(terminal: Callable[..., str], repo: Repo, repo_path: str) -> None:
    for run_hash in ("a-long-hash-of-1", "a-long-hash-of-2", "another-run-of-mine", "b"):
        Run(run_hash, repo=repo).close()
    shown = [line.split()[0] for line in terminal(80, "ls", "--repo", repo_path, "--sort", "hash").splitlines()[2:]]
    assert shown == ["a-long-hash-of-1", "a-long-hash-of-2", "another-run-", "b"]


def test_a_terminal_is_told_that_there_is_nothing(terminal: Callable[..., str], repo: Repo, repo_path: str) -> None:
    assert terminal(200, "ls", "--repo", repo_path) == f"no runs in {repo.path}\n"
    assert terminal(200, "ls", "--repo", repo_path, "--status", "failed") == f"no runs like that in {repo.path}\n"


def test_stalled(aimlite: Command, repo: Repo, runs: list[str]) -> None:
    with Run("slow", repo=repo) as slow, Run("quick", repo=repo):
        slow.report_progress(expect_next_in=1e-6)
        assert hashes(aimlite("ls", "--stalled")) == ["slow"]
        assert [row["stalled"] for row in json.loads(aimlite("ls", "--status", "running", "--json").stdout)] == [False, True]
    assert hashes(aimlite("ls", "--stalled")) == []
