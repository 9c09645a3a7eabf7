"""Every invariant of a repo, looked at: files, journals, blobs, and that what is derived in the tree says what it is derived from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from aimlite._ext.keys import unpack
from aimlite.errors import AimliteError, CorruptionError
from aimlite.storage import generation, keys, params
from aimlite.storage.blobs import BLOB_BYTES, blob_digest, blob_path, is_blob_missing, list_blobs, sha256, verify_blob
from aimlite.storage.files import read_regular
from aimlite.storage.layout import Layout, open_layout, version_damage
from aimlite.storage.manifest import Listed, read_manifest
from aimlite.storage.objects import Item, decode_items
from aimlite.storage.points import Summary, decode_block, decode_summary, summarize
from aimlite.storage.runs import TRASHED, decode_run, decode_writer_entry, derive_state, index_properties, is_hidden
from aimlite.storage.sweep import named_in_journals
from aimlite.storage.tree import Tree, TreeMoved
from aimlite.storage.view import Reader, View

_TRIES = 5
_LOOKS = 50
_UNDECODABLE = (ValueError, TypeError, LookupError, msgpack.UnpackException)  # a CorruptionError is a ValueError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. kind: 'version', 'generation', 'tree', 'journal' or 'blob'. path: the file; offset: where in it, or None."""

    kind: str
    path: str
    offset: int | None
    message: str

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at offset {self.offset}"
        return f"{self.kind}: {self.message} ({self.path}{where})"


def check(layout: Layout, full: bool = True) -> list[Problem]:
    """All problems of a repo, none when it is sound. It may be in use: what is looked at is one view."""
    try:
        open_layout(layout.base.parent, create=False)
    except (AimliteError, OSError) as error:
        return [Problem("version", str(layout.version), None, str(error))]
    damage = version_damage(layout)
    problems = [] if damage is None else [Problem("version", str(layout.version), None, damage)]
    problems += check_files(layout) if full else []
    problems += _looked_at(lambda: check_tree(layout, full))
    problems += _looked_at(lambda: check_journals(layout))
    if full:
        problems += _looked_at(lambda: check_blobs(layout))
    return problems


def _looked_at(inspect: Callable[[], list[Problem]]) -> list[Problem]:
    """What is found; looked for again when a file vanished meanwhile, as it may where the repo is in use."""
    for _ in range(_LOOKS):
        with contextlib.suppress(FileNotFoundError, TreeMoved):
            return inspect()
    return inspect()


def check_files(layout: Layout) -> list[Problem]:
    """The checksums of the tree's files against `generation`."""
    for _ in range(_TRIES):
        try:
            text = read_regular(layout.generation)
            _, files = generation.read_generation(layout)
        except FileNotFoundError:
            if layout.tree.exists() and any(layout.tree.glob("*.sst")):
                return [Problem("generation", str(layout.generation), None, "the file `generation` is missing, though there is a tree")]
            return []
        except CorruptionError as error:
            return [_problem("generation", error, layout.generation)]
        problems = list(_check_manifest(layout, generation.listed_in(files)))
        for name, (size, expected) in files.items():
            if generation.is_manifest(name):
                continue
            path = layout.tree / name
            try:
                found_size, found = generation.file_checksum(path)
            except FileNotFoundError:
                problems.append(Problem("tree", str(path), None, "a file of the tree is missing"))
                continue
            if (found_size, found) != (size, expected):
                problems.append(
                    Problem(
                        "tree",
                        str(path),
                        None,
                        f"the file's checksum is {found:08x}, it was written as {expected:08x} ({found_size} of {size} bytes)",
                    )
                )
        if not problems or text == read_regular(layout.generation):
            return problems
    return problems  # a merge was always faster


def _check_manifest(layout: Layout, listed: Listed | None) -> Iterator[Problem]:
    try:
        read_manifest(layout.tree, listed)
    except FileNotFoundError as error:
        yield Problem("tree", error.filename, None, "a file of the tree is missing")
    except CorruptionError as error:
        yield _problem("tree", error, layout.tree)


