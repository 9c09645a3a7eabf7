"""Code, datasets, pretrained models and config files that runs name: what they were, and on request the files themselves, by content.

Each is an entry among the params, so queries see it. An entry with files has, besides what is shown, a leaf `blobs` that names every blob
it needs: as long as a run has the entry the files stay, and they go with the last run that names them.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aimlite.storage.loading import load
from aimlite.storage.params import Blobs

if TYPE_CHECKING:
    from aimlite.archive.listing import Limits, Listing
    from aimlite.archive.store import Archive
    from aimlite.sdk.run import Run

T = TypeVar("T")
MAX_CODE_BYTES = 500 * 1000**2
MAX_CODE_FILES = 200_000
MAX_ARCHIVE_BYTES = 5 * 1024**3
MAX_ARCHIVE_FILES = 2_000_000
MAX_CONFIG_BYTES = 64 << 20
_DIGESTS = 4096  # in one leaf, which so stays below the size of a blob of its own
_TRIES = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCAL = ("local", "file", "path", "checkpoint")  # source types that mean a path


class RunArchives:
    """What a run records of files that it was made from."""

    def log_code(self, root: str | os.PathLike[str] | None = None, *, force: bool = False) -> None:
        """Archives the code below a directory: `root`, else that of the git repository around the working directory, else the working
        directory. Recorded as the params `code`, in place of what was there.

        force: however large it is; without it at most 500 MB in 200,000 files. Raises ValueError (larger), TypeError, OSError,
        RunClosedError, ReadOnlyError. Warns of each file that could not be read.
        """
        snapshot_code(cast("Run", self), root, force)

    def log_dataset(
        self,
        name: str,
        root_or_uri: str | os.PathLike[str] | dict[str, Any],
        *,
        context: str = "train",
        save: bool = False,
        description: str | None = None,
        force_save: bool = False,
        max_archive_bytes: int = 5 * 1024**3,
        max_archive_files: int = 2_000_000,
    ) -> None:
        """Records a dataset as the params `datasets`, name, context, in place of what was there.

        root_or_uri: a path, a URI (kept as it is), or a dict that says what it is. save: archives the files at a path. force_save: however
        large they are. Raises ValueError (larger than the limits), TypeError, OSError, RunClosedError, ReadOnlyError. Warns of a path where
        nothing is, and of each file that could not be read.
        """
        archive_dataset(cast("Run", self), name, root_or_uri, context, save, description, force_save, max_archive_bytes, max_archive_files)

    def log_pretrained(
        self,
        name: str,
        *,
        path_or_uri: str | os.PathLike[str] | dict[str, Any] | None = None,
        save: bool = False,
        source_type: str = "unknown",
        description: str | None = None,
        force_save: bool = False,
    ) -> None:
        """Records a pretrained model as the params `pretrained`, name; as `log_dataset`, with a name of a model in place of a path too.
        Raises ValueError for `save` without `path_or_uri`."""
        archive_pretrained(cast("Run", self), name, path_or_uri, save, source_type, description, force_save)

    def restore_code(self, dest: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the code that was archived below the directory `dest`, which is made if need be; returns it.

        overwrite: replaces files that are in the way. Raises FileExistsError without it, KeyError when the run has no archived code,
        CorruptionError when a part is damaged (the rest is written), OSError.
        """
        return _restore(cast("Run", self), ("code",), "code", dest, overwrite)

    def restore_dataset(self, name: str, dest: str | os.PathLike[str], *, context: str | None = None, overwrite: bool = False) -> Path:
        """As `restore_code`, of a dataset. context: None is the only one that there is; ValueError when there are several."""
        run = cast("Run", self)
        held = _entries(run, ("datasets", _name("a dataset", name)))
        if context is None and len(held) > 1:
            raise ValueError(f"dataset {name!r} of run {run.hash} has the contexts {', '.join(map(repr, held))}: name one with context=")
        chosen = next(iter(held), "train") if context is None else context
        return _restore(run, ("datasets", name, chosen), f"dataset {name!r} in context {chosen!r}", dest, overwrite)

    def restore_pretrained(self, name: str, dest: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """As `restore_code`, of a pretrained model."""
        path = ("pretrained", _name("a pretrained model", name))
        return _restore(cast("Run", self), path, f"pretrained model {name!r}", dest, overwrite)


def snapshot_code(run: Run, workspace_root: str | os.PathLike[str] | None = None, force: bool = False) -> None:
    """What `Run.log_code` does."""
    load("aimlite.archive.listing", "aimlite.archive.rules")
    from aimlite.archive.listing import NO_LIMITS, Limits
    from aimlite.archive.rules import ALL_IGNORE_FILES, git_root

    run._writable()
    root = _path("workspace_root", workspace_root) if workspace_root is not None else git_root(os.getcwd()) or os.getcwd()
    limits = NO_LIMITS if force else Limits(MAX_CODE_BYTES, MAX_CODE_FILES)
    entry: dict[str, Any] = {"root": os.path.abspath(root), "saved": False}
    if not os.path.isdir(root):
        _warn(f"no code was archived: {root} is no directory")
        run._set_params([(("code",), entry)])
        return
    listing = _listed(run, root, ALL_IGNORE_FILES, limits, "add patterns to .aimliteignore, name a smaller directory, or force it")
    _save(run, ("code",), entry, listing, "code", tell_secrets=False)


def archive_dataset(
    run: Run,
    name: str,
    root_or_uri: str | os.PathLike[str] | dict[str, Any],
    context: str = "train",
    save: bool = False,
    description: str | None = None,
    force_save: bool = False,
    max_archive_bytes: int = MAX_ARCHIVE_BYTES,
    max_archive_files: int = MAX_ARCHIVE_FILES,
) -> None:
    """What `Run.log_dataset` does."""
    load("aimlite.archive.listing")
    from aimlite.archive.listing import Limits

    run._writable()
    entry = {"context": _name("a context", context), **_described(description)}
    limits = Limits(_limit("max_archive_bytes", max_archive_bytes), _limit("max_archive_files", max_archive_files))
    path = ("datasets", _name("a dataset", name), context)
    _record_source(run, path, f"dataset {name!r}", entry, root_or_uri, save, force_save, limits, always_path=True)


def archive_pretrained(
    run: Run,
    name: str,
    path_or_uri: str | os.PathLike[str] | dict[str, Any] | None = None,
    save: bool = False,
    source_type: str = "unknown",
    description: str | None = None,
    force_save: bool = False,
) -> None:
    """What `Run.log_pretrained` does."""
    load("aimlite.archive.listing")
    from aimlite.archive.listing import Limits

    run._writable()
    entry = {"source_type": _name("source_type", source_type), **_described(description)}
    path, what = ("pretrained", _name("a pretrained model", name)), f"pretrained model {name!r}"
    if path_or_uri is None:
        if save:
            raise ValueError(f"{what}: save=True needs path_or_uri, the path of what is to be archived")
        run._set_params([(path, {**entry, "uri": None, "saved": False})])
        return
    limits = Limits(MAX_ARCHIVE_BYTES, MAX_ARCHIVE_FILES)
    always_path = save or source_type.lower() in _LOCAL
    _record_source(run, path, what, entry, path_or_uri, save, force_save, limits, always_path)


def archive_config_files(run: Run, config_files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> None:
    """Records config files as the params `config.files`, by the path as it was given: its absolute path, size, SHA-256, and content as str
    (or bytes, where it is no UTF-8). Warns of one that cannot be read, which is then recorded without content. Raises TypeError."""
    run._writable()
    given = [config_files] if isinstance(config_files, str | os.PathLike) else list(config_files)
    paths = [_path("a config file", path) for path in given]
    entries: list[tuple[tuple[str | int, ...], Any]] = [(("config", "files", path), _config_entry(path)) for path in paths]
    if entries:
        run._set_params(entries)


def _config_entry(path: str) -> dict[str, Any]:
    load("hashlib", "aimlite.archive.rules")
    import hashlib

    from aimlite.archive.rules import is_secret

    local = os.path.expanduser(path)
    entry: dict[str, Any] = {"path": os.path.abspath(local), "saved": False}
    if is_secret(os.path.basename(local)):
        _warn(f"config file {path} is recorded without its content: it looks like keys or passwords")
        return entry
    try:
        with open(os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a pipe must not wait for its writer
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_CONFIG_BYTES + 1) if is_file else b""
    except OSError as error:
        _warn(f"config file {path} is recorded without its content: {error.strerror}")
        return entry
    if not is_file:
        _warn(f"config file {path} is recorded without its content: it is no file")
        return entry
    if len(content) > MAX_CONFIG_BYTES:
        _warn(f"config file {path} is recorded without its content: it is larger than {MAX_CONFIG_BYTES >> 20} MiB")
        return entry
    try:
        text: str | bytes = content.decode()
    except UnicodeDecodeError:
        text = content
    return {**entry, "saved": True, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "content": text}


def _record_source(
    run: Run,
    path: tuple[str, ...],
    what: str,
    entry: dict[str, Any],
    source: str | os.PathLike[str] | dict[str, Any],
    save: bool,
    force: bool,
    limits: Limits,
    always_path: bool,
) -> None:
    """Records what is at a path, a URI, or told by a dict. always_path: a str that is no URI is a path, also where nothing is there."""
    if isinstance(source, Mapping):
        if save:
            _warn(f"{what} is recorded without files: it is told by a dict, and only a path can be archived")
        run._set_params([(path, {**entry, "uri": dict(source), "saved": False})])
        return
    given = _path(what, source)
    local = _local_path(given)
    entry |= {"uri": given, "saved": False}
    if local is None:
        if save:
            _warn(f"{what} is recorded without files: {given} is no local path, and only those can be archived")
        run._set_params([(path, entry)])
        return
    if not os.path.exists(local):
        if always_path or isinstance(source, os.PathLike) or given[:1] in ("/", ".", "~") or given.startswith("file:"):
            _warn(f"{what} is recorded without files: nothing is at {given}")
        run._set_params([(path, entry)])
        return
    load("aimlite.archive.listing", "aimlite.archive.rules")
    from aimlite.archive.listing import NO_LIMITS
    from aimlite.archive.rules import OWN_IGNORE_FILES

    entry["path"] = os.path.abspath(local)
    if not save:
        run._set_params([(path, {**entry, **_measured(run, local, limits)})])
        return
    listing = _listed(run, local, OWN_IGNORE_FILES, NO_LIMITS if force else limits, "force_save=True archives it all the same")
    _save(run, path, entry, listing, what, tell_secrets=True)


def _local_path(given: str) -> str | None:
    """The path that a text names; None for a URI."""
    if given.startswith("file://"):
        return given.removeprefix("file://").removeprefix("localhost")
    return None if "://" in given else os.path.expanduser(given)


def _measured(run: Run, local: str, limits: Limits) -> dict[str, Any]:
    """What is told of files that are not archived; nothing of more than could be."""
    load("aimlite.archive.listing", "aimlite.archive.rules")
    from aimlite.archive.listing import LimitExceeded, Limits, list_path
    from aimlite.archive.rules import OWN_IGNORE_FILES

    try:
        listing = list_path(local, OWN_IGNORE_FILES, run.repo.path, Limits(None, limits.files))
    except (LimitExceeded, OSError):
        return {}
    except ValueError:  # a pipe, or a directory in the repo
        return {}
    return {"files": len(listing.files), "bytes": listing.size_bytes, "modified": listing.modified}


def _listed(run: Run, path: str, ignore_files: tuple[str, ...], limits: Limits, advice: str) -> Listing:
    load("aimlite.archive.listing")
    from aimlite.archive.listing import LimitExceeded, list_path

    try:
        return list_path(path, ignore_files, run.repo.path, limits)
    except LimitExceeded as error:
        raise ValueError(f"{error}; {advice}") from None


def _save(run: Run, path: tuple[str, ...], entry: dict[str, Any], listing: Listing, what: str, tell_secrets: bool) -> None:
    """Archives what was listed and records it."""
    load("aimlite.archive.listing", "aimlite.archive.store")
    from aimlite.archive.listing import SECRET
    from aimlite.archive.store import store

    def record() -> tuple[Archive, tuple[bytes, ...]]:
        archive = store(run.repo._layout.blobs, listing)
        held = {"saved": True, "files": archive.files, "bytes": archive.size_bytes, "manifest": archive.manifest.hex()}
        left_out = {"left_out": [list(each) for each in archive.left_out]} if archive.left_out else {}
        run._set_params([(path, {**entry, **held, **left_out, "blobs": blob_leaves(archive.digests)})], strict=False)
        return archive, archive.digests

    archive = keep_blobs(run, record)
    for place, why in archive.left_out:
        if why != SECRET or tell_secrets:
            _warn(f"{what}: {place} was left out: it {why}")


def blob_leaves(digests: tuple[bytes, ...]) -> dict[int, Blobs]:
    """What keeps blobs, as leaves below a param."""
    return {at // _DIGESTS: Blobs(digests[at : at + _DIGESTS]) for at in range(0, len(digests), _DIGESTS)}


def keep_blobs(run: Run, record: Callable[[], tuple[T, tuple[bytes, ...]]]) -> T:
    """Calls what stores blobs, then names them in a record, and returns (result, their SHA-256), until they are there afterwards: a
    deletion that was under way may have taken one that nobody named yet, and now sees that one does."""
    load("aimlite.archive.store")
    from aimlite.archive.store import are_stored

    for _ in range(_TRIES):
        result, digests = record()
        if are_stored(run.repo._layout.blobs, digests):
            return result
    raise OSError(f"files of run {run.hash} were removed from {run.repo._layout.blobs} as soon as they were stored")


def _restore(run: Run, path: tuple[str, ...], what: str, dest: str | os.PathLike[str], overwrite: bool) -> Path:
    load("aimlite.archive.restore")
    from aimlite.archive.restore import restore

    entry = _entries(run, path)
    if not entry:
        raise KeyError(f"run {run.hash} has no {what}")
    manifest = entry.get("manifest")
    if not isinstance(manifest, str) or not _SHA256.fullmatch(manifest):
        raise KeyError(f"{what} of run {run.hash} was recorded without its files ({entry.get('uri', entry.get('root'))})")
    target = Path(os.path.expanduser(_path("dest", dest)))
    restore(run.repo._layout.blobs, bytes.fromhex(manifest), target, overwrite)
    return target


def _entries(run: Run, path: tuple[str, ...]) -> dict[str, Any]:
    """The params at a path, {} when there are none."""
    try:
        held = run._get_param(path)
    except KeyError:
        return {}
    return held if isinstance(held, dict) else {}


def _path(what: str, path: object) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{what} is given by a path or a URI, not {type(path).__name__} {path!r:.100}")
    if not text or "\0" in text:
        raise ValueError(f"{what} is given by a path or a URI, not {text!r:.100}")
    return text


def _name(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} is a string, not {type(name).__name__} {name!r:.100}")
    if not name:
        raise ValueError(f"the name of {what} is not empty")
    return name


def _described(description: object) -> dict[str, str]:
    if description is None:
        return {}
    if not isinstance(description, str):
        raise TypeError(f"description is a string, not {type(description).__name__} {description!r:.100}")
    return {"description": description}


def _limit(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is a number of at least 0, not {value!r:.100}")
    return value


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
