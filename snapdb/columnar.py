"""The columnar engine: columns of sealed segments with a raw tail, deleted rows as bitmaps, updates as overlays.

Row position is row id. Sealed chunks and tail rows never change in place; whatever does (overlays, bitmaps of deleted
rows) is replaced or copied, so a view needs only references to see the table as of its start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from . import _ext
from ._ext._common import BLOCK, SEGMENT, TAIL, Zone
from .column import Column, export_numpy, piece_chunks
from .scan import View, live_buffers, name_list, pick
from .schema import ColumnDef, Schema
from .step import Call, assign, calls, run
from .table import Change, Staged, Table

if TYPE_CHECKING:
    from ._ext import Backend, Chunk

__all__ = ["Column", "ColumnarTable", "ColumnarView"]


class ColumnarView(View):
    """A columnar table as of one moment: its lists copied, everything in them shared."""

    def __init__(self, table: ColumnarTable, kernels: Backend) -> None:
        super().__init__(kernels, table.kernels, table.schema, table.port.rows)
        self._columns = table.column_list
        self._parts = [list(column.parts) for column in self._columns]
        self._zones = [list(column.zones) for column in self._columns]
        self._overlays = [{k: dict(rows) for k, rows in column.overlays.items()} for column in self._columns]
        self._deleted = list(table.deleted)
        self._patched: dict[tuple[int, int], Sequence[Chunk]] = {}

    def dead(self, k: int) -> bool:
        return self._parts[0][k] is None

    def live(self, k: int) -> Optional[bytearray]:
        deleted = self._deleted[k]
        if deleted is None:
            return None
        kernel = self.kernels.mask
        mask: bytearray = kernel.full(self.size(k))
        kernel.andnot_into(mask, memoryview(deleted)[: len(mask)])
        return mask

    def bounds(self, k: int) -> Sequence[int]:
        sealed = self._parts[0][k][0]
        base = 0 if sealed is None else sealed.rows
        rest = self.size(k) - base
        return [rows for rows in (base, rest) if rows]

    def pieces(self, j: int, k: int) -> Sequence[Chunk]:
        overlay = self._overlays[j].get(k)
        if not overlay:
            return piece_chunks(self._columns[j], self._parts[j][k], None, self.size(k))
        found = self._patched.get((j, k))
        if found is None:
            # updates are patched into a decoded copy: keep those of one segment, which a query reads piece by piece
            if any(segment != k for _, segment in self._patched):
                self._patched.clear()
            found = self._patched[j, k] = piece_chunks(self._columns[j], self._parts[j][k], overlay, self.size(k))
        return found

    def zone(self, j: int, k: int) -> Optional[Zone]:
        return self._zones[j][k]


class ColumnarTable(Table):
    """A columnar table in memory, no file. ``schema`` is a list of ``(name, dtype)``; every column is nullable.

    ``dict_columns``, ``delta_columns`` and ``for_columns`` name columns that should prefer an encoding (see
    ``Column``). Raises SchemaError for a bad schema and UnknownColumnError for a hint on a column that is not there.

    A ``Schema`` may be given too, and its ``not_null`` holds. Its ``unique`` and ``primary_key`` are not enforced
    here: keys are SnapDB's business, which checks them before it writes to this table.
    """

    storage_type = "columnar"

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
        self.columns: dict[str, Column] = {column.name: column for column in self.column_list}
        self.deleted: list[Optional[bytearray]] = [None]  # bitmaps of 65,536 rows, never changed in place
        self._deleted_rows = 0
        self._deletions = 0
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
        idx: int = self.port.insert(row)
        return idx

    def _insert_slowly(self, row: Mapping[str, Any]) -> int:
        """An insert that met a write of more than one step, or a full tail: wait for its turn."""
        with self.lock, self._paused():
            self._make_room()
            idx: int = self.port.append(row)
            return idx

    def append_values(self, values: Sequence[Any], first: Sequence[Call] = ()) -> None:
        with self.lock, self._paused():
            self._make_room()
            run(calls([*first, partial(self.port.append_values, values)]))

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append rows, all or none; returns the first one's id."""
        return self.extend(self.stage(rows))

    def insert_columns(self, columns: Mapping[str, Any]) -> int:
        """Append whole columns of equal length, all or none; returns the number of rows."""
        staged = self.stage_columns(columns)
        self.extend(staged)
        return staged.rows

    def extend(self, staged: Staged, then: Sequence[Call] = ()) -> int:
        with self.lock, self._paused():
            first: int = self.port.rows
            if staged.rows:
                states = [c.staged(b) for c, b in zip(self.column_list, staged.buffers)]
                run(calls([*self._publication(states, first + staged.rows, len(self.deleted)), *then]))
            return first

    def _publication(self, states: list[Any], rows: int, known: int) -> list[Call]:
        """The calls that make prepared states of every column the table's own, for one step.

        The table then has ``rows`` positions; its list of deleted rows has ``known`` segments by then.
        """
        k, parts = states[0].k, states[0].parts
        sealed = parts[-1][0]
        return [
            partial(self.deleted.extend, [None] * (k + len(parts) - known)),
            *[call for column, state in zip(self.column_list, states) for call in column.publication(state)],
            partial(setattr, self.port, "rows", rows),
            partial(setattr, self.port, "limit", min(TAIL, SEGMENT - (0 if sealed is None else sealed.rows))),
        ]

    def _fold(self) -> None:
        """Fold the tail into the sealed part of the open segment."""
        with self._paused():
            states = [column.staged(None) for column in self.column_list]
            run(calls(self._publication(states, self.port.rows, len(self.deleted))))

    def _tail_full(self) -> None:
        with self.lock:
            try:
                self._make_room()
            except MemoryError:
                # the row is in and stays in; the next insert finds a full tail, takes the slow way and folds first
                self._warn("no memory to fold the tail of table %r, trying again at the next insert")

    def _make_room(self) -> None:
        """Fold a full tail: no row may be appended past the end of the open segment."""
        tail = self.column_list[0].parts[-1][1]
        if tail.rows >= self.port.limit:
            self._fold()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Inserts of other threads wait, for a write of more than one step. The lock is held."""
        was = self.port.paused
        try:
            self.port.paused = True
            yield
        finally:
            self.port.paused = was

    def _warn(self, message: str) -> None:
        import logging  # not at the top: it would be a third of the cost of importing SnapDB

        logging.getLogger("snapdb").warning(message, self.name)

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError where there is none."""
        with self.lock:
            self.apply([self.plan_update(idx, row)])

    def apply(self, changes: Iterable[Change], then: Sequence[Call] = ()) -> None:
        with self.lock:
            changes = list(changes)
            touched = {(j, change.idx >> 16) for change in changes for j, _ in change.values}
            # one change is one step of the kernel; several are taken back together
            before = [(j, k, self.column_list[j].overlay_copy(k)) for j, k in touched] if len(changes) > 1 else []
            for idx, values in changes:
                for j, value in values:  # zone maps first: one that is too wide is still true
                    self.column_list[j].widen(idx >> 16, idx & (SEGMENT - 1), value)
            try:
                run(starmap(self.port.amend, changes), calls(then))
            except BaseException:
                for j, k, overlay in before:
                    self.column_list[j].restore_overlay(k, overlay)
                raise
            self._reseal(touched)

    def _reseal(self, touched: Iterable[tuple[int, int]]) -> None:
        """Seal anew the segments that have many updated rows."""
        worn = [(j, k) for j, k in touched if self.column_list[j].wants_reseal(k)]
        try:
            for j, k in worn:
                column = self.column_list[j]
                if k == len(column.parts) - 1 and column.parts[k][1].rows >= BLOCK:
                    self._fold()  # the updated rows of a long tail go with it; it is the tail of every column
                elif column.wants_reseal(k):
                    column.reseal(k)
        except MemoryError:
            self._warn("no memory to seal table %r anew, trying again at the next update")

    def delete(self, idx: int) -> None:
        """Delete a live row; KeyError where there is none."""
        with self.lock:
            if not self.contains(idx):
                raise self.missing(idx)
            self.remove([idx])

    def remove(self, ids: Iterable[int], then: Sequence[Call] = ()) -> None:
        with self.lock:
            self._make_room()  # an open segment that is full must not be dropped
            by_segment: dict[int, list[int]] = {}
            for idx in ids:
                by_segment.setdefault(idx >> 16, []).append(idx & (SEGMENT - 1))
            removals = [self._removal(k, rows) for k, rows in by_segment.items()]
            counts = [
                partial(setattr, self, "_deleted_rows", self._deleted_rows + sum(gone for gone, _ in removals)),
                partial(setattr, self, "_deletions", self._deletions + 1),
            ]
            run(calls([*[call for _, found in removals for call in found], *counts, *then]))

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

    def compact(self, then: Sequence[Call] = ()) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes of memory given back."""
        with self.lock, self._paused():
            before = self.memory_usage()
            with self.view() as view:
                buffers = live_buffers(view)
            states = [column.rebuilt(buffer) for column, buffer in zip(self.column_list, buffers)]
            emptied: list[Call] = [
                assign(self.deleted, slice(None), [None]),
                partial(setattr, self, "_deleted_rows", 0),
                partial(setattr, self, "_deletions", self._deletions + 1),
            ]
            run(calls([*emptied, *self._publication(states, buffers[0].rows, 1), *then]))
            return max(0, before - self.memory_usage())

    # -- reads -------------------------------------------------------------

    def view(self, use_numpy: Optional[bool] = None) -> ColumnarView:
        kernels = pick(self.kernels, use_numpy)
        with self.lock:
            return ColumnarView(self, kernels)

    @property
    def rows(self) -> int:
        """Row positions given out."""
        count: int = self.port.rows
        return count

    def __len__(self) -> int:
        count: int = self.port.rows - self._deleted_rows
        return count

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self.items()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{column.name} {column.dtype}" for column in self.column_list)
        return f"ColumnarTable({self.name!r}, rows={len(self)}, columns=[{kinds}])"

    def column_buffer(self, column_name: str) -> memoryview:
        with self.lock:
            return self.column_list[self.schema.index(column_name)].flat(self._dead_bitmaps(), self._deletions)

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        with self.lock:
            column = self.column_list[self.schema.index(column_name)]
            return export_numpy(column, zero_copy, self._dead_bitmaps(), self._deletions)

    def _dead_bitmaps(self) -> list[Optional[bytearray]]:
        return [
            self.kernels.mask.full(SEGMENT) if part is None else deleted
            for part, deleted in zip(self.column_list[0].parts, self.deleted)
        ]

    def memory_usage(self) -> int:
        with self.lock:
            total = sum(column.memory_usage() for column in self.column_list)
            return total + sum(sys.getsizeof(mask) for mask in self.deleted if mask is not None)

    def column_stats(self) -> dict[str, dict[str, Any]]:
        """Per column: the encoding in use, the bytes held and bits per live row."""
        live = max(1, len(self))
        with self.lock:
            used = {column.name: (column.encoding, column.memory_usage()) for column in self.column_list}
        return {
            name: {"encoding": encoding, "bytes": size, "bits_per_value": round(size * 8 / live, 3)}
            for name, (encoding, size) in used.items()
        }
