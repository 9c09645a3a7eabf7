"""What repair() cannot read it takes from what tells the same, or says that it is lost: nothing goes without a word."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from aimlite import CorruptionError, Repo, Run, Text
from aimlite.storage import keys
from aimlite.storage.layout import Layout
from aimlite.storage.points import FLOATS, INTS
from aimlite.storage.tree import TreeReader
from aimlite.storage.view import Reader
from aimlite.storage.writer import end_segment

MANY = 120
_NAMES = ("META", "RUN", "WRITER", "PROPERTY", "PARAM", "SEQUENCE", "OF_RUN", "HEAD", "VALUES", "TIMES", "PARAM_INDEX", "PROPERTY_INDEX")
_SPACES = {name: getattr(keys, name) for name in (*_NAMES, "OBJECT", "CONTENT", "REFERENCE")}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with many short sequences of each kind, so that their summaries, heads and values fill blocks of their own."""
    root = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch, Repo(root) as repo:
        patch.setenv("AIMLITE_MERGE", "off")
        with Run("r", repo=repo) as run:
            for number in range(MANY):
                run.track({f"i{number}": number, f"f{number}": float(number), f"x{number}": number + 0.5})
                run.track(1, name=f"b{number}")
                run.track(2.0, name=f"b{number}")
                run.track(Text("single"), name=f"s{number}")
                run.track([Text("one")], name=f"o{number}")
                run.track([Text("two"), Text("of them")], name=f"t{number}")
            run.log_text("a line")
        repo.merge()
    return root


def flags(root: Path, run_hash: str = "r") -> dict[tuple[Any, ...], int]:
    view = Reader(Layout(root / ".aimlite")).view()
    found = {}
    for sequence in view.sequences(run_hash, None):
        summary = view.summary(sequence)
        assert summary is not None
        found[sequence.kind, sequence.name, str(sequence.context)] = summary.flags & (INTS | FLOATS)
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def unreadable(root: Path) -> frozenset[str]:
    """The spaces of which some entries cannot be read."""
    found = set()
    tree = TreeReader(root / ".aimlite" / "tree")
    try:
        for name, space in _SPACES.items():
            try:
                for _ in tree.scan(keys.prefix_range(space)):
                    pass
            except CorruptionError:
                found.add(name)
    finally:
        tree.close()
    return frozenset(found)


