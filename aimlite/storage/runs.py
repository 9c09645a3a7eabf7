"""Whether a run is running, how it ended, and when: derived from what each of its writers left, never stored.

A run is running while a writer that has it open holds its journal. A writer that vanished without END makes it `interrupted`, until another
writer opens the run later. A child that inherited the run through a fork and never opened it itself does not count as vanished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from aimlite.errors import CorruptionError
from aimlite.storage.params import packb, unpackb

MAX_ORDER = 1 << 53  # orders and times in µs go up to the year 2255: what lies beyond was written by nobody's clock

STATUS_CODES = {"finished": 1, "failed": 2, "interrupted": 3}
STATUS_WORDS = {code: word for word, code in STATUS_CODES.items()}


@dataclass(frozen=True)
class WriterEntry:
    """What one writer did to one run. Orders and times in µs; status None: it did not end the run. inherited: it never opened the run
    itself, but got it through a fork or only edited its properties. resumed: the order of its latest opening, ended: of its END; or 0."""

    opened: int
    last: int
    last_time: int
    status: str | None = None
    end_time: int | None = None
    inherited: bool = False
    resumed: int = 0
    ended: int = 0
    live: bool = False

    def encode(self) -> bytes:
        return packb([self.opened, self.last, self.last_time, self.status, self.end_time, self.inherited, self.resumed, self.ended])

    def followed_by(self, other: WriterEntry) -> WriterEntry:
        """This writer with what another segment of it says, or the same segment again, whichever comes first. What only edited the run, or
        inherited it, changes nothing of how it was opened and ended."""
        if self.inherited != other.inherited:
            newest = other if self.inherited else self
            return replace(newest, opened=min(self.opened, other.opened), live=self.live or other.live)
        newest = other if other.last >= self.last else self
        return replace(
            newest,
            opened=min(self.opened, other.opened),
            last=max(self.last, other.last),
            last_time=max(self.last_time, other.last_time),
            resumed=max(self.resumed, other.resumed),
            live=self.live or other.live,
        )


def decode_writer_entry(data: bytes) -> WriterEntry:
    """Raises CorruptionError."""
    fields = unpackb(data)
    if type(fields) is list and len(fields) == 8:
        opened, last, last_time, status, end_time, inherited, resumed, ended = fields
        are_times = all(_is_time(time) for time in (opened, last, last_time, resumed, ended, 0 if end_time is None else end_time))
        if are_times and (status is None or status in STATUS_CODES) and type(inherited) is bool and (status is None) == (end_time is None):
            return WriterEntry(*fields)
    raise CorruptionError(f"{fields!r:.200} is not what a writer did to a run")


def encode_run(created: int, order: int, is_trashed: bool) -> bytes:
    """The entry of a run in the tree."""
    packed: bytes = msgpack.packb({"created": created, "order": order, **({"trashed": True} if is_trashed else {})})
    return packed


def decode_run(data: bytes) -> dict[str, int]:
    """{'created', 'order', and 'trashed' while it is in the trash} of the entry of a run. Raises CorruptionError."""
    held = unpackb(data)
    if type(held) is not dict or not _is_time(held.get("created")) or not _is_time(held.get("order")):
        raise CorruptionError(f"{held!r:.200} is not the entry of a run")
    return held


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ORDER


@dataclass(frozen=True)
class RunState:
    """created and end_time in µs since 1970; end_time None while running."""

    created: int
    order: int
    status: str
    end_time: int | None


def derive_state(created: int, order: int, entries: Iterable[WriterEntry]) -> RunState:
    """The state of a run from the entries of all its writers."""
    entries = list(entries)
    if any(entry.live for entry in entries):
        return RunState(created, order, "running", None)
    own = [entry for entry in entries if not entry.inherited] or entries
    newest_opening = max((entry.resumed or entry.opened for entry in own), default=0)
    vanished = [entry for entry in own if entry.status is None and entry.last >= newest_opening]
    ended = [entry for entry in own if entry.status is not None]
    if vanished or not ended:
        times = [entry.last_time for entry in vanished or own]
        return RunState(created, order, "interrupted", max(times, default=created))
    last = max(ended, key=lambda entry: entry.ended)
    return RunState(created, order, last.status or "finished", last.end_time)


def index_properties(properties: dict[str, Any], state: RunState) -> list[tuple[str, Any]]:
    """The properties of a run that the index holds, one entry for each of its tags; of one in the trash since when it lies there, alone."""
    if properties.get(TRASHED) is not None:
        return [(TRASHED, properties[TRASHED])]
    return [
        ("created", state.created),
        ("status", state.status),
        ("experiment", properties.get("experiment", "default")),
        ("archived", properties.get("archived", False)),
        ("name", properties.get("name")),
        *(("tag", tag) for tag in tags_in(properties)),
    ]


TRASHED = "trashed"  # a property: when the run was put into the trash (µs), None once it was taken out
TAG = "tag:"  # a property of its own for each tag, so that two processes may each add one: when it was added (µs), None once removed


def tags_in(properties: dict[str, Any]) -> list[str]:
    """The tags among the properties of a run, in the order in which they were added."""
    held = sorted((added, name) for name, added in properties.items() if name.startswith(TAG) and added is not None)
    return [name[len(TAG) :] for _, name in held]


CATALOG = ".catalog"  # holds what a repo knows besides its runs, as properties; only edited, never opened


_HASH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


def check_hash(run_hash: object) -> None:
    """Raises TypeError, ValueError for what cannot be the hash of a run."""
    if not isinstance(run_hash, str):
        raise TypeError(f"a run hash is a string, not {type(run_hash).__name__} {run_hash!r:.100}")
    if not _HASH.fullmatch(run_hash):
        raise ValueError(f"a run hash has 1 to 128 characters of A-Z a-z 0-9 _ . - and does not begin with a dot: {run_hash!r:.200}")


def check_stored_hash(run_hash: str) -> None:
    """Raises CorruptionError for what neither a run nor the catalog is called by: hashes read from disk become the names of files."""
    if not _HASH.fullmatch(run_hash) and run_hash != CATALOG:
        raise CorruptionError(f"{run_hash!r:.200} is not the hash of a run")


def is_hidden(run_hash: str) -> bool:
    """Whether it is none of the user's runs: their hashes do not begin with a dot."""
    return run_hash.startswith(".")


