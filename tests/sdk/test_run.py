"""A run's life: creation, resuming, statuses, properties, and what other processes see of it."""

from __future__ import annotations

import inspect
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import typing
from collections import OrderedDict
from datetime import datetime
from pathlib import Path

import pytest

from aimlite import ReadOnlyError, Repo, Run, RunClosedError, RunNotFound


def in_child(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)


def test_a_new_run_has_a_hash_of_its_own(repo: Repo) -> None:
    runs = [Run(repo=repo) for _ in range(20)]
    assert len({run.hash for run in runs}) == 20
    assert all(re.fullmatch(r"[0-9a-f]{24}", run.hash) for run in runs)
    assert sorted(repo.list_all_runs()) == sorted(run.hash for run in runs)
    assert repo.total_runs_count() == 20


def test_generated_hashes_sort_by_time(repo: Repo) -> None:
    """Four bytes of time come first, so runs made in different seconds are neighbours in the tree in their order."""
    run = Run(repo=repo)
    assert abs(int(run.hash[:8], 16) - run.creation_time) < 3


def test_runs_are_listed_newest_first_merged_or_not(repo: Repo) -> None:
    for name in "abcd":
        Run(name, repo=repo).close()
        if name == "b":
            repo.merge()
    assert repo.list_all_runs() == ["d", "c", "b", "a"]
    repo.merge()
    assert repo.list_all_runs() == ["d", "c", "b", "a"]
    assert [run.hash for run in repo.iter_runs()] == ["d", "c", "b", "a"]
    assert repo.total_runs_count() == 4


@pytest.mark.parametrize("run_hash", ["a", "508c5b29-02c7-4875-a157-f099ea193bfa", "A.b_c-9", "-x", "x" * 128])
def test_any_name_of_the_allowed_characters_names_a_run(repo: Repo, run_hash: str) -> None:
    with Run(run_hash, repo=repo) as run:
        run.track(1.0, name="m")
    found = repo.get_run(run_hash)
    assert found is not None
    assert found.hash == run_hash


@pytest.mark.parametrize("run_hash", ["", ".a", "a/b", "a b", "ä", "x" * 129, "..", "a\n"])
def test_other_names_are_refused(repo: Repo, run_hash: str) -> None:
    with pytest.raises(ValueError, match="run hash"):
        Run(run_hash, repo=repo)
    assert repo.list_all_runs() == []


def test_a_script_run_three_times_leaves_one_run_of_its_points(repo: Repo) -> None:
    for merged in (False, True, False):
        with Run("508c5b29", repo=repo) as run:
            for step in range(100):
                run.track(step, step=step, name="test")
        if merged:
            repo.merge()
    assert repo.list_all_runs() == ["508c5b29"]
    metric = repo.get_run("508c5b29").get_metric("test")
    assert metric.values.sparse_list() == (list(range(100)), [float(step) for step in range(100)])


@pytest.mark.parametrize("merged", [False, True])
def test_a_resumed_run_counts_on_and_keeps_its_experiment(repo: Repo, merged: bool) -> None:
    with Run("r", repo=repo, experiment="vision") as run:
        run.track(1.0, name="a")
        run.track(1.0, name="a")
        run.track(5.0, name="b", step=41, context={"s": 1})
    if merged:
        repo.merge()
    with Run("r", repo=repo) as run:
        assert run.status == "running"
        assert run.experiment == "vision"
        run.track(2.0, name="a")
        run.track(2.0, name="b", context={"s": 1})
        run.track(2.0, name="b")
    assert run.get_metric("a").values.keys() == [0, 1, 2]
    assert run.get_metric("b", {"s": 1}).values.keys() == [41, 42]
    assert run.get_metric("b").values.keys() == [0]
    assert run.status == "finished"


