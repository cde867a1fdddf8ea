# Packed rows, packed changes and plain columns: the bytes of the log (docs/format.md). Part of _values.pyx.
# Bytes that are read are not trusted: every length is checked before it is used, and what is left over is an error.

cdef enum:
    PLAIN_HEADER = 32     # bytes of a plain column's header
    CHANGES_HEADER = 8    # u32 count, u32 zero
    CHANGE_HEADER = 12    # u64 id, u32 number of columns
    VALUE_HEADER = 4      # u16 column, u8 null, u8 zero
    LAST_COLUMN = 65535

include "_checks.pxi"

cdef uint64_t MOST = 0xFFFFFFFF  # of what a u32 counts


cdef int damaged(str why) except -1:
    raise ValueError(why)


# -- one cell --------------------------------------------------------------

cdef inline char* give_cell(int code, const Cell* cell, char* to) noexcept nogil:
    """Write a value that is not null; the byte past it."""
    cdef int width = WIDTH[code]
    cdef uint32_t size
    if width == 0:
        size = <uint32_t>cell.size
        memcpy(to, &size, 4)
        if size:
            memcpy(to + 4, cell.ptr, size)
        return to + 4 + size
    if width == 4:
        memcpy_32(code, cell, to)
    elif width == 8:
        if code == F64:
            memcpy(to, &cell.f, 8)
        else:
            memcpy(to, &cell.i, 8)
    elif width == 1:
        to[0] = <char>cell.i
    else:
        memcpy(to, &cell.i, 2)
    return to + width


cdef inline void memcpy_32(int code, const Cell* cell, char* to) noexcept nogil:
    cdef float single
    if code == F32:
        single = <float>cell.f
        memcpy(to, &single, 4)
    else:
        memcpy(to, &cell.i, 4)  # the low half: little-endian machines only, as everywhere in the kernels


cdef inline int load_fixed(int code, const char* at, Cell* cell) except -1:
    cdef int8_t one
    cdef int16_t two
    cdef uint16_t two_more
    cdef int32_t four
    cdef uint32_t four_more
    cdef float single
    if code == I32 or code == DATE:
        memcpy(&four, at, 4)
        cell.i = four
    elif code == I64 or code == DATETIME or code == U64:
        memcpy(&cell.i, at, 8)
    elif code == F64:
        memcpy(&cell.f, at, 8)
    elif code == U8:
        cell.i = (<const uint8_t*>at)[0]
    elif code == BOOL:
        cell.i = (<const uint8_t*>at)[0]
        if cell.i > 1:
            damaged("a bool is neither 0 nor 1")
    elif code == F32:
        memcpy(&single, at, 4)
        cell.f = single
    elif code == I8:
        memcpy(&one, at, 1)
        cell.i = one
    elif code == I16:
        memcpy(&two, at, 2)
        cell.i = two
    elif code == U16:
        memcpy(&two_more, at, 2)
        cell.i = two_more
    else:
        memcpy(&four_more, at, 4)
        cell.i = four_more
    return 0


cdef inline const char* take_cell(RowCodec codec, int column, const char* at, const char* end, Cell* cell) except NULL:
    """Read a value that is not null; the byte past it. Strings are borrowed from the bytes."""
    cdef int code = codec.codes[column]
    cdef int width = WIDTH[code]
    cdef uint32_t size
    if end - at < (width if width else 4):
        damaged("a packed row ends too early")
    cell.is_null = 0
    cell.size = 0
    if width:
        load_fixed(code, at, cell)
        if (code == DATE or code == DATETIME) and not is_moment(code, cell.i):
            damaged(f"column {column}: {NO_MOMENT.decode()}")
        return at + width
    memcpy(&size, at, 4)
    at += 4
    if size > <uint64_t>(end - at):
        damaged("a packed row ends too early")
    if codec.limits[column] and size > <uint64_t>codec.limits[column]:
        damaged(f"column {column} holds at most {codec.limits[column]} bytes, not {size}")
    if code == STR and text_kind(<const uint8_t*>at, size) == NO_TEXT:
        damaged(f"column {column}: {NOT_UTF8.decode()}")
    cell.ptr = at
    cell.size = size
    return at + size


cdef inline void no_value(Cell* cell) noexcept nogil:
    cell.is_null = 1
    cell.i = 0
    cell.f = 0
    cell.ptr = NULL
    cell.size = 0


