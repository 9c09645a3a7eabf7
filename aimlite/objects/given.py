"""What users hand over, told apart without importing the libraries that it comes from: a value of a library's class is there only once
the library is."""

from __future__ import annotations

import math
import os
import stat
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlite.storage.loading import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE_BYTES = 1 << 30
MAX_ITERATED = 10_000_000  # items of what tells no length beforehand
_PIECE = 1 << 20


def is_of(value: object, module: str, *names: str) -> bool:
    """Whether value is an instance of one of the classes of that name in a module."""
    found = sys.modules.get(module)
    classes = tuple(kind for name in names if isinstance(kind := getattr(found, name, None), type))
    return isinstance(value, classes)


def is_matplotlib(value: object) -> bool:
    return is_of(value, "matplotlib.figure", "Figure")


def is_tensor(value: object) -> bool:
    """Whether it is a tensor of torch: channels come first in those."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def is_array(value: object) -> bool:
    return is_tensor(value) or hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def as_array(value: Any) -> NDArray[Any]:
    """A numpy array of an array or a tensor of torch, TensorFlow or JAX, on whatever device; bfloat16, which numpy has not, becomes
    float32. No copy where there need be none."""
    load("numpy")
    import numpy as np

    if is_tensor(value):
        value = value.detach().cpu()
        if str(getattr(value, "dtype", "")).endswith("bfloat16"):
            value = value.float()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def demand_items(value: Any, most: int, what: str) -> None:
    """Raises ValueError where an array or tensor says that it has more items than `most`: what it repeats without holding it would be
    copied out."""
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape) and math.prod(shape) > most:
        raise ValueError(f"{what} has at most {most:,} items; this array of shape {tuple(shape)} has {math.prod(shape):,}")


def listed(values: Iterable[Any], what: str, most: int = MAX_ITERATED) -> list[Any]:
    """All that an iterable gives. Raises ValueError where it gives more than `most`."""
    found = list(islice(values, most + 1))
    if len(found) > most:
        raise ValueError(f"{what} came from an iterable that gives more than {most:,} items: give an array")
    return found


def content(value: Any, what: str) -> tuple[bytes, str] | None:
    """(bytes, what they are for people) of a path, bytes or a binary file; None for anything else. Raises OSError, TypeError, ValueError
    (no regular file, or a larger one than MAX_FILE_BYTES)."""
    if isinstance(value, str | os.PathLike):
        path = Path(value).expanduser()
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a fifo would be waited for
            raise ValueError(f"{what} takes a regular file, and {path} is none")
        with open(path, "rb") as file:
            return _limited(file, what, f"the file {path}"), f"the file {path}"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), f"the {len(value)} bytes"
    if hasattr(value, "getvalue") and hasattr(value, "read"):
        value = value.getvalue()
    elif hasattr(value, "read") and not is_array(value):
        value = _limited(value, what, "the file")
    else:
        return None
    if not isinstance(value, bytes):
        raise TypeError(f"{what} takes a file opened in binary mode, not one of text")
    return value, f"the {len(value)} bytes of the file"


def _limited(file: Any, what: str, told: str) -> Any:
    """What is left in a file. Raises ValueError where that is too much."""
    try:
        found = os.fstat(file.fileno())
    except (AttributeError, OSError, ValueError):  # it has no descriptor
        found = None
    if found is not None and (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise ValueError(f"{what} takes a regular file, and {told} is a device")
    if found is not None and found.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{what} takes files of at most {MAX_FILE_BYTES:,} bytes; {told} has {found.st_size:,}")
    pieces, size = [], 0
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{what} takes files of at most {MAX_FILE_BYTES:,} bytes; {told} has more")
    return type(pieces[0])().join(pieces) if pieces else b""
