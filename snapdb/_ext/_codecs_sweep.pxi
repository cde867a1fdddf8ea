# Many segments at a call: zone maps judged, conditions put to the blocks that are still alive, answers added up.

# -- what a zone map says --------------------------------------------------

cdef enum Verdict:
    UNKNOWN, NO_ROW, EVERY_ROW


cdef enum Asked:  # the kinds of ``conditions.Predicate``
    IN_RANGE, ONE_OF, NEVER, NULLS, NOT_NULL


cdef dict _ASKED = {"range": IN_RANGE, "in": ONE_OF, "never": NEVER, "null": NULLS, "not_null": NOT_NULL}


cdef object _SMALL = 1 << 61


cdef bint is_small(value):
    return value is None or (type(value) is int and -_SMALL < value < _SMALL)


@cython.final
cdef class Term:
    """One condition on one column."""
    cdef Py_ssize_t column
    cdef Asked kind
    cdef object lo, hi, values
    cdef bint lo_open, hi_open, negate
    cdef bint is_small      # a closed range of integers of at most 61 bits
    cdef int64_t least, most

    def __init__(self, Py_ssize_t column, kind, lo, hi, bint lo_open, bint hi_open, values, bint negate):
        self.column = column
        self.kind = _ASKED[kind]
        self.lo, self.hi, self.values = lo, hi, values
        self.lo_open, self.hi_open, self.negate = lo_open, hi_open, negate
        self.is_small = not lo_open and not hi_open and is_small(lo) and is_small(hi)
        if self.is_small:
            self.least = 0 if lo is None else lo
            self.most = 0 if hi is None else hi


@cython.final
cdef class Filter:
    """Bound conditions, all of them or any of them, to be asked of many segments.

    ``terms``: (column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as a ``Predicate`` has them.
    """
    cdef list terms
    cdef bint any_of

    def __init__(self, terms, bint any_of=False):
        self.terms = []
        for given in terms:
            self.terms.append(Term(*given))
        self.any_of = any_of


cdef inline Verdict unless_null(tuple zone) except *:
    return EVERY_ROW if zone[3] == 0 else UNKNOWN


cdef Verdict judge(Term term, object given) except *:
    """What a zone map alone says of a condition."""
    cdef tuple zone
    if given is None:
        return UNKNOWN
    zone = <tuple>given  # a named tuple: lo, hi, exact, nulls, nans, total
    if term.kind == NEVER:
        return unless_null(zone) if term.negate else NO_ROW
    if term.kind == NULLS:
        return NO_ROW if zone[3] == 0 else UNKNOWN
    if term.kind == NOT_NULL:
        return unless_null(zone)
    lo, hi = zone[0], zone[1]
    if lo is None:
        return NO_ROW if zone[4] == 0 else UNKNOWN
    if term.kind == ONE_OF:
        values = term.values
        if not values or (hi is not None and hi < values[0]) or lo > values[len(values) - 1]:
            return unless_null(zone) if term.negate else NO_ROW
        return UNKNOWN
    if (term.hi is not None and (lo > term.hi or (term.hi_open and lo >= term.hi))) or (
        term.lo is not None and hi is not None and (hi < term.lo or (term.lo_open and hi <= term.lo))
    ):
        return unless_null(zone) if term.negate else NO_ROW
    if zone[3] != 0 or zone[4] != 0:
        return UNKNOWN
    if term.lo is not None and not (lo > term.lo or (lo == term.lo and not term.lo_open)):
        return UNKNOWN
    if term.hi is not None and (hi is None or not (hi < term.hi or (hi == term.hi and not term.hi_open))):
        return UNKNOWN
    return NO_ROW if term.negate else EVERY_ROW


# -- a condition over a chunk ----------------------------------------------

cdef enum Mode:
    OF_NONE, OF_EVERY, OF_NULLS, OF_BITS, OF_RANGE, OF_F32, OF_F64  # in the order of what they cost


