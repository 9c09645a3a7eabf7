"""The params of one run as leaves under paths, and how sets and deletions of whole subtrees meet, in whatever order they arrive.

A *stamp* is (order, writer). A set or deletion at a path hides everything older under it: where it leaves no leaf at the path itself, a
*cover* remembers its stamp. It also makes maps of older scalars above it, and a leaf that comes later but is older than a leaf or cover
below it is dropped. So applying the same operations in any order ends in the same leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

import msgpack

from aimlite._ext.packed import packed_end
from aimlite.errors import CorruptionError
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
_MAX_PATH = 1000  # keys that lie inside one another
_MAX_KEY_BITS = 8 * 255  # of an int; keys of the tree hold no larger one
_PLAIN_DTYPE = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|[US]\d{1,9}|[mM]8(?:\[\d*[a-zA-Z]{1,2}(?:/\d+)?\])?)")
# What the constructors below raise for content that no writer of ours made; a CorruptionError is a ValueError.
_UNDECODABLE = (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError, msgpack.UnpackException)


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
    if code in _NESTING:
        return _unpack_nested(code, data)
    if code in _DECODERS:
        return _DECODERS[code](data)
    raise ValueError(f"the extension type {code} is not known")


class _Nested:
    """A tuple or set inside another one, before it is decoded."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = data


def _mark_nested(code: int, data: bytes) -> object:
    return _Nested(code, data) if code in _NESTING else _unpack_extended(code, data)


def _unpack_nested(code: int, data: bytes) -> object:
    """A tuple or set. What it holds is decoded level by level: msgpack's decoder takes 36 KB of the stack each time it is called inside of
    itself, and a thread may have 512 KB."""
    if code == _TUPLE:
        items = msgpack.unpackb(data, ext_hook=_mark_nested, strict_map_key=False)
        if type(items) is not list:
            raise ValueError(f"a tuple is stored as a list, not as {type(items).__name__}")
        return tuple(_decoded(items))
    unpacker = msgpack.Unpacker(ext_hook=_mark_nested, strict_map_key=False)
    unpacker.feed(data)
    items = _decoded(list(unpacker))
    return set(items) if code == _SET else frozenset(items)


def _decoded(value: Any) -> Any:
    """A value with all that is nested in it decoded."""
    if type(value) is _Nested:
        return _unpack_nested(value.code, value.data)
    if type(value) is list:
        return [_decoded(item) for item in value]
    if type(value) is dict:
        return {key: _decoded(item) for key, item in value.items()}
    return value


def _unpack_blob(data: bytes) -> Blob:
    if len(data) != _DIGEST_BYTES + 8:
        raise ValueError(f"{len(data)} bytes do not name a blob")
    return Blob(data[:_DIGEST_BYTES], int.from_bytes(data[_DIGEST_BYTES:], "little"))


def _unpack_blobs(data: bytes) -> Blobs:
    if len(data) % _DIGEST_BYTES:
        raise ValueError(f"{len(data)} bytes are not the names of blobs")
    return Blobs(tuple(data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES)))


def _unpack_numbers(data: bytes, kind: type, count: int) -> list[Any]:
    numbers = msgpack.unpackb(data)
    if type(numbers) is not list or len(numbers) != count or not all(type(number) is kind for number in numbers):
        raise ValueError(f"{numbers!r:.100} are not {count} numbers of type {kind.__name__}")
    return numbers


def _unpack_array(data: bytes) -> object:
    dtype, shape, content = msgpack.unpackb(data)
    if type(dtype) is not str or not _PLAIN_DTYPE.fullmatch(dtype):
        raise ValueError(f"an array of {dtype!r:.100} was never stored")
    if type(shape) is not list or not all(type(size) is int and 0 <= size < 1 << 62 for size in shape):
        raise ValueError(f"{shape!r:.100} is not the shape of an array")
    import numpy as np

    return np.frombuffer(content, dtype).reshape(shape).copy()


