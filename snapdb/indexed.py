"""Reads by condition, and the indexes that answer them where they can. Another part of ``SnapDB``."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import scan
from .aggregate import column_index
from .errors import NotFoundError
from .indexes import Index, Indexes, Named

if TYPE_CHECKING:
    from .schema import Schema
    from .tablefile import TableFile

__all__ = ["Indexed"]

Row = dict[str, Any]


class Indexed:
    """The part of ``SnapDB`` that looks for rows. ``core`` makes and changes what it builds on."""

    schema: Schema
    _engine: Any
    _file: Optional[TableFile]
    _read_only: bool
    _description: dict[str, Any]
    _indexes: Indexes
    _auto: Optional[dict[int, int]]  # auto_index: how many equality reads each column has had
    _auto_threshold: int

    def _writable(self) -> Any:
        """The engine, for a write."""
        raise NotImplementedError

    def _open_engine(self) -> Any:
        """The engine; ClosedError where the database is closed."""
        raise NotImplementedError

    def _outside(self, name: str) -> None:
        """TransactionError where a transaction is open."""
        raise NotImplementedError

    def _rebind(self) -> None:
        """Have single-row calls go the way that the indexes ask for."""
        raise NotImplementedError

    # -- definitions ---------------------------------------------------------

    def create_index(self, column: str) -> None:
        """Have a hash index of a column, for ``find``, ``lookup`` and conditions of equality; there is no harm in
        asking twice. It is kept with the database, made of the rows when it is first needed, and then told of every
        write. UnknownColumnError; TransactionError inside a transaction.
        """
        self._define(column, "hash", "create_index")

    def drop_index(self, column: str) -> None:
        """Have it no more. NotFoundError (a KeyError) where there is none. A unique column stays unique."""
        self._drop(column, "hash", "drop_index")

    def create_range_index(self, column: str) -> None:
        """Have an ordered index of a column, for ``range_find`` and conditions of order; else as ``create_index``."""
        self._define(column, "range", "create_range_index")

    def drop_range_index(self, column: str) -> None:
        """Have it no more. NotFoundError (a KeyError) where there is none."""
        self._drop(column, "range", "drop_range_index")

    @property
    def indexes(self) -> list[str]:
        """The names of the columns that have a hash index, in the order in which they got it."""
        self._open_engine()
        return self._indexes.names("hash")

    def _define(self, name: str, kind: str, call: str) -> None:
        engine = self._writable()
        with engine.writing():
            self._open_engine()
            j = column_index(self.schema, name, "give the name of one column")
            self._outside(call)
            if name in self._indexes.names(kind):
                return
            self._indexes.define(name, kind)
            try:
                self._redescribe()
                self._indexes.of(j, kind)
            except BaseException:
                self._indexes.drop(name, kind)
                self._redescribe()
                raise

    def _drop(self, name: str, kind: str, call: str) -> None:
        engine = self._writable()
        with engine.writing():
            self._open_engine()
            column_index(self.schema, name, "give the name of one column")
            self._outside(call)
            if not self._indexes.drop(name, kind):
                hint = f"there are indexes of: {', '.join(self._indexes.names(kind)) or 'no column'}"
                raise NotFoundError(f"column {name!r} has no {kind} index", hint=hint)
            self._redescribe()

    def _redescribe(self) -> None:
        """Note the definitions in the file, where there is one."""
        self._description["indexes"] = self._indexes.described()
        self._rebind()
        if self._file is not None:
            self._file.describe(self._description)
            self._file.checkpoint()

    # -- which way -----------------------------------------------------------

    def _read(self, where: Any, read: Callable[[Any], Any], combine: str = "and") -> Any:
        """What ``read`` makes of the conditions, or of what an index has narrowed them down to: then the table is held
        still meanwhile.
        """
        selector = self._selector(where, combine)
        if selector is None:
            return read(where)
        engine = self._open_engine()
        with engine.lock:
            found = self._indexes.candidates(selector.plan, engine.rows)
            if found is not None:
                return read(_rest(selector, found))
        return read(where)

    def _selector(self, where: Any, combine: str) -> Optional[scan.Where]:
        """The conditions as they are put to the indexes; None where there is nothing to ask, or nobody."""
        if (not self._indexes and self._auto is None) or where is None or callable(where) or combine != "and":
            return None
        self._open_engine()
        selector = scan.make_where(self.schema, where)
        if type(selector) is not scan.Where:
            return None
        if self._auto is not None:
            self._count(selector)
        return selector

    def _narrowed(self, where: scan.Where) -> tuple[scan.View, scan.Selector, Optional[Named]]:
        """The rows as of now, conditions on them as indexes have narrowed them down, and how; None: there is no index,
        or it would not pay.
        """
        engine = self._open_engine()
        if self._auto is not None:
            self._count(where)
        if not self._indexes:
            return engine.view(), where, None
        with engine.lock:
            found = self._indexes.candidates(where.plan, engine.rows)
            view: scan.View = engine.view()
        return view, where if found is None else _rest(where, found), found

    def _count(self, where: scan.Where) -> None:
        """Note an equality read for ``auto_index``, and make the index of a column that has had enough of them."""
        counts = self._auto
        if counts is None:
            return
        for j, predicate in where.plan:
            equal = predicate.kind == "range" and predicate.lo is not None and predicate.lo == predicate.hi
            if not equal or predicate.negate or self._indexes.has(j, "hash"):
                continue
            counts[j] = counts.get(j, 0) + 1
            if counts[j] >= self._auto_threshold:
                with self._engine.writing():
                    self._indexes.define(self.schema.columns[j].name, "hash")
                    self._description["indexes"] = self._indexes.described()
                    self._rebind()
                    if self._file is not None:
                        self._file.describe(self._description)  # the next checkpoint notes it

    # -- reads ---------------------------------------------------------------

    def lookup(self, column_name: str, value: Any) -> Optional[Row]:
        """The first row (lowest id) whose column equals the value, None where there is none. By the index of the
        column where it has one, else by a scan.
        """
        engine = self._open_engine()
        if self._auto is not None:
            self._selector([(column_name, "eq", value)], "and")  # it counts
        if self._indexes:
            where: Any = scan.make_where(self.schema, [(column_name, "eq", value)])
            j, predicate = where.plan[0]
            with engine.lock:
                index = self._indexes.of(j, "hash")
                if index is not None:
                    idx = None if predicate.kind != "range" else self._indexes.first(index, predicate.lo)
                    found: Optional[Row] = None if idx is None else engine.get(idx)
                    return found
        row: Optional[Row] = engine.lookup(column_name, value)
        return row

    def find(self, /, **column: Any) -> list[Row]:
        """Every row whose columns equal the values, in id order: ``db.find(status="active", sensor=3)``. By indexes
        where there are, else by a scan.
        """
        return type(self).select(self, [(name, "eq", value) for name, value in column.items()])

    def range_find(
        self, column: str, low: Any = None, high: Any = None, include_low: bool = True, include_high: bool = True
    ) -> list[Row]:
        """Rows with a value between ``low`` and ``high`` (None: unbounded), ordered by (value, id). By the ordered
        index of the column where it has one, else by a scan.
        """
        engine = self._open_engine()
        if self._indexes and (low is not None or high is not None):
            j = self.schema.index(column)
            with engine.lock:
                index = self._indexes.of(j, "range")
                if index is not None and index.exact:
                    ends = index.plain_ends(low, high)
                    if ends is not None:
                        found = index.pairs.range(*ends, not include_low, not include_high)
                    else:
                        where: Any = scan.make_where(
                            self.schema, _between(column, low, high, include_low, include_high)
                        )
                        found = _among(index, where)
                    indexed: list[Row] = engine.rows_of(found)
                    return indexed
        rows: list[Row] = engine.range_find(column, low, high, include_low, include_high)
        return rows

    def query(self, predicate: Callable[[Row], Any]) -> Iterator[tuple[int, Row]]:
        """(id, row) of the rows that a callable accepts, as of now."""
        rows: Iterator[tuple[int, Row]] = self._engine.query(predicate)
        return rows

    def select(
        self, where: Any = None, columns: Optional[Iterable[str]] = None, limit: Optional[int] = None, offset: int = 0
    ) -> list[Row]:
        """Rows as dicts in id order; ``where`` is conditions or a callable over rows, ``columns`` the names to give."""
        engine = self._open_engine()

        def read(those: Any) -> Any:
            if type(those) is scan.Among and not those.plan and columns is None and limit is None and offset == 0:
                return engine.rows_of(array("Q", those.ids))
            return engine.select(those, columns, limit, offset)

        rows: list[Row] = self._read(where, read)
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

        def read(those: Any) -> Any:
            return self._engine.select_where(those, columns, limit, offset, combine, use_numpy, orient=orient)

        return self._read(conditions, read, combine)

    def count_where(self, conditions: Any, combine: str = "and", use_numpy: Optional[bool] = None) -> int:
        """How many rows meet the conditions."""
        rows: int = self._read(conditions, lambda those: self._engine.count_where(those, combine, use_numpy), combine)
        return rows

    def aggregate(self, column_name: str, agg: str = "sum", where: Any = None, use_numpy: Optional[bool] = None) -> Any:
        """``sum``, ``min``, ``max``, ``avg`` or ``count`` of one column; over no values sum and count are 0, the
        others None.
        """
        return self._read(where, lambda those: self._engine.aggregate(column_name, agg, those, use_numpy))

    def group_by(self, key_column: Any, value_column: Any, agg: str = "count", where: Any = None) -> dict[Any, Any]:
        """Aggregates per group, groups in order of their first row.

        Two names: ``{key: value}``. A list of keys: tuple keys. A dict such as ``{"temp": ["sum", "avg"], "id":
        "count"}`` as values: ``{key: {"temp_sum": …, "temp_avg": …, "id_count": …}}``. Null values are skipped; a
        null key groups under None, NaN is one group.
        """
        groups: dict[Any, Any] = self._read(
            where, lambda those: self._engine.group_by(key_column, value_column, agg, those)
        )
        return groups


def _rest(where: scan.Where, named: Named) -> scan.Among:
    """What is still to be tested of the rows that indexes name."""
    return scan.Among([term for at, term in enumerate(where.plan) if at not in named.met], named.ids)


def _among(index: Index, where: scan.Where) -> Any:
    """Ids of an ordered index of whole values that meet conditions on its column, in its order."""
    words: list[Optional[int]] = [None, None]
    for _, predicate in where.plan:
        if predicate.kind == "never":
            return array("Q")
        if predicate.kind == "range":
            low, high = Indexes.bounds(index, predicate)
            words[0] = low if words[0] is None or (low is not None and low > words[0]) else words[0]
            words[1] = high if words[1] is None or (high is not None and high < words[1]) else words[1]
    return index.pairs.range(*words)


def _between(column: str, low: Any, high: Any, include_low: bool, include_high: bool) -> list[tuple[str, str, Any]]:
    conditions: list[tuple[str, str, Any]] = []
    if low is not None:
        conditions.append((column, "gte" if include_low else "gt", low))
    if high is not None:
        conditions.append((column, "lte" if include_high else "lt", high))
    return conditions
