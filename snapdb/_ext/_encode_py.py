"""Analysis of a column and the choice of its codec (``docs/format.md``, *Choice*).

Typed values in, a chunk's bytes and its zone map out.
"""

from __future__ import annotations

from array import array
from itertools import compress
from typing import Any, Optional

from . import _lanes_py
from ._bits_py import popcount
from ._column_py import items_of, null_bits_of
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
    NAN,
    RAW,
    SEGMENT,
    TYPECODES,
    VARLEN,
    WIDTHS,
    Zone,
    container,
    mask_bytes,
    packed_width,
)  # fmt: skip
from ._floats_py import add_blocks, block_sums, bounds_of, canonical, folded_key, signed_zeros
from ._lanes_py import as_bytes, flags_of, typed
from ._layout_py import build, string_sections

__all__ = ["Encoder", "distinct", "text_zone"]

_PREFIX = 32  # bytes of a text bound in a zone map
_SAMPLE, _SAMPLE_DISTINCT = 256, 128
_MAX_ENTRIES = 65535
_LEAST_WIDTH = 4  # bytes of a value that a dictionary of numbers needs
_WIDE = 16  # packed integers up to this width get no dictionary
_PIECE = 4096


class Encoder:
    """Seals rows ``start..stop`` of a buffer. NumPy's twin overrides the loops over rows."""

    _lanes: Any = _lanes_py

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

    def packed_size(self, width: int) -> int:
        return 128 * width * (self.rows // BLOCK)

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

    def coded(self, entries: list[Any], width: int) -> bytes:
        """Every row's packed code; null rows have 0."""
        numbers: dict[Any, int] = dict(zip(entries, range(len(entries))))
        if self.flags is not None:
            numbers.setdefault(b"" if self.code in VARLEN else 0, 0)
        codes = map(numbers.__getitem__, self.bits())
        size = container(width) >> 3
        data = bytes(codes) if size == 1 else as_bytes(array("H", codes))
        if self.flags is not None:
            data = self._lanes.keep(data, size, self.flags)
        return self._lanes.pack(data, width)  # type: ignore[no-any-return]

    def offset_packed(self, base: int, width: int) -> bytes:
        """Every row's packed ``value - base``; null rows have 0."""
        size = container(width) >> 3
        data = self._lanes.subtract(self._lanes.narrow(self.raw_items(), WIDTHS[self.code], size), size, base)
        if self.flags is not None:
            data = self._lanes.keep(data, size, self.flags)
        return self._lanes.pack(data, width)  # type: ignore[no-any-return]

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
        width = packed_width(high - low)
        packed, plain = self.packed_size(width), WIDTHS[self.code] * self.rows
        if width > _WIDE and self.prefer not in (FOR, AFFINE):
            made = self.dictionary(min(packed, plain))
            if made is not None:
                return made, zone
        if packed <= plain:
            return self.build(FOR, width=width, base=low, values=self.offset_packed(low, width)), zone
        return self.build(RAW, values=self.raw_items()), zone

    def seal_floats(self) -> tuple[bytes, Zone]:
        low, high, nans, total = self.float_stats()
        zone = Zone(low, high, True, self.null_count, nans, canonical(total))
        if self.one_value():
            bits = self.bits()
            place = 0 if self.flags is None else self.flags.index(1)
            return self.build(CONST, base=int(bits[place])), zone
        made = self.dictionary(WIDTHS[self.code] * self.rows)
        if made is not None:
            return made, zone
        return self.build(RAW, values=self.raw_items()), zone

    def dictionary(self, size: int) -> Optional[bytes]:
        """The DICT chunk of a fixed-width column where the rule prefers it to ``size`` bytes."""
        hinted = self.prefer == DICT
        width = WIDTHS[self.code]
        if width < _LEAST_WIDTH or not (hinted or self.repeats()):
            return None
        limit = min(_MAX_ENTRIES, self.rows // (2 if hinted else 4))
        entries = self.entries(limit)
        if entries is None:
            return None
        bits = packed_width(len(entries) - 1)
        if not hinted and (len(entries) * width + self.packed_size(bits)) * 10 > 9 * size:
            return None
        values, heap = self.coded(entries, bits), self.entry_bytes(entries)
        return self.build(DICT, width=bits, count=len(entries), values=values, heap=heap)

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
            width = packed_width(len(found) - 1)
            size = 4 * (len(found) + 1) + sum(map(len, found)) + self.packed_size(width)
            if self.prefer == DICT or size * 100 <= 83 * (4 * (self.rows + 1) + sum(map(len, items))):
                entries = sorted(found)
                offsets, heap = string_sections(entries)
                values = self.coded(entries, width)
                fields = {"values": values, "offsets": offsets, "heap": heap}
                return self.build(DICT, width=width, count=len(entries), **fields), zone
        offsets, heap = string_sections(items)
        return self.build(RAW, offsets=offsets, heap=heap), zone


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
