# What a condition asks of a row's bytes: bound conditions translated into ``Test``s; part of _slab.pyx.

cdef enum Mode:  # of tests, in the order of what they cost
    NO_ROW, EVERY_ROW, OF_NULLS, OF_INTEGERS, OF_SINGLES, OF_DOUBLES, OF_MARKS, OF_WORDS, OF_SHORT, OF_TEXT, OF_TEXTS


ctypedef struct Entry:
    # a value of a list
    const char* ptr
    Py_ssize_t size
    uint64_t word  # fixed width: the value; texts: their hash


ctypedef struct Test:
    const Column* column
    Mode mode
    bint negate
    bint lo_open, hi_open, exact
    uint64_t lo, span  # OF_INTEGERS; OF_SHORT: the text and the bytes of a word that it takes
    double low, high
    const char* from_text  # OF_TEXT: NULL where there is no bound
    const char* to_text
    Py_ssize_t from_size, to_size
    const uint8_t* marks  # OF_MARKS: of each value
    const Entry* entries  # OF_WORDS, OF_TEXTS
    const uint32_t* slots  # a hash table of numbers of entries, from 1 on; 0: free
    uint64_t slot_mask


cdef object _MASK64 = 0xFFFFFFFFFFFFFFFF


cdef Memory tests_of(Layout layout, list terms, list keep):
    """Conditions, cheapest first, as ``Test``s; ``keep`` keeps alive what they point to."""
    cdef Memory found = allocate((len(terms) + 1) * <Py_ssize_t>sizeof(Test))
    cdef Test* tests = <Test*>found.ptr
    cdef Test moved
    cdef Py_ssize_t i, at
    cdef int column
    for i in range(len(terms)):
        given, kind, lo, hi, lo_open, hi_open, values, negate = terms[i]
        if not 0 <= given < layout.count:
            raise IndexError(f"column {given} is outside 0..{layout.count}")
        column = given
        tests[i].column = &layout.columns[column]
        tests[i].lo_open, tests[i].hi_open, tests[i].negate = lo_open, hi_open, negate
        translate(&tests[i], kind, lo, hi, values, keep)
        at = i
        while at and tests[at].mode < tests[at - 1].mode:
            moved = tests[at]
            tests[at] = tests[at - 1]
            tests[at - 1] = moved
            at -= 1
    return found


cdef int translate(Test* test, object kind, object lo, object hi, object values, list keep) except -1:
    cdef const Column* column = test.column
    if kind == "null":
        test.negate = False
        test.mode = OF_NULLS if column.null_index >= 0 else NO_ROW
    elif kind == "not_null":
        test.negate = False
        test.mode = EVERY_ROW
    elif kind == "never":
        test.mode = NO_ROW
    elif kind != "range" and kind != "in":
        raise ValueError(f"unknown condition {kind!r}")
    elif column.kind != FIXED:
        list_texts(test, values, keep) if kind == "in" else text_range(test, lo, hi, keep)
    elif kind == "in":
        list_words(test, values, keep)
    elif column.code == F64 or column.code == F32:
        float_range(test, lo, hi)
    else:
        integer_range(test, lo, hi)
    if test.negate and test.mode <= EVERY_ROW:
        test.negate = False
        test.mode = EVERY_ROW if test.mode == NO_ROW else NO_ROW
    return 0


cdef inline int table_of(int width) noexcept nogil:
    """The index of a width in the tables of kernels."""
    return 0 if width == 1 else 1 if width == 2 else 2 if width == 4 else 3


cdef int integer_range(Test* test, object lo, object hi) except -1:
    low, high = _LIMITS[test.column.code]
    lo = low if lo is None else max(low, lo + test.lo_open)
    hi = high if hi is None else min(high, hi - test.hi_open)
    if lo > hi:
        test.mode = NO_ROW
    elif lo == low and hi == high:
        test.mode = EVERY_ROW
    else:
        test.mode = OF_INTEGERS
        test.lo, test.span = lo & _MASK64, hi - lo
    return 0


cdef int float_range(Test* test, object lo, object hi) except -1:
    cdef float narrow
    test.low = -INFINITY if lo is None else lo
    test.high = INFINITY if hi is None else hi
    if lo is not None and test.lo_open:
        test.low = nextafter(test.low, INFINITY) if test.low < INFINITY else NAN
    if hi is not None and test.hi_open:
        test.high = nextafter(test.high, -INFINITY) if test.high > -INFINITY else NAN
    if not test.low <= test.high:
        test.mode = NO_ROW
        return 0
    test.mode = OF_DOUBLES
    if test.column.code == F32:
        test.mode = OF_SINGLES
        narrow = <float>test.low
        test.low = nextafterf(narrow, <float>INFINITY) if <double>narrow < test.low else narrow
        narrow = <float>test.high
        test.high = nextafterf(narrow, -<float>INFINITY) if <double>narrow > test.high else narrow
        if not test.low <= test.high:
            test.mode = NO_ROW
    return 0


