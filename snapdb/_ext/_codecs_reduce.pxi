# Sums, bounds and groups.

# -- sums ------------------------------------------------------------------

cdef Py_ssize_t count_rows(Chunk self, const uint8_t* mask) noexcept nogil:
    """Selected non-null rows."""
    cdef Scratch s
    cdef Py_ssize_t block, found = 0
    for block in range(self.blocks):
        found += live_words(self, mask, block, &s)
    return found


cdef Py_ssize_t count_true(Chunk self, const uint8_t* mask) noexcept nogil:
    """Selected non-null rows of a BITMAP that are true."""
    cdef Scratch s
    cdef Py_ssize_t block, found = 0
    for block in range(self.blocks):
        if live_words(self, mask, block, &s):
            snapdb_kernels.and_words(<uint8_t*>s.words, self.values + block * (BLOCK >> 3), WORDS)
            found += snapdb_kernels.popcount(s.words, WORDS)
    return found


cdef inline const void* keep_live(Scratch* s, int table, const void* values, uint64_t fill) noexcept nogil:
    """The values of the rows in ``s.words``, ``fill`` elsewhere."""
    snapdb_kernels.expand(s.words, s.bytes)
    snapdb_kernels.blend[table](values, s.bytes, fill, s.blended)
    return s.blended


cdef inline void add_packed(Chunk self, Py_ssize_t block, int64_t* lo, int64_t* hi) noexcept nogil:
    """Add the codes of a whole block of FOR, summed as they are packed."""
    cdef uint64_t total = snapdb_kernels.sum_packed(self.values + block * 128 * self.width, self.width, self.container)
    lo[0] += <int64_t>(total & <uint64_t>0xFFFFFFFF)
    hi[0] += <int64_t>(total >> 32)


cdef Py_ssize_t add_words(Chunk self, const uint8_t* mask, int64_t* lo, int64_t* hi) noexcept nogil:
    """Add the selected containers (FOR) or stored values to lo + hi * 2**32; how many there were."""
    cdef Scratch s
    cdef bint packed = self.codec == FOR
    cdef int table = table_of(self.container if packed else 8 * self.item), live
    cdef int sign = 0 if packed else self.is_signed
    cdef Py_ssize_t block, full = 0, found = 0
    cdef bint fused = packed and self.layout == PACKED and self.width < self.container and (
        self.width + 3 + table <= self.container and self.width <= 54)
    cdef const void* at
    if packed and self.layout == RUNS and mask == NULL and self.null_count == 0:
        add_runs(self, lo, hi)
        return self.rows
    if fused and mask == NULL and self.null_count == 0:
        full = self.rows // BLOCK
        for block in range(full):
            add_packed(self, block, lo, hi)
        found = full * BLOCK
    for block in range(full, self.blocks):
        live = live_words(self, mask, block, &s)
        if live == 0:
            continue
        found += live
        if fused and live == BLOCK:
            add_packed(self, block, lo, hi)
            continue
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        if live < BLOCK:
            at = keep_live(&s, table, at, 0)
        snapdb_kernels.sum[sign][table](at, lo, hi)
    return found


cdef void add_runs(Chunk self, int64_t* lo, int64_t* hi) noexcept nogil:
    """Add every row's code of RUNS to lo + hi * 2**32."""
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self)
    cdef Py_ssize_t i, start = 0, size
    cdef uint64_t code
    for i in range(self.marks):
        size = rows[i] + 1 - start
        code = item_at(self.run_codes, self.container >> 3, i)
        lo[0] += size * <int64_t>(code & <uint64_t>0xFFFFFFFF)
        hi[0] += size * <int64_t>(code >> 32)
        start = rows[i] + 1


cdef inline object whole(int64_t lo, int64_t hi):
    return <object>lo + (<object>hi << 32) if hi else lo


cdef object sum_ints(Chunk self, const uint8_t* mask):
    cdef int64_t lo = 0, hi = 0
    cdef Py_ssize_t found
    if self.codec == CONST:
        with nogil:
            found = count_rows(self, mask)
        return base_int(self) * found if found else 0
    if self.codec == BITMAP:
        with nogil:
            found = count_true(self, mask)
        return found
    if self.codec == AFFINE and mask == NULL:
        return self.rows * base_int(self) + self.rows * (self.rows - 1) // 2 * <object>self.step
    with nogil:
        found = add_words(self, mask, &lo, &hi)
    total = whole(lo, hi)
    return total * <object>self.scale + base_int(self) * found if self.codec == FOR else total


