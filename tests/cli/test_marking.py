from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from aimlite import Repo, Run

Command = Callable[..., Result]


@pytest.fixture
def runs(repo: Repo) -> None:
    for name in ("one", "two"):
        Run(name, repo=repo).close()


def test_tags(aimlite: Command, repo: Repo, runs: None) -> None:
    assert aimlite("tag", "add", "t", "one", "tw").exit_code == 0
    assert aimlite("tag", "set", "t", "--color", "red", "--comment", "hot").exit_code == 0
    assert aimlite("tag", "ls").stdout == "t\tred\thot\t2\n"
    assert json.loads(aimlite("tag", "ls", "--json").stdout) == [{"name": "t", "color": "red", "comment": "hot", "runs": 2}]
    assert aimlite("tag", "remove", "t", "two").exit_code == 0
    assert aimlite("tag", "rename", "t", "u").stdout == "renamed on 1 run\n"
    assert [run.tags for run in repo.iter_runs()] == [[], ["u"]]
    assert aimlite("tag", "delete", "u").exit_code == 2  # there is nobody to ask
    assert aimlite("tag", "delete", "u", "--yes").stdout == "taken from 1 run\n"
    assert aimlite("tag", "ls").stdout == ""


def test_notes(aimlite: Command, repo: Repo, runs: None) -> None:
    first = aimlite("note", "add", "--run", "one", "# so").stdout.strip()
    aimlite("note", "add", "--run", "one", "-", input="read\n")
    assert aimlite("note", "edit", first, "# thus", "--run", "one").exit_code == 0
    assert aimlite("note", "ls", "--run", "one").stdout.splitlines()[0].split("\t")[2] == "# thus"
    assert json.loads(aimlite("show", "one", "--json").stdout)["notes"] == ["# thus", "read\n"]
    assert aimlite("note", "delete", first, "--run", "one").exit_code == 0
    history = json.loads(aimlite("note", "ls", "--history", "--run", "one", "--json").stdout)
    assert [change["action"] for change in history] == ["added", "added", "edited", "deleted"]
    assert aimlite("note", "ls", "--history", "--run", "one").stdout.count("\n") >= 4
    assert aimlite("note", "add", "of all", "--experiment", "e").exit_code == 0
    [note] = json.loads(aimlite("note", "ls", "--experiment", "e", "--json").stdout)
    assert (note["text"], note["created_at"]) == ("of all", note["updated_at"])


def test_archiving(aimlite: Command, repo: Repo, runs: None) -> None:
    assert aimlite("archive", "one", "two").exit_code == 0
    assert aimlite("ls").stdout == ""
    assert aimlite("archive", "two", "--undo").exit_code == 0
    assert [run.hash for run in repo.iter_runs() if not run.archived] == ["two"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tag", "add", "t", "nobody"], 3, "no run"),
        (["tag", "rename", "t", "u"], 3, "no tag 't'"),
        (["tag", "delete", "t", "--yes"], 3, "no tag 't'"),
        (["tag", "set", "t"], 2, "--color"),
        (["tag", "set", "t", "--comment", "x" * 201], 2, "at most 200"),
        (["note", "ls"], 2, "either --run"),
        (["note", "add", "x", "--run", "one", "--experiment", "e"], 2, "either --run"),
        (["note", "add", "", "--run", "one"], 2, "1 to 100,000"),
        (["note", "edit", "n", "x", "--run", "one"], 3, "no note 'n'"),
        (["archive", "nobody"], 3, "no run"),
        (["archive"], 2, "HASH"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said(aimlite: Command, runs: None, arguments: list[str], code: int, message: str) -> None:
    result = aimlite(*arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
