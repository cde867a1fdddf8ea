# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Single-row access to a columnar table in one call. ``_tail_py`` is the readable twin."""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from ._codecs cimport Chunk
from ._values cimport Cell, ColumnBuffer, RowCodec, logical_object, snap_prefetch
from ._wal cimport WAL_FRAME, WAL_ROW, Log

from ._common import TAIL as _TAIL

__all__ = ["Alone", "RowPort"]

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object d, object key) except? NULL
    ctypedef struct PyTypeObject
    PyTypeObject* Py_TYPE(PyObject* value)
    Py_ssize_t entries_of "PyDict_GET_SIZE"(PyObject* value)
    Py_ssize_t size_of "PyList_GET_SIZE"(PyObject* value)
    PyObject* item_of "PyList_GET_ITEM"(PyObject* value, Py_ssize_t at)
    PyObject* member_of "PyTuple_GET_ITEM"(PyObject* value, Py_ssize_t at)
    int PyTuple_Check(PyObject* value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    object PyNumber_Index(object value)

cdef enum:
    BLOCK_ROWS = 1024
    SHIFT = 16
    MASK = 65535
    ON_STACK = 64  # columns whose cells fit on the stack
    TRIES = 3      # how often a part may be something else again after it was read from the file
    ABSENT = 0     # what read() may find
    READ = 1
    UNREAD = 2


cdef class Alone:
    """``with``: the lock is held, and single-row writes of other threads, which take none, wait for ``kernel.paused``.

    Compiled, neither a signal nor missing memory comes between the lock and what is noted of it.
    """
    cdef object lock
    cdef object kernel
    cdef bint was

    def __init__(self, lock, kernel):
        self.lock = lock
        self.kernel = kernel

    def __enter__(self):
        self.lock.acquire()
        try:
            self.was = self.kernel.paused
            self.kernel.paused = True
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, kind, error, traceback):
        try:
            self.kernel.paused = self.was
        finally:
            self.lock.release()


cdef inline bint is_ready(Log log, Py_ssize_t size) noexcept:
    """Whether a frame goes to the log without a call of Python code (but where the file system refuses it)."""
    cdef Py_ssize_t whole = (WAL_FRAME + size + 7) & ~<Py_ssize_t>7
    return log.fd >= 0 and log.limit > 0 and (log.hold or log.position + whole <= log.limit)