_NESTING = frozenset({_TUPLE, _SET, _FROZENSET})
_DECODERS: dict[int, Callable[[bytes], object]] = {
    _BIG_INT: int,
    _BLOB: _unpack_blob,
    _DATETIME: lambda data: datetime.fromisoformat(data.decode()),
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: lambda data: time.fromisoformat(data.decode()),
    _TIMEDELTA: lambda data: timedelta(*_unpack_numbers(data, int, 3)),
    _COMPLEX: lambda data: complex(*_unpack_numbers(data, float, 2)),
    _ARRAY: _unpack_array,
    _BLOBS: _unpack_blobs,
}


def packb(value: object) -> bytes:
    """msgpack with ints of any size, tuples, sets, dates and arrays. Maps, lists and strings are exactly that: no subclasses."""
    packed: bytes = msgpack.packb(value, default=_pack_extended, strict_types=True)
    return packed


def unpackb(data: bytes) -> Any:
    """What `packb` packed. Raises CorruptionError for everything else: bytes that do not decode, more than 128 levels of containers, types
    that it does not write."""
    try:
        if packed_end(data) != len(data):
            raise CorruptionError("a value is cut short, or followed by something else")
        return msgpack.unpackb(data, ext_hook=_unpack_extended, strict_map_key=False)
    except CorruptionError:
        raise
    except _UNDECODABLE as error:
        raise CorruptionError(f"a value does not decode: {error or type(error).__name__}") from None


def decode_entry(data: bytes) -> tuple[Stamp, Any]:
    """(stamp, value) of a param or a property as the tree has it. Raises CorruptionError."""
    entry = unpackb(data)
    if type(entry) is not list or len(entry) != 3:
        raise CorruptionError("a param or property of the tree is not a list of order, writer and value")
    return _stamp(entry), entry[2]


def decode_cover(data: bytes) -> Stamp:
    """The stamp of a cover. Raises CorruptionError."""
    entry = unpackb(data)
    if type(entry) is not list or len(entry) != 2:
        raise CorruptionError("a cover of the tree is not a list of order and writer")
    return _stamp(entry)


def _stamp(entry: list[Any]) -> Stamp:
    order, writer = entry[0], entry[1]
    if type(order) is not int or type(writer) is not int:
        raise CorruptionError(f"the order {order!r:.50} and the writer {writer!r:.50} of an entry of the tree are not both integers")
    return order, writer


def decode_operation(payload: bytes) -> tuple[int, Path, list[Any]]:
    """(kind, path, [relative path, leaf] of each leaf) of a PARAMS record without its run. Raises CorruptionError."""
    kind = payload[0] if payload else -1
    body = unpackb(payload[1:])
    if kind not in (SET, MORE, DELETE) or type(body) is not list or len(body) != (1 if kind == DELETE else 2):
        raise CorruptionError(f"an operation {kind} on params is none that there is")
    path = checked_path(body[0])
    leaves = [] if kind == DELETE else body[1]
    if type(leaves) is not list:
        raise CorruptionError("the leaves of an operation on params are not a list")
    for leaf in leaves:
        if type(leaf) is not list or len(leaf) != 2:
            raise CorruptionError("a leaf of an operation on params is not a pair of path and value")
        check_leaf(path + checked_path(leaf[0]), leaf[1])
    return kind, path, leaves


def checked_path(path: object) -> Path:
    """A path as it lies in msgpack. Raises CorruptionError."""
    if type(path) is not list or len(path) > _MAX_PATH:
        raise CorruptionError(f"{path!r:.100} is not the path of a param")
    for key in path:
        if type(key) is not str and not (type(key) is int and key.bit_length() <= _MAX_KEY_BITS):
            raise CorruptionError(f"a param lies under {key!r:.100}, which is neither a string nor an integer that a key can be")
    return tuple(path)


