"""What takes back a transaction on a columnar table: its segments as they were before it first changed them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._ext._common import Zone
from .step import Call, assign, carry_out

if TYPE_CHECKING:
    from .columnar_base import ColumnarBase
    from .columnar_file import Record

__all__ = ["Undo"]


class _Image(NamedTuple):
    """One column of one segment: a tail only grows, so its rows say what it was."""

    part: Any
    tail_rows: int
    zone: Optional[Zone]
    overlay: Optional[dict[int, Any]]
    updates: Optional[int]


class Undo:
    """A columnar table as of now. The table tells it which segment it is about to change."""

    def __init__(self, table: ColumnarBase) -> None:
        self._table = table
        self._rows = table.port.rows
        self._limit = table.port.limit
        self._segments = len(table.deleted)
        self._deleted_rows = table.deleted_rows
        self._hints = [column.hints.copy() for column in table.column_list]
        self._images: dict[int, tuple[list[_Image], Optional[bytearray]]] = {}
        self._records: dict[int, Optional[Record]] = {}

    def touch(self, k: int) -> None:
        """Segment k is about to change."""
        if k < self._segments and k not in self._images:
            images = [self._image(j, k) for j in range(len(self._table.column_list))]
            self._images[k] = (images, self._table.deleted[k])

    def _image(self, j: int, k: int) -> _Image:
        column = self._table.column_list[j]
        # a tail that was not told from its chunk yet would be put back with the rows appended to it since
        part = column.part(k) if k == self._segments - 1 else column.parts[k]
        tail = part[1] if type(part) is tuple else None
        rows = 0 if tail is None else tail.rows
        return _Image(part, rows, column.zones[k], column.overlay_copy(k), column.updates.get(k))

    def keep(self, ks: Iterable[int], records: dict[int, Record]) -> None:
        """What is noted of these segments' places in the file is about to change."""
        for k in ks:
            self._records.setdefault(k, records.get(k))

    def rollback(self) -> None:
        """Put everything back, in one step; again where memory ran out on the way to it."""
        table = self._table
        deleted = self._whole(table.deleted)
        found: list[Call] = []
        for j, column in enumerate(table.column_list):
            parts, zones = self._whole(column.parts), self._whole(column.zones)
            for k, (images, _) in self._images.items():
                image = images[j]
                parts[k], zones[k] = self._part(image), image.zone
                found += column.overlaying(k, image.overlay, image.updates)
            gone = [k for k in {*column.overlays, *column.updates} if k >= self._segments]
            found += [call for k in gone for call in column.overlaying(k, None)]
            found += [assign(column.parts, slice(None), parts), assign(column.zones, slice(None), zones)]
            found += [partial(setattr, column, "hints", self._hints[j]), *column.forgetting()]
        for k, (_, mask) in self._images.items():
            deleted[k] = mask
        found += [
            assign(table.deleted, slice(None), deleted),
            partial(setattr, table, "deleted_rows", self._deleted_rows),
            partial(setattr, table.port, "rows", self._rows),
            partial(setattr, table.port, "limit", self._limit),
        ]
        carry_out((), [*found, *table.recalling(self._records)])

    def _whole(self, now: list[Any]) -> list[Any]:
        """A list of as many segments as there were; one that is missing now was noted."""
        kept = now[: self._segments]
        return kept + [None] * (self._segments - len(kept))

    def _part(self, image: _Image) -> Any:
        part = image.part
        if type(part) is not tuple or part[1] is None or part[1].rows == image.tail_rows:
            return part
        sealed, tail = part
        first = type(tail)(tail.code)
        first.extend(tail, 0, image.tail_rows)
        return sealed, first
