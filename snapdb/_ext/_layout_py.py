"""The bytes of a sealed chunk (``docs/format.md``): writing them, and reading them without trusting a single one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, compress, islice
from operator import lt
from typing import Any, NamedTuple

from ._bits_py import flags_of, popcount, raw
from ._checks_py import MOMENTS, NO_MOMENT, NOT_UTF8, RANGES, is_text, wrong_moment, wrong_text
from ._common import (
    AFFINE,
    BITMAP,
    BLOCK,
    BOOL,
    CONST,
    DICT,
    F32,
    FLOATS,
    FOR,
    HEADER,
    INTS,
    RAW,
    SEGMENT,
    STR,
    TYPECODES,
    U64,
    VARLEN,
    WIDTHS,
    container,
    mask_bytes,
)  # fmt: skip
from ._lanes_py import as_bytes, in_range, typed, unpack

__all__ = ["Layout", "build", "dictionary_order", "entries_of", "read", "string_sections", "strings_of"]

_HEAD = struct.Struct("<BBBBIIIqqQQQQQ")
_MASK64 = (1 << 64) - 1
_MAX_HEAP = (1 << 32) - 1
_MAX_ENTRIES = 65535


class Layout(NamedTuple):
    """A chunk's header, with the sections as views (empty where a section is not there)."""

    codec: int
    code: int
    width: int
    rows: int
    nulls: int
    distinct: int
    base: int
    step: int
    null_bits: memoryview
    values: memoryview
    offsets: memoryview
    heap: memoryview


def aligned(size: int) -> int:
    return (size + 63) & ~63