def check_leaf(path: Path, leaf: object) -> None:
    """Raises CorruptionError for a map that is not empty, whose items are leaves of their own; for anything but an empty map in the place
    of all params; for a path that is too long."""
    if len(path) > _MAX_PATH:
        raise CorruptionError(f"the path of a param has more than {_MAX_PATH} keys")
    if bool(leaf) if type(leaf) is dict else not path:
        raise CorruptionError(f"a param at the path {list(path[:5])!r} has a value that none has there: {type(leaf).__name__}")


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

    def drop_older(self, stamp: Stamp) -> None:
        """Forgets leaves and covers of this and what lies below that are older than `stamp`, and nodes that then hold nothing."""
        found: list[tuple[_Node, _Node | None, str | int]] = [(self, None, "")]
        for node, _, _ in found:  # grows meanwhile: those above come before those below
            if node.leaf is not None and node.leaf[0] < stamp:
                node.leaf = None
            if node.cover < stamp:
                node.cover = NEVER
            found.extend((child, node, key) for key, child in node.children.items())
        for node, above, key in reversed(found):
            if above is not None and node.leaf is None and node.cover == NEVER and not node.children:
                del above.children[key]

    def drop_older_below(self, stamp: Stamp) -> None:
        for key, child in list(self.children.items()):
            child.drop_older(stamp)
            if child.leaf is None and child.cover == NEVER and not child.children:
                del self.children[key]

    def lose_leaf(self) -> None:
        """The leaf is none any more, since something later made a map of its place; what it hid stays hidden."""
        if self.leaf is not None:
            self.cover = max(self.cover, self.leaf[0])
            self.leaf = None

    @property
    def hides(self) -> Stamp:
        """What is older than this, here and below, is hidden: a leaf hides as a cover does."""
        return self.cover if self.leaf is None else max(self.cover, self.leaf[0])

    def walk(self) -> Iterator[tuple[Path, _Node, Stamp]]:
        """(path, node, what those above it hide) in the order of the tree's keys: names, then numbers."""
        waiting: list[tuple[Path, _Node, Stamp]] = [((), self, NEVER)]
        while waiting:
            path, node, above = waiting.pop()
            yield path, node, above
            if node.children:
                hidden = max(above, node.hides)
                waiting += [((*path, key), node.children[key], hidden) for key in sorted(node.children, key=_place_of_key, reverse=True)]


def _place_of_key(key: str | int) -> tuple[bool, str | int]:
    return type(key) is int, key


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
        return {path: node.leaf for path, node, _ in self._root.walk() if node.leaf is not None}

    def leaves_under(self, path: Path) -> Iterator[tuple[Path, Any]]:
        """(path counted from `path`, value) of the leaves at and below it."""
        node: _Node | None = self._root
        for key in path:
            node = node.children.get(key) if node is not None else None
        if node is not None:
            yield from ((at, below.leaf[1]) for at, below, _ in node.walk() if below.leaf is not None)

    def all_covers(self) -> dict[Path, Stamp]:
        """Every cover, needed or not."""
        return {path: node.cover for path, node, _ in self._root.walk() if node.cover != NEVER}

    def covers(self) -> dict[Path, Stamp]:
        """The covers that are kept, for ever: a segment may arrive whenever it does. Left out is what something else hides as well: a cover
        above that is as new, or a leaf at the same place."""
        return {
            path: node.cover
            for path, node, above in self._root.walk()
            if node.cover > above and (node.leaf is None or node.leaf[0] < node.cover)
        }

    def is_consistent(self) -> bool:
        """Whether no leaf lies below another one, or is older than a cover over it."""
        leaves = self.leaves()
        return all(
            node.leaf is None or (node.leaf[0] >= max(above, node.cover) and not any(path[:depth] in leaves for depth in range(len(path))))
            for path, node, above in self._root.walk()
        )

    def apply(self, stamp: Stamp, operation: int, path: Path, leaves: Iterable[tuple[Path, Any]] = ()) -> None:
        """Takes in one operation; relative paths of leaves count from `path`. Operations of one stamp belong to one call and come in their
        order."""
        if operation != MORE and not self._is_hidden(path, stamp):
            above = self._root
            for key in path:
                if above.leaf is not None and above.leaf[0] < stamp:
                    above.lose_leaf()
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
                above.lose_leaf()
            above = above.children[key]
        node.leaf = (stamp, value)

    def _is_hidden(self, path: Path, stamp: Stamp) -> bool:
        node: _Node | None = self._root
        for key in path:
            if node is None:
                return False
            if node.hides > stamp:
                return True
            node = node.children.get(key)
        return node is not None and node.hides > stamp

    def _node(self, path: Path) -> _Node:
        node = self._root
        for key in path:
            node = node.children.setdefault(key, _Node())
        return node
