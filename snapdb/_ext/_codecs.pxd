# cython: language_level=3
# The fields that other kernels use; _codecs.pyx may add its own.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ._kernels cimport SnapdbKernels

# The loops of the SIMD level that was chosen: for kernels that do not link their own.
cdef const SnapdbKernels* chosen_kernels() noexcept nogil


@cython.final
cdef class Chunk:
    cdef readonly int codec, code, width
    cdef readonly Py_ssize_t rows, null_count
    cdef readonly bint sealed
    cdef object owner               # keeps the memory below alive
    cdef Py_buffer source           # sealed bytes: the held buffer
    cdef const uint8_t* base_ptr    # sealed bytes, NULL for a view
    cdef Py_ssize_t total           # their length
    cdef int64_t base, step
    cdef int container              # T
    cdef Py_ssize_t distinct        # entries of the dictionary
    cdef const uint8_t* null_bits   # NULL where nothing (or everything, see null_count) is null
    cdef const uint8_t* values      # typed, packed or bitmap
    cdef const uint8_t* offsets     # u32 in sealed chunks, u64 in views
    cdef const uint8_t* heap
    cdef int offset_width           # 4 or 8
    cdef object logical_at(self, Py_ssize_t row)        # no bounds check
    cdef bint null_at(self, Py_ssize_t row) noexcept
    # private
    cdef bint held                  # source is to be released
    cdef bint is_signed, is_float, is_string
    cdef int item                   # bytes of a fixed-width value, 0 for strings
    cdef Py_ssize_t blocks          # the last one of a view may be short
    cdef Py_ssize_t heap_size       # bytes of strings that are in use
    # codes of FOR, DICT, SLOPE and DEC
    cdef readonly int layout        # PACKED, EXCEPTED or RUNS
    cdef Py_ssize_t marks           # exceptions or runs
    cdef uint64_t top               # no code is greater: DICT and DEC the last one there is, else by W or by the marks
    cdef int64_t scale              # the step of FOR, SLOPE and DEC, 1 where the header has none
    cdef int digits, power          # of DEC
    cdef int64_t plain              # of DEC: codes from here on are odd values
    cdef const uint8_t* places      # EXCEPTED: u32 starts, u16 rows; RUNS: u16 first runs, u16 last rows
    cdef const uint8_t* run_codes   # of exceptions or runs, T bits each
    cdef const uint8_t* lines       # of SLOPE
    cdef object unfolded            # memory of a dictionary that was front-coded, else None
