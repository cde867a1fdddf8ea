# Typed memory to columns, and the row codec. Part of _values.pyx.

# -- typed memory to columns -----------------------------------------------

cdef const char* TYPE_LETTER = b" bhiqBHIQfdB    "  # by dtype code, where typed memory can be copied as it is


cdef Py_ssize_t convert_ints(int code, char letter, const char* at, Py_ssize_t rows, char* to) noexcept nogil:
    """Copy integers or bools into an integer or bool column; the rows done, stopping at the first that does not fit."""
    cdef Py_ssize_t row
    cdef int64_t whole
    cdef int64_t low = LOW[code], high = HIGH[code]
    for row in range(rows):
        if letter == c"b":
            whole = (<int8_t*>at)[row]
        elif letter == c"B":
            whole = (<uint8_t*>at)[row]
        elif letter == c"?":
            whole = 1 if (<uint8_t*>at)[row] else 0
        elif letter == c"h":
            whole = (<int16_t*>at)[row]
        elif letter == c"H":
            whole = (<uint16_t*>at)[row]
        elif letter == c"i":
            whole = (<int32_t*>at)[row]
        elif letter == c"I":
            whole = (<uint32_t*>at)[row]
        else:
            whole = (<int64_t*>at)[row]
            if letter == c"Q" and whole < 0:  # above 2**63 - 1
                return row
        if whole < low or whole > high:
            return row
        if code == I32 or code == U32:
            (<int32_t*>to)[row] = <int32_t>whole
        elif code == I64 or code == U64:
            (<int64_t*>to)[row] = whole
        elif code == I16 or code == U16:
            (<int16_t*>to)[row] = <int16_t>whole
        else:
            (<int8_t*>to)[row] = <int8_t>whole
    return rows


cdef Py_ssize_t convert_floats(int code, char letter, const char* at, Py_ssize_t rows, char* to) noexcept nogil:
    """Copy numbers into a float column; the rows done, stopping at the first that does not fit."""
    cdef Py_ssize_t row
    cdef double value
    cdef float single
    for row in range(rows):
        if letter == c"d":
            value = (<double*>at)[row]
        elif letter == c"f":
            value = (<float*>at)[row]
        elif letter == c"q":
            value = <double>(<int64_t*>at)[row]
        elif letter == c"Q":
            value = <double>(<uint64_t*>at)[row]
        elif letter == c"i":
            value = (<int32_t*>at)[row]
        elif letter == c"I":
            value = (<uint32_t*>at)[row]
        elif letter == c"h":
            value = (<int16_t*>at)[row]
        elif letter == c"H":
            value = (<uint16_t*>at)[row]
        elif letter == c"b":
            value = (<int8_t*>at)[row]
        elif letter == c"B":
            value = (<uint8_t*>at)[row]
        else:
            value = 1.0 if (<uint8_t*>at)[row] else 0.0
        if code == F64:
            (<double*>to)[row] = value
        else:
            single = <float>value
            if isinf(single) and not isinf(value):
                return row
            (<float*>to)[row] = single
    return rows


cdef ColumnBuffer from_typed(int code, object view):
    """A column from a memoryview as ``_arrays.source`` gives it; None where a value does not fit."""
    cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, code)
    cdef Py_ssize_t rows = len(view), done
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef const char* at = <const char*>source.buf
    cdef char letter = <char>ord(view.format)
    cdef char* to
    made.exactly(rows, 0)
    to = made.values.ptr
    with nogil:
        if letter != c"?" and code != BOOL and letter == <char>TYPE_LETTER[code]:
            memcpy(to, at, rows * made.width)
            done = rows
        elif code == F32 or code == F64:
            done = convert_floats(code, letter, at, rows, to)
        else:
            done = convert_ints(code, letter, at, rows, to)
    if done < rows:
        return None
    made.rows = rows
    return made


# -- text to columns ---------------------------------------------------------

