"""Whole arrays of small integers computed on as one large Python integer: packing, range tests, lane arithmetic.

A *lane* is one value of ``size`` bytes (1, 2, 4 or 8) in a byte string, little-endian. Python's integers run through
their digits at C speed, so an addition over 8 KiB of lanes costs what a few additions of single values cost. Carries
between lanes are kept out by working on the low bits alone and putting the top bit right afterwards. ``_lanes_np`` has
the same functions.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Union

from ._bits_py import bitmap, flags_of, rows_of
from ._common import BLOCK, container

__all__ = [
    "add", "as_bytes", "bitmap", "contains", "decimals", "expand", "flags_of", "float_range", "in_range", "keep",
    "lanes", "lines", "narrow", "pack", "peek", "put", "repeat", "rows_of", "scaled", "subtract", "typed", "unpack",
    "widen",
]  # fmt: skip

Bytes = Union[bytes, bytearray, memoryview]

_PIECE = 8192  # bytes worked on at a time: fits the first-level cache
_ROW = 128  # bytes of one row of lanes of a packed block
_TOP = b"0" * 128 + b"1" * 128  # a lane's top byte -> binary digit of its top bit
_SPREAD = b"\0" + b"\xff" * 255  # flag byte -> all bits of the byte
_CHEAP = 16  # bytes of lanes times values up to which tests by lanes beat a look-up of every value
_BIG = sys.byteorder == "big"
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_MASK64 = (1 << 64) - 1


def typed(letter: str, data: Bytes) -> Any:
    """Little-endian bytes as an array of ``letter``'s type (a copy)."""
    items = array(letter)
    items.frombytes(data)
    if _BIG:
        items.byteswap()
    return items


def peek(letter: str, data: memoryview) -> Any:
    """Little-endian bytes as something typed to index, without a copy where the machine is little-endian."""
    return typed(letter, data) if _BIG else data.cast(letter)  # type: ignore[call-overload]


def as_bytes(items: Any) -> bytes:
    """The little-endian bytes of an array or a typed memoryview."""
    if _BIG and items.itemsize > 1:
        items = array(items.typecode if isinstance(items, array) else items.format, items)
        items.byteswap()
    return items.tobytes()  # type: ignore[no-any-return]


def lanes(size: int, data: Bytes) -> Sequence[int]:
    """Unsigned lanes as something to index: the bytes themselves, or an array."""
    return bytes(data) if size == 1 else typed(_LETTERS[size], data)


