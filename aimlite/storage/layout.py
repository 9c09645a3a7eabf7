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

from aimlite._ext.blocks import crc32c
from aimlite.errors import CorruptionError, RepoFormatError, RepoNotFound
from aimlite.storage.config import read_config
from aimlite.storage.files import read_regular, write_file
from aimlite.storage.runs import check_hash

FORMAT = 1
REPO_DIR = ".aimlite"
INCOMING = ".incoming-"  # how the archives begin through which runs are copied, in the directory of the repo that gets them
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
    def mended(self) -> Path:
        """The tree that repair() built, complete, until it takes the place of the damaged one."""
        return self.base / "tree.mended"

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
        """For files that belong to a run and that nothing here looks at. Raises ValueError for what is not the hash of a run: such a name
        could lead out of the repo."""
        check_hash(run_hash)
        return self.base / "files" / run_hash

    def upload_dir(self, run_hash: str) -> Path:
        """For the artifacts of a run that are still to be uploaded. Raises as `run_dir`."""
        check_hash(run_hash)
        return self.uploads / run_hash

    @cached_property
    def damaged(self) -> Path:
        return self.base / "damaged"

    def journal(self, writer: int, segment: int) -> Path:
        return self.journals / journal_name(writer, segment)

    def list_journals(self) -> list[tuple[int, int]]:
        """(writer, segment) of every journal there is, in order."""
        return sorted(_parse_journal_names(self._names_of_journals(regular=True)))

    def list_odd_journals(self) -> list[Path]:
        """What has the name of a journal and is no file: nobody reads a pipe, which would wait for ever."""
        return [self.journal(*name) for name in _parse_journal_names(self._names_of_journals(regular=False))]

    def _names_of_journals(self, regular: bool) -> list[str]:
        try:
            with os.scandir(self.journals) as entries:
                return [entry.name for entry in entries if entry.is_file() == regular]
        except FileNotFoundError:
            return []


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


def is_repo(layout: Layout) -> bool:
    """Whether a repo is there, be it damaged or of a newer format."""
    return layout.version.exists() or _holds_data(layout)


def read_format(layout: Layout) -> int:
    """The format that a repo is written in. Where its version file is damaged or gone that is FORMAT: all else in the repo has a version
    and a check of its own. Raises RepoNotFound, RepoFormatError."""
    text = _read_version(layout)
    if text is None:
        raise RepoNotFound(f"there is no repo at {layout.base.parent}: {layout.version} does not exist")
    version = _said_format(text)
    if version is None and not (layout.journals.is_dir() or layout.tree.is_dir()):
        raise RepoFormatError(f"{layout.version} is not the version file of a repo: {text[:80]!r}")
    return FORMAT if version is None else version


def version_damage(layout: Layout) -> str | None:
    """What is wrong with the version file of a repo. Raises as `read_format`."""
    read_format(layout)
    text = _read_version(layout)
    if not text:
        return "the file VERSION is empty or gone"
    return f"the file VERSION fails its check: {text[:80]!r}" if _said_format(text) is None else None


def write_version(layout: Layout, durable: bool = False) -> None:
    from aimlite import __version__

    write_file(layout.version, _encode_version(FORMAT, f"aimlite {__version__}"), durable=durable)


def _read_version(layout: Layout) -> bytes | None:
    """What the version file says; nothing where it is missing beside data; None where there is no repo."""
    for _ in range(2):
        try:
            return read_regular(layout.version)
        except FileNotFoundError:
            if not _holds_data(layout):
                return None
        except CorruptionError:  # no file at all is a damaged one
            return b""
        except NotADirectoryError:
            raise RepoFormatError(f"{layout.base} is not a directory, so no repo can be there") from None
    return b""  # looked for once more: a repo that is being made gets it before any data


def _holds_data(layout: Layout) -> bool:
    return layout.tree.is_dir() or layout.generation.exists() or bool(layout.list_journals())


def _encode_version(version: int, created_by: str) -> bytes:
    text = json.dumps({"format": version, "created_by": created_by})[:-1].encode()
    return text + b', "crc": "%08x"}\n' % crc32c(text)


def _said_format(text: bytes) -> int | None:
    """The format that a version file tells; None when it is damaged.

    Files of aimlite 0.1.0 may have no checksum; they are then known word for word. What has none and tells a larger format, or has one that
    fails and would fail with our format in its place too, may be whole in a way that we do not know: it counts as what it says.
    """
    if _is_sound(text):
        return int(json.loads(text)["format"])
    if _is_sound(_FORMAT.sub(b"\\g<1>%d" % FORMAT, text, count=1)):
        return None
    try:
        version = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if type(version) is int and version > FORMAT else None


def _is_sound(text: bytes) -> bool:
    body, separator, check = text.rpartition(b', "crc": "')
    return text == _WITHOUT_CHECK if not separator else check == b'%08x"}\n' % crc32c(body)


_FORMAT = re.compile(rb'("format": )\d+')
_WITHOUT_CHECK = b'{"format": 1, "created_by": "aimlite 0.1.0"}\n'


def _make(layout: Layout) -> None:
    if ".aim" in layout.base.parts:
        raise RepoFormatError(f"{layout.base.parent} lies inside of a repo of Aim, where nothing is written: name one outside of it")
    if (layout.base.is_symlink() or layout.base.exists()) and not layout.base.is_dir():
        raise RepoFormatError(f"{layout.base} is not a directory, so no repo can be there")
    layout.journals.mkdir(parents=True, exist_ok=True)
    layout.blobs.mkdir(exist_ok=True)
    write_version(layout)
