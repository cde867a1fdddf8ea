# Whole columns and lists of rows as buffers and as Python values.

# -- decoding --------------------------------------------------------------

cdef ColumnBuffer new_buffer(Chunk self, Py_ssize_t rows, Py_ssize_t heap):
    """A buffer with room, which nobody else has seen."""
    cdef ColumnBuffer made = ColumnBuffer(self.code)
    made.exactly(rows, heap)
    return made


cdef ColumnBuffer decode_all(Chunk self):
    cdef Py_ssize_t heap = 0
    cdef ColumnBuffer made
    cdef char* values
    cdef uint64_t* starts = NULL
    cdef uint8_t* nulls = NULL
    if self.is_string:
        heap = strings_size(self)
    made = new_buffer(self, self.rows, heap)
    if self.null_count:
        made.reserve_nulls()
        nulls = <uint8_t*>made.null_bits.ptr
    values = made.values.ptr
    if self.is_string:
        starts = <uint64_t*>made.starts.ptr
    with nogil:
        if self.is_string:
            copy_strings(self, values, starts)
        else:
            copy_fixed(self, values)
        if nulls != NULL and self.null_bits != NULL:
            memcpy(nulls, self.null_bits, mask_size(self.rows))
            if not self.is_string:
                snapdb_fill_at(values, self.item, nulls, self.rows, 0)
        elif nulls != NULL:
            snapdb_fill_bits(nulls, 0, self.rows)
    made.rows = self.rows
    made.null_count = self.null_count
    made.heap_size = heap
    return made


cdef void copy_fixed(Chunk self, char* values) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        memcpy(values + block * BLOCK * self.item, load_native(self, block, &s), block_rows(self, block) * self.item)


cdef Py_ssize_t strings_size(Chunk self) noexcept:
    """Bytes of every row's string."""
    cdef Py_ssize_t size = 0, row
    with nogil:
        if self.codec == RAW and self.null_count == 0:
            size = self.heap_size
        elif self.codec == CONST:
            size = self.base * (self.rows - self.null_count)
        elif self.codec == DICT:
            size = coded_size(self)
        else:
            for row in range(self.rows):
                if not is_null(self, row):
                    size += text_at(self, row).size
    return size


cdef Py_ssize_t coded_size(Chunk self) noexcept nogil:
    """Bytes of every row's string of a dictionary."""
    cdef Scratch s
    cdef Py_ssize_t size = 0, block, i
    cdef const uint32_t* offsets = <const uint32_t*>self.offsets
    cdef const uint8_t* at
    cdef uint64_t code
    for block in range(self.blocks):
        at = <const uint8_t*>load_packed(self, block, &s)
        for i in range(BLOCK):
            if not is_null(self, block * BLOCK + i):
                code = item_at(at, self.container >> 3, i)
                size += offsets[code + 1] - offsets[code]
    return size


cdef inline bint is_null(Chunk self, Py_ssize_t row) noexcept nogil:
    if self.null_bits == NULL:
        return self.null_count == self.rows
    return self.null_bits[row >> 3] >> (row & 7) & 1


cdef void copy_strings(Chunk self, char* heap, uint64_t* starts) noexcept nogil:
    cdef Py_ssize_t row
    cdef uint64_t at = 0
    cdef Scratch s
    cdef const uint8_t* codes = NULL
    cdef bint coded = self.codec == DICT
    cdef Text text
    starts[0] = 0
    for row in range(self.rows):
        if coded and row & (BLOCK - 1) == 0:
            codes = <const uint8_t*>load_packed(self, row >> 10, &s)
        if not is_null(self, row):
            if coded:
                text = entry_text(self, item_at(codes, self.container >> 3, row & (BLOCK - 1)))
            else:
                text = text_at(self, row)
            memcpy(heap + at, text.ptr, text.size)
            at += text.size
        starts[row + 1] = at


