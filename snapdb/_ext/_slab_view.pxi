# Views of a slab table: column gathers, masks and iteration over rows as of one moment; part of _slab.pyx.

ctypedef struct Span:
    char* block  # NULL: no row is live
    char* heap
    Py_ssize_t low  # rows wanted of this slab
    Py_ssize_t count
    bint full  # every row of the slab is live


@cython.final
@cython.no_gc
cdef class RawRow:
    """The memory of one row, read-only; its slab is copied before it would change."""
    cdef Slab slab
    cdef char* place
    cdef Py_ssize_t size

    def __dealloc__(self):
        if self.slab is not None:
            self.slab.pins -= 1

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("a stored row is read-only")
        view.buf = self.place
        view.obj = self
        view.len = self.size
        view.readonly = 1
        view.itemsize = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"B"
        view.ndim = 1
        view.shape = NULL
        if flags & PyBUF_ND:
            view.shape = &self.size
        view.strides = NULL
        if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
            view.strides = &view.itemsize
        view.suboffsets = NULL
        view.internal = NULL


cdef object raw_row(Layout layout, Slab slab, Py_ssize_t at):
    cdef RawRow made = RawRow.__new__(RawRow)
    made.place = slab.block + at * layout.stride
    made.size = layout.width
    made.slab = slab
    slab.pins += 1
    return PyMemoryView_FromObject(made)


cdef Memory spans_of(Layout layout, Directory slabs, Py_ssize_t start, Py_ssize_t stop, list kept):
    """The slabs of positions ``start..stop`` as an array of ``Span``; ``kept`` keeps heaps alive.

    Runs no Python code.
    """
    cdef Py_ssize_t size = layout.rows
    cdef Py_ssize_t number = start // size, last = (stop + size - 1) // size, low
    cdef Memory found
    cdef Span* span
    cdef Slab slab
    found = allocate((last - number) * <Py_ssize_t>sizeof(Span) if stop > start else 0)
    span = <Span*>found.ptr
    while number < last and stop > start:
        low = number * size
        slab = slabs.find(number)
        span.low = start - low if start > low else 0
        span.count = (stop - low if stop - low < size else size) - span.low
        if slab is not None:
            span.block = slab.block
            span.full = slab.live == size
            if slab.heap is not None:
                span.heap = slab.heap.ptr
                if kept is not None:
                    kept.append(slab.heap)
        span += 1
        number += 1
    return found


