"""Journals in plain Python ("Journals" in docs/format.md): records are made one by one, a file is taken apart into groups and damage."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from reference.blocks import crc32c, regular, signed
from reference.keys import pack, unpack

MAGIC = b"AIMLJRNL"
OPEN, SEQUENCE, POINTS, COLUMNS, PARAMS, PROPERTY, OBJECT, END, ROTATED = 1, 2, 3, 4, 5, 6, 7, 9, 10
HEADER, FILE_HEADER = 24, 40
MAX_ORDER = 2**53


@dataclass(frozen=True)
class Record:
    offset: int
    kind: int
    number: int
    order: int
    more: bool
    payload: bytes

    @property
    def end(self) -> int:
        return self.offset + HEADER + len(self.payload)


@dataclass(frozen=True)
class Point:
    """epoch: None when absent."""

    sequence: int
    step: int
    value: float
    epoch: float | None
    time: int
    order: int
    given: bool
    is_int: bool
    offset: int


@dataclass
class Journal:
    """What a file holds. points: those of declared sequences. damage: (offset, length)."""

    groups: list[list[Record]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    damage: list[tuple[int, int]] = field(default_factory=list)
    torn: int = 0
    declared: set[int] = field(default_factory=set)

    @property
    def records(self) -> list[Record]:
        return [record for group in self.groups for record in group]


# ---- encoding ----


def encode_file_header(writer: int, segment: int, order: int, pid: int) -> bytes:
    bare = MAGIC + struct.pack("<HHIQQI", 1, 0, segment, writer, order, pid)
    return bare + struct.pack("<I", crc32c(bare))


def encode_record(writer: int, segment: int, number: int, kind: int, payload: bytes, order: int, more: bool = False) -> bytes:
    length_and_type = len(payload) | kind << 24 | more << 31
    covered = struct.pack("<IIIQ", crc32c(payload), length_and_type, number, order)
    return struct.pack("<I", crc32c(struct.pack("<QI", writer, segment) + covered)) + covered + payload


def encode_group(writer: int, segment: int, number: int, order: int, records: Sequence[tuple[int, bytes]]) -> bytes:
    """number: that of the first record."""
    last = len(records) - 1
    return b"".join(encode_record(writer, segment, number + k, kind, payload, order, k < last) for k, (kind, payload) in enumerate(records))


def encode_journal(writer: int, segment: int, order: int, groups: Iterable[tuple[int, Sequence[tuple[int, bytes]]]], pid: int = 1) -> bytes:
    """groups: (order, [(type, payload), …])."""
    data, number = encode_file_header(writer, segment, order, pid), 0
    for group_order, records in groups:
        data += encode_group(writer, segment, number, group_order, records)
        number += len(records)
    return data


def encode_open(run: int, run_hash: str, flags: int = 0, since: int | None = None) -> bytes:
    if since is not None:
        return struct.pack("<IB", run, flags | 8) + run_hash.encode() + struct.pack("<Q", since)
    return struct.pack("<IB", run, flags) + run_hash.encode()


def encode_sequence(sequence: int, run: int, name: str | tuple[str, str], context: dict[str, Any], kind: int = 1) -> bytes:
    return struct.pack("<IIB", sequence, run, kind) + pack((name, context))


def encode_object(sequence: int, items: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """items: (header, content) of each object, all in one record; none so long that it would be a blob."""
    stored = [content if len(content) <= 256 else msgpack.ExtType(2, _named(content)) for _, content in items]
    packed = msgpack.packb([[header, content] for (header, _), content in zip(items, stored, strict=True)])
    return struct.pack("<II", sequence, len(packed)) + packed + b"".join(content for _, content in items if len(content) > 256)


def _named(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + struct.pack("<Q", len(content))


def encode_points(
    points: Sequence[tuple[int, int, float, bool]], given: bool = False, epoch: float | None = None, time: int | None = None
) -> bytes:
    """points: (sequence, step, value, whether it was an int)."""
    own_steps = len({step for _, step, _, _ in points}) > 1
    data = bytes([given | 2 * (epoch is not None) | 4 * (time is not None) | 8 * own_steps])
    if not own_steps:
        data += struct.pack("<q", points[0][1])
    if epoch is not None:
        data += struct.pack("<d", epoch)
    if time is not None:
        data += struct.pack("<q", time)
    for sequence, step, value, is_int in points:
        data += struct.pack("<I", sequence | is_int << 31) + (struct.pack("<q", step) if own_steps else b"") + struct.pack("<d", value)
    return data


def encode_columns(
    sequence: int,
    steps: Sequence[int],
    values: Sequence[float],
    given: bool = False,
    epochs: float | Sequence[float] | None = None,
    times: int | Sequence[int] | None = None,
    are_ints: bool = False,
) -> bytes:
    n, flags = len(values), given | 128 * are_ints
    step_bytes = regular(steps)
    if step_bytes is None:
        step_bytes = struct.pack(f"<{n}q", *steps)
    else:
        flags |= 8
    epoch_bytes = time_bytes = b""
    if isinstance(epochs, float):
        flags, epoch_bytes = flags | 2, struct.pack("<d", epochs)
    elif epochs is not None:
        flags, epoch_bytes = flags | 16, struct.pack(f"<{n}d", *epochs)
    if isinstance(times, int):
        flags, time_bytes = flags | 4, struct.pack("<q", times)
    elif times is not None:
        flags, time_bytes = flags | 32, struct.pack(f"<{n}q", *times)
    value_bytes = narrowed(values)
    if value_bytes is None:
        value_bytes = struct.pack(f"<{n}d", *values)
    else:
        flags |= 64
    return struct.pack("<BII", flags, sequence, n) + step_bytes + epoch_bytes + time_bytes + value_bytes


def narrowed(values: Sequence[float]) -> bytes | None:
    """The values as float32 if they are equal."""
    try:
        data = struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        return None
    return data if list(struct.unpack(f"<{len(values)}f", data)) == list(values) else None


def encode_end(run: int, status: int, time: int) -> bytes:
    return struct.pack("<IBq", run, status, time)


def encode_footer(offsets: Sequence[int], counts: Sequence[int]) -> bytes:
    body = struct.pack(f"<I{len(offsets)}II{len(counts)}I", len(offsets), *offsets, len(counts), *counts)
    return body + struct.pack("<I", HEADER + len(body) + 8) + b"ROTD"


# ---- decoding ----


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def unpack(self, form: str) -> tuple[Any, ...]:
        """Raises ValueError."""
        size = struct.calcsize("<" + form)
        if size > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += size
        return struct.unpack_from("<" + form, self.data, self.at - size)

    def rest(self) -> bytes:
        return self.data[self.at :]

    def done(self) -> bool:
        return self.at == len(self.data)


def decode_file_header(data: bytes) -> tuple[int, int, int, int]:
    """(writer, segment, order, pid). Raises ValueError."""
    magic, version, flags, segment, writer, order, pid, check = Cursor(data[:FILE_HEADER]).unpack("8sHHIQQII")
    if (magic, version, flags, check) != (MAGIC, 1, 0, crc32c(data[:36])):
        raise ValueError("not a journal")
    return writer, segment, order, pid


def decode_open(payload: bytes) -> tuple[int, int, str]:
    of = Cursor(payload)
    run, flags = of.unpack("IB")
    rest = of.rest()
    return run, flags, (rest[:-8] if flags & 8 else rest).decode()


def decode_sequence(payload: bytes) -> tuple[int, int, int, str, dict[str, Any]]:
    of = Cursor(payload)
    sequence, run, kind = of.unpack("IIB")
    name, context = unpack(of.rest())
    return sequence, run, kind, name, context


def decode_points(record: Record) -> list[Point]:
    of = Cursor(record.payload)
    (flags,) = of.unpack("B")
    if flags >> 4:
        raise ValueError("unknown flags")
    step = None if flags & 8 else of.unpack("q")[0]
    epoch = of.unpack("d")[0] if flags & 2 else None
    time = of.unpack("q")[0] if flags & 4 else signed(record.order)
    points: list[Point] = []
    while not points or not of.done():
        (number,) = of.unpack("I")
        own = of.unpack("q")[0] if step is None else step
        (value,) = of.unpack("d")
        points.append(Point(number & 0x7FFFFFFF, own, value, epoch, time, record.order, bool(flags & 1), bool(number >> 31), record.offset))
    demand_known(record, points)
    return points


def decode_columns(record: Record) -> list[Point]:
    of = Cursor(record.payload)
    flags, sequence, n = of.unpack("BII")
    if not 1 <= n <= 2**24 or flags & 18 == 18 or flags & 36 == 36:
        raise ValueError("no points, or one and each")
    if flags & 8:
        first, stride = of.unpack("qq")
        steps = [(first + k * stride + 2**63) % 2**64 - 2**63 for k in range(n)]
    else:
        steps = list(of.unpack(f"{n}q"))
    epochs = list(of.unpack("d")) * n if flags & 2 else list(of.unpack(f"{n}d")) if flags & 16 else [None] * n
    times = list(of.unpack("q")) * n if flags & 4 else list(of.unpack(f"{n}q")) if flags & 32 else [signed(record.order)] * n
    values = of.unpack(f"{n}f" if flags & 64 else f"{n}d")
    if not of.done():
        raise ValueError("bytes left over")
    points = [
        Point(sequence, step, value, epoch, time, record.order, bool(flags & 1), bool(flags & 128), record.offset)
        for step, value, epoch, time in zip(steps, values, epochs, times, strict=True)
    ]
    demand_known(record, points)
    return points


def demand_known(record: Record, points: Sequence[Point]) -> None:
    if any(point.sequence > record.offset // HEADER + 2**20 for point in points):
        raise ValueError("a sequence number that no writer gives out")


def decode_end(payload: bytes) -> tuple[int, int, int]:
    run, status, time = Cursor(payload).unpack("IBq")
    return run, status, time


def decode_footer(payload: bytes) -> tuple[list[int], list[int]]:
    of = Cursor(payload)
    offsets = list(of.unpack(f"{of.unpack('I')[0]}I"))
    counts = list(of.unpack(f"{of.unpack('I')[0]}I"))
    if of.unpack("I4s") != (HEADER + len(payload), b"ROTD") or not of.done():
        raise ValueError("not a footer")
    return offsets, counts


class BadRecord(Exception):
    """at: where the record that is not good begins; short: it could be whole if there were more bytes."""

    def __init__(self, at: int, short: bool) -> None:
        super().__init__(at, short)
        self.at, self.short = at, short


def record_at(data: bytes, at: int, seed: bytes) -> Record:
    if len(data) - at < HEADER:
        raise BadRecord(at, True)
    check, payload_check, length_and_type, number, order = struct.unpack_from("<IIIIQ", data, at)
    kind, length = length_and_type >> 24 & 0x7F, length_and_type & 0xFFFFFF
    if check != crc32c(seed + data[at + 4 : at + HEADER]) or kind == 0:
        raise BadRecord(at, False)
    payload = data[at + HEADER : at + HEADER + length]
    if len(payload) < length:
        raise BadRecord(at, True)
    if payload_check != crc32c(payload):
        raise BadRecord(at, False)
    return Record(at, kind, number, order, bool(length_and_type >> 31), payload)


def group_at(data: bytes, at: int, seed: bytes) -> list[Record]:
    group = [record_at(data, at, seed)]
    while group[-1].more:
        group.append(record_at(data, group[-1].end, seed))
    return group


def next_good(data: bytes, at: int, seed: bytes, number: int) -> list[Record] | None:
    while at + HEADER <= len(data):
        try:
            group = group_at(data, at, seed)
        except BadRecord as bad:
            at = bad.at + 1
            continue
        if group[0].number >= number:
            return group
        at += 1
    return None


def is_torn(data: bytes, bad: BadRecord) -> bool:
    rest = data[bad.at :]
    zeros = len(rest) - len(rest.rstrip(b"\0"))
    return bad.short or zeros >= 64 or zeros == len(rest)


def decode_journal(data: bytes, writer: int, segment: int) -> Journal:
    """A file that nobody holds any more."""
    found = Journal()
    if len(data) < FILE_HEADER or not data.strip(b"\0"):
        found.torn = len(data)
        return found
    try:
        if decode_file_header(data)[:2] != (writer, segment):
            raise ValueError("of another journal")
    except ValueError:
        found.damage.append((0, FILE_HEADER))
    seed, at, number = struct.pack("<QI", writer, segment), FILE_HEADER, 0
    while at < len(data):
        try:
            group: list[Record] | None = group_at(data, at, seed)
        except BadRecord as bad:
            group = next_good(data, bad.at + 1, seed, number)
            if group is None:
                if is_torn(data, bad):
                    found.torn = len(data) - at
                else:
                    found.damage.append((at, len(data) - at))
                return found
            found.damage.append((at, group[0].offset - at))
            number = group[0].number
        assert group is not None
        take_group(found, group, number)
        at, number = group[-1].end, group[-1].number + 1
    return found


def take_group(found: Journal, group: list[Record], number: int) -> None:
    found.groups.append(group)
    for record in group:
        if record.number != number:
            found.damage.append((record.offset, 0))
        number = record.number + 1
        try:
            if record.order > MAX_ORDER:
                raise ValueError("a time that no clock shows")
            if record.kind == SEQUENCE and len(record.payload) >= 4:
                (number_of_sequence,) = struct.unpack_from("<I", record.payload)
                if number_of_sequence <= record.offset // HEADER + 2**20:
                    found.declared.add(number_of_sequence)
            if record.kind in (POINTS, COLUMNS):
                points = decode_points(record) if record.kind == POINTS else decode_columns(record)
                found.points += [point for point in points if point.sequence in found.declared]
        except ValueError:
            found.damage.append((record.offset, HEADER + len(record.payload)))
