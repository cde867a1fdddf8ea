"""What only a table in a file does: slab groups as bytes, groups that come when they are asked for, a log for inserts.

Part of the twin of ``_slab.pyx``. A block in an image (``docs/format.md``, "Slab group") has the compiled kernel form:
records without flags, then bitmaps. Here it is turned into a slab and back.
"""

from __future__ import annotations

import struct
from array import array
from itertools import chain
from operator import index as _index
from typing import Any, Callable, Optional

from ._checks_py import MOMENTS, NO_MOMENT, NOT_UTF8, is_text, wrong_moment
from ._common import BOOL, BYTES, STR, mask_bytes
from ._lanes_py import typed
from ._records import HEAP_LIMIT, LOW, Layout, Pins, Slab, bits, flags, heap_error, load, same_layout, store
from ._values_py import RowCodec

__all__ = ["Blocks", "FileTable"]

_GROUP_BYTES = 65536  # of blocks, which a group is to have at most
_MOST_ROWS = 1 << 56
_TRIES = 100  # to have a group: another thread may go back to a state of the file as soon as it is here
_HEADER = struct.Struct("<4s3I2Q")  # magic, slabs, rows of a slab, bytes of a record; of a block, of the image
_ENTRY = struct.Struct("<Q2I")  # place, live rows, heap bytes


def _whole(size: int) -> int:
    return (size + 7) & ~7


def _sum(bitmap: int) -> int:
    return bin(bitmap).count("1")


