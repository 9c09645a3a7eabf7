"""Every type that docs/types.md lists as a param: what comes back, before a merge and after it."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import types
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import omegaconf
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from aimlite import Repo, Run
from aimlite.sdk.params import as_json, plain
from aimlite.storage.params import packb, unpackb

Pair = namedtuple("Pair", "x y")
ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))


class Colour(enum.Enum):
    RED = "red"
    BLUE = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Settings:
    rate: float = 0.5
    inner: Any = None


class Model(pydantic.BaseModel):
    rate: float = 0.5
    where: pathlib.Path = pathlib.Path("/x")


class FakeTensor:
    """What is asked of a tensor of torch."""

    def __init__(self, array: Any, dtype: str = "float32") -> None:
        self._array, self.dtype, self.shape = np.asarray(array), dtype, np.shape(array)

    def detach(self) -> FakeTensor:
        return self

    cpu = detach

    def float(self) -> FakeTensor:
        return FakeTensor(self._array)

    def numpy(self) -> Any:
        assert "bfloat16" not in self.dtype, "numpy has no bfloat16"
        return self._array


SAME: list[Any] = [
    None, True, False, 0, -1, 2**63, -(2**70), 0.5, -0.0, math.inf, "", "ünï\0cødé", b"", b"\x00\xff", 1 + 2j,
    [], [1, [2, "x"], {"a": [None]}], (), (1, ("a", [2])), [(1,), {2}], {1, "a", (2, 3)}, set(), frozenset({1}), {frozenset({1})},
    dt.datetime(2026, 1, 2, 3, 4, 5, 678901), dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), dt.datetime(2026, 1, 2, tzinfo=ZONE),
    dt.date(2026, 1, 2), dt.time(3, 4, 5, 6), dt.timedelta(days=-1, microseconds=5),
]  # fmt: skip
CONVERTED: list[tuple[Any, Any]] = [
    (np.int64(3), 3), (np.float32(0.5), 0.5), (np.float64(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (np.bytes_(b"a"), b"a"),
    (np.array(3), 3), (np.complex64(1j), 1j), (np.longdouble(0.5), 0.5), (np.float16(0.5), 0.5),
    (np.datetime64("2026-01-02T03:04:05.123456789"), dt.datetime(2026, 1, 2, 3, 4, 5, 123456)),
    (np.timedelta64(1500, "ms"), dt.timedelta(seconds=1.5)),
    (pathlib.Path("/a/b"), "/a/b"), (pathlib.PurePosixPath("a"), "a"), (Colour.RED, "red"), (Colour.BLUE, (1, 2)), (Level.LOW, 1),
    (Settings(inner=Settings()), {"rate": 0.5, "inner": {"rate": 0.5, "inner": None}}), (Model(), {"rate": 0.5, "where": "/x"}),
    (argparse.Namespace(lr=0.1, dims=[1, 2]), {"lr": 0.1, "dims": [1, 2]}), (types.SimpleNamespace(a=1), {"a": 1}),
    (OrderedDict(a=1), {"a": 1}), (defaultdict(int, {1: 2}), {1: 2}), (types.MappingProxyType({"a": 1}), {"a": 1}), (Pair(1, 2), (1, 2)),
    (decimal.Decimal("0.25"), 0.25), (uuid.UUID(int=5), str(uuid.UUID(int=5))), (bytearray(b"ab"), b"ab"), (memoryview(b"ab"), b"ab"),
    (FakeTensor(2.5), 2.5), (FakeTensor(1.5, "torch.bfloat16"), 1.5),
    (omegaconf.OmegaConf.create({"a": 1, "b": "${a}", "c": ["???", {"d": None}]}), {"a": 1, "b": 1, "c": ["???", {"d": None}]}),
    (omegaconf.OmegaConf.create([1, 2]), [1, 2]),
]  # fmt: skip
ARRAYS = [
    np.arange(6, dtype="<i4").reshape(2, 3), np.zeros((0, 3)), np.array([1.5, np.nan, np.inf], "f2"), np.array(["a", "ünï"]),
    np.array([b"a\x01"]),
    np.array([True, False]), np.array([1j]), np.array(["2026-01-02"], "M8[D]"), np.arange(3)[::-1],
    np.asfortranarray(np.arange(4).reshape(2, 2)),
    np.array([1, 2], ">u8"), np.zeros(1000),
]  # fmt: skip


@pytest.fixture
def both(repo: Repo) -> Any:
    """Stores values and gives, for each, what is read back from the journal and from the tree, alone and inside of lists and dicts."""

    def read_back(values: list[Any]) -> list[list[Any]]:
        run = Run("r", repo=repo)
        run["top"] = dict(enumerate(values))
        for number, value in enumerate(values):
            run["deep", number] = [value, {"k": value}]
        found: list[list[Any]] = [[] for _ in values]
        for _ in range(2):
            for number, into in enumerate(found):
                held = run["deep", number]
                into += [run["top", number], run["top"][number], held[0], held[1]["k"]]
            repo.merge()
        run.close()
        return found

    return read_back


def test_what_comes_back_as_it_was(both: Any) -> None:
    for value, found in zip(SAME, both(SAME), strict=True):
        assert all(alike(item, value) for item in found), (value, found)


def test_what_comes_back_as_something_plain(both: Any) -> None:
    for (value, expected), found in zip(CONVERTED, both([value for value, _ in CONVERTED]), strict=True):
        assert all(alike(item, expected) for item in found), (value, found)


def test_arrays_come_back_as_arrays(both: Any) -> None:
    tensor = FakeTensor([1.5, 2.5])
    for array, found in zip([*ARRAYS, tensor._array], both([*ARRAYS, tensor]), strict=True):
        assert all(alike(item, array) and item.flags.writeable for item in found), (array, found)


def test_what_is_read_belongs_to_the_reader(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run["a"] = {"list": [1], "set": {1}, "array": np.zeros(2)}
    for _ in range(3):
        found = run["a"]
        assert (found["list"], found["set"], found["array"].tolist()) == ([1], {1}, [0, 0])
        found["list"].append(2)
        found["set"].add(2)
        found["array"][:] = 5


BAD: list[tuple[Any, type[Exception], str]] = [
    (np.zeros(1001), ValueError, "1001 items.*track_columns"),
    (np.array([object()]), TypeError, "dtype object"),
    (np.zeros(2, [("a", "f4")]), TypeError, "dtype"),
    (np.ma.masked_array([1, 2], [True, False]), TypeError, "MaskedArray"),
    (object(), TypeError, "object"),
    (lambda: None, TypeError, "function"),
    (Settings, TypeError, "type"),
    (iter([1]), TypeError, "list_iterator"),
    ({Colour}, TypeError, "EnumType|EnumMeta"),
]


@pytest.mark.parametrize(("value", "error", "text"), BAD)
def test_what_cannot_be_stored_is_named(repo: Repo, value: Any, error: type[Exception], text: str) -> None:
    run = Run("r", repo=repo)
    run["keep"] = 1
    with pytest.raises(error, match=rf"run\['a'\]\['b'\].*({text})"):
        run["a"] = {"ok": 1, "b": value}
    with pytest.raises(error, match=text):
        run.update({"keep": 2, "b": value})
    assert run[...] == {"keep": 1}


def test_strict_false_keeps_the_repr(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.set("a", {"f": print, "n": 1, "bad": types.SimpleNamespace(x=[object])}, strict=False)
    assert run["a"] == {"f": repr(print), "n": 1, "bad": {"x": [repr(object)]}}
    with pytest.raises(TypeError, match="builtin"):
        run.set("b", print)
    assert run.get("b", 7) == 7
    assert run.get("a", 7, strict=True, resolve_objects=True)["n"] == 1


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5) | st.complex_numbers()
    | st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.times() | st.timedeltas()
    | numpy_st.arrays(st.sampled_from(["<i4", "<f8", "?", "<U3"]), numpy_st.array_shapes(max_dims=2, max_side=3))
)  # fmt: skip
hashable = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.dates()
values = st.recursive(
    leaves | st.frozensets(hashable, max_size=3) | st.sets(hashable, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


def alike(one: Any, other: Any) -> bool:
    """Equal with their types, NaN too; a time zone counts by its offset."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dt.datetime | dt.time):
        return one.isoformat() == other.isoformat()
    if isinstance(one, set | frozenset):
        return one == other and {(type(item), item) for item in one} == {(type(item), item) for item in other}
    return repr(one) == repr(other)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values)
def test_plain_values_pack_and_unpack(value: Any) -> None:
    stored = plain(value, ("a",))
    assert alike(unpackb(packb(stored)), stored)
    assert alike(stored, value)
    assert packb(unpackb(packb(stored))) == packb(stored)


def test_as_json() -> None:
    value = {
        1: (1, {2}, b"ab", dt.date(2026, 1, 2), dt.timedelta(seconds=1.5), 1j, math.nan, -math.inf),
        "a": np.array([[1, 2]]),
        "t": np.array(["2026-01-02"], "M8[D]"),
    }
    assert as_json(value) == {
        "1": [1, [2], "YWI=", "2026-01-02", 1.5, "1j", "NaN", "-Infinity"],
        "a": [[1, 2]],
        "t": ["2026-01-02"],
    }
