"""The row store: slabs of fixed-width rows, liveness, heaps. The readable twin of ``_slab.pyx``.

A slab is one bytearray of records. A record is the row's bytes followed by its side area (lengths of ``bytes:N``
values, a null flag per nullable column, the live flag), so one ``unpack_from`` reads a row and one slice assignment
writes it: readers need no lock. Heaps only grow; what would move a byte under a reader (compaction, a write to a pinned
slab) makes a new slab and publishes it with one assignment.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import index as _index
from typing import Any, Callable, Optional

from ._common import (
    BINARY,
    BYTES,
    DATE,
    DATETIME,
    decode_text,
    to_date,
    to_datetime,
)
from ._records import (
    GARBAGE,
    HEAP_LIMIT,
    LOW,
    Hold,
    Layout,
    Pins,
    Slab,
    flags,
    heap_error,
    held,
    padded,
    same_layout,
    store,
)
from ._slabfile_py import FileTable
from ._slabview_py import SlabView
from ._values_py import ColumnBuffer, RowCodec

__all__ = ["Lookup", "SlabTable", "SlabView"]

_STAGE = 1 << 15  # rows of a batch laid out at once


class SlabTable(FileTable):
    """Every row of a table, in slabs of ``page_size`` bytes. Row id is position.

    ``offsets`` are the columns' byte offsets in the fixed-width row, ascending (a string column's field: ``bytes:N`` N
    bytes zero padded, its length kept outside the row; other strings 8 bytes, u32 heap offset and u32 length),
    ``row_width`` the row's bytes. A slab holds ``max(1, page_size // row_width)`` rows; one without a live row left is
    given back. Writes take ``lock`` (and call nothing under it). While ``paused`` is true, ``insert``, ``update`` and
    ``delete`` go to ``slow(name, *args)``, which waits for its turn; ``append``, ``change`` and ``remove`` are the same
    without that check.
    """

    _store = staticmethod(store)
    _view: Callable[..., SlabView]

    def __init__(
        self,
        codec: RowCodec,
        offsets: Sequence[int],
        row_width: int,
        page_size: int,
        lock: Any,
        slow: Callable[..., Any],
    ) -> None:
        if row_width < 1 or page_size < 1:
            raise ValueError(f"row_width and page_size must be positive, got {row_width} and {page_size}")
        self.rows = 0  # positions given out
        self.live = 0
        self.writes = 0  # grows with every write, to tell whether something read earlier is still true
        self.paused = False
        self.slab_rows = max(1, page_size // row_width)
        self._codec = codec
        self._lock = lock
        self._slow = slow
        self._layout = layout = Layout(codec.columns, offsets, row_width)
        self._make_blocks()
        self._stride = layout.stride
        self._unpack = layout.record.unpack_from
        self._names = layout.names
        self._slabs: dict[int, Slab] = {}  # a slab without a live row is not there
        self._slabs_stamp = 0
        self._pins = Pins()
        self._floor = 0  # what is older belongs to the table that this one was branched from; 0: all is its own
        self._base: Optional[Hold] = None  # keeps that as it is, for either table
        kinds = [spec[1] for spec in codec.columns]
        self._inline = [(self._names[j], j, k) for j, k in layout.inline]
        self._heaped = [(self._names[j], j, kinds[j] == BINARY) for j in layout.heaped]
        self._moments = [
            (self._names[j], j, to_date if kind == DATE else to_datetime)
            for j, kind in enumerate(kinds)
            if kind in (DATE, DATETIME)
        ]
        self._nullable = [(self._names[j], k) for j, k in layout.nullable]

    # -- reads, without the lock ------------------------------------------

    def rows_of(self, ids: Iterable[int]) -> list[dict[str, Any]]:
        """The live rows of these ids, in their order; ids without one are left out."""
        return [row for row in map(self.get, ids) if row is not None]

    def get(self, idx: int) -> Optional[dict[str, Any]]:
        """The live row as a dict of logical values, None where there is none."""
        if idx.__class__ is not int:
            idx = _index(idx)
        slab = self._slabs.get(idx // self.slab_rows) or self._ask(idx)
        if slab is None:
            return None
        values = self._unpack(slab.data, idx % self.slab_rows * self._stride)
        if not values[-1]:
            return None
        row = dict(zip(self._names, values))
        for name, column, field in self._inline:
            value = values[column][: values[field]]
            try:
                row[name] = value.decode()
            except UnicodeDecodeError:
                row[name] = value
        if self._heaped:
            self._fetch(row, values, slab.heap)
        for name, column, convert in self._moments:
            row[name] = convert(values[column])
        for name, field in self._nullable:
            if values[field]:
                row[name] = None
        return row

    def _fetch(self, row: dict[str, Any], values: Sequence[Any], heap: bytearray) -> None:
        for name, column, binary in self._heaped:
            ref = values[column]
            low = ref & LOW
            value = bytes(heap[low : low + (ref >> 32)])
            row[name] = value if binary else decode_text(value)

    def get_raw(self, idx: int) -> Optional[memoryview]:
        """The fixed-width row's bytes, read-only and unchanged for ever; None where there is no live row."""
        idx = _index(idx)
        slab = self._slabs.get(idx // self.slab_rows) or self._ask(idx)
        if slab is None:
            return None
        at = idx % self.slab_rows * self._stride
        record = bytes(slab.data[at : at + self._stride])
        return memoryview(record)[: self._layout.row_width] if record[-1] else None

    def contains(self, idx: int) -> bool:
        """Whether there is a live row at ``idx``."""
        idx = _index(idx)
        slab = self._slabs.get(idx // self.slab_rows) or self._ask(idx)
        return slab is not None and slab.data[(idx % self.slab_rows + 1) * self._stride - 1] != 0

    def take_over(self, other: SlabTable) -> None:
        """Have every row of ``other`` (a table of the same layout, empty afterwards) instead of one's own.

        Views keep what they see. ValueError for a table of another layout, or itself.
        """
        if other._stride != self._stride or other.slab_rows != self.slab_rows or other is self:
            raise ValueError("take_over needs another table of the same layout")
        with self._lock:
            self._idle()
            other._idle()
            self._missing, self._fault = other._missing, other._fault
            self._slabs, self._slabs_stamp, self._pins = other._slabs, other._slabs_stamp, other._pins
            self._floor, self._base = other._floor, other._base
            self.rows, self.live = other.rows, other.live
            self.writes += 1
            other.writes += 1
            other._slabs, other._slabs_stamp, other._pins = {}, 0, Pins()
            other._missing = other._fault = other._base = None
            other.rows = other.live = other._floor = 0

    def branch(self, view: SlabView) -> None:
        """Be what a view of a table of the same layout shows; what is written to either does not show in the other.

        Takes as long as it takes to copy one reference for each slab. ValueError where the table has rows.
        """
        with self._lock:
            self._idle()
            if self.rows or self._missing is not None:
                raise ValueError(f"a table of {self.rows} rows cannot be branched from a view")
            if not same_layout(self._layout, view._layout) or self.slab_rows != view._slab_rows:
                raise ValueError("a branch needs a view of the same layout")
            base = Hold(view._pins, view._epoch)
            slabs = dict(view._held_slabs())
            floor = view._pins.next_epoch()
            number, at = divmod(view.rows, self.slab_rows)
            opened = slabs.get(number)
            for late in [key for key in slabs if key >= number]:
                del slabs[late]
            if at and opened is not None:
                opened = self._first_rows(opened, at, floor)
                if opened.live:
                    slabs[number] = opened
            self._pins, self._floor, self._base = view._pins, floor, base
            self._slabs, self._slabs_stamp = slabs, floor
            self.rows, self.live = view.rows, view.live
            self.writes += 1

    def _first_rows(self, slab: Slab, rows: int, stamp: int) -> Slab:
        """A copy of a slab's first rows with a heap of its own: rows are appended to the other in place."""
        stride = self._stride
        data = slab.data[: rows * stride]
        live = data[stride - 1 :: stride].count(1)
        data += bytes((self.slab_rows - rows) * stride)
        return self._repacked(data, slab.heap, live, stamp)

    def pin(self) -> SlabView:
        """The rows as of now."""
        with self._lock:
            pins = self._pins
            epoch = pins.next_epoch()
            return self._view(self._layout, self._slabs, self.slab_rows, self.rows, self.live, pins, epoch)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held: rows, side areas, heaps and the objects around them."""
        with self._lock:
            sizes = [held(slab) + held(slab.data) + held(slab.heap) for slab in self._slabs.values()]
            return sum(sizes) + held(self._slabs) + 32 * len(sizes)

    # -- writes -------------------------------------------------------------

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append a row; returns its id."""
        values = self._codec.encode(row)
        with self._lock:
            paused, log = self.paused, self._log
            idx = -1 if paused else self._append(values, log)
        if paused:
            return self._slow("insert", row)  # type: ignore[no-any-return]
        if log is not None:
            log.after()
        return idx

    def append(self, row: Mapping[str, Any]) -> int:
        """``insert`` for the writer whose turn it is."""
        values = self._codec.encode(row)
        with self._lock:
            log = self._log
            idx = self._append(values, log)
        if log is not None:
            log.after()
        return idx

    def append_values(self, values: Sequence[Any]) -> int:
        """Append one row of checked physical values in column order. ValueError where they do not fit the schema."""
        values = self._checked(values)
        with self._lock:
            return self._append(values)

    def _checked(self, values: Sequence[Any]) -> list[Any]:
        values = list(values)
        if len(values) != len(self._names):
            raise ValueError(f"a row has {len(self._names)} values, got {len(values)}")
        for column, value in enumerate(values):
            self._layout.check(column, value)
        return values

    def _append(self, values: list[Any], log: Any = None) -> int:
        if self._missing is not None:
            self._ask_open()
        idx = self.rows
        mark = None if log is None else log.mark()
        live = self.live
        try:
            self._write(idx, values, log)
            self.rows = idx + 1
        except BaseException:  # an interrupt between the log and the table: the row is in both or in neither
            if self.live != live:
                self.rows = idx + 1
            elif mark is not None and log.lsn > mark[0]:
                log.rollback(mark)
            raise
        return idx

    def _write(self, idx: int, values: list[Any], log: Any = None) -> None:
        """Make a position that holds no row hold this one, and log it before."""
        self._idle()
        layout = self._layout
        number, at = divmod(idx, self.slab_rows)
        slab = self._slabs.get(number)
        fields, pieces = layout.fields(values, 0 if slab is None else len(slab.heap))
        record = layout.record.pack(*fields)
        if slab is None:
            slab = self._new_slab()
        if log is not None:
            self._write_log(log, idx, values)
        for piece in pieces:
            slab.heap += piece  # before the record that refers to it
        at *= self._stride
        slab.data[at : at + self._stride] = record
        slab.live += 1
        self._slabs[number] = slab
        self.live += 1
        self.writes += 1

    def _new_slab(self) -> Slab:
        # as old as the directory it goes to: a view of that may cover dead positions of it
        return Slab(bytearray(self.slab_rows * self._stride), bytearray(), 0, 0, self._slabs_stamp)

    def extend(self, columns: Sequence[ColumnBuffer]) -> int:
        """Append staged columns of equal length, all or nothing; returns the first new id.

        ValueError where they do not fit the schema.
        """
        count = self._staged(columns)
        size = self.slab_rows
        with self._lock:
            self._ask_open()
            self._idle()
            first = self.rows
            fresh: dict[int, Slab] = {}
            ahead = min(-first % size, count)
            head = self._lay_out(columns, 0, ahead, first) if ahead else None
            step = max(1, _STAGE // size) * size
            for start in range(ahead, count, step):
                self._cut(columns, start, min(start + step, count), first, fresh)
            if head is not None:
                self._extend_open(first, ahead, *head)
            self._slabs.update(fresh)
            self.rows = first + count
            self.live += count
            self.writes += 1
            return first

    def _staged(self, columns: Sequence[ColumnBuffer]) -> int:
        specs = self._codec.columns
        if len(columns) != len(specs):
            raise ValueError(f"a batch has {len(specs)} columns, got {len(columns)}")
        count = columns[0].rows if columns else 0
        for (name, code, limit, nullable), staged in zip(specs, columns):
            if staged.code != code or staged.rows != count:
                raise ValueError(
                    f"column {name!r}: expected {count} rows of dtype {code}, got {staged.rows} of {staged.code}"
                )
            if staged.null_count and not nullable:
                raise ValueError(f"column {name!r} takes no null")
            if code == BYTES and count and max(map(len, staged._items)) > limit:
                raise ValueError(f"column {name!r} takes {limit} bytes, got {max(map(len, staged._items))}")
        return count

    def _cut(self, columns: Sequence[ColumnBuffer], start: int, stop: int, first: int, fresh: dict[int, Slab]) -> None:
        """Whole new slabs from staged rows ``start..stop`` (``start`` begins a slab)."""
        size, stride = self.slab_rows, self._stride
        block, heaps = self._lay_out(columns, start, stop, first)
        for number, heap in enumerate(heaps):
            low = number * size
            rows = min(size, stop - start - low)
            data = block[low * stride : (low + rows) * stride]
            if rows < size:
                data += bytes((size - rows) * stride)
            fresh[(first + start + low) // size] = Slab(data, heap, rows, 0, self._slabs_stamp)

    def _lay_out(
        self, columns: Sequence[ColumnBuffer], start: int, stop: int, first: int
    ) -> tuple[bytearray, list[bytearray]]:
        """The records of staged rows ``start..stop``, and the heap (or what it grows by) of each slab they go to."""
        layout, stride = self._layout, self._stride
        count = stop - start
        block = bytearray(count * stride)
        size = self.slab_rows
        heaps = [bytearray() for _ in range(0, count, size)]
        opened = self._slabs.get(first // size) if (first + start) % size else None
        base = len(opened.heap) if opened is not None else 0
        for column, staged in enumerate(columns):
            items = staged._items[start:stop]
            if column in layout.heaped:
                raw = self._references(items, heaps, base).tobytes()
            elif staged.code == BYTES:
                raw = padded(items, layout.widths[column])
            else:
                raw = items.tobytes()
            self._store(block, layout.places[column], stride, layout.widths[column], raw)
        for column, field in layout.inline:
            wide = layout.columns[column][2] >= 65536
            raw = array("I" if wide else "H", map(len, columns[column]._items[start:stop])).tobytes()
            self._store(block, layout.places[field], stride, 4 if wide else 2, raw)
        for column, field in layout.nullable:
            if columns[column].null_count:
                self._store(block, layout.places[field], stride, 1, flags(columns[column]._null_rows, start, stop))
        self._store(block, stride - 1, stride, 1, b"\1" * count)
        return block, heaps

    def _references(self, items: list[bytes], heaps: list[bytearray], base: int) -> array[int]:
        """Heap references of one column, slab by slab; appends the strings to ``heaps``."""
        refs = array("Q")
        size = self.slab_rows
        for number, heap in enumerate(heaps):
            pieces = items[number * size : (number + 1) * size]
            end = base + len(heap)
            for piece in pieces:
                refs.append(len(piece) << 32 | end if piece else 0)
                end += len(piece)
                if end > HEAP_LIMIT:
                    raise heap_error()
            heap += b"".join(pieces)
        return refs

    def _extend_open(self, first: int, count: int, block: bytearray, heaps: list[bytearray]) -> None:
        number, at = divmod(first, self.slab_rows)
        slab = self._slabs.get(number)
        if slab is None:
            slab = self._new_slab()
        slab.heap += heaps[0]
        slab.data[at * self._stride : (at + count) * self._stride] = block
        slab.live += count
        self._slabs[number] = slab

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError(idx) where there is none."""
        idx = _index(idx)
        if not self.paused and not self.contains(idx):  # paused: its being there may not last
            raise KeyError(idx)
        pairs = self._codec.encode_partial(row)
        with self._lock:
            if not self.paused:
                return self._put(idx, pairs)
        self._slow("update", idx, row)
        return None

    def change(self, idx: int, row: Mapping[str, Any]) -> None:
        """``update`` for the writer whose turn it is."""
        idx = _index(idx)
        if not self.contains(idx):
            raise KeyError(idx)
        pairs = self._codec.encode_partial(row)
        with self._lock:
            self._put(idx, pairs)

    def put(self, idx: int, values: Sequence[tuple[int, Any]]) -> None:
        """Overwrite (column, checked physical value) pairs of a live row; KeyError(idx) where there is none."""
        idx = _index(idx)
        if not self.contains(idx):
            raise KeyError(idx)
        pairs = sorted(dict(values).items())
        for column, value in pairs:
            if not 0 <= column < len(self._names):
                raise IndexError(f"column {column} is outside 0..{len(self._names)}")
            self._layout.check(column, value)
        with self._lock:
            self._put(idx, pairs)

    def _live(self, idx: int) -> tuple[int, int, Slab]:
        number, at = divmod(idx, self.slab_rows)
        slab = self._slabs.get(number) or self._ask(idx)
        at *= self._stride
        if slab is None or not slab.data[at + self._stride - 1]:
            raise KeyError(idx)
        return number, at, slab

    def _put(self, idx: int, pairs: Iterable[tuple[int, Any]]) -> None:
        number, at, slab = self._live(idx)
        self._idle()
        slab = self._writable(number)  # first: its heap may be another one
        self.writes += 1
        layout = self._layout
        old = layout.record.unpack_from(slab.data, at)
        fields = list(old)
        sizes, unset = dict(layout.inline), dict(layout.nullable)
        base, garbage = len(slab.heap), 0
        pieces: dict[int, bytes] = {}
        for column, value in pairs:
            if column in unset:
                fields[unset[column]] = 1 if value is None else 0
            if column in sizes:
                fields[column] = value or b""
                fields[sizes[column]] = len(fields[column])
            elif column in layout.heaped:
                pieces[column] = value or b""
            else:
                fields[column] = 0 if value is None else value
        for column, piece in pieces.items():
            fields[column] = len(piece) << 32 | base if piece else 0
            base += len(piece)
            garbage += old[column] >> 32
        if base > HEAP_LIMIT:
            raise heap_error()
        record = layout.record.pack(*fields)
        for piece in pieces.values():
            slab.heap += piece
        slab.data[at : at + self._stride] = record
        if garbage:
            self._discard(number, slab, garbage)

    def delete(self, idx: int) -> None:
        """Delete a live row; KeyError(idx) where there is none."""
        idx = _index(idx)
        with self._lock:
            if not self.paused:
                return self._remove(idx)
        self._slow("delete", idx)
        return None

    def remove(self, idx: int) -> None:
        """``delete`` for the writer whose turn it is."""
        idx = _index(idx)
        with self._lock:
            self._remove(idx)

    def _remove(self, idx: int) -> None:
        number, at, slab = self._live(idx)
        self._idle()
        garbage = self._heap_bytes(slab, at)
        slab = self._writable(number)
        slab.data[at : at + self._stride] = self._layout.dead
        slab.live -= 1
        self.live -= 1
        self.writes += 1
        if not self._give_back(number) and garbage:
            self._discard(number, slab, garbage)

    def _heap_bytes(self, slab: Slab, at: int) -> int:
        if not self._heaped:
            return 0
        values = self._unpack(slab.data, at)
        return sum(values[column] >> 32 for column in self._layout.heaped)

    def _give_back(self, number: int) -> bool:
        """Drop a slab that is full of dead rows."""
        slab = self._slabs.get(number)
        if slab is None or slab.live or (number + 1) * self.slab_rows > self.rows:
            return False
        self._own_slabs()
        del self._slabs[number]
        return True

    # -- what a transaction and a reopened file need ------------------------

    def revive(self, idx: int, values: Sequence[Any]) -> None:
        """Make a dead position hold a row of checked physical values (the undo of ``remove``).

        KeyError(idx) for a position not given out, ValueError where a row is live.
        """
        idx = _index(idx)
        values = self._checked(values)
        with self._lock:
            if not 0 <= idx < self.rows:
                raise KeyError(idx)
            if self.contains(idx):
                raise ValueError(f"row {idx} is live")
            self._idle()
            number = idx // self.slab_rows
            if number in self._slabs:
                self._writable(number)
            else:
                self._own_slabs()
            self._write(idx, values)

    def truncate(self, rows: int) -> None:
        """Take back every position at and past ``rows`` (the undo of inserts). ValueError outside 0..``rows``."""
        rows = _index(rows)
        with self._lock:
            self._idle()
            if not 0 <= rows <= self.rows:
                raise ValueError(f"cannot truncate {self.rows} rows to {rows}")
            if rows < self.rows:
                self._ask_from(rows)
            number, at = divmod(rows, self.slab_rows)
            self._own_slabs()
            for past in range(number + (at > 0), -(-self.rows // self.slab_rows)):
                gone = self._slabs.pop(past, None)
                self.live -= gone.live if gone is not None else 0
            if at and number in self._slabs:
                self._clear_from(number, at * self._stride)
            self.rows = rows
            self.writes += 1

    def _clear_from(self, number: int, at: int) -> None:
        slab = self._writable(number)
        stride = self._stride
        end = len(slab.data)
        places = [place for place in range(at, end, stride) if slab.data[place + stride - 1]]
        garbage = sum(self._heap_bytes(slab, place) for place in places)
        slab.data[at:end] = bytes(end - at)
        slab.live -= len(places)
        self.live -= len(places)
        if garbage:
            self._discard(number, slab, garbage)

    def skip(self, count: int) -> None:
        """Give out ``count`` positions that hold no row (dead rows of a reopened file). ValueError where negative."""
        count = _index(count)
        if count < 0:
            raise ValueError(f"cannot skip {count} rows")
        with self._lock:
            self._idle()
            number = self.rows // self.slab_rows
            self.rows += count
            self.writes += 1
            self._give_back(number)

    # -- copies -------------------------------------------------------------

    def _own_slabs(self) -> None:
        """Leave the directory to the views that read it."""
        newest = self._pins.newest
        if self._slabs_stamp < newest:
            self._slabs = dict(self._slabs)
            self._slabs_stamp = newest

    def _writable(self, number: int) -> Slab:
        """The slab, or where something else reads it a copy that takes its place."""
        slab = self._slabs[number]
        newest = self._pins.newest
        if slab.stamp < newest:
            if slab.stamp < self._floor:  # the other table may grow its heap
                slab = self._repacked(slab.data[:], slab.heap, slab.live, newest)
            else:
                # the heap is shared: it only grows, and the copy alone grows it
                slab = Slab(slab.data[:], slab.heap, slab.live, slab.garbage, newest)
            self._own_slabs()
            self._slabs[number] = slab
        return slab

    def _discard(self, number: int, slab: Slab, garbage: int) -> None:
        """Count dead heap bytes; rewrite a heap that is mostly dead."""
        slab.garbage += garbage
        if slab.garbage <= GARBAGE or slab.garbage * 2 <= len(slab.heap):
            return
        fresh = self._repacked(slab.data[:], slab.heap, slab.live, max(self._pins.newest, self._floor))
        self._own_slabs()
        self._slabs[number] = fresh

    def _repacked(self, data: bytearray, old: bytearray, live: int, stamp: int) -> Slab:
        """A slab of these records with a heap of its own that has nothing but their strings."""
        layout, stride, heap = self._layout, self._stride, bytearray()
        for at in range(0, len(data) if layout.heaped else 0, stride):
            fields = list(self._unpack(data, at))
            for column in layout.heaped:
                ref = fields[column]
                if ref:
                    fields[column] = ref & ~LOW | len(heap)
                    heap += old[ref & LOW : (ref & LOW) + (ref >> 32)]
            data[at : at + stride] = layout.record.pack(*fields)
        return Slab(data, heap, live, 0, stamp)


SlabTable._view = SlabView


class Lookup:
    """``find(column, value)``: the first row with a value. Here there is no step that other threads do not see into, so
    all of it goes to ``slow(column, value)``, which takes the lock.
    """

    def __init__(self, slabs: SlabTable, indexes: dict[str, Any], slow: Callable[..., Any]) -> None:
        self._slow = slow

    def find(self, column_name: str, value: Any) -> Optional[dict[str, Any]]:
        """The row as a dict, None where there is none."""
        row: Optional[dict[str, Any]] = self._slow(column_name, value)
        return row
