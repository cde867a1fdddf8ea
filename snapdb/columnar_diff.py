"""Which rows differ between two states of a columnar table in a file. What both have in common is not read: of columns
with the same chunk only the updates, and of tails only the pieces that are not the same.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._ext._common import BLOCK, SEGMENT
from .columnar_file import (
    DELETED,
    Sorted,
    bitmap_from,
    is_packed,
    overlay_parts,
    packed_tail,
    sort_pieces,
    tail_from,
)
from .differing import Difference, differing_rows, is_same, rows_of
from .segments import SegmentFile, counters

if TYPE_CHECKING:
    from .columnar_base import ColumnarBase
    from .differing import Stored
    from .pieces import Entry, Ref

__all__ = ["compare"]


def compare(table: ColumnarBase, one: Stored, other: Stored) -> Difference:
    """What differs between two states of a table of one generation of row ids. Of the table only the columns' types are
    used. CorruptionError.
    """
    a, b = _Side(table, one), _Side(table, other)
    found = Difference([], [], [])
    for k, mine, its in one.differing(other):
        _Pair(k, a.half(k, mine), b.half(k, its)).compare(found)
    return found


class _Side:
    """One of the two states."""

    def __init__(self, table: ColumnarBase, source: Stored) -> None:
        self.source = source
        self.rows, _ = counters(source.header)
        self.file = SegmentFile(table, source)  # to read with
        self.kernels = table.kernels
        self.codes = [column.type.code for column in table.column_list]

    def half(self, k: int, entry: Optional[Entry]) -> _Half:
        """A segment of this side."""
        if entry is None:
            return _Half(self, k, 0, Sorted([], [], {}), 0, None)
        with self.file.damage(k):
            size = max(0, min(SEGMENT, self.rows - k * SEGMENT))
            found = sort_pieces(entry, self.codes)
            first = found.sealed[0]
            base = 0 if first is None else first[0]
            if not size or base > size or (base < SEGMENT and k != self.rows >> 16):
                raise ValueError(f"{base} sealed rows do not make a segment of {size}")
            ref = found.ref(DELETED, 0)
            deleted = None if ref is None else bitmap_from(self.kernels, self.source.read(ref), size)
            return _Half(self, k, size, found, base, deleted)


class _Overlay(NamedTuple):
    """Updated rows, ascending, and their values."""

    rows: Sequence[int]
    values: Any

    def at(self, rows: Set[int], view: Any) -> _Overlay:
        """The updates of some of the rows; ``view``: the kernel's ``Chunk.view``."""
        if len(rows) == len(self.rows):
            return self
        places = [at for at, row in enumerate(self.rows) if row in rows]
        values = view(self.values).gather(array("I", places))
        return _Overlay([self.rows[at] for at in places], values)

    def items(self, rows: Set[int]) -> dict[int, Any]:
        """The same as a mapping."""
        return {row: self.values.physical(at) for at, row in enumerate(self.rows) if row in rows}


class _Half(NamedTuple):
    """A segment of one side. ``size``: its row positions, 0 where it has no live row; ``base``: the sealed ones."""

    side: _Side
    k: int
    size: int
    found: Sorted
    base: int
    deleted: Optional[bytearray]

    def alive(self) -> int:
        """The live rows."""
        every = (1 << self.size) - 1
        return every if self.deleted is None else every & ~int.from_bytes(self.deleted, "little")

    def chunk(self, j: int) -> Any:
        """The sealed part of a column."""
        file = self.side.file
        return file.chunk(file.columns[j], self.k, self.base, self.found.chunk(j))

    def updates(self, j: int) -> list[_Overlay]:
        """The updated rows of a column, later ones behind earlier ones."""
        side, found = self.side, []
        for ref in self.found.updates(j):
            with side.file.damage(self.k, side.file.columns[j], ref):
                found.append(_Overlay(*overlay_parts(side.kernels, side.codes[j], side.source.read(ref), self.size)))
        return found

    def overlay(self, j: int, updates: Sequence[_Overlay], rows: set[int]) -> _Overlay:
        """The last one of ``updates`` of each of these rows."""
        last: dict[int, tuple[Any, int]] = {}
        for one in updates:
            for row in rows.intersection(one.rows):
                last[row] = (one.values, bisect_left(one.rows, row))
        values = self.side.kernels.values.ColumnBuffer(self.side.codes[j])
        updated = sorted(last)
        for row in updated:
            buffer, at = last[row]
            values.append(buffer.physical(at))
        return _Overlay(updated, values)

    def is_packed(self) -> bool:
        """Whether the rows behind the sealed ones are in the chunks."""
        return is_packed(self.found, self.base, self.size, self.deleted)

    def tail(self, j: int) -> Any:
        """The rows of a column behind the sealed ones."""
        side = self.side
        if self.is_packed():
            file, refs = side.file, self.found.chunk(j)
            chunk = file.whole(file.columns[j], self.k, self.base, refs)
            with file.damage(self.k, file.columns[j], refs[0]):
                return packed_tail(chunk, self.base, self.size)
        with side.file.damage(self.k, side.file.columns[j]):
            pieces = [(start, side.source.read(ref)) for start, ref in self.found.tail(j)]
            return tail_from(side.kernels, side.codes[j], pieces, self.base, self.size, self.deleted)

    def tail_piece(self, j: int, start: int, ref: Optional[Ref]) -> Any:
        """One piece of the tail."""
        side = self.side
        if ref is None and self.is_packed() and not start:
            return self.tail(j)
        with side.file.damage(self.k, side.file.columns[j], ref):
            if ref is None:
                raise ValueError(f"the tail has no rows from {start} on, and they are not deleted")
            rows = min(BLOCK, self.size - self.base - start)
            return tail_from(side.kernels, side.codes[j], [(0, side.source.read(ref))], 0, rows, None)

    def whole(self, j: int, rows: int) -> Any:
        """The first rows of a column with their updates."""
        work: Any = self.side.kernels.values.ColumnBuffer(self.side.codes[j])
        if self.base:
            sealed = self.chunk(j).decode()
            if self.base <= rows:
                work = sealed
            else:
                work.extend(sealed, 0, rows)
        if self.base < rows:
            work.extend(self.tail(j), 0, rows - self.base)
        for updated, values in self.updates(j):
            work.patch({row: values.physical(at) for at, row in enumerate(updated) if row < rows})
        return work


