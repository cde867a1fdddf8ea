"""The choice rule of ``docs/format.md``, read literally: which codec, step and layout a column gets, by sizes alone."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, NamedTuple, Optional

from reference_chunks import (
    Codes,
    bits_of,
    decimal_of,
    decimals,
    dictionary,
    digits_of,
    folded,
    frame,
    front_coded,
    slope,
    slope_codes,  # fmt: skip
)

from snapdb._ext import _common as c


class Choice(NamedTuple):
    size: int
    codec: int
    layout: int = c.PACKED
    width: Optional[int] = 0
    step: int = 0
    front: bool = False

    def chunk(self, code: int, values: list[Any]) -> bytes:
        """The bytes that a slow writer makes of it; not for RAW, CONST, AFFINE and BITMAP."""
        width = None if self.layout == c.RUNS else self.width
        if self.codec == c.DICT:
            return dictionary(code, values, self.layout, width, self.front)
        make: Any = {c.FOR: frame, c.SLOPE: slope, c.DEC: decimals}[self.codec]
        return make(code, values, self.layout, width, self.step)  # type: ignore[no-any-return]


def stream(codes: Codes) -> tuple[int, int, int]:
    """(size, layout, width)"""
    rows = len(codes)
    blocks = rows // 1024
    top = max(code for code in codes if code is not None)
    if not top:
        return 0, c.PACKED, 0
    width = c.packed_width(top)
    size = c.container(width) // 8
    best = (128 * width * blocks, c.PACKED, width)
    bits = [0 if code is None else code.bit_length() for code in codes]
    sample = [bits[i * rows // 256] for i in range(256)]
    least = min(
        128 * w * blocks * 256 + (2 + size) * rows * sum(each > w for each in sample) for w in range(top.bit_length())
    )
    if 10 * least <= 9 * best[0] * 256:
        cost, narrow = min(
            (128 * w * blocks + 4 * (blocks + 1) + (2 + size) * sum(each > w for each in bits), w)
            for w in range(top.bit_length())
        )
        if 10 * cost <= 9 * best[0]:
            best = (cost, c.EXCEPTED, narrow)
    known = [code for code in codes if code is not None]
    runs = 1 + sum(a != b for a, b in zip(known, known[1:]))
    cost = 2 * blocks + (2 + size) * runs
    if 8 * runs <= rows and 10 * cost <= 9 * best[0]:
        best = (cost, c.RUNS, 0)
    return best


def choose(code: int, values: list[Any], prefer: int = 0) -> Choice:
    known = [value for value in values if value is not None]
    if len({bits_of(code, value) if code in c.FLOATS else value for value in known}) <= 1:
        return Choice(0, c.CONST)
    if code == c.BOOL:
        return Choice(0, c.BITMAP)
    if code in c.VARLEN:
        return strings(values, prefer)
    return floats(code, values, prefer) if code in c.FLOATS else integers(code, values, prefer)


def divisor(known: list[int]) -> int:
    low = min(known)
    width = c.packed_width(max(known) - low)
    if width <= 4:
        return 1
    found = reduce(math.gcd, (value - low for value in known))
    return found if found < 1 << 63 and c.packed_width((max(known) - low) // found) < width else 1


def integers(code: int, values: list[Any], prefer: int) -> Choice:
    known = [value for value in values if value is not None]
    low, high, rows = min(known), max(known), len(values)
    raw = c.WIDTHS[code] * rows
    if None not in values:
        apart = values[1] - values[0]
        if -(1 << 63) <= apart < 1 << 63 and all(b - a == apart for a, b in zip(values, values[1:])):
            return Choice(0, c.AFFINE)
    step = divisor(known)
    given = step if step > 1 else 0
    size, layout, width = stream([None if value is None else (value - low) // step for value in values])
    best = Choice(size, c.FOR, layout, width, given) if size <= raw else Choice(raw, c.RAW)
    if None not in values and prefer != c.FOR and (high - low) // step < 1 << 62:
        _, left = slope_codes(values, step)
        bits = 0
        for block in range(0, rows, 1024):
            sample = left[block : block + 1024 : 33]
            bits += (max(sample) - min(sample)).bit_length() + 2
        hinted = prefer == c.AFFINE
        if hinted or bits <= c.packed_width((high - low) // step) * rows // 1024:
            cost, layout, width = stream(list(left))
            size = 24 * rows // 1024 + cost
            if size <= best.size if hinted else 10 * size <= 9 * best.size:
                best = Choice(size, c.SLOPE, layout, width, given)
    if prefer in (c.FOR, c.AFFINE) or c.WIDTHS[code] < 4 or c.packed_width((high - low) // step) <= 16:
        return best
    return entries(c.WIDTHS[code], values, prefer, best)


def entries(size: int, keys: list[Any], prefer: int, best: Choice) -> Choice:
    """DICT of a fixed-width column or what was best before."""
    hinted, rows = prefer == c.DICT, len(keys)
    if not hinted and len({keys[i * rows // 256] or 0 for i in range(256)}) > 128:
        return best
    found = sorted({key for key in keys if key is not None})
    if len(found) > min(65535, rows // 2 if hinted else rows // 4):
        return best
    numbers = {key: i for i, key in enumerate(found)}
    cost, layout, width = stream([None if key is None else numbers[key] for key in keys])
    cost += len(found) * size
    return Choice(cost, c.DICT, layout, width) if hinted or 10 * cost <= 9 * best.size else best


def floats(code: int, values: list[Any], prefer: int) -> Choice:
    rows, size = len(values), c.WIDTHS[code]
    best = Choice(size * rows, c.RAW)
    sample = [values[i * rows // 64] for i in range(64)]
    able = [v for v in sample if v is not None and math.isfinite(v) and not (v == 0 and math.copysign(1, v) < 0)]
    counted = [digits_of(code, value) for value in able]
    if any(found is not None for found in counted) and counted.count(None) <= 4:
        best = decimal_choice(code, values, best)
    # in the order of the folded bits, a null as the bits 0
    top = 1 << (8 * size - 1)
    keys = [None if value is None else folded(code, bits_of(code, value)) for value in values]
    shifted = [None if key is None else key - top for key in keys]  # +0.0 is 0, as a null counts
    return entries(size, shifted, prefer, best)


def decimal_choice(code: int, values: list[Any], best: Choice) -> Choice:
    known = [value for value in values if value is not None]
    digits = max(found for value in known if (found := digits_of(code, value)) is not None)
    rows = [None if value is None else decimal_of(code, value, digits) for value in values]
    odd = {bits_of(code, value) for value, row in zip(values, rows) if value is not None and row is None}
    if len(odd) > 16:
        return best
    whole = [row for row in rows if row is not None]
    step, low = divisor(whole), min(whole)
    plain = (max(whole) - low) // step + 1
    numbers = {bits: plain + i for i, bits in enumerate(sorted(odd, key=lambda bits: folded(code, bits)))}
    codes: Codes = [
        None if value is None else numbers[bits_of(code, value)] if row is None else (row - low) // step
        for value, row in zip(values, rows)
    ]
    cost, layout, width = stream(codes)
    cost += c.WIDTHS[code] * len(odd)
    return Choice(cost, c.DEC, layout, width, step if step > 1 else 0) if 100 * cost <= 85 * best.size else best


def strings(values: list[Any], prefer: int) -> Choice:
    rows = len(values)
    found = sorted({value for value in values if value is not None})
    raw = Choice(4 * (rows + 1) + sum(len(value) for value in values if value is not None), c.RAW)
    if len(found) > min(65535, rows // 2):
        return raw
    plain = 4 * (len(found) + 1) + sum(map(len, found))
    front = sum(map(len, front_coded(found)))
    coded = 10 * front <= 9 * plain
    numbers = {value: i for i, value in enumerate(found)}
    cost, layout, width = stream([None if value is None else numbers[value] for value in values])
    cost += front if coded else plain
    return Choice(cost, c.DICT, layout, width, 0, coded) if prefer == c.DICT or 100 * cost <= 83 * raw.size else raw
