"""What the log says of a table: one payload for each kind of change, made and read back (``docs/format.md``)."""

from __future__ import annotations

import gc
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from .commits import COMPACT as COMPACTED
from .commits import DELETE as GONE
from .commits import UPDATE, Changed, Commit
from .errors import CorruptionError, SnapDBError, ValidationError
from .feed import NewRows, Noted, note_of
from .pieces import Entry
from .storage.catalog import decode_items, encode_items
from .storage.recovery import DROP, RESTORE, SNAPSHOT
from .storage.snapshots import Snapshot, encode_frame
from .table import Change, Staged, Table

if TYPE_CHECKING:
    from .storage.store import Frame

__all__ = [
    "BULK", "CHANGE", "COMMIT", "COMPACT", "DELETE", "DROP", "RESTORE", "ROW", "ROWS", "SNAPSHOT", "Record", "Replay",
    "Writer", "read_bulk",
]  # fmt: skip

ROW, ROWS, CHANGE, DELETE, COMPACT, BULK, COMMIT = range(1, 8)
_AT_ONCE = 4096  # changed rows that one frame is first tried with
_IDS_AT_ONCE = 1 << 20
_ROWS_HEAD = struct.Struct("<QII")
_BULK_HEAD = struct.Struct("<II")
_BULK_BODY = struct.Struct("<QQII")
_U64 = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")


class Record(NamedTuple):
    """One frame to be: its kind and payload."""

    kind: int
    payload: Any