cdef struct Test:
    Mode mode
    bint negate
    int table               # OF_RANGE: of the containers
    int width, container    # OF_RANGE: bits of a packed value; the same where nothing is packed
    uint64_t lo, span
    double low, high
    Py_ssize_t rows
    const uint8_t* values   # packed or plain, or the bits
    const uint8_t* nulls    # NULL where no row is null
    const uint32_t* starts  # EXCEPTED: of each block's exceptions
    const uint16_t* marks
    const uint8_t* codes


cdef int translate(Test* test, Term term, Chunk chunk, list hold) except -1:
    """A condition as one test a block. What it reads is kept alive by the chunk and ``hold``."""
    cdef uint64_t start = 0, span = 0
    cdef Reach reach = APART
    cdef Py_ssize_t first = 0, last = 0
    memset(test, 0, sizeof(Test))
    test.rows = chunk.rows
    test.nulls = chunk.null_bits
    test.negate = term.negate
    if term.kind == NULLS:
        test.negate = False
        test.mode = OF_NONE if chunk.null_count == 0 else OF_EVERY if chunk.null_count == chunk.rows else OF_NULLS
        test.nulls = NULL
        test.values = chunk.null_bits
        return 0
    if chunk.null_count == chunk.rows or (term.kind == NEVER and not term.negate):
        test.mode = OF_NONE
        test.negate = False
        test.nulls = NULL
        return 0
    if term.kind == NEVER or term.kind == NOT_NULL:
        test.mode = OF_EVERY
        test.negate = False
        return 0
    if term.kind == ONE_OF:
        return beforehand(test, chunk, chunk.select_in(term.values), hold)
    if chunk.is_string:
        if chunk.codec == DICT:
            first = 0 if term.lo is None else entries_below(chunk, term.lo, term.lo_open)
            last = chunk.distinct if term.hi is None else entries_below(chunk, term.hi, not term.hi_open)
            reach = reach_of_codes(first, last - 1, chunk.distinct - 1, &start, &span)
    elif chunk.is_float:
        if chunk.codec == RAW:
            return translate_floats(test, term, chunk)
        if chunk.codec == DICT and not term.lo_open and not term.hi_open:
            entries_between(chunk, -INFINITY if term.lo is None else term.lo, INFINITY if term.hi is None else term.hi, &first, &last)
            reach = reach_of_codes(first, last, chunk.distinct - 1, &start, &span)
    else:
        reach = reach_of_term(term, chunk, &start, &span)
    if reach == NOTHING:
        test.mode = OF_NONE
    elif reach == EVERY:
        test.mode = OF_EVERY
    elif reach == APART or chunk.layout == RUNS or (chunk.codec != RAW and reach == OF_VALUES):
        return beforehand(test, chunk, chunk.select(term.lo, term.hi, term.lo_open, term.hi_open), hold)
    else:
        test.mode = OF_RANGE
        test.lo, test.span = start, span
        test.values = chunk.values
        test.container = chunk.container if reach == OF_CODES else 8 * chunk.item
        test.width = chunk.width if reach == OF_CODES else 8 * chunk.item
        test.table = table_of(test.container)
        if chunk.layout == EXCEPTED:
            test.starts = <const uint32_t*>chunk.places
            test.marks = <const uint16_t*>mark_rows(chunk)
            test.codes = chunk.run_codes
    return 0


