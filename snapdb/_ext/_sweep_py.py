"""Many segments of a columnar table at a call: ``_codecs_sweep.pxi``'s readable twin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

from ._common import SEGMENT, Zone, mask_bytes
from ._zones import judge

__all__ = ["Filter", "Sweep"]


class Term(NamedTuple):
    """One condition on one column; from ``kind`` on as ``conditions.Predicate`` has it."""

    column: int
    kind: str
    lo: Any
    hi: Any
    lo_open: bool
    hi_open: bool
    values: Sequence[Any]
    negate: bool


class Filter:
    """Bound conditions, all of them or any of them, to be asked of many segments.

    ``terms``: (column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as a ``Predicate`` has them.
    """

    def __init__(self, terms: Sequence[tuple[Any, ...]], any_of: bool = False) -> None:
        self._terms = [Term(*given) for given in terms]
        self._any_of = any_of


class _Stop(Exception):
    """This segment takes another path."""


class _Hits(NamedTuple):
    """The selected rows of a segment: ``base`` rows are sealed of ``size``; no mask: all of them."""

    k: int
    base: int
    size: int
    mask: Optional[bytearray]


class Sweep:
    """Segments of a columnar table as of one moment, scanned many at a call; nothing is changed.

    ``parts``, ``zones``: a list a column of what each segment is made of and of its zone map, empty for a column that
    nobody will ask for; ``overlays``: a dict a column of the segments with updates; ``deleted``: the bitmap of each
    segment's deleted rows, or None; ``rows``: all.
    Every method starts at segment ``k`` and returns (answer, next): it stops in front of a segment that it cannot do
    alone, in which a column that it needs has updates or is not read yet, and at the end.
    """

    _chunk: Any = None  # the backend's class of chunks and its masks
    _masks: Any = None

    def __init__(
        self,
        parts: list[list[Any]],
        zones: list[list[Optional[Zone]]],
        overlays: list[dict[int, Any]],
        deleted: list[Any],
        rows: int,
    ) -> None:
        self.parts = parts
        self.zones = zones
        self.overlays = overlays
        self.deleted = deleted
        self._rows = rows
        self._count = (rows + SEGMENT - 1) // SEGMENT
        if not len(parts) == len(zones) == len(overlays) or len(deleted) < self._count:
            raise ValueError("the columns differ in their segments")

    @classmethod
    def of(cls, columns: list[Any], only: Optional[Iterable[int]], deleted: list[Any], rows: int) -> Sweep:
        """A sweep of columns as they are now: their lists are copied. ``only``: the numbers of those that will be asked
        for, None: all.
        """
        count = len(columns)
        parts: list[list[Any]] = [[]] * count
        zones: list[list[Optional[Zone]]] = [[]] * count
        overlays: list[dict[int, Any]] = [{}] * count
        for j in range(count) if only is None else only:
            if not 0 <= j < count:
                raise ValueError(f"column {j} is outside 0..{count}")
            column = columns[j]
            parts[j], zones[j] = column.parts[:], column.zones[:]
            overlays[j] = {k: dict(updates) for k, updates in column.overlays.items()}
        return cls(parts, zones, overlays, deleted[:], rows)

    def count(self, filter: Optional[Filter], k: int) -> tuple[int, int]:
        """Live rows that match."""
        total, k = self._count_plain(filter, k)
        hits, k = self._next(filter, None, k)
        while hits is not None:
            total += hits.size if hits.mask is None else self._masks.count(hits.mask)
            hits, k = self._next(filter, None, k)
        return total, k

    def values(self, filter: Optional[Filter], column: int, k: int, zones: bool) -> tuple[int, int]:
        """Live rows that match and have a value in a column. ``zones`` here and below: a segment that is selected as
        a whole is answered from its zone map.
        """
        total = 0
        hits, k = self._next(filter, column, k)
        while hits is not None:
            for zone, chunk, mask in self._pieces(hits, column, zones):
                total += hits.base - zone.nulls if zone is not None else chunk.count(mask)
            hits, k = self._next(filter, column, k)
        return total, k

    def sum(
        self, filter: Optional[Filter], column: int, k: int, start: Union[int, float], zones: bool
    ) -> tuple[Union[int, float], int]:
        """``start`` plus each segment's sum in turn."""
        nothing: Union[int, float] = 0.0 if isinstance(start, float) else 0
        hits, k = self._next(filter, column, k)
        while hits is not None:
            part = nothing
            for zone, chunk, mask in self._pieces(hits, column, zones):
                part = zone.total if zone is not None else chunk.sum(mask, part)
            start = start + part
            hits, k = self._next(filter, column, k)
        return start, k

    def bounds(self, filter: Optional[Filter], column: int, k: int, zones: bool) -> tuple[list[tuple[Any, Any]], int]:
        """The bounds of each segment that has any, in order: a list of (least, greatest)."""
        answers = []
        hits, k = self._next(filter, column, k)
        while hits is not None:
            for zone, chunk, mask in self._pieces(hits, column, zones):
                if zone is None:
                    found = chunk.bounds(mask)
                else:
                    found = None if zone.lo is None else (zone.lo, zone.hi)
                if found is not None:
                    answers.append(found)
            hits, k = self._next(filter, column, k)
        return answers, k

    def masks(self, filter: Optional[Filter], k: int, most: int) -> tuple[list[tuple[int, Optional[bytearray]]], int]:
        """(segment, bitmap of its live rows that match, None for every position) of the segments that have one, until
        ``most`` rows are found.
        """
        answers = []
        total = 0
        hits, k = self._next(filter, None, k)
        while hits is not None:
            answers.append((hits.k, hits.mask))
            total += hits.size if hits.mask is None else self._masks.count(hits.mask)
            if total >= most:
                break
            hits, k = self._next(filter, None, k)
        return answers, k

    def _count_plain(self, filter: Optional[Filter], k: int) -> tuple[int, int]:
        """``count`` by a range of one column, as far as no segment has deleted rows: chunks count without a bitmap."""
        total = 0
        if filter is None or len(filter._terms) != 1 or not 0 <= k <= self._count:
            return 0, k
        term = filter._terms[0]
        column = term.column
        if term.kind != "range" or term.negate or not 0 <= column < len(self.parts):
            return 0, k
        parts = self.parts[column]
        while k < min(len(parts), len(self.zones[column]), self._count) and self.deleted[k] is None:
            part, size = parts[k], min(SEGMENT, self._rows - k * SEGMENT)
            if type(part) is not tuple or self.overlays[column].get(k):
                break
            chunk: Any = part[0]
            base = 0 if chunk is None else chunk.rows
            if base > size or not isinstance(chunk, (type(None), self._chunk)):
                break
            verdict = judge(self.zones[column][k], *term[1:]) if base else None
            if verdict is not None:
                total += base if verdict else 0
            elif chunk is not None:
                total += chunk._matches(*term[2:6])
            if base < size:
                total += self._piece(column, k, 1, size - base)._matches(*term[2:6])
            k += 1
        return total, k

    # -- one segment -----------------------------------------------------------

    def _next(self, filter: Optional[Filter], column: Optional[int], k: int) -> tuple[Optional[_Hits], int]:
        """The next segment with a hit and the number of the one behind it; None and where it stopped."""
        if not 0 <= k <= self._count:
            raise ValueError(f"segment {k} is outside 0..{self._count}")
        terms = filter._terms if filter is not None else []
        shape = column if column is not None else terms[0].column if terms else 0
        for j in (shape, *(term.column for term in terms)):
            if not 0 <= j < len(self.parts):
                raise ValueError(f"column {j} is outside 0..{len(self.parts)}")
            if len(self.parts[j]) < self._count or len(self.zones[j]) < self._count:
                raise ValueError(f"column {j} is not in this sweep")
        while k < self._count:
            part = self.parts[shape][k]
            if part is not None:
                if type(part) is not tuple:
                    break
                base = 0 if part[0] is None else part[0].rows
                try:
                    found = self._hits(terms, filter is not None and filter._any_of, column, k, base)
                except _Stop:
                    break
                if found is not None:
                    return found, k + 1
            k += 1
        return None, k

    def _hits(self, terms: list[Term], any_of: bool, column: Optional[int], k: int, base: int) -> Optional[_Hits]:
        size = min(SEGMENT, self._rows - k * SEGMENT)
        dead = self.deleted[k]
        if base > size or (dead is not None and len(dead) < mask_bytes(size)):
            raise _Stop
        verdict, open_terms = self._verdict(terms, any_of, k, base)
        if verdict is False and size == base:
            return None
        for term in terms if base < size else open_terms:
            self._ready(term.column, k)
        if column is not None:
            self._ready(column, k)
        if dead is None and verdict is True and (base == size or not terms):
            return _Hits(k, base, size, None)
        pieces = []
        if base:
            pieces.append(
                self._matching(open_terms, any_of, k, 0, base) if verdict is None else self._same(verdict, base)
            )
        if base < size:
            rest = size - base
            pieces.append(self._matching(terms, any_of, k, 1, rest) if terms else self._same(True, rest))
        mask = bytearray().join(pieces)  # a sealed part is whole blocks, so its bitmap is whole bytes
        if dead is not None:
            self._masks.andnot_into(mask, memoryview(dead)[: len(mask)])
        return _Hits(k, base, size, mask) if self._masks.any_set(mask) else None

    def _verdict(self, terms: list[Term], any_of: bool, k: int, base: int) -> tuple[Optional[bool], list[Term]]:
        """What the zone maps say of the sealed part, and the conditions that they do not settle."""
        if not terms:
            return True, []
        open_terms = []
        for term in terms:
            verdict = judge(self.zones[term.column][k], *term[1:]) if base else None
            if verdict is any_of:
                return any_of, []
            if verdict is None:
                open_terms.append(term)
        return (None if open_terms else not any_of), open_terms

    def _ready(self, column: int, k: int) -> None:
        part = self.parts[column][k]
        overlays: Mapping[int, Any] = self.overlays[column]
        if type(part) is not tuple or overlays.get(k) or not isinstance(part[0], (type(None), self._chunk)):
            raise _Stop

    def _same(self, verdict: bool, rows: int) -> bytearray:
        mask: bytearray = self._masks.full(rows) if verdict else self._masks.empty(rows)
        return mask

    def _piece(self, column: int, k: int, piece: int, rows: int) -> Any:
        sealed, tail = self.parts[column][k]
        chunk = self._chunk.view(tail, 0, rows) if piece else sealed
        if chunk is None or chunk.rows != rows:
            raise ValueError("the columns of a segment differ in their rows")
        return chunk

    def _matching(self, terms: list[Term], any_of: bool, k: int, piece: int, rows: int) -> bytearray:
        result: Optional[bytearray] = None
        for term in terms:
            found = self._found(term, self._piece(term.column, k, piece, rows))
            if result is None:
                result = found
            elif any_of:
                self._masks.or_into(result, found)
            else:
                self._masks.and_into(result, found)
            if not any_of and not self._masks.any_set(result):
                break
        return self._same(not any_of, rows) if result is None else result

    def _found(self, term: Term, chunk: Any) -> bytearray:
        if term.kind == "never" and not term.negate:
            return self._same(False, chunk.rows)
        if term.kind in ("not_null", "never"):
            valid: bytearray = chunk.valid()
            return valid
        if term.kind == "null":
            nulls = self._same(True, chunk.rows)
            self._masks.andnot_into(nulls, chunk.valid())
            return nulls
        found: bytearray
        if term.kind == "in":
            found = chunk.select_in(term.values)
        else:
            found = chunk.select(term.lo, term.hi, term.lo_open, term.hi_open)
        if not term.negate:
            return found
        others: bytearray = chunk.valid()
        self._masks.andnot_into(others, found)
        return others

    def _pieces(self, hits: _Hits, column: int, zones: bool) -> list[tuple[Any, Any, Any]]:
        """(zone map, chunk, mask) of the sealed part and the tail: where the zone map answers there is no chunk."""
        k, base, size, mask = hits
        zone = self.zones[column][k] if zones and mask is None else None
        pieces: list[tuple[Any, Any, Any]] = []
        if base and zone is not None and zone.exact:
            pieces.append((zone, None, None))
        elif base:
            part = None if mask is None else memoryview(mask)[: base // 8]
            pieces.append((None, self._piece(column, k, 0, base), part))
        if base < size:
            part = None if mask is None else memoryview(mask)[base // 8 :]
            pieces.append((None, self._piece(column, k, 1, size - base), part))
        return pieces
