"""What RocksDB reads before it checks anything (CURRENT, the MANIFEST): verified first, so that no damage of it makes anybody spin.

Whatever might spin runs in a child of its own, which the tests end when it does not come back.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from aimlite import CorruptionError, Repo, Run
from aimlite._ext.blocks import crc32c
from aimlite.storage import generation
from aimlite.storage.layout import Layout
from aimlite.storage.manifest import read_manifest, whole_records

STEP = 1 if os.environ.get("AIMLITE_STRESS") == "1" else 11
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
BLOCK = 32 << 10
SAFETY_S = 300

LOOK = """
    import json, os, shutil, sys
    from pathlib import Path
    from aimlite import CorruptionError, Repo
    from aimlite.errors import AimliteError
    from aimlite.storage.layout import Layout
    from aimlite.storage.view import Reader
    base, work = Path(sys.argv[1]), Path(sys.argv[2])
    def attempt(task):
        try:
            return task()
        except CorruptionError as error:
            return ["CorruptionError", os.path.basename(error.path or "")]
    def look(repo):
        repo._reader_ = Reader(Layout(base))
        run = repo.get_run("merged")
        return None if run is None else [sorted(repo.list_all_runs()), run["p"], run.get_metric("m").values.tolist()]
    for line in sys.stdin:
        name, at, bit = json.loads(line)
        path = base / "tree" / name
        content = path.read_bytes()
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        with Repo(base.parent) as repo:
            found = [attempt(lambda: look(repo)), sorted({os.path.basename(problem.path) for problem in repo.check(full=True)})]
        path.write_bytes(content)
        print(json.dumps(found), flush=True)
"""

MERGE_AND_REPAIR = """
    import json, os, sys
    from pathlib import Path
    from aimlite import CorruptionError, Repo, Run
    path = Path(sys.argv[1])
    told = []
    for task in (lambda: Run("merged", repo=path)["p"], lambda: Repo(path).merge(), lambda: Repo(path).prune()):
        try:
            task()
        except CorruptionError as error:
            told.append(os.path.basename(error.path or ""))
    with Repo(path) as repo:
        repo.repair()
        problems = [str(problem) for problem in repo.check()]
        runs = {run.hash: [run["p"], run.get_metric("m").values.tolist()] for run in repo.iter_runs()}
        repo.merge()
        problems += [str(problem) for problem in repo.check()]
    print(json.dumps([told, problems, runs]))
"""


def child(script: str, *arguments: object, lines: str = "") -> str:
    """What a process prints. Where it does not come back it is ended and the test fails."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, input=lines, timeout=SAFETY_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo whose tree has several files and whose MANIFEST has several records; with an ended journal."""
    path = tmp_path_factory.mktemp("sound") / "repo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIMLITE_MERGE", "off")
        for k, name in enumerate(("merged", "other", "waiting")):
            with Run(name, repo=path) as run:
                run["p"] = {"lr": 0.5, "k": k}
                run.track_columns("m", [float(k + i) for i in range(50)])
            if name != "waiting":
                Repo(path).merge()
            if name == "merged":
                first = manifest_of(path)
                shutil.copy(first, path / f"older-{first.name}")
    return path


