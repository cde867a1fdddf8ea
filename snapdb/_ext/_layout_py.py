"""The bytes of a sealed chunk (``docs/format.md``): writing them, and reading them without trusting a single one."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, compress, islice
from operator import le, lt
from typing import Any, NamedTuple

from . import _lanes_py
from ._bits_py import flags_of, popcount, raw
from ._checks_py import MOMENTS, NO_MOMENT, NOT_UTF8, RANGES, is_text, wrong_moment, wrong_text
from ._codes_py import codes_of, has_codes, lines_of, most_code, need, places_of, unfold
from ._common import (
    AFFINE,
    BITMAP,
    BLOCK,
    BOOL,
    CONST,
    DEC,
    DICT,
    EXCEPTED,
    F32,
    FLOATS,
    FOR,
    FRONT,
    HEADER,
    I64,
    INTS,
    MOST_ODD,
    MOST_RUNS,
    PACKED,
    RAW,
    RESTART,
    RUNS,
    SEGMENT,
    SLOPE,
    STR,
    TYPECODES,
    U64,
    VARLEN,
    WIDTHS,
    container,
    mask_bytes,
)  # fmt: skip
from ._lanes_py import as_bytes, lanes, typed

__all__ = ["Layout", "dictionary_order", "entries_of", "read", "string_sections", "strings_of"]

_READ = struct.Struct("<BBBBIIIqqQQQQQBBBBIQQQQ")
_MASK64 = (1 << 64) - 1
_MAX_HEAP = (1 << 32) - 1
_MAX_ENTRIES = 65535
_MOST_DECIMAL = 1 << 51
_NOTHING = memoryview(b"")


class Layout(NamedTuple):
    """A chunk's header, with the sections as views (empty where a section is not there)."""

    codec: int
    code: int
    width: int
    rows: int
    nulls: int
    distinct: int
    base: int
    step: int  # FOR, SLOPE, DEC: at least 1
    null_bits: memoryview = _NOTHING
    values: memoryview = _NOTHING
    offsets: memoryview = _NOTHING
    heap: memoryview = _NOTHING
    size: int = 1  # bytes of a code's container
    layout: int = PACKED
    digits: int = 0
    power: int = 0
    plain: int = 0
    marks: int = 0
    places: memoryview = _NOTHING
    codes: memoryview = _NOTHING
    lines: memoryview = _NOTHING
    unfolded: int = 0  # bytes that an unpacked dictionary takes


class Header(NamedTuple):
    """The first bytes of a chunk, field by field."""

    codec: int
    code: int
    width: int
    packed: int
    rows: int
    nulls: int
    distinct: int  # or DEC's odd values
    base: int
    step: int
    nulls_at: int
    values_at: int
    offsets_at: int
    heap_at: int
    total: int
    layout: int
    digits: int
    power: int
    flags: int
    marks: int
    places_at: int
    codes_at: int
    lines_at: int
    plain: int


_NULLS_AT, _TOTAL = Header._fields.index("nulls_at"), Header._fields.index("total")
_PLACES_AT, _PLAIN = Header._fields.index("places_at"), Header._fields.index("plain")


def aligned(size: int) -> int:
    return (size + 63) & ~63


# -- writing ---------------------------------------------------------------


def string_sections(values: Sequence[bytes]) -> tuple[bytes, bytes]:
    """(offsets, heap) of strings; ValueError where the heap is too large."""
    ends = list(accumulate(map(len, values), initial=0))
    if ends[-1] > _MAX_HEAP:
        what = f"the strings of one segment take {ends[-1]} bytes"
        raise ValueError(f"{what}; the limit is {_MAX_HEAP}: use smaller batches")
    return struct.pack(f"<{len(ends)}I", *ends), b"".join(values)


# -- reading ---------------------------------------------------------------


