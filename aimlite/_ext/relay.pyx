"""A thread without the GIL that passes on what comes out of one descriptor to another and keeps a copy, with the time, to be fetched. relay.h has the reasons."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport fflush
from libc.stdlib cimport free
from libc.string cimport memcpy

import fcntl
import os


cdef extern from "relay.h":
    enum:
        AIMLITE_FRAME
    ctypedef struct aimlite_relay:
        int source
        int target
        int number
        int standby
        unsigned char *data
        size_t length
        size_t capacity
        uint64_t lost
        int keeps
        int ended
        int forked
    aimlite_relay *aimlite_relay_start(int source, int target, int wake_reads, int wake_writes, int number, int terminal) nogil
    void aimlite_relay_free(aimlite_relay *r) nogil
    int aimlite_relay_sync(aimlite_relay *r) nogil
    int aimlite_relay_idle(aimlite_relay *r) nogil
    void aimlite_relay_settle(aimlite_relay *r, int limit_us) nogil


cdef extern from *:
    """
    static void aimlite_relay_lock(aimlite_relay *r) { pthread_mutex_lock(&r->mutex); }
    static void aimlite_relay_unlock(aimlite_relay *r) { pthread_mutex_unlock(&r->mutex); }
    """
    void aimlite_relay_lock(aimlite_relay *r) nogil
    void aimlite_relay_unlock(aimlite_relay *r) nogil


def flush_c() -> None:
    """Writes out what C's stdio holds back."""
    with nogil:
        fflush(NULL)


cdef class Relay:
    """source, target: descriptors, its own from now on unless OSError is raised. number: what the standby process knows the source by. terminal: source is the master of a
    pseudo-terminal, whose size follows that of the target."""

    cdef aimlite_relay *relay

    def __cinit__(self, int source, int target, int number, bint terminal):
        reads, writes = os.pipe()
        try:
            for fd in (reads, writes, source):
                os.set_blocking(fd, False)
            low = [fd for fd in (reads, writes) if fd < 3]  # a descriptor that was closed stays so for whoever writes to it
            if low:
                reads, writes = fcntl.fcntl(reads, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(writes, fcntl.F_DUPFD_CLOEXEC, 3)
                for fd in low:
                    os.close(fd)
            self.relay = aimlite_relay_start(source, target, reads, writes, number, terminal)
            if self.relay == NULL:
                raise OSError(errno, os.strerror(errno))
        except BaseException:
            os.close(reads)
            os.close(writes)
            raise

    def __dealloc__(self):
        if self.relay != NULL and self.relay.ended:  # else the thread goes on to the end of the process
            aimlite_relay_free(self.relay)

    @property
    def ended(self) -> bool:
        """Whether nobody can write into the source any more, and all was passed on; or whether this is a forked child."""
        return self.relay.ended

    @property
    def forked(self) -> bool:
        return self.relay.forked

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be passed on or fetched."""
        return aimlite_relay_idle(self.relay)

    def sync(self) -> bool:
        """Waits until all that was written before is passed on and kept. Returns whether more can come."""
        cdef int more
        with nogil:
            more = aimlite_relay_sync(self.relay)
        return more

    def settle(self, int limit_us) -> None:
        """Waits until nothing waits to be passed on, no longer than that."""
        with nogil:
            aimlite_relay_settle(self.relay, limit_us)

    def fetch(self) -> tuple:
        """([(microseconds since 1970, bytes)] of what was kept since the last time, how many bytes could not be kept)."""
        cdef unsigned char *data
        cdef size_t length, at = 0
        cdef uint64_t lost, time
        cdef uint32_t n
        if not self.relay.length and not self.relay.lost:
            return [], 0
        with nogil:
            aimlite_relay_lock(self.relay)
            data, length, lost = self.relay.data, self.relay.length, self.relay.lost
            self.relay.data = NULL
            self.relay.length = self.relay.capacity = 0
            self.relay.lost = 0
            aimlite_relay_unlock(self.relay)
        chunks = []
        try:
            while at < length:
                memcpy(&time, data + at, 8)
                memcpy(&n, data + at + 8, 4)
                chunks.append((time, PyBytes_FromStringAndSize(<char *>data + at + AIMLITE_FRAME, n)))
                at += AIMLITE_FRAME + n
        finally:
            free(data)
        return chunks, lost

    def keep(self, bint keeps) -> None:
        """Whether copies are kept from now on."""
        aimlite_relay_lock(self.relay)
        self.relay.keeps = keeps
        aimlite_relay_unlock(self.relay)

    def copies(self, int standby):
        """(number, source, target), the latter copies to be closed, for a standby process; None when the relay has ended. standby: a pipe through which that process
        will be told what no longer needs to be passed on; a copy is kept."""
        aimlite_relay_lock(self.relay)
        try:
            if self.relay.ended or self.relay.source < 0:
                return None
            source = fcntl.fcntl(self.relay.source, fcntl.F_DUPFD_CLOEXEC, 3)
            target = fcntl.fcntl(self.relay.target, fcntl.F_DUPFD_CLOEXEC, 3)
            self.relay.standby = fcntl.fcntl(standby, fcntl.F_DUPFD_CLOEXEC, 3)
            return self.relay.number, source, target
        finally:
            aimlite_relay_unlock(self.relay)
