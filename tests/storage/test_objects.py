"""Sequences of objects: whatever their size and wherever they lie, they come back as they were tracked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite import Repo, Run
from aimlite.errors import CorruptionError
from aimlite.storage import keys, objects
from aimlite.storage.check import check
from aimlite.storage.media import finish
from aimlite.storage.objects import decode_items, decode_object_record, encode_items, object_records
from aimlite.storage.view import Reader

SIZES = (0, 1, objects.INLINE_BYTES, objects.INLINE_BYTES + 1, 5000, (1 << 20) - 1, 1 << 20)


def content(size: int, seed: int = 0) -> bytes:
    return bytes((7 * k + seed) % 251 for k in range(min(size, 300))) + b"\xab" * max(0, size - 300)


def read(repo: Repo, run_hash: str, name: str, context: dict[str, Any] | None = None, kind: str = "texts") -> dict[int, list[Any]]:
    """step → [(header, content)] as a reader that saw nothing before finds them."""

    def task(view: Any) -> dict[int, list[Any]]:
        sequence = view.sequence(run_hash, name, context or {}, kind)
        if sequence is None:
            return {}
        points, found = view.points(sequence), {}
        for k, items in enumerate(view.objects(sequence, points)):
            stamp = int(points["order"][k]), int(points["writer"][k])
            found[int(points["step"][k])] = [view.object(sequence, *stamp, index) for index in range(len(items))]
            assert [header for header, _ in found[int(points["step"][k])]] == [item.header for item in items]
            assert [len(data) for _, data in found[int(points["step"][k])]] == [item.size for item in items]
        return found

    return Reader(repo._layout).read(task)


@pytest.fixture(params=["journal", "rotated", "tree", "mixed"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


def settle(repo: Repo, place: str) -> None:
    if place == "rotated":
        repo._writer().end_segment()
    elif place in ("tree", "mixed"):
        repo.merge()


def test_objects_of_every_size_come_back(repo: Repo, place: str) -> None:
    run = Run(repo=repo)
    expected = {}
    for step, size in enumerate(SIZES):
        expected[step] = [({"caption": f"{size}", "n": [1, 2.5, None]}, content(size))]
        run._track_items("texts", "t", expected[step], step=step)
        if place == "mixed" and step == 3:
            settle(repo, place)
    expected[7] = [({"k": k}, content(size, k)) for k, size in enumerate(SIZES)]
    if place != "mixed":
        settle(repo, place)
    run._track_items("texts", "list", expected[7], in_list=True, step=7)
    assert read(repo, run.hash, "t") == {step: items for step, items in expected.items() if step < 7}
    assert read(repo, run.hash, "list") == {7: expected[7]}
    run.close()
    repo.merge()
    assert read(repo, run.hash, "list") == {7: expected[7]}


def test_more_than_a_record_holds(repo: Repo) -> None:
    run = Run(repo=repo)
    items = [({"k": k}, content(1_000_000, k)) for k in range(40)]
    run._track_items("images", "many", items, in_list=True)
    assert read(repo, run.hash, "many", kind="images") == {0: items}
    repo.merge()
    assert read(repo, run.hash, "many", kind="images") == {0: items}


def test_a_step_tracked_again_replaces(repo: Repo, place: str) -> None:
    run = Run(repo=repo)
    for text in (b"one" * 200, b"two" * 200, b"three" * 200):
        run._track_items("texts", "t", [({}, text)], step=4)
        settle(repo, place)
    run._track_items("texts", "t", [({}, b"last")])
    assert read(repo, run.hash, "t") == {4: [({}, b"three" * 200)], 5: [({}, b"last")]}
    repo.merge()
    view = Reader(repo._layout).view()
    assert len(list(view.tree.scan(keys.prefix_range(keys.OBJECT)))) == 2


def test_content_is_stored_once(repo: Repo) -> None:
    run, other = Run(repo=repo), Run(repo=repo)
    for step in range(5):
        run._track_items("images", "a", [({"step": step}, content(9000))])
        other._track_items("images", "b", [({}, content(9000)), ({}, content(2 << 20))], in_list=True)
    repo.merge()
    view = Reader(repo._layout).view()
    assert len(list(view.tree.scan(keys.prefix_range(keys.CONTENT)))) == 1
    assert len(list(view.tree.scan(keys.prefix_range(keys.REFERENCE)))) == 3
    assert repo.stats()["bytes"]["blobs"] == 2 << 20


def test_headers_are_read_without_contents(repo: Repo, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(repo=repo)
    for step in range(50):
        run._track_items("images", "a", [({"step": step}, content(4000, step))])
    settle(repo, place)
    monkeypatch.setattr("aimlite.storage.view.checked_content", None)
    monkeypatch.setattr("aimlite.storage.view.read_content", None)
    view = Reader(repo._layout).view()
    sequence = view.sequence(run.hash, "a", {}, "images")
    assert sequence is not None
    assert [items[0].header["step"] for items in view.objects(sequence, view.points(sequence))] == list(range(50))


def test_a_name_and_context_hold_one_kind(repo: Repo) -> None:
    run = Run(repo=repo)
    run.track(0.5, "x")
    run._track_items("texts", "y", [({}, b"")])
    run._track_items("texts", "z", [({}, b"")], in_list=True)
    run._track_items("images", "x", [({}, b"")], context={"on": 1})
    handle = run.sequence("later")
    run._track_items("texts", "later", [({}, b"first")])

    def refuse(run: Run) -> None:
        with pytest.raises(TypeError, match="holds numbers, it does not take single texts"):
            run._track_items("texts", "x", [({}, b"")])
        with pytest.raises(TypeError, match="holds single texts, it does not take numbers"):
            run.track(1, "y")
        with pytest.raises(TypeError, match="holds single texts, it does not take numbers"):
            run.track({"y": 1.0, "new": 2.0})
        with pytest.raises(TypeError, match="holds single texts, it does not take numbers"):
            run.track_columns("y", [1.0])
        with pytest.raises(TypeError, match="holds single texts, it does not take lists of texts"):
            run._track_items("texts", "y", [({}, b"")], in_list=True)
        with pytest.raises(TypeError, match="holds lists of texts, it does not take single images"):
            run._track_items("images", "z", [({}, b"")])

    refuse(run)
    with pytest.raises(TypeError, match="holds objects by now"):
        handle.track(1.0)
    with pytest.raises(TypeError):
        run._track_items("texts", "bad", [({}, b"")], step="no")  # type: ignore[arg-type]
    run.track(1.0, "bad")  # nothing of the call before was recorded
    run.close()
    again = Run(run.hash, repo=repo)
    refuse(again)
    again.close()
    repo.merge()
    again = Run(run.hash, repo=repo)
    refuse(again)
    again.close()
    assert [metric.name for metric in again.metrics()] == ["bad", "x"]
    view = Reader(repo._layout).view()
    assert [(found.kind, found.name) for found in view.sequences(run.hash, None)] == [
        ("metric", "bad"),
        ("metric", "x"),
        ("images", "x"),
        ("texts", "later"),
        ("texts", "y"),
        ("texts", "z"),
    ]


def test_steps_go_on_where_they_were(repo: Repo) -> None:
    run = Run(repo=repo)
    run._track_items("texts", "t", [({}, b"0")])
    run._track_items("texts", "t", [({}, b"10")], step=10, epoch=2.5)
    run.close()
    again = Run(run.hash, repo=repo)
    again._track_items("texts", "t", [({}, b"11")])
    assert list(read(repo, run.hash, "t")) == [0, 10, 11]


def test_queries_on_metrics_do_not_see_objects(repo: Repo) -> None:
    for merged in (False, True):
        run = Run(repo=repo)
        run.track(1.0, "loss")
        run._track_items("texts", "t", [({}, b"0")])
        run.close()
        if merged:
            repo.merge()
        assert {metric.name for metric in repo.query_metrics("metric.last < 10")} == {"loss"}
        assert {metric.name for metric in repo.query_metrics("metric.name != 'nothing'")} == {"loss"}
        assert list(repo.collect_sequence_info("metric")["metric"]) == ["loss"]


@pytest.mark.parametrize("how", ["flip", "lose"])
def test_damage_is_found_and_repaired(repo_path: str, how: str) -> None:
    with Repo(repo_path) as repo:
        run = Run("r", repo=repo)
        for step in range(3):
            run._track_items("images", "a", [({"step": step}, content(3000, step))], step=step)
        run.close()
        repo.merge()
        view = Reader(repo._layout).view()
        digest = objects.sha256(content(3000, 1))
        spoiled = {keys.content(digest): None if how == "lose" else b"other"}
        del view
        script = (
            "import sys; from pathlib import Path; from aimlite.storage.layout import Layout\n"
            "from aimlite.storage.tree import TreeWriter; from aimlite.storage import generation\n"
            f"layout = Layout(Path({os.fspath(repo._layout.base)!r})); tree = TreeWriter(layout.tree)\n"
            f"tree.commit({spoiled!r}); generation.write_generation(layout, tree); tree.close()"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
        assert check(repo._layout)
        with pytest.raises(CorruptionError):
            read(repo, "r", "a", kind="images")
        assert any("an object of 'a' of run r is lost" in line for line in repo.repair())
        assert repo.check() == []
        assert read(repo, "r", "a", kind="images") == {step: [({"step": step}, content(3000, step))] for step in (0, 2)}


def test_a_flipped_byte_in_a_journal_is_found(repo_path: str) -> None:
    with Repo(repo_path) as repo:
        run = Run("r", repo=repo)
        run._track_items("images", "a", [({}, content(3000))])
        reader = Reader(repo._layout)
        view = reader.view()
        sequence = view.sequence("r", "a", {}, "images")
        assert sequence is not None
        points = view.points(sequence)
        [path] = (repo._layout.journal(*name) for name in repo._layout.list_journals())
        data = bytearray(path.read_bytes())
        data[data.index(content(3000)) + 2000] ^= 4
        path.write_bytes(data)
        with pytest.raises(CorruptionError, match="SHA-256"):
            view.object(sequence, int(points["order"][0]), int(points["writer"][0]), 0)
        run.close()


def test_an_acknowledged_object_survives_sigkill(repo: Repo) -> None:
    script = textwrap.dedent(f"""
        import sys
        from aimlite import Run
        run = Run("r", repo={str(repo.path)!r})
        for k in range(10_000):
            run._track_items("images", "a", [({{"k": k}}, k.to_bytes(4, "big") * (100 + 300_000 * (k % 7 == 6)))])
            print(k, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 40:
                break
        process.send_signal(signal.SIGKILL)
        last = max([int(line), *map(int, process.stdout.read().split())])
    for _ in range(2):
        found = read(repo, "r", "a", kind="images")
        assert len(found) in (last + 1, last + 2)
        for k, items in found.items():
            assert items == [({"k": k}, k.to_bytes(4, "big") * (100 + 300_000 * (k % 7 == 6)))]
        repo.merge()


headers = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5) | st.none() | st.floats(allow_nan=False), max_size=3)
stored = st.lists(st.tuples(headers, st.binary(max_size=20) | st.binary(min_size=250, max_size=300)), max_size=6)


