"""What a row table was at some moment, kept at the price of what was written since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ._ext._common import SEGMENT
from .differing import Difference, differing_rows, rows_of

if TYPE_CHECKING:
    from ._ext import SlabView

__all__ = ["RowImage", "compare", "held"]


class RowImage(NamedTuple):
    """The slabs of a row table, shared with it until it writes to them, and its generation of row ids."""

    slabs: SlabView
    generation: int


def held(images: Iterable[RowImage], now: SlabView) -> int:
    """Bytes of memory that images keep besides what the table has now."""
    seen: set[int] = set()
    now.footprint(seen)
    return sum(image.slabs.footprint(seen) for image in images)


def compare(one: RowImage, other: RowImage, slab_rows: int, columns: int) -> Difference:
    """What differs between two images of one generation. Slabs that both share are not looked at."""
    found = Difference([], [], [])
    for start, stop in _runs(one.slabs.differing(other.slabs), slab_rows):
        mine, its = _alive(one.slabs, start, stop), _alive(other.slabs, start, stop)
        found.added.extend([start + row for row in rows_of(its & ~mine)])
        found.removed.extend([start + row for row in rows_of(mine & ~its)])
        both = rows_of(mine & its)
        if both:
            end = min(stop, one.slabs.rows, other.slabs.rows)
            changed = _changed(one.slabs, other.slabs, start, end, columns)
            found.changed.extend([start + row for row in both if row in changed])
    return found


def _runs(slabs: list[int], slab_rows: int) -> Iterator[tuple[int, int]]:
    """The positions of slabs, neighbouring ones together up to a segment."""
    most = max(1, SEGMENT // slab_rows)
    at = 0
    while at < len(slabs):
        end = at + 1
        while end < len(slabs) and slabs[end] == slabs[end - 1] + 1 and end - at < most:
            end += 1
        yield slabs[at] * slab_rows, (slabs[end - 1] + 1) * slab_rows
        at = end


def _alive(view: SlabView, start: int, stop: int) -> int:
    """The live rows of positions ``start..stop``, as far as the view has them."""
    end = min(stop, view.rows)
    if end <= start:
        return 0
    mask = view.live_mask(start, end)
    return (1 << (end - start)) - 1 if mask is None else int.from_bytes(mask, "little")


def _changed(one: SlabView, other: SlabView, start: int, stop: int, columns: int) -> set[int]:
    """The rows, counted from ``start``, of which a value differs (or that one side has not)."""
    found: set[int] = set()
    for j in range(columns):
        mine: Any = one.gather(j, start, stop)
        found |= differing_rows(mine, other.gather(j, start, stop))
    return found