class _Pair:
    """A segment in both states."""

    def __init__(self, k: int, one: _Half, other: _Half) -> None:
        self._start = k * SEGMENT
        self._one, self._other = one, other
        self._rows = min(one.size, other.size)

    def compare(self, found: Difference) -> None:
        """Note what differs."""
        one, other = self._one, self._other
        start, mine, its = self._start, one.alive(), other.alive()
        if mine != its:
            found.added.extend([start + row for row in rows_of(its & ~mine)])
            found.removed.extend([start + row for row in rows_of(mine & ~its)])
        both = mine & its
        if both:
            alive = both.to_bytes(SEGMENT // 8, "little")
            changed: set[int] = set()
            for j in range(len(one.side.codes)):
                changed |= self._changed(j, alive)
            found.changed.extend([start + row for row in sorted(changed) if _is_set(alive, row)])

    def _changed(self, j: int, alive: bytes) -> set[int]:
        """The rows whose values in a column differ, among those that both have."""
        one, other = self._one, self._other
        if one.base != other.base or one.found.chunk(j) != other.found.chunk(j):
            return differing_rows(one.whole(j, self._rows), other.whole(j, self._rows))
        tails = self._tails(j)
        if not tails and one.found.updates(j) == other.found.updates(j):
            return set()
        return self._updates(j, tails, alive)

    def _tails(self, j: int) -> dict[int, tuple[Any, Any]]:
        """The values of the rows behind the sealed ones that differ but for updates."""
        one, other = self._one, self._other
        pieces = dict(other.found.tail(j))
        found: dict[int, tuple[Any, Any]] = {}
        if one.is_packed() != other.is_packed():
            a, b = one.tail(j), other.tail(j)
            rows = min(a.rows, b.rows)
            for row in differing_rows(_first(a, rows), _first(b, rows)):
                found[one.base + row] = (a.physical(row), b.physical(row))
            return found
        for start, ref in one.found.tail(j):
            its = pieces.get(start)
            if its is None or its == ref:  # where one has none no row of it is live
                continue
            a, b = one.tail_piece(j, start, ref), other.tail_piece(j, start, its)
            rows = min(a.rows, b.rows)
            for row in differing_rows(_first(a, rows), _first(b, rows)):
                found[one.base + start + row] = (a.physical(row), b.physical(row))
        return found

    def _overlays(self, j: int, rows: Iterable[int]) -> tuple[_Overlay, _Overlay]:
        """The updates of a column in both states: of these rows and those of which they may differ."""
        one, other = self._one, self._other
        mine, its = one.updates(j), other.updates(j)
        pairs = zip(one.found.updates(j), other.found.updates(j))
        same = sum(1 for _ in takewhile(lambda refs: refs[0] == refs[1], pairs))
        if not same and len(mine) == len(its) == 1:
            return mine[0], its[0]
        wanted = set(rows).union(*[piece.rows for piece in mine[same:] + its[same:]])
        return one.overlay(j, mine, wanted), other.overlay(j, its, wanted)

    def _updates(self, j: int, tails: dict[int, tuple[Any, Any]], alive: bytes) -> set[int]:
        """The rows that differ where the updates may, or the tails do."""
        mine, its = self._overlays(j, tails)
        one, other = set(mine.rows), set(its.rows)
        common = one & other
        found = {row for row in tails if row not in one and row not in other}
        view = self._one.side.kernels.codecs.Chunk.view
        a, b = mine.at(common, view), its.at(common, view)
        found.update([a.rows[at] for at in differing_rows(a.values, b.values)])
        single = [row for row in one ^ other if row < self._rows and _is_set(alive, row)]
        below, updates = self._values(j, single, tails), (mine.items(one - other), its.items(other - one))
        for row in single:
            values = below[row]
            if not is_same(updates[0].get(row, values[0]), updates[1].get(row, values[1])):
                found.add(row)
        return found

    def _values(self, j: int, rows: list[int], tails: dict[int, tuple[Any, Any]]) -> dict[int, tuple[Any, Any]]:
        """What each of these rows has in both states but for updates."""
        one = self._one
        found = {row: tails[row] for row in rows if row in tails}
        sealed = sorted(row for row in rows if row < one.base)
        if sealed:
            values = one.chunk(j).gather(array("I", sealed))
            found.update((row, (value, value)) for row, value in zip(sealed, map(values.physical, range(len(sealed)))))
        pieces = dict(one.found.tail(j))
        read: dict[int, Any] = {}
        for row in rows:
            if row not in found:
                start, at = divmod(row - one.base, BLOCK)
                start *= BLOCK
                if start not in read:
                    read[start] = one.tail_piece(j, start, pieces.get(start))
                value = read[start].physical(at)
                found[row] = (value, value)
        return found


def _first(buffer: Any, rows: int) -> Any:
    """The first rows of a buffer."""
    if buffer.rows == rows:
        return buffer
    cut = type(buffer)(buffer.code)
    cut.extend(buffer, 0, rows)
    return cut


def _is_set(mask: bytes, row: int) -> int:
    return mask[row >> 3] >> (row & 7) & 1
