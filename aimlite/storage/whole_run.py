"""Every key that the tree has of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain

from aimlite._ext.keys import unpack
from aimlite.storage import keys, params
from aimlite.storage.runs import decode_run, decode_writer_entry, derive_state, index_properties
from aimlite.storage.tree import Tree

_RUN_SPACES = (keys.WRITER, keys.PROPERTY, keys.PARAM, keys.COVER, keys.OF_RUN, keys.HEAD, keys.VALUES, keys.TIMES, keys.OBJECT)


def keys_of_run(tree: Tree, run_hash: str) -> Iterator[bytes]:
    """Every key of a run but its tombstones and references."""
    yield keys.run(run_hash)
    for key, data in tree.scan(keys.params_under(run_hash, ())):
        yield keys.param_index(unpack(key, 1)[1:], params.index_entry(params.decode_entry(data)[1])[0], run_hash)
    for key in chain.from_iterable(tree.scan_keys(keys.sequences_of_run(run_hash))):
        _, name, context = unpack(key, 1)
        yield keys.sequence(name, context, run_hash)
        yield keys.trashed_sequence(name, context, run_hash)
    yield from _property_keys(tree, run_hash)
    for space in _RUN_SPACES:
        yield from chain.from_iterable(tree.scan_keys(keys.of_whole_run(space, run_hash)))


def _property_keys(tree: Tree, run_hash: str) -> Iterator[bytes]:
    held = {} if (data := tree.get(keys.run(run_hash))) is None else decode_run(data)
    entries = [decode_writer_entry(data) for _, data in tree.scan(keys.writers_of_run(run_hash))]
    properties = {unpack(key, 1)[1]: params.decode_entry(data)[1] for key, data in tree.scan(keys.properties_of_run(run_hash))}
    for name, value in index_properties(properties, derive_state(held.get("created", 0), held.get("order", 0), entries)):
        with contextlib.suppress(LookupError):
            yield keys.indexed_property(name, value, run_hash)
