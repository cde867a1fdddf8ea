"""Chunks: a column of a segment, encoded, and computed on while encoded. ``_codecs.pyx``'s readable twin.

``_layout_py`` knows the bytes, ``_column_py`` single values, ``_lanes_py`` whole arrays as large integers,
``_encode_py`` the choice of a codec. Here stand the scans. Inside, a selection is an integer with one bit a row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import index
from typing import Any, Optional, Union

from . import _encode_py, _mask_py, _sweep_py
from ._bits_py import bits_of, popcount, to_mask
from ._codes_py import decimal_of
from ._column_py import Column
from ._common import (
    AFFINE,
    BITMAP,
    BOOL,
    CONST,
    DEC,
    DICT,
    FLOATS,
    FOR,
    LIMITS,
    RAW,
    SLOPE,
    U8,
    U64,
    VARLEN,
    WIDTHS,
    Zone,
)  # fmt: skip
from ._floats_py import add_blocks, block_sums, bounds_of, group_sums, narrow_bounds
from ._groups_py import check_codes, group_keys, group_small, numbered
from ._lanes_py import lanes, peek
from ._layout_py import entries_of
from ._mask_py import simd_level
from ._sweep_py import Filter
from ._values_py import ColumnBuffer

__all__ = ["Chunk", "Filter", "Sweep", "distinct", "encode", "simd_level"]

Physical = Union[int, float, bytes, None]
Mask = Union[bytes, bytearray, memoryview]
Bounds = Optional[tuple[Physical, Physical]]

_CHEAP = 16  # bytes of lanes times values up to which equality tests by lanes beat a look-up of every value
_SEARCHES = 4  # strings looked for by searching the heap


class Chunk(Column):
    """An immutable column of at most 65,536 rows: sealed bytes (``docs/format.md``) or a raw view of a buffer.

    The codec's five verbs: *analyze* and *encode* are ``encode()`` below; *decode*, *select* and *fetch* stand here.
    Masks are bitmaps of ``mask_bytes(rows)`` bytes; ``mask=None`` means every row.
    """

    # -- select ----------------------------------------------------------------

    def select(self, lo: Physical, hi: Physical, lo_open: bool = False, hi_open: bool = False) -> bytearray:
        """Bitmap of the non-null rows with lo <= value <= hi (None: unbounded; open: strict).

        Integers, dates, bool: Python ints of any size. Floats: Python floats, closed, never NaN; a NaN row matches
        nothing. Strings: bytes, compared as bytes.
        """
        if self.null_count == self.rows:
            bits = 0
        elif self.code in VARLEN:
            bits = self._between_strings(lo, hi, lo_open, hi_open)
        elif self.code in FLOATS:
            bits = self._between_floats(_NEGATIVE if lo is None else lo, _POSITIVE if hi is None else hi)
        else:
            low, high = LIMITS[self.code]
            first = low if lo is None else max(low, index(lo) + bool(lo_open))  # type: ignore[arg-type]
            last = high if hi is None else min(high, index(hi) - bool(hi_open))  # type: ignore[arg-type]
            bits = self._between_ints(first, last) if first <= last else 0
        return self._answer(bits)

    def _matches(self, lo: Physical, hi: Physical, lo_open: bool, hi_open: bool) -> int:
        """How many rows ``select`` would find."""
        return _mask_py.count(self.select(lo, hi, lo_open, hi_open))

    def _answer(self, bits: int) -> bytearray:
        return to_mask(bits & self._valid() if self.null_count else bits, self.rows)

    def _between_ints(self, low: int, high: int) -> int:
        if (low, high) == LIMITS[self.code]:
            return self._valid()
        codec, base = self.codec, self._layout.base
        if codec == RAW:
            signed = not (U8 <= self.code <= U64 or self.code == BOOL)
            return self._lanes.in_range(  # type: ignore[no-any-return]
                self._raw_bytes(), WIDTHS[self.code], low, high, signed
            )
        if codec == FOR:
            step = self._layout.step
            return self._between_codes(-((base - low) // step), (high - base) // step)
        if codec == SLOPE:
            return self._lanes.in_range(  # type: ignore[no-any-return]
                self._expanded(), WIDTHS[self.code], low, high, not U8 <= self.code <= U64
            )
        if codec == AFFINE:
            return self._between_steps(low, high)
        if codec == DICT:
            return self._between_entries(low, high)
        return self._codes_in([code for code, value in enumerate(self._entries()) if low <= value <= high])

    def _between_codes(self, low: int, high: int) -> int:
        """Rows with ``low <= packed value <= high`` (any integers)."""
        top = self._most()
        low, high = max(low, 0), min(high, top)
        if low > high:
            return 0
        if low == 0 and high == top:
            return self._every()
        return self._lanes.in_range(self._codes_bytes(), self._size, low, high)  # type: ignore[no-any-return]

    def _between_entries(self, low: Any, high: Any) -> int:
        entries = self._entries()
        return self._between_codes(bisect_left(entries, low), bisect_right(entries, high) - 1)

    def _between_steps(self, low: int, high: int) -> int:
        base, step = self._layout.base, self._layout.step
        if not step:
            return self._every() if low <= base <= high else 0
        if step < 0:  # the same rows of the mirrored sequence
            base, step, low, high = -base, -step, -high, -low
        first, last = max(-((base - low) // step), 0), min((high - base) // step, self.rows - 1)
        return (1 << (last + 1)) - (1 << first) if first <= last else 0

    def _between_floats(self, low: Any, high: Any) -> int:
        size = WIDTHS[self.code]
        if self.codec == RAW:
            stored = narrow_bounds(low, high, size)
            return self._lanes.float_range(self._raw_bytes(), size, *stored) if stored else 0
        if self.codec == DEC:
            return self._between_decimals(low, high)
        return self._codes_in([code for code, value in enumerate(self._entries()) if low <= value <= high])

    def _between_decimals(self, low: float, high: float) -> int:
        layout = self._layout
        plain = layout.plain
        values = _Decimals(layout)  # they never fall
        bits = self._between_codes(bisect_left(values, low), min(bisect_right(values, high), plain) - 1)
        if layout.distinct:
            odd = [code for code, value in enumerate(entries_of(layout), plain) if low <= value <= high]
            odd = [code for code in odd if code <= self._most()]
            if odd:
                bits |= self._lanes.contains(self._codes_bytes(), self._size, odd)
        return bits

    def _between_strings(self, low: Any, high: Any, low_open: bool, high_open: bool) -> int:
        if self.codec == DICT:
            entries = self._entries()
            first = 0 if low is None else (bisect_right if low_open else bisect_left)(entries, low)
            last = len(entries) if high is None else (bisect_left if high_open else bisect_right)(entries, high)
            return self._between_codes(first, last - 1)
        if low is not None and low == high and not (low_open or high_open) and self.codec == RAW and self.sealed:
            return self._items_in({low})
        values = self._entries() if self.codec == CONST else self._items()
        flags = _string_flags(values, low, high, low_open, high_open)
        if self.codec == CONST:
            return self._every() if flags[0] else 0
        return self._lanes.bitmap(bytes(flags))  # type: ignore[no-any-return]

    def select_in(self, values: Sequence[Physical]) -> bytearray:
        """Bitmap of the non-null rows equal to one of the (physical, comparable) values.

        -0.0 equals 0.0, NaN equals nothing.
        """
        if self.code in FLOATS:
            wanted = {value for value in values if value is not None and value == value}
        elif self.code in VARLEN:
            wanted = {bytes(value) for value in values if value is not None}  # type: ignore[arg-type]
        else:
            low, high = LIMITS[self.code]
            wanted = {value for value in map(index, _given(values)) if low <= value <= high}
        if not wanted or self.null_count == self.rows:
            return self._answer(0)
        return self._answer(self._equal_to(wanted))

    def _equal_to(self, wanted: set[Any]) -> int:
        if self.codec in (CONST, DICT, BITMAP):
            return self._codes_in([code for code, value in enumerate(self._entries()) if value in wanted])
        if self.codec == FOR:
            base, step, top = self._layout.base, self._layout.step, self._most()
            places = [divmod(value - base, step) for value in wanted]
            return self._codes_in(sorted(code for code, rest in places if not rest and 0 <= code <= top))
        if self.code not in VARLEN and len(wanted) * WIDTHS[self.code] <= _CHEAP:
            bits = 0
            for value in wanted:
                bits |= self._between_floats(value, value) if self.code in FLOATS else self._between_ints(value, value)
            return bits
        return self._items_in(wanted)

    def _items_in(self, wanted: set[Any]) -> int:
        if self.code in VARLEN and self.sealed and len(wanted) <= _SEARCHES and b"" not in wanted:
            bits = self._searched(wanted)
            if bits is not None:
                return bits
        return self._lanes.bitmap(bytes(map(wanted.__contains__, self._items())))  # type: ignore[no-any-return]

    def _searched(self, wanted: set[bytes]) -> Optional[int]:
        """Rows of RAW strings by a search of the heap; None where too much of it looks alike."""
        ends, heap = peek("I", self._layout.offsets), bytes(self._layout.heap)
        bits, tries = 0, self.rows >> 6
        for value in wanted:
            size, at = len(value), heap.find(value)
            while at >= 0:
                tries -= 1
                if not tries:
                    return None
                row = bisect_right(ends, at) - 1  # the last of equal offsets: those before it are empty strings
                if ends[row] == at and ends[row + 1] - at == size:
                    bits |= 1 << row
                at = heap.find(value, at + 1)
        return bits

    def _codes_in(self, codes: list[int]) -> int:
        """Rows whose packed value is one of these (rising)."""
        if not codes:
            return 0
        if self.codec == CONST:
            return self._every()
        if self.codec == BITMAP:
            true = int.from_bytes(self._layout.values, "little")
            return self._every() if len(codes) == 2 else true if codes[0] else self._every() ^ true
        if codes[-1] - codes[0] == len(codes) - 1:
            return self._between_codes(codes[0], codes[-1])
        return self._lanes.contains(self._codes_bytes(), self._size, codes)  # type: ignore[no-any-return]

    # -- aggregates --------------------------------------------------------------

    def sum(self, mask: Optional[Mask] = None, start: Union[int, float] = 0) -> Union[int, float]:
        """``start`` plus the selected non-null values: exact for integers and bool.

        Floats by the one definition of a sum (blocks added to ``start`` in order; NaN not canonical yet).
        """
        if self.code in VARLEN:
            raise TypeError("strings have no sum")
        bits = self._selected(mask)
        if self.code in FLOATS:
            return add_blocks(start, self._block_sums(bits))
        return start + self._int_sum(bits)

    def _block_sums(self, bits: Optional[int]) -> list[float]:
        if bits == 0:
            return [0.0]  # +0.0 changes nothing, however often it is added
        return block_sums(self._items(), self._flags(bits))

    def _int_sum(self, bits: Optional[int]) -> int:
        found = self.rows if bits is None else popcount(bits)
        codec, base, step = self.codec, self._layout.base, self._layout.step
        if not found:
            return 0
        if codec == CONST:
            return found * base
        if codec == BITMAP:
            true = int.from_bytes(self._layout.values, "little")
            return popcount(true if bits is None else true & bits)
        if codec == AFFINE:
            places = self.rows * (self.rows - 1) // 2 if bits is None else sum(self._lanes.rows_of(bits, self.rows))
            return found * base + step * places
        if codec == FOR:
            return found * base + step * self._code_sum(bits)
        if codec == DICT:
            entries = self._entries()
            return sum(entries[code] * times for code, times in Counter(self._picked(self._codes(), bits)).items())
        return sum(self._picked(self._items(), bits))

    def _code_sum(self, bits: Optional[int]) -> int:
        codes: Any = self._codes_bytes()
        if bits is not None:
            codes = self._lanes.keep(codes, self._size, self._flags(bits))
        return sum(codes if self._size == 1 else lanes(self._size, codes))

    def _picked(self, values: Any, bits: Optional[int]) -> Iterable[Any]:
        """The values of the selected rows."""
        return values if bits is None else compress(values, self._flags(bits) or b"")

    def count(self, mask: Optional[Mask] = None) -> int:
        """Selected non-null rows."""
        bits = self._selected(mask)
        return self.rows if bits is None else popcount(bits)

    def bounds(self, mask: Optional[Mask] = None) -> Bounds:
        """Least and greatest selected non-null value, None where there is none.

        NaN only where all are NaN; -0.0 < 0.0.
        """
        bits = self._selected(mask)
        if bits == 0 or not self.rows:
            return None
        if self.codec in (CONST, DICT, BITMAP):
            return self._entry_bounds(bits)
        if self.codec == AFFINE:
            first = 0 if bits is None else (bits & -bits).bit_length() - 1
            last = self.rows - 1 if bits is None else bits.bit_length() - 1
            return tuple(sorted((self.physical(first), self.physical(last))))  # type: ignore[type-var, return-value]
        if self.codec == FOR:
            codes = list(self._picked(self._codes(), bits))
            base, step = self._layout.base, self._layout.step
            return base + step * min(codes), base + step * max(codes)
        picked = list(self._picked(self._items(), bits))
        return bounds_of(picked) if self.code in FLOATS else (min(picked), max(picked))

    def _entry_bounds(self, bits: Optional[int]) -> Bounds:
        entries = self._entries()
        if self.codec == CONST:
            found = [entries[0]]
        else:
            codes: Any = self._codes_bytes() if self._size == 1 else self._codes()
            found = [entries[code] for code in sorted(set(self._picked(codes, bits)))]
        return bounds_of(found) if self.code in FLOATS else (found[0], found[-1])

    # -- groups --------------------------------------------------------------------

    def group(self, mask: Optional[Mask] = None) -> tuple[Any, Any]:
        """(codes, first): two u32 buffers ('I') with each row's group number and with each group's first row.

        Rows not selected have 0xFFFFFFFF. Groups are numbered in order of first selected row; null is a group, NaN is
        one group, -0.0 is 0.0's.
        """
        bits = None if mask is None else bits_of(mask, self.rows)
        if self._size == 1 and self.codec in (CONST, DICT, BITMAP, FOR):
            small = group_small(*self._group_codes(), bits, self._nulls, self.rows)
            if small is not None:
                return small
        return group_keys(self._group_values(), bits, self._nulls, self.rows)

    def _group_codes(self) -> tuple[bytes, int]:
        """One-byte codes that are equal where the values are, and how many there are."""
        codes = self._codes_bytes()
        if self.codec == FOR:
            return codes, self._most() + 1
        entries = self._entries()
        if self.code in FLOATS:
            numbers: dict[Any, int] = {}
            same = [numbers.setdefault(_float_key(value), code) for code, value in enumerate(entries)]
            codes = codes.translate(bytes(same) + bytes(256 - len(same)))
        return codes, len(entries)

    def _group_values(self) -> list[Any]:
        items = self._items()
        if self.code not in FLOATS:
            return items if isinstance(items, list) else items.tolist()
        return [value if value == value else None for value in items]

    def group_count(self, codes: Any, groups: int) -> list[int]:
        """Non-null rows per group."""
        found = check_codes(codes, groups, self.rows)
        if self.null_count:
            found = list(compress(found, self._flags(self._valid())))  # type: ignore[arg-type]
        times = Counter(found)
        return [times[group] for group in range(groups)]

    def _group_rows(self, codes: Any, groups: int) -> list[int]:
        """Each row's group; ``groups`` for rows not selected or null."""
        found = numbered(check_codes(codes, groups, self.rows), groups)
        if self.null_count:
            return [group if flag else groups for group, flag in zip(found, self._flags(self._valid()))]  # type: ignore[arg-type]
        return found

    def group_sum(self, codes: Any, groups: int) -> list[Union[int, float]]:
        """Sum per group: integers exact; floats by one accumulator per (group, row mod 4), folded (0+1)+(2+3)."""
        if self.code in VARLEN:
            raise TypeError("strings have no sum")
        found = self._group_rows(codes, groups)
        if self.code in FLOATS:
            return group_sums(found, self._items(), groups)
        sums = [0] * (groups + 1)
        for group, value in zip(found, self._items()):
            sums[group] += value
        return sums[:groups]  # type: ignore[return-value]

    def group_bounds(self, codes: Any, groups: int) -> list[Bounds]:
        """Least and greatest non-null value per group."""
        found = self._group_rows(codes, groups)
        members: list[list[Any]] = [[] for _ in range(groups + 1)]
        if self._size == 1 and self.codec in (CONST, DICT, BITMAP, FOR):
            base, step = self._layout.base, self._layout.step
            entries = range(base, base + step * (self._most() + 1), step) if self.codec == FOR else self._entries()
            for group, code in set(zip(found, self._codes_bytes())):  # few pairs
                members[group].append(entries[code])
        else:
            for group, value in zip(found, self._items()):
                members[group].append(value)
        if self.code in FLOATS:
            return list(map(bounds_of, members[:groups]))
        return [(min(values), max(values)) if values else None for values in members[:groups]]

    def grouped(self, mask: Optional[Mask], wanted: Sequence[tuple[Any, str]]) -> tuple[Any, list[list[Any]]]:
        """Groups by this column, and answers per group: (first, one list for each (chunk, kind) of ``wanted``).

        ``first`` is as ``group`` gives it; kind is "count", "sum" or "bounds", the list as ``group_count``,
        ``group_sum`` or ``group_bounds`` of that chunk give it. ValueError for another kind.
        """
        codes, first = self.group(mask)
        groups = len(first)
        answers = []
        for chunk, kind in wanted:
            if kind not in ("count", "sum", "bounds"):
                raise ValueError(f"a group has a count, sum or bounds, no {kind!r}")
            answers.append(getattr(chunk, f"group_{kind}")(codes, groups))
        return first, answers

    def grouped_on(
        self, mask: Optional[Mask], wanted: Sequence[tuple[Any, str]], tail: Any, values: Sequence[Any]
    ) -> Optional[tuple[Any, list[list[Any]]]]:
        """``grouped`` over two chunks a column, ``tail`` and ``values`` being the second ones; None where it needs
        another path, as always here.
        """
        return None


