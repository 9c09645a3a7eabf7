from __future__ import annotations

import ast
import os
import random
import re
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aimlite._ext.blocks import crc32c, decode_times, decode_values, decode_values_into, encode_times, encode_values
from aimlite.errors import CorruptionError
from reference import blocks as reference

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
I64_MIN, I64_MAX, U64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
NAN_BITS = [0x7FF8 << 48, 0xFFF8 << 48, 0x7FF0000000000001, 0xFFF7FFFFFFFFFFFF, 0x7FF8000000000001, 0x7FFFFFFFFFFFFFFF, 0x7FF8000020000000]
FINITE_BITS = [0, 1 << 63, 1, 0x000FFFFFFFFFFFFF, 0x3FF0 << 48, 0x36A0 << 48, 0x47EFFFFFE0000000, 0x47EFFFFFF0000000]
ODD_BITS = [*FINITE_BITS, 0x7FF0 << 48, 0xFFF0 << 48]

Values = tuple[Sequence[int], Sequence[float]]
Times = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int], Sequence[float]]


def floats_of(bits: Sequence[int]) -> list[float]:
    return [reference.float_of(number) for number in bits]


def value_arrays(points: Values) -> tuple[NDArray[Any], ...]:
    steps, values = points
    return np.array(steps, np.int64), np.array([reference.bits_of(value) for value in values], np.uint64).view(np.float64)


def time_arrays(points: Times) -> tuple[NDArray[Any], ...]:
    times, orders, writers, step_given, epochs = points
    return (
        np.array(times, np.int64),
        np.array(orders, np.uint64),
        np.array(writers, np.uint64),
        np.array(step_given, np.uint8),
        np.array([reference.bits_of(epoch) for epoch in epochs], np.uint64).view(np.float64),
    )


def check_values(points: Values) -> bytes:
    """The block of these points: comes back bit for bit, is what the reference writes and reads."""
    arrays = value_arrays(points)
    block = encode_values(*arrays)
    assert block == reference.encode_values(*points)
    n, *columns = decode_values(block)
    assert n == len(points[0])
    assert [bytes(column) for column in columns] == [column.tobytes() for column in arrays]
    assert encode_values(*value_arrays(reference.decode_values(block))) == block
    return block


def check_times(points: Times) -> bytes:
    arrays = time_arrays(points)
    block = encode_times(*arrays)
    assert block == reference.encode_times(*points)
    n, *columns = decode_times(block)
    assert n == len(points[0])
    expected = [*arrays[:4], np.where(np.isnan(arrays[4]), np.nan, arrays[4])]  # absent is one NaN
    assert [bytes(column) for column in columns] == [column.tobytes() for column in expected]
    assert encode_times(*time_arrays(reference.decode_times(block))) == block
    return block


# ---- strategies ----

MAX_POINTS = 40
i64 = st.integers(I64_MIN, I64_MAX)
u64 = st.integers(0, U64_MAX)
widths = st.sampled_from([0, 1, 7, 8, 15, 16, 31, 32, 62, 64])


