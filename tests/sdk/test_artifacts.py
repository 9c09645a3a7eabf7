"""Artifacts: kept in the repo, uploaded to directories and to what fsspec knows, never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from aimlite import ArtifactError, CorruptionError, ReadOnlyError, Repo, Run, RunClosedError
from aimlite.artifacts import uploads


class Store(MemoryFileSystem):
    """Memory behind a scheme of its own, as an object store: it fails as often as it is told, and waits when it is told."""

    protocol = "store"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent has it
    pseudo_dirs = [""]  # noqa: RUF012
    failures = 0
    error: Exception = OSError("the network is down")
    truncates = 0
    gate = threading.Event()
    puts: list[str] = []  # noqa: RUF012

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **settings: Any) -> None:
        Store.gate.wait(30)
        Store.puts.append(rpath)
        if Store.failures:
            Store.failures -= 1
            raise Store.error
        super().put_file(lpath, rpath, *arguments, **settings)
        if Store.truncates:
            Store.truncates -= 1
            self.pipe_file(rpath, self.cat_file(rpath)[:-1])


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("store", Store, clobber=True)
    monkeypatch.setattr(uploads, "FIRST_WAIT_S", 0.001)
    Store.failures = Store.truncates = 0
    Store.error = OSError("the network is down")
    Store.puts = []
    Store.gate.set()
    yield
    Store.gate.set()
    Store.store.clear()


@pytest.fixture
def base() -> str:
    return f"store://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def uploads_of(repo: Repo) -> list[str]:
    return sorted(path.name for path in Path(repo.path, "uploads").rglob("*") if path.is_file() and path.name != "lock")


def test_in_the_repo(repo: Repo, model: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        assert run.artifacts_uri is None
        assert run.artifacts == {}
        run.log_artifact(model)
        run.log_artifact(str(model), "best/model.pt", block=True)
        model.write_bytes(b"changed since")
    for merged in (False, True):
        if merged:
            repo.merge()
        read_only = repo.get_run(run.hash)
        assert read_only is not None
        assert list(read_only.artifacts) == ["best/model.pt", "model.pt"]
        artifact = read_only.artifacts["best/model.pt"]
        assert (artifact.name, artifact.path, artifact.size, artifact.pending) == ("best/model.pt", str(model), 7, False)
        assert Path(artifact.uri.removeprefix("file://")).read_bytes() == b"weights"
        target = artifact.download(tmp_path / f"out{merged}")
        assert target == str(tmp_path / f"out{merged}/best/model.pt")
        assert Path(target).read_bytes() == b"weights"
    assert repo.stats()["bytes"]["blobs"] == 7
    assert Path(run.artifacts["model.pt"].download()).read_bytes() == b"weights"
    assert repo.query_runs("run['__artifacts', 'model.pt', 'size'] == 7").hashes() == [run.hash]


def test_a_directory(repo: Repo, tmp_path: Path) -> None:
    root = tmp_path / "made"
    for name in ("a.txt", "sub/b.txt", ".env", "venv/pyvenv.cfg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link").symlink_to("a.txt")
    (root / "folder").symlink_to("sub")
    (root / "out").symlink_to(tmp_path)
    (root / "empty").mkdir()
    with Run(repo=repo) as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.log_artifacts(root)
        run.log_artifacts(root / "sub", "deep/er")
    names = {f"made/{name}" for name in ("a.txt", "sub/b.txt", ".env", "venv/pyvenv.cfg", "link")}
    assert set(run.artifacts) == names | {"deep/er/b.txt"}
    assert sorted(str(each.message).split(": ")[1].split(" was left out")[0] for each in caught) == ["folder", "out"]
    assert Path(run.artifacts["made/link"].download(tmp_path / "got")).read_text() == "a.txt"


def test_the_same_name_again(repo: Repo, model: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_artifact(model)
        model.write_bytes(b"better weights")
        run.log_artifact(model)
    assert Path(run.artifacts["model.pt"].download(tmp_path / "out")).read_bytes() == b"better weights"


def test_a_directory_elsewhere(repo: Repo, model: Path, tmp_path: Path) -> None:
    base = f"file://{tmp_path}/elsewhere"
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base + "/")
        assert run.artifacts_uri == f"{base}/{run.hash}"
        run.log_artifact(model, "a/model.pt")
    artifact = run.artifacts["a/model.pt"]
    assert artifact.uri == f"{base}/{run.hash}/a/model.pt"
    assert not artifact.pending
    placed = tmp_path / "elsewhere" / run.hash / "a/model.pt"
    assert placed.read_bytes() == b"weights"
    assert Path(artifact.download(tmp_path / "out")).read_bytes() == b"weights"
    assert repo.stats()["bytes"]["blobs"] == 0
    assert not Path(repo.path, "uploads", run.hash).exists()
    placed.write_bytes(b"tampered")
    with pytest.raises(CorruptionError, match="is not what was logged"):
        artifact.download(tmp_path / "again")
    assert not (tmp_path / "again/a/model.pt").exists()
    placed.unlink()
    with pytest.raises(FileNotFoundError, match=f"artifact 'a/model.pt' of run {run.hash} is no longer there: 'file://"):
        artifact.download(tmp_path / "again")


@pytest.mark.parametrize("scheme", ["memory", "store"])
def test_what_fsspec_knows(repo: Repo, model: Path, tmp_path: Path, scheme: str) -> None:
    base = f"{scheme}://bucket/{uuid.uuid4().hex}"
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        run.log_artifact(model)
        run.log_artifacts(tmp_path, "all")
        run.set_artifacts_uri(None)
        run.log_artifact(model, "local")
    assert fsspec.filesystem(scheme).cat_file(f"{base}/{run.hash}/model.pt") == b"weights"
    assert {name: artifact.uri for name, artifact in run.artifacts.items() if not artifact.uri.startswith("file:")} == {
        name: f"{base}/{run.hash}/{name}" for name in ("model.pt", "all/model.pt")
    }
    for artifact in run.artifacts.values():
        assert Path(artifact.download(tmp_path / "out")).read_bytes() == b"weights"
    assert uploads_of(repo) == []


def test_it_returns_before_the_upload_and_is_what_was_logged(repo: Repo, model: Path, tmp_path: Path, base: str) -> None:
    Store.gate.clear()
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        run.log_artifact(model)
        model.write_bytes(b"changed since")
        artifact = run.artifacts["model.pt"]
        assert artifact.pending
        assert Path(artifact.download(tmp_path / "early")).read_bytes() == b"weights"
        Store.gate.set()
    assert not run.artifacts["model.pt"].pending
    assert Path(run.artifacts["model.pt"].download(tmp_path / "out")).read_bytes() == b"weights"


def test_retries(repo: Repo, model: Path, base: str) -> None:
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        Store.failures, Store.truncates = 2, 1
        run.log_artifact(model)
    assert not run.artifacts["model.pt"].pending
    assert len(Store.puts) == 4


def test_what_fails_is_raised_at_the_end_and_taken_up_by_the_next(repo: Repo, model: Path, tmp_path: Path, base: str) -> None:
    run = Run(repo=repo)
    run.set_artifacts_uri(base)
    Store.failures = 2 * uploads.ATTEMPTS
    run.log_artifact(model)
    run.log_artifact(model, "second")
    model.unlink()
    with pytest.raises(ArtifactError, match=r"2 artifacts of run .* did not arrive at store://.*the network is down"):
        run.finish()
    assert run.status == "finished"
    assert [artifact.pending for artifact in run.artifacts.values()] == [True, True]
    run.close()  # said once
    with Run(run.hash, repo=repo):
        pass
    assert [artifact.pending for artifact in run.artifacts.values()] == [False, False]
    assert Path(run.artifacts["second"].download(tmp_path)).read_bytes() == b"weights"
    assert uploads_of(repo) == []
    puts = len(Store.puts)
    Run(run.hash, repo=repo).close()
    assert len(Store.puts) == puts


def test_logging_again_takes_it_up_too(repo: Repo, model: Path, base: str) -> None:
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        Store.failures = uploads.ATTEMPTS
        with pytest.raises(ArtifactError, match="1 artifact of run"):
            run.log_artifact(model, block=True)
        assert run.artifacts["model.pt"].pending
        run.log_artifact(model)
    assert not run.artifacts["model.pt"].pending


@pytest.mark.parametrize("error", [PermissionError("no key"), ValueError("no such bucket"), KeyError("odd")])
def test_what_cannot_get_better_is_not_tried_again(repo: Repo, model: Path, base: str, error: Exception) -> None:
    Store.error, Store.failures = error, 1
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        if isinstance(error, PermissionError):
            with pytest.raises(ArtifactError, match="PermissionError: no key"):
                run.log_artifact(model, block=True)
            assert len(Store.puts) == 1
        else:  # a backend's own: it may be anything, so it is tried again
            run.log_artifact(model, block=True)
            assert len(Store.puts) == 2
    if isinstance(error, PermissionError):
        Run(run.hash, repo=repo).close()
    assert not run.artifacts["model.pt"].pending


def test_an_error_of_the_block_is_raised_and_the_upload_told(repo: Repo, model: Path, base: str) -> None:
    Store.failures = uploads.ATTEMPTS

    def fail() -> None:
        with run:
            run.set_artifacts_uri(base)
            run.log_artifact(model)
            raise ZeroDivisionError

    run = Run(repo=repo)
    with pytest.warns(RuntimeWarning, match="did not arrive"), pytest.raises(ZeroDivisionError):
        fail()
    assert run.status == "failed"
    Run(run.hash, repo=repo).close()


def test_of_one_name_the_last_counts(repo: Repo, tmp_path: Path, base: str) -> None:
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)
        for at in range(40):
            (tmp_path / "file").write_text(str(at))
            run.log_artifact(tmp_path / "file")
    assert Path(run.artifacts["file"].download(tmp_path / "out")).read_text() == "39"
    assert uploads_of(repo) == []


def test_many_threads(repo: Repo, tmp_path: Path, base: str) -> None:
    with Run(repo=repo) as run:
        run.set_artifacts_uri(base)

        def log(at: int) -> None:
            for number in range(5):
                path = tmp_path / f"{at}-{number}"
                path.write_text(path.name)
                run.log_artifact(path)

        threads = [threading.Thread(target=log, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(run.artifacts) == 40
    for name, artifact in run.artifacts.items():
        assert Path(artifact.download(tmp_path / "out")).read_text() == name


HOSTILE = ["../up", "/etc/passwd", "a/../../b", "a//b", "", ".", "..", "a/", "a\\b", "C:/x", "a\0b", "a\nb", "x" * 1025]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(repo: Repo, model: Path, name: str) -> None:
    with Run(repo=repo) as run:
        with pytest.raises(ValueError, match="the name of an artifact"):
            run.log_artifact(model, name)
        with pytest.raises(ValueError, match="the name of an artifact"):
            run.log_artifacts(model.parent, name)
        assert run.artifacts == {}


def test_a_hostile_repo_writes_nowhere(repo: Repo, model: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_artifact(model)
        run["__artifacts", "../../up"] = run["__artifacts", "model.pt"]
    with pytest.raises(ValueError, match="the name of an artifact"):
        run.artifacts["../../up"].download(tmp_path / "a/b")
    (tmp_path / "out").mkdir()
    with Run(run.hash, repo=repo):
        run = Run(run.hash, repo=repo)
        run.log_artifact(model, "sub/model.pt")
        run.close()
    (tmp_path / "out/sub").symlink_to(tmp_path)
    with pytest.raises(FileExistsError, match="a symlink"):
        run.artifacts["sub/model.pt"].download(tmp_path / "out", overwrite=True)


def test_downloading_overwrites_only_when_asked(repo: Repo, model: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_artifact(model)
    artifact = run.artifacts["model.pt"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.pt").write_text("mine")
    with pytest.raises(FileExistsError, match="would be overwritten"):
        artifact.download(tmp_path / "out")
    assert artifact.download(tmp_path / "out", overwrite=True) == artifact.download(tmp_path / "out")
    assert (tmp_path / "out/model.pt").read_bytes() == b"weights"


def test_a_damaged_blob(repo_path: str, model: Path, tmp_path: Path) -> None:
    with Repo(repo_path) as repo, Run(repo=repo) as run:
        run.log_artifact(model)
    artifact = Repo(repo_path).get_run(run.hash).artifacts["model.pt"]  # type: ignore[union-attr]
    Path(artifact.uri.removeprefix("file://")).write_bytes(b"Weights")
    with pytest.raises(CorruptionError):
        artifact.download(tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("uri", "error", "told"),
    [
        ("/data", ValueError, "begins with a scheme"),
        ("", ValueError, "begins with a scheme"),
        ("s3:/x", ValueError, "begins with a scheme"),
        ("file://relative", ValueError, "absolute path"),
        ("nosuch://x", ValueError, "knows no scheme nosuch://"),
        ("s3://bucket/\0", ValueError, "begins with a scheme"),
        (5, TypeError, "is a string"),
        (Path("/data"), TypeError, "is a string"),
    ],
)
def test_wrong_uris(repo: Repo, uri: Any, error: type[Exception], told: str) -> None:
    with Run(repo=repo) as run:
        with pytest.raises(error, match=told):
            run.set_artifacts_uri(uri)
        assert run.artifacts_uri is None


def test_without_what_a_scheme_needs(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with Run(repo=repo) as run:
        with pytest.raises(ImportError, match="s3://"):
            run.set_artifacts_uri("s3://bucket")
        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(ImportError, match=r"pip install 'aimlite-store\[artifacts\]'"):
            run.set_artifacts_uri("memory://bucket")


def test_wrong_arguments(repo: Repo, model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Run(repo=repo) as run:
        for call, error in (
            (lambda: run.log_artifact(tmp_path / "no"), FileNotFoundError),
            (lambda: run.log_artifact(tmp_path), IsADirectoryError),
            (lambda: run.log_artifacts(model), NotADirectoryError),
            (lambda: run.log_artifacts(tmp_path / "no"), FileNotFoundError),
            (lambda: run.log_artifact(tmp_path / "pipe"), ValueError),
            (lambda: run.log_artifact(5), TypeError),  # type: ignore[arg-type]
            (lambda: run.log_artifact(model, 5), TypeError),  # type: ignore[arg-type]
            (lambda: run.log_artifact(model, block=1), TypeError),  # type: ignore[arg-type]
        ):
            with pytest.raises(error):
                call()
        assert run.artifacts == {}
    with pytest.raises(RunClosedError):
        run.log_artifact(model)
    read_only = repo.get_run(run.hash)
    assert read_only is not None
    with pytest.raises(ReadOnlyError):
        read_only.log_artifact(model)
    with pytest.raises(ReadOnlyError):
        read_only.set_artifacts_uri("memory://x")


CHILD = """
import os, sys, threading
import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from aimlite import Run
class Stuck(MemoryFileSystem):
    protocol = "stuck"
    def put_file(self, *arguments, **settings):
        os.write(1, b"uploading\\n")
        threading.Event().wait()
