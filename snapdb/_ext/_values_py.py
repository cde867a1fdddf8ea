"""Typed column buffers and the row codec: values in, values out. The readable twin of ``_values.pyx``."""

from __future__ import annotations

import datetime as _dt
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import index as as_index
from typing import Any, Callable, Optional, Union

from . import _arrays
from ._common import (
    BINARY,
    BOOL,
    DATE,
    DATETIME,
    F32,
    FLOATS,
    INTS,
    LIMITS,
    STR,
    TEXTS,
    TYPECODES,
    VARLEN,
    WIDTHS,
    decode_text,
    logical,
    mask_bytes,
    to_date,
    to_datetime,
)  # fmt: skip
from ._pack_py import Change, Packer, as_raw, pack_column, split_column

__all__ = ["ColumnBuffer", "RowCodec", "pack_column", "records", "unpack_column"]

Physical = Union[int, float, bytes, None]
ColumnSpec = tuple[str, int, int, bool]
Convert = Callable[[Any, int], Physical]

_EPOCH_DAY = _dt.date(1970, 1, 1).toordinal()
_EPOCH = _dt.datetime(1970, 1, 1, tzinfo=_dt.timezone.utc)
_INF = float("inf")
_DISTINCT_SAMPLE = 512
_AS_BOOL = bytes([0]) + bytes([1]) * 255  # translation table: every byte but zero is true
_WORD = bytes(8)


def _held(owned: Any) -> int:
    try:
        return sys.getsizeof(owned)
    except TypeError:  # PyPy does not know
        return len(owned) * getattr(owned, "itemsize", 8)


def _exact_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"a string's physical value is bytes, not {type(value).__name__}")
    return bytes(value)


