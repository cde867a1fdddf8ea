# Grouping by codes: a key's code is its accumulator's number, and groups are numbered at the end.

cdef enum:
    MOST_CODES = 4096  # accumulators that stay in the cache
    MOST_LOOKED_AT = 64  # entries of a dictionary of integers, for a value of the tail


cdef inline bint has_small_codes(Chunk self) noexcept:
    """Whether a key's codes number accumulators as they are: each code one value, and no nulls."""
    if self.null_count or self.container > 16 or self.top >= MOST_CODES:
        return False
    return self.codec == FOR or (self.codec == DICT and not self.is_float)


cdef Py_ssize_t first_codes(Chunk self, const uint8_t* mask, uint32_t* first, uint32_t* order) noexcept nogil:
    """The codes of the selected rows in order of their first rows, how many; ``first``: that row of each code, or NONE."""
    cdef Scratch s
    cdef Py_ssize_t block, i, n, found = 0, most = <Py_ssize_t>self.top + 1
    cdef bint narrow = self.container == 8
    cdef const void* at
    cdef uint32_t code
    memset(first, 0xFF, most * 4)
    for block in range(self.blocks):
        if live_words(self, mask, block, &s) == 0:
            continue
        n = block_rows(self, block)
        at = load_packed(self, block, &s)
        for i in range(n):
            if not s.words[i >> 6] >> (i & 63) & 1:
                continue
            code = (<const uint8_t*>at)[i] if narrow else (<const uint16_t*>at)[i]
            if first[code] == NONE:
                first[code] = <uint32_t>(block * BLOCK + i)
                order[found] = code
                found += 1
                if found == most:
                    return found
    return found


cdef Py_ssize_t code_of_row(Chunk self, Chunk tail, Py_ssize_t row, Py_ssize_t last) noexcept nogil:
    """The code of a value of the tail in a key's sealed part, -1 where it has none; ``last``: the row before has it."""
    cdef Text text, entry
    cdef uint64_t word, step = <uint64_t>self.scale
    cdef Py_ssize_t low = 0, high = self.distinct, middle
    cdef int order
    if self.is_string:
        text = text_at(tail, row)
        middle = last if last >= 0 else high >> 1
        while low < high:
            entry = entry_text(self, middle)
            order = snapdb_compare(text.ptr, text.size, entry.ptr, entry.size)
            if order == 0:
                return middle
            if order < 0:
                high = middle
            else:
                low = middle + 1
            middle = (low + high) >> 1
        return -1
    word = item_at(tail.values, self.item, row)
    if self.codec == DICT:
        for low in range(min(high, <Py_ssize_t>MOST_LOOKED_AT)):
            if entry_word(self, low) == word:
                return low
        return -1
    if self.is_signed:
        word = <uint64_t>(<int64_t>(word << (64 - 8 * self.item)) >> (64 - 8 * self.item))
    word -= <uint64_t>self.base
    return -1 if word % step or word // step > self.top else <Py_ssize_t>(word // step)


cdef bint code_tail(Chunk self, Chunk tail, uint8_t* codes) noexcept nogil:
    """The codes of the tail's rows, as wide as the sealed part's; False where one has none."""
    cdef Py_ssize_t row, code = -1
    for row in range(tail.rows):
        code = code_of_row(self, tail, row, code)
        if code < 0:
            return False
        if self.container == 8:
            codes[row] = <uint8_t>code
        else:
            (<uint16_t*>codes)[row] = <uint16_t>code
    return True


cdef Py_ssize_t tail_codes(Chunk self, const uint8_t* codes, Chunk tail, const uint8_t* mask, Py_ssize_t found, uint32_t* first,
                           uint32_t* order) noexcept nogil:
    """``first_codes``, gone on with in the tail."""
    cdef Py_ssize_t row
    cdef uint32_t code
    if mask != NULL:
        mask += self.rows >> 3
    for row in range(tail.rows):
        if mask != NULL and not mask[row >> 3] >> (row & 7) & 1:
            continue
        code = codes[row] if self.container == 8 else (<const uint16_t*>codes)[row]
        if first[code] == NONE:
            first[code] = <uint32_t>(self.rows + row)
            order[found] = code
            found += 1
    return found


