# Reading sealed bytes without trusting them, one row, and loading blocks.

include "_checks.pxi"


cdef struct Text:
    const char* ptr
    Py_ssize_t size


cdef struct Header:
    uint8_t codec, code, width, packed
    uint32_t rows, nulls, count
    int64_t base, step
    uint64_t places[4]  # nulls, values, offsets, heap
    uint64_t total
    uint8_t layout, digits, power, flags
    uint32_t marks
    uint64_t late_at[3]   # places, codes, lines
    uint64_t plain
    uint8_t zero[16]


cdef inline int container_of(int width) noexcept nogil:
    return 8 if width <= 8 else 16 if width <= 16 else 32 if width <= 32 else 64


cdef inline int table_of(int bits) noexcept nogil:
    """The index of a width of 8, 16, 32 or 64 bits in the kernels' tables."""
    return 0 if bits == 8 else 1 if bits == 16 else 2 if bits == 32 else 3


cdef inline Py_ssize_t aligned(Py_ssize_t size) noexcept nogil:
    return (size + 63) & ~<Py_ssize_t>63


cdef object damaged(what):
    return ValueError(f"damaged chunk: {what}")


# -- sealed bytes ----------------------------------------------------------

cdef void set_type(Chunk self, int code) noexcept:
    self.code = code
    self.item = WIDTH[code]
    self.is_signed = SIGNED[code]
    self.is_float = code == F32 or code == F64
    self.is_string = self.item == 0


cdef void forget(Chunk self) noexcept:
    """Back to an empty chunk, which answers nothing and reads nothing."""
    self.codec = self.code = self.width = self.container = self.item = 0
    self.rows = self.null_count = self.blocks = self.distinct = self.total = self.heap_size = 0
    self.base_ptr = self.null_bits = self.values = self.offsets = self.heap = NULL
    self.sealed = self.is_string = self.is_float = False
    self.layout = self.marks = self.digits = self.power = self.plain = self.top = 0
    self.places = self.run_codes = self.lines = NULL
    self.unfolded = None


cdef int hold(Chunk self, object data) except -1:
    """Hold the bytes, or a copy where they do not start at a whole word."""
    cdef Memory copy
    take_bytes(data, &self.source)
    self.held = True
    cdef Py_ssize_t size = self.source.len
    if size < HEADER:
        raise damaged(f"{size} bytes are less than a header of {HEADER}")
    self.total = size
    if <uintptr_t>self.source.buf & 7:
        copy = allocate(size)
        memcpy(copy.ptr, self.source.buf, size)
        self.base_ptr = <const uint8_t*>copy.ptr
        self.owner = copy
    else:
        self.base_ptr = <const uint8_t*>self.source.buf
        self.owner = memoryview(data).cast("B").toreadonly()
    return 0


cdef int read_sealed(Chunk self, object data) except -1:
    hold(self, data)
    cdef const Header* head = <const Header*>self.base_ptr
    cdef Py_ssize_t i
    if head.total != <uint64_t>self.total:
        raise damaged(f"it says {head.total} bytes and has {self.total}")
    for i in range(16):
        if head.zero[i]:
            raise damaged("the reserved bytes of its header are not zero")
    check_header(head)
    open_sealed(self)
    check_values(self, head)
    return 0


cdef inline bint has_codes(int codec) noexcept nogil:
    return codec == FOR or codec == DICT or codec == SLOPE or codec == DEC


