"""Chunks: a column of a segment, encoded, and computed on while encoded. See ``_codecs_py`` for the readable twin."""

from collections.abc import Sequence
from typing import Any, Optional, Union

from ._common import Zone
from ._values import ColumnBuffer

Physical = Union[int, float, bytes, None]
Mask = Union[bytes, bytearray, memoryview]

class Chunk:
    """An immutable column of at most 65,536 rows: sealed bytes (``docs/format.md``) or a raw view of a buffer.

    The codec's five verbs: *analyze* and *encode* are ``encode()`` below; *decode*, *select* and *fetch* stand here.
    Masks are bitmaps of ``mask_bytes(rows)`` bytes; ``mask=None`` means every row. Scans release the GIL.
    """

    codec: int
    code: int
    rows: int
    null_count: int
    width: int  # bits per packed value, 0 where nothing is packed
    sealed: bool
    def __init__(self, data: Any) -> None:
        """Read sealed bytes, which are not trusted: ValueError names what is wrong. The buffer is held, not copied."""
    @staticmethod
    def view(buffer: ColumnBuffer, start: int = 0, stop: Optional[int] = None) -> "Chunk":
        """A RAW view of rows ``start..stop`` of a buffer (``start`` a multiple of 8). Later appends do not show."""
    @staticmethod
    def adopt(other: Any) -> "Chunk":
        """This backend's chunk over another backend's chunk, sharing its memory."""
    @property
    def data(self) -> memoryview:
        """Sealed: the whole chunk's bytes, read-only."""
    def parts(self) -> tuple[int, int, Any, Any, Any, int]:
        """A raw view's (code, rows, data, offsets, nulls, null_count), as the properties of ColumnBuffer give them, cut to its rows."""
    @property
    def nbytes(self) -> int: ...
    def fetch(self, row: int) -> Any:
        """The logical value of one row; IndexError outside."""
    def physical(self, row: int) -> Physical:
        """The physical value of one row; IndexError outside."""
    def decode(self) -> ColumnBuffer:
        """A new buffer with every row."""
    def take(self, rows: Any = None) -> list[Any]:
        """Logical values of the rows named by a u32 buffer ('I'), in that order; None: of every row."""
    def gather(self, rows: Any) -> ColumnBuffer:
        """A new buffer with the rows named by a u32 buffer ('I')."""
    def valid(self) -> bytearray:
        """Bitmap of the non-null rows."""
    def select(self, lo: Physical, hi: Physical, lo_open: bool = False, hi_open: bool = False) -> bytearray:
        """Bitmap of the non-null rows with lo <= value <= hi (None: unbounded; open: strict).

        Integers, dates, bool: Python ints of any size. Floats: Python floats, closed, never NaN; a NaN row matches
        nothing. Strings: bytes, compared as bytes.
        """
    def select_in(self, values: Sequence[Physical]) -> bytearray:
        """Bitmap of the non-null rows equal to one of the (physical, comparable) values; -0.0 equals 0.0, NaN equals nothing."""
    def sum(self, mask: Optional[Mask] = None, start: Union[int, float] = 0) -> Union[int, float]:
        """``start`` plus the selected non-null values: exact for integers and bool; floats by the one definition of design (blocks added to start in order; NaN not canonical yet)."""
    def count(self, mask: Optional[Mask] = None) -> int:
        """Selected non-null rows."""
    def bounds(self, mask: Optional[Mask] = None) -> Optional[tuple[Physical, Physical]]:
        """Least and greatest selected non-null value, None where there is none. NaN only where all are NaN; -0.0 < 0.0."""
    def group(self, mask: Optional[Mask] = None) -> tuple[Any, Any]:
        """(codes, first): a u32 buffer ('I') with each row's group number, 0xFFFFFFFF for rows not selected, and a u32 buffer with each group's first row. Groups are numbered in order of first selected row; null is a group, NaN is one group, -0.0 is 0.0's."""
    def group_count(self, codes: Any, groups: int) -> list[int]:
        """Non-null rows per group."""
    def group_sum(self, codes: Any, groups: int) -> list[Union[int, float]]:
        """Sum per group: integers exact; floats by one accumulator per (group, row mod 4), folded (0+1)+(2+3)."""
    def group_bounds(self, codes: Any, groups: int) -> list[Optional[tuple[Physical, Physical]]]:
        """Least and greatest non-null value per group."""

def encode(buffer: ColumnBuffer, start: int, stop: int, prefer: int = 0) -> tuple[Chunk, Zone]:
    """Seal rows ``start..stop`` of a buffer (a positive multiple of 1,024 rows, at most 65,536; ``start`` any row) by the choice rule, ``prefer`` being a hinted codec number. Returns the chunk and its zone map."""

def distinct(buffer: ColumnBuffer, limit: int) -> int:
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""

def simd_level() -> str:
    """The instruction set of the loops: "base", "v3" (AVX2) or "v4" (AVX-512); "none" in the twins."""
