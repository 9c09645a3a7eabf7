"""The params of one run as leaves under paths, and how sets and deletions of whole subtrees meet, in whatever order they arrive.

A *stamp* is (order, writer). A set or deletion at a path hides everything older under it: where it leaves no leaf at the path itself, a
*cover* remembers its stamp. It also makes maps of older scalars above it, and a leaf that comes later but is older than a leaf or cover
below it is dropped. So applying the same operations in any order ends in the same leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgpack

from aimlite.storage.keys import Path

Stamp = tuple[int, int]
SET, MORE, DELETE = 0, 1, 2
EMPTY: dict[str, Any] = {}
NEVER: Stamp = (-1, -1)
_BIG_INT, _BLOB = 1, 2


class Blob:
    """A leaf too large for the tree: the SHA-256 and size of its msgpack in blobs/."""

    __slots__ = ("digest", "size")

    def __init__(self, digest: bytes, size: int) -> None:
        self.digest = digest
        self.size = size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and (self.digest, self.size) == (other.digest, other.size)

    __hash__ = None  # type: ignore[assignment]


def _pack_extended(value: object) -> msgpack.ExtType:
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INT, str(value).encode())
    if isinstance(value, Blob):
        return msgpack.ExtType(_BLOB, value.digest + value.size.to_bytes(8, "little"))
    raise TypeError(f"{type(value).__name__} {value!r:.100} cannot be stored")


def _unpack_extended(code: int, data: bytes) -> object:
    if code == _BIG_INT:
        return int(data)
    if code == _BLOB:
        return Blob(data[:32], int.from_bytes(data[32:40], "little"))
    return msgpack.ExtType(code, data)


def packb(value: object) -> bytes:
    """msgpack with ints of any size."""
    try:
        packed: bytes = msgpack.packb(value, default=_pack_extended)
    except OverflowError:
        packed = msgpack.packb(_without_big_ints(value), default=_pack_extended)
    return packed


def _without_big_ints(value: Any) -> Any:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return msgpack.ExtType(_BIG_INT, str(value).encode())
    if isinstance(value, list | tuple):
        return [_without_big_ints(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_big_ints(item) for key, item in value.items()}
    return value


def unpackb(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_unpack_extended, strict_map_key=False)


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
            return {} if leaf == EMPTY and isinstance(leaf, dict) else leaf
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
        yield path, self
        for key, child in self.children.items():
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
