"""``_codecs_py`` with NumPy: the same chunks, bytes and answers, the loops over rows by NumPy."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from operator import index
from typing import Any, Optional, Union

import numpy as np

from . import _codecs_py, _lanes_np, _mask_np, _sweep_py
from ._bits_py import bits_of
from ._column_py import as_buffer
from ._common import (
    AFFINE,
    BITMAP,
    BOOL,
    CONST,
    DATE,
    DATETIME,
    DICT,
    F32,
    FLOATS,
    FOR,
    LIMITS,
    NAN,
    PACKED,
    RAW,
    SLOPE,
    STRINGS,
    TYPECODES,
    UNSELECTED,
    VARLEN,
    WIDTHS,
    Zone,
    logical,
    mask_bytes,
)  # fmt: skip
from ._encode_np import Encoder, exact_sum
from ._floats_np import block_sums, fold, ordered_bounds, unfold
from ._floats_py import narrow_bounds
from ._groups_py import check_groups
from ._mask_np import array32, number, spread, view32
from ._mask_py import simd_level
from ._sweep_py import Filter
from ._values_py import ColumnBuffer

__all__ = ["Chunk", "Filter", "Sweep", "distinct", "encode", "simd_level"]

Bounds = _codecs_py.Bounds

INFINITY = float("inf")
_EXACT = 1 << 20  # rows whose 32-bit halves a double adds up exactly


class Chunk(_codecs_py.Chunk):
    """An immutable column of at most 65,536 rows: sealed bytes (``docs/format.md``) or a raw view of a buffer.

    The codec's five verbs: *analyze* and *encode* are ``encode()`` below; *decode*, *select* and *fetch* stand here.
    Masks are bitmaps of ``mask_bytes(rows)`` bytes; ``mask=None`` means every row.
    """

    _lanes = _lanes_np

    # -- values ------------------------------------------------------------------

    @staticmethod
    def _adopted_items(code: int, data: Any, offsets: Any) -> Any:
        if code in VARLEN:
            return _codecs_py.Chunk._adopted_items(code, data, offsets)
        view = memoryview(data)
        letter = TYPECODES[code]
        return view if view.format == letter else view.cast("B").cast(letter) if view.nbytes else array(letter)  # type: ignore[call-overload]

    def _raw_bytes(self) -> Any:
        if self._held is None:
            return self._layout.values
        return memoryview(self._held).cast("B") if len(self._held) else b""

    def _array(self) -> Any:
        """Every physical value of a fixed-width column; null slots are zero."""
        kind = _kind(self.code)
        if self.codec == RAW:
            return np.frombuffer(self._raw_bytes(), kind) if self.rows else np.zeros(0, kind)
        if self.codec == AFFINE:
            return self._steps().astype(kind)
        data = self._expanded()
        if self.null_count:
            data = self._lanes.keep(data, WIDTHS[self.code], self._lanes.flags_of(self._valid(), self.rows))
        return np.frombuffer(data, kind)

    def _steps(self) -> Any:
        """AFFINE: the values modulo 2**64, as u64."""
        base, step = (np.array([value & (2**64 - 1)], np.uint64) for value in (self._layout.base, self._layout.step))
        return base + np.arange(self.rows, dtype=np.uint64) * step

    def _sequence(self, letter: str) -> Any:
        return array(letter, self._array().tobytes())

    def _code_array(self) -> Any:
        layout = self._layout
        if layout.width and layout.layout == PACKED and self._codes_held is None:
            return _lanes_np.unpacked(layout.values, layout.width, 8 * self._size)
        return np.frombuffer(self._codes_bytes(), _lanes_np.unsigned(self._size))

    def _chosen(self, bits: Optional[int]) -> Any:
        """A selection as an array of bool, None for every row."""
        return None if bits is None else _lanes_np.flags_array(bits, self.rows)

    def _picked_array(self, values: Any, bits: Optional[int]) -> Any:
        return values if bits is None else values[self._chosen(bits)]

    def _logical_all(self) -> list[Any]:
        return self._logical_array(None)

    def _logical_array(self, rows: Any) -> list[Any]:
        """Logical values of all rows, or of those in an array of row numbers."""
        if self.codec in (CONST, DICT, BITMAP):
            entries = np.empty(len(self._entries()), object)
            entries[:] = [logical(self.code, value) for value in self._entries()]
            codes = self._code_array()
            found = entries[codes if rows is None else codes[rows]].tolist()
        elif self.code in STRINGS or self.code in (DATE, DATETIME):
            return self._logical_slow(rows)
        else:
            values = self._array()
            found = (values if rows is None else values[rows]).astype(_shown(self.code)).tolist()
        if self.null_count:
            nulls = _lanes_np.flags_array(self._nulls, self.rows)
            for place in np.flatnonzero(nulls if rows is None else nulls[rows]).tolist():
                found[place] = None
        return found  # type: ignore[no-any-return]

    def _logical_slow(self, rows: Any) -> list[Any]:
        if rows is None:
            return super()._logical_all()
        return super().take(view32(rows))

    def _checked_rows(self, rows: Any) -> Any:
        listed = array32(rows)
        if len(listed) and int(listed.max()) >= self.rows:
            raise IndexError(f"row {int(listed.max())} is outside 0..{self.rows}")
        return listed

    def take(self, rows: Any = None) -> list[Any]:
        """Logical values of the rows named by a u32 buffer ('I'), in that order; None: of every row."""
        if rows is None:
            return self._logical_array(None)
        return self._logical_array(self._checked_rows(rows))

    def gather(self, rows: Any) -> ColumnBuffer:
        """A new buffer with the rows named by a u32 buffer ('I')."""
        if self.code in VARLEN:
            return super().gather(rows)
        listed = self._checked_rows(rows)
        items = array(TYPECODES[self.code], self._array()[listed].tobytes())
        nulls = 0
        if self.null_count and len(listed):
            nulls = _lanes_np.from_flags(_lanes_np.flags_array(self._nulls, self.rows)[listed])
        return as_buffer(self.code, len(listed), items, nulls)

    def decode(self) -> ColumnBuffer:
        """A new buffer with every row."""
        if self.code in VARLEN:
            return super().decode()
        return as_buffer(self.code, self.rows, array(TYPECODES[self.code], self._array().tobytes()), self._nulls)

    # -- select and aggregates -----------------------------------------------------

    def select(self, lo: Any, hi: Any, lo_open: bool = False, hi_open: bool = False) -> bytearray:
        """Bitmap of the non-null rows with lo <= value <= hi (None: unbounded; open: strict).

        Integers, dates, bool: Python ints of any size. Floats: Python floats, closed, never NaN; a NaN row matches
        nothing. Strings: bytes, compared as bytes.
        """
        flags = self._between_flags(lo, hi, lo_open, hi_open)
        return super().select(lo, hi, lo_open, hi_open) if flags is None else self._as_mask(flags)

    def _matches(self, lo: Any, hi: Any, lo_open: bool, hi_open: bool) -> int:
        flags = None if self.null_count else self._between_flags(lo, hi, lo_open, hi_open)
        if flags is None:
            return super()._matches(lo, hi, lo_open, hi_open)
        return int(np.count_nonzero(flags[: self.rows]))

    def _between_flags(self, lo: Any, hi: Any, lo_open: bool, hi_open: bool) -> Any:
        """``select`` as an array of bool before nulls are taken out; None where that is better done as an integer."""
        flags = None
        if self.null_count < self.rows:
            if self.code in FLOATS:
                flags = self._floats_between(-INFINITY if lo is None else lo, INFINITY if hi is None else hi)
            elif self.code in VARLEN:
                if self.codec == DICT:
                    entries = self._entries()
                    first = 0 if lo is None else (bisect_right if lo_open else bisect_left)(entries, lo)
                    last = len(entries) if hi is None else (bisect_left if hi_open else bisect_right)(entries, hi)
                    flags = self._flags_between(first, last - 1)
            else:
                low, high = LIMITS[self.code]
                first = low if lo is None else max(low, index(lo) + bool(lo_open))
                last = high if hi is None else min(high, index(hi) - bool(hi_open))
                flags = self._ints_between(first, last) if first <= last else None
        return flags

    def _ints_between(self, low: int, high: int) -> Any:
        """The rows with such a value as an array of bool; None where that is better done as an integer."""
        if self.codec == FOR:
            base, step = self._layout.base, self._layout.step
            return self._flags_between(-((base - low) // step), (high - base) // step)
        if self.codec == DICT:
            entries = self._entries()
            return self._flags_between(bisect_left(entries, low), bisect_right(entries, high) - 1)
        if self.codec not in (RAW, SLOPE):
            return None
        least, most = LIMITS[self.code]
        if low <= least and high >= most:
            return None
        return _between(self._array(), low, high, least, most)

    def _flags_between(self, low: int, high: int) -> Any:
        """Rows with ``low <= packed value <= high`` (any integers)."""
        top = self._most()
        low, high = max(low, 0), min(high, top)
        if low > high or (low == 0 and high == top):
            return None if low == 0 and high == top else np.zeros(self.rows, np.bool_)
        return _between(self._code_array(), low, high, 0, top)

    def _floats_between(self, low: float, high: float) -> Any:
        if self.codec != RAW:
            return None
        values = self._array()
        if self.code == F32:
            stored = narrow_bounds(low, high, 4)
            if stored is None:
                return None
            low, high = np.array(stored, np.uint32).view(np.float32)
        if high == INFINITY:
            return values >= low  # a NaN is not
        if low == -INFINITY:
            return values <= high
        return (values >= low) & (values <= high)

    def _as_mask(self, flags: Any) -> bytearray:
        """An array of bool, cut to the non-null rows, as a bitmap."""
        found = np.packbits(flags, bitorder="little")
        if self.null_count:
            valid = np.frombuffer(self._valid().to_bytes(mask_bytes(self.rows), "little"), np.uint8)
            found &= valid[: len(found)]
        made = bytearray(found)
        made.extend(bytes(mask_bytes(self.rows) - len(made)))
        return made

    def _items_in(self, wanted: set[Any]) -> int:
        if self.code in VARLEN:
            return super()._items_in(wanted)
        values = self._array()
        kind = np.float64 if self.code in FLOATS else values.dtype
        with np.errstate(invalid="ignore"):  # a signaling NaN
            wide = values.astype(kind)
        return _lanes_np.from_flags(np.isin(wide, np.array(list(wanted), kind)))

    def _block_sums(self, bits: Optional[int]) -> list[float]:
        return [0.0] if bits == 0 else block_sums(self._array(), self._chosen(bits))

    def _code_sum(self, bits: Optional[int]) -> int:
        return exact_sum(self._picked_array(self._code_array(), bits))

    def _int_sum(self, bits: Optional[int]) -> int:
        if bits != 0 and self.codec in (RAW, DICT, SLOPE):
            return exact_sum(self._picked_array(self._array(), bits))
        if bits is not None and self.codec == AFFINE:
            places = np.flatnonzero(self._chosen(bits))
            return len(places) * self._layout.base + self._layout.step * int(places.sum())
        return super()._int_sum(bits)

    def bounds(self, mask: Any = None) -> Bounds:
        """Least and greatest selected non-null value, None where there is none.

        NaN only where all are NaN; -0.0 < 0.0.
        """
        in_order = self.codec == DICT and self.code not in FLOATS
        if self.code in VARLEN or in_order or self.codec in (CONST, BITMAP, AFFINE):
            return super().bounds(mask)
        bits = self._selected(mask)
        if bits == 0 or not self.rows:
            return None
        if self.codec == FOR:
            found = self._picked_array(self._code_array(), bits)
            base, step = self._layout.base, self._layout.step
            return base + step * int(found.min()), base + step * int(found.max())
        found = self._picked_array(self._array(), bits)
        if self.code not in FLOATS:
            return int(found.min()), int(found.max())
        return ordered_bounds(found[found == found]) or (NAN, NAN)

    def _entry_bounds(self, bits: Optional[int]) -> Bounds:
        if self.codec != DICT:
            return super()._entry_bounds(bits)
        entries = self._entries()
        codes = self._picked_array(self._code_array(), bits)
        return entries[int(codes.min())], entries[int(codes.max())]

    # -- groups --------------------------------------------------------------------

    def group(self, mask: Any = None) -> tuple[Any, Any]:
        """(codes, first): two u32 buffers ('I') with each row's group number and with each group's first row.

        Rows not selected have 0xFFFFFFFF. Groups are numbered in order of first selected row; null is a group, NaN is
        one group, -0.0 is 0.0's.
        """
        if self.code in VARLEN and self.codec == RAW:
            return super().group(mask)
        keys, span = self._group_array()
        if self.null_count:
            keys = np.where(_lanes_np.flags_array(self._nulls, self.rows), np.array([span], keys.dtype), keys)
            span += 1
        rows = None
        if mask is not None:
            rows = np.flatnonzero(_lanes_np.flags_array(bits_of(mask, self.rows), self.rows))
            keys = keys[rows]
        return spread(*number(keys, span), rows, self.rows)

    def _group_array(self) -> tuple[Any, int]:
        """Keys below a span that are equal where the values are; u64, or u32 where they are codes."""
        if self.codec in (CONST, BITMAP) or (self.codec in (DICT, FOR) and self._size <= 2):
            codes = self._code_array().astype(np.uint32)
            if self.codec == FOR:
                return codes, self._most() + 1
            entries = self._entries()
            if self.code in FLOATS:
                numbers: dict[Any, int] = {}
                same = [numbers.setdefault(value if value == value else None, i) for i, value in enumerate(entries)]
                codes = np.array(same, np.uint32)[codes]
            return codes, len(entries)
        values = self._array()
        if self.code in FLOATS:
            # one key for both zeros and one for every NaN
            with np.errstate(invalid="ignore"):  # a signaling NaN
                values = np.where(values == values, values + 0.0, np.array([NAN], values.dtype)).astype(values.dtype)
            return self._ranked(values.view(np.uint32 if values.dtype.itemsize == 4 else np.uint64))
        return self._ranked(values)

    def _ranked(self, values: Any) -> tuple[Any, int]:
        found, inverse = np.unique(values, return_inverse=True)
        return inverse.reshape(-1).astype(np.uint32), len(found)

    def _group_array_of(self, codes: Any, groups: int) -> Any:
        """Each row's group as an array; ``groups`` for rows not selected or null."""
        check_groups(groups)
        found = array32(codes)
        if len(found) != self.rows:
            raise ValueError(f"{len(found)} group codes for {self.rows} rows")
        wrong = found[(found >= groups) & (found != UNSELECTED)] if self.rows else found
        if len(wrong):
            raise ValueError(f"group {int(wrong[0])} is outside 0..{groups}")
        found = np.minimum(found, np.uint32(groups)).astype(np.int64)
        if self.null_count:
            found[_lanes_np.flags_array(self._nulls, self.rows)] = groups
        return found

    def group_count(self, codes: Any, groups: int) -> list[int]:
        """Non-null rows per group."""
        return np.bincount(self._group_array_of(codes, groups), minlength=groups + 1)[:groups].tolist()  # type: ignore[no-any-return]

    def group_sum(self, codes: Any, groups: int) -> list[Union[int, float]]:
        """Sum per group: integers exact; floats by one accumulator per (group, row mod 4), folded (0+1)+(2+3)."""
        if self.code in VARLEN:
            raise TypeError("strings have no sum")
        found, values = self._group_array_of(codes, groups), self._array()
        if self.code in FLOATS:
            with np.errstate(invalid="ignore", over="ignore"):
                lanes = found * 4 + (np.arange(self.rows) & 3)
                added = np.bincount(lanes, values.astype(np.float64), 4 * groups + 4)  # in order; integers where empty
                sums = added.astype(np.float64, copy=False).reshape(-1, 4)
                folded = (sums[:, 0] + sums[:, 1]) + (sums[:, 2] + sums[:, 3])
            return folded[:groups].tolist()  # type: ignore[no-any-return]
        if values.dtype.itemsize < 8:
            return _exact_sums(found, values, groups)  # type: ignore[return-value]
        low = _exact_sums(found, values & values.dtype.type(0xFFFFFFFF), groups)
        high = _exact_sums(found, values >> values.dtype.type(32), groups)
        return [(top << 32) + rest for top, rest in zip(high, low)]

    def group_bounds(self, codes: Any, groups: int) -> list[Bounds]:
        """Least and greatest non-null value per group."""
        coded = self.codec == DICT and self.code not in FLOATS  # codes are in the order of the values
        if self.code in VARLEN and not coded:
            return super().group_bounds(codes, groups)
        found = self._group_array_of(codes, groups)
        values = self._code_array() if coded else self._array()
        bounds: list[Bounds] = [None] * groups
        if self.code in FLOATS:
            with np.errstate(invalid="ignore"):  # a signaling NaN
                wide = values.astype(np.float64)
            real = wide == wide
            for group in np.unique(found[~real]).tolist():
                if group < groups:
                    bounds[group] = NAN, NAN
            found, keys = found[real], fold(wide[real].view(np.uint64))
        else:
            keys = values
        chosen = found < groups
        found, keys = found[chosen], keys[chosen]
        if not len(found):
            return bounds
        order = np.argsort(found, kind="stable")
        found, keys = found[order], keys[order]
        starts = np.flatnonzero(np.concatenate(([True], found[1:] != found[:-1])))
        lows, highs = np.minimum.reduceat(keys, starts).tolist(), np.maximum.reduceat(keys, starts).tolist()
        for group, low, high in zip(found[starts].tolist(), lows, highs):
            bounds[group] = (unfold(low, 8), unfold(high, 8)) if self.code in FLOATS else (low, high)
        if coded:
            entries = self._entries()
            return [None if pair is None else (entries[pair[0]], entries[pair[1]]) for pair in bounds]
        return bounds