def read(data: Any, trusted: bool = False, loops: Any = _lanes_py) -> Layout:
    """The layout of a chunk's bytes; ValueError names what is wrong with them.

    ``trusted``: checked before, or written by us. ``loops``: the module with the loops over whole arrays.
    """
    view = raw(data).toreadonly()
    size = view.nbytes
    need(size >= HEADER, f"{size} bytes are less than a header of {HEADER}")
    head = Header._make(_READ.unpack_from(view))
    need(head.total == size, f"it says {head.total} bytes and has {size}")
    need(not any(view[_READ.size : HEADER]), "the reserved bytes of its header are not zero")
    if not trusted:
        _check_header(head)
    lengths = _lengths(head)
    sections = _sections(view, head, lengths)
    base = head.base & _MASK64 if head.code == U64 else head.base
    coded = has_codes(head.codec)
    null_bits, values, offsets, heap, places, codes, lines = sections
    layout = Layout(
        head.codec, head.code, head.width, head.rows, head.nulls, head.distinct, base,
        head.step or 1 if coded else head.step, null_bits, values, offsets, heap, head.packed >> 3 or 1, head.layout,
        head.digits, head.power, head.plain, head.marks, places, codes, lines,
    )  # fmt: skip
    if not trusted:
        if layout.null_bits.nbytes:
            found = popcount(int.from_bytes(layout.null_bits, "little"))
            need(found == layout.nulls, f"it says {layout.nulls} nulls and has {found}")
        if layout.layout == EXCEPTED:
            _check_exceptions(layout, loops)
        elif layout.layout == RUNS:
            _check_runs(layout)
    if head.flags == FRONT:
        restarts = typed("I", layout.offsets)
        ends, whole = unfold(layout.distinct, restarts, bytes(layout.heap))
        unfolded = len(ends) + len(whole)
        layout = layout._replace(offsets=memoryview(ends), heap=memoryview(whole), unfolded=unfolded)
    if not trusted:
        _check_values(layout, loops)
    return layout


def _check_header(head: Header) -> None:
    codec, code = head.codec, head.code
    need(RAW <= codec <= DEC, f"unknown codec {codec}")
    need(code in WIDTHS or code in VARLEN, f"unknown dtype {code}")
    need(0 < head.rows <= SEGMENT and not head.rows % BLOCK, f"{head.rows} rows are not 1 to 64 whole blocks")
    need(head.nulls <= head.rows, f"{head.nulls} nulls in {head.rows} rows")
    need(head.nulls < head.rows or codec == CONST, "all rows are null but the codec is not CONST")
    need(head.nulls == 0 or codec != AFFINE, "an arithmetic sequence cannot have nulls")
    need(head.nulls == 0 or codec != SLOPE, "a slope cannot have nulls")
    if codec in (FOR, AFFINE, SLOPE):
        fits = code in INTS
    elif codec == DEC:
        fits = code in FLOATS
    elif codec == BITMAP:
        fits = code == BOOL
    else:
        fits = code != BOOL or codec == CONST
    need(fits, f"codec {codec} does not hold dtype {code}")
    _check_layout(head)
    if codec == DEC:
        need(head.distinct <= MOST_ODD, f"{head.distinct} odd values")
    else:
        need(
            0 < head.distinct <= _MAX_ENTRIES if codec == DICT else head.distinct == 0,
            f"{head.distinct} distinct values",
        )
    need(head.base == 0 or codec in (CONST, AFFINE, FOR, DEC), "it has a base")
    if codec in (FOR, SLOPE, DEC):
        need(head.step == 0 or head.step > 1, f"a step of {head.step}")
    else:
        need(head.step == 0 or codec == AFFINE, "it has a step")
    _check_digits(head)
    fits = head.flags in (0, FRONT) if codec == DICT and code in VARLEN else head.flags == 0
    need(fits, f"unknown flags {head.flags}")


def _check_layout(head: Header) -> None:
    """The layout, W, T and how many marks there are."""
    codec, layout, width, packed = head.codec, head.layout, head.width, head.packed
    need(layout <= RUNS, f"unknown layout {layout}")
    containers = f"containers of {packed} bits for values of {width}"
    most = 8 * WIDTHS[head.code] if codec == FOR else 16 if codec == DICT else 64
    if not has_codes(codec):
        need(layout == PACKED, f"codec {codec} has no layout {layout}")
        need(width == 0 and packed == 0, f"codec {codec} packs nothing but says {width} bits")
    elif layout == PACKED:
        need(0 < width <= most or (width == 0 and codec == SLOPE), f"values of {width} bits")
        need(packed == (container(width) if width else 0), containers)
    else:
        need(packed <= container(most) and packed in (8, 16, 32, 64), containers)
        need(width < packed and (width == 0 or layout == EXCEPTED), f"values of {width} bits")
    if layout == EXCEPTED:
        need(0 < head.marks < SEGMENT, f"{head.marks} exceptions")
    elif layout == RUNS:
        need(0 < head.marks <= MOST_RUNS, f"{head.marks} runs")
    else:
        need(head.marks == 0, f"{head.marks} marks")


def _check_digits(head: Header) -> None:
    """What DEC says of its decimals."""
    if head.codec != DEC:
        need(not (head.digits or head.power or head.plain), "it has decimals")
        return
    need(head.digits <= (9 if head.code == F32 else 15), f"decimals of {head.digits} digits")
    fits = head.power <= 22 and (head.power == 0 or head.power > head.digits)
    need(fits, f"a power of {head.power} for {head.digits} digits")
    need(0 < head.plain <= 2 * _MOST_DECIMAL + 1, f"{head.plain} decimals")
    last = head.base + (head.step or 1) * (head.plain - 1)
    need(-_MOST_DECIMAL <= head.base and last <= _MOST_DECIMAL, "its decimals go past 2**51")


