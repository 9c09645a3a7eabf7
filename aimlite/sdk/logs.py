"""The log of a run, one for what is printed, told by `log_text` and by logging handlers; and its messages.

Lines lie in batches, a list of items a step, in the sequence ('logs', {}): steps count on by themselves, so that what several processes
write is all kept. A line that changes after it was written (a progress bar) has an id; its last state lies in a sequence beside, ('logs',
{'edits': writer}) at the step of that id, where the next replaces it. Messages lie one a step in ('__log_records', {}).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from aimlite.errors import CorruptionError
from aimlite.storage.loading import load
from aimlite.storage.objects import object_records

if TYPE_CHECKING:
    from pathlib import Path

    from aimlite._ext.recorder import Recorder
    from aimlite.capture.screen import Line
    from aimlite.sdk.run import Run
    from aimlite.storage.objects import Item
    from aimlite.storage.view import SequenceId, View

LOGS, RECORDS = "logs", "log_records"
LOGS_NAME, RECORDS_NAME = "logs", "__log_records"
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_BATCH = 1000  # lines of one step at most
_CHANGING = 2048  # so many lines that may change still are remembered
_OVERLAP = 256  # steps that another process may still add to, behind the last
_POLL_S = 0.3

_Place: TypeAlias = tuple[int, int, int]  # order and writer of a batch, place in it: what tells a line from all others


def level_number(level: int | str) -> int:
    """Of a level or its name, in any case. Raises TypeError, ValueError."""
    if isinstance(level, bool) or not isinstance(level, int | str):
        raise TypeError(f"a level is an integer or a name, not {type(level).__name__} {level!r:.100}")
    if isinstance(level, int):
        return level
    name = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(level.strip().upper(), level.strip().upper())
    if name not in LEVELS:
        raise ValueError(f"a level is a number or one of {', '.join(LEVELS)}, not {level!r:.100}")
    return LEVELS[name]


def level_name(level: int) -> str:
    return next((name for name, number in LEVELS.items() if number == level), str(level))


class LogWriter:
    """Writes lines of a log into a run. May be called by any thread."""

    def __init__(self, recorder: Recorder, blobs: Path) -> None:
        self._recorder = recorder
        self._blobs = blobs
        self._key = os.urandom(6).hex()
        self._written: dict[int, tuple[int, str | None]] = {}  # by id of the capture: its number here, its text
        self._count = 0

    def add(self, lines: Iterable[str], source: str, level: int | None = None) -> None:
        """Lines that will not change. Raises as `Run.track`."""
        header = {"source": source} if level is None else {"source": source, "level": level}
        self._append([{"text": line, **header} for line in lines])

    def take(self, lines: list[Line]) -> None:
        """Lines as a capture tells them."""
        new = []
        for line in lines:
            known = self._written.get(line.id)
            if known is not None:
                self._edit(line.id, known, line.text)
            elif line.text is not None:
                new.append({"text": line.text, "source": line.source, "id": f"{self._key}.{self._count}"})
                self._written[line.id] = self._count, line.text
                self._count += 1
        self._append(new)
        while len(self._written) > _CHANGING:
            del self._written[next(iter(self._written))]

    def _append(self, headers: list[dict[str, Any]]) -> None:
        for begin in range(0, len(headers), _BATCH):
            items = [(header, b"") for header in headers[begin : begin + _BATCH]]
            self._recorder.track_objects(LOGS, LOGS_NAME, object_records(items, self._blobs, {}), len(items), True)

    def _edit(self, line_id: int, known: tuple[int, str | None], text: str | None) -> None:
        number, before = known
        if text == before:
            return
        header: dict[str, Any] = {"gone": True} if text is None else {"text": text}
        records = object_records([(header, b"")], self._blobs, {})
        self._recorder.track_objects(LOGS, LOGS_NAME, records, 1, False, number, None, {"edits": self._key})
        self._written[line_id] = number, text


@dataclass(frozen=True)
class LogLine:
    """A line of a log: str(line) is `HH:MM:SS | text`, in local time."""

    number: int
    time: float
    source: str
    level: int | None
    text: str

    def __str__(self) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(self.time))} | {self.text}"

    def json(self) -> dict[str, Any]:
        """What is known of it, of types that JSON has."""
        return {"number": self.number, "time": self.time, "source": self.source, "level": self.level, "text": self.text}


class TerminalLogs:
    """The log of a run, in the order of time. Each read sees what is recorded at that moment, by any process."""

    name = LOGS_NAME

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    @property
    def data(self) -> list[LogLine]:
        """All lines."""
        lines: list[LogLine] = self._run.repo._run_reader.read(lambda view: _Reading(view, self._run.hash).lines())
        return lines

    @property
    def text(self) -> str:
        """All lines as `HH:MM:SS | text`, each with its end."""
        return "".join(f"{line}\n" for line in self.data)

    def save(self, path: str | os.PathLike[str] = "logs.txt") -> None:
        """Writes `text` into a file, in UTF-8. Raises OSError."""
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(self.text)

    def follow(self, poll_s: float = _POLL_S) -> Iterator[LogLine]:
        """All lines, then those to come, as they come, until the run has ended. The last line given comes again, with the same number,
        when it has changed: a progress bar. poll_s: how often to look, in seconds."""
        seen: dict[_Place, LogLine] = {}
        begin: int | None = None
        last: _Place | None = None
        ended = False
        while not ended:
            ended = not self._run.active  # before reading: what comes until then is read
            lines, latest = self._since(begin)
            for place, line in lines:
                if place not in seen:
                    line = LogLine(seen[last].number + 1 if last else 0, line.time, line.source, line.level, line.text)
                    seen[place], last = line, place
                    yield line
                elif place == last and line.text != seen[place].text:
                    seen[place] = LogLine(seen[place].number, line.time, line.source, line.level, line.text)
                    yield seen[place]
            begin = latest - _OVERLAP
            if not ended:
                time.sleep(poll_s)

    def _since(self, begin: int | None) -> tuple[list[tuple[_Place, LogLine]], int]:
        found: tuple[list[tuple[_Place, LogLine]], int]
        found = self._run.repo._run_reader.read(lambda view: _Reading(view, self._run.hash).since(begin))
        return found

    def __iter__(self) -> Iterator[LogLine]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, at: int) -> LogLine: ...
    @overload
    def __getitem__(self, at: slice) -> list[LogLine]: ...
    def __getitem__(self, at: int | slice) -> LogLine | list[LogLine]:
        return self.data[at]

    def __repr__(self) -> str:
        return f"<TerminalLogs of run {self._run.hash}>"


class _Reading:
    """What a view shows of the log of a run."""

    def __init__(self, view: View, run_hash: str) -> None:
        self._view = view
        self._sequences = view.sequences(run_hash, LOGS)
        self._edits = {
            f"{sequence.context['edits']}.{step}": items[0].header
            for sequence in self._sequences
            if "edits" in sequence.context
            for (step, _, _, _), items in self._entries(sequence, None)
            if items
        }

    def lines(self) -> list[LogLine]:
        found = self.since(None)[0]
        return [LogLine(number, line.time, line.source, line.level, line.text) for number, (_, line) in enumerate(found)]

    def since(self, begin: int | None) -> tuple[list[tuple[_Place, LogLine]], int]:
        """([(place, line)] at steps from `begin` on, by time; the last step)."""
        found: list[tuple[_Place, LogLine]] = []
        latest = 0
        for sequence in self._sequences:
            if sequence.context or sequence.name != LOGS_NAME:
                continue
            for (step, time_us, order, writer), items in self._entries(sequence, begin):
                latest = max(latest, step)
                lines = [(at, self._line(time_us / 1e6, item)) for at, item in enumerate(items)]
                found += [((order, writer, at), line) for at, line in lines if line is not None]
        found.sort(key=lambda entry: entry[1].time)
        return found, latest

    def _entries(self, sequence: SequenceId, begin: int | None) -> Iterator[tuple[tuple[int, int, int, int], list[Item]]]:
        points = self._view.points(sequence, begin)
        columns = (points[name].tolist() for name in ("step", "time", "order", "writer"))
        return zip(zip(*columns, strict=True), self._view.objects(sequence, points), strict=True)

    def _line(self, time_s: float, item: Item) -> LogLine | None:
        header = item.header
        identity = header.get("id")
        edit = self._edits.get(identity, {}) if isinstance(identity, str) else {}
        if edit.get("gone"):
            return None
        source, level, text = header.get("source", ""), header.get("level"), edit.get("text", header.get("text"))
        if not (isinstance(source, str) and isinstance(level, int | None) and isinstance(text, str) and isinstance(identity, str | None)):
            raise CorruptionError(f"a line of the log has the header {header!r:.200}, which no line has")
        return LogLine(0, time_s, source, level, text)


@dataclass(frozen=True)
class LogRecord:
    """A message: what `Run.log_info` and its siblings were given, when, and from where."""

    message: str
    level: int
    timestamp: float
    params: dict[str, Any]
    file: str
    line: int

    @property
    def level_name(self) -> str:
        return level_name(self.level)

    def json(self) -> dict[str, Any]:
        """What is known of it, of types that JSON has."""
        load("aimlite.sdk.params")
        from aimlite.sdk.params import as_json

        known = {"message": self.message, "log_level": self.level_name, "timestamp": self.timestamp, "file": self.file, "line": self.line}
        return {**known, "params": as_json(self.params)}

    def __str__(self) -> str:
        params = "".join(f" {name}={value!r}" for name, value in self.params.items())
        return f"{time.strftime('%H:%M:%S', time.localtime(self.timestamp))} | {self.level_name} | {self.message}{params}"


class LogRecords:
    """The messages of a run, in the order of time. Each read sees what is recorded at that moment, by any process."""

    name = RECORDS_NAME

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    @property
    def data(self) -> list[LogRecord]:
        """All messages."""
        records: list[LogRecord] = self._run.repo._run_reader.read(self._read)
        return records

    def _read(self, view: View) -> list[LogRecord]:
        found = []
        for sequence in view.sequences(self._run.hash, RECORDS):
            for items in view.objects(sequence, view.points(sequence)):
                found += [_record(item.header) for item in items]
        return sorted(found, key=lambda record: record.timestamp)

    def __iter__(self) -> Iterator[LogRecord]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, at: int) -> LogRecord: ...
    @overload
    def __getitem__(self, at: slice) -> list[LogRecord]: ...
    def __getitem__(self, at: int | slice) -> LogRecord | list[LogRecord]:
        return self.data[at]

    def __repr__(self) -> str:
        return f"<LogRecords of run {self._run.hash}>"


_OF_RECORD = {"message": str, "level": int, "timestamp": float, "params": dict, "file": str, "line": int}
_LATEST_S = 1 << 33  # the year 2242


def _record(header: dict[str, Any]) -> LogRecord:
    """Raises CorruptionError for a header that no message has."""
    if header.keys() != _OF_RECORD.keys() or not all(isinstance(header[name], kind) for name, kind in _OF_RECORD.items()):
        raise CorruptionError(f"a message has {header!r:.200}, which is not what messages have")
    if not 0 <= header["timestamp"] <= _LATEST_S:
        raise CorruptionError(f"a message has the time {header['timestamp']!r}, which no clock has shown")
    return LogRecord(**header)


def write_record(recorder: Recorder, blobs: Path, record: LogRecord) -> None:
    """Raises as `Run.track`."""
    records = object_records([(dict(vars(record)), b"")], blobs, {})
    recorder.track_objects(RECORDS, RECORDS_NAME, records, 1, False)
