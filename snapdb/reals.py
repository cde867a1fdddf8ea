"""Real numbers that are neither int nor float, as exact values to compare with. Loaded only for who uses one."""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import Any, Optional, Union

__all__ = ["exact"]

_TOO_FINE = 400  # decimal exponents beyond which a Decimal is larger, or nearer to 0, than every double


def exact(value: Any) -> Optional[Union[int, float, Fraction]]:
    """An equal int, float or Fraction of exactly those types; None for what is not a real number."""
    if isinstance(value, Decimal):
        return _from_decimal(value)
    if isinstance(value, numbers.Real):
        return _from_ratio(value)
    return None


def _from_decimal(value: Decimal) -> Union[int, float, Fraction]:
    if value.is_nan():
        return math.nan
    if value.is_infinite():
        return math.inf if value > 0 else -math.inf
    if value and abs(value.adjusted()) > _TOO_FINE:
        # the exact fraction could have a billion digits; this one lies on the same side of every double and integer
        sign = -1 if value.is_signed() else 1
        return sign * 10**_TOO_FINE if value.adjusted() > 0 else Fraction(sign, 10**_TOO_FINE)
    return Fraction(value)


def _from_ratio(value: Any) -> Union[int, float, Fraction]:
    if isinstance(value, numbers.Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    try:
        numerator, denominator = value.as_integer_ratio()
    except (AttributeError, OverflowError, ValueError):  # no such method, an infinity, NaN
        return float(value)
    return Fraction(int(numerator), int(denominator))