@cython.final
cdef class RowPort:
    """Reads and appends rows over lists that the columnar engine owns and changes in place.

    ``parts[j][k]`` is what segment k of column j is made of: (sealed chunk or None, tail buffer or None), one tuple so
    that a change of both is one assignment; None for a segment without a live row. ``overlays[j][k]`` maps in-segment
    rows to physical values that replace the stored ones (``overlays[j]`` is a dict that has only the segments with
    updates). ``deleted[k]`` is None or a bitmap of deleted rows. ``rows`` counts positions given out; a position at or
    past it reads as missing. The tail of the open (last) segment is appended to by ``insert``; ``on_full()`` is called
    when it reaches ``limit`` rows, after the row is in and outside the lock. The compiled methods are one step under
    the GIL; the twin takes ``lock``. While ``paused`` is true, or the tail is full and another thread is about to fold
    it, ``insert`` goes to ``slow(row)``, which waits for its turn; ``append`` is the same without that check.

    An entry of ``parts`` may also be an object with ``resolve()``, a segment of a file that is not read yet: whatever
    needs its rows calls that and looks again. It has put a tuple or None there by then, and ``overlays[j][k]`` and
    ``deleted[k]`` beside it.
    """

    cdef RowCodec codec
    cdef list parts, overlays, deleted
    cdef object lock, slow, on_full
    cdef Log log
    cdef bint busy  # a row is in the log and not yet in the tails
    cdef dict template
    cdef int count
    cdef public Py_ssize_t rows, limit
    cdef public bint paused

    def __init__(
        self, RowCodec codec not None, list parts not None, list overlays not None, list deleted not None,
        lock, slow, on_full,
    ):
        cdef int count = codec.count
        if len(parts) != count or len(overlays) != count:
            raise ValueError(f"{count} columns need as many parts and overlays, got {len(parts)} and {len(overlays)}")
        for entry in parts:
            if not isinstance(entry, list):
                raise TypeError("parts must be lists")
        for entry in overlays:
            if not isinstance(entry, dict):
                raise TypeError("overlays must be dicts")
        self.codec = codec
        self.count = count
        self.parts = parts
        self.overlays = overlays
        self.deleted = deleted
        self.lock = lock
        self.slow = slow
        self.on_full = on_full
        self.template = dict.fromkeys(codec.names)
        self.rows = 0
        self.limit = _TAIL
        self.paused = False

    # -- parts that are not read yet ---------------------------------------

    cdef object part(self, int column, Py_ssize_t segment):
        """What a segment of a column is made of, a tuple or None; where it is not read yet this runs Python code."""
        cdef list segments
        cdef int tried
        for tried in range(TRIES + 1):
            segments = <list>PyList_GET_ITEM(self.parts, column)
            if not 0 <= segment < PyList_GET_SIZE(segments):
                return None
            part = <object>PyList_GET_ITEM(segments, segment)
            if part is None or isinstance(part, tuple):
                return part
            if tried < TRIES:
                part.resolve()
        raise RuntimeError(f"segment {segment} of column {column} is still not read")

    cdef bint open_is_read(self):
        """Whether the open segment is there in every column."""
        cdef int column
        cdef list segments
        cdef Py_ssize_t last
        cdef PyObject* part
        if PyList_GET_SIZE(self.parts) < self.count:
            return True  # reserve() raises
        for column in range(self.count):
            segments = <list>PyList_GET_ITEM(self.parts, column)
            last = PyList_GET_SIZE(segments) - 1
            if last >= 0:
                part = PyList_GET_ITEM(segments, last)
                if not PyTuple_Check(part) and part != <PyObject*>None:
                    return False
        return True

    cdef int read_open(self) except -1:
        """Have the open segment read in every column; where it is not this runs Python code."""
        cdef int column, tried
        for tried in range(TRIES + 1):
            if self.open_is_read():
                return 0
            for column in range(self.count):
                self.part(column, len(<list>self.parts[column]) - 1)
        raise RuntimeError("the open segment is still not read")

    # -- appending ---------------------------------------------------------

    cdef ColumnBuffer tail(self, int column):
        """The tail buffer of the open segment; None where that is not read yet."""
        cdef list segments = <list>PyList_GET_ITEM(self.parts, column)
        cdef Py_ssize_t last = PyList_GET_SIZE(segments) - 1
        if last >= 0:
            part = <object>PyList_GET_ITEM(segments, last)
            if isinstance(part, tuple):
                buffer = (<tuple>part)[1]
                if buffer is not None:
                    return <ColumnBuffer?>buffer
            elif part is not None:
                return None
        raise RuntimeError("the open segment has no tail to append to")

    cdef bint reserve(self, const Cell* cells) except -1:
        """Room for a row in every tail, all of an append that can fail; False where one is not read yet.

        Runs no Python code.
        """
        cdef int column
        cdef ColumnBuffer tail = None
        if PyList_GET_SIZE(self.parts) < self.count:
            raise RuntimeError("parts has lost a column")
        for column in range(self.count):
            tail = self.tail(column)
            if tail is None:
                return False
            tail.reserve(1, cells[column].size if tail.width == 0 else 0)
            if cells[column].is_null:
                tail.reserve_nulls()
        return True

    cdef Py_ssize_t put(self, Cell* cells) except -2:
        """Append checked cells: room first in every tail, then what cannot fail; -1 where a tail is not read yet.

        Runs no Python code.
        """
        cdef int column
        cdef ColumnBuffer tail = None
        if self.busy:
            raise RuntimeError("a row is being written: what its log calls must not write to the table")
        if not self.reserve(cells):
            return -1
        for column in range(self.count):
            tail = self.tail(column)
            tail.push(&cells[column])
        self.rows += 1
        return self.rows - 1

    cdef Py_ssize_t record(self, Log log, Cell* cells, bint may_wait, bint locked, bint own) except -2:
        """Log a row and append it; -1 where things changed while the log made room, which may run Python code, or where
        a tail is not read yet. ``own``: it is the caller who has paused the others.
        """
        cdef uint64_t idx
        cdef char* to
        if self.busy:
            raise RuntimeError("a row is being written: what its log calls must not write to the table")
        to = log.place(WAL_ROW, 8 + self.codec.packed_size(cells))
        if self.log is not log or (log.fd < 0 and not locked):
            return -1  # the frame is not in the log yet
        if may_wait and ((self.paused and not own) or self.is_full()):
            return -1
        if not self.reserve(cells):
            return -1
        idx = self.rows
        memcpy(to, &idx, 8)
        self.codec.pack_cells(cells, to + 8)
        self.busy = True
        try:
            log.put()  # without a file descriptor this runs Python code: the lock is held
        finally:
            self.busy = False
        if <uint64_t>self.rows != idx:
            raise RuntimeError("the table changed while a row was being logged")
        return self.put(cells)

    cdef bint is_full(self) except -1:
        cdef ColumnBuffer tail
        if self.count == 0:
            return False
        tail = self.tail(0)
        return tail is not None and tail.rows >= self.limit

    cdef object take(self, object row, bint may_wait):
        cdef Cell[ON_STACK] few
        cdef Cell* cells = few
        cdef list keep = []
        cdef Py_ssize_t idx = -1
        cdef Log log
        cdef bint paused, own
        if self.count > ON_STACK:
            cells = <Cell*>PyMem_RawCalloc(self.count, sizeof(Cell))
            if cells == NULL:
                raise MemoryError()
        try:
            self.codec.encode_cells(row, -1, cells, keep)
            while not (may_wait and (self.paused or self.is_full())):
                log = self.log
                if log is None:
                    idx = self.put(cells)
                elif is_ready(log, 8 + self.codec.packed_size(cells)):
                    idx = self.record(log, cells, may_wait, False, False)
                else:
                    with self.lock:  # the log will call Python code, and other threads come in: all of them wait
                        paused = self.paused
                        if paused and may_wait:
                            continue
                        own = log.fd >= 0  # without a descriptor they take the lock as it is
                        self.paused = paused or own
                        try:
                            idx = self.record(log, cells, may_wait, True, own)
                        finally:
                            if own:
                                self.paused = paused
                if idx >= 0:
                    break
                self.read_open()
        finally:
            if cells != few:
                PyMem_RawFree(cells)
        if idx < 0:
            return self.slow(row)
        if log is None:
            if self.is_full():
                self.on_full()
            return idx
        try:
            if self.is_full():
                self.on_full()
        finally:
            log.settle_after()
        return idx

    def attach(self, Log log):
        """From now on ``insert`` and ``append`` write each row to this log (None: to none) as a ROW frame.

        The frame is written after room for the row was made and before it is in; the log's ``after()`` is called once
        it is, and after ``on_full()``. An error of ``after()`` is raised although the row is in.
        """
        self.log = log

    def insert(self, row):
        """Append a row and return its id; waits in ``slow`` while paused or full. Errors as ``RowCodec.encode``."""
        return self.take(row, True)

    def append(self, row):
        """``insert`` whether paused or not."""
        return self.take(row, False)

    def append_values(self, values):
        """Append one row of checked physical values in column order."""
        cdef list listed = list(values)
        cdef int column
        cdef Cell* cells
        cdef Py_ssize_t idx
        if len(listed) != self.count:
            raise ValueError(f"a row has {self.count} values, got {len(listed)}")
        cells = <Cell*>PyMem_RawCalloc(self.count + 1, sizeof(Cell))
        if cells == NULL:
            raise MemoryError()
        try:
            for column in range(self.count):
                self.codec.cell_of(column, listed[column], &cells[column])
            while True:
                idx = self.put(cells)
                if idx >= 0:
                    break
                self.read_open()
        finally:
            PyMem_RawFree(cells)
        if self.is_full():
            self.on_full()
        return idx

    def amend(self, idx, values):
        """Overlay (column, checked physical value) pairs on a live row, in one step. KeyError(idx): no such row."""
        cdef list pairs = []
        cdef Py_ssize_t place = self.live(idx)
        cdef int tried
        for column, value in values:
            pairs.append((PyNumber_Index(column), value))
        for tried in range(TRIES + 1):
            if place < 0 or not self.contains(place):
                raise KeyError(idx)
            for column, value in pairs:
                if not 0 <= column < self.count:
                    raise IndexError(f"column {column} is outside 0..{self.count}")
            if not self.read_parts(pairs, place >> SHIFT):
                break
        else:
            raise RuntimeError(f"row {place} is still not read")
        self.overlay(pairs, place >> SHIFT, place & MASK)

    cdef int overlay(self, list pairs, object segment, object row) except -1:
        """Set values in the overlays of a segment, all or (no memory) none. Only dicts of int keys: no Python code runs."""
        cdef list targets = [], before = []
        cdef dict overlays, target
        cdef Py_ssize_t at, done = 0
        for column, value in pairs:
            overlays = <dict>PyList_GET_ITEM(self.overlays, column)
            target = overlays.get(segment)
            if target is None:
                target = {}
                overlays[segment] = target
            targets.append(target)
            before.append(target.get(row, self))  # self: no value yet
        try:
            for at in range(PyList_GET_SIZE(pairs)):
                PyDict_SetItem(<dict>PyList_GET_ITEM(targets, at), row, (<tuple>PyList_GET_ITEM(pairs, at))[1])
                done += 1
        except MemoryError:
            while done > 0:  # neither a key that goes nor one that is there takes memory
                done -= 1
                if <object>PyList_GET_ITEM(before, done) is self:
                    (<dict>PyList_GET_ITEM(targets, done)).pop(row, None)
                else:
                    PyDict_SetItem(<dict>PyList_GET_ITEM(targets, done), row, <object>PyList_GET_ITEM(before, done))
            raise
        return 0

    cdef bint read_parts(self, list pairs, Py_ssize_t segment) except -1:
        """Have a segment read in the columns of (column, value) pairs; whether there was something to read."""
        cdef bint ran = False
        cdef int column
        for column, _ in pairs:
            if segment < PyList_GET_SIZE(<list>PyList_GET_ITEM(self.parts, column)):
                part = <object>PyList_GET_ITEM(<list>PyList_GET_ITEM(self.parts, column), segment)
                if part is not None and not isinstance(part, tuple):
                    self.part(column, segment)
                    ran = True
        return ran

    cdef Py_ssize_t live(self, object idx) except -2:
        """The position of a live row, -1 where there is none. The part of the first column is read by then."""
        cdef int overflow = 0
        cdef long long place
        cdef Py_ssize_t segment, at
        cdef uint8_t byte
        cdef list segments
        cdef PyObject* part
        if not PyLong_CheckExact(idx):
            idx = PyNumber_Index(idx)
        place = PyLong_AsLongLongAndOverflow(idx, &overflow)
        if overflow or place < 0 or place >= self.rows:
            return -1
        segment = place >> SHIFT
        if self.count:
            segments = <list>PyList_GET_ITEM(self.parts, 0)
            if segment < PyList_GET_SIZE(segments):
                part = PyList_GET_ITEM(segments, segment)
                if not PyTuple_Check(part) and part != <PyObject*>None:
                    self.part(0, segment)
                    if place >= self.rows:
                        return -1
        at = (place & MASK) >> 3
        if segment < PyList_GET_SIZE(self.deleted):
            gone = <object>PyList_GET_ITEM(self.deleted, segment)
            if gone is not None:
                if PyByteArray_CheckExact(gone):
                    byte = PyByteArray_AS_STRING(gone)[at] if at < PyByteArray_GET_SIZE(gone) else 0
                else:
                    byte = gone[at] if at < len(gone) else 0
                if byte >> (place & 7) & 1:
                    return -1
        return place

    def get(self, idx):
        """The live row as a dict of logical values, None where there is none. TypeError for what is not an integer."""
        cdef Py_ssize_t place = self.live(idx)
        cdef int column, tried, state = READ
        cdef dict found
        for tried in range(TRIES + 1):
            if place < 0:
                return None
            self.warm(place)
            found = PyDict_Copy(self.template)
            for column in range(self.count):
                state = self.read(column, place, found)
                if state != READ:
                    break
            if state == READ:
                return found
            if state == ABSENT:
                return None
            for column in range(self.count):
                self.part(column, place >> SHIFT)
            place = self.live(place)  # reading ran Python code: from the beginning
        raise RuntimeError(f"row {place} is still not read")

    cdef void warm(self, Py_ssize_t place) noexcept:
        """Ask for the sealed cells of a row all at once: at random places, one after the other, they were a quarter of
        the time of a point read.
        """
        cdef Py_ssize_t segment = place >> SHIFT, row = place & MASK, lanes
        cdef PyObject* segments
        cdef PyObject* part
        cdef Chunk chunk
        cdef int column
        for column in range(self.count):
            segments = item_of(<PyObject*>self.parts, column)
            if segment >= size_of(segments):
                return
            part = item_of(segments, segment)
            if not PyTuple_Check(part):
                continue
            part = member_of(part, 0)
            if Py_TYPE(part) != <PyTypeObject*>Chunk:
                continue
            chunk = <Chunk>part
            if row >= chunk.rows:
                return
            if chunk.width:  # packed: the word its bits start in
                lanes = BLOCK_ROWS // chunk.container
                snap_prefetch(
                    chunk.values
                    + (row >> 10) * 128 * chunk.width
                    + ((row & 1023) // lanes * chunk.width // chunk.container * lanes + (row & 1023) % lanes)
                    * (chunk.container >> 3)
                )
            elif chunk.item and chunk.values != NULL:
                snap_prefetch(chunk.values + row * chunk.item)
            elif chunk.offsets != NULL:
                snap_prefetch(chunk.offsets + row * chunk.offset_width)

    cdef int read(self, int column, Py_ssize_t place, dict found) except -1:
        """Put one column's value of a position into ``found``: READ, ABSENT (no row there), UNREAD (not read yet).

        References are borrowed, as no Python code runs before a value is made: counting them was a tenth of a point read.
        """
        cdef Py_ssize_t segment = place >> SHIFT, row = place & MASK, sealed = 0
        cdef PyObject* segments = item_of(<PyObject*>self.parts, column)
        cdef PyObject* overlays = item_of(<PyObject*>self.overlays, column)
        cdef PyObject* name = member_of(<PyObject*>self.codec.names, column)
        cdef PyObject* part
        cdef PyObject* chunk
        cdef PyObject* changed
        if segment >= size_of(segments):
            return ABSENT
        part = item_of(segments, segment)
        if not PyTuple_Check(part):
            return ABSENT if part == <PyObject*>None else UNREAD
        if entries_of(overlays):
            changed = PyDict_GetItemWithError(<object>overlays, segment)
            if changed != NULL:
                changed = PyDict_GetItemWithError(<object>changed, row)
                if changed != NULL:
                    PyDict_SetItem(found, <object>name, logical_object(self.codec.codes[column], <object>changed))
                    return READ
        chunk = member_of(part, 0)
        if chunk != <PyObject*>None:
            if Py_TYPE(chunk) != <PyTypeObject*>Chunk:
                raise TypeError(f"a sealed part must be a compiled Chunk, not {type(<object>chunk).__name__}")
            sealed = (<Chunk>chunk).rows
            if row < sealed:
                PyDict_SetItem(found, <object>name, (<Chunk>chunk).logical_at(row))
                return READ
        chunk = member_of(part, 1)
        if chunk == <PyObject*>None or row - sealed >= (<ColumnBuffer>chunk).rows:
            return ABSENT
        PyDict_SetItem(found, <object>name, (<ColumnBuffer>chunk).logical_at(row - sealed))
        return READ

    def contains(self, idx):
        """Whether the position holds a live row. TypeError for what is not an integer."""
        cdef Py_ssize_t place = self.live(idx)
        cdef Py_ssize_t held = 0
        cdef list segments
        if place < 0:
            return False
        if self.count == 0:
            return True
        segments = <list>self.parts[0]
        if place >> SHIFT >= PyList_GET_SIZE(segments):
            return False
        part = <object>PyList_GET_ITEM(segments, place >> SHIFT)
        if not isinstance(part, tuple):  # live() has had it read
            return False
        chunk, buffer = part
        if chunk is not None:
            held += chunk.rows
        if buffer is not None:
            held += (<ColumnBuffer>buffer).rows
        return (place & MASK) < held