def signed64(value: int) -> int:
    """A value of the i64 or u64 range as two's complement."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


# -- writing ---------------------------------------------------------------


def build(
    codec: int,
    code: int,
    rows: int,
    nulls: int,
    *,
    width: int = 0,
    count: int = 0,
    base: int = 0,
    step: int = 0,
    null_bits: bytes = b"",
    values: bytes = b"",
    offsets: bytes = b"",
    heap: bytes = b"",
) -> bytes:
    """A whole chunk."""
    places = []
    parts = [b""]
    at = HEADER
    for section in (null_bits, values, offsets, heap):
        places.append(at if section else 0)
        parts.append(section)
        at += len(section)
        parts.append(bytes(-at % 64))
        at = aligned(at)
    packed = container(width) if width else 0
    head = _HEAD.pack(codec, code, width, packed, rows, nulls, count, signed64(base), step, *places, at)
    parts[0] = head + bytes(HEADER - len(head))
    return b"".join(parts)


def string_sections(values: Sequence[bytes]) -> tuple[bytes, bytes]:
    """(offsets, heap) of strings; ValueError where the heap is too large."""
    ends = list(accumulate(map(len, values), initial=0))
    if ends[-1] > _MAX_HEAP:
        what = f"the strings of one segment take {ends[-1]} bytes"
        raise ValueError(f"{what}; the limit is {_MAX_HEAP}: use smaller batches")
    return struct.pack(f"<{len(ends)}I", *ends), b"".join(values)


# -- reading ---------------------------------------------------------------


def _need(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"damaged chunk: {what}")


def read(data: Any, trusted: bool = False) -> Layout:
    """The layout of a chunk's bytes; ValueError names what is wrong with them.

    ``trusted``: checked before, or written by us.
    """
    view = raw(data).toreadonly()
    size = view.nbytes
    _need(size >= HEADER, f"{size} bytes are less than a header of {HEADER}")
    codec, code, width, packed, rows, nulls, count, base, step, *places, total = _HEAD.unpack_from(view)
    _need(total == size, f"it says {total} bytes and has {size}")
    _need(not any(view[_HEAD.size : HEADER]), "the reserved bytes of its header are not zero")
    if code == U64:
        base &= _MASK64
    _check_header(codec, code, width, packed, rows, nulls, count)
    lengths = _lengths(codec, code, width, rows, nulls, count, base)
    sections = _sections(view, places, lengths, total)
    layout = Layout(codec, code, width, rows, nulls, count, base, step, *sections)
    if not trusted:
        _check_values(layout)
    return layout


def _check_header(codec: int, code: int, width: int, packed: int, rows: int, nulls: int, count: int) -> None:
    _need(RAW <= codec <= BITMAP, f"unknown codec {codec}")
    _need(code in WIDTHS or code in VARLEN, f"unknown dtype {code}")
    _need(0 < rows <= SEGMENT and not rows % BLOCK, f"{rows} rows are not 1 to 64 whole blocks")
    _need(nulls <= rows, f"{nulls} nulls in {rows} rows")
    _need(nulls < rows or codec == CONST, "all rows are null but the codec is not CONST")
    _need(nulls == 0 or codec != AFFINE, "an arithmetic sequence cannot have nulls")
    if codec in (FOR, AFFINE):
        fits = code in INTS
    elif codec == BITMAP:
        fits = code == BOOL
    elif codec == DICT:
        fits = code != BOOL
    else:
        fits = code != BOOL or codec == CONST
    _need(fits, f"codec {codec} does not hold dtype {code}")
    if codec in (FOR, DICT):
        most = 8 * WIDTHS[code] if codec == FOR else 16
        _need(0 < width <= most, f"values of {width} bits")
        _need(packed == container(width), f"containers of {packed} bits for values of {width}")
    else:
        _need(width == 0 and packed == 0, f"codec {codec} packs nothing but says {width} bits")
    _need(0 < count <= _MAX_ENTRIES if codec == DICT else count == 0, f"{count} distinct values")


def _lengths(codec: int, code: int, width: int, rows: int, nulls: int, count: int, base: int) -> list[int]:
    """Bytes of the sections; -1 for a heap whose length its offsets say."""
    strings = code in VARLEN
    values = offsets = heap = 0
    if codec in (FOR, DICT):
        values = rows // BLOCK * 128 * width
    elif codec == BITMAP:
        values = mask_bytes(rows)
    elif codec == RAW and not strings:
        values = rows * WIDTHS[code]
    if strings:
        if codec == CONST:
            _need(0 <= base <= _MAX_HEAP, f"a value of {base} bytes")
            heap = base
        else:
            offsets, heap = 4 * ((count if codec == DICT else rows) + 1), -1
    elif codec == DICT:
        heap = count * WIDTHS[code]
    return [mask_bytes(rows) if 0 < nulls < rows else 0, values, offsets, heap]


def _sections(view: memoryview, places: list[int], lengths: list[int], total: int) -> list[memoryview]:
    names = ("nulls", "values", "offsets", "heap")
    sections: list[memoryview] = []
    at = HEADER
    for name, place, length in zip(names, places, lengths):
        if length < 0:
            length = struct.unpack_from("<I", sections[-1], sections[-1].nbytes - 4)[0]
        if not length:
            _need(place == 0, f"it has no {name} but says where they are")
            sections.append(view[:0])
            continue
        _need(place == at, f"its {name} are at {place}, not at {at}")
        _need(at + length <= total, f"its {name} end past the chunk")
        sections.append(view[at : at + length])
        at = aligned(at + length)
    _need(at == total, f"its sections take {at} bytes of {total}")
    return sections


def _check_values(layout: Layout) -> None:
    codec, code = layout.codec, layout.code
    if layout.null_bits.nbytes:
        found = popcount(int.from_bytes(layout.null_bits, "little"))
        _need(found == layout.nulls, f"it says {layout.nulls} nulls and has {found}")
    if codec not in (CONST, AFFINE, FOR):
        _need(layout.base == 0, "it has a base")
    if codec != AFFINE:
        _need(layout.step == 0, "it has a step")
    if codec == CONST:
        _check_constant(layout)
    elif codec == AFFINE:
        _check_in_type(code, layout.base)
        _check_in_type(code, layout.base + (layout.rows - 1) * layout.step)
    elif codec == FOR:
        _check_in_type(code, layout.base)
        _check_packed(layout)
    elif code in VARLEN:
        _check_offsets(layout)
    elif codec == RAW and code in MOMENTS:
        row = wrong_moment(code, layout.values)
        _need(row is None, f"row {row}: {NO_MOMENT}")
    if codec == DICT:
        _check_dictionary(layout)


def _check_in_type(code: int, value: int) -> None:
    low, high = RANGES[code]
    _need(low <= value <= high, f"{value} is outside the dtype's range")


def _check_constant(layout: Layout) -> None:
    if layout.nulls == layout.rows:
        _need(layout.base == 0, "all rows are null but it has a base")
    elif layout.code == F32:
        _need(0 <= layout.base <= 0xFFFFFFFF, "its base is no f32")
    elif layout.code in RANGES:
        _check_in_type(layout.code, layout.base)
    elif layout.code == STR:
        _need(is_text(bytes(layout.heap)), f"its value is {NOT_UTF8}")


def _check_packed(layout: Layout) -> None:
    room = RANGES[layout.code][1] - layout.base  # the greatest offset that stays in the dtype
    if room < (1 << layout.width) - 1:
        size = container(layout.width) >> 3
        outside = in_range(unpack(layout.values, layout.width), size, room + 1, (1 << 8 * size) - 1)
        _need(not outside, "a value is outside the dtype's range")


def _check_offsets(layout: Layout) -> None:
    ends = typed("I", layout.offsets).tolist()
    _need(ends[0] == 0 and ends == sorted(ends), "its string offsets do not rise from 0")
    if layout.codec == RAW and layout.null_bits.nbytes:
        _check_null_strings(layout, ends)
    if layout.code == STR:
        row = wrong_text(layout.heap, ends)
        _need(row is None, f"{'entry' if layout.codec == DICT else 'row'} {row}: {NOT_UTF8}")


def _check_null_strings(layout: Layout, ends: list[int]) -> None:
    """A null row's string is empty."""
    null = flags_of(int.from_bytes(layout.null_bits, "little"), layout.rows)
    if list(compress(ends, null)) != list(compress(islice(ends, 1, None), null)):
        row = next(row for row, flag in enumerate(null) if flag and ends[row] != ends[row + 1])
        _need(False, f"row {row} is null and has {ends[row + 1] - ends[row]} bytes")


