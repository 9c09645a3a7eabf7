"""aimlite records what machine-learning experiments do, at the speed of the training loop, and answers questions over all of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AimliteError",
    "ConfigError",
    "Context",
    "CorruptionError",
    "MergeError",
    "Metric",
    "QueryLimitError",
    "QueryReportMode",
    "QuerySyntaxError",
    "QueryTimeoutError",
    "ReadOnlyError",
    "Repo",
    "RepoFormatError",
    "RepoNotFound",
    "RepoStatus",
    "Run",
    "RunClosedError",
    "RunNotFound",
    "Sequence",
]

if TYPE_CHECKING:
    from aimlite.errors import (
        AimliteError,
        ConfigError,
        CorruptionError,
        MergeError,
        QueryLimitError,
        QuerySyntaxError,
        QueryTimeoutError,
        ReadOnlyError,
        RepoFormatError,
        RepoNotFound,
        RunClosedError,
        RunNotFound,
    )
    from aimlite.sdk.context import Context
    from aimlite.sdk.metric import Metric
    from aimlite.sdk.repo import Repo, RepoStatus
    from aimlite.sdk.report import QueryReportMode
    from aimlite.sdk.run import Run
    from aimlite.sdk.sequence import Sequence

_MODULES = {
    "Context": "aimlite.sdk.context",
    "Metric": "aimlite.sdk.metric",
    "QueryReportMode": "aimlite.sdk.report",
    "Repo": "aimlite.sdk.repo",
    "RepoStatus": "aimlite.sdk.repo",
    "Run": "aimlite.sdk.run",
    "Sequence": "aimlite.sdk.sequence",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that `import aimlite` stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'aimlite' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "aimlite.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
