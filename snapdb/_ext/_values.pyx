# cython: language_level=3, boundscheck=False, wraparound=False
"""Typed column buffers and the row codec: values in, values out. ``_values_py`` is the readable twin."""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport (
    PyDate_CheckExact, PyDateTime_CheckExact, date_new, datetime_day, datetime_hour, datetime_microsecond, datetime_minute,
    datetime_month, datetime_new, datetime_second, datetime_tzinfo, datetime_year, date_day, date_month, date_year,
    import_datetime,
)
from cpython.dict cimport PyDict_CheckExact, PyDict_Copy, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_AsDouble, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport isinf
from libc.stdint cimport INT64_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memmove, memset

import sys as _sys
from collections.abc import Mapping as _Mapping
from datetime import timezone as _timezone

from . import _arrays
from ._common import TYPECODES as _TYPECODES, VARLEN as _VARLEN, to_date as _to_date, to_datetime as _to_datetime

__all__ = ["ColumnBuffer", "RowCodec", "pack_column", "records", "unpack_column"]

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    int PyUnicode_IS_COMPACT_ASCII(object text)
    const unsigned char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object value) except? 0xFFFFFFFFFFFFFFFF
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    Py_buffer* PyMemoryView_GET_BUFFER(object view)
    object PyNumber_Index(object value)
    int PyBytes_Check(object value)
    const Py_ssize_t PY_SSIZE_T_MAX
    PyObject* Py_True
    PyObject* Py_False

# Staging a batch touches memory that is new to the process, a page fault for each 4 KiB; huge pages save most of them.
cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    static void snap_huge_pages(void *block, size_t size)
    {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        size_t first = ((size_t)block + 4095) & ~(size_t)4095, last = ((size_t)block + size) & ~(size_t)4095;
        if (last > first)
            (void)madvise((void *)first, last - first, MADV_HUGEPAGE);  /* advice: no harm where it is not taken */
    #else
        (void)block, (void)size;
    #endif
    }
    """
    void snap_huge_pages(void* block, size_t size) noexcept nogil

import_datetime()

cdef enum:
    I8 = 1, I16, I32, I64, U8, U16, U32, U64, F32, F64, BOOL, BYTES, STR, BINARY, DATE, DATETIME
    FIRST_ROWS = 16
    FIRST_HEAP = 64
    ALIGN = 64
    HUGE = 4194304  # bytes from which memory asks for huge pages

cdef int[17] WIDTH = [0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 1, 0, 0, 0, 4, 8]
cdef int64_t[17] LOW = [
    0, -128, -32768, -2147483648, -INT64_MAX - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -2147483648, -INT64_MAX - 1,
]
cdef int64_t[17] HIGH = [  # of u64: what fits an int64, the rest goes its own way
    0, 127, 32767, 2147483647, INT64_MAX, 255, 65535, 4294967295, INT64_MAX, 0, 0, 1, 0, 0, 0, 2147483647, INT64_MAX,
]
cdef int[13] DAYS_BEFORE = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365]
cdef object UTC = _timezone.utc
cdef int64_t DAY_MICROS = 86400000000


# -- memory ----------------------------------------------------------------

@cython.final
cdef class Memory:
    """Bytes owned by a kernel: Python's raw domain, 64-byte aligned, with the buffer protocol (read-only outside)."""

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & 1:  # PyBUF_WRITABLE
            raise BufferError("this memory is read-only")
        view.buf = self.ptr
        view.obj = self
        view.len = self.size
        view.readonly = 1
        view.itemsize = 1
        view.format = NULL
        if flags & 4:  # PyBUF_FORMAT
            view.format = b"B"
        view.ndim = 1
        view.shape = NULL
        if flags & 8:  # PyBUF_ND
            view.shape = &self.size
        view.strides = NULL
        if (flags & 0x18) == 0x18:  # PyBUF_STRIDES
            view.strides = &view.itemsize
        view.suboffsets = NULL
        view.internal = NULL