def test_each_metric_of_a_dict_counts_its_own_steps(repo: Repo) -> None:
    with Run(repo=repo) as run:
        run.track({"a": 1})
        run.track({"a": 2, "b": 3})
        run.track({"a": 4, "b": 5}, step=10)
        run.track({"b": 6, "a": 7})
    assert run.get_metric("a").values.keys() == [0, 1, 10, 11]
    assert run.get_metric("b").values.sparse_list() == ([0, 10, 11], [3.0, 5.0, 6.0])


def test_any_mapping_is_a_dict_of_values(repo: Repo) -> None:
    run = Run(repo=repo)
    run.track(OrderedDict(a=1, b=2.5))
    assert {metric.name: metric.last for metric in run.metrics()} == {"a": 1.0, "b": 2.5}


def test_experiment_is_default_until_given(repo: Repo) -> None:
    run = Run(repo=repo)
    assert run.experiment == "default"
    run.experiment = "x"
    assert repo.get_run(run.hash).experiment == "x"


def test_properties(repo: Repo) -> None:
    run = Run(repo=repo)
    assert (run.name, run.description, run.archived) == (f"Run: {run.hash}", None, False)
    run.name, run.description, run.archived = "baseline", "first\ntry", True
    for look in (run, repo.get_run(run.hash)):
        assert (look.name, look.description, look.archived) == ("baseline", "first\ntry", True)
    run.name = "second"
    run.close()
    repo.merge()
    assert run.name == "second"
    assert isinstance(run.created_at, datetime)
    assert run.created_at.tzinfo is None
    assert run.creation_time <= run.end_time
    assert run.duration == pytest.approx(run.end_time - run.creation_time)
    assert run.finalized_at >= run.created_at


@pytest.mark.parametrize(("name", "value"), [("name", 5), ("description", 1.5), ("experiment", 3), ("archived", "yes")])
def test_properties_of_another_type_are_refused(repo: Repo, name: str, value: object) -> None:
    run = Run(repo=repo)
    before = getattr(run, name)
    with pytest.raises(TypeError, match=name):
        setattr(run, name, value)
    assert getattr(run, name) == before


def test_the_last_write_of_a_property_wins_from_any_process(repo: Repo, repo_path: str) -> None:
    run = Run("r", repo=repo)
    run.name = "mine"
    script = "import sys; from aimlite import Run; r = Run('r', repo=sys.argv[1]); assert r.name == 'mine'; r.name = 'yours'; r.close()"
    done = in_child(script, repo_path)
    assert done.returncode == 0, done.stderr
    assert run.name == "yours"
    run.name = "mine again"
    repo.merge()
    assert run.name == "mine again"


def test_finish_keeps_its_first_word(repo: Repo) -> None:
    for status in ("finished", "failed", "interrupted"):
        run = Run(repo=repo)
        assert run.status == "running"
        assert run.active
        assert run.end_time is None
        run.finish(status)
        run.finish("finished")
        run.close()
        assert run.status == status
        assert not run.active
        assert run.end_time is not None
    with pytest.raises(ValueError, match="'done'"):
        Run(repo=repo).finish("done")


