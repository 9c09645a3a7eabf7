"""Safe mode: every failure of ours is one warning, and the script goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aimlite
from aimlite import Repo, Run


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    aimlite.set_safe_mode(False)


def warned(work: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = work()
    return answer, [f"{each.category.__name__}: {each.message}" for each in caught]


FAILURES: list[Callable[[Run], Any]] = [
    lambda run: run.track("no number", name="x"),
    lambda run: run.track(1),
    lambda run: run.track_columns("x", [1, "a"]),
    lambda run: run.sequence(""),
    lambda run: run.sequence("x").track("no number"),
    lambda run: run.__setitem__("x", object()),
    lambda run: run.set("x", object()),
    lambda run: run.update(x=object()),
    lambda run: run.__delitem__("nothing"),
    lambda run: run.pop("nothing"),
    lambda run: run.params.update(x=object()),
    lambda run: run.params.__setitem__(1.5, 1),
    lambda run: setattr(run, "name", 5),
    lambda run: setattr(run, "tags", "one"),
    lambda run: setattr(run, "archived", 1),
    lambda run: run.add_tag(""),
    lambda run: run.add_note(""),
    lambda run: run.edit_note("nothing", "x"),
    lambda run: run.report_progress(expect_next_in=-1),
    lambda run: run.finish("perhaps"),
]


@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_what_fails_is_one_warning(repo: Repo, number: int) -> None:
    fail = FAILURES[number]
    with Run(repo=repo, safe_mode=True) as run:
        run.track(1.0, name="loss")
        _, messages = warned(lambda: fail(run))
        assert len(messages) == 1
        assert messages[0].startswith("RuntimeWarning: run.")
        run.track(2.0, name="loss")
        assert run.status == "running"
    assert (run.status, run.get_metric("loss").values.tolist()) == ("finished", [1.0, 2.0])
    with Run(repo=repo) as strict, pytest.raises((TypeError, ValueError, KeyError)):
        fail(strict)


def test_a_write_after_the_end_is_one_warning(repo: Repo) -> None:
    run = Run(repo=repo, safe_mode=True)
    run.close()
    for write in (lambda: run.track(1, name="x"), lambda: run.__setitem__("x", 1), run.sync):
        assert len(warned(write)[1]) == 1
    assert warned(run.close)[1] == []


def test_what_is_asked_is_answered_as_always(repo: Repo) -> None:
    with Run(repo=repo, safe_mode=True) as run:
        run["a"] = {"b": 1}
        assert isinstance(run, Run)
        assert (run["a", "b"], run.get("nothing", 3), dict(run.params)) == (1, 3, {"a": {"b": 1}})
        with pytest.raises(KeyError):
            run["nothing"]
    assert type(run).__name__ == "Run"
    assert repo.get_run(run.hash) == run


def test_an_exception_of_the_user_still_ends_the_run(repo: Repo) -> None:
    with pytest.raises(ZeroDivisionError), Run(repo=repo, safe_mode=True) as run:
        raise ZeroDivisionError("theirs")
    assert (run.status, run.error["message"]) == ("failed", "theirs")


@pytest.mark.parametrize("how", ["a file in the way", "a bad hash", "a bad argument", "no such run"])
def test_a_run_that_cannot_be_opened_keeps_nothing(tmp_path: Path, how: str) -> None:
    (tmp_path / "file").write_text("in the way")
    settings: dict[str, Any] = {
        "a file in the way": {"repo": tmp_path / "file"},
        "a bad hash": {"run_hash": "../evil", "repo": tmp_path},
        "a bad argument": {"repo": tmp_path, "experiment": 5},
        "no such run": {"repo": tmp_path, "run_hash": "nobody", "read_only": True},
    }[how]
    with pytest.raises((OSError, ValueError, TypeError, aimlite.RunNotFound)):
        Run(**settings)
    run, messages = warned(lambda: Run(**settings, safe_mode=True))
    assert len(messages) == 1
    assert messages[0].startswith("RuntimeWarning: opening a run failed")
    assert isinstance(run, Run)

    def script() -> None:
        with run:
            run["hparams"] = {"lr": 0.1, "layers": {"n": 3}}
            run["hparams", "lr"] = 0.2
            run.track(1, name="loss")
            run.track({"a": 1}, context={"subset": "val"})
            run.track_columns("lr", [1, 2])
            run.sequence("x").track(1)
            run.name = "n"
            run.add_tag("t")
            run.add_note("note")
            run.report_progress(expect_next_in=1)
            run.sync()
        run.close()

    assert warned(script)[1] == []
    assert (run["hparams"], run.get("nothing"), run.name, run.tags) == ({"lr": 0.2, "layers": {"n": 3}}, None, "n", ["t"])
    del run["hparams"]
    assert (len(run), list(run.metrics()), run.get_metric("loss"), run.status) == (0, [], None, "finished")
    assert [note.text for note in run.notes] == ["note"]
    assert len(run.hash) in (6, 24)


def test_it_is_set_for_all_runs_or_by_the_environment(repo: Repo) -> None:
    assert not aimlite.is_safe_mode()
    aimlite.set_safe_mode(True)
    assert aimlite.is_safe_mode()
    with Run(repo=repo) as run:
        assert len(warned(lambda: run.track("x", name="x"))[1]) == 1
    with Run(repo=repo, safe_mode=False) as strict, pytest.raises(TypeError):
        strict.track("x", name="x")
    with pytest.raises(TypeError):
        aimlite.set_safe_mode(1)  # type: ignore[arg-type]
    script = "import aimlite; run = aimlite.Run(repo='/dev/null/x'); run.track(1, name='x'); print(aimlite.is_safe_mode())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "AIMLITE_SAFE_MODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr.count("opening a run failed")) == ("True\n", 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="SKIPPED: there is no /dev/full here")
def test_a_full_disk_does_not_end_training(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(repo=repo, safe_mode=True)
    run.track(1, name="loss")
    full, journal = os.open("/dev/full", os.O_WRONLY), repo._writer().journal.fileno()
    kept = os.dup(journal)
    os.dup2(full, journal)
    try:
        assert len(warned(lambda: run.track(2, name="loss"))[1]) == 1
    finally:
        os.dup2(kept, journal)
        os.close(full)
        os.close(kept)
    run.track(3, name="loss")
    run.close()
    assert run.get_metric("loss").values.tolist()[-1] == 3.0
