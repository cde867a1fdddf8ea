# Codes and what they mean: layouts, slopes, decimals and front-coded dictionaries.

cdef double[23] TENS    # 10**k
cdef double[23] TENTHS  # 10**-k


cdef void fill_tens() except *:
    cdef int k
    for k in range(23):
        TENS[k] = float(f"1e{k}")
        TENTHS[k] = float(f"1e-{k}")


fill_tens()


# -- layouts ---------------------------------------------------------------

cdef inline const uint8_t* mark_rows(Chunk self) noexcept nogil:
    """The rows of exceptions, or the last rows of runs: u16, behind what *places* has for each block."""
    return self.places + (4 * (self.blocks + 1) if self.layout == EXCEPTED else 2 * self.blocks)


cdef inline Py_ssize_t first_not_below(
    const uint16_t* rows, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t row
) noexcept nogil:
    """The first of the ascending rows lo..hi that is not less than a row; hi where all are."""
    cdef Py_ssize_t middle
    while lo < hi:
        middle = (lo + hi) >> 1
        if rows[middle] < row:
            lo = middle + 1
        else:
            hi = middle
    return lo


cdef inline Py_ssize_t run_of(Chunk self, Py_ssize_t row) noexcept nogil:
    """The run that has a row."""
    cdef const uint16_t* firsts = <const uint16_t*>self.places
    cdef Py_ssize_t block = row >> 10
    cdef Py_ssize_t stop = firsts[block + 1] if block + 1 < self.blocks else self.marks - 1
    return first_not_below(<const uint16_t*>mark_rows(self), firsts[block], stop, row)


cdef inline uint64_t stored_at(Chunk self, Py_ssize_t row) noexcept nogil:
    """What *values* have for a row: its code, unless it is an exception."""
    if self.width == self.container:
        return item_at(self.values, self.width >> 3, row)
    if self.width == 0:
        return 0
    return snapdb_packed_at(self.values, self.width, self.container, row)


cdef uint64_t marked_at(Chunk self, Py_ssize_t row) noexcept nogil:
    """A row's code in EXCEPTED and RUNS."""
    cdef const uint16_t* rows
    cdef const uint32_t* starts
    cdef Py_ssize_t at, stop
    if self.layout == RUNS:
        return item_at(self.run_codes, self.container >> 3, run_of(self, row))
    rows = <const uint16_t*>mark_rows(self)
    starts = <const uint32_t*>self.places
    stop = starts[(row >> 10) + 1]
    at = first_not_below(rows, starts[row >> 10], stop, row)
    if at < stop and rows[at] == row:
        return item_at(self.run_codes, self.container >> 3, at)
    return stored_at(self, row)


cdef inline uint64_t packed_at(Chunk self, Py_ssize_t row) noexcept nogil:
    """A row's code, whatever the layout."""
    if self.layout != PACKED:
        return marked_at(self, row)
    return stored_at(self, row)


