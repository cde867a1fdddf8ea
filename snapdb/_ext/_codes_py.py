"""Codes as a chunk stores them (``docs/format.md``, *Layouts*, *Slopes*, *Decimals*, *Front-coded dictionary*).

Everything here takes a ``Layout`` of ``_layout_py`` and reads only what that has checked.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from . import _lanes_py
from ._bits_py import popcount
from ._common import (
    AFFINE,
    BITMAP,
    BLOCK,
    DEC,
    DICT,
    EXCEPTED,
    F32,
    FOR,
    PACKED,
    RAW,
    RESTART,
    RUNS,
    SLOPE,
    VARLEN,
    WIDTHS,
    mask_bytes,
)  # fmt: skip
from ._lanes_py import as_bytes, lanes, typed

__all__ = [
    "TENS", "TENTHS", "codes_of", "decimal_array", "decimal_of", "factors", "has_codes", "lines_of", "most_code",
    "need", "part_of", "places_of", "unfold",
]  # fmt: skip

TENS = tuple(float(f"1e{k}") for k in range(23))
TENTHS = tuple(float(f"1e-{k}") for k in range(23))

_LINE = struct.Struct("<qqII")
_MAX_HEAP = (1 << 32) - 1
_PAST_HEAP = "an entry of its dictionary ends past the heap"
_CODED = frozenset((FOR, DICT, SLOPE, DEC))


def need(fits: bool, what: str) -> None:
    """ValueError for bytes that are not right."""
    if not fits:
        raise ValueError(f"damaged chunk: {what}")


def has_codes(codec: int) -> bool:
    """Whether a codec has codes, which have a layout."""
    return codec in _CODED


# -- codes -------------------------------------------------------------------


def places_of(layout: Any) -> tuple[list[int], list[int]]:
    """EXCEPTED: (first exception of each block and once more behind the last, row of each exception).

    RUNS: (run of each block's first row, last row of each run).
    """
    blocks = layout.rows // BLOCK
    cut = 4 * (blocks + 1) if layout.layout == EXCEPTED else 2 * blocks
    letter = "I" if layout.layout == EXCEPTED else "H"
    return typed(letter, layout.places[:cut]).tolist(), typed("H", layout.places[cut:]).tolist()


def codes_of(layout: Any, loops: Any = _lanes_py) -> bytes:
    """Every row's code, in lanes of ``layout.size`` bytes."""
    size = layout.size
    if layout.layout == RUNS:
        _, last = places_of(layout)
        times = [row - before for before, row in zip([-1, *last], last)]
        return loops.repeat(layout.codes, size, times)  # type: ignore[no-any-return]
    if layout.width:
        data = loops.unpack(layout.values, layout.width, 8 * size)
    else:
        data = bytes(size * layout.rows)
    if layout.layout == EXCEPTED:
        return loops.put(data, size, places_of(layout)[1], layout.codes)  # type: ignore[no-any-return]
    return data  # type: ignore[no-any-return]


def most_code(layout: Any) -> int:
    """No code is greater."""
    if layout.codec == DICT:
        return layout.distinct - 1  # type: ignore[no-any-return]
    if layout.codec == DEC:
        return min(layout.plain + layout.distinct, 1 << 8 * layout.size) - 1  # type: ignore[no-any-return]
    if layout.layout == PACKED:
        return (1 << layout.width) - 1  # type: ignore[no-any-return]
    return max(lanes(layout.size, layout.codes), default=0) if layout.marks else (1 << layout.width) - 1


# -- slopes and decimals -------------------------------------------------------


def lines_of(layout: Any) -> list[tuple[int, int, int]]:
    """(base, whole, fraction) of each block's line."""
    return [line[:3] for line in _LINE.iter_unpack(layout.lines)]


def factors(layout: Any) -> tuple[float, float]:
    """What a decimal is multiplied by, one after the other; (0, what it is divided by) where the power is 0."""
    if layout.power:
        return TENS[layout.power - layout.digits], TENTHS[layout.power]
    return 0.0, TENS[layout.digits]


def decimal_of(layout: Any, code: int) -> float:
    """The value of a code below ``plain``."""
    up, down = factors(layout)
    decimal = float(layout.base + layout.step * code)
    value = decimal * up * down if up else decimal / down
    return float(array("f", [value])[0]) if layout.code == F32 else value


def decimal_array(layout: Any, codes: bytes, loops: Any = _lanes_py) -> bytes:
    """The stored values of DEC's codes."""
    values = loops.decimals(codes, layout.size, layout.step, layout.base, *factors(layout))
    width = WIDTHS[layout.code]
    if layout.code == F32:
        values = array("f", values)
    data = as_bytes(values)
    top = (1 << 8 * layout.size) - 1
    if layout.distinct and layout.plain <= top:
        rows = loops.rows_of(loops.in_range(codes, layout.size, layout.plain, top), layout.rows)
        if rows:
            items, odd, plain = lanes(layout.size, codes), layout.heap, layout.plain
            found = [(items[row] - plain) * width for row in rows]
            data = loops.put(data, width, rows, b"".join([odd[at : at + width] for at in found]))
    return data


# -- front-coded dictionaries ----------------------------------------------------


def unfold(count: int, restarts: Sequence[int], heap: bytes) -> tuple[bytes, bytes]:
    """(offsets, heap) of a front-coded dictionary as a plain one has them; ValueError for what is damaged."""
    pieces = []  # all lengths first: what unpacks to too much is refused before it takes that memory
    ends = [0]
    at = total = shared = size = 0
    for number in range(count):
        if number % RESTART:
            shared, at = _length(heap, at)
        else:
            need(restarts[number // RESTART] == at, "a restart is not where its entry starts")
            shared = 0
        further, at = _length(heap, at)
        need(shared <= size, "an entry shares more than the one before has")
        need(at + further <= len(heap), _PAST_HEAP)
        size = shared + further
        total += size
        need(total <= _MAX_HEAP, f"its dictionary unpacks to more than {_MAX_HEAP} bytes")
        pieces.append((shared, at, further))
        at += further
        ends.append(total)
    need(at == len(heap), "its dictionary ends before its heap")
    entry = b""
    entries = []
    for shared, at, further in pieces:
        entry = entry[:shared] + heap[at : at + further]
        entries.append(entry)
    return struct.pack(f"<{count + 1}I", *ends), b"".join(entries)


def _length(heap: bytes, at: int) -> tuple[int, int]:
    """(a varint, the byte past it)"""
    found = shift = 0
    while True:
        need(at < len(heap), _PAST_HEAP)
        byte = heap[at]
        at += 1
        found |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        need(shift <= 28, "a length in its dictionary is damaged")
    need((byte != 0 or not shift) and found <= _MAX_HEAP, "a length in its dictionary is damaged")
    return found, at


# -- parts of a chunk --------------------------------------------------------------


def part_of(layout: Any, first: int, blocks: int) -> Any:
    """The layout of some blocks of a chunk, over the same memory but for a few numbers."""
    row, rows, codec = first * BLOCK, blocks * BLOCK, layout.codec
    changed: dict[str, Any] = {"rows": rows}
    if layout.nulls == layout.rows:
        changed["nulls"] = rows
    elif layout.nulls:
        bits = layout.null_bits[row >> 3 :][: mask_bytes(rows)]
        nulls = popcount(int.from_bytes(bits, "little"))
        changed.update(nulls=nulls, null_bits=bits if 0 < nulls < rows else bits[:0])
    if codec == AFFINE:
        changed["base"] = layout.base + layout.step * row
    elif codec == SLOPE:
        changed["lines"] = layout.lines[_LINE.size * first : _LINE.size * (first + blocks)]
    if codec == RAW and layout.code in VARLEN:
        ends = typed("I", layout.offsets[4 * row : 4 * (row + rows + 1)])
        changed["heap"] = layout.heap[ends[0] : ends[-1]]
        changed["offsets"] = memoryview(struct.pack(f"<{rows + 1}I", *[end - ends[0] for end in ends]))
    else:
        each = WIDTHS[layout.code] * BLOCK if codec == RAW else BLOCK >> 3 if codec == BITMAP else 128 * layout.width
        changed["values"] = layout.values[each * first : each * (first + blocks)]
    if layout.layout != PACKED:
        changed.update(_part_marks(layout, first, blocks))
    return layout._replace(**changed)


def _part_marks(layout: Any, first: int, blocks: int) -> dict[str, Any]:
    """The exceptions or runs of some blocks."""
    starts, rows = places_of(layout)
    row, count = first * BLOCK, blocks * BLOCK
    if layout.layout == EXCEPTED:
        low, high = starts[first], starts[first + blocks]
        starts = [start - low for start in starts[first : first + blocks + 1]]
        rows = [place - row for place in rows[low:high]]
    else:
        low = starts[first]
        high = bisect_left(rows, row + count - 1) + 1
        starts = [start - low for start in starts[first : first + blocks]]
        rows = [min(place - row, count - 1) for place in rows[low:high]]
    letter = "I" if layout.layout == EXCEPTED else "H"
    places = struct.pack(f"<{len(starts)}{letter}{len(rows)}H", *starts, *rows)
    codes = layout.codes[layout.size * low : layout.size * high]
    return {"marks": high - low, "places": memoryview(places), "codes": codes}
