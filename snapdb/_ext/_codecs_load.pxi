# Reading sealed bytes without trusting them, raw views, one row, and loading blocks.

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
    uint8_t zero[56]


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
    for i in range(56):
        if head.zero[i]:
            raise damaged("the reserved bytes of its header are not zero")
    check_header(head)
    open_sealed(self)
    check_values(self, head)
    return 0


cdef int check_header(const Header* head) except -1:
    cdef int codec = head.codec, code = head.code, most
    cdef bint fits
    if not RAW <= codec <= BITMAP:
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
    if codec == FOR or codec == AFFINE:
        fits = WIDTH[code] != 0 and code != F32 and code != F64 and code != BOOL
    elif codec == BITMAP:
        fits = code == BOOL
    else:
        fits = code != BOOL or codec == CONST
    if not fits:
        raise damaged(f"codec {codec} does not hold dtype {code}")
    if codec == FOR or codec == DICT:
        most = 8 * WIDTH[code] if codec == FOR else 16
        if not 0 < head.width <= most:
            raise damaged(f"values of {head.width} bits")
        if head.packed != container_of(head.width):
            raise damaged(f"containers of {head.packed} bits for values of {head.width}")
    elif head.width or head.packed:
        raise damaged(f"codec {codec} packs nothing but says {head.width} bits")
    if head.count > MOST_ENTRIES or (head.count == 0) != (codec != DICT):
        raise damaged(f"{head.count} distinct values")
    if codec != CONST and codec != AFFINE and codec != FOR and head.base:
        raise damaged("it has a base")
    if codec != AFFINE and head.step:
        raise damaged("it has a step")
    return 0


cdef int open_sealed(Chunk self) except -1:
    """The fields and section pointers of bytes whose header is checked; every section is made to lie inside."""
    cdef const Header* head = <const Header*>self.base_ptr
    cdef Py_ssize_t at = HEADER, length, strings = 0
    cdef int i
    cdef uint64_t lengths[4]
    cdef const uint8_t* sections[4]
    set_type(self, head.code)
    self.codec = head.codec
    self.width = head.width
    self.container = head.packed
    self.rows = head.rows
    self.null_count = head.nulls
    self.distinct = head.count
    self.base = head.base
    self.step = head.step
    self.sealed = True
    self.offset_width = 4
    self.blocks = self.rows / BLOCK
    memset(lengths, 0, sizeof(lengths))
    if 0 < self.null_count < self.rows:
        lengths[0] = mask_size(self.rows)
    if self.codec == FOR or self.codec == DICT:
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
        lengths[2] = 4 * (strings + 1)
    elif self.codec == DICT:
        lengths[3] = self.distinct * self.item
    names = ("nulls", "values", "offsets", "heap")
    for i in range(4):
        if i == 3 and strings:
            lengths[3] = (<const uint32_t*>sections[2])[strings]
        sections[i] = NULL
        length = lengths[i]
        if length == 0:
            if head.places[i]:
                raise damaged(f"it has no {names[i]} but says where they are")
            continue
        if head.places[i] != <uint64_t>at:
            raise damaged(f"its {names[i]} are at {head.places[i]}, not at {at}")
        if at + length > self.total:
            raise damaged(f"its {names[i]} end past the chunk")
        sections[i] = self.base_ptr + at
        at = aligned(at + length)
    if at != self.total:
        raise damaged(f"its sections take {at} bytes of {self.total}")
    self.null_bits, self.values, self.offsets, self.heap = sections[0], sections[1], sections[2], sections[3]
    self.heap_size = lengths[3]
    if self.heap == NULL:
        self.heap = self.base_ptr  # no byte of it is ever read
    return 0


cdef int check_values(Chunk self, const Header* head) except -1:
    cdef Py_ssize_t found
    if self.null_bits != NULL:
        found = snapdb_kernels.popcount(self.null_bits, mask_size(self.rows) >> 3)
        if found != self.null_count:
            raise damaged(f"it says {self.null_count} nulls and has {found}")
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


