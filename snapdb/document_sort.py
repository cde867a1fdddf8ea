"""The order that documents are sorted in: MongoDB's rules.

Values of all families have one order (``document_values.py``). An array stands where its least element does, or in
descending order its greatest one; an empty one, and a missing field, stand where null does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cmp_to_key
from typing import Any, Callable, Optional

from .document_paths import leaves, parts_of
from .document_values import ARRAY, MISSING, family, order
from .errors import ConditionError, shorten

__all__ = ["sort_key"]


def sort_key(asked: Any, what: str = "sort") -> Callable[[Any], Any]:
    """A key to sort values by: 1 or -1 for the values themselves, ``{"a.b": 1, "c": -1}`` for fields of objects.
    ConditionError for anything else; ``what`` it is for.
    """
    if asked in (1, -1) and not isinstance(asked, bool):
        return cmp_to_key(order if asked == 1 else lambda one, other: order(other, one))
    if not isinstance(asked, Mapping) or not asked or any(value not in (1, -1) for value in asked.values()):
        raise ConditionError(f"{what} takes 1, -1, or a dict of fields to 1 or -1, not {shorten(asked)}")
    fields = [(parts_of(path), int(sign)) for path, sign in asked.items()]

    def compare(one: Any, other: Any) -> int:
        for parts, sign in fields:
            found = order(_standing(one, parts, sign), _standing(other, parts, sign)) * sign
            if found:
                return found
        return 0

    return cmp_to_key(compare)


def _standing(document: Any, parts: Sequence[str], sign: int) -> Any:
    """The value that a document is sorted by."""
    best: Optional[list[Any]] = None
    for leaf in leaves(document, parts):
        for value in _alternatives(leaf.value):
            if best is None or order(value, best[0]) * sign < 0:
                best = [value]
    return None if best is None else best[0]


def _alternatives(value: Any) -> list[Any]:
    if value is MISSING:
        return [None]
    if family(value) == ARRAY:
        return list(value) or [None]
    return [value]
