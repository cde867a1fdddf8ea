# How a column's codes are stored, by the choice rule of docs/format.md: streams, steps, lines, decimals, front coding.

cdef struct Plan:  # the layout of a stream of codes
    int layout, width, container
    Py_ssize_t marks
    uint64_t top
    int64_t cost


cdef inline int bit_length(uint64_t value) noexcept nogil:
    cdef int bits = 0
    if value >> 32:
        bits, value = bits + 32, value >> 32
    if value >> 16:
        bits, value = bits + 16, value >> 16
    if value >> 8:
        bits, value = bits + 8, value >> 8
    if value >> 4:
        bits, value = bits + 4, value >> 4
    if value >> 2:
        bits, value = bits + 2, value >> 2
    return bits + <int>(value if value < 2 else 2)


cdef inline uint64_t offset_at(Source source, const uint8_t* values, uint64_t low, Py_ssize_t row) noexcept nogil:
    """A value less ``low``."""
    cdef uint64_t found = item_at(values, source.item, row) - low
    return found if source.item == 8 else found & ((<uint64_t>1 << (8 * source.item)) - 1)


# -- streams ---------------------------------------------------------------

cdef void plan_packed(uint64_t top, Py_ssize_t rows, Plan* plan) noexcept nogil:
    plan.layout, plan.marks, plan.top = PACKED, 0, top
    plan.width = packed_width(top)
    plan.container = container_of(plan.width) if plan.width else 0
    plan.cost = 128 * plan.width * (rows / BLOCK)


cdef bint sample_pays(const uint32_t* histogram, const Plan* plan, Py_ssize_t rows) noexcept nogil:
    """Whether the lengths of 256 codes say that exceptions are to be looked at."""
    cdef int bits = bit_length(plan.top), w
    cdef int64_t each = 2 + (container_of(bits) >> 3), longer = 0, cost
    for w in range(bits - 1, -1, -1):
        longer += histogram[w + 1]
        cost = <int64_t>128 * w * (rows / BLOCK) * 256 + each * rows * longer
        if 10 * cost <= 9 * plan.cost * 256:
            return True
    return False


cdef void plan_exceptions(const uint32_t* histogram, Plan* plan, Py_ssize_t rows) noexcept nogil:
    cdef int bits = bit_length(plan.top), w, best_width = 0
    cdef int64_t each = 2 + (container_of(bits) >> 3), longer = 0, cost, best = -1, marks = 0
    cdef Py_ssize_t blocks = rows / BLOCK
    for w in range(bits - 1, -1, -1):
        longer += histogram[w + 1]
        cost = <int64_t>128 * w * blocks + 4 * (blocks + 1) + each * longer
        if best < 0 or cost <= best:
            best, best_width, marks = cost, w, longer
    if 10 * best <= 9 * plan.cost:
        plan.layout, plan.width, plan.container, plan.marks, plan.cost = EXCEPTED, best_width, container_of(bits), marks, best


cdef Py_ssize_t count_runs(const uint64_t* codes, const uint8_t* valid, Py_ssize_t rows) noexcept nogil:
    """Runs of the non-null rows' codes; more than rows / 8: some number that is."""
    cdef Py_ssize_t at, row, most = rows / 8, found = 0
    cdef uint64_t last = 0
    if valid == NULL:
        found = 1
        for at from 1 <= at < rows by BLOCK:
            found += snapdb_kernels.changes[3](codes + at - 1, min(rows - at, <Py_ssize_t>BLOCK) + 1)
            if found > most:
                break
        return found
    for row in range(rows):
        if valid[row >> 3] >> (row & 7) & 1:
            if found == 0 or codes[row] != last:
                found += 1
                if found > most:
                    break
                last = codes[row]
    return found


