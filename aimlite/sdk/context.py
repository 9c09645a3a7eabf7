"""A context: the small dict that tells sequences of one name apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlite._ext.recorder import canonical_context
from aimlite.storage.keys import packed_context


class Context(Mapping[str, Any]):
    """An immutable, hashable mapping. Two are equal when they hold the same keys with the same values *of the same types*, in whatever
    order: `{'g': 1}`, `{'g': True}` and `{'g': 1.0}` are three contexts. Lists and tuples count as the same.

    context: str keys; values str, int, float, bool, None, lists and dicts of these. None is {}. Raises TypeError, ValueError.
    """

    __slots__ = ("_items", "_packed")

    def __init__(self, context: Mapping[str, Any] | None = None) -> None:
        self._items: dict[str, Any] = canonical_context(context)
        self._packed = packed_context(self._items)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of its own; sequences in it are lists."""
        plain: dict[str, Any] = _thawed(self._items)
        return plain

    def __getitem__(self, key: str) -> Any:
        return _thawed(self._items[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Context):
            return self._packed == other._packed
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._packed == packed_context(canonical_context(other))
        except (TypeError, ValueError):  # no context could be that
            return False

    def __hash__(self) -> int:
        return hash(self._packed)

    def __reduce__(self) -> tuple[Any, ...]:
        return Context, (self.to_dict(),)

    def __repr__(self) -> str:
        return f"Context({self.to_dict()!r})"


def _thawed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _thawed(item) for key, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value
