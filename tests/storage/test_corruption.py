"""Flipped bytes, cut and missing files: reported by check(), never returned as data, mended by repair() as far as anything is left."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aimlite import CorruptionError, Repo, Run, Text
from aimlite.sdk.object_sequences import sequences_of
from aimlite.storage import generation
from aimlite.storage.layout import Layout
from aimlite.storage.view import Reader
from aimlite.storage.writer import end_segment
from reference import journal as reference

FLIPS = 200 if os.environ.get("AIMLITE_STRESS") == "1" else 60
CURVE = [float(i * i % 997) / 3 for i in range(9000)]


def write(path: Path, run_hash: str) -> None:
    with Run(run_hash, repo=path) as run:
        run["p"] = {"lr": 0.5, "nested": {"a": [1, 2]}}
        run.track_columns("m", CURVE)
        for step in range(30):
            run.track({"x": step, "y": -step}, epoch=step, context={"s": 1})


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A repo with a merged run and one in an ended journal, another in a second journal, and a blob; it is not checked at the end."""
    path = tmp_path / "repo"
    write(path, "merged")
    with Run("blob", repo=path) as run:
        run["text"] = "t" * 2_000_000
    Repo(path).merge()
    for run_hash in ("one", "two"):
        write(path, run_hash)
        end_segment(Repo(path)._layout)
    return path / ".aimlite"


def afresh(base: Path) -> Repo:
    """The repo with a reader that remembers nothing."""
    repo = Repo(base.parent)
    repo._reader_ = Reader(Layout(base))
    return repo


def read(base: Path, run_hash: str) -> dict[str, Any]:
    """All of a run."""
    run = afresh(base).get_run(run_hash)
    if run is None:
        return {}
    found = {(metric.name, str(metric.context)): (metric.values.sparse_list(), metric.epochs.tolist()[-1:]) for metric in run.metrics()}
    return {"params": run[...], "metrics": str(found), "status": run.status}


def problems(base: Path) -> list[Any]:
    with Repo(base.parent) as repo:
        return repo.check()


