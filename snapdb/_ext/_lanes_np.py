"""``_lanes_py`` with NumPy: the same functions over the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._common import container
from ._lanes_py import Bytes, as_bytes, lanes, peek, typed

__all__ = [
    "add", "as_bytes", "bitmap", "contains", "decimals", "expand", "flags_array", "flags_of", "float_range",
    "from_flags", "in_range", "keep", "lanes", "lines", "narrow", "pack", "peek", "put", "repeat", "rows_of", "scaled",
    "subtract", "typed", "unpack", "unpacked",
    "unsigned", "widen",
]  # fmt: skip

_BLOCK = 1024


def unsigned(size: int) -> Any:
    """The little-endian unsigned dtype of ``size`` bytes."""
    return np.dtype(f"<u{size}")


def flags_array(bits: int, rows: int) -> Any:
    """An integer with one bit a row as an array of bool."""
    held = np.frombuffer(bits.to_bytes((rows + 7) >> 3, "little"), np.uint8) if rows else np.zeros(0, np.uint8)
    return np.unpackbits(held, count=rows, bitorder="little").view(np.bool_)


def from_flags(flags: Any) -> int:
    """An array of bool as an integer with one bit a row."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def flags_of(bits: int, rows: int) -> bytes:
    """An integer with one bit a row as ``rows`` byte flags."""
    return flags_array(bits, rows).tobytes()  # type: ignore[no-any-return]


def bitmap(flags: Bytes) -> int:
    """Byte flags (0 or not 0) as an integer with one bit a row."""
    return from_flags(np.frombuffer(flags, np.uint8)) if len(flags) else 0


def rows_of(bits: int, rows: int) -> list[int]:
    """The set rows in order."""
    return np.flatnonzero(flags_array(bits, rows)).tolist() if bits else []


# -- packing ---------------------------------------------------------------


