"""Blocks in plain Python ("Blocks" in docs/format.md). Columns are lists; floats stand for their 64 bits."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby, pairwise

MODULUS = 1 << 64
ABSENT = 0x7FF8 << 48


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def bits_of(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def float_of(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def signed(number: int) -> int:
    number %= MODULUS
    return number - MODULUS if number >> 63 else number


def zigzag(number: int) -> int:
    number = signed(number)
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(number: int) -> int:
    return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)


def width_of(numbers: Sequence[int]) -> int:
    largest = max(numbers)
    return next(width for width in (1, 2, 4, 8) if largest < 256**width)


def column(numbers: Sequence[int], width: int) -> bytes:
    return bytes(number >> 8 * k & 0xFF for k in range(width) for number in numbers)


def differences(numbers: Sequence[int]) -> list[int]:
    return [(b - a) % MODULUS for a, b in pairwise(numbers)]


def regular(numbers: Sequence[int]) -> bytes | None:
    """First and stride, or None where there is no stride."""
    strides = set(differences(numbers)) or {0}
    return struct.pack("<qq", numbers[0], signed(strides.pop())) if len(strides) == 1 else None


def is_nan(bits: int) -> bool:
    return bits & 0x7FFFFFFFFFFFFFFF > 0x7FF << 52


def as_float32(bits: int) -> int | None:
    """The 32 bits that widen to these 64, if there are any. A NaN is widened to a quiet one, its payload kept."""
    if is_nan(bits):
        fits = bits & 0x1FFFFFFF == 0 and bits >> 51 & 1
        return bits >> 63 << 31 | 0xFF << 23 | bits >> 29 & 0x7FFFFF if fits else None
    try:
        narrow = struct.pack("<f", float_of(bits))
    except OverflowError:
        return None
    return int.from_bytes(narrow, "little") if bits_of(struct.unpack("<f", narrow)[0]) == bits else None


def from_float32(bits: int) -> int:
    if bits & 0x7FFFFFFF > 0xFF << 23:
        return bits >> 31 << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
    return bits_of(struct.unpack("<f", bits.to_bytes(4, "little"))[0])


def block(kind: int, modes: tuple[int, int], count: int, body: bytes) -> bytes:
    head = struct.pack("<BBBBI", 1, kind, *modes, count)
    return head + struct.pack("<I", crc32c(head + body)) + body


# ---- encoding ----


def encode_steps(steps: Sequence[int]) -> tuple[int, bytes]:
    plain = regular(steps)
    if plain is not None:
        return 0, plain
    first = differences(steps)
    seconds = [zigzag(second) for second in differences(first)]
    width = width_of(seconds)
    return width, struct.pack("<qq", steps[0], signed(first[0])) + column(seconds, width)


def encode_numbers(values: Sequence[float]) -> tuple[int, bytes]:
    bits = [bits_of(value) for value in values]
    if len(set(bits)) == 1:
        return 0, bits[0].to_bytes(8, "little")
    narrow = [as_float32(value) for value in bits]
    if None not in narrow:
        return 4, column([value for value in narrow if value is not None], 4)
    return 8, column(bits, 8)


def encode_values(steps: Sequence[int], values: Sequence[float]) -> bytes:
    step_mode, step_bytes = encode_steps(steps)
    value_mode, value_bytes = encode_numbers(values)
    return block(0x56, (step_mode, value_mode), len(steps), step_bytes + value_bytes)


def encode_time_column(times: Sequence[int]) -> tuple[int, bytes]:
    plain = regular(times)
    if plain is not None:
        return 0, plain
    numbers = [zigzag(difference) for difference in differences(times)]
    width = width_of(numbers)
    return width, struct.pack("<q", times[0]) + column(numbers, width)


def encode_orders(orders: Sequence[int], times: Sequence[int]) -> tuple[int, bytes]:
    numbers = [zigzag(order - time) for order, time in zip(orders, times, strict=True)]
    if not any(numbers):
        return 0, b""
    width = width_of(numbers)
    own, own_bytes = encode_time_column([signed(order) for order in orders])
    if own < width:
        return 16 | own, own_bytes
    return width, column(numbers, width)


def encode_writers(writers: Sequence[int]) -> tuple[int, bytes]:
    known = sorted(set(writers))
    if len(known) == 1:
        return 0, struct.pack("<Q", known[0])
    width = 1 if len(known) <= 256 else 2
    indices = column([known.index(writer) for writer in writers], width)
    return width, struct.pack(f"<H{len(known)}Q", len(known), *known) + indices


def encode_given(given: Sequence[int]) -> tuple[int, bytes]:
    if len(set(given)) == 1:
        return int(given[0]), b""
    bitmap = bytearray((len(given) + 7) // 8)
    for k, bit in enumerate(given):
        bitmap[k // 8] |= bit << k % 8
    return 2, bytes(bitmap)


def encode_epochs(epochs: Sequence[float]) -> tuple[int, bytes]:
    bits = [ABSENT if epoch != epoch else bits_of(epoch) for epoch in epochs]
    runs = [(epoch, len(list(run))) for epoch, run in groupby(bits)]
    if runs == [(ABSENT, len(bits))]:
        return 0, b""
    if 12 * len(runs) < 8 * len(bits):
        lengths = [length for _, length in runs]
        return 1, struct.pack(f"<{len(runs) + 1}I{len(runs)}Q", len(runs), *lengths, *(epoch for epoch, _ in runs))
    return 8, column(bits, 8)


def encode_times(
    times: Sequence[int], orders: Sequence[int], writers: Sequence[int], given: Sequence[int], epochs: Sequence[float]
) -> bytes:
    time_mode, time_bytes = encode_time_column(times)
    order_mode, order_bytes = encode_orders(orders, times)
    writer_mode, writer_bytes = encode_writers(writers)
    given_mode, given_bytes = encode_given(given)
    epoch_mode, epoch_bytes = encode_epochs(epochs)
    modes = bytes([writer_mode, given_mode, epoch_mode, 0])
    body = modes + time_bytes + order_bytes + writer_bytes + given_bytes + epoch_bytes
    return block(0x54, (time_mode, order_mode), len(times), body)


# ---- decoding: takes more than the encoder would write, then compares ----


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ValueError("cut short")
        self.at += n
        return self.data[self.at - n : self.at]

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def column(self, n: int, width: int) -> list[int]:
        if width not in (1, 2, 4, 8):
            raise ValueError("unknown width")
        data = self.take(width * n)
        return [sum(data[k * n + i] << 8 * k for k in range(width)) for i in range(n)]

    def head(self, kind: int) -> tuple[int, int, int]:
        version, what, first, second, count, _ = self.unpack("BBBBII")
        if (version, what) != (1, kind) or not 1 <= count <= 2**20:
            raise ValueError("not a block")
        return first, second, count


def sums(first: int, numbers: Sequence[int]) -> list[int]:
    out = [first]
    for number in numbers:
        out.append((out[-1] + number) % MODULUS)
    return out


def decode_steps(of: Reader, mode: int, n: int) -> list[int]:
    first, difference = of.unpack("qq")
    if mode == 0:
        steps = [first + k * difference for k in range(n)]
    elif n < 3:
        raise ValueError("mode 0 is always used for count < 3")
    else:
        steps = sums(first, sums(difference, [unzigzag(number) for number in of.column(n - 2, mode)]))
    steps = [signed(step) for step in steps]
    if steps != sorted(steps):
        raise ValueError("steps descend")
    return steps


def decode_numbers(of: Reader, mode: int, n: int) -> list[float]:
    if mode == 0:
        return [float_of(*of.unpack("Q"))] * n
    if mode == 4:
        return [float_of(from_float32(bits)) for bits in of.column(n, 4)]
    if mode == 8:
        return [float_of(bits) for bits in of.column(n, 8)]
    raise ValueError("unknown mode")


def decode_values(data: bytes) -> tuple[list[int], list[float]]:
    of = Reader(data)
    step_mode, value_mode, count = of.head(0x56)
    steps = decode_steps(of, step_mode, count)
    values = decode_numbers(of, value_mode, count)
    if encode_values(steps, values) != data:
        raise ValueError("not as encode_values writes it")
    return steps, values


def decode_time_column(of: Reader, mode: int, n: int) -> list[int]:
    first = of.unpack("q")[0]
    numbers = list(of.unpack("q")) * (n - 1) if mode == 0 else [unzigzag(number) for number in of.column(n - 1, mode)]
    return [signed(time) for time in sums(first, numbers)]


def decode_orders(of: Reader, mode: int, times: Sequence[int]) -> list[int]:
    if mode & 16:
        return [order % MODULUS for order in decode_time_column(of, mode & 15, len(times))]
    numbers = [unzigzag(number) for number in of.column(len(times), mode)] if mode else [0] * len(times)
    return [(time + number) % MODULUS for time, number in zip(times, numbers, strict=True)]


def decode_writers(of: Reader, mode: int, n: int) -> list[int]:
    if mode == 0:
        return list(of.unpack("Q")) * n
    known = of.unpack(f"{of.unpack('H')[0]}Q")
    indices = of.column(n, mode)
    if max(indices) >= len(known):
        raise ValueError("an unknown writer")
    return [known[index] for index in indices]


def decode_given(of: Reader, mode: int, n: int) -> list[int]:
    if mode in (0, 1):
        return [mode] * n
    if mode != 2:
        raise ValueError("unknown mode")
    bitmap = of.take((n + 7) // 8)
    return [bitmap[k // 8] >> k % 8 & 1 for k in range(n)]


def decode_epochs(of: Reader, mode: int, n: int) -> list[float]:
    if mode == 0:
        return [float_of(ABSENT)] * n
    if mode == 8:
        return [float_of(bits) for bits in of.column(n, 8)]
    if mode != 1:
        raise ValueError("unknown mode")
    runs = of.unpack("I")[0]
    lengths, epochs = of.unpack(f"{runs}I"), of.unpack(f"{runs}Q")
    if sum(lengths) != n:
        raise ValueError("runs do not add up")
    return [float_of(epoch) for length, epoch in zip(lengths, epochs, strict=True) for _ in range(length)]


def decode_times(data: bytes) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    of = Reader(data)
    time_mode, order_mode, count = of.head(0x54)
    writer_mode, given_mode, epoch_mode, _ = of.take(4)
    times = decode_time_column(of, time_mode, count)
    orders = decode_orders(of, order_mode, times)
    writers = decode_writers(of, writer_mode, count)
    given = decode_given(of, given_mode, count)
    epochs = decode_epochs(of, epoch_mode, count)
    if encode_times(times, orders, writers, given, epochs) != data:
        raise ValueError("not as encode_times writes it")
    return times, orders, writers, given, epochs