def flips(path: Path, count: int = FLIPS) -> Iterator[int]:
    """Flips a byte at `count` places of a file, one after the other, undoing each."""
    content = path.read_bytes()
    places = sorted({len(content) * i // count for i in range(count)} | {0, len(content) - 1})
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        yield place
    path.write_bytes(content)


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


def attempt(task: Callable[[], Any], expected: Any) -> bool:
    """Whether the task raised CorruptionError naming a file; anything it returns must be right."""
    try:
        found = task()
    except CorruptionError as error:
        assert error.path, error
        return True
    assert found == expected
    return False


def test_every_flip_in_a_journal_is_found(damaged: Path) -> None:
    expected = {run_hash: read(damaged, run_hash) for run_hash in ("merged", "one", "two")}
    path = min((damaged / "journals").iterdir())
    owner, other = ("one", "two") if b"one" in path.read_bytes() else ("two", "one")
    for place in flips(path):
        assert any(problem.kind == "journal" and problem.path == str(path) for problem in problems(damaged)), place
        assert attempt(lambda: read(damaged, owner), expected[owner]), place
        assert read(damaged, other) == expected[other]
        assert read(damaged, "merged") == expected["merged"]
    assert problems(damaged) == []


@pytest.mark.parametrize("place", [10, 60, 130, 3000, -2000, -300, -30])
def test_repair_keeps_the_rest_of_a_journal(damaged: Path, place: int) -> None:
    expected = read(damaged, "two")
    path = next(path for path in (damaged / "journals").iterdir() if b"one" in path.read_bytes())
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(content)
    with Repo(damaged.parent) as repo:
        report = repo.merge()
        assert report["damaged"] == [str(path)]
        assert repo.check() != []
        done = repo.repair()
        assert len(done) == 1
        assert path.name in done[0]
        assert repo.check() == []
        assert repo.get_run("two").get_metric("m").values.tolist() == CURVE
        assert read(damaged, "two") == expected
        run = repo.get_run("one")
        if run is not None:  # its OPEN was not what the flip hit
            found = {metric.name: metric.values.tolist() for metric in run.metrics()}
            assert found.get("m", CURVE) == CURVE
            assert len(found.get("x", [])) in (0, 29, 30)
            assert run[...] in ({}, {"p": {"lr": 0.5, "nested": {"a": [1, 2]}}})
        repo.merge()
        assert repo.check() == []
        assert not list((damaged / "journals").iterdir())
        assert len(list((damaged / "damaged").iterdir())) == 1


def test_every_flip_in_the_tree_is_found(damaged: Path) -> None:
    expected = {run_hash: read(damaged, run_hash) for run_hash in ("merged", "one")}
    (path,) = (damaged / "tree").glob("*.sst")
    hit = 0
    for place in flips(path):
        assert any(problem.kind == "tree" for problem in problems(damaged)), place
        hit += attempt(lambda: read(damaged, "merged"), expected["merged"])
    assert hit > FLIPS // 2
    assert problems(damaged) == []
    assert read(damaged, "one") == expected["one"]


def read_all(repo: Repo, curves: dict[str, list[float]]) -> None:
    for run in repo.iter_runs():
        assert run.get_metric("m").values.tolist() == curves[run.hash]
        assert run.get_metric("m").timestamps.tolist()
        assert len(run["p"]) == 100


@pytest.mark.parametrize("part", [0.0001, 0.1, 0.35, 0.6, 0.85])
def test_repair_keeps_the_rest_of_the_tree(tmp_path: Path, part: float) -> None:
    """One bad block of some hundred: what lies in the others is all there."""
    curves = {f"run{i:02}": [random.Random(100 * i + k).random() for k in range(9000)] for i in range(12)}
    with Repo(tmp_path) as repo:
        for run_hash, curve in curves.items():
            with Run(run_hash, repo=repo) as run:
                run["p"] = {f"key{i}": f"{run_hash} {random.Random(i).random()}" for i in range(100)}
                run.track_columns("m", curve)
        repo.merge()
        (path,) = Path(repo.path, "tree").glob("*.sst")
        flip(path, int(path.stat().st_size * part))
        assert repo.check() != []
        with pytest.raises(CorruptionError):
            read_all(repo, curves)
        assert any("rebuilt" in line for line in repo.repair())
        assert repo.check() == []
        assert set(repo.list_all_runs()) == set(curves)
        for run in repo.iter_runs():
            steps, values = run.get_metric("m").values.sparse_list()
            assert values == [curves[run.hash][step] for step in steps]
            assert len(steps) >= 9000 - 4096
        assert sum(run.get_metric("m").count for run in repo.iter_runs()) >= 12 * 9000 - 4096 - 808  # two may lie in one block of the file
        assert sum(len(run.get("p", {})) for run in repo.iter_runs()) >= 800
        with Run("run05", repo=repo) as run:
            run.track(1.0, name="again")
        repo.merge()
        assert repo.check() == []
        assert repo.get_run("run05").get_metric("again").values.tolist() == [1.0]


@pytest.mark.parametrize("place", [10, 3000, -1500, -700, -40, -5])
def test_repair_of_a_tree_of_one_file(damaged: Path, place: int) -> None:
    """A bad index or footer costs the whole file, which here is the tree: the journals' runs stay, and the repo is sound."""
    (path,) = (damaged / "tree").glob("*.sst")
    flip(path, place % path.stat().st_size)
    with Repo(damaged.parent) as repo:
        assert repo.check() != []
        repo.repair()
        assert repo.check() == []
        assert repo.get_run("one").get_metric("m").values.tolist() == CURVE
        repo.merge()
        assert repo.check() == []
        assert {"one", "two"} <= set(repo.list_all_runs())


def test_every_flip_in_a_blob_is_found(damaged: Path) -> None:
    (path,) = (path for path in (damaged / "blobs").rglob("*") if path.is_file())
    for place in flips(path, 20):
        assert [problem.path for problem in problems(damaged) if problem.kind == "blob"] == [str(path)], place
        with pytest.raises(CorruptionError, match=path.name):
            read(damaged, "blob")
    assert len(read(damaged, "blob")["params"]["text"]) == 2_000_000
    path.unlink()
    with pytest.raises(CorruptionError, match="missing"):
        read(damaged, "blob")
    assert any("missing" in problem.message for problem in problems(damaged))


def test_every_flip_in_the_generation_is_found(damaged: Path) -> None:
    expected = read(damaged, "merged")
    for place in flips(damaged / "generation"):
        assert problems(damaged), place
        attempt(lambda: read(damaged, "merged"), expected)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * path.stat().st_size)


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    (name, damage)
    for name in ("MANIFEST-*", "CURRENT", "*.sst")
    for damage in (cut, garbage, Path.unlink, lambda path: path.write_bytes(b""))
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_tree_that_does_not_open(damaged: Path, name: str, damage: Callable[[Path], None]) -> None:
    (path,) = (damaged / "tree").glob(name)
    damage(path)
    assert any(problem.kind == "tree" for problem in problems(damaged))
    with pytest.raises(CorruptionError):
        read(damaged, "merged")
    with Repo(damaged.parent) as repo:
        with pytest.raises(CorruptionError):
            repo.merge()
        repo.repair()
        assert repo.check() == []
        assert repo.get_run("one").get_metric("m").values.tolist() == CURVE
        found = repo.get_run("merged")
        if not name.endswith("sst"):
            assert found.get_metric("m").values.tolist() == CURVE
            assert found["p", "lr"] == 0.5
            assert repo.get_run("blob")["text"] == "t" * 2_000_000
        repo.merge()
        assert repo.check() == []


@pytest.mark.parametrize("name", ["tree", "generation"])
def test_a_part_that_is_gone(damaged: Path, name: str) -> None:
    path = damaged / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert problems(damaged) != []
    if name == "generation":
        assert read(damaged, "merged")["params"]["p"]["lr"] == 0.5
    else:
        with pytest.raises(CorruptionError):
            read(damaged, "merged")
    with Repo(damaged.parent) as repo:
        repo.repair()
        assert repo.check() == []
        assert repo.get_run("two").get_metric("m").values.tolist() == CURVE
        if name == "generation":
            assert repo.get_run("merged").get_metric("m").values.tolist() == CURVE


def test_repair_of_a_sound_repo_does_nothing(damaged: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in damaged.rglob("*") if path.suffix in (".sst", ".journal")}
    with Repo(damaged.parent) as repo:
        assert repo.repair() == []
    assert before == {path: path.stat().st_mtime_ns for path in damaged.rglob("*") if path.suffix in (".sst", ".journal")}


def test_a_journal_of_zeros_is_what_a_power_failure_leaves(damaged: Path) -> None:
    (damaged / "journals" / "00000000000000aa-00000000.journal").write_bytes(bytes(4096))
    (damaged / "journals" / "00000000000000ab-00000000.journal").write_bytes(b"")
    assert problems(damaged) == []
    with Repo(damaged.parent) as repo:
        repo.merge()
        assert repo.check() == []
        assert not list((damaged / "journals").iterdir())


def test_derived_entries_that_disagree_are_reported_and_rebuilt(damaged: Path) -> None:
    """Written into the tree by hand, in a process of its own as every merge is."""
    import subprocess
    import sys

    script = """
import sys
from pathlib import Path
from aimlite.storage import generation, keys
from aimlite.storage.layout import Layout
from aimlite.storage.tree import TreeWriter
layout = Layout(Path(sys.argv[1]))
tree = TreeWriter(layout.tree)
index = next(key for key, _ in tree.scan(keys.prefix_range(keys.PARAM_INDEX)))
head = next(key for key, _ in tree.scan(keys.prefix_range(keys.HEAD)))
tree.commit({index: None, keys.param_index(("ghost",), 1.0, "merged"): b"", head: None, keys.of_run("merged", "ghost", {}): b""})
layout.generation.unlink()
generation.write_generation(layout, tree)
tree.close()
"""
    subprocess.run([sys.executable, "-c", script, str(damaged)], check=True, timeout=300)
    messages = " ".join(problem.message for problem in problems(damaged))
    for word in ("not in the index", "ghost", "head", "listed under run"):
        assert word in messages, messages
    with Repo(damaged.parent) as repo:
        assert repo.repair() != []
        assert repo.check() == []
        assert repo.get_run("merged").get_metric("m").values.tolist() == CURVE


def journal_of(base: Path, run_hash: str) -> list[tuple[Path, list[reference.Record]]]:
    """The journals that name a run and their records, in order."""
    found = []
    for path in sorted((base / "journals").iterdir()):
        writer, segment = path.stem.split("-")
        records = reference.decode_journal(path.read_bytes(), int(writer, 16), int(segment, 16)).records
        if any(record.kind == reference.OPEN and reference.decode_open(record.payload)[2] == run_hash for record in records):
            found.append((path, records))
    return found


@pytest.mark.parametrize("rotated", [False, True])
def test_a_run_is_not_read_without_what_was_lost(damaged: Path, rotated: bool) -> None:
    """What a damaged OPEN declared belongs to some run: reading this one has to say so, reading the others not."""
    with Run("fresh" if rotated else "merged", repo=damaged.parent) as run:
        run.track(1.0, name="a")
        if rotated:
            end_segment(run.repo._layout)
        run.track(2.0, name="a")
        run["late"] = True
    end_segment(run.repo._layout)
    others = {run_hash: read(damaged, run_hash) for run_hash in ("one", "merged" if rotated else "two")}
    path, records = journal_of(damaged, run.hash)[-1]
    opened = next(record for record in records if record.kind == reference.OPEN)
    for place in range(opened.offset, opened.end):
        flip(path, place)
        with pytest.raises(CorruptionError, match=path.name):
            read(damaged, run.hash)
        with pytest.raises(CorruptionError, match=path.name):
            _ = Run._existing(run.hash, afresh(damaged)).status
        assert all(read(damaged, run_hash) == expected for run_hash, expected in others.items())
        flip(path, place)
    assert read(damaged, run.hash)["params"]["late"] is True


def test_a_status_is_not_read_without_the_end(damaged: Path) -> None:
    path, records = journal_of(damaged, "one")[0]
    ended = records[-1]
    assert ended.kind == reference.END
    for place in range(ended.offset, ended.end):
        flip(path, place)
        with pytest.raises(CorruptionError, match=path.name):
            _ = afresh(damaged).get_run("one").status
        assert afresh(damaged).get_run("two").status == "finished"
        flip(path, place)
    assert afresh(damaged).get_run("one").status == "finished"


def test_a_segment_that_is_merged_after_later_ones_of_its_writer(damaged: Path) -> None:
    """It was damaged and is repaired. What the later ones said stays the last word."""
    with Run("late", repo=damaged.parent) as run:
        run["p"] = 1
        run.name = "first"
        run.track_columns("m", CURVE)
        end_segment(run.repo._layout)
        run["p"] = 2
        run.name = "second"
        run.track_columns("m", CURVE)
    end_segment(run.repo._layout)
    (path, records), _ = journal_of(damaged, "late")
    lost = next(record for record in records if record.kind == reference.PROPERTY)
    flip(path, lost.end - 1)
    with Repo(damaged.parent) as repo:
        assert repo.merge()["damaged"] == [str(path)]
        with pytest.raises(CorruptionError, match=path.name):
            read(damaged, "late")
        assert len(repo.repair()) == 1
        for _ in range(2):
            found = repo.get_run("late")
            assert (found.status, found["p"], found.name) == ("finished", 2, "second")
            assert found.get_metric("m").values.tolist() == CURVE * 2
            assert repo.check() == []
            repo.merge()
        assert not list((damaged / "journals").iterdir())


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT"])
def test_every_flip_in_what_lists_the_files_is_found(damaged: Path, name: str) -> None:
    """RocksDB may take a damaged MANIFEST for the end of an older one: that is not read as if it were the tree."""
    expected = {run_hash: read(damaged, run_hash) for run_hash in ("merged", "one")}
    (path,) = (damaged / "tree").glob(name)
    hit = 0
    for place in flips(path):
        raised = attempt(lambda: read(damaged, "merged"), expected["merged"])
        assert bool(problems(damaged)) == raised, place
        hit += raised
    assert hit >= min(path.stat().st_size, FLIPS) * 0.9
    assert problems(damaged) == []
    assert read(damaged, "merged") == expected["merged"]
    flip(path, path.stat().st_size // 2)
    with Repo(damaged.parent) as repo:
        with pytest.raises(CorruptionError):
            repo.merge()
        repo.repair()
        assert repo.check() == []
    assert {run_hash: read(damaged, run_hash) for run_hash in ("merged", "one")} == expected


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (reference.OPEN, b""),
        (reference.OPEN, b"\0\0\0\0"),
        (reference.OPEN, b"\0\0\0\0\0\xff"),
        (reference.SEQUENCE, bytes(9) + b"\xff"),
        (reference.SEQUENCE, bytes(9)),
        (reference.END, b"\0\0\0\0"),
    ],
)
@pytest.mark.parametrize("rotated", [False, True])
def test_records_that_no_writer_makes(repo_path: str, kind: int, payload: bytes, rotated: bool) -> None:
    """Their CRCs are right, so only what stands in them tells."""
    base = Path(repo_path, ".aimlite")
    write(base.parent, "one")
    writer, expected = 0xAB, read(base, "one")
    declared = [(reference.OPEN, reference.encode_open(0, "strange")), (reference.PROPERTY, b"\0\0\0\0\x92\xa4name\xa1n")]
    groups: list[tuple[int, list[tuple[int, bytes]]]] = [(5, declared), (6, [(kind, payload)])]
    if rotated:
        records = reference.decode_journal(reference.encode_journal(writer, 0, 4, groups), writer, 0).records
        groups.append((7, [(reference.ROTATED, reference.encode_footer([record.offset for record in records], []))]))
    path = base / "journals" / f"{writer:016x}-00000000.journal"
    path.write_bytes(reference.encode_journal(writer, 0, 4, groups))
    assert [problem.path for problem in problems(base)] == [str(path)]
    with pytest.raises(CorruptionError, match="does not decode"):
        read(base, "strange")
    assert read(base, "one") == expected


