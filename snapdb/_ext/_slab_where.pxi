# Conditions tested in the slabs, a block of 1,024 positions at a time; part of _slab.pyx. Of a block only what a
# condition needs is brought together, where few rows are left only these are looked at, and what a slab says of a text
# (its first bytes, its length) settles most of them where they stand.

cdef enum:
    ROWS_AT_ONCE = 65536  # positions scanned between two looks at the directory
    # a condition is put to rows one by one where fewer than one in so many are left
    SPARSE = 8
    SPARSE_TEXT = 3


cdef enum Mode:  # of tests, in the order of what they cost
    NO_ROW, EVERY_ROW, OF_NULLS, OF_INTEGERS, OF_SINGLES, OF_DOUBLES, OF_MARKS, OF_WORDS, OF_SHORT, OF_TEXT, OF_TEXTS


ctypedef struct Entry:
    # a value of a list
    const char* ptr
    Py_ssize_t size
    uint64_t word  # fixed width: the value; texts: their hash


ctypedef struct Test:
    const Column* column
    Mode mode
    bint negate
    bint lo_open, hi_open, exact
    uint64_t lo, span  # OF_INTEGERS; OF_SHORT: the text and the bytes of a word that it takes
    double low, high
    const char* from_text  # OF_TEXT: NULL where there is no bound
    const char* to_text
    Py_ssize_t from_size, to_size
    const uint8_t* marks  # OF_MARKS: of each value
    const Entry* entries  # OF_WORDS, OF_TEXTS
    const uint32_t* slots  # a hash table of numbers of entries, from 1 on; 0: free
    uint64_t slot_mask


ctypedef struct Place:
    const Span* span
    Py_ssize_t skip  # rows of it that were done


cdef struct Scratch:
    uint64_t[BLOCK] values
    uint64_t[WORDS] alive
    uint64_t[WORDS] found
    uint64_t[WORDS] asked
    const Span* end  # of the spans
    Py_ssize_t ahead  # spans of a block
    Py_ssize_t part, parts  # the number of a test, and how many there are


# -- from a condition to a test ------------------------------------------------

cdef object _MASK64 = 0xFFFFFFFFFFFFFFFF


cdef Memory tests_of(Layout layout, list terms, list keep):
    """Conditions, cheapest first, as ``Test``s; ``keep`` keeps alive what they point to."""
    cdef Memory found = allocate((len(terms) + 1) * <Py_ssize_t>sizeof(Test))
    cdef Test* tests = <Test*>found.ptr
    cdef Test moved
    cdef Py_ssize_t i, at
    cdef int column
    for i in range(len(terms)):
        given, kind, lo, hi, lo_open, hi_open, values, negate = terms[i]
        if not 0 <= given < layout.count:
            raise IndexError(f"column {given} is outside 0..{layout.count}")
        column = given
        tests[i].column = &layout.columns[column]
        tests[i].lo_open, tests[i].hi_open, tests[i].negate = lo_open, hi_open, negate
        translate(&tests[i], kind, lo, hi, values, keep)
        at = i
        while at and tests[at].mode < tests[at - 1].mode:
            moved = tests[at]
            tests[at] = tests[at - 1]
            tests[at - 1] = moved
            at -= 1
    return found


cdef int translate(Test* test, object kind, object lo, object hi, object values, list keep) except -1:
    cdef const Column* column = test.column
    if kind == "null":
        test.negate = False
        test.mode = OF_NULLS if column.null_index >= 0 else NO_ROW
    elif kind == "not_null":
        test.negate = False
        test.mode = EVERY_ROW
    elif kind == "never":
        test.mode = NO_ROW
    elif kind != "range" and kind != "in":
        raise ValueError(f"unknown condition {kind!r}")
    elif column.kind != FIXED:
        list_texts(test, values, keep) if kind == "in" else text_range(test, lo, hi, keep)
    elif kind == "in":
        list_words(test, values, keep)
    elif column.code == F64 or column.code == F32:
        float_range(test, lo, hi)
    else:
        integer_range(test, lo, hi)
    if test.negate and test.mode <= EVERY_ROW:
        test.negate = False
        test.mode = EVERY_ROW if test.mode == NO_ROW else NO_ROW
    return 0


cdef inline int table_of(int width) noexcept nogil:
    """The index of a width in the tables of kernels."""
    return 0 if width == 1 else 1 if width == 2 else 2 if width == 4 else 3


