"""An append-only log of records, one file per segment of a writer. docs/format.md, "Journals", is the format.

JournalWriter: a record is acknowledged once `append` (or a Recorder's `track`) has returned; its bytes are then in the kernel. A write that fails leaves the
file as it was. JournalReader takes the bytes back, finds damage and torn tails, and keeps points as columns.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import os

from aimlite.errors import CorruptionError


cdef extern from "crc32c.h":
    uint32_t aimlite_crc32c(uint32_t crc, const void *data, size_t n) nogil


cdef extern from "journal_file.h":
    aimlite_file *aimlite_file_new() nogil
    void aimlite_file_free(aimlite_file *f) nogil
    int aimlite_file_write(int fd, const unsigned char *data, size_t n, uint64_t offset) nogil
    int aimlite_file_create(const char *path) nogil
    void aimlite_file_attach(aimlite_file *f, int fd) nogil
    int aimlite_file_detach(aimlite_file *f) nogil
    aimlite_file *aimlite_file_copy(aimlite_file *f) nogil
    void aimlite_file_close(aimlite_file *f) nogil
    int aimlite_file_close_alone(int fd) nogil
    uint64_t aimlite_syncs
    int aimlite_fdatasync(int fd) nogil
    int aimlite_leave_last_words(int fd, const unsigned char *data, size_t n, size_t m, uint64_t offset) nogil
    void aimlite_note_foreign_threads() nogil
    int AIMLITE_TELLS_EXIT_STATUS
    uint64_t aimlite_now_us() nogil


cdef extern from *:
    """
    #include <pthread.h>
    static int aimlite_trylock(aimlite_file *f) { return pthread_mutex_trylock(&f->mutex); }
    static void aimlite_lock(aimlite_file *f) { pthread_mutex_lock(&f->mutex); }
    static void aimlite_unlock(aimlite_file *f) { pthread_mutex_unlock(&f->mutex); }
    """
    int aimlite_trylock(aimlite_file *f) nogil
    void aimlite_lock(aimlite_file *f) nogil
    void aimlite_unlock(aimlite_file *f) nogil


FILE_HEADER_SIZE = 40
RECORD_HEADER_SIZE = 24
MAX_PAYLOAD = 0xFFFFFF

TELLS_EXIT_STATUS = bool(AIMLITE_TELLS_EXIT_STATUS)  # whether detach_at_exit can be done
OPEN, SEQUENCE, POINTS, COLUMNS, PARAMS, PROPERTY, OBJECT, END, ROTATED = 1, 2, 3, 4, 5, 6, 7, 9, 10

cdef enum:
    HEADER = 24
    FILE_HEADER = 40
    KIND_SEQUENCE = 2
    KIND_POINTS = 3
    KIND_COLUMNS = 4
    KIND_OBJECT = 7
    KIND_ROTATED = 10
    RELEASE_GIL_FROM = 65536  # shorter writes hold the GIL: giving it away beside a busy thread costs 5 ms at p99.9
    MAX_RECORD_POINTS = 1 << 24
    SPARE_NUMBERS = 1 << 20  # sequence numbers are dense; one beyond what could have been declared is refused before memory is taken
    DENSE = 64               # up to so many beyond twice their count, numbers of sequences are looked up in a table

cdef bytes MAGIC = b"AIMLJRNL"
cdef uint64_t MAX_ORDER = <uint64_t>1 << 53  # µs: no clock shows a later time, and times beyond are no dates


cdef inline void put_u32(unsigned char *p, uint32_t v) noexcept nogil:
    p[0] = v & 0xFF
    p[1] = (v >> 8) & 0xFF
    p[2] = (v >> 16) & 0xFF
    p[3] = (v >> 24) & 0xFF


cdef inline void put_u64(unsigned char *p, uint64_t v) noexcept nogil:
    put_u32(p, <uint32_t>v)
    put_u32(p + 4, <uint32_t>(v >> 32))


cdef inline uint32_t get_u32(const unsigned char *p) noexcept nogil:
    return <uint32_t>p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24)


cdef inline uint64_t get_u64(const unsigned char *p) noexcept nogil:
    return <uint64_t>get_u32(p) | (<uint64_t>get_u32(p + 4) << 32)


cdef inline double get_f64(const unsigned char *p) noexcept nogil:
    cdef uint64_t bits = get_u64(p)
    cdef double value
    memcpy(&value, &bits, 8)
    return value


cdef uint32_t header_seed(uint64_t writer, uint32_t segment) noexcept:
    cdef unsigned char identity[12]
    put_u64(identity, writer)
    put_u32(identity + 8, segment)
    return aimlite_crc32c(0, identity, 12)


def note_foreign_threads() -> None:
    """Tells that a library is in use whose threads are waited for at exit: forked children, which do not have them, then exit without destructors (where the C library
    is glibc)."""
    aimlite_note_foreign_threads()


def now_us() -> int:
    """The wall clock, in microseconds since 1970."""
    return aimlite_now_us()


def sync_count() -> int:
    """How often this process forced a journal to the disk."""
    return aimlite_syncs


def create(path) -> int:
    """The descriptor, above 2, of a new file at a path. A forked child closes it, until a JournalWriter has it or `close` closed it. Raises OSError."""
    cdef bytes name = os.fsencode(path)
    cdef const char *given = name
    cdef int fd, reason
    with nogil:
        fd = aimlite_file_create(given)
        reason = errno
    if fd < 0:
        raise OSError(reason, os.strerror(reason), os.fspath(path))
    return fd


def close(int fd) -> None:
    """Closes a descriptor of `create`, `rotate` or `detach`. Raises OSError."""
    cdef int failed, reason
    with nogil:
        failed = aimlite_file_close_alone(fd)
        reason = errno
    if failed:
        raise OSError(reason, os.strerror(reason))


def encode_file_header(uint64_t writer, uint32_t segment, uint64_t order, uint32_t pid) -> bytes:
    cdef unsigned char header[FILE_HEADER]
    memset(header, 0, FILE_HEADER)
    memcpy(header, PyBytes_AS_STRING(MAGIC), 8)
    header[8] = 1
    put_u32(header + 12, segment)
    put_u64(header + 16, writer)
    put_u64(header + 24, order)
    put_u32(header + 32, pid)
    put_u32(header + 36, aimlite_crc32c(0, header, 36))
    return PyBytes_FromStringAndSize(<char *>header, FILE_HEADER)


def decode_file_header(bytes header) -> tuple:
    """(writer, segment, order, pid) of the first 40 bytes of a journal. Raises CorruptionError."""
    cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(header)
    if PyBytes_GET_SIZE(header) < FILE_HEADER:
        raise CorruptionError(f"a journal header has 40 bytes, not {PyBytes_GET_SIZE(header)}", offset=0)
    if header[:8] != MAGIC or get_u32(p + 36) != aimlite_crc32c(0, p, 36):
        raise CorruptionError("journal header fails its check", offset=0)
    if p[8] != 1 or p[9] != 0:
        raise CorruptionError(f"journal version {p[8] | (p[9] << 8)} is not known", offset=8)
    return get_u64(p + 16), get_u32(p + 12), get_u64(p + 24), get_u32(p + 32)


cdef class JournalWriter:
    """Appends records to the descriptor of one segment; storage gives it the next one.

    on_rotate() is called before a write when the segment is full or old; it may call `rotate`. on_lost() is called when the descriptor is gone after a
    fork; it must call `attach`.
    """

    def __cinit__(self, on_rotate, on_lost, uint64_t segment_bytes=8 << 20, uint64_t segment_age_us=600_000_000):
        self.file = aimlite_file_new()
        if self.file == NULL:
            raise MemoryError
        self.on_rotate = on_rotate
        self.on_lost = on_lost
        self.segment_bytes = segment_bytes
        self.segment_age_us = segment_age_us
        self.reserve(4096)

    def __dealloc__(self):
        if self.file != NULL:
            aimlite_file_free(self.file)
        free(self.buffer)
        free(self.points)
        free(self.meta)

    @property
    def closed(self) -> bool:
        return self.file.fd < 0

    @property
    def forked(self) -> bool:
        """Whether a fork closed the descriptor in this process."""
        return self.file.forked != 0

    def fileno(self) -> int:
        return self.file.fd

    def attach(self, int fd, uint64_t writer, uint32_t segment, uint64_t order) -> None:
        """Goes on in a new file whose header is written. order: that of the header; later records get later ones."""
        self._acquire_open()
        self._attach(fd, writer, segment, order)
        self.release()

    def _attach(self, int fd, uint64_t writer, uint32_t segment, uint64_t order):
        aimlite_file_attach(self.file, fd)
        self.poisoned = False
        self.writer = writer
        self.segment = segment
        self.seed = header_seed(writer, segment)
        self.offset = FILE_HEADER
        self.records = 0
        self.sequences = 0
        self.meta_count = 0
        self.order = max(self.order, order)
        self.rotate_at = self.segment_bytes
        self.rotate_time = aimlite_now_us() + self.segment_age_us
        self.epoch += 1

    def rotate(self, int fd, uint32_t segment, uint64_t order) -> int:
        """Ends this segment with its footer and goes on in `fd`; returns the old descriptor, for the caller to close with `close`.

        A footer that cannot be written (full disk) is left out: the segment then ends without one.
        """
        cdef int old
        self._acquire_open()
        try:
            old = self.file.fd
            if old >= 0 and not self.poisoned:
                try:
                    self._write_footer()
                except OSError:
                    pass  # the footer saves readers work, it holds nothing that the records do not
            if aimlite_file_detach(self.file) != old:
                raise MemoryError
            self._attach(fd, self.writer, segment, order)
        finally:
            self.release()
        return old

    def _write_footer(self):
        cdef size_t length = 4 + 4 * <size_t>self.meta_count + 4 + 4 * <size_t>self.sequences + 8
        cdef unsigned char *p
        cdef uint32_t k
        if length > MAX_PAYLOAD:
            return
        self.reserve(HEADER + length)
        p = self.buffer + HEADER
        put_u32(p, self.meta_count)
        p += 4
        for k in range(self.meta_count):
            put_u32(p, self.meta[k])
            p += 4
        put_u32(p, self.sequences)
        p += 4
        for k in range(self.sequences):
            put_u32(p, self.points[k])
            p += 4
        put_u32(p, HEADER + <uint32_t>length)
        memcpy(p + 4, b"ROTD", 4)
        self.order += 1
        self.finish_record(0, KIND_ROTATED, length, False, 0, self.order)
        self.write_out(HEADER + length, False)
        self.records += 1

    def detach(self) -> int:
        """Stops writing; returns the descriptor (-1 if there is none), for the caller to close with `close`."""
        self._acquire_open()
        cdef int had = self.file.fd, fd = aimlite_file_detach(self.file)
        self.release()
        if fd != had:
            raise MemoryError
        return fd

    def raise_order(self, uint64_t order) -> None:
        """Later records are ordered after `order`."""
        if order > self.order:
            self.order = order

    def is_due(self, bint ask=False) -> bool:
        """Whether the segment is full, old or not to be written any more. ask: on_rotate is called before the next write in any case."""
        self.rotate_at = 0 if ask or self.poisoned else self.segment_bytes
        return self.poisoned or self.offset >= self.segment_bytes or (self.offset >= 65536 and self.order >= self.rotate_time)

    def postpone_rotation(self) -> None:
        """Writes 1 MiB or a minute more before on_rotate is asked again: for when no new segment could be made."""
        self.rotate_at = self.offset + (1 << 20)
        self.rotate_time = aimlite_now_us() + 60_000_000

    def give_up(self) -> None:
        """Writes nothing more to this file, which readers do not find any more: on_rotate is asked before the next write, and has to begin another segment."""
        self.poisoned = True
        self.rotate_at = 0

    def append(self, records, bint sync=False, uint64_t epoch=0) -> int:
        """Appends [(type, payload), …] as one group, all or nothing; returns its order.

        epoch: the epoch whose declarations the records rely on; if another segment has begun since then nothing is written and 0 returned.
        Raises OSError (the file is as before), ValueError for a payload of 16 MiB or more.
        """
        cdef bytes payload
        cdef size_t size
        cdef uint64_t order, begin
        cdef list group = list(records)
        for kind, payload in group:
            if len(payload) > MAX_PAYLOAD:
                raise ValueError(f"a journal record holds less than 16 MiB, not {len(payload)} bytes")
        self.acquire()
        try:
            if epoch and epoch != self.epoch:
                return 0
            order = max(aimlite_now_us(), self.order + 1)  # strictly later: two sets of one path in a microsecond must not tie
            size = self.put_group(group, order)
            begin = self.offset
            self.write_out(size, sync)
            self.records += <uint32_t>len(group)
            self.order = order
            for kind, payload in group:
                self.note_meta(begin)
                begin += HEADER + PyBytes_GET_SIZE(payload)
        finally:
            self.release()
        return order

    cdef size_t put_group(self, list records, uint64_t order) except? 0:
        """Encodes a group at the beginning of the buffer; returns its size."""
        cdef bytes payload
        cdef size_t size = 0, at = 0, length
        cdef uint32_t index = 0, count = <uint32_t>len(records)
        for kind, payload in records:
            size += HEADER + PyBytes_GET_SIZE(payload)
        self.reserve(size)
        for kind, payload in records:
            length = PyBytes_GET_SIZE(payload)
            memcpy(self.buffer + at + HEADER, PyBytes_AS_STRING(payload), length)
            self.finish_record(at, kind, length, index + 1 < count, index, order)
            at += HEADER + length
            index += 1
        return size

    def detach_at_exit(self, failed, interrupted) -> bool:
        """Stops writing; the descriptor stays open until the process ends. Should that be with a status other than 0, one of the groups of records is appended:
        `interrupted` for 130 and 143, as shells call what SIGINT and SIGTERM ended, else `failed`.

        Returns False where that cannot be done (C libraries without on_exit: TELLS_EXIT_STATUS): then nothing has happened.
        """
        cdef size_t n, m
        cdef uint64_t order
        cdef bytes words
        cdef bint done = False
        self._acquire_open()
        try:
            if self.file.fd >= 0 and not self.poisoned:
                order = max(aimlite_now_us(), self.order + 1)
                n = self.put_group(list(failed), order)
                words = self.buffer[:n]
                m = self.put_group(list(interrupted), order)
                words += self.buffer[:m]
                done = aimlite_leave_last_words(self.file.fd, words, n, m, self.offset) == 0
                if done:
                    self.file.fd = -1
        finally:
            self.release()
        return done

    def sync(self) -> None:
        """fdatasync of the present segment, beside which others write, rotate, close and fork. Raises OSError; what the kernel then has of this file is unknown, so
        the next write begins a new segment."""
        cdef int failed, reason = 0
        cdef uint64_t epoch = self.epoch
        cdef aimlite_file *copy
        if self.file.fd < 0:
            return
        copy = aimlite_file_copy(self.file)
        if copy == NULL:
            reason = errno
            raise OSError(reason, os.strerror(reason))
        with nogil:
            failed = aimlite_fdatasync(copy.fd)
            if failed:
                reason = errno
            aimlite_file_close(copy)
        if failed:
            if epoch == self.epoch:
                self.poisoned = True
                self.rotate_at = 0
            raise OSError(reason, f"{os.strerror(reason)}: the journal could not be forced to disk; writing goes on in a new segment")

    # -- for Recorder, in C ------------------------------------------------------------------------------------------

    cdef int acquire(self) except -1:
        """Takes the mutex with a segment that can be written."""
        while True:
            if self.file.fd < 0:
                if not self.file.forked:
                    raise ValueError("the journal is closed")
                self.on_lost()
            elif self.offset >= self.rotate_at or (self.offset >= 65536 and self.order >= self.rotate_time):
                self.on_rotate()
            if aimlite_trylock(self.file) != 0:
                with nogil:  # its holder may be writing without the GIL
                    aimlite_lock(self.file)
            if self.file.fd >= 0:
                return 0
            aimlite_unlock(self.file)

    def _acquire_open(self):
        if aimlite_trylock(self.file) != 0:
            with nogil:
                aimlite_lock(self.file)

    cdef void release(self) noexcept:
        aimlite_unlock(self.file)

    cdef int reserve(self, size_t size) except -1:
        cdef unsigned char *grown
        if size <= self.capacity:
            return 0
        size = max(size, 2 * self.capacity)
        grown = <unsigned char *>realloc(self.buffer, size)
        if grown == NULL:
            raise MemoryError
        self.buffer = grown
        self.capacity = size
        return 0

    cdef int release_buffer(self) except -1:
        """Gives a large buffer back. The mutex is held."""
        if self.capacity > 8 << 20:
            self.capacity = 0
            free(self.buffer)
            self.buffer = NULL
            self.reserve(4096)
        return 0

    cdef int reserve_sequence(self, uint32_t number) except -1:
        cdef uint32_t *grown
        cdef uint32_t size
        if number < self.points_capacity:
            return 0
        size = max(64, 2 * self.points_capacity, number + 1)
        grown = <uint32_t *>realloc(self.points, 4 * <size_t>size)
        if grown == NULL:
            raise MemoryError
        self.points = grown
        self.points_capacity = size
        return 0

    cdef void finish_record(self, size_t start, uint32_t kind, size_t length, bint more, uint32_t index, uint64_t order) noexcept:
        cdef unsigned char *p = self.buffer + start
        put_u32(p + 4, aimlite_crc32c(0, p + HEADER, length))
        put_u32(p + 8, <uint32_t>length | (kind << 24) | (<uint32_t>(1 if more else 0) << 31))
        put_u32(p + 12, self.records + index)
        put_u64(p + 16, order)
        put_u32(p, aimlite_crc32c(self.seed, p + 4, HEADER - 4))

    cdef int write_out(self, size_t length, bint sync) except -1:
        """Writes the first `length` bytes of the buffer at the end of the file, all or nothing."""
        cdef int failed, reason = 0, fd = self.file.fd
        cdef unsigned char *buffer = self.buffer
        cdef uint64_t offset = self.offset
        if length < RELEASE_GIL_FROM and not sync:
            failed = aimlite_file_write(fd, buffer, length, offset)
            if failed:
                reason = errno
        else:
            with nogil:
                failed = aimlite_file_write(fd, buffer, length, offset)
                if failed:
                    reason = errno
                elif sync and aimlite_fdatasync(fd) != 0:
                    reason = errno
                    failed = 3
        if failed == 0:
            self.offset += length
            return 0
        if failed >= 2:  # this file is in an unknown state: the next write begins a new segment
            self.poisoned = True
            self.rotate_at = 0
        if failed == 3:
            self.offset += length
            raise OSError(reason, f"{os.strerror(reason)}: the journal could not be forced to disk; writing goes on in a new segment")
        raise OSError(reason, f"{os.strerror(reason)}: nothing of this write was kept, what was written before is safe")

    cdef int note_meta(self, uint64_t offset) except -1:
        cdef uint32_t *grown
        cdef uint32_t size
        if self.meta_count == self.meta_capacity:
            size = max(64, 2 * self.meta_capacity)
            grown = <uint32_t *>realloc(self.meta, 4 * <size_t>size)
            if grown == NULL:
                raise MemoryError
            self.meta = grown
            self.meta_capacity = size
        self.meta[self.meta_count] = <uint32_t>offset
        self.meta_count += 1
        return 0


# -- reading -------------------------------------------------------------------------------------------------------------

ctypedef struct Columns:
    size_t count
    size_t capacity
    int64_t *step
    double *value
    double *epoch
    int64_t *time
    uint64_t *order
    uint32_t *offset
    uint8_t *flags   # 1 step given, 2 int


cdef int grow_columns(Columns *c, size_t more) except -1:
    cdef size_t size
    if c.count + more <= c.capacity:
        return 0
    size = max(16, 2 * c.capacity, c.count + more)
    c.step = <int64_t *>grow(c.step, 8 * size)
    c.value = <double *>grow(c.value, 8 * size)
    c.epoch = <double *>grow(c.epoch, 8 * size)
    c.time = <int64_t *>grow(c.time, 8 * size)
    c.order = <uint64_t *>grow(c.order, 8 * size)
    c.offset = <uint32_t *>grow(c.offset, 4 * size)
    c.flags = <uint8_t *>grow(c.flags, size)
    c.capacity = size
    return 0


cdef void *grow(void *p, size_t size) except NULL:
    p = realloc(p, size)
    if p == NULL:
        raise MemoryError
    return p


cdef enum Verdict:
    GOOD = 0
    SHORT = 1     # could be whole if there were more bytes
    BAD = 2


cdef class JournalReader:
    """Takes in the records of one segment, in as many pieces as they come.

    meta: [(type, offset, order, payload)] of the records that are not points; of OBJECT only the items, not their contents. damage: [(offset, length, reason)].
    offset: up to where the file is taken in. ended: whether ROTATED was seen. torn: bytes of a torn tail (known once `feed` was told that no more comes).
    sequences: how many are declared. orphans: whether there are points of a sequence that is not declared, which are left out.
    """

    cdef readonly uint64_t writer, order, offset
    cdef readonly uint32_t segment, pid
    cdef readonly list meta, damage
    cdef readonly bint ended, orphans
    cdef readonly uint64_t torn
    cdef readonly uint32_t sequences
    cdef uint32_t seed
    cdef uint64_t next_record
    cdef bint blank   # the header is cut short or all zeros
    cdef Columns *columns_of      # of the declared sequences, in the order in which they were declared
    cdef uint32_t capacity
    cdef uint32_t *place_of       # by sequence number: 1 + the place in columns_of, or 0
    cdef uint32_t places
    cdef dict sparse              # number → place, of numbers that a table would be too large for: those that damage left alone

    def __cinit__(self, bytes header, uint64_t writer, uint32_t segment):
        """header: the first 40 bytes; writer and segment: what the file is named for, which is believed when the header is bad."""
        self.meta = []
        self.damage = []
        self.blank = len(header) < FILE_HEADER or not header.strip(b"\0")
        try:
            self.writer, self.segment, self.order, self.pid = decode_file_header(header)
            if self.writer != writer or self.segment != segment:
                raise CorruptionError("the journal's header is that of another journal", offset=12)
        except CorruptionError as error:
            self.damage.append((error.offset, FILE_HEADER, error.message))
        self.writer, self.segment = writer, segment
        self.seed = header_seed(self.writer, self.segment)
        self.offset = FILE_HEADER

    def __dealloc__(self):
        cdef uint32_t k
        for k in range(self.sequences):
            free(self.columns_of[k].step)
            free(self.columns_of[k].value)
            free(self.columns_of[k].epoch)
            free(self.columns_of[k].time)
            free(self.columns_of[k].order)
            free(self.columns_of[k].offset)
            free(self.columns_of[k].flags)
        free(self.columns_of)
        free(self.place_of)

    def feed(self, const unsigned char[::1] data, bint complete) -> int:
        """Takes in `data`, the file's bytes from self.offset on; complete: no more will come (nobody holds the journal). Returns self.offset."""
        cdef size_t size = data.shape[0]
        cdef const unsigned char *p = &data[0] if size else NULL
        cdef size_t at = 0, end, good
        cdef int verdict
        self.torn = 0
        while at < size:
            verdict = self.group_at(p, at, size, &end)
            if verdict == GOOD:
                self.take_group(p, at, end)
                at = end
                continue
            good = self.next_good(p, end + 1, size)
            if good < size:
                self.damage.append((self.offset + at, good - at, "a record fails its check"))
                self.next_record = get_u32(p + good + 12)
                at = good
                continue
            if not complete:
                break
            if verdict == SHORT or self.is_torn(p, end, size):
                self.torn = size - at
            else:
                self.damage.append((self.offset + at, size - at, "the last record fails its check"))
                at = size
            break
        if complete and self.blank and self.offset == FILE_HEADER and (size == 0 or self.is_blank(p, size)):
            self.damage.clear()  # empty, or nothing but zeros: what a power failure leaves of a file that was never forced to disk
            self.torn = FILE_HEADER + size
        self.offset += at
        return self.offset

    cdef bint is_blank(self, const unsigned char *p, size_t size) noexcept:
        while size and p[size - 1] == 0:
            size -= 1
        return size == 0

    cdef int record_at(self, const unsigned char *p, size_t at, size_t size, size_t *end) noexcept:
        cdef size_t length
        if size - at < HEADER:
            return SHORT
        if get_u32(p + at) != aimlite_crc32c(self.seed, p + at + 4, HEADER - 4) or (get_u32(p + at + 8) >> 24) & 0x7F == 0:
            return BAD
        length = get_u32(p + at + 8) & 0xFFFFFF
        if size - at - HEADER < length:
            return SHORT
        if aimlite_crc32c(0, p + at + HEADER, length) != get_u32(p + at + 4):
            return BAD
        end[0] = at + HEADER + length
        return GOOD

    cdef int group_at(self, const unsigned char *p, size_t at, size_t size, size_t *end) noexcept:
        """The verdict on the group that begins at `at`; end: behind its last record, or where the first one that is not good begins."""
        cdef int verdict
        cdef size_t start = at
        end[0] = at
        while True:
            if start == size:
                return SHORT
            verdict = self.record_at(p, start, size, end)
            if verdict != GOOD:
                return verdict
            if get_u32(p + start + 8) >> 31 == 0:
                return GOOD
            start = end[0]

    cdef size_t next_good(self, const unsigned char *p, size_t at, size_t size) noexcept:
        """Where the next good record that begins a group lies, or size."""
        cdef size_t end, start = at
        while start + HEADER <= size:
            if self.group_at(p, start, size, &end) != GOOD:
                start = end + 1  # no record of a group that lacks its end begins another
            elif get_u32(p + start + 12) >= self.next_record:
                return start
            else:
                start += 1
        return size

    cdef bint is_torn(self, const unsigned char *p, size_t at, size_t size) noexcept:
        """Whether a bad last record looks like a write cut off by power loss: zeros from somewhere to the end."""
        cdef size_t zeros = 0
        while zeros < size - at and p[size - 1 - zeros] == 0:
            zeros += 1
        return zeros >= 64 or zeros == size - at

    cdef int take_group(self, const unsigned char *p, size_t at, size_t end) except -1:
        cdef uint32_t kind, number, length
        cdef uint64_t kept
        cdef uint64_t order, offset
        while at < end:
            length = get_u32(p + at + 8) & 0xFFFFFF
            kind = (get_u32(p + at + 8) >> 24) & 0x7F
            number = get_u32(p + at + 12)
            order = get_u64(p + at + 16)
            offset = self.offset + at
            if number != self.next_record:
                self.damage.append((offset, 0, f"records {self.next_record} to {number - 1} are missing"))
            self.next_record = <uint64_t>number + 1
            if order > MAX_ORDER:
                self.damage.append((offset, HEADER + length, f"a record was written at {order}, which no clock has shown"))
            elif kind == KIND_POINTS:
                if not self.take_points(p + at + HEADER, length, order, <uint32_t>offset):
                    self.damage.append((offset, HEADER + length, "a record of points is malformed"))
            elif kind == KIND_COLUMNS:
                if not self.take_columns(p + at + HEADER, length, order, <uint32_t>offset):
                    self.damage.append((offset, HEADER + length, "a record of columns is malformed"))
            else:
                if kind == KIND_ROTATED:
                    self.ended = True
                if kind == KIND_SEQUENCE and length >= 4 and self.is_possible(get_u32(p + at + HEADER), offset):
                    self.declare(get_u32(p + at + HEADER))
                kept = length
                if kind == KIND_OBJECT and length >= 8:  # what follows the headers is read when it is asked for
                    kept = min(length, 8 + <uint64_t>get_u32(p + at + HEADER + 4))
                self.meta.append((kind, offset, order, PyBytes_FromStringAndSize(<const char *>p + at + HEADER, kept)))
            at += HEADER + length
        return 0

    cdef bint is_possible(self, uint32_t number, uint64_t offset) noexcept:
        """Whether a writer may have given out a sequence number before this offset."""
        return number <= offset // HEADER + SPARE_NUMBERS

    cdef int declare(self, uint32_t number) except -1:
        """Makes room for the points of a sequence. Numbers are given out from 0 on, so the table stays as small as what was declared."""
        cdef Columns *grown
        cdef uint32_t *table
        cdef uint32_t size
        if self.place(number) >= 0:
            return 0
        if self.sequences == self.capacity:
            size = max(16, 2 * self.capacity)
            grown = <Columns *>realloc(self.columns_of, size * sizeof(Columns))
            if grown == NULL:
                raise MemoryError
            memset(grown + self.capacity, 0, (size - self.capacity) * sizeof(Columns))
            self.columns_of, self.capacity = grown, size
        if number < 2 * self.sequences + DENSE:
            if number >= self.places:
                size = max(DENSE, 2 * number)
                table = <uint32_t *>realloc(self.place_of, size * sizeof(uint32_t))
                if table == NULL:
                    raise MemoryError
                memset(table + self.places, 0, (size - self.places) * sizeof(uint32_t))
                self.place_of, self.places = table, size
            self.place_of[number] = self.sequences + 1
        else:
            if self.sparse is None:
                self.sparse = {}
            self.sparse[number] = self.sequences
        self.sequences += 1
        return 0

    cdef int64_t place(self, uint32_t number) except -2:
        """Where the columns of a sequence are, -1 when it is not declared."""
        if number < self.places and self.place_of[number]:
            return <int64_t>self.place_of[number] - 1
        if self.sparse is None:
            return -1
        return self.sparse.get(number, -1)

    cdef bint take_points(self, const unsigned char *p, size_t length, uint64_t order, uint32_t offset) except? False:
        cdef double nan = float("nan")
        cdef size_t at = 1, item = 12, k, count
        cdef uint32_t number
        cdef int64_t step = 0, place
        cdef Columns *c
        if length < 1 or p[0] & ~0x0F:
            return False
        cdef uint8_t flags = p[0]
        cdef double epoch = nan
        cdef int64_t time = <int64_t>order
        cdef size_t head = 1 + (0 if flags & 8 else 8) + (8 if flags & 2 else 0) + (8 if flags & 4 else 0)
        if flags & 8:
            item = 20
        if length <= head or (length - head) % item:
            return False
        if not flags & 8:
            step = <int64_t>get_u64(p + at)
            at += 8
        if flags & 2:
            epoch = get_f64(p + at)
            at += 8
        if flags & 4:
            time = <int64_t>get_u64(p + at)
            at += 8
        count = (length - head) // item
        for k in range(count):
            if not self.is_possible(get_u32(p + at + k * item) & 0x7FFFFFFF, offset):
                return False
        for k in range(count):
            number = get_u32(p + at)
            place = self.place(number & 0x7FFFFFFF)
            if place < 0:
                self.orphans = True
                at += item
                continue
            at += 4
            c = &self.columns_of[place]
            grow_columns(c, 1)
            if flags & 8:
                step = <int64_t>get_u64(p + at)
                at += 8
            c.step[c.count] = step
            c.value[c.count] = get_f64(p + at)
            at += 8
            c.epoch[c.count] = epoch
            c.time[c.count] = time
            c.order[c.count] = order
            c.offset[c.count] = offset
            c.flags[c.count] = (flags & 1) | (2 if number >> 31 else 0)
            c.count += 1
        return True

    cdef bint take_columns(self, const unsigned char *p, size_t length, uint64_t order, uint32_t offset) except? False:
        cdef double nan = float("nan")
        cdef size_t at = 9, k, count, need
        cdef uint32_t number
        cdef uint64_t first = 0, stride = 0
        cdef uint8_t flags
        cdef float single
        cdef uint32_t bits
        cdef int64_t place
        cdef Columns *c
        if length < 9:
            return False
        flags = p[0]
        number = get_u32(p + 1)
        count = get_u32(p + 5)
        if count < 1 or count > MAX_RECORD_POINTS or not self.is_possible(number, offset):
            return False
        if flags & 2 and flags & 16 or flags & 4 and flags & 32:
            return False
        need = 9 + (16 if flags & 8 else 8 * count) + (8 if flags & 2 else 8 * count if flags & 16 else 0)
        need += (8 if flags & 4 else 8 * count if flags & 32 else 0) + (4 if flags & 64 else 8) * count
        if need != length:
            return False
        place = self.place(number)
        if place < 0:
            self.orphans = True
            return True
        c = &self.columns_of[place]
        grow_columns(c, count)
        if flags & 8:
            first = get_u64(p + at)
            stride = get_u64(p + at + 8)
            at += 16
            for k in range(count):
                c.step[c.count + k] = <int64_t>(first + k * stride)
        else:
            memcpy(c.step + c.count, p + at, 8 * count)
            at += 8 * count
        if flags & 16:
            memcpy(c.epoch + c.count, p + at, 8 * count)
            at += 8 * count
        else:
            if flags & 2:
                nan = get_f64(p + at)
                at += 8
            for k in range(count):
                c.epoch[c.count + k] = nan
        if flags & 32:
            memcpy(c.time + c.count, p + at, 8 * count)
            at += 8 * count
        else:
            first = order
            if flags & 4:
                first = get_u64(p + at)
                at += 8
            for k in range(count):
                c.time[c.count + k] = <int64_t>first
        if flags & 64:
            for k in range(count):
                bits = get_u32(p + at + 4 * k)
                memcpy(&single, &bits, 4)
                c.value[c.count + k] = single
        else:
            memcpy(c.value + c.count, p + at, 8 * count)
        for k in range(count):
            c.order[c.count + k] = order
            c.offset[c.count + k] = offset
        memset(c.flags + c.count, (flags & 1) | (2 if flags & 128 else 0), count)
        c.count += count
        return True

    def count(self, uint32_t number, uint64_t limit) -> int:
        """How many points of a sequence lie before offset `limit` of the file."""
        cdef int64_t place = self.place(number)
        return 0 if place < 0 else self.count_at(&self.columns_of[place], limit)

    cdef size_t count_at(self, Columns *c, uint64_t limit) noexcept:
        cdef size_t low = 0, high = c.count, middle
        if high == 0 or c.offset[high - 1] < limit:
            return high
        while low < high:
            middle = (low + high) // 2
            if c.offset[middle] < limit:
                low = middle + 1
            else:
                high = middle
        return low

    def last_order(self, uint32_t number, uint64_t limit) -> int:
        """The order of the last point of a sequence before offset `limit`, 0 if there is none."""
        cdef int64_t place = self.place(number)
        cdef size_t n = 0 if place < 0 else self.count_at(&self.columns_of[place], limit)
        return self.columns_of[place].order[n - 1] if n else 0

    def greatest_step(self, uint32_t number, uint64_t limit):
        """Of the points of a sequence before offset `limit`; None if there is none."""
        cdef int64_t place = self.place(number)
        cdef size_t n = 0 if place < 0 else self.count_at(&self.columns_of[place], limit), k
        cdef int64_t *step
        cdef int64_t greatest
        if n == 0:
            return None
        step = self.columns_of[place].step
        greatest = step[0]
        for k in range(1, n):
            if step[k] > greatest:
                greatest = step[k]
        return greatest

    def columns(self, uint32_t number, uint64_t limit) -> tuple:
        """(n, steps int64, values float64, epochs float64, times int64, orders uint64, offsets uint32, flags uint8): bytes of the points before offset `limit`,
        in the order written. flags: 1 the step was given, 2 the value was an int."""
        cdef int64_t place = self.place(number)
        cdef size_t n = 0 if place < 0 else self.count_at(&self.columns_of[place], limit)
        cdef Columns *c
        if n == 0:
            return 0, b"", b"", b"", b"", b"", b"", b""
        c = &self.columns_of[place]
        return (
            n,
            PyBytes_FromStringAndSize(<char *>c.step, 8 * n),
            PyBytes_FromStringAndSize(<char *>c.value, 8 * n),
            PyBytes_FromStringAndSize(<char *>c.epoch, 8 * n),
            PyBytes_FromStringAndSize(<char *>c.time, 8 * n),
            PyBytes_FromStringAndSize(<char *>c.order, 8 * n),
            PyBytes_FromStringAndSize(<char *>c.offset, 4 * n),
            PyBytes_FromStringAndSize(<char *>c.flags, n),
        )


