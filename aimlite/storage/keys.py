"""Every key of the tree, and every prefix it is scanned by. Nothing else builds keys. docs/format.md lists them.

A key is one byte for its space, then a tuple whose byte order is the order of its values.
"""

from __future__ import annotations

from typing import Any

from aimlite._ext.keys import next_prefix, pack, unpack

META, RUN, WRITER, PROPERTY, PARAM, COVER, SEQUENCE, OF_RUN, HEAD, VALUES, TIMES, PARAM_INDEX, PROPERTY_INDEX = (
    bytes([space]) for space in (0x01, 0x10, 0x11, 0x12, 0x20, 0x21, 0x30, 0x31, 0x40, 0x41, 0x42, 0x50, 0x51)
)
_INDEX_STRING_BYTES = 253  # a character that begins before is kept whole

Path = tuple[str | int, ...]
Range = tuple[bytes, bytes | None]


def prefix_range(prefix: bytes) -> Range:
    """[prefix, next(prefix)): every key that begins with prefix. No upper bound is None."""
    return prefix, next_prefix(prefix)


def _under(key: bytes) -> Range:
    """Every key whose tuple begins with that of `key`. No element begins with ff; what goes on with ff is a longer string."""
    return key, key + b"\xff"


def decode(key: bytes) -> tuple[bytes, tuple[Any, ...]]:
    """(space, elements) of any key."""
    return key[:1], unpack(key, 1)


def generation() -> bytes:
    return META + pack(("generation",))


def run_count() -> bytes:
    return META + pack(("runs",))


def merged(writer: int) -> bytes:
    return META + pack(("merged", writer))


def run(run_hash: str) -> bytes:
    return RUN + pack((run_hash,))


def writer_of_run(run_hash: str, writer: int) -> bytes:
    return WRITER + pack((run_hash, writer))


def writers_of_run(run_hash: str) -> Range:
    return _under(WRITER + pack((run_hash,)))


def property_of_run(run_hash: str, name: str) -> bytes:
    return PROPERTY + pack((run_hash, name))


def properties_of_run(run_hash: str) -> Range:
    return _under(PROPERTY + pack((run_hash,)))


def param(run_hash: str, path: Path) -> bytes:
    return PARAM + pack((run_hash, *path))


def params_under(run_hash: str, path: Path) -> Range:
    return _under(PARAM + pack((run_hash, *path)))


def cover(run_hash: str, path: Path) -> bytes:
    return COVER + pack((run_hash, *path))


def covers_under(run_hash: str, path: Path) -> Range:
    return _under(COVER + pack((run_hash, *path)))


def sequence(name: str, context: dict[str, Any], run_hash: str) -> bytes:
    return SEQUENCE + pack((name, context, run_hash))


def of_run(run_hash: str, name: str, context: dict[str, Any]) -> bytes:
    return OF_RUN + pack((run_hash, name, context))


def sequences_of_run(run_hash: str) -> Range:
    return _under(OF_RUN + pack((run_hash,)))


def block(space: bytes, run_hash: str, name: str, context: dict[str, Any], first_step: int) -> bytes:
    """space: HEAD, VALUES or TIMES."""
    return space + pack((run_hash, name, context, first_step))


def blocks(space: bytes, run_hash: str, name: str, context: dict[str, Any]) -> Range:
    return _under(space + pack((run_hash, name, context)))


def first_step(block_key: bytes) -> int:
    step = unpack(block_key, 1)[3]
    assert isinstance(step, int)
    return step


def index_value(value: object) -> float | str | None:
    """What stands in the index for a value. Raises LookupError for what the index leaves out: NaN, lists, bytes, …"""
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        try:
            number = float(value) + 0.0
        except OverflowError:
            number = float("inf") if value > 0 else float("-inf")
        if number == number:
            return number
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        end = _INDEX_STRING_BYTES
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside of a character
            end += 1
        return value if end >= len(data) else data[:end].decode("utf-8", "surrogatepass")
    raise LookupError(value)


def param_index(path: Path, value: float | str | None, run_hash: str) -> bytes:
    return PARAM_INDEX + pack((path, value, run_hash))


def property_index(name: str, value: float | str | int | None, run_hash: str) -> bytes:
    return PROPERTY_INDEX + pack((name, value, run_hash))


def property_index_of(name: str) -> Range:
    return _under(PROPERTY_INDEX + pack((name,)))