cdef void tally_rows(Chunk self, const uint8_t* given, const uint8_t* mask, Chunk value, bint counted, void* low,
                     int64_t* high) noexcept nogil:
    """Per code of ``self``: non-null values counted (u32), or summed (doubles; or integers, of 64 bits in two halves).
    ``given``: the codes of the value's rows, NULL: they are those of the key.
    """
    cdef Scratch keys, s
    cdef Py_ssize_t block, n
    cdef uint32_t none = <uint32_t>self.top + 1
    cdef const void* codes
    cdef const uint64_t* live
    for block in range(value.blocks):
        n = live_words(value, mask, block, &s)
        if n == 0:
            continue
        live = NULL if n == BLOCK else s.words
        n = block_rows(value, block)
        codes = load_packed(self, block, &keys) if given == NULL else given + block * BLOCK * (self.container >> 3)
        if counted:
            snapdb_tally(codes, self.container, live, n, none, <uint32_t*>low)
        elif value.is_float:
            snapdb_tally_floats(codes, self.container, live, n, none, load_native(value, block, &s), value.item, <double*>low)
        else:
            snapdb_tally_ints(codes, self.container, live, n, none, load_native(value, block, &s), 8 * value.item, value.is_signed,
                              <int64_t*>low, high)


cdef list tallied(Chunk self, const uint8_t* mask, Chunk value, const uint8_t* codes, Chunk more, bint counted,
                  const uint32_t* order, Py_ssize_t groups):
    """One answer a group: a count, or a sum as ``group_sum`` gives it. ``codes``, ``more``: of the tail, if any."""
    cdef Py_ssize_t slots = 4 * (<Py_ssize_t>self.top + 2), g, i
    cdef bint halves = not counted and not value.is_float and value.item == 8
    cdef Memory lower = allocate(slots * 8), upper = allocate(slots * 8 if halves else 0)
    cdef void* low = lower.ptr
    cdef int64_t* high = <int64_t*>upper.ptr
    cdef const uint32_t* counts = <const uint32_t*>lower.ptr
    cdef const double* sums = <const double*>lower.ptr
    cdef const int64_t* totals = <const int64_t*>lower.ptr
    cdef double total
    cdef list found = []
    with nogil:
        tally_rows(self, NULL, mask, value, counted, low, high)
        if codes != NULL:  # on the same accumulators: a sealed part is whole blocks
            if mask != NULL:
                mask += self.rows >> 3
            tally_rows(self, codes, mask, more, counted, low, high)
    for g in range(groups):
        i = 4 * <Py_ssize_t>order[g]
        if counted:
            found.append(<Py_ssize_t>counts[i] + counts[i + 1] + counts[i + 2] + counts[i + 3])
        elif value.is_float:
            total = (sums[i] + sums[i + 1]) + (sums[i + 2] + sums[i + 3])
            found.append(_NAN if isnan(total) else total)
        elif halves:
            found.append(whole(totals[i] + totals[i + 1] + totals[i + 2] + totals[i + 3],
                               high[i] + high[i + 1] + high[i + 2] + high[i + 3]))
        else:
            found.append(totals[i] + totals[i + 1] + totals[i + 2] + totals[i + 3])
    return found


cdef bint all_tallied(Chunk self, list wanted):
    """Whether everything that is wanted is a count or sum of numbers of as many rows."""
    cdef Chunk value
    if not has_small_codes(self):
        return False
    for chunk, kind in wanted:
        if type(chunk) is not Chunk or kind == "bounds":
            return False
        value = chunk
        if value.rows != self.rows or (value.is_string and kind == "sum"):
            return False
    return True