cdef void plan_stream(const uint64_t* codes, const uint8_t* valid, Py_ssize_t rows, uint64_t top, Plan* plan) noexcept nogil:
    """The layout that the rule gives codes, 0 in the null rows."""
    cdef uint32_t histogram[65]
    cdef Py_ssize_t i, runs
    cdef int64_t cost
    cdef int size
    plan_packed(top, rows, plan)
    if top == 0:
        return
    memset(histogram, 0, sizeof(histogram))
    for i in range(256):
        histogram[bit_length(codes[i * rows / 256])] += 1
    if sample_pays(histogram, plan, rows):
        memset(histogram, 0, sizeof(histogram))
        for i from 0 <= i < rows by BLOCK:
            snapdb_widths(codes + i, 64, NULL, histogram)
        plan_exceptions(histogram, plan, rows)
    runs = count_runs(codes, valid, rows)
    size = container_of(bit_length(top)) >> 3
    cost = 2 * (rows / BLOCK) + (2 + size) * runs
    if 8 * runs <= rows and 10 * cost <= 9 * plan.cost:
        plan.layout, plan.width, plan.container, plan.marks, plan.cost = RUNS, 0, 8 * size, runs, cost


cdef void write_stream(const Plan* plan, const uint64_t* codes, const uint8_t* valid, Py_ssize_t rows, uint8_t* base,
                       const Header* head) noexcept nogil:
    """The sections *values*, *places* and *codes*."""
    cdef Py_ssize_t blocks = rows / BLOCK, block, row, mark = 0
    cdef int size = plan.container >> 3, target = table_of(plan.container)
    cdef uint64_t narrow[BLOCK]
    cdef uint64_t low[BLOCK]
    cdef const uint64_t* given
    cdef uint8_t* values = base + head.places[1]
    cdef uint8_t* marks = base + head.late_at[1]
    cdef uint32_t* starts = <uint32_t*>(base + head.late_at[0])
    cdef uint16_t* places = <uint16_t*>(base + head.late_at[0])
    if plan.layout == RUNS:
        write_runs(plan, codes, valid, rows, places, marks)
        return
    if plan.layout == EXCEPTED:
        places = <uint16_t*>(starts + blocks + 1)
    for block in range(blocks):
        given = codes + block * BLOCK
        if plan.layout == EXCEPTED:
            starts[block] = <uint32_t>mark
            for row in range(BLOCK):
                low[row] = given[row]
                if given[row] >> plan.width:
                    low[row] = 0
                    places[mark] = <uint16_t>(block * BLOCK + row)
                    memcpy(marks + mark * size, given + row, size)
                    mark += 1
            given = low
        if plan.width == 0:
            continue
        snapdb_kernels.convert[3][target](given, 0, narrow)
        snapdb_kernels.pack(narrow, plan.width, plan.container, values + block * 128 * plan.width)
    if plan.layout == EXCEPTED:
        starts[blocks] = <uint32_t>mark


cdef void write_runs(const Plan* plan, const uint64_t* codes, const uint8_t* valid, Py_ssize_t rows, uint16_t* places,
                     uint8_t* marks) noexcept nogil:
    cdef Py_ssize_t blocks = rows / BLOCK, row, run = -1, block = 0
    cdef int size = plan.container >> 3
    cdef uint64_t last = 0
    cdef uint16_t* ends = places + blocks
    for row in range(rows):
        if valid == NULL or valid[row >> 3] >> (row & 7) & 1:
            if run < 0 or codes[row] != last:
                if run >= 0:
                    ends[run] = <uint16_t>(row - 1)
                run += 1
                last = codes[row]
                memcpy(marks + run * size, &last, size)
        if row % BLOCK == 0:
            places[row / BLOCK] = <uint16_t>(run if run > 0 else 0)
    ends[run] = <uint16_t>(rows - 1)


