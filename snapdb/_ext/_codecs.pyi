"""Chunks: a column of a segment, encoded, and computed on while encoded. See ``_codecs_py`` for the readable twin."""

from collections.abc import Iterable, Sequence
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
    layout: int  # how codes are stored: PACKED, EXCEPTED or RUNS
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
    def part(self, first_block: int, blocks: int) -> "Chunk":
        """Blocks ``first_block..first_block + blocks`` (at least one) as a chunk over the same memory; ValueError outside."""
    @property
    def nbytes(self) -> int:
        """Bytes: of the whole chunk where it is sealed (and what its dictionary unpacks to), of a part its share, else of the rows in view."""
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
    def grouped(self, mask: Optional[Mask], wanted: Sequence[tuple[Any, str]]) -> tuple[Any, list[list[Any]]]:
        """Groups by this column, and answers per group: (first, one list for each (chunk, kind) of ``wanted``). ``first`` is as ``group`` gives it; kind is "count", "sum" or "bounds", the list as ``group_count``, ``group_sum`` or ``group_bounds`` of that chunk give it. ValueError for another kind."""
    def grouped_on(self, mask: Optional[Mask], wanted: Sequence[tuple[Any, str]], tail: Any, values: Sequence[Any]) -> Optional[tuple[Any, list[list[Any]]]]:
        """``grouped`` over two chunks a column, ``tail`` and ``values`` being the second ones; None where it needs another path."""
    def group_count(self, codes: Any, groups: int) -> list[int]:
        """Non-null rows per group."""
    def group_sum(self, codes: Any, groups: int) -> list[Union[int, float]]:
        """Sum per group: integers exact; floats by one accumulator per (group, row mod 4), folded (0+1)+(2+3)."""
    def group_bounds(self, codes: Any, groups: int) -> list[Optional[tuple[Physical, Physical]]]:
        """Least and greatest non-null value per group."""

class Filter:
    """Bound conditions, all of them or any of them, to be asked of many segments."""
    def __init__(self, terms: Sequence[tuple[Any, ...]], any_of: bool = False) -> None:
        """(column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as ``conditions.Predicate`` has them."""

class Sweep:
    """Segments of a columnar table as of one moment, scanned many at a call; nothing is changed. Scans release the GIL.

    ``parts``, ``zones``: a list a column of what each segment is made of and of its zone map, empty for a column that nobody will ask for; ``overlays``: a dict a column of the segments with updates; ``deleted``: the bitmap of each segment's deleted rows, or None; ``rows``: all.
    Every method starts at segment ``k`` and returns (answer, next): it stops in front of a segment that it cannot do alone, in which a column that it needs has updates or is not read yet, and at the end (next: the number of segments).
    """
    def __init__(self, parts: list[list[Any]], zones: list[list[Optional[Zone]]], overlays: list[dict[int, Any]], deleted: list[Any], rows: int) -> None: ...
    @staticmethod
    def of(columns: list[Any], only: Optional[Iterable[int]], deleted: list[Any], rows: int) -> Sweep:
        """A sweep of columns as they are now: their lists are copied. ``only``: the numbers of those that will be asked for, None: all."""
    @property
    def parts(self) -> list[list[Any]]: ...
    @property
    def zones(self) -> list[list[Optional[Zone]]]: ...
    @property
    def overlays(self) -> list[dict[int, Any]]: ...
    @property
    def deleted(self) -> list[Any]: ...
    def count(self, filter: Optional[Filter], k: int) -> tuple[int, int]:
        """Live rows that match."""
    def values(self, filter: Optional[Filter], column: int, k: int, zones: bool) -> tuple[int, int]:
        """Live rows that match and have a value in a column. ``zones`` here and below: a segment that is selected as a whole is answered from its zone map."""
    def sum(self, filter: Optional[Filter], column: int, k: int, start: Union[int, float], zones: bool) -> tuple[Union[int, float], int]:
        """``start`` plus each segment's sum in turn."""
    def bounds(self, filter: Optional[Filter], column: int, k: int, zones: bool) -> tuple[list[tuple[Any, Any]], int]:
        """The bounds of each segment that has any, in order: a list of (least, greatest)."""
    def masks(self, filter: Optional[Filter], k: int, most: int) -> tuple[list[tuple[int, Optional[bytearray]]], int]:
        """(segment, bitmap of its live rows that match, None for every position) of the segments that have one, until ``most`` rows are found."""

def encode(buffer: ColumnBuffer, start: int, stop: int, prefer: int = 0) -> tuple[Chunk, Zone]:
    """Seal rows ``start..stop`` of a buffer (a positive multiple of 1,024 rows, at most 65,536; ``start`` any row) by the choice rule, ``prefer`` being a hinted codec number. Returns the chunk and its zone map."""

def distinct(buffer: ColumnBuffer, limit: int) -> int:
    """Distinct non-null values (floats by bits), counted no further than ``limit + 1``."""

def simd_level() -> str:
    """The instruction set of the loops: "base", "v3" (AVX2) or "v4" (AVX-512); "none" in the twins."""