cdef Memory allocate(Py_ssize_t size):
    """Zeroed memory with 64 bytes of slack behind it, so that a kernel may read a whole vector at the end."""
    cdef Memory made = Memory.__new__(Memory)
    if size < 0 or size > (<Py_ssize_t>1 << 62):
        raise MemoryError()
    size = (size + 7) & ~7  # whole words, so that every typed view of it is possible
    if size == 0:
        size = 8
    made.block = PyMem_RawCalloc(size + 2 * ALIGN, 1)
    if made.block == NULL:
        raise MemoryError()
    if size >= HUGE:
        snap_huge_pages(made.block, size + 2 * ALIGN)
    made.ptr = <char*>((<uintptr_t>made.block + ALIGN - 1) & ~<uintptr_t>(ALIGN - 1))
    made.size = size
    return made


cdef inline Py_ssize_t bitmap_size(Py_ssize_t rows) noexcept nogil:
    return ((rows + 63) >> 6) << 3


cdef inline Py_ssize_t popcount(const uint8_t* bits, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t found = 0, i
    cdef uint8_t byte
    for i in range(size):
        byte = bits[i]
        while byte:
            byte &= byte - 1
            found += 1
    return found


cdef object raw_view(object data):
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("the memory must be contiguous")
    return view


include "_values_cells.pxi"


# -- column buffers --------------------------------------------------------

cdef inline Py_ssize_t grown(Py_ssize_t now, Py_ssize_t needed) noexcept:
    cdef Py_ssize_t wanted = now + (now >> 1) if now > 65536 else now * 2
    return wanted if wanted > needed else needed


cdef inline int store_fixed(int code, char* values, Py_ssize_t row, const Cell* cell) noexcept:
    if code == I32 or code == DATE or code == U32:
        (<int32_t*>values)[row] = <int32_t>cell.i
    elif code == I64 or code == DATETIME or code == U64:
        (<int64_t*>values)[row] = cell.i
    elif code == F64:
        (<double*>values)[row] = cell.f
    elif code == F32:
        (<float*>values)[row] = <float>cell.f
    elif code == I16 or code == U16:
        (<int16_t*>values)[row] = <int16_t>cell.i
    else:
        (<int8_t*>values)[row] = <int8_t>cell.i
    return 0


@cython.final
cdef class ColumnBuffer:
    """A growable typed column: a tail, the staging of a batch, a decoded chunk.

    Append-only. Growing allocates anew and leaves the old memory to whoever still holds a view of it, so a view of the
    first n rows stays valid and unchanged for ever. A null row's slot holds zero (strings: the empty string).
    """

    def __cinit__(self, int code):
        if code < I8 or code > DATETIME:
            raise ValueError(f"unknown dtype code {code}")
        self.code = code
        self.width = WIDTH[code]
        self.capacity = FIRST_ROWS
        if self.width:
            self.values = allocate(FIRST_ROWS * self.width)
        else:
            self.heap_capacity = FIRST_HEAP
            self.values = allocate(FIRST_HEAP)
            self.starts = allocate((FIRST_ROWS + 1) * 8)

    cdef int reserve(self, Py_ssize_t rows, Py_ssize_t heap) except -1:
        """Room for ``rows`` more rows and ``heap`` more bytes of strings."""
        if self.rows + rows > self.capacity:
            self.grow_rows(grown(self.capacity, self.rows + rows))
        if self.width == 0 and self.heap_size + heap > self.heap_capacity:
            self.grow_heap(grown(self.heap_capacity, self.heap_size + heap))
        return 0

    cdef int grow_rows(self, Py_ssize_t capacity) except -1:
        cdef Memory slots, bits = None
        cdef Py_ssize_t used
        if capacity > (<Py_ssize_t>1 << 58):
            raise MemoryError()
        slots = allocate(capacity * self.width if self.width else (capacity + 1) * 8)
        if self.null_bits is not None:
            bits = allocate(bitmap_size(capacity))
            memcpy(bits.ptr, self.null_bits.ptr, bitmap_size(self.rows))
        if self.width:
            memcpy(slots.ptr, self.values.ptr, self.rows * self.width)
            self.values = slots
        else:
            memcpy(slots.ptr, self.starts.ptr, (self.rows + 1) * 8)
            self.starts = slots
        self.null_bits = bits
        self.capacity = capacity
        return 0

    cdef int grow_heap(self, Py_ssize_t capacity) except -1:
        cdef Memory heap = allocate(capacity)
        memcpy(heap.ptr, self.values.ptr, self.heap_size)
        self.values = heap
        self.heap_capacity = capacity
        return 0

    cdef int reserve_nulls(self) except -1:
        """Room for null bits as far as rows are reserved."""
        if self.null_bits is None:
            self.null_bits = allocate(bitmap_size(self.capacity))
        return 0

    cdef void push(self, Cell* cell) noexcept:
        cdef Py_ssize_t row = self.rows
        cdef Cell zero
        if cell.is_null:
            (<uint8_t*>self.null_bits.ptr)[row >> 3] |= <uint8_t>(1 << (row & 7))
            self.null_count += 1
            memset(&zero, 0, sizeof(Cell))
            cell = &zero
        if self.width:
            store_fixed(self.code, self.values.ptr, row, cell)
        else:
            if cell.size:
                memcpy(self.values.ptr + self.heap_size, cell.ptr, cell.size)
            self.heap_size += cell.size
            (<uint64_t*>self.starts.ptr)[row + 1] = self.heap_size
        self.rows = row + 1

    cdef int add(self, Cell* cell) except -1:
        """Append a cell, making room."""
        self.reserve(1, cell.size if self.width == 0 else 0)
        if cell.is_null:
            self.reserve_nulls()
        self.push(cell)
        return 0

    cdef bint null_at(self, Py_ssize_t row) noexcept:
        if self.null_count == 0:
            return False
        return (<uint8_t*>self.null_bits.ptr)[row >> 3] >> (row & 7) & 1

    cdef object logical_at(self, Py_ssize_t row):
        cdef uint64_t* starts
        if self.null_count and self.null_at(row):
            return None
        if self.width:
            return logical_fixed(self.code, self.values.ptr + row * self.width)
        starts = <uint64_t*>self.starts.ptr
        return logical_bytes(self.code, self.values.ptr + starts[row], starts[row + 1] - starts[row])

    cdef int check(self, Py_ssize_t row) except -1:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside 0..{self.rows}")
        return 0

    def append(self, value):
        """Append one physical value that the row codec has checked (``bytes`` for strings, None for null)."""
        cdef Cell cell
        fill(self.code, value, &cell)
        self.add(&cell)

    def extend(self, ColumnBuffer other not None, Py_ssize_t start=0, stop=None):
        """Append rows ``start..stop`` of another buffer of the same dtype."""
        cdef Py_ssize_t end = other.rows if stop is None else stop
        if other.code != self.code:
            raise ValueError(f"cannot extend dtype {self.code} by dtype {other.code}")
        if not 0 <= start <= end <= other.rows:
            raise ValueError(f"rows {start}..{end} are outside 0..{other.rows}")
        cdef Py_ssize_t count = end - start, row, low
        cdef uint64_t* ends
        cdef uint64_t* theirs
        cdef Py_ssize_t heap = 0
        if self.width == 0:
            theirs = <uint64_t*>other.starts.ptr
            heap = theirs[end] - theirs[start]
        self.reserve(count, heap)
        if other.null_count:
            self.reserve_nulls()
            for row in range(count):
                if other.null_at(start + row):
                    (<uint8_t*>self.null_bits.ptr)[(self.rows + row) >> 3] |= <uint8_t>(1 << ((self.rows + row) & 7))
                    self.null_count += 1
        if self.width:
            memcpy(self.values.ptr + self.rows * self.width, other.values.ptr + start * self.width, count * self.width)
        else:
            ends = <uint64_t*>self.starts.ptr
            theirs = <uint64_t*>other.starts.ptr
            low = theirs[start]
            memcpy(self.values.ptr + self.heap_size, other.values.ptr + low, heap)
            for row in range(1, count + 1):
                ends[self.rows + row] = self.heap_size + (theirs[start + row] - low)
            self.heap_size += heap
        self.rows += count

    def fetch(self, Py_ssize_t row):
        """The logical value of one row (``str``, ``date`` … as a user sees it)."""
        self.check(row)
        return self.logical_at(row)

    def physical(self, Py_ssize_t row):
        """The physical value of one row."""
        cdef uint64_t* starts
        self.check(row)
        if self.null_at(row):
            return None
        if self.width:
            return physical_fixed(self.code, self.values.ptr + row * self.width)
        starts = <uint64_t*>self.starts.ptr
        return PyBytes_FromStringAndSize(self.values.ptr + starts[row], starts[row + 1] - starts[row])

    def put(self, Py_ssize_t row, value):
        """Overwrite one row with a checked physical value.

        Only for a buffer that nobody else has seen (patching a decoded copy).
        """
        cdef Cell cell
        self.check(row)
        fill(self.code, value, &cell)
        if cell.is_null:
            self.reserve_nulls()
            cell.i = 0
            cell.f = 0
            cell.size = 0
        if self.width:
            store_fixed(self.code, self.values.ptr, row, &cell)
        else:
            self.replace_text(row, &cell)
        self.mark(row, cell.is_null)

    cdef void mark(self, Py_ssize_t row, bint is_null) noexcept:
        cdef uint8_t* bits
        if self.null_bits is None:
            return
        bits = <uint8_t*>self.null_bits.ptr + (row >> 3)
        if bits[0] >> (row & 7) & 1:
            self.null_count -= 1
        bits[0] &= <uint8_t>~(1 << (row & 7))
        if is_null:
            bits[0] |= <uint8_t>(1 << (row & 7))
            self.null_count += 1

    cdef int replace_text(self, Py_ssize_t row, Cell* cell) except -1:
        cdef uint64_t* starts = <uint64_t*>self.starts.ptr
        cdef Py_ssize_t low = starts[row], high = starts[row + 1], later
        cdef Py_ssize_t more = cell.size - (high - low)
        if more > 0:
            self.reserve(0, more)
        if more:
            memmove(self.values.ptr + high + more, self.values.ptr + high, self.heap_size - high)
            for later in range(row + 1, self.rows + 1):
                starts[later] += more
            self.heap_size += more
        if cell.size:
            memcpy(self.values.ptr + low, cell.ptr, cell.size)
        return 0

    def patch(self, changes):
        """``put`` for many rows at once (row -> checked physical value)."""
        cdef Py_ssize_t row
        cdef dict wanted = dict(changes)
        for row in wanted:
            self.check(row)
        if self.width:
            for row, value in wanted.items():
                self.put(row, value)
        else:
            self.patch_texts(wanted)

    cdef int patch_texts(self, dict wanted) except -1:
        cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, self.code)
        cdef Py_ssize_t done = 0, row
        cdef Cell cell
        made.reserve(self.rows, self.heap_size)
        for row in sorted(wanted):
            made.extend(self, done, row)
            fill(self.code, wanted[row], &cell)
            made.add(&cell)
            done = row + 1
        made.extend(self, done, self.rows)
        self.values, self.starts, self.null_bits = made.values, made.starts, made.null_bits
        self.capacity, self.heap_capacity = made.capacity, made.heap_capacity
        self.heap_size, self.null_count = made.heap_size, made.null_count
        return 0

    def tolist(self):
        """Every row's logical value."""
        cdef Py_ssize_t row
        cdef list found = PyList_New(self.rows)
        for row in range(self.rows):
            value = self.logical_at(row)
            Py_INCREF(value)
            PyList_SET_ITEM(found, row, value)
        return found

    @property
    def data(self):
        """Fixed width: the typed values (of ``TYPECODES``), ``rows`` long; strings: the heap ('B'). Read-only."""
        if self.width:
            return memoryview(self.values).cast(_TYPECODES[self.code])[: self.rows]
        return memoryview(self.values)[: self.heap_size]

    @property
    def offsets(self):
        """Strings: ``rows + 1`` u64 ('Q') offsets into ``data``; else None."""
        if self.width:
            return None
        return memoryview(self.starts).cast("Q")[: self.rows + 1]

    @property
    def nulls(self):
        """A bitmap ('B') with a bit for each null row, in whole 64-bit words; None where there is none."""
        if self.null_count == 0:
            return None
        # a copy: later appends set bits in the last byte
        return memoryview(PyBytes_FromStringAndSize(self.null_bits.ptr, bitmap_size(self.rows)))

    @property
    def nbytes(self):
        """Bytes of memory held, slack included."""
        cdef Py_ssize_t total = self.values.size
        if self.starts is not None:
            total += self.starts.size
        if self.null_bits is not None:
            total += self.null_bits.size
        return total

    @staticmethod
    def from_parts(int code, Py_ssize_t rows, data, offsets=None, nulls=None):
        """A buffer with a copy of typed memory: contiguous buffers as ``data``, ``offsets`` and ``nulls`` give them.

        ValueError where lengths do not fit. Offsets may start past zero (a cut of a longer column).
        """
        cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, code)
        if rows < 0:
            raise ValueError(f"rows must not be negative, got {rows}")
        view = raw_view(data)
        if made.width:
            if offsets is not None:
                raise ValueError("offsets are for strings only")
            made.adopt_fixed(rows, PyMemoryView_GET_BUFFER(view))
        else:
            made.adopt_texts(rows, PyMemoryView_GET_BUFFER(view), offsets)
        if nulls is not None:
            view = raw_view(nulls)
            made.adopt_nulls(PyMemoryView_GET_BUFFER(view))
        return made

    cdef int adopt_fixed(self, Py_ssize_t rows, Py_buffer* source) except -1:
        cdef Py_ssize_t row
        if source.len % self.width or source.len // self.width != rows:
            raise ValueError(f"{rows} rows need {rows} * {self.width} bytes of data, got {source.len}")
        self.exactly(rows, 0)
        memcpy(self.values.ptr, source.buf, source.len)
        if self.code == BOOL:
            for row in range(rows):
                if <uint8_t>self.values.ptr[row] > 1:
                    raise ValueError("bool data must be 0 or 1")
        self.rows = rows
        return 0

    cdef int adopt_texts(self, Py_ssize_t rows, Py_buffer* source, object offsets) except -1:
        cdef Py_buffer* given
        cdef uint64_t* ends
        cdef uint64_t* starts
        cdef Py_ssize_t row
        if offsets is None:
            raise ValueError("strings need offsets")
        view = raw_view(offsets)
        given = PyMemoryView_GET_BUFFER(view)
        if given.len % 8 or given.len // 8 != rows + 1:
            raise ValueError(f"{rows} rows need ({rows} + 1) * 8 bytes of offsets, got {given.len}")
        # checked on a copy that nobody else can change
        self.exactly(rows, 0)
        ends = <uint64_t*>given.buf
        starts = <uint64_t*>self.starts.ptr
        memcpy(starts, ends, given.len)
        for row in range(rows):
            if starts[row] > starts[row + 1]:
                raise ValueError("offsets must rise and stay inside the data")
        if starts[rows] > <uint64_t>source.len:
            raise ValueError("offsets must rise and stay inside the data")
        cdef uint64_t low = starts[0]
        self.heap_size = starts[rows] - low
        self.exactly(rows, self.heap_size)
        memcpy(self.values.ptr, <char*>source.buf + low, self.heap_size)
        if low:
            for row in range(rows + 1):
                starts[row] -= low
        self.rows = rows
        return 0

    cdef int exactly(self, Py_ssize_t rows, Py_ssize_t heap) except -1:
        """Room for this many rows and bytes of an empty buffer, with no slack."""
        cdef Memory fresh
        if rows > self.capacity:
            self.grow_rows(rows)
        if heap > self.heap_capacity:
            fresh = allocate(heap)
            self.values = fresh
            self.heap_capacity = heap
        return 0

    cdef int adopt_nulls(self, Py_buffer* source) except -1:
        cdef Py_ssize_t size = bitmap_size(self.rows), row
        cdef uint8_t* bits
        cdef dict emptied = {}
        if source.len < size:
            raise ValueError(f"a null bitmap for {self.rows} rows needs {size} bytes, got {source.len}")
        self.reserve_nulls()
        bits = <uint8_t*>self.null_bits.ptr
        memcpy(bits, source.buf, size)
        for row in range(self.rows, size * 8):
            bits[row >> 3] &= <uint8_t>~(1 << (row & 7))
        self.null_count = popcount(bits, size)
        if self.null_count == 0:
            self.null_bits = None
            return 0
        for row in range(self.rows):
            if not self.null_at(row):
                continue
            if self.width:
                memset(self.values.ptr + row * self.width, 0, self.width)
            elif (<uint64_t*>self.starts.ptr)[row] != (<uint64_t*>self.starts.ptr)[row + 1]:
                emptied[row] = None
        if emptied:
            self.patch_texts(emptied)
        return 0


include "_values_rows.pxi"
include "_values_pack.pxi"
