"""The file of a change log: lines of JSON, and how it is made to agree with the database when that is opened.

The catalog's header says how far the log went at the last checkpoint: the *place*, ``{"log", "start", "lsn", "at"}``.
Lines before byte ``at`` are on stable storage, for a checkpoint waits for them; those behind it are of commits that the
write-ahead log still has. Opening replays these, keeps the lines that say the same and writes the others anew, so that
nothing is missing and nothing stands twice. See *Change log* in ``docs/format.md``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from .commits import GAP, START, Commit, events_of, line, unline
from .errors import CorruptionError, StorageError, ValidationError
from .storage.files import layer_for
from .storage.layer import File

__all__ = ["ChangeFile", "Place", "read_place"]

_CHUNK = 1 << 20


class Place(NamedTuple):
    """How far a log went: its ``log`` id stands in the line at byte ``start``, and the lines before byte ``at`` tell of
    every commit up to ``lsn``.
    """

    log: str
    start: int
    lsn: int
    at: int


def read_place(stored: Any, path: str) -> Optional[Place]:
    """The place that a file's header has, None where it has none. CorruptionError."""
    if stored is None:
        return None
    try:
        place = Place(**stored)
    except TypeError:
        place = Place("", -1, -1, -1)
    numbers = place[1:]
    if not isinstance(place.log, str) or not all(type(one) is int and one >= 0 for one in numbers):
        raise CorruptionError(f"{path}: the stored place in the change log cannot be read: {stored!r}", path=path)
    return place


class _Group(NamedTuple):
    """The lines of one commit in a file: where they begin, and how many there are."""

    lsn: int
    start: int
    lines: int


