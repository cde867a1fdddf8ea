"""Repairs, and changes of the key, are crashed at every operation, and their operations fail: a database is then as it
was, or as it is to be, and exactly one of the keys opens it. Doses as in ``test_snapshot_crashes``.
"""

from __future__ import annotations

from typing import Any, Callable

import pytest
from repair_workloads import MENDS, REKEYS, REPAIRS, record_repair, repair
from test_crash_states import EVERY
from test_io_errors import PLANS, SYNCS, check_after, cut_states, operations, quiet, sweep
from test_snapshot_crashes import CUT, DOUBLE, FAILING, POINTS, can_encrypt, passed_over

from snapdb import SnapDB
from snapdb.errors import SnapDBError
from snapdb.testing import FaultyLayer, Plan, Recording, RecordingLayer, Report, run, using

__all__ = ["can_encrypt", "quiet"]  # fixtures
Count = Callable[[str, object], None]


def judged(report: Report, what: str, count: Count) -> None:
    count(f"count: crash states {what}", report.states)
    count(f"count: of them double crashes, {what}", report.double)
    assert not report.violations, f"{len(report.violations)}, such as {report.violations[:3]}"


@pytest.mark.parametrize("kind", REPAIRS)
def test_repair(kind: str, record_property: Count) -> None:
    """Whenever a repair is cut short, repairing again gives what it was to give."""
    recording, at = record_repair(kind), REPAIRS.index(kind)
    points = range(1 + 7 * at % POINTS, len(recording.log) + 1, POINTS)
    report = run(recording, seed=at, random_states=2, double_share=DOUBLE / 4, points=points, second=repair)
    judged(report, "of repairs", record_property)


@pytest.mark.parametrize("name", MENDS)
def test_repair_of_an_open_database(name: str, record_property: Count) -> None:
    workload, at = MENDS[name], list(MENDS).index(name)
    recording = workload.record()
    points = range(1 + 7 * at % POINTS, len(recording.log) + 1, POINTS)
    with workload.limited():
        report = run(recording, seed=at, random_states=2, double_share=DOUBLE / 4, points=points, second=repair)
    judged(report, "of repairs", record_property)


@pytest.mark.parametrize("name", REKEYS)
def test_rekey(name: str, record_property: Count) -> None:
    """At every moment one key opens it, and after ``rekey`` it is the new one."""
    workload, at = REKEYS[name], list(REKEYS).index(name)
    recording = workload.record()
    points = range(1 + at % EVERY, len(recording.log) + 1, EVERY)
    with workload.limited():
        report = run(
            recording, seed=at, random_states=6, double_share=DOUBLE, points=points, second=workload.second
        )  # fmt: skip
    judged(report, "of changed keys", record_property)


# -- failing operations ----------------------------------------------------------
@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", REPAIRS)
def test_each_operation_of_a_repair_fails(kind: str, plan: str, forever: bool, record_property: Count) -> None:
    """It raises, or goes well all the same; and repairing again, without a fault, gives what it was to give. What once
    could not be read is damage like any other, and is said to be lost.
    """
    if passed_over(REPAIRS.index(kind) + list(PLANS).index(plan) + 2 * forever):
        return
    recording = record_repair(kind)
    wanted, failed = recording.commits[0].rows, 0
    whole, _, report = faulted(recording, PLANS[plan]._replace(at=0))
    total = whole.operations
    for at in range(1 + 5 * REPAIRS.index(kind) % FAILING, total + 1, FAILING):
        faulty, inner, said = faulted(recording, PLANS[plan]._replace(at=at, forever=forever))
        assert faulty.failures
        with using(inner):
            found = recording.reading(inner)
        if plan == "read" and said and said["lost"] != report["lost"]:
            found = wanted
        assert found == wanted, (kind, plan, at)
        failed += 1
    record_property("count: repairs with failing operations", failed)


def faulted(recording: Recording, plan: Plan) -> tuple[FaultyLayer, RecordingLayer, dict[str, Any]]:
    """Repair on a failing layer, and what it said."""
    report: dict[str, Any] = {}
    inner = RecordingLayer(recording.files)
    inner.threads = False
    faulty = FaultyLayer(inner, plan)
    with using(faulty):
        try:
            report = SnapDB.repair_file(recording.path, recording.options.get("encryption_key"))
        except (SnapDBError, OSError) as error:
            assert faulty.failures, f"without any fault: {error!r}"
    return faulty, inner, report


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("name", REKEYS)
def test_each_operation_beside_a_rekey_fails(name: str, kind: str, forever: bool, record_property: Count) -> None:
    workload, plan = REKEYS[name], PLANS[kind]._replace(forever=forever)
    if passed_over(list(REKEYS).index(name) + list(PLANS).index(kind) + 2 * forever):
        return
    every, failed = max(1, FAILING // 8), 0
    first = 1 + (list(REKEYS).index(name) + 2 * list(PLANS).index(kind)) % every
    for at in range(first, operations(workload, plan) + 1, every):
        now = plan._replace(at=at)
        faulty, play = sweep(workload, now)
        assert faulty.failures
        try:
            check_after(workload, play, now)
        except (SnapDBError, OSError, AssertionError) as error:
            raise AssertionError(f"{name}, {now}, {play.failures[:2]}: {error!r}") from error
        failed += 1
    record_property("count: runs with changed keys and failing operations", failed)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("name", REKEYS)
def test_power_cut_after_a_failed_flush(name: str, lost: bool, record_property: Count) -> None:
    workload, plan = REKEYS[name], Plan(0, lost=lost, kinds=SYNCS)
    step = max(1, CUT // 16)
    states = 0
    for at in range(1 + list(REKEYS).index(name) % step, operations(workload, plan) + 1, step):
        states += cut_states(workload, plan._replace(at=at), max(4, EVERY))
    record_property("count: crash states with snapshots after a failed flush", states)
