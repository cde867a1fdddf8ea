# Slabs, their layout and the directory that finds them; part of _slab.pyx. Nothing that a write does here runs Python
# code: what owns storage is made of plain C memory and classes that the garbage collector does not track, so that a
# write is never interrupted half-way.

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define snap_lowest(word) __builtin_ctzll(word)
    #else
    static int snap_lowest(unsigned long long word) {
        int at = 0;
        while (!(word & 1)) { word >>= 1; at++; }
        return at;
    }
    #endif
    """
    int snap_lowest(uint64_t word) noexcept nogil  # the number of the lowest bit that is set; there is one


cdef enum:
    I32 = 3
    I64 = 4
    U8 = 5
    F32 = 9
    F64 = 10
    BYTES = 12
    FIXED = 0  # kinds of column: a fixed-width value in the row,
    INLINE = 1  # bytes:N in the row, its length in the side area,
    HEAPED = 2  # a reference to the heap in the row
    FANOUT = 256  # slabs in a group of the directory
    GARBAGE = 4096  # bytes of dead heap that are never worth a rewrite
    FIRST_HEAP = 64
    RECENT = 64  # short texts that a layout remembers

cdef Py_ssize_t HEAP_LIMIT = 0xFFFFFFFFULL  # heap offsets and lengths are u32
cdef Py_ssize_t MOST_ROWS = <Py_ssize_t>1 << 56
cdef bint[17] SIGNED = [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
cdef int[17] WIDTH = [0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 1, 0, 0, 0, 4, 8]

ctypedef struct Column:
    int code
    int kind
    int width  # bytes of a fixed-width value
    int null_index  # which null bitmap, -1: takes no null
    int wide  # INLINE: lengths are u32, else u16
    Py_ssize_t limit  # INLINE: bytes in the row
    Py_ssize_t offset  # in the row
    Py_ssize_t length_at  # INLINE: place of its length in the record, behind the row

ctypedef struct Text:
    # a text of at most 8 bytes and the object that was made of it, NULL: none
    uint64_t word
    PyObject* value
    int size
    int code


# -- bits ------------------------------------------------------------------

cdef inline bint test_bit(const char* bits, Py_ssize_t at) noexcept nogil:
    return (<const uint8_t*>bits)[at >> 3] >> (at & 7) & 1


cdef inline void set_bit(char* bits, Py_ssize_t at) noexcept nogil:
    (<uint8_t*>bits)[at >> 3] |= <uint8_t>(1 << (at & 7))


cdef inline void clear_bit(char* bits, Py_ssize_t at) noexcept nogil:
    (<uint8_t*>bits)[at >> 3] &= <uint8_t>~(1 << (at & 7))


cdef inline uint64_t take_bits(const char* bits, Py_ssize_t at, Py_ssize_t count) noexcept nogil:
    """``count`` (1 to 64) bits from bit ``at`` on."""
    cdef const uint64_t* words = <const uint64_t*>bits + (at >> 6)
    cdef int shift = at & 63
    cdef uint64_t found = words[0] >> shift
    if shift + count > 64:
        found |= words[1] << (64 - shift)
    if count < 64:
        found &= (<uint64_t>1 << count) - 1
    return found


cdef inline void add_bits(char* bits, Py_ssize_t at, Py_ssize_t count, uint64_t more) noexcept nogil:
    """Set the bits of ``more`` (``count`` of them, 1 to 64) from bit ``at`` on."""
    cdef uint64_t* words = <uint64_t*>bits + (at >> 6)
    cdef int shift = at & 63
    words[0] |= more << shift
    if shift + count > 64:
        words[1] |= more >> (64 - shift)


cdef inline Py_ssize_t bit_count(uint64_t word) noexcept nogil:
    word = word - ((word >> 1) & 0x5555555555555555ULL)
    word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL)
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0FULL
    return <Py_ssize_t>((word * 0x0101010101010101ULL) >> 56)


cdef inline Py_ssize_t bitmap_size(Py_ssize_t rows) noexcept nogil:
    return ((rows + 63) >> 6) << 3


# -- strided copies --------------------------------------------------------

cdef void spread(char* to, Py_ssize_t stride, const char* values, int width, Py_ssize_t count) noexcept nogil:
    """Values of ``width`` bytes to rows ``stride`` bytes apart."""
    cdef Py_ssize_t i
    if width == 8:
        for i in range(count):
            memcpy(to + i * stride, values + i * 8, 8)
    elif width == 4:
        for i in range(count):
            memcpy(to + i * stride, values + i * 4, 4)
    elif width == 2:
        for i in range(count):
            memcpy(to + i * stride, values + i * 2, 2)
    else:
        for i in range(count):
            to[i * stride] = values[i]


cdef void collect(char* to, const char* rows, Py_ssize_t stride, int width, Py_ssize_t count) noexcept nogil:
    """The reverse of ``spread``. Four at a time, as scans do little else: a fifth faster."""
    cdef Py_ssize_t i, fours = count & ~<Py_ssize_t>3, step = 4 * stride
    for i in range(0, fours, 4):
        if width == 8:
            memcpy(to, rows, 8)
            memcpy(to + 8, rows + stride, 8)
            memcpy(to + 16, rows + 2 * stride, 8)
            memcpy(to + 24, rows + 3 * stride, 8)
            to += 32
        elif width == 4:
            memcpy(to, rows, 4)
            memcpy(to + 4, rows + stride, 4)
            memcpy(to + 8, rows + 2 * stride, 4)
            memcpy(to + 12, rows + 3 * stride, 4)
            to += 16
        elif width == 2:
            memcpy(to, rows, 2)
            memcpy(to + 2, rows + stride, 2)
            memcpy(to + 4, rows + 2 * stride, 2)
            memcpy(to + 6, rows + 3 * stride, 2)
            to += 8
        else:
            to[0] = rows[0]
            to[1] = rows[stride]
            to[2] = rows[2 * stride]
            to[3] = rows[3 * stride]
            to += 4
        rows += step
    for i in range(count - fours):
        copy_fixed(to + i * width, rows + i * stride, width)


cdef inline void copy_fixed(char* to, const char* at, int width) noexcept nogil:
    """One value between aligned and unaligned memory."""
    if width == 8:
        memcpy(to, at, 8)
    elif width == 4:
        memcpy(to, at, 4)
    elif width == 2:
        memcpy(to, at, 2)
    else:
        to[0] = at[0]


# -- layout ----------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Layout:
    """Where everything of a slab is: records, live bitmap, null bitmaps. Shared by a table and its views.

    A record is a row and the lengths of its ``bytes:N`` values behind it: a point read then misses the cache once less.
    """
    cdef Column* columns
    cdef int count
    cdef int heaped  # columns of that kind
    cdef int nullable
    cdef tuple names
    cdef dict template  # a row of nulls, to copy
    cdef Text[RECENT] texts  # those read lately, each in the place that its bytes say
    cdef Py_ssize_t width  # bytes of a row
    cdef Py_ssize_t stride  # bytes of a record
    cdef Py_ssize_t rows  # in a slab
    cdef Py_ssize_t live, nulls, bitmap, size  # places of the bitmaps, bytes of one, bytes of the whole

    def __cinit__(self, specs, offsets, Py_ssize_t row_width, Py_ssize_t page_size):
        cdef int j
        cdef Column* column
        if row_width < 1 or page_size < 1:
            raise ValueError(f"row_width and page_size must be positive, got {row_width} and {page_size}")
        if len(offsets) != len(specs):
            raise ValueError(f"{len(specs)} columns need as many offsets, got {len(offsets)}")
        self.count = <int>len(specs)
        self.columns = <Column*>PyMem_RawCalloc(self.count + 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError()
        names = []
        for spec in specs:
            names.append(_sys.intern(str(spec[0])))
        self.names = tuple(names)
        self.template = dict.fromkeys(self.names)
        self.width = row_width
        self.rows = max(1, page_size // row_width)
        self.bitmap = bitmap_size(self.rows)
        for j in range(self.count):
            column = &self.columns[j]
            column.code = specs[j][1]
            column.limit = specs[j][2]
            column.offset = offsets[j]
            column.width = WIDTH[column.code]
            column.kind = FIXED if column.width else INLINE if column.code == BYTES else HEAPED
            column.wide = column.limit >= 65536
            column.null_index = -1
            self.heaped += column.kind == HEAPED
            if specs[j][3]:
                column.null_index = self.nullable
                self.nullable += 1
        self.place()

    cdef int place(self) except -1:
        """Check the columns' places in the row and lay out the side area."""
        cdef Py_ssize_t end = 0, width
        cdef Column* column
        cdef int j
        self.stride = self.width
        for j in range(self.count):
            column = &self.columns[j]
            width = column.width if column.kind == FIXED else column.limit if column.kind == INLINE else 8
            if column.offset < end or width < 0 or column.offset > self.width - width:
                raise ValueError(
                    f"column {self.names[j]!r}: {width} bytes at {column.offset} do not fit a row of {self.width}"
                )
            end = column.offset + width
            if column.kind == INLINE:
                column.length_at = self.stride
                self.stride += 4 if column.wide else 2
        if self.stride > MOST_ROWS // self.rows:
            raise MemoryError()
        self.live = (self.rows * self.stride + 7) & ~7
        self.nulls = self.live + self.bitmap
        self.size = self.nulls + self.bitmap * self.nullable
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(RECENT):
            Py_XDECREF(self.texts[i].value)
        PyMem_RawFree(self.columns)

    cdef int fits(self, int j, const Cell* cell) except -1:
        """ValueError for a null where none may be and for bytes that do not fit the row."""
        cdef Column* column = &self.columns[j]
        if cell.is_null:
            if column.null_index < 0:
                raise ValueError(f"column {self.names[j]!r} takes no null")
        elif column.kind == INLINE and cell.size > column.limit:
            raise ValueError(f"column {self.names[j]!r} takes {column.limit} bytes, got {cell.size}")
        return 0