cdef Reach reach_of_term(Term term, Chunk chunk, uint64_t* start, uint64_t* span) except *:
    cdef int64_t least, most, room = <int64_t>1 << 61
    if chunk.codec == FOR and term.is_small and -room < chunk.base < room and chunk.top < <uint64_t>room and chunk.code != U64:
        least = 0 if term.lo is None else max(term.least - chunk.base, <int64_t>0)
        most = <int64_t>chunk.top  # times the step it may be past 2^63: codes are compared, never values
        if chunk.scale != 1:
            least = least / chunk.scale + (least % chunk.scale != 0)
        if term.hi is not None:
            if term.most < chunk.base:
                return NOTHING
            most = min(most, (term.most - chunk.base) / chunk.scale if chunk.scale != 1 else term.most - chunk.base)
        if least > most:
            return NOTHING
        if least == 0 and most == <int64_t>chunk.top:
            return EVERY
        start[0] = <uint64_t>least
        span[0] = <uint64_t>(most - least)
        return OF_CODES
    low, high = _LIMITS[chunk.code]
    lo = low if term.lo is None else max(low, term.lo + term.lo_open)
    hi = high if term.hi is None else min(high, term.hi - term.hi_open)
    if lo > hi:
        return NOTHING
    if lo == low and hi == high:
        return EVERY
    return reach_of_ints(chunk, lo, hi, start, span)


cdef int beforehand(Test* test, Chunk chunk, bytearray found, list hold) except -1:
    hold.append(found)
    test.mode = OF_BITS
    test.values = bits_of(found)
    return 0


cdef int translate_floats(Test* test, Term term, Chunk chunk) except -1:
    cdef float narrow
    test.low = -INFINITY if term.lo is None else term.lo
    test.high = INFINITY if term.hi is None else term.hi
    if term.lo_open:
        test.low = nextafter(test.low, INFINITY) if test.low < INFINITY else NAN
    if term.hi_open:
        test.high = nextafter(test.high, -INFINITY) if test.high > -INFINITY else NAN
    if not test.low <= test.high:
        test.mode = OF_NONE
        return 0
    test.values = chunk.values
    test.mode = OF_F64
    if chunk.code == F32:
        test.mode = OF_F32
        narrow = <float>test.low
        test.low = nextafterf(narrow, <float>INFINITY) if <double>narrow < test.low else narrow
        narrow = <float>test.high
        test.high = nextafterf(narrow, -<float>INFINITY) if <double>narrow > test.high else narrow
    return 0


cdef inline const void* plain_block(const Test* test, Py_ssize_t block, int item, Scratch* s) noexcept nogil:
    """A block of stored values; of a short last one a copy, for there may be no memory behind it."""
    cdef Py_ssize_t n = test.rows - block * BLOCK
    if n >= BLOCK:
        return test.values + block * BLOCK * item
    memset(s.values, 0, BLOCK * item)
    memcpy(s.values, test.values + block * BLOCK * item, n * item)
    return s.values


cdef inline const void* code_block(const Test* test, Py_ssize_t block, Scratch* s) noexcept nogil:
    cdef uint32_t start
    if test.width == test.container and test.starts == NULL:
        return plain_block(test, block, test.container >> 3, s)
    if test.width:
        snapdb_kernels.unpack(test.values + block * 128 * test.width, test.width, test.container, s.values)
    else:
        memset(s.values, 0, 128 * test.container)
    if test.starts != NULL:
        start = test.starts[block]
        snapdb_patch(s.values, test.container, test.marks + start, test.codes + start * <size_t>(test.container >> 3),
                     test.starts[block + 1] - start)
    return s.values


cdef void ask_block(const Test* test, Py_ssize_t block, Scratch* s) noexcept nogil:
    """The rows of a block that pass, in ``s.words``. Rows behind the last one may be among them."""
    cdef Py_ssize_t bytes = mask_size(test.rows - block * BLOCK), i
    if bytes > BLOCK >> 3:
        bytes = BLOCK >> 3
    if test.mode == OF_RANGE:
        snapdb_kernels.range[test.table](code_block(test, block, s), test.lo, test.span, <uint8_t*>s.words)
    elif test.mode == OF_F64:
        snapdb_kernels.range_f64(plain_block(test, block, 8, s), test.low, test.high, <uint8_t*>s.words)
    elif test.mode == OF_F32:
        snapdb_kernels.range_f32(plain_block(test, block, 4, s), <float>test.low, <float>test.high, <uint8_t*>s.words)
    elif test.mode == OF_BITS or test.mode == OF_NULLS:
        memset(s.words, 0, 8 * WORDS)
        memcpy(s.words, test.values + block * (BLOCK >> 3), bytes)
    else:
        memset(s.words, 0xFF if test.mode == OF_EVERY else 0, 8 * WORDS)
    if test.negate:
        for i in range(WORDS):
            s.words[i] = ~s.words[i]
    if test.nulls != NULL:
        memset(s.nulls, 0, 8 * WORDS)
        memcpy(s.nulls, test.nulls + block * (BLOCK >> 3), bytes)
        for i in range(WORDS):
            s.words[i] &= ~s.nulls[i]