def test_with_tells_how_it_ended(repo: Repo) -> None:
    with Run("ok", repo=repo):
        pass
    with pytest.raises(ZeroDivisionError), Run("bad", repo=repo):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), Run("stopped", repo=repo):
        raise KeyboardInterrupt
    assert {run.hash: run.status for run in repo.iter_runs()} == {"ok": "finished", "bad": "failed", "stopped": "interrupted"}


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", "finished"),
        ("sys.exit(0)", "finished"),
        ("raise ValueError('no')", "failed"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("os._exit(0)", "interrupted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "interrupted"),
    ],
)
def test_the_end_of_the_process_ends_its_runs(repo: Repo, repo_path: str, ending: str, status: str) -> None:
    done = in_child(
        f"import os, signal, sys; from aimlite import Run; r = Run('r', repo=sys.argv[1]); r.track(1, name='m')\n{ending}", repo_path
    )
    run = repo.get_run("r")
    assert run.status == status, done.stderr
    assert run.end_time is not None
    assert run.get_metric("m").values.tolist() == [1.0]
    repo.merge()
    assert run.status == status
    with Run("r", repo=repo) as again:
        assert again.status == "running"
    assert run.status == "finished"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="SKIPPED: only glibc tells a process its own exit status")
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("sys.exit(3)", "failed"),
        ("sys.exit('message')", "failed"),
        ("raise SystemExit(1)", "failed"),
        ("exit(1)", "failed"),
        ("sys.excepthook = lambda *_: None; 1 / 0", "failed"),
        ("raise SystemExit", "finished"),
        ("threading.Thread(target=lambda: sys.exit(2)).start()", "finished"),
        ("with contextlib.suppress(SystemExit): sys.exit(1)", "finished"),
        ("os.fork() or os._exit(0); sys.exit(1)", "failed"),
        ("atexit.register(lambda: os.fork() or sys.exit(1)); sys.exit(1)", "failed"),
    ],
)
def test_the_exit_status_tells_whether_a_run_failed(repo: Repo, repo_path: str, ending: str, status: str) -> None:
    script = "import atexit, contextlib, os, sys, threading; from aimlite import Run\n"
    script += "runs = [Run(name, repo=sys.argv[1]) for name in 'abc']; runs[0].track(1, name='m'); runs[1].finish('interrupted')\n"
    done = in_child(script + ending, repo_path)
    for _ in range(2):
        assert {run.hash: run.status for run in repo.iter_runs()} == {"a": status, "b": "interrupted", "c": status}, done.stderr
        assert repo.get_run("a").end_time >= repo.get_run("a").creation_time
        assert repo.check() == []
        repo.merge()


def test_a_run_is_running_while_any_process_has_it_open(repo: Repo, repo_path: str) -> None:
    script = "import sys; from aimlite import Run; r = Run('r', repo=sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script, repo_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "open\n"
    run = Run("r", repo=repo)
    run.finish("failed")
    assert run.status == "running"
    child.communicate("", timeout=300)
    assert run.status == "finished"


def test_a_vanished_writer_interrupts_until_somebody_resumes(repo: Repo, repo_path: str) -> None:
    script = "import sys; from aimlite import Run; r = Run('r', repo=sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script, repo_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "open\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=300)
    assert repo.get_run("r").status == "interrupted"
    with Run("r", repo=repo) as run:
        assert run.status == "running"
    assert run.status == "finished"


def test_written_is_visible_to_other_processes_at_once(repo: Repo, repo_path: str) -> None:
    run = Run("r", repo=repo)
    run["lr"] = 0.5
    run.track(7, name="m", step=3)
    script = """
        import sys
        from aimlite import Repo
        r = Repo(sys.argv[1]).get_run('r')
        print(r['lr'], r.get_metric('m').values.sparse_list(), r.status)
    """
    assert in_child(script, repo_path).stdout.strip() == "0.5 ([3], [7.0]) running"


def test_a_closed_run_takes_no_more(repo: Repo) -> None:
    run = Run("r", repo=repo)
    handle = run.sequence("m")
    run.track(1, name="m")
    run.close()
    writes = [
        lambda: run.track(2, name="m"),
        lambda: run.track({"m": 2}),
        lambda: run.track_columns("m", [1.0]),
        lambda: handle.track(2),
        lambda: run.sequence("m"),
        lambda: run.__setitem__("a", 1),
        lambda: run.__delitem__("a"),
        run.sync,
    ]
    for write in writes:
        with pytest.raises(RunClosedError, match="Run\\('r'\\)"):
            write()
    assert run.get_metric("m").values.tolist() == [1.0]


