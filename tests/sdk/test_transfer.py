"""Runs from one repo to another: copied, moved, through an archive; backups while others write; hostile archives; kills."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from aimlite import (
    ArchiveError,
    CorruptionError,
    ReadOnlyError,
    Repo,
    RepoExistsError,
    RepoNotFound,
    Run,
    RunActiveError,
    RunExistsError,
    RunNotFound,
    RunTrashed,
)
from aimlite._ext.blocks import encode_times, encode_values
from aimlite._ext.packed import packed_end
from aimlite.storage import params
from aimlite.storage.archive_file import MANIFEST, ArchiveReader, fingerprint
from aimlite.storage.blobs import list_blobs

LARGE = "x" * (1 << 20)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Repo]:
    with Repo(tmp_path / "other") as other:
        yield other
        assert other.check() == []


def record(repo: Repo, run_hash: str, merges: bool = False) -> None:
    """A run with something of everything, of two writers, partly merged."""
    with Run(run_hash, repo=repo, experiment="e", system_tracking_interval=None) as run:
        run["params"] = {"lr": 0.5, "t": (1, {2}), "when": datetime(2026, 1, 2), "array": np.arange(3), "large": LARGE}
        run["gone"] = 1
        del run["gone"]
        run.name = "n"
        run.add_tag("t")
        run.track_columns("noise", np.random.default_rng(0).random(5000), times=np.arange(5000.0))
        for step in (5, 2, 9):
            run.track(step, name="late", step=step, epoch=0.5, context={"s": (1, True)})
        run._track_items("texts", "said", [({"n": 1}, b"some text " * 40)])
        run._track_items("texts", "listed", [({"n": 2}, b"a"), ({"n": 3}, b"b" * 2000), ({"n": 4}, b"c" * (1 << 20))], True, 3)
    if merges:
        repo.merge()
    code = "import sys\nfrom aimlite import Run\nrun = Run(sys.argv[1], repo=sys.argv[2], system_tracking_interval=None)\n"
    code += "for k in range(10): run.track(k * 1.0, name='noise')\nrun.finish('failed')"
    subprocess.run([sys.executable, "-c", code, run_hash, repo.path], check=True)


def look(repo: Repo, run_hash: str) -> dict[str, Any]:
    """All that a run tells, through the SDK."""
    run = repo.get_run(run_hash)
    assert run is not None
    return {
        "state": (run.status, run.creation_time, run.end_time, run.updated_at, run.name, run.experiment, run.tags, run.archived),
        "params": repr(run[...]),
        "metrics": [
            (m.name, m.context.to_dict(), m.dtype, repr(m.values.sparse_list()), repr(m.epochs.values_list()), m.timestamps.values_list())
            for m in run.metrics()
        ],
        "print": repo._reader.read(lambda view: fingerprint(view, run_hash)),
        "texts": repr(run.collect_sequence_info("texts")),
    }


@pytest.mark.parametrize("merges", [False, True])
def test_a_copied_run_is_the_same(repo: Repo, other: Repo, merges: bool) -> None:
    record(repo, "a", merges)
    before = look(repo, "a")
    with Run("mine", repo=other) as mine:
        mine["p"] = LARGE
    assert repo.copy_runs(["a"], other.path) == (True, [])
    for _ in range(2):
        assert look(other, "a") == before
        assert look(repo, "a") == before
        assert other.list_all_runs() == ["mine", "a"]
        assert [found.run.hash for found in other.query_runs("run.params.lr == 0.5 and 't' in run.tags").iter_runs()] == ["a"]
        other.merge()
    assert len(list(list_blobs(other._layout.blobs))) == 2, "mine and its own"
    with Run("a", repo=other) as run:  # it goes on there
        run.track(1.0, name="noise")
    with pytest.raises(RunExistsError, match="'a'"):
        repo.copy_runs(["a"], other)
    other.delete_run("a")
    with pytest.raises(RunExistsError, match="trash"):
        repo.copy_runs(["a"], other)
    other.purge()
    assert repo.copy_runs(["a"], other) == (True, [])
    assert look(other, "a") == before


def test_a_moved_run_is_there_alone(repo: Repo, other: Repo) -> None:
    record(repo, "a")
    before = look(repo, "a")
    assert repo.move_runs(["a"], other) == (True, [])
    assert look(other, "a") == before
    assert repo.list_all_runs() == []
    assert list(list_blobs(repo._layout.blobs)) == []
    with Run("live", repo=repo) as run:
        run.track(1.0, name="m")
        with pytest.raises(RunActiveError, match="force=True"):
            repo.move_runs(["live"], other)
        assert repo.copy_runs(["live"], other) == (True, [])
        assert other.get_run("live").status == "interrupted"  # type: ignore[union-attr]


def test_what_cannot_be_copied_is_not(repo: Repo, other: Repo, tmp_path: Path) -> None:
    record(repo, "a")
    with pytest.raises(RunNotFound, match="'nobody'"):
        repo.copy_runs(["a", "nobody"], other)
    with pytest.raises(ValueError, match="already"):
        repo.copy_runs(["a"], repo.path)
    with pytest.raises(ReadOnlyError):
        repo.copy_runs(["a"], Repo(other.path, read_only=True))
    repo.delete_run("a")
    with pytest.raises(RunTrashed):
        repo.export_runs(tmp_path / "runs.zip", ["a"])
    assert other.list_all_runs() == []
    assert sorted(path.name for path in Path(other.path).iterdir() if path.name.startswith(".")) == []


def test_an_archive_holds_runs_exactly(repo: Repo, other: Repo, tmp_path: Path) -> None:
    for run_hash in "ab":
        record(repo, run_hash)
    assert repo.export_runs(tmp_path / "runs.zip") == ["b", "a"]
    before = {run_hash: look(repo, run_hash) for run_hash in "ab"}
    assert other.import_runs(tmp_path / "runs.zip") == ["b", "a"]
    assert {run_hash: look(other, run_hash) for run_hash in "ab"} == before
    with pytest.raises(RunExistsError, match="'b'"):
        other.import_runs(tmp_path / "runs.zip")
    assert other.import_runs(tmp_path / "runs.zip", skip_existing=True) == []
    other.delete_run("a", permanent=True)
    assert other.import_runs(tmp_path / "runs.zip", skip_existing=True) == ["a"]
    assert look(other, "a") == before["a"]
    with pytest.raises(FileNotFoundError):
        other.import_runs(tmp_path / "none.zip")


# -- hostile archives ----


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def entries_in(data: bytes) -> list[list[Any]]:
    entries, start = [], 0
    while start < len(data):
        end = packed_end(data, start)
        entries.append(params.unpackb(data[start:end]))
        start = end
    return entries


def with_entries(change: Callable[[list[list[Any]]], None], run_hash: str = "a") -> Callable[[dict[str, bytes]], None]:
    """Changes the entries of the run, and all checksums with them."""

    def apply(members: dict[str, bytes]) -> None:
        entries = entries_in(members["runs/0.entries"])
        change(entries)
        members["runs/0.entries"] = b"".join(map(params.packb, entries))
        manifest = json.loads(members[MANIFEST])
        manifest["runs"][0] |= {"sha256": hashlib.sha256(members["runs/0.entries"]).hexdigest(), "hash": run_hash}
        members[MANIFEST] = json.dumps(manifest).encode()

    return apply


def first(entries: list[list[Any]], kind: str) -> list[Any]:
    return next(entry for entry in entries if entry[0] == kind)


def twice(entries: list[list[Any]]) -> None:
    entries.insert(entries.index(first(entries, "block")), first(entries, "block"))


def manifest(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({MANIFEST: json.dumps(json.loads(members[MANIFEST]) | changes).encode()})


def blob_changes(members: dict[str, bytes]) -> None:
    name = next(name for name in members if name.startswith("blobs/"))
    members[name] = b"another"


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "newer": (manifest(format=99), "newer one"),
    "no manifest": (lambda members: members.pop(MANIFEST) and None, "no archive of runs"),
    "manifest of another shape": (manifest(runs=7), "no archive of runs"),
    "member missing": (lambda members: members.pop("runs/0.entries") and None, "missing"),
    "entries changed": (lambda members: members.update({"runs/0.entries": members["runs/0.entries"][:-1]}), "checksum|damaged"),
    "blob changed": (blob_changes, "blob"),
    "traversal in the hash": (with_entries(lambda entries: None, "../../etc"), "run hash"),
    "the catalog": (with_entries(lambda entries: None, ".catalog"), "run hash"),
    "another's entries": (with_entries(lambda entries: first(entries, "run").__setitem__(1, "b")), "another's"),
    "no end": (with_entries(lambda entries: entries.pop() and None), "no end"),
    "after the end": (with_entries(lambda entries: entries.append(["cover", ["x"], 1, 1])), "no place"),
    "unknown entry": (with_entries(lambda entries: entries.insert(1, ["__init__", 1])), "no place"),
    "private method": (with_entries(lambda entries: entries.insert(1, ["finish"])), "no place"),
    "block of noise": (with_entries(lambda entries: first(entries, "block").__setitem__(1, b"noise")), "does not decode"),
    "blocks twice": (
        with_entries(lambda entries: entries.insert(entries.index(first(entries, "block")), first(entries, "block"))),
        "order",
    ),
    "no sequence": (with_entries(lambda entries: entries.remove(first(entries, "sequence"))), "no sequence"),
    "content of another": (with_entries(lambda entries: first(entries, "content").__setitem__(2, b"another")), "not what was stored"),
    "content missing": (with_entries(lambda entries: entries.remove(first(entries, "content"))), "without its content"),
    "object missing": (with_entries(lambda entries: entries.remove(first(entries, "object"))), "without points or objects"),
    "path of a param": (with_entries(lambda entries: first(entries, "param").__setitem__(1, [1.5])), "neither a string nor an integer"),
    "arity": (with_entries(lambda entries: first(entries, "writer").append(1)), "does not decode"),
}


def changed(kind: str, place: int, value: Any) -> Callable[[dict[str, bytes]], None]:
    """The first entry of a kind with another value at a place."""
    return with_entries(lambda entries: first(entries, kind).__setitem__(place, value))


def added(*entry: Any, before: str = "end") -> Callable[[dict[str, bytes]], None]:
    return with_entries(lambda entries: entries.insert(entries.index(first(entries, before)), list(entry)))


def again(kind: str) -> Callable[[dict[str, bytes]], None]:
    return with_entries(lambda entries: entries.insert(entries.index(first(entries, kind)), first(entries, kind)))


def deep(depth: int) -> bytes:
    """Tuples inside one another, packed."""
    value = b"\1"
    for _ in range(depth):
        value = msgpack.packb(msgpack.ExtType(3, b"\x91" + value))
    return value


def resized(entries: list[list[Any]], size: int, of_blobs: bool = False) -> None:
    """Has an object, or a param, say of the content that it names that it has another size."""
    for entry in entries:
        named = params.unpackb(entry[-1]) if entry[0] in ("object", "param") else None
        items = named if entry[0] == "object" else [[{}, named]]
        for item in items if isinstance(items, list) else []:
            if isinstance(item[1], params.Blob) and (item[1].size >= 1 << 20) == of_blobs:
                item[1].size = size
                entry[-1] = params.packb(items if entry[0] == "object" else item[1])
                return
    raise AssertionError("there is none")


# Entries whose checksums are right and whose content no repo would have: what each says does not matter here, only that it is refused.
ODD: dict[str, Callable[[dict[str, bytes]], None]] = {
    "created at a fraction": changed("run", 2, 1.5),
    "created by a word": changed("run", 2, "now"),
    "created at no time": changed("run", 2, 2**60),
    "an order that is a bool": changed("run", 3, True),
    "a writer that is text": changed("writer", 1, "w"),
    "a writer too large": changed("writer", 1, 2**64),
    "a writer that is negative": changed("writer", 1, -1),
    "an entry of a writer that is a number": changed("writer", 2, params.packb(5)),
    "an entry of a writer with a status": changed("writer", 2, params.packb([1, 2, 3, "gone", 4, False, 0, 0])),
    "an entry of a writer that is cut short": changed("writer", 2, b"\x98\1"),
    "a writer twice": again("writer"),
    "a property called 5": changed("property", 1, 5),
    "a property twice": again("property"),
    "a property of no order": changed("property", 2, None),
    "a tag added by a word": added("property", "tag:x", 1, 1, params.packb("yes"), before="param"),
    "an error that is text": added("property", "error", 1, 1, params.packb("no"), before="param"),
    "an experiment that is a list": added("property", "experiment", 1, 1, params.packb([]), before="param"),
    "a param twice": again("param"),
    "a param that is a map": changed("param", 4, params.packb({"a": 1})),
    "a param that is cut short": changed("param", 4, b"\x92\1"),
    "a param as large as a blob": changed("param", 4, params.packb("x" * (1 << 20))),
    "a param too deep": changed("param", 4, deep(200)),
    "a param at a path too deep": changed("param", 1, ["a"] * 1001),
    "a param below another": with_entries(
        lambda entries: entries.insert(entries.index(first(entries, "param")), ["param", [*first(entries, "param")[1], "x"], 1, 1, b"\1"])
    ),
    "a param older than its cover": added("cover", [], 2**53, 1, before="sequence"),
    "a cover of a float": added("cover", [], 1.5, 1, before="sequence"),
    "a cover at no path": added("cover", "path", 1, 1, before="sequence"),
    "a sequence twice": with_entries(lambda entries: entries.insert(-1, [*first(entries, "sequence")])),
    "a sequence without a name": changed("sequence", 1, ""),
    "a sequence called 5": changed("sequence", 1, 5),
    "a sequence of no kind": changed("sequence", 1, ["", "x"]),
    "a sequence of three names": changed("sequence", 1, ["texts", "x", "y"]),
    "a context that is a list": changed("sequence", 2, ["a"]),
    "a context of bytes": changed("sequence", 2, {"a": b"x"}),
    "a context of NaN": changed("sequence", 2, {"a": float("nan")}),
    "a context too long": changed("sequence", 2, {"a": "x" * 5000}),
    "flags that there are not": changed("sequence", 3, 8),
    "no flags": changed("sequence", 3, 0),
    "flags of text": changed("sequence", 3, "1"),
    "a content twice the size": changed("content", 2, 5),
    "a content that nobody names": added("content", hashlib.sha256(b"y" * 300).digest(), b"y" * 300, before="sequence"),
    "a content that is said to be a blob": with_entries(lambda entries: resized(entries, 1 << 20)),
    "a content that is said to be shorter": with_entries(lambda entries: resized(entries, 300)),
    "a blob that is said to be longer": with_entries(lambda entries: resized(entries, 1 << 21, of_blobs=True)),
    "objects of no order": changed("object", 1, "1"),
    "objects that are a number": changed("object", 3, params.packb(5)),
    "objects twice": again("object"),
    "an entry of an entry": with_entries(lambda entries: entries.insert(1, ["cover", [[[[]]]], 1, 1])),
    "an entry of many items": with_entries(lambda entries: entries.insert(1, ["cover", [[]] * 30_000, 1, 1])),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive")
    with Repo(path / "repo") as repo:
        record(repo, "a", True)
        repo.export_runs(path / "runs.zip")
    return path / "runs.zip"


IMPORTING = """
import resource, sys
from pathlib import Path
from aimlite.errors import ArchiveError
from aimlite.storage.importing import import_archive
from aimlite.storage.layout import Layout

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

