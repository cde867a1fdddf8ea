# Words of physical values. Part of _index.pyx.

cdef extern from "Python.h":
    ctypedef struct PyHash_FuncDef:
        Py_ssize_t (*hash)(const void*, Py_ssize_t) noexcept nogil
    PyHash_FuncDef* PyHash_GetFuncDef()

cdef enum:
    I8 = 1, I16, I32, I64, U8, U16, U32, U64, F32, F64, BOOL, BYTES, STR, BINARY, DATE, DATETIME

cdef int[17] WIDTH = [0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 1, 0, 0, 0, 4, 8]
cdef bint[17] SIGNED = [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
cdef int64_t[17] LOWEST = [
    0, -128, -32768, -2147483648, -INT64_MAX - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -2147483648, -INT64_MAX - 1,
]
cdef int64_t[17] HIGHEST = [  # of u64: what fits an int64, the rest goes its own way
    0, 127, 32767, 2147483647, INT64_MAX, 255, 65535, 4294967295, INT64_MAX, 0, 0, 1, 0, 0, 0, 2147483647, INT64_MAX,
]
cdef uint64_t TOP = <uint64_t>1 << 63
cdef PyHash_FuncDef* HASHING = PyHash_GetFuncDef()


cdef inline uint64_t mixed(uint64_t bits) noexcept nogil:
    """Each word to another one. Multiply-shift with secret odd factors: nobody can aim at one place (Dietzfelbinger et al. 1997)."""
    bits = (bits ^ SEED[0]) * SEED[1]
    bits = (bits ^ bits >> 32) * SEED[2]
    return bits ^ bits >> 32


cdef inline uint64_t text_key(const void* at, Py_ssize_t size) noexcept nogil:
    """What ``hash(bytes)`` says, without the object: SipHash with the process's secret."""
    cdef Py_ssize_t found
    if size == 0:
        return 0
    found = HASHING.hash(at, size)
    return <uint64_t>(-2 if found == -1 else found)


cdef inline uint64_t text_order(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word = 0
    cdef Py_ssize_t i
    for i in range(8):
        word = word << 8 | (at[i] if i < size else 0)
    return word


cdef inline bint float_bits(double value, uint64_t* bits) noexcept nogil:
    if value != value:
        return False
    value += 0.0  # -0.0 is 0.0
    memcpy(bits, &value, 8)
    return True


cdef inline bint word_of_float(double value, bint ordered, uint64_t* word) noexcept nogil:
    cdef uint64_t bits
    if not float_bits(value, &bits):
        return False
    if ordered:
        word[0] = ~bits if bits >> 63 else bits | TOP
    else:
        word[0] = mixed(bits)
    return True


cdef inline uint64_t word_of_int(int code, int64_t value, bint ordered) noexcept nogil:
    if ordered:
        return <uint64_t>value ^ TOP if SIGNED[code] else <uint64_t>value
    return mixed(<uint64_t>value)


cdef inline uint64_t word_of_text(const void* at, Py_ssize_t size, bint ordered) noexcept nogil:
    return text_order(<const uint8_t*>at, size) if ordered else text_key(at, size)


cdef inline bint word_of_cell(int code, const Cell* cell, bint ordered, uint64_t* word) noexcept nogil:
    if cell.is_null:
        return False
    if code == F32 or code == F64:
        return word_of_float(cell.f, ordered, word)
    if WIDTH[code]:
        word[0] = word_of_int(code, cell.i, ordered)
    else:
        word[0] = word_of_text(cell.ptr, cell.size, ordered)
    return True


cdef bint key_of(int code, const Cell* cell, uint64_t* word) noexcept nogil:
    return word_of_cell(code, cell, False, word)


cdef bint order_of(int code, const Cell* cell, uint64_t* word) noexcept nogil:
    return word_of_cell(code, cell, True, word)


cdef inline int64_t stored_int(int code, const char* values, Py_ssize_t row) noexcept nogil:
    if code == I32 or code == DATE:
        return (<const int32_t*>values)[row]
    if code == I64 or code == DATETIME or code == U64:
        return (<const int64_t*>values)[row]
    if code == U32:
        return (<const uint32_t*>values)[row]
    if code == I16:
        return (<const int16_t*>values)[row]
    if code == U16:
        return (<const uint16_t*>values)[row]
    if code == I8:
        return (<const int8_t*>values)[row]
    return (<const uint8_t*>values)[row]


cdef inline bint word_at(int code, const char* values, const uint64_t* starts, Py_ssize_t row, bint ordered, uint64_t* word) noexcept nogil:
    if code == F64:
        return word_of_float((<const double*>values)[row], ordered, word)
    if code == F32:
        return word_of_float((<const float*>values)[row], ordered, word)
    if starts == NULL:
        word[0] = word_of_int(code, stored_int(code, values, row), ordered)
    else:
        word[0] = word_of_text(values + starts[row], starts[row + 1] - starts[row], ordered)
    return True


cdef int check_code(int code) except -1:
    if code < I8 or code > DATETIME:
        raise ValueError(f"unknown dtype code {code}")
    return 0


cdef int int_cell(int code, object value, Cell* cell) except -1:
    value = _index(value)
    try:
        if code == U64:
            cell.i = <int64_t>PyLong_AsUnsignedLongLong(value)
            return 0
        cell.i = value
        if LOWEST[code] <= cell.i <= HIGHEST[code]:
            return 0
    except OverflowError:
        pass
    raise ValueError(f"dtype {code} cannot hold {value}")


cdef object single_word(int code, object value, bint ordered):
    """Of a physical value; None where it has no word."""
    cdef Cell cell
    cdef uint64_t word
    check_code(code)
    if value is None:
        return None
    memset(&cell, 0, sizeof(Cell))
    if code == F32 or code == F64:
        cell.f = value
    elif WIDTH[code]:
        int_cell(code, value, &cell)
    elif isinstance(value, bytes):
        cell.ptr = PyBytes_AS_STRING(value)
        cell.size = PyBytes_GET_SIZE(value)
    else:
        raise TypeError(f"a string's physical value is bytes, not {type(value).__name__}")
    return word if word_of_cell(code, &cell, ordered, &word) else None


cdef object many_words(object source, object mask, bint ordered):
    """(words, rows): rows None where every row has a word."""
    cdef ColumnBuffer buffer = source if isinstance(source, ColumnBuffer) else source.decode()
    cdef Py_ssize_t rows = buffer.rows, count = 0, row
    cdef int code = buffer.code
    cdef Memory values = buffer.values, starts = buffer.starts, nulls = buffer.null_bits  # as of now, whatever is appended
    cdef Memory words = allocate(rows * 8), places
    cdef const char* data = values.ptr
    cdef uint64_t* ends = NULL if starts is None else <uint64_t*>starts.ptr
    cdef uint8_t* bits = NULL if nulls is None else <uint8_t*>nulls.ptr
    cdef const uint8_t* chosen = NULL
    cdef Py_buffer held
    cdef uint64_t* to = <uint64_t*>words.ptr
    cdef uint32_t* at
    if <uint64_t>rows > LOW32:
        raise ValueError(f"{rows} rows are too many at once")
    if mask is None and bits == NULL and code != F32 and code != F64:
        with nogil:
            for row in range(rows):
                word_at(code, data, ends, row, ordered, to + row)
        return words_view(words, rows), None
    places = allocate(rows * 4)
    at = <uint32_t*>places.ptr
    if mask is not None:
        take_mask(mask, rows, &held)
        chosen = <const uint8_t*>held.buf
    with nogil:
        for row in range(rows):
            if bits != NULL and bits[row >> 3] >> (row & 7) & 1:
                continue
            if chosen != NULL and not chosen[row >> 3] >> (row & 7) & 1:
                continue
            if word_at(code, data, ends, row, ordered, to + count):
                at[count] = <uint32_t>row
                count += 1
    if mask is not None:
        PyBuffer_Release(&held)
    if count == rows:
        return words_view(words, count), None
    return words_view(words, count), memoryview(places)[:count * 4].cast("I")


cdef int take_mask(object mask, Py_ssize_t rows, Py_buffer* held) except -1:
    """Hold a bitmap; the caller releases it."""
    try:
        PyObject_GetBuffer(mask, held, PyBUF_SIMPLE)
    except BufferError:
        raise ValueError("the memory must be contiguous") from None
    cdef Py_ssize_t size = held.len
    if size != (rows + 63) >> 6 << 3:
        PyBuffer_Release(held)
        raise ValueError(f"a mask over {rows} rows has {(rows + 63) >> 6 << 3} bytes, got {size}")
    return 0


def exact(int code):
    """Whether words of this dtype are the whole key: equal words mean equal values."""
    check_code(code)
    return WIDTH[code] != 0


def key_word(int code, value):
    """The 64-bit hash word of one physical value; None for null and NaN, which no index has."""
    return single_word(code, value, False)


def key_words(source, mask=None):
    """The hash words of a buffer or chunk, or of the rows that a bitmap selects: (words, their rows or None)."""
    return many_words(source, mask, False)


def order_word(int code, value):
    """As ``key_word``, but in the order of values; of text the first 8 bytes."""
    return single_word(code, value, True)


def order_words(source, mask=None):
    """``order_word`` for a buffer or chunk, as ``key_words``."""
    return many_words(source, mask, True)