def test_a_read_only_run_refuses_every_write(repo: Repo) -> None:
    Run("r", repo=repo).close()
    run = Run("r", repo=repo, read_only=True)
    writes = [
        lambda: run.track(2, name="m"),
        lambda: run.track_columns("m", [1.0]),
        lambda: run.sequence("m"),
        lambda: run.__setitem__("a", 1),
        lambda: run.__delitem__("a"),
        lambda: setattr(run, "archived", True),
        run.sync,
    ]
    for write in writes:
        with pytest.raises(ReadOnlyError, match="read-only"):
            write()
    run.close()
    assert run.status == "finished"


def test_unknown_hashes(repo: Repo) -> None:
    assert repo.get_run("nobody") is None
    with pytest.raises(RunNotFound, match="nobody"):
        Run("nobody", repo=repo, read_only=True)
    with pytest.raises(ValueError, match="hash"):
        Run(repo=repo, read_only=True)
    with pytest.raises(TypeError, match="int"):
        repo.get_run(5)
    assert repo.list_all_runs() == []


def test_several_objects_on_one_run(repo: Repo) -> None:
    one, two = Run("r", repo=repo), Run("r", repo=repo)
    one.track(1, name="m", step=0)
    two.track(2, name="m", step=0)
    one["a"], two["a"] = 1, 2
    assert one.get_metric("m").values.tolist() == [2.0]
    assert one["a"] == 2
    one.close()
    assert one.status == "running"
    two.close()
    assert one.status == "finished"
    assert one == two
    assert len({one, two}) == 1


def test_where_a_repo_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIMLITE_REPO", raising=False)
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    assert Repo().path == str(tmp_path / "project" / "deep" / ".aimlite")
    shutil.rmtree(".aimlite")
    Repo(tmp_path / "project")
    assert Repo().path == str(tmp_path / "project" / ".aimlite")
    assert Run().repo.path == str(tmp_path / "project" / ".aimlite")
    monkeypatch.setenv("AIMLITE_REPO", str(tmp_path / "elsewhere"))
    assert Repo().path == str(tmp_path / "elsewhere" / ".aimlite")
    assert Repo(tmp_path / "a" / ".aimlite").path == str(tmp_path / "a" / ".aimlite")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Repo("~/repo").path == str(tmp_path / "home" / "repo" / ".aimlite")


def test_a_repo_removed_under_a_living_process_is_made_anew(repo_path: str) -> None:
    with Run("old", repo=repo_path) as run:
        run.track(1, name="m")
    shutil.rmtree(repo_path)
    with Run("new", repo=repo_path) as run:
        run.track(2, name="m")
    with Repo(repo_path) as repo:
        assert repo.list_all_runs() == ["new"]
        assert repo.get_run("new").get_metric("m").values.tolist() == [2.0]
        assert repo.check() == []


def test_a_closed_repo_says_so(repo_path: str) -> None:
    repo = Repo(repo_path)
    repo.close()
    with pytest.raises(Exception, match="closed"):
        repo.list_all_runs()


