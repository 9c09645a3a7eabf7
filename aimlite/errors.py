"""Every exception aimlite raises on purpose, one sentence of *when* each.

AimliteError
├── RunNotFound(KeyError)          no run has this hash
│   └── RunTrashed                 it lies in the trash
├── RunActiveError(RuntimeError)   what a process is writing was to be deleted or moved, unforced
├── RunExistsError(ValueError)     a run was to be copied or imported where its hash is taken
├── ArchiveError(ValueError)       a file is no archive of runs, or a damaged one
├── RepoExistsError(FileExistsError) a backup was to be written where something is
├── RepoNotFound(FileNotFoundError) a repo that only was to be read is not there
├── RunClosedError(ValueError)     a write on a run that was closed or finished
├── ReadOnlyError(PermissionError) a write on a run opened with read_only=True
├── RepoFormatError(ValueError)    the repo was written by a newer aimlite, or is not a repo
├── CorruptionError(ValueError)    bytes on disk are not what was written
├── ConfigError(ValueError)        the user's config cannot be read, or a key means nothing
├── MergeError(RuntimeError)       the merge helper could not be started or failed
├── ArtifactError(OSError)         artifacts did not arrive where they were to be uploaded
├── QueryLimitError(ValueError)    a query makes something too large
├── QuerySyntaxError(SyntaxError)  a query is malformed, or names what there is not
└── QueryTimeoutError(TimeoutError) a query did not end in time

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


class RunTrashed(RunNotFound):
    """Raised when a run is asked for, or opened, that lies in the trash."""


class RunActiveError(AimliteError, RuntimeError):
    """Raised when a run that a process is writing is to be deleted, moved or emptied without `force`."""


class RunExistsError(AimliteError, ValueError):
    """Raised when a run is to be copied, moved or imported into a repo that has a run of its hash, be it in the trash."""


class ArchiveError(AimliteError, ValueError):
    """Raised when a file is imported that is no archive of runs, is damaged, or was written by a newer aimlite."""


class RepoExistsError(AimliteError, FileExistsError):
    """Raised when a backup is to be made or restored where a repo, or something of its name, is."""


class RepoNotFound(AimliteError, FileNotFoundError):
    """Raised when a repo is to be opened without being made, and there is none at the path."""


class RunClosedError(AimliteError, ValueError):
    """Raised when something is written to a run after `close()` or `finish()`."""


class ReadOnlyError(AimliteError, PermissionError):
    """Raised when something is written through a run opened with `read_only=True`."""


class RepoFormatError(AimliteError, ValueError):
    """Raised at open when a repo's `VERSION` is newer than this aimlite or cannot be read."""


class ConfigError(AimliteError, ValueError):
    """Raised when the user's config is not what `aimlite config set` writes, and when a key is set that means nothing."""


class MergeError(AimliteError, RuntimeError):
    """Raised by `Repo.merge()` and `Repo.repair()` when the helper process fails; the journals stay as they were."""


class ArtifactError(AimliteError, OSError):
    """Raised by `finish()`, and at once with `block=True`, when artifacts could not be uploaded. Their contents are kept in the repo;
    resuming the run tries again."""


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


class QuerySyntaxError(AimliteError, SyntaxError):
    """Raised at once when a query is malformed, or names what there is not.

    text: the query. lineno, offset: where, counted from 1. end_lineno, end_offset: behind the last character meant.
    """

    def __init__(self, message: str, query: str, begin: int, end: int) -> None:
        begin, end = min(begin, len(query)), min(max(end, begin + 1), len(query) + 1)
        line_begin = query.rfind("\n", 0, begin) + 1
        line_end = query.find("\n", begin)
        line = query[line_begin : len(query) if line_end < 0 else line_end]
        lineno, offset = query.count("\n", 0, begin) + 1, begin - line_begin + 1
        end_lineno = query.count("\n", 0, end) + 1
        end_offset = end - (query.rfind("\n", 0, end) + 1) + 1
        super().__init__(message, ("<query>", lineno, offset, line, end_lineno, end_offset))

    def __str__(self) -> str:
        line, offset = self.text or "", self.offset or 1
        width = (self.end_offset or offset + 1) - offset if self.end_lineno == self.lineno else len(line) - offset + 1
        blank = "".join("\t" if character == "\t" else " " for character in line[: offset - 1])
        return f"{self.msg}\n  {line}\n  {blank}{'^' * max(1, width)}"


class QueryLimitError(AimliteError, ValueError):
    """Raised when what a query makes (a string, a list, a number) is larger than queries may make."""


class QueryTimeoutError(AimliteError, TimeoutError):
    """Raised when a query does not end within its `timeout`."""
