"""Every key of the tree, and every prefix it is scanned by. Nothing else builds keys. docs/format.md lists them.

A key is one byte for its space, then a tuple whose byte order is the order of its values.
"""

from __future__ import annotations

from typing import Any

from aimlite._ext.keys import next_prefix, pack, unpack

META, RUN, WRITER, PROPERTY, PARAM, COVER, SEQUENCE, OF_RUN, TRASHED, HEAD, VALUES, TIMES, PARAM_INDEX, PROPERTY_INDEX = (
    bytes([space]) for space in (0x01, 0x10, 0x11, 0x12, 0x20, 0x21, 0x30, 0x31, 0x32, 0x40, 0x41, 0x42, 0x50, 0x51)
)
OBJECT, CONTENT, REFERENCE = (bytes([space]) for space in (0x60, 0x61, 0x62))
_INDEX_STRING_BYTES = 253  # a character that begins before is kept whole

Path = tuple[str | int, ...]
Name = str | tuple[str, str]  # of a metric; or (kind, name) of a sequence of objects, so that the two never meet
Indexed = float | str | bytes | None
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


def tombstone(run_hash: str) -> bytes:
    return META + pack(("deleted", run_hash))


def sequence_tombstone(run_hash: str, name: Name, context: dict[str, Any]) -> bytes:
    return META + pack(("deleted", run_hash, name, context))


def tombstones_of_run(run_hash: str) -> Range:
    """That of the run and those of its sequences."""
    return _under(META + pack(("deleted", run_hash)))


def tombstones() -> Range:
    return _under(META + pack(("deleted",)))


def importing(run_hash: str) -> bytes:
    """There while a run is being imported."""
    return META + pack(("importing", run_hash))


def importing_runs() -> Range:
    return _under(META + pack(("importing",)))


def deleting(run_hash: str) -> bytes:
    """There while a run, or sequences of it, are being deleted for good."""
    return META + pack(("deleting", run_hash))


def deleting_runs() -> Range:
    return _under(META + pack(("deleting",)))


def run(run_hash: str) -> bytes:
    return RUN + pack((run_hash,))


def runs_with_prefix(prefix: str) -> Range:
    return prefix_range(run(prefix)[:-1])  # without the byte that ends a string


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


def sequence(name: Name, context: dict[str, Any], run_hash: str) -> bytes:
    return SEQUENCE + pack((name, context, run_hash))


def trashed_sequence(name: Name, context: dict[str, Any], run_hash: str) -> bytes:
    """Where the summary lies while the run is in the trash."""
    return TRASHED + pack((name, context, run_hash))


def metrics() -> Range:
    """The metrics of all runs: the sequences whose name is a string."""
    return prefix_range(SEQUENCE + b"\x02")


def objects_of_kind(kind: str) -> Range:
    """The sequences of one kind of objects, of all runs."""
    return prefix_range(SEQUENCE + _named(kind))


def metrics_of_run(run_hash: str) -> Range:
    return prefix_range(OF_RUN + pack((run_hash,)) + b"\x02")


def objects_of_run(run_hash: str, kind: str) -> Range:
    """The sequences of one kind of objects of a run."""
    return prefix_range(OF_RUN + pack((run_hash,)) + _named(kind))


def _named(kind: str) -> bytes:
    """How the name (kind, …) begins."""
    return pack(((kind,),))[:-1]


def sequences_of(name: Name, context: dict[str, Any]) -> Range:
    """The sequences of this name and context, of all runs."""
    return _under(SEQUENCE + pack((name, context)))


def sequences_named(name: Name) -> Range:
    """The sequences of this name, of all contexts and runs."""
    return _under(SEQUENCE + pack((name,)))


def sequences_with_prefix(prefix: str) -> Range:
    """The sequences whose name begins with `prefix`."""
    return prefix_range((SEQUENCE + pack((prefix,)))[:-1])


def of_run(run_hash: str, name: Name, context: dict[str, Any]) -> bytes:
    return OF_RUN + pack((run_hash, name, context))


def sequences_of_run(run_hash: str) -> Range:
    return _under(OF_RUN + pack((run_hash,)))


def block(space: bytes, run_hash: str, name: Name, context: dict[str, Any], first_step: int) -> bytes:
    """space: HEAD, VALUES or TIMES."""
    return space + pack((run_hash, name, context, first_step))


def blocks(space: bytes, run_hash: str, name: Name, context: dict[str, Any]) -> Range:
    return _under(space + pack((run_hash, name, context)))


