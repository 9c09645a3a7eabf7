"""Code, datasets, models and config files of runs: recorded, archived, restored."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from aimlite import CorruptionError, ReadOnlyError, Repo, Run, RunClosedError
from aimlite.sdk.archives import archive_config_files, archive_dataset, archive_pretrained, snapshot_code
from aimlite.storage.blobs import list_blobs


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, which is the working directory."""
    root = tmp_path / "project"
    write(root, {"train.py": "print(1)", "pkg/__init__.py": "", "pkg/run.sh": "echo"})
    write(root, {"data/x.bin": "0" * 5000, ".gitignore": "data/", ".env": "KEY=1"})
    (root / "pkg/run.sh").chmod(0o755)
    (root / "latest.py").symlink_to("train.py")
    (root / "empty").mkdir()
    monkeypatch.chdir(root)
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def blob_bytes(repo: Repo) -> int:
    stats = repo.stats()
    return int(stats["bytes"]["blobs"])


def messages(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(each.message) for each in caught]


def read(root: Path) -> dict[str, Any]:
    """Every file, link and empty directory below a directory."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = (path.read_text(), path.stat().st_mode & 0o777)
        elif not any(path.iterdir()):
            found[name] = "empty"
    return found


def test_code_comes_back_as_it_was(repo: Repo, code: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_code()
    expected = {name: held for name, held in read(code).items() if not name.startswith(("data/", ".env"))}
    entry = run["code"]
    assert (entry["root"], entry["saved"], entry["files"]) == (str(code), True, 4)
    assert entry["left_out"] == [[".env", "looks like keys or passwords"]]
    assert "blobs" not in entry
    for merged in (False, True):
        if merged:
            repo.merge()
        target = tmp_path / f"out{merged}"
        read_only = Repo(repo.path, read_only=True).get_run(run.hash)
        assert read_only is not None
        assert read_only.restore_code(target) == target
        assert read(target) == expected
        assert expected["pkg/run.sh"] == ("echo", 0o755)
        assert expected["latest.py"] == ("link", "train.py")
        assert expected["empty"] == "empty"


def test_the_root_of_the_git_repository_is_the_default(repo: Repo, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(code)], check=True)
    monkeypatch.chdir(code / "pkg")
    with Run(repo=repo) as run:
        run.log_code()
    assert (run["code", "root"], run["code", "files"]) == (str(code), 4)


def test_the_same_code_twice_costs_nothing(repo: Repo, code: Path) -> None:
    runs = []
    sizes = []
    for _ in range(3):
        with Run(repo=repo) as run:
            run.log_code()
        os.utime(code / "train.py", (1, 1))
        runs.append(run)
        sizes.append(blob_bytes(repo))
    assert sizes[0] > 0
    assert sizes == sizes[:1] * 3
    assert len({run["code", "manifest"] for run in runs}) == 1
    assert repo.query_runs(f"run.code.manifest == {runs[0]['code', 'manifest']!r}").hashes() == [run.hash for run in reversed(runs)]
    (code / "train.py").write_text("print(2)")
    with Run(repo=repo) as run:
        run.log_code()
    assert run["code", "manifest"] != runs[0]["code", "manifest"]
    assert sizes[0] < blob_bytes(repo) < 2 * sizes[0]


def test_the_repo_in_the_workspace_is_not_archived(code: Path) -> None:
    sizes = []
    for _ in range(4):
        with Repo(code / "store") as repo, Run(repo=repo) as run:
            run.log_code()
            sizes.append((run["code", "files"], blob_bytes(repo)))
    assert len(set(sizes)) == 1


def test_nothing_is_overwritten_unless_asked_for(repo: Repo, code: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_code()
    target = tmp_path / "out"
    write(target, {"train.py": "mine", "other.py": "mine"})
    with pytest.raises(FileExistsError, match=r"train\.py would be overwritten"):
        run.restore_code(target)
    assert read(target) == {"train.py": ("mine", 0o644), "other.py": ("mine", 0o644)}
    run.restore_code(str(target), overwrite=True)
    assert read(target)["train.py"][0] == "print(1)"
    assert read(target)["other.py"][0] == "mine"
    run.restore_code(target, overwrite=True)
    (target / "pkg/run.sh").unlink()
    (target / "pkg/__init__.py").unlink()
    (target / "pkg").rmdir()
    (target / "pkg").symlink_to(tmp_path)
    with pytest.raises(FileExistsError, match="a symlink where a directory"):
        run.restore_code(target, overwrite=True)
    assert not (tmp_path / "run.sh").exists()


def test_damage_is_told_and_the_rest_is_restored(repo_path: str, code: Path, tmp_path: Path) -> None:
    repo = Repo(repo_path)
    with Run(repo=repo) as run:
        run.log_code()
    victims = [path for path in Path(repo.path, "blobs").rglob("*") if path.is_file() and path.read_bytes() in (b"print(1)", b"echo")]
    victims[0].write_bytes(b"echo!") if victims[0].read_bytes() == b"echo" else victims[0].write_bytes(b"print(9)")
    victims[1].unlink()
    assert sorted(problem.message for problem in repo.check()) == [
        "a blob's content does not match its name",
        f"the blob of a file archived as ['code', 'blobs', 0] of run {run.hash} is missing",
    ]
    with pytest.raises(CorruptionError, match=r"2 of 4 files could not be restored, .*pkg/run\.sh, train\.py"):
        run.restore_code(tmp_path / "out")
    assert set(read(tmp_path / "out")) == {".gitignore", "empty", "latest.py", "pkg/__init__.py"}
    with Run(repo=repo) as again:  # storing the same puts it right
        again.log_code()
    run.restore_code(tmp_path / "mended")
    assert (tmp_path / "mended/train.py").read_text() == "print(1)"
    assert repo.check() == []
    repo.close()


def test_repair_gives_up_a_lost_file(repo_path: str, code: Path, tmp_path: Path) -> None:
    repo = Repo(repo_path)
    with Run(repo=repo) as run:
        run.log_code()
    for path in Path(repo.path, "blobs").rglob("*"):
        if path.is_file() and path.read_bytes() == b"print(1)":
            path.unlink()
    assert len(repo.repair()) == 1
    assert repo.check() == []
    with pytest.raises(CorruptionError, match="1 of 4 files"):
        run.restore_code(tmp_path / "out")
    repo.close()


def test_code_too_large(repo: Repo, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlite.sdk.archives.MAX_CODE_BYTES", 10)
    with Run(repo=repo) as run:
        with pytest.raises(ValueError, match=r"too large to archive.*\.aimliteignore"):
            run.log_code()
        assert "code" not in run
        snapshot_code(run, code, force=True)
        assert run["code", "saved"]


def test_no_such_workspace(repo: Repo, tmp_path: Path) -> None:
    with Run(repo=repo) as run, pytest.warns(RuntimeWarning, match="no code was archived") as caught:
        snapshot_code(run, tmp_path / "no", False)
    assert len(caught) == 1
    assert run["code"] == {"root": str(tmp_path / "no"), "saved": False}
    with pytest.raises(KeyError, match="recorded without its files"):
        run.restore_code(tmp_path / "out")


def test_datasets(repo: Repo, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data, {"a/1.txt": "1", "a/2.txt": "1", ".gitignore": "*.txt", ".aimliteignore": "scratch", "scratch/x": "x"})
    with Run(repo=repo) as run:
        run.log_dataset("mine", data, save=True, description="both")
        run.log_dataset("mine", str(data / "a"), context="val", save=True)
        run.log_dataset("seen", data, context="test")
        run.log_dataset("remote", "s3://bucket//x?versionId=1")
        run.log_dataset("told", {"rows": 3, "by": ["me"]})
        run.log_dataset("one", data / "a/1.txt", save=True)
    held = run["datasets"]
    assert held["mine"]["train"]["description"] == "both"
    assert (held["mine"]["train"]["files"], held["mine"]["train"]["bytes"]) == (4, 14)
    assert held["mine"]["train"]["uri"] == held["mine"]["train"]["path"] == str(data)
    assert held["remote"]["train"] == {"context": "train", "uri": "s3://bucket//x?versionId=1", "saved": False}
    assert held["told"]["train"]["uri"] == {"rows": 3, "by": ["me"]}
    assert (held["seen"]["test"]["files"], held["seen"]["test"]["saved"]) == (4, False)
    assert held["seen"]["test"]["modified"] == pytest.approx((data / ".aimliteignore").stat().st_mtime, abs=60)
    assert repo.query_runs("run.datasets.remote.train.uri.startswith('s3://')").hashes() == [run.hash]
    with pytest.raises(ValueError, match="contexts 'train', 'val'"):
        run.restore_dataset("mine", tmp_path / "out")
    run.restore_dataset("mine", tmp_path / "val", context="val")
    run.restore_dataset("mine", tmp_path / "train", context="train")
    run.restore_dataset("one", tmp_path / "one")
    assert set(read(tmp_path / "val")) == {"1.txt", "2.txt"}
    assert set(read(tmp_path / "train")) == {"a/1.txt", "a/2.txt", ".gitignore", ".aimliteignore"}
    assert set(read(tmp_path / "one")) == {"1.txt"}
    for name, context, what in (("remote", None, "s3://bucket"), ("nobody", None, "has no dataset"), ("mine", "test", "has no dataset")):
        with pytest.raises(KeyError, match=what):
            run.restore_dataset(name, tmp_path / "no", context=context)
    assert not (tmp_path / "no").exists()


def test_logging_again_replaces(repo: Repo, tmp_path: Path) -> None:
    write(tmp_path, {"one/a": "1", "two/b": "2"})
    with Run(repo=repo) as run:
        run.log_dataset("mine", tmp_path / "one", save=True)
        run.log_dataset("mine", tmp_path / "two", save=True)
        run.log_dataset("gone", tmp_path / "one", save=True)
        run.log_dataset("gone", "s3://bucket")
    run.restore_dataset("mine", tmp_path / "out")
    assert set(read(tmp_path / "out")) == {"b"}
    assert "manifest" not in run["datasets", "gone", "train"]


def test_what_is_not_there_yet_is_recorded_with_one_warning(repo: Repo, tmp_path: Path) -> None:
    with Run(repo=repo) as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.log_dataset("a", tmp_path / "no", save=True)
        run.log_dataset("b", "~/there/is/no/such/path")
        run.log_dataset("c", "s3://bucket/x", save=True)
        run.log_dataset("d", {"rows": 1}, save=True)
        run.log_pretrained("e", path_or_uri="./no.pth")
        run.log_pretrained("f", path_or_uri="no.pth", save=True)
        run.log_pretrained("g", path_or_uri="no.pth", source_type="local")
        run.log_pretrained("h", path_or_uri="bert-base-uncased", source_type="huggingface")
        run.log_pretrained("i", path_or_uri="org/model")
        run.log_pretrained("j")
        archive_config_files(run, ["no.yaml"])
    told = [message.split(" is recorded without")[0].split()[-1] for message in messages(caught)]
    assert told == ["'a'", "'b'", "'c'", "'d'", "'e'", "'f'", "'g'", "no.yaml"]
    assert {entry["saved"] for contexts in run["datasets"].values() for entry in contexts.values()} == {False}
    assert run["pretrained", "h"] == {"source_type": "huggingface", "uri": "bert-base-uncased", "saved": False}
    assert run["pretrained", "j"] == {"source_type": "unknown", "uri": None, "saved": False}
    assert run["datasets", "b", "train", "uri"] == "~/there/is/no/such/path"


def test_keys_in_a_dataset_are_told(repo: Repo, tmp_path: Path) -> None:
    write(tmp_path / "data", {"a": "1", "server.key": "1"})
    told = r"dataset 'mine': server\.key was left out: it looks like keys"
    with Run(repo=repo) as run, pytest.warns(RuntimeWarning, match=told) as caught:
        run.log_dataset("mine", tmp_path / "data", save=True)
    assert len(caught) == 1
    assert run["datasets", "mine", "train", "left_out"] == [["server.key", "looks like keys or passwords"]]


def test_pretrained(repo: Repo, tmp_path: Path) -> None:
    write(tmp_path, {"best.pth": "weights"})
    with Run(repo=repo) as run:
        run.log_pretrained("mine", path_or_uri=tmp_path / "best.pth", save=True, source_type="local", description="the best")
        with pytest.raises(ValueError, match="save=True needs path_or_uri"):
            run.log_pretrained("none", save=True)
        archive_pretrained(run, "seen", str(tmp_path / "best.pth"))
    entry = run["pretrained", "mine"]
    assert (entry["source_type"], entry["description"], entry["files"], entry["bytes"]) == ("local", "the best", 1, 7)
    assert run.restore_pretrained("mine", tmp_path / "out") == tmp_path / "out"
    assert read(tmp_path / "out") == {"best.pth": ("weights", 0o644)}
    assert (run["pretrained", "seen", "bytes"], run["pretrained", "seen", "saved"]) == (7, False)
    with pytest.raises(KeyError, match="has no pretrained model 'none'"):
        run.restore_pretrained("none", tmp_path / "no")


def test_limits_of_archives(repo: Repo, tmp_path: Path) -> None:
    write(tmp_path, {f"data/{at}": "12345" for at in range(4)})
    with Run(repo=repo) as run:
        for limits in ({"max_archive_bytes": 19}, {"max_archive_files": 3}):
            with pytest.raises(ValueError, match=r"too large to archive: more than .*force_save=True"):
                run.log_dataset("mine", tmp_path / "data", save=True, **limits)
            assert "datasets" not in run
        run.log_dataset("mine", tmp_path / "data", save=True, force_save=True, max_archive_bytes=0, max_archive_files=0)
        run.log_dataset("many", tmp_path / "data", max_archive_files=3)
    assert run["datasets", "mine", "train", "files"] == 4
    assert "files" not in run["datasets", "many", "train"]


def test_config_files(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.yaml": "lr: 0.1\n", "conf/b.yaml": "x: 1", ".env": "KEY=1"})
    (tmp_path / "c.bin").write_bytes(b"\xff\x00")
    (tmp_path / "large.json").write_text("1" * (1 << 21))
    os.mkfifo(tmp_path / "pipe")
    with Run(repo=repo) as run:
        archive_config_files(run, "a.yaml")
        archive_config_files(run, [Path("conf/b.yaml"), "c.bin", "large.json"])
        with pytest.warns(RuntimeWarning, match="pipe is recorded without its content: it is no file"):
            archive_config_files(run, ["pipe"])
        with pytest.warns(RuntimeWarning, match="looks like keys"):
            archive_config_files(run, [".env"])
        with pytest.warns(RuntimeWarning, match="Is a directory"):
            archive_config_files(run, ["conf"])
    files = run["config", "files"]
    assert files["a.yaml"]["content"] == "lr: 0.1\n"
    assert files["a.yaml"]["path"] == str(tmp_path / "a.yaml")
    assert len(files["a.yaml"]["sha256"]) == 64
    assert files["conf/b.yaml"]["content"] == "x: 1"
    assert files["c.bin"]["content"] == b"\xff\x00"
    assert len(files["large.json"]["content"]) == 1 << 21
    assert not files[".env"]["saved"]
    assert "content" not in files[".env"]
    assert repo.query_runs("'lr: 0.1' in run.config.files['a.yaml'].content").hashes() == [run.hash]


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_dataset(5, "x"),
        lambda run: run.log_dataset("x", 5),
        lambda run: run.log_dataset("x", None),
        lambda run: run.log_dataset("x", "y", context=5),
        lambda run: run.log_dataset("x", "s3://y", description=5),
        lambda run: run.log_pretrained("x", path_or_uri=5),
        lambda run: run.log_pretrained("x", source_type=None),
        lambda run: run.log_code(5),
        lambda run: archive_config_files(run, [5]),
        lambda run: run.restore_dataset(5, "x"),
    ],
)
def test_wrong_types(repo: Repo, call: Any) -> None:
    with Run(repo=repo) as run:
        with pytest.raises(TypeError):
            call(run)
        assert len(run) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_dataset("", "x"),
        lambda run: run.log_dataset("x", ""),
        lambda run: run.log_dataset("x", "a\0b"),
        lambda run: run.log_dataset("x", "y", context=""),
        lambda run: run.log_dataset("x", "y", max_archive_bytes=-1),
        lambda run: run.log_dataset("x", "y", max_archive_files=True),
        lambda run: run.log_code(""),
    ],
)
def test_wrong_values(repo: Repo, call: Any) -> None:
    with Run(repo=repo) as run:
        with pytest.raises(ValueError):
            call(run)
        assert len(run) == 0


def test_runs_that_take_no_more(repo: Repo, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        pass
    with pytest.raises(RunClosedError):
        archive_dataset(run, "x", tmp_path)
    read_only = repo.get_run(run.hash)
    assert read_only is not None
    for call in (read_only.log_code, lambda: archive_config_files(read_only, [])):
        with pytest.raises(ReadOnlyError):
            call()


def test_what_names_blobs_is_seen_nowhere(repo: Repo, code: Path) -> None:
    for merged in (False, True):
        with Run(repo=repo) as run:
            run.log_code()
        if merged:
            repo.merge()
        assert "blobs" not in run["code"]
        assert "blobs" not in str(repo.collect_params_info())
        assert run.get(("code", "blobs")) is None
        assert repo.query_runs("run.code.blobs is not None").hashes() == []
        assert "blobs" not in " ".join(run.dataframe().columns)


@pytest.mark.parametrize("merged", [False, True])
def test_runs_that_share_files_are_deleted_one_by_one(repo: Repo, code: Path, tmp_path: Path, merged: bool) -> None:
    runs = []
    for at in range(3):
        with Run(repo=repo) as run:
            run.log_code()
            run.log_dataset("mine", code / "data", save=True)
            run.log_artifact(code / "train.py", f"{at}.py")
        runs.append(run)
    if merged:
        repo.merge()
    size = blob_bytes(repo)
    for at, run in enumerate(runs):
        last = at == len(runs) - 1
        repo.delete_run(run.hash, permanent=True)
        assert blob_bytes(repo) == (0 if last else size)
        for other in runs[at + 1 :]:
            other.restore_code(tmp_path / f"{at}-{other.hash}")
            other.restore_dataset("mine", tmp_path / f"{at}-{other.hash}-data")
            assert Path(other.artifacts[f"{runs.index(other)}.py"].download()).read_text() == "print(1)"
        assert repo.check() == []


def test_a_run_in_the_trash_keeps_its_files(repo: Repo, code: Path, tmp_path: Path) -> None:
    with Run(repo=repo) as run:
        run.log_code()
    repo.merge()
    repo.delete_run(run.hash)
    repo.prune()
    repo.restore_runs([run.hash])
    run.restore_code(tmp_path / "out")
    assert repo.query_runs("run.code.files == 4").hashes() == [run.hash]


def test_what_was_replaced_is_pruned(repo: Repo, tmp_path: Path) -> None:
    write(tmp_path, {"one/a": "1" * 10_000, "two/b": "2"})
    with Run(repo=repo) as run:
        run.log_dataset("mine", tmp_path / "one", save=True)
        repo.merge()
        run.log_dataset("mine", tmp_path / "two", save=True)
    assert blob_bytes(repo) > 10_000
    repo.prune()
    assert blob_bytes(repo) < 1_000
    run.restore_dataset("mine", tmp_path / "out")
    assert set(read(tmp_path / "out")) == {"b"}


def test_what_goes_before_it_was_named_is_stored_again(repo: Repo, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As who deletes may do: blobs go between their being stored and their being named."""
    calls = []
    original = Run._set_params

    def set_params(self: Run, items: Any, strict: bool = True) -> None:
        if len(calls) < 2:
            for path in list_blobs(Path(repo.path, "blobs")):
                path.unlink()
        calls.append(items)
        original(self, items, strict)

    monkeypatch.setattr(Run, "_set_params", set_params)
    with Run(repo=repo) as run:
        run.log_code()
        assert len(calls) == 3
        calls.clear()
        run.log_artifact(code / "data/x.bin")
        assert len(calls) == 3
        monkeypatch.undo()
        monkeypatch.chdir(code)
        run.log_code()
    run.restore_code(tmp_path / "out")
    assert (tmp_path / "out/train.py").read_text() == "print(1)"