cdef inline Py_ssize_t text_length(const Column* column, const char* record) noexcept nogil:
    cdef uint32_t wide = 0
    cdef uint16_t narrow = 0
    if column.wide:
        memcpy(&wide, record + column.length_at, 4)
        return wide
    memcpy(&narrow, record + column.length_at, 2)
    return narrow


cdef inline void set_length(const Column* column, char* record, Py_ssize_t size) noexcept nogil:
    cdef uint32_t wide = <uint32_t>size
    cdef uint16_t narrow = <uint16_t>size
    if column.wide:
        memcpy(record + column.length_at, &wide, 4)
    else:
        memcpy(record + column.length_at, &narrow, 2)


# -- slabs -----------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Slab:
    """``layout.rows`` rows, their side area and their heap. Rows are appended in place; all else copies a pinned slab."""
    # what a point read needs comes first, for the sake of cache lines
    cdef char* block
    cdef Py_ssize_t live
    cdef Py_ssize_t pins  # raw rows that export it, and reads in progress
    cdef Memory heap  # None until there is a string; only ever grows, so that copies share it
    cdef Py_ssize_t heap_size
    cdef Py_ssize_t garbage  # heap bytes that no row refers to
    cdef int64_t stamp  # epoch at which it was made: a view taken later sees it

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Room for ``more`` bytes in the heap. The old memory stays as it is for whoever reads it."""
        cdef Py_ssize_t needed = self.heap_size + more
        cdef Memory heap
        if more == 0 or (self.heap is not None and needed <= self.heap.size):
            return 0
        if needed > HEAP_LIMIT:
            raise ValueError("the long strings of one slab would pass 4 GiB: use a smaller page_size")
        if self.heap is not None:
            needed += needed >> 1 if needed < 1 << 20 else needed >> 3
        heap = allocate(needed if needed > FIRST_HEAP else FIRST_HEAP)
        if self.heap_size:
            memcpy(heap.ptr, self.heap.ptr, self.heap_size)
        self.heap = heap
        return 0

    cdef void write(self, Layout layout, Py_ssize_t at, int j, const Cell* cell) noexcept:
        """Store one value. Heap space is reserved: this cannot fail."""
        cdef const Column* column = &layout.columns[j]
        cdef char* record = self.block + at * layout.stride
        cdef char* to = record + column.offset
        cdef Py_ssize_t size = 0 if cell.is_null else cell.size
        cdef uint32_t[2] reference
        if column.kind == FIXED:
            store_cell(column, to, cell)
        elif column.kind == INLINE:
            if size:
                memcpy(to, cell.ptr, size)
            memset(to + size, 0, column.limit - size)
            set_length(column, record, size)
        else:
            reference[0] = reference[1] = 0
            if size:
                memcpy(self.heap.ptr + self.heap_size, cell.ptr, size)
                reference[0] = <uint32_t>self.heap_size
                reference[1] = <uint32_t>size
                self.heap_size += size
            memcpy(to, reference, 8)
        if column.null_index >= 0:
            if cell.is_null:
                set_bit(self.block + layout.nulls + column.null_index * layout.bitmap, at)
            else:
                clear_bit(self.block + layout.nulls + column.null_index * layout.bitmap, at)

    cdef void write_row(self, Layout layout, Py_ssize_t at, const Cell* cells) noexcept:
        cdef int j
        for j in range(layout.count):
            self.write(layout, at, j, &cells[j])
        set_bit(self.block + layout.live, at)
        self.live += 1

    cdef Py_ssize_t heap_bytes(self, Layout layout, Py_ssize_t at) noexcept:
        """Bytes of the heap that one row refers to."""
        cdef Py_ssize_t total = 0
        cdef uint32_t size
        cdef int j
        if layout.heaped:
            for j in range(layout.count):
                if layout.columns[j].kind == HEAPED:
                    memcpy(&size, self.block + at * layout.stride + layout.columns[j].offset + 4, 4)
                    total += size
        return total

    cdef void clear(self, Layout layout, Py_ssize_t at) noexcept:
        """Make a live row dead: zero bytes, no null, no length."""
        cdef int j
        memset(self.block + at * layout.stride, 0, layout.stride)
        clear_bit(self.block + layout.live, at)
        for j in range(layout.nullable):
            clear_bit(self.block + layout.nulls + j * layout.bitmap, at)
        self.live -= 1

    cdef void rewrite(self, Layout layout, Memory heap) noexcept:
        """Move what rows refer to into ``heap``, row by row."""
        cdef Py_ssize_t at, end = 0
        cdef uint32_t[2] reference
        cdef char* place
        cdef int j
        for at in range(layout.rows):
            for j in range(layout.count):
                if layout.columns[j].kind != HEAPED:
                    continue
                place = self.block + at * layout.stride + layout.columns[j].offset
                memcpy(reference, place, 8)
                if reference[1]:
                    memcpy(heap.ptr + end, self.heap.ptr + reference[0], reference[1])
                    reference[0] = <uint32_t>end
                    end += reference[1]
                    memcpy(place, reference, 8)
        self.heap = heap
        self.heap_size = end
        self.garbage = 0


cdef inline void store_cell(const Column* column, char* to, const Cell* cell) noexcept:
    cdef float single
    cdef int64_t whole
    if cell.is_null:
        memset(to, 0, column.width)
    elif column.code == F64:
        memcpy(to, &cell.f, 8)
    elif column.code == F32:
        single = <float>cell.f
        memcpy(to, &single, 4)
    else:
        whole = cell.i
        if column.width == 8:
            memcpy(to, &whole, 8)
        elif column.width == 4:
            (<int32_t*>&whole)[0] = <int32_t>cell.i
            memcpy(to, &whole, 4)
        elif column.width == 2:
            (<int16_t*>&whole)[0] = <int16_t>cell.i
            memcpy(to, &whole, 2)
        else:
            to[0] = <char>cell.i


cdef Slab new_slab(Layout layout):
    cdef Slab made = Slab.__new__(Slab)
    made.block = <char*>PyMem_RawCalloc(layout.size, 1)
    if made.block == NULL:
        raise MemoryError()
    return made


cdef Slab copy_slab(Layout layout, Slab slab, int64_t stamp):
    cdef Slab made = Slab.__new__(Slab)
    made.stamp = stamp
    made.block = <char*>PyMem_RawMalloc(layout.size)
    if made.block == NULL:
        raise MemoryError()
    memcpy(made.block, slab.block, layout.size)
    made.heap = slab.heap  # shared: it only grows, and the copy alone grows it
    made.heap_size = slab.heap_size
    made.garbage = slab.garbage
    made.live = slab.live
    return made


cdef int move_heap(Slab slab) except -1:
    """Give a slab a heap of its own."""
    cdef Memory heap
    if slab.heap is not None:
        heap = allocate(slab.heap_size)
        memcpy(heap.ptr, slab.heap.ptr, slab.heap_size)
        slab.heap = heap
    return 0


# -- staged rows ------------------------------------------------------------

ctypedef struct Source:
    # a staged column
    const char* values
    const uint64_t* starts
    const char* nulls


cdef void fill_slab(
    Layout layout, Slab slab, Py_ssize_t at, const Source* sources, Py_ssize_t low, Py_ssize_t count
) noexcept:
    """Write staged rows from ``low`` on from row ``at`` of a slab on, column by column while the slab is in cache."""
    cdef const Column* column
    cdef Py_ssize_t done, step
    cdef char* to
    cdef char* bits
    cdef int j
    for j in range(layout.count):
        column = &layout.columns[j]
        to = slab.block + at * layout.stride + column.offset
        if column.kind == FIXED:
            spread(to, layout.stride, sources[j].values + low * column.width, column.width, count)
        elif column.kind == INLINE:
            fill_inline(layout, column, slab, at, &sources[j], low, count)
        else:
            fill_heaped(layout, column, slab, at, &sources[j], low, count)
        if sources[j].nulls != NULL:
            bits = slab.block + layout.nulls + column.null_index * layout.bitmap
            done = 0
            while done < count:
                step = min(64, count - done)
                add_bits(bits, at + done, step, take_bits(sources[j].nulls, low + done, step))
                done += step
    done = 0
    while done < count:
        step = min(64, count - done)
        add_bits(slab.block + layout.live, at + done, step, <uint64_t>-1 if step == 64 else (<uint64_t>1 << step) - 1)
        done += step
    slab.live += count


cdef void fill_inline(
    Layout layout, const Column* column, Slab slab, Py_ssize_t at,
    const Source* source, Py_ssize_t low, Py_ssize_t count,
) noexcept:
    cdef char* record = slab.block + at * layout.stride
    cdef const uint64_t* starts = source.starts + low
    cdef Py_ssize_t i, size
    for i in range(count):
        size = starts[i + 1] - starts[i]
        memcpy(record + column.offset, source.values + starts[i], size)
        set_length(column, record, size)
        record += layout.stride


cdef void fill_heaped(
    Layout layout, const Column* column, Slab slab, Py_ssize_t at,
    const Source* source, Py_ssize_t low, Py_ssize_t count,
) noexcept:
    cdef char* to = slab.block + at * layout.stride + column.offset
    cdef const uint64_t* starts = source.starts + low
    cdef uint32_t[2] reference
    cdef Py_ssize_t i, size = starts[count] - starts[0]
    if size == 0:
        return
    memcpy(slab.heap.ptr + slab.heap_size, source.values + starts[0], size)
    for i in range(count):
        size = starts[i + 1] - starts[i]
        reference[0] = <uint32_t>(slab.heap_size + (starts[i] - starts[0])) if size else 0
        reference[1] = <uint32_t>size
        memcpy(to, reference, 8)
        to += layout.stride
    slab.heap_size += starts[count] - starts[0]


# -- the directory ---------------------------------------------------------

cdef struct Link:
    # a hold among those of the same pins, which are ascending by epoch
    Link* before
    Link* after
    int64_t epoch


@cython.final
@cython.no_gc
cdef class Pins:
    """Which views of a table, and of the tables branched from its views, still read.

    A view that was taken at an epoch sees what is older: while it reads, nobody writes to that in place.
    """
    cdef int64_t epoch  # views and branches made so far
    cdef int64_t newest  # epoch of the newest view that still reads, 0: none does
    cdef Link* last


@cython.final
@cython.no_gc
cdef class Hold:
    """A view's, an iterator's or a branch's share in keeping things as they are."""
    cdef Pins pins
    cdef Link link

    cdef void release(self) noexcept:
        if self.pins is not None:
            unlink(self.pins, &self.link)
            self.pins = None

    def __dealloc__(self):
        if self.pins is not None:
            unlink(self.pins, &self.link)


