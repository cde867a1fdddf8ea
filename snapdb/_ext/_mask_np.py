"""``_mask_py`` with NumPy: the same functions and results, the loops over whole bitmaps by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._bits_py import checked, raw, u32
from ._common import UNSELECTED
from ._mask_py import Mask, any_set, check_counts, empty, full, last, set_bit, simd_level, test
from ._mask_py import count as _count

__all__ = [
    "and_into", "andnot_into", "any_set", "combine", "count", "empty", "from_ids", "full", "ids", "last", "or_into",
    "pick", "scatter", "set_bit", "simd_level", "test",
]  # fmt: skip

_DIRECT = 8  # keys below this many times the rows are numbered through a table instead of a sort
_unit_count = getattr(np, "bitwise_count", None)  # NumPy 2


def as_array(data: Any) -> Any:
    """A mask's bytes."""
    view = raw(data)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.zeros(0, np.uint8)


def _pair(target: bytearray, other: Mask) -> tuple[Any, Any]:
    view = raw(other)
    if len(target) != view.nbytes:
        raise ValueError(f"masks differ in length: {len(target)} and {view.nbytes} bytes")
    return as_array(target), as_array(view)


def and_into(target: bytearray, other: Mask) -> None:
    """``target &= other``; ValueError where lengths differ (here and below)."""
    a, b = _pair(target, other)
    np.bitwise_and(a, b, out=a)


def or_into(target: bytearray, other: Mask) -> None:
    """``target |= other``."""
    a, b = _pair(target, other)
    np.bitwise_or(a, b, out=a)


def andnot_into(target: bytearray, other: Mask) -> None:
    """``target &= ~other``."""
    a, b = _pair(target, other)
    np.bitwise_and(a, ~b, out=a)


def count(mask: Mask) -> int:
    """Rows selected."""
    if _unit_count is None:
        return _count(mask)
    return int(_unit_count(as_array(mask)).sum(dtype=np.int64))


def ids(mask: Mask, skip: int = 0, limit: int = -1) -> memoryview:
    """Selected rows in order as u32 ('I'), after the first ``skip``, at most ``limit`` (-1: all)."""
    rows = np.flatnonzero(np.unpackbits(as_array(mask), bitorder="little"))
    skip = max(skip, 0)
    rows = rows[skip:] if limit < 0 else rows[skip : skip + limit]
    return view32(rows)


def view32(values: Any) -> memoryview:
    """An array as a read-only buffer of u32 ('I')."""
    held: Any = np.ascontiguousarray(values, np.uint32)
    return memoryview(held).toreadonly()


def array32(rows: Any) -> Any:
    """A buffer of u32 ('I') as an array."""
    view = u32(rows)
    return np.frombuffer(view, np.uint32) if view.nbytes else np.zeros(0, np.uint32)


def from_ids(rows: Any, size: int) -> bytearray:
    """A bitmap over ``size`` rows of the rows in a u32 buffer; IndexError for one outside."""
    listed = array32(rows)
    flags = np.zeros(len(empty(size)) << 3, np.bool_)
    if len(listed):
        worst = int(listed.max())
        if worst >= size:
            raise IndexError(f"row {worst} is outside a mask of {size} rows")
        flags[listed] = True
    return bytearray(np.packbits(flags, bitorder="little").tobytes())


def _inside(listed: Any, rows: int) -> None:
    if len(listed) and int(listed.max()) >= rows:
        raise IndexError(f"row {int(listed[listed >= rows][0])} is outside a mask of {rows} rows")


def pick(mask: Mask, rows: Any) -> bytearray:
    """The bits of a mask at the rows in a u32 buffer, as a bitmap over these; IndexError for one outside."""
    held, listed = as_array(mask), array32(rows)
    _inside(listed, len(held) << 3)
    found = empty(len(listed))
    flags = held[listed >> 3] >> (listed & 7).astype(np.uint8) & 1
    packed = np.packbits(flags, bitorder="little")
    found[: len(packed)] = packed.tobytes()
    return found


def scatter(target: bytearray, rows: Any, bits: Mask) -> None:
    """Set the rows in a u32 buffer to the bits of a bitmap over these, all others stay; IndexError for one outside."""
    listed = array32(rows)
    given = np.frombuffer(checked(bits, len(listed)), np.uint8) if len(listed) else as_array(checked(bits, 0))
    _inside(listed, len(target) << 3)
    if len(listed):
        flags = np.unpackbits(as_array(target), bitorder="little")
        flags[listed] = np.unpackbits(given, count=len(listed), bitorder="little")
        target[:] = np.packbits(flags, bitorder="little").tobytes()


def combine(a: Any, groups_a: int, b: Any, groups_b: int) -> tuple[memoryview, memoryview]:
    """Group numbers of pairs: (codes, first) for two u32 code buffers as ``Chunk.group`` gives them.

    Numbered in order of first row; 0xFFFFFFFF in either stays.
    """
    check_counts(groups_a, groups_b)
    left, right = array32(a), array32(b)
    if len(left) != len(right):
        raise ValueError(f"group codes differ in length: {len(left)} and {len(right)}")
    selected = (left != UNSELECTED) & (right != UNSELECTED)
    rows = None if selected.all() else np.flatnonzero(selected)
    size = len(left)
    if rows is not None:
        left, right = left[rows], right[rows]
    if len(left) and (int(left.max()) >= groups_a or int(right.max()) >= groups_b):
        raise ValueError(f"a group code is outside 0..{groups_a} or 0..{groups_b}")
    keys = left.astype(np.uint64) * np.uint64(groups_b) + right
    return spread(*number(keys, groups_a * groups_b), rows, size)


def number(keys: Any, span: int) -> tuple[Any, Any]:
    """(group number of each key, place of each group's first key) for keys below ``span``, numbered by first key."""
    size = len(keys)
    if span <= size * _DIRECT:
        first = np.full(span, size, np.int64)
        first[keys[::-1]] = np.arange(size - 1, -1, -1)  # the last one written is the first place
        present = np.flatnonzero(first < size)
        order = present[np.argsort(first[present])]
        numbers = np.zeros(span, np.uint32)
        numbers[order] = np.arange(len(order))
        return numbers[keys], first[order]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    ranks = np.empty(len(order), np.uint32)
    ranks[order] = np.arange(len(order))
    return ranks[inverse.reshape(-1)], first[order]


def spread(codes: Any, places: Any, rows: Any, size: int) -> tuple[memoryview, memoryview]:
    """``number``'s answer for the selected rows (None: all), as buffers over all ``size`` rows."""
    if rows is None:
        return view32(codes), view32(places)
    whole = np.full(size, UNSELECTED, np.uint32)
    whole[rows] = codes
    return view32(whole), view32(rows[places])
