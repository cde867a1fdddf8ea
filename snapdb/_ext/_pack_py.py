"""Packed rows, packed changes and plain columns: the bytes of the log (``docs/format.md``). Part of ``_values_py``.

Bytes that are read are not trusted: every length is checked before it is used, and what is left over is an error
(ValueError).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import index as as_index
from struct import Struct
from struct import error as struct_error
from typing import Any, Callable, Optional, Union

from ._checks_py import MOMENTS, NO_MOMENT, NOT_UTF8, is_text, wrong_moment, wrong_text
from ._common import BOOL, STR, TYPECODES, VARLEN, WIDTHS, mask_bytes
from ._lanes_py import as_bytes, typed

__all__ = ["Packer", "as_raw", "pack_column", "split_column"]

Physical = Union[int, float, bytes, None]
Change = tuple[int, list[tuple[int, Physical]]]
Write = Callable[[Physical], bytes]
Read = Callable[[bytes, int, int], tuple[Physical, int]]  # (data, at, end) -> (value, the byte past it)

_MOST = 0xFFFFFFFF  # of what a u32 counts
_LAST_COLUMN = 0xFFFF
_COUNT = Struct("<I")
_COUNTS = Struct("<II")
_CHANGE = Struct("<QI")
_VALUE = Struct("<HBB")
_PLAIN = Struct("<BBHIIIQQ")
_SHORT = "a packed row ends too early"


def as_raw(data: Any) -> memoryview:
    """Contiguous memory as bytes; ValueError where it is not contiguous."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("the memory must be contiguous")
    if not view.nbytes:
        return memoryview(b"")  # an empty view cannot be cast
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


# -- one value -------------------------------------------------------------


def _writer(column: int, code: int, limit: int, nullable: bool) -> Write:
    """Bytes of a value of one column; b"" for null. A null or a length that is refused when read is not packed."""
    letter = TYPECODES.get(code)
    fixed = Struct("<" + (letter or "I")).pack

    def number(value: Physical) -> bytes:
        if value is None:
            if nullable:
                return b""
            raise ValueError(f"column {column} has no nulls")
        try:
            if code == BOOL and not 0 <= as_index(value) <= 1:  # type: ignore[arg-type]
                raise OverflowError(f"{value!r} is out of range for dtype {code}")
            return fixed(value)
        except (struct_error, OverflowError):
            if code == BOOL:
                raise
            return as_bytes(array(letter, [value]))  # type: ignore[arg-type]  # or the right exception

    def text(value: Physical) -> bytes:
        if value is None:
            if nullable:
                return b""
            raise ValueError(f"column {column} has no nulls")
        if not isinstance(value, bytes):
            raise TypeError(f"a string's physical value is bytes, not {type(value).__name__}")
        if limit and len(value) > limit:
            raise ValueError(f"column {column} holds at most {limit} bytes, not {len(value)}")
        if len(value) > _MOST:
            raise ValueError(f"a string of {len(value)} bytes is too long")
        return fixed(len(value)) + value

    return text if code in VARLEN else number


def _reader(column: int, code: int, limit: int) -> Read:
    """Reads a value of one column that is not null."""
    if code in VARLEN:
        return _text_reader(column, limit or _MOST, code == STR)
    fixed = Struct("<" + TYPECODES[code])
    load, size = fixed.unpack_from, fixed.size

    def number(data: bytes, at: int, end: int) -> tuple[Physical, int]:
        if end - at < size:
            raise ValueError(_SHORT)
        return load(data, at)[0], at + size

    def flag(data: bytes, at: int, end: int) -> tuple[Physical, int]:
        if at >= end:
            raise ValueError(_SHORT)
        if data[at] > 1:
            raise ValueError("a bool is neither 0 nor 1")
        return data[at], at + 1

    def moment(data: bytes, at: int, end: int) -> tuple[Physical, int]:
        if end - at < size:
            raise ValueError(_SHORT)
        value: int = load(data, at)[0]
        if not low <= value <= high:
            raise ValueError(f"column {column}: {NO_MOMENT}")
        return value, at + size

    if code in MOMENTS:
        low, high = MOMENTS[code]
        return moment
    return flag if code == BOOL else number


def _text_reader(column: int, most: int, is_str: bool) -> Read:
    load = _COUNT.unpack_from

    def text(data: bytes, at: int, end: int) -> tuple[Physical, int]:
        if end - at < 4:
            raise ValueError(_SHORT)
        size = load(data, at)[0]
        at += 4
        if size > end - at:
            raise ValueError(_SHORT)
        if size > most:
            raise ValueError(f"column {column} holds at most {most} bytes, not {size}")
        value = data[at : at + size]
        if is_str and not is_text(value):
            raise ValueError(f"column {column}: {NOT_UTF8}")
        return value, at + size

    return text


