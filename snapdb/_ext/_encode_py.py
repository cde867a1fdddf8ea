"""Analysis of a column and the choice of its codec (``docs/format.md``, *Choice*).

Typed values in, a chunk's bytes and its zone map out.
"""

from __future__ import annotations

import struct
from array import array
from itertools import compress
from typing import Any, Optional

from . import _decimals_py, _lanes_py
from ._bits_py import popcount
from ._column_py import items_of, null_bits_of
from ._common import (
    AFFINE,
    BITMAP,
    BLOCK,
    BOOL,
    CONST,
    DEC,
    DICT,
    F32,
    FLOATS,
    FOR,
    FRONT,
    NAN,
    RAW,
    SEGMENT,
    SLOPE,
    TYPECODES,
    VARLEN,
    WIDTHS,
    Zone,
    mask_bytes,
    packed_width,
)  # fmt: skip
from ._floats_py import add_blocks, block_sums, bounds_of, canonical, folded_key, signed_zeros
from ._lanes_py import as_bytes, flags_of, typed
from ._layout_py import string_sections
from ._streams_py import Codes, Stream, build, common_divisor, front_coded, lane_bytes

__all__ = ["Encoder", "distinct", "text_zone"]

_PREFIX = 32  # bytes of a text bound in a zone map
_SAMPLE, _SAMPLE_DISTINCT = 256, 128
_MAX_ENTRIES = 65535
_LEAST_WIDTH = 4  # bytes of a value that a dictionary of numbers needs
_WIDE = 16  # packed integers up to this width get no dictionary
_NARROW = 4  # packed integers up to this width are not divided
_STEEP = 1 << 62  # a range from which on there are no lines
_APART = 33  # rows of a block that the gate of lines looks at
_MASK64, _MAX64 = (1 << 64) - 1, (1 << 63) - 1
_LINE = struct.Struct("<QQII")
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_PIECE = 4096