cdef inline double sum_rows(bint narrow, const void* at, Py_ssize_t rows, double total) noexcept nogil:
    """The sum of stored floats from a block's first on, after ``total``."""
    return snapdb_kernels.sum_f32(at, rows, total) if narrow else snapdb_kernels.sum_f64(at, rows, total)


cdef double add_floats(Chunk self, const uint8_t* mask, double total) noexcept nogil:
    cdef Scratch s
    cdef bint narrow = self.code == F32
    cdef int live
    cdef Py_ssize_t block
    cdef const void* at
    if self.codec == RAW and mask == NULL and self.null_count == 0:
        return sum_rows(narrow, self.values, self.rows, total)
    for block in range(self.blocks):
        live = live_words(self, mask, block, &s)
        if live == 0:
            continue
        at = load_native(self, block, &s)
        if live == BLOCK:
            total = sum_rows(narrow, at, BLOCK, total)
        else:
            total += snapdb_kernels.sum_f32_where(at, s.words) if narrow else snapdb_kernels.sum_f64_where(at, s.words)
    return total


cdef object sum_floats(Chunk self, const uint8_t* mask, start):
    cdef double total = start
    with nogil:
        total = add_floats(self, mask, total)
    return _NAN if isnan(total) else total


# -- bounds ----------------------------------------------------------------

cdef inline int first_bit(const uint64_t* words) noexcept nogil:
    """The first set bit of a block, one of which is set."""
    cdef uint32_t row = 0
    snapdb_ids(<const uint8_t*>words, WORDS, 0, 1, &row)
    return <int>row


cdef Py_ssize_t least_and_greatest(Chunk self, const uint8_t* mask, bint packed, uint64_t* least, uint64_t* greatest) noexcept nogil:
    """Bounds of the selected containers (packed) or stored integers, as 64-bit words; how many rows there were."""
    cdef Scratch s
    cdef int bits = self.container if packed else 8 * self.item
    cdef int table = table_of(bits), live, sign = 0 if packed else self.is_signed
    cdef uint64_t low, high, fold = <uint64_t>1 << 63 if sign else 0
    cdef Py_ssize_t block, found = 0
    cdef const void* at
    for block in range(self.blocks):
        live = live_words(self, mask, block, &s)
        if live == 0:
            continue
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        if live < BLOCK:
            at = keep_live(&s, table, at, item_at(<const uint8_t*>at, bits >> 3, first_bit(s.words)))
        snapdb_kernels.minmax[sign][table](at, BLOCK, &low, &high)
        if found == 0 or (low ^ fold) < (least[0] ^ fold):
            least[0] = low
        if found == 0 or (high ^ fold) > (greatest[0] ^ fold):
            greatest[0] = high
        found += live
    return found


cdef object word_bounds(Chunk self, const uint8_t* mask):
    """Integers of every codec, and strings of DICT and CONST."""
    cdef uint64_t low = 0, high = 0
    cdef Py_ssize_t found
    cdef bint packed = self.codec == FOR or self.codec == DICT
    if self.codec == CONST:
        with nogil:
            found = count_rows(self, mask)
        if found == 0:
            return None
        value = constant_bytes(self) if self.is_string else base_int(self)
        return value, value
    with nogil:
        found = least_and_greatest(self, mask, packed, &low, &high)
    if found == 0:
        return None
    if self.codec == FOR:
        base, step = base_int(self), <object>self.scale
        return base + step * low, base + step * high
    if self.codec == DICT and self.is_string:
        return entry_bytes(self, low), entry_bytes(self, high)
    if self.codec == DICT:
        return entry_int(self, low), entry_int(self, high)
    return int_of(self.code, low), int_of(self.code, high)


cdef struct FloatBounds:
    int64_t low, high       # sign-folded bits
    Py_ssize_t rows, nans   # selected rows, and how many of them are NaN