# -- rows and changes ------------------------------------------------------


class Packer:
    """The packed rows of one schema."""

    def __init__(self, columns: Sequence[tuple[str, int, int, bool]]) -> None:
        self._count = len(columns)
        self._head = (self._count + 7) >> 3
        self._writers = [_writer(j, code, limit, nullable) for j, (_, code, limit, nullable) in enumerate(columns)]
        self._readers = [_reader(j, code, limit) for j, (_, code, limit, _) in enumerate(columns)]
        self._required = sum(1 << j for j, spec in enumerate(columns) if not spec[3])  # bits of columns without nulls

    def pack(self, values: Iterable[Physical]) -> bytes:
        """One row; TypeError, OverflowError and ValueError for what is no checked row."""
        listed = list(values)
        if len(listed) != self._count:
            raise ValueError(f"a row has {self._count} values, got {len(listed)}")
        parts = [write(value) for write, value in zip(self._writers, listed)]
        unset = sum(1 << j for j, value in enumerate(listed) if value is None) if None in listed else 0
        return unset.to_bytes(self._head, "little") + b"".join(parts)

    def unpack(self, data: bytes, start: int, stop: int) -> list[Physical]:
        """The row that is exactly these bytes."""
        at = start + self._head
        if at > stop:
            raise ValueError(_SHORT)
        unset = int.from_bytes(data[start:at], "little")
        if unset:
            if unset >> self._count:
                raise ValueError("a packed row has a null past its last column")
            if unset & self._required:
                raise ValueError("a packed row has a null in a column that has none")
        found: list[Physical] = []
        for read in self._readers:
            if unset & 1:
                found.append(None)
            else:
                value, at = read(data, at, stop)
                found.append(value)
            unset >>= 1
        if at != stop:
            raise ValueError("a packed row has bytes behind its last column")
        return found

    def pack_changes(self, changes: Iterable[tuple[int, Iterable[tuple[int, Physical]]]]) -> bytes:
        """(row id, (column, value) pairs, columns ascending)."""
        parts = [b""]
        count = 0
        for idx, pairs in changes:
            number = as_index(idx)
            if not 0 <= number < 1 << 64:
                raise ValueError(f"{number} is no row id")
            packed = self._pack_pairs(pairs)
            parts.append(_CHANGE.pack(number, len(packed)))
            parts += packed
            count += 1
        if count > _MOST:
            raise ValueError("too many rows in one change")
        parts[0] = _COUNTS.pack(count, 0)
        return b"".join(parts)

    def _pack_pairs(self, pairs: Iterable[tuple[int, Physical]]) -> list[bytes]:
        packed = []
        last = -1
        for given, value in pairs:
            column = as_index(given)
            if not 0 <= column < self._count:
                raise IndexError(f"column {column} is outside 0..{self._count}")
            if not last < column <= _LAST_COLUMN:
                raise ValueError("the columns of a change must ascend")
            packed.append(_VALUE.pack(column, value is None, 0) + self._writers[column](value))
            last = column
        return packed

    def unpack_changes(self, data: bytes) -> list[Change]:
        """The reverse of ``pack_changes``."""
        end = len(data)
        if end < _COUNTS.size:
            raise ValueError("a packed change ends too early")
        count, zero = _COUNTS.unpack_from(data)
        if zero:
            raise ValueError("a packed change has a header that is not its own")
        at = _COUNTS.size
        found: list[Change] = []
        for _ in range(count):
            if end - at < _CHANGE.size:
                raise ValueError("a packed change ends too early")
            idx, columns = _CHANGE.unpack_from(data, at)
            pairs, at = self._unpack_pairs(data, at + _CHANGE.size, columns)
            found.append((idx, pairs))
        if at != end:
            raise ValueError("a packed change has bytes behind its last row")
        return found

    def _unpack_pairs(self, data: bytes, at: int, columns: int) -> tuple[list[tuple[int, Physical]], int]:
        end = len(data)
        if columns > self._count:
            raise ValueError("a packed change has more columns than the table")
        pairs: list[tuple[int, Physical]] = []
        last = -1
        for _ in range(columns):
            if end - at < _VALUE.size:
                raise ValueError("a packed change ends too early")
            column, null, zero = _VALUE.unpack_from(data, at)
            at += _VALUE.size
            if not last < column < self._count:
                raise ValueError("the columns of a packed change must ascend and be there")
            if zero or null > 1:
                raise ValueError("a packed change has a value that is neither null nor not")
            value: Physical = None
            if not null:
                value, at = self._readers[column](data, at, end)
            elif self._required >> column & 1:
                raise ValueError(f"column {column} has no nulls")
            pairs.append((column, value))
            last = column
        return pairs, at


