"""One journal as a reader sees it: records taken in as they come, sorted by run.

A segment that its writer holds grows; each refresh reads only the new bytes. One that nobody holds, or that ended with ROTATED, is
complete. Of a rotated segment with a footer, points are read only when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from aimlite._ext import journal as ext
from aimlite._ext.blocks import crc32c
from aimlite._ext.keys import pack, unpack
from aimlite._ext.recorder import MAX_NAME_BYTES, canonical_context
from aimlite.errors import CorruptionError
from aimlite.storage import heartbeat, keys, params
from aimlite.storage.locks import is_held, is_mine
from aimlite.storage.objects import ObjectRecord, check_contents, decode_object_record
from aimlite.storage.points import Points, concatenate, empty_points, journal_points
from aimlite.storage.runs import MAX_ORDER, STATUS_WORDS, TRASHED, WriterEntry, check_stored_hash, decode_property

Damage = tuple[int, int, str]
Record = tuple[int, int, bytes, int]  # offset, order, payload without the run's number, run number
Property = tuple[int, int, tuple[str, Any], int]  # offset, order, (name, value), run number
Operation = tuple[params.Stamp, int, int, keys.Path, list[Any]]  # stamp, offset, kind, path, [relative path, leaf] of each leaf
_CONTINUED, _INHERITED, _EDITED, _SINCE = 1, 2, 4, 8
_METRIC, _OBJECTS = 1, 2  # what a SEQUENCE record declares
_END_BYTES = 13
_PROBE_BYTES = 4096
_MANY_LEAVES = 64
_OPEN_HASH = ext.RECORD_HEADER_SIZE + 5  # where the hash stands in an OPEN record
_MAX_KEPT = 32  # descriptors kept for segments whose points are not read yet: a merge may unlink the file while a view still needs it
_kept = 0
_damage_found = 0  # how often damage was found in any segment of this process


def count_of_damage() -> int:
    """What changes whenever damage is found in a segment."""
    return _damage_found


class MalformedRecord(CorruptionError):
    """Raised inside storage for a record that passes its check and does not decode. offset: where it lies in its journal; length: how many
    bytes it takes."""

    def __init__(self, message: str, offset: int, length: int) -> None:
        super().__init__(message, None, offset)
        self.length = length


def _decoded_operation(offset: int, payload: bytes) -> tuple[int, keys.Path, list[Any]]:
    try:
        return params.decode_operation(payload)
    except CorruptionError as error:
        raise _malformed(error, offset, 4 + len(payload)) from None


def _malformed(error: Exception, offset: int, payload_bytes: int) -> MalformedRecord:
    reason = error.message if isinstance(error, CorruptionError) else str(error)
    return MalformedRecord(f"a record does not decode: {reason}", offset, ext.RECORD_HEADER_SIZE + payload_bytes)


@dataclass
class SequenceRecord:
    offset: int
    number: int
    run: int
    name: keys.Name
    context: dict[str, Any]
    packed: bytes
    objects: list[ObjectRecord] = field(default_factory=list)


class Operations:
    """The param operations of one run in one segment, decoded once and found by the paths they touch. Of sets and deletions of one path
    the last is kept: it hides those before it."""

    def __init__(self) -> None:
        self._taken = 0
        self._reach = 0  # the offset behind the last one taken in
        self._by_top: dict[keys.Path, dict[keys.Path, list[Operation]]] = {}
        self._grouped: dict[int, dict[Any, list[Any]]] = {}  # by offset of an operation of many leaves: its leaves by their first key
        self._lock = threading.RLock()

    def touching(self, records: list[Record], writer: int, limit: int, path: keys.Path) -> list[Operation]:
        """Those at, above and below a path, of the records that lie before `limit`."""
        if is_mine(self._lock):  # this thread was interrupted in here, and left things half done
            return Operations().touching(records, writer, limit, path)
        with self._lock:
            if limit < self._reach:  # a view from before the last was taken in: what it sees may be hidden here
                older = Operations()
                return older.touching([record for record in records if record[0] < limit], writer, limit, path)
            for offset, order, payload, _ in records[self._taken :]:
                if offset >= limit:
                    break
                self._reach = offset + 1  # in this order, so that one interrupted by an exception is taken again
                self._take((order, writer), offset, payload)
                self._taken += 1
            tops = [(), path[:1]] if path else list(self._by_top)
            found = [held for top in tops for at, held in self._by_top.get(top, {}).items() if at[: len(path)] == path[: len(at)]]
            return [(*operation[:4], self._relevant(operation, path)) for held in found for operation in held]

    def _take(self, stamp: params.Stamp, offset: int, payload: bytes) -> None:
        kind, path, leaves = _decoded_operation(offset, payload)
        held = self._by_top.setdefault(path[:1], {})
        if kind != params.MORE:
            held[path] = []
        held.setdefault(path, []).append((stamp, offset, kind, path, leaves))

    def _relevant(self, operation: Operation, path: keys.Path) -> list[Any]:
        """The leaves of an operation that lie at, above or below a path."""
        _, offset, _, at, leaves = operation
        rest = list(path[len(at) :])
        if not rest or len(leaves) < 2:
            return leaves
        if len(leaves) > _MANY_LEAVES:
            grouped = self._grouped.get(offset)
            if grouped is None:
                grouped = {}
                for leaf in leaves:  # none lies at the path itself: there are others beside it
                    grouped.setdefault(leaf[0][0], []).append(leaf)
                self._grouped[offset] = grouped
            leaves = grouped.get(rest[0], [])
        return [leaf for leaf in leaves if leaf[0][: len(rest)] == rest[: len(leaf[0])]]


@dataclass
class SegmentRun:
    """What a segment says of one run, each item with the offset of its record."""

    offset: int
    opens: list[tuple[int, int, int, int, int]] = field(default_factory=list)  # offset, order, run number, flags, since
    ends: list[tuple[int, int, int, str, int]] = field(default_factory=list)  # offset, order, run number, status, time
    params: list[Record] = field(default_factory=list)
    properties: list[Property] = field(default_factory=list)
    operations: Operations = field(default_factory=lambda: Operations())
    sequences: list[SequenceRecord] = field(default_factory=list)
    by_key: dict[bytes, list[SequenceRecord]] = field(default_factory=dict)
    moves_trash: bool = False  # whether it may have been put into the trash here, or taken out of it
    _later: tuple[tuple[int, ...], SegmentRun | None] = ((), None)

    def opened_after(self, order: int) -> SegmentRun | None:
        """What is from those that opened the run after `order`, at which it was deleted; None when nobody did."""
        if not order or all(since > order for *_, since in self.opens):
            return self
        state = (order, len(self.opens), len(self.ends), len(self.params), len(self.properties), len(self.sequences))
        known, later = self._later
        if known != state:
            later = self._part(
                {number for _, _, number, _, since in self.opens if since > order}, later if known[:1] == state[:1] else None
            )
            self._later = state, later
        return later

    def _part(self, numbers: set[int], before: SegmentRun | None) -> SegmentRun | None:
        """The records of some of the run numbers. before: what this gave when there were fewer."""
        opens = [entry for entry in self.opens if entry[2] in numbers]
        if not opens:
            return None
        part = SegmentRun(
            opens[0][0],
            opens,
            [entry for entry in self.ends if entry[2] in numbers],
            [record for record in self.params if record[3] in numbers],
            [record for record in self.properties if record[3] in numbers],
            sequences=[record for record in self.sequences if record.run in numbers],
            moves_trash=self.moves_trash,
        )
        if before is not None:
            part.operations = before.operations
        for record in part.sequences:
            part.by_key.setdefault(record.packed, []).append(record)
        return part


class Segment:
    """A journal file. Raises FileNotFoundError when it is gone."""

    _fd = -1

    def __init__(self, path: Path, writer: int, number: int) -> None:
        self.path = path
        self.writer = writer
        self.number = number
        self.held = True
        self.complete = False  # nothing will be added any more, and nobody holds it
        self.runs: dict[str, SegmentRun] = {}
        self.mentioned: list[str] = []  # the runs, in the order in which they came
        self.size = 0
        self.orphans = False  # something names a run whose OPEN was lost
        self._run_of_number: dict[int, SegmentRun] = {}
        self._sequence_of_number: dict[int, SequenceRecord] = {}
        self._damage_told = 0
        self._inspected = 0  # up to where `inspect` has looked
        self._absorbed = 0
        self._points: ext.JournalReader | None = None
        self._points_lock = threading.RLock()
        self._by_footer = False
        self._lost: list[bytes] = []  # of each damaged stretch the beginning
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._inode = os.fstat(fd).st_ino
            self._header = os.pread(fd, ext.FILE_HEADER_SIZE, 0)
            self._reader = ext.JournalReader(self._header, writer, number)
            if self._reader.damage or not self._read_footer(fd):
                self._points = self._reader
                self._take_in(fd)
        except BaseException:
            os.close(fd)
            raise
        self._keep(fd)

    def __del__(self) -> None:
        self._let_go()

    def _keep(self, fd: int) -> None:
        global _kept
        if self._points is None and _kept < _MAX_KEPT:
            self._fd = fd
            _kept += 1
            return
        try:
            if self._points is None:
                self._read_points(fd)
        finally:
            os.close(fd)

    def _let_go(self) -> None:
        global _kept
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            _kept -= 1

    @property
    def is_damaged(self) -> bool:
        return bool((self._points or self._reader).damage)

    @property
    def damage(self) -> list[Damage]:
        reader = self._points or self._reader
        return list(reader.damage)

    @property
    def torn(self) -> int:
        return self._reader.torn

    @property
    def end(self) -> int:
        """Up to where the file is taken in."""
        return self._reader.offset if self._points is self._reader else self.size

    @property
    def rotated(self) -> bool:
        """Whether its writer went on in the next segment."""
        return self._by_footer or self._reader.ended

    def may_have_lost(self, run_hash: str) -> bool:
        """Whether a damaged stretch looks as if it had been the run's OPEN: it holds the hash, or is as long and differs in one byte."""
        name = run_hash.encode()
        for lost in self._lost_bytes():
            payload = lost[_OPEN_HASH:]
            if len(payload) == len(name) + 8:  # with the order of an earlier opening
                payload = payload[:-8]
            if len(payload) == len(name) and sum(a != b for a, b in zip(payload, name, strict=True)) < 2:
                return True
            if any(bytes([flags]) + name in lost for flags in range(16)):
                return True
        return False

    def lost_runs(self) -> list[str]:
        """The hashes in OPEN records of which only the header is damaged."""
        found = []
        for lost in self._lost_bytes():
            payload = lost[ext.RECORD_HEADER_SIZE :][: int.from_bytes(lost[8:11], "little")]
            if len(payload) > 5 and lost[11] & 0x7F == ext.OPEN and lost[4:8] == crc32c(payload).to_bytes(4, "little"):
                with contextlib.suppress(ValueError):  # it was no writer of ours
                    found.append(_decode_open(payload, 0)[2])
        return found

    def _lost_bytes(self) -> list[bytes]:
        damage = self.damage
        if len(self._lost) != len(damage):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return []
            try:
                self._lost = [os.pread(fd, min(length, _PROBE_BYTES), offset) for offset, length, _ in damage]
            finally:
                os.close(fd)
        return self._lost

    def is_replaced(self) -> bool:
        """Whether a repair put another file in the place of a damaged one."""
        return bool(self.damage) and os.stat(self.path).st_ino != self._inode

    def refresh(self) -> None:
        """Takes in what was added since."""
        if self.complete:
            return
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._by_footer:
                self._probe(fd)
            else:
                self._take_in(fd)
        finally:
            os.close(fd)

    def demand_points(self) -> None:
        """Reads the points of a segment of which only the footer was read."""
        if self._points is not None:
            return
        if is_mine(self._points_lock):  # this thread was interrupted in here: it needs the descriptor when it goes on
            self._read_points(self._fd)
            return
        with self._points_lock:
            if self._points is None:
                self._read_points(self._fd)
                self._let_go()

    def _read_points(self, fd: int) -> None:
        reader = ext.JournalReader(self._header, self.writer, self.number)
        reader.feed(_read_from(fd, ext.FILE_HEADER_SIZE), True)
        listed = [offset for kind, offset, _, _ in reader.meta if kind != ext.ROTATED]
        if not reader.damage and (
            listed != self._offsets
            or any(reader.count(number, self.size) != count for number, count in enumerate(self._counts))
            or reader.sequences > len(self._counts)
        ):
            footer = next(offset for kind, offset, _, _ in reader.meta if kind == ext.ROTATED)
            reader.damage.append((footer, self.size - footer, "the footer does not list what the segment holds"))
        self._points = reader
        self._tell_damage()

    def inspect(self) -> None:
        """Decodes all that is decoded only when somebody asks for it, so that `damage` is whole. Raises FileNotFoundError."""
        self.demand_points()
        if self._inspected == self.end:
            return
        for run in list(self.runs.values()):
            self._inspect_run(run)
        self._inspected = self.end

    def _inspect_run(self, run: SegmentRun) -> None:
        for offset, _, payload, _ in run.params:
            if offset >= self._inspected:
                try:
                    _decoded_operation(offset, payload)
                except MalformedRecord as error:
                    self.note_damage(error)
        for record in run.sequences:
            if not isinstance(record.name, str):
                self._inspect_objects(record)

    def _inspect_objects(self, sequence: SequenceRecord) -> None:
        """That each point of a sequence of objects counts the objects of its own group, and that contents match their names."""
        assert self._points is not None
        points = journal_points(self._points.columns(sequence.number, self.end), self.writer)
        counts: dict[int, float] = {}
        places: dict[int, int] = {}
        for order, count, place in zip(points["order"].tolist(), points["value"].tolist(), points["place"].tolist(), strict=True):
            if order in counts:
                self._note_mismatch("two points of a sequence of objects have the same order", place)
            counts[order], places[order] = count, place
        for order, group in groupby(sequence.objects, key=lambda record: record.order):
            records = list(group)
            if counts.pop(order, None) != sum(len(record.items()) for record in records):
                self._note_mismatch("objects do not belong to a point that counts them", records[0].offset)
            for record in records:
                if record.offset >= self._inspected:
                    try:
                        check_contents(self.path, record)
                    except CorruptionError as error:
                        self._note_mismatch(error.message, record.offset)
        for order in counts:
            self._note_mismatch("a point of a sequence of objects has no objects", places[order])

    def _note_mismatch(self, message: str, offset: int) -> None:
        self.note_damage(MalformedRecord(message, offset, ext.RECORD_HEADER_SIZE))

    def note_damage(self, error: MalformedRecord) -> None:
        """A record that does not decode counts as damage of its segment, and does no harm beyond it."""
        entry = (error.offset or 0, error.length, error.message)
        damage = (self._points or self._reader).damage
        if entry not in damage:
            damage.append(entry)
        self._tell_damage()

    def _tell_damage(self) -> None:
        global _damage_found
        if len(self.damage) != self._damage_told:
            self._damage_told = len(self.damage)
            _damage_found += 1

    def points(self, record: SequenceRecord, limit: int) -> Points:
        self.demand_points()
        assert self._points is not None
        if not self._points.count(record.number, limit):
            return empty_points()
        return journal_points(self._points.columns(record.number, limit), self.writer)

    def count(self, record: SequenceRecord, limit: int) -> int:
        """How many points of the sequence lie before offset `limit`; from the footer where that is all that was read."""
        if self._points is None:
            return self._counts[record.number]
        return self._points.count(record.number, limit)

    def last_order(self, run: SegmentRun, limit: int) -> int:
        """The newest order of what the segment holds of a run before `limit`."""
        newest = 0
        records: list[tuple[Any, ...]] = [*run.opens, *run.ends, *run.params, *run.properties]
        for offset, order, *_ in records:
            if offset < limit:
                newest = max(newest, order)
        if self._points is not None:
            for record in run.sequences:
                newest = max(newest, self._points.last_order(record.number, limit))
        return newest

    def _read_footer(self, fd: int) -> bool:
        self.size = os.fstat(fd).st_size
        tail = os.pread(fd, _PROBE_BYTES, max(ext.FILE_HEADER_SIZE, self.size - _PROBE_BYTES))
        length = ext.footer_length(tail)
        if not length or length > self.size - ext.FILE_HEADER_SIZE:
            return False
        if length > len(tail):
            tail = os.pread(fd, length, self.size - length)
        footer = ext.decode_footer(tail, self._header)
        if footer is None:
            return False
        self._offsets, self._counts = footer
        try:
            self._take_listed(fd, self.size - length)
        except (IndexError, ValueError):  # a CorruptionError too
            self.runs.clear()
            self.mentioned.clear()
            self._run_of_number.clear()
            self._sequence_of_number.clear()
            return False  # read the whole, which finds out what is wrong where
        self._by_footer = True
        self._probe(fd)
        return True

    def _take_listed(self, fd: int, end: int) -> None:
        """Takes in the records that a footer lists. Raises ValueError where it lists none, or one twice: they take no more than the file
        does."""
        at = ext.FILE_HEADER_SIZE
        for offset in self._offsets:
            if not at <= offset < end:
                raise ValueError(f"a footer lists offset {offset}, where no further record can lie")
            head = os.pread(fd, _PROBE_BYTES, offset)
            if len(head) >= 12 and (whole := ext.record_length(head)) > len(head):
                head = os.pread(fd, whole, offset)
            kind, order, payload = ext.decode_record(head, self.writer, self.number)
            self._take_record(kind, offset, order, payload)
            at = offset + ext.RECORD_HEADER_SIZE + len(payload)
        if any(number >= len(self._counts) for number in self._sequence_of_number):
            raise ValueError("a footer does not count the points of each sequence")

    def _probe(self, fd: int) -> None:
        """A writer lets go of a segment when its runs are declared in the next one: until then a footer does not tell that they are no
        longer written."""
        self.held = is_held(fd)
        self.complete = not self.held and not heartbeat.beats(fd, heartbeat.MERGE_PATIENCE_S)

    def _take_in(self, fd: int) -> None:
        # Probed before reading: a writer that lets go between the two leaves more to read at the next refresh, never less.
        self.held = is_held(fd)
        start = self._reader.offset
        data = _read_from(fd, start)
        self.size = start + len(data)
        self._reader.feed(data, not self.held)
        meta = self._reader.meta
        for kind, offset, order, payload in meta[self._absorbed :]:
            try:
                self._take_record(kind, offset, order, payload)
            except (IndexError, ValueError, TypeError) as error:  # its CRC is good: who wrote it was no writer of ours
                self.note_damage(_malformed(error, offset, len(payload)))
        self._absorbed = len(meta)
        self.orphans = self.orphans or self._reader.orphans
        self._tell_damage()
        self.complete = not self.held and not heartbeat.beats(fd, heartbeat.MERGE_PATIENCE_S)

    def _take_record(self, kind: int, offset: int, order: int, payload: bytes) -> None:
        """Raises ValueError, TypeError for a record that no writer of ours wrote; nothing of it is taken in then."""
        if kind == ext.ROTATED:
            return
        number = int.from_bytes(payload[:4], "little")
        if kind == ext.OPEN:
            flags, since, run_hash = _decode_open(payload, order)
            run = self.runs.get(run_hash) or SegmentRun(offset)
            if self._run_of_number.setdefault(number, run) is not run:
                raise ValueError(f"the run number {number} is given out twice")
            if run_hash not in self.runs:
                self.runs[run_hash] = run
                self.mentioned.append(run_hash)
            run.opens.append((offset, order, number, flags, since))
        elif kind == ext.SEQUENCE:
            self._take_sequence(offset, number, payload)
        elif kind == ext.OBJECT:
            number, item_record = decode_object_record(offset, order, payload)
            sequence = self._sequence_of_number.get(number)
            if sequence is None:
                self.orphans = True
            elif isinstance(sequence.name, str):
                raise ValueError(f"objects are given to the metric {sequence.name!r:.100}")
            else:
                sequence.objects.append(item_record)
        else:
            self._take_of_run(kind, offset, order, payload, number)

    def _take_sequence(self, offset: int, number: int, payload: bytes) -> None:
        run = self._run_of_number.get(int.from_bytes(payload[4:8], "little"))
        name, context, packed = _decode_sequence(payload)
        if number in self._sequence_of_number:
            raise ValueError(f"the sequence number {number} is given out twice")
        if run is None:
            self.orphans = True
            return
        record = SequenceRecord(offset, number, int.from_bytes(payload[4:8], "little"), name, context, packed)
        self._sequence_of_number[number] = record
        run.sequences.append(record)
        run.by_key.setdefault(packed, []).append(record)

    def _take_of_run(self, kind: int, offset: int, order: int, payload: bytes, number: int) -> None:
        run = self._run_of_number.get(number)
        if kind == ext.PARAMS:
            if len(payload) < 6 or payload[4] not in (params.SET, params.MORE, params.DELETE):
                raise ValueError("an operation on params is none that there is")
            taken: list[Any] = [] if run is None else run.params
            taken.append((offset, order, payload[4:], number))
        elif kind == ext.PROPERTY:
            name, value = decode_property(payload[4:])
            if run is not None:
                run.properties.append((offset, order, (name, value), number))
                run.moves_trash = run.moves_trash or name == TRASHED
        elif kind == ext.END:
            time = int.from_bytes(payload[5:], "little", signed=True)
            if len(payload) != _END_BYTES or payload[4] not in STATUS_WORDS or not 0 <= time <= MAX_ORDER:
                raise ValueError("the end of a run has no status and time that a run can end with")
            if run is not None:
                run.ends.append((offset, order, number, STATUS_WORDS[payload[4]], time))
        else:
            raise ValueError(f"the type of record {kind} is not known")
        self.orphans = self.orphans or run is None


