"""The query builder: ``query(db).filter(age={"gte": 18}).order("score", desc=True).slice(10).execute()``.

A query is an object that says what is wanted; nothing is read before ``execute``, ``first``, ``count`` or iteration.
Conditions become bitmaps (``scan.py``), an order with a limit looks for the best rows only (``ordering.py``), and a
dict is built for a row that is given out, or that a Python callable is asked about, and for no other.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional, Union

from ._ext._zones import judge
from .conditions import Condition, Predicate, normalize
from .errors import ConditionError, ValueTypeError, shorten
from .ordering import Order, is_top, sorted_ids, sorted_of, top_ids
from .scan import Page, Selector, View, Where, _bound, count, pages, readable, rows_at, window

if TYPE_CHECKING:
    from .columnar import ColumnarTable
    from .indexed import Indexed
    from .indexes import Named

__all__ = ["Query", "query"]

Row = dict[str, Any]
Item = tuple[int, Row]
STEP = 4096  # rows that are built at a time


class _Plan(NamedTuple):
    """What a query says. ``terms`` are its ``conditions`` as the kernels take them; ``limit`` -1: none."""

    conditions: tuple[Condition, ...] = ()
    terms: tuple[tuple[int, Predicate], ...] = ()
    calls: tuple[Callable[[Row], Any], ...] = ()
    orders: tuple[Order, ...] = ()
    skip: int = 0
    limit: int = -1

    @property
    def where(self) -> Optional[Where]:
        """The conditions, None where there are none."""
        return Where(self.terms, "and") if self.terms else None

    @property
    def need(self) -> int:
        """Rows from the first one that the slice does not cut off, -1: all."""
        return self.limit if self.limit <= 0 else self.skip + self.limit


class _Reading(NamedTuple):
    """The rows as of now, the conditions as indexes have narrowed them down, and how they did; None: they did not."""

    view: View
    where: Optional[Selector]
    named: Optional[Named]


class Query:
    """What to read of a table. Immutable: each call gives a new query, so one can be kept and built upon.

    Rows come as (row id, dict), as of the moment that reading began, and are the caller's own. Whatever the order of
    the calls, filters come first, then the order, then the slice.
    """

    __slots__ = ("_db", "_plan")
    _db: Union[Indexed, ColumnarTable]
    _plan: _Plan

    def __init__(self, db: Union[Indexed, ColumnarTable]) -> None:
        readable(db, "query()")
        object.__setattr__(self, "_db", db)
        object.__setattr__(self, "_plan", _Plan())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Query does not change; its methods give a new one (setting {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Query does not change (deleting {name!r})")

    # -- saying what is wanted ---------------------------------------------

    def filter(self, /, *conditions: Any, **columns: Any) -> Query:
        """Only rows that meet all of it: ``filter(age=25, score={"gte": 60, "lt": 80})``, or conditions as
        ``select_where`` takes them, a single one too: ``filter(("age", "gt", 25))``. Further filters narrow it down.

        ConditionError (a ValueError) for what cannot be understood or compared, UnknownColumnError.
        """
        schema = readable(self._db, "query()").schema
        found = [one for given in (*conditions, columns) for one in normalize(_listed(given))]
        terms = [_bound(schema, condition) for condition in found]
        plan = self._plan
        return self._with(conditions=(*plan.conditions, *found), terms=(*plan.terms, *terms))

    def where_fn(self, predicate: Callable[[Row], Any]) -> Query:
        """Only rows that a callable accepts. It gets a dict of its own for each row that meets the conditions, in order
        of row id, and for an order all of them; so it is much slower than conditions. ValueTypeError for what cannot
        be called.
        """
        if not callable(predicate):
            raise ValueTypeError(
                f"where_fn() takes a callable over rows, not {type(predicate).__name__}",
                hint="for conditions use filter()",
            )
        return self._with(calls=(*self._plan.calls, predicate))

    def order(self, column: str, desc: bool = False) -> Query:
        """Sort by a column; rows that are equal in it by the column of the next ``order``, and at last by row id.

        Text by its UTF-8 bytes; NaN after the numbers, null after that, in descending order too. UnknownColumnError.
        """
        j = readable(self._db, "query()").schema.index(column)
        if not isinstance(desc, int):
            raise ValueTypeError(f"order(): desc is True or False, not {type(desc).__name__} {shorten(desc)}")
        return self._with(orders=(*self._plan.orders, Order(j, bool(desc))))

    def slice(self, limit: Optional[int], offset: int = 0) -> Query:
        """At most ``limit`` rows (None: all; 0 or less: none) after the first ``offset``. A later call replaces it.

        ValidationError for a negative offset, ValueTypeError for what is no int.
        """
        skip, most = window(limit, offset)
        return self._with(skip=skip, limit=most)

    def _with(self, **changes: Any) -> Query:
        made = Query(self._db)
        object.__setattr__(made, "_plan", self._plan._replace(**changes))
        return made

    # -- for whoever watches it ----------------------------------------------

    @property
    def plan(self) -> _Plan:
        """What it says."""
        return self._plan

    def replanned(self, plan: _Plan) -> Query:
        """A query of the same table that says this."""
        return self._with(**plan._asdict())

    def reads(self, db: Any) -> bool:
        """Whether this is the table that it reads."""
        return self._db is db

    # -- reading -----------------------------------------------------------

    def execute(self) -> list[Item]:
        """The rows."""
        reading = self._begin()
        with reading.view as view:
            if self._plan.calls and not self._plan.orders:
                return list(self._cut(self._accepted(reading)))
            if self._plan.orders:
                ids = self._in_order(reading)
                return list(zip(ids, rows_at(view, ids)))
            return [item for page in self._pages(reading) for item in _items(view, page)]

    def first(self) -> Optional[Item]:
        """The first row, None where there is none."""
        plan = self._plan
        found = self._with(limit=1 if plan.limit < 0 else min(1, plan.limit)).execute()
        return found[0] if found else None

    def count(self) -> int:
        """How many rows ``execute`` gives."""
        plan = self._plan
        reading = self._begin()
        with reading.view as view:
            if plan.limit == 0:
                return 0
            if plan.calls:
                return sum(1 for _ in self._cut(self._accepted(reading)))
            found = max(0, count(view, reading.where) - plan.skip)
        return found if plan.limit < 0 else min(found, plan.limit)

    def __iter__(self) -> Iterator[Item]:
        """The rows as of now, built as they are asked for."""
        return self._iterate(self._begin())

    def _begin(self) -> _Reading:
        table, where = readable(self._db, "query()"), self._plan.where
        narrowed = getattr(self._db, "_narrowed", None)
        if where is None or narrowed is None:
            return _Reading(table.view(), where, None)
        return _Reading(*narrowed(where))

    def _iterate(self, reading: _Reading) -> Iterator[Item]:
        with reading.view as view:
            if self._plan.calls and not self._plan.orders:
                yield from self._cut(self._accepted(reading))
            elif self._plan.orders:
                ids = self._in_order(reading)
                for at in range(0, len(ids), STEP):
                    part = ids[at : at + STEP]
                    yield from zip(part, rows_at(view, part))
            else:
                for page in self._pages(reading):
                    yield from _items(view, page)

    def _pages(self, reading: _Reading) -> Iterator[Page]:
        """Rows that meet the conditions and lie in the slice, in id order; callables are not asked."""
        plan = self._plan
        return pages(reading.view, reading.where, plan.skip, plan.limit)

    def _in_order(self, reading: _Reading) -> list[int]:
        """Ids of the rows of a query with an order."""
        plan, view = self._plan, reading.view
        if plan.calls:
            accepted = [] if plan.limit == 0 else [idx for idx, _ in self._accepted(reading)]
            ids = sorted_of(view, accepted, plan.orders)
        elif self._is_top(reading):
            ids = top_ids(view, plan.terms, plan.orders, plan.need)
        else:
            ids = sorted_ids(view, reading.where, plan.orders)
        return ids[plan.skip :] if plan.limit < 0 else ids[plan.skip : plan.skip + plan.limit]

    def _is_top(self, reading: _Reading) -> bool:
        """Whether the best rows are looked for rather than all sorted: of the few that an index names, all are."""
        plan = self._plan
        return not plan.calls and reading.named is None and is_top(plan.need, reading.view.rows)

    def _accepted(self, reading: _Reading) -> Iterator[Item]:
        """The rows that meet the conditions and that every callable accepts, in id order, built as they are asked."""
        calls = self._plan.calls
        for page in pages(reading.view, reading.where):
            for idx, row in _items(reading.view, page):
                if all(call(dict(row)) for call in calls):
                    yield idx, row

    def _cut(self, items: Iterator[Item]) -> Iterator[Item]:
        """The slice, which asks for no row behind its last."""
        plan = self._plan
        return islice(items, *((0, 0) if plan.limit == 0 else (plan.skip, None if plan.limit < 0 else plan.need)))

    # -- telling -----------------------------------------------------------

    def explain(self) -> str:
        """How the query is answered, a line for each step. No row is read, but to make an index that is asked for the
        first time.
        """
        reading = self._begin()
        with reading.view as view:
            engine = getattr(self._db, "storage_type", "columnar")
            lines = [f"{engine} engine: {view.rows} row ids in {view.segments()} segments"]
            lines += self._explain_filters(reading)
            lines += self._explain_order(reading)
        plan = self._plan
        if plan.limit >= 0 or plan.skip:
            lines.append(f"slice: {'all' if plan.limit < 0 else f'at most {plan.limit}'} after the first {plan.skip}")
        return "\n".join(lines)

    def _explain_filters(self, reading: _Reading) -> list[str]:
        plan = self._plan
        named = reading.named
        hows = ["mask"] * len(plan.conditions)
        if named is not None:
            hows = ["index" if at in named.met else "each row that is named" for at in range(len(hows))]
        lines = [f"filter: {_said(one)} - {how}" for one, how in zip(plan.conditions, hows)]
        if named is not None:
            lines.insert(0, _told(named))
        elif plan.terms:
            lines.append(_zone_maps(reading.view, plan.terms))
        lines += [f"where_fn: {_name(call)} - Python call for each row that is left" for call in plan.calls]
        return lines or ["every row"]

    def _explain_order(self, reading: _Reading) -> list[str]:
        plan, view = self._plan, reading.view
        if not plan.orders:
            return ["order: by row id, as stored"]
        names = [view.schema.columns[j].name + (" desc" if desc else "") for j, desc in plan.orders]
        how = "full sort"
        if self._is_top(reading):
            how = f"top-k, the best {plan.need}"
        return [f"order: {', '.join(names)}, row id - {how}"]

    def __repr__(self) -> str:
        plan, parts = self._plan, [f"query({self._db!r})"]
        schema = self._db.schema
        if plan.conditions:
            parts.append(f"filter({[tuple(one) for one in plan.conditions]!r})")
        parts += [f"where_fn({_name(call)})" for call in plan.calls]
        parts += [f"order({schema.columns[j].name!r}{', desc=True' if desc else ''})" for j, desc in plan.orders]
        if plan.limit >= 0 or plan.skip:
            parts.append(f"slice({None if plan.limit < 0 else plan.limit}, {plan.skip})")
        return ".".join(parts)

    def _repr_html_(self) -> str:
        """The first rows, for notebooks; of a query that asks callables, what it says: they may take long."""
        from .html_table import SHOWN, html_of, html_table, html_text, kinds  # notebooks alone ask

        def table() -> str:
            plan = self._plan
            if plan.calls:
                return html_text(repr(self))
            most = SHOWN + 1 if plan.limit < 0 else min(plan.limit, SHOWN + 1)
            rows = [(idx, list(row.values())) for idx, row in self.slice(most, plan.skip)]
            return html_table(repr(self), kinds(self._db.schema), rows, -1)

        return html_of(self, table)


def query(db: Union[Indexed, ColumnarTable]) -> Query:
    """A query of every row of a database, of an open snapshot or of a ``ColumnarTable``; ValueTypeError for anything
    else, ClosedError.
    """
    return Query(db)


def _items(view: View, page: Page) -> Iterator[Item]:
    """(id, row) of a page, built a part of it at a time."""
    columns = range(len(view.schema.columns))
    rows = memoryview(array("I", range(page.size))) if page.rows is None else page.rows
    for at in range(0, len(rows), STEP):
        part = page._replace(rows=rows[at : at + STEP])
        yield from zip(part.ids(), part.records(view, columns, view.schema.names))


def _listed(given: Any) -> Any:
    """Conditions as they are taken everywhere: here one (column, operator, value) may stand alone."""
    if callable(given):
        what = "filter() takes conditions as a list or a dict, not a callable"
        raise ConditionError(what, hint="for a callable over rows use where_fn()")
    alone = isinstance(given, tuple) and len(given) == 3 and all(isinstance(one, str) for one in given[:2])
    return [given] if alone else given


def _told(named: Named) -> str:
    """Which indexes named how many rows."""
    names, rows = ", ".join(map(repr, named.columns)), len(named.ids)
    if len(named.columns) == 1:
        return f"index: of column {names}, which names {rows} rows"
    return f"indexes: of columns {names}, which together name {rows} rows"


def _zone_maps(view: View, terms: Sequence[tuple[int, Predicate]]) -> str:
    """What the zone maps say of the segments, as ``Where`` asks them."""
    total = view.segments()
    if view.slab_zones and any(_of_numbers(predicate) for _, predicate in terms):
        return "zone maps: of each slab, made when a range is first asked for"
    if all(view.zone(j, k) is None for j, _ in terms for k in range(total)):
        return "zone maps: none"
    out = sum(any(_rules_out(view, j, k, predicate) for j, predicate in terms) for k in range(total))
    return f"zone maps: rule out {out} of {total} segments"


def _of_numbers(predicate: Predicate) -> bool:
    return predicate.kind == "range" and not isinstance(predicate.hi if predicate.lo is None else predicate.lo, bytes)


def _rules_out(view: View, j: int, k: int, predicate: Predicate) -> bool:
    return not view.dead(k) and len(view.bounds(k)) == 1 and judge(view.zone(j, k), *predicate) is False


def _said(condition: Condition) -> str:
    column, op, value = condition
    return f"{column} {op}" if op in ("is_null", "not_null") else f"{column} {op} {shorten(value)}"


def _name(call: Any) -> str:
    return str(getattr(call, "__qualname__", type(call).__name__))
