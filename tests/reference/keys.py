"""Key tuples in plain Python ("Key tuples" in docs/format.md)."""

from __future__ import annotations

import struct
from typing import Any

MAX_NESTING = 64


def escaped(content: bytes) -> bytes:
    return content.replace(b"\0", b"\0\xff") + b"\0"


def encode_int(value: int) -> bytes:
    magnitude = abs(value)
    n = (magnitude.bit_length() + 7) // 8
    if n > 255:
        raise ValueError("too large")
    content = (value if value >= 0 else 256**n - 1 + value).to_bytes(n, "big")
    if n <= 8:
        return bytes([0x14 + n if value >= 0 else 0x14 - n]) + content
    return (bytes([0x1D, n]) if value >= 0 else bytes([0x0B, n ^ 0xFF])) + content


def encode_float(value: float) -> bytes:
    bits = int.from_bytes(struct.pack(">d", value), "big")
    bits = ~bits & (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return b"\x21" + bits.to_bytes(8, "big")


def encode_map(pairs: dict[str, Any], depth: int) -> bytes:
    return b"\x40" + b"".join(sorted(encode(key, depth) + encode(value, depth) for key, value in pairs.items())) + b"\0"


def encode(value: Any, depth: int = 0) -> bytes:
    if isinstance(value, (tuple, list, dict)) and depth == MAX_NESTING:
        raise ValueError("nested too deep")
    match value:
        case None:
            return b"\0\xff" if depth else b"\0"
        case bool():
            return b"\x27" if value else b"\x26"
        case bytes():
            return b"\x01" + escaped(value)
        case str():
            return b"\x02" + escaped(value.encode())
        case int():
            return encode_int(value)
        case float():
            return encode_float(value)
        case tuple() | list():
            return b"\x05" + b"".join(encode(item, depth + 1) for item in value) + b"\0"
        case dict():
            return encode_map(value, depth + 1)
    raise TypeError(type(value).__name__)


def pack(elements: tuple[Any, ...]) -> bytes:
    return b"".join(encode(element) for element in elements)


def decode_content(data: bytes, at: int) -> tuple[bytes, int]:
    content = bytearray()
    while True:
        end = data.index(b"\0", at)
        content += data[at:end]
        if data[end + 1 : end + 2] != b"\xff":
            return bytes(content), end + 1
        content.append(0)
        at = end + 2


def decode_number(data: bytes, at: int, n: int) -> tuple[int, int]:
    if len(data) < at + n:
        raise ValueError("cut short")
    return int.from_bytes(data[at : at + n], "big"), at + n


def decode_nested(data: bytes, at: int, depth: int) -> tuple[tuple[Any, ...], int]:
    elements = []
    while data[at] != 0 or data[at + 1 : at + 2] == b"\xff":
        element, at = decode(data, at, depth)
        elements.append(element)
    return tuple(elements), at + 1


def decode_map(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    pairs = {}
    while data[at] == 2:
        key, at = decode(data, at, depth)
        pairs[key], at = decode(data, at, depth)
    if data[at] != 0:
        raise ValueError("a map key that is not a str")
    return pairs, at + 1


def decode(data: bytes, at: int, depth: int = 0) -> tuple[Any, int]:
    """(value, where the next element begins). Takes more than pack would write: unpack compares."""
    code, at = data[at], at + 1
    if code == 0x00:
        return None, at + 1 if depth else at
    if code == 0x01:
        return decode_content(data, at)
    if code == 0x02:
        content, at = decode_content(data, at)
        return content.decode(), at
    if 0x14 <= code <= 0x1C:
        return decode_number(data, at, code - 0x14)
    if 0x0C <= code < 0x14:
        number, at = decode_number(data, at, 0x14 - code)
        return number - 256 ** (0x14 - code) + 1, at
    if code == 0x1D:
        return decode_number(data, at + 1, data[at])
    if code == 0x0B:
        n = data[at] ^ 0xFF
        number, at = decode_number(data, at + 1, n)
        return number - 256**n + 1, at
    if code == 0x21:
        bits, at = decode_number(data, at, 8)
        bits = bits ^ 1 << 63 if bits >> 63 else ~bits & (2**64 - 1)
        return struct.unpack(">d", bits.to_bytes(8, "big"))[0], at
    if code in (0x26, 0x27):
        return code == 0x27, at
    if code == 0x05:
        return decode_nested(data, at, depth + 1)
    if code == 0x40:
        return decode_map(data, at, depth + 1)
    raise ValueError(f"code {code:02x}")


def unpack(data: bytes) -> tuple[Any, ...]:
    elements, at = [], 0
    try:
        while at < len(data):
            element, at = decode(data, at)
            elements.append(element)
    except IndexError:
        raise ValueError("cut short") from None
    if pack(tuple(elements)) != data:
        raise ValueError("not as pack writes it")
    return tuple(elements)