@cython.final
@cython.no_gc
cdef class SlabView:
    """The rows as of the moment it was made; later writes do not show. Released by ``release()`` or when dropped."""
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t live
    cdef Layout layout
    cdef Directory slabs
    cdef Pins pins
    cdef Hold hold
    cdef int64_t epoch
    cdef Zones zones
    cdef int64_t written  # what the table's writes were: with more, its zones may say nothing of these rows

    def __init__(self):
        raise TypeError("SlabView is made by SlabTable.pin()")

    def release(self):
        """Let go of the rows; harmless when done before. Iterators made earlier go on."""
        self.slabs = None
        self.hold.release()

    cdef Py_ssize_t check(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        """How many spans ``start..stop`` has."""
        cdef Py_ssize_t size = self.layout.rows
        if self.slabs is None:
            raise ValueError("the view was released")
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"positions {start}..{stop} are outside 0..{self.rows}")
        return 0 if start == stop else (stop + size - 1) // size - start // size

    def gather(self, int column, Py_ssize_t start, Py_ssize_t stop, mask=None):
        """Positions ``start..stop`` of one column, dead rows as null (zero slots), as are those that a mask has not:
        their values are not read.

        ValueError for positions that the view does not have, for a mask of another size and after ``release()``.
        """
        cdef Layout layout = self.layout
        cdef Memory spans, chosen
        cdef Hold guard  # against a release() on another thread
        cdef ColumnBuffer made
        cdef list kept = []
        cdef Py_ssize_t count
        cdef const char* bits = NULL
        if not 0 <= column < layout.count:
            raise IndexError(f"column {column} is outside 0..{layout.count}")
        made = ColumnBuffer.__new__(ColumnBuffer, layout.columns[column].code)
        if mask is not None:
            self.check(start, stop)
            chosen = copy_mask(mask, stop - start)
            bits = chosen.ptr
        count = self.check(start, stop)
        guard = hold(self.pins, self.epoch)
        spans = spans_of(layout, self.slabs, start, stop, kept if layout.columns[column].kind == HEAPED else None)
        if layout.columns[column].kind == FIXED:
            gather_fixed(layout, &layout.columns[column], <Span*>spans.ptr, count, stop - start, bits, made)
        else:
            gather_texts(layout, &layout.columns[column], <Span*>spans.ptr, count, stop - start, bits, made)
        made.rows = stop - start
        gather_nulls(layout, &layout.columns[column], <Span*>spans.ptr, count, stop - start, bits, made)
        guard.release()
        return made

    def live_mask(self, Py_ssize_t start, Py_ssize_t stop):
        """Bitmap of the live rows of positions ``start..stop``, None where all are live."""
        cdef Py_ssize_t count = self.check(start, stop), missing, i
        cdef Memory spans = spans_of(self.layout, self.slabs, start, stop, None)
        cdef Memory dead = allocate(bitmap_size(stop - start))
        cdef uint64_t* words
        missing = absent_bits(self.layout, -1, <Span*>spans.ptr, count, dead.ptr)
        if missing == 0:
            return None
        mask = PyByteArray_FromStringAndSize(dead.ptr, bitmap_size(stop - start))
        words = <uint64_t*>PyByteArray_AS_STRING(mask)
        for i in range((stop - start) >> 6):
            words[i] = ~words[i]
        if (stop - start) & 63:
            words[(stop - start) >> 6] ^= (<uint64_t>1 << ((stop - start) & 63)) - 1
        return mask

    def select(self, terms, bint any_of, Py_ssize_t start, Py_ssize_t stop):
        """Bitmap of the live rows of positions ``start..stop`` that meet all conditions, or any of them; None where
        none does.

        ``terms``: (column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as a ``Predicate`` has
        them; without any it is every live row. ValueError for positions that the view does not have, another kind, and
        after ``release()``; IndexError for a column that is not there.
        """
        cdef list given = list(terms)
        cdef bytearray mask
        self.check(start, stop)
        mask = PyByteArray_FromStringAndSize(NULL, bitmap_size(stop - start))
        return mask if ask_view(self, given, any_of, start, stop, PyByteArray_AS_STRING(mask)) else None

    def count(self, terms, bint any_of, Py_ssize_t start, Py_ssize_t stop):
        """How many rows ``select`` would have."""
        return ask_view(self, list(terms), any_of, start, stop, NULL)

    def select_rows(self, terms, bint any_of):
        """The live rows that meet all conditions, or any of them, as dicts in id order; ``terms`` as in ``select``."""
        return chosen_rows(self, list(terms), any_of)

    def items(self):
        """(id, row) of the live rows in order. The iterator keeps the view alive."""
        return row_iterator(self, False)

    def raw_items(self):
        """(id, read-only bytes of the fixed-width row) of the live rows in order."""
        return row_iterator(self, True)

    def differing(self, SlabView other not None):
        """Numbers, ascending, of the slabs that are not the same memory in both; where one view has more rows, of those
        that have them too. ValueError for views of another layout, or released ones.
        """
        return differing_slabs(self, other)

    def footprint(self, set seen not None):
        """Bytes of memory that the view keeps and ``seen`` does not name yet; what it keeps is added to it."""
        return footprint_of(self, seen)


