# Sealing: one pass for the statistics, the choice rule of docs/format.md, then the bytes.

cdef inline int packed_width(uint64_t span) noexcept nogil:
    """Bits per packed value for offsets 0..span, as ``_common.packed_width``."""
    cdef int width = 0
    while width < 64 and span >> width:
        width += 1
    if width == 15:
        return 16
    if width == 31:
        return 32
    return 64 if width >= 62 else width


@cython.final
cdef class Source:
    """The rows of a buffer that are to be sealed."""
    cdef ColumnBuffer buffer
    cdef int code, item
    cdef bint is_signed, is_float
    cdef Py_ssize_t start, rows, nulls
    cdef const uint8_t* values      # the first row's value; strings: NULL
    cdef const uint64_t* offsets    # strings: the first row's offset into heap
    cdef const uint8_t* heap
    cdef Memory null_memory, valid_memory, copy
    cdef const uint8_t* null_bits   # NULL where nothing is null
    cdef const uint8_t* valid_bits

    cdef int read(self, ColumnBuffer buffer, Py_ssize_t start, Py_ssize_t rows) except -1:
        self.buffer = buffer
        self.code = buffer.code
        self.item = WIDTH[buffer.code]
        self.is_signed = SIGNED[buffer.code]
        self.is_float = buffer.code == F32 or buffer.code == F64
        self.start, self.rows = start, rows
        if self.item:
            self.values = <const uint8_t*>buffer.values.ptr + start * self.item
        else:
            self.offsets = <const uint64_t*>buffer.starts.ptr + start
            self.heap = <const uint8_t*>buffer.values.ptr
        if buffer.null_count:
            self.null_memory = allocate(mask_size(rows))
            snapdb_copy_bits(<const uint8_t*>buffer.null_bits.ptr, start, rows, <uint8_t*>self.null_memory.ptr)
            self.nulls = snapdb_kernels.popcount(self.null_memory.ptr, mask_size(rows) >> 3)
        if self.nulls:
            self.null_bits = <const uint8_t*>self.null_memory.ptr
            self.valid_memory = allocate(mask_size(rows))
            snapdb_fill_bits(<uint8_t*>self.valid_memory.ptr, 0, rows)
            snapdb_kernels.andnot_words(<uint8_t*>self.valid_memory.ptr, self.null_bits, mask_size(rows) >> 3)
            self.valid_bits = <const uint8_t*>self.valid_memory.ptr
        return 0

    cdef const uint8_t* filled(self, uint64_t value) except NULL:
        """The values with the null rows' slots set to ``value``, in memory of its own where there are any."""
        if self.nulls == 0:
            return self.values
        if self.copy is None:
            self.copy = uncleared(self.rows * self.item)
            memcpy(self.copy.ptr, self.values, self.rows * self.item)
        snapdb_fill_at(self.copy.ptr, self.item, self.null_bits, self.rows, value)
        return <const uint8_t*>self.copy.ptr

    cdef Py_ssize_t first_valid(self) noexcept:
        """The first row that is not null, -1 where there is none."""
        cdef uint32_t row = 0
        if self.nulls == self.rows:
            return -1
        if self.nulls:
            snapdb_ids(self.valid_bits, mask_size(self.rows) >> 3, 0, 1, &row)
        return row


# -- writing ---------------------------------------------------------------

