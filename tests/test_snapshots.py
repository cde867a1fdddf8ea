"""Snapshots: made, listed, opened, gone back to, dropped, compared; on each engine and backend.

The fixture ``make`` says where the databases are: in memory or in a file. What only files have is in
``test_snapshot_file.py``.
"""

from __future__ import annotations

import datetime as dt
import gc
import itertools
import math
import struct
import threading
import tracemalloc
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Files, MakeDb
from people import SCHEMA, people, person

from snapdb import ColumnDef, Schema, SnapDB, columnar_image, errors, row_image

MakeSnapDb = Callable[..., SnapDB]
PLACES = ("memory", "file")
in_memory = pytest.mark.parametrize("make", ["memory"], indirect=True)  # what takes memory

KEYED = Schema([ColumnDef("id", "i64", primary_key=True), ColumnDef("t", "str", not_null=False)])
LOOSE = Schema([ColumnDef("n", "i32"), ColumnDef("f", "f64", not_null=False), ColumnDef("t", "str", not_null=False)])


@pytest.fixture(params=PLACES)
def make(request: pytest.FixtureRequest, make_db: MakeDb, files: Files) -> MakeSnapDb:
    """Makes an empty database from a schema."""
    if request.param == "memory":
        return make_db
    numbers = itertools.count()
    return lambda schema, **options: files.open(schema, f"{next(numbers)}.snapdb", **options)


def keyed(make: MakeSnapDb, rows: int, **options: Any) -> SnapDB:
    db = make(KEYED, **options)
    db.insert_columns({"id": range(rows), "t": [f"text {i}" for i in range(rows)]})
    return db


def loose(make: MakeSnapDb, rows: int, part: int = 4, **options: Any) -> SnapDB:
    db = make(LOOSE, **options)
    db.insert_columns(
        {"n": range(rows), "f": [i / part for i in range(rows)], "t": [f"text {i % 7}" for i in range(rows)]}
    )
    return db


def row(i: int) -> dict[str, Any]:
    return {"id": i, "t": f"text {i}"}


def names(db: SnapDB) -> list[str]:
    return [found["name"] for found in db.list_snapshots()]


def same(one: Any, other: Any) -> bool:
    """Whether long lists are equal; pytest would take minutes to say where they are not."""
    return bool(one == other)


def contents(db: SnapDB) -> list[Any]:
    """Every row by every way that must agree."""
    found = list(db)
    assert len(db) == len(found)
    assert same([(idx, db.get(idx)) for idx, _ in found], found)
    assert same(db.select(), [row for _, row in found])
    assert db.count_where([]) == len(found)
    return found


# -- made, listed, dropped -----------------------------------------------------


def test_snapshots_are_listed_newest_first(make: MakeSnapDb, engine: str) -> None:
    db = keyed(make, 3)
    assert db.list_snapshots() == []
    before = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
    assert db.snapshot("one") == "one"
    db.insert(row(3))
    db.delete(0)
    db.delete(1)
    assert db.snapshot("two") == "two"
    assert [(found["name"], found["rows"], found["storage_type"]) for found in db.list_snapshots()] == [
        ("two", 2, engine), ("one", 3, engine),
    ]  # fmt: skip
    for found in db.list_snapshots():
        assert before < found["created_at"] <= dt.datetime.now(dt.timezone.utc)
        assert found["created_at"].tzinfo is dt.timezone.utc
    db.drop_snapshot("one")
    assert names(db) == ["two"]
    with pytest.raises(KeyError, match="no snapshot 'one'"):
        db.drop_snapshot("one")
    db.drop_snapshot("two")
    assert db.list_snapshots() == []


