"""What this process and its children print, as lines for any number of logs; docs/logs.md tells it from outside.

Descriptors 1 and 2 are led into a pipe, or into a pseudo-terminal where they are a terminal, so that what asks still finds one. A Relay (a
thread of C, _ext/relay.h) passes the bytes on to where they were going and keeps a copy; a thread of Python fetches the copies a few
times a second and folds them into lines. Where both descriptors lead to one place there is one pipe for both: with two, the order of what
is shown there would be left to chance.
What does not go through the descriptors (a notebook's streams, those of a test runner) is taken at `write` of the stream itself.

One capture serves all logs of the process: it begins with the first and ends with the last, in whatever order they end. What is then still
written into the pipe, by a child that lives on, is passed on as long as anybody can write there: by the relay, or after the end of this
process by the standby process (`standby.py`), which takes over too when this process is killed.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import fcntl
import os
import sys
import termios
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from aimlite._ext.relay import Relay, flush_c
from aimlite.capture.screen import MODES, Filter, Line, Pieces, Screen

TICK_S = 0.2
_LONGEST_BEGUN = 4096  # characters of a line without an end that wait for it
_TURN_US = 20_000  # how long what is written to one stream waits at most for what was written to the other
_LEFT_US = 100_000  # how long they wait at most
STANDBY_AFTER_S = 0.02  # a shorter capture does without: starting it costs more than everything else
_STREAMS = {1: "stdout", 2: "stderr"}
_STANDBY = str(Path(__file__).with_name("standby.py"))

_lock = threading.RLock()
_capture: _Capture | None = None
_pid = os.getpid()  # of the process whose capture that is
_at_exit: list[Any] = []
_failures: deque[str] = deque()
_lingering: list[Relay] = []  # of captures that are over, into which somebody can still write


class Log:
    """Lines of what is printed go to `sink`, from now on until `close`.

    sink: called with lines in the order in which they were begun, from any thread, never by two at once. A line whose `id` it was given
    before replaces that one; with the text None it takes it away. What it raises becomes one warning, and the log ends.
    mode: 'smart': what a terminal shows in the end, so that a progress bar is one line. 'all': every state that a bar had. 'none': no bars.
    Raises ValueError for another mode.
    """

    def __init__(self, sink: Callable[[list[Line]], None], mode: str = "smart") -> None:
        if mode not in MODES:
            raise ValueError(f"the mode is one of {', '.join(map(repr, MODES))}, not {mode!r:.100}")
        self.mode = mode
        self._sink = sink
        self._capture: _Capture | None = None
        self._failed = False
        self._open()

    def _open(self) -> None:
        global _capture
        _notice_fork()
        with _lock:
            if _capture is None:
                if not _at_exit:
                    _at_exit.append(atexit.register(_close_all))  # now, so that it is called before what ends the runs
                _capture = _Capture()
            else:
                _capture.fetch(wait=True)  # what was printed before is not for this one
            self._capture = _capture
            _capture.logs.append(self)

    def close(self) -> None:
        """Gives the sink all that was printed before; it gets no more. The descriptors are what they were, if this is the last log."""
        global _capture
        _notice_fork()
        ended = None
        with _lock:
            capture = self._capture
            if capture is None or capture is not _capture:  # closed before, or by a fork
                return
            try:
                if len(capture.logs) > 1:
                    capture.fetch(wait=True, final=True)
                else:
                    ended, _capture = capture, None
                    capture.stop()
            finally:
                self._capture = None
                capture.logs.remove(self)
        if ended is not None:
            ended.join()
        _warn_of_failures()

    def _take(self, lines: list[Line]) -> None:
        if not lines or self._failed:
            return
        try:
            self._sink(lines)
        except Exception as error:  # it must neither end the thread nor whoever prints
            self._failed = True
            _failures.append(f"the terminal's output is no longer recorded: {type(error).__name__}: {error}")


def catch_up() -> None:
    """Gives the logs all that was printed so far."""
    _notice_fork()
    with _lock:
        if _capture is not None:
            _flush()
            if not _capture.idle:
                _capture.fetch(wait=True)
    _warn_of_failures()


def _warn_of_failures() -> None:
    """Not with the lock held: where warnings lead to a logging handler, that waits for a thread that waits for the lock."""
    while _failures:
        with contextlib.suppress(Exception):  # a filter may make it an error; there may be no stderr
            warnings.warn(_failures.popleft(), RuntimeWarning, stacklevel=3)


class _Channel:
    """One stream of bytes or text, and what becomes of it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.relay: Relay | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._filter = Filter()
        self._screen = Screen(source)
        self._pieces = Pieces(source)

    def feed(self, time_s: float, data: bytes | str, modes: set[str]) -> None:
        text = self._filter(self._decode(data) if isinstance(data, bytes) else data)
        if text and modes - {"all"}:
            self._screen.feed(time_s, text)
        if text and "all" in modes:
            self._pieces.feed(time_s, text)

    def take(self, now: float, final: bool, lines: dict[str, list[Line]]) -> None:
        taken = self._screen.take(now, final)
        lines["smart"] += [line for line, _ in taken]
        lines["none"] += [line._replace(text=None) if is_bar else line for line, is_bar in taken]
        lines["all"] += self._pieces.take(now, final)


