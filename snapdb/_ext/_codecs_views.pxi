# Raw views of buffers, chunks of other backends, and parts of chunks.

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


# -- parts -----------------------------------------------------------------

cdef Chunk part_of(Chunk self, Py_ssize_t first, Py_ssize_t blocks):
    """Some blocks as a chunk over the same memory."""
    cdef Chunk made
    cdef Py_ssize_t row = first * BLOCK, size = self.nbytes
    if not (0 <= first and 0 < blocks and first + blocks <= self.blocks):
        raise ValueError(f"blocks {first}..{first + blocks} are outside 0..{self.blocks}")
    made = Chunk.__new__(Chunk)
    set_type(made, self.code)
    made.codec, made.layout, made.width, made.container = self.codec, self.layout, self.width, self.container
    made.rows = min(blocks * BLOCK, self.rows - row)
    made.blocks = blocks
    made.base, made.step, made.scale = self.base, self.step, self.scale
    made.distinct, made.plain, made.top = self.distinct, self.plain, self.top
    made.digits, made.power = self.digits, self.power
    made.offsets, made.offset_width = self.offsets, self.offset_width
    made.heap, made.heap_size = self.heap, self.heap_size
    made.total = size * blocks / self.blocks
    made.owner = self
    if self.values != NULL:
        if self.codec == RAW:
            made.values = self.values + row * self.item
        else:
            made.values = self.values + first * 128 * (1 if self.codec == BITMAP else self.width)
    if self.lines != NULL:
        made.lines = self.lines + first * sizeof(Line)
    if self.codec == AFFINE:
        made.base = <int64_t>(<uint64_t>self.base + <uint64_t>row * <uint64_t>self.step)
    if self.is_string and self.codec == RAW:
        made.offsets = self.offsets + row * self.offset_width
        made.heap_size = end_of(made, made.rows) - end_of(made, 0)
    if self.null_bits != NULL:
        made.null_bits = self.null_bits + first * (BLOCK >> 3)
        made.null_count = snapdb_kernels.popcount(made.null_bits, mask_size(made.rows) >> 3)
        if made.null_count == 0:
            made.null_bits = NULL
    elif self.null_count:
        made.null_count = made.rows
    if self.layout == EXCEPTED:
        part_exceptions(self, made, first)
    elif self.layout == RUNS:
        part_runs(self, made, first)
    return made


cdef inline bint is_part(Chunk self):
    return isinstance(self.owner, Chunk) or (type(self.owner) is tuple and type((<tuple>self.owner)[0]) is Chunk)


cdef inline Py_ssize_t end_of(Chunk self, Py_ssize_t row) noexcept nogil:
    """Where the string before a row of RAW ends."""
    if self.offset_width == 4:
        return (<const uint32_t*>self.offsets)[row]
    return <Py_ssize_t>(<const uint64_t*>self.offsets)[row]


cdef int part_exceptions(Chunk self, Chunk made, Py_ssize_t first) except -1:
    cdef const uint32_t* starts = <const uint32_t*>self.places + first
    cdef uint32_t start = starts[0]
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self) + start
    cdef Py_ssize_t i
    cdef Memory memory
    made.marks = starts[made.blocks] - start
    memory = uncleared(4 * (made.blocks + 1) + 2 * made.marks)
    made.places = <const uint8_t*>memory.ptr
    for i in range(made.blocks + 1):
        (<uint32_t*>memory.ptr)[i] = starts[i] - start
    for i in range(made.marks):
        (<uint16_t*>mark_rows(made))[i] = <uint16_t>(rows[i] - first * BLOCK)
    made.run_codes = self.run_codes + start * <size_t>(self.container >> 3)
    made.owner = (self, memory)
    return 0


cdef int part_runs(Chunk self, Chunk made, Py_ssize_t first) except -1:
    cdef Py_ssize_t run = run_of(self, first * BLOCK), i
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self) + run
    cdef Memory memory
    made.marks = run_of(self, first * BLOCK + made.rows - 1) - run + 1
    memory = uncleared(2 * (made.blocks + made.marks))
    made.places = <const uint8_t*>memory.ptr
    for i in range(made.blocks):
        (<uint16_t*>memory.ptr)[i] = <uint16_t>((<const uint16_t*>self.places)[first + i] - run)
    for i in range(made.marks):
        (<uint16_t*>mark_rows(made))[i] = <uint16_t>(min(<Py_ssize_t>rows[i] - first * BLOCK, made.rows - 1))
    made.run_codes = self.run_codes + run * (self.container >> 3)
    made.owner = (self, memory)
    return 0
