"""Files under temporary names that killed processes left, files that vanish while they are looked at, and the modes of what is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aimlite import Repo, Run
from aimlite.storage import blobs, check
from aimlite.storage.files import write_file
from aimlite.storage.layout import Layout
from aimlite.storage.writer import end_segment

HEX = "ab" * 31
TEMPORARY = "1234.0123abcd"  # as write_file ends names
OF_HOLDER = [  # made under the lease alone: they go at once
    f".generation.{TEMPORARY}",
    "tree.new/000004.sst",
    "tree.salvage/000004.sst",
    "tree.mending/CURRENT",
    "tree.mending.new/CURRENT",
    "tree.mended.new/CURRENT",
    f"journals/.0123456789abcdef-00000000.journal.{TEMPORARY}",
    f"blobs/ab/..{HEX}.lost.{TEMPORARY}",
]
OF_ANYBODY = [  # may be somebody's who lives: they go when they are old
    f".VERSION.{TEMPORARY}",
    "journals/.0123456789abcdef-00000000.journal",
    "blobs/new/1234.0123456789abcdef",
    f"blobs/ab/.{HEX}.{TEMPORARY}",
    "uploads/a/.1234.0123456789abcdef",
    ".incoming-1234-0123abcd.zip",
    "..incoming-1234-0123abcd.zip.1234.part",
]
KEPT = [
    f"blobs/ab/.{HEX}.lost",
    "uploads/a/0123456789abcdef-0123",
    "uploads/a/lock",
    "files/a/.hidden",
    "damaged/tree-1/CURRENT",
    "damaged/.generation.1234.0123abcd",
]


def make(base: Path, names: list[str], age_s: float) -> None:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        os.utime(path, (time.time() - age_s,) * 2)


def left(base: Path, names: list[str]) -> list[str]:
    return [name for name in names if (base / name).exists()]


@pytest.mark.parametrize("what", ["nothing", "tree", "journals"])
@pytest.mark.parametrize("task", ["merge", "prune", "repair"])
def test_who_has_the_lease_removes_what_killed_processes_left(repo: Repo, what: str, task: str) -> None:
    base = Path(repo.path)
    if what != "nothing":
        with Run("a", repo=repo) as run:
            run.track(1.0, name="m")
        end_segment(repo._layout)
    if what == "tree":
        repo.merge()
        make(base, ["tree.mended/CURRENT"], 0)  # there is a tree, so it is of a repair that did not come to set that aside
    make(base, [*OF_HOLDER, *OF_ANYBODY], 0)
    make(base, KEPT, 1e6)
    getattr(repo, task)()
    assert left(base, [*OF_HOLDER, "tree.mended"]) == []
    assert left(base, OF_ANYBODY) == OF_ANYBODY, "they are young"
    make(base, OF_ANYBODY, 90_000)
    getattr(repo, task)()
    assert left(base, OF_ANYBODY) == []
    assert left(base, KEPT) == KEPT
    assert repo.check() == []
    shutil.rmtree(base / "blobs" / "ab")


def test_an_archive_waits_longer_than_other_files(repo: Repo) -> None:
    make(Path(repo.path), OF_ANYBODY, 7200)
    repo.merge()
    assert left(Path(repo.path), OF_ANYBODY) == OF_ANYBODY[-2:]


def test_a_blob_that_somebody_was_killed_while_deleting_is_put_back(repo: Repo) -> None:
    with Run("a", repo=repo) as run:
        run["p"] = "x" * (1 << 20)
        run["q"] = "y" * (1 << 20)
    again, (path, other) = run, sorted(blobs.list_blobs(repo._layout.blobs))
    blobs.take_away(path)
    blobs.take_away(other)
    shutil.copyfile(blobs.leaving_path(other), other)  # it was stored again
    blobs.leaving_path(other).write_bytes(b"damaged")
    repo.merge()
    assert sorted(blobs.list_blobs(repo._layout.blobs)) == [path, other]
    assert [path for path in blobs.list_files(repo._layout.blobs) if path.name.endswith(blobs.LEAVING)] == []
    assert again["p"] == "x" * (1 << 20)
    assert again["q"] == "y" * (1 << 20)


@pytest.mark.parametrize("link", ["uploads", "uploads/a", "journals-", "blobs/new", "blobs/aa", "files"])
def test_links_are_not_followed_out_of_the_repo(repo: Repo, tmp_path: Path, link: str) -> None:
    """Whoever can write to a repo could have the next merge or deletion of somebody else remove that one's files."""
    with Run("a", repo=repo) as run:
        run["p"] = 1
    repo.merge()
    home = tmp_path / "home"
    kept = [home / ".ssh/key", home / "a/thesis", home / "a/.profile", home / f".{'0' * 62}.1.{'0' * 8}", home / f".{'0' * 62}.leaving"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    for directory in (home / ".ssh", home / "a", home):
        os.utime(directory, (0, 0))
    place = repo._layout.base / link.rstrip("-")
    if place.is_dir():
        if link == "journals-":
            shutil.rmtree(place)
        else:
            place.rmdir()
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(home)
    repo.merge()
    repo.delete_run("a", permanent=True)
    repo.prune()
    assert [path.read_text() for path in kept] == ["mine"] * len(kept)
    place.unlink()
    if link == "journals-":
        place.mkdir()


def test_a_tree_that_is_gone_is_not_replaced_by_an_empty_one(repo_path: str) -> None:
    repo = Repo(repo_path)
    with Run("a", repo=repo) as run:
        run.track(1.0, name="m")
    repo.merge()
    with Run("b", repo=repo) as run:
        run.track(1.0, name="m")
    end_segment(repo._layout)
    tree = repo._layout.tree
    tree.rename(tree.with_name("elsewhere"))
    for task in (repo.merge, repo.prune, lambda: repo.delete_run("b", permanent=True)):
        with pytest.raises(ValueError, match=r"the tree (is gone|cannot be brought)"):
            task()
        assert not tree.exists()
    tree.with_name("elsewhere").rename(tree)
    repo.merge()
    assert set(repo.list_all_runs()) == {"a", "b"}
    assert repo.check() == []


def test_a_check_beside_who_deletes(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files vanish between being listed and being looked at; that is no problem of the repo, and no exception."""
    for run_hash in "abc":
        with Run(run_hash, repo=repo) as run:
            run["p"] = run_hash * (1 << 20)
            run.track(1.0, name="m")
        end_segment(repo._layout)
    original, deleted = check.list_blobs, iter("ab")

    def list_and_delete(folder: Path) -> list[Path]:
        found = sorted(original(folder))
        repo.delete_run(next(deleted), permanent=True)
        return found

    monkeypatch.setattr(check, "list_blobs", list_and_delete)
    assert repo.check() == []
    missing = check.missing_blobs

    def missing_of_the_past(layout: Layout) -> list[tuple[bytes, str, str]]:
        monkeypatch.setattr(check, "missing_blobs", missing)
        return [(b"1" * 32, "gone", "param")]

    monkeypatch.setattr(check, "missing_blobs", missing_of_the_past)
    assert repo.check() == []
    monkeypatch.setattr(check, "list_blobs", original)
    view, turns = check._view_of_journals, []

    def vanishing(layout: Layout) -> object:
        turns.append(layout)
        if len(turns) < 3:
            raise FileNotFoundError
        return view(layout)

    monkeypatch.setattr(check, "_view_of_journals", vanishing)
    assert repo.check() == []
    assert len(turns) == 3


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_files_get_the_modes_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    script = """
import os, sys
os.umask(int(sys.argv[2]))
from aimlite import Repo, Run
repo = Repo(sys.argv[1])
with Run("a", repo=repo) as run:
    run["p"] = "x" * (1 << 20)
    run.track(1.0, name="m")
repo.merge()
Run("b", repo=repo).close()
from pathlib import Path
journal = next(Path(repo.path, "journals").iterdir())
journal.write_bytes(journal.read_bytes()[:-3] + b"abc")
Path(repo.path, "VERSION").write_bytes(b"damaged")
Path(repo.path, "CURRENT").unlink(missing_ok=True)
sst = next(Path(repo.path, "tree").glob("*.sst"))
sst.write_bytes(sst.read_bytes()[:300] + b"abc" + sst.read_bytes()[303:])
repo.repair()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(mask)], check=True, env={**os.environ, "AIMLITE_MERGE": "off"})
    base = tmp_path / ".aimlite"
    ours = [path for path in base.rglob("*") if path.is_file() and path.relative_to(base).parts[0] not in ("tree", "damaged")]
    assert {"VERSION", "generation", "lease"} < {path.name for path in ours}
    assert {oct(path.stat().st_mode & 0o777) for path in ours} == {oct(0o666 & ~mask)}
    assert {oct(path.stat().st_mode & 0o777) for path in base.rglob("*") if path.is_dir()} == {oct(0o777 & ~mask)}


def test_write_file_leaves_nothing_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                write_file(tmp_path / "a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_exports_and_backups_left_goes_with_the_next(repo: Repo, tmp_path: Path) -> None:
    with Run("a", repo=repo) as run:
        run.track(1.0, name="m")
    target = tmp_path / "target"
    parts = [".runs.zip.1234.part", ".aimlite.1234.part/VERSION", ".m.csv.1234.part"]
    others = [".other.zip.1234.part", "runs.zip.part", "1234.part"]
    make(target, [*parts, *others], 90_000)
    make(target, [".runs.zip.99.part"], 0)
    os.utime(target / ".aimlite.1234.part", (time.time() - 90_000,) * 2)
    repo.export_runs(target / "runs.zip")
    repo.backup(target)
    command = [sys.executable, "-m", "aimlite", "--repo", repo.path, "export", "a", "-o", str(target / "m.csv")]
    subprocess.run(command, check=True)
    assert left(target, [parts[0], ".aimlite.1234.part", parts[2]]) == []
    assert left(target, others) == others
    assert left(target, [".runs.zip.99.part"]), "it is young"
