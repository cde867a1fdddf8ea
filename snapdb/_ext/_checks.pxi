# What a value read from a file may be, beyond what its bytes can say: dates that Python has, text that is UTF-8.
# Included where STR, DATE and DATETIME are known; ``_checks_py`` is the twin.

cdef enum:
    NO_TEXT = 0
    ASCII_TEXT
    LONG_TEXT  # with characters of more than one byte
    FIRST_DAY = -719162
    LAST_DAY = 2932896

cdef extern from *:
    """
    #define SNAP_TOP_BITS 0x8080808080808080ULL
    #define SNAP_FIRST_MICRO (-62135596800000000LL)
    #define SNAP_LAST_MICRO 253402300799999999LL
    """
    const uint64_t SNAP_TOP_BITS
    const int64_t SNAP_FIRST_MICRO, SNAP_LAST_MICRO

cdef const char* NOT_UTF8 = b"text that is not UTF-8"
cdef const char* NO_MOMENT = b"a date outside the years 1 to 9999"


cdef inline bint is_moment(int code, int64_t value) noexcept nogil:
    """Whether a date (days) or datetime (microseconds) lies in the years 1 to 9999."""
    if code == DATE:
        return FIRST_DAY <= value <= LAST_DAY
    return SNAP_FIRST_MICRO <= value <= SNAP_LAST_MICRO


cdef Py_ssize_t wrong_moment(int code, const char* values, Py_ssize_t rows) noexcept nogil:
    """The first row that is no date (i32) or datetime (i64), -1 where there is none."""
    cdef const int32_t* days = <const int32_t*>values
    cdef const int64_t* micros = <const int64_t*>values
    cdef Py_ssize_t row
    cdef bint falls = False
    if code == DATE:  # without a branch in the loop
        for row in range(rows):
            falls |= (days[row] < FIRST_DAY) | (days[row] > LAST_DAY)
    else:
        for row in range(rows):
            falls |= (micros[row] < SNAP_FIRST_MICRO) | (micros[row] > SNAP_LAST_MICRO)
    if falls:
        for row in range(rows):
            if not is_moment(code, days[row] if code == DATE else micros[row]):
                return row
    return -1


cdef int text_kind(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    """Whether bytes are UTF-8 as Python reads it (no surrogates, nothing overlong), and whether they are all ASCII."""
    cdef const uint8_t* end = at + size
    cdef uint64_t[4] words
    cdef uint8_t first, low, high
    cdef int kind = ASCII_TEXT, more
    while at < end:
        if at[0] < 0x80:
            while end - at >= 32:
                memcpy(words, at, 32)
                if (words[0] | words[1] | words[2] | words[3]) & SNAP_TOP_BITS:
                    break
                at += 32
            while end - at >= 8:
                memcpy(words, at, 8)
                if words[0] & SNAP_TOP_BITS:
                    break
                at += 8
            if end - at < 8 <= size:  # the last bytes with some of those before, in one look
                memcpy(words, end - 8, 8)
                if not words[0] & SNAP_TOP_BITS:
                    return kind
            while at < end and at[0] < 0x80:
                at += 1
            continue
        first, low, high = at[0], 0x80, 0xBF
        if first < 0xC2 or first > 0xF4:
            return NO_TEXT
        more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        if end - at <= more:
            return NO_TEXT
        if first == 0xE0:
            low = 0xA0
        elif first == 0xED:
            high = 0x9F
        elif first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F
        if not low <= at[1] <= high or (more > 1 and at[2] >> 6 != 2) or (more > 2 and at[3] >> 6 != 2):
            return NO_TEXT
        at += more + 1
        kind = LONG_TEXT
    return kind


ctypedef fused Offset:
    uint32_t
    uint64_t


cdef Py_ssize_t wrong_text(const uint8_t* heap, const Offset* ends, Py_ssize_t count) noexcept nogil:
    """The first of the strings that fill a heap (offsets rising from 0) that is not UTF-8, -1 where there is none."""
    cdef Py_ssize_t size = ends[count], i
    cdef int kind = text_kind(heap, size)
    cdef bint inside = kind == NO_TEXT
    if kind == ASCII_TEXT:
        return -1
    for i in range(count):
        if inside:
            break
        inside = ends[i] < <Offset>size and heap[ends[i]] >> 6 == 2  # a string that begins inside a character
    if inside:
        for i in range(count):
            if text_kind(heap + ends[i], ends[i + 1] - ends[i]) == NO_TEXT:
                return i
    return -1
