"""What is committed on one handle, told in order to whoever listens: a change log, watches.

``Announced`` stands in front of a journal and notes what each step is about to change; when the step has happened, the
rows are read back. A commit is given to *recorders* at once, by the thread that made it and while it has the table;
to *listeners* when that is over, by whichever thread is there first, so that a callback never holds up another writer.
Whoever has no listener has no feed, and pays nothing.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from .commits import COMPACT, DELETE, INSERT, UPDATE, Changed, Commit
from .journal import Journal, Step
from .step import assign

if TYPE_CHECKING:
    from .pieces import Entry
    from .storage.snapshots import Snapshot
    from .storage.store import Restoring
    from .table import Change, Staged, Table

__all__ = ["Announced", "Feed", "Listener", "NewRows", "Noted", "Recorder", "note_of", "same_rows"]


class Listener(Protocol):
    """Who is told of commits, in order, behind each write."""

    def take(self, commit: Commit) -> None:
        """A commit. What this raises is logged, and stops nothing."""

    def unseen(self) -> None:
        """Something was written that no commit tells of."""

    def stop(self) -> None:
        """The database is closed."""


class Recorder(Protocol):
    """Who keeps commits. It is called by the thread that has the table."""

    def record(self, commit: Commit) -> None:
        """Keep it. Raises nothing: what cannot be kept now is kept at the next call."""

    def sync(self) -> None:
        """All that was recorded is on stable storage. StorageError."""


class Noted:
    """What a step is about to do, and what was there: made before it, read after it."""

    renumbers = False

    def __init__(self, op: str, ids: Sequence[int], olds: Sequence[Any] = ()) -> None:
        self._op = op
        self._ids = ids
        self._olds = olds

    def changes(self, table: Table) -> list[Changed]:
        """What happened; the step is over and nothing came after it."""
        op, ids = self._op, self._ids
        if op == DELETE:
            return [Changed(op, idx, None, old) for idx, old in zip(ids, self._olds)]
        rows = table.rows_of(array("Q", ids))
        if op == INSERT:
            return [Changed(op, idx, row) for idx, row in zip(ids, rows)]
        return [Changed(op, idx, row, old) for idx, row, old in zip(ids, rows, self._olds)]


class NewRows(Noted):
    """Rows are about to be added behind those that are there."""

    def __init__(self, table: Table) -> None:
        super().__init__(INSERT, ())
        self._first = table.rows

    def changes(self, table: Table) -> list[Changed]:
        self._ids = range(self._first, table.rows)
        return super().changes(table)


class NotedCompact(Noted):
    """Live rows are about to be numbered anew."""

    def __init__(self, table: Table) -> None:
        super().__init__(COMPACT, ())
        self.renumbers = table.rows != len(table)

    def changes(self, table: Table) -> list[Changed]:
        return [Changed(COMPACT, None)]


class NotedRestore(Noted):
    """The whole table is about to become another state of it."""

    def __init__(self, table: Table) -> None:
        super().__init__("restore", ())
        self._before = dict(table.items())

    def changes(self, table: Table) -> list[Changed]:
        before, found = self._before, []
        after = dict(table.items())
        found = [Changed(DELETE, idx, None, old) for idx, old in before.items() if idx not in after]
        for idx, row in after.items():
            old = before.get(idx)
            if old is None:
                found.append(Changed(INSERT, idx, row))
            elif not same_rows(old, row):
                found.append(Changed(UPDATE, idx, row, old))
        return found


def same_rows(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether rows of one table are equal, a NaN being equal to itself."""
    return all(a == b or (a != a and b != b) for a, b in zip(one.values(), other.values()))


def note_of(table: Table, op: str, ids: Sequence[int] = ()) -> Noted:
    """What a step of this kind is about to do with these rows. ``op``: of a change, or ``restore``."""
    if op == COMPACT:
        return NotedCompact(table)
    if op == "restore":
        return NotedRestore(table)
    return Noted(op, ids, () if op == INSERT else table.rows_of(array("Q", ids)))


