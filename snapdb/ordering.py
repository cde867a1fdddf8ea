"""Rows in the order of some columns: the best of a large table, or all of it.

The order: by the first column, rows that are equal in it by the next one, and so on, at last by row id. Numbers by
size (-0.0 equals 0.0), text by its UTF-8 bytes, False before True. NaN comes after every number and null after that,
in descending order too: what has no place in the order never stands in front of what has one.

The best few are found without looking at every value in Python. Once there are as many as wanted, the last of them is
a *bar*: in further segments only rows that reach it are taken, which is one more condition for the range kernels and
their zone maps. Within a segment that has too many such rows a pivot is drawn from a sample of them, and the kernels
divide the bitmap into rows before, at and after it: Hoare's FIND ("Algorithm 65", CACM 4, 1961) over bitmaps.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._ext._common import BYTES, SEGMENT
from .conditions import Condition, Predicate, bind
from .scan import ALL, Where, _column_mask, _segment_pages, pages, pages_of, segment_mask

if TYPE_CHECKING:
    from .dtypes import DType
    from .scan import Page, Selector, View

__all__ = ["Order", "is_top", "sorted_ids", "sorted_of", "top_ids"]

#: rows of a segment that are sorted as they are; rows that a pivot is drawn from; pivots before a segment is left as is
FEW, SAMPLE, ROUNDS = 1024, 256, 12
#: the best of a table are looked for where they are at most one row in so many, or few; else all rows are sorted
SHARE = 64

_VALUES = {
    True: Predicate("range", -math.inf, math.inf),  # of a float column: what is neither NaN nor null
    False: Predicate("not_null"),
}
_NAN = Predicate("range", -math.inf, math.inf, negate=True)
_NULL = Predicate("null")
_SPREAD = 2654435769  # 2 ** 32 divided by the golden ratio: multiples of it are spread evenly


class Order(NamedTuple):
    """A column to sort by: its index, and whether its greatest value comes first."""

    column: int
    desc: bool


def is_top(need: int, rows: int) -> bool:
    """Whether the best ``need`` rows (-1: all) of so many are looked for, rather than all of them sorted."""
    return 0 <= need <= max(FEW, rows // SHARE)


def top_ids(view: View, terms: Sequence[tuple[int, Predicate]], orders: Sequence[Order], need: int) -> list[int]:
    """Ids of the best ``need`` live rows that meet all ``terms``, in order."""
    best = _Best(view, orders, need)
    for k in _promising(view, orders[0]) if need else ():
        conditions = [*best.bar(k), *terms]
        for _, mask in segment_mask(view, Where(conditions, "and") if conditions else None, k):
            best.add(k, mask)
    return best.ids


def sorted_ids(view: View, where: Optional[Selector], orders: Sequence[Order]) -> list[int]:
    """Ids of all live rows that meet the conditions, in order."""
    return _sorted(view, pages(view, where), orders)


def sorted_of(view: View, ids: Sequence[int], orders: Sequence[Order]) -> list[int]:
    """These ids, which are ascending, in order."""
    return _sorted(view, pages_of(view, ids), orders)


def _sorted(view: View, found: Iterable[Page], orders: Sequence[Order]) -> list[int]:
    ids: list[int] = []
    columns: list[list[Any]] = [[] for _ in orders]
    for page in found:
        _collect(view, page, orders, ids, columns)
    return list(map(ids.__getitem__, _places(view, orders, ids, columns)))


def _collect(view: View, page: Page, orders: Sequence[Order], ids: list[int], columns: list[list[Any]]) -> None:
    ids.extend(page.ids())
    for order, values in zip(orders, columns):
        values.extend(page.column(view, order.column))


def _places(view: View, orders: Sequence[Order], ids: Sequence[int], columns: Sequence[list[Any]]) -> list[int]:
    """Where the first row stands, and the second, and so on."""
    places = sorted(range(len(ids)), key=ids.__getitem__)
    for order, values in zip(reversed(orders), reversed(columns)):
        places = _by(places, values, order.desc, view.schema.columns[order.column].type)
    return places


def _by(places: list[int], values: list[Any], desc: bool, dtype: DType) -> list[int]:
    """Places sorted by one column's values; those of equal ones stay as they are, NaN and null come last."""
    kinds = set(map(type, values))
    last: list[int] = []
    if type(None) in kinds or (dtype.is_float and any(map(operator.ne, values, values))):
        last = [at for at in places if values[at] != values[at]] + [at for at in places if values[at] is None]
        places = [at for at in places if values[at] is not None and values[at] == values[at]]
    places.sort(key=_comparable(values, kinds, dtype).__getitem__, reverse=desc)
    return places + last


def _comparable(values: list[Any], kinds: set[type], dtype: DType) -> list[Any]:
    """Values that Python can compare: ``bytes:N`` reads as bytes where it is not UTF-8. Text needs no encoding, as the
    order of code points is that of UTF-8.
    """
    if dtype.code != BYTES or bytes not in kinds:
        return values
    return [value.encode() if isinstance(value, str) else value for value in values]


def _promising(view: View, order: Order) -> Iterable[int]:
    """Segments, those first that by their zone map have the best values: the bar is high early then, and zone maps
    pass over the others.
    """
    first: list[int] = []  # those of which nothing is known
    ends: list[tuple[Any, int]] = []
    last: list[int] = []  # those without a value
    for k in range(view.segments()):
        zone = view.zone(order.column, k)
        end = None if zone is None else zone.hi if order.desc else zone.lo
        if end is not None:
            ends.append((end, k))
        else:
            (last if zone is not None and zone.lo is None else first).append(k)
    ends.sort(key=_end, reverse=order.desc)
    return [*first, *[k for _, k in ends], *last]


