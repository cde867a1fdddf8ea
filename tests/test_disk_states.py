"""The rules of what a disk may hold after a crash, and the harness on workloads of its users."""

from __future__ import annotations

import random
from typing import Any, Callable

import pytest

from snapdb import ColumnDef, Schema, SnapDB
from snapdb.testing import (
    Disk,
    FaultyLayer,
    Mismatch,
    Plan,
    RecordingLayer,
    Report,
    Session,
    State,
    history,
    read,
    record,
    run,
    using,
)
from snapdb.testing.disk import SECTOR

pytest_plugins = ["snapdb.testing.fixture"]
SCHEMA = Schema([ColumnDef("n", "i64")])


def followed(layer: RecordingLayer, disk: Disk) -> list[State]:
    """The states after everything in the layer's log."""
    for op in layer.log:
        disk.step(op)
    layer.log.clear()
    return list(disk.states(200, random.Random(1)))


def images(states: list[State], name: str = "x", killed: bool = False) -> set[Any]:
    return {state.contents.get(name) for state in states if state.killed == killed}


@pytest.fixture
def layer() -> RecordingLayer:
    return RecordingLayer({"x": b"a" * 2 * SECTOR})


@pytest.fixture
def disk(layer: RecordingLayer) -> Disk:
    return Disk(layer.contents())


def test_what_is_synced_is_there(layer: RecordingLayer, disk: Disk) -> None:
    file = layer.open("x", "w")
    file.pwrite(b"b" * 700, 100)
    file.sync()
    states = followed(layer, disk)
    assert images(states) == images(states, killed=True) == {layer.contents()["x"]}


def test_a_write_that_is_not_synced_is_there_by_sectors(layer: RecordingLayer, disk: Disk) -> None:
    file = layer.open("x", "w")
    file.pwrite(b"b" * 1024, 0)
    states = followed(layer, disk)
    killed, within = [state for state in states if state.killed]
    assert killed.contents["x"] == b"b" * 1024 and within.within
    size = within.contents["x"].count(b"b")
    assert 0 < size < 1024 and within.contents["x"] == b"b" * size + b"a" * (1024 - size)
    found = images(states)
    old, new = b"a" * SECTOR, b"b" * SECTOR
    assert {old + old, old + new, new + old, new + new} <= found
    cut = [image for image in found if image.startswith(b"b") and image.endswith(b"a") and image.count(b"b") % SECTOR]
    assert cut  # cut within a sector
    assert any(set(image) - set(b"ab") for image in found)  # garbage
    assert all(len(image) == 1024 for image in found)


def test_bytes_beside_the_write_are_safe(layer: RecordingLayer, disk: Disk) -> None:
    layer.open("x", "w").pwrite(b"b" * 10, 500)
    for image in images(followed(layer, disk)):
        assert image[:500] == b"a" * 500 and image[510:] == b"a" * 514


def test_writes_in_any_order(layer: RecordingLayer, disk: Disk) -> None:
    file = layer.open("x", "w")
    for at in (0, 600, 30):
        file.pwrite(b"b", at)
    found = {tuple(at for at in (0, 30, 600) if image[at] == 98) for image in images(followed(layer, disk))}
    assert found >= {(), (0,), (0, 600), (0, 30, 600), (600,), (30,), (30, 600), (0, 30)}


def test_length_and_data_are_independent(layer: RecordingLayer, disk: Disk) -> None:
    file = layer.open("x", "w")
    file.pwrite(b"b" * SECTOR, 1024)
    found = images(followed(layer, disk))
    assert {b"a" * 1024, b"a" * 1024 + bytes(SECTOR), b"a" * 1024 + b"b" * SECTOR} <= found
    file.sync()
    file.truncate(100)
    found = images(followed(layer, disk))
    assert found >= {b"a" * 100, b"a" * 1024 + b"b" * SECTOR} and {len(image) for image in found} == {100, 1536}
    file.sync()
    file.allocate(0, 300)
    found = images(followed(layer, disk))
    assert {len(image) for image in found} == {100, 300}


def test_names_are_undone_unless_their_directory_was_synced(layer: RecordingLayer, disk: Disk) -> None:
    layer.open("y", "x").pwrite(b"new", 0)
    layer.rename("y", "x", True)
    layer.open("z", "x")
    states = followed(layer, disk)
    names = {tuple(sorted(state.contents)) for state in states}
    assert names >= {("x",), ("x", "y"), ("x", "z")}
    assert {b"a" * 1024, b"", b"new"} <= images(states)
    layer.sync_dir("x")
    layer.unlink("z")
    states = followed(layer, disk)
    assert {tuple(sorted(state.contents)) for state in states} == {("x",), ("x", "z")}
    assert b"a" * 1024 not in images(states)
    assert [sorted(state.contents) for state in states if state.killed] == [["x"]]


