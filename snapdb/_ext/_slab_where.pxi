# Conditions tested in the slabs, a block of 1,024 positions at a time; part of _slab.pyx. Of a block only what a
# condition needs is brought together, where few rows are left only these are looked at, and what a slab says of a text
# (its first bytes, its length) settles most of them where they stand.

cdef enum:
    ROWS_AT_ONCE = 65536  # positions scanned between two looks at the directory
    # a condition is put to rows one by one where fewer than one in so many are left
    SPARSE = 8
    SPARSE_TEXT = 3


ctypedef struct Place:
    const Span* span
    Py_ssize_t skip  # rows of it that were done


cdef struct Scratch:
    uint64_t[BLOCK] values
    uint64_t[WORDS] alive
    uint64_t[WORDS] found
    uint64_t[WORDS] asked


# -- one row -------------------------------------------------------------------

cdef inline bint is_listed(const Test* test, uint64_t word) noexcept nogil:
    cdef uint64_t at = hash_word(word) & test.slot_mask
    while test.slots[at]:
        if test.entries[test.slots[at] - 1].word == word:
            return True
        at = (at + 1) & test.slot_mask
    return False


cdef bint is_text_listed(const Test* test, const char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t hash = hash_text(text, size), at = hash & test.slot_mask
    cdef const Entry* entry
    while test.slots[at]:
        entry = &test.entries[test.slots[at] - 1]
        if entry.word == hash and entry.size == size and memcmp(entry.ptr, text, size) == 0:
            return True
        at = (at + 1) & test.slot_mask
    return False


cdef inline int order_of(const char* a, Py_ssize_t a_size, const char* b, Py_ssize_t b_size) noexcept nogil:
    cdef int order = memcmp(a, b, min(a_size, b_size))
    return order if order else (a_size > b_size) - (a_size < b_size)


cdef bint passes_text(const Test* test, const char* record, const char* heap) noexcept nogil:
    """Whether a row's text passes, before ``negate``."""
    cdef const Column* column = test.column
    cdef const char* text = record + column.offset
    cdef uint32_t[2] reference
    cdef Py_ssize_t size
    cdef int order
    if column.kind == INLINE:
        size = text_length(column, record)
    else:
        memcpy(reference, text, 8)
        size = reference[1]
        if size:
            text = heap + reference[0]
    if test.exact:
        return size == test.from_size and memcmp(text, test.from_text, size) == 0
    if test.mode == OF_TEXTS:
        return is_text_listed(test, text, size)
    if test.from_text != NULL:
        order = order_of(text, size, test.from_text, test.from_size)
        if order < 0 or (order == 0 and test.lo_open):
            return False
    if test.to_text != NULL:
        order = order_of(text, size, test.to_text, test.to_size)
        if order > 0 or (order == 0 and test.hi_open):
            return False
    return True


cdef inline bint is_short(const char* record, const Column* column, uint64_t text, uint64_t taken, Py_ssize_t size) noexcept nogil:
    """Whether a row's text is one of at most 8 bytes. A word may go past the row, never past the slab's bitmap."""
    cdef uint64_t word
    memcpy(&word, record + column.offset, 8)
    return ((word & taken) ^ text) | <uint64_t>(text_length(column, record) ^ size) == 0


cdef void are_short(const Test* test, const char* record, Py_ssize_t stride, Py_ssize_t count, uint8_t* to) noexcept nogil:
    """``is_short`` of rows one after the other."""
    cdef Column column = test.column[0]
    cdef uint64_t text = test.lo, taken = test.span
    cdef Py_ssize_t size = test.from_size, i
    cdef const char* place = record + column.offset
    cdef Py_ssize_t length_at = column.length_at - column.offset
    cdef uint64_t word
    cdef uint16_t narrow
    if column.wide:
        for i in range(count):
            to[i] = is_short(record + i * stride, &column, text, taken, size)
        return
    for i in range(count):
        memcpy(&word, place, 8)
        memcpy(&narrow, place + length_at, 2)
        to[i] = (((word ^ text) & taken) | <uint64_t>(narrow ^ size)) == 0
        place += stride


cdef bint passes(const Test* test, const char* record, const char* heap) noexcept nogil:
    """Whether one row passes, before ``negate`` and its null."""
    cdef const Column* column = test.column
    cdef const char* place = record + column.offset
    cdef uint64_t word = 0
    cdef float single
    cdef double number
    cdef int spare
    if test.mode == OF_SHORT:
        return is_short(record, column, test.lo, test.span, test.from_size)
    if column.kind != FIXED:
        return passes_text(test, record, heap)
    if column.code == F64 or column.code == F32:
        if column.code == F64:
            memcpy(&number, place, 8)
        else:
            memcpy(&single, place, 4)
            number = single
        if test.mode == OF_WORDS:
            return number == number and is_listed(test, float_word(number))
        return test.low <= number <= test.high
    copy_fixed(<char*>&word, place, column.width)
    if test.mode == OF_MARKS:
        return test.marks[word]
    spare = 64 - 8 * column.width
    if test.mode == OF_INTEGERS:
        return ((word - test.lo) << spare) <= (test.span << spare)
    if SIGNED[column.code]:
        word = <uint64_t>(<int64_t>(word << spare) >> spare)
    return is_listed(test, word)


cdef uint64_t passing_rows(
    const Test* test, const char* record, Py_ssize_t stride, const char* heap, uint64_t left
) noexcept nogil:
    """The rows of a word from a record on that pass."""
    cdef uint64_t found = 0
    cdef int row
    while left:
        row = snap_lowest(left)
        left &= left - 1
        found |= <uint64_t>passes(test, record + row * stride, heap) << row
    return found


cdef uint64_t short_rows(const Test* test, const char* record, Py_ssize_t stride, uint64_t left) noexcept nogil:
    """``passing_rows`` of OF_SHORT."""
    cdef Column column = test.column[0]
    cdef uint64_t text = test.lo, taken = test.span, found = 0
    cdef Py_ssize_t size = test.from_size
    cdef int row
    while left:
        row = snap_lowest(left)
        left &= left - 1
        found |= <uint64_t>is_short(record + row * stride, &column, text, taken, size) << row
    return found


# -- a block -------------------------------------------------------------------

cdef inline Place past(Place at, Py_ssize_t rows) noexcept nogil:
    """The place that many rows on."""
    cdef Py_ssize_t left = at.span.count - at.skip
    while rows and rows >= left:
        rows -= left
        at.span += 1
        at.skip = 0
        if rows:
            left = at.span.count
    at.skip += rows
    return at


cdef void bits_of_block(Layout layout, Place at, Py_ssize_t rows, int null_index, uint64_t* bits) noexcept nogil:
    """The live rows of a block, or with ``null_index`` its null rows."""
    cdef Py_ssize_t done, step, count, to = 0
    cdef Py_ssize_t place = layout.live if null_index < 0 else layout.nulls + null_index * layout.bitmap
    memset(bits, 0, 8 * WORDS)
    while to < rows:
        count = min(at.span.count - at.skip, rows - to)
        done = 0 if at.span.block != NULL else count
        while done < count:
            step = min(<Py_ssize_t>64, count - done)
            if null_index < 0 and at.span.full:
                add_bits(<char*>bits, to + done, step, <uint64_t>-1 >> (64 - step))
            else:
                add_bits(<char*>bits, to + done, step,
                         take_bits(at.span.block + place, at.span.low + at.skip + done, step))
            done += step
        to += count
        at.span += 1
        at.skip = 0


cdef void collect_block(Layout layout, const Test* test, Place at, Py_ssize_t rows, Scratch* s) noexcept nogil:
    """The values of a block one after the other; OF_SHORT: a byte of 1 where the text is the one looked for."""
    cdef char* to = <char*>s.values
    cdef Py_ssize_t count, stride = layout.stride
    cdef int width = 1 if test.mode == OF_SHORT else test.column.width
    cdef const char* record
    while rows > 0:
        count = min(at.span.count - at.skip, rows)
        if at.span.block != NULL:
            record = at.span.block + (at.span.low + at.skip) * stride
            if test.mode == OF_SHORT:
                are_short(test, record, stride, count, <uint8_t*>to)
            else:
                collect(to, record + test.column.offset, stride, width, count)
        to += count * width
        rows -= count
        at.span += 1
        at.skip = 0


cdef void ask_rows(Layout layout, const Test* test, Place at, Py_ssize_t rows, Scratch* s) noexcept nogil:
    """Which of the rows that are asked for pass, one by one."""
    cdef Py_ssize_t done, step, count, to = 0
    cdef const char* record
    cdef uint64_t left
    memset(s.found, 0, 8 * WORDS)
    while to < rows:
        count = min(at.span.count - at.skip, rows - to)
        done = 0 if at.span.block != NULL else count
        while done < count:
            step = min(<Py_ssize_t>64, count - done)
            left = take_bits(<const char*>s.asked, to + done, step)
            record = at.span.block + (at.span.low + at.skip + done) * layout.stride
            if test.mode == OF_SHORT:
                left = short_rows(test, record, layout.stride, left)
            else:
                left = passing_rows(test, record, layout.stride, at.span.heap, left)
            add_bits(<char*>s.found, to + done, step, left)
            done += step
        to += count
        at.span += 1
        at.skip = 0


cdef void ask_block(
    const SnapdbKernels* kernels, Layout layout, const Test* test, Place at, Py_ssize_t rows, Py_ssize_t left, Scratch* s
) noexcept nogil:
    """The rows of a block that pass, ``left`` of them asked for; others may be among them."""
    cdef uint64_t[WORDS] nulls
    cdef int i
    if test.mode <= EVERY_ROW:
        memset(s.found, 0xFF if test.mode == EVERY_ROW else 0, 8 * WORDS)
    elif test.mode == OF_NULLS:
        bits_of_block(layout, at, rows, test.column.null_index, s.found)
        return
    elif test.mode >= OF_TEXT or test.mode == OF_WORDS or left * (SPARSE_TEXT if test.mode == OF_SHORT else SPARSE) < rows:
        ask_rows(layout, test, at, rows, s)
    else:
        collect_block(layout, test, at, rows, s)
        if test.mode == OF_INTEGERS:
            kernels.range[table_of(test.column.width)](s.values, test.lo, test.span, <uint8_t*>s.found)
        elif test.mode == OF_SHORT:
            kernels.range[0](s.values, 1, 0, <uint8_t*>s.found)
        elif test.mode == OF_MARKS:
            kernels.lut[table_of(test.column.width)](s.values, test.marks, <uint8_t*>s.found)
        elif test.mode == OF_SINGLES:
            kernels.range_f32(s.values, <float>test.low, <float>test.high, <uint8_t*>s.found)
        else:
            kernels.range_f64(s.values, test.low, test.high, <uint8_t*>s.found)
    if test.negate:
        for i in range(WORDS):
            s.found[i] = ~s.found[i]
    if test.column.null_index >= 0:
        bits_of_block(layout, at, rows, test.column.null_index, nulls)
        for i in range(WORDS):
            s.found[i] &= ~nulls[i]


cdef void all_pass(
    const SnapdbKernels* kernels, Layout layout, const Test* tests, Py_ssize_t count, Place at, Py_ssize_t rows, Scratch* s
) noexcept nogil:
    """Leave of the live rows of a block those that pass every test."""
    cdef Py_ssize_t left = rows, t
    cdef int i
    for t in range(count):
        if t:
            left = <Py_ssize_t>kernels.popcount(s.alive, WORDS)
        if left == 0:
            return
        memcpy(s.asked, s.alive, 8 * WORDS)
        ask_block(kernels, layout, &tests[t], at, rows, left, s)
        for i in range(WORDS):
            s.alive[i] &= s.found[i]


cdef void any_passes(
    const SnapdbKernels* kernels, Layout layout, const Test* tests, Py_ssize_t count, Place at, Py_ssize_t rows, Scratch* s
) noexcept nogil:
    """Leave of the live rows of a block those that pass some test."""
    cdef Py_ssize_t left, t
    cdef uint64_t[WORDS] others  # that passed none yet
    cdef int i
    memcpy(others, s.alive, 8 * WORDS)
    for t in range(count):
        left = <Py_ssize_t>kernels.popcount(others, WORDS)
        if left == 0:
            break
        memcpy(s.asked, others, 8 * WORDS)
        ask_block(kernels, layout, &tests[t], at, rows, left, s)
        for i in range(WORDS):
            others[i] &= ~s.found[i]
    for i in range(WORDS):
        s.alive[i] &= ~others[i]


cdef inline bint none_of(const uint64_t* words) noexcept nogil:
    cdef uint64_t some = 0
    cdef int i
    for i in range(WORDS):
        some |= words[i]
    return some == 0


cdef Py_ssize_t ask_spans(
    const SnapdbKernels* kernels, Layout layout, const Test* tests, Py_ssize_t count, bint any_of, const Span* spans,
    Py_ssize_t rows, char* out, Scratch* s,
) noexcept nogil:
    """How many live rows pass; ``out``, which is all zero, gets their bits where it is not NULL."""
    cdef Py_ssize_t done = 0, step, total = 0
    cdef Place at
    at.span = spans
    at.skip = 0
    while done < rows:
        step = min(<Py_ssize_t>BLOCK, rows - done)
        bits_of_block(layout, at, step, -1, s.alive)
        if none_of(s.alive):
            done += step
            if done < rows:
                at = past(at, step)
            continue
        if any_of and count:
            any_passes(kernels, layout, tests, count, at, step, s)
        else:
            all_pass(kernels, layout, tests, count, at, step, s)
        total += <Py_ssize_t>kernels.popcount(s.alive, WORDS)
        if out != NULL:
            memcpy(out + (done >> 3), s.alive, bitmap_size(step))
        done += step
        if done < rows:
            at = past(at, step)
    return total


# -- what the zone maps leave out ----------------------------------------------

cdef enum:
    BOUNDS = 8  # conditions that are put to the zone maps, at most


ctypedef struct Bound:
    # words between which a value must lie, and the zones of its column
    const Zone* slabs
    const Zone* blocks
    uint64_t low, high


cdef int bounds_of(SlabView view, const Test* tests, Py_ssize_t count, bint any_of, Bound* bounds, list keep) except -1:
    """The conditions that zone maps can rule slabs out by, all of which a row must meet; how many there are."""
    cdef ColumnZones zones
    cdef const Test* test
    cdef Py_ssize_t t
    cdef int made = 0
    if (any_of and count > 1) or view.zones is None or view.zones.now != view.written or view.rows == 0:
        return 0
    for t in range(count):
        test = &tests[t]
        if made == BOUNDS or test.negate or not OF_INTEGERS <= test.mode <= OF_DOUBLES:
            continue
        if test.mode == OF_INTEGERS:
            bounds[made].low = test.lo ^ (<uint64_t>1 << 63 if SIGNED[test.column.code] else 0)
            bounds[made].high = bounds[made].low + test.span
        else:
            bounds[made].low, bounds[made].high = float_order(test.low), float_order(test.high)
        zones = view.zones.of(<int>(test.column - view.layout.columns), view.slabs,
                              (view.rows + view.layout.rows - 1) // view.layout.rows)
        keep.append(zones)
        bounds[made].slabs, bounds[made].blocks = <const Zone*>zones.slabs.ptr, <const Zone*>zones.blocks.ptr
        made += 1
    return made


cdef inline bint lies_out(const Bound* bounds, int count, Py_ssize_t number, bint block) noexcept nogil:
    """Whether no row of a slab, or of a block of slabs, can meet a condition."""
    cdef const Zone* zone
    cdef int i
    for i in range(count):
        zone = (bounds[i].blocks if block else bounds[i].slabs) + number
        if zone.high < bounds[i].low or zone.low > bounds[i].high:
            return True
    return False


cdef bint all_lie_out(const Bound* bounds, int count, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Whether no row of the slabs ``first`` to ``last`` can."""
    cdef Py_ssize_t number = first
    while number <= last:
        if lies_out(bounds, count, number >> 6, True):
            number = ((number >> 6) + 1) << 6
        elif lies_out(bounds, count, number, False):
            number += 1
        else:
            return False
    return True


cdef void leave_out(const Bound* bounds, int count, Span* spans, Py_ssize_t first, Py_ssize_t slabs) noexcept nogil:
    """Have slabs that lie out as if they had no row."""
    cdef Py_ssize_t i
    for i in range(slabs):
        if lies_out(bounds, count, first + i, False):
            spans[i].block = NULL


# -- a view ----------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Asked:
    """Conditions that are put to a view, piece by piece."""
    cdef SlabView view
    cdef Directory slabs
    cdef Hold guard  # against a release() on another thread
    cdef Memory tests, scratch
    cdef list keep, heaps
    cdef Py_ssize_t count
    cdef bint any_of, reads_heap
    cdef Bound[BOUNDS] bounds
    cdef int bounded

    cdef Py_ssize_t part(self, Py_ssize_t low, Py_ssize_t high, char* out) except -1:
        """How many rows of ``low..high`` (at most ROWS_AT_ONCE) pass; ``out``, all zero, gets their bits where it is
        not NULL.
        """
        cdef Layout layout = self.view.layout
        cdef Py_ssize_t found, first = low // layout.rows, last = (high - 1) // layout.rows
        cdef Memory spans
        cdef const SnapdbKernels* kernels = chosen_kernels()
        if self.bounded and all_lie_out(self.bounds, self.bounded, first, last):
            return 0
        spans = spans_of(layout, self.slabs, low, high, self.heaps if self.reads_heap else None)
        with nogil:
            if self.bounded:
                leave_out(self.bounds, self.bounded, <Span*>spans.ptr, first, last - first + 1)
            found = ask_spans(kernels, layout, <const Test*>self.tests.ptr, self.count, self.any_of,
                              <const Span*>spans.ptr, high - low, out, <Scratch*>self.scratch.ptr)
        self.heaps.clear()
        return found


cdef Asked ask(SlabView view, list terms, bint any_of):
    """ValueError where the view was released."""
    cdef Asked made = Asked.__new__(Asked)
    cdef Py_ssize_t t
    made.keep, made.heaps = [], []
    made.count, made.any_of = len(terms), any_of
    made.tests = tests_of(view.layout, terms, made.keep)
    made.scratch = allocate(sizeof(Scratch))
    view.check(0, view.rows)
    made.view, made.slabs = view, view.slabs
    made.guard = hold(view.pins, view.epoch)
    for t in range(made.count):
        made.reads_heap = made.reads_heap or (<Test*>made.tests.ptr)[t].column.kind == HEAPED
    made.bounded = bounds_of(view, <const Test*>made.tests.ptr, made.count, any_of, made.bounds, made.keep)
    return made


cdef Py_ssize_t ask_view(SlabView view, list terms, bint any_of, Py_ssize_t start, Py_ssize_t stop, char* out) except -1:
    """Put conditions to positions ``start..stop`` of a view."""
    cdef Asked asked
    cdef Py_ssize_t low = start, high, total = 0
    view.check(start, stop)
    asked = ask(view, terms, any_of)
    if out != NULL:
        memset(out, 0, bitmap_size(stop - start))
    while low < stop:
        high = min(stop, low + ROWS_AT_ONCE)
        total += asked.part(low, high, out + ((low - start) >> 3) if out != NULL else NULL)
        low = high
    asked.guard.release()
    return total


cdef list chosen_rows(SlabView view, list terms, bint any_of):
    """The rows that pass, as dicts."""
    cdef Asked asked = ask(view, terms, any_of)
    cdef Memory mask = allocate(bitmap_size(ROWS_AT_ONCE))
    cdef Py_ssize_t low, high, i, position, size = view.layout.rows
    cdef uint64_t word
    cdef Slab slab
    cdef list rows = []
    for low in range(0, view.rows, ROWS_AT_ONCE):
        high = min(view.rows, low + ROWS_AT_ONCE)
        memset(mask.ptr, 0, bitmap_size(ROWS_AT_ONCE))
        if asked.part(low, high, mask.ptr) == 0:
            continue
        for i in range((high - low + 63) >> 6):
            word = (<const uint64_t*>mask.ptr)[i]
            while word:
                position = low + 64 * i + snap_lowest(word)
                word &= word - 1
                slab = asked.slabs.find(position // size)
                rows.append(row_dict(view.layout, slab, position % size))
    asked.guard.release()
    return rows
