"""Journals whose checksums are right and whose content is not: each damages its segment alone. The others are read, queried and merged,
check() names the journal, and repair() brings the repo back to a clean check."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from aimlite import CorruptionError, Repo, Run, RunNotFound
from aimlite._ext.keys import pack
from aimlite.storage.layout import Layout, journal_name
from aimlite.storage.segments import Segment
from aimlite.storage.view import Reader
from aimlite.storage.writer import end_segment
from reference import journal as reference
from reference.journal import COLUMNS, END, OBJECT, OPEN, PARAMS, POINTS, PROPERTY, SEQUENCE

WRITER, ORDER = 0xFEED, 1_700_000_000_000_000
Group = tuple[int, list[tuple[int, bytes]]]
RUN = struct.pack("<I", 0)


def packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def extension(code: int, content: bytes) -> bytes:
    return packed(msgpack.ExtType(code, content))


def nested(code: int, depth: int) -> bytes:
    """Tuples (3), sets (4), frozensets (5) inside one another; or lists, with code 0."""
    value = packed(1)
    for _ in range(depth):
        value = b"\x91" + value if not code else extension(code, b"\x91" + value if code == 3 else value)
    return value


def leaf(value: bytes, path: Any = ("p",)) -> tuple[int, bytes]:
    """A PARAMS record that sets one leaf. value: its msgpack."""
    return PARAMS, RUN + b"\0\x92\x90\x91\x92" + packed(list(path)) + value


def prop(name: Any, value: Any) -> tuple[int, bytes]:
    return PROPERTY, RUN + packed([name, value])


def sequence(name: Any, context: Any, number: int = 7, kind: int = 1, run: int = 0) -> tuple[int, bytes]:
    return SEQUENCE, struct.pack("<IIB", number, run, kind) + pack((name, context))


def objects(items: Any, number: int = 1, after: bytes = b"") -> tuple[int, bytes]:
    head = items if isinstance(items, bytes) else packed(items)
    return OBJECT, struct.pack("<II", number, len(head)) + head + after


def counting(count: float, number: int = 1) -> tuple[int, bytes]:
    """The point of a step of objects."""
    return POINTS, reference.encode_points([(number, 3, count, False)])


def named(content: bytes, size: int | None = None) -> msgpack.ExtType:
    return msgpack.ExtType(2, hashlib.sha256(content).digest() + struct.pack("<Q", len(content) if size is None else size))


LONG = b"x" * 300
DECLARED: Group = (
    ORDER + 1,
    [
        (OPEN, reference.encode_open(0, "crafted")),
        (SEQUENCE, reference.encode_sequence(0, 0, "m", {})),
        (SEQUENCE, reference.encode_sequence(1, 0, ("texts", "t"), {}, 2)),
        (POINTS, reference.encode_points([(0, 0, 0.5, False)])),
    ],
)

# What each door is given: a group that follows DECLARED.
DOORS: dict[str, list[tuple[int, bytes]]] = {
    "a hash that leads out": [(OPEN, reference.encode_open(1, "../../outside"))],
    "a hash with a slash": [(OPEN, reference.encode_open(1, "a/b"))],
    "a hidden hash": [(OPEN, reference.encode_open(1, ".other"))],
    "no hash": [(OPEN, reference.encode_open(1, ""))],
    "a long hash": [(OPEN, reference.encode_open(1, "a" * 129))],
    "a hash that is no text": [(OPEN, struct.pack("<IB", 1, 0) + b"\xff\xfe")],
    "flags that there are not": [(OPEN, reference.encode_open(1, "other", 64))],
    "opened at no time": [(OPEN, reference.encode_open(1, "other", 0, 2**60))],
    "a run number twice": [(OPEN, reference.encode_open(0, "other"))],
    "an OPEN that is cut short": [(OPEN, b"\0\0")],
    "a name that is empty": [sequence("", {})],
    "a name that is a number": [sequence(5, {})],
    "a name that is none": [sequence(None, {})],
    "a kind that is no text": [sequence((5, "t"), {}, kind=2)],
    "objects called metric": [sequence(("texts", "t2"), {}, kind=1)],
    "a metric called objects": [sequence("n", {}, kind=2)],
    "a kind that there is not": [sequence("n", {}, kind=3)],
    "a context that is a list": [sequence("n", ("a",))],
    "a context of bytes": [sequence("n", {"a": b"b"})],
    "a context of NaN": [sequence("n", {"a": float("nan")})],
    "a context of -0.0": [sequence("n", {"a": -0.0})],
    "a context too deep": [(SEQUENCE, struct.pack("<IIB", 7, 0, 1) + pack(("n", {"a": json.loads("[" * 40 + "]" * 40)})))],
    "a name too long": [sequence("n" * 5000, {})],
    "no context": [(SEQUENCE, struct.pack("<IIB", 7, 0, 1) + pack(("n",)))],
    "more than a context": [(SEQUENCE, struct.pack("<IIB", 7, 0, 1) + pack(("n", {}, 1)))],
    "a sequence number twice": [sequence("n", {}, number=0)],
    "a sequence that is cut short": [(SEQUENCE, b"\0\0\0")],
    "an operation that there is not": [(PARAMS, RUN + b"\7\x91\x90")],
    "an operation without a path": [(PARAMS, RUN + b"\0\x90")],
    "an operation that is a number": [(PARAMS, RUN + b"\0\x05")],
    "a deletion with leaves": [(PARAMS, RUN + b"\2\x92\x90\x90")],
    "a path that is text": [(PARAMS, RUN + b"\0" + packed(["abc", [[[], 1]]]))],
    "a path of floats": [leaf(b"\1", [1.5])],
    "a path of bools": [leaf(b"\1", [True])],
    "a path of lists": [leaf(b"\1", [["a"]])],
    "a path too deep": [leaf(b"\1", ["a"] * 1001)],
    "a key too large": [(PARAMS, RUN + b"\0\x92\x90\x91\x92\x91" + extension(1, str(1 << 2100).encode()) + b"\1")],
    "leaves that are text": [(PARAMS, RUN + b"\0" + packed([["p"], "abc"]))],
    "a leaf without a value": [(PARAMS, RUN + b"\0" + packed([["p"], [[["a"]]]]))],
    "a leaf that is a map": [leaf(packed({"a": 1}))],
    "a leaf in the place of all": [leaf(b"\5", [])],
    "a leaf cut short": [leaf(b"\x92\1")],
    "a leaf and more": [(PARAMS, RUN + b"\0\x92\x90\x91\x92\x91\xa1p\1\1")],
    "no msgpack": [leaf(b"\xc1")],
    "text that is no UTF-8": [leaf(b"\xa2\xff\xfe")],
    "lists too deep": [leaf(nested(0, 300))],
    "tuples too deep": [leaf(nested(3, 200))],
    "sets too deep": [leaf(nested(4, 200))],
    "frozensets too deep": [leaf(nested(5, 200))],
    "complex numbers inside one another": [leaf(extension(10, b"\x92" + extension(10, b"\x92\1\1") + b"\1"))],
    "durations inside one another": [leaf(extension(9, b"\x93" + extension(9, b"\x93\1\1\1") + b"\1\1"))],
    "arrays inside one another": [leaf(extension(11, packed(["<f8", [1], msgpack.ExtType(11, packed(["<f8", [1], bytes(8)]))])))],
    "an array of objects": [leaf(extension(11, packed(["|O", [1], bytes(8)])))],
    "an array of records": [leaf(extension(11, packed(["f8,i4", [1], bytes(12)])))],
    "an array of another shape": [leaf(extension(11, packed(["<f8", [7], bytes(8)])))],
    "an array of a negative shape": [leaf(extension(11, packed(["<f8", [-1], bytes(8)])))],
    "an array of a shape of text": [leaf(extension(11, packed(["<f8", "ab", bytes(8)])))],
    "an array of a number": [leaf(extension(11, packed(5)))],
    "a tuple that is a map": [leaf(extension(3, packed({})))],
    "a tuple that is cut short": [leaf(extension(3, b"\x92\1"))],
    "a set of lists": [leaf(extension(4, b"\x90"))],
    "a map under a list": [leaf(b"\x81\x90\1")],
    "a date that is none": [leaf(extension(7, b"2023-13-45"))],
    "a moment that is none": [leaf(extension(6, b"soon"))],
    "an hour that is none": [leaf(extension(8, b"\xff"))],
    "a duration beyond all": [leaf(extension(9, packed([2**60, 0, 0])))],
    "an int that is none": [leaf(extension(1, b"seven"))],
    "a blob without a size": [leaf(extension(2, b"x" * 39))],
    "names of blobs that are cut short": [leaf(extension(12, b"x" * 31))],
    "an extension that there is not": [leaf(extension(99, b"x"))],
    "a timestamp": [leaf(packed(msgpack.Timestamp(1)))],
    "a property that is a number": [(PROPERTY, RUN + b"\5")],
    "a property without a value": [(PROPERTY, RUN + packed(["name"]))],
    "a property without a name": [prop("", 1)],
    "a property called 5": [prop(5, 1)],
    "an experiment that is a number": [prop("experiment", 5)],
    "a name that is a list": [prop("name", ["a"])],
    "a description that is a number": [prop("description", 5)],
    "archived by a word": [prop("archived", "yes")],
    "a tag added by a word": [prop("tag:a", "yes")],
    "a tag without a name": [prop("tag:", 1)],
    "trashed by a word": [prop("trashed", "yes")],
    "trashed at no time": [prop("trashed", 2**60)],
    "an error that is text": [prop("error", "no")],
    "an error of numbers": [prop("error", [1, 2, 3, 4])],
    "progress that is text": [prop("progress", "fast")],
    "a note that is a number": [prop("note:" + "0" * 18 + ":" + "0" * 18, 5)],
    "progress that no float holds": [(PROPERTY, RUN + b"\x92\xa8progress\x92\1" + extension(1, b"1" + b"0" * 400))],
    "a note of no experiment": [prop("experiment.note:" + "0" * 18 + ":" + "0" * 18, "text")],
    "a note of another form": [prop("note:abc", "text")],
    "a place of artifacts that is a number": [prop("artifacts_uri", 5)],
    "an end that is none": [(END, RUN + b"\7" + bytes(8))],
    "an end that is cut short": [(END, RUN + b"\1")],
    "an end at no time": [(END, reference.encode_end(0, 1, 2**60))],
    "an end before all time": [(END, reference.encode_end(0, 1, -1))],
    "a record of type 8": [(8, RUN + b"x")],
    "a record of type 126": [(126, RUN + b"x")],
    "objects that are a number": [objects(5), counting(1)],
    "an object that is text": [objects(["ab"]), counting(1)],
    "an object without content": [objects([[{}]]), counting(1)],
    "an object whose header is a list": [objects([[[], b""]]), counting(1)],
    "an object whose content is a number": [objects([[{}, 5]]), counting(1)],
    "objects too deep": [objects(b"\x91\x92\x81\xa1a" + nested(3, 200) + b"\xc4\0"), counting(1)],
    "an OBJECT that is cut short": [(OBJECT, struct.pack("<II", 1, 500) + b"\x90"), counting(1)],
    "objects of a metric": [objects([[{}, b"a"]], number=0), counting(1, 0)],
    "objects without a point": [objects([[{}, b"a"]])],
    "more objects than their point counts": [objects([[{}, b"a"], [{}, b"b"]]), counting(1)],
    "a point without objects": [counting(1)],
    "a point of no number of objects": [objects([[{}, b"a"]]), counting(float("nan"))],
    "two points with the same objects": [objects([[{}, b"a"]]), counting(1), counting(1)],
    "a content of another name": [objects([[{}, named(b"y" * 300)]], after=LONG), counting(1)],
    "a content beyond the record": [objects([[{}, named(LONG, 700_000)]], after=LONG), counting(1)],
    "points of flags that there are not": [(POINTS, b"\xf0" + bytes(20))],
    "columns of another length": [(COLUMNS, reference.encode_columns(0, [1, 2], [1.0, 2.0]) + b"x")],
}
# What is right, and lies beside the doors: none of it may be refused.
RIGHT: dict[str, list[tuple[int, bytes]]] = {
    "a property that a later version has": [prop("colour", ["any", {"thing": 1}])],
    "tuples as deep as they are stored": [leaf(nested(3, 60))],
    "no params at all": [leaf(b"\x80", [])],
    "a note": [prop("note:" + "0" * 18 + ":" + "0" * 18, "text")],
    "an object": [objects([[{"length": 300}, named(LONG)]], after=LONG), counting(1)],
    "points of a sequence that was lost": [(POINTS, reference.encode_points([(55, 0, 1.0, False)]))],
    "a param of a run that was lost": [(PARAMS, struct.pack("<I", 9) + b"\0\x92\x90\x91\x92\x91\xa1p\1")],
}


def crafted(layout: Layout, groups: list[Group], writer: int = WRITER) -> Path:
    path = layout.journals / journal_name(writer, 0)
    path.write_bytes(reference.encode_journal(writer, 0, ORDER, groups))
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo with a run in the tree, and one in a journal."""
    path = tmp_path_factory.mktemp("template") / "repo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIMLITE_MERGE", "off")
        for run_hash in ("merged", "waiting"):
            with Run(run_hash, repo=path, system_tracking_interval=None, capture_terminal_logs=False) as run:
                run["lr"] = 0.5
                run.track(1.5, name="loss")
            end_segment(Repo(path)._layout)
            if run_hash == "merged":
                Repo(path).merge()
    return path


