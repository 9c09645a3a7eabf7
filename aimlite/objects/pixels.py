"""Arrays as rows of pixels, and back. Layouts are those of `aimlite.storage.media`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aimlite.objects.pictures import MAX_PIXELS
from aimlite.storage.loading import load
from aimlite.storage.media import DEEP_COLOURS, PIXEL_BITS, pixel_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACCEPTED = (
    "HW, HWC or CHW with 1, 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels, of uint8, uint16, bool, or float from 0 to 1"  # for messages
)
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEEP = {1: "I;16", 2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}
_ROUNDING = 1e-6  # floats that miss 0 or 1 by so little were meant to be that


class Pixels(NamedTuple):
    layout: str
    width: int
    height: int
    data: bytes


def from_array(array: NDArray[Any], channels_first: bool) -> Pixels:
    """channels_first: which axis the channels are on where the shape leaves both possible. Raises TypeError, ValueError."""
    load("numpy")
    import numpy as np

    image = _rows_and_columns(array, channels_first)
    height, width = image.shape[:2]
    if width * height > MAX_PIXELS:
        raise ValueError(f"an image has at most {MAX_PIXELS:,} pixels; this has {width:,} × {height:,}")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype == bool and image.ndim == 2:
        return Pixels("1", width, height, np.packbits(image, axis=1).tobytes())
    if image.dtype == np.uint16:
        return Pixels(_DEEP[channels], width, height, image.astype("<u2", copy=False).tobytes())
    return Pixels(_CHANNELS[channels], width, height, _bytes(image).tobytes())


def _rows_and_columns(array: NDArray[Any], channels_first: bool) -> NDArray[Any]:
    """HW or HWC with 2 to 4 channels."""
    shape, dtype = array.shape, array.dtype
    if not (dtype.kind in "bf" or (dtype.kind == "u" and dtype.itemsize <= 2)):
        raise TypeError(f"an image is {ACCEPTED}; this is {_told(array)}")
    first, last = array.ndim == 3 and shape[0] in _CHANNELS, array.ndim == 3 and shape[2] in _CHANNELS
    if array.ndim == 4:
        raise ValueError(f"an image is {ACCEPTED}; this is {_told(array)}: track a batch as a list of images (convert_to_image_list)")
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and not (first or last)):
        raise ValueError(f"an image is {ACCEPTED}, and not empty; this is {_told(array)}")
    if first and (channels_first or not last):
        array = array.transpose(1, 2, 0)
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _told(array: NDArray[Any]) -> str:
    return f"an array of shape {array.shape} and {array.dtype}"


def _bytes(image: NDArray[Any]) -> NDArray[Any]:
    """uint8 of the same shape. Raises ValueError for floats out of range."""
    load("numpy")
    import numpy as np

    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    low, high = float(image.min()), float(image.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN too
        raise ValueError(
            f"floats of an image lie from 0 to 1; these lie from {low:g} to {high:g}: scale them, "
            "or give 0 to 255 as uint8 (array.astype('uint8'))"
        )
    wide = image.astype(np.float32 if image.dtype.itemsize < 4 else image.dtype)
    scaled: NDArray[Any] = np.clip(np.rint(wide * 255), 0, 255).astype(np.uint8)
    return scaled


def to_array(pixels: Pixels) -> NDArray[Any]:
    """bool[height, width] of the layout `1`; uint8 or uint16, [height, width] or [height, width, channels] of the others; its own
    memory."""
    load("numpy")
    import numpy as np

    layout, width, height, data = pixels
    if len(data) != pixel_bytes(layout, width, height):
        raise ValueError(f"{len(data)} bytes of {width} × {height} pixels {layout}")
    if layout == "1":
        packed = np.frombuffer(data, np.uint8).reshape(height, -1)
        return np.unpackbits(packed, axis=1, count=width).astype(bool)
    deep = layout in DEEP_COLOURS or layout == "I;16"
    channels = PIXEL_BITS[layout] // (16 if deep else 8)
    flat = np.frombuffer(data, "<u2" if deep else "u1").astype(np.uint16 if deep else np.uint8)
    return flat.reshape((height, width) if channels == 1 else (height, width, channels))
