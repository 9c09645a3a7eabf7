"""PNG of 16 bits a channel with more channels than one, which Pillow neither writes nor reads whole. W3C PNG, third edition, sections 5
and 9. `decode` reads what `encode` writes and whatever else uses the row filters None, Sub and Up alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aimlite.storage.loading import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → colour type
_CHANNELS = {colour: channels for channels, colour in _COLOUR_TYPES.items()}
_NONE, _SUB, _UP = 0, 1, 2


def encode(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """pixels: uint16 little-endian, height × width × channels, rows from the top."""
    load("numpy")
    import numpy as np

    image = np.frombuffer(pixels, "<u2").reshape(height, width * channels)
    rows = image.astype(">u2").view(np.uint8)
    before = np.zeros_like(rows)
    before[1:] = rows[:-1]
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[:, 1:] = rows - before
    head = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)) + _chunk(b"IEND", b"")


def decode(data: bytes, max_pixels: int = 1 << 62) -> NDArray[Any] | None:
    """uint16[height, width, channels]; None for a PNG of another kind: of 8 bits, interlaced, with other filters. Raises ValueError for
    one that is damaged."""
    load("numpy")
    import numpy as np

    head, packed = b"", []
    for name, content in chunks(data):
        if name == b"IHDR":
            head = content
        elif name == b"IDAT":
            packed.append(content)
    if len(head) != 13:
        raise ValueError("a PNG without a header")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    if bits != 16 or interlaced or colour not in _CHANNELS:
        return None
    if width * height > max_pixels:
        raise ValueError(f"a PNG of {width:,} × {height:,} pixels, where {max_pixels:,} are the most")
    channels = _CHANNELS[colour]
    size = height * (1 + 2 * width * channels)
    try:
        filtered = zlib.decompressobj().decompress(b"".join(packed), size)
    except zlib.error as error:
        raise ValueError(f"a damaged PNG: {error}") from None
    if len(filtered) != size or not size:
        raise ValueError("a PNG with too few pixels")
    table = np.frombuffer(filtered, np.uint8).reshape(height, -1)
    if table[:, 0].max() > _UP:
        return None
    rows = table[:, 1:].copy()
    pixel = 2 * channels
    for y, kind in enumerate(table[:, 0].tolist()):
        if kind == _UP and y:
            rows[y] += rows[y - 1]
        elif kind == _SUB:
            rows[y] = np.cumsum(rows[y].reshape(-1, pixel), axis=0, dtype=np.uint8).reshape(-1)
    return rows.view(">u2").astype(np.uint16).reshape(height, width, channels)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk. Raises ValueError where they do not fit."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG")
    at = len(_SIGNATURE)
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError("a truncated PNG")
        [length] = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            raise ValueError("a truncated PNG")
        content = data[at + 8 : end]
        if struct.unpack_from(">I", data, end)[0] != zlib.crc32(content, zlib.crc32(name)):
            raise ValueError(f"a damaged PNG: the check of its chunk {name!r} fails")
        yield name, content
        if name == b"IEND":
            return
        at = end + 4
    raise ValueError("a truncated PNG")