cdef int check_cell(RowCodec codec, int column, const Cell* cell) except -1:
    """A null or a length that ``unpack`` would refuse is not packed (values are checked: dates and text are right)."""
    if cell.is_null:
        if not codec.nullable[column]:
            damaged(f"column {column} has no nulls")
    elif WIDTH[codec.codes[column]] == 0:
        if codec.limits[column] and cell.size > codec.limits[column]:
            damaged(f"column {column} holds at most {codec.limits[column]} bytes, not {cell.size}")
        if <uint64_t>cell.size > MOST:
            damaged(f"a string of {cell.size} bytes is too long")
    return 0


# -- packed rows -----------------------------------------------------------

cdef int take_row(RowCodec codec, const char* at, Py_ssize_t size, Cell* cells) except -1:
    """The cells of exactly these bytes."""
    cdef const char* end = at + size
    cdef const uint8_t* bits = <const uint8_t*>at
    cdef int column, head = (codec.count + 7) >> 3
    if size < head:
        damaged("a packed row ends too early")
    if codec.count & 7 and bits[head - 1] >> (codec.count & 7):
        damaged("a packed row has a null past its last column")
    at += head
    for column in range(codec.count):
        if bits[column >> 3] >> (column & 7) & 1:
            if not codec.nullable[column]:
                damaged(f"column {column} has no nulls")
            no_value(&cells[column])
        else:
            at = take_cell(codec, column, at, end, &cells[column])
    if at != end:
        damaged("a packed row has bytes behind its last column")
    return 0


cdef Cell* cells_for(int count) except NULL:
    cdef Cell* cells = <Cell*>PyMem_RawCalloc(count + 1, sizeof(Cell))
    if cells == NULL:
        raise MemoryError()
    return cells


cdef bytes pack_row(RowCodec codec, object values):
    cdef list listed = list(values)
    cdef int column
    cdef bytes made
    cdef Cell* cells
    if len(listed) != codec.count:
        raise ValueError(f"a row has {codec.count} values, got {len(listed)}")
    cells = cells_for(codec.count)
    try:
        for column in range(codec.count):
            codec.cell_of(column, listed[column], &cells[column])
            check_cell(codec, column, &cells[column])
        made = PyBytes_FromStringAndSize(NULL, codec.packed_size(cells))
        codec.pack_cells(cells, PyBytes_AS_STRING(made))
        return made
    finally:
        PyMem_RawFree(cells)


cdef list unpack_row(RowCodec codec, object data):
    view = raw_view(data)
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef Cell* cells = cells_for(codec.count)
    try:
        take_row(codec, <const char*>source.buf, source.len, cells)
        return physical_cells(codec, cells)
    finally:
        PyMem_RawFree(cells)


cdef list unpack_all(RowCodec codec, object data, object places):
    view = raw_view(data)
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef list listed = list(places), made = empty_buffers(codec)
    cdef Py_ssize_t start, stop
    cdef int column
    cdef ColumnBuffer buffer
    cdef Cell* cells = cells_for(codec.count)
    try:
        for buffer in made:
            buffer.exactly(PyList_GET_SIZE(listed), 0)
        for place in listed:
            start, stop = span(place, source.len)
            take_row(codec, <const char*>source.buf + start, stop - start, cells)
            for column in range(codec.count):
                (<ColumnBuffer>PyList_GET_ITEM(made, column)).add(&cells[column])
    finally:
        PyMem_RawFree(cells)
    return made


cdef inline (Py_ssize_t, Py_ssize_t) span(object place, Py_ssize_t size) except *:
    cdef Py_ssize_t start, stop
    try:
        start, stop = place
    except OverflowError:
        start, stop = -1, -1
    if not 0 <= start <= stop <= size:
        raise ValueError(f"{place} is not a place in {size} bytes")
    return start, stop


# -- packed changes --------------------------------------------------------

cdef char* more(bytearray out, Py_ssize_t size) except NULL:
    """Room for ``size`` more bytes at the end; where it begins, until the next call."""
    cdef Py_ssize_t before = PyByteArray_GET_SIZE(out)
    PyByteArray_Resize(out, before + size)
    return PyByteArray_AS_STRING(out) + before