cdef FloatBounds scan_floats(Chunk self, const uint8_t* mask) noexcept nogil:
    cdef Scratch s
    cdef bint narrow = self.code == F32
    cdef int live
    cdef int64_t low, high
    cdef uint64_t nans
    cdef FloatBounds found
    cdef Py_ssize_t block
    cdef const void* at
    found.low, found.high, found.rows, found.nans = INT64_MAX, INT64_MIN, 0, 0
    for block in range(self.blocks):
        live = live_words(self, mask, block, &s)
        if live == 0:
            continue
        at = load_native(self, block, &s)
        if live < BLOCK:  # a NaN is skipped
            at = keep_live(&s, 2 if narrow else 3, at, <uint64_t>0x7FC00000 if narrow else <uint64_t>0x7FF8000000000000)
        if narrow:
            snapdb_kernels.minmax_f32(at, BLOCK, &low, &high, &nans)
        else:
            snapdb_kernels.minmax_f64(at, BLOCK, &low, &high, &nans)
        nans -= BLOCK - live
        found.rows += live
        found.nans += nans
        if <uint64_t>live > nans:
            found.low = min(found.low, low)
            found.high = max(found.high, high)
    return found


cdef double unfolded(int code, int64_t key) noexcept nogil:
    """The float of sign-folded bits."""
    cdef int64_t bits = key
    if key < 0:
        bits = key ^ (<int64_t>0x7FFFFFFF if code == F32 else INT64_MAX)
    return float_of(code, <uint64_t>bits)


cdef object float_bounds(Chunk self, const uint8_t* mask):
    cdef FloatBounds found
    with nogil:
        found = scan_floats(self, mask)
    return bounds_of_floats(self.code, found)


cdef object bounds_of_floats(int code, FloatBounds found):
    if found.rows == 0:
        return None
    if found.rows == found.nans:
        return _NAN, _NAN
    return unfolded(code, found.low), unfolded(code, found.high)


cdef Py_ssize_t extreme_strings(Chunk self, const uint8_t* mask, Py_ssize_t* low, Py_ssize_t* high) noexcept nogil:
    """Rows of the least and the greatest selected string of RAW; how many rows there were."""
    cdef Scratch s
    cdef Py_ssize_t block, i, row, found = 0, live
    cdef Text text, least, greatest
    least.ptr = greatest.ptr = NULL
    least.size = greatest.size = 0
    for block in range(self.blocks):
        live = live_words(self, mask, block, &s)
        if live == 0:
            continue
        for i in range(block_rows(self, block)):
            if not s.words[i >> 6] >> (i & 63) & 1:
                continue
            row = block * BLOCK + i
            text = text_at(self, row)
            if found == 0:
                least = greatest = text
                low[0] = high[0] = row
            elif snapdb_compare(text.ptr, text.size, least.ptr, least.size) < 0:
                least = text
                low[0] = row
            elif snapdb_compare(text.ptr, text.size, greatest.ptr, greatest.size) > 0:
                greatest = text
                high[0] = row
            found += 1
    return found


cdef object string_bounds(Chunk self, const uint8_t* mask):
    cdef Py_ssize_t low = 0, high = 0, found
    with nogil:
        found = extreme_strings(self, mask, &low, &high)
    if found == 0:
        return None
    return row_bytes(self, low), row_bytes(self, high)


cdef bytes row_bytes(Chunk self, Py_ssize_t row):
    cdef Text text = text_at(self, row)
    return PyBytes_FromStringAndSize(text.ptr, text.size)


# -- groups ----------------------------------------------------------------

cdef Py_ssize_t direct_codes(Chunk self) noexcept:
    """How many codes a table of groups needs; 0 where values are hashed."""
    if self.codec == DICT:
        return self.distinct
    if self.codec == CONST:
        return 1
    if self.codec == BITMAP:
        return 2
    if self.codec == FOR and self.container <= 16:
        return <Py_ssize_t>self.top + 1
    if self.codec == RAW and 0 < self.item <= 2:
        return <Py_ssize_t>1 << (8 * self.item)
    return 0


