"""Which point stays, what summaries say, and that merging in pieces ends where merging at once does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage.trees import DictTree

from aimlite.errors import CorruptionError
from aimlite.storage import check, keys, merge, points
from aimlite.storage.layout import Layout
from aimlite.storage.merge import BatchBuilder
from aimlite.storage.points import FLOATS, INTS, REPEATED, Points, Summary, decode_summary, resolve, split_blocks, summarize
from aimlite.storage.view import SequenceId, View
from reference.blocks import bits_of


@dataclass(frozen=True)
class Point:
    step: int
    value: float
    epoch: float
    time: int
    order: int
    writer: int
    given: bool
    place: int

    @property
    def key(self) -> tuple[Any, ...]:
        """All but the place, which a merge forgets; floats by their bits."""
        return self.step, bits_of(self.value), bits_of(self.epoch), self.time, self.order, self.writer, self.given


def columns(rows: list[Point], flags: int = FLOATS) -> Points:
    kinds = points._TYPES
    return Points({name: np.array([getattr(row, name) for row in rows], kind) for name, kind in kinds.items()}, flags)


def rows_of(found: Points) -> list[tuple[Any, ...]]:
    names = ("step", "value", "epoch", "time", "order", "writer", "given")
    column = {name: found[name].view("<u8") if name in ("value", "epoch") else found[name] for name in names}
    return [(*row[:6], bool(row[6])) for row in zip(*(column[name].tolist() for name in names), strict=True)]


# ---- the rule in plain Python ----


def that_stay(rows: list[Point]) -> list[Point]:
    """ "Which point stays" in docs/format.md, word by word."""
    left: list[Point] = []
    for step in sorted({row.step for row in rows}):
        held: list[Point] = []
        for row in sorted((row for row in rows if row.step == step), key=lambda row: (row.order, row.writer, row.place)):
            if row.given:
                held = [row]
            else:
                held = [old for old in held if old.given or old.writer != row.writer] + [row]
        left += sorted(held, key=lambda row: (row.time, row.writer))
    return left


def plain_summary(rows: list[Point]) -> dict[str, Any]:
    """Of rows that stay."""
    numbers = [row for row in rows if not math.isnan(row.value)]
    lowest = min(numbers, key=lambda row: row.value, default=None)
    highest = max(numbers, key=lambda row: row.value, default=None)
    return {
        "count": len(rows),
        "first_step": rows[0].step,
        "last_step": rows[-1].step,
        "first": rows[0].value,
        "last": rows[-1].value,
        "minimum": lowest.value if lowest else math.nan,
        "maximum": highest.value if highest else math.nan,
        "min_step": lowest.step if lowest else 0,
        "max_step": highest.step if highest else 0,
        "first_time": rows[0].time,
        "last_time": rows[-1].time,
        "repeated": len({row.step for row in rows}) < len(rows),
    }


def same(found: Summary, expected: dict[str, Any]) -> bool:
    fields = {**vars(found), "repeated": bool(found.flags & REPEATED)}
    return all(repr(fields[name] + 0) == repr(value + 0) for name, value in expected.items())


# ---- points that writers could have written ----

values = st.floats(-3, 3, width=16) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


@st.composite
def writers_pieces(draw: st.DrawFn, most: int = 3) -> list[list[Point]]:
    """Segments of some writers. Orders never step back within a writer; they grow where a segment begins and where a step is counted."""
    pieces: list[list[Point]] = []
    for writer in range(draw(st.integers(1, 3))):
        order = draw(st.integers(100, 110))
        for _ in range(draw(st.integers(1, most))):
            piece: list[Point] = []
            order += 1
            for place in range(draw(st.integers(1, 6))):
                step_given = draw(st.booleans())
                order += draw(st.integers(0 if step_given else 1, 3))
                time = order if draw(st.booleans()) else draw(st.integers(90, 130))
                epoch = draw(st.sampled_from([math.nan, 1.0, 2.5]))
                piece.append(Point(draw(st.integers(-4, 9)), draw(values), epoch, time, order, writer + 5, step_given, 40 + place))
            pieces.append(piece)
    return pieces


def flat(pieces: list[list[Point]]) -> list[Point]:
    return [row for piece in pieces for row in piece]


@settings(deadline=None)
@given(writers_pieces())
def test_resolve_keeps_the_points_that_stay(pieces: list[list[Point]]) -> None:
    rows = flat(pieces)
    assert rows_of(resolve(columns(rows))) == [row.key for row in that_stay(rows)]


@settings(deadline=None)
@given(writers_pieces().flatmap(lambda pieces: st.tuples(st.just(flat(pieces)), st.permutations(pieces))))
def test_resolving_in_pieces_is_resolving_at_once(drawn: tuple[list[Point], list[list[Point]]]) -> None:
    rows, pieces = drawn
    found = points.empty_points()
    for piece in pieces:
        part = resolve(columns(piece))
        part = Points({**part.columns, "place": np.zeros(len(part), "<u8")}, part.flags)
        found = resolve(points.concatenate([found, part]))
    assert rows_of(found) == [row.key for row in that_stay(rows)]


def test_small_cases() -> None:
    def point(value: float, order: int, writer: int, step_given: bool, time: int = 0) -> Point:
        return Point(0, value, math.nan, time or order, order, writer, step_given, order)

    cases: list[tuple[list[Point], list[float]]] = [
        ([point(1, 1, 1, True), point(2, 2, 1, True)], [2]),  # tracked again
        ([point(1, 1, 1, True), point(2, 2, 9, True)], [2]),
        ([point(1, 1, 1, False), point(2, 2, 9, False)], [1, 2]),  # two writers counted
        ([point(1, 1, 1, False, 50), point(2, 2, 9, False)], [2, 1]),
        ([point(1, 1, 1, False), point(2, 2, 1, False)], [2]),
        ([point(1, 1, 1, False), point(2, 2, 9, False), point(3, 3, 5, True)], [3]),
        ([point(1, 1, 1, False), point(2, 2, 9, True), point(3, 3, 1, False)], [2, 3]),
        ([point(1, 1, 1, True), point(2, 2, 1, False)], [1, 2]),  # what was given is replaced by what is given alone
    ]
    for rows, expected in cases:
        assert resolve(columns(rows))["value"].tolist() == expected
        assert [row.value for row in that_stay(rows)] == expected


def test_points_in_order_are_left_alone() -> None:
    found = columns([Point(step, 1.0, math.nan, 5, 5, 1, True, step) for step in range(5)])
    assert resolve(found) is found
    assert len(resolve(points.empty_points())) == 0


# ---- summaries and blocks ----


@settings(deadline=None)
@given(writers_pieces())
def test_summaries(pieces: list[list[Point]]) -> None:
    rows = that_stay(flat(pieces))
    summary = summarize(resolve(columns(rows)))
    assert same(summary, plain_summary(rows))
    assert repr(decode_summary(summary.encode())) == repr(summary)
    assert summary.order == max(row.order for row in rows)


@settings(deadline=None)
@given(writers_pieces(), st.integers(1, 20))
def test_a_summary_followed_by_another(pieces: list[list[Point]], cut: int) -> None:
    rows = that_stay(flat(pieces))
    first = [row for row in rows if row.step < rows[0].step + cut]
    later = rows[len(first) :]
    if later:
        combined = summarize(columns(first, INTS)).followed_by(summarize(columns(later)))
        assert same(combined, plain_summary(rows))
        assert combined.blocks == 2
        assert combined.flags & 3 == INTS | FLOATS


@settings(deadline=None)
@given(writers_pieces(most=6), st.integers(1, 5))
def test_blocks(pieces: list[list[Point]], size: int) -> None:
    rows = that_stay(flat(pieces))
    with mock.patch.object(points, "BLOCK_POINTS", size):
        blocks = split_blocks(columns(rows))
    assert [row for block in blocks for row in rows_of(block)] == [row.key for row in rows]
    for one, following in pairwise(blocks):
        assert len(one) >= size
        assert one["step"][-1] < following["step"][0]
    for block in blocks:
        assert len(block) <= size or block["step"][size - 1] == block["step"][-1]
        decoded = points.decode_block(*points.encode_block(block), FLOATS)
        assert rows_of(decoded) == rows_of(block)


def test_damaged_summaries_are_refused() -> None:
    data = summarize(columns([Point(1, 0.5, math.nan, 5, 5, 1, True, 0)])).encode()
    assert len(data) == 120
    for at in range(120):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CorruptionError):
            decode_summary(changed)
    for bad in (b"", data[:-1], data + b"\0"):
        with pytest.raises(CorruptionError):
            decode_summary(bad)


def test_columns_of_different_length_are_damage() -> None:
    one = columns([Point(1, 0.5, math.nan, 5, 5, 1, True, 0)])
    two = columns([Point(step, 0.5, math.nan, 5, 5, 1, True, 0) for step in (1, 2)])
    with pytest.raises(CorruptionError, match="disagree"):
        points.decode_block(points.encode_block(one)[0], points.encode_block(two)[1], FLOATS)


# ---- merging, in a tree that is a dict ----


SEQUENCE = SequenceId("r", "m", {"s": 1}, b"")
LAYOUT = Layout(Path("/nowhere"))


class TreeAndPieces(View):
    """A view of a tree and of pieces that are not merged."""

    def __init__(self, tree: DictTree, pieces: list[list[Point]]) -> None:
        super().__init__(LAYOUT, tree, [])
        self.pieces = pieces

    def unmerged_points(self, sequence: SequenceId) -> Points:
        return points.concatenate([columns(piece) for piece in self.pieces])


def put(tree: DictTree, piece: Points) -> None:
    batch = BatchBuilder(tree)
    batch.add_points(SEQUENCE.run, SEQUENCE.name, SEQUENCE.context, resolve(piece), known=True)
    tree.commit(batch.writes)


def small_blocks() -> Any:
    return mock.patch.multiple(merge, BLOCK_POINTS=4, _REWRITE_BLOCKS=2), mock.patch.object(points, "BLOCK_POINTS", 4)


def check_tree_of(tree: DictTree) -> None:
    """What the tree says of itself is true."""
    tree.entries.setdefault(keys.run(SEQUENCE.run), msgpack.packb({"created": 1, "order": 1}))
    view = View(LAYOUT, tree, [])
    for inspect in (check._check_sequences, check._check_blocks, check._check_of_run):
        assert list(inspect(view)) == []


def check_view_of(view: View, rows: list[Point]) -> None:
    assert rows_of(view.points(SEQUENCE)) == [row.key for row in rows]
    steps, found = view.steps_and_values(SEQUENCE)
    assert [(step, bits_of(value)) for step, value in zip(steps.tolist(), found.tolist(), strict=True)] == [row.key[:2] for row in rows]
    summary = view.summary(SEQUENCE)
    assert summary is not None
    assert same(summary, plain_summary(rows))


@settings(deadline=None)
@given(writers_pieces(most=5).flatmap(lambda pieces: st.tuples(st.just(pieces), st.permutations(range(len(pieces))))))
def test_merging_in_any_order_is_merging_at_once(drawn: tuple[list[list[Point]], list[int]]) -> None:
    pieces, turns = drawn
    rows = that_stay(flat(pieces))
    tree = DictTree()
    one, other = small_blocks()
    with one, other:
        for count, turn in enumerate(turns):
            put(tree, columns(pieces[turn]))
            check_tree_of(tree)
            check_view_of(TreeAndPieces(tree, [pieces[later] for later in turns[count + 1 :]]), rows)
        at_once = DictTree()
        put(at_once, columns(flat(pieces)))
        check_tree_of(at_once)
    for merged in (tree, at_once):
        check_view_of(View(LAYOUT, merged, []), rows)
    summaries = [View(LAYOUT, merged, []).summary(SEQUENCE) for merged in (tree, at_once)]
    assert summaries[0] is not None
    assert summaries[1] is not None
    assert repr(replace(summaries[0], blocks=0, order=0)) == repr(replace(summaries[1], blocks=0, order=0))


@pytest.mark.parametrize("shape", ["in order", "backwards", "late", "among"])
def test_blocks_stay_few(shape: str) -> None:
    """Many small pieces are rewritten into few blocks, and a piece costs little."""
    tree, size, n = DictTree(), 20, 400
    place: Callable[[int], int] = {
        "in order": lambda k: k * size,
        "backwards": lambda k: (n - k) * size,
        "late": lambda k: (k ^ 1) * size,
        "among": lambda k: k * 37 % n * size,
    }[shape]
    written = 0
    for k in range(n):
        piece = columns([Point(place(k) + i, float(i), math.nan, 5, 5 + k, 1, True, 40) for i in range(size)])
        batch = BatchBuilder(tree)
        batch.add_points("r", "m", {"s": 1}, resolve(piece), known=True)
        written += sum(value is not None for key, value in batch.writes.items() if key[:1] == keys.VALUES)
        tree.commit(batch.writes)
    check_tree_of(tree)
    summary = View(LAYOUT, tree, []).summary(SEQUENCE)
    assert summary is not None
    assert summary.count == n * size
    assert summary.blocks < 20
    assert written < 2 * n
