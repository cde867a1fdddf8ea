# A multimap from words to row ids: linear probing, and a tree for words with several ids. Part of _index.pyx.
#
# A slot is 12 bytes (16 where ids are wide), at most 4 of 5 are taken and, but for small tables, at least 2 of 5. Places
# rise with the hash, so a table grows into another one from front to back. Removing moves what is behind (Knuth, 6.4 R):
# no marks are left that searches would have to walk over.

cdef extern from *:
    """
    #include <string.h>
    static inline unsigned long long snap_load64(const char *at) { unsigned long long v; memcpy(&v, at, 8); return v; }
    static inline unsigned int snap_load32(const char *at) { unsigned int v; memcpy(&v, at, 4); return v; }
    static inline void snap_store64(char *at, unsigned long long v) { memcpy(at, &v, 8); }
    static inline void snap_store32(char *at, unsigned int v) { memcpy(at, &v, 4); }

    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    /* slots are met in no order: in small pages each is one more miss, of the addresses */
    static void snap_large_pages(void *block, size_t size)
    {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        size_t first = ((size_t)block + 4095) & ~(size_t)4095, last = ((size_t)block + size) & ~(size_t)4095;
        if (last > first)
            (void)madvise((void *)first, last - first, MADV_HUGEPAGE);  /* advice: no harm where it is not taken */
    #else
        (void)block, (void)size;
    #endif
    }
    """
    void snap_large_pages(void* block, size_t size) noexcept nogil
    uint64_t snap_load64(const char* at) noexcept nogil
    uint32_t snap_load32(const char* at) noexcept nogil
    void snap_store64(char* at, uint64_t value) noexcept nogil
    void snap_store32(char* at, uint32_t value) noexcept nogil

cdef uint64_t NARROW = 0xFFFFFFFE  # ids from here on need a wide table


cdef inline uint64_t slot_id(const char* slot, bint wide) noexcept nogil:
    """The one id of the slot's word, EMPTY or MANY."""
    cdef uint64_t id
    if wide:
        return snap_load64(slot + 8)
    id = snap_load32(slot + 8)
    return id | HIGH32 if id >= NARROW else id


cdef inline void put_slot(char* slot, uint64_t word, uint64_t id, bint wide) noexcept nogil:
    snap_store64(slot, word)
    if wide:
        snap_store64(slot + 8, id)
    else:
        snap_store32(slot + 8, <uint32_t>id)


cdef inline uint64_t home_of(uint64_t word, uint64_t capacity) noexcept nogil:
    """Where a word belongs: the secret factors spread what comes with any regularity."""
    word *= SEED[3]
    word = (word ^ word >> 32) * SEED[4]
    return (word >> 32) * capacity >> 32


cdef inline Py_ssize_t around(Py_ssize_t way, Py_ssize_t capacity) noexcept nogil:
    """Slots from one to another one, past the end of the table where that is the way."""
    return way + capacity if way < 0 else way