def salvage(bytes data, uint64_t writer, uint32_t segment, left_out=frozenset()) -> bytes:
    """A journal made of the intact groups of a damaged one, numbered anew; its footer is left out, and so is each group with a record at an
    offset of `left_out`. data: the whole file."""
    cdef JournalReader reader = JournalReader(data[:FILE_HEADER], writer, segment)
    cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef size_t size = PyBytes_GET_SIZE(data), at = FILE_HEADER, end, length
    cdef uint32_t count = 0
    cdef bytearray kept = bytearray()
    cdef unsigned char *record
    cdef uint64_t order = reader.order
    cdef size_t last
    while at < size:
        if reader.group_at(p, at, size, &end) != GOOD:
            at = reader.next_good(p, end + 1, size)
            continue
        pieces = []
        is_left_out = False
        while at < end:
            length = HEADER + (get_u32(p + at + 8) & 0xFFFFFF)
            reader.next_record = <uint64_t>get_u32(p + at + 12) + 1
            if at in left_out:
                is_left_out = True
            if (get_u32(p + at + 8) >> 24) & 0x7F != KIND_ROTATED:
                pieces.append(bytearray(data[at : at + length]))
            at += length
        if is_left_out:
            continue
        last = len(pieces)
        for piece in pieces:
            record = piece
            last -= 1
            if order == 0:
                order = get_u64(record + 16)
            put_u32(record + 8, (get_u32(record + 8) & 0x7FFFFFFF) | (<uint32_t>(last > 0) << 31))
            put_u32(record + 12, count)
            put_u32(record, aimlite_crc32c(reader.seed, record + 4, HEADER - 4))
            kept += piece
            count += 1
    return encode_file_header(writer, segment, order, reader.pid) + bytes(kept)


