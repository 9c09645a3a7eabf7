"""The types of sequences, by the names that Aim gives them."""

from __future__ import annotations

from collections.abc import Iterable

SEQUENCE_TYPES = ("audios", "distributions", "figures", "images", "log_records", "logs", "metric", "texts")


def checked_types(types: str | Iterable[str]) -> list[str]:
    """The types named, each once. Raises ValueError for one that there is not."""
    named = [types] if isinstance(types, str) else list(dict.fromkeys(types))
    for name in named:
        if name not in SEQUENCE_TYPES:
            raise ValueError(f"{name!r} is not a type of sequence; there are {', '.join(SEQUENCE_TYPES)}")
    return named
