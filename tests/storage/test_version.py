"""The file VERSION: a damaged one stops nobody, is reported and mended; one of a newer format is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimlite import Repo, RepoFormatError, RepoNotFound, Run
from aimlite._ext.blocks import crc32c
from aimlite.storage.check import check
from aimlite.storage.layout import FORMAT, Layout, read_format, version_damage
from aimlite.storage.repair import _repair_version
from aimlite.storage.writer import end_segment

OLD = b'{"format": 1, "created_by": "aimlite 0.1.0"}\n'


def with_check(text: str) -> bytes:
    """The second implementation of the format."""
    body = text.rstrip("}\n").encode()
    return body + b', "crc": "%08x"}\n' % crc32c(body)


@pytest.fixture(params=["old", "new"])
def version(request: pytest.FixtureRequest, repo_path: str) -> Path:
    """The version file of a repo with a run, as 0.1.0 wrote it and as it is written now."""
    with Run("r", repo=repo_path) as run:
        run.track(1.0, name="m")
    end_segment(Repo(repo_path)._layout)
    path = Path(repo_path, ".aimlite", "VERSION")
    if request.param == "old":
        path.write_bytes(OLD)
    return path


def damages(content: bytes) -> Iterator[bytes | None]:
    """Every flip of a bit, every truncation, other contents, and none at all."""
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)
    for size in range(len(content)):
        yield content[:size]
    yield from (b"{", b"[]", b"null", b'{"format": "x"}', b"\0" * len(content), content * 2, None)


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def test_what_is_written(repo_path: str) -> None:
    Repo(repo_path).close()
    content = Path(repo_path, ".aimlite", "VERSION").read_bytes()
    assert content == with_check('{"format": 1, "created_by": "aimlite 0.1.0"}')
    assert set(json.loads(content)) == {"format", "created_by", "crc"}


def test_every_damage_is_told_from_a_newer_format_and_mended(version: Path) -> None:
    layout, content = Layout(version.parent), version.read_bytes()
    assert version_damage(layout) is None
    for damaged in damages(content):
        put(version, damaged)
        assert read_format(layout) == FORMAT, damaged
        assert version_damage(layout), damaged
        assert [problem.kind for problem in check(layout, full=False)] == ["version"], damaged
        assert Repo(layout.base.parent).list_all_runs() == ["r"], damaged
        assert (version.read_bytes() if version.exists() else None) == damaged, "nobody mends it in passing"
        (line,) = _repair_version(layout)
        assert "VERSION: written anew" in line
        assert version_damage(layout) is None
        assert read_format(layout) == FORMAT
    for kept in layout.damaged.iterdir():
        kept.unlink()


@pytest.mark.parametrize("damage", [b"", OLD[:20], OLD.replace(b"1,", b"9,"), OLD.replace(b"f", b"g"), None])
def test_reading_writing_checking_and_repairing(version: Path, damage: bytes | None) -> None:
    put(version, damage)
    root = version.parents[1]
    assert Repo.exists(root)
    assert Repo.get_version(root) == (FORMAT, 0)
    for read_only in (True, False):
        with Repo(root, read_only=read_only) as repo:
            assert repo.get_run("r").get_metric("m").values.tolist() == [1.0]
    with Run("written", repo=root) as run:
        run.track(2.0, name="m")
        run.sync()
    with Repo(root) as repo:
        repo.merge()
        assert repo.get_run("written").get_metric("m").values.tolist() == [2.0]
        (problem,) = repo.check()
        assert (problem.kind, problem.path) == ("version", str(version))
        (done,) = repo.repair()
        assert done.startswith("VERSION: written anew")
        assert repo.check() == repo.repair() == []
        kept = list((version.parent / "damaged").glob("VERSION-*"))
        assert [path.read_bytes() for path in kept] == ([] if damage is None else [damage])


def test_from_the_command_line(version: Path) -> None:
    version.write_bytes(version.read_bytes()[:-9])

    def aimlite(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aimlite", *arguments, "--repo", str(version.parents[1])]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    checked = aimlite("check")
    assert (checked.returncode, checked.stdout.split(":")[0]) == (1, "version")
    assert "VERSION: written anew" in aimlite("repair", "-y").stdout
    assert aimlite("check").returncode == 0


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": 2}',
        b'{"format": 2, "created_by": "aimlite 0.2.0"}\n',
        with_check('{"format": 2, "created_by": "aimlite 0.2.0"}'),
        with_check('{"format": 7, "created_by": "aimlite 0.1.0", "more": [1]}'),
        with_check('{"format": 2, "created_by": "aimlite 0.2.0"}').replace(b"0.2.0", b"0.3.0"),
    ],
)
def test_a_newer_format_is_refused(version: Path, content: bytes) -> None:
    """Also one whose check fails, as long as it is not ours with another number: nobody writes into what is not understood."""
    version.write_bytes(content)
    root = version.parents[1]
    for call in (lambda: Repo(root), lambda: Repo(root, read_only=True), lambda: Run(repo=root)):
        with pytest.raises(RepoFormatError, match=r"format [27]; this aimlite reads up to format 1: install a newer one"):
            call()
    assert [problem.kind for problem in check(Layout(version.parent))] == ["version"]


def test_what_is_no_repo(tmp_path: Path) -> None:
    base = tmp_path / ".aimlite"
    base.mkdir()
    (base / "VERSION").write_bytes(b"{")
    with pytest.raises(RepoFormatError, match="not the version file of a repo"):
        Repo(tmp_path)
    (base / "VERSION").unlink()
    with pytest.raises(RepoNotFound):
        Repo(tmp_path, read_only=True)
    (base / "journals").mkdir()  # whoever made it was killed
    with pytest.raises(RepoNotFound):
        Repo(tmp_path, read_only=True)
    assert Repo(tmp_path).check() == []