class ChangeFile:
    """A file of changes, open for appending. OSError where it cannot be; ValidationError for a file that is no log."""

    def __init__(self, path: str) -> None:
        self.path = path
        layer = layer_for(path)
        if layer.exists(path):
            self._file: File = layer.open(path, "w")
        else:
            self._file = layer.open(path, "x")
            layer.sync_dir(path)
        self._backlog: list[bytes] = []  # of commits that could not be written yet
        self._dirty = False  # behind the end may be what is left of a write that failed
        self._failed: Optional[BaseException] = None
        self._log = ""
        self._start = 0
        self._left: list[_Group] = []  # lines that the database has still to say are right
        try:
            self._end = self._sound_end()
            self._dirty = self._file.size() > self._end
        except BaseException:
            self._file.close()
            raise

    def _sound_end(self) -> int:
        """Where the last whole line ends."""
        size = self._file.size()
        if size == 0:
            return 0
        first = self._file.pread(_CHUNK, 0).partition(b"\n")
        if first[1]:
            try:
                unline(first[0])
            except ValueError as error:
                what = f"{self.path!r} is not a change log: its first line says so: {error}"
                raise ValidationError(what, hint="give log_file= the name of a new file") from None
        at = size
        while at > 0:
            begin = max(0, at - _CHUNK)
            found = self._file.pread(at - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            at = begin
        if not self._file.pread(1, 0) == b"{":
            raise ValidationError(f"{self.path!r} is not a change log", hint="give log_file= the name of a new file")
        return 0

    # -- opening a database --------------------------------------------------------
    def resume(self, place: Optional[Place], root_lsn: int) -> bool:
        """Go on behind a place, where this is the file that has it and it is that of the root that was opened; whether
        it is. What stands behind it is to be confirmed by ``confirm``, commit by commit, and then ``settle``. Else
        ``begin`` or ``gap`` are to be called.
        """
        if place is None or not self._has(place):
            return False
        self._log, self._start = place.log, place.start
        if place.lsn != root_lsn:
            return True
        self._left = list(self._groups(place.at))
        return True

    def _has(self, place: Place) -> bool:
        if place.at > self._end or place.start >= place.at:
            return False
        if self._file.pread(1, place.at - 1) != b"\n":
            return False
        head = self._file.pread(4096, place.start).partition(b"\n")
        try:
            event = unline(head[0])
        except ValueError:
            return False
        return bool(head[1]) and event["op"] == START and event.get("log") == place.log

    def _groups(self, begin: int) -> Iterator[_Group]:
        """The commits from a byte on, up to the first line that is none."""
        group: Optional[_Group] = None
        for at, data in self._lines(begin):
            try:
                event = unline(data)
            except ValueError:
                break
            lsn = event.get("lsn")
            if lsn is None:
                continue  # somebody's own
            if group is not None and group.lsn == lsn:
                group = group._replace(lines=group.lines + 1)
                continue
            if group is not None:
                yield group
            group = _Group(lsn, at, 1)
        if group is not None:
            yield group

    def _lines(self, begin: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines without their ends, and where each begins."""
        at, rest = begin, b""
        while at + len(rest) < self._end:
            more = self._file.pread(min(_CHUNK, self._end - at - len(rest)), at + len(rest))
            if not more:
                return  # it was cut meanwhile
            *lines, rest = (rest + more).split(b"\n")
            for one in lines:
                yield at, one
                at += len(one) + 1

    def confirm(self, commit: Commit) -> bool:
        """The database has this commit, behind those confirmed so far. Whether its lines had to be written."""
        if self._left:
            group = self._left[0]
            if (group.lsn, group.lines) == (commit.lsn, len(commit.changes)):
                del self._left[0]
                return False
            self._cut(group.start)
        self.record(commit)
        return True

    def settle(self) -> None:
        """Nothing but what was confirmed is in the database."""
        if self._left:
            self._cut(self._left[0].start)

    def _cut(self, end: int) -> None:
        self._left = []
        self._end, self._dirty = end, True

    def begin(self, lsn: int) -> None:
        """From here on the log is of another database, which is at this LSN."""
        self._log, self._start = os.urandom(16).hex(), self._end
        self._write(self._mark(START, lsn, None, self._log))
        if lsn:
            self.gap(0, lsn)

    def gap(self, since: int, lsn: int) -> None:
        """Commits from ``since`` (not with it) to ``lsn`` are not in the log."""
        self._write(self._mark(GAP, lsn, since))

    def _mark(self, op: str, lsn: int, since: Optional[int], log: Optional[str] = None) -> bytes:
        event = {"op": op, "idx": None, "row": None, "old": None, "ts": time.time(), "lsn": lsn, "tx": None}
        more = {"log": log} if since is None else {"since": since}
        return line({**event, **more})

    def place(self, lsn: int) -> Place:
        """The place as of now, behind a ``sync``: every commit up to ``lsn`` is in the file."""
        return Place(self._log, self._start, lsn, self._end)

    # -- writing -------------------------------------------------------------------
    def record(self, commit: Commit) -> None:
        """Write a commit; what cannot be written now is kept for the next call."""
        self.append(b"".join(map(line, events_of(commit))))

    def append(self, data: bytes) -> None:
        """Write lines; what cannot be written now is kept for the next call."""
        self._backlog.append(data)
        try:
            self._catch_up()
        except OSError as error:
            import logging  # not at the top: it is slow to load

            logging.getLogger("snapdb").warning(
                "the change log %s cannot be written, changes are kept until it can: %s", self.path, error
            )

    def _catch_up(self) -> None:
        while self._backlog:
            self._write(self._backlog[0])
            del self._backlog[0]
        if self._dirty:
            self._trim()

    def _write(self, data: bytes) -> None:
        if self._dirty:
            self._trim()
        self._dirty = True
        self._file.pwrite(data, self._end)
        self._end += len(data)
        self._dirty = False

    def _trim(self) -> None:
        self._file.truncate(self._end)
        self._dirty = False

    def sync(self) -> None:
        """Everything is on stable storage. StorageError."""
        try:
            if self._failed is not None:
                raise self._failed
            self._catch_up()
            try:
                self._file.sync()
            except OSError as error:
                self._failed = error  # what the system has lost it will not say again
                raise
        except OSError as error:
            problem = StorageError(
                f"the change log {self.path!r} cannot be written: {error}",
                hint="nothing is lost: the write-ahead log is kept until it can",
            )
            problem.errno = error.errno
            raise problem from error

    def close(self) -> None:
        """Close the file; nothing where that is done."""
        self._file.close()

    # -- reading -------------------------------------------------------------------
    def events(self) -> Iterator[dict[str, Any]]:
        """Every line as an event. CorruptionError, with its place, for one that is none."""
        for at, data in self._lines(0):
            try:
                yield unline(data)
            except ValueError as error:
                what = f"{self.path}: the line at byte {at} of the change log is damaged: {error}"
                raise CorruptionError(what, path=self.path, offset=at) from None