for path in sys.stdin.read().split():
    try:
        print("imported", peak(), *import_archive(Layout(Path(sys.argv[1])), Path(path), False), sep="\\t", flush=True)
    except ArchiveError as error:
        print("refused", peak(), repr(str(error)), sep="\\t", flush=True)
"""


def imported(repo: Repo, paths: list[Path]) -> list[tuple[bool, int, list[str]]]:
    """(whether it was imported, the peak of memory until then in bytes, the runs or the error) of each archive, one after the other in a
    process of its own, as every import runs. Nothing but ArchiveError may be raised."""
    command, names = [sys.executable, "-c", IMPORTING, repo.path], "\n".join(map(str, paths))
    done = subprocess.run(command, input=names, capture_output=True, text=True, check=False)
    told = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0, (paths[len(told)], done.stderr)
    return [(word == "imported", int(peak), rest) for word, peak, *rest in told]


def test_hostile_archives_are_refused_in_words(repo: Repo, archive: Path, tmp_path: Path) -> None:
    paths = []
    for number, (change, _) in enumerate(HOSTILE.values()):
        paths.append(rewritten(archive, change).rename(tmp_path / f"{number}.zip"))
    whole = archive.read_bytes()
    for number, cut in enumerate((0, 10, len(whole) // 2, len(whole) - 1)):
        paths.append(tmp_path / f"cut{number}.zip")
        paths[-1].write_bytes(whole[:cut])
    told = [" ".join(words) for _, _, words in imported(repo, paths)]
    for (name, (_, message)), line in zip(HOSTILE.items(), told, strict=False):
        assert re.search(message, line), f"{name}: {line}"
    assert all("no archive of runs" in line for line in told[len(HOSTILE) :]), told[len(HOSTILE) :]
    assert repo.list_all_runs() == []
    assert repo.check() == []
    repo.prune()
    assert list(list_blobs(repo._layout.blobs)) == []
    assert repo.import_runs(archive) == ["a"]


def test_odd_archives_are_refused(repo: Repo, archive: Path, tmp_path: Path) -> None:
    """With an ArchiveError, whatever is odd in them, and nothing stays."""
    paths = [rewritten(archive, change).rename(tmp_path / f"{number}.zip") for number, change in enumerate(ODD.values())]
    taken = [name for name, (is_imported, *_) in zip(ODD, imported(repo, paths), strict=True) if is_imported]
    assert taken == []
    assert repo.list_all_runs() == []
    assert repo.check() == []
    assert repo.import_runs(archive) == ["a"]


def test_what_a_small_archive_costs(repo: Repo, archive: Path, tmp_path: Path) -> None:
    """Each is a few kB; importing it, which fails, takes no more memory than importing a sound one, but for one param below 1 MiB."""
    count = 1 << 20
    huge = np.arange(count), np.zeros(count)
    values = encode_values(np.ascontiguousarray(huge[0], "<i8"), np.ascontiguousarray(huge[1], "<f8"))
    ones = np.ones(count, "<u8")
    times = encode_times(ones.view("<i8"), ones, ones, ones.astype("u1"), np.full(count, np.nan))

    def of_b(*entries: list[Any]) -> Callable[[dict[str, bytes]], None]:
        """Some entries more before the end, of a run that is not there yet."""

        def change(held: list[list[Any]]) -> None:
            first(held, "run")[1] = "b"
            held[-1:-1] = entries

        return with_entries(change, "b")

    bombs = [
        of_b(["sequence", "huge", {}, 2], ["block", values, times]),
        of_b(["cover", [[]] * 2_000_000, 1, 1]),
        of_b(["param", ["bomb"], 1, 1, params.packb([[]] * 2_000_000)]),
        of_b(["param", ["bomb"], 1, 1, b"\xdd\x7f\xff\xff\xff"]),
        manifest(runs=[[]] * 2_000_000),
        manifest(runs=json.loads("[" * 900 + "]" * 900)),
        lambda members: members.update({MANIFEST: b"[" * 200_000}),
    ]
    paths = [rewritten(archive, bomb).rename(tmp_path / f"{number}.zip") for number, bomb in enumerate(bombs)]
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # what zipfile unpacks whole, whatever is asked for
        paths.append(tmp_path / f"method{method}.zip")
        with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(paths[-1], "w", method) as packed:
            for name in whole.namelist():
                packed.writestr(name, whole.read(name) if name == MANIFEST else bytes(200 << 20))
    assert max(path.stat().st_size for path in paths) < archive.stat().st_size + 200_000
    (is_imported, before, _), *others = imported(repo, [archive, *paths])
    assert is_imported
    assert [words for is_imported, peak, words in others if is_imported or peak - before >= 64 << 20] == []


def test_bombs_do_not_go_off(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that unpacks to more than any has is refused before it is in memory, an archive larger than the disk before anything."""
    bomb = rewritten(archive, lambda members: members.update({"runs/0.entries": b"\xc6\x7f\xff\xff\xff" + b"\0" * (80 << 20)}))
    assert bomb.stat().st_size < 4 << 20
    with ArchiveReader(bomb) as reader, pytest.raises(ArchiveError, match="more than 67,108,864 bytes"):
        list(reader.entries(reader.runs[0]))
    with ArchiveReader(archive) as reader:
        reader.demand_room(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="unpacked, 5 are free"):
            reader.demand_room(tmp_path)