class _Decimals(Sequence[float]):
    """The values of DEC's codes below ``plain``."""

    def __init__(self, layout: Any) -> None:
        self._layout = layout

    def __len__(self) -> int:
        return self._layout.plain  # type: ignore[no-any-return]

    def __getitem__(self, code: Any) -> Any:
        return decimal_of(self._layout, code)


_NEGATIVE, _POSITIVE = float("-inf"), float("inf")


def _given(values: Sequence[Physical]) -> Iterable[Any]:
    return (value for value in values if value is not None)


def _float_key(value: float) -> Any:
    return value if value == value else None


def _string_flags(values: Any, low: Any, high: Any, low_open: bool, high_open: bool) -> list[bool]:
    if low is None and high is None:
        return [True] * len(values)
    if low == high and not (low_open or high_open):
        return [value == low for value in values]
    flags = None
    if low is not None:
        flags = [value > low for value in values] if low_open else [value >= low for value in values]
    if high is not None:
        below = [value < high for value in values] if high_open else [value <= high for value in values]
        return below if flags is None else [a and b for a, b in zip(flags, below)]
    return flags or []


def encode(buffer: ColumnBuffer, start: int, stop: int, prefer: int = 0) -> tuple[Chunk, Zone]:
    """Seal rows ``start..stop`` of a buffer by the choice rule; returns the chunk and its zone map.

    A positive multiple of 1,024 rows, at most 65,536; ``start`` is any row. ``prefer`` is a hinted codec number.
    """
    data, zone = _encode_py.Encoder(buffer, start, stop, prefer).seal()
    return Chunk._sealed(data), zone


def distinct(buffer: ColumnBuffer, limit: int) -> int:
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""
    return _encode_py.distinct(buffer, limit)


class Sweep(_sweep_py.Sweep):
    """Segments of a columnar table as of one moment, scanned many at a call; nothing is changed."""

    _chunk = Chunk
    _masks = _mask_py
