"""SnapDB: one table's lifecycle and constraints, routed to one engine. Glue; no loop over rows stands here."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, Union

from .columnar import ColumnarTable
from .constraints import UniqueKeys
from .errors import ClosedError, NotFoundError, NotSupportedError, SchemaError, ValidationError, ValueTypeError
from .rowstore import RowTable
from .scan import name_list
from .schema import Schema
from .table import Change

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SnapDB"]

MEMORY = ":memory:"
ENGINES = ("row", "columnar")
DURABILITY = ("full", "normal", "none")
Row = dict[str, Any]
_EXAMPLE = "such as Schema([ColumnDef('id', 'i64'), ColumnDef('name', 'str')])"


class SnapDB:
    """One table with a fixed schema. In this version it lives in memory: ``path`` is ``":memory:"``.

    ``storage_type`` is ``"row"`` (the default: single-row reads and writes) or ``"columnar"`` (compressed; scans,
    filters, aggregates). ``page_size`` bounds the fixed-width part of a row of the row engine (64 … 65,535 bytes).
    ``dict_columns``, ``delta_columns`` and ``for_columns`` prefer an encoding in the columnar engine and never change
    an answer. ``durability``, ``timeout`` and ``mmap`` mean something for files only.

    Raises SchemaError for a bad schema, NotSupportedError for what this version does not have yet. A context manager:
    leaving it closes.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        schema: Optional[Schema] = None,
        page_size: int = 4096,
        storage_type: Optional[str] = None,
        metrics: Any = None,
        cdc: Any = None,
        auto_index: bool = False,
        auto_index_threshold: int = 8,
        dict_columns: Optional[Iterable[str]] = None,
        delta_columns: Optional[Iterable[str]] = None,
        encryption_key: Union[str, bytes, None] = None,
        *,
        for_columns: Optional[Iterable[str]] = None,
        durability: str = "normal",
        read_only: bool = False,
        timeout: float = 0.0,
        mmap: bool = True,
    ) -> None:
        self._engine: Any = _Closed(path)
        _check_options(path, durability, metrics=metrics, cdc=cdc, encryption_key=encryption_key, read_only=read_only)
        if schema is None:
            raise SchemaError(f"a new database needs a schema, {_EXAMPLE}")
        if not isinstance(schema, Schema):
            raise SchemaError(f"schema must be a Schema, not {type(schema).__name__}, {_EXAMPLE}")
        _check_page_size(page_size)
        self.path: Union[str, Path] = MEMORY
        self.schema = schema
        self.storage_type = "row" if storage_type is None else storage_type
        self.page_size = page_size
        if self.storage_type == "row":
            hints = {"dict_columns": dict_columns, "delta_columns": delta_columns, "for_columns": for_columns}
            for option, names in hints.items():
                for name in () if names is None else name_list(option, names):
                    schema.index(name)  # hints have no effect on rows, but a misspelt one is still a mistake
            self._engine = RowTable(schema, page_size)
        elif self.storage_type == "columnar":
            self._engine = ColumnarTable(
                MEMORY, schema, dict_columns=dict_columns, delta_columns=delta_columns, for_columns=for_columns
            )
        else:
            raise SchemaError(f"storage_type must be 'row' or 'columnar', not {storage_type!r}")
        self._unique = UniqueKeys(schema)
        self._bind()

    def _bind(self) -> None:
        """Let single-row calls go straight to the engine's kernel: a Python frame between would cost more than
        the work.
        """
        kind = type(self)
        if kind.get is SnapDB.get:  # a subclass's own method stands
            self.get = self._engine.get  # type: ignore[method-assign]
        if kind.insert is SnapDB.insert and not self._unique:
            self.insert = self._engine.insert  # type: ignore[method-assign]

    # -- lifecycle ---------------------------------------------------------

    def close(self) -> None:
        """Close; every other call then raises ClosedError. Closing twice does nothing. A table in memory is gone."""
        self._engine = _Closed(self.path)
        for name in ("get", "insert"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> SnapDB:
        self._engine.contains(0)  # a closed database says so here
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if isinstance(self._engine, _Closed):
            return "SnapDB(closed)"
        return f"SnapDB({str(self.path)!r}, storage_type={self.storage_type!r}, rows={len(self)}, indexes=[])"

    def __reduce__(self) -> NoReturn:
        raise NotSupportedError(
            "a SnapDB handle cannot be copied or pickled; hand over its rows, as select() gives them, "
            "and insert them into a table of their own"
        )

    def is_columnar(self) -> bool:
        """Whether the table is stored by column."""
        self._engine.contains(0)  # a closed database says so here
        return self.storage_type == "columnar"

    def flush(self) -> None:
        """Every acknowledged write is on stable storage; in memory there is nothing to do."""
        self._engine.contains(0)

    def checkpoint(self) -> None:
        """The write-ahead log is folded into the data file; in memory there is nothing to do."""
        self._engine.contains(0)

    # -- writes ------------------------------------------------------------

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append one row; returns its id.

        ValidationError (a ValueError) names a bad column and value, MissingColumnError (a KeyError) a missing column,
        UnknownColumnError an unknown key, UniqueError (a ValueError) a taken unique value. Whatever it raises,
        nothing was written.
        """
        engine = self._engine
        if not self._unique:
            idx: int = engine.insert(row)
            return idx
        values = engine.codec.encode(row)
        with engine.lock:
            keys = self._unique.check_row(values)
            new: int = engine.rows
            try:
                engine.append_values(values, self._unique.entering(new, keys))
            except BaseException:
                if engine.rows == new:
                    self._unique.leave(new, keys)
                raise
        return new

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append every row of an iterable of dicts, all or none; returns how many. Errors are those of
        ``insert`` with the row's position.
        """
        return self._extend(self._engine.stage(rows))

    def insert_columns(self, columns: Mapping[str, Any]) -> int:
        """Append whole columns (name to sequence, ``array.array``, memoryview or NumPy array of equal length),
        all or none; returns the rows.
        """
        return self._extend(self._engine.stage_columns(columns))

    def _extend(self, staged: Any) -> int:
        engine = self._engine
        with engine.lock:
            keys = self._unique.check_batch(staged)
            engine.extend(staged, self._unique.entering_batch(engine.rows, keys))
        rows: int = staged.rows
        return rows

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into row ``idx``. NotFoundError (a KeyError) where there is no such row; errors as for
        ``insert``.
        """
        engine = self._engine
        try:
            if not self._unique:
                engine.update(idx, row)
                return
            with engine.lock:
                self._apply([engine.plan_update(idx, row)])
        except TypeError:
            _check_id(idx, "to change rows by condition use batch_update()")
            raise

    def _apply(self, changes: list[Change]) -> None:
        moves = self._unique.check_changes(self._engine, changes) if self._unique else []
        self._engine.apply(changes, self._unique.moving(moves))

    def delete(self, idx: int) -> None:
        """Delete row ``idx``; its id is not given out again. NotFoundError (a KeyError) where there is no such row."""
        engine = self._engine
        try:
            if not self._unique:
                engine.delete(idx)
                return
            with engine.lock:
                engine.check_live([idx])
                engine.remove([idx], self._unique.forgetting([engine.get(idx)]))
        except TypeError:
            _check_id(idx, "to delete rows by condition use delete_where()")
            raise

    def upsert(self, row: Mapping[str, Any]) -> int:
        """Update the row with the same primary key, or insert; returns the row id. SchemaError without a primary
        key.
        """
        engine = self._engine
        with engine.lock:
            key = self.schema.primary_key
            if key is None:
                raise SchemaError("upsert needs a primary key: declare one column with primary_key=True")
            partial = dict(engine.codec.encode_partial(row))
            j = self.schema.index(key)
            idx = self._unique.find(j, partial[j]) if j in partial else None
            if idx is None:
                return self.insert(row)
            self._apply([Change(idx, sorted(partial.items()))])
            return idx

    def batch_update(self, predicate: Any, updates: Any) -> int:
        """Update the rows that a callable or conditions select; ``updates`` is a dict or a callable from row to dict.

        Returns how many rows were updated. All or none: every new value is checked before the first is written.
        """
        engine = self._engine
        with engine.writing():
            changes = engine.plan_updates(predicate, updates)
            self._apply(changes)
        return len(changes)

    def delete_where(self, conditions: Any, combine: str = "and") -> int:
        """Delete the rows that meet the conditions; returns how many. ValueError for no conditions at all."""
        engine = self._engine
        with engine.writing():
            ids = engine.select_for_delete(conditions, combine)
            rows = [engine.get(idx) for idx in ids] if self._unique else []
            engine.remove(ids, self._unique.forgetting(rows))
        return len(ids)

    def compact(self) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes given back."""
        engine = self._engine
        with engine.lock:
            freed: int = engine.compact(self._unique.rebuilding(engine) if self._unique else ())
        return freed

    # -- single-row reads --------------------------------------------------

    def get(self, idx: int) -> Optional[Row]:
        """The row with this id as a dict, None where there is none."""
        row: Optional[Row] = self._engine.get(idx)
        return row

    def get_raw(self, idx: int) -> Optional[memoryview]:
        """Row engine: the row's fixed-width bytes, read-only, valid and unchanged as long as they are held.
        Columnar: None.
        """
        if self.is_columnar():
            return None
        raw: Optional[memoryview] = self._engine.get_raw(idx)
        return raw

    def __getitem__(self, idx: int) -> Row:
        try:
            row = self._engine.get(idx)
        except TypeError:
            _check_id(idx, "to read rows by condition use select_where()")
            raise
        if row is None:
            raise NotFoundError(f"no row with id {idx!r}")
        found: Row = row
        return found

    def __contains__(self, idx: object) -> bool:
        try:
            found: bool = self._engine.contains(operator.index(idx))  # type: ignore[arg-type]
        except TypeError:
            return False
        return found

    def __len__(self) -> int:
        return len(self._engine)

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        items: Iterator[tuple[int, Row]] = self._engine.items()
        return items

    def iter_raw(self) -> Iterator[tuple[int, memoryview]]:
        """(id, bytes) as ``get_raw`` of the live rows in id order; NotSupportedError in the columnar engine,
        which has no row bytes.
        """
        if self.is_columnar():
            raise NotSupportedError("iter_raw() needs storage_type='row': the columnar engine stores no row bytes")
        items: Iterator[tuple[int, memoryview]] = self._engine.raw_items()
        return items

    # -- queries -----------------------------------------------------------

    def lookup(self, column_name: str, value: Any) -> Optional[Row]:
        """The first row (lowest id) whose column equals the value, None where there is none."""
        row: Optional[Row] = self._engine.lookup(column_name, value)
        return row

    def find(self, **column: Any) -> list[Row]:
        """Every row whose columns equal the values, in id order: ``db.find(status="active", sensor=3)``."""
        rows: list[Row] = self._engine.find(**column)
        return rows

    def range_find(
        self, column: str, low: Any = None, high: Any = None, include_low: bool = True, include_high: bool = True
    ) -> list[Row]:
        """Rows with a value between ``low`` and ``high`` (None: unbounded), ordered by (value, id)."""
        rows: list[Row] = self._engine.range_find(column, low, high, include_low, include_high)
        return rows

    def query(self, predicate: Callable[[Row], Any]) -> Iterator[tuple[int, Row]]:
        """(id, row) of the rows that a callable accepts, as of now."""
        rows: Iterator[tuple[int, Row]] = self._engine.query(predicate)
        return rows

    def select(
        self, where: Any = None, columns: Optional[Iterable[str]] = None, limit: Optional[int] = None, offset: int = 0
    ) -> list[Row]:
        """Rows as dicts in id order; ``where`` is conditions or a callable over rows, ``columns`` the names to give."""
        rows: list[Row] = self._engine.select(where, columns, limit, offset)
        return rows

    def select_where(
        self,
        conditions: Any,
        columns: Optional[Iterable[str]] = None,
        limit: Optional[int] = None,
        offset: int = 0,
        combine: str = "and",
        use_numpy: Optional[bool] = None,
        *,
        orient: str = "records",
    ) -> Any:
        """Rows that meet the conditions: a list of dicts, or with ``orient="columns"`` a dict of name to array
        (typed where possible).
        """
        return self._engine.select_where(conditions, columns, limit, offset, combine, use_numpy, orient=orient)

    def count_where(self, conditions: Any, combine: str = "and", use_numpy: Optional[bool] = None) -> int:
        """How many rows meet the conditions."""
        rows: int = self._engine.count_where(conditions, combine, use_numpy)
        return rows

    def aggregate(self, column_name: str, agg: str = "sum", where: Any = None, use_numpy: Optional[bool] = None) -> Any:
        """``sum``, ``min``, ``max``, ``avg`` or ``count`` of one column; over no values sum and count are 0, the
        others None.
        """
        return self._engine.aggregate(column_name, agg, where, use_numpy)

    def group_by(self, key_column: Any, value_column: Any, agg: str = "count", where: Any = None) -> dict[Any, Any]:
        """Aggregates per group, groups in order of their first row.

        Two names: ``{key: value}``. A list of keys: tuple keys. A dict such as ``{"temp": ["sum", "avg"], "id":
        "count"}`` as values: ``{key: {"temp_sum": …, "temp_avg": …, "id_count": …}}``. Null values are skipped; a
        null key groups under None, NaN is one group.
        """
        groups: dict[Any, Any] = self._engine.group_by(key_column, value_column, agg, where)
        return groups

    def select_column(self, column_name: str) -> list[Any]:
        """One column's values of the live rows, in id order."""
        values: list[Any] = self._engine.select_column(column_name)
        return values

    # -- export and figures ------------------------------------------------

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        """One column as a NumPy array; position is row id, a deleted row reads as null.

        The column's dtype where nothing is null, else ``object`` with None; text is ``object``. An owned, writable
        copy; with ``zero_copy=True`` a read-only view where the engine can. ImportError without NumPy.
        """
        return self._engine.to_numpy(column_name, zero_copy)

    def column_buffer(self, column_name: str) -> memoryview:
        """One numeric column as a contiguous read-only buffer; position is row id.

        Null and deleted rows hold 0 (floats: NaN).

        TypeError for text, and for a column whose encoding hint is in force.
        """
        view: memoryview = self._engine.column_buffer(column_name)
        return view

    def memory_usage(self) -> int:
        """Bytes this table holds in memory, the keys of its unique columns included."""
        size: int = self._engine.memory_usage()
        return size + self._unique.memory_usage()

    def stats(self) -> dict[str, Any]:
        """Rows, deleted rows, bytes and per column encoding and bytes. File figures are 0 in memory."""
        engine = self._engine
        live, held = len(engine), self.memory_usage()
        return {
            "rows": live,
            "deleted_rows": engine.rows - live,
            "storage_type": self.storage_type,
            "memory_bytes": held,
            "file_bytes": 0,
            "wal_bytes": 0,
            "live_bytes": held,
            "free_bytes": 0,
            "columns": engine.column_stats(),
            "indexes": [],
            "last_checkpoint": None,
        }


class _Closed:
    """Stands where the engine stood: whatever is asked of it says that the database is closed."""

    def __init__(self, path: object) -> None:
        self.__dict__["path"] = path

    def _refuse(self) -> NoReturn:
        raise ClosedError(f"database {str(self.__dict__['path'])!r} is closed: open it again with SnapDB(...)")

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    def __len__(self) -> int:
        return self._refuse()


def _check_id(idx: Any, hint: str) -> None:
    """ValueTypeError for what is no row id."""
    try:
        operator.index(idx)
    except TypeError:
        raise ValueTypeError(f"a row id is an int, not {type(idx).__name__}", hint=hint) from None


def _check_page_size(given: Any) -> None:
    """The third argument by position is often meant for the engine; the row engine checks the number."""
    if isinstance(given, str) and given in ENGINES:
        raise SchemaError(f"page_size must be an int, not {given!r}; did you mean storage_type={given!r}?")


def _check_options(path: Any, durability: Any, **later: Any) -> None:
    """Refuse what this version does not have, by name, before anything is made."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValidationError(f"path must be a str, a Path or {MEMORY!r}, not {type(path).__name__}")
    if durability not in DURABILITY:
        raise ValidationError(f"durability must be one of {', '.join(DURABILITY)}, not {durability!r}")
    if os.fspath(path) != MEMORY:
        raise NotSupportedError(f"this version keeps tables in memory only: use path={MEMORY!r}")
    for name, value in later.items():
        if value:
            raise NotSupportedError(f"{name}= needs a database file or a later version of SnapDB")