@cython.final
cdef class HashTable:
    """A multimap of 64-bit words to row ids, a set of pairs. What fails for want of memory changes nothing."""

    def __cinit__(self):
        self.rest = OrderTree()
        self.size = 12

    def __dealloc__(self):
        PyMem_RawFree(self.slots)

    # -- slots ---------------------------------------------------------------

    cdef char* find(self, uint64_t word) noexcept:
        """The word's slot, or the empty one that it would get; NULL while there are none."""
        cdef char* slot
        cdef char* end
        if self.slots == NULL:
            return NULL
        slot = self.slots + home_of(word, self.capacity) * self.size
        end = self.slots + self.capacity * self.size
        while not (snap_load64(slot) == word or slot_id(slot, self.wide) == EMPTY):
            slot += self.size
            if slot == end:
                slot = self.slots
        # an empty slot may have any word, also this one
        return slot

    cdef bint resize(self, Py_ssize_t words, bint wide) noexcept:
        """Slots for so many words, and some more; False where there is no memory."""
        cdef Py_ssize_t capacity = words + (words >> 1) + (words >> 2) + (words >> 4), i
        cdef int size = 16 if wide else 12
        cdef uint64_t id
        cdef char* fresh
        cdef char* slot
        cdef char* end
        cdef char* to
        if capacity < FEWEST:
            capacity = FEWEST
        if capacity > <Py_ssize_t>1 << 32 or words < self.used:
            return False
        fresh = <char*>PyMem_RawMalloc(capacity * size)
        if fresh == NULL:
            return False
        if capacity * size >= LARGE:
            snap_large_pages(fresh, capacity * size)
        memset(fresh, 0xFF, capacity * size)
        end = fresh + capacity * size
        slot = self.slots
        for i in range(self.capacity):
            id = slot_id(slot, self.wide)
            if id != EMPTY:
                to = fresh + home_of(snap_load64(slot), capacity) * size
                while slot_id(to, wide) != EMPTY:
                    to += size
                    if to == end:
                        to = fresh
                put_slot(to, snap_load64(slot), id, wide)
            slot += self.size
        PyMem_RawFree(self.slots)
        self.slots, self.capacity, self.size, self.wide = fresh, capacity, size, wide
        return True

    cdef void vacate(self, char* slot) noexcept:
        """Empty a slot and close the gap."""
        cdef Py_ssize_t hole = (slot - self.slots) // self.size, at = hole, home
        cdef char* other
        while True:
            at += 1
            if at == self.capacity:
                at = 0
            other = self.slots + at * self.size
            if slot_id(other, self.wide) == EMPTY:
                break
            home = home_of(snap_load64(other), self.capacity)
            if around(at - home, self.capacity) < around(at - hole, self.capacity):
                continue  # it belongs behind the gap
            memcpy(self.slots + hole * self.size, other, self.size)
            hole = at
        put_slot(self.slots + hole * self.size, 0, EMPTY, self.wide)
        self.used -= 1

    # -- single pairs --------------------------------------------------------

    cdef int put(self, uint64_t word, uint64_t id) except -1:
        cdef char* slot = self.find(word)
        cdef uint64_t present = EMPTY if slot == NULL else slot_id(slot, self.wide)
        cdef bint wide = self.wide or id >= NARROW
        if present == id:
            return 0
        if wide != self.wide or (present == EMPTY and (self.used + 1) * 5 > self.capacity * 4):
            if not self.resize(self.used + 1, wide):
                raise MemoryError()
            slot = self.find(word)
        if present == MANY:
            return self.rest.put(word, id)
        if present != EMPTY:
            return self.turn(slot, word, present, id)
        put_slot(slot, word, id, self.wide)
        self.used += 1
        self.singles += 1
        return 1

    cdef int turn(self, char* slot, uint64_t word, uint64_t old, uint64_t id) except -1:
        """A word gets its second id: both go to the tree."""
        self.rest.put(word, old)
        try:
            self.rest.put(word, id)
        except MemoryError:
            self.rest.drop(word, old)
            raise
        put_slot(slot, word, MANY, self.wide)
        self.singles -= 1
        return 1

    cdef bint drop(self, uint64_t word, uint64_t id) noexcept:
        cdef char* slot = self.find(word)
        cdef uint64_t present
        if slot == NULL:
            return False
        present = slot_id(slot, self.wide)
        if present == MANY:
            if not self.rest.drop(word, id):
                return False
            self.settle(slot, word)
            return True
        if present != id:  # also where it is empty: that is no id
            return False
        self.vacate(slot)
        self.singles -= 1
        if self.capacity > 1024 and self.used * 5 < self.capacity * 2:
            self.resize(self.used, self.wide)  # where there is no memory, later
        return True

    cdef void settle(self, char* slot, uint64_t word) noexcept:
        """A word with one id left has it in its slot."""
        cdef uint32_t at, behind
        cdef Leaf* leaf = self.rest.seek(word, &at)
        cdef Leaf* other = leaf
        cdef uint64_t id = id_at(leaf, at, self.rest.wide)
        behind = at + 1
        if behind == leaf.count:
            other, behind = leaf.next, 0
        if other != NULL and other.words[behind] == word:
            return
        self.rest.drop(word, id)
        put_slot(slot, word, id, self.wide)
        self.singles += 1

    cdef int64_t lowest(self, uint64_t word) noexcept:
        cdef char* slot = self.find(word)
        cdef uint64_t id
        cdef uint32_t at
        cdef Leaf* leaf
        if slot == NULL:
            return -1
        id = slot_id(slot, self.wide)
        if id == MANY:
            leaf = self.rest.seek(word, &at)
            return id_at(leaf, at, self.rest.wide)
        return <int64_t>id  # of an empty slot that is -1

    def add(self, word, id):
        """Whether the pair was not there yet."""
        return self.put(as_word(word), as_id(id)) != 0

    def remove(self, word, id):
        """Whether the pair was there."""
        return self.drop(as_word(word), as_id(id))

    def first(self, word):
        """The lowest id of a word, -1 where it has none."""
        return self.lowest(as_word(word))

    def ids(self, word):
        """All ids of a word, rising."""
        cdef uint64_t key = as_word(word)
        cdef char* slot = self.find(key)
        cdef uint64_t id = EMPTY if slot == NULL else slot_id(slot, self.wide)
        cdef Memory one
        if id == MANY:
            return self.rest.range(word, word)
        one = allocate(8)
        (<uint64_t*>one.ptr)[0] = id
        return words_view(one, id != EMPTY)

    def count(self, word):
        """How many ids a word has."""
        cdef uint64_t key = as_word(word)
        cdef char* slot = self.find(key)
        cdef uint64_t id = EMPTY if slot == NULL else slot_id(slot, self.wide)
        if id == MANY:
            return (self.rest.count if key == GONE else self.rest.rank(key + 1)) - self.rest.rank(key)
        return 0 if id == EMPTY else 1

    # -- batches -------------------------------------------------------------

    cdef int put_pairs(self, Pair* pairs, Py_ssize_t count) except -1:
        """Add all pairs or none, in two steps: what is for the tree is gathered first and then goes there sorted."""
        cdef Pairs spilled = new_pairs(0), turned = new_pairs(0)
        cdef uint8_t* alone = <uint8_t*>PyMem_RawCalloc(count + 1, 1)  # pairs that got a slot
        cdef bint wide = self.wide
        cdef Py_ssize_t done = 0
        if alone == NULL:
            raise MemoryError()
        for done in range(count):
            wide = wide or pairs[done].id >= NARROW
        done = 0
        try:
            if wide != self.wide or (self.used + count) * 5 > self.capacity * 4:
                if not self.resize(self.used + count, wide):
                    raise MemoryError()
            done = fill_slots(self, pairs, count, alone, spilled, turned)
            if done < count:
                raise MemoryError()
            spilled.sort(False)
            self.rest.put_sorted(spilled.at, spilled.count)
        except MemoryError:
            empty_slots(self, pairs, done, alone, turned)
            raise
        finally:
            PyMem_RawFree(alone)
            if self.capacity > 1024 and self.used * 5 < self.capacity * 2:
                self.resize(self.used, self.wide)
        return 0

    def fill(self, list batches not None):
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them."""
        cdef HashTable made = HashTable()
        cdef Pairs pairs = take_batches(batches)
        if pairs.count >= MANY_PAIRS:
            in_parts(pairs)
        made.put_pairs(pairs.at, pairs.count)
        exchange(self, made)

    def add_many(self, words, ids, base=0):
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
        cdef Pairs pairs = take_pairs(words, ids, base)
        cdef Py_ssize_t before = self.singles + self.rest.count
        self.put_pairs(pairs.at, pairs.count)
        return self.singles + self.rest.count - before == pairs.count

    def remove_many(self, words, ids, base=0):
        """Remove what is there; whether all of them were."""
        cdef Pairs pairs = take_pairs(words, ids, base)
        cdef Py_ssize_t removed = 0, i
        for i in range(pairs.count):
            removed += self.drop(pairs.at[i].word, pairs.at[i].id)
        return removed == pairs.count

    def clashes(self, words):
        """The positions, rising, of the batch's words that are in the table, or in the batch more than once."""
        cdef Py_buffer held
        cdef Py_ssize_t count = take_buffer(words, &held, False)
        cdef Memory found
        try:
            found = allocate(count * 8)
            count = find_clashes(self, <const uint64_t*>held.buf, count, <uint64_t*>found.ptr)
        finally:
            PyBuffer_Release(&held)
        if count < 0:
            raise MemoryError()
        return words_view(found, count)

    def reserve(self, Py_ssize_t rows):
        """Make room for that many more words, so that adding them does not have to."""
        if rows < 0:
            raise ValueError(f"rows must not be negative, got {rows}")
        if rows > <Py_ssize_t>1 << 32:
            raise MemoryError()
        if (self.used + rows) * 5 > self.capacity * 4 and not self.resize(self.used + rows, self.wide):
            raise MemoryError()

    # -- as a whole ----------------------------------------------------------

    cdef void dump(self, Pair* to) noexcept:
        """All pairs, in no order."""
        cdef Py_ssize_t i
        cdef uint64_t id
        cdef char* slot = self.slots
        self.rest.dump(to)
        to += self.rest.count
        for i in range(self.capacity):
            id = slot_id(slot, self.wide)
            if id < MANY:
                to.word, to.id = snap_load64(slot), id
                to += 1
            slot += self.size

    def renumber(self, mapping):
        """Id i becomes ``mapping[i]``; all ones: its pairs go. Changes all or nothing."""
        cdef HashTable made = HashTable()
        cdef Pairs pairs = new_pairs(self.singles + self.rest.count)
        self.dump(pairs.at)
        pairs.count = self.singles + self.rest.count
        map_ids(pairs, mapping)
        made.put_pairs(pairs.at, pairs.count)
        exchange(self, made)

    def clear(self):
        """Remove everything."""
        exchange(self, HashTable())

    def copy(self):
        """Another table with the same pairs."""
        cdef HashTable made = HashTable()
        made.rest = copy_tree(self.rest)
        if self.slots != NULL:
            made.slots = <char*>PyMem_RawMalloc(self.capacity * self.size)
            if made.slots == NULL:
                raise MemoryError()
            if self.capacity * self.size >= LARGE:
                snap_large_pages(made.slots, self.capacity * self.size)
            memcpy(made.slots, self.slots, self.capacity * self.size)
        made.capacity, made.used, made.singles, made.wide, made.size = self.capacity, self.used, self.singles, self.wide, self.size
        return made

    @property
    def distinct(self):
        """How many words there are."""
        return self.used

    @property
    def nbytes(self):
        """Bytes of memory held."""
        return self.capacity * self.size + self.rest.nbytes

    def __len__(self):
        return self.singles + self.rest.count