def test_another_directory_is_not_synced(layer: RecordingLayer, disk: Disk) -> None:
    layer.open("d/y", "x")
    layer.sync_dir("x")
    assert {"d/y" in state.contents for state in followed(layer, disk)} == {False, True}
    layer.sync_dir("d/other")
    assert {"d/y" in state.contents for state in followed(layer, disk)} == {True}


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_failed_sync_covered_may_never_get_there(layer: RecordingLayer, disk: Disk, lost: bool) -> None:
    faulty = FaultyLayer(layer, Plan(1, kinds=frozenset({"sync"}), lost=lost))
    file = faulty.open("x", "w")
    file.pwrite(b"b" * 10, 0)
    file.pwrite(b"b" * 10, 2000)
    with pytest.raises(OSError):
        file.sync()
    seen = layer.contents()["x"]
    assert seen[:1] == (b"a" if lost else b"b")
    assert images(followed(layer, disk), killed=True) == {seen}
    file.pwrite(b"c" * 10, 100)
    file.sync()
    states = followed(layer, disk)
    assert images(states, killed=True) == {layer.contents()["x"]}
    found = images(states)
    assert all(image[100:110] == b"c" * 10 and len(image) == 2010 for image in found)
    starts = {image[:1] for image in found}
    assert starts == {b"a"} if lost else starts >= {b"a", b"b"}
    file.pwrite(b"d" * 10, 0)
    file.sync()
    assert {image[:1] for image in images(followed(layer, disk))} == {b"d"}


def test_a_restart_forgets_nothing_that_waits(layer: RecordingLayer, disk: Disk) -> None:
    layer.open("x", "w").pwrite(b"b" * 100, 0)
    layer.open("y", "x").pwrite(b"new", 0)
    followed(layer, disk)
    again = RecordingLayer.from_contents(layer.contents())
    second = disk.restarted()
    again.open("y", "w").pwrite(b"more", 3)
    states = [state for state in followed(again, second) if not state.within]
    assert {b"a" * 1024, b"b" * 100 + b"a" * 924} <= images(states)
    assert {None, b"", b"newmore", b"new"} <= images(states, "y")
    again.open("x", "w").sync()
    assert images(followed(again, second)) == {b"b" * 100 + b"a" * 924}
    assert b"a" * 1024 in images(list(disk.states(3, random.Random(0))))


def test_reproducible() -> None:
    def variants() -> list[str]:
        layer, disk = RecordingLayer({"x": bytes(4000)}), Disk({"x": bytes(4000)})
        file = layer.open("x", "w")
        for at in range(20):
            file.pwrite(bytes([at]) * 700, at * 300)
        return [f"{state.variant} {hash(state.contents['x'])}" for state in followed(layer, disk)]

    assert variants() == variants()


# -- the harness ---------------------------------------------------------------
def three(session: Session) -> None:
    db = session.open(SCHEMA, durability="full")
    for n in range(3):
        with session.commit(db, rows={i: {"n": i} for i in range(n + 1)}):
            db.insert({"n": n})
    with session.settled():
        db.close()


def test_a_workload_of_a_user() -> None:
    report = run(record(three), random_states=2)
    assert report.violations == [] and report.states > 100 and report.double > 20


def test_the_fixture(snapdb_crash: Callable[..., Report]) -> None:
    assert snapdb_crash(three, random_states=1, double_share=0.0, maps=True, path="some.db").states > 50
    with pytest.raises(pytest.fail.Exception, match="a crash after operation .* shows commit .* violations in"):
        snapdb_crash(broken, random_states=1)


def test_the_fixture_does_not_pass_over_nothing(snapdb_crash: Callable[..., Report]) -> None:
    def elsewhere(session: Session) -> None:
        with SnapDB("other.snapdb", SCHEMA) as db:
            db.insert({"n": 1})

    for workload in (elsewhere, lambda session: None):
        with pytest.raises(pytest.fail.Exception, match=r"no database with session\.open"):
            snapdb_crash(workload)


def test_the_fixture_names_a_write_outside_a_commit(snapdb_crash: Callable[..., Report]) -> None:
    def unsaid(session: Session) -> None:
        session.open(SCHEMA, durability="full").insert({"n": 1})

    with pytest.raises(pytest.fail.Exception, match=r"shows what was no commit, .* outside session\.commit"):
        snapdb_crash(unsaid)


