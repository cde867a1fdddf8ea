"""A columnar table as of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._ext._common import Zone
from .column import piece_chunks
from .scan import View

if TYPE_CHECKING:
    from ._ext import Backend, Chunk
    from .columnar_base import ColumnarBase

__all__ = ["ColumnarView"]


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
    """A columnar table as of one moment: its lists copied, everything in them shared."""

    def __init__(self, table: ColumnarBase, kernels: Backend) -> None:
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
        if part is None or type(part) is tuple or part.tail is None or size <= part.rows:
            return None
        tail = self._columns[j].kernels.codecs.Chunk.view(part.tail, 0, size - part.rows)
        return _Apart(lambda: self._part(j, k)[0], tail)

    def zone(self, j: int, k: int) -> Optional[Zone]:
        return self._zones[j][k]