cdef Chunk new_chunk(Source source, int codec, int width, Py_ssize_t count, int64_t base, int64_t step,
                     Py_ssize_t values, Py_ssize_t offsets, Py_ssize_t heap):
    """A chunk with its header, nulls and padding written and its sections, of the given lengths, still to be filled."""
    cdef Py_ssize_t lengths[4]
    cdef Py_ssize_t at = HEADER
    cdef int i
    cdef bint bitmap = 0 < source.nulls < source.rows
    cdef Header head
    cdef Chunk made = Chunk.__new__(Chunk)
    cdef Memory memory
    lengths[0] = mask_size(source.rows) if bitmap else 0
    lengths[1], lengths[2], lengths[3] = values, offsets, heap
    memset(&head, 0, sizeof(head))
    head.codec, head.code, head.width = codec, source.code, width
    head.packed = container_of(width) if width else 0
    head.rows, head.nulls, head.count = source.rows, source.nulls, count
    head.base, head.step = base, step
    for i in range(4):
        if lengths[i]:
            head.places[i] = at
            at = aligned(at + lengths[i])
    head.total = at
    memory = uncleared(at)
    memcpy(memory.ptr, &head, sizeof(head))
    for i in range(4):
        if lengths[i]:
            memset(memory.ptr + head.places[i] + lengths[i], 0, aligned(lengths[i]) - lengths[i])
    made.owner = memory
    made.base_ptr = <const uint8_t*>memory.ptr
    made.total = at
    if bitmap:
        memcpy(memory.ptr + head.places[0], source.null_bits, lengths[0])
    # offsets are not written yet: open_sealed would read their last one
    set_type(made, source.code)
    made.codec, made.width, made.container = codec, width, head.packed
    made.rows, made.null_count, made.distinct = source.rows, source.nulls, count
    made.base, made.step, made.sealed, made.offset_width = base, step, True, 4
    made.blocks = made.rows / BLOCK
    made.null_bits = made.base_ptr + head.places[0] if bitmap else NULL
    made.values = made.base_ptr + head.places[1] if values else NULL
    made.offsets = made.base_ptr + head.places[2] if offsets else NULL
    made.heap = made.base_ptr + head.places[3]
    made.heap_size = heap
    settle(made)
    return made


cdef void pack_offsets(const uint8_t* values, int item, uint64_t base, Py_ssize_t blocks, int width, uint8_t* out) noexcept nogil:
    cdef uint64_t narrow[BLOCK]
    cdef Py_ssize_t block
    cdef int T = container_of(width), source = table_of(8 * item), target = table_of(T)
    for block in range(blocks):
        if width == T:
            snapdb_kernels.convert[source][target](values + block * BLOCK * item, 0 - base, out + block * 128 * width)
        else:
            snapdb_kernels.convert[source][target](values + block * BLOCK * item, 0 - base, narrow)
            snapdb_kernels.pack(narrow, width, T, out + block * 128 * width)


# -- the choice ------------------------------------------------------------

cdef tuple seal_source(Source source, int prefer):
    cdef object total
    if source.item == 0:
        return seal_strings(source, prefer)
    if source.nulls == source.rows:
        total = 0.0 if source.is_float else 0
        return new_chunk(source, CONST, 0, 0, 0, 0, 0, 0, 0), _Zone(None, None, True, source.nulls, 0, total)
    if source.is_float:
        return seal_floats(source, prefer)
    if source.code == BOOL:
        return seal_bools(source)
    return seal_ints(source, prefer)


cdef tuple seal_bools(Source source):
    cdef Chunk made
    cdef uint8_t* bits
    cdef const uint8_t* values
    cdef Py_ssize_t block, first = source.first_valid()
    cdef uint64_t low, high
    values = source.filled(source.values[first])
    snapdb_kernels.minmax[0][0](values, source.rows, &low, &high)
    if low == high:
        made = new_chunk(source, CONST, 0, 0, low, 0, 0, 0, 0)
    else:
        values = source.filled(0)
        made = new_chunk(source, BITMAP, 0, 0, 0, 0, mask_size(source.rows), 0, 0)
        bits = <uint8_t*>made.values
        for block in range(made.blocks):
            snapdb_kernels.range[0](values + block * BLOCK, 1, 0xFE, bits + block * (BLOCK >> 3))
    return made, _Zone(<int>low, <int>high, True, source.nulls, 0, sum_ints(made, NULL))


