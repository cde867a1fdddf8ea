# cython: language_level=3
# For kernels that write frames without a Python call: place() gives room for the payload of one frame, put() completes it.
# Between the two nothing may run that could use the log, so no Python code: the pointer is into the log's own buffer.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    WAL_FRAME = 40          # bytes of a frame's header
    WAL_START = 64          # where the first frame is
    WAL_LARGEST = 16777216  # bytes of a payload
    WAL_FIRST = 1           # flags
    WAL_LAST = 2
    WAL_ROW = 1             # the kind of an insert of one row


cdef class Log:
    cdef char* place(self, int kind, Py_ssize_t size) except NULL   # may call room(); nothing is written or counted yet; a second place() replaces the first
    cdef int put(self) except -1                                    # header, CRC, write or hold: from here on the frame counts
    cdef int settle_after(self) except -1                           # after() as C: two comparisons where nothing is to be done

    cdef readonly uint64_t lsn
    cdef readonly uint32_t crc
    cdef readonly int64_t position, written
    cdef public int64_t limit, threshold
    cdef public uint64_t durable_lsn
    cdef public bint hold, attention
    # private
    cdef bint within                   # in a transaction
    cdef readonly bint opening         # the next frame is the first of its transaction
    cdef bint placed                   # place() was called, put() not yet
    cdef bint busy                     # write() is running, which is Python code
    cdef int kind, fd
    cdef Py_ssize_t size, capacity
    cdef uint32_t seed, first_crc
    cdef uint64_t transaction, first_lsn
    cdef char* data                    # of memory: the frames from ``written`` to ``position``, and room behind them
    cdef object memory, write, room, failed, settle
    cdef int complete(self, int flags) except -1
    cdef int store(self, Py_ssize_t size) except -1
    cdef int grow(self, Py_ssize_t size) except -1
    cdef int free(self) except -1
    cdef int idle(self) except -1
