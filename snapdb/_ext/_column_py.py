"""What a chunk holds and how single values come out of it: the part of the pure ``Chunk`` below its scans."""

from __future__ import annotations

from array import array
from itertools import accumulate
from operator import index
from sys import getsizeof
from typing import Any, Callable, Optional, TypeVar, Union

from . import _lanes_py
from ._bits_py import bits_of, checked, popcount, to_mask, u32
from ._codes_py import (
    codes_of,
    decimal_array,
    decimal_of,
    factors,
    has_codes,
    lines_of,
    most_code,
    part_of,
)
from ._common import (
    AFFINE,
    BITMAP,
    BLOCK,
    BOOL,
    CODEC_NAMES,
    CONST,
    DATE,
    DATETIME,
    DEC,
    DICT,
    F32,
    FLOATS,
    FOR,
    LIMITS,
    PACKED,
    RAW,
    SLOPE,
    TEXTS,
    TYPECODES,
    VARLEN,
    WIDTHS,
    decode_text,
    mask_bytes,
    to_date,
    to_datetime,
)  # fmt: skip
from ._floats_py import of_bits
from ._lanes_py import as_bytes, lanes, peek, typed
from ._layout_py import Layout, entries_of, read, strings_of
from ._values_py import ColumnBuffer

__all__ = ["Column", "as_buffer", "items_of", "logical_list"]

Physical = Union[int, float, bytes, None]
Self = TypeVar("Self", bound="Column")

_MASK64 = (1 << 64) - 1
_FEW = 6  # fewer rows than one in this many are read one by one


def logical_list(code: int, values: Any) -> list[Any]:
    """Physical values, none of them null, as a user sees them."""
    if code in TEXTS:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError:
            return [decode_text(value) for value in values]
    if code == BOOL:
        return [value != 0 for value in values]
    if code == DATE:
        return [to_date(value) for value in values]
    if code == DATETIME:
        return [to_datetime(value) for value in values]
    return values.tolist() if hasattr(values, "tolist") else list(values)


def items_of(buffer: Any, start: int, stop: int) -> Any:
    """Rows of a column buffer: an array, or a list of bytes (a copy)."""
    return buffer._items[start:stop]


def as_buffer(code: int, rows: int, items: Any, nulls: int) -> ColumnBuffer:
    """A column buffer that owns ``items`` (null slots zero already); ``nulls`` is a bitmap of the null rows."""
    made = ColumnBuffer(code)
    made._items = items
    made.rows = rows
    if nulls:
        made._null_rows = to_mask(nulls, rows)
        made.null_count = popcount(nulls)
    return made


def null_bits_of(buffer: Any, start: int, stop: int) -> int:
    """A bitmap of the null rows among ``start..stop`` of a column buffer."""
    held = buffer._null_rows if buffer.null_count else None
    if held is None:
        return 0
    low = start >> 3
    bits = int.from_bytes(held[low : (stop + 7) >> 3], "little") >> (start & 7)
    return bits & ((1 << (stop - start)) - 1)


