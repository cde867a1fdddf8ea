"""What both engines share: staging, reads over a view, updates planned before anything is touched."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import scan
from .aggregate import aggregate, check_aggregate, column_index, group_by, group_plan
from .dtypes import make_coerce, make_refuse
from .errors import NotFoundError, SnapDBError, ValidationError, ValueTypeError

if TYPE_CHECKING:
    from ._ext import Backend, ColumnBuffer
    from .absent import Absent
    from .differing import Difference, Stored
    from .pieces import Bulk, Entry, Source
    from .schema import Schema
    from .step import Call

__all__ = ["COUNT_HINT", "Change", "Staged", "Table"]

#: for who asks to count ``*``
COUNT_HINT = "to count rows use len(db) or count_where([])"


class Staged(NamedTuple):
    """Checked and encoded rows that are not in the table yet: one buffer a column."""

    rows: int
    buffers: list[ColumnBuffer]


class Change(NamedTuple):
    """A planned update of one row: (column index, physical value) pairs."""

    idx: int
    values: list[tuple[int, Any]]


class Table:
    """One table in memory. Engines subclass it with their storage; every read here goes over a ``View``.

    Single-row methods of the compiled backend run without the lock; everything of more than one step takes it and
    pauses them.
    """

    storage_type: str
    scanned: int  # rows that a scan tests in the time in which one is read by its id and tested

    def __init__(self, schema: Schema, kernels: Backend) -> None:
        self.schema = schema
        self.kernels = kernels
        self.lock = threading.RLock()
        self.generation = 0  # of the row ids: another one at every compact()
        self.last_generation = 0  # the highest that there was: greater where an older state has come back
        self.zone_answers = True  # off only to measure what answering from zone maps saves
        self.refuse = make_refuse(schema.columns)
        self.codec = kernels.values.RowCodec(schema.specs, make_coerce(schema.columns), self.refuse)

    # -- what an engine provides -------------------------------------------

    def view(self, use_numpy: Optional[bool] = None, only: Optional[Collection[int]] = None) -> scan.View:
        """The table as of now; ``only``: who asks reads these columns and no others. ImportError where NumPy is asked
        for and missing.
        """
        raise NotImplementedError

    def get(self, idx: int) -> Optional[dict[str, Any]]:
        """The live row with this id, None where there is none."""
        raise NotImplementedError

    def rows_of(self, ids: Iterable[int]) -> list[dict[str, Any]]:
        """The live rows of these ids (an array of ``Q``), in their order; ids without one are left out."""
        return [row for row in map(self.get, ids) if row is not None]

    def finder(self, indexes: Mapping[str, Any], slow: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        """A ``lookup(column, value)`` by hash indexes (by column); ``slow`` is one that can do all. An engine may have
        a faster one.
        """
        return slow

    def contains(self, idx: int) -> bool:
        """Whether a live row has this id."""
        raise NotImplementedError

    # ``first`` and ``then`` are calls made in one step with the write: no exception or signal splits them. ``first``
    # come before the change (the log's frame), ``then`` after it; what raises in ``first`` leaves the table as it was

    def append_values(self, values: Sequence[Any], first: Sequence[Call] = ()) -> None:
        """Append one row of checked physical values; its id is ``rows`` of before."""
        raise NotImplementedError

    def extend(self, staged: Staged, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        """Append staged rows, all or none; returns the first id."""
        raise NotImplementedError

    def apply(self, changes: Iterable[Change], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        """Carry out planned updates of live rows, all or none."""
        raise NotImplementedError

    def remove(self, ids: Iterable[int], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        """Delete live rows, all or none."""
        raise NotImplementedError

    def compact(self, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes of memory given back."""
        raise NotImplementedError

    # -- for a transaction: nothing below ``begin`` is for good before ``commit`` ---

    def begin(self) -> None:
        """From here on note what ``rollback`` needs. The caller holds the lock until the transaction ends."""
        raise NotImplementedError

    def commit(self) -> None:
        """Forget what was noted."""
        raise NotImplementedError

    def rollback(self) -> None:
        """Rows, deleted rows, values and counters as they were at ``begin``."""
        raise NotImplementedError

    # -- images: states of a table in memory that are kept -------------------------

    def image(self) -> Any:
        """The table as of now, to be kept: cheap, and what is written afterwards is copied then. No transaction is
        open.
        """
        raise NotImplementedError

    def become(self, image: Any) -> None:
        """Be what an image of this table shows, in one step: rows, ids and their generation. The image stays as it is,
        and so do views. No transaction is open.
        """
        raise NotImplementedError

    def branch(self, image: Any) -> Table:
        """A table of its own that begins as an image of this one."""
        raise NotImplementedError

    def compare(self, one: Any, other: Any) -> Difference:
        """What differs between two images of the same generation, at a cost that follows the difference."""
        raise NotImplementedError

    def compare_stored(self, one: Stored, other: Stored) -> Difference:
        """``compare`` for two states in a file. Of the table nothing is used but what its rows are like, so its lock
        need not be held. CorruptionError.
        """
        raise NotImplementedError

    def held_by(self, kept: Iterable[Any]) -> int:
        """Bytes of memory that these images keep besides what the table holds."""
        raise NotImplementedError

    # -- for a file: see "The file" in docs/design.md ---------------------------

    def attach(self, log: Any) -> None:
        """Single-row inserts write their frame to this log themselves (None: not any more)."""
        raise NotImplementedError

    def adopt(self, header: Mapping[str, Any], source: Source) -> None:
        """Be the table of a file, which is empty so far: counters from ``header`` (what ``header()`` gave when it was
        written), entries from ``source`` when they are first needed. Changes are noted from here on. CorruptionError
        for a header that makes no sense.
        """
        raise NotImplementedError

    def replacing(self, header: Mapping[str, Any], source: Source, later: Source) -> list[Call]:
        """The calls that make the table of a file that of another state of it, for one step: as ``adopt`` does, after
        which entries come from ``later``. What can fail does so here; views keep what they have.
        """
        raise NotImplementedError

    def header(self) -> dict[str, Any]:
        """The counters that a file keeps, ready for JSON: ``rows``, ``live`` and the engine's own."""
        raise NotImplementedError

    def changes(self, final: bool = False) -> Iterator[tuple[int, Optional[Entry]]]:
        """The entries that have changed since they were last ``saved``, ascending by key, made one at a time; None: the
        key is gone. Pieces that have not changed are references. Nobody writes meanwhile. ``final``: no row will be
        added to them, so they may be as short as they can be.
        """
        raise NotImplementedError

    def saved(self, stored: Iterable[tuple[int, Optional[Entry]]]) -> None:
        """The changes are in the file, as these entries of references."""
        raise NotImplementedError

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Every entry with its data, for a copy of a table that has no file."""
        raise NotImplementedError

    def prepare(self, staged: Staged) -> Bulk:
        """A large batch as entries to be written before it is logged; nothing is changed yet."""
        raise NotImplementedError

    def publish(
        self, bulk: Bulk, stored: Sequence[tuple[int, Entry]], then: Sequence[Call] = (), first: Sequence[Call] = ()
    ) -> int:
        """Append a prepared batch whose entries are written; returns the first id. What is as stored need not be
        written again.
        """
        raise NotImplementedError

    def replay(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> None:
        """``publish`` when reopening: the batch is read from its entries. CorruptionError."""
        raise NotImplementedError

    def release(self, gone: Absent) -> None:
        """Let go of every row, of the file and of its map: the handle is closed. Views keep what they have.

        Whoever still asks for a row (somebody may have kept the kernel's ``get``) is refused by ``gone``.
        """
        raise NotImplementedError

    def verify(self) -> Iterator[str]:
        """What is wrong with the table, a sentence each: every piece decoded, zone maps and counts against the rows."""
        raise NotImplementedError

    def memory_usage(self) -> int:
        """Bytes this table holds in memory."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """Row positions given out; the next row's id."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def writing(self) -> AbstractContextManager[Any]:
        """The table to oneself from the planning of a write of several rows to its end."""
        return self.lock

    # -- staging -----------------------------------------------------------

    def stage(self, rows: Iterable[Mapping[str, Any]]) -> Staged:
        """Check and encode a batch of rows. The first bad row raises and nothing is kept."""
        try:
            buffers = self.codec.encode_rows(rows)
        except TypeError as problem:
            if isinstance(problem, SnapDBError) or _is_iterable(rows):
                raise
            raise ValueTypeError(f"batch_insert takes an iterable of dicts, not {type(rows).__name__}") from None
        return Staged(buffers[0].rows, buffers)

    def stage_columns(self, columns: Mapping[str, Any]) -> Staged:
        """Check and encode whole columns of equal length. A missing nullable column is null."""
        if not isinstance(columns, Mapping):
            raise ValidationError(f"insert_columns takes a mapping of name to values, not {type(columns).__name__}")
        self.refuse(columns, -1, False)  # names are those of a row, and so are the errors
        staged: list[Any] = [
            self._stage_column(j, columns[column.name]) if column.name in columns else None
            for j, column in enumerate(self.schema.columns)
        ]
        rows = self._equal_lengths(staged)
        for j, buffer in enumerate(staged):
            if buffer is None:
                staged[j] = self.codec.encode_column(j, [None] * rows)
        return Staged(rows, staged)

    def _stage_column(self, j: int, values: Any) -> ColumnBuffer:
        try:
            buffer: ColumnBuffer = self.codec.encode_column(j, values)
            return buffer
        except SnapDBError:
            raise
        except (TypeError, ValueError) as problem:  # no sequence of values at all
            name = self.schema.columns[j].name
            error = ValueTypeError if isinstance(problem, TypeError) else ValidationError
            raise error(f"column {name!r}: {problem}", column=name) from problem

    def _equal_lengths(self, staged: list[Any]) -> int:
        lengths = {column.name: b.rows for column, b in zip(self.schema.columns, staged) if b is not None}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {rows}" for name, rows in lengths.items())
            raise ValidationError(f"insert_columns: columns differ in length ({told}); give each as many values")
        return next(iter(lengths.values()), 0)

    # -- planned writes ----------------------------------------------------

    def ids_where(self, where: Optional[scan.Selector]) -> list[int]:
        """Ids of the live rows that match, in order."""
        with self.view() as view:
            ids = [idx for page in scan.pages(view, where) for idx in page.ids()]
        if isinstance(where, scan.WhereCallable):
            self.check_live(ids)  # a callable may have deleted rows
        return ids

    def plan_update(self, idx: int, row: Mapping[str, Any]) -> Change:
        """An update of one live row, checked. NotFoundError where there is no such row."""
        self.check_live([idx])
        values = self.codec.encode_partial(row)
        self.check_live([idx])  # reading the row may have run code that deleted this one
        return Change(idx, values)

    def check_live(self, ids: Iterable[int]) -> None:
        """NotFoundError for the first id without a live row."""
        for idx in ids:
            if not self.contains(idx):
                raise self.missing(idx)

    def plan_updates(self, where: Any, updates: Any) -> list[Change]:
        """Updates of every row that matches: ``updates`` is a dict, or a callable from row to dict."""
        selector = scan.make_where(self.schema, where)
        if not callable(updates):
            values = self.codec.encode_partial(updates)
            return [Change(idx, values) for idx in self.ids_where(selector)]
        with self.view() as view:
            rows = [
                (idx, row)
                for page in scan.pages(view, selector)
                for idx, row in zip(page.ids(), page.records(view, range(len(self.schema.columns)), self.schema.names))
            ]
        changes = [Change(idx, self.codec.encode_partial(updates(row))) for idx, row in rows]
        self.check_live(change.idx for change in changes)  # a callable may have deleted rows
        return changes

    def missing(self, idx: Any) -> NotFoundError:
        """The error for a row id without a live row."""
        hint = "it was never inserted, was deleted, or ids changed in compact()"
        return NotFoundError(f"no row with id {idx!r}", hint=hint)

    def select_for_delete(self, conditions: Any, combine: str) -> list[int]:
        """Ids that ``delete_where`` is about to delete; ValueError for no conditions at all."""
        selector = scan.make_where(self.schema, conditions, combine)
        if selector is None:
            column = next((column for column in self.schema if column.not_null), self.schema.columns[0])
            every = f"[({column.name!r}, 'not_null')]"
            if not column.not_null:
                every = f"[({column.name!r}, 'not_null'), ({column.name!r}, 'is_null')] with combine='or'"
            raise ValidationError(
                "delete_where needs conditions",
                hint=f"to delete every row give some that every row meets, such as {every}",
            )
        return self.ids_where(selector)

    # -- reads -------------------------------------------------------------

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, row) of the live rows in id order, as of now."""
        view = self.view()
        return self._items(view)

    def _items(self, view: scan.View) -> Iterator[tuple[int, dict[str, Any]]]:
        with view:
            yield from scan.iterate(view)

    def query(self, predicate: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, row) of the live rows, as of now, that a callable accepts."""
        if not callable(predicate):
            raise ValueTypeError("query() takes a callable over rows; for conditions use select() or select_where()")
        return ((idx, row) for idx, row in self.items() if predicate(row))

    def select(
        self,
        where: Any = None,
        columns: Optional[Iterable[str]] = None,
        limit: Optional[int] = None,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Rows as dicts in id order; ``where`` is conditions or a callable over rows."""
        selector = scan.make_where(self.schema, where)
        with self.view() as view:
            return scan.records(view, selector, columns, limit, offset)

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
        """Rows that meet the conditions: dicts, or with ``orient="columns"`` a dict of name to array (typed
        where possible).
        """
        if orient not in ("records", "columns"):
            raise ValidationError(f"orient must be 'records' or 'columns', not {orient!r}")
        selector = scan.make_where(self.schema, conditions, combine)
        read: Callable[..., Any] = scan.records if orient == "records" else scan.arrays
        with self.view(use_numpy) as view:
            return read(view, selector, columns, limit, offset)

    def count_where(self, conditions: Any, combine: str = "and", use_numpy: Optional[bool] = None) -> int:
        """How many rows meet the conditions."""
        selector = scan.make_where(self.schema, conditions, combine)
        with self.view(use_numpy, scan.read_by(selector)) as view:
            return scan.count(view, selector)

    def aggregate(self, column_name: str, agg: str = "sum", where: Any = None, use_numpy: Optional[bool] = None) -> Any:
        """``sum min max avg count`` of one column over the rows that match; over no values sum and count are 0,
        others None.
        """
        j = column_index(self.schema, column_name, COUNT_HINT)
        check_aggregate(column_name, self.schema.columns[j].type, agg)
        selector = scan.make_where(self.schema, where)
        with self.view(use_numpy, scan.read_by(selector, j)) as view:
            return aggregate(view, j, agg, selector, self.zone_answers)

    def group_by(self, key_column: Any, value_column: Any, agg: str = "count", where: Any = None) -> dict[Any, Any]:
        """Aggregates per group, in order of each group's first row; see ``docs/values.md`` for null and NaN keys."""
        plan = group_plan(self.schema, key_column, value_column, agg)
        selector = scan.make_where(self.schema, where)
        with self.view(None, scan.read_by(selector, *plan.columns)) as view:
            return group_by(view, plan, selector)

    def select_column(self, column_name: str) -> list[Any]:
        """One column's values of the live rows, in id order."""
        j = self.schema.index(column_name)
        with self.view() as view:
            return scan.column_values(view, j)

    def lookup(self, column_name: str, value: Any) -> Optional[dict[str, Any]]:
        """The first row (lowest id) with this value, None where there is none."""
        selector = scan.make_where(self.schema, [(column_name, "eq", value)])
        with self.view() as view:
            found = scan.records(view, selector, None, 1, 0)
        return found[0] if found else None

    def find(self, /, **values: Any) -> list[dict[str, Any]]:
        """Every row with these values, in id order."""
        return self.select([(name, "eq", value) for name, value in values.items()])

    def range_find(
        self, column: str, low: Any = None, high: Any = None, include_low: bool = True, include_high: bool = True
    ) -> list[dict[str, Any]]:
        """Rows with ``low <= value <= high`` (None: unbounded), ordered by (value, id); nulls never, NaN only
        unbounded and last.
        """
        j = self.schema.index(column)
        conditions: list[tuple[str, str, Any]] = [(column, "not_null", None)]
        if low is not None:
            conditions.append((column, "gte" if include_low else "gt", low))
        if high is not None:
            conditions.append((column, "lte" if include_high else "lt", high))
        selector = scan.make_where(self.schema, conditions)
        with self.view() as view:
            rows = scan.records(view, selector, None, None, 0)
        name = self.schema.columns[j].name
        rows.sort(key=lambda row: _order(row[name]))  # the sort is stable: ties stay in id order
        return rows

    # -- export ------------------------------------------------------------

    def column_buffer(self, column_name: str) -> memoryview:
        """One numeric column as a contiguous read-only buffer; position is row id, null and deleted rows hold 0
        (floats: NaN).
        """
        raise NotImplementedError

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        """One column as a NumPy array; position is row id."""
        raise NotImplementedError


def _is_iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _order(value: Any) -> Any:
    """A sort key for values of one column: text by its UTF-8 bytes, NaN last."""
    if isinstance(value, str):
        return value.encode()
    return (1, 0.0) if value != value else ((0, value) if isinstance(value, float) else value)