cdef uint64_t row_number(object idx) except? 0xFFFFFFFFFFFFFFFF:
    idx = PyNumber_Index(idx)
    try:
        return PyLong_AsUnsignedLongLong(idx)
    except OverflowError:
        raise ValueError(f"{idx} is no row id") from None


cdef int pack_value(RowCodec codec, int column, object value, bytearray out) except -1:
    cdef Cell cell
    cdef uint16_t number = <uint16_t>column
    cdef Py_ssize_t size = 0
    cdef char* to
    codec.cell_of(column, value, &cell)
    check_cell(codec, column, &cell)
    if not cell.is_null:
        size = WIDTH[codec.codes[column]]
        if size == 0:
            size = 4 + cell.size
    to = more(out, VALUE_HEADER + size)
    memcpy(to, &number, 2)
    to[2] = 1 if cell.is_null else 0
    to[3] = 0
    if not cell.is_null:
        give_cell(codec.codes[column], &cell, to + VALUE_HEADER)
    return 0


cdef bytes pack_all_changes(RowCodec codec, object changes):
    cdef bytearray out = bytearray(CHANGES_HEADER)
    cdef uint64_t count = 0, number
    cdef uint32_t columns
    cdef Py_ssize_t head, last, place
    for idx, pairs in changes:
        number = row_number(idx)
        head = PyByteArray_GET_SIZE(out)
        memcpy(more(out, CHANGE_HEADER), &number, 8)
        columns = 0
        last = -1
        for column, value in pairs:
            place = column_number(codec, column, last)
            pack_value(codec, <int>place, value, out)
            last = place
            columns += 1
        memcpy(PyByteArray_AS_STRING(out) + head + 8, &columns, 4)
        count += 1
    if count > MOST:
        raise ValueError("too many rows in one change")
    memcpy(PyByteArray_AS_STRING(out), &count, 8)  # below 2**32, so the zero behind it is written too
    return bytes(out)


cdef Py_ssize_t column_number(RowCodec codec, object column, Py_ssize_t last) except -1:
    column = PyNumber_Index(column)
    if not 0 <= column < codec.count:
        raise IndexError(f"column {column} is outside 0..{codec.count}")
    if not last < column <= LAST_COLUMN:
        raise ValueError("the columns of a change must ascend")
    return column


cdef list unpack_all_changes(RowCodec codec, object data):
    view = raw_view(data)
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef const char* at = <const char*>source.buf
    cdef const char* end = at + source.len
    cdef uint32_t count, zero, columns
    cdef uint64_t number
    cdef list found = [], pairs
    if source.len < CHANGES_HEADER:
        damaged("a packed change ends too early")
    memcpy(&count, at, 4)
    memcpy(&zero, at + 4, 4)
    if zero:
        damaged("a packed change has a header that is not its own")
    at += CHANGES_HEADER
    if count > <uint64_t>(end - at) // CHANGE_HEADER:
        damaged("a packed change ends too early")
    while count:
        if end - at < CHANGE_HEADER:
            damaged("a packed change ends too early")
        memcpy(&number, at, 8)
        memcpy(&columns, at + 8, 4)
        pairs = []
        at = take_pairs(codec, at + CHANGE_HEADER, end, columns, pairs)
        found.append((number, pairs))
        count -= 1
    if at != end:
        damaged("a packed change has bytes behind its last row")
    return found


cdef const char* take_pairs(
    RowCodec codec, const char* at, const char* end, uint32_t columns, list pairs
) except NULL:
    cdef Cell cell
    cdef uint16_t column
    cdef int last = -1
    if columns > <uint32_t>codec.count:
        damaged("a packed change has more columns than the table")
    while columns:
        if end - at < VALUE_HEADER:
            damaged("a packed change ends too early")
        memcpy(&column, at, 2)
        if column >= codec.count or <int>column <= last:
            damaged("the columns of a packed change must ascend and be there")
        if at[3] or <uint8_t>at[2] > 1:
            damaged("a packed change has a value that is neither null nor not")
        if at[2]:
            if not codec.nullable[column]:
                damaged(f"column {column} has no nulls")
            at += VALUE_HEADER
            no_value(&cell)
        else:
            at = take_cell(codec, column, at + VALUE_HEADER, end, &cell)
        pairs.append((<int>column, codec.physical_cell(column, &cell)))
        last = column
        columns -= 1
    return at


