# Zone maps: between which values those of a column lie, slab by slab; part of _slab.pyx.
#
# They belong to a table and are made of its slabs when a range condition first asks for them, again for a slab that was
# written since. A view may ask as long as its table has not been written since it was made: then the slabs are the same.

cdef enum:
    ZONES = 64  # slabs of a block, which has a zone of its own


cdef struct Zone:
    # values as words in their order; ``low`` above ``high``: there is none
    uint64_t low, high


@cython.final
@cython.no_gc
cdef class ColumnZones:
    """Of one column: a zone for each slab, and for each block of them; ``made``: when those of a block were."""
    cdef Memory slabs, blocks, made
    cdef Py_ssize_t count  # blocks


@cython.final
@cython.no_gc
cdef class Zones:
    """The zone maps of a table, and what of it was written when. Times count a table's writes."""
    cdef Layout layout
    cdef int64_t now
    cdef Py_ssize_t count  # blocks that are watched
    cdef Memory changed, changed_blocks  # when a slab, or some slab of a block, was written last
    cdef dict columns  # index of a column to its ``ColumnZones``

    cdef inline void touch(self, Py_ssize_t number, int64_t now) noexcept:
        """A slab is written."""
        self.now = now
        if number < self.count * ZONES:
            (<int64_t*>self.changed.ptr)[number] = now
            (<int64_t*>self.changed_blocks.ptr)[number >> 6] = now

    cdef int watch(self, Py_ssize_t blocks) except -1:
        """Watch so many blocks. Of slabs that were not watched nothing is known: they were written now."""
        cdef Py_ssize_t i, room = blocks + (blocks >> 2) + 1
        cdef Memory changed, changed_blocks
        if blocks <= self.count:
            return 0
        changed = allocate(room * ZONES * 8)
        changed_blocks = allocate(room * 8)
        for i in range(room * ZONES):
            (<int64_t*>changed.ptr)[i] = self.now
        for i in range(room):
            (<int64_t*>changed_blocks.ptr)[i] = self.now
        if self.count:
            memcpy(changed.ptr, self.changed.ptr, self.count * ZONES * 8)
            memcpy(changed_blocks.ptr, self.changed_blocks.ptr, self.count * 8)
        self.changed, self.changed_blocks, self.count = changed, changed_blocks, room
        return 0

    cdef ColumnZones of(self, int column, Directory slabs, Py_ssize_t number):
        """The zones of a column in the first ``number`` slabs, true of what they hold now."""
        cdef Py_ssize_t blocks = (number + ZONES - 1) // ZONES, block
        cdef ColumnZones zones
        self.watch(blocks)
        zones = <ColumnZones>self.columns.get(column)
        if zones is None or zones.count < self.count:
            zones = self.columns[column] = new_zones(self.count)
        for block in range(blocks):
            if (<int64_t*>self.changed_blocks.ptr)[block] > (<int64_t*>zones.made.ptr)[block]:
                self.make(&self.layout.columns[column], slabs, zones, block)
        return zones

    cdef void make(self, const Column* column, Directory slabs, ColumnZones zones, Py_ssize_t block) noexcept:
        """Make the zones of a block's slabs that were written since theirs were made, and the block's."""
        cdef int64_t* made = <int64_t*>zones.made.ptr + block
        cdef const int64_t* changed = <const int64_t*>self.changed.ptr
        cdef Zone* zone
        cdef Zone whole
        cdef Py_ssize_t number
        whole.low, whole.high = <uint64_t>-1, 0
        for number in range(block * ZONES, (block + 1) * ZONES):
            zone = <Zone*>zones.slabs.ptr + number
            if changed[number] > made[0]:
                zone_of(self.layout, column, slabs.find(number), zone)
            whole.low, whole.high = min(whole.low, zone.low), max(whole.high, zone.high)
        (<Zone*>zones.blocks.ptr)[block] = whole
        made[0] = self.now

    cdef Py_ssize_t nbytes(self) noexcept:
        cdef Py_ssize_t each = ZONES * <Py_ssize_t>sizeof(Zone) + <Py_ssize_t>sizeof(Zone) + 8
        return self.count * (8 * ZONES + 8 + each * len(self.columns))


cdef Zones new_table_zones(Layout layout, int64_t now):
    cdef Zones made = Zones.__new__(Zones)
    made.layout, made.now, made.columns = layout, now, {}
    return made


cdef ColumnZones new_zones(Py_ssize_t blocks):
    cdef ColumnZones made = ColumnZones.__new__(ColumnZones)
    cdef Py_ssize_t i
    made.slabs = allocate(blocks * ZONES * <Py_ssize_t>sizeof(Zone))
    made.blocks = allocate(blocks * <Py_ssize_t>sizeof(Zone))
    made.made = allocate(blocks * 8)
    made.count = blocks
    for i in range(blocks):
        (<int64_t*>made.made.ptr)[i] = -1
    return made


cdef inline uint64_t float_order(double value) noexcept nogil:
    """A float that is no NaN as a word in its order."""
    cdef uint64_t bits
    value += 0.0  # -0.0 is 0.0
    memcpy(&bits, &value, 8)
    return ~bits if bits >> 63 else bits | <uint64_t>1 << 63


cdef void zone_of(Layout layout, const Column* column, Slab slab, Zone* zone) noexcept:
    """Between which values those of a slab's live rows lie; nulls, which are stored as zero, may be among them."""
    cdef Py_ssize_t at, stride = layout.stride
    cdef const char* place
    cdef const char* live
    cdef uint64_t word, low = <uint64_t>-1, high = 0
    cdef uint64_t turn = <uint64_t>1 << 63 if SIGNED[column.code] else 0
    cdef int spare = 64 - 8 * column.width
    cdef double number
    cdef float single
    if slab is not None:
        place = slab.block + column.offset
        live = slab.block + layout.live
        for at in range(layout.rows):
            if test_bit(live, at):
                if column.code == F64 or column.code == F32:
                    if column.code == F64:
                        memcpy(&number, place, 8)
                    else:
                        memcpy(&single, place, 4)
                        number = single
                    if number != number:
                        place += stride
                        continue
                    word = float_order(number)
                else:
                    word = 0
                    copy_fixed(<char*>&word, place, column.width)
                    if turn:
                        word = <uint64_t>(<int64_t>(word << spare) >> spare) ^ turn
                low, high = min(low, word), max(high, word)
            place += stride
    zone.low, zone.high = low, high
