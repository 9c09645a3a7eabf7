"""The log of a run: what was printed, told and logged, in one order; messages."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aimlite import CorruptionError, LoggingHandler, ReadOnlyError, Repo, Run, RunClosedError
from aimlite.sdk.logs import LOGS, LOGS_NAME, RECORDS, RECORDS_NAME
from aimlite.storage.objects import object_records

PRELUDE = "import os, sys, time, subprocess, logging, threading\nfrom aimlite import Run, Repo\n"


def run_script(code: str, cwd: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", PRELUDE + code], cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **settings
    )


def texts(where: Path | Repo, run_hash: str) -> list[str]:
    repo = where if isinstance(where, Repo) else Repo(where)
    run = repo.get_run(run_hash)
    assert run is not None
    return [line.text for line in run.get_terminal_logs()]


def quiet_run(run_hash: str, repo: Repo) -> Run:
    return Run(run_hash, repo=repo, capture_terminal_logs=False, system_tracking_interval=None)


def test_what_a_script_prints_is_recorded_by_default(tmp_path: Path) -> None:
    done = run_script(
        """
print("before the run")
run = Run("x", repo=".")
print("one")
run.log_text("two")
logging.getLogger().addHandler(run.get_logging_handler())
logging.warning("three")
subprocess.run(["echo", "four"])
for number in range(3):
    print(f"\\r{number}/2", end="", flush=True)
print()
print("five")
run.close()
print("after the run")
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "before the run\none\nfour\n\n0/2\n1/2\n2/2\nfive\nafter the run\n"
    repo = Repo(tmp_path)
    for _ in range(2):
        lines = list(repo.get_run("x").get_terminal_logs())  # type: ignore[union-attr]
        assert [(line.source, line.level) for line in lines] == [
            ("stdout", None), ("log_text", None), ("logging", 30), ("stdout", None), ("stdout", None), ("stdout", None),
        ]  # fmt: skip
        assert [line.text.split(" | ")[-1] for line in lines] == ["one", "two", "three", "four", "2/2", "five"]
        assert [line.time for line in lines] == sorted(line.time for line in lines)
        assert [line.number for line in lines] == list(range(6))
        repo.merge()
    assert repo.check() == []


def test_lines_as_text(repo: Repo, tmp_path: Path) -> None:
    with quiet_run("x", repo) as run:
        run.log_text("one\n\n  two\r\nthree\rfour\n")
        run.log_text("")
        run.log_text("\x1b[31mred\x1b[0m \ud800 \x07日本")
    logs = run.get_terminal_logs()
    assert [line.text for line in logs] == ["one", "", "  two", "three", "four", "", "red ? 日本"]
    clock = time.strftime("%H:%M:%S", time.localtime(logs[0].time))
    assert str(logs[0]) == f"{clock} | one"
    assert logs.text == "".join(f"{line}\n" for line in logs)
    logs.save(tmp_path / "logs.txt")
    assert (tmp_path / "logs.txt").read_text("utf-8") == logs.text
    assert (len(logs), logs[-1].text, [line.text for line in logs[1:3]]) == (7, "red ? 日本", ["", "  two"])
    assert json.loads(json.dumps(logs[0].json())) == {
        "number": 0, "time": logs[0].time, "source": "log_text", "level": None, "text": "one",
    }  # fmt: skip
    assert list(quiet_run("y", repo).get_terminal_logs()) == []


