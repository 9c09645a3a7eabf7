"""Blocks: the points of one sequence as columns, in two values ("Blocks" in docs/format.md).

The same points always give the same bytes, and a decoder accepts only what the encoder writes: it checks every length before it
allocates, and anything else it meets is a CorruptionError.

Columns come in as C-contiguous buffers of one dimension, of their type (numpy array, array.array, memoryview) or of raw bytes, aligned
to 8 bytes. They go out as bytearrays, to be wrapped by numpy.frombuffer.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strchr

from aimlite.errors import CorruptionError

cdef extern from "crc32c.h":
    uint32_t aimlite_crc32c(uint32_t crc, const void *data, size_t n)

cdef extern from *:
    """
    typedef uint8_t *restrict aimlite_target;       // restrict: the two never overlap, hence the loops can be vectorised
    typedef const uint8_t *restrict aimlite_source;
    """
    ctypedef uint8_t *target_t "aimlite_target"
    ctypedef const uint8_t *source_t "aimlite_source"

cdef enum:
    VERSION = 1
    VALUES = 0x56
    TIMES = 0x54
    CRC_AT = 8
    HEAD_BYTES = 12
    MAX_COUNT = 1 << 20
    MAX_WRITERS = 65535
    OWN_ORDERS = 16
    PART = 1024  # points converted at a time, so that they stay in the nearest cache

cdef uint64_t LARGEST_STEP = (<uint64_t> 1 << 63) - 1
cdef uint64_t ABSENT = <uint64_t> 0x7ff8 << 48  # the one NaN that stands for an absent epoch


# ---- buffers ----

cdef struct Column:
    Py_buffer view
    Py_ssize_t n


cdef inline void clear(Column *column) noexcept:
    """A column that holds no buffer: PyBuffer_Release does nothing to it."""
    memset(&column.view, 0, sizeof(column.view))


cdef int acquire(Column *column, object source, str name, const char *kinds, Py_ssize_t size, int flags) except -1:
    """Take source's buffer as numbers of that size; kinds are the struct codes allowed. Undo by PyBuffer_Release, also after an error."""
    cdef const char *kind = "B"
    PyObject_GetBuffer(source, &column.view, PyBUF_ND | PyBUF_FORMAT | flags)
    if column.view.format is not NULL:
        kind = column.view.format
    if kind[0] and strchr("@=<", kind[0]):
        kind += 1
    if column.view.ndim != 1 or kind[0] == 0 or kind[1] != 0:
        raise TypeError(f"{name}: not a buffer of one dimension of numbers")
    if not (column.view.itemsize == size and strchr(kinds, kind[0]) or column.view.itemsize == 1 and strchr("Bbc", kind[0])):
        raise TypeError(f"{name}: a buffer of items {kind.decode()!r} of {column.view.itemsize} bytes")
    if column.view.len % size:
        raise ValueError(f"{name}: {column.view.len} bytes are not a multiple of {size}")
    if <size_t> column.view.buf % <size_t> size:
        raise ValueError(f"{name}: the buffer is not aligned to {size} bytes")
    column.n = column.view.len // size
    return 0


cdef int check_count(Py_ssize_t n) except -1:
    if not 1 <= n <= MAX_COUNT:
        raise ValueError(f"a block holds 1 to {MAX_COUNT} points, not {n}")
    return 0


cdef int check_length(str name, Py_ssize_t n, Py_ssize_t expected) except -1:
    if n != expected:
        raise ValueError(f"{name}: {n} of them, but {expected} in the first column")
    return 0


cdef inline uint64_t *words(bytearray array):
    return <uint64_t *> PyByteArray_AS_STRING(array)


cdef inline bytearray new_words(Py_ssize_t n):
    """Room for n numbers of 64 bits."""
    return PyByteArray_FromStringAndSize(NULL, 8 * n)


cdef inline uint8_t *bytes_of(bytes block):
    return <uint8_t *> PyBytes_AS_STRING(block)


# ---- numbers and columns of numbers ----

cdef inline uint16_t load16(const uint8_t *at) noexcept:
    cdef uint16_t number
    memcpy(&number, at, 2)
    return number


cdef inline uint32_t load32(const uint8_t *at) noexcept:
    cdef uint32_t number
    memcpy(&number, at, 4)
    return number


cdef inline uint64_t load64(const uint8_t *at) noexcept:
    cdef uint64_t number
    memcpy(&number, at, 8)
    return number


cdef inline void store64(uint8_t *at, uint64_t number) noexcept:
    memcpy(at, &number, 8)


cdef inline uint64_t zigzag(uint64_t number) noexcept:
    return number << 1 ^ (<uint64_t> 0 - (number >> 63))


