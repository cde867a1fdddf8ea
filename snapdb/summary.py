"""Aggregates of a whole columnar table without a filter, kept until they change.

The answers are those of a scan to the last bit: segments in the same order, merged by the same rules. A segment that
has updates or deleted rows is asked once, a sealed one answers from its zone map; what is merged of the closed ones is
extended as more of them are closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import SEGMENT, logical
from .aggregate import _better, _canonical
from .columnar_file import Packed
from .kept import Part, Place
from .scan import submask

if TYPE_CHECKING:
    from .column import Column
    from .columnar_base import ColumnarBase
    from .scan import View

__all__ = ["answer"]

_COUNT, _SUM, _BOUNDS = range(3)
_KINDS = {"count": (_COUNT,), "sum": (_SUM,), "min": (_BOUNDS,), "max": (_BOUNDS,), "avg": (_SUM, _COUNT)}
_MISSING = object()


def answer(table: ColumnarBase, j: int, agg: str) -> Any:
    """``sum min max avg count`` of column j over all live rows, as ``aggregate`` gives it."""
    column = table.column_list[j]
    kinds = _KINDS[agg]
    found = _known(table, column, j, kinds[0])
    if agg == "count":
        return found
    if agg == "sum":
        return _canonical(found) if column.type.is_float else found
    if agg == "avg":
        values = _known(table, column, j, _COUNT)
        return None if values == 0 else _canonical(found / values)
    best = None if found is None else found[agg == "max"]
    return _canonical(best) if isinstance(best, float) else logical(column.type.code, best)


def _known(table: ColumnarBase, column: Column, j: int, kind: int) -> Any:
    """One kind of answer over the whole table."""
    with table.lock:
        table.load_all()
        kept = column.kept
        version = (column.changes, table.deletions, table.rows)
        held = kept.whole.get(kind)
        if held is not None and held[0] == version:
            return held[1]
        found = _merged(table, column, j, kind, version)
        if found is not _MISSING:
            kept.whole[kind] = (version, found)
            return found
        view, dead, parts = table.view(), list(table.deleted), dict(kept.parts)
        version = (column.changes, table.deletions, view.rows)
    # the rows themselves are asked without the lock
    with view:
        found, fresh = _asked(view, j, kind, _nothing(column, kind), dead, parts)
    with table.lock:
        if version[:2] == (column.changes, table.deletions):
            kept.parts.update(fresh)
            kept.whole[kind] = (version, found)
    return found


def _merged(table: ColumnarBase, column: Column, j: int, kind: int, version: tuple[int, int, int]) -> Any:
    """The answer from zone maps, from what is kept of single segments and from the tail; ``_MISSING`` where it takes
    more.
    """
    kept, rows = column.kept, version[2]
    last = len(column.parts) - 1
    start, found = 0, _nothing(column, kind)
    held = kept.closed.get(kind)
    if held is not None and held[0] == version[1] and held[1] <= last:
        _, start, found = held
    for k in range(start, last):
        if column.parts[k] is not None:
            part = _of_closed(table, column, kind, k)
            if part is _MISSING:
                return _MISSING
            found = _joined(kind, found, part)
    kept.closed[kind] = (version[1], last, found)
    size = rows - last * SEGMENT
    part = _of_open(table, column, kind, last, size) if size > 0 else None
    if part is _MISSING:
        return _MISSING
    return found if size <= 0 else _joined(kind, found, part)


def _of_closed(table: ColumnarBase, column: Column, kind: int, k: int) -> Any:
    """What a closed segment answers without being read."""
    zone, dead = column.zones[k], table.deleted[k]
    if zone is not None and zone.exact and dead is None:
        return _of_zone(zone, kind, SEGMENT)
    held = column.kept.parts.get((kind, k))
    return held[1] if held is not None and held[0] is dead else _MISSING


def _of_open(table: ColumnarBase, column: Column, kind: int, k: int, size: int) -> Any:
    """What the open segment answers: the zone map of its sealed part and its tail."""
    part, zone = column.parts[k], column.zones[k]
    if table.deleted[k] is not None or k in column.overlays or (zone is not None and not zone.exact):
        return _MISSING
    if part is None or (type(part) is not tuple and zone is None):
        return _MISSING
    sealed, tail = part if type(part) is tuple else (part, part.tail)
    base = 0 if sealed is None else sealed.rows
    if (base and zone is None) or type(tail) is Packed:
        return _MISSING
    found = _of_zone(zone, kind, base) if base else _nothing(column, kind)
    if size <= base:
        return found
    chunk = column.kernels.codecs.Chunk.view(tail, 0, size - base)
    if kind == _SUM:
        return chunk.sum(None, found)
    return found + chunk.count() if kind == _COUNT else _joined(kind, found, chunk.bounds())


def _of_zone(zone: Any, kind: int, rows: int) -> Any:
    if kind == _SUM:
        return zone.total
    if kind == _COUNT:
        return rows - zone.nulls
    return None if zone.lo is None else (zone.lo, zone.hi)


def _nothing(column: Column, kind: int) -> Any:
    """The answer over no rows."""
    if kind == _BOUNDS:
        return None
    return 0.0 if kind == _SUM and column.type.is_float else 0


def _joined(kind: int, found: Any, part: Any) -> Any:
    """The answer over more segments."""
    if kind != _BOUNDS:
        return found + part
    if found is None or part is None:
        return part if found is None else found
    return _better(found[0], part[0], False), _better(found[1], part[1], True)


# -- over a view -----------------------------------------------------------


def _asked(
    view: View, j: int, kind: int, found: Any, deleted: Sequence[Optional[bytearray]], parts: Mapping[Place, Part]
) -> tuple[Any, dict[Place, Part]]:
    """The answer over a view, beginning with ``found``, and what its closed segments said that is worth keeping.
    ``deleted``: the view's bitmaps of deleted rows, ``parts``: what is known of single segments.
    """
    fresh: dict[Place, Part] = {}
    for k in range(view.segments()):
        if view.dead(k):
            continue
        zone, held = view.zone(j, k), parts.get((kind, k))
        if view.size(k) < SEGMENT:
            part = _of_segment(view, j, kind, k)
        elif held is not None and held[0] is deleted[k]:
            part = held[1]
        else:
            part = _of_segment(view, j, kind, k)
            if deleted[k] is not None or zone is None or not zone.exact:
                fresh[kind, k] = (deleted[k], part)
        found = _joined(kind, found, part)
    return found, fresh


def _of_segment(view: View, j: int, kind: int, k: int) -> Any:
    """What one segment of a view answers: a zone map where every row is live and nothing was changed, else the rows."""
    mask, zone = view.live(k), view.zone(j, k)
    is_fresh = mask is None and zone is not None and zone.exact
    found: Any = None if kind == _BOUNDS else 0.0 if kind == _SUM and view.schema.columns[j].type.is_float else 0
    chunks: Any = None
    start = 0
    for p, rows in enumerate(view.bounds(k)):
        if p == 0 and is_fresh:
            found = _of_zone(zone, kind, rows)
        else:
            chunks = view.chunks(j, k) if chunks is None else chunks
            part = submask(mask, start, rows)
            if kind == _SUM:
                found = chunks[p].sum(part, found)
            else:
                found = _joined(kind, found, chunks[p].count(part) if kind == _COUNT else chunks[p].bounds(part))
        start += rows
    return found
