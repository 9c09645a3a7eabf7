"""Reading around damage: what of a tree can be read, and which runs cannot."""

from __future__ import annotations

from collections.abc import Iterator

from aimlite._ext.keys import unpack
from aimlite.errors import CorruptionError
from aimlite.storage import keys
from aimlite.storage.check import check_files
from aimlite.storage.tree import Tree
from aimlite.storage.view import METRIC, View

_PRECISION = 300  # bytes of a key that are told apart in the search for what lies behind a bad block


def corrupted_runs(view: View) -> list[str]:
    """The hashes, sorted, of the runs that damage keeps from being read completely, as far as they can be named. The runs of the tree are
    read only when a file of it fails its checksum; blobs are not looked at."""
    found = view.corrupted_runs()
    if check_files(view.layout):
        spaces = (keys.RUN, keys.WRITER, keys.PROPERTY, keys.PARAM, keys.OF_RUN, keys.VALUES, keys.OBJECT)
        found.update(run_hash for run_hash in named_runs(view.tree, *spaces) if not _reads(view, run_hash))
    return sorted(found)


def _reads(view: View, run_hash: str) -> bool:
    try:
        view.run_state(run_hash)
        view.properties(run_hash)
        list(view.param_leaves(run_hash))
        for sequence in view.sequences(run_hash, None):
            view.summary(sequence)
            view.heads(sequence)
            points = view.points(sequence)
            if sequence.kind != METRIC:
                view.objects(sequence, points)
    except (CorruptionError, KeyError):
        return False
    return True


def named_runs(tree: Tree, *spaces: bytes) -> set[str]:
    """The runs that the readable keys of some spaces begin with."""
    return {unpack(entry[0], 1)[0] for space in spaces for entry in readable_entries(tree, space) if entry is not None}


def readable_entries(tree: Tree, space: bytes) -> Iterator[tuple[bytes, bytes] | None]:
    """The entries of a space that can be read; None where some were skipped."""
    begin, end = keys.prefix_range(space)
    while True:
        last = begin
        try:
            for key, value in tree.scan((begin, end)):
                last = key + b"\0"
                yield key, value
            return
        except CorruptionError:
            yield None
        following = _next_readable(tree, last, end)
        if following is None:
            return
        begin = following


def _next_readable(tree: Tree, begin: bytes, end: bytes | None) -> bytes | None:
    """The least key from which a scan begins without error. Keys are taken as fractions: doubled distances first, then halved ones, so a
    bad block costs some thousand probes."""
    size = len(begin) + _PRECISION
    low = int.from_bytes(begin.ljust(size, b"\0"), "big")
    top = int.from_bytes((end or b"\xff" * size).ljust(size, b"\0")[:size], "big")
    distance = 1
    while low + distance < top and not _begins(tree, (low + distance).to_bytes(size, "big"), end):
        distance *= 2
    if low + distance >= top and not _begins(tree, top.to_bytes(size, "big"), end):
        return None
    bad, good = low + distance // 2, min(low + distance, top)
    while good - bad > 1:
        middle = (good + bad) // 2
        if _begins(tree, middle.to_bytes(size, "big"), end):
            good = middle
        else:
            bad = middle
    return good.to_bytes(size, "big")


def _begins(tree: Tree, begin: bytes, end: bytes | None) -> bool:
    try:
        next(tree.scan((begin, end)), None)
    except CorruptionError:
        return False
    return True
