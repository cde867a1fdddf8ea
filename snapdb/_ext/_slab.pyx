# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The row store: slabs of fixed-width rows, liveness, heaps. ``_slab_py`` is the readable twin.

A method is one step under the GIL: it encodes (which may run Python code), then reserves memory, then writes, and
nothing from the last look at the table to the end of the write runs Python code or starts a garbage collection.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_CheckExact, PyDict_Copy, PyDict_Size
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.math cimport INFINITY, NAN, nextafter, nextafterf
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import sys as _sys
from operator import index as _index

from ._common import LIMITS as _LIMITS

from ._codecs cimport chosen_kernels
from ._index cimport HashTable, key_of
from ._kernels cimport BLOCK, WORDS, SnapdbKernels
from ._values cimport Cell, ColumnBuffer, Memory, RowCodec, allocate, logical_bytes, logical_fixed, snap_prefetch
from ._wal cimport WAL_FRAME, WAL_ROW, Log

__all__ = ["Lookup", "SlabTable", "SlabView"]

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    object PyNumber_Index(object value)
    object PyMemoryView_FromObject(object value)
    object PyByteArray_FromStringAndSize(const char* data, Py_ssize_t size)
    char* PyByteArray_AS_STRING(object value)
    Py_ssize_t PyByteArray_GET_SIZE(object value)
    PyObject* PyTuple_GET_ITEM(object value, Py_ssize_t at)
    PyObject* member_of "PyTuple_GET_ITEM"(PyObject* value, Py_ssize_t at)
    const char* PyUnicode_AsUTF8AndSize(object value, Py_ssize_t* size) except NULL
    int set_item "PyDict_SetItem"(PyObject* found, PyObject* key, PyObject* value) except -1

include "_slab_store.pxi"
include "_slab_zones.pxi"
include "_slab_view.pxi"
include "_slab_terms.pxi"
include "_slab_where.pxi"
include "_slab_file.pxi"
include "_slab_branch.pxi"
include "_slab_find.pxi"


