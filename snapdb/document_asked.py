"""What users ask of a document store, checked: windows, orders, fields to show, documents to begin an upsert with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from .document_index import equalities
from .document_paths import parts_of
from .document_update import copied, make_update
from .errors import ConditionError, ValidationError, ValueTypeError, shorten

__all__ = ["culprit", "directions", "projection", "seed", "shown", "window"]


def window(limit: Any, offset: Any) -> tuple[int, Optional[int]]:
    """How many to leave out and how many to give at most (None: all). ValueTypeError, ValidationError."""
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueTypeError(f"{name} is an int, not {type(value).__name__} {shorten(value)}")
    if offset is not None and offset < 0:
        raise ValidationError(f"offset is not negative, got {offset}")
    return offset or 0, None if limit is None else max(limit, 0)


def directions(sort: Any, desc: bool) -> dict[str, int]:
    """Fields to 1 or -1, as ``sort_key`` takes them. ConditionError."""
    if isinstance(sort, Mapping):
        return dict(sort)
    if not isinstance(sort, (str, list, tuple)):
        raise ConditionError(f"sort takes a field, a list or a dict of fields, not {shorten(sort)}")
    fields = [sort] if isinstance(sort, str) else list(sort)
    found: dict[str, int] = {}
    for field in fields:
        if isinstance(field, str):
            field = (field, -1 if desc else 1)
        if not isinstance(field, (list, tuple)) or len(field) != 2 or not isinstance(field[0], str):
            raise ConditionError(f"sort takes names of fields, or (name, 1 or -1), not {shorten(field)}")
        found[field[0]] = field[1]
    return found


def projection(select: Any) -> dict[str, Any]:
    """The fields to give as a tree of names; an empty branch: all of it."""
    if isinstance(select, str) or not all(isinstance(path, str) for path in select):
        raise ValueTypeError(f"select takes a list of fields, not {shorten(select)}")
    tree: dict[str, Any] = {}
    for path in select:
        branch = tree
        for part in parts_of(path):
            branch = branch.setdefault(part, {})
        branch.clear()
    return tree


def shown(value: Any, tree: dict[str, Any]) -> Any:
    """What a tree of names leaves of a value."""
    if not tree:
        return value
    if isinstance(value, list):
        return [shown(one, tree) for one in value if isinstance(one, (dict, list))]
    names = [name for name in value if name in tree and _has(value[name], tree[name])]
    return {name: shown(value[name], tree[name]) for name in names}


def _has(value: Any, tree: dict[str, Any]) -> bool:
    return not tree or isinstance(value, (dict, list))


def seed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The document that an upsert begins with: what its filter says is equal."""
    found: dict[str, Any] = {}
    for path, values in equalities(spec):
        if len(values) == 1:
            found = make_update({"$set": {path: copied(values[0])}}).apply(found)
    return found


def culprit(value: Any, encode: Any, path: str = "") -> str:
    """Where the value is that cannot be stored, as the end of a sentence."""
    if isinstance(value, Mapping):
        inner: Iterable[tuple[Any, Any]] = value.items()
    else:
        inner = enumerate(value) if isinstance(value, (list, tuple)) else ()
    for name, one in inner:
        try:
            encode({name: one} if isinstance(value, Mapping) else one)
        except (TypeError, ValueError):
            at = f"{path}.{name}" if path else str(name)
            return culprit(one, encode, at) if path.count(".") < 50 else f" (at {at!r})"
    return f" (at {path!r})" if path else ""