def test_names_that_nobody_gave(make: MakeSnapDb, monkeypatch: pytest.MonkeyPatch) -> None:
    db = keyed(make, 1)
    first = db.snapshot()
    prefix, serial, day, clock = first.split("_")
    assert (prefix, serial, len(day), len(clock)) == ("snap", "1", 8, 6)
    monkeypatch.setattr("time.gmtime", lambda seconds: (2026, 1, 2, 3, 4, 5, 4, 2, 0))
    assert db.snapshot("snap_3_20260102_030405") == "snap_3_20260102_030405"
    assert db.snapshot() == "snap_3_20260102_030405_2"
    db.drop_snapshot("snap_3_20260102_030405_2")
    assert db.snapshot() == "snap_4_20260102_030405"
    assert len(db.list_snapshots()) == 3


@pytest.mark.parametrize("name", ["a", "é漢 🙂", "...", " ", "-", "x" * 65_535, "a.b", "C:", "\n", "..a"])
def test_what_can_be_a_name(make: MakeSnapDb, name: str) -> None:
    db = keyed(make, 2)
    assert db.snapshot(name) == name
    assert names(db) == [name]
    db.delete(0)
    db.restore(name)
    assert contents(db) == [(0, row(0)), (1, row(1))]
    db.drop_snapshot(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\0", "/", "\ud800", "x" * 65_536, "é" * 32_768, b"a", 1, ("a",)]
)
def test_what_cannot_be_a_name(make: MakeSnapDb, name: Any) -> None:
    db = keyed(make, 1)
    with pytest.raises(ValueError, match="name"):
        db.snapshot(name)
    assert db.list_snapshots() == []
    for call in (db.open_snapshot, db.restore, db.drop_snapshot, lambda name: db.diff_snapshots(name, name)):
        with pytest.raises(errors.NotFoundError):
            call(name)


def test_unknown_names_say_what_is_near(make: MakeSnapDb) -> None:
    db = keyed(make, 1)
    db.snapshot("before import")
    with pytest.raises(KeyError, match="did you mean 'before import'"):
        db.restore("before inport")
    with pytest.raises(KeyError, match="list_snapshots"):
        db.diff_snapshots("before import", "zzz")


def test_the_same_name_again_replaces_it(make: MakeSnapDb) -> None:
    db = keyed(make, 3)
    db.snapshot("a")
    db.snapshot("b")
    db.delete(0)
    assert db.snapshot("a") == "a"
    assert names(db) == ["a", "b"]
    assert len(db.open_snapshot("a")) == 2
    assert len(db.open_snapshot("b")) == 3


def test_many_snapshots(make: MakeSnapDb) -> None:
    db = loose(make, 2000)
    for i in range(60):
        db.update(i * 31, {"t": f"changed {i}"})
        db.insert({"n": -i})
        db.snapshot(f"s{i}")
    for i in (59, 30, 0, 7):
        with db.open_snapshot(f"s{i}") as shown:
            assert len(shown) == 2001 + i
            assert [shown.get(k * 31)["t"] for k in (0, i)] == ["changed 0", f"changed {i}"]  # type: ignore[index]
            assert i == 59 or shown.get(i * 31 + 31)["t"] == f"text {(i * 31 + 31) % 7}"  # type: ignore[index]
    for i in range(0, 60, 2):
        db.drop_snapshot(f"s{i}")
    db.restore("s11")
    assert len(db) == 2012
    assert len(db.open_snapshot("s59")) == 2060


# -- opened --------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 1000, 9000, 70_000])
def test_what_is_written_afterwards_does_not_show(make: MakeSnapDb, rows: int) -> None:
    db = loose(make, rows)
    before = contents(db)
    db.snapshot("s")
    db.insert_columns({"n": range(3000), "f": [None] * 3000, "t": ["new"] * 3000})
    for i in range(0, rows, 97):
        db.update(i, {"t": "changed", "f": -1.0})
    for i in range(5, rows, 301):
        db.delete(i)
    with db.open_snapshot("s") as shown:
        assert same(contents(shown), before)
        assert shown.stats()["rows"] == rows
    db.batch_update([], {"t": "all"})
    db.delete_where([("n", "gte", 0)])
    with db.open_snapshot("s") as shown:
        assert same(contents(shown), before)