def test_wrong_arguments_and_ended_runs(repo: Repo) -> None:
    run = quiet_run("x", repo)
    handler = run.get_logging_handler()
    with pytest.raises(TypeError, match="takes a string, not int 1"):
        run.log_text(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a message is a string"):
        run.log_info(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not 'loud'"):
        run.get_logging_handler("loud")
    run.close()
    with pytest.raises(RunClosedError):
        run.log_text("late")
    with pytest.raises(RunClosedError):
        run.log_error("late")
    with pytest.raises(ReadOnlyError):
        Run("x", repo=repo, read_only=True).log_text("not mine")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("late")
    assert len(run.get_terminal_logs()) == 0


def test_logging_handlers(repo: Repo) -> None:
    run = quiet_run("x", repo)
    logger = logging.Logger("training")
    logger.addHandler(run.get_logging_handler(level="Warning", fmt="%(levelname)s %(message)s"))
    logger.addHandler(LoggingHandler(run, logging.DEBUG))
    logger.info("fine %d", 1)
    logger.warning("careful\nreally")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    lines = [(line.level, line.text) for line in run.get_terminal_logs()]
    clock = lines[0][1][:8]
    assert lines[:5] == [
        (20, f"{clock} | INFO | training | fine 1"),
        (30, "WARNING careful"), (30, "really"), (30, f"{lines[3][1][:8]} | WARNING | training | careful"), (30, "really"),
    ]  # fmt: skip
    assert lines[-1] == (40, "ValueError: bad")
    run.close()


def test_messages(repo: Repo) -> None:
    run = quiet_run("x", repo)
    run.log_debug("begun")
    record = run.log_info("epoch", number=3, losses=[0.5, 0.25], where=Path("here"))
    run.log_warning("careful")
    run.log_error("bad \ud800")
    run.close()
    records = run.get_log_records()
    for _ in range(2):
        assert [(found.level_name, found.message) for found in records] == [
            ("DEBUG", "begun"), ("INFO", "epoch"), ("WARNING", "careful"), ("ERROR", "bad ?"),
        ]  # fmt: skip
        assert records.data[1] == records[1] == record
        assert record.params == {"number": 3, "losses": [0.5, 0.25], "where": "here"}
        assert (record.file, record.line) == (__file__, test_messages.__code__.co_firstlineno + 3)
        known = json.loads(json.dumps(records[1].json()))
        assert (known["message"], known["log_level"], known["timestamp"]) == ("epoch", "INFO", record.timestamp)
        assert str(record).endswith(" | INFO | epoch number=3 losses=[0.5, 0.25] where='here'")
        assert len(records) == 4
        repo.merge()


@pytest.mark.parametrize(
    "header",
    [
        {"source": "stdout"},
        {"source": "stdout", "text": 5},
        {"source": 3, "text": "t"},
        {"source": "stdout", "text": "t", "level": "high"},
        {"source": "stdout", "text": "t", "id": []},
    ],
)
def test_lines_that_nobody_printed(header: dict[str, Any], repo: Repo) -> None:
    with quiet_run("x", repo) as run:
        run._writable().track_objects(LOGS, LOGS_NAME, object_records([(header, b"")], repo._layout.blobs, {}), 1, True)
    with pytest.raises(CorruptionError, match="a line of the log has"):
        _ = run.get_terminal_logs().data


@pytest.mark.parametrize("change", [{"timestamp": math.inf}, {"timestamp": math.nan}, {"level": "high"}, {"more": 1}, {"message": None}])
def test_messages_that_nobody_told(change: dict[str, Any], repo: Repo) -> None:
    with quiet_run("x", repo) as run:
        header = {**vars(run.log_info("epoch")), **change}
        run._writable().track_objects(RECORDS, RECORDS_NAME, object_records([(header, b"")], repo._layout.blobs, {}), 1, False)
    with pytest.raises(CorruptionError, match="a message has"):
        _ = run.get_log_records().data


def test_metrics_may_have_the_names_of_logs(repo: Repo) -> None:
    for _ in range(2):
        with quiet_run("x", repo) as run:
            run.log_text("line")
            run.log_info("message")
            run.track(1.0, name="logs")
            run.track(1.0, name="__log_records")
        repo.merge()
    assert len(run.get_terminal_logs()) == len(run.get_log_records()) == 2
    assert run.get_metric("logs").count == 2  # type: ignore[union-attr]


def test_a_run_that_is_resumed_goes_on_with_its_log(repo: Repo) -> None:
    for number in range(3):
        with quiet_run("x", repo) as run:
            run.log_text(f"time {number}")
    assert texts(repo, "x") == ["time 0", "time 1", "time 2"]


def test_processes_that_write_one_run_lose_no_line(tmp_path: Path) -> None:
    code = """
run = Run("x", repo=".")
for number in range(200):
    print(f"{sys.argv[1]} {number}")
    if number % 50 == 0:
        print(f"\\r{sys.argv[1]} bar 1", end="", flush=True)
        time.sleep(0.7)
        print(f"\\r{sys.argv[1]} bar 2")
run.close()
"""
    processes = [subprocess.Popen([sys.executable, "-c", PRELUDE + code, name], cwd=tmp_path, stdout=-3) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    found = texts(tmp_path, "x")
    for name in "ab":
        expected = [f"{name} {number}" for number in range(200)]
        assert [line for line in found if line[0] == name and "bar" not in line] == expected
        assert [line for line in found if line[0] == name and "bar" in line] == [f"{name} bar 2"] * 4


def test_another_process_reads_while_it_is_printed(tmp_path: Path) -> None:
    """And what was printed is there after a SIGKILL."""
    code = 'run = Run("x", repo=".")\nprint("begun")\nprint("\\r50%", end="", flush=True)\ntime.sleep(60)'
    process = subprocess.Popen([sys.executable, "-c", PRELUDE + code], cwd=tmp_path, stdout=-3)
    until = time.monotonic() + 30
    while not ((tmp_path / ".aimlite").exists() and Repo(tmp_path).get_run("x") and texts(tmp_path, "x") == ["begun", "50%"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert texts(tmp_path, "x") == ["begun", "50%"]


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    code = 'run = Run("x", repo=".")\nfor number in range(5):\n    print(number)\n    time.sleep(0.15)\nrun.close()'
    process = subprocess.Popen([sys.executable, "-c", PRELUDE + code], cwd=tmp_path, stdout=-3)
    until = time.monotonic() + 30
    while not ((tmp_path / ".aimlite").exists() and Repo(tmp_path).get_run("x")):
        assert time.monotonic() < until
        time.sleep(0.02)
    run = Repo(tmp_path).get_run("x")
    assert run is not None
    lines = list(run.get_terminal_logs().follow(0.05))
    assert list({line.number: line.text for line in lines}.values()) == ["0", "1", "2", "3", "4"]
    assert not run.active
    assert process.wait(10) == 0


@pytest.mark.parametrize("ends", ["raise ValueError('bad')", "with run: raise ValueError('bad')"])
def test_a_traceback_is_in_the_log(ends: str, tmp_path: Path) -> None:
    done = run_script(f'run = Run("x", repo=".")\nprint("begun")\n{ends}', tmp_path)
    assert done.returncode == 1
    found = texts(tmp_path, "x")
    assert "begun" in found
    assert found[-1] == "ValueError: bad"
    assert Repo(tmp_path).get_run("x").status == "failed"  # type: ignore[union-attr]


def test_runs_at_once_and_runs_that_record_nothing(tmp_path: Path) -> None:
    code = """
one, two = Run("one", repo="."), Run("two", repo=".")
off = Run("off", repo=".", capture_terminal_logs=False)
Run("one", repo=".", read_only=True)
print("both")
one.close()
print("two alone")
two.close()
Run("two", repo=".", read_only=True)
print("nobody")
assert not [thread for thread in threading.enumerate() if "terminal" in thread.name]
"""
    done = run_script(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "both\ntwo alone\nnobody\n", "")
    assert [texts(tmp_path, name) for name in ("one", "two", "off")] == [["both"], ["both", "two alone"], []]


def test_closed_descriptors_are_not_taken_for_files(tmp_path: Path) -> None:
    """A journal that became descriptor 1 is no stdout."""
    code = """
run = Run("x", repo=".")
run.track(1.0, name="loss")
os.system("echo nowhere")
run.log_text("told")
run.close()
assert Repo(".").check() == []
"""
    done = run_script(code, tmp_path, preexec_fn=lambda: os.closerange(0, 2))
    assert done.returncode == 0
    assert texts(tmp_path, "x")[-1] == "told"
    assert Repo(tmp_path).check() == []
