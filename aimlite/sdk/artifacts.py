"""Files that a run makes: kept by content in the repo, or uploaded to where the run's URI says, in the background.

An artifact is an entry under the param `__artifacts`, its name: `path` (where it was), `size`, `hash` (SHA-256 in hex), and either `blobs`,
which keeps its blob, or `uri`, `repo` (where it was uploaded from) and, once it arrived, `uploaded`, the hash of what arrived. Until that
is the `hash` it is pending, and a copy of it lies in the repo.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aimlite.errors import ArtifactError, CorruptionError
from aimlite.storage.loading import load
from aimlite.storage.params import Blobs
from aimlite.storage.writer import warn

if TYPE_CHECKING:
    from aimlite.artifacts.uploads import Stage, Upload, Uploader
    from aimlite.sdk.run import Run

ARTIFACTS = "__artifacts"
URI = "artifacts_uri"
_LONGEST_NAME = 1024
_HASH = re.compile(r"[0-9a-f]{64}")
_NAMED = 3

_uploading: dict[int, RunArtifacts] = {}  # by id: runs of one hash are equal
_waits_at_exit = False


@dataclass(frozen=True)
class Artifact:
    """A file that a run has made. path: where it was. uri: where it is. size in bytes; hash: SHA-256 in hex. pending: whether it is still
    to be uploaded; it is in the repo then."""

    name: str
    path: str
    uri: str
    size: int
    hash: str
    pending: bool
    _run: Run = field(repr=False, compare=False)
    _place: str | None = field(repr=False, compare=False)
    _repo: object = field(repr=False, compare=False)

    def download(self, dest_dir: str | os.PathLike[str] | None = None, *, overwrite: bool = False, trust_uri: str | None = None) -> str:
        """Writes the file to `dest_dir` and its name, checked against its hash; returns the path. None: a new temporary directory.

        Where the same file is already, nothing is done. overwrite: replaces another one; FileExistsError without it. trust_uri:
        exactly the URI that the run's artifacts are below; it must be named once by each user who reads what somebody else's process
        uploaded, and lets a permanent deletion of a run of this repo remove its files there.
        Raises CorruptionError when what is there is not what was logged, ArtifactError when nobody named where it is, OSError when that
        cannot be reached.
        """
        load("aimlite.archive.restore", "aimlite.storage.scratch")
        from aimlite.archive.restore import demand_no_links
        from aimlite.storage.scratch import temporary_directory

        check_name(self.name)  # who wrote it may not have
        if trust_uri is not None:
            self._trust(trust_uri)
        root = Path(os.path.realpath(os.path.expanduser(temporary_directory("aimlite-") if dest_dir is None else os.fspath(dest_dir))))
        above = self.name.split("/")[:-1]
        demand_no_links(root, ["/".join(above[: at + 1]) for at in range(len(above))])
        target = root / self.name
        if self._is_at(target):
            return str(target)
        if os.path.lexists(target) and not overwrite:
            raise FileExistsError(f"{target} would be overwritten: download elsewhere, or ask for overwriting")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{os.urandom(8).hex()}.part")
        try:
            self._fetch(part)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return str(target)

    def _trust(self, uri: str) -> None:
        load("aimlite.artifacts.places", "aimlite.artifacts.trust")
        from aimlite.artifacts.places import check_uri
        from aimlite.artifacts.trust import trust

        if check_uri(uri) != self._place:
            raise ValueError(f"trust_uri is {uri!r:.200}, where it must be exactly what the run records: {self._place!r:.200}")
        trust(self._place, self._run.repo.path)

    def _is_at(self, target: Path) -> bool:
        load("aimlite.artifacts.places")
        from aimlite.artifacts.places import hash_file

        is_file = target.is_file() and not target.is_symlink()
        return is_file and target.stat().st_size == self.size and hash_file(target)[0] == self.hash

    def _fetch(self, part: Path) -> None:
        load("aimlite.artifacts.places", "aimlite.storage.blobs")
        from aimlite.artifacts.places import hash_file, open_place
        from aimlite.storage.blobs import copy_blob

        with open(part, "xb") as file:
            if self._place is None:
                copy_blob(self._run.repo._layout.blobs, bytes.fromhex(self.hash), file)
                return
            if self.pending:
                _copy_staged(self._run._stage().path(self.name, self.hash), file)
            else:
                _demand_trust(
                    self._run,
                    self._place,
                    f"artifact.download(trust_uri={self._place!r:.200}) (the option --trust-uri of 'aimlite artifacts')",
                )
                try:
                    open_place(self._place, self._run.hash).get(self.name, file)
                except FileNotFoundError as error:
                    message = f"artifact {self.name!r} of run {self._run.hash} is no longer there"
                    raise FileNotFoundError(errno.ENOENT, message, self.uri) from error
        if hash_file(part)[0] != self.hash:
            raise CorruptionError(f"artifact {self.name!r} is not what was logged", self.uri)


def _copy_staged(path: Path, file: Any) -> None:
    load("shutil")
    import shutil

    try:
        with open(path, "rb") as staged:
            shutil.copyfileobj(staged, file, 1 << 20)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the artifact was not uploaded yet, and its copy is not at {path}: it may just have been uploaded"
        ) from None


class RunArtifacts:
    """The artifacts of a run."""

    _uploader: Uploader | None = None

    @property
    def artifacts_uri(self) -> str | None:
        """Where artifacts of this run are uploaded to, its hash included; None: they are kept in the repo."""
        run = cast("Run", self)
        base = _base(run)
        return None if base is None else f"{base.rstrip('/')}/{run.hash}"

    def set_artifacts_uri(self, uri: str | None) -> None:
        """Has artifacts that are logged from now on uploaded below a URI: `file:///directory`, or what fsspec knows (`s3://bucket/path`).
        None: kept in the repo, as they are without it. That this user named the URI for this repo is remembered beside the user's config:
        from elsewhere nothing is downloaded or removed.

        Raises TypeError, ValueError (no scheme, or one that nobody knows), ImportError (fsspec, or what it needs for the scheme, is not
        installed), ReadOnlyError, OSError.
        """
        load("aimlite.artifacts.places", "aimlite.artifacts.trust")
        from aimlite.artifacts.places import check_uri
        from aimlite.artifacts.trust import trust

        run, base = cast("Run", self), None if uri is None else check_uri(uri)
        run._set_properties({URI: base})
        if base is not None:
            trust(base, run.repo.path)

    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None, *, block: bool = False) -> None:
        """Keeps a file as it is now, under a name (None: that of the file), in place of what had it.

        Without a URI it is in the repo when this returns. With one a copy is, and it is uploaded in the background: `finish()` waits for it
        and raises ArtifactError if it did not arrive; what a killed process left is uploaded when the run is resumed. block: waits here.
        Raises TypeError, ValueError (a name that would lead elsewhere), FileNotFoundError, OSError, ArtifactError, RunClosedError,
        ReadOnlyError.
        """
        source = _source(path)
        if source.is_dir():
            raise IsADirectoryError(f"{source} is a directory: log_artifacts() logs all files in it")
        cast("Run", self)._log_artifacts([(check_name(source.name if name is None else name), source)], block)

    def log_artifacts(self, path: str | os.PathLike[str], name: str | None = None, *, block: bool = False) -> None:
        """Keeps all files of a directory, each under `name`/its path in there (None: the name of the directory). All are recorded at once;
        otherwise as `log_artifact`. Warns of what cannot be read, and of symlinks that lead out."""
        load("aimlite.archive.listing")
        from aimlite.archive.listing import list_path

        run, source = cast("Run", self), _source(path)
        if not source.is_dir():
            raise NotADirectoryError(f"{source} is no directory: log_artifact() logs a single file")
        prefix = check_name(source.name if name is None else name)
        listing = list_path(str(source), (), run.repo.path, everything=True)
        root = Path(listing.root)
        below = [path for path, _, _ in listing.files]
        for link, target in listing.links:
            if (root / link).is_file():
                below.append(link)
            else:
                _warn(f"artifacts of {source}: {link} was left out: it is a symlink to {target}, which is no file")
        for place, why in listing.left_out:
            _warn(f"artifacts of {source}: {place} was left out: it {why}")
        run._log_artifacts([(check_name(f"{prefix}/{each}"), root / each) for each in sorted(below)], block)

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """By name."""
        run = cast("Run", self)
        try:
            held = run._get_param((ARTIFACTS,))
        except KeyError:
            return {}
        entries = held.items() if isinstance(held, dict) else ()
        return {name: _artifact(run, name, entry) for name, entry in entries if _is_entry(name, entry)}

    # -- how ----

    def _log_artifacts(self, files: list[tuple[str, Path]], block: bool) -> None:
        run = cast("Run", self)
        run._writable()
        if not isinstance(block, bool):
            raise TypeError(f"block is True or False, not {block!r:.100}")
        base = _base(run)
        if not files:
            return
        if base is None:
            _keep_in_repo(run, files)
            return
        _demand_trust(run, base, f"run.set_artifacts_uri({base!r:.200})")
        stage, items = self._stage(), []
        uploader = self._own_uploader()
        entries: list[tuple[tuple[str | int, ...], Any]] = []
        load("aimlite.artifacts.uploads")
        from aimlite.artifacts.uploads import Upload

        for name, source in files:
            _demand_file(source)
            digest, size = stage.add(source, name)
            items.append(Upload(name, digest, size, base))
            entry = {"path": os.path.abspath(source), "size": size, "hash": digest, "uri": base, "repo": run.repo.path}
            entries.append(((ARTIFACTS, name), entry))
        run._set_params(entries)
        for item in items:
            uploader.submit(item)
        failed = [(item, error) for item in items if (error := uploader.wait_for(item.name)) is not None] if block else []
        if failed:
            raise _error(run, failed) from failed[0][1]

    def _stage(self) -> Stage:
        load("aimlite.artifacts.uploads")
        from aimlite.artifacts.uploads import Stage

        run = cast("Run", self)
        return Stage(run.repo._layout, run.hash)

    def _own_uploader(self, lock_fd: int | None = None) -> Uploader:
        load("aimlite.artifacts.uploads")
        from aimlite.artifacts.uploads import Uploader

        global _waits_at_exit
        if self._uploader is None or self._uploader.pid != os.getpid():
            self._uploader = Uploader(self._stage(), self._note_uploaded, lock_fd)
            _uploading[id(self)] = self
            if not _waits_at_exit:
                _waits_at_exit = True
                atexit.register(_finish_at_exit)  # here, so that it comes before runs are ended: who opened one imported the writer
        return self._uploader

    def _note_uploaded(self, item: Upload) -> None:
        run = cast("Run", self)
        run._set_params([((ARTIFACTS, item.name, "uploaded"), item.hash)])
        self._stage().remove(item.name, item.hash)

    def _take_up_uploads(self) -> None:
        """Of a run just resumed: what a process that is gone left to be uploaded."""
        run = cast("Run", self)
        if _base(run) is None or not self._stage().root.is_dir():
            return
        load("aimlite.artifacts.trust", "aimlite.artifacts.uploads")
        from aimlite.artifacts.trust import is_trusted
        from aimlite.artifacts.uploads import Upload

        pending = [artifact for artifact in self.artifacts.values() if artifact.pending and artifact._place is not None]
        unknown = {str(artifact._place) for artifact in pending if not is_trusted(str(artifact._place))}
        for uri in sorted(unknown):
            warn(
                f"run {run.hash} has artifacts to upload to {uri!r:.200}; they wait until you name it: run.set_artifacts_uri({uri!r:.200})"
            )
        pending = [artifact for artifact in pending if artifact._place not in unknown]
        lock_fd = self._stage().take() if pending else None
        if lock_fd is None:
            return
        uploader = self._own_uploader(lock_fd)
        for artifact in pending:
            uploader.submit(Upload(artifact.name, artifact.hash, artifact.size, cast("str", artifact._place)))

    def _finish_uploads(self) -> None:
        """Waits for what is under way in this process. Raises ArtifactError when some of it failed."""
        uploader, self._uploader = self._uploader, None
        if uploader is None or uploader.pid != os.getpid():
            return
        try:
            failed = uploader.wait()
        finally:
            uploader.close()
            _uploading.pop(id(self), None)
        stage = self._stage()
        with contextlib.suppress(OSError):  # what is left there is looked at again when the run is resumed
            stage.clear(lambda: [stage.path(artifact.name, artifact.hash) for artifact in self.artifacts.values() if artifact.pending])
        if failed:
            raise _error(cast("Run", self), failed) from failed[0][1]


def _keep_in_repo(run: Run, files: list[tuple[str, Path]]) -> None:
    load("aimlite.sdk.archives", "aimlite.storage.blobs")
    from aimlite.sdk.archives import keep_blobs
    from aimlite.storage.blobs import BlobFiles

    def record() -> tuple[None, tuple[bytes, ...]]:
        entries: list[tuple[tuple[str | int, ...], Any]] = []
        digests = []
        with BlobFiles(run.repo._layout.blobs) as stored:
            for name, source in files:
                _demand_file(source)
                with open(source, "rb") as file:
                    digest, size = stored.add_file(file)
                entry = {"path": os.path.abspath(source), "size": size, "hash": digest.hex(), "blobs": {0: Blobs((digest,))}}
                entries.append(((ARTIFACTS, name), entry))
                digests.append(digest)
        run._set_params(entries)
        return None, tuple(digests)

    keep_blobs(run, record)


def _base(run: Run) -> str | None:
    """The URI that a run has recorded, whoever wrote it there."""
    base = run._properties().get(URI)
    return base if isinstance(base, str) else None


def _demand_trust(run: Run, uri: str, how: str) -> None:
    """Raises ArtifactError unless this user named the place."""
    load("aimlite.artifacts.trust")
    from aimlite.artifacts.trust import is_trusted

    if not is_trusted(uri):
        raise ArtifactError(
            f"run {run.hash} says that its artifacts are at {uri!r:.200}, which this user has never named: whoever wrote the run chose it."
            f" Where it is right, call {how} once; it is remembered"
        )


def _is_entry(name: object, entry: object) -> bool:
    """Params may be set to anything, so what only stands where an artifact would is passed over."""
    kinds = {"path": str, "size": int, "hash": str}
    if not isinstance(name, str) or not isinstance(entry, dict) or not isinstance(entry.get("uri"), str | None):
        return False
    return all(isinstance(entry.get(key), kind) for key, kind in kinds.items()) and _HASH.fullmatch(entry["hash"]) is not None


def _artifact(run: Run, name: str, entry: dict[str, Any]) -> Artifact:
    load("aimlite.storage.blobs")
    from aimlite.storage.blobs import blob_path

    digest, base = entry["hash"], entry.get("uri")
    if base is None:
        uri, pending = f"file://{blob_path(run.repo._layout.blobs, bytes.fromhex(digest))}", False
    else:
        uri, pending = f"{base.rstrip('/')}/{run.hash}/{name}", entry.get("uploaded") != digest
    return Artifact(name, entry["path"], uri, entry["size"], digest, pending, run, base, entry.get("repo"))


def check_name(name: object) -> str:
    """A name that stays below wherever it is put. Raises TypeError, ValueError."""
    load("aimlite.archive.manifest")
    from aimlite.archive.manifest import is_safe_path

    if not isinstance(name, str):
        raise TypeError(f"the name of an artifact is a string, not {type(name).__name__} {name!r:.100}")
    is_hostile = not is_safe_path(name) or "\\" in name or ":" in name.split("/")[0][1:2] or not name.isprintable()
    if is_hostile or len(name) > _LONGEST_NAME:
        raise ValueError(
            "the name of an artifact has parts separated by '/', none of them empty, '.' or '..', no backslashes or control characters,"
            f" and at most {_LONGEST_NAME:,} characters: {name!r:.200}"
        )
    return name


def copy_staged(source: Path, target: Path) -> None:
    """Copies what of a run is still to be uploaded beside a copy of the run, which may then upload it too."""
    load("shutil")
    import shutil

    for path in source.glob("*-*"):
        if not stat.S_ISREG(path.lstat().st_mode):  # a link may lead out of the repo
            continue
        target.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # it has just arrived
            shutil.copyfile(path, target / f".{path.name}")
            os.replace(target / f".{path.name}", target / path.name)


def uploaded_by(run: Run) -> list[Artifact]:
    """The artifacts that go from their URIs when the run is deleted for good: those that were uploaded from this repo."""
    try:
        held = run.artifacts if URI in run._properties() else {}
    except CorruptionError as error:
        _warn(f"what run {run.hash} has uploaded is not known, and stays: {error}")
        return []
    return [artifact for artifact in held.values() if artifact._place is not None and not artifact.pending]


def remove_uploaded(artifacts: list[Artifact]) -> None:
    """Takes away what runs just deleted have at their URIs. What is not what the run put there stays, and so does what was uploaded from
    another repo, of which this one is a copy. Warns of what could not be removed."""
    load("aimlite.artifacts.places", "aimlite.artifacts.trust")
    from aimlite.artifacts.places import Place, open_place
    from aimlite.artifacts.trust import is_trusted

    places: dict[tuple[str, str], Place] = {}
    for artifact in artifacts:
        try:
            if artifact._repo != artifact._run.repo.path:
                raise OSError(f"it was uploaded from the repo {artifact._repo}")
            if not is_trusted(str(artifact._place), artifact._run.repo.path):
                raise OSError("this user never named that place with set_artifacts_uri(), and the run may come from somebody else")
            at = (str(artifact._place), artifact._run.hash)
            place = places[at] if at in places else places.setdefault(at, open_place(*at))
            if place.size(check_name(artifact.name)) == artifact.size:
                place.remove(artifact.name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, ImportError) as error:
            _warn(f"an artifact of run {artifact._run.hash}, which was deleted, is still at {artifact.uri}: {error}")


def _source(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"an artifact is given by a path, not {type(path).__name__} {path!r:.100}")
    source = Path(os.path.expanduser(path))
    if not source.exists():
        raise FileNotFoundError(f"nothing is at {source}, so it cannot be logged as an artifact")
    return source if source.name else source.resolve()


def _demand_file(source: Path) -> None:
    if not stat.S_ISREG(source.stat().st_mode):
        raise ValueError(f"{source} is no file, so it cannot be logged as an artifact")


def _error(run: Run, failed: list[tuple[Upload, Exception]]) -> ArtifactError:
    told = "; ".join(f"{item.name} ({type(error).__name__}: {error})" for item, error in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    many = f"{len(failed)} artifact{'s' if len(failed) > 1 else ''} of run {run.hash}"
    advice = f"they are kept in the repo, and Run({run.hash!r}) tries again"
    return ArtifactError(f"{many} did not arrive at {failed[0][0].uri}: {told}{more}; {advice}")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _finish_at_exit() -> None:
    for run in list(_uploading.values()):
        try:
            run._finish_uploads()
        except Exception as error:  # the uploads of other runs are waited for, too
            warn(str(error))


def _forget_in_child() -> None:
    """In a forked child: the uploads are its parent's, and so is the lock that says so."""
    for run in _uploading.values():
        if run._uploader is not None:
            run._uploader.close()
            run._uploader = None
    _uploading.clear()


os.register_at_fork(after_in_child=_forget_in_child)