# -- plain columns ---------------------------------------------------------

cdef Py_ssize_t cut_bits(const uint8_t* bits, Py_ssize_t start, Py_ssize_t count, uint8_t* to) noexcept nogil:
    """Copy ``count`` bits to zeroed bytes; how many of them are set. Reads no byte past the last bit's."""
    cdef Py_ssize_t size = (count + 7) >> 3, last, i
    cdef int shift = start & 7
    if count == 0:
        return 0
    last = (start + count - 1) >> 3
    bits += start >> 3
    last -= start >> 3
    for i in range(size):
        to[i] = <uint8_t>(bits[i] >> shift | (bits[i + 1] << (8 - shift) if shift and i < last else 0))
    if count & 7:
        to[size - 1] &= <uint8_t>((1 << (count & 7)) - 1)
    return popcount(to, size)


def pack_column(ColumnBuffer buffer not None, Py_ssize_t start=0, stop=None):
    """Rows ``start..stop`` of a buffer as a plain column (``docs/format.md``). ValueError: rows that are not there."""
    cdef Py_ssize_t end = buffer.rows if stop is None else stop
    cdef Py_ssize_t rows = end - start, heap, bitmap = 0, ends = 0, total, row, low = 0
    cdef uint32_t count, nulls = 0
    cdef uint64_t size
    cdef uint64_t* starts = NULL
    cdef Memory bits = None
    cdef bytes made
    cdef char* to
    if not 0 <= start <= end <= buffer.rows:
        raise ValueError(f"rows {start}..{end} are outside 0..{buffer.rows}")
    if <uint64_t>rows > MOST:
        raise ValueError(f"a plain column has at most {MOST} rows, not {rows}")
    if buffer.null_count:
        bits = allocate(bitmap_size(rows))
        nulls = <uint32_t>cut_bits(<uint8_t*>buffer.null_bits.ptr, start, rows, <uint8_t*>bits.ptr)
        bitmap = bitmap_size(rows) if nulls else 0
    heap = rows * buffer.width
    if buffer.width == 0:
        starts = <uint64_t*>buffer.starts.ptr
        low = starts[start]
        heap = starts[end] - low
        ends = (rows + 1) * 8
    total = PLAIN_HEADER + bitmap + ends + ((heap + 7) & ~<Py_ssize_t>7)
    made = PyBytes_FromStringAndSize(NULL, total)
    to = PyBytes_AS_STRING(made)
    memset(to, 0, PLAIN_HEADER)
    to[0] = <char>buffer.code
    to[1] = 1 if nulls else 0
    count, size = <uint32_t>rows, <uint64_t>heap
    memcpy(to + 4, &count, 4)
    memcpy(to + 8, &nulls, 4)
    memcpy(to + 16, &size, 8)
    memset(to + total - 8, 0, 8 if total > PLAIN_HEADER else 0)  # the padding; values come on top of the rest
    to += PLAIN_HEADER
    if bitmap:
        memcpy(to, bits.ptr, bitmap)
        to += bitmap
    if ends:
        for row in range(rows + 1):
            size = starts[start + row] - low
            memcpy(to, &size, 8)
            to += 8
    if heap:
        memcpy(to, buffer.values.ptr + (start * buffer.width if buffer.width else low), heap)
    return made


cdef Py_ssize_t measure(int code, const char* at, uint64_t size, uint32_t* nulls, uint64_t* heap) except -1:
    """Rows of a plain column whose header fits its length."""
    cdef uint32_t rows, zero
    cdef uint16_t short_zero
    cdef uint64_t long_zero, fixed, i
    if size < PLAIN_HEADER:
        damaged("a plain column ends too early")
    memcpy(&short_zero, at + 2, 2)
    memcpy(&rows, at + 4, 4)
    memcpy(nulls, at + 8, 4)
    memcpy(&zero, at + 12, 4)
    memcpy(heap, at + 16, 8)
    memcpy(&long_zero, at + 24, 8)
    if <uint8_t>at[0] != code:
        damaged(f"a plain column of dtype {<uint8_t>at[0]} stands for one of dtype {code}")
    if short_zero or zero or long_zero or <uint8_t>at[1] != (1 if nulls[0] else 0) or nulls[0] > rows:
        damaged("a plain column has a header that is not its own")
    fixed = PLAIN_HEADER
    if nulls[0]:
        fixed += ((<uint64_t>rows + 63) >> 6) << 3
    if WIDTH[code] == 0:
        fixed += (<uint64_t>rows + 1) << 3
    elif heap[0] != <uint64_t>rows * <uint64_t>WIDTH[code]:
        damaged(f"{rows} rows do not have {heap[0]} bytes of values")
    if fixed > size or heap[0] > size - fixed or fixed + ((heap[0] + 7) & ~<uint64_t>7) != size:
        damaged("a plain column is not as long as its header says")
    for i in range(fixed + heap[0], size):
        if at[i]:
            damaged("a plain column has bytes behind its values")
    return <Py_ssize_t>rows


