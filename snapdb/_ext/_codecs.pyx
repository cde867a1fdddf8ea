# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Chunks, compiled: a column of a segment, encoded, and computed on while encoded. ``_codecs_py`` is the readable twin.

Every verb goes block by block (1,024 rows) through a few KiB on the stack: load the block's containers (unpacked, or in
place where they are plain), select by a byte mask, compute. The parts: ``_codecs_streams.pxi`` knows layouts, slopes
and decimals, ``_codecs_load.pxi`` reads and checks sealed bytes and loads blocks, ``_codecs_views.pxi`` makes views and
parts, ``_codecs_decode.pxi`` buffers and Python values, ``_codecs_select.pxi`` answers predicates,
``_codecs_reduce.pxi`` sums and groups, ``_codecs_sweep.pxi`` scans many segments, ``_codecs_encode.pxi`` and
``_codecs_analyze.pxi`` seal. Masks
are trimmed to the chunk's rows wherever they come in.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY, NAN, isnan, nextafter, nextafterf
from libc.stdint cimport INT64_MAX, INT64_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from operator import index as _index

from ._common import LIMITS as _LIMITS, NAN as _NAN, TYPECODES as _TYPECODES, Zone as _Zone

from ._kernels cimport *
from ._values cimport ColumnBuffer, Memory, allocate, logical_bytes, logical_fixed

__all__ = ["Chunk", "Filter", "Sweep", "distinct", "encode", "simd_level"]

cdef enum:
    I8 = 1, I16, I32, I64, U8, U16, U32, U64, F32, F64, BOOL, BYTES, STR, BINARY, DATE, DATETIME
    RAW = 1, CONST, AFFINE, FOR, DICT, BITMAP, SLOPE, DEC
    PACKED = 0, EXCEPTED, RUNS
    FRONT = 1     # flag: a front-coded dictionary
    RESTART = 16  # its entries from one whole one to the next
    MOST_RUNS = 8192
    MOST_ODD = 16
    HEADER = 128
    SEGMENT = 65536
    MOST_ENTRIES = 65535
    PREFIX = 32  # bytes of a text bound in a zone

cdef int[17] WIDTH = [0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 1, 0, 0, 0, 4, 8]
cdef bint[17] SIGNED = [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]

cdef object _MASK64 = 0xFFFFFFFFFFFFFFFF
cdef object _MIN64 = -0x8000000000000000
cdef object _MAX64 = 0x7FFFFFFFFFFFFFFF
cdef object _MAX_HEAP = 0xFFFFFFFF


cdef struct Scratch:  # what one block needs
    uint64_t values[BLOCK]
    uint64_t other[BLOCK]
    uint64_t blended[BLOCK]
    uint32_t slots[BLOCK]
    uint8_t bytes[BLOCK]
    uint64_t words[WORDS]
    uint64_t nulls[WORDS]


cdef const SnapdbKernels* chosen_kernels() noexcept nogil:
    return snapdb_kernels


include "_buffers.pxi"
include "_codecs_streams.pxi"
include "_codecs_load.pxi"
include "_codecs_views.pxi"
include "_codecs_decode.pxi"
include "_codecs_select.pxi"
include "_codecs_reduce.pxi"
include "_codecs_encode.pxi"
include "_codecs_analyze.pxi"
include "_codecs_groups.pxi"
include "_codecs_sweep.pxi"


