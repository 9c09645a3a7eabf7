from __future__ import annotations

import ast
import math
import os
import random
import re
import struct
import time
from collections import OrderedDict
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlite._ext.keys import next_prefix, pack, unpack
from aimlite.errors import CorruptionError
from reference import keys as reference

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"

# From the specification of the tuple layer, and the ends of each of its ranges.
VECTORS: list[tuple[tuple[Any, ...], str]] = [
    ((), ""),
    ((None,), "00"),
    ((b"foo\0bar",), "01 66 6f 6f 00 ff 62 61 72 00"),
    (("F\u00d4O\0bar",), "02 46 c3 94 4f 00 ff 62 61 72 00"),
    (((b"foo\0bar", None, ()),), "05 01 66 6f 6f 00 ff 62 61 72 00 00 ff 05 00 00"),
    ((-5551212,), "11 ab 4b 93"),
    ((-42.0,), "21 3f ba ff ff ff ff ff ff"),
    ((b"",), "01 00"),
    (("",), "02 00"),
    ((b"\0",), "01 00 ff 00"),
    ((b"\0\xff\0",), "01 00 ff ff 00 ff 00"),
    ((b"\0\0",), "01 00 ff 00 ff 00"),
    (("\U0001f525",), "02 f0 9f 94 a5 00"),
    ((None, "a", None), "00 02 61 00 00"),
    (((),), "05 00"),
    (((None,),), "05 00 ff 00"),
    ((((),),), "05 05 00 00"),
    (((None, (None,)), None), "05 00 ff 05 00 ff 00 00 00"),
    ((0,), "14"),
    ((1,), "15 01"),
    ((255,), "15 ff"),
    ((256,), "16 01 00"),
    ((65535,), "16 ff ff"),
    ((65536,), "17 01 00 00"),
    ((2**63 - 1,), "1c 7f ff ff ff ff ff ff ff"),
    ((2**63,), "1c 80 00 00 00 00 00 00 00"),
    ((2**64 - 1,), "1c ff ff ff ff ff ff ff ff"),
    ((2**64,), "1d 09 01 00 00 00 00 00 00 00 00"),
    ((-1,), "13 fe"),
    ((-255,), "13 00"),
    ((-256,), "12 fe ff"),
    ((-65535,), "12 00 00"),
    ((-65536,), "11 fe ff ff"),
    ((-(2**63) + 1,), "0c 80 00 00 00 00 00 00 00"),
    ((-(2**63),), "0c 7f ff ff ff ff ff ff ff"),
    ((-(2**63) - 1,), "0c 7f ff ff ff ff ff ff fe"),
    ((1 - 2**64,), "0c 00 00 00 00 00 00 00 00"),
    ((-(2**64),), "0b f6 fe ff ff ff ff ff ff ff ff"),
    ((2**2040 - 1,), "1d ff" + " ff" * 255),
    ((1 - 2**2040,), "0b 00" + " 00" * 255),
    ((0.0,), "21 80 00 00 00 00 00 00 00"),
    ((-0.0,), "21 7f ff ff ff ff ff ff ff"),
    ((math.inf,), "21 ff f0 00 00 00 00 00 00"),
    ((-math.inf,), "21 00 0f ff ff ff ff ff ff"),
    ((math.nan,), "21 ff f8 00 00 00 00 00 00"),
    ((5e-324,), "21 80 00 00 00 00 00 00 01"),
    ((False,), "26"),
    ((True,), "27"),
    (({},), "40 00"),
    (({"b": None, "a": {}},), "40 02 61 00 40 00 02 62 00 00 ff 00"),
    (({"": 1, "\0": 2, "\x01": 3},), "40 02 00 15 01 02 00 ff 00 15 02 02 01 00 15 03 00"),
]

ints = st.one_of(st.integers(), st.integers(-(2**64) - 2, 2**64 + 2), st.integers(1 - 2**2040, 2**2040 - 1))
floats = st.floats() | st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", bits.to_bytes(8, "little"))[0])
texts = st.text() | st.text(alphabet="\0\x01a\xff\uffff\U00010000")
contents = st.binary() | st.lists(st.sampled_from([0, 1, 254, 255])).map(bytes)
leaves = st.one_of(st.none(), st.booleans(), ints, floats, texts, contents)
elements = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
tuples = st.lists(elements, max_size=5).map(tuple)


