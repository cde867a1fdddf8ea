# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The row store: slabs of fixed-width rows, liveness, heaps. ``_slab_py`` is the readable twin.

A method is one step under the GIL: it encodes (which may run Python code), then reserves memory, then writes, and
nothing from the last look at the table to the end of the write runs Python code or starts a garbage collection.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.dict cimport PyDict_CheckExact, PyDict_Copy, PyDict_SetItem, PyDict_Size
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import sys as _sys

from ._values cimport Cell, ColumnBuffer, Memory, RowCodec, allocate, logical_bytes, logical_fixed, snap_prefetch

__all__ = ["SlabTable", "SlabView"]

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    object PyNumber_Index(object value)
    object PyMemoryView_FromObject(object value)
    object PyByteArray_FromStringAndSize(const char* data, Py_ssize_t size)
    char* PyByteArray_AS_STRING(object value)
    PyObject* PyTuple_GET_ITEM(object value, Py_ssize_t at)

include "_slab_store.pxi"
include "_slab_view.pxi"


cdef enum:
    ON_STACK = 32  # columns whose cells fit on the stack

ctypedef struct Source:
    # a staged column
    const char* values
    const uint64_t* starts
    const char* nulls


cdef inline Py_ssize_t position_of(object idx) except? -1:
    """A row id as a position, -1 for one that no row can have. TypeError where it is not an integer."""
    cdef int overflow = 0
    cdef long long found
    if PyLong_CheckExact(idx):
        found = PyLong_AsLongLongAndOverflow(idx, &overflow)
    else:
        found = PyLong_AsLongLongAndOverflow(PyNumber_Index(idx), &overflow)
    return found if found >= 0 and not overflow else -1


