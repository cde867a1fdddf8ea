"""``_lanes_py`` with NumPy: the same functions over the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._common import container
from ._lanes_py import Bytes, as_bytes, lanes, peek, typed

__all__ = [
    "add", "as_bytes", "bitmap", "contains", "expand", "flags_array", "flags_of", "float_range", "from_flags",
    "in_range", "keep", "lanes", "narrow", "pack", "peek", "rows_of", "subtract", "typed", "unpack", "unsigned",
    "widen",
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


def unpack(data: Bytes, width: int) -> bytes:
    """The values of whole packed blocks, in containers of ``container(width)`` bits."""
    bits = container(width)
    if width == bits:
        return bytes(data)
    kind = unsigned(bits >> 3)
    words = np.frombuffer(data, kind).reshape(-1, width, _BLOCK // bits)
    out = np.empty((len(words), bits, _BLOCK // bits), kind)
    mask = kind.type((1 << width) - 1)
    for row in range(bits):
        word, shift = divmod(row * width, bits)
        values = words[:, word] >> kind.type(shift)
        if shift + width > bits:
            values |= words[:, word + 1] << kind.type(bits - shift)
        np.bitwise_and(values, mask, out=out[:, row])
    return out.tobytes()


def pack(values: Bytes, width: int) -> bytes:
    """Whole blocks of values below ``2**width``, in containers of ``container(width)`` bits, as packed blocks."""
    bits = container(width)
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