cdef inline Py_ssize_t bytes_of_item(const char* at, Py_ssize_t size) noexcept nogil:
    """Bytes of a NUL-padded item without its padding."""
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, at + size - 8, 8)
        if word:
            break
        size -= 8
    while size and at[size - 1] == 0:
        size -= 1
    return size


# rows from which on short texts go in one pass, into room for the longest: in fewer, a tail, nobody would give it back
cdef Py_ssize_t MANY_TEXTS = 1 << 16 if _sys.byteorder == "little" else PY_SSIZE_T_MAX


cdef enum:
    SHORT = 16  # bytes of an item that two words hold
    TOGETHER = 256  # short items that are looked at together


cdef inline int bytes_of_word(uint64_t word) noexcept nogil:
    """Bytes of a word up to the last that is not 0, without a branch: lengths of texts cannot be foretold."""
    cdef uint64_t low = <uint64_t>0x7F7F7F7F7F7F7F7F
    word |= word >> 8
    word |= word >> 16
    word |= word >> 32
    word = (((word & low) + low) | word) & ~low  # a bit for each byte that is not 0
    return <int>(((word >> 7) * <uint64_t>0x0101010101010101) >> 56)


cdef Py_ssize_t give_short(
    const char* at, Py_ssize_t rows, Py_ssize_t size, Py_ssize_t most, bint ascii_only, uint64_t* starts, char* to
) noexcept nogil:
    """Append items of at most ``SHORT`` bytes without their padding to ``to``, whose offset is ``starts[0]``; its end, -1
    where one may not be. ``SHORT`` bytes can be read of each item, and there is room for as many behind the last.
    """
    cdef uint64_t first, second, joined = 0
    cdef uint64_t of_first = ~<uint64_t>0 if size >= 8 else (<uint64_t>1 << 8 * size) - 1
    cdef uint64_t of_second = 0 if size <= 8 else ~<uint64_t>0 if size == 16 else (<uint64_t>1 << 8 * (size - 8)) - 1
    cdef Py_ssize_t row, end = starts[0]
    cdef int length, longest = 0
    for row in range(rows):
        memcpy(&first, at, 8)
        memcpy(&second, at + 8, 8)
        first &= of_first
        second &= of_second
        joined |= first | second
        length = 8 + bytes_of_word(second) if second else bytes_of_word(first)
        longest = length if length > longest else longest
        memcpy(to + end, at, 16)
        end += length
        starts[row + 1] = end
        at += size
    if longest > most or (ascii_only and joined & <uint64_t>0x8080808080808080):
        return -1
    return end


cdef Py_ssize_t give_short_bytes(
    const char* at, Py_ssize_t rows, Py_ssize_t size, Py_ssize_t most, bint ascii_only, uint64_t* starts, char* to
) noexcept nogil:
    """``give_short`` of an array: its last items are read from a copy with room behind it."""
    cdef char last[2 * SHORT * SHORT]
    cdef Py_ssize_t rest = min(rows, <Py_ssize_t>SHORT), front = rows - rest, end
    end = give_short(at, front, size, most, ascii_only, starts, to)
    if end < 0:
        return end
    memset(last, 0, sizeof(last))
    memcpy(last, at + front * size, rest * size)
    return give_short(last, rest, size, most, ascii_only, starts + front, to)


cdef Py_ssize_t give_short_points(
    const uint32_t* at, Py_ssize_t rows, Py_ssize_t size, Py_ssize_t most, uint64_t* starts, char* to
) noexcept nogil:
    """``give_short`` of code points; -1 too where they are not all ASCII."""
    cdef uint8_t narrow[TOGETHER * SHORT + SHORT]
    cdef uint32_t joined = 0
    cdef Py_ssize_t row = 0, n, i, end = 0
    while row < rows:
        n = min(rows - row, <Py_ssize_t>TOGETHER)
        for i in range(n * size):
            joined |= at[i]
            narrow[i] = <uint8_t>at[i]
        if joined >= 128:
            return -1
        end = give_short(<const char*>narrow, n, size, most, False, starts + row, to)
        if end < 0:
            return -1
        at += n * size
        row += n
    return end