def _between(values: Any, low: int, high: int, least: int, most: int) -> Any:
    """``low <= value <= high`` for values from ``least`` to ``most``; no question that is answered already."""
    kind = values.dtype.type
    if low == high:
        return values == kind(low)
    if low <= least:
        return values <= kind(high)
    if high >= most:
        return values >= kind(low)
    return (values >= kind(low)) & (values <= kind(high))


def _kind(code: int) -> Any:
    """The little-endian dtype of a column's values."""
    return np.dtype(TYPECODES[code]).newbyteorder("<")


def _shown(code: int) -> Any:
    """The dtype whose ``tolist`` gives logical values."""
    return np.dtype(np.bool_) if code == BOOL else _kind(code)


def _exact_sums(groups_of: Any, values: Any, groups: int) -> list[int]:
    """Sums per group of integers of at most 32 bits: so few at a time that doubles are exact."""
    sums = [0] * groups
    for start in range(0, len(values), _EXACT):
        part = np.bincount(groups_of[start : start + _EXACT], values[start : start + _EXACT], groups + 1)
        sums = [total + int(more) for total, more in zip(sums, part[:groups].tolist())]
    return sums


def encode(buffer: ColumnBuffer, start: int, stop: int, prefer: int = 0) -> tuple[Chunk, Zone]:
    """Seal rows ``start..stop`` of a buffer by the choice rule; returns the chunk and its zone map.

    A positive multiple of 1,024 rows, at most 65,536; ``start`` is any row. ``prefer`` is a hinted codec number.
    """
    data, zone = Encoder(buffer, start, stop, prefer).seal()
    return Chunk._sealed(data), zone


def distinct(buffer: ColumnBuffer, limit: int) -> int:
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""
    return _codecs_py.distinct(buffer, limit)


class Sweep(_sweep_py.Sweep):
    """Segments of a columnar table as of one moment, scanned many at a call; nothing is changed."""

    _chunk = Chunk
    _masks = _mask_np
