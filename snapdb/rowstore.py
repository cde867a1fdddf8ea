"""The row engine: fixed-width rows in slabs. Point reads and writes are one kernel call; scans gather a column
of a segment at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from . import _ext
from ._ext._common import BOOL, DATE, SEGMENT, TYPECODES
from .column import numpy, numpy_dtype
from .conditions import Predicate
from .errors import SchemaError, TransactionError
from .row_image import RowImage, compare, held
from .scan import MANY, Page, View, Where, live_buffers, pick
from .step import Call, assign, calls, carry_out, insist, run
from .table import Change, Staged, Table

if TYPE_CHECKING:
    from ._ext import Backend, Chunk, SlabView
    from .absent import Absent
    from .differing import Difference, Stored
    from .dtypes import DType
    from .pieces import Bulk, Entry, Source
    from .row_file import RowFile, State
    from .schema import Schema

__all__ = ["RowTable", "RowView"]

MIN_PAGE, MAX_PAGE = 64, 65535
REFUSED = 4096  # slab groups of a closed table, at least: where ids that it never had are refused too

FEW = 64  # rows of a segment that are read one by one rather than by gathering the segment


class RowView(View):
    """A row table as of one moment: its slabs pinned; columns are gathered a segment at a time."""

    def __init__(self, table: RowTable, kernels: Backend) -> None:
        self.slabs: SlabView = table.slabs.pin()
        super().__init__(kernels, table.kernels, table.schema, self.slabs.rows)
        self._own = table.kernels
        self.slab_zones = self._own.name == "c"
        self._gathered: dict[tuple[int, int], list[Chunk]] = {}

    def __enter__(self) -> RowView:
        return self

    def release(self) -> None:
        self.slabs.release()

    def dead(self, k: int) -> bool:
        return False

    def live(self, k: int) -> Optional[bytearray]:
        return self.slabs.live_mask(k * SEGMENT, k * SEGMENT + self.size(k))

    def bounds(self, k: int) -> Sequence[int]:
        return [self.size(k)]

    def pieces(self, j: int, k: int) -> Sequence[Chunk]:
        found = self._gathered.get((j, k))
        if found is None:
            # keep the columns of one segment only: conditions, keys and values of a query meet there
            if any(segment != k for _, segment in self._gathered):
                self._gathered.clear()
            buffer = self.slabs.gather(j, k * SEGMENT, k * SEGMENT + self.size(k))
            found = self._gathered[j, k] = [self._own.codecs.Chunk.view(buffer)]
        return found

    def physical(self, j: int, k: int, row: int) -> Any:
        at = k * SEGMENT + row
        return self.slabs.gather(j, at, at + 1).physical(0)

    def sweep(self) -> _Sweep:
        return _Sweep(self)

    def terms(self, where: Where) -> _Conditions:
        return _Conditions([(j, *predicate) for j, predicate in where.plan], where.combine == "or")

    def part(self, j: int, k: int, mask: Optional[bytearray]) -> Chunk:
        """Column j of segment k, whose rows that are not in the mask are null."""
        if mask is None or (j, k) in self._gathered:
            return self.chunks(j, k)[0]
        buffer = self.slabs.gather(j, k * SEGMENT, k * SEGMENT + self.size(k), mask)
        chunk: Chunk = self._own.codecs.Chunk.view(buffer)
        return self.kernels.codecs.Chunk.adopt(chunk) if self._foreign else chunk

    def take(self, j: int, page: Page) -> list[Any]:
        rows, size = page.rows, self.size(page.k)
        if rows is None or 2 * len(rows) > size or (j, page.k) in self._gathered:
            return super().take(j, page)
        if len(rows) > FEW:
            return self.part(j, page.k, self.kernels.mask.from_ids(rows, size)).take(rows)
        places = [page.k * SEGMENT + row for row in rows]
        return [self.slabs.gather(j, at, at + 1).fetch(0) for at in places]


class _Conditions(NamedTuple):
    """Conditions as ``SlabView.select`` takes them."""

    terms: list[tuple[Any, ...]]
    any_of: bool


class _Sweep:
    """A row view's answers over many segments: conditions are tested in the slabs, and of what is added up only the
    rows that meet them are gathered. Methods as those of ``_codecs.Sweep``; no segment takes another path.
    """

    def __init__(self, view: RowView) -> None:
        self._view = view
        self._slabs = view.slabs

    def _chosen(self, where: Optional[_Conditions], first: int) -> Iterator[tuple[int, Optional[bytearray]]]:
        """(segment, bitmap of its rows) of the segments that have one from ``first`` on."""
        view = self._view
        for k in range(first, view.segments()):
            if where is None:
                yield k, view.live(k)
                continue
            start = k * SEGMENT
            mask = self._slabs.select(where.terms, where.any_of, start, start + view.size(k))
            if mask is not None:
                yield k, mask

    def _chunks(self, where: Optional[_Conditions], j: int, first: int) -> Iterator[tuple[Chunk, Optional[bytearray]]]:
        for k, mask in self._chosen(where, first):
            yield self._view.part(j, k, mask), mask

    def count(self, where: Optional[_Conditions], k: int) -> tuple[int, int]:
        """Live rows that match."""
        view = self._view
        if where is None and k == 0:
            return self._slabs.live, view.segments()
        terms, any_of = where or _Conditions([], False)
        total = 0
        for start in range(k * SEGMENT, view.rows, MANY):  # a signal is seen in between
            total += self._slabs.count(terms, any_of, start, min(start + MANY, view.rows))
        return total, view.segments()

    def values(self, where: Optional[_Conditions], j: int, k: int, zones: bool) -> tuple[int, int]:
        """Live rows that match and have a value in a column."""
        if not self._view.schema.columns[j].not_null:
            known = (j, *Predicate("not_null"))
            if where is None or not where.any_of:
                where = _Conditions([*(where.terms if where else ()), known], False)
            else:
                return sum(chunk.count(mask) for chunk, mask in self._chunks(where, j, k)), self._view.segments()
        return self.count(where, k)

    def sum(self, where: Optional[_Conditions], j: int, k: int, start: Any, zones: bool) -> tuple[Any, int]:
        """``start`` plus each segment's sum in turn."""
        nothing: Any = 0.0 if isinstance(start, float) else 0
        for chunk, mask in self._chunks(where, j, k):
            start += chunk.sum(mask, nothing)
        return start, self._view.segments()

    def bounds(self, where: Optional[_Conditions], j: int, k: int, zones: bool) -> tuple[list[Any], int]:
        """The bounds of each segment that has any, in order."""
        found = [chunk.bounds(mask) for chunk, mask in self._chunks(where, j, k)]
        return [bounds for bounds in found if bounds is not None], self._view.segments()

    def masks(self, where: Optional[_Conditions], k: int, most: int) -> tuple[list[Any], int]:
        """(segment, bitmap of its live rows that match, None for every position) until ``most`` rows are found."""
        found: list[Any] = []
        total = 0
        for at, mask in self._chosen(where, k):
            found.append((at, mask))
            total += self._view.size(at) if mask is None else self._view.kernels.mask.count(mask)
            if total >= most:
                return found, at + 1
        return found, self._view.segments()


