"""Repos as such: where they are, what can be told without making one, and reading alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aimlite import AimliteError, ReadOnlyError, Repo, RepoFormatError, RepoNotFound, RepoStatus, Run, RunNotFound, Text


def test_what_is_told_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b"
    assert (Repo.exists(path), Repo.check_repo_status(path)) == (False, RepoStatus.MISSING)
    for ask in (Repo.from_path, Repo.get_version, Repo.rm, lambda path: Repo(path, read_only=True)):
        with pytest.raises(RepoNotFound, match=str(path)):
            ask(path)
    with pytest.raises(FileNotFoundError):
        Repo.from_path(path)
    assert not path.exists()
    repo = Repo.from_path(path, init=True)
    assert repo == Repo.from_path(str(path)) == Repo.from_path(path / ".aimlite")
    assert (Repo.exists(path), Repo.check_repo_status(path), Repo.get_version(path)) == (True, RepoStatus.UPDATED, (1, 0))
    monkeypatch.chdir(path)
    monkeypatch.delenv("AIMLITE_REPO", raising=False)
    assert Repo.default_repo_path() == str(path)
    assert Repo.default_repo() == repo
    (path / ".aimlite" / "VERSION").write_text('{"format": 7}')
    assert Repo.check_repo_status(path) is RepoStatus.UPDATE_REQUIRED
    with pytest.raises(RepoFormatError, match="newer"):
        Repo(path)
    (path / ".aimlite" / "VERSION").write_text("nonsense")
    assert Repo.check_repo_status(path) is RepoStatus.UPDATED, "damaged, which check() tells"
    Repo.rm(path)
    assert not (path / ".aimlite").exists()
    with pytest.raises(RepoNotFound):
        Repo.default_repo()
    assert Repo.default_repo(init=True).list_all_runs() == []


def test_nothing_is_written_inside_a_repo_of_aim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / ".aim" / "meta"
    inside.mkdir(parents=True)
    for path in (inside, tmp_path / ".aim"):
        with pytest.raises(RepoFormatError, match="repo of Aim"):
            Run(repo=path)
    monkeypatch.chdir(inside)
    monkeypatch.delenv("AIMLITE_REPO", raising=False)
    with pytest.raises(RepoFormatError, match="repo of Aim"):
        Run()
    assert list(tmp_path.rglob("*")) == [tmp_path / ".aim", inside]


def test_a_repo_that_is_only_read(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track(1, name="m")
    with Repo(repo.path, read_only=True) as read:
        assert read.list_all_runs() == ["r"]
        metric = read.get_run("r").get_metric("m")
        run.track(2, name="m")
        assert metric.values.tolist() == [1, 2]
        for write in (
            lambda: Run(repo=read),
            lambda: Run("r", repo=read),
            lambda: read.edit_run("r"),
            read.merge,
            read.repair,
        ):
            with pytest.raises(ReadOnlyError, match="read-only"):
                write()
        assert Run("r", repo=read, read_only=True)[...] == {}
        assert read.check() == []


def test_reading_a_run_makes_no_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIMLITE_REPO", raising=False)
    for where in (tmp_path / "a", str(tmp_path / "a"), None):
        with pytest.raises(RunNotFound, match="there is no repo at"):
            Run("r", repo=where, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_active_runs(repo: Repo) -> None:
    runs = [Run(f"r{number}", repo=repo) for number in range(4)]
    runs[0].close()
    assert repo.list_active_runs() == ["r3", "r2", "r1"]
    repo.merge()
    runs[2].finish("failed")
    assert repo.list_active_runs() == ["r3", "r1"]
    assert (repo.run_exists("r0"), repo.run_exists("none")) == (True, False)


def test_types_of_sequences(repo: Repo) -> None:
    assert Repo.available_sequence_types() == ["audios", "distributions", "figures", "images", "log_records", "logs", "metric", "texts"]
    Repo.validate_sequence_types(("metric", "images"))
    with pytest.raises(ValueError, match="'foo' is not"):
        Repo.validate_sequence_types("foo")
    run = Run("r", repo=repo)
    run.track({"a": 1, "b": 0.5}, context={"s": [1]}, step=3)
    run.track(2, name="a", context={"s": [1]}, step=4)
    assert run.collect_sequence_info(("metric", "images")) == {
        "metric": [
            {
                "name": "a",
                "context": {"s": [1]},
                "values": {"dtype": "int", "first": 1, "first_step": 3, "last": 2, "last_step": 4, "min": 1, "max": 2, "count": 2},
            },
            {
                "name": "b",
                "context": {"s": [1]},
                "values": {
                    "dtype": "float",
                    "first": 0.5,
                    "first_step": 3,
                    "last": 0.5,
                    "last_step": 3,
                    "min": 0.5,
                    "max": 0.5,
                    "count": 1,
                },
            },
        ],
        "images": [],
    }
    [short, _] = run.collect_sequence_info("metric", skip_last_value=True)["metric"]
    assert short["values"].keys() == {"dtype", "first", "first_step", "min", "max", "count"}
    assert list(run.iter_metrics_info()) == [("a", {"s": [1]}, run), ("b", {"s": [1]}, run)]
    assert list(run.iter_sequence_info_by_type("metric")) == list(run.iter_metrics_info())
    assert list(run.iter_sequence_info_by_type(["texts"])) == []
    with pytest.raises(ValueError, match="'foo'"):
        run.collect_sequence_info(["metric", "foo"])
    with pytest.raises(ValueError, match="'foo'"):
        run.iter_sequence_info_by_type("foo")


def test_runs_go_on_when_their_repo_was_closed(repo_path: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    options: dict[str, Any] = {"system_tracking_interval": None, "capture_terminal_logs": False}
    with Repo(repo_path) as repo:
        old = Run("old", repo=repo, **options)
        old.track(1.0, name="loss")
        old.close()
        run = Run("r", repo=repo, **options)
        resumed, read, frozen = Run("old", repo=repo, **options), repo.get_run("old"), repo.frozen()
        before = frozen.get_run("old")
        frozen.close()
    run.set_artifacts_uri(f"file://{tmp_path}/place")
    run["a"] = {"b": 1}
    run.track(1.0, name="loss")
    run.track(Text("words"), name="text")
    run.log_artifact(tmp_path / "model.pt")
    run.log_text("a line")
    run.log_info("a message")
    run.name, run.archived = "named", True
    run.add_tag("a tag")
    run.add_note("a note")
    resumed.track(2.0, name="loss")
    assert run["a", "b"] == 1
    assert run.get_metric("loss").last == run.metrics().dataframe()["value"][0] == 1.0
    assert run.get_text_sequence("text").values.first_value().data == "words"
    assert [line.text for line in run.get_terminal_logs()] == ["a line"]
    assert [record.message for record in run.get_log_records()] == ["a message"]
    assert (run.status, run.name, run.tags, len(run.notes)) == ("running", "named", ["a tag"], 1)
    for each in (run, resumed):
        each.finish()
    assert run.status == read.status == "finished"
    assert Path(run.artifacts["model.pt"].download(tmp_path / "out")).read_bytes() == b"weights"
    assert read.get_metric("loss").values.tolist() == [1.0, 2.0]
    assert before.get_metric("loss").values.tolist() == [1.0]
    run.remove_tag("a tag")  # of a run that has ended
    assert run.tags == []
    for call in (repo.list_all_runs, lambda: repo.get_run("r"), lambda: repo.query_runs("").hashes(), frozen.total_runs_count):
        with pytest.raises(AimliteError, match="was closed"):
            call()
