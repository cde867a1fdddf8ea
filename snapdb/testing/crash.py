"""The crash harness: record a workload, then open every disk state that a crash could have left, and compare.

A workload is a function of a ``Session``: it opens databases with ``session.open()``, writes, and says with
``session.commit(db)`` (a context manager) what was one commit. ``record(workload)`` runs it on a file system in memory;
``run(recording)`` goes through the crash states and reports every one whose database does not open, fails ``fsck``,
lacks a commit that its durability promised, or holds a part of one.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Callable, NamedTuple, Optional

from ..core import SnapDB
from ..errors import SnapDBError
from ..storage.files import using
from .disk import Disk, State
from .layers import RecordingLayer

__all__ = ["Commit", "Mismatch", "Recording", "Report", "Session", "Violation", "again", "read", "record", "run"]

PATH = "crash.snapdb"
Rows = Optional[dict[int, dict[str, Any]]]  # None: there is no database
Workload = Callable[["Session"], None]

READERS = 0.05  # the share of the states that are opened with read_only=True first
SECOND = 0.25  # the share of the crash points of a recovery that are tried


class Mismatch(AssertionError):
    """A database does not hold what it must, without any crash."""


class Commit(NamedTuple):
    """A state of the table that the workload went through, and from when on it is promised."""

    rows: Rows
    begun: int  # operations recorded when the commit began: a crash after this may show it
    kept: Optional[int]  # when it was promised to outlive the process (None: never)
    durable: Optional[int]  # when it was promised to outlive a power cut


class Recording(NamedTuple):
    """A recorded run: the operations on files, the commits, the path, and what the layer was made with."""

    log: list[Any]
    commits: list[Commit]
    path: str
    layer: Mapping[str, Any]


class Violation(NamedTuple):
    """A crash state that breaks the promise: after operation ``point``, ``variant`` of the states there."""

    point: int
    variant: str
    message: str


class Report(NamedTuple):
    """What ``run`` found: disk states tried that differ, how many of them are of a second crash, and what was wrong."""

    states: int
    double: int
    violations: list[Violation]


class Session:
    """What a workload works with. ``path`` is the database's name on a file system in memory, ``layer``.

    ``lossy``: what is not on stable storage may be gone although the system runs, as after a flush that failed.
    """

    lossy = False

    def __init__(self, layer: RecordingLayer, path: str, commits: Sequence[Commit] = (Commit(None, -1, 0, 0),)) -> None:
        self.path = path
        self.layer = layer
        self.commits = list(commits)
        self._handles: list[SnapDB] = []

    def using(self) -> AbstractContextManager[Any]:
        """Databases are opened on the session's file system in this block."""
        return using(self.layer)

    def open(self, *args: Any, **options: Any) -> SnapDB:
        """``SnapDB(session.path, …)`` on the recorded file system. What it shows is settled (where a crash broke into
        the database's making, with its first commit). Mismatch where that is not what it must show.
        """
        begun = len(self.layer.log)
        created = not _there(self.path, self.layer)
        with self.using():
            db = SnapDB(self.path, *args, **options)
        self._handles.append(db)
        rows = dict(db)
        least, last = window(self.commits, begun, self.lossy)
        allowed = [commit.rows for commit in self.commits[least : last + 1]]
        if rows not in allowed and not (None in allowed and not rows):
            raise Mismatch(f"opened with {rows}, not with {allowed}")
        now = len(self.layer.log)
        unmade = not created and self.commits[window(self.commits, begun, True)[0]].rows is None
        self.commits.append(Commit(rows, begun, now, None if unmade else now))
        return db

    @contextmanager
    def commit(
        self,
        db: SnapDB,
        durable: Optional[bool] = None,
        kept: Optional[bool] = None,
        rows: Optional[Mapping[int, Mapping[str, Any]]] = None,
    ) -> Iterator[None]:
        """The block is one commit. ``durable``: promised to outlive a power cut when the block ends; ``kept``: to
        outlive the process; by default what the handle's durability promises of a bare write (``"normal"`` promises
        more of ``with db.transaction():``, say ``durable=True``). ``rows``: what it must hold then, else Mismatch.
        """
        begun = len(self.layer.log)
        with self.using():
            yield
        found = dict(db)
        if rows is not None and found != rows:
            raise Mismatch(f"the table holds {found}, not {rows}")
        now = len(self.layer.log)
        outlives_power = db.durability == "full" if durable is None else durable
        outlives_kill = outlives_power or (db.durability != "none" if kept is None else kept)
        self.commits.append(Commit(found, begun, now if outlives_kill else None, now if outlives_power else None))

    @contextmanager
    def settled(self) -> Iterator[None]:
        """The block (``flush()``, ``checkpoint()`` or ``close()``) puts every commit so far on stable storage."""
        with self.using():
            yield
        now = len(self.layer.log)
        self.commits = [
            commit._replace(
                kept=now if commit.kept is None else commit.kept,
                durable=now if commit.durable is None else commit.durable,
            )
            for commit in self.commits
        ]

    def kill(self, db: SnapDB) -> None:
        """What ``kill -9`` does: the handle goes without another write. The workload may open the database again."""
        db._abandon()

    def end(self) -> None:
        """Let go of every handle that is still open, without another write."""
        for db in self._handles:
            db._abandon()


