"""Filters of documents: ``{"age": {"$gte": 18}, "tags": "red"}`` made into an object that says which documents match.

The rules are MongoDB's. A condition on a field holds where it holds for some value that its path leads to, for an array
or for one of its elements; ``$ne``, ``$nin`` and ``$not`` hold where the condition they deny does not, so where the
field is missing too. An operator that is not known is refused, and nothing is ever evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any, Callable

from .document_paths import Leaf, leaves, parts_of
from .document_values import ARRAY, BOOL, MISSING, NULL, NUMBER, OBJECT, compare, equal, family
from .errors import ConditionError, close_names, shorten

__all__ = ["OPERATORS", "Filter", "Test", "make_filter"]

#: says of the values that a path leads to whether a condition holds
Test = Callable[[list[Leaf]], bool]
#: says of one value whether it meets a condition
One = Callable[[Any], bool]

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


class Filter:
    """Conditions on a document. ``matches(document)`` says whether it meets them."""

    def matches(self, document: Any) -> bool:
        """Whether a document, as it is decoded, is meant."""
        raise NotImplementedError


class _Field(Filter):
    """A condition on what a path leads to."""

    def __init__(self, path: str, test: Test) -> None:
        self.path = path
        self.parts = parts_of(path)
        self.test = test

    def matches(self, document: Any) -> bool:
        return self.test(list(leaves(document, self.parts)))


class _All(Filter):
    """Every one of some filters; with ``negate`` none of the cases in which they all hold."""

    def __init__(self, filters: Iterable[Filter]) -> None:
        self.filters = list(filters)

    def matches(self, document: Any) -> bool:
        return all(one.matches(document) for one in self.filters)


class _Any(Filter):
    """At least one of some filters; with ``negate`` none of them."""

    def __init__(self, filters: Iterable[Filter], negate: bool = False) -> None:
        self.filters = list(filters)
        self.negate = negate

    def matches(self, document: Any) -> bool:
        return any(one.matches(document) for one in self.filters) != self.negate


class _Not(Filter):
    def __init__(self, denied: Filter) -> None:
        self.denied = denied

    def matches(self, document: Any) -> bool:
        return not self.denied.matches(document)


def make_filter(spec: Any) -> Filter:
    """A filter of what users write; None and {} mean every document. ConditionError (a ValueError) for anything that is
    not understood, before a document is looked at.
    """
    if spec is None:
        return _All(())
    if not isinstance(spec, Mapping):
        raise ConditionError(f"a filter is a dict, not {type(spec).__name__} {shorten(spec)}")
    return _All(chain.from_iterable(_part(name, condition) for name, condition in spec.items()))


def _part(name: Any, condition: Any) -> Iterable[Filter]:
    if not isinstance(name, str):
        raise ConditionError(f"a filter's keys are names of fields, not {type(name).__name__} {shorten(name)}")
    if name in ("$and", "$or", "$nor"):
        if not isinstance(condition, (list, tuple)) or not condition:
            raise ConditionError(f"{name} takes a list of filters, one at least, not {shorten(condition)}")
        filters = [make_filter(one) for one in condition]
        return [_All(filters) if name == "$and" else _Any(filters, name == "$nor")]
    if name.startswith("$"):
        raise _unknown(name, ("$and", "$or", "$nor"))
    return [_Field(name, test) for test in _tests(name, condition)]


def _unknown(name: str, known: Iterable[str]) -> ConditionError:
    return ConditionError(f"there is no operator {name}", hint=_meant(name, known))


def _meant(name: str, known: Iterable[str]) -> str:
    close = close_names(name, known)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"


def _is_operators(condition: Any) -> bool:
    """Whether a condition is made of operators; one that is a value has none. ConditionError for a mixture."""
    if not isinstance(condition, Mapping) or not condition:
        return False
    with_dollar = [isinstance(name, str) and name.startswith("$") for name in condition]
    if any(with_dollar) and not all(with_dollar):
        raise ConditionError(f"operators and fields do not mix: {shorten(condition)}")
    return all(with_dollar)


def _tests(path: str, condition: Any) -> list[Test]:
    """What must hold of the values of a field."""
    if isinstance(condition, re.Pattern):
        return [_of_some(_regex(condition, None))]
    if not _is_operators(condition):
        return [_equals(condition)]
    tests = []
    for name, operand in condition.items():
        if name == "$options":
            if "$regex" not in condition:
                raise ConditionError(f"{path}: $options is for $regex")
            continue
        make = OPERATORS.get(name)
        if make is None:
            raise _unknown(name, OPERATORS)
        if name == "$regex":
            tests.append(_of_some(_regex(operand, condition.get("$options"))))
        else:
            tests.append(make(operand))
    return tests


# -- tests of what a path leads to ---------------------------------------------


def _of_some(holds: One) -> Test:
    """It holds for one of the values, or for one of their elements."""
    return lambda found: any(holds(value) for leaf in found for value in leaf.each())


def _denied(test: Test) -> Test:
    return lambda found: not test(found)


def _stored(value: Any) -> Any:
    """A value that a document can hold; ConditionError for another one."""
    try:
        family(value)
    except TypeError as error:
        raise ConditionError(f"a filter cannot compare with {shorten(value)}: {error}") from None
    if isinstance(value, Mapping):
        return {name: _stored(one) for name, one in value.items()}
    return [_stored(one) for one in value] if isinstance(value, (list, tuple)) else value


def _is_value(operand: Any) -> One:
    wanted = _stored(operand)
    if wanted is None:
        return lambda value: value is None or value is MISSING
    return lambda value: equal(value, wanted)


def _equals(operand: Any) -> Test:
    return _of_some(_is_value(operand))


def _than(name: str, holds: Callable[[int], bool]) -> Callable[[Any], Test]:
    """A comparison within the family of the operand. Null compares with itself only; NaN with nothing but NaN."""

    def make(operand: Any) -> Test:
        wanted = _stored(operand)
        kind = family(wanted)
        if kind == NULL:
            return _equals(None) if holds(0) else lambda found: False
        if wanted != wanted:
            return _equals(wanted) if holds(0) else lambda found: False

        def one(value: Any) -> bool:
            if value is MISSING or family(value) != kind or (kind == NUMBER and value != value):
                return False
            return holds(compare(value, wanted, kind))

        return _of_some(one)

    return make


def _in(operand: Any) -> Test:
    if not isinstance(operand, (list, tuple, set, frozenset)):
        raise ConditionError(f"$in and $nin take a list, not {type(operand).__name__} {shorten(operand)}")
    tests = [_regex(one, None) if isinstance(one, re.Pattern) else _is_value(one) for one in operand]
    return _of_some(lambda value: any(test(value) for test in tests))


def _exists(operand: Any) -> Test:
    wanted = bool(operand)
    return lambda found: any(leaf.value is not MISSING for leaf in found) == wanted


def _regex(pattern: Any, options: Any) -> One:
    flags = 0
    for letter in options or "":
        if letter not in _FLAGS:
            raise ConditionError(f"$options has {letter!r}", hint="its letters are i, m, s and x")
        flags |= _FLAGS[letter]
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        pattern, flags = pattern.pattern, flags | pattern.flags
    if not isinstance(pattern, str):
        raise ConditionError(f"$regex takes a text or a compiled pattern of text, not {shorten(pattern)}")
    try:
        search = re.compile(pattern, flags).search
    except re.error as error:
        raise ConditionError(f"$regex {shorten(pattern)}: {error}") from None
    return lambda value: isinstance(value, str) and search(value) is not None


def _size(operand: Any) -> Test:
    if isinstance(operand, bool) or not isinstance(operand, (int, float)) or operand != operand or operand % 1:
        raise ConditionError(f"$size takes a whole number, not {shorten(operand)}")
    if operand < 0:
        raise ConditionError(f"$size takes a number that is not negative, not {shorten(operand)}")
    return lambda found: any(isinstance(leaf.value, list) and len(leaf.value) == operand for leaf in found)


def _all(operand: Any) -> Test:
    if not isinstance(operand, (list, tuple)):
        raise ConditionError(f"$all takes a list, not {type(operand).__name__} {shorten(operand)}")
    tests: list[Test] = []
    for one in operand:
        if isinstance(one, Mapping) and "$elemMatch" in one:
            if len(one) > 1:
                raise ConditionError("$all: $elemMatch stands alone")
            tests.append(_elem_match(one["$elemMatch"]))
        elif isinstance(one, re.Pattern):
            tests.append(_of_some(_regex(one, None)))
        else:
            tests.append(_equals(one))
    return lambda found: bool(tests) and all(test(found) for test in tests)


def _elem_match(operand: Any) -> Test:
    if not isinstance(operand, Mapping):
        raise ConditionError(f"$elemMatch takes a dict, not {type(operand).__name__} {shorten(operand)}")
    if _is_operators(operand) and not {"$and", "$or", "$nor"} & set(operand):
        tests = _tests("$elemMatch", operand)
        # an element is one value, whose own elements are not meant
        return _of_elements(lambda element: all(test([Leaf(element, True)]) for test in tests))
    inner = make_filter(operand)
    return _of_elements(lambda element: isinstance(element, (dict, list)) and inner.matches(_as_object(element)))


def _as_object(element: Any) -> Any:
    return element if isinstance(element, dict) else {str(at): one for at, one in enumerate(element)}


def _of_elements(holds: One) -> Test:
    return lambda found: any(isinstance(leaf.value, list) and any(map(holds, leaf.value)) for leaf in found)


def _not(operand: Any) -> Test:
    if isinstance(operand, re.Pattern):
        return _denied(_of_some(_regex(operand, None)))
    if not _is_operators(operand):
        raise ConditionError(f"$not takes operators or a pattern, not {shorten(operand)}")
    tests = _tests("$not", operand)
    return lambda found: not all(test(found) for test in tests)


def _contains(operand: Any) -> Test:
    wanted = _stored(operand)

    def holds(leaf: Leaf) -> bool:
        if isinstance(leaf.value, list):
            return any(equal(one, wanted) for one in leaf.value)
        return isinstance(leaf.value, str) and isinstance(wanted, str) and wanted in leaf.value

    return lambda found: any(map(holds, found))


# -- types ------------------------------------------------------------------------

_TYPES: dict[Any, One] = {
    "double": lambda value: isinstance(value, float),
    "string": lambda value: isinstance(value, str),
    "object": lambda value: value is not MISSING and family(value) == OBJECT,
    "array": lambda value: value is not MISSING and family(value) == ARRAY,
    "binData": lambda value: isinstance(value, bytes) or type(value).__name__ == "UUID",
    "bool": lambda value: isinstance(value, bool),
    "date": lambda value: value is not MISSING and family(value) > BOOL,
    "null": lambda value: value is None,
    "int": lambda value: type(value) is int and -(2**31) <= value < 2**31,
    "long": lambda value: type(value) is int and not -(2**31) <= value < 2**31,
    "decimal": lambda value: isinstance(value, Decimal),
    "number": lambda value: value is not MISSING and family(value) == NUMBER,
}
_NUMBERS = {
    1: "double", 2: "string", 3: "object", 4: "array", 5: "binData", 8: "bool", 9: "date", 10: "null", 16: "int",
    18: "long", 19: "decimal",
}  # fmt: skip


def _type(operand: Any) -> Test:
    names = operand if isinstance(operand, (list, tuple)) else [operand]
    tests = []
    for name in names:
        known = _NUMBERS.get(name) if type(name) is int else name
        if not isinstance(known, str) or known not in _TYPES:
            raise ConditionError(f"$type: there is no type {shorten(name)}", hint=f"use one of {', '.join(_TYPES)}")
        tests.append(_TYPES[known])
    return _of_some(lambda value: any(test(value) for test in tests))


def _mod(operand: Any) -> Test:
    fine = isinstance(operand, (list, tuple)) and len(operand) == 2
    if not fine or any(type(one) not in (int, float) or one != one or one in _ENDLESS for one in operand):
        raise ConditionError(f"$mod takes [divisor, remainder], two numbers, not {shorten(operand)}")
    divisor, remainder = int(operand[0]), int(operand[1])
    if divisor == 0:
        raise ConditionError("$mod: the divisor is 0")

    def holds(value: Any) -> bool:
        if value is MISSING or family(value) != NUMBER or value != value or value in _ENDLESS:
            return False
        whole = int(value)
        left = abs(whole) % abs(divisor)  # the sign is the number's, as in C
        return (left if whole >= 0 else -left) == remainder

    return _of_some(holds)


_ENDLESS = (float("inf"), float("-inf"))

OPERATORS: dict[str, Callable[[Any], Test]] = {
    "$eq": _equals,
    "$ne": lambda operand: _denied(_equals(operand)),
    "$gt": _than("$gt", lambda found: found > 0),
    "$gte": _than("$gte", lambda found: found >= 0),
    "$lt": _than("$lt", lambda found: found < 0),
    "$lte": _than("$lte", lambda found: found <= 0),
    "$in": _in,
    "$nin": lambda operand: _denied(_in(operand)),
    "$exists": _exists,
    "$contains": _contains,
    "$regex": lambda operand: _of_some(_regex(operand, None)),
    "$size": _size,
    "$all": _all,
    "$elemMatch": _elem_match,
    "$not": _not,
    "$type": _type,
    "$mod": _mod,
}
