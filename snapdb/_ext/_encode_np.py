"""``_encode_py`` with NumPy: the same choice and the same bytes, the loops over rows by NumPy."""

from __future__ import annotations

from math import gcd
from typing import Any, Optional

import numpy as np

from . import _lanes_np
from ._common import BLOCK, FLOATS, NAN, VARLEN, WIDTHS
from ._decimals_np import find
from ._decimals_py import Decimals
from ._encode_py import Encoder as _Encoder
from ._encode_py import line_bytes
from ._floats_np import block_sums, fold, ordered_bounds
from ._floats_py import add_blocks
from ._streams_np import Stream
from ._streams_py import Codes, lane_bytes

__all__ = ["Encoder", "exact_sum"]

_APART = 33  # rows of a block that the gate of lines looks at
_MASK64 = (1 << 64) - 1


class Encoder(_Encoder):
    """Seals rows ``start..stop`` of a buffer."""

    _lanes = _lanes_np
    _stream = Stream

    def __init__(self, buffer: Any, start: int, stop: int, prefer: int) -> None:
        super().__init__(buffer, start, stop, prefer)
        self.array: Any = None if self.code in VARLEN else np.frombuffer(self.items, self.items.typecode)

    def present_array(self) -> Any:
        return self.array if self.flags is None else self.array[np.frombuffer(self.flags, np.bool_)]

    def int_stats(self) -> tuple[int, int, int]:
        """(least, greatest, sum) of the non-null integers."""
        found = self.present_array()
        return int(found.min()), int(found.max()), exact_sum(found)

    def is_sequence(self, step: int) -> bool:
        """Whether every integer is the one before it plus ``step``."""
        items, size = self.array, WIDTHS[self.code]
        if not step or int(items[-1]) != int(items[0]) + step * (self.rows - 1):
            return False
        if int(items[2]) - int(items[1]) != step:
            return False
        # differences modulo 2**64 are equal, and the last value has not wrapped: then no value between has
        wide = items.astype(np.int64 if items.dtype.kind == "i" else np.uint64).view(np.uint64)
        return size > 0 and bool((wide[1:] - wide[:-1] == np.uint64(step & (2**64 - 1))).all())

    def float_stats(self) -> tuple[float, float, int, float]:
        """(least, greatest, NaNs, sum) of the non-null floats."""
        found = self.present_array()
        total = add_blocks(0.0, block_sums(self.array, None))
        real = found[found == found]
        nans = len(found) - len(real)
        low, high = ordered_bounds(real) or (NAN, NAN)
        return low, high, nans, total

    def bits_array(self) -> Any:
        if self.code not in FLOATS:
            return self.array
        return self.array.view(np.uint32 if WIDTHS[self.code] == 4 else np.uint64)

    def one_value(self) -> bool:
        """Whether all non-null values are bit-equal."""
        bits = self.bits_array()
        if self.flags is not None:
            bits = bits[np.frombuffer(self.flags, np.bool_)]
        return bool((bits == bits[0]).all())

    def repeats(self) -> bool:
        """Whether the sample has few distinct values."""
        places = np.arange(256) * self.rows // 256
        return len(np.unique(self.bits_array()[places])) <= 128

    def entries(self, limit: int) -> Optional[list[Any]]:
        """The distinct non-null values by ``bits``, in dictionary order; None where they are more than ``limit``."""
        if self.code in VARLEN:
            return super().entries(limit)
        bits = self.bits_array()
        if self.flags is not None:
            bits = bits[np.frombuffer(self.flags, np.bool_)]
        found = np.unique(bits)
        if len(found) > limit:
            return None
        if self.code in FLOATS:
            found = found[np.argsort(fold(found))]
        return found.tolist()  # type: ignore[no-any-return]

    def coded(self, entries: list[Any]) -> Codes:
        """Every row's code; null rows have 0."""
        if self.code in VARLEN:
            return super().coded(entries)
        bits = self.bits_array()
        known = np.array(entries, bits.dtype)
        if self.code in FLOATS:
            known, bits = fold(known), fold(bits)
        codes = np.searchsorted(known, bits)
        if self.flags is not None:
            codes[~np.frombuffer(self.flags, np.bool_)] = 0
        return self.lanes_of(codes, len(entries) - 1)

    def lanes_of(self, codes: Any, top: int) -> Codes:
        """A code for each row, null rows with 0."""
        size = lane_bytes(top)
        return Codes(codes.astype(_lanes_np.unsigned(size)).tobytes(), size, top, self.flags)

    def spread(self, codes: Any, top: int) -> Codes:
        """The codes of the non-null rows."""
        if self.flags is None:
            return self.lanes_of(codes, top)
        every = np.zeros(self.rows, np.uint64)
        every[np.frombuffer(self.flags, np.bool_)] = codes
        return self.lanes_of(every, top)

    def above(self, low: int, step: int) -> Any:
        """The non-null values less ``low`` and divided by ``step``, as u64."""
        found = self.present_array()
        wide = found.astype(np.int64 if found.dtype.kind == "i" else np.uint64).view(np.uint64)
        less = wide - np.array([low & _MASK64], np.uint64)
        return less if step == 1 else less // np.array([step], np.uint64)

    def offsets(self, low: int, step: int, top: int) -> Codes:
        """Every row's ``(value - low) / step``, at most ``top``; null rows have 0."""
        return super().offsets(low, step, top) if step == 1 else self.spread(self.above(low, step), top)

    def divisor(self, low: int) -> int:
        """The greatest common divisor of the non-null integers less ``low``."""
        return divisor_of(self.above(low, 1))

    def line_gate(self, low: int, step: int, budget: int) -> bool:
        """Whether what is left of the lines of all blocks, in 32 rows each, takes at most ``budget`` bits."""
        left = left_of(self.above(low, step).view(np.int64).reshape(-1, BLOCK))[0][:, ::_APART]
        spans = (left.max(axis=1) - left.min(axis=1)).tolist()
        return sum(map(int.bit_length, spans)) <= budget

    def lines(self, low: int, step: int) -> tuple[bytes, Codes]:
        """A line for each block, and what is left of them."""
        values = self.above(low, step).view(np.int64).reshape(-1, BLOCK)
        left, whole, fraction = left_of(values)
        least = left.min(axis=1)
        starts = zip((values[:, 0] + least).tolist(), whole.tolist(), fraction.tolist())
        lines = [line_bytes(low + step * start, slope, rest) for start, slope, rest in starts]
        codes = (left - least[:, None]).reshape(-1)
        return b"".join(lines), self.lanes_of(codes, int(codes.max()))

    def find_decimals(self, digits: int) -> Optional[Decimals]:
        """The non-null floats as decimals; ``digits``: the most of the sample."""
        bits = self.bits_array()
        if self.flags is not None:
            bits = bits[np.frombuffer(self.flags, np.bool_)]
        return find(self.code, bits, self.present_array(), digits)

    def decimal_divisor(self, found: Decimals) -> int:
        """The greatest common divisor of the decimals less the least."""
        values = found.whole if found.places is None else found.whole[found.places == 0]
        return divisor_of((values - found.low).view(np.uint64))

    def decimal_codes(self, found: Decimals, step: int, plain: int) -> Codes:
        """Every row's code as decimal or odd value; null rows have 0."""
        codes = (found.whole - found.low) // step
        if found.places is not None:
            codes = np.where(found.places > 0, found.places + (plain - 1), codes)
        return self.spread(codes, plain - 1 + len(found.odd))


