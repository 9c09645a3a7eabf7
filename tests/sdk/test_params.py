"""Params as users set, read and delete them."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimlite import Repo, Run

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=8),
)
KEYS = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers())
TREES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=12)


@given(st.dictionaries(KEYS, TREES, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_set_is_read(repo: Repo, tree: dict[Any, Any]) -> None:
    with Run("r", repo=repo) as run:
        run[...] = tree
        assert run[...] == tree
        run["x", "y"] = tree
        assert run["x"]["y"] == tree


def test_what_was_set_reads_the_same_after_a_merge(repo: Repo) -> None:
    tree = {
        "a.b": 1,
        "a b": {"": [1, [2, {"c": None}]], "ü": -0.0},
        7: {"big": 2**80, "small": -(2**70)},
        "none": None,
        "empty": {},
        "deep": {"e": {}},
        "bytes": b"\x00\xff",
        "flags": [True, False],
        "inf": math.inf,
    }
    with Run("r", repo=repo) as run:
        for key, value in tree.items():
            run[key] = value
        assert run[...] == tree
    repo.merge()
    again = repo.get_run("r")
    assert again[...] == tree
    assert again[7, "big"] == 2**80
    assert again["a b"][""] == [1, [2, {"c": None}]]
    assert set(again) == set(tree)
    assert len(again) == len(tree)
    assert "none" in again
    assert "nobody" not in again
    assert again.get("nobody", 5) == 5


def test_nan_and_large_strings(repo: Repo) -> None:
    with Run("r", repo=repo) as run:
        run["nan"] = math.nan
        run["large"] = {"text": "é" * 1_000_000, "other": "b" * 3_000_000}
        assert len(run["large", "text"]) == 1_000_000
    repo.merge()
    assert math.isnan(run["nan"])
    assert run["large"] == {"text": "é" * 1_000_000, "other": "b" * 3_000_000}


def test_sets_of_subtrees_and_scalars_over_each_other(repo: Repo) -> None:
    run = Run("r", repo=repo)
    for merged in (False, True):
        run["p"] = {"a": 1, "b": {"c": 2}}
        run["p", "b", "d"] = 3
        assert run["p"] == {"a": 1, "b": {"c": 2, "d": 3}}
        if merged:
            repo.merge()
        run["p", "b"] = 5
        assert run["p"] == {"a": 1, "b": 5}
        run["p", "b", "again"] = 6
        assert run["p"] == {"a": 1, "b": {"again": 6}}
        if merged:
            repo.merge()
        run["p"] = {"z": 0}
        assert run["p"] == {"z": 0}
        run["p"] = 1
        assert run["p"] == 1
        run["p", "k"] = 2
        assert run["p"] == {"k": 2}
        if merged:
            repo.merge()
        del run["p", "k"]
        with pytest.raises(KeyError):
            run["p", "k"]


def test_deleting(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run["a"] = {"b": 1, "c": 2}
    repo.merge()
    del run["a", "b"]
    assert run["a"] == {"c": 2}
    with pytest.raises(KeyError, match=r"a\.b"):
        del run["a", "b"]
    del run["a"]
    with pytest.raises(KeyError, match="'a'"):
        run["a"]
    assert run[...] == {}
    run["x"] = 1
    del run[...]
    assert dict(run) == {}
    repo.merge()
    assert run[...] == {}


def test_a_mapping_reads_and_writes_through(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run["a"] = {"b": 1}
    run.params["c"] = 2
    assert dict(run.params) == {"a": {"b": 1}, "c": 2}
    assert run.setdefault("c", 9) == 2
    assert run.pop("c") == 2
    run.update({"d": 4}, e=5)
    assert run[...] == {"a": {"b": 1}, "d": 4, "e": 5}
    read = run["a"]
    read["b"] = 99
    assert run["a", "b"] == 1, "what is read is the reader's own"


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


BAD: list[tuple[Any, Any, type[Exception], str]] = [
    ("a", Odd(), TypeError, r"run\['a'\]: a Odd"),
    ("a", {"b": {"c": Odd()}}, TypeError, r"run\['a'\]\['b'\]\['c'\]"),
    ("a", [1, {"x": Odd()}], TypeError, r"run\['a'\]\[1\]\['x'\]"),
    ("a", {1.5: 1}, TypeError, "float 1.5"),
    ("a", {None: 1}, TypeError, "NoneType"),
    ("a", {True: 1}, TypeError, "bool"),
    (("a", 1.5), 1, TypeError, "float 1.5"),
    (None, 1, TypeError, "NoneType"),
    ("a", "\ud800", ValueError, "UTF-8"),
    ("\ud800", 1, ValueError, "UTF-8"),
    ("a", range(3), TypeError, "range"),
    ("a", print, TypeError, "builtin_function"),
    (..., 5, TypeError, "dict"),
]


@pytest.mark.parametrize(("key", "value", "error", "text"), BAD)
def test_what_cannot_be_stored_leaves_all_as_it_was(repo: Repo, key: Any, value: Any, error: type[Exception], text: str) -> None:
    run = Run("r", repo=repo)
    run["a"] = {"old": 1}
    with pytest.raises(error, match=text):
        run[key] = value
    assert run[...] == {"a": {"old": 1}}


def test_a_value_that_holds_itself(repo: Repo) -> None:
    run = Run("r", repo=repo)
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(ValueError, match="nested"):
        run["a"] = loop
    assert run[...] == {}


def test_numpy_scalars_and_subclasses_are_plain(repo: Repo) -> None:
    class Name(str):
        pass

    run = Run("r", repo=repo)
    run["a"] = {"i": np.int32(5), "f": np.float32(0.5), "s": Name("x"), "t": (1, 2)}
    found = run["a"]
    assert found == {"i": 5, "f": 0.5, "s": "x", "t": (1, 2)}
    assert {key: type(value) for key, value in found.items()} == {"i": int, "f": float, "s": str, "t": tuple}


def test_the_later_of_two_processes_wins(repo: Repo, repo_path: str) -> None:
    run = Run("r", repo=repo)
    run["a"] = {"x": 1, "y": 1}
    script = "import sys; from aimlite import Run; r = Run('r', repo=sys.argv[1]); r['a', 'x'] = 2; r['b'] = 3; r.close()"
    subprocess.run([sys.executable, "-c", script, repo_path], check=True, timeout=300)
    assert run[...] == {"a": {"x": 2, "y": 1}, "b": 3}
    repo.merge()
    run["a"] = {"z": 0}
    assert run[...] == {"a": {"z": 0}, "b": 3}


def test_many_keys(repo: Repo) -> None:
    tree = {f"key{i}": i for i in range(20_000)}
    with Run("r", repo=repo) as run:
        run["many"] = tree
        assert run["many"] == tree
    repo.merge()
    assert run["many"] == tree
    assert run["many", "key77"] == 77
