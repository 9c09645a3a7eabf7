"""The MANIFEST of the tree: the log in which RocksDB keeps the list of its files, verified before RocksDB reads it.

RocksDB trusts what it reads here: at a record type that only recycled logs have, which is one flipped bit away, its reader loops for
ever. So every record is checked first, and what `generation` says of the beginning of the file. A MANIFEST only grows, and each process
that opens the tree for writing begins another and then names that in CURRENT; hence a longer or a later one than `generation` lists is no
damage: the merge that wrote it is not that far yet, or was killed before. The format is that of db/log_format.h of RocksDB.
docs/format.md, "Files".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from aimlite._ext.blocks import crc32c
from aimlite.errors import CorruptionError
from aimlite.storage.files import open_regular, read_regular

CURRENT = "CURRENT"
Listed = tuple[str, int, int]  # name, size and CRC of what `generation` lists of a MANIFEST
_CURRENT = re.compile(rb"(MANIFEST-([0-9]{6,20}))\n")
_BLOCK = 32 << 10
_HEADER = struct.Struct("<IHB")  # masked CRC of type and payload, length of the payload, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_TRIES = 10


@dataclass(frozen=True)
class Manifest:
    """name: of the file; records: its bytes up to the end of the last whole record."""

    name: str
    records: bytes

    def listed(self) -> Listed:
        return self.name, len(self.records), crc32c(self.records)


def manifest_number(name: str) -> int:
    return int(name.rpartition("-")[2])


def read_manifest(tree: Path, listed: Listed | None = None) -> Manifest:
    """The MANIFEST that CURRENT names, when every byte of it was checked. listed: what `generation` says, read before this is called.
    Raises CorruptionError, FileNotFoundError, OSError."""
    for attempt in range(_TRIES):
        name = _read_current(tree / CURRENT)
        path = tree / name
        try:
            data = read_regular(path)
            break
        except FileNotFoundError:
            if attempt == _TRIES - 1 or _read_current(tree / CURRENT) == name:  # else a merge began another one and removed this
                raise
    if listed is not None:
        _demand_listed(tree, name, data, listed)
    end = whole_records(data, path)
    if end == 0:
        raise CorruptionError("the MANIFEST holds no record", path, 0)
    return Manifest(name, data[:end])


def _read_current(path: Path) -> str:
    with open_regular(path) as file:
        text = file.read(64)
    match = _CURRENT.fullmatch(text)
    if match is None:
        raise CorruptionError(f"the file should name a MANIFEST, it holds {text!r}", path, 0)
    return match[1].decode()


def _demand_listed(tree: Path, name: str, data: bytes, listed: Listed) -> None:
    listed_name, size, check = listed
    if manifest_number(name) < manifest_number(listed_name):
        raise CorruptionError(f"the file names {name}, which is older than the {listed_name} that `generation` lists", tree / CURRENT, 0)
    if name == listed_name and (len(data) < size or crc32c(memoryview(data)[:size]) != check):
        raise CorruptionError(
            f"the first {size} bytes of the file should have the checksum {check:08x} that `generation` lists; it holds {len(data)} bytes",
            tree / name,
        )


def whole_records(data: bytes, path: Path) -> int:
    """Where the last whole record of a log ends. What follows was cut off while it was written: the first part of a record, or zeros up to
    the end of the file. Raises CorruptionError, naming `path`, where there is anything else."""
    view = memoryview(data)
    at = end = 0
    is_within = False  # a record that goes on in the next block
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            _demand_zeros(view[at : at + left], path, at)
            at += left
            continue
        if len(data) - at < _HEADER.size:
            break
        check, length, kind = _HEADER.unpack_from(data, at)
        begin, after = at + _HEADER.size, at + _HEADER.size + length
        if check == length == kind == 0:
            _demand_zeros(view[at:], path, at)
            break
        if kind not in ((_MIDDLE, _LAST) if is_within else (_FULL, _FIRST)) or after - at > left:
            raise CorruptionError(f"a record has type {kind} and length {length}, which cannot be at this place of a MANIFEST", path, at)
        if after > len(data):
            break
        if _unmasked(check) != crc32c(view[begin - 1 : after]):
            raise CorruptionError("a record of the MANIFEST fails its check", path, at)
        at, is_within = after, kind in (_FIRST, _MIDDLE)
        if not is_within:
            end = at
    return end


def _unmasked(check: int) -> int:
    rotated = (check - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _demand_zeros(rest: memoryview, path: Path, at: int) -> None:
    if rest.tobytes().strip(b"\0"):
        raise CorruptionError("there is something other than zeros where a MANIFEST has nothing", path, at)
