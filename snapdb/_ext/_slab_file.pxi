# Slab groups as bytes (docs/format.md, "Slab group") and tables put together of others; part of _slab.pyx. An image has
# the blocks as they are in memory, so writing and reading are copies; what is read is checked before it is a slab.

cdef enum:
    BOOL = 11
    STR = 13
    DATE = 15
    DATETIME = 16
    GROUP_BYTES = 65536  # of blocks, which a group is to have at most

include "_checks.pxi"

ctypedef struct GroupHeader:
    char[4] magic
    uint32_t slabs
    uint32_t rows
    uint32_t record
    uint64_t block
    uint64_t total

ctypedef struct GroupEntry:
    uint64_t place
    uint32_t live
    uint32_t heap


cdef inline Py_ssize_t whole_words(Py_ssize_t size) noexcept nogil:
    return (size + 7) & ~<Py_ssize_t>7


cdef Py_ssize_t group_of(SlabTable table, object group) except -1:
    cdef Py_ssize_t number = position_of(group)
    if number < 0 or number >= MOST_ROWS // table.group_slabs:
        raise ValueError(f"there is no slab group {group}")
    return number


# -- writing -----------------------------------------------------------------

cdef Py_ssize_t heap_used(Layout layout, Slab slab) noexcept:
    """Bytes of a slab's heap that rows refer to."""
    cdef Py_ssize_t at, total = 0
    if slab.heap_size:
        for at in range(layout.rows):
            total += slab.heap_bytes(layout, at)
    return total


cdef object dump_group(SlabTable table, Py_ssize_t group):
    cdef Layout layout = table.layout
    cdef Py_ssize_t count = table.group_slabs, first = group * count
    cdef Py_ssize_t head = <Py_ssize_t>sizeof(GroupHeader) + count * <Py_ssize_t>sizeof(GroupEntry)
    cdef Py_ssize_t i, heap, end = head
    cdef GroupHeader header
    cdef GroupEntry entry
    cdef Slab slab
    cdef char* to
    if table.is_missing(first):
        raise ValueError(f"slab group {group} is not loaded")
    for i in range(count):
        slab = table.slabs.find(first + i)
        if slab is not None and slab.live:
            end += whole_words(layout.size + heap_used(layout, slab))
    image = PyBytes_FromStringAndSize(NULL, end)
    to = PyBytes_AS_STRING(image)
    memset(to, 0, head)
    memcpy(header.magic, b"SNSG", 4)
    header.slabs, header.rows, header.record = <uint32_t>count, <uint32_t>layout.rows, <uint32_t>layout.stride
    header.block, header.total = layout.size, end
    memcpy(to, &header, sizeof(GroupHeader))
    end = head
    for i in range(count):
        slab = table.slabs.find(first + i)
        if slab is None or slab.live == 0:
            continue
        heap = put_slab(layout, slab, to + end)
        entry.place, entry.live, entry.heap = end, <uint32_t>slab.live, <uint32_t>heap
        memcpy(to + sizeof(GroupHeader) + i * <Py_ssize_t>sizeof(GroupEntry), &entry, sizeof(GroupEntry))
        heap += layout.size
        memset(to + end + heap, 0, whole_words(heap) - heap)
        end += whole_words(heap)
    return image


cdef Py_ssize_t put_slab(Layout layout, Slab slab, char* to) noexcept:
    """Write a block, and behind it the heap, row by row and column by column; returns the heap's bytes."""
    cdef char* heap = to + layout.size
    cdef char* place
    cdef Py_ssize_t at, end = 0
    cdef uint32_t[2] reference
    cdef int j
    memcpy(to, slab.block, layout.size)
    if slab.heap_size == 0:
        return 0
    for at in range(layout.rows):
        for j in range(layout.count):
            if layout.columns[j].kind != HEAPED:
                continue
            place = to + at * layout.stride + layout.columns[j].offset
            memcpy(reference, place, 8)
            if reference[1]:
                memcpy(heap + end, slab.heap.ptr + reference[0], reference[1])
                reference[0] = <uint32_t>end
                memcpy(place, reference, 8)
                end += reference[1]
    return end