cdef Memory copy_mask(object mask, Py_ssize_t rows):
    """The words of a bitmap over that many rows."""
    cdef Memory words = allocate(bitmap_size(rows))
    cdef Py_buffer given
    PyObject_GetBuffer(mask, &given, PyBUF_SIMPLE)
    try:
        if given.len != bitmap_size(rows):
            raise ValueError(f"a mask over {rows} rows has {bitmap_size(rows)} bytes, got {given.len}")
        memcpy(words.ptr, given.buf, given.len)
    finally:
        PyBuffer_Release(&given)
    return words


cdef int gather_fixed(
    Layout layout, const Column* column, const Span* spans, Py_ssize_t count, Py_ssize_t rows, const char* chosen,
    ColumnBuffer made,
) except -1:
    cdef Py_ssize_t i, at = 0, stride = layout.stride
    cdef int width = column.width
    cdef const char* place
    cdef char* to
    made.exactly(rows, 0)
    to = made.values.ptr
    with nogil:
        for i in range(count):
            if spans[i].block != NULL:
                place = spans[i].block + spans[i].low * stride + column.offset
                if chosen == NULL:
                    collect(to, place, stride, width, spans[i].count)
                else:
                    collect_chosen(to, place, stride, width, spans[i].count, chosen, at)
            to += spans[i].count * width
            at += spans[i].count
    return 0


cdef void collect_chosen(
    char* to, const char* rows, Py_ssize_t stride, int width, Py_ssize_t count, const char* chosen, Py_ssize_t at
) noexcept nogil:
    """``collect`` of the rows whose bit is set, the first one being bit ``at``."""
    cdef Py_ssize_t done = 0, step
    cdef uint64_t left
    cdef int row
    while done < count:
        step = min(<Py_ssize_t>64, count - done)
        left = take_bits(chosen, at + done, step)
        while left:
            row = snap_lowest(left)
            left &= left - 1
            copy_fixed(to + (done + row) * width, rows + (done + row) * stride, width)
        done += step


cdef int gather_texts(
    Layout layout, const Column* column, const Span* spans, Py_ssize_t count, Py_ssize_t rows, const char* chosen,
    ColumnBuffer made,
) except -1:
    cdef Memory starts = allocate((rows + 1) * 8)
    cdef uint64_t* ends = <uint64_t*>starts.ptr + 1
    cdef Py_ssize_t i, at, row = 0, stride = layout.stride
    cdef uint64_t end = 0
    cdef const uint64_t* sizes = <const uint64_t*>starts.ptr
    cdef uint32_t[2] reference
    cdef const char* place
    with nogil:
        for i in range(count):
            for at in range(spans[i].low, spans[i].low + spans[i].count):
                if spans[i].block != NULL and (chosen == NULL or test_bit(chosen, row)):
                    if column.kind == INLINE:
                        end += text_length(column, spans[i].block + at * stride)
                    else:
                        memcpy(reference, spans[i].block + at * stride + column.offset, 8)
                        end += reference[1]
                ends[row] = end
                row += 1
    made.exactly(rows, end)
    made.starts = starts
    row = 0
    with nogil:
        for i in range(count):
            if spans[i].block == NULL:
                row += spans[i].count
                continue
            place = spans[i].block + spans[i].low * stride + column.offset
            for at in range(spans[i].count):
                if sizes[row + 1] > sizes[row]:
                    if column.kind == INLINE:
                        memcpy(made.values.ptr + sizes[row], place, sizes[row + 1] - sizes[row])
                    else:
                        memcpy(reference, place, 8)
                        memcpy(made.values.ptr + sizes[row], spans[i].heap + reference[0], sizes[row + 1] - sizes[row])
                row += 1
                place += stride
    made.heap_size = end
    return 0