cdef int check_header(const Header* head) except -1:
    cdef int codec = head.codec, code = head.code
    cdef bint fits
    if not RAW <= codec <= DEC:
        raise damaged(f"unknown codec {codec}")
    if not I8 <= code <= DATETIME:
        raise damaged(f"unknown dtype {code}")
    if head.rows == 0 or head.rows > SEGMENT or head.rows % BLOCK:
        raise damaged(f"{head.rows} rows are not 1 to 64 whole blocks")
    if head.nulls > head.rows:
        raise damaged(f"{head.nulls} nulls in {head.rows} rows")
    if head.nulls == head.rows and codec != CONST:
        raise damaged("all rows are null but the codec is not CONST")
    if head.nulls and codec == AFFINE:
        raise damaged("an arithmetic sequence cannot have nulls")
    if head.nulls and codec == SLOPE:
        raise damaged("a slope cannot have nulls")
    if codec == FOR or codec == AFFINE or codec == SLOPE:
        fits = WIDTH[code] != 0 and code != F32 and code != F64 and code != BOOL
    elif codec == DEC:
        fits = code == F32 or code == F64
    elif codec == BITMAP:
        fits = code == BOOL
    else:
        fits = code != BOOL or codec == CONST
    if not fits:
        raise damaged(f"codec {codec} does not hold dtype {code}")
    check_layout(head)
    if codec == DEC and head.count > MOST_ODD:
        raise damaged(f"{head.count} odd values")
    if codec != DEC and (head.count > MOST_ENTRIES or (head.count == 0) != (codec != DICT)):
        raise damaged(f"{head.count} distinct values")
    if codec != CONST and codec != AFFINE and codec != FOR and codec != DEC and head.base:
        raise damaged("it has a base")
    if codec == FOR or codec == SLOPE or codec == DEC:
        if head.step < 0 or head.step == 1:
            raise damaged(f"a step of {head.step}")
    elif codec != AFFINE and head.step:
        raise damaged("it has a step")
    check_digits(head)
    if head.flags and (codec != DICT or WIDTH[code] or head.flags != FRONT):
        raise damaged(f"unknown flags {head.flags}")
    return 0


cdef int check_layout(const Header* head) except -1:
    """The layout, W, T and how many marks there are."""
    cdef int codec = head.codec, layout = head.layout, width = head.width, packed = head.packed, most = 64
    if layout > RUNS:
        raise damaged(f"unknown layout {layout}")
    if not has_codes(codec):
        if layout:
            raise damaged(f"codec {codec} has no layout {layout}")
        if width or packed:
            raise damaged(f"codec {codec} packs nothing but says {width} bits")
    elif layout == PACKED:
        if codec == FOR:
            most = 8 * WIDTH[head.code]
        elif codec == DICT:
            most = 16
        if not (0 < width <= most or (width == 0 and codec == SLOPE)):
            raise damaged(f"values of {width} bits")
        if packed != (container_of(width) if width else 0):
            raise damaged(f"containers of {packed} bits for values of {width}")
    else:
        if codec == FOR:
            most = container_of(8 * WIDTH[head.code])
        elif codec == DICT:
            most = 16
        if packed > most or (packed != 8 and packed != 16 and packed != 32 and packed != 64):
            raise damaged(f"containers of {packed} bits for values of {width}")
        if width >= packed or (width and layout == RUNS):
            raise damaged(f"values of {width} bits")
    if layout == EXCEPTED:
        if not 0 < head.marks < SEGMENT:
            raise damaged(f"{head.marks} exceptions")
    elif layout == RUNS:
        if not 0 < head.marks <= MOST_RUNS:
            raise damaged(f"{head.marks} runs")
    elif head.marks:
        raise damaged(f"{head.marks} marks")
    return 0


cdef int check_digits(const Header* head) except -1:
    """What DEC says of its decimals."""
    cdef int64_t most = <int64_t>1 << 51
    if head.codec != DEC:
        if head.digits or head.power or head.plain:
            raise damaged("it has decimals")
        return 0
    if head.digits > (9 if head.code == F32 else 15):
        raise damaged(f"decimals of {head.digits} digits")
    if head.power > 22 or (head.power and head.power <= head.digits):
        raise damaged(f"a power of {head.power} for {head.digits} digits")
    if not 0 < head.plain <= <uint64_t>(2 * most + 1):
        raise damaged(f"{head.plain} decimals")
    if not -most <= head.base <= most or head.base + <object>max(head.step, 1) * (head.plain - 1) > most:
        raise damaged("its decimals go past 2**51")
    return 0