def test_an_open_snapshot_is_a_database_of_its_own(make: MakeSnapDb, tmp_path: Path) -> None:
    db = make(SCHEMA)
    db.batch_insert(people(3000))
    db.snapshot("s")
    before = contents(db)
    shown = db.open_snapshot("s")
    assert (shown.path, shown.schema, shown.storage_type) == (db.path, db.schema, db.storage_type)
    assert "snapshot='s'" in repr(shown)
    assert shown.insert(person(5000)) == 3000
    shown.update(7, {"name": "x", "age": None})
    shown.delete(8)
    assert shown.upsert({**person(9), "name": "by key"}) == 9
    assert shown.batch_insert(people(0)) == 0
    with pytest.raises(errors.UniqueError, match="id=1000"):
        shown.insert(person(0))
    with shown.transaction():
        shown.delete_where([("id", "lt", 1005)])
        assert len(shown) == 2995
    with pytest.raises(RuntimeError, match="stop"), shown.transaction():
        shown.batch_update([], {"name": "all"})
        raise RuntimeError("stop")
    shown.flush()
    shown.checkpoint()
    assert shown.get(9) == {**person(9), "name": "by key"}
    assert same(contents(db), before)
    db.update(20, {"name": "live"})
    db.delete(21)
    assert db.insert(person(6000)) == 3000
    assert (shown.get(20), shown.get(21), shown.get(3000)) == (person(20), person(21), person(5000))
    assert shown.compact() >= 0
    assert (len(shown), shown.get(0)) == (2995, person(5))
    copy = shown.backup(tmp_path / "copy.snapdb")
    with SnapDB(copy) as opened:
        assert list(opened) == list(shown)
        assert opened.fsck()["ok"]
    assert shown.fsck()["ok"]
    assert db.fsck()["ok"]
    shown.close()
    with pytest.raises(errors.ClosedError):
        shown.insert(person(1))
    with db.open_snapshot("s") as again:  # what was written to the first one was its own
        assert same(contents(again), before)


def test_several_at_once(make: MakeSnapDb) -> None:
    db = keyed(make, 500)
    db.snapshot("s")
    shown = [db.open_snapshot("s") for _ in range(3)]
    for at, one in enumerate(shown):
        one.update(at, {"t": "mine"})
        one.insert({"id": 1000 + at, "t": None})
    for at, one in enumerate(shown):
        assert [i for i in range(500) if one.get(i) != row(i)] == [at]
        assert one.get(500) == {"id": 1000 + at, "t": None}
    assert db.get(500) is None


def test_an_open_snapshot_outlives_the_handle_it_is_of(make: MakeSnapDb) -> None:
    db = keyed(make, 2000)
    db.snapshot("s")
    db.update(5, {"t": "live"})
    shown = db.open_snapshot("s")
    db.close()
    assert same(contents(shown), [(i, row(i)) for i in range(2000)])
    shown.update(6, {"t": "mine"})
    assert shown.find(t="mine") == [{"id": 6, "t": "mine"}]
    shown.close()


