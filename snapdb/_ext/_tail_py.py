"""Single-row access to a columnar table in one call. The readable twin of ``_tail.pyx``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index as as_index
from typing import Any, Callable, Optional

from ._common import SEGMENT, TAIL, logical
from ._values_py import RowCodec

__all__ = ["RowPort"]

_SHIFT = SEGMENT.bit_length() - 1
_MASK = SEGMENT - 1


class RowPort:
    """Reads and appends rows over lists that the columnar engine owns and changes in place.

    ``parts[j][k]`` is what segment k of column j is made of: (sealed chunk or None, tail buffer or None), one tuple so that a
    change of both is one assignment; None for a segment without a live row. ``overlays[j][k]`` maps in-segment rows to
    physical values that replace the stored ones (``overlays[j]`` is a dict that has only the segments with updates).
    ``deleted[k]`` is None or a bitmap of deleted rows. ``rows`` counts positions given out; a position at or past it reads as
    missing. The tail of the open (last) segment is appended to by ``insert``; ``on_full()`` is called when it reaches ``limit``
    rows, after the row is in and outside the lock. The compiled methods are one step under the GIL; the twin takes ``lock``.
    While ``paused`` is true ``insert`` goes to ``slow(row)``, which waits for its turn; ``append`` is the same without that check.
    """

    __slots__ = (
        "_codec", "_codes", "_deleted", "_lock", "_names", "_on_full", "_overlays", "_parts", "_slow", "limit", "paused", "rows",
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
        self.rows = 0
        self.limit = TAIL
        self.paused = False

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row and return its id; waits in ``slow`` while paused. Errors as ``RowCodec.encode``."""
        values = self._codec.encode(row)
        with self._lock:
            waits = self.paused
            idx = -1 if waits else self._put(values)
        return self._slow(row) if waits else self._done(idx)

    def append(self, row: Mapping[str, Any]) -> int:
        """``insert`` whether paused or not."""
        values = self._codec.encode(row)
        with self._lock:
            idx = self._put(values)
        return self._done(idx)

    def append_values(self, values: Any) -> int:
        """Append one row of checked physical values in column order."""
        listed = list(values)
        if len(listed) != len(self._names):
            raise ValueError(f"a row has {len(self._names)} values, got {len(listed)}")
        with self._lock:
            idx = self._put(listed)
        return self._done(idx)

    def amend(self, idx: int, values: Any) -> None:
        """Overlay (column, checked physical value) pairs on a live row, in one step. KeyError(idx) where there is none."""
        pairs = list(values)
        with self._lock:
            place = self._live(idx)
            if place < 0 or not self.contains(place):
                raise KeyError(idx)
            segment, row = place >> _SHIFT, place & _MASK
            targets = [self._overlays[column].setdefault(segment, {}) for column, _ in pairs]
            for (_, value), target in zip(pairs, targets):
                target[row] = value

    def _tail(self, column: int) -> Any:
        segments = self._parts[column]
        part = segments[-1] if segments else None
        if part is None or part[1] is None:
            raise RuntimeError("the open segment has no tail to append to")
        return part[1]

    def _put(self, values: list[Any]) -> int:
        tails = [self._tail(column) for column in range(len(values))]
        for tail, value in zip(tails, values):
            tail.append(value)
        idx = self.rows
        self.rows = idx + 1
        return idx

    def _done(self, idx: int) -> int:
        segments = self._parts[0] if self._parts else []
        part = segments[-1] if segments else None
        if part is not None and part[1] is not None and part[1].rows >= self.limit:
            self._on_full()
        return idx

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
        found: dict[str, Any] = {}
        for name, code, segments, overlays in zip(self._names, self._codes, self._parts, self._overlays):
            part = segments[segment] if segment < len(segments) else None
            if part is None:
                return None
            if overlays:
                changed = overlays.get(segment)
                if changed and row in changed:
                    found[name] = logical(code, changed[row])
                    continue
            chunk, tail = part
            local = row
            if chunk is not None:
                if row < chunk.rows:
                    found[name] = chunk.fetch(row)
                    continue
                local = row - chunk.rows
            if tail is None or local >= tail.rows:
                return None
            found[name] = tail.fetch(local)
        return found

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
