"""A columnar table as of one moment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._ext._common import SEGMENT, Zone
from .aggregate import _canonical
from .columnar_file import Packed
from .columnar_patch import piece_chunks
from .scan import Selector, View, Where

if TYPE_CHECKING:
    from ._ext import Backend, Chunk
    from .columnar_base import ColumnarBase

__all__ = ["ColumnarView", "swept_sum"]


class _Apart(Sequence[Any]):
    """The two chunks of an open segment of which the first is read when it is asked for."""

    def __init__(self, sealed: Callable[[], Any], tail: Any) -> None:
        self._sealed = sealed
        self._tail = tail

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: Any) -> Any:
        if at == 0:
            return self._sealed()
        return [self._sealed(), self._tail][at] if at != 1 else self._tail


class ColumnarView(View):
    """A columnar table as of one moment: its lists copied, everything in them shared. ``only``: of these columns and
    of the first, which shows the table's shape; nothing is known of the others.
    """

    def __init__(self, table: ColumnarBase, kernels: Backend, only: Optional[Collection[int]] = None) -> None:
        super().__init__(kernels, table.kernels, table.schema, table.port.rows)
        self._columns = table.column_list
        asked = None if only is None else (0, *only)
        self._sweep = sweep = table.kernels.codecs.Sweep.of(self._columns, asked, table.deleted, self.rows)
        self._parts: list[list[Any]] = sweep.parts
        self._zones: list[list[Optional[Zone]]] = sweep.zones
        self._overlays: list[dict[int, Any]] = sweep.overlays
        self._deleted: list[Optional[bytearray]] = sweep.deleted
        self._patched: dict[tuple[int, int], Sequence[Chunk]] = {}

    def sweep(self) -> Any:
        return None if self._foreign else self._sweep

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
        part = self._parts[0][k]
        sealed = part[0] if type(part) is tuple else part
        base = 0 if sealed is None else sealed.rows
        rest = self.size(k) - base
        return [rows for rows in (base, rest) if rows]

    def _part(self, j: int, k: int) -> Any:
        part = self._parts[j][k]
        if part is not None and type(part) is not tuple:
            part = self._parts[j][k] = part.resolve()
        return part

    def pieces(self, j: int, k: int) -> Sequence[Chunk]:
        overlay = self._overlays[j].get(k)
        if not overlay:
            apart = self._apart(j, k)
            if apart is not None:
                return apart
            return piece_chunks(self._columns[j], self._part(j, k), None, self.size(k))
        found = self._patched.get((j, k))
        if found is None:
            # updates are patched into a decoded copy: keep those of one segment, which a query reads piece by piece
            if any(segment != k for _, segment in self._patched):
                self._patched.clear()
            found = self._patched[j, k] = piece_chunks(self._columns[j], self._part(j, k), overlay, self.size(k))
        return found

    def _apart(self, j: int, k: int) -> Optional[_Apart]:
        """The chunks of an open segment that is not read yet; None for any other."""
        part, size = self._parts[j][k], self.size(k)
        if part is None or type(part) is tuple or type(part.tail) in (type(None), Packed) or size <= part.rows:
            return None
        tail = self._columns[j].kernels.codecs.Chunk.view(part.tail, 0, size - part.rows)
        return _Apart(lambda: self._part(j, k)[0], tail)

    def zone(self, j: int, k: int) -> Optional[Zone]:
        return self._zones[j][k]


def swept_sum(table: ColumnarBase, j: int, where: Optional[Selector], zone_answers: bool) -> Any:
    """``aggregate`` of a sum where one sweep does all of it, None elsewhere: of a small table it is done in less time
    than a view takes to be made.
    """
    if where is not None and type(where) is not Where:
        return None
    asked = [j] if where is None else [j, *[column for column, _ in where.plan]]
    columns = table.column_list
    for column in asked:
        if columns[column].overlays:
            return None
    codecs = table.kernels.codecs
    with table.lock:
        table.load_all()
        rows = table.port.rows
        sweep = codecs.Sweep.of(columns, asked, table.deleted, rows)
    terms = None if where is None else codecs.Filter([(k, *p) for k, p in where.plan], where.combine == "or")
    total, stopped = sweep.sum(terms, j, 0, 0.0 if columns[j].type.is_float else 0, zone_answers)
    if stopped * SEGMENT < rows:
        return None
    return _canonical(total)