def _lengths(head: Header) -> list[int]:
    """Bytes of the sections; -1 for a heap whose length its offsets say."""
    codec, rows, blocks = head.codec, head.rows, head.rows // BLOCK
    strings = head.code in VARLEN
    values = offsets = heap = places = 0
    if has_codes(codec):
        values = blocks * 128 * head.width
    elif codec == BITMAP:
        values = mask_bytes(rows)
    elif codec == RAW and not strings:
        values = rows * WIDTHS[head.code]
    if strings:
        if codec == CONST:
            need(0 <= head.base <= _MAX_HEAP, f"a value of {head.base} bytes")
            heap = head.base
        else:
            count = head.distinct if codec == DICT else rows
            if head.flags == FRONT:
                count = (count + RESTART - 1) // RESTART
            offsets, heap = 4 * (count + 1), -1
    elif codec in (DICT, DEC):
        heap = head.distinct * WIDTHS[head.code]
    if head.layout == EXCEPTED:
        places = 4 * (blocks + 1) + 2 * head.marks
    elif head.layout == RUNS:
        places = 2 * (blocks + head.marks)
    codes = head.marks * (head.packed >> 3)
    lines = 24 * blocks if codec == SLOPE else 0
    return [mask_bytes(rows) if 0 < head.nulls < rows else 0, values, offsets, heap, places, codes, lines]


def _sections(view: memoryview, head: Header, lengths: list[int]) -> list[memoryview]:
    names = ("nulls", "values", "offsets", "heap", "places", "codes", "lines")
    found = (*head[_NULLS_AT:_TOTAL], *head[_PLACES_AT:_PLAIN])
    sections: list[memoryview] = []
    at = HEADER
    for name, place, length in zip(names, found, lengths):
        if length < 0:
            length = struct.unpack_from("<I", sections[-1], sections[-1].nbytes - 4)[0]
        if not length:
            need(place == 0, f"it has no {name} but says where they are")
            sections.append(view[:0])
            continue
        need(place == at, f"its {name} are at {place}, not at {at}")
        need(at + length <= head.total, f"its {name} end past the chunk")
        sections.append(view[at : at + length])
        at = aligned(at + length)
    need(at == head.total, f"its sections take {at} bytes of {head.total}")
    return sections


def _check_exceptions(layout: Layout, loops: Any) -> None:
    starts, rows = places_of(layout)
    rise = starts[0] == 0 and starts[-1] == layout.marks and all(map(le, starts, starts[1:]))
    need(rise, f"the starts of its exceptions do not rise from 0 to {layout.marks}")
    ordered = all(map(lt, rows, rows[1:]))
    for block, (low, high) in enumerate(zip(starts, starts[1:])):  # rising rows: the ends tell of those between
        ordered = ordered and (low == high or rows[low] >> 10 == rows[high - 1] >> 10 == block)
    need(ordered, "its exceptions are not in the order of their rows")
    least = min(lanes(layout.size, layout.codes))
    need(least >> layout.width > 0, f"the code of an exception fits into {layout.width} bits")
    if layout.width:
        stored = lanes(layout.size, loops.unpack(layout.values, layout.width, 8 * layout.size))
        need(not any(map(stored.__getitem__, rows)), "a row with an exception has a code too")


def _check_runs(layout: Layout) -> None:
    firsts, last = places_of(layout)
    rise = all(map(lt, last, last[1:])) and last[-1] == layout.rows - 1
    need(rise, f"its runs do not end in rows that rise to {layout.rows - 1}")
    right = [bisect_left(last, block * BLOCK) for block in range(len(firsts))]
    need(firsts == right, "its blocks do not start in the runs that they say")


def _check_values(layout: Layout, loops: Any) -> None:
    codec, code = layout.codec, layout.code
    if codec == CONST:
        _check_constant(layout)
    elif codec == AFFINE:
        _check_in_type(code, layout.base)
        _check_in_type(code, layout.base + (layout.rows - 1) * layout.step)
    elif codec == FOR:
        _check_in_type(code, layout.base)
        _check_offsets_in_type(layout, loops)
    elif codec == SLOPE:
        _check_slopes(layout, loops)
    elif codec == DEC:
        keys = dictionary_order(code, entries_of(layout))
        need(all(map(lt, keys, keys[1:])), "its odd values are not sorted")
        need(not _any_above(layout, most_code(layout), loops), "a code has no value")
    elif code in VARLEN:
        _check_offsets(layout)
    elif codec == RAW and code in MOMENTS:
        row = wrong_moment(code, layout.values)
        need(row is None, f"row {row}: {NO_MOMENT}")
    if codec == DICT:
        _check_dictionary(layout, loops)


