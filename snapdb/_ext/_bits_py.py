"""Bitmaps as Python integers, and byte flags (one byte of 0 or 1 a row): what the pure kernels compute selections with.

Integers of thousands of bits and ``bytes.translate`` run at C speed, so a whole segment is one operation.
"""

from __future__ import annotations

import re
from itertools import compress
from typing import Any

from ._common import mask_bytes

__all__ = ["bitmap", "bits_of", "checked", "flags_of", "popcount", "raw", "rows_of", "to_mask", "u32"]

_DIGITS = b"0" + b"1" * 255  # flag byte -> binary digit
_FLAGS = bytes(1 if byte == 0x31 else 0 for byte in range(256))  # binary digit -> flag byte
_NON_ZERO = re.compile(rb"[^\0]").finditer
_SPARSE = 24  # a bitmap with fewer set rows than one in this many is walked bit by bit


def raw(data: Any) -> memoryview:
    """A contiguous buffer as bytes; ValueError where it is not contiguous."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.c_contiguous:
        raise ValueError("the memory must be contiguous")
    return view.cast("B") if view.nbytes else memoryview(b"")


def u32(rows: Any) -> memoryview:
    """A buffer of u32 values as a memoryview of format 'I'; ValueError for anything else."""
    view = memoryview(rows)
    if view.itemsize != 4 or view.format.lstrip("@=<") not in ("I", "L"):
        raise ValueError(f"expected a buffer of u32 ('I'), got format {view.format!r}")
    if not view.c_contiguous:
        raise ValueError("the memory must be contiguous")
    if view.format == "I":
        return view
    return raw(view).cast("I")


if hasattr(int, "bit_count"):

    def popcount(bits: int) -> int:
        """Set bits of a non-negative integer."""
        return bits.bit_count()

else:

    def popcount(bits: int) -> int:
        """Set bits of a non-negative integer."""
        return bin(bits).count("1")


def checked(mask: Any, rows: int) -> memoryview:
    """A mask's bytes; ValueError where its length is not that of ``rows`` rows."""
    view = raw(mask)
    if view.nbytes != mask_bytes(rows):
        raise ValueError(f"a mask over {rows} rows has {mask_bytes(rows)} bytes, got {view.nbytes}")
    return view


def bits_of(mask: Any, rows: int) -> int:
    """A mask over ``rows`` rows as an integer, bit i for row i; ValueError where its length does not fit."""
    bits = int.from_bytes(checked(mask, rows), "little")
    return bits & ((1 << rows) - 1) if rows & 63 else bits


def to_mask(bits: int, rows: int) -> bytearray:
    """The bitmap bytes of an integer."""
    return bytearray(bits.to_bytes(mask_bytes(rows), "little"))


def bitmap(flags: bytes) -> int:
    """Byte flags (0 or not 0) as an integer with one bit a row."""
    return int(flags.translate(_DIGITS)[::-1], 2) if flags else 0


def flags_of(bits: int, rows: int) -> bytes:
    """An integer with one bit a row as ``rows`` byte flags."""
    return format(bits, f"0{rows}b").encode()[::-1].translate(_FLAGS) if rows else b""


def rows_of(bits: int, rows: int) -> list[int]:
    """The set rows in order."""
    found = popcount(bits)
    if found == rows:
        return list(range(rows))
    if found * _SPARSE > rows:
        return list(compress(range(rows), flags_of(bits, rows)))
    return _sparse_rows(bits.to_bytes(mask_bytes(rows), "little"))


def _sparse_rows(mask: bytes) -> list[int]:
    rows: list[int] = []
    for match in _NON_ZERO(mask):  # the scan for a byte that is not zero runs at C speed
        place = match.start()
        byte = mask[place]
        while byte:
            low = byte & -byte
            rows.append((place << 3) + low.bit_length() - 1)
            byte ^= low
    return rows