cdef enum:
    ON_STACK = 32  # columns whose cells fit on the stack
    TRIES = 100    # to have a group: another thread may go back to a state of the file as soon as it is here

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
    for its turn; ``append``, ``change`` and ``remove`` are the same without that check. ``lock`` is taken where a write
    calls Python code half-way: where its log has no file descriptor; and by the twin.
    """
    cdef readonly Py_ssize_t rows  # positions given out
    cdef readonly Py_ssize_t live
    cdef readonly Py_ssize_t slab_rows
    cdef readonly Py_ssize_t writes  # grows with every write, to tell whether something read earlier is still true
    cdef readonly Py_ssize_t group_slabs  # slabs of a group in a file
    cdef public bint paused
    cdef bint busy  # Python code writes a row to the log that is not in the table yet: nobody else may write
    cdef RowCodec codec
    cdef Layout layout
    cdef Pins pins
    cdef int64_t floor  # what is older belongs to the table that this one was branched from; 0: all is its own
    cdef Hold base  # keeps that as it is, for either table
    cdef Directory slabs
    cdef object lock, slow, fault
    cdef Zones zones  # None: nobody has asked, or nothing is known any more
    cdef object missing  # bitmap of the groups that are in the file only; None: everything is here
    cdef Log log

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
        self.group_slabs = max(1, GROUP_BYTES // layout.size)
        self.layout = layout

    def __cinit__(self):
        self.pins = Pins.__new__(Pins)
        self.slabs = Directory.__new__(Directory)

    # -- reads -------------------------------------------------------------

    cdef inline PyObject* live_at(self, Py_ssize_t position, Py_ssize_t* at) except? NULL:
        """The slab of a live row, borrowed; NULL where there is no such row."""
        cdef Py_ssize_t number, row
        cdef PyObject* slab
        cdef const char* record
        if position < 0 or position >= self.rows:
            return NULL
        number = position // self.slab_rows
        row = at[0] = position - number * self.slab_rows
        slab = self.slabs.at(number)
        if slab == NULL:
            if self.missing is None:
                return NULL
            self.ask(number)
            slab = self.slabs.at(number)
            if slab == NULL:
                return NULL
        # a row at a random place is two misses and its liveness a third: ask for all at once, a tenth of a point read
        record = (<Slab>slab).block + row * self.layout.stride
        snap_prefetch(record)
        snap_prefetch(record + self.layout.stride - 1)
        if (<Slab>slab).live == self.slab_rows or test_bit((<Slab>slab).block + self.layout.live, row):
            return slab
        return NULL

    cdef inline Slab at_live(self, Py_ssize_t position, Py_ssize_t* at):
        """The slab of a live row, None where there is no such row."""
        cdef PyObject* slab = self.live_at(position, at)
        return <Slab>slab if slab != NULL else None

    def get(self, idx):
        """The live row as a dict of logical values, None where there is none."""
        cdef Py_ssize_t at = 0
        cdef PyObject* found = self.live_at(position_of(idx), &at)
        cdef Slab slab
        if found == NULL:
            return None
        slab = <Slab>found
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

    def rows_of(self, ids):
        """The live rows of these ids (an array of ``Q``), in their order; ids without one are left out."""
        return rows_of(self, ids)

    def contains(self, idx):
        """Whether there is a live row at ``idx``."""
        cdef Py_ssize_t at = 0
        return self.live_at(position_of(idx), &at) != NULL

    def take_over(self, SlabTable other not None):
        """Have every row of ``other`` (a table of the same layout, empty afterwards) instead of one's own; views keep what they see."""
        if other.layout.stride != self.layout.stride or other.slab_rows != self.slab_rows or other is self:
            raise ValueError("take_over needs another table of the same layout")
        self.idle()
        other.idle()
        self.pins, self.slabs = other.pins, other.slabs
        self.floor, self.base = other.floor, other.base
        self.missing, self.fault = other.missing, other.fault
        self.rows, self.live = other.rows, other.live
        self.writes += 1
        other.writes += 1
        self.zones = other.zones = None
        other.pins = Pins.__new__(Pins)
        other.slabs = Directory.__new__(Directory)
        other.missing = other.fault = other.base = None
        other.rows = other.live = other.floor = 0

    def branch(self, SlabView view not None):
        """Be what a view of a table of the same layout shows; what is written to either does not show in the other.

        Takes as long as it takes to copy one reference in 256 slabs. ValueError where the table has rows.
        """
        self.idle()
        branch_rows(self, view)

    def pin(self):
        """The rows as of now."""
        cdef SlabView view = SlabView.__new__(SlabView)
        view.layout = self.layout
        view.pins = self.pins
        view.epoch = self.pins.epoch + 1
        view.hold = hold(self.pins, view.epoch)
        view.slabs = self.slabs
        if self.zones is None:
            self.zones = new_table_zones(self.layout, self.writes)
        view.zones = self.zones
        view.written = self.writes
        view.rows = self.rows
        view.live = self.live
        self.pins.epoch = view.epoch
        return view

    @property
    def nbytes(self):
        """Bytes of memory held: rows, side areas, heaps and the objects around them."""
        cdef Py_ssize_t zones = 0 if self.zones is None else self.zones.nbytes()
        return sys_size(self) + zones + held_by(self.layout, self.slabs, self.slabs.count * FANOUT, None)

    # -- copies: what a view or an export reads is left to it -----------------

    cdef inline bint is_shared(self, int64_t stamp) noexcept:
        """Whether a view or another table reads what was made at this epoch."""
        return stamp < self.pins.newest

    cdef int own_slabs(self) except -1:
        if self.is_shared(self.slabs.stamp):
            self.slabs = copy_directory(self.slabs, self.pins.epoch)
        return 0

    cdef Group own_group(self, Py_ssize_t at):
        """The group (which is there) in a form that nobody else reads."""
        cdef Group group
        self.own_slabs()
        group = <Group>self.slabs.groups[at]
        if self.is_shared(group.stamp):
            group = copy_group(group, self.pins.epoch)
            self.slabs.set(at, group)
        return group

    cdef Slab writable(self, Py_ssize_t number, Slab slab):
        """The slab, or where something reads it a copy that takes its place."""
        cdef Group group
        cdef bint is_own = slab.stamp >= self.floor
        if slab.pins or self.is_shared(slab.stamp):
            slab = copy_slab(self.layout, slab, self.pins.epoch)
            if not is_own:
                move_heap(slab)  # the other table may grow that one
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

    cdef int idle(self) except -1:
        """RuntimeError in a write from within the log's own callbacks."""
        if self.busy:
            raise RuntimeError("a row is being written: what its log calls must not write to the table")
        return 0

    cdef object append_cells(self, const Cell* cells):
        """Append a row that is encoded; returns its id."""
        cdef object idx = self.rows  # made first: from the write on nothing can fail
        self.write_at(self.rows, cells)
        self.rows += 1
        return idx

    cdef int write_at(self, Py_ssize_t position, const Cell* cells) except -1:
        """Make a position that holds no row hold this one."""
        cdef Slab slab = self.room_at(position, cells)
        self.fill_at(position, slab, cells)
        return 0

    cdef Slab room_at(self, Py_ssize_t position, const Cell* cells):
        """The slab of a position with memory for this row. A fresh one is in no group yet."""
        cdef Layout layout = self.layout
        cdef Py_ssize_t number = position // self.slab_rows, need = 0
        cdef Slab slab = self.slabs.find(number)
        cdef int j
        self.idle()
        for j in range(layout.count):
            layout.fits(j, &cells[j])
            if layout.columns[j].kind == HEAPED and not cells[j].is_null:
                need += cells[j].size
        if slab is None:
            slab = new_slab(layout)
            self.group_for(number)
        if need:
            slab.reserve(need)
        return slab

    cdef void fill_at(self, Py_ssize_t position, Slab slab, const Cell* cells) noexcept:
        """Write a row that ``room_at`` made room for."""
        cdef Py_ssize_t number = position // self.slab_rows
        self.publish(number, slab)
        slab.write_row(self.layout, position - number * self.slab_rows, cells)
        self.live += 1
        self.wrote(number)

    cdef inline void wrote(self, Py_ssize_t number) noexcept:
        """Count a write to a slab."""
        self.writes += 1
        if self.zones is not None:
            self.zones.touch(number, self.writes)

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
        if self.log is not None or self.missing is not None:
            return self.add_filed(row, cells, polite)
        return self.append_cells(cells)

    cdef object add_filed(self, object row, const Cell* cells, bint polite):
        """``add_row`` for a table of a file: have its group, log it, append it."""
        cdef object idx = None
        cdef bint paused
        cdef Log log
        while idx is None:
            self.ask_open()
            log = self.log
            if polite and self.paused:
                return self.slow("insert", row)
            if log is None:
                return self.append_cells(cells)
            if is_ready(log, 8 + self.codec.packed_size(cells)):
                idx = self.log_row(log, cells)
                continue
            with self.lock:  # the log will call Python code, and other threads come in: all of them wait
                paused = self.paused
                if paused and polite:
                    continue
                self.paused = True
                try:
                    idx = self.log_row(log, cells)
                finally:
                    self.paused = paused
        log.settle_after()
        return idx

    cdef object log_row(self, Log log, const Cell* cells):
        """Log a row and append it; None where the log had to make room and things changed meanwhile."""
        cdef char* frame = log.place(WAL_ROW, 8 + self.codec.packed_size(cells))
        cdef int64_t position = self.rows
        cdef object idx = position
        cdef Slab slab
        if self.log is not log or self.open_missing():
            return None  # the frame is not in the log yet
        slab = self.room_at(position, cells)
        memcpy(frame, &position, 8)
        self.codec.pack_cells(cells, frame + 8)
        self.busy = log.fd < 0  # it is written by Python code
        try:
            log.put()
        finally:
            self.busy = False
        self.fill_at(position, slab, cells)
        self.rows = position + 1
        return idx

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
        self.ask_open()
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
        cdef Py_ssize_t number, low, high, count, first, start, stop, size = self.slab_rows
        cdef object idx
        cdef Slab slab
        self.ask_open()
        self.idle()
        count = self.sources(staged, sources)
        first = self.rows
        start, stop = first // size, (first + count + size - 1) // size
        idx = first
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
        for number in range(start, stop):
            self.wrote(number)
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
        cdef list pairs = []
        cdef Py_ssize_t column
        if self.at_live(position, &at) is None:
            raise KeyError(PyNumber_Index(idx))
        for pair in values:
            pairs.append(tuple(pair))
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
        self.idle()
        slab = self.writable(position // self.slab_rows, slab)
        slab.reserve(need)
        before = slab.heap_bytes(layout, at)
        self.wrote(position // self.slab_rows)
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
        self.idle()
        if slab.live == 1 and (number + 1) * self.slab_rows <= self.rows:  # its last row: nothing to write
            self.give_back(number)
            self.live -= 1
            self.wrote(number)
            return 0
        slab = self.writable(number, slab)
        garbage = slab.heap_bytes(layout, at)
        slab.clear(layout, at)
        self.live -= 1
        self.wrote(number)
        if garbage:
            self.discard(number, slab, garbage)
        return 0

    def delete(self, idx):
        """Delete a live row; KeyError(idx) where there is none."""
        cdef Py_ssize_t position = position_of(idx), at = 0
        if self.missing is not None:
            self.at_live(position, &at)  # its group is loaded before the look at ``paused``
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
        if self.at_live(position, &at) is not None:
            raise ValueError(f"row {idx} is live")
        if position < 0 or position >= self.rows:
            raise KeyError(idx)
        self.idle()
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
        cdef Slab slab = None
        self.idle()
        if 0 <= cut < self.rows and self.missing is not None:
            ask_from(self, cut)
        if cut < 0 or cut > self.rows:
            raise ValueError(f"cannot truncate {self.rows} rows to {rows}")
        number = cut // size
        at = cut - number * size
        past = number + 1 if at else number
        end = (self.rows + size - 1) // size
        self.own_slabs()
        for number in range(number >> 8, self.slabs.count):  # memory first
            if self.slabs.groups[number] != NULL:
                self.own_group(number)
        if at:
            slab = self.slabs.find(cut // size)
            if slab is not None:
                slab = self.writable(cut // size, slab)
        self.drop_from(past, end)
        self.rows = cut
        self.writes += 1
        self.zones = None
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
        self.idle()
        slab = self.slabs.find(number)
        if slab is not None and slab.live == 0 and (number + 1) * self.slab_rows <= self.rows + more:
            self.give_back(number)
        self.rows += more
        self.writes += 1
        self.zones = None

    # -- for a table in a file ---------------------------------------------

    cdef bint is_missing(self, Py_ssize_t number):
        """Whether the group of a slab is in the file only."""
        cdef Py_ssize_t group = number // self.group_slabs
        if self.missing is None or (group >> 3) >= PyByteArray_GET_SIZE(self.missing):
            return False
        return test_bit(PyByteArray_AS_STRING(self.missing), group)

    cdef Slab ask(self, Py_ssize_t number):
        """A slab that is not here, after its group was asked for; None where it has no live row."""
        cdef Slab slab = None
        cdef int tries = 0
        while slab is None and self.is_missing(number):
            if tries == TRIES:
                raise RuntimeError(f"slab group {number // self.group_slabs} was asked for and did not come")
            self.fault(number // self.group_slabs)
            slab = self.slabs.find(number)
            tries += 1
        return slab

    cdef bint open_missing(self):
        """Whether the next row goes to a group that is not here."""
        cdef Py_ssize_t number = self.rows // self.slab_rows
        return self.missing is not None and self.slabs.find(number) is None and self.is_missing(number)

    cdef int ask_open(self) except -1:
        """Have the group that the next row goes to."""
        while self.open_missing():
            self.ask(self.rows // self.slab_rows)
        return 0

    def attach(self, Log log):
        """From now on ``insert`` and ``append`` write each row to this log (None: to none) as a frame."""
        self.log = log

    def dump(self, group):
        """The image of a slab group, heaps rewritten without garbage. ValueError where it is not here."""
        return dump_group(self, group_of(self, group))

    def load(self, group, data):
        """Take in the image of a group, none of whose slabs are here; ``live`` and ``rows`` stay as they are.

        Bytes are not trusted: ValueError, and nothing is taken in.
        """
        cdef Py_ssize_t number = group_of(self, group)
        cdef list slabs = []
        cdef Py_buffer image
        self.zones = None
        PyObject_GetBuffer(data, &image, PyBUF_SIMPLE)
        try:
            load_group(self, number, <const char*>image.buf, image.len, slabs)
        finally:
            PyBuffer_Release(&image)

    def adopt(self, rows, live, missing, fault):
        """Be a table of ``rows`` positions and ``live`` rows whose groups come when they are asked for.

        ``missing`` (a bytearray, or None) has a bit for each group that ``load`` has not brought yet; ``fault(group)``
        loads it and clears the bit. ValueError where the table has rows.
        """
        cdef Py_ssize_t count = position_of(rows), alive = position_of(live)
        self.idle()
        if self.rows:
            raise ValueError(f"a table of {self.rows} rows cannot be the table of a file")
        if not 0 <= alive <= count <= MOST_ROWS:
            raise ValueError(f"{live} live rows of {rows}")
        if missing is not None and not isinstance(missing, bytearray):
            raise TypeError(f"missing must be a bytearray, not {type(missing).__name__}")
        self.rows = count
        self.live = alive
        self.missing = missing
        self.fault = fault
        self.writes += 1
        self.zones = None

    def absorb(self, SlabTable other not None):
        """Append the rows of ``other``, which was made with ``skip(rows)`` and ``extend`` and is empty afterwards.

        One step: memory first, nothing on failure. ValueError where it does not fit.
        """
        self.ask_open()
        self.idle()
        other.idle()
        absorb_rows(self, other)


cdef Py_ssize_t sys_size(object value) except -1:
    return _sys.getsizeof(value)
