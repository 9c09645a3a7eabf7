"""The params of one run as leaves under paths, and how sets and deletions of whole subtrees meet, in whatever order they arrive.

A *stamp* is (order, writer). A set or deletion at a path hides everything older under it: where it leaves no leaf at the path itself, a
*cover* remembers its stamp. It also makes maps of older scalars above it, and a leaf that comes later but is older than a leaf or cover
below it is dropped. So applying the same operations in any order ends in the same leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

import msgpack

from aimlite.storage import keys
from aimlite.storage.keys import Path

Stamp = tuple[int, int]
SET, MORE, DELETE = 0, 1, 2
NEVER: Stamp = (-1, -1)
UNORDERED = b""  # stands in the index for values that have no place in its order
ELSEWHERE = b"\xc1"  # a byte that no msgpack begins with
_INLINE_BYTES = 64
_BIG_INT, _BLOB, _TUPLE, _SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _COMPLEX, _ARRAY, _BLOBS = range(1, 13)
_DIGEST_BYTES = 32


class Blob:
    """A leaf too large for the tree: the SHA-256 and size of its msgpack in blobs/."""

    __slots__ = ("digest", "size")

    def __init__(self, digest: bytes, size: int) -> None:
        self.digest = digest
        self.size = size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and (self.digest, self.size) == (other.digest, other.size)

    __hash__ = None  # type: ignore[assignment]


class Blobs:
    """A leaf that names blobs: the files of an archive, whose contents are no params. Who reads params does not see it, the index does not
    have it; it keeps the blobs as long as the run has it."""

    __slots__ = ("digests",)

    def __init__(self, digests: tuple[bytes, ...]) -> None:
        self.digests = digests

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blobs) and self.digests == other.digests

    __hash__ = None  # type: ignore[assignment]


def blob_digests(leaf: Any) -> tuple[bytes, ...]:
    """The SHA-256 of each blob that a leaf needs. Blobs are kept by what this finds, and by nothing else."""
    if isinstance(leaf, Blobs):
        return leaf.digests
    return (leaf.digest,) if isinstance(leaf, Blob) else ()


def _pack_extended(value: Any) -> msgpack.ExtType:
    kind = type(value)
    if kind is int:
        return msgpack.ExtType(_BIG_INT, str(value).encode())
    if kind is Blob:
        return msgpack.ExtType(_BLOB, value.digest + value.size.to_bytes(8, "little"))
    if kind is Blobs:
        return msgpack.ExtType(_BLOBS, b"".join(value.digests))
    if kind is tuple:
        return msgpack.ExtType(_TUPLE, packb(list(value)))
    if kind is set or kind is frozenset:  # in an order of their own, so that equal sets are equal bytes
        items = b"".join(sorted(packb(item) for item in value))
        return msgpack.ExtType(_SET if kind is set else _FROZENSET, items)
    if kind is datetime or kind is date or kind is time:
        code = _DATETIME if kind is datetime else _DATE if kind is date else _TIME
        return msgpack.ExtType(code, value.isoformat().encode())
    if kind is timedelta:
        return msgpack.ExtType(_TIMEDELTA, packb([value.days, value.seconds, value.microseconds]))
    if kind is complex:
        return msgpack.ExtType(_COMPLEX, packb([value.real, value.imag]))
    if hasattr(value, "tobytes") and hasattr(value, "shape"):
        return msgpack.ExtType(_ARRAY, packb([value.dtype.str, list(value.shape), value.tobytes()]))
    raise TypeError(f"{kind.__name__} {value!r:.100} cannot be stored")


def _unpack_extended(code: int, data: bytes) -> object:
    if code == _BIG_INT:
        return int(data)
    if code == _BLOB:
        return Blob(data[:32], int.from_bytes(data[32:40], "little"))
    if code in _DECODERS:
        return _DECODERS[code](data)
    return msgpack.ExtType(code, data)


def _unpack_items(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(ext_hook=_unpack_extended, strict_map_key=False)
    unpacker.feed(data)
    return list(unpacker)


def _unpack_blobs(data: bytes) -> Blobs:
    if len(data) % _DIGEST_BYTES:
        raise ValueError(f"{len(data)} bytes are not the names of blobs")
    return Blobs(tuple(data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES)))


def _unpack_array(data: bytes) -> object:
    import numpy as np

    dtype, shape, content = unpackb(data)
    if np.dtype(dtype).hasobject:
        raise ValueError(f"an array of {dtype!r} was never stored")
    return np.frombuffer(content, dtype).reshape(shape).copy()


_DECODERS: dict[int, Callable[[bytes], object]] = {
    _TUPLE: lambda data: tuple(unpackb(data)),
    _SET: lambda data: set(_unpack_items(data)),
    _FROZENSET: lambda data: frozenset(_unpack_items(data)),
    _DATETIME: lambda data: datetime.fromisoformat(data.decode()),
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: lambda data: time.fromisoformat(data.decode()),
    _TIMEDELTA: lambda data: timedelta(*unpackb(data)),
    _COMPLEX: lambda data: complex(*unpackb(data)),
    _ARRAY: _unpack_array,
    _BLOBS: _unpack_blobs,
}


def packb(value: object) -> bytes:
    """msgpack with ints of any size, tuples, sets, dates and arrays. Maps, lists and strings are exactly that: no subclasses."""
    packed: bytes = msgpack.packb(value, default=_pack_extended, strict_types=True)
    return packed


def unpacker(limit: int) -> msgpack.Unpacker:
    """Unpacks values that come in pieces; raises msgpack.BufferFull for one of more than `limit` bytes."""
    return msgpack.Unpacker(ext_hook=_unpack_extended, strict_map_key=False, max_buffer_size=limit)


def unpackb(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_unpack_extended, strict_map_key=False)


def index_entry(value: object) -> tuple[keys.Indexed, bytes]:
    """(value in the key, content) of a leaf's entry in the index. The content is empty where the key tells the value exactly, else its
    msgpack; `ELSEWHERE` where that is long."""
    try:
        indexed: keys.Indexed = keys.index_value(value)
    except LookupError:
        indexed = UNORDERED
    if type(indexed) is type(value) and repr(indexed) == repr(value):
        return indexed, b""
    packed = ELSEWHERE if isinstance(value, Blob) else packb(value)
    return indexed, packed if len(packed) <= _INLINE_BYTES else ELSEWHERE


def index_content(indexed: keys.Indexed, content: bytes) -> Any:
    """The value of an entry. Raises LookupError when only the param itself tells it."""
    if content == ELSEWHERE:
        raise LookupError
    return unpackb(content) if content else indexed


def flatten(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """(path, leaf) of a value: maps are opened, an empty map is a leaf."""
    if not isinstance(value, Mapping) or not value:
        return [(path, value)]
    leaves: list[tuple[Path, Any]] = []
    for key, item in value.items():
        leaves += flatten(item, (*path, key))
    return leaves


def nest(leaves: Iterable[tuple[Path, Any]]) -> Any:
    """The value that `flatten` took apart. Raises KeyError when there is no leaf."""
    root: Any = None
    found = False
    for path, leaf in leaves:
        found = True
        if not path:
            return {} if isinstance(leaf, dict) else leaf
        if root is None:
            root = {}
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = {} if isinstance(leaf, dict) else leaf
    if not found:
        raise KeyError
    return root


class _Node:
    __slots__ = ("children", "cover", "leaf")

    def __init__(self) -> None:
        self.children: dict[str | int, _Node] = {}
        self.leaf: tuple[Stamp, Any] | None = None
        self.cover: Stamp = NEVER

    def drop_older(self, stamp: Stamp) -> bool:
        """Forgets leaves and covers of this and what lies below that are older than `stamp`; returns whether nothing is left."""
        if self.leaf is not None and self.leaf[0] < stamp:
            self.leaf = None
        if self.cover < stamp:
            self.cover = NEVER
        self.drop_older_below(stamp)
        return self.leaf is None and self.cover == NEVER and not self.children

    def drop_older_below(self, stamp: Stamp) -> None:
        for key in [key for key, child in self.children.items() if child.drop_older(stamp)]:
            del self.children[key]

    def walk(self, path: Path) -> Iterator[tuple[Path, _Node]]:
        """In the order of the tree's keys: names, then numbers."""
        yield path, self
        for key, child in sorted(self.children.items(), key=lambda item: (isinstance(item[0], int), item[0])):
            yield from child.walk((*path, key))