def test_a_blob_that_is_stored_again_is_put_right(damaged: Path) -> None:
    (path,) = (path for path in (damaged / "blobs").rglob("*") if path.is_file())
    flip(path, 1_000_000)
    with Run("again", repo=damaged.parent) as run:
        run["text"] = "t" * 2_000_000
    assert run["text"] == read(damaged, "blob")["params"]["text"] == "t" * 2_000_000
    assert problems(damaged) == []


@pytest.fixture(params=["merged", "unmerged"])
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Repo, Path]:
    """A repo with two params in one blob and one in another, of which the first is damaged; and its path."""
    repo = Repo(tmp_path / "repo")
    with Run("a", repo=repo) as run:
        run["p"] = {"text": "t" * 2_000_000, "lr": 0.5}
        run["other"] = "o" * 2_000_000
        run["replaced"] = "t" * 2_000_000
        run["replaced"] = 1
    with Run("b", repo=repo) as run:
        run["only"] = {"text": "t" * 2_000_000}
    if request.param == "merged":
        repo.merge()
    path = max(Path(repo.path, "blobs").rglob("*"), key=lambda path: path.is_file() and path.read_bytes()[-1:] == b"t")
    flip(path, 1_000_000)
    return repo, path


def test_a_lost_blob_is_given_up_once(lost: tuple[Repo, Path]) -> None:
    repo, path = lost
    with pytest.raises(CorruptionError, match=path.name):
        _ = repo.get_run("a")["p"]
    tree = list(Path(repo.path).glob("tree/*"))
    one, *params = repo.repair()
    assert list(Path(repo.path).glob("tree/*")) == tree, "the tree is sound"
    assert path.name in one
    assert [line.split(":")[0] for line in params] == ["param ['p', 'text'] of run a", "param ['only', 'text'] of run b"]
    for _ in range(2):
        assert repo.check() == []
        assert len(list(Path(repo.path, "damaged").iterdir())) == 1
        a, b = repo.get_run("a"), repo.get_run("b")
        assert a[...] == {"p": {"lr": 0.5}, "other": "o" * 2_000_000, "replaced": 1}
        assert (dict(b), len(b)) == ({}, 0)
        for run, key in ((a, ("p", "text")), (b, "only")):
            with pytest.raises(KeyError):
                _ = run[key]
        assert repo.repair() == []
        repo.merge()


