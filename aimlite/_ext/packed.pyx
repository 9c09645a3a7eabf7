"""msgpack as it is stored, looked at before anything is made of it ("Journals" in docs/format.md has the extension types).

Decoding costs memory for every item and stack for every level, so bytes that nobody of ours wrote are measured first.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from aimlite.errors import CorruptionError

cdef enum:
    LEVELS = 128          # containers inside one another; a tuple is two: the extension and the list in it
    FIRST_TYPE = 1        # the extension types that there are
    LAST_TYPE = 12
    TUPLE = 3             # those that hold msgpack
    FROZENSET = 5

MAX_LEVELS = LEVELS
MAX_ITEMS = 1 << 62


cdef struct Level:
    uint64_t remaining    # items still to come of a list or map
    Py_ssize_t end        # where the msgpack ends that it lies in
    bint stream           # an extension: its items go on until `end`


cdef inline uint64_t big_endian(const unsigned char *p, int n) noexcept:
    cdef uint64_t number = 0
    cdef int i
    for i in range(n):
        number = number << 8 | p[i]
    return number


cdef int corrupt(str message, Py_ssize_t offset) except -1:
    raise CorruptionError(message, None, offset)


def packed_end(bytes data not None, Py_ssize_t start=0, uint64_t max_items=MAX_ITEMS):
    """Where the value ends that begins at `start`; -1 when the data ends before it does.

    Raises CorruptionError for what is no msgpack, an extension type that there is not, more than 128 levels, and more than max_items items,
    all levels counted.
    """
    cdef const unsigned char *p = <const unsigned char *> PyBytes_AS_STRING(data)
    cdef Level levels[LEVELS + 1]
    cdef Py_ssize_t at = start, size = PyBytes_GET_SIZE(data)
    cdef uint64_t length, items = 0
    cdef int depth = 0, code, head, kind
    cdef Level *level = &levels[0]
    if not 0 <= start <= size:
        raise ValueError(f"start is {start}, the data has {size} bytes")
    level.remaining, level.end, level.stream = 1, size, False
    while True:
        while (at == level.end) if level.stream else (level.remaining == 0):
            if depth == 0:
                return at
            depth -= 1
            level = &levels[depth]
        if not level.stream:
            level.remaining -= 1
        items += 1
        if items > max_items:
            corrupt(f"there are more than {max_items} items", at)
        if at >= level.end:
            return cut_short(level, size, at)
        code = p[at]
        at += 1
        kind = -1
        if code < 0x80 or code >= 0xe0 or code == 0xc0 or code == 0xc2 or code == 0xc3:
            continue
        if code < 0xa0 or 0xdc <= code <= 0xdf:  # a map or a list
            if code < 0xa0:
                length = code & 0x0f
            else:
                head = 2 if code & 1 == 0 else 4
                if level.end - at < head:
                    return cut_short(level, size, at)
                length = big_endian(p + at, head)
                at += head
            if code < 0x90 or code >= 0xde:
                length *= 2
            if length == 0:
                continue
            if length > <uint64_t> (level.end - at):  # each takes a byte at least
                return cut_short(level, size, at)
            if depth == LEVELS:
                corrupt(f"more than {LEVELS} levels lie inside one another", at)
            levels[depth + 1].end = level.end
            depth += 1
            level = &levels[depth]
            level.remaining, level.stream = length, False
            continue
        if code < 0xc0:  # a short string
            length = code & 0x1f
        elif code == 0xc1:
            corrupt("no msgpack begins with c1", at - 1)
        elif code >= 0xca and code <= 0xd3:  # numbers of 1, 2, 4 and 8 bytes
            length = 4 if code == 0xca else 8 if code == 0xcb else 1 << (code & 3)
        elif code >= 0xd4 and code <= 0xd8:  # extensions of 1, 2, 4, 8 and 16 bytes
            length = 1 << (code - 0xd4)
            kind = -2
        else:  # bytes, extensions and strings with their length before them
            head = 1 << (code - 0xc4 if code < 0xc7 else code - 0xc7 if code < 0xca else code - 0xd9)
            if level.end - at < head:
                return cut_short(level, size, at)
            length = big_endian(p + at, head)
            at += head
            if 0xc7 <= code < 0xca:
                kind = -2
        if kind == -2:
            if at >= level.end:
                return cut_short(level, size, at)
            kind = p[at]
            if not FIRST_TYPE <= kind <= LAST_TYPE:
                corrupt(f"the extension type {kind} is not known", at)
            at += 1
        if length > <uint64_t> (level.end - at):
            return cut_short(level, size, at)
        if TUPLE <= kind <= FROZENSET:
            if depth == LEVELS:
                corrupt(f"more than {LEVELS} levels lie inside one another", at)
            depth += 1
            level = &levels[depth]
            level.remaining, level.end, level.stream = 0, at + <Py_ssize_t> length, True
        else:
            at += length


cdef int cut_short(Level *level, Py_ssize_t size, Py_ssize_t at) except -2:
    """The answer where something reaches beyond the end: that of the data, or of an extension, which tells its own length."""
    if level.end < size or level.stream:
        corrupt("a value reaches beyond the extension that it lies in", at)
    return -1
