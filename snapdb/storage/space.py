"""Which parts of a file are free: intervals between the preamble and the high-water mark.

Everything below ``high_water`` is in use (somebody keeps a reference), waiting (a superblock on disk still reaches it),
held (given back, but a view of it is alive) or free. Allocation is deterministic: the same calls give the same offsets.

A change here is several steps. Where an interrupt, or no memory, cuts them short the space is ``doubtful``: it gives
nothing out and takes nothing back from then on, and whoever holds it makes a new one of what is reachable.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from typing import Optional

from ..errors import CorruptionError, InternalError
from .superblock import MAX_OFFSET, PAGE, PREAMBLE

__all__ = ["Space"]

_MANY_ENDED = 1024  # leases that ended and were not worked off; a reader never allocates, so lease() does it too


class Space:
    """The free space of one file. Sizes and offsets are bytes, multiples of 4,096.

    Safe to use from several threads; ``unlease`` may be called at any moment, from a destructor too.
    """

    def __init__(self, high_water: int = PREAMBLE) -> None:
        if high_water < PREAMBLE or high_water % PAGE:
            raise InternalError(f"a high-water mark of {high_water}")
        self.high_water = high_water
        self._starts: list[int] = []  # of the free intervals, ascending; no two touch, none touches high_water
        self._sizes: dict[int, int] = {}  # start -> size
        self._fits: list[tuple[int, int]] = []  # (size, start), ascending
        self._waiting: list[tuple[int, int]] = []  # given back, but the older superblock reaches them
        self._held: dict[int, int] = {}  # released while leased: offset -> size
        self._leases: dict[int, int] = {}  # offset -> views of it
        self._ended: deque[int] = deque()  # offsets whose lease ended; the only thing that unlease touches
        self._lock = threading.RLock()
        self._cut = False  # set while a change is made, so that it stays set where one is cut

    @classmethod
    def of(cls, reachable: Iterable[tuple[int, int]], high_water: int, path: Optional[str] = None) -> Space:
        """The space where all but these ``(offset, size)`` is free. CorruptionError: overlapping, or out of bounds."""
        space = cls(high_water)
        free = []
        place = PREAMBLE
        for offset, size in sorted(reachable):
            if offset % PAGE or size % PAGE or size <= 0 or offset < PREAMBLE or offset + size > high_water:
                message = f"an extent of {size} bytes at {offset} is out of bounds"
                raise CorruptionError(message, path=path, offset=offset)
            if offset < place:
                raise CorruptionError(f"the extent at {offset} overlaps another one", path=path, offset=offset)
            if offset > place:
                free.append((place, offset - place))
            place = offset + size
        space.high_water = place  # what is behind the last one is not free but not there
        space._sizes = dict(free)
        space._starts = list(space._sizes)
        space._fits = sorted((size, start) for start, size in free)
        return space

    # -- figures ---------------------------------------------------------------
    @property
    def free_bytes(self) -> int:
        """Bytes that can be allocated below the high-water mark."""
        with self._lock:
            self._work_off()
            return sum(self._sizes.values())

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were given back and are not free yet: a superblock or a view still reaches them."""
        with self._lock:
            self._work_off()
            return sum(size for _, size in self._waiting) + sum(self._held.values())

    @property
    def free(self) -> list[tuple[int, int]]:
        """The free intervals (offset, size), ascending."""
        with self._lock:
            self._work_off()
            return [(start, self._sizes[start]) for start in self._starts]

    @property
    def waiting(self) -> list[tuple[int, int]]:
        """The extents (offset, size) that were given back and are not free yet, ascending."""
        with self._lock:
            self._work_off()
            return sorted([*self._waiting, *self._held.items()])

    # -- taking and giving back ------------------------------------------------
    def allocate(self, size: int) -> int:
        """Take ``size`` bytes: the lowest of the smallest free intervals that have them, else from ``high_water``."""
        if size <= 0 or size % PAGE:
            raise InternalError(f"an extent of {size} bytes")
        with self._lock:
            self._work_off()
            self._sure()
            at = bisect_left(self._fits, (size, 0))
            if at == len(self._fits):
                offset = self.high_water
                if offset + size > MAX_OFFSET:
                    raise InternalError(f"an extent of {size} bytes at {offset}")
                self.high_water = offset + size
                return offset
            found, offset = self._fits[at]
            self._cut = True
            self._remove(offset)
            if found > size:
                self._insert(offset + size, found - size)
            self._cut = False
            return offset

    def reserve(self, offset: int, size: int) -> None:
        """Take exactly this extent, which a frame of the log names. CorruptionError where part of it is in use."""
        if offset < PREAMBLE or offset % PAGE or size <= 0 or size % PAGE or offset + size > MAX_OFFSET:
            raise CorruptionError(f"an extent of {size} bytes at {offset} is out of bounds", offset=offset)
        with self._lock:
            self._work_off()
            self._sure()
            if offset >= self.high_water:
                self._cut = True
                if offset > self.high_water:
                    self._insert(self.high_water, offset - self.high_water)
                self.high_water = offset + size
                self._cut = False
                return
            at = bisect_right(self._starts, offset) - 1
            start = self._starts[at] if at >= 0 else 0
            end = start + self._sizes.get(start, 0)
            if end < offset + size:
                raise CorruptionError(f"the extent at {offset} overlaps another one", offset=offset)
            self._cut = True
            self._remove(start)
            if offset > start:
                self._insert(start, offset - start)
            if end > offset + size:
                self._insert(offset + size, end - offset - size)
            self._cut = False

    def release(self, offset: int, size: int) -> None:
        """Give back a whole extent that nothing on disk reaches. It is held as long as it is leased."""
        with self._lock:
            self._work_off()
            if not self._cut:
                self._check(offset, size)
                self._cut = True
                self._release(offset, size)
                self._cut = False

    def _release(self, offset: int, size: int) -> None:
        if offset in self._leases:
            self._held[offset] = size
        else:
            self._give(offset, size)

    def wait(self, offset: int, size: int) -> None:
        """Give back a whole extent that the newest superblock does not reach but the other slot still does: it is free
        after the next ``promote``.
        """
        with self._lock:
            self._waiting.append((offset, size))

    def promote(self) -> None:
        """A superblock is on stable storage: the slot it overwrote was the last to reach what waits, which is free now.

        Call it once for each superblock, and only then ``wait`` with what that one no longer reaches.
        """
        with self._lock:
            self._work_off()
            if not self._cut:
                self._cut = True
                passed, self._waiting = self._waiting, []
                for offset, size in passed:
                    self._release(offset, size)
                self._cut = False

    # -- leases ----------------------------------------------------------------
    def lease(self, offset: int) -> None:
        """A view of the extent at ``offset`` begins to live."""
        with self._lock:
            if len(self._ended) > _MANY_ENDED:
                self._work_off()
            self._leases[offset] = self._leases.get(offset, 0) + 1

    def unlease(self, offset: int) -> None:
        """A view of it ended. Takes no lock and frees nothing: ``reclaim`` and whatever takes or gives space do."""
        self._ended.append(offset)

    def reclaim(self) -> None:
        """Free the held extents whose last view ended."""
        with self._lock:
            self._work_off()

    @property
    def leased(self) -> bool:
        """Whether any view is alive."""
        with self._lock:
            self._work_off()
            return bool(self._leases)

    @property
    def doubtful(self) -> bool:
        """Whether an exception has cut a change short: nothing is given out."""
        with self._lock:
            return self._cut

    def doubt(self) -> None:
        """Somebody could not tell all that is to be free."""
        self._cut = True

    def _sure(self) -> None:
        if self._cut:
            raise InternalError("what is free is not known: a change of it was cut short")

    def _work_off(self) -> None:
        while self._ended and not self._cut:
            self._cut = True
            self._work_off_one()
            self._cut = False

    def _work_off_one(self) -> None:
        offset = self._ended.popleft()
        left = self._leases.get(offset, 0) - 1
        if left > 0:
            self._leases[offset] = left
            return
        self._leases.pop(offset, None)
        size = self._held.pop(offset, None)
        if size is not None:
            self._give(offset, size)

    # -- intervals -------------------------------------------------------------
    def _insert(self, start: int, size: int) -> None:
        insort(self._starts, start)
        self._sizes[start] = size
        insort(self._fits, (size, start))

    def _remove(self, start: int) -> int:
        size = self._sizes.pop(start)
        del self._starts[bisect_left(self._starts, start)]
        del self._fits[bisect_left(self._fits, (size, start))]
        return size

    def _beside(self, offset: int) -> tuple[Optional[int], Optional[int]]:
        """The free intervals that begin before and behind this offset."""
        at = bisect_right(self._starts, offset)
        before = self._starts[at - 1] if at else None
        return before, self._starts[at] if at < len(self._starts) else None

    def _check(self, offset: int, size: int) -> None:
        """InternalError where this is no extent that somebody has."""
        end = offset + size
        before, after = self._beside(offset)
        if (
            offset < PREAMBLE or size <= 0 or (offset | size) % PAGE or end > self.high_water
            or (before is not None and before + self._sizes[before] > offset)
            or (after is not None and after < end)
        ):  # fmt: skip
            raise InternalError(f"the extent of {size} bytes at {offset} was given back twice, or is none")

    def _give(self, offset: int, size: int) -> None:
        self._check(offset, size)
        end = offset + size
        before, after = self._beside(offset)
        if before is not None and before + self._sizes[before] == offset:
            size += self._remove(before)
            offset = before
        if after == end:
            size += self._remove(end)
            end = offset + size
        if end == self.high_water:
            self.high_water = offset  # the end of the file is no interval: the next large extent begins there
        else:
            self._insert(offset, size)