cdef void unlink(Pins pins, Link* link) noexcept:
    if link.before != NULL:
        link.before.after = link.after
    if link.after != NULL:
        link.after.before = link.before
    else:
        pins.last = link.before
        pins.newest = 0 if link.before == NULL else link.before.epoch


cdef Hold hold(Pins pins, int64_t epoch):
    """Keep what is older than ``epoch`` as it is."""
    cdef Hold made = Hold.__new__(Hold)
    cdef Link* link = &made.link
    link.epoch = epoch
    link.before = pins.last
    while link.before != NULL and link.before.epoch > epoch:
        link.after = link.before
        link.before = link.before.before
    if link.before != NULL:
        link.before.after = link
    if link.after != NULL:
        link.after.before = link
    else:
        pins.last = link
        pins.newest = epoch
    made.pins = pins
    return made


@cython.final
@cython.no_gc
cdef class Group:
    """Some neighbouring slabs, NULL where no row is live."""
    cdef PyObject* slabs[FANOUT]
    cdef int count  # of those that are there
    cdef int64_t stamp

    def __dealloc__(self):
        cdef int i
        for i in range(FANOUT):
            Py_XDECREF(self.slabs[i])

    cdef void set(self, Py_ssize_t at, Slab slab) noexcept:
        cdef PyObject* old = self.slabs[at]
        self.count += (slab is not None) - (old != NULL)
        self.slabs[at] = NULL
        if slab is not None:
            Py_INCREF(slab)
            self.slabs[at] = <PyObject*>slab
        Py_XDECREF(old)


