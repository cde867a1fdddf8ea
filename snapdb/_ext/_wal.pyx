# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The write-ahead log's frames and its checksum. ``_wal_py`` is the readable twin."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import errno
import os

__all__ = ["Log", "crc32", "scan", "stray"]

FRAME = WAL_FRAME
START = WAL_START
LARGEST = WAL_LARGEST
FIRST = WAL_FIRST
LAST = WAL_LAST
ROW = WAL_ROW

cdef extern from "Python.h":
    object PyNumber_Index(object value)

cdef extern from *:
    """
    #include <errno.h>
    #ifdef _WIN32
    #define SNAP_PWRITE 0
    static int snap_pwrite(int fd, const char *data, Py_ssize_t size, int64_t at) {
        (void)fd; (void)data; (void)size; (void)at;
        return EINVAL;
    }
    #else
    #include <unistd.h>
    #define SNAP_PWRITE 1
    /* All of it; 0 or an errno. Signals wait: a frame and what it stands for are one step. */
    static int snap_pwrite(int fd, const char *data, Py_ssize_t size, int64_t at) {
        const Py_ssize_t most = (Py_ssize_t)1 << 30;  /* some systems refuse more at once */
        while (size > 0) {
            ssize_t done = pwrite(fd, data, (size_t)(size < most ? size : most), (off_t)at);
            if (done < 0) {
                if (errno == EINTR) continue;
                return errno;
            }
            if (done == 0) return EIO;
            data += done;
            size -= done;
            at += done;
        }
        return 0;
    }
    #endif
    """
    bint SNAP_PWRITE
    int snap_pwrite(int fd, const char* data, Py_ssize_t size, int64_t at) nogil

cdef enum:
    SLICES = 16          # bytes taken in one step, a table for each
    BIG = 16384          # from here on other threads may run meanwhile
    LEAST = 4096         # bytes of a log's buffer
    KEEP = 4194304       # a larger one is given back when it is written
    PATIENCE = 16        # how often over `stray` checks as many bytes as there are

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF
cdef uint32_t[SLICES][256] TABLES
cdef bint LITTLE = False


cdef void fill_tables() noexcept:
    """TABLES[s][b]: what byte b contributes when s more bytes follow it in the step."""
    global LITTLE
    cdef uint32_t rest, order = 1
    cdef int byte, bit, s
    for byte in range(256):
        rest = byte
        for bit in range(8):
            rest = (rest >> 1) ^ (0xEDB88320u if rest & 1 else 0u)
        TABLES[0][byte] = rest
    for s in range(1, SLICES):
        for byte in range(256):
            rest = TABLES[s - 1][byte]
            TABLES[s][byte] = TABLES[0][rest & 0xFF] ^ (rest >> 8)
    LITTLE = (<uint8_t*>&order)[0] == 1


fill_tables()


cdef inline uint32_t word(uint64_t value, int slice) noexcept nogil:
    """The contribution of eight bytes, of which the last has ``slice`` more behind it."""
    return (TABLES[slice + 7][value & 0xFF] ^ TABLES[slice + 6][(value >> 8) & 0xFF]
            ^ TABLES[slice + 5][(value >> 16) & 0xFF] ^ TABLES[slice + 4][(value >> 24) & 0xFF]
            ^ TABLES[slice + 3][(value >> 32) & 0xFF] ^ TABLES[slice + 2][(value >> 40) & 0xFF]
            ^ TABLES[slice + 1][(value >> 48) & 0xFF] ^ TABLES[slice][value >> 56])


cdef uint32_t run(uint32_t crc, const uint8_t* at, Py_ssize_t size) noexcept nogil:
    cdef uint64_t first, second
    crc = ~crc
    if LITTLE:
        while size >= SLICES:
            memcpy(&first, at, 8)
            memcpy(&second, at + 8, 8)
            crc = word(first ^ crc, 8) ^ word(second, 0)
            at += SLICES
            size -= SLICES
    while size > 0:
        crc = TABLES[0][(crc ^ at[0]) & 0xFF] ^ (crc >> 8)
        at += 1
        size -= 1
    return ~crc