@dataclass(frozen=True)
class SegmentView:
    """A segment up to an offset, as one view sees it."""

    segment: Segment
    limit: int
    held: bool

    def run(self, run_hash: str) -> SegmentRun | None:
        run = self.segment.runs.get(run_hash)
        return run if run is not None and run.offset < self.limit else None

    def run_hashes(self) -> list[str]:
        runs = list(self.segment.runs.items())  # another thread may be adding to it
        return [run_hash for run_hash, run in runs if run.offset < self.limit]

    @property
    def is_damaged(self) -> bool:
        return any(offset < self.limit for offset, *_ in self.segment.damage)

    def demand_intact(self) -> None:
        """Raises CorruptionError when a part of the segment is damaged."""
        for offset, _, reason in self.segment.damage:
            if offset < self.limit:
                raise CorruptionError(f"{reason}; what is intact can be kept with repair()", self.segment.path, offset)

    def sequences(self, run: SegmentRun) -> dict[bytes, SequenceRecord]:
        """packed (name, context) → a record of it, of the sequences that have points."""
        return {record.packed: record for record in run.sequences if record.offset < self.limit and self.segment.count(record, self.limit)}

    def objects(self, run: SegmentRun, packed: bytes) -> list[ObjectRecord]:
        """The OBJECT records of a sequence, in the order written."""
        records = [found for record in run.by_key.get(packed, ()) for found in record.objects if found.offset < self.limit]
        self.demand_intact()
        return records

    def objects_at(self, run: SegmentRun, packed: bytes, order: int) -> list[ObjectRecord]:
        """Those of the point with this order."""
        found = []
        for record in run.by_key.get(packed, ()):
            at = bisect_left(record.objects, order, key=lambda each: each.order)
            while at < len(record.objects) and record.objects[at].order == order and record.objects[at].offset < self.limit:
                found.append(record.objects[at])
                at += 1
        self.demand_intact()
        return found

    def points(self, run: SegmentRun, packed: bytes) -> Points:
        parts = [self.segment.points(record, self.limit) for record in run.by_key.get(packed, ()) if record.offset < self.limit]
        self.demand_intact()  # after reading: only then is the damage of a rotated segment known
        return concatenate(parts)

    def greatest_step(self, run: SegmentRun, packed: bytes) -> int | None:
        """Of the points of a sequence; None if there is none."""
        self.segment.demand_points()
        self.demand_intact()
        assert self.segment._points is not None
        found = [self.segment._points.greatest_step(record.number, self.limit) for record in run.by_key.get(packed, ())]
        return max((step for step in found if step is not None), default=None)

    def writer_entry(self, run: SegmentRun) -> WriterEntry:
        """What this segment says of its writer and the run."""
        opens = [entry for entry in run.opens if entry[0] < self.limit]
        ends = [entry for entry in run.ends if entry[0] < self.limit]
        open_numbers: set[int] = set()
        both: list[tuple[Any, ...]] = [*opens, *ends]
        for _, _, number, what, _ in sorted(both):
            if isinstance(what, str):
                open_numbers.discard(number)
            elif not what & _EDITED:
                open_numbers.add(number)
        last = self.segment.last_order(run, self.limit)
        ended = bool(ends) and not open_numbers
        return WriterEntry(
            opened=min(order for _, order, *_ in opens),
            resumed=max((order for _, order, _, flags, _ in opens if not flags & (_CONTINUED | _EDITED)), default=0),
            last=last,
            last_time=last,
            status=ends[-1][3] if ended else None,
            end_time=ends[-1][4] if ended else None,
            inherited=all(flags & (_INHERITED | _EDITED) for *_, flags, _ in opens),
            ended=ends[-1][1] if ended else 0,
            live=self.held and bool(open_numbers),
        )

    def param_operations(self, run: SegmentRun, path: keys.Path = ()) -> list[Operation]:
        """Those that bear on what is at and below a path, in no order. Raises CorruptionError for one that does not decode."""
        try:
            return run.operations.touching(run.params, self.segment.writer, self.limit, path)
        except MalformedRecord as error:
            self.segment.note_damage(error)
            raise CorruptionError(error.message, self.segment.path, error.offset) from None

    def property_writes(self, run: SegmentRun) -> list[tuple[params.Stamp, int, str, Any]]:
        """(stamp, place, name, value) in the order written."""
        return [((order, self.segment.writer), offset, *held) for offset, order, held, _ in run.properties if offset < self.limit]


