"""The crash harness: record a workload, then open every disk state that a crash could have left, and compare.

A workload is a function of a ``Session``: it opens databases with ``session.open()``, writes, and says with
``session.commit(db)`` (a context manager) what was one commit. ``record(workload)`` runs it on a file system in memory;
``run(recording)`` goes through the crash states and reports every one whose database does not open, fails ``fsck``,
lacks a commit that its durability promised, or holds a part of one. What a database shows is what ``see(db)`` gives:
its rows, or with ``see=history`` those of its snapshots too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Callable, NamedTuple, Optional

from ..core import SnapDB
from ..errors import SnapDBError, WrongKeyError
from ..storage.files import using
from .disk import Disk, State
from .layers import RecordingLayer

__all__ = [
    "Commit", "Mismatch", "Recording", "Report", "Session", "Violation", "again", "history", "read", "record", "rows",
    "run",
]  # fmt: skip

PATH = "crash.snapdb"
Rows = dict[int, dict[str, Any]]
Seen = Any  # what see(db) gives; None: there is no database
See = Callable[[SnapDB], Seen]
Read = Callable[..., Seen]
Workload = Callable[["Session"], None]

READERS = 0.05  # the share of the states that are opened with read_only=True first
SECOND = 0.25  # the share of the crash points of a recovery that are tried


class Mismatch(AssertionError):
    """A database does not hold what it must, without any crash."""


def rows(db: SnapDB) -> Rows:
    """What a database shows: its rows by id."""
    return dict(db)


def history(db: SnapDB) -> tuple[Rows, dict[str, Rows]]:
    """What a database shows with its snapshots: its rows, and those of each snapshot by name, by opening it."""
    kept = {}
    for each in db.list_snapshots():
        name = each["name"]
        with closing(db.open_snapshot(name)) as shown:
            kept[name] = dict(shown)
        if len(kept[name]) != each["rows"]:
            raise Mismatch(f"snapshot {name!r} has {len(kept[name])} rows, list_snapshots() says {each['rows']}")
    return dict(db), kept


class Commit(NamedTuple):
    """A state of the database that the workload went through, and from when on it is promised.

    ``rows``: what ``see`` gives of it, None without a database; where ``record`` has ``keys``, a pair: the place of the
    key in force among them, and that.
    """

    rows: Seen
    begun: int  # operations recorded when the commit began: a crash after this may show it
    kept: Optional[int]  # when it was promised to outlive the process (None: never)
    durable: Optional[int]  # when it was promised to outlive a power cut


class Recording(NamedTuple):
    """A recorded run: the operations on files, the commits, the path, what the layer was made with; and as for
    ``record``: ``files``, ``see``, ``read``, ``options``, ``keys``.
    """

    log: list[Any]
    commits: list[Commit]
    path: str
    layer: Mapping[str, Any]
    files: Mapping[str, bytes] = {}
    see: See = rows
    read: Optional[Read] = None
    options: Mapping[str, Any] = {}
    keys: Sequence[Any] = ()

    def reading(self, layer: RecordingLayer, **options: Any) -> Seen:
        """What the database on this file system shows, as a commit has it."""
        return _reading(self.path, layer, self.see, self.read or read, {**self.options, **options}, self.keys)

    def session(self, layer: RecordingLayer, commits: Sequence[Commit]) -> Session:
        """A session that goes on with these commits."""
        return Session(layer, self.path, commits, self.see, self.options, self.keys)


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
    ``key``: the encryption key in force, where ``record`` has ``keys``.
    """

    lossy = False

    def __init__(
        self, layer: RecordingLayer, path: str, commits: Sequence[Commit] = (Commit(None, -1, 0, 0),),
        see: See = rows, options: Optional[Mapping[str, Any]] = None, keys: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        self.path = path
        self.layer = layer
        self.commits = list(commits)
        self.see = see
        self.options = dict(options or {})
        self.keys = list(keys)
        self.key = keys[0] if keys else None
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
            db = self._open(args, {**self.options, **options})
            self._handles.append(db)
            seen = self.shown(db)
        least, last = window(self.commits, begun, self.lossy)
        allowed = [commit.rows for commit in self.commits[least : last + 1]]
        if seen not in allowed and not (None in allowed and is_new(seen[1] if self.keys else seen)):
            raise Mismatch(f"opened with {seen}, not with {allowed}")
        now = len(self.layer.log)
        unmade = not created and self.commits[window(self.commits, begun, True)[0]].rows is None
        self.commits.append(Commit(seen, begun, now, None if unmade else now))
        return db

    def _open(self, args: Any, options: dict[str, Any]) -> SnapDB:
        """Open it with the key that fits: that in force, or where a crash left that open, another one."""
        keys = [self.key, *(key for key in self.keys if key != self.key)] if self.keys else []
        for key in keys[:-1]:
            try:
                db = SnapDB(self.path, *args, **{**options, "encryption_key": key})
            except WrongKeyError:
                continue
            self.key = key
            return db
        if not keys:
            return SnapDB(self.path, *args, **options)
        self.key = keys[-1]
        return SnapDB(self.path, *args, **{**options, "encryption_key": self.key})

    def shown(self, db: SnapDB) -> Seen:
        """What a handle shows, as a commit has it."""
        return (self.keys.index(self.key), self.see(db)) if self.keys else self.see(db)

    @contextmanager
    def commit(
        self,
        db: SnapDB,
        durable: Optional[bool] = None,
        kept: Optional[bool] = None,
        rows: Optional[Seen] = None,
    ) -> Iterator[None]:
        """The block is one commit. ``durable``: promised to outlive a power cut when the block ends; ``kept``: to
        outlive the process; by default what the handle's durability promises of a bare write (``"normal"`` promises
        more of ``with db.transaction():``, say ``durable=True``). ``rows``: what ``see`` must give then, else Mismatch.
        """
        begun = len(self.layer.log)
        with self.using():
            yield
            found = self.shown(db)
        if rows is not None and (found[1] if self.keys else found) != rows:
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

    def rekey(self, db: SnapDB, key: Any) -> None:
        """``db.rekey(key)``, one of the ``keys`` of ``record``: before it returns the key before or this one opens the
        database, then this one only.
        """
        begun = len(self.layer.log)
        with self.using():
            db.rekey(key)
            self.key = key
            found = self.shown(db)
        now = len(self.layer.log)
        self.commits.append(Commit(found, begun, now, now))

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


def record(
    workload: Workload,
    path: str = PATH,
    *,
    see: See = rows,
    read: Optional[Read] = None,
    options: Optional[Mapping[str, Any]] = None,
    keys: Sequence[Any] = (),
    files: Optional[Mapping[str, bytes]] = None,
    **layer: Any,
) -> Recording:
    """Run a workload on a file system in memory. Without threads (what they do is done by the next call), so that a run
    can be repeated.

    ``see(db)`` gives what is compared of a database: ``rows``, or ``history`` for its snapshots too. ``options``: what
    it is always opened with, such as ``encryption_key=``. ``keys``: encryption keys of a workload that has them changed
    by ``session.rekey()``; it begins with the first, and in every disk state exactly one must open the database.
    ``files``: what is there at first, by name. ``read``: instead of the function ``read`` of this module, for databases
    that need more than opening. ``layer``: options of the ``RecordingLayer``.
    """
    recording = Recording([], [], path, layer, dict(files or {}), see, read, dict(options or {}), tuple(keys))
    before = None
    if path in recording.files:
        copy = RecordingLayer.from_contents(recording.files, record=False, **layer)
        with using(copy):
            before = recording.reading(copy)
    there = RecordingLayer.from_contents(recording.files, **layer)
    there.threads = False
    session = recording.session(there, [Commit(before, -1, 0, 0)])
    try:
        with using(there):
            workload(session)
    finally:
        session.end()
    return recording._replace(log=list(there.log), commits=session.commits)


class _Found(NamedTuple):
    """What a disk state showed: which of the commits, or what was wrong."""

    commits: frozenset[int]
    rows: Seen
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
        recording = self.recording
        layer = RecordingLayer.from_contents(contents, record=False, **recording.layer)
        with using(layer):
            try:
                reader = recording.reading(layer, read_only=True) if draw.random() < READERS else None
                seen = recording.reading(layer)
            except (SnapDBError, OSError, Mismatch) as error:
                return _Found(frozenset(), None, f"does not open: {type(error).__name__}: {error}")
        if reader is not None and reader != seen:
            return _Found(frozenset(), seen, f"shows {reader} to a reader, {seen} to a writer")
        return _Found(frozenset(at for at, commit in enumerate(commits) if commit.rows == seen), seen, None)

    def twice(self, point: int, state: State, disk: Disk, contents: Mapping[str, bytes], draw: random.Random) -> None:
        """Recover under record, go on working, and crash again at operations of both."""
        layer = RecordingLayer.from_contents(contents, **self.recording.layer)
        layer.threads = False
        session = self.recording.session(layer, self.base(point, state, contents))
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


def is_new(seen: Seen) -> bool:
    """Whether a database shows nothing yet."""
    return not any(seen) if isinstance(seen, tuple) else not seen


def read(path: str, layer: RecordingLayer, see: See = rows, **options: Any) -> Seen:
    """What the database on this file system shows, opened with these options, checked and closed; None where there is
    none.

    A reader repairs nothing, so what a crash has torn is not checked for it.
    """
    if not _there(path, layer):
        for name in (f"{path}-wal0", f"{path}-wal1"):
            if layer.exists(name):
                raise SnapDBError(f"{name} is there without a database")
        return None
    db = SnapDB(path, **options)
    try:
        seen = see(db)
        issues = [] if options.get("read_only") else db.fsck()["issues"]
        if issues:
            raise SnapDBError(f"fsck: {issues[:3]}")
    finally:
        db.close()
    return seen


def _reading(
    path: str, layer: RecordingLayer, see: See, read: Read, options: Mapping[str, Any], keys: Sequence[Any]
) -> Seen:
    """What is shown; where there are keys, with the place of the one that fits."""
    if not keys or not _there(path, layer):
        return read(path, layer, see, **options)
    fitting = [at for at, key in enumerate(keys) if _fits(path, {**options, "encryption_key": key})]
    if len(fitting) != 1:
        raise SnapDBError(f"{len(fitting)} of {len(keys)} keys open it")
    return fitting[0], read(path, layer, see, **{**options, "encryption_key": keys[fitting[0]]})


def _fits(path: str, options: Mapping[str, Any]) -> bool:
    try:
        SnapDB(path, **{**options, "read_only": True}).close()
    except WrongKeyError:
        return False
    return True


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
    passes: int = 1,
) -> Report:
    """Open the crash states of a recording.

    ``random_states`` per crash point beside the systematic ones, drawn from ``seed``; ``double_share`` of the states
    are recovered under record, worked with by ``second`` and crashed again; ``points``: only crashes after these
    operations, counted from 1 (each draws for itself, so that one can be repeated); ``limit`` stops after so many
    states, ``first`` at the first violation. ``passes``: in so many goes through the recording, each with every so
    manieth point, which finds a first violation sooner.
    """
    found = _Run(recording, random_states, double_share, second, first)
    wanted = None if points is None else set(points)
    for number in range(passes):
        disk = Disk(recording.files)
        for point, op in enumerate(recording.log, 1):
            disk.step(op)
            if point % passes != number or (wanted is not None and point not in wanted):
                continue
            if not found.point(point, disk, f"{seed} {point}", limit):
                return found.report()
    return found.report()
