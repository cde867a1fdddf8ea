# Batches of (word, id): taken from buffers, checked, sorted. Part of _index.pyx.

@cython.final
cdef class Pairs:
    """An array of pairs that nobody else sees."""
    cdef Pair* at
    cdef Py_ssize_t count, room

    def __dealloc__(self):
        PyMem_RawFree(self.at)

    cdef bint grow(self, Py_ssize_t room) noexcept:
        """Room for this many in all; False where there is no memory."""
        cdef Pair* fresh
        if room <= self.room:
            return True
        if room > <Py_ssize_t>1 << 58:
            return False
        fresh = <Pair*>PyMem_RawRealloc(self.at, room * sizeof(Pair))
        if fresh == NULL:
            return False
        self.at, self.room = fresh, room
        return True

    cdef inline bint push(self, uint64_t word, uint64_t id) noexcept:
        if self.count == self.room and not self.grow(self.room * 2 + 64):
            return False
        self.at[self.count].word = word
        self.at[self.count].id = id
        self.count += 1
        return True

    cdef int sort(self, bint release) except -1:
        """By (word, id), each pair once. With ``release`` other threads may run meanwhile."""
        cdef Pair* spare = NULL
        cdef bint swapped
        if is_sorted(self.at, self.count):
            return 0
        if self.count > SHORT:
            spare = <Pair*>PyMem_RawMalloc(self.count * sizeof(Pair))
            if spare == NULL:
                raise MemoryError()
            if release:
                with nogil:
                    swapped = radix_sort(self.at, spare, self.count)
            else:
                swapped = radix_sort(self.at, spare, self.count)
            if swapped:
                self.at, spare = spare, self.at
            PyMem_RawFree(spare)
            self.room = self.count
        else:
            insertion_sort(self.at, self.count)
        self.count = unique_pairs(self.at, self.count)
        return 0


cdef Pairs new_pairs(Py_ssize_t room):
    cdef Pairs made = Pairs.__new__(Pairs)
    if not made.grow(room if room > 0 else 1):
        raise MemoryError()
    return made


cdef inline bint before(const Pair* a, const Pair* b) noexcept nogil:
    return a.word < b.word or (a.word == b.word and a.id < b.id)


cdef bint is_sorted(const Pair* at, Py_ssize_t count) noexcept nogil:
    """Rising, each pair once."""
    cdef Py_ssize_t i
    for i in range(1, count):
        if not before(at + i - 1, at + i):
            return False
    return True