def divisor_of(less: Any) -> int:
    """The greatest common divisor of u64 values."""
    found = int(np.gcd.reduce(less[:BLOCK]))
    while found > 1:
        rest = less % np.array([found], np.uint64)
        rest = rest[rest > 0][:BLOCK]
        if not len(rest):
            break
        found = gcd(found, int(np.gcd.reduce(rest)))
    if found == 0:  # the first values are all the least one
        found = int(np.gcd.reduce(less))
    return found


def left_of(values: Any) -> tuple[Any, Any, Any]:
    """(what is left of each block's line, whole, fraction); a row of i64 below 2**62 for each block."""
    rise = values[:, -1] - values[:, 0]
    whole = rise // (BLOCK - 1)
    fraction = ((rise - (BLOCK - 1) * whole) << 32) // (BLOCK - 1)
    row = np.arange(BLOCK, dtype=np.int64)
    left = values - values[:, :1] - row * whole[:, None] - (row * fraction[:, None] >> 32)
    return left, whole, fraction


def exact_sum(values: Any) -> int:
    """The exact sum of an integer array (fewer than 2**31 values)."""
    if values.dtype.itemsize < 8:
        return int(values.sum(dtype=np.int64))
    wide = np.int64 if values.dtype.kind == "i" else np.uint64
    low = int((values & values.dtype.type(0xFFFFFFFF)).sum(dtype=wide))
    return (int((values >> values.dtype.type(32)).sum(dtype=wide)) << 32) + low
