"""Uploads in the background: a few threads of one run, retries, and errors kept until somebody asks.

What is to be uploaded lies in `uploads/<run>/` of the repo, a copy under its SHA-256, until it is: so it is what was logged, also when the
file has changed since, and a killed process leaves it to the next one that resumes the run. `uploads/<run>/lock` is held shared by
everybody who uploads, and for a moment exclusively by who takes up what was left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aimlite.artifacts.places import Place, open_place
from aimlite.storage.blobs import PIECE_BYTES
from aimlite.storage.files import sync_directory
from aimlite.storage.layout import Layout

THREADS = 4
ATTEMPTS = 5
FIRST_WAIT_S = 0.5  # doubled after each attempt
_PERMANENT = (PermissionError, IsADirectoryError, NotADirectoryError, ImportError, NotImplementedError, ValueError, TypeError)


@dataclass(frozen=True)
class Upload:
    """name: of the artifact. hash: SHA-256 in hex, which its staged copy is named by. uri: of the place, without the run."""

    name: str
    hash: str
    size: int
    uri: str


class Stage:
    """The copies of one run that wait to be uploaded."""

    def __init__(self, layout: Layout, run_hash: str) -> None:
        """Raises ValueError for what is not the hash of a run."""
        self.root = layout.upload_dir(run_hash)
        self.run_hash = run_hash

    def add(self, source: Path, name: str) -> tuple[str, int]:
        """(SHA-256 in hex, size) of a copy for the artifact of this name, which is durable when this returns. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f".{os.getpid()}.{os.urandom(8).hex()}"
        hasher, size = hashlib.sha256(), 0
        try:
            with open(source, "rb") as file, open(part, "xb") as copy:
                while piece := file.read(PIECE_BYTES):
                    hasher.update(piece)
                    copy.write(piece)
                    size += len(piece)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(part, self.path(name, hasher.hexdigest()))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_directory(self.root)
        return hasher.hexdigest(), size

    def path(self, name: str, digest: str) -> Path:
        """Where the copy lies: names may be longer than those of files."""
        return self.root / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{digest}"

    def remove(self, name: str, digest: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path(name, digest).unlink()

    def clear(self, pending: Callable[[], list[Path]]) -> None:
        """Removes what nobody waits for any more, if nobody uploads. pending: what has to stay, asked when that is sure."""
        fd = self.take()
        if fd is None:
            return
        try:
            kept = {path.name for path in pending()}
            for name in os.listdir(self.root):
                if name not in kept and name != "lock":
                    os.unlink(self.root / name)
            if not kept:
                os.unlink(self.root / "lock")
                os.rmdir(self.root)
        finally:
            os.close(fd)

    def share(self) -> int:
        """A descriptor whose lock tells others that somebody uploads."""
        fd = self._lock(fcntl.LOCK_SH)
        assert fd is not None
        return fd

    def take(self) -> int | None:
        """A descriptor with the lock for oneself; None while somebody uploads."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock(self, operation: int) -> int | None:
        path = self.root / "lock"
        while True:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # somebody cleared the directory just now
                continue
            try:
                fcntl.flock(fd, operation)
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except FileNotFoundError:
                pass
            os.close(fd)


def upload(place: Place, stage: Stage, item: Upload) -> None:
    """Uploads one artifact, with retries, and looks whether all of it is there. Raises the last error."""
    wait_s, staged = FIRST_WAIT_S, stage.path(item.name, item.hash)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if staged.exists():  # else another process was faster: it removes the copy last
                place.put(staged, item.name)
            size = place.size(item.name)
            if size != item.size:
                raise OSError(f"{size} of {item.size} bytes arrived")
        except _PERMANENT:
            raise
        except OSError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(wait_s * (0.5 + random.random()))
            wait_s *= 2
        else:
            return


class Uploader:
    """The uploads of one run in this process. done: called in a thread after each one; it records that and may raise OSError."""

    def __init__(self, stage: Stage, done: Callable[[Upload], None], lock_fd: int | None = None) -> None:
        self.pid = os.getpid()
        self._stage = stage
        self._done = done
        self._changed = threading.Condition()
        self._waiting: dict[str, Upload] = {}  # by name: of two the later counts
        self._active: dict[str, Upload] = {}
        self._failed: dict[str, tuple[Upload, Exception]] = {}
        self._threads = 0
        self._lock_fd = stage.share() if lock_fd is None else lock_fd
        fcntl.flock(self._lock_fd, fcntl.LOCK_SH)

    def submit(self, item: Upload) -> None:
        with self._changed:
            replaced = self._waiting.get(item.name)
            if replaced is not None and replaced.hash != item.hash:
                self._stage.remove(replaced.name, replaced.hash)
            self._waiting[item.name] = item
            self._failed.pop(item.name, None)
            if self._threads < THREADS and self._threads < len(self._waiting) + len(self._active):
                with contextlib.suppress(RuntimeError):  # no thread is to be had: whoever waits uploads
                    threading.Thread(target=self._work, name="aimlite-upload", daemon=True).start()
                    self._threads += 1
            self._changed.notify_all()

    def wait(self) -> list[tuple[Upload, Exception]]:
        """Until nothing is under way; what failed since the last call."""
        with self._changed:
            while self._waiting or self._active:
                self._wait()
            failed, self._failed = list(self._failed.values()), {}
        return failed

    def wait_for(self, name: str) -> Exception | None:
        """Until the artifact of a name is not under way; why it failed, if it did."""
        with self._changed:
            while name in self._waiting or name in self._active:
                self._wait()
            failed = self._failed.pop(name, None)
        return None if failed is None else failed[1]

    def _wait(self) -> None:
        """Until something changed; uploads in this thread when no other one does. Called with the lock held."""
        if self._threads:
            self._changed.wait()
            return
        self._threads += 1
        self._changed.release()
        try:
            self._work()
        finally:
            self._changed.acquire()

    def close(self) -> None:
        """Lets others take up what failed."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def _work(self) -> None:
        places: dict[str, Place] = {}
        while (item := self._next()) is not None:
            error: BaseException | None = None
            try:
                if item.uri not in places:
                    places[item.uri] = open_place(item.uri, self._stage.run_hash)
                upload(places[item.uri], self._stage, item)
                self._done(item)
            except BaseException as caught:  # kept for whoever waits
                error = caught
            with self._changed:
                del self._active[item.name]
                if isinstance(error, Exception) and item.name not in self._waiting:
                    self._failed[item.name] = (item, error)
                self._changed.notify_all()
                if error is not None and not isinstance(error, Exception):  # Ctrl-C, in the thread of who waits
                    self._threads -= 1
                    raise error

    def _next(self) -> Upload | None:
        """What is to be uploaded now; None, and the thread counts as ended, when nothing is. Two of one name are never under way at
        once."""
        with self._changed:
            while True:
                name = next((name for name in self._waiting if name not in self._active), None)
                if name is not None:
                    item = self._active[name] = self._waiting.pop(name)
                    return item
                if not self._waiting:
                    self._threads -= 1
                    return None
                self._changed.wait()
