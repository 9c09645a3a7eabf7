"""Notes, tags and experiments: from any process, on runs that live and runs that have ended, merged and not."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite import ReadOnlyError, Repo, Run, Tag

TEXT = st.characters(codec="utf-8")


def elsewhere(repo: Repo, code: str) -> str:
    script = f"import sys; from aimlite import Repo, Run; repo = Repo(sys.argv[1])\n{code}"
    done = subprocess.run([sys.executable, "-c", script, repo.path], check=True, timeout=300, capture_output=True, text=True)
    return done.stdout.strip()


def texts(subject: Any) -> list[str]:
    return [note.text for note in subject.notes]


@pytest.mark.parametrize("of", ["a live run", "an ended run", "an experiment"])
def test_notes_are_added_edited_and_deleted(repo: Repo, of: str) -> None:
    run = Run("r", repo=repo)
    subject = repo.experiment("r") if of == "an experiment" else run
    if of == "an ended run":
        run.finish("failed")
    before = datetime.now(timezone.utc).replace(tzinfo=None)
    first, second = subject.add_note("# one"), subject.add_note("two")
    assert (first.text, texts(subject)) == ("# one", ["# one", "two"])
    assert before <= first.created_at == first.updated_at <= second.created_at
    edited = subject.edit_note(first.id, "# uno")
    assert (edited.id, edited.created_at) == (first.id, first.created_at)
    assert edited.updated_at > edited.created_at
    subject.delete_note(second.id)
    for _ in range(2):
        assert subject.notes == [edited]
        history = subject.note_history()
        assert [(change.action, change.id, change.text) for change in history] == [
            ("added", first.id, "# one"),
            ("added", second.id, "two"),
            ("edited", first.id, "# uno"),
            ("deleted", second.id, None),
        ]
        assert [change.time for change in history] == sorted(change.time for change in history)
        assert [change.action for change in subject.note_history(second.id)] == ["added", "deleted"]
        repo.merge()
    with pytest.raises(KeyError, match="no note"):
        subject.edit_note(second.id, "again")
    with pytest.raises(KeyError, match="no note"):
        subject.delete_note("nothing")
    if of != "a live run":
        assert run.status == ("failed" if of == "an ended run" else "running")
    run.close()


def test_notes_of_several_processes(repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        first = run.add_note("mine")
        elsewhere(repo, f"run = repo.edit_run('r'); run.add_note('theirs'); run.edit_note({first.id!r}, 'ours')")
        assert texts(run) == ["ours", "theirs"]
        assert elsewhere(repo, "print(len(repo.get_run('r').notes), repo.list_all_runs())") == "2 ['r']"


@pytest.mark.parametrize(
    ("text", "error"), [("", ValueError), ("x" * 100_001, ValueError), (5, TypeError), (None, TypeError), ("\ud800", ValueError)]
)
def test_a_note_is_text(repo: Repo, text: Any, error: type[Exception]) -> None:
    with Run(repo=repo) as run, pytest.raises(error):
        run.add_note(text)
    assert run.notes == []


def test_a_reader_adds_no_notes(repo: Repo) -> None:
    Run("r", repo=repo).close()
    with pytest.raises(ReadOnlyError):
        repo.get_run("r").add_note("x")
    with pytest.raises(ReadOnlyError):
        Repo(repo.path, read_only=True).experiment("e").add_note("x")


@pytest.mark.parametrize("merged", [False, True])
def test_notes_are_found_by_queries(repo: Repo, merged: bool) -> None:
    for name in ("a", "b"):
        with Run(name, repo=repo) as run:
            note = run.add_note(f"good {name}")
    run.edit_note(note.id, "bad")
    if merged:
        repo.merge()
    assert [each.run.hash for each in repo.query_runs("any('good' in note for note in run.notes)")] == ["a"]
    assert [each.run.hash for each in repo.query_runs("len(run.notes) == 1 and run.notes[0] == 'bad'")] == ["b"]


@pytest.mark.parametrize("merged", [False, True])
def test_tags_of_the_repo(repo: Repo, merged: bool) -> None:
    for name, tags in (("one", ["a", "b"]), ("two", ["b"]), ("three", [])):
        with Run(name, repo=repo) as run:
            run.tags = tags
    repo.set_tag("b", color="#f00", comment="bad")
    repo.set_tag("unused", comment="for later")
    repo.set_tag("b", color="red")
    if merged:
        repo.merge()
    assert repo.tags() == [Tag("a", None, None, 1), Tag("b", "red", "bad", 2), Tag("unused", None, "for later", 0)]
    assert repo.rename_tag("b", "c") == 2
    assert repo.rename_tag("nothing", "c") == 0
    assert repo.get_run("one").tags == ["a", "c"]
    assert repo.tags()[1] == Tag("c", "red", "bad", 2)
    assert repo.rename_tag("a", "c") == 1  # both at once: it keeps one
    assert (repo.get_run("one").tags, repo.tags()[0].runs) == (["c"], 2)
    assert repo.delete_tag("c") == 2
    repo.set_tag("unused", comment="")
    assert repo.tags() == []
    assert [run.status for run in repo.iter_runs()] == ["finished"] * 3


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("", {"color": "red"}, ValueError),
        ("x" * 51, {"color": "red"}, ValueError),
        ("x", {"color": "r" * 51}, ValueError),
        ("x", {"comment": "r" * 201}, ValueError),
        ("x", {"comment": 5}, TypeError),
        (5, {}, TypeError),
    ],
)
def test_tags_have_their_limits(repo: Repo, name: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        repo.set_tag(name, **options)
    assert repo.tags() == []


def test_experiments_of_the_repo(repo: Repo) -> None:
    long = "a long name " * 40
    for experiment in ("x", "x", long):
        Run(repo=repo, experiment=experiment).close()
    repo.experiment("planned").description = "soon"
    repo.experiment("y:x").add_note("of another")
    for _ in range(2):
        assert [(each.name, each.runs, each.description) for each in repo.experiments()] == [
            (long, 1, None),
            ("planned", 0, "soon"),
            ("x", 2, None),
            ("y:x", 0, None),
        ]
        assert repo.experiment("x").notes == []
        repo.merge()


def test_what_the_repo_knows_besides_is_no_run(repo: Repo) -> None:
    repo.set_tag("t", color="red")
    for _ in range(2):
        assert (repo.list_all_runs(), repo.total_runs_count(), repo.match_hashes(""), list(repo.query_runs(""))) == ([], 0, [], [])
        assert (repo.get_run(".catalog"), repo.stats()["runs"], repo.list_corrupted_runs()) == (None, 0, [])
        repo.merge()
    Run("r", repo=repo).close()
    repo.merge()
    assert (repo.list_all_runs(), repo.total_runs_count()) == (["r"], 1)
    repo.repair()
    assert (repo.list_all_runs(), repo.total_runs_count(), repo.tags()[0].color) == (["r"], 1, "red")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "edit", "delete"]), st.integers(0, 3), st.text(st.characters(codec="utf-8"), min_size=1)),
        max_size=8,
    )
)
def test_notes_are_what_a_list_of_them_would_be(repo: Repo, changes: list[tuple[str, int, str]]) -> None:
    with Run(repo=repo) as run:
        model: list[list[str]] = []
        for kind, place, text in changes:
            if kind == "add":
                model.append([run.add_note(text).id, text])
            elif place < len(model):
                if kind == "edit":
                    run.edit_note(model[place][0], text)
                    model[place][1] = text
                else:
                    run.delete_note(model.pop(place)[0])
            assert [[note.id, note.text] for note in run.notes] == model