def copied(template: Path, path: Path) -> Repo:
    import shutil

    shutil.copytree(template, path)
    return Repo(path)


def look(repo: Repo, is_catalog_sound: bool = True) -> None:
    """What the sound runs say, whatever else is there."""
    assert {"merged", "waiting"} <= set(repo.list_all_runs())
    repo.collect_params_info(), repo.collect_sequence_info(["metric", "texts"]), repo.trash()
    for task in (repo.tags, repo.experiments):
        with contextlib.nullcontext() if is_catalog_sound else contextlib.suppress(CorruptionError):
            task()
    assert repo.stats()["runs"] >= 2
    assert {"merged", "waiting"}.isdisjoint(repo.list_corrupted_runs())
    for query in ("run.lr == 0.5", "run.experiment == 'default' and not run.archived", "run.p != 12 and run.status == 'finished'"):
        assert {found.run.hash for found in repo.query_runs(query)} >= {"merged", "waiting"}, query
    assert {found.run.hash for found in repo.query_metrics("metric.last == 1.5")} == {"merged", "waiting"}
    for run_hash in ("merged", "waiting"):
        run = repo.get_run(run_hash)
        assert run is not None
        assert (run[...], run.status, run.get_metric("loss").values.tolist()) == ({"lr": 0.5}, "finished", [1.5])


