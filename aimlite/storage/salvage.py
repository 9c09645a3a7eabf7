"""Reading around damage: what of a tree can be read, and which runs cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aimlite._ext.keys import unpack
from aimlite.errors import CorruptionError
from aimlite.storage import keys
from aimlite.storage.blobs import BLOB_BYTES
from aimlite.storage.check import check_files
from aimlite.storage.points import Points
from aimlite.storage.runs import is_hidden
from aimlite.storage.tree import Tree
from aimlite.storage.view import METRIC, SequenceId, View

_SPACES = (  # whose keys begin with a run
    *(keys.RUN, keys.WRITER, keys.PROPERTY, keys.PARAM, keys.COVER),
    *(keys.OF_RUN, keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT),
)
_PRECISION = 300  # bytes of a key that are told apart in the search for what lies behind a bad block


def corrupted_runs(view: View) -> list[str]:
    """The hashes, sorted, of the runs that damage keeps from being read completely, as far as they can be named. The runs of the tree are
    read only when a file of it fails its checksum; blobs are not looked at."""
    if not check_files(view.layout):
        return sorted(view.corrupted_runs())
    named = {run_hash for segment in view.segments for run_hash in segment.run_hashes()}  # a tombstone may be what cannot be read
    named |= named_runs(view.tree, *_SPACES) | _runs_named_last(view.tree)
    named = {run_hash for run_hash in named if not is_hidden(run_hash)}
    return sorted(view.corrupted_runs(named).union(run_hash for run_hash in named if not _reads(view, run_hash)))


def _reads(view: View, run_hash: str) -> bool:
    """Whether all of a run can be read, or there is none: what a killed import left has no entry of its own."""
    try:
        if not view.holds_run(run_hash):
            return True
        view.tombstones.of_run(run_hash)
        view.run_state(run_hash)
        view.properties(run_hash)
        list(view.param_leaves(run_hash))
        for sequence in view.sequences(run_hash, None):
            view.summary(sequence)
            if view.merged_summary(sequence) is not None:
                view.heads(sequence)
            points = view.points(sequence)
            if sequence.kind != METRIC:
                _read_objects(view, sequence, points)
    except CorruptionError:
        return False
    return True


def _read_objects(view: View, sequence: SequenceId, points: Points) -> None:
    stamps = zip(points["order"].tolist(), points["writer"].tolist(), strict=True)
    for (order, writer), items in zip(stamps, view.objects(sequence, points), strict=True):
        for index, item in enumerate(items):
            if isinstance(item.content, bytes) or item.content.size < BLOB_BYTES:
                view.object(sequence, order, writer, index, finished=False)


def named_runs(tree: Tree, *spaces: bytes, sound: Tree | None = None) -> set[str]:
    """The runs that the readable keys of some spaces begin with."""
    return {unpack(entry[0], 1)[0] for space in spaces for entry in readable_entries(tree, space, sound) if entry is not None}


def _runs_named_last(tree: Tree) -> set[str]:
    """The runs that the readable keys of the spaces that are ordered by something else end with."""
    spaces = (keys.SEQUENCE, keys.TRASHED, keys.PARAM_INDEX, keys.PROPERTY_INDEX, keys.REFERENCE)
    return {unpack(entry[0], 1)[-1] for space in spaces for entry in readable_entries(tree, space) if entry is not None}


def readable_entries(
    tree: Tree, space: bytes, sound: Tree | None = None, is_wanted: Callable[[bytes], bool] = lambda key: True
) -> Iterator[tuple[bytes, bytes] | None]:
    """The entries of a space that can be read; None where some were skipped.

    A bad block keeps the entries of all files from being read that lie between its first key and its last, and each small file may reach
    over the whole space. sound: a tree of the intact files alone, which tells what these have there; is_wanted: of its keys. It may have
    what the bad file had replaced or deleted.
    """
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
        if sound is not None:
            yield from (entry for entry in sound.scan((last, following or end)) if is_wanted(entry[0]))
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