cdef tuple seal_ints(Source source, int prefer):
    cdef uint64_t low, high, first_word
    cdef Py_ssize_t first = source.first_valid(), n = source.rows
    cdef int table = table_of(8 * source.item)
    cdef const uint8_t* values
    cdef Chunk made = None
    first_word = item_at(source.values, source.item, first)
    values = source.filled(first_word)
    with nogil:
        snapdb_kernels.minmax[source.is_signed][table](values, n, &low, &high)
    lo, hi = int_of(source.code, low), int_of(source.code, high)
    if low == high:
        made = new_chunk(source, CONST, 0, 0, low, 0, 0, 0, 0)
    elif source.nulls == 0 and n >= 3:
        made = seal_affine(source)
    if made is None:
        made = best_ints(source, prefer, low, high)
    return made, _Zone(lo, hi, True, source.nulls, 0, sum_ints(made, NULL))


cdef Chunk seal_affine(Source source):
    """AFFINE where every difference is the same exact step, else None."""
    cdef Py_ssize_t n = source.rows
    cdef int table = table_of(8 * source.item)
    cdef bint steady
    first = int_of(source.code, item_at(source.values, source.item, 0))
    last = int_of(source.code, item_at(source.values, source.item, n - 1))
    step = int_of(source.code, item_at(source.values, source.item, 1)) - first
    # the ends fit the step exactly, so no difference in between can have wrapped
    if not _MIN64 <= step <= _MAX64 or last - first != step * (n - 1):
        return None
    cdef uint64_t word = word_of(step)
    with nogil:
        steady = snapdb_kernels.steady[table](source.values, n, word)
    if not steady:
        return None
    return new_chunk(source, AFFINE, 0, 0, <int64_t>word_of(first), <int64_t>word, 0, 0, 0)


cdef tuple seal_floats(Source source, int prefer):
    cdef uint64_t first_word
    cdef Py_ssize_t first = source.first_valid(), n = source.rows
    cdef int table = table_of(8 * source.item)
    cdef const uint8_t* values
    cdef Chunk made = None
    cdef FloatBounds found
    first_word = item_at(source.values, source.item, first)
    values = source.filled(first_word)
    if snapdb_kernels.steady[table](values, n, 0):
        made = new_chunk(source, CONST, 0, 0, <int64_t>first_word, 0, 0, 0, 0)
    else:
        made = best_floats(source, prefer)
    with nogil:
        found = scan_floats(made, NULL)
    lo, hi = bounds_of_floats(source.code, found)
    return made, _Zone(lo, hi, True, source.nulls, found.nans, sum_floats(made, NULL, 0.0))


cdef Chunk best_floats(Source source, int prefer):
    """RAW, DEC or DICT."""
    cdef Chunk made = None, decimal = None
    cdef int64_t best = source.rows * source.item, cost = 0
    cdef const uint8_t* values
    if prefer == DICT:
        made = seal_dictionary(source, prefer, 0)
        if made is not None:
            return made
    decimal = seal_decimals(source, best, &cost)
    if decimal is not None:
        best = cost
    if prefer != DICT:
        made = seal_dictionary(source, prefer, best)
        if made is not None:
            return made
    if decimal is not None:
        return decimal
    values = source.filled(0)
    made = new_chunk(source, RAW, 0, 0, 0, 0, best, 0, 0)
    memcpy(<void*>made.values, values, best)
    return made


cdef bint sample_repeats(Source source) except -1:
    """Whether 256 values spread over the rows have at most 128 distinct ones, null counting as 0."""
    cdef SnapdbGroups groups
    cdef uint64_t keys[256]
    cdef uint32_t codes[256]
    cdef Py_ssize_t i, row
    cdef int status
    for i in range(256):
        row = i * source.rows / 256
        keys[i] = item_at(source.values, source.item, row)
        if source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1:
            keys[i] = 0
    if snapdb_groups_start(&groups, 0, 0, 128):
        raise MemoryError()
    status = snapdb_group_keys(&groups, keys, NULL, NULL, 0, 256, codes)
    snapdb_groups_free(&groups)
    if status < 0:
        raise MemoryError()
    return status == 0


