"""Selection bitmaps: bit i of byte i >> 3, whole 64-bit words, bits past the last row 0.

The readable twin of ``_mask.pyx``.
"""

from __future__ import annotations

from array import array
from itertools import compress
from typing import Any, Union

from ._bits_py import bitmap, checked, flags_of, popcount, raw, rows_of, to_mask, u32
from ._common import UNSELECTED, mask_bytes

__all__ = [
    "and_into", "andnot_into", "any_set", "combine", "count", "empty", "from_ids", "full", "ids", "last", "or_into",
    "pick", "scatter", "set_bit", "simd_level", "test",
]  # fmt: skip

Mask = Union[bytes, bytearray, memoryview]


def simd_level() -> str:
    """The instruction set of the loops: "none" here, "base", "v3" or "v4" in the compiled kernels."""
    return "none"


def _size(rows: int) -> int:
    if rows < 0:
        raise ValueError(f"rows must not be negative, got {rows}")
    return mask_bytes(rows)


def full(rows: int) -> bytearray:
    """A bitmap of every row."""
    size = _size(rows)
    return bytearray(((1 << rows) - 1).to_bytes(size, "little"))


def empty(rows: int) -> bytearray:
    """A bitmap of no row."""
    return bytearray(_size(rows))


def _pair(target: bytearray, other: Mask) -> tuple[int, int]:
    view = raw(other)
    if len(target) != view.nbytes:
        raise ValueError(f"masks differ in length: {len(target)} and {view.nbytes} bytes")
    return int.from_bytes(target, "little"), int.from_bytes(view, "little")


def and_into(target: bytearray, other: Mask) -> None:
    """``target &= other``; ValueError where lengths differ (here and below)."""
    a, b = _pair(target, other)
    target[:] = (a & b).to_bytes(len(target), "little")


def or_into(target: bytearray, other: Mask) -> None:
    """``target |= other``."""
    a, b = _pair(target, other)
    target[:] = (a | b).to_bytes(len(target), "little")


def andnot_into(target: bytearray, other: Mask) -> None:
    """``target &= ~other``."""
    a, b = _pair(target, other)
    target[:] = (a ^ (a & b)).to_bytes(len(target), "little")


def count(mask: Mask) -> int:
    """Rows selected."""
    return popcount(int.from_bytes(raw(mask), "little"))


def any_set(mask: Mask) -> bool:
    """Whether any row is selected."""
    view = raw(mask)
    return bytes(view) != bytes(view.nbytes)


def ids(mask: Mask, skip: int = 0, limit: int = -1) -> memoryview:
    """Selected rows in order as u32 ('I'), after the first ``skip``, at most ``limit`` (-1: all)."""
    view = raw(mask)
    rows = rows_of(int.from_bytes(view, "little"), view.nbytes << 3)
    skip = max(skip, 0)
    if skip or limit >= 0:
        rows = rows[skip:] if limit < 0 else rows[skip : skip + limit]
    return memoryview(array("I", rows)).toreadonly()


def last(mask: Mask) -> int:
    """The last selected row, -1 where there is none."""
    return int.from_bytes(raw(mask), "little").bit_length() - 1


def set_bit(mask: bytearray, row: int) -> None:
    """Select one row; IndexError outside."""
    if not 0 <= row < len(mask) << 3:
        raise IndexError(f"row {row} is outside a mask of {len(mask) << 3} rows")
    mask[row >> 3] |= 1 << (row & 7)


def test(mask: Mask, row: int) -> bool:
    """Whether a row is selected; IndexError outside."""
    view = raw(mask)
    if not 0 <= row < view.nbytes << 3:
        raise IndexError(f"row {row} is outside a mask of {view.nbytes << 3} rows")
    return view[row >> 3] >> (row & 7) & 1 == 1