class Column:
    """A chunk's memory, and its values one by one or all at once."""

    codec: int
    code: int
    rows: int
    null_count: int
    width: int
    layout: int
    sealed: bool

    _lanes: Any = _lanes_py  # the loops over whole arrays; NumPy's twin has its own

    def __init__(self, data: Any) -> None:
        """Read sealed bytes, which are not trusted: ValueError names what is wrong. The buffer is held, not copied."""
        self._load(data, False)

    def _load(self, data: Any, trusted: bool) -> None:
        layout = read(data, trusted, self._lanes)
        self._data = memoryview(data).toreadonly()
        self.sealed = True
        self._open(layout)

    def _open(self, layout: Layout) -> None:
        """The fields of a layout, of a whole chunk or of a part."""
        self._layout = layout
        self.codec, self.code, self.rows, self.null_count = layout.codec, layout.code, layout.rows, layout.nulls
        self.width, self.layout = layout.width, layout.layout
        self._size = layout.size
        bits = int.from_bytes(layout.null_bits, "little")
        self._nulls = self._every() if layout.nulls == layout.rows else bits
        self._held: Any = None
        self._start()
        self._kept = layout.unfolded

    def _view(self, code: int, rows: int, items: Any, nulls: int) -> None:
        self._layout = Layout(RAW, code, 0, rows, 0, 0, 0, 0)
        self._data = memoryview(b"")
        self.codec, self.code, self.rows, self.width, self.layout = RAW, code, rows, 0, PACKED
        self.null_count = popcount(nulls)
        self.sealed = False
        self._size = 1
        self._nulls = nulls
        self._held = items
        self._start()

    def _start(self) -> None:
        self._codes_held: Any = None  # unpacked codes, kept once a single row was asked for
        self._entries_held: Optional[list[Any]] = None
        self._valid_held: Optional[int] = None
        self._most_held: Optional[int] = None
        self._reader_held: Optional[Callable[[int], Any]] = None
        self._kept = 0  # bytes kept besides the chunk itself
        self._whole: Any = None  # of a part: the chunk that it is a part of

    @classmethod
    def _sealed(cls: type[Self], data: Any) -> Self:
        chunk = cls.__new__(cls)
        chunk._load(data, True)
        return chunk

    @classmethod
    def view(cls: type[Self], buffer: ColumnBuffer, start: int = 0, stop: Optional[int] = None) -> Self:
        """A RAW view of rows ``start..stop`` of a buffer (``start`` a multiple of 8). Later appends do not show."""
        if stop is None:
            stop = buffer.rows
        if not 0 <= start <= stop <= buffer.rows:
            raise ValueError(f"rows {start}..{stop} are outside 0..{buffer.rows}")
        if start & 7:
            raise ValueError(f"a view starts at a multiple of 8 rows, not at {start}")
        chunk = cls.__new__(cls)
        chunk._view(buffer.code, stop - start, items_of(buffer, start, stop), null_bits_of(buffer, start, stop))
        return chunk

    @classmethod
    def adopt(cls: type[Self], other: Any) -> Self:
        """This backend's chunk over another backend's chunk, sharing its memory."""
        if type(other) is cls:
            return other
        if other.sealed:
            return cls._sealed(other.data)
        chunk = cls.__new__(cls)
        code, rows, data, offsets, nulls, _ = other.parts()
        bits = bits_of(bytes(nulls)[: mask_bytes(rows)], rows) if nulls is not None else 0
        chunk._view(code, rows, cls._adopted_items(code, data, offsets), bits)
        return chunk

    def part(self: Self, first_block: int, blocks: int) -> Self:
        """Blocks ``first_block..first_block+blocks`` as a chunk over the same memory; ValueError outside."""
        first, count = index(first_block), index(blocks)
        every = (self.rows + BLOCK - 1) // BLOCK
        if first < 0 or count <= 0 or first + count > every:
            raise ValueError(f"blocks {first}..{first + count} are outside 0..{every}")
        made = type(self).__new__(type(self))
        start, stop = first * BLOCK, min((first + count) * BLOCK, self.rows)
        if self._held is not None:
            made._view(
                self.code, stop - start, self._held[start:stop], self._nulls >> start & ((1 << stop - start) - 1)
            )
            return made
        made.sealed = False
        made._data = memoryview(b"")
        made._open(part_of(self._layout, first, count))
        made._kept = self._data.nbytes * count // every  # its share
        made._whole = self
        if self.codec == DICT:
            made._entries_held = self._entries()
        return made

    @staticmethod
    def _adopted_items(code: int, data: Any, offsets: Any) -> Any:
        if code not in VARLEN:
            return array(TYPECODES[code], memoryview(data).tobytes())
        ends = memoryview(offsets).tolist()
        whole = bytes(data)
        return [whole[start:stop] for start, stop in zip(ends, ends[1:])]

    def __repr__(self) -> str:
        return f"<Chunk {CODEC_NAMES[self.codec]} dtype={self.code} rows={self.rows} nulls={self.null_count}>"

    # -- memory ------------------------------------------------------------

    @property
    def data(self) -> memoryview:
        """Sealed: the whole chunk's bytes, read-only."""
        if not self.sealed:
            raise ValueError("a view of a buffer has no sealed bytes; encode() makes them")
        return self._data

    def parts(self) -> tuple[int, int, Any, Any, Any, int]:
        """A raw view's (code, rows, data, offsets, nulls, null_count), cut to its rows.

        ``data``, ``offsets`` and ``nulls`` are as the properties of ColumnBuffer give them.
        """
        if self.sealed:
            raise ValueError("a sealed chunk has no parts; use its data")
        if self._whole is not None:
            return self.view(self.decode()).parts()
        nulls = memoryview(self._nulls.to_bytes(mask_bytes(self.rows), "little")) if self._nulls else None
        items = self._held
        if self.code in VARLEN:
            ends = memoryview(array("Q", accumulate(map(len, items), initial=0))).toreadonly()
            return self.code, self.rows, memoryview(b"".join(items)), ends, nulls, self.null_count
        return self.code, self.rows, memoryview(items).toreadonly(), None, nulls, self.null_count

    @property
    def nbytes(self) -> int:
        """Bytes of memory held: the chunk, and what single reads made it keep."""
        if self._held is None:
            bitmaps = sum(getsizeof(bits) for bits in (self._nulls, self._valid_held) if bits)
            return self._data.nbytes + self._kept + bitmaps
        items = self._held
        size = sum(map(len, items)) + 41 * len(items) if self.code in VARLEN else len(items) * WIDTHS[self.code]
        return size + (mask_bytes(self.rows) if self._nulls else 0)

    def _every(self) -> int:
        return (1 << self.rows) - 1

    def _valid(self) -> int:
        """A bitmap of the non-null rows, as an integer."""
        held = self._valid_held
        if held is None:
            held = self._valid_held = self._every() ^ self._nulls
        return held

    def valid(self) -> bytearray:
        """Bitmap of the non-null rows."""
        return to_mask(self._valid(), self.rows)

    def _selected(self, mask: Any) -> Optional[int]:
        """The selected non-null rows, None where that is every row."""
        if mask is None:
            return self._valid() if self.null_count else None
        bits = int.from_bytes(checked(mask, self.rows), "little") & self._valid()
        return None if bits == self._every() else bits

    def _flags(self, bits: Optional[int]) -> Optional[bytes]:
        return None if bits is None else self._lanes.flags_of(bits, self.rows)

    # -- values and codes ----------------------------------------------------

    def _raw_bytes(self) -> Any:
        """RAW, fixed width: the little-endian bytes of the values."""
        return as_bytes(self._held) if self._held is not None else self._layout.values

    def _codes_bytes(self) -> bytes:
        """Packed values in their containers; of one byte for CONST and BITMAP too."""
        if self.codec == CONST:
            return bytes(self.rows)
        if self.codec == BITMAP:
            return self._lanes.flags_of(int.from_bytes(self._layout.values, "little") & self._valid(), self.rows)  # type: ignore[no-any-return]
        held = self._codes_held
        if held is not None:
            return held if self._size == 1 else as_bytes(held)
        return codes_of(self._layout, self._lanes)

    def _most(self) -> int:
        """FOR, DICT, SLOPE, DEC: no code is greater."""
        held = self._most_held
        if held is None:
            held = self._most_held = most_code(self._layout)
        return held

    def _codes(self) -> Any:
        """Packed values as something to index."""
        held = self._codes_held
        return lanes(self._size, self._codes_bytes()) if held is None else held

    def _entries(self) -> Any:
        """CONST, DICT, BITMAP: the physical value of each code."""
        held = self._entries_held
        if held is None:
            held = self._entries_held = self._make_entries()
        return held

    def _make_entries(self) -> list[Any]:
        layout = self._layout
        if self.codec == BITMAP:
            return [0, 1]
        if self.codec == DICT:
            entries = entries_of(layout)
            self._kept += 9 * len(entries) if self.code not in VARLEN else sum(map(len, entries)) + 41 * len(entries)
            return list(entries)
        if self.code in VARLEN:
            return [bytes(layout.heap)]
        if self.code in FLOATS:
            return [of_bits(layout.base & ((1 << 8 * WIDTHS[self.code]) - 1), WIDTHS[self.code])]
        return [layout.base]

    def _items(self) -> Any:
        """Every physical value: an array, or a list of bytes. Null slots are zero."""
        if self._held is not None:
            return self._held
        if self.code in VARLEN:
            return self._strings()
        letter, layout = TYPECODES[self.code], self._layout
        if self.codec == RAW:
            return typed(letter, layout.values)
        if self.codec == AFFINE:
            return self._sequence(letter)
        data = self._expanded()
        if self.null_count:
            data = self._lanes.keep(data, WIDTHS[self.code], self._lanes.flags_of(self._valid(), self.rows))
        return typed(letter, data)

    def _sequence(self, letter: str) -> Any:
        base, step, rows = self._layout.base, self._layout.step, self.rows
        return array(letter, range(base, base + step * rows, step)) if step else array(letter, [base]) * rows

    def _expanded(self) -> bytes:
        size, layout = WIDTHS[self.code], self._layout
        if self.codec == FOR:
            base, step = layout.base, layout.step
            if self._size == 1:
                top = (1 << 8 * size) - 1
                values = range(base, base + step * (self._most() + 1), step)
                table = b"".join([(value & top).to_bytes(size, "little") for value in values])
                return self._lanes.expand(self._codes_bytes(), 1, table, size)  # type: ignore[no-any-return]
            return self._lanes.scaled(self._codes_bytes(), self._size, size, step, base)  # type: ignore[no-any-return]
        if self.codec == SLOPE:
            values64 = self._lanes.lines(self._codes_bytes(), self._size, lines_of(layout), layout.step)
            return self._lanes.narrow(values64, 8, size)  # type: ignore[no-any-return]
        if self.codec == DEC:
            return decimal_array(layout, self._codes_bytes(), self._lanes)
        if self.codec == DICT:
            return self._lanes.expand(self._codes_bytes(), self._size, layout.heap, size)  # type: ignore[no-any-return]
        if self.codec == BITMAP:
            return self._codes_bytes()
        return (layout.base & ((1 << 8 * size) - 1)).to_bytes(size, "little") * self.rows

    def _strings(self) -> list[bytes]:
        layout = self._layout
        if self.codec == RAW:
            return strings_of(layout.offsets, layout.heap)
        found = list(map(self._entries().__getitem__, self._codes_bytes() if self._size == 1 else self._codes()))
        for row in self._lanes.rows_of(self._nulls, self.rows):
            found[row] = b""
        return found

    # -- single values -------------------------------------------------------

    def _reader(self, logical: bool) -> Callable[[int], Any]:
        """A function from a row (inside the chunk) to its value."""
        read_one = self._plain_reader(logical)
        if not self.null_count:
            return read_one
        nulls = self._nulls.to_bytes(mask_bytes(self.rows), "little")

        def nullable(row: int) -> Any:
            return None if nulls[row >> 3] >> (row & 7) & 1 else read_one(row)

        return nullable

    def _plain_reader(self, logical: bool) -> Callable[[int], Any]:
        convert = _converter(self.code) if logical else None
        if self.codec in (CONST, DICT, BITMAP):
            return self._entry_reader(logical)
        if self.codec == RAW:
            return self._raw_reader(convert)
        if self.codec == DEC:
            return self._decimal_reader()
        base, step = self._layout.base, self._layout.step
        if self.codec == AFFINE:
            if convert is None:
                return lambda row: base + step * row
            return lambda row: convert(base + step * row)
        if self.codec == SLOPE:
            at = self._slope_reader()
            return at if convert is None else lambda row: convert(at(row))
        codes = self._codes()
        if convert is not None:
            return lambda row: convert(base + step * codes[row])
        if step != 1:
            return lambda row: base + step * codes[row]
        return lambda row: base + codes[row]

    def _slope_reader(self) -> Callable[[int], int]:
        codes, step = self._codes(), self._layout.step
        given = [(base, (whole << 32) + fraction) for base, whole, fraction in lines_of(self._layout)]
        low, high = LIMITS[self.code]

        def at(row: int) -> int:
            base, rise = given[row >> 10]
            value: int = base + step * (((row & 1023) * rise >> 32) + codes[row])
            if low <= value <= high:
                return value
            return (value - low & _MASK64) + low  # it wraps

        return at

    def _decimal_reader(self) -> Callable[[int], float]:
        layout, codes = self._layout, self._codes()
        base, step, plain = layout.base, layout.step, layout.plain
        up, down = factors(layout)
        if self.code == F32 or layout.distinct:
            odd = typed(TYPECODES[self.code], layout.heap)

            def at(row: int) -> float:
                code = codes[row]
                return decimal_of(layout, code) if code < plain else odd[code - plain]

            return at
        if up:
            return lambda row: (base + step * codes[row]) * up * down
        return lambda row: (base + step * codes[row]) / down

    def _entry_reader(self, logical: bool) -> Callable[[int], Any]:
        entries = logical_list(self.code, self._entries()) if logical else self._entries()
        if self.codec == CONST:
            value = entries[0]
            return lambda row: value
        if self.codec == BITMAP:
            bits = self._layout.values
            return lambda row: entries[bits[row >> 3] >> (row & 7) & 1]
        codes = self._codes()
        return lambda row: entries[codes[row]]

    def _raw_reader(self, convert: Optional[Callable[[Any], Any]]) -> Callable[[int], Any]:
        if self._held is None and self.code in VARLEN:
            ends, heap = peek("I", self._layout.offsets), self._layout.heap
            if convert is None:
                return lambda row: heap[ends[row] : ends[row + 1]].tobytes()
            return lambda row: convert(heap[ends[row] : ends[row + 1]].tobytes())
        items = peek(TYPECODES[self.code], self._layout.values) if self._held is None else self._held
        if convert is None:
            return items.__getitem__  # type: ignore[no-any-return]
        return lambda row: convert(items[row])

    def _row_reader(self) -> Callable[[int], Any]:
        """A function from a row, which must be inside the chunk, to its logical value. Codes stay unpacked."""
        held = self._reader_held
        if held is None:
            self._keep_codes()
            held = self._reader_held = self._reader(True)
            if self.codec == DICT and self.code in TEXTS:  # its entries stay decoded
                entries = self._entries()
                self._kept += sum(map(len, entries)) + (getsizeof("") + 8) * len(entries)
        return held

    def _keep_codes(self) -> None:
        if has_codes(self.codec) and self._codes_held is None:
            codes = self._codes()
            self._codes_held = codes
            self._kept += self._size * self.rows

    def _keep_reader(self, logical: bool) -> Callable[[int], Any]:
        """``_reader``, for keeps: packed codes stay unpacked from now on."""
        self._keep_codes()
        inner = self._row_reader() if logical else self._reader(False)
        rows = self.rows

        def read_row(row: int) -> Any:
            if 0 <= row < rows:
                return inner(row)
            raise IndexError(f"row {row} is outside 0..{rows}")

        return read_row

    def fetch(self, row: int) -> Any:
        """The logical value of one row; IndexError outside."""
        # the first call makes a reader for this chunk's codec and puts it in the place of the method
        reader = self._keep_reader(True)
        self.__dict__["fetch"] = reader
        return reader(row)

    def physical(self, row: int) -> Physical:
        """The physical value of one row; IndexError outside."""
        reader = self._keep_reader(False)
        self.__dict__["physical"] = reader
        return reader(row)  # type: ignore[no-any-return]

    # -- many values -----------------------------------------------------------

    def decode(self) -> ColumnBuffer:
        """A new buffer with every row."""
        items = self._items()
        return as_buffer(self.code, self.rows, items[:] if items is self._held else items, self._nulls)

    def _logical_all(self) -> list[Any]:
        """Every row's logical value."""
        if self._size == 1 and self.codec in (CONST, DICT, BITMAP, FOR):
            if self.codec == FOR:
                base, step = self._layout.base, self._layout.step
                most = max(self._codes_bytes())
                entries = logical_list(self.code, list(range(base, base + step * (most + 1), step)))
            else:
                entries = logical_list(self.code, self._entries())
            found = list(map(entries.__getitem__, self._codes_bytes()))
        else:
            found = logical_list(self.code, self._items())
        for row in self._lanes.rows_of(self._nulls, self.rows):
            found[row] = None
        return found

    def _listed(self, rows: Any) -> list[int]:
        listed: list[int] = u32(rows).tolist()
        if listed and max(listed) >= self.rows:
            raise IndexError(f"row {max(listed)} is outside 0..{self.rows}")
        return listed

    def take(self, rows: Any = None) -> list[Any]:
        """Logical values of the rows named by a u32 buffer ('I'), in that order; None: of every row."""
        if rows is None:
            return self._logical_all()
        listed = self._listed(rows)
        if len(listed) * _FEW < self.rows or self._codes_held is not None:
            return list(map(self._reader(True), listed))
        return list(map(self._logical_all().__getitem__, listed))

    def gather(self, rows: Any) -> ColumnBuffer:
        """A new buffer with the rows named by a u32 buffer ('I')."""
        listed = self._listed(rows)
        items = self._items()
        picked = list(map(items.__getitem__, listed))
        nulls = 0
        if self.null_count:
            nulls = self._lanes.bitmap(bytes(map(self._lanes.flags_of(self._nulls, self.rows).__getitem__, listed)))
        made = picked if self.code in VARLEN else array(TYPECODES[self.code], picked)
        return as_buffer(self.code, len(listed), made, nulls)


def _converter(code: int) -> Optional[Callable[[Any], Any]]:
    """Physical to logical for one value, None where they are the same."""
    if code in TEXTS:
        return decode_text
    if code == BOOL:
        return bool
    if code == DATE:
        return to_date
    return to_datetime if code == DATETIME else None