def test_a_snapshot_has_no_snapshots(make: MakeSnapDb) -> None:
    db = keyed(make, 2)
    db.snapshot("s")
    shown = db.open_snapshot("s")
    assert shown.list_snapshots() == []
    calls = [
        lambda: shown.snapshot("t"), lambda: shown.open_snapshot("s"), lambda: shown.restore("s"),
        lambda: shown.drop_snapshot("s"), lambda: shown.diff_snapshots("s", "s"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(errors.NotSupportedError, match="backup"):
            call()


def test_a_key_that_is_not_needed(make: MakeSnapDb) -> None:
    db = keyed(make, 2)
    db.snapshot("s")
    with pytest.raises(errors.WrongKeyError, match="not encrypted"):
        db.open_snapshot("s", "secret")
    db.drop_snapshot("s")


def test_what_is_open_cannot_go(make: MakeSnapDb) -> None:
    db = keyed(make, 10)
    db.snapshot("s")
    db.snapshot("other")
    first, second = db.open_snapshot("s"), db.open_snapshot("s")
    for _ in range(2):
        for call in (lambda: db.drop_snapshot("s"), lambda: db.snapshot("s"), db.compact):
            with pytest.raises(errors.SnapshotInUseError, match="'s' is open in this process"):
                call()
        db.update(1, {"t": "goes on"})
        first.close()
        first.close()
    assert (len(second), names(db)) == (10, ["other", "s"])
    db.drop_snapshot("other")
    db.restore("s")  # nothing of it goes
    del second
    gc.collect()
    db.snapshot("s")
    db.compact()
    db.drop_snapshot("s")


# -- gone back to --------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 3, 1500, 9000, 66_000])
def test_restore_brings_rows_and_ids_back(make: MakeSnapDb, rows: int) -> None:
    db = loose(make, rows)
    gone = list(range(1, rows, 50))
    for i in gone:
        db.delete(i)
    before = contents(db)
    db.snapshot("s")
    for _ in range(2):
        db.insert_columns({"n": range(9000), "f": [None] * 9000, "t": ["new"] * 9000})
        db.batch_update([("n", "lt", rows // 2)], {"t": "changed"})
        db.delete_where([("n", "gt", rows - rows // 3)])
        db.restore("s")
        assert same(contents(db), before)
        assert db.insert({"n": -1, "f": 0.5, "t": None}) == rows  # given out again
        assert db.get(rows) == {"n": -1, "f": 0.5, "t": None}
        assert db.fsck()["ok"]
    assert names(db) == ["s"]
    with db.open_snapshot("s") as shown:
        assert same(contents(shown), before)


def test_what_is_held_while_it_is_restored(make: MakeSnapDb, engine: str) -> None:
    db = loose(make, 3000)
    get, insert, contains = db.get, db.insert, db.__contains__
    db.snapshot("s")
    db.batch_update([], {"t": "changed"})
    insert({"n": 1, "f": None, "t": "late"})
    items, raw, query = iter(db), db.get_raw(5), db.query(lambda row: row["n"] > 2990)
    first = next(items)
    held = None if raw is None else bytes(raw)
    db.restore("s")
    assert first[1]["t"] == "changed"
    assert [(idx, found["t"]) for idx, found in items] == [(i, "changed") for i in range(1, 3000)] + [(3000, "late")]
    assert [idx for idx, _ in query] == list(range(2991, 3000))
    assert raw is None or bytes(raw) == held
    assert get(5) == {"n": 5, "f": 1.25, "t": "text 5"}
    assert not contains(3000)
    assert insert({"n": 9, "f": 1.0, "t": "again"}) == 3000
    assert db.get(3000) == {"n": 9, "f": 1.0, "t": "again"}


def test_buffers_are_of_the_rows_that_came_back(make: MakeSnapDb) -> None:
    db = make(Schema([ColumnDef("n", "i64"), ColumnDef("f", "f64")]))
    db.insert_columns({"n": range(2000), "f": [0.5] * 2000})
    db.snapshot("s")
    db.update(3, {"n": -3})
    later = db.column_buffer("n")
    db.restore("s")
    assert same(list(db.column_buffer("n")), list(range(2000)))
    assert later[3] == -3
    assert db.aggregate("n", "sum") == sum(range(2000))
    assert db.aggregate("n", "min") == 0


def test_unique_values_come_back(make: MakeSnapDb) -> None:
    db = keyed(make, 100)
    db.snapshot("s")
    db.delete(5)
    db.update(6, {"id": 1006})
    db.insert({"id": 2000, "t": "x"})
    db.restore("s")
    for taken in (5, 6):
        with pytest.raises(errors.UniqueError):
            db.insert({"id": taken, "t": "y"})
    assert db.insert({"id": 1006, "t": "free"}) == 100
    assert db.upsert({"id": 6, "t": "changed"}) == 6
    assert db.insert({"id": 2000, "t": "free"}) == 101
    with pytest.raises(errors.UniqueError):
        db.batch_insert([{"id": 3000, "t": None}, {"id": 2000, "t": None}])


def test_forward_and_back(make: MakeSnapDb) -> None:
    db = keyed(make, 100)
    states = []
    for step in range(5):
        db.update(step, {"t": f"step {step}"})
        db.delete(50 + step)
        db.insert({"id": 1000 + step, "t": None})
        db.snapshot(str(step))
        states.append(contents(db))
    for step in (0, 4, 2, 2, 3, 1, 4, 0):
        db.restore(str(step))
        assert same(contents(db), states[step])
        db.update(90, {"t": "scribble"})
        db.delete(91)
    for step in (2, 0, 4):
        db.drop_snapshot(str(step))
    for step in (1, 3):
        db.restore(str(step))
        assert same(contents(db), states[step])


def test_restore_across_compact(make: MakeSnapDb) -> None:
    db = keyed(make, 3000)
    for i in range(0, 3000, 2):
        db.delete(i)
    before = contents(db)
    db.snapshot("s")
    db.compact()
    assert next(iter(db)) == (0, row(1))
    db.snapshot("compact")
    db.restore("s")
    assert same(contents(db), before)
    db.compact()  # a generation of its own again
    db.update(0, {"t": "x"})
    db.snapshot("again")
    assert db.diff_snapshots("compact", "again") == {"added": [], "changed": [0], "removed": []}
    assert db.diff_snapshots("s", "again") == {"added": [], "changed": [0], "removed": []}
    db.restore("compact")
    assert contents(db) == [(i, row(2 * i + 1)) for i in range(1500)]


def test_hints_come_back(backend_name: str) -> None:
    schema = Schema([ColumnDef("n", "i64"), ColumnDef("t", "str")])

    def hints(db: SnapDB) -> list[Any]:
        return [db._engine.columns[name].hint for name in ("n", "t")]

    with SnapDB(":memory:", schema, storage_type="columnar", delta_columns=["n"], dict_columns=["t"]) as db:
        db.insert_columns({"n": range(5000), "t": ["a"] * 5000})
        db.snapshot("s")
        assert hints(db) == ["delta", "dict"]
        db.insert({"n": 7, "t": "b"})
        db.insert_columns({"n": range(300), "t": [str(i) for i in range(300)]})
        assert hints(db) == [None, None]
        with db.open_snapshot("s") as opened:
            assert hints(opened) == ["delta", "dict"]
            opened.insert({"n": 0, "t": "c"})
            assert hints(opened) == [None, "dict"]
        db.restore("s")
        assert hints(db) == ["delta", "dict"]
        assert [db.get(i) for i in (0, 4999)] == [{"n": 0, "t": "a"}, {"n": 4999, "t": "a"}]


def test_inside_a_transaction(make: MakeSnapDb) -> None:
    db = keyed(make, 5)
    db.snapshot("s")
    with db.transaction():
        db.delete(0)
        for call in (lambda: db.snapshot("t"), lambda: db.restore("s"), lambda: db.drop_snapshot("s")):
            with pytest.raises(errors.TransactionError, match="inside a transaction"):
                call()
        with db.open_snapshot("s") as shown:
            assert len(shown) == 5
        assert names(db) == ["s"]
    assert len(db) == 4
    with pytest.raises(RuntimeError, match="stop"), db.transaction():
        db.update(3, {"t": "x"})
        db.batch_insert([row(i) for i in range(10, 2000)])
        raise RuntimeError("stop")
    db.snapshot("t")
    assert db.diff_snapshots("s", "t") == {"added": [], "changed": [], "removed": [0]}


def test_a_transaction_that_is_taken_back_after_a_snapshot(make: MakeSnapDb) -> None:
    db = loose(make, 5000)
    db.batch_update([("n", "lt", 20)], {"t": "before"})
    db.snapshot("s")
    before = contents(db)
    with pytest.raises(RuntimeError, match="stop"), db.transaction():
        db.batch_update([("n", "lt", 200)], {"t": "inside"})
        db.delete_where([("n", "gt", 4000)])
        db.compact()
        raise RuntimeError("stop")
    assert same(contents(db), before)
    db.batch_update([("n", "lt", 10)], {"t": "after"})
    with db.open_snapshot("s") as shown:
        assert same(contents(shown), before)
    db.restore("s")
    assert same(contents(db), before)


def test_a_snapshot_waits_for_another_thread(make: MakeSnapDb) -> None:
    db = keyed(make, 5)
    entered, done = threading.Event(), threading.Event()

    def write() -> None:
        with db.transaction():
            db.delete(0)
            entered.set()
            done.wait(10)
            db.delete(1)

    writer = threading.Thread(target=write)
    writer.start()
    entered.wait(10)
    threading.Timer(0.05, done.set).start()
    db.snapshot("s")
    writer.join()
    with db.open_snapshot("s") as shown:
        assert [idx for idx, _ in shown] == [2, 3, 4]


def test_threads_write_on_both_sides(make: MakeSnapDb) -> None:
    """Nothing of one table's writes may come out in another, whoever runs when."""
    db = loose(make, 4000)
    db.snapshot("s")
    shown = [db, *(db.open_snapshot("s") for _ in range(2))]
    problems: list[BaseException] = []

    def write(at: int) -> None:
        try:
            for i in range(150):
                shown[at].update(i * 26, {"t": f"{at} " * (i % 40)})
                shown[at].insert({"n": at, "f": None, "t": f"new {at}"})
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        db.snapshot("t")
    for thread in threads:
        thread.join()
    assert not problems
    for at, one in enumerate(shown):
        found = contents(one)
        assert [row["t"] for idx, row in found if idx < 4000 and idx % 26 == 0 and idx < 3900] == [
            f"{at} " * (i % 40) for i in range(150)
        ]
        assert {(row["n"], row["t"]) for idx, row in found if idx >= 4000} == {(at, f"new {at}")}
    db.restore("s")
    assert {row["t"] for row in db.select()} == {f"text {i}" for i in range(7)}


# -- compared ------------------------------------------------------------------


def test_diff(make: MakeSnapDb) -> None:
    db = make(SCHEMA)
    db.batch_insert(people(3000))
    db.snapshot("a")
    db.update(10, {"name": "x"})
    db.update(2999, {"age": None if person(2999)["age"] is not None else 1})
    db.update(20, {"name": person(20)["name"]})  # as it was
    db.update(21, {"city": "Rome"})
    db.update(21, {"city": person(21)["city"]})
    db.delete(30)
    db.delete(2000)
    db.insert(person(4000))
    db.insert(person(4001))
    db.delete(3001)
    db.insert(person(4002))
    db.snapshot("b")
    assert db.diff_snapshots("a", "b") == {"added": [3000, 3002], "changed": [10, 2999], "removed": [30, 2000]}
    assert db.diff_snapshots("b", "a") == {"added": [30, 2000], "changed": [10, 2999], "removed": [3000, 3002]}
    assert same(db.diff_snapshots("a", "a"), {"added": [], "changed": [], "removed": []})
    db.snapshot("c")
    assert same(db.diff_snapshots("b", "c"), {"added": [], "changed": [], "removed": []})
    db.restore("a")
    db.update(11, {"score": 1e9})
    db.snapshot("d")
    assert db.diff_snapshots("a", "d") == {"added": [], "changed": [11], "removed": []}
    assert db.diff_snapshots("b", "d") == {
        "added": [30, 2000], "changed": [10, 11, 2999], "removed": [3000, 3002],
    }  # fmt: skip


@pytest.mark.parametrize("rows", [20, 5000])
def test_diff_is_by_stored_bytes(make: MakeSnapDb, rows: int) -> None:
    schema = Schema([ColumnDef("f", "f64", not_null=False), ColumnDef("g", "f32"), ColumnDef("t", "binary")])
    db = make(schema)
    db.batch_insert({"f": math.nan if i % 2 else 0.0, "g": 0.0, "t": b""} for i in range(rows))
    db.snapshot("a")
    db.update(1, {"f": struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000))[0]})
    db.update(2, {"f": -0.0})
    db.update(3, {"f": None})
    db.update(4, {"g": -0.0})
    db.update(5, {"g": 0})
    db.update(6, {"t": b"\0"})
    db.update(7, {"f": math.nan, "t": b""})
    db.snapshot("b")
    assert db.diff_snapshots("a", "b") == {"added": [], "changed": [2, 3, 4, 6], "removed": []}


@pytest.mark.parametrize("rows", [1000, 9000, 140_000])
def test_diff_where_everything_is_stored_anew(make: MakeSnapDb, rows: int) -> None:
    """Folds, batches, sealing anew and dropped segments move rows; only what differs is told."""
    db = loose(make, rows)
    db.snapshot("a")
    db.insert_columns({"n": range(9000), "f": [None] * 9000, "t": ["new"] * 9000})
    db.snapshot("b")
    late = list(range(rows, rows + 9000))
    assert same(db.diff_snapshots("a", "b"), {"added": late, "changed": [], "removed": []})
    for _ in range(3):
        for i in range(rows):  # as it was, but sealed anew
            if i % 41 == 0:
                db.update(i, {"f": i / 4})
    db.update(77, {"f": None})
    changed = [77]
    gone = list(range(rows // 2, rows // 2 + min(rows // 4, 70_000)))
    db.delete_where([("n", "gte", gone[0]), ("n", "lte", gone[-1]), ("t", "ne", "new")])
    db.snapshot("c")
    assert same(db.diff_snapshots("b", "c"), {"added": [], "changed": changed, "removed": gone})
    assert same(db.diff_snapshots("c", "a"), {"added": gone, "changed": changed, "removed": late})
    db.delete_where([("n", "gte", 0)])
    db.snapshot("none")
    left = sorted(set(range(rows + 9000)) - set(gone))
    assert same(db.diff_snapshots("c", "none"), {"added": [], "changed": [], "removed": left})


def test_diff_across_compact(make: MakeSnapDb) -> None:
    db = keyed(make, 300)
    db.snapshot("a")
    db.delete(0)
    db.delete(7)
    db.update(9, {"t": "nine"})
    db.compact()
    db.insert({"id": 1000, "t": None})
    db.snapshot("b")
    assert db.diff_snapshots("a", "b") == {"added": [298], "changed": [7], "removed": [0, 7]}
    assert db.diff_snapshots("b", "a") == {"added": [0, 7], "changed": [9], "removed": [298]}
    assert same(db.diff_snapshots("b", "b"), {"added": [], "changed": [], "removed": []})


def test_diff_across_compact_needs_a_key(make: MakeSnapDb) -> None:
    db = loose(make, 30)
    db.snapshot("a")
    db.compact()
    db.snapshot("b")
    with pytest.raises(errors.SchemaError, match="primary key"):
        db.diff_snapshots("a", "b")
    db.update(3, {"t": "x"})
    db.snapshot("c")
    assert db.diff_snapshots("b", "c")["changed"] == [3]


@in_memory
def test_what_a_diff_looks_at(make: MakeSnapDb, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What both snapshots share is not read, so the cost follows the difference."""
    db = loose(make, 200_000)
    db.snapshot("a")
    for i in range(0, 200_000, 20_000):
        db.update(i, {"t": "changed"})
    db.delete(5)
    db.snapshot("b")
    rows = []
    for module in (row_image, columnar_image):
        compared = module.differing_rows
        monkeypatch.setattr(module, "differing_rows", lambda a, b, f=compared: [rows.append(a.rows), f(a, b)][1])
    found = db.diff_snapshots("a", "b")
    assert found == {"added": [], "changed": list(range(0, 200_000, 20_000)), "removed": [5]}
    assert sum(rows) <= (10 * 4096 // LOOSE.row_width * 3 if engine == "row" else 0)


# -- memory --------------------------------------------------------------------


def held(work: Callable[[], Any]) -> int:
    """Bytes that are allocated by work and kept."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@in_memory
def test_snapshots_take_what_is_written_since(make: MakeSnapDb) -> None:
    db = loose(make, 150_000, 7)  # as wide as they can be: no decimals
    db.snapshot("first")
    db.drop_snapshot("first")
    with SnapDB(":memory:", LOOSE, storage_type=db.storage_type) as warm:
        warm.snapshot("s")
        warm.open_snapshot("s").close()
    whole = db.memory_usage()
    kept: list[SnapDB] = []
    assert held(lambda: [db.snapshot(f"s{i}") for i in range(10)]) < whole / 20
    assert held(lambda: kept.append(db.open_snapshot("s3"))) < whole / 20

    def write() -> None:
        for i in range(0, 150_000, 15_000):
            db.update(i, {"f": 7.25})
            kept[0].update(i, {"f": 7.25})

    assert held(write) < whole / 10
    assert db.memory_usage() < whole * 1.2


@in_memory
def test_memory_usage_counts_what_only_snapshots_have(make: MakeSnapDb) -> None:
    def fill(db: SnapDB) -> None:
        rows = range(20 * 1024)  # whole blocks: the updates of a tail are counted as if no two had the same value
        db.insert_columns({"n": rows, "f": [i * 1.1 for i in rows], "t": [f"t{i}" for i in rows]})

    with SnapDB(":memory:", LOOSE, storage_type=make(LOOSE).storage_type) as warm:
        fill(warm)
        warm.snapshot("a")
        warm.batch_update([], {"f": 2.5})
        warm.memory_usage()
    made: list[SnapDB] = []

    def work() -> None:
        db = make(LOOSE)
        made.append(db)
        fill(db)
        for name, value in (("a", 1.5), ("b", 2.5)):
            db.snapshot(name)
            db.batch_update([], {"f": value, "t": name * 9})

    traced = held(work)
    db = made[0]
    assert db.memory_usage() == pytest.approx(traced, rel=0.15)  # in so few rows each object shows
    with_snapshots = db.memory_usage()
    assert db.stats()["snapshot_bytes"] > with_snapshots / 4
    assert db.stats()["memory_bytes"] == with_snapshots
    alone = with_snapshots - db.stats()["snapshot_bytes"]
    db.drop_snapshot("a")
    db.drop_snapshot("b")
    assert db.memory_usage() == alone
    assert db.stats()["snapshot_bytes"] == 0


@in_memory
def test_dropping_gives_memory_back(make: MakeSnapDb) -> None:
    db = loose(make, 8 * 1024)
    for _ in range(2):  # the first time is to warm up
        db.batch_update([], {"f": 0.0, "t": "x"})
    whole = db.memory_usage()

    def work() -> None:
        for i in range(3):
            db.snapshot(f"s{i}")
            db.batch_update([], {"f": float(i), "t": "y" * i})
        db.restore("s1")
        db.batch_update([], {"f": 0.0, "t": "x"})
        for i in range(3):
            db.drop_snapshot(f"s{i}")

    assert held(work) < whole * 1.5 + 8192  # the rows of now, which are other ones
    assert db.memory_usage() < whole * 1.2


# -- closed --------------------------------------------------------------------


def test_a_closed_database(make: MakeSnapDb) -> None:
    db = keyed(make, 2)
    db.snapshot("s")
    db.close()
    calls: list[Callable[[], Any]] = [
        lambda: db.snapshot("s"), db.list_snapshots, lambda: db.open_snapshot("s"), lambda: db.restore("s"),
        lambda: db.drop_snapshot("s"), lambda: db.diff_snapshots("s", "s"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(errors.ClosedError):
            call()