cdef int group_rows(Chunk self, const uint8_t* mask, SnapdbGroups* groups, bint direct, uint32_t* out) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block, n
    cdef uint32_t row
    cdef int status = 0
    cdef bint packed = self.codec == DICT or self.codec == FOR
    cdef const void* at
    cdef const uint64_t* nulls
    memset(s.slots, 0, sizeof(s.slots))
    for block in range(self.blocks):
        n = block_rows(self, block)
        row = <uint32_t>(block * BLOCK)
        selected_words(self, mask, block, s.words)
        nulls = null_words(self, block, s.nulls)
        if self.is_string and not direct:
            status = snapdb_group_strings(groups, self.offsets + row * <size_t>self.offset_width, self.offset_width, self.heap,
                                          s.words, nulls, row, n, out + row)
        elif direct:
            if packed:
                at = load_packed(self, block, &s)
                snapdb_kernels.convert[table_of(self.container)][2](at, 0, s.slots)
            elif self.codec != CONST:
                at = load_native(self, block, &s)
                snapdb_kernels.convert[table_of(8 * self.item)][2](at, 0, s.slots)
            status = snapdb_group_direct(groups, s.slots, s.words, nulls, row, n, out + row)
        else:
            at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
            snapdb_hash_keys(at, self.container >> 3 if packed else self.item, self.is_float, 0, s.blended)
            status = snapdb_group_keys(groups, s.blended, s.words, nulls, row, n, out + row)
        if status:
            return status
    return 0


cdef bytes float_kinds(Chunk self):
    """Which entries of a dictionary of floats are zeros (1) or NaNs (2): each of the two kinds is one group."""
    cdef bytearray kinds = bytearray(self.distinct)
    cdef Py_ssize_t code
    cdef double value
    for code in range(self.distinct):
        value = float_of(self.code, entry_word(self, code))
        if value == 0:
            kinds[code] = 1
        elif isnan(value):
            kinds[code] = 2
    return bytes(kinds)


cdef Memory first_rows(const SnapdbGroups* groups):
    cdef Memory first = uncleared(<Py_ssize_t>groups.groups * 4)
    memcpy(first.ptr, groups.first, <size_t>groups.groups * 4)
    return first


cdef tuple group_chunk(Chunk self, const uint8_t* mask):
    cdef SnapdbGroups groups
    cdef Memory codes, first
    cdef uint32_t* out
    cdef int status
    cdef Py_ssize_t table = direct_codes(self)
    cdef bint direct = table != 0
    cdef bytes kinds
    if self.rows >= <Py_ssize_t>NONE:
        raise ValueError(f"{self.rows} rows are too many to group")
    codes = uncleared(self.rows * 4)
    out = <uint32_t*>codes.ptr
    if snapdb_groups_start(&groups, table, self.is_string and not direct, NONE):
        raise MemoryError()
    try:
        if self.codec == DICT and self.is_float:
            kinds = float_kinds(self)
            groups.kinds = <const uint8_t*>PyBytes_AS_STRING(kinds)
            groups.codes = self.distinct
        with nogil:
            status = group_rows(self, mask, &groups, direct, out)
        if status:
            raise MemoryError()
        first = first_rows(&groups)
    finally:
        snapdb_groups_free(&groups)
    return u32_view(codes, self.rows), u32_view(first, groups.groups)


cdef int take_codes(Chunk self, object codes, Py_ssize_t groups, Py_buffer* held) except -1:
    """Hold group codes, one a row; the caller releases them."""
    if not 0 <= groups < <Py_ssize_t>NONE:
        raise ValueError(f"{groups} groups are out of range")
    take_u32(codes, held)
    cdef Py_ssize_t count = held.len >> 2
    if count != self.rows:
        PyBuffer_Release(held)
        raise ValueError(f"{self.rows} rows need as many group codes, got {count}")
    return 0


cdef int live_slots(Chunk self, const uint32_t* codes, Py_ssize_t groups, Py_ssize_t block, Scratch* s) noexcept nogil:
    """A block's slots: a row's group, or ``groups`` for a row that is null or not selected. Whether every code fits."""
    cdef Py_ssize_t n = block_rows(self, block), i
    live_words(self, NULL, block, s)
    snapdb_kernels.expand(s.words, s.bytes)
    return snapdb_kernels.slots(codes + block * BLOCK, s.bytes, n, <uint32_t>groups, s.slots)


cdef int bad_codes(Py_ssize_t groups) except -1:
    raise ValueError(f"a group code is outside 0..{groups}")


cdef int tally(Chunk self, const uint32_t* codes, Py_ssize_t groups, uint32_t* counts) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        if not live_slots(self, codes, groups, block, &s):
            return 0
        snapdb_count_slots(s.slots, block_rows(self, block), counts)
    return 1


cdef list count_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    cdef Memory memory = allocate((groups + 1) * 16)
    cdef uint32_t* counts = <uint32_t*>memory.ptr
    cdef list found = []
    cdef Py_ssize_t g
    cdef int fits
    with nogil:
        fits = tally(self, codes, groups, counts)
    if not fits:
        bad_codes(groups)
    for g in range(0, 4 * groups, 4):
        found.append(<Py_ssize_t>counts[g] + counts[g + 1] + counts[g + 2] + counts[g + 3])
    return found