cdef ColumnBuffer gather_rows(Chunk self, const uint32_t* rows, Py_ssize_t count):
    cdef Py_ssize_t heap = 0, i
    cdef ColumnBuffer made
    cdef uint64_t word
    cdef Text text
    if self.is_string:
        for i in range(count):
            if not is_null(self, rows[i]):
                heap += text_at(self, rows[i]).size
    made = new_buffer(self, count, heap)
    if self.null_count:
        made.reserve_nulls()
    heap = 0
    for i in range(count):
        if is_null(self, rows[i]) and self.null_count:
            (<uint8_t*>made.null_bits.ptr)[i >> 3] |= <uint8_t>(1 << (i & 7))
            made.null_count += 1
        elif self.is_string:
            text = text_at(self, rows[i])
            memcpy(made.values.ptr + heap, text.ptr, text.size)
            heap += text.size
        else:
            word = value_at(self, rows[i])
            memcpy(made.values.ptr + i * self.item, &word, self.item)
        if self.is_string:
            (<uint64_t*>made.starts.ptr)[i + 1] = heap
    made.rows = count
    made.heap_size = heap
    return made


# -- Python values ---------------------------------------------------------

cdef inline object fixed_object(int code, const char* at):
    """What logical_fixed gives, with the common types first."""
    if code == I64:
        return (<const int64_t*>at)[0]
    if code == F64:
        return (<const double*>at)[0]
    if code == I32:
        return (<const int32_t*>at)[0]
    return logical_fixed(code, at)



cdef list take_all(Chunk self):
    cdef list taken = [None] * self.rows, made
    cdef Scratch s
    cdef Py_ssize_t block, i, row
    cdef const char* at
    cdef Text text
    cdef bint nulls = self.null_count != 0
    if self.null_count == self.rows:
        return taken
    if self.codec == CONST:
        value = constant(self)
        if not nulls:
            return [value] * self.rows
        for row in range(self.rows):
            if not is_null(self, row):
                taken[row] = value
        return taken
    if self.is_string and self.codec == RAW:
        for row in range(self.rows):
            if not (nulls and is_null(self, row)):
                text = text_at(self, row)
                taken[row] = logical_bytes(self.code, text.ptr, text.size)
        return taken
    if self.codec == DICT:
        return take_coded(self, taken)
    for block in range(self.blocks):
        at = <const char*>load_native(self, block, &s)
        row = block * BLOCK
        for i in range(block_rows(self, block)):
            if not (nulls and is_null(self, row + i)):
                taken[row + i] = fixed_object(self.code, at + i * self.item)
    return taken


cdef list take_coded(Chunk self, list taken):
    cdef list made = [None] * self.distinct
    cdef Scratch s
    cdef Py_ssize_t block, i, row, code
    cdef const uint8_t* at
    cdef bint nulls = self.null_count != 0
    for block in range(self.blocks):
        at = <const uint8_t*>load_packed(self, block, &s)
        row = block * BLOCK
        for i in range(BLOCK):
            if nulls and is_null(self, row + i):
                continue
            code = item_at(at, self.container >> 3, i)
            value = made[code]
            if value is None:
                value = made[code] = entry_object(self, code)
            taken[row + i] = value
    return taken


cdef object entry_object(Chunk self, Py_ssize_t code):
    """A dictionary entry's logical value."""
    cdef Text text
    cdef uint64_t word
    if self.is_string:
        text = entry_text(self, code)
        return logical_bytes(self.code, text.ptr, text.size)
    word = entry_word(self, code)
    return logical_fixed(self.code, <const char*>&word)


cdef object constant(Chunk self):
    """The logical value of CONST."""
    if self.is_string:
        return logical_bytes(self.code, <const char*>self.heap, self.base)
    return logical_fixed(self.code, <const char*>&self.base)


cdef list take_rows(Chunk self, const uint32_t* rows, Py_ssize_t count):
    cdef list taken = [None] * count
    cdef dict made
    cdef Py_ssize_t i
    cdef uint64_t word
    cdef bint nulls = self.null_count != 0
    if self.null_count == self.rows:
        return taken
    if self.is_string and self.codec == DICT:
        made = {}
        for i in range(count):
            if not (nulls and is_null(self, rows[i])):
                code = packed_at(self, rows[i])
                value = made.get(code)
                if value is None:
                    value = made[code] = entry_object(self, code)
                taken[i] = value
        return taken
    if self.is_string:
        for i in range(count):
            taken[i] = self.logical_at(rows[i])
        return taken
    for i in range(count):
        if not (nulls and is_null(self, rows[i])):
            word = value_at(self, rows[i])
            taken[i] = fixed_object(self.code, <const char*>&word)
    return taken