cdef bint measure_bytes(
    const char* at, Py_ssize_t rows, Py_ssize_t size, Py_ssize_t most, bint ascii_only, uint64_t* starts
) noexcept nogil:
    """Where each item of NUL-padded bytes goes; whether all of them may."""
    cdef Py_ssize_t row, length, byte
    cdef uint8_t joined = 0
    cdef uint64_t end = 0
    for row in range(rows):
        length = bytes_of_item(at, size)
        if length > most:
            return False
        if ascii_only:
            for byte in range(length):
                joined |= <uint8_t>at[byte]
        end += length
        starts[row + 1] = end
        at += size
    return joined < 128


@cython.cdivision(True)
cdef void copy_bytes(
    const char* at, Py_ssize_t rows, Py_ssize_t size, const uint64_t* starts, char* to
) noexcept nogil:
    """The items without padding, one behind the other. Behind ``to`` there is room for a copy that is too long."""
    cdef Py_ssize_t row
    cdef Py_ssize_t whole = rows - 15 // size - 1  # up to here 16 bytes can be read
    cdef bint short = size <= 16
    for row in range(rows):
        if short and row < whole:
            memcpy(to + starts[row], at, 16)
        else:
            memcpy(to + starts[row], at, starts[row + 1] - starts[row])
        at += size


cdef bint measure_points(
    const uint32_t* at, Py_ssize_t rows, Py_ssize_t count, Py_ssize_t most, uint64_t* starts
) noexcept nogil:
    """Where the UTF-8 of each NUL-padded item of code points goes; whether all of them may."""
    cdef Py_ssize_t row, length, j, used
    cdef uint32_t point
    cdef uint64_t end = 0
    for row in range(rows):
        used = count
        while used and at[used - 1] == 0:
            used -= 1
        length = used
        for j in range(used):
            point = at[j]
            if point >= 0x80:
                if 0xD800 <= point < 0xE000 or point > 0x10FFFF:
                    return False
                length += 1 + (point >= 0x800) + (point >= 0x10000)
        if length > most:
            return False
        end += length
        starts[row + 1] = end
        at += count
    return True


cdef inline char* give_point(uint32_t point, char* to) noexcept nogil:
    """The UTF-8 of a code point; where the next one goes."""
    if point < 0x80:
        to[0] = <char>point
        return to + 1
    if point < 0x800:
        to[0] = <char>(0xC0 | point >> 6)
        to[1] = <char>(0x80 | point & 63)
        return to + 2
    if point < 0x10000:
        to[0] = <char>(0xE0 | point >> 12)
        to[1] = <char>(0x80 | point >> 6 & 63)
        to[2] = <char>(0x80 | point & 63)
        return to + 3
    to[0] = <char>(0xF0 | point >> 18)
    to[1] = <char>(0x80 | point >> 12 & 63)
    to[2] = <char>(0x80 | point >> 6 & 63)
    to[3] = <char>(0x80 | point & 63)
    return to + 4


