"""A full disk: an OSError and nothing else. What was acknowledged before stays, and writing goes on when there is room."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlite import Repo, Run
from aimlite._ext import journal as ext
from aimlite._ext.recorder import Recorder
from aimlite.storage.writer import Writer

LIMIT = 200_000


def limited_child(script: str, *arguments: str, size: int = LIMIT) -> subprocess.CompletedProcess[str]:
    """A process none of whose files may grow past `size` bytes; the soft limit alone, so that it can make room again."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


WRITER = """
    import json, resource, sys
    from aimlite import Run
    run = Run("r", repo=sys.argv[1])
    acknowledged, errors = 0, []
    def fill(write):
        global acknowledged
        for _ in range(100_000):
            try:
                write()
            except OSError as error:
                errors.append(error.errno)
                return
            acknowledged += 1
    fill(lambda: run.track(1.0, name="scalar"))
    fill(lambda: run.track({f"d{k}": 2.0 for k in range(10)}))
    fill(lambda: run.track_columns("columns", [3.0] * 50_000))
    params = 0
    try:
        while True:
            run["p", f"k{params}"] = {"x": "v" * 100, "y": params}
            params += 1
    except OSError as error:
        errors.append(error.errno)
    for _ in range(3):
        try:
            run.track(1.0, name="scalar")
            acknowledged += 1
        except OSError as error:
            errors.append(error.errno)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    scalars_before = run.get_metric("scalar").count
    run.track(9.0, name="scalar")
    run["after"] = True
    run.track_columns("columns", [3.0] * 50_000)
    run.close()
    print(json.dumps([scalars_before, params, errors]))
"""


def test_a_journal_that_cannot_grow(repo: Repo, repo_path: str) -> None:
    done = limited_child(WRITER, repo_path)
    assert done.returncode == 0, done.stderr
    scalars, params, errors = json.loads(done.stdout)
    assert set(errors) <= {errno.EFBIG, errno.ENOSPC}
    assert len(errors) >= 4
    assert scalars > 1000
    for _ in range(2):
        run = repo.get_run("r")
        assert run.status == "finished"
        assert run.get_metric("scalar").values.tolist() == [1.0] * scalars + [9.0]
        assert run.get_metric("columns").values.tolist() == [3.0] * 50_000
        assert len({metric.count for metric in run.metrics() if metric.name.startswith("d")}) <= 1, "a dict is whole or not there"
        found = run["p"] if params else {}
        assert [found[f"k{i}"] for i in range(params)] == [{"x": "v" * 100, "y": i} for i in range(params)]
        assert len(found) == params
        assert run["after"] is True
        assert repo.check() == []
        repo.merge()


