"""The row store: slabs of fixed-width rows, liveness, heaps. See ``_slab_py`` for the readable twin."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from ._values import ColumnBuffer, RowCodec

class SlabTable:
    """Every row of a table, in slabs of ``page_size`` bytes. Row id is position.

    ``offsets`` are the columns' byte offsets in the fixed-width row (a string column's field: ``bytes:N`` N bytes zero padded,
    its length kept outside the row; other strings 8 bytes, u32 heap offset and u32 length), ``row_width`` the row's bytes.
    A slab holds ``max(1, page_size // row_width)`` rows, a liveness bitmap, a null bitmap per nullable column,
    lengths of its ``bytes:N`` values, and a heap. A slab that a view pins or a memoryview exports is copied before it is written.
    The compiled methods are one step under the GIL; the twin takes ``lock``. While ``paused`` is true, ``insert``, ``update``
    and ``delete`` go to ``slow(name, *args)``, which waits for its turn; ``append``, ``change`` and ``remove`` are the same without that check.
    """

    rows: int  # positions given out
    live: int
    paused: bool
    slab_rows: int
    writes: int  # grows with every write, to tell whether something read earlier is still true
    def __init__(
        self,
        codec: RowCodec,
        offsets: Sequence[int],
        row_width: int,
        page_size: int,
        lock: Any,
        slow: Callable[..., Any],
    ) -> None: ...
    def insert(self, row: Mapping[str, Any]) -> int: ...
    def append(self, row: Mapping[str, Any]) -> int: ...
    def append_values(self, values: Sequence[Any]) -> int:
        """Append one row of checked physical values in column order."""
    def extend(self, columns: Sequence[ColumnBuffer]) -> int:
        """Append staged columns of equal length, all or nothing; returns the first new id."""
    def get(self, idx: int) -> Optional[dict[str, Any]]: ...
    def get_raw(self, idx: int) -> Optional[memoryview]: ...
    def rows_of(self, ids: Any) -> list[dict[str, Any]]:
        """The live rows of these ids (a buffer of ``Q``), in their order; ids without one are left out."""
    def contains(self, idx: int) -> bool: ...
    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError(idx) where there is none."""
    def change(self, idx: int, row: Mapping[str, Any]) -> None: ...
    def put(self, idx: int, values: Sequence[tuple[int, Any]]) -> None:
        """Overwrite (column, checked physical value) pairs of a live row."""
    def delete(self, idx: int) -> None:
        """KeyError(idx) where there is no live row."""
    def remove(self, idx: int) -> None: ...
    def revive(self, idx: int, values: Sequence[Any]) -> None:
        """Make a dead position hold a row of checked physical values (the undo of ``remove``).

        KeyError(idx) for a position not given out, ValueError where a row is live.
        """
    def truncate(self, rows: int) -> None:
        """Take back every position at and past ``rows`` (the undo of inserts). ValueError outside 0..``rows``."""
    def skip(self, count: int) -> None:
        """Give out ``count`` positions that hold no row (dead rows of a reopened file). ValueError where negative."""
    def take_over(self, other: "SlabTable") -> None:
        """Have every row of ``other`` (a table of the same layout, empty afterwards) instead of one's own; views keep what they see."""
    def branch(self, view: "SlabView") -> None:
        """Be what a view of a table of the same layout shows: slabs are shared until one of the two tables writes to them, and what is written to either does not show in the other. The view may go. ValueError where the table has rows, or for a released view."""
    # -- for a table in a file ---------------------------------------------
    group_slabs: int  # slabs of a group: max(1, 65536 // block)
    def attach(self, log: Any) -> None:
        """From now on ``insert`` and ``append`` write each row to this ``_wal.Log`` (None: to none) as a ROW frame, after room for the row was made and before it is in, and call its ``after()`` once it is. ``append_values`` and everything else log nothing."""
    def dump(self, group: int) -> bytes:
        """The image of slab group ``group`` (``docs/format.md``), heaps rewritten without garbage. A group without a live row gives an image without blocks."""
    def load(self, group: int, data: Any) -> None:
        """Take in the image of a group, none of whose slabs are here; ``live`` and ``rows`` stay as they are. Bytes are not trusted: ValueError, and nothing is taken in."""
    def adopt(self, rows: int, live: int, missing: Optional[bytearray], fault: Callable[[int], None]) -> None:
        """Be a table of ``rows`` positions and ``live`` rows whose groups come when they are asked for: ``missing`` has a bit for each group that ``load`` has not brought yet, and a single-row read or write that finds its slab not there calls ``fault(group)`` where the bit is set, which loads the group and clears the bit. Views do not ask: load everything before ``pin``. ValueError where the table has rows."""
    def absorb(self, other: "SlabTable") -> None:
        """Append the rows of ``other`` (same layout, no views, empty afterwards), whose positions below this table's ``rows`` hold none: it was made with ``skip(rows)`` and ``extend``. One step: memory first, nothing on failure. ValueError where it does not fit."""
    def pin(self) -> "SlabView":
        """The rows as of now."""
    @property
    def nbytes(self) -> int: ...

class SlabView:
    """The rows as of the moment it was made; later writes do not show. Released by ``release()`` or when dropped."""

    rows: int
    live: int
    def gather(self, column: int, start: int, stop: int, mask: Any = None) -> ColumnBuffer:
        """Positions ``start..stop`` of one column, dead rows as null (zero slots), as are those that a mask (``_mask.pyi``) has not: their values are not read. ValueError for a mask of another size and after ``release()``."""
    def live_mask(self, start: int, stop: int) -> Optional[bytearray]:
        """Bitmap of the live rows of positions ``start..stop``, None where all are live."""
    def select(self, terms: Sequence[tuple[Any, ...]], any_of: bool, start: int, stop: int) -> Optional[bytearray]:
        """Bitmap of the live rows of positions ``start..stop`` that meet all conditions, or any of them; None where none does. ``terms``: (column, kind, lo, hi, lo_open, hi_open, values, negate), from ``kind`` on as ``conditions.Predicate`` has them; without any it is every live row. ValueError for positions that the view does not have, another kind, and after ``release()``; IndexError for a column that is not there. Scans release the GIL."""
    def count(self, terms: Sequence[tuple[Any, ...]], any_of: bool, start: int, stop: int) -> int:
        """How many rows ``select`` would have."""
    def select_rows(self, terms: Sequence[tuple[Any, ...]], any_of: bool) -> list[dict[str, Any]]:
        """The live rows that meet all conditions, or any of them, as dicts in id order; ``terms`` as in ``select``."""
    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, row) of the live rows in order. The iterator keeps the view alive."""
    def raw_items(self) -> Iterator[tuple[int, memoryview]]:
        """(id, read-only bytes of the fixed-width row) of the live rows in order."""
    def differing(self, other: "SlabView") -> list[int]:
        """Numbers, ascending, of the slabs (``slab_rows`` positions each) that are not the same memory in both; where one view has more rows, of those that have them too. All others have the same rows; these may. ValueError for views of another layout, or released ones."""
    def footprint(self, seen: set[int]) -> int:
        """Bytes of memory that the view keeps and ``seen`` does not name yet; what it keeps is added to it (as numbers that mean nothing but here)."""
    def release(self) -> None: ...

class Lookup:
    """``find(column, value)``: the first row with a value, by a hash index that is made, in one step under the GIL.

    ``indexes``: column name to its index, an object with ``code`` and ``pairs`` (a ``HashTable``, or None). Whatever takes more than
    that goes to ``slow(column, value)``, as does what is wrong; the twin has everything go there.
    """

    def __init__(
        self, slabs: SlabTable, indexes: dict[str, Any], slow: Callable[[str, Any], Optional[dict[str, Any]]]
    ) -> None: ...
    def find(self, column_name: str, value: Any) -> Optional[dict[str, Any]]: ...
