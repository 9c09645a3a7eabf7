"""What of a directory is not archived: what its ignore files say, as git reads them, and some things always.

`.gitignore`, `.rnignore` and `.aimliteignore` count in every directory, for what lies in and below it. Of several patterns that fit the
last one of the deepest directory decides; in one directory those of `.aimliteignore` come last. What lies in a directory that is left out
cannot be taken in again. Nothing takes in again what is left out always.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimlite.storage.loading import load

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

ALL_IGNORE_FILES = (".gitignore", ".rnignore", ".aimliteignore")
OWN_IGNORE_FILES = (".rnignore", ".aimliteignore")
_MAX_IGNORE_BYTES = 4 << 20

_OF_TOOLS = (".git", ".hg", ".svn", ".bzr", ".jj", ".aimlite", ".aim", ".runicorn", ".ssh", ".gnupg", ".aws")
_ENVIRONMENTS = (".venv", "venv", ".virtualenv", "virtualenv", "node_modules", "site-packages", "__pypackages__", ".eggs", ".tox", ".nox")
_CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints")
NEVER_DIRECTORIES = frozenset((*_OF_TOOLS, *_ENVIRONMENTS, *_CACHES))
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")  # what lies beside these is an environment, whatever its name
# files that hold keys and passwords
_SECRETS = re.compile(
    r"\.env(\.(?!example$|sample$|template$|dist$).*)?|.*\.env|\.envrc|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk)|id_(rsa|dsa|ecdsa|ed25519)(_sk)?"
    r"|\.(netrc|pgpass|pypirc|npmrc|htpasswd|git-credentials|vault-token)|secrets\.(toml|ya?ml|json)|credentials(\.json)?|_netrc",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a file of this name is taken to hold keys or passwords."""
    return _SECRETS.fullmatch(name) is not None


def is_never_directory(name: str) -> bool:
    return name.lower() in NEVER_DIRECTORIES


@dataclass(frozen=True)
class _Level:
    """The patterns of one directory. prefix and skip turn a path below the root into one below that directory."""

    prefix: str
    skip: int
    spec: GitIgnoreSpec


class Rules:
    """The patterns that bear on what lies directly in one directory, the nearest first."""

    def __init__(self, ignore_files: Sequence[str], levels: tuple[_Level, ...] = ()) -> None:
        self._ignore_files = ignore_files
        self._levels = levels

    def below(self, directory: str, path: str, names: frozenset[str]) -> Rules:
        """The rules in a directory. path: of the directory below the root, ending with a slash, '' for the root. names: what lies in it.
        Raises OSError when an ignore file there cannot be read."""
        spec = _read_spec(directory, [name for name in self._ignore_files if name in names])
        if spec is None:
            return self
        return Rules(self._ignore_files, (_Level("", len(path), spec), *self._levels))

    def ignores(self, path: str, is_directory: bool) -> bool:
        """Whether the patterns leave out what has this path below the root."""
        for level in self._levels:
            below = level.prefix + path[level.skip :] + ("/" if is_directory else "")
            decided = level.spec.check_file(below).include
            if decided is not None:
                return decided
        return False


def rules_above(root: str, ignore_files: Sequence[str]) -> Rules:
    """The rules that hold at a root: none, or those of the git repository that it lies in, from its top down to the root."""
    levels: list[_Level] = []
    top = git_root(root) if ".gitignore" in ignore_files else None
    if top is not None:
        excludes = _read_spec(os.path.join(top, ".git", "info"), ["exclude"])
        if excludes is not None:
            levels.append(_Level(_prefix(top, root), 0, excludes))
        if top != root:
            parts = os.path.relpath(root, top).split(os.sep)
            for depth in range(len(parts)):
                directory = os.path.join(top, *parts[:depth])
                spec = _read_spec(directory, ignore_files)
                if spec is not None:
                    levels.append(_Level(_prefix(directory, root), 0, spec))
    return Rules(ignore_files, tuple(reversed(levels)))


def git_root(directory: str) -> str | None:
    """The nearest directory upwards, this one included, that holds `.git`."""
    while not os.path.lexists(os.path.join(directory, ".git")):
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent
    return directory


def _prefix(directory: str, root: str) -> str:
    below = os.path.relpath(root, directory).replace(os.sep, "/")
    return "" if below == "." else below + "/"


def _read_spec(directory: str, names: Sequence[str]) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for name in names:
        lines += _read_lines(os.path.join(directory, name))
    return _spec(tuple(lines)) if lines else None


def _read_lines(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with os.fdopen(fd, "rb") as file:
        try:
            content = file.read(_MAX_IGNORE_BYTES + 1)
        except IsADirectoryError:
            return []
    if len(content) > _MAX_IGNORE_BYTES:
        raise ValueError(f"{path} is no list of patterns: it is larger than {_MAX_IGNORE_BYTES >> 20} MiB")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


@functools.lru_cache(256)  # one of them often lies in many directories
def _spec(lines: tuple[str, ...]) -> GitIgnoreSpec | None:
    load("pathspec", "pathspec.patterns.gitignore")
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except GitIgnorePatternError:  # git passes over a pattern that means nothing
        spec = GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])
    return spec if any(pattern.include is not None for pattern in spec.patterns) else None


def _is_pattern(line: str) -> bool:
    load("pathspec", "pathspec.patterns.gitignore")
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    try:
        GitIgnoreSpec.from_lines([line])
    except GitIgnorePatternError:
        return False
    return True