def int_lists(n: int) -> st.SearchStrategy[list[int]]:
    """n int64 in any order, with differences of every width: equal, regular, near each other, anywhere."""

    def walk(first: int, stride: int, wobbles: list[int]) -> list[int]:
        out = [first]
        for wobble in wobbles:
            out.append(reference.signed(out[-1] + stride + wobble))
        return out

    near = widths.flatmap(lambda bits: st.lists(st.integers(-(2**bits) // 2, 2**bits // 2), min_size=n - 1, max_size=n - 1))
    return st.builds(walk, i64, i64 | st.integers(-3, 2000), near) | st.lists(i64, min_size=n, max_size=n)


bit_kinds = [
    u64,
    st.floats().map(reference.bits_of),
    st.floats(width=32).map(reference.bits_of),
    st.floats(width=16).map(reference.bits_of),
    st.sampled_from(NAN_BITS),
    st.sampled_from(ODD_BITS),
    st.integers(0, 2**32 - 1).map(reference.from_float32),
]


def float_lists(n: int) -> st.SearchStrategy[list[float]]:
    """n floats of one kind, of any kind, or in runs."""
    any_kind = st.sampled_from(bit_kinds).flatmap(lambda kind: st.lists(kind, min_size=n, max_size=n))
    runs = st.tuples(st.lists(st.one_of(bit_kinds), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=n, max_size=n)).map(
        lambda drawn: sorted(drawn[0][k % len(drawn[0])] for k in drawn[1])
    )
    return st.one_of(any_kind, runs, st.lists(st.one_of(bit_kinds), min_size=n, max_size=n)).map(floats_of)


@st.composite
def value_points(draw: st.DrawFn) -> Values:
    n = draw(st.integers(1, MAX_POINTS))
    return sorted(draw(int_lists(n))), draw(float_lists(n))


@st.composite
def time_points(draw: st.DrawFn) -> Times:
    n = draw(st.integers(1, MAX_POINTS))
    times = draw(int_lists(n))
    late = draw(st.just([0] * n) | int_lists(n))
    known = draw(st.lists(u64, min_size=1, max_size=4))
    return (
        times,
        [(a + b) % 2**64 for a, b in zip(times, late, strict=True)],
        draw(st.lists(st.sampled_from(known), min_size=n, max_size=n)),
        draw(st.just([0] * n) | st.just([1] * n) | st.lists(st.integers(0, 1), min_size=n, max_size=n)),
        draw(float_lists(n)),
    )


# ---- round trips ----


@given(value_points())
def test_values(points: Values) -> None:
    check_values(points)


@given(time_points())
def test_times(points: Times) -> None:
    check_times(points)


STEPS: dict[str, list[int]] = {
    "one": [5],
    "one, least": [I64_MIN],
    "two": [3, 9],
    "two, ends": [I64_MIN, I64_MAX],
    "two, same": [7, 7],
    "three, regular": [-4, 0, 4],
    "three, not": [-4, 0, 5],
    "three, ends": [I64_MIN, I64_MIN, I64_MAX],
    "three, ends and 0": [I64_MIN, 0, I64_MAX],
    "three, last late": [I64_MIN, I64_MAX, I64_MAX],
    "all the same": [I64_MAX] * 50,
    "same in pairs": [k // 2 for k in range(100)],
    "regular": list(range(-1000, 9000, 10)),
    "regular, widest": list(range(I64_MIN, I64_MAX, 2**60)),
    "a gap": [*range(50), *range(1000, 1050)],
    "squares": [k * k for k in range(300)],
    "cubes": [k**3 for k in range(300)],
    "fifth powers": [k**5 for k in range(300)],
    "block": list(range(0, 4096 * 50, 50)),
    "block, irregular": [50 * k + k * 7919 % 50 for k in range(4096)],
}


@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str) -> None:
    steps = STEPS[name]
    block = check_values((steps, [0.5] * len(steps)))
    if name in ("one", "two", "two, ends", "all the same", "regular, widest", "block"):
        assert len(block) == 12 + 16 + 8


@pytest.mark.parametrize(
    ("bits", "mode"),
    [
        (NAN_BITS, 8),
        (ODD_BITS, 8),
        ([NAN_BITS[0]] * 9, 0),
        ([NAN_BITS[2]] * 9, 0),
        ([NAN_BITS[2], 0], 8),
        ([NAN_BITS[0], NAN_BITS[1], NAN_BITS[6], 0, 1 << 63], 4),
        ([0, 1 << 63], 4),
        ([0x7FF0 << 48, 0xFFF0 << 48, 0x3FF0 << 48], 4),
        ([0, 1], 8),
        ([0, 0x36A0 << 48], 4),  # the least float32
        ([0, 0x3690 << 48], 8),
        ([0, 0x36A8 << 48], 8),
        ([0, 0x47EFFFFFE0000000], 4),  # the largest float32
        ([0, 0x47EFFFFFF0000000], 8),
        ([0x3FB999999999999A] * 4, 0),
        ([0x3FB999999999999A], 0),
        ([reference.bits_of(k / 8) for k in range(4096)], 4),
        ([reference.bits_of(k / 10) for k in range(4096)], 8),
        ([reference.bits_of(k / 8) for k in range(4095)] + [reference.bits_of(0.1)], 8),
        ([0] * 4095 + [1 << 63], 4),
    ],
)
def test_value_modes(bits: list[int], mode: int) -> None:
    block = check_values((range(len(bits)), floats_of(bits)))
    assert block[3] == mode


EPOCHS: dict[str, tuple[list[float], int]] = {
    "absent": ([float("nan")] * 100, 0),
    "absent, any NaN": (floats_of(NAN_BITS), 0),
    "one absent": ([float("nan")], 0),
    "one": ([1.0], 8),
    "two the same": ([1.0, 1.0], 1),
    "two": ([1.0, 2.0], 8),
    "runs": ([k // 100 / 2 for k in range(1000)], 1),
    "runs with absent": ([float("nan")] * 3 + [1.0] * 3 + floats_of(NAN_BITS), 1),
    "as many runs as are worth it": ([0.0] * 91 + [float(k) for k in range(1, 180)], 8),
    "one run less": ([0.0] * 92 + [float(k) for k in range(1, 179)], 1),
    "zeros of both signs": ([0.0, -0.0] * 5, 8),
    "fractions": ([k / 7 for k in range(4096)], 8),
    "odd": (floats_of(ODD_BITS + NAN_BITS[:1]), 8),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_epochs(name: str) -> None:
    epochs, mode = EPOCHS[name]
    n = len(epochs)
    block = check_times((range(n), range(n), [1] * n, [1] * n, epochs))
    assert block[14] == mode


@pytest.mark.parametrize(("known", "n", "mode"), [(1, 1, 0), (1, 500, 0), (2, 2, 1), (256, 700, 1), (257, 700, 2), (300, 4096, 2)])
def test_writers(known: int, n: int, mode: int) -> None:
    writers = [(k % known) * 0x9E3779B97F4A7C15 % 2**64 for k in range(n)]
    block = check_times((range(n), range(n), writers, [0] * n, [0.0] * n))
    assert block[12] == mode
    check_times((range(n), range(n), sorted(writers), [0] * n, [0.0] * n))


def test_most_writers() -> None:
    n = 65_536
    arrays = [np.arange(n), np.arange(n, dtype=np.uint64), np.arange(n, dtype=np.uint64), np.ones(n, np.uint8), np.zeros(n)]
    with pytest.raises(ValueError, match="65535"):
        encode_times(*arrays)
    arrays[2][-1] = 0
    assert [bytes(column) for column in decode_times(encode_times(*arrays))[1:]] == [column.tobytes() for column in arrays]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 4096])
def test_given_steps(n: int) -> None:
    for bits, mode in [([0] * n, 0), ([1] * n, 1), ([1] + [0] * (n - 1), 2), ([0] * (n - 1) + [1], 2), ([k % 3 % 2 for k in range(n)], 2)]:
        block = check_times((range(n), range(n), [0] * n, bits, [0.0] * n))
        assert block[13] == (mode if 0 < sum(bits) < n else bits[0])


def test_times_and_orders_of_every_width() -> None:
    for late in (0, 1, -1, 200, -200, 70_000, 2**40, -(2**63), 2**63 - 1):
        for jump in (0, 1, -1, 300, 2**20, -(2**40), 2**63 - 1):
            times = [reference.signed(1_700_000_000_000_000 + k * jump + k * k % 3) for k in range(20)]
            orders = [(at + late * (k % 2)) % 2**64 for k, at in enumerate(times)]
            check_times((times, orders, [9] * 20, [1] * 20, [0.0] * 20))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 4096, 5000])
def test_long_columns(n: int) -> None:
    """Values are converted in parts of 1,024."""
    rng = random.Random(n)
    check_values((range(n), [rng.choice([0.5, -1.25, 3e5]) for _ in range(n)]))
    check_values((sorted(rng.randrange(10**6) for _ in range(n)), [rng.random() for _ in range(n)]))


def test_largest_block() -> None:
    n = 2**20
    rng = np.random.default_rng(7)
    for steps, values in [
        (np.arange(n), np.zeros(n)),
        (np.sort(rng.integers(I64_MIN, I64_MAX, n)), rng.standard_normal(n)),
    ]:
        block = encode_values(steps, values)
        assert [bytes(column) for column in decode_values(block)[1:]] == [steps.tobytes(), values.tobytes()]
    with pytest.raises(ValueError):
        encode_values(np.arange(n + 1), np.zeros(n + 1))


def test_examples_of_the_format() -> None:
    text = FORMAT.read_text("utf-8")
    for name, encode, plain in [
        ("encode_values", lambda columns: encode_values(*value_arrays(columns)), reference.encode_values),
        ("encode_times", lambda columns: encode_times(*time_arrays(columns)), reference.encode_times),
    ]:
        found = re.search(rf"^`{name}\(([^\n]*)\)` is\n\n```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
        assert found is not None
        columns = ast.literal_eval(f"({found[1]})")
        data = bytes.fromhex("".join(line.split(";")[0] for line in found[2].splitlines()))
        assert encode(columns) == data
        assert plain(*columns) == data


# ---- buffers ----


def test_buffers_of_every_kind() -> None:
    steps, values = [1, 2, 4], [0.5, 1.5, 0.1]
    block = encode_values(np.array(steps), np.array(values))
    packed = struct.pack("<3q", *steps), struct.pack("<3d", *values)
    for kind in (lambda data: data, bytearray, memoryview):
        assert encode_values(*map(kind, packed)) == block
        assert decode_values(kind(block)) == decode_values(block)
        assert crc32c(kind(block)) == crc32c(block)
    assert encode_values(array("q", steps), array("d", values)) == block
    assert encode_values(array("l", steps), memoryview(array("d", values))) == block
    assert encode_values(np.array([0, *steps])[1:], np.array(values, "<f8")) == block
    n = np.zeros(3, np.uint64)
    assert encode_times(np.array(steps), n, n, np.array([True, False, True]), np.zeros(3)) == encode_times(
        np.array(steps), n, n, bytes([1, 0, 1]), np.zeros(3)
    )


@pytest.mark.parametrize(
    "steps",
    [np.zeros(3), np.zeros(3, np.uint64), np.zeros(3, np.int32), np.zeros(3, ">i8"), np.zeros((3, 1), np.int64), np.array(0), [1, 2], None],
)
def test_wrong_buffers(steps: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_values(steps, np.zeros(3))
    if isinstance(steps, np.ndarray):
        with pytest.raises((TypeError, ValueError)):
            decode_values_into(encode_values(np.zeros(1, np.int64), np.zeros(1)), steps, np.zeros(3), 0)


@pytest.mark.parametrize(
    ("steps", "values"),
    [
        (np.arange(6)[::2], np.zeros(3)),
        (np.arange(3), np.zeros(4)),
        (np.arange(0), np.zeros(0)),
        (np.array([1, 2, 1]), np.zeros(3)),
        (np.array([I64_MAX, I64_MIN]), np.zeros(2)),
        (b"1234567", np.zeros(1)),
        (np.arange(3), memoryview(bytes(25))[1:]),
        (np.arange(3), np.zeros(3, np.float32)),
    ],
)
def test_wrong_columns(steps: Any, values: Any) -> None:
    with pytest.raises((ValueError, TypeError, BufferError)):
        encode_values(steps, values)


def test_wrong_time_columns() -> None:
    n = 4
    right: list[Any] = [np.arange(n), np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64), np.ones(n, np.uint8), np.zeros(n)]
    encode_times(*right)
    for k in range(5):
        for wrong in (right[k][:-1], right[k][:0], right[k][::2], right[k].astype(np.int16), None):
            with pytest.raises((ValueError, TypeError, BufferError)):
                encode_times(*right[:k], wrong, *right[k + 1 :])
    with pytest.raises(ValueError, match="0 or 1"):
        encode_times(*right[:3], np.array([0, 1, 2, 1], np.uint8), right[4])


def test_decode_into_a_part() -> None:
    steps, values = np.arange(5), np.array([0.5, 1, 2, 3, 4])
    block = encode_values(steps, values)
    step_out, value_out = np.full(9, -1), np.full(9, -1.0)
    assert decode_values_into(block, step_out, value_out, 3) == 5
    assert step_out.tolist() == [-1, -1, -1, 0, 1, 2, 3, 4, -1]
    assert value_out.tolist() == [-1, -1, -1, 0.5, 1, 2, 3, 4, -1]
    assert decode_values_into(block, step_out, value_out, 4) == 5
    for start in (5, 9, 10, 2**62):
        for outs in ((step_out, np.zeros(2**10)), (np.zeros(2**10, np.int64), value_out), (step_out, value_out)):
            with pytest.raises(CorruptionError, match="fit"):
                decode_values_into(block, *outs, start)
    with pytest.raises(ValueError):
        decode_values_into(block, step_out, value_out, -1)
    value_out.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        decode_values_into(block, step_out, value_out, 0)


# ---- hostile bytes ----


def resealed(block: bytes) -> bytes:
    """The block with the CRC it ought to have, so that what lies behind the CRC is tested too."""
    return block if len(block) < 12 else block[:8] + struct.pack("<I", crc32c(block[12:], crc32c(block[:8]))) + block[12:]


def decoded(decode: Callable[[bytes], tuple[Any, ...]], block: bytes) -> tuple[Any, ...] | CorruptionError:
    try:
        return decode(block)
    except CorruptionError as error:
        return error


def check_hostile(block: bytes) -> bool:
    """Any bytes either are a block, and then what the encoder writes for its points, or raise CorruptionError. Returns which.

    The reference agrees; it is asked only about blocks that it decodes in bearable time.
    """
    accepted = False
    small = int.from_bytes(block[4:8], "little") <= 10_000
    for decode, encode, plain in [
        (decode_values, encode_values, reference.decode_values),
        (decode_times, encode_times, reference.decode_times),
    ]:
        columns = decoded(decode, block)
        if isinstance(columns, CorruptionError):
            assert columns.offset is not None
            assert 0 <= columns.offset <= len(block)
            if small:
                with pytest.raises(ValueError):
                    plain(block)
        else:
            accepted = True
            assert encode(*columns[1:]) == block
            if small:
                plain(block)
    return accepted


SAMPLES: dict[str, bytes] = {
    "one": encode_values(np.array([5]), np.array([0.1])),
    "regular, float32": encode_values(np.arange(9), np.arange(9) / 4),
    "steps of 1 byte": encode_values(np.arange(9) ** 2, np.zeros(9)),
    "steps of 2 bytes": encode_values(np.arange(9) ** 4, np.arange(9) / 10),
    "steps of 4 bytes": encode_values(np.arange(9) ** 7, np.arange(9) / 10),
    "steps of 8 bytes": encode_values(np.array([I64_MIN, 0, 1, I64_MAX]), np.array([0.0, -0.0, np.nan, np.inf])),
    "one time": encode_times(np.array([5]), np.array([5], np.uint64), np.array([1], np.uint64), b"\1", np.array([np.nan])),
    "times of each kind": encode_times(
        np.arange(12) ** 3,
        np.arange(12, dtype=np.uint64) ** 3 + np.arange(12, dtype=np.uint64) % 2,
        np.arange(12, dtype=np.uint64) % 3,
        np.arange(12) % 3 == 0,
        np.arange(12) // 4 * 1.0,
    ),
    "times with epochs": encode_times(
        np.arange(3) ** 20, np.arange(3, dtype=np.uint64) + 2**60, np.arange(3, dtype=np.uint64), b"\0\1\0", np.array([0.5, np.nan, 1.0])
    ),
    "orders of their own": encode_times(
        np.arange(9) ** 9, np.arange(9, dtype=np.uint64) ** 2 + 2**50, np.zeros(9, np.uint64), bytes(9), np.zeros(9)
    ),
    "regular orders of their own": encode_times(
        np.arange(9) ** 9, np.arange(9, dtype=np.uint64) + 2**50, np.zeros(9, np.uint64), bytes(9), np.zeros(9)
    ),
    "300 writers": encode_times(
        np.arange(300), np.arange(300, dtype=np.uint64), np.arange(300, dtype=np.uint64), bytes(300), np.arange(300) // 3 * 0.5
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_flipped_bit_is_detected(name: str) -> None:
    block = SAMPLES[name]
    assert check_hostile(block)
    for at in range(len(block)):
        for bit in range(8):
            flipped = block[:at] + bytes([block[at] ^ 1 << bit]) + block[at + 1 :]
            for decode in (decode_values, decode_times):
                with pytest.raises(CorruptionError):
                    decode(flipped)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_cut(name: str) -> None:
    block = SAMPLES[name]
    for end in range(len(block)):
        assert not check_hostile(block[:end])
        assert not check_hostile(resealed(block[:end]))
    assert not check_hostile(resealed(block + b"\0"))
    assert not check_hostile(resealed(block + block))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "300 writers"])
def test_every_changed_byte_under_a_good_crc(name: str) -> None:
    block = SAMPLES[name]
    for at in range(len(block)):
        for byte in {0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xFF, block[at] ^ 1, block[at] ^ 0x80, (block[at] + 1) & 0xFF}:
            check_hostile(resealed(block[:at] + bytes([byte]) + block[at + 1 :]))


def sealed(kind: int, modes: tuple[int, int], count: int, body: bytes) -> bytes:
    return resealed(struct.pack("<BBBBII", 1, kind, *modes, count, 0) + body)


def body(form: str, *numbers: float) -> bytes:
    return struct.pack("<" + form, *numbers)


@pytest.mark.parametrize(
    "block",
    [
        sealed(0x56, (0, 0), 0, body("qqd", 0, 1, 1.0)),
        sealed(0x56, (0, 0), 2**20 + 1, body("qqd", 0, 1, 1.0)),
        sealed(0x56, (0, 0), 2**32 - 1, body("qqd", 0, 1, 1.0)),
        sealed(0x56, (0, 0), 1, body("qqd", 0, 1, 1.0)),  # a stride, but one point
        sealed(0x56, (0, 0), 2, body("qqd", 1, -1, 1.0)),  # descends
        sealed(0x56, (0, 0), 3, body("qqd", 0, 2**62, 1.0)),  # wraps
        sealed(0x56, (1, 0), 1, body("qqd", 0, 0, 1.0)),
        sealed(0x56, (1, 0), 2, body("qqd", 0, 1, 1.0)),
        sealed(0x56, (1, 0), 3, body("qqBd", 0, 5, 0, 1.0)),  # regular, but not in mode 0
        sealed(0x56, (1, 0), 3, body("qqBd", 0, 5, 13, 1.0)),  # 5, then -2
        sealed(0x56, (2, 0), 3, body("qqHd", 0, 5, 255, 1.0)),  # fits in width 1
        sealed(0x56, (4, 0), 3, body("qqId", 0, 5, 65535, 1.0)),
        sealed(0x56, (8, 0), 3, body("qqQd", 0, 5, 2**32 - 1, 1.0)),
        sealed(0x56, (3, 0), 3, body("qq3Bd", 0, 5, 1, 1, 1, 1.0)),
        sealed(0x56, (8, 8), 2**20, b""),
        sealed(0x56, (0, 1), 2, body("qqH", 0, 1, 1)),
        sealed(0x56, (0, 4), 1, body("qqf", 0, 0, 1.0)),  # all the same
        sealed(0x56, (0, 8), 1, body("qqd", 0, 0, 0.1)),
        sealed(0x56, (0, 4), 2, body("qq", 0, 1) + reference.column([0, 0x7F800001], 4)),  # signalling
        sealed(0x56, (0, 4), 2, body("qq", 0, 1) + reference.column([0, 0xFFBFFFFF], 4)),
        sealed(0x56, (0, 8), 2, body("qq", 0, 1) + reference.column([0, 0x3FF0 << 48], 8)),  # fits in 32 bits
        sealed(0x54, (0, 0), 1, body("BBBBqqQ", 0, 0, 0, 1, 0, 0, 7)),
        sealed(0x54, (0, 0), 1, body("BBBBqqQ", 0, 0, 0, 0, 0, 1, 7)),
        sealed(0x54, (0, 0), 1, body("BBBBqqQ", 3, 0, 0, 0, 0, 0, 7)),
        sealed(0x54, (0, 0), 1, body("BBBBqqQ", 0, 3, 0, 0, 0, 0, 7)),
        sealed(0x54, (0, 0), 1, body("BBBBqqQ", 0, 0, 2, 0, 0, 0, 7)),
        sealed(0x54, (1, 0), 1, body("BBBBqQ", 0, 0, 0, 0, 0, 7)),
        sealed(0x54, (1, 0), 2, body("BBBBqBQ", 0, 0, 0, 0, 0, 2, 7)),
        sealed(0x54, (1, 0), 3, body("BBBBqBBQ", 0, 0, 0, 0, 0, 2, 2, 7)),  # regular
        sealed(0x54, (0, 1), 1, body("BBBBqqBQ", 0, 0, 0, 0, 0, 0, 0, 7)),
        sealed(0x54, (0, 2), 1, body("BBBBqqHQ", 0, 0, 0, 0, 0, 0, 9, 7)),
        sealed(0x54, (0, 0), 2, body("BBBBqqHQBB", 1, 0, 0, 0, 0, 0, 1, 7, 0, 0)),  # one writer
        sealed(0x54, (0, 0), 2, body("BBBBqqHQQBB", 1, 0, 0, 0, 0, 0, 2, 9, 7, 0, 1)),
        sealed(0x54, (0, 0), 2, body("BBBBqqHQQBB", 1, 0, 0, 0, 0, 0, 2, 7, 7, 0, 1)),
        sealed(0x54, (0, 0), 2, body("BBBBqqHQQBB", 1, 0, 0, 0, 0, 0, 2, 7, 9, 0, 2)),
        sealed(0x54, (0, 0), 2, body("BBBBqqHQQBB", 1, 0, 0, 0, 0, 0, 2, 7, 9, 1, 1)),  # 7 has no point
        sealed(0x54, (0, 0), 2, body("BBBBqqHQQHH", 2, 0, 0, 0, 0, 0, 2, 7, 9, 0, 1)),
        sealed(0x54, (0, 0), 2, body("BBBBqqH", 2, 0, 0, 0, 0, 0, 65535)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQB", 0, 2, 0, 0, 0, 0, 7, 0)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQB", 0, 2, 0, 0, 0, 0, 7, 3)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQB", 0, 2, 0, 0, 0, 0, 7, 5)),  # an unused bit
        sealed(0x54, (0, 0), 9, body("BBBBqqQBB", 0, 2, 0, 0, 0, 0, 7, 255, 1)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQI", 0, 0, 1, 0, 0, 0, 7, 0)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQI", 0, 0, 1, 0, 0, 0, 7, 2**32 - 1)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQIId", 0, 0, 1, 0, 0, 0, 7, 1, 1, 0.5)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQIId", 0, 0, 1, 0, 0, 0, 7, 1, 3, 0.5)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQIIQ", 0, 0, 1, 0, 0, 0, 7, 1, 2, 0x7FF8 << 48)),  # absent: mode 0
        sealed(0x54, (0, 0), 4, body("BBBBqqQIIIdd", 0, 0, 1, 0, 0, 0, 7, 2, 0, 4, 0.5, 1.0)),
        sealed(0x54, (0, 0), 4, body("BBBBqqQIIIdd", 0, 0, 1, 0, 0, 0, 7, 2, 2, 2, 0.5, 0.5)),
        sealed(0x54, (0, 0), 4, body("BBBBqqQIIIdQ", 0, 0, 1, 0, 0, 0, 7, 2, 2, 2, 0.5, 0xFFF8 << 48)),
        sealed(0x54, (0, 0), 3, body("BBBBqqQIIIdd", 0, 0, 1, 0, 0, 0, 7, 2, 1, 2, 0.5, 1.0)),  # 12 r = 8 count
        sealed(0x54, (0, 0), 1, body("BBBBqqQQ", 0, 0, 8, 0, 0, 0, 7, 0x7FF8 << 48)),
        sealed(0x54, (0, 0), 1, body("BBBBqqQQ", 0, 0, 8, 0, 0, 0, 7, 0xFFF8 << 48)),
        sealed(0x54, (0, 0), 2, body("BBBBqqQ", 0, 0, 8, 0, 0, 0, 7) + reference.column([5, 5], 8)),
        b"",
        b"\x01",
    ],
)  # fmt: skip
def test_what_the_encoders_never_write(block: bytes) -> None:
    for decode in (decode_values, decode_times):
        with pytest.raises(CorruptionError) as raised:
            decode(block)
        assert raised.value.offset is not None
        assert "CRC" not in raised.value.message
    with pytest.raises(CorruptionError):
        decode_values_into(block, np.zeros(2**20, np.int64), np.zeros(2**20), 0)
    check_hostile(block)


def test_a_length_is_checked_before_memory_is_taken() -> None:
    """Huge counts with nothing behind them, in every combination of modes."""
    for kind in (0x54, 0x56):
        for first in range(10):
            for second in range(10):
                for rest in (b"", bytes(40), b"\xff" * 40, bytes([2, 2, 1, 0]) + b"\x01" * 40):
                    check_hostile(sealed(kind, (first, second), 2**20, rest))


@given(st.binary(max_size=80), st.booleans())
def test_random_bytes(data: bytes, good_crc: bool) -> None:
    check_hostile(resealed(data) if good_crc else data)


modes = st.sampled_from([0, 1, 2, 4, 8, 16, 17, 18, 20, 24])


@given(st.sampled_from([0x54, 0x56]), modes, modes, st.integers(1, 9), st.binary(max_size=90))
def test_random_columns(kind: int, first: int, second: int, count: int, data: bytes) -> None:
    check_hostile(sealed(kind, (first, second), count, data))
    check_hostile(sealed(kind, (first, second), count, bytes(byte % 3 for byte in data[:4]) + data[4:]))


def mutations(block: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """n times the block with one to three changes: a bit, a byte, the length, the count."""
    for _ in range(n):
        out = bytearray(block)
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(out))
            kind = rng.randrange(6)
            if kind == 0:
                out.insert(at, rng.randrange(256))
            elif kind == 1:
                del out[at : at + rng.choice([1, 2, 4, 8])]
            elif kind == 2 and out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            elif kind == 3 and out:
                out[at % len(out)] = rng.choice([0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xF8, 0xFF, rng.randrange(256)])
            elif kind == 4 and len(out) > 17:
                out[rng.choice([2, 3, 4, 12, 13, 14])] = rng.choice([0, 1, 2, 3, 4, 8, 9, 16, 17, 18, 20, 24, 32])
            else:
                source = rng.randint(0, len(out))
                out[at:at] = out[source : source + rng.choice([1, 2, 4, 8])]
        yield bytes(out) if rng.random() < 0.02 else resealed(bytes(out))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(value_points(), time_points(), st.integers(0, 2**32))
def test_mutated_blocks(values: Values, times: Times, seed: int) -> None:
    rng = random.Random(seed)
    for block in (encode_values(*value_arrays(values)), encode_times(*time_arrays(times))):
        for mutated in mutations(block, rng, 10):
            check_hostile(mutated)


@pytest.mark.fuzz
def test_fuzz() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    end = time.monotonic() + float(os.environ.get("AIMLITE_FUZZ_SECONDS", "60"))
    tried = kept = 0
    pool = list(SAMPLES.values())
    while time.monotonic() < end:
        for block in mutations(rng.choice(pool), rng, 50):
            tried += 1
            if check_hostile(block):  # what still is a block is changed further
                kept += 1
                pool[rng.randrange(len(pool))] = block[:4000] if rng.random() < 0.9 else rng.choice(list(SAMPLES.values()))
    assert tried > 500
    assert kept > 10


# ---- CRC ----


def test_crc_vectors() -> None:
    """RFC 3720, B.4."""
    assert crc32c(b"") == 0
    assert crc32c(b"", 5) == 5
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


def test_crc_of_every_length_and_alignment() -> None:
    """Around the words and the stripes by which it advances."""
    data = random.Random(5).randbytes(5000)
    for n in [*range(70), 511, 512, 513, 1535, 1536, 1537, 3072, 3079, 4999]:
        expected = reference.crc32c(data[:n])
        assert crc32c(data[:n]) == expected
        for shift in (1, 3, 7):
            assert crc32c(memoryview(bytes(shift) + data)[shift : shift + n]) == expected


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_crc_continues(a: bytes, b: bytes) -> None:
    assert crc32c(b, crc32c(a)) == crc32c(a + b) == reference.crc32c(a + b)


def test_crc_continues_over_stripes() -> None:
    data = random.Random(6).randbytes(10_000)
    whole = crc32c(data)
    for cut in (0, 1, 8, 500, 1536, 1537, 4608, 9999):
        assert crc32c(data[cut:], crc32c(data[:cut])) == whole
