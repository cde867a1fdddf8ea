# cython: language_level=3
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


# Ask for the cache line of an address that is about to be read.
cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define snap_prefetch(place) __builtin_prefetch(place)
    #else
    #define snap_prefetch(place) ((void)(place))
    #endif
    """
    void snap_prefetch(const void* place) noexcept nogil


@cython.final
cdef class Memory:
    """Bytes owned by a kernel, allocated in Python's raw domain, 64-byte aligned, with the buffer protocol (read-only outside)."""
    cdef char* ptr          # aligned start
    cdef void* block        # what the allocator gave
    cdef Py_ssize_t size    # usable bytes


cdef struct Cell:
    # one checked physical value: an integer (or a bool), a float, or borrowed bytes
    int is_null
    int64_t i               # integers; u64 as its two's complement bits
    double f                # floats
    const char* ptr         # strings: borrowed from a Python object that the caller keeps alive
    Py_ssize_t size


@cython.final
cdef class ColumnBuffer:
    cdef readonly int code
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t null_count
    cdef int width              # bytes of a fixed-width value, 0 for strings
    cdef Py_ssize_t capacity    # rows that fit
    cdef Py_ssize_t heap_size, heap_capacity
    cdef Memory values          # fixed width: values; strings: the heap
    cdef Memory starts          # strings: u64 offsets, rows + 1 of them
    cdef Memory null_bits       # None while nothing is null; room for capacity rows
    cdef int reserve(self, Py_ssize_t rows, Py_ssize_t heap) except -1
    cdef void push(self, Cell* cell) noexcept       # after reserve(1, size): cannot fail (a null needs reserve_nulls() too)
    cdef int reserve_nulls(self) except -1
    cdef object logical_at(self, Py_ssize_t row)
    cdef bint null_at(self, Py_ssize_t row) noexcept
    # private
    cdef int grow_rows(self, Py_ssize_t capacity) except -1
    cdef int grow_heap(self, Py_ssize_t capacity) except -1
    cdef int exactly(self, Py_ssize_t rows, Py_ssize_t heap) except -1
    cdef int add(self, Cell* cell) except -1                                     # reserve and push
    cdef int check(self, Py_ssize_t row) except -1
    cdef void mark(self, Py_ssize_t row, bint is_null) noexcept
    cdef int replace_text(self, Py_ssize_t row, Cell* cell) except -1
    cdef int patch_texts(self, dict wanted) except -1
    cdef int adopt_fixed(self, Py_ssize_t rows, Py_buffer* source) except -1
    cdef int adopt_texts(self, Py_ssize_t rows, Py_buffer* source, object offsets) except -1
    cdef int adopt_nulls(self, Py_buffer* source) except -1


@cython.final
cdef class RowCodec:
    cdef readonly tuple columns
    cdef object coerce, refuse
    cdef int count
    cdef tuple names
    cdef int* codes
    cdef Py_ssize_t* limits
    cdef uint8_t* nullable
    # fill cells[count] from a row; `keep` receives objects that cells borrow from. -1 with an exception set.
    cdef int encode_cells(self, object row, Py_ssize_t position, Cell* cells, list keep) except -1
    cdef int encode_cell(self, int column, object value, Py_ssize_t position, Cell* cell, list keep) except -1
    cdef int cell_of(self, int column, object physical, Cell* cell) except -1     # from a checked physical value
    cdef Py_ssize_t packed_size(self, const Cell* cells) noexcept                 # bytes of the packed row
    cdef void pack_cells(self, const Cell* cells, char* to) noexcept              # exactly packed_size() bytes
    # private
    cdef object reject(self, object row, Py_ssize_t position, bint partial)
    cdef dict mapping(self, object row, Py_ssize_t position, bint partial)
    cdef int convert(self, int column, object value, Py_ssize_t position, Cell* cell, list keep) except -1
    cdef object physical_cell(self, int column, Cell* cell)
    cdef int check(self, int column) except -1
    cdef int stage(self, object row, Py_ssize_t position, list made) except -1
    cdef int stage_value(self, int column, object value, Py_ssize_t position, ColumnBuffer buffer) except -1
    cdef ColumnBuffer list_column(self, int column, list values)


cdef Memory allocate(Py_ssize_t size)               # zeroed; MemoryError
cdef object logical_fixed(int code, const char* at)  # the Python value of one fixed-width value
cdef object logical_bytes(int code, const char* at, Py_ssize_t size)
cdef object logical_object(int code, object value)     # of a physical value that is a Python object
