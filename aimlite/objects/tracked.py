"""What may be tracked beside numbers. An object is an item: a header (small, plain values, told without the payload) and a payload
(bytes, read when they are needed). Nothing in either is ever executed; there is no pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from aimlite.errors import CorruptionError
from aimlite.storage.media import Item

MAX_LIST = 100_000  # objects of one step

_Tracked = TypeVar("_Tracked", bound="TrackedObject")


class TrackedObject:
    """One object, made by a user or read from a run.

    kind: the name of the sequences that hold such objects, as queries and `collect_sequence_info` know it.
    """

    kind: ClassVar[str]
    _fields: ClassVar[dict[str, type]]  # what every header has

    _header: dict[str, Any]
    _payload: bytes | None  # None: to be loaded
    _load: Callable[[], Item]

    def _to_item(self) -> Item:
        """(header, payload); `_from_item` makes an equal object of them."""
        if self._payload is not None:
            return self._header, self._payload
        header, payload = self._load()
        if "caption" in self._header:
            header = {**header, "caption": self._header["caption"]}
        return header, payload

    @classmethod
    def _from_item(cls: type[_Tracked], header: Mapping[str, Any], load: Callable[[], Item]) -> _Tracked:
        """The object with this header. `load` is called whenever its payload is looked at, and gives it with the header that it has by
        then: an unfinished item may be finished. Raises CorruptionError for a header that no object has."""
        for name, kind in cls._fields.items():
            value = header.get(name)
            if not isinstance(value, kind) or (kind is int and not (type(value) is int and 0 <= value < 1 << 63)):
                raise CorruptionError(f"a header of {cls.kind} has {name}={value!r:.100}")
        found = cls.__new__(cls)
        found._header, found._payload, found._load = dict(header), None, load
        return found

    def _set(self, header: dict[str, Any], payload: bytes) -> None:
        self._header, self._payload = header, payload

    def _bytes(self) -> bytes:
        return self._to_item()[1]

    def json(self) -> dict[str, Any]:
        """What can be told of it as JSON."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._to_item() == other._to_item()

    __hash__ = None  # type: ignore[assignment]  # the caption may be set

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r:.60}" for name, value in self.json().items() if value not in ("", None))
        return f"{type(self).__name__}({told})"


class Captioned(TrackedObject):
    """An object that may have a caption."""

    @property
    def caption(self) -> str:
        """What it shows; '' when nobody said. Setting it changes this object, not what was tracked of it."""
        caption: str = self._header.get("caption", "")
        return caption

    @caption.setter
    def caption(self, caption: str) -> None:
        self._header = {**self._header, "caption": checked_caption(caption)}


def checked_caption(caption: str | None) -> str:
    if caption is None:
        return ""
    if not isinstance(caption, str):
        raise TypeError(f"a caption is a string, not {type(caption).__name__} {caption!r:.100}")
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a caption needs a UTF-8 form: {caption!r:.100} has a lone surrogate at {error.start}") from None
    return str.__str__(caption)


def missing(library: str, what: str) -> ImportError:
    """The error where a library of the extra `media` is needed and not installed."""
    return ImportError(f"{what} needs {library}: pip install 'aimlite-store[media]'")
