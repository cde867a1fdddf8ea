"""``_encode_py`` with NumPy: the same choice and the same bytes, the loops over rows by NumPy."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from . import _lanes_np
from ._common import FLOATS, NAN, VARLEN, WIDTHS, container
from ._encode_py import Encoder as _Encoder
from ._floats_np import block_sums, fold, ordered_bounds
from ._floats_py import add_blocks

__all__ = ["Encoder"]


class Encoder(_Encoder):
    """Seals rows ``start..stop`` of a buffer."""

    _lanes = _lanes_np

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

    def coded(self, entries: list[Any], width: int) -> bytes:
        """Every row's packed code; null rows have 0."""
        if self.code in VARLEN:
            return super().coded(entries, width)
        bits = self.bits_array()
        known = np.array(entries, bits.dtype)
        if self.code in FLOATS:
            known, bits = fold(known), fold(bits)
        codes = np.searchsorted(known, bits)
        if self.flags is not None:
            codes[~np.frombuffer(self.flags, np.bool_)] = 0
        return _lanes_np.pack(codes.astype(_lanes_np.unsigned(container(width) >> 3)).tobytes(), width)


def exact_sum(values: Any) -> int:
    """The exact sum of an integer array (fewer than 2**31 values)."""
    if values.dtype.itemsize < 8:
        return int(values.sum(dtype=np.int64))
    wide = np.int64 if values.dtype.kind == "i" else np.uint64
    low = int((values & values.dtype.type(0xFFFFFFFF)).sum(dtype=wide))
    return (int((values >> values.dtype.type(32)).sum(dtype=wide)) << 32) + low
