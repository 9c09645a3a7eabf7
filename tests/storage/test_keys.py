"""Every kind of key: decodes to what it was made of, lies in the ranges it should be found by and in no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite.storage import keys

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
hashes = st.sampled_from(["a", "b", "ab", "a\0", "508c5b29-02c7"])
contexts = st.dictionaries(
    st.sampled_from(["s", "t"]), st.none() | st.booleans() | st.integers(-300, 300) | st.floats(allow_nan=False) | names, max_size=2
)
paths = st.lists(names | st.integers(-300, 300), max_size=3).map(tuple)
steps = st.integers(-(2**63), 2**63 - 1)
writers = st.integers(0, 2**64 - 1)
indexed = st.none() | st.floats(allow_nan=False).map(lambda value: value + 0.0) | names

KINDS: dict[str, tuple[bytes, Callable[..., bytes], list[st.SearchStrategy[Any]], Callable[..., tuple[Any, ...]]]] = {
    "generation": (keys.META, keys.generation, [], lambda: ("generation",)),
    "run_count": (keys.META, keys.run_count, [], lambda: ("runs",)),
    "merged": (keys.META, keys.merged, [writers], lambda writer: ("merged", writer)),
    "run": (keys.RUN, keys.run, [hashes], lambda run: (run,)),
    "writer": (keys.WRITER, keys.writer_of_run, [hashes, writers], lambda *parts: parts),
    "property": (keys.PROPERTY, keys.property_of_run, [hashes, names], lambda *parts: parts),
    "param": (keys.PARAM, keys.param, [hashes, paths], lambda run, path: (run, *path)),
    "cover": (keys.COVER, keys.cover, [hashes, paths], lambda run, path: (run, *path)),
    "sequence": (keys.SEQUENCE, keys.sequence, [names, contexts, hashes], lambda *parts: parts),
    "of run": (keys.OF_RUN, keys.of_run, [hashes, names, contexts], lambda *parts: parts),
    "param index": (keys.PARAM_INDEX, keys.param_index, [paths, indexed, hashes], lambda *parts: parts),
    "property index": (keys.PROPERTY_INDEX, keys.property_index, [names, indexed | st.integers(), hashes], lambda *parts: parts),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_key_decodes_to_its_parts(kind: str, data: st.DataObject) -> None:
    space, build, parts, expected = KINDS[kind]
    drawn = [data.draw(part) for part in parts]
    assert keys.decode(build(*drawn)) == (space, expected(*drawn))


@given(hashes, names, contexts, steps)
def test_block_keys(run: str, name: str, context: dict[str, Any], step: int) -> None:
    for space in (keys.HEAD, keys.VALUES, keys.TIMES):
        key = keys.block(space, run, name, context, step)
        assert keys.decode(key) == (space, (run, name, context, step))
        assert keys.first_step(key) == step


def test_spaces_differ() -> None:
    spaces = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, bytes)]
    assert len(spaces) == len(set(spaces)) == 17
    assert all(len(space) == 1 for space in spaces)


def within(key: bytes, bounds: keys.Range) -> bool:
    begin, end = bounds
    return begin <= key and (end is None or key < end)


@given(hashes, hashes, paths, paths)
def test_params_lie_under_their_paths(run: str, other: str, path: keys.Path, under: keys.Path) -> None:
    is_under = run == other and path[: len(under)] == under
    assert within(keys.param(run, path), keys.params_under(other, under)) == is_under
    assert within(keys.cover(run, path), keys.covers_under(other, under)) == is_under
    assert not within(keys.param(run, path), keys.covers_under(run, ()))


@given(hashes, hashes, writers, names, contexts)
def test_ranges_of_a_run(run: str, other: str, writer: int, name: str, context: dict[str, Any]) -> None:
    same = run == other
    assert within(keys.writer_of_run(run, writer), keys.writers_of_run(other)) == same
    assert within(keys.property_of_run(run, name), keys.properties_of_run(other)) == same
    assert within(keys.of_run(run, name, context), keys.sequences_of_run(other)) == same


@given(st.tuples(hashes, names, contexts), st.tuples(hashes, names, contexts), steps)
def test_blocks_of_a_sequence(one: tuple[Any, ...], other: tuple[Any, ...], step: int) -> None:
    same = keys.of_run(*one) == keys.of_run(*other)
    for space in (keys.HEAD, keys.VALUES, keys.TIMES):
        assert within(keys.block(space, *one, step), keys.blocks(space, *other)) == same


@given(st.lists(steps, unique=True))
def test_blocks_lie_in_the_order_of_their_steps(numbers: list[int]) -> None:
    in_order = sorted(numbers, key=lambda step: keys.block(keys.VALUES, "r", "m", {"s": 1}, step))
    assert in_order == sorted(numbers)


@given(names, names, st.integers(0, 2**63), hashes)
def test_the_index_of_a_property(name: str, other: str, created: int, run: str) -> None:
    assert within(keys.property_index(name, created, run), keys.property_index_of(other)) == (name == other)


def test_typed_contexts_are_four() -> None:
    contexts: list[dict[str, Any]] = [{"s": True}, {"s": 1}, {"s": 1.0}, {"s": "1"}]
    assert len({keys.of_run("r", "m", context) for context in contexts}) == 4
    assert keys.of_run("r", "m", {"a": 1, "b": 2}) == keys.of_run("r", "m", {"b": 2, "a": 1})


# ---- what stands in the index ----

numbers = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3).flatmap(
    lambda end: st.sampled_from([end, "é" * 127 + end, "x" * 256 + end, "€" * 85 + end])
)


@given(numbers, numbers)
def test_numbers_lie_in_their_order(one: float, other: float) -> None:
    """An inclusive range over the index misses nothing: what is equal or less stays so, rounded to a float."""
    a, b = keys.index_value(one), keys.index_value(other)
    assert isinstance(a, float)
    assert isinstance(b, float)
    assert (keys.param_index(("p",), a, "r") <= keys.param_index(("p",), b, "r")) == (a <= b)
    if one <= other:
        assert a <= b


@given(texts, texts)
def test_strings_lie_in_their_order(one: str, other: str) -> None:
    a, b = keys.index_value(one), keys.index_value(other)
    assert isinstance(a, str)
    assert one.startswith(a)
    assert len(a.encode()) <= 256
    assert a == one or len(a.encode()) >= 253
    if one <= other:
        assert keys.param_index(("p",), a, "") <= keys.param_index(("p",), b, "")


def test_values_of_the_index() -> None:
    assert repr(keys.index_value(-0.0)) == "0.0"
    assert repr(keys.index_value(True)) == "1.0"
    assert keys.index_value(None) is None
    assert keys.index_value(10**400) == math.inf
    assert keys.index_value(-(10**400)) == -math.inf
    assert keys.index_value(2**53 + 1) == 2.0**53
    for left_out in (math.nan, [1], b"x", {}, (1,), object()):
        with pytest.raises(LookupError):
            keys.index_value(left_out)
