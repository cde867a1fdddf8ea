"""Updates of documents: ``{"$set": {"a.b": 1}, "$inc": {"n": 2}}`` made into an object that gives the new document.

The rules are MongoDB's. Fields on the way that are missing are made; a number in a path is the place in an array. What
cannot be done (a number added to a text, two operators on one field) is refused, and the document stays as it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Callable, NamedTuple

from .document_filter import make_filter
from .document_paths import parts_of, place_of
from .document_sort import sort_key
from .document_values import MISSING, equal, order
from .errors import ConditionError, ValidationError, close_names, shorten

__all__ = ["Update", "copied", "make_update"]

MOST = 100_000  # elements that a path may make, as nulls, between the end of an array and the place it names


class _Change(NamedTuple):
    """One operator on one field: what it makes of a value (MISSING: there is none, or none is to be there)."""

    operator: str
    path: str
    make: Callable[[Any], Any]


class Update:
    """What is to be done to a document."""

    def __init__(
        self, changes: Sequence[_Change], renames: Sequence[tuple[str, str]], first: Sequence[_Change]
    ) -> None:
        self._changes = changes
        self._renames = renames
        self._first = first  # of a document that an upsert makes

    def apply(self, document: dict[str, Any], inserting: bool = False) -> dict[str, Any]:
        """The new document; the old one is not changed. ValidationError where an operator cannot be applied."""
        found: dict[str, Any] = copied(document)
        for change in [*self._changes, *(self._first if inserting else ())]:
            _carry_out(found, change)
        for old, new in self._renames:
            _rename(found, old, new)
        return found


class _Replacement(Update):
    """A whole document in the place of another one."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__((), (), ())
        self._document = document

    def apply(self, document: dict[str, Any], inserting: bool = False) -> dict[str, Any]:
        return dict(copied(self._document))


def copied(value: Any) -> Any:
    """A value whose objects and arrays are its own."""
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, (list, tuple)) else value


def make_update(spec: Any) -> Update:
    """An update of what users write: operators, or a document that replaces. ConditionError (a ValueError) for anything
    that is not understood.
    """
    if not isinstance(spec, Mapping):
        raise ConditionError(f"an update is a dict, not {type(spec).__name__} {shorten(spec)}")
    operators = [name for name in spec if isinstance(name, str) and name.startswith("$")]
    if not operators:
        if not spec:
            raise ConditionError("an update is not empty", hint="to replace a document by an empty one use update()")
        return _Replacement(dict(spec))
    if len(operators) < len(spec):
        raise ConditionError(f"operators and fields do not mix: {shorten(spec)}")
    return _of_operators(spec)


def _of_operators(spec: Mapping[str, Any]) -> Update:
    changes: list[_Change] = []
    first: list[_Change] = []
    renames: list[tuple[str, str]] = []
    for name, fields in spec.items():
        if name not in _OPERATORS and name not in ("$rename", "$setOnInsert"):
            close = close_names(name, [*_OPERATORS, "$rename", "$setOnInsert"])
            hint = f"did you mean {close[0]}?" if close else None
            raise ConditionError(f"there is no update operator {name}", hint=hint)
        if not isinstance(fields, Mapping):
            raise ConditionError(f"{name} takes a dict of fields, not {type(fields).__name__} {shorten(fields)}")
        for path, operand in fields.items():
            _check_path(name, path)
            if name == "$rename":
                _check_path(name, operand)
                renames.append((path, operand))
            else:
                make = _OPERATORS["$set" if name == "$setOnInsert" else name](path, operand)
                (first if name == "$setOnInsert" else changes).append(_Change(name, path, make))
    _check_apart([one.path for one in (*changes, *first)] + [path for pair in renames for path in pair])
    return Update(changes, renames, first)


def _check_path(name: str, path: Any) -> None:
    if not isinstance(path, str) or not all(parts_of(path)):
        raise ConditionError(f"{name}: {shorten(path)} is no path of names with dots between them")


def _check_apart(paths: list[str]) -> None:
    """No path is another one, or begins with it: the order would say what becomes of it."""
    known = sorted(parts_of(path) for path in paths)
    for one, other in zip(known, known[1:]):
        if other[: len(one)] == one:
            raise ConditionError(f"two changes meet at {'.'.join(one)!r}")