cdef int number_rows(Source source, SnapdbGroups* groups, uint32_t* codes) noexcept nogil:
    """Number the distinct non-null values; 0, -1 without memory, 1 where there are more than the limit."""
    cdef uint64_t keys[BLOCK]
    cdef Py_ssize_t at = 0, n
    cdef int status
    cdef const uint64_t* valid
    cdef uint64_t padded[BLOCK]
    cdef const void* values
    while at < source.rows:
        n = min(source.rows - at, <Py_ssize_t>BLOCK)
        valid = <const uint64_t*>(source.valid_bits + (at >> 3)) if source.nulls else NULL
        if source.item:
            values = source.values + at * source.item
            if n < BLOCK:
                memset(padded, 0, sizeof(padded))
                memcpy(padded, values, n * source.item)
                values = padded
            snapdb_hash_keys(values, source.item, source.is_float, 1, keys)
            status = snapdb_group_keys(groups, keys, valid, NULL, <uint32_t>at, n, codes + at)
        else:
            status = snapdb_group_strings(groups, <const uint8_t*>(source.offsets + at), 8, source.heap, valid, NULL,
                                          <uint32_t>at, n, codes + at)
        if status:
            return status
        at += n
    return 0


cdef Chunk seal_dictionary(Source source, int prefer, int64_t best):
    """DICT of a fixed-width column where it is allowed and pays against ``best`` bytes, else None."""
    cdef SnapdbGroups groups
    cdef Py_ssize_t n = source.rows
    cdef Memory codes
    cdef uint32_t* out
    cdef int status
    cdef bint hinted = prefer == DICT
    if not hinted and not sample_repeats(source):
        return None
    codes = uncleared(n * 4)
    out = <uint32_t*>codes.ptr
    if snapdb_groups_start(&groups, 0, 0, min(<Py_ssize_t>MOST_ENTRIES, n / 2 if hinted else n / 4)):
        raise MemoryError()
    try:
        with nogil:
            status = number_rows(source, &groups, out)
        if status < 0:
            raise MemoryError()
        if status:
            return None
        return write_dictionary(source, hinted, best, &groups, out)
    finally:
        snapdb_groups_free(&groups)


cdef Chunk write_dictionary(Source source, bint hinted, int64_t best, SnapdbGroups* groups, const uint32_t* codes):
    cdef Py_ssize_t count = groups.groups, i, n = source.rows
    cdef int status
    cdef Plan plan
    cdef Header head
    cdef Memory keys, order, rank, ranks, memory
    cdef uint64_t* key
    cdef uint8_t* heap
    if not hinted and count * source.item * 10 > best * 9:
        return None
    keys, order, rank, ranks = uncleared(count * 8), uncleared(count * 4), uncleared(count * 4), uncleared(n * 8)
    key = <uint64_t*>keys.ptr
    for i in range(count):
        key[i] = key_of(source.item, source.is_signed, source.is_float, item_at(source.values, source.item, groups.first[i]))
    with nogil:
        status = snapdb_rank_keys(key, <uint32_t>count, <uint32_t*>order.ptr, <uint32_t*>rank.ptr)
        if status == 0:
            rank_rows(codes, <const uint32_t*>rank.ptr, n, <uint64_t*>ranks.ptr)
            plan_stream(<uint64_t*>ranks.ptr, source.valid_bits if source.nulls else NULL, n, count - 1, &plan)
    if status:
        raise MemoryError()
    if not hinted and (count * source.item + plan.cost) * 10 > best * 9:
        return None
    memset(&head, 0, sizeof(head))
    head.count = count
    memory = assemble(source, DICT, &plan, &head, 0, count * source.item, 0)
    heap = <uint8_t*>memory.ptr + head.places[3]
    for i in range(count):
        memcpy(heap + i * source.item, source.values + <Py_ssize_t>groups.first[(<uint32_t*>order.ptr)[i]] * source.item,
               source.item)
    with nogil:
        write_stream(&plan, <uint64_t*>ranks.ptr, source.valid_bits if source.nulls else NULL, n, <uint8_t*>memory.ptr, &head)
    return finished(memory, &head)


