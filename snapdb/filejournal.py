"""The journals of a table in a file: each change is a step that the log begins, or for a reader refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from .errors import ReadOnlyError
from .journal import Journal, Step
from .records import Record, Writer
from .step import Call, Half, assign, insist

if TYPE_CHECKING:
    from .pieces import Entry
    from .storage.snapshots import Snapshot
    from .storage.store import Restoring, Store
    from .table import Change, Staged, Table

__all__ = ["FileJournal", "ReadOnlyJournal"]

_FIRST, _MIDDLE, _LAST, _AS_SAID = 1, 0, 2, -1
BULK_SINCE_CHECKPOINT = 64 << 20  # bytes of large batches that make a checkpoint due


class ReadOnlyJournal(Journal):
    """The journal of a handle that may not write: asking it for a step raises."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def _refuse(self, *args: Any) -> Step:
        raise ReadOnlyError(f"{self._path!r} was opened with read_only=True", hint="open it again without it to write")

    row = rows = changes = deletions = compacted = bulk = snapshot = dropped = restored = begin = _refuse  # type: ignore[assignment]


class FileStep(Step):
    """A change of a table in a file. Frames that were logged for a change that then failed are taken back."""

    def __init__(
        self, store: Store, records: list[Record], inner: bool, happened: Optional[Callable[[], bool]]
    ) -> None:
        self._store = store
        self._done = [False]  # set without a memory allocation, which could fail
        self._happened = happened
        append = store.log.append
        self.first = [
            partial(append, record.kind, record.payload, _AS_SAID if inner else _flags(at, len(records)))
            for at, record in enumerate(records)
        ]
        self.then = [assign(self._done, 0, True)]

    def __enter__(self) -> Step:
        self._mark = self._store.log.mark()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        store = self._store
        if isinstance(error, Half):
            store.poison(error)
        elif kind is None or self._done[0] or (self._happened is not None and self._happened()):
            store.log.after()
        elif store.failed is None:
            insist(self._forget)

    def _forget(self) -> None:
        """Take back what was logged, if anything."""
        if self._store.log.mark() != self._mark:
            self._store.rollback_to(self._mark)


def _flags(at: int, count: int) -> int:
    """The flags of frame ``at`` of ``count`` that are one change outside a transaction."""
    return (_FIRST if at == 0 else _MIDDLE) | (_LAST if at == count - 1 else _MIDDLE)


class FileJournal(Journal):
    """The journal of a table in a file. The caller has the table to itself from a step's making to its end."""

    def __init__(self, store: Store, table: Table, largest: int) -> None:
        super().__init__()
        self._store = store
        self._writer = Writer(table, largest)
        self._inner = False
        self._begun = 0  # LSN before the transaction
        self._written: list[Entry] = []  # what this transaction has put into the file outside the log

    def _step(self, records: list[Record], happened: Optional[Callable[[], bool]] = None) -> Step:
        return FileStep(self._store, records, self._inner, happened) if records else Step()

    def row(self, idx: int, values: Sequence[Any], happened: Callable[[], bool]) -> Step:
        return self._step(self._writer.row(idx, values), happened)

    def rows(self, first: int, staged: Staged) -> Step:
        return self._step(self._writer.rows(first, staged) if staged.rows else [])

    def changes(self, changes: Sequence[Change]) -> Step:
        return self._step(self._writer.changes(changes))

    def deletions(self, ids: Sequence[int]) -> Step:
        return self._step(self._writer.deletions(ids))

    def compacted(self) -> Step:
        return self._step(self._writer.compacted())

    def bulk(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> Step:
        if self._inner:
            self._written += [entry for _, entry in stored]
        return self._step(self._writer.bulk(first, rows, stored))

    def snapshot(self, record: Snapshot, replaced: Optional[int]) -> Step:
        if replaced is not None:
            self._store.history.load(replaced)
        return self._outside(self._writer.snapshot(record, replaced), partial(self._store.pinned, record, replaced))

    def dropped(self, serial: int) -> Step:
        self._store.history.load(serial)
        return self._outside(self._writer.dropped(serial), partial(self._store.dropped, serial))

    def restored(self, restoring: Restoring) -> Step:
        records = self._writer.restored(restoring.record.serial)
        return self._outside(records, partial(self._store.restored, restoring))

    def _outside(self, records: list[Record], change: Call) -> Step:
        """A step that is a transaction of its own; ``change`` is the first of what comes behind the frames."""
        if self._inner:
            raise RuntimeError("a transaction is running")
        step = self._step(records)
        step.then = [change, *step.then]
        return step

    def begin(self) -> None:
        self._written = []
        self._begun = self._store.log.lsn
        self._store.begin()
        self._inner = True

    def commit(self) -> None:
        self._store.commit()
        self.keep()

    def keep(self) -> None:
        self._inner, self._written = False, []

    def settle(self) -> None:
        log = self._store.log
        if log.position > log.threshold:
            log.after()
        if self._store.bulk_bytes >= BULK_SINCE_CHECKPOINT:
            self._store.full()

    def has_committed(self) -> bool:
        log = self._store.log
        return bool(not log.inner and log.lsn > self._begun)

    def rollback(self) -> None:
        self._inner = False
        self._store.rollback()
        while self._written:
            self._store.forget(self._written[-1])
            self._written.pop()

    def lost(self, error: BaseException) -> None:
        self._store.poison(error)