def _any_above(layout: Layout, most: int, loops: Any) -> bool:
    """Whether a code is greater than this."""
    if layout.layout != PACKED:
        return max(lanes(layout.size, layout.codes)) > most
    if most >= (1 << layout.width) - 1:
        return False
    codes = codes_of(layout, loops)
    return bool(loops.in_range(codes, layout.size, most + 1, (1 << 8 * layout.size) - 1))


def _check_in_type(code: int, value: int) -> None:
    low, high = RANGES[code]
    need(low <= value <= high, f"{value} is outside the dtype's range")


def _check_constant(layout: Layout) -> None:
    if layout.nulls == layout.rows:
        need(layout.base == 0, "all rows are null but it has a base")
    elif layout.code == F32:
        need(0 <= layout.base <= 0xFFFFFFFF, "its base is no f32")
    elif layout.code in RANGES:
        _check_in_type(layout.code, layout.base)
    elif layout.code == STR:
        need(is_text(bytes(layout.heap)), f"its value is {NOT_UTF8}")


def _check_offsets_in_type(layout: Layout, loops: Any) -> None:
    """FOR: the greatest code gives a value of the dtype."""
    most = (RANGES[layout.code][1] - layout.base) // layout.step  # the greatest code that stays in the dtype
    if _any_above(layout, most, loops):
        greatest = max(lanes(layout.size, codes_of(layout, loops)))
        _check_in_type(layout.code, layout.base + layout.step * greatest)


def _check_slopes(layout: Layout, loops: Any) -> None:
    need(
        not any(zero for *_, zero in struct.iter_unpack("<qqII", layout.lines)),
        "the reserved bytes of its lines are not zero",
    )
    if layout.code in (I64, U64):
        return
    low, high = RANGES[layout.code]
    step, top = layout.step, most_code(layout)
    doubtful = False
    for base, whole, fraction in lines_of(layout):
        end = (BLOCK - 1) * ((whole << 32) + fraction) >> 32  # a line rises or falls all the way
        fits = low <= base + step * min(end, 0) and base + step * (max(end, 0) + top) <= high
        doubtful = doubtful or not fits
    if doubtful:
        values = typed("q", loops.lines(codes_of(layout, loops), layout.size, lines_of(layout), step))
        need(low <= min(values) and max(values) <= high, "a value is outside the dtype's range")


def _check_offsets(layout: Layout) -> None:
    ends = typed("I", layout.offsets).tolist()
    need(ends[0] == 0 and ends == sorted(ends), "its string offsets do not rise from 0")
    if layout.codec == RAW and layout.null_bits.nbytes:
        _check_null_strings(layout, ends)
    if layout.code == STR:
        row = wrong_text(layout.heap, ends)
        need(row is None, f"{'entry' if layout.codec == DICT else 'row'} {row}: {NOT_UTF8}")


def _check_null_strings(layout: Layout, ends: list[int]) -> None:
    """A null row's string is empty."""
    null = flags_of(int.from_bytes(layout.null_bits, "little"), layout.rows)
    if list(compress(ends, null)) != list(compress(islice(ends, 1, None), null)):
        row = next(row for row, flag in enumerate(null) if flag and ends[row] != ends[row + 1])
        need(False, f"row {row} is null and has {ends[row + 1] - ends[row]} bytes")


def dictionary_order(code: int, entries: Any) -> list[Any]:
    """The keys that a dictionary's entries are sorted by: the values, for floats their sign-folded bits."""
    if code not in FLOATS:
        return list(entries)
    half = 1 << (8 * WIDTHS[code] - 1)
    top = 2 * half - 1
    bits = typed("I" if code == F32 else "Q", as_bytes(entries))
    return [top - value if value & half else value + half for value in bits]


def _check_dictionary(layout: Layout, loops: Any) -> None:
    keys = dictionary_order(layout.code, entries_of(layout))
    need(all(map(lt, keys, keys[1:])), "its dictionary is not sorted")
    if layout.code in MOMENTS:
        row = wrong_moment(layout.code, layout.heap)
        need(row is None, f"entry {row}: {NO_MOMENT}")
    most = 1 << (layout.width if layout.layout == PACKED else 8 * layout.size)
    need(layout.distinct <= most, "its dictionary has more values than codes")
    need(not _any_above(layout, layout.distinct - 1, loops), "a code has no dictionary value")


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
