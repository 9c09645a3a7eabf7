"""Runs in one file: a zip that another repo takes them from, exactly as they are. docs/format.md has its members and entries.

Written and read in pieces, so that memory grows with the params of one run and not with its points, objects and blobs. Reading trusts
nothing: every entry is decoded and checked, names of members are no paths, and what does not fit is an ArchiveError.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

from aimlite._ext.packed import packed_end
from aimlite.errors import ArchiveError
from aimlite.storage import keys, params
from aimlite.storage.blobs import BLOB_BYTES, copy_blob, sha256
from aimlite.storage.files import remove_stale_parts
from aimlite.storage.points import FLOATS, INTS, Points, encode_block
from aimlite.storage.view import SequenceId, View

FORMAT = 1
MANIFEST = "aimlite.json"
_ENTRY_BYTES = 64 << 20  # no entry is larger
_ENTRY_ITEMS = 20_000  # nor has one more items: the longest path of a param has 1,000, and a context takes 4,096 bytes
_RUN_BYTES = 1024  # what the manifest says of a run takes less
_PIECE = 1 << 20
# What zipfile raises for what is no zip of ours.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error)


@dataclass(frozen=True)
class ArchivedRun:
    """A run in an archive: its hash, the member that has its entries, and their SHA-256 in hex."""

    hash: str
    member: str
    sha256: str


# -- writing ---------------------------------------------------------------------------------------------------------------


def write_archive(path: Path, view: View, run_hashes: list[str]) -> list[ArchivedRun]:
    """Writes runs of a view to a file that takes its name when it is whole. Raises CorruptionError, OSError."""
    remove_stale_parts(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            runs, blobs = [], set[bytes]()
            for number, run_hash in enumerate(run_hashes):
                member, hasher = f"runs/{number}.entries", hashlib.sha256()
                with archive.open(member, "w", force_zip64=True) as file:
                    for entry in entries_of(view, run_hash, blobs):
                        hasher.update(entry)
                        file.write(entry)
                runs.append(ArchivedRun(run_hash, member, hasher.hexdigest()))
            for digest in sorted(blobs):
                with archive.open(blob_member(digest), "w", force_zip64=True) as target:
                    copy_blob(view.layout.blobs, digest, cast("BinaryIO", target))
            archive.writestr(MANIFEST, json.dumps({"format": FORMAT, "runs": [asdict(run) for run in runs]}))
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return runs


_CONTENT = params.packb(["content", b"", b""])[:9]


def fingerprint(view: View, run_hash: str) -> str:
    """The SHA-256 of a run's entries: equal for runs that are the same in all they hold. Contents are left out: their SHA-256 stands in the
    entries of their objects, and where they lie differs."""
    hasher = hashlib.sha256()
    for entry in entries_of(view, run_hash, set()):
        if not entry.startswith(_CONTENT):
            hasher.update(entry)
    return hasher.hexdigest()


def entries_of(view: View, run_hash: str, blobs: set[bytes]) -> Iterator[bytes]:
    """All that a run holds, packed; blobs: takes the SHA-256 of those it names. Raises KeyError, CorruptionError."""
    state = view.run_state(run_hash)
    yield params.packb(["run", run_hash, state.created, state.order])
    for writer, entry in sorted(view.writer_entries(run_hash).items()):
        yield params.packb(["writer", writer, entry.encode()])
    for held, ((order, writer), value) in sorted(view.stamped_properties(run_hash).items(), key=lambda item: item[0]):
        yield params.packb(["property", held, order, writer, params.packb(value)])
    leaves, covers = view.stamped_params(run_hash)
    for path, ((order, writer), value) in leaves.items():
        blobs.update(params.blob_digests(value))
        yield params.packb(["param", list(path), order, writer, params.packb(value)])
    for path, (order, writer) in covers.items():
        yield params.packb(["cover", list(path), order, writer])
    for sequence in view.sequences(run_hash, None):
        name: keys.Name = sequence.key_name
        summary = view.summary(sequence)
        flags = (INTS | FLOATS) & (0 if summary is None else summary.flags)
        yield params.packb(["sequence", name if isinstance(name, str) else list(name), sequence.context, flags])
        for points in view.pieces(sequence):
            yield params.packb(["block", *encode_block(points)])
            if not isinstance(name, str):
                yield from _objects(view, sequence, points, blobs)
    yield params.packb(["end"])


def _objects(view: View, sequence: SequenceId, points: Points, blobs: set[bytes]) -> Iterator[bytes]:
    """The objects of some points in their final form, after the contents that they name and that are no blobs."""
    from aimlite.storage.media import is_finished
    from aimlite.storage.objects import INLINE_BYTES, Item, encode_items

    stamps = zip(points["order"].tolist(), points["writer"].tolist(), strict=True)
    for (order, writer), items in zip(stamps, view.objects(sequence, points), strict=True):
        stored = []
        for index, item in enumerate(items):
            if not is_finished(item.header):
                header, content = view.object(sequence, order, writer, index)
                item = Item(header, content if len(content) <= INLINE_BYTES else params.Blob(sha256(content), len(content)))
                if isinstance(item.content, params.Blob):
                    yield params.packb(["content", item.content.digest, content])
            elif isinstance(item.content, params.Blob):
                if item.size >= BLOB_BYTES and view.is_blob(item.content.digest):
                    blobs.add(item.content.digest)
                else:
                    yield params.packb(["content", item.content.digest, view.object(sequence, order, writer, index)[1]])
            stored.append(item)
        yield params.packb(["object", order, writer, encode_items(stored)])


def blob_member(digest: bytes) -> str:
    return f"blobs/{digest.hex()}"


def _archived_run(run: Any) -> ArchivedRun:
    fields = (run["hash"], run["member"], run["sha256"])
    if not all(type(text) is str for text in fields):
        raise TypeError(fields)
    return ArchivedRun(*fields)


# -- reading ---------------------------------------------------------------------------------------------------------------


class ArchiveReader:
    """An archive open for reading. Raises ArchiveError for what is none, OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (ValueError, *_BROKEN) as error:
            raise ArchiveError(f"{path} is no archive of runs, or a part of it is missing: {error}") from None
        try:
            self._check_compression()
            self.runs = self._read_manifest()
            self._check_members()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def _check_compression(self) -> None:
        if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in self._zip.infolist()):
            raise ArchiveError(f"{self.path}: something is compressed in a way that no archive is: a piece of it could take any memory")

    def _read_manifest(self) -> list[ArchivedRun]:
        try:
            if self._zip.getinfo(MANIFEST).file_size > _RUN_BYTES * (1 + len(self._zip.infolist())):  # each run is a member, too
                raise ArchiveError(f"{self.path}: its {MANIFEST} is larger than any can be")
            manifest = json.loads(self._zip.read(MANIFEST))
            version = manifest["format"]
            if isinstance(version, int) and version > FORMAT:
                raise ArchiveError(f"{self.path} is of format {version}; this aimlite reads up to {FORMAT}: install a newer one")
            if version != FORMAT:
                raise ValueError(version)
            return [_archived_run(run) for run in manifest["runs"]]
        except ArchiveError:
            raise
        except (KeyError, ValueError, TypeError, *_BROKEN):  # a RecursionError is a RuntimeError
            raise ArchiveError(f"{self.path} is no archive of runs: its {MANIFEST} is missing or not what it should be") from None

    def _check_members(self) -> None:
        names = self._zip.namelist()
        if len(set(names)) != len(names) or len({run.hash for run in self.runs}) != len(self.runs):
            raise ArchiveError(f"{self.path}: something is in it twice")
        for run in self.runs:
            if run.member not in names:
                raise ArchiveError(f"{self.path}: what it should hold of run {run.hash!r:.200} is missing")

    @property
    def unpacked_bytes(self) -> int:
        """How much its members hold, by its own directory; none gives more."""
        return sum(info.file_size for info in self._zip.infolist())

    def demand_room(self, place: Path) -> None:
        """Raises OSError where what it holds cannot fit."""
        free = shutil.disk_usage(place).free
        if self.unpacked_bytes > free:
            raise OSError(28, f"{self.path} holds {self.unpacked_bytes:,} bytes unpacked, {free:,} are free", str(place))

    def entries(self, run: ArchivedRun) -> Iterator[list[Any]]:
        """The entries of a run; when they end they are those that were written. Raises ArchiveError."""
        hasher, left = hashlib.sha256(), b""
        try:
            with self._zip.open(run.member) as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    left += piece
                    start = 0
                    while (end := packed_end(left, start, _ENTRY_ITEMS)) > start:
                        entry = params.unpackb(left[start:end])
                        if not isinstance(entry, list) or not entry:
                            raise ArchiveError(f"{self.path}: run {run.hash} has an entry that is none")
                        yield entry
                        start = end
                    left = left[start:]
                    if len(left) > _ENTRY_BYTES:
                        raise ArchiveError(f"{self.path}: run {run.hash} has an entry of more than {_ENTRY_BYTES:,} bytes")
        except ArchiveError:
            raise
        except (ValueError, *_BROKEN) as error:
            raise ArchiveError(f"{self.path}: run {run.hash} is damaged: {type(error).__name__}: {error}") from None
        if left:
            raise ArchiveError(f"{self.path}: run {run.hash} is damaged: its last entry is cut short")
        if hasher.hexdigest() != run.sha256:
            raise ArchiveError(f"{self.path}: run {run.hash} is not what was written: its checksum differs")

    def copy_blob(self, digest: bytes, target: IO[bytes]) -> None:
        """Writes a blob to a file. Raises ArchiveError."""
        hasher = hashlib.sha256()
        try:
            with self._zip.open(blob_member(digest)) as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    target.write(piece)
        except (KeyError, *_BROKEN) as error:
            raise ArchiveError(f"{self.path}: blob {digest.hex()} is missing or damaged: {error}") from None
        if hasher.digest() != digest:
            raise ArchiveError(f"{self.path}: blob {digest.hex()} is not what was written")
