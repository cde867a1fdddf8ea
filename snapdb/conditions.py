"""Conditions: what users write, one normal form for everyone, and what it means for the values of one column.

``normalize`` turns lists of triples and the dict shorthand into ``Condition`` tuples. ``bind`` translates one of them,
exactly, into a ``Predicate`` over the physical values of a column: the kernels compare integers with integers, doubles
with doubles and bytes with bytes only, so 30.5, 10**30, NaN or a Fraction against any numeric column is settled here.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

from ._ext import _common as c
from .dtypes import DType, Refused, Value, convert, is_numpy_bool
from .errors import ConditionError, UnknownColumnError, shorten, suggest

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["ALIASES", "OPERATORS", "Condition", "Predicate", "bind", "normalize"]

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "between", "is_null", "not_null")
ALIASES = {"==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_CANONICAL = {**{name: name for name in OPERATORS}, **ALIASES}
_UNARY = frozenset(("is_null", "not_null"))
# operators of other systems, for the hint of an error only
_ELSEWHERE = {
    "=": "==", "<>": "!=", "ge": "gte", "le": "lte", "neq": "ne", "isnull": "is_null", "is null": "is_null",
    "notnull": "not_null", "is not null": "not_null", "is_not_null": "not_null", "range": "between", "isin": "in",
}  # fmt: skip
_CALLABLES = frozenset((
    "not in", "not_in", "nin", "like", "ilike", "startswith", "starts_with", "endswith", "ends_with", "contains",
    "match", "matches", "regex", "not",
))  # fmt: skip
_SHAPE = "write conditions as [('age', 'gte', 18), ...] or {'age': {'gte': 18}}"

Real = Union[int, float, "Fraction"]


class Condition(NamedTuple):
    """One condition in normal form: ``op`` is one of ``OPERATORS``; the value of ``in`` and ``between`` is a tuple."""

    column: str
    op: str
    value: Any


class Predicate(NamedTuple):
    """What a condition means for the physical values of its column.

    ``kind``: ``"range"``: lo <= value <= hi, None meaning unbounded, ``lo_open`` and ``hi_open`` (bytes only) strict;
    ``"in"``: equal to one of ``values`` (sorted, no doubles); ``"never"``: no value; ``"null"``: the nulls;
    ``"not_null"``: the others. A null satisfies only ``"null"``. ``negate``: the non-null values that do *not* satisfy
    it.
    Bounds of float columns are never None and never NaN, so that a NaN lies outside every range.
    """

    kind: str
    lo: Optional[Value] = None
    hi: Optional[Value] = None
    lo_open: bool = False
    hi_open: bool = False
    values: tuple[Value, ...] = ()
    negate: bool = False

    def matches(self, value: Optional[Value]) -> bool:
        """Whether one physical value (None: a null) satisfies the predicate."""
        if value is None:
            return self.kind == "null"
        if self.kind == "null":
            return False
        return self.kind == "not_null" or self._holds(value) != self.negate

    def _holds(self, value: Any) -> bool:
        if self.kind == "in":
            place = bisect_left(self.values, value)
            return place < len(self.values) and self.values[place] == value
        if self.kind == "never":
            return False
        lo: Any = self.lo
        hi: Any = self.hi
        if lo is not None and not (value > lo if self.lo_open else value >= lo):
            return False
        return hi is None or bool(value < hi if self.hi_open else value <= hi)


NEVER = Predicate("never")


# -- normal form -----------------------------------------------------------
def normalize(conditions: Any, combine: str = "and", known: Optional[Collection[str]] = None) -> tuple[Condition, ...]:
    """The conditions as a tuple of ``Condition``; None, ``[]`` and ``{}`` give ``()``: every row.

    ``conditions``: a list or tuple of ``(column, op, value)``, or ``{column: value}``, ``{column: {op: value, …}}``.
    ``combine`` must be ``"and"`` or ``"or"``. ``known``: the names of the columns, to be checked against.
    ConditionError for what cannot be understood, UnknownColumnError for a column that is not in ``known``.
    """
    if not isinstance(combine, str) or combine not in ("and", "or"):
        raise ConditionError(f"combine must be 'and' or 'or', not {shorten(combine)}")
    if conditions is None:
        return ()
    if isinstance(conditions, Mapping):
        triples = _from_mapping(conditions)
    elif isinstance(conditions, (list, tuple)):
        triples = _from_sequence(conditions)
    else:
        raise ConditionError(
            f"conditions must be a list or a dict, not {type(conditions).__name__} {shorten(conditions)}", hint=_SHAPE
        )
    return tuple(_condition(column, op, value, known) for column, op, value in triples)


def _from_mapping(conditions: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    for column, wanted in conditions.items():
        if not isinstance(wanted, Mapping):
            yield column, "eq", wanted
            continue
        if not wanted:
            raise ConditionError(f"the condition on column {shorten(column)} has no operator", hint=_SHAPE)
        for op, value in wanted.items():
            yield column, op, value


def _from_sequence(conditions: Iterable[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for item in conditions:
        if isinstance(item, (list, tuple)):
            if len(item) == 3:
                yield item[0], item[1], item[2]
                continue
            if len(item) == 2 and isinstance(item[1], str) and item[1] in _UNARY:
                yield item[0], item[1], None
                continue
        raise ConditionError(
            f"a condition is (column, operator, value), not {shorten(item)}", hint=_pair_hint(item) or _SHAPE
        )


def _pair_hint(item: Any) -> Optional[str]:
    """What to say of ``("id", "between", 1, 5)`` and ``("id", "in", 1, 5)``."""
    if not isinstance(item, (list, tuple)) or len(item) < 4 or not isinstance(item[1], str):
        return None
    if item[1] == "in":
        return f"in takes one list: ({shorten(item[0])}, 'in', {shorten(list(item[2:]))})"
    if item[1] != "between":
        return None
    return f"between takes one (low, high) pair: ({shorten(item[0])}, 'between', {shorten(tuple(item[2:4]))})"


def _condition(column: Any, op: Any, value: Any, known: Optional[Collection[str]]) -> Condition:
    if not isinstance(column, str):
        raise ConditionError(f"a condition starts with a column name, not {shorten(column)}", hint=_SHAPE)
    if known is not None and column not in known:
        raise UnknownColumnError(f"unknown column {shorten(column)}", column=column, hint=suggest(column, known))
    name = _CANONICAL.get(op) if isinstance(op, str) else None
    if name is None:
        raise ConditionError(
            f"unknown operator {shorten(op)} for column {shorten(column)}",
            column=column, hint=f"{_near(op)}the operators are {', '.join(OPERATORS)}, {' '.join(ALIASES)}",
        )  # fmt: skip
    if name in _UNARY:
        if value is False:
            opposite = "not_null" if name == "is_null" else "is_null"
            raise ConditionError(
                f"column {shorten(column)}: {name} takes no value",
                column=column, hint=f"for the opposite use {opposite!r}",
            )  # fmt: skip
        value = None
    elif name == "in":
        value = _elements(column, value)
    elif name == "between":
        value = _pair(column, value)
    return Condition(column, name, value)


def _near(op: Any) -> str:
    """The start of a hint for an operator that is not there."""
    if not isinstance(op, str):
        return ""
    plain = op.strip().lower()
    near = plain if plain in _CANONICAL else _ELSEWHERE.get(plain)
    if near:
        return f"did you mean {near!r}? "
    return "for what is not there pass a callable to select(); " if plain in _CALLABLES else ""


def _elements(column: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, (str, bytes, bytearray, memoryview, Mapping)):
        try:
            return tuple(value)
        except TypeError:
            pass
    raise ConditionError(
        f"column {shorten(column)} in: takes a list of values, not {type(value).__name__} {shorten(value)}",
        column=column,
    )


def _pair(column: str, value: Any) -> Optional[tuple[Any, Any]]:
    if value is None:
        return None
    if not isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set)):
        try:
            low, high = value
        except (TypeError, ValueError):
            pass
        else:
            return low, high
    raise ConditionError(
        f"column {shorten(column)} between: takes (low, high), both included, not {shorten(value)}", column=column
    )


# -- meaning ---------------------------------------------------------------
def bind(condition: Condition, dtype: DType, nullable: bool = True) -> Predicate:
    """The predicate that a condition in normal form is, for a column of that type.

    None as a value, in ``between`` and ``in`` too, matches nothing, ``ne`` included. NaN matches nothing but ``ne``,
    which is then true of every non-null row. ConditionError for a value that cannot be compared with the column.
    """
    column, op, value = condition
    if op == "is_null":
        return Predicate("null") if nullable else NEVER
    if op == "not_null":
        return Predicate("not_null")
    if value is None:
        return NEVER
    try:
        return _bind(op, value, dtype)
    except Refused as problem:
        hint = problem.hint
        if op == "eq" and isinstance(value, (list, tuple, Set)):
            hint = f"use {{{shorten(column)}: {{'in': {shorten(list(value))}}}}}"
        raise ConditionError(
            f"column {shorten(column)} {op} {shorten(value)}: {problem.reason}", column=column, hint=hint
        ) from problem.__cause__


def _bind(op: str, value: Any, dtype: DType) -> Predicate:
    if op == "in":
        points = (_point(item, dtype) for item in value if item is not None)
        return _among({point for point in points if point is not None})
    if op == "between":
        low, high = value
        # both are looked at before either decides, so that a bad value is never passed over
        low = None if low is None else _comparable(low, dtype)
        high = None if high is None else _comparable(high, dtype)
        if low is None or high is None or _is_nan(low) or _is_nan(high):
            return NEVER
        return _range(dtype, (low, False), (high, False))
    constant = _comparable(value, dtype)
    if op in ("eq", "ne"):
        point = None if _is_nan(constant) else _exact_point(constant, dtype)
        found = NEVER if point is None else Predicate("range", point, point)
        return found._replace(negate=True) if op == "ne" else found
    if _is_nan(constant):
        return NEVER
    bound = (constant, op in ("gt", "lt"))
    return _range(dtype, bound, None) if op in ("gt", "gte") else _range(dtype, None, bound)


def _among(points: Set[Any]) -> Predicate:
    if not points:
        return NEVER
    values = tuple(sorted(points))
    if len(values) == 1:
        return Predicate("range", values[0], values[0])
    return Predicate("in", values=values)


def _point(value: Any, dtype: DType) -> Optional[Value]:
    constant = _comparable(value, dtype)
    return None if _is_nan(constant) else _exact_point(constant, dtype)


Constant = Union[Real, bytes]
Bound = Optional[tuple[Any, bool]]  # a constant and whether the comparison is strict


def _range(dtype: DType, low: Bound, high: Bound) -> Predicate:
    if dtype.is_float:
        return _float_range(low, high)
    if dtype.is_varlen:
        return _bytes_range(low, high)
    return _integer_range(dtype, low, high)


def _exact_point(constant: Any, dtype: DType) -> Optional[Value]:
    """The one physical value that equals the constant, None where no value of the type can."""
    if dtype.is_varlen:
        point: bytes = constant
        return point
    if dtype.is_float:
        near = _nearest(constant)
        return near + 0.0 if near == constant else None  # + 0.0 makes -0.0 the 0.0 that it equals
    if isinstance(constant, float) and math.isinf(constant):
        return None
    whole: int = math.floor(constant)
    lo, hi = dtype.lo, dtype.hi
    if whole != constant or lo is None or hi is None or not lo <= whole <= hi:
        return None
    return whole


# -- ranges of the three kinds of physical value ---------------------------
def _integer_range(dtype: DType, low: Bound, high: Bound) -> Predicate:
    least, most = dtype.lo, dtype.hi
    if least is None or most is None:  # not reached: every type that comes here is stored as an integer
        raise Refused(f"{dtype.name} is not stored as an integer")
    lo = least if low is None else max(least, _above(low, most))
    hi = most if high is None else min(most, -_above((-high[0], high[1]), -least))
    if lo > hi:
        return NEVER
    if lo == hi:
        return Predicate("range", lo, hi)
    return Predicate("range", None if lo == least else lo, None if hi == most else hi)


def _above(bound: tuple[Any, bool], most: int) -> int:
    """The least integer that is at least (strict: above) the constant; ``most + 1`` where that is beyond ``most``."""
    constant, strict = bound
    if constant > most:
        return most + 1
    if isinstance(constant, float) and math.isinf(constant):
        return -(2**64)  # below every type
    least: int = math.floor(constant) + 1 if strict else math.ceil(constant)
    return least


def _float_range(low: Bound, high: Bound) -> Predicate:
    lo = -math.inf if low is None else _double_above(low)
    hi = math.inf if high is None else _negated(_double_above((-high[0], high[1])))
    if lo is None or hi is None or lo > hi:
        return NEVER
    return Predicate("range", lo + 0.0, hi + 0.0)


def _negated(value: Optional[float]) -> Optional[float]:
    return None if value is None else -value


def _double_above(bound: tuple[Any, bool]) -> Optional[float]:
    """The least double that is at least (strict: above) the constant, None where there is none."""
    constant, strict = bound
    near = _nearest(constant)
    # comparing int, float and Fraction with each other is exact in Python
    if near > constant or (near == constant and not strict):
        return near
    return None if near == math.inf else math.nextafter(near, math.inf)


def _nearest(constant: Real) -> float:
    """A double with no other double between it and the constant."""
    try:
        return float(constant)
    except OverflowError:
        return math.inf if constant > 0 else -math.inf


def _bytes_range(low: Bound, high: Bound) -> Predicate:
    lo, lo_open = low or (None, False)
    hi, hi_open = high or (None, False)
    if hi == b"" and hi_open:
        return NEVER  # nothing is less than the empty string
    if lo is not None and hi is not None and (lo > hi or (lo == hi and (lo_open or hi_open))):
        return NEVER
    return Predicate("range", lo, hi, lo_open, hi_open)


# -- constants -------------------------------------------------------------
# a constant may be longer than the column holds, or not UTF-8: it is compared, not stored
_BYTES = DType("text", c.BYTES)
_BINARY = DType("binary", c.BINARY)


def _comparable(value: Any, dtype: DType) -> Constant:
    """The constant to compare with: exact numbers, bytes, or days and microseconds; Refused where there is no order."""
    if dtype.is_numeric:
        number = _real(value)
        if number is None:
            hint = None
            if isinstance(value, (str, bytes)):
                made = "True or False" if dtype.is_bool else f"{'float' if dtype.is_float else 'int'}(value)"
                hint = f"text is not converted: use a number, as in {made}"
            raise Refused(f"a column of {dtype.name} compares with real numbers, not {type(value).__name__}", hint)
        return number
    if dtype.is_temporal:
        return convert(dtype, value)
    return convert(_BYTES if dtype.is_text else _BINARY, value)


def _is_nan(constant: Any) -> bool:
    return isinstance(constant, float) and math.isnan(constant)


def _real(value: Any) -> Optional[Real]:
    """Any real number as an equal int, float or Fraction of exactly those types; None for anything else."""
    kind = type(value)
    if kind is int or kind is float:
        number: Real = value
        return number
    if isinstance(value, float):
        return float.__pos__(value)
    if is_numpy_bool(value):
        return int(value)
    if hasattr(kind, "__index__"):
        try:
            return int.__index__(operator.index(value))
        except TypeError:
            return None
    from .reals import exact  # not at the top: fractions and decimal are a fifth of the cost of importing SnapDB

    return exact(value)