cdef Py_ssize_t unique_pairs(Pair* at, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t kept = 0, i
    for i in range(count):
        if kept == 0 or before(at + kept - 1, at + i):
            at[kept] = at[i]
            kept += 1
    return kept


cdef void insertion_sort(Pair* at, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Pair one
    for i in range(1, count):
        one = at[i]
        j = i
        while j > 0 and before(&one, at + j - 1):
            at[j] = at[j - 1]
            j -= 1
        at[j] = one


cdef bint radix_sort(Pair* at, Pair* spare, Py_ssize_t count) noexcept nogil:
    """By the bytes that differ, ids first; whether the result is in ``spare``."""
    cdef uint64_t words = 0, ids = 0
    cdef bint rising = True, swapped = False
    cdef Py_ssize_t i
    for i in range(1, count):
        words |= at[i].word ^ at[0].word
        ids |= at[i].id ^ at[0].id
        rising &= at[i].id >= at[i - 1].id
    if not rising:  # else it is kept: a pass leaves equal bytes in their order
        swapped = radix_passes(&at, &spare, count, ids, True)
    return swapped ^ radix_passes(&at, &spare, count, words, False)


cdef void in_parts(Pairs pairs) noexcept:
    """Sort by the first bits of the words, which say where in a table their slots are: filled one part after the other
    a large table takes half the time. Equal words keep their order. Without memory nothing is sorted.
    """
    cdef Py_ssize_t[PARTS] places
    cdef Py_ssize_t i, part, sum = 0, next
    cdef Pair* source = pairs.at
    cdef Pair* to = <Pair*>PyMem_RawMalloc(pairs.room * sizeof(Pair))
    if to == NULL:
        return
    memset(places, 0, sizeof(places))
    for i in range(pairs.count):
        places[source[i].word >> PART_SHIFT] += 1
    for part in range(PARTS):
        next = sum + places[part]
        places[part] = sum
        sum = next
    for i in range(pairs.count):
        part = source[i].word >> PART_SHIFT
        to[places[part]] = source[i]
        places[part] += 1
    pairs.at = to
    PyMem_RawFree(source)


cdef bint radix_passes(Pair** at, Pair** spare, Py_ssize_t count, uint64_t differ, bint ids) noexcept nogil:
    cdef Py_ssize_t[256] places
    cdef Py_ssize_t i, sum, next
    cdef Pair* source
    cdef Pair* to
    cdef int shift, digit
    cdef bint swapped = False
    for shift in range(0, 64, 8):
        if not differ >> shift & 0xFF:
            continue
        source, to = at[0], spare[0]
        memset(places, 0, sizeof(places))
        for i in range(count):
            places[(source[i].id if ids else source[i].word) >> shift & 0xFF] += 1
        sum = 0
        for digit in range(256):
            next = sum + places[digit]
            places[digit] = sum
            sum = next
        for i in range(count):
            digit = (source[i].id if ids else source[i].word) >> shift & 0xFF
            to[places[digit]] = source[i]
            places[digit] += 1
        at[0], spare[0] = to, source
        swapped = not swapped
    return swapped


cdef Py_ssize_t take_buffer(object data, Py_buffer* held, bint narrow) except -1:
    """Hold a contiguous buffer of u64, or with ``narrow`` of u32; how many. The caller releases it."""
    cdef const char* format
    try:
        PyObject_GetBuffer(data, held, PyBUF_FORMAT | PyBUF_ND)
    except BufferError:
        raise ValueError("the memory must be contiguous") from None
    format = held.format
    if format != NULL and format[0] in b"@=<":
        format += 1
    if format != NULL and format[0] in b"QLI" and format[1] == 0 and held.ndim == 1:
        if held.itemsize == 8 or (narrow and held.itemsize == 4):
            return held.len // held.itemsize
    name = "B" if held.format == NULL else held.format.decode()
    PyBuffer_Release(held)
    raise ValueError(f"expected a buffer of {'u32 or u64' if narrow else 'u64'}, got format {name!r}")


cdef Pairs take_pairs(object words, object ids, object base):
    """A batch's pairs, checked, in the batch's order."""
    cdef Pairs made = new_pairs(len(words))
    take_into(made, words, ids, base)
    return made


cdef Pairs take_batches(list batches):
    """The pairs of all batches, each a tuple of words, ids and base, in their order."""
    cdef Py_ssize_t room = 0
    for words, _, _ in batches:
        room += len(words)
    cdef Pairs made = new_pairs(room)
    for words, ids, base in batches:
        take_into(made, words, ids, base)
    return made


cdef int take_into(Pairs made, object words, object ids, object base) except -1:
    """Put a batch's pairs behind those that are there."""
    cdef Py_buffer given, numbers
    cdef Py_ssize_t count = take_buffer(words, &given, False), i
    cdef uint64_t first, id, largest = 0
    cdef Pair* to
    cdef bint consecutive = not hasattr(ids, "__len__")
    try:
        if not made.grow(made.count + count):
            raise MemoryError()
        to = made.at + made.count
        first = as_id(base)
        if consecutive:
            first = as_id(base + ids)
            if count:
                as_id(base + ids + count - 1)
        elif take_buffer(ids, &numbers, True) != count:
            i = numbers.len // numbers.itemsize
            PyBuffer_Release(&numbers)
            raise ValueError(f"{i} ids for {count} words")
        for i in range(count):
            if consecutive:
                id = i
            elif numbers.itemsize == 4:
                id = (<const uint32_t*>numbers.buf)[i]
            else:
                id = (<const uint64_t*>numbers.buf)[i]
            if id > largest:
                largest = id
            to[i].word = (<const uint64_t*>given.buf)[i]
            to[i].id = first + id
        if not consecutive:
            PyBuffer_Release(&numbers)
        if count:
            as_id(base + largest if not consecutive else first)
        made.count += count
    finally:
        PyBuffer_Release(&given)
    return 0


cdef int map_ids(Pairs pairs, object mapping) except -1:
    """Each id's new one; pairs of rows that are gone are left out."""
    cdef Py_buffer held
    cdef Py_ssize_t count = take_buffer(mapping, &held, True), i, kept = 0
    cdef uint64_t id
    try:
        for i in range(pairs.count):
            id = pairs.at[i].id
            if id >= <uint64_t>count:
                raise IndexError(f"id {id} is outside the mapping of {count} ids")
            if held.itemsize == 4:
                id = (<const uint32_t*>held.buf)[id]
                if id == LOW32:
                    continue
            else:
                id = (<const uint64_t*>held.buf)[id]
                if id == GONE:
                    continue
                as_id(id)
            pairs.at[kept].word = pairs.at[i].word
            pairs.at[kept].id = id
            kept += 1
        pairs.count = kept
    finally:
        PyBuffer_Release(&held)
    return 0
