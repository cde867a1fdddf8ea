"""The question of a filter that the kernel can put to documents as they are stored, without decoding them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Union

from .document_paths import parts_of

__all__ = ["Question", "question_of"]

Bound = Union[int, float, None]
_RANGES = ("$gt", "$gte", "$lt", "$lte")


class Question(NamedTuple):
    """Is the value that a path leads to this text, or a number between these bounds? ``alone``: that is all there is
    to ask.
    """

    parts: tuple[bytes, ...]
    text: Optional[bytes]
    low: Bound
    high: Bound
    low_open: bool
    high_open: bool
    alone: bool


def question_of(spec: Optional[Mapping[str, Any]]) -> Optional[Question]:
    """The first such question of a filter, which every document that matches answers with yes; None: there is none."""
    for name, condition in (spec or {}).items():
        if name.startswith("$"):
            continue
        parts = tuple(part.encode("utf-8", "surrogatepass") for part in parts_of(name))
        alone = spec is not None and len(spec) == 1
        found = _equality(condition)
        if found is not None:
            return Question(parts, *found, False, False, alone)
        ends = _range(condition)
        if ends is not None:
            return Question(parts, None, *ends, alone)
    return None


def _equality(condition: Any) -> Optional[tuple[Optional[bytes], Bound, Bound]]:
    if isinstance(condition, Mapping) and len(condition) == 1 and "$eq" in condition:
        condition = condition["$eq"]
    if isinstance(condition, str):
        return str.__str__(condition).encode("utf-8", "surrogatepass"), None, None
    return (None, condition, condition) if _is_bound(condition) else None


def _is_bound(value: Any) -> bool:
    if type(value) is int:
        return bool(-(2**63) <= value < 2**63)
    return type(value) is float and value == value


def _range(condition: Any) -> Optional[tuple[Bound, Bound, bool, bool]]:
    """The bounds of a condition that has no others: of two on one side the narrower one."""
    if not isinstance(condition, Mapping) or not condition:
        return None
    low: Bound = None
    high: Bound = None
    low_open = high_open = False
    for name, value in condition.items():
        if name not in _RANGES or not _is_bound(value):
            return None
        is_open = not name.endswith("e")
        if name.startswith("$g") and (low is None or value > low or (value == low and is_open)):
            low, low_open = value, is_open
        elif name.startswith("$l") and (high is None or value < high or (value == high and is_open)):
            high, high_open = value, is_open
    return low, high, low_open, high_open