Cells = Iterable[tuple[int, list[tuple[int, Any]]]]  # (row id, (column index, physical value) pairs)


def _cells(view: SlabView, ids: Iterable[int], columns: Iterable[Iterable[int]]) -> Cells:
    """The values of live rows as the view sees them; ``columns`` are the indexes wanted of each row."""
    for idx, wanted in zip(ids, columns):
        if 0 <= idx < view.rows and view.live_mask(idx, idx + 1) is None:
            yield idx, [(j, view.gather(j, idx, idx + 1).physical(0)) for j in wanted]


class _Undo(NamedTuple):
    """What takes one write of live rows back: what its rows were, and the calls that make them so again."""

    read: Callable[[], Cells]
    calls: Callable[[Cells], list[Call]]
    view: SlabView  # what ``read`` may read from


class _Notes:
    """What takes an open transaction back."""

    def __init__(self, rows: int) -> None:
        self.rows = rows  # those there were: what came after goes with ``truncate``
        self.undo: list[_Undo] = []
        self.spare: Any = None  # the rows before ``compact``
        self.state: Optional[State] = None  # what the file side knew before it

    def wanted(self, ids: Iterable[int]) -> bool:
        """Whether a change of these rows must be noted: not after ``compact``, before which all are kept."""
        return self.spare is None and any(idx < self.rows for idx in ids)

    def release(self) -> None:
        """Nothing is taken back any more."""
        for undo in self.undo:
            undo.view.release()