cdef int open_sealed(Chunk self) except -1:
    """The fields and section pointers of bytes whose header is checked; every section is made to lie inside."""
    cdef const Header* head = <const Header*>self.base_ptr
    cdef Py_ssize_t at = HEADER, length, strings = 0
    cdef int i
    cdef uint64_t place
    cdef uint64_t lengths[7]
    cdef const uint8_t* sections[7]
    set_type(self, head.code)
    self.codec = head.codec
    self.width = head.width
    self.container = head.packed
    self.rows = head.rows
    self.null_count = head.nulls
    self.distinct = head.count
    self.base = head.base
    self.step = head.step
    self.layout = head.layout
    self.marks = head.marks
    self.digits = head.digits
    self.power = head.power
    self.plain = head.plain
    self.sealed = True
    self.offset_width = 4
    self.blocks = self.rows / BLOCK
    memset(lengths, 0, sizeof(lengths))
    if 0 < self.null_count < self.rows:
        lengths[0] = mask_size(self.rows)
    if has_codes(self.codec):
        lengths[1] = self.blocks * 128 * self.width
    elif self.codec == BITMAP:
        lengths[1] = mask_size(self.rows)
    elif self.codec == RAW:
        lengths[1] = self.rows * self.item
    if self.is_string and self.codec == CONST:
        if not 0 <= self.base <= <int64_t>0xFFFFFFFF:
            raise damaged(f"a value of {self.base} bytes")
        lengths[3] = self.base
    elif self.is_string:
        strings = self.distinct if self.codec == DICT else self.rows
        if head.flags == FRONT:
            strings = (strings + RESTART - 1) // RESTART
        lengths[2] = 4 * (strings + 1)
    elif self.codec == DICT or self.codec == DEC:
        lengths[3] = self.distinct * self.item
    if self.layout == EXCEPTED:
        lengths[4] = 4 * (self.blocks + 1) + 2 * self.marks
    elif self.layout == RUNS:
        lengths[4] = 2 * (self.blocks + self.marks)
    lengths[5] = self.marks * (self.container >> 3)
    if self.codec == SLOPE:
        lengths[6] = self.blocks * sizeof(Line)
    names = ("nulls", "values", "offsets", "heap", "places", "codes", "lines")
    for i in range(7):
        if i == 3 and strings:
            lengths[3] = (<const uint32_t*>sections[2])[strings]
        sections[i] = NULL
        length = lengths[i]
        place = head.places[i] if i < 4 else head.late_at[i - 4]
        if length == 0:
            if place:
                raise damaged(f"it has no {names[i]} but says where they are")
            continue
        if place != <uint64_t>at:
            raise damaged(f"its {names[i]} are at {place}, not at {at}")
        if at + length > self.total:
            raise damaged(f"its {names[i]} end past the chunk")
        sections[i] = self.base_ptr + at
        at = aligned(at + length)
    if at != self.total:
        raise damaged(f"its sections take {at} bytes of {self.total}")
    self.null_bits, self.values, self.offsets, self.heap = sections[0], sections[1], sections[2], sections[3]
    self.places, self.run_codes, self.lines = sections[4], sections[5], sections[6]
    self.heap_size = lengths[3]
    if self.heap == NULL:
        self.heap = self.base_ptr  # no byte of it is ever read
    if self.container == 0:
        self.container = 8  # codes that are all 0
    return 0


cdef uint64_t greatest_possible(Chunk self) noexcept nogil:
    """No code is greater; exceptions and runs say it exactly."""
    if self.codec == DICT:
        return self.distinct - 1
    if self.codec == DEC:
        return <uint64_t>(self.plain + self.distinct - 1)
    if self.layout != PACKED:
        return greatest_mark(self)
    return <uint64_t>-1 if self.width == 64 else (<uint64_t>1 << self.width) - 1


