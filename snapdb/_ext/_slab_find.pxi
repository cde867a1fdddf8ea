# Rows by what an index says of them; part of _slab.pyx.

cdef enum:
    SLAB_AHEAD = 12  # rows between asking for a slab and for the row in it,
    ROW_AHEAD = 6  # and for that and reading it
    OF_BYTES = 14  # the dtype code of binary values


cdef list rows_of(SlabTable table, object ids):
    """The live rows of these ids, in their order. Several are on their way from memory at any time: of rows at random
    places this takes half the time that reading one after the other does.
    """
    cdef Py_buffer held
    cdef Py_ssize_t i, count, at = 0
    cdef const uint64_t* given
    cdef PyObject* found
    cdef Slab slab
    cdef list rows = []
    PyObject_GetBuffer(ids, &held, PyBUF_FORMAT | PyBUF_ND)
    try:
        if held.itemsize != 8 or held.format == NULL or held.format[0] != c"Q":
            raise TypeError("ids come as an array of 64-bit unsigned integers")
        given = <const uint64_t*>held.buf
        count = held.len // 8
        for i in range(min(SLAB_AHEAD, count)):
            ask_slab(table, given[i])
        for i in range(min(ROW_AHEAD, count)):
            ask_row(table, given[i])
        for i in range(count):
            if i + SLAB_AHEAD < count:
                ask_slab(table, given[i + SLAB_AHEAD])
            if i + ROW_AHEAD < count:
                ask_row(table, given[i + ROW_AHEAD])
            found = table.live_at(<Py_ssize_t>given[i], &at)  # an id that is too large is a negative one: no row
            if found == NULL:
                continue
            slab = <Slab>found
            slab.pins += 1
            try:
                rows.append(row_dict(table.layout, slab, at))
            finally:
                slab.pins -= 1
    finally:
        PyBuffer_Release(&held)
    return rows


cdef inline void ask_slab(SlabTable table, uint64_t id) noexcept:
    """Have the slab of a row on its way to the cache."""
    cdef PyObject* slab
    if id < <uint64_t>table.rows:
        slab = table.slabs.at(<Py_ssize_t>id // table.slab_rows)
        if slab != NULL:
            snap_prefetch(&(<Slab>slab).block)


cdef inline void ask_row(SlabTable table, uint64_t id) noexcept:
    """Have a row on its way to the cache."""
    cdef PyObject* slab
    cdef Py_ssize_t number
    if id < <uint64_t>table.rows:
        number = <Py_ssize_t>id // table.slab_rows
        slab = table.slabs.at(number)
        if slab != NULL:
            snap_prefetch((<Slab>slab).block + (<Py_ssize_t>id - number * table.slab_rows) * table.layout.stride)


@cython.final
cdef class Named:
    """The index of a column, and what its words are made of.

    Keys often run with the rows (numbers given in turn, moments), and then a row is where its key says: ``way`` is how
    far the id was from the key when one was last looked for, ``steady`` whether it was as far the time before. That
    is tried before the table of words, which is one more place of memory to wait for: a third of such a lookup.
    """
    cdef object index
    cdef int code
    cdef int column
    cdef bint steady
    cdef int64_t way


@cython.final
cdef class Lookup:
    """``find(column, value)``: the first row with a value, by a hash index that is made, in one step under the GIL.

    ``indexes``: column name to its index, an object with ``code`` and ``pairs`` (a ``HashTable``, or None). Whatever
    takes more than that (a scan, an index to be made, a value of another type, a write of several steps by another
    thread, two texts with one word) goes to ``slow(column, value)``, as does what is wrong.
    """
    cdef SlabTable slabs
    cdef dict indexes
    cdef object slow

    def __init__(self, SlabTable slabs not None, dict indexes not None, slow):
        self.slabs = slabs
        self.slow = slow
        self.indexes = {}
        cdef Named named
        for name, index in indexes.items():
            named = Named.__new__(Named)
            named.index, named.code, named.column = index, index.code, index.column
            self.indexes[name] = named

    def find(self, column_name, value):
        """The row as a dict, None where there is none."""
        cdef SlabTable slabs = self.slabs
        cdef PyObject* index
        cdef PyObject* found = NULL
        cdef Named named
        cdef Py_ssize_t at = 0
        cdef int64_t id
        cdef int64_t key = 0  # of an integer
        cdef uint64_t word = 0
        cdef bint whole = True  # whether equal words are equal values
        cdef dict row
        cdef Slab slab
        if type(column_name) is not str or slabs.paused:
            return self.slow(column_name, value)
        index = PyDict_GetItemWithError(self.indexes, column_name)
        if index == NULL or not known_word((<Named>index).code, value, &key, &word, &whole):
            return self.slow(column_name, value)
        named = <Named>index
        pairs = named.index.pairs
        if type(pairs) is not HashTable:
            return self.slow(column_name, value)
        if not (named.steady and only_at(slabs, named, <HashTable>pairs, key, &found, &at)):
            id = (<HashTable>pairs).lowest(word)
            named.steady = id >= 0 and whole and named.code != F64 and <int64_t>(<uint64_t>id - <uint64_t>key) == named.way
            if id < 0:
                return None
            named.way = <int64_t>(<uint64_t>id - <uint64_t>key)
            found = slabs.live_at(id, &at)
        if found == NULL:
            return self.slow(column_name, value)
        slab = <Slab>found
        slab.pins += 1
        try:
            row = row_dict(slabs.layout, slab, at)
        finally:
            slab.pins -= 1
        if whole or row[column_name] == value:
            return row
        return self.slow(column_name, value)


cdef bint only_at(SlabTable slabs, Named named, HashTable pairs, int64_t key, PyObject** found, Py_ssize_t* at) except -1:
    """Whether the row at the steady distance is the one that has this integer."""
    cdef const Column* column = &slabs.layout.columns[named.column]
    cdef const char* block
    if pairs.singles != pairs.used:
        return False
    found[0] = slabs.live_at(<Py_ssize_t>(<uint64_t>key + <uint64_t>named.way), at)
    if found[0] == NULL:
        return False
    block = (<Slab>found[0]).block
    if column.null_index >= 0 and test_bit(block + slabs.layout.nulls + column.null_index * slabs.layout.bitmap, at[0]):
        return False
    return memcmp(&key, block + at[0] * slabs.layout.stride + column.offset, column.width) == 0


cdef bint known_word(int code, object value, int64_t* key, uint64_t* word, bint* whole) except -1:
    """The word of a value that a column of this dtype holds as it is; False where that is not plain."""
    cdef Cell cell
    cdef int overflow = 0
    cdef int64_t beyond
    cell.is_null = 0
    if code == F64:
        if type(value) is not float:
            return False
        cell.f = value
    elif WIDTH[code]:
        # dates come as what they are, bool is no int here
        if not PyLong_CheckExact(value) or code > F64:
            return False
        cell.i = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow or code == F32 or (cell.i < 0 and not SIGNED[code]):
            return False
        beyond = cell.i >> (8 * WIDTH[code] - SIGNED[code]) if WIDTH[code] < 8 else 0
        if beyond != 0 and (beyond != -1 or not SIGNED[code]):
            return False
        key[0] = cell.i
    elif code != OF_BYTES and type(value) is str:
        try:
            cell.ptr = PyUnicode_AsUTF8AndSize(value, &cell.size)
        except UnicodeError:
            return False
        whole[0] = False
    else:
        return False
    return key_of(code, &cell, word)
