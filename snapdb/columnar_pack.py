"""The packed tail of an open segment (``docs/format.md``): its chunks as they are written with the tail in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._ext._common import AFFINE, BLOCK, LIMITS, SLOPE
from .columnar_file import TIMES, Packed, Segment, all_deleted, halves

if TYPE_CHECKING:
    from .column import Column
    from .columnar_base import ColumnarBase

__all__ = ["packed_open"]

#: A tail is packed where that saves one byte in so many: what asks for the tail alone has to read the chunks then.
_WORTH = 16


def packed_open(table: ColumnarBase, segment: Segment, written: bool = False) -> Segment:
    """An open segment to be written with its tail in its chunks, or as it is where that saves nothing. ``written``:
    its chunks are in the file as they are, and written anew only where that may be worth it.
    """
    sealed, tail = halves(segment.parts[0])
    if sealed is None or tail is None or not 0 < tail.rows < BLOCK:
        return segment
    if all_deleted(segment.deleted, sealed.rows, tail.rows):
        return segment
    parts = [_read(part) if type(halves(part)[1]) is Packed else part for part in segment.parts]
    tails = sum(len(table.kernels.values.pack_column(halves(part)[1], 0, tail.rows)) for part in parts)
    chunks = 0
    if written:
        chunks = sum(_size(part) for part in segment.parts)
        if tails * _WORTH < chunks:
            return segment
    parts = [_read(part) for part in segment.parts]
    packed = [_packed(column, part) for column, part in zip(table.column_list, parts)]
    size, apart = sum(len(one.data) for one in packed), (chunks or sum(_size(part) for part in parts)) + tails
    if (apart - size) * _WORTH < size:
        return segment
    return segment._replace(parts=parts, packed=packed)


def _read(part: Any) -> Any:
    return part if type(part) is tuple else part.resolve()


def _size(part: Any) -> int:
    """Bytes of the sealed part in a file, at least nearly."""
    sealed = halves(part)[0]
    refs = getattr(sealed, "refs", None)
    if refs is not None:
        return sum(ref.length for ref in refs)
    return len(sealed.data) if sealed.sealed else int(sealed.nbytes)


def _packed(column: Column, part: Any) -> Any:
    """The chunk of a sealed part and the tail behind it, filled up to a whole block."""
    sealed, tail = part
    work = sealed.decode()
    work.extend(tail)
    rows, rest = work.rows, -work.rows % BLOCK
    if not rest or not _goes_on(column, sealed, work, rest):
        filling = column.new_buffer()
        filling.append(work.physical(rows - 1))
        while filling.rows < rest:
            more = column.new_buffer()
            more.extend(filling)
            filling.extend(more, 0, min(more.rows, rest - filling.rows))
        work.extend(filling, 0, rest)
    chunk, _ = column.kernels.codecs.encode(work, 0, work.rows, column.hints.prefer)
    return chunk


def _goes_on(column: Column, sealed: Any, work: Any, rest: int) -> bool:
    """Fill up a sequence with what would come next; False where it is none, or would leave its type."""
    if sealed.codec not in (AFFINE, SLOPE):
        return False
    first, last = work.physical(sealed.rows - 1), work.physical(work.rows - 1)
    least, most = TIMES.get(column.type.code) or LIMITS[column.type.code]
    if first is None or last is None:
        return False
    way, steps = last - first, work.rows - sealed.rows
    values = [last + way * at // steps for at in range(1, rest + 1)]
    if not (least <= values[0] <= most and least <= values[-1] <= most):
        return False
    for value in values:
        work.append(value)
    return True
