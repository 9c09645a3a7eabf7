"""aimlite records what machine-learning experiments do, at the speed of the training loop, and answers questions over all of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AimliteError",
    "CorruptionError",
    "MergeError",
    "ReadOnlyError",
    "Repo",
    "RepoFormatError",
    "Run",
    "RunClosedError",
    "RunNotFound",
]

if TYPE_CHECKING:
    from aimlite.errors import (
        AimliteError,
        CorruptionError,
        MergeError,
        ReadOnlyError,
        RepoFormatError,
        RunClosedError,
        RunNotFound,
    )
    from aimlite.sdk.repo import Repo
    from aimlite.sdk.run import Run

_MODULES = {"Repo": "aimlite.sdk.repo", "Run": "aimlite.sdk.run"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that `import aimlite` stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'aimlite' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "aimlite.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
