"""Workloads with snapshots and encryption are crashed, and their file operations fail: as in ``test_crash_states`` and
``test_io_errors``, with what every snapshot shows.

``SNAPDB_CRASH_STATES`` scales how many states are tried: 1 is what ``.ci/run`` does with the compiled kernels, a plain
``pytest`` does 1/16; SNAPDB_LONG=1 adds many more drawn workloads.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest
from crash_workloads import SCHEMA, Workload, row
from snapshot_workloads import KEY, SNAPSHOTS, bridges, soup
from test_crash_states import EVERY, FACTOR
from test_io_errors import PLANS, SYNCS, check_after, cut_states, operations, quiet, sweep

from snapdb import SnapDB
from snapdb.errors import SnapDBError, StorageError
from snapdb.testing import Plan, RecordingLayer, history, run, using

RANDOM = 4  # states for each crash point
SOUPS = max(1, round(12 * FACTOR))
LONG = 100
DOUBLE = 0.1
POINTS = 6 * EVERY  # of the crash points, each so-manieth
FAILING = 32 * EVERY  # of the operations, each so-manieth fails, and
CUT = 192 * EVERY  # of the flushes, each so-manieth fails with a power cut later
#: without what takes minutes, and what holds on to a handle that may fail
FAULTED = [name for name in SNAPSHOTS if not name.startswith(("fifty", "mapped_kept"))]

__all__ = ["quiet"]  # a fixture
Count = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def can_encrypt(request: pytest.FixtureRequest) -> None:
    """What is encrypted is left out where that cannot be done."""
    if "encrypted" in request.node.name or "-key" in request.node.name:
        pytest.importorskip("cryptography")


def check(workload: Workload, random_states: int, every: int, seed: int, count: Count) -> None:
    recording = workload.record()
    points = range(1 + seed % every, len(recording.log) + 1, every)
    with workload.limited():
        report = run(
            recording, seed=seed, random_states=random_states, double_share=DOUBLE, points=points,
            second=workload.second,
        )  # fmt: skip
    what = "encrypted" if workload.name.endswith("encrypted") else "with snapshots"
    count(f"count: crash states {what}", report.states)
    count(f"count: of them double crashes, {what}", report.double)
    assert not report.violations, f"{len(report.violations)}, such as {report.violations[:3]}"


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_workload(name: str, record_property: Count) -> None:
    """All crash points of a workload."""
    at = list(SNAPSHOTS).index(name)
    every = POINTS * (4 if name.startswith("fifty") else 1)
    check(SNAPSHOTS[name], round(RANDOM * max(FACTOR, 0.5)), every, at, record_property)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("engine", ["row", "columnar"])
@pytest.mark.parametrize("seed", range(SOUPS))
def test_soup(seed: int, engine: str, encrypted: bool, record_property: Count) -> None:
    """All crash points of a drawn workload."""
    check(soup(seed, engine, encrypted), 4, 2, seed, record_property)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["row", "columnar"])
@pytest.mark.parametrize("seed", range(1000, 1000 + LONG))
def test_more_soups(seed: int, engine: str, record_property: Count) -> None:
    check(soup(seed, engine, seed % 4 == 3), 12, 1, seed, record_property)


@pytest.mark.parametrize("name", [name for name in SNAPSHOTS if not name.startswith("fifty")])
def test_a_damaged_superblock_is_bridged(name: str, record_property: Count) -> None:
    """The older one with the logs shows the same rows and snapshots, and can be written on."""
    states, wrong = bridges(SNAPSHOTS[name], POINTS, list(SNAPSHOTS).index(name))
    record_property("count: killed states with a damaged superblock", states)
    assert not wrong, wrong[:3]


def passed_over(number: int) -> bool:
    """A plain run does each fourth: how many operations there are to fail takes the time of one that does."""
    return EVERY > 1 and number % 4 != 0


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("name", FAULTED)
def test_each_operation_fails(name: str, kind: str, forever: bool, record_property: Count) -> None:
    workload, plan = SNAPSHOTS[name], PLANS[kind]._replace(forever=forever)
    if passed_over(list(SNAPSHOTS).index(name) + list(PLANS).index(kind) + 2 * forever):
        return
    first = 1 + (5 * list(SNAPSHOTS).index(name) + list(PLANS).index(kind)) % FAILING
    failed = 0
    for at in range(first, operations(workload, plan) + 1, FAILING):
        now = plan._replace(at=at)
        faulty, play = sweep(workload, now)
        assert faulty.failures
        try:
            check_after(workload, play, now)
        except (SnapDBError, OSError, AssertionError) as error:
            raise AssertionError(f"{name}, {now}, {play.failures[:2]}: {error!r}") from error
        failed += 1
    record_property("count: runs with snapshots and failing operations", failed)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("name", FAULTED)
def test_power_cut_after_a_failed_flush(name: str, lost: bool, record_property: Count) -> None:
    workload, plan = SNAPSHOTS[name], Plan(0, lost=lost, kinds=SYNCS)
    if passed_over(list(SNAPSHOTS).index(name) + 2 * lost):
        return
    states, seed = 0, 5 * list(SNAPSHOTS).index(name) + lost
    for at in range(1 + seed % CUT, operations(workload, plan) + 1, CUT):
        states += cut_states(workload, plan._replace(at=at), max(4, EVERY))
    record_property("count: crash states with snapshots after a failed flush", states)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("engine", ["row", "columnar"])
def test_a_full_disk(engine: str, key: Optional[bytes]) -> None:
    """What snapshots keep fills the disk: writes are refused and nothing is lost. When they are dropped, and there is
    room for the checkpoint that folds in what was changed, there is room again.
    """
    layer = RecordingLayer(record=False, space=1 << 20)
    assert layer.space is not None
    layer.threads = False
    options = {"durability": "full", "encryption_key": key}
    with using(layer):
        db = SnapDB("full.db", SCHEMA, storage_type=engine, **options)
        db.batch_insert([row(i, 60) for i in range(600)])
        kept: dict[str, Any] = {}
        with pytest.raises(StorageError, match="No space left"):
            for turn in range(400):
                db.snapshot(f"s{turn}")
                kept[f"s{turn}"] = dict(db)
                db.batch_update([], {"f": turn / 2, "s": "x" * (turn % 50)})
                db.checkpoint()
        assert len(kept) > 5
        assert history(db) == (dict(db), kept)
        for name in kept:
            db.drop_snapshot(name)
        layer.space += 1 << 18
        for turn in range(12):
            db.checkpoint()
            db.batch_update([], {"f": turn / 8})
        db.snapshot("last")
        shown = history(db)
        assert list(shown[1]) == ["last"] and shown[1]["last"] == shown[0] and db.fsck()["ok"]
        db.close()
        with SnapDB("full.db", encryption_key=key) as db:
            assert history(db) == shown and db.fsck()["ok"]
