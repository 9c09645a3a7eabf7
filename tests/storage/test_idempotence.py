"""Merging is idempotent: any prefix of a segment that ends with a whole group, at any time, again, in any order with others, merged or laid
over a tree that has it, ends where merging each segment once does."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage.trees import DictTree

from aimlite._ext import journal as ext
from aimlite._ext.keys import unpack
from aimlite.sdk.params import delete_payload, set_payloads
from aimlite.storage import keys
from aimlite.storage.layout import Layout, open_layout
from aimlite.storage.merge import BatchBuilder
from aimlite.storage.objects import object_records
from aimlite.storage.params import packb
from aimlite.storage.points import decode_summary
from aimlite.storage.runs import TRASHED
from aimlite.storage.segments import Segment, SegmentView
from aimlite.storage.tombstones import encode_tombstone, run_tombstone
from aimlite.storage.view import View
from aimlite.storage.writer import Writer

EXAMPLES = 5000 if os.environ.get("AIMLITE_STRESS") == "1" else 150
RUNS = ("a", "b")
paths = st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple)
values = st.sampled_from([1, 2.5, "text", {}, {"x": 1}, {"x": {"y": 2}, "y": 3}, [1, (2,)]])
whose = st.tuples(st.integers(0, 1), st.sampled_from(RUNS))  # which writer, which run
calls = st.one_of(
    st.tuples(st.just("open"), whose),
    st.tuples(st.just("end"), whose, st.sampled_from(["finished", "failed", "interrupted"])),
    st.tuples(st.just("track"), whose, st.sampled_from(["m", "n"]), st.none() | st.integers(0, 3), st.floats(width=32)),
    st.tuples(st.just("columns"), whose, st.lists(st.integers(0, 9), min_size=1, max_size=6)),
    st.tuples(st.just("texts"), whose, st.integers(1, 2), st.none() | st.integers(0, 2)),
    st.tuples(st.just("set"), whose, paths, values),
    st.tuples(st.just("delete"), whose, paths),
    st.tuples(st.just("property"), whose, st.sampled_from(["name", "experiment", "tag:t"]), st.integers(1, 3)),
    st.tuples(st.just("trash"), whose, st.sampled_from([None, 5])),
    st.tuples(st.just("edit"), whose, st.integers(1, 3)),
    st.tuples(st.just("rotate"), st.integers(0, 1)),
)


class Written:
    """Two writers on one repo; what they wrote as segments, each with the offsets at which a group ends."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.writers = [Writer(layout), Writer(layout)]
        self.open: dict[tuple[int, str], Any] = {}

    def recorder(self, whose: tuple[int, str]) -> Any:
        if whose not in self.open:
            newest = max(writer.journal.order for writer in self.writers)
            self.open[whose] = self.writers[whose[0]].open_run(whose[1], newest)
        return self.open[whose]

    def perform(self, call: tuple[Any, ...]) -> None:
        kind, whose, *rest = call
        if kind == "rotate":
            self.writers[whose].end_segment()
        elif kind == "end":
            if whose in self.open:
                self.writers[whose[0]].end_run(self.open.pop(whose), *rest)
        elif kind == "edit":
            self.writers[whose[0]].edit_run(whose[1], 0, 1, [(ext.PROPERTY, packb(["name", f"edit {rest[0]}"]))])
        else:
            self.write(kind, self.recorder(whose), *rest)

    def write(self, kind: str, recorder: Any, *rest: Any) -> None:
        number = recorder.number.to_bytes(4, "little")
        match kind, *rest:
            case "track", name, step, value:
                recorder.track(value, name, step, None, None)
            case "columns", steps:
                recorder.track_columns(recorder.sequence("c"), np.zeros(len(steps)), False, np.array(steps), None, None)
            case "texts", count, step:
                records = object_records([({"length": 1}, b"x" * 300)] * count, self.layout.blobs, {})
                recorder.track_objects("texts", "t", records, count, True, step, None, None)
            case "set", path, value:
                if path or isinstance(value, dict):
                    payloads = set_payloads(path, value, self.layout.blobs, {})
                    recorder.append([(ext.PARAMS, number + payload) for payload in payloads])
            case "delete", path:
                recorder.append([(ext.PARAMS, number + delete_payload(path))])
            case "property", name, value:
                recorder.append([(ext.PROPERTY, number + packb([name, value if name.startswith("tag:") else f"text {value}"]))])
            case "trash", time:
                recorder.append([(ext.PROPERTY, number + packb([TRASHED, time]))])

    def segments(self) -> list[tuple[Segment, list[int]]]:
        for writer in self.writers:
            if not writer.journal.closed:
                writer._release(writer.journal.detach())
        found = []
        for name in self.layout.list_journals():
            path = self.layout.journal(*name)
            segment = Segment(path, *name)
            segment.inspect()
            assert segment.damage == []
            found.append((segment, list(group_ends(path.read_bytes(), *name))))
        return found


def group_ends(data: bytes, writer: int, number: int) -> Iterator[int]:
    at = ext.FILE_HEADER_SIZE
    while at < len(data):
        is_last = not data[at + 11] & 0x80
        at += ext.record_length(data[at : at + 12])
        if is_last:
            yield at