cdef int settle(Chunk self) except -1:
    """What follows from sections that are written and right: the greatest code, the step, an unpacked dictionary."""
    if has_codes(self.codec):
        self.scale = self.step if self.step else 1
        self.top = greatest_possible(self)
    if (<const Header*>self.base_ptr).flags == FRONT:
        open_front(self)
    return 0


cdef int trust(Chunk self) except -1:
    """Open bytes that this process has just written: ``base_ptr``, ``total`` and ``owner`` are set."""
    open_sealed(self)
    return settle(self)


cdef int check_values(Chunk self, const Header* head) except -1:
    cdef Py_ssize_t found
    if self.null_bits != NULL:
        found = snapdb_kernels.popcount(self.null_bits, mask_size(self.rows) >> 3)
        if found != self.null_count:
            raise damaged(f"it says {self.null_count} nulls and has {found}")
    if has_codes(self.codec):
        check_marks(self)
    settle(self)
    if self.codec == CONST:
        if self.null_count == self.rows:
            if self.base:
                raise damaged("all rows are null but it has a base")
        elif self.code == F32:
            if not 0 <= self.base <= <int64_t>0xFFFFFFFF:
                raise damaged("its base is no f32")
        elif self.code == STR:
            if text_kind(self.heap, self.heap_size) == NO_TEXT:
                raise damaged(f"its value is {NOT_UTF8.decode()}")
        elif not self.is_float and not self.is_string:
            check_in_type(self, base_int(self))
    elif self.codec == AFFINE:
        check_in_type(self, base_int(self))
        check_in_type(self, base_int(self) + (self.rows - 1) * <object>self.step)
    elif self.codec == FOR:
        check_in_type(self, base_int(self))
        check_offsets_in_type(self)
    elif self.codec == SLOPE:
        check_slopes(self)
    elif self.codec == DEC:
        check_decimals(self)
    elif self.is_string:
        check_strings(self)
    elif self.codec == RAW and (self.code == DATE or self.code == DATETIME):
        check_moments(self, "row", self.values, self.rows)
    if self.codec == DICT:
        check_dictionary(self)
    return 0


cdef object range_of(int code):
    """The least and greatest integer that a column may hold."""
    if code == DATE:
        return FIRST_DAY, LAST_DAY
    if code == DATETIME:
        return SNAP_FIRST_MICRO, SNAP_LAST_MICRO
    return _LIMITS[code]


cdef int check_moments(Chunk self, place, const uint8_t* values, Py_ssize_t count) except -1:
    cdef Py_ssize_t found
    with nogil:
        found = wrong_moment(self.code, <const char*>values, count)
    if found >= 0:
        raise damaged(f"{place} {found}: {NO_MOMENT.decode()}")
    return 0


cdef int check_in_type(Chunk self, object value) except -1:
    low, high = range_of(self.code)
    if not low <= value <= high:
        raise damaged(f"{value} is outside the dtype's range")
    return 0


cdef int check_offsets_in_type(Chunk self) except -1:
    cdef uint64_t greatest
    base = base_int(self)
    step = <object>self.scale
    if base + step * self.top <= range_of(self.code)[1]:
        return 0
    with nogil:
        greatest = greatest_code(self)
    check_in_type(self, base + step * greatest)
    return 0


cdef int check_strings(Chunk self) except -1:
    cdef Py_ssize_t count = self.distinct if self.codec == DICT else self.rows, i
    cdef const uint32_t* offsets = <const uint32_t*>self.offsets
    cdef bint falls = offsets[0] != 0
    with nogil:
        for i in range(count):
            falls |= offsets[i] > offsets[i + 1]  # so that none is greater than the last, which lies inside
    if falls:
        raise damaged("its string offsets do not rise from 0")
    if self.codec == RAW and self.null_bits != NULL:
        with nogil:
            i = null_with_text(self, offsets)
        if i >= 0:
            raise damaged(f"row {i} is null and has {offsets[i + 1] - offsets[i]} bytes")
    if self.code == STR:
        with nogil:
            i = wrong_text[uint32_t](self.heap, offsets, count)
        if i >= 0:
            raise damaged(f"{'entry' if self.codec == DICT else 'row'} {i}: {NOT_UTF8.decode()}")
    return 0


