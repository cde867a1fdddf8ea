"""What a zone map alone says of a condition; ``_codecs_sweep.pxi`` has the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from ._common import Zone

__all__ = ["judge"]


def judge(
    zone: Optional[Zone],
    kind: str,
    lo: Any,
    hi: Any,
    lo_open: bool,
    hi_open: bool,
    values: Sequence[Any],
    negate: bool,
) -> Optional[bool]:
    """True: every row satisfies it, False: none, None: it takes a look. The condition is as ``Predicate`` has it."""
    if zone is None:
        return None
    if kind == "never":
        return _all_unless_null(zone) if negate else False
    if kind == "null":
        return False if zone.nulls == 0 else None
    if kind == "not_null":
        return _all_unless_null(zone)
    if zone.lo is None:
        return False if zone.nans == 0 else None  # nothing but nulls matches nothing; an update may have brought a NaN
    if kind == "in":
        outside = not values or _below(zone, values[0], False) or _above(zone, values[-1], False)
        return (_all_unless_null(zone) if negate else False) if outside else None
    if (hi is not None and _above(zone, hi, hi_open)) or (lo is not None and _below(zone, lo, lo_open)):
        return _all_unless_null(zone) if negate else False
    if zone.nulls == 0 and zone.nans == 0 and _within(zone, lo, hi, lo_open, hi_open):
        return not negate
    return None


def _all_unless_null(zone: Zone) -> Optional[bool]:
    return True if zone.nulls == 0 else None


def _above(zone: Any, hi: Any, is_open: bool) -> bool:
    """Whether every value of the zone is above ``hi``."""
    return bool(zone.lo > hi or (is_open and zone.lo >= hi))


def _below(zone: Any, lo: Any, is_open: bool) -> bool:
    """Whether every value of the zone is below ``lo``; a zone without an upper bound never is."""
    return zone.hi is not None and bool(zone.hi < lo or (is_open and zone.hi <= lo))


def _within(zone: Any, lo: Any, hi: Any, lo_open: bool, hi_open: bool) -> bool:
    if lo is not None and not (zone.lo > lo or (zone.lo == lo and not lo_open)):
        return False
    if hi is None:
        return True
    return zone.hi is not None and bool(zone.hi < hi or (zone.hi == hi and not hi_open))