# -- where ---------------------------------------------------------------------


def _carry_out(document: dict[str, Any], change: _Change) -> None:
    parts = parts_of(change.path)
    holder, key = _holder(document, parts, change)
    if holder is None:
        return  # it would be made only to be removed
    old = _at(holder, key)
    new = change.make(old)
    if new is not MISSING:
        _put(holder, key, new, change.path)
    elif old is not MISSING:
        if isinstance(holder, list):
            holder[int(key)] = None  # the others keep their places
        else:
            del holder[key]


def _holder(document: dict[str, Any], parts: Sequence[str], change: _Change) -> tuple[Any, str]:
    """The object or array that has the last part of a path, made where there is none, and that part."""
    holder: Any = document
    for part in parts[:-1]:
        inner = _at(holder, part)
        if inner is MISSING:
            if change.operator == "$unset":
                return None, part
            inner = {}
            _put(holder, part, inner, change.path)
        if not isinstance(inner, (dict, list)):
            if change.operator == "$unset":
                return None, part
            what = f"{change.operator} {change.path!r}: {part!r} is {shorten(inner)}, which has no fields"
            raise ValidationError(what)
        holder = inner
    if isinstance(holder, list) and place_of(parts[-1]) < 0:
        if change.operator == "$unset":
            return None, parts[-1]
        raise ValidationError(f"{change.operator} {change.path!r}: an array has places, not a field {parts[-1]!r}")
    return holder, parts[-1]