cdef Py_ssize_t null_with_text(Chunk self, const uint32_t* offsets) noexcept nogil:
    """The first null row of RAW strings that is not empty, -1 where there is none."""
    cdef Py_ssize_t row
    for row in range(self.rows):
        if offsets[row] != offsets[row + 1] and self.null_bits[row >> 3] >> (row & 7) & 1:
            return row
    return -1


cdef int check_dictionary(Chunk self) except -1:
    cdef Py_ssize_t i
    cdef uint64_t greatest
    cdef Text a, b
    cdef bint sorted_ = True
    with nogil:
        if self.is_string:
            for i in range(1, self.distinct):
                a = entry_text(self, i - 1)
                b = entry_text(self, i)
                if snapdb_compare(a.ptr, a.size, b.ptr, b.size) >= 0:
                    sorted_ = False
                    break
        else:
            for i in range(1, self.distinct):
                if sort_key(self, entry_word(self, i - 1)) >= sort_key(self, entry_word(self, i)):
                    sorted_ = False
                    break
    if not sorted_:
        raise damaged("its dictionary is not sorted")
    if self.code == DATE or self.code == DATETIME:
        check_moments(self, "entry", self.heap, self.distinct)
    cdef Py_ssize_t most = <Py_ssize_t>1 << (self.width if self.layout == PACKED else self.container)
    if self.distinct > most:
        raise damaged("its dictionary has more values than codes")
    if self.distinct < most:
        with nogil:
            greatest = greatest_code(self)
        if greatest >= <uint64_t>self.distinct:
            raise damaged("a code has no dictionary value")
    return 0


# -- one row ---------------------------------------------------------------

cdef int check_row(Chunk self, Py_ssize_t row) except -1:
    if not 0 <= row < self.rows:
        raise IndexError(f"row {row} is outside 0..{self.rows}")
    return 0


cdef int check_rows(Chunk self, const uint32_t* rows, Py_ssize_t count) except -1:
    cdef Py_ssize_t i
    for i in range(count):
        if rows[i] >= self.rows:
            raise IndexError(f"row {rows[i]} is outside 0..{self.rows}")
    return 0


cdef inline uint64_t item_at(const uint8_t* values, int item, Py_ssize_t row) noexcept nogil:
    if item == 8:
        return (<const uint64_t*>values)[row]
    if item == 4:
        return (<const uint32_t*>values)[row]
    if item == 2:
        return (<const uint16_t*>values)[row]
    return values[row]


cdef inline uint64_t entry_word(Chunk self, Py_ssize_t code) noexcept nogil:
    return item_at(self.heap, self.item, code)


cdef inline Text entry_text(Chunk self, Py_ssize_t code) noexcept nogil:
    cdef const uint32_t* offsets = <const uint32_t*>self.offsets
    cdef Text text
    text.ptr = <const char*>self.heap + offsets[code]
    text.size = offsets[code + 1] - offsets[code]
    return text


cdef inline uint64_t value_at(Chunk self, Py_ssize_t row) noexcept nogil:
    """The stored value's bits in the lowest ``item`` bytes."""
    if self.codec == RAW:
        return item_at(self.values, self.item, row)
    if self.codec == FOR:
        return <uint64_t>self.base + <uint64_t>self.scale * packed_at(self, row)
    if self.codec == DICT:
        return entry_word(self, packed_at(self, row))
    if self.codec == SLOPE:
        return slope_at(self, row)
    if self.codec == DEC:
        return decimal_word(self, packed_at(self, row))
    if self.codec == AFFINE:
        return <uint64_t>self.base + <uint64_t>row * <uint64_t>self.step
    if self.codec == BITMAP:
        return self.values[row >> 3] >> (row & 7) & 1
    return <uint64_t>self.base


