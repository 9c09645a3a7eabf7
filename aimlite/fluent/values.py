"""What `log` takes for a number, and for a step."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

_MAX_EXACT = 2**53
MAX_STEP = 2**63 - 1


def as_number(value: Any) -> float | int | None:
    """The number that a value is, as a metric keeps it; None when it is none: text, None, several numbers, integers beyond ±2^53."""
    if isinstance(value, bool | int | float):
        return value if isinstance(value, float) or abs(value) <= _MAX_EXACT else None
    if isinstance(value, Decimal | Fraction):
        return _as_float(value)
    if isinstance(value, str | bytes | bytearray | complex) or value is None:
        return None
    if getattr(value, "dtype", None) is None:  # neither an array nor a tensor
        return _as_float(value) if hasattr(value, "__float__") else None
    try:
        number = value.item()
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None
    return as_number(number) if isinstance(number, bool | int | float) else None


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def as_step(step: Any) -> int | None:
    """The integer that a step is; None when it is none: text, bool, fractions, NaN, more than 64 bits."""
    if getattr(step, "dtype", None) is not None:
        try:
            step = step.item()
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return None
    if isinstance(step, bool) or not isinstance(step, int | float):
        return None
    if isinstance(step, float) and not (math.isfinite(step) and step.is_integer()):
        return None
    number = int(step)
    return number if -MAX_STEP <= number < MAX_STEP else None