cdef int text_range(Test* test, object lo, object hi, list keep) except -1:
    cdef uint64_t word = 0
    cdef bytes text
    if lo is not None:
        text = <bytes?>lo
        keep.append(text)
        test.from_text, test.from_size = PyBytes_AS_STRING(text), len(text)
    if hi is not None:
        text = <bytes?>hi
        keep.append(text)
        test.to_text, test.to_size = PyBytes_AS_STRING(text), len(text)
    if lo is None and hi is None:
        test.mode = EVERY_ROW
        return 0
    test.mode = OF_TEXT
    test.exact = lo is not None and lo == hi
    if not test.exact:
        return 0
    if test.lo_open or test.hi_open:
        test.mode = NO_ROW
    elif test.column.kind == INLINE and test.from_size > test.column.limit:
        test.mode = NO_ROW
    elif test.column.kind == INLINE and test.from_size <= 8:
        memcpy(&word, test.from_text, test.from_size)
        test.mode = OF_SHORT
        test.lo = word
        test.span = <uint64_t>-1 >> (64 - 8 * test.from_size) if test.from_size else 0
    return 0


cdef int list_words(Test* test, object values, list keep) except -1:
    """A list of integers or floats."""
    cdef int code = test.column.code, width = test.column.width
    cdef bint is_float = code == F64 or code == F32
    cdef list words = []
    cdef Memory memory
    cdef double number
    for value in values:
        if is_float:
            number = value
            if number == number and (code == F64 or <double><float>number == number):
                words.append(float_word(number))
        else:
            low, high = _LIMITS[code]
            if low <= value <= high:
                words.append(_index(value) & _MASK64)
    if not words:
        test.mode = NO_ROW
    elif width <= 2:
        memory = allocate(1 << 8 * width)
        for word in words:
            memory.ptr[word & ((1 << 8 * width) - 1)] = 1
        keep.append(memory)
        test.mode = OF_MARKS
        test.marks = <const uint8_t*>memory.ptr
    elif len(words) == 1 and not is_float:
        test.mode = OF_INTEGERS
        test.lo, test.span = words[0], 0
    else:
        test.mode = OF_WORDS
        make_table(test, words, False, keep)
    return 0


cdef int list_texts(Test* test, object values, list keep) except -1:
    cdef list texts = []
    for value in values:
        texts.append(<bytes?>value)
    keep.append(texts)
    test.mode = OF_TEXTS if texts else NO_ROW
    make_table(test, texts, True, keep)
    return 0


cdef int make_table(Test* test, list values, bint are_texts, list keep) except -1:
    cdef Py_ssize_t count = len(values), capacity = 8, i
    cdef Memory entries = allocate((count + 1) * <Py_ssize_t>sizeof(Entry)), slots
    cdef Entry* entry = <Entry*>entries.ptr
    cdef uint64_t at
    while capacity < 2 * count:
        capacity *= 2
    slots = allocate(capacity * 4)
    test.entries = entry
    test.slots = <const uint32_t*>slots.ptr
    test.slot_mask = capacity - 1
    keep.append(entries)
    keep.append(slots)
    for i in range(count):
        if are_texts:
            entry.ptr, entry.size = PyBytes_AS_STRING(values[i]), len(values[i])
            entry.word = hash_text(entry.ptr, entry.size)
            at = entry.word
        else:
            entry.word = values[i]
            at = hash_word(entry.word)
        at &= test.slot_mask
        while test.slots[at]:
            at = (at + 1) & test.slot_mask
        (<uint32_t*>slots.ptr)[at] = <uint32_t>(i + 1)
        entry += 1
    return 0


cdef inline uint64_t float_word(double value) noexcept nogil:
    """The bits of a float that is no NaN, one zero for both."""
    cdef uint64_t word = 0
    if value != 0:
        memcpy(&word, &value, 8)
    return word


cdef inline uint64_t hash_word(uint64_t word) noexcept nogil:
    word *= 0x9E3779B97F4A7C15ULL
    return word ^ (word >> 32)


cdef inline uint64_t hash_text(const char* text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t hash = hash_word(size), word
    while size >= 8:
        memcpy(&word, text, 8)
        hash = hash_word(hash ^ word)
        text += 8
        size -= 8
    word = 0
    memcpy(&word, text, size)
    return hash_word(hash ^ word)