@lru_cache(maxsize=64)
def _every(size: int, value: int, length: int) -> int:
    """``value`` in every lane of ``length`` bytes."""
    return int.from_bytes(value.to_bytes(size, "little") * (length // size), "little")


def _top(size: int, length: int) -> int:
    """The top bit of every lane."""
    return _every(size, 1 << (8 * size - 1), length)


# -- packing ---------------------------------------------------------------


def _rows(data: Bytes) -> list[bytes]:
    view = memoryview(data)
    return [bytes(view[at : at + _ROW]) for at in range(0, len(view), _ROW)]


def unpack(data: Bytes, width: int, bits: int = 0) -> bytes:
    """The values of whole packed blocks, in containers of ``bits`` (0: ``container(width)``)."""
    bits = bits or container(width)
    if width == bits:
        return bytes(data)
    rows = _rows(data)
    blocks = len(rows) // width
    size, length = bits >> 3, blocks * _ROW
    words = [int.from_bytes(b"".join(rows[word::width]), "little") for word in range(width)]
    every = _every(size, (1 << width) - 1, length)
    out = [b""] * (blocks * bits)
    for row in range(bits):
        word, shift = divmod(row * width, bits)
        here = bits - shift  # bits of the value in its first word
        if here >= width:
            values = words[word] >> shift & every
        else:
            low = words[word] >> shift & _every(size, (1 << here) - 1, length)
            values = low | (words[word + 1] & _every(size, (1 << (width - here)) - 1, length)) << here
        out[row::bits] = _rows(values.to_bytes(length, "little"))
    return b"".join(out)


def pack(values: Bytes, width: int, bits: int = 0) -> bytes:
    """Whole blocks of values below ``2**width``, in containers of ``bits`` (0: ``container(width)``), packed."""
    bits = bits or container(width)
    if width == bits:
        return bytes(values)
    rows = _rows(values)
    blocks = len(rows) // bits
    size, length = bits >> 3, blocks * _ROW
    words = [0] * width
    for row in range(bits):
        word, shift = divmod(row * width, bits)
        here = bits - shift
        lane_row = int.from_bytes(b"".join(rows[row::bits]), "little")
        if here >= width:
            words[word] |= lane_row << shift
        else:
            words[word] |= (lane_row & _every(size, (1 << here) - 1, length)) << shift
            words[word + 1] |= lane_row >> here & _every(size, (1 << (width - here)) - 1, length)
    out = [b""] * (blocks * width)
    for place, whole in enumerate(words):
        out[place::width] = _rows(whole.to_bytes(length, "little"))
    return b"".join(out)


# -- arithmetic ------------------------------------------------------------


def narrow(data: Bytes, size: int, wanted: int) -> bytes:
    """The low ``wanted`` bytes of every lane."""
    if size == wanted:
        return bytes(data)
    if wanted == 1:
        return bytes(data[::size])
    out = bytearray(len(data) // size * wanted)
    for place in range(wanted):
        out[place::wanted] = data[place::size]
    return bytes(out)


def widen(data: Bytes, size: int, wanted: int) -> bytes:
    """Unsigned lanes in ``wanted`` bytes each."""
    if size == wanted:
        return bytes(data)
    out = bytearray(len(data) // size * wanted)
    for place in range(size):
        out[place::wanted] = data[place::size]
    return bytes(out)


def add(data: Bytes, size: int, value: int) -> bytes:
    """``value`` added to every lane, modulo the lane."""
    value &= (1 << 8 * size) - 1
    if size == 1:
        return bytes(data).translate(bytes((byte + value) & 255 for byte in range(256)))
    parts = []
    high = 1 << (8 * size - 1)
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        length = len(piece)
        top, wanted = _top(size, length), _every(size, value, length)
        x = int.from_bytes(piece, "little")
        low = (x & (top ^ _every(size, 2 * high - 1, length))) + _every(size, value & (high - 1), length)
        parts.append((low ^ ((x ^ wanted) & top)).to_bytes(length, "little"))
    return b"".join(parts)


def subtract(data: Bytes, size: int, value: int) -> bytes:
    """``value`` taken from every lane, modulo the lane."""
    return add(data, size, -value)


def scaled(data: Bytes, size: int, wanted: int, step: int, base: int) -> bytes:
    """``base + step * lane`` for unsigned lanes, in ``wanted`` bytes each, modulo those; ``step`` is positive."""
    if step == 1:
        return add(widen(data, size, wanted), wanted, base)
    items = lanes(size, data)
    line = range(base, base + step * (1 << 8 * size), step)  # indexing it multiplies and adds at C speed
    found = map(line.__getitem__, items)
    most = (1 << 8 * wanted) - 1
    try:
        return as_bytes(array(_SIGNED[wanted] if base < 0 else _LETTERS[wanted], found))
    except OverflowError:
        return as_bytes(array(_LETTERS[wanted], [line[item] & most for item in items]))


def lines(codes: Bytes, size: int, given: Sequence[tuple[int, int, int]], step: int) -> bytes:
    """SLOPE's values as 64-bit lanes, a line (base, whole, fraction) a block (``docs/format.md``, *Slopes*)."""
    items = lanes(size, codes)
    parts = []
    for block, (base, whole, fraction) in enumerate(given):
        rise = (whole << 32) + fraction
        rest = items[block * BLOCK : (block + 1) * BLOCK]
        if rise:
            rest = [(run >> 32) + code for run, code in zip(range(0, BLOCK * rise, rise), rest)]
        try:
            if step == 1:
                made = array("q", [base + value for value in rest])
            else:
                made = array("q", [base + step * value for value in rest])
        except OverflowError:  # it wraps
            made = array("Q", [base + step * value & _MASK64 for value in rest])
        parts.append(as_bytes(made))
    return b"".join(parts)


def decimals(data: Bytes, size: int, step: int, base: int, up: float, down: float) -> Any:
    """The doubles of DEC's codes (``docs/format.md``, *Decimals*); ``up`` 0: divided by ``down``. Makes a new array."""
    items = lanes(size, data)
    whole: Any = items
    if step != 1 or base:
        whole = map(range(base, base + step * (1 << 8 * size), step).__getitem__, items)
    if not up:
        return array("d", [value / down for value in whole])
    return array("d", [value * up * down for value in whole])


def put(data: Bytes, size: int, rows: Sequence[int], values: Bytes) -> bytes:
    """The lanes with those of ``values`` in the places ``rows``."""
    items: Any = bytearray(data) if size == 1 else typed(_LETTERS[size], data)
    for row, value in zip(rows, lanes(size, values)):
        items[row] = value
    return bytes(items) if size == 1 else as_bytes(items)


def repeat(data: Bytes, size: int, times: Sequence[int]) -> bytes:
    """Each lane as often as ``times`` says."""
    whole = bytes(data)
    return b"".join([whole[i * size : (i + 1) * size] * count for i, count in enumerate(times)])


def keep(data: Bytes, size: int, flags: bytes) -> bytes:
    """Lanes whose flag is 0 set to zero."""
    bits = flags.translate(_SPREAD)
    if size == 1:
        whole: Bytes = bits
    else:
        whole = bytearray(len(flags) * size)
        for place in range(size):
            whole[place::size] = bits
    return (int.from_bytes(data, "little") & int.from_bytes(whole, "little")).to_bytes(len(whole), "little")


def expand(codes: Bytes, size: int, entries: Bytes, wanted: int) -> bytes:
    """The entry of ``wanted`` bytes for each code of ``size`` bytes."""
    if size > 1:
        whole = lanes(wanted, entries)
        return as_bytes(array(_LETTERS[wanted], map(whole.__getitem__, lanes(size, codes))))
    table = bytes(entries) + bytes(256 * wanted - len(entries))
    codes = bytes(codes)
    if wanted == 1:
        return codes.translate(table)
    out = bytearray(len(codes) * wanted)
    count = len(entries) // wanted
    for place in range(wanted):
        column = table[place::wanted]
        if column.count(column[:1], 0, count) < count:
            out[place::wanted] = codes.translate(column)
        elif column[0]:
            out[place::wanted] = column[:1] * len(codes)
    return bytes(out)


def contains(data: Bytes, size: int, wanted: Sequence[int]) -> int:
    """A bitmap of the unsigned lanes that equal one of ``wanted``."""
    if size == 1:
        table = bytearray(256)
        for value in wanted:
            table[value] = 1
        return bitmap(bytes(data).translate(table))
    if len(wanted) * size <= _CHEAP:
        bits = 0
        for value in wanted:
            bits |= in_range(data, size, value, value)
        return bits
    return bitmap(bytes(map(set(wanted).__contains__, lanes(size, data))))


# -- range tests -----------------------------------------------------------


def in_range(data: Bytes, size: int, low: int, high: int, signed: bool = False) -> int:
    """A bitmap of the lanes with ``low <= lane <= high``; the bounds must be values of a lane."""
    half = 1 << (8 * size - 1)
    if signed:  # in the order of the unsigned lane with its top bit turned over
        low, high = low + half, high + half
    if size == 1:
        return _byte_range(data, low, high, signed)
    digits = []
    top = _top(size, _PIECE)
    below = top ^ _every(size, 2 * half - 1, _PIECE)
    raise_low = _every(size, half - (low & (half - 1)), _PIECE)
    raise_high = _every(size, high | half, _PIECE)
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        x = int.from_bytes(piece, "little")
        rest = x & below
        if signed:
            x ^= top
        found = top
        if low:  # a lane's top bit: it is not below `low`
            reached = rest + raise_low
            found = reached & x if low & half else reached | x
        if high != 2 * half - 1:
            left = raise_high - rest
            found &= left | (x ^ top) if high & half else left & (x ^ top)
        digits.append(found.to_bytes(_PIECE, "little")[size - 1 : len(piece) : size].translate(_TOP))
    return int(b"".join(digits)[::-1] or b"0", 2)


def _byte_range(data: Bytes, low: int, high: int, signed: bool) -> int:
    order = [byte ^ 128 if signed else byte for byte in range(256)]
    return bitmap(bytes(data).translate(bytes(low <= place <= high for place in order)))


def float_range(data: Bytes, size: int, low: int, high: int) -> int:
    """A bitmap of the IEEE values between two (given by their bits; no NaN, ``low <= high``; -0.0 equals 0.0)."""
    half = 1 << (8 * size - 1)
    low_size, high_size = low & (half - 1), high & (half - 1)
    if low_size and low & half and high_size and high & half:  # both negative: the larger has the smaller bits
        return in_range(data, size, high, low)
    if not low & half and low_size:
        return in_range(data, size, low, high)
    # from zero or below to zero or above: each sign has a greatest magnitude
    if not low & half:
        low_size = 0
    if high & half:
        high_size = 0
    digits = []
    top = _top(size, _PIECE)
    below = top ^ _every(size, 2 * half - 1, _PIECE)
    most_negative, most = _every(size, low_size | half, _PIECE), _every(size, high_size | half, _PIECE)
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        x = int.from_bytes(piece, "little")
        rest = x & below
        found = most - rest
        if low_size != high_size:
            found = (found & (x ^ top)) | ((most_negative - rest) & x)
        digits.append(found.to_bytes(_PIECE, "little")[size - 1 : len(piece) : size].translate(_TOP))
    return int(b"".join(digits)[::-1] or b"0", 2)