@cython.final
@cython.no_gc  # all it holds is memory: no cycle goes through it, and clearing a view that it exports would warn
cdef class Chunk:
    """An immutable column of at most 65,536 rows: sealed bytes (``docs/format.md``) or a raw view of a buffer.

    The codec's five verbs: *analyze* and *encode* are ``encode()`` below; *decode*, *select* and *fetch* stand here.
    Masks are bitmaps of ``mask_bytes(rows)`` bytes; ``mask=None`` means every row. Scans release the GIL.
    """

    def __init__(self, data):
        """Read sealed bytes, which are not trusted: ValueError names what is wrong. The buffer is held, not copied."""
        if self.codec:
            raise ValueError("this chunk has been read already")
        try:
            read_sealed(self, data)
        except BaseException:
            forget(self)
            raise

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.source)

    @staticmethod
    def view(ColumnBuffer buffer not None, Py_ssize_t start=0, stop=None):
        """A RAW view of rows ``start..stop`` of a buffer (``start`` a multiple of 8). Later appends do not show."""
        return view_of(buffer, start, buffer.rows if stop is None else stop)

    @staticmethod
    def adopt(other not None):
        """This backend's chunk over another backend's chunk, sharing its memory."""
        if isinstance(other, Chunk):
            return other
        if other.sealed:
            return Chunk(other.data)
        code, rows, data, offsets, nulls, null_count = other.parts()
        return adopt_parts(code, rows, data, offsets, nulls, null_count)

    @property
    def data(self):
        """Sealed: the whole chunk's bytes, read-only."""
        if not self.sealed:
            raise ValueError("a view of a buffer has no sealed bytes")
        return memoryview(self.owner)[:self.total]

    def parts(self):
        """A raw view's (code, rows, data, offsets, nulls, null_count), as the properties of ColumnBuffer give them, cut to its rows."""
        if self.sealed:
            raise ValueError("a sealed chunk has no parts; use data")
        if is_part(self):
            return view_parts(view_of(decode_all(self), 0, self.rows))
        return view_parts(self)

    def part(self, Py_ssize_t first_block, Py_ssize_t blocks):
        """Some blocks, at least one, as a chunk over the same memory; ValueError for blocks that are not there."""
        return part_of(self, first_block, blocks)

    @property
    def nbytes(self):
        """Bytes: of the whole chunk where it is sealed, else of the rows in view."""
        cdef Py_ssize_t nulls = mask_size(self.rows) if self.null_bits != NULL else 0
        if self.sealed or is_part(self):
            return self.total + (0 if self.unfolded is None else (<Memory>self.unfolded).size)
        return nulls + (self.heap_size + 8 * (self.rows + 1) if self.is_string else self.rows * self.item)

    # -- one row and all rows ----------------------------------------------

    cdef bint null_at(self, Py_ssize_t row) noexcept:
        if self.null_bits == NULL:
            return self.null_count == self.rows
        return self.null_bits[row >> 3] >> (row & 7) & 1

    cdef object logical_at(self, Py_ssize_t row):
        cdef uint64_t word
        cdef Text text
        if self.null_count and self.null_at(row):
            return None
        if self.is_string:
            text = text_at(self, row)
            return logical_bytes(self.code, text.ptr, text.size)
        word = value_at(self, row)
        return logical_fixed(self.code, <const char*>&word)

    def fetch(self, Py_ssize_t row):
        """The logical value of one row; IndexError outside."""
        check_row(self, row)
        return self.logical_at(row)

    def physical(self, Py_ssize_t row):
        """The physical value of one row; IndexError outside."""
        cdef Text text
        check_row(self, row)
        if self.null_at(row):
            return None
        if self.is_string:
            text = text_at(self, row)
            return PyBytes_FromStringAndSize(text.ptr, text.size)
        return physical_of(self, value_at(self, row))

    def decode(self):
        """A new buffer with every row."""
        return decode_all(self)

    def take(self, rows=None):
        """Logical values of the rows named by a u32 buffer ('I'), in that order; None: of every row."""
        cdef Py_buffer held
        if rows is None:
            return take_all(self)
        take_u32(rows, &held)
        try:
            check_rows(self, <const uint32_t*>held.buf, held.len >> 2)
            return take_rows(self, <const uint32_t*>held.buf, held.len >> 2)
        finally:
            PyBuffer_Release(&held)

    def gather(self, rows):
        """A new buffer with the rows named by a u32 buffer ('I')."""
        cdef Py_buffer held
        take_u32(rows, &held)
        try:
            check_rows(self, <const uint32_t*>held.buf, held.len >> 2)
            return gather_rows(self, <const uint32_t*>held.buf, held.len >> 2)
        finally:
            PyBuffer_Release(&held)

    # -- masks -------------------------------------------------------------

    def valid(self):
        """Bitmap of the non-null rows."""
        return all_rows(self)

    def select(self, lo, hi, bint lo_open=False, bint hi_open=False):
        """Bitmap of the non-null rows with lo <= value <= hi (None: unbounded; open: strict).

        Integers, dates, bool: Python ints of any size. Floats: Python floats, closed, never NaN; a NaN row matches
        nothing. Strings: bytes, compared as bytes.
        """
        if self.null_count == self.rows:
            return no_rows(self)
        if self.is_string:
            return select_strings(self, lo, hi, lo_open, hi_open)
        if self.is_float:
            return select_floats(self, lo, hi, lo_open, hi_open)
        return select_ints(self, lo, hi, lo_open, hi_open)

    def select_in(self, values not None):
        """Bitmap of the non-null rows equal to one of the (physical, comparable) values; -0.0 equals 0.0, NaN equals nothing."""
        wanted = {value for value in values if value is not None and value == value}
        if not wanted or self.null_count == self.rows:
            return no_rows(self)
        if self.is_string:
            return strings_in(self, wanted)
        if self.is_float:
            return floats_in(self, wanted)
        return ints_in(self, wanted)

    # -- aggregates --------------------------------------------------------

    def sum(self, mask=None, start=0):
        """``start`` plus the selected non-null values: exact for integers and bool, floats by the one definition."""
        cdef Py_buffer held
        if self.is_string:
            raise TypeError("text has no sum")
        take_mask(self, mask, &held)
        try:
            if self.is_float:
                return sum_floats(self, <const uint8_t*>held.buf, start)
            return start + sum_ints(self, <const uint8_t*>held.buf)
        finally:
            PyBuffer_Release(&held)

    def count(self, mask=None):
        """Selected non-null rows."""
        cdef Py_buffer held
        cdef Py_ssize_t found
        if mask is None:
            return self.rows - self.null_count
        take_mask(self, mask, &held)
        with nogil:
            found = count_rows(self, <const uint8_t*>held.buf)
        PyBuffer_Release(&held)
        return found

    def bounds(self, mask=None):
        """Least and greatest selected non-null value, None where there is none. NaN only where all are NaN; -0.0 < 0.0."""
        cdef Py_buffer held
        take_mask(self, mask, &held)
        try:
            return bounds_of_chunk(self, <const uint8_t*>held.buf)
        finally:
            PyBuffer_Release(&held)

    # -- groups ------------------------------------------------------------

    def group(self, mask=None):
        """(codes, first): a u32 buffer ('I') with each row's group number, 0xFFFFFFFF for rows not selected, and one with each group's first row.

        Groups are numbered in order of first selected row; null is a group, NaN is one group, -0.0 is 0.0's.
        """
        cdef Py_buffer held
        take_mask(self, mask, &held)
        try:
            return group_chunk(self, <const uint8_t*>held.buf)
        finally:
            PyBuffer_Release(&held)

    def grouped(self, mask, wanted):
        """Groups by this column, and answers per group: (first, one list for each (chunk, kind) of ``wanted``).

        ``first`` is as ``group`` gives it; kind is "count", "sum" or "bounds", the list as ``group_count``,
        ``group_sum`` or ``group_bounds`` of that chunk give it. ValueError for another kind.
        """
        return group_answers(self, mask, list(wanted))

    def grouped_on(self, mask, wanted, Chunk tail not None, values):
        """``grouped`` over two chunks a column, ``tail`` and ``values`` being the second ones; None where it needs another path."""
        return group_with_tail(self, mask, list(wanted), tail, list(values))

    def group_count(self, codes, Py_ssize_t groups):
        """Non-null rows per group."""
        cdef Py_buffer held
        take_codes(self, codes, groups, &held)
        try:
            return count_groups(self, <const uint32_t*>held.buf, groups)
        finally:
            PyBuffer_Release(&held)

    def group_sum(self, codes, Py_ssize_t groups):
        """Sum per group: integers exact; floats by one accumulator per (group, row mod 4), folded (0+1)+(2+3)."""
        cdef Py_buffer held
        if self.is_string:
            raise TypeError("text has no sum")
        take_codes(self, codes, groups, &held)
        try:
            if self.is_float:
                return sum_float_groups(self, <const uint32_t*>held.buf, groups)
            return sum_int_groups(self, <const uint32_t*>held.buf, groups)
        finally:
            PyBuffer_Release(&held)

    def group_bounds(self, codes, Py_ssize_t groups):
        """Least and greatest non-null value per group."""
        cdef Py_buffer held
        take_codes(self, codes, groups, &held)
        try:
            if self.is_string and self.codec == RAW:
                return bound_string_groups(self, <const uint32_t*>held.buf, groups)
            return bound_groups(self, <const uint32_t*>held.buf, groups)
        finally:
            PyBuffer_Release(&held)


def encode(ColumnBuffer buffer not None, Py_ssize_t start, Py_ssize_t stop, int prefer=0):
    """Seal rows ``start..stop`` of a buffer by the choice rule, ``prefer`` being a hinted codec number.

    A positive multiple of 1,024 rows, at most 65,536; ``start`` any row. Returns the chunk and its zone map.
    """
    cdef Source source
    if not 0 <= start < stop <= buffer.rows:
        raise ValueError(f"rows {start}..{stop} are outside 0..{buffer.rows}")
    if (stop - start) % BLOCK or stop - start > SEGMENT:
        raise ValueError(f"{stop - start} rows are not 1 to 64 whole blocks")
    source = Source.__new__(Source)
    source.read(buffer, start, stop - start)
    return seal_source(source, prefer)


def distinct(ColumnBuffer buffer not None, Py_ssize_t limit):
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""
    return distinct_rows(buffer, limit)
