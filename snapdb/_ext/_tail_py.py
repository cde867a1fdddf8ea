"""Single-row access to a columnar table in one call. The readable twin of ``_tail.pyx``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index as as_index
from operator import itemgetter
from struct import Struct
from typing import Any, Callable, Optional

from ._common import BINARY, BOOL, DATE, DATETIME, FLOATS, INTS, SEGMENT, TAIL, Half, logical
from ._values_py import ColumnBuffer, RowCodec
from ._wal_py import ROW, Log

__all__ = ["Alone", "RowPort"]

_SHIFT = SEGMENT.bit_length() - 1
_MASK = SEGMENT - 1
_TRIES = 3  # how often a part may be something else again after it was read from the file
_TRIES_TO_END = 20  # where there is no memory to end a row
_ID = Struct("<Q").pack
_AS_STORED = (INTS | FLOATS | {BINARY}) - {DATE, DATETIME, BOOL}  # dtypes whose physical value is what a user sees


class _Unread(Exception):
    """A part that has to be read from the file first."""


class Alone:
    """``with``: the lock is held; single-row writes of other threads, which take none, wait for ``kernel.paused``."""

    __slots__ = ("_kernel", "_lock", "_was")

    def __init__(self, lock: Any, kernel: Any) -> None:
        self._lock = lock
        self._kernel = kernel

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._was = self._kernel.paused
            self._kernel.paused = True
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._kernel.paused = self._was
        finally:
            self._lock.release()


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

    An entry of ``parts`` may also be an object with ``resolve()``, a segment of a file that is not read yet: whatever
    needs its rows calls that and looks again. It has put a tuple or None there by then, and ``overlays[j][k]`` and
    ``deleted[k]`` beside it.
    """

    __slots__ = (
        "_busy", "_codec", "_codes", "_deleted", "_lock", "_log", "_names", "_on_full", "_overlays", "_parts",
        "_readers", "_slow", "limit", "paused", "rows",
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
        self._log: Optional[Log] = None
        self._busy = False  # a row is in the log and not yet in the tails
        self._readers: dict[int, Any] = {}  # segment -> its parts and how to read their sealed rows
        self.rows = 0
        self.limit = TAIL
        self.paused = False

    def attach(self, log: Optional[Log]) -> None:
        """From now on ``insert`` and ``append`` write each row to this log (None: to none) as a ROW frame.

        The frame is written after room for the row was made and before it is in; the log's ``after()`` is called once
        it is, and after ``on_full()``. An error of ``after()`` is raised although the row is in.
        """
        if log is not None and not isinstance(log, Log):
            raise TypeError(f"a log of the pure kernels is needed, not {type(log).__name__}")
        self._log = log
        self._readers = {}  # who closes a table attaches another log: what was read is not to be kept for long then

    # -- parts that are not read yet ---------------------------------------

    def _part(self, column: int, segment: int) -> Any:
        """What a segment of a column is made of, a tuple or None, read from the file first where it has to be."""
        for tried in range(_TRIES + 1):
            segments = self._parts[column]
            if not 0 <= segment < len(segments):
                return None
            part = segments[segment]
            if part is None or isinstance(part, tuple):
                return part
            if tried < _TRIES:
                part.resolve()
        raise RuntimeError(f"segment {segment} of column {column} is still not read")

    def _unread(self, columns: Any, segment: int) -> list[int]:
        """Those of the columns whose part of a segment is not read yet."""
        found = []
        for column in columns:
            segments = self._parts[column]
            if -len(segments) <= segment < len(segments):
                part = segments[segment]
                if part is not None and not isinstance(part, tuple):
                    found.append(column)
        return found

    def _read_open(self) -> None:
        """Have the open segment read in every column. Not under the lock."""
        columns = range(len(self._parts))
        for _ in range(_TRIES + 1):
            if not self._unread(columns, -1):
                return
            for column in columns:
                self._part(column, len(self._parts[column]) - 1)
        raise RuntimeError("the open segment is still not read")

    # -- appending ---------------------------------------------------------

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row and return its id; waits in ``slow`` while paused or full. Errors as ``RowCodec.encode``."""
        idx = self._append(self._codec.encode(row), True, True)
        return self._slow(row) if idx is None else idx

    def append(self, row: Mapping[str, Any]) -> int:
        """``insert`` whether paused or not."""
        idx = self._append(self._codec.encode(row), False, True)
        return self._slow(row) if idx is None else idx

    def append_values(self, values: Any) -> int:
        """Append one row of checked physical values in column order."""
        listed = list(values)
        if len(listed) != len(self._names):
            raise ValueError(f"a row has {len(self._names)} values, got {len(listed)}")
        idx = self._append(listed, False, False)
        return -1 if idx is None else idx

    def _append(self, values: list[Any], may_wait: bool, logged: bool) -> Optional[int]:
        """Append checked values; None where the row has to wait for its turn."""
        while True:
            with self._lock:
                if may_wait and self.paused:
                    return None
                log = self._log if logged else None
                tails = self._tails()
                if tails is not None:
                    if may_wait and tails and tails[0].rows >= self.limit:
                        return None
                    idx = self._put(tails, values) if log is None else self._record(log, tails, values)
                    full = bool(tails) and tails[0].rows >= self.limit
                    break
            self._read_open()
        try:
            if full:
                self._on_full()
        finally:
            if log is not None:
                log.after()
        return idx

    def _tails(self) -> Optional[list[ColumnBuffer]]:
        """The tails of the open segment; None where it is not read yet."""
        if self._busy:
            raise RuntimeError("a row is being written: what its log calls must not write to the table")
        try:
            tails: list[Any] = [segments[-1][1] for segments in self._parts]
        except (IndexError, TypeError):
            if self._unread(range(len(self._parts)), -1):
                return None
            tails = [None]
        if None in tails:
            raise RuntimeError("the open segment has no tail to append to")
        return tails

    def _put(self, tails: list[ColumnBuffer], values: list[Any]) -> int:
        """Append checked values to the tails of the open segment; the row's id."""
        idx, count = self.rows, tails[0].rows if tails else 0
        try:
            for tail, value in zip(tails, values):
                if value is None or tail._null_rows is not None:
                    tail.append(value)
                    continue
                try:  # what append() does, without the call
                    tail._items.append(value)
                    tail.rows += 1
                except BufferError:
                    tail.append(value)
        except MemoryError:
            if not tails or tails[0].rows == count:
                raise  # nothing is done
            for _ in range(_TRIES_TO_END):  # a row is in every tail or in none
                try:
                    for tail, value in zip(tails, values):
                        if tail.rows == count:
                            tail.append(value)
                    break
                except MemoryError:
                    pass
            else:
                raise Half("no memory to end a row that was begun") from None
        self.rows = idx + 1
        return idx

    def _record(self, log: Log, tails: list[ColumnBuffer], values: list[Any]) -> int:
        """Log a row and append it, under the lock."""
        idx = self.rows
        payload = _ID(idx) + self._codec.pack(values)
        mark, count = log.mark(), tails[0].rows if tails else 0
        self._busy = True
        try:
            log.append(ROW, payload)
            self._busy = False
            if self.rows != idx:
                raise RuntimeError("the table changed while a row was being logged")
            return self._put(tails, values)
        except BaseException:  # an interrupt between the log and the table: the row is in both or in neither
            if self.rows == idx and log.lsn > mark[0]:
                if all(tail.rows == count for tail in tails):
                    log.rollback(mark)
                else:
                    waiting = [(tail, value) for tail, value in zip(tails, values) if tail.rows == count]
                    self._put([tail for tail, _ in waiting], [value for _, value in waiting])
            raise
        finally:
            self._busy = False

    def amend(self, idx: int, values: Any) -> None:
        """Overlay (column, checked physical value) pairs on a live row, in one step. KeyError(idx): no such row."""
        if idx.__class__ is int and values.__class__ is list:
            try:
                with self._lock:
                    if self._holds(idx) and self._in_place(values, idx >> _SHIFT, idx & _MASK):
                        return
            except (IndexError, TypeError, ValueError):
                pass  # an error of what was given is named below
        pairs = [(as_index(column), value) for column, value in values]
        place = as_index(idx)
        segment, row = place >> _SHIFT, place & _MASK
        for _ in range(_TRIES + 1):
            with self._lock:
                unread = self._unread([0] if self._parts else [], segment)
                if not unread:
                    if not self.contains(place):
                        raise KeyError(idx)
                    for column, _value in pairs:
                        if not 0 <= column < len(self._overlays):
                            raise IndexError(f"column {column} is outside 0..{len(self._overlays)}")
                    unread = self._unread((column for column, _value in pairs), segment)
                if not unread:
                    self._overlay(pairs, segment, row)
                    return
            for column in unread:
                self._part(column, segment)
        raise RuntimeError(f"row {idx} is still not read")

    def _holds(self, idx: int) -> bool:
        """Whether the position holds a live row of a segment whose first column is read."""
        segment, row = idx >> _SHIFT, idx & _MASK
        if not 0 <= idx < self.rows or self._deleted[segment] is not None:
            return False
        part = self._parts[0][segment]
        if part.__class__ is not tuple:
            return False
        chunk, tail = part
        if chunk is not None:
            row -= chunk.rows
        return row < 0 or (tail is not None and row < tail.rows)

    def _in_place(self, pairs: list[tuple[int, Any]], segment: int, row: int) -> bool:
        """``_overlay`` where every column's part is read."""
        for column, _ in pairs:
            if column < 0 or self._parts[column][segment].__class__ is not tuple:
                return False
        if len(pairs) == 1:
            ((column, value),) = pairs
            overlays = self._overlays[column]
            if segment in overlays:
                overlays[segment][row] = value
                return True
        self._overlay(pairs, segment, row)
        return True

    def _overlay(self, pairs: list[tuple[int, Any]], segment: int, row: int) -> None:
        """Set values in the overlays of a segment, all or (no memory, an interrupt) none."""
        targets = [self._overlays[column].setdefault(segment, {}) for column, _ in pairs]
        before = [target.get(row, self) for target in targets]  # self: no value yet
        try:
            for target, (_, value) in zip(targets, pairs):
                target[row] = value
        except BaseException:
            for target, value in reversed(list(zip(targets, before))):
                if value is self:
                    target.pop(row, None)
                else:
                    target[row] = value
            raise

    def _live(self, idx: Any) -> int:
        """The position of a live row, -1 where there is none. The part of the first column is read by then."""
        idx = as_index(idx)
        if not 0 <= idx < self.rows:
            return -1
        segment, row = idx >> _SHIFT, idx & _MASK
        try:
            part = self._parts[0][segment]
        except IndexError:
            part = None
        if part.__class__ is not tuple and part is not None:
            self._part(0, segment)
            if idx >= self.rows:
                return -1
        if segment < len(self._deleted):
            gone = self._deleted[segment]
            if gone is not None and row >> 3 < len(gone) and gone[row >> 3] >> (row & 7) & 1:
                return -1
        return int(idx)

    def get(self, idx: int) -> Optional[dict[str, Any]]:
        """The live row as a dict of logical values, None where there is none. TypeError for what is not an integer."""
        if idx.__class__ is not int:
            return self._get(idx)
        segment, row = idx >> _SHIFT, idx & _MASK
        try:
            current, sealed, fetchers, at = self._readers[segment]
        except KeyError:
            return self._get(idx)
        if row < sealed and idx < self.rows:
            # a sealed row of a segment that was read before: few steps, the same questions as below
            with self._lock:
                try:
                    if self._deleted[segment] is None and not any(self._overlays):
                        if list(map(at, self._parts)) == current:
                            return {name: fetch(row) for name, fetch in fetchers}
                except IndexError:
                    pass
        return self._get(idx)

    def _get(self, idx: int) -> Optional[dict[str, Any]]:
        """``get``, of any row."""
        for _ in range(_TRIES + 1):
            place = self._live(idx)
            if place < 0:
                return None
            try:
                with self._lock:  # an update of two columns is seen whole or not at all
                    return self._read(place)
            except _Unread:
                for column in range(len(self._parts)):
                    self._part(column, place >> _SHIFT)
        raise RuntimeError(f"row {idx} is still not read")

    def _read(self, place: int) -> Optional[dict[str, Any]]:
        segment, row = place >> _SHIFT, place & _MASK
        try:
            current = [segments[segment] for segments in self._parts]
        except IndexError:
            return None
        cached = self._readers.get(segment)
        # parts are replaced, never changed, so the same tuples mean the same chunks
        if cached is None or cached[0] != current:
            if not all(isinstance(part, tuple) for part in current):
                if any(part is not None and not isinstance(part, tuple) for part in current):
                    raise _Unread
                return None
            cached = self._readers[segment] = (current, *self._reader(current), itemgetter(segment))
        _, sealed, fetchers, _ = cached
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
        return min(chunk.rows for chunk in chunks), [(name, c._row_reader()) for name, c in zip(self._names, chunks)]

    def _overlaid(self, segment: int) -> list[tuple[str, int, dict[int, Any]]]:
        """(name, dtype code, overlays) of the columns with an updated row in this segment."""
        return [
            (name, code, overlays)
            for name, code, overlays in zip(self._names, self._codes, self._overlays)
            if overlays and segment in overlays
        ]

    def contains(self, idx: int) -> bool:
        """Whether the position holds a live row. TypeError for what is not an integer."""
        try:
            if idx.__class__ is int and self._holds(idx):
                return True
        except IndexError:
            pass
        place = self._live(idx)
        if place < 0:
            return False
        segment, row = place >> _SHIFT, place & _MASK
        if not self._parts:
            return True
        try:
            chunk, tail = self._parts[0][segment]
        except (IndexError, TypeError):  # no such segment, or None: _live() has had it read
            return False
        held = (chunk.rows if chunk is not None else 0) + (tail.rows if tail is not None else 0)
        return bool(row < held)
