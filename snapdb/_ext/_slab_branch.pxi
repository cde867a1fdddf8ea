# What tables share: a table that begins as a view of another one, which slabs two views do not share, and what memory
# a view keeps; part of _slab.pyx. Nothing here runs Python code but errors.

cdef int branch_rows(SlabTable table, SlabView view) except -1:
    cdef Layout layout = table.layout
    cdef Py_ssize_t number = view.rows // layout.rows, at = view.rows - number * layout.rows
    cdef int64_t floor = view.pins.epoch + 1
    cdef Directory mine
    cdef Hold base
    if table.rows or table.missing is not None:
        raise ValueError(f"a table of {table.rows} rows cannot be branched from a view")
    if not same_layout(layout, view.layout):
        raise ValueError("a branch needs a view of the same layout")
    if view.slabs is None:
        raise ValueError("the view was released")
    mine = first_groups(view.slabs, (number >> 8) + 1, floor)
    if (number >> 8) < mine.count and mine.groups[number >> 8] != NULL:
        mine.set(number >> 8, first_slabs(layout, <Group>mine.groups[number >> 8], number & (FANOUT - 1), at, floor))
    base = hold(view.pins, view.epoch)
    view.pins.epoch = floor  # from here on nothing can fail
    table.pins, table.base, table.slabs = view.pins, base, mine
    table.floor = floor
    table.rows, table.live = view.rows, view.live
    table.writes += 1
    table.zones = None
    return 0


cdef Directory first_groups(Directory slabs, Py_ssize_t count, int64_t stamp):
    """The first ``count`` groups: those behind them came after the view."""
    cdef Directory made = Directory.__new__(Directory)
    cdef Py_ssize_t i
    made.stamp = stamp
    made.reserve(min(count, slabs.count))
    for i in range(made.count):
        Py_XINCREF(slabs.groups[i])
        made.groups[i] = slabs.groups[i]
    return made


cdef Group first_slabs(Layout layout, Group group, Py_ssize_t number, Py_ssize_t rows, int64_t stamp):
    """A group up to row ``rows`` of its slab ``number``, where the next row is to go; None where no row is live."""
    cdef Group made = copy_group(group, stamp)
    cdef Slab slab = None
    cdef Py_ssize_t i
    if rows and made.slabs[number] != NULL:
        slab = first_rows(layout, <Slab>made.slabs[number], rows, stamp)
    for i in range(number, FANOUT):
        made.set(i, None)
    if slab is not None and slab.live:
        made.set(number, slab)
    return made if made.count else None


cdef Slab first_rows(Layout layout, Slab slab, Py_ssize_t rows, int64_t stamp):
    """A copy of a slab's first rows with a heap of its own: rows are appended to the other in place."""
    cdef Slab made = copy_slab(layout, slab, stamp)
    cdef Py_ssize_t at
    for at in range(rows, layout.rows):
        if test_bit(made.block + layout.live, at):
            made.clear(layout, at)
    if made.heap is not None:
        made.rewrite(layout, allocate(heap_used(layout, made)))
    return made


cdef list differing_slabs(SlabView one, SlabView other):
    cdef Directory mine = one.slabs, its = other.slabs
    cdef Py_ssize_t size = one.layout.rows, number = 0
    cdef Py_ssize_t my_end = (one.rows + size - 1) // size, its_end = (other.rows + size - 1) // size
    cdef Py_ssize_t end = max(my_end, its_end)
    # from the slab on that ends the shorter one they differ in how many rows of it they have
    cdef Py_ssize_t apart = end if one.rows == other.rows else min(one.rows, other.rows) // size
    cdef PyObject* a
    cdef PyObject* b
    cdef list found = []
    if not same_layout(one.layout, other.layout):
        raise ValueError("views of different layouts cannot be compared")
    if mine is None or its is None:
        raise ValueError("the view was released")
    while number < end:
        if number & (FANOUT - 1) == 0:
            a, b = group_at(mine, number >> 8), group_at(its, number >> 8)
            if a == b and (a == NULL or number + FANOUT <= apart):
                number += FANOUT
                continue
        a = slab_at(mine, number) if number < my_end else NULL
        b = slab_at(its, number) if number < its_end else NULL
        if a != b or (a != NULL and number >= apart):
            found.append(number)
        number += 1
    return found


cdef inline PyObject* group_at(Directory slabs, Py_ssize_t at) noexcept:
    return slabs.groups[at] if at < slabs.count else NULL


cdef inline PyObject* slab_at(Directory slabs, Py_ssize_t number) noexcept:
    cdef PyObject* group = group_at(slabs, number >> 8)
    return (<Group>group).slabs[number & (FANOUT - 1)] if group != NULL else NULL


# -- memory ------------------------------------------------------------------

cdef Py_ssize_t footprint_of(SlabView view, set seen) except -1:
    if view.slabs is None:
        raise ValueError("the view was released")
    return held_by(view.layout, view.slabs, (view.rows + view.layout.rows - 1) // view.layout.rows, seen)


cdef bint is_new(set seen, void* at) except -1:
    """Whether there is no note of this memory yet; there is one then."""
    cdef object key
    if seen is None:
        return True
    key = <size_t>at
    if key in seen:
        return False
    seen.add(key)
    return True


cdef Py_ssize_t held_by(Layout layout, Directory slabs, Py_ssize_t end, set seen) except -1:
    """Bytes of the slabs before ``end`` and of what finds them, but for what was seen."""
    cdef Py_ssize_t group_size = Group.__basicsize__
    cdef Py_ssize_t slab_size = Slab.__basicsize__ + layout.size + 16
    cdef Py_ssize_t heap_size = Memory.__basicsize__ + 128 + 16
    cdef Py_ssize_t i, j, count, total = 0
    cdef Group group
    cdef Slab slab
    if is_new(seen, <void*>slabs):
        total = slabs.capacity * <Py_ssize_t>sizeof(PyObject*)
    for i in range(min(slabs.count, (end + FANOUT - 1) >> 8)):
        if slabs.groups[i] == NULL:
            continue
        group = <Group>slabs.groups[i]
        count = min(FANOUT, end - i * FANOUT)
        if is_new(seen, <void*>group):
            total += group_size
        if count == FANOUT and not is_new(seen, <char*><void*>group + 1):
            continue  # all of its slabs were looked at
        for j in range(count):
            if group.slabs[j] == NULL or not is_new(seen, <void*>group.slabs[j]):
                continue
            slab = <Slab>group.slabs[j]
            total += slab_size
            if slab.heap is not None and is_new(seen, <void*>slab.heap):
                total += heap_size + slab.heap.size
    return total
