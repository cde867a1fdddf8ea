"""What a columnar table is made of: ``ColumnarTable`` builds on it, and what it hands itself to (its file, its view,
batches, what takes a transaction back) knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ._ext._common import SEGMENT
from .column import Column, Staged
from .columnar_file import Record, Segment
from .step import Call
from .table import Table

__all__ = ["ColumnarBase"]


class ColumnarBase(Table):
    """Columns in segments, and which of their rows are deleted. ``ColumnarTable`` makes and changes all of it."""

    column_list: list[Column]
    codes: list[int]  # of the columns' types
    deleted: list[Optional[bytearray]]  # bitmaps of 65,536 rows, never changed in place
    deleted_rows: int
    deletions: int  # one more with every change of the bitmaps
    port: Any  # the kernel's RowPort, which counts the rows

    @property
    def rows(self) -> int:
        """Row positions given out."""
        count: int = self.port.rows
        return count

    def __len__(self) -> int:
        count: int = self.port.rows - self.deleted_rows
        return count

    def segment_rows(self, k: int) -> int:
        """Row positions of segment k."""
        rows: int = self.port.rows
        return max(0, min(SEGMENT, rows - k * SEGMENT))

    def segment(self, k: int) -> Optional[Segment]:
        """Segment k as it is now, chunks that are not read yet as their stand-ins; None where it has no live row."""
        columns = self.column_list
        if not self.segment_rows(k) or columns[0].parts[k] is None:
            return None
        return Segment(
            [column.parts[k] for column in columns],
            [column.zones[k] for column in columns],
            [column.overlays.get(k) for column in columns],
            self.deleted[k],
        )

    # -- what ColumnarTable provides -----------------------------------------

    def make_room(self) -> None:
        """Fold a full tail: no row may be appended past the end of the open segment."""
        raise NotImplementedError

    def load_all(self) -> None:
        """Read every entry of the file that is not read yet, and no value."""
        raise NotImplementedError

    def publication(self, states: list[Staged], rows: int, known: int) -> list[Call]:
        """The calls that make prepared states of every column the table's own, for one step.

        The table then has ``rows`` positions; its list of deleted rows has ``known`` segments by then.
        """
        raise NotImplementedError

    def touch_open(self, states: list[Staged]) -> None:
        """The open segment is about to become what is staged, with those that follow."""
        raise NotImplementedError

    def keep_records(self, ks: Iterable[int]) -> None:
        """What is noted of these segments' places in the file is about to change."""
        raise NotImplementedError

    def recalling(self, records: Mapping[int, Optional[Record]]) -> list[Call]:
        """The calls that take back what was noted of the file and of deleted rows, for one step."""
        raise NotImplementedError