# -- strings ---------------------------------------------------------------

cdef bint all_alike(Source source, Py_ssize_t first) noexcept nogil:
    """Whether every non-null string equals the first."""
    cdef const uint64_t* ends = source.offsets
    cdef const uint8_t* wanted = source.heap + ends[first]
    cdef uint64_t size = ends[first + 1] - ends[first]
    cdef Py_ssize_t row
    for row in range(first + 1, source.rows):
        if source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1:
            continue
        if ends[row + 1] - ends[row] != size or memcmp(source.heap + ends[row], wanted, size):
            return False
    return True


cdef Chunk seal_constant_string(Source source, Py_ssize_t first):
    cdef Py_ssize_t size = source.offsets[first + 1] - source.offsets[first]
    if size > _MAX_HEAP:
        raise too_large(size)
    cdef Chunk made = new_chunk(source, CONST, 0, 0, size, 0, 0, 0, size)
    memcpy(<void*>made.heap, source.heap + source.offsets[first], size)
    return made


cdef object too_large(size):
    return ValueError(f"the strings of one segment take {size} bytes; the limit is {_MAX_HEAP}: use smaller batches")


cdef tuple seal_strings(Source source, int prefer):
    cdef Py_ssize_t first = source.first_valid()
    cdef bint alike
    cdef Chunk made = None
    if first < 0:
        return new_chunk(source, CONST, 0, 0, 0, 0, 0, 0, 0), _Zone(None, None, True, source.nulls, 0, None)
    with nogil:
        alike = all_alike(source, first)
    if alike:
        made = seal_constant_string(source, first)
    else:
        made = seal_string_dictionary(source, prefer)
    if made is None:
        made = seal_raw_strings(source)
    lo, hi = string_bounds(made, NULL) if made.codec == RAW else word_bounds(made, NULL)
    low, high = cut_low(lo), cut_high(hi)
    return made, _Zone(low, high, low == lo and high == hi, source.nulls, 0, None)


cdef object cut_low(bytes value):
    return value[:PREFIX]


cdef object cut_high(bytes value):
    """A prefix rounded up, None where every byte of it is 0xFF."""
    cdef bytes cut
    cdef Py_ssize_t last
    if len(value) <= PREFIX:
        return value
    cut = value[:PREFIX].rstrip(b"\xff")
    last = len(cut) - 1
    return cut[:last] + bytes((cut[last] + 1,)) if cut else None


cdef Chunk seal_raw_strings(Source source):
    cdef Py_ssize_t n = source.rows, row
    cdef const uint64_t* ends = source.offsets
    cdef uint64_t start = ends[0], size = ends[n] - ends[0]
    cdef uint32_t* offsets
    cdef Chunk made
    if size > _MAX_HEAP:
        raise too_large(size)
    made = new_chunk(source, RAW, 0, 0, 0, 0, 0, 4 * (n + 1), size)
    offsets = <uint32_t*>made.offsets
    with nogil:
        for row in range(n + 1):
            offsets[row] = <uint32_t>(ends[row] - start)
        memcpy(<void*>made.heap, source.heap + start, size)
    return made


cdef Chunk seal_string_dictionary(Source source, int prefer):
    """DICT where the distinct strings are few and it pays (or is hinted), else None."""
    cdef SnapdbGroups groups
    cdef Py_ssize_t n = source.rows
    cdef Memory codes = uncleared(n * 4)
    cdef uint32_t* out = <uint32_t*>codes.ptr
    cdef int status
    if snapdb_groups_start(&groups, 0, 1, min(<Py_ssize_t>MOST_ENTRIES, n / 2)):
        raise MemoryError()
    try:
        with nogil:
            status = number_rows(source, &groups, out)
        if status < 0:
            raise MemoryError()
        if status:
            return None
        return write_string_dictionary(source, prefer == DICT, &groups, out)
    finally:
        snapdb_groups_free(&groups)