# -- reading -----------------------------------------------------------------

cdef int load_group(SlabTable table, Py_ssize_t group, const char* data, Py_ssize_t size, list slabs) except -1:
    """Check an image and take it in; ``slabs`` is an empty list. Runs no Python code but errors."""
    cdef Layout layout = table.layout
    cdef Py_ssize_t count = table.group_slabs, first = group * count
    cdef Py_ssize_t head = <Py_ssize_t>sizeof(GroupHeader) + count * <Py_ssize_t>sizeof(GroupEntry)
    cdef Py_ssize_t i, end = head
    cdef GroupEntry entry
    cdef Slab slab
    table.idle()
    for i in range(count):
        if table.slabs.find(first + i) is not None:
            raise ValueError(f"slab group {group} is here already")
    check_header(table, group, data, size, head)
    for i in range(count):
        memcpy(&entry, data + sizeof(GroupHeader) + i * <Py_ssize_t>sizeof(GroupEntry), sizeof(GroupEntry))
        if entry.place == 0:
            if entry.live or entry.heap:
                raise damaged_slab(group, i, b"rows or strings without a block")
            slabs.append(None)
            continue
        if entry.place != <uint64_t>end or whole_words(layout.size + <Py_ssize_t>entry.heap) > size - end:
            raise damaged_slab(group, i, b"a block outside its place")
        slab = read_slab(layout, data + end, &entry)
        what = wrong(layout, slab, data + end, table.rows - (first + i) * layout.rows)
        if what is not None:
            raise damaged_slab(group, i, what)
        slabs.append(slab)
        end += whole_words(layout.size + <Py_ssize_t>entry.heap)
    if end != size:
        raise ValueError(f"slab group {group}: {size} bytes, of which {end} are used")
    for i in range(count):
        if slabs[i] is not None:
            table.group_for(first + i)
    for i in range(count):
        if slabs[i] is not None:
            table.publish(first + i, <Slab>slabs[i])
    return 0


cdef object damaged_slab(Py_ssize_t group, Py_ssize_t slab, what):
    return ValueError(f"slab group {group}, slab {slab}: {what.decode()}")


cdef int check_header(
    SlabTable table, Py_ssize_t group, const char* data, Py_ssize_t size, Py_ssize_t head
) except -1:
    cdef Layout layout = table.layout
    cdef GroupHeader header
    if size < head:
        raise ValueError(f"slab group {group}: {size} bytes are less than a header of {head}")
    memcpy(&header, data, sizeof(GroupHeader))
    if memcmp(header.magic, b"SNSG", 4) != 0:
        raise ValueError(f"slab group {group}: not a slab group")
    found = (header.slabs, header.rows, header.record, header.block)
    wanted = (table.group_slabs, layout.rows, layout.stride, layout.size)
    if found != wanted:
        raise ValueError(f"slab group {group}: (slabs, rows, record, block) are {found}, not {wanted}")
    if header.total != <uint64_t>size:
        raise ValueError(f"slab group {group}: {size} bytes, not {header.total}")
    return 0


cdef Slab read_slab(Layout layout, const char* data, const GroupEntry* entry):
    """A copy of what may be a slab: checked as a copy, because a map of a file may change."""
    cdef Slab slab = new_slab(layout)
    memcpy(slab.block, data, layout.size)
    slab.live = entry.live
    if entry.heap:
        slab.heap = allocate(entry.heap)
        memcpy(slab.heap.ptr, data + layout.size, entry.heap)
        slab.heap_size = entry.heap
    return slab


