"""`aimlite logs`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from aimlite import Repo, Run


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aimlite", "logs", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_log_and_the_messages(tmp_path: Path) -> None:
    with Repo(tmp_path) as repo, Run("run-1", repo=repo, capture_terminal_logs=False) as run:
        run.log_text("one\ttab\n\x1b[2Jtwo")
        run._log_lines("three", "logging", 40)
        run.log_info("fine", epoch=1)
        run.log_error("bad")
    shown = command("run", cwd=tmp_path)
    assert (shown.returncode, [line[8:] for line in shown.stdout.splitlines()]) == (0, [" | one\ttab", " | two", " | three"])
    assert [line["text"] for line in json.loads(command("run", "--json", cwd=tmp_path).stdout)["lines"]] == ["one\ttab", "two", "three"]
    assert [line[11:] for line in command("run-1", "--level", "warning", cwd=tmp_path).stdout.splitlines()] == ["three"]
    assert [line[11:] for line in command("run-1", "--messages", cwd=tmp_path).stdout.splitlines()] == [
        "INFO | fine epoch=1",
        "ERROR | bad",
    ]
    messages = json.loads(command("run-1", "--messages", "--level", "40", "--json", cwd=tmp_path).stdout)["messages"]
    assert [(message["message"], message["log_level"]) for message in messages] == [("bad", "ERROR")]
    followed = command("run-1", "-f", "--json", cwd=tmp_path)
    assert [json.loads(line)["text"] for line in followed.stdout.splitlines()] == ["one\ttab", "two", "three"]
    for arguments, code in ((["nobody"], 3), (["run-1", "--level", "loud"], 2), (["run-1", "-f", "--messages"], 2)):
        assert command(*arguments, cwd=tmp_path).returncode == code


def test_following_a_run_of_another_process(tmp_path: Path) -> None:
    code = """
import sys, time
from aimlite import Run
run = Run("x", repo=".")
for number in range(4):
    print(number)
    time.sleep(0.2)
"""
    printing = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not (os.path.exists(tmp_path / ".aimlite") and Repo(tmp_path).get_run("x")):
        assert time.monotonic() < until
        time.sleep(0.02)
    followed = command("x", "--follow", cwd=tmp_path)
    assert [line[11:] for line in followed.stdout.splitlines()] == ["0", "1", "2", "3"]
    assert (followed.returncode, printing.wait(10)) == (0, 0)
