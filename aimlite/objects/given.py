"""What users hand over, told apart without importing the libraries that it comes from: a value of a library's class is there only once
the library is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlite.storage.loading import load

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def content(value: Any, what: str) -> tuple[bytes, str] | None:
    """(bytes, what they are for people) of a path, bytes or a binary file; None for anything else. Raises OSError, TypeError."""
    if isinstance(value, str | os.PathLike):
        path = Path(value).expanduser()
        return path.read_bytes(), f"the file {path}"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), f"the {len(value)} bytes"
    if hasattr(value, "getvalue") and hasattr(value, "read"):
        value = value.getvalue()
    elif hasattr(value, "read") and not is_array(value):
        value = value.read()
    else:
        return None
    if not isinstance(value, bytes):
        raise TypeError(f"{what} takes a file opened in binary mode, not one of text")
    return value, f"the {len(value)} bytes of the file"
