"""Large batches of a columnar table in a file: their entries are written before the batch is in the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ._ext._common import SEGMENT
from .column import Staged as ColumnStaged
from .columnar_file import Segment, pieces_of
from .columnar_pack import packed_open
from .errors import InternalError
from .pieces import Bulk, Entry
from .segments import Draft, recorded
from .step import Call, assign, carry_out

if TYPE_CHECKING:
    from .columnar_base import ColumnarBase
    from .segments import SegmentFile
    from .table import Staged

__all__ = ["prepare", "publish", "replay"]


class _Prepared(NamedTuple):
    """Every column's state with the batch, and of each segment its rows and what its pieces were made from."""

    states: list[ColumnStaged]
    drafts: dict[int, Draft]


def prepare(table: ColumnarBase, staged: Staged) -> Bulk:
    """See ``Table.prepare``. The caller has the table to itself until the batch is published."""
    with table.writing():
        table.make_room()
        states = [column.staged(buffer, table.deleted[-1]) for column, buffer in zip(table.column_list, staged.buffers)]
        first, k = table.rows, states[0].k
        entries: list[tuple[int, Entry]] = []
        drafts: dict[int, Draft] = {}
        for at in range(len(states[0].parts)):
            rows = min(SEGMENT, first + staged.rows - (k + at) * SEGMENT)
            if rows > 0:
                segment = _segment(table, states, at)
                if rows < SEGMENT:
                    segment = packed_open(table, segment)
                entry, tokens = pieces_of(table.kernels, table.codes, segment, None, {})
                drafts[k + at] = (rows, tokens)
                entries.append((k + at, entry))
        return Bulk(first, staged.rows, entries, _Prepared(states, drafts))


def _segment(table: ColumnarBase, states: list[ColumnStaged], at: int) -> Segment:
    """The segment ``at`` of the staged ones; the first is the open one as it will be, with its deleted rows."""
    parts, zones = [state.parts[at] for state in states], [state.zones[at] for state in states]
    if at:
        return Segment(parts, zones, [None] * len(states), None)
    k = states[0].k
    overlays = [
        state.overlay if state.patched else column.overlays.get(k) for column, state in zip(table.column_list, states)
    ]
    return Segment(parts, zones, overlays, table.deleted[k])


def publish(
    table: ColumnarBase, file: SegmentFile, batch: Bulk, stored: Sequence[tuple[int, Entry]], then: Sequence[Call],
    first: Sequence[Call],
) -> int:  # fmt: skip
    """See ``Table.publish``."""
    states, drafts = batch.state
    with table.writing():
        if table.rows != batch.first:
            raise InternalError("rows were inserted while a batch was written")
        records = {k: recorded(drafts[k], entry) for k, entry in stored}
        table.touch_open(states)
        table.keep_records(records)
        published = table.publication(states, batch.first + batch.rows, len(table.deleted))
        carry_out(first, [*published, *file.remembering(records), *then])
        return batch.first


def replay(table: ColumnarBase, file: SegmentFile, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> None:
    """See ``Table.replay``."""
    with table.writing():
        table.make_room()
        k = len(table.deleted) - 1
        loaded = file.replayed(first, rows, stored)
        segments = [one.segment for one in loaded]
        records = {k + at: one.record for at, one in enumerate(loaded) if one.record is not None}
        states = [
            ColumnStaged(k, [one.parts[j] for one in segments], [one.zones[j] for one in segments], True)
            for j in range(len(table.column_list))
        ]
        noted: list[Call] = []
        for at, segment in enumerate(segments):
            if at:  # rows of the open segment may have been deleted since: what the table has of them stands
                noted.append(assign(table.deleted, k + at, segment.deleted))
            for column, overlay in zip(table.column_list, segment.overlays):
                noted += column.overlaying(k + at, overlay) if overlay is not None else []
        table.touch_open(states)
        table.keep_records(records)
        published = table.publication(states, first + rows, len(table.deleted))
        carry_out((), [*published, *noted, *file.remembering(records)])