NOTE = "note:"  # and id, `:`, version: a property of its own for each version of a note: its text, None where it was deleted


def note_versions(properties: dict[str, Any], before: str = NOTE, after: str = "") -> dict[str, list[tuple[str, str | None]]]:
    """id → [(version, text)] of the notes among some properties, both oldest first."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    for name in sorted(name for name in properties if name.startswith(before) and name.endswith(after)):
        note_id, _, version = name[len(before) : len(name) - len(after)].partition(":")
        if ":" not in version:  # else it is of something whose name ends with this one's
            found.setdefault(note_id, []).append((version, properties[name]))
    return found


def notes_in(properties: dict[str, Any]) -> list[str]:
    """The texts of a run's notes as they are now, oldest first."""
    latest = [versions[-1][1] for versions in note_versions(properties).values()]
    return [text for text in latest if text is not None]


ERROR = "error"  # time of the END it belongs to (µs), type, message, traceback


def error_in(properties: dict[str, Any], state: RunState) -> dict[str, str] | None:
    """The exception that ended a run; None when it ended otherwise, or has been resumed since."""
    held = properties.get(ERROR)
    if held is None or held[0] != state.end_time or state.status != "failed":
        return None
    return {"type": held[1], "message": held[2], "traceback": held[3]}


PROGRESS = "progress"  # when it was reported (µs), within how many seconds the next report is to come; 0 or less: whenever


def is_stalled(properties: dict[str, Any], state: RunState, now_us: int) -> bool:
    """Whether a running run has kept silent for longer than its last report promised."""
    held = properties.get(PROGRESS)
    return state.status == "running" and held is not None and held[1] > 0 and now_us > held[0] + held[1] * 1e6


# -- properties as they are stored ----


def _is_text(value: object) -> bool:
    return value is None or type(value) is str


def _is_moment(value: object) -> bool:
    return value is None or _is_time(value)


def _is_error(value: object) -> bool:
    return type(value) is list and len(value) == 4 and _is_time(value[0]) and all(type(part) is str for part in value[1:])


def _is_progress(value: object) -> bool:
    if type(value) is not list or len(value) != 2 or not _is_time(value[0]):
        return False
    return type(value[1]) in (int, float) and abs(value[1]) <= MAX_ORDER


_STORED_AS: dict[str, Any] = {
    "experiment": lambda value: type(value) is str,
    "name": _is_text,
    "description": _is_text,
    "archived": lambda value: type(value) is bool,
    "artifacts_uri": _is_text,
    TRASHED: _is_moment,
    ERROR: _is_error,
    PROGRESS: _is_progress,
}
_NOTE_NAME = re.compile(r"note:[0-9a-f]{18}:[0-9a-f]{18}|experiment\.note:[0-9a-f]{18}:[0-9a-f]{18}:.+", re.DOTALL)
_OF_CATALOG = ("tag.color:", "tag.comment:", "experiment.description:", "experiment." + NOTE)


def check_property(name: object, value: object) -> None:
    """Raises CorruptionError for a property that no call sets: one without a name, or whose value is not of its type. Of a name that this
    version does not know any value is taken."""
    if type(name) is not str or not name:
        raise CorruptionError(f"a property is called {name!r:.100}, which is not a name")
    if name.startswith(TAG):
        is_right = len(name) > len(TAG) and _is_moment(value)
    elif name.startswith((NOTE, "experiment." + NOTE)):
        is_right = _NOTE_NAME.fullmatch(name) is not None and _is_text(value)
    elif name.startswith(_OF_CATALOG):
        is_right = _is_text(value)
    else:
        is_right = name not in _STORED_AS or _STORED_AS[name](value)
    if not is_right:
        raise CorruptionError(f"the property {name!r:.100} has the value {value!r:.100}, which is not of its type")


def decode_property(payload: bytes) -> tuple[str, Any]:
    """(name, value) of a PROPERTY record without its run. Raises CorruptionError."""
    pair = unpackb(payload)
    if type(pair) is not list or len(pair) != 2:
        raise CorruptionError("a property is not a pair of name and value")
    check_property(*pair)
    return pair[0], pair[1]
