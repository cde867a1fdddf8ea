"""How values of documents compare: MongoDB's rules, for the values that a document can hold.

Values are of *families*, and only values of one family are more or less than each other: null, numbers (integers,
floats and decimals; no bool is one), texts, objects, arrays, bytes, UUIDs, bools, moments with a time zone, moments
without one, dates. Over all values there is one total order too, family by family, by which documents are sorted.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["MISSING", "compare", "equal", "family", "order"]


class _Missing:
    """What stands for a field that a document does not have."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()

NULL, NUMBER, TEXT, OBJECT, ARRAY, BYTES, ID, BOOL, DATE, NAIVE, MOMENT = range(11)
_FAMILIES: dict[type, int] = {
    _Missing: NULL, type(None): NULL, bool: BOOL, int: NUMBER, float: NUMBER, Decimal: NUMBER, str: TEXT, dict: OBJECT,
    list: ARRAY, tuple: ARRAY, bytes: BYTES, UUID: ID, dt.date: DATE,
}  # fmt: skip


def family(value: Any) -> int:
    """The number of a value's family, in the order of the families. TypeError for what no document can hold."""
    found = _FAMILIES.get(type(value))
    if found is not None:
        return found
    if isinstance(value, dt.datetime):
        return NAIVE if value.utcoffset() is None else MOMENT
    for kind, number in _FAMILIES.items():
        if isinstance(value, kind):
            return number
    raise TypeError(f"{type(value).__name__} cannot stand in a document")


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal: bools are no numbers, 1 is 1.0, NaN is NaN, objects have the same names in the same
    order, and a missing value is not null.
    """
    if (one is MISSING) != (other is MISSING):
        return False
    kind = family(one)
    return kind == family(other) and compare(one, other, kind) == 0


def compare(one: Any, other: Any, kind: int) -> int:
    """-1, 0 or 1 for two values of a family. NaN comes before every number."""
    if kind == NULL:
        return 0
    if kind == NUMBER:
        return _numbers(one, other)
    if kind == ARRAY:
        return _several([(item, other_item) for item, other_item in zip(one, other)], len(one), len(other))
    if kind == OBJECT:
        return _objects(one, other)
    if kind == TEXT:
        one, other = _utf8(one), _utf8(other)
    elif kind == ID:
        one, other = one.bytes, other.bytes
    return int(one > other) - int(one < other)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _numbers(one: Any, other: Any) -> int:
    ordered, other_ordered = one == one, other == other
    if not ordered or not other_ordered:
        return int(ordered) - int(other_ordered)
    return int(one > other) - int(one < other)


def order(one: Any, other: Any) -> int:
    """-1, 0 or 1 in the order of all values; missing is as null."""
    kind, other_kind = family(one), family(other)
    if kind != other_kind:
        return -1 if kind < other_kind else 1
    return compare(one, other, kind)


def _several(pairs: list[tuple[Any, Any]], count: int, other_count: int) -> int:
    for one, other in pairs:
        found = order(one, other)
        if found:
            return found
    return (count > other_count) - (count < other_count)


def _objects(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Field by field: the family of the value, then the name, then the value."""
    for (name, value), (other_name, other_value) in zip(one.items(), other.items()):
        kind, other_kind = family(value), family(other_value)
        if kind != other_kind:
            return -1 if kind < other_kind else 1
        if name != other_name:
            return -1 if _utf8(name) < _utf8(other_name) else 1
        found = compare(value, other_value, kind)
        if found:
            return found
    return (len(one) > len(other)) - (len(one) < len(other))