cdef Memory assemble(Source source, int codec, const Plan* plan, Header* head, Py_ssize_t offsets, Py_ssize_t heap,
                     Py_ssize_t lines):
    """A chunk's memory with its header, nulls and padding; the other sections are still to be filled.

    ``head`` has count, base, step, digits, power, flags and plain, and gets the rest.
    """
    cdef Py_ssize_t lengths[7]
    cdef Py_ssize_t at = HEADER, blocks = source.rows / BLOCK
    cdef uint64_t* place
    cdef int i, size = plan.container >> 3
    cdef Memory memory
    lengths[0] = mask_size(source.rows) if 0 < source.nulls < source.rows else 0
    lengths[1] = 128 * plan.width * blocks
    lengths[2], lengths[3], lengths[6] = offsets, heap, lines
    lengths[4] = lengths[5] = 0
    if plan.layout == EXCEPTED:
        lengths[4], lengths[5] = 4 * (blocks + 1) + 2 * plan.marks, size * plan.marks
    elif plan.layout == RUNS:
        lengths[4], lengths[5] = 2 * blocks + 2 * plan.marks, size * plan.marks
    head.codec, head.code, head.width, head.packed = codec, source.code, plan.width, plan.container
    head.rows, head.nulls = source.rows, source.nulls
    head.layout, head.marks = plan.layout, plan.marks
    for i in range(7):
        place = &head.places[i] if i < 4 else &head.late_at[i - 4]
        place[0] = at if lengths[i] else 0
        at = aligned(at + lengths[i])
    head.total = at
    memory = uncleared(at)
    memcpy(memory.ptr, head, sizeof(Header))
    for i in range(7):
        if lengths[i]:
            place = &head.places[i] if i < 4 else &head.late_at[i - 4]
            memset(memory.ptr + place[0] + lengths[i], 0, aligned(lengths[i]) - lengths[i])
    if lengths[0]:
        memcpy(memory.ptr + head.places[0], source.null_bits, lengths[0])
    return memory


cdef Chunk finished(Memory memory, const Header* head):
    """The chunk whose sections are all filled."""
    cdef Chunk made = Chunk.__new__(Chunk)
    made.owner = memory
    made.base_ptr = <const uint8_t*>memory.ptr
    made.total = head.total
    trust(made)
    return made


# -- integers --------------------------------------------------------------

cdef inline uint64_t gcd64(uint64_t a, uint64_t b) noexcept nogil:
    while b:
        a, b = b, a % b
    return a


cdef uint64_t useful_step(uint64_t step, uint64_t span) noexcept nogil:
    if step < 2 or step > <uint64_t>INT64_MAX or packed_width(span / step) >= packed_width(span):
        return 1
    return step


cdef struct Divider:  # division by a number that divides, without a division
    uint64_t inverse  # of its odd part, modulo 2**64
    uint64_t limit    # the greatest quotient
    int shift         # its factors of 2


cdef Divider divider(uint64_t divisor) noexcept nogil:
    cdef Divider made
    cdef uint64_t odd = divisor
    cdef int i
    made.shift = 0
    while odd & 1 == 0:
        odd >>= 1
        made.shift += 1
    made.inverse = odd  # right in 3 bits; each turn doubles them
    for i in range(5):
        made.inverse *= 2 - odd * made.inverse
    made.limit = ~<uint64_t>0 // divisor
    return made


cdef inline bint divides(const Divider* by, uint64_t value) noexcept nogil:
    cdef uint64_t whole = value * by.inverse
    if by.shift:
        whole = whole >> by.shift | whole << (64 - by.shift)
    return whole <= by.limit


cdef void divide_block(uint64_t* words, const Divider* by) noexcept nogil:
    """Divide a block of multiples."""
    cdef uint64_t inverse = by.inverse
    cdef int shift = by.shift
    cdef Py_ssize_t i
    for i in range(BLOCK):
        words[i] = words[i] * inverse >> shift


cdef void block_above(Source source, const uint8_t* values, uint64_t low, Py_ssize_t block, uint64_t* out) noexcept nogil:
    """A block's ``value - low``."""
    cdef int table = table_of(8 * source.item)
    cdef uint64_t native[BLOCK]
    values += block * BLOCK * source.item
    if source.item == 8:
        snapdb_kernels.convert[3][3](values, 0 - low, out)
        return
    snapdb_kernels.convert[table][table](values, 0 - low, native)  # modulo its own width first: a sign is not extended
    snapdb_kernels.convert[table][3](native, 0, out)


