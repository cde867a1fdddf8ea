"""Column definitions and schemas: names, types and the layout of a fixed-width row."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Optional

from ._ext import _common as c
from .dtypes import DType, make_coerce, make_refuse, parse
from .errors import SchemaError, UnknownColumnError, shorten, suggest

__all__ = ["ColumnDef", "Schema"]

_MAX_ROW = 2**31 - 1  # bytes of a fixed-width row
_JSON_KEYS = ("name", "dtype", "unique", "primary_key", "not_null")


class ColumnDef:
    """A column: its name, its type (``"i64"``, ``"bytes:32"``, ``"str"`` …) and its constraints. Frozen and hashable.

    ``primary_key`` implies ``unique`` and ``not_null``. SchemaError for a name or type that cannot be one.
    """

    # not a dataclass: importing dataclasses costs as much as importing the rest of SnapDB
    __slots__ = ("_type", "dtype", "name", "not_null", "primary_key", "unique")

    _type: DType
    name: str
    dtype: str
    unique: bool
    primary_key: bool
    not_null: bool

    def __init__(
        self, name: str, dtype: str, unique: bool = False, primary_key: bool = False, not_null: bool = True
    ) -> None:
        if not isinstance(name, str):
            raise SchemaError(f"a column name must be a str, not {type(name).__name__} {shorten(name)}")
        if not name:
            raise SchemaError("a column name must not be empty")
        if "\0" in name or not _is_unicode(name):
            raise SchemaError(f"column name {shorten(name)}: NUL and lone surrogates cannot be stored in a name")
        try:
            parsed = parse(dtype)
        except SchemaError as error:
            # once more with the column in front; the hint stands in the text already
            problem = SchemaError(f"column {shorten(name)}: {error}", column=name)
            problem.hint = error.hint
            raise problem from None
        for key, flag in (("unique", unique), ("primary_key", primary_key), ("not_null", not_null)):
            if flag is not True and flag is not False:
                raise SchemaError(
                    f"column {shorten(name)}: {key} must be True or False, not {shorten(flag)}", column=name
                )
        values = (parsed, parsed.name, name, not_null or primary_key, primary_key, unique or primary_key)
        for slot, value in zip(self.__slots__, values):
            object.__setattr__(self, slot, value)  # past the guard below

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ColumnDef cannot be changed: make a new one to set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a ColumnDef cannot be changed: {name!r} stays")

    def _key(self) -> tuple[str, str, bool, bool, bool]:
        return self.name, self.dtype, self.unique, self.primary_key, self.not_null

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ColumnDef) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        told = zip(("name", "dtype", "unique", "primary_key", "not_null"), self._key())
        return f"ColumnDef({', '.join(f'{key}={value!r}' for key, value in told)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ColumnDef, self._key()

    @property
    def type(self) -> DType:
        """The column's type."""
        return self._type

    @property
    def width(self) -> int:
        """Bytes of the column's field in the row store; 8 for a value of variable length, which lies in the heap."""
        return self.type.width


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Schema:
    """The columns of a table, in order. Immutable; equal where every column is.

    ``columns`` may hold ``ColumnDef`` objects or ``(name, dtype)`` pairs. SchemaError for no columns, two of one
    name, or two primary keys.
    """

    columns: tuple[ColumnDef, ...]
    names: tuple[str, ...]
    primary_key: Optional[str]
    row_width: int

    def __init__(self, columns: Iterable[Any]) -> None:
        if isinstance(columns, (str, bytes, Mapping)):
            raise SchemaError(f"columns must be a list of ColumnDef, not {type(columns).__name__}")
        try:
            given = list(columns)
        except TypeError:
            raise SchemaError(f"columns must be a list of ColumnDef, not {type(columns).__name__}") from None
        self.columns = tuple(_column(item) for item in given)
        if not self.columns:
            raise SchemaError("a schema needs at least one column")
        self.names = tuple(column.name for column in self.columns)
        self._index = {name: position for position, name in enumerate(self.names)}
        self._bound: dict[Any, Any] = {}  # conditions that scans have met, bound to their columns
        if len(self._index) != len(self.names):
            double = next(name for name in self.names if self.names.count(name) > 1)
            raise SchemaError(f"two columns are named {shorten(double)}", column=double)
        keys = [column.name for column in self.columns if column.primary_key]
        if len(keys) > 1:
            raise SchemaError(f"a table has at most one primary key, not {len(keys)}: {', '.join(keys)}")
        self.primary_key = keys[0] if keys else None
        self._lay_out()

    def _lay_out(self) -> None:
        offsets = []
        offset = 0
        for column in self.columns:
            offsets.append(offset)
            offset += column.width
        if offset > _MAX_ROW:
            raise SchemaError(
                f"a row of {offset} bytes is too wide, the most is {_MAX_ROW}",
                hint="declare long text as 'str' and long bytes as 'binary', which lie outside the row",
            )
        self._offsets = tuple(offsets)
        self.row_width = offset
        self._struct: Optional[struct.Struct] = None  # made at first use: only fixed-width schemas have one
        self._rows: Optional[_RowCoder] = None

    # -- places ------------------------------------------------------------
    def index(self, name: str) -> int:
        """The column's position in the schema; UnknownColumnError where there is none of that name."""
        try:
            return self._index[name]
        except (KeyError, TypeError):
            return self._refuse(name)

    def offset(self, name: str) -> int:
        """The byte offset of the column's field in a fixed-width row; UnknownColumnError where there is none."""
        return self._offsets[self.index(name)]

    def column(self, name: str) -> ColumnDef:
        """The definition of a column; UnknownColumnError where there is none."""
        return self.columns[self.index(name)]

    @property
    def offsets(self) -> tuple[int, ...]:
        """The byte offset of every column's field in a fixed-width row."""
        return self._offsets

    def _refuse(self, name: Any) -> NoReturn:
        column = name if isinstance(name, str) else None
        raise UnknownColumnError(f"unknown column {shorten(name)}", column=column, hint=suggest(name, self.names))

    @property
    def is_fixed(self) -> bool:
        """Whether every column has a fixed width, so that rows can be packed with ``struct_fmt``."""
        return not any(column.type.is_variable for column in self.columns)

    @property
    def specs(self) -> tuple[tuple[str, int, int, bool], ...]:
        """(name, dtype code, byte limit, nullable) of every column, as the row codec takes them."""
        return tuple((item.name, item.type.code, item.type.limit, not item.not_null) for item in self.columns)

    # -- fixed-width rows --------------------------------------------------
    def _fixed(self) -> struct.Struct:
        if self._struct is None:
            for column in self.columns:
                if column.type.is_variable:
                    raise SchemaError(
                        f"column {shorten(column.name)} is {column.dtype}, which has no fixed width",
                        column=column.name, hint="only fixed-width columns can be packed into rows; bytes:N is one",
                    )  # fmt: skip
            self._struct = struct.Struct("<" + "".join(column.type.fmt for column in self.columns))
        return self._struct

    @property
    def struct_fmt(self) -> str:
        """The ``struct`` format of a fixed-width row, as ``"<iqB8sd"``; SchemaError with a variable-length column."""
        return self._fixed().format

    @property
    def struct_size(self) -> int:
        """Bytes of a fixed-width row; SchemaError with a variable-length column."""
        return self._fixed().size

    def encode_row(self, row: Mapping[str, Any]) -> bytes:
        """A row as its fixed-width bytes, under the same rules as an insert; a null is zero bytes.

        SchemaError with a variable-length column.
        """
        packer = self._fixed()
        if self._rows is None:
            self._rows = _RowCoder(self)
        return packer.pack(*self._rows.values(row))

    def decode_row(self, buf: Any) -> dict[str, Any]:
        """The row in the bytes of one fixed-width row.

        ``bytes:N`` fields lose their trailing NULs and nulls read as zeros: neither is in these bytes.
        SchemaError where the length is not ``struct_size`` or the schema has a variable-length column.
        """
        packer = self._fixed()
        with memoryview(buf) as view:
            if view.nbytes != packer.size:
                raise SchemaError(f"a row of this schema has {packer.size} bytes, not {view.nbytes}")
            return self._row(packer.unpack(view))

    def iter_unpack_rows(self, buf: Any) -> Iterator[dict[str, Any]]:
        """The rows in a buffer of fixed-width rows laid end to end, one by one; the same rules as ``decode_row``."""
        packer = self._fixed()
        size = memoryview(buf).nbytes
        if size % packer.size:
            raise SchemaError(f"{size} bytes are no whole number of rows of {packer.size} bytes")
        return (self._row(values) for values in packer.iter_unpack(buf))

    def _row(self, values: Sequence[Any]) -> dict[str, Any]:
        row = {}
        for column, value in zip(self.columns, values):
            if column.type.is_varlen:
                value = value.rstrip(b"\0")
            row[column.name] = c.logical(column.type.code, value)
        return row

    # -- other forms -------------------------------------------------------
    def to_json(self) -> list[dict[str, Any]]:
        """The schema as a list of plain dicts, one a column, that ``json`` can write."""
        return [{key: getattr(column, key) for key in _JSON_KEYS} for column in self.columns]

    @classmethod
    def from_json(cls, data: Any) -> Schema:
        """The schema that ``to_json`` gave; SchemaError for anything else."""
        if not isinstance(data, (list, tuple)):
            raise SchemaError(f"a schema in JSON is a list of columns, not {type(data).__name__}")
        columns = []
        for item in data:
            if not isinstance(item, Mapping) or not {"name", "dtype"} <= set(item):
                raise SchemaError(f"a column in JSON is an object with name and dtype, not {shorten(item)}")
            unknown = [key for key in item if key not in _JSON_KEYS]
            if unknown:
                raise SchemaError(f"unknown key {shorten(unknown[0])} in the column {shorten(item['name'])}")
            columns.append(ColumnDef(**item))
        return cls(columns)

    def to_columnar_schema(self) -> list[tuple[str, str]]:
        """``[(name, dtype), …]``, as ``ColumnarTable`` takes it."""
        return [(column.name, column.dtype) for column in self.columns]

    # -- object protocol ---------------------------------------------------
    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[ColumnDef]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._index

    def __eq__(self, other: object) -> bool:
        return self.columns == other.columns if isinstance(other, Schema) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.columns)

    def __repr__(self) -> str:
        return f"Schema([{', '.join(map(repr, self.columns))}])"

    def __reduce__(self) -> tuple[Any, ...]:
        return Schema, (self.columns,)


class _RowCoder:
    """Rows to the values ``struct`` packs. Tables have the kernels' row codec for this; here none is needed."""

    def __init__(self, schema: Schema) -> None:
        self._columns = schema.columns
        self._coerce = make_coerce(schema.columns)
        self._refuse = make_refuse(schema.columns)

    def values(self, row: Mapping[str, Any]) -> list[Any]:
        self._refuse(row, -1, False)
        values: list[Any] = []
        for position, column in enumerate(self._columns):
            value = self._coerce(position, row.get(column.name), -1)
            if value is None:
                value = b"" if column.type.is_varlen else 0
            values.append(value)
        return values


def _column(item: Any) -> ColumnDef:
    if isinstance(item, ColumnDef):
        return item
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return ColumnDef(item[0], item[1])
    raise SchemaError(f"a column must be a ColumnDef, not {shorten(item)}")