cdef object wrong(Layout layout, Slab slab, const char* data, Py_ssize_t count):
    """What is wrong with a slab of a table that has ``count`` positions from its first on; None: nothing."""
    cdef Py_ssize_t size = layout.size + slab.heap_size
    cdef const char* found = wrong_bits(layout, slab, count)
    cdef Py_ssize_t end = 0
    cdef int j
    for j in range(layout.count):
        if found == NULL:
            found = wrong_gap(layout, slab.block, end, layout.columns[j].offset)
        if found == NULL:
            found = wrong_column(layout, slab.block, &layout.columns[j])
        end = layout.columns[j].offset + field_width(&layout.columns[j])
    if found == NULL:
        found = wrong_gap(layout, slab.block, end, layout.width)
    if found == NULL:
        found = wrong_heap(layout, slab)
    if found == NULL:
        what = wrong_values(layout, slab)
        if what is not None:
            return what
    if found == NULL and not zeros(data + size, whole_words(size) - size):
        found = b"bytes behind the heap"
    return None if found == NULL else found


cdef inline Py_ssize_t field_width(const Column* column) noexcept nogil:
    return column.width if column.kind == FIXED else column.limit if column.kind == INLINE else 8


cdef bint zeros(const char* at, Py_ssize_t size) noexcept nogil:
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, at, 8)
        if word:
            return False
        at += 8
        size -= 8
    while size > 0:
        if at[0]:
            return False
        at += 1
        size -= 1
    return True


cdef const char* wrong_bits(Layout layout, Slab slab, Py_ssize_t count) noexcept:
    cdef const char* block = slab.block
    cdef const uint64_t* alive = <const uint64_t*>(block + layout.live)
    cdef const uint64_t* nulls
    cdef Py_ssize_t i, total = 0
    cdef int j
    for i in range(layout.bitmap >> 3):
        total += bit_count(alive[i])
    for i in range(layout.rows, layout.bitmap << 3):
        if test_bit(block + layout.live, i):
            return b"bits past the last row"
    if total != slab.live or total == 0:
        return b"another number of live rows"
    for i in range(max(count, 0), layout.rows):
        if test_bit(block + layout.live, i):
            return b"a live row past the end of the table"
    if not zeros(block + layout.rows * layout.stride, layout.live - layout.rows * layout.stride):
        return b"bytes behind the records"
    for j in range(layout.nullable):
        nulls = <const uint64_t*>(block + layout.nulls + j * layout.bitmap)
        for i in range(layout.bitmap >> 3):
            if nulls[i] & ~alive[i]:
                return b"a null in a dead row"
    if total < layout.rows:
        for i in range(layout.rows):
            if not test_bit(block + layout.live, i) and not zeros(block + i * layout.stride, layout.stride):
                return b"a dead row that is not zero"
    return NULL


cdef const char* wrong_gap(Layout layout, const char* block, Py_ssize_t start, Py_ssize_t stop) noexcept:
    cdef Py_ssize_t at
    if start < stop:
        for at in range(layout.rows):
            if not zeros(block + at * layout.stride + start, stop - start):
                return b"bytes between columns"
    return NULL


cdef const char* wrong_column(Layout layout, const char* block, const Column* column) noexcept:
    cdef const char* record = block
    cdef const char* nulls = block + layout.nulls + column.null_index * layout.bitmap
    cdef Py_ssize_t at, size
    if column.code == BOOL:
        for at in range(layout.rows):
            if <uint8_t>block[at * layout.stride + column.offset] > 1:
                return b"a bool that is neither 0 nor 1"
    if column.kind == INLINE:
        for at in range(layout.rows):
            size = text_length(column, record)
            if size > column.limit:
                return b"a string longer than its column"
            if not zeros(record + column.offset + size, column.limit - size):
                return b"bytes behind a short string"
            record += layout.stride
    if column.null_index < 0:
        return NULL
    for at in range(layout.rows):
        if test_bit(nulls, at):
            record = block + at * layout.stride
            if not zeros(record + column.offset, field_width(column)):
                return b"a null with a value"
            if column.kind == INLINE and text_length(column, record):
                return b"a null with a value"
    return NULL