@pytest.fixture
def repo_copy(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    shutil.copytree(sound, path)
    return path


EXPECTED = {name: [{"lr": 0.5, "k": k}, [float(k + i) for i in range(50)]] for k, name in enumerate(("merged", "other", "waiting"))}


def manifest_of(path: Path) -> Path:
    tree = path / ".aimlite" / "tree"
    return tree / read_manifest(tree).name


def record_starts(data: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        at += 7 + struct.unpack_from("<H", data, at + 4)[0]
    return starts


def masked(check: int) -> int:
    return ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF


def encode_log(payloads: list[bytes]) -> bytes:
    """A log as RocksDB's writer makes it."""
    out = bytearray()
    for payload in payloads:
        is_first, rest = True, payload
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += bytes(left)
                left = BLOCK
            piece, rest = rest[: left - 7], rest[left - 7 :]
            kind = (FULL if is_first else LAST) if not rest else (FIRST if is_first else MIDDLE)
            body = bytes([kind]) + piece
            out += struct.pack("<IH", masked(crc32c(body)), len(piece)) + body
            is_first = False
            if not rest:
                break
    return bytes(out)


def test_the_scan_knows_the_format() -> None:
    payloads = [b"a" * 10, b"", b"b" * (BLOCK - 7 - 17 - 7 - 7 - 3), b"c" * 5, b"d" * 100_000, b"e" * (BLOCK * 2), b"f"]
    ends = [len(encode_log(payloads[: k + 1])) for k in range(len(payloads))]
    data = encode_log(payloads)
    path = Path("MANIFEST")
    assert whole_records(data, path) == ends[-1]
    for size in sorted({*range(0, 40), *(end + k for end in ends for k in (-8, -1, 0, 1, 6, 7, 8)), *range(0, len(data), 997)}):
        if 0 <= size <= len(data):
            expected = max((end for end in ends if end <= size), default=0)
            assert whole_records(data[:size], path) == expected, size
            if size == expected:
                assert whole_records(data[:size] + bytes(100_000), path) == expected, size


def test_records_of_other_types_are_no_records_of_a_manifest() -> None:
    for kind in range(256):
        body = bytes([kind]) + b"\1\2\3\4payload"
        data = encode_log([b"a"]) + struct.pack("<IH", masked(crc32c(body)), len(body) - 1) + body
        if kind in (FULL, FIRST):
            assert whole_records(data, Path("MANIFEST")) == (len(data) if kind == FULL else 8)
        else:
            with pytest.raises(CorruptionError, match=f"type {kind} "):
                whole_records(data, Path("MANIFEST"))


def test_every_flip_in_a_log_of_several_blocks_is_found() -> None:
    """But for those that make the last record longer than the file, which is then one that was cut off."""
    data = encode_log([b"a" * 300, b"b" * (BLOCK - 320), b"c" * 40, b"d" * 300])
    last = len(data) - 300 - 7
    for at in [*range(0, len(data), 97), *range(BLOCK - 30, BLOCK + 80), *range(last, len(data))]:
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            try:
                assert whole_records(bytes(changed), Path("MANIFEST")) < len(data)
            except CorruptionError as error:
                assert (error.path, error.offset is not None) == ("MANIFEST", True)


def test_every_bit_of_the_types_and_of_the_rest_is_watched(repo_copy: Path, tmp_path: Path) -> None:
    """Listing, reading and check() come back, tell of the file that is damaged, and return nothing wrong."""
    manifest = manifest_of(repo_copy)
    types = [(manifest.name, start + 6, bit) for start in record_starts(manifest.read_bytes()) for bit in range(8)]
    assert len(types) >= 8 * 4
    others = [(manifest.name, at, at // STEP % 8) for at in range(0, manifest.stat().st_size, STEP)]
    current = [("CURRENT", at, bit) for at in range(16) for bit in range(0, 8, 3)]
    flips = types + others + current
    out = child(LOOK, repo_copy / ".aimlite", tmp_path, lines="\n".join(map(json.dumps, flips))).splitlines()
    assert len(out) == len(flips)
    for flip, line in zip(flips, out, strict=True):
        read, problems = json.loads(line)
        assert read[0] == "CorruptionError", flip
        assert problems, flip
        if flip[0] == manifest.name:
            assert (read[1], manifest.name in problems) == (manifest.name, True), flip


def test_files_that_nobody_reads_may_be_damaged(repo_copy: Path, tmp_path: Path) -> None:
    tree = repo_copy / ".aimlite" / "tree"
    flips = [
        (path.name, at, 4) for glob in ("OPTIONS-*", "IDENTITY") for path in tree.glob(glob) for at in range(0, path.stat().st_size, 701)
    ]
    assert len(flips) > 5
    for line in child(LOOK, repo_copy / ".aimlite", tmp_path, lines="\n".join(map(json.dumps, flips))).splitlines():
        assert json.loads(line) == [[["merged", "other", "waiting"], *EXPECTED["merged"]], []]
    for path in (*tree.glob("OPTIONS-*"), *tree.glob("IDENTITY"), *tree.glob("*.log"), tree / "LOG", tree / "rocksdict-config.json"):
        path.write_bytes(b"\5" * 5000)
    told, problems, runs = json.loads(child(MERGE_AND_REPAIR, repo_copy))
    assert (told, problems, runs) == ([], [], EXPECTED)


def flipped_type(path: Path, record: int) -> None:
    data = bytearray(path.read_bytes())
    data[record_starts(data)[record] + 6] ^= 4
    path.write_bytes(data)


def cut_at_a_record(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: record_starts(data)[-1]])


def older_under_the_new_name(path: Path) -> None:
    """A MANIFEST of the tree as it was before its last merge: every record of it is intact."""
    older = next(path.parents[2].glob("older-*"))
    path.write_bytes(older.read_bytes())


def current_names_an_older_one(path: Path) -> None:
    older_under_the_new_name(path)
    path.rename(path.with_name("MANIFEST-000001"))
    path.with_name("CURRENT").write_text("MANIFEST-000001\n")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the type of the first record": lambda path: flipped_type(path, 0),
    "the type of a record within": lambda path: flipped_type(path, 2),
    "the type of the last record": lambda path: flipped_type(path, -1),
    "cut at a record": cut_at_a_record,
    "cut within a record": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "an older one under its name": older_under_the_new_name,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": Path.unlink,
    "CURRENT names an older one": current_names_an_older_one,
    "CURRENT names none": lambda path: path.with_name("CURRENT").write_text("MANIFEST-\n"),
    "CURRENT is cut": lambda path: path.with_name("CURRENT").write_text(path.name),
    "CURRENT is gone": lambda path: path.with_name("CURRENT").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an older version"])
def test_merge_ends_and_repair_brings_everything_back(repo_copy: Path, damage: Callable[[Path], object], listed: bool) -> None:
    """Also where `generation` is one of an older version, which lists no MANIFEST."""
    if not listed:
        without_manifest(repo_copy)
    damage(manifest_of(repo_copy))
    told, problems, runs = json.loads(child(MERGE_AND_REPAIR, repo_copy))
    assert len(told) == 3 or (not listed and told == [])  # without the list, a last record that names no file is not missed
    assert problems == []
    assert runs == EXPECTED


def without_manifest(path: Path) -> None:
    layout = Layout(path / ".aimlite")
    number, files = generation.read_generation(layout)
    old = {name: told for name, told in files.items() if not generation.is_manifest(name)}
    assert len(old) == len(files) - 1
    layout.generation.write_bytes(generation.encode_generation(number, old))


def test_a_generation_of_an_older_version_is_read_and_the_next_merge_completes_it(repo_copy: Path) -> None:
    without_manifest(repo_copy)
    with Repo(repo_copy) as repo:
        assert repo.check() == []
        assert sorted(repo.list_all_runs()) == sorted(EXPECTED)
        repo.merge()
        assert repo.check() == []
        assert sorted(repo.list_all_runs()) == sorted(EXPECTED)
    layout = Layout(repo_copy / ".aimlite")
    manifest = manifest_of(repo_copy)
    assert generation.listed_manifest(layout) == (manifest.name, manifest.stat().st_size, crc32c(manifest.read_bytes()))


def test_a_merge_that_is_killed_before_it_lists_its_manifest_is_no_damage(repo_copy: Path) -> None:
    """It opened the tree, which begins another MANIFEST, and committed; `generation` is the old one. A record cut off at the end too."""
    layout = Layout(repo_copy / ".aimlite")
    before = layout.generation.read_bytes()
    with Repo(repo_copy) as repo:
        repo.merge()
        assert generation.listed_manifest(layout) is not None
        for tail in (b"", b"\1\2\3", manifest_of(repo_copy).read_bytes()[:40], bytes(64)):
            layout.generation.write_bytes(before)
            with open(manifest_of(repo_copy), "ab") as file:
                file.write(tail)
            assert [problem for problem in repo.check() if problem.path.endswith(("CURRENT", manifest_of(repo_copy).name))] == []
            assert {run.hash: [run["p"], run.get_metric("m").values.tolist()] for run in repo.iter_runs()} == EXPECTED
            repo.merge()
            assert repo.check() == []


def test_a_reader_that_comes_between_the_two_files_looks_again(repo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read `generation` of a tree that was replaced since."""
    from aimlite.storage import view

    layout = Layout(repo_copy / ".aimlite")
    number, listed = generation.wanted_generation(layout)
    assert listed is not None
    answers = iter([(number, (listed[0], listed[1], listed[2] ^ 1))])
    monkeypatch.setattr(view, "wanted_generation", lambda layout: next(answers, None) or generation.wanted_generation(layout))
    with Repo(repo_copy) as repo, holding_lease(layout):
        assert sorted(repo.list_all_runs()) == sorted(EXPECTED)
    assert next(answers, None) is None


def holding_lease(layout: Layout) -> object:
    from aimlite.storage.locks import lease

    return lease(layout.lease, wait=True)


SPINS = """
    import sys
    from pathlib import Path
    from aimlite.storage import manifest, merge_helper, tree
    def unverified(path, listed=None):
        name = (path / "CURRENT").read_text().strip()
        return manifest.Manifest(name, (path / name).read_bytes())
    tree.read_manifest = unverified
    tree.OPENING_CPU_S = 1.0
    sys.exit(merge_helper.main(sys.argv[1:]))
"""


def test_a_helper_that_spins_is_ended_and_leaves_the_lease(repo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As RocksDB does on a MANIFEST that nobody verified; played, because that does not happen any more."""
    from aimlite.storage import helper

    flipped_type(manifest_of(repo_copy), 2)
    layout = Layout(repo_copy / ".aimlite")
    ignored = "import signal, sys, os; signal.signal(signal.SIGPROF, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", ignored, sys.executable, "-c", textwrap.dedent(SPINS), str(layout.base), "merge", "--wait"]
    monkeypatch.setattr(helper, "_command", lambda *_: command)
    with Repo(repo_copy) as repo, pytest.raises(CorruptionError, match=r"too much time.*repair") as told:
        repo.merge()
    assert told.value.path == str(layout.tree)
    monkeypatch.undo()
    done = subprocess.run(command, capture_output=True, timeout=SAFETY_S, check=False)
    assert done.returncode == -signal.SIGPROF
    with holding_lease(layout) as got:  # type: ignore[attr-defined]
        assert got
