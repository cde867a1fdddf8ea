"""Every file operation of every workload fails: once, for ever; EIO, ENOSPC, half a write, a flush that loses pages.

The process lives, errors are SnapDBError or OSError, no acknowledged commit is lost and no part of one shows when the
database is opened without faults; and after an error that is not about stable storage the same handle goes on.
``SNAPDB_CRASH_STATES`` scales how many operations fail, as in ``test_crash_states``.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from crash_workloads import SCHEMA, WORKLOADS, Play, Workload
from model import Model

from snapdb.errors import DurabilityError, SnapDBError
from snapdb.storage.files import using
from snapdb.testing import Commit, FaultyLayer, Plan, Recording, RecordingLayer, Session, run
from snapdb.testing.crash import is_new, window

FACTOR = float(os.environ.get("SNAPDB_CRASH_STATES", "") or 1 / 16)
EVERY = max(1, round(1 / FACTOR))  # of the operations, each so-manieth fails
FEW = 12  # of the flushes, each so-manieth fails with a power cut later
SYNCS = frozenset({"sync", "sync_dir"})
WRITES = frozenset({"write", "allocate", "truncate", "create", "rename", "unlink", "sync", "sync_dir", "open", "lock"})
PLANS = {
    "EIO": Plan(0, errno.EIO, kinds=WRITES),
    "ENOSPC": Plan(0, errno.ENOSPC, kinds=frozenset({"write", "allocate", "create", "rename", "sync_dir"})),
    "short": Plan(0, errno.ENOSPC, short=True, kinds=frozenset({"write", "allocate"})),
    "sync keeps": Plan(0, errno.EIO, kinds=SYNCS),
    "sync loses": Plan(0, errno.EIO, lost=True, kinds=SYNCS),
    "read": Plan(0, errno.EIO, reads=True, kinds=frozenset({"read", "map", "open"})),
}


class Over(Exception):
    """The database cannot be used any more."""


class FaultyPlay(Play):
    """A play on a layer that fails: it goes on where the handle does, and checks that the handle is right."""

    def __init__(self, session: Session, engine: str, faulty: FaultyLayer) -> None:
        super().__init__(session, engine)
        self.faulty = faulty
        self.failures: list[BaseException] = []
        self.failed_at = 0  # the length of the log of operations at the first failure

    def open(self, schema: Any = SCHEMA, **options: Any) -> Any:
        for last in (False, True):
            begun = len(self.session.layer.log)
            try:
                return super().open(schema, **options)
            except (SnapDBError, OSError) as error:
                self.noted(error)
                if schema is not None:  # it may be there all the same
                    self.session.commits.append(Commit(self.state(Model(schema), {}), begun, None, None))
                if last or self.faulty.plan is None or self.faulty.plan.forever:
                    raise Over from error
        raise AssertionError

    def agree(self) -> None:
        """The session has checked what an opening shows; where a failure leaves that open, the play ends."""
        if self.seen() != self.expected(self.model, self.kept):
            if not self.failures:
                super().agree()
            raise Over

    def tail_is(self, packed: bool) -> None:
        """Where an operation failed it may be in either."""
        if not self.faulty.failures:
            super().tail_is(packed)

    def seen(self) -> Any:
        return self.session.see(self.db)

    def state(self, model: Model, kept: Any) -> Any:
        """What a commit says of a table like this model."""
        seen = self.expected(model, kept)
        return (self.session.keys.index(self.session.key), seen) if self.session.keys else seen

    def noted(self, error: BaseException) -> None:
        self.failed_at = self.failed_at or len(self.session.layer.log)
        self.failures.append(error)
        if self.faulty.failures == 0:
            raise AssertionError(f"without any fault: {error!r}") from error

    def guarded(self, action: Callable[[], Any]) -> Optional[BaseException]:
        """Do it. The error where it fails and the handle can still be used; Over where it cannot."""
        try:
            action()
        except (SnapDBError, OSError) as error:
            self.noted(error)
            if isinstance(error, DurabilityError) or self.poisoned():
                raise Over from error
            return error
        return None

    def poisoned(self) -> bool:
        try:
            len(self.db)
        except DurabilityError:
            return True
        return False

    def do(self, *ops: Any) -> None:
        for op in ops:
            if self.possible([op]):
                super().do(op)

    def transaction(self, *ops: Any) -> None:
        if self.possible(ops):
            super().transaction(*ops)

    def abandoned(self, *ops: Any) -> None:
        if self.possible(ops):
            super().abandoned(*ops)

    def refused(self, op: Any, error: type[Exception]) -> None:
        if not self.failures:
            super().refused(op, error)

    def possible(self, ops: Any) -> bool:
        """Whether the rows are there: an earlier write may have failed."""
        try:
            self.after(ops)
        except KeyError:
            return False
        return True

    def snapshot(self, *names: str) -> None:
        for name in names:
            super().snapshot(name)

    def drop(self, *names: str) -> None:
        for name in names:
            if name in self.kept:
                super().drop(name)

    def restore(self, name: str) -> None:
        if name in self.kept:
            super().restore(name)

    def rekey(self, key: bytes) -> None:
        begun, before = len(self.session.layer.log), self.session.key
        try:
            error = self.guarded(lambda: super(FaultyPlay, self).rekey(key))
            if error is not None and self.session.key != before:
                raise Over from error  # it was the check that could not read
        except Over:
            after = self.session.keys.index(key), self.expected(self.model, self.kept)
            self.session.commits.append(Commit(after, begun, None, None))
            raise
        if error is None:
            return
        if self.faulty.plan is not None and not self.faulty.plan.forever:
            super().rekey(key)

    def commit(self, after: Model, action: Callable[[], None], transaction: bool, kept: Any = None) -> None:
        """Where the write fails, nothing of it is there; what failed once must go well the second time."""
        if self.tried(after, action, transaction, kept):
            return
        if self.faulty.plan is not None and not self.faulty.plan.forever:
            assert self.tried(after, action, transaction, kept)

    def tried(self, after: Model, action: Callable[[], None], transaction: bool, kept: Any) -> bool:
        begun = len(self.session.layer.log)
        before = self.model, self.kept
        wanted = self.state(after, before[1] if kept is None else kept)
        try:
            error = self.guarded(lambda: super(FaultyPlay, self).commit(after, action, transaction, kept))
        except Over:
            # whether it happened is known when the database is opened again
            self.session.commits.append(Commit(wanted, begun, None, None))
            raise
        if error is None:
            return True
        self.model, self.kept = before
        try:
            found = self.session.shown(self.db)
        except (SnapDBError, OSError) as again:
            self.noted(again)
            self.session.commits.append(Commit(wanted, begun, None, None))
            raise Over from again
        if found == wanted and self.faulty.plan is not None and self.faulty.plan.reads:
            self.session.commits.append(Commit(found, begun, None, None))
            raise Over from error  # it was the check that could not read
        assert found == self.state(*before), f"after {error!r} the table holds {found}, not {self.state(*before)}"
        # a crash before the error was raised may show what was being written; from here on it is gone
        now, last = len(self.session.layer.log), self.session.commits[-1]
        self.session.commits.append(Commit(wanted, begun, None, None))
        self.session.commits.append(Commit(found, begun, last.kept and now, last.durable and now))
        return False

    def settle(self, action: Callable[[], None]) -> None:
        error = self.guarded(action)
        if error is None:
            return
        try:
            seen = self.seen()
        except (SnapDBError, OSError) as again:
            self.noted(again)
            raise Over from again
        assert seen == self.expected(self.model, self.kept)

    def flush(self) -> None:
        self.settle(super().flush)

    def checkpoint(self) -> None:
        self.settle(super().checkpoint)

    def close(self) -> None:
        """Closing cannot be tried again: what it could not do, the next opening does."""
        try:
            super().close()
        except (SnapDBError, OSError) as error:
            self.noted(error)


def sweep(workload: Workload, plan: Plan) -> tuple[FaultyLayer, FaultyPlay]:
    """Run a workload on a failing layer, to its end or to the handle's."""
    inner = RecordingLayer(**workload.layer)
    inner.threads = False
    faulty = FaultyLayer(inner, plan)
    session = workload.session(inner, FaultySession)
    session.faulty, session.lossy = faulty, plan.lost
    play = FaultyPlay(session, workload.engine, faulty)
    with workload.limited(), using(faulty):
        try:
            workload.play(play)
        except Over:
            try:
                if play.db is not None:
                    play.db.close()
            except (SnapDBError, OSError) as error:
                play.noted(error)
        finally:
            session.end()
    return faulty, play


