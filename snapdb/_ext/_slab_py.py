"""The row store: slabs of fixed-width rows, liveness, heaps. The readable twin of ``_slab.pyx``.

A slab is one bytearray of records. A record is the row's bytes followed by its side area (lengths of ``bytes:N``
values, a null flag per nullable column, the live flag), so one ``unpack_from`` reads a row and one slice assignment
writes it: readers need no lock. Heaps only grow; what would move a byte under a reader (compaction, a write to a pinned
slab) makes a new slab and publishes it with one assignment.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, repeat
from operator import index as _index
from typing import Any, Callable, Optional

from ._common import (
    BINARY,
    BYTES,
    DATE,
    DATETIME,
    TYPECODES,
    WIDTHS,
    decode_text,
    mask_bytes,
    to_date,
    to_datetime,
)
from ._records import (
    GARBAGE,
    HEAP_LIMIT,
    LOW,
    Hold,
    Layout,
    Slab,
    bits,
    buffer,
    flags,
    heap_error,
    held,
    load,
    padded,
    store,
    texts,
)
from ._slabfile_py import FileTable
from ._values_py import ColumnBuffer, RowCodec

__all__ = ["SlabTable", "SlabView"]

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
        self._epoch = 0  # views taken so far
        self._active: dict[int, int] = {}  # views and iterators that still read
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
            self._slabs, self._slabs_stamp, self._epoch = other._slabs, other._slabs_stamp, other._epoch
            self._active = other._active
            self.rows, self.live = other.rows, other.live
            self.writes += 1
            other.writes += 1
            other._slabs, other._slabs_stamp, other._epoch, other._active = {}, 0, 0, {}
            other._missing = other._fault = None
            other.rows = other.live = 0

    def pin(self) -> SlabView:
        """The rows as of now."""
        with self._lock:
            self._epoch += 1
            return self._view(self._layout, self._slabs, self.slab_rows, self.rows, self.live, self._active)

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
        slab = self._writable(number)
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
        if self._active and self._slabs_stamp < self._epoch:
            self._slabs = dict(self._slabs)
            self._slabs_stamp = self._epoch

    def _writable(self, number: int) -> Slab:
        """The slab, or where a view reads it a copy that takes its place."""
        slab = self._slabs[number]
        if self._active and slab.stamp < self._epoch:
            # the heap is shared: it only grows, and the copy alone grows it
            slab = Slab(slab.data[:], slab.heap, slab.live, slab.garbage, self._epoch)
            self._own_slabs()
            self._slabs[number] = slab
        return slab

    def _discard(self, number: int, slab: Slab, garbage: int) -> None:
        """Count dead heap bytes; rewrite a heap that is mostly dead."""
        slab.garbage += garbage
        if slab.garbage <= GARBAGE or slab.garbage * 2 <= len(slab.heap):
            return
        layout, stride = self._layout, self._stride
        data, heap = slab.data[:], bytearray()
        for at in range(0, len(data), stride):
            fields = list(self._unpack(data, at))
            for column in layout.heaped:
                ref = fields[column]
                if ref:
                    fields[column] = ref & ~LOW | len(heap)
                    heap += slab.heap[ref & LOW : (ref & LOW) + (ref >> 32)]
            data[at : at + stride] = layout.record.pack(*fields)
        self._own_slabs()
        self._slabs[number] = Slab(data, heap, slab.live, 0, self._epoch)


class SlabView:
    """The rows as of the moment it was made; later writes do not show. Released by ``release()`` or when dropped."""

    _load = staticmethod(load)

    def __init__(
        self, layout: Layout, slabs: dict[int, Slab], slab_rows: int, rows: int, live: int, active: dict[int, int]
    ) -> None:
        self.rows = rows
        self.live = live
        self._layout = layout
        self._slabs: Optional[dict[int, Slab]] = slabs
        self._slab_rows = slab_rows
        self._active = active
        self._hold = Hold(active)

    def release(self) -> None:
        """Let go of the rows; harmless when done before. Iterators made earlier go on."""
        self._slabs = None
        self._hold.release()

    def _held_slabs(self) -> dict[int, Slab]:
        slabs = self._slabs
        if slabs is None:
            raise ValueError("the view was released")
        return slabs

    def _spans(self, start: int, stop: int) -> Iterator[tuple[Optional[Slab], int, int]]:
        """The slabs of positions ``start..stop`` with the rows wanted of each."""
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"positions {start}..{stop} are outside 0..{self.rows}")
        slabs, size = self._held_slabs(), self._slab_rows
        for number in range(start // size, -(-stop // size)):
            low = number * size
            yield slabs.get(number), max(start - low, 0), min(stop - low, size)

    def _block(self, start: int, stop: int) -> bytes:
        """The records of positions ``start..stop``."""
        stride = self._layout.stride
        pieces = [
            bytes((high - low) * stride) if slab is None else slab.data[low * stride : high * stride]
            for slab, low, high in self._spans(start, stop)
        ]
        return b"".join(pieces)

    def gather(self, column: int, start: int, stop: int) -> ColumnBuffer:
        """Positions ``start..stop`` of one column, dead rows as null (zero slots).

        ValueError for positions that the view does not have, and after ``release()``.
        """
        layout = self._layout
        if not 0 <= column < len(layout.names):
            raise IndexError(f"column {column} is outside 0..{len(layout.names)}")
        with Hold(self._active):  # against a release() on another thread
            return self._gather(column, start, stop)

    def _gather(self, column: int, start: int, stop: int) -> ColumnBuffer:
        layout = self._layout
        block = self._block(start, stop)
        code = layout.columns[column][1]
        items: Any
        if code in WIDTHS:
            items = array(TYPECODES[code])
            items.frombytes(self._load(block, layout.places[column], layout.stride, WIDTHS[code]))
        elif code == BYTES:
            items = self._inline_items(column, block)
        else:
            items = self._heap_items(column, start, stop)
        return buffer(code, items, self._nulls(column, block))

    def _nulls(self, column: int, block: bytes) -> int:
        stride = self._layout.stride
        alive = block[stride - 1 :: stride]
        nulls = 0
        if alive.count(1) < len(alive):
            nulls = bits(alive) ^ ((1 << len(alive)) - 1)
        field = dict(self._layout.nullable).get(column)
        if field is not None:
            unset = block[self._layout.places[field] :: stride]
            if unset.count(1):
                nulls |= bits(unset)
        return nulls

    def _inline_items(self, column: int, block: bytes) -> list[bytes]:
        layout = self._layout
        limit = layout.widths[column]
        low = layout.places[column]
        at = layout.places[dict(layout.inline)[column]]
        wide = limit >= 65536
        rest = layout.stride - at - (4 if wide else 2)
        form = struct.Struct(f"<{low}x{limit}s{at - low - limit}x{'I' if wide else 'H'}{rest}x")
        return [value[:size] for value, size in form.iter_unpack(block)]

    def _heap_items(self, column: int, start: int, stop: int) -> list[bytes]:
        layout = self._layout
        stride, low = layout.stride, layout.places[column]
        form = struct.Struct(f"<{low}xII{stride - low - 8}x")
        items: list[bytes] = []
        for slab, first, last in self._spans(start, stop):
            if slab is None:
                items.extend([b""] * (last - first))
                continue
            refs = list(form.iter_unpack(slab.data[first * stride : last * stride]))
            heap = bytes(slab.heap)
            items.extend([heap[at : at + size] for at, size in refs])
        return items

    def live_mask(self, start: int, stop: int) -> Optional[bytearray]:
        """Bitmap of the live rows of positions ``start..stop``, None where all are live."""
        stride = self._layout.stride
        with Hold(self._active):
            pieces = [
                bytes(high - low) if slab is None else slab.data[low * stride : high * stride][stride - 1 :: stride]
                for slab, low, high in self._spans(start, stop)
            ]
        alive = b"".join(pieces)
        if alive.count(1) == len(alive):
            return None
        return bytearray(bits(alive).to_bytes(mask_bytes(len(alive)), "little"))

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, row) of the live rows in order. The iterator keeps the view alive."""
        hold = Hold(self._active)
        return chain.from_iterable(self._walk(self._slab_items, self._held_slabs(), hold))

    def raw_items(self) -> Iterator[tuple[int, memoryview]]:
        """(id, read-only bytes of the fixed-width row) of the live rows in order."""
        hold = Hold(self._active)
        return chain.from_iterable(self._walk(self._slab_raw, self._held_slabs(), hold))

    def _walk(
        self, decode: Callable[[Slab, bytes], Iterator[Any]], slabs: dict[int, Slab], hold: Hold
    ) -> Iterator[Iterator[tuple[int, Any]]]:
        size, stride = self._slab_rows, self._layout.stride
        for number in sorted(slabs):
            low = number * size
            high = min(low + size, self.rows)
            if high <= low:
                break  # made after the view
            slab = slabs[number]
            block = bytes(slab.data[: (high - low) * stride])
            alive = block[stride - 1 :: stride]
            found = zip(range(low, high), decode(slab, block))
            yield found if alive.count(1) == len(alive) else compress(found, alive)
        hold.release()

    def _slab_raw(self, _slab: Slab, block: bytes) -> Iterator[memoryview]:
        stride, width = self._layout.stride, self._layout.row_width
        whole = memoryview(block)
        return (whole[at : at + width] for at in range(0, len(block), stride))

    def _slab_items(self, slab: Slab, block: bytes) -> Iterator[dict[str, Any]]:
        layout = self._layout
        fields: list[Sequence[Any]] = list(zip(*layout.record.iter_unpack(block)))
        columns: list[Sequence[Any]] = fields[: len(layout.names)]
        for column, field in layout.inline:
            columns[column] = texts([value[:size] for value, size in zip(columns[column], fields[field])])
        heap = bytes(slab.heap) if layout.heaped else b""
        for column in layout.heaped:
            values = [heap[ref & LOW : (ref & LOW) + (ref >> 32)] for ref in columns[column]]
            columns[column] = values if layout.columns[column][1] == BINARY else texts(values)
        for column, spec in enumerate(layout.columns):
            if spec[1] == DATE:
                columns[column] = list(map(to_date, columns[column]))
            elif spec[1] == DATETIME:
                columns[column] = list(map(to_datetime, columns[column]))
        for column, field in layout.nullable:
            if any(fields[field]):
                columns[column] = [None if null else value for value, null in zip(columns[column], fields[field])]
        return map(dict, map(zip, repeat(layout.names), zip(*columns)))


SlabTable._view = SlabView
