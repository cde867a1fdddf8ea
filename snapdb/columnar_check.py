"""What is wrong with a columnar table: every piece decoded, zone maps and counts against the rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._ext._common import SEGMENT, Zone
from .columnar_patch import piece_chunks
from .errors import CorruptionError

if TYPE_CHECKING:
    from .column import Column
    from .columnar_base import ColumnarBase

__all__ = ["verify"]


def verify(table: ColumnarBase) -> Iterator[str]:
    """See ``Table.verify``."""
    live = 0
    for k in range(len(table.deleted)):
        with table.lock:
            found, here = _segment(table, k)
        yield from found
        live += here
    if live != len(table):
        yield f"{live} rows are live, not {len(table)} as the counters say"


def _segment(table: ColumnarBase, k: int) -> tuple[list[str], int]:
    """What is wrong with segment k, and its live rows."""
    found: list[str] = []
    shapes = set()
    for j, column in enumerate(table.column_list):
        try:
            part = column.part(k)
            if part is None:
                shapes.add((0, 0))
                continue
            sealed, tail = part
            shapes.add((0 if sealed is None else sealed.rows, 0 if tail is None else tail.rows))
            found += [f"column {column.name!r}, segment {k}: {text}" for text in _column(table, j, k)]
        except CorruptionError as error:
            found.append(str(error))
        except (ValueError, OverflowError, IndexError) as error:
            found.append(f"column {column.name!r}, segment {k}: {error}")
    size = table.segment_rows(k)
    if shapes == {(0, 0)} and k < len(table.deleted) - 1:
        return found, 0
    if not found and (len(shapes) > 1 or sum(next(iter(shapes), (0,))) != size):
        found.append(f"segment {k}: its columns have {sorted(shapes)} sealed and unsealed rows, it has {size}")
    deleted = table.deleted[k]
    if deleted is None:
        return found, size
    kernel = table.kernels.mask
    if len(deleted) * 8 != SEGMENT or kernel.last(deleted) >= size:
        found.append(f"segment {k}: the bitmap of deleted rows has rows that are not there")
    return found, size - int(kernel.count(deleted))


def _column(table: ColumnarBase, j: int, k: int) -> Iterator[str]:
    column = table.column_list[j]
    sealed, _ = column.part(k)
    zone, overlay = column.zones[k], column.overlays.get(k) or {}
    size = table.segment_rows(k)
    if any(not 0 <= row < size for row in overlay):
        yield "an updated row is not there"
        return
    if (zone is None) != (sealed is None):
        yield "there is a zone map without values or values without a zone map"
    elif zone is not None:
        yield from _zone(table, column, zone, sealed, {row: v for row, v in overlay.items() if row < sealed.rows})
    chunks = piece_chunks(column, column.part(k), overlay, size)
    if any(chunk.decode().rows != chunk.rows for chunk in chunks):
        yield "values are missing"
    if table.schema.columns[j].not_null and any(chunk.count() != chunk.rows for chunk in chunks):
        yield "there is a null in a column that has none"


def _zone(table: ColumnarBase, column: Column, zone: Zone, sealed: Any, overlay: dict[int, Any]) -> Iterator[str]:
    """A zone map against the values of the sealed part."""
    buffer = sealed.decode()
    if zone.exact:
        if overlay:
            yield "the zone map of updated rows claims to be exact"
        _, fresh = table.kernels.codecs.encode(buffer, 0, buffer.rows)
        if _bits(fresh) != _bits(zone):
            yield f"the zone map says {zone}, the values say {fresh}"
        return
    buffer.patch(overlay)
    chunk = table.kernels.codecs.Chunk.view(buffer)
    values = chunk.count()
    numbers = values
    if column.type.is_float:
        numbers = table.kernels.mask.count(chunk.select(float("-inf"), float("inf")))
    bounds = chunk.bounds()
    if zone.nulls < buffer.rows - values or zone.nans < values - numbers:
        yield f"the zone map counts {zone.nulls} nulls and {zone.nans} NaNs, there are more"
    if numbers and bounds is not None and not _holds(zone, *bounds):
        yield f"the zone map says {zone}, the values lie within {bounds}"


def _holds(zone: Any, lo: Any, hi: Any) -> bool:
    return zone.lo is not None and zone.lo <= lo and (zone.hi is None or hi <= zone.hi)


def _bits(zone: Zone) -> tuple[Any, ...]:
    """A zone map in a form that tells 0.0 from -0.0 and is equal for NaNs."""
    return tuple(
        ("nan" if value != value else struct.pack("<d", value)) if isinstance(value, float) else value for value in zone
    )
