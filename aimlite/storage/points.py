"""Points of one sequence as numpy columns, which of them stays where two meet, and what a summary says of them.

docs/format.md, "Which point stays" and "Summary".
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimlite._ext.blocks import crc32c, decode_times, decode_values, encode_times, encode_values
from aimlite.errors import CorruptionError

BLOCK_POINTS = 4096
NUMBERS = 1
INTS, FLOATS, REPEATED = 1, 2, 4
_MAX_STEP = 2**63 - 1
_SUMMARY = struct.Struct("<BBBBIQqqddddqqqqQQQ")

SUMMARY_DTYPE = np.dtype(  # the numbers that queries ask summaries for
    {
        "names": ["count", "first_step", "last_step", "first", "last", "min", "max"],
        "formats": ["<u8", "<i8", "<i8", "<f8", "<f8", "<f8", "<f8"],
        "offsets": [8, 16, 24, 32, 40, 48, 56],
        "itemsize": _SUMMARY.size,
    }
)

Columns = dict[str, NDArray[Any]]
_TYPES: dict[str, np.dtype[Any]] = {
    "step": np.dtype("<i8"),
    "value": np.dtype("<f8"),
    "epoch": np.dtype("<f8"),
    "time": np.dtype("<i8"),
    "order": np.dtype("<u8"),
    "place": np.dtype("<u8"),
    "writer": np.dtype("<u8"),
    "given": np.dtype("u1"),
}


@dataclass
class Points:
    """n points: step int64, value float64, epoch float64 (NaN: none), time int64 µs, order uint64, writer uint64, given uint8 (1: the step
    was given), place uint64 (offset in the journal, 0 once merged). flags: INTS and FLOATS, what was tracked."""

    columns: Columns
    flags: int

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def take(self, which: Any) -> Points:
        return Points({name: column[which] for name, column in self.columns.items()}, self.flags)


_NO_POINTS = Points({name: np.empty(0, kind) for name, kind in _TYPES.items()}, 0)


def empty_points() -> Points:
    return _NO_POINTS


def concatenate(parts: list[Points]) -> Points:
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else _NO_POINTS
    flags = 0
    for part in parts:
        flags |= part.flags
    return Points({name: np.concatenate([part[name] for part in parts]) for name in _TYPES}, flags)


def journal_points(raw: tuple[Any, ...], writer: int) -> Points:
    """The points that `JournalReader.columns` gives."""
    n, steps, values, epochs, times, orders, offsets, flags = raw
    marks = np.frombuffer(flags, "u1")
    ints = int(np.count_nonzero(marks & 2))
    return Points(
        {
            "step": np.frombuffer(steps, "<i8"),
            "value": np.frombuffer(values, "<f8"),
            "epoch": np.frombuffer(epochs, "<f8"),
            "time": np.frombuffer(times, "<i8"),
            "order": np.frombuffer(orders, "<u8"),
            "place": np.frombuffer(offsets, "<u4").astype("<u8"),
            "writer": np.full(n, writer, "<u8"),
            "given": marks & np.uint8(1),
        },
        (INTS if ints else 0) | (FLOATS if ints < n else 0),
    )


def resolve(points: Points) -> Points:
    """The points that stay, in ascending (step, time, writer)."""
    step = points["step"]
    if len(points) < 2 or bool(np.all(step[1:] > step[:-1])):
        return points
    points = points.take(np.lexsort((points["place"], points["writer"], points["order"], step)))
    step = points["step"]
    same = step[1:] == step[:-1]
    if not same.any():
        return points
    place = np.arange(len(points))
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    group = np.cumsum(np.concatenate(([0], ~same)))
    last_given = np.maximum.reduceat(np.where(points["given"] != 0, place, -1), starts)[group]
    keep = place >= last_given
    by_writer = np.lexsort((place, points["writer"], step))
    writer = points["writer"][by_writer]
    replaced = (step[by_writer][1:] == step[by_writer][:-1]) & (writer[1:] == writer[:-1]) & (points["given"][by_writer][:-1] == 0)
    keep[by_writer[:-1][replaced]] = False
    points = points.take(keep)
    return points.take(np.lexsort((points["writer"], points["time"], points["step"])))


def span(ascending: NDArray[np.int64], begin: int | None, end: int | None) -> slice:
    """Where the steps begin ≤ step < end stand among ascending ones; None is no bound."""
    first = 0 if begin is None else int(np.searchsorted(ascending, _clamped(begin)))
    last = len(ascending) if end is None or end > _MAX_STEP else int(np.searchsorted(ascending, _clamped(end)))
    if begin is not None and begin > _MAX_STEP:
        first = len(ascending)
    return slice(first, max(first, last))


def within(points: Points, begin: int | None, end: int | None) -> Points:
    """The points at begin ≤ step < end, in whatever order they are."""
    step = points["step"]
    keep = np.ones(len(step), bool)
    if begin is not None:
        keep &= step >= _clamped(begin) if begin <= _MAX_STEP else False
    if end is not None and end <= _MAX_STEP:
        keep &= step < _clamped(end)
    return points if keep.all() else points.take(keep)


def _clamped(step: int) -> int:
    return max(-_MAX_STEP - 1, min(step, _MAX_STEP))


def split_blocks(points: Points) -> list[Points]:
    """Resolved points cut into blocks of BLOCK_POINTS; points of one step stay together."""
    step = points["step"]
    n, start, blocks = len(points), 0, []
    while start < n:
        end = min(start + BLOCK_POINTS, n)
        while end < n and step[end] == step[end - 1]:
            end += 1
        blocks.append(points.take(slice(start, end)))
        start = end
    return blocks


def encode_block(points: Points) -> tuple[bytes, bytes]:
    """(value columns, time columns) of a block."""
    column = {name: np.ascontiguousarray(points[name]) for name in _TYPES}
    return (
        encode_values(column["step"], column["value"]),
        encode_times(column["time"], column["order"], column["writer"], column["given"], column["epoch"]),
    )


def decode_block(values: bytes, times: bytes, flags: int) -> Points:
    """The points of a block. Raises CorruptionError."""
    n, step, value = decode_values(values)
    m, time, order, writer, given, epoch = decode_times(times)
    if n != m:
        raise CorruptionError(f"the columns of a block disagree: {n} values, {m} times")
    raw = {"step": step, "value": value, "epoch": epoch, "time": time, "order": order, "writer": writer, "given": given}
    columns: Columns = {name: np.frombuffer(data, _TYPES[name]) for name, data in raw.items()}
    columns["place"] = np.zeros(n, "<u8")
    return Points(columns, flags)


@dataclass(frozen=True)
class Summary:
    """What is known of a block or a sequence without decoding it. Steps int64, times in µs; minimum and maximum NaN when every value is."""

    flags: int
    count: int
    first_step: int
    last_step: int
    first: float
    last: float
    minimum: float
    maximum: float
    min_step: int
    max_step: int
    first_time: int
    last_time: int
    order: int
    blocks: int = 1
    kind: int = NUMBERS

    def encode(self) -> bytes:
        fields = (
            *(self.count, self.first_step, self.last_step, self.first, self.last, self.minimum, self.maximum),
            *(self.min_step, self.max_step, self.first_time, self.last_time, self.order, self.blocks, 0),
        )
        bare = _SUMMARY.pack(1, self.kind, self.flags, 0, 0, *fields)
        return bare[:4] + struct.pack("<I", _checksum(bare)) + bare[8:]

    def followed_by(self, later: Summary) -> Summary:
        """The summary of this and of later points, all of whose steps are greater."""
        lowest = later if math.isnan(self.minimum) or later.minimum < self.minimum else self
        highest = later if math.isnan(self.maximum) or later.maximum > self.maximum else self
        return replace(
            self,
            flags=self.flags | later.flags,
            count=self.count + later.count,
            last_step=later.last_step,
            last=later.last,
            minimum=lowest.minimum,
            min_step=lowest.min_step,
            maximum=highest.maximum,
            max_step=highest.max_step,
            last_time=later.last_time,
            order=max(self.order, later.order),
            blocks=self.blocks + later.blocks,
        )


def _checksum(summary: bytes) -> int:
    return crc32c(summary[8:], crc32c(summary[:4]))


def decode_summary(data: bytes) -> Summary:
    """Raises CorruptionError."""
    if len(data) != _SUMMARY.size:
        raise CorruptionError(f"a summary has {_SUMMARY.size} bytes, not {len(data)}", offset=0)
    version, kind, flags, _, check, count, first_step, last_step, *rest = _SUMMARY.unpack(data)
    if version != 1 or check != _checksum(data):
        raise CorruptionError("a summary fails its check", offset=4)
    first, last, minimum, maximum, min_step, max_step, first_time, last_time, order, blocks, _ = rest
    return Summary(
        flags, count, first_step, last_step, first, last, minimum, maximum, min_step, max_step, first_time, last_time, order, blocks, kind
    )


def summarize(points: Points) -> Summary:
    """The summary of resolved points, at least one."""
    step, value = points["step"], points["value"]
    minimum = maximum = math.nan
    min_step = max_step = 0
    finite = ~np.isnan(value)
    if finite.any():
        low = int(np.argmin(np.where(finite, value, np.inf)))
        high = int(np.argmax(np.where(finite, value, -np.inf)))
        if not finite[low]:  # every number is +inf, and a NaN came first
            low = int(np.argmax(finite))
        if not finite[high]:
            high = int(np.argmax(finite))
        minimum, maximum, min_step, max_step = float(value[low]), float(value[high]), int(step[low]), int(step[high])
    repeated = REPEATED if len(step) > 1 and bool(np.any(step[1:] == step[:-1])) else 0
    return Summary(
        points.flags & (INTS | FLOATS) | repeated,
        len(points),
        int(step[0]),
        int(step[-1]),
        float(value[0]),
        float(value[-1]),
        minimum,
        maximum,
        min_step,
        max_step,
        int(points["time"][0]),
        int(points["time"][-1]),
        int(points["order"].max()),
    )