def crc32(data, value=0):
    """CRC-32 as ``zlib.crc32``, continued from ``value``."""
    cdef uint32_t crc = <uint32_t>(value & 0xFFFFFFFF)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < BIG:
            crc = run(crc, <const uint8_t*>view.buf, view.len)
        else:
            with nogil:
                crc = run(crc, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


# -- a frame's bytes ---------------------------------------------------------

cdef inline uint32_t get32(const uint8_t* at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef inline uint64_t get64(const uint8_t* at) noexcept nogil:
    return get32(at) | <uint64_t>get32(at + 4) << 32


cdef inline void set32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>value
    at[1] = <uint8_t>(value >> 8)
    at[2] = <uint8_t>(value >> 16)
    at[3] = <uint8_t>(value >> 24)


cdef inline void set64(uint8_t* at, uint64_t value) noexcept nogil:
    set32(at, <uint32_t>value)
    set32(at + 4, <uint32_t>(value >> 32))


cdef inline int64_t padded(int64_t size) noexcept nogil:
    return (size + 7) & ~<int64_t>7


cdef int make_seed(object salt, uint64_t epoch, uint32_t* seed) except -1:
    """The CRC-32 of salt and epoch, from which every frame's goes on."""
    cdef uint8_t[8] number
    cdef Py_buffer view
    set64(number, epoch)
    PyObject_GetBuffer(salt, &view, PyBUF_SIMPLE)
    try:
        if view.len != 16:
            raise ValueError(f"a salt has 16 bytes, not {view.len}")
        seed[0] = run(run(0, <const uint8_t*>view.buf, 16), number, 8)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int between(object value, int low, int high, str what) except -2:
    value = PyNumber_Index(value)
    if not low <= value <= high:
        raise ValueError(f"{what} must be between {low} and {high}, not {value}")
    return <int>value


# -- making frames -----------------------------------------------------------

@cython.final
@cython.internal
cdef class Memory:
    """A log's buffer. A ``write`` may keep what it was given, so it is an object, and a larger buffer a new one."""

    cdef char* data
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.data = <char*>PyMem_RawMalloc(size)
        if self.data == NULL:
            raise MemoryError(f"no memory for {size} bytes of the log")
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 1, flags)


@cython.final
cdef class Log:
    """The frames of one epoch, made and written in order. It knows files only as functions.

    ``write(data, offset)`` writes all of it or raises OSError; with ``fd`` of 0 or more (not on Windows) the log calls
    ``pwrite`` itself. ``room(end)`` makes the file ready for frames up to ``end``, ``failed(error)`` is called with the
    OSError of a write that failed, ``settle()`` is called by ``after()``. One caller at a time; with a file descriptor
    every method is one step under the GIL but for these functions.
    """

    def __init__(self, write, room, failed, settle):
        self.write, self.room, self.failed, self.settle = write, room, failed, settle
        self.position = self.written = WAL_START
        self.threshold = NEVER
        self.fd = -1

    @property
    def inner(self):
        """In a transaction: frames carry no LAST, and FIRST only the first one made since this was set to True."""
        return self.within

    @inner.setter
    def inner(self, bint value):
        self.within = self.opening = value

    def start(self, salt, uint64_t epoch, uint64_t lsn, uint32_t crc, int64_t limit, int fd=-1):
        """Begin an epoch whose file has room up to ``limit``: frame ``lsn + 1`` is at ``START`` and links to ``crc``.

        ValueError for a salt that is not 16 bytes, RuntimeError where frames are held.
        """
        cdef uint32_t seed = 0
        make_seed(salt, epoch, &seed)
        self.idle()
        if self.position != self.written:
            raise RuntimeError("the log cannot start an epoch: it holds frames of the one before")
        self.seed = seed
        self.lsn = self.first_lsn = lsn
        self.crc = self.first_crc = crc
        self.position = self.written = WAL_START
        self.limit = limit
        self.fd = fd if SNAP_PWRITE else -1
        self.placed = False

    def stop(self):
        """Not started any more: ``limit`` is 0, fd and what was held are forgotten, and ``position`` is ``START``."""
        self.fd = -1
        self.limit = 0
        self.position = self.written = WAL_START
        self.free()

    cdef char* place(self, int kind, Py_ssize_t size) except NULL:
        cdef int64_t whole = padded(WAL_FRAME + size)
        cdef Py_ssize_t used
        self.placed = False
        self.idle()
        if size < 0 or size > WAL_LARGEST:
            raise ValueError(f"a frame's payload has at most {WAL_LARGEST} bytes, not {size}")
        if self.limit <= 0:
            self.room(self.position + whole)
            if self.limit <= 0:
                raise RuntimeError("the log is not started")
        if not self.hold and self.position + whole > self.limit:
            self.room(self.position + whole)
            if not self.hold and self.position + whole > self.limit:  # room() may have started an epoch
                raise RuntimeError(f"the log has no room for {whole} bytes at {self.position}")
        used = <Py_ssize_t>(self.position - self.written)
        if self.capacity - used < whole:
            self.grow(used + <Py_ssize_t>whole)
        self.kind = kind
        self.size = size
        self.placed = True
        return self.data + used + WAL_FRAME

    cdef int put(self) except -1:
        if self.within:
            return self.complete(WAL_FIRST if self.opening else 0)
        return self.complete(WAL_FIRST | WAL_LAST)

    cdef int complete(self, int flags) except -1:
        cdef Py_ssize_t used = <Py_ssize_t>(self.position - self.written), end = WAL_FRAME + self.size
        cdef Py_ssize_t whole = <Py_ssize_t>padded(end)
        cdef int64_t position = self.position + whole
        cdef uint8_t* frame
        cdef uint64_t lsn = self.lsn + 1, transaction = lsn if flags & WAL_FIRST else self.transaction
        cdef uint32_t crc
        if not self.placed:
            raise RuntimeError("no frame was placed in the log")
        self.placed = False
        frame = <uint8_t*>self.data + used
        set32(frame + 4, self.crc)
        set32(frame + 8, <uint32_t>self.size)
        frame[12] = <uint8_t>self.kind
        frame[13] = <uint8_t>flags
        frame[14] = WAL_FRAME
        frame[15] = 0
        set64(frame + 16, lsn)
        set64(frame + 24, transaction)
        set64(frame + 32, self.durable_lsn)
        if end != whole:
            memset(frame + end, 0, whole - end)
        crc = run(self.seed, frame + 4, end - 4)
        set32(frame, crc)
        if not self.hold:
            self.store(used + whole)
            self.written = position
        self.position = position
        self.lsn = lsn
        self.crc = crc
        self.transaction = transaction
        self.opening = False
        if self.capacity > KEEP and self.written == position:
            self.free()
        return 0

    cdef int store(self, Py_ssize_t size) except -1:
        """Write the first ``size`` bytes of the buffer at ``written``."""
        cdef int code = 0
        if self.fd >= 0:
            code = snap_pwrite(self.fd, self.data, size, self.written)
            if code == 0:
                return 0
        try:
            if code:
                raise OSError(code, os.strerror(code))
            self.busy = True
            try:
                self.write(memoryview(self.memory)[:size], self.written)
            finally:
                self.busy = False
        except OSError as error:
            self.failed(error)
            raise
        except BaseException:  # an interrupt or no memory: the bytes may be in the file all the same
            try:
                self.failed(InterruptedError(errno.EINTR, os.strerror(errno.EINTR)))
            except OSError:
                pass  # it says that nothing was kept, or that the log is of no further use
            raise
        return 0

    cdef int grow(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity = max(self.capacity, LEAST), used = <Py_ssize_t>(self.position - self.written)
        cdef Memory memory
        while capacity < size:
            capacity *= 2
        memory = Memory(capacity)
        if used:
            memcpy(memory.data, self.data, used)
        self.memory, self.data, self.capacity = memory, memory.data, capacity
        return 0

    cdef int free(self) except -1:
        """Give a large buffer back; nothing is in it any more."""
        self.placed = False
        if self.capacity > KEEP:
            self.data = NULL
            self.capacity = 0
            self.memory = None
        return 0

    cdef int idle(self) except -1:
        if self.busy:
            raise RuntimeError("the log is being written")
        return 0

    def append(self, kind, payload, flags=-1):
        """Make one frame and write or hold it; returns its LSN. ``flags`` of -1: FIRST | LAST, or what ``inner`` says.

        ValueError for a payload over ``LARGEST``, a kind outside 1 to 255 or other flags.
        """
        cdef int code = between(kind, 1, 255, "kind"), marks = between(flags, -1, 3, "flags")
        cdef Py_buffer view
        cdef char* at
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            at = self.place(code, view.len)
            if view.len:
                memcpy(at, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if marks < 0:
            self.put()
        else:
            self.complete(marks)
        return self.lsn

    cdef int settle_after(self) except -1:
        if self.attention or self.position > self.threshold:
            self.settle()
        return 0

    def after(self):
        """What every writer calls when its change is in the table: ``settle()`` where somebody asked for it."""
        self.settle_after()

    def mark(self):
        """(lsn, crc, position): where the log is now."""
        return (self.lsn, self.crc, self.position)

    def rollback(self, mark):
        """Forget the frames made since ``mark``; returns how many bytes of them are in the file and have to be erased.

        0 where the log is not started. ValueError for a mark of another epoch.
        """
        cdef uint64_t lsn
        cdef uint32_t crc
        cdef int64_t position, gone
        lsn, crc, position = mark
        self.idle()
        if self.limit <= 0:
            return 0
        if position == WAL_START and lsn == 0 and crc == 0:  # made before the log was ever started
            lsn, crc = self.first_lsn, self.first_crc
        if (position < WAL_START or position > self.position or lsn > self.lsn
                or (position == self.position) != (lsn == self.lsn)
                or (position == WAL_START) != (lsn == self.first_lsn)):
            raise ValueError("this mark is not of the log's epoch")
        gone = max(<int64_t>0, self.written - position)
        found = <object>gone  # before anything changes: it takes memory
        self.written -= gone
        self.lsn, self.crc, self.position = lsn, crc, position
        if lsn < self.transaction:
            self.transaction = lsn
            self.opening = self.within
        self.placed = False
        if position == self.written:
            self.free()
        return found

    def flush(self):
        """Write what is held. Where that fails it is still held."""
        self.idle()
        if self.position == self.written:
            return
        if self.position > self.limit:
            self.room(self.position)
            if self.position > self.limit:
                raise RuntimeError(f"the log has no room for frames up to {self.position}")
            if self.position == self.written:  # written meanwhile
                return
        self.store(<Py_ssize_t>(self.position - self.written))
        self.written = self.position
        self.free()


# -- finding frames ----------------------------------------------------------

cdef struct Header:
    uint32_t crc, before, size
    int kind, flags
    uint64_t lsn, transaction, durable


cdef inline bint look(const uint8_t* at, int64_t left, Header* header) noexcept nogil:
    """Whether a header stands here whose frame lies within the bytes that are left and contradicts itself nowhere."""
    if left < WAL_FRAME or at[14] != WAL_FRAME or at[15] != 0 or at[12] == 0 or at[13] > 3:
        return False
    header.size = get32(at + 8)
    if header.size > WAL_LARGEST or header.size > left - WAL_FRAME:
        return False
    header.crc = get32(at)
    header.before = get32(at + 4)
    header.kind = at[12]
    header.flags = at[13]
    header.lsn = get64(at + 16)
    header.transaction = get64(at + 24)
    header.durable = get64(at + 32)
    return header.transaction == header.lsn if header.flags & WAL_FIRST else header.transaction < header.lsn


cdef inline bint verifies(const uint8_t* at, Header* header, uint32_t seed) noexcept nogil:
    return run(seed, at + 4, WAL_FRAME - 4 + header.size) == header.crc


def scan(data, salt, uint64_t epoch, uint64_t lsn, uint32_t crc):
    """The frames of a log file's bytes that verify, in order, from ``START`` on.

    The first is to be ``lsn + 1`` and to link to ``crc``. Returns ([(lsn, transaction, kind, flags, first byte of the
    payload, byte past it)], where the next frame would be, CRC field of the last one).
    """
    cdef Py_buffer view
    cdef Header header
    cdef const uint8_t* bytes_
    cdef int64_t at = WAL_START
    cdef uint64_t running = 0
    cdef bint whole, known = False
    cdef uint32_t seed = 0
    cdef list frames = []
    make_seed(salt, epoch, &seed)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        bytes_ = <const uint8_t*>view.buf
        while at < view.len and look(bytes_ + at, view.len - at, &header):
            if header.lsn != lsn + 1 or header.before != crc:
                break
            if not header.flags & WAL_FIRST and not (known and header.transaction == running):
                break
            if header.size < BIG:
                whole = verifies(bytes_ + at, &header, seed)
            else:
                with nogil:
                    whole = verifies(bytes_ + at, &header, seed)
            if not whole:
                break
            lsn, crc, running, known = header.lsn, header.crc, header.transaction, True
            frames.append((lsn, running, header.kind, header.flags, at + WAL_FRAME, at + WAL_FRAME + header.size))
            at += padded(WAL_FRAME + <int64_t>header.size)
    finally:
        PyBuffer_Release(&view)
    return frames, at, crc


cdef int64_t find(
    const uint8_t* data, int64_t at, int64_t size, uint32_t seed, uint64_t lsn, Header* header
) noexcept nogil:
    """Where the first frame is that proves ``lsn``, at or past ``at``; -1: there is none."""
    cdef int64_t patience = PATIENCE * size  # real frames lie side by side; hostile ones could make this quadratic
    while at <= size - WAL_FRAME:
        if (data[at + 14] == WAL_FRAME and look(data + at, size - at, header)
                and header.lsn > lsn and lsn <= header.durable <= header.lsn):
            patience -= WAL_FRAME + <int64_t>header.size
            if patience < 0:
                return -1
            if verifies(data + at, header, seed):
                return at
        at += 8
    return -1


def stray(data, int64_t start, salt, uint64_t epoch, uint64_t lsn):
    """The first frame past ``start`` that verifies by itself, with an LSN over ``lsn`` and a durable LSN not under it.

    Every multiple of 8 is looked at. Returns (lsn, durable LSN, place) or None. It proves that the frame ``lsn`` at
    ``start``, which does not verify, was acknowledged.
    """
    cdef Py_buffer view
    cdef Header header
    cdef uint32_t seed = 0
    cdef int64_t at = -1
    make_seed(salt, epoch, &seed)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if start < view.len:
            with nogil:
                at = find(<const uint8_t*>view.buf, 0 if start < 0 else (start | 7) + 1, view.len, seed, lsn, &header)
    finally:
        PyBuffer_Release(&view)
    return None if at < 0 else (header.lsn, header.durable, at)