class Encoder:
    """Seals rows ``start..stop`` of a buffer. NumPy's twin overrides the loops over rows."""

    _lanes: Any = _lanes_py
    _stream: type[Stream] = Stream

    def __init__(self, buffer: Any, start: int, stop: int, prefer: int) -> None:
        rows = stop - start
        if not 0 <= start < stop <= buffer.rows:
            raise ValueError(f"rows {start}..{stop} are outside 0..{buffer.rows}")
        if rows % BLOCK or rows > SEGMENT:
            raise ValueError(f"a chunk has 1 to {SEGMENT // BLOCK} whole blocks of {BLOCK} rows, not {rows} rows")
        self.code: int = buffer.code
        self.rows = rows
        self.prefer = prefer
        self.items = items_of(buffer, start, stop)
        self.nulls = null_bits_of(buffer, start, stop)
        self.null_count = popcount(self.nulls)
        self.flags: Optional[bytes] = None  # non-null rows, where some are null
        if self.nulls:
            self.flags = self._lanes.flags_of(((1 << rows) - 1) ^ self.nulls, rows)

    def seal(self) -> tuple[bytes, Zone]:
        """(the chunk's bytes, its zone map)"""
        if self.null_count == self.rows:
            total = None if self.code in VARLEN else 0.0 if self.code in FLOATS else 0
            return self.build(CONST), Zone(None, None, True, self.rows, 0, total)
        if self.code in VARLEN:
            return self.seal_strings()
        if self.code in FLOATS:
            return self.seal_floats()
        return self.seal_bools() if self.code == BOOL else self.seal_ints()

    def build(self, codec: int, **fields: Any) -> bytes:
        """A chunk of this column's rows."""
        bits = b""
        if 0 < self.null_count < self.rows:
            bits = self.nulls.to_bytes(mask_bytes(self.rows), "little")
        return build(codec, self.code, self.rows, self.null_count, null_bits=bits, **fields)

    # -- loops over rows ---------------------------------------------------------

    def present(self) -> Any:
        """The non-null values."""
        return self.items if self.flags is None else list(compress(self.items, self.flags))

    def raw_items(self) -> bytes:
        """The little-endian bytes of a fixed-width column."""
        return as_bytes(self.items)

    def int_stats(self) -> tuple[int, int, int]:
        """(least, greatest, sum) of the non-null integers."""
        found = self.present()
        return min(found), max(found), sum(found)

    def is_sequence(self, step: int) -> bool:
        """Whether every integer is the one before it plus ``step``."""
        items, rows = self.items, self.rows
        first = items[0]
        if not step or items[2] - items[1] != step or items[-1] != first + step * (rows - 1):
            return False
        return bool(items == array(items.typecode, range(first, first + step * rows, step)))

    def float_stats(self) -> tuple[float, float, int, float]:
        """(least, greatest, NaNs, sum) of the non-null floats."""
        found = self.present()
        total = add_blocks(0.0, block_sums(self.items, None))  # null slots are +0.0, which changes no sum
        if total == total:  # then nothing is NaN
            low, high = signed_zeros(min(found), max(found), found)
            return low, high, 0, total
        real = [value for value in found if value == value]
        low, high = bounds_of(real) or (NAN, NAN)
        return low, high, len(found) - len(real), NAN

    def bits(self) -> Any:
        """The values as something that differs exactly where the stored bits do."""
        if self.code in FLOATS:
            return typed("I" if self.code == F32 else "Q", as_bytes(self.items))
        return self.items

    def one_value(self) -> bool:
        """Whether all non-null values are bit-equal."""
        bits = self.bits()
        if self.flags is None:
            first = bits[:1]
            return bits[1] == bits[0] and bool(bits == first * self.rows)
        return len(set(compress(bits, self.flags))) == 1

    def entries(self, limit: int) -> Optional[list[Any]]:
        """The distinct non-null values by ``bits``, in dictionary order; None where they are more than ``limit``."""
        bits = self.bits()
        found = set(bits if self.flags is None else compress(bits, self.flags))
        if len(found) > limit:
            return None
        if self.code in FLOATS:
            size = WIDTHS[self.code]
            return sorted(found, key=lambda value: folded_key(value, size))
        return sorted(found)

    def coded(self, entries: list[Any]) -> Codes:
        """Every row's code; null rows have 0."""
        numbers: dict[Any, int] = dict(zip(entries, range(len(entries))))
        if self.flags is not None:
            numbers.setdefault(b"" if self.code in VARLEN else 0, 0)
        codes = map(numbers.__getitem__, self.bits())
        top = len(entries) - 1
        size = lane_bytes(top)
        data = bytes(codes) if size == 1 else as_bytes(array("H", codes))
        if self.flags is not None:
            data = self._lanes.keep(data, size, self.flags)
        return Codes(data, size, top, self.flags)

    def offsets(self, low: int, step: int, top: int) -> Codes:
        """Every row's ``(value - low) / step``, at most ``top``; null rows have 0."""
        size = lane_bytes(top)
        if step == 1:
            data = self._lanes.subtract(self._lanes.narrow(self.raw_items(), WIDTHS[self.code], size), size, low)
            if self.flags is not None:
                data = self._lanes.keep(data, size, self.flags)
            return Codes(data, size, top, self.flags)
        return self.listed([(value - low) // step for value in self.present()], top)

    def listed(self, codes: list[int], top: int) -> Codes:
        """The codes of the non-null rows, in order."""
        size = lane_bytes(top)
        if self.flags is not None:
            given = iter(codes)
            codes = [next(given) if flag else 0 for flag in self.flags]
        return Codes(as_bytes(array(_LETTERS[size], codes)), size, top, self.flags)

    def divisor(self, low: int) -> int:
        """The greatest common divisor of the non-null integers less ``low``."""
        return common_divisor(self.present(), low)

    def line_gate(self, low: int, step: int, budget: int) -> bool:
        """Whether what is left of the lines of all blocks, in 32 rows each, takes at most ``budget`` bits."""
        for start in range(0, self.rows, BLOCK):
            sample = [(value - low) // step for value in self.items[start : start + BLOCK : _APART]]
            left = left_of(sample, range(0, BLOCK, _APART), *line_of(sample[0], sample[-1]))
            budget -= (max(left) - min(left)).bit_length()
            if budget < 0:
                return False
        return True

    def lines(self, low: int, step: int) -> tuple[bytes, Codes]:
        """A line for each block, and what is left of them."""
        lines, codes = [], []
        for start in range(0, self.rows, BLOCK):
            block = [(value - low) // step for value in self.items[start : start + BLOCK]]
            whole, fraction = line_of(block[0], block[-1])
            left = left_of(block, range(BLOCK), whole, fraction)
            least = min(left)
            codes += [value - least for value in left]
            lines.append(line_bytes(low + step * (block[0] + least), whole, fraction))
        return b"".join(lines), self.listed(codes, max(codes))

    def find_decimals(self, digits: int) -> Optional[_decimals_py.Decimals]:
        """The non-null floats as decimals; ``digits``: the most of the sample."""
        bits, items = self.bits(), self.items
        if self.flags is not None:
            bits, items = list(compress(bits, self.flags)), array(items.typecode, compress(items, self.flags))
        return _decimals_py.find(self.code, bits, items, digits)

    def decimal_divisor(self, found: _decimals_py.Decimals) -> int:
        """The greatest common divisor of the decimals less the least."""
        values = found.whole
        if found.places is not None:
            values = [value for value, place in zip(values, found.places) if not place]
        return common_divisor(values, found.low)

    def decimal_codes(self, found: _decimals_py.Decimals, step: int, plain: int) -> Codes:
        """Every row's code as decimal or odd value; null rows have 0."""
        low = found.low
        if found.places is None:
            return self.listed([(value - low) // step for value in found.whole], plain - 1)
        codes = [
            plain - 1 + place if place else (value - low) // step for value, place in zip(found.whole, found.places)
        ]
        return self.listed(codes, plain - 1 + len(found.odd))

    # -- kinds of columns --------------------------------------------------------

    def seal_bools(self) -> tuple[bytes, Zone]:
        true = self._lanes.bitmap(self.items.tobytes())
        total = popcount(true)
        low, high = int(total == self.rows - self.null_count), int(total > 0)
        zone = Zone(low, high, True, self.null_count, 0, total)
        if low == high:
            return self.build(CONST, base=low), zone
        return self.build(BITMAP, values=true.to_bytes(mask_bytes(self.rows), "little")), zone

    def seal_ints(self) -> tuple[bytes, Zone]:
        if not self.null_count:
            first, rows = int(self.items[0]), self.rows
            step = int(self.items[1]) - first
            # before the statistics, which follow from a sequence's two ends
            if step and -(1 << 63) <= step < 1 << 63 and self.is_sequence(step):
                last = first + step * (rows - 1)
                zone = Zone(min(first, last), max(first, last), True, 0, 0, (first + last) * rows // 2)
                return self.build(AFFINE, base=first, step=step), zone
        low, high, total = self.int_stats()
        zone = Zone(low, high, True, self.null_count, 0, total)
        if low == high:
            return self.build(CONST, base=low), zone
        return self.best_ints(low, high), zone

    def best_ints(self, low: int, high: int) -> bytes:
        """FOR, RAW, SLOPE or DICT."""
        step = self.step(low, high)
        top = (high - low) // step
        wide = packed_width(top) > _WIDE
        if wide and self.prefer == DICT:
            made = self.dictionary(0)
            if made is not None:
                return made
        plain = WIDTHS[self.code] * self.rows
        frame = self._stream(self.offsets(low, step, top))
        best = min(frame.cost, plain)
        sloped = self.slope(low, step, top, best)
        if sloped is not None:
            best = sloped[1]
        if wide and self.prefer not in (FOR, AFFINE, DICT):
            made = self.dictionary(best)
            if made is not None:
                return made
        if sloped is not None:
            return sloped[0]
        if frame.cost <= plain:
            return self.build(FOR, base=low, step=step if step > 1 else 0, **frame.fields())
        return self.build(RAW, values=self.raw_items())

    def step(self, low: int, high: int) -> int:
        """The common divisor by which FOR and SLOPE divide."""
        width = packed_width(high - low)
        if width <= _NARROW:
            return 1
        return useful(self.divisor(low), high - low)

    def slope(self, low: int, step: int, top: int, best: int) -> Optional[tuple[bytes, int]]:
        """(SLOPE chunk, its size) where the rule prefers it to ``best`` bytes."""
        if self.null_count or self.prefer == FOR or top >= _STEEP:
            return None
        blocks, hinted = self.rows // BLOCK, self.prefer == AFFINE
        if not hinted and not self.line_gate(low, step, blocks * (packed_width(top) - 2)):
            return None
        lines, codes = self.lines(low, step)
        stream = self._stream(codes)
        size = len(lines) + stream.cost
        if size > best if hinted else 10 * size > 9 * best:
            return None
        return self.build(SLOPE, step=step if step > 1 else 0, lines=lines, **stream.fields()), size

    def seal_floats(self) -> tuple[bytes, Zone]:
        low, high, nans, total = self.float_stats()
        zone = Zone(low, high, True, self.null_count, nans, canonical(total))
        if self.one_value():
            bits = self.bits()
            place = 0 if self.flags is None else self.flags.index(1)
            return self.build(CONST, base=int(bits[place])), zone
        return self.best_floats(), zone

    def best_floats(self) -> bytes:
        """RAW, DEC or DICT."""
        best = WIDTHS[self.code] * self.rows
        made = self.dictionary(0) if self.prefer == DICT else None
        if made is not None:
            return made
        decimal = self.decimals(best)
        if decimal is not None:
            best = decimal[1]
        if self.prefer != DICT:
            made = self.dictionary(best)
            if made is not None:
                return made
        return self.build(RAW, values=self.raw_items()) if decimal is None else decimal[0]

    def decimals(self, best: int) -> Optional[tuple[bytes, int]]:
        """(DEC chunk, its size) where the rule prefers it to ``best`` bytes."""
        digits = _decimals_py.digits_of_sample(self.code, self.bits(), self.items, self.flags)
        found = self.find_decimals(digits) if digits >= 0 else None
        if found is None:
            return None
        span, step = found.high - found.low, 1
        if packed_width(span) > _NARROW:
            step = useful(self.decimal_divisor(found), span)
        plain = span // step + 1
        stream = self._stream(self.decimal_codes(found, step, plain))
        heap = self.entry_bytes(found.odd)
        size = len(heap) + stream.cost
        if 100 * size > 85 * best:
            return None
        fields = {"digits": found.digits, "power": found.power, "plain": plain, "count": len(found.odd), "heap": heap}
        given = {**fields, **stream.fields()}
        return self.build(DEC, base=found.low, step=step if step > 1 else 0, **given), size

    def dictionary(self, best: int) -> Optional[bytes]:
        """The DICT chunk of a fixed-width column where the rule prefers it to ``best`` bytes."""
        hinted = self.prefer == DICT
        width = WIDTHS[self.code]
        if width < _LEAST_WIDTH or not (hinted or self.repeats()):
            return None
        entries = self.entries(min(_MAX_ENTRIES, self.rows // (2 if hinted else 4)))
        if entries is None or (not hinted and len(entries) * width * 10 > 9 * best):
            return None
        stream = self._stream(self.coded(entries))
        if not hinted and (len(entries) * width + stream.cost) * 10 > 9 * best:
            return None
        return self.build(DICT, count=len(entries), heap=self.entry_bytes(entries), **stream.fields())

    def repeats(self) -> bool:
        """Whether the sample has few distinct values."""
        bits, rows = self.bits(), self.rows
        return len({bits[i * rows // _SAMPLE] for i in range(_SAMPLE)}) <= _SAMPLE_DISTINCT

    def entry_bytes(self, entries: Any) -> bytes:
        letter = TYPECODES[self.code] if self.code not in FLOATS else "I" if self.code == F32 else "Q"
        return as_bytes(array(letter, entries))

    def seal_strings(self) -> tuple[bytes, Zone]:
        items = self.items
        found = set(self.present())
        low, high, exact = text_zone(min(found), max(found))
        zone = Zone(low, high, exact, self.null_count, 0, None)
        if len(found) == 1:
            value = found.pop()
            if len(value) > 0xFFFFFFFF:
                string_sections([value])
            return self.build(CONST, base=len(value), heap=value), zone
        if len(found) * 2 <= self.rows and len(found) <= _MAX_ENTRIES:
            made = self.string_dictionary(found)
            if made is not None:
                return made, zone
        offsets, heap = string_sections(items)
        return self.build(RAW, offsets=offsets, heap=heap), zone

    def string_dictionary(self, found: set[bytes]) -> Optional[bytes]:
        """The DICT chunk of a column of strings where the rule prefers it."""
        entries = sorted(found)
        size = 4 * (len(entries) + 1) + sum(map(len, entries))
        raw = 4 * (self.rows + 1) + sum(map(len, self.items))
        fields: dict[str, Any] = {"count": len(entries)}
        offsets, heap = front_coded(entries)
        front = len(offsets) + len(heap)
        if 10 * front <= 9 * size:
            size = front
            fields.update(flags=FRONT, offsets=offsets, heap=heap)
        stream = self._stream(self.coded(entries))
        if self.prefer != DICT and (size + stream.cost) * 100 > 83 * raw:
            return None
        offsets, heap = string_sections(entries)
        fields.setdefault("offsets", offsets)
        fields.setdefault("heap", heap)
        return self.build(DICT, **fields, **stream.fields())


def useful(divisor: int, span: int) -> int:
    """The divisor where dividing by it saves bits of a packed value, else 1."""
    fits = 1 < divisor <= _MAX64 and packed_width(span // divisor) < packed_width(span)
    return divisor if fits else 1


def line_of(first: int, last: int) -> tuple[int, int]:
    """(whole, fraction) of the line through a block's first and last value."""
    whole, rest = divmod(last - first, BLOCK - 1)
    return whole, (rest << 32) // (BLOCK - 1)


def left_of(values: list[int], rows: range, whole: int, fraction: int) -> list[int]:
    """What is left of the line at these rows."""
    first = values[0]
    return [value - first - row * whole - (row * fraction >> 32) for row, value in zip(rows, values)]


def line_bytes(base: int, whole: int, fraction: int) -> bytes:
    """A block's line as it is stored."""
    return _LINE.pack(base & _MASK64, whole & _MASK64, fraction, 0)


def text_zone(low: bytes, high: bytes) -> tuple[bytes, Optional[bytes], bool]:
    """(lo, hi, exact) of a zone map: at most 32 bytes; a cut ``hi`` is rounded up, None if it cannot be."""
    if len(low) <= _PREFIX and len(high) <= _PREFIX:
        return low, high, True
    top: Optional[bytes] = high
    if len(high) > _PREFIX:
        kept = high[:_PREFIX].rstrip(b"\xff")
        top = kept[:-1] + bytes([kept[-1] + 1]) if kept else None
    return low[:_PREFIX], top, False


def distinct(buffer: Any, limit: int) -> int:
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""
    rows = buffer.rows
    found: set[Any] = set()
    for start in range(0, rows, _PIECE):
        stop = min(start + _PIECE, rows)
        bits: Any = items_of(buffer, start, stop)
        if buffer.code in FLOATS:
            bits = typed("I" if buffer.code == F32 else "Q", as_bytes(bits))
        nulls = null_bits_of(buffer, start, stop)
        found.update(compress(bits, flags_of(((1 << (stop - start)) - 1) ^ nulls, stop - start)) if nulls else bits)
        if len(found) > limit:
            return limit + 1
    return len(found)