cdef uint64_t greatest_packed(Chunk self) noexcept nogil:
    cdef Scratch s
    cdef uint64_t low, high, greatest = 0
    cdef Py_ssize_t block
    for block in range(self.blocks):
        snapdb_kernels.minmax[0][table_of(self.container)](load_packed(self, block, &s), BLOCK, &low, &high)
        if high > greatest:
            greatest = high
    return greatest


cdef int check_offsets_in_type(Chunk self) except -1:
    cdef uint64_t greatest
    base = base_int(self)
    if base + (<object>1 << self.width) - 1 <= range_of(self.code)[1]:
        return 0
    with nogil:
        greatest = greatest_packed(self)
    check_in_type(self, base + greatest)
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
    if self.distinct > <Py_ssize_t>1 << self.width:
        raise damaged("its dictionary has more values than codes")
    if self.distinct < <Py_ssize_t>1 << self.width:
        with nogil:
            greatest = greatest_packed(self)
        if greatest >= <uint64_t>self.distinct:
            raise damaged("a code has no dictionary value")
    return 0


# -- views -----------------------------------------------------------------

cdef Chunk raw_chunk(int code, Py_ssize_t rows):
    cdef Chunk made = Chunk.__new__(Chunk)
    set_type(made, code)
    made.codec = RAW
    made.rows = rows
    made.blocks = (rows + BLOCK - 1) / BLOCK
    made.offset_width = 8
    return made


cdef int copy_nulls(Chunk self, const uint8_t* bits, Py_ssize_t start, list owner) except -1:
    """The view's own null bits: a buffer's last byte still changes as rows are appended."""
    cdef Memory copy = allocate(mask_size(self.rows))
    snapdb_copy_bits(bits, start, self.rows, <uint8_t*>copy.ptr)
    self.null_count = snapdb_kernels.popcount(copy.ptr, mask_size(self.rows) >> 3)
    if self.null_count:
        self.null_bits = <const uint8_t*>copy.ptr
        owner.append(copy)
    return 0


cdef Chunk view_of(ColumnBuffer buffer, Py_ssize_t start, Py_ssize_t stop):
    cdef Chunk made
    cdef const uint64_t* offsets
    cdef list owner
    if not 0 <= start <= stop <= buffer.rows:
        raise ValueError(f"rows {start}..{stop} are outside 0..{buffer.rows}")
    if start & 7:
        raise ValueError(f"a view starts at a multiple of 8 rows, not at {start}")
    made = raw_chunk(buffer.code, stop - start)
    owner = [buffer.values]
    if made.is_string:
        offsets = <const uint64_t*>buffer.starts.ptr + start
        made.offsets = <const uint8_t*>offsets
        made.heap = <const uint8_t*>buffer.values.ptr
        made.heap_size = offsets[made.rows] - offsets[0]
        owner.append(buffer.starts)
    else:
        made.values = <const uint8_t*>buffer.values.ptr + start * made.item
    if buffer.null_count:
        copy_nulls(made, <const uint8_t*>buffer.null_bits.ptr, start, owner)
    made.owner = tuple(owner)
    return made


@cython.final
cdef class Held:
    """A buffer of another backend's chunk, held as bytes that start at a whole word."""
    cdef Py_buffer source
    cdef bint held
    cdef Memory copy
    cdef const uint8_t* ptr
    cdef Py_ssize_t size

    def __init__(self, data):
        if self.held:
            raise ValueError("this buffer is held already")
        take_bytes(data, &self.source)
        self.held = True
        self.ptr = <const uint8_t*>self.source.buf
        self.size = self.source.len
        if <uintptr_t>self.ptr & 7:
            self.copy = allocate(self.size)
            memcpy(self.copy.ptr, self.ptr, self.size)
            self.ptr = <const uint8_t*>self.copy.ptr

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.source)


