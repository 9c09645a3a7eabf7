from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "journal_file.h":
    ctypedef struct aimlite_file:
        int fd
        int forked


cdef class JournalWriter:
    cdef aimlite_file *file
    cdef unsigned char *buffer
    cdef size_t capacity
    cdef uint32_t seed
    cdef uint32_t records          # written in this segment
    cdef uint64_t rotate_at
    cdef uint64_t rotate_time
    cdef uint32_t *points          # by sequence number: points in this segment
    cdef uint32_t points_capacity
    cdef uint32_t *meta            # offsets of the records that are not points
    cdef uint32_t meta_count, meta_capacity
    cdef readonly bint poisoned    # what the kernel has of this file is unknown: it is not written again
    cdef uint64_t segment_bytes, segment_age_us
    cdef object on_rotate
    cdef object on_lost
    cdef readonly uint64_t offset
    cdef readonly uint64_t order   # the newest given out
    cdef readonly uint64_t epoch   # raised when the segment changes: what was declared must be declared again
    cdef readonly uint32_t segment
    cdef readonly uint64_t writer
    cdef readonly uint32_t sequences   # declared in this segment

    cdef int acquire(self) except -1
    cdef void release(self) noexcept
    cdef int reserve(self, size_t size) except -1
    cdef int release_buffer(self) except -1
    cdef size_t put_group(self, list records, uint64_t order) except? 0
    cdef int reserve_sequence(self, uint32_t number) except -1
    cdef void finish_record(self, size_t start, uint32_t kind, size_t length, bint more, uint32_t index, uint64_t order) noexcept
    cdef int write_out(self, size_t length, bint sync) except -1
    cdef int note_meta(self, uint64_t offset) except -1