@cython.final
@cython.no_gc
cdef class Directory:
    """The groups, NULL where no row is live: a run of dead rows costs a pointer in 256 slabs."""
    cdef PyObject** groups
    cdef Py_ssize_t count, capacity
    cdef int64_t stamp

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            Py_XDECREF(self.groups[i])
        PyMem_RawFree(self.groups)

    cdef int reserve(self, Py_ssize_t count) except -1:
        """Room for ``count`` groups; the new ones are NULL."""
        cdef Py_ssize_t wanted
        cdef PyObject** groups
        if count > self.capacity:
            wanted = count + (count >> 1) + 4
            groups = <PyObject**>PyMem_RawRealloc(self.groups, wanted * sizeof(PyObject*))
            if groups == NULL:
                raise MemoryError()
            self.groups = groups
            self.capacity = wanted
        while self.count < count:
            self.groups[self.count] = NULL
            self.count += 1
        return 0

    cdef void set(self, Py_ssize_t at, Group group) noexcept:
        cdef PyObject* old = self.groups[at]
        self.groups[at] = NULL
        if group is not None:
            Py_INCREF(group)
            self.groups[at] = <PyObject*>group
        Py_XDECREF(old)

    cdef inline PyObject* at(self, Py_ssize_t number) noexcept:
        """The slab of that number, borrowed; NULL where there is none."""
        cdef Py_ssize_t at = number >> 8
        if at >= self.count or self.groups[at] == NULL:
            return NULL
        return (<Group>self.groups[at]).slabs[number & (FANOUT - 1)]

    cdef inline Slab find(self, Py_ssize_t number):
        """The slab of that number, None where there is none."""
        cdef PyObject* slab = self.at(number)
        return <Slab>slab if slab != NULL else None