def test_a_lost_blob_that_is_stored_again_is_there_again(lost: tuple[Repo, Path]) -> None:
    repo, path = lost
    repo.repair()
    with Run("c", repo=repo) as run:
        run["text"] = "t" * 2_000_000
    for run_hash, key in (("a", ("p", "text")), ("b", ("only", "text")), ("c", "text")):
        assert repo.get_run(run_hash)[key] == "t" * 2_000_000
    flip(path, 1_000_000)
    with pytest.raises(CorruptionError, match=path.name):
        _ = repo.get_run("a")["p"]
    assert [problem.path for problem in repo.check()] == [str(path)]
    assert len(repo.repair()) == 4
    assert repo.check() == []


def test_a_blob_that_is_gone_is_given_up(lost: tuple[Repo, Path]) -> None:
    repo, path = lost
    path.unlink()
    assert {(problem.kind, problem.path) for problem in repo.check()} == {("blob", str(path))}
    assert len(repo.repair()) == 2
    assert repo.check() == repo.repair() == []
    assert repo.get_run("a")["p"] == {"lr": 0.5}


def test_a_lost_param_can_be_set_and_older_values_stay_hidden(lost: tuple[Repo, Path]) -> None:
    repo, _ = lost
    repo.repair()
    with Run("a", repo=repo) as run:
        run["p", "text"] = "short"
        assert run["p"] == {"lr": 0.5, "text": "short"}
        with pytest.raises(KeyError):
            del run["only"]
    repo.merge()
    assert repo.get_run("a")["p"] == {"lr": 0.5, "text": "short"}
    assert repo.check() == []


