"""What the tree remembers of deletions for good: the order at which a run, or a sequence of one, was deleted. They are never removed.

A record of a run counts if whoever wrote it opened the run after the run's tombstone; a point, if its own order is above the tombstone of
its sequence as well. A tombstone is committed together with the removal of all that the tree holds, under the lease, so the tree never
holds what one hides; only journals do.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from aimlite._ext.keys import pack, unpack
from aimlite.errors import CorruptionError
from aimlite.storage import keys
from aimlite.storage.points import Points
from aimlite.storage.tree import Tree


def run_tombstone(tree: Tree, run_hash: str) -> int:
    """The order at which a run was last deleted; 0 when it never was."""
    return _order(tree.get(keys.tombstone(run_hash)))


def sequence_tombstones(tree: Tree, run_hash: str) -> dict[bytes, int]:
    """packed (name, context) → the order at which it was last deleted."""
    scan = tree.scan(keys.tombstones_of_run(run_hash))
    return {pack(unpack(key, 1)[2:]): _order(data) for key, data in scan if len(unpack(key, 1)) > 2}


def encode_tombstone(order: int) -> bytes:
    packed: bytes = msgpack.packb(order)
    return packed


def _order(data: bytes | None) -> int:
    return 0 if data is None else int(msgpack.unpackb(data))


def written_after(points: Points, order: int) -> Points:
    """The points that the tombstone of their sequence does not hide."""
    return points.take(points["order"] > np.uint64(order)) if order and len(points) else points


class Tombstones:
    """Those of one view, looked up when they are needed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._has_any: bool | None = None
        self._of_runs: dict[str, int] = {}
        self._of_sequences: dict[str, dict[bytes, int]] = {}

    def of_run(self, run_hash: str) -> int:
        if not self._any():
            return 0
        found = self._of_runs.get(run_hash)
        if found is None:
            found = self._of_runs[run_hash] = run_tombstone(self._tree, run_hash)
        return found

    def of_sequences(self, run_hash: str) -> dict[bytes, int]:
        if not self._any():
            return _NONE
        found = self._of_sequences.get(run_hash)
        if found is None:
            found = self._of_sequences[run_hash] = sequence_tombstones(self._tree, run_hash)
        return found

    def _any(self) -> bool:
        if self._has_any is None:
            try:
                self._has_any = next(self._tree.scan_keys(keys.tombstones(), limit=1), None) is not None
            except CorruptionError:  # that of the run in question may be readable
                self._has_any = True
        return self._has_any


_NONE: dict[bytes, Any] = {}