cdef Directory copy_directory(Directory old, int64_t stamp):
    cdef Directory made = Directory.__new__(Directory)
    cdef Py_ssize_t i
    made.stamp = stamp
    made.reserve(old.count)
    for i in range(old.count):
        Py_XINCREF(old.groups[i])
        made.groups[i] = old.groups[i]
    return made


cdef Group copy_group(Group old, int64_t stamp):
    cdef Group made = Group.__new__(Group)
    cdef int i
    made.stamp = stamp
    made.count = old.count
    for i in range(FANOUT):
        Py_XINCREF(old.slabs[i])
        made.slabs[i] = old.slabs[i]
    return made


cdef inline object fixed_object(int code, const char* at):
    """What ``logical_fixed`` gives, with the common types here: a call into another module costs as much as the value."""
    if code == I64:
        return (<const int64_t*>at)[0]
    if code == F64:
        return (<const double*>at)[0]
    if code == I32:
        return (<const int32_t*>at)[0]
    if code == U8:
        return (<const uint8_t*>at)[0]
    return logical_fixed(code, at)


cdef inline object text_object(Layout layout, int code, const char* at, Py_ssize_t size):
    """What ``logical_bytes`` gives. Short texts repeat themselves (a status, a name): the same bytes are the same
    object while it is remembered, which takes a sixth off reading such a row.
    """
    cdef uint64_t word = 0
    cdef Text* text
    if size > 8:
        return logical_bytes(code, at, size)
    memcpy(&word, at, size)
    text = &layout.texts[hash_word(word + <uint64_t>size) & (RECENT - 1)]
    if text.value == NULL or text.word != word or text.size != size or text.code != code:
        remember(text, code, word, <int>size, logical_bytes(code, at, size))
    return <object>text.value