class Blocks:
    """The form of a block of some layout: slabs to blocks, and blocks, which are not trusted, to slabs."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout = layout
        self.rows = rows
        self.sides = len(layout.nullable) + 1  # flag bytes behind a record here, bitmaps behind the records there
        self.record = layout.stride - self.sides
        self.bitmap = mask_bytes(rows)
        self.live = _whole(rows * self.record)
        self.size = self.live + self.bitmap * self.sides
        self.slabs = max(1, _GROUP_BYTES // self.size)
        self.head = _HEADER.size + self.slabs * _ENTRY.size

    # -- writing -----------------------------------------------------------

    def write(self, slab: Slab) -> tuple[bytes, bytes]:
        """A slab's block and its heap without garbage."""
        stride, data = self.layout.stride, bytes(slab.data)
        cut = struct.Struct(f"{self.record}s{self.sides}x")
        records = bytearray().join(chain.from_iterable(cut.iter_unpack(data)))
        heap = self._collect(records, slab.heap)
        alive = data[stride - 1 :: stride]
        maps = [alive, *(data[at::stride] for at in range(self.record, stride - 1))]
        records += bytes(self.live - len(records))
        return b"".join([records, *(bits(unset).to_bytes(self.bitmap, "little") for unset in maps)]), heap

    def _references(self, records: Any) -> list[array[int]]:
        return [array("Q", bytes(load(records, at, self.record, 8))) for at in self._heaped()]

    def _heaped(self) -> list[int]:
        return [self.layout.places[column] for column in self.layout.heaped]

    def _collect(self, records: bytearray, heap: bytearray) -> bytes:
        """Have the references of ``records`` point to a new heap, which is in the order of rows and columns."""
        columns = self._references(records)
        pieces: list[bytearray] = []
        end = 0
        for row in range(self.rows if columns else 0):
            for column in columns:
                ref = column[row]
                if ref:
                    size = ref >> 32
                    pieces.append(heap[ref & LOW : (ref & LOW) + size])
                    column[row] = size << 32 | end
                    end += size
        for at, column in zip(self._heaped(), columns):
            store(records, at, self.record, 8, column.tobytes())
        return b"".join(pieces)

    # -- reading -----------------------------------------------------------

    def read(self, block: bytes, heap: bytes, live: int, stamp: int) -> Slab:
        """The slab of a block that nothing is wrong with."""
        maps = (self.live + at * self.bitmap for at in (*range(1, self.sides), 0))  # the live flag is the last one
        sides = [flags(block[at : at + self.bitmap], 0, self.rows) for at in maps]
        records = struct.Struct(f"{self.record}s").iter_unpack(block[: self.rows * self.record])
        behind = map(bytes, zip(*sides))
        data = bytearray().join(chain.from_iterable(zip(chain.from_iterable(records), behind)))
        return Slab(data, bytearray(heap), live, 0, stamp)

    def wrong(self, block: bytes, heap: bytes, live: int, count: int) -> Optional[str]:
        """What is wrong with a block of a table that has ``count`` positions from its first on."""
        maps = [
            int.from_bytes(block[at : at + self.bitmap], "little") for at in range(self.live, self.size, self.bitmap)
        ]
        records = block[: self.rows * self.record]
        return (
            self._wrong_bits(block, records, maps[0], live, count)
            or ("a null in a dead row" if any(nulls & ~maps[0] for nulls in maps[1:]) else None)
            or self._wrong_dead(records, maps[0])
            or self._wrong_columns(records, maps[1:])
            or self._wrong_heap(records, len(heap))
            or self._wrong_values(records, heap)
        )

    def _wrong_bits(self, block: bytes, records: bytes, alive: int, live: int, count: int) -> Optional[str]:
        if alive >> self.rows:
            return "bits past the last row"
        if not live or _sum(alive) != live:
            return "another number of live rows"
        if alive >> max(count, 0):
            return "a live row past the end of the table"
        if block[len(records) : self.live].strip(b"\0"):
            return "bytes behind the records"
        return None

    def _wrong_dead(self, records: bytes, alive: int) -> Optional[str]:
        if _sum(alive) < self.rows:
            size, zero = self.record, bytes(self.record)
            for row in range(self.rows):
                if not alive >> row & 1 and records[row * size : (row + 1) * size] != zero:
                    return "a dead row that is not zero"
        return None

    def _wrong_columns(self, records: bytes, nulls: list[int]) -> Optional[str]:
        layout, end = self.layout, 0
        unset = dict(zip((column for column, _ in layout.nullable), nulls))
        inline = dict(layout.inline)
        for column, spec in enumerate(layout.columns):
            at, width = layout.places[column], layout.widths[column]
            if self._between(records, end, at):
                return "bytes between columns"
            end = at + width
            if spec[1] == BOOL and max(records[at :: self.record]) > 1:
                return "a bool that is neither 0 nor 1"
            fields = [(at, width)]
            if spec[1] == BYTES:
                fields.append((layout.places[inline[column]], 4 if width >= 65536 else 2))
                found = self._wrong_texts(records, *fields[0], *fields[1])
                if found is not None:
                    return found
            if self._set_null(records, unset.get(column, 0), fields):
                return "a null with a value"
        return "bytes between columns" if self._between(records, end, layout.row_width) else None

    def _between(self, records: bytes, start: int, stop: int) -> bool:
        return any(records[at :: self.record].strip(b"\0") for at in range(start, stop))

    def _wrong_texts(self, records: bytes, at: int, width: int, length_at: int, length: int) -> Optional[str]:
        rest = self.record - length_at - length
        form = struct.Struct(f"<{at}x{width}s{length_at - at - width}x{'I' if length == 4 else 'H'}{rest}x")
        for value, size in form.iter_unpack(records):
            if size > width:
                return "a string longer than its column"
            if size < width and value[size:].strip(b"\0"):
                return "bytes behind a short string"
        return None

    def _set_null(self, records: bytes, nulls: int, fields: list[tuple[int, int]]) -> bool:
        """Whether a null row has a value in one of its column's fields."""
        while nulls:
            row = (nulls & -nulls).bit_length() - 1
            nulls &= nulls - 1
            for at, width in fields:
                if records[row * self.record + at : row * self.record + at + width].strip(b"\0"):
                    return True
        return False

    def _wrong_heap(self, records: bytes, size: int) -> Optional[str]:
        """Strings stand in the heap in the order of rows and columns, without a gap: none can overlap another."""
        end = 0
        columns = self._references(records)
        for ref in chain.from_iterable(zip(*columns)):
            length = ref >> 32
            if ref & LOW != (end if length else 0) or length > size - end:
                return "a string outside its place in the heap"
            end += length
        return None if end == size else "heap bytes of no row"

    def _wrong_values(self, records: bytes, heap: bytes) -> Optional[str]:
        """Dates and text that no row can have, where everything else is right (so dead rows and nulls are zero)."""
        plain = heap.isascii()
        for column, spec in enumerate(self.layout.columns):
            code, at = spec[1], self.layout.places[column]
            row, what = None, NO_MOMENT
            if code in MOMENTS:
                row = wrong_moment(code, load(records, at, self.record, self.layout.widths[column]))
            elif code == STR and not plain:
                row, what = self._wrong_reference(records, at, heap), NOT_UTF8
            if row is not None:
                return f"column {column}, row {row}: {what}"
        return None

    def _wrong_reference(self, records: bytes, at: int, heap: bytes) -> Optional[int]:
        references = typed("Q", load(records, at, self.record, 8))
        texts = (heap[ref & LOW : (ref & LOW) + (ref >> 32)] for ref in references)
        return next((row for row, text in enumerate(texts) if not is_text(text)), None)