cdef Py_ssize_t ask_piece(const Test* tests, Py_ssize_t count, bint any_of, Py_ssize_t rows, const uint8_t* deleted,
                          uint8_t* out) noexcept nogil:
    """Live rows of a piece that pass the tests, how many; ``out`` gets their bits where it is not NULL."""
    cdef Scratch s
    cdef uint64_t alive[WORDS]
    cdef uint64_t found[WORDS]
    cdef uint64_t left
    cdef Py_ssize_t block, t, i, n, total = 0
    for block in range((rows + BLOCK - 1) >> 10):
        n = min(rows - block * BLOCK, <Py_ssize_t>BLOCK)
        if n == BLOCK and deleted == NULL and count and not any_of:  # nearly all blocks: the first test alone says it
            for t in range(count):
                ask_block(&tests[t], block, &s)
                left = 0
                for i in range(WORDS):
                    alive[i] = alive[i] & s.words[i] if t else s.words[i]
                    left |= alive[i]
                if left == 0:
                    break
            n = <Py_ssize_t>snapdb_kernels.popcount(alive, WORDS)
            total += n
            if out != NULL:
                memcpy(out + block * (BLOCK >> 3), alive, 8 * WORDS)
            continue
        if n == BLOCK:
            memset(alive, 0xFF, 8 * WORDS)
        else:
            memset(alive, 0, 8 * WORDS)
            snapdb_fill_bits(<uint8_t*>alive, 0, n)
        if deleted != NULL:
            memset(found, 0, 8 * WORDS)
            memcpy(found, deleted + block * (BLOCK >> 3), mask_size(n))
            for i in range(WORDS):
                alive[i] &= ~found[i]
        if any_of:
            memset(found, 0, 8 * WORDS)
            for t in range(count):
                ask_block(&tests[t], block, &s)
                left = 0
                for i in range(WORDS):
                    found[i] |= s.words[i]
                    left |= alive[i] & ~found[i]
                if left == 0:
                    break
            for i in range(WORDS):
                alive[i] &= found[i]
        else:
            for t in range(count):
                ask_block(&tests[t], block, &s)
                left = 0
                for i in range(WORDS):
                    alive[i] &= s.words[i]
                    left |= alive[i]
                if left == 0:
                    break
        total += <Py_ssize_t>snapdb_kernels.popcount(alive, WORDS)
        if out != NULL:
            memcpy(out + block * (BLOCK >> 3), alive, mask_size(n))
    return total


# -- segments --------------------------------------------------------------

cdef enum:
    MOST_TESTS = 64


cdef enum Kind:
    COUNTED, VALUES, TOTAL, BOUNDS, BITS


cdef list NO_SEGMENTS = []  # of a column that nobody will ask for
cdef dict NO_UPDATES = {}