cdef uint64_t step_of(Source source, const uint8_t* values, uint64_t low, uint64_t span) noexcept nogil:
    """The common divisor of all values less ``low`` where it saves bits, else 1; ``span`` is one of them."""
    cdef uint64_t found = span
    cdef uint64_t words[BLOCK]
    cdef Py_ssize_t block, i
    cdef Divider by = divider(span)
    if packed_width(span) <= 4:
        return 1
    for block in range(source.rows / BLOCK):
        block_above(source, values, low, block, words)
        for i in range(BLOCK):
            if not divides(&by, words[i]):
                found = gcd64(words[i], found)
                if found == 1:
                    return 1
                by = divider(found)
    return useful_step(found, span)


cdef void codes_from(Source source, const uint8_t* values, uint64_t low, uint64_t step, uint64_t* out) noexcept nogil:
    """(value - low) / step of every row."""
    cdef Divider by = divider(step)
    cdef Py_ssize_t block
    for block in range(source.rows / BLOCK):
        block_above(source, values, low, block, out + block * BLOCK)
        if step > 1:
            divide_block(out + block * BLOCK, &by)


cdef bint plainly_packed(Source source, const uint8_t* values, uint64_t low, const Plan* plan) noexcept nogil:
    """Whether no other layout need be looked at: by the sample, and by the first runs."""
    cdef uint32_t histogram[65]
    cdef Py_ssize_t i, found = 1, at, rows = source.rows
    cdef int table = table_of(8 * source.item)
    if source.nulls:
        return False
    memset(histogram, 0, sizeof(histogram))
    for i in range(256):
        histogram[bit_length(offset_at(source, values, low, i * rows / 256))] += 1
    if sample_pays(histogram, plan, rows):
        return False
    for at from 1 <= at < rows by BLOCK:
        found += snapdb_kernels.changes[table](values + (at - 1) * source.item, min(rows - at, <Py_ssize_t>BLOCK) + 1)
        if found > rows / 8:
            return True
    return False


cdef Chunk best_ints(Source source, int prefer, uint64_t low, uint64_t high):
    """FOR, RAW, SLOPE or DICT."""
    cdef Py_ssize_t n = source.rows
    cdef uint64_t step, top
    cdef const uint8_t* values = source.filled(low)
    cdef int64_t plain = n * source.item, best
    cdef Plan plan
    cdef Memory codes = None, memory
    cdef Header head
    cdef Chunk made = None, sloped = None
    cdef bint packed, wide
    cdef int64_t slope_cost = 0
    with nogil:
        step = step_of(source, values, low, high - low)
    top = (high - low) / step
    wide = source.item >= 4 and packed_width(top) > 16
    if wide and prefer == DICT:
        made = seal_dictionary(source, prefer, 0)
        if made is not None:
            return made
        values = source.filled(low)
    plan_packed(top, n, &plan)
    with nogil:
        packed = step == 1 and plainly_packed(source, values, low, &plan)
    if not packed:
        codes = uncleared(n * 8)
        with nogil:
            codes_from(source, values, low, step, <uint64_t*>codes.ptr)
            plan_stream(<uint64_t*>codes.ptr, source.valid_bits if source.nulls else NULL, n, top, &plan)
    best = min(plan.cost, plain)
    if source.nulls == 0 and prefer != FOR and top < <uint64_t>1 << 62:
        sloped = seal_slope(source, prefer == AFFINE, low, step, top, best, &slope_cost)
        if sloped is not None:
            best = slope_cost
    if wide and prefer != FOR and prefer != AFFINE and prefer != DICT:
        made = seal_dictionary(source, prefer, best)
        if made is not None:
            return made
        values = source.filled(low)
    if sloped is not None:
        return sloped
    if plan.cost > plain:
        values = source.filled(0)
        made = new_chunk(source, RAW, 0, 0, 0, 0, plain, 0, 0)
        memcpy(<void*>made.values, values, plain)
        return made
    memset(&head, 0, sizeof(head))
    head.base, head.step = <int64_t>low, <int64_t>(step if step > 1 else 0)
    memory = assemble(source, FOR, &plan, &head, 0, 0, 0)
    with nogil:
        if packed:
            pack_offsets(values, source.item, low, n / BLOCK, plan.width, <uint8_t*>memory.ptr + head.places[1])
        else:
            write_stream(&plan, <uint64_t*>codes.ptr, source.valid_bits if source.nulls else NULL, n, <uint8_t*>memory.ptr,
                         &head)
    return finished(memory, &head)


