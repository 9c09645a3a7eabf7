"""Items of objects brought to their final form: pixels become png, jpeg or webp, samples become flac.

An item is (header, payload). One whose header has `raw` is unfinished: its payload is what the training loop handed over, and costs it
no compression. The merge helper finishes it; a reader that meets it earlier calls the same function, so what is read is the same before
and after a merge. `finish` depends on nothing but the item and the versions of the encoders.

`raw` of an image: the layout of its pixels, rows from the top, without padding but for that of `1` (below). Of audio: `wav`.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from aimlite.storage import png16
from aimlite.storage.loading import load

Item = tuple[dict[str, Any], bytes]

# layout of pixels → bits of one; 16-bit ones are little-endian; rows of `1` begin at whole bytes, the first pixel in the highest bit
PIXEL_BITS = {"1": 1, "L": 8, "LA": 16, "RGB": 24, "RGBA": 32, "I;16": 16, "LA;16": 32, "RGB;16": 48, "RGBA;16": 64}
DEEP_COLOURS = ("LA;16", "RGB;16", "RGBA;16")  # what Pillow has no mode for
# Pillow imports those of its first formats when it first needs one, in whichever thread that is.
PILLOW = ("PIL.Image", *(f"PIL.{form}ImagePlugin" for form in ("Bmp", "Gif", "Jpeg", "Png", "Ppm", "WebP")))
_ONLY_RAW = ("raw", "quality", "optimize")
# What encoders raise for an item whose header and payload do not fit. soundfile's errors are RuntimeErrors, Pillow's may be SystemErrors.
_FAILURES = (
    *(ImportError, OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(MemoryError, SystemError, struct.error),
)


def is_finished(header: dict[str, Any]) -> bool:
    return "raw" not in header


def finish(header: dict[str, Any], payload: bytes) -> Item:
    """The item in its final form. It is returned as it is where it has that already, where the library that it takes (Pillow, soundfile)
    is not installed, and where header and payload do not fit together: reading the object tells what is wrong then. Never raises for what
    an item holds."""
    raw = header.get("raw")
    try:
        if raw is None:
            return header, payload
        content = _flac(payload) if raw == "wav" else _image(header, payload)
    except _FAILURES:
        return header, payload
    return {key: value for key, value in header.items() if key not in _ONLY_RAW}, content


def pixel_bytes(raw: str, width: int, height: int) -> int:
    """How many bytes the pixels take. Raises KeyError for a layout that there is not."""
    return (PIXEL_BITS[raw] * width + 7) // 8 * height


def _image(header: dict[str, Any], pixels: bytes) -> bytes:
    raw, width, height = header["raw"], header["width"], header["height"]
    if len(pixels) != pixel_bytes(raw, width, height):
        raise ValueError("pixels of another size")
    if raw in DEEP_COLOURS:
        return png16.encode(pixels, width, height, len(raw) - 3)
    load(*PILLOW)
    from PIL import Image

    picture = Image.frombytes(raw, (width, height), pixels)
    return encode_image(picture, header["format"], header.get("quality", 90), header.get("optimize", False))


def encode_image(picture: Any, form: str, quality: int, optimize: bool) -> bytes:
    """A Pillow image as png, jpeg or webp. jpeg knows no transparency: what is transparent shows white."""
    if form != "png" and picture.mode == "1":
        picture = picture.convert("L")
    if form == "jpeg" and picture.mode in ("LA", "RGBA"):
        load(*PILLOW)
        from PIL import Image

        colours = "L" if picture.mode == "LA" else "RGB"
        white = Image.new(colours, picture.size, "white")
        white.paste(picture.convert(colours), mask=picture.getchannel("A"))
        picture = white
    options: dict[str, dict[str, Any]] = {
        "png": {"optimize": optimize},
        "jpeg": {"quality": quality, "optimize": optimize},
        "webp": {"quality": quality, "method": 6 if optimize else 4},
    }
    buffer = io.BytesIO()
    picture.save(buffer, form, **options[form])
    return buffer.getvalue()


def _flac(wav: bytes) -> bytes:
    load("soundfile")
    import soundfile

    with soundfile.SoundFile(io.BytesIO(wav)) as file:
        form = file.subtype
        samples = file.read(dtype="int16" if form in ("PCM_U8", "PCM_16") else "int32", always_2d=True)
        rate = file.samplerate
    if form in ("FLOAT", "DOUBLE"):
        raise ValueError("flac holds integers")
    buffer = io.BytesIO()
    subtype = {"PCM_U8": "PCM_S8", "PCM_16": "PCM_16"}.get(form, "PCM_24")
    soundfile.write(buffer, samples, rate, format="FLAC", subtype=subtype)
    return buffer.getvalue()