def dictionary_order(code: int, entries: Any) -> list[Any]:
    """The keys that a dictionary's entries are sorted by: the values, for floats their sign-folded bits."""
    if code not in FLOATS:
        return list(entries)
    half = 1 << (8 * WIDTHS[code] - 1)
    top = 2 * half - 1
    bits = typed("I" if code == F32 else "Q", as_bytes(entries))
    return [top - value if value & half else value + half for value in bits]


def _check_dictionary(layout: Layout) -> None:
    keys = dictionary_order(layout.code, entries_of(layout))
    _need(all(map(lt, keys, keys[1:])), "its dictionary is not sorted")
    if layout.code in MOMENTS:
        row = wrong_moment(layout.code, layout.heap)
        _need(row is None, f"entry {row}: {NO_MOMENT}")
    _need(layout.distinct <= 1 << layout.width, "its dictionary has more values than codes")
    if layout.distinct < 1 << layout.width:
        size = container(layout.width) >> 3
        codes = unpack(layout.values, layout.width)
        _need(not in_range(codes, size, layout.distinct, (1 << 8 * size) - 1), "a code has no dictionary value")


def strings_of(offsets: Any, heap: Any) -> list[bytes]:
    """The strings between u32 offsets."""
    ends = typed("I", offsets).tolist()
    whole = bytes(heap)
    return [whole[start:stop] for start, stop in zip(ends, ends[1:])]


def entries_of(layout: Layout) -> Any:
    """A dictionary's values: a list of bytes, or an array."""
    if layout.code in VARLEN:
        return strings_of(layout.offsets, layout.heap)
    return typed(TYPECODES[layout.code], layout.heap)
