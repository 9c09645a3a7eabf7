"""Python's logging, into the log of a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aimlite.sdk.logs import level_number

if TYPE_CHECKING:
    from aimlite.sdk.run import Run

_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


class LoggingHandler(logging.Handler):
    """Writes what is logged into the log of a run, while the run is open; afterwards nothing.

    level: a number or a name. fmt: a format as `logging.Formatter` takes it; None is `%(asctime)s | %(levelname)s | %(name)s | %(message)s`
    with the time of day.
    Raises TypeError, ValueError.
    """

    def __init__(self, run: Run, level: int | str = logging.INFO, fmt: str | None = None) -> None:
        super().__init__(level_number(level))
        self.setFormatter(logging.Formatter(_FORMAT if fmt is None else fmt, "%H:%M:%S"))
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._run._takes_logs:
                self._run._log_lines(self.format(record), "logging", record.levelno)
        except Exception:
            self.handleError(record)