cdef int integer_range(Test* test, object lo, object hi) except -1:
    low, high = _LIMITS[test.column.code]
    lo = low if lo is None else max(low, lo + test.lo_open)
    hi = high if hi is None else min(high, hi - test.hi_open)
    if lo > hi:
        test.mode = NO_ROW
    elif lo == low and hi == high:
        test.mode = EVERY_ROW
    else:
        test.mode = OF_INTEGERS
        test.lo, test.span = lo & _MASK64, hi - lo
    return 0


cdef int float_range(Test* test, object lo, object hi) except -1:
    cdef float narrow
    test.low = -INFINITY if lo is None else lo
    test.high = INFINITY if hi is None else hi
    if lo is not None and test.lo_open:
        test.low = nextafter(test.low, INFINITY) if test.low < INFINITY else NAN
    if hi is not None and test.hi_open:
        test.high = nextafter(test.high, -INFINITY) if test.high > -INFINITY else NAN
    if not test.low <= test.high:
        test.mode = NO_ROW
        return 0
    test.mode = OF_DOUBLES
    if test.column.code == F32:
        test.mode = OF_SINGLES
        narrow = <float>test.low
        test.low = nextafterf(narrow, <float>INFINITY) if <double>narrow < test.low else narrow
        narrow = <float>test.high
        test.high = nextafterf(narrow, -<float>INFINITY) if <double>narrow > test.high else narrow
        if not test.low <= test.high:
            test.mode = NO_ROW
    return 0


cdef int text_range(Test* test, object lo, object hi, list keep) except -1:
    cdef uint64_t word = 0
    cdef bytes text
    if lo is not None:
        text = <bytes?>lo
        keep.append(text)
        test.from_text, test.from_size = PyBytes_AS_STRING(text), len(text)
    if hi is not None:
        text = <bytes?>hi
        keep.append(text)
        test.to_text, test.to_size = PyBytes_AS_STRING(text), len(text)
    if lo is None and hi is None:
        test.mode = EVERY_ROW
        return 0
    test.mode = OF_TEXT
    test.exact = lo is not None and lo == hi
    if not test.exact:
        return 0
    if test.lo_open or test.hi_open:
        test.mode = NO_ROW
    elif test.column.kind == INLINE and test.from_size > test.column.limit:
        test.mode = NO_ROW
    elif test.column.kind == INLINE and test.from_size <= 8:
        memcpy(&word, test.from_text, test.from_size)
        test.mode = OF_SHORT
        test.lo = word
        test.span = <uint64_t>-1 >> (64 - 8 * test.from_size) if test.from_size else 0
    return 0


cdef int list_words(Test* test, object values, list keep) except -1:
    """A list of integers or floats."""
    cdef int code = test.column.code, width = test.column.width
    cdef bint is_float = code == F64 or code == F32
    cdef list words = []
    cdef Memory memory
    cdef double number
    for value in values:
        if is_float:
            number = value
            if number == number and (code == F64 or <double><float>number == number):
                words.append(float_word(number))
        else:
            low, high = _LIMITS[code]
            if low <= value <= high:
                words.append(_index(value) & _MASK64)
    if not words:
        test.mode = NO_ROW
    elif width <= 2:
        memory = allocate(1 << 8 * width)
        for word in words:
            memory.ptr[word & ((1 << 8 * width) - 1)] = 1
        keep.append(memory)
        test.mode = OF_MARKS
        test.marks = <const uint8_t*>memory.ptr
    elif len(words) == 1 and not is_float:
        test.mode = OF_INTEGERS
        test.lo, test.span = words[0], 0
    else:
        test.mode = OF_WORDS
        make_table(test, words, False, keep)
    return 0


cdef int list_texts(Test* test, object values, list keep) except -1:
    cdef list texts = []
    for value in values:
        texts.append(<bytes?>value)
    keep.append(texts)
    test.mode = OF_TEXTS if texts else NO_ROW
    make_table(test, texts, True, keep)
    return 0


cdef int make_table(Test* test, list values, bint are_texts, list keep) except -1:
    cdef Py_ssize_t count = len(values), capacity = 8, i
    cdef Memory entries = allocate((count + 1) * <Py_ssize_t>sizeof(Entry)), slots
    cdef Entry* entry = <Entry*>entries.ptr
    cdef uint64_t at
    while capacity < 2 * count:
        capacity *= 2
    slots = allocate(capacity * 4)
    test.entries = entry
    test.slots = <const uint32_t*>slots.ptr
    test.slot_mask = capacity - 1
    keep.append(entries)
    keep.append(slots)
    for i in range(count):
        if are_texts:
            entry.ptr, entry.size = PyBytes_AS_STRING(values[i]), len(values[i])
            entry.word = hash_text(entry.ptr, entry.size)
            at = entry.word
        else:
            entry.word = values[i]
            at = hash_word(entry.word)
        at &= test.slot_mask
        while test.slots[at]:
            at = (at + 1) & test.slot_mask
        (<uint32_t*>slots.ptr)[at] = <uint32_t>(i + 1)
        entry += 1
    return 0