def check_tree(layout: Layout, full: bool) -> list[Problem]:
    """That the tree opens, and (full) that all of it decodes and agrees with itself."""
    try:
        view = Reader(layout).view()
    except CorruptionError as error:
        return [_problem("tree", error, layout.tree)]
    if not full:
        return []
    problems: list[Problem] = []
    for inspect in (
        _check_runs,
        _check_params,
        _check_sequences,
        _check_param_index,
        _check_property_index,
        _check_of_run,
        _check_blocks,
        _check_covers,
        _check_objects,
        _check_contents,
    ):
        try:
            problems += [Problem("tree", str(layout.tree), None, message) for message in inspect(view)]
        except TreeMoved:
            return check_tree(layout, full)
        except CorruptionError as error:
            problems.append(_problem("tree", error, layout.tree))
        except _UNDECODABLE as error:
            problems.append(Problem("tree", str(layout.tree), None, f"an entry does not decode: {type(error).__name__}: {error}"))
    return problems


def check_journals(layout: Layout) -> list[Problem]:
    """That every record of every journal passes its check."""
    view = _view_of_journals(layout)
    problems = [Problem("journal", str(path), None, "this has the name of a journal and is no file") for path in layout.list_odd_journals()]
    for held in view.segments if view else ():
        with contextlib.suppress(FileNotFoundError):  # it was merged meanwhile
            held.segment.inspect()
        for offset, _, reason in held.segment.damage:
            if offset < held.limit:
                problems.append(Problem("journal", str(held.segment.path), offset, reason))
    return problems


def _view_of_journals(layout: Layout) -> View | None:
    try:
        return Reader(layout).view()
    except CorruptionError:
        pass  # the tree's damage is reported by check_tree; the journals are looked at without it
    return Reader(layout).view_without_tree()


def check_blobs(layout: Layout) -> list[Problem]:
    """That every blob holds what its name says, and that every blob that a param names is there."""
    problems = []
    missing = missing_blobs(layout)
    if missing:  # runs may have been deleted since, with what they named
        missing = sorted({*missing}.intersection(missing_blobs(layout)))
    for digest, run_hash, what in missing:
        message = f"the blob of {what} of run {run_hash} is missing"
        problems.append(Problem("blob", str(blob_path(layout.blobs, digest)), None, message))
    for path in list_blobs(layout.blobs):
        try:
            verify_blob(path, blob_digest(path))
        except FileNotFoundError:
            continue  # deleted since it was listed
        except CorruptionError as error:
            problems.append(_problem("blob", error, path))
        except ValueError:
            problems.append(Problem("blob", str(path), None, "this is not the name of a blob"))
    return problems


def missing_blobs(layout: Layout) -> list[tuple[bytes, str, str]]:
    """(SHA-256, run, what) of each param and object whose blob is neither there nor given up, of the tree and the journals. Runs with a
    damaged journal are left out, and all when the tree cannot be read: that is reported itself."""
    try:
        return Reader(layout).read(lambda view: list(_missing_blobs(view)))
    except _UNDECODABLE:
        return []


def _missing_blobs(view: View) -> Iterator[tuple[bytes, str, str]]:
    for run_hash, path, value in _leaves(view):
        for digest in params.blob_digests(value):
            if is_blob_missing(view.layout.blobs, digest):
                what = "a file archived as" if isinstance(value, params.Blobs) else "param"
                yield digest, run_hash, f"{what} {list(path)}"
    for run_hash, name, item in _items_in_blobs(view):
        if isinstance(item.content, params.Blob) and is_blob_missing(view.layout.blobs, item.content.digest):
            yield item.content.digest, run_hash, f"an object of {name!r}"


