# A B+-tree of (word, id) pairs (Comer, The ubiquitous B-tree, 1979), with counts. Part of _index.pyx.
#
# Two leaves next to each other under one node are merged where both fit into one, so about half of all room is in use at
# least. What an insert may need is allocated before anything changes; a removal only gives back.

cdef inline uint32_t* narrow_ids(Leaf* leaf) noexcept nogil:
    return <uint32_t*>(<char*>leaf + sizeof(Leaf))


cdef inline uint64_t* wide_ids(Leaf* leaf) noexcept nogil:
    return <uint64_t*>(<char*>leaf + sizeof(Leaf))


cdef inline size_t leaf_size(bint wide) noexcept nogil:
    return sizeof(Leaf) + LEAF * (8 if wide else 4)


cdef inline uint64_t id_at(Leaf* leaf, uint32_t at, bint wide) noexcept nogil:
    return wide_ids(leaf)[at] if wide else narrow_ids(leaf)[at]


cdef inline void put_id(Leaf* leaf, uint32_t at, uint64_t id, bint wide) noexcept nogil:
    if wide:
        wide_ids(leaf)[at] = id
    else:
        narrow_ids(leaf)[at] = <uint32_t>id


cdef inline void move_pairs(Leaf* source, uint32_t first, uint32_t count, Leaf* to, uint32_t at, bint wide) noexcept nogil:
    """Also inside of one leaf."""
    memmove(to.words + at, source.words + first, count * 8)
    if wide:
        memmove(wide_ids(to) + at, wide_ids(source) + first, count * 8)
    else:
        memmove(narrow_ids(to) + at, narrow_ids(source) + first, count * 4)


cdef inline void move_kids(Inner* source, uint32_t first, uint32_t count, Inner* to, uint32_t at) noexcept nogil:
    memmove(to.kids + at, source.kids + first, count * sizeof(void*))
    memmove(to.counts + at, source.counts + first, count * 8)
    memmove(to.words + at, source.words + first, count * 8)
    memmove(to.ids + at, source.ids + first, count * 8)


cdef inline void put_pair(Leaf* leaf, uint32_t at, uint64_t word, uint64_t id, bint wide) noexcept nogil:
    """Into a leaf with room."""
    move_pairs(leaf, at, leaf.count - at, leaf, at + 1, wide)
    leaf.words[at] = word
    put_id(leaf, at, id, wide)
    leaf.count += 1
    leaf.last = at


cdef inline uint32_t place_in(Leaf* leaf, uint64_t word, uint64_t id, bint wide) noexcept nogil:
    """How many pairs of the leaf are before this one."""
    cdef uint32_t low = 0, count = leaf.count, half
    cdef uint64_t other
    while count:
        half = count >> 1
        other = leaf.words[low + half]
        if other < word or (other == word and id_at(leaf, low + half, wide) < id):
            low += half + 1
            count -= half + 1
        else:
            count = half
    return low


cdef inline uint32_t kid_of(Inner* inner, uint64_t word, uint64_t id) noexcept nogil:
    """The last kid that does not begin behind this pair."""
    cdef uint32_t low = 1, count = inner.count - 1, half
    while count:
        half = count >> 1
        if inner.words[low + half] < word or (inner.words[low + half] == word and inner.ids[low + half] <= id):
            low += half + 1
            count -= half + 1
        else:
            count = half
    return low - 1


cdef inline uint64_t under(Inner* inner) noexcept nogil:
    """Pairs under a node."""
    cdef uint64_t sum = 0
    cdef uint32_t i
    for i in range(inner.count):
        sum += inner.counts[i]
    return sum


cdef struct Kid:
    void* node
    uint64_t count, word, id


cdef inline void insert_kid(Inner* inner, uint32_t at, const Kid* kid) noexcept nogil:
    move_kids(inner, at, inner.count - at, inner, at + 1)
    set_kid(inner, at, kid)
    inner.count += 1


cdef inline void set_kid(Inner* inner, uint32_t at, const Kid* kid) noexcept nogil:
    inner.kids[at] = kid.node
    inner.counts[at] = kid.count
    inner.words[at] = kid.word
    inner.ids[at] = kid.id