def blocks_between(space: bytes, run_hash: str, name: Name, context: dict[str, Any], first: int | None, end: int | None) -> Range:
    """The blocks of a sequence whose first step lies in first ≤ step < end; None is no bound."""
    low, high = blocks(space, run_hash, name, context)
    return (
        low if first is None else block(space, run_hash, name, context, first),
        high if end is None else block(space, run_hash, name, context, end),
    )


def object_at(run_hash: str, name: Name, context: dict[str, Any], order: int, writer: int) -> bytes:
    return OBJECT + pack((run_hash, name, context, order, writer))


def objects_of(run_hash: str, name: Name, context: dict[str, Any]) -> Range:
    """All that one sequence of objects holds, by order and writer."""
    return _under(OBJECT + pack((run_hash, name, context)))


def content(digest: bytes) -> bytes:
    return CONTENT + pack((digest,))


def of_sequence(space: bytes, run_hash: str, name: Name, context: dict[str, Any]) -> Range:
    """All of a sequence in a space whose keys begin with run, name and context."""
    return _under(space + pack((run_hash, name, context)))


def of_whole_run(space: bytes, run_hash: str) -> Range:
    """All of a run in a space whose keys begin with runs."""
    return _under(space + pack((run_hash,)))


def reference(digest: bytes, run_hash: str) -> bytes:
    return REFERENCE + pack((digest, run_hash))


def references_of(digest: bytes) -> Range:
    """A key for each run that names a content."""
    return _under(REFERENCE + pack((digest,)))


def packed_context(context: dict[str, Any]) -> bytes:
    """What is equal for contexts that are equal with their types, in whatever order their keys stand."""
    return pack((context,))


def packed_sequence(name: Name, context: dict[str, Any]) -> bytes:
    return pack((name, context))


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
        return _cut(value)
    raise LookupError(value)


def _cut(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    end = _INDEX_STRING_BYTES
    while end < len(data) and data[end] & 0xC0 == 0x80:  # inside of a character
        end += 1
    return text if end >= len(data) else data[:end].decode("utf-8", "surrogatepass")


def param_index(path: Path, value: Indexed, run_hash: str) -> bytes:
    return PARAM_INDEX + pack((path, value, run_hash))


def param_index_of(path: Path) -> Range:
    """Every entry of exactly this path."""
    return _under(PARAM_INDEX + pack((path,)))


def param_index_below(path: Path) -> Range:
    """Every entry of a longer path that begins with this one."""
    begin = (PARAM_INDEX + pack((path,)))[:-1]  # without the end of the path
    return begin + b"\x01", begin + b"\xff"


def param_index_values(path: Path, low: Indexed, high: Indexed, with_low: bool = True, with_high: bool = True) -> Range:
    """The entries of a path with values between two of one type."""
    begin, end = PARAM_INDEX + pack((path, low)), PARAM_INDEX + pack((path, high))
    return begin if with_low else begin + b"\xff", end + b"\xff" if with_high else end


def param_index_strings(path: Path, prefix: str) -> Range:
    """The entries of a path with strings that begin with `prefix`."""
    begin = (PARAM_INDEX + pack((path, _cut(prefix))))[:-1]
    return prefix_range(begin)


def rest(key: bytes, begin: int) -> tuple[Any, ...]:
    """The elements of a key from byte `begin` on, which is where one begins."""
    return unpack(key, begin)


def behind(bounds: Range) -> bytes:
    """The first key that does not begin as those of a range do."""
    return next_prefix(bounds[0]) or b"\xff"


def index_run(key: bytes) -> str:
    """The run of a key that ends with one: no byte of a hash is 2, which begins it."""
    return key[key.rindex(b"\x02") + 1 : -1].decode()


def property_index(name: str, value: float | str | int | None, run_hash: str) -> bytes:
    return PROPERTY_INDEX + pack((name, value, run_hash))


def indexed_property(name: str, value: object, run_hash: str) -> bytes:
    """The entry of a property. Raises LookupError for a value that the index leaves out. Times stand there as integers."""
    return property_index(name, value if name in ("created", "trashed") and isinstance(value, int) else index_value(value), run_hash)


def property_index_of(name: str) -> Range:
    return _under(PROPERTY_INDEX + pack((name,)))


def property_index_values(
    name: str, low: float | str | int, high: float | str | int, with_low: bool = True, with_high: bool = True
) -> Range:
    """The entries of a property with values between two of one type."""
    begin, end = PROPERTY_INDEX + pack((name, low)), PROPERTY_INDEX + pack((name, high))
    return begin if with_low else begin + b"\xff", end + b"\xff" if with_high else end


def property_index_strings(name: str, prefix: str) -> Range:
    """The entries of a property with strings that begin with `prefix`."""
    return prefix_range((PROPERTY_INDEX + pack((name, _cut(prefix))))[:-1])