cdef int add_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups, int64_t* lo, int64_t* hi, uint32_t* counts) noexcept nogil:
    """Per slot: the sum of stored values, or of 64-bit containers (FOR, with counts)."""
    cdef Scratch s
    cdef Py_ssize_t block, n
    cdef bint packed = self.codec == FOR
    cdef const void* at
    for block in range(self.blocks):
        n = block_rows(self, block)
        if not live_slots(self, codes, groups, block, &s):
            return 0
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        snapdb_sum_slots(s.slots, n, at, self.container if packed else 8 * self.item, 0 if packed else self.is_signed, lo, hi)
        if packed:
            snapdb_count_slots(s.slots, n, counts)
    return 1


cdef list sum_int_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    if self.codec == FOR and self.container < 64:
        return sum_offset_groups(self, codes, groups)
    cdef Py_ssize_t slots = 4 * (groups + 1), g
    cdef bint packed = self.codec == FOR, halves = packed or self.item == 8
    cdef Memory low = allocate(slots * 8), high = allocate(slots * 8 if halves else 0), tallies = allocate(slots * 4 if packed else 0)
    cdef int64_t* lo = <int64_t*>low.ptr
    cdef int64_t* hi = <int64_t*>high.ptr
    cdef uint32_t* counts = <uint32_t*>tallies.ptr
    cdef list found = []
    cdef int fits
    base = None
    with nogil:
        fits = add_groups(self, codes, groups, lo, hi, counts)
        for g in range(0, slots, 4):
            lo[g] += lo[g + 1] + lo[g + 2] + lo[g + 3]
            if halves:
                hi[g] += hi[g + 1] + hi[g + 2] + hi[g + 3]
            if packed:
                counts[g] += counts[g + 1] + counts[g + 2] + counts[g + 3]
    if not fits:
        bad_codes(groups)
    if packed:
        base = base_int(self)
    for g in range(0, 4 * groups, 4):
        if packed:
            found.append(whole(lo[g], hi[g]) * <object>self.scale + base * counts[g])
        elif halves:
            found.append(whole(lo[g], hi[g]))
        else:
            found.append(lo[g])
    return found


cdef int add_offset_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups, uint64_t* both) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        if not live_slots(self, codes, groups, block, &s):
            return 0
        snapdb_offset_slots(s.slots, BLOCK, load_packed(self, block, &s), self.container, both)
    return 1


cdef list sum_offset_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    """FOR of at most 32 bits: one pass adds up offsets (below 2**48 a quarter) and counts rows (above)."""
    cdef Memory memory = allocate((groups + 1) * 32)
    cdef uint64_t* both = <uint64_t*>memory.ptr
    cdef uint64_t low = (<uint64_t>1 << 48) - 1
    cdef int64_t total
    cdef Py_ssize_t g, i, rows
    cdef int fits
    cdef list sums = []
    with nogil:
        fits = add_offset_groups(self, codes, groups, both)
    if not fits:
        bad_codes(groups)
    base = base_int(self)
    for g in range(groups):
        total = rows = 0
        for i in range(4):
            total += <int64_t>(both[4 * g + i] & low)
            rows += <Py_ssize_t>(both[4 * g + i] >> 48)
        sums.append(total * <object>self.scale + base * rows)
    return sums


cdef int add_float_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups, double* sums) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        if not live_slots(self, codes, groups, block, &s):
            return 0
        snapdb_fsum_slots(s.slots, block_rows(self, block), load_native(self, block, &s), self.item, sums)
    return 1


cdef list sum_float_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    cdef Memory memory = allocate((groups + 1) * 32)
    cdef double* sums = <double*>memory.ptr
    cdef Py_ssize_t g
    cdef int fits
    cdef double total
    cdef list found = []
    with nogil:
        fits = add_float_groups(self, codes, groups, sums)
    if not fits:
        bad_codes(groups)
    for g in range(groups):
        total = (sums[4 * g] + sums[4 * g + 1]) + (sums[4 * g + 2] + sums[4 * g + 3])
        found.append(_NAN if isnan(total) else total)
    return found