def _items_in_blobs(view: View) -> Iterator[tuple[str, str, Item]]:
    """(run, name of the sequence, item) of all objects of the tree and the journals whose contents are blobs."""
    importing = {unpack(key, 1)[1] for chunk in view.tree.scan_keys(keys.importing_runs()) for key in chunk}  # whose blobs come last
    for (run_hash, name, *_), data in _space(view.tree, keys.OBJECT):
        if run_hash not in importing:
            yield from ((run_hash, name[1], item) for item in decode_items(data) if item.size >= BLOB_BYTES)
    for segment in view.segments:
        for run_hash in segment.run_hashes():
            run = segment.run(run_hash)
            for record in run.sequences if run is not None and not segment.is_damaged else ():
                for found in record.objects:
                    if found.offset < segment.limit:
                        places = found.places()
                        yield from ((run_hash, record.name[1], item) for item, place in places if item.size >= BLOB_BYTES and not place)


def _leaves(view: View) -> Iterator[tuple[str, keys.Path, Any]]:
    unmerged = view.mentioned_runs()
    for run_hash in sorted(unmerged):  # what they say may replace what the tree has
        with contextlib.suppress(CorruptionError):
            yield from ((run_hash, path, value) for path, value in list(view.param_leaves(run_hash)))
    for (run_hash, *path), data in _space(view.tree, keys.PARAM):
        if run_hash not in unmerged:
            yield run_hash, tuple(path), params.decode_entry(data)[1]


def _problem(kind: str, error: CorruptionError, path: Path) -> Problem:
    return Problem(kind, error.path or str(path), error.offset, error.message)


# -- the tree against itself -------------------------------------------------------------------------------------------------


def _space(tree: Tree, space: bytes) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    for key, value in tree.scan(keys.prefix_range(space)):
        yield unpack(key, 1), value


def _check_runs(view: View) -> Iterator[str]:
    count = 0
    for (run_hash,), value in _space(view.tree, keys.RUN):
        held = decode_run(value)
        count += "trashed" not in held and not is_hidden(run_hash)
        entries = [decode_writer_entry(data) for _, data in view.tree.scan(keys.writers_of_run(run_hash))]
        if not entries:
            yield f"run {run_hash} has no writer"
        properties = {unpack(key, 1)[1]: params.decode_entry(data)[1] for key, data in view.tree.scan(keys.properties_of_run(run_hash))}
        if ("trashed" in held) != (properties.get(TRASHED) is not None):
            yield f"run {run_hash} is in the trash by its entry or by its properties, not by both"
        for name, key in _property_keys(run_hash, properties, derive_state(held["created"], held["order"], entries)):
            if view.tree.get(key) is None:
                yield f"property {name!r} of run {run_hash} is not in the index"
    expected = view.tree.get(keys.run_count())
    if count != (0 if expected is None else msgpack.unpackb(expected)):
        yield f"there are {count} runs outside of the trash, the count says {expected!r}"
    for space, what in ((keys.WRITER, "a writer"), (keys.PROPERTY, "a property"), (keys.PARAM, "a param")):
        seen = ""
        for (run_hash, *_), _ in _space(view.tree, space):
            if run_hash != seen and view.tree.get(keys.run(run_hash)) is None:
                yield f"{what} belongs to run {run_hash}, which is not there"
            seen = run_hash


def _property_keys(run_hash: str, properties: dict[str, Any], state: Any) -> Iterator[tuple[str, bytes]]:
    for name, value in () if is_hidden(run_hash) else index_properties(properties, state):
        with contextlib.suppress(LookupError):
            yield name, keys.indexed_property(name, value, run_hash)


def _check_params(view: View) -> Iterator[str]:
    trashed = _trashed(view)
    for (run_hash, *path), data in _space(view.tree, keys.PARAM):
        value = params.decode_entry(data)[1]
        if any(view.tree.get(keys.reference(digest, run_hash)) is None for digest in params.blob_digests(value)):
            yield f"param {path} of run {run_hash} lies in a blob to which no reference is kept"
        if run_hash in trashed or isinstance(value, params.Blobs):  # the index has none of these
            continue
        indexed, content = params.index_entry(value)
        if view.tree.get(keys.param_index(tuple(path), indexed, run_hash)) != content:
            yield f"param {path} of run {run_hash} is not in the index as it is"


