# cython: language_level=3, boundscheck=False, wraparound=False
"""The write-ahead log's checksum. ``_wal_py`` is the readable twin."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

__all__ = ["crc32"]

cdef enum:
    SLICES = 16          # bytes taken in one step, a table for each
    BIG = 16384          # from here on other threads may run meanwhile

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
