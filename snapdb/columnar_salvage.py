"""Which rows of a damaged segment verify.

A row is there whole or not at all: a column that is lost takes the rows of its sealed part with it, a piece of a tail
its 1,024 rows. Without the deleted rows or an overlay an old value could come back, so nothing of the segment is kept.
Zone maps are made anew where they are not what the values say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ._ext._common import BLOCK, SEGMENT
from .columnar_check import _zone
from .columnar_file import (
    DELETED,
    OVERLAY,
    SEALED,
    TAIL_ROWS,
    Segment,
    all_deleted,
    base_of,
    bitmap_from,
    blank_rows,
    check_parts,
    check_times,
    overlay_from,
    packed_tail,
    pieces_of,
    placed,
    zone_from,
)
from .errors import CorruptionError
from .pieces import Entry, Ref
from .remains import Batch, Judged, Range

if TYPE_CHECKING:
    from .columnar_base import ColumnarBase
    from .pieces import Source

__all__ = ["batch", "judge"]

_BAD = (CorruptionError, ValueError, OverflowError, IndexError)
_NUMBER = (1 << 24) - 1


class _Whole(Exception):
    """Nothing of the segment is known: says why."""


class _Segment:
    """A segment of ``size`` rows as far as it is known, updates applied: the sealed part and the tail of each column.
    ``lost``: its rows of which nothing is known, ``intact``: whether the entry may stay as it is.
    """

    def __init__(self, table: ColumnarBase, source: Source, k: int, entry: Entry, size: int) -> None:
        self.table = table
        self.kernels = table.kernels
        self.codes = table.codes
        self.source = source
        self.k = k
        self.size = size
        self.intact = True
        self.reason = ""
        self.lost: list[Range] = []
        self.base = 0
        self.deleted: Optional[bytearray] = None
        self.chunks: list[list[Ref]] = [[] for _ in self.codes]
        self.zones: list[Any] = [None] * len(self.codes)
        self.tails: list[dict[int, Ref]] = [{} for _ in self.codes]
        self.updates: list[dict[int, Any]] = [{} for _ in self.codes]
        self.packed: list[Any] = [None] * len(self.codes)  # chunks that have the tail too
        self._read(entry)

    def _wrong(self, reason: object, column: Optional[int] = None) -> None:
        self.intact = False
        if not self.reason:
            name = "" if column is None else f"column {self.table.column_list[column].name!r}, "
            self.reason = f"{name}segment {self.k}: {reason}"

    def _read(self, entry: Entry) -> None:
        overlays, deleted = self._sort(entry)
        try:
            if deleted is not None:
                self.deleted = bitmap_from(self.kernels, self.source.read(deleted), self.size)
            for j, ref in overlays:  # later ones of a column behind earlier ones
                self.updates[j].update(overlay_from(self.kernels, self.codes[j], self.source.read(ref), self.size))
        except _BAD as error:
            raise _Whole(f"segment {self.k}: {error}") from None
        self._read_sealed()
        self._read_tails()

    def _sort(self, entry: Entry) -> tuple[list[tuple[int, Ref]], Optional[Ref]]:
        overlays: list[tuple[int, Ref]] = []
        deleted: Optional[Ref] = None
        seen = set()
        for place, piece in placed(entry.pieces):
            kind, j = piece.tag >> 24, piece.tag & _NUMBER
            if place in seen or piece.ref is None or j >= len(self.codes) or entry.meta:
                raise _Whole(f"segment {self.k}: its entry has the piece {piece.tag:#x} wrongly")
            seen.add(place)
            if kind == SEALED:
                self.chunks[j].append(piece.ref)
                if not place[1]:
                    self._zone(j, bytes(piece.meta))
            elif kind == TAIL_ROWS and len(piece.meta) == 4:
                self.tails[j][place[1]] = piece.ref
            elif kind == OVERLAY:
                overlays.append((j, piece.ref))
            elif kind == DELETED and not j:
                deleted = piece.ref
            else:
                raise _Whole(f"segment {self.k}: there is no piece with tag {piece.tag:#x}")
        return overlays, deleted

    def _zone(self, j: int, meta: bytes) -> None:
        try:
            self.zones[j] = zone_from(meta, self.codes[j])
        except ValueError as error:
            self._wrong(error, j)

    # -- the sealed part -------------------------------------------------------
    def _read_sealed(self) -> None:
        """The chunks of all columns, or of none: ``sealed`` is a decoded buffer each."""
        chunks = [self._chunk(j) if refs else None for j, refs in enumerate(self.chunks)]
        said = [one[0] for one in self.zones if one is not None]
        behind = {rows + BLOCK for rows in said if rows < SEGMENT}  # with a packed tail
        held = [one.rows for one in chunks if one is not None]
        longer = {rows for rows in held if rows > self.size or (rows in behind and rows not in said)}
        sizes = said + [rows - BLOCK if rows in longer else rows for rows in held]
        self.base = base = max(set(sizes), key=sizes.count, default=0)
        if base > self.size or base % BLOCK or (base < SEGMENT) != (self.size < SEGMENT):
            raise _Whole(f"segment {self.k}: {base} sealed rows do not make a segment of {self.size}")
        self.sealed: list[Any] = []
        if not base:
            return
        if 0 < base < SEGMENT:
            packed = [one if one is not None and one.rows == base + BLOCK else None for one in chunks]
            chunks = [chunk if one is None else base_of(one, base) for one, chunk in zip(packed, chunks)]
            if base < self.size <= base + BLOCK and not any(self.tails):
                self.packed = packed
        for j, chunk in enumerate(chunks):
            if chunk is None or chunk.rows != base or self._has_null(j, chunk.decode(), 0):
                self._wrong("its values are not those of its sealed rows", j)
                self.sealed = [blank_rows(self.kernels, code, base) for code in self.codes]
                self._lose(0, base)
                return
            self._check_zone(j, chunk)
            buffer = chunk.decode()
            buffer.patch({row: value for row, value in self.updates[j].items() if row < base})
            self.sealed.append(buffer)

    def _chunk(self, j: int) -> Any:
        column, refs = self.table.column_list[j], self.chunks[j]
        try:
            data: Any = self.source.read(refs[0])
            if len(refs) > 1:
                check_parts(data, refs)
                data = b"".join([data, *map(self.source.read, refs[1:])])
            chunk = self.kernels.codecs.Chunk(data)
            if chunk.code != column.type.code or chunk.decode().rows != chunk.rows:
                raise ValueError(f"a chunk of dtype {chunk.code} with {chunk.rows} rows")
            if column.type.is_temporal:
                check_times(chunk.code, chunk.bounds())
        except _BAD as error:
            self._wrong(error, j)
            return None
        return chunk

    def _has_null(self, j: int, buffer: Any, start: int) -> bool:
        """Whether there is a null where none may be, updates aside."""
        if not self.table.schema.columns[j].not_null:
            return False
        if buffer.null_count:
            return True
        return any(value is None for row, value in self.updates[j].items() if start <= row < start + buffer.rows)

    def _check_zone(self, j: int, chunk: Any) -> None:
        if self.zones[j] is None or self.zones[j][0] != chunk.rows:
            self._wrong("the zone map is not that of its rows", j)
            return
        updates = {row: value for row, value in self.updates[j].items() if row < chunk.rows}
        for text in _zone(self.table, self.table.column_list[j], self.zones[j][1], chunk, updates):
            self._wrong(text, j)

    # -- the tail --------------------------------------------------------------
    def _read_tails(self) -> None:
        self.tail = [self.kernels.values.ColumnBuffer(code) for code in self.codes]
        for start in range(0, self.size - self.base, BLOCK):
            rows = min(BLOCK, self.size - self.base - start)
            found = [self._block(j, start, rows) for j in range(len(self.codes))]
            if any(one is None for one in found):
                if not all_deleted(self.deleted, self.base + start, rows):
                    self._wrong(f"its rows from {self.base + start} on are not there")
                    self._lose(self.base + start, rows)
                found = [blank_rows(self.kernels, code, rows) for code in self.codes]
            for j, (tail, buffer) in enumerate(zip(self.tail, found)):
                tail.extend(buffer)
                begin = self.base + start
                updates = {row - self.base: v for row, v in self.updates[j].items() if begin <= row < begin + rows}
                if updates:
                    tail.patch(updates)
        if any(self.tails):
            self._wrong("it has rows past its end")

    def _block(self, j: int, start: int, rows: int) -> Any:
        ref = self.tails[j].pop(start, None)
        if ref is None and self.packed[j] is None:
            return None
        code = self.codes[j]
        try:
            if ref is None:
                buffer = packed_tail(self.packed[j], self.base, self.size)
            else:
                buffer = self.kernels.values.unpack_column(self.source.read(ref), code)
            if buffer.rows != rows or self._has_null(j, buffer, self.base + start):
                raise ValueError(f"a piece of the tail has {buffer.rows} rows from {start} on, or nulls")
            if self.table.column_list[j].type.is_temporal and buffer.rows:
                data: Any = buffer.data
                check_times(code, (min(data), max(data)))
        except _BAD as error:
            self._wrong(error, j)
            return None
        return buffer

    def _lose(self, start: int, rows: int) -> None:
        self.lost.append((start, start + rows - 1))

    # -- what comes of it --------------------------------------------------------
    def dead(self) -> Optional[bytearray]:
        """The deleted rows, with those that are lost."""
        if not self.lost:
            return self.deleted
        found = bytearray(SEGMENT >> 3) if self.deleted is None else bytearray(self.deleted)
        for first, last in self.lost:
            for row in range(first, last + 1):
                found[row >> 3] |= 1 << (row & 7)
        return found

    def live(self) -> int:
        """How many rows are neither deleted nor lost."""
        dead = self.dead()
        return self.size if dead is None else self.size - int(self.kernels.mask.count(dead))

    def entry(self) -> Optional[Entry]:
        """An entry with new data; None where no row is live."""
        dead = self.dead()
        if all_deleted(dead, 0, self.size):
            return None
        parts: list[Any] = []
        zones: list[Any] = []
        for j in range(len(self.codes)):
            chunk, zone = self.kernels.codecs.encode(self.sealed[j], 0, self.base) if self.base else (None, None)
            parts.append((chunk, self.tail[j] if self.base < SEGMENT else None))
            zones.append(zone)
        nothing: list[Any] = [None] * len(self.codes)
        return pieces_of(self.kernels, self.codes, Segment(parts, zones, nothing, dead), None, {})[0]

    def extend(self, buffers: Sequence[Any], start: int) -> None:
        """Append the rows from ``start`` on, zeros where they are lost."""
        for j, buffer in enumerate(buffers):
            if start < self.base:
                buffer.extend(self.sealed[j], start, self.base)
            buffer.extend(self.tail[j], max(0, start - self.base), self.tail[j].rows)


def judge(table: ColumnarBase, source: Source, k: int, entry: Entry, rows: int) -> Judged:
    """The entry of segment k in a table of ``rows`` positions."""
    base = k * SEGMENT
    size = min(SEGMENT, rows - base)
    try:
        found = _Segment(table, source, k, entry, size)
    except _Whole as problem:
        return Judged(None, 0, [(base, base + size - 1)], str(problem))
    if found.intact:
        return Judged(entry, found.live(), [])
    return Judged(found.entry(), found.live(), [(base + a, base + b) for a, b in found.lost], found.reason)


def batch(
    table: ColumnarBase, source: Source, first: int, rows: int, stored: Iterable[tuple[int, Optional[Entry]]]
) -> Batch:
    """A batch of the log, of whose entries some are damaged."""
    entries = dict(stored)
    buffers = [table.kernels.values.ColumnBuffer(code) for code in table.codes]
    lost: list[Range] = []
    reason = ""
    for k in range(first // SEGMENT, -(-(first + rows) // SEGMENT)):
        base = k * SEGMENT
        start, size = max(first - base, 0), min(first + rows - base, SEGMENT)
        entry = entries.get(k)
        try:
            if entry is None:
                raise _Whole(f"segment {k} is missing")
            found = _Segment(table, source, k, entry, size)
        except _Whole as problem:
            reason = reason or str(problem)
            for code, buffer in zip(table.codes, buffers):
                buffer.extend(blank_rows(table.kernels, code, size - start))
            lost.append((base + start, base + size - 1))
            continue
        reason = reason or found.reason
        found.extend(buffers, start)
        lost += [(base + max(a, start), base + b) for a, b in found.lost if b >= start]
    return Batch(buffers, lost, reason)
