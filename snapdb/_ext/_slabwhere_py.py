"""Conditions put to the rows of a slab view: the readable twin of ``_slab_where.pxi``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from ._common import WIDTHS

__all__ = ["met_by"]

_KINDS = frozenset(("range", "in", "never", "null", "not_null"))


def met_by(view: Any, terms: Sequence[tuple[Any, ...]], any_of: bool, start: int, stop: int) -> Optional[bytearray]:
    """The rows of positions ``start..stop`` that meet all conditions, or any of them; None where there is no condition.

    ``view`` gathers columns and has the backend's ``_chunk`` and ``_masks``. Conditions on texts come last, and see
    only the rows that the others have left open.
    """
    masks = view._masks
    result: Optional[bytearray] = None
    for term in sorted(terms, key=lambda term: view._layout.columns[term[0]][1] not in WIDTHS):
        open_rows = result
        if any_of and result is not None:
            open_rows = masks.full(stop - start)
            masks.andnot_into(open_rows, result)
        if open_rows is not None and not masks.any_set(open_rows):
            break
        found = _found(masks, view._chunk.view(view.gather(term[0], start, stop, open_rows)), term)
        if open_rows is not None:
            masks.and_into(found, open_rows)
            if any_of:
                masks.or_into(found, result)
        result = found
    return result


def _found(masks: Any, chunk: Any, term: tuple[Any, ...]) -> bytearray:
    """The rows of a chunk that meet a condition."""
    _column, kind, lo, hi, lo_open, hi_open, values, negate = term
    found: bytearray
    if kind == "null":
        found = masks.full(chunk.rows)
        masks.andnot_into(found, chunk.valid())
        return found
    if kind == "not_null":
        found = chunk.valid()
        return found
    if kind == "range":
        found = chunk.select(lo, hi, lo_open, hi_open)
    else:
        found = masks.empty(chunk.rows) if kind == "never" else chunk.select_in(values)
    if not negate:
        return found
    others: bytearray = chunk.valid()
    masks.andnot_into(others, found)
    return others


def check(terms: Sequence[tuple[Any, ...]], columns: int) -> None:
    """IndexError for a column that is not there, ValueError for an unknown kind of condition."""
    for column, kind, *_rest in terms:
        if not 0 <= column < columns:
            raise IndexError(f"column {column} is outside 0..{columns}")
        if kind not in _KINDS:
            raise ValueError(f"unknown condition {kind!r}")