def listed(base: Path) -> tuple[list[str], int, list[str]]:
    """What the repo lists, which warns each time, and the runs that it calls corrupted."""
    with pytest.warns(RuntimeWarning, match=r"a journal is damaged.*repair\(\).*\.journal\)"):
        hashes = afresh(base).list_all_runs()
    with pytest.warns(RuntimeWarning, match="runs may be missing"):
        count = afresh(base).total_runs_count()
    with pytest.warns(RuntimeWarning, match="runs may be missing"):
        assert [run.hash for run in afresh(base).iter_runs()] == hashes
    return hashes, count, afresh(base).list_corrupted_runs()


def test_a_run_whose_open_is_damaged_is_not_left_out_silently(damaged: Path) -> None:
    assert afresh(damaged).list_corrupted_runs() == []
    path, records = journal_of(damaged, "one")[0]
    opened = next(record for record in records if record.kind == reference.OPEN)
    named = 0
    for place in range(opened.offset, opened.end):
        flip(path, place)
        hashes, count, corrupted = listed(damaged)
        assert (sorted(hashes), count) == (["blob", "merged", "two"], 3)
        assert corrupted in ([], ["one"])
        named += corrupted == ["one"]
        flip(path, place)
    assert named >= 16
    flip(path, opened.offset)
    with Repo(damaged.parent) as repo:
        repo.repair()
        assert repo.list_corrupted_runs() == []
        assert sorted(repo.list_all_runs()) == ["blob", "merged", "two"]