class _Capture:
    """From the first log to the last. All but `join` is called with the lock held."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self._channels: list[_Channel] = []
        self._saved: dict[int, tuple[int, tuple[int, int]]] = {}  # by descriptor: a copy of what it was, what it is now
        self._fds: list[tuple[_Channel, list[int]]] = []
        self._streams: list[_Stream] = []
        self._line_buffered: list[Any] = []
        self._busy = False
        self._stopped = threading.Event()
        self._standby_tried = False
        _flush()
        flush_c()
        try:
            for group in _groups():
                self._redirect(group)
            for stream, source in _streams():
                if isinstance(stream, TextIOWrapper) and _descriptor(stream) in self._saved:
                    self._streams.append(_Stream(stream, source, self._relay_of(stream)))
                elif (stream is sys.stdout or stream is sys.stderr) and not self._leads_here(stream):
                    self._streams.append(_Stream(stream, source, None))
        except BaseException:
            self._restore()
            raise
        for stream, _ in _streams():
            self._buffer_lines(stream)
        self._thread = threading.Thread(target=self._run, name="aimlite-terminal", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._restore()
            raise OSError(errno.EAGAIN, str(error)) from None

    def _redirect(self, group: list[int]) -> None:
        terminal = os.isatty(group[0])
        source, end = _terminal_like(group[0]) if terminal else os.pipe()
        source, end = _above_standard(source), _above_standard(end)
        try:
            target = fcntl.fcntl(group[0], fcntl.F_DUPFD_CLOEXEC, 3)
            try:
                relay = Relay(source, target, len(self._channels), terminal)
            except BaseException:
                os.close(target)
                raise
        except BaseException:
            os.close(source)
            os.close(end)
            raise
        channel = _Channel(_STREAMS[group[0]] if len(group) == 1 else "terminal")
        channel.relay = relay
        self._channels.append(channel)
        self._fds.append((channel, group))
        for fd in group:
            self._saved[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3), _identity(end)
            os.dup2(end, fd)
        os.close(end)

    def _relay_of(self, stream: Any) -> Relay | None:
        fd = _descriptor(stream)
        return next((channel.relay for channel, fds in self._fds if fd in fds), None)

    def _leads_here(self, stream: Any) -> bool:
        """Whether what is written to it comes through the descriptors: it is one of theirs, or holds one to which it writes too."""
        return any(_descriptor(held) in self._saved for held in (stream, *getattr(stream, "__dict__", {}).values()))

    def _buffer_lines(self, stream: Any) -> None:
        """As on a terminal: else a line would be in the log only when thousands of others are."""
        if _descriptor(stream) in self._saved and getattr(stream, "line_buffering", True) is False:
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(line_buffering=True)
                self._line_buffered.append(stream)

    @property
    def idle(self) -> bool:
        return all(channel.relay is None or channel.relay.idle for channel in self._channels) and not any(s.waiting for s in self._streams)

    def fetch(self, wait: bool = False, final: bool = False) -> None:
        """Gives the logs what was printed since the last time. wait: all that was; else what the relay has. final: unfinished lines too."""
        if self._busy:  # by a signal's handler, say, that came while this is at it
            return
        self._busy = True
        try:
            if wait:
                for channel in self._channels:
                    if channel.relay is not None and not channel.relay.ended:
                        channel.relay.sync()
            modes = {log.mode for log in self.logs}
            for time_us, channel, data in sorted(self._chunks(final), key=lambda chunk: chunk[0]):
                channel.feed(time_us / 1e6, data, modes)
            lines: dict[str, list[Line]] = {mode: [] for mode in MODES}
            now = time.time()
            for channel in [*self._channels, *(stream.channel for stream in self._streams)]:
                channel.take(now, final, lines)
            for kept in lines.values():
                kept.sort(key=lambda line: (line.time, line.id))
            for log in list(self.logs):
                log._take(lines[log.mode])
        finally:
            self._busy = False

    def _chunks(self, final: bool) -> Iterator[tuple[int, _Channel, bytes | str]]:
        for channel in self._channels:
            if channel.relay is not None:
                chunks, lost = channel.relay.fetch()
                yield from ((time_us, channel, data) for time_us, data in chunks)
                if lost:
                    note = f"\n({lost} bytes were printed faster than they can be recorded)\n"
                    yield chunks[-1][0] if chunks else time.time_ns() // 1000, channel, note
        for stream in self._streams:
            for time_us, text in stream.fetch(final):
                yield time_us, stream.channel, text

    def _run(self) -> None:
        if not self._stopped.wait(STANDBY_AFTER_S):
            with _lock:
                if not self._stopped.is_set():
                    self._start_standby()
        while not self._stopped.wait(TICK_S):
            with _lock:
                if not self._stopped.is_set():
                    self.fetch()
            _warn_of_failures()

    def _start_standby(self) -> None:
        self._standby_tried = True
        relays = [channel.relay for channel in self._channels if channel.relay is not None and not channel.relay.ended]
        if relays:
            _start_standby(relays)

    def stop(self) -> None:
        """Makes the descriptors and streams what they were and gives the logs the rest."""
        self._stopped.set()
        for stream in self._streams:
            stream.hand_over()
        _flush()
        flush_c()
        self._restore()
        self.fetch(wait=True, final=True)
        for channel in self._channels:
            if channel.relay is not None and not channel.relay.ended:
                channel.relay.keep(False)
                if not self._standby_tried:
                    self._start_standby()
                _lingering.append(channel.relay)
            channel.relay = None
        _lingering[:] = [relay for relay in _lingering if not relay.ended]

    def _restore(self) -> None:
        for stream in self._line_buffered:
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(line_buffering=False)
        for stream in self._streams:
            stream.restore()
        for fd, (saved, ours) in self._saved.items():
            if _identity(fd) == ours:  # else somebody has led it elsewhere meanwhile, and will lead it back
                os.dup2(saved, fd)
            os.close(saved)
        self._saved = {}

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    def forget(self) -> None:
        """In a forked child: the parent's relay takes what comes through the descriptors, its log is the parent's."""
        for stream in self._streams:
            stream.forget_others()
            stream.restore()
        for saved, _ in self._saved.values():
            with contextlib.suppress(OSError):
                os.close(saved)


class _Stream:
    """A stream of Python whose `write` is taken while there is a capture.

    print() writes a line and its end apart, and another thread may come between: here a line that a thread has begun waits for what the
    same thread writes next. Of a stream that leads to the descriptors that makes whole lines of what threads print together (as before, a
    line without its end is written at `flush`); of any other it is what the copies are made of, while the stream itself gets everything
    at once.
    """

    _turn: Relay | None = None  # of the class: the relay of what was written last

    def __init__(self, stream: Any, source: str, relay: Relay | None) -> None:
        """relay: through which comes what is written; None: copies are kept."""
        passes = relay is not None
        self._relay = relay
        self.channel = _Channel(source)
        self._stream = stream
        self._source = source
        self._passes = passes
        self._active = True
        self._copies: deque[tuple[int, str]] = deque()
        self._begun: dict[int, tuple[int, str]] = {}  # by thread
        self._lock = threading.RLock()  # what is handed over and what is written next must not change places
        self._write = stream.write
        self._flush = stream.flush if passes else None
        self._unbuffered = getattr(stream, "write_through", False)
        self._stand_in: Any = None
        try:
            self._own = {name: value for name, value in vars(stream).items() if name in ("write", "flush")}
            stream.write = self.write
            if passes:
                stream.flush = self.flush
        except (AttributeError, TypeError):  # it takes no attributes
            self._own = {}
            self._stand_in = _StandIn(stream, self.write)
            setattr(sys, source, self._stand_in)

    def write(self, text: str, *arguments: Any, **more: Any) -> Any:
        if not self._active or not isinstance(text, str) or arguments or more:
            return self._write(text, *arguments, **more)
        thread = threading.get_ident()
        if not self._passes:
            result = self._write(text)
            begun, before = self._begun.pop(thread, (time.time_ns() // 1000, ""))
            if text[-1:] == "\n" or len(before) > _LONGEST_BEGUN:
                self._copies.append((begun, before + text))
            elif before or text:
                self._begun[thread] = begun, before + text
            return result
        self._take_turn()
        with self._lock:
            begun, before = self._begun.pop(thread, (0, ""))
            is_whole = text[-1:] == "\n" or "\r" in text or self._stream.closed or len(before) > _LONGEST_BEGUN
            if is_whole or (self._unbuffered and threading.active_count() <= 2):  # this one and the capture's: nobody comes between
                self._write(before + text)
                return len(text)
            if not text.isascii():
                text.encode(self._stream.encoding, self._stream.errors)  # what cannot be written is refused now
            if before or text:
                self._begun[thread] = begun or time.time_ns() // 1000, before + text
        return len(text)

    def _take_turn(self) -> None:
        """What was written to the other stream before is to be read before, too: the log has one order."""
        before, _Stream._turn = _Stream._turn, self._relay
        if before is not None and before is not self._relay:
            before.settle(_TURN_US)

    def flush(self) -> None:
        with self._lock:
            known = self._begun.pop(threading.get_ident(), None)
            if known:
                self._write(known[1])
        assert self._flush is not None
        self._flush()

    @property
    def waiting(self) -> bool:
        return bool(self._copies or self._begun)

    def fetch(self, final: bool) -> Iterator[tuple[int, str]]:
        self.hand_over(final)
        while self._copies:
            yield self._copies.popleft()

    def hand_over(self, final: bool = True) -> None:
        """What threads have begun, and left if it is not final, is no longer waited with."""
        old = time.time_ns() // 1000 - (0 if final else _LEFT_US)
        for thread, (begun, _) in list(self._begun.items()):
            with self._lock:
                known = self._begun.pop(thread, None) if begun <= old else None
                if known and self._passes:
                    with contextlib.suppress(OSError, ValueError):  # whoever prints next will find out
                        self._write(known[1])
                elif known:
                    self._copies.append(known)

    def restore(self) -> None:
        """Whoever put something else in its place meanwhile keeps it; what is written through us by then is only passed on."""
        self._active = False
        _Stream._turn = None
        if self._stand_in is not None:
            if getattr(sys, self._source) is self._stand_in:
                setattr(sys, self._source, self._stream)
            return
        for name in ("write", "flush") if self._passes else ("write",):
            if vars(self._stream).get(name) == getattr(self, name):
                delattr(self._stream, name)
                if name in self._own:
                    setattr(self._stream, name, self._own[name])

    def forget_others(self) -> None:
        """In a forked child: what other threads had begun is theirs, in the parent."""
        own = threading.get_ident()
        for thread, (_, text) in self._begun.items():
            if thread == own and self._passes:
                self._write(text)
        self._begun.clear()


class _StandIn:
    """A stream with another `write`."""

    def __init__(self, stream: Any, write: Callable[..., Any]) -> None:
        self._stream = stream
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def _streams() -> list[tuple[Any, str]]:
    """(stream, source) of what print() and the like write to, each once."""
    found: dict[int, tuple[Any, str]] = {}
    for source in _STREAMS.values():
        for stream in (getattr(sys, source), getattr(sys, f"__{source}__")):
            if stream is not None:
                found.setdefault(id(stream), (stream, source))
    return list(found.values())


def _flush() -> None:
    for stream, _ in _streams():
        with contextlib.suppress(AttributeError, OSError, ValueError):  # what cannot be written now its owner will find out
            stream.flush()


def _descriptor(stream: Any) -> int | None:
    try:
        fd = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return fd if isinstance(fd, int) else None


def _identity(fd: int) -> tuple[int, int]:
    """What a descriptor leads to; (-1, -1): it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return -1, -1
    return status.st_dev, status.st_ino


