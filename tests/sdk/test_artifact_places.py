"""Places outside of a repo are touched only where its user named them; what a repo says of them may come from anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from aimlite import ArtifactError, Repo, Run
from aimlite.artifacts import trust
from aimlite.artifacts.places import Directory, open_place
from aimlite.artifacts.uploads import Stage
from aimlite.storage.layout import Layout

OPTIONS: dict[str, Any] = {"system_tracking_interval": None, "capture_terminal_logs": False}


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A file that is no business of any run's, in a home."""
    path = tmp_path / "home" / "Documents" / "thesis.tex"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"years")
    return path


def entry(thesis: Path, repo_path: str, **changes: Any) -> dict[str, Any]:
    import hashlib

    digest = hashlib.sha256(thesis.read_bytes()).hexdigest()
    uri = f"file://{thesis.parent.parent}"
    return {"path": "x", "size": 5, "hash": digest, "uri": uri, "repo": repo_path, "uploaded": digest} | changes


def crafted(thesis: Path, victim: Repo, tmp_path: Path, **changes: Any) -> Path:
    """An archive whose run claims that a file of the user's is its artifact."""
    with Repo(tmp_path / "attacker") as repo:
        with Run("Documents", repo=repo, **OPTIONS) as run:
            run._set_properties({"artifacts_uri": f"file://{thesis.parent.parent}"})
            run["__artifacts"] = {thesis.name: entry(thesis, victim.path, **changes)}
        repo.export_runs(tmp_path / "runs.zip")
    return tmp_path / "runs.zip"


def test_a_crafted_archive_reads_and_removes_nothing(repo: Repo, thesis: Path, tmp_path: Path) -> None:
    repo.import_runs(crafted(thesis, repo, tmp_path))
    artifact = repo.get_run("Documents").artifacts["thesis.tex"]
    with pytest.raises(ArtifactError, match=r"never named.*download\(trust_uri='file://"):
        artifact.download(tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.tex")) == []
    with pytest.warns(RuntimeWarning, match="is still at file://.*never named that place"):
        repo.delete_run("Documents", permanent=True)
    assert thesis.read_bytes() == b"years"


def test_nor_does_one_with_uploads_that_wait(repo: Repo, thesis: Path, tmp_path: Path) -> None:
    repo.import_runs(crafted(thesis, repo, tmp_path, uploaded="", hash="0" * 64))
    stage = Stage(repo._layout, "Documents")
    stage.root.mkdir(parents=True)
    stage.path("thesis.tex", "0" * 64).write_bytes(b"other")
    with pytest.warns(RuntimeWarning, match="they wait until you name it"):
        run = Run("Documents", repo=repo, **OPTIONS)
    (tmp_path / "model.pt").write_bytes(b"weights")
    with pytest.raises(ArtifactError, match=r"never named.*run\.set_artifacts_uri\("):
        run.log_artifact(tmp_path / "model.pt", "thesis.tex")
    run.close()
    assert thesis.read_bytes() == b"years"


def test_a_place_is_read_once_it_is_named(repo: Repo, thesis: Path, tmp_path: Path) -> None:
    repo.import_runs(crafted(thesis, repo, tmp_path))
    artifact = repo.get_run("Documents").artifacts["thesis.tex"]
    with pytest.raises(ValueError, match="must be exactly"):
        artifact.download(tmp_path / "out", trust_uri="file:///elsewhere")
    assert Path(artifact.download(tmp_path / "out", trust_uri=f"file://{thesis.parent.parent}/")).read_bytes() == b"years"
    assert artifact.download(tmp_path / "again")


READ = """
import sys
from aimlite import Repo
repo = Repo(sys.argv[1])
print(open(repo.get_run("r").artifacts["model.pt"].download(sys.argv[2])).read())
repo.delete_run("r", permanent=True)
"""


def test_what_one_process_logged_another_of_the_user_reads_and_removes(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("weights")
    with Run("r", repo=repo, **OPTIONS) as run:
        run.set_artifacts_uri(f"file://{tmp_path}/place")
        run.log_artifact(tmp_path / "model.pt")
    command = [sys.executable, "-W", "error", "-c", READ, str(repo.path), str(tmp_path / "out")]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout == "weights\n"
    assert list((tmp_path / "place").iterdir()) == []


def test_what_is_remembered_is_the_users_alone(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"file://{tmp_path}/place"
    trust.trust(uri, repo.path)
    monkeypatch.setattr(trust, "_named", set())
    assert trust.is_trusted(uri)
    assert trust.is_trusted(uri, repo.path)
    assert not trust.is_trusted(uri, str(tmp_path))
    assert not trust.is_trusted(uri + "/below")
    folder = Path(os.environ["XDG_CONFIG_HOME"], "aimlite", "artifact-places")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert not trust.is_trusted(uri)


def test_where_nothing_can_be_remembered_the_process_knows(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="only this process knows that you named 'file:///a/place'") as warned:
        trust.trust("file:///a/place", repo.path)
    assert len(warned) == 1
    assert trust.is_trusted("file:///a/place", repo.path)


@pytest.mark.parametrize("folder", ["..", ".", "", "a/b", "/etc", ".hidden", "a\0"])
def test_a_folder_is_the_hash_of_a_run(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a run hash"):
        open_place(f"file://{tmp_path}", folder)
    with pytest.raises(ValueError, match="a run hash"):
        Stage(Layout(tmp_path), folder)


@pytest.mark.parametrize("link", ["r", "r/sub", "r/sub/file"])
def test_symlinks_in_a_place_are_not_followed(link: str, tmp_path: Path, thesis: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "file").write_text("kept")
    (outside / "file").write_text("kept")
    at = tmp_path / "place" / link
    at.parent.mkdir(parents=True)
    at.symlink_to(outside / "file" if link.endswith("file") else outside)
    place = Directory(tmp_path / "place", "r")
    with open(tmp_path / "copy", "wb") as copy, pytest.raises(OSError, match=r"symlinks are not followed|no regular file"):
        place.get("sub/file", copy)
    for call in (place.size, place.remove):
        with pytest.raises(OSError, match=r"symlinks are not followed|no regular file"):
            call("sub/file")
    if not link.endswith("file"):
        with pytest.raises(OSError, match="symlinks are not followed"):
            place.put(thesis, "sub/file")
    assert {path.read_text() for path in outside.rglob("file")} == {"kept"}
    assert (tmp_path / "copy").read_bytes() == b""


def test_only_regular_files_are_read_and_removed(tmp_path: Path) -> None:
    (tmp_path / "r" / "directory").mkdir(parents=True)
    os.mkfifo(tmp_path / "r" / "fifo")
    place = Directory(tmp_path, "r")
    for name in ("directory", "fifo"):
        with open(tmp_path / "copy", "wb") as copy, pytest.raises(PermissionError, match="no regular file"):
            place.get(name, copy)
        with pytest.raises(PermissionError, match="no regular file"):
            place.remove(name)
        assert (tmp_path / "r" / name).exists()


@pytest.mark.parametrize("changes", [{"uri": 7}, {"hash": "../" * 21 + "x"}, {"hash": "G" * 64}, {"size": "5"}, {"path": None}])
def test_entries_that_are_none_are_passed_over(changes: dict[str, Any], repo: Repo, thesis: Path) -> None:
    with Run("Documents", repo=repo, **OPTIONS) as run:
        run["__artifacts"] = {"thesis.tex": entry(thesis, repo.path, **changes)}
    assert run.artifacts == {}
    assert run.artifacts_uri is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repo.delete_run("Documents", permanent=True)
    assert thesis.exists()
