"""What a run has besides params and sequences: its name and other properties, how it stands, and when it began and ended."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from aimlite.sdk.notes import Notes
from aimlite.sdk.params import plain
from aimlite.storage.runs import TAG, error_in, is_stalled, tags_in

if TYPE_CHECKING:
    from aimlite.storage.runs import RunState

MAX_TAG = 50


class RunProperties(Notes):
    """Properties may be set from any process, also of a run that has ended; what is set last stays."""

    hash: str

    @abstractmethod
    def _properties(self) -> dict[str, Any]: ...

    @abstractmethod
    def _set_properties(self, properties: dict[str, Any]) -> None: ...

    @abstractmethod
    def _state(self) -> RunState: ...

    @property
    def name(self) -> str:
        """A name for people; 'Run: <hash>' until set, and again when set to None."""
        name = self._properties().get("name")
        return f"Run: {self.hash}" if name is None else str(name)

    @name.setter
    def name(self, name: str | None) -> None:
        self._set_properties({"name": None if name is None else text("name", name)})

    @property
    def description(self) -> str | None:
        return cast("str | None", self._properties().get("description"))

    @description.setter
    def description(self, description: str | None) -> None:
        self._set_properties({"description": None if description is None else text("description", description)})

    @property
    def experiment(self) -> str:
        return str(self._properties().get("experiment", "default"))

    @experiment.setter
    def experiment(self, experiment: str | None) -> None:
        self._set_properties({"experiment": "default" if experiment is None else text("experiment", experiment)})

    @property
    def path(self) -> str:
        """The experiment: paths like 'cv/resnet50' make a hierarchy of experiments."""
        return self.experiment

    @property
    def alias(self) -> str | None:
        """The name that was set, or None."""
        name = self._properties().get("name")
        return None if name is None else str(name)

    @property
    def archived(self) -> bool:
        return bool(self._properties().get("archived", False))

    @archived.setter
    def archived(self, archived: bool) -> None:
        if not isinstance(archived, bool):
            raise TypeError(f"archived is True or False, not {archived!r:.100}")
        self._set_properties({"archived": archived})

    @property
    def tags(self) -> list[str]:
        """In the order in which they were added."""
        return tags_in(self._properties())

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        if isinstance(tags, str):
            raise TypeError(f"tags are several strings, not the one {tags!r:.100}; add_tag() adds one")
        wanted, held = [checked_tag(tag) for tag in tags], self.tags
        changes: dict[str, int | None] = {TAG + tag: None for tag in held if tag not in wanted}
        now = time.time_ns() // 1000
        changes.update({TAG + tag: now + place for place, tag in enumerate(wanted) if tag not in held})
        self._set_properties(changes)

    def add_tag(self, value: str) -> None:
        """Adds a tag of 1 to 50 characters; nothing happens when the run has it."""
        if checked_tag(value) not in self.tags:
            self._set_properties({TAG + value: time.time_ns() // 1000})

    def remove_tag(self, tag_name: str) -> bool:
        """Takes a tag away; returns whether the run had it."""
        had = checked_tag(tag_name) in self.tags
        if had:
            self._set_properties({TAG + tag_name: None})
        return had

    @property
    def status(self) -> str:
        """'running', 'finished', 'failed' or 'interrupted' (its process vanished)."""
        return self._state().status

    @property
    def active(self) -> bool:
        """Whether a process is writing it."""
        return self.status == "running"

    @property
    def stalled(self) -> bool:
        """Whether it runs, and has kept silent for longer than its last `report_progress` promised."""
        return is_stalled(self._properties(), self._state(), time.time_ns() // 1000)

    @property
    def error(self) -> dict[str, str] | None:
        """{'type', 'message', 'traceback'} of the exception that ended it as 'failed'; None where none is known."""
        return error_in(self._properties(), self._state())

    @property
    def creation_time(self) -> float:
        """Seconds since 1970."""
        return self._state().created / 1e6

    @property
    def created_at(self) -> datetime:
        """A naive datetime in UTC."""
        return _utc(self._state().created)

    @property
    def updated_at(self) -> datetime:
        """When something was last written to it: a naive datetime in UTC."""
        return _utc(self._state().order)

    @property
    def end_time(self) -> float | None:
        """Seconds since 1970; None while it runs."""
        end = self._state().end_time
        return None if end is None else end / 1e6

    @property
    def finalized_at(self) -> datetime | None:
        """`end_time` as a naive datetime in UTC."""
        end = self._state().end_time
        return None if end is None else _utc(end)

    @property
    def duration(self) -> float:
        """Seconds from creation to end, or to now."""
        state = self._state()
        return (time.time() if state.end_time is None else state.end_time / 1e6) - state.created / 1e6


def text(what: str, value: object) -> str:
    """A string that can be stored. Raises TypeError, ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a string, not {type(value).__name__} {value!r:.100}")
    return str(plain(str.__str__(value), (what,)))


def checked_tag(tag: object) -> str:
    name = text("a tag", tag)
    if not 1 <= len(name) <= MAX_TAG:
        raise ValueError(f"a tag has 1 to {MAX_TAG} characters, not {len(name)}: {name!r:.80}")
    return name


def _utc(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, timezone.utc).replace(tzinfo=None)