cdef Chunk write_string_dictionary(Source source, bint hinted, SnapdbGroups* groups, const uint32_t* codes):
    cdef Py_ssize_t count = groups.groups, n = source.rows, i, whole = 0, heap, starts, front, raw
    cdef int status
    cdef Memory order, rank, ranks, memory
    cdef Plan plan
    cdef Header head
    cdef uint32_t* offsets
    cdef uint8_t* out
    cdef SnapdbEntry* entry
    for i in range(count):
        whole += groups.entries[i].size
    raw = 4 * (n + 1) + <Py_ssize_t>(source.offsets[n] - source.offsets[0])
    order, rank, ranks = uncleared(count * 4), uncleared(count * 4), uncleared(n * 8)
    memset(&head, 0, sizeof(head))
    with nogil:
        status = snapdb_rank_strings(groups.entries, <uint32_t>count, <uint32_t*>order.ptr, <uint32_t*>rank.ptr)
        if status == 0:
            rank_rows(codes, <const uint32_t*>rank.ptr, n, <uint64_t*>ranks.ptr)
            plan_stream(<uint64_t*>ranks.ptr, source.valid_bits if source.nulls else NULL, n, count - 1, &plan)
            front = front_code(groups.entries, <uint32_t*>order.ptr, count, NULL, NULL)
    if status:
        raise MemoryError()
    heap, starts = whole, 4 * (count + 1)
    if 10 * (4 * ((count + RESTART - 1) / RESTART + 1) + front) <= 9 * (starts + heap):
        heap, starts = front, 4 * ((count + RESTART - 1) / RESTART + 1)
        head.flags = FRONT
    if not hinted and (starts + heap + plan.cost) * 100 > raw * 83:
        return None
    if whole > _MAX_HEAP:
        raise too_large(whole)
    head.count = count
    memory = assemble(source, DICT, &plan, &head, starts, heap, 0)
    offsets = <uint32_t*>(<uint8_t*>memory.ptr + head.places[2])
    out = <uint8_t*>memory.ptr + head.places[3]
    with nogil:
        write_stream(&plan, <uint64_t*>ranks.ptr, source.valid_bits if source.nulls else NULL, n, <uint8_t*>memory.ptr, &head)
        if head.flags == FRONT:
            front_code(groups.entries, <uint32_t*>order.ptr, count, offsets, out)
        else:
            heap = offsets[0] = 0
            for i in range(count):
                entry = &groups.entries[(<uint32_t*>order.ptr)[i]]
                memcpy(out + heap, entry.ptr, entry.size)
                heap += entry.size
                offsets[i + 1] = <uint32_t>heap
    return finished(memory, &head)


# -- distinct --------------------------------------------------------------

cdef object distinct_rows(ColumnBuffer buffer, Py_ssize_t limit):
    cdef Source source = Source.__new__(Source)
    cdef SnapdbGroups groups
    cdef Memory codes
    cdef uint32_t* out
    cdef int status
    source.read(buffer, 0, buffer.rows)
    limit = max(min(limit, <Py_ssize_t>NONE - 2), -1)
    if limit < 0:
        return 0
    codes = uncleared(source.rows * 4)
    out = <uint32_t*>codes.ptr
    if snapdb_groups_start(&groups, 0, source.item == 0, <uint32_t>limit):
        raise MemoryError()
    try:
        with nogil:
            status = number_rows(source, &groups, out)
        if status < 0:
            raise MemoryError()
        return <Py_ssize_t>groups.groups + (1 if status else 0)
    finally:
        snapdb_groups_free(&groups)