# -- lines -----------------------------------------------------------------

cdef struct Line:  # as it is stored
    uint64_t base, whole
    uint32_t fraction, zero


cdef void line_between(uint64_t first, uint64_t last, Line* line) noexcept nogil:
    cdef int64_t rise = <int64_t>(last - first), whole = rise / 1023
    if rise % 1023 < 0:
        whole -= 1
    line.base, line.whole, line.zero = first, <uint64_t>whole, 0
    line.fraction = <uint32_t>((<uint64_t>(rise - 1023 * whole) << 32) / 1023)


cdef bint slope_gate(Source source, uint64_t low, uint64_t step, int64_t budget) noexcept nogil:
    cdef Py_ssize_t start, row
    cdef const uint8_t* values = source.values
    cdef Line line
    cdef int64_t left, least, most
    for start from 0 <= start < source.rows by BLOCK:
        line_between(offset_at(source, values, low, start) / step, offset_at(source, values, low, start + 1023) / step, &line)
        least = most = 0
        for row from 0 <= row < BLOCK by 33:
            left = <int64_t>(offset_at(source, values, low, start + row) / step - line.base - row * line.whole
                             - ((row * <uint64_t>line.fraction) >> 32))
            least, most = min(least, left), max(most, left)  # the first one is 0
        budget -= bit_length(<uint64_t>(most - least))
        if budget < 0:
            return False
    return True


cdef uint64_t take_lines(uint64_t* codes, Py_ssize_t rows, uint64_t low, uint64_t step, Line* lines) noexcept nogil:
    """Values to what is left of each block's line; the greatest."""
    cdef Py_ssize_t block
    cdef int i
    cdef uint64_t most = 0
    cdef int64_t least
    cdef uint64_t left[BLOCK]
    for block in range(rows / BLOCK):
        line_between(codes[block * BLOCK], codes[block * BLOCK + 1023], &lines[block])
        snapdb_kernels.residual(codes + block * BLOCK, lines[block].base, lines[block].whole, lines[block].fraction, left)
        least = <int64_t>left[0]
        for i in range(BLOCK):
            least = min(least, <int64_t>left[i])
        for i in range(BLOCK):
            left[i] -= <uint64_t>least
            most = max(most, left[i])
        memcpy(codes + block * BLOCK, left, sizeof(left))
        lines[block].base = low + step * (lines[block].base + <uint64_t>least)
    return most