def decode_footer(bytes tail, bytes header) -> tuple | None:
    """What the footer says, from the last bytes of a segment and its file header: (offsets, points by sequence number), or None when there is no good footer.

    `tail` must reach back to the beginning of the footer; its length stands at its end (`footer_length`).
    """
    cdef uint64_t writer
    cdef uint32_t segment, m, k, i
    cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(tail)
    cdef size_t size = PyBytes_GET_SIZE(tail), length
    writer, segment, _, _ = decode_file_header(header)
    length = footer_length(tail)
    if length < HEADER + 16 or length > size:
        return None
    p += size - length
    if get_u32(p) != aimlite_crc32c(header_seed(writer, segment), p + 4, HEADER - 4):
        return None
    if get_u32(p + 8) != ((KIND_ROTATED << 24) | (length - HEADER)) or get_u32(p + 4) != aimlite_crc32c(0, p + HEADER, length - HEADER):
        return None
    m = get_u32(p + HEADER)
    if HEADER + 16 + 4 * <size_t>m > length:
        return None
    k = get_u32(p + HEADER + 4 + 4 * m)
    if HEADER + 16 + 4 * (<size_t>m + k) != length:
        return None
    offsets = [get_u32(p + HEADER + 4 + 4 * i) for i in range(m)]
    p += HEADER + 8 + 4 * m
    return offsets, [get_u32(p + 4 * i) for i in range(k)]