class RowTable(Table):
    """A row table in memory. SchemaError where ``page_size`` is not 64 … 65,535 or a row's fixed part does not
    fit in it.
    """

    storage_type = "row"
    scanned = 1024

    def __init__(self, schema: Schema, page_size: int = 4096, *, backend: Optional[str] = None) -> None:
        super().__init__(schema, _ext.backend(backend or _ext.BACKEND))
        if not isinstance(page_size, int) or not MIN_PAGE <= page_size <= MAX_PAGE:
            raise SchemaError(f"page_size must be {MIN_PAGE} to {MAX_PAGE}, got {page_size!r}")
        if schema.row_width > page_size:
            raise SchemaError(
                f"a row's fixed part is {schema.row_width} bytes, more than page_size={page_size}; "
                "give a larger page_size or declare long text as 'str'"
            )
        self.page_size = page_size
        self._flats: dict[str, tuple[int, memoryview, int]] = {}  # column -> (writes then, buffer, nulls)
        self._notes: Optional[_Notes] = None  # of the open transaction
        self._file: Optional[RowFile] = None
        self.slabs = self.new_slabs()
        self._bind()

    def new_slabs(self) -> Any:
        """Rows of this table's layout, none yet."""
        return self.kernels.slab.SlabTable(
            self.codec, self.schema.offsets, self.schema.row_width, self.page_size, self.lock, self._slowly
        )

    def _bind(self) -> None:
        """Single-row calls go straight to the kernel, without a Python frame between."""
        slabs = self.slabs
        self.get: Callable[[int], Optional[dict[str, Any]]] = slabs.get  # type: ignore[assignment]
        self.contains: Callable[[int], bool] = slabs.contains  # type: ignore[assignment]
        self.rows_of: Callable[[Any], list[dict[str, Any]]] = slabs.rows_of  # type: ignore[assignment]
        self.get_raw: Callable[[int], Optional[memoryview]] = slabs.get_raw
        self.insert: Callable[[Mapping[str, Any]], int] = slabs.insert

    def range_find(
        self, column: str, low: Any = None, high: Any = None, include_low: bool = True, include_high: bool = True
    ) -> list[dict[str, Any]]:
        """As of any table; between two plain numbers in one call of the kernel, which asks the slabs' zone maps."""
        j = self.schema.index(column)
        term = _between(self.schema.columns[j].type, low, high)
        if term is None or not include_low or not include_high:
            return super().range_find(column, low, high, include_low, include_high)
        with self.view() as view:
            rows: list[dict[str, Any]] = view.slabs.select_rows([(j, *term)], False)
        rows.sort(key=itemgetter(self.schema.columns[j].name))  # the sort is stable: ties stay in id order
        return rows

    def finder(self, indexes: Mapping[str, Any], slow: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        find: Callable[[str, Any], Any] = self.kernels.slab.Lookup(self.slabs, dict(indexes), slow).find
        return find

    def _slowly(self, name: str, *args: Any) -> Any:
        """A write that met one of more than one step: wait for it."""
        step = {"insert": "append", "update": "change", "delete": "remove"}[name]
        with self.lock:
            if name != "insert":
                self.check_live(args[:1])  # it may have gone meanwhile
                if self._is_noted():
                    return self._noted(*args)
            return getattr(self.slabs, step)(*args)

    def _is_noted(self) -> bool:
        """Whether changes must be noted, for a transaction or for a file."""
        return self._notes is not None or self._file is not None

    def _noted(self, idx: int, row: Optional[Mapping[str, Any]] = None) -> None:
        """An update, or without ``row`` a deletion, that is noted."""
        with self.lock:
            if row is None:
                self.check_live([idx])
                self.remove([idx])
            else:
                self.apply([self.plan_update(idx, row)])

    # -- writes ------------------------------------------------------------

    def append_values(self, values: Sequence[Any], first: Sequence[Call] = ()) -> None:
        with self.writing():
            if self._file is not None:
                self._file.load_open()
            run(calls([*first, partial(self.slabs.append_values, values)]))

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError where there is none."""
        if not self.contains(idx):
            raise self.missing(idx)
        if self._is_noted():
            self._noted(idx, row)
        else:
            self.slabs.update(idx, row)

    def delete(self, idx: int) -> None:
        """Delete a live row; KeyError where there is none."""
        if not self.contains(idx):
            raise self.missing(idx)
        if self._is_noted():
            self._noted(idx)
        else:
            self.slabs.delete(idx)

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append rows, all or none; returns the first one's id."""
        return self.extend(self.stage(rows))

    def extend(self, staged: Staged, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        with self.writing():
            return self._append(partial(self.slabs.extend, staged.buffers), then, first)

    def _append(self, work: Call, then: Sequence[Call], first: Sequence[Call]) -> int:
        """Append rows by a call of the kernel; returns the first id."""
        if self._file is not None:
            self._file.load_open()
        start: int = self.slabs.rows
        done = [False]
        try:
            carry_out([*first, work], [*then, assign(done, 0, True)])
        except BaseException:
            if not done[0] and self.slabs.rows > start:
                insist(partial(self.slabs.truncate, start))
            raise
        return start

    def writing(self) -> AbstractContextManager[Any]:
        alone: AbstractContextManager[Any] = self.kernels.tail.Alone(self.lock, self.slabs)
        return alone

    def apply(self, changes: Iterable[Change], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        changes = list(changes)

        def before(view: SlabView) -> Cells:
            return _cells(view, (idx for idx, _ in changes), ([j for j, _ in values] for _, values in changes))

        with self.writing():
            ids = [change.idx for change in changes]
            self._write(ids, (self.slabs.put, changes, True), before, self._putting_back, then, first)

    def remove(self, ids: Iterable[int], then: Sequence[Call] = (), first: Sequence[Call] = ()) -> None:
        ids = list(ids)

        def before(view: SlabView) -> Cells:
            return _cells(view, dict.fromkeys(ids), repeat(range(len(self.schema.columns))))

        with self.writing():
            self._write(ids, (self.slabs.remove, ids, False), before, self._reviving, then, first)

    def _putting_back(self, cells: Cells) -> list[Call]:
        return [partial(self.slabs.put, idx, pairs) for idx, pairs in cells]

    def _reviving(self, cells: Cells) -> list[Call]:
        gone = ((idx, pairs) for idx, pairs in cells if not self.contains(idx))
        return [partial(self.slabs.revive, idx, [value for _, value in pairs]) for idx, pairs in gone]

    def _write(
        self, ids: list[int], work: tuple[Callable[..., Any], Sequence[Any], bool], before: Callable[[SlabView], Cells],
        back: Callable[[Cells], list[Call]], then: Sequence[Call], first: Sequence[Call],
    ) -> None:  # fmt: skip
        """Change live rows in one step. Where there is no memory half way, what is done is undone."""
        if self._file is not None:
            self._file.touch(ids)
        view: SlabView = self.slabs.pin()
        undo = _Undo(partial(before, view), back, view)
        if len(ids) <= FEW:
            # a slab that a view pins is copied when it is written: what is little is read beforehand
            undo = undo._replace(read=list(before(view)).__iter__)
            view.release()
        noted = [self._notes.undo] if self._notes is not None and self._notes.wanted(ids) else []
        for notes in noted:
            notes.append(undo)
        done = [False]
        try:
            carry_out(first, [*then, assign(done, 0, True)], *work)
        except BaseException:
            if not done[0]:
                insist(lambda: run(calls(undo.calls(undo.read()))))
                for notes in noted:
                    notes.pop()
                view.release()
            raise
        if not noted:
            view.release()

    def compact(self, then: Sequence[Call] = (), first: Sequence[Call] = ()) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes of memory given back."""
        with self.writing():
            before = self.memory_usage()
            with self.view() as view:
                buffers = live_buffers(view)
            fresh, spare = self.new_slabs(), self.new_slabs()
            fresh.extend(buffers)
            notes = self._notes
            done = [False]
            state = None if self._file is None else self._file.renumbered()
            steps: list[Call] = [partial(spare.take_over, self.slabs), partial(self.slabs.take_over, fresh)]
            if notes is not None and notes.spare is None:
                notes.state = state
                steps.append(partial(setattr, notes, "spare", spare))
            try:
                carry_out(first, [*steps, *then, assign(done, 0, True)])
            except BaseException:
                if not done[0]:
                    insist(partial(self._take_back, spare, state))
                    if notes is not None and notes.spare is spare:
                        notes.spare = None
                raise
            del spare
            return max(0, before - self.memory_usage())

    def _take_back(self, spare: Any, state: Optional[State]) -> None:
        """Have the rows again that ``compact`` has put aside."""
        if spare.rows:
            self.slabs.take_over(spare)
        if self._file is not None and state is not None:
            self._file.restore(state)

    # -- transactions --------------------------------------------------------

    def begin(self) -> None:
        if self._notes is not None:
            raise TransactionError("a transaction is open already")
        self._notes = _Notes(self.slabs.rows)

    def commit(self) -> None:
        notes, self._notes = self._notes, None
        if notes is not None:
            notes.release()

    def rollback(self) -> None:
        """Rows, values and counters as they were at ``begin``. Called again, it goes on where an interrupt cut it."""
        notes = self._notes
        if notes is None:
            return
        with self.writing():
            if notes.spare is not None:
                self._take_back(notes.spare, notes.state)
            back: list[Call] = []
            if self.slabs.rows > notes.rows:
                back.append(partial(self.slabs.truncate, notes.rows))
            for undo in reversed(notes.undo):
                back += undo.calls(cell for cell in undo.read() if cell[0] < notes.rows)
            run(calls(back))
            if self._file is not None:
                self._file.cut(notes.rows)
            self._notes = None
            notes.release()

    # -- images --------------------------------------------------------------

    def image(self) -> RowImage:
        with self.writing():
            self._load()
            return RowImage(self.slabs.pin(), self.generation)

    def become(self, image: RowImage) -> None:
        with self.writing():
            fresh = self.new_slabs()
            fresh.branch(image.slabs)
            last = max(self.last_generation, self.generation, image.generation)
            found: list[Call] = [
                partial(self.slabs.take_over, fresh),
                partial(setattr, self, "last_generation", last),
                partial(setattr, self, "generation", image.generation),
            ]
            carry_out((), found)

    def branch(self, image: RowImage) -> RowTable:
        made = RowTable(self.schema, self.page_size, backend=self.kernels.name)
        made.become(image)
        return made

    def compare(self, one: RowImage, other: RowImage) -> Difference:
        return compare(one, other, self.slabs.slab_rows, len(self.schema.columns))

    def compare_stored(self, one: Stored, other: Stored) -> Difference:
        from .row_diff import compare

        return compare(self, one, other)

    def held_by(self, kept: Iterable[RowImage]) -> int:
        now: SlabView = self.slabs.pin()
        try:
            return held(kept, now)
        finally:
            now.release()

    # -- the file ------------------------------------------------------------

    def attach(self, log: Any) -> None:
        self.slabs.attach(log)

    def release(self, gone: Absent) -> None:
        file: Any = gone
        self._file, self._flats = file, {}
        slabs = self.slabs
        span = slabs.slab_rows * slabs.group_slabs
        groups = max(-(-slabs.rows // span), REFUSED)
        slabs.take_over(self.new_slabs())
        slabs.adopt(groups * span, 0, bytearray(b"\xff" * -(-groups // 8)), gone.refuse)

    def header(self) -> dict[str, Any]:
        return {"rows": self.slabs.rows, "live": self.slabs.live}

    def adopt(self, header: Mapping[str, Any], source: Source) -> None:
        from .row_file import RowFile, counters  # a table in memory needs none of it

        with self.lock:
            rows, live = counters(header, self.slabs.slab_rows * self.slabs.group_slabs)
            file = RowFile(self, source)
            file.adopt(rows, live)
            self._file = file

    def replacing(self, header: Mapping[str, Any], source: Source, later: Source) -> list[Call]:
        from .row_file import RowFile, counters

        rows, live = counters(header, self.slabs.slab_rows * self.slabs.group_slabs)
        file, fresh = RowFile(self, source), self.new_slabs()
        file.adopt(rows, live, fresh)
        return [
            partial(self.slabs.take_over, fresh),
            file.succeeding(self._kept(), later),
            partial(setattr, self, "_file", file),
            partial(setattr, self, "_flats", {}),
        ]

    def _kept(self) -> RowFile:
        if self._file is None:
            raise TransactionError("the table has no file")
        return self._file

    def changes(self, final: bool = False) -> Iterator[tuple[int, Optional[Entry]]]:
        return self._kept().changes()

    def saved(self, stored: Iterable[tuple[int, Optional[Entry]]]) -> None:
        self._kept().saved(stored)

    def entries(self) -> Iterator[tuple[int, Entry]]:
        from .row_file import entries

        self._load()
        return entries(self)

    def prepare(self, staged: Staged) -> Bulk:
        from .row_file import prepare

        with self.lock:
            return prepare(self, staged)

    def publish(
        self, bulk: Bulk, stored: Sequence[tuple[int, Entry]], then: Sequence[Call] = (), first: Sequence[Call] = ()
    ) -> int:
        with self.writing():
            start = self._append(partial(self.slabs.absorb, bulk.state), then, first)
            if self._file is not None:
                insist(partial(self._file.published, start, stored))
            return start

    def replay(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> None:
        with self.writing():
            file = self._kept()
            self._append(partial(self.slabs.absorb, file.read_bulk(first, rows, stored)), (), ())
            file.published(first, stored)

    def verify(self) -> Iterator[str]:
        from .row_file import verify

        return verify(self) if self._file is None else self._file.verify()

    def _load(self) -> None:
        """Have every row here, for what reads the table as a whole."""
        if self._file is not None:
            self._file.load()

    # -- reads -------------------------------------------------------------

    def view(self, use_numpy: Optional[bool] = None, only: Optional[Collection[int]] = None) -> RowView:
        kernels = pick(self.kernels, use_numpy)
        with self.lock:  # a write of several rows is seen whole or not at all
            self._load()
            return RowView(self, kernels)

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.lock:
            self._load()
            items: Iterator[tuple[int, dict[str, Any]]] = self.slabs.pin().items()
        return items

    def raw_items(self) -> Iterator[tuple[int, memoryview]]:
        """(id, read-only bytes of the row's fixed part) of the live rows in id order."""
        with self.lock:
            self._load()
            items: Iterator[tuple[int, memoryview]] = self.slabs.pin().raw_items()
        return items

    @property
    def rows(self) -> int:
        """Row positions given out."""
        count: int = self.slabs.rows
        return count

    def __len__(self) -> int:
        count: int = self.slabs.live
        return count

    def memory_usage(self) -> int:
        return int(self.slabs.nbytes) + sum(flat.nbytes for _, flat, _ in self._fresh_flats().values())

    def column_stats(self) -> dict[str, dict[str, Any]]:
        """Per column: its width in the row, in bytes of all live rows and bits per value; heap values are
        counted in ``memory_usage``.
        """
        rows = len(self)
        return {
            column.name: {
                "encoding": "row",
                "encodings": {},
                "bytes": column.width * rows,
                "bits_per_value": float(column.width * 8),
            }
            for column in self.schema.columns
        }

    # -- export ------------------------------------------------------------

    def column_buffer(self, column_name: str) -> memoryview:
        column = self.schema.column(column_name)
        if column.type.is_varlen:
            raise TypeError(f"column {column_name!r} is {column.dtype}: it has no contiguous buffer, use to_numpy()")
        return self._flat(column_name)[0]

    def to_numpy(self, column_name: str, zero_copy: bool = False) -> Any:
        column = self.schema.column(column_name)
        np = numpy()
        if not column.type.is_varlen:
            flat, nulls = self._flat(column_name)
            if not nulls:
                shared = np.frombuffer(flat, dtype=numpy_dtype(column.type.code))
                if column.type.code == DATE:
                    return shared.astype("M8[D]")  # NumPy has no 32-bit dates
                return shared if zero_copy else shared.copy()
        values = self._positional(column_name)
        objects = np.empty(len(values), dtype=object)
        objects[:] = values
        return objects

    def _flat(self, column_name: str) -> tuple[memoryview, int]:
        """Every position of one fixed-width column as a read-only buffer (null and dead rows 0, floats NaN), and how
        many are null. Decoded once and kept until the next write.
        """
        writes = self.slabs.writes  # before the view: a write in between makes the copy look stale, not fresh
        kept = self._fresh_flats().get(column_name)
        if kept is None:
            kept = (writes, *self._decoded(column_name))
            self._flats[column_name] = kept
        return kept[1], kept[2]

    def _fresh_flats(self) -> dict[str, tuple[int, memoryview, int]]:
        """The kept buffers that no write has made stale; the others are dropped."""
        writes = self.slabs.writes
        self._flats = {name: kept for name, kept in self._flats.items() if kept[0] == writes}
        return self._flats

    def _decoded(self, column_name: str) -> tuple[memoryview, int]:
        j = self.schema.index(column_name)
        dtype = self.schema.columns[j].type
        out = array(TYPECODES[dtype.code])
        nulls = 0
        with self.view() as view:
            for k in range(view.segments()):
                buffer = view.slabs.gather(j, k * SEGMENT, k * SEGMENT + view.size(k))
                nulls += buffer.null_count
                part: Any = array(TYPECODES[dtype.code], bytes(buffer.data))
                if buffer.null_count and dtype.is_float:
                    for row in range(buffer.rows):
                        if buffer.physical(row) is None:
                            part[row] = float("nan")
                out.extend(part)
        flat: Any = memoryview(bytes(out)).cast("?") if dtype.code == BOOL else memoryview(out).toreadonly()
        return flat, nulls

    def _positional(self, column_name: str) -> list[Any]:
        j = self.schema.index(column_name)
        out: list[Any] = []
        with self.view() as view:
            for k in range(view.segments()):
                out.extend(view.pieces(j, k)[0].take())
        return out


def _between(kind: DType, low: Any, high: Any) -> Optional[Predicate]:
    """The condition of lying between two numbers that a column of this type can hold, both included; None for all
    else. Binding conditions gives the same and takes as long as reading twenty rows.
    """
    if type(low) is not type(high) or type(low) not in (int, float) or not low <= high:
        return None
    if type(low) is float:
        return Predicate("range", low, high) if kind.is_float else None
    least, most = kind.lo, kind.hi
    if type(low) is not int or not kind.is_integer or least is None or most is None or low < least or high > most:
        return None
    return Predicate("range", low, high)
