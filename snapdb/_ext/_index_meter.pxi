# Counting and timing single calls; part of _index.pyx.


@cython.final
cdef class Tally:
    """How often an operation went well (``ok``) and how often it raised (``failed``), exactly, whichever threads call.
    One call in ``every`` that goes well is timed, the first one too: ``observe(seconds)``.
    """
    cdef int64_t _ok
    cdef int64_t _failed
    cdef int64_t every
    cdef int64_t left  # calls until one is timed
    cdef object observe

    def __init__(self, every, observe):
        if every < 1:
            raise ValueError(f"every is 1 or more, not {every}")
        self.every = every
        self.observe = observe

    @property
    def ok(self):
        """Calls that went well."""
        return self._ok

    @property
    def failed(self):
        """Calls that raised."""
        return self._failed

    def done(self, seconds):
        """A call went well and took so long."""
        self._ok += 1
        observed(self.observe, seconds)

    def fail(self):
        """A call raised."""
        self._failed += 1

    def clear(self):
        """Begin at 0."""
        self._ok = self._failed = 0


cdef int observed(object observe, object seconds) except -1:
    try:
        observe(seconds)
    except MemoryError:
        pass  # the call itself is done: a figure is no reason to say that it is not
    return 0


@cython.final
cdef class Meter:
    """Single-row operations that a ``Tally`` counts, each the same as ``call``. With an ``owner``, a weak reference,
    ``call`` gets what it refers to first; where that is gone, ``gone()`` says so.
    """
    cdef Tally tally
    cdef object call
    cdef object owner
    cdef object gone

    def __init__(self, tally, call, owner, gone):
        if not isinstance(tally, Tally):
            raise TypeError(f"a Tally is needed, not {type(tally).__name__}")
        self.tally, self.call, self.owner, self.gone = tally, call, owner, gone

    cdef inline object one(self, object first):
        cdef object it
        if self.owner is None:
            return self.call(first)
        it = self.owner()
        return self.gone() if it is None else self.call(it, first)

    cdef inline object two(self, object first, object second):
        cdef object it
        if self.owner is None:
            return self.call(first, second)
        it = self.owner()
        return self.gone() if it is None else self.call(it, first, second)

    cdef object run(self, object first, object second, bint both):
        cdef Tally tally = self.tally
        cdef object found
        cdef object begin = None
        cdef bint timed = tally.left <= 0
        if timed:
            tally.left = tally.every
            begin = _clock()
        try:
            found = self.two(first, second) if both else self.one(first)
        except:
            tally._failed += 1  # nothing else runs between reading and writing it, as the GIL is held
            if timed:
                tally.left = 0
            raise
        tally._ok += 1
        tally.left -= 1
        if timed:
            observed(tally.observe, _clock() - begin)
        return found

    def get(self, idx):
        """The row with this id, None where there is none."""
        return self.run(idx, None, False)

    def insert(self, row):
        """Append a row; returns its id."""
        return self.run(row, None, False)

    def lookup(self, column_name, value):
        """The first row whose column equals the value, None where there is none."""
        return self.run(column_name, value, True)

    def update(self, idx, row):
        """Merge ``row`` into row ``idx``."""
        return self.run(idx, row, True)

    def delete(self, idx):
        """Delete row ``idx``."""
        return self.run(idx, None, False)