cdef const void* load_marked(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of EXCEPTED or RUNS."""
    cdef const uint32_t* starts
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self)
    cdef uint32_t start
    if self.layout == RUNS:
        start = (<const uint16_t*>self.places)[block]
        snapdb_runs(s.values, self.container, rows, self.run_codes, start, block * BLOCK)
        return s.values
    if self.width:
        snapdb_kernels.unpack(self.values + block * 128 * self.width, self.width, self.container, s.values)
    else:
        memset(s.values, 0, 128 * self.container)
    starts = <const uint32_t*>self.places
    start = starts[block]
    snapdb_patch(s.values, self.container, rows + start, self.run_codes + start * <size_t>(self.container >> 3),
                 starts[block + 1] - start)
    return s.values


cdef inline const void* load_packed(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block's codes (FOR, DICT, SLOPE, DEC) in containers of T bits, in ``s.values`` or in place."""
    cdef const uint8_t* at
    if self.layout != PACKED:
        return load_marked(self, block, s)
    at = self.values + block * 128 * self.width
    if self.width == self.container:
        return at
    if self.width == 0:
        memset(s.values, 0, 128 * self.container)
    else:
        snapdb_kernels.unpack(at, self.width, self.container, s.values)
    return s.values


cdef uint64_t greatest_code(Chunk self) noexcept nogil:
    """The largest code of any row."""
    cdef Scratch s
    cdef uint64_t low, high, greatest = 0
    cdef Py_ssize_t block
    if self.layout != PACKED:
        return greatest_mark(self)
    for block in range(self.blocks):
        snapdb_kernels.minmax[0][table_of(self.container)](load_packed(self, block, &s), BLOCK, &low, &high)
        if high > greatest:
            greatest = high
    return greatest


cdef uint64_t greatest_mark(Chunk self) noexcept nogil:
    """The largest code of an exception or a run; no other is larger."""
    cdef uint64_t code, greatest = 0
    cdef Py_ssize_t i
    for i in range(self.marks):
        code = item_at(self.run_codes, self.container >> 3, i)
        if code > greatest:
            greatest = code
    return greatest


cdef int check_marks(Chunk self) except -1:
    cdef bint rise = True, ordered = True, above = True, empty = True, right = True
    if self.layout == EXCEPTED:
        with nogil:
            check_exceptions(self, &rise, &ordered, &above, &empty)
        if not rise:
            raise damaged(f"the starts of its exceptions do not rise from 0 to {self.marks}")
        if not ordered:
            raise damaged("its exceptions are not in the order of their rows")
        if not above:
            raise damaged(f"the code of an exception fits into {self.width} bits")
        if not empty:
            raise damaged("a row with an exception has a code too")
    elif self.layout == RUNS:
        with nogil:
            check_runs(self, &ordered, &right)
        if not ordered:
            raise damaged(f"its runs do not end in rows that rise to {self.rows - 1}")
        if not right:
            raise damaged("its blocks do not start in the runs that they say")
    return 0


cdef void check_exceptions(Chunk self, bint* rise, bint* ordered, bint* above, bint* empty) noexcept nogil:
    cdef const uint32_t* starts = <const uint32_t*>self.places
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self)
    cdef Py_ssize_t block, i, last = -1
    rise[0] = starts[0] == 0 and starts[self.blocks] == <uint32_t>self.marks
    for block in range(self.blocks):
        if starts[block] > starts[block + 1]:
            rise[0] = False
    if not rise[0]:
        return
    for block in range(self.blocks):
        for i in range(starts[block], starts[block + 1]):
            if rows[i] <= last or rows[i] >> 10 != block:
                ordered[0] = False
                return
            last = rows[i]
    for i in range(self.marks):
        if item_at(self.run_codes, self.container >> 3, i) >> self.width == 0:
            above[0] = False
        if self.width and stored_at(self, rows[i]):
            empty[0] = False


cdef void check_runs(Chunk self, bint* ordered, bint* right) noexcept nogil:
    cdef const uint16_t* firsts = <const uint16_t*>self.places
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self)
    cdef Py_ssize_t i, block, run = 0
    for i in range(1, self.marks):
        if rows[i - 1] >= rows[i]:
            ordered[0] = False
    if not ordered[0] or rows[self.marks - 1] != self.rows - 1:
        ordered[0] = False
        return
    for block in range(self.blocks):
        while rows[run] < block * BLOCK:
            run += 1
        if firsts[block] != run:
            right[0] = False


# -- slopes ----------------------------------------------------------------

cdef struct Line:
    int64_t base, whole
    uint32_t fraction, zero


cdef inline uint64_t slope_at(Chunk self, Py_ssize_t row) noexcept nogil:
    cdef const Line* line = <const Line*>self.lines + (row >> 10)
    cdef uint64_t r = row & (BLOCK - 1)
    r = r * <uint64_t>line.whole + (r * line.fraction >> 32)
    return <uint64_t>line.base + <uint64_t>self.scale * (r + packed_at(self, row))


