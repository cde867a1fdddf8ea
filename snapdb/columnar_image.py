"""What a columnar table was at some moment: its lists copied, what is in them shared until it is written to."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._ext._common import SEGMENT
from .column import Column, ColumnImage
from .differing import Difference, differing_rows, is_same, rows_of

if TYPE_CHECKING:
    from .columnar_base import ColumnarBase

__all__ = ["ColumnarImage", "compare", "held"]


class ColumnarImage(NamedTuple):
    """A columnar table as of some moment."""

    columns: list[ColumnImage]
    deleted: list[Optional[bytearray]]
    deleted_rows: int
    blanked: dict[int, int]
    rows: int
    generation: int

    def size(self, k: int) -> int:
        """Row positions of segment k."""
        return max(0, min(SEGMENT, self.rows - k * SEGMENT))


# -- memory ------------------------------------------------------------------


def held(table: ColumnarBase, images: Iterable[ColumnarImage]) -> int:
    """Bytes of memory that images keep besides what the table has now."""
    seen: set[int] = {id(mask) for mask in table.deleted}
    for column in table.column_list:
        _held(column.parts, column.overlays, seen)
    total = 0
    for image in images:
        for kept in image.columns:
            total += sys.getsizeof(kept.parts) + sys.getsizeof(kept.zones)
            total += _held(kept.parts, kept.overlays, seen)
        for mask in image.deleted:
            if mask is not None and id(mask) not in seen:
                seen.add(id(mask))
                total += sys.getsizeof(mask)
    return total


def _held(parts: list[Any], overlays: dict[int, dict[int, Any]], seen: set[int]) -> int:
    """Bytes of what was not seen; it is noted as seen."""
    total = 0
    for piece in [piece for part in parts if type(part) is tuple for piece in part]:
        if piece is not None and id(piece) not in seen:
            seen.add(id(piece))
            total += Column.piece_bytes(piece)
    for overlay in overlays.values():
        if id(overlay) not in seen:
            seen.add(id(overlay))
            total += Column.overlay_bytes(overlay)
    return total


# -- what differs ------------------------------------------------------------


def compare(table: ColumnarBase, one: ColumnarImage, other: ColumnarImage) -> Difference:
    """What differs between two images of one generation. What both share is not looked at."""
    found = Difference([], [], [])
    for k in range(max(len(one.deleted), len(other.deleted))):
        start = k * SEGMENT
        mine, its = _alive(table, one, k), _alive(table, other, k)
        if mine != its:
            found.added.extend([start + row for row in rows_of(its & ~mine)])
            found.removed.extend([start + row for row in rows_of(mine & ~its)])
        changed: set[int] = set()
        if mine and its:
            for j, column in enumerate(table.column_list):
                changed |= _changed(column, one.columns[j], other.columns[j], k, min(one.size(k), other.size(k)))
        if changed:
            alive = (mine & its).to_bytes(SEGMENT // 8, "little")
            found.changed.extend([start + row for row in sorted(changed) if alive[row >> 3] >> (row & 7) & 1])
    return found


def _alive(table: ColumnarBase, image: ColumnarImage, k: int) -> int:
    """The live rows of segment k."""
    size = image.size(k)
    if not size or image.columns[0].parts[k] is None:
        return 0
    every = (1 << size) - 1
    deleted = image.deleted[k]
    return every if deleted is None else every & ~int.from_bytes(deleted, "little")


def _changed(column: Column, one: ColumnImage, other: ColumnImage, k: int, rows: int) -> set[int]:
    """The first ``rows`` rows of a segment whose values differ. Both images have it."""
    (sealed, tail), (its_sealed, its_tail) = one.parts[k], other.parts[k]
    mine, its = one.overlays.get(k) or {}, other.overlays.get(k) or {}
    if sealed is not its_sealed:
        return differing_rows(_decoded(column, one, k, rows), _decoded(column, other, k, rows))
    doubtful = set() if mine is its else {row for row in mine.keys() | its.keys() if row < rows}
    base = 0 if sealed is None else sealed.rows
    if tail is not its_tail and rows > base:
        a, b = column.new_buffer(), column.new_buffer()
        a.extend(tail, 0, rows - base)
        b.extend(its_tail, 0, rows - base)
        doubtful.update([base + row for row in differing_rows(a, b)])
    return {row for row in doubtful if not is_same(_value(one, k, row), _value(other, k, row))}


def _decoded(column: Column, image: ColumnImage, k: int, rows: int) -> Any:
    """The first rows of a segment with its updates."""
    sealed, tail = image.parts[k]
    base = 0 if sealed is None else sealed.rows
    work: Any = column.new_buffer() if sealed is None else sealed.decode()
    if base > rows:
        whole, work = work, column.new_buffer()
        work.extend(whole, 0, rows)
    elif rows > base:
        work.extend(tail, 0, rows - base)
    work.patch({row: value for row, value in (image.overlays.get(k) or {}).items() if row < rows})
    return work


def _value(image: ColumnImage, k: int, row: int) -> Any:
    """The physical value of one row of a segment."""
    overlay = image.overlays.get(k)
    if overlay is not None and row in overlay:
        return overlay[row]
    sealed, tail = image.parts[k]
    base = 0 if sealed is None else sealed.rows
    return sealed.physical(row) if row < base else tail.physical(row - base)
