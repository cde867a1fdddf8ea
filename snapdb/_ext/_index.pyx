# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Indexes, compiled: words of keys, a hash table and an ordered tree to row ids. ``_index_py`` is the readable twin.

Nothing here knows tables. Keys come as 64-bit words, which ``_index_words.pxi`` makes of physical values. What goes in
as a batch is first copied and checked (``_index_pairs.pxi``), so nothing has changed where that fails. The tree
(``_index_tree.pxi``) also holds what the table (``_index_table.pxi``) has of words with several ids. Methods that
change or read a structure keep the GIL: each is one step.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport INT64_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from operator import index as _index
from time import perf_counter as _clock

from ._seed import SEEDS as _SEEDS

from ._values cimport Cell, ColumnBuffer, Memory, allocate, snap_prefetch

__all__ = [
    "Gate", "HashTable", "Meter", "OrderTree", "Tally", "exact", "key_word", "key_words", "order_word", "order_words",
]

LARGEST_ID = 2**48 - 1  # six bytes: more than rows that fit anywhere

cdef enum:
    LEAF = 256           # entries of a leaf
    FILLED = 240         # of one that is built, so that the next few entries do not split it
    FAN = 64             # kids of an inner node
    FANNED = 60
    LEVELS = 16
    FEWEST = 16          # slots of a table
    AHEAD = 8            # entries between asking for a cache line and using it
    LARGE = 4194304      # bytes of slots from which huge pages are asked for
    MANY_PAIRS = 65536   # pairs that are put in parts into a new table, at least
    PARTS = 1024         # of a table, by the first bits of the words
    PART_SHIFT = 54
    SHORT = 32           # pairs that are sorted by insertion

cdef uint64_t TOP_ID = LARGEST_ID
# constants of C: Python's own would make objects of these comparisons
cdef uint64_t LOW32 = 0xFFFFFFFF
cdef uint64_t HIGH32 = 0xFFFFFFFF00000000
cdef uint32_t NOWHERE = 0xFFFFFFFF
cdef uint64_t GONE = 0xFFFFFFFFFFFFFFFF
cdef uint64_t EMPTY = 0xFFFFFFFFFFFFFFFF  # in the place of a slot's id
cdef uint64_t MANY = 0xFFFFFFFFFFFFFFFE   # the word's ids, at least two, stand in the tree
cdef uint64_t[5] SEED = _SEEDS


cdef uint64_t as_word(object value) except? 0xFFFFFFFFFFFFFFFF:
    if not PyLong_CheckExact(value):
        value = _index(value)
    try:
        return PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise ValueError(f"a word is 0 to 2**64 - 1, not {value}") from None


cdef uint64_t as_id(object value) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t id = TOP_ID + 1
    if not PyLong_CheckExact(value):
        value = _index(value)
    try:
        id = PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        pass
    if id > TOP_ID:
        raise ValueError(f"an id is 0 to 2**48 - 1, not {value}")
    return id


cdef inline object words_view(Memory memory, Py_ssize_t count):
    return memoryview(memory)[:count * 8].cast("Q")


include "_index_words.pxi"
include "_index_pairs.pxi"
include "_index_tree.pxi"
include "_index_table.pxi"


@cython.final
cdef class Gate:
    """An ``insert(row)`` that outlasts the making of an index. While ``open`` is true it is ``fast(row)``, which tells
    no index; else ``slow(row)``, which does. ``late()`` is called where it was shut while ``fast`` was at work.
    """
    cdef object fast
    cdef object slow
    cdef object late
    cdef public bint open

    def __init__(self, fast, slow, late):
        self.fast, self.slow, self.late = fast, slow, late
        self.open = True

    def insert(self, row):
        """Append a row; returns its id."""
        cdef object idx
        if not self.open:
            return self.slow(row)
        idx = self.fast(row)
        if not self.open:
            self.late()
        return idx


include "_index_meter.pxi"