cdef inline uint64_t unzigzag(uint64_t number) noexcept:
    return number >> 1 ^ (<uint64_t> 0 - (number & 1))


cdef inline int width_of(uint64_t bits) noexcept:
    """The smallest width for numbers whose OR is bits; 0 if all of them are 0."""
    if bits >> 32:
        return 8
    if bits >> 16:
        return 4
    if bits >> 8:
        return 2
    return 1 if bits else 0


cdef uint64_t or_of(const uint64_t *numbers, Py_ssize_t n) noexcept:
    cdef uint64_t bits = 0
    cdef Py_ssize_t i
    for i in range(n):
        bits |= numbers[i]
    return bits


cdef bint all_equal(const uint64_t *numbers, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(1, n):
        if numbers[i] != numbers[0]:
            return False
    return True


cdef void split4(target_t column, source_t numbers, Py_ssize_t n, Py_ssize_t plane) noexcept:
    """n numbers of 4 bytes to 4 planes that lie `plane` bytes apart. Compilers know these four loops and use byte shuffles for them."""
    cdef Py_ssize_t i
    for i in range(n):
        column[i] = numbers[4 * i]
        column[plane + i] = numbers[4 * i + 1]
        column[2 * plane + i] = numbers[4 * i + 2]
        column[3 * plane + i] = numbers[4 * i + 3]


cdef void join4(target_t numbers, source_t column, Py_ssize_t n, Py_ssize_t plane) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        numbers[4 * i] = column[i]
        numbers[4 * i + 1] = column[plane + i]
        numbers[4 * i + 2] = column[2 * plane + i]
        numbers[4 * i + 3] = column[3 * plane + i]


cdef void split8(target_t column, source_t numbers, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        column[i] = numbers[8 * i]
        column[n + i] = numbers[8 * i + 1]
        column[2 * n + i] = numbers[8 * i + 2]
        column[3 * n + i] = numbers[8 * i + 3]
        column[4 * n + i] = numbers[8 * i + 4]
        column[5 * n + i] = numbers[8 * i + 5]
        column[6 * n + i] = numbers[8 * i + 6]
        column[7 * n + i] = numbers[8 * i + 7]


cdef void join8(target_t numbers, source_t column, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        numbers[8 * i] = column[i]
        numbers[8 * i + 1] = column[n + i]
        numbers[8 * i + 2] = column[2 * n + i]
        numbers[8 * i + 3] = column[3 * n + i]
        numbers[8 * i + 4] = column[4 * n + i]
        numbers[8 * i + 5] = column[5 * n + i]
        numbers[8 * i + 6] = column[6 * n + i]
        numbers[8 * i + 7] = column[7 * n + i]


cdef void encode_column(uint8_t *column, const uint64_t *numbers, Py_ssize_t n, int width) noexcept:
    cdef Py_ssize_t i
    cdef int k
    if width == 8:
        split8(column, <const uint8_t *> numbers, n)
        return
    for k in range(width):
        for i in range(n):
            column[k * n + i] = <uint8_t> (numbers[i] >> (8 * k))


cdef void decode_column(uint64_t *numbers, const uint8_t *column, Py_ssize_t n, int width) noexcept:
    cdef Py_ssize_t i
    if width == 8:
        join8(<uint8_t *> numbers, column, n)
    elif width == 4:
        for i in range(n):
            numbers[i] = (
                column[i] | <uint32_t> column[n + i] << 8 | <uint32_t> column[2 * n + i] << 16 | <uint32_t> column[3 * n + i] << 24
            )
    elif width == 2:
        for i in range(n):
            numbers[i] = column[i] | <uint32_t> column[n + i] << 8
    else:
        for i in range(n):
            numbers[i] = column[i]


# ---- the cursor ----

cdef struct Cursor:
    const uint8_t *data
    Py_ssize_t at
    Py_ssize_t size


cdef int corrupt(str message, Py_ssize_t offset) except -1:
    raise CorruptionError(message, None, offset)


cdef const uint8_t *take(Cursor *of, Py_ssize_t n) except NULL:
    """The next n bytes. n is at most 8 × MAX_COUNT, so the sum cannot overflow."""
    if n > of.size - of.at:
        corrupt("the block is cut short", of.size)
    of.at += n
    return of.data + of.at - n


cdef int take_end(Cursor *of) except -1:
    if of.at != of.size:
        corrupt("the block has bytes left over", of.at)
    return 0


cdef const uint8_t *take_column(Cursor *of, Py_ssize_t n, int width) except NULL:
    """A column of zigzag numbers, which has the smallest width: some number needs the upper half of its bytes."""
    cdef Py_ssize_t start = of.at
    cdef const uint8_t *column
    cdef Py_ssize_t i
    if width not in (1, 2, 4, 8):
        corrupt(f"the block has a column in mode {width}", start)
    column = take(of, width * n)
    for i in range(width // 2 * n, width * n):
        if column[i]:
            return column
    corrupt("a column is wider than it has to be", start)
    return NULL


# ---- the head ----

cdef struct Head:
    int first_mode
    int second_mode
    Py_ssize_t count


cdef bytes encode_block(int kind, int first_mode, int second_mode, Py_ssize_t count, list columns):
    """The head, then the columns."""
    cdef bytes block = b"".join([bytes(HEAD_BYTES), *columns])
    cdef uint8_t *head = bytes_of(block)  # nobody else has seen these bytes yet
    cdef uint32_t number = <uint32_t> count
    head[0], head[1], head[2], head[3] = VERSION, <uint8_t> kind, <uint8_t> first_mode, <uint8_t> second_mode
    memcpy(head + 4, &number, 4)
    number = block_crc(head, PyBytes_GET_SIZE(block))
    memcpy(head + CRC_AT, &number, 4)
    return block


cdef uint32_t block_crc(const uint8_t *block, Py_ssize_t size) noexcept:
    return aimlite_crc32c(aimlite_crc32c(0, block, CRC_AT), block + HEAD_BYTES, size - HEAD_BYTES)


cdef int decode_head(Cursor *of, Head *head, int kind) except -1:
    cdef const uint8_t *at = take(of, HEAD_BYTES)
    if at[0] != VERSION or at[1] != kind:
        corrupt(f"a block begins with {VERSION:02x} {kind:02x}, not {at[0]:02x} {at[1]:02x}", 0)
    if load32(at + CRC_AT) != block_crc(of.data, of.size):
        corrupt("the block fails its CRC", CRC_AT)
    head.first_mode, head.second_mode, head.count = at[2], at[3], load32(at + 4)
    if not 1 <= head.count <= MAX_COUNT:
        corrupt(f"a block of {head.count} points", 4)
    return 0


# ---- steps ----

cdef tuple encode_steps(const uint64_t *steps, Py_ssize_t n):
    """(mode, bytes)."""
    cdef bytearray scratch
    cdef uint64_t *seconds = NULL
    cdef uint64_t descends = 0
    cdef bytes out
    cdef Py_ssize_t i
    cdef int width = 0
    for i in range(1, n):
        descends |= <int64_t> steps[i] < <int64_t> steps[i - 1]
    if descends:
        raise ValueError("the steps of a block ascend")
    if n > 2:
        scratch = new_words(n - 2)
        seconds = words(scratch)
        for i in range(n - 2):
            seconds[i] = zigzag((steps[i + 2] - steps[i + 1]) - (steps[i + 1] - steps[i]))
        width = width_of(or_of(seconds, n - 2))
    out = PyBytes_FromStringAndSize(NULL, 16 + width * (n - 2 if width else 0))
    store64(bytes_of(out), steps[0])
    store64(bytes_of(out) + 8, steps[1] - steps[0] if n > 1 else 0)
    if width:
        encode_column(bytes_of(out) + 16, seconds, n - 2, width)
    return width, out


cdef int decode_steps(const uint8_t *column, int mode, Py_ssize_t n, uint64_t *steps) except -1:
    cdef uint64_t step = load64(column)
    cdef uint64_t difference = load64(column + 8)
    cdef uint64_t after, descends
    cdef Py_ssize_t i
    if mode == 0:
        if difference > ((LARGEST_STEP - step) // <uint64_t> (n - 1) if n > 1 else 0):
            corrupt("the steps of the block do not ascend", HEAD_BYTES)
        for i in range(n):
            steps[i] = step
            step += difference
        return 0
    decode_column(steps + 2, column + 16, n - 2, mode)
    steps[0], steps[1] = step, step + difference
    descends = <int64_t> steps[1] < <int64_t> step
    step += difference
    for i in range(2, n):
        difference += unzigzag(steps[i])
        after = step + difference
        descends |= <int64_t> after < <int64_t> step
        steps[i] = step = after
    if descends:
        corrupt("the steps of the block do not ascend", HEAD_BYTES)
    return 0


# ---- values: always moved as bits, so that NaNs come back as they were ----

cdef inline float narrowed(const uint64_t *value) noexcept:
    cdef double number
    memcpy(&number, value, 8)
    return <float> number


cdef inline uint64_t widened(float value) noexcept:
    cdef double number = value
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    return bits


cdef bint fit_float32(const uint64_t *values, Py_ssize_t n) noexcept:
    """Whether every value comes back bit for bit from 32 bits."""
    cdef uint64_t lost = 0
    cdef Py_ssize_t i, start
    for start in range(0, n, PART):
        for i in range(start, min(start + PART, n)):
            lost |= widened(narrowed(values + i)) ^ values[i]
        if lost:
            return False
    return True


cdef bint hold_signalling_nan(const uint8_t *column, Py_ssize_t n) noexcept:
    """Whether a float32 column holds a NaN that widening would change; the plane of the highest bytes rules it out at once as a rule."""
    cdef const uint8_t *high = column + 3 * n
    cdef uint8_t suspect = 0
    cdef Py_ssize_t i
    for i in range(n):
        suspect |= (high[i] & 0x7f) == 0x7f
    if suspect:
        for i in range(n):
            if high[i] & 0x7f == 0x7f and column[2 * n + i] & 0xc0 == 0x80 and (
                column[2 * n + i] & 0x3f or column[n + i] or column[i]
            ):
                return True
    return False


cdef void encode_float32(uint8_t *column, const uint64_t *values, Py_ssize_t n) noexcept:
    cdef float part[PART]
    cdef Py_ssize_t i, start, size
    for start in range(0, n, PART):
        size = min(PART, n - start)
        for i in range(size):
            part[i] = narrowed(values + start + i)
        split4(column + start, <const uint8_t *> part, size, n)


cdef void decode_float32(uint64_t *values, const uint8_t *column, Py_ssize_t n) noexcept:
    cdef float part[PART]
    cdef Py_ssize_t i, start, size
    for start in range(0, n, PART):
        size = min(PART, n - start)
        join4(<uint8_t *> part, column + start, size, n)
        for i in range(size):
            values[start + i] = widened(part[i])


cdef tuple encode_numbers(const uint64_t *values, Py_ssize_t n):
    """(mode, bytes)."""
    cdef int mode = 0 if all_equal(values, n) else 4 if fit_float32(values, n) else 8
    cdef bytes out = PyBytes_FromStringAndSize(NULL, mode * n if mode else 8)
    if mode == 0:
        store64(bytes_of(out), values[0])
    elif mode == 4:
        encode_float32(bytes_of(out), values, n)
    else:
        encode_column(bytes_of(out), values, n, 8)
    return mode, out


cdef int decode_numbers(const uint8_t *column, int mode, Py_ssize_t n, uint64_t *values, Py_ssize_t offset) except -1:
    cdef Py_ssize_t i
    cdef uint64_t value
    if mode == 0:
        value = load64(column)
        for i in range(n):
            values[i] = value
        return 0
    if mode == 4:
        decode_float32(values, column, n)
        if hold_signalling_nan(column, n):
            corrupt("a value is a signalling NaN of 32 bits", offset)
    else:
        decode_column(values, column, n, 8)
        if fit_float32(values, n):
            corrupt("the values of the block fit in 32 bits", offset)
    if all_equal(values, n):
        corrupt("the values of the block are all the same", offset)
    return 0


cdef struct ValueColumns:
    Head head
    Py_ssize_t steps_at
    Py_ssize_t values_at
    const uint8_t *steps
    const uint8_t *values


cdef int find_values(Cursor *of, ValueColumns *columns) except -1:
    """Where the columns lie, after every check that needs no decoding."""
    cdef Head *head = &columns.head
    decode_head(of, head, VALUES)
    columns.steps_at = of.at
    columns.steps = take(of, 16)
    if head.first_mode:
        if head.count < 3:
            corrupt(f"the steps of {head.count} points are in mode {head.first_mode}", columns.steps_at)
        take_column(of, head.count - 2, head.first_mode)
    if head.second_mode not in (0, 4, 8):
        corrupt(f"the values of the block are in mode {head.second_mode}", 3)
    columns.values_at = of.at
    columns.values = take(of, head.second_mode * head.count if head.second_mode else 8)
    return take_end(of)


cdef int decode_value_columns(ValueColumns *columns, uint64_t *steps, uint64_t *values) except -1:
    cdef Head *head = &columns.head
    decode_steps(columns.steps, head.first_mode, head.count, steps)
    return decode_numbers(columns.values, head.second_mode, head.count, values, columns.values_at)


def encode_values(steps, values):
    """The value columns of a block: int64[n] ascending and float64[n], 1 <= n <= 2**20. Raises ValueError for anything else."""
    cdef Column step_column, value_column
    clear(&step_column)
    clear(&value_column)
    try:
        acquire(&step_column, steps, "steps", "qln", 8, 0)
        acquire(&value_column, values, "values", "d", 8, 0)
        check_count(step_column.n)
        check_length("values", value_column.n, step_column.n)
        step_mode, step_bytes = encode_steps(<const uint64_t *> step_column.view.buf, step_column.n)
        value_mode, value_bytes = encode_numbers(<const uint64_t *> value_column.view.buf, step_column.n)
        return encode_block(VALUES, step_mode, value_mode, step_column.n, [step_bytes, value_bytes])
    finally:
        PyBuffer_Release(&step_column.view)
        PyBuffer_Release(&value_column.view)


def decode_values(data):
    """Returns: (n, steps, values): int64[n] ascending and float64[n]. Raises CorruptionError for all that encode_values would not write."""
    cdef Column block
    cdef Cursor of
    cdef ValueColumns columns
    cdef bytearray steps, values
    clear(&block)
    try:
        PyObject_GetBuffer(data, &block.view, PyBUF_SIMPLE)
        of.data, of.at, of.size = <const uint8_t *> block.view.buf, 0, block.view.len
        find_values(&of, &columns)
        steps = new_words(columns.head.count)
        values = new_words(columns.head.count)
        decode_value_columns(&columns, words(steps), words(values))
        return columns.head.count, steps, values
    finally:
        PyBuffer_Release(&block.view)


def decode_values_into(data, steps_out, values_out, Py_ssize_t start):
    """decode_values into two writable buffers, from index start on; returns n.

    Raises CorruptionError also when the points do not fit; what the buffers hold from start on is undefined then.
    """
    cdef Column block, step_column, value_column
    cdef Cursor of
    cdef ValueColumns columns
    clear(&block)
    clear(&step_column)
    clear(&value_column)
    if start < 0:
        raise ValueError(f"start is {start}")
    try:
        PyObject_GetBuffer(data, &block.view, PyBUF_SIMPLE)
        acquire(&step_column, steps_out, "steps_out", "qln", 8, PyBUF_WRITABLE)
        acquire(&value_column, values_out, "values_out", "d", 8, PyBUF_WRITABLE)
        of.data, of.at, of.size = <const uint8_t *> block.view.buf, 0, block.view.len
        find_values(&of, &columns)
        if columns.head.count > min(step_column.n, value_column.n) - start:
            corrupt(f"the {columns.head.count} points of the block do not fit where they should", 4)
        decode_value_columns(
            &columns, <uint64_t *> step_column.view.buf + start, <uint64_t *> value_column.view.buf + start
        )
        return columns.head.count
    finally:
        PyBuffer_Release(&block.view)
        PyBuffer_Release(&step_column.view)
        PyBuffer_Release(&value_column.view)


# ---- times ----

cdef tuple encode_time_column(const uint64_t *times, Py_ssize_t n):
    """(mode, bytes)."""
    cdef bytearray scratch = new_words(n)
    cdef uint64_t *differences = words(scratch)
    cdef bytes out
    cdef Py_ssize_t i
    cdef int width
    for i in range(n - 1):
        differences[i] = zigzag(times[i + 1] - times[i])
    width = 0 if all_equal(differences, n - 1) else width_of(or_of(differences, n - 1))
    out = PyBytes_FromStringAndSize(NULL, 8 + (width * (n - 1) if width else 8))
    store64(bytes_of(out), times[0])
    if width:
        encode_column(bytes_of(out) + 8, differences, n - 1, width)
    else:
        store64(bytes_of(out) + 8, times[1] - times[0] if n > 1 else 0)
    return width, out


cdef bytearray decode_time_column(Cursor *of, int mode, Py_ssize_t n):
    cdef Py_ssize_t start = of.at
    cdef uint64_t time = load64(take(of, 8))
    cdef uint64_t stride
    cdef const uint8_t *column
    cdef bytearray out
    cdef uint64_t *times
    cdef Py_ssize_t i
    if mode == 0:
        stride = load64(take(of, 8))
        if n == 1 and stride:
            corrupt("one time has a stride", start)
        out = new_words(n)
        times = words(out)
        for i in range(n):
            times[i] = time
            time += stride
        return out
    column = take_column(of, n - 1, mode)
    out = new_words(n)
    times = words(out)
    decode_column(times + 1, column, n - 1, mode)
    if all_equal(times + 1, n - 1):
        corrupt("the times of the block are regular", start)
    times[0] = time
    for i in range(1, n):
        time += unzigzag(times[i])
        times[i] = time
    return out


# ---- orders ----

cdef tuple encode_orders(const uint64_t *orders, const uint64_t *times, Py_ssize_t n):
    """(mode, bytes)."""
    cdef bytearray scratch = new_words(n)
    cdef uint64_t *differences = words(scratch)
    cdef bytes out
    cdef Py_ssize_t i
    cdef int width
    for i in range(n):
        differences[i] = zigzag(orders[i] - times[i])
    width = width_of(or_of(differences, n))
    if width:
        own, column = encode_time_column(orders, n)
        if own < width:  # times that the caller gave: orders do not follow them
            return OWN_ORDERS | own, column
    out = PyBytes_FromStringAndSize(NULL, width * n)
    encode_column(bytes_of(out), differences, n, width)
    return width, out


cdef bytearray decode_orders(Cursor *of, int mode, Py_ssize_t n, bytearray times):
    cdef const uint64_t *time = words(times)
    cdef const uint8_t *column
    cdef bytearray out
    cdef uint64_t *orders
    cdef Py_ssize_t i, start = of.at
    cdef uint64_t bits = 0
    if mode == 0:
        return bytearray(times)
    if mode & OWN_ORDERS:
        out = decode_time_column(of, mode & ~OWN_ORDERS, n)
        orders = words(out)
        for i in range(n):
            bits |= zigzag(orders[i] - time[i])
        if width_of(bits) <= mode & ~OWN_ORDERS:
            corrupt("the orders of the block follow its times", start)
        return out
    column = take_column(of, n, mode)
    out = new_words(n)
    orders = words(out)
    decode_column(orders, column, n, mode)
    for i in range(n):
        orders[i] = time[i] + unzigzag(orders[i])
    if encode_time_column(orders, n)[0] < mode:
        corrupt("the orders of the block have a shorter form", start)
    return out


# ---- writers ----

cdef tuple encode_writers(const uint64_t *writers, Py_ssize_t n):
    """(mode, bytes). Only changes of the writer are looked up: there are few."""
    cdef dict index_of
    cdef list known
    cdef bytearray scratch
    cdef uint64_t *indices
    cdef bytes out
    cdef Py_ssize_t i, table
    cdef int width
    if all_equal(writers, n):
        out = PyBytes_FromStringAndSize(NULL, 8)
        store64(bytes_of(out), writers[0])
        return 0, out
    known = sorted({writers[i] for i in range(n) if i == 0 or writers[i] != writers[i - 1]})
    if len(known) > MAX_WRITERS:
        raise ValueError(f"a block holds points of at most {MAX_WRITERS} writers, not {len(known)}")
    index_of = {writer: i for i, writer in enumerate(known)}
    scratch = new_words(n)
    indices = words(scratch)
    for i in range(n):
        indices[i] = indices[i - 1] if i and writers[i] == writers[i - 1] else index_of[writers[i]]
    width = 1 if len(known) <= 256 else 2
    table = 2 + 8 * len(known)
    out = PyBytes_FromStringAndSize(NULL, table + width * n)
    bytes_of(out)[0], bytes_of(out)[1] = <uint8_t> (len(known) & 0xff), <uint8_t> (len(known) >> 8)
    for i in range(len(known)):
        store64(bytes_of(out) + 2 + 8 * i, known[i])
    encode_column(bytes_of(out) + table, indices, n, width)
    return width, out


cdef bytearray decode_writers(Cursor *of, int mode, Py_ssize_t n):
    cdef Py_ssize_t start = of.at
    cdef Py_ssize_t i, known
    cdef const uint8_t *table
    cdef const uint8_t *column
    cdef bytearray out, used
    cdef uint64_t *writers
    cdef uint64_t one
    if mode == 0:
        one = load64(take(of, 8))
        out = new_words(n)
        writers = words(out)
        for i in range(n):
            writers[i] = one
        return out
    if mode not in (1, 2):
        corrupt(f"the writers of the block are in mode {mode}", start)
    known = load16(take(of, 2))
    if not 2 <= known <= n or (known > 256) != (mode == 2):
        corrupt(f"{known} writers of {n} points in mode {mode}", start)
    table = take(of, 8 * known)
    for i in range(1, known):
        if load64(table + 8 * i) <= load64(table + 8 * (i - 1)):
            corrupt("the writers of the block do not ascend", start)
    column = take(of, mode * n)
    out = new_words(n)
    writers = words(out)
    used = bytearray(known)
    decode_column(writers, column, n, mode)
    for i in range(n):
        if writers[i] >= <uint64_t> known:
            corrupt(f"a point has writer {writers[i]} of {known}", start)
        used[<Py_ssize_t> writers[i]] = 1
        writers[i] = load64(table + 8 * writers[i])
    if 0 in used:
        corrupt("a writer of the block has no point", start)
    return out


# ---- whether a step was given ----

cdef tuple encode_given(const uint8_t *given, Py_ssize_t n):
    """(mode, bytes)."""
    cdef bytearray bitmap = bytearray((n + 7) // 8)
    cdef uint8_t *bits = <uint8_t *> PyByteArray_AS_STRING(bitmap)
    cdef Py_ssize_t i, count = 0
    for i in range(n):
        if given[i] > 1:
            raise ValueError("given is 0 or 1 for each point")
        count += given[i]
        bits[i >> 3] |= <uint8_t> (given[i] << (i & 7))
    if count == 0 or count == n:
        return (1 if count else 0), b""
    return 2, bytes(bitmap)


cdef bytearray decode_given(Cursor *of, int mode, Py_ssize_t n):
    cdef Py_ssize_t start = of.at
    cdef bytearray out
    cdef uint8_t *given
    cdef const uint8_t *bits
    cdef Py_ssize_t i, count = 0
    if mode not in (0, 1, 2):
        corrupt(f"the given steps of the block are in mode {mode}", start)
    bits = take(of, (n + 7) // 8) if mode == 2 else NULL
    out = PyByteArray_FromStringAndSize(NULL, n)
    given = <uint8_t *> PyByteArray_AS_STRING(out)
    if mode != 2:
        memset(given, mode, n)
        return out
    for i in range(n):
        given[i] = bits[i >> 3] >> (i & 7) & 1
        count += given[i]
    if count == 0 or count == n or n & 7 and bits[n >> 3] >> (n & 7):
        corrupt("the bitmap of given steps is not as it is written", start)
    return out


# ---- epochs ----

cdef inline bint is_nan(uint64_t bits) noexcept:
    return (bits & (<uint64_t> -1 >> 1)) > <uint64_t> 0x7ff0 << 48


cdef Py_ssize_t count_runs(const uint64_t *numbers, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i, runs = 1
    for i in range(1, n):
        runs += numbers[i] != numbers[i - 1]
    return runs


cdef tuple encode_epochs(const uint64_t *given, Py_ssize_t n):
    """(mode, bytes). Every NaN is written as the one that means absent."""
    cdef bytearray scratch = new_words(n)
    cdef uint64_t *epochs = words(scratch)
    cdef Py_ssize_t i, runs
    cdef bytes out
    for i in range(n):
        epochs[i] = ABSENT if is_nan(given[i]) else given[i]
    runs = count_runs(epochs, n)
    if runs == 1 and epochs[0] == ABSENT:
        return 0, b""
    if 12 * runs < 8 * n:
        return 1, encode_runs(epochs, n, runs)
    out = PyBytes_FromStringAndSize(NULL, 8 * n)
    encode_column(bytes_of(out), epochs, n, 8)
    return 8, out


cdef bytes encode_runs(const uint64_t *epochs, Py_ssize_t n, Py_ssize_t runs):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 + 12 * runs)
    cdef uint8_t *length_at = bytes_of(out) + 4
    cdef uint8_t *epoch_at = length_at + 4 * runs
    cdef Py_ssize_t i, start = 0
    cdef uint32_t number = <uint32_t> runs
    memcpy(bytes_of(out), &number, 4)
    for i in range(1, n + 1):
        if i == n or epochs[i] != epochs[start]:
            number = <uint32_t> (i - start)
            memcpy(length_at, &number, 4)
            store64(epoch_at, epochs[start])
            length_at += 4
            epoch_at += 8
            start = i
    return out


cdef bytearray decode_runs(Cursor *of, Py_ssize_t n):
    cdef Py_ssize_t start = of.at
    cdef Py_ssize_t i, k, length, filled = 0
    cdef Py_ssize_t runs = load32(take(of, 4))
    cdef const uint8_t *lengths
    cdef const uint8_t *values
    cdef bytearray out
    cdef uint64_t *epochs
    cdef uint64_t epoch, last = 0
    if runs < 1 or 12 * runs >= 8 * n:
        corrupt(f"{runs} runs of epochs for {n} points", start)
    lengths = take(of, 4 * runs)
    values = take(of, 8 * runs)
    out = new_words(n)
    epochs = words(out)
    for k in range(runs):
        length = load32(lengths + 4 * k)
        epoch = load64(values + 8 * k)
        if not 1 <= length <= n - filled:
            corrupt("the runs of epochs do not add up to the points", start)
        if k and epoch == last or is_nan(epoch) and (epoch != ABSENT or runs == 1):
            corrupt("the runs of epochs are not as they are written", start)
        for i in range(filled, filled + length):
            epochs[i] = epoch
        filled += length
        last = epoch
    if filled != n:
        corrupt("the runs of epochs do not add up to the points", start)
    return out


cdef bytearray decode_epochs(Cursor *of, int mode, Py_ssize_t n):
    cdef Py_ssize_t start = of.at
    cdef const uint8_t *column
    cdef bytearray out
    cdef uint64_t *epochs
    cdef Py_ssize_t i
    if mode == 1:
        return decode_runs(of, n)
    if mode not in (0, 8):
        corrupt(f"the epochs of the block are in mode {mode}", start)
    column = take(of, 8 * n) if mode else NULL
    out = new_words(n)
    epochs = words(out)
    if mode == 0:
        for i in range(n):
            epochs[i] = ABSENT
        return out
    decode_column(epochs, column, n, 8)
    for i in range(n):
        if is_nan(epochs[i]) and (epochs[i] != ABSENT or n == 1):
            corrupt("an absent epoch is not as it is written", start)
    if 12 * count_runs(epochs, n) < 8 * n:
        corrupt("the epochs of the block are few enough for runs", start)
    return out


def encode_times(times, orders, writers, given, epochs):
    """The time columns of a block: int64, uint64, uint64, uint8 (0 or 1), float64 (NaN: absent), all [n], 1 <= n <= 2**20.

    Raises ValueError for anything else, and for more than 65,535 writers.
    """
    cdef Column[5] columns
    cdef Py_ssize_t n
    cdef int k
    for k in range(5):
        clear(&columns[k])
    try:
        acquire(&columns[0], times, "times", "qln", 8, 0)
        acquire(&columns[1], orders, "orders", "QLN", 8, 0)
        acquire(&columns[2], writers, "writers", "QLN", 8, 0)
        acquire(&columns[3], given, "given", "B?", 1, 0)
        acquire(&columns[4], epochs, "epochs", "d", 8, 0)
        n = columns[0].n
        check_count(n)
        for k, name in enumerate(("orders", "writers", "given", "epochs"), 1):
            check_length(name, columns[k].n, n)
        time_mode, time_bytes = encode_time_column(<const uint64_t *> columns[0].view.buf, n)
        order_mode, order_bytes = encode_orders(<const uint64_t *> columns[1].view.buf, <const uint64_t *> columns[0].view.buf, n)
        writer_mode, writer_bytes = encode_writers(<const uint64_t *> columns[2].view.buf, n)
        given_mode, given_bytes = encode_given(<const uint8_t *> columns[3].view.buf, n)
        epoch_mode, epoch_bytes = encode_epochs(<const uint64_t *> columns[4].view.buf, n)
        modes = bytes((writer_mode, given_mode, epoch_mode, 0))
        return encode_block(
            TIMES, time_mode, order_mode, n, [modes, time_bytes, order_bytes, writer_bytes, given_bytes, epoch_bytes]
        )
    finally:
        for k in range(5):
            PyBuffer_Release(&columns[k].view)


def decode_times(data):
    """Returns: (n, times, orders, writers, given, epochs), typed as for encode_times.

    Raises CorruptionError for all that encode_times would not write.
    """
    cdef Column block
    cdef Cursor of
    cdef Head head
    cdef const uint8_t *modes
    cdef bytearray times, orders, writers, given, epochs
    clear(&block)
    try:
        PyObject_GetBuffer(data, &block.view, PyBUF_SIMPLE)
        of.data, of.at, of.size = <const uint8_t *> block.view.buf, 0, block.view.len
        decode_head(&of, &head, TIMES)
        modes = take(&of, 4)
        if modes[3]:
            corrupt("the fourth mode is not 0", HEAD_BYTES + 3)
        times = decode_time_column(&of, head.first_mode, head.count)
        orders = decode_orders(&of, head.second_mode, head.count, times)
        writers = decode_writers(&of, modes[0], head.count)
        given = decode_given(&of, modes[1], head.count)
        epochs = decode_epochs(&of, modes[2], head.count)
        take_end(&of)
        return head.count, times, orders, writers, given, epochs
    finally:
        PyBuffer_Release(&block.view)


def crc32c(data, uint32_t crc=0):
    """The CRC-32C of data, continuing that of the bytes before it: crc32c(b, crc32c(a)) == crc32c(a + b)."""
    cdef Column block
    clear(&block)
    try:
        PyObject_GetBuffer(data, &block.view, PyBUF_SIMPLE)
        return aimlite_crc32c(crc, block.view.buf, block.view.len)
    finally:
        PyBuffer_Release(&block.view)