def _check_param_index(view: View) -> Iterator[str]:
    trashed = _trashed(view)
    for (path, indexed, run_hash), _ in _space(view.tree, keys.PARAM_INDEX):
        data = view.tree.get(keys.param(run_hash, path))
        if data is None or run_hash in trashed or repr(params.index_entry(params.decode_entry(data)[1])[0]) != repr(indexed):
            yield f"the index has param {path} = {indexed!r} of run {run_hash}, the run has not"


def _check_property_index(view: View) -> Iterator[str]:
    for (name, indexed, run_hash), _ in _space(view.tree, keys.PROPERTY_INDEX):
        data = view.tree.get(keys.run(run_hash))
        if data is None:
            yield f"the index has property {name!r} of run {run_hash}, which is not there"
            continue
        held = decode_run(data)
        entries = [decode_writer_entry(entry) for _, entry in view.tree.scan(keys.writers_of_run(run_hash))]
        properties = {unpack(key, 1)[1]: params.decode_entry(entry)[1] for key, entry in view.tree.scan(keys.properties_of_run(run_hash))}
        expected = _property_keys(run_hash, properties, derive_state(held["created"], held["order"], entries))
        if (name, keys.property_index(name, indexed, run_hash)) not in expected:
            yield f"the index has property {name!r} = {indexed!r} of run {run_hash}, the run has not"


def _check_sequences(view: View) -> Iterator[str]:
    trashed = _trashed(view)
    for place, (name, context, run_hash), data in ((p, *entry) for p in (keys.SEQUENCE, keys.TRASHED) for entry in _space(view.tree, p)):
        sequence = (run_hash, name, context)
        summary = decode_summary(data)
        what = f"{name!r} {context!r} of run {run_hash}"
        if view.tree.get(keys.of_run(*sequence)) is None:
            yield f"{what} is not listed under its run"
        if view.tree.get(keys.run(run_hash)) is None:
            yield f"{what} belongs to a run that is not there"
        if (place == keys.TRASHED) != (run_hash in trashed):
            yield f"{what} is listed where those of runs in the trash are, or its run is in the trash and it is not"
        heads = [decode_summary(value) for _, value in view.tree.scan(keys.blocks(keys.HEAD, *sequence))]
        if not heads:
            yield f"{what} has no blocks"
            continue
        combined = heads[0]
        for head in heads[1:]:
            if head.first_step <= combined.last_step:
                yield f"blocks of {what} overlap at step {head.first_step}"
            combined = combined.followed_by(head)
        if not _same_summary(combined, summary):
            yield f"the summary of {what} is {summary}, its blocks say {combined}"


def _check_of_run(view: View) -> Iterator[str]:
    for (run_hash, name, context), _ in _space(view.tree, keys.OF_RUN):
        if all(view.tree.get(at(name, context, run_hash)) is None for at in (keys.sequence, keys.trashed_sequence)):
            yield f"{name!r} {context!r} is listed under run {run_hash}, but is not there"


def _check_blocks(view: View) -> Iterator[str]:
    tree = view.tree
    times = tree.scan(keys.prefix_range(keys.TIMES))
    heads = tree.scan(keys.prefix_range(keys.HEAD))
    for key, values in tree.scan(keys.prefix_range(keys.VALUES)):
        run_hash, name, context, step = unpack(key, 1)
        what = f"the block of {name!r} {context!r} of run {run_hash} at step {step}"
        head_key, head = next(heads, (b"", b""))
        times_key, time_columns = next(times, (b"", b""))
        if head_key[1:] != key[1:] or times_key[1:] != key[1:]:
            yield f"{what} lacks its head or its times"
            return
        held = decode_summary(head)
        points = decode_block(values, time_columns, held.flags & 3)
        if not _same_summary(summarize(points), held):
            yield f"the head of {what} does not describe it"
        if step != int(points["step"][0]):
            yield f"{what} begins at step {int(points['step'][0])}"
        if bool(np.any(points["order"] > np.uint64(held.order))):
            yield f"{what} holds a newer order than its head says"
    if next(times, None) or next(heads, None):
        yield "there are heads or times without a block"