class FaultySession(Session):
    """Databases are opened on the failing layer, operations counted on the one below."""

    faulty: FaultyLayer

    def using(self) -> Any:
        return using(self.faulty)


def check_after(workload: Workload, play: FaultyPlay, plan: Plan) -> None:
    """Without faults: what was promised is there, nothing in part."""
    layer = play.session.layer
    recording = recorded(workload, play.session)
    with workload.limited(), using(layer):
        found = recording.reading(layer)
        assert recording.reading(layer) == found
    commits = play.session.commits
    least, last = window(commits, len(layer.log) + 1, plan.lost)
    allowed = [commit.rows for commit in commits[least : last + 1]]
    new = found is not None and is_new(found[1] if recording.keys else found)
    assert found in allowed or (None in allowed and new), f"{found}, not {allowed}; failed with {play.failures}"


def recorded(workload: Workload, session: Session) -> Recording:
    """What a session has done, as ``record`` gives it."""
    return Recording(
        list(session.layer.log), session.commits, session.path, workload.layer, {}, session.see, None, session.options,
        session.keys,
    )  # fmt: skip


OPERATIONS: dict[tuple[Any, ...], int] = {}


def operations(workload: Workload, plan: Plan) -> int:
    """How many operations the workload has that could fail."""
    key = (workload.name, plan.kinds, plan.reads)
    if key not in OPERATIONS:
        faulty, play = sweep(workload, plan._replace(at=0))
        assert not play.failures
        OPERATIONS[key] = faulty.operations
    return OPERATIONS[key]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Checkpoints that are put off are logged."""
    logger = logging.getLogger("snapdb")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_each_operation_fails(
    name: str, kind: str, forever: bool, record_property: Callable[[str, object], None]
) -> None:
    workload, plan = WORKLOADS[name], PLANS[kind]._replace(forever=forever)
    first = 1 + (list(WORKLOADS).index(name) + list(PLANS).index(kind)) % EVERY
    failed = 0
    for at in range(first, operations(workload, plan) + 1, EVERY):
        now = plan._replace(at=at)
        faulty, play = sweep(workload, now)
        assert faulty.failures
        try:
            check_after(workload, play, now)
        except (SnapDBError, OSError, AssertionError) as error:
            raise AssertionError(f"{name}, {now}, {play.failures[:2]}: {error!r}") from error
        failed += 1
    record_property("count: runs with failing operations", failed)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_power_cut_after_a_failed_flush(name: str, lost: bool, record_property: Callable[[str, object], None]) -> None:
    """A flush fails, the database is opened again and worked with while the system shows what is not on the disk; then
    the power fails.
    """
    workload, plan = WORKLOADS[name], Plan(0, lost=lost, kinds=SYNCS)
    states, seed = 0, list(WORKLOADS).index(name)
    for at in range(1 + seed % (FEW * EVERY), operations(workload, plan) + 1, FEW * EVERY):
        states += cut_states(workload, plan._replace(at=at))
    record_property("count: crash states", states)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("name", ["creation-row", "single-columnar", "checkpoints-row", "checkpoints-columnar"])
def test_power_cut_after_a_making_that_failed(
    name: str, lost: bool, record_property: Callable[[str, object], None]
) -> None:
    """The file has its name, and that is not known to last: whoever opens it next sees to that."""
    plan = Plan(0, lost=lost, kinds=SYNCS)
    record_property("count: crash states", sum(cut_states(WORKLOADS[name], plan._replace(at=at)) for at in (1, 2, 3)))


def cut_states(workload: Workload, plan: Plan, step: int = max(1, EVERY // 4)) -> int:
    """Judge the states of a run with a failing flush and of the opening after it, at each so-manieth operation; how
    many.
    """
    _, play = sweep(workload, plan)
    session = play.session
    with workload.limited(), using(session.layer):
        plain = workload.session(session.layer)
        plain.commits = list(session.commits)
        if plan.lost:  # and so it is gone for a killed process too
            plain.lossy = True
            plain.commits = [commit._replace(kept=commit.durable) for commit in plain.commits]
        if not session.layer.exists(session.path):
            return 0
        workload.second(plain)
        recording = recorded(workload, plain)
        points = range(play.failed_at, len(recording.log) + 1, step)
        report = run(recording, seed=plan.at, random_states=4, double_share=0.01, points=points, second=workload.second)
    assert not report.violations, f"{workload.name}, {plan}, {play.failures[:2]}: {report.violations[:3]}"
    return report.states