cdef void exchange(HashTable a, HashTable b) noexcept:
    a.slots, b.slots = b.slots, a.slots
    a.rest, b.rest = b.rest, a.rest
    a.capacity, a.used, a.singles, a.wide, a.size = b.capacity, b.used, b.singles, b.wide, b.size


cdef Py_ssize_t fill_slots(HashTable table, const Pair* pairs, Py_ssize_t count, uint8_t* alone, Pairs spilled, Pairs turned) noexcept:
    """Pairs into slots that there are; how many were done until there was no memory."""
    cdef Py_ssize_t i
    cdef uint64_t word, id, present
    cdef char* slot
    for i in range(count):
        if i + AHEAD < count:
            snap_prefetch(table.slots + home_of(pairs[i + AHEAD].word, table.capacity) * table.size)
        word, id = pairs[i].word, pairs[i].id
        slot = table.find(word)
        present = slot_id(slot, table.wide)
        if present == EMPTY:
            put_slot(slot, word, id, table.wide)
            table.used += 1
            table.singles += 1
            alone[i] = True
        elif present == MANY:
            if not spilled.push(word, id):
                return i
        elif present != id:
            if not spilled.push(word, present) or not spilled.push(word, id) or not turned.push(word, present):
                return i
            put_slot(slot, word, MANY, table.wide)
            table.singles -= 1
    return count