def _trashed(view: View) -> set[str]:
    return {unpack(key, 1)[2] for key, _ in view.tree.scan(keys.property_index_of(TRASHED))}


def _check_covers(view: View) -> Iterator[str]:
    for (run_hash, *path), data in _space(view.tree, keys.COVER):
        stamp = params.decode_cover(data)
        for key, leaf in view.tree.scan(keys.params_under(run_hash, tuple(path))):
            if params.decode_entry(leaf)[0] < stamp:
                yield f"param {unpack(key, 1)[1:]} of run {run_hash} is older than the cover over it"


def _check_objects(view: View) -> Iterator[str]:
    """That points and objects belong to each other, and that contents are there and referred to."""
    for (run_hash, name, context), _ in _space(view.tree, keys.OF_RUN):
        if isinstance(name, str):
            continue
        what = f"{name[1]!r} {context!r} of run {run_hash}"
        stamps: dict[tuple[int, int], int] = {}
        for begin in _block_steps(view, run_hash, name, context):
            columns = [view.tree.get(keys.block(space, run_hash, name, context, begin)) for space in (keys.VALUES, keys.TIMES)]
            if None in columns:
                continue  # _check_blocks says so
            points = decode_block(columns[0] or b"", columns[1] or b"", 0)
            counts = points["value"].astype("<i8").tolist()
            stamps.update(zip(zip(points["order"].tolist(), points["writer"].tolist(), strict=True), counts, strict=True))
        for key, data in view.tree.scan(keys.objects_of(run_hash, name, context)):
            stamp: tuple[int, int] = unpack(key, 1)[3:]
            items = decode_items(data)
            if stamps.pop(stamp, None) != len(items):
                yield f"an object of {what} belongs to no point, or its point counts another number of them"
            for item in items:
                if isinstance(item.content, params.Blob):
                    if view.tree.get(keys.reference(item.content.digest, run_hash)) is None:
                        yield f"the content of an object of {what} is not referred to"
                    if item.size < BLOB_BYTES and view.tree.get(keys.content(item.content.digest)) is None:
                        yield f"the content of an object of {what} is missing"
        if stamps:
            yield f"{len(stamps)} steps of {what} have no objects"


def _block_steps(view: View, run_hash: str, name: keys.Name, context: dict[str, Any]) -> Iterator[int]:
    for key, _ in view.tree.scan(keys.blocks(keys.HEAD, run_hash, name, context)):
        yield keys.first_step(key)


def _check_contents(view: View) -> Iterator[str]:
    # What is being imported is referred to by nothing yet, and what is being deleted not any more.
    marks = (keys.importing_runs(), keys.deleting_runs())
    named: set[bytes] | None = None
    is_under_way = any(next(view.tree.scan_keys(bounds, limit=1), None) is not None for bounds in marks)
    for (digest,), content in _space(view.tree, keys.CONTENT):
        if sha256(content) != digest:
            yield f"the content {digest.hex()} is not what was stored"
        if not is_under_way and next(iter(view.tree.scan(keys.references_of(digest))), None) is None:
            named = named_in_journals(view.layout) if named is None else named  # a deletion leaves what a journal names
            if digest not in named:
                yield f"the content {digest.hex()} is referred to by no run"
    for (_, run_hash), _ in _space(view.tree, keys.REFERENCE):
        if view.tree.get(keys.run(run_hash)) is None:
            yield f"a content is referred to by run {run_hash}, which is not there"


def _same_summary(one: Summary, other: Summary) -> bool:
    fields: Callable[[Summary], list[str]] = lambda s: [repr(s.__dict__[name]) for name in sorted(s.__dict__)]  # noqa: E731 - repr makes NaN equal to itself
    return fields(one) == fields(other)