def places(root: Path) -> dict[int, frozenset[str]]:
    """Where in the one file of the tree a flipped byte makes entries unreadable, and of which spaces."""
    (path,) = (root / ".aimlite" / "tree").glob("*.sst")
    content = path.read_bytes()
    found = {}
    for place in range(0, len(content), max(len(content) // 200, 50)):
        flip(path, place)
        try:
            found[place] = unreadable(root)
        except CorruptionError:
            break  # here begins what tells of the blocks
        finally:
            path.write_bytes(content)
    return found


def damaged_copy(root: Path, target: Path, where: Iterable[int]) -> Repo:
    shutil.copytree(root, target)
    (path,) = (target / ".aimlite" / "tree").glob("*.sst")
    for place in where:
        flip(path, place)
    return Repo(target)


def test_what_was_tracked_is_known_without_the_summaries(many: Path, tmp_path: Path) -> None:
    """From the heads of the blocks: ints stay ints, lists stay lists."""
    expected = flags(many)
    assert {expected["metric", f"{name}7", "{}"] for name in "if"} == {INTS, FLOATS}
    where = [place for place, spaces in places(many).items() if spaces == {"SEQUENCE"}]
    assert len(where) > 1
    repo = damaged_copy(many, tmp_path / "copy", [where[0], where[-1]])
    assert repo.check() != []
    (line,) = repo.repair()
    assert "rebuilt" in line
    assert repo.check() == []
    assert flags(tmp_path / "copy") == expected


def test_what_is_not_known_any_more_is_told(many: Path, tmp_path: Path) -> None:
    """Heads and summaries are lost: values and the numbers of objects tell some of it, and of the others there is a line each."""
    expected = flags(many)
    where = [place for place, spaces in places(many).items() if spaces and spaces <= {"SEQUENCE", "OF_RUN", "HEAD"}]
    repo = damaged_copy(many, tmp_path / "copy", where)
    done = repo.repair()
    assert repo.check() == []
    found = flags(tmp_path / "copy")
    assert found.keys() == expected.keys()
    changed = {name for name in found if found[name] != expected[name]}
    assert {name[:1] for _, name, _ in changed} == {"i", "b", "o"}
    assert found["logs", "logs", "{}"] == expected["logs", "logs", "{}"] == INTS
    for kind, name, context in changed:
        word = name if kind == "metric" else (kind, name)
        assert any("not known any more" in line and f"{word!r} {context}" in line for line in done), (kind, name)
    for kind, name, context in found.keys() - changed:
        if name[0] == "t":
            assert found[kind, name, context] == INTS
            assert not any(f"{(kind, name)!r}" in line for line in done)


def write_tree(root: Path, script: str) -> None:
    """Changes the tree by hand, in a process of its own as every merge is."""
    code = f"""
import sys
from pathlib import Path
import msgpack
from aimlite.storage import generation, keys, params
from aimlite.storage.layout import Layout
from aimlite.storage.tree import TreeWriter, tree_generation
layout = Layout(Path(sys.argv[1]))
tree = TreeWriter(layout.tree)
writes = dict()
{script}
writes[keys.generation()] = msgpack.packb(tree_generation(tree) + 1)
tree.commit(writes)
generation.write_generation(layout, tree)
tree.close()
"""
    subprocess.run([sys.executable, "-c", code, str(root / ".aimlite")], check=True, timeout=300)


def test_a_run_stays_in_the_trash_without_the_property_that_says_so(tmp_path: Path) -> None:
    with Repo(tmp_path) as repo:
        for run_hash in ("a", "b", "c"):
            with Run(run_hash, repo=repo) as run:
                run.track(1.0, name="m")
        repo.delete_runs(["a", "b"])
        repo.merge()
        trashed = {run.hash: run.trashed_at for run in repo.trash()}
        write_tree(tmp_path, "for run in 'ab': writes[keys.property_of_run(run, 'trashed')] = None\nwrites[keys.run('b')] = None")
        assert repo.check() != []
        repo.repair()
        assert repo.check() == []
        assert {run.hash: run.trashed_at for run in repo.trash()} == trashed
        assert repo.list_all_runs() == ["c"]
        repo.restore_runs(["a"])
        repo.merge()
        assert repo.check() == []
        assert set(repo.list_all_runs()) == {"a", "c"}


def test_a_run_that_is_half_imported_is_left_out(tmp_path: Path) -> None:
    with Repo(tmp_path) as repo:
        for run_hash in ("a", "b"):
            with Run(run_hash, repo=repo) as run:
                run.track(1.0, name="m")
                run.track(Text("t" * 500), name="t")
        repo.merge()
        half = """
for space in (keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT):
    for key, value in tree.scan(keys.of_whole_run(space, "a")):
        writes[key.replace(b"\\x02a\\x00", b"\\x02half\\x00")] = value
writes[keys.importing("half")] = b""
writes[keys.of_run("b", "m", {})] = None
"""
        write_tree(tmp_path, half)
        assert repo.check() != []
        repo.repair()
        assert repo.check() == []
        repo.merge()
        assert repo.check() == []
        assert set(repo.list_all_runs()) == {"a", "b"}


def test_objects_whose_steps_are_lost_go_and_are_told(tmp_path: Path) -> None:
    with Repo(tmp_path) as repo:
        with Run("a", repo=repo) as run:
            run.track(Text("t" * 500), name="t")
            for step in range(3):
                run.track(Text("u" * 500), name="u", step=step)
        repo.merge()
        write_tree(tmp_path, "for key, _ in tree.scan(keys.of_whole_run(keys.VALUES, 'a')): writes[key] = None")
        assert repo.check() != []
        done = repo.repair()
        assert [line for line in done if "the steps of 1 objects of 't' of run a are lost" in line]
        assert [line for line in done if "the steps of 3 objects of 'u' of run a are lost" in line]
        assert repo.check() == []


@pytest.mark.parametrize("space", ["META", "WRITER", "PROPERTY", "PARAM"])
def test_a_space_that_is_lost_is_told(tmp_path: Path, space: str) -> None:
    with Repo(tmp_path) as repo:
        for number in range(40):
            with Run(f"run{number:03}", repo=repo) as run:
                run["p"] = {f"k{k}": k for k in range(100)}
                for tag in range(20):
                    run.add_tag(f"tag {tag} {number}")
        repo.merge()
    (path,) = (tmp_path / ".aimlite" / "tree").glob("*.sst")
    flip(path, next(place for place, spaces in places(tmp_path).items() if space in spaces))
    with Repo(tmp_path) as repo:
        hit = unreadable(tmp_path)
        done = repo.repair()
        assert repo.check() == []
        for name in hit & {"META", "RUN", "WRITER", "PROPERTY", "PARAM"}:
            assert any(f"space {_SPACES[name].hex()} could not be read and are lost: " in line for line in done), name


def test_a_file_that_is_left_out_is_told(tmp_path: Path) -> None:
    """RocksDB's own repair, which is asked where the list of files is damaged too, takes no file that has a bad block."""
    with Repo(tmp_path) as repo:
        for run_hash in ("a", "b"):
            with Run(run_hash, repo=repo) as run:
                run.track_columns("m", [float(k) for k in range(3000)])
            repo.merge()
        first, second = sorted((tmp_path / ".aimlite" / "tree").glob("*.sst"))
        flip(second, 300)
        (tmp_path / ".aimlite" / "tree" / "CURRENT").unlink()
        done = repo.repair()
        assert [line for line in done if f"{second.name} has a bad block" in line]
        assert not [line for line in done if first.name in line]
        assert repo.check() == []
        assert repo.get_run("a").get_metric("m").count == 3000


def damaged_files(path: Path, count: int) -> list[Path]:
    """A repo whose tree has a small file for each of so many merges, all of which reach over the whole range of keys."""
    for number in range(count):
        with Run(f"run{number}", repo=path, capture_terminal_logs=False) as run:
            run["lr"] = number
            run.track_columns("loss", [step * 0.37 for step in range(2000)])
            run.track(Text(f"text {number}" * 100), name="said")
        end_segment(Repo(path)._layout)
        Repo(path).merge()
    return sorted(Repo(path)._layout.tree.glob("*.sst"))


@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_bad_file_costs_what_lay_in_it_alone(tmp_path: Path, place: int) -> None:
    """Though its one block hides from a scan what lies in all the others."""
    bad = damaged_files(tmp_path, 5)[place]
    data = bytearray(bad.read_bytes())
    data[100] ^= 1
    bad.write_bytes(data)
    repo = Repo(tmp_path)
    assert any("what intact files have in their place is kept" in line for line in repo.repair())
    assert repo.check() == []
    others = {f"run{number}" for number in range(5) if number != place}
    assert set(repo.list_all_runs()) >= others
    for run_hash in others:
        run = repo.get_run(run_hash)
        assert (run["lr"], run.get_metric("loss").count) == (int(run_hash[3:]), 2000)
        assert [text.data for text in run.get_text_sequence("said").values.tolist()] == [f"text {run_hash[3:]}" * 100]


def test_what_a_bad_file_had_deleted_does_not_come_back_with_its_run(tmp_path: Path) -> None:
    """The older files still have the run; its tombstone tells, where it is left."""
    damaged_files(tmp_path, 3)
    layout = Repo(tmp_path)._layout
    script = """
import sys
from pathlib import Path
from aimlite._ext.journal import now_us
from aimlite.storage import deletion, generation, keys
from aimlite.storage.layout import Layout
from aimlite.storage.tombstones import encode_tombstone
from aimlite.storage.tree import TreeWriter
layout = Layout(Path(sys.argv[1]))
tree = TreeWriter(layout.tree, generation.listed_manifest(layout))
tree.commit({keys.tombstone("run1"): encode_tombstone(now_us())})
generation.write_generation(layout, tree)
tree.close()
deletion._compact = lambda *arguments: None  # a process killed before it
deletion.delete(layout, ["run1"], [])
"""
    subprocess.run([sys.executable, "-c", script, str(layout.base)], check=True)
    bad = max(layout.tree.glob("*.sst"))
    data = bytearray(bad.read_bytes())
    data[5] ^= 1
    bad.write_bytes(data)
    repo = Repo(tmp_path)
    repo.repair()
    assert repo.check() == []
    assert set(repo.list_all_runs()) == {"run0", "run2"}
