"""What the engines say of an entry that may be damaged, and sets of row ids of which nothing is known any more."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

if TYPE_CHECKING:
    from .pieces import Entry

__all__ = ["Batch", "Judged", "Ranges", "bit_ranges"]

Range = tuple[int, int]  # first and last


class Judged(NamedTuple):
    """An entry as it is to be kept: as it is, or with new data for the rows that verify (None: no live row). ``live``:
    how many there are. ``lost``: ids of the rows of which nothing is known, as ranges. ``reason``: what is damaged.
    ``past``: ids of live rows that were past the end of the table, and are not kept.
    """

    entry: Optional[Entry]
    live: int
    lost: list[Range]
    reason: str = ""
    past: Sequence[Range] = ()


class Batch(NamedTuple):
    """A batch of the log whose extents are damaged: a buffer a column, zeros where rows are ``lost``."""

    buffers: list[Any]
    lost: list[Range]
    reason: str = ""


class Ranges:
    """Row ids as ranges that do not touch, ascending; each range remembers why."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._reasons: list[str] = []

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        return iter(list(zip(self._firsts, self._lasts, self._reasons)))

    def copy(self) -> Ranges:
        """Another one of the same."""
        other = Ranges()
        other._firsts, other._lasts, other._reasons = list(self._firsts), list(self._lasts), list(self._reasons)
        return other

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __contains__(self, idx: int) -> bool:
        at = bisect_right(self._firsts, idx) - 1
        return at >= 0 and idx <= self._lasts[at]

    def meets(self, first: int, last: int) -> bool:
        """Whether one of the ids ``first`` to ``last`` is in it."""
        at = bisect_right(self._firsts, last) - 1
        return at >= 0 and self._lasts[at] >= first

    def add(self, first: int, last: int, reason: str) -> None:
        """The ids ``first`` to ``last``, for this reason; those that are in it keep theirs where they can."""
        if last < first:
            return
        start = bisect_left(self._lasts, first - 1)
        stop = bisect_right(self._firsts, last + 1)
        if start < stop:
            first, last = min(first, self._firsts[start]), max(last, self._lasts[stop - 1])
            reason = self._reasons[start]
        self._firsts[start:stop], self._lasts[start:stop], self._reasons[start:stop] = [first], [last], [reason]

    def update(self, ranges: Iterable[Range], reason: str) -> None:
        """Add many."""
        for first, last in ranges:
            self.add(first, last, reason)

    def remove(self, first: int, last: int) -> None:
        """It is known what became of these."""
        for a, b, reason in self:
            if a <= last and first <= b:
                at = self._firsts.index(a)
                parts = [(c, d) for c, d in ((a, first - 1), (last + 1, b)) if c <= d]
                self._firsts[at : at + 1] = [c for c, _ in parts]
                self._lasts[at : at + 1] = [d for _, d in parts]
                self._reasons[at : at + 1] = [reason] * len(parts)

    def discard(self, idx: int) -> bool:
        """It is known what became of this one; whether it was in it."""
        at = bisect_right(self._firsts, idx) - 1
        if at < 0 or idx > self._lasts[at]:
            return False
        parts = [(a, b) for a, b in ((self._firsts[at], idx - 1), (idx + 1, self._lasts[at])) if a <= b]
        reason = self._reasons[at]
        self._firsts[at : at + 1] = [a for a, _ in parts]
        self._lasts[at : at + 1] = [b for _, b in parts]
        self._reasons[at : at + 1] = [reason] * len(parts)
        return True


def bit_ranges(bits: int, base: int = 0) -> list[Range]:
    """The rows of a bitmap that is an integer, as ranges of ids from ``base`` on."""
    found, at = [], 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        at += skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        found.append((base + at, base + at + length - 1))
        bits >>= length
        at += length
    return found
