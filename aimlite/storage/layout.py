"""Where a repo's files lie, and how a repo comes to be.

Making a repo is idempotent and needs no lock: any number of processes may do it at once on a path where nothing exists.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aimlite.errors import RepoFormatError, RepoNotFound
from aimlite.storage.config import read_config
from aimlite.storage.files import write_file

FORMAT = 1
REPO_DIR = ".aimlite"
_JOURNAL_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})\.journal")


def repo_root(path: str | os.PathLike[str] | None = None) -> Path:
    """The directory that holds (or will hold) `.aimlite`, absolute: `path`, else the named one, else the nearest upwards, else the working
    directory."""
    if path is None:
        path = named_repo()
    if path is None:
        here = Path.cwd()
        return next((parent for parent in (here, *here.parents) if (parent / REPO_DIR).is_dir()), here)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a repo is given by a path, not {type(path).__name__} {path!r:.100}")
    root = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    return root.parent if root.name == REPO_DIR else root


def named_repo() -> str | None:
    """The path that AIMLITE_REPO names, else the user's config."""
    return os.environ.get("AIMLITE_REPO") or read_config().get("repo")


@dataclass(frozen=True)
class Layout:
    """The paths inside one `.aimlite` directory."""

    base: Path

    @cached_property
    def version(self) -> Path:
        return self.base / "VERSION"

    @cached_property
    def tree(self) -> Path:
        return self.base / "tree"

    @cached_property
    def generation(self) -> Path:
        return self.base / "generation"

    @cached_property
    def journals(self) -> Path:
        return self.base / "journals"

    @cached_property
    def blobs(self) -> Path:
        return self.base / "blobs"

    @cached_property
    def uploads(self) -> Path:
        return self.base / "uploads"

    @cached_property
    def lease(self) -> Path:
        return self.base / "lease"

    def run_dir(self, run_hash: str) -> Path:
        """For files that belong to a run and that nothing here looks at."""
        return self.base / "files" / run_hash

    @cached_property
    def damaged(self) -> Path:
        return self.base / "damaged"

    def journal(self, writer: int, segment: int) -> Path:
        return self.journals / journal_name(writer, segment)

    def list_journals(self) -> list[tuple[int, int]]:
        """(writer, segment) of every journal there is, in order."""
        try:
            names = os.listdir(self.journals)
        except FileNotFoundError:
            return []
        return sorted(_parse_journal_names(names))


def journal_name(writer: int, segment: int) -> str:
    return f"{writer:016x}-{segment:08x}.journal"


def _parse_journal_names(names: list[str]) -> Iterator[tuple[int, int]]:
    for name in names:
        match = _JOURNAL_NAME.fullmatch(name)
        if match:
            yield int(match[1], 16), int(match[2], 16)


def open_layout(root: Path, create: bool = True) -> Layout:
    """The layout of the repo at `root`, made if need be. Raises RepoFormatError, RepoNotFound (create=False), OSError."""
    layout = Layout(root / REPO_DIR)
    try:
        version = read_format(layout)
    except RepoNotFound:
        if not create:
            raise
        _make(layout)
        return layout
    if version > FORMAT:
        raise RepoFormatError(f"the repo at {root} has format {version!r}; this aimlite reads up to format {FORMAT}: install a newer one")
    return layout


def read_format(layout: Layout) -> int:
    """The format that a repo is written in. Raises RepoNotFound, RepoFormatError."""
    try:
        text = layout.version.read_bytes()
    except FileNotFoundError:
        raise RepoNotFound(f"there is no repo at {layout.base.parent}: {layout.version} does not exist") from None
    except NotADirectoryError:
        raise RepoFormatError(f"{layout.base} is not a directory, so no repo can be there") from None
    try:
        version = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int):
        raise RepoFormatError(f"{layout.version} is not the version file of a repo: {text[:80]!r}")
    return version


def _make(layout: Layout) -> None:
    from aimlite import __version__

    if ".aim" in layout.base.parts:
        raise RepoFormatError(f"{layout.base.parent} lies inside of a repo of Aim, where nothing is written: name one outside of it")
    if (layout.base.is_symlink() or layout.base.exists()) and not layout.base.is_dir():
        raise RepoFormatError(f"{layout.base} is not a directory, so no repo can be there")
    layout.journals.mkdir(parents=True, exist_ok=True)
    layout.blobs.mkdir(exist_ok=True)
    write_file(layout.version, json.dumps({"format": FORMAT, "created_by": f"aimlite {__version__}"}).encode() + b"\n", durable=False)
