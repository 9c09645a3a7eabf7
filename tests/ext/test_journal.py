from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite._ext import journal as ext
from aimlite._ext.recorder import Recorder
from aimlite.errors import CorruptionError
from aimlite.storage.objects import decode_object_record, object_records
from reference import journal as reference
from reference.blocks import bits_of, float_of
from reference.journal import COLUMNS, END, OBJECT, OPEN, PARAMS, POINTS, PROPERTY, ROTATED, SEQUENCE, Journal, Point
from reference.keys import pack

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
WRITER, SEGMENT, ORDER = 0x1122334455667788, 5, 1_700_000_000_000_000
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


# ---- what the two implementations say of a file, in one form ----


def point_key(point: Point) -> tuple[Any, ...]:
    epoch = float("nan") if point.epoch is None else point.epoch
    marks = point.given | 2 * point.is_int
    return point.step, bits_of(point.value), bits_of(epoch), point.time, point.order, point.offset, marks


def by_sequence(journal: Journal) -> dict[int, list[tuple[Any, ...]]]:
    found = defaultdict(list)
    for point in journal.points:
        found[point.sequence].append(point_key(point))
    return dict(found)


def reader_of(data: bytes, pieces: Sequence[int] = (), complete: bool = True) -> ext.JournalReader:
    """A reader fed with the whole file; pieces: at which offsets it was refreshed on the way."""
    reader = ext.JournalReader(data[:40], WRITER, SEGMENT)
    for end in sorted(pieces):
        if end > 40:
            reader.feed(data[reader.offset : end], False)
    reader.feed(data[reader.offset :], complete)
    return reader


def columns_of(reader: ext.JournalReader, number: int, limit: int = 2**40) -> list[tuple[Any, ...]]:
    n, *columns = reader.columns(number, limit)
    assert n == reader.count(number, limit)
    kinds = ("<i8", "<u8", "<u8", "<i8", "<u8", "<u4", "u1")
    rows = list(zip(*(np.frombuffer(column, kind).tolist() for column, kind in zip(columns, kinds, strict=True)), strict=True))
    assert len(rows) == n
    assert reader.last_order(number, limit) == (rows[-1][4] if rows else 0)
    return rows


def meta_of(journal: Journal) -> list[tuple[int, int, int, bytes]]:
    held = [record for record in journal.records if record.kind not in (POINTS, COLUMNS) and record.order <= reference.MAX_ORDER]
    return [(record.kind, record.offset, record.order, record.payload) for record in held]


def agree(data: bytes, pieces: Sequence[int] = ()) -> Journal:
    """Both implementations read the same from a file that nobody holds."""
    expected, reader = reference.decode_journal(data, WRITER, SEGMENT), reader_of(data, pieces)
    assert reader.meta == meta_of(expected)
    assert [entry[:2] for entry in reader.damage] == expected.damage
    points = by_sequence(expected)
    known = {*points, 0, 1, 2}
    assert {number: columns_of(reader, number) for number in known} == {number: points.get(number, []) for number in known}
    if len(data) >= 40:
        assert reader.torn == expected.torn
        assert reader.offset == len(data) - (0 if not data.strip(b"\0") else expected.torn) or not data.strip(b"\0")
    assert reader.ended == any(record.kind == ROTATED and record.order <= reference.MAX_ORDER for record in expected.records)
    return expected


# ---- what was tracked is in the file ----


class Files:
    """A JournalWriter whose segments are temporary files."""

    def __init__(self, segment_bytes: int = 8 << 20) -> None:
        self.files: list[Any] = []
        self.journal = ext.JournalWriter(self.rotate, self.lost, segment_bytes)
        self.journal.attach(self.begin(SEGMENT, ORDER), WRITER, SEGMENT, ORDER)

    def begin(self, segment: int, order: int) -> int:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.files.append(file)
        os.write(file.fileno(), ext.encode_file_header(WRITER, segment, order, os.getpid()))
        return os.dup(file.fileno())

    def rotate(self) -> None:
        segment, order = self.journal.segment + 1, max(ext.now_us(), self.journal.order + 1)
        old = self.journal.rotate(self.begin(segment, order), segment, order)
        assert os.path.sameopenfile(old, self.files[-2].fileno())
        ext.close(old)

    def lost(self) -> None:
        raise AssertionError("no fork here")

    def contents(self) -> list[bytes]:
        return [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in self.files]

    def close(self) -> None:
        if not self.journal.closed:
            ext.close(self.journal.detach())
        for file in self.files:
            file.close()


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.close()


RUNS = ["run-0", "ü" * 3]
NAMES = ["loss", "acc"]
CONTEXTS: list[dict[str, Any] | None] = [
    None,
    {},
    {"s": "a"},
    {"s": 1},
    {"s": True},
    {"s": 1.0},
    {"s": "1"},
    {"a": 2, "b": [1, {"y": None}]},
    {"b": [1, {"y": None}], "a": 2},
]
small = st.integers(-3, 20)
steps = small | st.sampled_from([I64_MIN, I64_MAX - 1, I64_MAX])
values = st.floats() | st.integers(-(2**53), 2**53) | st.booleans() | st.integers(0, 2**64 - 1).map(float_of)
epochs = st.none() | st.floats() | st.integers(-9, 9)
one = st.tuples(st.just("one"), st.integers(0, 1), values, st.sampled_from(NAMES), st.none() | steps, epochs, st.sampled_from(CONTEXTS))
handle = st.tuples(
    st.just("handle"), st.integers(0, 1), values, st.sampled_from(NAMES), st.none() | steps, epochs, st.sampled_from(CONTEXTS)
)
many = st.tuples(
    st.just("many"),
    st.integers(0, 1),
    st.dictionaries(st.sampled_from([*NAMES, "x", "y"]), values) | st.dictionaries(st.integers(0, 60).map(str), values, min_size=30),
    st.none() | steps,
    epochs,
    st.sampled_from(CONTEXTS),
)