def test_a_merge_that_cannot_write_loses_nothing(repo: Repo, repo_path: str) -> None:
    values = [random.Random(i).random() for i in range(60_000)]
    with Run("r", repo=repo) as run:
        run.track_columns("m", values)
        run["p"] = {"a": 1}
    with Run("old", repo=repo) as run:
        run.track(1, name="m")
    repo.merge()
    with Run("r", repo=repo) as run:
        run.track_columns("m", values)
        run["p"] = {"b": 2}

    def look() -> None:
        found = repo.get_run("r")
        assert found.get_metric("m").values.tolist() == values * 2
        assert found["p"] == {"b": 2}
        assert repo.get_run("old").get_metric("m").values.tolist() == [1.0]
        assert repo.total_runs_count() == 2
        assert repo.check() == []

    script = "import sys; from aimlite import Repo; Repo(sys.argv[1]).merge()"
    from aimlite.storage.writer import end_segment

    end_segment(repo._layout)
    for size in (0, 1000, 20_000, 100_000):
        done = limited_child(script, repo_path, size=size)
        assert done.returncode != 0, f"{size} bytes are enough for a merge"
        assert "Error" in done.stderr
        look()
    assert repo.merge()["segments"] >= 1
    look()
    assert not list(Path(repo_path, ".aimlite", "journals").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("SKIPPED: mounting a small file system takes root on Linux; RLIMIT_FSIZE above stands for it")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"SKIPPED: no small file system can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_file_system_that_is_full(small_disk: Path) -> None:
    path = small_disk / "repo"
    run = Run("r", repo=path)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (3 << 20))
    acknowledged = 0
    reason: int | None = 0
    while reason == 0:
        try:
            run.track_columns("m", [0.1 + acknowledged] * 1000)
            acknowledged += 1
        except OSError as error:
            reason = error.errno
    assert reason == errno.ENOSPC
    with pytest.raises(OSError, match="space"):
        run["big"] = "x" * 2_000_000
    with pytest.raises(OSError, match="space"):
        Run(repo=path)["a"] = "x" * 500_000
    assert run.get_metric("m").count == 1000 * acknowledged
    with pytest.raises(OSError, match="space"):
        run.repo.merge()
    assert run.get_metric("m").count == 1000 * acknowledged
    filler.unlink()
    run.track_columns("m", [0.5] * 1000)
    run["big"] = "x" * 100_000
    run.close()
    run.repo.merge()
    assert run.get_metric("m").count == 1000 * (acknowledged + 1)
    assert run["big"] == "x" * 100_000
    assert run.repo.check() == []


def test_a_failed_fsync_begins_a_new_segment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe takes writes at no offset and no fsync: what the journal does with a descriptor that fails."""
    monkeypatch.setattr(Writer, "_is_orphaned", lambda self: False)  # it would see that the pipe is not the file
    run = Run("r", repo=repo, durability="process")
    run.track(1, name="m")
    writer = repo._writer()
    before = writer.journal.segment
    read_end, write_end = os.pipe()
    kept = os.dup(writer.journal.fileno())
    os.dup2(write_end, writer.journal.fileno())
    try:
        with pytest.raises(OSError, match="new segment"):
            run.sync()
        assert writer.journal.poisoned
    finally:
        os.dup2(kept, writer.journal.fileno())
        for fd in (read_end, write_end, kept):
            os.close(fd)
    run.track(2, name="m")
    assert writer.journal.segment == before + 1
    assert not writer.journal.poisoned
    run.close()
    assert run.get_metric("m").values.tolist() == [1.0, 2.0]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The journal on /dev/full, where every write fails, then on a file."""
    if not os.path.exists("/dev/full"):
        pytest.skip("SKIPPED: there is no /dev/full here")

    def never() -> None:
        raise AssertionError

    journal = ext.JournalWriter(never, never)
    full = os.open("/dev/full", os.O_RDWR)
    journal.attach(full, 1, 0, 5)
    recorder = Recorder(journal, 0, "r")
    for call in (
        lambda: recorder.track(1.0, "m"),
        lambda: recorder.track({"a": 1.0, "b": 2.0}),
        lambda: recorder.append([(ext.PROPERTY, b"\0\0\0\0x")]),
    ):
        with pytest.raises(OSError, match="nothing of this write was kept"):
            call()
    assert journal.offset == ext.FILE_HEADER_SIZE
    path = tmp_path / "journal"
    path.write_bytes(ext.encode_file_header(1, 0, 5, 0))
    ext.close(journal.detach())
    journal.attach(os.open(path, os.O_RDWR), 1, 0, 5)
    recorder.track(1.0, "m")
    recorder.track({"a": 1.0, "b": 2.0})
    data = path.read_bytes()
    reader = ext.JournalReader(data[:40], 1, 0)
    reader.feed(data[40:], True)
    assert reader.damage == []
    assert [kind for kind, *_ in reader.meta] == [ext.OPEN, ext.SEQUENCE, ext.SEQUENCE, ext.SEQUENCE]
    assert [reader.count(number, 1 << 40) for number in range(3)] == [1, 1, 1]
    ext.close(journal.detach())
