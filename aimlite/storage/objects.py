"""Items: what a sequence of objects (images, texts, log lines, …) holds at each step, a header and a content each.

Short contents lie with their headers. Longer ones are kept by their SHA-256, once for all runs: in the tree below 1 MiB, else in a blob; so
headers are read without them. In a journal they follow the headers of their record. docs/format.md, "Objects".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from aimlite._ext import journal as ext
from aimlite.errors import CorruptionError
from aimlite.storage import params
from aimlite.storage.blobs import BLOB_BYTES, put_blob, sha256
from aimlite.storage.media import is_finished
from aimlite.storage.params import Blob

INLINE_BYTES = 256
_MAX_HEADER = 1 << 20
_RECORD_BYTES = ext.MAX_PAYLOAD - 16


@dataclass(frozen=True)
class Item:
    """header: what a reader needs to know of an object, of types that params may have. content: its bytes, or what names them."""

    header: dict[str, Any]
    content: bytes | Blob

    @property
    def size(self) -> int:
        """Of the content, in bytes."""
        return self.content.size if isinstance(self.content, Blob) else len(self.content)


def object_records(items: Iterable[tuple[dict[str, Any], bytes]], blobs: Path, stored: dict[bytes, bytes]) -> list[bytes]:
    """Payloads of OBJECT records, but for the sequence's number, that hold (header, content) of each object of one step; contents that lie
    in blobs are there when this returns, and in `stored` by SHA-256. Raises ValueError for a header above 1 MiB, OSError."""
    records, heads, contents, size = [], list[bytes](), list[bytes](), 0
    for header, content in items:
        item, follows = stored_item(header, content, blobs, _follows(header, len(content)))
        if isinstance(item.content, Blob) and not follows:
            stored[item.content.digest] = content
        head = params.packb([header, item.content])
        if len(head) > _MAX_HEADER:
            raise ValueError(f"what describes an object (its caption, …) takes {len(head)} bytes, the limit is {_MAX_HEADER}")
        if heads and size + len(head) + len(follows) > _RECORD_BYTES:
            records.append(_record(heads, contents))
            heads, contents, size = [], [], 0
        heads.append(head)
        contents.append(follows)
        size += len(head) + len(follows)
    records.append(_record(heads, contents))
    return records


def stored_item(header: dict[str, Any], content: bytes, blobs: Path, follows: bool) -> tuple[Item, bytes]:
    """An item and what is to lie beside it: the content, where it is not short. Or else (not follows) it is put into a blob."""
    if len(content) <= INLINE_BYTES:
        return Item(header, content), b""
    return Item(header, Blob(sha256(content) if follows else put_blob(blobs, content), len(content))), content if follows else b""


def _follows(header: dict[str, Any], size: int) -> bool:
    """Whether a content lies in the journal. What is brought to its final form later would be left over as a blob."""
    return size < BLOB_BYTES or (size < _RECORD_BYTES - _MAX_HEADER and not is_finished(header))


def _record(heads: list[bytes], contents: list[bytes]) -> bytes:
    packed = msgpack.Packer().pack_array_header(len(heads)) + b"".join(heads)
    return b"".join((len(packed).to_bytes(4, "little"), packed, *contents))


def decode_items(data: bytes) -> list[Item]:
    """The items of an OBJECT record or of an entry of the tree. Raises CorruptionError."""
    entries = params.unpackb(data)
    if type(entries) is not list:
        raise CorruptionError("the objects of a step are not a list")
    return [_as_item(entry) for entry in entries]


def encode_items(items: Iterable[Item]) -> bytes:
    return params.packb([[item.header, item.content] for item in items])


def _as_item(entry: Any) -> Item:
    try:
        header, content = entry
    except (TypeError, ValueError):
        raise CorruptionError("an object is no pair of header and content") from None
    if not isinstance(header, dict) or not isinstance(content, bytes | Blob):
        raise CorruptionError("an object is no pair of header and content")
    return Item(header, content)


@dataclass(frozen=True)
class ObjectRecord:
    """An OBJECT record of a journal: where it lies, its order, its items packed. What follows them is read when asked for."""

    offset: int
    order: int
    packed: bytes

    def items(self) -> list[Item]:
        return decode_items(self.packed)

    def places(self) -> Iterator[tuple[Item, int]]:
        """Each item with the offset in the file at which its content lies, or 0 where it is not there."""
        at = self.offset + ext.RECORD_HEADER_SIZE + 8 + len(self.packed)
        for item in self.items():
            follows = isinstance(item.content, Blob) and _follows(item.header, item.size)
            yield item, at if follows else 0
            at += item.size if follows else 0


def decode_object_record(offset: int, order: int, payload: bytes) -> tuple[int, ObjectRecord]:
    """(number of the sequence, record). Raises ValueError for a payload that is none."""
    length = int.from_bytes(payload[4:8], "little")
    packed = payload[8 : 8 + length]
    if len(payload) < 8 or len(packed) != length:
        raise ValueError("an OBJECT record is cut short")
    decode_items(packed)
    return int.from_bytes(payload[:4], "little"), ObjectRecord(offset, order, packed)


def check_contents(path: Path, record: ObjectRecord) -> None:
    """That what follows the headers of a record in its journal are the contents that they name. Raises CorruptionError."""
    for item, place in record.places():
        if place:
            assert isinstance(item.content, Blob)
            read_content(path, place, item.content)


def read_content(path: Path, at: int, blob: Blob) -> bytes:
    """A content that lies in a journal. Raises CorruptionError, FileNotFoundError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(fd, blob.size, at)
    finally:
        os.close(fd)
    return checked_content(content, blob, path, at)


def checked_content(content: bytes, blob: Blob, path: Path, at: int | None = None) -> bytes:
    if sha256(content) != blob.digest:
        raise CorruptionError("an object's content does not match its SHA-256", path, at)
    return content
