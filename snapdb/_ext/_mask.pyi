"""Selection bitmaps: bit i of byte i >> 3, whole 64-bit words, bits past the last row 0."""

from typing import Any, Union

Mask = Union[bytes, bytearray, memoryview]

def full(rows: int) -> bytearray:
    """A bitmap of every row."""

def empty(rows: int) -> bytearray:
    """A bitmap of no row."""

def and_into(target: bytearray, other: Mask) -> None:
    """``target &= other``; ValueError where lengths differ (here and below)."""

def or_into(target: bytearray, other: Mask) -> None:
    """``target |= other``."""

def andnot_into(target: bytearray, other: Mask) -> None:
    """``target &= ~other``."""

def count(mask: Mask) -> int:
    """Rows selected."""

def any_set(mask: Mask) -> bool:
    """Whether any row is selected."""

def ids(mask: Mask, skip: int = 0, limit: int = -1) -> memoryview:
    """Selected rows in order as u32 ('I'), after the first ``skip``, at most ``limit`` (-1: all)."""

def last(mask: Mask) -> int:
    """The last selected row, -1 where there is none."""

def set_bit(mask: bytearray, row: int) -> None:
    """Select one row; IndexError outside."""

def test(mask: Mask, row: int) -> bool:
    """Whether a row is selected; IndexError outside."""

def from_ids(rows: Any, size: int) -> bytearray:
    """A bitmap over ``size`` rows of the rows in a u32 buffer; IndexError for one outside."""

def pick(mask: Mask, rows: Any) -> bytearray:
    """The bits of a mask at the rows in a u32 buffer, as a bitmap over these; IndexError for one outside."""

def scatter(target: bytearray, rows: Any, bits: Mask) -> None:
    """Set the rows in a u32 buffer to the bits of a bitmap over these, all others stay; IndexError for one outside."""

def combine(a: Any, groups_a: int, b: Any, groups_b: int) -> tuple[memoryview, memoryview]:
    """Group numbers of pairs: (codes, first) for two u32 code buffers as ``Chunk.group`` gives them, numbered in order of first row; 0xFFFFFFFF in ``a`` stays."""

def simd_level() -> str:
    """The instruction set of the loops: "base", "v3" (AVX2) or "v4" (AVX-512); "none" in the twins."""