cdef int adopt_bits(ColumnBuffer made, Py_ssize_t rows, Py_ssize_t nulls, const char* at) except -1:
    """The null bitmap of a column whose values are in place: it counts right, and the null rows are empty."""
    cdef const uint8_t* bits = <const uint8_t*>at
    cdef Py_ssize_t size = bitmap_size(rows), row
    cdef uint64_t* starts
    cdef int i
    made.reserve_nulls()
    memcpy(made.null_bits.ptr, at, size)
    bits = <const uint8_t*>made.null_bits.ptr
    if popcount(bits, size) != nulls:
        damaged(f"a plain column does not have {nulls} nulls")
    for row in range(rows, size * 8):
        if bits[row >> 3] >> (row & 7) & 1:
            damaged("a plain column has a null past its last row")
    for row in range(rows):
        if not bits[row >> 3] >> (row & 7) & 1:
            continue
        if made.width:
            for i in range(made.width):
                if made.values.ptr[row * made.width + i]:
                    damaged("a null row has a value")
        else:
            starts = <uint64_t*>made.starts.ptr
            if starts[row] != starts[row + 1]:
                damaged("a null row has a value")
    made.null_count = nulls
    return 0


cdef int adopt_ends(ColumnBuffer made, Py_ssize_t rows, uint64_t heap, const char* at) except -1:
    cdef uint64_t* starts = <uint64_t*>made.starts.ptr
    cdef Py_ssize_t row
    memcpy(starts, at, (rows + 1) * 8)
    if starts[0] != 0 or starts[rows] != heap:
        damaged("the strings of a plain column do not fill its heap")
    for row in range(rows):
        if starts[row] > starts[row + 1]:
            damaged("the offsets of a plain column fall")
    return 0


cdef int check_plain(int code, ColumnBuffer made, Py_ssize_t rows) except -1:
    """Values in place that no column can have."""
    cdef Py_ssize_t row
    if code == STR:
        row = wrong_text[uint64_t](<const uint8_t*>made.values.ptr, <const uint64_t*>made.starts.ptr, rows)
        if row >= 0:
            damaged(f"row {row} of a plain column: {NOT_UTF8.decode()}")
    elif code == DATE or code == DATETIME:
        row = wrong_moment(code, made.values.ptr, rows)
        if row >= 0:
            damaged(f"row {row} of a plain column: {NO_MOMENT.decode()}")
    return 0


def unpack_column(data, int code):
    """A plain column of dtype ``code`` as a buffer with a copy of it; ``data`` is exactly the column.

    Bytes are not trusted: ValueError says what is wrong.
    """
    cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, code)
    view = raw_view(data)
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef const char* at = <const char*>source.buf
    cdef const char* bits
    cdef uint32_t nulls
    cdef uint64_t heap
    cdef Py_ssize_t rows = measure(code, at, source.len, &nulls, &heap), row
    at += PLAIN_HEADER
    bits = at
    made.exactly(rows, 0 if made.width else <Py_ssize_t>heap)
    if nulls:
        at += bitmap_size(rows)
    if made.width == 0:
        adopt_ends(made, rows, heap, at)
        at += (rows + 1) * 8
    memcpy(made.values.ptr, at, <size_t>heap)
    if code == BOOL:
        for row in range(rows):
            if <uint8_t>at[row] > 1:
                damaged("a bool is neither 0 nor 1")
    if nulls:
        adopt_bits(made, rows, nulls, bits)
    if made.width == 0:
        made.heap_size = <Py_ssize_t>heap
    check_plain(code, made, rows)
    made.rows = rows
    return made