cdef void load_slope(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of SLOPE as 64-bit words in ``s.other``."""
    cdef const Line* line = <const Line*>self.lines + block
    cdef const void* at = load_packed(self, block, s)
    if self.container != 64:
        snapdb_kernels.convert[table_of(self.container)][3](at, 0, s.blended)
        at = s.blended
    snapdb_kernels.line(<const uint64_t*>at, <uint64_t>line.base, <uint64_t>self.scale, <uint64_t>line.whole, line.fraction,
                        s.other)


cdef inline bint line_fits(Chunk self, const Line* line, int64_t low, int64_t high) noexcept nogil:
    """Whether the ends of a line alone show that all its values lie in low..high; nothing is said where they do not."""
    cdef int64_t end, least, most
    cdef int64_t room = <int64_t>1 << 40
    if not -room < line.whole < room or self.top >= <uint64_t>1 << 60:
        return False
    if not -(<int64_t>1 << 62) < line.base < <int64_t>1 << 62:
        return False
    end = (BLOCK - 1) * line.whole + (<int64_t>(BLOCK - 1) * line.fraction >> 32)  # a line rises or falls all the way
    least = min(end, 0)
    most = max(end, 0) + <int64_t>self.top
    if <double>self.scale * <double>max(most, -least) >= 2305843009213693952.0:  # 2**61
        return False
    return line.base + self.scale * least >= low and line.base + self.scale * most <= high


cdef bint slopes_fit(Chunk self, int64_t low, int64_t high) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    cdef uint64_t least, greatest
    for block in range(self.blocks):
        if line_fits(self, <const Line*>self.lines + block, low, high):
            continue
        load_slope(self, block, &s)
        snapdb_kernels.minmax[1][3](s.other, BLOCK, &least, &greatest)
        if <int64_t>least < low or <int64_t>greatest > high:
            return False
    return True


cdef int check_slopes(Chunk self) except -1:
    cdef Py_ssize_t block
    cdef int64_t low, high
    cdef bint fits
    for block in range(self.blocks):
        if (<const Line*>self.lines)[block].zero:
            raise damaged("the reserved bytes of its lines are not zero")
    if self.code == I64 or self.code == U64:
        return 0
    low, high = range_of(self.code)
    with nogil:
        fits = slopes_fit(self, low, high)
    if not fits:
        raise damaged("a value is outside the dtype's range")
    return 0


# -- decimals --------------------------------------------------------------

cdef inline double decimal_of(Chunk self, uint64_t code) noexcept nogil:
    """The value of a code below ``plain``, before it is rounded to f32."""
    cdef double d = <double><int64_t>(<uint64_t>self.base + <uint64_t>self.scale * code)
    if self.power == 0:
        return d / TENS[self.digits]
    return (d * TENS[self.power - self.digits]) * TENTHS[self.power]


cdef uint64_t decimal_word(Chunk self, uint64_t code) noexcept nogil:
    """The bits of a code's value."""
    cdef float narrow
    cdef uint32_t low
    if code >= <uint64_t>self.plain:
        return item_at(self.heap, self.item, code - <uint64_t>self.plain)
    if self.code != F32:
        return float_bits(decimal_of(self, code))
    narrow = <float>decimal_of(self, code)
    memcpy(&low, &narrow, 4)
    return low


cdef const void* load_decimals(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of DEC in ``s.other``."""
    cdef const uint8_t* at = <const uint8_t*>load_packed(self, block, s)
    cdef uint64_t odd[WORDS]
    cdef uint64_t word
    cdef Py_ssize_t i, w
    cdef bint narrow = self.code == F32
    cdef double* wide = <double*>&s.blended[0] if narrow else <double*>&s.other[0]
    cdef uint64_t* whole = &s.other[0] if narrow else &s.blended[0]
    cdef int table = table_of(self.container)
    snapdb_kernels.scale[table](at, <uint64_t>self.scale, <uint64_t>self.base, whole)
    if self.power:
        snapdb_kernels.decimals(whole, TENS[self.power - self.digits], TENTHS[self.power], 0, wide)
    else:
        snapdb_kernels.decimals(whole, TENS[self.digits], 0, 1, wide)
    if narrow:
        for i in range(BLOCK):
            (<float*>s.other)[i] = <float>wide[i]
    if self.distinct:
        snapdb_kernels.range[table](at, <uint64_t>self.plain, self.distinct - 1, <uint8_t*>odd)
        for w in range(WORDS):
            if odd[w] == 0:
                continue
            for i in range(64 * w, 64 * w + 64):
                if odd[w] >> (i & 63) & 1:
                    word = item_at(self.heap, self.item, item_at(at, self.container >> 3, i) - <uint64_t>self.plain)
                    memcpy(<char*>s.other + i * self.item, &word, self.item)
    return s.other


cdef int check_decimals(Chunk self) except -1:
    cdef Py_ssize_t i
    cdef uint64_t greatest
    for i in range(1, self.distinct):
        if sort_key(self, entry_word(self, i - 1)) >= sort_key(self, entry_word(self, i)):
            raise damaged("its odd values are not sorted")
    if self.layout != PACKED or self.width >= 63 or <uint64_t>1 << self.width > self.top + 1:
        with nogil:
            greatest = greatest_code(self)
        if greatest > self.top:
            raise damaged("a code has no value")
    if self.container < 64:  # forget what no code can reach, so that ``plain`` and ``top`` fit into containers
        self.plain = min(self.plain, <int64_t>1 << self.container)
        self.distinct = min(self.distinct, <Py_ssize_t>((<int64_t>1 << self.container) - self.plain))
        self.top = <uint64_t>(self.plain + self.distinct - 1)
    return 0


# -- front-coded dictionaries ----------------------------------------------

cdef enum Unfolding:
    WHOLE, BAD_RESTART, BAD_LENGTH, PAST_HEAP, BAD_SHARE, TOO_LARGE, HEAP_LEFT


cdef inline Unfolding read_length(const uint8_t* heap, uint64_t size, uint64_t* at, uint64_t* length) noexcept nogil:
    """A varint: 7 bits a byte, the lowest first."""
    cdef uint64_t byte, found = 0
    cdef int shift = 0
    while True:
        if at[0] >= size:
            return PAST_HEAP
        byte = heap[at[0]]
        at[0] += 1
        found |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 28:
            return BAD_LENGTH
    if (byte == 0 and shift) or found > <uint64_t>0xFFFFFFFF:
        return BAD_LENGTH
    length[0] = found
    return WHOLE


cdef Unfolding unfold(Chunk self, uint32_t* ends, uint8_t* target, uint64_t* total) noexcept nogil:
    """Unpack the entries, or, without a target, only check them and add up their bytes."""
    cdef const uint32_t* restarts = <const uint32_t*>self.offsets
    cdef uint64_t size = self.heap_size, at = 0, out = 0, shared, further, before = 0
    cdef Py_ssize_t i
    cdef Unfolding problem
    for i in range(self.distinct):
        shared = further = 0
        if i % RESTART == 0:
            if restarts[i // RESTART] != at:
                return BAD_RESTART
        else:
            problem = read_length(self.heap, size, &at, &shared)
            if problem != WHOLE:
                return problem
        problem = read_length(self.heap, size, &at, &further)
        if problem != WHOLE:
            return problem
        if shared > before:
            return BAD_SHARE
        if further > size - at:
            return PAST_HEAP
        if target != NULL:
            memcpy(target + out, target + out - before, shared)
            memcpy(target + out + shared, self.heap + at, further)
            ends[i + 1] = <uint32_t>(out + shared + further)
        at += further
        before = shared + further
        out += before
        if out > <uint64_t>0xFFFFFFFF:
            return TOO_LARGE
    total[0] = out
    return WHOLE if at == size else HEAP_LEFT


cdef int open_front(Chunk self) except -1:
    """A plain dictionary, in memory of its own, instead of a front-coded one."""
    cdef uint64_t total = 0
    cdef Unfolding problem
    cdef Memory made
    cdef Py_ssize_t starts
    with nogil:
        problem = unfold(self, NULL, NULL, &total)
    if problem == BAD_RESTART:
        raise damaged("a restart is not where its entry starts")
    if problem == BAD_LENGTH:
        raise damaged("a length in its dictionary is damaged")
    if problem == PAST_HEAP:
        raise damaged("an entry of its dictionary ends past the heap")
    if problem == BAD_SHARE:
        raise damaged("an entry shares more than the one before has")
    if problem == TOO_LARGE:
        raise damaged("its dictionary unpacks to more than 4294967295 bytes")
    if problem == HEAP_LEFT:
        raise damaged("its dictionary ends before its heap")
    starts = aligned(4 * (self.distinct + 1))
    made = uncleared(starts + <Py_ssize_t>total)
    (<uint32_t*>made.ptr)[0] = 0
    with nogil:
        unfold(self, <uint32_t*>made.ptr, <uint8_t*>made.ptr + starts, &total)
    self.unfolded = made
    self.offsets = <const uint8_t*>made.ptr
    self.heap = <const uint8_t*>made.ptr + starts
    self.heap_size = total
    return 0
