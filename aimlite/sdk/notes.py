"""Notes in Markdown, on runs and experiments, with their history.

A note is a property for each of its versions: `note:<id>:<version>`, the text or None where it was deleted. Ids and versions begin with the
time in hex, so they sort by it. Two processes that edit one note both leave their version; the later shows.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from aimlite.sdk.params import plain
from aimlite.storage.runs import NOTE, note_versions

MAX_NOTE = 100_000


@dataclass(frozen=True)
class Note:
    """A note as it is now. Times are naive datetimes in UTC."""

    id: str
    text: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class NoteChange:
    """One change of a note. action: 'added', 'edited' or 'deleted'; text: what it then said, None when it was deleted."""

    time: datetime
    action: str
    id: str
    text: str | None


class Notes:
    """What has notes. They may be changed from any process, also on runs that have ended."""

    @abstractmethod
    def _properties(self) -> dict[str, Any]: ...

    @abstractmethod
    def _set_properties(self, properties: dict[str, Any]) -> None: ...

    def _note_kind(self) -> tuple[str, str]:
        """What stands before and after id and version in the names of its notes."""
        return NOTE, ""

    @property
    def notes(self) -> list[Note]:
        """Its notes, oldest first."""
        found = []
        for note_id, versions in self._versions().items():
            (first, _), (last, text) = versions[0], versions[-1]
            if text is not None:
                found.append(Note(note_id, text, _moment(first), _moment(last)))
        return found

    def add_note(self, text: str) -> Note:
        """Adds a note of 1 to 100,000 characters. Raises TypeError, ValueError, ReadOnlyError, OSError."""
        return self._write_note(_stamp(), _note_text(text))

    def edit_note(self, note_id: str, text: str) -> Note:
        """Gives a note another text; the old one stays in the history. Raises KeyError when there is no such note, and as `add_note`."""
        self._demand_note(note_id)
        return self._write_note(note_id, _note_text(text))

    def delete_note(self, note_id: str) -> None:
        """Takes a note away; it stays in the history. Raises as `edit_note`."""
        self._demand_note(note_id)
        self._put(note_id, None)

    def note_history(self, note_id: str | None = None) -> list[NoteChange]:
        """Every change of its notes, or of one of them, oldest first; deleted notes too."""
        found = []
        for held, versions in self._versions().items():
            for place, (version, text) in enumerate(versions if note_id in (None, held) else ()):
                action = "deleted" if text is None else "edited" if place else "added"
                found.append((version, NoteChange(_moment(version), action, held, text)))
        return [change for _, change in sorted(found, key=lambda each: each[0])]

    def _versions(self) -> dict[str, list[tuple[str, str | None]]]:
        return note_versions(self._properties(), *self._note_kind())

    def _write_note(self, note_id: str, text: str) -> Note:
        self._put(note_id, text)
        return next(note for note in self.notes if note.id == note_id)

    def _put(self, note_id: str, text: str | None) -> None:
        before, after = self._note_kind()
        self._set_properties({f"{before}{note_id}:{_stamp()}{after}": text})

    def _demand_note(self, note_id: str) -> None:
        if not any(note.id == note_id for note in self.notes):
            raise KeyError(f"there is no note {note_id!r}; `notes` lists those that there are")


def _stamp() -> str:
    return f"{time.time_ns() // 1000:014x}{os.urandom(2).hex()}"


def _moment(stamp: str) -> datetime:
    return datetime.fromtimestamp(int(stamp[:14], 16) / 1e6, timezone.utc).replace(tzinfo=None)


def _note_text(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a note is a string, not {type(text).__name__} {text!r:.100}")
    if not 1 <= len(text) <= MAX_NOTE:
        raise ValueError(f"a note has 1 to {MAX_NOTE:,} characters, not {len(text):,}")
    return str(plain(str.__str__(text), ("a note",)))