cdef void free_under(void* node, int height) noexcept nogil:
    cdef Inner* inner = <Inner*>node
    cdef uint32_t i
    if height:
        for i in range(inner.count):
            free_under(inner.kids[i], height - 1)
    PyMem_RawFree(node)


# -- building ----------------------------------------------------------------

cdef struct Built:
    void* root
    int height
    Py_ssize_t leaves, inners


cdef bint build_tree(const Pair* pairs, Py_ssize_t count, bint wide, Built* built) noexcept nogil:
    """A tree of sorted pairs, its leaves equally full; False where there is no memory."""
    cdef Py_ssize_t nodes = (count + FILLED - 1) // FILLED, i, j, done = 0, first, end
    cdef Kid* level
    cdef Leaf* leaf
    cdef Leaf* last = NULL
    cdef Inner* inner
    memset(built, 0, sizeof(Built))
    if count == 0:
        return True
    level = <Kid*>PyMem_RawMalloc(nodes * sizeof(Kid))
    if level == NULL:
        return False
    built.leaves = nodes
    for i in range(nodes):
        leaf = <Leaf*>PyMem_RawMalloc(leaf_size(wide))
        if leaf == NULL:
            for j in range(i):
                PyMem_RawFree(level[j].node)
            PyMem_RawFree(level)
            return False
        end = share(count, i + 1, nodes)
        fill_leaf(leaf, pairs + done, <uint32_t>(end - done), wide)
        leaf.prev, leaf.next = last, NULL
        if last != NULL:
            last.next = leaf
        last = leaf
        level[i].node, level[i].count = leaf, end - done
        level[i].word, level[i].id = pairs[done].word, pairs[done].id
        done = end
    while nodes > 1:
        count = nodes
        nodes = (count + FANNED - 1) // FANNED
        done = 0
        for i in range(nodes):
            inner = <Inner*>PyMem_RawMalloc(sizeof(Inner))
            if inner == NULL:
                for j in range(i):
                    free_under(level[j].node, built.height + 1)
                for j in range(done, count):
                    free_under(level[j].node, built.height)
                PyMem_RawFree(level)
                return False
            first, end = done, share(count, i + 1, nodes)
            inner.count = <uint32_t>(end - first)
            for j in range(first, end):
                set_kid(inner, <uint32_t>(j - first), level + j)
            level[i].node, level[i].count = inner, under(inner)
            level[i].word, level[i].id = inner.words[0], inner.ids[0]
            done = end
        built.height += 1
        built.inners += nodes
    built.root = level[0].node
    PyMem_RawFree(level)
    return True


cdef inline Py_ssize_t share(Py_ssize_t count, Py_ssize_t part, Py_ssize_t parts) noexcept nogil:
    """Where a part of equally large ones begins, without a product that could be too large."""
    cdef Py_ssize_t more = count % parts
    return count // parts * part + (part if part < more else more)


cdef inline void fill_leaf(Leaf* leaf, const Pair* pairs, uint32_t count, bint wide) noexcept nogil:
    cdef uint32_t i
    leaf.count, leaf.last = count, LEAF
    for i in range(count):
        leaf.words[i] = pairs[i].word
        put_id(leaf, i, pairs[i].id, wide)


cdef Py_ssize_t merge_pairs(const Pair* a, Py_ssize_t more, const Pair* b, Py_ssize_t others, Pair* to) noexcept nogil:
    """Two sorted arrays as one; how many pairs it has."""
    cdef Py_ssize_t count = 0
    while more and others:
        if before(a, b):
            to[count] = a[0]
        else:
            to[count] = b[0]
            if not before(b, a):  # in both
                a += 1
                more -= 1
            b += 1
            others -= 1
            count += 1
            continue
        a += 1
        more -= 1
        count += 1
    memcpy(to + count, a if more else b, (more + others) * sizeof(Pair))
    return count + more + others


# -- ranges ------------------------------------------------------------------

cdef struct Ends:
    # a range of words as places between words: from the first pair of ``low`` up to the first one of ``high``
    bint to_end, nothing
    uint64_t low, high