class ColumnBuffer:
    """A growable typed column: a tail, the staging of a batch, a decoded chunk.

    Append-only. Growing allocates anew and leaves the old memory to whoever still holds a view of it, so a view of the
    first n rows stays valid and unchanged for ever. A null row's slot holds zero (strings: the empty string).
    """

    # Two private attributes are for the sibling twins (_codecs_py, _tail_py), to read and never to change:
    #   _items      fixed width: array.array(TYPECODES[code]); strings: list[bytes]. At least `rows` long (`rows` is
    #               raised last). An append may put a new array in its place, so take it afresh; never make a
    #               memoryview of it (use `data`).
    #   _null_rows  a bytearray bitmap of at least mask_bytes(rows) bytes, or None while nothing has been null.
    __slots__ = ("_flat", "_items", "_null_rows", "code", "null_count", "rows")

    def __init__(self, code: int) -> None:
        if code in TYPECODES:
            self._items: Any = array(TYPECODES[code])
        elif code in VARLEN:
            self._items = []
        else:
            raise ValueError(f"unknown dtype code {code}")
        self.code = code
        self.rows = 0
        self.null_count = 0
        self._null_rows: Optional[bytearray] = None
        self._flat: Optional[tuple[int, memoryview, memoryview]] = None  # strings: (rows, data, offsets)

    def append(self, value: Physical) -> None:
        """Append one physical value that the row codec has checked (``bytes`` for strings, None for null)."""
        row = self.rows
        bits = self._null_rows
        if value is None:
            bits = self._bits(row + 1)
            bits[row >> 3] |= 1 << (row & 7)
            self.null_count += 1
            value = b"" if type(self._items) is list else 0
        elif bits is not None and row >= len(bits) << 3:
            bits += _WORD
        try:
            self._items.append(value)
        except BufferError:  # someone holds a view: leave the old memory to them
            items = self._items[:]
            items.append(value)
            self._items = items
        self.rows = row + 1

    def _bits(self, rows: int) -> bytearray:
        """The null bitmap with room for ``rows`` rows."""
        bits = self._null_rows
        if bits is None:
            bits = self._null_rows = bytearray(mask_bytes(rows))
        elif len(bits) < mask_bytes(rows):
            bits += bytes(mask_bytes(rows) - len(bits))
        return bits

    def extend(self, other: ColumnBuffer, start: int = 0, stop: Optional[int] = None) -> None:
        """Append rows ``start..stop`` of another buffer of the same dtype."""
        if stop is None:
            stop = other.rows
        if other.code != self.code:
            raise ValueError(f"cannot extend dtype {self.code} by dtype {other.code}")
        if not 0 <= start <= stop <= other.rows:
            raise ValueError(f"rows {start}..{stop} are outside 0..{other.rows}")
        count = stop - start
        if self._null_rows is not None or other.null_count:
            self._extend_nulls(other, start, count)
        self._extend_items(other._items[start:stop])
        self.rows += count

    def _extend_items(self, more: Any) -> None:
        try:
            self._items.extend(more)
        except BufferError:
            self._items = self._items + more

    def _extend_nulls(self, other: ColumnBuffer, start: int, count: int) -> None:
        bits = self._bits(self.rows + count)
        if not other.null_count or other._null_rows is None:
            return
        low = start >> 3
        fresh = int.from_bytes(other._null_rows[low : (start + count + 7) >> 3], "little") >> (start & 7)
        fresh &= (1 << count) - 1
        whole = int.from_bytes(bits, "little") | fresh << self.rows
        self._null_rows = bytearray(whole.to_bytes(len(bits), "little"))
        self.null_count += bin(fresh).count("1")

    def _null_at(self, row: int) -> int:
        bits = self._null_rows
        return 0 if bits is None else bits[row >> 3] >> (row & 7) & 1

    def fetch(self, row: int) -> Any:
        """The logical value of one row (``str``, ``date`` … as a user sees it)."""
        return logical(self.code, self.physical(row))

    def physical(self, row: int) -> Physical:
        """The physical value of one row."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside 0..{self.rows}")
        if self._null_rows is not None and self._null_at(row):
            return None
        return self._items[row]  # type: ignore[no-any-return]

    def put(self, row: int, value: Physical) -> None:
        """Overwrite one row with a checked physical value.

        Only for a buffer that nobody else has seen (patching a decoded copy).
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside 0..{self.rows}")
        text = type(self._items) is list
        if value is None:
            self._items[row] = b"" if text else 0
            if not self._null_at(row):
                self._bits(self.rows)[row >> 3] |= 1 << (row & 7)
                self.null_count += 1
        else:
            self._items[row] = _exact_bytes(value) if text else value
            if self._null_at(row):
                self._bits(self.rows)[row >> 3] &= ~(1 << (row & 7))
                self.null_count -= 1
        self._flat = None

    def patch(self, changes: Mapping[int, Physical]) -> None:
        """``put`` for many rows at once (row -> checked physical value)."""
        for row in changes:
            if not 0 <= row < self.rows:
                raise IndexError(f"row {row} is outside 0..{self.rows}")
        for row, value in changes.items():
            self.put(row, value)

    def tolist(self) -> list[Any]:
        """Every row's logical value."""
        code, rows = self.code, self.rows
        items = self._items[:rows]
        if code in TEXTS:
            try:
                found = [value.decode() for value in items]
            except UnicodeDecodeError:
                found = [decode_text(value) for value in items]
        elif code == BOOL:
            found = [value != 0 for value in items]
        elif code == DATE:
            found = [to_date(value) for value in items]
        elif code == DATETIME:
            found = [to_datetime(value) for value in items]
        else:
            found = list(items)
        if self.null_count:
            digits = bin(int.from_bytes(self._null_rows or b"", "little"))[:1:-1].ljust(rows, "0")  # row 0 first
            found = [None if null == "1" else value for value, null in zip(found, digits)]
        return found

    def _flatten(self) -> tuple[int, memoryview, memoryview]:
        flat = self._flat
        if flat is None or flat[0] != self.rows:
            items = self._items[: self.rows]
            ends = array("Q", [0])
            ends.extend(accumulate(map(len, items)))
            flat = (len(items), memoryview(b"".join(items)), memoryview(ends).toreadonly())
            self._flat = flat
        return flat

    @property
    def data(self) -> memoryview:
        """Fixed width: the typed values (of ``TYPECODES``), ``rows`` long; strings: the heap ('B'). Read-only."""
        if type(self._items) is list:
            return self._flatten()[1]
        return memoryview(self._items).toreadonly()[: self.rows]

    @property
    def offsets(self) -> Optional[memoryview]:
        """Strings: ``rows + 1`` u64 ('Q') offsets into ``data``; else None."""
        return self._flatten()[2] if type(self._items) is list else None

    @property
    def nulls(self) -> Optional[memoryview]:
        """A bitmap ('B') with a bit for each null row, in whole 64-bit words; None where there is none."""
        if not self.null_count or self._null_rows is None:
            return None
        return memoryview(bytes(self._null_rows[: mask_bytes(self.rows)]))

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, slack included."""
        total = _held(self._items)
        if type(self._items) is list:
            total += sum(map(len, self._items)) + 33 * len(self._items)
        if self._null_rows is not None:
            total += _held(self._null_rows)
        if self._flat is not None:
            total += self._flat[1].nbytes + self._flat[2].nbytes
        return total

    @staticmethod
    def from_parts(code: int, rows: int, data: Any, offsets: Any = None, nulls: Any = None) -> ColumnBuffer:
        """A buffer with a copy of typed memory: contiguous buffers as ``data``, ``offsets`` and ``nulls`` give them.

        ValueError where lengths do not fit. Offsets may start past zero (a cut of a longer column).
        """
        made = ColumnBuffer(code)
        if rows < 0:
            raise ValueError(f"rows must not be negative, got {rows}")
        raw = as_raw(data)
        if code in VARLEN:
            made._items = _cut_strings(rows, raw, offsets)
        else:
            if offsets is not None:
                raise ValueError("offsets are for strings only")
            if raw.nbytes != rows * WIDTHS[code]:
                raise ValueError(f"{rows} rows need {rows * WIDTHS[code]} bytes of data, got {raw.nbytes}")
            made._items.frombytes(raw)
            if code == BOOL and rows and max(made._items) > 1:
                raise ValueError("bool data must be 0 or 1")
        made.rows = rows
        if nulls is not None:
            made._adopt_nulls(as_raw(nulls))
        return made

    def _adopt_nulls(self, raw: memoryview) -> None:
        rows, size = self.rows, mask_bytes(self.rows)
        if raw.nbytes < size:
            raise ValueError(f"a null bitmap for {rows} rows needs {size} bytes, got {raw.nbytes}")
        whole = int.from_bytes(raw[:size], "little") & ((1 << rows) - 1)
        if not whole:
            return
        self._null_rows = bytearray(whole.to_bytes(size, "little"))
        self.null_count = bin(whole).count("1")
        empty: Any = b"" if type(self._items) is list else 0
        for row in range(rows):
            if self._null_at(row):
                self._items[row] = empty


def _cut_strings(rows: int, heap: memoryview, offsets: Any) -> list[bytes]:
    if offsets is None:
        raise ValueError("strings need offsets")
    raw = as_raw(offsets)
    if raw.nbytes != (rows + 1) * 8:
        raise ValueError(f"{rows} rows need {(rows + 1) * 8} bytes of offsets, got {raw.nbytes}")
    ends = raw.cast("Q").tolist()
    if ends[-1] > heap.nbytes or any(map(int.__gt__, ends, ends[1:])):
        raise ValueError("offsets must rise and stay inside the data")
    whole = bytes(heap)
    return [whole[low:high] for low, high in zip(ends, ends[1:])]


# -- one value -------------------------------------------------------------


def _round32(value: float) -> float:
    return array("f", [value])[0]


def _days(value: Any) -> int:
    return value.toordinal() - _EPOCH_DAY  # type: ignore[no-any-return]


def _micros(value: Any) -> int:
    since = value - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds  # type: ignore[no-any-return]


def _converter(code: int, limit: int, other: Convert) -> Convert:
    """A function (value, position) -> physical for one column: plain exact types here, ``other`` for the rest."""
    if code in (DATE, DATETIME):
        return _moment_converter(code, other)
    if code in INTS:
        low, high = LIMITS[code]

        def whole(value: Any, position: int) -> Physical:
            return value if type(value) is int and low <= value <= high else other(value, position)

        return whole
    if code == F32:

        def single(value: Any, position: int) -> Physical:
            if type(value) is float:
                rounded = _round32(value)
                if rounded - rounded == 0.0 or value - value != 0.0:  # finite, or it was not before
                    return rounded
            return other(value, position)

        return single
    if code in FLOATS:
        return lambda value, position: value if type(value) is float else other(value, position)
    if code == BOOL:
        return lambda value, position: (1 if value else 0) if type(value) is bool else other(value, position)
    return _text_converter(code, limit, other)


def _as_it_is(code: int) -> tuple[Optional[type], Any, Any]:
    """The exact type and range of values that are stored as they are: a look at them saves the call of a converter."""
    if code in (DATE, DATETIME, F32) or (code not in INTS and code not in FLOATS):
        return None, 0, 0
    return (float, -_INF, _INF) if code in FLOATS else (int, *LIMITS[code])  # NaN goes the other way, which is as good


def _moment_converter(code: int, other: Convert) -> Convert:
    if code == DATE:
        return lambda value, position: _days(value) if type(value) is _dt.date else other(value, position)

    def moment(value: Any, position: int) -> Physical:
        if type(value) is _dt.datetime and value.tzinfo is _dt.timezone.utc:
            return _micros(value)
        return other(value, position)

    return moment


def _text_converter(code: int, limit: int, other: Convert) -> Convert:
    most = limit or sys.maxsize
    from_text, from_bytes = str if code != BINARY else None, bytes if code != STR else None

    def text(value: Any, position: int) -> Physical:
        kind = type(value)
        if kind is from_text:
            try:
                stored: bytes = value.encode()
                if len(stored) <= most:
                    return stored
            except UnicodeEncodeError:
                pass
        elif kind is from_bytes and len(value) <= most:
            return value  # type: ignore[no-any-return]
        return other(value, position)

    return text


# -- a whole column --------------------------------------------------------


class _Slow(Exception):
    """A column that needs a look at every value."""


def _whole_column(code: int, limit: int, nullable: bool, values: list[Any]) -> ColumnBuffer:
    """A buffer from values that all have one plain type; ``_Slow`` where that is not so or a value does not fit."""
    kinds = set(map(type, values))
    unset: list[int] = []
    if type(None) in kinds:
        if not nullable:
            raise _Slow
        kinds.discard(type(None))
        unset = [row for row, value in enumerate(values) if value is None]
    made = ColumnBuffer(code)
    if kinds:
        made._items = _whole_items(code, limit, kinds, values, unset)
    else:
        made._items = _zeros(code, len(values))
    made.rows = len(values)
    if unset:
        bits = made._bits(made.rows)
        for row in unset:
            bits[row >> 3] |= 1 << (row & 7)
        made.null_count = len(unset)
    return made


def _zeros(code: int, rows: int) -> Any:
    return [b""] * rows if code in VARLEN else array(TYPECODES[code], bytes(rows * WIDTHS[code]))


def _whole_items(code: int, limit: int, kinds: set[type], values: list[Any], unset: list[int]) -> Any:
    if code in VARLEN:
        return _whole_text(code, limit, kinds, values)
    if len(kinds) != 1:
        raise _Slow
    kind = kinds.pop()
    if unset:
        zero = _dt.date(1970, 1, 1) if code == DATE else _EPOCH if code == DATETIME else kind()
        values = [zero if value is None else value for value in values]
    if code == BOOL:
        if kind is bool:
            return array("B", bytes(values))
    elif code == DATE:
        if kind is _dt.date:
            return array("i", map(_days, values))
    elif code == DATETIME:
        if kind is _dt.datetime and all(value.tzinfo is _dt.timezone.utc for value in values):
            return array("q", map(_micros, values))
    elif code in FLOATS:
        if kind is float:
            items = array(TYPECODES[code], values)
            if code == F32 and not _same_infinities(values, items):
                raise _Slow
            return items
    elif kind is int:
        try:
            return array(TYPECODES[code], values)
        except OverflowError:
            raise _Slow from None
    raise _Slow


def _same_infinities(values: Sequence[float], items: Sequence[float]) -> bool:
    """Whether rounding to f32 made no infinity."""
    return all(items.count(end) == values.count(end) for end in (_INF, -_INF))


def _whole_text(code: int, limit: int, kinds: set[type], values: list[Any]) -> list[bytes]:
    if kinds == {bytes} and code != STR:
        items = [value or b"" for value in values]
    elif kinds == {str} and code != BINARY:
        try:
            items = _encode_all(values)
        except UnicodeEncodeError:
            raise _Slow from None
    else:
        raise _Slow
    if limit and items and max(map(len, items)) > limit:
        raise _Slow
    return items


def _encode_all(values: list[Any]) -> list[bytes]:
    sample = values[:_DISTINCT_SAMPLE]
    if len(set(sample)) * 2 > len(sample):
        return [(value or "").encode() for value in values]
    table = {value: (value or "").encode() for value in set(values)}  # few distinct: encode each once, share the bytes
    return list(map(table.__getitem__, values))


def _from_typed(code: int, view: memoryview) -> ColumnBuffer:
    """A buffer from typed memory; ``_Slow`` where a value does not fit."""
    made = ColumnBuffer(code)
    letter = TYPECODES[code]
    if code == BOOL:
        raw = view.tobytes()
        if view.format == "?":
            raw = raw.translate(_AS_BOOL)
        elif len(view) and not 0 <= min(view) <= max(view) <= 1:
            raise _Slow
        elif view.itemsize > 1:
            raw = bytes(view.tolist())
        made._items.frombytes(raw)
    elif view.format == letter:
        made._items.frombytes(view.cast("B") if len(view) else b"")
    else:
        try:
            made._items = array(letter, view.tolist())
        except OverflowError:
            raise _Slow from None
        if code == F32 and view.format == "d" and not _same_infinities(view.tolist(), made._items):
            raise _Slow
    made.rows = len(view)
    return made


# -- rows ------------------------------------------------------------------


class RowCodec:
    """Rows (mappings) to checked physical values and back, for one schema.

    ``coerce(column, value, position)`` is the one definition of the value rules: it returns the physical value (None
    for a null in a nullable column) or raises. Kernels convert the plain exact types themselves where the result is the
    same and call it for everything else. ``refuse(row, position, partial)`` raises for a row that is not a mapping,
    misses a column that is not nullable, or has an unknown key. ``position`` is the row's index in its batch, -1 for a
    single row. A missing nullable column is null.
    """

    def __init__(
        self,
        columns: Sequence[ColumnSpec],
        coerce: Callable[[int, Any, int], Physical],
        refuse: Callable[[Any, int, bool], None],
    ) -> None:
        self.columns: tuple[ColumnSpec, ...] = tuple(columns)
        for name, code, _limit, _nullable in self.columns:
            if not isinstance(name, str):
                raise TypeError(f"a column name must be str, not {type(name).__name__}")
            if code not in TYPECODES and code not in VARLEN:
                raise ValueError(f"unknown dtype code {code}")
        self._coerce = coerce
        self._refuse = refuse
        self._converters = [
            _converter(code, limit, self._other(index, code, nullable))
            for index, (_name, code, limit, nullable) in enumerate(self.columns)
        ]
        self._plan: list[tuple[str, Any, Any, Any, Convert, bool]] = [
            (spec[0], *_as_it_is(spec[1]), convert, spec[3]) for spec, convert in zip(self.columns, self._converters)
        ]
        self._packer = Packer(self.columns)

    def _other(self, index: int, code: int, nullable: bool) -> Convert:
        coerce = self._coerce

        def other(value: Any, position: int) -> Physical:
            if value is None and nullable:
                return None
            found = coerce(index, value, position)
            return _round32(found) if code == F32 and found is not None else found  # type: ignore[arg-type]

        return other

    def _reject(self, row: Any, position: int, partial: bool) -> None:
        self._refuse(row, position, partial)
        raise KeyError("the row does not fit the schema")  # refuse() should have said more

    def _mapping(self, row: Any, position: int, partial: bool) -> dict[str, Any]:
        if type(row) is dict:
            return row
        if not isinstance(row, Mapping):
            self._reject(row, position, partial)
        return dict(row)

    def _encode(self, row: Any, position: int) -> list[Physical]:
        fields = row if type(row) is dict else self._mapping(row, position, False)
        found: list[Physical] = []
        add = found.append
        missing = 0
        for name, kind, low, high, convert, nullable in self._plan:
            try:
                value = fields[name]
            except KeyError:
                if not nullable:
                    self._reject(row, position, False)
                add(None)
                missing += 1
                continue
            add(value if type(value) is kind and low <= value <= high else convert(value, position))
        if len(found) - missing != len(fields):
            self._reject(row, position, False)
        return found

    def encode(self, row: Mapping[str, Any]) -> list[Physical]:
        """Every column's physical value, in column order. Nothing is kept."""
        return self._encode(row, -1)

    def encode_partial(self, row: Mapping[str, Any]) -> list[tuple[int, Physical]]:
        """(column index, physical value) for the keys present, in column order."""
        fields = self._mapping(row, -1, True)
        found = []
        for index, (name, kind, low, high, convert, _nullable) in enumerate(self._plan):
            if name in fields:
                value = fields[name]
                found.append((index, value if type(value) is kind and low <= value <= high else convert(value, -1)))
        if len(found) != len(fields):
            self._reject(row, -1, True)
        return found

    def encode_value(self, column: int, value: Any, position: int = -1) -> Physical:
        """One column's physical value."""
        if not 0 <= column < len(self.columns):
            raise IndexError(f"column {column} is outside 0..{len(self.columns)}")
        return self._converters[column](value, position)

    def encode_rows(self, rows: Iterable[Mapping[str, Any]]) -> list[ColumnBuffer]:
        """A whole batch, one buffer a column; raises at the first bad value with its position."""
        listed: list[Any] = []
        try:
            listed.extend(rows)
        except Exception:
            self._row_by_row(listed)  # a bad row before the break is the first error
            raise
        if set(map(type, listed)) == {dict} and set(map(len, listed)) == {len(self.columns)}:
            try:
                return [self._list_column(j, [row[spec[0]] for row in listed]) for j, spec in enumerate(self.columns)]
            except Exception:  # noqa: BLE001  whatever it is, the pass below finds the first one in row order
                return self._row_by_row(listed)
        return self._row_by_row(listed)

    def _row_by_row(self, rows: list[Any]) -> list[ColumnBuffer]:
        made = [ColumnBuffer(spec[1]) for spec in self.columns]
        for position, row in enumerate(rows):
            for buffer, value in zip(made, self._encode(row, position)):
                buffer.append(value)
        return made

    def _list_column(self, column: int, values: list[Any]) -> ColumnBuffer:
        _name, code, limit, nullable = self.columns[column]
        try:
            return _whole_column(code, limit, nullable, values)
        except _Slow:
            convert = self._converters[column]
        made = ColumnBuffer(code)
        for position, value in enumerate(values):
            made.append(convert(value, position))
        return made

    def encode_column(self, column: int, values: Any) -> ColumnBuffer:
        """A whole column from a sequence, ``array.array``, memoryview or NumPy array, under the same value rules.

        A typed one-dimensional buffer is checked as a whole (range; NaN and infinities are values) and copied;
        anything else goes value by value. TypeError for text, mappings and sets; ValueError for more dimensions.
        """
        if not 0 <= column < len(self.columns):
            raise IndexError(f"column {column} is outside 0..{len(self.columns)}")
        code, nullable = self.columns[column][1], self.columns[column][3]
        found = _arrays.moments(values, code, nullable, lambda value, place: self._coerce(column, value, place))
        if found is not None:
            return ColumnBuffer.from_parts(code, found[0], found[1], None, found[2])
        given = _arrays.source(values, code)
        if isinstance(given, list):
            return self._list_column(column, list(given) if given is values else given)
        try:
            return _from_typed(code, given)
        except _Slow:
            return self._list_column(column, given.tolist())

    def decode(self, values: Sequence[Physical]) -> dict[str, Any]:
        """A row from physical values in column order."""
        if len(values) != len(self.columns):
            raise ValueError(f"a row has {len(self.columns)} values, got {len(values)}")
        return {spec[0]: logical(spec[1], value) for spec, value in zip(self.columns, values)}

    def pack(self, values: Iterable[Physical]) -> bytes:
        """Checked physical values in column order as a packed row (``docs/format.md``)."""
        return self._packer.pack(values)

    def unpack(self, data: Any) -> list[Physical]:
        """The physical values of one packed row. Bytes are not trusted: ValueError says what is wrong."""
        row = bytes(as_raw(data))
        return self._packer.unpack(row, 0, len(row))

    def unpack_rows(self, data: Any, places: Iterable[tuple[int, int]]) -> list[ColumnBuffer]:
        """The packed rows at bytes ``start..stop`` of ``data``, one buffer a column. ValueError as for ``unpack``."""
        whole = bytes(as_raw(data))
        unpack = self._packer.unpack
        rows = []
        for start, stop in list(places):
            if not 0 <= start <= stop <= len(whole):
                raise ValueError(f"{(start, stop)} is not a place in {len(whole)} bytes")
            rows.append(unpack(whole, as_index(start), as_index(stop)))
        columns: Any = zip(*rows) if rows else [()] * len(self.columns)
        return [_buffer_of(spec[1], values) for spec, values in zip(self.columns, columns)]

    def pack_changes(self, changes: Iterable[tuple[int, Iterable[tuple[int, Physical]]]]) -> bytes:
        """(row id, (column, checked physical value) pairs, columns ascending) as a packed change of rows."""
        return self._packer.pack_changes(changes)

    def unpack_changes(self, data: Any) -> list[Change]:
        """The reverse of ``pack_changes``. ValueError as for ``unpack``."""
        return self._packer.unpack_changes(bytes(as_raw(data)))


