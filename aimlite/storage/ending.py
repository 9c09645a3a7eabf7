"""How this process ends, as far as Python tells: what a run that is still open then ends as, and with which error.

`sys.excepthook` tells of an uncaught exception. The status given to `sys.exit()` is told by nobody but the C library, where that is glibc:
there the journal leaves its last words (`JournalWriter.detach_at_exit`). Elsewhere `sys.exit` itself is watched.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from aimlite._ext import journal
from aimlite.storage.loading import load

INTERRUPTED_STATUSES = (130, 143)  # as shells call what SIGINT and SIGTERM ended
_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 50_000  # characters; its end is kept

Error = list[str]  # type, message, traceback
redact: Callable[[str], str] = str  # what takes secrets out of them; those who know what a secret is put it here

_status: str | None = None  # None: nothing is known but that the interpreter exits
_error: Error | None = None
_exit_code: object = None  # of the sys.exit() that ends the process, where it is watched


def ending() -> tuple[str | None, Error | None]:
    """(status, error) with which the interpreter exits; status None where nothing speaks against 'finished'."""
    if _status is not None:
        return _status, _error
    if not journal.TELLS_EXIT_STATUS:
        if _exit_code is not None:
            return status_of_exit(_exit_code), None
        if not hasattr(sys, "ps1") and last_error() is not None:
            return "failed", last_error()
    return None, None


def last_error() -> Error | None:
    """The last exception that nobody caught: of a process that failed it is why, whichever hook it was given to, IPython's too. At a prompt
    it may be long ago."""
    error = getattr(sys, "last_value", None)
    return None if error is None else describe_error(error)


def status_of_exit(code: object) -> str:
    """What a run ends as that `sys.exit(code)` ends."""
    if code is None or code == 0:
        return "finished"
    return "interrupted" if code in INTERRUPTED_STATUSES else "failed"


def describe_error(error: BaseException) -> Error:
    """An exception as it is recorded. Never raises."""
    try:
        message = str(error)
    except Exception as unprintable:
        message = f"<its text could not be had: {type(unprintable).__name__}>"
    trace = ""
    with contextlib.suppress(Exception):  # a __str__ or __repr__ of the user's
        load("traceback")
        import traceback

        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return [_storable(type(error).__name__), _public(message[:_LONGEST_MESSAGE]), _public(trace[-_LONGEST_TRACEBACK:])]


def _public(text: str) -> str:
    try:
        return _storable(redact(text))
    except Exception as error:
        return f"<left out, as secrets could not be looked for: {type(error).__name__}>"


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _note_exception(hook: Callable[..., object]) -> Callable[..., object]:
    def excepthook(kind: type[BaseException], error: BaseException, trace: object) -> object:
        global _status, _error
        if not hasattr(sys, "ps1"):  # at a prompt the process goes on
            if issubclass(kind, KeyboardInterrupt):
                _status, _error = "interrupted", None
            else:
                _status, _error = "failed", describe_error(error)
        return hook(kind, error, trace)

    return excepthook


class _Exit(SystemExit):
    """The SystemExit of a watched sys.exit(): one whose end can be seen."""


_Exit.__name__ = _Exit.__qualname__ = "SystemExit"


def watch_sys_exit() -> None:
    """Notes the status of the `sys.exit()` that ends the process. A SystemExit that somebody catches is dropped while Python code runs; one
    that ends the process, when none does any more."""
    whole = sys.exit

    def watched(status: Any = None, /) -> Any:
        if threading.current_thread() is not threading.main_thread():
            whole(status)
        raise _noted(status)

    sys.exit = watched


def _noted(status: Any) -> _Exit:
    error = _Exit(status) if not isinstance(status, tuple) else _Exit(*status)

    def gone(reference: weakref.ref[_Exit]) -> None:
        global _exit_code
        _watched.discard(reference)
        if sys._getframe().f_back is None:
            _exit_code = 0 if status is None else status if isinstance(status, int) else 1

    _watched.add(weakref.ref(error, gone))
    return error


_watched: set[weakref.ref[_Exit]] = set()

sys.excepthook = _note_exception(sys.excepthook)
if not journal.TELLS_EXIT_STATUS:
    watch_sys_exit()
