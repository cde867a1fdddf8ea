"""Where a dotted path leads in a document: MongoDB's rules.

A part of a path is the name of an object's field. At an array it goes on in each element that is an object; a part that
is a number is also the place of an element. So a path may lead to several values, or to none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .document_values import MISSING

__all__ = ["Leaf", "leaves", "parts_of", "place_of"]


class Leaf(NamedTuple):
    """A value that a path leads to, MISSING where an object has no such field. ``place``: it is an element that the
    path names by its place, whose own elements are not meant.
    """

    value: Any
    place: bool = False

    def each(self) -> Iterator[Any]:
        """The value, and if it is an array its elements."""
        yield self.value
        if isinstance(self.value, list) and not self.place:
            yield from self.value


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path."""
    return tuple(path.split("."))


def leaves(value: Any, parts: Sequence[str]) -> Iterator[Leaf]:
    """The values that a path leads to from here."""
    if not parts:
        yield Leaf(value)
    elif isinstance(value, dict):
        if parts[0] in value:
            yield from leaves(value[parts[0]], parts[1:])
        else:
            yield Leaf(MISSING)
    elif isinstance(value, list):
        yield from _of_array(value, parts)
    else:
        yield Leaf(MISSING)


def _of_array(value: list[Any], parts: Sequence[str]) -> Iterator[Leaf]:
    at = place_of(parts[0])
    if 0 <= at < len(value):
        if len(parts) == 1:
            yield Leaf(value[at], True)
        else:
            yield from leaves(value[at], parts[1:])
    for element in value:
        if isinstance(element, dict):
            yield from leaves(element, parts)


def place_of(part: str) -> int:
    """The place that a part names, -1 for a name."""
    return int(part) if part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") else -1