cdef const char* wrong_heap(Layout layout, Slab slab) noexcept:
    """Strings stand in the heap in the order of rows and columns, without a gap: none can overlap another."""
    cdef Py_ssize_t at, end = 0
    cdef uint32_t[2] reference
    cdef int j
    if layout.heaped:
        for at in range(layout.rows):
            for j in range(layout.count):
                if layout.columns[j].kind != HEAPED:
                    continue
                memcpy(reference, slab.block + at * layout.stride + layout.columns[j].offset, 8)
                if <Py_ssize_t>reference[0] != (end if reference[1] else 0) or reference[1] > slab.heap_size - end:
                    return b"a string outside its place in the heap"
                end += reference[1]
    if end != slab.heap_size:
        return b"heap bytes of no row"
    return NULL


cdef bytes wrong_values(Layout layout, Slab slab):
    """Dates and text that no row can have, where everything else is right (so dead rows and nulls are zero)."""
    cdef const uint8_t* heap = NULL
    cdef const char* what
    cdef Py_ssize_t at
    cdef int j, code
    cdef bint plain
    if slab.heap_size:
        heap = <const uint8_t*>slab.heap.ptr
    plain = text_kind(heap, slab.heap_size) == ASCII_TEXT
    for j in range(layout.count):
        code = layout.columns[j].code
        if code == DATE or code == DATETIME:
            at, what = wrong_field(layout, slab.block + layout.columns[j].offset, code), NO_MOMENT
        elif code == STR and not plain:
            at, what = wrong_reference(layout, slab.block + layout.columns[j].offset, heap), NOT_UTF8
        else:
            continue
        if at >= 0:
            return b"column %d, row %d: %s" % (j, at, what)
    return None


cdef Py_ssize_t wrong_field(Layout layout, const char* field, int code) noexcept nogil:
    """The first record whose field is no date or datetime, -1 where there is none."""
    cdef Py_ssize_t at
    cdef int32_t days
    cdef int64_t value
    for at in range(layout.rows):
        if code == DATE:
            memcpy(&days, field, 4)
            value = days
        else:
            memcpy(&value, field, 8)
        if not is_moment(code, value):
            return at
        field += layout.stride
    return -1


cdef Py_ssize_t wrong_reference(Layout layout, const char* field, const uint8_t* heap) noexcept nogil:
    """The first record whose string, which lies in the heap, is not UTF-8, -1 where there is none."""
    cdef Py_ssize_t at
    cdef uint32_t[2] reference
    for at in range(layout.rows):
        memcpy(reference, field, 8)
        if reference[1] and text_kind(heap + reference[0], reference[1]) == NO_TEXT:
            return at
        field += layout.stride
    return -1


# -- logging -----------------------------------------------------------------

cdef inline bint is_ready(Log log, Py_ssize_t size) noexcept:
    """Whether a frame goes to the log without a call of Python code (but where the file system refuses it)."""
    cdef Py_ssize_t whole = whole_words(WAL_FRAME + size)
    return log.fd >= 0 and log.limit > 0 and (log.hold or log.position + whole <= log.limit)


# -- putting tables together -------------------------------------------------

cdef int ask_from(SlabTable table, Py_ssize_t position) except -1:
    """Have every group from that of a position on. Runs Python code."""
    cdef Py_ssize_t size = table.slab_rows * table.group_slabs, group = position // size
    cdef int tries
    while group * size < table.rows:
        tries = 0
        while table.is_missing(group * table.group_slabs):
            if tries == TRIES:
                raise RuntimeError(f"slab group {group} was asked for and did not come")
            table.fault(group)
            tries += 1
        group += 1
    return 0


