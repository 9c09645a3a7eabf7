"""Whether tracking is on, for the whole process."""

from __future__ import annotations

import os
from contextlib import ContextDecorator
from types import TracebackType

_OFF = ("0", "false", "no", "n", "off")
_enabled: bool | None = None  # None: AIMLITE_ENABLED decides


def is_enabled() -> bool:
    """Whether `init` opens runs: what `set_enabled` or `enabled` said, else AIMLITE_ENABLED (0, false, no, n, off are off), else True."""
    return os.environ.get("AIMLITE_ENABLED", "").strip().lower() not in _OFF if _enabled is None else _enabled


def set_enabled(flag: bool) -> None:
    """Turns tracking on or off for the runs that `init` opens from now on; those that are open go on. Raises TypeError."""
    global _enabled
    _enabled = _checked(flag)


class enabled(ContextDecorator):
    """Turns tracking on or off within a `with` block or a function, and back to what it was after it. Raises TypeError."""

    def __init__(self, flag: bool = True) -> None:
        self.flag = _checked(flag)
        self._before: list[bool | None] = []

    def _recreate_cm(self) -> enabled:
        return type(self)(self.flag)  # each call of a decorated function has its own

    def __enter__(self) -> enabled:
        global _enabled
        self._before.append(_enabled)
        _enabled = self.flag
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        global _enabled
        _enabled = self._before.pop()


def _checked(flag: object) -> bool:
    if not isinstance(flag, bool):
        raise TypeError(f"tracking is enabled with True or False, not {type(flag).__name__} {flag!r:.100}")
    return flag