@cython.final
cdef class Sweep:
    """Segments of a columnar table as of one moment, scanned many at a call; nothing is changed.

    ``parts``, ``zones``: a list a column of what each segment is made of and of its zone map, empty for a column that
    nobody will ask for; ``overlays``: a dict a column of the segments with updates; ``deleted``: the bitmap of each segment's deleted rows, or None; ``rows``: all.
    Every method starts at segment ``k`` and returns (answer, next): it stops in front of a segment that it cannot do
    alone, in which a column that it needs has updates or is not read yet, and at the end.
    """
    cdef readonly list parts, zones, overlays, deleted
    cdef Py_ssize_t rows, count_of

    def __init__(self, list parts, list zones, list overlays, list deleted, Py_ssize_t rows):
        self.parts, self.zones, self.overlays, self.deleted = parts, zones, overlays, deleted
        self.rows = rows
        self.count_of = (rows + SEGMENT - 1) // SEGMENT
        if not len(parts) == len(zones) == len(overlays) or len(deleted) < self.count_of:
            raise ValueError("the columns differ in their segments")

    @staticmethod
    def of(list columns not None, only, list deleted not None, Py_ssize_t rows):
        """A sweep of columns as they are now: their lists are copied. ``only``: the numbers of those that will be asked for, None: all."""
        cdef Py_ssize_t count = len(columns), j
        cdef list parts = [NO_SEGMENTS] * count, zones = [NO_SEGMENTS] * count, overlays = [NO_UPDATES] * count
        for j in range(count) if only is None else only:
            if not 0 <= j < count:
                raise ValueError(f"column {j} is outside 0..{count}")
            column = columns[j]
            parts[j], zones[j] = (<list?>column.parts)[:], (<list?>column.zones)[:]
            updates = column.overlays
            if updates:
                updates = {k: dict(rows_of) for k, rows_of in updates.items()}
                overlays[j] = updates
        return Sweep(parts, zones, overlays, deleted[:], rows)

    def count(self, Filter filter, Py_ssize_t k):
        """Live rows that match."""
        return sweep(self, COUNTED, filter, 0, k, False, 0, 0)

    def values(self, Filter filter, Py_ssize_t column, Py_ssize_t k, bint zones):
        """Live rows that match and have a value in a column. ``zones`` here and below: a segment that is selected as
        a whole is answered from its zone map.
        """
        return sweep(self, VALUES, filter, column, k, zones, 0, 0)

    def sum(self, Filter filter, Py_ssize_t column, Py_ssize_t k, start, bint zones):
        """``start`` plus each segment's sum in turn."""
        return sweep(self, TOTAL, filter, column, k, zones, start, 0)

    def bounds(self, Filter filter, Py_ssize_t column, Py_ssize_t k, bint zones):
        """The bounds of each segment that has any, in order: a list of (least, greatest)."""
        return sweep(self, BOUNDS, filter, column, k, zones, 0, 0)

    def masks(self, Filter filter, Py_ssize_t k, Py_ssize_t most):
        """(segment, bitmap of its live rows that match, None for every position) of the segments that have one, until
        ``most`` rows are found.
        """
        return sweep(self, BITS, filter, 0, k, False, 0, most)


cdef int must_know(Sweep self, Py_ssize_t column) except -1:
    """ValueError for a column that is not there, or not one of those that the sweep was made for."""
    if not 0 <= column < len(self.parts):
        raise ValueError(f"column {column} is outside 0..{len(self.parts)}")
    if len(<list>self.parts[column]) < self.count_of or len(<list>self.zones[column]) < self.count_of:
        raise ValueError(f"column {column} is not in this sweep")
    return 0


cdef object part_ready(Sweep self, Py_ssize_t column, Py_ssize_t k):
    """What a column's segment is made of; None where this takes another path."""
    cdef dict updates = <dict>(self.overlays[column])
    part = (<list>self.parts[column])[k]
    if type(part) is not tuple:
        return None
    if updates and updates.get(k):
        return None
    sealed = (<tuple>part)[0]
    if sealed is not None and type(sealed) is not Chunk:
        return None
    tail = (<tuple>part)[1]
    if tail is not None and not isinstance(tail, ColumnBuffer):
        return None
    return part


cdef Chunk piece_of(tuple part, Py_ssize_t piece, Py_ssize_t rows):
    """The sealed chunk, or a view of the tail; it has as many rows as in the other columns."""
    cdef Chunk chunk = None
    if part[piece] is not None:
        chunk = part[0] if piece == 0 else view_of(part[1], 0, rows)
    if chunk is None or chunk.rows != rows:
        raise ValueError("the columns of a segment differ in their rows")
    return chunk