cdef inline uint64_t float_word(double value) noexcept nogil:
    """The bits of a float that is no NaN, one zero for both."""
    cdef uint64_t word = 0
    if value != 0:
        memcpy(&word, &value, 8)
    return word


cdef inline uint64_t hash_word(uint64_t word) noexcept nogil:
    word *= 0x9E3779B97F4A7C15ULL
    return word ^ (word >> 32)


cdef inline uint64_t hash_text(const char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t hash = hash_word(size), word
    while size >= 8:
        memcpy(&word, text, 8)
        hash = hash_word(hash ^ word)
        text += 8
        size -= 8
    word = 0
    memcpy(&word, text, size)
    return hash_word(hash ^ word)


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


cdef inline void fetch_ahead(Layout layout, const Span* span, const Scratch* s) noexcept nogil:
    """Ask for the slab a block ahead, each test for its part: memory is read while they compute, a third faster."""
    cdef Py_ssize_t size = layout.rows * layout.stride, at
    span += s.ahead
    if span < s.end and span.block != NULL:
        at = size * s.part // s.parts
        while at < size * (s.part + 1) // s.parts:
            snap_prefetch(span.block + at)
            at += 64


cdef void collect_block(Layout layout, const Test* test, Place at, Py_ssize_t rows, Scratch* s) noexcept nogil:
    """The values of a block one after the other; OF_SHORT: a byte of 1 where the text is the one looked for."""
    cdef char* to = <char*>s.values
    cdef Py_ssize_t count, stride = layout.stride
    cdef int width = 1 if test.mode == OF_SHORT else test.column.width
    cdef const char* record
    while rows > 0:
        count = min(at.span.count - at.skip, rows)
        if at.span.block != NULL:
            fetch_ahead(layout, at.span, s)
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
        s.part = t
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
        s.part = t
        ask_block(kernels, layout, &tests[t], at, rows, left, s)
        for i in range(WORDS):
            others[i] &= ~s.found[i]
    for i in range(WORDS):
        s.alive[i] &= ~others[i]


cdef Py_ssize_t ask_spans(
    const SnapdbKernels* kernels, Layout layout, const Test* tests, Py_ssize_t count, bint any_of, const Span* spans,
    Py_ssize_t number, Py_ssize_t rows, char* out, Scratch* s,
) noexcept nogil:
    """How many live rows pass; ``out`` gets their bits where it is not NULL."""
    cdef Py_ssize_t done = 0, step, total = 0
    cdef Place at
    at.span = spans
    at.skip = 0
    s.end = spans + number
    s.ahead = BLOCK // layout.rows + 1
    s.parts = max(count, <Py_ssize_t>1)
    while done < rows:
        step = min(<Py_ssize_t>BLOCK, rows - done)
        bits_of_block(layout, at, step, -1, s.alive)
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


cdef Py_ssize_t ask_view(SlabView view, list terms, bint any_of, Py_ssize_t start, Py_ssize_t stop, char* out) except -1:
    """Put conditions to positions ``start..stop`` of a view."""
    cdef Layout layout = view.layout
    cdef list keep = [], heaps = []
    cdef Memory tests = tests_of(layout, terms, keep), spans, scratch = allocate(sizeof(Scratch))
    cdef Py_ssize_t low, high, number, found, total = 0, count = len(terms), t
    cdef const SnapdbKernels* kernels = chosen_kernels()
    cdef Hold guard  # against a release() on another thread
    cdef Directory slabs
    cdef bint reads_heap = False
    view.check(start, stop)
    slabs = view.slabs
    guard = hold(view.pins, view.epoch)
    for t in range(count):
        reads_heap = reads_heap or (<Test*>tests.ptr)[t].column.kind == HEAPED
    low = start
    while low < stop:
        high = min(stop, low + ROWS_AT_ONCE)
        spans = spans_of(layout, slabs, low, high, heaps if reads_heap else None)
        number = (high + layout.rows - 1) // layout.rows - low // layout.rows
        with nogil:
            found = ask_spans(kernels, layout, <const Test*>tests.ptr, count, any_of, <const Span*>spans.ptr,
                              number, high - low, out + ((low - start) >> 3) if out != NULL else NULL, <Scratch*>scratch.ptr)
        total += found
        heaps.clear()
        low = high
    guard.release()
    return total