cdef int absorb_rows(SlabTable table, SlabTable other) except -1:
    cdef Layout layout = table.layout
    cdef Py_ssize_t number = table.rows // layout.rows, at = table.rows - number * layout.rows
    cdef Py_ssize_t last = (other.rows + layout.rows - 1) // layout.rows, i
    cdef Directory empty = Directory.__new__(Directory)
    cdef Slab mine, slab
    if not same_layout(layout, other.layout) or other is table:
        raise ValueError("absorb needs another table of the same layout")
    if other.missing is not None or other.pins.newest or other.floor:
        raise ValueError("absorb needs a table that is all here and has no views")
    if other.rows < table.rows or has_rows_below(other, number, at):
        raise ValueError(f"absorb needs a table whose rows begin at {table.rows}")
    mine, slab = table.slabs.find(number), other.slabs.find(number)
    if mine is not None and slab is not None:
        mine.reserve(slab.heap_size)
    for i in range(number >> 8, (last + 255) >> 8):
        table.group_for(i << 8)
    if mine is not None and slab is not None:  # from here on nothing can fail
        merge(layout, mine, at, slab)
        number += 1
    for number in range(number, last):
        slab = other.slabs.find(number)
        if slab is not None and slab.live:
            table.publish(number, slab)
    table.rows = other.rows
    table.live += other.live
    table.writes += 1
    table.zones = other.zones = None
    other.slabs = empty
    other.rows = other.live = 0
    other.writes += 1
    return 0


cdef bint same_layout(Layout one, Layout other) noexcept:
    cdef int j
    if one.count != other.count or one.rows != other.rows or one.stride != other.stride or one.size != other.size:
        return False
    for j in range(one.count):
        if (
            one.columns[j].code != other.columns[j].code or one.columns[j].offset != other.columns[j].offset
            or one.columns[j].limit != other.columns[j].limit or one.columns[j].null_index != other.columns[j].null_index
        ):
            return False
    return True


cdef bint has_rows_below(SlabTable table, Py_ssize_t number, Py_ssize_t at) noexcept:
    """Whether a row is live in a slab before that of ``number`` or in it before row ``at``."""
    cdef Py_ssize_t i = 0
    cdef Slab slab
    while i < number:
        if i >> 8 >= table.slabs.count:
            return False
        if table.slabs.groups[i >> 8] == NULL:
            i = ((i >> 8) + 1) << 8
            continue
        slab = table.slabs.find(i)
        if slab is not None and slab.live:
            return True
        i += 1
    slab = table.slabs.find(number)
    if slab is not None:
        for i in range(at):
            if test_bit(slab.block + table.layout.live, i):
                return True
    return False


cdef void merge(Layout layout, Slab slab, Py_ssize_t at, Slab more) noexcept:
    """Copy the rows of ``more`` from row ``at`` on, where it has its first; the heap has room."""
    cdef uint64_t* bits = <uint64_t*>(slab.block + layout.live)
    cdef const uint64_t* others = <const uint64_t*>(more.block + layout.live)
    cdef Py_ssize_t i
    cdef uint32_t[2] reference
    cdef char* place
    cdef int j
    memcpy(slab.block + at * layout.stride, more.block + at * layout.stride, (layout.rows - at) * layout.stride)
    if more.heap_size:
        memcpy(slab.heap.ptr + slab.heap_size, more.heap.ptr, more.heap_size)
        for i in range(at, layout.rows):
            for j in range(layout.count):
                place = slab.block + i * layout.stride + layout.columns[j].offset
                if layout.columns[j].kind == HEAPED:
                    memcpy(reference, place, 8)
                    if reference[1]:
                        reference[0] += <uint32_t>slab.heap_size
                        memcpy(place, reference, 8)
    for i in range((layout.size - layout.live) >> 3):
        bits[i] |= others[i]
    slab.heap_size += more.heap_size
    slab.garbage += more.garbage
    slab.live += more.live
