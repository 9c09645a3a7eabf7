"""A tree in memory: the protocol `Tree` over a sorted list of keys, for tests that merge without RocksDB."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from aimlite.storage import keys


class DictTree:
    """Entries in the order of their keys, as the protocol asks; `commit` puts (value) and deletes (None)."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def commit(self, batch: Mapping[bytes, bytes | None]) -> None:
        for key, value in batch.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def _within(self, bounds: keys.Range) -> list[bytes]:
        ordered = sorted(self.entries)
        begin, end = bounds
        return ordered[bisect_left(ordered, begin) : None if end is None else bisect_left(ordered, end)]

    def scan(self, bounds: keys.Range, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        found = self._within(bounds)
        return iter([(key, self.entries[key]) for key in (reversed(found) if reverse else found)])

    def scan_keys(self, bounds: keys.Range, reverse: bool = False, limit: int = 8192) -> Iterator[list[bytes]]:
        found = self._within(bounds)
        found = found[::-1] if reverse else found
        return iter([found[at : at + limit] for at in range(0, len(found), limit)])

    def scan_chunks(self, bounds: keys.Range) -> Iterator[tuple[list[bytes], list[bytes]]]:
        found = self._within(bounds)
        return iter([(found, [self.entries[key] for key in found])] if found else [])

    def levels(self) -> dict[int, tuple[int, int]]:
        return {}
