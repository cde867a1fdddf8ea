"""Single-row access to a columnar table in one call. The readable twin of ``_tail.pyx``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index as as_index
from typing import Any, Callable, Optional

from ._common import BINARY, BOOL, DATE, DATETIME, FLOATS, INTS, SEGMENT, TAIL, logical
from ._values_py import ColumnBuffer, RowCodec

__all__ = ["RowPort"]

_SHIFT = SEGMENT.bit_length() - 1
_MASK = SEGMENT - 1
_AS_STORED = (INTS | FLOATS | {BINARY}) - {DATE, DATETIME, BOOL}  # dtypes whose physical value is what a user sees


class RowPort:
    """Reads and appends rows over lists that the columnar engine owns and changes in place.

    ``parts[j][k]`` is what segment k of column j is made of: (sealed chunk or None, tail buffer or None), one tuple so
    that a change of both is one assignment; None for a segment without a live row. ``overlays[j][k]`` maps in-segment
    rows to physical values that replace the stored ones (``overlays[j]`` is a dict that has only the segments with
    updates). ``deleted[k]`` is None or a bitmap of deleted rows. ``rows`` counts positions given out; a position at or
    past it reads as missing. The tail of the open (last) segment is appended to by ``insert``; ``on_full()`` is called
    when it reaches ``limit`` rows, after the row is in and outside the lock. The compiled methods are one step under
    the GIL; the twin takes ``lock``. While ``paused`` is true, or the tail is full and another thread is about to fold
    it, ``insert`` goes to ``slow(row)``, which waits for its turn; ``append`` is the same without that check.
    """

    __slots__ = (
        "_codec", "_codes", "_deleted", "_lock", "_names", "_on_full", "_overlays", "_parts", "_readers", "_slow",
        "limit", "paused", "rows",
    )  # fmt: skip

    def __init__(
        self,
        codec: RowCodec,
        parts: list[list[Any]],
        overlays: list[dict[int, dict[int, Any]]],
        deleted: list[Any],
        lock: Any,
        slow: Callable[[Mapping[str, Any]], int],
        on_full: Callable[[], None],
    ) -> None:
        count = len(codec.columns)
        if len(parts) != count or len(overlays) != count:
            raise ValueError(f"{count} columns need as many parts and overlays, got {len(parts)} and {len(overlays)}")
        self._codec = codec
        self._names = [spec[0] for spec in codec.columns]
        self._codes = [spec[1] for spec in codec.columns]
        self._parts = parts
        self._overlays = overlays
        self._deleted = deleted
        self._lock = lock
        self._slow = slow
        self._on_full = on_full
        self._readers: dict[int, Any] = {}  # segment -> its parts and how to read their sealed rows
        self.rows = 0
        self.limit = TAIL
        self.paused = False

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row and return its id; waits in ``slow`` while paused or full. Errors as ``RowCodec.encode``."""
        values = self._codec.encode(row)
        with self._lock:
            waits = self.paused or self._is_full()
            idx, full = (-1, False) if waits else self._put(values)
        if waits:
            return self._slow(row)
        if full:
            self._on_full()
        return idx

    def append(self, row: Mapping[str, Any]) -> int:
        """``insert`` whether paused or not."""
        return self._append(self._codec.encode(row))

    def append_values(self, values: Any) -> int:
        """Append one row of checked physical values in column order."""
        listed = list(values)
        if len(listed) != len(self._names):
            raise ValueError(f"a row has {len(self._names)} values, got {len(listed)}")
        return self._append(listed)

    def _append(self, values: list[Any]) -> int:
        with self._lock:
            idx, full = self._put(values)
        if full:
            self._on_full()
        return idx

    def _is_full(self) -> bool:
        open_part = self._parts[0][-1] if self._parts and self._parts[0] else None
        tail = None if open_part is None else open_part[1]
        return tail is not None and bool(tail.rows >= self.limit)

    def _put(self, values: list[Any]) -> tuple[int, bool]:
        """Append checked values to the tails of the open segment: (row id, whether the tail is full)."""
        try:
            tails: list[ColumnBuffer] = [segments[-1][1] for segments in self._parts]
        except (IndexError, TypeError):
            tails = [None]  # type: ignore[list-item]
        if None in tails:
            raise RuntimeError("the open segment has no tail to append to")
        for tail, value in zip(tails, values):
            tail.append(value)
        idx = self.rows
        self.rows = idx + 1
        return idx, bool(tails) and tails[0].rows >= self.limit

    def amend(self, idx: int, values: Any) -> None:
        """Overlay (column, checked physical value) pairs on a live row, in one step. KeyError(idx): no such row."""
        pairs = [(as_index(column), value) for column, value in values]
        with self._lock:
            place = self._live(idx)
            if place < 0 or not self.contains(place):
                raise KeyError(idx)
            for column, _value in pairs:
                if not 0 <= column < len(self._overlays):
                    raise IndexError(f"column {column} is outside 0..{len(self._overlays)}")
            segment, row = place >> _SHIFT, place & _MASK
            for column, value in pairs:
                self._overlays[column].setdefault(segment, {})[row] = value

    def _live(self, idx: Any) -> int:
        """The position of a live row, -1 where there is none."""
        idx = as_index(idx)
        if not 0 <= idx < self.rows:
            return -1
        segment, row = idx >> _SHIFT, idx & _MASK
        if segment < len(self._deleted):
            gone = self._deleted[segment]
            if gone is not None and row >> 3 < len(gone) and gone[row >> 3] >> (row & 7) & 1:
                return -1
        return int(idx)

    def get(self, idx: int) -> Optional[dict[str, Any]]:
        """The live row as a dict of logical values, None where there is none. TypeError for what is not an integer."""
        place = self._live(idx)
        if place < 0:
            return None
        with self._lock:  # an update of two columns is seen whole or not at all
            return self._read(place)

    def _read(self, place: int) -> Optional[dict[str, Any]]:
        segment, row = place >> _SHIFT, place & _MASK
        try:
            current = [segments[segment] for segments in self._parts]
        except IndexError:
            return None
        cached = self._readers.get(segment)
        # parts are replaced, never changed, so the same tuples mean the same chunks
        if cached is None or cached[0] != current:
            if None in current:
                return None
            cached = self._readers[segment] = (current, *self._reader(current))
        _, sealed, fetchers = cached
        if row < sealed:
            found = {name: fetch(row) for name, fetch in fetchers}
        else:
            row -= sealed
            tails = [part[1] for part in current]
            if any(tail is None or row >= tail.rows for tail in tails):
                return None
            found = {name: tail.fetch(row) for name, tail in zip(self._names, tails)}
        for name, code, overlays in self._overlaid(segment):
            changed = overlays[segment]
            if place & _MASK in changed:
                found[name] = logical(code, changed[place & _MASK])
        return found

    def _reader(self, parts: list[Any]) -> tuple[int, list[tuple[str, Any]]]:
        """How many rows are sealed, and each column's way to one of them."""
        chunks = [part[0] for part in parts]
        if any(chunk is None for chunk in chunks):
            return 0, []
        for chunk in chunks:
            chunk.fetch(0)  # the first call puts a faster reader in the method's place
        return min(chunk.rows for chunk in chunks), [(name, c.fetch) for name, c in zip(self._names, chunks)]

    def _overlaid(self, segment: int) -> list[tuple[str, int, dict[int, Any]]]:
        """(name, dtype code, overlays) of the columns with an updated row in this segment."""
        return [
            (name, code, overlays)
            for name, code, overlays in zip(self._names, self._codes, self._overlays)
            if overlays and segment in overlays
        ]

    def contains(self, idx: int) -> bool:
        """Whether the position holds a live row. TypeError for what is not an integer."""
        place = self._live(idx)
        if place < 0:
            return False
        segment, row = place >> _SHIFT, place & _MASK
        for segments in self._parts[:1]:
            part = segments[segment] if segment < len(segments) else None
            if part is None:
                return False
            chunk, tail = part
            held = (chunk.rows if chunk is not None else 0) + (tail.rows if tail is not None else 0)
            return bool(row < held)
        return True