@pytest.mark.parametrize(
    "options", [{"durability": "power"}, {"durability": "process"}, {"sync_interval": 0.05}, {"durability": "power", "sync_interval": 1}]
)
def test_durabilities_write_the_same(repo: Repo, options: dict[str, object]) -> None:
    with Run("r", repo=repo, **options) as run:
        for step in range(20):
            run.track(step, name="m")
        run["a"] = {"b": 1}
        run.track_columns("c", [1.0, 2.0])
        run.sync()
    assert run.get_metric("m").count == 20
    assert run["a", "b"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "ram"},
        {"durability": 1},
        {"sync_interval": 0},
        {"sync_interval": -1},
        {"sync_interval": "1"},
        {"sync_interval": True},
        {"experiment": 5},
    ],
)
def test_bad_options_make_no_run(repo: Repo, options: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Run(repo=repo, **options)
    assert repo.list_all_runs() == []


def test_durability_from_the_environment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIMLITE_DURABILITY", "power")
    assert Run(repo=repo)._recorder.power
    monkeypatch.setenv("AIMLITE_DURABILITY", "paper")
    with pytest.raises(ValueError, match="paper"):
        Run(repo=repo)


def test_several_objects_on_one_run_count_its_steps_together(repo: Repo) -> None:
    """They write as one writer, whose point at a step replaces the one before: each keeps its own number."""
    one = Run("r", repo=repo)
    one.track_columns("m", [0.0, 1.0, 2.0])
    two = Run("r", repo=repo)
    two.track(3.0, name="m")
    one.track(4.0, name="m")
    two.track({"m": 5.0, "new": 0.0})
    one.track(1.0, name="new")
    one.close()
    two.sequence("m").track(6.0)
    two.track(7.0, name="m", step=20)
    three = Run("r", repo=repo)
    three.track(8.0, name="m")
    assert one.get_metric("m").values.sparse_list() == ([0, 1, 2, 3, 4, 5, 6, 20, 21], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert one.get_metric("new").values.sparse_list() == ([0, 1], [0.0, 1.0])
    two.close()
    three.close()
    with Run("r", repo=repo) as again:
        again.track(9.0, name="m")
    assert again.get_metric("m").values.last() == (22, 9.0)


class _NoNumber:
    pass


@pytest.mark.parametrize("value", [_NoNumber(), [1.0], "x", None, {"a": 0.5, "b": _NoNumber()}])
def test_what_is_no_number_goes_to_one_hook_with_nothing_written(repo: Repo, value: object) -> None:
    class Hooked(Run):
        def _track_other(self, *given: object) -> None:
            handed.append(given)

    handed: list[tuple[object, ...]] = []
    name = None if isinstance(value, dict) else "m"
    with Hooked(repo=repo) as run:
        run.track(value, name, step=3, epoch=2, context={"k": 1})
        assert [*run.metrics()] == []
    ((*arguments, error),) = handed
    assert arguments == [value, name, 3, 2, {"k": 1}]
    assert isinstance(error, TypeError)
    with Run(repo=repo) as run, pytest.raises(TypeError, match="number") as raised:
        run.track(value, name)
    assert type(raised.value) is TypeError


def test_track_looks_like_a_method_written_in_python() -> None:
    signature = inspect.signature(Run.track)
    assert list(signature.parameters) == ["self", "value", "name", "step", "epoch", "context"]
    assert signature.parameters["context"].kind is inspect.Parameter.KEYWORD_ONLY
    assert typing.get_type_hints(Run.track)["name"] == str | None
    assert "survives the process" in (inspect.getdoc(Run.track) or "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("recorded", [False, True])
def test_what_c_prints_into_a_closed_descriptor_stays_out_of_the_journal(
    repo: Repo, repo_path: str, monkeypatch: pytest.MonkeyPatch, closed: str, recorded: bool
) -> None:
    """A journal begun there would have the descriptor, and so would the one after it. It stays locked: while it is open the run is
    running."""
    script = """
        import os, sys
        from aimlite import Repo, Run
        from aimlite.storage.writer import end_segment

        def print_as_c_does():
            for fd in range(3):
                try:
                    os.write(fd, b"printed")
                except OSError:
                    pass  # it is closed

        run = Run("r", repo=sys.argv[1], capture_terminal_logs=sys.argv[2] == "True")
        for step in range(4):
            run.track(step, name="m")
            print_as_c_does()
            if step == 1:
                end_segment(run.repo._layout)
        journals = os.path.join(sys.argv[1], ".aimlite", "journals")
        if sys.platform == "linux":
            links = [f"/proc/self/fd/{fd}" for fd in range(100)]
            assert [os.readlink(link).startswith(journals) for link in links if os.path.islink(link)].count(True) == 1
        run["status"] = Repo(sys.argv[1]).get_run("r").status
    """
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", textwrap.dedent(script), repo_path, str(recorded)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    run = repo.get_run("r")
    assert (run.status, run["status"]) == ("finished", "running")
    assert run.get_metric("m").values.sparse_list()[1] == [0, 1, 2, 3]