def _end(end: tuple[Any, int]) -> Any:
    return end[0]


class _Best:
    """The best rows so far: ``ids`` in order, their values beside them."""

    def __init__(self, view: View, orders: Sequence[Order], need: int) -> None:
        self.ids: list[int] = []
        self._columns: list[list[Any]] = [[] for _ in orders]
        self._view = view
        self._orders = orders
        self._need = need

    def bar(self, k: int) -> list[tuple[int, Predicate]]:
        """What a row of segment k must meet to be among the best, as far as the first column tells."""
        if len(self.ids) < self._need:
            return []
        last = self._columns[0][-1]
        if last is None or last != last:
            return []
        order = self._orders[0]
        # a row that is equal in the only column comes behind every row of an earlier segment
        strict = len(self._orders) == 1 and self.ids[-1] // SEGMENT < k
        op = ("gt" if order.desc else "lt") if strict else ("gte" if order.desc else "lte")
        return [(order.column, self._predicate(order.column, op, last))]

    def add(self, k: int, mask: Optional[bytearray]) -> None:
        """Look at these rows of segment k (None: every position)."""
        kernel = self._view.kernels.mask
        chosen = kernel.full(self._view.size(k)) if mask is None else mask
        if kernel.count(chosen) > max(FEW, self._need):
            chosen = self._narrowed(k, chosen, 0, self._need)
        for page in _segment_pages(self._view, k, chosen, 0, -1):
            _collect(self._view, page, self._orders, self.ids, self._columns)
        places = _places(self._view, self._orders, self.ids, self._columns)[: self._need]
        self.ids = list(map(self.ids.__getitem__, places))
        self._columns = [list(map(values.__getitem__, places)) for values in self._columns]

    def _predicate(self, j: int, op: str, value: Any) -> Predicate:
        column = self._view.schema.columns[j]
        return bind(Condition(column.name, op, value), column.type)

    def _met(self, k: int, mask: bytearray, j: int, predicate: Predicate) -> bytearray:
        """The rows of a bitmap that meet a predicate, as a new bitmap."""
        kernel = self._view.kernels.mask
        found = _column_mask(self._view, j, k, predicate)
        if found is ALL:
            return bytearray(mask)
        if found is None:
            empty: bytearray = kernel.empty(self._view.size(k))
            return empty
        kernel.and_into(found, mask)
        return found

    def _narrowed(self, k: int, mask: bytearray, level: int, need: int) -> bytearray:
        """Rows of segment k with the best ``need`` of a bitmap among them, and few others; the columns before
        ``level`` are equal in all of them.
        """
        kernel = self._view.kernels.mask
        if level == len(self._orders):
            first: bytearray = kernel.from_ids(kernel.ids(mask, 0, need), self._view.size(k))
            return first
        kept: bytearray = kernel.empty(self._view.size(k))
        for kind, part in enumerate(self._kinds(k, mask, self._orders[level].column)):
            count = kernel.count(part)
            if count > need:
                part = self._divided(k, part, level, need) if kind == 0 else self._narrowed(k, part, level + 1, need)
            kernel.or_into(kept, part)
            need -= count
            if need <= 0:
                break
        return kept

    def _kinds(self, k: int, mask: bytearray, j: int) -> Iterator[bytearray]:
        """The rows with a value that has a place in the order, those with a NaN, those with a null."""
        column = self._view.schema.columns[j]
        if column.not_null and not column.type.is_float:
            yield mask
            return
        yield self._met(k, mask, j, _VALUES[column.type.is_float])
        if column.type.is_float:
            yield self._met(k, mask, j, _NAN)
        yield self._met(k, mask, j, _NULL)

    def _divided(self, k: int, mask: bytearray, level: int, need: int) -> bytearray:
        """``_narrowed`` for rows that all have a value in the column of this level, more than ``need`` of them."""
        kernel = self._view.kernels.mask
        j, desc = self._orders[level]
        kept: bytearray = kernel.empty(self._view.size(k))
        for _ in range(ROUNDS):
            count = kernel.count(mask)
            if count <= max(FEW, need):
                break
            pivot = self._pivot(k, mask, self._orders[level], need / count)
            for op in ("gt" if desc else "lt", "eq"):
                part = self._met(k, mask, j, self._predicate(j, op, pivot))
                count = kernel.count(part)
                if count >= need:
                    break
                kernel.or_into(kept, part)
                kernel.andnot_into(mask, part)
                need -= count
            else:
                continue  # all up to the pivot, and some of the others
            if op == "eq":
                mask = self._narrowed(k, part, level + 1, need)
                break
            mask = part
        kernel.or_into(kept, mask)
        return kept

    def _pivot(self, k: int, mask: bytearray, order: Order, share: float) -> Any:
        """A value that a little more than this share of the rows reach, as a sample says."""
        rows = self._view.kernels.mask.ids(mask)
        step = len(rows) / SAMPLE
        drawn = array("I", [rows[int((i + i * _SPREAD % 2**32 / 2**32) * step)] for i in range(SAMPLE)])
        values: list[Any] = []
        sample = self._view.kernels.mask.from_ids(drawn, self._view.size(k))
        for page in _segment_pages(self._view, k, sample, 0, -1):
            values.extend(page.column(self._view, order.column))
        dtype = self._view.schema.columns[order.column].type
        ranked = sorted(_comparable(values, set(map(type, values)), dtype), reverse=order.desc)
        wanted = share * len(ranked)
        return ranked[min(len(ranked) - 1, int(wanted + 2 * math.sqrt(wanted) + 1))]
