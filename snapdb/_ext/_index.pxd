# cython: language_level=3
# What other kernels may call without an object per key or entry.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ._values cimport Cell


cdef struct Pair:
    uint64_t word, id


cdef struct Leaf:
    Leaf* next
    Leaf* prev
    uint32_t count
    uint32_t last               # where the last entry was put: rows that come in order fill whole leaves
    uint64_t words[256]
    # then as many ids, u32 or u64


cdef struct Inner:
    uint32_t count
    void* kids[64]
    uint64_t counts[64]         # pairs under each
    uint64_t words[64]          # no pair under a kid is before its (word, id); not used of the first kid
    uint64_t ids[64]


cdef struct Path:
    Leaf* leaf
    Inner* nodes[16]            # from level 1, right over the leaves, to the root
    uint32_t slots[16]


@cython.final
cdef class OrderTree:
    cdef void* root
    cdef int height             # 0: the root is a leaf
    cdef bint wide              # ids are u64
    cdef Py_ssize_t count, leaves, inners
    cdef int put(self, uint64_t word, uint64_t id) except -1        # 1; 0 where the pair is there
    cdef bint drop(self, uint64_t word, uint64_t id) noexcept       # whether it was there; cannot fail
    cdef Leaf* seek(self, uint64_t word, uint32_t* at) noexcept     # the first pair of this word or a later one; NULL
    cdef Py_ssize_t rank(self, uint64_t word) noexcept              # pairs of lower words
    # private
    cdef uint32_t descend(self, uint64_t word, uint64_t id, Path* path) noexcept
    cdef Leaf* new_leaf(self) noexcept
    cdef int split(self, Path* path, uint32_t pos, uint64_t word, uint64_t id) except -1
    cdef void hang(self, Path* path, Leaf* right, Inner** fresh) noexcept
    cdef void thin(self, Path* path) noexcept
    cdef void unhang(self, Path* path, int level) noexcept
    cdef bint merge_inner(self, Path* path, int level) noexcept
    cdef void free_all(self) noexcept
    cdef int widen(self) except -1
    cdef void dump(self, Pair* to) noexcept
    cdef int become(self, Pair* pairs, Py_ssize_t count, bint wide) except -1
    cdef Py_ssize_t put_sorted(self, Pair* pairs, Py_ssize_t count) except -1
    cdef Py_ssize_t merged(self, Pair* pairs, Py_ssize_t count) except -1


@cython.final
cdef class HashTable:
    cdef char* slots
    cdef Py_ssize_t capacity    # slots there are
    cdef Py_ssize_t used        # slots with a word
    cdef Py_ssize_t singles     # of them with the one id of their word; those of the others stand in ``rest``
    cdef bint wide              # ids of slots are u64
    cdef int size               # bytes of a slot
    cdef OrderTree rest
    cdef int put(self, uint64_t word, uint64_t id) except -1        # 1; 0 where the pair is there
    cdef bint drop(self, uint64_t word, uint64_t id) noexcept       # whether it was there; cannot fail
    cdef int64_t lowest(self, uint64_t word) noexcept               # the lowest id, -1 where there is none
    # private
    cdef char* find(self, uint64_t word) noexcept
    cdef bint resize(self, Py_ssize_t words, bint wide) noexcept
    cdef void vacate(self, char* slot) noexcept
    cdef void settle(self, char* slot, uint64_t word) noexcept
    cdef int turn(self, char* slot, uint64_t word, uint64_t old, uint64_t id) except -1
    cdef int put_pairs(self, Pair* pairs, Py_ssize_t count) except -1
    cdef void dump(self, Pair* to) noexcept


# The words of a value that the row codec has made a cell of; False where it has none: null and NaN.
cdef bint key_of(int code, const Cell* cell, uint64_t* word) noexcept nogil
cdef bint order_of(int code, const Cell* cell, uint64_t* word) noexcept nogil
