"""An object as it is read: from its item as stored, unfinished and finished."""

from __future__ import annotations

import os
from typing import TypeVar

import msgpack
from hypothesis import settings

from aimlite.objects.tracked import TrackedObject
from aimlite.storage.media import finish, is_finished

few = settings(max_examples=1000 if os.environ.get("AIMLITE_STRESS") == "1" else 25)
Tracked = TypeVar("Tracked", bound=TrackedObject)


def unfinished(given: Tracked) -> Tracked:
    header, payload = given._to_item()
    return type(given)._from_item(msgpack.unpackb(msgpack.packb(header)), lambda: (header, payload))


def finished(given: Tracked) -> Tracked:
    header, payload = finish(*given._to_item())
    assert is_finished(header)
    assert finish(header, payload) == (header, payload)
    assert finish(*given._to_item()) == (header, payload)  # it is the same each time
    return type(given)._from_item(msgpack.unpackb(msgpack.packb(header)), lambda: (header, payload))
