# Predicates: the constants go to the domain of the codes, then one range kernel answers.

cdef inline uint8_t* bits_of(bytearray mask) noexcept:
    return <uint8_t*>PyByteArray_AS_STRING(mask)


cdef bytearray no_rows(Chunk self):
    cdef bytearray mask = new_bytes(mask_size(self.rows))
    memset(bits_of(mask), 0, mask_size(self.rows))
    return mask


cdef bytearray all_rows(Chunk self):
    """The non-null rows."""
    cdef bytearray mask = no_rows(self)
    if self.null_count < self.rows:
        snapdb_fill_bits(bits_of(mask), 0, self.rows)
        drop_nulls(self, bits_of(mask))
    return mask


cdef void drop_nulls(Chunk self, uint8_t* bits) noexcept nogil:
    if self.null_bits != NULL:
        snapdb_kernels.andnot_words(bits, self.null_bits, mask_size(self.rows) >> 3)


cdef void finish(Chunk self, uint8_t* bits) noexcept nogil:
    """Clear what a short last block says of rows that are not there, and the nulls."""
    cdef Py_ssize_t rest = self.rows & 63
    if rest:
        (<uint64_t*>bits)[self.rows >> 6] &= (<uint64_t>1 << rest) - 1
    drop_nulls(self, bits)


cdef inline void emit(Chunk self, Py_ssize_t block, const uint8_t* found, uint8_t* bits) noexcept nogil:
    """A block's bits into the chunk's mask, as far as it has rows."""
    memcpy(bits + block * (BLOCK >> 3), found, mask_size(block_rows(self, block)))


cdef void runs_in_range(Chunk self, uint64_t lo, uint64_t span, uint8_t* bits) noexcept nogil:
    """Rows of the runs whose code lies in lo..lo+span, null or not."""
    cdef const uint16_t* rows = <const uint16_t*>mark_rows(self)
    cdef uint64_t most = <uint64_t>-1 >> (64 - self.container)
    cdef Py_ssize_t i, start = 0
    memset(bits, 0, mask_size(self.rows))
    for i in range(self.marks):
        if ((item_at(self.run_codes, self.container >> 3, i) - lo) & most) <= span:
            snapdb_fill_bits(bits, start, rows[i] + 1)
        start = rows[i] + 1


cdef void scan_range(Chunk self, bint packed, uint64_t lo, uint64_t span, uint8_t* bits) noexcept nogil:
    """Rows whose container (packed) or stored value lies in lo..lo+span, modulo its width."""
    cdef Scratch s
    cdef Py_ssize_t block
    cdef int table = table_of(self.container if packed else 8 * self.item)
    cdef const void* at
    if packed and self.layout == RUNS:
        runs_in_range(self, lo, span, bits)
        finish(self, bits)
        return
    for block in range(self.blocks):
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        snapdb_kernels.range[table](at, lo, span, s.bytes)
        emit(self, block, s.bytes, bits)
    finish(self, bits)


cdef void scan_table(Chunk self, bint packed, const uint8_t* table, uint8_t* bits) noexcept nogil:
    """Rows whose container or stored value (at most 16 bits) is marked in the table."""
    cdef Scratch s
    cdef Py_ssize_t block
    cdef int kind = table_of(self.container if packed else 8 * self.item)
    cdef const void* at
    for block in range(self.blocks):
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        snapdb_kernels.lut[kind](at, table, s.bytes)
        emit(self, block, s.bytes, bits)
    finish(self, bits)


cdef void scan_keys(Chunk self, bint packed, const SnapdbGroups* keys, uint8_t* bits) noexcept nogil:
    """Rows whose container or stored value is one of the keys."""
    cdef Scratch s
    cdef Py_ssize_t block
    cdef int item = self.container >> 3 if packed else self.item
    cdef const void* at
    for block in range(self.blocks):
        at = load_packed(self, block, &s) if packed else load_native(self, block, &s)
        snapdb_hash_keys(at, item, self.is_float, 0, s.blended)
        snapdb_match_keys(keys, s.blended, s.bytes)
        emit(self, block, s.bytes, bits)
    finish(self, bits)