@pytest.mark.parametrize("rotated", [False, True])
def test_runs_with_a_damaged_journal_are_listed_as_corrupted(damaged: Path, rotated: bool) -> None:
    with Run("merged", repo=damaged.parent) as run, Run("beside", repo=damaged.parent) as beside:
        run.track(1.0, name="a")
        beside.track(1.0, name="a")
        if rotated:
            end_segment(run.repo._layout)
    end_segment(run.repo._layout)
    path, records = journal_of(damaged, "beside")[0]
    flip(path, next(record for record in records if record.kind == reference.POINTS).end - 1)
    assert afresh(damaged).list_corrupted_runs() == ["beside", "merged"]
    for run_hash in ("beside", "merged"):
        with pytest.raises(CorruptionError, match=path.name):
            read(damaged, run_hash)
    assert read(damaged, "one")["status"] == read(damaged, "blob")["status"] == "finished"
    flip(path, next(record for record in records if record.kind == reference.POINTS).end - 1)
    opened = next(record for record in records if record.kind == reference.OPEN and record.payload[5:] == b"merged")
    flip(path, opened.offset + 30)
    assert "merged" in afresh(damaged).list_corrupted_runs()


def test_runs_with_a_damaged_block_of_the_tree_are_listed_as_corrupted(damaged: Path) -> None:
    (path,) = (damaged / "tree").glob("*.sst")
    expected = {run_hash: read(damaged, run_hash) for run_hash in ("merged", "blob", "one")}
    found = set()
    for place in flips(path, 20):
        try:
            corrupted = afresh(damaged).list_corrupted_runs()
        except CorruptionError:
            continue  # it does not open
        unreadable = {run_hash for run_hash in expected if attempt(lambda run_hash=run_hash: read(damaged, run_hash), expected[run_hash])}
        assert unreadable <= set(corrupted) <= {"merged", "blob"}, place
        found.update(corrupted)
    assert "merged" in found