def _decode_open(payload: bytes, order: int) -> tuple[int, int, str]:
    """(flags, since, run hash) of an OPEN record. Raises ValueError."""
    flags = payload[4]
    if flags & ~(_CONTINUED | _INHERITED | _EDITED | _SINCE):
        raise ValueError(f"a run is opened with the flags {flags}, some of which there are not")
    since, name = (int.from_bytes(payload[-8:], "little"), payload[5:-8]) if flags & _SINCE else (order, payload[5:])
    if since > MAX_ORDER:
        raise ValueError(f"a run was opened at {since}, which no clock has shown")
    run_hash = name.decode()
    check_stored_hash(run_hash)
    return flags, since, run_hash


def _decode_sequence(payload: bytes) -> tuple[keys.Name, dict[str, Any], bytes]:
    """(name, context, both packed) of a SEQUENCE record. Raises ValueError, TypeError."""
    packed = payload[9:]
    name, context = unpack(packed)
    plain = name if isinstance(name, str) else name[1] if isinstance(name, tuple) and len(name) == 2 and isinstance(name[0], str) else None
    if not isinstance(plain, str) or not plain or payload[8] != (_METRIC if name is plain else _OBJECTS):
        raise ValueError(f"a sequence is called {name!r:.100}, which is not the name of one")
    if len(packed) > MAX_NAME_BYTES or not isinstance(context, dict) or pack((name, canonical_context(context))) != packed:
        raise ValueError(f"the context of the sequence {plain!r:.100} is none that a sequence can have")
    return name, context, packed


def _read_from(fd: int, start: int) -> bytes:
    size = os.fstat(fd).st_size - start
    pieces = []
    while size > 0:
        piece = os.pread(fd, size, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