cdef int gather_nulls(
    Layout layout, const Column* column, const Span* spans, Py_ssize_t count, Py_ssize_t rows, const char* chosen,
    ColumnBuffer made,
) except -1:
    cdef Memory bits = allocate(bitmap_size(made.capacity))
    cdef uint64_t* words = <uint64_t*>bits.ptr
    cdef uint64_t left_out
    cdef Py_ssize_t missing, i
    with nogil:
        missing = absent_bits(layout, column.null_index, spans, count, bits.ptr)
        if chosen != NULL:
            missing = 0
            for i in range((rows + 63) >> 6):
                left_out = ~(<const uint64_t*>chosen)[i]
                if i == rows >> 6:
                    left_out &= (<uint64_t>1 << (rows & 63)) - 1
                words[i] |= left_out
                missing += bit_count(words[i])
    if missing:
        made.null_bits = bits
        made.null_count = missing
    return 0


cdef Py_ssize_t absent_bits(
    Layout layout, int null_index, const Span* spans, Py_ssize_t count, char* bits
) noexcept nogil:
    """Set the bits of rows that are dead, or null where ``null_index`` names a bitmap; returns how many."""
    cdef Py_ssize_t i, done, step, total = 0, to = 0
    cdef Py_ssize_t nulls = layout.nulls + null_index * layout.bitmap
    cdef uint64_t absent, every
    for i in range(count):
        done = 0
        while done < spans[i].count:
            step = spans[i].count - done
            if step > 64:
                step = 64
            every = <uint64_t>-1 if step == 64 else (<uint64_t>1 << step) - 1
            absent = every
            if spans[i].block != NULL:
                absent ^= take_bits(spans[i].block + layout.live, spans[i].low + done, step)
                if null_index >= 0:
                    absent |= take_bits(spans[i].block + nulls, spans[i].low + done, step)
            if absent:
                add_bits(bits, to, step, absent)
                total += bit_count(absent)
            done += step
            to += step
    return total


@cython.final
@cython.no_gc
cdef class RowIterator:
    """Iterates live rows of a view; lets go of it at the end."""
    cdef Layout layout
    cdef Directory slabs
    cdef Hold hold
    cdef Slab slab  # of the rows being read
    cdef Py_ssize_t position, stop
    cdef Py_ssize_t low, high  # positions of the slab
    cdef bint raw

    def __iter__(self):
        return self

    cdef bint advance(self) noexcept:
        """Move to the next slab that is there; False at the end."""
        cdef Py_ssize_t number = self.high // self.layout.rows
        while self.high < self.stop:
            if number >> 8 >= self.slabs.count or self.slabs.groups[number >> 8] == NULL:
                number = ((number >> 8) + 1) << 8
                self.high = number * self.layout.rows
                continue
            self.slab = self.slabs.find(number)
            self.low = self.position = number * self.layout.rows
            self.high = self.low + self.layout.rows
            number += 1
            if self.slab is not None:
                return True
        self.slab = None
        self.slabs = None
        self.position = self.low = self.high = self.stop = 0
        self.hold.release()
        return False

    def __next__(self):
        cdef Py_ssize_t position, end
        cdef Slab slab
        cdef const char* live
        while True:
            slab = self.slab
            if slab is None:
                if self.slabs is None or not self.advance():
                    raise StopIteration
                continue
            position = self.position
            end = self.high if self.high < self.stop else self.stop
            live = slab.block + self.layout.live
            while position < end and not test_bit(live, position - self.low):
                position += 1
            self.position = position + 1  # before anything that may run other code
            if position < end:
                if self.raw:
                    return (position, raw_row(self.layout, slab, position - self.low))
                return (position, row_dict(self.layout, slab, position - self.low))
            self.slab = None
            if not self.advance():
                raise StopIteration


cdef RowIterator row_iterator(SlabView view, bint raw):
    cdef RowIterator made = RowIterator.__new__(RowIterator)
    if view.slabs is None:
        raise ValueError("the view was released")
    made.layout = view.layout
    made.slabs = view.slabs
    made.hold = hold(view.pins, view.epoch)
    made.stop = view.rows
    made.raw = raw
    return made