GONE = [random.Random(number).randbytes(64).hex() for number in range(300)]
TRASHED = {"d0", "d3", "d4", "d5"}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A repo whose tree has keys in every space, in some fifty blocks, and journals of runs that lie there too."""
    repo, chance = Repo(tmp_path / "repo"), random.Random(1)
    shared = Text(chance.randbytes(6000).hex())
    for run_hash in [f"{kind}{number}" for number in range(6) for kind in "abcd"]:
        with Run(run_hash, repo=repo) as run:
            run["p"] = {chance.randbytes(8).hex(): chance.randbytes(600).hex() for _ in range(3)}
            run.description = chance.randbytes(600).hex()
            run.add_tag(chance.randbytes(20).hex())
            run.track_columns("m", [chance.random() for _ in range(300)])
            run.track([shared, Text(chance.randbytes(4000).hex()), Text(run_hash)], name="t")
    for run_hash in GONE:
        Run(run_hash, repo=repo).close()
    repo.merge()
    repo.delete_runs(GONE, permanent=True)
    repo.delete_runs([f"d{number}" for number in range(6)])
    repo.restore_runs(["d1"])
    repo.merge()
    repo.restore_runs(["d2"])
    for run_hash in ("a0", "fresh", GONE[7], "d2"):
        with Run(run_hash, repo=repo) as run:
            run.track(1.0, name="more")
            run.track(Text(run_hash * 200), name="u")
        end_segment(repo._layout)
    return tmp_path / "repo" / ".aimlite"


def read_whole(base: Path, run_hash: str) -> Any:
    """All that `read` leaves out, too; None when there is no such run."""
    run = afresh(base).get_run(run_hash)
    if run is None:
        return None
    texts = [[text.data for text in record.objects] for sequence in sequences_of(run) for record in sequence.records()]
    ranges = [list(map(list, metric.values[1:5])) for metric in run.metrics()]
    return read(base, run_hash), run.description, run.tags, run.name, texts, ranges


def test_the_runs_that_cannot_be_read_are_listed_whatever_is_damaged_in_the_tree(full: Path) -> None:
    """And no others, but for those in the trash, which nothing reads."""
    hashes = [*afresh(full).list_all_runs(), "d0", GONE[3]]
    expected = {run_hash: read_whole(full, run_hash) for run_hash in hashes}
    assert [run_hash for run_hash in hashes if expected[run_hash] is None] == ["d0", GONE[3]]
    path = max((full / "tree").glob("*.sst"), key=lambda path: path.stat().st_size)
    numbers = set()
    for place in flips(path, FLIPS // 2):
        try:
            corrupted = set(afresh(full).list_corrupted_runs())
        except CorruptionError:
            continue  # it does not open
        unreadable = {run_hash for run_hash in hashes if attempt(lambda run_hash=run_hash: read_whole(full, run_hash), expected[run_hash])}
        assert unreadable - corrupted <= {"d0", GONE[3]}, place  # which cannot be told from runs that are not there
        assert corrupted - unreadable <= TRASHED, place
        numbers.add(len(corrupted))
    assert len(numbers) > 5


def test_a_zero_that_became_a_space_in_the_check_of_the_generation_is_found(tmp_path: Path) -> None:
    """A digit less one bit; Python reads ` 1f` as it reads `01f`."""
    layout = Layout(tmp_path)
    texts = (generation.encode_generation(number, {}) for number in range(1000))
    text = next(text for text in texts if text.rpartition(b"crc ")[2].startswith(b"0"))
    layout.generation.write_bytes(text)
    generation.read_generation(layout)
    layout.generation.write_bytes(text.replace(b"crc 0", b"crc  "))
    with pytest.raises(CorruptionError, match="fails its check"):
        generation.read_generation(layout)
