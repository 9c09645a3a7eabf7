"""aimlite records what machine-learning experiments do, at the speed of the training loop, and answers questions over all of it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AimliteError",
    "ArchiveError",
    "ArtifactError",
    "Audio",
    "Audios",
    "ConfigError",
    "Context",
    "CorruptionError",
    "Distribution",
    "Distributions",
    "Experiment",
    "Figure",
    "Figures",
    "FluentRun",
    "Image",
    "Images",
    "LoggingHandler",
    "MergeError",
    "Metric",
    "NoOpRun",
    "Note",
    "NoteChange",
    "QueryLimitError",
    "QueryReportMode",
    "QuerySyntaxError",
    "QueryTimeoutError",
    "ReadOnlyError",
    "Repo",
    "RepoExistsError",
    "RepoFormatError",
    "RepoNotFound",
    "RepoStatus",
    "Run",
    "RunActiveError",
    "RunClosedError",
    "RunExistsError",
    "RunNotFound",
    "RunTrashed",
    "Sequence",
    "Tag",
    "Text",
    "Texts",
    "convert_to_image_list",
    "enabled",
    "get_active_run",
    "init",
    "is_enabled",
    "is_safe_mode",
    "set_enabled",
    "set_safe_mode",
    "track_distributions",
]

if TYPE_CHECKING:
    from aimlite.errors import (
        AimliteError,
        ArchiveError,
        ArtifactError,
        ConfigError,
        CorruptionError,
        MergeError,
        QueryLimitError,
        QuerySyntaxError,
        QueryTimeoutError,
        ReadOnlyError,
        RepoExistsError,
        RepoFormatError,
        RepoNotFound,
        RunActiveError,
        RunClosedError,
        RunExistsError,
        RunNotFound,
        RunTrashed,
    )
    from aimlite.fluent.disabled import NoOpRun
    from aimlite.fluent.enabling import enabled, is_enabled, set_enabled
    from aimlite.fluent.run import FluentRun, get_active_run
    from aimlite.fluent.start import init
    from aimlite.objects.audio import Audio
    from aimlite.objects.distribution import Distribution
    from aimlite.objects.figure import Figure
    from aimlite.objects.image import Image, convert_to_image_list
    from aimlite.objects.text import Text
    from aimlite.sdk.catalog import Experiment, Tag
    from aimlite.sdk.context import Context
    from aimlite.sdk.handler import LoggingHandler
    from aimlite.sdk.metric import Metric
    from aimlite.sdk.models import track_distributions
    from aimlite.sdk.notes import Note, NoteChange
    from aimlite.sdk.object_sequences import Audios, Distributions, Figures, Images, Texts
    from aimlite.sdk.repo import Repo, RepoStatus
    from aimlite.sdk.report import QueryReportMode
    from aimlite.sdk.run import Run
    from aimlite.sdk.safe import is_safe_mode, set_safe_mode
    from aimlite.sdk.sequence import Sequence

_MODULES = {
    "Audio": "aimlite.objects.audio",
    "Context": "aimlite.sdk.context",
    "Distribution": "aimlite.objects.distribution",
    "Experiment": "aimlite.sdk.catalog",
    "Figure": "aimlite.objects.figure",
    "FluentRun": "aimlite.fluent.run",
    "Image": "aimlite.objects.image",
    "LoggingHandler": "aimlite.sdk.handler",
    "Metric": "aimlite.sdk.metric",
    "NoOpRun": "aimlite.fluent.disabled",
    "Note": "aimlite.sdk.notes",
    "NoteChange": "aimlite.sdk.notes",
    "QueryReportMode": "aimlite.sdk.report",
    "Repo": "aimlite.sdk.repo",
    "RepoStatus": "aimlite.sdk.repo",
    "Run": "aimlite.sdk.run",
    "Sequence": "aimlite.sdk.sequence",
    "Tag": "aimlite.sdk.catalog",
    "Text": "aimlite.objects.text",
    **dict.fromkeys(("Audios", "Distributions", "Figures", "Images", "Texts"), "aimlite.sdk.object_sequences"),
    "convert_to_image_list": "aimlite.objects.image",
    "track_distributions": "aimlite.sdk.models",
    "enabled": "aimlite.fluent.enabling",
    "get_active_run": "aimlite.fluent.run",
    "init": "aimlite.fluent.start",
    "is_enabled": "aimlite.fluent.enabling",
    "is_safe_mode": "aimlite.sdk.safe",
    "set_enabled": "aimlite.fluent.enabling",
    "set_safe_mode": "aimlite.sdk.safe",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that `import aimlite` stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'aimlite' has no attribute {name!r}")
    module = _MODULES.get(name, "aimlite.errors")
    if "aimlite.storage.loading" in sys.modules:  # there may be a run by now, which a signal's handler uses
        from aimlite.storage.loading import load

        load(module)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