def _at(holder: Any, key: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(key, MISSING)
    at = place_of(key)
    return holder[at] if 0 <= at < len(holder) else MISSING


def _put(holder: Any, key: str, value: Any, path: str) -> None:
    if isinstance(holder, dict):
        holder[key] = value
        return
    at = place_of(key)
    if at < 0:
        raise ValidationError(f"{path!r}: an array has places, not a field {key!r}")
    if at > len(holder) + MOST:
        raise ValidationError(f"{path!r}: place {at} is far behind the end of an array of {len(holder)}")
    holder.extend([None] * (at + 1 - len(holder)))
    holder[at] = value


def _rename(document: dict[str, Any], old: str, new: str) -> None:
    holder, key = _holder(document, parts_of(old), _Change("$unset", old, _gone))
    if holder is None:
        return
    if isinstance(holder, list):
        raise ValidationError(f"$rename {old!r}: an element of an array has no name")
    value = _at(holder, key)
    if value is MISSING:
        return
    del holder[key]
    holder, key = _holder(document, parts_of(new), _Change("$rename", new, _gone))
    if isinstance(holder, list):
        raise ValidationError(f"$rename {new!r}: an element of an array has no name")
    holder.pop(key, None)  # it comes last
    holder[key] = value


def _gone(value: Any) -> Any:
    return MISSING


# -- what ----------------------------------------------------------------------


def _set(path: str, operand: Any) -> Callable[[Any], Any]:
    return lambda old: copied(operand)


def _arithmetic(name: str, work: Callable[[Any, Any], Any], missing: Callable[[Any], Any]) -> Any:
    def of(path: str, operand: Any) -> Callable[[Any], Any]:
        if not _is_number(operand):
            raise ConditionError(f"{name} {path!r} takes a number, not {shorten(operand)}")

        def make(old: Any) -> Any:
            if old is MISSING:
                return missing(operand)
            if not _is_number(old):
                raise ValidationError(f"{name} {path!r}: there is {shorten(old)}, which is no number")
            if isinstance(old, Decimal) and isinstance(operand, float):
                return work(old, Decimal(repr(operand)))
            if isinstance(old, float) and isinstance(operand, Decimal):
                return work(Decimal(repr(old)), operand)
            return work(old, operand)

        return make

    return of


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _extreme(sign: int) -> Any:
    def of(path: str, operand: Any) -> Callable[[Any], Any]:
        return lambda old: copied(operand) if old is MISSING or order(operand, old) * sign > 0 else old

    return of


def _array_of(name: str, path: str, old: Any) -> list[Any]:
    if old is MISSING:
        return []
    if not isinstance(old, list):
        raise ValidationError(f"{name} {path!r}: there is {shorten(old)}, which is no array")
    return list(old)


def _modifiers(name: str, path: str, operand: Any, known: Iterable[str]) -> dict[str, Any]:
    """``{"$each": […], …}`` as it is; a single value as one of it."""
    if not isinstance(operand, Mapping) or "$each" not in operand:
        return {"$each": [operand]}
    unknown = [key for key in operand if key not in known]
    if unknown:
        raise ConditionError(f"{name} {path!r}: there is no modifier {shorten(unknown[0])}")
    if not isinstance(operand["$each"], (list, tuple)):
        raise ConditionError(f"{name} {path!r}: $each takes a list, not {shorten(operand['$each'])}")
    for key in ("$position", "$slice"):
        if key in operand and type(operand[key]) is not int:
            raise ConditionError(f"{name} {path!r}: {key} takes an int, not {shorten(operand[key])}")
    return dict(operand)


def _push(path: str, operand: Any) -> Callable[[Any], Any]:
    asked = _modifiers("$push", path, operand, ("$each", "$position", "$slice", "$sort"))
    key = None if "$sort" not in asked else sort_key(asked["$sort"], f"$push {path!r}: $sort")

    def make(old: Any) -> Any:
        found = _array_of("$push", path, old)
        at = asked.get("$position", len(found))
        found[at:at] = copied(asked["$each"])
        if key is not None:
            found.sort(key=key)
        keep = asked.get("$slice")
        return found if keep is None else found[:keep] if keep >= 0 else found[keep:]

    return make


def _add_to_set(path: str, operand: Any) -> Callable[[Any], Any]:
    asked = _modifiers("$addToSet", path, operand, ("$each",))

    def make(old: Any) -> Any:
        found = _array_of("$addToSet", path, old)
        for value in asked["$each"]:
            if not any(equal(one, value) for one in found):
                found.append(copied(value))
        return found

    return make


def _pull(path: str, operand: Any) -> Callable[[Any], Any]:
    if isinstance(operand, Mapping) and not any(str(name).startswith("$") for name in operand):
        inner = make_filter(operand)  # fields of elements that are objects

        def goes(element: Any) -> bool:
            return isinstance(element, dict) and inner.matches(element)

    else:
        whole = make_filter({"x": operand})

        def goes(element: Any) -> bool:
            if isinstance(element, list) and not isinstance(operand, Mapping):
                return equal(element, operand)
            return whole.matches({"x": element})

    return lambda old: old if old is MISSING else [one for one in _array_of("$pull", path, old) if not goes(one)]


def _pull_all(path: str, operand: Any) -> Callable[[Any], Any]:
    if not isinstance(operand, (list, tuple)):
        raise ConditionError(f"$pullAll {path!r} takes a list, not {shorten(operand)}")

    def make(old: Any) -> Any:
        if old is MISSING:
            return old
        return [one for one in _array_of("$pullAll", path, old) if not any(equal(one, other) for other in operand)]

    return make


def _pop(path: str, operand: Any) -> Callable[[Any], Any]:
    if operand not in (1, -1) or isinstance(operand, bool):
        raise ConditionError(f"$pop {path!r} takes 1, for the last element, or -1, not {shorten(operand)}")
    left = slice(None, -1) if operand == 1 else slice(1, None)
    return lambda old: old if old is MISSING else _array_of("$pop", path, old)[left]


def _current_date(path: str, operand: Any) -> Callable[[Any], Any]:
    if operand is not True and operand != {"$type": "date"}:
        raise ConditionError(f"$currentDate {path!r} takes True, not {shorten(operand)}")
    return lambda old: dt.datetime.now(dt.timezone.utc)


_OPERATORS: dict[str, Callable[[str, Any], Callable[[Any], Any]]] = {
    "$set": _set,
    "$unset": lambda path, operand: _gone,
    "$inc": _arithmetic("$inc", lambda one, other: one + other, lambda operand: operand),
    "$mul": _arithmetic("$mul", lambda one, other: one * other, lambda operand: type(operand)(0)),
    "$min": _extreme(-1),
    "$max": _extreme(1),
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
    "$pullAll": _pull_all,
    "$pop": _pop,
    "$currentDate": _current_date,
}
