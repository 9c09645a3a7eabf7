"""What git tells of a directory. Nothing is written there, no lock is taken, and no program that the repository names is run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

_TIMEOUT_S = 5
_DIFF_TIMEOUT_S = 10
MAX_DIFF_BYTES = 1 << 20  # it is one value, which the training's process has to read and write
_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false", "--no-pager")
_HTTP_USER = re.compile(r"^((?!ssh|git\+ssh)[A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@")
_SSH_PASSWORD = re.compile(r"^((?:git\+)?ssh://[^/?#@:]*):[^/?#]*@")


def describe(directories: list[str], with_diff: bool, redact: Callable[[str], str]) -> dict[str, Any]:
    """{'branch', 'remote_origin_url', 'commit': {'hash', 'timestamp', 'author'}, 'dirty'} and, if asked for, 'diff' of the first directory
    that lies in a working tree; {} when none does, or there is no git. None is what git did not tell in time."""
    for directory in directories:
        if os.path.isdir(directory) and (_ask(directory, "rev-parse", "--is-inside-work-tree") or "").strip() == "true":
            break
    else:
        return {}
    told: dict[str, Any] = {"branch": _branch(directory, redact), "remote_origin_url": _remote(directory, redact), "commit": {}}
    commit = _ask(directory, "log", "-1", "--no-show-signature", "--no-color", "--format=%H%n%ct%n%an")
    if commit is None:  # nothing was committed yet
        return told
    commit_hash, timestamp, author = commit.rstrip("\n").split("\n", 2)
    told["commit"] = {"hash": commit_hash, "timestamp": int(timestamp), "author": redact(author)}
    changed = _ask(directory, "status", "--porcelain", "--untracked-files=no")
    told["dirty"] = None if changed is None else bool(changed)
    if with_diff:
        told["diff"] = _diff(directory, redact)
    return told


def _branch(directory: str, redact: Callable[[str], str]) -> str:
    """'HEAD' when none is checked out, as git says."""
    branch = _ask(directory, "symbolic-ref", "--short", "-q", "HEAD")
    return redact(branch.rstrip("\n")) if branch else "HEAD"


def _remote(directory: str, redact: Callable[[str], str]) -> str | None:
    url = _ask(directory, "config", "--get", "remote.origin.url")
    return redact(without_credentials(url.rstrip("\n"))) if url else None


def without_credentials(url: str) -> str:
    """The URL of a remote without user and password; the user of SSH stays, being no secret."""
    return _SSH_PASSWORD.sub(r"\1@", _HTTP_USER.sub(r"\1", url))


def _diff(directory: str, redact: Callable[[str], str]) -> str | None:
    """Of the whole working tree to its commit; None when it takes too long or more than `MAX_DIFF_BYTES`."""
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short")
    top = (_ask(directory, "rev-parse", "--show-toplevel") or directory).rstrip("\n")
    diff = _ask(top, "diff", *options, "HEAD", timeout_s=_DIFF_TIMEOUT_S)
    return None if diff is None or len(diff) > MAX_DIFF_BYTES else redact(diff)


def _ask(directory: str, *arguments: str, timeout_s: float | None = None) -> str | None:
    """What a command prints; None when it fails, takes too long, or cannot be run."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *_QUIET, *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s or _TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "backslashreplace") if done.returncode == 0 else None
