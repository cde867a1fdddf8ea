"""What is known of a column's aggregates, until its rows change; ``summary`` asks and fills it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .step import Call

__all__ = ["Kept", "Part", "Place"]

Place = tuple[int, int]  # kind, segment
Part = tuple[Optional[bytearray], Any]  # the segment's deleted rows, and what it answers


class Kept:
    """What is known of a column's aggregates: ``whole[kind]`` of the table as of some version, ``closed[kind]`` of its
    first segments, ``parts[kind, k]`` of a segment whose zone map does not say it.
    """

    __slots__ = ("closed", "parts", "whole")

    def __init__(self) -> None:
        self.whole: dict[int, tuple[tuple[int, int, int], Any]] = {}
        self.closed: dict[int, tuple[int, int, Any]] = {}
        self.parts: dict[Place, Part] = {}

    def forget(self, k: int) -> None:
        """Segment k has changed."""
        for call in self.forgetting(k):
            call()

    def forgetting(self, k: Optional[int] = None) -> list[Call]:
        """The calls that forget what is known of segment k (None: of every one), for one step. ``whole`` is of another
        version from then on.
        """
        if k is None:
            return [partial(self.closed.clear), partial(self.parts.clear)]
        found: list[Call] = [partial(self.parts.pop, place) for place in self.parts if place[1] == k]
        if any(stop > k for _, stop, _ in self.closed.values()):
            found.append(partial(self.closed.clear))
        return found