@st.composite
def column_calls(draw: st.DrawFn) -> tuple[Any, ...]:
    n = draw(st.integers(0, 6))
    exact = draw(st.booleans())
    floats = st.floats(width=32) if exact else st.floats()
    column: Any = st.lists(floats, min_size=n, max_size=n)
    regular = st.builds(lambda first, stride: [first + k * stride for k in range(n)], small, small)
    return (
        "columns",
        draw(st.integers(0, 1)),
        draw(column),
        draw(st.sampled_from(NAMES)),
        draw(st.none() | regular | st.lists(steps, min_size=n, max_size=n)),
        draw(st.none() | st.floats() | column),
        draw(st.none() | st.lists(st.integers(I64_MIN, I64_MAX), min_size=n, max_size=n)),
        draw(st.sampled_from(CONTEXTS)),
        draw(st.booleans()),
    )


other = st.sampled_from([("params",), ("property",), ("rotate",), ("ahead",)])
calls = st.lists(st.one_of(one, one, handle, many, column_calls(), other), max_size=25)
Row = tuple[Any, ...]


class Model:
    """What the journal should hold: (run, packed name and context) → rows, in order."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], list[Row]] = defaultdict(list)
        self.next_steps: dict[tuple[str, bytes], int] = defaultdict(int)

    def key(self, run: int, name: str, context: dict[str, Any] | None) -> tuple[str, bytes]:
        return RUNS[run], pack((name, context or {}))

    def steps(self, key: tuple[str, bytes], given: Sequence[int] | None, n: int) -> list[int] | None:
        """The steps that n points get; None where there are no more."""
        if given is not None:
            return list(given)
        first = self.next_steps[key]
        return list(range(first, first + n)) if first + n - 1 <= I64_MAX else None

    def add(self, key: tuple[str, bytes], rows: list[Row]) -> None:
        self.rows[key] += rows
        self.next_steps[key] = max([self.next_steps[key], *(row[0] + 1 for row in rows)])


def epoch_bits(epoch: float | None) -> int:
    return bits_of(float("nan") if epoch is None else float(epoch))


def replay(recorders: list[Recorder], files: Files, sequence: list[tuple[Any, ...]]) -> Model:
    model = Model()
    for kind, *arguments in sequence:
        begun = ext.now_us()
        if kind == "rotate":
            files.rotate()
        elif kind == "ahead":
            files.journal.raise_order(ext.now_us() + 10**9)
        elif kind in ("params", "property"):
            recorders[0].append([(PARAMS if kind == "params" else PROPERTY, b"\0\0\0\0" + kind.encode())] * 2)
        elif kind == "columns":
            run, column, name, given_steps, column_epochs, times, context, are_ints = arguments
            key, n = model.key(run, name, context), len(column)
            expected = model.steps(key, given_steps, n)
            handle = recorders[run].sequence(name, context)
            passed = [
                np.array(x, kind) if isinstance(x, list) else x
                for x, kind in ((given_steps, "<i8"), (column_epochs, "<f8"), (times, "<i8"))
            ]
            if n and expected is None:
                with pytest.raises(ValueError, match="greatest"):
                    recorders[run].track_columns(handle, np.array(column), are_ints, *passed)
                continue
            recorders[run].track_columns(handle, np.array(column), are_ints, *passed)
            each = column_epochs if isinstance(column_epochs, list) else [column_epochs] * n
            now = (begun, ext.now_us())
            model.add(
                key,
                [
                    (s, bits_of(v), epoch_bits(e), t, (given_steps is not None) | 2 * are_ints)
                    for s, v, e, t in zip(expected or [], column, each, times or [now] * n, strict=True)
                ],
            )
        else:
            run, value, *name, step, epoch, context = arguments
            found = value if kind == "many" else {name[0]: value}
            wanted = {n: model.steps(model.key(run, n, context), None if step is None else [step], 1) for n in found}

            def call(
                kind: str = kind, run: int = run, value: Any = value, name: list[str] = name, rest: tuple[Any, ...] = (step, epoch, context)
            ) -> None:
                if kind == "handle":
                    recorders[run].sequence(*name, rest[2]).track(value, *rest[:2])
                else:
                    recorders[run].track(value, *(name or [None]), *rest)

            if None in wanted.values():
                with pytest.raises(ValueError, match="greatest"):
                    call()
                continue
            call()
            now = (begun, ext.now_us())
            for n, v in found.items():
                marks = (step is not None) | 2 * isinstance(v, int)
                model.add(model.key(run, n, context), [(wanted[n][0], bits_of(float(v)), epoch_bits(epoch), now, marks)])  # type: ignore[index]
    return model


def rows_of(journals: list[Journal]) -> dict[tuple[str, bytes], list[Row]]:
    found: dict[tuple[str, bytes], list[Row]] = defaultdict(list)
    for journal in journals:
        runs: dict[int, str] = {}
        sequences: dict[int, tuple[str, bytes]] = {}
        by_offset = defaultdict(list)
        for point in journal.points:
            by_offset[point.offset].append(point)
        for record in journal.records:
            if record.kind == OPEN:
                number, _, run_hash = reference.decode_open(record.payload)
                runs[number] = run_hash
            elif record.kind == SEQUENCE:
                number, run, kind, name, context = reference.decode_sequence(record.payload)
                assert (kind, number) == (1, len(sequences))
                sequences[number] = runs[run], pack((name, context))
            for point in by_offset[record.offset]:
                step, value, epoch, at, _, _, marks = point_key(point)
                found[sequences[point.sequence]].append((step, value, epoch, at, marks))
    return dict(found)


def same_rows(found: list[Row], expected: list[Row]) -> bool:
    """Equal, where the time is exact or lies between the beginning and the end of the call."""
    return len(found) == len(expected) and all(
        (*f[:3], f[4]) == (*e[:3], e[4]) and (e[3][0] <= f[3] <= e[3][1] if isinstance(e[3], tuple) else f[3] == e[3])
        for f, e in zip(found, expected, strict=True)
    )


def check_order(journals: list[Journal]) -> None:
    """Orders never step back; two groups that are not points never tie."""
    last = 0
    for journal in journals:
        for group in journal.groups:
            order = group[0].order
            assert {record.order for record in group} == {order}
            assert order >= last + (group[-1].kind in (PARAMS, PROPERTY, END, ROTATED))
            last = order
    assert [record.number for journal in journals for record in journal.records] == [
        k for journal in journals for k in range(len(journal.records))
    ]


def check_footer(data: bytes, journal: Journal) -> None:
    """What the footer says, and what both implementations read from it."""
    last = journal.records[-1]
    assert last.kind == ROTATED
    assert last.end == len(data)
    offsets, counts = reference.decode_footer(last.payload)
    assert offsets == [record.offset for record in journal.records[:-1] if record.kind not in (POINTS, COLUMNS)]
    points = by_sequence(journal)
    assert counts == [len(points.get(number, [])) for number in range(len(counts))]
    assert len(counts) == sum(record.kind == SEQUENCE for record in journal.records)
    assert ext.footer_length(data[-8:]) == ext.footer_length(data) == len(data) - last.offset
    assert ext.decode_footer(data[last.offset :], data[:40]) == ext.decode_footer(data, data[:40]) == (offsets, counts)
    assert ext.decode_footer(data[last.offset + 1 :], data[:40]) is None


@settings(deadline=None)
@given(calls, st.sampled_from([300, 2000, 8 << 20]))
def test_what_is_tracked_is_in_the_file(sequence: list[tuple[Any, ...]], segment_bytes: int) -> None:
    files = Files(segment_bytes)
    try:
        recorders = [Recorder(files.journal, number, run_hash) for number, run_hash in enumerate(RUNS)]
        model = replay(recorders, files, sequence)
        contents = files.contents()
    finally:
        files.close()
    journals = []
    for segment, data in enumerate(contents, SEGMENT):
        journal = reference.decode_journal(data, WRITER, segment)
        assert (journal.damage, journal.torn) == ([], 0)
        if segment < SEGMENT + len(contents) - 1:
            check_footer(data, journal)
        header = reference.decode_file_header(data)
        assert header[:2] == (WRITER, segment)
        assert all(record.order >= header[2] for record in journal.records)
        reader = ext.JournalReader(data[:40], WRITER, segment)
        reader.feed(data[40:], True)
        assert reader.meta == meta_of(journal)
        assert all(columns_of(reader, number) == rows for number, rows in by_sequence(journal).items())
        journals.append(journal)
    check_order(journals)
    found = rows_of(journals)
    assert {key: same_rows(found.get(key, []), rows) for key, rows in model.rows.items()} == dict.fromkeys(model.rows, True)
    assert found.keys() == {key for key, rows in model.rows.items() if rows}


def test_a_dict_is_one_record(files: Files) -> None:
    recorder = Recorder(files.journal, 7, "r")
    recorder.track({"a": 1.0, "b": 2, "c": 3.5}, epoch=2)
    recorder.track({"a": 1.5, "b": 3, "c": 4.5}, step=9)
    first, second = reference.decode_journal(files.contents()[0], WRITER, SEGMENT).groups
    assert [record.kind for record in first] == [OPEN, SEQUENCE, SEQUENCE, SEQUENCE, POINTS]
    assert [record.kind for record in second] == [POINTS]
    assert second[0].payload == reference.encode_points([(0, 9, 1.5, False), (1, 9, 3.0, True), (2, 9, 4.5, False)], given=True)
    assert len(second[0].payload) == 1 + 8 + 3 * 12


def test_long_columns_are_one_group_of_records_of_a_mebibyte(files: Files) -> None:
    n = 400_000
    recorder = Recorder(files.journal, 0, "r")
    column = np.random.default_rng(1).standard_normal(n)
    recorder.track_columns(recorder.sequence("a"), column, False, None, None, None)
    recorder.track_columns(recorder.sequence("a"), column, False, np.arange(n) ** 2, 0.5, np.arange(n))
    data = files.contents()[0]
    reader = reader_of(data)
    assert reader.damage == []
    count, steps, read, *_ = reader.columns(0, 2**40)
    assert count == 2 * n
    assert steps == np.concatenate([np.arange(n), np.arange(n) ** 2]).tobytes()
    assert read == column.tobytes() * 2
    cut = reader_of(data[:-1])
    assert cut.count(0, 2**40) == n  # a group counts whole or not at all
    assert cut.torn > 8 * n
    assert cut.damage == []


def test_closed_detached_and_too_large(files: Files) -> None:
    recorder = Recorder(files.journal, 0, "r")
    with pytest.raises(ValueError, match="16 MiB"):
        recorder.append([(PARAMS, bytes(2**24))])
    assert files.journal.offset == 40
    recorder.append([(PARAMS, bytes(2**24 - 1))])
    recorder.track(1.0, "a")
    data = files.contents()[0]
    reader = reader_of(data)
    assert [(kind, len(payload)) for kind, _, _, payload in reader.meta] == [(OPEN, 6), (PARAMS, 2**24 - 1), (ROTATED, 4 + 2 * 4 + 4 + 8)]
    assert (reader.damage, len(files.files)) == ([], 2)
    fd = files.journal.detach()
    assert os.path.sameopenfile(fd, files.files[1].fileno())
    ext.close(fd)
    assert files.journal.closed
    assert not files.journal.forked
    for call in (lambda: recorder.track(1.0, "a"), lambda: files.journal.append([(END, b"")])):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert files.journal.detach() == -1


# ---- what the reference writes is read ----


def contexts_of(run: int) -> dict[str, Any]:
    return {"run": run}


@st.composite
def point_records(draw: st.DrawFn) -> tuple[int, bytes]:
    shared = draw(st.none() | steps)
    points = draw(
        st.lists(
            st.tuples(st.integers(0, 2), steps if shared is None else st.just(shared), st.floats(), st.booleans()), min_size=1, max_size=4
        )
    )
    return POINTS, reference.encode_points(
        points, draw(st.booleans()), draw(st.none() | st.floats()), draw(st.none() | st.integers(I64_MIN, I64_MAX))
    )


@st.composite
def column_records(draw: st.DrawFn) -> tuple[int, bytes]:
    n = draw(st.integers(1, 5))
    column = st.lists(st.floats(), min_size=n, max_size=n)
    return COLUMNS, reference.encode_columns(
        draw(st.integers(0, 2)),
        draw(st.lists(steps, min_size=n, max_size=n) | st.builds(lambda first: list(range(first, first + n)), small)),
        draw(column | st.lists(st.floats(width=32, allow_nan=False), min_size=n, max_size=n)),
        draw(st.booleans()),
        draw(st.none() | st.floats() | column),
        draw(st.none() | st.integers(I64_MIN, I64_MAX) | st.lists(st.integers(I64_MIN, I64_MAX), min_size=n, max_size=n)),
        draw(st.booleans()),
    )


meta_records = st.tuples(st.sampled_from([OPEN, SEQUENCE, PARAMS, PROPERTY, END, 7, 8, 126]), st.binary(max_size=40))
groups = st.lists(
    st.tuples(st.integers(0, reference.MAX_ORDER), st.lists(point_records() | column_records() | meta_records, min_size=1, max_size=4)),
    max_size=6,
)


@settings(deadline=None)
@given(groups, st.lists(st.integers(0, 1500), max_size=4))
def test_what_the_reference_writes_is_read(content: list[tuple[int, list[tuple[int, bytes]]]], pieces: list[int]) -> None:
    content = [(0, [(SEQUENCE, reference.encode_sequence(number, 0, "x", {})) for number in range(2)]), *content]  # 2 is not declared
    data = reference.encode_journal(WRITER, SEGMENT, ORDER, content)
    journal = agree(data, pieces)
    assert (journal.damage, journal.torn) == ([], 0)
    assert [[(record.kind, record.payload) for record in group] for group in journal.groups] == [records for _, records in content]
    reader = reader_of(data)
    assert (reader.writer, reader.segment, reader.order, reader.pid) == (WRITER, SEGMENT, ORDER, 1)
    for record in journal.records:
        assert ext.decode_record(data[record.offset :], WRITER, SEGMENT) == (record.kind, record.order, record.payload)
        assert ext.record_length(data[record.offset : record.offset + 12]) == record.end - record.offset
    for limit in {record.offset for record in journal.records}:
        assert all(columns_of(reader, k, limit) == [row for row in columns_of(reader, k) if row[5] < limit] for k in range(3))


def test_file_headers() -> None:
    for fields in [(0, 0, 0, 0), (WRITER, 1, ORDER, 99), (2**64 - 1, 2**32 - 1, 2**64 - 1, 2**32 - 1)]:
        header = reference.encode_file_header(*fields)
        assert ext.encode_file_header(*fields) == header
        assert ext.decode_file_header(header) == reference.decode_file_header(header) == fields
    for cut in range(40):
        with pytest.raises(CorruptionError):
            ext.decode_file_header(header[:cut])
    newer = header[:8] + b"\2\0" + header[10:36]
    newer += reference.crc32c(newer).to_bytes(4, "little")
    with pytest.raises(CorruptionError, match="version 2"):
        ext.decode_file_header(newer)


def test_example_of_the_format() -> None:
    found = re.search(
        r"^A journal of one run with one point: `([^`]*)`[^\n]*\n\n```\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    data = bytes.fromhex("".join(line.split(";")[0] for line in found[2].splitlines()))
    assert found[1] == 'track(0.5, name="loss", step=3, epoch=1.0, context={"on": "val"})'
    began = 1_700_000_000_000_000
    declared = reference.encode_sequence(0, 0, "loss", {"on": "val"})
    point = reference.encode_points([(0, 3, 0.5, False)], given=True, epoch=1.0)
    opened, tracked = [(OPEN, reference.encode_open(0, "run-1"))], [(SEQUENCE, declared), (POINTS, point)]
    assert data == reference.encode_journal(WRITER, 0, began, [(began + 1, opened), (began + 200, tracked)], pid=4321)
    files = Files()
    try:
        recorder = Recorder(files.journal, 0, "run-1")
        recorder.append([])
        recorder.track(0.5, name="loss", step=3, epoch=1.0, context={"on": "val"})
        written = reference.decode_journal(files.contents()[0], WRITER, SEGMENT)
    finally:
        files.close()
    assert [(r.kind, r.payload, r.more) for r in written.records] == [
        (r.kind, r.payload, r.more) for r in reference.decode_journal(data, WRITER, 0).records
    ]


def test_objects_as_the_format_says(tmp_path: Path) -> None:
    text = FORMAT.read_text("utf-8")
    found = re.search(r"^The records of `(.*?)`, given as a single object.*?```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    assert found[1] == '[({"caption": "a"}, b"hello")]'
    example = bytes.fromhex("".join(line.split(";")[0] for line in found[2].splitlines()))
    first: list[tuple[dict[str, Any], bytes]] = [({"caption": "a"}, b"hello")]
    assert example == reference.encode_object(0, first)
    many = [({"k": k}, bytes([k]) * (250 + k)) for k in range(12)]
    files = Files()
    try:
        recorder = Recorder(files.journal, 0, "run-1")
        recorder.track_objects("texts", "t", object_records(first, tmp_path, {}), 1, False, 5, 2.5, {"on": 1})
        recorder.track_objects("texts", "t", object_records(many, tmp_path, {}), 12, False, None, None, {"on": 1})
        written = reference.decode_journal(files.contents()[0], WRITER, SEGMENT)
        reader = ext.JournalReader(files.contents()[0][:40], WRITER, SEGMENT)
        reader.feed(files.contents()[0][40:], True)
    finally:
        files.close()
    late = written.points[1].time if written.points[1].time != written.points[1].order else None
    assert [[(record.kind, record.payload) for record in group] for group in written.groups] == [
        [
            (OPEN, reference.encode_open(0, "run-1")),
            (SEQUENCE, reference.encode_sequence(0, 0, ("texts", "t"), {"on": 1}, 2)),
            (OBJECT, example),
            (POINTS, reference.encode_points([(0, 5, 1.0, False)], given=True, epoch=2.5)),
        ],
        [
            (OBJECT, reference.encode_object(0, many)),
            (
                POINTS,
                reference.encode_points([(0, 6, 12.0, False)], time=late),
            ),
        ],
    ]
    assert written.points[0].order < written.points[1].order
    objects = [(offset, order, payload) for kind, offset, order, payload in reader.meta if kind == OBJECT]
    for (offset, order, payload), group, items in zip(objects, written.groups, (first, many), strict=True):
        record = next(record for record in group if record.kind == OBJECT)
        assert (offset, order) == (record.offset, record.order)
        assert payload == record.payload[: 8 + int.from_bytes(record.payload[4:8], "little")]  # what follows is read when it is asked for
        assert [item.size for item in decode_object_record(offset, order, payload)[1].items()] == [len(content) for _, content in items]


# ---- damage ----


def small_groups() -> list[tuple[int, list[tuple[int, bytes]]]]:
    """A journal with every kind of record, closed with END."""
    declared = [(OPEN, reference.encode_open(0, "a")), (SEQUENCE, reference.encode_sequence(0, 0, "x", {"c": 1}))]
    return [
        (ORDER + 1, [*declared, (POINTS, reference.encode_points([(0, 0, 0.25, False)]))]),
        (ORDER + 2, [(POINTS, reference.encode_points([(0, 1, 0.1, False)], time=ORDER))]),
        (ORDER + 3, [(PARAMS, b"\0\0\0\0\0\x92\x91\xa1a\x91\x92\x90\x01"), (PARAMS, b"\0\0\0\0\1\x92\x91\xa1a\x90")]),
        (ORDER + 4, [(COLUMNS, reference.encode_columns(0, [5, 6, 9], [1.0, 0.1, 3.0], given=True, epochs=2.0))]),
        (
            ORDER + 5,
            [
                (SEQUENCE, reference.encode_sequence(1, 0, "y", {})),
                (POINTS, reference.encode_points([(0, 10, 1.5, False), (1, 0, 3.0, True)])),
            ],
        ),
        (ORDER + 6, [(PROPERTY, b"\0\0\0\0\x92\xa4name\xa1n")]),
        (ORDER + 7, [(END, reference.encode_end(0, 1, ORDER + 8))]),
    ]


SMALL = reference.encode_journal(WRITER, SEGMENT, ORDER, small_groups())


def footer_of(data: bytes) -> tuple[int, bytes]:
    journal = reference.decode_journal(data, WRITER, SEGMENT)
    points = by_sequence(journal)
    return ROTATED, reference.encode_footer([entry[1] for entry in meta_of(journal)], [len(points[number]) for number in sorted(points)])


ROTATED_SMALL = reference.encode_journal(WRITER, SEGMENT, ORDER, [*small_groups(), (ORDER + 9, [footer_of(SMALL)])])


def test_a_torn_tail_is_cut_off() -> None:
    """At every byte: what is whole before it is kept, and nothing is damage."""
    whole = reference.decode_journal(SMALL, WRITER, SEGMENT)
    for cut in range(len(SMALL)):
        reader = reader_of(SMALL[:cut])
        kept = [group for group in whole.groups if group[-1].end <= cut]
        end = kept[-1][-1].end if kept else 40
        assert reader.damage == []
        assert reader.meta == [entry for entry in meta_of(whole) if entry[1] < end]
        assert columns_of(reader, 0) == [row for row in by_sequence(whole)[0] if row[5] < end]
        if cut >= 40:
            assert (reader.offset, reader.torn) == (end, cut - end)
        assert ext.decode_footer(SMALL[:cut], SMALL[:40]) is None
        waiting = reader_of(SMALL[:cut], complete=False)
        assert (waiting.meta, waiting.torn) == (reader.meta, 0)
        waiting.feed(SMALL[waiting.offset :], True)
        assert waiting.meta == meta_of(whole)


def test_zeros_at_the_end_are_a_torn_tail() -> None:
    """What power loss leaves: the file is as long as it was to be, its end was not written."""
    for cut in range(40, len(SMALL) + 1):
        kept = reader_of(SMALL[:cut])
        for zeros in (64, 100, 4096):
            reader = reader_of(SMALL[:cut] + bytes(zeros))
            assert reader.damage == []
            assert 0 < reader.torn <= kept.torn + zeros
            assert reader.meta[: len(kept.meta)] == kept.meta  # the zeros may be those that a record ended with
    for record in reference.decode_journal(SMALL, WRITER, SEGMENT).records:
        for zeros in (1, 23, 24, 63, 64):
            journal = agree(SMALL[: record.end] + bytes(zeros))
            assert (journal.damage, journal.torn >= zeros) == ([], True)
    middle = SMALL[:200] + bytes(100) + SMALL[300:]
    assert agree(middle).damage


@pytest.mark.parametrize("data", [b"", b"\0", SMALL[:39], bytes(39), bytes(40), bytes(5000)])
def test_a_file_without_content_is_empty(data: bytes) -> None:
    """Power was lost after the file was made and before anything of it was on the disk."""
    reader = reader_of(data)
    assert (reader.damage, reader.meta, reader.torn > 0) == ([], [], True)
    agree(data)


def test_a_lost_file_header_is_damage_when_records_follow() -> None:
    reader = reader_of(bytes(40) + SMALL[40:])
    assert reader.damage[0][:2] == (0, 40)
    assert reader.meta == meta_of(reference.decode_journal(SMALL, WRITER, SEGMENT))
    assert agree(bytes(40) + SMALL[40:]).damage == [(0, 40)]
    assert [entry[:2] for entry in reader_of(b"\1" + bytes(39)).damage] == [(0, 40)]
    assert [entry[:2] for entry in ext.JournalReader(SMALL[:40], WRITER, SEGMENT + 1).damage] == [(12, 40)]


@pytest.mark.parametrize("data", [SMALL, ROTATED_SMALL])
def test_every_flipped_bit_is_found(data: bytes) -> None:
    """It is reported, and nothing is read that was not written; it never brings the reader down."""
    right = reader_of(data)
    rows = {number: columns_of(right, number) for number in (0, 1)}
    footer = ext.decode_footer(data, data[:40])
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            reader = reader_of(flipped)
            assert reader.damage, (at, bit)
            first = reader.damage[0]
            assert first[0] <= at < first[0] + first[1] or at < 40
            assert set(reader.meta) < set(right.meta) or at < 40 or reader.meta == right.meta
            assert all(set(columns_of(reader, number)) <= set(rows[number]) for number in rows)
            held = reader_of(flipped, complete=False)
            assert set(held.meta) <= set(right.meta)
            try:
                assert ext.decode_footer(flipped, flipped[:40]) in (None, footer)
            except CorruptionError:
                assert at < 40


def test_a_flipped_bit_costs_one_group() -> None:
    """All other groups are still read, and salvage() keeps them."""
    whole = reference.decode_journal(SMALL, WRITER, SEGMENT)
    for group in whole.groups:
        for record in group:
            at = record.offset + 24
            data = SMALL[:at] + bytes([SMALL[at] ^ 4]) + SMALL[at + 1 :]
            journal = agree(data)
            assert len(journal.damage) == 1
            left = [(r.kind, r.payload) for g in whole.groups if g is not group for r in g]
            rest = [(r.kind, r.payload) for r in group if r.number > record.number]
            found = [(r.kind, r.payload) for r in journal.records]
            assert set(found) >= set(left)
            assert set(found) == {*left, *rest}
            mended = agree(ext.salvage(data, WRITER, SEGMENT))
            assert (mended.damage, mended.torn) == ([], 0)
            assert [(r.kind, r.payload) for r in mended.records] == found
            assert [r.order for r in mended.records] == [r.order for r in journal.records]


def test_salvage_of_sound_and_hopeless_files() -> None:
    assert ext.salvage(SMALL, WRITER, SEGMENT) == SMALL
    assert ext.salvage(ROTATED_SMALL, WRITER, SEGMENT) == SMALL  # its footer would no longer be true
    for data in (b"", b"x", SMALL[:39], bytes(40), SMALL[:40], b"\xff" * 5000, SMALL[:40] + bytes(500)):
        mended = ext.salvage(data, WRITER, SEGMENT)
        assert len(mended) == 40
        assert ext.decode_file_header(mended)[:2] == (WRITER, SEGMENT)
    odd = reference.encode_journal(WRITER, SEGMENT, ORDER, [(ORDER, [(PARAMS, b"1"), (PARAMS, b"2"), footer_of(SMALL)])])
    mended_odd = agree(ext.salvage(odd, WRITER, SEGMENT))  # no writer puts a footer into a group; what is left must end the group
    assert ([r.payload for r in mended_odd.records], mended_odd.torn) == ([b"1", b"2"], 0)
    headless = ext.salvage(bytes(40) + SMALL[40:], WRITER, SEGMENT)
    assert headless[40:] == SMALL[40:]
    assert ext.decode_file_header(headless)[2] <= ORDER + 1


def test_an_incomplete_group_is_not_seen() -> None:
    groups = small_groups()
    data = reference.encode_journal(WRITER, SEGMENT, ORDER, groups[:1])
    more = reference.encode_record(WRITER, SEGMENT, 3, PARAMS, b"12345", ORDER + 2, more=True)
    last = reference.encode_record(WRITER, SEGMENT, 4, PARAMS, b"67890", ORDER + 2)
    reader = ext.JournalReader(data[:40], WRITER, SEGMENT)
    reader.feed(data[40:] + more, False)
    assert len(reader.meta) == 2
    assert reader.offset == len(data)
    reader.feed(more + last[:-1], False)
    assert len(reader.meta) == 2
    reader.feed(more + last, False)
    assert [payload for *_, payload in reader.meta[2:]] == [b"12345", b"67890"]
    torn = reader_of(data + more)
    assert (len(torn.meta), torn.torn, torn.damage) == (2, len(more), [])


def test_a_group_without_its_end_is_read_in_linear_time() -> None:
    """Its records are not tried one after the other as beginnings of a group: of a million that would take hours."""
    n = 40_000
    record = b"".join(reference.encode_record(WRITER, SEGMENT, number, PARAMS, b"", ORDER, more=True) for number in range(200))
    piece = len(record) // 200
    data = bytearray(reference.encode_file_header(WRITER, SEGMENT, ORDER, 1) + record * (n // 200))
    began = time.perf_counter()
    reader = reader_of(bytes(data))
    salvaged = ext.salvage(bytes(data), WRITER, SEGMENT)
    assert time.perf_counter() - began < 2
    assert (reader.meta, reader.damage, reader.torn, len(salvaged)) == ([], [], n * piece, 40)


def test_records_that_are_missing_or_out_of_turn() -> None:
    header = reference.encode_file_header(WRITER, SEGMENT, ORDER, 1)
    a, b, c = (reference.encode_record(WRITER, SEGMENT, number, PARAMS, b"%d" % number, ORDER + number) for number in range(3))
    assert agree(header + a + c).damage == [(40 + len(a), 0)]
    assert agree(header + b + c).damage == [(40, 0)]
    assert agree(header + a + b + b + c).damage == [(40 + 2 * len(a), 0)]
    strange = reference.encode_record(WRITER, SEGMENT + 1, 1, PARAMS, b"1", ORDER + 1)  # left over from another segment, say
    assert agree(header + a + strange + c).damage == [(40 + len(a), len(b))]


MALFORMED = [
    (POINTS, b""),
    (POINTS, b"\x10" + bytes(20)),
    (POINTS, b"\0" + bytes(8)),
    (POINTS, bytes(20)),
    (POINTS, bytes(22)),
    (POINTS, b"\1" + bytes(8) + b"\xff\xff\xff\x7f" + bytes(8)),
    (POINTS, b"\x08" + bytes(21)),
    (COLUMNS, b""),
    (COLUMNS, bytes(8)),
    (COLUMNS, bytes(9)),
    (COLUMNS, b"\x08" + bytes(4) + b"\1\0\0\0" + bytes(16)),
    (COLUMNS, b"\x08" + bytes(4) + b"\1\0\0\0" + bytes(25)),
    (COLUMNS, b"\x08" + bytes(4) + b"\xff\xff\xff\xff" + bytes(24)),
    (COLUMNS, b"\x1a" + bytes(4) + b"\1\0\0\0" + bytes(40)),
    (COLUMNS, b"\x2c" + bytes(4) + b"\1\0\0\0" + bytes(40)),
    (COLUMNS, b"\x08\xff\xff\xff\xff\1\0\0\0" + bytes(24)),
]


@pytest.mark.parametrize(("kind", "payload"), MALFORMED)
def test_malformed_points_are_damage(kind: int, payload: bytes) -> None:
    declared = (SEQUENCE, reference.encode_sequence(0, 0, "x", {}))
    data = reference.encode_journal(
        WRITER, SEGMENT, ORDER, [(ORDER, [declared]), (ORDER, [(kind, payload)]), (ORDER, [(PARAMS, b"after")])]
    )
    journal = agree(data)
    assert journal.damage == [(40 + 24 + len(declared[1]), 24 + len(payload))]
    assert journal.points == []
    assert len(meta_of(journal)) == 2


@pytest.mark.parametrize(
    ("kind", "payload"), [(POINTS, reference.encode_points([(0, 1, 0.5, False)])), (PARAMS, b"payload"), (ROTATED, b"")]
)
def test_a_record_of_no_possible_time_is_damage(kind: int, payload: bytes) -> None:
    declared = (SEQUENCE, reference.encode_sequence(0, 0, "x", {}))
    for order, is_damage in ((reference.MAX_ORDER, False), (reference.MAX_ORDER + 1, True), (2**64 - 1, True)):
        journal = agree(reference.encode_journal(WRITER, SEGMENT, ORDER, [(ORDER, [declared]), (order, [(kind, payload)])]))
        assert bool(journal.damage) == is_damage, order


def test_points_of_a_sequence_that_is_not_declared_take_no_memory() -> None:
    """However large its number is. Those of declared sequences in the same record are kept, wherever their numbers lie."""
    numbers = [0, 1, 5, 1000, 2**20, 2**20 - 1, 3, 70, 2**31 - 1]
    declared = [number for number in numbers if number != 1000]
    records = [(SEQUENCE, reference.encode_sequence(number, 0, f"m{number}", {})) for number in declared]
    points = [(number, 7, number + 0.5, False) for number in numbers[:-1]]
    data = reference.encode_journal(WRITER, SEGMENT, ORDER, [(ORDER, records), (ORDER, [(POINTS, reference.encode_points(points))])])
    journal, reader = agree(data), reader_of(data)
    assert {point.sequence for point in journal.points} == set(declared[:-1])
    for number in numbers:
        assert len(columns_of(reader, number)) == (number in declared[:-1]), number
        assert reader.greatest_step(number, 2**40) == (7 if number in declared[:-1] else None)
    assert reader.orphans
    before = peak_bytes()
    for number in range(2**20, 2**20 - 200, -1):
        lonely = [
            (ORDER, [(SEQUENCE, reference.encode_sequence(number, 0, "m", {}))]),
            (ORDER, [(POINTS, reference.encode_points([(number, 0, 1.0, False)]))]),
        ]
        assert len(columns_of(reader_of(reference.encode_journal(WRITER, SEGMENT, ORDER, lonely)), number)) == 1
    assert peak_bytes() - before < 4 << 20


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def test_malformed_footers_are_none() -> None:
    def footer(payload: bytes, kind: int = ROTATED, more: bool = False) -> Any:
        data = reference.encode_file_header(WRITER, SEGMENT, ORDER, 1) + reference.encode_record(
            WRITER, SEGMENT, 0, kind, payload, ORDER, more
        )
        return ext.decode_footer(data, data[:40])

    right = reference.encode_footer([40, 90], [3])
    assert footer(right) == ([40, 90], [3])
    assert footer(reference.encode_footer([], [])) == ([], [])
    assert footer(right, PARAMS) is footer(right, more=True) is None
    for bad in (b"", b"ROTD", right[:-8] + bytes(4) + b"ROTD", right[:-8] + b"\xff" * 4 + b"ROTD", right[:-4] + b"RUTD"):
        assert footer(bad) is None
    for at in range(len(right)):
        changed = right[:at] + bytes([right[at] ^ 0x81]) + right[at + 1 :]
        assert footer(changed) is None or 4 <= at < 12 or 16 <= at < 20  # any offsets and counts are well formed
    assert ext.footer_length(b"ROTD") == ext.footer_length(b"") == 0


def test_damaged_records_are_refused() -> None:
    record = reference.encode_record(WRITER, SEGMENT, 3, PARAMS, b"payload", ORDER)
    assert ext.decode_record(record + b"more", WRITER, SEGMENT) == (PARAMS, ORDER, b"payload")
    for bad in [record[:cut] for cut in range(len(record))] + [
        record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :] for at in range(len(record))
    ]:
        with pytest.raises(CorruptionError):
            ext.decode_record(bad, WRITER, SEGMENT)
    for writer, segment in ((WRITER + 1, SEGMENT), (WRITER, SEGMENT + 1)):
        with pytest.raises(CorruptionError):
            ext.decode_record(record, writer, segment)


# ---- any bytes ----


def resealed(data: bytes) -> bytes:
    """With the CRCs that its records ought to have, so that what lies behind them is tested too."""
    out, at = bytearray(data), 40
    while at + 24 <= len(out):
        length = int.from_bytes(out[at + 8 : at + 11], "little")
        kind = out[at + 11]
        number, order = int.from_bytes(out[at + 12 : at + 16], "little"), int.from_bytes(out[at + 16 : at + 24], "little")
        payload = bytes(out[at + 24 : at + 24 + length])
        if kind & 0x7F and len(payload) == length:
            out[at : at + 24 + length] = reference.encode_record(WRITER, SEGMENT, number, kind & 0x7F, payload, order, bool(kind >> 7))
        at += 24 + length
    return bytes(out)


def mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice([SMALL, ROTATED_SMALL, SMALL[:200]]))
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(data) + 1), rng.choice([1, 1, 4, 24, 64, 100])
        match rng.randrange(6):
            case 0:
                data[at : at + n] = rng.randbytes(n)
            case 1:
                del data[at : at + n]
            case 2:
                data[at:at] = data[rng.randrange(len(data) + 1) :][:n]
            case 3:
                data[at : at + n] = bytes(n)
            case 4:
                data[at:] = bytes(n)
            case _:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
    return resealed(bytes(data)) if rng.random() < 0.5 else bytes(data)


def hostile(seed: int) -> None:
    rng = random.Random(seed)
    data = mutated(rng)
    journal = agree(data)
    if not journal.damage and not journal.torn:  # a damaged file may say something else while its end is not there yet
        agree(data, [rng.randrange(len(data) + 1) for _ in range(rng.randrange(3))])
    assert agree(ext.salvage(data, WRITER, SEGMENT)).torn == 0
    noise = rng.randbytes(rng.randrange(200))
    for call in (
        lambda: ext.decode_footer(noise + b"ROTD", SMALL[:40]),
        lambda: ext.decode_record(noise, WRITER, SEGMENT),
        lambda: ext.decode_file_header(noise),
    ):
        with contextlib.suppress(CorruptionError):
            call()


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_hostile_bytes(seed: int) -> None:
    hostile(seed)


@pytest.mark.fuzz
def test_fuzz() -> None:
    ends = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60"))
    seed = random.randrange(2**62)
    while time.monotonic() < ends:
        try:
            hostile(seed)
        except BaseException:
            print(f"hostile({seed})")
            raise
        seed += 1
