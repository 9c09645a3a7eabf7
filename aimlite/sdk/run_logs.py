"""What a Run offers on its log and its messages."""

from __future__ import annotations

import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from aimlite.sdk.logs import LEVELS, LogRecord, LogRecords, LogWriter, TerminalLogs, write_record
from aimlite.sdk.params import plain
from aimlite.storage.loading import load

if TYPE_CHECKING:
    from aimlite._ext.recorder import Recorder
    from aimlite.capture.terminal import Log
    from aimlite.sdk.handler import LoggingHandler
    from aimlite.sdk.repo import Repo


class RunLogs:
    """Reads and writes the log of the run that it is a part of."""

    if TYPE_CHECKING:
        repo: Repo
        hash: str
        _closed: bool
        _recorder: Recorder | None

        def _writable(self) -> Recorder: ...

    _terminal: Log | None = None
    _log_writer: LogWriter | None = None

    def get_terminal_logs(self) -> TerminalLogs:
        """What was printed while the run was open, and what `log_text` and logging handlers wrote, by time. Other processes may read it
        while the run goes on."""
        return TerminalLogs(self)  # type: ignore[arg-type]

    def get_log_records(self) -> LogRecords:
        """The messages of `log_info` and its siblings, by time."""
        return LogRecords(self)  # type: ignore[arg-type]

    def log_text(self, text: str) -> None:
        """Adds the text to the log, line by line; it is not printed. Raises TypeError, RunClosedError, ReadOnlyError, OSError."""
        if not isinstance(text, str):
            raise TypeError(f"log_text() takes a string, not {type(text).__name__} {text!r:.100}")
        self._log_lines(text, "log_text", None)

    def get_logging_handler(self, level: int | str = 20, fmt: str | None = None) -> LoggingHandler:
        """A new handler for Python's logging that writes into the log of this run, until the run has ended.

        level: a number or a name; the default is INFO. fmt: as `logging.Formatter` takes it; None: time, level, logger, message.
        Raises TypeError, ValueError.
        """
        load("aimlite.sdk.handler")
        from aimlite.sdk.handler import LoggingHandler

        return LoggingHandler(self, level, fmt)  # type: ignore[arg-type]

    def log_debug(self, msg: str, **params: Any) -> LogRecord:
        """As `log_info`, of level DEBUG."""
        return self._log_message("DEBUG", msg, params)

    def log_info(self, msg: str, **params: Any) -> LogRecord:
        """Records a message of level INFO, what belongs to it (values as params may be; of others the repr), and where in the code it is
        called. Raises TypeError, RunClosedError, ReadOnlyError, OSError."""
        return self._log_message("INFO", msg, params)

    def log_warning(self, msg: str, **params: Any) -> LogRecord:
        """As `log_info`, of level WARNING."""
        return self._log_message("WARNING", msg, params)

    def log_error(self, msg: str, **params: Any) -> LogRecord:
        """As `log_info`, of level ERROR."""
        return self._log_message("ERROR", msg, params)

    def _log_message(self, level: str, msg: str, params: dict[str, Any]) -> LogRecord:
        if not isinstance(msg, str):
            raise TypeError(f"a message is a string, not {type(msg).__name__} {msg!r:.100}")
        recorder, caller = self._writable(), sys._getframe(2)
        values = {name: plain(value, (name,), False) for name, value in params.items()}
        record = LogRecord(_storable(msg), LEVELS[level], time.time(), values, _storable(caller.f_code.co_filename), caller.f_lineno)
        write_record(recorder, self.repo._layout.blobs, record)
        return record

    @property
    def _takes_logs(self) -> bool:
        return self._recorder is not None and not self._recorder.closed

    def _log_lines(self, text: str, source: str, level: int | None) -> None:
        """Adds lines behind all that was printed before."""
        self._writable()
        if self._terminal is not None:
            load("aimlite.capture.terminal")
            from aimlite.capture import terminal

            terminal.catch_up()
        load("aimlite.capture.screen")
        from aimlite.capture.screen import plain_lines

        self._log_lines_to().add([_storable(line) for line in plain_lines(text)], source, level)

    def _log_lines_to(self) -> LogWriter:
        if self._log_writer is None:
            self._log_writer = LogWriter(self._writable(), self.repo._layout.blobs)
        return self._log_writer

    def _capture_terminal(self, mode: str = "smart") -> None:
        """What is printed goes into the log from now on. mode: what becomes of progress bars. Raises ValueError."""
        load("aimlite.capture.terminal")
        from aimlite.capture.terminal import Log

        try:
            self._terminal = Log(self._log_lines_to().take, mode)
        except OSError as error:  # no descriptors, no threads: the run goes on without
            warnings.warn(f"the terminal's output is not recorded: {error}", RuntimeWarning, stacklevel=3)

    def _end_capture(self, error: BaseException | None) -> None:
        """Takes what was printed so far; of an error that ends the run the traceback too, which is printed when the run has ended."""
        log, self._terminal = self._terminal, None
        if log is None:
            return
        try:
            log.close()
        finally:
            if error is not None and self._takes_logs:
                load("traceback")
                import traceback

                told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                self._log_lines(told, "stderr", LEVELS["ERROR"])


def _storable(text: str) -> str:
    """Without lone surrogates, which no UTF-8 has."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
