from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite import Context, Repo, Run


def test_it_compares_with_types_in_any_order() -> None:
    one = Context({"a": 1, "b": {"c": [1, 2]}})
    assert one == {"b": {"c": (1, 2)}, "a": 1}
    plain = {"b": {"c": [1, 2]}, "a": 1}
    assert plain == one
    assert hash(one) == hash(Context({"b": {"c": [1, 2]}, "a": 1}))
    assert len({Context({"g": value}) for value in (1, 1.0, True, "1")}) == 4
    assert Context({"g": 1}) != {"g": True}
    assert Context(None) == {} == Context({})
    assert Context({"a": 1}) != {"a": object()}
    assert Context({"a": 1}) != {1: 1}
    assert Context({"a": 1}) != [("a", 1)]
    assert (Context({"a": 0.0}) == {"a": -0.0}) is True


def test_it_is_a_mapping_that_does_not_change() -> None:
    source = {"a": [1], "b": {"c": None}}
    context = Context(source)
    source["a"] = 5
    assert (context["a"], context.get("b"), context.get("zz", 1), "b" in context, len(context)) == ([1], {"c": None}, 1, True, 2)
    assert (dict(context), context.to_dict()) == ({"a": [1], "b": {"c": None}},) * 2
    context["a"].append(2)
    context.to_dict()["b"]["c"] = 1
    assert context == {"a": [1], "b": {"c": None}}
    assert json.loads(json.dumps(context.to_dict())) == {"a": [1], "b": {"c": None}}
    assert pickle.loads(pickle.dumps(context)) == context
    assert repr(context) == "Context({'a': [1], 'b': {'c': None}})"
    with pytest.raises(TypeError):
        context["a"] = 1  # type: ignore[index]


@pytest.mark.parametrize("bad", ["train", 5, {1: 2}, {"a": object()}, {"a": float("nan")}])
def test_what_is_no_context(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Context(bad)


def test_tracking_and_reading_with_one(repo: Repo) -> None:
    run = Run("r", repo=repo)
    context = Context({"subset": "train", "fold": [1, 2]})
    run.track(1, name="m", context=context)
    run.track(2, name="m", context={"fold": (1, 2), "subset": "train"})
    [metric] = run.metrics()
    assert metric.context == context
    assert run.get_metric("m", context).values.tolist() == [1, 2]
    assert run.get_metric("m", metric.context) == metric


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=3)
names = st.text(max_size=2)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2))
contexts = st.dictionaries(names, nested, max_size=3)


def typed(value: Any) -> Any:
    """Equal when types are too."""
    if isinstance(value, dict):
        return "dict", tuple(sorted((key, typed(item)) for key, item in value.items()))
    if isinstance(value, list):
        return "list", tuple(map(typed, value))
    return type(value).__name__, repr(value + 0.0 if isinstance(value, float) else value)


@given(contexts, contexts)
def test_equality_is_that_of_types_and_values(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (Context(one) == Context(other)) == (Context(one) == other) == (typed(one) == typed(other))
    assert typed(Context(one).to_dict()) == typed(one)
