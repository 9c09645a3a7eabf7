"""The places outside of a repo that its user has named: only these are read, written and cleared.

A repo says where its runs' artifacts are, but who wrote that may be somebody else: the run may have come with an archive, or the whole repo
over a network. So each URI that was given to `set_artifacts_uri` or `download(trust_uri=…)` is remembered outside of the repo, in files
beside the user's config: one for the URI, which may be read and written from any repo then, and one for the URI and the repo, which may
clear it too. Files that belong to another user count for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from aimlite.storage.config import config_path
from aimlite.storage.writer import warn

_named: set[bytes] = set()  # in this process


def trust(uri: str, repo: str) -> None:
    """Remembers that the user named a place for a repo. Where that cannot be written down this process alone knows, which a RuntimeWarning
    says."""
    failed = False
    for named in (_text(uri, None), _text(uri, repo)):
        if _is_named(named):
            continue
        _named.add(named)
        try:
            _write(named)
        except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows where home is
            if not failed:
                failed = True
                warn(f"only this process knows that you named {uri!r:.200}: it cannot be written down ({error})", 2)


def _write(named: bytes) -> None:
    path = _file(named)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(named)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_trusted(uri: str, repo: str | None = None) -> bool:
    """Whether this user named the place, in any process. repo: for this very repo."""
    return _is_named(_text(uri, repo))


def _is_named(named: bytes) -> bool:
    if named in _named:
        return True
    try:
        with open(_file(named), "rb") as file:
            return os.fstat(file.fileno()).st_uid == os.getuid() and file.read(1 << 20) == named
    except (OSError, RuntimeError):
        return False


def _file(named: bytes) -> Path:
    return config_path().with_name("artifact-places") / f"{hashlib.sha256(named).hexdigest()[:32]}.json"


def _text(uri: str, repo: str | None) -> bytes:
    return json.dumps({"uri": uri} if repo is None else {"uri": uri, "repo": os.path.realpath(repo)}).encode() + b"\n"
