"""Files as blobs: once, whole, in constant memory, and right again when they were damaged."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aimlite import Repo, Run
from aimlite.errors import CorruptionError
from aimlite.storage import blobs as blobs_module
from aimlite.storage import params
from aimlite.storage.blobs import NEW, BlobFiles, blob_path, copy_blob, list_blobs, put_blob, verify_blob


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    return tmp_path / "blobs"


def put(blobs: Path, path: Path) -> tuple[bytes, int]:
    with BlobFiles(blobs) as stored, open(path, "rb") as file:
        return stored.add_file(file)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000])
def test_files_of_every_size(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Below, at and above the size from which a file is read in pieces."""
    monkeypatch.setattr(blobs_module, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(blobs_module, "PIECE_BYTES", 300)
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    for _ in range(2):
        assert put(blobs, tmp_path / "file") == (hashlib.sha256(content).digest(), size)
        assert [path.read_bytes() for path in list_blobs(blobs)] == [content]
    assert not any((blobs / NEW).iterdir())
    copy = io.BytesIO()
    assert copy_blob(blobs, hashlib.sha256(content).digest(), copy) == size
    assert copy.getvalue() == content


@pytest.mark.parametrize("size", [10, 5000])
def test_a_damaged_one_is_put_right(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(blobs_module, "_WHOLE_BYTES", 1000)
    (tmp_path / "file").write_bytes(bytes(size))
    digest, _ = put(blobs, tmp_path / "file")
    blob_path(blobs, digest).write_bytes(b"1" * size)
    with pytest.raises(CorruptionError):
        verify_blob(blob_path(blobs, digest), digest)
    with pytest.raises(CorruptionError):
        copy_blob(blobs, digest, io.BytesIO())
    put(blobs, tmp_path / "file")
    verify_blob(blob_path(blobs, digest), digest)


def test_many_at_once_and_each_once(blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_BATCH_FILES", 100)
    contents = [str(at % 250).encode() for at in range(1000)]
    with BlobFiles(blobs) as stored:
        digests = [stored.add(content) for content in contents]
    assert digests == [hashlib.sha256(content).digest() for content in contents]
    assert sorted(path.read_bytes() for path in list_blobs(blobs)) == sorted(set(contents))
    assert put_blob(blobs, b"7") == digests[7]
    assert not any((blobs / NEW).iterdir())


def test_what_fails_leaves_nothing(blobs: Path) -> None:
    def fail() -> None:
        with BlobFiles(blobs) as stored:
            stored.add(b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(list_blobs(blobs)) == []
    assert not any((blobs / NEW).iterdir())


def test_what_a_killed_process_left_is_removed(repo: Repo) -> None:
    new = Path(repo.path, "blobs", NEW)
    new.mkdir()
    for name, age_s in (("old", 7200), ("young", 0)):
        (new / name).write_bytes(b"1")
        os.utime(new / name, (time.time() - age_s,) * 2)
    Run(repo=repo).close()
    repo.merge()
    assert [path.name for path in new.iterdir()] == ["young"]
    (new / "young").unlink()


def test_leaves_that_name_blobs() -> None:
    leaf = params.Blobs((b"1" * 32, b"2" * 32))
    assert params.unpackb(params.packb(leaf)) == leaf
    assert params.unpackb(params.packb(params.Blobs(()))) == params.Blobs(())
    assert params.blob_digests(leaf) == leaf.digests
    assert params.blob_digests(params.Blob(b"3" * 32, 5)) == (b"3" * 32,)
    assert params.blob_digests([b"4" * 32]) == ()
    with pytest.raises(ValueError):
        params.unpackb(b"\xc7\x05\x0c12345")


STORE = """
import resource, sys
from pathlib import Path
from aimlite.storage.blobs import BlobFiles, copy_blob, verify_blob
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
source, blobs = Path(sys.argv[1]), Path(sys.argv[2])
with BlobFiles(blobs) as stored: stored.add(b"warm")
before = peak()
for _ in range(2):
    with BlobFiles(blobs) as stored, open(source, "rb") as file: digest, size = stored.add_file(file)
assert size == source.stat().st_size
with open(sys.argv[2] + "/copy", "wb") as copy: assert copy_blob(blobs, digest, copy) == size
print(peak() - before)
"""


def test_a_large_file_takes_constant_memory(blobs: Path, tmp_path: Path) -> None:
    megabytes = 2048 if os.environ.get("AIMLITE_STRESS") == "1" else 64
    with open(tmp_path / "large", "wb") as file:
        file.writelines(os.urandom(1 << 16) * 15 + at.to_bytes(1 << 16, "little") for at in range(megabytes))
    done = subprocess.run([sys.executable, "-c", STORE, str(tmp_path / "large"), str(blobs)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 << 10  # KiB: the 8 MiB that are read in one piece, and pieces