cdef tuple group_answers(Chunk self, mask, list wanted):
    cdef Py_buffer held
    cdef Py_ssize_t groups, g, codes
    cdef Memory firsts, orders, rows
    cdef const uint8_t* bits
    cdef uint32_t* first
    cdef uint32_t* order
    cdef list answers = []
    for chunk, kind in wanted:
        if kind not in ("count", "sum", "bounds"):
            raise ValueError(f"a group has a count, sum or bounds, no {kind!r}")
    if not all_tallied(self, wanted):
        numbers, found = self.group(mask)
        for chunk, kind in wanted:
            answers.append(getattr(chunk, "group_" + kind)(numbers, len(found)))
        return found, answers
    codes = <Py_ssize_t>self.top + 1
    firsts, orders = uncleared(codes * 4), uncleared(codes * 4)
    first, order = <uint32_t*>firsts.ptr, <uint32_t*>orders.ptr
    take_mask(self, mask, &held)
    bits = <const uint8_t*>held.buf
    try:
        with nogil:
            groups = first_codes(self, bits, first, order)
        for chunk, kind in wanted:
            answers.append(tallied(self, bits, <Chunk>chunk, NULL, None, kind == "count", order, groups))
    finally:
        PyBuffer_Release(&held)
    rows = uncleared(groups * 4)
    for g in range(groups):
        (<uint32_t*>rows.ptr)[g] = first[order[g]]
    return u32_view(rows, groups), answers


cdef bint fits_tail(Chunk self, Chunk tail, list wanted, list values):
    """Whether the tail's chunks are rows of the same columns behind whole blocks."""
    cdef Chunk value, more
    if len(values) != len(wanted) or self.rows & (BLOCK - 1) or self.rows + tail.rows > SEGMENT:
        return False
    if tail.code != self.code or tail.codec != RAW or tail.null_count:
        return False
    for (chunk, _), given in zip(wanted, values):
        if type(given) is not Chunk:
            return False
        value, more = chunk, given
        if more.code != value.code or more.rows != tail.rows:
            return False
    return True


cdef tuple group_with_tail(Chunk self, mask, list wanted, Chunk tail, list values):
    """``group_answers`` of two chunks a column; None where the tail's keys have other codes or it takes another path."""
    cdef Py_buffer held
    cdef Py_ssize_t groups, g, most = <Py_ssize_t>self.top + 1
    cdef Memory firsts, orders, rows, codes
    cdef const uint8_t* bits
    cdef uint32_t* first
    cdef uint32_t* order
    cdef list answers = []
    cdef bint coded
    if not all_tallied(self, wanted) or not fits_tail(self, tail, wanted, values):
        return None
    codes = uncleared(tail.blocks * BLOCK * 2)
    with nogil:
        coded = code_tail(self, tail, <uint8_t*>codes.ptr)
    if not coded:
        return None
    firsts, orders = uncleared(most * 4), uncleared(most * 4)
    first, order = <uint32_t*>firsts.ptr, <uint32_t*>orders.ptr
    memset(&held, 0, sizeof(held))
    if mask is not None:
        take_bytes(mask, &held)
    try:
        if mask is not None and held.len != mask_size(self.rows + tail.rows):
            raise ValueError(f"a mask over {self.rows + tail.rows} rows has {mask_size(self.rows + tail.rows)} bytes, got {held.len}")
        bits = <const uint8_t*>held.buf
        with nogil:
            groups = first_codes(self, bits, first, order)
            if groups < most:
                groups = tail_codes(self, <const uint8_t*>codes.ptr, tail, bits, groups, first, order)
        for (chunk, kind), more in zip(wanted, values):
            answers.append(tallied(self, bits, <Chunk>chunk, <const uint8_t*>codes.ptr, <Chunk>more, kind == "count", order, groups))
    finally:
        PyBuffer_Release(&held)
    rows = uncleared(groups * 4)
    for g in range(groups):
        (<uint32_t*>rows.ptr)[g] = first[order[g]]
    return u32_view(rows, groups), answers