cdef inline Text text_at(Chunk self, Py_ssize_t row) noexcept nogil:
    cdef Text text
    if self.codec == DICT:
        return entry_text(self, packed_at(self, row))
    if self.codec == CONST:
        text.ptr = <const char*>self.heap
        text.size = self.base
    elif self.offset_width == 4:
        text.ptr = <const char*>self.heap + (<const uint32_t*>self.offsets)[row]
        text.size = (<const uint32_t*>self.offsets)[row + 1] - (<const uint32_t*>self.offsets)[row]
    else:
        text.ptr = <const char*>self.heap + (<const uint64_t*>self.offsets)[row]
        text.size = (<const uint64_t*>self.offsets)[row + 1] - (<const uint64_t*>self.offsets)[row]
    return text


cdef inline object int_of(int code, uint64_t word):
    """The Python integer of a stored value's bits; bool: 0 or 1."""
    if code == I32 or code == DATE:
        return <int32_t>word
    if code == I64 or code == DATETIME:
        return <int64_t>word
    if code == U8 or code == BOOL:
        return <uint8_t>word
    if code == I8:
        return <int8_t>word
    if code == I16:
        return <int16_t>word
    if code == U16:
        return <uint16_t>word
    if code == U32:
        return <uint32_t>word
    return word


cdef inline double float_of(int code, uint64_t word) noexcept nogil:
    cdef double wide
    cdef float narrow
    cdef uint32_t low
    if code == F32:
        low = <uint32_t>word
        memcpy(&narrow, &low, 4)
        return narrow
    memcpy(&wide, &word, 8)
    return wide


cdef inline uint64_t float_bits(double value) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, &value, 8)
    return word


cdef object physical_of(Chunk self, uint64_t word):
    if self.is_float:
        return float_of(self.code, word)
    return int_of(self.code, word)


cdef object base_int(Chunk self):
    """``base`` as the integer that the dtype makes of it."""
    return <uint64_t>self.base if self.code == U64 else self.base


cdef uint64_t sort_key(Chunk self, uint64_t word) noexcept nogil:
    """A value's bits to an unsigned key in the order of a dictionary."""
    return key_of(self.item, self.is_signed, self.is_float, word)


cdef inline uint64_t key_of(int item, bint is_signed, bint is_float, uint64_t word) noexcept nogil:
    cdef uint64_t top = <uint64_t>1 << (8 * item - 1)
    if is_signed:
        return word ^ top
    if is_float:
        return (top * 2 - 1) - word if word & top else word | top
    return word


# -- blocks ----------------------------------------------------------------

cdef int take_mask(Chunk self, object mask, Py_buffer* held) except -1:
    """Hold a mask (None: every row, ``held.buf`` NULL); the caller releases it."""
    memset(held, 0, sizeof(Py_buffer))
    if mask is None:
        return 0
    take_bytes(mask, held)
    if held.len != mask_size(self.rows):
        size = held.len
        PyBuffer_Release(held)
        raise ValueError(f"a mask over {self.rows} rows has {mask_size(self.rows)} bytes, got {size}")
    return 0


cdef inline Py_ssize_t block_rows(Chunk self, Py_ssize_t block) noexcept nogil:
    cdef Py_ssize_t left = self.rows - block * BLOCK
    return BLOCK if left > BLOCK else left