cdef void copy_points(
    const uint32_t* at, Py_ssize_t rows, Py_ssize_t count, const uint64_t* starts, char* to
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef char* put
    cdef char* stop
    for row in range(rows):
        put, stop, j = to + starts[row], to + starts[row + 1], 0
        while put < stop and j < count:
            put = give_point(at[j], put)
            j += 1
        at += count


cdef ColumnBuffer from_texts(int code, Py_ssize_t limit, bint wide, Py_ssize_t size, object view):
    """A column from an array as ``_arrays.texts`` gives it; None where a value needs a closer look."""
    cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, code)
    cdef Py_buffer* source = PyMemoryView_GET_BUFFER(view)
    cdef const char* at = <const char*>source.buf
    cdef Py_ssize_t rows = len(view)
    cdef Py_ssize_t most = limit if limit else PY_SSIZE_T_MAX
    cdef Py_ssize_t end
    cdef uint64_t* starts
    cdef char* to
    cdef bint fits
    if (wide and code == BINARY) or <uintptr_t>at & (3 if wide else 0):
        return None
    made.exactly(rows, 0)
    starts = <uint64_t*>made.starts.ptr
    if (size >> 2 if wide else size) <= SHORT and rows >= MANY_TEXTS:
        made.exactly(rows, rows * (size >> 2 if wide else size))
        to = made.values.ptr
        with nogil:
            if wide:
                end = give_short_points(<const uint32_t*>at, rows, size >> 2, most, starts, to)
            else:
                end = give_short_bytes(at, rows, size, most, code == STR, starts, to)
        if end >= 0:
            made.heap_size = end
            made.rows = rows
            return made
    with nogil:
        if wide:
            fits = measure_points(<const uint32_t*>at, rows, size // 4, most, starts)
        else:
            fits = measure_bytes(at, rows, size, most, code == STR, starts)
    if not fits:
        return None
    made.exactly(rows, starts[rows])
    to = made.values.ptr
    with nogil:
        if wide:
            copy_points(<const uint32_t*>at, rows, size // 4, starts, to)
        else:
            copy_bytes(at, rows, size, starts, to)
    made.heap_size = starts[rows]
    made.rows = rows
    return made


cdef Py_ssize_t leading_texts(ColumnBuffer made, Py_ssize_t limit, list values) except -1:
    """Append a list's values to an empty column of as many rows, up to the first that is not plain; how many these are."""
    cdef Py_ssize_t row = 0, rows = min(PyList_GET_SIZE(values), made.capacity), end = 0
    cdef uint64_t* starts = <uint64_t*>made.starts.ptr
    cdef PyObject* value
    cdef PyObject* last = NULL
    cdef Cell cell
    while row < rows:
        value = PyList_GET_ITEM(values, row)
        if value != last:  # often the same object many times
            if not plain_text(made.code, limit, <object>value, &cell):
                break
            last = value
        if end + cell.size > made.heap_capacity:
            made.heap_size = end
            made.grow_heap(grown(made.heap_capacity, end + cell.size))
        memcpy(made.values.ptr + end, cell.ptr, cell.size)
        end += cell.size
        row += 1
        starts[row] = end
    made.heap_size = end
    made.rows = row
    return row


# -- rows ------------------------------------------------------------------

# Loops with append, not list comprehensions, in all kernels: Cython 3.3 lets go of the element twice where a
# comprehension finds no memory to grow its list.

cdef list physical_cells(RowCodec codec, Cell* cells):
    """The physical value of each column's cell."""
    cdef list found = []
    cdef int column
    for column in range(codec.count):
        found.append(codec.physical_cell(column, &cells[column]))
    return found


cdef list empty_buffers(RowCodec codec):
    """A buffer for each column."""
    cdef list made = []
    for spec in codec.columns:
        made.append(ColumnBuffer.__new__(ColumnBuffer, spec[1]))
    return made


cdef enum:
    ON_STACK = 64  # columns whose cells fit on the stack


@cython.final
cdef class RowCodec:
    """Rows (mappings) to checked physical values and back, for one schema.

    ``coerce(column, value, position)`` is the one definition of the value rules: it returns the physical value (None
    for a null in a nullable column) or raises. Kernels convert the plain exact types themselves where the result is the
    same and call it for everything else. ``refuse(row, position, partial)`` raises for a row that is not a mapping,
    misses a column that is not nullable, or has an unknown key. ``position`` is the row's index in its batch, -1 for a
    single row. A missing nullable column is null.
    """

    def __cinit__(self, columns, coerce, refuse):
        cdef int j = 0
        self.columns = tuple(columns)
        self.coerce = coerce
        self.refuse = refuse
        self.count = <int>len(self.columns)
        self.codes = <int*>PyMem_RawCalloc(self.count + 1, sizeof(int))
        self.limits = <Py_ssize_t*>PyMem_RawCalloc(self.count + 1, sizeof(Py_ssize_t))
        self.nullable = <uint8_t*>PyMem_RawCalloc(self.count + 1, 1)
        if self.codes == NULL or self.limits == NULL or self.nullable == NULL:
            raise MemoryError()
        names = []
        for name, code, limit, nullable in self.columns:
            if not isinstance(name, str):
                raise TypeError(f"a column name must be str, not {type(name).__name__}")
            if code not in _TYPECODES and code not in _VARLEN:
                raise ValueError(f"unknown dtype code {code}")
            names.append(_sys.intern(str(name)))
            self.codes[j] = code
            self.limits[j] = limit
            self.nullable[j] = bool(nullable)
            j += 1
        self.names = tuple(names)

    def __dealloc__(self):
        PyMem_RawFree(self.codes)
        PyMem_RawFree(self.limits)
        PyMem_RawFree(self.nullable)

    cdef object reject(self, object row, Py_ssize_t position, bint partial):
        self.refuse(row, position, partial)
        raise KeyError("the row does not fit the schema")  # refuse() should have said more

    cdef dict mapping(self, object row, Py_ssize_t position, bint partial):
        if PyDict_CheckExact(row):
            return <dict>row
        if not isinstance(row, _Mapping):
            self.reject(row, position, partial)
        return dict(row)

    cdef int cell_of(self, int column, object physical, Cell* cell) except -1:
        return fill(self.codes[column], physical, cell)

    cdef int convert(self, int column, object value, Py_ssize_t position, Cell* cell, list keep) except -1:
        """A value that is not plain: by the one definition of the rules."""
        if value is None and self.nullable[column]:
            cell.is_null = 1
            cell.size = 0
            return 0
        held = value  # whatever coerce() runs may drop it elsewhere
        found = self.coerce(column, held, position)
        keep.append(found)
        return fill(self.codes[column], found, cell)

    cdef int encode_cell(self, int column, object value, Py_ssize_t position, Cell* cell, list keep) except -1:
        if plain(self.codes[column], self.limits[column], value, cell):
            if WIDTH[self.codes[column]] == 0:
                keep.append(value)
            return 0
        return self.convert(column, value, position, cell, keep)

    cdef int encode_cells(self, object row, Py_ssize_t position, Cell* cells, list keep) except -1:
        cdef dict fields = <dict>row if PyDict_CheckExact(row) else self.mapping(row, position, False)
        cdef int column, missing = 0
        cdef PyObject* value
        for column in range(self.count):
            value = PyDict_GetItemWithError(fields, <object>self.names[column])
            if value != NULL:
                self.encode_cell(column, <object>value, position, &cells[column], keep)
            elif self.nullable[column]:
                cells[column].is_null = 1
                cells[column].size = 0
                missing += 1
            else:
                self.reject(row, position, False)
        if PyDict_Size(fields) != self.count - missing:
            self.reject(row, position, False)
        return 0

    cdef object physical_cell(self, int column, Cell* cell):
        cdef int code = self.codes[column]
        if cell.is_null:
            return None
        if WIDTH[code] == 0:
            return PyBytes_FromStringAndSize(cell.ptr, cell.size)
        if code == F32 or code == F64:
            return cell.f
        return <uint64_t>cell.i if code == U64 else cell.i

    def encode(self, row):
        """Every column's physical value, in column order. Nothing is kept."""
        cdef Cell[ON_STACK] few
        cdef Cell* cells = few
        cdef list keep = []
        if self.count > ON_STACK:
            cells = <Cell*>PyMem_RawCalloc(self.count, sizeof(Cell))
            if cells == NULL:
                raise MemoryError()
        try:
            self.encode_cells(row, -1, cells, keep)
            return physical_cells(self, cells)
        finally:
            if cells != few:
                PyMem_RawFree(cells)

    def encode_partial(self, row):
        """(column index, physical value) for the keys present, in column order."""
        cdef dict fields = self.mapping(row, -1, True)
        cdef list found = [], keep = []
        cdef int column
        cdef Cell cell
        cdef PyObject* value
        for column in range(self.count):
            value = PyDict_GetItemWithError(fields, <object>self.names[column])
            if value != NULL:
                self.encode_cell(column, <object>value, -1, &cell, keep)
                found.append((column, self.physical_cell(column, &cell)))
        if len(found) != len(fields):
            self.reject(row, -1, True)
        return found

    def encode_value(self, int column, value, Py_ssize_t position=-1):
        """One column's physical value."""
        cdef Cell cell
        cdef list keep = []
        self.check(column)
        self.encode_cell(column, value, position, &cell, keep)
        return self.physical_cell(column, &cell)

    cdef int check(self, int column) except -1:
        if not 0 <= column < self.count:
            raise IndexError(f"column {column} is outside 0..{self.count}")
        return 0

    def encode_rows(self, rows):
        """A whole batch, one buffer a column; raises at the first bad value with its position."""
        cdef list made = empty_buffers(self)
        cdef Py_ssize_t position = 0
        cdef ColumnBuffer buffer
        if PyList_CheckExact(rows):
            for buffer in made:
                buffer.exactly(PyList_GET_SIZE(rows), 0)
            while position < PyList_GET_SIZE(rows):  # a value's own code may change the list
                row = <object>PyList_GET_ITEM(rows, position)
                self.stage(row, position, made)
                position += 1
        else:
            for row in rows:
                self.stage(row, position, made)
                position += 1
        return made

    cdef int stage(self, object row, Py_ssize_t position, list made) except -1:
        """Append one row to buffers that are thrown away together if anything raises."""
        cdef dict fields = <dict>row if PyDict_CheckExact(row) else self.mapping(row, position, False)
        cdef int column, missing = 0
        cdef bint ordered = True  # keys come in column order so far: no need to look them up
        cdef Py_ssize_t at = 0
        cdef PyObject* key
        cdef PyObject* value
        cdef PyObject* name
        cdef Cell cell
        for column in range(self.count):
            name = <PyObject*>self.names[column]
            if ordered and not (PyDict_Next(fields, &at, &key, &value) and key == name):
                ordered = False
            if not ordered:
                value = PyDict_GetItemWithError(fields, <object>name)
                if value == NULL:
                    if not self.nullable[column]:
                        self.reject(row, position, False)
                    missing += 1
                    cell.is_null = 1
                    cell.size = 0
                    (<ColumnBuffer>made[column]).add(&cell)
                    continue
            self.stage_value(column, <object>value, position, <ColumnBuffer>made[column])
        if PyDict_Size(fields) != self.count - missing:
            self.reject(row, position, False)
        return 0

    cdef inline int stage_value(self, int column, object value, Py_ssize_t position, ColumnBuffer buffer) except -1:
        cdef Cell cell
        cdef list keep
        if plain(self.codes[column], self.limits[column], value, &cell):
            return buffer.add(&cell)
        keep = []
        self.convert(column, value, position, &cell, keep)
        return buffer.add(&cell)

    def encode_column(self, int column, values):
        """A whole column from a sequence, ``array.array``, memoryview or NumPy array, under the same value rules.

        A typed one-dimensional buffer is checked as a whole (range; NaN and infinities are values) and copied;
        anything else goes value by value. TypeError for text, mappings and sets; ValueError for more dimensions.
        """
        cdef int code
        cdef ColumnBuffer made
        self.check(column)
        code = self.codes[column]
        if code == DATE or code == DATETIME:
            check = lambda value, place: self.coerce(column, value, place)  # noqa: E731
            found = _arrays.moments(values, code, bool(self.nullable[column]), check)
            if found is not None:
                return ColumnBuffer.from_parts(code, found[0], found[1], None, found[2])
        text = _arrays.texts(values, code)
        if text is not None:
            made = from_texts(code, self.limits[column], text[0], text[1], text[2])
            if made is not None:
                return made
        given = _arrays.source(values, code)
        if isinstance(given, list):
            return self.list_column(column, given)
        made = from_typed(code, given)
        return self.list_column(column, given.tolist()) if made is None else made

    cdef ColumnBuffer list_column(self, int column, list values):
        cdef ColumnBuffer made = ColumnBuffer.__new__(ColumnBuffer, self.codes[column])
        cdef Py_ssize_t position = 0
        made.exactly(PyList_GET_SIZE(values), 0)
        if made.width == 0:
            position = leading_texts(made, self.limits[column], values)
        while position < PyList_GET_SIZE(values):  # a value's own code may change the list
            value = <object>PyList_GET_ITEM(values, position)
            self.stage_value(column, value, position, made)
            position += 1
        return made

    def decode(self, values):
        """A row from physical values in column order."""
        cdef int column = 0
        cdef dict row = {}
        if len(values) != self.count:
            raise ValueError(f"a row has {self.count} values, got {len(values)}")
        for value in values:
            if column >= self.count:
                break
            PyDict_SetItem(row, <object>self.names[column], logical_object(self.codes[column], value))
            column += 1
        return row

    cdef Py_ssize_t packed_size(self, const Cell* cells) noexcept:
        cdef Py_ssize_t size = (self.count + 7) >> 3
        cdef int column, width
        for column in range(self.count):
            if not cells[column].is_null:
                width = WIDTH[self.codes[column]]
                size += width if width else 4 + cells[column].size
        return size

    cdef void pack_cells(self, const Cell* cells, char* to) noexcept:
        cdef uint8_t* bits = <uint8_t*>to
        cdef int column, head = (self.count + 7) >> 3
        memset(to, 0, head)
        to += head
        for column in range(self.count):
            if cells[column].is_null:
                bits[column >> 3] |= <uint8_t>(1 << (column & 7))
            else:
                to = give_cell(self.codes[column], &cells[column], to)

    def pack(self, values):
        """Checked physical values in column order as a packed row (``docs/format.md``)."""
        return pack_row(self, values)

    def unpack(self, data):
        """The physical values of one packed row. Bytes are not trusted: ValueError says what is wrong."""
        return unpack_row(self, data)

    def unpack_rows(self, data, places):
        """The packed rows at bytes ``start..stop`` of ``data``, one buffer a column. ValueError as for ``unpack``."""
        return unpack_all(self, data, places)

    def pack_changes(self, changes):
        """(row id, (column, checked physical value) pairs, columns ascending) as a packed change of rows."""
        return pack_all_changes(self, changes)

    def unpack_changes(self, data):
        """The reverse of ``pack_changes``. ValueError as for ``unpack``."""
        return unpack_all_changes(self, data)


def records(names, columns):
    """Rows as dicts from equally long lists of logical values, one list a column."""
    cdef list lists = []
    cdef list keys = list(names)
    cdef list found
    cdef dict template = {}, row
    cdef Py_ssize_t rows, position
    cdef Py_ssize_t width = len(keys), j
    for column in columns:
        lists.append(column if PyList_CheckExact(column) else list(column))
    if width != len(lists):
        raise ValueError(f"{width} names for {len(lists)} columns")
    rows = len(<list>lists[0]) if lists else 0
    for column in lists:
        if len(<list>column) != rows:
            raise ValueError("columns differ in length")
    for name in keys:
        template[name] = None
    found = PyList_New(rows)
    for position in range(rows):
        row = PyDict_Copy(template)
        for j in range(width):
            column = <object>PyList_GET_ITEM(lists, j)
            PyDict_SetItem(row, <object>PyList_GET_ITEM(keys, j), <object>PyList_GET_ITEM(column, position))
        Py_INCREF(row)
        PyList_SET_ITEM(found, position, row)
    return found