def broken(session: Session) -> None:
    """Says of a write that it is on stable storage, which it is not."""
    db = session.open(SCHEMA, durability="normal")
    with session.commit(db, durable=True):
        db.insert({"n": 1})
    with session.settled():
        db.close()


def test_only_one_point_is_the_same_as_in_the_whole_run() -> None:
    recording = record(broken)
    whole = run(recording, random_states=3, double_share=0.0).violations
    assert whole
    point = whole[0].point
    alone = run(recording, random_states=3, double_share=0.0, points=[point]).violations
    assert alone == [one for one in whole if one.point == point]
    assert len(run(recording, random_states=3, first=True).violations) == 1


def test_the_model_is_compared() -> None:
    def wrong(session: Session) -> None:
        db = session.open(SCHEMA)
        with session.commit(db, rows={}):
            db.insert({"n": 1})

    with pytest.raises(Mismatch, match="the table holds"):
        record(wrong)


def kept(session: Session) -> None:
    """Says of a snapshot that it is on stable storage, which it is where ``durability`` says so."""
    db = session.open(SCHEMA, durability=DURABILITY["kept"])
    for n in range(2):
        with session.commit(db, durable=True):
            db.insert({"n": n})
        with session.commit(db, durable=True):
            db.snapshot("s")
    with session.settled():
        db.close()


DURABILITY = {"kept": "full"}


def test_snapshots_are_compared(monkeypatch: pytest.MonkeyPatch, snapdb_crash: Callable[..., Report]) -> None:
    recording = record(kept, see=history)
    shown = [commit.rows for commit in recording.commits[1:]]
    zero, one = {"n": 0}, {"n": 1}
    assert shown == [
        ({}, {}), ({0: zero}, {}), ({0: zero}, {"s": {0: zero}}), ({0: zero, 1: one}, {"s": {0: zero}}),
        ({0: zero, 1: one}, {"s": {0: zero, 1: one}}),
    ]  # fmt: skip
    assert snapdb_crash(kept, see=history, random_states=1, double_share=0.1).states > 50
    monkeypatch.setitem(DURABILITY, "kept", "normal")
    assert run(record(kept, see=history), random_states=1, first=True).violations
    with pytest.raises(pytest.fail.Exception, match="a crash after operation"):
        snapdb_crash(kept, see=len, random_states=1)


def test_files_that_are_there(snapdb_crash: Callable[..., Report]) -> None:
    """The workload begins with a database, and ``read`` may do more than to open one."""
    layer = RecordingLayer()
    with using(layer), SnapDB("some.db", SCHEMA, durability="full") as db:
        db.insert({"n": 7})

    def workload(session: Session) -> None:
        db = session.open(durability="full")
        with session.commit(db, rows={0: {"n": 7}, 1: {"n": 8}}):
            db.insert({"n": 8})
        with session.settled():
            db.close()

    def reading(*arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return read(*arguments, **options)

    seen: list[dict[str, Any]] = []
    options = {"files": layer.contents(), "path": "some.db", "read": reading, "options": {"timeout": 0.5}}
    report = snapdb_crash(workload, random_states=1, double_share=0.2, **options)
    assert report.states > 20 and report.double and len(seen) >= report.states
    assert all(one["timeout"] == 0.5 for one in seen)
    assert record(workload, "some.db", files=layer.contents()).commits[0].rows == {0: {"n": 7}}


def test_keys_that_change() -> None:
    """One key at a time opens a database; one that two open, or none, is found."""
    pytest.importorskip("cryptography")
    old, new, other = bytes(32), bytes([1]) * 32, bytes([2]) * 32

    def workload(session: Session) -> None:
        db = session.open(SCHEMA, durability="full")
        with session.commit(db, rows={0: {"n": 1}}):
            db.insert({"n": 1})
        session.rekey(db, new)
        with session.settled():
            db.close()

    recording = record(workload, keys=(old, new))
    assert [commit.rows for commit in recording.commits[1:]] == [(0, {}), (0, {0: {"n": 1}}), (1, {0: {"n": 1}})]
    assert not run(recording, random_states=2).violations
    for keys, wrong in (((old, other), "0 of 2 keys"), ((old, new, new), "2 of 3 keys")):
        assert wrong in run(recording._replace(keys=keys), random_states=0, first=True).violations[0].message


def test_a_limit() -> None:
    report = run(record(three), limit=10, double_share=0.0)
    assert report.states == 10 and not report.violations


def test_databases_on_a_layer() -> None:
    layer = RecordingLayer()
    with using(layer):
        with SnapDB("a", SCHEMA) as db:
            db.insert({"n": 1})
        with SnapDB("a") as db:
            assert len(db) == 1
    assert list(layer.contents()) == ["a"]
