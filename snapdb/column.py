"""A column: sealed chunks, the tail of the open segment, and the overlays of updated rows.

``parts[k]`` is what segment k is made of, (sealed chunk or None, tail or None); the last segment is open and always
has a tail. Sealed bytes and tail rows never change: an update goes to ``overlays[k]``, a dict from in-segment row to
physical value, until the segment is sealed anew. A segment of a file may be an object that reads it at ``resolve()``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from . import _ext
from ._ext._common import BLOCK, BOOL, CODEC_NAMES, DATE, DATETIME, RAW, RUNS, SEGMENT, TAIL, TYPECODES, Zone, logical
from .columnar_patch import piece_chunks
from .dtypes import make_coerce, make_refuse
from .errors import ProgrammingError, SnapDBError
from .hints import Hints
from .kept import Kept
from .schema import ColumnDef
from .step import Call, assign, carry_out

if TYPE_CHECKING:
    from ._ext import Backend, Chunk, ColumnBuffer

__all__ = ["Column", "ColumnImage", "export_numpy", "numpy_dtype"]

#: a segment is sealed anew after updates of one in so many of its rows (2 %), and of no fewer than the second number
RESEAL_SHARE, RESEAL_LEAST = 50, 64
OVERDUE = 8  # a table in a file waits with the second segment until it had so many times as many updates
BLANK_SHARE = 4  # deleted rows are blanked where they are one in so many
SPARSE_SHARE = 8  # live rows are overlaid on a sealed part of nothing where they are one in so many
_OBJECT_BYTES = 300  # a chunk's or buffer's objects and its slots in lists, measured with tracemalloc


class Staged(NamedTuple):
    """The state of a column from segment ``k`` on after a write that is not published yet."""

    k: int
    parts: list[Any]
    zones: list[Optional[Zone]]
    patched: bool  # whether the overlay of segment k went into the new parts
    overlay: Optional[dict[int, Any]] = None  # of segment k in place of the one that did


class ColumnImage(NamedTuple):
    """A column as of some moment: its lists copied, everything in them shared. ``tail_rows``: rows of the tail then."""

    parts: list[Any]
    zones: list[Optional[Zone]]
    overlays: dict[int, dict[int, Any]]
    updates: dict[int, int]
    hints: Hints
    tail_rows: int


class Column:
    """One typed column in memory; values may be None.

    ``dtype`` is a type name such as ``"i32"``. Hints prefer an encoding and never change an answer: ``dict_encode``
    while there are at most ``dict_threshold`` distinct values, ``delta_encode`` (judged on ``delta_samples`` values)
    while values do not fall, ``for_encode`` (after ``for_threshold`` values) while they lie within 16 bits. Raises
    SchemaError for an unknown type.
    """

    def __init__(
        self,
        name: str,
        dtype: str,
        dict_encode: bool = False,
        dict_threshold: int = 256,
        delta_encode: bool = False,
        delta_samples: int = 50,
        for_encode: bool = False,
        for_threshold: int = 50,
    ) -> None:
        self._setup(
            ColumnDef(name, dtype, not_null=False),
            _ext.backend(_ext.BACKEND),
            (dict_encode, dict_threshold, delta_encode, delta_samples, for_encode, for_threshold),
        )

    @classmethod
    def owned(cls, definition: ColumnDef, kernels: Backend, hints: tuple[Any, ...]) -> Column:
        """A column of a table, which appends to it for all columns at once."""
        column = cls.__new__(cls)
        column._setup(definition, kernels, hints)
        column._is_owned = True
        return column

    def _setup(self, definition: ColumnDef, kernels: Backend, hints: tuple[Any, ...]) -> None:
        self.name = definition.name
        self.dtype = definition.type.name
        self.type = definition.type
        self.kernels = kernels
        self._hinted = hints
        self.hints = self.fresh_hints()
        self.parts: list[Any] = [(None, self.new_buffer())]
        self.zones: list[Optional[Zone]] = [None]
        self.overlays: dict[int, dict[int, Any]] = {}
        self.updates: dict[int, int] = {}  # segment -> updates since it was sealed, those of one row counted each time
        self.shared: set[int] = set()  # segments whose overlay an image has too
        self._is_owned = False
        spec = (self.name, self.type.code, self.type.limit, not definition.not_null)
        self._codec = kernels.values.RowCodec([spec], make_coerce([definition]), make_refuse([definition]))
        self._flat: Optional[tuple[Any, memoryview]] = None
        self.changes = 0  # one more with every write
        self.kept = Kept()  # aggregates of the table's rows

    # -- state, shared with the table --------------------------------------

    def new_buffer(self) -> ColumnBuffer:
        """An empty buffer of this column's type."""
        buffer: ColumnBuffer = self.kernels.values.ColumnBuffer(self.type.code)
        return buffer

    def fresh_hints(self) -> Hints:
        """The hints as they were given."""
        return Hints(self.type, *self._hinted)

    def part(self, k: int) -> Any:
        """What segment k is made of; where it is not read yet it is read now."""
        part = self.parts[k]
        while part is not None and type(part) is not tuple:
            part.resolve()
            part = self.parts[k]
        return part

    def staged(self, extra: Optional[ColumnBuffer], dead: Optional[bytearray] = None) -> Staged:
        """The column with ``extra`` appended and whole blocks folded in; nothing is changed yet. ``dead``: the bitmap
        of the open segment's deleted rows.
        """
        k = len(self.parts) - 1
        sealed, tail = self.part(k)
        base = 0 if sealed is None else sealed.rows
        more = 0 if extra is None else extra.rows
        if tail.rows + more < BLOCK and base + tail.rows + more < SEGMENT:
            joined = self.new_buffer()
            joined.extend(tail)
            if extra is not None:
                joined.extend(extra)
            return Staged(k, [(sealed, joined)], [self.zones[k]], False)
        parts: list[Any] = []
        zones: list[Optional[Zone]] = []
        used = 0
        overlay: Optional[dict[int, Any]] = None
        patched = base + tail.rows > 0
        if patched:
            work = self.open_rows(k)
            used = min(SEGMENT - work.rows, more)
            live = self._few((work.rows + used) // BLOCK * BLOCK, dead)
            if live is None:
                self._blank(work, dead)
            if extra is not None:
                work.extend(extra, 0, used)
            if live is not None:
                overlay = {row: work.physical(row) for row in live.tolist()}
                work = self._thinned(overlay, work, work.rows // BLOCK * BLOCK, dead)
            self._seal(work, 0, work.rows, parts, zones)
            zones[0] = _widened_all(zones[0], overlay)
        while extra is not None and used < more:
            stop = min(used + SEGMENT, more)
            self._seal(extra, used, stop, parts, zones)
            used = stop
        if parts[-1][1] is None:
            parts.append((None, self.new_buffer()))
            zones.append(None)
        return Staged(k, parts, zones, patched, overlay)

    def rebuilt(self, buffer: ColumnBuffer) -> Staged:
        """The column made of ``buffer`` alone, to be published in place of everything it has."""
        parts: list[Any] = []
        zones: list[Optional[Zone]] = []
        for start in range(0, buffer.rows, SEGMENT):
            self._seal(buffer, start, min(start + SEGMENT, buffer.rows), parts, zones)
        if not parts or parts[-1][1] is None:
            parts.append((None, self.new_buffer()))
            zones.append(None)
        return Staged(0, parts, zones, True)

    def open_rows(self, k: int) -> ColumnBuffer:
        """A decoded copy of segment k, updates applied."""
        sealed, tail = self.part(k)
        work = self.new_buffer() if sealed is None else sealed.decode()
        if tail is not None:
            work.extend(tail)
        work.patch(self.overlays.get(k, {}))
        return work

    def _seal(self, buffer: Any, start: int, stop: int, parts: list[Any], zones: list[Optional[Zone]]) -> None:
        """Add one segment made of rows ``start..stop``: whole blocks sealed, the rest as tail."""
        middle = start + (stop - start) // BLOCK * BLOCK
        chunk, zone = None, None
        if middle > start:
            chunk, zone = self.kernels.codecs.encode(buffer, start, middle, self.hints.prefer)
        tail = None
        if stop - start < SEGMENT:
            tail = self.new_buffer()
            tail.extend(buffer, middle, stop)
        parts.append((chunk, tail))
        zones.append(zone)

    def _blank(self, work: ColumnBuffer, dead: Optional[bytearray], start: int = 0) -> None:
        """Give deleted rows from ``start`` on, where they are many, the value of one live row (zero where none is):
        nobody reads them, and equal values take no room.
        """
        kernel = self.kernels.mask
        if dead is None or kernel.count(dead) * BLANK_SHARE < work.rows:
            return
        mask = kernel.full(work.rows)
        kernel.and_into(mask, memoryview(dead)[: len(mask)])
        gone = [row for row in kernel.ids(mask) if row >= start] if start else kernel.ids(mask).tolist()
        if len(gone) * BLANK_SHARE < work.rows - start:
            return
        live = kernel.ids(self._live(work.rows, dead))
        work.patch(dict.fromkeys(gone, work.physical(int(live[0])) if len(live) else self._zero()))

    def _live(self, rows: int, dead: bytearray) -> bytearray:
        """The bitmap of the first ``rows`` rows that are not deleted."""
        live: bytearray = self.kernels.mask.full(rows)
        self.kernels.mask.andnot_into(live, memoryview(dead)[: len(live)])
        return live

    def _zero(self) -> Any:
        return b"" if self.type.is_varlen else (0.0 if self.type.is_float else 0)

    def _few(self, rows: int, dead: Optional[bytearray]) -> Optional[memoryview]:
        """The live ones of the first ``rows`` rows where they are few, to be overlaid: all these rows are equal then
        and take no room. None where they are not.
        """
        if dead is None or not rows:
            return None
        live = self._live(rows, dead)
        if self.kernels.mask.count(live) * SPARSE_SHARE > rows:
            return None
        found: memoryview = self.kernels.mask.ids(live)
        return found

    def _thinned(self, apart: dict[int, Any], work: ColumnBuffer, rows: int, dead: Optional[bytearray]) -> ColumnBuffer:
        """So many equal rows, and behind them those of ``work``."""
        thin = self._equal(apart, rows)
        thin.extend(work, rows)
        self._blank(thin, dead, rows)
        return thin

    def _equal(self, apart: dict[int, Any], rows: int) -> ColumnBuffer:
        """So many rows of one value, that of a row that is apart."""
        found = self.new_buffer()
        found.append(next(iter(apart.values()), self._zero()))
        while found.rows < rows:
            more = self.new_buffer()
            more.extend(found)
            found.extend(more, 0, min(more.rows, rows - more.rows))
        return found

    def publication(self, staged: Staged) -> list[Call]:
        """The calls that make a staged state the column's own, for one step. Whoever looks in between sees the values
        that the rows have.
        """
        found = [
            *self._covering(staged.k, staged.overlay),
            assign(self.parts, slice(staged.k, None), staged.parts),
            assign(self.zones, slice(staged.k, None), staged.zones),
        ]
        if staged.patched:
            kept = [staged.k] if staged.overlay else []
            found += [partial(self.overlays.pop, k) for k in self.overlays if k >= staged.k and k not in kept]
            found += [partial(self.updates.pop, k) for k in self.updates if k >= staged.k]
            if staged.overlay:
                found.append(assign(self.overlays, staged.k, staged.overlay))
        # the table never has fewer segments by this, so all but the open one are what they were
        return found + (self.forgetting(staged.k) if staged.k + 1 == len(self.parts) else self.forgetting())

    def _covering(self, k: int, apart: Optional[dict[int, Any]]) -> list[Call]:
        """The calls that overlay the rows that the next parts of segment k have no values of, while it still has its
        parts: they read the same, and its zone map stays true.
        """
        if not apart:
            return []
        zone = self.zones[k]
        wide: list[Call] = [] if zone is None else [assign(self.zones, k, zone._replace(exact=False, total=None))]
        return [*wide, assign(self.overlays, k, {**self.overlays.get(k, {}), **apart})]

    def forgetting(self, k: Optional[int] = None) -> list[Call]:
        """Drop what was made of the rows before this write: the flat copy (who holds it keeps it), and of aggregates
        what is known of segment k (None: of all).
        """
        known = self.kept.forgetting(k)
        return [partial(setattr, self, "changes", self.changes + 1), partial(setattr, self, "_flat", None), *known]

    def overlaying(self, k: int, overlay: Optional[dict[int, Any]], updates: Optional[int] = None) -> list[Call]:
        """The calls that make ``overlay`` the updates of segment k, for one step; ``updates`` counts those of one row
        each time, None: as many as there are rows.
        """
        count = len(overlay or ()) if updates is None else updates
        return [
            partial(self.overlays.pop, k, None) if overlay is None else assign(self.overlays, k, overlay),
            assign(self.updates, k, count) if count else partial(self.updates.pop, k, None),
        ]

    def image(self) -> ColumnImage:
        """The column as it is now. Overlays are the column's own again when ``own`` was called."""
        self.shared.update(self.overlays)
        _, tail = self.part(len(self.parts) - 1)
        hints = self.hints.copy()
        return ColumnImage(
            list(self.parts), list(self.zones), dict(self.overlays), dict(self.updates), hints, int(tail.rows)
        )

    def becoming(self, image: ColumnImage) -> list[Call]:
        """The calls that make the column what an image shows, for one step. The image stays as it is."""
        parts = list(image.parts)
        sealed, tail = parts[-1]
        fresh = self.new_buffer()  # rows may have been appended to the other one, and will be to this
        fresh.extend(tail, 0, image.tail_rows)
        parts[-1] = (sealed, fresh)
        return [
            assign(self.parts, slice(None), parts),
            assign(self.zones, slice(None), list(image.zones)),
            partial(self.overlays.clear),
            partial(self.overlays.update, image.overlays),
            partial(setattr, self, "updates", dict(image.updates)),
            partial(setattr, self, "hints", image.hints.copy()),
            partial(setattr, self, "shared", set(image.overlays)),
            *self.forgetting(),
        ]

    def adopting(
        self, parts: list[Any], zones: list[Optional[Zone]], overlay: Optional[dict[int, Any]], hints: Hints
    ) -> list[Call]:
        """The calls that make the column one of these parts, the last of which is overlaid, for one step."""
        overlays = {} if overlay is None else {len(parts) - 1: overlay}
        return [
            assign(self.parts, slice(None), parts),
            assign(self.zones, slice(None), zones),
            partial(self.overlays.clear),
            partial(self.overlays.update, overlays),
            partial(setattr, self, "updates", {k: len(found) for k, found in overlays.items()}),
            partial(setattr, self, "hints", hints),
            partial(setattr, self, "shared", set()),
            *self.forgetting(),
        ]

    def own(self, k: int) -> None:
        """Have the updates of segment k to oneself, before one is added."""
        if k in self.shared:
            overlay = self.overlay_copy(k)
            if overlay is not None:
                self.overlays[k] = overlay
            self.shared.discard(k)

    def overlay_copy(self, k: int) -> Optional[dict[int, Any]]:
        """The updates of segment k as they are now, None where there are none."""
        overlay = self.overlays.get(k)
        return None if overlay is None else dict(overlay)

    def restore_overlay(self, k: int, overlay: Optional[dict[int, Any]]) -> None:
        """Take back updates of segment k to what ``overlay_copy`` gave."""
        if overlay is None:
            self.overlays.pop(k, None)
        else:
            self.overlays[k] = overlay
        carry_out((), self.forgetting(k))

    def widen(self, k: int, row: int, value: Any) -> None:
        """Make zone map and hints true of ``value`` too, before row ``row`` of segment k is overlaid with it."""
        zone = self.zones[k]
        if zone is not None:
            lo: Any = zone[0]
            hi: Any = zone[1]
            # within bounds that were given up already: nothing to do; NaN lies within none
            if zone[2] or zone[5] is not None or value is None or lo is None or hi is None or not lo <= value <= hi:
                self.zones[k] = _widened(zone, value)
        if self.hints.given and self.hints.alive:
            self._look()
            at = k * SEGMENT + row
            before = self._physical(at - 1) if at else None
            after = self._physical(at + 1) if at + 1 < len(self) else None
            self.hints.changed(value, before, after, at + 1 == len(self))
        self.updates[k] = self.updates.get(k, 0) + 1
        self.changes += 1
        self._flat = None
        kept = self.kept
        if kept.closed or kept.parts:
            kept.forget(k)

    def wants_reseal(self, k: int, times: int = 1) -> bool:
        """Whether segment k had so many updates, or ``times`` as many, that it should be sealed anew."""
        updates = self.updates.get(k, 0)
        if updates < RESEAL_LEAST:
            return False
        sealed, tail = self.part(k)
        rows = (0 if sealed is None else sealed.rows) + (0 if tail is None else tail.rows)
        return bool(updates * RESEAL_SHARE > rows * times)

    def reseal(self, k: int, dead: Optional[bytearray] = None) -> None:
        """Seal the sealed part of segment k anew with its updates; updates of tail rows stay overlaid. ``dead``: the
        bitmap of its deleted rows.
        """
        sealed, tail = self.part(k)
        if sealed is None:
            self.updates[k] = 0
            return
        overlay = self.overlays.get(k, {})
        live = self._few(sealed.rows, dead)
        apart: dict[int, Any] = {}
        if live is None:
            work = sealed.decode()
            work.patch({row: value for row, value in overlay.items() if row < sealed.rows})
            self._blank(work, dead)
        else:
            apart = dict(zip(live.tolist(), map(sealed.gather(live).physical, range(len(live)))))
            apart.update({row: overlay[row] for row in overlay.keys() & apart.keys()})
            work = self._equal(apart, sealed.rows)
        chunk, zone = self.kernels.codecs.encode(work, 0, work.rows, self.hints.prefer)
        zone = _widened_all(zone, apart)
        rest = {row: value for row, value in overlay.items() if row >= sealed.rows}
        rest.update(apart)
        changed = assign(self.overlays, k, rest) if rest else partial(self.overlays.pop, k, None)
        fresh = assign(self.updates, k, 0)
        # what needs memory stands first: where it fails there, nothing that is read has changed
        first = [*self._covering(k, apart), fresh]
        carry_out(first, [assign(self.parts, k, (chunk, tail)), assign(self.zones, k, zone), changed])

    def dropping(self, k: int) -> list[Call]:
        """The calls that give back the space of a segment without a live row, for one step."""
        gone: list[Call] = [assign(self.parts, k, None), assign(self.zones, k, None)]
        forgotten: list[Call] = [partial(self.overlays.pop, k, None), partial(self.updates.pop, k, None)]
        return [*gone, *forgotten, *self.forgetting(k)]

    def release(self, gone: Any, count: int) -> None:
        """Let go of every row: so many segments are ``gone``."""
        self.parts[:] = [gone] * count
        self.zones[:] = [None] * count
        self.overlays.clear()
        self.updates.clear()
        self.shared.clear()
        self._flat = None
        self.kept = Kept()

    # -- sequence ----------------------------------------------------------

    def append(self, value: Any) -> None:
        """Append one value, None for a null. ValueError names the column and the value and leaves nothing behind."""
        if self._is_owned:
            raise ProgrammingError(f"column {self.name!r} belongs to a table: insert rows into the table")
        physical = self._codec.encode_value(0, value)
        tail = self.parts[-1][1]
        tail.append(physical)
        sealed = self.parts[-1][0]
        base = 0 if sealed is None else sealed.rows
        if tail.rows >= TAIL or base + tail.rows >= SEGMENT:
            self._fold()

    def _fold(self) -> None:
        carry_out((), self.publication(self.staged(None)))

    def __len__(self) -> int:
        part = self.parts[-1]
        sealed, tail = part if type(part) is tuple else (part, part.tail)  # not read yet: it knows how many it has
        return (len(self.parts) - 1) * SEGMENT + (0 if sealed is None else sealed.rows) + int(tail.rows)

    def __getitem__(self, index: int) -> Any:
        return logical(self.type.code, self._physical(self._position(index)))

    def __setitem__(self, index: int, value: Any) -> None:
        if self._is_owned:
            raise ProgrammingError(f"column {self.name!r} belongs to a table: update rows of the table")
        at = self._position(index)
        physical = self._codec.encode_value(0, value)
        k, row = at >> 16, at & (SEGMENT - 1)
        self.widen(k, row, physical)
        self.overlays.setdefault(k, {})[row] = physical
        if self.wants_reseal(k):
            if k == len(self.parts) - 1 and self.parts[k][1].rows >= BLOCK:
                self._fold()
            else:
                self.reseal(k)

    def _position(self, index: int) -> int:
        size = len(self)
        at = index + size if index < 0 else index
        if not 0 <= at < size:
            raise IndexError(f"column {self.name!r} has {size} rows, there is no row {index}")
        return at

    def _physical(self, at: int) -> Any:
        k, row = at >> 16, at & (SEGMENT - 1)
        part = self.part(k)
        overlay = self.overlays.get(k)
        if overlay is not None and row in overlay:
            return overlay[row]
        if part is None:
            return None
        sealed, tail = part
        base = 0 if sealed is None else sealed.rows
        return sealed.physical(row) if row < base else tail.physical(row - base)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        try:
            return f"Column({self.name!r}, {self.dtype!r}, rows={len(self)}, encoding={self.encoding!r})"
        except SnapDBError as error:  # the table is closed, or its file damaged
            return f"Column({self.name!r}, {self.dtype!r}, {type(error).__name__})"

    def _repr_html_(self) -> str:
        """The first values, for notebooks."""
        from .html_table import SHOWN, html_of, html_table  # notebooks alone ask

        def table() -> str:
            values = ((row, [self[row]]) for row in range(min(len(self), SHOWN)))
            return html_table(repr(self), [(self.name, self.dtype)], values, len(self))

        return html_of(self, table)

    def tolist(self) -> list[Any]:
        """Every value in row order, None for nulls."""
        out: list[Any] = []
        for chunk in self._chunks():
            out.extend(chunk.take())
        return out

    def iter_valid(self) -> Iterator[tuple[int, Any]]:
        """(row, value) of the rows that are not null."""
        return ((row, value) for row, value in enumerate(self.tolist()) if value is not None)

    def count_valid(self) -> int:
        """Rows that are not null."""
        return sum(chunk.count() for chunk in self._chunks())

    def null_mask(self) -> list[bool]:
        """One bool a row, True for a null."""
        return [value is None for value in self.tolist()]

    def unique_count(self) -> int:
        """Distinct non-null values; NaN counts once."""
        seen: set[Any] = set()
        for chunk in self._chunks():
            _, first = chunk.group()
            seen.update("nan" if value != value else value for value in chunk.take(first))
        return len(seen - {None})

    def _chunks(self) -> Iterator[Chunk]:
        """Every row as chunks, updates applied; rows of a dropped segment are null."""
        for k in range(len(self.parts)):
            part = self.part(k)
            yield from piece_chunks(self, part, self.overlays.get(k), None)

    # -- encoding ----------------------------------------------------------

    def _look(self) -> None:
        """Let the hints take in the rows they have not seen."""
        hints = self.hints
        while hints.alive and hints.seen < len(self):
            k, row = hints.seen >> 16, hints.seen & (SEGMENT - 1)
            part = self.part(k)
            if part is None:
                hints.seen = (k + 1) * SEGMENT
                continue
            sealed, tail = part
            base = 0 if sealed is None else sealed.rows
            chunk_of = self.kernels.codecs.Chunk.view
            if row == 0 and base:
                hints.look(self.kernels, sealed)
            elif row < base:
                hints.look(self.kernels, chunk_of(_rest(sealed.decode(), row)))
            else:
                hints.look(self.kernels, chunk_of(_rest(tail, row - base)))

    @property
    def hint(self) -> Optional[str]:
        """The hint in force (``"dict"``, ``"delta"`` or ``"for"``), None where there is none."""
        if self.hints.alive:
            self._look()
        return self.hints.in_force

    @property
    def encoding(self) -> str:
        """The encoding of most rows; a hint in force shows its own name. Of a file, of the rows that are read."""
        hint = self.hint
        if hint is not None:
            return hint
        weights: dict[str, int] = {}
        for part in self._read_parts():
            if part[0] is not None:
                name = self._codec_name(part[0])
                weights[name] = weights.get(name, 0) + part[0].rows
        if not weights:
            return self._raw_name()
        return max(weights, key=lambda name: weights[name])

    def _read_parts(self) -> list[Any]:
        """The segments whose values are in memory, at least one where there is one."""
        found = [part for part in self.parts if type(part) is tuple]
        if len(found) < len(self.parts) and all(part[0] is None for part in found):
            read = map(self.part, range(len(self.parts)))
            found = [next((part for part in read if part is not None and part[0] is not None), (None, None))]
        return found

    @property
    def encodings(self) -> list[str]:
        """The encoding of each segment; a segment that is only a tail shows its raw form."""
        return [
            self._raw_name() if part is None or part[0] is None else self._codec_name(part[0])
            for part in map(self.part, range(len(self.parts)))
            if part is None or part[0] is not None or part[1].rows
        ]

    def encodings_read(self) -> dict[str, int]:
        """How many segments have each encoding, of those whose values are in memory; tails alone count as raw."""
        counts: dict[str, int] = {}
        for chunk, tail in (part for part in self.parts if type(part) is tuple):
            if chunk is not None or tail.rows:
                name = self._raw_name() if chunk is None else self._codec_name(chunk)
                counts[name] = counts.get(name, 0) + 1
        return counts

    def _codec_name(self, chunk: Chunk) -> str:
        if chunk.layout == RUNS:
            return "rle"
        return self._raw_name() if chunk.codec == RAW else CODEC_NAMES[chunk.codec]

    def _raw_name(self) -> str:
        if self.type.code == BOOL:
            return "bool"
        return "str" if self.type.is_varlen else "raw"

    # -- memory and export -------------------------------------------------

    def memory_usage(self) -> int:
        """Bytes held by this column; what is not read yet holds none."""
        total = sys.getsizeof(self.parts) + sys.getsizeof(self.zones)
        for part in self.parts:
            for piece in part if type(part) is tuple else ():
                total += 0 if piece is None else self.piece_bytes(piece)
        for overlay in self.overlays.values():
            total += self.overlay_bytes(overlay)
        if self._flat is not None:
            total += self._flat[1].nbytes
        return total

    @staticmethod
    def piece_bytes(piece: Any) -> int:
        """Bytes held by a chunk or a tail."""
        return int(piece.nbytes) + _OBJECT_BYTES

    @staticmethod
    def overlay_bytes(overlay: dict[int, Any]) -> int:
        """Bytes held by the updates of a segment."""
        return sys.getsizeof(overlay) + sum(64 + sys.getsizeof(value) for value in list(overlay.values()))

    def flat(self, deleted: Optional[list[Any]] = None, changes: int = 0) -> memoryview:
        """Every row as one contiguous read-only typed buffer; null and deleted rows hold 0 (floats: NaN).

        Decoded once and kept until the next write. TypeError for text, and where a hint is in force.
        """
        if self.type.is_varlen:
            raise TypeError(f"column {self.name!r} is {self.dtype}: it has no contiguous buffer, use to_numpy()")
        if self.hint is not None:
            raise TypeError(f"column {self.name!r} is {self.hint}-encoded by a hint: it has no contiguous buffer")
        version = (len(self), self.changes, changes)
        if self._flat is not None and self._flat[0] == version:
            return self._flat[1]
        view: memoryview = self._decoded(version[0], deleted)
        self._flat = (version, view)
        return view

    def _decoded(self, rows: int, deleted: Optional[list[Any]]) -> Any:
        out: Any = array(TYPECODES[self.type.code])
        for chunk in self._chunks():
            buffer = chunk.decode()
            if buffer.null_count and self.type.is_float:
                for row in range(buffer.rows):
                    if buffer.physical(row) is None:
                        buffer.put(row, float("nan"))
            out.frombytes(bytes(buffer.data))
        del out[rows:]
        for k, dead in enumerate(deleted or ()):
            for row in () if dead is None else self.kernels.mask.ids(dead):
                out[k * SEGMENT + row] = float("nan") if self.type.is_float else 0
        if self.type.code == BOOL:
            return memoryview(bytes(out)).cast("?")
        return memoryview(out).toreadonly()

    def buffer(self) -> memoryview:
        """The column as one contiguous read-only buffer; see ``flat``. TypeError for text and under a hint."""
        return self.flat()

    def __buffer__(self, flags: int) -> memoryview:
        return self.flat()

    def to_numpy(self, zero_copy: bool = False) -> Any:
        """A NumPy array: the column's dtype where nothing is null, else ``object`` with None; text is ``object``.

        An owned, writable copy; ``zero_copy=True`` gives a read-only view of ``buffer()`` where nothing is null.
        ImportError without NumPy.
        """
        return export_numpy(self, zero_copy)


def export_numpy(column: Column, zero_copy: bool, deleted: Optional[list[Any]] = None, changes: int = 0) -> Any:
    """``Column.to_numpy``, with a table's deleted rows as nulls."""
    np = numpy()
    gone = any(dead is not None for dead in deleted or ())
    if column.type.is_varlen or gone or column.count_valid() < len(column):
        values = column.tolist()
        for k, dead in enumerate(deleted or ()):
            for row in () if dead is None else column.kernels.mask.ids(dead):
                values[k * SEGMENT + row] = None
        out = np.empty(len(values), dtype=object)
        out[:] = values
        return out
    if column.hint is not None or not zero_copy:
        data: Any = column._decoded(len(column), None)
    else:
        data = column.flat(deleted, changes)
    array_view = np.frombuffer(data, dtype=numpy_dtype(column.type.code))
    if column.type.code == DATE:
        return array_view.astype("M8[D]")  # NumPy has no 32-bit dates
    return array_view if zero_copy and column.hint is None else array_view.copy()


def numpy() -> Any:
    """The NumPy module; ImportError with what to do where it is missing."""
    try:
        import numpy as module
    except ImportError as error:
        raise ImportError("to_numpy() needs NumPy, which is not installed: pip install numpy") from error
    return module


def numpy_dtype(code: int) -> str:
    """The NumPy dtype of a column's contiguous buffer (dates: their 32-bit days)."""
    if code == BOOL:
        return "?"
    if code == DATE:
        return "i4"
    if code == DATETIME:
        return "M8[us]"
    kind = TYPECODES[code]
    letter = "f" if kind in "fd" else ("u" if kind.isupper() else "i")
    return f"{letter}{array(kind).itemsize}"


def _rest(buffer: Any, start: int) -> Any:
    """Rows of a buffer from ``start`` on."""
    if start == 0:
        return buffer
    rest = type(buffer)(buffer.code)
    rest.extend(buffer, start)
    return rest


def _widened(zone: Zone, value: Any) -> Zone:
    """A zone map that also covers ``value``: no longer exact, its sum stale."""
    if value is None:
        return zone._replace(exact=False, nulls=zone.nulls + 1, total=None)
    if value != value:
        return zone._replace(exact=False, nans=zone.nans + 1, total=None)
    lo: Any = zone.lo
    hi: Any = zone.hi
    if lo is None or lo != lo:
        return Zone(value, value, False, zone.nulls, zone.nans, None)
    return Zone(min(lo, value), None if hi is None else max(hi, value), False, zone.nulls, zone.nans, None)


def _widened_all(zone: Any, overlay: Optional[dict[int, Any]]) -> Any:
    """A zone map that also covers the values of an overlay."""
    if not overlay:
        return zone
    known = [value for value in overlay.values() if value is not None]
    values = [value for value in known if value == value]
    for value in (min(values), max(values)) if values else ():
        zone = _widened(zone, value)
    nulls, nans = zone.nulls + len(overlay) - len(known), zone.nans + len(known) - len(values)
    return zone._replace(exact=False, nulls=nulls, nans=nans, total=None)