def frozen(value: Any) -> Any:
    """The value with its types and bits, in a form that == compares."""
    if isinstance(value, tuple):
        return "tuple", [frozen(item) for item in value]
    if isinstance(value, dict):
        return "dict", sorted((key, frozen(item)) for key, item in value.items())
    return type(value).__name__, struct.pack("<d", value) if isinstance(value, float) else value


def decoded(data: bytes) -> tuple[Any, ...] | CorruptionError:
    try:
        return unpack(data)
    except CorruptionError as error:
        return error


def check_hostile(data: bytes) -> bool:
    """Any bytes either are a key, and then the only form of it, or raise CorruptionError. Returns which; the reference agrees."""
    value = decoded(data)
    if isinstance(value, CorruptionError):
        assert value.offset is not None
        assert 0 <= value.offset <= len(data)
        with pytest.raises((ValueError, RecursionError)):
            reference.unpack(data)
        return False
    assert pack(value) == data
    assert frozen(reference.unpack(data)) == frozen(value)
    return True


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_vectors(value: tuple[Any, ...], encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert pack(value) == data
    assert frozen(unpack(data)) == frozen(value)
    assert reference.pack(value) == data
    assert frozen(reference.unpack(data)) == frozen(value)


def test_example_of_the_format() -> None:
    found = re.search(r"^`pack\(([^\n]*)\)` is\n\n```\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    value = ast.literal_eval(found[1])
    data = bytes.fromhex("".join(line.split(";")[0] for line in found[2].splitlines()))
    assert pack(value) == data
    assert unpack(data) == value
    assert reference.pack(value) == data


@given(tuples)
def test_round_trip_and_reference(value: tuple[Any, ...]) -> None:
    data = pack(value)
    assert data == reference.pack(value)
    assert frozen(unpack(data)) == frozen(value)
    assert frozen(reference.unpack(data)) == frozen(value)


@given(tuples, st.binary(max_size=9))
def test_start(value: tuple[Any, ...], before: bytes) -> None:
    assert frozen(unpack(before + pack(value), len(before))) == frozen(value)


def test_start_out_of_range() -> None:
    assert unpack(b"\x14", 1) == ()
    for start in (-1, 2, 2**62):
        with pytest.raises(ValueError):
            unpack(b"\x14", start)


@given(st.integers(0, 300), st.integers(-3, 3), st.booleans())
def test_long_content(size: int, extra: int, zeros: bool) -> None:
    """Around the size at which a key leaves the C stack, and growing by escapes."""
    content = (b"\0" if zeros else b"x") * max(0, size + extra)
    value = (content, content.decode(), {"k": content})
    assert pack(value) == reference.pack(value)
    assert unpack(pack(value)) == value


def test_large_content() -> None:
    value = ("é" * 100_000 + "\0" * 100_000, b"\0" * 1_000_000, tuple(range(10_000)))
    assert pack(value) == reference.pack(value)
    assert unpack(pack(value)) == value


# ---- order ----

ordered = [
    st.integers() | ints,
    texts,
    contents,
    st.floats(allow_nan=False).map(lambda number: number + 0.0),  # without -0.0, which the bytes put before 0.0
    st.booleans(),
]


@given(st.data())
def test_order_of_bytes_is_order_of_values(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(ordered))
    flat = st.lists(kind, max_size=4).map(tuple)
    tuples_of_it = data.draw(st.sampled_from([flat, st.lists(flat, max_size=3).map(tuple), st.tuples(flat, kind)]))
    a, b = data.draw(tuples_of_it), data.draw(tuples_of_it)
    assert (pack(a) < pack(b)) == (a < b)
    assert (pack(a) == pack(b)) == (a == b)


def test_order_of_types_and_of_nested_none() -> None:
    ascending = [None, b"", "", (), (None,), (None, None), (b"",), -(2**70), -1, 0, 1, 2**70, -math.inf, -0.0, 0.0, False, True, {}]
    packed = [pack((value, "more")) for value in ascending]
    assert packed == sorted(packed)


@given(tuples, tuples)
def test_no_key_continues_inside_an_element(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    """[a, a ff) holds the keys that begin with the elements of a alone: what prefix scans stand on. A longer string goes on with ff."""
    assert pack(a) + pack(b) == pack(a + b)
    assert (pack(a) <= pack(b) < pack(a) + b"\xff") == (frozen(b[: len(a)]) == frozen(a))
    assert pack(("a\0",)).startswith(pack(("a",)))


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_next_prefix(prefix: bytes, key: bytes) -> None:
    after = next_prefix(prefix)
    for candidate in (key, prefix + key, prefix, prefix[:-1], prefix + b"\xff" * 9):
        assert candidate.startswith(prefix) == (candidate >= prefix and (after is None or candidate < after))


def test_next_prefix_at_the_end() -> None:
    assert next_prefix(b"") is None
    assert next_prefix(b"\xff\xff") is None
    assert next_prefix(b"a\xff\xff") == b"b"
    assert next_prefix(b"\x00") == b"\x01"


# ---- what pack takes ----


class Text(str):
    __slots__ = ()

    def encode(self, *args: object, **options: object) -> bytes:
        return b"no"

    def __lt__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = str.__hash__


class Number(int):
    def __int__(self) -> int:
        return 7

    def __index__(self) -> int:
        return 7

    def __abs__(self) -> int:
        return 7

    def __pos__(self) -> int:
        return 7

    def __lt__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = int.__hash__


class Real(float):
    def __float__(self) -> float:
        return 7.0


class Colour(IntEnum):
    RED = 3


class Pair(NamedTuple):
    a: int
    b: str


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("abc"), "abc"),
        (Number(5), 5),
        (Number(-(2**80)), -(2**80)),
        (Number(2**80), 2**80),
        (Real(1.5), 1.5),
        (Colour.RED, 3),
        (np.float64(1.5), 1.5),
        (Pair(1, "x"), (1, "x")),
        ([1, [2]], (1, (2,))),
        ({Text("b"): 1, Text("a"): 2}, {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
    ],
)
def test_subclasses_are_their_base(value: Any, plain: Any) -> None:
    assert pack((value,)) == pack((plain,))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.int64(1), "numpy.int64"),
        (np.float32(1), "numpy.float32"),
        (np.bool_(True), "numpy.bool"),
        (bytearray(b"a"), "bytearray"),
        (1j, "complex"),
        ({1}, "set"),
        (object(), "object"),
        ({1: 2}, "int"),
        ({"a": 1, None: 2}, "NoneType"),
        ({b"a": 1}, "bytes"),
        ([{"a": ({"b": 1j},)}], "complex"),
    ],
)
def test_unsupported_types_are_named(value: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        pack((value,))
    with pytest.raises(TypeError, match=named):
        pack(("x" * 1000, value))


@pytest.mark.parametrize("value", [[1], "a", None, b"a", {}])
def test_only_tuples_are_keys(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        pack(value)


@pytest.mark.parametrize("data", ["a", None, bytearray(b"\x14"), memoryview(b"\x14")])
def test_only_bytes_are_unpacked(data: Any) -> None:
    with pytest.raises(TypeError):
        unpack(data)
    with pytest.raises(TypeError):
        next_prefix(data)


@pytest.mark.parametrize(
    "value", [2**2040, -(2**2040), "\ud800", "a\udfff", {"\ud800": 1}, {"\ud800": 1, "a": 2}, {"a": "\udc00"}, 10**4000]
)
def test_values_that_do_not_fit(value: Any) -> None:
    with pytest.raises(ValueError):
        pack((value,))


def nested(depth: int, kind: str) -> Any:
    value: Any = "leaf"
    for level in range(depth):
        value = {"k": value} if kind == "map" or (kind == "mixed" and level % 2) else (value,) if level % 3 else [value]
    return value


@pytest.mark.parametrize("kind", ["tuple", "map", "mixed"])
def test_nesting_limit(kind: str) -> None:
    assert pack(unpack(pack((nested(64, kind),)))) == pack((nested(64, kind),))
    with pytest.raises(ValueError, match="64"):
        pack((nested(65, kind),))
    open_, close = (b"\x40\x02k\0", b"\0") if kind == "map" else (b"\x05", b"\0")
    assert check_hostile(open_ * 64 + b"\x14" + close * 64)
    assert not check_hostile(open_ * 65 + b"\x14" + close * 65)
    assert not check_hostile(open_ * 500)
    with pytest.raises(CorruptionError):
        unpack(open_ * 1_000_000)


def test_lists_inside_themselves() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError):
        pack((endless,))


# ---- hostile bytes ----


@pytest.mark.parametrize(
    "data",
    [
        "03", "04", "06", "0a", "1e", "20 3d d7 ff ff", "22", "25", "28", "30", "33", "3f", "41", "4f", "ff", "00 ff",
        "15 00", "16 00 ff", "1c 00 ff ff ff ff ff ff ff", "13 ff", "12 ff 00", "0c ff 00 00 00 00 00 00 00",
        "1d 08 01 00 00 00 00 00 00 00", "1d 09 00 01 00 00 00 00 00 00 00", "1d 00", "0b ff",
        "0b f7 fe ff ff ff ff ff ff ff", "0b f6 ff fe ff ff ff ff ff ff ff",
        "15", "1c 01 02", "0c", "1d", "1d 09 01", "0b", "21 80 00", "01", "02", "01 00 ff", "02 61", "05", "05 00 ff", "40", "40 02 61 00",
        "02 ff 00", "02 c0 80 00", "02 ed a0 80 00", "02 f4 90 80 80 00", "02 c3 00 ff 00",
        "40 02 61 00 00", "40 02 61 00 00 00", "40 14 14 00", "40 00 ff 14 00", "40 01 61 00 14 00",
        "40 02 62 00 14 02 61 00 14 00", "40 02 61 00 14 02 61 00 14 00", "40 02 61 00 ff 00 14 02 61 00 14 00",
    ],
)  # fmt: skip
def test_what_pack_never_writes(data: str) -> None:
    assert not check_hostile(bytes.fromhex(data))


SAMPLES = [pack(value) for value, _ in VECTORS] + [
    pack(("0123456789abcdef01234567", "loss", {"subset": "train", "fold": 3, "deep": {"a": [1.5, None, "\0"]}}, 12345)),
    pack(((("a", None), -5551212), b"\0\0", 2**70, -(2**70), True)),
]


@pytest.mark.parametrize("data", SAMPLES, ids=lambda data: data[:12].hex())
def test_every_cut_flip_and_change(data: bytes) -> None:
    for end in range(len(data)):
        check_hostile(data[:end])
    for at in range(len(data)):
        for bit in range(8):
            check_hostile(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        for byte in (0x00, 0x01, 0x02, 0x05, 0x0B, 0x14, 0x1D, 0x21, 0x40, 0xFF):
            check_hostile(data[:at] + bytes([byte]) + data[at + 1 :])
            check_hostile(data[:at] + bytes([byte]) + data[at:])
        check_hostile(data[:at] + data[at + 1 :])


@given(st.binary(max_size=40))
def test_random_bytes(data: bytes) -> None:
    check_hostile(data)


CODES = bytes([0, 0, 0, 0xFF, 0xFF, 1, 2, 2, 5, 0x0B, 0x0C, 0x13, 0x14, 0x15, 0x1C, 0x1D, 0x21, 0x26, 0x27, 0x40, 0x40, 0x61])


@given(st.lists(st.sampled_from(CODES), max_size=60).map(bytes))
def test_random_codes(data: bytes) -> None:
    check_hostile(data)


@given(tuples, st.integers(0, 2**32))
def test_mutated_keys(value: tuple[Any, ...], seed: int) -> None:
    for data in mutations(pack(value), random.Random(seed), 20):
        check_hostile(data)


def mutations(data: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """n times data with one to four bytes flipped, replaced, inserted, dropped or copied from elsewhere."""
    for _ in range(n):
        out = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(out))
            kind = rng.randrange(5)
            if kind == 0:
                out.insert(at, rng.choice(CODES))
            elif kind == 1:
                del out[at : at + rng.randint(1, 3)]
            elif kind == 2 and out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            elif kind == 3 and out:
                out[at % len(out)] = rng.choice(CODES)
            else:
                source = rng.randint(0, len(out))
                out[at:at] = out[source : source + rng.randint(1, 8)]
        yield bytes(out)


@pytest.mark.fuzz
def test_fuzz() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    end = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60"))
    tried = kept = 0
    pool = list(SAMPLES)
    while time.monotonic() < end:
        for data in mutations(rng.choice(pool), rng, 200):
            tried += 1
            if check_hostile(data):  # what still is a key is changed further
                kept += 1
                pool[rng.randrange(len(pool))] = data[:2000]
                if rng.random() < 0.01:
                    pool[rng.randrange(len(pool))] = rng.choice(SAMPLES)
    assert tried > 1000
    assert kept > 10
