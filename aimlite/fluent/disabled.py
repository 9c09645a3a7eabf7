"""What `init` gives when tracking is off."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from aimlite.fluent.run import FluentRun
from aimlite.sdk.safe import silent_class

_Silent: Any = silent_class(FluentRun)


class NoOpRun(_Silent):  # type: ignore[misc]
    """Has every attribute of a run, and neither opens nor writes anything. Params and properties that are set can be read back."""

    def __init__(self, path: str = "default", alias: str | None = None, workspace_root: Path | None = None) -> None:
        self._hold("disabled")
        self._closed = False
        self._held = {"experiment": path, "name": alias}
        self._workspace_root = workspace_root

    def log(self, data: Any = None, *, step: Any = None, stage: Any = None, **kwargs: Any) -> None:
        """Does nothing."""

    def log_image(self, key: str, image: Any, step: Any = None, caption: Any = None, format: str = "png", quality: int = 90) -> str:
        """Gives ''."""
        return ""

    def get_logging_handler(self, level: int | str = logging.INFO, fmt: str | None = None) -> logging.Handler:
        """A handler that drops what it is given."""
        handler = logging.NullHandler()
        handler.setLevel(level)
        return handler

    def summary(self, update: Any) -> None:
        """Does nothing."""

    def get_summary(self) -> dict[str, Any]:
        """{}"""
        return {}

    def finish(self, status: str = "finished") -> None:
        """Ends nothing."""
        self._closed = True

    close = finalize = finish

    @property
    def run_dir(self) -> Path:
        """A path that is not made."""
        return Path(tempfile.gettempdir(), "aimlite-disabled")

    @property
    def storage_root(self) -> Path:
        """A path that is not made."""
        return self.run_dir

    def __enter__(self) -> NoOpRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed = True

    def __repr__(self) -> str:
        return "<NoOpRun: tracking is off>"
