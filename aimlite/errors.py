"""Every exception aimlite raises on purpose, one sentence of *when* each.

AimliteError
├── RunNotFound(KeyError)          no run has this hash
├── RunClosedError(ValueError)     a write on a run that was closed or finished
├── ReadOnlyError(PermissionError) a write on a run opened with read_only=True
├── RepoFormatError(ValueError)    the repo was written by a newer aimlite, or is not a repo
├── CorruptionError(ValueError)    bytes on disk are not what was written
└── MergeError(RuntimeError)       the merge helper could not be started or failed

Wrong arguments raise the builtin `TypeError` or `ValueError`; a full disk or missing permission the `OSError` of the system.
"""

from __future__ import annotations

from os import PathLike, fspath


class AimliteError(Exception):
    """The root of aimlite's own exceptions."""


class RunNotFound(AimliteError, KeyError):
    """Raised when a run is asked for by a hash that no run in the repo has."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else ""


class RunClosedError(AimliteError, ValueError):
    """Raised when something is written to a run after `close()` or `finish()`."""


class ReadOnlyError(AimliteError, PermissionError):
    """Raised when something is written through a run opened with `read_only=True`."""


class RepoFormatError(AimliteError, ValueError):
    """Raised at open when a repo's `VERSION` is newer than this aimlite or cannot be read."""


class MergeError(AimliteError, RuntimeError):
    """Raised by `Repo.merge()` and `Repo.repair()` when the helper process fails; the journals stay as they were."""


class CorruptionError(AimliteError, ValueError):
    """Raised when bytes read back fail their checks.

    path: the file, or None where the bytes came from memory. offset: where in the file (or buffer) the first bad byte is known to lie, or
    None.
    """

    def __init__(self, message: str, path: str | PathLike[str] | None = None, offset: int | None = None) -> None:
        super().__init__(message, path, offset)
        self.message = message
        self.path = None if path is None else fspath(path)
        self.offset = offset

    def __str__(self) -> str:
        where = f"{self.path or 'bytes'}" + (f" at offset {self.offset}" if self.offset is not None else "")
        return f"{self.message} ({where})"