cdef bytearray in_range(Chunk self, bint packed, uint64_t lo, uint64_t span):
    cdef bytearray mask = new_bytes(mask_size(self.rows))
    cdef uint8_t* bits = bits_of(mask)
    with nogil:
        scan_range(self, packed, lo, span, bits)
    return mask


cdef bytearray in_codes(Chunk self, Py_ssize_t first, Py_ssize_t last):
    """Rows whose dictionary code is first..last."""
    if first > last:
        return no_rows(self)
    if first == 0 and last == self.distinct - 1:
        return all_rows(self)
    return in_range(self, True, first, last - first)


cdef uint64_t word_of(value):
    """An integer's two's complement bits."""
    return <uint64_t>(value & _MASK64)


# -- integers --------------------------------------------------------------

cdef object entry_int(Chunk self, Py_ssize_t code):
    return int_of(self.code, entry_word(self, code))


cdef Py_ssize_t entries_below(Chunk self, value, bint or_equal):
    """Dictionary entries less than a value (or equal to it): integers and strings."""
    cdef Py_ssize_t lo = 0, hi = self.distinct, middle
    if self.is_string:
        return strings_below(self, value, or_equal)
    while lo < hi:
        middle = (lo + hi) // 2
        entry = entry_int(self, middle)
        if entry < value or (or_equal and entry == value):
            lo = middle + 1
        else:
            hi = middle
    return lo


