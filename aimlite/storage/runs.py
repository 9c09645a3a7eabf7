"""Whether a run is running, how it ended, and when: derived from what each of its writers left, never stored.

A run is running while a writer that has it open holds its journal. A writer that vanished without END makes it `interrupted`, until another
writer opens the run later. A child that inherited the run through a fork and never opened it itself does not count as vanished.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from aimlite.storage.params import packb, unpackb

STATUS_CODES = {"finished": 1, "failed": 2, "interrupted": 3}
STATUS_WORDS = {code: word for word, code in STATUS_CODES.items()}


@dataclass(frozen=True)
class WriterEntry:
    """What one writer did to one run. Orders and times in µs; status None: it did not end the run. resumed: its latest opening, or 0."""

    opened: int
    last: int
    last_time: int
    status: str | None = None
    end_time: int | None = None
    inherited: bool = False
    resumed: int = 0
    live: bool = False

    def encode(self) -> bytes:
        return packb([self.opened, self.last, self.last_time, self.status, self.end_time, self.inherited, self.resumed])

    def followed_by(self, later: WriterEntry) -> WriterEntry:
        """This writer with what another segment of it says. Mostly that is the later one; a damaged segment is merged when it is
        repaired."""
        newest = later if later.last >= self.last else self
        return replace(
            newest,
            opened=min(self.opened, later.opened),
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
    last = max(ended, key=lambda entry: entry.last)
    return RunState(created, order, last.status or "finished", last.end_time)


def index_properties(properties: dict[str, Any], state: RunState) -> dict[str, Any]:
    """The properties of a run that the index holds."""
    return {
        "created": state.created,
        "status": state.status,
        "experiment": properties.get("experiment", "default"),
        "archived": properties.get("archived", False),
        "name": properties.get("name"),
    }