cdef Chunk seal_slope(Source source, bint hinted, uint64_t low, uint64_t step, uint64_t top, int64_t best, int64_t* cost):
    """SLOPE where the rule prefers it to ``best`` bytes, else None."""
    cdef Py_ssize_t n = source.rows, blocks = n / BLOCK
    cdef bint opens
    cdef uint64_t most
    cdef Plan plan
    cdef Header head
    cdef Memory codes, lines, memory
    with nogil:
        opens = hinted or slope_gate(source, low, step, blocks * (packed_width(top) - 2))
    if not opens:
        return None
    codes, lines = uncleared(n * 8), uncleared(blocks * sizeof(Line))
    with nogil:
        codes_from(source, source.values, low, step, <uint64_t*>codes.ptr)
        most = take_lines(<uint64_t*>codes.ptr, n, low, step, <Line*>lines.ptr)
        plan_stream(<uint64_t*>codes.ptr, NULL, n, most, &plan)
    cost[0] = <int64_t>(blocks * sizeof(Line)) + plan.cost
    if cost[0] > best if hinted else 10 * cost[0] > 9 * best:
        return None
    memset(&head, 0, sizeof(head))
    head.step = <int64_t>(step if step > 1 else 0)
    memory = assemble(source, SLOPE, &plan, &head, 0, 0, blocks * sizeof(Line))
    with nogil:
        write_stream(&plan, <uint64_t*>codes.ptr, NULL, n, <uint8_t*>memory.ptr, &head)
    memcpy(memory.ptr + head.late_at[2], lines.ptr, blocks * sizeof(Line))
    return finished(memory, &head)


# -- decimals --------------------------------------------------------------

cdef double LARGEST = 2251799813685248.0   # 2**51
cdef double ROUND = 6755399441055744.0     # 1.5 * 2**52
cdef int[3] POWERS = [14, 17, 20]


cdef struct Decimals:
    int digits, power, odd
    uint64_t bits[MOST_ODD + 1]  # of the odd values
    int64_t low, high


cdef inline double float_at(const uint8_t* values, int item, Py_ssize_t row) noexcept nogil:
    return (<const double*>values)[row] if item == 8 else (<const float*>values)[row]


cdef inline uint64_t negative_zero(int item) noexcept nogil:
    return <uint64_t>1 << (8 * item - 1)


cdef int digits_of(int item, double value) noexcept nogil:
    """The fewest digits with which a value, no -0.0, is a decimal; -1 where it is none."""
    cdef int digits
    cdef double x, made
    for digits in range(16 if item == 8 else 10):
        x = value * TENS[digits]
        if not -LARGEST <= x <= LARGEST:
            return -1
        made = ((x + ROUND) - ROUND) / TENS[digits]
        if (made == value) if item == 8 else (<float>made == <float>value):
            return digits
    return -1


cdef int digits_of_sample(Source source) noexcept nogil:
    """The most digits in the sample; -1 where the gate stays closed."""
    cdef int i, most = -1, wrong = 0, digits
    cdef Py_ssize_t row
    cdef double value
    for i in range(64):
        row = i * source.rows / 64
        if source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1:
            continue
        value = float_at(source.values, source.item, row)
        if value - value != 0.0 or item_at(source.values, source.item, row) == negative_zero(source.item):
            continue
        digits = digits_of(source.item, value)
        if digits < 0:
            wrong += 1
        most = max(most, digits)
    return most if wrong <= 4 else -1


cdef bint add_odd(uint64_t* held, int* count, uint64_t bits) noexcept nogil:
    """Hold one more distinct value; whether they are at most 16."""
    cdef int i
    for i in range(count[0]):
        if held[i] == bits:
            return True
    if count[0] == MOST_ODD:
        return False
    held[count[0]] = bits
    count[0] += 1
    return True


cdef int take_decimals(Source source, const uint8_t* values, Decimals* found, int64_t* out, uint8_t* odd) noexcept nogil:
    """Every value as a decimal of ``found.digits`` digits, which may rise, or an odd value; whether they are few enough."""
    cdef Py_ssize_t block, row, rows = source.rows
    cdef int wrong, none, digits, item = source.item
    cdef bint fits
    cdef uint64_t bits
    cdef uint64_t never[MOST_ODD + 1]
    while True:
        found.odd = none = 0
        fits = True
        digits = found.digits
        for block from 0 <= block < rows by BLOCK:
            if item == 8:
                wrong = snapdb_kernels.decimal_codes(<const double*>values + block, TENS[digits], out + block, odd + block)
            else:
                wrong = snapdb_kernels.decimal_codes_f32(<const float*>values + block, TENS[digits], out + block, odd + block)
            if wrong == 0:
                continue
            for row in range(block, block + BLOCK):
                if not odd[row]:
                    continue
                if source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1:
                    odd[row] = out[row] = 0
                    continue
                bits = item_at(values, item, row)
                digits = -1 if bits == negative_zero(item) else digits_of(item, float_at(values, item, row))
                if digits > found.digits:
                    break
                if digits < 0 and not add_odd(never, &none, bits):
                    return False
                if not add_odd(found.bits, &found.odd, bits):
                    fits = False
                digits = found.digits
            if digits > found.digits:
                break
        if digits <= found.digits:
            return fits
        found.digits = digits