class Writer:
    """Makes the records of one table."""

    def __init__(self, table: Table, largest: int) -> None:
        self._codec = table.codec
        self._pack_column = table.kernels.values.pack_column
        self._largest = largest

    def row(self, idx: int, values: Sequence[Any]) -> list[Record]:
        """One inserted row of physical values."""
        return [self._fitting(Record(ROW, _U64.pack(idx) + self._codec.pack(values)), "row")]

    def rows(self, first: int, staged: Staged) -> list[Record]:
        """A batch of inserted rows."""
        columns = [self._pack_column(buffer) for buffer in staged.buffers]
        head = _ROWS_HEAD.pack(first, len(columns), 0)
        return [Record(ROWS, b"".join([head, *(part for c in columns for part in (_U64.pack(len(c)), c))]))]

    def changes(self, changes: Sequence[Change]) -> list[Record]:
        """Updated rows, in as many frames as they need."""
        found: list[Record] = []
        remaining = iter(changes)
        while True:
            some = list(islice(remaining, _AT_ONCE))
            if not some:
                return found
            found += self._split(some)

    def _split(self, changes: list[Change]) -> list[Record]:
        payload = self._codec.pack_changes(changes)
        if len(payload) <= self._largest or len(changes) == 1:
            return [self._fitting(Record(CHANGE, payload), "update")]
        half = len(changes) // 2
        return self._split(changes[:half]) + self._split(changes[half:])

    def _fitting(self, record: Record, what: str) -> Record:
        if len(record.payload) > self._largest:
            raise ValidationError(
                f"one {what} of {len(record.payload)} bytes is more than the log takes at once ({self._largest})",
                hint="insert rows with such values by batch_insert()",
            )
        return record

    def deletions(self, ids: Sequence[int]) -> list[Record]:
        """Deleted rows."""
        return [
            Record(DELETE, _little(array("Q", ids[start : start + _IDS_AT_ONCE])))
            for start in range(0, len(ids), _IDS_AT_ONCE)
        ]

    def compacted(self) -> list[Record]:
        """Live rows only, renumbered."""
        return [Record(COMPACT, b"")]

    def snapshot(self, record: Snapshot, replaced: Optional[int] = None) -> list[Record]:
        """A snapshot was made, in place of another one: one change."""
        return [*([] if replaced is None else self.dropped(replaced)), Record(SNAPSHOT, encode_frame(record))]

    def dropped(self, serial: int) -> list[Record]:
        """A snapshot is no more."""
        return [Record(DROP, _U64.pack(serial))]

    def restored(self, serial: int) -> list[Record]:
        """The table is what a snapshot shows."""
        return [Record(RESTORE, _U64.pack(serial))]

    def bulk(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> list[Record]:
        """A batch whose entries are in the file already."""
        refs = [piece.ref for _, entry in stored for piece in entry.pieces if piece.ref is not None]
        extents = sorted({ref[:2] for ref in refs})
        tagged = 1 if refs and refs[0].tag else 0
        head = _BULK_HEAD.pack(len(extents), tagged) + b"".join(_PAIR.pack(*extent) for extent in extents)
        return [Record(BULK, head + _BULK_BODY.pack(first, rows, len(stored), 0) + encode_items(stored))]


def _little(values: array[int]) -> bytes:
    import sys

    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


class Replay:
    """Carries out frames on a table, which is not logged meanwhile. CorruptionError for what makes no sense.

    ``history`` carries out those that make, drop or restore snapshots.
    """

    def __init__(self, table: Table, path: str, history: Callable[[Frame], None]) -> None:
        self._table = table
        self._path = path
        self._history = history
        self._values = table.kernels.values

    def run(self, frames: Iterable[Frame], told: Optional[Callable[[Commit], Any]] = None) -> None:
        """Every frame in order; single-row inserts that follow each other go in together. ``told``: is told of each
        commit; then they go in one by one.
        """
        enabled = gc.isenabled()
        gc.disable()  # hundreds of thousands of small objects, no garbage: looking for it took half of the time
        try:
            if told is None:
                self._run(frames)
            else:
                self._tell(frames, told)
        finally:
            if enabled:
                gc.enable()

    def _run(self, frames: Iterable[Frame]) -> None:
        waiting: list[Frame] = []
        for frame in frames:
            if frame.kind == ROW:
                waiting.append(frame)
                continue
            self._rows(waiting)
            waiting = []
            self._guarded(frame)
        self._rows(waiting)

    def _tell(self, frames: Iterable[Frame], told: Callable[[Commit], Any]) -> None:
        changes: list[Changed] = []
        renumbered = False
        for frame in frames:
            noted = self._noted(frame)
            if frame.kind == ROW:
                self._rows([frame])
            else:
                self._guarded(frame)
            if noted is not None:
                changes += noted.changes(self._table)
                renumbered = renumbered or noted.renumbers
            if frame.last:
                if changes:
                    told(Commit(frame.lsn, frame.transaction, None, changes, renumbered))
                changes, renumbered = [], False

    def _noted(self, frame: Frame) -> Optional[Noted]:
        """What a frame is about to do; None: nothing to rows. It may be damaged, which carrying it out will say."""
        table, payload = self._table, frame.payload
        try:
            if frame.kind == CHANGE:
                return note_of(table, UPDATE, [idx for idx, _ in table.codec.unpack_changes(payload)])
            if frame.kind == DELETE:
                return note_of(table, GONE, [idx for (idx,) in _U64.iter_unpack(payload)])
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
            raise self._damaged(frame, error) from error
        if frame.kind in (ROW, ROWS, BULK):
            return NewRows(table)
        if frame.kind == COMPACT:
            return note_of(table, COMPACTED)
        return note_of(table, "restore") if frame.kind == RESTORE else None

    def _guarded(self, frame: Frame) -> None:
        try:
            self._one(frame)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
            if isinstance(error, CorruptionError):
                raise
            raise self._damaged(frame, error) from error

    def _damaged(self, frame: Frame, error: object) -> CorruptionError:
        text = error if isinstance(error, (SnapDBError, str)) else f"{type(error).__name__}: {error}"
        message = f"{self._path}: the log's frame {frame.lsn} cannot be carried out: {text}"
        return CorruptionError(message, path=self._path)

    def _rows(self, frames: list[Frame]) -> None:
        if not frames:
            return
        table, first = self._table, self._table.rows
        try:
            for expected, frame in enumerate(frames, first):
                (idx,) = _U64.unpack_from(frame.payload)
                if idx != expected:
                    raise self._damaged(frame, f"it inserts row {idx} where {expected} is next")
            data = b"".join(frame.payload for frame in frames)
            table.extend(Staged(len(frames), table.codec.unpack_rows(data, list(_places(frames)))))
        except (ValueError, struct.error) as error:
            raise self._damaged(frames[0], error) from error

    def _one(self, frame: Frame) -> None:
        table, payload = self._table, frame.payload
        if frame.kind == ROWS:
            table.extend(self._batch(payload))
        elif frame.kind == CHANGE:
            changes = [Change(idx, values) for idx, values in table.codec.unpack_changes(payload)]
            table.check_live(change.idx for change in changes)
            table.apply(changes)
        elif frame.kind == DELETE:
            ids = [idx for (idx,) in _U64.iter_unpack(payload)]
            table.check_live(ids)
            table.remove(ids)
        elif frame.kind == COMPACT:
            table.compact()
            table.generation = table.last_generation = max(table.generation, table.last_generation) + 1
        elif frame.kind == BULK:
            table.replay(*read_bulk(payload))
        elif frame.kind in (SNAPSHOT, DROP, RESTORE):
            self._history(frame)
        elif frame.kind != COMMIT:
            raise ValueError(f"unknown kind {frame.kind}")

    def _batch(self, payload: Any) -> Staged:
        first, count, _ = _ROWS_HEAD.unpack_from(payload)
        specs = self._table.schema.specs
        if first != self._table.rows or count != len(specs):
            raise ValueError(f"it inserts rows from {first} on in {count} columns")
        buffers, at = [], _ROWS_HEAD.size
        for spec in specs:
            (size,) = _U64.unpack_from(payload, at)
            at += _U64.size
            if size > len(payload) - at:
                raise ValueError("a column is cut short")
            buffers.append(self._values.unpack_column(payload[at : at + size], spec[1]))
            at += size
        if at != len(payload) or len({buffer.rows for buffer in buffers}) != 1:
            raise ValueError("its columns differ in length")
        return Staged(buffers[0].rows, buffers)


def _places(frames: Iterable[Frame]) -> Iterator[tuple[int, int]]:
    """Where the packed rows are in the joined payloads."""
    ends = list(accumulate([len(frame.payload) for frame in frames]))
    return zip([_U64.size, *(end + _U64.size for end in ends)], ends)


def read_bulk(payload: Any) -> tuple[int, int, list[tuple[int, Entry]]]:
    extents, tagged = _BULK_HEAD.unpack_from(payload)
    at = _BULK_HEAD.size + extents * _PAIR.size
    first, rows, entries, _ = _BULK_BODY.unpack_from(payload, at)
    return first, rows, decode_items(payload[at + _BULK_BODY.size :], entries, tagged=bool(tagged))