def window(commits: Sequence[Commit], point: int, power: bool) -> tuple[int, int]:
    """The least and the last commit that a database may show after a crash at this point; ``power``: of all, not only
    of the process.
    """
    promised = [commit.durable if power else commit.kept for commit in commits]
    least = max(at for at, when in enumerate(promised) if when is not None and when <= point)
    last = max(at for at, commit in enumerate(commits) if commit.begun < point)
    return least, max(least, last)


def again(session: Session) -> None:
    """The workload after a crash, unless another one is given: the first row goes and comes again under a new id, then
    a transaction, with a checkpoint between; the database is closed.
    """
    db = session.open(durability="full")
    first = next(iter(db), None)
    if first is not None:
        with session.commit(db):
            db.delete(first[0])
        with session.commit(db):
            db.insert(first[1])
        with session.settled():
            db.checkpoint()
        last = max(idx for idx, _ in db)
        with session.commit(db), db.transaction():
            db.delete(last)
            db.insert(first[1])
    with session.settled():
        db.close()


def record(workload: Workload, path: str = PATH, **layer: Any) -> Recording:
    """Run a workload on a file system in memory; ``layer``: options of the ``RecordingLayer``. Without threads (what
    they do is done by the next call), so that a run can be repeated.
    """
    files = RecordingLayer(**layer)
    files.threads = False
    session = Session(files, path)
    try:
        with using(files):
            workload(session)
    finally:
        session.end()
    return Recording(list(files.log), session.commits, path, layer)


class _Found(NamedTuple):
    """What a disk state showed: which of the commits, or what was wrong."""

    commits: frozenset[int]
    rows: Rows
    problem: Optional[str]