# -- plain columns ---------------------------------------------------------


def pack_column(buffer: Any, start: int = 0, stop: Optional[int] = None) -> bytes:
    """Rows ``start..stop`` of a buffer as a plain column. ValueError for rows that are not there."""
    if stop is None:
        stop = buffer.rows
    if not 0 <= start <= stop <= buffer.rows:
        raise ValueError(f"rows {start}..{stop} are outside 0..{buffer.rows}")
    rows = stop - start
    if rows > _MOST:
        raise ValueError(f"a plain column has at most {_MOST} rows, not {rows}")
    unset = 0
    if buffer.null_count:
        bits = buffer._null_rows[start >> 3 : (stop + 7) >> 3]
        unset = int.from_bytes(bits, "little") >> (start & 7) & ((1 << rows) - 1)
    bitmap = unset.to_bytes(mask_bytes(rows), "little") if unset else b""
    ends = b""
    items = buffer._items[start:stop]
    if buffer.code in VARLEN:
        ends = as_bytes(array("Q", [0, *accumulate(map(len, items))]))
        values = b"".join(items)
    else:
        values = as_bytes(items)
    nulls = bin(unset).count("1")
    head = _PLAIN.pack(buffer.code, 1 if nulls else 0, 0, rows, nulls, 0, len(values), 0)
    return b"".join((head, bitmap, ends, values, bytes(-len(values) % 8)))


def split_column(data: memoryview, code: int) -> tuple[int, Any, Optional[memoryview], Optional[memoryview]]:
    """The parts of a plain column of dtype ``code``, checked: rows, values, offsets, null bitmap."""
    width = WIDTHS.get(code, 0)
    size = data.nbytes
    if size < _PLAIN.size:
        raise ValueError("a plain column ends too early")
    given, flags, zero, rows, nulls, zeros, heap, more = _PLAIN.unpack_from(data)
    if given != code:
        raise ValueError(f"a plain column of dtype {given} stands for one of dtype {code}")
    if zero or zeros or more or flags != (1 if nulls else 0) or nulls > rows:
        raise ValueError("a plain column has a header that is not its own")
    if width and heap != rows * width:
        raise ValueError(f"{rows} rows do not have {heap} bytes of values")
    ends_at = _PLAIN.size + (mask_bytes(rows) if nulls else 0)
    values_at = ends_at + (0 if width else (rows + 1) * 8)
    past = values_at + heap
    if (past + 7) // 8 * 8 != size:
        raise ValueError("a plain column is not as long as its header says")
    if any(data[past:]):
        raise ValueError("a plain column has bytes behind its values")
    values, bitmap = data[values_at:past], data[_PLAIN.size : ends_at]
    ends = None if width else _offsets(data[ends_at:values_at], heap)
    if code == BOOL and rows and max(values) > 1:
        raise ValueError("a bool is neither 0 nor 1")
    if nulls:
        _check_nulls(bitmap, rows, nulls, values, ends, width)
    if width:
        if code in MOMENTS:
            _check_values(wrong_moment(code, values), NO_MOMENT)
        return rows, typed(TYPECODES[code], values), None, bitmap if nulls else None
    if code == STR:
        _check_values(wrong_text(values, ends), NOT_UTF8)
    return rows, values, memoryview(ends), bitmap if nulls else None  # type: ignore[arg-type]


def _check_values(row: Optional[int], what: str) -> None:
    if row is not None:
        raise ValueError(f"row {row} of a plain column: {what}")


def _offsets(data: memoryview, heap: int) -> Any:
    ends = typed("Q", data)
    if ends[0] or ends[-1] != heap:
        raise ValueError("the strings of a plain column do not fill its heap")
    if any(map(int.__gt__, ends, ends[1:])):
        raise ValueError("the offsets of a plain column fall")
    return ends


def _check_nulls(bitmap: memoryview, rows: int, nulls: int, values: memoryview, ends: Any, width: int) -> None:
    """The bitmap counts right, and the null rows are empty."""
    whole = int.from_bytes(bitmap, "little")
    if bin(whole).count("1") != nulls:
        raise ValueError(f"a plain column does not have {nulls} nulls")
    if whole >> rows:
        raise ValueError("a plain column has a null past its last row")
    for row in range(rows):
        if bitmap[row >> 3] >> (row & 7) & 1:
            if any(values[row * width : (row + 1) * width]) if width else ends[row] != ends[row + 1]:
                raise ValueError("a null row has a value")