fsspec.register_implementation("stuck", Stuck)
mode, uri = sys.argv[1:]
run = Run("held", repo="repo")
run.set_artifacts_uri(uri)
run.log_artifact("model.pt")
os.write(1, b"logged\\n")
if mode == "fork":
    child = os.fork()
    if not child:
        os._exit(0 if run._uploader is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    os.write(1, b"forked\\n")
if mode != "exit":
    threading.Event().wait()
"""


@pytest.mark.parametrize("mode", ["wait", "fork"])
def test_a_killed_process_leaves_it_to_the_next(repo_path: str, model: Path, tmp_path: Path, mode: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, mode, "stuck://x"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    expected = {"uploading", "logged"} | ({"forked"} if mode == "fork" else set())
    assert {child.stdout.readline().strip() for _ in expected} == expected
    model.unlink()
    with Repo(repo_path) as repo:
        fsspec.register_implementation("stuck", Store, clobber=True)
        beside = Run("held", repo=repo)  # its process lives, so it is left to it
        assert beside._uploader is None
        beside.close()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Run("held", repo=repo) as run:
            assert run.artifacts["model.pt"].pending or Store.puts
        assert not run.artifacts["model.pt"].pending
        assert Path(run.artifacts["model.pt"].download(tmp_path / "out")).read_bytes() == b"weights"
        assert uploads_of(repo) == []
        assert repo.check() == []


def test_the_end_of_the_interpreter_waits(repo_path: str, model: Path, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/elsewhere"
    subprocess.run([sys.executable, "-c", CHILD, "exit", uri], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "elsewhere/held/model.pt").read_bytes() == b"weights"
    run = Repo(repo_path).get_run("held")
    assert run is not None
    assert (run.status, run.artifacts["model.pt"].pending) == ("finished", False)


def test_the_end_of_the_interpreter_tells_what_failed(repo_path: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", CHILD, "exit", f"file://{tmp_path}/file"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300)
    assert "1 artifact of run held did not arrive" in done.stderr
    run = Repo(repo_path).get_run("held")
    assert run is not None
    assert (run.status, run.artifacts["model.pt"].pending) == ("finished", True)


def test_nothing_is_imported_for_a_run_without_artifacts(tmp_path: Path) -> None:
    code = "import sys; from aimlite import Run; run = Run(repo='here'); run.close()"
    code += "; print([name for name in ('fsspec', 'hashlib', 'pathspec', 'tempfile') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_logging_does_not_wait_for_the_network(repo: Repo, model: Path, base: str) -> None:
    Store.gate.clear()
    run = Run(repo=repo)
    run.set_artifacts_uri(base)
    for at in range(20):
        run.log_artifact(model, f"{at}")
    assert len(run.artifacts) == 20
    assert Store.puts == []
    Store.gate.set()
    deadline = time.monotonic() + 30
    while len(Store.puts) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.close()
    assert sorted(Store.puts) == sorted(Store._strip_protocol(f"{base}/{run.hash}/{at}") for at in range(20))


@pytest.mark.parametrize("moved", [False, True])
def test_runs_in_another_repo_keep_their_artifacts(repo: Repo, model: Path, tmp_path: Path, base: str, moved: bool) -> None:
    run = Run(repo=repo)
    run.log_artifact(model, "local")
    run.set_artifacts_uri(base)
    run.log_artifact(model, "arrived", block=True)
    Store.failures = uploads.ATTEMPTS
    run.log_artifact(model, "pending")
    with pytest.raises(ArtifactError):
        run.close()
    with Repo(tmp_path / "other") as other:
        (repo.move_runs if moved else repo.copy_runs)([run.hash], other)
        if not moved:
            repo.delete_run(run.hash)
        assert not moved or uploads_of(repo) == []
        with Run(run.hash, repo=other) as there:
            pass
        assert [artifact.pending for artifact in there.artifacts.values()] == [False] * 3
        for name in ("local", "arrived", "pending"):
            assert Path(there.artifacts[name].download(tmp_path / "out")).read_bytes() == b"weights"
        with pytest.warns(RuntimeWarning, match="was uploaded from the repo"):
            other.delete_run(run.hash, permanent=True)
        assert fsspec.filesystem("store").exists(f"{base}/{run.hash}/arrived")
        assert other.check() == []


@pytest.mark.parametrize("scheme", ["file", "store"])
def test_what_was_uploaded_goes_with_the_run(repo: Repo, model: Path, tmp_path: Path, scheme: str) -> None:
    base = f"file://{tmp_path}/elsewhere" if scheme == "file" else f"store://bucket/{uuid.uuid4().hex}"
    file_system = fsspec.filesystem(scheme)
    runs = []
    for _ in range(3):
        with Run(repo=repo) as run:
            run.set_artifacts_uri(base)
            run.log_artifact(model, "a/b/model.pt")
            run.log_artifact(model, "changed")
            run.log_artifact(model)
        runs.append(run)
    file_system.pipe_file(f"{base}/{runs[0].hash}/changed", b"somebody's")
    repo.delete_run(runs[0].hash, permanent=True)
    assert [path.rpartition("/")[2] for path in file_system.find(f"{base}/{runs[0].hash}")] == ["changed"]
    repo.delete_run(runs[1].hash)
    assert Path(runs[2].artifacts["a/b/model.pt"].download(tmp_path / "out")).read_bytes() == b"weights"
    assert file_system.exists(f"{base}/{runs[1].hash}/a/b/model.pt")
    repo.purge()
    assert file_system.find(f"{base}/{runs[1].hash}") == []
    assert len(file_system.find(f"{base}/{runs[2].hash}")) == 3


def test_what_cannot_be_removed_is_told(repo: Repo, model: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.set_artifacts_uri(f"file://{tmp_path}/elsewhere")
        run.log_artifact(model)
        run["__artifacts", "model.pt", "repo"] = "/another/.aimlite"
    with pytest.warns(RuntimeWarning, match=r"is still at file://.*uploaded from the repo /another"):
        repo.delete_run(run.hash, permanent=True)
    assert (tmp_path / "elsewhere" / run.hash / "model.pt").exists()


def test_what_waits_goes_with_the_run(repo: Repo, model: Path, base: str) -> None:
    run = Run(repo=repo)
    run.set_artifacts_uri(base)
    Store.failures = uploads.ATTEMPTS
    run.log_artifact(model)
    with pytest.raises(ArtifactError):
        run.close()
    assert uploads_of(repo)
    repo.delete_run(run.hash, permanent=True)
    assert not Path(repo.path, "uploads", run.hash).exists()


def test_in_safe_mode_nothing_is_raised(repo: Repo, model: Path, tmp_path: Path, base: str) -> None:
    with pytest.warns(RuntimeWarning) as caught:  # noqa: PT031
        with Run(repo=repo, safe_mode=True) as run:
            run.log_artifact(tmp_path / "no")
            run.set_artifacts_uri(base)
            Store.failures = uploads.ATTEMPTS
            run.log_artifact(model)
        assert run.status == "finished"
    assert [str(each.message).split(" ")[0] for each in caught] == ["log_artifact", "close"] or len(caught) == 2
    Run(run.hash, repo=repo).close()
    assert not run.artifacts["model.pt"].pending


LARGE = """
import resource, sys
from aimlite import Run
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
with Run("large", repo="repo") as run:
    run.log_artifact("model.pt", "small")
    if sys.argv[1]: run.set_artifacts_uri(sys.argv[1])
    run.log_artifact("model.pt", "small too", block=True)
    run.artifacts["small"].download("out")
    before = peak()
    run.log_artifact("large.bin")
assert not run.artifacts["large.bin"].pending
run.artifacts["large.bin"].download("out")
print(peak() - before)
"""


@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_a_large_one_takes_constant_memory(repo_path: str, model: Path, tmp_path: Path, place: str) -> None:
    with open(tmp_path / "large.bin", "wb") as file:
        megabytes = range(2048 if os.environ.get("AIMLITE_STRESS") == "1" else 64)
        file.writelines(os.urandom(1 << 16) * 15 + at.to_bytes(1 << 16, "little") for at in megabytes)
    command = [sys.executable, "-c", LARGE, f"file://{tmp_path}/{place}" if place else ""]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 << 10  # KiB
    assert (tmp_path / "out/large.bin").stat().st_size == (tmp_path / "large.bin").stat().st_size