cdef void selected_words(Chunk self, const uint8_t* mask, Py_ssize_t block, uint64_t* words) noexcept nogil:
    """The selected rows of a block, null or not."""
    cdef Py_ssize_t n = block_rows(self, block)
    cdef uint64_t inside[WORDS]
    if n == BLOCK:
        if mask == NULL:
            memset(words, 0xFF, 8 * WORDS)
        else:
            memcpy(words, mask + block * (BLOCK >> 3), 8 * WORDS)
        return
    memset(words, 0, 8 * WORDS)
    snapdb_fill_bits(<uint8_t*>words, 0, n)
    if mask != NULL:
        memset(inside, 0, 8 * WORDS)
        memcpy(inside, mask + block * (BLOCK >> 3), mask_size(n))
        snapdb_kernels.and_words(<uint8_t*>words, <const uint8_t*>inside, WORDS)


cdef const uint64_t* null_words(Chunk self, Py_ssize_t block, uint64_t* words) noexcept nogil:
    """The null rows of a block, NULL where there is none."""
    if self.null_count == 0:
        return NULL
    memset(words, 0xFF if self.null_bits == NULL else 0, 8 * WORDS)
    if self.null_bits != NULL:
        memcpy(words, self.null_bits + block * (BLOCK >> 3), mask_size(block_rows(self, block)))
    return words


cdef int live_words(Chunk self, const uint8_t* mask, Py_ssize_t block, Scratch* s) noexcept nogil:
    """The selected rows of a block that are not null, in ``s.words``; how many."""
    selected_words(self, mask, block, s.words)
    if null_words(self, block, s.nulls) != NULL:
        snapdb_kernels.andnot_words(<uint8_t*>s.words, <const uint8_t*>s.nulls, WORDS)
    elif mask == NULL:
        return <int>block_rows(self, block)
    return <int>snapdb_kernels.popcount(s.words, WORDS)


cdef uint64_t[BLOCK] ZEROS  # codes of an arithmetic sequence


cdef const void* load_native(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of a fixed-width column as stored values, in ``s.values``, ``s.other`` or in place; changes ``s.blended``."""
    cdef Py_ssize_t n, i
    cdef uint64_t value
    cdef const void* packed
    if self.codec == RAW:
        n = block_rows(self, block)
        if n == BLOCK:
            return self.values + block * BLOCK * self.item
        memset(s.values, 0, BLOCK * self.item)
        memcpy(s.values, self.values + block * BLOCK * self.item, n * self.item)
        return s.values
    if self.codec == FOR:
        packed = load_packed(self, block, s)
        if self.scale == 1:
            snapdb_kernels.convert[table_of(self.container)][table_of(8 * self.item)](packed, <uint64_t>self.base, s.other)
            return s.other
        if self.item == 8:
            snapdb_kernels.scale[table_of(self.container)](packed, <uint64_t>self.scale, <uint64_t>self.base, s.other)
            return s.other
        snapdb_kernels.scale[table_of(self.container)](packed, <uint64_t>self.scale, <uint64_t>self.base, s.blended)
        snapdb_kernels.convert[3][table_of(8 * self.item)](s.blended, 0, s.other)
        return s.other
    if self.codec == SLOPE:
        load_slope(self, block, s)
        if self.item == 8:
            return s.other
        snapdb_kernels.convert[3][table_of(8 * self.item)](s.other, 0, s.values)
        return s.values
    if self.codec == DEC:
        return load_decimals(self, block, s)
    if self.codec == DICT:
        snapdb_lookup(load_packed(self, block, s), self.container, self.heap, self.item, s.other)
        return s.other
    if self.codec == BITMAP:
        snapdb_kernels.expand(self.values + block * (BLOCK >> 3), <uint8_t*>s.values)
        for i in range(BLOCK):
            (<uint8_t*>s.values)[i] &= 1
        return s.values
    if self.codec == AFFINE:
        value = <uint64_t>self.base + <uint64_t>(block * BLOCK) * <uint64_t>self.step
        snapdb_kernels.line(ZEROS, value, 1, <uint64_t>self.step, 0, s.values)
        if self.item == 8:
            return s.values
        snapdb_kernels.convert[3][table_of(8 * self.item)](s.values, 0, s.other)
        return s.other
    snapdb_fill(s.values, self.item, <uint64_t>self.base)
    return s.values
