"""Tracking of what is no number: objects, lists of them, and dicts that hold some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aimlite.objects.tracked import MAX_LIST, TrackedObject
from aimlite.storage.blobs import keep_blobs
from aimlite.storage.objects import object_records

if TYPE_CHECKING:
    from pathlib import Path

    from aimlite._ext.recorder import Recorder

Entry = tuple[str, Any, Any, Any]


def track(recorder: Recorder, blobs: Path, value: Any, name: Any, step: Any, epoch: Any, context: Any) -> bool:
    """Records an object, a list of objects, or a dict with some of these and numbers, all at once; returns whether value is one of these.

    Raises as `Run.track`.
    """
    stored: dict[bytes, bytes] = {}
    if isinstance(value, TrackedObject | list | tuple):
        if not _holds_objects(value):
            return False
        if name is None:
            raise ValueError("track() needs a name: run.track(value, name='image'), or a dict {name: value}")
        entries = [_entry(name, value, blobs, stored)]
    elif isinstance(value, Mapping):
        if not any(_holds_objects(item) for item in value.values()):
            return False
        if name is not None:
            raise ValueError(f"a dict of values has its own names; name={name!r:.60} must be left out")
        entries = [_entry(key, item, blobs, stored) if _holds_objects(item) else (key, None, item, None) for key, item in value.items()]
    else:
        return False
    recorder.track_together(entries, step, epoch, context)
    keep_blobs(blobs, stored)
    return True


def _holds_objects(value: Any) -> bool:
    return isinstance(value, TrackedObject) or (isinstance(value, list | tuple) and any(isinstance(item, TrackedObject) for item in value))


def _entry(name: str, value: Any, blobs: Path, stored: dict[bytes, bytes]) -> Entry:
    in_list = isinstance(value, list | tuple)
    if in_list and len(value) > MAX_LIST:
        raise ValueError(f"{name!r}: a step holds at most {MAX_LIST:,} objects, not a list of {len(value):,}")
    found = list(value) if in_list else [value]
    classes = dict.fromkeys(map(type, found))
    if len(classes) > 1:
        raise TypeError(f"{name!r}: a list holds objects of one class, not of {', '.join(kind.__name__ for kind in classes)}")
    return name, (found[0].kind, in_list), len(found), object_records((item._to_item() for item in found), blobs, stored)