def test_memory_does_not_grow_with_points(repo: Repo, other: Repo, tmp_path: Path) -> None:
    """Neither of who writes an archive nor of who reads it: the peak of a process that takes ten times the points is about the same."""
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom aimlite import Repo\nfrom aimlite.storage.importing import import_archive\n"
        "if sys.argv[1] == 'export': Repo(sys.argv[2]).export_runs(sys.argv[3], [sys.argv[4]])\n"
        "else: import_archive(Repo(sys.argv[2])._layout, Path(sys.argv[3]), False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
    )

    def peak(*arguments: str) -> int:
        return int(subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True).stdout)

    peaks: dict[str, list[int]] = {"export": [], "import": []}
    for points in (100_000, 2_000_000):
        run_hash, path = f"r{points}", tmp_path / f"{points}.zip"
        with Run(run_hash, repo=repo, system_tracking_interval=None) as run:
            run.track_columns("noise", np.random.default_rng(0).random(points))
        repo.merge()
        peaks["export"].append(peak("export", repo.path, str(path), run_hash))
        peaks["import"].append(peak("import", other.path, str(path)))
        assert path.stat().st_size > 6 * points
    for small, large in peaks.values():
        assert large - small < 150 << 20, "points take 61 MiB and more, several times; a commit 32 MiB, in RocksDB too"