cdef void decimal_bounds(Source source, Decimals* found, const int64_t* out, const uint8_t* odd) noexcept nogil:
    cdef Py_ssize_t row
    cdef int64_t low = INT64_MAX, high = INT64_MIN
    for row in range(source.rows):
        if odd[row] or (source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1):
            continue
        low, high = min(low, out[row]), max(high, out[row])
    found.low, found.high = low, high


cdef int power_of(Source source, const uint8_t* values, int digits, const int64_t* decimals, const uint8_t* odd) noexcept nogil:
    """The first power with which the two multiplications give every decimal back, else 0."""
    cdef int i, k, item = source.item
    cdef Py_ssize_t block, row
    cdef double made[BLOCK]
    cdef bint same
    for k in range(3):
        if POWERS[k] <= digits:
            continue
        same = True
        for block from 0 <= block < source.rows by BLOCK:
            snapdb_kernels.decimals(<const uint64_t*>decimals + block, TENS[POWERS[k] - digits], TENTHS[POWERS[k]], 0, made)
            for i in range(BLOCK):
                row = block + i
                if item == 8:
                    same &= odd[row] | (made[i] == (<const double*>values)[row])
                else:
                    same &= odd[row] | (<float>made[i] == (<const float*>values)[row])
            if not same:
                break
        if same:
            return POWERS[k]
    return 0


cdef void sort_odd(int item, Decimals* found) noexcept nogil:
    cdef int i, j
    cdef uint64_t bits
    for i in range(1, found.odd):
        bits = found.bits[i]
        j = i
        while j and key_of(item, False, True, found.bits[j - 1]) > key_of(item, False, True, bits):
            found.bits[j] = found.bits[j - 1]
            j -= 1
        found.bits[j] = bits


cdef void decimal_codes(Source source, const Decimals* found, uint64_t step, uint64_t plain, int64_t* codes,
                        const uint8_t* odd) noexcept nogil:
    """Decimals to codes, in place."""
    cdef Py_ssize_t row
    cdef int number
    cdef uint64_t bits
    for row in range(source.rows):
        if source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1:
            codes[row] = 0
        elif odd[row]:
            bits = item_at(source.values, source.item, row)
            number = 0
            while found.bits[number] != bits:
                number += 1
            codes[row] = <int64_t>(plain + number)
        else:
            codes[row] -= found.low
            if step > 1:
                codes[row] = <int64_t>(<uint64_t>codes[row] / step)


cdef uint64_t decimal_step(Source source, const Decimals* found, const int64_t* decimals, const uint8_t* odd) noexcept nogil:
    cdef uint64_t step = 0, value, span = <uint64_t>(found.high - found.low)
    cdef Py_ssize_t row
    if packed_width(span) <= 4:
        return 1
    for row in range(source.rows):
        if odd[row] or (source.nulls and source.null_bits[row >> 3] >> (row & 7) & 1):
            continue
        value = <uint64_t>(decimals[row] - found.low)
        if step and value % step == 0:
            continue
        step = gcd64(value, step)
        if step == 1:
            return 1
    return useful_step(step, span)