cdef object sweep(Sweep self, Kind kind, Filter filter, Py_ssize_t column, Py_ssize_t k, bint zones, object start, Py_ssize_t most):
    cdef Test tests[MOST_TESTS]
    cdef Term term
    cdef Py_ssize_t total = 0, found, size, base, t, used, piece, rows, at, shape
    cdef Py_ssize_t count = 0 if filter is None else len(filter.terms)
    cdef bint any_of = filter is not None and filter.any_of, whole_piece
    cdef Verdict verdicts[MOST_TESTS]
    cdef Verdict verdict
    cdef Py_buffer held
    cdef const uint8_t* deleted
    cdef uint8_t* out
    cdef bytearray mask
    cdef list answers = [], hold
    cdef Chunk chunk
    cdef bint settled
    if not 0 <= k <= self.count_of:
        raise ValueError(f"segment {k} is outside 0..{self.count_of}")
    must_know(self, column)
    shape = column
    if kind == COUNTED or kind == BITS:
        shape = 0 if count == 0 else (<Term>filter.terms[0]).column
    must_know(self, shape)
    for t in range(count):
        must_know(self, (<Term>filter.terms[t]).column)
    if count > MOST_TESTS:
        return answer_of(kind, total, start, answers), k
    while k < self.count_of:
        ready = (<list>self.parts[shape])[k]
        if ready is None:
            k += 1
            continue
        if type(ready) is not tuple:
            break
        sealed = (<tuple>ready)[0]
        if sealed is not None and type(sealed) is not Chunk:
            break
        base = 0 if sealed is None else (<Chunk>sealed).rows
        size = min(<Py_ssize_t>SEGMENT, self.rows - k * SEGMENT)
        if base > size:
            break
        # what zone maps say of the sealed part
        settled = size == base  # whether zone maps alone select all rows or none
        verdict = EVERY_ROW
        used = 0
        for t in range(count):
            term = filter.terms[t]
            verdicts[t] = judge(term, (<list>self.zones[term.column])[k]) if base else UNKNOWN
            if verdicts[t] == UNKNOWN:
                used += 1
            elif verdicts[t] == (EVERY_ROW if any_of else NO_ROW):
                used = -count - 1  # nothing else matters
        if count == 0:
            verdict = EVERY_ROW
        elif used < 0:
            verdict = EVERY_ROW if any_of else NO_ROW
        elif used:
            verdict = UNKNOWN
        else:
            verdict = NO_ROW if any_of else EVERY_ROW
        if verdict == NO_ROW and settled:
            k += 1
            continue
        # every column that is read must be ready
        whole_piece = True
        for t in range(count):
            term = filter.terms[t]
            if (verdict == UNKNOWN and verdicts[t] == UNKNOWN) or not settled:
                if part_ready(self, term.column, k) is None:
                    whole_piece = False
        if kind != COUNTED and kind != BITS and part_ready(self, column, k) is None:
            whole_piece = False
        if not whole_piece:
            break
        memset(&held, 0, sizeof(held))
        dead = self.deleted[k]
        if dead is not None:
            take_bytes(dead, &held)
            if held.len < mask_size(size):
                PyBuffer_Release(&held)
                break
        try:
            mask = None
            found = 0
            out = NULL
            if dead is None and verdict == EVERY_ROW and (settled or count == 0):
                found = size
            else:
                if kind != COUNTED:
                    mask = new_bytes(mask_size(size))
                    out = bits_of(mask)
                for piece in range(2):
                    at = 0 if piece == 0 else base
                    rows = base if piece == 0 else size - base
                    if rows == 0:
                        continue
                    deleted = NULL
                    if dead is not None:
                        deleted = <const uint8_t*>held.buf + (at >> 3)
                    hold = []
                    used = 0
                    if (piece == 0 and verdict == UNKNOWN) or (piece == 1 and count):
                        for t in range(count):
                            term = filter.terms[t]
                            if piece == 0 and verdicts[t] != UNKNOWN:
                                continue
                            chunk = piece_of(<tuple>(<list>self.parts[term.column])[k], piece, rows)
                            hold.append(chunk)
                            translate(&tests[used], term, chunk, hold)
                            used += 1
                        order_tests(tests, used)
                    elif piece == 0 and verdict == NO_ROW:
                        memset(&tests[0], 0, sizeof(Test))
                        tests[0].rows = rows
                        used = 1
                    with nogil:
                        found += ask_piece(tests, used, any_of and used > 0, rows, deleted, NULL if out == NULL else out + (at >> 3))
        finally:
            if dead is not None:
                PyBuffer_Release(&held)
        k += 1
        if found == 0:
            continue
        total += found
        if kind == BITS:
            answers.append((k - 1, mask))
            if total >= most:
                break
        elif kind != COUNTED:
            start = reduce_segment(self, kind, column, k - 1, base, size, mask, zones, start, answers)
    if kind == VALUES:
        total = 0
    return answer_of(kind, total, start, answers), k