# -- kills ----

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from aimlite.storage import importing
    from aimlite.storage.layout import Layout
    from aimlite.storage.tree import TreeWriter
    importing._COMMIT_BYTES = 1000
    calls, original = int(sys.argv[3]), TreeWriter.commit
    def dies(*arguments):
        global calls
        calls -= 1
        if not calls:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)
    TreeWriter.commit = dies
    importing.import_archive(Layout(Path(sys.argv[1])), Path(sys.argv[2]), False)
    print(calls)
"""


@pytest.mark.parametrize("commit", [1, 2, 4, "last"])
def test_a_killed_import_leaves_nothing(repo: Repo, archive: Path, tmp_path: Path, commit: int | str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    if commit == "last":
        done = subprocess.run([*command, str(Repo(tmp_path / "count").path), str(archive), "1000"], capture_output=True, check=True)
        commit = 1000 - int(done.stdout)
    with Run("mine", repo=repo) as mine:
        mine.track(1.0, name="noise")
    assert subprocess.run([*command, repo.path, str(archive), str(commit)], check=False).returncode == -signal.SIGKILL
    assert repo.list_all_runs() == ["mine"]
    assert repo.check() == []
    with Run("a", repo=repo) as run:  # meanwhile somebody takes the hash
        run.track(2.0, name="noise")
    repo.merge()
    assert repo.get_run("a").get_metric("noise").values.values_list() == [2.0]  # type: ignore[union-attr]
    repo.delete_run("a", permanent=True)
    assert repo.import_runs(archive) == ["a"]


# -- backups ----

WRITING = """
    import sys
    from aimlite import Run
    run = Run(sys.argv[2], repo=sys.argv[1], system_tracking_interval=None)
    step = 0
    while True:
        run.track(float(step), name="m", step=step)
        if step % 50 == 0:
            run["p", str(step)] = step
            print(step, flush=True)
        if step % 2000 == 1999:
            run.repo._writer().end_segment()
        step += 1