def merge(tree: DictTree, layout: Layout, parts: list[tuple[Segment, int]]) -> None:
    """One commit of some segments, each up to an offset."""
    batch = BatchBuilder(tree, layout.blobs)
    for run_hash in dict.fromkeys(run_hash for segment, limit in parts for run_hash in SegmentView(segment, limit, False).run_hashes()):
        touching = []
        for segment, limit in parts:
            view = SegmentView(segment, limit, False)
            run = view.run(run_hash)
            run = run and run.opened_after(run_tombstone(tree, run_hash))
            if run is not None and run.offset < limit:
                touching.append((view, run))
        if touching:
            batch.add_run(run_hash, touching)
    batch.add_merged([])
    tree.commit(batch.writes)


_BLOCKS = (keys.HEAD, keys.VALUES, keys.TIMES)


def told(view: View, tree: DictTree | None) -> dict[Any, Any]:
    """All that a view says, and all that stands in a tree but for what depends on how it came there: blocks, the generation, references."""
    found: dict[Any, Any] = {}
    for run_hash in RUNS:
        if not view.holds_run(run_hash):
            continue
        found[run_hash] = (view.run_state(run_hash), view.stamped_properties(run_hash), repr(view.stamped_params(run_hash)))
        for sequence in view.sequences(run_hash, None):
            points = view.points(sequence)
            rows = [repr(points[name].tolist()) for name in ("step", "value", "epoch", "time", "order", "writer", "given")]
            items = [] if sequence.kind == "metric" else view.objects(sequence, points)
            found[run_hash, sequence.packed] = (rows, items, repr(view.steps_and_values(sequence)[1].tolist()))
    found["listed"] = (list(view.run_hashes()), view.run_count(), view.trashed_runs())
    if tree is not None:
        for key, value in tree.entries.items():
            if key[:1] in (keys.SEQUENCE, keys.TRASHED):
                found[key] = repr(replace(decode_summary(value), blocks=0, order=0))
            elif key[:1] not in (*_BLOCKS, keys.REFERENCE, keys.CONTENT) and unpack(key, 1)[0] not in ("generation", "runs"):
                found[key] = value
    return found


def some_parts(rng: random.Random, segments: list[tuple[Segment, list[int]]]) -> list[tuple[Segment, int]]:
    chosen = rng.sample(segments, rng.randint(1, min(3, len(segments))))
    return [(segment, rng.choice(ends)) for segment, ends in chosen]


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(calls, min_size=2, max_size=14), st.integers(0, 2**32))
def test_prefixes_orders_and_repetitions(done: list[tuple[Any, ...]], seed: int) -> None:
    """seed: of what is merged when. It is not drawn, since the ids of writers, and so the order of the segments, are not either."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        layout = open_layout(Path(folder))
        written = Written(layout)
        for call in done:
            written.perform(call)
        segments = [entry for entry in written.segments() if entry[1]]
        if not segments:
            return
        whole = [(segment, ends[-1]) for segment, ends in segments]
        once = DictTree()
        merge(once, layout, whole)
        expected = told(View(layout, once, []), once)

        tree = DictTree()
        for _ in range(rng.randrange(5)):
            merge(tree, layout, some_parts(rng, segments))
            over = told(View(layout, tree, [SegmentView(segment, end, False) for segment, end in whole]), None)
            assert over == {key: value for key, value in expected.items() if not isinstance(key, bytes)}
        rng.shuffle(whole)
        for part in whole:
            merge(tree, layout, [part])
        assert told(View(layout, tree, []), tree) == expected
        merge(tree, layout, some_parts(rng, segments))
        assert told(View(layout, tree, []), tree) == expected
        assert {key for key in once.entries if key[:1] not in _BLOCKS} <= set(tree.entries)


def test_a_segment_that_comes_days_late_brings_nothing_deleted_back(tmp_path: Path) -> None:
    """Params that were set anew, deleted or emptied while the segment was away, and a deletion of the whole run."""
    layout = open_layout(tmp_path)
    late = Writer(layout)
    recorder = late.open_run("a")
    number = recorder.number.to_bytes(4, "little")
    old = {"p": 1, "q": {"x": 1, "y": {"z": 2}}, "kept": 5}
    recorder.append(
        [(ext.PARAMS, number + payload) for path, value in old.items() for payload in set_payloads((path,), value, layout.blobs, {})]
    )
    late._release(late.journal.detach())
    (name,) = layout.list_journals()
    away = tmp_path / "away"
    layout.journal(*name).rename(away)

    now = Writer(layout)
    recorder = now.open_run("a", late.journal.order)
    number = recorder.number.to_bytes(4, "little")
    for payloads in ([delete_payload(("p",))], set_payloads(("q",), {"w": 1}, layout.blobs, {}), [delete_payload(("q", "y"))]):
        recorder.append([(ext.PARAMS, number + payload) for payload in payloads])
    now.end_run(recorder, "finished")
    now._release(now.journal.detach())
    tree = DictTree()
    (present,) = layout.list_journals()
    for _ in range(2):  # whatever other merges come between
        merge(tree, layout, [(Segment(layout.journal(*present), *present), 2**40)])
    away.rename(layout.journal(*name))
    segment = Segment(layout.journal(*name), *name)
    assert View(layout, tree, [SegmentView(segment, segment.end, False)]).params("a") == {"q": {"w": 1}, "kept": 5}
    merge(tree, layout, [(segment, segment.end)])
    assert View(layout, tree, []).params("a") == {"q": {"w": 1}, "kept": 5}

    other = DictTree()
    other.commit({keys.tombstone("a"): encode_tombstone(now.journal.order + 1)})
    merge(other, layout, [(segment, segment.end)])
    assert not View(layout, other, []).holds_run("a")
