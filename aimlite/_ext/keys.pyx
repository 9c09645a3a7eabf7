"""Key tuples: the FoundationDB tuple encoding, in which comparing bytes compares values ("Key tuples" in docs/format.md).

Each value has exactly one encoding: `pack(unpack(data)) == data` for all data that `unpack` accepts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from aimlite.errors import CorruptionError

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)
    object PyLong_FromUnsignedLongLong(unsigned long long value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

cdef enum:
    NONE = 0x00
    BYTES = 0x01
    STR = 0x02
    NESTED = 0x05
    BIG_NEGATIVE = 0x0b
    ZERO = 0x14
    BIG_POSITIVE = 0x1d
    FLOAT = 0x21
    FALSE = 0x26
    TRUE = 0x27
    MAP = 0x40
    ESCAPE = 0xff  # after a 00: the 00 is content, or a None inside a tuple or map

cdef enum:
    MAX_NESTING = 64  # containers inside one another; the tuple given to pack is not counted
    MAX_INT_BYTES = 255
    LOCAL_BYTES = 256  # keys up to this size are built on the C stack

cdef uint64_t SIGN = <uint64_t> 1 << 63


# ---- encoding ----

cdef struct Writer:
    unsigned char *data
    Py_ssize_t size
    Py_ssize_t capacity
    unsigned char *heap  # what to free: NULL while data is on the stack


cdef int reserve(Writer *to, Py_ssize_t extra) except -1:
    """Make room for extra bytes after to.size."""
    cdef Py_ssize_t capacity
    cdef unsigned char *heap
    if extra <= to.capacity - to.size:
        return 0
    if extra > (<Py_ssize_t> 1 << 62) - to.size:
        raise MemoryError
    capacity = max(2 * to.capacity, to.size + extra)
    heap = <unsigned char *> PyMem_Realloc(to.heap, capacity)
    if heap is NULL:
        raise MemoryError
    if to.heap is NULL:
        memcpy(heap, to.data, to.size)
    to.heap = to.data = heap
    to.capacity = capacity
    return 0


cdef inline int put_byte(Writer *to, unsigned char byte) except -1:
    reserve(to, 1)
    to.data[to.size] = byte
    to.size += 1
    return 0


cdef inline int put_big_endian(Writer *to, unsigned char code, uint64_t number, int n) except -1:
    """The code, then the n low bytes of number, highest first."""
    cdef int i
    reserve(to, 1 + n)
    to.data[to.size] = code
    for i in range(n):
        to.data[to.size + n - i] = <unsigned char> (number >> (8 * i))
    to.size += 1 + n
    return 0


cdef int encode_content(Writer *to, unsigned char code, const unsigned char *content, Py_ssize_t size) except -1:
    """bytes or UTF-8: the code, content with each 00 written as 00 ff, 00."""
    cdef const unsigned char *zero
    cdef Py_ssize_t part
    reserve(to, size + 2)
    to.data[to.size] = code
    to.size += 1
    while True:
        zero = <const unsigned char *> memchr(content, 0, size)
        if zero is NULL:
            break
        part = zero - content + 1
        reserve(to, size + 2)
        memcpy(to.data + to.size, content, part)
        to.data[to.size + part] = ESCAPE
        to.size += part + 1
        content += part
        size -= part
    reserve(to, size + 1)
    memcpy(to.data + to.size, content, size)
    to.data[to.size + size] = 0
    to.size += size + 1
    return 0


cdef int encode_str(Writer *to, object text) except -1:
    cdef Py_ssize_t size = 0
    cdef const char *content = PyUnicode_AsUTF8AndSize(text, &size)
    return encode_content(to, STR, <const unsigned char *> content, size)


cdef inline int byte_length(uint64_t number) noexcept:
    cdef int n = 0
    while number:
        n += 1
        number >>= 8
    return n


cdef int encode_int(Writer *to, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef uint64_t magnitude
    cdef int n
    if overflow:
        return encode_big_int(to, value)
    if number >= 0:
        n = byte_length(<uint64_t> number)
        return put_big_endian(to, <unsigned char> (ZERO + n), <uint64_t> number, n)
    magnitude = <uint64_t> 0 - <uint64_t> number
    n = byte_length(magnitude)
    return put_big_endian(to, <unsigned char> (ZERO - n), ~magnitude, n)  # 2^(8n) - 1 - magnitude


cdef object largest(int n):
    """2^(8n) - 1, as a Python int: n bytes may be more than C has."""
    return int.from_bytes(b"\xff" * n, "big")


cdef int encode_big_int(Writer *to, object value) except -1:
    """An int outside 64 signed bits."""
    cdef object number = int.__pos__(value)  # plain, whatever a subclass overrides
    cdef object magnitude = abs(number)
    cdef bytes content
    cdef int n
    if magnitude.bit_length() > 8 * MAX_INT_BYTES:
        raise ValueError(f"an int of more than {MAX_INT_BYTES} bytes cannot be in a key")
    n = (magnitude.bit_length() + 7) // 8
    if number < 0:
        content = (largest(n) + number).to_bytes(n, "big")
    else:
        content = number.to_bytes(n, "big")
    reserve(to, 2 + n)
    if n <= 8:
        put_byte(to, <unsigned char> (ZERO - n if number < 0 else ZERO + n))
    else:
        put_byte(to, BIG_NEGATIVE if number < 0 else BIG_POSITIVE)
        put_byte(to, <unsigned char> (n ^ 0xff if number < 0 else n))
    memcpy(to.data + to.size, PyBytes_AS_STRING(content), n)
    to.size += n
    return 0


cdef int encode_float(Writer *to, object value) except -1:
    cdef double number = PyFloat_AS_DOUBLE(value)
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    return put_big_endian(to, FLOAT, ~bits if bits & SIGN else bits | SIGN, 8)


cdef int encode_map(Writer *to, dict pairs, int depth) except -1:
    cdef dict by_bytes
    cdef object key, value
    for key in pairs:
        if not isinstance(key, str):
            raise TypeError(f"the keys of a map in a key are str, not {type_name(key)}")
    put_byte(to, MAP)
    if len(pairs) < 2:
        for key, value in pairs.items():
            encode_str(to, key)
            encode_element(to, value, depth)
        return put_byte(to, 0)
    # UTF-8 bytes sort as their encodings do: the escape keeps the order.
    by_bytes = {str.encode(key): value for key, value in pairs.items()}
    if len(by_bytes) != len(pairs):
        raise ValueError("two keys of a map have the same text")  # subclasses of str can be that odd
    for key in sorted(by_bytes):
        encode_content(to, STR, <const unsigned char *> PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        encode_element(to, by_bytes[key], depth)
    return put_byte(to, 0)


cdef int deeper(int depth) except -1:
    if depth == MAX_NESTING:
        raise ValueError(f"a key nests at most {MAX_NESTING} deep")
    return depth + 1


cdef int encode_element(Writer *to, object value, int depth) except -1:
    cdef object item
    if isinstance(value, str):
        return encode_str(to, value)
    if isinstance(value, int):
        if value is True:
            return put_byte(to, TRUE)
        if value is False:
            return put_byte(to, FALSE)
        return encode_int(to, value)
    if isinstance(value, bytes):
        return encode_content(to, BYTES, <const unsigned char *> PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if isinstance(value, float):
        return encode_float(to, value)
    if value is None:
        put_byte(to, NONE)
        return put_byte(to, ESCAPE) if depth else 0
    if isinstance(value, tuple):
        depth = deeper(depth)
        put_byte(to, NESTED)
        for item in <tuple> value:
            encode_element(to, item, depth)
        return put_byte(to, 0)
    if isinstance(value, list):
        depth = deeper(depth)
        put_byte(to, NESTED)
        for item in <list> value:
            encode_element(to, item, depth)
        return put_byte(to, 0)
    if isinstance(value, dict):
        return encode_map(to, <dict> value, deeper(depth))
    raise TypeError(f"{type_name(value)} cannot be in a key")


cdef str type_name(object value):
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def pack(elements):
    """The key of a tuple. Raises TypeError for a type that keys do not hold, ValueError for what is too large, too deep or not Unicode."""
    cdef unsigned char local[LOCAL_BYTES]
    cdef Writer to
    cdef object item
    if not isinstance(elements, tuple):
        raise TypeError(f"a key is a tuple, not {type_name(elements)}")
    to.data, to.size, to.capacity, to.heap = local, 0, LOCAL_BYTES, NULL
    try:
        for item in <tuple> elements:
            encode_element(&to, item, 0)
        return PyBytes_FromStringAndSize(<char *> to.data, to.size)
    finally:
        PyMem_Free(to.heap)


# ---- decoding ----

cdef struct Reader:
    const unsigned char *data
    Py_ssize_t at
    Py_ssize_t size


cdef int corrupt(str message, Py_ssize_t offset) except -1:
    raise CorruptionError(message, None, offset)


cdef inline int take_byte(Reader *of) except -1:
    if of.at >= of.size:
        corrupt("the key is cut short", of.at)
    of.at += 1
    return of.data[of.at - 1]


cdef inline const unsigned char *take(Reader *of, Py_ssize_t n) except NULL:
    if n > of.size - of.at:
        corrupt("the key is cut short", of.size)
    of.at += n
    return of.data + of.at - n


cdef inline bint take_escape(Reader *of) noexcept:
    """Whether the byte after a 00 says that the 00 was content; takes it."""
    if of.at < of.size and of.data[of.at] == ESCAPE:
        of.at += 1
        return True
    return False


cdef bytes decode_escaped(const unsigned char *content, Py_ssize_t size, Py_ssize_t escapes):
    """Content that holds zeros, each followed by its escape."""
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, size - escapes)
    cdef char *out = PyBytes_AS_STRING(whole)
    cdef Py_ssize_t i = 0
    while i < size:
        out[0] = <char> content[i]
        out += 1
        i += 2 if content[i] == 0 else 1
    return whole


cdef object decode_content(Reader *of, bint text):
    cdef Py_ssize_t start = of.at, size, escapes = 0
    cdef const unsigned char *zero
    cdef bytes whole
    while True:
        zero = <const unsigned char *> memchr(of.data + of.at, 0, of.size - of.at)
        if zero is NULL:
            corrupt("the key is cut short", of.size)
        of.at = zero - of.data + 1
        if not take_escape(of):
            break
        escapes += 1
    size = of.at - 1 - start
    if escapes:
        whole = decode_escaped(of.data + start, size, escapes)
        return decode_utf8(PyBytes_AS_STRING(whole), size - escapes, start) if text else whole
    if text:
        return decode_utf8(<const char *> of.data + start, size, start)
    return PyBytes_FromStringAndSize(<const char *> of.data + start, size)


cdef object decode_utf8(const char *content, Py_ssize_t size, Py_ssize_t offset):
    try:
        return PyUnicode_DecodeUTF8(content, size, NULL)
    except UnicodeDecodeError as error:
        raise CorruptionError("a str in a key is not UTF-8", None, offset) from error


cdef object decode_int(Reader *of, int n):
    """n: how many bytes of a positive int, or minus how many of a negative one."""
    cdef bint negative = n < 0
    cdef Py_ssize_t start = of.at
    cdef const unsigned char *content
    cdef uint64_t number = 0
    cdef int i
    n = -n if negative else n
    content = take(of, n)
    if content[0] == (0xff if negative else 0):
        corrupt("an int in a key is longer than it has to be", start)
    for i in range(n):
        number = number << 8 | content[i]
    if not negative:
        return PyLong_FromUnsignedLongLong(number)
    number = ~number if n == 8 else (<uint64_t> 1 << (8 * n)) - 1 - number
    if number < SIGN:
        return -<int64_t> number
    return -PyLong_FromUnsignedLongLong(number)


cdef object decode_big_int(Reader *of, bint negative):
    cdef Py_ssize_t start = of.at
    cdef int n = take_byte(of)
    cdef const unsigned char *content
    cdef object number
    n = n ^ 0xff if negative else n
    if n < 9:
        corrupt("an int in a key is longer than it has to be", start)
    content = take(of, n)
    if content[0] == (0xff if negative else 0):
        corrupt("an int in a key is longer than it has to be", start)
    number = int.from_bytes(PyBytes_FromStringAndSize(<const char *> content, n), "big")
    return number - largest(n) if negative else number


cdef object decode_float(Reader *of):
    cdef const unsigned char *content = take(of, 8)
    cdef uint64_t bits = 0
    cdef double number
    cdef int i
    for i in range(8):
        bits = bits << 8 | content[i]
    bits = bits ^ SIGN if bits & SIGN else ~bits
    memcpy(&number, &bits, 8)
    return number


cdef dict decode_map(Reader *of, int depth):
    cdef dict pairs = {}
    cdef Py_ssize_t start, size, last_start = 0, last_size = 0
    cdef int order
    cdef object key
    while True:
        start = of.at
        if take_byte(of) != STR:
            break
        key = decode_content(of, True)
        size = of.at - start
        if last_size:
            order = memcmp(of.data + last_start, of.data + start, min(last_size, size))
            if order > 0 or (order == 0 and last_size >= size):
                corrupt("the keys of a map do not ascend", start)
        last_start, last_size = start, size
        pairs[key] = decode_element(of, take_byte(of), depth)
    if of.data[start] != 0 or take_escape(of):
        corrupt("a key of a map is not a str", start)
    return pairs


cdef int deeper_or_corrupt(Reader *of, int depth) except -1:
    if depth == MAX_NESTING:
        corrupt(f"the key nests more than {MAX_NESTING} deep", of.at - 1)
    return depth + 1


cdef tuple decode_nested(Reader *of, int depth):
    cdef list elements = []
    cdef int code
    while True:
        code = take_byte(of)
        if code == 0 and not take_escape(of):
            return tuple(elements)
        elements.append(None if code == 0 else decode_element(of, code, depth))


cdef object decode_element(Reader *of, int code, int depth):
    """The element whose code was just taken; depth 0 is the tuple that is the key."""
    if code == STR:
        return decode_content(of, True)
    if code == BYTES:
        return decode_content(of, False)
    if code == ZERO:
        return 0
    if ZERO - 8 <= code <= ZERO + 8:
        return decode_int(of, code - ZERO)
    if code == FLOAT:
        return decode_float(of)
    if code == TRUE:
        return True
    if code == FALSE:
        return False
    if code == NONE:
        if depth and not take_escape(of):
            corrupt("a map has a key without a value", of.at - 1)
        return None
    if code == NESTED:
        return decode_nested(of, deeper_or_corrupt(of, depth))
    if code == MAP:
        return decode_map(of, deeper_or_corrupt(of, depth))
    if code == BIG_POSITIVE or code == BIG_NEGATIVE:
        return decode_big_int(of, code == BIG_NEGATIVE)
    corrupt(f"no element of a key begins with {code:02x}", of.at - 1)


def unpack(bytes data not None, Py_ssize_t start=0):
    """The tuple encoded in data[start:]. Raises CorruptionError for all that `pack` would not have written."""
    cdef list elements = []
    cdef Reader of
    of.data, of.at, of.size = <const unsigned char *> PyBytes_AS_STRING(data), start, PyBytes_GET_SIZE(data)
    if not 0 <= start <= of.size:
        raise ValueError(f"start is {start}, the key has {of.size} bytes")
    while of.at < of.size:
        elements.append(decode_element(&of, take_byte(&of), 0))
    return tuple(elements)


def next_prefix(bytes prefix not None):
    """The upper bound of the keys that begin with prefix, exclusive; None where there is none."""
    cdef bytes kept = prefix.rstrip(b"\xff")
    if not kept:
        return None
    last = len(kept) - 1
    return kept[:last] + bytes([kept[last] + 1])


def take_entries(key, value, step, bytes begin, Py_ssize_t limit) -> tuple:
    """(keys, values) of the next `limit` entries of an iterator over a tree: `key()` and `value()` tell of the present one, None for a key is the end, `step()` goes on. Ends at
    a key before `begin` too. value: None leaves the values out."""
    cdef list found = [], values = []
    cdef Py_ssize_t n
    for n in range(limit):
        entry = key()
        if entry is None or <bytes?>entry < begin:
            break
        found.append(entry)
        if value is not None:
            values.append(value())
        step()
    return found, values