cdef Chunk adopt_parts(int code, Py_ssize_t rows, data, offsets, nulls, Py_ssize_t null_count):
    cdef Chunk made
    cdef Held values = Held(data), starts, bits
    cdef const uint64_t* ends
    cdef Py_ssize_t i
    cdef list owner = [values]
    if not I8 <= code <= DATETIME or rows < 0 or rows > (<Py_ssize_t>1 << 56):
        raise ValueError(f"no view has dtype {code} and {rows} rows")
    made = raw_chunk(code, rows)
    if made.is_string:
        starts = Held(offsets)
        owner.append(starts)
        if starts.size < 8 * (rows + 1):
            raise ValueError(f"{rows} strings need {rows + 1} offsets, got {starts.size >> 3}")
        ends = <const uint64_t*>starts.ptr
        for i in range(rows):
            if ends[i] > ends[i + 1]:
                raise ValueError("string offsets do not rise")
        if ends[rows] > <uint64_t>values.size:
            raise ValueError(f"strings end at {ends[rows]}, the heap has {values.size} bytes")
        made.offsets, made.heap = starts.ptr, values.ptr
        made.heap_size = ends[rows] - ends[0]
    else:
        if values.size < rows * made.item:
            raise ValueError(f"{rows} values need {rows * made.item} bytes, got {values.size}")
        made.values = values.ptr
    if nulls is not None and null_count:
        bits = Held(nulls)
        if bits.size < mask_size(rows):
            raise ValueError(f"a bitmap of {rows} rows needs {mask_size(rows)} bytes, got {bits.size}")
        copy_nulls(made, bits.ptr, 0, owner)
    made.owner = tuple(owner)
    return made


cdef tuple view_parts(Chunk self):
    cdef Memory moved
    cdef const uint64_t* ends
    cdef Py_ssize_t i
    nulls = None
    offsets = None
    if self.null_bits != NULL:
        nulls = memoryview(self.owner[len(self.owner) - 1])[:mask_size(self.rows)]
    if not self.is_string:
        data = part(self.owner[0], self.values, self.rows * self.item).cast(_TYPECODES[self.code])
        return self.code, self.rows, data, offsets, nulls, self.null_count
    ends = <const uint64_t*>self.offsets
    data = part(self.owner[0], self.heap + ends[0], self.heap_size)
    if ends[0]:
        moved = allocate(8 * (self.rows + 1))
        for i in range(self.rows + 1):
            (<uint64_t*>moved.ptr)[i] = ends[i] - ends[0]
        offsets = memoryview(moved)[:8 * (self.rows + 1)].cast("Q")
    else:
        offsets = part(self.owner[1], self.offsets, 8 * (self.rows + 1)).cast("Q")
    return self.code, self.rows, data, offsets, nulls, self.null_count


cdef object part(object owner, const uint8_t* at, Py_ssize_t size):
    """Bytes of one of the objects that a view keeps alive."""
    cdef Memory memory
    cdef Held held
    cdef Py_ssize_t start
    if isinstance(owner, Memory):
        memory = owner
        start = at - <const uint8_t*>memory.ptr
        return memoryview(memory)[start:start + size]
    held = owner
    if held.copy is not None:
        return memoryview(held.copy)[:size]
    view = memoryview(<object>held.source.obj)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    start = at - held.ptr
    return view[start:start + size].toreadonly()


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


cdef inline uint64_t packed_at(Chunk self, Py_ssize_t row) noexcept nogil:
    if self.width == self.container:
        return item_at(self.values, self.width >> 3, row)
    return snapdb_packed_at(self.values, self.width, self.container, row)


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
        return <uint64_t>self.base + packed_at(self, row)
    if self.codec == DICT:
        return entry_word(self, packed_at(self, row))
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


cdef const void* load_packed(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of FOR or DICT as containers of T bits, in ``s.values`` or in place."""
    cdef const uint8_t* at = self.values + block * 128 * self.width
    if self.width == self.container:
        return at
    snapdb_kernels.unpack(at, self.width, self.container, s.values)
    return s.values


cdef const void* load_native(Chunk self, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block of a fixed-width column as stored values, in ``s.values``, ``s.other`` or in place."""
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
        snapdb_kernels.convert[table_of(self.container)][table_of(8 * self.item)](packed, <uint64_t>self.base, s.other)
        return s.other
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
        for i in range(BLOCK):
            s.values[i] = value + <uint64_t>i * <uint64_t>self.step
        if self.item == 8:
            return s.values
        snapdb_kernels.convert[3][table_of(8 * self.item)](s.values, 0, s.other)
        return s.other
    snapdb_fill(s.values, self.item, <uint64_t>self.base)
    return s.values
