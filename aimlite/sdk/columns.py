"""Columns as users pass them, as arrays the journal takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimlite.objects.given import demand_items, listed

_MAX_EXACT = 2**53
MAX_COLUMN = 1 << 30


def as_values(values: Any) -> tuple[NDArray[np.float64], bool]:
    """(float64[n], whether they were integers). Raises TypeError, ValueError."""
    column = _column("values", values)
    if column.dtype.kind in "iu":
        _demand_exact(column)
        return np.ascontiguousarray(column, "<f8"), True
    if column.dtype.kind == "b":
        return np.ascontiguousarray(column, "<f8"), True
    return _floats("values", column), False


def as_steps(steps: Any, n: int) -> NDArray[np.int64] | None:
    """int64[n]. Raises TypeError, ValueError."""
    if steps is None:
        return None
    column = _of_length("steps", _column("steps", steps), n)
    if column.dtype.kind == "u" and column.dtype.itemsize == 8 and bool(np.any(column > np.uint64(2**63 - 1))):
        raise ValueError(f"steps: {int(column.max())} is outside of 64 bits")
    if column.dtype.kind in "iu":
        return np.ascontiguousarray(column, "<i8")
    if column.dtype.kind != "f":
        raise TypeError(f"steps are integers, not {column.dtype}")
    bad = ~(np.isfinite(column) & (column == np.floor(column)) & (np.abs(column) < 2.0**63))
    if bad.any():
        raise ValueError(f"steps are integers, not {column[bad][0]!r}")
    return np.ascontiguousarray(column, "<i8")


def as_epochs(epochs: Any, n: int) -> NDArray[np.float64] | float | None:
    """float64[n], one float, or None. Raises TypeError, ValueError."""
    if epochs is None:
        return None
    if np.ndim(epochs) == 0:
        return float(_floats("epochs", np.asarray(epochs).reshape(1))[0])
    return _floats("epochs", _of_length("epochs", _column("epochs", epochs), n))


def as_times(times: Any, n: int) -> NDArray[np.int64] | None:
    """int64[n] microseconds from seconds since 1970. Raises TypeError, ValueError."""
    if times is None:
        return None
    seconds = _floats("times", _of_length("times", _column("times", times), n))
    if not bool(np.all(np.isfinite(seconds) & (np.abs(seconds) < 9e12))):
        raise ValueError("times are finite seconds since 1970")
    return np.ascontiguousarray(np.round(seconds * 1e6), "<i8")


def _column(what: str, data: Any) -> NDArray[Any]:
    if isinstance(data, str | bytes) or data is None:
        raise TypeError(f"{what} are a column of numbers, not {type(data).__name__}")
    if hasattr(data, "detach"):
        data = data.detach()
    if hasattr(data, "cpu"):
        data = data.cpu()
    demand_items(data, MAX_COLUMN, f"a column ({what})")
    if not hasattr(data, "__len__") and hasattr(data, "__iter__"):
        data = listed(data, what)
    if np.ma.is_masked(data):
        raise TypeError(f"{what} are numbers, and some of these are masked out; leave them out, or put NaN there")
    column = np.asarray(data)
    if column.ndim != 1:
        raise TypeError(f"{what} are a column of numbers (one dimension), not an array of shape {column.shape}")
    if column.dtype.kind == "O" and all(isinstance(item, int) for item in column):
        try:
            return column.astype(np.int64)
        except OverflowError:
            raise ValueError(f"{what}: integers beyond 64 bits cannot be stored") from None
    return column


def _of_length(what: str, column: NDArray[Any], n: int) -> NDArray[Any]:
    if len(column) != n:
        raise ValueError(f"{what} has {len(column)} items, values has {n}")
    return column


def _floats(what: str, column: NDArray[Any]) -> NDArray[np.float64]:
    if column.dtype.kind in "iub" or column.dtype.kind == "f":
        return np.ascontiguousarray(column, "<f8")
    if column.size == 0:
        return np.empty(0, "<f8")
    raise TypeError(f"{what} are numbers, not {column.dtype}")


def _demand_exact(column: NDArray[Any]) -> None:
    if column.dtype.itemsize < 8 or not column.size:
        return
    for extreme in (int(column.min()), int(column.max())):
        if abs(extreme) > _MAX_EXACT:
            raise ValueError(f"the value {extreme} does not fit: integers beyond ±2**53 cannot be read back as float64")
