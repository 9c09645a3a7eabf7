"""Reading changes no byte of a repo, makes nothing there and needs no permission to write: not a name, size, mode or time of a file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from aimlite import Image, Repo, Run, Text
from aimlite.storage.writer import end_segment

NOBODY = 65534

READ = """
    import json, os, sys
    from aimlite import Repo
    path, read_only, out, user = sys.argv[1], sys.argv[2] == "read_only", sys.argv[3], int(sys.argv[4])
    def read(out):
        with Repo(path, read_only=read_only) as repo:
            told = [sorted(repo.list_all_runs()), repo.total_runs_count(), sorted(repo.list_active_runs())]
            told += [repo.match_hashes("m"), [tag.name for tag in repo.tags()]]
            for run in repo.iter_runs():
                told += [run.hash, run[...], run.name, run.tags, run.status, run.description]
                told += [[m.name, m.values.tolist(), m.epochs.tolist(), len(m.timestamps.tolist())] for m in run.metrics()]
            run = repo.get_run("merged")
            told.append([image.width for image in run.get_image_sequence("pictures").values])
            told.append([[text.data for text in texts] for texts in run.get_text_sequence("words").values])
            told += [len(list(repo.query_metrics("metric.name == 'm'").iter())), len(list(repo.query_runs("run.p.lr == 0.5").iter_runs()))]
            told += [[str(p) for p in repo.check()], repo.stats()["runs"], repo.collect_sequence_info(["metric"])]
            repo.export_runs(os.path.join(out, f"{read_only}.zip"))
        return told
    if user:
        os.mkdir(os.path.join(out, "before"))
        read(os.path.join(out, "before"))  # what is imported late lies where that user may not look
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    print(json.dumps(read(out), default=str))
"""

COMMANDS = [
    *(["ls"], ["show", "merged"], ["query", "run.p.lr > 0.1"], ["params"], ["metrics"], ["stats"], ["check"], ["logs", "merged"]),
    ["export", "merged"],
]


def snapshot(base: Path) -> dict[str, object]:
    """Everything about the files of a repo."""
    found: dict[str, object] = {}
    for path in [base, *sorted(base.rglob("*"))]:
        told = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(told.st_mode) else None
        found[str(path.relative_to(base))] = (
            told.st_mode,
            told.st_uid,
            told.st_size,
            told.st_mtime_ns,
            told.st_ctime_ns,
            told.st_ino,
            content,
        )
    return found


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A repo with all there is to read: merged, in an ended journal, in blobs, in the trash."""
    path = tmp_path / "full"
    for name in ("merged", "second", "waiting", "gone"):
        with Run(name, repo=path) as run:
            run["p"] = {"lr": 0.5, "large": "x" * (1_200_000 if name == "merged" else 100)}
            run.track_columns("m", [float(k) for k in range(5000)])
            run.track(Image(np.eye(4, dtype=np.uint8) * 255), name="pictures", step=0)
            run.track([Text("a"), Text("b" * 1000)], name="words", step=1)
            run.add_tag("tagged")
        if name in ("merged", "second"):
            Repo(path).merge()
    Repo(path).delete_run("gone")
    end_segment(Repo(path)._layout)
    return path


def reading(path: Path, how: str, out: Path, user: int = 0) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(READ), str(path), how, str(out), str(user)]


def run_child(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("how", ["read_only", "not"])
def test_nothing_is_written(full: Path, tmp_path: Path, how: str) -> None:
    before = snapshot(full)
    told = json.loads(run_child(reading(full, how, tmp_path)))
    assert told[0] == ["merged", "second", "waiting"]
    assert snapshot(full) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_command_that_reads_writes(full: Path, command: list[str]) -> None:
    before = snapshot(full)
    run_child([sys.executable, "-m", "aimlite", "--repo", str(full), *command])
    assert snapshot(full) == before


def test_catching_up_writes_nothing(full: Path) -> None:
    """What a merge by another process changes is read, and that is all."""
    repo = Repo(full)
    for k in range(3):
        assert repo.get_run("merged") is not None
        with Run(f"next{k}", repo=full) as run:
            run.track(1.0, name="m")
        end_segment(repo._layout)
        Repo(full).merge()
        before = snapshot(full)
        assert repo.get_run(f"next{k}").get_metric("m").last == 1.0
        assert repo.check() == []
        assert snapshot(full) == before


def mounting_read_only(path: Path) -> str:
    """A command that mounts a directory so, in a namespace of mounts. Skips the test where that cannot be."""
    if os.getuid() != 0 or not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("SKIPPED: a mount that is read-only takes root on Linux and unshare")
    mounting = f"mount --make-rprivate / && mount --bind {path} {path} && mount -o remount,bind,ro {path}"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", mounting], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"SKIPPED: no namespace of mounts can be had here: {probe.stderr.strip()}")
    return mounting


def test_a_read_only_medium(full: Path, tmp_path: Path) -> None:
    mounting = mounting_read_only(full)
    expected = run_child(reading(full, "read_only", tmp_path))
    before = snapshot(full)
    for how in ("read_only", "not"):
        found = run_child(["unshare", "-m", "sh", "-c", f'{mounting} && exec "$@"', "sh", *reading(full, how, tmp_path)])
        assert json.loads(found) == json.loads(expected)
    for command in COMMANDS:
        line = [sys.executable, "-m", "aimlite", "--repo", str(full), *command]
        run_child(["unshare", "-m", "sh", "-c", f'{mounting} && exec "$@"', "sh", *line])
    assert snapshot(full) == before


BACK_UP = """
    import sys
    from pathlib import Path
    from aimlite.storage.backup import back_up, restore
    from aimlite.storage.layout import REPO_DIR, Layout
    {"back_up": back_up, "restore": restore}[sys.argv[1]](Layout(Path(sys.argv[2], REPO_DIR)), Path(sys.argv[3]))
"""


def test_a_backup_of_a_read_only_medium_and_from_one(full: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy", tmp_path / "again"
    for what, source, target in (("back_up", full, copy), ("restore", copy, again)):
        mounting = mounting_read_only(source)
        before = snapshot(source)
        command = [sys.executable, "-c", textwrap.dedent(BACK_UP), what, str(source), str(target)]
        run_child(["unshare", "-m", "sh", "-c", f'{mounting} && exec "$@"', "sh", *command])
        assert snapshot(source) == before
        with Repo(target) as repo:
            assert repo.check() == []
            assert sorted(repo.list_all_runs()) == ["merged", "second", "waiting"]


def test_a_repo_of_somebody_else(full: Path, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("SKIPPED: becoming somebody else takes root")
    expected = run_child(reading(full, "read_only", tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    before = snapshot(full)
    for parent in full.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    for how in ("read_only", "not"):
        shutil.rmtree(out / "before", ignore_errors=True)
        found = run_child(reading(full, how, out, NOBODY))
        assert json.loads(found) == json.loads(expected)
    assert snapshot(full) == before