cdef void empty_slots(HashTable table, const Pair* pairs, Py_ssize_t count, const uint8_t* alone, Pairs turned) noexcept:
    """Take back what ``fill_slots`` did."""
    cdef Py_ssize_t i
    for i in range(turned.count):
        put_slot(table.find(turned.at[i].word), turned.at[i].word, turned.at[i].id, table.wide)
        table.singles += 1
    for i in range(count):
        if alone[i]:
            table.vacate(table.find(pairs[i].word))
            table.singles -= 1


cdef Py_ssize_t find_clashes(HashTable table, const uint64_t* words, Py_ssize_t count, uint64_t* found) noexcept:
    """How many; -1 where there is no memory."""
    cdef Py_ssize_t capacity = count * 2 + 1, i, at, clashing = 0
    cdef uint32_t* places
    cdef uint8_t* marked
    cdef char* slot
    if count >= <Py_ssize_t>1 << 31:
        return -1
    places = <uint32_t*>PyMem_RawMalloc(capacity * 4 + count)
    if places == NULL:
        return -1
    memset(places, 0xFF, capacity * 4)
    marked = <uint8_t*>(places + capacity)
    memset(marked, 0, count)
    for i in range(count):
        if i + AHEAD < count:
            snap_prefetch(places + home_of(words[i + AHEAD], capacity))
            snap_prefetch(table.slots + home_of(words[i + AHEAD], table.capacity) * table.size)
        slot = table.find(words[i])
        if slot != NULL and slot_id(slot, table.wide) != EMPTY:
            marked[i] = True
        at = home_of(words[i], capacity)
        while places[at] != NOWHERE and words[places[at]] != words[i]:
            at += 1
            if at == capacity:
                at = 0
        if places[at] == NOWHERE:
            places[at] = <uint32_t>i
        else:
            marked[i] = marked[places[at]] = True
    for i in range(count):
        found[clashing] = i
        clashing += marked[i]
    PyMem_RawFree(places)
    return clashing
