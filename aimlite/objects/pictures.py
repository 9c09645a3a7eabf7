"""What the bytes of a picture say of themselves, read without decoding them: format, width and height, and whether they are all there.

Formats: PNG (W3C, third edition), JPEG (ITU T.81), GIF (GIF89a), WebP (RFC 9649).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from aimlite.storage import png16

MAX_PIXELS = 89_478_485  # beyond it Pillow, which decodes them in the end, warns of a decompression bomb


class Picture(NamedTuple):
    format: str
    width: int
    height: int
    frames: int  # 1 where it is not told without decoding


def sniff(data: bytes) -> Picture | None:
    """None for what is neither png, jpeg, gif nor webp. Raises ValueError for one of these that is truncated or damaged."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):  # looked behind the end
        raise ValueError("truncated") from None
    return None


def _png(data: bytes) -> Picture:
    width = height = frames = 0
    pixels = False
    for number, (name, content) in enumerate(png16.chunks(data)):
        if number == 0:
            if name != b"IHDR" or len(content) != 13:
                raise ValueError("a damaged PNG: it does not begin with IHDR")
            width, height = struct.unpack_from(">II", content)
        elif name == b"acTL":
            [frames] = struct.unpack_from(">I", content)
        pixels = pixels or name == b"IDAT"
    if not pixels:
        raise ValueError("a damaged PNG: it has no pixels")
    return Picture("png", width, height, max(1, frames))


def _jpeg(data: bytes) -> Picture:
    at, size = 2, (0, 0)
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise ValueError(f"a damaged JPEG: no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        if marker == 0xD9:
            raise ValueError("a damaged JPEG: it has no pixels")
        [length] = struct.unpack_from(">H", data, at + 2)
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + max(2, length)
    if data.rfind(b"\xff\xd9", at) < 0:
        raise ValueError("a truncated JPEG")
    return Picture("jpeg", *size, 1)


def _gif(data: bytes) -> Picture:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = 0
    while at < len(data) or not frames:
        kind = data[at]
        if kind == 0x3B:
            break
        if kind == 0x21:
            at += 2
        elif kind == 0x2C:
            flags = data[at + 9]
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            frames += 1
        else:
            raise ValueError(f"a damaged GIF: no block at byte {at}")
        while data[at]:  # sub-blocks
            at += 1 + data[at]
        at += 1
    if not frames:
        raise ValueError("a damaged GIF: it has no picture")
    return Picture("gif", width, height, frames)


def _webp(data: bytes) -> Picture:
    [size] = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ValueError("a truncated WebP")
    kind = data[12:16]
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise ValueError("a damaged WebP: it has no key frame")
        width, height = struct.unpack_from("<HH", data, 26)
        return Picture("webp", width & 0x3FFF, height & 0x3FFF, 1)
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise ValueError("a damaged WebP")
        [bits] = struct.unpack_from("<I", data, 21)
        return Picture("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1)
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return Picture("webp", width, height, max(1, data.count(b"ANMF") if data[20] & 2 else 1))
    raise ValueError(f"a damaged WebP: its first part is {kind!r}")


def looks_like(data: bytes) -> str:
    """What bytes that are no picture seem to be, for people."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").lower()
    if b"<svg" in start or b"<!doctype svg" in start:
        return "SVG, which is text that may hold scripts"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "HTML"
    if start.startswith(b"<"):
        return "XML"
    if start.startswith(b"%pdf"):
        return "PDF"
    if not data:
        return "nothing"
    return f"something that begins with {data[:12]!r}"
