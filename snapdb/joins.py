"""Joins of two tables in memory, where a column of one equals a column of the other.

A hash join: the keys of the smaller table are entered into a dict, and only rows of the larger one that meet one of
them are kept. Nothing here loops over rows or pairs in Python. A row is one dict, however many pairs it is in: copies
were half of the time and of the memory.
"""

from __future__ import annotations

import gc
import math
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, compress, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .conditions import Condition, Predicate, bind
from .errors import ConditionError, ValidationError, shorten
from .scan import Where, pages, readable

if TYPE_CHECKING:
    from .scan import Page, View
    from .schema import ColumnDef

__all__ = ["join"]

HOW = ("inner", "left")
FEW = 4096  # keys that the kernels are asked for; more are looked up in a dict, row by row
_HAS_FREEZE = hasattr(gc, "get_freeze_count")  # not on PyPy
Row = dict[str, Any]
Pair = tuple[Row, Optional[Row]]


class _Side(NamedTuple):
    """One of the two tables: its rows as of now, the column that is compared, whether text is compared as bytes."""

    view: View
    j: int
    encode: bool

    def parts(self, where: Optional[Where]) -> Iterator[_Part]:
        """The live rows that meet a condition, a part of them at a time."""
        for page in pages(self.view, where):
            if page.rows is not None and len(page.rows) == page.size:
                page = page._replace(rows=None)  # all of them are read in less time one after the other
            values = page.column(self.view, self.j)
            yield _Part(self, page, values, list(map(_as_bytes, values)) if self.encode else values)

    def with_value(self) -> Optional[Where]:
        """The rows that may equal something; None: every row."""
        column = self.view.schema.columns[self.j]
        if column.type.is_float:
            return Where([(self.j, Predicate("range", -math.inf, math.inf))], "and")  # NaN lies outside
        return None if column.not_null else Where([(self.j, Predicate("not_null"))], "and")

    def equal_to(self, keys: Collection[Any]) -> Optional[Where]:
        """The rows that may equal one of these keys of the other table; the kernels find them where keys are few."""
        if len(keys) > FEW:
            return self.with_value()
        column = self.view.schema.columns[self.j]
        return Where([(self.j, bind(Condition(column.name, "in", tuple(keys)), column.type))], "and")


class _Part(NamedTuple):
    """Rows of one chunk, the values of the column that is compared, and these as keys."""

    side: _Side
    page: Page
    values: list[Any]
    keys: list[Any]

    def rows(self) -> list[Row]:
        """The rows as dicts."""
        view, j, _ = self.side
        columns = [self.values if c == j else self.page.column(view, c) for c in range(len(view.schema.columns))]
        rows: list[Row] = view.kernels.values.records(view.schema.names, columns)
        return rows

    def only(self, chosen: Sequence[Any]) -> _Part:
        """The rows for which ``chosen`` has something true."""
        page = self.page
        places = range(page.size) if page.rows is None else page.rows
        rows = memoryview(array("I", compress(places, chosen)))
        values, keys = list(compress(self.values, chosen)), list(compress(self.keys, chosen))
        return _Part(self.side, page._replace(rows=rows), values, keys)


def join(left: Any, other: Any, left_column: str, right_column: str, how: str) -> list[Pair]:
    """Pairs of rows; see ``SnapDB.join``. ``left`` is a table, ``other`` a table or a database."""
    if not isinstance(how, str) or how not in HOW:
        raise ValidationError(f"how must be 'inner' or 'left', not {shorten(how)}")
    right = readable(other, "join()")
    j, i = left.schema.index(left_column), right.schema.index(right_column)
    encode = _compared_as_bytes(left.schema.columns[j], right.schema.columns[i])
    with ExitStack() as views:
        views.enter_context(_uncollected())
        left_view = views.enter_context(left.view())
        right_view = left_view if right is left else views.enter_context(right.view())
        return _joined(_Side(left_view, j, encode), _Side(right_view, i, encode), len(left) < len(right), how == "left")


@contextmanager
def _uncollected() -> Iterator[None]:
    """A block without the cyclic garbage collector, which would else go over all pairs made so far again and again: it
    takes as long as everything else. Nothing that is made here is garbage: it is not looked at as young objects are
    either, which took an eighth of a join, but joins the old ones.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if _HAS_FREEZE and not gc.get_freeze_count():  # else the caller has frozen objects, which are to stay so
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _compared_as_bytes(left: ColumnDef, right: ColumnDef) -> bool:
    """Whether text meets binary values. ConditionError for columns of which no value can equal one of the other."""
    one, two = left.type, right.type
    if one.is_varlen and two.is_varlen:
        return one.is_text != two.is_text
    if (one.is_numeric and two.is_numeric) or (one.is_temporal and one.code == two.code):
        return False
    raise ConditionError(
        f"join: column {left.name!r} ({left.dtype}) does not compare with column {right.name!r} ({right.dtype})",
        column=left.name, hint="join numbers with numbers, text with text, dates with dates",
    )  # fmt: skip


def _as_bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _joined(left: _Side, right: _Side, left_is_smaller: bool, outer: bool) -> list[Pair]:
    only: Optional[set[Any]] = None
    if left_is_smaller:
        only = set(chain.from_iterable(part.keys for part in left.parts(left.with_value())))
    unique, groups = _entered(right, only)
    pairs: list[Pair] = []
    for part in left.parts(None if outer else left.equal_to(groups if unique is None else unique)):
        pairs.extend(_with_several(part, groups, outer) if unique is None else _with_one(part, unique, outer))
    return pairs


def _entered(side: _Side, only: Optional[set[Any]]) -> tuple[Optional[dict[Any, Row]], dict[Any, list[Row]]]:
    """The rows by key, of these keys ``only``: (one for each key, {}) where no two rows share one, else (None, lists of
    rows in id order).
    """
    parts: list[tuple[list[Any], list[Row]]] = []
    unique: dict[Any, Row] = {}
    total = 0
    for part in side.parts(side.with_value() if only is None else side.equal_to(only)):
        if only is not None and len(only) > FEW:
            part = part.only(list(map(only.__contains__, part.keys)))
        rows = part.rows()
        total += len(rows)
        unique.update(zip(part.keys, rows))
        parts.append((part.keys, rows))
    if len(unique) == total:
        return unique, {}
    groups: dict[Any, list[Row]] = {key: [] for key in unique}
    for keys, rows in parts:
        # a deque that keeps nothing runs the appends without a loop in Python
        deque(map(list.append, map(groups.__getitem__, keys), rows), maxlen=0)
    return None, groups


def _with_one(part: _Part, unique: Mapping[Any, Row], outer: bool) -> Iterable[Pair]:
    """Pairs where a key has one partner at most."""
    found: list[Any] = list(map(unique.get, part.keys))
    if not outer and not all(found):
        part, found = part.only(found), list(filter(None, found))
    return zip(part.rows(), found)


def _with_several(part: _Part, groups: Mapping[Any, list[Row]], outer: bool) -> Iterable[Pair]:
    """Pairs where a key may have several partners."""
    nothing: Any = [None] if outer else []
    found: list[list[Any]] = list(map(groups.get, part.keys, repeat(nothing)))
    if not all(found):
        part, found = part.only(found), list(filter(None, found))
    return zip(chain.from_iterable(map(repeat, part.rows(), map(len, found))), chain.from_iterable(found))