cdef int take_ends(object low, object high, bint low_open, bint high_open, Ends* ends) except -1:
    ends.to_end, ends.nothing = high is None, False
    ends.low = 0 if low is None else as_word(low)
    ends.high = 0 if high is None else as_word(high)
    if low is not None and low_open:
        ends.nothing = ends.low == GONE  # nothing is behind the last word
        ends.low += 1
    if high is not None and not high_open:
        ends.to_end = ends.high == GONE
        ends.high += 1
    return 0


@cython.final
cdef class OrderTree:
    """A set of (word, id) pairs in order: a B+-tree with counts, so that counting a range does not walk it."""

    def __dealloc__(self):
        self.free_all()

    cdef void free_all(self) noexcept:
        if self.root != NULL:
            free_under(self.root, self.height)
        self.root = NULL
        self.height = 0
        self.count = self.leaves = self.inners = 0
        self.wide = False

    cdef Leaf* new_leaf(self) noexcept:
        cdef Leaf* leaf = <Leaf*>PyMem_RawMalloc(leaf_size(self.wide))
        if leaf != NULL:
            leaf.next = leaf.prev = NULL
            leaf.count, leaf.last = 0, LEAF
        return leaf

    cdef uint32_t descend(self, uint64_t word, uint64_t id, Path* path) noexcept:
        """The way to where a pair is or belongs; its place in the leaf."""
        cdef void* node = self.root
        cdef int level
        for level in range(self.height, 0, -1):
            path.nodes[level] = <Inner*>node
            path.slots[level] = kid_of(<Inner*>node, word, id)
            node = (<Inner*>node).kids[path.slots[level]]
        path.leaf = <Leaf*>node
        return place_in(path.leaf, word, id, self.wide)

    # -- adding --------------------------------------------------------------

    cdef int put(self, uint64_t word, uint64_t id) except -1:
        cdef Path path
        cdef uint32_t at
        cdef int level
        cdef Leaf* leaf
        if id > LOW32 and not self.wide:
            self.widen()
        if self.root == NULL:
            leaf = self.new_leaf()
            if leaf == NULL:
                raise MemoryError()
            self.root = leaf
            self.leaves = 1
        at = self.descend(word, id, &path)
        leaf = path.leaf
        if at < leaf.count and leaf.words[at] == word and id_at(leaf, at, self.wide) == id:
            return 0
        if leaf.count == LEAF:
            self.split(&path, at, word, id)
        else:
            put_pair(leaf, at, word, id, self.wide)
            for level in range(1, self.height + 1):
                path.nodes[level].counts[path.slots[level]] += 1
        self.count += 1
        return 1

    cdef int split(self, Path* path, uint32_t pos, uint64_t word, uint64_t id) except -1:
        """Put a pair into a full leaf."""
        cdef Inner* fresh[LEVELS]
        cdef int level = 1, needed, made = 0
        cdef Leaf* right = self.new_leaf()
        cdef Leaf* leaf = path.leaf
        cdef uint32_t cut
        while level <= self.height and path.nodes[level].count == FAN:
            level += 1
        needed = level - 1 + (level > self.height)
        if right != NULL:
            while made < needed:
                fresh[made] = <Inner*>PyMem_RawMalloc(sizeof(Inner))
                if fresh[made] == NULL:
                    break
                made += 1
        if right == NULL or made < needed:
            PyMem_RawFree(right)
            for level in range(made):
                PyMem_RawFree(fresh[level])
            raise MemoryError()
        if pos == leaf.last + 1 or (pos == LEAF and leaf.next == NULL) or (pos == 0 and leaf.prev == NULL):
            cut = pos  # what comes in order fills one leaf after the other
        else:
            cut = LEAF // 2
        move_pairs(leaf, cut, LEAF - cut, right, 0, self.wide)
        leaf.count, right.count = cut, LEAF - cut
        leaf.last = LEAF  # nowhere
        right.next, right.prev = leaf.next, leaf
        if right.next != NULL:
            right.next.prev = right
        leaf.next = right
        if pos <= cut < LEAF:
            put_pair(leaf, pos, word, id, self.wide)
        else:
            put_pair(right, pos - cut, word, id, self.wide)
        for level in range(1, self.height + 1):
            path.nodes[level].counts[path.slots[level]] += 1
        self.leaves += 1
        self.inners += needed
        self.hang(path, right, fresh)
        return 0

    cdef void hang(self, Path* path, Leaf* right, Inner** fresh) noexcept:
        """Put a leaf behind the one that the path leads to into the nodes over them."""
        cdef Kid kid
        cdef int level = 1
        cdef uint64_t left_count = path.leaf.count, word, id
        cdef Inner* inner
        cdef Inner* other
        cdef uint32_t at
        cdef void* left = path.leaf
        kid.node, kid.count, kid.word, kid.id = right, right.count, right.words[0], id_at(right, 0, self.wide)
        while level <= self.height:
            inner, at = path.nodes[level], path.slots[level]
            inner.counts[at] = left_count
            if inner.count < FAN:
                insert_kid(inner, at + 1, &kid)
                return
            other = fresh[0]
            fresh += 1
            word, id = inner.words[FAN // 2], inner.ids[FAN // 2]
            move_kids(inner, FAN // 2, FAN // 2, other, 0)
            inner.count = other.count = FAN // 2
            if at + 1 <= FAN // 2:
                insert_kid(inner, at + 1, &kid)
            else:
                insert_kid(other, at + 1 - FAN // 2, &kid)
            left, left_count = inner, under(inner)
            kid.node, kid.count, kid.word, kid.id = other, under(other), word, id
            level += 1
        inner = fresh[0]
        inner.count = 2
        set_kid(inner, 1, &kid)
        inner.kids[0], inner.counts[0], inner.words[0], inner.ids[0] = left, left_count, 0, 0
        self.root = inner
        self.height += 1

    cdef int widen(self) except -1:
        """Leaves with ids of 8 bytes."""
        cdef Pairs pairs = new_pairs(self.count)
        self.dump(pairs.at)
        self.become(pairs.at, self.count, True)
        return 0

    # -- removing ------------------------------------------------------------

    cdef bint drop(self, uint64_t word, uint64_t id) noexcept:
        cdef Path path
        cdef uint32_t at
        cdef int level
        cdef Leaf* leaf
        if self.root == NULL:
            return False
        at = self.descend(word, id, &path)
        leaf = path.leaf
        if at == leaf.count or leaf.words[at] != word or id_at(leaf, at, self.wide) != id:
            return False
        move_pairs(leaf, at + 1, leaf.count - at - 1, leaf, at, self.wide)
        leaf.count -= 1
        leaf.last = LEAF
        self.count -= 1
        for level in range(1, self.height + 1):
            path.nodes[level].counts[path.slots[level]] -= 1
        if leaf.count <= LEAF // 2:
            self.thin(&path)
        return True

    cdef void thin(self, Path* path) noexcept:
        """Merge a leaf that is half empty with one beside it, where both fit into one."""
        cdef Leaf* leaf = path.leaf
        cdef Leaf* gone = NULL
        cdef Leaf* kept = NULL
        cdef Inner* parent
        cdef uint32_t at
        if self.height == 0:
            if leaf.count == 0:
                self.free_all()
            return
        parent, at = path.nodes[1], path.slots[1]
        if leaf.count == 0:
            gone = leaf
        elif at + 1 < parent.count and leaf.count + (<Leaf*>parent.kids[at + 1]).count <= LEAF - LEAF // 16:
            kept, gone = leaf, <Leaf*>parent.kids[at + 1]
            at += 1
        elif at > 0 and leaf.count + (<Leaf*>parent.kids[at - 1]).count <= LEAF - LEAF // 16:
            kept, gone = <Leaf*>parent.kids[at - 1], leaf
        else:
            return
        if kept != NULL:
            move_pairs(gone, 0, gone.count, kept, kept.count, self.wide)
            kept.count += gone.count
            kept.last = LEAF
            parent.counts[at - 1] += gone.count
        if gone.prev != NULL:
            gone.prev.next = gone.next
        if gone.next != NULL:
            gone.next.prev = gone.prev
        PyMem_RawFree(gone)
        self.leaves -= 1
        path.slots[1] = at
        self.unhang(path, 1)

    cdef void unhang(self, Path* path, int level) noexcept:
        """Take the kid at the path's slot out of its node, and up from there what is empty or merged by that."""
        cdef Inner* inner
        while True:
            inner = path.nodes[level]
            inner.count -= 1
            move_kids(inner, path.slots[level] + 1, inner.count - path.slots[level], inner, path.slots[level])
            if level == self.height:
                break
            if inner.count == 0:
                PyMem_RawFree(inner)
                self.inners -= 1
            elif inner.count > FAN // 2 or not self.merge_inner(path, level):
                return
            level += 1
        while self.height and inner.count == 1:
            self.root = inner.kids[0]
            PyMem_RawFree(inner)
            self.inners -= 1
            self.height -= 1
            inner = <Inner*>self.root

    cdef bint merge_inner(self, Path* path, int level) noexcept:
        """Merge a node with one beside it where both fit into one; the path then leads to what is to be taken out."""
        cdef Inner* parent = path.nodes[level + 1]
        cdef uint32_t at = path.slots[level + 1], first
        cdef Inner* kept
        cdef Inner* gone
        if at + 1 < parent.count and (<Inner*>parent.kids[at]).count + (<Inner*>parent.kids[at + 1]).count <= FAN:
            at += 1
        elif at == 0 or (<Inner*>parent.kids[at]).count + (<Inner*>parent.kids[at - 1]).count > FAN:
            return False
        kept, gone = <Inner*>parent.kids[at - 1], <Inner*>parent.kids[at]
        first = kept.count
        move_kids(gone, 0, gone.count, kept, first)
        kept.words[first], kept.ids[first] = parent.words[at], parent.ids[at]
        kept.count += gone.count
        parent.counts[at - 1] += parent.counts[at]
        PyMem_RawFree(gone)
        self.inners -= 1
        path.slots[level + 1] = at
        return True

    # -- as a whole ----------------------------------------------------------

    cdef void dump(self, Pair* to) noexcept:
        cdef Leaf* leaf
        cdef uint32_t at, i
        leaf = self.seek(0, &at)
        while leaf != NULL:
            for i in range(leaf.count):
                to[i].word = leaf.words[i]
                to[i].id = id_at(leaf, i, self.wide)
            to += leaf.count
            leaf = leaf.next

    cdef int become(self, Pair* pairs, Py_ssize_t count, bint wide) except -1:
        """Have these sorted pairs and no others."""
        cdef Built built
        if not build_tree(pairs, count, wide, &built):
            raise MemoryError()
        self.free_all()
        self.root, self.height, self.count = built.root, built.height, count
        self.leaves, self.inners, self.wide = built.leaves, built.inners, wide
        return 0

    cdef Py_ssize_t put_sorted(self, Pair* pairs, Py_ssize_t count) except -1:
        """Add sorted pairs, all or none; how many were not there."""
        cdef Py_ssize_t added = 0, i, j
        cdef uint8_t* fresh
        if count > self.count >> 3:
            return self.merged(pairs, count)
        fresh = <uint8_t*>PyMem_RawMalloc(count + 1)
        if fresh == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                fresh[i] = self.put(pairs[i].word, pairs[i].id)
                added += fresh[i]
        except MemoryError:
            for j in range(i):
                if fresh[j]:
                    self.drop(pairs[j].word, pairs[j].id)
            raise
        finally:
            PyMem_RawFree(fresh)
        return added

    cdef Py_ssize_t merged(self, Pair* pairs, Py_ssize_t count) except -1:
        cdef Py_ssize_t before = self.count
        cdef Pairs present, made
        if before == 0:
            self.become(pairs, count, any_wide(pairs, count))
            return count
        present, made = new_pairs(before), new_pairs(before + count)
        self.dump(present.at)
        made.count = merge_pairs(present.at, before, pairs, count, made.at)
        self.become(made.at, made.count, self.wide or any_wide(pairs, count))
        return self.count - before

    # -- reading -------------------------------------------------------------

    cdef Leaf* seek(self, uint64_t word, uint32_t* at) noexcept:
        cdef Path path
        at[0] = 0
        if self.root == NULL:
            return NULL
        at[0] = self.descend(word, 0, &path)
        if at[0] == path.leaf.count:
            at[0] = 0
            return path.leaf.next
        return path.leaf

    cdef Py_ssize_t rank(self, uint64_t word) noexcept:
        cdef Path path
        cdef Py_ssize_t sum
        cdef int level
        cdef uint32_t i
        if self.root == NULL:
            return 0
        sum = self.descend(word, 0, &path)
        for level in range(1, self.height + 1):
            for i in range(path.slots[level]):
                sum += path.nodes[level].counts[i]
        return sum

    def add(self, word, id):
        """Whether the pair was not there yet."""
        return self.put(as_word(word), as_id(id)) != 0

    def remove(self, word, id):
        """Whether the pair was there."""
        return self.drop(as_word(word), as_id(id))

    def add_many(self, words, ids, base=0):
        """Add all or nothing; whether none of them was there yet, nor twice in the batch."""
        cdef Pairs pairs = take_pairs(words, ids, base)
        cdef Py_ssize_t given = pairs.count
        pairs.sort(True)
        return self.put_sorted(pairs.at, pairs.count) == given

    def remove_many(self, words, ids, base=0):
        """Remove what is there; whether all of them were."""
        cdef Pairs pairs = take_pairs(words, ids, base)
        cdef Py_ssize_t removed = 0, i
        for i in range(pairs.count):
            removed += self.drop(pairs.at[i].word, pairs.at[i].id)
        return removed == pairs.count

    def build(self, words, ids, base=0):
        """Replace what there is by a batch, sorted once."""
        self.fill([(words, ids, base)])

    def fill(self, list batches not None):
        """Replace what there is by batches of (words, ids, base), as ``add_many`` takes them, sorted once."""
        cdef Pairs pairs = take_batches(batches)
        pairs.sort(True)
        self.become(pairs.at, pairs.count, any_wide(pairs.at, pairs.count))

    def range(self, low=None, high=None, bint low_open=False, bint high_open=False, bint descending=False, Py_ssize_t limit=-1):
        """The ids of a range in the order of (word, id), or exactly reversed; at most ``limit`` of them (-1: all)."""
        cdef Ends ends
        take_ends(low, high, low_open, high_open, &ends)
        return walk(self, &ends, descending, limit, False)[1]

    def pairs(self, low=None, high=None, bint low_open=False, bint high_open=False, bint descending=False, Py_ssize_t limit=-1):
        """As ``range``: the words and the ids."""
        cdef Ends ends
        take_ends(low, high, low_open, high_open, &ends)
        return walk(self, &ends, descending, limit, True)

    def count_range(self, low=None, high=None, bint low_open=False, bint high_open=False):
        """How many pairs a range has, without walking it."""
        cdef Ends ends
        take_ends(low, high, low_open, high_open, &ends)
        return count_between(self, &ends)

    def first(self):
        """The first (word, id), None where there is none."""
        words, ids = self.pairs(limit=1)
        return (words[0], ids[0]) if len(ids) else None

    def last(self):
        """The last (word, id), None where there is none."""
        words, ids = self.pairs(descending=True, limit=1)
        return (words[0], ids[0]) if len(ids) else None

    def renumber(self, mapping):
        """Id i becomes ``mapping[i]``; all ones: its pairs go. Changes all or nothing."""
        cdef Pairs pairs = new_pairs(self.count)
        self.dump(pairs.at)
        pairs.count = self.count
        map_ids(pairs, mapping)
        pairs.sort(False)
        self.become(pairs.at, pairs.count, any_wide(pairs.at, pairs.count))

    def clear(self):
        """Remove everything."""
        self.free_all()

    def copy(self):
        """Another tree with the same pairs."""
        return copy_tree(self)

    @property
    def nbytes(self):
        """Bytes of memory held."""
        return self.leaves * leaf_size(self.wide) + self.inners * sizeof(Inner)

    def __len__(self):
        return self.count

    def __iter__(self):
        page = page_behind(self, None)
        while page:
            for pair in page:
                yield pair
            page = page_behind(self, page[len(page) - 1])


cdef bint any_wide(const Pair* pairs, Py_ssize_t count) noexcept nogil:
    cdef uint64_t bits = 0
    cdef Py_ssize_t i
    for i in range(count):
        bits |= pairs[i].id
    return bits > LOW32


cdef Py_ssize_t count_between(OrderTree tree, const Ends* ends) noexcept:
    cdef Py_ssize_t first, end
    if ends.nothing:
        return 0
    first = tree.rank(ends.low) if ends.low else 0
    end = tree.count if ends.to_end else tree.rank(ends.high)
    return end - first if end > first else 0


cdef tuple walk(OrderTree tree, const Ends* ends, bint descending, Py_ssize_t limit, bint with_words):
    """(words or None, ids) of a range."""
    cdef Py_ssize_t count = count_between(tree, ends)
    cdef Memory words = None, ids
    if 0 <= limit < count:
        count = limit
    ids = allocate(count * 8)
    if with_words:
        words = allocate(count * 8)
    if count and descending:
        walk_back(tree, ends, count, NULL if words is None else <uint64_t*>words.ptr, <uint64_t*>ids.ptr)
    elif count:
        walk_on(tree, ends, count, NULL if words is None else <uint64_t*>words.ptr, <uint64_t*>ids.ptr)
    return None if words is None else words_view(words, count), words_view(ids, count)


cdef void walk_on(OrderTree tree, const Ends* ends, Py_ssize_t count, uint64_t* words, uint64_t* ids) noexcept:
    cdef uint32_t at, taken, i
    cdef Leaf* leaf = tree.seek(ends.low, &at)
    while count:
        taken = leaf.count - at
        if taken > count:
            taken = <uint32_t>count
        for i in range(taken):
            ids[i] = id_at(leaf, at + i, tree.wide)
        ids += taken
        if words != NULL:
            memcpy(words, leaf.words + at, taken * 8)
            words += taken
        count -= taken
        leaf, at = leaf.next, 0


cdef void walk_back(OrderTree tree, const Ends* ends, Py_ssize_t count, uint64_t* words, uint64_t* ids) noexcept:
    cdef Path path
    cdef uint32_t at
    cdef Leaf* leaf
    cdef Py_ssize_t i = 0
    at = tree.descend(GONE, GONE, &path) if ends.to_end else tree.descend(ends.high, 0, &path)
    leaf = path.leaf
    while i < count:
        while at and i < count:
            at -= 1
            ids[i] = id_at(leaf, at, tree.wide)
            if words != NULL:
                words[i] = leaf.words[at]
            i += 1
        leaf = leaf.prev
        at = leaf.count if leaf != NULL else 0


cdef list page_behind(OrderTree tree, tuple pair):
    """The next pairs, up to the end of a leaf."""
    cdef Path path
    cdef uint32_t at, i
    cdef Leaf* leaf
    cdef Pair[LEAF] copied
    cdef uint32_t count = 0
    cdef list found = []
    if tree.root != NULL:
        at = 0 if pair is None else tree.descend(<uint64_t>pair[0], <uint64_t>pair[1] + 1, &path)
        leaf = tree.seek(0, &at) if pair is None else path.leaf
        if leaf != NULL and at == leaf.count:
            leaf, at = leaf.next, 0
        if leaf != NULL:
            for i in range(at, leaf.count):  # making objects may run other code, which may change the tree
                copied[count].word, copied[count].id = leaf.words[i], id_at(leaf, i, tree.wide)
                count += 1
    for i in range(count):
        found.append((copied[i].word, copied[i].id))
    return found


cdef OrderTree copy_tree(OrderTree tree):
    cdef OrderTree made = OrderTree()
    cdef Pairs pairs = new_pairs(tree.count)
    tree.dump(pairs.at)
    made.become(pairs.at, tree.count, tree.wide)
    return made
