"""Indexes by themselves: of rows that the caller has, by any values that can be hashed or compared.

A table keeps indexes of its own (``SnapDB.create_index``, ``create_range_index``), which know about writes, rollbacks
and files. These here are for rows from anywhere: whoever changes a row tells the index. They are not for several
threads at once.

Values compare as a table's do: bytes that are UTF-8 are equal to their text, -0.0 is 0.0, a column that a row leaves
out is None, and NaN equals nothing, so it is never found. What raises has changed nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from math import inf
from numbers import Number
from operator import index as as_index
from typing import Any, Optional

from .errors import NotFoundError, SchemaError, ValueTypeError, close_names, shorten

__all__ = ["HashIndex", "MultiIndex", "RangeIndex"]

Row = Mapping[str, Any]


def _plain(value: Any) -> Any:
    """What stands for all values that are equal to this one."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, Number) and bool(value != value)


class HashIndex:
    """Which rows have a value in ``column``: found by hash, whatever the number of rows.

    Rows are known by ids, which are integers; a row may be given again, and one that is not there may be deleted.
    ValueTypeError (a TypeError and a ValueError) for a value that has no hash, such as a list.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._rows: dict[Any, set[int]] = {}
        self._count = 0

    def _key(self, value: Any) -> Any:
        key = _plain(value)
        try:
            hash(key)
        except TypeError:
            raise ValueTypeError(
                f"column {self.column!r}: {shorten(value)} of type {type(value).__name__} cannot be hashed",
                column=self.column,
                hint="index values such as numbers, text, dates or tuples of them",
            ) from None
        return key

    def insert(self, row_idx: int, row: Row) -> None:
        """A row is there."""
        self._put(self._key(row.get(self.column)), as_index(row_idx))

    def update(self, row_idx: int, old_row: Row, new_row: Row) -> None:
        """A row has changed, and with it perhaps its value."""
        old, new = self._key(old_row.get(self.column)), self._key(new_row.get(self.column))
        idx = as_index(row_idx)
        self._drop(old, idx)
        self._put(new, idx)

    def delete(self, row_idx: int, row: Row) -> None:
        """A row is gone; ``row`` is what it was."""
        self._drop(self._key(row.get(self.column)), as_index(row_idx))

    def _put(self, key: Any, idx: int) -> None:
        if _is_nan(key):
            return
        rows = self._rows.setdefault(key, set())
        self._count += idx not in rows
        rows.add(idx)

    def _drop(self, key: Any, idx: int) -> None:
        rows = self._rows.get(key)
        if rows is None or idx not in rows:
            return
        rows.remove(idx)
        self._count -= 1
        if not rows:
            del self._rows[key]

    def lookup(self, value: Any) -> list[int]:
        """The ids of all rows with this value, rising."""
        return sorted(self._rows.get(self._key(value), ()))

    def has(self, value: Any) -> bool:
        """Whether any row has this value."""
        return self._key(value) in self._rows

    def __len__(self) -> int:
        """How many rows are indexed; those with NaN are not."""
        return self._count

    def __repr__(self) -> str:
        return f"HashIndex({self.column!r}, {len(self._rows)} values, {self._count} rows)"


class MultiIndex:
    """Hash indexes of several columns, and rows looked up by all of them."""

    def __init__(self) -> None:
        self._indexes: dict[str, HashIndex] = {}

    def create(self, column: str) -> HashIndex:
        """A new, empty index; SchemaError (a ValueError) where the column has one."""
        if column in self._indexes:
            raise SchemaError(
                f"column {column!r} has an index already", column=column, hint="get() it, or drop() it before"
            )
        found = self._indexes[column] = HashIndex(column)
        return found

    def get(self, column: str) -> Optional[HashIndex]:
        """The index of a column, None where there is none."""
        return self._indexes.get(column)

    def drop(self, column: str) -> None:
        """Forget an index; NotFoundError (a KeyError) where there is none."""
        self._known(column)
        del self._indexes[column]

    def lookup(self, /, **values: Any) -> Optional[list[int]]:
        """The ids, rising, of the rows that have all these values: ``lookup(city="Graz", age=30)``.

        None where no value is given. NotFoundError for a column without an index.
        """
        found = [self._known(column).lookup(value) for column, value in values.items()]
        if not found:
            return None
        return sorted(set(found[0]).intersection(*found[1:]))

    def _known(self, column: str) -> HashIndex:
        index = self._indexes.get(column)
        if index is None:
            near = close_names(column, self._indexes)
            there = ", ".join(map(repr, near or self._indexes))
            raise NotFoundError(
                f"column {shorten(column)} has no index",
                column=column,
                hint=f"there is one of {there}" if there else "create() it first",
            )
        return index

    def __contains__(self, column: object) -> bool:
        return column in self._indexes

    def __repr__(self) -> str:
        return f"MultiIndex({', '.join(map(repr, self._indexes))})"


class RangeIndex:
    """Which rows have a value between two others in ``column``: a sorted list, for values that can be compared.

    Rows without a value, and with NaN, are in no range and not in the index. ValueTypeError (a TypeError and a
    ValueError) for a value that cannot be compared with those that are there.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._items: list[tuple[Any, int]] = []

    def _item(self, row_idx: int, row: Row) -> Optional[tuple[Any, int]]:
        value, idx = _plain(row.get(self.column)), as_index(row_idx)
        return None if value is None or _is_nan(value) else (value, idx)

    def _compared(self, call: Callable[[], Any], value: Any) -> Any:
        try:
            return call()
        except TypeError as error:
            what = "the values" if value is None else f"{shorten(value)} with the values that are there"
            message = f"column {self.column!r}: cannot compare {what} ({error})"
            raise ValueTypeError(message, column=self.column) from None

    def build(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Have these (id, row) pairs and no others; sorts once, so it is the way to begin with many."""
        items = [item for item in (self._item(idx, row) for idx, row in rows) if item is not None]
        self._compared(items.sort, None)
        self._items = [item for item, _ in groupby(items)]

    def insert(self, row_idx: int, row: Row) -> None:
        """A row is there."""
        item = self._item(row_idx, row)
        if item is not None and self._place(item) is None:
            insort(self._items, item)

    def update(self, row_idx: int, old_row: Row, new_row: Row) -> None:
        """A row has changed, and with it perhaps its value."""
        old, new = self._item(row_idx, old_row), self._item(row_idx, new_row)
        gone = None if old is None else self._place(old)
        if new is None:
            self._remove(gone)
        elif self._place(new) is None:
            insort(self._items, new)
            self._remove(None if old is None else self._place(old))
        elif old != new:
            self._remove(gone)

    def delete(self, row_idx: int, row: Row) -> None:
        """A row is gone; ``row`` is what it was."""
        item = self._item(row_idx, row)
        self._remove(None if item is None else self._place(item))

    def _place(self, item: tuple[Any, int]) -> Optional[int]:
        """Where an item is, None where it is not."""
        at: int = self._compared(lambda: bisect_left(self._items, item), item[0])
        return at if self._items[at : at + 1] == [item] else None

    def _remove(self, place: Optional[int]) -> None:
        if place is not None:
            del self._items[place]

    def range_lookup(
        self, low: Any = None, high: Any = None, include_low: bool = True, include_high: bool = True
    ) -> list[int]:
        """The ids of the rows with low <= value <= high, in order of (value, id).

        None: unbounded on that side; an end that is not included: strictly more or less.
        """
        low, high = _plain(low), _plain(high)
        if _is_nan(low) or _is_nan(high):
            return []
        start, end = 0, len(self._items)
        if low is not None:
            start = self._edge(low, not include_low)
        if high is not None:
            end = self._edge(high, include_high)
        return [idx for _, idx in self._items[start:end]]

    def _edge(self, value: Any, behind: bool) -> int:
        """Where the rows with this value begin, or end."""
        cut = bisect_right if behind else bisect_left
        edge: int = self._compared(lambda: cut(self._items, (value, inf if behind else -inf)), value)
        return edge

    def __len__(self) -> int:
        """How many rows are indexed; those without a value are not."""
        return len(self._items)

    def __repr__(self) -> str:
        return f"RangeIndex({self.column!r}, {len(self._items)} rows)"
