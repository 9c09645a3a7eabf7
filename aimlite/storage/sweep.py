"""Contents and blobs that nothing names any more: found by their references, freed under the lease.

A blob may go when no reference to it is left in the tree and no journal names it; so may what the tree holds of a content.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import msgpack

from aimlite._ext.keys import unpack
from aimlite.storage import generation, keys, params
from aimlite.storage.blobs import blob_digest, blob_path, end_leaving, list_blobs, take_away
from aimlite.storage.layout import Layout
from aimlite.storage.objects import decode_items
from aimlite.storage.segments import Segment, SegmentView
from aimlite.storage.tree import Tree, TreeWriter, tree_generation
from aimlite.storage.view import View

_BATCH_KEYS = 200_000
_DIGEST_BYTES = 32
_NAMED = re.compile(rb"(?=\xc7(.)[\x02\x0c]|\xc8(..)\x0c|\xc9(.{4})\x0c)", re.DOTALL)  # as msgpack has ext types 2 and 12, which name blobs


class Sweep:
    """Writes to the tree that remove something, and what is freed by them. blobs, references: how many went."""

    def __init__(self, layout: Layout, tree: TreeWriter) -> None:
        self.blobs = self.references = 0
        self.unnamed: set[bytes] = set()  # the contents that may have lost their last reference
        self.writes: dict[bytes, bytes | None] = {}
        self.freed_contents = False
        self._layout = layout
        self._tree = tree
        self._marks: list[bytes] = []

    def commit_if_large(self) -> None:
        if len(self.writes) >= _BATCH_KEYS:
            self.commit()

    def commit(self) -> None:
        if not self.writes:
            return
        self.writes[keys.generation()] = msgpack.packb(tree_generation(self._tree) + 1)
        self._tree.commit(self.writes)
        generation.write_generation(self._layout, self._tree)
        self.writes = {}

    def all_references(self) -> Iterator[tuple[bytes, str]]:
        """(SHA-256, run) of each that the tree holds."""
        for key in chain.from_iterable(self._tree.scan_keys(keys.prefix_range(keys.REFERENCE))):
            digest, run_hash = unpack(key, 1)
            yield digest, run_hash

    def drop_references(self, runs: set[str] | None) -> None:
        """Removes the references of runs (None: of all) to what they do not name any more."""
        if runs is not None and not runs:
            return
        named: dict[str, set[bytes]] = {}
        for digest, run_hash in self.all_references():
            if runs is not None and run_hash not in runs:
                continue
            if run_hash not in named:
                named[run_hash] = _named_digests(self._tree, run_hash)
            if digest not in named[run_hash]:
                self.drop_reference(digest, run_hash)
        self.commit()

    def drop_reference(self, digest: bytes, run_hash: str) -> None:
        self.writes[keys.reference(digest, run_hash)] = None
        self.references += 1
        self.unnamed.add(digest)

    def suspect_all(self) -> None:
        """Has `free` look at every content and blob to which no reference is left."""
        referred = {digest for digest, _ in self.all_references()}
        for key in chain.from_iterable(self._tree.scan_keys(keys.prefix_range(keys.CONTENT))):
            self.unnamed.add(unpack(key, 1)[0])
        for path in list_blobs(self._layout.blobs):
            with contextlib.suppress(ValueError):  # check() reports what has no blob's name
                self.unnamed.add(blob_digest(path))
        self.unnamed -= referred

    def unmark(self, marks: list[bytes]) -> None:
        """Takes marks away with the last commit of `free`."""
        self._marks += marks

    def free(self) -> None:
        """Deletes of the contents that may have lost a reference those to which none is left and that no journal names."""
        freed = [digest for digest in self.unnamed if next(self._tree.scan_keys(keys.references_of(digest), limit=1), None) is None]
        away = [path for digest in freed if take_away(path := blob_path(self._layout.blobs, digest))]
        named = named_in_journals(self._layout)  # after they are away: who names one later looks whether it is there
        for path in away:
            self.blobs += end_leaving(path, keep=blob_digest(path) in named) > 0
        for digest in freed:
            if digest not in named and self._tree.get(keys.content(digest)) is not None:
                self.writes[keys.content(digest)] = None
                self.freed_contents = True
        self.writes.update(dict.fromkeys(self._marks))
        self._marks = []
        self.commit()


def view_of_holder(layout: Layout, tree: Tree) -> View:
    """What the holder of the lease sees."""
    segments = []
    for name in layout.list_journals():
        segment = Segment(layout.journal(*name), *name)
        segments.append(SegmentView(segment, segment.end, segment.held))
    return View(layout, tree, segments)


def _named_digests(tree: Tree, run_hash: str) -> set[bytes]:
    """The SHA-256 of all contents that what the tree has of a run names."""
    leaves = (params.decode_entry(data)[1] for _, data in tree.scan(keys.params_under(run_hash, ())))
    items = (item.content for _, data in tree.scan(keys.of_whole_run(keys.OBJECT, run_hash)) for item in decode_items(data))
    return {digest for held in chain(leaves, items) for digest in params.blob_digests(held)}


def named_in_journals(layout: Layout) -> set[bytes]:
    """The SHA-256 of all blobs that journals may name."""
    found: set[bytes] = set()
    for name in layout.list_journals():
        with contextlib.suppress(FileNotFoundError):
            found.update(_named_in(layout.journal(*name)))
    return found


def _named_in(path: Path) -> Iterable[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not os.fstat(fd).st_size:
            return ()
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
            return [digest for match in _NAMED.finditer(data) for digest in _digests_at(data, match)]
    finally:
        os.close(fd)


def _digests_at(data: mmap.mmap, match: re.Match[bytes]) -> Iterable[bytes]:
    """What seems to be named at a place; chance may make it up, which keeps nothing but a blob."""
    size = next(part for part in match.groups() if part is not None)
    begin, length = match.start() + 2 + len(size), int.from_bytes(size, "big")
    if length % _DIGEST_BYTES not in (0, 8) or begin + length > len(data):
        return ()
    return [data[at : at + _DIGEST_BYTES] for at in range(begin, begin + length - 8, _DIGEST_BYTES)]
