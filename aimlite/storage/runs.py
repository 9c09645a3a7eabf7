"""Whether a run is running, how it ended, and when: derived from what each of its writers left, never stored.

A run is running while a writer that has it open holds its journal. A writer that vanished without END makes it `interrupted`, until another
writer opens the run later. A child that inherited the run through a fork and never opened it itself does not count as vanished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from aimlite.storage.params import packb, unpackb

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

    def followed_by(self, later: WriterEntry) -> WriterEntry:
        """This writer with what another segment of it says. Mostly that is the later one; a damaged segment is merged when it is
        repaired."""
        newest = later if later.last >= self.last else self
        if self.inherited != later.inherited:
            newest = replace(later if self.inherited else self, live=newest.live)  # an edit after the end does not undo the end
        return replace(
            newest,
            opened=min(self.opened, later.opened),
            last=max(self.last, later.last),
            last_time=max(self.last_time, later.last_time),
            resumed=max(self.resumed, later.resumed),
        )


def decode_writer_entry(data: bytes) -> WriterEntry:
    return WriterEntry(*unpackb(data))


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