def footer_length(bytes tail) -> int:
    """The length of the footer record that the last 8 bytes of a segment announce, 0 if none."""
    cdef size_t size = PyBytes_GET_SIZE(tail)
    if size < 8 or tail[size - 4 :] != b"ROTD":
        return 0
    return get_u32(<const unsigned char *>PyBytes_AS_STRING(tail) + size - 8)


def decode_record(bytes data, uint64_t writer, uint32_t segment) -> tuple:
    """(type, order, payload) of the record at the start of `data`. Raises CorruptionError."""
    cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef size_t size = PyBytes_GET_SIZE(data), length
    if size < HEADER or get_u32(p) != aimlite_crc32c(header_seed(writer, segment), p + 4, HEADER - 4):
        raise CorruptionError("a record header fails its check", offset=0)
    length = get_u32(p + 8) & 0xFFFFFF
    if size < HEADER + length or get_u32(p + 4) != aimlite_crc32c(0, p + HEADER, length):
        raise CorruptionError("a record fails its check", offset=0)
    return (get_u32(p + 8) >> 24) & 0x7F, get_u64(p + 16), data[HEADER : HEADER + length]


def record_length(bytes header) -> int:
    """The length of a whole record, from its first 12 bytes (not checked)."""
    return HEADER + (get_u32(<const unsigned char *>PyBytes_AS_STRING(header) + 8) & 0xFFFFFF)
