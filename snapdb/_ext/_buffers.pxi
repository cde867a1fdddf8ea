# Buffers that come in as arguments; included by _mask.pyx and _codecs.pyx.
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.mem cimport PyMem_RawMalloc
from libc.stdint cimport uintptr_t

import os as _os


cdef void choose_level() except *:
    """SNAPDB_SIMD=base|v3|v4 forces a level; else the best that the CPU has."""
    wanted = _os.environ.get("SNAPDB_SIMD", "").strip().lower()
    name = wanted.encode("utf-8", "replace")
    cdef const char* problem = snapdb_choose(name)
    if problem != NULL:
        raise ImportError(f"SNAPDB_SIMD={wanted!r}: {problem.decode()}")


choose_level()


def simd_level():
    """The instruction set of the loops: "base", "v3" (AVX2) or "v4" (AVX-512)."""
    return snapdb_kernels.level.decode()


cdef int take_bytes(object data, Py_buffer* held) except -1:
    """Hold a contiguous buffer as bytes; the caller releases it."""
    try:
        PyObject_GetBuffer(data, held, PyBUF_SIMPLE)
    except BufferError:
        raise ValueError("the memory must be contiguous") from None
    return 0


cdef int take_u32(object data, Py_buffer* held) except -1:
    """Hold a contiguous buffer of u32 ('I'); the caller releases it."""
    try:
        PyObject_GetBuffer(data, held, PyBUF_FORMAT | PyBUF_ND)
    except BufferError:
        raise ValueError("the memory must be contiguous") from None
    cdef const char* format = held.format
    if format != NULL and format[0] in b"@=<":
        format += 1
    if held.itemsize != 4 or format == NULL or (format[0] != b"I" and format[0] != b"L") or format[1] != 0:
        name = "B" if held.format == NULL else held.format.decode()
        PyBuffer_Release(held)
        raise ValueError(f"expected a buffer of u32 ('I'), got format {name!r}")
    return 0


cdef Memory uncleared(Py_ssize_t size):
    """As ``allocate``, for memory that is about to be written as a whole: clearing it would cost as much as the work."""
    cdef Memory made = Memory.__new__(Memory)
    if size < 0 or size > (<Py_ssize_t>1 << 62):
        raise MemoryError()
    size = max(8, (size + 7) & ~<Py_ssize_t>7)
    made.block = PyMem_RawMalloc(size + 128)
    if made.block == NULL:
        raise MemoryError()
    made.ptr = <char*>((<uintptr_t>made.block + 63) & ~<uintptr_t>63)
    made.size = size
    return made


cdef inline bytearray new_bytes(Py_ssize_t size):
    return PyByteArray_FromStringAndSize(NULL, size)


cdef inline object u32_view(Memory memory, Py_ssize_t count):
    return memoryview(memory)[:count * 4].cast("I")


cdef inline Py_ssize_t mask_size(Py_ssize_t rows) noexcept nogil:
    return ((rows + 63) >> 6) << 3