def _buffer_of(code: int, values: Sequence[Physical]) -> ColumnBuffer:
    """A buffer of checked physical values."""
    made = ColumnBuffer(code)
    unset = [row for row, value in enumerate(values) if value is None] if None in values else []
    empty: Any = b"" if code in VARLEN else 0
    items: list[Any] = [empty if value is None else value for value in values] if unset else list(values)
    made._items = items if code in VARLEN else array(TYPECODES[code], items)
    made.rows = len(values)
    if unset:
        bits = made._bits(made.rows)
        for row in unset:
            bits[row >> 3] |= 1 << (row & 7)
        made.null_count = len(unset)
    return made


def unpack_column(data: Any, code: int) -> ColumnBuffer:
    """A plain column of dtype ``code`` as a buffer with a copy of it; ``data`` is exactly the column.

    Bytes are not trusted: ValueError says what is wrong.
    """
    ColumnBuffer(code)  # an unknown code is the first error
    rows, values, ends, bitmap = split_column(as_raw(data), code)
    return ColumnBuffer.from_parts(code, rows, values, ends, bitmap)


def records(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as dicts from equally long lists of logical values, one list a column."""
    if len(names) != len(columns):
        raise ValueError(f"{len(names)} names for {len(columns)} columns")
    if len(set(map(len, columns))) > 1:
        raise ValueError("columns differ in length")
    return [dict(zip(names, row)) for row in zip(*columns)]