cdef void remember(Text* text, int code, uint64_t word, int size, object value) noexcept:
    """Have a text in this place instead of another. Texts have no finalizers: nothing runs here."""
    cdef PyObject* old = text.value
    Py_INCREF(value)
    text.value, text.word, text.size, text.code = <PyObject*>value, word, size, code
    Py_XDECREF(old)


cdef object row_dict(Layout layout, Slab slab, Py_ssize_t at):
    """A live row as a dict of logical values. The slab is pinned or a view's: making objects may run other code."""
    cdef dict row = PyDict_Copy(layout.template)
    cdef const char* block = slab.block
    cdef const char* record = block + at * layout.stride
    cdef Memory heap = slab.heap if layout.heaped else None
    cdef PyObject* names = <PyObject*>layout.names
    cdef const char* place
    cdef const char* text
    cdef const Column* column
    cdef uint32_t[2] reference
    cdef int64_t aligned
    cdef object value
    cdef int j
    for j in range(layout.count):
        column = &layout.columns[j]
        if column.null_index >= 0 and test_bit(block + layout.nulls + column.null_index * layout.bitmap, at):
            continue
        place = record + column.offset
        if column.kind == FIXED:
            copy_fixed(<char*>&aligned, place, column.width)
            value = fixed_object(column.code, <const char*>&aligned)
        elif column.kind == INLINE:
            value = text_object(layout, column.code, place, text_length(column, record))
        else:
            memcpy(reference, place, 8)
            text = place  # whatever, where there are no bytes to read
            if reference[1]:
                text = heap.ptr + reference[0]
            value = text_object(layout, column.code, text, reference[1])
        set_item(<PyObject*>row, member_of(names, j), <PyObject*>value)
    return row