def from_ids(rows: Any, size: int) -> bytearray:
    """A bitmap over ``size`` rows of the rows in a u32 buffer; IndexError for one outside."""
    listed = u32(rows).tolist()
    flags = bytearray(_size(size) << 3)
    if listed and max(listed) >= size:
        raise IndexError(f"row {max(listed)} is outside a mask of {size} rows")
    for row in listed:
        flags[row] = 1
    return to_mask(bitmap(bytes(flags)), size)


def _inside(listed: list[int], rows: int) -> None:
    worst = next((row for row in listed if row >= rows), None) if listed and max(listed) >= rows else None
    if worst is not None:
        raise IndexError(f"row {worst} is outside a mask of {rows} rows")


def pick(mask: Mask, rows: Any) -> bytearray:
    """The bits of a mask at the rows in a u32 buffer, as a bitmap over these; IndexError for one outside."""
    view, listed = raw(mask), u32(rows).tolist()
    _inside(listed, view.nbytes << 3)
    return to_mask(bitmap(bytes([view[row >> 3] >> (row & 7) & 1 for row in listed])), len(listed))


def scatter(target: bytearray, rows: Any, bits: Mask) -> None:
    """Set the rows in a u32 buffer to the bits of a bitmap over these, all others stay; IndexError for one outside."""
    listed = u32(rows).tolist()
    given = int.from_bytes(checked(bits, len(listed)), "little")
    _inside(listed, len(target) << 3)
    for row, flag in zip(listed, flags_of(given & ((1 << len(listed)) - 1), len(listed))):
        if flag:
            target[row >> 3] |= 1 << (row & 7)
        else:
            target[row >> 3] &= ~(1 << (row & 7))


def combine(a: Any, groups_a: int, b: Any, groups_b: int) -> tuple[memoryview, memoryview]:
    """Group numbers of pairs: (codes, first) for two u32 code buffers as ``Chunk.group`` gives them.

    Numbered in order of first row; 0xFFFFFFFF in either stays.
    """
    check_counts(groups_a, groups_b)
    left, right = u32(a).tolist(), u32(b).tolist()
    if len(left) != len(right):
        raise ValueError(f"group codes differ in length: {len(left)} and {len(right)}")
    selected = [code != UNSELECTED and other != UNSELECTED for code, other in zip(left, right)]
    if not all(selected):
        left, right = list(compress(left, selected)), list(compress(right, selected))
    for codes, groups in ((left, groups_a), (right, groups_b)):
        if codes and max(codes) >= groups:
            raise ValueError(f"a group code is outside 0..{groups_a} or 0..{groups_b}")
    codes, places = number([code * groups_b + other for code, other in zip(left, right)])
    return spread(codes, places, selected)


def check_counts(groups_a: int, groups_b: int) -> None:
    """ValueError for numbers of groups that no u32 codes can have."""
    if not (0 <= groups_a <= UNSELECTED and 0 <= groups_b <= UNSELECTED):
        raise ValueError(f"group counts out of range: {groups_a} and {groups_b}")


def number(keys: list[Any]) -> tuple[list[int], list[int]]:
    """(group number of each key, place of each group's first key), groups numbered in order of first key."""
    size = len(keys)
    first_of = dict(zip(reversed(keys), range(size - 1, -1, -1)))  # the last one written is the first place
    places = sorted(first_of.values())
    number_of = dict(zip(map(keys.__getitem__, places), range(len(places))))
    return list(map(number_of.__getitem__, keys)), places


def spread(codes: list[int], places: list[int], selected: Any) -> tuple[memoryview, memoryview]:
    """``number``'s answer for the selected rows, as buffers over all rows (0xFFFFFFFF where not selected)."""
    if len(codes) == len(selected):
        return memoryview(array("I", codes)).toreadonly(), memoryview(array("I", places)).toreadonly()
    following = iter(codes)
    whole = array("I", [next(following) if flag else UNSELECTED for flag in selected])
    rows = list(compress(range(len(selected)), selected))
    return memoryview(whole).toreadonly(), memoryview(array("I", map(rows.__getitem__, places))).toreadonly()
