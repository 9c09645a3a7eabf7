"""A repo that several users share: each file has the mode that its maker's umask gives, so each of a group can do what the others can."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlite.storage import generation
from aimlite.storage.layout import Layout

GROUP, ONE, OTHER = 54321, 54322, 54323

ACT = """
    import json, os, shutil, signal, sys, tempfile
    from pathlib import Path
    from aimlite import Image, Repo, Run
    from aimlite.storage import generation, tree
    from aimlite.storage.deletion import delete, prune
    from aimlite.storage.layout import Layout
    from aimlite.storage.merge import merge
    from aimlite.storage.repair import repair
    from aimlite.storage.writer import end_segment
    import numpy
    root, user, group, umask, killed, *actions = sys.argv[1:]

    def act(root, actions):
        told, layout = [], Layout(Path(root) / ".aimlite")
        for action in actions:
            what, _, name = action.partition(":")
            if what == "write":
                with Run(name, repo=root) as run:
                    run["p"] = {"lr": 0.5, "large": "x" * 1_200_000}
                    run.track_columns("m", [float(k) for k in range(3000)])
                    run.track(Image(numpy.eye(8)), name="pictures")
                end_segment(Repo(root)._layout)
            elif what == "merge":
                told.append(merge(layout, wait=True).segments)
            elif what == "prune":
                prune(layout)
            elif what == "delete":
                delete(layout, [name], [])
            elif what == "repair":
                told.append(len(repair(layout)))
            elif what == "damage":
                path = next(path for path in layout.tree.iterdir() if path.name.startswith("MANIFEST"))
                path.write_bytes(path.read_bytes()[:-1])
            elif what == "look":
                with Repo(root) as repo:
                    told.append([sorted(repo.list_all_runs()), [str(problem) for problem in repo.check()]])
        return told

    if user != "-":
        before = tempfile.mkdtemp()  # what is imported late lies where that user may not look
        act(before, ["write:x", "merge:", "write:y", "merge:", "prune:", "damage:", "repair:", "delete:x", "look:"])
        shutil.rmtree(before)
        os.setgroups([int(group)])
        os.setgid(int(group))
        os.setuid(int(user))
        os.environ["HOME"] = "/"
        os.umask(int(umask, 8))
    else:
        os.umask(int(umask, 8))
    calls = []
    def dies(self, path):
        calls.append(path)
        if len(calls) == int(killed):
            os.kill(os.getpid(), signal.SIGKILL)
    if int(killed):
        tree._FileMode.give = dies
    print(json.dumps(act(root, actions)))
"""


def act(root: Path, user: int | None, *actions: str, umask: int = 0o002, killed: int = 0) -> list[object]:
    """Does things as a user, one after the other. killed: at which giving of modes to files the process is."""
    command = [sys.executable, "-c", textwrap.dedent(ACT), str(root), "-" if user is None else str(user), str(GROUP), f"{umask:o}"]
    done = subprocess.run([*command, str(killed), *actions], capture_output=True, text=True, timeout=120, check=False)
    if killed:
        assert done.returncode == -signal.SIGKILL, done.stderr
        return []
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def wrong_modes(root: Path, umask: int) -> list[tuple[str, str]]:
    found = []
    for path in root.rglob("*"):
        told = path.lstat()
        if stat.S_ISREG(told.st_mode) and stat.S_IMODE(told.st_mode) != 0o666 & ~umask:
            found.append((str(path.relative_to(root)), oct(told.st_mode)))
        if stat.S_ISDIR(told.st_mode) and stat.S_IMODE(told.st_mode) & 0o777 != 0o777 & ~umask:
            found.append((str(path.relative_to(root)), oct(told.st_mode)))
    return found


EVERYTHING = ["write:a", "merge:", "write:b", "merge:", "prune:", "delete:a", "write:c", "merge:", "damage:", "repair:", "write:d", "look:"]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077, 0o000, 0o007], ids=oct)
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "repo"
    told = act(root, None, *EVERYTHING, umask=umask)
    assert told[-1] == [["b", "c", "d"], []]
    assert wrong_modes(root, umask) == []


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of a group of two users."""
    if os.getuid() != 0:
        pytest.skip("SKIPPED: becoming two other users takes root")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        root = Path(directory, "shared")
        root.mkdir()
        os.chown(root, 0, GROUP)
        root.chmod(0o2775)
        yield root


def test_each_of_a_group_can_do_what_the_others_can(shared: Path) -> None:
    runs: list[str] = []
    for k, user in enumerate([ONE, OTHER, ONE, OTHER]):
        told = act(shared, user, f"write:run{k}", "merge:", "prune:", "look:")
        runs.append(f"run{k}")
        assert told == [1, [runs, []]]
        assert wrong_modes(shared, 0o002) == []
    for user, gone in ((OTHER, "run0"), (ONE, "run1")):
        runs.remove(gone)
        assert act(shared, user, f"delete:{gone}", "merge:", "look:") == [0, [runs, []]]
    for user in (ONE, OTHER):
        assert act(shared, user, "damage:", "repair:", "look:")[-1] == [runs, []]
        assert wrong_modes(shared, 0o002) == []
    assert act(shared, ONE, "merge:", "look:") == [0, [runs, []]]
    assert wrong_modes(shared, 0o002) == []


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_a_merge_that_is_killed_hinders_nobody(shared: Path, killed: int) -> None:
    """1: the first tree is made and not yet named, 2: opened, 3: the batch is committed; the mode of none of its files is set."""
    act(shared, ONE, "write:a")
    act(shared, ONE, "merge:", killed=killed)
    told = act(shared, OTHER, "write:b", "merge:", "look:")
    assert told[-1] == [["a", "b"], []]
    act(shared, OTHER, "write:c")
    act(shared, OTHER, "merge:", killed=1)
    assert act(shared, ONE, "merge:", "damage:", "repair:", "prune:", "look:")[-1] == [["a", "b", "c"], []]
    listed = set(generation.read_generation(Layout(shared / ".aimlite"))[1])
    assert [found for found in wrong_modes(shared / ".aimlite" / "tree", 0o002) if found[0] in listed] == []


def test_a_tree_of_an_older_version_is_no_hindrance(shared: Path) -> None:
    """All of whose files are 0644, those too that RocksDB opens for writing."""
    act(shared, ONE, "write:a", "merge:")
    for path in (shared / ".aimlite" / "tree").iterdir():
        path.chmod(0o644)
    assert act(shared, OTHER, "write:b", "merge:", "prune:", "look:") == [1, [["a", "b"], []]]
    assert act(shared, ONE, "merge:", "look:") == [0, [["a", "b"], []]]
    assert wrong_modes(shared, 0o002) == []
