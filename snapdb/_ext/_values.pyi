"""Typed column buffers and the row codec: values in, values out. See ``_values_py`` for the readable twin."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional, Union

Physical = Union[int, float, bytes, None]
ColumnSpec = tuple[str, int, int, bool]  # name, dtype code, byte limit (0: none), nullable

class ColumnBuffer:
    """A growable typed column: a tail, the staging of a batch, a decoded chunk.

    Append-only. Growing allocates anew and leaves the old memory to whoever still holds a view of it, so a view of the
    first n rows stays valid and unchanged for ever. A null row's slot holds zero (strings: the empty string).
    """

    code: int
    rows: int
    null_count: int
    def __init__(self, code: int) -> None: ...
    def append(self, value: Physical) -> None:
        """Append one physical value that the row codec has checked (``bytes`` for strings, None for null)."""
    def extend(self, other: "ColumnBuffer", start: int = 0, stop: Optional[int] = None) -> None:
        """Append rows ``start..stop`` of another buffer of the same dtype."""
    def fetch(self, row: int) -> Any:
        """The logical value of one row (``str``, ``date`` … as a user sees it)."""
    def physical(self, row: int) -> Physical:
        """The physical value of one row."""
    def put(self, row: int, value: Physical) -> None:
        """Overwrite one row with a checked physical value. Only for a buffer that nobody else has seen (patching a decoded copy)."""
    def patch(self, changes: Mapping[int, Physical]) -> None:
        """``put`` for many rows at once (row -> checked physical value); one pass where strings change length."""
    def tolist(self) -> list[Any]:
        """Every row's logical value."""
    @property
    def data(self) -> memoryview:
        """Fixed width: the typed values (format of ``TYPECODES``); strings: the heap ('B'). Read-only, ``rows`` long."""
    @property
    def offsets(self) -> Optional[memoryview]:
        """Strings: ``rows + 1`` u64 ('Q') offsets into ``data``; else None."""
    @property
    def nulls(self) -> Optional[memoryview]:
        """A bitmap ('B') with a bit for each null row, None where there is none. Whole 64-bit words for ``rows`` rows."""
    @property
    def nbytes(self) -> int:
        """Bytes of memory held, slack included."""
    @staticmethod
    def from_parts(
        code: int,
        rows: int,
        data: Any,
        offsets: Any = None,
        nulls: Any = None,
    ) -> "ColumnBuffer":
        """A buffer with a copy of typed memory (any contiguous buffers as ``data``, ``offsets`` and ``nulls`` give them). ValueError where lengths do not fit."""

class RowCodec:
    """Rows (mappings) to checked physical values and back, for one schema.

    ``coerce(column, value, position)`` is the one definition of the value rules: it returns the physical value (None for
    a null in a nullable column) or raises. Kernels convert the plain exact types themselves where the result is the same
    and call it for everything else. ``refuse(row, position, partial)`` raises for a row that is not a mapping, misses a
    column that is not nullable, or has an unknown key. ``position`` is the row's index in its batch, -1 for a single row.
    A missing nullable column is null.
    """

    columns: tuple[ColumnSpec, ...]
    def __init__(
        self,
        columns: Sequence[ColumnSpec],
        coerce: Callable[[int, Any, int], Physical],
        refuse: Callable[[Any, int, bool], None],
    ) -> None: ...
    def encode(self, row: Mapping[str, Any]) -> list[Physical]:
        """Every column's physical value, in column order. Nothing is kept."""
    def encode_partial(self, row: Mapping[str, Any]) -> list[tuple[int, Physical]]:
        """(column index, physical value) for the keys present, in column order."""
    def encode_value(self, column: int, value: Any, position: int = -1) -> Physical:
        """One column's physical value."""
    def encode_rows(self, rows: Iterable[Mapping[str, Any]]) -> list[ColumnBuffer]:
        """A whole batch, one buffer a column; raises at the first bad value with its position."""
    def encode_column(self, column: int, values: Any) -> ColumnBuffer:
        """A whole column from a sequence, ``array.array``, memoryview or NumPy array, under the same value rules.

        A typed one-dimensional buffer is checked as a whole (range; NaN and infinities are values) and copied;
        anything else goes value by value.
        """
    def decode(self, values: Sequence[Physical]) -> dict[str, Any]:
        """A row from physical values in column order."""
    def pack(self, values: Sequence[Physical]) -> bytes:
        """Checked physical values in column order as a packed row (``docs/format.md``)."""
    def unpack(self, data: Any) -> list[Physical]:
        """The physical values of one packed row. Bytes are not trusted: ValueError says what is wrong."""
    def unpack_rows(self, data: Any, places: Sequence[tuple[int, int]]) -> list[ColumnBuffer]:
        """The packed rows at bytes ``start..stop`` of ``data``, one buffer a column. ValueError as for ``unpack``."""
    def pack_changes(self, changes: Iterable[tuple[int, Iterable[tuple[int, Physical]]]]) -> bytes:
        """(row id, (column, checked physical value) pairs) as a packed change of rows."""
    def unpack_changes(self, data: Any) -> list[tuple[int, list[tuple[int, Physical]]]]:
        """The reverse of ``pack_changes``. ValueError as for ``unpack``."""

def pack_column(buffer: ColumnBuffer, start: int = 0, stop: Optional[int] = None) -> bytes:
    """Rows ``start..stop`` of a buffer as a plain column (``docs/format.md``)."""

def unpack_column(data: Any, code: int) -> ColumnBuffer:
    """A plain column of dtype ``code`` as a buffer with a copy of it. Bytes are not trusted: ValueError says what is wrong (``data`` is exactly the column)."""

def records(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as dicts from equally long lists of logical values, one list a column."""
