"""The row engine: fixed-width rows in slabs. Point reads and writes are one kernel call; scans gather a column
of a segment at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _ext
from ._ext._common import BOOL, DATE, SEGMENT, TYPECODES
from .column import numpy, numpy_dtype
from .errors import SchemaError
from .scan import Page, View, live_buffers, pick
from .step import Call, calls, run
from .table import Change, Staged, Table

if TYPE_CHECKING:
    from ._ext import Backend, Chunk, SlabView
    from .schema import Schema

__all__ = ["RowTable", "RowView"]

MIN_PAGE, MAX_PAGE = 64, 65535


FEW = 64  # rows of a segment that are read one by one rather than by gathering the segment


class RowView(View):
    """A row table as of one moment: its slabs pinned; columns are gathered a segment at a time."""

    def __init__(self, table: RowTable, kernels: Backend) -> None:
        self.slabs: SlabView = table.slabs.pin()
        super().__init__(kernels, table.kernels, table.schema, self.slabs.rows)
        self._own = table.kernels
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

    def take(self, j: int, page: Page) -> list[Any]:
        if page.rows is None or len(page.rows) > FEW or (j, page.k) in self._gathered:
            return super().take(j, page)
        places = [page.k * SEGMENT + row for row in page.rows]
        return [self.slabs.gather(j, at, at + 1).fetch(0) for at in places]


@contextmanager
def _pinned(slabs: Any) -> Iterator[SlabView]:
    """The rows as of now, to take a write of several rows back to."""
    view: SlabView = slabs.pin()
    try:
        yield view
    finally:
        view.release()


class RowTable(Table):
    """A row table in memory. SchemaError where ``page_size`` is not 64 … 65,535 or a row's fixed part does not
    fit in it.
    """

    storage_type = "row"

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
        self.slabs = self._new_slabs()
        self._bind()

    def _new_slabs(self) -> Any:
        return self.kernels.slab.SlabTable(
            self.codec, self.schema.offsets, self.schema.row_width, self.page_size, self.lock, self._slowly
        )

    def _bind(self) -> None:
        """Single-row calls go straight to the kernel, without a Python frame between."""
        slabs = self.slabs
        self.get: Callable[[int], Optional[dict[str, Any]]] = slabs.get  # type: ignore[assignment]
        self.contains: Callable[[int], bool] = slabs.contains  # type: ignore[assignment]
        self.get_raw: Callable[[int], Optional[memoryview]] = slabs.get_raw
        self.insert: Callable[[Mapping[str, Any]], int] = slabs.insert

    def _slowly(self, name: str, *args: Any) -> Any:
        """A write that met one of more than one step: wait for it."""
        step = {"insert": "append", "update": "change", "delete": "remove"}[name]
        with self.lock:
            if name != "insert":
                self.check_live(args[:1])  # it may have gone meanwhile
            return getattr(self.slabs, step)(*args)

    # -- writes ------------------------------------------------------------

    def append_values(self, values: Sequence[Any], first: Sequence[Call] = ()) -> None:
        with self.lock:
            run(calls([*first, partial(self.slabs.append_values, values)]))

    def update(self, idx: int, row: Mapping[str, Any]) -> None:
        """Merge ``row`` into a live row; KeyError where there is none."""
        if not self.contains(idx):
            raise self.missing(idx)
        self.slabs.update(idx, row)

    def delete(self, idx: int) -> None:
        """Delete a live row; KeyError where there is none."""
        if not self.contains(idx):
            raise self.missing(idx)
        self.slabs.delete(idx)

    def batch_insert(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Append rows, all or none; returns the first one's id."""
        return self.extend(self.stage(rows))

    def extend(self, staged: Staged, then: Sequence[Call] = ()) -> int:
        with self.writing():
            first: int = self.slabs.rows
            run(calls([partial(self.slabs.extend, staged.buffers), *then]))
            return first

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The lock, and single-row writes of other threads, which take none, wait."""
        with self.lock:
            was = self.slabs.paused
            try:
                self.slabs.paused = True
                yield
            finally:
                self.slabs.paused = was

    def apply(self, changes: Iterable[Change], then: Sequence[Call] = ()) -> None:
        changes = list(changes)
        with self.writing(), _pinned(self.slabs) as before:
            try:
                run(starmap(self.slabs.put, changes), calls(then))
            except BaseException:  # no memory for a slab's copy half way: what is done is undone
                for idx, values in changes:
                    self.slabs.put(idx, [(j, before.gather(j, idx, idx + 1).physical(0)) for j, _ in values])
                raise

    def remove(self, ids: Iterable[int], then: Sequence[Call] = ()) -> None:
        ids = list(ids)
        with self.writing(), _pinned(self.slabs) as before:
            try:
                run(map(self.slabs.remove, ids), calls(then))
            except BaseException:
                columns = range(len(self.schema.columns))
                for idx in [idx for idx in ids if not self.contains(idx)]:
                    self.slabs.revive(idx, [before.gather(j, idx, idx + 1).physical(0) for j in columns])
                raise

    def compact(self, then: Sequence[Call] = ()) -> int:
        """Keep live rows only, ids renumbered densely in order; returns bytes of memory given back."""
        with self.writing():
            before = self.memory_usage()
            with self.view() as view:
                buffers = live_buffers(view)
            fresh = self._new_slabs()
            fresh.extend(buffers)
            run(calls([partial(self.slabs.take_over, fresh), *then]))
            return max(0, before - self.memory_usage())

    # -- reads -------------------------------------------------------------

    def view(self, use_numpy: Optional[bool] = None) -> RowView:
        kernels = pick(self.kernels, use_numpy)
        with self.lock:  # a write of several rows is seen whole or not at all
            return RowView(self, kernels)

    def items(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.lock:
            items: Iterator[tuple[int, dict[str, Any]]] = self.slabs.pin().items()
        return items

    def raw_items(self) -> Iterator[tuple[int, memoryview]]:
        """(id, read-only bytes of the row's fixed part) of the live rows in id order."""
        with self.lock:
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
            column.name: {"encoding": "row", "bytes": column.width * rows, "bits_per_value": float(column.width * 8)}
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