@given(stored)
def test_records_round_trip(tmp_path_factory: pytest.TempPathFactory, items: list[tuple[dict[str, Any], bytes]]) -> None:
    [payload] = object_records(items, tmp_path_factory.getbasetemp(), {})
    number, record = decode_object_record(100, 7, (9).to_bytes(4, "little") + payload)
    assert number == 9
    assert [(item.header, item.size) for item in record.items()] == [(header, len(data)) for header, data in items]
    whole = b"\0" * (100 + 24 + 4) + payload
    for (item, at), (_, data) in zip(record.places(), items, strict=True):
        assert (whole[at : at + item.size] if at else item.content) == data
    assert decode_items(encode_items(record.items())) == record.items()


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        decode_object_record(0, 0, data)
    except ValueError:
        return
    assert len(data) >= 8


def test_forked_children_track_too(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run._track_items("texts", "t", [({"by": "parent"}, b"p")], step=0)
    children = []
    for k in (1, 2):
        child = os.fork()
        if not child:
            try:
                run._track_items("texts", "t", [({"by": k}, b"c" * 1000 * k)], step=k)
            finally:
                os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert read(repo, "r", "t") == {0: [({"by": "parent"}, b"p")], 1: [({"by": 1}, b"c" * 1000)], 2: [({"by": 2}, b"c" * 2000)]}


def test_pixels_are_compressed_by_the_merge(repo: Repo) -> None:
    pytest.importorskip("PIL")
    run = Run(repo=repo)
    sizes = [(8, 8), (40, 40), (900, 500)]  # inline, in the tree, a blob if it were not compressed
    for width, height in sizes:
        pixels = bytes((x * y) % 256 for y in range(height) for x in range(width) for _ in range(3))
        header = {"format": "png", "width": width, "height": height, "raw": "RGB", "quality": 90, "optimize": False}
        run._track_items("images", "a", [(header, pixels)])
    run._track_items("images", "large", [({"format": "png", "width": 3000, "height": 2000, "raw": "RGB"}, bytes(18_000_000))])
    before = read_final(repo, run.hash, "a"), read_final(repo, run.hash, "large")
    assert all(data.startswith(b"\x89PNG") for _, data in before[0])
    repo.merge()
    assert (read_final(repo, run.hash, "a"), read_final(repo, run.hash, "large")) == before
    view = Reader(repo._layout).view()
    sequence = view.sequence(run.hash, "a", {}, "images")
    assert sequence is not None
    kept = [items[0] for items in view.objects(sequence, view.points(sequence))]
    assert [item.size for item in kept] == [len(data) for _, data in before[0]]
    assert all("raw" not in item.header for item in kept)
    del view


def read_final(repo: Repo, run_hash: str, name: str) -> list[Any]:
    view = Reader(repo._layout).view()
    sequence = view.sequence(run_hash, name, {}, "images")
    assert sequence is not None
    points = view.points(sequence)
    stamps = zip(points["order"].tolist(), points["writer"].tolist(), strict=True)
    return [view.object(sequence, *stamp, 0) for stamp in stamps]


ODD_ITEMS: list[tuple[dict[str, Any], bytes]] = [
    ({"raw": "RGB;16", "width": 2**40, "height": 0, "format": "png"}, b""),
    ({"raw": "RGB", "width": 0, "height": 0, "format": "png"}, b""),
    ({"raw": "RGB", "width": -1, "height": -1, "format": "png"}, b"abc"),
    ({"raw": "L", "width": 1, "height": 1, "format": ["png"]}, b"a"),
    ({"raw": "L", "width": 1, "height": 1, "format": "jpeg", "quality": "best"}, b"a"),
    ({"raw": "L", "width": 1.5, "height": 2, "format": "png"}, b"abc"),
    ({"raw": ["L"], "width": 1, "height": 1, "format": "png"}, b"a"),
    ({"raw": None, "width": 1}, b"a"),
    ({"raw": "wav"}, b"RIFF"),
    ({"raw": 5}, b""),
]


@pytest.mark.parametrize(("header", "payload"), ODD_ITEMS)
def test_an_item_that_cannot_be_brought_to_its_final_form_stays_as_it_is(header: dict[str, Any], payload: bytes) -> None:
    """Whatever the encoders make of it: a merge goes on, and reading the object tells what is wrong."""
    assert finish(header, payload) == (header, payload)
