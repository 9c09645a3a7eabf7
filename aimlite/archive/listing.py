"""The files of a directory that is to be archived: found before the first of them is read, so that limits are known in time."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from aimlite.archive.rules import ENVIRONMENT_MARKS, Rules, is_never_directory, is_secret, rules_above

SECRET = "looks like keys or passwords"
_MARKS = frozenset(ENVIRONMENT_MARKS)


class LimitExceeded(ValueError):
    """Raised when there is more to archive than was allowed."""


@dataclass
class Listing:
    """What lies below a root, paths with slashes. files: (path, size, when it was changed). links: (path, target). directories: those in
    which nothing is left. left_out: (path, why) of what cannot or must not be archived; what patterns leave out is not among them."""

    root: str
    files: list[tuple[str, int, float]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def modified(self) -> float:
        """When the file changed last was changed, in seconds since 1970; 0.0 without files."""
        return max((changed for _, _, changed in self.files), default=0.0)


@dataclass(frozen=True)
class Limits:
    """None: none."""

    bytes: int | None = None
    files: int | None = None


NO_LIMITS = Limits()


def list_path(
    path: str, ignore_files: Sequence[str], without: str | None = None, limits: Limits = NO_LIMITS, everything: bool = False
) -> Listing:
    """What is to be archived of a directory, or of a single file, whose root is then the directory that it lies in.

    without: a directory that is left out wherever it lies, the repo. everything: nothing else is left out by its name. Raises
    LimitExceeded, FileNotFoundError, OSError when the root cannot be read, ValueError for what is neither a file nor a directory, or lies
    in the repo.
    """
    real = os.path.realpath(path, strict=True)
    status = os.stat(real)
    if stat.S_ISREG(status.st_mode):
        listing = Listing(os.path.dirname(real), [(os.path.basename(real), status.st_size, status.st_mtime)], size_bytes=status.st_size)
        _demand_within(listing, path, limits)
        return listing
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is neither a file nor a directory, so it cannot be archived")
    if without is not None and _contains(without, real):
        raise ValueError(f"{path} lies in the repo {without}, which is not archived into itself")
    return _Walk(real, path, without, limits, everything).run(rules_above(real, ignore_files))


class _Walk:
    def __init__(self, root: str, shown: str, without: str | None, limits: Limits, everything: bool) -> None:
        self._listing = Listing(root)
        self._shown = shown
        self._limits = limits
        self._everything = everything
        self._without = _identity(without) if without is not None else None

    def run(self, rules: Rules) -> Listing:
        waiting = [("", rules)]  # paths end with a slash
        while waiting:
            path, rules = waiting.pop()
            waiting += self._list_directory(path, rules)
        for found in (self._listing.files, self._listing.links, self._listing.directories, self._listing.left_out):
            found.sort()
        return self._listing

    def _list_directory(self, path: str, above: Rules) -> list[tuple[str, Rules]]:
        """Takes in what lies directly in a directory; returns the directories in it."""
        listing = self._listing
        place = os.path.join(listing.root, path)
        try:
            with os.scandir(place) as entries:
                found = list(entries)
            names = frozenset(entry.name for entry in found)
            if path and not self._everything and not names.isdisjoint(_MARKS):
                return []
            rules = above.below(place, path, names)
        except OSError as error:
            if not path:
                raise
            listing.left_out.append((path[:-1], f"cannot be read: {error.strerror}"))
            return []
        below = []
        kept = False
        for entry in found:
            at = path + entry.name
            try:
                if entry.is_symlink():
                    kept |= not rules.ignores(at, False) and self._take_link(at, os.readlink(entry.path))
                elif entry.is_dir():
                    if not (self._is_never(entry) or rules.ignores(at, True)):
                        below.append((at + "/", rules))
                        kept = True
                elif not rules.ignores(at, False):
                    kept |= self._take_file(at, entry)
            except OSError as error:
                listing.left_out.append((at, f"cannot be read: {error.strerror}"))
        if path and not kept:
            listing.directories.append(path[:-1])
        return below

    def _take_file(self, path: str, entry: os.DirEntry[str]) -> bool:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            self._listing.left_out.append((path, "is no file: a socket, pipe or device"))
            return False
        if not self._everything and is_secret(entry.name):
            self._listing.left_out.append((path, SECRET))
            return False
        self._listing.files.append((path, status.st_size, status.st_mtime))
        self._listing.size_bytes += status.st_size
        _demand_within(self._listing, self._shown, self._limits)
        return True

    def _take_link(self, path: str, target: str) -> bool:
        if not stays_inside(path, target):
            self._listing.left_out.append((path, f"is a symlink that leads out of what is archived, to {target}"))
            return False
        self._listing.links.append((path, target))
        return True

    def _is_never(self, entry: os.DirEntry[str]) -> bool:
        if not self._everything and is_never_directory(entry.name):
            return True
        if self._without is None:
            return False
        status = entry.stat(follow_symlinks=False)
        return (status.st_dev, status.st_ino) == self._without


def stays_inside(path: str, target: str) -> bool:
    """Whether a symlink at a path below a root leads to something below that root, or to the root. `..` may only come first: behind the
    name of another link it would lead from where that one leads to."""
    if target.startswith("/") or "\0" in target or not target:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return up <= path.count("/") and ".." not in parts[up:]


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _contains(directory: str, path: str) -> bool:
    real = os.path.realpath(directory)
    return os.path.commonpath([real, path]) == real


def _demand_within(listing: Listing, shown: str, limits: Limits) -> None:
    if limits.bytes is not None and listing.size_bytes > limits.bytes:
        large = sorted(listing.files, key=lambda file: -file[1])[:3]
        named = ", ".join(f"{path} ({size:,} bytes)" for path, size, _ in large)
        raise LimitExceeded(f"{shown} is too large to archive: more than {limits.bytes:,} bytes; the largest so far: {named}")
    if limits.files is not None and len(listing.files) > limits.files:
        raise LimitExceeded(f"{shown} is too large to archive: more than {limits.files:,} files")
