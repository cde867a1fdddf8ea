"""Slow, literal writers of chunk bytes after ``docs/format.md``: every codec that has codes in every layout.

They share no code with the package but its constants, so that reading can be tested without the package's writers, and
the writers against them.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator
from functools import reduce
from typing import Any, Optional

from snapdb._ext import _common as c

HEAD = struct.Struct("<BBBBIIIqqQQQQQBBBBIQQQQ")
MASK = (1 << 64) - 1
LAYOUTS = (c.PACKED, c.EXCEPTED, c.RUNS)
POWERS = (14, 17, 20)
Codes = list[Optional[int]]


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 64)


def two(value: int) -> int:
    """Two's complement as i64."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def bitmap(rows: Iterator[int] | list[int], size: int) -> bytes:  # type: ignore[type-arg, unused-ignore]
    bits = 0
    for row in rows:
        bits |= 1 << row
    return bits.to_bytes((size + 63) // 64 * 8, "little")


def pack(values: list[int], width: int, size: int) -> bytes:
    """Whole blocks of ``width``-bit values in words of ``size`` bits, as the format page has it, bit by bit."""
    if not width:
        return b""
    lanes = 1024 // size
    out = []
    for block in range(0, len(values), 1024):
        words = [0] * (width * lanes)
        for i in range(1024):
            row, lane = divmod(i, lanes)
            word, bit = divmod(row * width, size)
            value = values[block + i] << bit
            words[word * lanes + lane] |= value & ((1 << size) - 1)
            if value >> size:
                words[(word + 1) * lanes + lane] |= value >> size
        out += [word.to_bytes(size // 8, "little") for word in words]
    return b"".join(out)


def chunk(codec: int, code: int, rows: int, **given: Any) -> bytes:
    """A chunk with these header fields and sections; what is not given is 0 or empty."""
    names = ("null_bits", "values", "offsets", "heap", "places", "codes", "lines")
    sections = [given.pop(name, b"") for name in names]
    at = c.HEADER
    places = []
    for section in sections:
        places.append(at if section else 0)
        at += len(aligned(section))
    field = given.pop
    head = HEAD.pack(
        codec, code, field("width", 0), field("packed", 0), rows, field("nulls", 0), field("count", 0),
        two(field("base", 0)), field("step", 0), *places[:4], at, field("layout", 0), field("digits", 0),
        field("power", 0), field("flags", 0), field("marks", 0), *places[4:], field("plain", 0),
    )  # fmt: skip
    if given:
        raise TypeError(f"no such fields: {sorted(given)}")
    return b"".join([head.ljust(c.HEADER, b"\0"), *map(aligned, sections)])


def null_fields(values: list[Any]) -> dict[str, Any]:
    null = [row for row, value in enumerate(values) if value is None]
    return {"nulls": len(null), "null_bits": bitmap(null, len(values)) if null else b""}


def stream(codes: Codes, layout: int, width: Optional[int] = None) -> dict[str, Any]:
    """Header fields and sections of codes (None in the null rows).

    ``width``: PACKED, at least the bits of the largest code; EXCEPTED, fewer (default: all but the top quarter).
    """
    top = max(code for code in codes if code is not None)
    bits = top.bit_length()
    if layout == c.PACKED:
        width = bits if width is None else width
        if not width:
            return {}
        size = c.container(width)
        return {"width": width, "packed": size, "values": pack([code or 0 for code in codes], width, size)}
    size = c.container(bits)
    if layout == c.RUNS:
        return {"layout": c.RUNS, "packed": size, **_runs(codes, size)}
    if width is None:
        width = bits * 3 // 4
    return {"layout": c.EXCEPTED, "packed": size, "width": width, **_exceptions(codes, size, width)}


def _runs(codes: Codes, size: int) -> dict[str, Any]:
    kept = next(code for code in codes if code is not None)
    filled = []
    for code in codes:
        kept = kept if code is None else code
        filled.append(kept)
    last = [row for row in range(len(filled)) if row + 1 == len(filled) or filled[row] != filled[row + 1]]
    starts = [sum(row < block for row in last) for block in range(0, len(filled), 1024)]
    places = struct.pack(f"<{len(starts)}H{len(last)}H", *starts, *last)
    words = b"".join(filled[row].to_bytes(size // 8, "little") for row in last)
    return {"marks": len(last), "places": places, "codes": words}


def _exceptions(codes: Codes, size: int, width: int) -> dict[str, Any]:
    rows = [row for row, code in enumerate(codes) if code is not None and code >> width]
    hidden = set(rows)
    low = [0 if code is None or row in hidden else code for row, code in enumerate(codes)]
    starts = [sum(row < block for row in rows) for block in range(0, len(codes) + 1, 1024)]
    places = struct.pack(f"<{len(starts)}I{len(rows)}H", *starts, *rows)
    words = b"".join((codes[row] or 0).to_bytes(size // 8, "little") for row in rows)
    values = pack(low, width, size) if width else b""
    return {"marks": len(rows), "places": places, "codes": words, "values": values}


# -- codecs ----------------------------------------------------------------
def frame(code: int, values: list[Any], layout: int, width: Optional[int] = None, step: int = 0) -> bytes:
    """FOR; ``step`` 0 means 1."""
    low = min(value for value in values if value is not None)
    codes = [None if value is None else (value - low) // (step or 1) for value in values]
    return chunk(c.FOR, code, len(values), base=low, step=step, **null_fields(values), **stream(codes, layout, width))


def slope(code: int, values: list[int], layout: int, width: Optional[int] = None, step: int = 0) -> bytes:
    """SLOPE; ``step`` 0 means 1."""
    lines, codes = slope_codes(values, step or 1)
    return chunk(c.SLOPE, code, len(values), step=step, lines=lines, **stream(list(codes), layout, width))


def slope_codes(values: list[int], step: int) -> tuple[bytes, list[int]]:
    low = min(values)
    lines, codes = b"", []
    for start in range(0, len(values), 1024):
        block = [(value - low) // step for value in values[start : start + 1024]]
        first, rise = block[0], block[-1] - block[0]
        whole = rise // 1023
        fraction = ((rise - 1023 * whole) << 32) // 1023
        left = [value - first - row * whole - (row * fraction >> 32) for row, value in enumerate(block)]
        least = min(left)
        codes += [value - least for value in left]
        lines += struct.pack("<qqII", two(low + step * (first + least)), two(whole), fraction, 0)
    return lines, codes


def bits_of(code: int, value: float) -> int:
    return int(struct.unpack("<I", array("f", [value]).tobytes())[0]) if code == c.F32 else f64_bits(value)


def f64_bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def folded(code: int, bits: int) -> int:
    top = 1 << (31 if code == c.F32 else 63)
    return 2 * top - 1 - bits if bits & top else bits | top


def words_of(code: int, bits: list[int]) -> bytes:
    return struct.pack(f"<{len(bits)}{'I' if code == c.F32 else 'Q'}", *bits)


def narrowed(code: int, value: float) -> float:
    return float(array("f", [value])[0]) if code == c.F32 else value


def decimal_of(code: int, value: float, digits: int) -> Optional[int]:
    """The value times 10**digits where that gives it back, else None."""
    if not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0):
        return None
    scaled = value * float(f"1e{digits}")
    if not abs(scaled) <= 2**51:
        return None
    made = round(scaled)
    return made if narrowed(code, made / float(f"1e{digits}")) == value else None


def digits_of(code: int, value: float) -> Optional[int]:
    """The fewest digits that give a value back, None where there are none."""
    most = 9 if code == c.F32 else 15
    return next((digits for digits in range(most + 1) if decimal_of(code, value, digits) is not None), None)


def product(code: int, decimal: int, digits: int, power: int) -> float:
    up, down = float(f"1e{power - digits}"), float(f"1e-{power}")
    return narrowed(code, float(decimal) * up * down)


def decimals(
    code: int, values: list[Any], layout: int, width: Optional[int] = None, step: int = 0,
    digits: Optional[int] = None, power: Optional[int] = None,
) -> bytes:  # fmt: skip
    """DEC. ``digits`` and ``power``: those of the choice rule; ``step`` 0 means 1."""
    if digits is None:
        digits = max(found for value in values if value is not None and (found := digits_of(code, value)) is not None)
    rows = [None if value is None else decimal_of(code, value, digits) for value in values]
    known = [row for row in rows if row is not None]
    if power is None:
        power = next((p for p in POWERS if p > digits and gives_back(code, values, rows, digits, p)), 0)
    low, top = min(known), (max(known) - min(known)) // (step or 1)
    odd = {bits_of(code, value) for value, row in zip(values, rows) if value is not None and row is None}
    ordered = sorted(odd, key=lambda bits: folded(code, bits))
    numbers = {bits: top + 1 + i for i, bits in enumerate(ordered)}
    codes: Codes = []
    for value, row in zip(values, rows):
        if value is None:
            codes.append(None)
        else:
            codes.append(numbers[bits_of(code, value)] if row is None else (row - low) // (step or 1))
    fields = {"digits": digits, "power": power, "plain": top + 1, "count": len(odd), "base": low, "step": step}
    heap = words_of(code, ordered)
    return chunk(
        c.DEC, code, len(values), heap=heap, **fields, **null_fields(values), **stream(codes, layout, width)
    )  # fmt: skip


def gives_back(code: int, values: list[Any], rows: Codes, digits: int, power: int) -> bool:
    return all(row is None or product(code, row, digits, power) == value for value, row in zip(values, rows))


def dictionary(code: int, values: list[Any], layout: int, width: Optional[int] = None, front: bool = False) -> bytes:
    """DICT; ``front``: with a front-coded dictionary of strings."""
    keys = [None if value is None else bits_of(code, value) if code in c.FLOATS else value for value in values]
    known = {key for key in keys if key is not None}
    entries = sorted(known, key=(lambda key: folded(code, key)) if code in c.FLOATS else None)
    numbers = {key: number for number, key in enumerate(entries)}
    codes = [None if key is None else numbers[key] for key in keys]
    fields: dict[str, Any] = {"count": len(entries)}
    if code not in c.VARLEN:
        letter = "I" if code == c.F32 else "Q" if code == c.F64 else c.TYPECODES[code]
        fields["heap"] = struct.pack(f"<{len(entries)}{letter}", *entries)
    elif front:
        fields["flags"] = c.FRONT
        fields["offsets"], fields["heap"] = front_coded(entries)
    else:
        ends = [sum(map(len, entries[:i])) for i in range(len(entries) + 1)]
        fields["offsets"], fields["heap"] = struct.pack(f"<{len(ends)}I", *ends), b"".join(entries)
    return chunk(c.DICT, code, len(values), **fields, **null_fields(values), **stream(codes, layout, width))


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def front_coded(entries: list[bytes]) -> tuple[bytes, bytes]:
    """(restarts, heap)"""
    restarts, heap, before = [], b"", b""
    for number, entry in enumerate(entries):
        if number % 16:
            shared = 0
            while shared < min(len(entry), len(before)) and entry[shared] == before[shared]:
                shared += 1
            heap += varint(shared) + varint(len(entry) - shared) + entry[shared:]
        else:
            restarts.append(len(heap))
            heap += varint(len(entry)) + entry
        before = entry
    return struct.pack(f"<{len(restarts) + 1}I", *restarts, len(heap)), heap


def common_divisor(values: list[Any]) -> int:
    """The greatest step of a column's values, 0 where that is 1."""
    known = [value for value in values if value is not None]
    low = min(known)
    found = reduce(math.gcd, (value - low for value in known))
    return found if found > 1 else 0


# -- every form of a column --------------------------------------------------
def every_form(code: int, values: list[Any]) -> Iterator[tuple[str, bytes]]:
    """(name, chunk) for each codec with codes, in each layout, that can hold a column of at least two values."""
    known = {value if code not in c.FLOATS else bits_of(code, value) for value in values if value is not None}
    if len(known) < 2 or code == c.BOOL:
        return
    makers: list[tuple[str, Any]] = []
    if len(known) <= 65535:
        makers.append(("dict", dictionary))
        if code in c.VARLEN:
            makers.append(("front", lambda *args: dictionary(*args, front=True)))
    if code in c.INTS:
        step = common_divisor(values)
        steps = sorted({0, step} | ({step // 2} if step > 2 and step % 2 == 0 else set()))
        for each in steps:
            if each < 1 << 63:
                makers.append((f"for step {each}", lambda *args, each=each: frame(*args, step=each)))
                if None not in values and max(values) - min(values) < (each or 1) << 62:
                    makers.append((f"slope step {each}", lambda *args, each=each: slope(*args, step=each)))
    if code in c.FLOATS and decimals_fit(code, values):
        makers.append(("dec", decimals))
        makers.append(("dec divided", lambda *args: decimals(*args, power=0)))
    for name, make in makers:
        for layout in LAYOUTS:
            made = _try(make, code, values, layout)
            if made is not None:
                yield f"{name} layout {layout}", made


def decimals_fit(code: int, values: list[Any]) -> bool:
    digits = [digits_of(code, value) for value in values if value is not None]
    known = [found for found in digits if found is not None]
    if not known:
        return False
    odd = {bits_of(code, v) for v in values if v is not None and decimal_of(code, v, max(known)) is None}
    rest = any(v is not None and decimal_of(code, v, max(known)) is not None for v in values)
    return rest and len(odd) <= c.MOST_ODD


def _try(make: Any, code: int, values: list[Any], layout: int) -> Optional[bytes]:
    """The chunk, None where the form cannot hold this column."""
    made: bytes = make(code, values, layout)
    width, packed, count, (marks,) = made[2], made[3], len(values), struct.unpack_from("<I", made, 76)
    most = {c.DICT: 16, c.FOR: 8 * c.WIDTHS.get(code, 8)}.get(made[0], 64)
    if layout == c.PACKED:
        return made if width <= most and (width or made[0] == c.SLOPE) else None
    if packed > c.container(most) or not 0 < marks <= (65535 if layout == c.EXCEPTED else min(c.MOST_RUNS, count)):
        return None
    return made