class ParamTree:
    """Leaves and covers of a run, or of a part of its paths."""

    def __init__(self) -> None:
        self._root = _Node()

    def load_leaf(self, path: Path, stamp: Stamp, value: Any) -> None:
        """Puts in a leaf as the tree has it."""
        self._node(path).leaf = (stamp, value)

    def load_cover(self, path: Path, stamp: Stamp) -> None:
        self._node(path).cover = stamp

    def leaves(self) -> dict[Path, tuple[Stamp, Any]]:
        return {path: node.leaf for path, node in self._root.walk(()) if node.leaf is not None}

    def leaves_under(self, path: Path) -> Iterator[tuple[Path, Any]]:
        """(path counted from `path`, value) of the leaves at and below it."""
        node: _Node | None = self._root
        for key in path:
            node = node.children.get(key) if node is not None else None
        if node is not None:
            yield from ((at, below.leaf[1]) for at, below in node.walk(()) if below.leaf is not None)

    def covers(self) -> dict[Path, Stamp]:
        return {path: node.cover for path, node in self._root.walk(()) if node.cover != NEVER}

    def apply(self, stamp: Stamp, operation: int, path: Path, leaves: Iterable[tuple[Path, Any]] = ()) -> None:
        """Takes in one operation; relative paths of leaves count from `path`. Operations of one stamp belong to one call and come in their
        order."""
        if operation != MORE and not self._is_hidden(path, stamp):
            above = self._root
            for key in path:
                if above.leaf is not None and above.leaf[0] < stamp:
                    above.leaf = None
                above = above.children.setdefault(key, _Node())
            above.drop_older(stamp)
            above.cover = max(above.cover, stamp)
        for relative, value in leaves:
            self._set(stamp, path + tuple(relative), value)

    def _set(self, stamp: Stamp, path: Path, value: Any) -> None:
        if self._is_hidden(path, stamp):
            return
        node = self._node(path)
        if node.leaf is not None and node.leaf[0] > stamp:
            return
        node.drop_older_below(stamp)
        if node.children:
            return  # something later made a map of this path
        above = self._root
        for key in path:  # a scalar above is one no longer, unless it came later
            if above.leaf is not None:
                if above.leaf[0] > stamp:
                    return
                above.leaf = None
            above = above.children[key]
        node.leaf = (stamp, value)

    def _is_hidden(self, path: Path, stamp: Stamp) -> bool:
        node: _Node | None = self._root
        for key in path:
            if node is None:
                return False
            if node.cover > stamp:
                return True
            node = node.children.get(key)
        return node is not None and node.cover > stamp

    def _node(self, path: Path) -> _Node:
        node = self._root
        for key in path:
            node = node.children.setdefault(key, _Node())
        return node