cdef object bounds_of_chunk(Chunk chunk, const uint8_t* mask):
    if chunk.is_float:
        return float_bounds(chunk, mask)
    return string_bounds(chunk, mask) if chunk.is_string and chunk.codec == RAW else word_bounds(chunk, mask)


cdef object answer_of(Kind kind, Py_ssize_t total, object start, list answers):
    if kind == COUNTED:
        return total
    return start if kind == VALUES or kind == TOTAL else answers


cdef void order_tests(Test* tests, Py_ssize_t count) noexcept:
    """The cheap ones first."""
    cdef Py_ssize_t i, j
    cdef Test test
    for i in range(1, count):
        test = tests[i]
        j = i
        while j > 0 and (tests[j - 1].mode > test.mode or (tests[j - 1].mode == test.mode and tests[j - 1].container > test.container)):
            tests[j] = tests[j - 1]
            j -= 1
        tests[j] = test


cdef object reduce_segment(Sweep self, Kind kind, Py_ssize_t column, Py_ssize_t k, Py_ssize_t base, Py_ssize_t size, bytearray mask,
                           bint zones, object start, list answers):
    """A segment's count, sum or bounds of a column, after ``start``."""
    cdef tuple part = <tuple>(<list>self.parts[column])[k]
    cdef Chunk chunk
    cdef Py_ssize_t piece, rows, found = 0
    cdef const uint8_t* bits = NULL if mask is None else bits_of(mask)
    cdef tuple zone = None
    given = (<list>self.zones[column])[k]
    if zones and mask is None and given is not None and given[2]:
        zone = <tuple>given
    total = None
    for piece in range(2):
        rows = base if piece == 0 else size - base
        if rows == 0:
            continue
        if piece == 0 and zone is not None:
            if kind == VALUES:
                start = start + (base - zone[3])
            elif kind == TOTAL:
                total = zone[5]
            elif zone[0] is not None:
                answers.append((zone[0], zone[1]))
            continue
        chunk = piece_of(part, piece, rows)
        if kind == VALUES:
            if bits == NULL:
                found = chunk.rows - chunk.null_count
            else:
                with nogil:
                    found = count_rows(chunk, bits)
            start = start + found
        elif kind == TOTAL:
            if chunk.is_float:
                total = sum_floats(chunk, bits, 0.0 if total is None else total)
            else:
                total = sum_ints(chunk, bits) + (0 if total is None else total)
        else:
            bounds = bounds_of_chunk(chunk, bits)
            if bounds is not None:
                answers.append(bounds)
        if bits != NULL:
            bits += rows >> 3  # a sealed part is whole blocks
    if kind == TOTAL and total is not None:
        start = start + total
    return start
