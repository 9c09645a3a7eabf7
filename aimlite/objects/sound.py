"""What the bytes of audio say of themselves; samples as a wav file, and back, exactly.

Formats: RIFF WAVE (Microsoft, 1994 and its extensible form), FLAC (RFC 9639), MPEG audio (ISO 11172-3) with or without ID3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from aimlite.storage.loading import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DTYPES = ("uint8", "int16", "int32", "float32", "float64")  # what a wav file keeps exactly
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_LENGTH = 0xFFFFFFFF  # of a wav file written into a pipe
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # MPEG 1, 2, 2.5


class Sound(NamedTuple):
    format: str
    rate: int
    channels: int


class Wave(NamedTuple):
    """code: PCM, float, or another coding. begin, end: where its samples lie."""

    code: int
    bits: int
    rate: int
    channels: int
    begin: int
    end: int


def sniff(data: bytes) -> Sound | None:
    """None for what is neither wav, flac nor mp3. Raises ValueError for one that is truncated or damaged, as far as its head tells."""
    try:
        if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
            wave = wave_of(data)
            return Sound("wav", wave.rate, wave.channels)
        if data.startswith(b"fLaC"):
            return _flac(data)
        return _mp3(data)
    except (struct.error, IndexError):  # looked behind the end
        raise ValueError("truncated") from None


def encode_wav(samples: NDArray[np.generic], rate: int) -> bytes:
    """samples: [n] or [n, channels], of a dtype in DTYPES. Raises ValueError for more than a wav file holds."""
    load("numpy")
    import numpy as np

    channels = 1 if samples.ndim == 1 else samples.shape[1]
    width = samples.dtype.itemsize
    body = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).tobytes()
    code = _FLOAT if samples.dtype.kind == "f" else _PCM
    bytes_a_second = min(rate * channels * width, 0xFFFFFFFF)
    form = struct.pack("<HHIIHH", code, channels, rate, bytes_a_second, channels * width, 8 * width)
    parts = [b"fmt ", struct.pack("<I", len(form)), form]
    if code == _FLOAT:
        parts += [b"fact", struct.pack("<II", 4, len(samples))]
    parts += [b"data", struct.pack("<I", len(body)), body, b"\0" * (len(body) % 2)]
    size = 4 + sum(map(len, parts))
    if size >= _UNKNOWN_LENGTH:
        raise ValueError(f"a wav file holds less than 4 GiB; these samples take {size:,} bytes")
    return b"".join([b"RIFF", struct.pack("<I", size), b"WAVE", *parts])


def decode_wav(data: bytes) -> NDArray[np.generic] | None:
    """[n] of one channel, else [n, channels]: uint8, int16, int32 (of 24 bits: in the upper ones), float32 or float64; None for another
    coding. Raises ValueError."""
    load("numpy")
    import numpy as np

    wave = wave_of(data)
    body = memoryview(data)[wave.begin : wave.end]
    if wave.code == _PCM and wave.bits == 24:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body[: len(body) // 3 * 3], np.uint8).reshape(-1, 3)
        samples = wide.view("<i4").reshape(-1).astype(np.int32)
    else:
        dtype = {(_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}.get(
            (wave.code, wave.bits)
        )
        if dtype is None:
            return None
        kind = np.dtype(dtype)
        samples = np.frombuffer(body[: len(body) // kind.itemsize * kind.itemsize], kind).astype(kind.newbyteorder("="))
    whole = len(samples) // wave.channels * wave.channels
    return samples if wave.channels == 1 else samples[:whole].reshape(-1, wave.channels)


def wave_of(data: bytes) -> Wave:
    """Raises ValueError for a wav file that is truncated or says nothing of its samples."""
    at, form = 12, None
    while at + 8 <= len(data):
        name, [length] = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        begin = at + 8
        if name == b"fmt ":
            form = struct.unpack_from("<HHIIHH", data, begin)
            if form[0] == _EXTENSIBLE and length >= 26:
                form = (*struct.unpack_from("<H", data, begin + 24), *form[1:])
        elif name == b"data":
            if form is None:
                raise ValueError("a damaged wav: its samples come before their format")
            code, channels, rate, _, _, bits = form
            end = len(data) if length == _UNKNOWN_LENGTH else begin + length
            if end > len(data):
                raise ValueError(f"a truncated wav: {len(data) - begin:,} of {length:,} bytes of samples")
            if not (channels and rate and bits):
                raise ValueError(f"a damaged wav: {channels} channels, {rate} Hz, {bits} bits")
            return Wave(code, bits, rate, channels, begin, end)
        at = begin + length + length % 2
    raise ValueError("a truncated wav: it has no samples")


def _flac(data: bytes) -> Sound:
    if data[4] & 0x7F or len(data) < 42:
        raise ValueError("a damaged flac: it does not begin with STREAMINFO")
    packed = int.from_bytes(data[18:22], "big")
    rate, channels = packed >> 12, (packed >> 9 & 7) + 1
    if not rate:
        raise ValueError("a damaged flac: 0 Hz")
    return Sound("flac", rate, channels)


def _mp3(data: bytes) -> Sound | None:
    at = 0
    if data.startswith(b"ID3"):
        at = 10 + (data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9])
        at += 10 if data[5] & 0x10 else 0
        while at < len(data) and not data[at]:  # padding
            at += 1
        if at + 4 > len(data):
            raise ValueError("a truncated mp3: it ends within its ID3 tag")
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    bitrate, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or layer != 1 or bitrate == 15 or rate == 3:
        return None
    return Sound("mp3", _MP3_RATES[version][rate], 1 if data[at + 3] >> 6 == 3 else 2)
