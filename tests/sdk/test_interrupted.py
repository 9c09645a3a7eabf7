"""Reads in signal handlers and finalizers: whatever they interrupt, a read, a write or an import, they give what any read does."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aimlite import Image, Repo, Run

CHILD = Path(__file__).parent / "children" / "interrupted.py"
FULL = os.environ.get("AIMLITE_STRESS") == "1"


def fill(repo: Repo, note: Path) -> None:
    import numpy as np

    note.write_text("kept")
    with Run("other", repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run["hparams"] = {"lr": 0.1}
        run.track(1.0, name="loss")
    with Run("read", repo=repo, system_tracking_interval=None, capture_terminal_logs=False) as run:
        run["hparams"] = {"lr": 0.5, "layers": {str(number): number for number in range(80)}}
        run.add_tag("a tag")
        run.add_note("a note")
        run.log_info("a message")
        run.log_text("a line")
        for step in range(20):
            run.track(step / 2, name="loss", context={"subset": "train"})
        run.track([Image(np.full((4, 4), 9, np.uint8), "nine")], name="picture")
        run.log_artifact(note)


def make(kind: str, path: str, note: Path) -> None:
    """A repo with two runs. unmerged: in journals; rotated: in segments of which a reader takes the footer; merged: in the tree; both: the
    tree has moved since the runs' last writes."""
    with Repo(path) as repo:
        fill(repo, note)
        if kind == "rotated":
            from aimlite.storage.writer import writer_for

            with Run("open", repo=repo, system_tracking_interval=None, capture_terminal_logs=False):
                writer_for(repo._layout).end_segment()
        if kind in ("merged", "both"):
            repo.merge()
        if kind == "both":
            repo.edit_run("read").add_tag("another")


@pytest.mark.parametrize("kind", ["unmerged", "rotated", "merged", "both"])
def test_a_read_interrupted_at_any_line(kind: str, repo_path: str, tmp_path: Path) -> None:
    make(kind, repo_path, tmp_path / "note.txt")
    command = [sys.executable, str(CHILD), repo_path, str(1000 if FULL else 5), str(len(kind) / 9)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200 if FULL else 300)
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["tried"] >= 9


def script(code: str, path: str, status: int = 0) -> str:
    """What a script prints that begins with a run `run`, tracked once; it ends by itself."""
    begin = """
        import gc, os, signal, sys, threading
        from aimlite import Repo, Run
        repo = Repo(sys.argv[1])
        run = Run("r", repo=repo, system_tracking_interval=None, capture_terminal_logs=False)
        run.track(0.5, name="loss")
        run["lr"] = 0.1
    """
    whole = textwrap.dedent(begin) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", whole, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_a_signal_handler_reads_and_writes_whatever_it_interrupts(repo_path: str) -> None:
    told = script(
        """
        calls = []
        def handler(*_):
            run.track(len(calls), name="calls")
            calls.append((run.get_metric("calls").last, run.get_metric("loss").min, run["lr"], repo.query_runs("run.lr == 0.1").hashes()))
            signal.setitimer(signal.ITIMER_REAL, 0.003)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        reads = 0
        while len(calls) < 40:
            run.track(0.5, name="loss")
            run["step"] = reads
            assert run.get_metric("loss").last == 0.5 and run["step"] == reads
            if reads % 10 == 3:
                repo.merge()
            reads += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert calls == [(number, 0.5, 0.1, ["r"]) for number in range(len(calls))], calls
        print("good")
        """,
        repo_path,
    )
    assert told == "good\n"


def test_a_finalizer_reads_in_any_thread(repo_path: str) -> None:
    told = script(
        """
        found, errors = [], []
        class Kept:
            def __init__(self):
                self.itself = self  # so that the collector finds it
            def __del__(self):
                try:
                    found.append((run.get_metric("loss").last, run["lr"]))
                except BaseException as error:
                    errors.append(error)
        gc.set_threshold(50, 2, 2)
        def read():
            for _ in range(60):
                Kept()
                repo.list_all_runs(), run.get_metric("loss").values.sparse_list(), run[...]
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        read()
        for thread in threads:
            thread.join()
        gc.collect()
        assert not errors, errors
        assert set(found) == {(0.5, 0.1)} and len(found) == 300
        print("good")
        """,
        repo_path,
    )
    assert told == "good\n"


def test_an_exception_of_a_handler_leaves_a_reader_that_reads_right(repo_path: str) -> None:
    told = script(
        """
        class Stop(Exception): ...
        def trace(frame, event, argument):
            global lines
            if event == "line":
                if lines == at:
                    sys.settrace(None)
                    raise Stop
                lines += 1
            return trace
        def read():
            found = Repo(sys.argv[1]).get_run("r")
            return found[...], found.get_metric("loss").values.sparse_list()
        read()
        for at in range(0, 10_000, 7):
            run.track(1.0, name="loss")
            run["more", str(at)] = at
            if at % 140 == 0:
                repo.merge()
            lines = 0
            try:
                sys.settrace(trace)
                read()
                break
            except Stop:
                pass
            finally:
                sys.settrace(None)
            params, (steps, values) = read()
            assert params == {"lr": 0.1, "more": {str(k): k for k in range(0, at + 1, 7)}}, at
            assert steps == list(range(at // 7 + 2)) and values == [0.5] + [1.0] * (at // 7 + 1), at
        print("good" if at > 300 else at)
        """,
        repo_path,
    )
    assert told == "good\n"


def test_a_read_inside_the_import_of_what_it_needs_is_an_error_and_no_deadlock(repo_path: str, tmp_path: Path) -> None:
    (tmp_path / "lark.py").write_text("import __main__\n__main__.interrupt()\n")
    told = script(
        f"""
        def interrupt():
            try:
                repo.query_runs("run.lr == 0.1")
            except ImportError as error:
                print("lark" in str(error))
        sys.path.insert(0, {str(tmp_path)!r})
        import lark
        """,
        repo_path,
    )
    assert told == "True\n"


def test_a_read_where_no_thread_can_be_started(repo_path: str) -> None:
    told = script(
        """
        import _thread
        def refuse(*_):
            raise RuntimeError("can't start new thread")
        _thread.start_new_thread = refuse
        print(run.get_metric("loss").last)
        """,
        repo_path,
    )
    assert told == "0.5\n"


def test_modules_are_imported_late_through_load_alone() -> None:
    """A late import of a module that may not be there yet is preceded by `load`: else a handler that interrupts it meets half of it."""
    package, late = Path(__file__).parents[2] / "aimlite", []
    for folder in ("sdk", "objects", "artifacts", "archive", "query", "fluent"):
        for file in (package / folder).rglob("*.py"):
            for body in (held for node in ast.walk(ast.parse(file.read_text())) for held in bodies(node)):
                for before, node in zip([ast.Pass(), *body], body, strict=False):
                    if is_import(node) and not is_import(before) and "id='load'" not in ast.dump(before):
                        late.append(f"{file.name}:{node.lineno}")
    assert late == []


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def bodies(node: ast.AST) -> list[list[ast.stmt]]:
    """The lists of statements of a function, those of what is inside it too."""
    if not isinstance(node, ast.FunctionDef):
        return []
    found = [getattr(inner, name, None) for inner in ast.walk(node) for name in ("body", "orelse", "finalbody")]
    return [body for body in found if isinstance(body, list)]