def read_all(repo: Repo, run_hash: str) -> None:
    """Reads a run as far as it goes; nothing but CorruptionError may come of it."""
    run = Run._existing(run_hash, repo)
    tasks: list[Any] = [
        lambda: run[...],
        lambda: (run.status, run.tags, run.notes, run.error, run.stalled, run.name, run.created_at, run.updated_at, run.duration),
        lambda: [(metric.values.tolist(), metric.timestamps.tolist()) for metric in run.metrics()],
        lambda: [found.values.tolist() for found in (run.get_text_sequence("t"),) if found is not None],
        lambda: run.get_terminal_logs(),
    ]
    for task in tasks:
        try:
            task()
        except RunNotFound:
            assert run_hash not in repo.list_all_runs()
        except CorruptionError as error:
            assert error.path, error


UPKEEP = """
import dataclasses, json, sys
from pathlib import Path
from aimlite.storage.layout import Layout
from aimlite.storage.merge import merge
from aimlite.storage.repair import repair
for base in sys.stdin.read().split():
    layout = Layout(Path(base))
    first = merge(layout, True)
    print(json.dumps([first.damaged, repair(layout), merge(layout, True).damaged, len(layout.list_journals())]), flush=True)
"""


def upkeep(repos: list[Repo]) -> list[list[Any]]:
    """[damaged journals that a merge left alone, what repair() did, damaged ones of a merge after it, journals left] of each."""
    bases = "\n".join(str(repo._layout.base) for repo in repos)
    done = subprocess.run([sys.executable, "-c", UPKEEP], input=bases, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.filterwarnings("ignore:runs may be missing here")
def test_every_door_damages_its_segment_alone(template: Path, tmp_path: Path) -> None:
    repos, paths = [], []
    for number, (name, records) in enumerate({**DOORS, **RIGHT}.items()):
        repo = copied(template, tmp_path / str(number))
        paths.append(crafted(repo._layout, [DECLARED, (ORDER + 2, records), (ORDER + 3, [(END, reference.encode_end(0, 1, ORDER + 4))])]))
        problems = {(problem.kind, problem.path) for problem in repo.check()}
        assert problems == ({("journal", str(paths[-1]))} if name in DOORS else set()), (name, repo.check())
        look(repo)
        for run_hash in {"crafted", *repo.list_all_runs()} - {"merged", "waiting"}:
            read_all(repo, run_hash)
        repos.append(repo)
    for name, repo, path, done in zip([*DOORS, *RIGHT], repos, paths, upkeep(repos), strict=True):
        damaged, repaired, later, left = done
        assert damaged == ([str(path)] if name in DOORS else []), name
        assert len(repaired) == (name in DOORS), (name, repaired)
        assert (later, left) == ([], 0), name
        assert repo.check() == [], name
        look(repo)
        run = repo.get_run("crafted")
        assert run is not None, name
        assert run.get_metric("m").values.tolist() == [0.5], name
        assert not any(entry.name not in ("repo", str(repos.index(repo))) for entry in Path(repo.path).parent.parent.glob("outside*")), name


def test_what_a_few_bytes_cost_a_reader(tmp_path: Path) -> None:
    """In a process of its own: the memory that reading crafted journals takes, beside that of a sound one."""
    script = """
import resource, sys
from pathlib import Path
from aimlite.errors import CorruptionError
from aimlite.storage.segments import Segment
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
Segment(Path(sys.argv[1]), 1, 0).inspect()
before = peak()
for path in sys.argv[2:]:
    segment = Segment(Path(path), 1, 0)
    segment.inspect()
print(peak() - before)
"""
    big = 2**20
    crafted_groups: list[list[Group]] = [
        [DECLARED],
        [DECLARED, (ORDER + 2, [(POINTS, reference.encode_points([(big, 0, 1.0, False)]))])],
        [DECLARED, (ORDER + 2, [sequence("n", {}, number=big), (POINTS, reference.encode_points([(big, 0, 1.0, False)]))])],
        [DECLARED, (ORDER + 2, [(POINTS, reference.encode_points([(2**31 - 1, 0, 1.0, False)]))])],
        [DECLARED, (ORDER + 2, [(OPEN, reference.encode_open(2**32 - 1, "other"))])],
        [DECLARED, (ORDER + 2, [objects([[{}, named(b"", 2**40)]]), counting(1)])],
        [DECLARED, (ORDER + 2, [leaf(b"\xdd\xff\xff\xff\xff")]), (ORDER + 3, [leaf(b"\xc9\xff\xff\xff\xff\3")])],
    ]
    paths = []
    for number, groups in enumerate(crafted_groups):
        paths.append(tmp_path / f"{number}.journal")
        paths[-1].write_bytes(reference.encode_journal(1, 0, ORDER, groups))
    done = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 << 20


@pytest.mark.parametrize(
    "offsets", [lambda right: right[:-1], lambda right: right * 1000, lambda right: right[::-1], lambda right: [40] * 9]
)
def test_a_footer_that_lists_something_else(tmp_path: Path, offsets: Any) -> None:
    """It is either not believed, or found out when the whole is read; what it costs is bounded by the file."""
    groups: list[Group] = [DECLARED, (ORDER + 2, [leaf(b"\1")])]
    whole = reference.encode_journal(WRITER, 0, ORDER, groups)
    records = reference.decode_journal(whole, WRITER, 0).records
    right = [record.offset for record in records if record.kind not in (POINTS, COLUMNS)]
    path = tmp_path / journal_name(WRITER, 0)
    footer = reference.encode_footer(offsets(right), [1, 0])
    path.write_bytes(whole + reference.encode_record(WRITER, 0, len(records), reference.ROTATED, footer, ORDER + 3))
    segment = Segment(path, WRITER, 0)
    segment.inspect()
    assert len(segment.runs["crafted"].params) == (offsets(right) != right[:-1])
    assert bool(segment.damage) == (offsets(right) == right[:-1])


@pytest.mark.parametrize("counts", [[], [1], [2, 0], [1, 0, 5], [2**32 - 1, 1]])
def test_a_footer_that_counts_something_else(tmp_path: Path, counts: list[int]) -> None:
    whole = reference.encode_journal(WRITER, 0, ORDER, [DECLARED])
    records = reference.decode_journal(whole, WRITER, 0).records
    footer = reference.encode_footer([record.offset for record in records if record.kind != POINTS], counts)
    path = tmp_path / journal_name(WRITER, 0)
    path.write_bytes(whole + reference.encode_record(WRITER, 0, len(records), reference.ROTATED, footer, ORDER + 3))
    segment = Segment(path, WRITER, 0)
    segment.inspect()
    assert bool(segment.damage) == (len(counts) > 1)  # with fewer the footer is not believed from the start


def in_small_thread(task: Any) -> Any:
    """What a task returns in a thread whose stack is as small as threads' are on some systems."""
    found: list[Any] = []
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=lambda: found.append(task()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return found[0]


def deep(kind: type, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [tuple, frozenset, list])
def test_what_may_be_stored_is_read_in_a_small_thread(repo: Repo, kind: type) -> None:
    with Run("r", repo=repo) as run:
        run["p"] = deep(kind, 60)
        run["q"] = {"a": deep(kind, 59)}
    for merged in (False, True):
        found = in_small_thread(lambda: Reader(repo._layout).view().params("r"))
        assert found == {"p": deep(kind, 60), "q": {"a": deep(kind, 59)}}, merged
        repo.merge()


@pytest.mark.parametrize("kind", [tuple, frozenset, list])
def test_what_is_too_deep_is_refused_when_it_is_written(repo: Repo, kind: type) -> None:
    with Run("r", repo=repo) as run:
        with pytest.raises(ValueError, match="nested at most 60 deep"):
            run["p"] = deep(kind, 62)
        with pytest.raises(ValueError, match="nested at most 60 deep"):
            run[("a",) * 61] = 1
        with pytest.raises(ValueError, match="nested at most 60 deep"):
            del run[("a",) * 61]
        assert run[...] == {}


@pytest.mark.parametrize("name", ["VERSION", "generation", "journals/0123456789abcdef-00000000.journal", "blobs/ab/" + "c" * 62])
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(template: Path, tmp_path: Path, name: str) -> None:
    """Opening one for reading would wait for ever. In processes of their own, so that waiting fails this test and nothing else."""
    repo = copied(template, tmp_path / "repo")
    path = Path(repo.path, name)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    script = """
import sys, warnings
from aimlite import CorruptionError, Repo
warnings.simplefilter("ignore")
repo = Repo(sys.argv[1])
assert repo.check() != []
for task in (repo.list_all_runs, lambda: repo.get_run("waiting")["lr"], repo.merge):
    try:
        task()
    except CorruptionError:
        print("told")
print(repo.repair())
assert repo.check() == []
assert {"merged", "waiting"} <= set(repo.list_all_runs())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "repo")]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.rstrip().endswith("]")


# ---- any content ----

VALUES: list[Any] = [
    *(None, True, 0, -1, 2**53, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), "", "name", "trashed", "experiment"),
    *(
        "../x",
        "tag:a",
        "note:a",
        b"",
        b"\xff",
        [],
        {},
        [[]],
        [1],
        {"a": 1},
        {1: {}},
        [[["p"], 1]],
        [["p"], [[[], 1]]],
        ["error", [1, "a", "b", "c"]],
    ),
    *(msgpack.ExtType(code, content) for code in (1, 2, 3, 4, 6, 9, 10, 11, 12, 20) for content in (b"", b"1", b"\x91\1", bytes(40))),
]


def some(rng: random.Random, depth: int = 0) -> Any:
    """A value that msgpack has, with a bent for what records hold."""
    if depth < 4 and rng.random() < 0.3:
        if rng.random() < 0.3:
            return {rng.choice(["a", "raw", "format", 1, "length"]): some(rng, depth + 1) for _ in range(rng.randrange(3))}
        return [some(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice(VALUES)


def some_record(rng: random.Random) -> tuple[int, bytes]:
    number = struct.pack("<I", rng.choice([0, 0, 0, 1, 2, 3, 2**20, 2**32 - 1]))
    match rng.randrange(9):
        case 0:
            name = rng.choice(["other", "crafted", "", ".catalog", "a/b", "..", "x" * 128, "é"])
            return OPEN, number + bytes([rng.choice([0, 0, 1, 2, 4, 8, 12, 255])]) + name.encode() + rng.choice([b"", bytes(8)])
        case 1:
            names = ["n", "", ("texts", "u"), ("a",), 5, None, ("texts", ""), (("a",), "b")]
            contexts = [{}, {"a": 1}, {"a": (1, {"b": None})}, (), None, {"a": b""}]
            return SEQUENCE, number + RUN + bytes([rng.randrange(4)]) + pack((rng.choice(names), rng.choice(contexts)))
        case 2:
            return PARAMS, number + bytes([rng.choice([0, 0, 1, 2, 3])]) + packed([some(rng), some(rng)][: rng.randrange(3)] or some(rng))
        case 3:
            return leaf(packed(some(rng)), [rng.choice(["a", "b", 1, 2**64 - 1]) for _ in range(rng.randrange(4))])
        case 4:
            names = ["name", "trashed", "tag:a", "note:a", "error", "progress", "experiment", "archived", "x", some(rng)]
            return PROPERTY, number + packed([rng.choice(names), some(rng)])
        case 5:
            items = [[some(rng), some(rng)] for _ in range(rng.randrange(3))]
            return objects(packed(items if rng.random() < 0.8 else some(rng)), rng.choice([0, 1, 2]), rng.randbytes(rng.randrange(3)))
        case 6:
            return END, number + bytes([rng.randrange(5)]) + struct.pack("<q", rng.choice([0, ORDER, -1, 2**60])) + rng.choice([b"", b"x"])
        case 7:
            points = [
                (
                    rng.choice([0, 1, 2, 2**20]),
                    rng.choice([0, 5, -(2**63)]),
                    rng.choice([1.0, 0.0, float("nan"), 1e300]),
                    rng.random() < 0.5,
                )
            ]
            return POINTS, reference.encode_points(points, rng.random() < 0.5, rng.choice([None, 1.0]), rng.choice([None, -(2**63), ORDER]))
        case _:
            return rng.randrange(1, 12), rng.randbytes(rng.randrange(40))


def some_groups(seed: int) -> list[Group]:
    rng = random.Random(seed)
    groups: list[Group] = [DECLARED] if rng.random() < 0.9 else []
    for number in range(rng.randrange(1, 5)):
        order = ORDER + 2 + number if rng.random() < 0.95 else rng.choice([0, 2**53, 2**53 + 1, 2**64 - 1])
        groups.append((order, [some_record(rng) for _ in range(rng.randrange(1, 4))]))
    return groups


def bear(template: Path, folder: Path, seeds: range) -> None:
    """Repos with two journals of any content beside the sound runs: nothing but CorruptionError comes of reading, merging leaves alone what
    check() names, and after repair() all is clean."""
    repos = []
    for seed in seeds:
        repo = copied(template, folder / str(seed))
        for writer in (WRITER, WRITER + 1):
            crafted(repo._layout, some_groups(2 * seed + writer - WRITER), writer)
        try:
            damaged = {problem.path for problem in repo.check()}
            assert damaged <= {str(repo._layout.journal(writer, 0)) for writer in (WRITER, WRITER + 1)}
            look(repo, is_catalog_sound=False)
            for run_hash in set(repo.list_all_runs()) | {"crafted"} - {"merged", "waiting"}:
                read_all(repo, run_hash)
        except BaseException:
            print(f"seed {seed}")
            raise
        repos.append((seed, repo, damaged))
    for (seed, repo, damaged), (left, _, later, journals) in zip(repos, upkeep([repo for _, repo, _ in repos]), strict=True):
        assert (set(left), later, journals) == (damaged, [], 0), f"seed {seed}"
        assert repo.check() == [], f"seed {seed}"
        look(repo)


@pytest.mark.filterwarnings("ignore:runs may be missing here")
@pytest.mark.parametrize("seeds", [range(120), range(103759285010, 103759285011)])  # a step of no objects among single ones
def test_any_content(template: Path, tmp_path: Path, seeds: range) -> None:
    bear(template, tmp_path, seeds)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore:runs may be missing here")
def test_fuzz(template: Path, tmp_path: Path) -> None:
    import shutil

    ends, seed = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60")), random.randrange(2**40)
    while time.monotonic() < ends:
        bear(template, tmp_path / str(seed), range(seed, seed + 40))
        shutil.rmtree(tmp_path / str(seed))
        seed += 40