cdef Chunk seal_decimals(Source source, int64_t best, int64_t* cost):
    """DEC where the rule prefers it to ``best`` bytes, else None."""
    cdef Py_ssize_t n = source.rows, i
    cdef const uint8_t* values
    cdef Decimals found
    cdef Memory codes, odd, memory
    cdef Plan plan
    cdef Header head
    cdef uint64_t step, plain
    cdef bint fits
    found.digits = digits_of_sample(source)
    if found.digits < 0:
        return None
    values = source.filled(0)
    codes, odd = uncleared(n * 8), uncleared(n)
    with nogil:
        fits = take_decimals(source, values, &found, <int64_t*>codes.ptr, <uint8_t*>odd.ptr)
        if fits:
            decimal_bounds(source, &found, <int64_t*>codes.ptr, <uint8_t*>odd.ptr)
            found.power = power_of(source, values, found.digits, <int64_t*>codes.ptr, <uint8_t*>odd.ptr)
            sort_odd(source.item, &found)
            step = decimal_step(source, &found, <int64_t*>codes.ptr, <uint8_t*>odd.ptr)
            plain = <uint64_t>(found.high - found.low) / step + 1
            decimal_codes(source, &found, step, plain, <int64_t*>codes.ptr, <uint8_t*>odd.ptr)
            plan_stream(<uint64_t*>codes.ptr, source.valid_bits if source.nulls else NULL, n, plain + found.odd - 1, &plan)
    if not fits:
        return None
    cost[0] = plan.cost + found.odd * source.item
    if 100 * cost[0] > 85 * best:
        return None
    memset(&head, 0, sizeof(head))
    head.base, head.step, head.count = found.low, <int64_t>(step if step > 1 else 0), found.odd
    head.digits, head.power, head.plain = found.digits, found.power, plain
    memory = assemble(source, DEC, &plan, &head, 0, found.odd * source.item, 0)
    for i in range(found.odd):
        memcpy(memory.ptr + head.places[3] + i * source.item, &found.bits[i], source.item)
    with nogil:
        write_stream(&plan, <uint64_t*>codes.ptr, source.valid_bits if source.nulls else NULL, n, <uint8_t*>memory.ptr, &head)
    return finished(memory, &head)


# -- front coding ----------------------------------------------------------

cdef inline Py_ssize_t put_length(uint64_t value, uint8_t* out, Py_ssize_t at) noexcept nogil:
    while value >= 128:
        if out != NULL:
            out[at] = <uint8_t>(value & 127 | 128)
        value >>= 7
        at += 1
    if out != NULL:
        out[at] = <uint8_t>value
    return at + 1


cdef Py_ssize_t front_code(const SnapdbEntry* entries, const uint32_t* order, Py_ssize_t count, uint32_t* restarts,
                           uint8_t* out) noexcept nogil:
    """The length of a front-coded heap, which is written where ``out`` is not NULL."""
    cdef Py_ssize_t i, at = 0, shared, least
    cdef const SnapdbEntry* entry
    cdef const SnapdbEntry* before = NULL
    for i in range(count):
        entry = &entries[order[i]]
        shared = 0
        if i % RESTART:
            least = min(<Py_ssize_t>entry.size, <Py_ssize_t>before.size)
            while shared < least and entry.ptr[shared] == before.ptr[shared]:
                shared += 1
            at = put_length(shared, out, at)
        elif out != NULL:
            restarts[i / RESTART] = <uint32_t>at
        at = put_length(entry.size - shared, out, at)
        if out != NULL:
            memcpy(out + at, entry.ptr + shared, entry.size - shared)
        at += entry.size - shared
        before = entry
    if out != NULL:
        restarts[(count + RESTART - 1) / RESTART] = <uint32_t>at
    return at


# -- dictionaries ----------------------------------------------------------

cdef void rank_rows(const uint32_t* codes, const uint32_t* rank, Py_ssize_t rows, uint64_t* out) noexcept nogil:
    """Group numbers to ranks; a row without a group (a null) gets 0."""
    cdef Py_ssize_t row
    for row in range(rows):
        out[row] = 0 if codes[row] == NONE else rank[codes[row]]