@cython.final
cdef class SlabTable:
    """Every row of a table, in slabs of ``page_size`` bytes. Row id is position.

    ``offsets`` are the columns' byte offsets in the fixed-width row, ascending (a string column's field: ``bytes:N`` N
    bytes zero padded, its length kept outside the row; other strings 8 bytes, u32 heap offset and u32 length),
    ``row_width`` the row's bytes. A slab holds ``max(1, page_size // row_width)`` rows; one without a live row left is
    given back. While ``paused`` is true, ``insert``, ``update`` and ``delete`` go to ``slow(name, *args)``, which waits
    for its turn; ``append``, ``change`` and ``remove`` are the same without that check. ``lock`` is for the twin.
    """
    cdef readonly Py_ssize_t rows  # positions given out
    cdef readonly Py_ssize_t live
    cdef readonly Py_ssize_t slab_rows
    cdef readonly Py_ssize_t writes  # grows with every write, to tell whether something read earlier is still true
    cdef public bint paused
    cdef RowCodec codec
    cdef Layout layout
    cdef Pins pins
    cdef Directory slabs
    cdef object lock, slow

    def __init__(self, RowCodec codec not None, offsets, Py_ssize_t row_width, Py_ssize_t page_size, lock, slow):
        if self.layout is not None:
            raise TypeError("a SlabTable is made once")
        cdef Layout layout = Layout(codec.columns, offsets, row_width, page_size)
        self.codec = codec
        self.pins = Pins.__new__(Pins)
        self.slabs = Directory.__new__(Directory)
        self.lock = lock
        self.slow = slow
        self.slab_rows = layout.rows
        self.layout = layout

    def __cinit__(self):
        self.pins = Pins.__new__(Pins)
        self.slabs = Directory.__new__(Directory)

    # -- reads -------------------------------------------------------------

    cdef inline Slab at_live(self, Py_ssize_t position, Py_ssize_t* at):
        """The slab of a live row, None where there is no such row."""
        cdef Slab slab
        if position < 0 or position >= self.rows:
            return None
        cdef Py_ssize_t number = position // self.slab_rows
        at[0] = position - number * self.slab_rows
        slab = self.slabs.find(number)
        if slab is None:
            return None
        # a row at a random place is two misses and its liveness a third: ask for all at once, a tenth of a point read
        snap_prefetch(slab.block + at[0] * self.layout.stride)
        snap_prefetch(slab.block + at[0] * self.layout.stride + self.layout.stride - 1)
        return slab if test_bit(slab.block + self.layout.live, at[0]) else None

    def get(self, idx):
        """The live row as a dict of logical values, None where there is none."""
        cdef Py_ssize_t at = 0
        cdef Slab slab = self.at_live(position_of(idx), &at)
        if slab is None:
            return None
        slab.pins += 1
        try:
            return row_dict(self.layout, slab, at)
        finally:
            slab.pins -= 1

    def get_raw(self, idx):
        """The fixed-width row's bytes, read-only and unchanged for ever; None where there is no live row."""
        cdef Py_ssize_t at = 0
        cdef Slab slab = self.at_live(position_of(idx), &at)
        return None if slab is None else raw_row(self.layout, slab, at)

    def contains(self, idx):
        """Whether there is a live row at ``idx``."""
        cdef Py_ssize_t at = 0
        return self.at_live(position_of(idx), &at) is not None

    def take_over(self, SlabTable other not None):
        """Have every row of ``other`` (a table of the same layout, empty afterwards) instead of one's own; views keep what they see."""
        if other.layout.stride != self.layout.stride or other.slab_rows != self.slab_rows or other is self:
            raise ValueError("take_over needs another table of the same layout")
        self.pins, self.slabs = other.pins, other.slabs
        self.rows, self.live = other.rows, other.live
        self.writes += 1
        other.writes += 1
        other.pins = Pins.__new__(Pins)
        other.slabs = Directory.__new__(Directory)
        other.rows = other.live = 0

    def pin(self):
        """The rows as of now."""
        cdef SlabView view = SlabView.__new__(SlabView)
        view.layout = self.layout
        view.pins = self.pins
        view.hold = hold(self.pins)
        view.slabs = self.slabs
        view.rows = self.rows
        view.live = self.live
        self.pins.epoch += 1
        return view

    @property
    def nbytes(self):
        """Bytes of memory held: rows, side areas, heaps and the objects around them."""
        cdef Py_ssize_t total = sys_size(self) + self.slabs.capacity * <Py_ssize_t>sizeof(PyObject*)
        cdef Py_ssize_t group_size = Group.__basicsize__
        cdef Py_ssize_t slab_size = Slab.__basicsize__ + self.layout.size + 16
        cdef Py_ssize_t heap_size = Memory.__basicsize__ + 128 + 16
        cdef Py_ssize_t i, j
        cdef Group group
        cdef Slab slab
        for i in range(self.slabs.count):
            if self.slabs.groups[i] == NULL:
                continue
            group = <Group>self.slabs.groups[i]
            total += group_size
            for j in range(FANOUT):
                if group.slabs[j] != NULL:
                    slab = <Slab>group.slabs[j]
                    total += slab_size
                    if slab.heap is not None:
                        total += heap_size + slab.heap.size
        return total

    # -- copies: what a view or an export reads is left to it -----------------

    cdef int own_slabs(self) except -1:
        if self.pins.views and self.slabs.stamp < self.pins.epoch:
            self.slabs = copy_directory(self.slabs, self.pins.epoch)
        return 0

    cdef Group own_group(self, Py_ssize_t at):
        """The group (which is there) in a form that no view reads."""
        cdef Group group
        self.own_slabs()
        group = <Group>self.slabs.groups[at]
        if self.pins.views and group.stamp < self.pins.epoch:
            group = copy_group(group, self.pins.epoch)
            self.slabs.set(at, group)
        return group

    cdef Slab writable(self, Py_ssize_t number, Slab slab):
        """The slab, or where something reads it a copy that takes its place."""
        cdef Group group
        if slab.pins or (self.pins.views and slab.stamp < self.pins.epoch):
            slab = copy_slab(self.layout, slab, self.pins.epoch)
            group = self.own_group(number >> 8)
            group.set(number & (FANOUT - 1), slab)
        return slab

    cdef Group group_for(self, Py_ssize_t number):
        """The group of a slab, made where it is not there. Views may share it: they do not look past their rows."""
        cdef Group group
        self.slabs.reserve((number >> 8) + 1)
        if self.slabs.groups[number >> 8] == NULL:
            group = Group.__new__(Group)
            group.stamp = self.slabs.stamp  # who reads the directory reads the group
            self.slabs.set(number >> 8, group)
        return <Group>self.slabs.groups[number >> 8]

    cdef void publish(self, Py_ssize_t number, Slab slab) noexcept:
        """Put a slab where its group, which is there, has none (or this one)."""
        cdef Group group = <Group>self.slabs.groups[number >> 8]
        if group.slabs[number & (FANOUT - 1)] == NULL:
            slab.stamp = group.stamp  # a view that reads the group may cover dead positions of the slab
            group.set(number & (FANOUT - 1), slab)

    cdef int give_back(self, Py_ssize_t number) except -1:
        """Drop a slab all of whose rows are dead."""
        cdef Group group = self.own_group(number >> 8)
        group.set(number & (FANOUT - 1), None)
        if group.count == 0:
            self.slabs.set(number >> 8, None)
        return 0

    cdef int discard(self, Py_ssize_t number, Slab slab, Py_ssize_t garbage) except -1:
        """Count dead heap bytes; rewrite a heap that is mostly dead."""
        cdef Memory heap
        slab.garbage += garbage
        if slab.garbage <= GARBAGE or slab.garbage * 2 <= slab.heap_size:
            return 0
        try:
            heap = allocate(slab.heap_size - slab.garbage)
            slab = self.writable(number, slab)
        except MemoryError:
            return 0  # the write itself is done: the next one tries again
        slab.rewrite(self.layout, heap)
        return 0

    # -- writes ------------------------------------------------------------

    cdef object append_cells(self, const Cell* cells):
        """Append a row that is encoded; returns its id."""
        cdef object idx = self.rows  # made first: from the write on nothing can fail
        self.write_at(self.rows, cells)
        self.rows += 1
        return idx

    cdef int write_at(self, Py_ssize_t position, const Cell* cells) except -1:
        """Make a position that holds no row hold this one."""
        cdef Layout layout = self.layout
        cdef Py_ssize_t number = position // self.slab_rows, need = 0
        cdef Slab slab = self.slabs.find(number)
        cdef bint fresh = slab is None
        cdef int j
        for j in range(layout.count):
            layout.fits(j, &cells[j])
            if layout.columns[j].kind == HEAPED and not cells[j].is_null:
                need += cells[j].size
        if fresh:
            slab = new_slab(layout)
            self.group_for(number)
        if need:
            slab.reserve(need)
        if fresh:
            self.publish(number, slab)
        slab.write_row(layout, position - number * self.slab_rows, cells)
        self.live += 1
        self.writes += 1
        return 0

    cdef object add_row(self, object row, bint polite):
        cdef Cell[ON_STACK] few
        cdef Cell* cells = few
        cdef Memory many
        cdef list keep = []
        if self.layout.count > ON_STACK:
            many = allocate(self.layout.count * <Py_ssize_t>sizeof(Cell))
            cells = <Cell*>many.ptr
        self.codec.encode_cells(row, -1, cells, keep)
        if polite and self.paused:
            return self.slow("insert", row)
        return self.append_cells(cells)

    def insert(self, row):
        """Append a row; returns its id."""
        return self.add_row(row, True)

    def append(self, row):
        """``insert`` for the writer whose turn it is."""
        return self.add_row(row, False)

    cdef object add_values(self, object idx, object values):
        """Append checked physical values, or where ``idx`` is not None bring them back there."""
        cdef Cell[ON_STACK] few
        cdef Cell* cells = few
        cdef Memory many
        cdef list given = list(values)
        cdef int j
        if len(given) != self.layout.count:
            raise ValueError(f"a row has {self.layout.count} values, got {len(given)}")
        if self.layout.count > ON_STACK:
            many = allocate(self.layout.count * <Py_ssize_t>sizeof(Cell))
            cells = <Cell*>many.ptr
        for j in range(self.layout.count):
            self.codec.cell_of(j, given[j], &cells[j])
            self.layout.fits(j, &cells[j])
        if idx is not None:
            return self.bring_back(idx, cells)
        return self.append_cells(cells)

    def append_values(self, values):
        """Append one row of checked physical values in column order. ValueError where they do not fit the schema."""
        return self.add_values(None, values)

    def extend(self, columns):
        """Append staged columns of equal length, all or nothing; returns the first new id.

        ValueError where they do not fit the schema.
        """
        cdef list staged = list(columns), slabs = []
        cdef Memory memory = allocate(self.layout.count * <Py_ssize_t>sizeof(Source))
        cdef Source* sources = <Source*>memory.ptr
        cdef Py_ssize_t count = self.sources(staged, sources)
        cdef Py_ssize_t first = self.rows, size = self.slab_rows
        cdef Py_ssize_t start = first // size, stop = (first + count + size - 1) // size
        cdef Py_ssize_t number, low, high
        cdef object idx = first
        cdef Slab slab
        if count == 0:
            return idx
        for number in range(start, stop):
            low = number * size - first if number > start else 0
            high = min((number + 1) * size - first, count)
            slabs.append(self.slab_for(number, sources, low, high))
        for number in range(start >> 8, ((stop - 1) >> 8) + 1):
            self.group_for(number << 8)
        for number in range(start, stop):  # from here on nothing can fail
            low = number * size - first if number > start else 0
            high = min((number + 1) * size - first, count)
            slab = <Slab>slabs[number - start]
            fill_slab(self.layout, slab, (first + low) - number * size, sources, low, high - low)
            self.publish(number, slab)
        self.rows = first + count
        self.writes += 1
        self.live += count
        return idx

    cdef Py_ssize_t sources(self, list staged, Source* sources) except -1:
        """Check staged columns and take their memory; the number of rows."""
        cdef Layout layout = self.layout
        cdef ColumnBuffer buffer
        cdef const Column* column
        cdef Py_ssize_t count = 0, i, longest
        cdef int j
        if len(staged) != layout.count:
            raise ValueError(f"a batch has {layout.count} columns, got {len(staged)}")
        for j in range(layout.count):
            buffer = <ColumnBuffer?>staged[j]
            column = &layout.columns[j]
            if j == 0:
                count = buffer.rows
            if buffer.code != column.code or buffer.rows != count:
                name, rows = layout.names[j], buffer.rows
                raise ValueError(f"column {name!r}: {rows} rows of dtype {buffer.code}, not {count} of {column.code}")
            if buffer.null_count and column.null_index < 0:
                raise ValueError(f"column {layout.names[j]!r} takes no null")
            sources[j].values = buffer.values.ptr
            sources[j].starts = <const uint64_t*>buffer.starts.ptr if column.kind != FIXED else NULL
            sources[j].nulls = buffer.null_bits.ptr if buffer.null_count else NULL
            if column.kind == INLINE:
                longest = 0
                for i in range(count):
                    longest = max(longest, <Py_ssize_t>(sources[j].starts[i + 1] - sources[j].starts[i]))
                if longest > column.limit:
                    raise ValueError(f"column {layout.names[j]!r} takes {column.limit} bytes, got {longest}")
        return count

    cdef Slab slab_for(self, Py_ssize_t number, const Source* sources, Py_ssize_t low, Py_ssize_t high):
        """The slab that takes staged rows ``low..high``, with room in its heap."""
        cdef Slab slab = self.slabs.find(number)
        cdef Py_ssize_t need = 0
        cdef int j
        if slab is None:
            slab = new_slab(self.layout)
        if self.layout.heaped:
            for j in range(self.layout.count):
                if self.layout.columns[j].kind == HEAPED:
                    need += sources[j].starts[high] - sources[j].starts[low]
            slab.reserve(need)
        return slab

    cdef int encode_some(self, object row, Cell* cells, uint8_t* given, list keep) except -1:
        """Cells of the columns that ``row`` has."""
        cdef dict fields = <dict>row if PyDict_CheckExact(row) else self.codec.mapping(row, -1, True)
        cdef Py_ssize_t found = 0
        cdef PyObject* value
        cdef int j
        for j in range(self.layout.count):
            value = PyDict_GetItemWithError(fields, <object>PyTuple_GET_ITEM(self.layout.names, j))
            given[j] = value != NULL
            if value != NULL:
                found += 1
                self.codec.encode_cell(j, <object>value, -1, &cells[j], keep)
        if found != PyDict_Size(fields):
            self.codec.reject(row, -1, True)
        return 0

    cdef object change_row(self, object idx, object row, bint polite):
        cdef Cell[ON_STACK] few
        cdef uint8_t[ON_STACK] few_given
        cdef Cell* cells = few
        cdef uint8_t* given = few_given
        cdef Memory many
        cdef list keep = []
        cdef Py_ssize_t position = position_of(idx), at = 0
        if not (polite and self.paused) and self.at_live(position, &at) is None:  # paused: its being there may not last
            raise KeyError(PyNumber_Index(idx))
        if self.layout.count > ON_STACK:
            many = allocate(self.layout.count * <Py_ssize_t>(sizeof(Cell) + 1))
            cells = <Cell*>many.ptr
            given = <uint8_t*>(many.ptr + self.layout.count * <Py_ssize_t>sizeof(Cell))
        self.encode_some(row, cells, given, keep)
        if polite and self.paused:
            self.slow("update", idx, row)
            return None
        self.write_cells(idx, position, cells, given)
        return None

    def update(self, idx, row):
        """Merge ``row`` into a live row; KeyError(idx) where there is none."""
        return self.change_row(idx, row, True)

    def change(self, idx, row):
        """``update`` for the writer whose turn it is."""
        return self.change_row(idx, row, False)

    def put(self, idx, values):
        """Overwrite (column, checked physical value) pairs of a live row; KeyError(idx) where there is none."""
        cdef Py_ssize_t position = position_of(idx), at = 0
        cdef Memory many = allocate(self.layout.count * <Py_ssize_t>(sizeof(Cell) + 1))
        cdef Cell* cells = <Cell*>many.ptr
        cdef uint8_t* given = <uint8_t*>(many.ptr + self.layout.count * <Py_ssize_t>sizeof(Cell))
        cdef list pairs
        cdef Py_ssize_t column
        if self.at_live(position, &at) is None:
            raise KeyError(PyNumber_Index(idx))
        pairs = [tuple(pair) for pair in values]
        for which, value in pairs:
            column = which
            if not 0 <= column < self.layout.count:
                raise IndexError(f"column {column} is outside 0..{self.layout.count}")
            self.codec.cell_of(<int>column, value, &cells[column])
            self.layout.fits(<int>column, &cells[column])
            given[column] = 1
        self.write_cells(idx, position, cells, given)

    cdef int write_cells(self, object idx, Py_ssize_t position, const Cell* cells, const uint8_t* given) except -1:
        """Overwrite the given columns of a live row."""
        cdef Layout layout = self.layout
        cdef Py_ssize_t at = 0, need = 0, before
        cdef Slab slab = self.at_live(position, &at)
        cdef int j
        if slab is None:
            raise KeyError(PyNumber_Index(idx))
        for j in range(layout.count):
            if given[j]:
                layout.fits(j, &cells[j])
                if layout.columns[j].kind == HEAPED and not cells[j].is_null:
                    need += cells[j].size
        slab = self.writable(position // self.slab_rows, slab)
        slab.reserve(need)
        before = slab.heap_bytes(layout, at)
        self.writes += 1
        for j in range(layout.count):
            if given[j]:
                slab.write(layout, at, j, &cells[j])
        before += need - slab.heap_bytes(layout, at)
        if before:
            self.discard(position // self.slab_rows, slab, before)
        return 0

    cdef int remove_row(self, object idx, Py_ssize_t position) except -1:
        cdef Layout layout = self.layout
        cdef Py_ssize_t at = 0, garbage, number = position // self.slab_rows
        cdef Slab slab = self.at_live(position, &at)
        if slab is None:
            raise KeyError(PyNumber_Index(idx))
        if slab.live == 1 and (number + 1) * self.slab_rows <= self.rows:  # its last row: nothing to write
            self.give_back(number)
            self.live -= 1
            self.writes += 1
            return 0
        slab = self.writable(number, slab)
        garbage = slab.heap_bytes(layout, at)
        slab.clear(layout, at)
        self.live -= 1
        self.writes += 1
        if garbage:
            self.discard(number, slab, garbage)
        return 0

    def delete(self, idx):
        """Delete a live row; KeyError(idx) where there is none."""
        cdef Py_ssize_t position = position_of(idx)
        if self.paused:
            self.slow("delete", PyNumber_Index(idx))
            return
        self.remove_row(idx, position)

    def remove(self, idx):
        """``delete`` for the writer whose turn it is."""
        self.remove_row(idx, position_of(idx))

    # -- what a transaction and a reopened file need -----------------------

    def revive(self, idx, values):
        """Make a dead position hold a row of checked physical values (the undo of ``remove``).

        KeyError(idx) for a position not given out, ValueError where a row is live.
        """
        self.add_values(PyNumber_Index(idx), values)

    cdef object bring_back(self, object idx, const Cell* cells):
        cdef Py_ssize_t position = position_of(idx), at = 0, number = position // self.slab_rows
        cdef Slab slab
        if position < 0 or position >= self.rows:
            raise KeyError(idx)
        if self.at_live(position, &at) is not None:
            raise ValueError(f"row {idx} is live")
        slab = self.slabs.find(number)
        if slab is not None:
            self.writable(number, slab)
        else:
            self.own_slabs()
            self.group_for(number)
            self.own_group(number >> 8)
        self.write_at(position, cells)
        return None

    def truncate(self, rows):
        """Take back every position at and past ``rows`` (the undo of inserts). ValueError outside 0..``rows``."""
        cdef Py_ssize_t cut = position_of(rows), size = self.slab_rows
        cdef Py_ssize_t number, past, end, at, garbage = 0
        cdef Slab slab = None, gone
        if cut < 0 or cut > self.rows:
            raise ValueError(f"cannot truncate {self.rows} rows to {rows}")
        number = cut // size
        at = cut - number * size
        past = number + 1 if at else number
        end = (self.rows + size - 1) // size
        self.own_slabs()
        for number in range(past >> 8, self.slabs.count):  # memory first
            if self.slabs.groups[number] != NULL:
                self.own_group(number)
        if at:
            slab = self.slabs.find(cut // size)
            if slab is not None:
                slab = self.writable(cut // size, slab)
        self.drop_from(past, end)
        self.rows = cut
        self.writes += 1
        if slab is not None:
            for at in range(at, size):
                if test_bit(slab.block + self.layout.live, at):
                    garbage += slab.heap_bytes(self.layout, at)
                    slab.clear(self.layout, at)
                    self.live -= 1
            if garbage:
                self.discard(cut // size, slab, garbage)

    cdef int drop_from(self, Py_ssize_t first, Py_ssize_t end) noexcept:
        """Forget slabs ``first..end``, whose groups no view reads."""
        cdef Py_ssize_t number = first, at
        cdef PyObject* slab
        while number < end:
            at = number >> 8
            if at >= self.slabs.count or self.slabs.groups[at] == NULL:
                number = (at + 1) << 8
                continue
            slab = (<Group>self.slabs.groups[at]).slabs[number & (FANOUT - 1)]
            if slab != NULL:
                self.live -= (<Slab>slab).live
                (<Group>self.slabs.groups[at]).set(number & (FANOUT - 1), None)
            number += 1
        return 0

    def skip(self, count):
        """Give out ``count`` positions that hold no row (dead rows of a reopened file). ValueError where negative."""
        cdef Py_ssize_t more = position_of(count), number = self.rows // self.slab_rows
        cdef Slab slab
        if more < 0 or more > MOST_ROWS - self.rows:
            raise ValueError(f"cannot skip {count} rows")
        slab = self.slabs.find(number)
        if slab is not None and slab.live == 0 and (number + 1) * self.slab_rows <= self.rows + more:
            self.give_back(number)
        self.rows += more
        self.writes += 1


cdef Py_ssize_t sys_size(object value) except -1:
    return _sys.getsizeof(value)


cdef void fill_slab(
    Layout layout, Slab slab, Py_ssize_t at, const Source* sources, Py_ssize_t low, Py_ssize_t count
) noexcept:
    """Write staged rows from ``low`` on from row ``at`` of a slab on, column by column while the slab is in cache."""
    cdef const Column* column
    cdef Py_ssize_t done, step
    cdef char* to
    cdef char* bits
    cdef int j
    for j in range(layout.count):
        column = &layout.columns[j]
        to = slab.block + at * layout.stride + column.offset
        if column.kind == FIXED:
            spread(to, layout.stride, sources[j].values + low * column.width, column.width, count)
        elif column.kind == INLINE:
            fill_inline(layout, column, slab, at, &sources[j], low, count)
        else:
            fill_heaped(layout, column, slab, at, &sources[j], low, count)
        if sources[j].nulls != NULL:
            bits = slab.block + layout.nulls + column.null_index * layout.bitmap
            done = 0
            while done < count:
                step = min(64, count - done)
                add_bits(bits, at + done, step, take_bits(sources[j].nulls, low + done, step))
                done += step
    done = 0
    while done < count:
        step = min(64, count - done)
        add_bits(slab.block + layout.live, at + done, step, <uint64_t>-1 if step == 64 else (<uint64_t>1 << step) - 1)
        done += step
    slab.live += count


cdef void fill_inline(
    Layout layout, const Column* column, Slab slab, Py_ssize_t at,
    const Source* source, Py_ssize_t low, Py_ssize_t count,
) noexcept:
    cdef char* record = slab.block + at * layout.stride
    cdef const uint64_t* starts = source.starts + low
    cdef Py_ssize_t i, size
    for i in range(count):
        size = starts[i + 1] - starts[i]
        memcpy(record + column.offset, source.values + starts[i], size)
        set_length(column, record, size)
        record += layout.stride


cdef void fill_heaped(
    Layout layout, const Column* column, Slab slab, Py_ssize_t at,
    const Source* source, Py_ssize_t low, Py_ssize_t count,
) noexcept:
    cdef char* to = slab.block + at * layout.stride + column.offset
    cdef const uint64_t* starts = source.starts + low
    cdef uint32_t[2] reference
    cdef Py_ssize_t i, size = starts[count] - starts[0]
    if size == 0:
        return
    memcpy(slab.heap.ptr + slab.heap_size, source.values + starts[0], size)
    for i in range(count):
        size = starts[i + 1] - starts[i]
        reference[0] = <uint32_t>(slab.heap_size + (starts[i] - starts[0])) if size else 0
        reference[1] = <uint32_t>size
        memcpy(to, reference, 8)
        to += layout.stride
    slab.heap_size += starts[count] - starts[0]
