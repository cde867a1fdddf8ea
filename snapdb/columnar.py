"""The columnar engine: columns of sealed segments with a raw tail, deleted rows as bitmaps, updates as overlays.

Row position is row id. Sealed chunks and tail rows never change in place; whatever does (overlays, bitmaps of deleted
rows) is replaced or copied, so a view needs only references to see the table as of its start.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Callable, Optional, Union

from . import _ext
from . import columnar_bulk as bulk
from . import columnar_check as check
from . import columnar_image as images
from ._ext._common import BLOCK, SEGMENT, TAIL
from .absent import Absent
from .aggregate import aggregate, check_aggregate, column_index
from .column import BLANK_SHARE, OVERDUE, RESEAL_LEAST, RESEAL_SHARE, Column, export_numpy
from .column import Staged as ColumnStaged
from .columnar_base import ColumnarBase
from .columnar_file import Record, all_deleted, halves, pieces_of
from .columnar_image import ColumnarImage
from .columnar_undo import Undo
from .columnar_view import ColumnarView, swept_sum
from .differing import Difference, Stored
from .errors import ClosedError, CorruptionError, DurabilityError, InternalError
from .hints import Hints
from .pieces import Bulk, Entry, Source
from .scan import live_buffers, make_where, name_list, pick, read_by
from .schema import ColumnDef, Schema
from .segments import SegmentFile, Unread, counters
from .step import Call, Half, assign, calls, carry_out, insist, run
from .summary import answer
from .table import COUNT_HINT, Change, Staged

__all__ = ["Column", "ColumnarTable", "ColumnarView"]

MOST_NOTED = 4096  # changes of which a file notes every row
REFUSED = 64  # segments of a closed table, at least: where ids that it never had are refused too


class ColumnarTable(ColumnarBase):
    """A columnar table in memory, no file. ``schema`` is a list of ``(name, dtype)``; every column is nullable.

    ``dict_columns``, ``delta_columns`` and ``for_columns`` name columns that should prefer an encoding (see
    ``Column``). Raises SchemaError for a bad schema and UnknownColumnError for a hint on a column that is not there.

    A ``Schema`` may be given too, and its ``not_null`` holds. Its ``unique`` and ``primary_key`` are not enforced
    here: keys are SnapDB's business, which checks them before it writes to this table.
    """

    storage_type = "columnar"
    scanned = 8192

    def __init__(
        self,
        name: str,
        schema: Union[Schema, Iterable[Any]],
        dict_columns: Optional[Iterable[str]] = None,
        dict_threshold: int = 256,
        delta_columns: Optional[Iterable[str]] = None,
        for_columns: Optional[Iterable[str]] = None,
        for_threshold: int = 50,
        *,
        backend: Optional[str] = None,
    ) -> None:
        if not isinstance(schema, Schema):
            declared = Schema(schema)  # refuses what is no list of pairs
            schema = Schema([ColumnDef(c.name, c.dtype, not_null=False) for c in declared])
        super().__init__(schema, _ext.backend(backend or _ext.BACKEND))
        self.name = name
        options = (("dict_columns", dict_columns), ("delta_columns", delta_columns), ("for_columns", for_columns))
        hinted = [set(() if names is None else name_list(option, names)) for option, names in options]
        for names in hinted:
            for hint in names:
                schema.index(hint)
        self.column_list = [
            Column.owned(
                definition,
                self.kernels,
                (
                    definition.name in hinted[0], dict_threshold, definition.name in hinted[1], 50,
                    definition.name in hinted[2], for_threshold,
                ),
            )
            for definition in schema.columns
        ]  # fmt: skip
        self.codes = [column.type.code for column in self.column_list]
        self.columns: dict[str, Column] = {column.name: column for column in self.column_list}
        self.deleted = [None]
        self.deleted_rows = 0
        self.deletions = 0
        self._has_resealed = False  # since the last checkpoint of a table in a file
        self._blanked: dict[int, int] = {}  # segment -> its deleted rows when it was last sealed without their values
        self._file: Optional[SegmentFile] = None
        self._undo: Optional[Undo] = None
        self._torn = Absent(f"memory ran out in the middle of a change of table {name!r}", DurabilityError)
        self.port = self.kernels.tail.RowPort(
            self.codec,
            [column.parts for column in self.column_list],
            [column.overlays for column in self.column_list],
            self.deleted,
            self.lock,
            self._insert_slowly,
            self._tail_full,
        )
        self.port.limit = TAIL
        self.get: Callable[[int], Optional[dict[str, Any]]] = self.port.get  # type: ignore[assignment]
        self.contains: Callable[[int], bool] = self.port.contains  # type: ignore[assignment]

    # -- writes ------------------------------------------------------------

    def insert(self, row: Mapping[str, Any]) -> int:
        """Append one row; returns its id."""
        try:
            idx: int = self.port.insert(row)
            return idx
        except Half:
            self._tear()
            raise

    def _insert_slowly(self, row: Mapping[str, Any]) -> int:
        """An insert that met a write of more than one step, or a full tail: wait for its turn."""
        with self.writing():
            self.make_room()
            self._touch_tail()
            idx: int = self.port.append(row)
            return idx

    def append_values(self, values: Sequence[Any], first: Sequence[Call] = ()) -> None:
        with self.writing():
            self.make_room()
            self._touch_tail()
            try:
                run(calls([*first, partial(self.port.append_values, values)]))
            except Half:
                self._tear()
                raise

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append rows, all or none; returns the first one's id."""
        return self.extend(self.stage(rows))

    def insert_columns(self, columns: Mapping[str, Any]) -> int:
        """Append whole columns of equal length, all or none; returns the number of rows."""
        staged = self.stage_columns(columns)
        self.extend(staged)
        return staged.rows

    def extend(self, staged: Staged, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        with self.writing():
            start: int = self.port.rows
            if staged.rows:
                states = [c.staged(b, self.deleted[-1]) for c, b in zip(self.column_list, staged.buffers)]
                self.touch_open(states)
                published = self.publication(states, start + staged.rows, len(self.deleted))
                self._step(first, [*published, *then])
            return start

    def publication(self, states: list[ColumnStaged], rows: int, known: int) -> list[Call]:
        k, parts = states[0].k, states[0].parts
        return [
            partial(self.deleted.extend, [None] * (k + len(parts) - known)),
            *[call for column, state in zip(self.column_list, states) for call in column.publication(state)],
            partial(setattr, self.port, "rows", rows),
            partial(setattr, self.port, "limit", _limit(parts[-1])),
        ]

    def _fold(self) -> None:
        """Fold the tail into the sealed part of the open segment."""
        with self.writing():
            states = [column.staged(None, self.deleted[-1]) for column in self.column_list]
            self.touch_open(states)
            self._step((), self.publication(states, self.port.rows, len(self.deleted)))

    def _tail_full(self) -> None:
        with self.lock:
            try:
                self.make_room()
            except Half:
                raise
            except MemoryError:
                # the row is in and stays in; the next insert finds a full tail, takes the slow way and folds first
                self._warn("no memory to fold the tail of table %r, trying again at the next insert")
            except ClosedError:
                pass  # closed while this thread waited: the row is in what was closed

    def make_room(self) -> None:
        _, tail = halves(self.column_list[0].parts[-1])
        if tail.rows >= self.port.limit:
            self._fold()

    def writing(self) -> AbstractContextManager[Any]:
        alone: AbstractContextManager[Any] = self.kernels.tail.Alone(self.lock, self.port)
        return alone

    def _warn(self, message: str) -> None:
        try:
            import logging  # not at the top: it would be a third of the cost of importing SnapDB

            logging.getLogger("snapdb").warning(message, self.name)
        except MemoryError:
            pass  # what is done is done

    def _step(self, first: Sequence[Call], then: Sequence[Call], *items: Any) -> None:
        """``carry_out``; where there is no memory to go to its end nor back, nothing is told of the table any more."""
        try:
            carry_out(first, then, *items)
        except Half:
            self._tear()
            raise

    def _tear(self) -> None:
        """The table is changed in part: from here on it refuses every call."""
        with self.lock:
            try:
                insist(partial(self.release, self._torn))
            except Half:  # in place, which takes no memory
                for column in self.column_list:
                    for k in range(len(column.parts)):
                        column.parts[k] = self._torn
            torn: Any = self._torn
            self._file = self.deleted_rows = torn

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError where there is none."""
        with self.lock:
            if self._file is not None or self._undo is not None:
                self.apply([self.plan_update(idx, row)])
                return
            if not self.contains(idx):
                raise self.missing(idx)
            values = self.codec.encode_partial(row)
            # reading the row may have run code that deleted this one: what follows looks again
            self._overlay(idx, values)

    def _overlay(self, idx: int, values: Sequence[tuple[int, Any]]) -> None:
        """``apply`` of one change, where nobody takes note of it."""
        k, row = idx >> 16, idx & (SEGMENT - 1)
        most = 0
        for j, value in values:
            column = self.column_list[j]
            if column.shared:
                column.own(k)
            column.widen(k, row, value)  # before: a zone map that is too wide is still true
            most = max(most, column.updates[k])
        try:
            self.port.amend(idx, values)
        except KeyError:
            raise self.missing(idx) from None
        if most >= RESEAL_LEAST and most * RESEAL_SHARE > self.segment_rows(k):
            try:
                self._afterwards(self._reseal, [(j, k) for j, _ in values], "update")
            except Half:
                raise
            except MemoryError:
                pass  # there is none to call it, nor to say so

    def apply(self, changes: Iterable[Change], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        with self.lock:
            changes = list(changes)
            self.check_live(change.idx for change in changes)  # before ``first``: what can fail does so here
            touched = self._touched(changes)
            self._touch_all(touched)
            for j, k in touched:
                self.column_list[j].own(k)
            # one change is one step of the kernel; several are taken back together
            before = [(j, k, self.column_list[j].overlay_copy(k)) for j, k in touched] if len(changes) > 1 else []
            for idx, values in changes:
                for j, value in values:  # zone maps first: one that is too wide is still true
                    self.column_list[j].widen(idx >> 16, idx & (SEGMENT - 1), value)
            done = [False]
            try:
                try:
                    carry_out(first, [*then, assign(done, 0, True)], self.port.amend, changes, True)
                except BaseException:
                    for j, k, overlay in () if done[0] else before:
                        insist(partial(self.column_list[j].restore_overlay, k, overlay))
                    raise
            except Half:
                self._tear()
                raise
            try:
                self._afterwards(self._reseal, touched, "update")
            except Half:
                raise
            except MemoryError:
                pass  # there is none to call it, nor to say so

    def _afterwards(self, work: Callable[[Any], None], what: Any, next_time: str) -> None:
        """Seal anew after a write that is done and stays: no memory is no error, but for a table left in between."""
        try:
            work(what)
        except Half as error:
            try:
                self._tear()
            finally:
                raise error
        except MemoryError:
            self._warn(f"no memory to seal table %r anew, trying again at the next {next_time}")

    def _reseal(self, touched: Iterable[tuple[int, int]]) -> None:
        """Seal anew the segments that have many updated rows."""
        worn = [(j, k) for j, k in touched if self.column_list[j].wants_reseal(k)]
        worn.sort(key=lambda place: (-self.column_list[place[0]].updates[place[1]], place))
        for j, k in worn:
            column = self.column_list[j]
            if self._has_resealed and not column.wants_reseal(k, OVERDUE):
                continue  # one between two checkpoints: a file need not have room for two states of everything
            self._has_resealed = self._file is not None
            if k == len(column.parts) - 1 and column.part(k)[1].rows >= BLOCK:
                self._fold()  # the updated rows of a long tail go with it; it is the tail of every column
            elif column.wants_reseal(k):
                column.reseal(k, self.deleted[k])

    def delete(self, idx: int) -> None:
        """Delete a live row; KeyError where there is none."""
        with self.lock:
            if not self.contains(idx):
                raise self.missing(idx)
            self.remove([idx])

    def remove(self, ids: Iterable[int], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        with self.lock:
            self.make_room()  # an open segment that is full must not be dropped
            by_segment: dict[int, list[int]] = {}
            for idx in ids:
                by_segment.setdefault(idx >> 16, []).append(idx & (SEGMENT - 1))
            for k in by_segment:
                self._touch(k)
            removals = [self._removal(k, rows) for k, rows in by_segment.items()]
            counts = [
                partial(setattr, self, "deleted_rows", self.deleted_rows + sum(gone for gone, _ in removals)),
                partial(setattr, self, "deletions", self.deletions + 1),
            ]
            self._step(first, [*[call for _, found in removals for call in found], *counts, *then])
            try:
                self._afterwards(self._reseal_dead, by_segment, "deletion")
            except Half:
                raise
            except MemoryError:
                pass  # there is none to call it, nor to say so

    def _reseal_dead(self, ks: Iterable[int]) -> None:
        """Seal anew the segments of which another quarter is deleted, or as many rows as are left: what nobody reads
        should take no room.
        """
        for k in ks:
            dead = self.deleted[k]
            if dead is None or self.column_list[0].parts[k] is None:
                self._blanked.pop(k, None)
                continue
            count, rows = self.kernels.mask.count(dead), self.segment_rows(k)
            more = count - self._blanked.get(k, 0)
            if more * BLANK_SHARE < max(rows, BLOCK) and more < max(rows - count, rows >> 5, BLOCK):
                continue
            if k == len(self.deleted) - 1 and self.column_list[0].part(k)[1].rows >= BLOCK:
                self._fold()
            else:
                self._touch_all(dict.fromkeys((j, k) for j in range(len(self.column_list))))
                for column in self.column_list:
                    column.part(k)
                    column.reseal(k, dead)
            self._blanked[k] = count

    def _removal(self, k: int, rows: list[int]) -> tuple[int, list[Call]]:
        """How many rows of segment k this deletes, and the calls that do it, for one step."""
        kernel = self.kernels.mask
        old = self.deleted[k]
        mask: bytearray = kernel.empty(SEGMENT) if old is None else bytearray(old)
        for row in rows:
            kernel.set_bit(mask, row)
        dead = kernel.count(mask)
        gone = dead - (0 if old is None else kernel.count(old))
        if dead < SEGMENT:
            return gone, [assign(self.deleted, k, mask)]
        if self._file is not None:
            self._file.leave([k])
        dropped = [call for column in self.column_list for call in column.dropping(k)]
        return gone, [*dropped, assign(self.deleted, k, None)]

    def batch_update(self, predicate: Any, updates: Any) -> int:
        """Update every row that a callable or conditions select; returns how many. All or nothing."""
        with self.lock:
            changes = self.plan_updates(predicate, updates)
            self.apply(changes)
            return len(changes)

    def delete_where(self, conditions: Any, combine: str = "and") -> int:
        """Delete the rows that meet the conditions; returns how many. ValueError for no conditions."""
        with self.lock:
            ids = self.select_for_delete(conditions, combine)
            self.remove(ids)
            return len(ids)

    def compact(self, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes of memory given back."""
        with self.writing():
            before = self.memory_usage()
            with self.view() as view:
                buffers = live_buffers(view)
            states = [column.rebuilt(buffer) for column, buffer in zip(self.column_list, buffers)]
            emptied: list[Call] = [
                assign(self.deleted, slice(None), [None]),
                partial(setattr, self, "deleted_rows", 0),
                partial(setattr, self, "deletions", self.deletions + 1),
                *self._renumbering(len(states[0].parts)),
            ]
            self._step(first, [*emptied, *self.publication(states, buffers[0].rows, 1), *then])
            return max(0, before - self.memory_usage())

    # -- what a transaction and a file have to know ---------------------------

    def _touched(self, changes: Sequence[Change]) -> dict[tuple[int, int], Optional[set[int]]]:
        """The (column, segment) pairs that these change, and the rows of each where there are few of them."""
        if self._file is None or len(changes) > MOST_NOTED:
            return dict.fromkeys((j, change.idx >> 16) for change in changes for j, _ in change.values)
        found: dict[tuple[int, int], Optional[set[int]]] = {}
        for idx, values in changes:
            for j, _ in values:
                rows: Any = found.setdefault((j, idx >> 16), set())
                rows.add(idx & (SEGMENT - 1))
        return found

    def _touch(self, k: int, columns: Iterable[int] = (), rows: Optional[set[int]] = None) -> None:
        """Segment k is about to change, and in ``columns`` the updates of its rows: of these, or of any."""
        if self._file is not None:
            self._file.load(k)
            self._file.touch(k, columns, rows)
        if self._undo is not None:
            self._undo.touch(k)

    def _touch_tail(self) -> None:
        """A row is about to be appended; a file sees from the number of rows that it was."""
        if self._undo is not None:
            self._undo.touch(len(self.deleted) - 1)

    def touch_open(self, states: list[ColumnStaged]) -> None:
        if self._file is not None or self._undo is not None:
            k, parts = states[0].k, states[0].parts
            for at in range(len(parts)):
                self._touch(k + at, range(len(states)) if states[0].patched else ())

    def _touch_all(self, touched: Mapping[tuple[int, int], Optional[set[int]]]) -> None:
        """Rows of these (column, segment) pairs are about to be updated: these, or any."""
        if self._file is not None or self._undo is not None:
            for (j, k), rows in touched.items():
                self._touch(k, (j,), rows)
                self.column_list[j].part(k)  # what cannot be read fails here

    def _renumbering(self, segments: int) -> list[Call]:
        """Every segment is about to be replaced, by so many: the calls that note it."""
        known = range(len(self.deleted))
        for k in known if self._undo is not None else ():
            self._touch(k)
        if self._file is None:
            return []
        self._file.leave(known)
        self.keep_records(self._file.records)
        return self._file.renumbering(segments)

    # -- transactions --------------------------------------------------------

    def begin(self) -> None:
        self._undo = Undo(self)

    def commit(self) -> None:
        self._undo = None

    def rollback(self) -> None:
        if self._undo is not None:
            with self.writing():
                self._undo.rollback()
            self._undo = None

    def keep_records(self, ks: Iterable[int]) -> None:
        if self._undo is not None and self._file is not None:
            self._undo.keep(ks, self._file.records)

    def recalling(self, records: Mapping[int, Optional[Record]]) -> list[Call]:
        forgotten: list[Call] = [partial(setattr, self, "deletions", self.deletions + 1)]
        return forgotten if self._file is None else [*forgotten, *self._file.recalling(records)]

    # -- images ---------------------------------------------------------------

    def image(self) -> ColumnarImage:
        with self.writing():
            self.load_all()
            columns = [column.image() for column in self.column_list]
            deleted, blanked = list(self.deleted), dict(self._blanked)
            return ColumnarImage(columns, deleted, self.deleted_rows, blanked, self.rows, self.generation)

    def become(self, image: ColumnarImage) -> None:
        with self.writing():
            last = max(self.last_generation, self.generation, image.generation)
            found = [call for column, kept in zip(self.column_list, image.columns) for call in column.becoming(kept)]
            found += [
                assign(self.deleted, slice(None), list(image.deleted)),
                partial(setattr, self, "deleted_rows", image.deleted_rows),
                partial(setattr, self, "deletions", self.deletions + 1),
                partial(setattr, self, "_blanked", dict(image.blanked)),
                partial(setattr, self.port, "rows", image.rows),
                partial(setattr, self.port, "limit", _limit(image.columns[0].parts[-1])),
                partial(setattr, self, "last_generation", last),
                partial(setattr, self, "generation", image.generation),
            ]
            carry_out((), found)

    def branch(self, image: ColumnarImage) -> ColumnarTable:
        made = ColumnarTable(self.name, self.schema, backend=self.kernels.name)
        made.become(image)
        return made

    def compare(self, one: ColumnarImage, other: ColumnarImage) -> Difference:
        return images.compare(self, one, other)

    def compare_stored(self, one: Stored, other: Stored) -> Difference:
        from .columnar_diff import compare

        return compare(self, one, other)

    def held_by(self, kept: Iterable[ColumnarImage]) -> int:
        with self.lock:
            return images.held(self, kept)

    # -- the file -------------------------------------------------------------

    def attach(self, log: Any) -> None:
        self.port.attach(log)

    def release(self, gone: Absent) -> None:
        with self.writing():
            file: Any = gone
            if self._file is not None:
                self._file.records = {}  # its parts know it: what they show of a map would outlast the handle
            self._file = file
            count = max(len(self.deleted), REFUSED)
            for column in self.column_list:
                column.release(gone, count)
            self.deleted[:] = [None] * count
            self.port.rows = self.deleted_rows = count * SEGMENT
            self.port.limit = TAIL

    def adopt(self, header: Mapping[str, Any], source: Source) -> None:
        with self.writing():
            if self.port.rows or self._file is not None:
                raise InternalError("a table that has rows cannot be that of a file")
            carry_out((), self.replacing(header, source, source))

    def replacing(self, header: Mapping[str, Any], source: Source, later: Source) -> list[Call]:
        rows, live = counters(header)
        hints = self._stored_hints(header.get("hints", {}))
        file = SegmentFile(self, source)
        loaded = file.adopt(rows, live)
        closed = [Unread(file, k) for k in range(rows >> 16)]
        unknown = [None] * len(closed)
        parts, zones, overlays, deleted, _ = loaded.segment
        found = [
            call
            for at, column in enumerate(self.column_list)
            for call in column.adopting([*closed, parts[at]], [*unknown, zones[at]], overlays[at], hints[at])
        ]
        if self._file is not None:
            file.succeed(self._file, later)
        return [
            *found,
            assign(self.deleted, slice(None), [*unknown, deleted]),
            partial(setattr, self, "deleted_rows", rows - live),
            partial(setattr, self, "deletions", self.deletions + 1),
            partial(setattr, self, "_blanked", {}),
            partial(setattr, self, "_has_resealed", False),
            partial(setattr, self.port, "rows", rows),
            partial(setattr, self.port, "limit", _limit(parts[0])),
            partial(setattr, self, "_file", file),
        ]

    def _stored_hints(self, states: Any) -> list[Hints]:
        """What each column's hints are by what is stored of them."""
        found = [column.fresh_hints() for column in self.column_list]
        try:
            for column, hints in zip(self.column_list, found):
                if column.name in states:
                    hints.restore(states[column.name])
        except (TypeError, ValueError) as error:
            raise CorruptionError(f"what is stored of the hints cannot be: {error}") from error
        return found

    def header(self) -> dict[str, Any]:
        states = {column.name: column.hints.state() for column in self.column_list}
        hints = {name: state for name, state in states.items() if state is not None}
        return {"rows": self.rows, "live": len(self), "hints": hints}

    def changes(self, final: bool = False) -> Iterator[tuple[int, Optional[Entry]]]:
        if self._file is not None:
            self.make_room()
            if final and self._file.is_behind() and self.column_list[0].part(len(self.deleted) - 1)[1].rows >= BLOCK:
                self._fold()  # what is left of the tail fits into one block more of the chunk
            yield from self._file.changes(final)

    def saved(self, stored: Iterable[tuple[int, Optional[Entry]]]) -> None:
        if self._file is not None:
            self._file.saved(stored)
            self._has_resealed = False

    def entries(self) -> Iterator[tuple[int, Entry]]:
        self.make_room()
        for k in range(len(self.deleted)):
            parts = [column.part(k) for column in self.column_list]
            segment = self.segment(k)
            if segment is not None and not all_deleted(segment.deleted, 0, self.segment_rows(k)):
                yield k, pieces_of(self.kernels, self.codes, segment._replace(parts=parts), None, {})[0]

    def prepare(self, staged: Staged) -> Bulk:
        return bulk.prepare(self, staged)

    def publish(
        self, batch: Bulk, stored: Sequence[tuple[int, Entry]], then: Sequence[Call] = (), first: Sequence[Call] = ()
    ) -> int:
        return bulk.publish(self, self._in_file(), batch, stored, then, first)

    def replay(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> None:
        bulk.replay(self, self._in_file(), first, rows, stored)

    def _in_file(self) -> SegmentFile:
        if self._file is None:
            raise InternalError("a table in memory has no file to append from")
        return self._file

    def verify(self) -> Iterator[str]:
        return check.verify(self)

    # -- reads -------------------------------------------------------------

    def view(self, use_numpy: Optional[bool] = None, only: Optional[Collection[int]] = None) -> ColumnarView:
        kernels = pick(self.kernels, use_numpy)
        with self.lock:
            if self._file is not None:
                self._file.load_all()
            return ColumnarView(self, kernels, only)

    def load_all(self) -> None:
        if self._file is not None:
            self._file.load_all()

    def aggregate(self, column_name: str, agg: str = "sum", where: Any = None, use_numpy: Optional[bool] = None) -> Any:
        """See ``Table.aggregate``; without a filter what is known of closed segments is kept."""
        if use_numpy is not None:
            return super().aggregate(column_name, agg, where, use_numpy)
        j = column_index(self.schema, column_name, COUNT_HINT)
        check_aggregate(column_name, self.schema.columns[j].type, agg)
        if where is None and self.zone_answers:
            return answer(self, j, agg)
        selector = make_where(self.schema, where)
        if agg == "sum":
            found = swept_sum(self, j, selector, self.zone_answers)
            if found is not None:
                return found
        with self.view(None, read_by(selector, j)) as view:
            return aggregate(view, j, agg, selector, self.zone_answers)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self.items()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{column.name} {column.dtype}" for column in self.column_list)
        return f"ColumnarTable({self.name!r}, rows={len(self)}, columns=[{kinds}])"

    def _repr_html_(self) -> str:
        """The first rows, for notebooks."""
        from .html_table import html_of, view_html  # notebooks alone ask

        return html_of(self, lambda: view_html(repr(self), self.view(), len(self)))

    def column_buffer(self, column_name: str) -> memoryview:
        with self.lock:
            column = self.column_list[self.schema.index(column_name)]
            return column.flat(self._dead_bitmaps(), self.deletions)

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        with self.lock:
            column = self.column_list[self.schema.index(column_name)]
            return export_numpy(column, zero_copy, self._dead_bitmaps(), self.deletions)

    def _dead_bitmaps(self) -> list[Optional[bytearray]]:
        self.load_all()
        return [
            self.kernels.mask.full(SEGMENT) if part is None else deleted
            for part, deleted in zip(self.column_list[0].parts, self.deleted)
        ]

    def memory_usage(self) -> int:
        with self.lock:
            total = sum(column.memory_usage() for column in self.column_list)
            return total + sum(sys.getsizeof(mask) for mask in self.deleted if mask is not None)

    def column_stats(self) -> dict[str, dict[str, Any]]:
        """Per column: the encoding of most rows, how many segments have each one, bytes held, bits per live row."""
        live = max(1, len(self))
        with self.lock:
            used = {
                column.name: (column.encoding, column.encodings_read(), column.memory_usage())
                for column in self.column_list
            }
        return {
            name: {
                "encoding": encoding,
                "encodings": encodings,
                "bytes": size,
                "bits_per_value": round(size * 8 / live, 3),
            }
            for name, (encoding, encodings, size) in used.items()
        }


def _limit(part: Any) -> int:
    """Rows that the tail of an open segment may have: the segment ends with them."""
    sealed, _ = halves(part)
    return min(TAIL, SEGMENT - (0 if sealed is None else sealed.rows))