cdef int widen_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups, int64_t* lo, int64_t* hi, uint8_t* nans) noexcept nogil:
    """Per slot: bounds of ordered keys: containers of FOR and DICT of integers and strings, stored values, folded floats."""
    cdef Scratch s
    cdef Py_ssize_t block, n
    cdef bint packed = self.codec == FOR or (self.codec == DICT and not self.is_float)
    cdef int64_t* keys = <int64_t*>s.blended
    cdef const void* at
    memset(s.values, 0, sizeof(s.values))
    for block in range(self.blocks):
        n = block_rows(self, block)
        if not live_slots(self, codes, groups, block, &s):
            return 0
        if self.is_string and self.codec == CONST:
            memset(keys, 0, sizeof(s.blended))
        else:
            at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
            if self.is_float:
                snapdb_order_floats(at, self.item, n, s.slots, <uint32_t>groups, nans, keys)
            else:
                snapdb_order_keys(at, self.container if packed else 8 * self.item, 0 if packed else self.is_signed, keys)
        snapdb_bound_slots(s.slots, n, keys, lo, hi)
    return 1


cdef object of_order_key(Chunk self, int64_t key):
    """The physical value of an ordered key."""
    cdef uint64_t word = <uint64_t>key
    if self.is_float:
        return unfolded(self.code, key)
    if self.codec == CONST and self.is_string:
        return constant_bytes(self)
    if self.codec == FOR:
        return base_int(self) + <object>self.scale * (word ^ (<uint64_t>1 << 63) if self.container == 64 else word)
    if self.codec == DICT:
        return entry_bytes(self, key) if self.is_string else entry_int(self, key)
    return int_of(self.code, word ^ (<uint64_t>1 << 63) if self.code == U64 else word)


cdef list bound_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    cdef Memory low = allocate((groups + 1) * 8), high = allocate((groups + 1) * 8), marks = allocate(groups + 1)
    cdef int64_t* lo = <int64_t*>low.ptr
    cdef int64_t* hi = <int64_t*>high.ptr
    cdef uint8_t* nans = <uint8_t*>marks.ptr
    cdef Py_ssize_t g
    cdef int fits
    cdef list found = [None] * groups
    for g in range(groups + 1):
        lo[g], hi[g] = INT64_MAX, INT64_MIN
    with nogil:
        fits = widen_groups(self, codes, groups, lo, hi, nans)
    if not fits:
        bad_codes(groups)
    for g in range(groups):
        if lo[g] <= hi[g]:
            found[g] = of_order_key(self, lo[g]), of_order_key(self, hi[g])
        elif nans[g]:
            found[g] = _NAN, _NAN
    return found


cdef int widen_strings(Chunk self, const uint32_t* codes, Py_ssize_t groups, int64_t* lo, int64_t* hi) noexcept nogil:
    """Per group: the rows of the least and greatest string of RAW, -1 where there is none."""
    cdef Scratch s
    cdef Py_ssize_t block, i, row
    cdef uint32_t slot
    cdef Text text, other
    for block in range(self.blocks):
        if not live_slots(self, codes, groups, block, &s):
            return 0
        for i in range(block_rows(self, block)):
            slot = s.slots[i]
            if slot == <uint32_t>groups:
                continue
            row = block * BLOCK + i
            if lo[slot] < 0:
                lo[slot] = hi[slot] = row
                continue
            text = text_at(self, row)
            other = text_at(self, lo[slot])
            if snapdb_compare(text.ptr, text.size, other.ptr, other.size) < 0:
                lo[slot] = row
            other = text_at(self, hi[slot])
            if snapdb_compare(text.ptr, text.size, other.ptr, other.size) > 0:
                hi[slot] = row
    return 1


cdef list bound_string_groups(Chunk self, const uint32_t* codes, Py_ssize_t groups):
    cdef Memory low = allocate((groups + 1) * 8), high = allocate((groups + 1) * 8)
    cdef int64_t* lo = <int64_t*>low.ptr
    cdef int64_t* hi = <int64_t*>high.ptr
    cdef list found = []
    cdef Py_ssize_t g
    cdef int fits
    memset(lo, 0xFF, (groups + 1) * 8)
    memset(hi, 0xFF, (groups + 1) * 8)
    with nogil:
        fits = widen_strings(self, codes, groups, lo, hi)
    if not fits:
        bad_codes(groups)
    for g in range(groups):
        found.append(None if lo[g] < 0 else (row_bytes(self, lo[g]), row_bytes(self, hi[g])))
    return found