class _Run:
    def __init__(
        self, recording: Recording, random_states: int, double_share: float, second: Workload, first: bool
    ) -> None:
        self.recording = recording
        self.random_states = random_states
        self.double_share = double_share
        self.second = second
        self.first = first
        self.states = self.double = 0
        self.violations: list[Violation] = []
        self.found: dict[int, _Found] = {}  # what each disk state showed, by the hash of it

    def report(self) -> Report:
        return Report(self.states, self.double, self.violations)

    def point(self, point: int, disk: Disk, seed: str, limit: Optional[int]) -> bool:
        """Every state of a crash here; False where the limit is reached. Which states these are depends on nothing that
        was found before.
        """
        for state in disk.states(self.random_states, random.Random(seed)):
            if (limit is not None and self.states >= limit) or (self.first and self.violations):
                return False
            self.check(point, state, disk, random.Random(f"{seed} {state.variant}"))
        return True

    def check(self, point: int, state: State, disk: Disk, draw: random.Random) -> None:
        """One state of a first crash."""
        contents = state.contents
        key = _key(contents)
        found, new = self.found.get(key), False
        if found is None:
            found, new = self.show(contents, self.recording.commits, draw), True
            self.found[key] = found
            self.states += 1
        least, last = window(self.recording.commits, point, not state.killed)
        if state.within:  # what the operation was to complete is not promised yet
            least = window(self.recording.commits, point - 1, False)[0]
        fine = self.judge(point, state.variant, found, least, last)
        if fine and new and not state.within and draw.random() < self.double_share:
            self.twice(point, state, disk.restarted() if state.killed else Disk(contents), contents, draw)

    def judge(self, point: int, variant: str, found: _Found, least: int, last: int) -> bool:
        """Whether what was shown is allowed."""
        problem = found.problem
        if problem is None and not any(least <= at <= last for at in found.commits):
            shown = f"commit {sorted(found.commits)}" if found.commits else f"what was no commit, {found.rows}"
            problem = f"shows {shown}; allowed are commits {least} to {last} of 0 to {len(self.recording.commits) - 1}"
            if not found.commits:
                problem += " (a write outside session.commit()?)"
        if problem is not None:
            self.violations.append(Violation(point, variant, problem))
        return problem is None

    def show(self, contents: Mapping[str, bytes], commits: Sequence[Commit], draw: random.Random) -> _Found:
        """Open a disk state."""
        layer = RecordingLayer.from_contents(contents, record=False, **self.recording.layer)
        path = self.recording.path
        with using(layer):
            try:
                reader = read(path, layer, read_only=True) if draw.random() < READERS else None
                rows = read(path, layer)
            except (SnapDBError, OSError) as error:
                return _Found(frozenset(), None, f"does not open: {type(error).__name__}: {error}")
        if reader is not None and reader != rows:
            return _Found(frozenset(), rows, f"shows {reader} to a reader, {rows} to a writer")
        return _Found(frozenset(at for at, commit in enumerate(commits) if commit.rows == rows), rows, None)

    def twice(self, point: int, state: State, disk: Disk, contents: Mapping[str, bytes], draw: random.Random) -> None:
        """Recover under record, go on working, and crash again at operations of both."""
        layer = RecordingLayer.from_contents(contents, **self.recording.layer)
        layer.threads = False
        session = Session(layer, self.recording.path, self.base(point, state, contents))
        with using(layer):
            if not _there(self.recording.path, layer):
                return
            try:
                self.second(session)
            except (SnapDBError, OSError, Mismatch) as error:
                problem = f"cannot go on: {type(error).__name__}: {error}"
                self.violations.append(Violation(point, state.variant, problem))
                return
            finally:
                session.end()
        shown: dict[int, _Found] = {}
        for number, op in enumerate(list(layer.log), 1):
            disk.step(op)
            if draw.random() >= SECOND:
                continue
            after = draw.choice(list(disk.states(2, draw)))
            key = _key(after.contents)
            if key in self.found:  # a state of the first crash: nothing of the recovery is there
                continue
            if key not in shown:
                shown[key] = self.show(after.contents, session.commits, draw)
                self.states += 1
                self.double += 1
            least, last = window(session.commits, number, not after.killed)
            if after.within:
                least = window(session.commits, number - 1, False)[0]
            self.judge(point, f"{state.variant}; then {number}: {after.variant}", shown[key], least, last)

    def base(self, point: int, state: State, contents: Mapping[str, bytes]) -> list[Commit]:
        """What is promised after a first crash: what it shows, for ever; but where only the process died, not more than
        was on stable storage outlives a power cut, until the database was opened again.
        """
        commits = self.recording.commits
        least, last = window(commits, point, True)
        shows = max(at for at in self.found[_key(contents)].commits if at <= last)
        if not state.killed:
            least = shows
        return [
            Commit(commits[at].rows, -1, 0 if at == shows else None, 0 if at == least else None)
            for at in range(least, shows + 1)
        ]


def _key(contents: Mapping[str, bytes]) -> int:
    return hash(tuple(sorted(contents.items())))


def _there(path: str, layer: RecordingLayer) -> bool:
    return layer.exists(path) and layer.size(path) > 0


def read(path: str, layer: RecordingLayer, **options: Any) -> Rows:
    """The rows of the database on this file system, opened, checked and closed; None where there is none.

    A reader repairs nothing, so what a crash has torn is not checked for it.
    """
    if not _there(path, layer):
        for name in (f"{path}-wal0", f"{path}-wal1"):
            if layer.exists(name):
                raise SnapDBError(f"{name} is there without a database")
        return None
    db = SnapDB(path, **options)
    try:
        rows = dict(db)
        issues = [] if options.get("read_only") else db.fsck()["issues"]
        if issues:
            raise SnapDBError(f"fsck: {issues[:3]}")
    finally:
        db.close()
    return rows


def run(
    recording: Recording,
    *,
    seed: int = 0,
    random_states: int = 8,
    double_share: float = 0.2,
    points: Optional[Iterable[int]] = None,
    limit: Optional[int] = None,
    second: Workload = again,
    first: bool = False,
) -> Report:
    """Open the crash states of a recording.

    ``random_states`` per crash point beside the systematic ones, drawn from ``seed``; ``double_share`` of the states
    are recovered under record, worked with by ``second`` and crashed again; ``points``: only crashes after these
    operations, counted from 1 (each draws for itself, so that one can be repeated); ``limit`` stops after so many
    states, ``first`` at the first violation.
    """
    found = _Run(recording, random_states, double_share, second, first)
    wanted = None if points is None else set(points)
    disk = Disk()
    for point, op in enumerate(recording.log, 1):
        disk.step(op)
        if wanted is not None and point not in wanted:
            continue
        if not found.point(point, disk, f"{seed} {point}", limit):
            break
    return found.report()
