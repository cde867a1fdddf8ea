"""Change data capture: every committed change as an event, to a callback and into a file.

>>> from snapdb import CDCLog, ColumnDef, Schema, SnapDB
>>> events = []
>>> with SnapDB(":memory:", Schema([ColumnDef("id", "i64")]), cdc=CDCLog(events.append)) as db:
...     db.insert({"id": 7})
...     db.update(0, {"id": 8})
0
>>> [(event["op"], event["idx"], event["row"], event["old"], event["lsn"]) for event in events]
[('insert', 0, {'id': 7}, None, 1), ('update', 0, {'id': 8}, {'id': 7}, 2)]
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .commits import GAP, START, Commit, events_of, line
from .errors import ClosedError, ValidationError, ValueTypeError, shorten

if TYPE_CHECKING:
    from .change_file import ChangeFile

__all__ = ["CDCLog", "missing_from"]

Event = dict[str, Any]
KEPT = 10_000  # events that a log without a file keeps
OPERATIONS = ("insert", "update", "delete", "compact")


class CDCLog:
    """A log of changes: ``SnapDB(..., cdc=CDCLog(callback, log_file))``.

    An event is a dict: ``op`` (``insert``, ``update``, ``delete``, ``compact``), ``idx`` (row id), ``row`` (the row
    after the change) and ``old`` (before it), ``ts`` (seconds since 1970, None where it was read again after a crash),
    ``lsn`` and ``tx``. Events of one transaction have one ``lsn``, that of its end, and one ``tx``; both rise from
    commit to commit. After ``compact`` live rows have new ids: 0, 1, 2, … in the order of the old ones. Nothing is told
    of what is rolled back.

    ``callback(event)`` is called after the commit, in commit order, by a thread that writes; what it raises is logged.
    ``log_file`` gets a line of JSON for each event. After a crash it is made to agree with the database when that is
    opened with it again. OSError where it cannot be opened, ValidationError where it is another kind of file. A log
    belongs to one database at a time.
    """

    def __init__(
        self,
        callback: Optional[Callable[[Event], Any]] = None,
        log_file: Union[str, os.PathLike[str], None] = None,
    ) -> None:
        if callback is not None and not callable(callback):
            raise ValueTypeError(f"callback= takes a callable over events, not {type(callback).__name__}")
        self._callback = callback
        self._path: Optional[str] = None
        self._file: Optional[ChangeFile] = None
        self._lock = threading.RLock()
        self._kept: deque[Event] = deque()
        self._forgotten: Optional[int] = None  # LSN of the newest event that is kept no more
        self._attached = self._closed = False
        self.shape: Callable[[Event], Optional[Event]] = _as_it_is
        if log_file is not None:
            if not isinstance(log_file, (str, os.PathLike)):
                raise ValueTypeError(f"log_file= takes the name of a file, not {type(log_file).__name__}")
            self._path = os.path.abspath(os.fsdecode(os.fspath(log_file)))
            self._open()

    def _open(self) -> Optional[ChangeFile]:
        """The file, opened where it is not; None where there is none."""
        if self._path is not None and self._file is None:
            from .change_file import ChangeFile  # a log in memory needs nothing of storage

            self._file = ChangeFile(self._path)
        return self._file

    def __repr__(self) -> str:
        return f"CDCLog(callback={self._callback!r}, log_file={self._path!r})"

    # -- by hand ---------------------------------------------------------------
    def append(self, op: str, idx: int, row: Optional[Event] = None, old_row: Optional[Event] = None) -> None:
        """Add an event of one's own: its ``lsn`` and ``tx`` are None."""
        if op not in OPERATIONS:
            raise ValidationError(f"op is one of {', '.join(OPERATIONS)}, not {shorten(op)}")
        event = {"op": op, "idx": idx, "row": row, "old": old_row, "ts": time.time(), "lsn": None, "tx": None}
        with self._lock:
            self._usable()
            file = self._open()
            if file is not None:
                file.append(line(event))
            else:
                self._keep([event])
        if self._callback is not None:
            self._callback(event)

    def replay(self, since: Optional[int] = None) -> list[Event]:
        """The events on record, oldest first; ``since``: those with a greater LSN only. Where commits are missing
        (they were made with no log, or a log without a file has forgotten them) there is a dict in their place with
        ``op`` ``"gap"``, and the LSNs ``since`` (not with it) and ``lsn`` between which they lie.

        CorruptionError where a line of the file is damaged.
        """
        if since is not None and (not isinstance(since, int) or isinstance(since, bool)):
            raise ValueTypeError(f"since is an LSN, not {type(since).__name__} {shorten(since)}")
        with self._lock:
            was_open = self._file is not None
            file = self._open()
            if file is not None:
                found: Iterable[Event] = [event for event in file.events() if event["op"] != START]
                if not was_open:
                    self._shut()
            else:
                found = list(self._kept)
                if self._forgotten is not None:
                    found = [_gap(self._forgotten), *found]
        if since is None:
            return list(found)
        return [event for event in found if event["lsn"] is not None and event["lsn"] > since]

    def close(self) -> None:
        """Close the file; nothing is recorded or told any more, but ``replay`` still reads. Closing twice does nothing.
        The database that it belongs to closes the file too when it is closed.
        """
        with self._lock:
            self._closed = True
            self._shut()

    def _shut(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> CDCLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _usable(self) -> None:
        if self._closed:
            raise ClosedError("the change log is closed")

    # -- for the database that it belongs to --------------------------------------
    @property
    def has_file(self) -> bool:
        """Whether events go to a file."""
        return self._path is not None

    @property
    def file(self) -> Optional[ChangeFile]:
        """The file that events go to, while it is open."""
        return self._file

    def attach(self) -> None:
        """Belong to a database. ClosedError, ValidationError where it belongs to one already, OSError."""
        with self._lock:
            self._usable()
            if self._attached:
                raise ValidationError("this CDCLog belongs to a database that is open: make another one for this one")
            self._open()
            self._attached = True

    def begin(self, lsn: int) -> None:
        """A table in memory, at this LSN, is what is logged from here on. OSError."""
        if self._file is not None:
            self._file.begin(lsn)
        elif lsn:
            self.lost(lsn)

    def lost(self, lsn: int) -> None:
        """Commits up to this LSN are not on record."""
        self._forgotten = lsn

    def detach(self) -> None:
        """Belong to none."""
        with self._lock:
            self._attached = False
            self._shut()

    def record(self, commit: Commit) -> None:
        """Keep a commit; what cannot be written now is written later."""
        with self._lock:
            if self._file is not None:
                self._file.record(self._shaped(commit))
            elif not self._closed:
                self._keep(events_of(self._shaped(commit)))

    def _shaped(self, commit: Commit) -> Commit:
        if self.shape is _as_it_is:
            return commit
        shaped = [self.shape(one._asdict()) for one in commit.changes]
        return commit._replace(changes=[type(commit.changes[0])(**one) for one in shaped if one is not None])

    def _keep(self, events: list[Event]) -> None:
        kept = self._kept
        kept.extend(events)
        while len(kept) > KEPT:
            lsn = kept.popleft()["lsn"]
            self._forgotten = lsn if lsn is not None else self._forgotten

    def confirm(self, commit: Commit) -> bool:
        """A commit that the database had when it was opened; whether it was not on record."""
        if self._file is None:
            return False
        return self._file.confirm(self._shaped(commit))

    def sync(self) -> None:
        """Everything is on stable storage. StorageError."""
        with self._lock:
            if self._file is not None:
                self._file.sync()

    def take(self, commit: Commit) -> None:
        """Tell the callback of a commit."""
        if self._callback is None or self._closed:
            return
        problem: Optional[Exception] = None
        for event in events_of(self._shaped(commit)):
            for name in ("row", "old"):
                if event[name] is not None:
                    event[name] = dict(event[name])  # the callback's own
            try:
                self._callback(event)
            except Exception as error:  # noqa: BLE001 - somebody else's; the other events are told all the same
                problem = error
        if problem is not None:
            raise problem

    def unseen(self) -> None:
        """Nothing: a log is there from the beginning."""

    def stop(self) -> None:
        """Nothing: ``detach`` is called."""


def _as_it_is(event: Event) -> Optional[Event]:
    return event


def _gap(lsn: int) -> Event:
    return {"op": GAP, "idx": None, "row": None, "old": None, "ts": None, "lsn": lsn, "tx": None, "since": 0}


def missing_from(events: list[Event]) -> tuple[Optional[int], list[Event]]:
    """The LSN up to which commits are missing, None where none are, and the events behind the last gap."""
    for at in range(len(events) - 1, -1, -1):
        if events[at]["op"] == GAP:
            return events[at]["lsn"], events[at + 1 :]
    return None, events