def test_deleting_beside_who_stores_the_same(repo: Repo, code: Path, tmp_path: Path) -> None:
    """One run after another stores the same files and goes, while others store them: what is left has all of its own."""
    stop = threading.Event()
    kept: list[Run] = []

    def store() -> None:
        while not stop.is_set():
            with Run(repo=repo) as run:
                run.log_code(code)
            kept.append(run)
            if len(kept) % 2:
                repo_of_thread.delete_run(run.hash)

    with Repo(repo.path) as repo_of_thread:
        thread = threading.Thread(target=store)
        thread.start()
        while len(kept) < (100 if os.environ.get("AIMLITE_STRESS") == "1" else 6) and thread.is_alive():
            repo.purge()
        stop.set()
        thread.join()
    repo.purge()
    alive = [run for run in kept if repo.run_exists(run.hash)]
    assert alive
    for run in alive:
        run.restore_code(tmp_path / run.hash)
        assert (tmp_path / run.hash / "train.py").read_text() == "print(1)"
    repo.delete_runs([run.hash for run in alive], permanent=True)
    assert blob_bytes(repo) == 0


def test_a_killed_archive_leaves_a_sound_repo(repo_path: str, tmp_path: Path) -> None:
    """Wherever it is killed, the run has a whole archive or none, and the next one succeeds."""
    write(tmp_path / "data", {f"{at}.txt": str(at) * 500 for at in range(1500)})
    script = "import sys; from aimlite import Run; run = Run('r', repo=sys.argv[1]); print('go', flush=True)\n"
    script += "while True: run.log_dataset('d', 'data', save=True)"
    for at in range(20 if os.environ.get("AIMLITE_STRESS") == "1" else 4):
        child = subprocess.Popen([sys.executable, "-c", script, repo_path], cwd=tmp_path, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 * at**1.5)
        child.kill()
        child.wait()
        child.stdout.close()
        with Repo(repo_path) as repo:
            assert repo.check() == []
            run = repo.get_run("r")
            assert run is not None
            if "datasets" in run:
                run.restore_dataset("d", tmp_path / f"out{at}")
                assert len(list((tmp_path / f"out{at}").iterdir())) == 1500
    with Repo(repo_path) as repo:
        repo.delete_run("r", permanent=True)
        repo.prune()
        assert repo.stats()["bytes"]["blobs"] == 0
