# cython: language_level=3
"""Selection bitmaps, compiled: bit i of byte i >> 3, whole 64-bit words. ``_mask_py`` is the readable twin."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ._kernels cimport (
    BLOCK, NONE, WORDS, SnapdbGroups, snapdb_choose, snapdb_fill_bits, snapdb_group_direct, snapdb_group_keys, snapdb_groups_free,
    snapdb_groups_start, snapdb_ids, snapdb_kernels,
)
from ._values cimport Memory

__all__ = [
    "and_into", "andnot_into", "any_set", "combine", "count", "empty", "from_ids", "full", "ids", "last", "or_into",
    "pick", "scatter", "set_bit", "simd_level", "test",
]

include "_buffers.pxi"

cdef enum:
    DIRECT = 1 << 18  # pairs of groups that are numbered through a table instead of a hash


cdef int take_words(object mask, Py_buffer* held) except -1:
    """Hold a mask; one that is not whole words is padded."""
    take_bytes(mask, held)
    cdef Py_ssize_t size = held.len
    if size & 7:
        PyBuffer_Release(held)
        take_bytes(bytes(mask) + bytes(-size & 7), held)
    return 0


cdef Py_ssize_t checked_size(Py_ssize_t rows) except -1:
    if rows < 0:
        raise ValueError(f"rows must not be negative, got {rows}")
    return mask_size(rows)


def full(Py_ssize_t rows):
    """A bitmap of every row."""
    cdef bytearray mask = empty(rows)
    snapdb_fill_bits(<uint8_t*>PyByteArray_AS_STRING(mask), 0, rows)
    return mask


def empty(Py_ssize_t rows):
    """A bitmap of no row."""
    cdef Py_ssize_t size = checked_size(rows)
    cdef bytearray mask = new_bytes(size)
    memset(PyByteArray_AS_STRING(mask), 0, size)
    return mask


cdef enum Operation:
    AND, OR, ANDNOT


cdef int merge(bytearray target, object other, Operation operation) except -1:
    cdef Py_buffer held
    cdef uint8_t* into
    cdef Py_ssize_t size = len(target), words = size >> 3, i
    take_bytes(other, &held)
    try:
        if held.len != size:
            raise ValueError(f"masks differ in length: {size} and {held.len} bytes")
        into = <uint8_t*>PyByteArray_AS_STRING(target)
        if operation == AND:
            snapdb_kernels.and_words(into, <const uint8_t*>held.buf, words)
        elif operation == OR:
            snapdb_kernels.or_words(into, <const uint8_t*>held.buf, words)
        else:
            snapdb_kernels.andnot_words(into, <const uint8_t*>held.buf, words)
        for i in range(words << 3, size):
            if operation == AND:
                into[i] &= (<const uint8_t*>held.buf)[i]
            elif operation == OR:
                into[i] |= (<const uint8_t*>held.buf)[i]
            else:
                into[i] &= ~(<const uint8_t*>held.buf)[i]
    finally:
        PyBuffer_Release(&held)
    return 0


def and_into(bytearray target not None, other):
    """``target &= other``; ValueError where lengths differ (here and below)."""
    merge(target, other, AND)


def or_into(bytearray target not None, other):
    """``target |= other``."""
    merge(target, other, OR)


def andnot_into(bytearray target not None, other):
    """``target &= ~other``."""
    merge(target, other, ANDNOT)


def count(mask):
    """Rows selected."""
    cdef Py_buffer held
    take_words(mask, &held)
    cdef uint64_t found = snapdb_kernels.popcount(held.buf, held.len >> 3)
    PyBuffer_Release(&held)
    return found


def any_set(mask):
    """Whether any row is selected."""
    cdef Py_buffer held
    cdef Py_ssize_t i
    cdef bint found = False
    take_bytes(mask, &held)
    for i in range(held.len):
        if (<const uint8_t*>held.buf)[i]:
            found = True
            break
    PyBuffer_Release(&held)
    return found


def ids(mask, Py_ssize_t skip=0, Py_ssize_t limit=-1):
    """Selected rows in order as u32 ('I'), after the first ``skip``, at most ``limit`` (-1: all)."""
    cdef Py_buffer held
    cdef Memory found
    cdef Py_ssize_t size
    cdef size_t written
    take_words(mask, &held)
    try:
        size = snapdb_kernels.popcount(held.buf, held.len >> 3)
        skip = min(max(skip, 0), size)
        size -= skip
        if 0 <= limit < size:
            size = limit
        found = uncleared(size * 4)
        with nogil:
            written = snapdb_ids(<const uint8_t*>held.buf, held.len >> 3, skip, size, <uint32_t*>found.ptr)
    finally:
        PyBuffer_Release(&held)
    return u32_view(found, written)


def last(mask):
    """The last selected row, -1 where there is none."""
    cdef Py_buffer held
    cdef Py_ssize_t i, row = -1
    cdef uint8_t byte
    take_bytes(mask, &held)
    for i in range(held.len - 1, -1, -1):
        byte = (<const uint8_t*>held.buf)[i]
        if byte:
            row = i << 3
            while byte > 1:
                byte >>= 1
                row += 1
            break
    PyBuffer_Release(&held)
    return row


def set_bit(bytearray mask not None, Py_ssize_t row):
    """Select one row; IndexError outside."""
    if not 0 <= row < len(mask) << 3:
        raise IndexError(f"row {row} is outside a mask of {len(mask) << 3} rows")
    (<uint8_t*>PyByteArray_AS_STRING(mask))[row >> 3] |= 1 << (row & 7)


def test(mask, Py_ssize_t row):
    """Whether a row is selected; IndexError outside."""
    cdef Py_buffer held
    cdef bint found
    take_bytes(mask, &held)
    cdef Py_ssize_t rows = held.len << 3
    found = 0 <= row < rows and (<const uint8_t*>held.buf)[row >> 3] >> (row & 7) & 1
    PyBuffer_Release(&held)
    if not 0 <= row < rows:
        raise IndexError(f"row {row} is outside a mask of {rows} rows")
    return found


def from_ids(rows, Py_ssize_t size):
    """A bitmap over ``size`` rows of the rows in a u32 buffer; IndexError for one outside."""
    cdef Py_buffer held
    cdef bytearray mask = empty(size)
    cdef uint8_t* bits = <uint8_t*>PyByteArray_AS_STRING(mask)
    cdef Py_ssize_t i
    cdef uint32_t row, worst = 0
    cdef const uint32_t* listed
    take_u32(rows, &held)
    try:
        listed = <const uint32_t*>held.buf
        with nogil:
            for i in range(held.len >> 2):
                row = listed[i]
                if row < size:
                    bits[row >> 3] |= 1 << (row & 7)
                elif row > worst:
                    worst = row
        if held.len and worst >= size:
            raise IndexError(f"row {worst} is outside a mask of {size} rows")
    finally:
        PyBuffer_Release(&held)
    return mask


cdef int inside(const uint32_t* listed, Py_ssize_t count, Py_ssize_t bits) except -1:
    """IndexError for a row past a mask."""
    cdef Py_ssize_t i
    for i in range(count):
        if listed[i] >= bits:
            raise IndexError(f"row {listed[i]} is outside a mask of {bits} rows")
    return 0


def pick(mask, rows):
    """The bits of a mask at the rows in a u32 buffer, as a bitmap over these; IndexError for one outside."""
    cdef Py_buffer held, listed
    cdef bytearray found
    cdef uint8_t* into
    cdef const uint8_t* bits
    cdef uint32_t row
    cdef Py_ssize_t i
    take_bytes(mask, &held)
    try:
        take_u32(rows, &listed)
        try:
            inside(<const uint32_t*>listed.buf, listed.len >> 2, held.len << 3)
            found = empty(listed.len >> 2)
            into = <uint8_t*>PyByteArray_AS_STRING(found)
            bits = <const uint8_t*>held.buf
            for i in range(listed.len >> 2):
                row = (<const uint32_t*>listed.buf)[i]
                into[i >> 3] |= (bits[row >> 3] >> (row & 7) & 1) << (i & 7)
        finally:
            PyBuffer_Release(&listed)
    finally:
        PyBuffer_Release(&held)
    return found


def scatter(bytearray target not None, rows, bits):
    """Set the rows in a u32 buffer to the bits of a bitmap over these, all others stay; IndexError for one outside."""
    cdef Py_buffer held, listed
    cdef uint8_t* into
    cdef const uint8_t* given
    cdef uint32_t row
    cdef Py_ssize_t i
    take_bytes(bits, &held)
    try:
        take_u32(rows, &listed)
        try:
            if held.len != mask_size(listed.len >> 2):
                raise ValueError(f"a mask over {listed.len >> 2} rows has {mask_size(listed.len >> 2)} bytes, got {held.len}")
            inside(<const uint32_t*>listed.buf, listed.len >> 2, len(target) << 3)
            into = <uint8_t*>PyByteArray_AS_STRING(target)
            given = <const uint8_t*>held.buf
            for i in range(listed.len >> 2):
                row = (<const uint32_t*>listed.buf)[i]
                into[row >> 3] = (into[row >> 3] & ~(1 << (row & 7))) | ((given[i >> 3] >> (i & 7) & 1) << (row & 7))
        finally:
            PyBuffer_Release(&listed)
    finally:
        PyBuffer_Release(&held)


cdef int pair_up(SnapdbGroups* groups, bint direct, const uint32_t* a, uint64_t groups_a, const uint32_t* b, uint64_t groups_b,
                 Py_ssize_t rows, uint32_t* out) noexcept nogil:
    """Number the pairs; 0, -1 without memory, 2 where a code is outside its groups."""
    cdef uint64_t keys[BLOCK]
    cdef uint32_t codes[BLOCK]
    cdef uint64_t selected[WORDS]
    cdef Py_ssize_t at = 0, n, i
    cdef int status
    while at < rows:
        n = min(rows - at, <Py_ssize_t>BLOCK)
        memset(selected, 0, sizeof(selected))
        for i in range(n):
            keys[i] = 0
            codes[i] = 0
            if a[at + i] == NONE or b[at + i] == NONE:
                continue
            if a[at + i] >= groups_a or b[at + i] >= groups_b:
                return 2
            selected[i >> 6] |= <uint64_t>1 << (i & 63)
            keys[i] = a[at + i] * groups_b + b[at + i]
            codes[i] = <uint32_t>keys[i]
        if direct:
            status = snapdb_group_direct(groups, codes, selected, NULL, <uint32_t>at, n, out + at)
        else:
            status = snapdb_group_keys(groups, keys, selected, NULL, <uint32_t>at, n, out + at)
        if status:
            return status
        at += n
    return 0


def combine(a, Py_ssize_t groups_a, b, Py_ssize_t groups_b):
    """Group numbers of pairs: (codes, first) for two u32 code buffers as ``Chunk.group`` gives them.

    Numbered in order of first row; 0xFFFFFFFF in either stays.
    """
    cdef Py_buffer left, right
    cdef SnapdbGroups groups
    cdef Memory codes, first
    cdef Py_ssize_t rows, i
    cdef int status
    cdef bint direct
    if not 0 <= groups_a <= NONE or not 0 <= groups_b <= NONE:
        raise ValueError(f"group counts out of range: {groups_a} and {groups_b}")
    direct = 0 < groups_a * groups_b <= DIRECT if groups_a <= DIRECT and groups_b <= DIRECT else False
    memset(&groups, 0, sizeof(groups))
    take_u32(a, &left)
    try:
        take_u32(b, &right)
        try:
            if left.len != right.len:
                raise ValueError(f"group codes differ in length: {left.len >> 2} and {right.len >> 2}")
            rows = left.len >> 2
            codes = uncleared(rows * 4)
            if snapdb_groups_start(&groups, groups_a * groups_b if direct else 0, 0, NONE):
                raise MemoryError()
            with nogil:
                status = pair_up(&groups, direct, <const uint32_t*>left.buf, groups_a, <const uint32_t*>right.buf, groups_b,
                                 rows, <uint32_t*>codes.ptr)
            if status == 2:
                raise ValueError(f"a group code is outside 0..{groups_a} or 0..{groups_b}")
            if status:
                raise MemoryError()
            first = uncleared(<Py_ssize_t>groups.groups * 4)
            for i in range(groups.groups):
                (<uint32_t*>first.ptr)[i] = groups.first[i]
        finally:
            PyBuffer_Release(&right)
    finally:
        PyBuffer_Release(&left)
        snapdb_groups_free(&groups)
    return u32_view(codes, rows), u32_view(first, groups.groups)
