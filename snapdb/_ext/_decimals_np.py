"""``_decimals_py`` with NumPy: the same integers and odd values, the loops over rows by NumPy."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._common import F32, MOST_ODD, WIDTHS
from ._decimals_py import LARGEST, POWERS, TENS, TENTHS, Decimals, digits_of_odd
from ._floats_np import fold

__all__ = ["find"]


def find(code: int, bits: Any, items: Any, digits: int) -> Optional[Decimals]:
    """The non-null values as decimals; ``digits``: the most of the sample. None with more than 16 odd values."""
    wide = items.astype(np.float64)
    negative = bits == bits.dtype.type(1 << (8 * WIDTHS[code] - 1))  # -0.0
    while True:
        whole, fits = scaled(code, items, wide, digits)
        fits &= ~negative
        if fits.all():
            found = whole.astype(np.int64)
            power = power_of(code, items, whole, digits)
            return Decimals(digits, power, found, [], None, int(found.min()), int(found.max()))
        words, first = np.unique(bits[~fits], return_index=True)
        odd = dict(zip(words.tolist(), wide[~fits][first].tolist()))
        more = digits_of_odd(code, odd, digits)
        if more == digits:
            break
        if more < 0:
            return None
        digits = more
    if len(odd) > MOST_ODD:
        return None
    power = power_of(code, items[fits], whole[fits], digits)
    words = words[np.argsort(fold(words))]
    places = np.zeros(len(bits), np.int64)
    for number, word in enumerate(words, 1):
        places[bits == word] = number
    places[fits] = 0
    found = np.where(fits, whole, 0.0).astype(np.int64)
    known = found[fits]
    return Decimals(digits, power, found, words.tolist(), places, int(known.min()), int(known.max()))


def scaled(code: int, items: Any, wide: Any, digits: int) -> tuple[Any, Any]:
    """(each value times 10**digits, rounded to a whole float; whether that gives it back)"""
    with np.errstate(all="ignore"):
        product = wide * TENS[digits]
        whole = np.rint(product)
        fits = np.abs(product) <= LARGEST
        fits &= narrowed(code, whole / TENS[digits]) == items
    return whole, fits


def narrowed(code: int, values: Any) -> Any:
    """The values as the dtype has them."""
    return values.astype(np.float32) if code == F32 else values


def power_of(code: int, items: Any, whole: Any, digits: int) -> int:
    """The first power with which the two multiplications give every value back, else 0."""
    for power in POWERS:
        if power > digits:
            made = narrowed(code, whole * TENS[power - digits] * TENTHS[power])
            if (made == items).all():
                return power
    return 0