cdef Py_ssize_t strings_below(Chunk self, bytes value, bint or_equal):
    cdef Py_ssize_t lo = 0, hi = self.distinct, middle
    cdef Text text
    cdef int order
    while lo < hi:
        middle = (lo + hi) >> 1
        text = entry_text(self, middle)
        order = snapdb_compare(text.ptr, text.size, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if order < 0 or (or_equal and order == 0):
            lo = middle + 1
        else:
            hi = middle
    return lo


cdef enum Reach:  # what a range of values is in a chunk
    NOTHING, EVERY, OF_CODES, OF_VALUES, APART


cdef Reach reach_of_codes(Py_ssize_t first, Py_ssize_t last, Py_ssize_t most, uint64_t* start, uint64_t* span) noexcept:
    """The codes first..last of 0..most."""
    if first > last:
        return NOTHING
    if first == 0 and last == most:
        return EVERY
    start[0] = first
    span[0] = last - first
    return OF_CODES


cdef Reach reach_of_ints(Chunk self, lo, hi, uint64_t* start, uint64_t* span) except *:
    """Integers lo..hi as codes or stored values start..start+span; APART where a chunk has neither."""
    if self.codec == DICT:
        return reach_of_codes(entries_below(self, lo, False), entries_below(self, hi, True) - 1, self.distinct - 1, start, span)
    if self.codec == RAW or self.codec == SLOPE:
        start[0], span[0] = word_of(lo), word_of(hi - lo)
        return OF_VALUES
    if self.codec == CONST:
        return EVERY if lo <= base_int(self) <= hi else NOTHING
    if self.codec != FOR:
        return APART
    base = base_int(self)
    lo, hi = lo - base, hi - base
    if self.scale != 1:
        step = self.scale
        lo, hi = -(-lo // step), hi // step
    most = self.top
    if lo < 0:
        lo = 0
    if hi > most:
        hi = most
    if lo > hi:
        return NOTHING
    if lo == 0 and hi == most:
        return EVERY
    start[0], span[0] = lo, hi - lo
    return OF_CODES


cdef bytearray select_ints(Chunk self, lo, hi, bint lo_open, bint hi_open):
    cdef uint64_t start = 0, span = 0
    cdef Reach reach
    low, high = _LIMITS[self.code]
    lo = low if lo is None else max(low, lo + lo_open)
    hi = high if hi is None else min(high, hi - hi_open)
    if lo > hi:
        return no_rows(self)
    if lo == low and hi == high:
        return all_rows(self)
    if self.codec == AFFINE:
        return affine_rows(self, lo, hi)
    if self.codec == BITMAP:
        return bitmap_rows(self, lo <= 0 <= hi, lo <= 1 <= hi)
    reach = reach_of_ints(self, lo, hi, &start, &span)
    if reach == NOTHING:
        return no_rows(self)
    return all_rows(self) if reach == EVERY else in_range(self, reach == OF_CODES, start, span)


cdef bytearray affine_rows(Chunk self, lo, hi):
    """An arithmetic sequence lies between two values in one interval of rows."""
    cdef bytearray mask = no_rows(self)
    base = base_int(self)
    step = self.step
    if step == 0:
        return all_rows(self) if lo <= base <= hi else mask
    if step > 0:
        first, last = -((base - lo) // step), (hi - base) // step
    else:
        first, last = -((hi - base) // -step), (base - lo) // -step
    first = max(first, 0)
    last = min(last, self.rows - 1)
    if first <= last:
        snapdb_fill_bits(bits_of(mask), first, last + 1)
    return mask


cdef bytearray bitmap_rows(Chunk self, bint false_too, bint true_too):
    cdef bytearray mask
    if not false_too and not true_too:
        return no_rows(self)
    mask = all_rows(self)
    if not false_too:
        snapdb_kernels.and_words(bits_of(mask), self.values, mask_size(self.rows) >> 3)
    if not true_too:
        snapdb_kernels.andnot_words(bits_of(mask), self.values, mask_size(self.rows) >> 3)
    return mask


cdef bytearray ints_in(Chunk self, set wanted):
    low, high = _LIMITS[self.code]
    cdef list words = [], found = []
    cdef bytearray mask
    for value in wanted:
        if low <= value <= high:
            words.append(_index(value))
    if not words:
        return no_rows(self)
    if self.codec == CONST:
        return all_rows(self) if base_int(self) in words else no_rows(self)
    if self.codec == BITMAP:
        return bitmap_rows(self, 0 in words, 1 in words)
    if self.codec == AFFINE:
        mask = no_rows(self)
        for value in words:
            merge_or(mask, affine_rows(self, value, value))
        return mask
    if self.codec == DICT:
        return codes_in(self, words)
    if self.codec == RAW or self.codec == SLOPE:
        for value in words:
            found.append(word_of(value))
        return words_in(self, False, found)
    base = base_int(self)
    for value in words:
        code, rest = divmod(value - base, <object>self.scale)
        if rest == 0 and 0 <= code <= <object>self.top:
            found.append(code)
    return words_in(self, True, found)


cdef void merge_or(bytearray target, bytearray other) noexcept:
    snapdb_kernels.or_words(bits_of(target), bits_of(other), len(target) >> 3)


cdef bytearray codes_in(Chunk self, values):
    """Rows whose dictionary entry is one of the values: integers and strings."""
    cdef bytearray table = bytearray(self.top + 1), mask
    cdef uint8_t* bits
    cdef const uint8_t* marks = bits_of(table)
    cdef Py_ssize_t code, found = 0
    for value in values:
        code = entries_below(self, value, False)
        if code < self.distinct and (entry_bytes(self, code) if self.is_string else entry_int(self, code)) == value:
            table[code] = 1
            found += 1
    if found == 0:
        return no_rows(self)
    mask = new_bytes(mask_size(self.rows))
    bits = bits_of(mask)
    with nogil:
        scan_table(self, True, marks, bits)
    return mask


cdef enum:
    FEW = 4  # values that are looked for one by one


cdef bytearray words_in(Chunk self, bint packed, list words):
    """Rows whose container or stored value is one of these bits."""
    cdef int width = self.container if packed else 8 * self.item
    cdef bytearray table, mask
    cdef uint8_t* bits
    cdef const uint8_t* marks
    if not words:
        return no_rows(self)
    if len(words) <= FEW:
        mask = in_range(self, packed, words[0], 0)
        for word in words[1:]:
            merge_or(mask, in_range(self, packed, word, 0))
        return mask
    if width > 16:
        return keys_in(self, packed, words)
    table = bytearray(1 << width)
    for word in words:
        table[word & ((1 << width) - 1)] = 1
    marks = bits_of(table)
    mask = new_bytes(mask_size(self.rows))
    bits = bits_of(mask)
    with nogil:
        scan_table(self, packed, marks, bits)
    return mask


cdef bytearray keys_in(Chunk self, bint packed, list words):
    cdef SnapdbGroups keys
    cdef bytearray mask = new_bytes(mask_size(self.rows))
    cdef uint8_t* bits = bits_of(mask)
    cdef uint64_t key, most = (<uint64_t>1 << 32) - 1 if (self.container if packed else 8 * self.item) == 32 else <uint64_t>-1
    cdef uint32_t group
    if snapdb_groups_start(&keys, 0, 0, NONE):
        raise MemoryError()
    try:
        for word in words:
            key = word
            key &= most
            if snapdb_group_keys(&keys, &key, NULL, NULL, 0, 1, &group):
                raise MemoryError()
        with nogil:
            scan_keys(self, packed, &keys, bits)
    finally:
        snapdb_groups_free(&keys)
    return mask


# -- floats ----------------------------------------------------------------

cdef void scan_f32(Chunk self, float lo, float hi, uint8_t* bits) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        snapdb_kernels.range_f32(load_native(self, block, &s), lo, hi, s.bytes)
        emit(self, block, s.bytes, bits)
    finish(self, bits)


cdef void scan_f64(Chunk self, double lo, double hi, uint8_t* bits) noexcept nogil:
    cdef Scratch s
    cdef Py_ssize_t block
    for block in range(self.blocks):
        snapdb_kernels.range_f64(load_native(self, block, &s), lo, hi, s.bytes)
        emit(self, block, s.bytes, bits)
    finish(self, bits)


cdef bytearray floats_between(Chunk self, double lo, double hi):
    """Rows of a RAW float column with lo <= value <= hi; f32 at double precision, by bounds rounded inward."""
    cdef bytearray mask
    cdef uint8_t* bits
    cdef float low = <float>lo, high = <float>hi
    if not lo <= hi:
        return no_rows(self)
    mask = new_bytes(mask_size(self.rows))
    bits = bits_of(mask)
    if self.code == F32:
        if <double>low < lo:
            low = nextafterf(low, <float>INFINITY)
        if <double>high > hi:
            high = nextafterf(high, -<float>INFINITY)
        with nogil:
            scan_f32(self, low, high, bits)
    else:
        with nogil:
            scan_f64(self, lo, hi, bits)
    return mask


cdef bytearray select_floats(Chunk self, lo, hi, bint lo_open, bint hi_open):
    cdef double low = -INFINITY if lo is None else lo
    cdef double high = INFINITY if hi is None else hi
    cdef double value
    cdef Py_ssize_t first = 0, last = self.distinct - 1
    if lo is not None and lo_open:
        if low == INFINITY:
            return no_rows(self)
        low = nextafter(low, INFINITY)
    if hi is not None and hi_open:
        if high == -INFINITY:
            return no_rows(self)
        high = nextafter(high, -INFINITY)
    if not low <= high:
        return no_rows(self)
    if self.codec == CONST:
        value = float_of(self.code, <uint64_t>self.base)
        return all_rows(self) if low <= value <= high else no_rows(self)
    if self.codec == DEC:
        return decimals_between(self, low, high)
    if self.codec != DICT:
        return floats_between(self, low, high)
    entries_between(self, low, high, &first, &last)
    return in_codes(self, first, last)


cdef void entries_between(Chunk self, double low, double high, Py_ssize_t* first, Py_ssize_t* last) noexcept:
    """The floats in the heap with low <= value <= high: neighbours, in -NaN, -inf .. -0.0, 0.0 .. inf, NaN."""
    first[0], last[0] = 0, self.distinct - 1
    while first[0] <= last[0] and not low <= float_of(self.code, entry_word(self, first[0])) <= high:
        first[0] += 1
    while first[0] <= last[0] and not low <= float_of(self.code, entry_word(self, last[0])) <= high:
        last[0] -= 1


cdef uint64_t decimals_below(Chunk self, double value, bint or_equal) noexcept nogil:
    """How many decimals there are below a value (or equal to it): they rise with their codes."""
    cdef uint64_t lo = 0, hi = self.plain, middle
    cdef double here
    while lo < hi:
        middle = lo + ((hi - lo) >> 1)
        here = float_of(self.code, decimal_word(self, middle))
        if here < value or (or_equal and here == value):
            lo = middle + 1
        else:
            hi = middle
    return lo


cdef bytearray decimals_between(Chunk self, double low, double high):
    """Rows of DEC with low <= value <= high."""
    cdef uint64_t first = decimals_below(self, low, False), stop = decimals_below(self, high, True)
    cdef Py_ssize_t odd_first = 0, odd_last = -1
    cdef bytearray mask
    entries_between(self, low, high, &odd_first, &odd_last)
    if first < stop:
        if first == 0 and stop == <uint64_t>self.plain and odd_first == 0 and odd_last == self.distinct - 1:
            return all_rows(self)
        mask = in_range(self, True, first, stop - 1 - first)
    else:
        mask = no_rows(self)
    if odd_first <= odd_last:
        merge_or(mask, in_range(self, True, <uint64_t>self.plain + <uint64_t>odd_first, odd_last - odd_first))
    return mask


cdef bytearray floats_in(Chunk self, set wanted):
    cdef list values = []
    cdef bytearray table, mask
    cdef uint8_t* bits
    cdef const uint8_t* marks
    cdef Py_ssize_t code
    cdef double wide
    for value in wanted:
        wide = value
        if self.code == F64 or <double><float>wide == wide:
            values.append(wide)
    if not values:
        return no_rows(self)
    wanted = set(values)
    if self.codec == CONST:
        return all_rows(self) if float_of(self.code, <uint64_t>self.base) in wanted else no_rows(self)
    mask = new_bytes(mask_size(self.rows))
    bits = bits_of(mask)
    if self.codec == DICT:
        table = bytearray(self.top + 1)
        marks = bits_of(table)
        for code in range(self.distinct):
            if float_of(self.code, entry_word(self, code)) in wanted:
                table[code] = 1
        with nogil:
            scan_table(self, True, marks, bits)
        return mask
    if len(values) <= FEW:
        mask = no_rows(self)
        for value in values:
            merge_or(mask, decimals_between(self, value, value) if self.codec == DEC else floats_between(self, value, value))
        return mask
    return keys_in_floats(self, values)


cdef bytearray keys_in_floats(Chunk self, list values):
    """As keys_in, by the keys that equal floats share."""
    cdef float narrow
    cdef double wide
    cdef uint32_t low
    cdef list words = []
    for wide in values:
        if wide == 0:
            words.append(0)
        elif self.code == F32:
            narrow = <float>wide
            memcpy(&low, &narrow, 4)
            words.append(low)
        else:
            words.append(float_bits(wide))
    return keys_in(self, False, words)


# -- strings ---------------------------------------------------------------

cdef bytes entry_bytes(Chunk self, Py_ssize_t code):
    cdef Text text = entry_text(self, code)
    return PyBytes_FromStringAndSize(text.ptr, text.size)


cdef bytes constant_bytes(Chunk self):
    return PyBytes_FromStringAndSize(<const char*>self.heap, self.base)


cdef void scan_strings(Chunk self, const char* lo, Py_ssize_t lo_size, int lo_least, const char* hi, Py_ssize_t hi_size,
                       int hi_most, uint8_t* bits) noexcept nogil:
    """Rows of RAW with compare(value, lo) >= lo_least and compare(value, hi) <= hi_most; a NULL bound is none."""
    cdef Py_ssize_t row
    cdef Text text
    cdef int order
    for row in range(self.rows):
        text = text_at(self, row)
        if lo != NULL:
            order = snapdb_compare(text.ptr, text.size, lo, lo_size)
            if order < lo_least:
                continue
        if hi != NULL:
            order = snapdb_compare(text.ptr, text.size, hi, hi_size)
            if order > hi_most:
                continue
        bits[row >> 3] |= <uint8_t>(1 << (row & 7))
    drop_nulls(self, bits)


cdef void scan_equal(Chunk self, const char* wanted, Py_ssize_t size, uint8_t* bits) noexcept nogil:
    """Rows of RAW that equal a string."""
    cdef Py_ssize_t row
    cdef Text text
    for row in range(self.rows):
        text = text_at(self, row)
        if text.size == size and memcmp(text.ptr, wanted, size) == 0:
            bits[row >> 3] |= <uint8_t>(1 << (row & 7))
    drop_nulls(self, bits)


cdef bytearray select_strings(Chunk self, lo, hi, bint lo_open, bint hi_open):
    cdef bytes low = lo, high = hi, value
    cdef bytearray mask
    cdef uint8_t* bits
    cdef const char* low_at = NULL
    cdef const char* high_at = NULL
    cdef Py_ssize_t low_size = 0, high_size = 0
    if low is None and high is None:
        return all_rows(self)
    if self.codec == CONST:
        value = constant_bytes(self)
        above = low is None or value > low or (not lo_open and value == low)
        below = high is None or value < high or (not hi_open and value == high)
        return all_rows(self) if above and below else no_rows(self)
    if self.codec == DICT:
        return in_codes(
            self,
            0 if low is None else entries_below(self, low, lo_open),
            (self.distinct if high is None else entries_below(self, high, not hi_open)) - 1,
        )
    mask = no_rows(self)
    bits = bits_of(mask)
    if low is not None:
        low_at, low_size = PyBytes_AS_STRING(low), PyBytes_GET_SIZE(low)
    if high is not None:
        high_at, high_size = PyBytes_AS_STRING(high), PyBytes_GET_SIZE(high)
    if low is not None and low == high:
        if not lo_open and not hi_open:
            with nogil:
                scan_equal(self, low_at, low_size, bits)
        return mask
    with nogil:
        scan_strings(self, low_at, low_size, 1 if lo_open else 0, high_at, high_size, -1 if hi_open else 0, bits)
    return mask


cdef void scan_strings_in(Chunk self, const SnapdbGroups* wanted, uint8_t* bits) noexcept nogil:
    cdef Py_ssize_t row
    cdef Text text
    for row in range(self.rows):
        text = text_at(self, row)
        if snapdb_has_string(wanted, <const uint8_t*>text.ptr, text.size):
            bits[row >> 3] |= <uint8_t>(1 << (row & 7))
    drop_nulls(self, bits)


cdef bytearray strings_in(Chunk self, set wanted):
    cdef SnapdbGroups strings
    cdef bytearray mask
    cdef uint8_t* bits
    cdef bytes value
    if self.codec == CONST:
        return all_rows(self) if constant_bytes(self) in wanted else no_rows(self)
    if self.codec == DICT:
        return codes_in(self, wanted)
    mask = no_rows(self)
    bits = bits_of(mask)
    if snapdb_groups_start(&strings, 0, 1, NONE):
        raise MemoryError()
    try:
        for value in wanted:  # the set keeps the bytes alive
            if snapdb_group_add(&strings, <const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)):
                raise MemoryError()
        with nogil:
            scan_strings_in(self, &strings, bits)
    finally:
        snapdb_groups_free(&strings)
    return mask