class FileTable:
    """The part of ``SlabTable`` that is for a table in a file."""

    rows: int
    live: int
    writes: int
    slab_rows: int
    group_slabs: int
    _codec: RowCodec
    _lock: Any
    _layout: Layout
    _slabs: dict[int, Slab]
    _slabs_stamp: int
    _pins: Pins
    _floor: int

    def _make_blocks(self) -> None:
        self._blocks = Blocks(self._layout, self.slab_rows)
        self.group_slabs = self._blocks.slabs
        self._missing: Optional[bytearray] = None  # bitmap of the groups that are in the file only
        self._fault: Optional[Callable[[int], None]] = None
        self._log: Any = None
        self._busy = False  # a row is going to the log and not yet in the table: nobody else may write

    # -- groups that are not here --------------------------------------------

    def _is_missing(self, group: int) -> bool:
        bitmap = self._missing
        return bitmap is not None and group >> 3 < len(bitmap) and bool(bitmap[group >> 3] >> (group & 7) & 1)

    def _ask_group(self, group: int) -> None:
        """Have ``fault`` bring a group that is missing."""
        if self._fault is not None:
            self._fault(group)

    def _ask(self, idx: int) -> Optional[Slab]:
        """A row's slab that is not here, after its group was asked for; None where it has no live row."""
        if not 0 <= idx < self.rows:
            return None
        return self._ask_slab(idx // self.slab_rows)

    def _ask_slab(self, number: int) -> Optional[Slab]:
        group = number // self.group_slabs
        if not self._is_missing(group):
            return self._slabs.get(number)  # another thread may have brought it meanwhile
        for _ in range(_TRIES):
            self._ask_group(group)
            slab = self._slabs.get(number)
            if slab is not None or not self._is_missing(group):
                return slab
        raise _not_come(group)

    def _ask_open(self) -> None:
        """Have the group that the next row goes to."""
        while self._missing is not None:
            number = self.rows // self.slab_rows
            if number in self._slabs or not self._is_missing(number // self.group_slabs):
                return
            self._ask_slab(number)

    def _ask_from(self, position: int) -> None:
        """Have every group from that of a position on."""
        size = self.slab_rows * self.group_slabs
        group = position // size
        while self._missing is not None and group * size < self.rows:
            tries = 0
            while self._is_missing(group):
                if tries == _TRIES:
                    raise _not_come(group)
                self._ask_group(group)
                tries += 1
            group += 1

    def _idle(self) -> None:
        if self._busy:
            raise RuntimeError("a row is being written: what its log calls must not write to the table")

    def _write_log(self, log: Any, idx: int, values: list[Any]) -> None:
        """Log a row that nothing can keep from being appended."""
        self._busy = True
        try:
            log.append(1, idx.to_bytes(8, "little") + self._codec.pack(values))
        finally:
            self._busy = False

    # -- public --------------------------------------------------------------

    def attach(self, log: Any) -> None:
        """From now on ``insert`` and ``append`` write each row to this log (None: to none) as a frame."""
        self._log = log

    def _group(self, group: int) -> int:
        number = _index(group)
        if not 0 <= number < _MOST_ROWS // self.group_slabs:
            raise ValueError(f"there is no slab group {group}")
        return number

    def dump(self, group: int) -> bytes:
        """The image of a slab group, heaps rewritten without garbage. ValueError where it is not here."""
        group = self._group(group)
        blocks = self._blocks
        if self._is_missing(group):
            raise ValueError(f"slab group {group} is not loaded")
        entries: list[bytes] = []
        pieces: list[bytes] = []
        end = blocks.head
        with self._lock:
            for number in range(group * blocks.slabs, (group + 1) * blocks.slabs):
                slab = self._slabs.get(number)
                if slab is None or not slab.live:
                    entries.append(bytes(_ENTRY.size))
                    continue
                block, heap = blocks.write(slab)
                size = len(block) + len(heap)
                entries.append(_ENTRY.pack(end, slab.live, len(heap)))
                pieces.extend((block, heap, bytes(_whole(size) - size)))
                end += _whole(size)
        header = _HEADER.pack(b"SNSG", blocks.slabs, blocks.rows, blocks.record, blocks.size, end)
        return b"".join((header, *entries, *pieces))

    def load(self, group: int, data: Any) -> None:
        """Take in the image of a group, none of whose slabs are here; ``live`` and ``rows`` stay as they are.

        Bytes are not trusted: ValueError, and nothing is taken in.
        """
        group = self._group(group)
        image = memoryview(data).tobytes()
        with self._lock:
            first = group * self.group_slabs
            if not self._slabs.keys().isdisjoint(range(first, first + self.group_slabs)):
                raise ValueError(f"slab group {group} is here already")
            self._check_header(group, image)
            self._slabs.update(self._read_group(group, image))

    def _check_header(self, group: int, image: bytes) -> None:
        blocks = self._blocks
        if len(image) < blocks.head:
            raise ValueError(f"slab group {group}: {len(image)} bytes are less than a header of {blocks.head}")
        magic, *found, total = _HEADER.unpack_from(image)
        if magic != b"SNSG":
            raise ValueError(f"slab group {group}: not a slab group")
        wanted = (blocks.slabs, blocks.rows, blocks.record, blocks.size)
        if tuple(found) != wanted:
            raise ValueError(f"slab group {group}: (slabs, rows, record, block) are {tuple(found)}, not {wanted}")
        if total != len(image):
            raise ValueError(f"slab group {group}: {len(image)} bytes, not {total}")

    def _read_group(self, group: int, image: bytes) -> dict[int, Slab]:
        blocks, end = self._blocks, self._blocks.head
        slabs: dict[int, Slab] = {}
        entries = image[_HEADER.size : _HEADER.size + blocks.slabs * _ENTRY.size]
        for i, (place, live, heap_size) in enumerate(_ENTRY.iter_unpack(entries)):
            if not (place or live or heap_size):
                continue  # most of them where slabs are small
            number, what = group * blocks.slabs + i, None
            if place:
                size = blocks.size + heap_size
                if place != end or _whole(size) > len(image) - end:
                    what = "a block outside its place"
                else:
                    block, heap = image[end : end + blocks.size], image[end + blocks.size : end + size]
                    what = blocks.wrong(block, heap, live, self.rows - number * blocks.rows)
                    if what is None and image[end + size : end + _whole(size)].strip(b"\0"):
                        what = "bytes behind the heap"
                    if what is None:
                        slabs[number] = blocks.read(block, heap, live, self._slabs_stamp)
                    end += _whole(size)
            elif live or heap_size:
                what = "rows or strings without a block"
            if what is not None:
                raise ValueError(f"slab group {group}, slab {i}: {what}")
        if end != len(image):
            raise ValueError(f"slab group {group}: {len(image)} bytes, of which {end} are used")
        return slabs

    def adopt(self, rows: int, live: int, missing: Optional[bytearray], fault: Callable[[int], None]) -> None:
        """Be a table of ``rows`` positions and ``live`` rows whose groups come when they are asked for.

        ``missing`` (a bytearray, or None) has a bit for each group that ``load`` has not brought yet; ``fault(group)``
        loads it and clears the bit. ValueError where the table has rows.
        """
        rows, live = _index(rows), _index(live)
        with self._lock:
            self._idle()
            if self.rows:
                raise ValueError(f"a table of {self.rows} rows cannot be the table of a file")
            if not 0 <= live <= rows <= _MOST_ROWS:
                raise ValueError(f"{live} live rows of {rows}")
            if missing is not None and not isinstance(missing, bytearray):
                raise TypeError(f"missing must be a bytearray, not {type(missing).__name__}")
            self.rows, self.live = rows, live
            self._missing, self._fault = missing, fault
            self.writes += 1

    def absorb(self, other: FileTable) -> None:
        """Append the rows of ``other``, which was made with ``skip(rows)`` and ``extend`` and is empty afterwards.

        One step: memory first, nothing on failure. ValueError where it does not fit.
        """
        with self._lock:
            self._ask_open()
            self._idle()
            other._idle()
            number, at = divmod(self.rows, self.slab_rows)
            at *= self._layout.stride
            self._check_fit(other, number, at)
            mine, more = self._slabs.get(number), other._slabs.get(number)
            fresh = {key: slab for key, slab in other._slabs.items() if slab.live}
            if mine is not None and more is not None:
                fresh.pop(number, None)
                self._merge(mine, more, at)
            for slab in fresh.values():
                slab.stamp = self._slabs_stamp  # as old as the directory it goes to
            self._slabs.update(fresh)
            self.rows = other.rows
            self.live += other.live
            self.writes += 1
            other._slabs = {}
            other.rows = other.live = 0
            other.writes += 1

    def _check_fit(self, other: FileTable, number: int, at: int) -> None:
        if not same_layout(self._layout, other._layout) or self.slab_rows != other.slab_rows or other is self:
            raise ValueError("absorb needs another table of the same layout")
        if other._missing is not None or other._pins.holds or other._floor:
            raise ValueError("absorb needs a table that is all here and has no views")
        early = any(slab.live for key, slab in other._slabs.items() if key < number)
        if number in other._slabs:
            stride = other._layout.stride
            early = early or other._slabs[number].data[stride - 1 : at : stride].count(1) > 0
        if other.rows < self.rows or early:
            raise ValueError(f"absorb needs a table whose rows begin at {self.rows}")

    def _merge(self, slab: Slab, more: Slab, at: int) -> None:
        """Copy the records of ``more`` from byte ``at`` on to where they are in ``slab``."""
        base, stride = len(slab.heap), self._layout.stride
        if base + len(more.heap) > HEAP_LIMIT:
            raise heap_error()
        records = more.data[at:]
        for column in self._layout.heaped:
            place = self._layout.places[column]
            refs = array("Q", bytes(load(records, place, stride, 8)))
            moved = array("Q", [ref + base if ref else 0 for ref in refs])
            store(records, place, stride, 8, moved.tobytes())
        slab.heap += more.heap  # before the records that refer to it
        slab.data[at:] = records
        slab.live += more.live
        slab.garbage += more.garbage


def _not_come(group: int) -> RuntimeError:
    return RuntimeError(f"slab group {group} was asked for and did not come")
