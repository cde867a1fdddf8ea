"""Floats that are decimals (``docs/format.md``, *Choice*): a column's digits, its integers and its odd values.

Everything is computed with two roundings, as the format page has it: a product of two doubles, rounded to the nearest
integer, and a quotient of two doubles (f32: rounded to f32).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import ne
from typing import Any, NamedTuple, Optional

from ._common import F32, MOST_ODD, WIDTHS
from ._floats_py import float_bits, folded_key

__all__ = ["LARGEST", "POWERS", "TENS", "TENTHS", "Decimals", "digits_of_odd", "digits_of_sample", "find"]

TENS = tuple(float(f"1e{k}") for k in range(23))
TENTHS = tuple(float(f"1e-{k}") for k in range(23))
POWERS = (14, 17, 20)
LARGEST = 2.0**51
ROUND = 1.5 * 2.0**52  # added and taken away again it leaves the nearest integer of anything up to 2**51
_SAMPLE, _ODD_IN_SAMPLE = 64, 4
_NEGATIVE_ZERO = {4: 1 << 31, 8: 1 << 63}


class Decimals(NamedTuple):
    """The non-null values of a column as decimals of ``digits`` digits."""

    digits: int
    power: int  # of the product that gives all decimals back, else 0
    whole: Any  # the decimals as integers; 0 for an odd value
    odd: list[int]  # bits of the odd values in order
    places: Any  # for each value 0, or its number in ``odd`` and 1 more; None without odd values
    low: int  # least decimal
    high: int  # greatest


def most_digits(code: int) -> int:
    """The most digits of a decimal of a dtype."""
    return 9 if code == F32 else 15


def digits_of(code: int, value: float) -> int:
    """The fewest digits with which a value, no -0.0, is a decimal; -1 where it is none."""
    size = abs(value)
    for digits in range(most_digits(code) + 1):
        if not size * TENS[digits] <= LARGEST:  # NaN and infinities too
            return -1
        made = (value * TENS[digits] + ROUND - ROUND) / TENS[digits]
        if made == value or (code == F32 and array("f", [made])[0] == value):
            return digits
    return -1


def digits_of_sample(code: int, bits: Any, items: Any, flags: Optional[bytes]) -> int:
    """The most digits in the sample; -1 where the gate stays closed."""
    rows = len(items)
    most, wrong = -1, 0
    for i in range(_SAMPLE):
        row = i * rows // _SAMPLE
        value = items[row]
        if (flags is not None and not flags[row]) or value - value != 0.0:  # null, NaN, infinite
            continue
        if bits[row] == _NEGATIVE_ZERO[WIDTHS[code]]:
            continue
        digits = digits_of(code, value)
        wrong += digits < 0
        most = max(most, digits)
    return most if wrong <= _ODD_IN_SAMPLE else -1


def scaled(items: Iterable[float], digits: int) -> list[float]:
    """Each value times 10**digits, rounded to a whole float; NaN where that is past 2**51."""
    up, most = TENS[digits], LARGEST
    if max(map(abs, items), default=0.0) * up <= most:
        return [value * up + ROUND - ROUND for value in items]
    nan = float("nan")
    return [x + ROUND - ROUND if -most <= (x := value * up) <= most else nan for value in items]


def narrowed(code: int, values: list[float]) -> Sequence[float]:
    """The values as the dtype has them."""
    return array("f", values) if code == F32 else values


def find(code: int, bits: Any, items: Any, digits: int) -> Optional[Decimals]:
    """The non-null values as decimals; ``digits``: the most of the sample. None with more than 16 odd values."""
    size = WIDTHS[code]
    zero = _NEGATIVE_ZERO[size]
    negative = zero in bits
    while True:
        whole, down = scaled(items, digits), TENS[digits]
        flags = list(map(ne, narrowed(code, [value / down for value in whole]), items))
        if negative:
            flags = [flag or word == zero for flag, word in zip(flags, bits)]
        if True not in flags:
            integers = list(map(int, whole))
            return Decimals(
                digits, power_of(code, items, whole, digits), integers, [], None, min(integers), max(integers)
            )
        odd = dict(zip(compress(bits, flags), compress(items, flags)))
        more = digits_of_odd(code, odd, digits)
        if more == digits:
            break
        if more < 0:
            return None
        digits = more
    if len(odd) > MOST_ODD:
        return None
    fit = [not flag for flag in flags]
    kept = list(compress(whole, fit))
    power = power_of(code, list(compress(items, fit)), kept, digits)
    ordered = sorted(odd, key=lambda word: folded_key(word, size))
    numbers = {word: number for number, word in enumerate(ordered, 1)}
    places = [numbers[word] if flag else 0 for word, flag in zip(bits, flags)]
    integers = [0 if flag else int(value) for value, flag in zip(whole, flags)]
    return Decimals(digits, power, integers, ordered, places, int(min(kept)), int(max(kept)))


def digits_of_odd(code: int, values: dict[int, float], digits: int) -> int:
    """The most digits among distinct values that ``digits`` does not give back; at least ``digits``.

    -1 where more than 16 of them have none: those are odd whatever the digits.
    """
    none = 0
    zero = float_bits(-0.0, WIDTHS[code])
    for bits, value in values.items():
        found = -1 if bits == zero else digits_of(code, value)
        if found < 0:
            none += 1
            if none > MOST_ODD:
                return -1
        digits = max(digits, found)
    return digits


def power_of(code: int, items: Sequence[float], whole: list[float], digits: int) -> int:
    """The first power with which the two multiplications give every value back, else 0."""
    for power in POWERS:
        if power > digits:
            up, down = TENS[power - digits], TENTHS[power]
            made = narrowed(code, [value * up * down for value in whole])
            if not any(map(ne, made, items)):
                return power
    return 0