def _groups() -> list[list[int]]:
    """The standard descriptors that are open; those together that lead to one place. One that was closed when the process began may have
    become the number of any file since."""
    found: dict[tuple[int, int], list[int]] = {}
    for fd, name in _STREAMS.items():
        identity = _identity(fd)
        if identity != (-1, -1) and getattr(sys, f"__{name}__") is not None:
            found.setdefault(identity, []).append(fd)
    return list(found.values())


def _above_standard(fd: int) -> int:
    """The same, above the standard descriptors: one of these that was closed stays so."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _terminal_like(fd: int) -> tuple[int, int]:
    """(master, slave) of a pseudo-terminal set as the terminal is, but for what would be done to the output twice."""
    master, slave = os.openpty()
    settings = termios.tcgetattr(fd)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return master, slave


def _start_standby(relays: list[Relay]) -> None:
    """Starts the process that takes over when this one is gone. Where none can be started there is none."""
    if not sys.executable or getattr(sys, "frozen", False):
        return
    reads, writes = os.pipe()
    fds = [reads]
    try:
        parts = []
        for relay in relays:
            copies = relay.copies(writes)
            if copies is not None:
                number, source, target = copies
                parts.append((number, len(fds), len(fds) + 1))
                fds += [source, target]
        base = max(fds) + 1
        nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        handed = [(os.POSIX_SPAWN_DUP2, fd, base + at) for at, fd in enumerate(fds)]
        arguments = [str(base), *(f"{number}:{base + source}:{base + target}" for number, source, target in parts)]
        # The shell leaves at once, so that the standby is nobody's child and no zombie stays behind.
        command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-I", "-S", _STANDBY, *arguments]
        with contextlib.suppress(OSError):
            pid = os.posix_spawn(command[0], command, os.environ, file_actions=nowhere + handed)
            os.waitpid(pid, 0)
    finally:
        for fd in (*fds, writes):
            os.close(fd)


def _close_all() -> None:
    """The log of an open run gets its last lines, and the terminal too, while the run can take them."""
    _notice_fork()
    capture = _capture
    for log in list(capture.logs) if capture is not None else ():
        log.close()


def _notice_fork() -> None:
    """A C library's fork does not pass through Python: the child has the parent's capture, but neither its thread nor who held its lock."""
    if _pid != os.getpid():
        _after_fork_in_child()


def _after_fork_in_child() -> None:
    global _lock, _capture, _pid
    _pid = os.getpid()
    _lock = threading.RLock()
    _lingering.clear()
    if _capture is not None:
        _capture.forget()
        _capture = None


def _before_fork() -> None:
    _lock.acquire()


def _after_fork_in_parent() -> None:
    _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
