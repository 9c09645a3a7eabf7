"""Params as leaves and covers: whatever order operations arrive in, the same is left."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimlite.storage import params
from aimlite.storage.params import DELETE, MORE, SET, Blob, ParamTree, flatten, nest, packb, unpackb

Path = tuple[str | int, ...]
Leaves = dict[Path, Any]
Call = tuple[int, Path, list[tuple[Path, Any]]]  # SET or DELETE, where, leaves under it

keys = st.sampled_from(["a", "b", 1])
paths = st.lists(keys, max_size=3).map(tuple)
leaf = st.none() | st.integers(0, 9) | st.just({})
tree = st.recursive(leaf, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=5)
sets = st.tuples(st.just(SET), paths, tree.map(flatten))
deletions = st.tuples(st.just(DELETE), paths, st.just([]))
calls = st.lists(st.one_of(sets, sets, deletions), max_size=6)


def stamped(ops: list[Call]) -> list[tuple[params.Stamp, Call]]:
    """Orders are not those of writers: ties of the order go to the writer."""
    return [((100 + k // 2, 7 + k % 2), op) for k, op in enumerate(ops)]


def apply(tree: ParamTree, stamp: params.Stamp, call: Call) -> None:
    kind, path, leaves = call
    tree.apply(stamp, kind, path, leaves[:2])
    for piece in range(2, len(leaves), 2):  # a long set is several records of one stamp
        tree.apply(stamp, MORE, path, leaves[piece : piece + 2])


def model(ops: list[Call]) -> Leaves:
    """What a flat dict of leaves holds after the calls, in their order. Each makes maps of the scalars above its path."""
    held: Leaves = {}
    for _, path, leaves in ops:
        held = {at: value for at, value in held.items() if at[: len(path)] != path and path[: len(at)] != at}
        held.update({path + relative: value for relative, value in leaves})
    return held


def left(tree: ParamTree) -> Leaves:
    return {path: value for path, (_, value) in tree.leaves().items()}


@given(calls)
def test_in_the_order_of_their_stamps_operations_do_what_a_dict_does(ops: list[Call]) -> None:
    tree = ParamTree()
    for stamp, op in stamped(ops):
        apply(tree, stamp, op)
    assert left(tree) == model(ops)


@settings(deadline=None)
@given(calls.flatmap(lambda ops: st.tuples(st.just(ops), st.permutations(stamped(ops)))))
def test_any_order_leaves_the_same(drawn: tuple[list[Call], list[tuple[params.Stamp, Call]]]) -> None:
    ops, shuffled = drawn
    tree = ParamTree()
    for stamp, op in shuffled:
        apply(tree, stamp, op)
    assert left(tree) == model(ops)


@settings(deadline=None)
@given(calls.flatmap(lambda ops: st.tuples(st.just(ops), st.permutations(stamped(ops)), st.sets(st.integers(0, 5)))))
def test_what_is_stored_between_is_all_that_is_needed(drawn: tuple[list[Call], list[tuple[params.Stamp, Call]], set[int]]) -> None:
    """Leaves and covers, put into another tree as a merge and a later read do, carry everything."""
    ops, shuffled, stops = drawn
    tree = ParamTree()
    for place, (stamp, op) in enumerate(shuffled):
        if place in stops:
            tree = copied(tree)
        apply(tree, stamp, op)
    assert left(copied(tree)) == model(ops)


def copied(tree: ParamTree) -> ParamTree:
    other = ParamTree()
    for path, (stamp, value) in tree.leaves().items():
        other.load_leaf(path, stamp, value)
    for path, stamp in tree.covers().items():
        other.load_cover(path, stamp)
    return other


@settings(deadline=None)
@given(calls.flatmap(lambda ops: st.tuples(st.just(ops), st.permutations(stamped(ops)), st.lists(st.sampled_from(stamped(ops) or [None])))))
def test_the_same_again_changes_nothing(
    drawn: tuple[list[Call], list[tuple[params.Stamp, Call]], list[tuple[params.Stamp, Call] | None]],
) -> None:
    """Leaves and covers alike, whatever came before: so what is stored tells nothing of how it came there."""
    ops, shuffled, again = drawn
    plain, other = ParamTree(), ParamTree()
    for stamp, op in stamped(ops):
        apply(plain, stamp, op)
    for entry in [*again, *shuffled, *again]:
        if entry is not None:
            apply(other, *entry)
            other = copied(other)
    assert (left(other), other.covers()) == (model(ops), plain.covers())
    assert other.is_consistent()


def test_small_cases() -> None:
    """All orders of some calls that once differed."""
    cases: list[list[Call]] = [
        [(SET, ("a",), [((), 5)]), (SET, ("a", "b"), [((), 1)]), (DELETE, ("a", "b"), [])],
        [(SET, ("a",), flatten({"b": 1, "c": 2})), (SET, ("a",), [((), 3)]), (SET, ("a", "b"), [((), 4)])],
        [(SET, ("a",), [((), {})]), (SET, ("a", "b"), [((), 1)]), (SET, (), flatten({"c": 0}))],
        [(SET, ("a", "b"), [((), 1)]), (DELETE, (), []), (SET, ("a",), [((), 2)])],
        [(SET, ("a",), [((), 1)]), (DELETE, ("a", "b", 1), []), (SET, ("a", "b"), [((), {})])],
    ]
    for ops in cases:
        for shuffled in itertools.permutations(stamped(ops)):
            tree = ParamTree()
            for stamp, op in shuffled:
                apply(tree, stamp, op)
            assert left(tree) == model(ops), (ops, shuffled)


# ---- values ----

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
)


@given(values)
def test_values_come_back_with_their_types(value: Any) -> None:
    again = unpackb(packb(value))
    assert again == value
    assert repr(again) == repr(value)
    assert nest(flatten(value)) == value


@pytest.mark.parametrize("value", [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, [1, {"a": [-(2**70)]}], {2**80: 1}])
def test_ints_of_any_size(value: Any) -> None:
    assert unpackb(packb(value)) == value


def test_blobs() -> None:
    blob = Blob(bytes(range(32)), 2**40)
    assert unpackb(packb([1, blob])) == [1, blob]
    assert blob != Blob(bytes(32), 2**40)
    with pytest.raises(TypeError):
        packb(object())


def test_nothing_is_no_value() -> None:
    with pytest.raises(KeyError):
        nest([])
    assert nest(flatten({})) == {}
    assert nest(flatten({"a": {}, "b": {"c": {}}})) == {"a": {}, "b": {"c": {}}}