def unpacked(data: Bytes, width: int, bits: int) -> Any:
    """The values of whole packed blocks as an array of ``bits``-bit items, of the same memory where they are whole."""
    kind = unsigned(bits >> 3)
    if width == bits:
        return np.frombuffer(data, kind)
    words = np.frombuffer(data, kind).reshape(-1, width, _BLOCK // bits)
    mask = kind.type((1 << width) - 1)
    if not bits % width:  # no value straddles two words: many rows at a time
        each = bits // width
        out = np.empty((len(words), width, each, _BLOCK // bits), kind)
        for place in range(each - 1):
            np.bitwise_and(words >> kind.type(place * width), mask, out=out[:, :, place])
        np.right_shift(words, kind.type(bits - width), out=out[:, :, each - 1])
        return out.reshape(-1)
    out = np.empty((len(words), bits, _BLOCK // bits), kind)
    for row in range(bits):
        word, shift = divmod(row * width, bits)
        values = words[:, word] >> kind.type(shift)
        if shift + width > bits:
            values |= words[:, word + 1] << kind.type(bits - shift)
        np.bitwise_and(values, mask, out=out[:, row])
    return out.reshape(-1)


def unpack(data: Bytes, width: int, bits: int = 0) -> bytes:
    """The values of whole packed blocks, in containers of ``bits`` (0: ``container(width)``)."""
    bits = bits or container(width)
    return bytes(data) if width == bits else unpacked(data, width, bits).tobytes()


def pack(values: Bytes, width: int, bits: int = 0) -> bytes:
    """Whole blocks of values below ``2**width``, in containers of ``bits`` (0: ``container(width)``), packed."""
    bits = bits or container(width)
    if width == bits:
        return bytes(values)
    kind = unsigned(bits >> 3)
    rows = np.frombuffer(values, kind).reshape(-1, bits, _BLOCK // bits)
    out = np.zeros((len(rows), width, _BLOCK // bits), kind)
    for row in range(bits):
        word, shift = divmod(row * width, bits)
        out[:, word] |= rows[:, row] << kind.type(shift)
        if shift + width > bits:
            out[:, word + 1] |= rows[:, row] >> kind.type(bits - shift)
    return out.tobytes()


# -- arithmetic ------------------------------------------------------------


def narrow(data: Bytes, size: int, wanted: int) -> bytes:
    """The low ``wanted`` bytes of every lane."""
    return np.frombuffer(data, unsigned(size)).astype(unsigned(wanted)).tobytes()


def widen(data: Bytes, size: int, wanted: int) -> bytes:
    """Unsigned lanes in ``wanted`` bytes each."""
    return narrow(data, size, wanted)


def add(data: Bytes, size: int, value: int) -> bytes:
    """``value`` added to every lane, modulo the lane."""
    kind = unsigned(size)
    # a one-element array, because scalars would warn of the overflow that is wanted here
    return (np.frombuffer(data, kind) + np.array([value & ((1 << 8 * size) - 1)], kind)).tobytes()  # type: ignore[no-any-return]


def subtract(data: Bytes, size: int, value: int) -> bytes:
    """``value`` taken from every lane, modulo the lane."""
    return add(data, size, -value)


def _word(value: int) -> Any:
    """A number modulo 2**64; an array of one, because scalars would warn of the overflow that is wanted here."""
    return np.array([value & (2**64 - 1)], np.uint64)


def scaled(data: Bytes, size: int, wanted: int, step: int, base: int) -> bytes:
    """``base + step * lane`` for unsigned lanes, in ``wanted`` bytes each, modulo those; ``step`` is positive."""
    kind = unsigned(wanted)
    most = (1 << 8 * wanted) - 1
    values = np.frombuffer(data, unsigned(size)).astype(kind)
    if step != 1:
        values *= np.array([step & most], kind)
    values += np.array([base & most], kind)
    return values.tobytes()


def lines(codes: Bytes, size: int, given: Sequence[tuple[int, int, int]], step: int) -> bytes:
    """SLOPE's values as 64-bit lanes, a line (base, whole, fraction) a block (``docs/format.md``, *Slopes*)."""
    bases, wholes, fractions = (np.array([[line[i] & (2**64 - 1)] for line in given], np.uint64) for i in range(3))
    rows = np.arange(_BLOCK, dtype=np.uint64)
    values = rows * wholes
    values += (rows * fractions) >> np.uint64(32)
    values += np.frombuffer(codes, unsigned(size)).reshape(-1, _BLOCK)
    if step != 1:
        values *= _word(step)
    values += bases
    return values.astype("<u8", copy=False).tobytes()


def decimals(data: Bytes, size: int, step: int, base: int, up: float, down: float) -> Any:
    """The doubles of DEC's codes (``docs/format.md``, *Decimals*); ``up`` 0: divided by ``down``. Makes a new array."""
    whole = np.frombuffer(data, unsigned(size)).astype(np.uint64)
    whole *= _word(step)
    whole += _word(base)
    values = whole.view(np.int64).astype(np.float64)
    if not up:
        values /= down
        return values
    values *= up
    values *= down
    return values


def put(data: Bytes, size: int, rows: Sequence[int], values: Bytes) -> bytes:
    """The lanes with those of ``values`` in the places ``rows``."""
    items = np.frombuffer(data, unsigned(size)).copy()
    items[np.array(rows, np.int64)] = np.frombuffer(values, unsigned(size))
    return items.tobytes()


def repeat(data: Bytes, size: int, times: Sequence[int]) -> bytes:
    """Each lane as often as ``times`` says."""
    return np.frombuffer(data, unsigned(size)).repeat(np.array(times, np.int64)).tobytes()


def keep(data: Bytes, size: int, flags: bytes) -> bytes:
    """Lanes whose flag is 0 set to zero."""
    kind = unsigned(size)
    return np.where(np.frombuffer(flags, np.bool_), np.frombuffer(data, kind), kind.type(0)).astype(kind).tobytes()


def expand(codes: Bytes, size: int, entries: Bytes, wanted: int) -> bytes:
    """The entry of ``wanted`` bytes for each code of ``size`` bytes."""
    return np.frombuffer(entries, unsigned(wanted))[np.frombuffer(codes, unsigned(size))].tobytes()


# -- tests -----------------------------------------------------------------


def contains(data: Bytes, size: int, wanted: Sequence[int]) -> int:
    """A bitmap of the unsigned lanes that equal one of ``wanted``."""
    kind = unsigned(size)
    values = np.frombuffer(data, kind)
    if size <= 2:
        table = np.zeros(1 << 8 * size, np.bool_)
        table[np.array(wanted, kind)] = True
        return from_flags(table[values])
    return from_flags(np.isin(values, np.array(wanted, kind)))


def in_range(data: Bytes, size: int, low: int, high: int, signed: bool = False) -> int:
    """A bitmap of the lanes with ``low <= lane <= high``; the bounds must be values of a lane."""
    values = np.frombuffer(data, np.dtype(f"<{'i' if signed else 'u'}{size}"))
    first, last = values.dtype.type(low), values.dtype.type(high)
    return from_flags((values >= first) & (values <= last))


def float_range(data: Bytes, size: int, low: int, high: int) -> int:
    """A bitmap of the IEEE values between two (given by their bits; no NaN, ``low <= high``; -0.0 equals 0.0)."""
    kind = np.dtype(f"<f{size}")
    values = np.frombuffer(data, kind)
    first, last = np.array([low, high], unsigned(size)).view(kind)
    return from_flags((values >= first) & (values <= last))