"""


def test_a_backup_beside_writers_holds_what_was_acknowledged(repo: Repo, tmp_path: Path) -> None:
    record(repo, "old", True)
    before = look(repo, "old")
    count = 8 if os.environ.get("AIMLITE_STRESS") == "1" else 4
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITING), repo.path, f"w{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    try:
        acknowledged = []
        for writer in writers:
            assert writer.stdout is not None
            while (step := int(writer.stdout.readline())) < 500:
                pass
            acknowledged.append(step)
        made = repo.backup(tmp_path / "backup")
        repo.merge()
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    with Repo.restore_backup(made, tmp_path / "restored") as restored:
        assert restored.check() == []
        assert look(restored, "old") == before
        for number, step in enumerate(acknowledged):
            run = restored.get_run(f"w{number}")
            assert run is not None
            metric = run.get_metric("m")
            assert metric is not None
            steps, values = metric.values.sparse_numpy()
            assert len(steps) > step
            assert np.array_equal(steps, np.arange(len(steps)))
            assert np.array_equal(values, steps)
            assert run["p", str(step)] == step
            assert run.status == "interrupted"
        restored.merge()
        assert restored.check() == []
        with pytest.raises(RepoExistsError, match="not written over"):
            repo.backup(restored.path)
    with pytest.raises(RepoNotFound):
        Repo.restore_backup(tmp_path / "nothing", tmp_path / "more")


def test_a_damaged_backup_is_not_restored(repo: Repo, tmp_path: Path) -> None:
    record(repo, "a", True)
    made = Path(repo.backup(tmp_path / "backup"))
    (sst,) = (made / "tree").glob("*.sst")
    data = bytearray(sst.read_bytes())
    data[len(data) // 2] ^= 1
    sst.write_bytes(data)
    with pytest.raises(CorruptionError, match="backup is damaged"):
        Repo.restore_backup(made, tmp_path / "restored")
    assert not (tmp_path / "restored" / ".aimlite").exists()


def test_a_killed_backup_has_no_name(repo: Repo, tmp_path: Path) -> None:
    record(repo, "a", True)
    script = (
        "import os, signal, sys\nfrom aimlite import Repo\nfrom aimlite.storage import backup\n"
        "backup._copy_journals = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Repo(sys.argv[1]).backup(sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", script, repo.path, str(tmp_path / "backup")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not Repo.exists(tmp_path / "backup")
    repo.backup(tmp_path / "backup")
    assert Repo.exists(tmp_path / "backup")


# -- any content ----

ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        1,
        -1,
        2**53,
        2**53 + 1,
        2**63,
        2**64 - 1,
        1.5,
        float("nan"),
        "",
        "a",
        "trashed",
        "../x",
        b"",
        b"\x90",
        b"\xc1",
        bytes(32),
    ),
    *([], [[]], {}, {"a": 1}, ["texts", "t"], (1, 2), 2**70),
]


def garbled(rng: random.Random, entries: list[list[Any]], run_hash: str) -> list[list[Any]]:
    """The entries of another run, with a few changes: of a value, of the order, of what is there, of what is packed inside."""
    held = [[kind, *(list(each) if isinstance(each, list) else each for each in fields)] for kind, *fields in entries]
    held[0][1] = run_hash
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(held))
        match rng.randrange(6):
            case 0:
                del held[at]
            case 1:
                held.insert(rng.randrange(len(held) + 1), list(held[at]))
            case 2:
                held[at].insert(rng.randrange(len(held[at]) + 1), rng.choice(ODD_VALUES))
            case 3 | 4:
                held[at][rng.randrange(len(held[at]))] = rng.choice(ODD_VALUES)
            case _:
                packed = [place for place, value in enumerate(held[at]) if isinstance(value, bytes) and value]
                if packed:
                    place = rng.choice(packed)
                    changed = bytearray(held[at][place])
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                    held[at][place] = bytes(changed)
        if not held:
            break
    return held


def bear_archives(repo: Repo, archive: Path, folder: Path, seeds: range) -> int:
    """Imports garbled archives; what is imported must pass a full check and be readable. Returns how many were imported."""
    with zipfile.ZipFile(archive) as whole:
        entries = entries_in(whole.read("runs/0.entries"))
    paths = []
    for seed in seeds:
        content = garbled(random.Random(seed), entries, f"r{seed}")

        def change(members: dict[str, bytes], content: list[list[Any]] = content, seed: int = seed) -> None:
            members["runs/0.entries"] = b"".join(map(params.packb, content))
            listed = json.loads(members[MANIFEST])
            listed["runs"][0] |= {"sha256": hashlib.sha256(members["runs/0.entries"]).hexdigest(), "hash": f"r{seed}"}
            members[MANIFEST] = json.dumps(listed).encode()

        paths.append(rewritten(archive, change).rename(folder / f"{seed}.zip"))
    taken = [run_hash for is_imported, _, words in imported(repo, paths) if is_imported for run_hash in words]
    assert repo.check() == [], seeds
    assert set(repo.list_all_runs()) >= set(taken)
    for run_hash in taken:
        look(repo, run_hash)
    repo.delete_runs(taken, permanent=True)
    repo.prune()
    assert (repo.check(), repo.list_all_runs()) == ([], [])
    return len(taken)


def test_any_archive(repo: Repo, archive: Path, tmp_path: Path) -> None:
    assert bear_archives(repo, archive, tmp_path, range(100)) > 0


@pytest.mark.fuzz
def test_fuzz(repo: Repo, archive: Path, tmp_path: Path) -> None:
    ends, seed = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60")), random.randrange(2**40)
    while time.monotonic() < ends:
        folder = tmp_path / str(seed)
        folder.mkdir()
        bear_archives(repo, archive, folder, range(seed, seed + 100))
        shutil.rmtree(folder)
        seed += 100