class Feed:
    """The commits of one table. ``lsn`` gives the LSN of the last frame of its log, None: it has no log, and commits
    are counted from ``first`` on.
    """

    def __init__(self, table: Table, lsn: Optional[Callable[[], int]] = None, first: int = 0) -> None:
        self._table = table
        self._log_lsn = lsn
        self._count = first
        self.recorders: list[Recorder] = []
        self.listeners: list[Listener] = []
        self._before = self.lsn  # the LSN before the step, or the transaction, that is under way
        self._step: Optional[tuple[Noted, Callable[[], bool]]] = None  # which may have happened
        self._inside: Optional[list[Changed]] = None  # changes of the transaction that is open
        self._renumbered = False
        self._pending: deque[Union[Commit, Callable[[], None]]] = deque()
        self._unseen = False
        self.inner: Any = None  # the journal behind ``Announced``
        self._telling = threading.Lock()
        self._thread: Optional[int] = None  # that has the transaction which is open

    @property
    def lsn(self) -> int:
        """The LSN of the last frame, or in memory the number of commits."""
        return self._count if self._log_lsn is None else self._log_lsn()

    # -- what happens: the caller has the table ---------------------------------
    def expect(self, noted: Noted, happened: Callable[[], bool]) -> None:
        """A step begins; ``happened`` tells whether it was carried out."""
        self.collect()
        if self._inside is None:
            self._before = self.lsn
        self._step = noted, happened

    def collect(self) -> None:
        """Note what the last step did, if that is still to be done: a signal may have come between."""
        step = self._step
        if step is None:
            return
        noted, happened = step
        if happened():
            changes = noted.changes(self._table)
            self._step = None
            if changes:
                self._note(changes, noted.renumbers)
        self._step = None

    def _note(self, changes: list[Changed], renumbers: bool) -> None:
        if self._inside is not None:
            self._inside += changes
            self._renumbered = self._renumbered or renumbers
        else:
            self._commit(changes, renumbers)

    def _commit(self, changes: list[Changed], renumbers: bool) -> None:
        lsn = self._count + 1 if self._log_lsn is None else self._log_lsn()
        commit = Commit(lsn, self._before + 1, time.time(), changes, renumbers)
        self._pending.append(commit)
        self._count, self._inside = lsn, None
        for recorder in self.recorders:
            recorder.record(commit)

    def found(self, commits: Sequence[Commit]) -> None:
        """Commits of before, which nobody was told of."""
        self._pending.extend(commits)

    def add(self, listener: Listener, first: Callable[[], None]) -> None:
        """Tell this one too; ``first`` is called before it is told of anything."""
        self.listeners.append(listener)
        self._pending.append(first)

    def restoring(self) -> Callable[[], None]:
        """The table is about to become another state of it; what is to be called when it has."""
        done = [False]
        self.expect(note_of(self._table, "restore"), lambda: done[0])

        def restored() -> None:
            done[0] = True
            self.collect()

        return restored

    def begin(self) -> None:
        """What follows is one transaction."""
        self.collect()
        self._before, self._thread = self.lsn, threading.get_ident()
        self._inside, self._renumbered = [], False

    def committed(self) -> None:
        """It is whole. Called again, it does nothing."""
        self.collect()
        if self._inside:
            self._commit(self._inside, self._renumbered)
        self._inside = None

    def rolled_back(self) -> None:
        """It never was."""
        self._inside = self._step = None

    def unseen(self) -> None:
        """A row was written as nobody listened yet."""
        self._unseen = True

    def sync(self) -> None:
        """All commits are recorded, on stable storage. StorageError."""
        self.collect()
        for recorder in self.recorders:
            recorder.sync()

    # -- who is told: nobody need have the table ----------------------------------
    def tell(self) -> None:
        """Tell listeners what is to be told. Where another thread, or a callback of this one, is at it, that one goes
        on with it. In a transaction nothing is told: what a callback writes would be a part of it.
        """
        if self._inside is not None and self._thread == threading.get_ident():
            return
        while (self._pending or self._unseen) and self._telling.acquire(blocking=False):
            try:
                self._tell()
            finally:
                self._telling.release()

    def _tell(self) -> None:
        if self._unseen:
            self._unseen = False
            for listener in list(self.listeners):
                _safely(listener.unseen)
        while self._pending:
            told = self._pending.popleft()
            if not isinstance(told, Commit):
                _safely(told)
                continue
            for listener in list(self.listeners):
                _safely(listener.take, told)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be told."""
        return not self._pending and not self._unseen

    @property
    def waiting(self) -> int:
        """How many changes are still to be told."""
        return sum([len(one.changes) for one in list(self._pending) if isinstance(one, Commit)])


def _safely(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception as error:
        import logging  # not at the top: it is slow to load

        logging.getLogger("snapdb").error("a listener failed: %s", error, exc_info=error)


class AnnouncedStep(Step):
    """A step of another journal, of which a feed is told."""

    def __init__(self, inner: Step, feed: Feed, noted: Noted, happened: Optional[Callable[[], bool]] = None) -> None:
        self._inner = inner
        self._feed = feed
        self._noted = noted
        self._happened = happened
        self._done = [False]  # set without a memory allocation, which could fail
        self.first = inner.first
        self.then = [*inner.then, assign(self._done, 0, True)]

    def __enter__(self) -> Step:
        self._inner.__enter__()
        self._feed.expect(self._noted, self._has_happened)
        return self

    def _has_happened(self) -> bool:
        return self._done[0] or (self._happened is not None and self._happened())

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._feed.collect()
        except MemoryError:
            pass  # it is done; the next call of the feed reads it
        finally:
            self._inner.__exit__(kind, error, traceback)


class Announced(Journal):
    """A journal whose steps are announced."""

    def __init__(self, inner: Journal, feed: Feed, table: Table) -> None:
        super().__init__(inner.lost)
        self._inner = inner
        self._feed = feed
        self._table = table

    def _step(
        self, inner: Step, op: str, ids: Sequence[int] = (), happened: Optional[Callable[[], bool]] = None
    ) -> Step:
        return AnnouncedStep(inner, self._feed, note_of(self._table, op, ids), happened)

    def row(self, idx: int, values: Sequence[Any], happened: Callable[[], bool]) -> Step:
        return self._step(self._inner.row(idx, values, happened), INSERT, (idx,), happened)

    def rows(self, first: int, staged: Staged) -> Step:
        return self._step(self._inner.rows(first, staged), INSERT, range(first, first + staged.rows))

    def bulk(self, first: int, rows: int, stored: Sequence[tuple[int, Entry]]) -> Step:
        return self._step(self._inner.bulk(first, rows, stored), INSERT, range(first, first + rows))

    def changes(self, changes: Sequence[Change]) -> Step:
        return self._step(self._inner.changes(changes), UPDATE, [change.idx for change in changes])

    def deletions(self, ids: Sequence[int]) -> Step:
        return self._step(self._inner.deletions(ids), DELETE, ids)

    def compacted(self) -> Step:
        return self._step(self._inner.compacted(), COMPACT)

    def snapshot(self, record: Snapshot, replaced: Optional[int]) -> Step:
        return self._inner.snapshot(record, replaced)

    def dropped(self, serial: int) -> Step:
        return self._inner.dropped(serial)

    def restored(self, restoring: Restoring) -> Step:
        return self._inner.restored(restoring)

    def begin(self) -> None:
        self._inner.begin()
        self._feed.begin()

    def commit(self) -> None:
        self._inner.commit()

    def keep(self) -> None:
        self._inner.keep()
        self._feed.committed()

    def settle(self) -> None:
        try:
            self._inner.settle()
        finally:
            self._feed.tell()

    def has_committed(self) -> bool:
        return self._inner.has_committed()

    def rollback(self) -> None:
        self._inner.rollback()
        self._feed.rolled_back()

    def lost(self, error: BaseException) -> None:
        self._inner.lost(error)
