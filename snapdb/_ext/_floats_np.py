"""``_floats_py`` with NumPy: sums in the same order, bounds by the order of the bits."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._floats_py import of_bits

__all__ = ["block_sums", "fold", "ordered_bounds", "unfold"]

_BLOCK, _LANES = 1024, 32


def fold(bits: Any) -> Any:
    """Bits (u32 or u64) to integers in the order of the values: -NaN, -inf … -0.0, 0.0 … inf, NaN."""
    kind = bits.dtype.type
    top = kind(1 << (8 * bits.dtype.itemsize - 1))
    return np.where(bits & top != 0, ~bits, bits | top)


def unfold(key: int, size: int) -> float:
    """The float of a folded key."""
    half = 1 << (8 * size - 1)
    return of_bits(key ^ half if key & half else 2 * half - 1 - key, size)


def block_sums(values: Any, flags: Any) -> list[float]:
    """The sum of each block of 1,024 positions: 32 lanes (position mod 32) from +0.0 in order, folded by halves."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = values.astype(np.float64)
        if flags is not None:
            wide = np.where(flags, wide, 0.0)  # a selection: +0.0 changes no sum that started at +0.0
        short = -len(wide) % _BLOCK
        if short:
            wide = np.concatenate((wide, np.zeros(short)))
        steps = wide.reshape(-1, _BLOCK // _LANES, _LANES)
        sums = np.zeros((len(steps), _LANES))
        for step in range(_BLOCK // _LANES):
            sums += steps[:, step]
        half = _LANES // 2
        while half:
            sums = sums[:, :half] + sums[:, half : 2 * half]
            half //= 2
    return sums[:, 0].tolist()  # type: ignore[no-any-return]


def ordered_bounds(values: Any) -> Optional[tuple[float, float]]:
    """Least and greatest of floats without NaN; -0.0 < 0.0. None where there is no value."""
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if low == 0.0 or high == 0.0:  # NumPy does not tell the zeros apart
        zeros = np.signbit(values[values == 0.0])
        low = (-0.0 if zeros.any() else 0.0) if low == 0.0 else low
        high = (-0.0 if zeros.all() else 0.0) if high == 0.0 else high
    return low, high
