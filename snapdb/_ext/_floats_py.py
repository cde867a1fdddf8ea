"""Floats: the one definition of a sum, bounds that know NaN and the sign of zero, and values as bits in order."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from ._common import BLOCK, NAN
from ._lanes_py import as_bytes, keep, typed

__all__ = [
    "add_blocks", "block_sums", "bounds_of", "canonical", "float_bits", "folded_key", "group_sums", "narrow_bounds",
    "of_bits", "signed_zeros",
]  # fmt: skip

_LANES = 32
_HALF = {4: 1 << 31, 8: 1 << 63}
_PAIRS = {4: (struct.Struct("<f"), struct.Struct("<I")), 8: (struct.Struct("<d"), struct.Struct("<Q"))}


def float_bits(value: float, size: int) -> int:
    """The bits of a float of ``size`` bytes."""
    as_float, as_int = _PAIRS[size]
    return as_int.unpack(as_float.pack(value))[0]  # type: ignore[no-any-return]


def of_bits(bits: int, size: int) -> float:
    """The float with these bits."""
    as_float, as_int = _PAIRS[size]
    return as_float.unpack(as_int.pack(bits))[0]  # type: ignore[no-any-return]


def folded_key(bits: int, size: int) -> int:
    """Bits to an integer in the order of the values: -NaN, -inf … -0.0, 0.0 … inf, NaN."""
    half = _HALF[size]
    return half - 1 - (bits - half) if bits & half else bits + half


def canonical(value: float) -> float:
    """The value, or the one NaN."""
    return value if value == value else NAN


def narrow_bounds(low: float, high: float, size: int) -> Optional[tuple[int, int]]:
    """The bits of the least stored value >= low and the greatest <= high; None where there is none between."""
    if size == 8:
        return (float_bits(low, 8), float_bits(high, 8)) if low <= high else None
    first, last = _round32(low), _round32(high)
    if first < low:
        first = _next32(first, True)
    if last > high:
        last = _next32(last, False)
    return (float_bits(first, 4), float_bits(last, 4)) if first <= last else None


def _round32(value: float) -> float:
    return array("f", [value])[0]  # overflows to an infinity


def _next32(value: float, up: bool) -> float:
    """The f32 next to one that is not the infinity in that direction."""
    bits = float_bits(value, 4)
    if not bits & 0x7FFFFFFF:
        return of_bits(1 if up else 0x80000001, 4)
    return of_bits(bits + 1 if (bits < 0x80000000) == up else bits - 1, 4)


# -- sums ------------------------------------------------------------------


def _chains(values: Iterable[float]) -> list[float]:
    """Every 32 values in a row added in order to +0.0."""
    # one expression: the interpreter adds floats in place, which no loop and no builtin does as fast
    return [
        0.0 + a + b + c + d + e + f + g + h + i + j + k + ll + m + n + o + p
        + q + r + s + t + u + v + w + x + y + z + aa + bb + cc + dd + ee + ff
        for a, b, c, d, e, f, g, h, i, j, k, ll, m, n, o, p,
            q, r, s, t, u, v, w, x, y, z, aa, bb, cc, dd, ee, ff
        in zip(*[iter(values)] * _LANES)
    ]  # fmt: skip


def block_sums(items: Any, flags: Optional[bytes]) -> list[float]:
    """The sum of each block of 1,024 positions: 32 lanes (position mod 32) from +0.0 in order, folded by halves.

    ``items`` is an array of 'f' or 'd'. Positions whose flag is 0 are left out, by a zero in their place: a zero of
    either sign changes no sum that started at +0.0.
    """
    if flags is not None:
        items = typed(items.typecode, keep(as_bytes(items), items.itemsize, flags))
    short = -len(items) % BLOCK
    if short:
        items = items + array(items.typecode, bytes(short * items.itemsize))
    lanes = [_chains(items[lane::_LANES]) for lane in range(_LANES)]
    half = _LANES // 2
    while half:
        for lane in range(half):
            lanes[lane] = [a + b for a, b in zip(lanes[lane], lanes[lane + half])]
        half //= 2
    return lanes[0]


def add_blocks(start: float, sums: Iterable[float]) -> float:
    """Block sums added to ``start`` in order."""
    total = float(start)
    for value in sums:
        total += value
    return total


def group_sums(codes: Sequence[int], items: Sequence[float], groups: int) -> list[float]:
    """Sums per group, one accumulator per (group, position mod 4), folded (0+1)+(2+3).

    Code ``groups`` stands for not selected.
    """
    lanes = []
    for lane in range(4):
        sums = [0.0] * (groups + 1)
        for code, value in zip(codes[lane::4], items[lane::4]):
            sums[code] += value
        lanes.append(sums)
    return [(a + b) + (c + d) for a, b, c, d in zip(*lanes)][:groups]


# -- bounds ----------------------------------------------------------------


def bounds_of(values: Sequence[float]) -> Optional[tuple[float, float]]:
    """Least and greatest; NaN only where all are NaN; -0.0 < 0.0. None where there is no value."""
    real = [value for value in values if value == value]
    if not real:
        return (NAN, NAN) if len(values) else None
    return signed_zeros(min(real), max(real), real)


def signed_zeros(low: float, high: float, values: Sequence[float]) -> tuple[float, float]:
    """Bounds that are zeros with their right signs."""
    if low == 0.0:
        low = -0.0 if any(math.copysign(1.0, value) < 0 for value in values if value == 0.0) else 0.0
    if high == 0.0:
        high = 0.0 if any(math.copysign(1.0, value) > 0 for value in values if value == 0.0) else -0.0
    return low, high
